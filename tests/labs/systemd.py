"""What systemd does to a service: it binds the sockets and passes them, and listens to what the service says.

    with Systemd(folder) as systemd, Ldappolicy(**systemd.passes) as service:
        systemd.wait_for("READY=1")
        ... systemd.unix, systemd.inet       the sockets, which outlive the service

sd_listen_fds(3) wants the sockets from descriptor 3 on, and the process id of the service in its environment:
`labs.forks` sees to both, and for other programs a few lines of Python, which then become it (`command`).
"""

import os
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.labs.ldappolicy import program

DEADLINE = 180.0

BECOME = """
import fcntl, os, sys
fds, settings, command = sys.argv[1].split(), sys.argv[2].splitlines(), sys.argv[3:]
high = [fcntl.fcntl(int(fd), fcntl.F_DUPFD_CLOEXEC, 100) for fd in fds]     # out of the way of one another
for place, fd in enumerate(high):
    os.dup2(fd, 3 + place)
os.environ.update(setting.split("=", 1) for setting in settings)
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(command[0], command)
"""


class Systemd:
    """A TCP socket on a free port, a socket file, and the socket for notifications."""

    def __init__(self, folder: Path, *, is_abstract: bool = False, watchdog: float = 0.0) -> None:
        self.file = folder / "activated"
        self._watchdog = watchdog
        self._sockets = [socket.create_server(("127.0.0.1", 0)), socket.socket(socket.AF_UNIX)]
        self._sockets[1].bind(str(self.file))
        self._sockets[1].listen(1024)
        self.file.chmod(0o666)
        self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.address = f"@{folder.name}-{os.getpid()}" if is_abstract else str(folder / "notify")
        self._notify.bind(self.address.replace("@", "\0", 1) if is_abstract else self.address)
        self._notify.settimeout(0.1)
        self.said: list[list[str]] = []

    @property
    def fds(self) -> tuple[int, ...]:
        """The descriptors of the sockets, for a child."""
        return tuple(one.fileno() for one in self._sockets)

    @property
    def addresses(self) -> list[tuple[str, int] | str]:
        """Of the sockets: where to connect to."""
        return [self._sockets[0].getsockname(), str(self.file)]

    def environment(self, count: int) -> dict[str, str]:
        """What tells a service of so many sockets, but for its own process id."""
        settings = {"NOTIFY_SOCKET": self.address, "LISTEN_FDS": str(count), "LISTEN_FDNAMES": "a:b"}
        if self._watchdog:
            settings["WATCHDOG_USEC"] = str(int(self._watchdog * 1_000_000))
        return settings

    @property
    def passes(self) -> dict[str, Any]:
        """The sockets, for `Ldappolicy`."""
        return {"pass_fds": self.fds, "environment": self.environment(len(self.fds))}

    def command(self, fds: Sequence[int] | None = None, what: Sequence[str] = ()) -> list[str]:
        """What runs the service, or `what`, with these sockets (by default its own)."""
        passed = self.fds if fds is None else fds
        settings = [f"{name}={value}" for name, value in self.environment(len(passed)).items()]
        become = [sys.executable, "-c", BECOME, " ".join(map(str, passed)), "\n".join(settings)]
        return [*become, *(what or [program()])]

    def hear(self) -> list[list[str]]:
        """Everything that was said so far, the lines of each datagram."""
        self._notify.setblocking(False)
        while True:
            try:
                self.said.append(self._notify.recv(4096).decode().split("\n"))
            except BlockingIOError:
                return self.said

    def wait_for(self, line: str, count: int = 1) -> list[str]:
        """The last datagram of at least so many that have such a line, when it has come."""
        deadline = time.monotonic() + DEADLINE
        while len(found := [said for said in self.hear() if line in said]) < count:
            assert time.monotonic() < deadline, f"{line} was not said: {self.said}"
            time.sleep(0.01)
        return found[-1]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for one in (*self._sockets, self._notify):
            one.close()
