"""The connections to one server, for lookups: several that take turns, each opened when its turn comes.

Callers share one attempt to open a connection, and it goes on when they lose patience. While one connection
is open, another that cannot be opened is nobody's trouble.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from ldappolicy.directory import Search
from ldappolicy.directory.ldap.connection import Connection
from ldappolicy.directory.ldap.health import Server
from ldappolicy.directory.ldap.refusals import Withheld
from ldappolicy.entry import Entry
from ldappolicy.errors import Unavailable

T = TypeVar("T")


async def shared(attempt: asyncio.Task[T]) -> T:
    """What the attempt yields, for one of many who wait for it; nobody's leaving cancels it."""
    await asyncio.wait((attempt,))
    if attempt.cancelled():
        raise Unavailable("the directory was closed")
    if isinstance(error := attempt.exception(), Unavailable):
        raise Unavailable(str(error))  # each waiter its own, for its own traceback
    return attempt.result()


class Lines:
    """Up to `width` connections to `server`, the first of which is open; `connect` opens and proves one."""

    def __init__(
        self,
        server: Server,
        first: Connection,
        width: int,
        connect: Callable[[Server], Awaitable[Connection]],
    ) -> None:
        self.server = server
        self._held: list[Connection | None] = [first, *[None] * (width - 1)]
        self._opening: dict[int, asyncio.Task[None]] = {}
        self._connect = connect
        self._turn = -1
        self._busy = 0
        self._left = False
        self._idle = asyncio.Event()

    @property
    def connections(self) -> list[Connection]:
        """Those that are open."""
        return [held for held in self._held if held is not None and not held.ended]

    async def connection(self) -> Connection | None:
        """The one whose turn it is, or another; None when there is none any more."""
        self._turn = (self._turn + 1) % len(self._held)
        place = self._turn
        held = self._held[place]
        if (held is None or held.ended) and self.server.is_rested and not self._left:
            attempt = self._attempt(place)
            if not self.connections:
                await shared(attempt)
                held = self._held[place]
        if held is not None and not held.ended:
            return held
        return next(iter(self.connections), None)

    async def search(self, connection: Connection, search: Search) -> list[Entry]:
        """One search on one of them."""
        self._busy += 1
        try:
            return await connection.search(search)
        finally:
            self._busy -= 1
            if not self._busy:
                self._idle.set()

    async def finish(self) -> None:
        """Close them when what is in flight is answered; none is opened any more."""
        self._left = True
        while self._busy:
            self._idle.clear()
            await self._idle.wait()
        await self.close()

    async def close(self) -> None:
        """Close them now."""
        self._left = True
        attempts = list(self._opening.values())
        for attempt in attempts:
            attempt.cancel()
        if attempts:
            await asyncio.wait(attempts)
        await asyncio.gather(*(held.close() for held in self._held if held is not None))

    def _attempt(self, place: int) -> asyncio.Task[None]:
        if place not in self._opening:
            self._opening[place] = asyncio.create_task(self._open(place))
            self._opening[place].add_done_callback(lambda _: self._opening.pop(place))
        return self._opening[place]

    async def _open(self, place: int) -> None:
        try:
            self._held[place] = await self._connect(self.server)
        except Withheld as error:
            self.server.withheld(str(error))
        except Unavailable as error:
            self.server.failed(str(error))
