"""Persistent search (draft-ietf-ldapext-psearch-03): 389-ds, and its forebears and kin.

The server tells of each change and says what happened; it has no cookie, so that after a lost connection
there is `Everything`. It does not say when it has begun either: a probe behind the search is answered, and
then it gets a moment.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing

from ldappolicy.directory.changes import Changed, Event, Everything, Live
from ldappolicy.directory.ldap import ber, codec, requests
from ldappolicy.directory.ldap.connection import Connection
from ldappolicy.directory.ldap.streams.covered import IDENTITIES, SUBORDINATES, Covered, whole
from ldappolicy.directory.ldap.streams.following import Timing, attended, refused
from ldappolicy.errors import Unavailable

KIND = "persistent_search"
REQUEST = "2.16.840.1.113730.3.4.3"
NOTIFICATION = "2.16.840.1.113730.3.4.7"

_ADD, _DELETE, _MODIFY, _MODDN = 1, 2, 4, 8
_ALL = _ADD | _DELETE | _MODIFY | _MODDN


def request() -> requests.Control:
    """Changes only, of all types, each with an entry change notification."""
    asked = (ber.integer(_ALL), ber.boolean(True), ber.boolean(True))
    return requests.Control(REQUEST, True, ber.element(ber.SEQUENCE, *asked))


def told(covered: Covered, body: codec.EntryBody) -> Iterator[Event]:
    """The events of one entry; raises Garbage."""
    match ber.parts(body.controls.get(NOTIFICATION, b"")):
        case [(ber.ENUMERATED, kind), *_]:
            change = ber.number(kind)
        case _:
            raise codec.Garbage(f"{body.dn!r}: expected an entry change notification")
    uuid = covered.identity_of(whole(body))
    if not uuid:
        yield Everything(f"an entry without an identity has changed: {body.dn!r}")
    elif change == _DELETE:
        yield covered.deleted(uuid, body.dn)
    else:
        yield from covered.changed(uuid, body, is_new=change == _ADD)


class PersistentFollowing:
    """A `Following` by persistent search."""

    def __init__(self, covered: Covered, timing: Timing) -> None:
        self._covered = covered
        self._settling = timing.settling
        self._was_live = False

    async def events(self, connection: Connection) -> AsyncGenerator[Event, None]:
        """See `Following.events`."""
        extra = SUBORDINATES if self._covered.identity else (*SUBORDINATES, *IDENTITIES)
        search = self._covered.search(*extra)
        async with aclosing(connection.listen(search, [request()])) as bodies:
            async with attended(anext(bodies)) as first:
                await connection.probe()
                await asyncio.wait((first,), timeout=self._settling)
                if first.done() and isinstance(result := first.result(), codec.Result):
                    raise refused(connection, KIND, result)
                if self._was_live:
                    yield Everything("a persistent search does not tell what was missed")
                self._was_live = True
                yield Live(KIND, connection.uri)
                body = await first
            async for event in self._events(connection, body):
                yield event
            async for body in bodies:
                async for event in self._events(connection, body):
                    yield event

    async def _events(self, connection: Connection, body: codec.Body) -> AsyncGenerator[Event, None]:
        if isinstance(body, codec.Result):
            raise refused(connection, KIND, body)
        if not isinstance(body, codec.EntryBody):
            raise Unavailable(f"{connection.uri}: {KIND}: expected an entry")
        for event in told(self._covered, body):
            # 389-ds tells what plugins did to the entry first, and then how it was before that.
            again = await self._covered.read(connection, event) if isinstance(event, Changed) else event
            if again is not None:
                yield again
