"""Several servers: who is asked, when lookups come back, and what has to be shown first.

Over real ones; where time counts over fakes, on virtual time.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Any

import pytest

from ldappolicy.directory import Features, Scope, Search
from ldappolicy.directory.ldap import LdapDirectory, LdapSettings
from ldappolicy.directory.ldap.failover import KNOWN
from ldappolicy.directory.ldap.health import LONGEST_ABSENCE, Server
from ldappolicy.directory.ldap.settings import endpoints
from ldappolicy.errors import ConfigError, Unavailable
from ldappolicy.ldap_filter import Equality, Present
from tests.labs.clock import on_virtual_time
from tests.labs.faulty_ldap import ACTIVE_DIRECTORY, FakeLdap, Proxy, nobody, stalled, well
from tests.labs.server import tree_of
from tests.labs.slapd import SUFFIX, Slapd, require_slapd

PAGED_RESULTS = "1.2.840.113556.1.4.319"
PEOPLE = f"ou=people,{SUFFIX}"
AMY = f"uid=amy,{PEOPLE}"
STAFF = [f"uid=u{number},{PEOPLE}" for number in range(8)]


def person(dn: str) -> str:
    """One entry in LDIF."""
    uid = dn.partition(",")[0].partition("=")[2]
    return f"dn: {dn}\nobjectClass: inetOrgPerson\nuid: {uid}\ncn: {uid}\nsn: {uid}\n\n"


TREE = tree_of("people") + person(AMY) + "".join(map(person, STAFF))

HERE = Search(SUFFIX, Scope.BASE, Present("objectClass"), ("1.1",))
WHO = Search(AMY, Scope.BASE, Present("objectClass"), ("uid",))
PROVEN: dict[str, Any] = {"proofs": [HERE], "timeout": 60.0}


class Clock:
    """A clock that stands still until it is set."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(scope="module")
def slapd() -> Iterator[Slapd]:
    """A server for tests that only read."""
    require_slapd()
    with Slapd(data=TREE) as server:
        yield server


@pytest.fixture
def own_slapd() -> Iterator[Slapd]:
    """A server that a test may change."""
    require_slapd()
    with Slapd(data=TREE) as server:
        yield server


@pytest.fixture
def first(slapd: Slapd) -> Iterator[Proxy]:
    """The preferred server of a test, which it may disturb."""
    with Proxy(slapd.port) as proxy:
        yield proxy


@pytest.fixture
def second(slapd: Slapd) -> Iterator[Proxy]:
    """The other one."""
    with Proxy(slapd.port) as proxy:
        yield proxy


@asynccontextmanager
async def directory(*uris: str, **settings: Any) -> AsyncIterator[LdapDirectory]:
    """A directory that is closed at the end; pauses are as short as jitter makes them."""
    clock = asyncio.get_running_loop().time
    opened = LdapDirectory(LdapSettings(uris, **{**PROVEN, **settings}), clock=clock, jitter=lambda: 0.0)
    try:
        yield opened
    finally:
        await opened.close()


@asynccontextmanager
async def two_fakes() -> AsyncIterator[tuple[Proxy, Proxy]]:
    """The preferred server and the other one, in the loop that runs."""
    entries = {SUFFIX: {"o": ["x"]}, AMY: {"uid": ["amy"]}}
    async with (
        FakeLdap(entries, root_dse={}) as fake,
        Proxy(fake.path) as first,
        Proxy(fake.path) as second,
    ):
        yield first, second


def run(story: Coroutine[Any, Any, None]) -> None:
    """Run it in an event loop of its own."""
    asyncio.run(story)


async def until(condition: Callable[[], object]) -> None:
    """Let the loop run until the condition holds."""
    async with asyncio.timeout(300):
        while not condition():  # noqa: ASYNC110  # what another process does sets no Event of ours
            await asyncio.sleep(0.02)


async def refusal(opened: LdapDirectory, search: Search = WHO) -> str:
    """The text of the Unavailable that the search must end with."""
    with pytest.raises(Unavailable) as caught:
        await opened.search(search)
    return str(caught.value)


