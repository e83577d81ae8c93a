"""What a machine can run out of, or do to a service: memory for absent addresses, disk, descriptors, time."""

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path

import pytest

from tests.abuse.clock import SteppedClock
from tests.abuse.scene import (
    DEADLINE,
    DUNNO,
    PASSED,
    QUESTIONS,
    REFUSAL,
    REFUSED,
    Client,
    Row,
    cpu,
    memory,
    others,
    request,
    share,
    until,
    with_limit,
)
from tests.labs.ldappolicy import Ldappolicy, Sections, merged, program
from tests.labs.slapd import Slapd, require_slapd

QUIET: Sections = {"log": {"decisions": "none"}}
ON_DEMAND: Sections = {"cache": {"mode": "on_demand"}, "directory": {"watch": "off"}}
EXAMPLE = Path(__file__).parents[2] / "schema" / "example.ldif"


@contextmanager
def directory() -> Iterator[Slapd]:
    """The example company on a real server."""
    require_slapd()
    with Slapd(schema="ldappolicy", data=EXAMPLE.read_text("utf-8")) as slapd:
        yield slapd


# Everybody in these is found: members and owners of lists, people with restrictions of their own.
KNOWN = tuple(
    request(
        sender=f"{login}@my.domain", recipient=f"{to}@my.domain", sasl_method="PLAIN", sasl_username=login
    )
    for login in ("amy", "joe", "jane")
    for to in ("all", "team", "jane", "joe")
)


def absent_flood(addresses: int = 4000, size: int = 1000) -> Row:
    """Addresses that nobody has: the cache stays bounded, and what was found stays found."""
    with directory() as slapd:
        cache: Sections = {"cache": {"size": size, "negative_ttl": "1h"}}
        sections = merged(QUIET, ON_DEMAND, cache, {"directory": {"uri": [slapd.uri]}})
        with Ldappolicy(sections) as service:
            expected = _answers(service)
            _flood(service, range(size))  # from here on the cache for absent addresses is full
            before, asked = memory(service), slapd.searches()
            _flood(service, range(size, addresses))
            grown, searches = memory(service) - before, slapd.searches() - asked
            slapd.stop()
            start = time.monotonic()
            assert expected == _answers(service)
            took = 1000 * (time.monotonic() - start) / len(KNOWN)
            assert searches >= addresses - size
            assert grown < 4 + size * 2 / 1024
    return Row(
        "flood of absent addresses, then the directory stopped",
        f"{addresses} addresses, cache.size {size}, {searches} searches",
        f"{grown:+.1f} MiB of memory once the cache was full; {len(KNOWN)} requests of known people "
        f"decided as before without the directory, {took:.1f} ms each",
    )


def _answers(service: Ldappolicy) -> list[bytes]:
    with Client(service) as client:
        answers = [client.ask(question) for question in KNOWN]
    assert not any(b"Temporary lookup failure" in answer for answer in answers)
    return answers


def _flood(service: Ldappolicy, numbers: range) -> None:
    """So many recipients of ours who are not there, a hundred at a time."""
    with Client(service) as client:
        for first in range(numbers.start, numbers.stop, 10):
            batch = range(first, min(first + 10, numbers.stop))
            client.send(
                b"".join(request(sender="s@else.example", recipient=f"no{n}@my.domain") for n in batch)
            )
            assert [DUNNO] * len(batch) == [client.reply() for _ in batch]


# ---------------------------------------------------------------- disk


class SmallDisk:
    """A file system of a few KiB in a mount namespace of its own; `inside` is the command run there."""

    def __init__(self, folder: Path, kib: int) -> None:
        if os.geteuid() != 0:
            pytest.skip("run as root: a small file system has to be mounted")
        self.path = folder / "disk"
        self.path.mkdir()
        self.path.chmod(0o755)
        mounted = f"mount -t tmpfs -o size={kib}k none {self.path} && echo && exec sleep 600"
        command = ["unshare", "--mount", "sh", "-c", mounted]
        self._holder = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert self._holder.stdout is not None
        assert self._holder.stderr is not None
        if not self._holder.stdout.readline():
            self._holder.wait()
            pytest.skip(
                f"a small file system cannot be mounted: {self._holder.stderr.read().decode().strip()}"
            )

    @property
    def outside(self) -> Path:
        """The same folder, as it is reached from here."""
        return Path(f"/proc/{self._holder.pid}/root{self.path}")

    def inside(self, *command: str) -> list[str]:
        """The command with that file system; nsenter(1) becomes it."""
        return ["nsenter", f"--mount=/proc/{self._holder.pid}/ns/mnt", *command]

    def fill(self) -> None:
        """Leave no room."""
        with suppress(OSError), (self.outside / "filler").open("wb", buffering=0) as filler:
            while True:
                filler.write(b"x" * 1024)

    def free(self) -> None:
        """Leave room again."""
        (self.outside / "filler").unlink()

    def end(self) -> None:
        """Unmount: with its last process the namespace is gone."""
        assert self._holder.stdout is not None
        assert self._holder.stderr is not None
        self._holder.kill()
        self._holder.wait()
        self._holder.stdout.close()
        self._holder.stderr.close()


