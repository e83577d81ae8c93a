"""The mirror: what decisions read of a directory, held in memory and kept up by its change stream.

`find` answers a search, or says None: then the directory has to be asked. What only is not mirrored is never
"there is none"; and where a server, with its schema, might see more than is known here (order, sounds,
subclasses), None is the answer too. memberOf is not mirrored: servers do not tell when it changes.

Servers do not tell everything: not what referential integrity does to the groups of an entry that was deleted
or renamed, and not the new names of what is below a renamed entry. Hence:

* A DN that an entry has left, or that a new entry has taken, is **in doubt** when others name it in `links`:
  who searches for it gets None. It is handed out as dangling; the consumer reads what names it anew
  (`readings`) and says so (`settle`), which ends the doubt. So nobody inherits memberships with a name.
* When an entry with others below it is renamed (or one comes that may have some), `find` says None until the
  next `load`, which is asked for by `reload`; so it is after a first load during which anything was told.

A load reads everything beside what is held, which serves meanwhile, and tells what differed. Entries are told
apart by uuid, whose attribute has to be mirrored; those without one by DN.

BUGS: what `directory.matching` says of values without a schema holds here; memberUid is compared without
case.
"""

import asyncio
import gc
from collections.abc import AsyncIterator, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain

from ldappolicy.directory import Scope, Search, Terms
from ldappolicy.directory.changes import Changed, Deleted, Members, entry_uuid
from ldappolicy.directory.matching import BIT_RULES, DN_ATTRIBUTES, dn_key, key_of
from ldappolicy.directory.memory import Entries
from ldappolicy.directory.packing import Packed, Packer
from ldappolicy.directory.plan import OR_TERMS
from ldappolicy.entry import Entry, is_below, normal_dn
from ldappolicy.errors import Unavailable
from ldappolicy.ldap_filter import And, Equality, Extensible, Filter, Not, Or, Present, Substring

MISTRUSTED = 20
"""With more entries than this, a load that lacks more than half of them is a replica that is half loaded."""

PAUSE = 1000
"""Values that are taken in, or entries that are compared, without a pause: a few milliseconds."""

FROZEN = 10_000
"""Entries with which a mirror is worth taking out of the garbage collector's sight."""

_NEVER_MIRRORED = frozenset(("memberof",))
_NO_LINKS = frozenset(("distinguishedname",))
_NO_INDEX = frozenset(("objectclass", "entryuuid", "nsuniqueid", "objectguid"))
_CONTAINERS = frozenset(("ou", "o", "dc", "c", "l", "st"))

Change = Changed | Deleted


class TooLarge(Unavailable):
    """The directory has more entries than may be held."""


@dataclass(frozen=True, slots=True)
class Applied:
    """What a change did: the entry before and after, with all mirrored attributes, and what is to be done.

    `displaced` is another entry that had the DN of this one until now.
    """

    before: Entry | None = None
    after: Entry | None = None
    dangling: tuple[str, ...] = ()
    reload: bool = False
    displaced: Entry | None = None


@dataclass(frozen=True, slots=True)
class Comparison:
    """How many entries a load found otherwise than they were held, and what is still to be done."""

    added: int
    changed: int
    removed: int
    dangling: tuple[str, ...] = ()
    reload: bool = False


