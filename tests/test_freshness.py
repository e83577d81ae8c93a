"""What is known follows the directory: in a mirror and on demand, by what a real server tells or not."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from ldappolicy import freshness
from ldappolicy.directory.ldap import LdapDirectory
from ldappolicy.entry import Entry
from ldappolicy.errors import Unavailable
from ldappolicy.freshness import Freshness
from ldappolicy.service import Service
from tests.labs.deciding import configuration, deciding, following, rcpt, until
from tests.labs.ldappolicy import Ldappolicy, Sections
from tests.labs.slapd import Slapd

pytestmark = pytest.mark.servers

BASE = "dc=example,dc=com"
MODES = ("on_demand", "mirror")
PASSES, REFUSED, UNTIL_KNOWN = "DUNNO", "reject,", "450 4.3.0 Temporary lookup failure"


@pytest.fixture
def slapd(example_ldif: Path) -> Iterator[Slapd]:
    """The example company, in a server that tells of changes and keeps references whole."""
    with Slapd(schema="ldappolicy", overlays=("refint", "syncprov")) as server:
        server.load(example_ldif)
        yield server


@dataclass
class Site:
    """A service that follows its directory."""

    service: Service
    freshness: Freshness

    async def ask(self, sender: str, recipient: str, login: str = "") -> str | None:
        """The decision for a recipient."""
        return await self.service.decide(rcpt(sender=sender, recipient=recipient, sasl_username=login))

    async def becomes(self, expected: str, *request: str) -> None:
        """Waits until the decision is this one."""
        async with asyncio.timeout(120):
            while await self.ask(*request) != expected:  # noqa: ASYNC110  # nothing tells of it
                await asyncio.sleep(0.005)

    @property
    def searches(self) -> int:
        """How many the directory has been sent."""
        directory = self.service.resolver.directory
        assert isinstance(directory, LdapDirectory)
        return directory.searches


@asynccontextmanager
async def site(server: Slapd, mode: str = "on_demand", **cache: str | int) -> AsyncIterator[Site]:
    """One over a server, in a mode of the cache."""
    sections: Sections = {"cache": {"mode": mode, **cache}, "directory": {"profile": "openldap"}}
    config = configuration(server.uri, sections)
    async with deciding(server.uri, sections) as service, following(service, config) as followed:
        yield Site(service, followed)


def modify(dn: str, *changes: str) -> str:
    """A change record."""
    return "\n".join((f"dn: {dn},{BASE}", "changetype: modify", *changes, ""))


OFFSITE = "friend@elsewhere.example"
BOB = ("bob@my.domain", OFFSITE, "bob")
MIA = ("mia@my.domain", OFFSITE, "mia")
CAROL = ("carol@my.domain", OFFSITE, "carol")
TO_TEAM = ("mia@my.domain", "team@my.domain", "mia")
TO_PRESS = ("mia@my.domain", "press@my.domain", "mia")

# A change record, and who is decided otherwise from then on.
CHANGES = {
    "member added": (
        modify("cn=restricted,ou=groups", "add: member", f"member: uid=mia,ou=people,{BASE}"),
        *(MIA, PASSES, REFUSED),
    ),
    "member deleted": (
        modify("cn=restricted,ou=groups", "delete: member", f"member: uid=bob,ou=people,{BASE}"),
        *(BOB, REFUSED, PASSES),
    ),
    "nested member deleted": (
        modify("cn=restricted,ou=groups", "delete: member", f"member: cn=contractors,ou=groups,{BASE}"),
        *(CAROL, REFUSED, PASSES),
    ),
    "access of a group deleted": (
        modify("cn=restricted,ou=groups", "delete: smtpdMemberSenderAccess"),
        *(BOB, REFUSED, PASSES),
    ),
    "access of a person added": (
        modify("uid=mia,ou=people", "add: objectClass", "objectClass: smtpdAccessControl", "-")
        + "add: smtpdSenderAccess\nsmtpdSenderAccess: local_only\n",
        *(MIA, PASSES, REFUSED),
    ),
    "group deleted": (
        f"dn: cn=restricted,ou=groups,{BASE}\nchangetype: delete\n",
        *(BOB, REFUSED, PASSES),
    ),
    "group added": (
        "\n".join(
            (
                *(f"dn: cn=new,ou=groups,{BASE}", "objectClass: groupOfNames"),
                *("objectClass: smtpdAccessControl", "cn: new", f"member: uid=mia,ou=people,{BASE}"),
                "smtpdMemberSenderAccess: local_only",
            )
        ),
        *(MIA, PASSES, REFUSED),
    ),
    "list joined": (
        modify("cn=team,ou=lists", "add: member", f"member: cn=managers,ou=groups,{BASE}"),
        *(TO_TEAM, REFUSED, PASSES),
    ),
    "sender denied": (
        modify("cn=press,ou=lists", "add: smtpdDeniedSender", "smtpdDeniedSender: mia@my.domain"),
        *(TO_PRESS, PASSES, "REJECT"),
    ),
    "address moved": (
        modify("uid=mia,ou=people", "delete: mail", "mail: mia@other.example")
        + f"\n{modify('uid=amy,ou=people', 'add: mail', 'mail: mia@other.example')}",
        *(("mia@other.example", OFFSITE), PASSES, REFUSED),
    ),
    "class changed": (
        modify(
            "cn=local_only,ou=classes,ou=policy", "replace: smtpdRestrictions", "smtpdRestrictions: permit"
        ),
        *(BOB, REFUSED, PASSES),
    ),
    "domain entry added": (
        "\n".join(
            (
                *(f"dn: ou=elsewhere.example,ou=domains,{BASE}", "objectClass: organizationalUnit"),
                *("objectClass: domainRelatedObject", "objectClass: smtpdAccessControl"),
                *("ou: elsewhere.example", "associatedDomain: elsewhere.example"),
                "smtpdRecipientAccess: REJECT not there",
            )
        ),
        *(MIA, PASSES, "REJECT not there"),
    ),
    "member renamed": (
        f"dn: uid=bob,ou=people,{BASE}\nchangetype: modrdn\nnewrdn: uid=robert\ndeleteoldrdn: 0\n",
        *(("bob@my.domain", "team@my.domain", "robert"), "REJECT", PASSES),
    ),
    "container renamed": (
        f"dn: ou=groups,{BASE}\nchangetype: modrdn\nnewrdn: ou=teams\ndeleteoldrdn: 1\n\n"
        + modify("cn=restricted,ou=teams", "delete: member", f"member: uid=bob,ou=people,{BASE}"),
        *(BOB, REFUSED, PASSES),
    ),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_in_force(slapd: Slapd, mode: str, name: str) -> None:
    """Whatever is known by then, and without a search from a mirror."""
    record, request, before, after = CHANGES[name]

    async def story() -> None:
        async with site(slapd, mode) as here:
            assert await here.ask(*request) == before
            await asyncio.to_thread(slapd.load, record)
            await here.becomes(after, *request)

    asyncio.run(story())


def test_a_mirrored_decision_asks_nothing(slapd: Slapd) -> None:
    """Neither for whom it knows nor for whom there is not."""

    async def story() -> None:
        async with site(slapd, "mirror") as here:
            searches = here.searches
            decisions = [await here.ask(*request) for request in (BOB, MIA, CAROL, TO_TEAM, TO_PRESS)]
            assert decisions == [REFUSED, PASSES, REFUSED, REFUSED, PASSES]
            assert await here.ask("nobody@nowhere.example", "nobody@my.domain", "nobody") == "REJECT"
            assert here.searches == searches

    asyncio.run(story())


def test_a_change_concerns_whom_it_concerns(slapd: Slapd) -> None:
    """On demand: the others are answered from what is known."""
    record = CHANGES["member added"][0]

    async def story() -> None:
        async with site(slapd) as here:
            for request in (BOB, MIA, CAROL, TO_PRESS):
                await here.ask(*request)
            changes = here.freshness.counters.changes.values()
            await asyncio.to_thread(slapd.load, record)
            await until(lambda: here.freshness.counters.changes.values() != changes)
            await here.becomes(REFUSED, *MIA)
            searches = here.searches
            assert await here.ask("joe@my.domain", "jane@my.domain") is not None
            assert here.searches > searches, "somebody who was not known is asked for"
            await here.ask("amy@my.domain", OFFSITE, "amy")
            searches = here.searches
            assert [await here.ask("amy@my.domain", OFFSITE, "amy")] == [REFUSED]
            assert here.searches == searches

    asyncio.run(story())


def test_answers_outlive_their_ttl_while_changes_are_told(slapd: Slapd) -> None:
    """The stream vouches for them."""

    async def story() -> None:
        async with site(slapd, ttl="100ms", negative_ttl="100ms") as here:
            for _ in range(2):  # what was asked before the stream was live is asked once more
                await here.ask(*BOB)
                await asyncio.sleep(0.2)  # what is waited for is that nothing happens
            searches = here.searches
            assert await here.ask(*BOB) == REFUSED
            assert here.searches == searches

    asyncio.run(story())


@pytest.mark.parametrize("mode", MODES)
def test_an_outage_changes_the_age_alone(slapd: Slapd, mode: str) -> None:
    """What is known is decided as before, and what happened meanwhile is seen when the server is back."""

    async def story() -> None:
        async with site(slapd, mode) as here:
            known = here.service.resolver
            assert (await here.ask(*BOB), known.data_age) == (REFUSED, 0)
            slapd.kill()
            await until(lambda: bool(known.data_age))
            assert await here.ask(*BOB) == REFUSED
            if mode == "mirror":
                assert (await here.ask(*MIA), await here.ask(*CAROL)) == (PASSES, REFUSED)
            slapd.start()
            await asyncio.to_thread(slapd.load, CHANGES["member deleted"][0])
            await here.becomes(PASSES, *BOB)
            await until(lambda: known.data_age == 0)

    asyncio.run(story())


def test_a_bad_edit_leaves_the_last_good_policy(slapd: Slapd, caplog: pytest.LogCaptureFixture) -> None:
    """It is said at once, and undone by the next good one."""
    broken = "smtpdSenderRestrictions: check_sender_access {"

    async def story() -> None:
        async with site(slapd) as here:
            assert await here.ask(*BOB) == REFUSED
            record = modify("cn=default,ou=policy", "replace: smtpdSenderRestrictions", broken)
            await asyncio.to_thread(slapd.load, record)
            await until(lambda: "smtpdSenderRestrictions" in caplog.text)
            assert await here.ask(*BOB) == REFUSED
            record = modify("cn=default,ou=policy", "delete: smtpdSenderRestrictions")
            await asyncio.to_thread(slapd.load, record)
            await here.becomes(PASSES, *BOB)

    asyncio.run(story())


def test_a_directory_that_is_too_large_is_asked_on_demand(
    slapd: Slapd, caplog: pytest.LogCaptureFixture
) -> None:
    """Changes are told all the same."""

    async def story() -> None:
        async with site(slapd, "auto", mirror_max_entries=10) as here:
            await until(lambda: "asked on demand" in caplog.text)
            assert not here.freshness.is_mirrored
            assert await here.ask(*BOB) == REFUSED
            await asyncio.to_thread(slapd.load, CHANGES["member deleted"][0])
            await here.becomes(PASSES, *BOB)

    asyncio.run(story())


def test_groups_outside_of_search_base_are_no_less(
    example_ldif: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Only memberOf names them, which is not in a mirror: then there is none."""
    sections: Sections = {
        "cache": {"mode": "auto"},
        "directory": {"profile": "openldap", "search_base": f"ou=people,{BASE}"},
    }
    caplog.set_level("INFO")
    with Slapd(schema="ldappolicy", overlays=("memberof", "syncprov")) as server:
        server.load(example_ldif)
        config = configuration(server.uri, sections)

        async def story() -> None:
            async with deciding(server.uri, sections) as service, following(service, config) as followed:
                await until(lambda: "no mirror" in caplog.text)
                assert (await Site(service, followed).ask(*BOB), followed.is_mirrored) == (REFUSED, False)

        asyncio.run(story())


