"""LDIF records into a directory: what each of them takes, and a rehearsal that changes nothing.

A content record (or `changetype: add`) is an entry as it should be. One that is not there is added, one
that is there with the same content is left, one with other content is an error, or is modified to be
exactly the record's. Content is all of the user attributes: names without case, values as sets. Where
the octets of two values differ, the server is asked whether it takes them for one (compare, RFC 4511
section 4.10), so that the case of a name or the spaces in a DN are no difference.

The other change records are carried out as they stand: who sends the same `add: mail` twice hears of it.

BUGS: attributes under another of their names (`commonName`), and what a server adds to an entry of its
own accord (389 Directory Server: the superior object classes), count as other content, as does a
password that is not shown. A rehearsal does not know what only the server checks: schema, access
rules, entries below one that is deleted, the naming attribute after a renaming.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from enum import Enum
from typing import Protocol

from ldappolicy.entry import is_below, normal_dn
from ldappolicy.errors import InputError
from ldappolicy.ldif import Modification, Record

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


def carry_out(record: Record, target: Target, replace: bool) -> Outcome:
    """Do what one record says; raises InputError or Unavailable that begin with the DN."""
    normal_dn(record.dn)
    match record.changetype:
        case None | "add":
            return _bring_in(record, target, replace)
        case "modify":
            if not record.modifications:
                return Outcome.UNCHANGED
            target.modify(record.dn, record.modifications)
            return Outcome.MODIFIED
        case "delete":
            target.delete(record.dn)
            return Outcome.DELETED
        case _:
            target.rename(record.dn, record.new_rdn, record.delete_old_rdn, record.new_superior)
            return Outcome.RENAMED


def _bring_in(record: Record, target: Target, replace: bool) -> Outcome:
    if target.add(record.dn, record.attributes):
        return Outcome.ADDED
    stored = target.read(record.dn)
    if stored is None:
        raise InputError(f"{record.dn}: is there, but is not shown to whom the configuration binds as")
    changes = list(_differences(record, stored, target))
    if not changes:
        return Outcome.UNCHANGED
    if not replace:
        names = ", ".join(name for _, name, _ in changes)
        raise InputError(f"{record.dn}: is there with other content ({names}), which only --replace changes")
    target.modify(record.dn, changes)
    return Outcome.REPLACED


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

    def read(self, dn: str) -> Attributes | None:
        """See Target."""
        key = normal_dn(dn)
        if key in self._changed:
            return self._changed[key]
        if any(above in self._changed and self._changed[above] is None for above in _ancestors(key)):
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
        self._changed[key] = dict(attributes)
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
        self._changed[normal_dn(dn)] = content

    def rename(self, dn: str, new_rdn: str, delete_old_rdn: bool, new_superior: str | None) -> None:
        """See Target."""
        content = dict(self._there(dn))
        above = _parent(dn) if new_superior is None else new_superior
        new = f"{new_rdn},{above}"
        if self.read(new) is not None and normal_dn(new) != normal_dn(dn):
            raise InputError(f"{dn}: {new!r} is there already")
        self._changed[normal_dn(dn)] = None
        self._changed[normal_dn(new)] = content

    def delete(self, dn: str) -> None:
        """See Target."""
        self._there(dn)
        self._changed[normal_dn(dn)] = None

    def _there(self, dn: str) -> Attributes:
        content = self.read(dn)
        if content is None:
            raise InputError(f"{dn}: is not there")
        return content


def _parent(dn: str) -> str:
    """The DN above this one, in the same spelling."""
    return _FIRST_RDN.sub("", dn, count=1)


def _ancestors(normal: str) -> Iterator[str]:
    while normal := normal.partition(",")[2]:
        yield normal
