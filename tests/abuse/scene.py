"""What the scenes of abuse need: clients as plain sockets, and what a process takes of the machine.

A scene is a function that starts real servers, misbehaves, asserts what has to hold, and returns a `Row` of
the table. Sizes are its parameters: small ones in the tests, large ones in `python -m tests.abuse`.
"""

import os
import resource
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import pytest

from tests.labs.ldappolicy import Ldappolicy
from tests.labs.slapd import wait_until

DEADLINE = 120.0

TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the reliability table: what was done, how much of it, and what was seen."""

    what: str
    how_much: str
    seen: str


def request(**attributes: str) -> bytes:
    """A request in bytes."""
    given = {"request": "smtpd_access_policy", "protocol_state": "RCPT", **attributes}
    text = "".join(f"{name}={value}\n" for name, value in given.items()) + "\n"
    return text.encode("utf-8", "surrogateescape")


# What the example company answers: a list of its own that a stranger writes to, and somebody elsewhere.
REFUSED = request(sender="stranger@elsewhere.example", recipient="all@my.domain")
REFUSAL = b"action=reject,\n\n"
PASSED = request(sender="stranger@elsewhere.example", recipient="friend@elsewhere.example")
DUNNO = b"action=DUNNO\n\n"
QUESTIONS = ((REFUSED, REFUSAL), (PASSED, DUNNO))


class Client:
    """One connection to the socket file of a service."""

    def __init__(self, service: Ldappolicy) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        # Without a timeout: connect(2) waits for a place in a full backlog, and fails with EAGAIN else.
        self.socket.connect(service.unix.removeprefix("unix:"))
        self.socket.settimeout(DEADLINE)
        self._rest = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *ignored: object) -> None:
        self.close()

    def fileno(self) -> int:
        """For select(2) and its kind."""
        return self.socket.fileno()

    def close(self) -> None:
        """Hang up."""
        self.socket.close()

    def send(self, data: bytes) -> None:
        """All of it."""
        self.socket.sendall(data)

    def reply(self) -> bytes:
        """One reply; less than one when the service has closed."""
        while b"\n\n" not in self._rest:
            try:
                data = self.socket.recv(65536)
            except ConnectionResetError:
                data = b""
            if not data:
                reply, self._rest = self._rest, b""
                return reply
            self._rest += data
        reply, _, self._rest = self._rest.partition(b"\n\n")
        return reply + b"\n\n"

    def ask(self, data: bytes) -> bytes:
        """A request and its reply."""
        self.send(data)
        return self.reply()

    def is_closed(self) -> bool:
        """Whether the service has hung up and said nothing."""
        return self.reply() == b""


@contextmanager
def many(service: Ldappolicy, count: int) -> Iterator[list[Client]]:
    """So many connections."""
    with room_for(count + 100), ExitStack() as opened:
        yield [opened.enter_context(Client(service)) for _ in range(count)]


@contextmanager
def room_for(descriptors: int) -> Iterator[None]:
    """Room for so many descriptors in this process; a skip where the system allows fewer."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < descriptors:
        pytest.skip(f"raise the limit of open files to {descriptors} (ulimit -Hn: {hard})")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, descriptors), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@dataclass(frozen=True, slots=True)
class Answered:
    """How others were served meanwhile; times in milliseconds."""

    count: int
    median: float
    worst: float

    def __str__(self) -> str:
        return f"{self.count} other requests right, median {self.median:.2f} ms, worst {self.worst:.1f} ms"


def others(service: Ldappolicy, count: int = 200, between: Callable[[], object] = lambda: None) -> Answered:
    """Asks as a well-behaved client; every reply has to be the right one."""
    times = []
    with Client(service) as client:
        for number in range(count):
            question, expected = QUESTIONS[number % 2]
            start = time.perf_counter()
            assert expected == client.ask(question)
            times.append((time.perf_counter() - start) * 1000)
            between()
    times.sort()
    return Answered(count, times[len(times) // 2], times[-1])


def with_limit(descriptors: int, command: Sequence[str]) -> list[str]:
    """The command with so many descriptors: prlimit(1) becomes it, so that the process id stays."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if os.geteuid() != 0 and hard != resource.RLIM_INFINITY and hard < descriptors:
        pytest.skip(f"raise the limit of open files to {descriptors} (ulimit -Hn: {hard})")
    return ["prlimit", f"--nofile={descriptors}:{descriptors}", *command]


# ---------------------------------------------------------------- what a process takes


def memory(service: Ldappolicy) -> float:
    """Resident memory in MiB."""
    for line in _proc(service, "status").read_text("ascii").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("the kernel tells no VmRSS")


def cpu(service: Ldappolicy) -> float:
    """Seconds of processor time so far."""
    fields = _proc(service, "stat").read_text("ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def descriptors(service: Ldappolicy) -> int:
    """How many files and sockets it has open."""
    return len(list(_proc(service, "fd").iterdir()))


def share(service: Ldappolicy, seconds: float) -> float:
    """Per cent of a processor that it takes while nothing is asked of it."""
    before, start = cpu(service), time.monotonic()
    time.sleep(seconds)  # a measurement: there is no condition to wait for
    return 100 * (cpu(service) - before) / (time.monotonic() - start)


def until(condition: Callable[[], object]) -> None:
    """Waits for a condition, with a deadline."""
    wait_until(condition, DEADLINE)


def _proc(service: Ldappolicy, name: str) -> Path:
    return Path(f"/proc/{service.process.pid}/{name}")