def test_a_comparison_finds_what_was_missed(
    slapd: Slapd, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A change of which nothing was told is repaired, counted and said."""

    async def story() -> None:
        async with site(slapd, "mirror") as here:
            assert await here.ask(*BOB) == REFUSED
            monkeypatch.setattr(here.freshness, "_changed", lambda change: None)
            await asyncio.to_thread(slapd.load, CHANGES["member deleted"][0])
            here.freshness.compare()
            await here.becomes(PASSES, *BOB)
            assert here.freshness.missed == 1
            assert here.freshness.counters.changes.values()["comparison"] == 1
            assert "1 changes had been missed" in caplog.text

    asyncio.run(story())


def test_what_a_comparison_finds_is_in_force_though_another_is_wanted(
    slapd: Slapd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And though that one fails: the mirror has the new content, and replies are not of the old one."""

    async def story() -> None:
        async with site(slapd, "mirror") as here:
            directory = here.service.resolver.directory
            assert isinstance(directory, LdapDirectory)
            scan, scans = directory.scan, 0

            def scanned(base: str, attributes: Sequence[str]) -> AsyncGenerator[list[Entry], None]:
                nonlocal scans
                scans += 1
                if scans > 1:
                    raise Unavailable("the second one fails")
                here.freshness.compare()
                return scan(base, attributes)

            assert await here.ask(*BOB) == REFUSED
            monkeypatch.setattr(here.freshness, "_changed", lambda change: None)
            monkeypatch.setattr(directory, "scan", scanned)
            await asyncio.to_thread(slapd.load, CHANGES["member deleted"][0])
            here.freshness.compare()
            await until(lambda: scans == 2)
            assert (await here.ask(*BOB), here.freshness.missed) == (PASSES, 1)
            assert here.freshness.is_mirrored

    asyncio.run(story())


def test_a_service_whose_mirror_has_to_be_wider_goes_on(slapd: Slapd) -> None:
    """The whole program: it watches anew, and neither that nor the mirror's completion ends it."""
    with Ldappolicy({"directory": {"uri": [slapd.uri]}, "cache": {"mode": "mirror"}}) as service:
        service.wait_for_log("watched anew")
        service.wait_for_log("mirror complete")
        assert service.ask(sender=BOB[0], recipient=BOB[1], sasl_username=BOB[2]) == REFUSED
        assert (service.process.poll(), service.log("Traceback"), service.stop()) == (None, [], 0)


def test_without_an_overlay_changes_are_polled_for(example_ldif: Path) -> None:
    """A server that tells nothing is asked what has been modified."""
    with Slapd(schema="ldappolicy", overlays=()) as server:
        server.load(example_ldif)
        sections: Sections = {"cache": {"mode": "on_demand"}, "directory": {"poll_interval": "1s"}}
        config = configuration(server.uri, sections)

        async def story() -> None:
            async with deciding(server.uri, sections) as service, following(service, config) as followed:
                here = Site(service, followed)
                assert (await here.ask(*BOB), followed.kind) == (REFUSED, "poll")
                await asyncio.to_thread(server.load, CHANGES["member deleted"][0])
                await here.becomes(PASSES, *BOB)

        asyncio.run(story())


# --- names that are left ------------------------------------------------------------------------------


def renamed(dn: str, rdn: str, superior: str = "") -> str:
    """A record that gives an entry another name, and perhaps another place."""
    to = f"newsuperior: {superior},{BASE}\n" if superior else ""
    return f"dn: {dn},{BASE}\nchangetype: modrdn\nnewrdn: {rdn}\ndeleteoldrdn: 0\n{to}"


JOINED = modify("cn=team,ou=lists", "add: member", f"member: cn=managers,ou=groups,{BASE}")
ALLOWED = modify(
    "cn=team,ou=lists",
    *("replace: smtpdRecipientAccess", "smtpdRecipientAccess: allowed_only", "-"),
    *("add: smtpdAllowedSenderDN", f"smtpdAllowedSenderDN: uid=amy,ou=people,{BASE}"),
)
# Which DNs referential integrity amends is the site's choice.
AMENDED = (
    "dn: olcOverlay={0}refint,olcDatabase={1}mdb,cn=config\nchangetype: modify\n"
    "add: olcRefintAttribute\nolcRefintAttribute: smtpdAllowedSenderDN\n"
)
AMY = ("amy@my.domain", "team@my.domain", "amy")
BY_ADDRESS = ("amy@my.domain", "team@my.domain", "amy@my.domain")

# What is there before, the record, the old name, and a request whose answer is the same all the time.
RENAMES = {
    "a member": ("", renamed("uid=amy,ou=people", "uid=amelia"), "uid=amy,ou=people", AMY, PASSES),
    "a member who moves": (
        *("", renamed("uid=amy,ou=people", "uid=amy", "ou=lists")),
        *("uid=amy,ou=people", AMY, PASSES),
    ),
    "who is allowed": (ALLOWED, renamed("uid=amy,ou=people", "uid=amelia"), "uid=amy,ou=people", AMY, PASSES),
    "a group in a list": (
        *(JOINED, renamed("cn=managers,ou=groups", "cn=bosses")),
        *("cn=managers,ou=groups", TO_TEAM, PASSES),
    ),
    "who is restricted": ("", renamed("uid=bob,ou=people", "uid=robert"), "uid=bob,ou=people", BOB, REFUSED),
    "a group that restricts": (
        *("", renamed("cn=contractors,ou=groups", "cn=others")),
        *("cn=contractors,ou=groups", CAROL, REFUSED),
    ),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", RENAMES)
def test_an_old_name_stands_for_the_new_one(slapd: Slapd, mode: str, name: str) -> None:
    """Until referential integrity has amended what names it: nobody is refused, or let through, meanwhile."""
    before, record, old, request, expected = RENAMES[name]
    slapd.configure(AMENDED)
    if before:
        slapd.load(before)

    async def story() -> None:
        async with site(slapd, mode) as here:
            resolver = here.service.resolver
            assert await here.ask(*request) == expected
            await asyncio.to_thread(slapd.load, record)
            await until(lambda: resolver.is_renamed(f"{old},{BASE}"))
            while resolver.is_renamed(f"{old},{BASE}"):
                assert await here.ask(*request) == expected
                await asyncio.sleep(0.01)
            assert await here.ask(*request) == expected

    asyncio.run(story())


def test_whom_nobody_asked_about_is_not_refused_for_good(slapd: Slapd) -> None:
    """The old name is not known then: until what names it is amended, a refusal is temporary."""

    async def story() -> None:
        async with site(slapd) as here:
            followed = here.service.counters.changes["syncrepl"]
            before = followed.value
            await asyncio.to_thread(slapd.load, renamed("uid=amy,ou=people", "uid=amelia"))
            await until(lambda: followed.value > before)
            for _ in range(100):
                assert await here.ask(*AMY) in (PASSES, UNTIL_KNOWN)
                await asyncio.sleep(0.01)
            await here.becomes(PASSES, *AMY)

    asyncio.run(story())


@pytest.mark.parametrize("mode", MODES)
def test_an_old_name_does_not_stand_for_ever(
    example_ldif: Path, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that amends nothing: after a while it is as the directory says."""
    monkeypatch.setattr(freshness, "AFTERWARDS", 0.3)
    monkeypatch.setattr(freshness, "NAME_STANDS", 1.5)
    old = f"uid=amy,ou=people,{BASE}"

    async def story(server: Slapd) -> None:
        async with site(server, mode) as here:
            resolver = here.service.resolver
            assert await here.ask(*AMY) == PASSES
            await asyncio.to_thread(server.load, renamed("uid=amy,ou=people", "uid=amelia"))
            await until(lambda: resolver.is_renamed(old))
            answers = set()
            while resolver.is_renamed(old):
                answer = await here.ask(*AMY)
                if resolver.is_renamed(old):
                    answers.add(answer)
                await asyncio.sleep(0.01)
            assert answers <= {PASSES}
            assert await here.ask(*AMY) == REFUSED

    with Slapd(schema="ldappolicy", overlays=("syncprov",)) as server:
        server.load(example_ldif)
        asyncio.run(story(server))


@pytest.mark.parametrize("mode", MODES)
def test_a_name_that_another_has_is_the_others(example_ldif: Path, mode: str) -> None:
    """At once: whoever comes to have it is meant, and nobody else."""
    old = f"uid=amy,ou=people,{BASE}"
    successor = f"dn: {old}\nobjectClass: inetOrgPerson\ncn: N\nsn: N\nuid: amy2\nmail: new@my.domain\n"

    async def story(server: Slapd) -> None:
        async with site(server, mode) as here:
            resolver = here.service.resolver
            assert await here.ask(*BY_ADDRESS) == PASSES
            await asyncio.to_thread(server.load, renamed("uid=amy,ou=people", "uid=amelia"))
            await until(lambda: resolver.is_renamed(old))
            assert await here.ask(*BY_ADDRESS) == PASSES
            await asyncio.to_thread(server.load, successor)
            await until(lambda: not resolver.is_renamed(old))
            assert await here.ask(*BY_ADDRESS) == REFUSED

    with Slapd(schema="ldappolicy", overlays=("syncprov",)) as server:
        server.load(example_ldif)
        asyncio.run(story(server))
