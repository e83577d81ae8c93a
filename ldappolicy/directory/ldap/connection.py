"""One connection to one LDAP server: many searches at a time, each with a deadline.

RFC 4511 lets a client send requests without waiting for answers; each answer carries the number of
its request. Here at most 64 are in flight, and more wait for their turn (slapd closes a connection with
more than olcConnMaxPending, 100, requests waiting). A search that is given up is abandoned, so that
the server may stop working on it; two in a row without a word from the server end the connection.

Nothing is half believed: referrals, limits, and a connection that breaks in the middle of an answer
make the search unavailable, whatever has come of it. `Dropped` says that nothing had.

Opening (TCP or socket file, TLS, bind) has one deadline for all of it, and the bind comes after the
server's certificate was verified. Which server is asked, and when again, is the parent's business.

BUGS: an idle connection that a firewall forgot is noticed by the search that it fails.
"""

import asyncio
import math
import ssl
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import cast

from ldappolicy.directory import Scope, Search
from ldappolicy.directory.ldap import codec
from ldappolicy.directory.ldap.settings import Endpoint, LdapSettings, password
from ldappolicy.entry import Entry
from ldappolicy.errors import InputError, Unavailable

MAX_IN_FLIGHT = 64
MAX_MESSAGE = 16 * 1024 * 1024  # slapd's own limit for what it reads, sockbuf_max_incoming_auth, is 4 MiB
MAX_TIMEOUTS = 2
MAX_NUMBER = 2**31 - 1  # RFC 4511 section 4.1.1.1

CLOSING = 1.0
"""Seconds for a goodbye; a server that does not take it is left without."""


class Dropped(Unavailable):
    """The connection ended before a byte of the answer had come: asking again is safe."""


class _Operation:
    """A request that waits for its answer."""

    __slots__ = ("begun", "done", "entries")

    def __init__(self) -> None:
        self.done: asyncio.Future[codec.Result] = asyncio.get_running_loop().create_future()
        self.entries: list[Entry] = []
        self.begun = False

    def fail(self, error: Unavailable) -> None:
        if not self.done.done():
            self.done.set_exception(error)


