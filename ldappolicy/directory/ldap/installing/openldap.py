"""OpenLDAP: the schema below cn=schema,cn=config, and access rules in the database (slapd.access(5)).

slapd renames a schema's entry to cn={N}ldappolicy. A definition counts wherever it stands: a site may
have brought it in under another name. Missing ones are added, a class that differs is exchanged, since a
later version allows more in it, and an attribute type that differs is left.

The access rule is the first of the database and final for our attributes: without it, "by self write"
of the site's lets every user make policy. It takes nothing from anybody, for nobody has had these
attributes before. With it goes olcAddContentAcl, or who may add entries may give them any attribute. A
rule that names an attribute of ours already, wherever it stands, is the site's, and stays alone.

BUGS: slapd has no rule that denies writing and leaves reading to the next one, so everybody who reaches the
database may read these attributes; a site that shows them to fewer people changes that in the rule. Who
may write addresses, logins and groups is not touched, since account tools would stop working:
access-openldap.ldif is for that.
"""

import re
from collections.abc import Iterator, Sequence

from ldappolicy.directory import Scope
from ldappolicy.directory.ldap.installing import LEFT, Access, values_of
from ldappolicy.directory.ldap.installing.definitions import CLASS, TYPE, bring_in, definitions
from ldappolicy.directory.ldap.writing import Writer
from ldappolicy.directory.loading import Attributes
from ldappolicy.entry import is_below, normal_dn
from ldappolicy.errors import ConfigError
from ldappolicy.ldif import Modification, Record

KINDS = {"olcAttributeTypes": TYPE, "olcObjectClasses": CLASS}

Entries = Sequence[tuple[str, Attributes]]

_NUMBER = re.compile(r"\{-?\d+\}")
_ATTRS = re.compile(r"\battrs?=([\w,;@!-]+)", re.IGNORECASE)


def install(writer: Writer, shipped: Record, access: Access | None) -> list[str]:
    """Bring the schema and its access rules in; what was done, a line each."""
    (config_base,) = writer.root_dse().get("configcontext", ("cn=config",))
    lines = _install_schema(writer, shipped, f"cn=schema,{config_base}")
    if access is None:
        return lines
    names = [one.name for one in definitions("", shipped.attributes, KINDS) if one.kind == TYPE]
    return [*lines, *_install_access(writer, names, config_base, access)]


def _install_schema(writer: Writer, shipped: Record, base: str) -> list[str]:
    entries = _schemas(writer, base)
    wanted = list(definitions(shipped.dn, shipped.attributes, KINDS))
    stored = [found for dn, held in entries for found in definitions(dn, held, KINDS)]
    ours = {one.name.lower() for one in wanted}
    home = next((one.dn for one in stored if one.name.lower() in ours), "") or _home(entries, shipped)
    if not home:
        return [_add_entry(writer, shipped, base)]
    return bring_in(writer, home, wanted, stored)


def _add_entry(writer: Writer, shipped: Record, base: str) -> str:
    writer.add(f"{shipped.dn.partition(',')[0]},{base}", shipped.attributes)
    types, classes = (len(shipped.attributes[attribute]) for attribute in KINDS)
    home = _home(_schemas(writer, base), shipped) or f"{shipped.dn.partition(',')[0]},{base}"
    return f"added: {home}: {types} attribute types, {classes} object classes"


def _schemas(writer: Writer, base: str) -> Entries:
    entries = writer.search(base, Scope.ONE, ("cn", *KINDS))
    if not entries:
        # There is always cn=core.
        raise ConfigError(
            f"{writer.uri} does not show {base}, expected an identity that may write it, "
            "such as uri = ['ldapi:///'] with bind = 'sasl_external'"
        )
    return entries


def _home(entries: Entries, shipped: Record) -> str:
    """The entry that has the shipped one's name, but for the number; empty if there is none."""
    (name,) = shipped.attributes["cn"]
    for dn, attributes in entries:
        if any(_NUMBER.sub("", cn, count=1).lower() == name for cn in attributes.get("cn", ())):
            return dn
    return ""


# Access


def _install_access(writer: Writer, names: Sequence[str], config_base: str, access: Access) -> Iterator[str]:
    databases = writer.search(config_base, Scope.ONE, ("olcSuffix", "olcAccess", "olcAddContentAcl"))
    frontend = [held for dn, held in databases if "{-1}frontend" in dn]
    general = any(values_of(held, "olcAccess") for held in frontend)
    held_here = [(dn, held) for dn, held in databases if _holds(held, access.bases)]
    if not held_here:
        yield f"{LEFT}{config_base}: no access rules, for no database holds {' or '.join(access.bases)}"
    for dn, held in held_here:
        yield from _close(writer, dn, held, names, access, has_rules=general)


def _close(
    writer: Writer, dn: str, held: Attributes, names: Sequence[str], access: Access, *, has_rules: bool
) -> Iterator[str]:
    rules = values_of(held, "olcAccess")
    missing = _not_named(rules, names)
    changes: list[Modification] = []
    if missing:
        changes.append(("add", "olcAccess", tuple(_rules(missing, access, bool(rules) or has_rules))))
        yield f"added: {dn}: olcAccess for {len(missing)} attributes, written by {_writers(access)}"
    elif access.postmasters and (ours := _without_group(rules, names)):
        place = _number(ours)
        changes += [("delete", "olcAccess", (ours,)), ("add", "olcAccess", (place + _rule(names, access),))]
        yield f"replaced: {dn}: olcAccess for {len(names)} attributes, written by {_writers(access)}"
    if [value.upper() for value in values_of(held, "olcAddContentAcl")] != ["TRUE"]:
        changes.append(("replace", "olcAddContentAcl", ("TRUE",)))
        yield f"replaced: {dn}: olcAddContentAcl: TRUE"
    if changes:
        writer.modify(dn, changes)


def _rules(names: Sequence[str], access: Access, has_rules: bool) -> Iterator[str]:
    yield "{0}" + _rule(names, access)
    if not has_rules:
        # Where there is no rule everybody reads; after the first one, nobody reads what none is about.
        yield "{1}to * by * read"


def _rule(names: Sequence[str], access: Access) -> str:
    quoted = access.postmasters.replace("\\", "\\\\").replace('"', '\\"')
    group = f'by group.exact="{quoted}" write ' if quoted else ""
    return f"to attrs={','.join(names)} {group}by * read"


def _without_group(rules: Sequence[str], names: Sequence[str]) -> str:
    """The rule that an installation without a group brought in; empty if there is none."""
    wanted = _rule(names, Access(())).split()
    return next((rule for rule in rules if rule[len(_number(rule)) :].split() == wanted), "")


def _number(rule: str) -> str:
    found = _NUMBER.match(rule)
    return found[0] if found else ""


def _not_named(rules: Sequence[str], names: Sequence[str]) -> list[str]:
    """The attributes that no rule is about by name."""
    named = {name for rule in rules for found in _ATTRS.findall(rule) for name in found.lower().split(",")}
    return [name for name in names if name.lower() not in named]


def _writers(access: Access) -> str:
    return access.postmasters or "nobody but the root DN"


def _holds(database: Attributes, bases: Sequence[str]) -> bool:
    suffixes = [normal_dn(suffix) for suffix in values_of(database, "olcSuffix")]
    return any(suffix and is_below(normal_dn(base), suffix) for suffix in suffixes for base in bases)
