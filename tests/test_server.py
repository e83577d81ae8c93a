"""The server on real sockets, under asyncio's own loop and under uvloop."""

import asyncio
import os
import re
import socket
import stat
import struct
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import uvloop

from ldappolicy.config import Inet, Listener, Unix
from ldappolicy.doors import BACKLOG
from ldappolicy.errors import ConfigError
from ldappolicy.protocol import encode_reply
from ldappolicy.request import Request
from ldappolicy.server import FIRST_REPLY_S, LINGER_S, MOST_WAITING, PolicyServer
from tests.labs.clock import on_virtual_time

ANY_PORT = Inet("127.0.0.1", 0)
DEADLINE = 180.0
CUT_OFF = "not a policy request: connection closed within a request, expected an empty line; it begins "

ONE_REQUEST = re.compile(rb"request=smtpd_access_policy\nsender=\nrecipient=(.*)\n\n")

quick = ContextVar("quick", default=False)

Run = Callable[[Coroutine[Any, Any, None]], None]


class ByRecipient:
    """Decides by the recipient: `now...` at once, `slow...` when released, others as they say."""

    def __init__(self, *, is_quick: bool = False) -> None:
        self.is_quick = is_quick
        self.release = asyncio.Event()
        self.asked: list[str] = []
        self.under_way = 0
        self.cancelled = 0

    def answer(self, data: bytes) -> bytes | Request | None:
        """The reply to what is exactly one request, if it is quick at all."""
        found = ONE_REQUEST.fullmatch(data)
        if found is None or not self.is_quick:
            return None
        request = Request(recipient=found[1].decode())
        action = self.decide_now(request)
        return request if action is None else encode_reply(action)

    def decide_now(self, request: Request) -> str | None:
        """The action, for what does not need `decide`."""
        self.asked.append(request.recipient)
        if request.recipient == "bug now":
            raise RuntimeError("a bug in decide_now")
        if request.recipient == "empty":
            return ""
        return f"REJECT {request.recipient}" if request.recipient.startswith("now") else None

    async def decide(self, request: Request) -> str | None:
        """The action, for the others."""
        if request.recipient == "bug":
            raise RuntimeError("a bug in decide")
        if request.recipient == "disconnect":
            return None
        self.under_way += 1
        try:
            if request.recipient.startswith("slow"):
                await self.release.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.under_way -= 1
        return None if request.recipient.endswith("none") else f"REJECT {request.recipient}"


class Client:
    """A client that sends bytes and reads replies; each read has a deadline."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, *recipients: str) -> None:
        """Requests for these recipients, in one piece."""
        self.writer.write(b"".join(map(ask, recipients)))

    async def reply(self) -> str:
        """The action of the next reply."""
        data = await asyncio.wait_for(self.reader.readuntil(b"\n\n"), DEADLINE)
        assert data.startswith(b"action=")
        return data[len(b"action=") : -2].decode()

    async def replies(self, count: int) -> list[str]:
        """The actions of so many replies."""
        return [await self.reply() for _ in range(count)]

    async def rest(self) -> bytes:
        """What comes until the server closes."""
        try:
            return await asyncio.wait_for(self.reader.read(), DEADLINE)
        except ConnectionResetError:
            return b""

    async def close(self) -> None:
        """Leave, at once."""
        self.writer.transport.abort()
        with suppress(OSError):
            await self.writer.wait_closed()


def ask(recipient: str) -> bytes:
    """One request."""
    return f"request=smtpd_access_policy\nsender=\nrecipient={recipient}\n\n".encode()


class Served(PolicyServer):
    """The server, and its clients, which are closed with it."""

    clients: list[Client]


async def connect(server: Served, *, door: int = 0, limit: int = 65536) -> Client:
    """A client of one of the server's listeners."""
    address = server.addresses[door]
    if isinstance(address, Unix):
        client = Client(*await asyncio.open_unix_connection(address.path, limit=limit))
    else:
        client = Client(*await asyncio.open_connection(address.host, address.port, limit=limit))
    server.clients.append(client)
    return client


