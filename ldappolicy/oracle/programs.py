"""The programs that a private Postfix takes: each is started here, and reads no configuration but ours.

A program that is missing, fails, is ended by a signal or does not end is an OracleError of one line: what
was run, what became of it, what it said. `configure` writes the folder that Postfix's programs insist on
(-c): its main.cf, and its dynamicmaps.cf, since both would else be those of /etc/postfix.
"""

import os
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import IO

from ldappolicy.errors import OracleError

DEADLINE = 120.0
"""Seconds that Postfix may take for one thing."""

SEARCH_PATH = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"))

_ENVIRONMENT = {"MAIL_CONFIG": "/nonexistent", "LDAPNOINIT": "1"}
"""For each: where -c was forgotten there is no main.cf; libldap reads no ldap.conf."""

_INDEXED = frozenset(("cdb", "lmdb", "sdbm"))
"""Types of tables in shared objects that postmap(1) makes an index for."""


def run(*command: str | Path, timeout: float = DEADLINE) -> str:
    """What the program says on its standard output, when it has ended well."""
    words = [str(word) for word in command]
    try:
        done = subprocess.run(
            words,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            env=os.environ | _ENVIRONMENT,
        )
    except OSError as problem:
        raise _failure(words, f"cannot be run: {problem.strerror}") from problem
    except subprocess.TimeoutExpired:
        raise _failure(words, f"has not ended within {timeout:g} seconds") from None
    if done.returncode:
        raise _failure(words, _ending(done.returncode), done.stderr or done.stdout)
    return done.stdout


def start(*command: str | Path, output: IO[str]) -> subprocess.Popen[bytes]:
    """The program, running: its standard input is a pipe, all that it says goes to `output`."""
    words = [str(word) for word in command]
    try:
        return subprocess.Popen(
            words,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ | _ENVIRONMENT,
        )
    except OSError as problem:
        raise _failure(words, f"cannot be run: {problem.strerror}") from problem


def _ending(status: int) -> str:
    if status > 0:
        return f"ended with status {status}"
    try:
        return f"was ended by {signal.Signals(-status).name}"
    except ValueError:  # a signal of real time
        return f"was ended by signal {-status}"


def _failure(words: list[str], what: str, said: str = "") -> OracleError:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return OracleError(f"{shlex.join(words)!r} {what}{': ' if lines else ''}{'; '.join(lines)}")


def program(name: str, built: Path | None = None) -> str:
    """The path of one of Postfix's commands."""
    return str(built / "bin" / name) if built else shutil.which(name, path=SEARCH_PATH) or name


@cache
def parameter(name: str, built: Path | None = None) -> str:
    """A default that was compiled in; the machine's own main.cf is not read."""
    return run(program("postconf", built), "-d", "-h", name).strip()


def configure(folder: Path, parameters: Mapping[str, str], built: Path | None = None) -> None:
    """Writes a main.cf, and names the types of tables that are shared objects of this Postfix."""
    # What Postfix's commands log would go to the machine's syslog, or to a postlogd(8) in its own queue.
    private = {
        "meta_directory": folder,
        "queue_directory": folder,
        "maillog_file": folder / "log",
        "maillog_file_prefixes": "/",
    }
    main = {**private, **parameters}
    (folder / "main.cf").write_text("".join(f"{name} = {value}\n" for name, value in main.items()))
    objects = Path(parameter("shlib_directory", built)).glob("postfix-*.so")
    kinds = sorted(path.stem.removeprefix("postfix-") for path in objects)
    types = folder / "dynamicmaps.cf"
    types.write_text("".join(map(_dynamic, kinds)))
    types.chmod(0o644)  # Postfix reads none that others may write
    make_old(folder / "main.cf", types)


def _dynamic(kind: str) -> str:
    """A line of dynamicmaps.cf: type, shared object, function that opens, function that makes."""
    makes = f" mkmap_{kind}_open" if kind in _INDEXED else ""
    return f"{kind} postfix-{kind}.so dict_{kind}_open{makes}\n"


def make_old(*paths: Path, seconds: float = 60) -> None:
    """Postfix waits up to two seconds for a file that may still be written to (util/dict.c)."""
    then = time.time() - seconds
    for path in paths:
        os.utime(path, (then, then))


@cache
def table_types() -> frozenset[str]:
    """The types of tables that this Postfix has."""
    with tempfile.TemporaryDirectory(prefix="ldappolicy-") as name:
        configure(Path(name), {"compatibility_level": "3.6"})
        return frozenset(run(program("postconf"), "-c", name, "-m").split())
