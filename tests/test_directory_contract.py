"""The contract of a directory: whichever it is, the same company gets the same decisions.

One suite over slapd, 389-ds, Samba's Active Directory and `ldif:`, asked on demand, on demand with a
change stream, and through a mirror: `ldappolicy serve` decides, and is asked as Postfix asks.
"""

import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.labs.company import MARKS, WORLDS, World
from tests.labs.ldappolicy import Ldappolicy, Sections, merged
from tests.labs.slapd import require_slapd, wait_until

MODES: dict[str, Sections] = {
    "on_demand": {
        "directory": {"watch": "off"},
        "cache": {"mode": "on_demand", "ttl": "50ms", "negative_ttl": "50ms"},
    },
    "streamed": {"directory": {"watch": "auto"}, "cache": {"mode": "on_demand"}},
    "mirror": {"directory": {"watch": "auto"}, "cache": {"mode": "mirror"}},
}
"""Ways of asking; a file has only the first."""

# Samba counts whole seconds: a time limit of one of them may be over at once.
SHORT: Sections = {"server": {"request_timeout": "20s"}, "directory": {"timeout": "6s"}}

DEFERRED = "DEFER_IF_PERMIT 4.3.0 Temporary lookup failure"
TEMPORARY = "450 4.3.0 Temporary lookup failure"
"""A refusal that rests on what may be over: the ttl, or the name of an entry that has just been changed."""

MIRROR = "mirror complete|the mirror is|everything is looked at again"
PASS, REJECT, DENIED, HOLD = "DUNNO", "reject,", "REJECT", "HOLD waits for a moderator"
NOBODY = "nobody@elsewhere.example"

SERVED = [
    pytest.param(name, mode, id=f"{name}-{mode}", marks=MARKS[name])
    for name, world in WORLDS.items()
    for mode in MODES
    if world.is_served
]
PAIRS = [*SERVED, pytest.param("ldif", "on_demand", id="ldif")]

everywhere = pytest.mark.parametrize(("world", "site"), PAIRS, indirect=True, scope="module")
where_there_is_a_server = pytest.mark.parametrize(("world", "site"), SERVED, indirect=True, scope="module")

pytestmark = pytest.mark.servers


class Site:
    """A world, and the service over it."""

    def __init__(self, world: World, service: Ldappolicy, mode: str) -> None:
        self.world = world
        self.service = service
        self.mode = mode

    def ask(self, recipient: str, sender: str = NOBODY, login: str = "") -> str | None:
        """What becomes of one message."""
        method = {"sasl_username": login, "sasl_method": "PLAIN"} if login else {}
        return self.service.ask(recipient=recipient, sender=sender, client_address="203.0.113.9", **method)

    def becomes(self, expected: str, *before: str, **asked: str) -> None:
        """Ask until the answer is that; meanwhile it is nothing but one of those before."""
        deadline = time.monotonic() + 120
        while (action := self.ask(**asked)) != expected:
            assert action in before
            assert time.monotonic() < deadline, f"still {action!r}, expected {expected!r}"
            time.sleep(0.02)

    def stays_refused(self, **asked: str) -> None:
        """Ask three times while the directory is away: for good while the answer is within its ttl."""
        if self.mode == "on_demand":
            self.becomes(TEMPORARY, REJECT, **asked)
        expected = TEMPORARY if self.mode == "on_demand" else REJECT
        assert [expected] * 3 == [self.ask(**asked) for _ in range(3)]

    def settle(self) -> None:
        """Wait until what the service keeps of the directory is complete, and what was changed is told."""
        if self.mode == "mirror":
            wait_until(lambda: "mirror complete" in self.service.log(MIRROR)[-1])
        if self.mode == "streamed":
            asked = {"recipient": OUTSIDE, "login": "gina"}
            self.becomes(PASS, REJECT, DEFERRED, TEMPORARY, **asked)
            self.change("gina", says={"smtpdSenderAccess": "local_only"})
            self.becomes(REJECT, PASS, DEFERRED, TEMPORARY, **asked)
            self.change("gina", says={})
            self.becomes(PASS, REJECT, DEFERRED, TEMPORARY, **asked)

    def change(self, name: str, **attributes: Any) -> None:
        """A change in the directory."""
        self.world.change(name, **attributes)


@pytest.fixture(scope="module")
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    """One for each directory; what a test changes it changes back."""
    if request.param == "slapd":
        require_slapd()
    with WORLDS[request.param].open() as opened:
        yield opened


@pytest.fixture(scope="module")
def site(request: pytest.FixtureRequest, world: World) -> Iterator[Site]:
    """One for each way of asking it."""
    sections = merged(SHORT, world.sections, MODES[request.param] if world.is_served else {})
    with Ldappolicy(sections) as service:
        if request.param == "streamed":
            service.wait_for_log("changes are told by")
        if request.param == "mirror":
            service.wait_for_log("mirror complete")
        yield Site(world, service, request.param)


