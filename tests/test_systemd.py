"""What is said to systemd and when, and the sockets that it passes; the manager is played by the test."""

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile

import pytest

from ldappolicy.systemd import AGAIN_S, PATIENCE_S, VARIABLES, Systemd, take
from tests.labs.clock import on_virtual_time
from tests.labs.ldappolicy import Ldappolicy, Sections
from tests.labs.slapd import Slapd
from tests.labs.systemd import Systemd as Manager

PID = str(os.getpid())

# Environment variables; what is understood by them: the address, and how often it wants to hear of us.
ENVIRONMENTS = [
    ({}, "", 0.0),
    ({"NOTIFY_SOCKET": "/run/notify"}, "/run/notify", 0.0),
    ({"NOTIFY_SOCKET": "@notify/x"}, "\0notify/x", 0.0),
    ({"NOTIFY_SOCKET": "vsock:2:1234"}, "", 0.0),
    ({"NOTIFY_SOCKET": "relative"}, "", 0.0),
    ({"WATCHDOG_USEC": "3000000"}, "", 3.0),
    ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": PID}, "", 3.0),
    ({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}, "", 0.0),
    ({"WATCHDOG_USEC": "-1"}, "", 0.0),
    ({"LISTEN_PID": "1", "LISTEN_FDS": "2"}, "", 0.0),
    ({"LISTEN_PID": PID, "LISTEN_FDS": "0"}, "", 0.0),
    ({"LISTEN_PID": PID, "LISTEN_FDS": "x"}, "", 0.0),
    ({"LISTEN_FDS": "2"}, "", 0.0),
]


@pytest.mark.parametrize(("variables", "address", "watchdog"), ENVIRONMENTS)
def test_environment(variables: dict[str, str], address: str, watchdog: float) -> None:
    """What is meant for another process, or is none of the forms, is not for us; all is taken away."""
    environ = {**variables, "PATH": "/bin"}
    assert Systemd([], watchdog, address) == take(environ)
    assert {"PATH": "/bin"} == environ


SAYINGS: list[tuple[Callable[[Systemd], None], list[str]]] = [
    (lambda systemd: systemd.ready("fine"), ["READY=1", "STATUS=fine"]),
    (lambda systemd: systemd.ready("a\nREADY=1"), ["READY=1", "STATUS=a READY=1"]),
    (lambda systemd: systemd.waiting("so"), ["STATUS=so", f"EXTEND_TIMEOUT_USEC={int(PATIENCE_S * 1e6)}"]),
    (Systemd.stopping, ["STOPPING=1", "STATUS=finishing what is in hand"]),
    (Systemd.alive, ["WATCHDOG=1"]),
    (lambda systemd: systemd.status("\udcff"), ["STATUS=?"]),
]


@pytest.mark.parametrize("is_abstract", [False, True])
@pytest.mark.parametrize(("say", "lines"), SAYINGS)
def test_sayings(tmp_path: Path, is_abstract: bool, say: Callable[[Systemd], None], lines: list[str]) -> None:
    """One datagram each, of lines that nobody else can add to."""
    with Manager(tmp_path, is_abstract=is_abstract) as manager:
        say(take({"NOTIFY_SOCKET": manager.address}))
        assert [lines] == manager.hear()


def test_reloading(tmp_path: Path) -> None:
    """With the time of the manager's clock."""
    with Manager(tmp_path) as manager:
        before = time.monotonic_ns() // 1000
        take({"NOTIFY_SOCKET": manager.address}).reloading()
        said = manager.wait_for("RELOADING=1")
        assert before <= int(said[1].removeprefix("MONOTONIC_USEC=")) <= time.monotonic_ns() // 1000


@pytest.mark.parametrize("address", ["/nonexistent/notify", "@nobody-is-there"])
def test_nobody_listens(address: str) -> None:
    """A manager that is gone stops nothing."""
    take({"NOTIFY_SOCKET": address}).ready("fine")


def test_a_manager_whose_queue_is_full(tmp_path: Path) -> None:
    """That the service is ready is said again until it is heard, and then no more."""

    async def attend(manager: Manager) -> None:
        environ = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "10000000", "WATCHDOG_PID": PID}
        is_ready = asyncio.Event()
        is_ready.set()
        fill(manager.address)
        attending = asyncio.create_task(take(environ).attend(is_ready, lambda: "fine", lambda: True))
        await asyncio.sleep(AGAIN_S - 0.01)
        assert [] == heard(manager, "READY=1")
        await asyncio.sleep(15.02)
        attending.cancel()
        assert [["READY=1", "STATUS=fine"]] == heard(manager, "READY=1")
        assert 4 == len(heard(manager, "WATCHDOG=1"))  # at once, and then in half of its time

    with Manager(tmp_path) as manager:
        on_virtual_time(attend(manager))


def heard(manager: Manager, line: str) -> list[list[str]]:
    """What was said so far with such a line."""
    return [said for said in manager.hear() if line in said]


@pytest.mark.parametrize(("is_healthy", "extended"), [(True, 4), (False, 0)])
def test_a_start_that_takes_long(tmp_path: Path, is_healthy: bool, extended: int) -> None:
    """Its time begins anew well before it is over, as long as there is somebody at work."""

    async def attend(manager: Manager) -> None:
        is_ready, systemd = asyncio.Event(), take({"NOTIFY_SOCKET": manager.address})
        attending = asyncio.create_task(systemd.attend(is_ready, lambda: "busy", lambda: is_healthy))
        await asyncio.sleep(PATIENCE_S + 1)
        assert (4, []) == (len(heard(manager, "STATUS=busy")), heard(manager, "READY=1"))
        assert extended == len(heard(manager, f"EXTEND_TIMEOUT_USEC={int(PATIENCE_S * 1e6)}"))
        is_ready.set()
        await asyncio.sleep(1)
        assert 1 == len(heard(manager, "READY=1"))
        attending.cancel()

    with Manager(tmp_path) as manager:
        on_virtual_time(attend(manager))


