"""The embedded directory: the entries of an LDIF file, searched in memory.

It owns what a server would: which entries a base, a scope and a filter cover. Equality is answered from
an index, which is made when an attribute is first asked for; so are And with such a part and Or of
such parts, and presence. The rest looks at every entry.

There is no schema, hence these rules (RFC 4517's for the types that matter here):

* values are compared by case folding, with spaces squashed and cut off at both ends;
* the values of `DN_ATTRIBUTES` are compared as DNs, and have no order and no parts;
* order is that of numbers where both values are integers, else that of the folded text;
* an attribute that an entry does not have matches nothing, and its Not everything;
* `objectClass` matches the classes that an entry lists, and `(objectClass=*)` every entry.

Parents need not be in the file: a base is there when an entry is at it or under it. Loading and
watching the file is left to whoever made the directory.

BUGS: of matching rules only `_RULES` and `_BIT_RULES` are known; a search that asks for another is
refused, since a rule taken for "matches nothing" would open what a `(!(...))` closes.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain

from ldappolicy.directory import Scope, Search
from ldappolicy.entry import Entry, is_below, normal_dn
from ldappolicy.errors import InputError, Unavailable
from ldappolicy.ldap_filter import (
    And,
    Approx,
    Equality,
    Extensible,
    Filter,
    GreaterOrEqual,
    LessOrEqual,
    Not,
    Or,
    Present,
    Substring,
)
from ldappolicy.ldif import Record, read_records

DN_ATTRIBUTES = frozenset(
    (
        "member",
        "uniquemember",
        "owner",
        "seealso",
        "memberof",
        "manager",
        "roleoccupant",
        "managedby",
        "membermanager",
        "distinguishedname",
        "smtpdaccessmember",
        "smtpdallowedsenderdn",
        "smtpddeniedsenderdn",
        "smtpdmoderator",
        "smtpdsendas",
        # Active Directory's and Exchange's, which that profile reads
        "msexchcomanagedbylink",
        "msexchmoderatedbylink",
        "authorig",
        "unauthorig",
        "dlmemsubmitperms",
        "dlmemrejectperms",
        "publicdelegates",
    )
)

Matcher = Callable[[Entry], bool]
_Key = Callable[[str], str | None]  # what a value is compared under; None: it equals nothing

_SPACES = re.compile(" {2,}")
_INTEGER = re.compile(r"-?[0-9]{1,4000}")  # int() refuses more than 4300 digits
_PAIR_ENDS = re.compile("[,+]")  # in a normal DN these are nothing else
_UNIQUE_SUFFIX = re.compile(r"#'[01]*'B$")  # RFC 4517 section 3.3.21, Name and Optional UID


class LdifDirectory:
    """The entries of one file; nothing in it changes once it is made."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        self._entries = {entry.key: entry for entry in entries}
        self._parents = _parents(self._entries)
        self._indexes: dict[str, _Index] = {}

    @classmethod
    def parse(cls, data: bytes, source: str) -> "LdifDirectory":
        """Read a file's content; raises InputError with the line for what is not an entry, or is twice."""
        return cls(_unique_entries(read_records(data, source), source))

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries.values())

    @property
    def entry_count(self) -> int:
        """How many entries there are."""
        return len(self._entries)

    def prepare(self, attributes: Iterable[str]) -> None:
        """Make indexes before they are needed; with a million entries, each takes about a second."""
        for name in attributes:
            self._index(name.lower())

    async def search(self, search: Search) -> Sequence[Entry]:
        """All entries that match, whole: they are immutable and shared. See `directory.Directory`."""
        try:
            base = normal_dn(search.base)
        except InputError as error:
            raise Unavailable(f"the search base is {error}") from error
        matches = _matcher(search.filter)
        if search.scope == Scope.BASE:
            entry = self._entries.get(base)
            return [entry] if entry is not None and matches(entry) else []
        if base not in self._entries and base not in self._parents:
            raise Unavailable(f"no such object: {search.base!r}, expected an entry at or under it")
        covers = _is_child if search.scope == Scope.ONE else is_below
        candidates = self._candidates(search.filter)
        if candidates is None:
            candidates = self._entries.values()
        return [entry for entry in candidates if covers(entry.key, base) and matches(entry)]

    def holds(self, base: str) -> bool:
        """Whether anything is at or under a DN."""
        key = normal_dn(base)
        return key in self._entries or key in self._parents

    def set_proofs(self, proofs: Sequence[Search]) -> None:
        """A file is what it is: nothing to prove."""

    async def close(self) -> None:
        """Nothing is open."""

    def _candidates(self, tree: Filter) -> Iterable[Entry] | None:
        """From the indexes, entries among which are all that match, each once; None: any may match."""
        match tree:
            case Equality(attr, value) | Approx(attr, value):
                return self._index(attr.lower()).equal(value)
            case Present(attr) if attr.lower() != "objectclass":
                return self._index(attr.lower()).holders
            case Or(parts):
                found = [self._candidates(part) for part in parts]
                known = [entries for entries in found if entries is not None]
                if len(known) < len(found):
                    return None
                return {entry.key: entry for entry in chain.from_iterable(known)}.values()
            case And(parts):
                return self._fewest(parts)
        return None

    def _fewest(self, parts: Sequence[Filter]) -> Iterable[Entry] | None:
        best: list[Entry] | None = None
        for part in parts:
            found = self._candidates(part)
            if found is not None:
                entries = found if isinstance(found, list) else list(found)
                best = entries if best is None or len(entries) < len(best) else best
        return best

    def _index(self, attr: str) -> "_Index":
        index = self._indexes.get(attr)
        if index is None:
            index = self._indexes[attr] = _Index(attr, self._entries.values())
        return index


