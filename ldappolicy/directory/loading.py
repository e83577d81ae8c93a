"""LDIF records into a directory: what each of them takes, and a rehearsal that changes nothing.

A content record (or `changetype: add`) is an entry as it should be. One that is not there is added, one
that is there with the same content is left, one with other content is an error, or is modified to be
exactly the record's. Content is all of the user attributes: names without case, values as sets. Where
the octets of two values differ, the server is asked whether it takes them for one (compare, RFC 4511
section 4.10), so that the case of a name or the spaces in a DN are no difference.

The other change records are carried out as they stand, but for values to be added that are there already.

BUGS: attributes under another of their names (`commonName`), and what a server adds to an entry of its
own accord (389 Directory Server: the superior object classes), count as other content, as does a
password that is not shown. A rehearsal does not know what only the server checks: schema, access
rules, entries below one that is deleted, the naming attribute after a renaming.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol, TypeVar

from ldappolicy.entry import Entry, ancestors, is_below, key_of_dn, normal_dn
from ldappolicy.errors import InputError
from ldappolicy.ldif import Modification, Record
from ldappolicy.mapping import Mapping as AttributeMapping
from ldappolicy.policy import POLICY_ATTRIBUTES

Attributes = Mapping[str, tuple[str, ...]]

# The first RDN of a DN as it is spelled (RFC 4514 and its legacy), with what ends it.
_FIRST_RDN = re.compile(r"""(?:\\.|"(?:\\.|[^"\\])*+"|[^,;\\"])*+[,;]?""", re.DOTALL)


class Outcome(Enum):
    """What became of a record; the value is the participle for a line or a summary."""

    ADDED = "added"
    UNCHANGED = "unchanged"
    REPLACED = "replaced"
    MODIFIED = "modified"
    RENAMED = "renamed"
    DELETED = "deleted"


@dataclass(frozen=True, slots=True)
class Done:
    """What became of a record, and what an entry that was replaced lost (-) and gained (+)."""

    outcome: Outcome
    values: tuple[tuple[str, str, str], ...] = ()
    """-, + or nothing, an attribute, a value."""


class Target(Protocol):
    """What takes changes; `read` is None for an entry that is not there, `add` False for one that is."""

    def read(self, dn: str) -> Attributes | None:
        """The user attributes of an entry."""
        ...

    def holds(self, dn: str, name: str, value: str) -> bool:
        """Whether the entry has the value, by the attribute's own matching."""
        ...

    def add(self, dn: str, attributes: Attributes) -> bool:
        """Add an entry."""
        ...

    def modify(self, dn: str, modifications: Sequence[Modification]) -> None:
        """Modify an entry, all or nothing."""
        ...

    def rename(self, dn: str, new_rdn: str, delete_old_rdn: bool, new_superior: str | None) -> None:
        """Rename or move an entry."""
        ...

    def delete(self, dn: str) -> None:
        """Delete an entry."""
        ...


def carry_out(record: Record, target: Target, replace: bool) -> Done:
    """Do what one record says; raises InputError or Unavailable that begin with the DN."""
    normal_dn(record.dn)
    match record.changetype:
        case None | "add":
            return _bring_in(record, target, replace)
        case "modify":
            lacking = _lacking(record, target)
            if not lacking:
                return Done(Outcome.UNCHANGED)
            target.modify(record.dn, lacking)
            return Done(Outcome.MODIFIED)
        case "delete":
            target.delete(record.dn)
            return Done(Outcome.DELETED)
        case _:
            target.rename(record.dn, record.new_rdn, record.delete_old_rdn, record.new_superior)
            return Done(Outcome.RENAMED)


def _lacking(record: Record, target: Target) -> list[Modification]:
    """The modifications without the values to be added that are there already."""
    stored = (
        (target.read(record.dn) or {}) if any(kind == "add" for kind, _, _ in record.modifications) else {}
    )
    present = {name.lower(): frozenset(values) for name, values in stored.items()}
    lacking: list[Modification] = []
    touched: set[str] = set()
    for kind, name, values in record.modifications:
        there = present.get(name.lower(), frozenset()) if name.lower() not in touched else frozenset[str]()
        folded = {value.casefold() for value in there}
        touched.add(name.lower())
        left = tuple(
            value
            for value in values
            if value not in there
            and not (value.casefold() in folded and target.holds(record.dn, name, value))
        )
        if kind != "add":
            lacking.append((kind, name, values))
        elif left:
            lacking.append((kind, name, left))
    return lacking


def _bring_in(record: Record, target: Target, replace: bool) -> Done:
    if target.add(record.dn, record.attributes):
        return Done(Outcome.ADDED)
    stored = target.read(record.dn)
    if stored is None:
        raise InputError(f"{record.dn}: is there, but is not shown to whom the configuration binds as")
    changes = list(_differences(record, stored, target))
    if not changes:
        return Done(Outcome.UNCHANGED)
    if not replace:
        names = ", ".join(name for _, name, _ in changes)
        raise InputError(f"{record.dn}: is there with other content ({names}), which only --replace changes")
    target.modify(record.dn, changes)
    return Done(Outcome.REPLACED, tuple(_lost_and_gained(changes, stored)))


def _lost_and_gained(changes: Iterable[Modification], stored: Attributes) -> Iterator[tuple[str, str, str]]:
    present = {name.lower(): values for name, values in stored.items()}
    for _, name, wanted in changes:
        there = present.get(name.lower(), ())
        yield from (("-", name, value) for value in there if value not in wanted)
        yield from (("+", name, value) for value in wanted if value not in there)


