"""What streams make of the messages of servers, without a server: every cut, every kind of message."""

import asyncio
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import aclosing
from typing import cast

import pytest

from ldappolicy.directory import Features, Search
from ldappolicy.directory.changes import Changed, Deleted, Event, Everything, Live, Members, Watched
from ldappolicy.directory.ldap import ber, codec, requests
from ldappolicy.directory.ldap.connection import Connection
from ldappolicy.directory.ldap.streams import dirsync, offers, persistent_search, syncrepl
from ldappolicy.directory.ldap.streams.covered import Covered, is_container
from ldappolicy.directory.ldap.streams.following import Timing
from ldappolicy.entry import Entry
from ldappolicy.errors import Unavailable

BASE = "dc=example,dc=com"
ATTRIBUTES = ("objectClass", "mail", "member", "entryUUID")
WATCHED = Watched((BASE,), ATTRIBUTES, ("member",))
AMY, BOB, OU = "a" * 32, "b" * 32, "c" * 32


def covered(*bases: str) -> Covered:
    """What is watched below these bases."""
    return Covered(Watched(bases or (BASE,), ATTRIBUTES, ("member",)))


def entry(name: str, mail: str = "", **more: list[str]) -> codec.EntryBody:
    """An entry as a server sends it, with attributes that nobody asked for."""
    attributes = {"objectClass": ["person"], "hasSubordinates": ["FALSE"], "sn": ["x"], **more}
    return codec.EntryBody(f"{name},{BASE}", attributes | ({"mail": [mail]} if mail else {}))


def octets(text: str | bytes) -> bytes:
    """An OCTET STRING."""
    return ber.element(ber.OCTETS, text.encode() if isinstance(text, str) else text)


# --- RFC 4533 -------------------------------------------------------------------------------------

PRESENT, ADD, MODIFY, DELETE = range(4)


def state(kind: int, uuid: str, body: codec.EntryBody, cookie: str = "") -> codec.EntryBody:
    """An entry with a Sync State Control."""
    parts = [ber.integer(kind, ber.ENUMERATED), octets(bytes.fromhex(uuid))]
    parts += [octets(cookie)] if cookie else []
    value = ber.element(ber.SEQUENCE, *parts)
    return codec.EntryBody(body.dn, body.attributes, {syncrepl.STATE: value})


def said(choice: int, *parts: bytes) -> codec.Intermediate:
    """A Sync Info Message."""
    return codec.Intermediate(syncrepl.INFO, ber.element(choice, *parts))


def identities(*uuids: str, deletes: bool) -> codec.Intermediate:
    """syncIdSet."""
    members = (octets(bytes.fromhex(uuid)) for uuid in uuids)
    return said(0xA3, *[ber.boolean(True)] * deletes, ber.element(ber.SET, *members))


def told(name: str, mail: str = "") -> Entry:
    """What is told of `entry`."""
    return Entry(f"{name},{BASE}", {"objectClass": ["person"]} | ({"mail": [mail]} if mail else {}))