async def until(condition: Callable[[], object]) -> None:
    """Wait for a condition."""
    async with asyncio.timeout(DEADLINE):
        while not condition():  # noqa: ASYNC110  # nothing tells of it
            await asyncio.sleep(0.001)


@asynccontextmanager
async def serving(*listeners: Listener, **limits: Any) -> AsyncIterator[tuple[Served, ByRecipient]]:
    """A server that listens, with its decider; stopped at the end, without much patience."""
    decider = ByRecipient(is_quick=quick.get())
    server = Served(decider, listeners or (ANY_PORT,), **{"first_reply_s": 0.05, **limits})
    server.clients = []
    await server.start_listening()
    try:
        yield server, decider
    finally:
        decider.release.set()
        await asyncio.wait_for(server.stop(), DEADLINE)
        for client in server.clients:
            await client.close()


LOOPS = {
    "asyncio": (asyncio.new_event_loop, True),
    "uvloop": (uvloop.new_event_loop, True),
    "nothing is ready": (uvloop.new_event_loop, False),
}


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Run:
    """Runs a coroutine on either event loop, with and without replies from whole reads."""
    loop, is_quick = LOOPS[request.param]

    def run_on(main: Coroutine[Any, Any, None]) -> None:
        quick.set(is_quick)
        with asyncio.Runner(loop_factory=loop) as runner:
            runner.run(main)

    return run_on


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder whose name is short enough for a socket's path."""
    with TemporaryDirectory(prefix="lp") as name:
        yield Path(name)


# --- requests and replies -----------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["inet", "inet6", "unix"])
def test_many_requests_on_one_connection(run: Run, folder: Path, kind: str) -> None:
    """One connection carries any number of requests, each answered before the next is sent."""
    kinds: dict[str, Listener] = {
        "inet": ANY_PORT,
        "inet6": Inet("::1", 0),
        "unix": Unix(str(folder / "policy")),
    }

    async def main() -> None:
        async with serving(kinds[kind]) as (server, decider):
            client = await connect(server)
            for number in range(500):
                recipient = f"{('now', 'later')[number % 2]} {number}"
                client.send(recipient)
                assert await client.reply() == f"REJECT {recipient}"
            assert (server.connections, server.accepted, len(decider.asked)) == (1, 1, 500)
            await client.close()
            await until(lambda: server.connections == 0)

    run(main())


def test_order_is_kept_behind_a_slow_decision(run: Run) -> None:
    """Fast decisions wait for a slow one before them; other connections do not."""

    async def main() -> None:
        async with serving() as (server, decider):
            client, other = await connect(server), await connect(server)
            client.send("now 1", "slow 2", "now 3", "later 4", "now 5")
            assert await client.reply() == "REJECT now 1"
            client.send("now 6")
            other.send("now")
            assert await other.reply() == "REJECT now"
            assert decider.asked == ["now 1", "slow 2", "now"]
            decider.release.set()
            expected = ["REJECT slow 2", "REJECT now 3", "REJECT later 4", "REJECT now 5", "REJECT now 6"]
            assert await client.replies(5) == expected

    run(main())


def test_a_request_in_pieces(run: Run) -> None:
    """A request that drips in gets one reply, at its end."""

    async def main() -> None:
        async with serving() as (server, decider):
            client = await connect(server)
            for byte in ask("now"):
                client.writer.write(bytes([byte]))
                await client.writer.drain()
                await asyncio.sleep(0)
            assert await client.reply() == "REJECT now"
            assert decider.asked == ["now"]

    run(main())


def test_three_hundred_idle_connections(run: Run) -> None:
    """Each smtpd process keeps a connection of its own; all of them are served."""

    async def main() -> None:
        async with serving() as (server, _):
            clients = [await connect(server) for _ in range(300)]
            await until(lambda: server.connections == 300)
            for number in (0, 150, 299):
                clients[number].send(f"now {number}")
                assert await clients[number].reply() == f"REJECT now {number}"
            for client in clients:
                client.send("later")
            assert [await client.reply() for client in clients] == ["REJECT later"] * 300
            for client in clients:
                client.writer.close()
            await until(lambda: server.connections == 0)

    run(main())


