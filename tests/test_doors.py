"""Doors that several processes share: each gets its part of the connections, and none is left outside."""

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryDirectory

import pytest

from ldappolicy.doors import Counts, SharedDoor, door_of
from tests.labs.clock import on_virtual_time

# What others have; what one has; whether one accepts at once.
TURNS = [
    ([Counts.ABSENT, Counts.ABSENT], 1000, True),
    ([0, Counts.ABSENT], 0, True),
    ([0, Counts.ABSENT], 1, False),
    ([5, 7], 5, True),
    ([5, 7], 6, False),
]


def counts(places: int) -> list[Counts]:
    """The same memory as each of so many processes sees it."""
    descriptor = os.memfd_create("counts")
    Counts.made(descriptor, places)
    seen = [Counts(descriptor, places, own) for own in range(places)]
    os.close(descriptor)
    return seen


@pytest.mark.parametrize(("others", "own", "is_least"), TURNS)
def test_turns(others: list[int], own: int, is_least: bool) -> None:
    """Whoever has fewer goes first; who is not there does not count."""
    first, *rest = counts(3)
    for other, count in zip(rest, others, strict=True):
        other.tell(count)
    first.tell(own)
    assert is_least == first.is_least(own)


def test_one_that_leaves() -> None:
    """Nobody waits for a process that has ended."""
    first, second = counts(2)
    second.tell(0)
    assert not first.is_least(1)
    first.leave(1)
    assert first.is_least(1)


class Greeting(asyncio.Protocol):
    """Says which process it is, and counts."""

    def __init__(self, name: bytes, arrived: list[bytes]) -> None:
        self._name = name
        self._arrived = arrived

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client."""
        assert isinstance(transport, asyncio.Transport)
        self._arrived.append(self._name)
        transport.write(self._name)


async def greeted(path: str, count: int) -> list[bytes]:
    """What so many clients are told, that connect at the same time and stay."""
    streams = await asyncio.gather(*(asyncio.open_unix_connection(path) for _ in range(count)))
    told = [await reader.readexactly(1) for reader, _ in streams]
    for _, writer in streams:
        writer.transport.abort()
    return told


@contextmanager
def listening_socket() -> Iterator[socket.socket]:
    """A socket file that listens: what arrives there can be seen at once, and so waits are virtual."""
    with TemporaryDirectory(prefix="lp") as folder, socket.socket(socket.AF_UNIX) as opened:
        opened.bind(f"{folder}/door")
        opened.listen(100)
        yield opened


@contextmanager
def shared(listening: socket.socket, seen: Counts, name: bytes) -> Iterator[None]:
    """A process that accepts."""
    arrived: list[bytes] = []
    door = door_of(listening.dup(), seen)
    accepting = SharedDoor(door, lambda: Greeting(name, arrived), lambda: len(arrived))
    try:
        yield
    finally:
        accepting.close()
        door.shut()


def test_two_that_accept() -> None:
    """Connections of the same moment are shared out."""

    async def connect() -> None:
        first, second = counts(2)
        with (
            listening_socket() as listening,
            shared(listening, first, b"a"),
            shared(listening, second, b"b"),
        ):
            told = await greeted(listening.getsockname(), 40)
        assert 15 <= told.count(b"a") <= 25

    on_virtual_time(connect())


def test_one_that_hangs() -> None:
    """It has fewer, but what it does not accept others do."""

    async def connect() -> None:
        first, second = counts(2)
        second.tell(0)
        with listening_socket() as listening, shared(listening, first, b"a"):
            assert [b"a"] * 20 == await greeted(listening.getsockname(), 20)

    on_virtual_time(connect())


@pytest.mark.parametrize(
    ("limits", "connections", "expected", "said"),
    [
        ((256, 1000), 100, 256, []),
        ((256, 1000), 500, 564, []),
        (
            (256, 1000),
            2000,
            1000,
            ["max_connections 2000 takes 2064 open files, the limit is 1000 (LimitNOFILE, ulimit -n)"],
        ),
    ],
    ids=["enough", "raised", "not enough"],
)
def test_open_files(limits: tuple[int, int], connections: int, expected: int, said: list[str]) -> None:
    """The limit is raised as far as it has to be, and may be (in a process of its own: it cannot go back)."""
    code = (
        "import logging, resource, sys; from ldappolicy.doors import allow_files\n"
        "logging.basicConfig(format='%(message)s', stream=sys.stdout)\n"
        f"resource.setrlimit(resource.RLIMIT_NOFILE, {limits})\n"
        f"allow_files({connections})\n"
        "print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert [*said, str(expected)] == done.stdout.splitlines()