REFRESH_DELETE, REFRESH_PRESENT = said(0xA1, octets("c2")), said(0xA2, octets("c2"))
LIVE = Live("", "")
FIRST: list[codec.Body] = [state(ADD, AMY, entry("cn=amy")), REFRESH_PRESENT]
CASES: Mapping[str, tuple[list[codec.Body], list[Event]]] = {
    "added": ([state(ADD, BOB, entry("cn=bob", "b@x"))], [Changed(BOB, told("cn=bob", "b@x"), is_new=True)]),
    "modified": ([state(MODIFY, BOB, entry("cn=bob", "b@x"))], [Changed(BOB, told("cn=bob", "b@x"))]),
    "deleted": ([state(DELETE, BOB, entry("cn=bob"))], [Deleted(BOB, f"cn=bob,{BASE}")]),
    "several deleted": ([identities(AMY, BOB, deletes=True)], [Deleted(AMY), Deleted(BOB)]),
    "several present": ([identities(AMY, BOB, deletes=False)], []),
    "a cookie alone": ([said(0x80, b"")], []),
    "another message": ([codec.Intermediate("1.2.3", b"garbage")], []),
    "a container, for the first time": (
        [state(MODIFY, OU, entry("ou=a", hasSubordinates=["TRUE"]))],
        [
            Changed(OU, told("ou=a")),
            Everything(f"a container may have got another name: 'ou=a,{BASE}'"),
        ],
    ),
    "a new container, and its name": (
        [
            state(ADD, OU, entry("ou=a", hasSubordinates=["FALSE"])),
            state(MODIFY, OU, entry("ou=a", "o@x", hasSubordinates=["TRUE"])),
            state(MODIFY, OU, entry("ou=b", "o@x", hasSubordinates=["TRUE"])),
        ],
        [
            Changed(OU, told("ou=a"), is_new=True),
            Changed(OU, told("ou=a", "o@x")),
            Everything(f"a container may have got another name: 'ou=a,{BASE}'"),
            Changed(OU, told("ou=b", "o@x")),
            Everything(f"a container may have got another name: 'ou=b,{BASE}'"),
        ],
    ),
    "a container that was moved here with what is below it": (
        [state(ADD, OU, entry("ou=a", hasSubordinates=["TRUE"]))],
        [
            Changed(OU, told("ou=a"), is_new=True),
            Everything(f"a container may have got another name: 'ou=a,{BASE}'"),
        ],
    ),
    "the server forgot": (
        [REFRESH_PRESENT],
        [Everything("the server does not know what was deleted in between")],
    ),
}


def fed(machine: syncrepl.Syncrepl, bodies: Iterable[codec.Body]) -> list[Event]:
    """All events of some messages."""
    return [event for body in bodies for event in machine.feed(body)]


def live() -> syncrepl.Syncrepl:
    """A machine behind its first refresh."""
    machine = syncrepl.Syncrepl(covered())
    machine.begin()
    assert fed(machine, FIRST) == [LIVE]
    return machine


@pytest.mark.parametrize("case", CASES)
def test_each_message_of_a_stream_is_told(case: str) -> None:
    """With the attributes that were asked for, and no others."""
    bodies, expected = CASES[case]
    assert expected == fed(live(), bodies)


def test_the_first_refresh_is_told_to_nobody() -> None:
    """In whatever phases it comes."""
    machine = syncrepl.Syncrepl(covered())
    machine.begin()
    refresh: list[codec.Body] = [
        state(ADD, AMY, entry("cn=amy")),
        state(PRESENT, BOB, codec.EntryBody(f"cn=bob,{BASE}", {})),
        identities(OU, deletes=False),
        said(0xA2, octets("c1"), ber.boolean(False)),
        identities(OU, deletes=True),
        said(0xA1, ber.boolean(True)),
    ]
    assert fed(machine, refresh) == [LIVE]
    assert (machine.is_live, machine.cookie) == (True, b"c1")


def test_what_was_missed_is_told_before_the_stream_is_live() -> None:
    """Nothing of it is new for certain."""
    machine = live()
    assert b"c2" in (machine.begin().value or b"")
    missed: list[codec.Body] = [
        state(ADD, BOB, entry("cn=bob")),
        identities(AMY, deletes=True),
        REFRESH_DELETE,
    ]
    assert fed(machine, missed) == [Changed(BOB, told("cn=bob")), Deleted(AMY), LIVE]


class Scripted:
    """A connection on which each search hears what is written for it, and then nothing more."""

    uri = "ldap://scripted"

    def __init__(self, *answers: Iterable[codec.Body]) -> None:
        self.answers = list(answers)
        self.asked: list[bytes] = []
        self.is_done = asyncio.Event()
        """Set with the first result of a search."""

    async def search(self, search: Search) -> list[Entry]:
        """Nothing says how far its content has come."""
        return []

    async def listen(
        self, search: Search, controls: Sequence[requests.Control]
    ) -> AsyncGenerator[codec.Body, None]:
        """As `Connection.listen`."""
        [control] = controls
        self.asked.append(control.value or b"")
        for body in self.answers.pop(0):
            if isinstance(body, codec.Result):
                self.is_done.set()
                yield body
                return
            yield body
        await asyncio.Event().wait()