def test_replies_are_not_delayed(run: Run) -> None:
    """TCP_NODELAY is set on what clients connect to, and inherited."""

    async def main() -> None:
        async with serving() as (server, _):
            client = await connect(server)
            await until(lambda: server.connections == 1)
            assert nodelay_of_the_other_end(client.writer.get_extra_info("sockname"))

    run(main())


def nodelay_of_the_other_end(client: object) -> bool:
    """Whether the server's end of the client's connection has TCP_NODELAY; it lives in this process."""
    for name in Path("/proc/self/fd").iterdir():
        with suppress(OSError), socket.socket(fileno=os.dup(int(name.name))) as other:
            if other.getpeername() == client:
                return bool(other.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
    raise AssertionError("no other end")


# --- trouble ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("junk", "expected"),
    [
        (b"EHLO there\n", "line without a name and '=', expected name=value; it begins b'EHLO there\\n'"),
        (b"\r\n", "line ends in CR LF, expected LF alone; it begins b'\\r\\n'"),
        (b"\n", "empty request, expected request=smtpd_access_policy; it begins b'\\n'"),
        (
            b"\xff" * 10_000_000,
            "request over the limit, expected at most 131072 bytes; it begins b'" + "\\xff" * 80 + "'",
        ),
    ],
)
def test_replies_that_are_owed_come_before_the_end(
    run: Run, caplog: pytest.LogCaptureFixture, junk: bytes, expected: str
) -> None:
    """What is no request closes the connection without a reply, after the replies to those before it."""

    async def main() -> None:
        async with serving() as (server, decider):
            client = await connect(server)
            client.send("now 1", "slow 2", "now 3")
            client.writer.write(junk)
            assert await client.reply() == "REJECT now 1"
            await until(lambda: server.counters.protocol_errors.value)
            decider.release.set()
            assert await client.replies(2) == ["REJECT slow 2", "REJECT now 3"]
            assert await client.rest() == b""
            await client.close()
            await until(lambda: server.connections == 0)
            assert (len(decider.asked), server.counters.protocol_errors.value) == (3, 1)

    run(main())
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", f"not a policy request: {expected}")
    ]


def test_nonsense_without_an_end(run: Run) -> None:
    """A client that talks on after its error sees the end of the replies, and is closed."""

    async def main() -> None:
        async with serving(linger_s=0.5) as (server, decider):
            client = await connect(server)
            client.send("now")
            client.writer.write(b"nonsense\n")
            assert await client.rest() == b"action=REJECT now\n\n"
            with pytest.raises(ConnectionError):
                await talk_on(client)
            await until(lambda: server.connections == 0)
            assert (len(decider.asked), server.counters.protocol_errors.value) == (1, 1)

    run(main())


async def talk_on(client: Client) -> None:
    """Send more nonsense, as long as the connection lasts."""
    while True:
        client.writer.write(b"more nonsense\n")
        await client.writer.drain()
        await asyncio.sleep(0)


