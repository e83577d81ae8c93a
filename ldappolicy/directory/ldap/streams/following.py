"""What the ways of following changes have in common: how they are begun, and how they give up."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol, TypeVar

from ldappolicy.directory.changes import Event
from ldappolicy.directory.ldap.codec import Result
from ldappolicy.directory.ldap.connection import Connection
from ldappolicy.errors import Unavailable

T = TypeVar("T")

SHORTEST_PAUSE = 0.2
LONGEST_PAUSE = 30.0

PROBE_INTERVAL = 30.0
"""Seconds between questions to a server that says nothing; firewalls forget connections after minutes."""

SETTLING = 0.2
"""Seconds that a server gets to begin a search that it does not confirm, before it is believed to have."""

SWEEP_INTERVAL = 30.0
"""Seconds between looks for what a notification did not tell (dirsync)."""

CENSUS_INTERVAL = 300.0
"""Seconds between looks for deletions that are not told (dirsync, for an ordinary account)."""

COMPARISONS = 10
"""With polling: how many polls come before deletions are looked for."""


@dataclass(frozen=True, slots=True)
class Timing:
    """The intervals, in seconds."""

    shortest_pause: float = SHORTEST_PAUSE
    longest_pause: float = LONGEST_PAUSE
    probe_interval: float = PROBE_INTERVAL
    settling: float = SETTLING
    sweep_interval: float = SWEEP_INTERVAL
    census_interval: float = CENSUS_INTERVAL


class Refused(Unavailable):
    """The server does not do this kind of stream, here, for us, or does not any more."""


class Following(Protocol):
    """One way of following one server; it remembers where it was, for the next connection to that server."""

    def events(self, connection: Connection) -> AsyncGenerator[Event, None]:
        """What is told over one connection, `Live` once; ends with Unavailable.

        At first nothing is told before `Live`. Later what was missed in between comes before it: each
        change, or `Everything`.
        """
        ...


def refused(connection: Connection, what: str, result: Result) -> Refused:
    """The error for a search that ended."""
    return Refused(f"{connection.uri}: {what}: {result}")


async def beside(
    events: AsyncGenerator[Event, None], more: asyncio.Future[list[Event]]
) -> AsyncGenerator[Event, None]:
    """Events as they come, and those that a piece of work brings as soon as it does."""
    following = asyncio.ensure_future(anext(events))
    try:
        while not more.done():
            await asyncio.wait((following, more), return_when=asyncio.FIRST_COMPLETED)
            if following.done():
                yield following.result()
                following = asyncio.ensure_future(anext(events))
        for event in more.result():
            yield event
        yield await following
    finally:
        following.cancel()
        await asyncio.wait((following,))
        if not following.cancelled():
            following.exception()
    async for event in events:
        yield event


@asynccontextmanager
async def attended(work: Awaitable[T]) -> AsyncIterator[asyncio.Future[T]]:
    """What is done meanwhile; at the end it is over, however that came."""
    task = asyncio.ensure_future(work)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait((task,))
        if not task.cancelled():
            task.exception()  # seen: who wanted to know has asked for the result