DONE, REQUIRED = codec.Result(codec.SUCCESS, ""), codec.Result(4096, "")
AGAIN: dict[str, tuple[Iterable[codec.Body], list[Event]]] = {
    "something": ([state(ADD, BOB, entry("cn=bob")), DONE], [Changed(BOB, told("cn=bob"))]),
    "a deletion": (
        [state(DELETE, AMY, codec.EntryBody(f"cn=amy,{BASE}", {})), DONE],
        [Deleted(AMY, f"cn=amy,{BASE}")],
    ),
    "nothing": ([DONE], []),
    "a cookie that it does not take": (
        [REQUIRED],
        [Everything("what was written while the search began is not told")],
    ),
}


@pytest.mark.parametrize(("answer", "expected"), AGAIN.values(), ids=AGAIN)
def test_389ds_is_asked_again_for_what_was_written_while_it_began(
    answer: Iterable[codec.Body], expected: list[Event]
) -> None:
    """By the cookie of the start, in a search that does not follow; what comes meanwhile is told, too."""
    connection = Scripted([*FIRST, state(ADD, OU, entry("cn=new"), "c3")], answer)

    followed = syncrepl.SyncFollowing(covered(), Timing(settling=0.01))
    heard: list[Event] = []

    async def listen() -> None:
        async for event in followed.events(cast("Connection", connection)):
            heard.append(event)  # noqa: PERF401 - what came before it is cancelled counts

    async def story() -> None:
        listening = asyncio.ensure_future(listen())
        async with asyncio.timeout(60):
            await connection.is_done.wait()
        for _ in range(10):
            await asyncio.sleep(0)
        assert not listening.done()
        listening.cancel()
        await asyncio.wait((listening,))

    asyncio.run(story())
    new = Changed(OU, told("cn=new"), is_new=True)
    assert (heard, followed.machine.cookie) == ([Live("syncrepl", Scripted.uri), new, *expected], b"c3")
    assert [b"c2" in control for control in connection.asked] == [False, True]


def test_openldap_is_not_asked_again() -> None:
    """It tells everything, and its cookies say that it is it."""
    connection = Scripted([REFRESH_DELETE])

    async def story() -> None:
        followed = syncrepl.SyncFollowing(covered(), Timing(settling=0.0))
        followed.machine = syncrepl.Syncrepl(
            covered(), b"rid=000,csn=20261201000000.000000Z#000000#000#000000"
        )
        async with aclosing(followed.events(cast("Connection", connection))) as events:
            assert await anext(events) == Live("syncrepl", Scripted.uri)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await anext(events)

    asyncio.run(story())
    assert len(connection.asked) == 1


def test_a_refresh_that_names_what_is_present_is_everything() -> None:
    """Since nobody here knows what else there was."""
    machine = live()
    machine.begin()
    missed: list[codec.Body] = [
        state(ADD, BOB, entry("cn=bob")),
        identities(AMY, deletes=False),
        REFRESH_PRESENT,
    ]
    assert fed(machine, missed) == [
        Changed(BOB, told("cn=bob")),
        Everything("the server does not know what was deleted in between"),
        LIVE,
    ]


def test_a_refresh_that_brings_the_base_is_everything() -> None:
    """slapd begins anew without a word when it cannot read its cookie."""
    machine = live()
    machine.begin()
    missed: list[codec.Body] = [state(ADD, OU, codec.EntryBody(BASE.upper(), {})), REFRESH_DELETE]
    assert fed(machine, missed)[1:] == [Everything("the server has begun anew"), LIVE]


