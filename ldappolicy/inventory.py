"""What a whole directory carries of policy: read once, in as few searches as it takes.

A request asks for one address; lint wants them all: every entry that has an address, a login, a domain or an
attribute that decides something, without the members of groups. Which of the DNs named there exist is
asked one by one, for those that the searches did not bring.

BUGS: everything is asked for in one answer, which a size limit of the server cuts off: the directory is
unavailable then, and says so.
"""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ldappolicy.directory import Directory, Scope, Search
from ldappolicy.directory.plan import ANY, Where
from ldappolicy.entry import Entry, key_of_dn
from ldappolicy.ldap_filter import And, Or, Present
from ldappolicy.mapping import Mapping

AT_ONCE = 50
"""Searches for single entries that are under way together; a connection takes 64."""


@dataclass(frozen=True, slots=True)
class Inventory:
    """`entries` by DN; `owners` are keys of those that may own addresses, `absent` DNs without an entry."""

    entries: tuple[Entry, ...] = ()
    owners: frozenset[str] = frozenset()
    absent: frozenset[str] = frozenset()


def access_names(mapping: Mapping) -> tuple[str, ...]:
    """Attributes whose value is a right-hand side."""
    return (
        *mapping.sender_access,
        *mapping.recipient_access,
        *mapping.member_sender_access,
        *mapping.member_recipient_access,
    )


def dn_names(mapping: Mapping) -> tuple[str, ...]:
    """Attributes that name users and groups."""
    return (
        *mapping.owner,
        *mapping.moderator,
        *mapping.allowed_sender_dn,
        *mapping.denied_sender_dn,
        *mapping.send_as,
    )


def pattern_names(mapping: Mapping) -> tuple[str, ...]:
    """Attributes that hold access(5) keys."""
    return (*mapping.allowed_sender, *mapping.denied_sender)


async def read(directory: Directory, where: Where, mapping: Mapping, named: Iterable[str]) -> Inventory:
    """Everything below search_base that decides something; `named` are normal DNs that policies name.

    Raises Unavailable.
    """
    names = _names(mapping)
    filter_ = Or(tuple(Present(name) for name in names))
    read_too = (*names, *mapping.disabled)  # not looked for: most accounts that have it have a login
    entries = await directory.search(Search(where.search_base, Scope.SUB, filter_, read_too))
    known = {entry.key for entry in entries}
    owners = await _owners(directory, where, mapping) if where.filter is not None else known
    wanted = {*named, *_dns_in(entries, mapping)} - known
    absent = await _absent(directory, sorted(wanted))
    return Inventory(
        tuple(sorted(entries, key=lambda entry: entry.key)), frozenset(owners), frozenset(absent)
    )


def _names(mapping: Mapping) -> tuple[str, ...]:
    dynamic = ("memberURL",) if mapping.has_dynamic_groups else ()
    own = (*access_names(mapping), *dn_names(mapping), *pattern_names(mapping), *mapping.priority)
    own += (*mapping.login_required, *mapping.member_address)
    return tuple(dict.fromkeys((*mapping.mail, *mapping.login, *mapping.domain, *own, *dynamic)))


async def _owners(directory: Directory, where: Where, mapping: Mapping) -> set[str]:
    """Keys of the entries that the configured filter lets own addresses."""
    assert where.filter is not None
    found = And((where.filter, Or(tuple(Present(name) for name in mapping.mail))))
    search = Search(where.search_base, Scope.SUB, found, ("1.1",))
    return {entry.key for entry in await directory.search(search)}


def _dns_in(entries: Sequence[Entry], mapping: Mapping) -> set[str]:
    names = dn_names(mapping)
    values = (value for entry in entries for name in names for value in entry.values(name))
    return {key for key in map(key_of_dn, values) if key}  # what is none is told of where it stands


async def _absent(directory: Directory, dns: Sequence[str]) -> list[str]:
    """Those of the DNs that have no entry."""
    absent: list[str] = []
    for at in range(0, len(dns), AT_ONCE):
        chunk = dns[at : at + AT_ONCE]
        searches = (Search(dn, Scope.BASE, ANY, ("1.1",)) for dn in chunk)
        found = await asyncio.gather(*map(directory.search, searches))
        absent += [dn for dn, entries in zip(chunk, found, strict=True) if not entries]
    return absent
