"""Polling, where nothing better is offered: entries by modifyTimestamp, on Active Directory by uSNChanged.

A poll asks for what was modified since the last one. Timestamps have seconds, and replicas receive
changes late: each poll looks back a while, and what it has told already is not told again. Active Directory's
numbers are the server's own and need none of that; the root DSE says when there is nothing to ask for.

No poll sees a deletion: every tenth is followed by a census, and the first one too.

BUGS: deletions take ten poll intervals. An entry that was modified by a clock that is late by more than
LOOKING_BACK is seen by the census only when it is new, renamed or deleted.
"""

import asyncio
from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta

from ldappolicy.directory import Scope, Search
from ldappolicy.directory.changes import Changed, Event, Everything, Live, Watched
from ldappolicy.directory.ldap.connection import Connection
from ldappolicy.directory.ldap.streams.census import Census
from ldappolicy.directory.ldap.streams.covered import ANY, SUBORDINATES, Covered, is_container
from ldappolicy.directory.ldap.streams.following import COMPARISONS, Refused
from ldappolicy.entry import Entry
from ldappolicy.errors import Unavailable
from ldappolicy.ldap_filter import GreaterOrEqual

KIND = "poll"

LOOKING_BACK = 60.0
"""Seconds before the newest timestamp that a poll asks for again."""

_FORMATS = ("%Y%m%d%H%M%SZ", "%Y%m%d%H%M%S.%fZ")  # RFC 4517 section 3.3.13, as servers write it


class PollFollowing:
    """A `Following` by polling; `by_usn` on Active Directory."""

    def __init__(self, covered: Covered, watched: Watched, *, by_usn: bool) -> None:
        self._covered = covered
        self._interval = watched.poll_interval
        self._by_usn = by_usn
        self._marker = "uSNChanged" if by_usn else "modifyTimestamp"
        self._census = Census(covered, self._marker)
        self._newest = ""
        self._told: dict[str, Entry] = {}
        self._was_live = False

    async def events(self, connection: Connection) -> AsyncGenerator[Event, None]:
        """See `Following.events`."""
        if self._was_live:
            for event in await self._changes(connection):
                yield event
            for event in await self._compared(connection):
                yield event
        else:
            committed = await _committed(connection) if self._by_usn else ""
            newest = await self._census.begin(connection, "" if self._by_usn else _latest())
            self._newest = committed or newest
            self._was_live = True
        yield Live(KIND, connection.uri)
        polls = 0
        while True:
            await asyncio.sleep(self._interval)
            for event in await self._changes(connection):
                yield event
            polls += 1
            if polls % COMPARISONS == 0:
                for event in await self._compared(connection):
                    yield event

    async def _changes(self, connection: Connection) -> list[Event]:
        newest = await _committed(connection) if self._by_usn else ""
        if newest and newest == self._newest:
            return []
        if newest and int(newest) < int(self._newest):
            self._newest = newest
            return [Everything("the server's numbers went back: it was restored, or is another one")]
        condition = GreaterOrEqual(self._marker, self._since())
        wanted = (*self._covered.attributes, *SUBORDINATES)
        events: list[Event] = []
        told: dict[str, Entry] = {}
        greatest = self._newest
        async for entry in self._census.entries(connection, condition, wanted):
            greatest = max(greatest, *self._believed(entry), "")
            uuid = self._covered.identity_of(entry)
            if not uuid:
                events.append(Everything(f"an entry without an identity has changed: {entry.dn!r}"))
                continue
            told[uuid] = entry
            if self._told.get(uuid) != entry:
                events += self._changed(uuid, entry)
        self._newest, self._told = (newest, {}) if self._by_usn else (greatest, told)
        return events

    def _believed(self, entry: Entry) -> list[str]:
        """Its marker; not one from the future, behind which nothing would be asked for any more."""
        return [value for value in entry.values(self._marker) if self._by_usn or value <= _latest()]

    def _changed(self, uuid: str, entry: Entry) -> list[Event]:
        is_new, is_renamed = self._census.note(uuid, entry)
        events: list[Event] = [Changed(uuid, self._covered.trimmed(entry), is_new)]
        if is_renamed and is_container(dict(entry.items())):
            events.append(Everything(f"a container has got another name: {entry.dn!r}"))
        return events

    async def _compared(self, connection: Connection) -> list[Event]:
        return await self._census.compare(connection, self._is_newer)

    def _is_newer(self, entry: Entry) -> bool:
        """Whether the next poll will ask for it."""
        if self._by_usn:
            numbers = (value for value in entry.values(self._marker) if _is_number(value))
            return any(int(value) > int(self._newest) for value in numbers)
        return any(value >= self._newest for value in entry.values(self._marker))

    def _since(self) -> str:
        if self._by_usn:
            return str(int(self._newest) + 1)
        for form in _FORMATS:
            try:
                moment = datetime.strptime(self._newest, form).replace(tzinfo=UTC)
                return (moment - timedelta(seconds=LOOKING_BACK)).strftime(_FORMATS[0])
            except (ValueError, OverflowError):
                continue
        raise Unavailable(f"{self._marker}: {self._newest!r}, expected YYYYMMDDHHMMSSZ")


def _latest() -> str:
    return (datetime.now(UTC) + timedelta(seconds=LOOKING_BACK)).strftime(_FORMATS[0])


async def _committed(connection: Connection) -> str:
    """Active Directory's newest number."""
    asked = Search("", Scope.BASE, ANY, ("highestCommittedUSN",))
    for root in await connection.search(asked):
        for value in root.values("highestCommittedUSN"):
            if _is_number(value):
                return value
    raise Refused(f"{connection.uri}: expected highestCommittedUSN in the root DSE")


def _is_number(value: str) -> bool:
    return len(value) <= 20 and value.isascii() and value.isdigit()
