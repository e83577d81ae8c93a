"""What the transport does for streams: listening, scanning, controls; against servers, and by hand."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ldappolicy.directory import MATCHED_VALUES, Features, Scope, Search
from ldappolicy.directory.changes import Lost, Watched
from ldappolicy.directory.ldap import ber, codec, requests
from ldappolicy.directory.ldap.connection import BATCH, MAX_WAITING, PAGE, Connection, connect
from ldappolicy.directory.ldap.settings import LdapSettings, endpoints
from ldappolicy.directory.ldap.streams import watch
from ldappolicy.entry import Entry
from ldappolicy.errors import Unavailable
from ldappolicy.ldap_filter import Equality, Filter, Present, Substring
from tests.labs.clock import on_virtual_time
from tests.labs.faulty_ldap import FakeLdap, Proxy, delayed, stalled
from tests.labs.server import tree_of
from tests.labs.slapd import SUFFIX, Slapd, require_slapd

ANY = Present("objectClass")


def search(base: str = SUFFIX, *attributes: str, values: tuple[Filter, ...] = ()) -> Search:
    """Everything from here downwards."""
    return Search(base, Scope.SUB, ANY, attributes or ("1.1",), values)


@asynccontextmanager
async def connected(uri: str, *, features: bool = True, seconds: float = 60.0) -> AsyncIterator[Connection]:
    """A connection that is closed at the end."""
    settings = LdapSettings([uri], timeout=seconds)
    connection = await connect(endpoints(settings)[0], settings, None)
    try:
        if features:
            await connection.read_features()
        yield connection
    finally:
        await connection.close()


async def refusal(work: Awaitable[object]) -> str:
    """The text of the Unavailable that it must end with."""
    with pytest.raises(Unavailable) as caught:
        await work
    return str(caught.value)


async def pages(connection: Connection, wanted: Search) -> list[list[Entry]]:
    """A whole scan."""
    return [page async for page in connection.scan(wanted)]


def people(count: int) -> str:
    """A tree of so many entries below its base."""
    person = "dn: cn=p{0},{1}\nobjectClass: person\ncn: p{0}\nsn: x\ndescription: a{0}\ndescription: b{0}\n\n"
    return tree_of() + "".join(person.format(number, SUFFIX) for number in range(count))


# --- controls -------------------------------------------------------------------------------------


def asked(request: bytes) -> dict[str, tuple[bool, bytes]]:
    """The controls of a request: criticality and value by OID."""
    parts = ber.parts(request)
    found = {}
    for _, start, end in ber.elements(parts[2][1]) if len(parts) > 2 else []:
        (_, oid), *rest = [(tag, parts[2][1][at:to]) for tag, at, to in ber.elements(parts[2][1], start, end)]
        values = dict(rest)
        found[oid.decode()] = (values.get(ber.BOOLEAN) == b"\xff", values.get(ber.OCTETS, b""))
    return found


def test_controls_go_out_as_they_are() -> None:
    """Critical or not, with a value or without; none, no list of them."""
    controls = [requests.Control("1.2.3", True, b"\0\xff"), requests.Control("4.5.6")]
    assert asked(requests.search_request(1, search(), 0, controls)) == {
        "1.2.3": (True, b"\0\xff"),
        "4.5.6": (False, b""),
    }
    assert asked(requests.search_request(1, search(), 0)) == {}


def test_the_values_that_are_wanted() -> None:
    """RFC 3876: a sequence of filter items."""
    control = requests.matched_values([Equality("mail", "a*"), Present("cn")])
    item = ber.element(0xA3, ber.element(4, b"mail"), ber.element(4, b"a*"))
    assert control.value == ber.element(ber.SEQUENCE, item, ber.element(0x87, b"cn"))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (ber.element(0x30, ber.integer(0), ber.element(4, b"more")), b"more"),
        (ber.element(0x30, ber.integer(9), ber.element(4, b"")), b""),
        (None, b""),
    ],
)
def test_a_page_says_how_to_go_on(value: bytes | None, expected: bytes) -> None:
    """With a cookie, which is empty behind the last one."""
    controls = {} if value is None else {requests.PAGED_RESULTS: value}
    assert expected == codec.page_cookie(codec.Result(0, "", controls=controls))


@pytest.mark.parametrize("value", [b"", b"\x30\x00", b"\x30\x05", ber.element(0x30, ber.integer(1))])
def test_a_page_that_says_nonsense_is_garbage(value: bytes) -> None:
    """It is not taken for the last one."""
    with pytest.raises(codec.Garbage):
        codec.page_cookie(codec.Result(0, "", controls={requests.PAGED_RESULTS: value}))


# --- BER ------------------------------------------------------------------------------------------


@given(st.integers(-(2**40), 2**40))
def test_numbers_go_there_and_back(number: int) -> None:
    """Negative ones too: DirSync's flags are."""
    [(tag, start, end)] = ber.elements(ber.integer(number))
    assert (tag, ber.number(ber.integer(number)[start:end])) == (ber.INTEGER, number)


