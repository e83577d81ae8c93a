"""Addresses that a real server takes for somebody's: neither theirs nor nobody's, so that no list is open."""

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.labs.deciding import configuration, deciding, following, rcpt
from tests.labs.ldappolicy import Sections
from tests.labs.slapd import Slapd, require_slapd

pytestmark = pytest.mark.servers

DEFERRED = "DEFER_IF_PERMIT 4.3.0 Temporary lookup failure"
MODES: dict[str, Sections] = {
    "on demand": {"directory": {"watch": "off"}, "cache": {"mode": "on_demand"}},
    "mirror": {"directory": {"watch": "syncrepl"}, "cache": {"mode": "mirror"}},
    "ldif": {},
}
LOGINS = {
    "as it is": ("amy", "reject,"),
    "without case": ("AMY", "reject,"),
    "full-width letters": ("\uff41\uff4d\uff59", DEFERRED),
    "one of them": ("a\uff4dy", DEFERRED),
    "somebody else": ("ami", "REJECT"),
}
"""Amy may write to our domains only; a login that nobody has is refused."""

LISTS = {
    "as it is": ("team@my.domain", "reject,"),
    "full-width letters": ("\uff54\uff45\uff41\uff4d@my.domain", DEFERRED),
    "an accent": ("te\u00e1m@my.domain", DEFERRED),
    "somebody else": ("teem@my.domain", "DUNNO"),
}


@pytest.fixture(scope="module")
def slapd(example_ldif: Path) -> Iterator[Slapd]:
    """The example company."""
    require_slapd()
    with Slapd(schema="ldappolicy", data=example_ldif.read_text("utf-8")) as server:
        yield server


def decided(uri: str, mode: str, **attributes: str) -> str | None:
    """What is answered to a message to somebody elsewhere, but for what the attributes say."""
    request = {"sender": "x@elsewhere.example", "recipient": "friend@elsewhere.example", **attributes}

    async def story() -> str | None:
        async with AsyncExitStack() as stack:
            service = await stack.enter_async_context(deciding(uri, MODES[mode]))
            if mode == "mirror":
                followed = following(service, configuration(uri, MODES[mode]))
                assert (await stack.enter_async_context(followed)).is_mirrored
            return await service.decide(rcpt(**request))

    return asyncio.run(story())


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("login", "expected"), LOGINS.values(), ids=LOGINS)
def test_a_login_by_letters_that_the_server_folds(
    slapd: Slapd, example_ldif: Path, mode: str, login: str, expected: str
) -> None:
    """slapd finds a person by full-width letters (RFC 4518 section 2.3): neither theirs nor nobody's."""
    uri = f"ldif:{example_ldif}" if mode == "ldif" else slapd.uri
    assert expected == decided(uri, mode, sasl_username=login)


@pytest.mark.parametrize(("recipient", "expected"), LISTS.values(), ids=LISTS)
def test_a_list_by_letters_that_a_server_may_fold(example_ldif: Path, recipient: str, expected: str) -> None:
    """In a file every server's rule has to be thought of; slapd's mail is ASCII, and finds nothing."""
    assert expected == decided(f"ldif:{example_ldif}", "ldif", recipient=recipient)