def test_everything_is_told_however_often_the_stream_breaks_before() -> None:
    """Neither a new cookie nor another attempt makes good what is not known."""
    machine = live()
    machine.begin()
    assert fed(machine, [said(0xA2, octets("c3"), ber.boolean(False))]) == []
    for _ in range(2):
        assert octets("c3") in (machine.begin().value or b"")
    assert fed(machine, [REFRESH_DELETE]) == [
        Everything("the server does not know what was deleted in between"),
        LIVE,
    ]
    machine.cookie = b""
    machine.begin(b"start")
    machine.begin(b"later")
    assert fed(machine, [REFRESH_DELETE]) == [Everything("there is no cookie"), LIVE]


def test_a_start_is_a_cookie_until_the_server_sends_one() -> None:
    """slapd sends none while nothing happens."""
    machine = syncrepl.Syncrepl(covered())
    machine.begin(b"start")
    assert not machine.can_resume
    assert fed(machine, [said(0xA1)]) == [LIVE]
    assert octets("start") in (machine.begin(b"later").value or b"")
    assert fed(machine, [said(0xA1)]) == [LIVE]


SCRIPT: list[codec.Body] = [
    *FIRST,
    state(ADD, BOB, entry("cn=bob", "b@x"), "c3"),
    state(MODIFY, AMY, entry("cn=amy", "a@x"), "c4"),
    identities(BOB, deletes=True),
    said(0x80, b"c5"),
    state(DELETE, AMY, entry("cn=amy"), "c6"),
]


@pytest.mark.parametrize("cut", range(len(SCRIPT) + 1))
def test_a_stream_may_be_cut_behind_each_message(cut: int) -> None:
    """A cookie goes out again, and is one that came; without one it is a first time, and Everything."""
    machine = syncrepl.Syncrepl(covered())
    machine.begin()
    was_live = LIVE in fed(machine, SCRIPT[:cut])
    asked = machine.begin().value or b""
    cookies = {2: b"c2", 3: b"c3", 4: b"c4", 5: b"c4", 6: b"c5", 7: b"c6"}
    if was_live:
        assert asked.endswith(cookies[cut])
        assert fed(machine, [REFRESH_DELETE]) == [LIVE]
    else:
        assert asked == ber.element(ber.SEQUENCE, ber.integer(3, ber.ENUMERATED))
        assert fed(machine, FIRST) == [LIVE]


@pytest.mark.parametrize(
    ("code", "is_live", "expected"),
    [(53, True, b""), (4096, True, b""), (52, True, b"c2"), (52, False, b""), (2, False, b"")],
)
def test_a_cookie_that_is_not_taken_is_dropped(code: int, is_live: bool, expected: bytes) -> None:
    """And the next start is a first one, with Everything before Live."""
    machine = live()
    if not is_live:
        machine.begin()
    machine.ended(codec.Result(code, ""))
    assert machine.cookie == expected
    if not expected:
        machine.begin()
        assert fed(machine, FIRST) == [Everything("there is no cookie"), LIVE]


def cut_off(body: codec.EntryBody) -> codec.EntryBody:
    """The same with a control that ends too early."""
    controls = {oid: value[:-1] for oid, value in body.controls.items()}
    return codec.EntryBody(body.dn, body.attributes, controls)


@pytest.mark.parametrize(
    "body",
    [
        entry("cn=bob"),
        cut_off(state(ADD, BOB, entry("cn=bob"))),
        state(ADD, "bb", entry("cn=bob")),
        state(7, BOB, entry("cn=bob")),
        codec.Intermediate(syncrepl.INFO, b""),
        codec.Intermediate(syncrepl.INFO, b"\xa1\x05"),
        said(0xA4),
        identities("bb", deletes=True),
    ],
)
def test_what_makes_no_sense_ends_a_sync(body: codec.Body) -> None:
    """Nothing is guessed."""
    with pytest.raises((codec.Garbage, ValueError)):
        fed(live(), [body])


def test_a_reference_ends_a_sync() -> None:
    """A part of the content is elsewhere, where nobody looks."""
    with pytest.raises(Unavailable):
        fed(live(), [codec.Reference()])


