"""What a server's schema refuses of an entry, told before anything is written (RFC 4512 section 4.1 and 4.2).

Looked at are names, how many values, the commonest syntaxes (RFC 4517 section 3.3), and, where the schema
tells it, which attributes the object classes require and allow.

BUGS: Active Directory's classes allow more than its subschema says, and what it requires it often fills in
itself: there, and where DIT content rules are, the server alone looks at that.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from ldap3.protocol.rfc4512 import AttributeTypeInfo, ObjectClassInfo

from ldappolicy.directory import Scope
from ldappolicy.directory.ldap.writing import Writer
from ldappolicy.directory.loading import Attributes
from ldappolicy.entry import normal_dn
from ldappolicy.errors import InputError
from ldappolicy.ldif import Record

_PREFIX = "1.3.6.1.4.1.1466.115.121.1."


def _is_dn(value: str) -> bool:
    try:
        normal_dn(value)
    except InputError:
        return value.startswith("<")  # <GUID=...>, as Active Directory takes it
    return True


_SYNTAXES: Mapping[str, tuple[str, Callable[[str], object]]] = {
    f"{_PREFIX}7": ("TRUE or FALSE", lambda value: value.upper() in ("TRUE", "FALSE")),
    f"{_PREFIX}12": ("a DN", _is_dn),
    f"{_PREFIX}24": ("YYYYMMDDHHMMSSZ", re.compile(r"\d{10}(\d\d){0,2}([.,]\d+)?(Z|[+-]\d{2,4})").fullmatch),
    f"{_PREFIX}26": ("ASCII", str.isascii),
    f"{_PREFIX}27": ("a whole number", re.compile(r"-?\d+", re.ASCII).fullmatch),
    f"{_PREFIX}36": ("digits", re.compile(r"[\d ]+", re.ASCII).fullmatch),
}


@dataclass(frozen=True, slots=True)
class Subschema:
    """Definitions by each of their names, in lower case; empty where the server does not show them."""

    types: Mapping[str, Any]
    classes: Mapping[str, Any]
    tells_content: bool

    def check(self, record: Record, content: Attributes) -> None:
        """Raises InputError for what it refuses of a record; `content` is what the entry comes to."""
        if not self.types:
            return
        given = [*record.attributes.items(), *((name, values) for _, name, values in record.modifications)]
        for name, values in given:
            self._check_values(record.dn, name, values)
        named = {_bare(name): name for name, values in given if values}
        if record.changetype in (None, "add", "modify") and content:
            self._check_content(record.dn, named, {_bare(name): values for name, values in content.items()})

    def _check_values(self, dn: str, name: str, values: tuple[str, ...]) -> None:
        found = self.types.get(_bare(name))
        if found is None:
            raise InputError(
                f"{dn}: {name}: is unknown to the server's schema, expected one of its attributes"
            )
        if found.single_value and len(values) > 1:
            raise InputError(f"{dn}: {name}: {len(values)} values, expected one")
        expected, fits = _SYNTAXES.get(self._syntax(found), ("", bool))
        for value in values if expected and not name.lower().endswith(";binary") else ():
            if not fits(value):
                raise InputError(f"{dn}: {name}: {value!r}, expected {expected}")

    def _syntax(self, found: Any) -> str:
        seen = 0
        while not found.syntax and found.superior and seen < len(self.types):
            found, seen = self.types.get(found.superior[0].lower(), found), seen + 1
        return (found.syntax or "").partition("{")[0]

    def _check_content(self, dn: str, named: Mapping[str, str], content: Attributes) -> None:
        names = content.get("objectclass", ())
        for name in names:
            if name.lower() not in self.classes:
                raise InputError(f"{dn}: objectClass: {name!r} is unknown to the server's schema")
        if not (names and self.tells_content):
            return
        classes = list(self._with_superiors(names))
        rdn = {kind.strip().lower() for kind in re.findall(r"(?:^|\+)([^=+]+)=", dn.partition(",")[0])}
        must = {name for one in classes for name in one.must_contain or ()}
        lacking = sorted(name for name in must if not self._is_among(name, {*content, *rdn}))
        if lacking:
            raise InputError(f"{dn}: {lacking[0]}: is required by the object classes, expected a value")
        if any("extensibleObject" in one.name for one in classes):
            return
        may = must | {name for one in classes for name in one.may_contain or ()} | {"objectClass"}
        for name in sorted(named):
            operational = self.types[name].usage not in (None, "userApplications")
            if not operational and not any(self._is_among(one, {name}) for one in may):
                raise InputError(
                    f"{dn}: {named[name]}: is not allowed by the object classes {', '.join(names)}"
                )

    def _is_among(self, name: str, names: Iterable[str]) -> bool:
        """Whether an attribute, by any of its names, is one of these."""
        found = self.types.get(name.lower())
        also = {one.lower() for one in found.name} if found is not None else {name.lower()}
        return not also.isdisjoint(names)

    def _with_superiors(self, names: Iterable[str]) -> Iterator[Any]:
        waiting, seen = [name.lower() for name in names], set[str]()
        while waiting:
            name = waiting.pop()
            if name not in seen and (found := self.classes.get(name)) is not None:
                seen.add(name)
                waiting += [superior.lower() for superior in found.superior or ()]
                yield found


def read_subschema(writer: Writer, *, tells_content: bool) -> Subschema:
    """The one of the server (RFC 4512 section 4.4); empty where it may not be read."""
    root = writer.search("", Scope.BASE, ("subschemaSubentry",))
    where = next((values[0] for _, found in root for values in found.values() if values), "")
    names = ("attributeTypes", "objectClasses", "dITContentRules")
    shown: list[tuple[str, Attributes]] = []
    with suppress(InputError):
        shown = writer.search(where, Scope.BASE, names) if where else []
    found = {name.lower(): values for _, attributes in shown for name, values in attributes.items()}
    types = AttributeTypeInfo.from_definition(list(found.get("attributetypes", ())))
    classes = ObjectClassInfo.from_definition(list(found.get("objectclasses", ())))
    return Subschema(_by_name(types), _by_name(classes), tells_content and "ditcontentrules" not in found)


def _by_name(found: Mapping[str, Any] | None) -> dict[str, Any]:
    return {name.lower(): one for one in (found or {}).values() for name in (*(one.name or ()), one.oid)}


def _bare(name: str) -> str:
    return name.partition(";")[0].lower()
