"""Rows of a peer: postfwd(8) as Debian has it, with the same data as files, beside the service in turn.

The same rules in its language: lists are tables, read once at start. `jump` leads to the few rules that a
request needs. DNS, rule logging and statistics are off. Its request cache is asked for what is in it already.
"""

import grp
import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path

from tests.bench.kit import Kit, Part
from tests.bench.load import Run, Target, in_turn, once, timed
from tests.bench.services import ldappolicy, on_cores, server_cores
from tests.bench.table import Row, rate
from tests.labs.server import SBIN
from tests.labs.slapd import wait_until

PROGRAM = "postfwd1"
CONNECTIONS = 10
PATIENCE = 3
"""How much longer a run takes than others."""
CACHE = ("--cache=3600", "--cacheid=sender,recipient,sasl_username")
NO_CACHE = ("--cache=0",)


def lacking() -> str:
    """What it takes; empty: nothing is missing."""
    return "" if shutil.which(PROGRAM, path=SBIN) else "apt-get install --no-install-recommends postfwd"


def rows(kit: Kit) -> Iterator[Row]:
    """Without its cache, and with it."""
    if reason := lacking():
        yield Row("postfwd", f"not measured: {reason}")
        return
    step = max(1, kit.sizes.requests // kit.sizes.subset)
    part = kit.part("subset", range(0, kit.sizes.requests, step))
    with ExitStack() as stack:
        plain = stack.enter_context(postfwd(kit, "plain", NO_CACHE))
        cached = stack.enter_context(postfwd(kit, "cached", CACHE))
        ours = stack.enter_context(ldappolicy(kit)).unix
        for target in (ours, cached):
            once(kit, target, CONNECTIONS, part)
        targets = {"plain": plain, "cached": cached, "ours": ours}
        contestants = {name: partial(at_random, kit, target, part) for name, target in targets.items()}
        found = in_turn(kit.sizes.rounds, contestants)
    title = f"{PROGRAM} {version()}, {part.count:,} requests, {CONNECTIONS} connections"
    yield rate(f"{title}, no cache", found["plain"], "ldappolicy", found["ours"])
    yield rate(f"{title}, all in its request cache", found["cached"], "ldappolicy", found["ours"])


def at_random(kit: Kit, target: Target, part: Part) -> Run:
    """One longer run, since some requests take long; in file order it would see the beginning alone."""
    seconds = f"{PATIENCE * kit.sizes.seconds}"
    return timed(kit, target, CONNECTIONS, "-m", "random", "-T", seconds, part=part)


@contextmanager
def postfwd(kit: Kit, name: str, options: tuple[str, ...]) -> Iterator[Target]:
    """One that listens on a socket file. It leaves its parent: its process id is in a file."""
    folder = kit.folder / f"postfwd-{name}"
    folder.mkdir()
    write_rules(kit, folder)
    socket, pid_file = folder / "socket", folder / "pid"
    user, group = pwd.getpwuid(os.getuid()).pw_name, grp.getgrgid(os.getgid()).gr_name
    command = [shutil.which(PROGRAM, path=SBIN) or PROGRAM, "--daemon", f"--file={folder / 'rules'}"]
    command += ["--proto=unix", f"--port={socket}", "--umask=0111", f"--pidfile={pid_file}"]
    command += [f"--user={user}", f"--group={group}", "--perfmon", "--norulelog", "--norulestats", "--nodns"]
    with on_cores(server_cores()):
        subprocess.run(
            [*command, *options],
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    try:
        wait_until(lambda: socket.exists() and pid_file.exists() and pid_file.read_text().strip(), 60)
        yield Target(("-u", str(socket)), int(pid_file.read_text()))
    finally:
        end(pid_file)


def end(pid_file: Path) -> None:
    """Ends what has written its process id there, if anything has."""
    with suppress(FileNotFoundError, ProcessLookupError, ValueError):
        pid = int(pid_file.read_text())
        os.kill(pid, 15)
        wait_until(lambda: not Path(f"/proc/{pid}").exists(), 20)


def write_rules(kit: Kit, folder: Path) -> None:
    """The two rules; who is in a table is looked for where it matters only, since each table is walked."""
    directory = kit.directory
    users, lists = directory["users"], directory["lists"]
    restricted = _table(folder / "restricted", [name for name, user in users.items() if user["restricted"]])
    names = [entry["cn"] for entry in lists.values()]
    rules = [
        f"id=INSIDE; recipient_domain=={directory['domain']}; action=jump(TO_A_LIST)",
        f"id=RESTRICTED; sender=={restricted}; action=REJECT",
        "id=OUTSIDE; action=DUNNO",
        f"id=TO_A_LIST; recipient=={_table(folder / 'lists', lists)}; action=jump({names[0]})",
        "id=ORDINARY; action=DUNNO",
    ]
    rules += (
        f"id={lists[to]['cn']}; recipient=={to}; action=jump({lists[to]['cn']}_members)" for to in lists
    )
    for name, entry in zip(names, lists.values(), strict=True):
        members = _table(folder / name, entry["members"])
        rules += (f"id={name}_members; sender=={members}; action=DUNNO", f"id={name}_others; action=REJECT")
    (folder / "rules").write_text("".join(f"{rule}\n" for rule in rules))


def _table(path: Path, items: list[str] | dict[str, object]) -> str:
    path.write_text("".join(f"{item}\n" for item in items))
    return f"table:{path}"


def version() -> str:
    """As it tells it: `postfwd1 1.35 ...`."""
    command = [shutil.which(PROGRAM, path=SBIN) or PROGRAM, "--version"]
    told = subprocess.run(command, capture_output=True, text=True, check=False).stdout.split()
    return told[1] if len(told) > 1 else ""
