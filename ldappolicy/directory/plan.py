"""Which searches answer which lookups, and which of the entries that come back answer each.

Lookups by address, login and domain share one search (an OR of bounded size); what comes back is matched
to them by our own comparison, since a server's matching rule may be wider (slapd finds `amy` for
full-width letters). Groups are asked for by who is in them, and never send their members: where several
lookups of groups come together, one search asks whether there is any, and only then each is asked.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import TypeVar

from ldappolicy.address import fold, quoted, split_address
from ldappolicy.directory import Directory, Scope, Search
from ldappolicy.entry import Entry
from ldappolicy.errors import InputError, Unavailable
from ldappolicy.facts import Lookup
from ldappolicy.ldap_filter import And, Equality, Filter, LdapUrl, Or, Present, parse_url
from ldappolicy.mapping import Mapping

OR_TERMS = 50
"""Equalities in one search: slapd's time grows faster than their number beyond."""

LONGEST_VALUE = 1000
"""Characters of an address, login or domain that is asked for.

Postfix takes no longer line than 2048 octets, RFC 4524 bounds mail at 256; OR_TERMS of these stay well
below what slapd takes in one message of an anonymous client (sockbuf_max_incoming, 256 KiB).
"""

_VALUES = frozenset(("mail", "login", "domain", "url"))

Answers = dict[Lookup, tuple[Entry, ...]]
Match = Callable[[Entry, Lookup], bool]

ANY = Present("objectClass")
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Where:
    """What the configuration says of searching: base, filter for owners, domains that are asked for."""

    search_base: str
    filter: Filter | None = None
    domains: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Shared:
    """A search that answers several lookups; `matches` tells which entries belong to which."""

    search: Search
    lookups: tuple[Lookup, ...]
    matches: Match

    async def ask(self, directory: Directory) -> Answers:
        """Runs the search; raises Unavailable."""
        entries = await directory.search(self.search)
        return {
            lookup: tuple(entry for entry in entries if self.matches(entry, lookup))
            for lookup in self.lookups
        }


@dataclass(frozen=True, slots=True)
class Probe:
    """Lookups whose answers cannot be told apart in one search: is there any at all?"""

    search: Search
    parts: tuple[Shared, ...]

    @property
    def lookups(self) -> tuple[Lookup, ...]:
        """What it answers."""
        return tuple(lookup for part in self.parts for lookup in part.lookups)

    async def ask(self, directory: Directory) -> Answers:
        """One search when nothing is found, one more for each lookup otherwise."""
        if not await directory.search(self.search):
            return dict.fromkeys(self.lookups, ())
        answers = await asyncio.gather(*(part.ask(directory) for part in self.parts))
        return {lookup: entries for answer in answers for lookup, entries in answer.items()}


@dataclass(frozen=True, slots=True)
class Unplanned:
    """A lookup that cannot be asked: its own trouble, not that of the lookups beside it."""

    lookups: tuple[Lookup, ...]
    reason: str

    async def ask(self, directory: Directory) -> Answers:
        """Raises Unavailable."""
        raise Unavailable(self.reason)


Batch = Shared | Probe | Unplanned


def _every(entry: Entry, lookup: Lookup) -> bool:
    return True


