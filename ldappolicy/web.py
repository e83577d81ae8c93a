"""A small web server for metrics and health: GET and HEAD of a few pages, over HTTP/1.1 (RFC 9112) by h11.

It knows nothing of policies: a page is a function that makes one. Whoever asks is a machine that wants an
answer at once, so everything has a limit: the size of what comes before the answer, the time that it takes,
the time that the answer takes, the requests of a connection, and the connections, of which those that have
waited longest make room for new ones. A request with a body is none that is meant for here.

No authentication and no TLS: whoever can reach the address may read the pages. Somebody else's page in a
browser may not: a name of theirs that has come to mean our address (DNS rebinding) is none of ours. The only
importer of h11.
"""

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus
from urllib.parse import urlsplit

import h11

from ldappolicy.address import is_host_address
from ldappolicy.config import Inet
from ldappolicy.errors import ConfigError

LINGER_SECONDS = 1.0
"""How long the rest of what is refused is read and dropped, so that the answer arrives."""

READ_OCTETS = 4096


@dataclass(frozen=True, slots=True)
class Limits:
    """How much, and for how long (seconds)."""

    connections: int = 64
    """Prometheus, a few probes, and somebody who looks."""
    requests: int = 1000
    """On one connection."""
    head_octets: int = 8192
    """Of a request line and its headers; nginx has as much for one line (large_client_header_buffers)."""
    head: float = 5.0
    """From the first octet of a request to the end of its head."""
    idle: float = 30.0
    """Between two requests of a connection: Prometheus asks every 15 s by default, or every minute."""
    page: float = 5.0
    """For making a page; Prometheus waits 10 s by default."""
    send: float = 10.0
    """For a client to take its answer."""


@dataclass(frozen=True, slots=True)
class Page:
    """What is shown, with its status."""

    status: int
    body: str | bytes
    content_type: str = "text/plain; charset=utf-8"


Pages = Mapping[str, Callable[[], Awaitable[Page]]]

DEFAULT = Limits()


