"""`python -m tests.abuse [NAME ...]`: every scene in full size, as a table for README."""

import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.abuse import clients, resources, workers
from tests.abuse.scene import Row

SCENES: dict[str, Callable[[Path], Row]] = {
    "slow_loris": lambda _: clients.slow_loris(2000, 30, 1.0),
    "half_closed": lambda _: clients.half_closed(1000),
    "deaf": lambda _: clients.deaf(500),
    "too_many": lambda _: clients.too_many(10_000, 1000),
    "large": lambda _: clients.large(1000),
    "hostile_names": lambda _: clients.hostile_names(),
    "absent_flood": lambda _: resources.absent_flood(100_000, 20_000),
    "full_disk_snapshot": resources.full_disk_snapshot,
    "full_disk_log": lambda folder: resources.full_disk_log(folder, 20_000),
    "dev_full": lambda _: resources.dev_full(20_000),
    "no_descriptors": lambda _: resources.no_descriptors(256, 2000),
    "clock_steps": resources.clock_steps,
    "stopped": lambda _: resources.stopped(1000),
    "killed_worker": lambda _: workers.killed_worker(400, 10),
}


def main(asked: list[str]) -> int:
    """Prints a row a scene; 1 when one did not hold."""
    failed = 0
    print("| what | how much | what was seen |\n|---|---|---|", flush=True)
    for name in asked or SCENES:
        start = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="abuse-") as folder:
            Path(folder).chmod(0o755)
            try:
                row = SCENES[name](Path(folder))
                print(f"| {row.what} | {row.how_much} | {row.seen} |", flush=True)
            except (AssertionError, OSError, RuntimeError) as problem:
                failed += 1
                traceback.print_exc()
                print(f"| {name} | failed: {problem!r} | |", flush=True)
            except pytest.skip.Exception as reason:
                print(f"| {name} | not done: {reason} | |", flush=True)
        print(f"{name}: {time.monotonic() - start:.0f} s", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
