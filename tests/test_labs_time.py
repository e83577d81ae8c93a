"""The labs that spare waiting: a clock that jumps, and the program without its start."""

import asyncio
import os
import signal
import socket
import subprocess
import time

import pytest

from tests.labs.clock import on_virtual_time
from tests.labs.forks import completed, start


def test_time_jumps() -> None:
    """To each timer in its order, and a day is over at once."""

    async def story() -> list[float]:
        loop = asyncio.get_running_loop()
        rung: list[float] = []
        for seconds in (7.0, 86400.0, 0.5):
            loop.call_later(seconds, lambda: rung.append(loop.time()))
        await asyncio.sleep(100_000)
        return rung

    assert [0.5, 7.0, 86400.0] == on_virtual_time(story())


def test_time_stands_still_for_what_is_ready() -> None:
    """What was written is read before a timer rings."""

    async def story() -> float:
        ours, theirs = socket.socketpair()
        reader, unused = await asyncio.open_unix_connection(sock=ours)
        _, writer = await asyncio.open_unix_connection(sock=theirs)
        async with asyncio.timeout(0.001):
            for number in range(1000):
                writer.write(b"%d\n" % number)
                assert number == int(await reader.readline())
        for stream in (writer, unused):
            stream.close()
        return asyncio.get_running_loop().time()

    assert 0.0 == on_virtual_time(story())


def test_time_stands_still_for_threads() -> None:
    """A thread works in real time, which is none here."""

    async def story() -> list[float]:
        loop = asyncio.get_running_loop()

        async def when(wait: asyncio.Future[None]) -> float:
            await wait
            return loop.time()

        thread = asyncio.ensure_future(asyncio.to_thread(time.sleep, 0.05))
        return list(await asyncio.gather(when(thread), when(asyncio.ensure_future(asyncio.sleep(0.01)))))

    assert [0.0, 0.01] == on_virtual_time(story())


def test_a_call_is_complete() -> None:
    """Status, both streams, what it was given, and where it ran."""
    done = completed(["-c", "deploy/example.toml", "eval", "sender=a@b"])
    assert (0, "action=DUNNO\n", "") == (done.returncode, done.stdout, done.stderr)
    done = completed(["nonsense"])
    assert (64, "") == (done.returncode, done.stdout)
    assert "nonsense" in done.stderr


def test_a_call_that_is_ended() -> None:
    """It is a process of its own, which takes signals, and what it ends with is known from then on."""
    reading, writing = os.pipe()  # it waits for a request from there
    process = start(["-c", "deploy/example.toml", "eval", "-"], stdin=reading)
    os.close(reading)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.0)
    process.kill()
    assert [-signal.SIGKILL] * 2 == [process.wait(), process.poll()]
    os.close(writing)
