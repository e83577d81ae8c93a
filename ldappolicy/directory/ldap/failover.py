"""Which server is asked: the first that can be, with a memory of those that could not.

The servers are tried in the order of the configuration. One that failed is passed over for a while, from
0.2 s to 30 s, twice as long each time, with jitter; when it is the only hope it is tried all the same,
until it has failed three times. Then the circuit is open: searches are `Unavailable` at once, nobody
waits, and the next try comes when the while is over. Callers share one attempt to connect, and it
goes on when they lose patience.

A new connection has to show the proofs before it is used for anything else: an
empty replica, or an account that lost its rights, must not read as "no such entry".

A search whose connection ended before a byte of the answer came is asked once more, so that neither
a server's idle timeout nor its restart is anybody's trouble.

BUGS: once on a later server, it stays there while that one answers.
"""

import asyncio
import logging
import random
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack

from ldappolicy.directory import Search
from ldappolicy.directory.ldap.connection import Connection, Dropped, connect
from ldappolicy.directory.ldap.settings import Endpoint, LdapSettings, endpoints, tls_context
from ldappolicy.entry import Entry
from ldappolicy.errors import Unavailable
from ldappolicy.ldap_filter import to_text

SHORTEST_PAUSE = 0.2
LONGEST_PAUSE = 30.0
CIRCUIT_FAILURES = 3

log = logging.getLogger(__name__)


class Server:
    """One server and what is remembered of its health; `jitter` yields numbers from 0 to 1."""

    def __init__(self, endpoint: Endpoint, clock: Callable[[], float], jitter: Callable[[], float]) -> None:
        self.endpoint = endpoint
        self.failures = 0
        self.reason = ""
        self._clock = clock
        self._jitter = jitter
        self._pause_ends = float("-inf")

    def failed(self, reason: str) -> None:
        """It could not be asked; the pause is between a half and the whole of what doubles."""
        pause = min(LONGEST_PAUSE, SHORTEST_PAUSE * 2 ** min(self.failures, 20))
        self._pause_ends = self._clock() + pause * (1 + self._jitter()) / 2
        self.failures += 1
        self.reason = reason
        log.warning("directory server failed, %d in a row: %s", self.failures, reason)

    def answered(self) -> None:
        """It is well."""
        self.failures = 0
        self.reason = ""

    @property
    def is_rested(self) -> bool:
        """Whether no pause is on."""
        return self._clock() >= self._pause_ends

    @property
    def is_given_up(self) -> bool:
        """Whether it has failed so often that it is left alone during its pause."""
        return self.failures >= CIRCUIT_FAILURES


class _Line:
    """A place for one connection, and for the attempt to open one."""

    def __init__(self) -> None:
        self.connection: Connection | None = None
        self.server: Server | None = None
        self.opening: asyncio.Task[tuple[Connection, Server]] | None = None

    @property
    def is_open(self) -> bool:
        return self.connection is not None and not self.connection.ended

    def opened(self, task: asyncio.Task[tuple[Connection, Server]]) -> None:
        self.opening = None
        if not task.cancelled() and task.exception() is None:
            self.connection, self.server = task.result()


class LdapDirectory:
    """A `Directory` that asks LDAP servers; raises ConfigError for settings that cannot work."""

    def __init__(
        self,
        settings: LdapSettings,
        *,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.searches = 0
        self._settings = settings
        self._servers = [Server(endpoint, clock, jitter) for endpoint in endpoints(settings)]
        tls = any(server.endpoint.tls for server in self._servers)
        self._context = tls_context(settings) if tls else None
        self._proofs = tuple(settings.proofs)
        self._lines = [_Line() for _ in range(settings.connections)]
        self._turn = 0

    def set_proofs(self, proofs: Sequence[Search]) -> None:
        """What new connections have to show from now on."""
        self._proofs = tuple(proofs)

    def describe(self) -> str:
        """The server that is asked, or why there is none."""
        uris = [line.connection.uri for line in self._lines if line.connection and line.is_open]
        return uris[0] if uris else self._reasons() or "not connected"

    async def search(self, search: Search) -> list[Entry]:
        """See `Directory.search`."""
        try:
            return await self._ask(search)
        except Dropped:
            return await self._ask(search)

    async def close(self) -> None:
        """See `Directory.close`."""
        attempts = [line.opening for line in self._lines if line.opening is not None]
        for attempt in attempts:
            attempt.cancel()
        if attempts:
            await asyncio.wait(attempts)
        await asyncio.gather(*(line.connection.close() for line in self._lines if line.connection))

    async def _ask(self, search: Search) -> list[Entry]:
        self._turn = (self._turn + 1) % len(self._lines)
        line = self._lines[self._turn]
        connection, server = await self._opened(line)
        self.searches += 1
        entries = await connection.search(search)
        server.answered()
        return entries

    async def _opened(self, line: _Line) -> tuple[Connection, Server]:
        if line.connection is not None and line.server is not None and not line.connection.ended:
            return line.connection, line.server
        if line.opening is None:
            line.opening = asyncio.create_task(self._open())
            line.opening.add_done_callback(line.opened)
        attempt = line.opening
        await asyncio.wait((attempt,))  # which, unlike `await attempt`, does not cancel it with us
        if attempt.cancelled():
            raise Unavailable("the directory was closed")
        if isinstance(error := attempt.exception(), Unavailable):
            raise Unavailable(str(error))  # each waiter its own, for its own traceback
        return attempt.result()

    async def _open(self) -> tuple[Connection, Server]:
        rested = [server for server in self._servers if server.is_rested]
        for server in rested or [server for server in self._servers if not server.is_given_up]:
            try:
                connection = await self._try(server)
            except Unavailable as error:
                server.failed(str(error))
            else:
                log.info("directory server connected: %s", connection.uri)
                return connection, server
        raise Unavailable(self._reasons())

    async def _try(self, server: Server) -> Connection:
        connection = await connect(server.endpoint, self._settings, self._context)
        with ExitStack() as unfinished:
            unfinished.callback(connection.abort)
            await self._prove(connection)
            unfinished.pop_all()
        if self._proofs or self._settings.bind != "none":
            server.answered()
        connection.on_fault = server.failed
        return connection

    async def _prove(self, connection: Connection) -> None:
        proofs = self._proofs
        shown = await asyncio.gather(*(connection.search(proof) for proof in proofs))
        self.searches += len(proofs)
        for proof, entries in zip(proofs, shown, strict=True):
            if not entries:
                what = f"{to_text(proof.filter)} at {proof.base!r}"
                raise Unavailable(f"server {connection.uri} does not show {what}")

    def _reasons(self) -> str:
        return "; ".join(server.reason for server in self._servers if server.reason)
