"""Somebody in the place of the members of groups: which people are in them is known to a directory alone.

Postfix has `inline:{{somebody-1@my.domain = local_only}}` where it had an ldap: table, and the entries have
that somebody in the groups' place: what a table gives is compared wherever a list asks it.

BUGS: that the members are those whom the ldap: table would have found is not compared.
"""

import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import replace

from ldappolicy.importing import places
from ldappolicy.importing.group_tables import GroupTable
from ldappolicy.importing.sources import LeftOut, Notes
from ldappolicy.main_cf import MainCf
from ldappolicy.verification.ours import Records
from ldappolicy.verification.questions import STRANGER

MEMBERS = "smtpdAccessMember"


def standing_in(
    main: MainCf, records: Records, tables: Mapping[str, GroupTable], base: str
) -> tuple[MainCf, Records]:
    """The main.cf and the entries with somebody (below `base`) for the groups of each such ldap: table."""
    people = {found.groups: f"somebody-{number}" for number, found in enumerate(tables.values(), 1)}
    domain = _domain(main)
    definitions = dict(main.definitions)
    for name, found in tables.items():
        person = people[found.groups]
        key = person if found.by_login else f"{person}@{domain}"
        table = f"inline:{{{{{key} = {found.action}}}}}"
        token = re.compile(rf"(?:proxy:)*ldap:{re.escape(name)}(?![^\s,{{}}])")
        for parameter, definition in definitions.items():
            said = token.sub(table.replace("\\", r"\\"), definition.value)
            definitions[parameter] = replace(definition, value=said)
    return replace(main, definitions=definitions), [
        *_with(records, people, base),
        *_people(people.values(), base, domain),
    ]


def _domain(main: MainCf) -> str:
    """One of ours, where people are."""
    with suppress(LeftOut):
        for name in places.local_domains(main, Notes()):
            if not name.startswith("."):
                return name
    return STRANGER


def _with(records: Records, people: Mapping[tuple[str, ...], str], base: str) -> Records:
    for dn, attributes in records:
        groups = attributes.get(MEMBERS, ())
        members = {MEMBERS: (f"uid={people[groups]},{base}",)} if groups in people else {}
        yield dn, {**attributes, **members}


def _people(people: Iterable[str], base: str, domain: str) -> Records:
    for name in people:
        yield f"uid={name},{base}", {"uid": (name,), "mail": (f"{name}@{domain}",)}
