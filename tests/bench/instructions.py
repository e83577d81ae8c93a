"""What one request takes, in numbers that a busy machine does not change: `make bench-instructions`.

Bytecodes and calls of the package (`counting`) beside those of `instructions.json`, which holds them for each
minor version of Python; a test keeps them from growing. Beside them the processor's instructions, of the
interpreter, its libraries and the client as well, where perf(1) has a counter, or valgrind(1) is installed.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests.bench.counting import REPEATED, texts

COMMITTED = Path(__file__).with_name("instructions.json")
VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"
MARGIN = 1.10
"""How much more is a regression."""
LAPS = 20
COUNTER = [sys.executable, "-m", "tests.bench.counting"]

Counts = Mapping[str, Mapping[str, float]]


def committed() -> dict[str, Counts]:
    """The counts that are to hold, by the version of Python."""
    found: dict[str, Counts] = json.loads(COMMITTED.read_text()) if COMMITTED.exists() else {}
    return found


def counted() -> Counts:
    """Those of now; in a process of its own, where nobody else traces and sets have one order."""
    done = subprocess.run(COUNTER, capture_output=True, text=True, check=False, env=_environment())
    if done.returncode:
        raise RuntimeError(f"counting ended with {done.returncode}: {done.stderr[-2000:]}")
    found: Counts = json.loads(done.stdout)
    return found


def grown(before: Counts, now: Counts) -> list[str]:
    """What takes more than it may, in words."""
    return [
        f"{stage}: {number:,.1f} {name} a request, expected at most {MARGIN:.2f} * {known:,.1f}"
        for stage, numbers in now.items()
        for name, number in numbers.items()
        if number > MARGIN * (known := before.get(stage, {}).get(name, 0.0))
    ]


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONHASHSEED": "0"}


# ------------------------------------------------------------ the processor's


def with_perf(command: Sequence[str]) -> int | None:
    """Instructions in user mode; None without a counter, as on most virtual machines."""
    if shutil.which("perf") is None:
        return None
    told = _stderr(["perf", "stat", "-x,", "-e", "instructions:u", *command])
    count = told.strip().rpartition("\n")[2].partition(",")[0]
    return int(count) if count.isdigit() else None


def with_valgrind(command: Sequence[str]) -> int | None:
    """The same, as cachegrind counts them, fifty times as slow; None where it is not installed."""
    if shutil.which("valgrind") is None:
        return None
    options = ["--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"]
    told = re.search(r"I +refs: +([\d,]+)", _stderr(["valgrind", *options, *command]))
    return int(told[1].replace(",", "")) if told else None


def _stderr(command: Sequence[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=_environment())
    return done.stderr if done.returncode == 0 else ""


def machine(stage: str) -> str:
    """Instructions a request, and who counted; more laps beside fewer, so that the start does not count."""
    counters: dict[str, Callable[[Sequence[str]], int | None]] = {
        "perf": with_perf,
        "valgrind": with_valgrind,
    }
    for name, count in counters.items():
        few, many = (count([*COUNTER, stage, str(laps)]) for laps in (1, 1 + LAPS))
        if few is not None and many is not None:
            return f"{(many - few) / LAPS / len(texts()):,.0f} ({name})"
    return "not counted: apt-get install valgrind"


# ------------------------------------------------------------ showing, keeping


def main(arguments: Sequence[str]) -> None:
    """Counts, and prints or writes."""
    parser = argparse.ArgumentParser(prog="instructions", description=__doc__)
    parser.add_argument("--update", action="store_true", help="write the counts of this Python anew")
    parser.add_argument("--no-machine", action="store_true", help="bytecodes and calls alone")
    chosen = parser.parse_args(arguments)
    known, now = committed(), counted()
    show(known.get(VERSION, {}), now)
    if chosen.update:
        COMMITTED.write_text(json.dumps({**known, VERSION: now}, indent=2, sort_keys=True) + "\n")
        print(f"written: {COMMITTED.name}, Python {VERSION}")
    elif not chosen.no_machine:
        for stage in REPEATED:
            print(f"{stage}: instructions of the processor a request: {machine(stage)}", flush=True)


def show(before: Counts, now: Counts) -> None:
    """Markdown: each stage, with what is committed in parentheses."""
    names = list(next(iter(now.values())))
    print(f"A request takes, on Python {VERSION} (committed):\n")
    print(f"| stage | {' | '.join(name.replace('_', ' ') for name in names)} |")
    print("|---|" + "---|" * len(names))
    for stage, numbers in now.items():
        known = before.get(stage, {})
        cells = (f"{numbers[name]:,.1f} ({known.get(name, 0.0):,.1f})" for name in names)
        print(f"| {stage} | {' | '.join(cells)} |")
