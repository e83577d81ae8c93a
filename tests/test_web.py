"""The web server: right and hostile HTTP, and what each of its limits does."""

import asyncio
import gc
import re
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TypeVar

import pytest
import uvloop

from ldappolicy.config import Inet
from ldappolicy.errors import ConfigError
from ldappolicy.web import Limits, Page, Web

T = TypeVar("T")

PATIENCE = 180.0

FEW = Limits(connections=8, requests=5, head=PATIENCE, idle=PATIENCE, page=PATIENCE, send=PATIENCE)
"""Limits that a test can reach, but for times: a test has them where they are what it waits for."""

LARGE = b"x" * 16_000_000
"""More than a connection whose client does not read takes."""


async def _page() -> Page:
    return Page(200, "shown\n")


async def _unready() -> Page:
    return Page(503, "why\n")


async def _endless() -> Page:
    await asyncio.Event().wait()
    raise AssertionError


async def _bug() -> Page:
    raise LookupError("bug")


async def _large() -> Page:
    return Page(200, LARGE, "application/octet-stream")


PAGES = {"/page": _page, "/unready": _unready, "/endless": _endless, "/bug": _bug, "/large": _large}


def run(story: Coroutine[None, None, T]) -> T:
    """On the event loop that the program uses."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(story)


@asynccontextmanager
async def serving(limits: Limits = FEW) -> AsyncIterator[Web]:
    """A server with the pages above, on a port that was free."""
    web = Web(Inet("127.0.0.1", 0), PAGES, limits, ["mx1.example.com"])
    await web.start()
    try:
        yield web
    finally:
        await web.stop()


async def connect(web: Web) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A client."""
    return await asyncio.open_connection(web.address.host, web.address.port, limit=2**25)


async def answer_to(web: Web, data: bytes, *, ends: bool = True) -> bytes:
    """All that comes back for some octets, until the server closes; `ends`: no more is sent."""
    async with asyncio.timeout(PATIENCE):
        reader, writer = await connect(web)
        try:
            writer.write(data)
            if ends:
                writer.write_eof()
            return await reader.read()
        finally:
            writer.transport.abort()


