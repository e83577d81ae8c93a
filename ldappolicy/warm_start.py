"""What a service knew when it stopped, for one that starts while the directory is away.

In the snapshot are the policies in force, the answers that are remembered, and what the mirror holds, in the
form of answers to a lookup of a kind of its own. A file that is damaged, or is not ours, is refused and said,
and then it is as if there were none. It is written beside the event loop, which is not held up by it.
"""

import asyncio
import logging
import time
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

from ldappolicy import snapshot
from ldappolicy.directory.packing import Packed
from ldappolicy.entry import Entry
from ldappolicy.errors import ConfigError, InputError
from ldappolicy.freshness import WITNESSES, Freshness
from ldappolicy.log import Limited
from ldappolicy.resolver import Remembered
from ldappolicy.service import Service
from ldappolicy.snapshot import Snapshot

MIRROR = "mirror"
"""The kind of the lookup under which there is what a mirror held; nobody looks it up."""

PIECE = 50
"""Entries of the mirror in one line: half a millisecond, for which the event loop may have to wait."""

PAUSE = 500
"""Answers that are gone through without a pause: about a millisecond."""

logger = logging.getLogger("ldappolicy.warm_start")


class WarmStart:
    """The snapshot at a path (empty: none) of a site (`assembly.site`) whose servers have a profile."""

    def __init__(self, path: str, site: str, profile: str) -> None:
        self._path = Path(path) if path else None
        self._site = site
        self._profile = profile
        self._mirrored: list[Remembered] = []
        self._warnings = Limited(logger)

    async def profile(self) -> str:
        """What the servers were found to be, by the file, which `read` may refuse; empty: unknown."""
        return await asyncio.to_thread(snapshot.profile, self._path) if self._path is not None else ""

    async def read(self, service: Service) -> Sequence[Entry]:
        """Gives a service the answers of the file; returns the entries of its policies."""
        if self._path is None:
            return ()
        try:
            known = await asyncio.to_thread(snapshot.read, self._path, self._site, time.time())
        except (ConfigError, InputError) as problem:
            logger.error("snapshot refused: %s", problem)
            return ()
        if known is None:
            return ()
        outcomes = list(known.outcomes)
        self._mirrored = [outcome for outcome in outcomes if outcome[0][0] == MIRROR]
        service.resolver.recall(outcome for outcome in outcomes if outcome[0][0] != MIRROR)
        found = list(dict.fromkeys(entry.dn for _, entries, _ in outcomes for entry in entries))
        service.resolver.directory.set_witnesses(found[:: -(-len(found) // WITNESSES) or 1])
        logger.info("snapshot read: %d answers", service.resolver.entries)
        return known.policies

    @property
    def has_mirror(self) -> bool:
        """Whether there is a mirror in the file, which has not been given to anybody."""
        return bool(self._mirrored)

    async def begin(self, freshness: Freshness) -> None:
        """Gives it, once, the mirror of the file."""
        mirrored, self._mirrored = self._mirrored, []
        if mirrored:
            entries = [entry for _, piece, _ in mirrored for entry in piece]
            await freshness.begin_with(entries, mirrored[0][2])

    async def keep(self, service: Service, freshness: Freshness | None) -> None:
        """Writes down what is known, if there is anything; while a mirror is in doubt the old file stays."""
        if self._path is None or not service.policy_entries:
            return
        held = freshness.held() if freshness is not None else ()
        if held is None:
            return
        written, policies, age = time.time(), service.policy_entries, service.resolver.data_age or 0.0
        outcomes = chain(await _remembered(service), _mirrored(held, age))
        known = Snapshot(written, self._site, policies, outcomes, self._profile)
        try:
            await asyncio.to_thread(snapshot.write, self._path, known)
        except ConfigError as problem:
            self._warnings.log(logging.ERROR, f"snapshot not written: {problem}")


async def _remembered(service: Service) -> list[Remembered]:
    known = []
    for outcome in service.resolver.remembered():
        known.append(outcome)
        if len(known) % PAUSE == 0:
            await asyncio.sleep(0)
    return known


def _mirrored(held: Sequence[Packed], age: float) -> Iterator[Remembered]:
    """Unpacked as it is written, in the thread that writes, which no change can reach: entries are values."""
    for start in range(0, len(held), PIECE):
        entries = (Entry(packed.dn, dict(packed.items())) for packed in held[start : start + PIECE])
        yield (MIRROR, str(start)), tuple(entries), age
