"""The LDAP Content Synchronization Operation, RFC 4533: OpenLDAP's syncprov, 389-ds' content synchronization.

`Syncrepl` is the consumer's side as a machine that is fed with messages and yields events; `SyncFollowing`
is the socket's. The search is refreshAndPersist, and its first refresh is told to nobody:

* OpenLDAP names in contextCSN how far its content has come, and takes that for a cookie: there is
  hardly a refresh then;
* 389-ds, and an OpenLDAP that does not show contextCSN, sends everything once.

With a cookie of the server's the refresh is what was missed. Deletions are then told one by one
(refreshDelete), or, when the server does not remember them (olcSpSessionlog), by naming what is still there
(refreshPresent): who would understand that has to keep the identity of every entry, so it is `Everything`
here. A cookie that the server does not take is dropped, and the next start is a first one with `Everything`.

389-ds now and then tells nothing of what is written while a search goes from refresh to persist (2.3.1: some
5 of 150 starts amid writes). A moment later it is asked once more for what came since the start's cookie.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing

from ldappolicy.directory import Scope, Search
from ldappolicy.directory.changes import Event, Everything, Live
from ldappolicy.directory.ldap import ber, codec, requests
from ldappolicy.directory.ldap.connection import Connection
from ldappolicy.directory.ldap.streams.covered import ANY, SUBORDINATES, Covered, naming_context, whole
from ldappolicy.directory.ldap.streams.following import Timing, attended, beside, refused
from ldappolicy.errors import Unavailable

KIND = "syncrepl"
REQUEST = "1.3.6.1.4.1.4203.1.9.1.1"
STATE = "1.3.6.1.4.1.4203.1.9.1.2"
INFO = "1.3.6.1.4.1.4203.1.9.1.4"

_REFRESH_ONLY, _REFRESH_AND_PERSIST = 1, 3
_PRESENT, _ADD, _MODIFY, _DELETE = range(4)
_NEW_COOKIE, _REFRESH_DELETE, _REFRESH_PRESENT, _ID_SET = 0x80, 0xA1, 0xA2, 0xA3
_UUID_LENGTH = 16
_OPENLDAP = b"csn="
"""What is in its cookies."""

_REFRESH_REQUIRED = 4096  # e-syncRefreshRequired, RFC 4533 section 2.5
_UNWILLING = 53  # what slapd says to a cookie that is newer than its content


class Syncrepl:
    """One content; `cookie` is where to go on, empty when that is the beginning."""

    def __init__(self, covered: Covered, cookie: bytes = b"") -> None:
        self.cookie = cookie
        self.is_live = False
        self._covered = covered
        self._was_live = bool(cookie)
        self._is_resuming = False
        self._why_everything = ""

    @property
    def can_resume(self) -> bool:
        """Whether there is a cookie from which on everything was told."""
        return self._was_live and bool(self.cookie)

    def begin(self, start: bytes = b"", mode: int = _REFRESH_AND_PERSIST) -> requests.Control:
        """What to ask with; `start` is a cookie for where there is nothing to go on from."""
        self.is_live = False
        self._is_resuming = self.can_resume
        if self._was_live and not self._is_resuming:
            self._why_everything = "there is no cookie"  # until it is told, however often this is begun
        if not self._is_resuming:
            self.cookie = start  # slapd does not send it back when nothing has happened
        parts = [ber.integer(mode, ber.ENUMERATED)]
        parts += [ber.element(ber.OCTETS, self.cookie)] if self.cookie else []
        return requests.Control(REQUEST, True, ber.element(ber.SEQUENCE, *parts))

    def feed(self, body: codec.Body) -> Iterator[Event]:
        """The events of one message, `Live` as `Live("", "")`; raises Garbage."""
        match body:
            case codec.EntryBody():
                yield from self._entry(body)
            case codec.Intermediate(name, value) if name == INFO:
                yield from self._said(value)
            case codec.Reference():
                raise Unavailable("refers to another server")

    def ended(self, result: codec.Result) -> None:
        """The server is done with us: its cookie is not used again if that can be why."""
        if not self.is_live or result.code in (_REFRESH_REQUIRED, _UNWILLING):
            self.cookie = b""

    def _entry(self, body: codec.EntryBody) -> Iterator[Event]:
        match ber.parts(body.controls.get(STATE, b"")):
            case [(ber.ENUMERATED, state), (ber.OCTETS, uuid), *rest]:
                yield from self._changed(ber.number(state), _uuid(uuid), body)
                self._keep(rest)
            case _:
                raise codec.Garbage(f"{body.dn!r}: expected a sync state")

    def _changed(self, state: int, uuid: str, body: codec.EntryBody) -> Iterator[Event]:
        if not (self.is_live or self._is_resuming):
            self._covered.seen(uuid, body)
        elif state in (_ADD, _MODIFY):
            if self._is_resuming and not self.is_live and self._covered.is_top(body.dn):
                # slapd takes a cookie that it cannot read for none, and sends everything there is now.
                self._why_everything = "the server has begun anew"
            yield from self._covered.changed(uuid, body, is_new=self.is_live and state == _ADD)
        elif state == _DELETE:
            yield self._covered.deleted(uuid, body.dn)
            if body.dn and not self._covered.covers(whole(body).key):
                # slapd tells of the entry alone, under its new name.
                yield Everything(f"an entry was moved away, perhaps with others below it: {body.dn!r}")
        elif state != _PRESENT:
            raise codec.Garbage(f"{body.dn!r}: sync state {state}")

    def _said(self, value: bytes) -> Iterator[Event]:
        """SyncInfoValue, RFC 4533 section 2.5."""
        outer = ber.elements(value)
        if len(outer) != 1:
            raise codec.Garbage(f"{value[:40]!r}, expected one sync info")
        [(choice, start, end)] = outer
        if choice == _NEW_COOKIE:
            self.cookie = value[start:end]
            return
        parts = [(tag, value[first:last]) for tag, first, last in ber.elements(value, start, end)]
        if choice == _ID_SET:
            yield from self._identified(parts)
        elif choice in (_REFRESH_DELETE, _REFRESH_PRESENT):
            yield from self._refreshed(choice == _REFRESH_DELETE, parts)
        else:
            raise codec.Garbage(f"sync info {choice:#x}")
        self._keep(parts)

    def _identified(self, parts: list[tuple[int, bytes]]) -> Iterator[Event]:
        deletes = any(tag == ber.BOOLEAN and content != b"\0" for tag, content in parts)
        if deletes and (self.is_live or self._is_resuming):
            for content in (content for tag, content in parts if tag == ber.SET):
                for _, start, end in ber.elements(content):
                    yield self._covered.deleted(_uuid(content[start:end]))

    def _refreshed(self, told_deletions: bool, parts: list[tuple[int, bytes]]) -> Iterator[Event]:
        if not told_deletions and (self._is_resuming or self.is_live):
            self._why_everything = "the server does not know what was deleted in between"
        is_done = not any(tag == ber.BOOLEAN and content == b"\0" for tag, content in parts)
        if not is_done:
            return
        if self._why_everything:
            yield Everything(self._why_everything)
            self._why_everything = ""
        if not self.is_live:
            self.is_live = self._was_live = True
            self._keep(parts)
            yield Live("", "")

    def _keep(self, parts: list[tuple[int, bytes]]) -> None:
        self.cookie = next((content for tag, content in parts if tag == ber.OCTETS and content), self.cookie)


class SyncFollowing:
    """A `Following` by RFC 4533."""

    def __init__(self, covered: Covered, timing: Timing) -> None:
        self._covered = covered
        self._search = covered.search(*SUBORDINATES)
        self._settling = timing.settling
        self.machine = Syncrepl(covered)

    async def events(self, connection: Connection) -> AsyncGenerator[Event, None]:
        """See `Following.events`."""
        machine = self.machine
        start = b"" if machine.can_resume else await _position(connection, self._covered.base)
        control = machine.begin(start)
        begun_with = machine.cookie
        async with aclosing(self._told(connection, control)) as events:
            async for event in events:
                yield event
                if isinstance(event, Live):
                    break
            since = begun_with or machine.cookie
            again = self._since(connection, since) if _OPENLDAP not in since else _nothing()
            async with attended(again) as more, aclosing(beside(events, more)) as both:
                async for event in both:
                    yield event

    async def _told(self, connection: Connection, control: requests.Control) -> AsyncGenerator[Event, None]:
        machine = self.machine
        async with aclosing(connection.listen(self._search, [control])) as bodies:
            async for body in bodies:
                if isinstance(body, codec.Result):
                    machine.ended(body)
                    raise refused(connection, KIND, body)
                try:
                    # One by one: the cookie moves on when its change was told.
                    for event in machine.feed(body):
                        yield Live(KIND, connection.uri) if isinstance(event, Live) else event
                except codec.Garbage as error:
                    machine.cookie = b""
                    raise Unavailable(f"{connection.uri}: {KIND}: {error}") from error

    async def _since(self, connection: Connection, cookie: bytes) -> list[Event]:
        """What has changed since a cookie, by a search that does not follow."""
        await asyncio.sleep(self._settling)
        machine = Syncrepl(self._covered, cookie)
        control = machine.begin(mode=_REFRESH_ONLY)
        told: list[Event] = []
        async with aclosing(connection.listen(self._search, [control])) as bodies:
            async for body in bodies:
                if not isinstance(body, codec.Result):
                    told += machine.feed(body)
                elif body.code != codec.SUCCESS:
                    return [Everything("what was written while the search began is not told")]
        return told


async def _nothing() -> list[Event]:
    return []


async def _position(connection: Connection, base: str) -> bytes:
    """How far the content of an OpenLDAP server has come, as a cookie; empty where it does not say."""
    suffix = await naming_context(connection, base)
    if not suffix:
        return b""
    entries = await connection.search(Search(suffix, Scope.BASE, ANY, ("contextCSN",)))
    states = sorted(value for entry in entries for value in entry.values("contextCSN"))
    # slapd.conf(5), syncrepl: rid is the consumer's own number, which the provider does not look at.
    return f"rid=000,csn={';'.join(states)}".encode() if states else b""


def _uuid(octets: bytes) -> str:
    if len(octets) != _UUID_LENGTH:
        raise codec.Garbage(f"{octets[:40]!r}, expected the {_UUID_LENGTH} octets of an identity")
    return octets.hex()
