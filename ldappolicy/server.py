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
import errno
import functools
import logging
import os
import socket
import stat
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVarTuple, cast

from ldappolicy.config import Inet, Listener, Unix
from ldappolicy.errors import ConfigError, ProtocolError
from ldappolicy.log import Limited
from ldappolicy.protocol import RequestReader, encode_reply
from ldappolicy.request import Request

log = logging.getLogger(__name__)

BACKLOG = 1024
"""All smtpd processes may connect in the same instant; the kernel caps it at net.core.somaxconn."""

MOST_WAITING = 16
"""Requests that wait on one connection before it is read no further; Postfix has one outstanding."""

LINGER_SECONDS = 1.0
"""How long the rest of what was no request is read and dropped, so that earlier replies arrive."""

IDLE_CHECKS = 8
"""How often within idle_timeout connections are looked at: one timer, and an eighth of inexactness."""

Arguments = TypeVarTuple("Arguments")


class Decider(Protocol):
    """Who decides. An exception from either is a bug: it is logged, and the connection is closed."""

    def decide_now(self, request: Request) -> str | None:
        """The action, where all that it takes is known; None: `decide` must be asked."""
        ...

    async def decide(self, request: Request) -> str | None:
        """The action, whatever it takes; None: no reply, the connection is to be closed."""
        ...


def _closes_on_bug(
    step: Callable[["Connection", *Arguments], None],
) -> Callable[["Connection", *Arguments], None]:
    """For every step of a connection that runs a decider: the package's one broad `except`."""

    @functools.wraps(step)
    def guarded(self: "Connection", *arguments: *Arguments) -> None:
        try:
            step(self, *arguments)
        except Exception:
            # A bug must cost one connection, not the service.
            log.exception("bug: connection closed without a reply")
            self.give_up()

    return guarded


@dataclass(frozen=True, slots=True)
class _Door:
    """One listening socket: `listener` with the port it really got, `inode` of what it made on disk."""

    listener: Listener
    socket: socket.socket
    inode: tuple[int, int] | None = None

    def shut(self) -> None:
        """Close the socket; remove its file, unless another server has put its own there."""
        self.socket.close()
        if isinstance(self.listener, Unix) and self.inode is not None:
            path = Path(self.listener.path)
            with suppress(OSError):
                if _inode(path) == self.inode:
                    path.unlink()


def _inode(path: Path) -> tuple[int, int]:
    status = path.lstat()
    return status.st_dev, status.st_ino


