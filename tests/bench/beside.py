"""The benchmark of README: how fast the service is, beside what else there is, in one run and one table."""

import argparse
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tests.bench import kit, memory, postfwd, smtp, speed
from tests.bench.kit import FULL, QUICK, Kit
from tests.bench.table import Row, lines

ROWS: dict[str, Callable[[Kit], Iterator[Row]]] = {
    "speed": speed.rows,
    "memory": memory.rows,
    "postfwd": postfwd.rows,
    "postfix": smtp.rows,
}


def main(arguments: Sequence[str]) -> None:
    """Measures and prints."""
    chosen = parser().parse_args(arguments)
    if reason := kit.lacking():
        raise SystemExit(reason)
    if chosen.pin:
        os.sched_setaffinity(0, {(os.cpu_count() or 1) - 1})
    with tempfile.TemporaryDirectory(prefix="ldappolicy-bench-") as folder:
        made = Kit(Path(folder), QUICK if chosen.quick else FULL)
        made.make()
        rows = (row for name in chosen.only or ROWS for row in ROWS[name](made))
        for line in lines(command(chosen), rows):
            print(line, flush=True)


def parser() -> argparse.ArgumentParser:
    """What may be asked for."""
    made = argparse.ArgumentParser(prog="bench", description=__doc__)
    made.add_argument("--quick", action="store_true", help="fewer and shorter rounds")
    made.add_argument("--only", choices=ROWS, action="append", default=[], help="these rows")
    made.add_argument("--pin", action="store_true", help="the load generator has a core to itself")
    return made


def command(chosen: argparse.Namespace) -> str:
    """As make takes it."""
    flags = (f"{name.upper()}=1" for name in ("quick", "pin") if getattr(chosen, name))
    only = (f"ONLY='{' '.join(chosen.only)}'",) if chosen.only else ()
    return " ".join(("make bench", *flags, *only))