# --- persistent search ----------------------------------------------------------------------------


def notified(change: int, body: codec.EntryBody, previous: str = "") -> codec.EntryBody:
    """An entry with an Entry Change Notification."""
    parts = [ber.integer(change, ber.ENUMERATED), *([octets(previous)] if previous else [])]
    value = ber.element(ber.SEQUENCE, *parts, ber.integer(7))
    return codec.EntryBody(body.dn, body.attributes, {persistent_search.NOTIFICATION: value})


UUID = "bbbbbbbb-bbbb-bbbb-bbbb-bbbbbbbbbbbb"
WITH_UUID = entry("cn=bob", entryUUID=[UUID])
TOLD = Entry(f"cn=bob,{BASE}", {"objectClass": ["person"], "entryUUID": [UUID]})


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (1, [Changed(BOB, TOLD, is_new=True)]),
        (2, [Deleted(BOB, f"cn=bob,{BASE}")]),
        (4, [Changed(BOB, TOLD)]),
        (8, [Changed(BOB, TOLD)]),
    ],
)
def test_each_change_of_a_persistent_search_is_told(change: int, expected: list[Event]) -> None:
    """Add, delete, modify, and a new name."""
    body = notified(change, WITH_UUID, f"cn=rob,{BASE}" if change == 8 else "")
    assert expected == list(persistent_search.told(covered(), body))


def test_a_change_without_an_identity_is_everything() -> None:
    """Whose it is cannot be said."""
    events = list(persistent_search.told(covered(), notified(2, entry("cn=bob"))))
    assert events == [Everything(f"an entry without an identity has changed: 'cn=bob,{BASE}'")]


@pytest.mark.parametrize("body", [WITH_UUID, cut_off(notified(1, WITH_UUID))])
def test_an_entry_without_a_notification_is_garbage(body: codec.EntryBody) -> None:
    """The server does something else than was asked."""
    with pytest.raises(codec.Garbage):
        list(persistent_search.told(covered(), body))


# --- DirSync --------------------------------------------------------------------------------------


def answer(more: int, cookie: str) -> codec.Result:
    """What ends a DirSync search."""
    value = ber.element(ber.SEQUENCE, ber.integer(more), ber.integer(0), octets(cookie))
    return codec.Result(0, "", controls={dirsync.DIRSYNC: value})


def test_a_dirsync_goes_on_from_its_cookie() -> None:
    """Until there is no more."""
    machine = dirsync.DirSync(covered())
    assert [machine.take(answer(1, "one")), machine.take(answer(0, "two"))] == [True, False]
    assert octets("two") in (machine.control().value or b"")


@pytest.mark.parametrize("result", [codec.Result(0, ""), answer(0, "")])
def test_a_dirsync_without_a_cookie_is_garbage(result: codec.Result) -> None:
    """There is nothing to go on from."""
    with pytest.raises(codec.Garbage):
        dirsync.DirSync(covered()).take(result)


def test_members_that_came_and_went() -> None:
    """MS-ADTS: range=1-1 came, range=0-0 went, no range with a new group."""
    attributes = {"member;range=1-1": ["a", "b"], "Member;range=0-0": ["c"], "other;range=0-0": ["d"]}
    body = codec.EntryBody(f"cn=g,{BASE}", attributes)
    assert dirsync.DirSync(covered()).members(body) == Members(("a", "b"), ("c",))
    assert dirsync.DirSync(covered()).members(entry("cn=g", member=["a"])) == Members(("a",), ())


def test_an_entry_is_read_again_by_its_identity() -> None:
    """Without its members; what has no identity is garbage."""
    search = dirsync.DirSync(covered()).again(entry("cn=g", objectGUID=["\x01" * 15 + "\udcff"]))
    assert search.base == "<GUID=" + "01" * 15 + "ff>"
    assert search.attributes == ("objectClass", "mail", "entryUUID", "objectGUID")
    with pytest.raises(codec.Garbage):
        dirsync.identity(entry("cn=g"))


