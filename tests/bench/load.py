"""Driving what is measured: one run of the load generator, and runs of several services in turn.

Runs are interleaved (A B A B ...), so that what the machine does meanwhile hits all alike, and what is told
of each is the median. A wrong answer is counted, never passed over: a fast wrong server is no result.
"""

import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.bench.kit import Kit, Part

WARM_UP = 0.2
"""Of a run's time, not counted."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where a service is asked, as the load generator takes it; its first process; whether it decides."""

    where: tuple[str, str]
    pid: int
    decides: bool = True


@dataclass(frozen=True, slots=True)
class Run:
    """What came of one: rate, latencies and CPU a request in microseconds, wrong answers."""

    per_s: float
    p50: float = 0.0
    p99: float = 0.0
    cpu: float = 0.0
    wrong: int = 0


def play(kit: Kit, target: Target, connections: int, *options: str, part: Part | None = None) -> Run:
    """One run over some of the requests, or all."""
    part = part or kit.whole
    command = [str(kit.program("policyload")), "-j", *target.where, "-f", str(part.requests)]
    command += ["-c", str(connections), *options]
    command += ["-x", str(part.expect)] if target.decides else []
    for pid in processes(target.pid):
        command += ["-p", str(pid)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 3):
        raise SystemExit(f"policyload ended with {done.returncode}: {done.stderr}{done.stdout[:500]}")
    told = json.loads(done.stdout)
    return Run(told["per_s"], told["p50"], told["p99"], told["cpu_server_us"], told["mismatches"])


def timed(kit: Kit, target: Target, connections: int, *options: str, part: Part | None = None) -> Run:
    """One run for so long as the sizes say."""
    seconds = kit.sizes.seconds
    times = ("-T", f"{seconds}", "-w", f"{seconds * WARM_UP}")
    return play(kit, target, connections, *times, *options, part=part)


def once(kit: Kit, target: Target, connections: int, part: Part | None = None) -> Run:
    """One run over all of the requests, each of them once."""
    return play(kit, target, connections, "-K", str((part or kit.whole).count), part=part)


def in_turn(rounds: int, contestants: Mapping[str, Callable[[], Run]]) -> dict[str, Run]:
    """Everybody's median, after so many rounds in which each has one run."""
    runs: dict[str, list[Run]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, contestant in contestants.items():
            runs[name].append(contestant())
    return {name: middle(found) for name, found in runs.items()}


def middle(runs: list[Run]) -> Run:
    """The median of each figure; all the wrong answers."""

    def of(name: str) -> float:
        figures: list[float] = [getattr(run, name) for run in runs]
        return statistics.median(figures)

    return Run(of("per_s"), of("p50"), of("p99"), of("cpu"), sum(run.wrong for run in runs))


def processes(pid: int) -> list[int]:
    """A process and all that it started, or they."""
    parents: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text("ascii", "replace").rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended
        parents.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found = [pid]
    for one in found:
        found += parents.get(one, [])
    return found


# Connects as often as it is told, says so, and hangs up at the end of its standard input.
IDLE = """
import socket, sys
path, count = sys.argv[1], int(sys.argv[2])
held = [socket.socket(socket.AF_UNIX) for _ in range(count)]
for one in held:
    one.connect(path)
print("open", flush=True)
sys.stdin.read()
"""


@contextmanager
def idle_connections(path: str, count: int) -> Iterator[None]:
    """Connections that never ask, held by a process of their own."""
    command = [sys.executable, "-c", IDLE, path, str(count)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as holder:
        assert holder.stdout is not None
        if holder.stdout.readline() != "open\n":
            raise SystemExit(f"{count} idle connections cannot be held open (ulimit -n?)")
        yield
        holder.communicate()
