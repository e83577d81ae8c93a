"""The schema into OpenLDAP's cn=config: what is there, what is missing, what has grown.

slapd keeps each schema in an entry below cn=schema,cn=config, renames it to cn={N}ldappolicy, numbers
the values ({3}( 2.25... )) and writes them in its own way, so definitions are known by their names and
compared word by word, in any order. A definition counts wherever it stands: a site may have brought it
in under another name.

Missing definitions are added. An object class that differs is exchanged, since a later version allows
more attributes in it. An attribute type that differs is left, and said: its syntax may be in use.
"""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ldappolicy.directory import Scope
from ldappolicy.directory.ldap.writing import Writer
from ldappolicy.directory.loading import Attributes
from ldappolicy.errors import ConfigError
from ldappolicy.ldif import Modification, Record

ATTRIBUTE_TYPES, OBJECT_CLASSES = "olcAttributeTypes", "olcObjectClasses"
KINDS = {ATTRIBUTE_TYPES: "attribute type", OBJECT_CLASSES: "object class"}

_NUMBER = re.compile(r"\{-?\d+\}")
_NAME = re.compile(r"\bNAME\s+\(?\s*'([^']+)'")
_WORD = re.compile(r"'[^']*'|[()$]|[^\s()$']+")


class Definition(NamedTuple):
    """One value of an attribute of cn=config, and the entry that holds it."""

    dn: str
    attribute: str
    name: str
    value: str

    @property
    def number(self) -> str:
        """What slapd put in front."""
        found = _NUMBER.match(self.value)
        return found[0] if found else ""

    @property
    def text(self) -> str:
        """The definition itself."""
        return self.value[len(self.number) :]

    def __str__(self) -> str:
        return f"{KINDS[self.attribute]} {self.name}"

    def is_same(self, other: "Definition") -> bool:
        """Whether both define the same, written in whatever way."""
        return sorted(_WORD.findall(self.text)) == sorted(_WORD.findall(other.text))


def install(writer: Writer, shipped: Record, config_base: str) -> list[str]:
    """Bring the schema in; what was done, a line each, nothing when all was there."""
    base = f"cn=schema,{config_base}"
    entries = _schemas(writer, base)
    stored = {found.name.lower(): found for dn, held in entries for found in _definitions(dn, held)}
    wanted = list(_definitions(shipped.dn, shipped.attributes))
    missing = [definition for definition in wanted if definition.name.lower() not in stored]
    pairs = [(one, stored[one.name.lower()]) for one in wanted if one.name.lower() in stored]
    home = pairs[0][1].dn if pairs else _home(entries, shipped)
    if not home:
        return [_add_entry(writer, shipped, base)]
    different = [(new, old) for new, old in pairs if not new.is_same(old)]
    return [*_add(writer, home, missing), *_exchange(writer, different)]


def _add_entry(writer: Writer, shipped: Record, base: str) -> str:
    writer.add(f"{shipped.dn.partition(',')[0]},{base}", shipped.attributes)
    types, classes = (len(shipped.attributes[attribute]) for attribute in KINDS)
    home = _home(_schemas(writer, base), shipped)
    return f"added: {home}: {types} attribute types, {classes} object classes"


def _schemas(writer: Writer, base: str) -> list[tuple[str, Attributes]]:
    entries = writer.search(base, Scope.ONE, ("cn", *KINDS))
    if not entries:
        # There is always cn=core.
        raise ConfigError(
            f"{writer.uri} does not show {base}, expected an identity that may write it, "
            "such as uri = ['ldapi:///'] with bind = 'sasl_external'"
        )
    return entries


def _definitions(dn: str, attributes: Attributes) -> Iterator[Definition]:
    held = {name.lower(): values for name, values in attributes.items()}
    for attribute in KINDS:
        for value in held.get(attribute.lower(), ()):
            if found := _NAME.search(value):
                yield Definition(dn, attribute, found[1], value)


def _home(entries: Sequence[tuple[str, Attributes]], shipped: Record) -> str:
    """The entry that has the shipped one's name, but for the number; empty if there is none."""
    (name,) = shipped.attributes["cn"]
    for dn, attributes in entries:
        if any(_NUMBER.sub("", cn, count=1).lower() == name for cn in attributes.get("cn", ())):
            return dn
    return ""


def _add(writer: Writer, dn: str, missing: Sequence[Definition]) -> Iterator[str]:
    if not missing:
        return
    additions = [
        ("add", attribute, tuple(one.text for one in missing if one.attribute == attribute))
        for attribute in KINDS  # the types first: classes name them
    ]
    writer.modify(dn, [addition for addition in additions if addition[2]])
    yield from (f"added: {dn}: {definition}" for definition in missing)


def _exchange(writer: Writer, pairs: Sequence[tuple[Definition, Definition]]) -> Iterator[str]:
    """New definitions for old ones, in the same place, so that the numbers of others stay."""
    for new, old in pairs:
        if new.attribute == ATTRIBUTE_TYPES:
            yield f"left: {old.dn}: {old}, which is not as shipped"
            continue
        exchange: list[Modification] = [
            ("delete", old.attribute, (old.value,)),
            ("add", old.attribute, (old.number + new.text,)),
        ]
        writer.modify(old.dn, exchange)
        yield f"replaced: {old.dn}: {old}"
