"""Which searches answer which lookups, and which of the entries that come back answer each.

Lookups by address, login and domain share one search (an OR of bounded size); what comes back is matched
to them by our own comparison, since a server's matching rule may be wider (slapd finds `amy` for
full-width letters). So do lookups of entries by DN, where the server can be asked for DNs.

Groups are asked for by who is in them, and never send their members. Where several lookups of groups come
together, one search answers them all if the server returns those members alone that were asked for
(matched values, RFC 3876); else one search asks whether there is any, and only then each is asked.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Protocol, TypeVar

from ldappolicy.address import fold, quoted, skeleton, split_address
from ldappolicy.directory import Directory, Features, Scope, Search, Terms
from ldappolicy.entry import Entry, is_below, normal_dn, without_uid
from ldappolicy.errors import InputError, Unavailable
from ldappolicy.facts import Lookup
from ldappolicy.ldap_filter import And, Equality, Extensible, Filter, LdapUrl, Or, Present, parse_url
from ldappolicy.log import Limited, shortened
from ldappolicy.mapping import PREFIX, Mapping, addresses_in, is_prefixed

OR_TERMS = 50
"""Equalities in one search: slapd's time grows faster than their number beyond."""

LONGEST_VALUE = 1000
"""Characters of an address, login or domain that is asked for.

Postfix takes no longer line than 2048 octets, RFC 4524 bounds mail at 256; OR_TERMS of these stay well
below what slapd takes in one message of an anonymous client (sockbuf_max_incoming, 256 KiB).
"""

IN_CHAIN = "1.2.840.113556.1.4.1941"
"""LDAP_MATCHING_RULE_TRANSITIVE_EVAL ("in chain"), MS-ADTS section 3.1.1.3.4.4.3."""

_VALUES = frozenset(("mail", "login", "domain", "addressed", "url"))

logger = logging.getLogger("ldappolicy.plan")

Answers = dict[Lookup, tuple[Entry, ...]]
Match = Callable[[Entry, Lookup], bool]


class Held(Protocol):
    """A directory, or a copy of one, in memory. None: it cannot say."""

    def find(self, search: Search) -> Sequence[Entry] | None:
        """All entries that match."""
        ...

    def having(self, base: str, terms: Terms, attributes: frozenset[str]) -> Sequence[Entry] | None:
        """What `find` finds for an Or of equalities at or below a normal DN; names are in lower case."""
        ...

    def resembling(self, base: str, terms: Terms, attributes: frozenset[str]) -> Sequence[Entry]:
        """Where `having` found nothing: entries with a value of the same skeleton as one of those."""
        ...


RESEMBLES = "an entry has a value that the server may take for the same, and that is another"
"""Why a lookup is neither found nor absent."""

ANY = Present("objectClass")
NO_FEATURES = Features()
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Where:
    """What the configuration says of searching: base, filter for owners, domains that are asked for."""

    search_base: str
    filter: Filter | None = None
    domains: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Wide:
    """What a server's matching rule may take for the same while we do not: `resembles` tells."""

    resembles: Match
    warnings: Limited = field(default_factory=lambda: Limited(logger, most=1, seconds=60.0))

    def doubtful(self, entries: Sequence[Entry], answers: Answers) -> list[Lookup]:
        """Which lookups that no entry answers are not absent either.

        Those that an entry resembles; all of them where one came back that resembles nothing.
        """
        lacking = [lookup for lookup, found in answers.items() if not found]
        like = {lookup: [entry for entry in entries if self.resembles(entry, lookup)] for lookup in answers}
        odd = [entry.dn for entry in entries if not any(entry in found for found in like.values())]
        if not odd:
            return [lookup for lookup in lacking if like[lookup]]
        self.warnings.log(
            logging.WARNING,
            f"{shortened(odd[0])}: the server returned this entry, no mapped value of which is or resembles"
            " what was looked for: what was not found beside it is unavailable",
            "returned for no reason",
        )
        return lacking


