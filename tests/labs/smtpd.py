"""Many smtpd processes of Postfix, as a policy server sees them: one connection each, one request at a time.

A connection that ends before its reply is replaced, and the request asked again, at most
smtpd_policy_service_try_limit (2) times; that is what attr_clnt(3) and auto_clnt(3) of Postfix do, but for
the delay between the tries, which would only make it easier for the server.

    async with Crowd(addresses, cases, 50) as crowd:
        ... whatever is done to the server ...
    assert ([], 0) == (crowd.wrong, crowd.unanswered)
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import Self

TRY_LIMIT = 2
DEADLINE = 180.0

PAUSE = 0.01
"""Seconds between a reply and the next request of a connection: the machine is for the server, too."""

Address = tuple[str, int] | str
Case = tuple[bytes, bytes]
"""A request, and the only reply that is right; both as they are on the wire."""


class _Smtpd:
    """One process: its connection, if it has one."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self.closed = 0

    async def ask(self, request: bytes) -> bytes | None:
        """The reply; None when the tries are used up."""
        for _ in range(TRY_LIMIT):
            with suppress(OSError, asyncio.IncompleteReadError):
                return await self._try(request)
            self.close()
            self.closed += 1
        return None

    async def _try(self, request: bytes) -> bytes:
        if self._streams is None:
            if isinstance(self._address, str):
                self._streams = await asyncio.open_unix_connection(self._address)
            else:
                self._streams = await asyncio.open_connection(*self._address)
        reader, writer = self._streams
        writer.write(request)
        async with asyncio.timeout(DEADLINE):
            reply = await reader.readuntil(b"\n\n")
        assert not reader.at_eof() or reply
        return reply

    def close(self) -> None:
        """Ends the connection."""
        if self._streams is not None:
            self._streams[1].transport.abort()
            self._streams = None


class Crowd:
    """So many of them, which ask one request after the other while the context lasts."""

    def __init__(self, addresses: Sequence[Address], cases: Sequence[Case], count: int) -> None:
        self._smtpds = [_Smtpd(addresses[number % len(addresses)]) for number in range(count)]
        self._cases = cases
        self._tasks: list[asyncio.Task[None]] = []
        self._is_over = False
        self._more = asyncio.Event()
        self.answered = 0
        self.unanswered = 0
        self.wrong: list[tuple[bytes, bytes, bytes]] = []

    @property
    def closed(self) -> int:
        """Connections that ended before a reply."""
        return sum(smtpd.closed for smtpd in self._smtpds)

    async def answers(self, more: int) -> None:
        """Waits for so many more answers."""
        wanted = self.answered + more
        async with asyncio.timeout(DEADLINE):
            while self.answered + self.unanswered < wanted:
                self._more.clear()
                await self._more.wait()

    async def __aenter__(self) -> Self:
        self._tasks = [
            asyncio.create_task(self._go_on(smtpd, number)) for number, smtpd in enumerate(self._smtpds)
        ]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_over = True
        if error is not None:
            for task in self._tasks:
                task.cancel()
        await asyncio.wait(self._tasks)
        for smtpd in self._smtpds:
            smtpd.close()
        if error is None:
            for task in self._tasks:
                task.result()

    async def _go_on(self, smtpd: _Smtpd, number: int) -> None:
        """Every one begins elsewhere; each request has its reply before the next."""
        while not self._is_over:
            request, right = self._cases[number % len(self._cases)]
            number += 1
            reply = await smtpd.ask(request)
            self._more.set()
            await asyncio.sleep(PAUSE)
            if reply is None:
                self.unanswered += 1
            elif reply == right:
                self.answered += 1
            else:
                self.wrong.append((request, right, reply))