# --- what is covered ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bases", "base", "outermost"),
    [
        ([BASE], BASE, [BASE]),
        ([BASE, f"ou=a,{BASE.upper()}"], BASE, [BASE]),
        ([f"OU=A,{BASE}", f"ou=B,{BASE}"], BASE, [f"OU=A,{BASE}", f"ou=B,{BASE}"]),
        ([f"ou=x,ou=a,{BASE}", f"ou=y,ou=a,{BASE}"], f"ou=a,{BASE}", None),
        ([f"ou=a\\,b,{BASE}", f"ou=c\\,b,{BASE}"], BASE, None),
        (["dc=a,dc=x", "dc=b,dc=y"], "", None),
    ],
)
def test_several_bases_are_watched_from_their_common_parent(
    bases: Sequence[str], base: str, outermost: Sequence[str] | None
) -> None:
    """A base below another adds nothing; a comma in a name is no end of it."""
    found = covered(*bases)
    assert (base, list(outermost or bases)) == (found.base, list(found.bases))


def test_what_lies_outside_of_the_bases_is_deleted() -> None:
    """Whoever has moved there, and whoever never was anywhere else."""
    watched = covered(f"ou=a,{BASE}", f"ou=b,{BASE}")
    inside, outside = entry("cn=bob,ou=a"), entry("cn=bob,ou=c")
    assert list(watched.changed(BOB, inside)) == [Changed(BOB, told("cn=bob,ou=a"))]
    assert list(watched.changed(BOB, outside)) == [Deleted(BOB)]


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"hasSubordinates": ["TRUE"], "objectClass": ["person"]}, True),
        ({"hasSubordinates": ["FALSE"], "objectClass": ["organizationalUnit"]}, False),
        ({"numSubordinates": ["3"]}, True),
        ({"numSubordinates": ["0"]}, False),
        ({"objectclass": ["top", "organizationalUnit"]}, True),
        ({"objectClass": ["person"]}, False),
        ({}, False),
    ],
)
def test_a_container_is_what_has_subordinates(attributes: dict[str, list[str]], expected: bool) -> None:
    """By what the server says, else by what it is."""
    assert expected == is_container(attributes)


def test_a_change_behind_a_deletion_is_doubtful() -> None:
    """Unless the entry is new; as is one that came without the identity that was asked for."""
    watched = covered()
    event = Changed(BOB, TOLD)
    assert not watched.is_doubtful(event)
    watched.deleted(BOB)
    assert watched.is_doubtful(event)
    assert not watched.is_doubtful(Changed(BOB, TOLD, is_new=True))
    assert watched.is_doubtful(Changed(AMY, told("cn=amy")))


def test_an_identity_of_another_kind_is_a_contradiction() -> None:
    """Whoever reads entries would not find them again by it."""
    assert not covered().contradicts(Changed(BOB, TOLD))
    assert covered().contradicts(Changed(AMY, TOLD))
    assert not covered().contradicts(Changed(AMY, told("cn=amy")))


AD = "1.2.840.113556.1.4.800"


@pytest.mark.parametrize(
    ("controls", "capabilities", "expected"),
    [
        ([], [], ["poll"]),
        ([syncrepl.REQUEST], [], ["syncrepl", "poll"]),
        (
            [persistent_search.REQUEST, syncrepl.REQUEST],
            [],
            ["syncrepl", "persistent_search", "poll"],
        ),
        ([dirsync.DIRSYNC], [], ["poll"]),
        ([dirsync.DIRSYNC], [AD], ["dirsync", "poll"]),
    ],
)
def test_the_root_dse_says_which_kinds_there_are(
    controls: list[str], capabilities: list[str], expected: list[str]
) -> None:
    """Best first; polling is always possible."""
    features = Features(frozenset(controls), frozenset(capabilities))
    assert expected == [kind for kind, is_offered in offers(features) if is_offered]