@dataclass(frozen=True, slots=True)
class Shared:
    """A search that answers several lookups; `matches` tells which entries belong to which.

    `hidden` are attributes that are looked at for that alone, and may have a great many values. `wide` tells
    of which lookups it cannot be said, since the server's matching rule may be wider than ours.
    """

    search: Search
    lookups: tuple[Lookup, ...]
    matches: Match
    hidden: tuple[str, ...] = ()
    wide: "Wide | None" = None

    async def ask(self, directory: Directory) -> Answers:
        """Runs the search; raises Unavailable."""
        return self.told_apart(await directory.search(self.search))

    def told_apart(self, entries: Sequence[Entry]) -> Answers:
        """Which of the entries that came back answer what.

        A lookup of which it cannot be said has no answer.
        """
        answers = {
            lookup: tuple(self._shown(entry) for entry in entries if self.matches(entry, lookup))
            for lookup in self.lookups
        }
        if self.wide is not None and entries and not all(answers.values()):
            for lookup in self.wide.doubtful(entries, answers):
                del answers[lookup]
        return answers

    def _shown(self, entry: Entry) -> Entry:
        return _without(entry, self.hidden) if self.hidden else entry


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
        return await _ask_each(self.parts, directory)


@dataclass(frozen=True, slots=True)
class Members:
    """Lookups of groups in one search that returns the members asked for, and no others."""

    search: Search
    parts: tuple[Shared, ...]
    mapping: Mapping

    @property
    def lookups(self) -> tuple[Lookup, ...]:
        """What it answers."""
        return tuple(lookup for part in self.parts for lookup in part.lookups)

    async def ask(self, directory: Directory) -> Answers:
        """One search; a group whose members do not show whom it was found for has each lookup asked."""
        shown = await directory.search(self.search)
        groups = [(_without(entry, self.mapping.member), self._members(entry)) for entry in shown]
        answers: Answers = {}
        for lookup in self.lookups:
            keys = self._keys(lookup)
            answers[lookup] = tuple(group for group, members in groups if not keys.isdisjoint(members))
        asked = {key for lookup in self.lookups for key in self._keys(lookup)}
        if any(not members or not members <= asked for _, members in groups):
            return await _ask_each(self.parts, directory)
        return answers

    def _keys(self, lookup: Lookup) -> set[str]:
        return {_key(lookup[1]), *map(str.casefold, lookup[2:])}

    def _members(self, entry: Entry) -> set[str]:
        """Who was shown to be in it: normal DNs, and folded logins."""
        dns = (value for name in self.mapping.member_dns for value in entry.values(name))
        logins = (value for name in self.mapping.member_logins for value in entry.values(name))
        return {*(_key(without_uid(dn)) for dn in dns), *map(str.casefold, logins)}


@dataclass(frozen=True, slots=True)
class Named:
    """Entries that are known by name, in one search; whoever that does not show is asked for alone.

    A server may let its DNs be read and not be searched for, and an entry that is not found here must
    not pass for absent.
    """

    search: Search
    lookups: tuple[Lookup, ...]
    matches: Match
    alone: Callable[[Lookup], Shared]

    async def ask(self, directory: Directory) -> Answers:
        """One search, and one for each lookup that it leaves without an entry."""
        shared = Shared(self.search, self.lookups, self.matches)
        answers = await shared.ask(directory)
        left = [self.alone(lookup) for lookup, entries in answers.items() if not entries]
        return {**answers, **await _ask_each(left, directory)}


async def _ask_each(parts: Iterable[Shared], directory: Directory) -> Answers:
    answers = await asyncio.gather(*(part.ask(directory) for part in parts))
    return {lookup: entries for answer in answers for lookup, entries in answer.items()}


@dataclass(frozen=True, slots=True)
class Unplanned:
    """A lookup that cannot be asked: its own trouble, not that of the lookups beside it."""

    lookups: tuple[Lookup, ...]
    reason: str

    async def ask(self, directory: Directory) -> Answers:
        """Raises Unavailable."""
        raise Unavailable(self.reason)


Batch = Shared | Probe | Members | Named | Unplanned


def _every(entry: Entry, lookup: Lookup) -> bool:
    return True