class _Refused(Exception):
    """A request that gets this answer, and none after it on its connection."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.page = _page_of(HTTPStatus(status))


class Web:
    """Serves `pages` by their paths on `listen`; `address` is where, once it was started.

    `hosts` are names, folded, under which they may be asked for, besides addresses, localhost and that of
    `listen`.
    """

    def __init__(
        self, listen: Inet, pages: Pages, limits: Limits = DEFAULT, hosts: Collection[str] = ()
    ) -> None:
        self.address = listen
        self._pages = pages
        self._hosts = frozenset((*hosts, listen.host.casefold(), "localhost"))
        self._limits = limits
        self._server: asyncio.Server | None = None
        self._open: dict[asyncio.Task[None], _Visit] = {}

    async def start(self) -> None:
        """Listens; raises ConfigError when it cannot."""
        try:
            self._server = await asyncio.start_server(
                self._visited, self.address.host, self.address.port, limit=READ_OCTETS
            )
        except OSError as error:
            is_name = error.errno is None or isinstance(error, socket.gaierror)
            reason = (error.strerror if is_name else os.strerror(error.errno or 0)) or str(error)
            where = str(self.address).removeprefix("inet:")
            raise ConfigError(f"[web] listen: cannot listen on {where}: {reason.lower()}") from error
        self.address = Inet(*self._server.sockets[0].getsockname()[:2])

    @property
    def connections(self) -> int:
        """How many clients are connected."""
        return len(self._open)

    async def stop(self) -> None:
        """Accepts no more and closes what is open."""
        if self._server is not None:
            self._server.close()
        tasks = list(self._open)
        self._open.clear()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _visited(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if len(self._open) >= self._limits.connections:
            self._make_room()
        self._open[task] = visit = _Visit(reader, writer, self._pages, self._limits, self._hosts)
        try:
            await visit.run()
            writer.close()
        except asyncio.CancelledError:
            # Ended by us, which is no error: the streams of Python 3.11 would log one.
            if task in self._open:
                raise
        finally:
            self._open.pop(task, None)
            if not writer.is_closing():
                writer.transport.abort()

    def _make_room(self) -> None:
        """Ends the connection that has waited longest for its client."""
        oldest = min(self._open, key=lambda task: self._open[task].waits_since)
        del self._open[oldest]
        oldest.cancel()


class _Visit:
    """One connection; `waits_since` is when its last answer began, on the event loop's clock."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        pages: Pages,
        limits: Limits,
        hosts: Collection[str],
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._pages = pages
        self._limits = limits
        self._hosts = hosts
        self._clock = asyncio.get_running_loop().time
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=limits.head_octets)
        self._answered = 0
        self._shows_body = True
        self.waits_since = self._clock()
        writer.transport.set_write_buffer_limits(high=0)  # drain() waits until the client has all

    async def run(self) -> None:
        """Until either side has had enough; raises nothing but for a bug in a page."""
        try:
            while self._answered < self._limits.requests and (request := await self._request()) is not None:
                await self._answer(await self._page(request))
                if self._http.our_state is not h11.DONE:
                    return
                self._http.start_next_cycle()
        except _Refused as refused:
            await self._refuse(refused.page)
        except OSError:  # the client left, or does not take its answer
            self._writer.transport.abort()

    async def _request(self) -> h11.Request | None:
        """The next request, whole; None: there is none to come."""
        began = self._http.trailing_data[0] != b"" or not self._answered
        found: h11.Request | None = None
        self._shows_body = True
        try:
            async with asyncio.timeout(self._limits.head if began else self._limits.idle) as patience:
                while True:
                    match event := self._http.next_event():
                        case h11.Request():
                            self._shows_body = event.method != b"HEAD"
                            found = _acceptable(event, self._hosts)
                        case h11.EndOfMessage():
                            return found
                        case h11.ConnectionClosed():
                            return None
                        case _:
                            self._http.receive_data(await self._reader.read(READ_OCTETS))
                            if not began:
                                began = True
                                patience.reschedule(self._clock() + self._limits.head)
        except TimeoutError:
            if began and self._http.trailing_data[0]:
                raise _Refused(HTTPStatus.REQUEST_TIMEOUT) from None
            return None
        except h11.RemoteProtocolError as error:
            raise _Refused(error.error_status_hint) from None

    async def _page(self, request: h11.Request) -> Page:
        self.waits_since = self._clock()
        try:
            page = self._pages.get(urlsplit(request.target.decode("ascii")).path)
        except ValueError:
            raise _Refused(HTTPStatus.BAD_REQUEST) from None
        if page is None:
            return _page_of(HTTPStatus.NOT_FOUND)
        if request.method not in (b"GET", b"HEAD"):
            return _page_of(HTTPStatus.METHOD_NOT_ALLOWED)
        try:
            async with asyncio.timeout(self._limits.page):
                return await page()
        except TimeoutError:
            return _page_of(HTTPStatus.SERVICE_UNAVAILABLE)
        except Exception:
            await self._refuse(_page_of(HTTPStatus.INTERNAL_SERVER_ERROR))
            raise

    async def _refuse(self, page: Page) -> None:
        """Answers, and reads on for a while: with octets unread, close(2) would take the answer back."""
        try:
            await self._answer(page, is_last=True)
            self._writer.write_eof()
            async with asyncio.timeout(LINGER_SECONDS):
                while await self._reader.read(READ_OCTETS):
                    pass
        except (OSError, h11.LocalProtocolError):
            self._writer.transport.abort()

    async def _answer(self, page: Page, *, is_last: bool = False) -> None:
        self._answered += 1
        body = page.body.encode() if isinstance(page.body, str) else page.body
        headers = [
            ("Date", formatdate(usegmt=True)),
            ("Content-Type", page.content_type),
            ("Content-Length", str(len(body))),
            ("Cache-Control", "no-store"),
        ]
        headers += [("Allow", "GET, HEAD")] if page.status == HTTPStatus.METHOD_NOT_ALLOWED else []
        headers += [("Connection", "close")] if is_last or self._answered == self._limits.requests else []
        reason = HTTPStatus(page.status).phrase
        parts = (
            h11.Response(status_code=page.status, headers=headers, reason=reason),
            h11.Data(data=body if self._shows_body else b""),
            h11.EndOfMessage(),
        )
        self._writer.write(b"".join(self._http.send(part) or b"" for part in parts))
        async with asyncio.timeout(self._limits.send):
            await self._writer.drain()


def _page_of(status: HTTPStatus) -> Page:
    return Page(status, f"{status.phrase.lower()}\n")


def _acceptable(request: h11.Request, hosts: Collection[str]) -> h11.Request:
    """The request; what comes with a body, or for another host, is refused before it is read."""
    if request.http_version not in (b"1.0", b"1.1"):
        raise _Refused(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED)
    for name, value in request.headers:
        if name == b"transfer-encoding" or (name == b"content-length" and value.strip(b"0")):
            raise _Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
    host = _host_of(request)
    if host is not None and not (host in hosts or is_host_address(host)):
        raise _Refused(HTTPStatus.MISDIRECTED_REQUEST)
    return request


def _host_of(request: h11.Request) -> str | None:
    """The host that is asked for, folded, without its port: a target that has one goes before the header's.

    RFC 9112 section 3.2.2. None: an HTTP/1.0 client says none.
    """
    try:
        target = urlsplit(request.target.decode("ascii"))
        said = [value.decode("ascii") for name, value in request.headers if name == b"host"]
        host = target.hostname if target.scheme else urlsplit(f"//{said[0]}").hostname if said else None
    except ValueError:
        raise _Refused(HTTPStatus.BAD_REQUEST) from None
    if host is None and (said or target.scheme):
        raise _Refused(HTTPStatus.BAD_REQUEST)
    return host.casefold().removesuffix(".") if host is not None else None
