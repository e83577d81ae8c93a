"""What is said to systemd, and the sockets that it passes.

The protocols, of sd_notify(3), sd_watchdog_enabled(3) and sd_listen_fds(3), are a datagram of `NAME=value`
lines to $NOTIFY_SOCKET, and listening sockets from descriptor 3 on, told by $LISTEN_PID and $LISTEN_FDS.
Nothing here needs systemd: without those variables nothing is said, and no socket is taken. The variables
are for one process: `take` removes them, so that no child obeys them.
"""

import asyncio
import logging
import os
import socket
import time
from collections.abc import Callable, MutableMapping
from contextlib import suppress
from dataclasses import dataclass, field

from ldappolicy.doors import Door, door_of
from ldappolicy.errors import ConfigError

FIRST = 3
"""SD_LISTEN_FDS_START."""

AGAIN_S = 1.0
"""Seconds after which it is said again that the service is ready, when that could not be sent."""

PATIENCE_S = 30.0
"""Seconds that are asked for at a time (EXTEND_TIMEOUT_USEC), while the start takes longer."""

VARIABLES = (
    *("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"),
    *("LISTEN_PID", "LISTEN_PIDFDID", "LISTEN_FDS", "LISTEN_FDNAMES"),
)

logger = logging.getLogger("ldappolicy.systemd")


@dataclass(slots=True)
class Systemd:
    """The service manager, or nobody.

    `doors` are the sockets that were passed, `watchdog` is how often it wants to hear of us, in seconds (0:
    never).
    """

    doors: list[Door] = field(default_factory=list)
    watchdog: float = 0.0
    address: str = ""
    _owed: asyncio.Event = field(default_factory=asyncio.Event, compare=False)

    def ready(self, status: str) -> None:
        """Requests can be answered; after `reloading`, that this is over. `attend` repeats it if need be."""
        if self._say("READY=1", f"STATUS={status}"):
            self._owed.clear()
        else:
            self._owed.set()

    def reloading(self) -> None:
        """The configuration is read again."""
        self._owed.clear()
        # The manager compares it with its own CLOCK_MONOTONIC, to tell this reload from an earlier one.
        self._say("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    async def attend(
        self, is_ready: asyncio.Event, status: Callable[[], str], is_healthy: Callable[[], bool]
    ) -> None:
        """Says when requests can be answered, and from then on that they still can; until it is cancelled."""
        while not is_ready.is_set():
            self.waiting(status()) if is_healthy() else self.status(status())
            with suppress(TimeoutError):
                async with asyncio.timeout(PATIENCE_S / 3):
                    await is_ready.wait()
        self.ready(status())
        while True:
            with suppress(TimeoutError):
                # Half of it, as sd_watchdog_enabled(3) advises.
                async with asyncio.timeout(self.watchdog / 2 or PATIENCE_S):
                    await self._owed.wait()
                    await asyncio.sleep(AGAIN_S)
            self.ready(status()) if self._owed.is_set() else self.status(status())
            if is_healthy():
                self.alive()

    def waiting(self, status: str) -> None:
        """Not ready yet, but at work: the time for the start begins anew."""
        self._say(f"STATUS={status}", f"EXTEND_TIMEOUT_USEC={int(PATIENCE_S * 1_000_000)}")

    def stopping(self) -> None:
        """Requests in hand are finished, no others are taken."""
        self._say("STOPPING=1", "STATUS=finishing what is in hand")

    def status(self, text: str) -> None:
        """A line for `systemctl status`."""
        self._say(f"STATUS={text}")

    def alive(self) -> None:
        """The watchdog need not bite."""
        self._say("WATCHDOG=1")

    def _say(self, *lines: str) -> bool:
        """A manager that does not listen is no reason to stop, or to wait; whether it was sent."""
        if not self.address:
            return True
        text = "\n".join(line.replace("\n", " ") for line in lines)
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.setblocking(False)
                sock.sendto(text.encode("utf-8", "replace"), self.address)
        except OSError as problem:
            logger.warning("nothing said to systemd: %s", problem)
            return False
        return True


def take(environ: MutableMapping[str, str]) -> Systemd:
    """What the environment says is for this process; raises ConfigError for sockets that cannot be used."""
    given = {name: environ.pop(name, "") for name in VARIABLES}
    return Systemd(_passed(given), _watchdog(given), _address(given["NOTIFY_SOCKET"]))


def _address(path: str) -> str:
    """An abstract socket is written with `@` for the NUL; others than AF_UNIX are not spoken to."""
    if path.startswith("@"):
        return f"\0{path[1:]}"
    return path if path.startswith("/") else ""


def _watchdog(given: MutableMapping[str, str]) -> float:
    if given["WATCHDOG_PID"] not in ("", str(os.getpid())) or not given["WATCHDOG_USEC"].isdecimal():
        return 0.0
    return int(given["WATCHDOG_USEC"]) / 1_000_000


def _passed(given: MutableMapping[str, str]) -> list[Door]:
    if given["LISTEN_PID"] != str(os.getpid()) or not given["LISTEN_FDS"].isdecimal():
        return []
    descriptors = range(FIRST, FIRST + int(given["LISTEN_FDS"]))
    names = given["LISTEN_FDNAMES"].split(":")
    doors = []
    for place, descriptor in enumerate(descriptors):
        try:
            os.set_inheritable(descriptor, False)
            doors.append(door_of(socket.socket(fileno=descriptor)))
        except OSError as problem:
            name = names[place] if place < len(names) else ""
            what = f"descriptor {descriptor} ({name or 'unnamed'}) is no socket: {problem.strerror}"
            raise ConfigError(f"passed by systemd: {what}, expected one that listens") from None
    return doors
