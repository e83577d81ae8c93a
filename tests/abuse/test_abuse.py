"""Every scene of abuse in small: what has to hold stands in it. `python -m tests.abuse`: in full size.

One of them is enough with every run: what all have in common is in it, and a service that is still right.
"""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.abuse import clients, resources, workers
from tests.abuse.__main__ import SCENES
from tests.abuse.scene import Row

SMALL: dict[str, Callable[[Path], Row]] = {
    "slow_loris": lambda _: clients.slow_loris(200, 20, 0.02),
    "half_closed": lambda _: clients.half_closed(200),
    "deaf": lambda _: clients.deaf(20),
    "too_many": lambda _: clients.too_many(1500, 50),
    "large": lambda _: clients.large(60),
    "hostile_names": lambda _: clients.hostile_names(),
    "absent_flood": lambda _: resources.absent_flood(4000, 1000),
    "full_disk_snapshot": resources.full_disk_snapshot,
    "full_disk_log": lambda folder: resources.full_disk_log(folder, 2000),
    "dev_full": lambda _: resources.dev_full(500),
    "no_descriptors": lambda _: resources.no_descriptors(64, 200),
    "clock_steps": resources.clock_steps,
    "stopped": lambda _: resources.stopped(100),
    "killed_worker": lambda _: workers.killed_worker(40, 2),
}


def marked(name: str) -> object:
    """The scene in its tier."""
    return pytest.param(name, marks=pytest.mark.servers if name == "half_closed" else pytest.mark.long)


@pytest.mark.parametrize("name", [marked(name) for name in SCENES])
def test_scene(name: str, tmp_path: Path) -> None:
    """It runs to its end, and has figures to tell."""
    row = SMALL[name](tmp_path)
    assert all((row.what, row.how_much, row.seen))