# --- decisions: recipient, sender, login, action

OUTSIDE = "friend@outside.example"
DECISIONS = {
    # identity
    "by address": ("jane@my.domain", NOBODY, "", REJECT),
    "in capitals": ("JANE@My.Domain", NOBODY, "", REJECT),
    "by another address": ("jane.roe@my.domain", NOBODY, "", REJECT),
    "with an extension": ("jane+lists@my.domain", NOBODY, "", REJECT),
    "nobody's address": ("janet@my.domain", NOBODY, "", PASS),
    "nobody's extension": ("jan+e@my.domain", NOBODY, "", PASS),
    "a wildcard is no address": ("jan*@my.domain", NOBODY, "", PASS),
    "by login": (OUTSIDE, NOBODY, "amy", REJECT),
    "by login in capitals": (OUTSIDE, NOBODY, "AMY", REJECT),
    "a wildcard is no login": (OUTSIDE, NOBODY, "am*", PASS),
    "by sender address": (OUTSIDE, "amy.ander@my.domain", "", REJECT),
    "by sender address with an extension": (OUTSIDE, "amy+x@my.domain", "", REJECT),
    "the null sender": (OUTSIDE, "", "", PASS),
    # local domains
    "restricted, to a local domain": ("friend@other.example", NOBODY, "amy", PASS),
    "restricted, to a local domain in capitals": ("friend@OTHER.example", NOBODY, "amy", PASS),
    "restricted, to what ends like one": ("friend@another.example", NOBODY, "amy", REJECT),
    "domain that takes nothing": ("anybody@closed.example", NOBODY, "", REJECT),
    "domain above one": ("anybody@sub.closed.example", NOBODY, "", REJECT),
    "domain that ends like one": ("anybody@notclosed.example", NOBODY, "", PASS),
    # restricted by group
    "restricted by group": (OUTSIDE, NOBODY, "bob", REJECT),
    "restricted by the group around": (OUTSIDE, NOBODY, "carol", REJECT),
    "the group of lower priority": (OUTSIDE, NOBODY, "dan", PASS),
    "restricted by no group": (OUTSIDE, NOBODY, "erin", PASS),
    "restricted by group, by address": (OUTSIDE, "bob@my.domain", "", REJECT),
    # nested membership, with a loop
    "member": ("team@my.domain", NOBODY, "amy", PASS),
    "member of a member": ("team@my.domain", NOBODY, "bob", PASS),
    "member at the third level": ("team@my.domain", NOBODY, "carol", PASS),
    "no member": ("team@my.domain", NOBODY, "erin", REJECT),
    "no login": ("team@my.domain", "amy@my.domain", "", REJECT),
    "member of many": ("crowd@my.domain", NOBODY, "dan", PASS),
    "no member of many": ("crowd@my.domain", NOBODY, "erin", REJECT),
    "member by address": ("club@my.domain", "o'brien@my.domain", "", PASS),
    "member of a member by address": ("club@my.domain", "mia@other.example", "", PASS),
    "no member by address": ("club@my.domain", "erin@my.domain", "", REJECT),
    # allowed and denied
    "allowed by domain": ("press@my.domain", NOBODY, "pat", PASS),
    "allowed by group": ("press@my.domain", NOBODY, "mia", PASS),
    "allowed by a group around": ("press@my.domain", NOBODY, "bob", PASS),
    "denied by address": ("press@my.domain", NOBODY, "eve", DENIED),
    "denied by DN, allowed by group": ("press@my.domain", NOBODY, "ned", DENIED),
    "denied by group": ("press@my.domain", NOBODY, "carol", DENIED),
    "not allowed": ("press@my.domain", NOBODY, "erin", REJECT),
    "allowed address without a login": ("press@my.domain", "news@my.domain", "", REJECT),
    "denied address with a login that is allowed": ("press@my.domain", "eve@partner.example", "pat", DENIED),
    # owners, moderators
    "owner": ("board@my.domain", NOBODY, "mia", PASS),
    "member, not owner": ("board@my.domain", NOBODY, "ned", REJECT),
    "moderator": ("announce@my.domain", NOBODY, "gina", PASS),
    "no moderator": ("announce@my.domain", NOBODY, "amy", HOLD),
}


@everywhere
@pytest.mark.parametrize(("recipient", "sender", "login", "action"), DECISIONS.values(), ids=DECISIONS.keys())
def test_decision(site: Site, recipient: str, sender: str, login: str, action: str) -> None:
    """Every directory, in every way of asking, decides as the table says."""
    assert action == site.ask(recipient, sender, login)


# --- changes: what is changed, whom it concerns, what becomes of him