class Mirror:
    """The entries at and below some bases, with some attributes; `members` are those that hold members.

    `superiors` are the classes above each class (in lower case), for servers that do not list them in
    objectClass; empty for servers that list them all. Without it no filter on objectClass is answered.
    """

    def __init__(
        self,
        bases: Sequence[str],
        attributes: Sequence[str],
        members: Sequence[str],
        limit: int,
        superiors: Mapping[str, Iterable[str]] | None = None,
    ) -> None:
        names = dict.fromkeys(name.lower() for name in (*attributes, *members))
        self.attributes = tuple(name for name in names if name not in _NEVER_MIRRORED)
        self.links = tuple(
            name for name in self.attributes if name in DN_ATTRIBUTES and name not in _NO_LINKS
        )
        """The mirrored attributes whose values are DNs of other entries."""
        keys = dict.fromkeys(map(normal_dn, bases))
        self._bases = tuple(
            key for key in keys if not any(is_below(key, other) for other in keys if other != key)
        )
        self._members = tuple(name for name in map(str.lower, members) if name in self.links)
        self._limit = limit
        self._tells_classes = superiors is not None
        self._packer = Packer(self.attributes, superiors or {})
        self._held: _Content | None = None
        # Since the readings for these DNs were asked for: the normal DNs of what has been told.
        self._touched: dict[tuple[str, ...], set[str]] = {}
        self._meanwhile: dict[str, list[Change]] | None = None
        # Since a load began: names that entries have left, and whether entries below them had to follow.
        self._left: list[tuple[str, ...]] = []
        self._tore = False

    def __len__(self) -> int:
        """How many entries are held."""
        return len(self._held.entries) if self._held else 0

    def clear(self) -> None:
        """Hold nothing until the next load."""
        self._held = None

    # ------------------------------------------------------------ searches

    def find(self, search: Search) -> list[Entry] | None:
        """All entries that match, with the attributes asked for; None: ask the directory."""
        held = self._held
        if held is None or held.is_torn or not self._answers(search.filter, held.doubtful):
            return None
        names = {name.lower() for name in search.attributes if name != "1.1"}
        base = dn_key(search.base)
        if base is None or not self._covers(base) or not names.issubset(self.attributes):
            return None
        found = held.entries.search(base, search.scope, search.filter)
        if found is None or held.is_in_doubt(found, names):
            return None
        return [packed.entry(names) for packed in found]

    def having(self, base: str, terms: Terms, attributes: frozenset[str]) -> list[Entry] | None:
        """See `plan.Held`."""
        held = self._held
        if held is None or held.is_torn or not self._covers(base) or not attributes.issubset(self.attributes):
            return None
        if not all(self._compares(attr, value, held.doubtful) for attr, values in terms for value in values):
            return None
        found = held.entries.having(base, terms)
        if found is None or held.is_in_doubt(found, attributes):
            return None
        return [packed.entry(attributes) for packed in found]

    def resembling(self, base: str, terms: Terms, attributes: frozenset[str]) -> list[Entry]:
        """See `plan.Held`; asked behind `having`, which has said that what is held is enough."""
        held = self._held
        return [packed.entry(attributes) for packed in held.entries.resembling(base, terms)] if held else []

    def _covers(self, key: str) -> bool:
        return any(is_below(key, base) for base in self._bases)

    def _answers(self, tree: Filter, doubtful: set[str]) -> bool:
        """Whether what is held is enough to say what a filter matches."""
        match tree:
            case And(parts) | Or(parts):
                return all(self._answers(part, doubtful) for part in parts)
            case Not(part):
                return self._answers(part, doubtful)
            case Present(attr):
                return attr.lower() == "objectclass" or self._is_present(attr.lower(), doubtful)
            case Equality(attr, value) | Extensible(None, str(attr), value, False):
                return self._compares(attr.lower(), value, doubtful)
            case Substring(attr):
                return self._has_text(attr.lower())
            case Extensible(str(rule), str(attr), _, False):
                return rule in BIT_RULES and self._has_text(attr.lower())
        return False

    def _is_present(self, attr: str, doubtful: set[str]) -> bool:
        return attr in self.attributes and not (doubtful and attr in self.links)

    def _has_text(self, attr: str) -> bool:
        return attr in self.attributes and attr != "objectclass" and attr not in DN_ATTRIBUTES

    def _compares(self, attr: str, value: str, doubtful: set[str]) -> bool:
        if attr not in self.attributes or (attr == "objectclass" and not self._tells_classes):
            return False
        if attr in DN_ATTRIBUTES:
            key = key_of(attr)(value)
            return key is not None and key not in doubtful
        # A site's attribute may hold DNs without our knowledge, and DNs have many spellings.
        return "," not in value or dn_key(value) is None

    # ------------------------------------------------------------ changes

    def apply(self, change: Change) -> Applied:
        """Take in what the stream tells."""
        self._note(change)
        if self._held is None:
            return Applied(after=change.entry if isinstance(change, Changed) else None)
        applied = self._carry_out(change, self._held)
        self._keep_traces(applied)
        if len(self._held.entries) > self._limit:
            return replace(applied, reload=True)  # which will say that it is too large
        return applied

    def put(self, entry: Entry) -> Applied:
        """Take in an entry that has been read."""
        return self.apply(Changed(entry_uuid(entry), entry))

    def readings(self, dangling: Iterable[str]) -> list[Search]:
        """The searches for whatever names one of these DNs; they are to be asked now."""
        dns = tuple(sorted(set(dangling)))
        self._touched[dns] = set()
        terms = [Equality(name, dn) for dn in dns for name in self.links]
        chunks = [tuple(terms[start : start + OR_TERMS]) for start in range(0, len(terms), OR_TERMS)]
        return [
            Search(base, Scope.SUB, Or(chunk), self.attributes) for base in self._bases for chunk in chunks
        ]

    def settle(self, dangling: Iterable[str], entries: Iterable[Entry]) -> list[Applied]:
        """Nothing but these entries, the answers to `readings`, names these DNs.

        What has been told since is not overwritten, for it may be younger or older: if it names them, they
        stay in doubt, and are told as dangling again. A load that came between them has told so itself.
        """
        dns, read = tuple(sorted(set(dangling))), list(entries)
        touched = self._touched.pop(dns, None)
        if touched is None or self._held is None:
            return []
        done = [self.put(entry) for entry in read if entry.key not in touched]
        keys = set(map(normal_dn, dns))
        if touched.intersection(entry.key for entry in read) or touched & self._held.naming(keys):
            return [*done, Applied(dangling=dns)]
        return [*done, *self._held.forget(keys, {entry.key for entry in read})]

    def _note(self, change: Change) -> None:
        """Keep what happens during a load; of each entry, what has been told since it was last told whole."""
        if self._meanwhile is None:
            return
        uuid = _identity(change)
        before = self._meanwhile.pop(uuid, [])
        is_part = isinstance(change, Changed) and change.members is not None
        self._meanwhile[uuid] = [*before, change] if is_part else [change]

    def _keep_traces(self, applied: Applied) -> None:
        """Keep what a reading or a load could not see: who changed, which names were left, what is below."""
        before, after = applied.before, applied.after
        self._tore |= applied.reload
        for touched in self._touched.values():
            touched.update(entry.key for entry in (before, after) if entry is not None)
        if self._meanwhile is not None and before is not None and (after is None or after.key != before.key):
            self._left.append((before.dn,) if after is None else (before.dn, after.dn))

    def _carry_out(self, change: Change, content: "_Content") -> Applied:
        if isinstance(change, Changed) and self._covers(change.entry.key):
            return content.take_in(change)
        dn = change.entry.key if isinstance(change, Changed) else change.dn
        return content.let_go(change.uuid, dn)

    def _nothing(self) -> "_Content":
        return _Content(self._packer, self, self._members)

    # ------------------------------------------------------------ loading

    async def load(self, pages: AsyncIterator[Sequence[Entry]]) -> Comparison:
        """Hold what the pages hold, once they are all there; raises Unavailable and keeps what is held.

        What is applied while the pages are read outlives them, whichever is newer: the stream tells the rest.
        """
        if self._meanwhile is not None:
            raise Unavailable("the mirror is being loaded already")
        self._meanwhile, self._left, self._tore = {}, [], False
        try:
            with _without_collections():
                content = await self._read(pages)
                counts = await self._compare(content, self._meanwhile)
                dangling = self._swap(content, self._meanwhile)
        finally:
            self._meanwhile, self._left = None, []
        _freeze(len(content.entries))
        return Comparison(*counts, dangling, content.is_torn)

    async def _read(self, pages: AsyncIterator[Sequence[Entry]]) -> "_Content":
        content = self._nothing()
        spelled: dict[str, str] = {}
        work = 0
        async for page in pages:
            for entry in page:
                content.hold(self._as_held(self._packer.pack(entry_uuid(entry) or entry.key, entry, spelled)))
                work += sum(len(values) for _, values in entry.items())
                if work >= PAUSE:
                    work = 0
                    await asyncio.sleep(0)
            if len(content.entries) > self._limit:
                raise TooLarge(f"the directory has more than {self._limit} entries, too many for a mirror")
        if not content.entries:
            raise Unavailable("the directory shows no entry at all: not believed")
        for name in self.attributes:
            if name not in _NO_INDEX:
                for _ in content.entries.index(name):
                    await asyncio.sleep(0)
        return content

    def _as_held(self, packed: Packed) -> Packed:
        """The one that is held, if it is the same: two contents at a time need not be two of everything."""
        held = self._held.by_uuid(packed.uuid) if self._held is not None else None
        return packed if held is None or not held.is_same(packed) else held

    async def _compare(self, content: "_Content", meanwhile: Container[str]) -> tuple[int, int, int]:
        """How many entries are added, changed and removed; raises Unavailable for half a directory."""
        held = self._held
        if held is None:
            return len(content.entries), 0, 0
        changed = removed = lacking = 0
        were = held.identities()
        for number, (uuid, key) in enumerate(were.items()):
            if number % PAUSE == 0:
                await asyncio.sleep(0)
            before, after = held.by_uuid(uuid), content.by_uuid(uuid)
            if before is None or uuid in meanwhile:
                continue
            if after is None:
                removed += 1
                lacking += content.entries.get(key) is None
            elif after is not before and not after.is_same(before):
                changed += 1
        if len(were) > MISTRUSTED and 2 * lacking > len(were):
            raise Unavailable(
                f"the directory lacks {lacking} of {len(were)} entries that it had: not believed"
            )
        added = content.identities().keys() - were.keys()
        return sum(uuid not in meanwhile for uuid in added), changed, removed

    def _swap(self, content: "_Content", meanwhile: dict[str, list[Change]]) -> tuple[str, ...]:
        """Hold another content, with what has been told since the load began; gives the dangling DNs."""
        told = [change for changes in meanwhile.values() for change in changes]
        dangling = [self._carry_out(change, content).dangling for change in told]
        dangling += [content.doubt(*dns) for dns in self._left]
        if self._held is None:
            # Nothing says which names were left meanwhile; the next load has what is held now to go by.
            content.is_torn |= any(isinstance(change, Deleted) or not change.is_new for change in told)
        content.is_torn |= self._tore
        self._held = content
        self._touched.clear()
        return tuple(dict.fromkeys(chain.from_iterable(dangling)))


