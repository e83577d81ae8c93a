"""Rows of memory: each worker after its start and after the requests, and cached entries.

PSS shares what processes have in common among them, USS leaves it out (proc_pid_smaps(5)).
"""

import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.bench.company import LIST_SIZE, Company
from tests.bench.directory import apart, fill_cache
from tests.bench.kit import Kit
from tests.bench.load import once
from tests.bench.services import Served, ldappolicy
from tests.bench.table import Row
from tests.labs.server import are_installed
from tests.labs.slapd import Slapd

ENTRIES = 100_000
PAUSE = 0.5
"""Seconds between two looks."""


def rows(kit: Kit) -> Iterator[Row]:
    """One worker, two workers, cached entries."""
    people = f"{kit.sizes.users:,} users in an LDIF file"
    for workers, whose in ((1, "the one worker"), (2, "each of 2 workers")):
        with ldappolicy(kit, workers=workers) as served:
            yield Row(f"memory of {whose} after its start, {people}", _told(served))
            wrong = once(kit, served.unix, 100).wrong
            title = f"memory of {whose} after {kit.sizes.requests:,} requests in all"
            yield Row(title, _told(served), wrong=f"{wrong}")
    yield cached(kit)


def _told(served: Served) -> str:
    each = settled(served.workers)
    pss, uss = (sum(column) / len(each) / 1e6 for column in zip(*each, strict=True))
    return f"PSS {pss:.1f} MB, USS {uss:.1f} MB"


def settled(pids: Sequence[int]) -> list[tuple[int, int]]:
    """PSS and USS of processes once they stay as they are: a second worker may still be reading its file."""
    before, now = 0, [shares(pid) for pid in pids]
    while abs(sum(uss for _, uss in now) - before) > before / 100:
        before = sum(uss for _, uss in now)
        time.sleep(PAUSE)
        now = [shares(pid) for pid in pids]
    return now


def shares(pid: int) -> tuple[int, int]:
    """PSS and USS of a process, in bytes."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text("ascii")
    sizes = {name: int(size) * 1024 for name, size in re.findall(r"^(\w+): +(\d+) kB$", text, re.MULTILINE)}
    return sizes["Pss"], sizes["Private_Clean"] + sizes["Private_Dirty"]


def cached(kit: Kit) -> Row:
    """On demand from a private slapd, in a process that holds nothing else."""
    title = f"memory of {ENTRIES:,} cached entries, on demand"
    if not are_installed("slapd", "slapadd"):
        return Row(title, "not measured: apt-get install slapd ldap-utils")
    users = max(kit.sizes.cached, 3 * LIST_SIZE)
    company = Company(users, max(1, users // 100), LIST_SIZE)
    with Slapd(schema="ldappolicy", data="".join(company.ldif())) as slapd:
        entries, more, wrong = apart(fill_cache, slapd.uri, company, kit.sizes.cached)
    return Row(title, f"{more / entries * ENTRIES / 1e6:.1f} MB", f"{entries:,} measured", wrong=f"{wrong}")