CHANGES: dict[str, tuple[str, dict[str, Any], tuple[str, str], str, str]] = {
    "a new member": (
        *("team", {"members": ("amy", "inner", "erin")}),
        *(("team@my.domain", "erin"), REJECT, PASS),
    ),
    "a new member far below": (
        *("innermost", {"members": ("carol", "team", "ned")}),
        *(("team@my.domain", "ned"), REJECT, PASS),
    ),
    "a member that leaves": (
        *("inner", {"members": ("innermost",)}),
        *(("team@my.domain", "bob"), PASS, REJECT),
    ),
    "a group that leaves": (
        *("team", {"members": ("amy",)}),
        *(("team@my.domain", "carol"), PASS, REJECT),
    ),
    "a group that restricts no more": (
        *("restricted", {"says": {}}),
        *((OUTSIDE, "carol"), REJECT, PASS),
    ),
    "a group that restricts now": (
        *("managers", {"says": {"smtpdMemberSenderAccess": "local_only"}}),
        *((OUTSIDE, "mia"), PASS, REJECT),
    ),
    "a user who is restricted now": (
        *("erin", {"says": {"smtpdSenderAccess": "local_only"}}),
        *((OUTSIDE, "erin"), PASS, REJECT),
    ),
    "another address": (
        *("jane", {"addresses": ("jane@my.domain", "j.roe@my.domain")}),
        *(("j.roe@my.domain", ""), PASS, REJECT),
    ),
    "an address given up": (
        *("jane", {"addresses": ("jane@my.domain",)}),
        *(("jane.roe@my.domain", ""), REJECT, PASS),
    ),
    "another owner": (
        *("board", {"owner": "erin"}),
        *(("board@my.domain", "erin"), REJECT, PASS),
    ),
    "another moderator": (
        *("announce", {"moderators": ("amy",)}),
        *(("announce@my.domain", "amy"), HOLD, PASS),
    ),
    "denied now": (
        *("press", {"denied": ("pat@partner.example",)}),
        *(("press@my.domain", "pat"), PASS, DENIED),
    ),
    "a domain opened": (
        *("closed.example", {"says": {}}),
        *(("x@closed.example", ""), REJECT, PASS),
    ),
}


@everywhere
@pytest.mark.parametrize(("name", "change", "asked", "before", "after"), CHANGES.values(), ids=CHANGES.keys())
def test_change(
    site: Site, name: str, change: dict[str, Any], asked: tuple[str, str], before: str, after: str
) -> None:
    """What was decided is decided otherwise once the directory is, and again when it is changed back."""
    was = site.world.things[name]
    of = {"recipient": asked[0], "login": asked[1]}
    site.becomes(before, TEMPORARY, **of)
    site.change(name, **change)
    site.becomes(after, before, TEMPORARY, **of)
    site.change(name, **{key: getattr(was, key) for key in change})
    site.becomes(before, after, TEMPORARY, **of)


# --- outages

KNOWN = {"recipient": "jane@my.domain"}
UNKNOWN = {"recipient": "quiet@my.domain"}


@where_there_is_a_server
def test_killed_and_restarted(site: Site) -> None:
    """What is known stays decided, what is not is deferred (a mirror knows it); then all is as before."""
    site.settle()
    site.becomes(REJECT, TEMPORARY, **KNOWN)
    site.world.kill()
    try:
        site.stays_refused(**KNOWN)
        expected = REJECT if site.mode == "mirror" else DEFERRED
        assert [expected] * 3 == [site.ask(**UNKNOWN) for _ in range(3)]
    finally:
        site.world.start()
    site.becomes(REJECT, DEFERRED, TEMPORARY, **UNKNOWN)
    site.becomes(PASS, DEFERRED, TEMPORARY, recipient="team@my.domain", login="amy")
    site.becomes(REJECT, DEFERRED, TEMPORARY, recipient="crowd@my.domain", login="erin")


@where_there_is_a_server
def test_suspended_and_resumed(site: Site) -> None:
    """The same where the server keeps its connections and says nothing."""
    asked = {"recipient": "never.asked@my.domain"}
    site.settle()
    site.becomes(REJECT, DEFERRED, TEMPORARY, **KNOWN)
    site.world.suspend()
    try:
        site.stays_refused(**KNOWN)
        assert site.ask(**asked) == (PASS if site.mode == "mirror" else DEFERRED)
    finally:
        site.world.resume()
    site.becomes(PASS, DEFERRED, TEMPORARY, **asked)
    site.becomes(REJECT, DEFERRED, TEMPORARY, **KNOWN)


@where_there_is_a_server
def test_change_after_an_outage(site: Site) -> None:
    """Changes are seen again, those that were made meanwhile as well."""
    asked = {"recipient": OUTSIDE, "login": "gina"}
    site.becomes(PASS, DEFERRED, TEMPORARY, **asked)
    site.world.kill()
    site.world.start()
    site.change("gina", says={"smtpdSenderAccess": "local_only"})
    site.becomes(REJECT, PASS, DEFERRED, TEMPORARY, **asked)
    site.change("gina", says={})
    site.becomes(PASS, REJECT, DEFERRED, TEMPORARY, **asked)
