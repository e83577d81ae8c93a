"""The cache in front of a directory.

Found and absent entries live in caches of their own, since spammers choose the absent ones; both are
bounded and expire after the write. Lookups that several requests lack at the same time are asked for once.
When the directory is unavailable the last known answer serves until it is `max_stale` old; what was never
known is `Missed`. What is lacking is planned into as few searches as it takes (`directory.plan`).
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from cachetools import TTLCache

from ldappolicy.directory import Directory
from ldappolicy.directory.plan import Batch, Planner
from ldappolicy.entry import Entry
from ldappolicy.errors import Unavailable
from ldappolicy.facts import Absent, Facts, Found, Lookup, Missed, Outcome

_Asked = dict[Lookup, asyncio.Future[Outcome]]

HOT_SECONDS = 5.0
"""How long a fresh outcome is used without looking at its age again: at most a tenth of its ttl."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How long answers are trusted (seconds), and how many are kept."""

    size: int = 100_000
    ttl: float = 300.0
    negative_ttl: float = 60.0
    max_stale: float = 14_400.0


class Resolver:
    """Answers lookups from its caches, else from the directory.

    `clock` is monotonic seconds; the `at` of an outcome is on the same clock.
    """

    def __init__(
        self, directory: Directory, planner: Planner, limits: Limits, clock: Callable[[], float]
    ) -> None:
        self.directory = directory
        self._planner = planner
        self._limits = limits
        self._clock = clock
        self._found: TTLCache[Lookup, Found] = TTLCache(limits.size, max(limits.ttl, limits.max_stale), clock)
        self._absent: TTLCache[Lookup, Absent] = TTLCache(
            limits.size, max(limits.negative_ttl, limits.max_stale), clock
        )
        self._under_way: dict[Lookup, asyncio.Future[Outcome]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._asked_again_since = float("-inf")
        self._hot_until = float("-inf")
        self._forget_hot()
        self.stale_served = 0

    def facts(self) -> Facts:
        """What the caches can answer now, for evaluations until the next call.

        Outcomes that were seen to be fresh a moment ago are found by one look into a dict, without looking
        at their age again.
        """
        now = self._clock()
        if now >= self._hot_until or len(self._hot) > self._limits.size:
            self._hot_until = now + min(HOT_SECONDS, self._limits.ttl / 10, self._limits.negative_ttl / 10)
            self._forget_hot()
        return self._facts

    def _forget_hot(self) -> None:
        self._hot: dict[Lookup, Outcome] = {}
        self._facts = Facts(self._look)

    def known(self, lookup: Lookup) -> Outcome | None:
        """What the caches can answer now, without asking."""
        return self.facts().get(lookup)

    def _look(self, lookup: Lookup) -> Outcome | None:
        outcome = self._hot.get(lookup)
        if outcome is None:
            outcome = self._fresh(lookup)
            if outcome is not None:
                self._hot[lookup] = outcome
        return outcome

    def _fresh(self, lookup: Lookup) -> Outcome | None:
        found = self._found.get(lookup)
        now = self._clock()
        if found is not None:
            return found if self._is_fresh(found.at, self._limits.ttl, now) else None
        absent = self._absent.get(lookup)
        if absent is not None:
            return absent if self._is_fresh(absent.at, self._limits.negative_ttl, now) else None
        return Absent(now) if self._planner.known_absent(lookup) else None

    def _is_fresh(self, at: float, ttl: float, now: float) -> bool:
        return now - at < ttl and at >= self._asked_again_since

    def ask_again(self) -> None:
        """No cached answer is trusted any more; each still serves while the directory is unavailable."""
        self._asked_again_since = self._clock()
        self._forget_hot()

    async def fetch(self, lookups: Iterable[Lookup]) -> Mapping[Lookup, Outcome]:
        """The outcomes of lookups that are not known, all asked for together."""
        wanted = list(lookups)
        fresh = [lookup for lookup in wanted if lookup not in self._under_way]
        if fresh:
            self._start(fresh)
        waiting = {lookup: self._under_way[lookup] for lookup in wanted}
        await asyncio.wait(waiting.values())
        return {lookup: future.result() for lookup, future in waiting.items()}

    def last_known(self, lookup: Lookup, reason: str) -> Outcome:
        """The last answer while it is younger than max_stale, else that it is unavailable."""
        last = self._found.get(lookup) or self._absent.get(lookup)
        if last is None or self._clock() - last.at >= self._limits.max_stale:
            return Missed(reason)
        self.stale_served += 1
        return last

    def _start(self, lookups: list[Lookup]) -> None:
        """Begins the searches; they go on when the request that began them gives up."""
        loop = asyncio.get_running_loop()
        asked: _Asked = {lookup: loop.create_future() for lookup in lookups}
        self._under_way.update(asked)
        task = loop.create_task(self._ask(asked))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _ask(self, asked: _Asked) -> None:
        try:
            batches = self._planner.plan(list(asked))
            await asyncio.gather(*(self._ask_batch(batch, asked) for batch in batches))
        finally:
            for lookup in [lookup for lookup, future in asked.items() if not future.done()]:
                self._settle(asked, lookup, self.last_known(lookup, "the lookup was given up"))

    async def _ask_batch(self, batch: Batch, asked: _Asked) -> None:
        asked_at = self._clock()
        try:
            answers = await batch.ask(self.directory)
        except Unavailable as problem:
            for lookup in batch.lookups:
                self._settle(asked, lookup, self.last_known(lookup, str(problem)))
            return
        for lookup, entries in answers.items():
            self._settle(asked, lookup, self._remember(lookup, entries, asked_at))

    def _remember(self, lookup: Lookup, entries: tuple[Entry, ...], at: float) -> Outcome:
        """Writes an answer to its cache."""
        if entries:
            self._absent.pop(lookup, None)
            found = self._found[lookup] = Found(entries, at)
            return found
        self._found.pop(lookup, None)
        absent = self._absent[lookup] = Absent(at)
        return absent

    def _settle(self, asked: _Asked, lookup: Lookup, outcome: Outcome) -> None:
        """Tells those who wait; by then the same may be under way again, which is not ours to end."""
        future = asked[lookup]
        if not future.done():
            future.set_result(outcome)
            if self._under_way.get(lookup) is future:
                del self._under_way[lookup]

    @property
    def entries(self) -> int:
        """How many outcomes are cached."""
        return len(self._found) + len(self._absent)