async def finds(opened: LdapDirectory, uri: str) -> None:
    """The search is answered, and by that server."""
    assert [entry.dn for entry in await opened.search(WHO)] == [AMY]
    assert opened.describe() == uri


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"proof_interval": 0.0}, ["proof_interval: 0.0: expected more than nothing"]),
        (
            {"uris": ["ldap://a", "ldaps://a", "ldapi:///", "ldap://127.0.0.1"], "bind": "gssapi"},
            ["uri: 'ldap://a': bind = 'gssapi' without TLS needs allow_cleartext = true"],
        ),
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, Any], expected: list[str]) -> None:
    """Before anything is connected."""
    with pytest.raises(ConfigError) as caught:
        LdapDirectory(LdapSettings(**{"uris": ["ldap://a"], **settings}))
    needed = "bind: 'gssapi' needs the Python library"
    assert [one for one in caught.value.complaints if not one.startswith(needed)] == expected


# --- what the server says of itself ---------------------------------------------------------------


@pytest.mark.servers
def test_features_are_those_of_the_server_that_is_asked(slapd: Slapd) -> None:
    """They are read when a connection is proven, change with the server, and outlive its connection."""

    async def story() -> None:
        with FakeLdap({SUFFIX: {"o": ["x"]}}) as fake:
            async with directory(fake.uri, slapd.uri) as opened:
                found = [opened.features]
                await opened.search(HERE)
                found.append(opened.features)
                fake.refuse()
                await opened.close()
                found.append(opened.features)
                await finds(opened, slapd.uri)
                found.append(opened.features)
                assert [one.is_active_directory for one in found] == [False, True, True, False]
                assert [PAGED_RESULTS in one.controls for one in found] == [False, False, False, True]
        async with directory(slapd.uri, proofs=()) as opened:
            await opened.search(HERE)
            assert opened.features == Features()

    run(story())


@pytest.mark.parametrize("said", [["FALSE"], []])
def test_a_domain_controller_has_to_be_synchronized(said: list[str]) -> None:
    """One that is not, or does not say so, is not asked; once it is, it is."""

    async def story() -> None:
        with FakeLdap({SUFFIX: {"o": ["x"]}}) as fake:
            fake.root_dse = {**ACTIVE_DIRECTORY, "isSynchronized": said}
            async with directory(fake.uri) as opened:
                reason = await refusal(opened)
                expected = f"expected isSynchronized TRUE, got {said}"
                assert reason == f"server {fake.uri} is not synchronized: {expected}"
                fake.root_dse = dict(ACTIVE_DIRECTORY)
                await opened.search(HERE)

    run(story())


# --- from one server to another, and back ---------------------------------------------------------


@pytest.mark.servers
def test_lookups_come_back_to_the_preferred_server(first: Proxy, second: Proxy) -> None:
    """By themselves, without an error, and the other one is left."""

    async def story() -> None:
        first.refuse()
        async with directory(first.uri, second.uri) as opened:
            await finds(opened, second.uri)
            first.accept()
            await until(lambda: opened.describe() == first.uri)
            await finds(opened, first.uri)
            await until(lambda: second.closed == second.connections)

    run(story())


@pytest.mark.servers
def test_what_is_in_flight_on_the_other_server_is_finished(first: Proxy, second: Proxy) -> None:
    """A move takes nothing away from a search that has been sent."""

    async def story() -> None:
        first.refuse()
        # Without proofs the two are not compared: the other one, which says nothing, could not be.
        async with directory(first.uri, second.uri, proofs=[]) as opened:
            await finds(opened, second.uri)
            second.be(stalled)
            asked = [asyncio.ensure_future(opened.search(WHO)) for _ in range(5)]
            await asyncio.sleep(0)
            first.accept()
            await until(lambda: opened.describe() == first.uri)
            assert not any(search.done() for search in asked)
            second.be(well)
            assert [len(found) for found in await asyncio.gather(*asked)] == [1] * 5

    run(story())


MOVES = f"dn: {AMY}\nchangetype: modify\nadd: description\ndescription: moves\n"