class _Content:
    """What is held at a time, and what of it is not to be relied on."""

    def __init__(self, packer: Packer, mirror: Mirror, members: tuple[str, ...]) -> None:
        self.entries: Entries[Packed] = Entries(unindexed=_NO_INDEX)
        self.doubtful: set[str] = set()
        self.is_torn = False
        self._packer = packer
        self._attributes = mirror.attributes
        self._links = mirror.links
        self._members = members
        self._keys: dict[str, str] = {}

    def by_uuid(self, uuid: str) -> Packed | None:
        """The entry with that identity."""
        key = self._keys.get(uuid)
        return None if key is None else self.entries.get(key)

    def identities(self) -> dict[str, str]:
        """The normal DN of every entry by its uuid, as it is now."""
        return dict(self._keys)

    def hold(self, packed: Packed) -> Packed | None:
        """Take an entry in, wherever it was; gives another one that had its DN."""
        former = self._keys.get(packed.uuid)
        if former is not None and former != packed.key:
            self.entries.remove(former)
        there = self.entries.get(packed.key)
        displaced = there if there is not None and there.uuid != packed.uuid else None
        if displaced is not None:
            del self._keys[displaced.uuid]
        self.entries.put(packed)
        self._keys[packed.uuid] = packed.key
        return displaced

    # ------------------------------------------------------------ changes

    def take_in(self, change: Changed) -> Applied:
        """Hold an entry as it is told."""
        entry = change.entry
        uuid = change.uuid or entry_uuid(entry)
        before = self.by_uuid(uuid) if uuid else self.entries.get(entry.key)
        if change.members is not None:
            entry = self._with_members(entry, change.members, before)
        uuid = before.uuid if before is not None else uuid or entry.key
        after = self._packer.pack(uuid, entry, self._spellings(entry, before))
        reload = self._tears(change, before)
        self.is_torn |= reload
        dangling: tuple[str, ...] = ()
        if before is None:
            dangling = self.doubt(after.dn)
        elif before.key != after.key:
            dangling = self.doubt(before.dn, after.dn)
        displaced = self.hold(after)
        return Applied(self._whole(before), self._whole(after), dangling, reload, self._whole(displaced))

    def let_go(self, uuid: str, dn: str) -> Applied:
        """Hold an entry no more; a DN alone does not tell of one that is known to be another."""
        before = self.by_uuid(uuid)
        if before is None:
            there = self.entries.get(dn_key(dn) or "")
            if there is None or (uuid and there.uuid != there.key):
                return Applied()
            before = there
        self.entries.remove(before.key)
        del self._keys[before.uuid]
        reload = self.entries.is_parent(before.key)
        self.is_torn |= reload
        return Applied(self._whole(before), None, self.doubt(before.dn), reload)

    def _whole(self, packed: Packed | None) -> Entry | None:
        return None if packed is None else packed.entry(self._attributes)

    def _tears(self, change: Changed, before: Packed | None) -> bool:
        """Whether there may be entries below this one that are not known by their names."""
        if before is None:
            return not change.is_new and change.entry.key.partition("=")[0] in _CONTAINERS
        return before.key != change.entry.key and self.entries.is_parent(before.key)

    def _with_members(self, entry: Entry, members: Members, before: Packed | None) -> Entry:
        """The entry with the members that it had, less those that went, and those that came."""
        if not self._members:
            return entry
        held = {name: before.values(name) for name in self._members} if before is not None else {}
        values = {**dict(entry.items()), **held}
        for name in self._members:
            values[name] = _without(name, values.get(name, ()), members.removed)
        first = self._members[0]
        values[first] += tuple(
            dn for dn in members.added if dn in members.removed or not self._names(before, first, dn)
        )
        return Entry(entry.dn, values)

    def _names(self, holder: Packed | None, attr: str, dn: str) -> bool:
        return holder is not None and holder.key in self.entries.holders(attr, dn)

    def _spellings(self, entry: Entry, before: Packed | None) -> dict[str, str]:
        """The DNs in an entry's values that are held already: a large group costs no more than its names."""
        spelled: dict[str, str] = {}
        for name in self._links:
            had = before.values(name) if before is not None else ()
            spelled.update(zip(had, had, strict=True))
            for value in entry.values(name):
                if value not in spelled and (named := self.entries.get(dn_key(value) or "")) is not None:
                    spelled[named.dn] = named.dn
        return spelled

    # ------------------------------------------------------------ doubts

    def doubt(self, *dns: str) -> tuple[str, ...]:
        """DNs that may be named where they are not meant: in doubt, if one of them is named at all."""
        keys = set(map(normal_dn, dns))
        if not any(self.entries.holders(name, key) for name in self._links for key in keys):
            return ()
        self.doubtful |= keys
        return dns

    def is_in_doubt(self, found: Iterable[Packed], names: set[str] | frozenset[str]) -> bool:
        """Whether these attributes of entries name a DN that is in doubt."""
        return bool(self.doubtful) and any(
            key_of(name)(value) in self.doubtful
            for name in names.intersection(self._links)
            for packed in found
            for value in packed.values(name)
        )

    def forget(self, keys: set[str], read: set[str]) -> list[Applied]:
        """Take DNs out of all entries but those that were read; they are in doubt no more."""
        self.doubtful -= keys
        return [self._forget_in(holder, keys) for holder in sorted(self.naming(keys) - read)]

    def naming(self, keys: set[str]) -> set[str]:
        """The normal DNs of the entries that name one of these."""
        return {holder for name in self._links for key in keys for holder in self.entries.holders(name, key)}

    def _forget_in(self, holder: str, keys: set[str]) -> Applied:
        before = self.entries.get(holder)
        assert before is not None
        values = {
            name: _without(name, had, keys) if name in self._links else had for name, had in before.items()
        }
        after = self._packer.pack(before.uuid, Entry(before.dn, values), {})
        self.hold(after)
        return Applied(self._whole(before), self._whole(after))


def _identity(change: Change) -> str:
    """What tells an entry apart from others, in a change or a page."""
    if isinstance(change, Changed):
        return change.uuid or entry_uuid(change.entry) or change.entry.key
    return change.uuid or dn_key(change.dn) or ""


def _without(name: str, values: tuple[str, ...], gone: Iterable[str]) -> tuple[str, ...]:
    """The values but those that are DNs among these, however they are spelled."""
    left = set(gone)
    if not left:
        return values
    there = left.intersection(values)
    if there == left:  # as a rule, and there may be a great many values
        return tuple(value for value in values if value not in left)
    keys = set(map(key_of(name), left)) - {None}
    key = key_of(name, cached=False)
    return tuple(value for value in values if key(value) not in keys)


@contextmanager
def _without_collections() -> Iterator[None]:
    """What is loaded stays: looking through it again and again, while it grows, is for nothing."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _freeze(entries: int) -> None:
    """One collection of everything, the last that sees what is held until the next load."""
    if entries >= FROZEN:
        gc.unfreeze()
        gc.collect()
        gc.freeze()
