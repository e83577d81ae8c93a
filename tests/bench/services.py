"""What is measured: policyecho, the service itself with everything on, and where their processes run."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.bench.kit import Kit
from tests.bench.load import Target, processes
from tests.labs.ldappolicy import Ldappolicy, Sections, merged, program
from tests.labs.slapd import free_port, wait_until

PATIENCE = 60.0


@contextmanager
def on_cores(cores: set[int]) -> Iterator[None]:
    """What is started meanwhile stays on these, threads and children too."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def server_cores(workers: int = 1) -> set[int]:
    """All but the load generator's where that is pinned to one; several workers have all of them."""
    every = set(range(os.cpu_count() or 1))
    return every - os.sched_getaffinity(0) or every if workers == 1 else every


@contextmanager
def policyecho(kit: Kit, *, tcp: bool = False) -> Iterator[Target]:
    """The C service that does nothing but find the empty line."""
    path = kit.folder / "echo.sock"
    where = ("-t", f"127.0.0.1:{free_port()}") if tcp else ("-u", str(path))
    with on_cores(server_cores()):
        process = subprocess.Popen([kit.program("policyecho"), *where])
    try:
        target = Target(where, process.pid, decides=False)
        wait_until(lambda: process.poll() is not None or _listens(process.pid), PATIENCE)
        yield target
    finally:
        process.terminate()
        process.wait()


def _listens(pid: int) -> bool:
    """It waits for events once it has its listener."""
    descriptors = Path(f"/proc/{pid}/fd")
    return any("eventpoll" in str(one.readlink()) for one in descriptors.iterdir())


@dataclass(frozen=True, slots=True)
class Served:
    """The service: on its socket, and by TCP."""

    unix: Target
    tcp: Target
    lab: Ldappolicy

    @property
    def workers(self) -> list[int]:
        """The processes that answer."""
        first, *others = processes(self.unix.pid)
        return others or [first]

    @property
    def path(self) -> str:
        """The socket file."""
        return self.unix.where[1]

    def wait_for_connections(self, at_least: int = 0, at_most: int = 10**9) -> None:
        """Until so many are open, or so few: a client is connected before it is accepted."""
        wait_until(lambda: at_least <= self._sockets() <= at_most, PATIENCE)

    def _sockets(self) -> int:
        return sum(len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in self.workers)

    def forget_log(self) -> None:
        """What was logged so far is taken from the disk; what comes is appended."""
        os.truncate(self.lab.folder / "stderr", 0)


def everything_on(kit: Kit, workers: int) -> Sections:
    """Metrics listen, rejects are logged; over the kit's directory as a file."""
    return {
        "server": {"workers": workers, "max_connections": 2 * (kit.sizes.idle + 100)},
        "directory": {"uri": [f"ldif:{kit.tree}"]},
        "web": {"listen": f"127.0.0.1:{free_port()}"},
        "log": {"decisions": "rejects"},
    }


@contextmanager
def ldappolicy(kit: Kit, *, workers: int = 1, sections: Sections | None = None) -> Iterator[Served]:
    """`serve`, once it answers; with `sections` on top of everything that is on."""
    lab = Ldappolicy(merged(everything_on(kit, workers), sections or {}), command=[program()])
    try:
        with on_cores(server_cores(workers)):
            lab.start()
        pid = lab.process.pid
        wait_until(lambda: workers == 1 or len(processes(pid)) > workers, PATIENCE)
        host = lab.inet.removeprefix("inet:")
        yield Served(Target(("-u", lab.unix.removeprefix("unix:")), pid), Target(("-t", host), pid), lab)
    finally:
        lab.remove()
