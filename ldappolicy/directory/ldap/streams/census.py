"""Which entries there are: identities and names, read now and then, to see what no change told.

Polls cannot see deletions, and an ordinary account of Active Directory is not shown deleted objects. What
was there the last time and is not now has been deleted; an entry with another name that nobody told of stands
below a container that was renamed, and is `Everything`. It takes some 200 octets an entry of memory.

An entry whose identity may not be read is not counted.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from ldappolicy.directory import Scope, Search
from ldappolicy.directory.changes import Event, Everything
from ldappolicy.directory.ldap.connection import Connection
from ldappolicy.directory.ldap.streams.covered import ANY, IDENTITIES, Covered
from ldappolicy.directory.ldap.streams.following import Refused
from ldappolicy.entry import Entry
from ldappolicy.errors import Unavailable
from ldappolicy.ldap_filter import Filter

_AT_A_TIME = 10_000  # entries that are compared before others have a turn in the event loop


class Census:
    """The entries of what is covered; `marker` is an attribute that grows with each modification."""

    def __init__(self, covered: Covered, marker: str) -> None:
        self._covered = covered
        self._marker = marker
        self._names: dict[str, int] = {}

    async def begin(self, connection: Connection, latest: str = "") -> str:
        """Read it; the greatest marker there is, up to `latest`."""
        self._names = {}
        newest = ""
        async for entry in self.entries(connection):
            if uuid := self._covered.identity_of(entry):
                self._names[uuid] = hash(entry.key)
            markers = (value for value in entry.values(self._marker) if not latest or value <= latest)
            newest = max(newest, *markers, "")
        if not self._names:
            raise Refused(f"{connection.uri}: expected one of {', '.join(IDENTITIES)} of each entry")
        return newest

    def note(self, uuid: str, entry: Entry) -> tuple[bool, bool]:
        """A change that was told: whether the entry is new, and whether it has another name than before."""
        before, self._names[uuid] = self._names.get(uuid), hash(entry.key)
        return before is None, before not in (None, self._names[uuid])

    def forget(self, uuid: str) -> None:
        """A deletion that was told."""
        self._names.pop(uuid, None)

    async def compare(
        self, connection: Connection, is_told: Callable[[Entry], bool] = lambda _: False
    ) -> list[Event]:
        """What has happened unseen; `is_told` is whether a change of this entry is told anyway."""
        seen: set[str] = set()
        others: dict[str, int] = {}  # kept when the answer is whole: who fails half-way must see them again
        async for entry in self.entries(connection):
            uuid = self._covered.identity_of(entry)
            seen.add(uuid)
            if uuid and self._names.get(uuid) != hash(entry.key) and not is_told(entry):
                others[uuid] = hash(entry.key)
        if not seen:
            raise Unavailable(f"{connection.uri}: shows no entry any more")
        self._names.update(others)
        events: list[Event] = []
        for number, uuid in enumerate(tuple(self._names)):
            if uuid not in seen:
                self.forget(uuid)
                events.append(self._covered.deleted(uuid))
            if number % _AT_A_TIME == 0:
                await asyncio.sleep(0)
        if others:
            events.append(Everything("entries came or have other names, and no change told of them"))
        return events

    async def entries(
        self, connection: Connection, condition: Filter = ANY, attributes: tuple[str, ...] = ()
    ) -> AsyncGenerator[Entry, None]:
        """Those that match, with identity and marker besides."""
        identities = (self._covered.identity,) if self._covered.identity else IDENTITIES
        wanted = tuple(dict.fromkeys((*attributes, *identities, self._marker)))
        for base in self._covered.bases:
            async with aclosing(connection.scan(Search(base, Scope.SUB, condition, wanted))) as pages:
                async for page in pages:
                    for entry in page:
                        yield entry
