"""One connection to one LDAP server: many searches at a time, each with a deadline.

RFC 4511 lets a client send requests without waiting for answers; each answer carries the number of
its request. Here at most 64 are in flight, and more wait for their turn (slapd closes a connection with
more than olcConnMaxPending, 100, requests waiting). A search that is given up is abandoned, so that
the server may stop working on it; two in a row without a word from the server end the connection.

Nothing is half believed: referrals, limits, and a connection that breaks in the middle of an answer
make the search unavailable, whatever has come of it. `Dropped` says that nothing had. Active Directory
is told to leave out its references to other domains and partitions, which are not below any of its bases.

`scan` reads many entries in pages, and the values that Active Directory sends in ranges; `listen` hands over
what a search without an end brings (RFC 4533 and its kin). A listener that does not keep up stops the
reading, for everything else on its connection too: streams have connections of their own.

Opening (TCP or socket file, TLS, bind) has one deadline for all of it, and the bind comes after the
server's certificate was verified. Which server is asked, and when again, is the parent's business.

BUGS: an idle connection that a firewall forgot is noticed by the search that it fails. A message is decoded
in one piece: one entry with 50,000 values keeps the event loop for 20 ms.
"""

import asyncio
import math
import re
import ssl
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import ExitStack, aclosing
from functools import partial
from typing import Protocol, cast

from ldappolicy.counters import Counters
from ldappolicy.directory import Features, Scope, Search
from ldappolicy.directory.attribute_types import exact_in
from ldappolicy.directory.ldap import codec, family, gssapi, requests
from ldappolicy.directory.ldap.refusals import INVALID_CREDENTIALS, Refusals, RefusedSecret, in_words
from ldappolicy.directory.ldap.settings import Endpoint, LdapSettings, credentials
from ldappolicy.directory.ldap.slow import SLOW_S
from ldappolicy.entry import Entry
from ldappolicy.errors import InputError, LimitExceeded, Unavailable
from ldappolicy.ldap_filter import Present

MAX_IN_FLIGHT = 64
MAX_MESSAGE = 16 * 1024 * 1024  # slapd's own limit for what it reads, sockbuf_max_incoming_auth, is 4 MiB
MAX_TIMEOUTS = 2
MAX_NUMBER = 2**31 - 1  # RFC 4511 section 4.1.1.1

MAX_WAITING = 1024 * 1024
"""Octets of messages that wait for a listener; beyond, nothing is read."""

MAX_WAITING_ASKED = 4 * MAX_MESSAGE
"""The same while somebody waits for the answer to a search."""

BATCH = 256
"""Messages that are decoded before others have a turn in the event loop."""

PAGE = 250
"""Entries in a page of a scan; Active Directory allows 1000 (MaxPageSize), slapd's default limit is 500."""

PAGE_SECONDS = 10.0
"""Time for a page at least: nobody waits for it, and a busy server takes longer than for a lookup."""

TIMEOUT, UNAVAILABLE = "timeout", "unavailable"
"""Outcomes of searches that are counted besides the names of result codes."""

CLOSING = 1.0
"""Seconds for a goodbye; a server that does not take it is left without."""


class Dropped(Unavailable):
    """The connection ended before a byte of the answer had come: asking again is safe."""


_RANGE = re.compile(r"(?P<name>.+);range=[0-9]+-(?P<last>[0-9]{1,10}|\*)", re.IGNORECASE)
_SUBSCHEMA = Present("objectClass")
_FEATURES = ("supportedControl", "supportedFeatures", "subschemaSubentry", *family.ATTRIBUTES)


class _Waiter(Protocol):
    """Who waits for the messages that answer one request; `begun` when one has come."""

    begun: bool

    def take(self, body: codec.Body | None, size: int) -> bool:
        """One of them, of so many octets; whether it was the last."""
        ...

    def fail(self, error: Unavailable) -> None:
        """There will be no more."""
        ...