class Planner:
    """Turns lookups into searches for one site's mapping."""

    def __init__(self, where: Where, mapping: Mapping) -> None:
        self._where = where
        self.mapping = mapping
        self.attributes = mapping.read_attributes
        self._member_attributes = tuple(
            dict.fromkeys((*self.attributes, *mapping.member_dns, *mapping.member_logins))
        )
        self._names = {
            "mail": mapping.mail,
            "login": mapping.login,
            "domain": mapping.domain,
            "addressed": mapping.member_address,
        }
        self._exact = dict(NO_FEATURES.exact)
        """Attributes that the server asked now compares with case, and the rule that does not."""
        self._wide = Wide(self._resembles)
        self._base = _key(where.search_base)
        self._mail, self._member_addresses = map(_prefixes, (mapping.mail, mapping.member_address))
        self._held_attributes = frozenset(
            name.lower() for name in self.attributes if name not in mapping.member_of
        )
        self._held_with_members = self._held_attributes.union(map(str.lower, mapping.member_address))

    def known_absent(self, lookup: Lookup) -> bool:
        """Whether there is no need to ask: no entry can have it, or the configuration says that none has."""
        kind = lookup[0]
        if kind in _VALUES:
            if len(lookup[-1]) > LONGEST_VALUE or not self._names.get(kind, True):
                return True
            domains = self._where.domains
            return kind == "mail" and bool(domains) and split_address(lookup[1])[1] not in domains
        if kind == "groups":
            return not self._group_terms(lookup)
        if kind == "carrying":
            return not self.mapping.member_access
        return kind == "dynamic" and not self.mapping.has_dynamic_groups

    def told_by_member_of(self, lookup: Lookup, features: Features) -> bool:
        """Whether a server need not be asked, since memberOf of the entry has told it."""
        return lookup[0] == "groups" and self.mapping.groups_by_member_of and bool(features.controls)

    def plan(self, lookups: Iterable[Lookup], features: Features = NO_FEATURES) -> list[Batch]:
        """Searches that answer all the lookups together, of a server with these features."""
        by_kind: dict[str, list[Lookup]] = {}
        for lookup in lookups:
            by_kind.setdefault(lookup[0], []).append(lookup)
        self._exact = dict(features.exact)
        batches: list[Batch] = []
        batches += self._identities(by_kind)
        batches += self._groups(by_kind.get("groups", []), features)
        batches += self._addressed(by_kind.get("addressed", []), features)
        batches += self._urls(by_kind.get("url", []))
        batches += self._entries([*by_kind.get("entry", []), *by_kind.get("sid", [])])
        batches += [self._match(lookup) for lookup in by_kind.get("match", [])]
        batches += self._chains(by_kind.get("chain", []))
        batches += [self._dynamic(lookup) for lookup in by_kind.get("dynamic", [])]
        batches += [self._carrying(lookup) for lookup in by_kind.get("carrying", [])]
        return batches

    def from_mirror(self, lookup: Lookup, held: Held) -> tuple[Entry, ...] | None:
        """The answer of a copy of the directory, in which memberOf is not kept; None: it cannot say.

        Raises Unavailable where an entry resembles what is looked for.
        """
        if terms := self._terms(lookup):
            by_address = lookup[0] == "addressed"
            attributes = self._held_with_members if by_address else self._held_attributes
            having = held.having(self._base, terms, attributes)
            if having is None:
                return None
            matches = _every if lookup[0] == "groups" else self._has_value
            found = tuple(entry for entry in having if matches(entry, lookup))
            if not found and matches is not _every:
                near = held.resembling(self._base, terms, attributes)
                if any(self._resembles(entry, lookup) for entry in near):
                    raise Unavailable(RESEMBLES)
            hidden = self.mapping.member_address
            return tuple(_without(entry, hidden) for entry in found) if by_address else found
        [batch] = self.plan((lookup,))
        if not isinstance(batch, Shared):
            return None
        names = tuple(name for name in batch.search.attributes if name not in self.mapping.member_of)
        entries = held.find(replace(batch.search, attributes=names))
        if entries is None:
            return None
        answers = batch.told_apart(entries)
        if lookup not in answers:
            raise Unavailable(RESEMBLES)
        return answers[lookup]

    def _terms(self, lookup: Lookup) -> Terms:
        """The lookup as attributes (in lower case) and values of which an entry has one; or none."""
        kind = lookup[0]
        if kind == "addressed" or (kind == "mail" and self._where.filter is None):
            forms = (lookup[1], quoted(lookup[1], always=True))
            return [
                (name, tuple([prefix + form for form in forms]) if prefix else forms)
                for name, prefix in (self._mail if kind == "mail" else self._member_addresses)
            ]
        if kind in ("login", "domain"):
            return [(name.lower(), lookup[1:]) for name in self._names[kind]]
        if kind == "groups":
            by_dn, by_login = self.mapping.member_dns, self.mapping.member_logins
            terms = [(name.lower(), lookup[1:2]) for name in by_dn]
            return terms + [(name.lower(), lookup[2:]) for name in by_login]
        return []

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
        if kind in ("mail", "addressed"):
            forms = tuple(dict.fromkeys((value, quoted(value, always=True))))
            return [self._address(name, form) for name in self._names[kind] for form in forms]
        return [self._equal(name, form) for name in self._names[kind] for form in lookup[1:]]

    def _address(self, name: str, form: str) -> Filter:
        """What finds an address, in one written form of it, in one attribute."""
        return self._equal(name, PREFIX + form if is_prefixed(name) else form)

    def _equal(self, name: str, value: str) -> Filter:
        """Without case, whatever the attribute's own rule is."""
        rule = self._exact.get(name.lower())
        return Extensible(rule, name, value) if rule else Equality(name, value)

    def _has_value(self, entry: Entry, lookup: Lookup) -> bool:
        kind, wanted = lookup[0], lookup[1]
        if kind == "mail":
            is_plain = '"' not in wanted and any(
                wanted in entry.values(name) for name, no in self._mail if not no
            )
            return is_plain or wanted in self.mapping.addresses_of(entry)
        if kind == "addressed":
            return any(
                (not prefix and '"' not in wanted and wanted in entry.values(name))
                or wanted in addresses_in(entry, name)
                for name, prefix in self._member_addresses
            )
        return any(
            value.strip(" ").casefold() == wanted
            for name in self._names[kind]
            for value in entry.values(name)
        )

    def _resembles(self, entry: Entry, lookup: Lookup) -> bool:
        """Whether a value has the same skeleton as what is looked for."""
        kind, wanted = lookup[0], skeleton(lookup[1])
        if kind == "mail":
            return wanted in map(skeleton, self.mapping.addresses_of(entry))
        if kind == "addressed":
            names = (name for name, _ in self._member_addresses)
            return any(wanted in map(skeleton, addresses_in(entry, name)) for name in names)
        values = (value for name in self._names[kind] for value in entry.values(name))
        return any(skeleton(value.strip(" ").casefold()) == wanted for value in values)

    def _below_base(self, found: Filter, lookups: Iterable[Lookup], matches: Match) -> Shared:
        search = Search(self._where.search_base, Scope.SUB, found, self.attributes)
        return Shared(
            search, tuple(lookups), matches, wide=self._wide if matches == self._has_value else None
        )

    # ------------------------------------------------------------ groups

    def _groups(self, lookups: list[Lookup], features: Features) -> list[Batch]:
        parts = [
            self._below_base(
                _either(tuple(map(self._narrowed, self._group_terms(lookup)))), (lookup,), _every
            )
            for lookup in lookups
        ]
        batches: list[Batch] = []
        for chunk in _chunks(parts, lambda part: len(self._group_terms(part.lookups[0]))):
            if len(chunk) == 1:
                batches += chunk
                continue
            any_of_them = Or(tuple(part.search.filter for part in chunk))
            if features.has_matched_values:
                batches.append(self._members(any_of_them, tuple(chunk)))
            else:
                probe = Search(self._where.search_base, Scope.SUB, any_of_them, ("1.1",))
                batches.append(Probe(probe, tuple(chunk)))
        return batches

    def _members(self, any_of_them: Filter, parts: tuple[Shared, ...]) -> Members:
        terms = tuple(term for part in parts for term in self._group_terms(part.lookups[0]))
        values = (*terms, *map(Present, self.attributes))
        base = self._where.search_base
        return Members(
            Search(base, Scope.SUB, any_of_them, self._member_attributes, values), parts, self.mapping
        )

    def _addressed(self, lookups: list[Lookup], features: Features) -> list[Batch]:
        """By members' addresses: only those that were asked for come back, where the server can do that."""
        hidden = self.mapping.member_address
        names = tuple(dict.fromkeys((*self.attributes, *hidden)))
        batches: list[Batch] = []
        for chunk in _chunks(lookups, lambda lookup: len(self._value_terms(lookup))):
            terms = tuple(term for lookup in chunk for term in self._value_terms(lookup))
            shown = (*terms, *map(Present, self.attributes)) if features.has_matched_values else ()
            search = Search(self._where.search_base, Scope.SUB, _either(terms), names, shown)
            batches.append(Shared(search, tuple(chunk), self._has_value, hidden, self._wide))
        return batches

    def _group_terms(self, lookup: Lookup) -> tuple[Filter, ...]:
        _, dn, *logins = lookup
        mapping = self.mapping
        by_dn = [Equality(name, dn) for name in mapping.member_dns]
        return (*by_dn, *(self._equal(name, login) for name in mapping.member_logins for login in logins))

    def _narrowed(self, term: Filter) -> Filter:
        """A member's login by a rule that no index serves: of groups of RFC 2307; elsewhere as it is."""
        if not isinstance(term, Extensible) or term.attr is None or term.attr.lower() != "memberuid":
            return term
        is_group = Equality("objectClass", "posixGroup")
        return Or((Equality(term.attr, term.value), And((is_group, term))))

    def _dynamic(self, lookup: Lookup) -> Batch:
        search = Search(
            self._where.search_base, Scope.SUB, Present("memberURL"), (*self.attributes, "memberURL")
        )
        return Shared(search, (lookup,), _every)

    def _carrying(self, lookup: Lookup) -> Batch:
        carries = _either(tuple(map(Present, self.mapping.member_access)))
        return Shared(Search(self._where.search_base, Scope.SUB, carries, ("1.1",)), (lookup,), _every)

    # ------------------------------------------------------------ single entries and URLs

    def _entries(self, lookups: Sequence[Lookup]) -> list[Batch]:
        """Together where DNs can be searched for, and are below the base."""
        base = normal_dn(self._where.search_base)
        together = [lookup for lookup in lookups if lookup[0] == "sid" or self._can_be_named(lookup, base)]
        apart = [lookup for lookup in lookups if lookup not in together]
        batches: list[Batch] = [self._alone(lookup) for lookup in apart]
        for chunk in _chunks(together, lambda _: 1):
            if len(chunk) == 1:
                batches.append(self._alone(chunk[0]))
                continue
            found = _either(tuple(map(self._name_term, chunk)))
            search = Search(self._where.search_base, Scope.SUB, found, self.attributes)
            batches.append(Named(search, tuple(chunk), _is_named, self._alone))
        return batches

    def _can_be_named(self, lookup: Lookup, base: str) -> bool:
        return bool(self.mapping.dn_attribute) and is_below(_key(lookup[1]), base)

    def _name_term(self, lookup: Lookup) -> Filter:
        return Equality("objectSid" if lookup[0] == "sid" else self.mapping.dn_attribute, lookup[1])

    def _alone(self, lookup: Lookup) -> Shared:
        if lookup[0] == "sid":
            return self._below_base(self._name_term(lookup), (lookup,), _is_named)
        return Shared(Search(lookup[1], Scope.BASE, ANY, self.attributes), (lookup,), _every)

    def _chains(self, lookups: Sequence[Lookup]) -> list[Batch]:
        """For each entry: is it in any of the groups at all?"""
        by_dn: dict[str, list[Shared]] = {}
        for lookup in lookups:
            by_dn.setdefault(lookup[1], []).append(self._chain(lookup))
        return [
            parts[0] if len(parts) == 1 else Probe(_chained(dn, *parts), tuple(parts))
            for dn, parts in by_dn.items()
        ]

    def _chain(self, lookup: Lookup) -> Shared:
        _, dn, group = lookup
        inside = Extensible(IN_CHAIN, "memberOf", group)
        return Shared(Search(dn, Scope.BASE, inside, ("1.1",)), (lookup,), _every)

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
        has_key = _either(tuple(self._address(name, key) for name in url.attributes for key in keys))

        def has(entry: Entry, lookup: Lookup) -> bool:
            return any(fold(lookup[2]) in addresses_in(entry, name) for name in url.attributes)

        search = Search(url.base, Scope(url.scope), And((url.filter, has_key)), url.attributes)
        return Shared(search, tuple(lookups), has)


def _prefixes(names: Iterable[str]) -> list[tuple[str, str]]:
    """Attributes that hold addresses, in lower case, and what stands before an address there."""
    return [(name.lower(), PREFIX if is_prefixed(name) else "") for name in names]


def _url_terms(url: LdapUrl, lookup: Lookup) -> int:
    """Each attribute with the key in both forms."""
    return 2 * len(url.attributes)


def _chained(dn: str, *parts: Shared) -> Search:
    return Search(dn, Scope.BASE, Or(tuple(part.search.filter for part in parts)), ("1.1",))


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


def _key(dn: str) -> str:
    """The normal form; what is no DN stands for itself, and equals none."""
    try:
        return normal_dn(dn)
    except InputError:
        return dn


def _without(entry: Entry, names: Iterable[str]) -> Entry:
    left_out = {name.lower() for name in names}
    return Entry(entry.dn, {name: values for name, values in entry.items() if name not in left_out})


def _is_named(entry: Entry, lookup: Lookup) -> bool:
    return lookup[1] in entry.values("objectSid") if lookup[0] == "sid" else entry.key == _key(lookup[1])
