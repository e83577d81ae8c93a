"""Which server is asked: the first that can be, with a memory of those that could not.

The servers are tried in the order of the configuration, those that failed of late (`health`) behind the
others; when they are the only hope they are tried all the same, until the circuit is open: then searches are
`Unavailable` at once, nobody waits, and the next try comes when the pause is over. Callers share one
attempt to choose a server, and it goes on when they lose patience. All lookups are asked of one server.

While that is not the first one, those before it are tried in the background. When one shows what it has to,
and has what was seen at the one that is used (`abreast`), new searches go there, what is in flight on the old
one is finished, and then the old one is left. A server that lags is used when no other answers. Servers
that are not used and that nobody else tries are looked at now and then, so that a spare is known to be one.

A new connection has to show the proofs and the witnesses (`proving`) before it is used for anything else, and
again every `proof_interval`: an account that lost its rights, a replica that is loaded anew, and a connection
that a firewall forgot are noticed, also when nobody asks.

A search whose connection ended before a byte of the answer came is asked once more, so that neither
a server's idle timeout nor its restart is anybody's trouble.

BUGS: what a server no longer shows reads as absent for up to `proof_interval`.
"""

import asyncio
import logging
import random
import ssl
import time
from collections.abc import AsyncGenerator, Callable, Collection, Coroutine, Sequence
from contextlib import ExitStack, aclosing
from typing import Any

from ldappolicy.counters import Counters
from ldappolicy.directory import Features, Scope, Search
from ldappolicy.directory.changes import Changed, Deleted, Event, Watched
from ldappolicy.directory.ldap import streams
from ldappolicy.directory.ldap.abreast import Sentinels, is_abreast
from ldappolicy.directory.ldap.connection import UNAVAILABLE, Connection, Dropped, connect
from ldappolicy.directory.ldap.health import LONGEST_ABSENCE, LONGEST_PAUSE, Server
from ldappolicy.directory.ldap.lines import Lines, shared
from ldappolicy.directory.ldap.proving import MOST_WITNESSES, Unsuited, prove
from ldappolicy.directory.ldap.refusals import Refusals, Withheld
from ldappolicy.directory.ldap.settings import LdapSettings, endpoints, tls_context
from ldappolicy.directory.ldap.slow import SlowSearches
from ldappolicy.entry import Entry
from ldappolicy.errors import Unavailable
from ldappolicy.ldap_filter import Present
from ldappolicy.log import Limited

WITNESS_AGE = 3600.0
"""Seconds after which what was found is no longer held against a server: people do leave."""
BEHIND = 1.0
"""Seconds between two looks at whether an earlier server has what was seen at the one that is used."""
SHORTEST_LOOK = 0.05
"""Seconds at least between two looks at whether an earlier server may be returned to."""

LOOK = 30.0
"""Seconds, on the average, between two looks at the servers that are not used."""
KNOWN = 180.0
"""Seconds for which it is shown how a server that is not used was found."""

log = logging.getLogger(__name__)