@given(st.lists(st.binary(max_size=300), max_size=4))
def test_elements_go_there_and_back(contents: list[bytes]) -> None:
    """Whatever their length takes."""
    octets = ber.element(ber.SEQUENCE, *(ber.element(ber.OCTETS, content) for content in contents))
    assert [(ber.OCTETS, content) for content in contents] == ber.parts(octets)


def message(number: int, operation: bytes, *controls: bytes) -> bytes:
    """An LDAPMessage."""
    more = [ber.element(0xA0, *controls)] if controls else []
    return ber.element(ber.SEQUENCE, ber.integer(number), operation, *more)


def entry(dn: str, **attributes: Sequence[str]) -> bytes:
    """A SearchResultEntry."""
    lists = (
        ber.element(
            0x30,
            ber.element(4, name.encode()),
            ber.element(0x31, *(ber.element(4, value.encode()) for value in values)),
        )
        for name, values in attributes.items()
    )
    return ber.element(0x64, ber.element(4, dn.encode()), ber.element(0x30, *lists))


def result(operation: int, code: int = 0, *more: bytes) -> bytes:
    """An LDAPResult."""
    return ber.element(
        operation, ber.integer(code, ber.ENUMERATED), ber.element(4), ber.element(4, b"why"), *more
    )


CONTROL = ber.element(0x30, ber.element(4, b"1.2.3"), ber.boolean(True), ber.element(4, b"value"))
MESSAGES: list[tuple[bytes, codec.Body]] = [
    (message(1, entry("dc=a", cn=["x", "y"], sn=[])), codec.EntryBody("dc=a", {"cn": ["x", "y"], "sn": []})),
    (message(1, entry("dc=a"), CONTROL), codec.EntryBody("dc=a", {}, {"1.2.3": b"value"})),
    (
        message(1, ber.element(0x79, ber.element(0x80, b"1.2"), ber.element(0x81, b"v"))),
        codec.Intermediate("1.2", b"v"),
    ),
    (message(1, ber.element(0x73, ber.element(4, b"ldap://x"))), codec.Reference()),
    (message(1, result(0x65), CONTROL), codec.Result(0, "why", controls={"1.2.3": b"value"})),
    (
        message(1, result(0x61, 14, ber.element(0x87, b"token"))),
        codec.Result(14, "why", sasl_credentials=b"token"),
    ),
    (message(1, result(0x65, 10, ber.element(0xA3, ber.element(4, b"ldap://x")))), codec.Result(10, "why")),
    (
        message(0, result(0x78, 52, ber.element(0x8A, b"1.3.6.1.4.1.1466.20036"))),
        codec.Result(52, "why", True),
    ),
]


@pytest.mark.parametrize(("octets", "expected"), MESSAGES)
def test_each_message_is_understood(octets: bytes, expected: codec.Body) -> None:
    """Operations, controls, what binds and the notice of disconnection add."""
    assert codec.decode(octets)[1] == expected
    assert codec.message_size(octets) == len(octets)


