"""LDAP that goes wrong on purpose: a proxy in front of a real server, and a small server of our own.

    with Slapd() as slapd, Proxy(slapd.port) as proxy:
        ... proxy.uri, proxy.ldaps_uri     the same server, for as long as the proxy behaves
        proxy.be(stalled)                  or trickled, garbled, noise, cut(40), delayed(0.1), coded(4)
        proxy.be(well)
        proxy.refuse(), proxy.drop(), proxy.reset(), proxy.forget(), proxy.accept()
        ... proxy.connections, proxy.closed, proxy.received

A fault concerns what the server says from now on, on old and new connections; `stalled` holds both
directions, and `forget` does so for the connections there are, as a firewall that lost its table. `coded`
lets the entries through and puts its result code in the place of the server's.

    with FakeLdap({"cn=big,dc=x": {"member": [...]}}, max_values=1500) as fake:
        ... fake.uri, fake.searches

`FakeLdap` does what no server here does: as Active Directory (MS-ADTS section 3.1.1.3.1.3.3) it sends
at most `max_values` values of an attribute, as `member;range=0-1499` beside an empty `member`, and the
rest when it is asked for `member;range=1500-*`. `root_dse` is what it says of itself; it takes any bind, or
only simple ones with the password `secret`; the others it refuses with `refusal`, and counts in `refused`;
`entries` may be changed while it runs, and so may `code`, with which every search ends unless it is 0. With
`tls` it speaks ldaps or StartTLS; `heard` is all that it was told, after TLS.

Both run in a thread; with `async with` they run in the loop that is running, over a socket file, and time may
be a virtual one (`tests.labs.clock`): an answer that is `delayed(5.0)` is then there at once, and 5 s later.

BUGS: its filters are and, or, not, equality and presence, without matching rules other than "ignore case".
"""

import asyncio
import random
import socket
import ssl
import struct
import tempfile
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

DONE, ENTRY, EXTENDED = 0x65, 0x64, 0x78
BIND, BOUND, UNBIND, SEARCH, EXTEND = 0x60, 0x61, 0x42, 0x63, 0x77

ACTIVE_DIRECTORY: Mapping[str, list[str]] = {
    "supportedCapabilities": ["1.2.840.113556.1.4.800"],
    "isSynchronized": ["TRUE"],
}
"""What a domain controller says of itself, as far as we ask."""


# --- BER, as much of it as LDAP needs -------------------------------------------------------------


def ber(tag: int, *parts: bytes) -> bytes:
    """One element."""
    content = b"".join(parts)
    size = len(content)
    octets = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag]) + (bytes([size]) if size < 0x80 else bytes([0x80 | len(octets)]) + octets) + content


def elements(octets: bytes) -> Iterator[tuple[int, bytes]]:
    """Tags and contents of the elements in a row."""
    while octets and (size := message_size(octets)) > 0:
        yield octets[0], octets[_head(octets) : size]
        octets = octets[size:]


def message_size(octets: bytes) -> int:
    """How long the element that begins here is; 0 while that cannot be said, or not all of it has come."""
    head = _head(octets)
    if len(octets) < head or head < 2:
        return 0
    size = head + (int.from_bytes(octets[2:head], "big") if octets[1] & 0x80 else octets[1])
    return size if len(octets) >= size else 0


def _head(octets: bytes) -> int:
    if len(octets) < 2:
        return 0
    return 2 + (octets[1] & 0x7F if octets[1] & 0x80 else 0)


def result(tag: int, code: int, text: str = "", *more: bytes) -> bytes:
    """An LDAPResult under the tag of its operation; a referral says where to."""
    number = ber(0x0A, code.to_bytes(2, "big") if code > 127 else bytes([code]))
    more += (ber(0xA3, ber(0x04, b"ldap://elsewhere.example/")),) if code == 10 else ()
    return ber(tag, number, ber(0x04), ber(0x04, text.encode()), *more)


# --- where they listen ----------------------------------------------------------------------------

DEADLINE_S = 60.0
"""How long the thread may take for what a test wants of it, on a machine that has other things to do."""


@contextmanager
def nobody() -> Iterator[str]:
    """The URI of a port that is taken, and where nobody listens."""
    with _bound(0) as taken:
        yield f"ldap://127.0.0.1:{taken.getsockname()[1]}"


def _bound(port: int) -> socket.socket:
    """A socket that does not listen; another may be bound to its port by us, and by nobody else."""
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind(("127.0.0.1", port))
    return bound