def _unique_entries(records: Iterable[Record], source: str) -> Iterator[Entry]:
    seen: set[str] = set()
    classes: dict[tuple[str, ...], tuple[str, ...]] = {}
    for record in records:
        if record.changetype is not None:
            what = f"changetype {record.changetype!r}, expected entries only"
            raise InputError(f"{source}:{record.line}: {what}")
        if (values := record.attributes.get("objectClass")) is not None:
            record.attributes["objectClass"] = classes.setdefault(values, values)  # a few serve all entries
        try:
            entry = Entry(record.dn, record.attributes)
        except InputError as error:
            raise InputError(f"{source}:{record.line}: {error}") from None
        if entry.key in seen:
            raise InputError(f"{source}:{record.line}: the entry {record.dn!r} again, expected it once")
        seen.add(entry.key)
        yield entry


def _parents(keys: Iterable[str]) -> frozenset[str]:
    """Every DN that has an entry under it."""
    found: set[str] = set()
    for key in keys:
        while key:
            key = key.partition(",")[2]
            if key in found:
                break
            found.add(key)
    return frozenset(found)


def _is_child(key: str, base: str) -> bool:
    return key != "" and key.partition(",")[2] == base


class _Index:
    """One attribute: the entries that have it, and those with each value."""

    __slots__ = ("by_value", "holders", "key")

    def __init__(self, attr: str, entries: Iterable[Entry]) -> None:
        self.key = _key_of(attr)
        self.holders = [entry for entry in entries if entry.values(attr)]
        # Most values are those of one entry, and a million lists of one are 56 MB.
        self.by_value: dict[str, Entry | list[Entry]] = {}
        for entry in self.holders:
            for value in entry.values(attr):
                key = self.key(value)
                if key is not None:
                    self.add(key, entry)

    def add(self, key: str, entry: Entry) -> None:
        there = self.by_value.setdefault(key, entry)
        if there is entry:
            return
        if isinstance(there, Entry):
            self.by_value[key] = [there, entry]
        elif there[-1] is not entry:  # two spellings of one value
            there.append(entry)

    def equal(self, value: str) -> list[Entry]:
        key = self.key(value)
        found = self.by_value.get(key, []) if key is not None else []
        return [found] if isinstance(found, Entry) else found


def _key_of(attr: str) -> _Key:
    if attr == "uniquemember":
        return _unique_key
    return _dn_key if attr in DN_ATTRIBUTES else _fold


def _fold(value: str) -> str:
    folded = _squash(value).strip(" ")
    return value if folded == value else folded  # the one string for both


def _squash(value: str) -> str:
    folded = value.casefold()
    return _SPACES.sub(" ", folded) if "  " in folded else folded


def _exact(value: str) -> str:
    return _SPACES.sub(" ", value).strip(" ")


def _dn_key(value: str) -> str | None:
    try:
        return normal_dn(value)
    except InputError:
        return None


def _unique_key(value: str) -> str | None:
    return _dn_key(_UNIQUE_SUFFIX.sub("", value))


def _matcher(tree: Filter) -> Matcher:
    match tree:
        case And(parts):
            return _all_of([_matcher(part) for part in parts])
        case Or(parts):
            return _any_of(parts)
        case Not(part):
            inner = _matcher(part)
            return lambda entry: not inner(entry)
        case Equality(attr, value) | Approx(attr, value):
            return _equality(attr.lower(), value, _key_of(attr.lower()))
        case Present(attr):
            return _present(attr.lower())
        case Substring():
            return _substring(tree)
        case GreaterOrEqual(attr, value):
            return _ordering(attr.lower(), value, greater=True)
        case LessOrEqual(attr, value):
            return _ordering(attr.lower(), value, greater=False)
        case Extensible():
            return _extensible(tree)


def _nothing(entry: Entry) -> bool:
    return False


def _all_of(matchers: list[Matcher]) -> Matcher:
    return lambda entry: all(matches(entry) for matches in matchers)


def _any_of(parts: tuple[Filter, ...]) -> Matcher:
    """Equalities of one attribute (the many keys of one lookup) are a set; the rest is tried in turn."""
    wanted: dict[str, set[str]] = {}
    matchers: list[Matcher] = []
    for part in parts:
        if isinstance(part, Equality):
            attr = part.attr.lower()
            key = _key_of(attr)(part.value)
            if key is not None:
                wanted.setdefault(attr, set()).add(key)
        else:
            matchers.append(_matcher(part))
    matchers += [_one_of(attr, keys, _key_of(attr)) for attr, keys in wanted.items()]
    return lambda entry: any(matches(entry) for matches in matchers)


