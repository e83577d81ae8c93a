"""Change streams: `watch` tells what happens in an LDAP directory, by the best way that its server has.

=================  ==========================================  ===============================
syncrepl           RFC 4533: OpenLDAP, 389-ds                  resumes with a cookie
persistent_search  draft-ietf-ldapext-psearch: 389-ds          begins anew
dirsync            Active Directory                            resumes with a cookie
poll               modifyTimestamp or uSNChanged: any server   resumes; deletions come late
=================  ==========================================  ===============================

`auto` takes the first that the root DSE offers and the server then does; a kind that is named is the only one
that is tried. A stream has a connection of its own, to the server that lookups use: it ends when the
connection does, is opened again after a pause that grows, and goes on where it was if the server is the same
and remembers; in every other case there is `Everything`. A server that says nothing is asked now and then
whether it is still there.

BUGS: several bases are watched from their common parent, which must be readable; without one they are polled.
slapd does not tell what its overlays change (refint, memberof, dynlist).
"""

import asyncio
import logging
import random
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager

from ldappolicy.directory import Features
from ldappolicy.directory.changes import Changed, Event, Everything, Live, Lost, Watched
from ldappolicy.directory.ldap.ber import Garbage
from ldappolicy.directory.ldap.connection import Connection
from ldappolicy.directory.ldap.streams import dirsync, persistent_search, poll, syncrepl
from ldappolicy.directory.ldap.streams.covered import Covered
from ldappolicy.directory.ldap.streams.following import Following, Refused, Timing, attended
from ldappolicy.errors import Unavailable
from ldappolicy.log import escaped

AUTO = "auto"
DEFAULT = Timing()

MOST_DOUBTS = 500
"""Entries that are read again of a refresh; with more, everything is."""

log = logging.getLogger(__name__)


async def watch(
    open_connection: Callable[[], Awaitable[Connection]],
    watched: Watched,
    *,
    timing: Timing = DEFAULT,
    jitter: Callable[[], float] = random.random,
) -> AsyncGenerator[Event, None]:
    """See `Source.watch`. Connections come bound, proven, with their features read, and are closed here.

    Whoever hands them out ends one with `Connection.abort` when lookups go elsewhere.
    """
    streams = _Streams(watched, timing)
    failures = 0
    while True:
        try:
            connection = await open_connection()
            async with _kept_alive(connection, timing), aclosing(streams.events(connection)) as events:
                async for event in events:
                    if isinstance(event, Live):
                        failures = 0
                        log.info("changes are told by %s: %s", event.uri, event.kind)
                    yield event
            reason = f"{connection.uri}: the stream has ended"
        except Unavailable as error:
            reason = str(error)
        log.warning("changes are not told: %s", escaped(reason))
        yield Lost(reason)
        pause = min(timing.longest_pause, timing.shortest_pause * 2 ** min(failures, 20))
        failures += 1
        await asyncio.sleep(pause * (1 + jitter()) / 2)


class Contradicted(Unavailable):
    """The stream tells entries apart by another identity than the one that everything else is read with."""


class _Streams:
    """What is followed on the present server, and who told of changes last."""

    def __init__(self, watched: Watched, timing: Timing) -> None:
        self._watched = watched
        self._timing = timing
        self._covered = Covered(watched)
        self._server = ""
        self._followed: dict[str, Following] = {}
        self._barred: set[str] = set()
        self._told: Following | None = None

    async def events(self, connection: Connection) -> AsyncGenerator[Event, None]:
        """Over one connection, by the first kind that the server does; ends with Unavailable."""
        if connection.uri != self._server:
            self._server = connection.uri
            self._followed.clear()
            self._barred.clear()
        reasons = []
        for kind in self._kinds(connection.features):
            followed = self._followed.get(kind) or self._made(kind, connection.features)
            self._followed[kind] = followed
            is_live = False
            try:
                async with aclosing(self._by(followed, connection)) as events:
                    async for event in events:
                        is_live = is_live or isinstance(event, Live)
                        yield event
            except Garbage as error:
                raise Unavailable(f"{connection.uri}: {kind}: {error}") from error
            except Contradicted:
                self._barred.add(kind)
                raise
            except Refused as error:
                if is_live:
                    raise
                del self._followed[kind]
                if followed is self._told:
                    raise
                reasons.append(str(error))
        raise Unavailable("; ".join(reasons) or f"{connection.uri}: does not do {self._watched.kind}")

    async def _by(self, followed: Following, connection: Connection) -> AsyncGenerator[Event, None]:
        doubts = 0
        async with aclosing(followed.events(connection)) as events:
            async for event in events:
                if isinstance(event, Live):
                    doubts = 0
                    if self._told is not None and self._told is not followed:
                        yield Everything("changes are told anew")
                    self._told = followed
                if isinstance(event, Changed) and self._covered.is_doubtful(event):
                    doubts += 1
                    if doubts > MOST_DOUBTS:
                        if doubts == MOST_DOUBTS + 1:
                            yield Everything("more is told in part than is read again")
                        continue
                    again = await self._covered.read(connection, event)
                    if again is None:
                        continue
                    event = again
                if isinstance(event, Changed) and self._covered.contradicts(event):
                    what = f"{event.uuid}, expected {self._covered.identity}"
                    raise Contradicted(f"{connection.uri}: {event.entry.dn!r} is told as {what}")
                yield event

    def _kinds(self, features: Features) -> list[str]:
        offered = [kind for kind, is_offered in offers(features) if is_offered]
        if not self._covered.base and "" not in self._covered.bases:
            offered = [poll.KIND]
        return [kind for kind in offered if self._watched.kind in (AUTO, kind) and kind not in self._barred]

    def _made(self, kind: str, features: Features) -> Following:
        match kind:
            case syncrepl.KIND:
                return syncrepl.SyncFollowing(self._covered, self._timing)
            case persistent_search.KIND:
                return persistent_search.PersistentFollowing(self._covered, self._timing)
            case dirsync.KIND:
                return dirsync.DirSyncFollowing(self._covered, self._timing)
        return poll.PollFollowing(self._covered, self._watched, by_usn=features.is_active_directory)


def offers(features: Features) -> list[tuple[str, bool]]:
    """The kinds, best first, and whether the root DSE has them."""
    return [
        (dirsync.KIND, features.is_active_directory and dirsync.DIRSYNC in features.controls),
        (syncrepl.KIND, syncrepl.REQUEST in features.controls),
        (persistent_search.KIND, persistent_search.REQUEST in features.controls),
        (poll.KIND, True),
    ]


@asynccontextmanager
async def _kept_alive(connection: Connection, timing: Timing) -> AsyncIterator[None]:
    """Asked now and then whether it is still there, and closed at the end."""
    try:
        async with attended(_probe(connection, timing.probe_interval)):
            yield
    finally:
        await connection.close()


async def _probe(connection: Connection, interval: float) -> None:
    while not connection.ended:
        await asyncio.sleep(interval)
        if connection.is_paused:
            continue  # whoever does not keep up would not see the answer either
        try:
            await connection.probe()
        except Unavailable as error:
            connection.abort(f"no answer to a probe: {error}")