def _differences(record: Record, stored: Attributes, target: Target) -> Iterator[Modification]:
    """What makes the stored entry the record's."""
    left = {name.lower(): (name, values) for name, values in stored.items()}
    for name, wanted in record.attributes.items():
        _, present = left.pop(name.lower(), (name, ()))
        if not _is_same(record.dn, name, set(wanted), set(present), target):
            yield "replace", name, wanted
    for name, _ in left.values():
        yield "replace", name, ()


def _is_same(dn: str, name: str, wanted: set[str], present: set[str], target: Target) -> bool:
    if len(wanted) != len(present):
        return False
    return all(target.holds(dn, name, value) for value in sorted(wanted - present))


class Rehearsal:
    """A Target that reads from another one and keeps all changes to itself.

    `suffixes` are the DNs that need no entry above them; where they are not known, none is asked for.
    """

    def __init__(self, target: Target, suffixes: Collection[str]) -> None:
        self._target = target
        self._suffixes = frozenset(map(normal_dn, suffixes))
        self._changed: dict[str, dict[str, tuple[str, ...]] | None] = {}
        self._names: dict[str, str] = {}
        self.added: set[str] = set()
        """Normal DNs of entries that the other target has not got."""

    def changed(self) -> dict[str, Entry | None]:
        """The entries that are other than they were, by normal DN; None for one that is gone."""
        return {
            key: None if content is None else Entry(self._names[key], content)
            for key, content in self._changed.items()
        }

    def _change(self, dn: str, content: dict[str, tuple[str, ...]] | None) -> None:
        key = normal_dn(dn)
        self._changed[key] = content
        self._names[key] = dn

    def read(self, dn: str) -> Attributes | None:
        """See Target."""
        key = normal_dn(dn)
        if key in self._changed:
            return self._changed[key]
        if any(above in self._changed and self._changed[above] is None for above in ancestors(key)):
            return None
        return self._target.read(dn)

    def holds(self, dn: str, name: str, value: str) -> bool:
        """See Target; octet by octet for an entry that was touched here."""
        if normal_dn(dn) not in self._changed:
            return self._target.holds(dn, name, value)
        content = self.read(dn) or {}
        return any(value in values for known, values in content.items() if known.lower() == name.lower())

    def add(self, dn: str, attributes: Attributes) -> bool:
        """See Target."""
        if self.read(dn) is not None:
            return False
        key = normal_dn(dn)
        if self._suffixes and not any(is_below(key, suffix) for suffix in self._suffixes):
            raise InputError(f"{dn}: is below none of the suffixes of the server")
        if self._suffixes and key not in self._suffixes and self.read(_parent(dn)) is None:
            raise InputError(f"{dn}: the entry above it is not there")
        if key not in self._changed:
            self.added.add(key)
        self._change(dn, dict(attributes))
        return True

    def modify(self, dn: str, modifications: Sequence[Modification]) -> None:
        """See Target; values are found octet by octet."""
        content = {name.lower(): values for name, values in self._there(dn).items()}
        for operation, name, values in modifications:
            present = content.pop(name.lower(), ())
            match operation:
                case "add":
                    after = (*present, *values)
                case "delete":
                    after = tuple(value for value in present if values and value not in values)
                case "replace":
                    after = values
                case _:
                    after = present
            if after:
                content[name.lower()] = after
        self._change(dn, content)

    def rename(self, dn: str, new_rdn: str, delete_old_rdn: bool, new_superior: str | None) -> None:
        """See Target."""
        content = dict(self._there(dn))
        above = _parent(dn) if new_superior is None else new_superior
        new = f"{new_rdn},{above}"
        if self.read(new) is not None and normal_dn(new) != normal_dn(dn):
            raise InputError(f"{dn}: {new!r} is there already")
        self._change(dn, None)
        self._change(new, content)

    def delete(self, dn: str) -> None:
        """See Target."""
        self._there(dn)
        self._change(dn, None)

    def _there(self, dn: str) -> Attributes:
        content = self.read(dn)
        if content is None:
            raise InputError(f"{dn}: is not there")
        return content


def _parent(dn: str) -> str:
    """The DN above this one, in the same spelling."""
    return _FIRST_RDN.sub("", dn, count=1)


_T = TypeVar("_T", bound=tuple[str, Record])

_TABLE, _CLASS, _RULE, _POLICY, _DELETION = range(1, 6)
_RANKS = {
    **{name.lower(): _POLICY for name in POLICY_ATTRIBUTES[2:]},
    **{name.lower(): _TABLE for name in POLICY_ATTRIBUTES if name.startswith("smtpdAccess")},
    "smtpdrestrictions": _CLASS,
    **dict.fromkeys(AttributeMapping().rules, _RULE),
}
"""When what carries an attribute is brought in; whatever has none of them comes first."""


def in_order(records: Sequence[_T]) -> list[_T]:
    """So that nothing is named before it is there: what names nothing, tables, classes, rules, policies.

    Deletions are last, in the order in which they stand. Where an entry is spoken of twice, or renamed, all
    is left in its order.
    """
    keys = [key_of_dn(record.dn) for _, record in records]
    if len({*keys, ""}) <= len(keys) or any(
        record.changetype in ("modrdn", "moddn") for _, record in records
    ):
        return list(records)
    ranks = {key: _rank(record) for key, (_, record) in zip(keys, records, strict=True)}
    # An entry stands behind those above it.
    behind = {key: max((ranks[key], *(ranks.get(above, 0) for above in ancestors(key)))) for key in keys}
    return [one for _, one in sorted(zip(keys, records, strict=True), key=lambda pair: behind[pair[0]])]


def _rank(record: Record) -> int:
    if record.changetype == "delete":
        return _DELETION
    names = (*record.attributes, *(name for _, name, _ in record.modifications))
    return max((_RANKS.get(name.lower(), 0) for name in names), default=0)