@contextmanager
def small_disk(folder: Path, kib: int) -> Iterator[SmallDisk]:
    """One, for a while."""
    disk = SmallDisk(folder, kib)
    try:
        yield disk
    finally:
        disk.end()


def full_disk_snapshot(folder: Path) -> Row:
    """No room for a snapshot: the old one stays as it was, the service goes on, and says so."""
    with small_disk(folder, 512) as disk:
        sections: Sections = {**QUIET, "cache": {"snapshot": str(disk.path / "snapshot")}}
        with Ldappolicy(sections, command=disk.inside(program())) as service:
            others(service)
            assert service.stop() == 0
            kept = (disk.outside / "snapshot").read_bytes()
            disk.fill()
            service.start()
            seen = others(service)
            start = time.monotonic()
            assert service.stop() == 0
            took = time.monotonic() - start
            assert "no space left on device" in service.log("snapshot not written")[-1]
            assert kept == (disk.outside / "snapshot").read_bytes()
            assert {"snapshot", "filler"} == {path.name for path in disk.outside.iterdir()}
            disk.free()
            service.start()
            service.wait_for_log("snapshot read: ")
            assert service.stop() == 0
            assert {"snapshot"} == {path.name for path in disk.outside.iterdir()}
    return Row(
        "full disk: the snapshot",
        f"a disk of 512 KiB without room, a snapshot of {len(kept) // 1024} KiB",
        f"{seen}; stopped in {took:.1f} s with exit status 0, one error in the log; "
        "the old snapshot unchanged, nothing left behind, written again when there was room",
    )


def full_disk_log(folder: Path, requests: int = 2000) -> Row:
    """No room for the log: decisions go on, nothing piles up, and the next line says what is missing."""
    with small_disk(folder, 64) as disk:
        into = f'exec "$@" 2>>{disk.path}/log'
        command = disk.inside("sh", "-c", into, "sh", program())
        with Ldappolicy({"log": {"decisions": "all"}}, command=command) as service:
            log = disk.outside / "log"
            others(service, 20)
            until(lambda: log.read_bytes().count(b"decision: ") >= 20)
            disk.fill()
            before, used, start = memory(service), cpu(service), time.monotonic()
            seen = others(service, requests)
            busy = 100 * (cpu(service) - used) / (time.monotonic() - start)
            idle = share(service, 0.5)
            grown = memory(service) - before
            disk.free()
            until(
                lambda: (
                    _ask_once(service) and re.search(rb"\d+ lines of the log were dropped", log.read_bytes())
                )
            )
            assert service.stop() == 0
            text = log.read_bytes()
        dropped = sum(map(int, re.findall(rb"(\d+) lines of the log were dropped", text)))
        assert b"no space left on device" in text
        assert dropped >= requests * 0.5
        assert text.endswith(b"\n")
        assert idle < 30
        assert grown < 16
    return Row(
        "full disk: the log",
        f"a disk of 64 KiB without room, {requests} decisions to be logged",
        f"{seen}; {grown:.1f} MiB more memory, {busy:.0f} % of a processor, idle {idle:.0f} %; "
        f"{dropped} lines dropped, which the first line says that there was room for again",
    )


def _ask_once(service: Ldappolicy) -> bool:
    with Client(service) as client:
        return client.ask(PASSED) == DUNNO


def dev_full(requests: int = 500) -> Row:
    """Standard error is /dev/full: every line fails, no decision does."""
    command = ["sh", "-c", 'exec "$@" 2>/dev/full', "sh", program()]
    with Ldappolicy({"log": {"decisions": "all"}}, command=command) as service:
        seen = others(service, requests)
        idle = share(service, 0.3)
        assert service.stop() == 0
        assert idle < 30
    return Row("log to /dev/full", f"{requests} decisions to be logged", f"{seen}; exit status 0")


# ---------------------------------------------------------------- descriptors


