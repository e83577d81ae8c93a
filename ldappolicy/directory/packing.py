"""Entries held tightly, for a directory's worth of them.

A user with three addresses is a kilobyte and more as an `Entry`, most of it a dict and a tuple for each
attribute. Packed it is one tuple: which attributes there are is said by a dict that all entries of that shape
share, a single value stands alone, and strings that many entries hold (a member's DN, a class, TRUE) are one.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import pairwise
from typing import Any

from ldappolicy.directory.matching import DN_ATTRIBUTES
from ldappolicy.entry import Entry

COMMON = 4096
"""Values of one attribute among which a string is looked for; with more it is one whose values are unique."""

UUIDS = ("entryuuid", "objectguid", "nsuniqueid")
"""The attributes that `changes.entry_uuid` reads: their values are made again from what it says."""

_UUID = 2  # its place in the tuple
_FIRST = 4  # the place of the first value
_HEX = re.compile("[0-9a-f]{32}")


class Packed(tuple[Any, ...]):
    """DN, normal DN, uuid, the place of each attribute, and the values: what `matching.Matched` asks."""

    __slots__ = ()

    @property
    def dn(self) -> str:
        """As spelled."""
        dn: str = self[0]
        return dn

    @property
    def key(self) -> str:
        """The normal DN."""
        key: str = self[1]
        return key

    @property
    def uuid(self) -> str:
        """What it is told apart by."""
        uuid: str = self[2]
        return uuid

    def values(self, name: str, /) -> tuple[str, ...]:
        """All values of an attribute, its name in any case; none is an empty tuple."""
        places: dict[str, int] = self[3]
        if name not in places:
            name = name.lower()
            if name not in places:
                return ()
        return self._at(places[name], name)

    def items(self) -> Iterator[tuple[str, tuple[str, ...]]]:
        """The attributes that have values: name in lower case, values."""
        places: dict[str, int] = self[3]
        return ((name, self._at(place, name)) for name, place in places.items())

    def entry(self, names: Collection[str]) -> Entry:
        """The entry, with the attributes that are named in lower case."""
        return Entry(self[0], {name: values for name, values in self.items() if name in names})

    def is_same(self, other: "Packed") -> bool:
        """Whether nothing differs but the order of values."""
        if self == other:
            return True
        if self[:_FIRST] != other[:_FIRST]:
            return False
        return all(set(values) == set(other.values(name)) for name, values in self.items())

    def _at(self, place: int, name: str) -> tuple[str, ...]:
        if place == _UUID:
            return (spelled_uuid(name, self[_UUID]),)
        value: str | tuple[str, ...] = self[place]
        return (value,) if isinstance(value, str) else value


def spelled_uuid(name: str, uuid: str) -> str:
    """The value of one of `UUIDS` that says this uuid; empty for what is none."""
    if not _HEX.fullmatch(uuid):
        return ""
    if name == "objectguid":
        return bytes.fromhex(uuid).decode("utf-8", "surrogateescape")
    ends = (8, 12, 16, 20, 32) if name == "entryuuid" else (8, 16, 24, 32)
    return "-".join(uuid[start:end] for start, end in pairwise((0, *ends)))


class Packer:
    """Packs the wanted attributes (in lower case) of entries.

    `superiors` are the classes above each class, in lower case: an entry is of these too.
    """

    def __init__(self, wanted: Iterable[str], superiors: Mapping[str, Iterable[str]]) -> None:
        self._wanted = frozenset(wanted)
        self._superiors = superiors
        self._places: dict[tuple[tuple[str, ...], tuple[str, ...]], dict[str, int]] = {}
        self._classes: dict[tuple[str, ...], tuple[str, ...]] = {}
        self._common: dict[str, dict[str, str]] = {}

    def pack(self, uuid: str, entry: Entry, spelled: dict[str, str]) -> Packed:
        """Pack an entry; `spelled` has the DNs that are held already, and takes in the new ones."""
        held = {
            name: self._shared(name, values, spelled)
            for name, values in sorted(entry.items())
            if name in self._wanted and not (name in UUIDS and values == (spelled_uuid(name, uuid),))
        }
        told = tuple(
            name for name in UUIDS if name in self._wanted and name not in held and entry.values(name)
        )
        dn = spelled.setdefault(entry.dn, entry.dn)
        key = dn if dn == entry.key else spelled.setdefault(entry.key, entry.key)
        values = (value[0] if len(value) == 1 else value for value in held.values())
        return Packed((dn, key, uuid, self._places_of(told, tuple(held)), *values))

    def _places_of(self, told: tuple[str, ...], held: tuple[str, ...]) -> dict[str, int]:
        places = self._places.get((told, held))
        if places is None:
            numbered = {name: _FIRST + number for number, name in enumerate(held)}
            places = self._places[told, held] = dict.fromkeys(told, _UUID) | numbered
        return places

    def _shared(self, name: str, values: tuple[str, ...], spelled: dict[str, str]) -> tuple[str, ...]:
        if name in DN_ATTRIBUTES:
            return tuple(map(spelled.setdefault, values, values))
        if name == "objectclass":
            return self._classes.get(values) or self._classes.setdefault(values, self._with_superiors(values))
        common = self._common.setdefault(name, {})
        if len(common) >= COMMON:
            return values
        return tuple(map(common.setdefault, values, values))

    def _with_superiors(self, classes: tuple[str, ...]) -> tuple[str, ...]:
        listed = {name.lower() for name in classes}
        above = {name: None for one in classes for name in self._superiors.get(one.lower(), ())}
        return (*classes, *(name for name in above if name not in listed))
