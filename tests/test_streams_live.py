"""Change streams of real servers: what is told, and what is left of it when connections and servers go."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, aclosing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import pytest

from ldappolicy.directory import Scope, Search
from ldappolicy.directory.changes import (
    Changed,
    Deleted,
    Event,
    Everything,
    Live,
    Lost,
    Members,
    Watched,
    entry_uuid,
)
from ldappolicy.directory.ldap.connection import Connection, connect
from ldappolicy.directory.ldap.settings import LdapSettings, endpoints
from ldappolicy.directory.ldap.streams import watch
from ldappolicy.directory.ldap.streams.covered import Covered
from ldappolicy.directory.ldap.streams.following import Refused, Timing
from ldappolicy.directory.ldap.streams.syncrepl import SyncFollowing
from ldappolicy.entry import Entry, normal_dn
from ldappolicy.errors import Unavailable
from ldappolicy.ldap_filter import Present
from tests.labs.ds389 import DS389, needs_389ds
from tests.labs.faulty_ldap import Proxy
from tests.labs.samba import Samba, needs_samba
from tests.labs.server import folder, tree_of
from tests.labs.slapd import SUFFIX, Slapd, require_slapd

pytestmark = pytest.mark.servers

QUICK = Timing(0.01, 0.1, 30.0, 0.1, 0.3, 0.5)
ANY = Present("objectClass")

Server = Slapd | DS389 | Samba


@dataclass(frozen=True)
class Kind:
    """A server and a way of watching it; `watch` is what the configuration says."""

    watch: str
    start: Callable[[], Server]
    uuid: str
    is_ad: bool = False
    plain: Callable[[], Server] | None = None
    """The same without overlays that change entries on their own and unseen."""

    def person(self, name: str, unit: str = "a") -> str:
        """A user to be added."""
        dn = f"cn={name},ou={unit},{SUFFIX}"
        kind = f"user\nsAMAccountName: {name}" if self.is_ad else "inetOrgPerson\nsn: x"
        return f"dn: {dn}\nobjectClass: {kind}\ncn: {name}\nmail: {name}@example.com\n\n"

    def group(self, name: str, *members: str) -> str:
        """A group of users of ou=a."""
        kind = f"group\nsAMAccountName: {name}" if self.is_ad else "groupOfNames"
        lines = "".join(f"member: cn={member},ou=a,{SUFFIX}\n" for member in members)
        return f"dn: cn={name},ou=b,{SUFFIX}\nobjectClass: {kind}\ncn: {name}\n{lines}\n"

    def tree(self) -> str:
        """Two units, one of them with amy."""
        units = folder("a") + folder("b") if self.is_ad else tree_of("a", "b")
        return units + self.person("amy")

    @property
    def watched(self) -> Watched:
        """Everything, quickly."""
        attributes = ("objectClass", "cn", "mail", "member", self.uuid)
        return Watched((SUFFIX,), attributes, ("member",), self.watch, 0.2)


def modify(name: str, line: str, how: str = "replace", unit: str = "a") -> str:
    """A change of one attribute; `line` as in LDIF."""
    attribute = line.partition(":")[0]
    return f"dn: cn={name},ou={unit},{SUFFIX}\nchangetype: modify\n{how}: {attribute}\n{line}\n\n"


def delete(name: str, unit: str = "a") -> str:
    """A deletion."""
    return f"dn: cn={name},ou={unit},{SUFFIX}\nchangetype: delete\n\n"


def rename(dn: str, rdn: str) -> str:
    """Another name at the same place."""
    return f"dn: {dn},{SUFFIX}\nchangetype: modrdn\nnewrdn: {rdn}\ndeleteoldrdn: 1\n\n"


def slapd() -> Slapd:
    """OpenLDAP with everything that changes entries besides."""
    require_slapd()
    return Slapd()


def quiet_slapd() -> Slapd:
    """OpenLDAP where every change is told."""
    require_slapd()
    return Slapd(overlays=("syncprov",))


def ds389() -> DS389:
    """389-ds with the content synchronization plugin."""
    return DS389(content_sync=True)


SLAPD = Kind("syncrepl", slapd, "entryUUID", plain=quiet_slapd)
SLAPD_POLL = replace(SLAPD, watch="poll")
DS_SYNC = Kind("syncrepl", ds389, "nsUniqueId")
DS_PSEARCH = replace(DS_SYNC, watch="persistent_search")
AD = Kind("dirsync", Samba, "objectGUID", is_ad=True)
AD_POLL = replace(AD, watch="poll")

KINDS = [
    pytest.param(SLAPD, id="slapd"),
    pytest.param(SLAPD_POLL, id="slapd poll"),
    pytest.param(DS_SYNC, id="389-ds", marks=needs_389ds),
    pytest.param(DS_PSEARCH, id="389-ds persistent search", marks=needs_389ds),
    pytest.param(AD, id="samba", marks=needs_samba),
    pytest.param(AD_POLL, id="samba poll", marks=needs_samba),
]
RESUMING = [kind for kind in KINDS if kind.id not in ("slapd poll", "389-ds persistent search", "samba poll")]


@pytest.fixture
def started() -> Iterator[Callable[[Kind], Server]]:
    """Servers that are stopped at the end."""
    with ExitStack() as running:

        def start(kind: Kind, *, plain: bool = False) -> Server:
            server: Server = (kind.plain if plain and kind.plain else kind.start)()
            running.enter_context(server)
            server.load(kind.tree())
            return server

        yield start


class Stream:
    """A watch that runs, and all that it has told."""

    def __init__(
        self, server: Server, watched: Watched, password: Path, uri: str = "", timing: Timing = QUICK
    ) -> None:
        password.write_text(server.root_pw)
        self.settings = LdapSettings(
            [uri or server.uri], bind="simple", bind_dn=server.root_dn, bind_pw_file=str(password)
        )
        self.events: list[Event] = []
        self.connections: list[Connection] = []
        self.watched = watched
        self.timing = timing
        self.on_event: Callable[[Event], Awaitable[None]] | None = None
        self.gate = asyncio.Event()
        """Connections are opened while it is set."""
        self.gate.set()
        self._more = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.wait((self._task,))

    async def open(self) -> Connection:
        """A connection as lookups have them."""
        await self.gate.wait()
        connection = await connect(endpoints(self.settings)[0], self.settings, None)
        await connection.read_features()
        self.connections.append(connection)
        return connection

    async def scan(self) -> list[Entry]:
        """All that is watched, read anew."""
        connection = await self.open()
        search = Search(self.watched.bases[0], Scope.SUB, ANY, self.watched.attributes)
        try:
            return [entry async for page in connection.scan(search) for entry in page]
        finally:
            await connection.close()

    async def until(self, wanted: Callable[[Event], object], since: int = 0) -> int:
        """Wait for an event; how many there are then."""
        async with asyncio.timeout(120):
            while True:
                for number, event in enumerate(self.events[since:], since):
                    if wanted(event):
                        return number + 1
                self._more.clear()
                await self._more.wait()

    async def _run(self) -> None:
        async with aclosing(watch(self.open, self.watched, timing=self.timing)) as events:
            async for event in events:
                if self.on_event is not None:
                    await self.on_event(event)
                self.events.append(event)
                self._more.set()


def run(story: Coroutine[Any, Any, None]) -> None:
    """In a loop of its own."""
    asyncio.run(story)


async def load(server: Server, *ldif: str) -> None:
    """Change the directory, while the loop runs."""
    await asyncio.to_thread(server.load, "".join(ldif))


def changed(name: str, **values: Sequence[str]) -> Callable[[Event], bool]:
    """An event that says that the entry is there, with these values."""

    def matches(event: Event) -> bool:
        if not isinstance(event, Changed) or not event.entry.key.startswith(f"cn={name},"):
            return False
        return all(
            sorted(event.entry.values(attribute)) == sorted(value) for attribute, value in values.items()
        )

    return matches


def is_live(event: Event) -> bool:
    """From here on everything is told."""
    return isinstance(event, Live)


def member_changed(kind: Kind, came: str = "", went: str = "") -> Callable[[Event], bool]:
    """An event of the group g: all its members, or on Active Directory who came and went."""

    def matches(event: Event) -> bool:
        if not isinstance(event, Changed) or not event.entry.key.startswith("cn=g,"):
            return False
        if kind.watch == "dirsync":
            assert event.members is not None
            told = [[normal_dn(dn) for dn in dns] for dns in (event.members.added, event.members.removed)]
            wanted = [[normal_dn(f"cn={n},ou=a,{SUFFIX}")] if n else [] for n in (came, went)]
            return told == wanted
        members = {normal_dn(dn) for dn in event.entry.values("member")}
        return (not came or normal_dn(f"cn={came},ou=a,{SUFFIX}") in members) and (
            not went or normal_dn(f"cn={went},ou=a,{SUFFIX}") not in members
        )

    return matches


# --- what is told ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_every_change_is_told(kind: Kind, started: Callable[[Kind], Server], tmp_path: Path) -> None:
    """Added, modified, renamed, members that come and go, a unit with another name, deleted."""
    server = started(kind)

    async def story() -> None:
        async with Stream(server, kind.watched, tmp_path / "password") as stream:
            at = await stream.until(is_live)
            assert stream.events == [Live(kind.watch, server.uri)]
            await load(server, kind.person("bob"))
            at = await stream.until(changed("bob", mail=["bob@example.com"]), at)
            bob = stream.events[at - 1]
            assert isinstance(bob, Changed)
            assert (bob.is_new, bob.uuid) == (True, entry_uuid(bob.entry))
            await load(server, modify("bob", "mail: b@example.com"))
            at = await stream.until(changed("bob", mail=["b@example.com"]), at)
            await load(server, kind.group("g", "amy"))
            at = await stream.until(member_changed(kind, came="amy"), at)
            await load(server, modify("g", f"member: cn=bob,ou=a,{SUFFIX}", "add", "b"))
            at = await stream.until(member_changed(kind, came="bob"), at)
            await load(server, modify("g", f"member: cn=bob,ou=a,{SUFFIX}", "delete", "b"))
            at = await stream.until(member_changed(kind, went="bob"), at)
            await load(server, rename("cn=bob,ou=a", "cn=rob"))
            at = await stream.until(changed("rob", mail=["b@example.com"]), at)
            assert getattr(stream.events[at - 1], "uuid", "") == bob.uuid
            assert not any(isinstance(event, Everything | Lost) for event in stream.events)
            await load(server, rename("ou=a", "ou=c"))
            at = await stream.until(lambda event: isinstance(event, Everything), at)
            await load(server, delete("rob", "c"))
            at = await stream.until(lambda event: isinstance(event, Deleted) and event.uuid == bob.uuid, at)
            await load(server, kind.person("end", "c"))
            at = await stream.until(changed("end"), at)
            late = [event for event in stream.events[at:] if isinstance(event, Changed)]
            assert bob.uuid not in {event.uuid for event in late}

    run(story())


def test_an_ordinary_account_of_active_directory_sees_deletions_by_counting(tmp_path: Path) -> None:
    """It is not shown deleted objects, and is told all the same, later."""
    if needs_samba.args[0]:
        pytest.skip(needs_samba.kwargs["reason"])

    async def story(server: Samba) -> None:
        stream = Stream(server, AD.watched, tmp_path / "password")
        (tmp_path / "password").write_text("Secret.123")
        stream.settings = replace(stream.settings, bind_dn="svc@example.com")
        async with stream:
            at = await stream.until(is_live)
            await load(server, AD.person("bob"))
            at = await stream.until(changed("bob"), at)
            bob = stream.events[at - 1]
            await load(server, delete("bob"))
            at = await stream.until(lambda event: isinstance(event, Deleted), at)
            assert getattr(bob, "uuid", "") == getattr(stream.events[at - 1], "uuid", "?")

    with Samba() as server:
        server.load(AD.tree())
        server.user(f"CN=svc,CN=Users,{SUFFIX}", "svc", "Secret.123")
        run(story(server))


# --- what is left ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_restart_with_changes_in_between_is_made_up_for(
    kind: Kind, started: Callable[[Kind], Server], tmp_path: Path
) -> None:
    """By telling them, or by Everything, before the stream is live again."""
    server = started(kind)

    async def story() -> None:
        async with Stream(server, kind.watched, tmp_path / "password") as stream:
            at = await stream.until(is_live)
            await load(server, kind.person("bob"))
            at = await stream.until(changed("bob"), at)
            bob = stream.events[at - 1]
            server.kill()
            at = await stream.until(lambda event: isinstance(event, Lost), at)
            stream.gate.clear()
            await asyncio.to_thread(server.start)
            await load(server, delete("bob"), kind.person("eve"))
            stream.gate.set()
            end = await stream.until(is_live, at)
            told = stream.events[at:end]
            if not any(isinstance(event, Everything) for event in told):
                assert any(changed("eve")(event) for event in told)
                assert getattr(bob, "uuid", "") in [e.uuid for e in told if isinstance(e, Deleted)]
            await load(server, kind.person("end"))
            await stream.until(changed("end"), end)

    run(story())


@pytest.mark.parametrize("kind", RESUMING)
def test_a_stream_that_resumes_tells_what_was_missed_and_not_everything(
    kind: Kind, started: Callable[[Kind], Server], tmp_path: Path
) -> None:
    """A connection that is lost costs nothing but the pause."""
    server = started(kind)

    async def story() -> None:
        async with Stream(server, kind.watched, tmp_path / "password") as stream:
            at = await stream.until(is_live)
            await load(server, kind.person("bob"))
            at = await stream.until(changed("bob"), at)
            stream.connections[-1].abort("lookups went elsewhere")
            await load(server, modify("bob", "mail: b@example.com"))
            end = await stream.until(is_live, at)
            await stream.until(changed("bob", mail=["b@example.com"]), at)
            reasons = [event.reason for event in stream.events[at:end] if isinstance(event, Lost)]
            assert reasons == [f"{server.uri}: lookups went elsewhere"]
            if (
                kind.watch != "dirsync"
            ):  # which has just seen that there are no deleted objects, or that there are
                assert not any(isinstance(event, Everything) for event in stream.events[at:])

    run(story())


@pytest.mark.long
@pytest.mark.parametrize("kind", [SLAPD, pytest.param(DS_SYNC, marks=needs_389ds)], ids=["slapd", "389-ds"])
def test_what_is_written_while_a_stream_resumes_is_told(
    kind: Kind, started: Callable[[Kind], Server], tmp_path: Path
) -> None:
    """Whatever the moment of a write is: 389-ds by itself leaves one out in some of a hundred starts."""
    server = started(kind)
    names = [f"p{number}" for number in range(30)]

    async def story() -> None:
        async with Stream(server, kind.watched, tmp_path / "password") as stream:
            at = await stream.until(is_live)
            await load(server, *map(kind.person, names))
            await stream.until(changed(names[-1]), at)
            for turn in range(100):
                at = len(stream.events)
                stream.connections[-1].abort("again")
                await load(server, *(modify(name, f"mail: {name}-{turn}@example.com") for name in names))
                for name in names:
                    await stream.until(changed(name, mail=[f"{name}-{turn}@example.com"]), at)
                await stream.until(is_live, at)

    run(story())


@pytest.mark.parametrize("kind", [SLAPD, pytest.param(DS_SYNC, marks=needs_389ds)], ids=["slapd", "389-ds"])
@pytest.mark.parametrize("cookie", [b"garbage", b"rid=000,csn=20000101000000.000000Z#000000#000#000000"])
def test_a_cookie_that_means_nothing_is_everything(
    kind: Kind, cookie: bytes, started: Callable[[Kind], Server], tmp_path: Path
) -> None:
    """The server refuses it, or sends what it has; the next start, or this one, says so."""
    server = started(kind)

    async def one(followed: SyncFollowing, connection: Connection) -> list[Event]:
        told: list[Event] = []
        async with aclosing(followed.events(connection)) as events:
            async for event in events:
                told.append(event)
                if isinstance(event, Live):
                    return told
        raise AssertionError(told)

    async def story() -> None:
        stream = Stream(server, kind.watched, tmp_path / "password")
        followed = SyncFollowing(Covered(kind.watched), QUICK)
        assert await one(followed, await stream.open()) == [Live("syncrepl", server.uri)]
        followed.machine.cookie = cookie
        try:
            told = await one(followed, await stream.open())
        except Refused:
            assert followed.machine.cookie == b""
            told = await one(followed, await stream.open())
        assert [type(event) for event in told[-2:]] == [Everything, Live]
        for connection in stream.connections:
            await connection.close()

    run(story())


def test_another_server_is_everything(started: Callable[[Kind], Server], tmp_path: Path) -> None:
    """Its cookies are its own."""
    one, other = started(SLAPD), started(SLAPD)

    async def story() -> None:
        stream = Stream(one, SLAPD.watched, tmp_path / "password")
        async with stream:
            at = await stream.until(is_live)
            stream.settings = replace(stream.settings, uris=[other.uri])
            stream.connections[-1].abort(f"lookups moved to {other.uri}")
            await stream.until(is_live, at)
        assert stream.events[at:] == [
            Lost(f"{one.uri}: lookups moved to {other.uri}"),
            Everything("changes are told anew"),
            Live("syncrepl", other.uri),
        ]

    run(story())


@pytest.mark.parametrize(
    ("overlays", "size_limit", "kind", "expected"),
    [
        (("syncprov",), "2", "auto", "syncrepl"),  # it begins where the server is, and asks for nothing
        ((), "unlimited", "auto", "poll"),
        ((), "unlimited", "syncrepl", "syncrepl: unavailableCriticalExtension (12)"),
        ((), "unlimited", "persistent_search", "does not do persistent_search"),
        (("syncprov",), "2", "poll", "sizeLimitExceeded (4)"),
    ],
)
def test_what_a_server_does_not_do_is_said(
    overlays: Sequence[str], size_limit: str, kind: str, expected: str, tmp_path: Path
) -> None:
    """`auto` goes on to what it does; a kind that was named is tried again and again."""
    require_slapd()

    async def story(server: Slapd) -> None:
        watched = replace(SLAPD.watched, kind=kind)
        stream = Stream(server, watched, tmp_path / "password")
        stream.settings = replace(stream.settings, bind="none")
        async with stream:
            if " " in expected:
                for since in (0, 1):
                    await stream.until(lambda event: isinstance(event, Lost), since)
                assert all(isinstance(event, Lost) and expected in event.reason for event in stream.events)
            else:
                await stream.until(is_live)
                assert stream.events == [Live(expected, server.uri)]

    with Slapd(overlays=overlays, size_limit=size_limit) as server:
        server.load(SLAPD.tree())
        run(story(server))


@needs_389ds
def test_a_sync_by_another_identity_is_given_up(started: Callable[[Kind], Server], tmp_path: Path) -> None:
    """389-ds syncs by nsUniqueId: whoever reads entryUUID is told by a persistent search."""
    kind = replace(DS_SYNC, uuid="entryUUID")
    server = started(kind)

    async def story() -> None:
        watched = replace(kind.watched, kind="auto")
        async with Stream(server, watched, tmp_path / "password") as stream:
            at = await stream.until(is_live)
            await load(server, kind.person("bob"))
            at = await stream.until(is_live, at)
            assert stream.events[-2:] == [
                Everything("changes are told anew"),
                Live("persistent_search", server.uri),
            ]
            await load(server, kind.person("eve"))
            at = await stream.until(changed("eve"), at)
            eve = stream.events[at - 1]
            assert isinstance(eve, Changed)
            assert eve.uuid == entry_uuid(eve.entry)

    run(story())


def test_a_silent_server_is_found_out(started: Callable[[Kind], Server], tmp_path: Path) -> None:
    """The probe of an idle stream is not answered: it is lost, and comes back with the server."""
    server = started(SLAPD)

    async def story() -> None:
        timing = replace(QUICK, probe_interval=0.05)
        stream = Stream(server, SLAPD.watched, tmp_path / "password", timing=timing)
        stream.settings = replace(stream.settings, timeout=0.3)
        async with stream:
            at = await stream.until(is_live)
            server.suspend()
            at = await stream.until(lambda event: isinstance(event, Lost) and "probe" in event.reason, at)
            server.resume()
            await stream.until(is_live, at)

    run(story())


def test_several_bases_are_one_stream(started: Callable[[Kind], Server], tmp_path: Path) -> None:
    """What is between them is not told; what leaves them is deleted."""
    server = started(SLAPD)
    watched = replace(SLAPD.watched, bases=(f"ou=a,{SUFFIX}", f"ou=b,{SUFFIX}"))

    async def story() -> None:
        async with Stream(server, watched, tmp_path / "password") as stream:
            at = await stream.until(is_live)
            await load(server, SLAPD.person("bob"))
            at = await stream.until(changed("bob"), at)
            bob = getattr(stream.events[at - 1], "uuid", "")
            for unit, expected in (("ou=b,", Changed), ("", Deleted), ("ou=a,", Changed)):
                where = f"{unit}{SUFFIX}"
                dn = await found(stream, "bob")
                move = (
                    f"dn: {dn}\nchangetype: modrdn\nnewrdn: cn=bob\ndeleteoldrdn: 1\nnewsuperior: {where}\n"
                )
                await load(server, move)
                at = await stream.until(lambda event: getattr(event, "uuid", "") == bob, at)
                assert isinstance(stream.events[at - 1], expected)

    async def found(stream: Stream, name: str) -> str:
        stream.watched = replace(stream.watched, bases=(SUFFIX,))
        return next(entry.dn for entry in await stream.scan() if name in entry.values("cn"))

    run(story())


# --- a replica ------------------------------------------------------------------------------------


class Replica:
    """What can be known by events and by reading everything when they say so."""

    def __init__(self, stream: Stream, kind: Kind) -> None:
        self.entries: dict[str, Entry] = {}
        self.loads = 0
        self._stream = stream
        self._kind = kind
        self._is_stale = True

    async def apply(self, event: Event) -> None:
        """Take one event in."""
        match event:
            case Everything():
                self._is_stale = True
            case Deleted(uuid):
                self.entries.pop(uuid, None)
            case Changed(uuid, entry, _, None):
                self.entries[uuid] = entry
            case Changed(uuid, entry, _, members) if members is not None:
                self._with_members(uuid, entry, members)
        if self._is_stale and (isinstance(event, Live) or self._is_told()):
            self.entries = {entry_uuid(entry): entry for entry in await self._stream.scan()}
            self.loads += 1
            # What is read is not of one moment: a group may have been read before its member was renamed.
            keys = {entry.key for entry in self.entries.values()}
            named = {normal_dn(dn) for entry in self.entries.values() for dn in entry.values("member")}
            self._is_stale = self._kind.is_ad and not named <= keys

    def _with_members(self, uuid: str, entry: Entry, members: Members) -> None:
        """Active Directory: it does not tell of groups either that a member has another name."""
        before = self.entries.get(uuid, entry)
        left = dict.fromkeys(map(normal_dn, before.values("member")))
        for dn in members.removed:
            left.pop(normal_dn(dn), None)
        left |= dict.fromkeys(map(normal_dn, members.added))
        self.entries[uuid] = self._of(entry, left)
        if before.key != entry.key:
            for other, group in list(self.entries.items()):
                keys = [
                    entry.key if key == before.key else key for key in map(normal_dn, group.values("member"))
                ]
                self.entries[other] = self._of(group, keys)

    def _of(self, entry: Entry, members: Iterable[str]) -> Entry:
        attributes = {name: values for name, values in entry.items() if name != "member"}
        return Entry(entry.dn, {**attributes, "member": tuple(members)})

    def _is_told(self) -> bool:
        """Whether what is read now is kept up by what is told afterwards."""
        last = [event for event in self._stream.events if isinstance(event, Live | Lost)]
        return bool(last) and isinstance(last[-1], Live)


def picture(entries: Sequence[Entry]) -> dict[str, tuple[str, ...]]:
    """What has to be equal: names, addresses, members; Active Directory's own objects aside."""
    return {
        entry.key: tuple(sorted((*entry.values("mail"), *map(normal_dn, entry.values("member")))))
        for entry in entries
        if ",ou=" in entry.key
    }


