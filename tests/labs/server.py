"""What the private directory servers of the tests have in common: one process, its files, and LDIF.

A server is a context manager that always stops what it started, by process id. Who derives says how its
files come to be (`create`), how it is started (`command`) and when it listens (`probe`).
"""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

SUFFIX = "dc=example,dc=com"


def tree_of(*units: str) -> str:
    """LDIF of the suffix and of these organizational units below it."""
    top = f"dn: {SUFFIX}\nobjectClass: dcObject\nobjectClass: organization\ndc: example\no: Example\n\n"
    return top + "".join(map(folder, units))


def folder(name: str) -> str:
    """LDIF of an organizational unit below the suffix."""
    return f"dn: ou={name},{SUFFIX}\nobjectClass: organizationalUnit\nou: {name}\n\n"


SBIN = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin", "/usr/libexec"))


DEADLINE_S = 180.0
"""How long a busy machine may take for one thing."""


def program(name: str) -> str:
    """Where it is; the name alone when it is nowhere."""
    return shutil.which(name, path=SBIN) or name


def are_installed(*names: str) -> bool:
    """Whether all these programs are."""
    return all(shutil.which(name, path=SBIN) for name in names)


def wait_until(condition: Callable[[], object], timeout: float = DEADLINE_S) -> None:
    """Return once the condition holds; fail after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"still not so after {timeout} s: {condition}")
        time.sleep(0.003)


def run(command: list[str], text: str) -> None:
    """A program that reads LDIF; what it says when it fails is the error."""
    done = subprocess.run(
        [program(command[0]), *command[1:]],
        input=text.encode("utf-8", "surrogateescape"),
        capture_output=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{command[0]}: {done.stderr.decode('utf-8', 'replace').strip()}")


class Server:
    """One server process of our own, with everything it writes in `home`."""

    grace = DEADLINE_S
    """Seconds to end in an orderly way before it is killed."""

    def __init__(self, name: str, *, root_dn: str, root_pw: str, suffix: str = SUFFIX) -> None:
        self.suffix = suffix
        self.root_dn = root_dn
        self.root_pw = root_pw
        # Not pytest's tmp_path: the path of a socket file may have 107 bytes.
        self.home = Path(tempfile.mkdtemp(prefix=f"{name}-"))
        self.socket_file = self.home / "ldapi"
        self.log = self.home / f"{name}.log"
        self.variables: dict[str, str] = {}
        """What it finds in its environment besides."""
        self._process: subprocess.Popen[bytes] | None = None

    def create(self) -> None:
        """Its files."""
        raise NotImplementedError

    def command(self) -> list[str]:
        """What runs in the foreground."""
        raise NotImplementedError

    def probe(self) -> None:
        """Connect once to where it listens last."""
        with socket.socket(socket.AF_UNIX) as probe:
            probe.connect(str(self.socket_file))

    @property
    def uri(self) -> str:
        """Where it is asked."""
        return self.ldapi_uri

    @property
    def ldapi_uri(self) -> str:
        """ldapi:// with the percent-encoded path of the socket file."""
        return "ldapi://" + quote(str(self.socket_file), safe="")

    @property
    def pid(self) -> int:
        """The server's process id."""
        return self._running().pid

    def __enter__(self) -> Self:
        try:
            self.create()
            self.start()
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()

    def start(self) -> None:
        """Start (again), with the data it had; return when it answers."""
        with self.log.open("ab") as log:
            # An open standard input: samba ends when it reads the end of it.
            self._process = subprocess.Popen(
                self.command(),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={**os.environ, **self.variables},
            )
        wait_until(self._listens)

    def stop(self) -> None:
        """End it in an orderly way, also when it is suspended; nothing when it does not run."""
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            self._process.send_signal(signal.SIGCONT)
            try:
                self._process.wait(self.grace)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._reap()

    def kill(self) -> None:
        """End it without a goodbye; nothing when it does not run."""
        if self._process is not None:
            self._process.kill()
            self._reap()

    def restart(self) -> None:
        """Stop and start: the same data, every connection gone."""
        self.stop()
        self.start()

    def suspend(self) -> None:
        """It still has its sockets, and says nothing more."""
        self._running().send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.pid, os.WSTOPPED)  # until then it may answer

    def resume(self) -> None:
        """After `suspend`."""
        self._running().send_signal(signal.SIGCONT)

    def remove(self) -> None:
        """Kill it, since nobody needs its files any more, and delete them."""
        self.kill()
        shutil.rmtree(self.home, ignore_errors=True)

    def load(self, ldif: Path | str, *, bind_dn: str = "", bind_pw: str = "") -> None:
        """Import LDIF, a file (Path) or the text itself: entries and change records, as the root DN."""
        text = ldif.read_text("utf-8") if isinstance(ldif, Path) else ldif
        who = ["-D", bind_dn or self.root_dn, "-w", bind_pw or self.root_pw]
        run(["ldapmodify", "-a", "-x", "-H", self.ldapi_uri, *who], text)

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError(f"{type(self).__name__} does not run")
        return self._process

    def _reap(self) -> None:
        process = self._running()
        process.wait()
        if process.stdin is not None:
            process.stdin.close()
        self._process = None

    def _listens(self) -> bool:
        if self._running().poll() is not None:
            said = self.log.read_text("utf-8", "replace")[-3000:]
            raise RuntimeError(f"{type(self).__name__} did not start: {said}")
        try:
            self.probe()
        except OSError:
            return False
        return True
