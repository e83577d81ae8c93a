"""The program `ldappolicy` without its start-up time: a process that has imported it forks for every call.

    process = start(["-c", "config.toml", "serve"], stderr=log)     like subprocess.Popen, as far as it goes
    done = completed(["schema"])                                    like subprocess.run, with text

An interpreter and its imports take two thirds of a second of a processor, a fork a fiftieth of one. What runs
is the program's own `run`, in a process of its own with the given streams, folder, environment and limit of
open files; only exec(2) is left out. Whoever tests that, or measures, starts `labs.ldappolicy.program`.

The process that forks is started when it is first asked, and ends with the one that asks.
"""

import atexit
import fcntl
import gc
import importlib
import json
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import cache
from pathlib import Path
from tempfile import TemporaryFile
from threading import Lock
from typing import IO, Any, NoReturn

from ldappolicy.cli import run
from ldappolicy.daemon import DEFAULT_TIMING, Timing

ROOT = Path(__file__).parents[2]
MAX_ORDER_BYTES = 1 << 17
MAX_PASSED = 16
COMMANDS = ("serve", "evaluate", "lint", "schema", "load", "import_main_cf")

Stream = IO[bytes] | int

_turn = Lock()


class Forked:
    """A running call: what labs need of subprocess.Popen."""

    def __init__(self, pid: int, ended: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._ended = ended

    def wait(self, timeout: float | None = None) -> int:
        """Its exit status, a negative signal; raises subprocess.TimeoutExpired."""
        if self.returncode is None:
            if not select.select([self._ended], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(["ldappolicy"], timeout or 0.0)
            self.returncode = int(os.read(self._ended, 16))
            os.close(self._ended)
        return self.returncode

    def poll(self) -> int | None:
        """The same, or None while it runs."""
        try:
            return self.wait(0)
        except subprocess.TimeoutExpired:
            return None

    def send_signal(self, number: int) -> None:
        """A signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)


def start(
    arguments: Sequence[str],
    *,
    stdin: Stream = subprocess.DEVNULL,
    stdout: Stream = subprocess.DEVNULL,
    stderr: Stream = subprocess.DEVNULL,
    folder: Path = ROOT,
    timing: Timing = DEFAULT_TIMING,
    passed: Sequence[int] = (),
    environment: Mapping[str, str] | None = None,
) -> Forked:
    """Calls the program; `timing` may be other than a site's.

    `passed` are descriptors from 3 on, and `environment` is more of it, as by systemd.
    """
    order = {
        "arguments": list(arguments),
        "folder": str(folder),
        "environment": {**os.environ, **(environment or {})},
        "files": resource.getrlimit(resource.RLIMIT_NOFILE),
        "timing": asdict(timing),
    }
    with Path(os.devnull).open("r+b") as null:
        streams = [null if one == subprocess.DEVNULL else one for one in (stdin, stdout, stderr)]
        ended, tell = os.pipe()
        descriptors = [*(one if isinstance(one, int) else one.fileno() for one in streams), tell, *passed]
        with _turn:
            control = _forking()
            socket.send_fds(control, [json.dumps(order).encode()], descriptors)
            pid = int(control.recv(16))
        os.close(tell)
        return Forked(pid, ended)


def completed(
    arguments: Sequence[str], *, given: str = "", folder: Path = ROOT
) -> subprocess.CompletedProcess[str]:
    """Calls the program, and waits for its end."""
    with TemporaryFile() as stdin, TemporaryFile() as stdout, TemporaryFile() as stderr:
        stdin.write(given.encode("utf-8", "surrogateescape"))
        stdin.seek(0)
        status = start(arguments, stdin=stdin, stdout=stdout, stderr=stderr, folder=folder).wait()
        texts = [_read(stream) for stream in (stdout, stderr)]
    return subprocess.CompletedProcess(["ldappolicy", *arguments], status, *texts)


def _read(stream: IO[bytes]) -> str:
    stream.seek(0)
    return stream.read().decode()


@cache
def _forking() -> socket.socket:
    """The way to the process that forks."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        command = [sys.executable, "-m", "tests.labs.forks", str(theirs.fileno())]
        process = subprocess.Popen(command, cwd=ROOT, pass_fds=(theirs.fileno(),), stdin=subprocess.DEVNULL)
    atexit.register(_end, ours, process)
    return ours


def _end(control: socket.socket, process: subprocess.Popen[bytes]) -> None:
    control.close()
    process.wait()


# --- the process that forks -----------------------------------------------------------------------


def _serve(control: socket.socket) -> None:
    """Forks on request, and reports each end; until nobody is there to report to."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    running: dict[int, int] = {}
    while True:
        ready = select.select([control.fileno(), woken], [], [])[0]
        if woken in ready:
            os.read(woken, 1024)
            _tell_of_ends(running)
        if control.fileno() in ready:
            data, descriptors, _, _ = socket.recv_fds(control, MAX_ORDER_BYTES, 4 + MAX_PASSED)
            if not data:
                for pid in running:  # of a test that did not come to its end
                    os.kill(pid, signal.SIGTERM)
                return
            pid = os.fork()
            if not pid:
                _become(json.loads(data), descriptors)
            running[pid] = descriptors.pop(3)
            for descriptor in descriptors:
                os.close(descriptor)
            control.send(str(pid).encode())


def _tell_of_ends(running: dict[int, int]) -> None:
    for pid in list(running):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            tell = running.pop(pid)
            with suppress(BrokenPipeError):  # nobody waits for it
                os.write(tell, str(os.waitstatus_to_exitcode(status)).encode())
            os.close(tell)


def _become(order: dict[str, Any], descriptors: Sequence[int]) -> NoReturn:
    """The call itself, as if it had been started."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    given = [*descriptors[:3], *descriptors[4:]]
    high = [fcntl.fcntl(descriptor, fcntl.F_DUPFD, 100) for descriptor in given]  # out of one another's way
    for place, descriptor in enumerate(high):
        os.dup2(descriptor, place)
    os.closerange(len(given), 1 << 20)
    os.chdir(order["folder"])
    os.environ.clear()
    os.environ.update(order["environment"], LISTEN_PID=str(os.getpid()))
    time.tzset()
    resource.setrlimit(resource.RLIMIT_NOFILE, tuple(order["files"]))
    sys.argv = [str(Path(sys.executable).parent / "ldappolicy"), *order["arguments"]]
    # How a supervisor starts its workers.
    sys.orig_argv = [sys.executable, "-m", "ldappolicy", *order["arguments"]]
    sys.exit(run(order["arguments"], Timing(**order["timing"])))


if __name__ == "__main__":
    for command in COMMANDS:
        importlib.import_module(f"ldappolicy.cli.{command}")
    gc.freeze()  # what is imported stays, and is not to be looked through in every fork
    _serve(socket.socket(fileno=int(sys.argv[1])))