def writes(kind: Kind, chance: random.Random, count: int) -> Iterator[str]:
    """Changes of a few users and groups, at random."""
    people: list[str] = []
    groups: list[str] = []
    for number in range(count):
        what = chance.randrange(8)
        if what <= 2 or not people or not groups:
            name = f"n{number}"
            (people if number % 3 else groups).append(name)
            yield kind.person(name) if number % 3 else kind.group(name, "amy")
        elif what <= 4:
            yield modify(chance.choice(people), f"mail: m{number}@example.com")
        elif what == 5:
            line = f"member: cn={chance.choice(people)},ou=a,{SUFFIX}"
            yield modify(chance.choice(groups), line, "replace", "b")
        elif what == 6:
            old = people.pop(chance.randrange(len(people)))
            people.append(f"r{number}")
            yield rename(f"cn={old},ou=a", f"cn=r{number}")
        else:
            yield delete(groups.pop(chance.randrange(len(groups))), "b")


@pytest.mark.parametrize("count", [60, pytest.param(240, marks=pytest.mark.long)])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if "poll" not in str(kind.id)])
def test_a_replica_of_events_equals_the_server(
    kind: Kind, count: int, started: Callable[..., Server], tmp_path: Path
) -> None:
    """After that many random writes, with the connection lost now and then."""
    server = started(kind, plain=True)
    chance = random.Random(11)
    ldif = list(writes(kind, chance, count))

    async def story() -> None:
        async with AsyncExitStack() as stack:
            stream = Stream(server, kind.watched, tmp_path / "password")
            replica = Replica(stream, kind)
            stream.on_event = replica.apply
            await stack.enter_async_context(stream)
            await stream.until(is_live)
            for start in range(0, len(ldif), 12):
                await load(server, *ldif[start : start + 12])
                if chance.random() < 0.4:
                    stream.connections[-1].abort("cut")
            # The server's own corrections (members that were renamed) may come behind the last write.
            await load(server, kind.person("end"))
            deadline = time.monotonic() + 120
            while (kept := picture(list(replica.entries.values()))) != (
                there := picture(await stream.scan())
            ):
                assert time.monotonic() < deadline, set(kept.items()) ^ set(there.items())
                await asyncio.sleep(0.1)
            assert replica.loads >= 1

    run(story())


