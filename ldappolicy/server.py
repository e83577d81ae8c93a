"""The policy service on its sockets: asyncio around `protocol`, and a decider behind it.

A connection is one asyncio.Protocol, no task: a request that the decider can answer at once is answered
within the read that brought it. Only one that needs the directory becomes a task; what comes behind it
on the same connection waits, so that replies keep the order of their requests whatever each one takes.

Postfix keeps one connection for each smtpd process and pays a second for every one that we close first
(auto_clnt(3) retries after retry_delay). So the server closes only what is no policy
connection, what is over a limit, and what has been idle beyond any Postfix's own patience.

The time that a decision may take is the decider's business: it knows what to answer instead.

BUGS: a client that sends thousands of requests in one read holds up the others while they are answered.
Postfix never does, and the service is not for strangers.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Protocol, cast

from ldappolicy.config import Listener, Unix
from ldappolicy.counters import Counters
from ldappolicy.doors import BACKLOG, Door, SharedDoor, open_doors
from ldappolicy.errors import ProtocolError
from ldappolicy.log import Limited
from ldappolicy.protocol import RequestReader, encode_reply
from ldappolicy.request import Request

log = logging.getLogger(__name__)

MOST_WAITING = 16
"""Requests that wait on one connection before it is read no further; Postfix has one outstanding."""

LINGER_S = 1.0
"""How long the rest of what was no request is read and dropped, so that earlier replies arrive."""

IDLE_CHECKS = 8
"""How often within idle_timeout connections are looked at: one timer, and an eighth of inexactness."""

DRAIN_TURNS = 3
"""Turns of the event loop after which all is read that had arrived when the doors were shut."""

FIRST_REPLY_S = 1.0
"""How long a client that has just connected may take to ask, when the service stops: it asks at once."""


class Decider(Protocol):
    """Who decides. An exception from any of these is a bug: it is logged, and the connection is closed."""

    def answer(self, data: bytes) -> bytes | Request | None:
        """The reply to the one request that `data` is; or the request, for `decide`; or None: parse it."""
        ...

    def decide_now(self, request: Request) -> str | None:
        """The action, where all that it takes is known; None: `decide` must be asked."""
        ...

    async def decide(self, request: Request) -> str | None:
        """The action, whatever it takes; None: no reply, the connection is to be closed."""
        ...


class Connection(asyncio.Protocol):
    """One client: its reader, the requests that wait, and at most one decision under way."""

    __slots__ = (
        *("_blocked", "_deciding", "_ending", "_finishing", "_heard", "_heard_all", "_heard_before"),
        *("_most", "_paused", "_plain", "_quiet_checks", "_reader", "_server", "_transport", "_waiting"),
    )
    _transport: asyncio.Transport

    def __init__(self, server: "PolicyServer") -> None:
        self._server = server
        self._most = server.max_request_bytes
        self._reader = RequestReader(server.max_request_bytes)
        self._waiting: deque[Request] = deque()
        self._deciding: asyncio.Task[str | None] | None = None
        self._plain = True  # nothing is in hand, and nothing of what follows is so
        self._ending = False  # close when what is in hand has its replies
        self._finishing = False  # the same, once it has had one
        self._blocked = False  # the client does not read its replies
        self._paused = False  # we do not read its requests
        self._heard_all = False  # the client has said that it sends no more
        self._heard = self._heard_before = 0  # reads and replies, now and when it was last looked at
        self._quiet_checks = 0

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client; one too many is closed at once."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but name
        if not self._server.admit(self):
            self.abort()

    def data_received(self, data: bytes) -> None:
        """Bytes of requests; nearly always one request, of which everything is known."""
        self._heard += 1
        try:
            if self._plain and len(data) <= self._most:
                reply = self._server.decider.answer(data)
                if isinstance(reply, bytes):
                    self._transport.write(reply)
                else:
                    self._take(data, reply)
            else:
                self._take(data)
        except Exception:
            # A bug must cost one connection, not the service: the one broad `except` that ends an error here.
            log.exception("bug: connection closed without a reply")
            self.give_up()

    def eof_received(self) -> bool:
        """The client sends no more. It still gets the replies to what it sent."""
        self._cut_off()
        self._ending = self._heard_all = True
        self._plain = False
        return self._in_hand()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone. A decision under way runs to its end: what it fetches is of use."""
        self._cut_off()
        self._end()
        self._waiting.clear()
        self._server.forget(self)

    def pause_writing(self) -> None:
        """The client does not read: decide nothing more for it, read nothing more from it."""
        self._blocked = True
        self._plain = False

    def resume_writing(self) -> None:
        """The client reads again."""
        self._blocked = False
        self.data_received(b"")

    # What the server calls.

    def finish(self) -> None:
        """Answer what is in hand, read no more, close; a client that has just connected may ask once."""
        self._plain = False
        if not self._heard:
            self._finishing = True
            self._server.finish_later(self)
        else:
            self.finish_now()

    def finish_now(self) -> None:
        """The same, whether it has asked or not."""
        self._end()
        self._close_when_done()

    def check_idle(self) -> None:
        """Close when nothing has happened for IDLE_CHECKS of these; a decision under way is not idle."""
        self._quiet_checks = self._quiet_checks + 1 if self._heard == self._heard_before else 0
        self._heard_before = self._heard
        if self._quiet_checks > IDLE_CHECKS and self._deciding is None:
            self._cut_off()
            self.abort()  # close() would wait for a client that does not read

    def abort(self) -> None:
        """Close now, whatever is in hand."""
        self._end()
        self._waiting.clear()
        self._transport.abort()

    def give_up(self) -> None:
        """Answer nothing more; close when the replies that were made are sent."""
        self._end()
        self._waiting.clear()
        self._transport.close()

    # What happens in between.

    def _end(self) -> None:
        self._ending = True
        self._plain = False

    def _take(self, data: bytes, request: Request | None = None) -> None:
        """What asks for more than a ready reply: the bytes, or the one request that they are."""
        if data and self._ending:
            return
        self._collect()
        if data and not self._ending:
            if request is not None:
                self._decide(request)
            else:
                self._feed(data)
        self._advance()
        self._plain = not (
            self._ending
            or self._finishing
            or self._blocked
            or self._paused
            or self._in_hand()
            or not self._reader.idle
        )

    def _collect(self) -> None:
        """Sends the reply of the decision that was under way, if it is made."""
        task = self._deciding
        if task is None or not task.done():
            return
        self._deciding = None
        action = None if task.cancelled() else task.result()
        if action is None:
            self.give_up()
        elif not self._transport.is_closing():
            self._transport.write(encode_reply(action))

    def _feed(self, data: bytes) -> None:
        self._waiting.extend(self._reader.feed(data))
        if self._reader.error is not None:
            self._end()
            self._server.complain(self._reader.error)

    def _advance(self) -> None:
        """Answer what waits, in order, until one needs the directory."""
        waiting = self._waiting
        while waiting and self._deciding is None and not self._blocked:
            request = waiting.popleft()
            action = self._server.decider.decide_now(request)
            if action is None:
                self._decide(request)
            else:
                self._transport.write(encode_reply(action))
        if self._finishing and self._reader.idle and not self._in_hand():
            self._end()
        if self._ending:
            self._close_when_done()
        elif waiting or self._blocked or self._paused:
            self._pause_or_resume()

    def _decide(self, request: Request) -> None:
        self._deciding = self._server.start(request)
        self._deciding.add_done_callback(lambda _: self.data_received(b""))

    def _pause_or_resume(self) -> None:
        """Read on only while there is room for more."""
        full = self._blocked or len(self._waiting) > MOST_WAITING
        if full == self._paused or self._transport.is_closing():
            return
        self._paused = full
        if full:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def _in_hand(self) -> bool:
        return bool(self._waiting or self._deciding)

    def _close_when_done(self) -> None:
        if self._in_hand() or self._transport.is_closing():
            return
        if self._reader.error is None or self._heard_all:
            self._transport.close()
        else:
            # With bytes unread, close(2) resets the connection, and the client may lose its last replies.
            self._transport.write_eof()
            self._server.linger(self._transport)

    def _cut_off(self) -> None:
        """A request that will never be complete is worth a warning, unless we are the ones who end."""
        if self._ending:
            return
        self._reader.end()
        if self._reader.error is not None:
            self._server.complain(self._reader.error)


