"""The cache in front of a directory.

Found and absent entries live in caches of their own, since spammers choose the absent ones; both are
bounded and expire after the write. Lookups that several requests lack at the same time are asked for once,
and what is lacking when the event loop comes round is planned into as few searches as it takes
(`directory.plan`). When the directory is unavailable the last known answer serves until it is `max_stale`
old; what was never known is `Missed`.

Where a change stream vouches (`vouch`), an answer is trusted until a change concerns it (`changed`); once
the stream is lost (`unvouch`), for its ttl from then on. Where there is a mirror, it answers whatever it can.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice

from cachetools import TTLCache

from ldappolicy.counters import Counters
from ldappolicy.directory import Directory
from ldappolicy.directory.changes import Changed, Deleted, entry_uuid
from ldappolicy.directory.plan import LONGEST_VALUE, RESEMBLES, Batch, Held, Planner
from ldappolicy.entry import Entry, key_of_dn
from ldappolicy.errors import InputError, Unavailable
from ldappolicy.facts import FOREVER, Absent, Facts, Found, Lookup, Missed, Outcome, Renamed
from ldappolicy.invalidation import Dependencies
from ldappolicy.memories import ANSWER_BYTES, Bound, Memory

_Asked = dict[Lookup, asyncio.Future[Outcome]]

HOT_SECONDS = 5.0
"""How long a fresh outcome is used without looking at its age again: at most a tenth of its ttl.