class LdapDirectory:
    """A `Directory` that asks LDAP servers; raises ConfigError for settings that cannot work.

    Who gives `counters` has slow searches counted and told as well.
    """

    def __init__(
        self,
        settings: LdapSettings,
        *,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
        counters: Counters | None = None,
        refusals: Refusals | None = None,
    ) -> None:
        self.searches = 0
        self._refusals = refusals or Refusals(clock=clock)
        self.counters = counters or Counters()
        self._on_slow = SlowSearches(counters.slow_searches).note if counters is not None else None
        self._answered_at: float | None = None
        self.features = Features()
        self._settings = settings
        self._clock = clock
        self._jitter = jitter
        self._servers = [Server(endpoint, clock, jitter) for endpoint in endpoints(settings)]
        tls = any(server.endpoint.tls for server in self._servers)
        self._context = tls_context(settings) if tls else None
        self._proofs = tuple(settings.proofs)
        self._suited = frozenset(settings.suited)
        self._unsuited: dict[Server, str] = {}
        self._witnesses: tuple[str, ...] = ()
        self._witnessed = float("-inf")
        self._sentinels, self._warnings = Sentinels(), Limited(log, most=1, seconds=60.0)
        self._behind: set[Server] = set()
        """Those that have not shown yet that they have what was seen at the one that is used."""
        self._lines: Lines | None = None
        self._own: set[Connection] = set()
        self._choosing: asyncio.Task[Lines] | None = None
        self._background: dict[str, asyncio.Task[None]] = {}
        self._leaving: dict[Lines, asyncio.Task[None]] = {}

    def set_proofs(self, proofs: Sequence[Search]) -> None:
        """What connections have to show from now on."""
        self._proofs = tuple(proofs)

    def expect(self, suited: Collection[str]) -> None:
        """What servers may be from now on; none: whatever they are."""
        self._suited = frozenset(suited)

    async def identify(self) -> str:
        """The profile that suits the server which is asked, empty where it does not tell."""
        _, connection = await self._asked()
        if connection.features == Features():
            self.features = await connection.read_features()
        return connection.features.profile

    @property
    def unsuited(self) -> str:
        """What each of the servers is, where all are of another family than the profile's; else empty."""
        found = [self._unsuited.get(server, "") for server in self._servers]
        return "; ".join(found) if all(found) else ""

    def set_witnesses(self, dns: Sequence[str]) -> None:
        """DNs that were found lately, of which connections have to show at least half from now on."""
        self._witnesses = tuple(dns)[:MOST_WITNESSES]
        self._witnessed = self._clock()

    def describe(self) -> str:
        """The server that is asked, or why there is none."""
        if self._lines is not None and self._lines.connections:
            return self._lines.server.endpoint.uri
        return self._reasons() or "not connected"

    async def search(self, search: Search) -> list[Entry]:
        """See `Directory.search`."""
        try:
            return await self._ask(search)
        except Dropped:
            return await self._ask(search)

    @property
    def answer_age(self) -> float | None:
        """Seconds since a server last answered; None: none ever did."""
        return None if self._answered_at is None else self._clock() - self._answered_at

    def servers(self) -> dict[str, bool]:
        """Whether each server could be asked when it was last tried; those not tried of late are left out."""
        used = self._lines.server if self._lines is not None else None
        lost = used if self._lines is not None and not self._lines.connections else None
        return {
            server.endpoint.uri: server.is_up and server is not lost
            for server in self._servers
            if server.is_up is not None and (server is used or server.untried < KNOWN)
        }

    async def open_connection(self) -> Connection:
        """A connection of the caller's own, proven, to the server that lookups use.

        It ends when lookups move to another server, and when that server is not believed any more.
        """
        lines, _ = await self._asked()
        connection = await self._connect(lines.server)
        if not self._proofs and not self._suited:
            with ExitStack() as unfinished:
                unfinished.callback(connection.abort)
                await connection.read_features()
                unfinished.pop_all()
        if self._lines is None or self._lines.server is not lines.server:
            connection.abort()
            raise Unavailable(f"{connection.uri}: lookups moved to another server")
        self._own = {own for own in self._own if not own.ended} | {connection}
        return connection

    async def watch(self, watched: Watched) -> AsyncGenerator[Event, None]:
        """See `Source.watch`."""
        async with aclosing(streams.watch(self.open_connection, watched)) as events:
            async for event in events:
                if isinstance(event, Changed):
                    self._sentinels.note(event.entry.dn, watched.attributes)
                elif isinstance(event, Deleted) and event.dn:
                    self._sentinels.note(event.dn, watched.attributes)
                yield event

    async def scan(self, base: str, attributes: Sequence[str]) -> AsyncGenerator[list[Entry], None]:
        """See `Source.scan`; over a connection of its own, so that lookups do not wait for it."""
        connection = await self.open_connection()
        search = Search(base, Scope.SUB, Present("objectClass"), tuple(attributes))
        try:
            async with aclosing(connection.scan(search)) as pages:
                async for page in pages:
                    yield page
        finally:
            await connection.close()

    async def close(self) -> None:
        """See `Directory.close`."""
        tasks: list[asyncio.Task[Any]] = [*self._background.values(), *self._leaving.values()]
        tasks += [self._choosing] if self._choosing is not None else []
        for task in tasks:
            task.cancel()
        left = [*self._leaving, *([self._lines] if self._lines is not None else [])]
        self._lines = None
        self._abort_own("the directory was closed")
        if tasks:
            await asyncio.wait(tasks)
        await asyncio.gather(*(lines.close() for lines in left))

    # Lookups.

    async def _ask(self, search: Search) -> list[Entry]:
        try:
            lines, connection = await self._asked()
        except Unavailable:
            self.counters.searches[UNAVAILABLE].add()  # nobody was there to be asked
            raise
        self.searches += 1
        entries = await lines.search(connection, search)
        if entries:
            self._sentinels.note(entries[0].dn, search.attributes)
        self._answered(lines.server)
        return entries

    def _answered(self, server: Server) -> None:
        server.answered()
        self._answered_at = self._clock()

    async def _asked(self) -> tuple[Lines, Connection]:
        """Where lookups go now."""
        lines = self._lines
        if lines is None or not lines.connections:
            lines = await self._chosen()
        connection = await lines.connection()
        if connection is None:
            lines = await self._chosen()
            connection = await lines.connection()
        if connection is None:
            raise Unavailable(self._reasons() or f"{lines.server.endpoint.uri}: connection lost")
        return lines, connection

    async def _chosen(self) -> Lines:
        if self._choosing is None:
            self._choosing = asyncio.create_task(self._choose())
            self._choosing.add_done_callback(self._chose)
            self._keep_going("looks", self._look_around)
        return await shared(self._choosing)

    def _chose(self, _: asyncio.Task[Lines]) -> None:
        self._choosing = None

    async def _choose(self) -> Lines:
        rested = [server for server in self._servers if server.is_rested]
        rested.sort(key=lambda one: (one.is_distrusted, one.failures > 0, one in self._behind))
        for server in rested or [server for server in self._servers if not server.is_given_up]:
            if lines := await self._try(server):
                return lines
        raise Unavailable(self._reasons())

    async def _try(self, server: Server) -> Lines | None:
        try:
            connection = await self._connect(server)
        except Unavailable as error:
            self._disbelieve(server, error)
            return None
        return self._use(server, connection)

    async def _connect(self, server: Server) -> Connection:
        connection = await connect(
            server.endpoint, self._settings, self._context, self.counters, self._refusals
        )
        with ExitStack() as unfinished:
            unfinished.callback(connection.abort)
            await self._prove(server, connection)
            unfinished.pop_all()
        if self._proofs or self._settings.bind != "none":
            self._answered(server)
        connection.on_fault = server.failed
        connection.on_slow = self._on_slow
        return connection

    async def _prove(self, server: Server, connection: Connection) -> None:
        is_recent = self._clock() - self._witnessed < WITNESS_AGE
        witnesses = self._witnesses if is_recent else ()
        self._unsuited.pop(server, None)
        try:
            self.searches += await prove(connection, self._proofs, witnesses, self._suited)
        except Unsuited as error:
            self._unsuited[server] = str(error)
            raise

    # Moving.

    def _use(self, server: Server, connection: Connection) -> Lines:
        """Lookups go there from now on, unless a better server was quicker."""
        old = self._lines
        if old is not None and old.connections and self._rank(old.server) <= self._rank(server):
            connection.abort("not needed")
            return old
        log.info("directory server connected: %s", connection.uri)
        server.chosen()
        self._behind = {*self._behind, *self._servers[: self._rank(server)]} - {server}
        self.features = connection.features
        self._lines = lines = Lines(server, connection, self._settings.connections, self._connect)
        if old is not None:
            if old.server is not server:
                self._abort_own(f"lookups moved to {connection.uri}")
            self._leaving[old] = task = asyncio.create_task(old.finish())
            task.add_done_callback(lambda _: self._leaving.pop(old))
        self._keep_going("proofs", self._prove_again)
        if self._rank(server):
            self._keep_going("return", self._return)
        return lines

    def _disbelieve(self, server: Server, error: Unavailable) -> None:
        """It failed; once lookups have to do without it, nobody else is to rely on it either."""
        is_absent = isinstance(error.__cause__, OSError) and not isinstance(error.__cause__, ssl.SSLError)
        if isinstance(error, Withheld):
            server.withheld(str(error))
        else:
            server.failed(str(error), LONGEST_ABSENCE if is_absent else LONGEST_PAUSE)
        if self._lines is not None and self._lines.server is server and not self._lines.connections:
            self._abort_own(str(error))

    def _rank(self, server: Server) -> int:
        return self._servers.index(server)

    def _abort_own(self, reason: str) -> None:
        for connection in self._own:
            connection.abort(reason)
        self._own.clear()

    def _keep_going(self, what: str, work: Callable[[], Coroutine[None, None, None]]) -> None:
        if what not in self._background:
            self._background[what] = asyncio.create_task(work())
            self._background[what].add_done_callback(lambda _: self._background.pop(what))

    async def _return(self) -> None:
        """Tries the servers before the one that is used, until the first one is."""
        shortest = SHORTEST_LOOK
        while self._lines is not None and (better := self._servers[: self._rank(self._lines.server)]):
            wait = min(server.waits for server in better)
            await asyncio.sleep(max(shortest, wait))
            for server in better:
                if not server.waits and await self._try_to_return(server):
                    break
            shortest = BEHIND

    async def _try_to_return(self, server: Server) -> Lines | None:
        """As `_try`, but to one that has what was seen; who lags is left alone while another answers."""
        try:
            connection = await self._connect(server)
        except Unavailable as error:
            self._disbelieve(server, error)
            return None
        with ExitStack() as unfinished:
            unfinished.callback(connection.abort)
            if not await self._is_abreast(server, connection):
                return None
            unfinished.pop_all()
        return self._use(server, connection)

    async def _is_abreast(self, server: Server, connection: Connection) -> bool:
        """Whether it has what was seen at the one that is used; one that fails is nobody's measure."""
        lines = self._lines
        if lines is None or not (lines.connections and self._proofs):
            return True
        try:
            used = await self._connect(lines.server)  # of its own: lookups do not suffer by what this asks
        except Unavailable:
            return True
        try:
            base, sentinels = self._proofs[0].base, self._sentinels.searches()
            if await is_abreast(connection, used, base, sentinels):
                return True
        except Unavailable as error:
            if connection.ended:
                self._disbelieve(server, error)
            return False
        finally:
            await used.close()
        said = f"directory server is behind {used.uri}, which is used until it has the same: {connection.uri}"
        self._warnings.log(logging.WARNING, said)
        return False

    async def _look_around(self) -> None:
        """Shows, every so often, which of the servers that are not used could be."""
        while True:
            await asyncio.sleep(LOOK * (0.75 + self._jitter() / 2))
            for server in self._servers:
                if server.untried > LOOK / 2 and not self._is_used(server):
                    await self._look_at(server)

    async def _look_at(self, server: Server) -> None:
        was_up = server.is_up
        try:
            connection = await self._connect(server)
        except Unavailable as error:
            if not self._is_used(server):
                server.missed(str(error))
            return
        server.answered()
        if not was_up:
            log.info("directory server that is not in use is well: %s", connection.uri)
        await connection.close()

    def _is_used(self, server: Server) -> bool:
        return self._lines is not None and self._lines.server is server

    async def _prove_again(self) -> None:
        """Shows, every so often, that the connections that are used are still to be believed."""
        while (lines := self._lines) is not None and lines.connections:
            await asyncio.sleep(self._settings.proof_interval)
            await asyncio.gather(*(self._still_proven(lines, one) for one in lines.connections))

    async def _still_proven(self, lines: Lines, connection: Connection) -> None:
        try:
            await self._prove(lines.server, connection)
        except Unavailable as error:
            if not connection.ended:  # else nothing is known against the server
                connection.abort(str(error))
                self._disbelieve(lines.server, error)
        else:
            self.features = connection.features
            self._answered_at = self._clock()

    def _reasons(self) -> str:
        return "; ".join(server.reason for server in self._servers if server.reason)
