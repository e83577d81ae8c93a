"""The service itself, as a site runs it: `ldappolicy -c FILE serve`, a process of its own.

    with Ldappolicy({"directory": {"uri": ["ldif:tree.ldif"]}}) as service:
        assert service.ask(sender="a@b.example", recipient="all@my.domain") == "reject,"
        ... service.inet, service.unix      for check_policy_service, in Postfix's notation
        ... service.hang_up(), service.log("revision"), service.wait_for_log("in force")

It listens on a free port of 127.0.0.1 and on a socket file that every user may open (smtpd is not in a
chroot in our lab), and is there when it has answered a first request. The folder holds config.toml, the
socket, and what the process wrote: `stdout` and `stderr`, its log. It is ended by its process id, and
killed where that does not help: nothing stays behind.
"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from ldappolicy.daemon import Timing
from tests.labs import forks
from tests.labs.forks import Forked
from tests.labs.slapd import wait_until

DEADLINE = 180.0
"""Seconds that anything is waited for: a machine may be busy, and none of this is about speed."""

HASTY = Timing(retry_s=0.05, first_reply_s=0.05, tick_s=0.1, missed=150, missed_at_start=3000)
"""A service that waits less than at a site; a worker is given up no sooner."""

Value = str | int | bool | list[str]
Sections = Mapping[str, Mapping[str, Value]]

# The example company; what a test says replaces it, key by key. A server that is held up is waited for:
# what comes too late is said by the test that is about it.
EXAMPLE: Sections = {
    "server": {"request_timeout": "1m"},
    "directory": {
        "timeout": "1m",
        "uri": ["ldif:" + str(Path(__file__).parents[2] / "schema" / "example.ldif")],
        "search_base": "dc=example,dc=com",
        "policy_base": "ou=policy,dc=example,dc=com",
    },
    "log": {"decisions": "all"},
}


def program() -> str:
    """The command of the environment that runs the tests, else the one in PATH."""
    beside = Path(sys.executable).parent / "ldappolicy"
    return str(beside) if beside.exists() else shutil.which("ldappolicy") or "ldappolicy"


def toml(sections: Sections) -> str:
    """Sections as TOML: JSON's strings, numbers, booleans and arrays of strings are TOML's."""
    lines = []
    for name, values in sections.items():
        lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in values.items()), ""]
    return "\n".join(lines)


def merged(*layers: Sections) -> dict[str, dict[str, Value]]:
    """One configuration out of several, the last one that has a key wins."""
    whole: dict[str, dict[str, Value]] = {}
    for layer in layers:
        for name, values in layer.items():
            whole.setdefault(name, {}).update(values)
    return whole


class Ldappolicy:
    """One service; a context manager that always ends what it started."""

    def __init__(
        self,
        sections: Sections | None = None,
        *,
        config: Path | None = None,
        command: Sequence[str] = (),
        pass_fds: Sequence[int] = (),
        environment: Mapping[str, str] | None = None,
        timing: Timing = HASTY,
    ) -> None:
        """`sections` of the configuration differ from EXAMPLE; or `config` is the file, as it stands.

        `command` is run in the place of the program that `labs.forks` has ready, with these descriptors; the
        program itself gets them from 3 on, with more of an `environment`, as by systemd.
        """
        self._pass_fds = tuple(pass_fds)
        self._command = command
        self._environment = environment
        self._timing = timing
        # Not pytest's tmp_path: that is closed to Postfix's user, and its name too long for a socket.
        self.folder = Path(tempfile.mkdtemp(prefix="ldappolicy-"))
        self.folder.chmod(0o755)
        self.unix = f"unix:{self.folder}/policy"
        self.inet = ""
        self.config = config or self.folder / "config.toml"
        # The port is the kernel's choice, told in the first lines on the terminal.
        listen: Sections = {"server": {"listen": ["inet:127.0.0.1:0", self.unix]}}
        if config is None:
            self.configure(merged(listen, EXAMPLE, sections or {}))
        self._process: subprocess.Popen[bytes] | Forked | None = None

    def configure(self, sections: Sections) -> None:
        """Write the configuration; a running service reads it on SIGHUP."""
        self.sections = sections
        self.config.write_text(toml(sections), "utf-8")

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()

    @property
    def process(self) -> subprocess.Popen[bytes] | Forked:
        """The running process."""
        if self._process is None:
            raise RuntimeError("the service does not run")
        return self._process

    def workers(self) -> list[int]:
        """The process ids of its workers, or of whatever else it has started, oldest first."""
        pid = self.process.pid
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def start(self) -> None:
        """Start it; return when it has answered a request."""
        arguments = ["-c", str(self.config), "serve"]
        with (self.folder / "stdout").open("wb") as out, (self.folder / "stderr").open("ab") as err:
            status = os.fstat(err.fileno())  # lines without the time, as in the journal
            environment = {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}", **(self._environment or {})}
            if self._command:
                self._process = subprocess.Popen(
                    [*self._command, *arguments],
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=err,
                    pass_fds=self._pass_fds,
                    env={**os.environ, **environment},
                )
            else:
                self._process = forks.start(
                    arguments,
                    stdout=out,
                    stderr=err,
                    timing=self._timing,
                    passed=self._pass_fds,
                    environment=environment,
                )
        wait_until(self._is_up, DEADLINE)
        self.inet = self._told_port()
        self.ask(protocol_state="CONNECT")

    def stop(self) -> int:
        """SIGTERM, and its exit status; -9 for one that had to be killed."""
        process = self.process
        self._process = None
        if process.poll() is None:
            process.terminate()
            process.send_signal(signal.SIGCONT)
        try:
            return process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        self.process.wait()
        self._process = None

    def hang_up(self) -> None:
        """SIGHUP: read everything again."""
        self.process.send_signal(signal.SIGHUP)

    def remove(self) -> None:
        """Stop it and delete its files."""
        if self._process is not None:
            self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def stdout(self) -> str:
        """What it showed on the terminal so far."""
        return (self.folder / "stdout").read_text("utf-8", "replace")

    def log(self, pattern: str = "") -> list[str]:
        """The lines of its log that match, so far."""
        text = (self.folder / "stderr").read_text("utf-8", "replace")
        return [line for line in text.splitlines() if re.search(pattern, line)]

    def wait_for_log(self, pattern: str, count: int = 1) -> str:
        """The last of at least `count` lines of the log that match, when they have come."""
        deadline = time.monotonic() + DEADLINE
        while len(lines := self.log(pattern)) < count:
            if time.monotonic() > deadline:
                raise AssertionError(f"nothing in the log matches {pattern!r}: {self.log()[-5:]}")
            time.sleep(0.02)
        return lines[-1]

    def ask(self, **attributes: str) -> str | None:
        """The action for one request; None when the connection was closed without one."""
        given = {"request": "smtpd_access_policy", "protocol_state": "RCPT", **attributes}
        text = "".join(f"{name}={value}\n" for name, value in given.items()) + "\n"
        host, port = self.inet.removeprefix("inet:").split(":")
        with socket.create_connection((host, int(port)), DEADLINE) as sock:
            sock.sendall(text.encode("utf-8", "surrogateescape"))
            reply = sock.makefile("rb").readline().decode()
        return reply.removeprefix("action=").rstrip("\n") if reply else None

    def _is_up(self) -> bool:
        if self.process.poll() is not None:
            raise RuntimeError(f"ended with {self.process.returncode}: {' '.join(self.log()[-5:])}")
        return bool(self._told_port())

    def _told_port(self) -> str:
        told = re.search(r'inet:127\.0\.0\.1:\d+(?=[\s,"])', self.stdout())
        return told[0] if told else ""