class Connection(asyncio.Protocol):
    """Made by `connect`; `ended` is the reason why it cannot be used any more, or empty."""

    def __init__(self, uri: str, timeout: float) -> None:
        self.uri = uri
        self.timeout = timeout
        self.ended = ""
        self.on_fault: Callable[[str], None] | None = None
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._number = 0
        self._timeouts = 0
        self._pending: dict[int, _Operation] = {}
        self._turns = asyncio.Semaphore(MAX_IN_FLIGHT)
        self._lost = asyncio.Event()

    async def search(self, search: Search) -> list[Entry]:
        """All the entries; the timeout covers the wait for a turn and the whole answer."""
        request = partial(codec.search_request, search=search, time_limit=math.ceil(self.timeout))
        sent = False
        try:
            async with asyncio.timeout(self.timeout), self._turns:
                sent = True
                result, entries = await self._ask(request)
        except TimeoutError:
            self._timed_out(sent)
            raise Unavailable(f"{self.uri}: no answer within {self.timeout:g} s") from None
        if result.code == codec.SUCCESS:
            return entries
        if result.code == codec.NO_SUCH_OBJECT and search.scope == Scope.BASE:
            return []
        raise Unavailable(f"{self.uri}: search at {search.base!r}: {result}")

    async def start_tls(self, context: ssl.SSLContext, host: str) -> None:
        """From clear text to TLS, RFC 4511 section 4.14."""
        result, _ = await self._ask(codec.start_tls)
        if result.code != codec.SUCCESS:
            raise Unavailable(f"{self.uri}: StartTLS: {result}")
        if self._buffer or self._transport is None:
            # What was sent before TLS must not be read as if it had come through TLS.
            raise Unavailable(f"{self.uri}: StartTLS: more than an answer in clear text")
        loop = asyncio.get_running_loop()
        self._transport = await loop.start_tls(self._transport, self, context, server_hostname=host)

    async def bind(self, settings: LdapSettings) -> None:
        """Say who we are, if the settings want it."""
        if settings.bind == "none":
            return
        if settings.bind == "simple":
            request = partial(codec.simple_bind, dn=settings.bind_dn, password=password(settings))
        else:
            request = partial(codec.external_bind)
        result, _ = await self._ask(request)
        if result.code != codec.SUCCESS:
            raise Unavailable(f"{self.uri}: {settings.bind} bind {settings.bind_dn!r}: {result}")

    async def close(self) -> None:
        """Say goodbye and let go; what is in flight becomes unavailable."""
        transport = self._transport
        if transport is None:
            return
        if not self.ended:
            transport.write(codec.unbind(self._next_number()))
        self._end("closed", retry=False, leave=transport.close)
        try:
            async with asyncio.timeout(CLOSING):
                await self._lost.wait()
        except TimeoutError:
            transport.abort()

    def abort(self) -> None:
        """Let go without a goodbye."""
        self._end("given up", retry=False)

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Part of asyncio.Protocol."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Part of asyncio.Protocol."""
        self._buffer += data
        try:
            while not self.ended and (message := self._next_message()):
                self._take(*codec.decode(message))
        except codec.Garbage as error:
            self._end(f"not an LDAP message: {error}", retry=False, fault=True)

    def connection_lost(self, exc: Exception | None) -> None:
        """Part of asyncio.Protocol."""
        self._end(f"connection lost{': ' if exc else ''}{exc or ''}", retry=not self._buffer)
        self._lost.set()

    # Messages.

    async def _ask(self, encode: Callable[[int], bytes]) -> tuple[codec.Result, list[Entry]]:
        number = self._next_number()
        octets = encode(number)
        if self.ended or self._transport is None:
            raise Dropped(f"{self.uri}: {self.ended}")
        operation = self._pending[number] = _Operation()
        self._transport.write(octets)
        try:
            return await operation.done, operation.entries
        finally:
            if self._pending.pop(number, None) is not None:
                self._transport.write(codec.abandon(self._next_number(), number))

    def _next_number(self) -> int:
        self._number = self._number % MAX_NUMBER + 1
        return self._number

    def _next_message(self) -> bytes:
        """The message at the head of the buffer, empty while it is not complete."""
        if self._buffer and not codec.is_message_start(self._buffer[0]):
            raise codec.Garbage(f"{bytes(self._buffer[:40])!r}")
        size = codec.message_size(self._buffer)
        if size > MAX_MESSAGE:
            raise codec.Garbage(f"{size} bytes, more than {MAX_MESSAGE}")
        if not 0 < size <= len(self._buffer):
            return b""
        message = bytes(self._buffer[:size])
        del self._buffer[:size]
        return message

    def _take(self, number: int, body: codec.Body) -> None:
        self._timeouts = 0
        if number == 0:  # RFC 4511 section 4.4: unsolicited; others than the notice are to be ignored
            if isinstance(body, codec.Result) and body.is_notice:
                self._end(f"notice of disconnection: {body}", retry=True)
            return
        operation = self._pending.get(number)
        if operation is None or operation.done.done():
            return  # the answer to what was abandoned
        operation.begun = True
        match body:
            case codec.Result():
                del self._pending[number]
                operation.done.set_result(body)
            case codec.Reference():
                operation.fail(Unavailable(f"{self.uri}: refers to another server"))
            case codec.EntryBody():
                self._add(operation, body)

    def _add(self, operation: _Operation, body: codec.EntryBody) -> None:
        for name in body.attributes:
            if ";range=" in name.lower():  # Active Directory sends large groups in pieces
                return operation.fail(Unavailable(f"{self.uri}: {body.dn!r}: only a part of it: {name!r}"))
        try:
            operation.entries.append(Entry(body.dn, body.attributes))
        except InputError as error:
            operation.fail(Unavailable(f"{self.uri}: {error}"))
        return None

    def _timed_out(self, sent: bool) -> None:
        self._timeouts += sent
        if self._timeouts >= MAX_TIMEOUTS:
            self._end("no answer to several searches in a row", retry=True, fault=True)

    def _end(
        self, reason: str, *, retry: bool, fault: bool = False, leave: Callable[[], None] | None = None
    ) -> None:
        """The end, once: `retry` if what waits may be asked elsewhere, `fault` if the server is to blame."""
        if self.ended:
            return
        self.ended = reason
        for operation in self._pending.values():
            kind = Dropped if retry and not operation.begun else Unavailable
            operation.fail(kind(f"{self.uri}: {reason}"))
        self._pending.clear()
        self._buffer.clear()
        if self._transport is not None:
            (leave or self._transport.abort)()
        if fault and self.on_fault is not None:
            self.on_fault(f"{self.uri}: {reason}")


async def connect(endpoint: Endpoint, settings: LdapSettings, context: ssl.SSLContext | None) -> Connection:
    """A connection that is bound, or Unavailable, within the settings' timeout."""
    connection = Connection(endpoint.uri, settings.timeout)
    with ExitStack() as unfinished:
        unfinished.callback(connection.abort)
        try:
            async with asyncio.timeout(settings.timeout):
                await _reach(connection, endpoint, context)
                await connection.bind(settings)
        except TimeoutError:
            raise Unavailable(f"{endpoint.uri}: no connection within {settings.timeout:g} s") from None
        except OSError as error:
            raise Unavailable(f"{endpoint.uri}: {_reason(error)}") from error
        unfinished.pop_all()
    return connection


async def _reach(connection: Connection, endpoint: Endpoint, context: ssl.SSLContext | None) -> None:
    loop = asyncio.get_running_loop()
    if endpoint.path:
        await loop.create_unix_connection(lambda: connection, endpoint.path)
        return
    always = endpoint.tls == "always"
    await loop.create_connection(
        lambda: connection,
        endpoint.host,
        endpoint.port,
        ssl=context if always else None,
        server_hostname=endpoint.host if always else None,
    )
    if endpoint.tls == "start":
        assert context is not None
        await connection.start_tls(context, endpoint.host)


def _reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate not accepted: {error.verify_message.rstrip('.')}"
    return error.strerror or str(error) or type(error).__name__