@pytest.mark.parametrize("octets", [octets for octets, _ in MESSAGES])
def test_a_message_with_a_wrong_length_is_garbage(octets: bytes) -> None:
    """Each octet in turn a bit larger or smaller: understood or Garbage, and never anything else."""
    for at in range(len(octets)):
        for change in (1, -1, 0x80):
            odd = octets[:at] + bytes([(octets[at] + change) & 0xFF]) + octets[at + 1 :]
            try:
                codec.decode(odd)
            except codec.Garbage:
                continue
    for end in range(len(octets)):
        with pytest.raises(codec.Garbage):
            codec.decode(octets[:end])


@given(st.binary(max_size=80))
def test_noise_is_garbage(octets: bytes) -> None:
    """Or by chance a message."""
    with suppress(codec.Garbage):
        codec.decode(octets)


# --- listening, by hand ---------------------------------------------------------------------------


class Wire(asyncio.Transport):
    """The other end of a connection that is fed by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = b""
        self.is_reading_now = True
        self.is_gone = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.sent += bytes(data)

    def abort(self) -> None:
        self.is_gone = True

    def is_closing(self) -> bool:
        return self.is_gone

    def pause_reading(self) -> None:
        self.is_reading_now = False

    def resume_reading(self) -> None:
        self.is_reading_now = True


def wired() -> tuple[Connection, Wire]:
    """A connection and its other end."""
    connection, wire = Connection("ldap://fake", 60.0), Wire()
    connection.connection_made(wire)
    return connection, wire


def run(story: Any) -> None:
    """In a loop of its own."""
    asyncio.run(story)


def test_a_listener_hears_everything_and_then_the_result() -> None:
    """As it comes, whatever the code."""

    async def story() -> None:
        connection, _ = wired()
        heard = []
        async with aclosing(connection.listen(search())) as bodies:
            first = asyncio.ensure_future(anext(bodies))
            await asyncio.sleep(0)
            connection.data_received(message(1, entry("dc=a")) + message(1, ber.element(0x73)))
            heard.append(await first)
            connection.data_received(message(1, entry("dc=b")) + message(1, result(0x65, 53)))
            heard += [body async for body in bodies]
        assert [type(body).__name__ for body in heard] == ["EntryBody", "Reference", "EntryBody", "Result"]

    run(story())


def test_a_listener_that_leaves_abandons_its_search() -> None:
    """And what still comes is nobody's."""

    async def story() -> None:
        connection, wire = wired()
        async with aclosing(connection.listen(search())) as bodies:
            first = asyncio.ensure_future(anext(bodies))
            await asyncio.sleep(0)
            connection.data_received(message(1, entry("dc=a")))
            await first
        assert wire.sent.endswith(b"\x02\x01\x02\x50\x01\x01")
        connection.data_received(message(1, entry("dc=b")))
        assert not connection.ended

    run(story())


def test_a_lost_connection_is_told_behind_what_had_come() -> None:
    """With the reason of whoever ended it."""

    async def story() -> None:
        connection, _ = wired()
        async with aclosing(connection.listen(search())) as bodies:
            first = asyncio.ensure_future(anext(bodies))
            await asyncio.sleep(0)
            connection.data_received(message(1, entry("dc=a")) + message(1, entry("dc=b")))
            connection.abort("lookups moved")
            assert isinstance(await first, codec.EntryBody)
            assert isinstance(await anext(bodies), codec.EntryBody)
            assert await refusal(anext(bodies)) == "ldap://fake: lookups moved"

    run(story())