def fill(address: str) -> None:
    """As many datagrams as there is room for."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender, suppress(BlockingIOError):
        sender.setblocking(False)
        while True:
            sender.sendto(b"STATUS=busy", address)


TAKE = """
import os
from ldappolicy.errors import ConfigError
from ldappolicy.systemd import VARIABLES, take
try:
    for door in take(os.environ).doors:
        print(door.listener, door.socket.get_inheritable(), door.socket.getblocking(), door.inode)
except ConfigError as problem:
    print(problem)
print([name for name in VARIABLES if name in os.environ])
"""


def taken(manager: Manager, *fds: int) -> list[str]:
    """What a process says that got these descriptors."""
    command = manager.command(fds, [sys.executable, "-c", TAKE])
    return subprocess.run(
        command, pass_fds=fds, capture_output=True, text=True, check=True
    ).stdout.splitlines()


def test_passed_sockets(tmp_path: Path) -> None:
    """Each with its address, closed to children, and a file that is not ours."""
    with Manager(tmp_path) as manager:
        port = manager.addresses[0][1]
        told = [f"inet:127.0.0.1:{port} False False None", f"unix:{manager.file} False False None", "[]"]
        assert told == taken(manager, *manager.fds)


@pytest.mark.servers
def test_passed_by_mistake(tmp_path: Path) -> None:
    """What accepts no connections cannot be served."""
    datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    deaf = socket.socket(socket.AF_UNIX)
    with Manager(tmp_path) as manager, TemporaryFile() as file, datagrams, deaf:
        for one in (datagrams, deaf):
            expected = "the socket 3 that was passed does not listen, expected a stream socket that does"
            assert [expected, "[]"] == taken(manager, one.fileno())
        no_socket = "is no socket: Socket operation on non-socket, expected one that listens"
        assert [f"passed by systemd: descriptor 4 (b) {no_socket}", "[]"] == taken(
            manager, manager.fds[0], file.fileno()
        )


# ---------------------------------------------------------------- the program


def served(manager: Manager, sections: Sections | None = None, *, by_exec: bool = False) -> Ldappolicy:
    """The service, as this manager starts it: by a fork, or the installed command."""
    if by_exec:
        return Ldappolicy(sections, command=manager.command(), pass_fds=manager.fds)
    return Ldappolicy(sections, **manager.passes)


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.servers)])
def test_life(tmp_path: Path, workers: int) -> None:
    """Ready, fed, reloaded, refused, stopped; the passed sockets are what is served, and stay."""
    sections: Sections = {"server": {"workers": workers}}
    with (
        Manager(tmp_path, watchdog=0.2) as manager,
        served(manager, sections, by_exec=workers == 2) as service,
    ):
        assert "policies in force: revision" in manager.wait_for("READY=1")[1]
        assert f"inet:127.0.0.1:{manager.addresses[0][1]}" == service.inet
        assert not Path(service.unix.removeprefix("unix:")).exists()
        manager.wait_for("WATCHDOG=1", 2)
        service.hang_up()
        manager.wait_for("READY=1", 2)
        service.config.write_text("[server]\nx = 1\n")
        service.hang_up()
        manager.wait_for("READY=1", 3)
        service.wait_for_log("configuration refused, the old one stays: .*unknown key")
        service.process.terminate()
        service.hang_up()
        assert 0 == service.stop()
        lines = [line for said in manager.hear() for line in said]
        wanted = ("READY=1", "RELOADING=1", "STOPPING=1")
        order = [line for line in lines if line in wanted]
        assert ["READY=1", *["RELOADING=1", "READY=1"] * 2] == order[:5]
        assert "STOPPING=1" == order[-1]
        assert manager.file.is_socket()


@pytest.mark.servers
def test_ready_when_policies_are_in_force(tmp_path: Path, example_ldif: Path) -> None:
    """While the directory is away the start takes longer, and only that is said."""
    with Slapd(schema="ldappolicy") as slapd:
        slapd.load(example_ldif)
        slapd.kill()
        sections: Sections = {"directory": {"uri": [slapd.uri]}}
        with Manager(tmp_path) as manager, served(manager, sections) as service:
            service.wait_for_log("no policies yet")
            waiting = manager.wait_for(f"EXTEND_TIMEOUT_USEC={int(PATIENCE_S * 1e6)}")
            assert "STATUS=no policies yet, requests are answered as on_unavailable says" == waiting[0]
            assert [] == [said for said in manager.hear() if "READY=1" in said]
            slapd.start()
            manager.wait_for("READY=1")
            assert 0 == service.stop()  # in the middle of the first load of a mirror


def test_names_of_the_variables() -> None:
    """Every variable of sd_notify(3), sd_watchdog_enabled(3) and sd_listen_fds(3) is kept from children."""
    expected = "LISTEN_FDNAMES LISTEN_FDS LISTEN_PID LISTEN_PIDFDID NOTIFY_SOCKET WATCHDOG_PID WATCHDOG_USEC"
    assert expected.split() == sorted(VARIABLES)
