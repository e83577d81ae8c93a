"""Active Directory: attributes and classes in the schema naming context (MS-ADSC, MS-ADTS section 3.1.1.2).

A record of the shipped file that adds is left out when the object is there; one that is there is
completed (mayContain grows with a later version), and left where what cannot be changed any more (its
number, its syntax) is not as shipped: nothing that once was in this schema can be taken back. After
each round of additions the server is told to read its schema again (schemaUpdateNow), or it would not
know the names that the next one uses. associatedDomain is given an index at the end.

The server has to be the schema master, and the identity a Schema Admin: that is looked at first, since what
is written half could not be taken back (MS-ADTS sections 6.1.5.1 and 3.1.1.4.5.22).

There are no access rules to bring in: what users may write on their own objects stands in property sets,
none of ours is in one, and the classes come with security descriptors of their own (access-ad.md).
"""

from collections.abc import Iterable, Iterator, Sequence

from ldappolicy.directory import Scope
from ldappolicy.directory.ldap.installing import LEFT, values_of
from ldappolicy.directory.ldap.writing import Writer
from ldappolicy.directory.loading import Attributes
from ldappolicy.entry import normal_dn
from ldappolicy.errors import ConfigError
from ldappolicy.ldif import Record

SHIPPED_BASE = "CN=Schema,CN=Configuration,DC=X"
"""The base in ldappolicy-ad.ldif that is to be filled in."""

_FIXED = ("lDAPDisplayName", "attributeID", "attributeSyntax", "oMSyntax", "isSingleValued", "governsID")
_GROWS = "mayContain"
_SEARCHED, _INDEXED = "associatedDomain", 1
"""The one attribute of the profile's that comes without an index, and fATTINDEX (MS-ADTS section 2.2.10)."""


def install(writer: Writer, shipped: Iterable[Record]) -> list[str]:
    """Bring the schema in; what was done, a line each."""
    (base,) = writer.root_dse().get("schemanamingcontext", ("",))
    if not base or writer.read(base) is None:
        raise ConfigError(f"{writer.uri} does not show its schema, expected an identity that may write it")
    _require_rights(writer, base)
    lines: list[str] = []
    unread = False
    for record in shipped:
        if not record.dn:
            unread = unread and _read_again(writer)
            continue
        done = list(_carry_out(writer, record, base))
        unread = unread or any(not line.startswith(LEFT) for line in done)
        lines += done
    return [*lines, *_index(writer, f"CN={_SEARCHED},{base}")]


def _require_rights(writer: Writer, base: str) -> None:
    """Raises ConfigError for a server that is not the schema master, and for who may add nothing there."""
    ((_, held),) = writer.search(base, Scope.BASE, ("fSMORoleOwner", "allowedChildClassesEffective"))
    (owner,) = values_of(held, "fSMORoleOwner") or ("",)
    (server,) = writer.root_dse().get("dsservicename", ("",))
    if owner and server and normal_dn(owner) != normal_dn(server):
        raise ConfigError(f"{writer.uri} is {server}, expected the schema master, {owner}")
    allowed = {name.lower() for name in values_of(held, "allowedChildClassesEffective")}
    if not {"attributeschema", "classschema"} <= allowed:
        raise ConfigError(f"{writer.uri}: {base}: nothing may be added there, expected a Schema Admin")


def _index(writer: Writer, dn: str) -> Iterator[str]:
    """What is searched for has an index, or every lookup of a domain goes through all objects."""
    (flags,) = values_of(writer.read(dn) or {}, "searchFlags") or ("0",)
    if not int(flags) & _INDEXED:
        writer.modify(dn, [("replace", "searchFlags", (str(int(flags) | _INDEXED),))])
        _read_again(writer)
        yield f"modified: {dn}: searchFlags: {int(flags) | _INDEXED}, an index"


def _read_again(writer: Writer) -> bool:
    """Have the server read its schema; nothing is unread then."""
    writer.modify("", [("add", "schemaUpdateNow", ("1",))])
    return False


def _carry_out(writer: Writer, record: Record, base: str) -> Iterator[str]:
    dn = record.dn.replace(SHIPPED_BASE, base)
    held = writer.read(dn)
    if record.changetype == "modify":
        wanted = [value for _, _, values in record.modifications for value in values]
        yield from _grow(writer, dn, held or {}, wanted)
    elif held is None:
        filled = {name: _filled(values, base) for name, values in record.attributes.items()}
        writer.add(dn, filled)
        yield f"added: {dn}"
    elif different := [name for name in _FIXED if not _is_same(name, held, record.attributes)]:
        yield f"{LEFT}{dn}, which is not as shipped ({', '.join(different)})"
    else:
        yield from _grow(writer, dn, held, record.attributes.get(_GROWS, ()))


def _grow(writer: Writer, dn: str, held: Attributes, wanted: Sequence[str]) -> Iterator[str]:
    """More of what objects of this class may have."""
    there = {name.lower() for name in values_of(held, _GROWS)}
    missing = tuple(name for name in wanted if name.lower() not in there)
    if missing:
        writer.modify(dn, [("add", _GROWS, missing)])
        yield f"modified: {dn}: {_GROWS}: {', '.join(missing)}"


def _filled(values: Iterable[str], base: str) -> tuple[str, ...]:
    return tuple(value.replace(SHIPPED_BASE, base) for value in values)


def _is_same(name: str, held: Attributes, shipped: Attributes) -> bool:
    return values_of(held, name) == values_of(shipped, name)