def test_a_reset_connection_and_a_garbled_one_are_lost(
    started: Callable[[Kind], Server], tmp_path: Path
) -> None:
    """The stream resumes behind a proxy that misbehaves."""
    server = started(SLAPD)
    assert isinstance(server, Slapd)

    async def story(proxy: Proxy) -> None:
        async with Stream(server, SLAPD.watched, tmp_path / "password", proxy.uri) as stream:
            at = await stream.until(is_live)
            for number, fault in enumerate((proxy.reset, proxy.drop)):
                await asyncio.to_thread(fault)
                await load(server, SLAPD.person(f"p{number}"))
                await stream.until(changed(f"p{number}"), at)
                at = await stream.until(is_live, at)
            assert not any(isinstance(event, Everything) for event in stream.events)

    with Proxy(server.port) as proxy:
        run(story(proxy))


def test_a_change_is_told_at_once(started: Callable[[Kind], Server], tmp_path: Path) -> None:
    """Twenty are, one after the other, where nothing is looked at again, tried or probed within an hour."""
    server = started(SLAPD)
    hour = 3600.0
    watched = replace(SLAPD.watched, poll_interval=hour)
    rare = Timing(hour, hour, hour, hour, hour, hour)

    async def story() -> None:
        async with Stream(server, watched, tmp_path / "password", timing=rare) as stream:
            at = await stream.until(is_live)
            for number in range(20):
                await load(server, modify("amy", f"mail: m{number}@example.com"))
                at = await stream.until(changed("amy", mail=[f"m{number}@example.com"]), at)

    run(story())


def test_a_closed_watch_leaves_nothing_open(started: Callable[[Kind], Server], tmp_path: Path) -> None:
    """Neither a connection nor a task."""
    server = started(SLAPD)

    async def story() -> None:
        async with Stream(server, SLAPD.watched, tmp_path / "password") as stream:
            await stream.until(is_live)
        assert [connection.ended for connection in stream.connections] == ["closed"]
        assert asyncio.all_tasks() == {asyncio.current_task()}
        with pytest.raises(Unavailable):
            await stream.connections[0].probe()

    run(story())
