"""Definitions of attribute types and object classes (RFC 4512 section 4.1) as values of an entry.

Servers number the values ({3}( 2.25... )), fold them, name their origin and write them in their own way,
so definitions are known by their names and compared word by word, in any order.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from ldappolicy.directory.ldap.installing import LEFT
from ldappolicy.directory.ldap.writing import Writer
from ldappolicy.directory.loading import Attributes
from ldappolicy.ldif import Modification

TYPE, CLASS = "attribute type", "object class"

Kinds = Mapping[str, str]
"""The attributes that hold definitions, types first (classes name them), and what they define."""

_NUMBER = re.compile(r"\{-?\d+\}")
_NAME = re.compile(r"\bNAME\s+\(?\s*'([^']+)'")
_WORD = re.compile(r"'[^']*'|[()$]|[^\s()$']+")
_DESCRIBED = re.compile(r"\bDESC\s+'[^']*'")
_ORIGIN = re.compile(r"\bX-ORIGIN\s+(?:'[^']*'|\([^)]*\))")


class Definition(NamedTuple):
    """One value, what it defines, and the entry and the attribute that hold it."""

    dn: str
    attribute: str
    kind: str
    name: str
    value: str

    @property
    def number(self) -> str:
        """What the server put in front."""
        found = _NUMBER.match(self.value)
        return found[0] if found else ""

    @property
    def text(self) -> str:
        """The definition itself."""
        return self.value[len(self.number) :]

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"

    def is_same(self, other: "Definition") -> bool:
        """Whether both define the same, written in whatever way."""
        return _words(self.text) == _words(other.text)

    def extends(self, other: "Definition") -> bool:
        """Whether it has the same number and allows all that the other does."""
        ours, theirs = (_words(_DESCRIBED.sub("", one.text)) for one in (self, other))
        return self.text.split()[1] == other.text.split()[1] and set(theirs) <= set(ours)


def _words(text: str) -> list[str]:
    return sorted(_WORD.findall(_ORIGIN.sub("", text)))


def definitions(dn: str, attributes: Attributes, kinds: Kinds) -> Iterator[Definition]:
    """All definitions in an entry that have a name."""
    held = {name.lower(): values for name, values in attributes.items()}
    for attribute, kind in kinds.items():
        for value in held.get(attribute.lower(), ()):
            if found := _NAME.search(value):
                yield Definition(dn, attribute, kind, found[1], value)


def bring_in(
    writer: Writer, home: str, wanted: Sequence[Definition], stored: Sequence[Definition]
) -> list[str]:
    """Add to the entry `home` what is not stored anywhere, and exchange classes that differ."""
    by_name = {found.name.lower(): found for found in stored}
    missing = [definition for definition in wanted if definition.name.lower() not in by_name]
    pairs = [(one, by_name[one.name.lower()]) for one in wanted if one.name.lower() in by_name]
    different = [(new, old) for new, old in pairs if not new.is_same(old)]
    return [*_add(writer, home, missing), *_exchange(writer, different)]


def _add(writer: Writer, dn: str, missing: Sequence[Definition]) -> Iterator[str]:
    if not missing:
        return
    additions: dict[str, list[str]] = {}
    for one in missing:
        additions.setdefault(one.attribute, []).append(one.text)
    writer.modify(dn, [("add", attribute, tuple(texts)) for attribute, texts in additions.items()])
    yield from (f"added: {dn}: {definition}" for definition in missing)


def _exchange(writer: Writer, pairs: Sequence[tuple[Definition, Definition]]) -> Iterator[str]:
    """New definitions for old ones, in the same place, so that the numbers of others stay."""
    for new, old in pairs:
        if new.kind == TYPE or not new.extends(old):
            # Its syntax may be in use; a class may be a site's, or have been completed by one.
            yield f"{LEFT}{old.dn}: {old}, which is not as shipped"
            continue
        exchange: list[Modification] = [
            ("delete", old.attribute, (old.value,)),
            ("add", old.attribute, (old.number + new.text,)),
        ]
        writer.modify(old.dn, exchange)
        yield f"replaced: {old.dn}: {old}"
