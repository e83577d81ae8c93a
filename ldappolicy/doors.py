"""Listening sockets: opened as the configuration says, or handed in by whoever opened them.

A socket file in the way is removed only when nobody listens on it any more, and at the end only when it is
still the one that was made here. Whoever serves a door, and how many processes do, is not decided here: a
connection that nobody has accepted yet stays with the socket as long as any process has it open.
"""

import asyncio
import errno
import logging
import mmap
import os
import resource
import socket
import stat
import struct
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ldappolicy.config import Inet, Listener, Unix
from ldappolicy.errors import ConfigError

BACKLOG = 1024
"""All smtpd processes may connect in the same instant; the kernel caps it at net.core.somaxconn."""

COURTESY = 0.002
"""Seconds for which a connection is left to processes that have fewer."""

PAUSE = 1.0
"""Seconds for which nothing is accepted when no more descriptors are to be had; asyncio's own servers: 1."""

SPARE_FILES = 64
"""Open files beside clients: listeners, directory, log, web."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Door:
    """One listening socket: `listener` with the port it really got, `inode` of what it made on disk.

    Without an inode its file is somebody else's. With `counts` other processes accept there as well.
    """

    listener: Listener
    socket: socket.socket
    inode: tuple[int, int] | None = None
    counts: "Counts | None" = None

    def shut(self) -> None:
        """Close the socket; remove its file, unless another server has put its own there."""
        self.socket.close()
        if isinstance(self.listener, Unix) and self.inode is not None:
            path = Path(self.listener.path)
            with suppress(OSError):
                if _inode(path) == self.inode:
                    path.unlink()


class Counts:
    """How many connections each of several processes has, in memory that all of them see.

    `own` is one's place in it. Each writes its own number only, which takes one store; what others have may
    be a moment old.
    """

    ABSENT = 0xFFFFFFFF
    """A process that accepts nothing."""

    def __init__(self, descriptor: int, places: int, own: int = 0) -> None:
        self._own = own
        self._counts = memoryview(mmap.mmap(descriptor, struct.calcsize(f"{places}I"))).cast("I")

    @classmethod
    def made(cls, descriptor: int, places: int) -> "Counts":
        """New ones, in an empty file; nobody accepts yet."""
        os.pwrite(descriptor, struct.pack(f"{places}I", *[cls.ABSENT] * places), 0)
        return cls(descriptor, places)

    def tell(self, count: int) -> None:
        """One's own number."""
        self._counts[self._own] = count

    def leave(self, place: int) -> None:
        """The process there has ended."""
        self._counts[place] = self.ABSENT

    def is_least(self, count: int) -> bool:
        """Whether nobody has fewer than so many."""
        return count <= min(self._counts)


class SharedDoor:
    """Accepts at a door that other processes accept at as well, so that each gets its share.

    An event loop's own server accepts all there are, and as Postfix keeps its connections, one process may
    end up with everybody. Here whoever has more than another waits a moment, and then accepts what is still
    there: nobody is left outside for one that hangs.
    """

    def __init__(self, door: Door, made: Callable[[], asyncio.Protocol], count: Callable[[], int]) -> None:
        assert door.counts is not None
        self._loop = asyncio.get_running_loop()
        self._socket = door.socket
        self._counts = door.counts
        self._made = made
        self._count = count
        self._arriving: set[asyncio.Task[object]] = set()
        self._later: asyncio.TimerHandle | None = None
        self._open()

    def close(self) -> None:
        """Accepts no more."""
        if self._later is not None:
            self._later.cancel()
        self._loop.remove_reader(self._socket)

    def _open(self) -> None:
        self._later = None
        self._loop.add_reader(self._socket, self._accept_in_turn)

    def _wait(self, seconds: float, then: Callable[[], None]) -> None:
        self._loop.remove_reader(self._socket)
        self._later = self._loop.call_later(seconds, then)

    def _accept_in_turn(self) -> None:
        count = self._count() + len(self._arriving)
        self._counts.tell(count)
        if self._counts.is_least(count):
            self._accept()
        else:
            self._wait(COURTESY, self._accept_what_is_left)

    def _accept_what_is_left(self) -> None:
        self._open()
        self._accept()

    def _accept(self) -> None:
        try:
            arrived, _ = self._socket.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return  # another process was quicker, or the client has left
        except OSError as error:
            log.error("no connection accepted: %s", _reason(error))
            self._wait(PAUSE, self._open)
            return
        arrived.setblocking(False)
        task = self._loop.create_task(self._loop.connect_accepted_socket(self._made, arrived))
        self._arriving.add(task)
        task.add_done_callback(self._arrived)
        self._counts.tell(self._count() + len(self._arriving))

    def _arrived(self, task: asyncio.Task[object]) -> None:
        self._arriving.discard(task)
        if not task.cancelled() and (problem := task.exception()) is not None:
            log.error("no connection accepted: %s", problem)


def _inode(path: Path) -> tuple[int, int]:
    status = path.lstat()
    return status.st_dev, status.st_ino


async def open_doors(listeners: Sequence[Listener], socket_mode: int) -> list[Door]:
    """Every listener, or none: ConfigError for one that cannot be opened."""
    doors: list[Door] = []
    try:
        for listener in listeners:
            doors += await _open_listener(listener, socket_mode)
    except ConfigError:
        for door in doors:
            door.shut()
        raise
    return doors


def door_of(opened: socket.socket, counts: Counts | None = None) -> Door:
    """A door whose socket somebody else has opened; ConfigError for what accepts no connections."""
    name = f"the socket {opened.fileno()} that was passed"
    listens = opened.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    if not listens or opened.type != socket.SOCK_STREAM:
        raise ConfigError(f"{name} does not listen, expected a stream socket that does")
    opened.setblocking(False)
    address = opened.getsockname()
    if opened.family == socket.AF_UNIX:
        return Door(Unix(os.fsdecode(address)), opened, counts=counts)
    if opened.family not in (socket.AF_INET, socket.AF_INET6):
        raise ConfigError(f"{name} is of {opened.family!r}, expected AF_INET, AF_INET6 or AF_UNIX")
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # see _listen_inet
    return Door(Inet(*address[:2]), opened, counts=counts)


async def _open_listener(listener: Listener, socket_mode: int) -> list[Door]:
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


async def _open_inet(listener: Inet) -> list[Door]:
    found = await asyncio.get_running_loop().getaddrinfo(
        listener.host, listener.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    addresses = list(dict.fromkeys((family, address) for family, _, _, _, address in found))
    doors: list[Door] = []
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
        doors.append(Door(Inet(*opened.getsockname()[:2]), opened))
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


def _open_unix(listener: Unix, socket_mode: int) -> Door:
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
    return Door(listener, opened, _inode(path))


def allow_files(connections: int) -> None:
    """Raises the limit of open files to what so many connections take; says so where it cannot."""
    needed = connections + SPARE_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    allowed = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    if allowed < needed:
        text = "max_connections %d takes %d open files, the limit is %d (LimitNOFILE, ulimit -n)"
        log.warning(text, connections, needed, allowed)


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