class _Operation:
    """A request that waits for all of its answer."""

    __slots__ = ("begun", "bodies", "done", "uri")

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self.done: asyncio.Future[codec.Result] = asyncio.get_running_loop().create_future()
        self.bodies: list[codec.EntryBody] = []
        self.begun = False

    def take(self, body: codec.Body | None, size: int) -> bool:
        self.begun = True
        match body:
            case codec.Result() if not self.done.done():
                self.done.set_result(body)
                return True
            case codec.Reference():
                self.fail(Unavailable(f"{self.uri}: refers to another server"))
            case codec.EntryBody():
                self.bodies.append(body)
        return False

    def fail(self, error: Unavailable) -> None:
        if not self.done.done():
            self.done.set_exception(error)


class _Listener:
    """A request whose answer is handed over as it comes; `waiting` are the octets of what was not yet."""

    __slots__ = ("_changed", "begun", "bodies", "error", "waiting")

    def __init__(self) -> None:
        self.bodies: list[codec.Body] = []
        self.begun = False
        self.error: Unavailable | None = None
        self.waiting = 0
        self._changed = asyncio.Event()

    def take(self, body: codec.Body | None, size: int) -> bool:
        self.begun = True
        if body is not None:
            self.bodies.append(body)
            self.waiting += size
            self._changed.set()
        return isinstance(body, codec.Result)

    def fail(self, error: Unavailable) -> None:
        self.error = self.error or error
        self._changed.set()

    async def some(self) -> list[codec.Body]:
        """At least one; what has come before the end is handed over before the end is told."""
        while not self.bodies:
            if self.error is not None:
                raise self.error
            self._changed.clear()
            await self._changed.wait()
        bodies, self.bodies, self.waiting = self.bodies, [], 0
        return bodies