@pytest.mark.servers
@pytest.mark.parametrize("overlays", [("syncprov",), ()], ids=["contextCSN", "sentinels"])
def test_nobody_returns_to_a_server_that_is_behind(
    overlays: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    """What was seen is not taken back: lookups stay where they are until the preferred one has it too."""
    asked = Search(AMY, Scope.BASE, Present("objectClass"), ("description",))

    async def story(one: Slapd, other: Slapd) -> None:
        one.stop()
        async with directory(one.uri, other.uri) as opened:
            await finds(opened, other.uri)
            other.load(MOVES)
            seen = await opened.search(asked)
            one.start()
            await until(lambda: any("is behind" in message for message in caplog.messages))
            assert [seen] * 20 == [await opened.search(asked) for _ in range(20)]
            assert opened.describe() == other.uri
            one.load(MOVES)
            await until(lambda: opened.describe() == one.uri)
            assert seen == await opened.search(asked)

    require_slapd()
    with Slapd(data=TREE, overlays=overlays) as one, Slapd(data=TREE, overlays=overlays) as other:
        run(story(one, other))


@pytest.mark.servers
def test_a_server_that_is_behind_is_asked_when_no_other_answers(caplog: pytest.LogCaptureFixture) -> None:
    """Old answers are better than none."""

    async def story(one: Slapd, other: Slapd) -> None:
        one.stop()
        async with directory(one.uri, other.uri) as opened:
            await finds(opened, other.uri)
            other.load(MOVES)
            await opened.search(WHO)
            one.start()
            await until(lambda: any("is behind" in message for message in caplog.messages))
            other.stop()
            while opened.describe() != one.uri:
                with suppress(Unavailable):
                    await opened.search(WHO)
            await finds(opened, one.uri)

    require_slapd()
    with Slapd(data=TREE) as one, Slapd(data=TREE) as other:
        run(story(one, other))


@pytest.mark.servers
@pytest.mark.parametrize("hidden", ["the base", "the people"])
def test_nobody_returns_to_a_server_that_does_not_show_what_it_has_to(slapd: Slapd, hidden: str) -> None:
    """It answers, but as an empty or half-loaded replica: lookups stay where they are."""

    async def story(replica: Slapd) -> None:
        replica.stop()
        async with directory(replica.uri, slapd.uri) as opened:
            await finds(opened, slapd.uri)
            opened.set_witnesses(STAFF)
            replica.start()
            before = replica.connections()
            await until(lambda: replica.connections() >= before + 2)
            await finds(opened, slapd.uri)
            replica.load(TREE if hidden == "the base" else "".join(map(person, [AMY, *STAFF])))
            await until(lambda: opened.describe() == replica.uri)

    with Slapd(data="" if hidden == "the base" else tree_of("people")) as replica:
        run(story(replica))


def test_a_server_that_fails_again_is_not_returned_to_at_once() -> None:
    """Having come back and failed, it answers again, and lookups still stay with the other one."""

    async def story() -> None:
        async with two_fakes() as (first, second):
            first.refuse()
            async with directory(first.uri, second.uri) as opened:
                await finds(opened, second.uri)
                first.accept()
                await until(lambda: opened.describe() == first.uri)
                first.refuse()
                first.drop()
                await until(lambda: opened.describe() != first.uri)
                await finds(opened, second.uri)
                first.accept()
                tried = first.connections
                await asyncio.sleep(2.4)  # one that is only paused is back within 0.1 s, this one after 2.5
                await finds(opened, second.uri)
                assert first.connections == tried
                second.refuse()
                second.drop()
                await until(lambda: opened.describe() != second.uri)
                await finds(opened, first.uri)  # when it is the only hope, it is asked all the same

    on_virtual_time(story())


@pytest.mark.parametrize(
    ("well_for", "expected"),
    [
        ([100.0], [0.0]),
        ([1.0], [5.0]),
        ([1.0, 29.0, 1.0], [5.0, 10.0, 20.0]),
        ([1.0, 1.0, 31.0, 1.0], [5.0, 10.0, 0.0, 5.0]),
        ([1.0] * 8, [5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 300.0, 300.0]),
    ],
)
def test_distrust_doubles_with_each_relapse(well_for: list[float], expected: list[float]) -> None:
    """From 5 s to 5 minutes; one that did well for half a minute starts anew."""
    clock = Clock()
    [endpoint] = endpoints(LdapSettings(["ldap://a"]))
    server = Server(endpoint, clock, lambda: 1.0)
    server.chosen()
    server.failed("the first time is no relapse")
    found = [server.is_distrusted * 1.0]
    for seconds in well_for:
        server.answered()
        server.chosen()
        clock.now += seconds
        server.failed("x")
        server.failed("still down")
        server.answered()
        clock.now += 0.5  # past the pauses
        found.append(server.waits + 0.5 if server.is_distrusted else 0.0)
        clock.now += server.waits
    assert found == pytest.approx([0.0, *expected])


def test_a_server_where_nobody_listens_is_tried_every_few_seconds(caplog: pytest.LogCaptureFixture) -> None:
    """However long it was away: it costs nobody much, and is seen within seconds when it is back."""

    async def story(dead: str) -> None:
        clock = Clock()
        opened = LdapDirectory(LdapSettings([dead], **PROVEN), clock=clock, jitter=lambda: 1.0)
        for _ in range(12):
            await refusal(opened)
            clock.now += LONGEST_ABSENCE
        await opened.close()

    with nobody() as dead:
        run(story(dead))
    assert "directory server failed, 12 in a row: " in caplog.messages[-1]


def test_a_server_that_failed_of_late_is_tried_last() -> None:
    """A preferred server that hangs does not hold up those who need a connection to the other one."""

    async def story() -> None:
        async with two_fakes() as (first, second):
            first.be(stalled)
            async with directory(first.uri, second.uri) as opened:
                await finds(opened, second.uri)
                tried = first.connections
                second.drop()
                await until(lambda: opened.describe() != second.uri)
                await finds(opened, second.uri)
                assert first.connections == tried

    on_virtual_time(story())


# --- servers that are not used --------------------------------------------------------------------


def test_after_an_outage_of_all_a_spare_is_shown_as_it_is() -> None:
    """Nobody needs it when the preferred one is back, and still it is tried."""

    async def story() -> None:
        async with two_fakes() as (first, second):
            first.refuse()
            second.refuse()
            async with directory(first.uri, second.uri) as opened:
                await refusal(opened)
                assert opened.servers() == {first.uri: False, second.uri: False}
                first.accept()
                await _recovers(opened)
                assert opened.servers() == {first.uri: True, second.uri: False}
                second.accept()
                await until(lambda: opened.servers() == {first.uri: True, second.uri: True})

    on_virtual_time(story())


def test_a_spare_is_looked_at_beside_the_lookups(caplog: pytest.LogCaptureFixture) -> None:
    """Connected to, proven and left: its ups and downs are shown, said once each, and move nothing."""
    caplog.set_level("INFO")

    async def story() -> None:
        async with two_fakes() as (first, second), directory(first.uri, second.uri) as opened:
            await finds(opened, first.uri)
            assert opened.servers() == {first.uri: True}
            for change, is_up in ((second.accept, True), (second.refuse, False), (second.accept, True)):
                change()
                before = second.connections
                await until(lambda: opened.servers().get(second.uri) is is_up)  # noqa: B023  # called at once
                await until(lambda: not is_up or second.closed >= before + 3)  # noqa: B023
                await finds(opened, first.uri)
            assert first.connections == 1

    on_virtual_time(story())
    said = [line.split(": ")[0] for line in caplog.messages if "not in use" in line]
    well, failed = (f"directory server that is not in use {how}" for how in ("is well", "failed"))
    assert said == [well, failed, well]


def own_tasks() -> list[str]:
    """What the directory has in hand, and not the servers, which run in the same loop."""
    return [text for text in map(repr, asyncio.all_tasks()) if "/ldappolicy/directory/" in text]


def test_a_look_ends_with_the_directory() -> None:
    """Also one that hangs; and none comes after it."""

    async def story() -> None:
        async with two_fakes() as (first, second):
            second.be(stalled)
            async with directory(first.uri, second.uri) as opened:
                await finds(opened, first.uri)
                await until(lambda: second.connections == 1)
                assert asyncio.get_running_loop().time() == pytest.approx(22.5, abs=0.1)
                assert own_tasks()
                await opened.close()
                assert own_tasks() == []

    on_virtual_time(story())


@pytest.mark.servers
def test_how_a_spare_was_found_is_forgotten(first: Proxy) -> None:
    """What is used is shown whenever it was last asked."""

    async def story(dead: str) -> None:
        clock = Clock()
        opened = LdapDirectory(LdapSettings([first.uri, dead], **PROVEN), clock=clock)
        first.refuse()
        await refusal(opened)
        first.accept()
        clock.now += KNOWN - 1
        await finds(opened, first.uri)
        assert opened.servers() == {first.uri: True, dead: False}
        clock.now += KNOWN
        assert opened.servers() == {first.uri: True}
        await opened.close()

    with nobody() as dead:
        run(story(dead))


def test_what_a_look_misses_keeps_nobody_from_trying() -> None:
    """A spare that was away a moment ago may be the only hope now."""
    [endpoint] = endpoints(LdapSettings(["ldap://a"]))
    server = Server(endpoint, Clock(), lambda: 1.0)
    for _ in range(9):
        server.missed("x")
    assert (server.is_up, server.is_rested, server.is_given_up, server.waits) == (False, True, False, 0.0)


# --- connections that go away ---------------------------------------------------------------------


@pytest.mark.servers
@pytest.mark.parametrize("how", ["drop", "reset"])
def test_an_idle_connection_that_ended_is_replaced(first: Proxy, how: str) -> None:
    """Whoever ended it: the next search is answered."""

    async def story() -> None:
        async with directory(first.uri) as opened:
            for count in range(1, 6):
                await finds(opened, first.uri)
                assert first.connections == count
                getattr(first, how)()

    run(story())


def test_an_idle_connection_that_nothing_comes_through_is_replaced() -> None:
    """Neither side was told that it ended: the periodic proof notices, and no search does."""

    async def story() -> None:
        async with (
            two_fakes() as (first, _),
            directory(first.uri, proof_interval=60.0, timeout=5.0) as opened,
        ):
            await finds(opened, first.uri)
            first.forget()
            started = asyncio.get_running_loop().time()
            await until(lambda: opened.describe() != first.uri)
            assert asyncio.get_running_loop().time() - started == pytest.approx(65.0, abs=0.1)
            await finds(opened, first.uri)
            assert first.connections == 2

    on_virtual_time(story())


@pytest.mark.servers
def test_one_of_several_connections_that_cannot_be_opened_is_nobodys_trouble(first: Proxy) -> None:
    """While another one is open."""

    async def story() -> None:
        async with directory(first.uri, connections=3) as opened:
            await asyncio.gather(*(opened.search(WHO) for _ in range(3)))
            await until(lambda: first.connections == 3)  # the proxy counts what it has accepted
            await opened.close()
            await finds(opened, first.uri)
            first.refuse()
            for _ in range(6):
                await finds(opened, first.uri)

    run(story())


# --- rights and replicas --------------------------------------------------------------------------

BLIND = {
    "everything": "olcAccess: {0}to * by * none\n",
    "the people": f'olcAccess: {{0}}to dn.children="{PEOPLE}" by * none\nolcAccess: {{1}}to * by * read\n',
}


@pytest.mark.servers
@pytest.mark.parametrize("hidden", BLIND)
def test_rights_that_are_lost_while_connected_are_noticed(own_slapd: Slapd, hidden: str) -> None:
    """On a connection that was proven once: unavailable after the next proof, until they are back."""

    async def story() -> None:
        async with directory(own_slapd.uri, proof_interval=0.2) as opened:
            await finds(opened, own_slapd.uri)
            opened.set_witnesses(STAFF)
            change = "dn: olcDatabase={1}mdb,cn=config\nchangetype: modify\nreplace: olcAccess\n"
            own_slapd.configure(change + BLIND[hidden])
            await until(lambda: opened.describe() != own_slapd.uri)
            for _ in range(4):
                assert "does not show" in await refusal(opened)
            own_slapd.configure(change + "olcAccess: {0}to * by * read\n")
            await _recovers(opened)

    run(story())


async def _recovers(opened: LdapDirectory) -> None:
    async with asyncio.timeout(300):
        while True:
            try:
                assert [entry.dn for entry in await opened.search(WHO)] == [AMY]
                return
            except Unavailable:
                await asyncio.sleep(0.05)


NOBODY = [f"uid=nobody{number},{PEOPLE}" for number in range(8)]
MOVED = [f"uid=u{number},ou=formerly,{SUFFIX}" for number in range(8)]


@pytest.mark.servers
@pytest.mark.parametrize(
    ("witnesses", "lost"),
    [
        ([], 0),
        (STAFF, 0),
        (STAFF[:4] + NOBODY[:4], 0),
        (STAFF[:3] + NOBODY[:5], 5),
        (NOBODY, 8),
        (NOBODY[:3], 3),
        (NOBODY[:2], 0),
        (MOVED, 0),
        (MOVED[:4] + NOBODY[:4], 0),
        (MOVED[:3] + NOBODY[:5], 5),
        ([*STAFF, *NOBODY], 0),
    ],
)
def test_half_of_the_witnesses_have_to_be_there(slapd: Slapd, witnesses: list[str], lost: int) -> None:
    """Under their DN, or moved; too few of them, and those beyond the eighth, say nothing."""

    async def story() -> None:
        async with directory(slapd.uri) as opened:
            opened.set_witnesses(witnesses)
            if not lost:
                await finds(opened, slapd.uri)
                return
            count = f"{lost} of {len(witnesses)} entries that were found lately"
            missing = f"{NOBODY[0]!r} and others"
            expected = f"server {slapd.uri} does not show {count}, {missing}"
            assert await refusal(opened) == expected

    run(story())


@pytest.mark.servers
def test_witnesses_are_forgotten_after_an_hour(slapd: Slapd) -> None:
    """An organization that lost most of them is not locked out for ever."""

    async def story() -> None:
        clock = Clock()
        opened = LdapDirectory(LdapSettings([slapd.uri], **PROVEN), clock=clock)
        opened.set_witnesses(NOBODY)
        clock.now = 3599.0
        assert "8 of 8" in await refusal(opened)
        clock.now = 3601.0
        await finds(opened, slapd.uri)
        await opened.close()

    run(story())


# --- connections of others ------------------------------------------------------------------------


@pytest.mark.servers
def test_an_own_connection_goes_where_lookups_go_and_ends_when_they_move(first: Proxy, second: Proxy) -> None:
    """Proven as any other; its owner is told why it ended."""

    async def story() -> None:
        first.refuse()
        async with directory(first.uri, second.uri) as opened:
            own = await opened.open_connection()
            assert (own.uri, own.features.controls >= {PAGED_RESULTS}) == (second.uri, True)
            assert len(await own.search(WHO)) == 1
            first.accept()
            await until(lambda: own.ended)
            assert own.ended == f"lookups moved to {first.uri}"
            own = await opened.open_connection()
            assert own.uri == first.uri
            await opened.close()
            assert own.ended == "the directory was closed"

    run(story())


@pytest.mark.servers
def test_an_own_connection_outlives_the_one_of_lookups(first: Proxy, slapd: Slapd) -> None:
    """When that one was replaced by another to the same server, nothing has moved."""

    async def story() -> None:
        async with directory(slapd.uri) as opened:
            own = await opened.open_connection()
            before = slapd.connections()
            await opened.search(WHO)
            assert (slapd.connections(), own.ended) == (before, "")
        async with directory(first.uri, connections=1) as opened:
            first.drop()
            await finds(opened, first.uri)
            own = await opened.open_connection()
            first.drop(1)
            await until(lambda: opened.describe() != first.uri)
            await finds(opened, first.uri)
            assert own.ended == ""

    run(story())


@pytest.mark.servers
def test_an_own_connection_ends_with_the_belief_in_its_server(own_slapd: Slapd) -> None:
    """A stream must not vouch for what lookups do not believe."""

    async def story() -> None:
        async with directory(own_slapd.uri, proof_interval=0.2) as opened:
            own = await opened.open_connection()
            own_slapd.configure(
                "dn: olcDatabase={1}mdb,cn=config\nchangetype: modify\nreplace: olcAccess\n"
                + BLIND["everything"]
            )
            await until(lambda: own.ended)
            assert own.ended == f"server {own_slapd.uri} does not show (objectClass=*) at {SUFFIX!r}"

    run(story())


@pytest.mark.servers
def test_an_own_connection_ends_when_lookups_get_no_other(first: Proxy) -> None:
    """It still hears its server, but nobody can be sure any more of what that shows."""

    async def story() -> None:
        async with directory(first.uri) as opened:
            await finds(opened, first.uri)
            own = await opened.open_connection()
            first.refuse()
            first.drop(1)
            await until(lambda: opened.describe() != first.uri)
            await refusal(opened)
            await until(lambda: own.ended)
            assert "Connect call failed" in own.ended

    run(story())


@pytest.mark.servers
def test_a_scan_reads_everything_in_pages(slapd: Slapd) -> None:
    """Over a connection of its own, which it closes, also when its reader has had enough."""

    async def story() -> None:
        async with directory(slapd.uri) as opened:
            before = slapd.connections()
            found = [entry.dn async for page in opened.scan(SUFFIX, ["uid"]) for entry in page]
            assert sorted(found) == sorted([SUFFIX, PEOPLE, AMY, *STAFF])
            async with aclosing(opened.scan(SUFFIX, ["uid"])) as pages:
                await anext(pages)
            assert slapd.connections() == before + 3

    run(story())


def test_a_scan_completes_long_values() -> None:
    """A group of 3,500 that is sent in pieces of 1,500 has 3,500 members."""
    members = [f"cn=u{number},{SUFFIX}" for number in range(3500)]
    entries = {SUFFIX: {"o": ["x"]}, f"cn=big,{SUFFIX}": {"cn": ["big"], "member": members}}

    async def story() -> None:
        with FakeLdap(entries, max_values=1500) as fake:
            async with directory(fake.uri) as opened:
                found = [entry async for page in opened.scan(SUFFIX, ["cn", "member"]) for entry in page]
                assert [len(entry.values("member")) for entry in found] == [0, 3500]
                assert list(found[1].values("member")) == members

    run(story())


@pytest.mark.servers
def test_a_scan_of_a_server_that_lookups_left_is_unavailable(first: Proxy, second: Proxy) -> None:
    """Half of one server and half of another is no copy of either."""

    async def story() -> None:
        first.refuse()
        async with directory(first.uri, second.uri) as opened:
            await finds(opened, second.uri)
            second.be(stalled)
            scan = asyncio.ensure_future(anext(opened.scan(SUFFIX, ["uid"])))
            await until(lambda: second.connections == 2)
            first.accept()
            await until(lambda: opened.describe() == first.uri)
            second.be(well)
            with pytest.raises(Unavailable):
                await scan

    run(story())


@pytest.mark.servers
def test_a_search_of_many_is_shared_while_servers_change(first: Proxy, second: Proxy) -> None:
    """A hundred searches at a time, ten moves to and fro: every one is answered, by whichever server."""

    async def story() -> None:
        async with directory(first.uri, second.uri, connections=2) as opened:
            condition = Search(SUFFIX, Scope.SUB, Equality("uid", "amy"), ("uid",))
            found: list[object] = []
            for turn in range(10):
                asked = [asyncio.ensure_future(opened.search(condition)) for _ in range(100)]
                await asyncio.sleep(0.01)
                leaving, coming = (first, second) if turn % 2 == 0 else (second, first)
                coming.accept()
                leaving.refuse()
                leaving.drop()
                answers = await asyncio.gather(*asked, return_exceptions=True)
                assert all(isinstance(one, Unavailable) or len(one) == 1 for one in answers)  # type: ignore[arg-type]
                found.extend(one for one in answers if not isinstance(one, BaseException))
                await _recovers(opened)
            assert found

    run(story())