def _one_of(attr: str, wanted: set[str], key: _Key) -> Matcher:
    return lambda entry: any(key(value) in wanted for value in entry.values(attr))


def _equality(attr: str, value: str, key: _Key) -> Matcher:
    wanted = key(value)
    if wanted is None:
        return _nothing
    return lambda entry: any(key(value) == wanted for value in entry.values(attr))


def _present(attr: str) -> Matcher:
    return lambda entry: attr == "objectclass" or bool(entry.values(attr))


def _substring(tree: Substring) -> Matcher:
    attr = tree.attr.lower()
    if attr in DN_ATTRIBUTES:
        return _nothing
    initial = _squash(tree.initial or "").lstrip(" ")
    final = _squash(tree.final or "").rstrip(" ")
    between = [_squash(part) for part in tree.any]

    def matches(value: str) -> bool:
        if not value.startswith(initial):
            return False
        at = len(initial)
        for part in between:
            found = value.find(part, at)
            if found < 0:
                return False
            at = found + len(part)
        return value.endswith(final) and len(value) - len(final) >= at

    return lambda entry: any(matches(_fold(value)) for value in entry.values(attr))


def _ordering(attr: str, limit: str, *, greater: bool) -> Matcher:
    if attr in DN_ATTRIBUTES:
        return _nothing
    folded = _fold(limit)
    if greater:
        return lambda entry: any(_in_order(folded, _fold(value)) for value in entry.values(attr))
    return lambda entry: any(_in_order(_fold(value), folded) for value in entry.values(attr))


def _in_order(low: str, high: str) -> bool:
    if _INTEGER.fullmatch(low) and _INTEGER.fullmatch(high):
        return int(low) <= int(high)
    return low <= high


def _extensible(tree: Extensible) -> Matcher:
    attr = tree.attr.lower() if tree.attr is not None else None
    test = _value_test(tree.rule, attr, tree.value)
    in_dn = _dn_test(attr, tree.value) if tree.dn_attributes else _nothing
    if attr is not None:
        return lambda entry: any(map(test, entry.values(attr))) or in_dn(entry)
    return lambda entry: any(map(test, chain.from_iterable(map(_second, entry.items())))) or in_dn(entry)


def _second(item: tuple[str, tuple[str, ...]]) -> tuple[str, ...]:
    return item[1]


def _value_test(rule: str | None, attr: str | None, value: str) -> Callable[[str], bool]:
    if rule is not None and rule.lower() not in _RULES and rule not in _BIT_RULES:
        raise Unavailable(f"the matching rule {rule!r} is not known to the embedded directory")
    if rule in _BIT_RULES:
        return _bit_test(value, every=_BIT_RULES[rule])
    key = _key_of(attr or "") if rule is None else _RULES[rule.lower()]
    wanted = key(value)
    return lambda found: wanted is not None and key(found) == wanted


def _bit_test(value: str, *, every: bool) -> Callable[[str], bool]:
    mask = int(value) if _INTEGER.fullmatch(value) else None

    def test(found: str) -> bool:
        if mask is None or not _INTEGER.fullmatch(found):
            return False
        return int(found) & mask == mask if every else int(found) & mask != 0

    return test


def _dn_test(attr: str | None, value: str) -> Matcher:
    """`(ou:dn:=people)` looks at the pairs of the entry's DN too, compared as in DNs."""
    octets = value.encode("utf-8", "surrogateescape")
    wanted = _dn_key(f"{attr or 'cn'}={''.join(f'{chr(92)}{octet:02x}' for octet in octets)}")
    if wanted is None:
        return _nothing
    if attr is not None:
        return lambda entry: wanted in _PAIR_ENDS.split(entry.key)
    behind = wanted.partition("=")[2]
    return lambda entry: any(pair.partition("=")[2] == behind for pair in _PAIR_ENDS.split(entry.key))


def _integer(value: str) -> str | None:
    return str(int(value)) if _INTEGER.fullmatch(value) else None


# RFC 4517 section 4.2, by name and by object identifier.
_RULES: dict[str, _Key] = {
    "caseignorematch": _fold,
    "2.5.13.2": _fold,
    "caseignoreia5match": _fold,
    "1.3.6.1.4.1.1466.109.114.2": _fold,
    "caseexactmatch": _exact,
    "2.5.13.5": _exact,
    "caseexactia5match": _exact,
    "1.3.6.1.4.1.1466.109.114.1": _exact,
    "distinguishednamematch": _dn_key,
    "2.5.13.1": _dn_key,
    "integermatch": _integer,
    "2.5.13.14": _integer,
}
# Active Directory's bit rules, which "is the account disabled" is asked with: every bit, or any.
_BIT_RULES = {"1.2.840.113556.1.4.803": True, "1.2.840.113556.1.4.804": False}
