"""What takes seconds to make and is copied from then on: made once a run, by whichever process asks first.

The folder belongs to the process that started the tests, and goes with it: nothing is kept from run to run.
"""

import atexit
import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

PLACE = "LDAPPOLICY_TEMPLATES"
"""Tells the processes of one run (pytest-xdist) where."""


def place() -> Path:
    """The folder of the run; made, and removed at its end, by the first process."""
    if PLACE not in os.environ:
        os.environ[PLACE] = tempfile.mkdtemp(prefix="templates-")
        atexit.register(shutil.rmtree, os.environ[PLACE], ignore_errors=True)
    return Path(os.environ[PLACE])


def template(name: str, make: Callable[[Path], None]) -> Path:
    """The folder of that name, filled by `make` when there is none yet; others wait for it."""
    made, half = place() / name, place() / f"{name}.half"
    with (place() / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            shutil.rmtree(half, ignore_errors=True)  # somebody did not come to the end of it
            half.mkdir()
            make(half)
            half.rename(made)
    return made


def copy(source: Path, target: Path) -> None:
    """What is in the one folder, into the other."""
    subprocess.run(["cp", "-a", "--sparse=always", f"{source}/.", str(target)], check=True)