class Connection(asyncio.Protocol):
    """Made by `connect`; `ended` is the reason why it cannot be used any more, or empty."""

    def __init__(self, uri: str, timeout: float, counters: Counters | None = None) -> None:
        self.uri = uri
        self.timeout = timeout
        self.counters = counters or Counters()
        self.ended = ""
        self.features = Features()
        self._exact: frozenset[tuple[str, str]] | None = None
        self.on_fault: Callable[[str], None] | None = None
        self.on_slow: Callable[[Search, float], None] | None = None
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._number = 0
        self._messages = 0
        self._timeouts = 0
        self._pending: dict[int, _Waiter] = {}
        self._listeners: set[_Listener] = set()
        self._is_paused = False
        self._turns = asyncio.Semaphore(MAX_IN_FLIGHT)
        self._lost = asyncio.Event()

    async def search(self, search: Search) -> list[Entry]:
        """All the entries; the timeout covers the wait for a turn and the whole answer."""
        result, bodies = await self.answer(search)
        if result.code == codec.NO_SUCH_OBJECT and search.scope == Scope.BASE:
            return []
        self._check(search, result)
        return [self._entry(body) for body in bodies]

    async def answer(
        self, search: Search, controls: Sequence[requests.Control] = (), at_least: float = 0.0
    ) -> tuple[codec.Result, list[codec.EntryBody]]:
        """What a search brings: its result, whatever the code, and the entries that came before it.

        It has the timeout, but `at_least` so many seconds.
        """
        asked = [*controls, *self._own_controls(search)]
        seconds = max(self.timeout, at_least)
        # Whole seconds that servers count from the last full one: ours is the deadline that is exact.
        limit = math.ceil(seconds) + 1
        request = partial(requests.search_request, search=search, time_limit=limit, controls=asked)
        clock = asyncio.get_running_loop().time
        sent, outcome, began, turn = False, UNAVAILABLE, time.monotonic(), clock()
        try:
            async with asyncio.timeout(seconds), self._turns:
                sent, turn = True, clock()
                answer = await self._ask(request)
            outcome = answer[0].name
            return answer
        except TimeoutError:
            outcome = TIMEOUT
            self._timed_out(sent)
            raise Unavailable(f"{self.uri}: no answer within {seconds:g} s") from None
        finally:
            self.counters.searches[outcome].add()
            self.counters.search_durations.observe(time.monotonic() - began)
            if sent and not at_least and (took := clock() - turn) >= SLOW_S and self.on_slow is not None:
                self.on_slow(search, took)

    async def scan(self, search: Search) -> AsyncGenerator[list[Entry], None]:
        """All the entries in pages, every value of each; each page has the timeout, or PAGE_SECONDS."""
        is_paged = requests.PAGED_RESULTS in self.features.controls
        pages = self._pages(search) if is_paged else self._parts(search)
        async with aclosing(pages):
            async for bodies in pages:
                if bodies:
                    yield [self._entry(await self.whole(body)) for body in bodies]

    async def whole(self, body: codec.EntryBody) -> codec.EntryBody:
        """Every value: what came as `member;range=0-1499` is asked for to its end (MS-ADTS 3.1.1.3.1.3.3)."""
        if not any(";range=" in name.lower() for name in body.attributes):
            return body
        attributes: dict[str, list[str]] = {}
        for described, values in body.attributes.items():
            found = _RANGE.fullmatch(described)
            name = found["name"] if found else described
            attributes[name] = attributes.get(name, []) + values
            if found and found["last"] != "*":
                attributes[name] += await self._rest(body.dn, name, int(found["last"]) + 1)
        return codec.EntryBody(body.dn, attributes, body.controls)

    async def listen(
        self, search: Search, controls: Sequence[requests.Control] = ()
    ) -> AsyncGenerator[codec.Body, None]:
        """What a search brings as it comes, without a deadline; the last is its `Result`, whatever the code.

        Raises Unavailable when the connection ends. Close the iterator (`contextlib.aclosing`) to abandon
        the search.
        """
        async with aclosing(self._heard(search, controls)) as batches:
            async for bodies in batches:
                for body in bodies:
                    yield body

    async def probe(self) -> None:
        """Whether the server still answers, within the timeout: raises Unavailable."""
        await self.search(Search("", Scope.BASE, Present("objectClass"), ("1.1",)))

    async def read_features(self) -> Features:
        """What the server says of itself; `features` from then on."""
        entries = await self.search(Search("", Scope.BASE, Present("objectClass"), _FEATURES))
        root = {name.lower(): values for entry in entries for name, values in entry.items()}
        controls, capabilities, features = (
            frozenset(root.get(name, ()))
            for name in ("supportedcontrol", "supportedcapabilities", "supportedfeatures")
        )
        profile = family.profile_of(root)
        if self._exact is None and profile != "active_directory":
            self._exact = await self._read_exact(root.get("subschemasubentry", ()))
        self.features = Features(controls, capabilities | features, profile, self._exact or frozenset())
        return self.features

    async def _read_exact(self, subschemas: Sequence[str]) -> frozenset[tuple[str, str]]:
        """See `Features.exact`; none where the schema may not be read."""
        found: list[str] = []
        for dn in subschemas[:1]:
            try:
                entries = await self.search(Search(dn, Scope.BASE, _SUBSCHEMA, ("attributeTypes",)))
            except Unavailable:
                if self.ended:
                    raise
                continue
            found += (text for entry in entries for text in entry.values("attributeTypes"))
        return exact_in(found)

    async def start_tls(self, context: ssl.SSLContext, host: str) -> None:
        """From clear text to TLS, RFC 4511 section 4.14."""
        said = self._messages
        result, _ = await self._ask(requests.start_tls)
        if result.code != codec.SUCCESS:
            raise Unavailable(f"{self.uri}: StartTLS: {result}")
        if self.ended or self._transport is None:
            raise Unavailable(f"{self.uri}: {self.ended or 'connection lost'}")
        if self._buffer or self._messages != said + 1:
            # What was sent before TLS must not be read as if it had come through TLS.
            raise Unavailable(f"{self.uri}: StartTLS: more than an answer in clear text")
        loop = asyncio.get_running_loop()
        self._transport = await loop.start_tls(self._transport, self, context, server_hostname=host)

    async def bind(self, settings: LdapSettings, password: bytes = b"", host: str = "") -> None:
        """Say who we are, if the settings want it; `host` as the URI has it.

        Raises RefusedSecret, and Unavailable for any other reason.
        """
        if settings.bind == "none":
            return
        if settings.bind == "gssapi":
            result = await self._bind_gssapi(settings, host)
        elif settings.bind == "simple":
            request = partial(requests.simple_bind, dn=settings.bind_dn, password=password)
            result, _ = await self._ask(request)
        else:
            result = await self._sasl_step("EXTERNAL", b"")
        if result.code != codec.SUCCESS:
            kind = RefusedSecret if result.code == INVALID_CREDENTIALS else Unavailable
            raise kind(f"{self.uri}: {settings.bind} bind {settings.bind_dn!r}: {in_words(result)}")

    async def _bind_gssapi(self, settings: LdapSettings, host: str) -> codec.Result:
        step = partial(self._sasl_step, "GSSAPI")
        try:
            login = gssapi.Login(host, self._certificate(), settings.bind_dn, settings.timeout)
            return await gssapi.authenticate(step, login)
        except gssapi.Refused as error:
            kind = RefusedSecret if error.is_for_key else Unavailable
            raise kind(f"{self.uri}: gssapi bind {settings.bind_dn!r}: {error}") from error

    async def _sasl_step(self, mechanism: str, credentials: bytes) -> codec.Result:
        result, _ = await self._ask(partial(requests.sasl_bind, mechanism=mechanism, credentials=credentials))
        return result

    def _certificate(self) -> bytes:
        """The server's certificate in DER; empty without TLS."""
        tls = self._transport.get_extra_info("ssl_object") if self._transport else None
        return (tls.getpeercert(binary_form=True) if tls else None) or b""

    async def close(self) -> None:
        """Say goodbye and let go; what is in flight becomes unavailable."""
        transport = self._transport
        if transport is None:
            return
        if not self.ended:
            transport.write(requests.unbind(self._next_number()))
        self._end("closed", retry=False, leave=transport.close)
        try:
            async with asyncio.timeout(CLOSING):
                await self._lost.wait()
        except TimeoutError:
            transport.abort()

    def abort(self, reason: str = "given up") -> None:
        """Let go without a goodbye; whatever listens is told the reason."""
        self._end(reason, retry=False)

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Part of asyncio.Protocol."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Part of asyncio.Protocol."""
        self._buffer += data
        if not self._is_paused:
            self._read()

    def connection_lost(self, exc: Exception | None) -> None:
        """Part of asyncio.Protocol."""
        self._end(f"connection lost{': ' if exc else ''}{exc or ''}", retry=not self._buffer)
        self._lost.set()

    # Messages.

    def _own_controls(self, search: Search) -> list[requests.Control]:
        controls = []
        if search.values and self.features.has_matched_values:
            controls.append(requests.matched_values(search.values))
        if search.rights_of:
            controls.append(requests.effective_rights(search.rights_of))
        if self.features.is_active_directory:
            controls.append(requests.Control(requests.DOMAIN_SCOPE))
        return controls

    async def _pages(self, search: Search) -> AsyncGenerator[list[codec.EntryBody], None]:
        cookie = b""
        while True:
            result, bodies = await self.answer(search, [requests.paged_results(PAGE, cookie)], PAGE_SECONDS)
            self._check(search, result)
            yield bodies
            try:
                cookie = codec.page_cookie(result)
            except codec.Garbage as error:
                raise Unavailable(f"{self.uri}: paged results: {error}") from error
            if not cookie:
                return

    async def _parts(self, search: Search) -> AsyncGenerator[list[codec.EntryBody], None]:
        """The same of a server that knows no pages; the timeout is for each part that comes."""
        seconds = max(self.timeout, PAGE_SECONDS)
        async with aclosing(self._heard(search, self._own_controls(search))) as batches:
            while True:
                try:
                    async with asyncio.timeout(seconds):
                        bodies = await anext(batches)
                except TimeoutError:
                    raise Unavailable(f"{self.uri}: no answer within {seconds:g} s") from None
                if any(isinstance(body, codec.Reference) for body in bodies):
                    raise Unavailable(f"{self.uri}: refers to another server")
                yield [body for body in bodies if isinstance(body, codec.EntryBody)]
                if isinstance(bodies[-1], codec.Result):
                    self._check(search, bodies[-1])
                    return

    async def _heard(
        self, search: Search, controls: Sequence[requests.Control]
    ) -> AsyncGenerator[list[codec.Body], None]:
        """What comes, in batches small enough to leave others their turn; the last ends in a Result."""
        listener = _Listener()
        request = partial(requests.search_request, search=search, time_limit=0, controls=controls)
        number = self._send(request, listener)
        self._listeners.add(listener)
        try:
            while True:
                bodies = await listener.some()
                for start in range(0, len(bodies), BATCH):
                    yield bodies[start : start + BATCH]
                    await asyncio.sleep(0)
                if isinstance(bodies[-1], codec.Result):
                    return
                self._read_on()
        finally:
            self._listeners.discard(listener)
            self._abandon(number)
            self._read_on()

    async def _rest(self, dn: str, name: str, first: int) -> list[str]:
        values: list[str] = []
        while True:
            asked = Search(dn, Scope.BASE, Present("objectClass"), (f"{name};range={first}-*",))
            result, bodies = await self.answer(asked)
            self._check(asked, result)
            described = [
                found for body in bodies for found in map(_RANGE.fullmatch, body.attributes) if found
            ]
            if len(described) != 1 or described[0]["name"].lower() != name.lower():
                raise Unavailable(
                    f"{self.uri}: {dn!r}: expected {asked.attributes[0]!r}, it changed meanwhile"
                )
            came = bodies[0].attributes[described[0].string]
            values += came
            if described[0]["last"] == "*":
                return values
            if not came or int(described[0]["last"]) < first:
                raise Unavailable(f"{self.uri}: {dn!r}: expected more than {described[0].string!r}")
            first = int(described[0]["last"]) + 1

    def _check(self, search: Search, result: codec.Result) -> None:
        is_enough = search.limit > 0 and result.code == codec.SIZE_LIMIT_EXCEEDED
        if result.code != codec.SUCCESS and not is_enough:
            kind = LimitExceeded if result.code in codec.LIMITS else Unavailable
            raise kind(f"{self.uri}: search at {search.base!r}: {result}")

    def _entry(self, body: codec.EntryBody) -> Entry:
        for name in body.attributes:
            if ";range=" in name.lower():  # Active Directory sends large groups in pieces
                raise Unavailable(f"{self.uri}: {body.dn!r}: only a part of it: {name!r}")
        try:
            return Entry(body.dn, body.attributes)
        except InputError as error:
            raise Unavailable(f"{self.uri}: {error}") from error

    async def _ask(self, encode: Callable[[int], bytes]) -> tuple[codec.Result, list[codec.EntryBody]]:
        operation = _Operation(self.uri)
        number = self._send(encode, operation)
        self._read_on()  # it may be the listener that asks: what it left waiting must not hide the answer
        try:
            return await operation.done, operation.bodies
        finally:
            self._abandon(number)

    def _send(self, encode: Callable[[int], bytes], waiter: _Waiter) -> int:
        number = self._next_number()
        octets = encode(number)
        if self.ended or self._transport is None or self._transport.is_closing():
            raise Dropped(f"{self.uri}: {self.ended or 'connection lost'}")
        self._pending[number] = waiter
        self._transport.write(octets)
        return number

    def _abandon(self, number: int) -> None:
        """Unless it is over already."""
        if self._pending.pop(number, None) is not None and not self._is_over:
            assert self._transport is not None
            self._transport.write(requests.abandon(self._next_number(), number))

    def _next_number(self) -> int:
        self._number = self._number % MAX_NUMBER + 1
        return self._number

    def _read(self) -> None:
        """Take some of the messages that have come; the rest when others have had their turn."""
        try:
            for _ in range(BATCH):
                if self.ended or not (message := self._next_message()):
                    break
                self._take(*codec.decode(message), len(message))
            else:
                self._pause()
                asyncio.get_running_loop().call_soon(self._read_on)
                return
        except codec.Garbage as error:
            self._end(f"not an LDAP message: {error}", retry=False, fault=True)
        if self._is_behind:
            self._pause()

    @property
    def is_paused(self) -> bool:
        """Whether nothing is read just now, since a listener does not keep up."""
        return self._is_paused

    @property
    def _is_behind(self) -> bool:
        is_asked = any(isinstance(waiter, _Operation) for waiter in self._pending.values())
        most = MAX_WAITING_ASKED if is_asked else MAX_WAITING
        return any(listener.waiting > most for listener in self._listeners)

    @property
    def _is_over(self) -> bool:
        return bool(self.ended) or self._transport is None or self._transport.is_closing()

    def _pause(self) -> None:
        if not (self._is_paused or self._is_over):
            self._is_paused = True
            cast("asyncio.Transport", self._transport).pause_reading()

    def _read_on(self) -> None:
        if not self._is_paused or self._is_over or self._is_behind:
            return
        self._is_paused = False
        cast("asyncio.Transport", self._transport).resume_reading()
        self._read()

    def _next_message(self) -> bytes:
        """The message at the head of the buffer, empty while it is not complete."""
        size = codec.message_size(self._buffer)
        if size > MAX_MESSAGE:
            raise codec.Garbage(f"{size} bytes, more than {MAX_MESSAGE}")
        if not 0 < size <= len(self._buffer):
            return b""
        message = bytes(self._buffer[:size])
        del self._buffer[:size]
        return message

    def _take(self, number: int, body: codec.Body | None, size: int) -> None:
        self._messages += 1
        self._timeouts = 0
        if number == 0:  # RFC 4511 section 4.4: unsolicited; others than the notice are to be ignored
            if isinstance(body, codec.Result) and body.is_notice:
                self._end(f"notice of disconnection: {body}", retry=True)
            return
        waiter = self._pending.get(number)  # None: the answer to what was abandoned
        if waiter is not None and waiter.take(body, size):
            del self._pending[number]

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
        for waiter in self._pending.values():
            kind = Dropped if retry and not waiter.begun else Unavailable
            waiter.fail(kind(f"{self.uri}: {reason}"))
        self._pending.clear()
        self._buffer.clear()
        if self._transport is not None:
            (leave or self._transport.abort)()
        if fault and self.on_fault is not None:
            self.on_fault(f"{self.uri}: {reason}")


