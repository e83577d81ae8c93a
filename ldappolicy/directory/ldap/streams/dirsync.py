"""Active Directory: DirSync, with change notifications that say when to look.

The notification search (MS-ADTS section 3.1.1.3.4.1.9) tells of changes at once, but not what they were, and
not of deletions; the DirSync search (section 3.1.1.3.4.1.3) tells everything since its cookie, and has to be
asked. So each notification, and now and then the clock, is followed by DirSync searches until they say that
there is no more.

DirSync works on a whole naming context with the filter (objectClass=*): with another, deletions never come.
OBJECT_SECURITY lets accounts use it that may not replicate secrets. Of a change come the attributes that
changed, and of members those that came and went (`member;range=1-1` and `0-0`, INCREMENTAL_VALUES): the entry
is read again without its members, and these are told as `Members`.

The first walk, without a cookie, asks for the identities only, and is told to nobody.

Deleted objects are not shown to ordinary accounts, and their deletion is not told to them. Where none is
shown a census is taken every few minutes, and deletions come that late: the account should be allowed to read
them (`dsacls "CN=Deleted Objects,DC=..." /takeownership`, then `/g ACCOUNT:LCRP`).

BUGS: a group does not change when its member is deleted; the deletion of the member is told. Values that the
server computes (memberOf, tokenGroups) change without a word. A census keeps the identity of every entry in
memory.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from itertools import islice

from ldappolicy.directory import Scope, Search
from ldappolicy.directory.changes import Event, Everything, Live, Members
from ldappolicy.directory.ldap import ber, codec, requests
from ldappolicy.directory.ldap.connection import Connection
from ldappolicy.directory.ldap.streams.census import Census
from ldappolicy.directory.ldap.streams.covered import ANY, Covered, naming_context, whole
from ldappolicy.directory.ldap.streams.following import Refused, Timing, attended, refused
from ldappolicy.errors import Unavailable

KIND = "dirsync"
DIRSYNC = "1.2.840.113556.1.4.841"
NOTIFICATION = "1.2.840.113556.1.4.528"
SHOW_DELETED = "1.2.840.113556.1.4.417"

_OBJECT_SECURITY, _INCREMENTAL_VALUES = 0x1, -0x80000000
_ADDED, _REMOVED = ";range=1-1", ";range=0-0"
_TOGETHER = 32  # entries that are read again at a time; a connection has 64 searches in flight

_DELETED_OBJECTS = "18E2EA80684F11D2B9AA00C04F79F805"

# Given when an object is made, and never again.
_BIRTH = "whenCreated"


class DirSync:
    """The cookie of one naming context, and what the entries of an answer mean."""

    def __init__(self, covered: Covered) -> None:
        self.cookie = b""
        self.attributes = (*covered.attributes, "objectGUID", "isDeleted", "name", _BIRTH)
        self._covered = covered

    def control(self) -> requests.Control:
        """What has changed since the cookie."""
        flags = ber.integer(_INCREMENTAL_VALUES | _OBJECT_SECURITY)
        asked = (flags, ber.integer(0), ber.element(ber.OCTETS, self.cookie))
        return requests.Control(DIRSYNC, True, ber.element(ber.SEQUENCE, *asked))

    def take(self, result: codec.Result) -> bool:
        """Keep the cookie; whether there is more. Raises Garbage."""
        match ber.parts(result.controls.get(DIRSYNC, b"")):
            case [(ber.INTEGER, more), (ber.INTEGER, _), (ber.OCTETS, cookie)] if cookie:
                self.cookie = cookie
                return ber.number(more) != 0
        raise codec.Garbage("expected a DirSync cookie")

    def members(self, body: codec.EntryBody) -> Members:
        """The values that came and went, of all the attributes that hold members."""
        added: list[str] = []
        removed: list[str] = []
        for described, values in body.attributes.items():
            name, _, _ = described.lower().partition(";")
            if name in self._covered.members:
                (removed if described.lower().endswith(_REMOVED) else added).extend(values)
        return Members(tuple(added), tuple(removed))

    def again(self, body: codec.EntryBody) -> Search:
        """What reads the entry as it is now."""
        names = (name for name in self._covered.attributes if name.lower() not in self._covered.members)
        attributes = tuple(dict.fromkeys((*names, "objectClass", "objectGUID")))
        return Search(f"<GUID={identity(body)}>", Scope.BASE, ANY, attributes)


def identity(body: codec.EntryBody) -> str:
    """objectGUID; raises Garbage."""
    for name, values in body.attributes.items():
        if name.lower() == "objectguid" and len(values) == 1:
            return values[0].encode("utf-8", "surrogateescape").hex()
    raise codec.Garbage(f"{body.dn!r}: expected objectGUID")


class DirSyncFollowing:
    """A `Following` by DirSync."""

    def __init__(self, covered: Covered, timing: Timing) -> None:
        self._covered = covered
        self._timing = timing
        self._machine = DirSync(covered)
        self._was_live = False
        self._owes_everything = False
        """Until it is told, however often this is begun."""
        self._census = Census(covered, "uSNChanged")
        self._is_counting = False

    async def events(self, connection: Connection) -> AsyncGenerator[Event, None]:
        """See `Following.events`."""
        context = await naming_context(connection, self._covered.base)
        if not context:
            raise Refused(f"{connection.uri}: no naming context holds {self._covered.base!r}")
        changed = asyncio.Event()
        async with attended(self._notice(connection, context, changed)) as notices:
            await connection.probe()
            await asyncio.wait((notices,), timeout=self._timing.settling)
            if notices.done():
                notices.result()
            async for event in self._begun(connection, context):
                yield event
            yield Live(KIND, connection.uri)
            count_at = self._next_count()
            while True:
                async with attended(changed.wait()) as told:
                    await asyncio.wait(
                        (told, notices),
                        timeout=self._timing.sweep_interval,
                        return_when=asyncio.FIRST_COMPLETED,
                    )
                if notices.done():
                    notices.result()
                changed.clear()
                async for event in self._changes(connection, context):
                    yield event
                if self._is_counting and time.monotonic() >= count_at:
                    for event in await self._census.compare(connection, lambda _: True):
                        yield event
                    count_at = self._next_count()

    async def _begun(self, connection: Connection, context: str) -> AsyncGenerator[Event, None]:
        """To where everything is told, or known."""
        is_resuming = bool(self._machine.cookie) and self._was_live
        if is_resuming:
            async for event in self._changes(connection, context):
                yield event
        else:
            self._owes_everything = self._was_live
            self._machine.cookie = b""
            # With as little as can be sent.
            async for _ in self._pages(connection, Search(context, Scope.SUB, ANY, ("objectGUID",))):
                pass
        was_counting, self._is_counting = self._is_counting, not await _shows_deleted(connection, context)
        if self._is_counting and was_counting and is_resuming:
            for event in await self._census.compare(connection, lambda _: True):
                yield event
        elif self._is_counting:
            await self._census.begin(connection)
        if self._owes_everything or (self._was_live and was_counting != self._is_counting):
            yield Everything("not all that was missed is known")
        self._was_live, self._owes_everything = True, False

    def _next_count(self) -> float:
        return time.monotonic() + self._timing.census_interval

    async def _notice(self, connection: Connection, context: str, changed: asyncio.Event) -> None:
        """Set `changed` for each notification; ends with Unavailable."""
        search = Search(context, Scope.SUB, ANY, ("objectGUID",))
        controls = [requests.Control(NOTIFICATION, True), requests.Control(SHOW_DELETED, True)]
        async with aclosing(connection.listen(search, controls)) as bodies:
            async for body in bodies:
                if isinstance(body, codec.Result):
                    raise refused(connection, "change notification", body)
                changed.set()

    async def _changes(self, connection: Connection, context: str) -> AsyncGenerator[Event, None]:
        search = Search(context, Scope.SUB, ANY, tuple(dict.fromkeys(self._machine.attributes)))
        async with aclosing(self._pages(connection, search)) as pages:
            async for bodies in pages:
                async for event in self._told(connection, bodies):
                    yield event

    async def _pages(
        self, connection: Connection, search: Search
    ) -> AsyncGenerator[list[codec.EntryBody], None]:
        """Until there are no more; the cookie moves on when a page was used."""
        while True:
            entries: list[codec.EntryBody] = []
            async with aclosing(connection.listen(search, self._controls())) as bodies:
                async for body in bodies:
                    match body:
                        case codec.EntryBody():
                            entries.append(body)
                        case codec.Result():
                            self._check(connection, body)
                            yield entries
                            if not self._machine.take(body):
                                return

    def _controls(self) -> list[requests.Control]:
        return [self._machine.control(), requests.Control(SHOW_DELETED, True)]

    def _check(self, connection: Connection, result: codec.Result) -> None:
        if result.code != codec.SUCCESS:
            self._machine.cookie = b""
            raise refused(connection, KIND, result)
        if DIRSYNC not in result.controls:
            raise Refused(f"{connection.uri}: {KIND}: expected a cookie")

    async def _told(
        self, connection: Connection, bodies: Sequence[codec.EntryBody]
    ) -> AsyncGenerator[Event, None]:
        waiting = iter(bodies)
        while batch := list(islice(waiting, _TOGETHER)):
            for events in await asyncio.gather(*(self._meaning(connection, body) for body in batch)):
                for event in events:
                    yield event

    async def _meaning(self, connection: Connection, body: codec.EntryBody) -> Iterable[Event]:
        uuid = identity(body)
        names = {name.partition(";")[0].lower(): values for name, values in body.attributes.items()}
        if [value.upper() for value in names.get("isdeleted", [])] == ["TRUE"]:
            self._census.forget(uuid)
            return [self._covered.deleted(uuid)]
        result, found = await connection.answer(self._machine.again(body))
        if result.code not in (codec.SUCCESS, codec.NO_SUCH_OBJECT):
            raise Unavailable(f"{connection.uri}: {KIND}: {body.dn!r}: {result}")
        if not found:
            return []  # gone meanwhile, or out of sight: that is told as a change of its own
        whole_now = await connection.whole(found[0])
        # Under the name that it had for this answer: the members in it bear the names of that moment, and
        # if it was renamed since the next answer says so.
        now = codec.EntryBody(body.dn, whole_now.attributes)
        is_new = _BIRTH.lower() in names
        members = self._machine.members(body)
        self._census.note(uuid, whole(now))
        # Not before it is told: what is remembered of a container must not be ahead of that.
        return self._covered.changed(uuid, now, is_new=is_new, members=members)


async def _shows_deleted(connection: Connection, context: str) -> bool:
    """Whether deleted objects are shown to us: at least one, in their container (MS-ADTS section 6.1.1.4)."""
    asked = Search(f"<WKGUID={_DELETED_OBJECTS},{context}>", Scope.ONE, ANY, ("objectGUID",))
    controls = [requests.Control(SHOW_DELETED, True), requests.paged_results(1, b"")]
    result, entries = await connection.answer(asked, controls)
    return result.code == codec.SUCCESS and bool(entries)
