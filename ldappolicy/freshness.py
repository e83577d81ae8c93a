"""How what is known follows the directory: the events of a change stream, and the mirror that they keep.

Each change makes the resolver forget the answers that it concerns, is applied to the mirror, and has the
policies read again where it may concern them. What servers do not stream is seen to here:

* the entries below a renamed one have other DNs, of which nothing is told: all is looked at again;
* referential integrity (slapo-refint) amends groups a moment after a member was renamed or deleted: the
  answers that this concerns are forgotten once more, and the groups of the mirror are read again;
* whatever else was missed is found by comparing the mirror with the whole directory every few hours.

The mirror is loaded once the stream is live, so that nothing falls between the two, and is used when it is
complete; until then, when the directory has more than `mirror_max_entries`, and while changes may have
been missed, every lookup is asked on demand.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from itertools import chain
from typing import Protocol

from ldappolicy import facts
from ldappolicy.counters import Counters
from ldappolicy.directory import Directory, Scope, Search
from ldappolicy.directory.changes import (
    Changed,
    Deleted,
    Event,
    Everything,
    Live,
    Lost,
    Source,
    Watched,
    entry_uuid,
)
from ldappolicy.directory.mirror import Applied, Comparison, Mirror, TooLarge
from ldappolicy.directory.packing import Packed
from ldappolicy.entry import Entry, is_below, key_of_dn, normal_dn
from ldappolicy.errors import InputError, Unavailable
from ldappolicy.ldap_filter import Present, attributes_in, parse_url
from ldappolicy.mapping import Mapping
from ldappolicy.policy import object_kind
from ldappolicy.resolver import Resolver

COMPARE = 4 * 3600.0
"""How often the mirror is compared with the directory, in seconds."""

RETRY = 30.0
"""How soon a load that failed is tried again."""

AFTERWARDS = 2.0
"""How long a server takes to amend the groups of somebody who was renamed or deleted; slapd: milliseconds."""

NAME_STANDS = 10.0
"""How long at most an old name stands for the new one, while groups still name it."""

SETTLINGS = 3
"""How often groups are read that change while they are being read; then the mirror is loaded anew."""

WITNESSES = 8
"""Entries found lately that a new connection has to show, see `directory.ldap.proving`."""

STREAMS = frozenset(("syncrepl", "persistent_search", "dirsync"))
"""The ways of watching that tell enough to keep a mirror."""

# RFC 4519, RFC 4524 and RFC 2798: those that have caseIgnoreMatch, and that filters of groups are made of.
COMPARABLE = frozenset(
    (
        *("businesscategory", "cn", "departmentnumber", "description", "displayname", "employeenumber"),
        *("employeetype", "givenname", "l", "o", "ou", "physicaldeliveryofficename", "postalcode"),
        *("preferredlanguage", "roomnumber", "sn", "st", "street", "title", "uid"),
    )
)
"""Attributes that are compared in a mirror as any server compares them."""

logger = logging.getLogger("ldappolicy.freshness")


class _Narrow(Exception):
    """The mirror lacks attributes that are asked for."""


class _Copied(Mirror):
    """A mirror of which there is a copy to be had."""

    def copy(self) -> tuple[Packed, ...] | None:
        """The entries as they are now, at next to no cost; None while some are not to be relied on."""
        held = self._held
        if held is None:
            return ()
        return None if held.is_torn or held.doubtful else tuple(held.entries)


class Origin(Directory, Source, Protocol):
    """A directory that tells of changes."""


@dataclass(frozen=True, slots=True)
class Upkeep:
    """What the configuration says: what to watch and how, and whether to keep a mirror.

    `mode` is "auto", "mirror" or "on_demand"; `poll_interval` and `compare` are in seconds.
    """

    mapping: Mapping
    bases: tuple[str, ...]
    policy_base: str
    attributes: tuple[str, ...]
    watch: str = "auto"
    poll_interval: float = 30.0
    mode: str = "auto"
    mirror_max_entries: int = 500_000
    compare: float = COMPARE

    @property
    def watched(self) -> Watched:
        """What the stream is asked for."""
        return Watched(self.bases, self.attributes, self.members, self.watch, self.poll_interval)

    @property
    def members(self) -> tuple[str, ...]:
        """The attributes that hold members."""
        return (*self.mapping.member_dns, *self.mapping.member_logins)

    def mirror(self) -> _Copied | None:
        """One that holds nothing yet; None where none is wanted."""
        if self.mode == "on_demand":
            return None
        superiors: dict[str, Iterable[str]] | None = {} if self.mapping.shows_all_classes else None
        return _Copied(self.bases, self.attributes, self.members, self.mirror_max_entries, superiors)


class Freshness:
    """Keeps a resolver, its mirror and the policies as the directory is.

    `reload` reads the policies again, `urls` are those that they hold. `kind` is how changes are told (empty:
    not yet), `missed` counts those that a comparison found, and `is_mirrored` says whether a complete mirror
    answers. `counters` count changes by how they were learnt of.
    """

    def __init__(
        self,
        origin: Origin,
        resolver: Resolver,
        upkeep: Upkeep,
        reload: Callable[[], Awaitable[None]],
        urls: Callable[[], Iterable[str]] = tuple,
        counters: Counters | None = None,
    ) -> None:
        self.kind = ""
        self.missed = 0
        self.counters = counters or Counters()
        self.mirror = upkeep.mirror()
        self.is_mirrored = False
        self._is_recalled = False
        self._is_live = False
        self._is_behind = False
        self._origin = origin
        self._resolver = resolver
        self._upkeep = upkeep
        self._reload = reload
        self._urls = urls
        self._policy_base = normal_dn(upkeep.policy_base)
        self._policies_touched = asyncio.Event()
        self._load_wanted = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Until it is cancelled."""
        try:
            await self._follow()
        finally:
            self._resolver.unvouch()
            self._resolver.forget_names()
            for task in self._tasks:
                task.cancel()

    async def _follow(self) -> None:
        while True:
            try:
                steps = (self._watch(), self._read_policies(), self._keep_mirror(), self._note_witnesses())
                async with asyncio.TaskGroup() as tasks:
                    for step in steps:
                        tasks.create_task(step)
            except* _Narrow as problem:
                logger.info("watched anew: %s", problem.exceptions[0])
                self._resolver.unvouch()
                self._resolver.ask_again()

    def compare(self) -> None:
        """Has the mirror compared with the directory now, and not when it is time."""
        self._load_wanted.set()

    def held(self) -> tuple[Packed, ...] | None:
        """What the mirror holds, now; empty when it does not answer, None while it is in doubt."""
        if self.mirror is None or not (self.is_mirrored or self._is_recalled):
            return ()
        return self.mirror.copy()

    async def begin_with(self, entries: Sequence[Entry], age: float) -> None:
        """Begins with what a mirror held so many seconds ago, until the directory answers."""
        if self.mirror is None or not entries:
            return
        try:
            await self.mirror.load(_in_one_page(entries))
            if self._widen(self.mirror):
                await self.mirror.load(_in_one_page(entries))
        except Unavailable as problem:
            logger.warning("the mirror of the snapshot is of no use: %s", problem)
            return
        self._resolver.begin_with(self.mirror, age)
        self._is_recalled = True
        self.counters.changes["snapshot"].add(len(self.mirror))
        logger.info("mirror of the snapshot: %d entries", len(self.mirror))

    async def _watch(self) -> None:
        async with aclosing(self._origin.watch(self._upkeep.watched)) as events:
            async for event in events:
                self._take(event)

    # ------------------------------------------------------------ events

    def _take(self, event: Event) -> None:
        match event:
            case Live(kind):
                self._live(kind)
            case Lost():
                self._lost()
            case Everything(reason):
                self._resolver.forget_names()
                self._look_at_everything(reason)
            case Changed():
                self._changed(event)
            case Deleted():
                self._deleted(event)

    def _live(self, kind: str) -> None:
        first, self.kind = not self.kind, kind
        if first:
            # What was answered before, or held at another time, is not vouched for.
            self._use_mirror(None)
            if self.mirror is not None:
                self.mirror.clear()
            self._resolver.ask_again()
        self._resolver.vouch()
        self._is_live = True
        if first or self._is_behind or not self.is_mirrored:
            self._policies_touched.set()
            self._load_wanted.set()
        self._is_behind = False

    def _lost(self) -> None:
        self._resolver.unvouch()
        self._resolver.forget_names()
        if self._is_live:
            logger.warning("answers expire after their ttl until changes are told again")
        self._is_live = False

    def _look_at_everything(self, reason: str) -> None:
        """Changes may have been missed; the policies may have changed with them."""
        logger.info("everything is looked at again: %s", reason)
        self._use_mirror(None)
        self._resolver.ask_again()
        self._policies_touched.set()
        # What is read before changes are told could be older than the first of them.
        self._is_behind = not self._is_live
        if self._is_live:
            self._load_wanted.set()

    def _changed(self, change: Changed) -> None:
        applied = self._apply(change)
        before = applied.before or self._resolver.known_entry(change.uuid)
        self._resolver.changed(change, before)
        self._resolver.name_ends(change.entry.dn)
        if before is not None:
            self._resolver.renamed(before.dn, change.entry.dn)
        if self._is_policy(change.entry) or (before is not None and self._is_policy(before)):
            self._policies_touched.set()
        moved = not change.is_new and (before is None or before.key != change.entry.key)
        if applied.reload or (moved and not self.is_mirrored and self._is_named_by_others(change)):
            self._look_at_everything(f"{change.entry.dn} may have been renamed, with what is below it")
            if before is not None:
                self._again(change, Applied(), before)
        elif moved or applied.dangling:
            if before is None and not self.is_mirrored:
                self._resolver.unsettled(change.entry.dn)
            self._again(change, applied, before)

    def _deleted(self, change: Deleted) -> None:
        applied = self._apply(change)
        before = applied.before or self._resolver.known_entry(change.uuid)
        self._resolver.changed(change, before)
        if not change.dn or is_below(key_of_dn(change.dn), self._policy_base):
            self._policies_touched.set()
        if applied.reload:
            self._look_at_everything(f"{change.dn or 'an entry'} was deleted, with others below it")
        else:
            self._again(change, applied, before)

    def _apply(self, change: Changed | Deleted) -> Applied:
        self.counters.changes[self.kind or "refresh"].add()
        if self.mirror is None:
            return Applied()
        applied = self.mirror.apply(change)
        if (displaced := applied.displaced) is not None:
            self._resolver.changed(Deleted(entry_uuid(displaced), displaced.dn), displaced)
        return applied

    def _is_policy(self, entry: Entry) -> bool:
        return is_below(entry.key, self._policy_base) or bool(object_kind(entry))

    def _is_named_by_others(self, change: Changed) -> bool:
        """Whether answers may hold the old name of an entry that may have been renamed.

        Those about entries below it, if it is no person, no group and no policy; and, where memberOf is all
        that tells of groups, those about the members of a group that is otherwise and has the same members.
        """
        entry, members = change.entry, change.members
        if object_kind(entry):
            return False
        if self._upkeep.mapping.groups_by_member_of and members is not None:
            is_group = "group" in map(str.lower, entry.values("objectClass"))
            if is_group and not (members.added or members.removed):
                return True
        mapping = self._upkeep.mapping
        names = (*mapping.login, *mapping.mail, *mapping.member_address, *self._upkeep.members)
        return not any(entry.values(name) for name in names)

    # ------------------------------------------------------------ what servers do not tell

    def _again(self, change: Changed | Deleted, applied: Applied, before: Entry | None) -> None:
        task = asyncio.get_running_loop().create_task(self._afterwards(change, applied, before))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _afterwards(self, change: Changed | Deleted, applied: Applied, before: Entry | None) -> None:
        """Once the server has amended the groups that named the entry; then its old name is over."""
        await asyncio.sleep(AFTERWARDS)
        await self._settle(applied.dangling)
        if isinstance(change, Changed):
            self._resolver.settled(change.entry.dn)
        self._resolver.changed(change, before)
        if isinstance(change, Deleted) or before is None or not self._resolver.is_renamed(before.dn):
            return
        if await self._is_still_named(before.dn):
            await asyncio.sleep(NAME_STANDS - AFTERWARDS)
        if self._resolver.name_ends(before.dn):
            self._resolver.changed(change, before)

    async def _is_still_named(self, dn: str) -> bool:
        """Whether a group names a DN; what is not known says nothing to the contrary."""
        lookup = facts.groups(dn, ())
        outcome = self._resolver.known(lookup) or (await self._resolver.fetch((lookup,)))[lookup]
        return not isinstance(outcome, facts.Absent)

    async def _settle(self, dangling: Sequence[str]) -> None:
        """What names some DNs, as it is now, into the mirror; until then those are asked for on demand."""
        for _ in range(SETTLINGS):
            if self.mirror is None or not dangling:
                return
            try:
                read = [await self._origin.search(search) for search in self.mirror.readings(dangling)]
            except Unavailable as problem:
                logger.warning("groups of a changed member cannot be read: %s", problem)
                break
            settled = self.mirror.settle(dangling, chain.from_iterable(read))
            dangling = [dn for applied in settled for dn in applied.dangling]
            for after, before in ((applied.after, applied.before) for applied in settled):
                if after is not None:
                    self._resolver.changed(Changed(entry_uuid(after), after), before)
        if dangling:
            self._load_wanted.set()

    # ------------------------------------------------------------ policies

    async def _read_policies(self) -> None:
        """Changes that come meanwhile are read together, next time."""
        while True:
            await self._policies_touched.wait()
            self._policies_touched.clear()
            await self._reload()

    # ------------------------------------------------------------ the mirror

    async def _keep_mirror(self) -> None:
        """Loads when it has to, compares when it is time."""
        pause = self._upkeep.compare
        while True:
            try:
                async with asyncio.timeout(pause):
                    await self._load_wanted.wait()
            except TimeoutError:
                pass
            self._load_wanted.clear()
            pause = self._upkeep.compare
            if self.mirror is not None and self._wants_mirror and not await self._load(self.mirror):
                pause = RETRY

    @property
    def _wants_mirror(self) -> bool:
        return self._upkeep.mode == "mirror" or self.kind in STREAMS

    def _use_mirror(self, mirror: Mirror | None) -> None:
        self._is_recalled = False
        self.is_mirrored = mirror is not None
        self._resolver.use_mirror(mirror)

    async def _load(self, mirror: Mirror) -> bool:
        """The whole directory, anew or to be compared; False: to be tried again soon."""
        is_comparison, started = self.is_mirrored, time.monotonic()
        try:
            if not await self._holds_all_groups():
                logger.warning("no mirror: groups outside of search_base are known by memberOf alone")
                return True
            comparison = await mirror.load(self._pages())
        except TooLarge as problem:
            self._use_mirror(None)
            mirror.clear()
            logger.warning("lookups are asked on demand: %s", problem)
            return True
        except Unavailable as problem:
            how = "as it was" if is_comparison else "not there, lookups are asked on demand"
            logger.warning("the mirror is %s: %s", how, problem)
            return False
        if is_comparison:
            self._count(comparison)
            self._resolver.ask_again()  # whatever comes next, the mirror has other content now
        if self._load_wanted.is_set() or self._is_behind:
            return True  # something may have been missed meanwhile
        if self._widen(mirror):
            self.kind = ""
            raise _Narrow("filters look at more than the mirror holds")
        self._resolver.ask_again()
        self._use_mirror(mirror)
        await self._settle(comparison.dangling)
        if comparison.reload:
            self._load_wanted.set()
        held, seconds = len(mirror), time.monotonic() - started
        logger.info("mirror complete: %d entries in %.1f s", held, seconds)
        return True

    def _count(self, comparison: Comparison) -> None:
        if missed := comparison.added + comparison.changed + comparison.removed:
            self.missed += missed
            self.counters.changes["comparison"].add(missed)
            logger.warning("%d changes had been missed", missed)

    async def _holds_all_groups(self) -> bool:
        """Whether no group can be outside of what is mirrored; memberOf, which would name it, is not."""
        if not self._upkeep.mapping.member_of:
            return True
        root = Search("", Scope.BASE, Present("objectClass"), ("namingContexts",))
        contexts = {
            key_of_dn(dn) for dse in await self._origin.search(root) for dn in dse.values("namingContexts")
        }
        return key_of_dn(self._upkeep.bases[0]) in contexts

    def _widen(self, mirror: Mirror) -> bool:
        """A wider mirror, if filters of URLs look at more that can be compared without a schema."""
        upkeep = self._upkeep
        searches = [Search(base, Scope.SUB, Present("memberURL"), ("memberURL",)) for base in upkeep.bases]
        found = (entry for search in searches for entry in mirror.find(search) or ())
        urls = [*self._urls(), *(value for entry in found for value in entry.values("memberURL"))]
        known = {name.lower() for name in upkeep.attributes}
        more = tuple(sorted({name for url in urls for name in _looked_at(url)} & COMPARABLE - known))
        if more:
            self._upkeep = replace(upkeep, attributes=(*upkeep.attributes, *more))
            self.mirror = self._upkeep.mirror()
        return bool(more)

    async def _pages(self) -> AsyncIterator[Sequence[Entry]]:
        for base in self._upkeep.bases:
            async with aclosing(self._origin.scan(base, self._upkeep.attributes)) as pages:
                async for page in pages:
                    yield page

    # ------------------------------------------------------------ witnesses

    async def _note_witnesses(self) -> None:
        """While nothing is found, those of before are as good."""
        while True:
            if found := self._resolver.lately_found(WITNESSES):
                self._origin.set_witnesses(found)
            await asyncio.sleep(RETRY)


async def _in_one_page(entries: Sequence[Entry]) -> AsyncIterator[Sequence[Entry]]:
    yield entries


def _looked_at(text: str) -> Iterator[str]:
    """The attributes that a URL's filter and its values are of, in lower case."""
    try:
        url = parse_url(text)
    except InputError:
        return
    yield from map(str.lower, (*url.attributes, *attributes_in(url.filter)))
