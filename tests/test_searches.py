"""What a decision costs the directory, in searches: on every server, whatever the size of the list.

The counts are those of the connection, with nothing known but the policies; what everybody needs (which
groups are dynamic, which carry rules) is asked for once with them.
"""

import asyncio
from collections.abc import Iterator

import pytest

from ldappolicy.directory.ldap import LdapDirectory
from ldappolicy.service import Service
from tests.labs.company import MARKS, WORLDS, World
from tests.labs.deciding import deciding, rcpt
from tests.labs.ldappolicy import merged
from tests.labs.slapd import require_slapd

PASS, REJECT = "DUNNO", "reject,"
OUTSIDE = "friend@outside.example"
SENDER = "somebody@elsewhere.example"

SERVERS = [
    pytest.param(name, id=name, marks=MARKS[name]) for name, world in WORLDS.items() if world.is_served
]

pytestmark = pytest.mark.servers


@pytest.fixture(scope="module", params=SERVERS)
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    """One for each server."""
    if request.param == "slapd":
        require_slapd()
    with WORLDS[request.param].open() as opened:
        yield opened


def searches(service: Service) -> int:
    """How many were sent so far."""
    directory = service.resolver.directory
    assert isinstance(directory, LdapDirectory)
    return directory.searches


async def cost(service: Service, recipient: str, login: str, expected: str) -> int:
    """The searches of one decision."""
    before = searches(service)
    decided = await service.decide(rcpt(sender=SENDER, recipient=recipient, sasl_username=login))
    assert decided == expected
    return searches(service) - before


def costs(world: World, *asked: tuple[str, str, str]) -> list[int]:
    """What each of some decisions costs a service that has just started, one behind the other."""

    async def story() -> list[int]:
        sections = merged(world.sections, {"cache": {"mode": "on_demand"}, "directory": {"watch": "off"}})
        async with deciding(world.uri, sections) as service:
            return [await cost(service, *one) for one in asked]

    return asyncio.run(story())


@pytest.mark.parametrize(
    ("recipient", "login", "action"),
    [
        pytest.param("team@my.domain", "amy", PASS, id="member of a small list"),
        pytest.param("crowd@my.domain", "dan", PASS, id="member of a large list"),
        pytest.param("crowd@my.domain", "erin", REJECT, id="no member of a large list"),
        pytest.param(OUTSIDE, "amy", REJECT, id="restricted person"),
        pytest.param("jane@my.domain", "", REJECT, id="restricted recipient"),
        pytest.param("nobody@nowhere.example", "", PASS, id="nobody"),
    ],
)
def test_a_cold_decision_takes_two(world: World, recipient: str, login: str, action: str) -> None:
    """Who they are, and what is around them; and then it takes none."""
    first, again = costs(world, (recipient, login, action), (recipient, login, action))
    assert (first <= 2, again) == (True, 0), first


def test_a_second_member_of_known_groups_takes_no_more(world: World) -> None:
    """What is around the groups is known by then."""
    _, second = costs(world, (OUTSIDE, "bob", REJECT), ("team@my.domain", "amy", PASS))
    assert second <= 2
