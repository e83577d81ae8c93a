"""389 Directory Server and FreeIPA: the schema in cn=schema, and access control instructions in the suffix.

The server writes what is added to cn=schema into its 99user.ldif, and passes it on to its replicas.
Missing definitions are added, a class that differs is exchanged, an attribute type that differs is left.

The instructions deny: here a deny wins over every allow, so that a site's "self write" does not matter any
more, and what may be read stays as it is. They take nothing from anybody but the removal of entries that
carry our attributes. Where an instruction of the site's names our attributes there are no more: a deny of
ours would win over what it allows.

BUGS: who may write addresses, logins and groups is not touched, since account tools would stop working:
access-389ds.ldif is for that. FreeIPA keeps its instructions in entries of many depths; a deny in the
suffix holds below all of them.
"""

import re
from collections.abc import Iterator, Sequence
from urllib.parse import quote

from ldappolicy.directory import Scope
from ldappolicy.directory.ldap.installing import LEFT, Access
from ldappolicy.directory.ldap.installing.definitions import CLASS, TYPE, bring_in, definitions
from ldappolicy.directory.ldap.writing import Writer
from ldappolicy.entry import is_below, normal_dn
from ldappolicy.errors import ConfigError
from ldappolicy.ldif import Record

KINDS = {"attributeTypes": TYPE, "objectClasses": CLASS}

_VALUES, _ENTRIES = "ldappolicy: written by postmasters", "ldappolicy: entries of postmasters"
_TARGET = {
    _VALUES: re.compile(r'targetattr\s*=\s*"([^"]*)"', re.IGNORECASE),
    _ENTRIES: re.compile(r'targetfilter\s*=\s*"([^"]*)"', re.IGNORECASE),
}


def install(writer: Writer, shipped: Record, access: Access | None) -> list[str]:
    """Bring the schema and its access rules in; what was done, a line each."""
    found = writer.search("cn=schema", Scope.BASE, tuple(KINDS))
    if not found:
        raise ConfigError(f"{writer.uri} does not show cn=schema, expected an identity that may write it")
    ((dn, held),) = found
    wanted = list(definitions(dn, shipped.attributes, KINDS))
    lines = bring_in(writer, dn, wanted, list(definitions(dn, held, KINDS)))
    if access is None:
        return lines
    names = [one.name for one in wanted if one.kind == TYPE]
    return [*lines, *_install_access(writer, names, access)]


def _install_access(writer: Writer, names: Sequence[str], access: Access) -> Iterator[str]:
    contexts = writer.root_dse().get("namingcontexts", ())
    bases = [normal_dn(base) for base in access.bases]
    suffixes = [dn for dn in contexts if any(is_below(base, normal_dn(dn)) for base in bases)]
    if not suffixes:
        yield f"{LEFT}{writer.uri}: no access rules, for no suffix holds {' or '.join(access.bases)}"
    for suffix in suffixes:
        yield from _close(writer, suffix, names, access)


def _close(writer: Writer, suffix: str, names: Sequence[str], access: Access) -> Iterator[str]:
    found = writer.search(suffix, Scope.BASE, ("aci",))
    if not found:
        yield f"{LEFT}{suffix}: no access rules, for it is not there yet: install again when it is"
        return
    there = found[0][1].get("aci", ())
    for name, aci in _instructions(names, access):
        (old,) = [one for one in there if f'"{name}"' in one][:1] or [""]
        if old and access.postmasters and _who(Access(())) in old:
            writer.modify(suffix, [("delete", "aci", (old,)), ("add", "aci", (aci,))])
            yield f'replaced: {suffix}: aci "{name}", {_writers(access)}'
        elif not old and not _names(there, name, names):
            writer.modify(suffix, [("add", "aci", (aci,))])
            yield f'added: {suffix}: aci "{name}", {_writers(access)}'


def _names(there: Sequence[str], what: str, names: Sequence[str]) -> bool:
    """Whether an instruction is about our attributes by name, in the same way as that of ours."""
    targets = " ".join(text for aci in there for text in _TARGET[what].findall(aci)).lower()
    return any(re.search(rf"\b{name.lower()}\b", targets) for name in names)


def _instructions(names: Sequence[str], access: Access) -> Iterator[tuple[str, str]]:
    attributes = " || ".join(names)
    carried = "".join(f"({name}=*)" for name in names)
    for name, target, rights in (
        (_VALUES, f'(targetattr = "{attributes}")', "write, selfwrite"),
        (_ENTRIES, f'(targetfilter = "(|{carried})")', "add, delete"),
    ):
        yield name, f'{target}(version 3.0; acl "{name}"; deny ({rights}) {_who(access)};)'


def _who(access: Access) -> str:
    group = quote(access.postmasters, safe="=, ")
    return f'groupdn != "ldap:///{group}"' if group else 'userdn = "ldap:///anyone"'


def _writers(access: Access) -> str:
    return f"which are {access.postmasters}" if access.postmasters else "which is nobody yet"