class _Listening:
    """A server in a thread (`with`), on a port; or in the loop that runs (`async with`), on a socket file."""

    def __init__(self) -> None:
        self.port = 0
        self.path = ""
        self.connections = 0
        self._loop: asyncio.AbstractEventLoop
        self._thread: threading.Thread | None = None
        self._listener: socket.socket | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._held = ExitStack()

    @property
    def uri(self) -> str:
        """ldap://, by address; ldapi:// of a socket file."""
        return f"ldapi://{quote(self.path, safe='')}" if self.path else f"ldap://127.0.0.1:{self.port}"

    @property
    def ldaps_uri(self) -> str:
        """ldaps://, by address, to the same port."""
        return f"ldaps://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self.port = self._held.enter_context(_bound(0)).getsockname()[1]
        self._loop = self._held.enter_context(closing(asyncio.new_event_loop()))
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.accept()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._thread is not None
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(DEADLINE_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(DEADLINE_S)
        self._held.close()

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self.path = self._held.enter_context(tempfile.TemporaryDirectory(prefix="ldap-")) + "/ldapi"
        self.accept()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._end()
        self._held.close()

    def accept(self) -> None:
        """Listen (again)."""
        self._do(self._listen)

    def refuse(self) -> None:
        """Listen no more; what is open stays open."""
        self._do(self._close)

    def _do(self, work: Callable[[], None]) -> None:
        """In the loop that serves."""

        async def do() -> None:
            work()

        if self._thread is None:
            work()
        else:
            asyncio.run_coroutine_threadsafe(do(), self._loop).result(DEADLINE_S)

    def _listen(self) -> None:
        if self._listener is None:
            self._listener = self._opened()
            self._listener.listen(128)
            self._listener.setblocking(False)
            self._loop.add_reader(self._listener, self._take, self._listener)

    def _opened(self) -> socket.socket:
        if not self.path:
            return _bound(self.port)
        opened = socket.socket(socket.AF_UNIX)
        opened.bind(self.path)
        return opened

    def _close(self) -> None:
        if self._listener is not None:
            self._loop.remove_reader(self._listener)
            self._listener.close()
            self._listener = None
            if self.path:
                Path(self.path).unlink()

    def _take(self, listener: socket.socket) -> None:
        """Not asyncio.Server: one that is closed loses sight of what it is just accepting."""
        try:
            accepted, _ = listener.accept()
        except BlockingIOError:
            return
        self._keep(self._greet, accepted).add_done_callback(
            lambda greeted: accepted.close() if greeted.cancelled() else None
        )

    def _keep(self, work: Callable[..., Coroutine[Any, Any, None]], *arguments: Any) -> asyncio.Task[None]:
        """A task that is over in the end; connections that break are what all this is for."""

        async def quietly() -> None:
            with suppress(OSError, EOFError):
                await work(*arguments)

        task = self._loop.create_task(quietly())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _greet(self, accepted: socket.socket) -> None:
        protocol = asyncio.StreamReaderProtocol(asyncio.StreamReader(), self._accepted)
        try:
            await self._loop.connect_accepted_socket(lambda: protocol, accepted, ssl=self._tls())
        except OSError:
            accepted.close()

    async def _end(self) -> None:
        self._close()
        while self._tasks:
            for task in self._tasks:
                task.cancel()
            await asyncio.wait(set(self._tasks))
            await asyncio.sleep(0)  # what was just connected is served now, and ends in the next round
        for _ in range(3):  # what was aborted is closed when the loop comes round
            await asyncio.sleep(0)

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._keep(self._serve, reader, writer).add_done_callback(lambda _: writer.transport.abort())

    def _tls(self) -> ssl.SSLContext | None:
        return None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        raise NotImplementedError


# --- the proxy ------------------------------------------------------------------------------------


class Pipe:
    """One connection through the proxy: to the client, and what of the server's words waits for more."""

    def __init__(self, proxy: "Proxy", client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.proxy = proxy
        self.client = client
        self.server = server
        self.rest = b""
        self.is_forgotten = False

    async def open(self) -> None:
        """Wait while nothing comes through."""
        while self.is_forgotten or self.proxy.fault is stalled:
            await self.proxy.changed.wait()


Fault = Callable[[Pipe, bytes], Awaitable[bytes]]
"""Takes what the server said and returns what the client is to hear of it."""


async def well(_pipe: Pipe, octets: bytes) -> bytes:
    """No fault."""
    return octets


async def stalled(pipe: Pipe, octets: bytes) -> bytes:
    """Nothing comes through until the fault is another."""
    await pipe.open()
    return octets


async def trickled(pipe: Pipe, octets: bytes) -> bytes:
    """One octet every 10 ms."""
    for position in range(len(octets)):
        if pipe.proxy.fault is not trickled:
            return octets[position:]
        pipe.client.write(octets[position : position + 1])
        await asyncio.sleep(0.01)
    return b""


async def garbled(pipe: Pipe, octets: bytes) -> bytes:
    """One octet of each piece is another; without TLS nobody can notice all of that."""
    position = pipe.proxy.chance.randrange(len(octets))
    other = octets[position] ^ pipe.proxy.chance.randrange(1, 256)
    return octets[:position] + bytes([other]) + octets[position + 1 :]


async def noise(pipe: Pipe, octets: bytes) -> bytes:
    """Other octets altogether."""
    return pipe.proxy.chance.randbytes(len(octets))


def cut(after: int) -> Fault:
    """The connection ends after so many octets of each piece."""

    async def fault(pipe: Pipe, octets: bytes) -> bytes:
        pipe.client.write(octets[:after])
        await pipe.client.drain()
        pipe.client.close()
        raise ConnectionAbortedError("cut")

    return fault


def delayed(seconds: float) -> Fault:
    """Each piece comes late."""

    async def fault(_pipe: Pipe, octets: bytes) -> bytes:
        await asyncio.sleep(seconds)
        return octets

    return fault


def coded(code: int) -> Fault:
    """Searches end with this result code, after the entries that the server found."""

    async def fault(pipe: Pipe, octets: bytes) -> bytes:
        octets, said = pipe.rest + octets, b""
        while size := message_size(octets):
            said += _recoded(octets[:size], code)
            octets = octets[size:]
        pipe.rest = octets
        return said

    return fault


def _recoded(message: bytes, code: int) -> bytes:
    [(_, content)] = elements(message)
    (_, number), (operation, _), *_ = elements(content)
    if operation != DONE:
        return message
    return ber(0x30, ber(0x02, number), result(DONE, code, "on purpose"))


class Proxy(_Listening):
    """Passes octets on between clients and the server at `target`, a port of 127.0.0.1 or a socket file."""

    def __init__(self, target: int | str, seed: int = 1) -> None:
        super().__init__()
        self.fault: Fault = well
        self.received = b""
        self.closed = 0
        self.chance = random.Random(seed)
        self.changed = asyncio.Event()
        self._target = target
        self._pipes: list[Pipe] = []

    def be(self, fault: Fault) -> None:
        """What happens to the server's words from now on."""

        def change() -> None:
            self.fault = fault
            self.changed.set()
            self.changed = asyncio.Event()

        self._do(change)

    def drop(self, most: int | None = None) -> None:
        """End every connection, or the oldest ones, in an orderly way."""
        self._do(lambda: self._leave(most, reset=False))

    def reset(self) -> None:
        """End every connection with a reset."""
        self._do(lambda: self._leave(None, reset=True))

    def forget(self) -> None:
        """Nothing comes through the connections there are, ever again."""
        for pipe in self._pipes:
            pipe.is_forgotten = True

    def away(self) -> None:
        """As if nobody ran there: no connection is left, and none is accepted."""
        self.refuse()
        self.drop()

    def mend(self) -> None:
        """All is well."""
        self.be(well)
        self.accept()

    def _leave(self, most: int | None, *, reset: bool) -> None:
        for pipe in self._pipes[:most]:
            if reset:
                linger = struct.pack("ii", 1, 0)
                sock = pipe.client.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                pipe.client.transport.abort()
            pipe.client.close()
            pipe.server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if isinstance(self._target, str):
            answers, requests = await asyncio.open_unix_connection(self._target)
        else:
            answers, requests = await asyncio.open_connection("127.0.0.1", self._target)
        pipe = Pipe(self, writer, requests)
        self._pipes.append(pipe)
        ways = (self._keep(self._there, pipe, reader), self._keep(_back, pipe, answers))
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.closed += 1
            self._pipes.remove(pipe)
            requests.transport.abort()
            for way in ways:
                way.cancel()

    async def _there(self, pipe: Pipe, reader: asyncio.StreamReader) -> None:
        while octets := await reader.read(65536):
            self.received += octets
            await pipe.open()
            pipe.server.write(octets)
            await pipe.server.drain()


async def _back(pipe: Pipe, answers: asyncio.StreamReader) -> None:
    while octets := await answers.read(65536):
        await pipe.open()
        said = await pipe.proxy.fault(pipe, octets)
        pipe.client.write(said)
        await pipe.client.drain()
    pipe.client.close()
    await pipe.client.wait_closed()


# --- the server -----------------------------------------------------------------------------------

Values = Sequence[str | bytes]
Entries = Mapping[str, Mapping[str, Values]]


class FakeLdap(_Listening):
    """A directory in a dict: DN to attributes to values."""

    def __init__(
        self,
        entries: Entries,
        *,
        max_values: int = 0,
        root_dse: Mapping[str, Values] = ACTIVE_DIRECTORY,
        tls: str = "",
        context: ssl.SSLContext | None = None,
    ) -> None:
        """`max_values` 0: all of them; `tls` is "", "always", "start", or "refused": StartTLS is."""
        super().__init__()
        self.entries = dict(entries)
        self.root_dse = dict(root_dse)
        self.code = 0
        self.secret = b""
        self.refusal = ""
        self.refused = 0
        self.heard = b""
        self.searches: list[tuple[str, tuple[str, ...]]] = []
        self._max_values = max_values
        self._mode = tls
        self._context = context

    def _tls(self) -> ssl.SSLContext | None:
        return self._context if self._mode == "always" else None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        waiting = b""
        while octets := await reader.read(65536):
            self.heard += octets
            waiting += octets
            while size := message_size(waiting):
                [(_, content)] = elements(waiting[:size])
                waiting = waiting[size:]
                (_, number), (operation, body), *_ = elements(content)
                for answer in self._answers(operation, body):
                    writer.write(ber(0x30, ber(0x02, number), answer))
                await writer.drain()
                if operation == EXTEND and self._mode == "start" and self._context is not None:
                    await writer.start_tls(self._context)

    def _answers(self, operation: int, body: bytes) -> Iterator[bytes]:
        if operation == BIND:
            (_, _), (_, _), (_, secret) = elements(body)
            is_right = not self.secret or secret == self.secret
            self.refused += not is_right
            yield result(BOUND, 0) if is_right else result(BOUND, 49, self.refusal)
        elif operation == EXTEND:
            yield result(EXTENDED, 0 if self._mode == "start" else 2)
        elif operation == SEARCH:
            yield from self._search(*(content for _, content in elements(body)), body=body)
        elif operation == UNBIND:
            raise EOFError

    def _search(self, base: bytes, scope: bytes, *_: bytes, body: bytes) -> Iterator[bytes]:
        condition, selection = list(elements(body))[6:8]
        wanted = tuple(name.decode() for _, name in elements(selection[1]))
        self.searches.append((base.decode(), wanted))
        if self.code:
            yield result(DONE, self.code)
        elif not base and scope == b"\0":
            if _matches(condition, self.root_dse):
                yield self._entry("", self.root_dse, wanted)
            yield result(DONE, 0)
        elif not any(_is_below(dn, base.decode(), 0) for dn in self.entries):
            yield result(DONE, 32)
        else:
            for dn, attributes in list(self.entries.items()):
                if _is_below(dn, base.decode(), scope[0]) and _matches(condition, attributes):
                    yield self._entry(dn, attributes, wanted)
            yield result(DONE, 0)

    def _entry(self, dn: str, attributes: Mapping[str, Values], wanted: Sequence[str]) -> bytes:
        chosen = (pair for name in wanted for pair in self._chosen(attributes, name))
        listed = [
            ber(0x30, ber(0x04, name.encode()), ber(0x31, *(ber(0x04, _octets(value)) for value in values)))
            for name, values in chosen
        ]
        return ber(ENTRY, ber(0x04, dn.encode()), ber(0x30, *listed))

    def _chosen(self, attributes: Mapping[str, Values], wanted: str) -> Iterable[tuple[str, Values]]:
        name, _, option = wanted.partition(";range=")
        for own, values in attributes.items():
            if name == "*" or own.lower() == name.lower():
                yield from self._pieces(own, values, option)

    def _pieces(self, name: str, values: Values, option: str) -> Iterator[tuple[str, Values]]:
        low, _, high = option.partition("-")
        start = int(low or 0)
        end = len(values) if high in ("", "*") else min(len(values), int(high) + 1)
        if self._max_values:
            end = min(end, start + self._max_values)
        if option:
            yield f"{name};range={start}-{'*' if end == len(values) else end - 1}", values[start:end]
        elif end == len(values):
            yield name, values
        else:
            yield name, ()
            yield f"{name};range=0-{end - 1}", values[:end]


def _is_below(dn: str, base: str, scope: int) -> bool:
    dn, base = dn.lower(), base.lower()
    if scope == 0 or dn == base:
        return dn == base and scope != 1
    below = dn.removesuffix("," + base) if base else dn
    return below != dn and (scope == 2 or "," not in below)


def _matches(condition: tuple[int, bytes], attributes: Mapping[str, Values]) -> bool:
    tag, content = condition
    if tag == 0xA0:
        return all(_matches(part, attributes) for part in elements(content))
    if tag == 0xA1:
        return any(_matches(part, attributes) for part in elements(content))
    if tag == 0xA2:
        return not any(_matches(part, attributes) for part in elements(content))
    stored = {
        name.lower(): [_octets(value).lower() for value in values] for name, values in attributes.items()
    }
    if tag == 0x87:
        return content.decode().lower() in stored or content.lower() == b"objectclass"
    if tag != 0xA3:
        raise ConnectionAbortedError(f"a filter that is not understood: {tag:#x}")
    (_, name), (_, value) = elements(content)
    return value.lower() in stored.get(name.decode().lower(), ())


def _octets(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode("utf-8", "surrogateescape")