def no_descriptors(limit: int = 64, clients: int = 200) -> Row:
    """More clients than descriptors: no busy loop, who is in is answered, the others when there is room."""
    with ExitStack() as opened, Ldappolicy(QUIET, command=with_limit(limit, [program()])) as service:
        crowd = [opened.enter_context(Client(service)) for _ in range(clients)]
        for client in crowd:
            client.socket.settimeout(0.5)
        inside = [client for client in crowd if _is_answered(client)]
        outside = [client for client in crowd if client not in inside]
        assert 10 < len(inside) < limit
        idle = share(service, 1.5)
        assert idle < 25
        for client in inside:
            client.socket.settimeout(DEADLINE)
        start = time.monotonic()
        assert [REFUSAL] * len(inside) == [client.ask(REFUSED) for client in inside]
        took = 1000 * (time.monotonic() - start) / len(inside)
        for client in crowd:
            client.close()
        until(lambda: _let_in(service))
        start = time.monotonic()
        seen = others(service)
        lines = len(service.log())
        assert lines < 200
    return Row(
        "no file descriptors left (EMFILE)",
        f"limit {limit}, {clients} clients",
        f"{len(inside)} served ({took:.2f} ms each), {len(outside)} not; idle {idle:.0f} % of a processor, "
        f"{lines} lines in the log; once descriptors were free: {seen}",
    )


def _is_answered(client: Client) -> bool:
    try:
        return client.ask(PASSED) == DUNNO
    except OSError:
        return False


def _let_in(service: Ldappolicy) -> bool:
    with suppress(OSError), Client(service) as client:
        client.socket.settimeout(2)
        return client.ask(PASSED) == DUNNO
    return False


# ---------------------------------------------------------------- time


STEPS = {
    "a day ahead": 86400,
    "a day back": -86400,
    "ten years ahead": 315_360_000,
    "to 1980": -1_500_000_000,
}


def clock_steps(folder: Path) -> Row:
    """The wall clock is set: decisions, the log and what is remembered go on, and end in their own time."""
    with directory() as slapd, SteppedClock(folder) as clock:
        sections = merged(
            ON_DEMAND,
            {"directory": {"uri": [slapd.uri]}, "log": {"decisions": "all", "format": "json"}},
            {"cache": {"ttl": "1s", "negative_ttl": "1s", "snapshot": str(folder / "snapshot")}},
        )
        with Ldappolicy(sections, command=clock.command(program())) as service:
            slowest = 0.0
            for step in STEPS.values():
                others(service, 20)
                asked = slapd.searches()
                clock.set(step)
                slowest = max(slowest, others(service, 20).worst)
                assert _is_ruled_by(service, step)
                # Nothing expires at once by a step ahead, or each of the 20 requests would have searched, and
                # everything in its time after one back. The start of serve looks it over meanwhile.
                assert slapd.searches() - asked < 20
                until(partial(_searches_more_than, slapd, asked, service))
            assert share(service, 0.3) < 30
            assert service.stop() == 0
            clock.set(0)
            service.start()
            others(service, 20)
            assert not service.log("snapshot refused")
    return Row(
        "the wall clock set",
        ", ".join(STEPS),
        f"every decision right (slowest {slowest:.1f} ms), lines of the log have the new time, answers are "
        "remembered for their ttl, no longer and no less",
    )


def _searches_more_than(slapd: Slapd, asked: int, service: Ldappolicy) -> bool:
    others(service, 2)
    return slapd.searches() > asked


def _is_ruled_by(service: Ldappolicy, step: int) -> bool:
    """Whether the service's wall clock has been set: its log says so."""
    _ask_once(service)
    until(lambda: abs(_last_time(service) - time.time() - step) < 60)
    return True


def _last_time(service: Ldappolicy) -> float:
    lines = service.log('^{"time": .*"ldappolicy.decision"')
    return float(json.loads(lines[-1])["time"]) if lines else 0.0


def stopped(clients: int = 100) -> Row:
    """SIGSTOP and SIGCONT: who asked meanwhile is answered afterwards."""
    with ExitStack() as opened, Ldappolicy(QUIET, command=[program()]) as service:
        before = [opened.enter_context(Client(service)) for _ in range(clients)]
        assert [DUNNO] * clients == [client.ask(PASSED) for client in before]
        service.process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, service.process.pid, os.WSTOPPED)
        crowd = [*before, *(opened.enter_context(Client(service)) for _ in range(clients))]
        for number, client in enumerate(crowd):
            client.send(QUESTIONS[number % 2][0])
        start = time.monotonic()
        service.process.send_signal(signal.SIGCONT)
        expected = [QUESTIONS[number % 2][1] for number in range(2 * clients)]
        assert expected == [client.reply() for client in crowd]
        took = time.monotonic() - start
        seen = others(service)
    return Row(
        "SIGSTOP, requests, SIGCONT",
        f"{clients} connections from before, {clients} new ones",
        f"all {2 * clients} answered within {took:.2f} s; {seen}",
    )
