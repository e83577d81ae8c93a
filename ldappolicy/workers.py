"""A worker's end of `workers` > 1: what the supervisor tells it, and what it tells the supervisor.

A worker is a process of its own, with a socket pair to its supervisor on which messages go both ways: JSON
objects behind their length in four bytes. To a worker:

    {"do": "serve", "number": 0, "path": FILE, "text": TOML, "turn": 0, "doors": [3, 4],
     "counts": 5, "count": 2, "refusals": 6, "timing": {...}, "held": null or {...}}
    {"do": "swap", "text": TOML, "turn": 1}     the configuration that is to be in force, which was validated
    {"do": "accept"}                            although it has no policies: nobody has
    {"do": "stop"}

and to the supervisor:

    {"say": "refused", "complaints": [...]}     it cannot start with this configuration, and ends
    {"say": "ready", "facts": {...}, "turn": 0} it answers requests; facts are for the terminal
    {"say": "swapped", "turn": 1}
    {"say": "alive", "in_force": true, "passed_over": false, "status": "...", "snapshot": "...",
     "held": null or {...}}                     every tick: its event loop runs, and what it has to show;
                                                `held` is the extent of its LDIF file

The listening sockets are inherited and shared: what one worker has not accepted another will. A worker whose
supervisor is gone finishes what is in hand and ends.
"""

import asyncio
import json
import logging
import os
import socket
import struct
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ldappolicy import config as configuration
from ldappolicy.config import Config
from ldappolicy.daemon import Daemon, Timing
from ldappolicy.directory.ldap import Refusals
from ldappolicy.directory.ldif import Extent
from ldappolicy.doors import Counts, door_of
from ldappolicy.errors import ConfigError, Unavailable
from ldappolicy.log import Limited

MOST_UNREAD = 1 << 20
"""Bytes that may wait for a worker that does not read; then it is cut off."""

Message = Mapping[str, Any]
Facts = Mapping[str, Any]

_LENGTH = struct.Struct("!I")

logger = logging.getLogger("ldappolicy.workers")


class Channel:
    """One end of the socket pair."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def over(cls, end: socket.socket) -> "Channel":
        """A channel over one end of a socket pair."""
        return cls(*await asyncio.open_unix_connection(sock=end))

    def send(self, **message: Any) -> None:
        """Puts a message on its way; to an end that is gone, or does not read, none ever is."""
        transport = self._writer.transport
        if transport.is_closing():
            return
        if transport.get_write_buffer_size() > MOST_UNREAD:
            transport.abort()
            return
        text = json.dumps(message, separators=(",", ":")).encode()
        self._writer.write(_LENGTH.pack(len(text)) + text)

    async def messages(self) -> AsyncIterator[Message]:
        """What the other end says, until it is gone."""
        try:
            while True:
                (length,) = _LENGTH.unpack(await self._reader.readexactly(_LENGTH.size))
                yield json.loads(await self._reader.readexactly(length))
        except (asyncio.IncompleteReadError, OSError, ValueError):
            return

    def close(self) -> None:
        """Cuts off the other end."""
        self._writer.transport.abort()

    async def finish(self) -> None:
        """Sends what is on its way, and closes."""
        self._writer.close()
        with suppress(OSError):
            await self._writer.wait_closed()


class Worker:
    """One of several processes that answer requests."""

    def __init__(self, channel: Channel, orders: Message, facts: Callable[[Daemon], Facts]) -> None:
        self._channel = channel
        self._facts = facts
        self._path = Path(orders["path"])
        self._turn: int = orders["turn"]
        self._timing = Timing(**orders.get("timing", {}))  # an older supervisor says nothing of it
        self._swapping: asyncio.Task[None] | None = None
        self._warnings = Limited(logger)
        self._counts = Counts(orders["counts"], orders["count"], orders["number"])
        doors = [door_of(socket.socket(fileno=number), self._counts) for number in orders["doors"]]
        config = self._config(orders["text"])
        held = Extent(**orders["held"]) if orders.get("held") else None
        refusals = Refusals(orders.get("refusals"))  # an older supervisor has none
        self._daemon = Daemon(
            config,
            doors=doors,
            worker=orders["number"],
            held=held,
            timing=self._timing,
            refusals=refusals,
        )

    async def run(self) -> None:
        """Until it is told to stop; raises ConfigError when it cannot start."""
        obeying = asyncio.create_task(self._obey())
        beating = asyncio.create_task(self._beat())
        try:
            await self._daemon.run(self._started)
        finally:
            obeying.cancel()
            beating.cancel()
        self._say_alive()  # what was counted last

    def _config(self, text: str) -> Config:
        return configuration.parse(text, str(self._path))

    def _started(self, daemon: Daemon) -> None:
        self._channel.send(say="ready", facts=self._facts(daemon), turn=self._turn)
        self._say_alive()  # before another asks whether anybody has policies

    async def _beat(self) -> None:
        while True:
            daemon = self._daemon
            self._counts.tell(daemon.server.connections if daemon.is_accepting else Counts.ABSENT)
            self._say_alive()
            await asyncio.sleep(self._timing.tick_s)

    def _say_alive(self) -> None:
        daemon = self._daemon
        self._channel.send(
            say="alive",
            in_force=daemon.is_in_force,
            passed_over=daemon.is_passed_over,
            status=daemon.status(),
            snapshot=daemon.snapshot().to_json(),
            held=asdict(held) if (held := daemon.held()) is not None else None,
        )

    async def _obey(self) -> None:
        async for message in self._channel.messages():
            match message["do"]:
                case "swap":
                    if self._swapping is not None:
                        self._swapping.cancel()
                    self._swapping = asyncio.create_task(self._swap(message["text"], message["turn"]))
                case "accept":
                    self._daemon.accept_anyway()
                case "stop":
                    self._daemon.stop()
        self._daemon.stop()

    async def _swap(self, text: str, turn: int) -> None:
        """The supervisor has tried the configuration: what is in the way here will pass."""
        config = self._config(text)
        while True:
            try:
                await self._daemon.replace(config)
            except (ConfigError, Unavailable) as problem:
                self._warnings.log(logging.ERROR, f"configuration not in force yet: {problem}")
                await asyncio.sleep(self._timing.retry_s)
            else:
                self._turn = turn
                self._channel.send(say="swapped", turn=turn)
                return


async def serve(descriptor: int, facts: Callable[[Daemon], Facts]) -> None:
    """Works for the supervisor at the other end of a descriptor."""
    os.set_inheritable(descriptor, False)
    channel = await Channel.over(socket.socket(fileno=descriptor))
    async for orders in channel.messages():
        try:
            await Worker(channel, orders, facts).run()
        except ConfigError as problem:
            channel.send(say="refused", complaints=list(problem.complaints))
        break
    await channel.finish()