class Connection(asyncio.Protocol):
    """One client: its reader, the requests that wait, and at most one decision under way."""

    __slots__ = (
        "_blocked",
        "_deciding",
        "_ending",
        "_heard_all",
        "_paused",
        "_quiet_checks",
        "_reader",
        "_server",
        "_transport",
        "_waiting",
    )
    _transport: asyncio.Transport

    def __init__(self, server: "PolicyServer") -> None:
        self._server = server
        self._reader = RequestReader(server.max_request_bytes)
        self._waiting: deque[Request] = deque()
        self._deciding: asyncio.Task[str | None] | None = None
        self._ending = False  # close when what is in hand has its replies
        self._blocked = False  # the client does not read its replies
        self._paused = False  # we do not read its requests
        self._heard_all = False  # the client has said that it sends no more
        self._quiet_checks = 0

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client; one too many is closed at once."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but name
        if not self._server.admit(self):
            self.abort()

    @_closes_on_bug
    def data_received(self, data: bytes) -> None:
        """Bytes of requests."""
        if self._ending:
            return
        self._quiet_checks = 0
        requests = self._reader.feed(data)
        self._server.requests += len(requests)
        self._waiting.extend(requests)
        if self._reader.error is not None:
            self._ending = True
            self._server.complain(self._reader.error)
        self._advance()

    def eof_received(self) -> bool:
        """The client sends no more. It still gets the replies to what it sent."""
        self._cut_off()
        self._ending = self._heard_all = True
        return self._in_hand()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone. A decision under way runs to its end: what it fetches is of use."""
        self._cut_off()
        self._ending = True
        self._waiting.clear()
        self._server.forget(self)

    def pause_writing(self) -> None:
        """The client does not read: decide nothing more for it, read nothing more from it."""
        self._blocked = True

    @_closes_on_bug
    def resume_writing(self) -> None:
        """The client reads again."""
        self._blocked = False
        self._advance()

    # What the server calls.

    def finish(self) -> None:
        """Answer what is in hand, read no more, close."""
        self._ending = True
        self._close_when_done()

    def check_idle(self) -> None:
        """Close when nothing has happened for IDLE_CHECKS of these; a decision under way is not idle."""
        self._quiet_checks += 1
        if self._quiet_checks > IDLE_CHECKS and self._deciding is None:
            self._cut_off()
            self.abort()  # close() would wait for a client that does not read

    def abort(self) -> None:
        """Close now, whatever is in hand."""
        self._ending = True
        self._waiting.clear()
        self._transport.abort()

    def give_up(self) -> None:
        """Answer nothing more; close when the replies that were made are sent."""
        self._ending = True
        self._waiting.clear()
        self._transport.close()

    # What happens in between.

    def _advance(self) -> None:
        """Answer what waits, in order, until one needs the directory."""
        waiting = self._waiting
        while waiting and self._deciding is None and not self._blocked:
            request = waiting.popleft()
            action = self._server.decider.decide_now(request)
            if action is None:
                self._deciding = self._server.start(request)
                self._deciding.add_done_callback(self._decided)
            else:
                self._transport.write(encode_reply(action))
        if self._ending:
            self._close_when_done()
        elif waiting or self._blocked or self._paused:
            self._pause_or_resume()

    @_closes_on_bug
    def _decided(self, task: asyncio.Task[str | None]) -> None:
        self._deciding = None
        self._quiet_checks = 0
        action = None if task.cancelled() else task.result()
        if action is None:
            self.give_up()
        elif not self._transport.is_closing():
            self._transport.write(encode_reply(action))
        self._advance()

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
        if self._in_hand():
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

    `connections`, `accepted`, `requests` and `protocol_errors` count, for metrics. Times in seconds.
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
    ) -> None:
        self.decider = decider
        self.max_request_bytes = max_request_bytes
        self.accepted = 0
        self.requests = 0
        self.protocol_errors = 0
        self.addresses: tuple[Listener, ...] = ()
        self._listeners = tuple(listeners)
        self._socket_mode = socket_mode
        self._max_connections = max_connections
        self._idle_timeout = idle_timeout
        self._shutdown_grace = shutdown_grace
        self._open: set[Connection] = set()
        self._tasks: set[asyncio.Task[str | None]] = set()
        self._doors: list[_Door] = []
        self._servers: list[asyncio.AbstractServer] = []
        self._stopping = False
        self._sweeper: asyncio.TimerHandle | None = None
        self._changed = asyncio.Event()
        self._warnings = Limited(log)

    @property
    def connections(self) -> int:
        """How many clients are connected."""
        return len(self._open)

    async def start_listening(self) -> None:
        """Open every listener, or none: ConfigError for one that cannot be opened."""
        self._loop = asyncio.get_running_loop()
        try:
            for listener in self._listeners:
                self._doors += await _open_doors(listener, self._socket_mode)
        except ConfigError:
            self._shut_doors()
            raise
        for door in self._doors:
            self._servers.append(await self._serve(door))
        self.addresses = tuple(door.listener for door in self._doors)
        self._sweep_later()

    async def stop(self) -> None:
        """Accept no more, answer the requests in hand, close; by force when the grace is over."""
        self._stopping = True
        self._shut_doors()
        if self._sweeper is not None:
            self._sweeper.cancel()
        for connection in tuple(self._open):
            connection.finish()
        with suppress(TimeoutError):
            async with asyncio.timeout(self._shutdown_grace):
                await self._all_closed()
        await self._break_off()

    # What connections call.

    def admit(self, connection: Connection) -> bool:
        """Count a connection in, unless there are too many, or it was accepted while we stopped."""
        if self._stopping:
            return False
        self.accepted += 1
        if len(self._open) < self._max_connections:
            self._open.add(connection)
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

    def linger(self, transport: asyncio.Transport) -> None:
        """Let a client that talks nonsense read its last replies, but not talk on for long."""
        self._loop.call_later(LINGER_SECONDS, transport.abort)

    def complain(self, error: ProtocolError) -> None:
        """Count and log what is not the protocol."""
        self.protocol_errors += 1
        self._warnings.log(logging.WARNING, f"not a policy request: {error}", key="not a policy request")

    # What happens in between.

    async def _serve(self, door: "_Door") -> asyncio.AbstractServer:
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


async def _open_doors(listener: Listener, socket_mode: int) -> list[_Door]:
    """The sockets of one listener: a host name may stand for several addresses."""
    try:
        if isinstance(listener, Unix):
            return [_open_unix(listener, socket_mode)]
        return await _open_inet(listener)
    except OSError as error:
        raise _cannot_listen(listener, _reason(error)) from error


def _cannot_listen(listener: Listener, reason: str) -> ConfigError:
    return ConfigError(f"cannot listen on {listener}: {reason}")


def _reason(error: OSError) -> str:
    # A resolver's error numbers are its own; only its text says what it is.
    if error.errno is None or isinstance(error, socket.gaierror):
        return str(error.strerror or error).lower()
    return os.strerror(error.errno).lower()


async def _open_inet(listener: Inet) -> list[_Door]:
    found = await asyncio.get_running_loop().getaddrinfo(
        listener.host, listener.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    addresses = list(dict.fromkeys((family, address) for family, _, _, _, address in found))
    doors: list[_Door] = []
    for family, address in addresses:
        try:
            opened = _listen_inet(family, address)
        except OSError as error:
            # "localhost" is ::1 too where IPv6 is switched off; one address of several is enough.
            if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT) and len(addresses) > 1:
                log.info("not listening on %s, which is one address of %s", address[0], listener)
                continue
            for door in doors:
                door.shut()
            raise
        doors.append(_Door(Inet(*opened.getsockname()[:2]), opened))
    if not doors:
        raise _cannot_listen(listener, "none of its addresses is of this machine")
    return doors


def _listen_inet(family: int, address: tuple[object, ...]) -> socket.socket:
    opened = socket.socket(family, socket.SOCK_STREAM)
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Accepted sockets inherit it: a reply must not wait for an acknowledgement.
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if family == socket.AF_INET6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        opened.bind(address)
        opened.listen(BACKLOG)
        opened.setblocking(False)
    except OSError:
        opened.close()
        raise
    return opened


def _open_unix(listener: Unix, socket_mode: int) -> _Door:
    path = Path(listener.path)
    _remove_stale(listener, path)
    opened = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        opened.bind(listener.path)
        path.chmod(socket_mode)  # before listen(2), so that nobody connects earlier
        opened.listen(BACKLOG)
        opened.setblocking(False)
    except OSError:
        opened.close()
        raise
    return _Door(listener, opened, _inode(path))


def _remove_stale(listener: Unix, path: Path) -> None:
    """Remove the socket of a server that is gone; ConfigError for anything else that is there."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise _cannot_listen(listener, "the file is there and is no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(listener.path)
        except ConnectionRefusedError:
            path.unlink()
            return
        except BlockingIOError:
            pass  # its backlog is full: somebody listens
    raise _cannot_listen(listener, "another server listens on it")