async def until(condition: Callable[[], bool]) -> None:
    """Waits for something to come true."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110  # the server has no Event for it
            await asyncio.sleep(0.01)


def statuses(answers: bytes) -> list[int]:
    """The status codes, in their order."""
    return [int(code) for code in re.findall(rb"^HTTP/1\.1 ([0-9]{3}) ", answers, re.MULTILINE)]


HOST = b"Host: localhost\r\n\r\n"
GET = b"GET /page HTTP/1.1\r\n" + HOST

REQUESTS = [
    pytest.param(GET, [200], id="right"),
    pytest.param(GET.replace(b"GET", b"HEAD"), [200], id="HEAD"),
    pytest.param(b"GET /page HTTP/1.0\r\n\r\n", [200], id="1.0"),
    pytest.param(b"GET /page?name[]=x HTTP/1.1\r\n" + HOST, [200], id="a query"),
    pytest.param(b"GET http://127.0.0.1/page HTTP/1.1\r\n" + HOST, [200], id="the absolute form"),
    pytest.param(GET.replace(b"\r\n", b"\n"), [200], id="bare line feeds"),
    pytest.param(
        b"GET /page HTTP/1.1\r\nContent-Length: 0\r\n" + HOST, [200], id="no body, in so many words"
    ),
    pytest.param(GET * 3, [200] * 3, id="pipelined"),
    pytest.param(
        GET + b"GET /x HTTP/1.1\r\n" + HOST + GET, [200, 404, 200], id="one that is not there between"
    ),
    pytest.param(GET * 9, [200] * 5, id="too many"),
    pytest.param(b"GET /unready HTTP/1.1\r\n" + HOST, [503], id="a status of the page's own"),
    pytest.param(b"GET / HTTP/1.1\r\n" + HOST, [404], id="no such page"),
    pytest.param(b"GET //page HTTP/1.1\r\n" + HOST, [404], id="two slashes"),
    pytest.param(b"GET /page/../page HTTP/1.1\r\n" + HOST, [404], id="dots"),
    pytest.param(b"GET /pag%65 HTTP/1.1\r\n" + HOST, [404], id="an encoding"),
    pytest.param(b"OPTIONS * HTTP/1.1\r\n" + HOST, [404], id="options of the server"),
    pytest.param(b"DELETE /page HTTP/1.1\r\n" + HOST, [405], id="another method"),
    pytest.param(b"GET http://[b/page HTTP/1.1\r\n" + HOST, [400], id="no address"),
    pytest.param(b"POST /page HTTP/1.1\r\nContent-Length: 3\r\n" + HOST + b"abc", [413], id="a body"),
    pytest.param(
        b"GET /page HTTP/1.1\r\nTransfer-Encoding: chunked\r\n" + HOST + b"3\r\nabc\r\n0\r\n\r\n" + GET,
        [413],
        id="a body in chunks",
    ),
    pytest.param(
        b"GET /page HTTP/1.1\r\nContent-Length: 99\r\nTransfer-Encoding: chunked\r\n" + HOST + GET,
        [413],
        id="two lengths",
    ),
    pytest.param(
        b"GET /page HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n" + HOST + GET,
        [400],
        id="lengths that differ",
    ),
    pytest.param(
        b"HEAD /page HTTP/1.1\r\nContent-Length: 3\r\n" + HOST + b"abc", [413], id="HEAD with a body"
    ),
    pytest.param(b"HEAD /x HTTP/1.1\r\n" + HOST + GET, [404, 200], id="HEAD of nothing"),
    pytest.param(b"GET /page HTTP/1.1\r\nContent-Length: -1\r\n" + HOST, [400], id="no length"),
    pytest.param(
        b"GET /page HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 5\r\n" + HOST, [413], id="may I"
    ),
    pytest.param(b"GET /page HTTP/1.1\r\n\r\n", [400], id="no host"),
    pytest.param(b"GET /page HTTP/1.1\r\nHost: b\r\n" + HOST, [400], id="two hosts"),
    pytest.param(b"GET /page HTTP/1.1\r\nA: b\x00c\r\n" + HOST, [400], id="a NUL"),
    pytest.param(b"GET /page HTTP/1.1\r\nA : b\r\n" + HOST, [400], id="a space before the colon"),
    pytest.param(b"GET /p\xc3\xa4ge HTTP/1.1\r\n" + HOST, [400], id="a path that is not ASCII"),
    pytest.param(b"GET /page HTTP/3.7\r\n" + HOST, [505], id="another protocol version"),
    pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", [505], id="HTTP/2"),
    pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500), [400], id="TLS"),
    pytest.param(b"request=smtpd_access_policy\nsender=a@b\n\n", [400], id="a policy request"),
    pytest.param(b"GET /page HTTP/1.1\r\nHost: a\r\n", [400], id="cut off"),
    pytest.param(b"GET /page HTTP/1.1\r\nA: " + b"b" * 13_000 + b"\r\n" + HOST, [431], id="a long header"),
    pytest.param(b"GET /page HTTP/1.1\r\n" + b"A: b\r\n" * 3000 + HOST, [431], id="many headers"),
    pytest.param(b"GET /" + b"a" * 100_000, [431], id="an endless line"),
    pytest.param(b"", [], id="nothing"),
    pytest.param(b"GET /page HTTP/1.1\r\nHost: evil.example\r\n\r\n", [421], id="another host"),
    pytest.param(b"GET /page HTTP/1.1\r\nHost: localhost.evil.example:80\r\n\r\n", [421], id="ours in front"),
    pytest.param(b"GET /page HTTP/1.1\r\nHost: 127.0.0.1.evil.example\r\n\r\n", [421], id="no address"),
    pytest.param(b"GET /page HTTP/1.1\r\nHost: x@localhost\r\n\r\n", [200], id="somebody at ours"),
    pytest.param(b"GET /page HTTP/1.1\r\nHost: localhost@evil.example\r\n\r\n", [421], id="ours as somebody"),
    pytest.param(b"GET http://evil.example/page HTTP/1.1\r\n" + HOST, [421], id="a target elsewhere"),
    pytest.param(
        b"GET http://localhost/page HTTP/1.1\r\nHost: evil.example\r\n\r\n", [200], id="a target here"
    ),
    pytest.param(b"GET /page HTTP/1.1\r\nHost: \r\n\r\n", [400], id="an empty host"),
    pytest.param(b"GET /page HTTP/1.1\r\nHost: [::1\r\n\r\n", [400], id="no end of an address"),
    pytest.param(b"GET /page HTTP/1.1\r\nHost: [::1]:9414\r\n\r\n", [200], id="an IPv6 address"),
    pytest.param(b"GET /page HTTP/1.1\r\nHost: 192.0.2.1:9414\r\n\r\n", [200], id="an address"),
    pytest.param(b"GET /page HTTP/1.1\r\nHost: MX1.example.com.:9414\r\n\r\n", [200], id="a configured name"),
    pytest.param(b"GET /page HTTP/1.0\r\n\r\n", [200], id="HTTP/1.0 without a host"),
]


@pytest.mark.parametrize(("data", "expected"), REQUESTS)
def test_statuses(data: bytes, expected: list[int]) -> None:
    """Each request gets its answer, each answer its request; nothing is answered twice."""

    async def story() -> None:
        async with serving() as web:
            answers = await answer_to(web, data)
            assert expected == statuses(answers)
            await until(lambda: web.connections == 0)
            assert [200] == statuses(await answer_to(web, GET))

    run(story())


def test_cut_at_every_octet() -> None:
    """What comes in pieces is the same request."""

    async def story() -> None:
        async with serving() as web:
            for cut in range(1, len(GET)):
                reader, writer = await connect(web)
                writer.write(GET[:cut])
                await writer.drain()
                await asyncio.sleep(0)
                writer.write(GET[cut:])
                writer.write_eof()
                assert [200] == statuses(await reader.read())
                writer.close()

    run(story())


def test_answer() -> None:
    """Headers, a body of the length that they tell, and none for HEAD."""

    async def story() -> None:
        async with serving() as web:
            head, _, body = (await answer_to(web, GET)).partition(b"\r\n\r\n")
            assert body == b"shown\n"
            names = [line.partition(b":")[0].lower() for line in head.split(b"\r\n")[1:]]
            assert sorted(names) == [b"cache-control", b"content-length", b"content-type", b"date"]
            assert b"content-type: text/plain; charset=utf-8" in head.lower()
            only = await answer_to(web, GET.replace(b"GET", b"HEAD"))
            assert (b"content-length: 6" in only.lower(), only.endswith(b"\r\n\r\n")) == (True, True)
            refused = (await answer_to(web, GET.replace(b"GET", b"PUT"))).lower()
            assert b"\r\nallow: get, head\r\n" in refused

    run(story())


def test_connections_are_kept() -> None:
    """One after another on the same connection, without a pipeline; the last one that is allowed says so."""

    async def story() -> None:
        async with serving() as web:
            reader, writer = await connect(web)
            heads = []
            for _ in range(FEW.requests):
                writer.write(GET)
                heads.append(await reader.readuntil(b"\r\n\r\n"))
                assert await reader.readexactly(6) == b"shown\n"
            assert [b"connection: close" in head.lower() for head in heads] == [False] * 4 + [True]
            assert await reader.read() == b""
            writer.close()

    run(story())


@pytest.mark.servers
def test_slow_requests() -> None:
    """A request that comes in drops has its time; half a one gets 408, silence gets silence."""

    async def drip(web: Web) -> bytes:
        reader, writer = await connect(web)
        answer = asyncio.create_task(reader.read())
        for octet in b"GET /page HTTP/1.1\r\n" + b"A: b\r\n" * 1000:
            if answer.done() or writer.is_closing():
                break
            writer.write(bytes((octet,)))
            await asyncio.sleep(0.02)
        writer.close()
        return await answer

    async def story() -> None:
        limits = replace(FEW, head=1.0, idle=0.1)
        async with asyncio.timeout(PATIENCE), serving(limits) as web:
            dripped, silent, half, idle = await asyncio.gather(
                drip(web),
                answer_to(web, b"", ends=False),
                answer_to(web, b"GET /page HT", ends=False),
                answer_to(web, GET, ends=False),
            )
            assert [statuses(got) for got in (dripped, silent, half, idle)] == [[408], [], [408], [200]]
            await until(lambda: web.connections == 0)

    run(story())


def test_too_many_connections(caplog: pytest.LogCaptureFixture) -> None:
    """Whoever has waited longest makes room, without a word: idle clients in any number keep nobody out."""

    async def story() -> None:
        async with asyncio.timeout(PATIENCE), serving() as web:
            held = [await connect(web) for _ in range(FEW.connections)]
            await until(lambda: web.connections == FEW.connections)
            for reader, writer in held[1:]:
                writer.write(GET)
                await reader.readuntil(b"shown\n")
            assert [200] == statuses(await answer_to(web, GET))
            assert await held[0][0].read() == b""
            held += [await connect(web) for _ in range(50)]
            assert [200] == statuses(await answer_to(web, GET))
            await until(lambda: web.connections <= FEW.connections)
            for _, writer in held:
                writer.transport.abort()

    run(story())
    assert [] == caplog.records


def test_client_does_not_read() -> None:
    """An answer that is not taken in time is given up; one that is taken is whole."""

    async def story() -> None:
        large = GET.replace(b"/page", b"/large")
        async with asyncio.timeout(PATIENCE), serving(replace(FEW, send=0.3)) as web:
            reader, writer = await asyncio.open_connection(web.address.host, web.address.port, limit=1024)
            writer.write(large)
            await reader.readuntil(b"\r\n")
            await until(lambda: web.connections == 0)
            writer.transport.abort()
        async with asyncio.timeout(PATIENCE), serving() as web:
            answer = await answer_to(web, large)
            assert answer.endswith(b"\r\n\r\n" + LARGE)

    run(story())


def test_page_takes_too_long() -> None:
    """503 then, and the connection stays."""

    async def story() -> None:
        async with serving(replace(FEW, page=0.1)) as web:
            answers = await answer_to(web, GET.replace(b"/page", b"/endless") + GET)
            assert [503, 200] == statuses(answers)

    run(story())


def test_bug_in_a_page() -> None:
    """500, and the event loop is told; the others are served."""

    async def story() -> None:
        told: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context["exception"]))
        async with serving() as web:
            assert [500] == statuses(await answer_to(web, GET.replace(b"/page", b"/bug") + GET))
            assert [200] == statuses(await answer_to(web, GET))
            await until(lambda: web.connections == 0)
        gc.collect()  # Python 3.11.2, which Debian has, tells of it when the task is gone
        assert list(map(repr, told)) == ["LookupError('bug')"]

    run(story())


def test_refused_client_gets_its_answer() -> None:
    """Octets that nobody reads do not take the answer back (a reset would)."""

    async def story() -> None:
        async with serving() as web:
            data = b"POST /page HTTP/1.1\r\nContent-Length: 1000000\r\n" + HOST + bytes(1_000_000)
            for _ in range(5):
                assert [413] == statuses(await answer_to(web, data))

    run(story())


def test_stop() -> None:
    """What is open is closed, and the port is free for the next one."""

    async def story() -> None:
        async with asyncio.timeout(PATIENCE), serving() as web:
            reader, writer = await connect(web)
            await until(lambda: web.connections == 1)
            await web.stop()
            assert await reader.read() == b""
            writer.close()
            again = Web(web.address, PAGES)
            await again.start()
            assert [200] == statuses(await answer_to(again, GET))
            await again.stop()

    run(story())


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_cannot_listen(host: str) -> None:
    """An address that is taken is a mistake in the configuration."""

    async def story() -> str:
        async with serving() as web:
            with pytest.raises(ConfigError) as raised:
                await Web(Inet(host, web.address.port), PAGES).start()
            return str(raised.value).replace(str(web.address.port), "PORT")

    assert f"[web] listen: cannot listen on {host}:PORT: address already in use" == run(story())
