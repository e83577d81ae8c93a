"""A service whose directory goes away: what is decided as its answers grow old, to the second."""

import asyncio
from collections.abc import Sequence

import pytest

from ldappolicy.decision_log import DecisionLog, decision_ids
from ldappolicy.directory import Features, Search
from ldappolicy.directory.ldif import LdifDirectory
from ldappolicy.directory.plan import Planner, Where
from ldappolicy.entry import Entry
from ldappolicy.errors import Unavailable
from ldappolicy.evaluate import Choices
from ldappolicy.mapping import PROFILES
from ldappolicy.request import Request
from ldappolicy.resolver import Limits, Resolver
from ldappolicy.service import Service, Settings
from tests.labs.deciding import Kept
from tests.language import BASE, entry, group, person, policy

MAPPING = PROFILES["generic"]
UNTIL_KNOWN = "450 4.3.0 Temporary lookup failure"
DEFERRED = "DEFER_IF_PERMIT 4.3.0 Temporary lookup failure"
AMY, ZOE = "amy@my.domain", "zoe@my.domain"

TTL, NEGATIVE_TTL, MAX_STALE = 300.0, 60.0, 3600.0


class Away(LdifDirectory):
    """A directory in memory that can be away, and does not stand for a mirror."""

    is_away = False
    features = Features()

    async def search(self, search: Search) -> Sequence[Entry]:
        """What is found while it is there."""
        if self.is_away:
            raise Unavailable("gone")
        return await super().search(search)


class Stage:
    """A service whose answers are asked on demand; `now` is in seconds since it began."""

    def __init__(self, *entries: Entry, on_unavailable: str = "defer") -> None:
        root = [Entry(BASE, {"dc": ["example"]}), entry("ou=policy", ou="policy"), entry("ou=people", ou="x")]
        self.directory = Away([*root, *entries])
        self.now = 0.0
        limits = Limits(ttl=TTL, negative_ttl=NEGATIVE_TTL, max_stale=MAX_STALE)
        resolver = Resolver(self.directory, Planner(Where(BASE), MAPPING), limits, lambda: self.now)
        choices = Choices(on_unavailable=on_unavailable)
        log = DecisionLog("none", "text", Kept(), decision_ids())
        self.service = Service(resolver, Settings(BASE, f"ou=policy,{BASE}", MAPPING, choices), log)

    async def asked(self, at: float, sender: str = ZOE, login: str = "") -> str | None:
        """What is answered at that moment, from bytes as long as that is possible."""
        self.now = at
        given = {"protocol_state": "RCPT", "sender": sender, "recipient": "all@my.domain"}
        if login:
            given |= {"sasl_username": login, "sasl_method": "PLAIN"}
        lines = "".join(f"{name}={given.get(name, '')}\n" for name in Request._fields)
        answer = self.service.answer(f"request=smtpd_access_policy\n{lines}\n".encode())
        if isinstance(answer, bytes):
            return answer.decode().strip().removeprefix("action=")
        assert answer is not None
        return await self.service.decide(answer)


MEMBERS = policy(recipient="check_sender_access recipient:members, reject")
ACCESS = policy(recipient="check_sender_access directory:access, permit")
LIST = group("all", [f"uid=amy,ou=people,{BASE}"], mail="all@my.domain")
RESTRICTED = person("amy", smtpdSenderAccess="550 5.7.1 amy stays in")
OWNERS = policy(recipient="reject_sender_login_mismatch, permit")

STORIES = [
    pytest.param(MEMBERS, ZOE, "", "reject,", UNTIL_KNOWN, NEGATIVE_TTL, id="an absent sender"),
    pytest.param(
        ACCESS, AMY, "", "550 5.7.1 amy stays in", "450 4.3.0 amy stays in", TTL, id="a value found"
    ),
    pytest.param(
        OWNERS, AMY, "zoe", "553 5.7.1 not owned by user zoe", UNTIL_KNOWN, NEGATIVE_TTL, id="a login"
    ),
    pytest.param(MEMBERS, AMY, "", "DUNNO", "DUNNO", TTL, id="a member passes"),
]


@pytest.mark.parametrize(("rules", "sender", "login", "fresh", "old", "ttl"), STORIES)
@pytest.mark.parametrize("step", [0.5, 3.0, 20.0])
def test_a_refusal_turns_with_what_it_rests_on(
    rules: Entry, sender: str, login: str, fresh: str, old: str, ttl: float, step: float
) -> None:
    """For good until the first answer is past its ttl, for a while from then on; never a moment later.

    However often it is asked meanwhile, and whatever is kept of decisions.
    """

    async def story() -> None:
        stage = Stage(rules, LIST, RESTRICTED)
        await stage.service.reload()
        assert await stage.asked(0.0, sender, login) == fresh
        stage.directory.is_away = True
        at = max(0.0, ttl - 20 * step)
        while (at := at + step) < ttl + 20 * step:
            assert await stage.asked(at, sender, login) == (fresh if at < ttl else old), at

    asyncio.run(story())


def test_it_is_for_good_again_once_the_directory_answers() -> None:
    """And past max_stale nothing is known."""

    async def story() -> None:
        stage = Stage(MEMBERS, LIST, RESTRICTED)
        await stage.service.reload()
        assert await stage.asked(0.0) == "reject,"
        stage.directory.is_away = True
        assert await stage.asked(3000.0) == UNTIL_KNOWN
        assert await stage.asked(3600.0) == DEFERRED
        stage.directory.is_away = False
        assert await stage.asked(3601.0) == "reject,"

    asyncio.run(story())


@pytest.mark.parametrize("choice", ["dunno", "disconnect"])
def test_on_unavailable_is_about_what_is_not_known(choice: str) -> None:
    """What is known, if only from before, still refuses."""

    async def story() -> None:
        stage = Stage(MEMBERS, LIST, RESTRICTED, on_unavailable=choice)
        await stage.service.reload()
        await stage.asked(0.0)
        stage.directory.is_away = True
        assert await stage.asked(400.0) == UNTIL_KNOWN

    asyncio.run(story())
