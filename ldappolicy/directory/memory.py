"""Entries in memory, found by base, scope and filter: what directories that answer from memory share.

Equality is answered from an index, which is made when an attribute is first asked for, or beforehand; so
are And with such a part and Or of such parts, and presence. The rest looks at every entry. Entries can be
put and removed at any time: an index then takes the difference between the old values and the new ones,
so that one more member of a large group costs no more than comparing the values.

What a filter matches is `directory.matching`'s. Parents need not be held: a base is there when an entry
is at it or under it.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import chain
from typing import Generic, TypeVar

from ldappolicy.address import skeleton
from ldappolicy.directory import Scope, Terms
from ldappolicy.directory.matching import DN_ATTRIBUTES, Matched, key_of, matcher
from ldappolicy.entry import is_below
from ldappolicy.ldap_filter import And, Approx, Equality, Filter, Or, Present

FEW = 8
"""Entries with one value that are kept in a tuple, which is compact; more are in a dict, which is fast."""

RARE = 1000
"""Entries that an index lists as having its attribute, beside an eighth of all; looking at all beats more."""

SLICE = 500
"""Values (or entries without one) that are indexed without a pause: a millisecond or two."""

_E = TypeVar("_E", bound=Matched)
_Posting = str | tuple[str, ...] | dict[str, None]
_Candidates = tuple[Collection[str], Filter | None]


class Entries(Generic[_E]):
    """Entries by normal DN, with their indexes; iterates in the order in which they were first put.

    `unindexed` are attributes (in lower case) that are worth no index: too few values for too many entries.
    """

    def __init__(self, entries: Iterable[_E] = (), unindexed: Collection[str] = ()) -> None:
        self._entries: dict[str, _E] = {}
        self._children: dict[str, int] = {}
        """How many DNs are directly under a DN: held, or with something under them."""
        self._indexes: dict[str, _Index] = {}
        self._unindexed = unindexed
        for entry in entries:
            self.put(entry)

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[_E]:
        return iter(self._entries.values())

    def get(self, key: str) -> _E | None:
        """The entry with this normal DN."""
        return self._entries.get(key)

    def is_parent(self, key: str) -> bool:
        """Whether an entry is under a normal DN."""
        return key in self._children

    def holds(self, key: str) -> bool:
        """Whether an entry is at or under a normal DN."""
        return key in self._entries or key in self._children

    def put(self, entry: _E) -> None:
        """Take an entry in; it replaces the one with the same DN."""
        key = entry.key
        old = self._entries.get(key)
        if old is None and key not in self._children:
            self._count_in(key)
        self._entries[key] = entry
        for attr, index in self._indexes.items():
            index.change(key, () if old is None else old.values(attr), entry.values(attr))

    def remove(self, key: str) -> None:
        """Let go of the entry with this normal DN, which has to be held."""
        old = self._entries.pop(key)
        if key not in self._children:
            self._count_out(key)
        for attr, index in self._indexes.items():
            index.change(key, old.values(attr), ())

    def _count_in(self, key: str) -> None:
        while key:
            key = key.partition(",")[2]
            there = self._children.get(key, 0)
            self._children[key] = there + 1
            if there or key in self._entries:
                return

    def _count_out(self, key: str) -> None:
        while key:
            key = key.partition(",")[2]
            self._children[key] -= 1
            if self._children[key]:
                return
            del self._children[key]
            if key in self._entries:
                return

    def index(self, attr: str) -> Iterator[None]:
        """Make the index of an attribute (in lower case) step by step; nothing may be put meanwhile."""
        if attr in self._indexes:
            return
        index = _Index(attr, self._entries)
        work = 0
        for entry in self._entries.values():
            values = entry.values(attr)
            work += 1 + len(values)
            if work < SLICE:
                index.add(entry.key, values if len(values) < 2 else dict.fromkeys(values))
                continue
            work = 0
            once = tuple(dict.fromkeys(values))
            for start in range(0, len(once) or 1, SLICE):
                index.add(entry.key, once[start : start + SLICE])
                yield
        self._indexes[attr] = index

    def holders(self, attr: str, value: str) -> Collection[str]:
        """The normal DNs of the entries that have a value of an attribute (its name in lower case)."""
        return self._index(attr).equal(value)

    def search(self, base: str, scope: Scope, tree: Filter) -> list[_E] | None:
        """All entries that match; `base` is a normal DN. None: the base of a wider search is not there.

        Raises Unavailable for a matching rule that is not known.
        """
        if scope == Scope.BASE:
            matches = matcher(tree)
            entry = self._entries.get(base)
            return [entry] if entry is not None and matches(entry) else []
        if not self.holds(base):
            matcher(tree)
            return None
        covers = _is_child if scope == Scope.ONE else is_below
        candidates = self._candidates(tree)
        if candidates is None:
            matches = matcher(tree)
            return [entry for entry in self if covers(entry.key, base) and matches(entry)]
        keys, rest = candidates
        found = [self._entries[key] for key in keys if covers(key, base)]
        return found if rest is None else list(filter(matcher(rest), found))

    def having(self, base: str, terms: Terms) -> list[_E] | None:
        """All entries at or below a normal DN with one of some values, by attribute (in lower case).

        What `search` finds for an Or of equalities; None where it does.
        """
        if not self.holds(base):
            return None
        keys: list[str] = []
        for attr, values in terms:
            index = self._indexes.get(attr) or self._index(attr)
            if index.by_value:
                for value in values:
                    keys += index.equal(value)
        if not keys:
            return []
        return [self._entries[key] for key in dict.fromkeys(keys) if is_below(key, base)]

    def resembling(self, base: str, terms: Terms) -> list[_E]:
        """Entries at or below a normal DN with a value that has the skeleton of one of some values."""
        keys = [key for attr, values in terms for value in values for key in self._index(attr).like(value)]
        return [self._entries[key] for key in dict.fromkeys(keys) if is_below(key, base)]

    def _candidates(self, tree: Filter) -> "_Candidates | None":
        """From the indexes: the DNs of those that match, if they match the rest. None: any may match."""
        match tree:
            case Equality(attr, value) | Approx(attr, value) if attr.lower() not in self._unindexed:
                return self._index(attr.lower()).equal(value), None
            case Present(attr) if attr.lower() != "objectclass":
                present = self._index(attr.lower()).present
                return None if present is None else (present, None)
            case Or(parts):
                found = [self._candidates(part) for part in parts]
                known = [one for one in found if one is not None]
                if len(known) < len(found):
                    return None
                keys = dict.fromkeys(chain.from_iterable(keys for keys, _ in known))
                return keys, None if all(rest is None for _, rest in known) else tree
            case And(parts):
                return self._fewest(parts)
        return None

    def _fewest(self, parts: tuple[Filter, ...]) -> "_Candidates | None":
        """The candidates of one part, which are to match the others."""
        best: _Candidates | None = None
        for number, part in enumerate(parts):
            found = self._candidates(part)
            if found is not None and (best is None or len(found[0]) < len(best[0])):
                own = () if found[1] is None else (found[1],)
                best = found[0], And((*own, *parts[:number], *parts[number + 1 :]))
        return best

    def _index(self, attr: str) -> "_Index":
        found = self._indexes.get(attr)
        if found is None:
            for _ in self.index(attr):
                pass
            found = self._indexes[attr]
        return found


def _is_child(key: str, base: str) -> bool:
    return key != "" and key.partition(",")[2] == base


class _Index:
    """One attribute: the DNs of the entries that have it, and of those with each value.

    DNs, not entries: an entry with other values is another object under the same DN. Most values are those
    of one entry, and a million collections of one are 56 MB: such a DN stands alone.
    """

    __slots__ = ("_again", "_entries", "_holds_dns", "_key", "_key_once", "_skeletons", "by_value", "present")

    def __init__(self, attr: str, entries: Mapping[str, Matched]) -> None:
        self._key = key_of(attr)
        self._key_once = key_of(attr, cached=False)
        self._holds_dns = attr in DN_ATTRIBUTES
        self._entries = entries
        self.by_value: dict[str, _Posting] = {}
        """The DNs of the entries with each value that any entry has."""
        self._again: dict[tuple[str, str], int] = {}
        """How many values of an entry are but other spellings of one that it has."""
        self._skeletons: dict[str, dict[str, None]] = {}
        """The entries by the skeletons of their values; of values that are ASCII, those are the values."""
        self.present: dict[str, None] | None = {}
        """The entries that have the attribute, as long as they are few."""

    def equal(self, value: str) -> Collection[str]:
        """The entries that have the value."""
        key = self._key(value)
        found = self.by_value.get(key, ()) if key is not None else ()
        return (found,) if isinstance(found, str) else found

    def like(self, value: str) -> Iterator[str]:
        """The entries with a value that has the skeleton of this one."""
        key = self._key(value)
        if key is not None and (self._skeletons or not key.isascii()):
            bare = skeleton(key)
            yield from self._skeletons.get(bare, ())
            yield from self.equal(bare)

    def change(self, dn: str, old: tuple[str, ...], new: tuple[str, ...]) -> None:
        """An entry has other values than it had."""
        if old == new:
            return
        before, after = set(old), set(new)
        has_skeletons = bool(self._skeletons)
        for value in before - after:
            self._discard(value, dn)
        self.add(dn, after - before)
        for value in after & before if has_skeletons else ():
            # One that was discarded may have had the same skeleton.
            self._add_skeleton(self._key(value), dn)
        if not new and self.present is not None:
            self.present.pop(dn, None)

    def add(self, dn: str, values: Iterable[str]) -> None:
        """An entry has these values (each once), too."""
        for value in values:
            self._add(value, dn)
            if self.present is not None:
                self.present[dn] = None
                if len(self.present) > RARE + len(self._entries) // 8:
                    self.present = None

    def _add(self, value: str, dn: str) -> None:
        key = self._shared_key(value)
        if key is None:
            return
        self._add_skeleton(key, dn)
        there = self.by_value.get(key)
        if there is None:
            self.by_value[key] = dn
        elif there == dn or (not isinstance(there, str) and dn in there):
            self._again[key, dn] = self._again.get((key, dn), 0) + 1
        elif isinstance(there, dict):
            there[dn] = None
        else:
            among = (there, dn) if isinstance(there, str) else (*there, dn)
            self.by_value[key] = among if len(among) <= FEW else dict.fromkeys(among)

    def _add_skeleton(self, key: str | None, dn: str) -> None:
        if key is not None and not key.isascii() and not self._holds_dns:
            self._skeletons.setdefault(skeleton(key), {})[dn] = None

    def _discard(self, value: str, dn: str) -> None:
        key = self._key(value)
        if key is None:
            return
        if not key.isascii() and (having := self._skeletons.get(bare := skeleton(key))) is not None:
            having.pop(dn, None)
            if not having:
                del self._skeletons[bare]
        if again := self._again.pop((key, dn), 0):
            if again > 1:
                self._again[key, dn] = again - 1
            return
        there = self.by_value[key]
        if isinstance(there, dict):
            del there[dn]
            left: _Posting = there
        else:
            left = () if isinstance(there, str) else tuple(other for other in there if other != dn)
        if not left:
            del self.by_value[key]
        elif len(left) == 1 and isinstance(left, tuple):
            self.by_value[key] = left[0]
        else:
            self.by_value[key] = left

    def _shared_key(self, value: str) -> str | None:
        """What a value is compared under; for a DN that is held, the string that the entry has already."""
        if not self._holds_dns:
            return self._key(value)
        key = self._key_once(value)
        named = self._entries.get(key) if key is not None else None
        return key if named is None else named.key