class PolicyServer:
    """Listens, and answers the requests of every connection by its decider.

    `connections` and `accepted` count, for metrics, and so does `counters`. Times in seconds.
    """

    def __init__(
        self,
        decider: Decider,
        listeners: Sequence[Listener],
        *,
        socket_mode: int = 0o666,
        max_connections: int = 4096,
        idle_timeout: float = 3600.0,
        max_request_bytes: int = 131072,
        shutdown_grace: float = 10.0,
        first_reply_s: float = FIRST_REPLY_S,
        linger_s: float = LINGER_S,
        counters: Counters | None = None,
    ) -> None:
        self.decider = decider
        self.max_request_bytes = max_request_bytes
        self.accepted = 0
        self.counters = counters or Counters()
        self.addresses: tuple[Listener, ...] = ()
        self._listeners = tuple(listeners)
        self._socket_mode = socket_mode
        self._max_connections = max_connections
        self._idle_timeout = idle_timeout
        self._shutdown_grace = shutdown_grace
        self._first_reply_s = first_reply_s
        self._linger_s = linger_s
        self._open: set[Connection] = set()
        self._tasks: set[asyncio.Task[str | None]] = set()
        self._doors: list[Door] = []
        self._servers: list[asyncio.AbstractServer | SharedDoor] = []
        self._stopping = False
        self._sweeper: asyncio.TimerHandle | None = None
        self._changed = asyncio.Event()
        self._warnings = Limited(log)

    @property
    def connections(self) -> int:
        """How many clients are connected."""
        return len(self._open)

    async def start_listening(self, doors: Sequence[Door] | None = None) -> None:
        """Open every listener, or none: ConfigError for one that cannot be opened. Or serve these doors."""
        self._loop = asyncio.get_running_loop()
        self._doors = list(await open_doors(self._listeners, self._socket_mode) if doors is None else doors)
        for door in self._doors:
            self._servers.append(await self._serve(door))
        self.addresses = tuple(door.listener for door in self._doors)
        self._sweep_later()

    async def stop(self) -> None:
        """Accept no more, answer the requests in hand, close; by force when the grace is over."""
        self._shut_doors()
        if self._sweeper is not None:
            self._sweeper.cancel()
        for _ in range(DRAIN_TURNS):
            await asyncio.sleep(0)
        self._stopping = True
        for connection in tuple(self._open):
            connection.finish()
        with suppress(TimeoutError):
            async with asyncio.timeout(self._shutdown_grace):
                await self._all_closed()
        await self._break_off()

    # What connections call.

    def admit(self, connection: Connection) -> bool:
        """Count a connection in, unless there are too many; one that came while we stop may ask once."""
        self.accepted += 1
        if len(self._open) < self._max_connections:
            self._open.add(connection)
            if self._stopping:
                connection.finish()
            return True
        text = f"connection refused: max_connections {self._max_connections} reached"
        self._warnings.log(logging.WARNING, text)
        return False

    def forget(self, connection: Connection) -> None:
        """A connection is gone."""
        self._open.discard(connection)
        self._changed.set()

    def start(self, request: Request) -> asyncio.Task[str | None]:
        """A decision that needs the directory."""
        task = self._loop.create_task(self.decider.decide(request))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def finish_later(self, connection: Connection) -> None:
        """Ends a connection that has not asked within `first_reply_s`."""
        self._loop.call_later(self._first_reply_s, connection.finish_now)

    def linger(self, transport: asyncio.Transport) -> None:
        """Let a client that talks nonsense read its last replies, but not talk on for long."""
        self._loop.call_later(self._linger_s, transport.abort)

    def complain(self, error: ProtocolError) -> None:
        """Count and log what is not the protocol."""
        self.counters.protocol_errors.add()
        self._warnings.log(logging.WARNING, f"not a policy request: {error}", key="not a policy request")

    # What happens in between.

    async def _serve(self, door: Door) -> asyncio.AbstractServer | SharedDoor:
        if door.counts is not None:
            return SharedDoor(door, self._connection, lambda: len(self._open))
        if isinstance(door.listener, Unix):
            return await self._loop.create_unix_server(self._connection, sock=door.socket, backlog=BACKLOG)
        return await self._loop.create_server(self._connection, sock=door.socket, backlog=BACKLOG)

    def _connection(self) -> Connection:
        return Connection(self)

    def _shut_doors(self) -> None:
        for server in self._servers:
            server.close()
        for door in self._doors:
            door.shut()
        self._servers.clear()
        self._doors.clear()

    async def _all_closed(self) -> None:
        while self._open:
            self._changed.clear()
            await self._changed.wait()

    async def _break_off(self) -> None:
        """What is left when the grace is over: clients that do not read, decisions without an end."""
        if self._open:
            log.warning("closing %d connections after shutdown_grace", len(self._open))
        for connection in tuple(self._open):
            connection.abort()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._all_closed()

    def _sweep_later(self) -> None:
        self._sweeper = self._loop.call_later(self._idle_timeout / IDLE_CHECKS, self._sweep)

    def _sweep(self) -> None:
        """One timer for all connections: a timer each would cost every request its renewal."""
        for connection in tuple(self._open):
            connection.check_idle()
        self._sweep_later()