def test_a_client_that_is_cut_off(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    """A client that leaves within a request is logged; one that leaves between requests is not."""

    async def main() -> None:
        async with serving() as (server, decider):
            for data in (ask("now"), ask("now")[:30], b""):
                client = await connect(server)
                client.writer.write(data)
                client.writer.write_eof()
                assert await client.rest() == (b"action=REJECT now\n\n" if data.endswith(b"\n\n") else b"")
                await client.close()
            await until(lambda: server.accepted == 3 and server.connections == 0)
            assert decider.asked == ["now"]
            assert server.counters.protocol_errors.value == 1

    run(main())
    assert [record.getMessage() for record in caplog.records] == [
        CUT_OFF + "b'request=smtpd_access_policy\\nse'",
    ]


def test_a_client_that_sends_and_shuts_gets_its_replies(run: Run) -> None:
    """A client that closes its sending half still gets every reply that it is owed."""

    async def main() -> None:
        async with serving() as (server, decider):
            client = await connect(server)
            client.send("slow 1", "now 2")
            client.writer.write_eof()
            await until(lambda: decider.under_way)
            decider.release.set()
            assert await client.rest() == b"action=REJECT slow 1\n\naction=REJECT now 2\n\n"
            await client.close()

    run(main())


def test_a_client_that_is_gone_when_its_decision_comes(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    """A reset amid a decision costs nobody anything; the requests behind it are dropped."""

    async def main() -> None:
        async with serving() as (server, decider):
            client = await connect(server)
            client.send("slow 1", "now 2")
            await until(lambda: decider.under_way)
            reset(client)
            await until(lambda: server.connections == 0)
            decider.release.set()
            await until(lambda: not decider.under_way)
            other = await connect(server)
            other.send("now 3")
            assert await other.reply() == "REJECT now 3"
            assert decider.asked == ["slow 1", "now 3"]

    run(main())
    assert caplog.records == []


def reset(client: Client) -> None:
    """Close a connection with RST."""
    end = client.writer.get_extra_info("socket")
    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.writer.transport.abort()


@pytest.mark.parametrize("recipient", ["bug now", "bug", "empty"])
def test_a_bug_closes(run: Run, caplog: pytest.LogCaptureFixture, recipient: str) -> None:
    """An exception of a decider is logged with its traceback and closes that connection alone."""

    async def main() -> None:
        async with serving() as (server, _):
            client, other = await connect(server), await connect(server)
            client.send("now 1", recipient, "now 2")
            assert await client.rest() == b"action=REJECT now 1\n\n"
            other.send("now 3")
            assert await other.reply() == "REJECT now 3"
            await client.close()

    run(main())
    assert [record.getMessage() for record in caplog.records] == ["bug: connection closed without a reply"]
    assert caplog.records[0].exc_info is not None


def test_a_decider_may_disconnect(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    """None from `decide` closes the connection: on_unavailable = "disconnect"."""

    async def main() -> None:
        async with serving() as (server, decider):
            client = await connect(server)
            client.send("now 1", "disconnect", "now 2")
            assert await client.rest() == b"action=REJECT now 1\n\n"
            assert decider.asked == ["now 1", "disconnect"]
            await client.close()

    run(main())
    assert caplog.records == []


# --- limits -------------------------------------------------------------------------------------


def test_over_max_connections(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    """A client too many is closed at once; there is room again when another leaves."""

    async def main() -> None:
        async with serving(max_connections=2) as (server, _):
            first, second = await connect(server), await connect(server)
            await until(lambda: server.connections == 2)
            for _ in range(20):
                third = await connect(server)
                assert await third.rest() == b""
                await third.close()
            second.send("now 2")
            assert await second.reply() == "REJECT now 2"
            await first.close()
            await until(lambda: server.connections == 1)
            fourth = await connect(server)
            fourth.send("now 4")
            assert await fourth.reply() == "REJECT now 4"
            assert server.accepted == 23

    run(main())
    expected = ["connection refused: max_connections 2 reached"] * 10
    assert [record.getMessage() for record in caplog.records] == expected


def test_idle_connections_are_closed(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    """But not while a decision is under way."""

    async def main() -> None:
        async with serving(idle_timeout=0.05) as (server, decider):
            busy = await connect(server)
            busy.send("slow")
            await until(lambda: decider.under_way)
            idle, partial = await connect(server), await connect(server)
            partial.writer.write(b"request=")
            assert await idle.rest() == b""
            assert await partial.rest() == b""
            assert server.connections == 1
            decider.release.set()
            assert await busy.reply() == "REJECT slow"

    run(main())
    assert [record.getMessage() for record in caplog.records] == [
        CUT_OFF + "b'request='",
    ]


async def closed_at(client: Client) -> float:
    """When the server closes."""
    await client.rest()
    return asyncio.get_running_loop().time()


def test_idle_timeout_to_the_moment(folder: Path) -> None:
    """Not before it has passed, and at the second look after that; a request begins it anew."""

    async def main() -> None:
        async with serving(Unix(str(folder / "policy")), idle_timeout=8.0) as (server, decider):
            silent, asking, busy = [await connect(server) for _ in range(3)]
            busy.send("slow")
            closing = asyncio.gather(closed_at(silent), closed_at(asking))
            await asyncio.sleep(5.5)
            asking.send("now")
            assert (9.0, 15.0) == tuple(await closing)
            assert 1 == server.connections
            decider.release.set()
            assert "REJECT slow" == await busy.reply()

    on_virtual_time(main())


def test_nonsense_to_the_moment(folder: Path) -> None:
    """The rest of what was no request is read for LINGER_S, though the client stays."""

    async def main() -> None:
        async with serving(Unix(str(folder / "policy"))) as (server, _):
            client = await connect(server)
            client.writer.write(b"nonsense\n")
            await asyncio.sleep(LINGER_S - 0.01)
            assert 1 == server.connections
            await asyncio.sleep(0.02)
            assert 0 == server.connections

    on_virtual_time(main())


@pytest.mark.parametrize(("asks", "seconds"), [(None, FIRST_REPLY_S), ("now", 0.0), ("slow", 10.0)])
def test_a_stop_to_the_moment(folder: Path, asks: str | None, seconds: float) -> None:
    """Who has just connected may ask for a second; a decision has shutdown_grace."""

    async def main() -> float:
        listener, loop = Unix(str(folder / "policy")), asyncio.get_running_loop()
        async with serving(listener, first_reply_s=FIRST_REPLY_S) as (server, decider):
            client = await connect(server)
            await until(lambda: server.connections)
            if asks is not None:
                client.send(asks)
                await until(lambda: decider.asked)
            began = loop.time()
            await server.stop()
            return loop.time() - began

    assert pytest.approx(seconds) == on_virtual_time(main())


def test_a_client_that_does_not_read(run: Run, folder: Path) -> None:
    """No more is decided or read for a client that leaves its replies lying; it loses none of them."""
    count = 10_000
    recipients = [f"now {number} {'x' * 400}" for number in range(count)]

    async def main() -> None:
        async with serving(Unix(str(folder / "policy"))) as (server, decider):
            client = await connect(server, limit=1000)
            client.send(*recipients)
            await quiet(lambda: len(decider.asked))
            assert 0 < len(decider.asked) < count / 2
            assert await client.replies(count) == [f"REJECT {recipient}" for recipient in recipients]
            await client.close()

    run(main())


async def quiet(value: Callable[[], int]) -> None:
    """Wait until a value has not changed for many turns of the loop, in which both ends run."""
    seen, turns = value(), 0
    while turns < 200:
        await asyncio.sleep(0)
        turns = turns + 1 if value() == seen else 0
        seen = value()


def test_a_client_that_sends_too_much_ahead(run: Run, folder: Path) -> None:
    """Few requests wait behind a slow one; the rest stays with the client until there is room."""
    count = 10_000
    recipients = ["slow", *(f"now {number}" for number in range(count))]

    async def main() -> None:
        async with serving(Unix(str(folder / "policy"))) as (server, decider):
            client = await connect(server)
            client.send("slow")
            await until(lambda: decider.under_way)
            client.send(*recipients[1:])
            unsent = client.writer.transport.get_write_buffer_size
            await quiet(unsent)
            assert 0 < unsent() < sum(map(len, map(ask, recipients[MOST_WAITING:])))
            decider.release.set()
            assert await client.replies(count + 1) == [f"REJECT {recipient}" for recipient in recipients]

    run(main())


def test_what_is_behind_a_disconnect(run: Run) -> None:
    """Is not decided, though it was there before the decision."""

    async def main() -> None:
        async with serving() as (server, decider):
            client = await connect(server)
            client.send("slow then none", "now")
            await until(lambda: decider.under_way)
            decider.release.set()
            assert await client.rest() == b""
            assert decider.asked == ["slow then none"]

    run(main())


def test_a_reset_behind_nonsense(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    """A decision that comes when its client is gone is nobody's, and no bug."""

    async def main() -> None:
        async with serving() as (server, decider):
            client = await connect(server)
            client.send("slow")
            client.writer.write(b"nonsense\n")
            await until(lambda: server.counters.protocol_errors.value)
            reset(client)
            await until(lambda: server.connections == 0)
            decider.release.set()
            await until(lambda: not decider.under_way)
            for _ in range(10):
                await asyncio.sleep(0)

    run(main())
    assert [record.levelname for record in caplog.records] == ["WARNING"]


# --- stopping -----------------------------------------------------------------------------------


def test_a_request_in_pieces_while_stopping(run: Run, folder: Path) -> None:
    """A client that has just connected may ask, in as many pieces as it likes."""

    async def main() -> None:
        async with serving(Unix(str(folder / "policy")), first_reply_s=DEADLINE) as (server, _):
            client = await connect(server)
            await until(lambda: server.connections)
            stopping = asyncio.create_task(server.stop())
            first, second = ask("now")[:20], ask("now")[20:]
            await asyncio.sleep(0.01)
            client.writer.write(first)
            await asyncio.sleep(0.01)
            client.writer.write(second)
            assert await client.rest() == b"action=REJECT now\n\n"
            await stopping

    run(main())


def test_a_graceful_stop(run: Run, folder: Path) -> None:
    """Requests in hand get their replies; idle and half-sent ones are closed; nobody is accepted."""
    path = folder / "policy"

    async def main() -> None:
        async with serving(Unix(str(path)), ANY_PORT) as (server, decider):
            idle, partial, busy = [await connect(server) for _ in range(3)]
            partial.writer.write(ask("now")[:-1])
            busy.send("slow 1", "now 2")
            await until(lambda: server.connections == 3 and decider.under_way)
            stopping = asyncio.create_task(server.stop())
            assert await idle.rest() == b""
            assert await partial.rest() == b""
            assert not path.exists()
            with pytest.raises(ConnectionRefusedError):
                await connect(server, door=1)
            assert not stopping.done()
            busy.send("now 3")
            decider.release.set()
            assert await busy.rest() == b"action=REJECT slow 1\n\naction=REJECT now 2\n\n"
            await asyncio.wait_for(stopping, DEADLINE)
            assert server.connections == 0

    run(main())


def test_a_stop_is_bounded(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    """A decision without an end, and a client that is gone, do not hold up a stop beyond its grace."""

    async def main() -> None:
        async with serving(shutdown_grace=0.05) as (server, decider):
            client, gone = await connect(server), await connect(server)
            client.send("slow 1")
            gone.send("slow 2")
            await until(lambda: decider.under_way == 2)
            reset(gone)
            await until(lambda: server.connections == 1)
            await asyncio.wait_for(server.stop(), DEADLINE)
            assert await client.rest() == b""
            assert (decider.under_way, decider.cancelled, server.connections) == (0, 2, 0)
            await client.close()

    run(main())
    assert [record.getMessage() for record in caplog.records] == [
        "closing 1 connections after shutdown_grace"
    ]


def test_a_stop_does_not_wait_for_a_client_that_does_not_read(run: Run, folder: Path) -> None:
    """Replies that nobody reads are given up when the grace is over."""

    async def main() -> None:
        async with serving(Unix(str(folder / "policy")), shutdown_grace=0.05) as (server, decider):
            client = await connect(server, limit=1000)
            client.send(*(f"now {'x' * 400}" for _ in range(10_000)))
            await quiet(lambda: len(decider.asked))
            await asyncio.wait_for(server.stop(), DEADLINE)
            assert server.connections == 0

    run(main())


def test_stopping_twice(run: Run) -> None:
    """A second stop has nothing left to do."""

    async def main() -> None:
        async with serving() as (server, _):
            await server.stop()
            await server.stop()

    run(main())


# --- listeners ----------------------------------------------------------------------------------


def test_several_listeners(run: Run, folder: Path) -> None:
    """Every listener serves, and `addresses` tells the ports that the system chose."""

    async def main() -> None:
        async with serving(ANY_PORT, Unix(str(folder / "policy")), ANY_PORT) as (server, _):
            assert [type(address) for address in server.addresses] == [Inet, Unix, Inet]
            assert all(address.port for address in server.addresses if isinstance(address, Inet))
            for door in range(3):
                client = await connect(server, door=door)
                client.send("now")
                assert await client.reply() == "REJECT now"
                await client.close()

    run(main())


def test_a_host_name(run: Run) -> None:
    """localhost may be two addresses, of which one may not be there."""

    async def main() -> None:
        async with serving(Inet("localhost", 0)) as (server, _):
            hosts = {address.host for address in server.addresses if isinstance(address, Inet)}
            assert hosts in ({"127.0.0.1"}, {"::1"}, {"127.0.0.1", "::1"})

    run(main())


@pytest.mark.parametrize("mode", [0o666, 0o660, 0o600])
def test_socket_mode(run: Run, folder: Path, mode: int) -> None:
    """The socket's file has socket_mode, whatever the umask."""
    path = folder / "policy"

    async def main() -> None:
        async with serving(Unix(str(path)), socket_mode=mode):
            assert stat.S_IMODE(path.stat().st_mode) == mode

    run(main())


def test_a_stale_socket_is_replaced(run: Run, folder: Path) -> None:
    """The file of a server that died does not stop the next one."""
    path = folder / "policy"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))

    async def main() -> None:
        async with serving(Unix(str(path))) as (server, _):
            client = await connect(server)
            client.send("now")
            assert await client.reply() == "REJECT now"
            await client.close()
        assert not path.exists()

    run(main())


def test_a_socket_of_a_successor_is_left(run: Run, folder: Path) -> None:
    """A server that stops does not remove the file that another one has put in its place."""
    path = folder / "policy"

    async def main() -> None:
        async with serving(Unix(str(path))):
            path.unlink()
            path.write_text("of somebody else")
        assert path.read_text() == "of somebody else"

    run(main())


async def complaint(*listeners: Listener) -> str:
    """Why a server cannot listen."""
    server = PolicyServer(ByRecipient(), listeners)
    with pytest.raises(ConfigError) as raised:
        await server.start_listening()
    return str(raised.value)


def test_an_address_in_use(run: Run, folder: Path) -> None:
    """The complaint names the address, and nothing stays open or in the file system."""
    path = folder / "policy"

    async def main() -> None:
        async with serving() as (server, _):
            (taken,) = server.addresses
            expected = f"cannot listen on {taken}: address already in use"
            assert await complaint(Unix(str(path)), taken) == expected
            assert not path.exists()

    run(main())


@pytest.mark.parametrize("backlog", [BACKLOG, 0])
def test_a_socket_in_use(run: Run, folder: Path, backlog: int) -> None:
    """A socket on which somebody listens is left alone, even one whose backlog is full."""
    path = folder / "policy"

    async def main() -> None:
        with socket.socket(socket.AF_UNIX) as first, socket.socket(socket.AF_UNIX) as client:
            first.bind(str(path))
            first.listen(backlog)
            client.connect(str(path))
            expected = f"cannot listen on unix:{path}: another server listens on it"
            assert await complaint(Unix(str(path))) == expected
            assert path.is_socket()

    run(main())


@pytest.mark.parametrize(
    ("listener", "expected"),
    [
        (Unix("{folder}/file"), "cannot listen on unix:{folder}/file: the file is there and is no socket"),
        (Unix("{folder}/no/policy"), "cannot listen on unix:{folder}/no/policy: no such file or directory"),
        (Unix("{folder}/file/policy"), "cannot listen on unix:{folder}/file/policy: not a directory"),
        (
            Unix("{folder}/" + "x" * 200),
            "cannot listen on unix:{folder}/" + "x" * 200 + ": af_unix path too long",
        ),
        (Inet("192.0.2.1", 0), "cannot listen on inet:192.0.2.1:0: cannot assign requested address"),
        (Inet("nosuch.invalid", 0), "cannot listen on inet:nosuch.invalid:0: "),
    ],
)
def test_listeners_that_cannot_be(run: Run, folder: Path, listener: Listener, expected: str) -> None:
    """The complaint is one line that names the listener."""
    (folder / "file").write_text("")
    if isinstance(listener, Unix):
        listener = Unix(listener.path.format(folder=folder))

    async def main() -> None:
        text = await complaint(listener)
        assert text.startswith(expected.format(folder=folder))
        assert "\n" not in text

    run(main())