class Planner:
    """Turns lookups into searches for one site's mapping."""

    def __init__(self, where: Where, mapping: Mapping) -> None:
        self._where = where
        self._mapping = mapping
        self.attributes = _read_attributes(mapping)

    def known_absent(self, lookup: Lookup) -> bool:
        """Whether there is no need to ask: no entry can have it, or the configuration says that none has."""
        kind, *rest = lookup
        if kind in ("mail", "login", "domain") and not self._names(kind):
            return True
        if kind == "groups" and not self._group_terms(lookup):
            return True
        if kind in _VALUES and len(rest[-1]) > LONGEST_VALUE:
            return True
        if kind == "mail" and self._where.domains:
            return split_address(rest[0])[1] not in self._where.domains
        return kind == "dynamic" and not self._mapping.has_dynamic_groups

    def plan(self, lookups: Sequence[Lookup]) -> list[Batch]:
        """Searches that answer all the lookups together."""
        by_kind: dict[str, list[Lookup]] = {}
        for lookup in lookups:
            by_kind.setdefault(lookup[0], []).append(lookup)
        batches: list[Batch] = []
        batches += self._identities(by_kind)
        batches += self._groups(by_kind.get("groups", []))
        batches += self._urls(by_kind.get("url", []))
        batches += [self._entry(lookup) for lookup in by_kind.get("entry", [])]
        batches += [self._match(lookup) for lookup in by_kind.get("match", [])]
        batches += [self._dynamic(lookup) for lookup in by_kind.get("dynamic", [])]
        return batches

    # ------------------------------------------------------------ addresses, logins, domains

    def _identities(self, by_kind: dict[str, list[Lookup]]) -> list[Batch]:
        """One search for all; the owners of addresses apart when they have a filter of their own."""
        mails = by_kind.get("mail", [])
        others = [*by_kind.get("login", []), *by_kind.get("domain", [])]
        if self._where.filter is None:
            return self._by_value([*mails, *others], None)
        return [*self._by_value(mails, self._where.filter), *self._by_value(others, None)]

    def _by_value(self, lookups: list[Lookup], also: Filter | None) -> list[Batch]:
        batches: list[Batch] = []
        for chunk in _chunks(lookups, lambda lookup: len(self._value_terms(lookup))):
            terms = tuple(term for lookup in chunk for term in self._value_terms(lookup))
            found = _either(terms)
            batches.append(self._below_base(And((also, found)) if also else found, chunk, self._has_value))
        return batches

    def _value_terms(self, lookup: Lookup) -> list[Filter]:
        kind, value = lookup[0], lookup[1]
        forms = dict.fromkeys((value, quoted(value, always=True))) if kind == "mail" else lookup[1:]
        return [Equality(name, form) for name in self._names(kind) for form in forms]

    def _names(self, kind: str) -> tuple[str, ...]:
        mapping = self._mapping
        return {"mail": mapping.mail, "login": mapping.login, "domain": mapping.domain}[kind]

    def _has_value(self, entry: Entry, lookup: Lookup) -> bool:
        kind, wanted = lookup[0], lookup[1]
        folded = fold if kind == "mail" else str.casefold
        return any(
            folded(value.strip(" ")) == wanted for name in self._names(kind) for value in entry.values(name)
        )

    def _below_base(self, found: Filter, lookups: Iterable[Lookup], matches: Match) -> Shared:
        search = Search(self._where.search_base, Scope.SUB, found, self.attributes)
        return Shared(search, tuple(lookups), matches)

    # ------------------------------------------------------------ groups

    def _groups(self, lookups: list[Lookup]) -> list[Batch]:
        parts = [
            self._below_base(_either(self._group_terms(lookup)), (lookup,), _every) for lookup in lookups
        ]
        batches: list[Batch] = []
        for chunk in _chunks(parts, lambda part: len(self._group_terms(part.lookups[0]))):
            if len(chunk) == 1:
                batches += chunk
                continue
            any_of_them = Or(tuple(part.search.filter for part in chunk))
            probe = Search(self._where.search_base, Scope.SUB, any_of_them, ("1.1",))
            batches.append(Probe(probe, tuple(chunk)))
        return batches

    def _group_terms(self, lookup: Lookup) -> tuple[Filter, ...]:
        _, dn, *logins = lookup
        terms: list[Filter] = []
        for name in self._mapping.member:
            if name.lower() == "memberuid":
                terms += [Equality(name, login) for login in logins]
            elif name.lower() != "memberurl":
                terms.append(Equality(name, dn))
        return tuple(terms)

    def _dynamic(self, lookup: Lookup) -> Batch:
        search = Search(
            self._where.search_base, Scope.SUB, Present("memberURL"), (*self.attributes, "memberURL")
        )
        return Shared(search, (lookup,), _every)

    # ------------------------------------------------------------ single entries and URLs

    def _entry(self, lookup: Lookup) -> Batch:
        return Shared(Search(lookup[1], Scope.BASE, ANY, self.attributes), (lookup,), _every)

    def _match(self, lookup: Lookup) -> Batch:
        _, dn, url = lookup
        try:
            covered = parse_url(url).filter
        except InputError as fault:
            return Unplanned((lookup,), str(fault))
        return Shared(Search(dn, Scope.BASE, covered, ("1.1",)), (lookup,), _every)

    def _urls(self, lookups: list[Lookup]) -> list[Batch]:
        by_url: dict[str, list[Lookup]] = {}
        for lookup in lookups:
            by_url.setdefault(lookup[1], []).append(lookup)
        batches: list[Batch] = []
        for text, asked in by_url.items():
            try:
                url = parse_url(text)
            except InputError as fault:
                batches.append(Unplanned(tuple(asked), str(fault)))
                continue
            chunks = _chunks(asked, partial(_url_terms, url))
            batches += [self._url(url, chunk) for chunk in chunks]
        return batches

    def _url(self, url: LdapUrl, lookups: Sequence[Lookup]) -> Batch:
        """The key is tested in the filter; the values that match are all that is looked at."""
        keys = dict.fromkeys(form for lookup in lookups for form in (lookup[2], quoted(lookup[2])))
        has_key = _either(tuple(Equality(name, key) for name in url.attributes for key in keys))

        def has(entry: Entry, lookup: Lookup) -> bool:
            return any(
                fold(value) == fold(lookup[2]) for name in url.attributes for value in entry.values(name)
            )

        search = Search(url.base, Scope(url.scope), And((url.filter, has_key)), url.attributes)
        return Shared(search, tuple(lookups), has)


def _url_terms(url: LdapUrl, lookup: Lookup) -> int:
    """Each attribute with the key in both forms."""
    return 2 * len(url.attributes)


def _either(terms: tuple[Filter, ...]) -> Filter:
    return terms[0] if len(terms) == 1 else Or(terms)


def _chunks(things: Iterable[_T], terms: Callable[[_T], int]) -> list[list[_T]]:
    """The things in parts of at most OR_TERMS terms together (one alone may have more)."""
    chunks: list[list[_T]] = []
    left = 0
    for thing in things:
        weight = terms(thing)
        if not chunks or weight > left:
            chunks.append([])
            left = OR_TERMS
        chunks[-1].append(thing)
        left -= weight
    return chunks


def _read_attributes(mapping: Mapping) -> tuple[str, ...]:
    """Everything of users, groups, lists and domains that decisions use: never the members of a group."""
    names = dict.fromkeys(
        name for field in fields(mapping) if field.name != "member" for name in getattr(mapping, field.name)
    )
    return tuple(names)