async def connect(
    endpoint: Endpoint,
    settings: LdapSettings,
    context: ssl.SSLContext | None,
    counters: Counters | None = None,
    refusals: Refusals | None = None,
) -> Connection:
    """A connection that is bound, or Unavailable, within the settings' timeout.

    Raises `refusals.Withheld` where the password or key was refused of late: the server is left alone.
    """
    connection = Connection(endpoint.uri, settings.timeout, counters)
    with ExitStack() as unfinished:
        unfinished.callback(connection.abort)
        try:
            async with asyncio.timeout(settings.timeout):
                await _open(connection, endpoint, settings, context, refusals or Refusals())
        except TimeoutError:
            raise Unavailable(f"{endpoint.uri}: no connection within {settings.timeout:g} s") from None
        except OSError as error:
            raise Unavailable(f"{endpoint.uri}: {_reason(error)}") from error
        unfinished.pop_all()
    return connection


async def _open(
    connection: Connection,
    endpoint: Endpoint,
    settings: LdapSettings,
    context: ssl.SSLContext | None,
    refusals: Refusals,
) -> None:
    shown = credentials(settings)
    secret = settings.bind_dn.encode() + b"\0" + shown
    refusals.check(endpoint.uri, secret)
    await _reach(connection, endpoint, context)
    if settings.bind not in ("simple", "gssapi"):
        await connection.bind(settings)
        return
    async with refusals.turn(endpoint.uri, secret):
        await connection.bind(settings, shown, endpoint.host)


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