Where a stream vouches for all that is in use, until a change is told.
"""

DEPENDENCIES = 8
"""What answers depend on is noted for at most so many times the number of answers that are kept."""

ECHO = 60.0
"""Seconds in which requests may be in hand that a mirror, which was given up, has answered in part."""

MAX_RENAMED = 1000
"""Old names that stand for new ones at a time; who renames more than that has them as the directory says."""

_NEVER = float("-inf")


@dataclass(frozen=True, slots=True)
class Limits:
    """How long answers are trusted (seconds), and how many are kept."""

    size: int = 100_000
    ttl: float = 300.0
    negative_ttl: float = 60.0
    max_stale: float = 14_400.0


_CHOSEN = frozenset(("mail", "login", "domain", "addressed", "url"))
"""Kinds of lookups whose keys clients choose: absent ones are kept apart, or a flood would sweep the rest."""

Remembered = tuple[Lookup, tuple[Entry, ...], float]
"""A lookup, its entries (none: absent), and how old the answer is in seconds."""


class _Hot(Memory[Lookup, Found | Absent]):
    """Outcomes that were seen to be fresh a moment ago; what is not among them is looked for elsewhere."""

    def __init__(self, bound: Bound, heat: Callable[[Lookup], Outcome | None]) -> None:
        super().__init__(bound)
        self._heat = heat

    def __missing__(self, lookup: Lookup) -> Outcome | None:
        return self._heat(lookup)


class Resolver:
    """Answers lookups from its caches, else from the directory.

    `clock` is monotonic seconds; the `at` of an outcome is on the same clock. `wall` is seconds since 1970,
    for what directories give a date. `counters` count the answers that are served though they are stale.
    """

    def __init__(
        self,
        directory: Directory,
        planner: Planner,
        limits: Limits,
        clock: Callable[[], float],
        counters: Counters | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.directory = directory
        self.counters = counters or Counters()
        self._stale = self.counters.cache["stale"]
        self._mirror: Held | None = None
        self._mirror_echoes_until = _NEVER
        self._planner = planner
        self._links = frozenset(map(str.lower, planner.mapping.links))
        self._limits = limits
        self.clock = clock
        self._wall = wall
        longest = max(limits.ttl, limits.negative_ttl, limits.max_stale)
        self._found: TTLCache[Lookup, Found | Absent] = TTLCache(limits.size, longest, clock, _units)
        self._absent: TTLCache[Lookup, Absent] = TTLCache(limits.size, longest, clock)
        self._dependencies = Dependencies(planner.mapping)
        self._most_dependencies = DEPENDENCIES * limits.size
        self._queued: _Asked = {}
        self._under_way: _Asked = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._asked_again_since = _NEVER
        self._vouched_since = FOREVER
        self._vouched_until = _NEVER
        self._gap = (FOREVER, _NEVER)
        self._changes = 0
        self._renamed: Mapping[str, Renamed] = {}
        self._unsettled: set[str] = set()
        self.current_until = _NEVER
        """Until when `facts` need not be asked for: they are `current`, those of the last call."""
        self._recalled_at = _NEVER
        self._wall_since = self._wall_until = FOREVER
        self._forget_hot()

    def facts(self, now: float | None = None) -> Facts:
        """What the caches can answer now (on the resolver's clock), for evaluations until the next call.

        Outcomes that were seen to be fresh a moment ago are found by one look into a dict, without looking
        at their age again.
        """
        if now is None:
            now = self.clock()
        if now >= self.current_until:
            # What is not vouched for is looked up in the caches now and then: unused, it would be let go of.
            is_over = self._trusted_until < FOREVER or self._hot.is_full
            wall = self._wall()
            has_turned = not self._wall_since <= wall < self._wall_until  # or the clock was set
            if is_over or has_turned or self.directory.features != self._features:
                self._forget_hot()
            seconds = (HOT_SECONDS, self._limits.ttl / 10, self._limits.negative_ttl / 10)
            self.current_until = now + min(*seconds, self._wall_until - wall)
        return self.current

    def _hold_until(self, instant: float) -> None:
        """What has been concluded from `current` is otherwise from an instant on, in seconds since 1970."""
        if instant < self._wall_until:
            self._wall_until = instant
            self.current_until = min(self.current_until, self.clock() + instant - self._wall())

    def _forget_hot(self) -> None:
        self._hot = _Hot(Bound(self._limits.size, self._limits.size * ANSWER_BYTES), self._heat)
        self._trusted_until = self._oldest = FOREVER
        features = self._features = self.directory.features
        chained = self._planner.mapping.in_chain and features.is_active_directory and self._mirror is None
        get, tells_apart = self._hot.__getitem__, features.has_matched_values
        self._wall_since = self._wall()
        self._wall_until = FOREVER
        self.current = Facts(
            get,
            has_chain=chained,
            tells_apart=tells_apart,
            renamed=self._renamed,
            now=self._wall,
            holds_until=self._hold_until,
        )

    def known(self, lookup: Lookup) -> Outcome | None:
        """What the caches can answer now, without asking."""
        return self.facts().get(lookup)

    def _heat(self, lookup: Lookup) -> Outcome | None:
        """The outcome, which from now on is found by one look; not for much longer than it is trusted."""
        now = self.clock()
        mirrored = self._fresh_in_mirror(lookup, now)
        if isinstance(mirrored, Missed):
            return mirrored
        outcome = mirrored or self._fresh(lookup, now)
        if outcome is None:
            return None
        if len(lookup[-1]) > LONGEST_VALUE:
            return outcome  # nobody has it, and clients choose it
        told = self._is_told(lookup, outcome)
        is_vouched = told and self._vouched_until == FOREVER
        if is_vouched and (outcome.at == now or self._valid_at(outcome.at, now) == now):
            self._keep_hot(lookup, outcome)
            return outcome  # until a change is told, or none is any more
        valid_at = self._valid_at(outcome.at, now) if told else outcome.at
        self._oldest = min(self._oldest, valid_at)
        turns_at = valid_at + (self._limits.ttl if mirrored else self._ttl(outcome))
        if turns_at < self.current_until:
            return replace(outcome, turns_at=turns_at)  # nothing that is kept may rest on it
        self._keep_hot(lookup, outcome)
        self._trusted_until = min(self._trusted_until, turns_at)
        return outcome

    def _keep_hot(self, lookup: Lookup, outcome: Found | Absent) -> None:
        hot = self._hot
        hot[lookup] = outcome
        for entry in outcome.entries:
            hot.used += entry.size
        if len(hot) > hot.most or hot.used > hot.size:
            self.current_until = _NEVER  # evaluations go on until then

    def _ttl(self, outcome: Found | Absent) -> float:
        return self._limits.ttl if isinstance(outcome, Found) else self._limits.negative_ttl

    def _fresh_in_mirror(self, lookup: Lookup, now: float) -> Outcome | None:
        ttl = self._limits.ttl
        is_vouched = self._vouched_until == FOREVER and ttl > 0
        if self._mirror is None or not (is_vouched or self._is_fresh(self._vouched_at(now), ttl, now)):
            return None
        return self._mirrored(lookup, now)

    def _fresh(self, lookup: Lookup, now: float) -> Found | Absent | None:
        known = self._found.get(lookup) or self._absent.get(lookup)
        if known is not None:
            is_fresh = self._is_fresh(known.at, self._ttl(known), now, told=self._is_told(lookup, known))
            return known if is_fresh else None
        if self._planner.known_absent(lookup):
            return Absent(now)
        # Entries of the mirror come without memberOf, and a request in hand may hold one.
        told = self._mirror is None and now >= self._mirror_echoes_until
        if told and self._planner.told_by_member_of(lookup, self.directory.features):
            return Absent(now)
        return None

    def _mirrored(self, lookup: Lookup, now: float) -> Outcome | None:
        """The answer of the mirror, as old as what the stream last vouched for."""
        if self._mirror is None:
            return None
        at = self._vouched_at(now)
        if self._planner.known_absent(lookup):
            return Absent(at)
        try:
            entries = self._planner.from_mirror(lookup, self._mirror)
        except Unavailable as problem:
            return Missed(str(problem))
        if entries is None:
            return None
        return Found(entries, at) if entries else Absent(at)

    def _is_fresh(self, at: float, ttl: float, now: float, *, told: bool = True) -> bool:
        valid_at = self._valid_at(at, now) if told else at
        return now - valid_at < ttl and at >= self._asked_again_since

    def _is_told(self, lookup: Lookup, outcome: Found | Absent) -> bool:
        """Whether streams tell of all that an answer depends on.

        They do not tell that a list was amended since somebody it names was renamed, and Active Directory
        tells of the attributes that are watched, while the filter of a URL may look at any.
        """
        if lookup[0] in ("url", "match") and self.directory.features.is_active_directory:
            return False
        links = self._links
        return not (outcome.entries and any(entry.has_any(links) for entry in outcome.entries))

    # ------------------------------------------------------------ changes

    def use_mirror(self, held: Held | None) -> None:
        """From now on a copy of the directory answers what it can; None: there is none any more."""
        if self._mirror is not None:
            self._mirror_echoes_until = self.clock() + ECHO
        self._mirror = held
        self._forget_hot()

    def begin_with(self, held: Held, age: float) -> None:
        """Begins with a copy of another time, for an outage."""
        self.ask_again()
        self._vouched_until = self.clock() - age
        self.use_mirror(held)

    @property
    def data_age(self) -> float | None:
        """Seconds since a change stream last vouched for what is known; None without one."""
        now = self.clock()
        return None if self._vouched_until == _NEVER else now - self._vouched_at(now)

    @property
    def recalled_age(self) -> float | None:
        """How old the youngest of the answers of another time is; None without any."""
        return None if self._recalled_at == _NEVER else self.clock() - self._recalled_at

    def age(self, now: float, outcomes: Iterable[Outcome] = ()) -> float | None:
        """Seconds since what is at hand, or was asked for, was known to be right, at most.

        0 while a stream vouches for it; None where nothing is known.
        """
        known = (self._valid_at(one.at, now) for one in outcomes if not isinstance(one, Missed))
        oldest = min(known, default=self._oldest) if outcomes else self._oldest
        if oldest == FOREVER:
            return 0.0 if self._vouched_until == FOREVER else None
        return max(0.0, now - min(oldest, self._oldest))

    def vouch(self) -> None:
        """From now on every change is told; what was, since it last was so, has been."""
        now = self.clock()
        self._vouched_since = min(self._vouched_since, now)
        if _NEVER < self._vouched_until < now:
            # Who was asked meanwhile may have been another server, which was behind.
            self._gap = (min(self._gap[0], self._vouched_until), now)
        self._vouched_until = FOREVER
        self._forget_hot()

    def unvouch(self) -> None:
        """Changes are not told any more."""
        now = self.clock()
        self._vouched_until = min(self._vouched_until, now)
        self._trusted_until = min(self._trusted_until, now + min(self._limits.ttl, self._limits.negative_ttl))
        self._oldest = min(self._oldest, now)

    def _vouched_at(self, now: float) -> float:
        return min(now, self._vouched_until)

    def _valid_at(self, at: float, now: float) -> float:
        """Until when an answer that was asked for then is known to have been right."""
        if at < self._vouched_since or self._gap[0] < at < self._gap[1]:
            return at
        return max(at, self._vouched_at(now))

    def changed(self, change: Changed | Deleted, before: Entry | None = None) -> None:
        """Forgets the answers that a change may make wrong; `before` is the entry as it was, if known."""
        self._changes += 1
        if isinstance(change, Changed):
            gone = self._dependencies.touched(before, change.entry, change.members, change.uuid)
        else:
            last = _of_name(change.dn)
            gone = self._dependencies.touched(before or last, None, None, change.uuid)
        for lookup in gone:
            self._found.pop(lookup, None)
            self._absent.pop(lookup, None)
        self._under_way = dict(self._queued)  # what is on its way may be older
        self._forget_hot()

    def renamed(self, old: str, new: str) -> None:
        """From now on who names one DN means another, which is the same entry; see `name_ends`."""
        key, new_key = key_of_dn(old), key_of_dn(new)
        if key == new_key or len(self._renamed) >= MAX_RENAMED:
            return
        names = {**self._renamed, key: Renamed(old, new, new_key)}
        names.pop(new_key, None)
        for earlier, one in names.items():
            if one.key == key:
                names[earlier] = Renamed(one.old, new, new_key)
        self._renamed = names
        self._forget_hot()

    def name_ends(self, dn: str) -> bool:
        """An old DN means nothing any more, or another entry that has it; whether it did mean one."""
        key = key_of_dn(dn)
        if key not in self._renamed:
            return False
        self._renamed = {old: one for old, one in self._renamed.items() if old != key}
        self._forget_hot()
        return True

    def is_renamed(self, dn: str) -> bool:
        """Whether an old DN stands for another."""
        return key_of_dn(dn) in self._renamed

    def unsettled(self, dn: str) -> None:
        """Who has a DN may have had another, by which groups name it still; see `settled`.

        Until then what is answered about its groups is stale as it comes, and not kept.
        """
        if len(self._unsettled) < MAX_RENAMED:
            self._unsettled.add(key_of_dn(dn))

    def settled(self, dn: str) -> None:
        """Groups have been amended."""
        self._unsettled.discard(key_of_dn(dn))

    def forget_names(self) -> None:
        """Nobody tells any more when another entry takes an old DN."""
        self._unsettled.clear()
        if self._renamed:
            self._renamed = {}
            self._forget_hot()

    def known_entry(self, uuid: str) -> Entry | None:
        """An entry as it was last answered, by its identity."""
        for lookup in self._dependencies.on(uuid):
            outcome = self._found.get(lookup)
            for entry in outcome.entries if outcome is not None else ():
                if entry_uuid(entry) == uuid:
                    return entry
        return None

    def lately_found(self, most: int) -> list[str]:
        """The DNs of some entries that were answered lately."""
        found = (entry.dn for outcome in self._hot.values() for entry in outcome.entries)
        return list(islice(dict.fromkeys(found), most))

    def ask_again(self) -> None:
        """No cached answer is trusted any more; each still serves while the directory is unavailable."""
        self._changes += 1
        self._asked_again_since = self._vouched_since = self.clock()
        self._under_way = dict(self._queued)
        self._gap = (FOREVER, _NEVER)
        if self._vouched_until == _NEVER:
            self._vouched_since = FOREVER
        self._forget_hot()

    # ------------------------------------------------------------ asking

    async def fetch(self, lookups: Iterable[Lookup]) -> Mapping[Lookup, Outcome]:
        """The outcomes of lookups that are not known, asked for together with those of other requests."""
        wanted = list(lookups)
        for lookup in wanted:
            if lookup not in self._under_way:
                self._queue(lookup)
        waiting = {lookup: self._under_way[lookup] for lookup in wanted}
        await asyncio.wait(waiting.values())
        return {lookup: future.result() for lookup, future in waiting.items()}

    def look_ahead(self, lookups: Iterable[Lookup]) -> None:
        """Asks for what everybody will need, and waits for nothing."""
        for lookup in lookups:
            if self.known(lookup) is None and lookup not in self._under_way:
                self._queue(lookup)

    def _queue(self, lookup: Lookup) -> None:
        """What is lacking in this turn of the event loop is asked for at its end: nobody waits for more."""
        loop = asyncio.get_running_loop()
        if not self._queued:
            loop.call_soon(self._start)
        self._under_way[lookup] = self._queued[lookup] = loop.create_future()

    def last_known(self, lookup: Lookup, reason: str) -> Outcome:
        """The last answer while it is younger than max_stale, else that it is unavailable."""
        now = self.clock()
        mirrored = self._mirrored(lookup, now)
        if isinstance(mirrored, Missed):
            return mirrored
        known = (mirrored, self._found.get(lookup), self._absent.get(lookup))
        valid = {self._valid_at(one.at, now): one for one in known if one is not None}
        if not valid or now - max(valid) >= self._limits.max_stale:
            return Missed(reason)
        self._stale.add()
        valid_at = max(valid)
        last = valid[valid_at]
        fresh_until = valid_at if self._is_told(lookup, last) else last.at
        fresh_until += self._limits.ttl if last is mirrored else self._ttl(last)
        if now < fresh_until:
            return replace(last, turns_at=fresh_until)
        return replace(last, turns_at=valid_at + self._limits.max_stale, is_stale=True)

    def _start(self) -> None:
        """Begins the searches; they go on when the request that began them gives up."""
        asked, self._queued = self._queued, {}
        task = asyncio.get_running_loop().create_task(self._ask(asked))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _ask(self, asked: _Asked) -> None:
        try:
            batches = self._planner.plan(asked, self.directory.features)
            await asyncio.gather(*(self._ask_batch(batch, asked) for batch in batches))
        finally:
            for lookup in [lookup for lookup, future in asked.items() if not future.done()]:
                self._settle(asked, lookup, self.last_known(lookup, "the lookup was given up"))

    async def _ask_batch(self, batch: Batch, asked: _Asked) -> None:
        asked_at, changes = self.clock(), self._changes
        try:
            answers = await batch.ask(self.directory)
        except Unavailable as problem:
            for lookup in batch.lookups:
                self._settle(asked, lookup, self.last_known(lookup, str(problem)))
            return
        for lookup in set(batch.lookups).difference(answers):
            # The server did answer: what it said before is no longer so.
            self._found.pop(lookup, None)
            self._absent.pop(lookup, None)
            self._settle(asked, lookup, Missed(RESEMBLES))
        for lookup, entries in answers.items():
            outcome = Found(entries, asked_at) if entries else Absent(asked_at)
            if self._unsettled and lookup[0] == "groups" and key_of_dn(lookup[1]) in self._unsettled:
                self._settle(asked, lookup, replace(outcome, is_stale=True, turns_at=asked_at))
                continue
            # What changed while the answer was on its way may have come before it or after it.
            if changes == self._changes or self._vouched_since > asked_at:
                self._remember(lookup, outcome)
            self._settle(asked, lookup, outcome)

    def _remember(self, lookup: Lookup, outcome: Found | Absent) -> None:
        """Writes an answer to its cache, unless it takes a good part of that."""
        self._found.pop(lookup, None)
        self._absent.pop(lookup, None)
        if isinstance(outcome, Absent) and lookup[0] in _CHOSEN:
            self._absent[lookup] = outcome
        elif _units(outcome) > max(1, self._limits.size // 8):
            return
        else:
            self._found[lookup] = outcome
        self._dependencies.add(lookup, outcome.entries)
        if self._dependencies.size > self._most_dependencies:
            self._count_dependencies()

    def _count_dependencies(self) -> None:
        """Anew, of what is still remembered; where that is too much, the oldest answers go."""
        self._dependencies.clear()
        for lookup, outcome in reversed(self._outcomes()):
            if 2 * self._dependencies.size < self._most_dependencies:
                self._dependencies.add(lookup, outcome.entries)
            else:
                self._found.pop(lookup, None)
                self._absent.pop(lookup, None)

    def _outcomes(self) -> list[tuple[Lookup, Found | Absent]]:
        return [*self._found.items(), *self._absent.items()]

    def _settle(self, asked: _Asked, lookup: Lookup, outcome: Outcome) -> None:
        """Tells those who wait; by then the same may be under way again, which is not ours to end."""
        future = asked[lookup]
        if not future.done():
            future.set_result(outcome)
            if self._under_way.get(lookup) is future:
                del self._under_way[lookup]

    # ------------------------------------------------------------ what is remembered

    @property
    def entries(self) -> int:
        """How many outcomes are cached."""
        return len(self._found) + len(self._absent)

    @property
    def dependencies(self) -> int:
        """How much is noted of what they depend on."""
        return self._dependencies.size

    @property
    def is_idle(self) -> bool:
        """Whether nothing is being asked for."""
        return not (self._tasks or self._queued)

    def remembered(self) -> Iterator[Remembered]:
        """Every answer that is still good for an outage."""
        now = self.clock()
        for lookup, outcome in self._outcomes():
            age = now - self._valid_at(outcome.at, now)
            if age < self._limits.max_stale:
                yield lookup, outcome.entries, age

    def recall(self, remembered: Iterable[Remembered]) -> None:
        """Takes answers of another time, for an outage."""
        now = self.clock()
        self.ask_again()
        for lookup, entries, age in remembered:
            self._recalled_at = max(self._recalled_at, now - age)
            if lookup not in self._found and lookup not in self._absent:
                self._remember(lookup, Found(entries, now - age) if entries else Absent(now - age))
        self._forget_hot()


def _units(outcome: Found | Absent) -> int:
    """For how many answers one counts."""
    return 1 + sum(entry.size for entry in outcome.entries) // ANSWER_BYTES


def _of_name(dn: str) -> Entry | None:
    """An entry of which only the DN is known; None where that is none."""
    try:
        return Entry(dn, {}) if dn else None
    except InputError:
        return None