def test_a_listener_that_does_not_keep_up_stops_the_reading() -> None:
    """What waits is bounded; nothing is lost when it goes on."""
    each = message(1, entry("dc=a", cn=["x" * 1000]))

    async def story() -> None:
        connection, wire = wired()
        async with aclosing(connection.listen(search())) as bodies:
            first = asyncio.ensure_future(anext(bodies))
            await asyncio.sleep(0)
            sent = 0
            while wire.is_reading_now or sent < BATCH:
                connection.data_received(each)
                sent += 1
                assert sent * len(each) < 2 * MAX_WAITING
            assert connection.is_paused
            connection.data_received(each + message(1, result(0x65)))
            await first
            assert sum([1 async for _ in bodies]) == sent + 1
            assert wire.is_reading_now

    run(story())


@pytest.mark.servers
def test_a_flood_leaves_turns_to_others() -> None:
    """Ten thousand entries in one read are not decoded in one go."""
    flood = b"".join(message(1, entry(f"cn={n},dc=a")) for n in range(10_000)) + message(1, result(0x65))

    async def story() -> None:
        connection, _ = wired()
        task = asyncio.ensure_future(connection.search(search()))
        await asyncio.sleep(0)
        connection.data_received(flood)
        turns = 0
        while not task.done():
            await asyncio.sleep(0)
            turns += 1
        assert len(await task) == 10_000
        assert turns >= 10_000 // BATCH

    run(story())


# --- servers --------------------------------------------------------------------------------------


@pytest.mark.servers
def test_the_features_of_a_server() -> None:
    """Its root DSE, once."""
    require_slapd()

    async def story(slapd: Slapd) -> None:
        async with connected(slapd.uri, features=False) as connection:
            assert connection.features == Features()
            features = await connection.read_features()
            assert features is connection.features
            assert {requests.PAGED_RESULTS, MATCHED_VALUES} <= features.controls
            assert (features.has_matched_values, features.is_active_directory) == (True, False)

    with Slapd() as slapd:
        run(story(slapd))
    with FakeLdap({}) as fake:

        async def other() -> None:
            async with connected(fake.uri) as connection:
                assert connection.features.is_active_directory

        run(other())


@pytest.mark.servers
def test_only_the_values_that_are_wanted_come() -> None:
    """Where the server does that; all of them where it was not asked what it does."""
    require_slapd()

    async def story(slapd: Slapd) -> None:
        wanted = search(f"cn=p0,{SUFFIX}", "description", values=(Substring("description", "b"),))
        async with connected(slapd.uri) as connection:
            [found] = await connection.search(wanted)
            assert found.values("description") == ("b0",)
        async with connected(slapd.uri, features=False) as connection:
            [found] = await connection.search(wanted)
            assert sorted(found.values("description")) == ["a0", "b0"]

    with Slapd(data=people(1)) as slapd:
        run(story(slapd))


@pytest.mark.servers
@pytest.mark.parametrize("features", [True, False], ids=["in pages", "in parts"])
def test_a_scan_reads_everything(features: bool) -> None:
    """In pages, or in one search that is handed over in parts."""
    require_slapd()

    async def story(slapd: Slapd) -> None:
        async with connected(slapd.uri, features=features) as connection:
            found = await pages(connection, search(SUFFIX, "cn"))
            assert max(map(len, found)) <= max(PAGE, BATCH)
            assert len({one.key for page in found for one in page}) == 1201
            nowhere = f"ou=nowhere,{SUFFIX}"
            refused = await refusal(pages(connection, search(nowhere)))
            assert refused == f"{slapd.uri}: search at {nowhere!r}: noSuchObject (32)"

    with Slapd(data=people(1200)) as slapd:
        run(story(slapd))


@pytest.mark.servers
@pytest.mark.parametrize("features", [True, False], ids=["in pages", "in parts"])
def test_a_scan_that_is_limited_is_unavailable(features: bool) -> None:
    """A part of the answer is no answer."""
    require_slapd()

    async def story(slapd: Slapd) -> None:
        async with connected(slapd.uri, features=features) as connection:
            assert "sizeLimitExceeded (4)" in await refusal(pages(connection, search()))

    with Slapd(data=people(20), size_limit="10") as slapd:
        run(story(slapd))


@pytest.mark.parametrize(("seconds", "expected"), [(0.3, 10.0), (20.0, 20.0)])
@pytest.mark.parametrize("features", [True, False], ids=["in pages", "in parts"])
def test_a_scan_of_a_silent_server_ends_at_the_deadline(
    features: bool, seconds: float, expected: float
) -> None:
    """Of each page, which has ten seconds at least."""
    entries = {SUFFIX: {"o": ["x"]}}
    root_dse = {"supportedControl": [requests.PAGED_RESULTS]}

    async def story() -> None:
        async with (
            FakeLdap(entries, root_dse=root_dse) as fake,
            Proxy(fake.path) as proxy,
            connected(proxy.uri, features=features, seconds=seconds) as connection,
        ):
            proxy.be(delayed(expected - 1.0))
            assert len(await pages(connection, search())) == 1
            proxy.be(stalled)
            started = asyncio.get_running_loop().time()
            said = await refusal(pages(connection, search()))
            assert said == f"{proxy.uri}: no answer within {expected:g} s"
            assert asyncio.get_running_loop().time() - started == pytest.approx(expected)
            assert "no answer" in await refusal(connection.probe())

    on_virtual_time(story())


# --- pauses ---------------------------------------------------------------------------------------


def test_a_stream_is_begun_again_after_a_pause_that_doubles() -> None:
    """0.2, 0.4, 0.8 ... 30 s."""

    async def away() -> Connection:
        raise Unavailable("away")

    async def story() -> list[float]:
        clock, lost = asyncio.get_running_loop().time, [0.0]
        async with aclosing(watch(away, Watched((SUFFIX,), ("cn",), ()), jitter=lambda: 1.0)) as events:
            while len(lost) < 12:
                assert await anext(events) == Lost("away")
                lost.append(clock())
        return [after - before for before, after in pairwise(lost)]

    expected = [0.0, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30.0, 30.0]
    assert on_virtual_time(story()) == pytest.approx(expected)


MEMBERS = [f"cn=m{n},dc=x" for n in range(4100)]


def test_values_that_come_in_ranges_are_completed_by_a_scan() -> None:
    """Active Directory's 1500 at a time; a search of its own refuses them."""
    entries = {"cn=big,dc=x": {"objectClass": ["group"], "member": MEMBERS}}

    async def story(fake: FakeLdap) -> None:
        async with connected(fake.uri) as connection:
            wanted = search("cn=big,dc=x", "objectClass", "member")
            [[found]] = await pages(connection, wanted)
            assert list(found.values("member")) == MEMBERS
            assert found.values("objectClass") == ("group",)
            asked = [attributes for _, attributes in fake.searches]
            assert asked[-2:] == [("member;range=1500-*",), ("member;range=3000-*",)]
            assert "only a part of it" in await refusal(connection.search(wanted))

    with FakeLdap(entries, max_values=1500) as fake:
        run(story(fake))


def test_a_group_that_goes_away_between_its_ranges_is_unavailable() -> None:
    """Half a group is none."""

    async def story() -> None:
        connection, _ = wired()
        body = codec.EntryBody("cn=g", {"member;range=0-1": ["a", "b"]})
        task = asyncio.ensure_future(refusal(connection.whole(body)))
        await asyncio.sleep(0)
        connection.data_received(message(1, result(0x65)))
        assert "it changed meanwhile" in await task

    run(story())


@pytest.mark.parametrize("name", ["member;range=2-1", "member;range=0-3"])
def test_ranges_that_do_not_go_on_are_unavailable(name: str) -> None:
    """Nobody asks for the same for ever."""

    async def story() -> None:
        connection, _ = wired()
        body = codec.EntryBody("cn=g", {"member;range=0-3": ["a"]})
        task = asyncio.ensure_future(refusal(connection.whole(body)))
        await asyncio.sleep(0)
        connection.data_received(message(1, entry("cn=g", **{name: ["b"]})) + message(1, result(0x65)))
        assert "expected more than" in await task

    run(story())
