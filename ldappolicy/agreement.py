"""Whether a main.cf and the policies in the directory say the same: what `lint --main-cf` prints.

Owned here: recipient_delimiter, myorigin, append_dot_mydomain, mynetworks, parent_domain_matches_subdomains
and the domains of mydestination, virtual_alias_domains, virtual_mailbox_domains and relay_domains, each
beside what the policies that main.cf calls for say (postconf(5), match_list(3)). Where the calls stand is
for `calls` to judge.

An **error** is what opens: a spelling that reaches a protected list past its rule, a network or a domain
that the policy trusts and Postfix does not. What closes is a **warning**, and so is a
file that should be looked at and cannot. `/file` patterns are read, and tables of domains from the text that
postmap(1) makes them of. What stands in any other table, or is known to the host alone (myhostname,
mynetworks_style), is not compared, nor is a smtpdLocalDomains that cannot be listed (static:, a cidr table).

A main.cf that says nothing of itself (no compatibility_level, myhostname, mydestination...) is taken for a
piece of one: Postfix's defaults do not count as said by it.

BUGS: master.cf overrides of these parameters are not looked at, nor is main.cf of another instance.
"""

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import collapse_addresses
from pathlib import Path
from typing import Any

from ldappolicy.action import split_list
from ldappolicy.address import local_domain_keys
from ldappolicy.aliases import Around, ways_in
from ldappolicy.calls import Site, judge
from ldappolicy.directory import Directory, Scope, Search
from ldappolicy.errors import InputError
from ldappolicy.importing import places
from ldappolicy.importing.sources import LeftOut, Notes, source_of
from ldappolicy.ldap_filter import parse_url
from ldappolicy.main_cf import MainCf, MasterService, read_main_cf, read_master_cf
from ldappolicy.network import Network, Pattern, parse_pattern
from ldappolicy.policy import Fault, Policy, PolicySet, Table, parse_inline

DOMAINS = (*places.EXACT_DOMAINS, "relay_domains")
"""Parameters whose domains are ours, in the order in which one that is missing is told of."""

_WHOLE = (
    *(
        "compatibility_level",
        "myhostname",
        "mydomain",
        "myorigin",
        "recipient_delimiter",
        "append_dot_mydomain",
    ),
    *DOMAINS,
)
_NAMED = 5  # domains or networks of one kind that are named; the others are counted


async def lint_main_cf(path: Path, site: Site, around: Around) -> tuple[Fault, ...]:
    """Every fault of a main.cf, and of the master.cf beside it, by line.

    Raises InputError for files that Postfix could not read either, and Unavailable.
    """
    main = read_main_cf(path)
    master, missing = _services(path.parent / "master.cf")
    faults, called = judge(main, master, site)
    faults += missing
    named = (site.policy(name) for name in sorted(called or {site.default}))
    policies = [policy for policy in named if policy is not None]
    for policy in policies:
        keys = await domains_of(policy, site.policies, around.directory)
        faults += compare(main, policy, keys)
    faults += await ways_in(main, policies, around, _named(main, DOMAINS[:1]), _named(main, DOMAINS))
    return tuple(sorted(dict.fromkeys(faults), key=_place))


def _named(main: MainCf, parameters: Iterable[str]) -> frozenset[str]:
    """The domains that some parameters name, as far as they can be told."""
    found = (_patterns(main, parameter, tables=True) for parameter in parameters)
    return frozenset(
        one
        for patterns in found
        for one in patterns.texts
        if one[:1] not in ("!", "[", ".") and one[-1:] != "."
    )


def _services(path: Path) -> tuple[tuple[MasterService, ...], list[Fault]]:
    """The services of a master.cf, or that there is none; raises InputError when it cannot be read."""
    if not os.path.lexists(path):
        text = "the file is not there, what they call for is not looked at"
        return (), [Fault(False, str(path), "services", text)]
    if path.exists() and not path.is_file():
        raise InputError(f"{path}: is not a file")
    return read_master_cf(path), []


def _place(fault: Fault) -> tuple[str, int, str, bool]:
    path, _, line = fault.dn.rpartition(":")
    where = (path, int(line)) if line.isdecimal() else (fault.dn, 0)
    return (*where, fault.attribute, not fault.error)


async def domains_of(policy: Policy, policies: PolicySet, directory: Directory) -> frozenset[str] | None:
    """The keys of smtpdLocalDomains, folded; None where they cannot be listed. Raises Unavailable."""
    name = policy.local_domains
    if name is None or name.type not in ("ldap", "inline"):
        return None
    if name.type == "inline":
        try:
            return frozenset(parse_inline(name.name))
        except InputError:
            return None
    table = policies.tables.get(name.name.casefold())
    if not isinstance(table, Table) or table.cidr:
        return None
    keys = {key for part in table.parts for key in part.lines}
    for url in (url for part in table.parts for url in part.urls):
        keys |= await _values(url, directory)
    return frozenset(keys)


async def _values(text: str, directory: Directory) -> set[str]:
    """What a smtpdAccessURL yields."""
    url = parse_url(text)
    found = await directory.search(Search(url.base, Scope(url.scope), url.filter, url.attributes))
    return {value.casefold() for entry in found for name in url.attributes for value in entry.values(name)}


def compare(main: MainCf, policy: Policy, domains: frozenset[str] | None) -> Iterator[Fault]:
    """Where a policy and a main.cf disagree; `domains` are the keys of its smtpdLocalDomains."""
    pair = _Pair(main, policy)
    yield from pair.recipient_delimiter()
    yield from pair.myorigin()
    yield from pair.append_dot_mydomain()
    yield from pair.parents()
    yield from pair.mynetworks()
    if domains is not None:
        yield from pair.local_domains(domains)


@dataclass(frozen=True, slots=True)
class _Patterns:
    """What a match_list(3) parameter says; not `complete` where a table or an unread file says more.

    `bare` are keys of tables without a dot: domains to Postfix, users to whoever wrote virtual_alias_maps.
    """

    texts: tuple[str, ...]
    complete: bool
    bare: tuple[str, ...] = ()
    unread: tuple[LeftOut, ...] = ()


def _patterns(main: MainCf, parameter: str, *, tables: bool = False) -> _Patterns:
    """What it says as far as it can be read; with `tables` the domains among their keys count as well."""
    where = main.where(parameter)
    found: list[str] = []
    bare: list[str] = []
    complete = True
    unread: list[LeftOut] = []
    for token in _tokens(main.get(parameter), where, unread):
        try:
            for member in places.members_of(token, where):
                if not member.is_table:
                    found.append(f"{'!' * member.excludes}{member.text.casefold()}")
                elif (keys := _domains_in(member) if tables and not member.excludes else None) is None:
                    complete = False
                else:
                    found += [key for key in keys if "." in key]
                    bare += [key for key in keys if "." not in key]
        except LeftOut as problem:
            unread.append(problem)
    return _Patterns(tuple(found), complete and not unread, tuple(bare), tuple(unread))


def _tokens(value: str, where: str, unread: list[LeftOut]) -> tuple[str, ...]:
    """The patterns one by one: what stands beside one that cannot be read is compared all the same."""
    try:
        return split_list(value)
    except InputError as problem:
        unread.append(LeftOut(where, str(problem)))
        return ()


def _domains_in(member: places.Member) -> list[str] | None:
    """The domains among the keys of a table: one of addresses (virtual_alias_maps) holds others as well."""
    try:
        keys = list(places.table_keys(source_of(member.text, member.where), Notes(), ""))
    except LeftOut:
        return None
    return [key for key in keys if "@" not in key]


class _Pair:
    """One main.cf beside one policy."""

    def __init__(self, main: MainCf, policy: Policy) -> None:
        self._main = main
        self._policy = policy
        self._is_whole = any(map(main.is_set, _WHOLE))

    def _says(self, name: str) -> bool:
        """Whether main.cf says what a parameter is, by its own words or by a default that is no piece's."""
        return (self._is_whole or self._main.is_set(name)) and not self._main.lacking(name)

    def _fault(self, error: bool, parameter: str, text: str) -> Fault:
        return Fault(error, self._main.where(parameter), parameter, text)

    def _unread(self, parameter: str, found: _Patterns) -> Iterator[Fault]:
        """Patterns that stand where they cannot be read."""
        for problem in found.unread:
            yield Fault(False, problem.where, parameter, f"{problem.text}: it is not compared")

    def _said(self, attribute: str, value: str) -> str:
        """What the policy says."""
        says = f"has {attribute} {value!r}" if value else f"has no {attribute}"
        return f"policy {self._policy.name!r} {says}"

    # ------------------------------------------------------------ addresses

    def recipient_delimiter(self) -> Iterator[Fault]:
        """Extensions that Postfix delivers by and the policy does not know open; the others do not."""
        parameter = "recipient_delimiter"
        ours, theirs = self._policy.recipient_delimiter, self._main.get(parameter)
        if self._says(parameter) and set(ours) != set(theirs):
            opens = bool(set(theirs) - set(ours))
            text = f"it is {theirs!r}, and {self._said('smtpdRecipientDelimiter', ours)}"
            yield self._fault(opens, parameter, text)

    def myorigin(self) -> Iterator[Fault]:
        """An address without a domain means another one to Postfix than to the policy."""
        theirs = _myorigin(self._main)
        ours = self._policy.myorigin
        if self._says("myorigin") and theirs and theirs.casefold() != ours.casefold():
            text = f"it is {theirs!r}, and {self._said('smtpdMyorigin', ours)}"
            yield self._fault(True, "myorigin", text)

    def append_dot_mydomain(self) -> Iterator[Fault]:
        """The policy takes no domain to be completed."""
        parameter = "append_dot_mydomain"
        if self._says(parameter) and self._main.get(parameter).strip().lower() == "yes":
            default = "" if self._main.is_set(parameter) else ", the default below compatibility_level 1"
            text = f"it is 'yes'{default}: user@host is not looked up as user@host.$mydomain, expected no"
            yield self._fault(True, parameter, text)

    def parents(self) -> Iterator[Fault]:
        """Keys of tables mean other domains here than in the tables of main.cf."""
        parameter = "parent_domain_matches_subdomains"
        theirs = self._is_parent("smtpd_access_maps")
        ours = self._policy.parent_domain_matches_subdomains
        if self._says(parameter) and theirs != ours:
            lists = "lists" if theirs else "does not list"
            text = f"it {lists} smtpd_access_maps, and policy {self._policy.name!r} has"
            yield self._fault(
                False, parameter, f"{text} smtpdParentDomainMatchesSubdomains {str(ours).upper()}"
            )

    def _is_parent(self, feature: str) -> bool:
        return feature in re.split(r"[,\s]+", self._main.get("parent_domain_matches_subdomains").casefold())

    # ------------------------------------------------------------ mynetworks

    def mynetworks(self) -> Iterator[Fault]:
        """Clients that one of the two trusts and the other does not."""
        mynetworks = self._policy.mynetworks
        if mynetworks is None or None in mynetworks.patterns or not self._main.is_set("mynetworks"):
            return
        found = _patterns(self._main, "mynetworks")
        yield from self._unread("mynetworks", found)
        theirs = _networks(found)
        if theirs is None or self._main.lacking("mynetworks"):
            return
        ours = [pattern for pattern in mynetworks.patterns if pattern is not None]
        yield from self._networks_apart(ours, theirs)
        if not self._is_parent("mynetworks") and (names := _names(ours, excludes=False)):
            text = f"it does not list mynetworks, and the policy trusts the subdomains of {_some(names)} too"
            yield self._fault(True, "parent_domain_matches_subdomains", text)

    def _networks_apart(self, ours: Sequence[Pattern], theirs: Sequence[Pattern]) -> Iterator[Fault]:
        name = self._policy.name
        opens = [*_uncovered(ours, theirs), *_names_apart(ours, theirs)]
        if opens:
            text = f"policy {name!r} trusts {_some(opens)} by smtpdMynetworks, and main.cf does not"
            yield self._fault(True, "mynetworks", text)
        closes = [*_uncovered(theirs, ours), *_names_apart(theirs, ours)]
        if closes:
            text = f"it trusts {_some(closes)}, and smtpdMynetworks of policy {name!r} does not"
            yield self._fault(False, "mynetworks", text)

    # ------------------------------------------------------------ domains

    def local_domains(self, keys: frozenset[str]) -> Iterator[Fault]:
        """Domains that one of the two takes for ours and the other does not."""
        theirs: dict[str, str] = {}
        complete = True
        for parameter in DOMAINS:
            if not (self._is_whole or self._main.is_set(parameter)):
                complete = False
                continue
            found = _patterns(self._main, parameter, tables=True)
            yield from self._unread(parameter, found)
            # What only the host knows leaves a trailing dot behind: localhost.$mydomain.
            said = [one for one in found.texts if not one.startswith(("!", "[")) and not one.endswith(".")]
            told = len(said) == len(found.texts) and not self._main.lacking(parameter)
            complete = complete and found.complete and told
            yield from self._missing(parameter, said, keys, theirs)
            theirs |= {domain: parameter for domain in (*said, *found.bare) if domain not in theirs}
        if complete:
            yield from self._extra(keys, theirs)

    def _missing(
        self, parameter: str, said: Iterable[str], keys: frozenset[str], before: Mapping[str, str]
    ) -> Iterator[Fault]:
        """Domains of main.cf that the policy does not know."""
        missing = [
            domain.removeprefix(".")
            for domain in said
            if domain not in before
            and domain != "localhost"  # evaluation takes it, as it takes address literals, for ours
            and keys.isdisjoint(local_domain_keys(domain.removeprefix(".")))
        ]
        if not missing:
            return
        text = f"{_some(missing)} is not in smtpdLocalDomains of policy {self._policy.name!r}"
        if parameter == "mydestination":
            text += ": routed spellings (user%domain@it) reach protected recipients"
        else:
            text += ": mail for it counts as mail for elsewhere"
        yield self._fault(parameter == "mydestination", parameter, text)

    def _extra(self, keys: frozenset[str], theirs: Mapping[str, str]) -> Iterator[Fault]:
        """Domains of the policy that main.cf does not know."""
        above = self._is_parent("relay_domains")
        extra = sorted(
            key
            for key in keys
            if "@" not in key and key != "localhost" and not _is_among(key.removeprefix("."), theirs, above)
        )
        if extra:
            first = next(filter(self._main.is_set, DOMAINS), DOMAINS[0])
            text = f"{_some(extra)} is in smtpdLocalDomains of policy {self._policy.name!r}"
            yield self._fault(True, first, f"{text}, and in none of {', '.join(DOMAINS)}")


def _is_among(domain: str, theirs: Mapping[str, str], above: bool) -> bool:
    """Whether main.cf has the domain, or a relay domain above it."""
    if domain in theirs:
        return True
    labels = domain.split(".")
    parents = (".".join(labels[at:]) for at in range(1, len(labels)))
    return any(theirs.get(parent if above else "." + parent) == "relay_domains" for parent in parents)


def _myorigin(main: MainCf) -> str:
    """Debian's may be a file that holds the name; empty where it cannot be told."""
    try:
        return places.myorigin(main)
    except LeftOut:
        return ""


def _some(values: Sequence[str]) -> str:
    more = f" and {len(values) - _NAMED} more" if len(values) > _NAMED else ""
    return ", ".join(map(repr, values[:_NAMED])) + more


# ---------------------------------------------------------------- networks


def _networks(found: _Patterns) -> list[Pattern] | None:
    """What they trust; None where it cannot be told."""
    try:
        return [parse_pattern(text) for text in found.texts] if found.complete else None
    except InputError:
        return None


def _names(some: Iterable[Pattern], *, excludes: bool) -> list[str]:
    return [one.hostname for one in some if one.hostname and one.excludes == excludes]


def _names_apart(ours: Sequence[Pattern], theirs: Sequence[Pattern]) -> list[str]:
    """Hostnames that only the first trusts, and those that only the second excludes."""
    trusted = set(_names(ours, excludes=False)) - set(_names(theirs, excludes=False))
    excluded = set(_names(theirs, excludes=True)) - set(_names(ours, excludes=True))
    return sorted(trusted) + sorted(excluded)


def _uncovered(ours: Sequence[Pattern], theirs: Sequence[Pattern]) -> list[str]:
    """Networks that the first trusts and the second does not."""
    apart: list[str] = []
    for version in (4, 6):
        mine, other = _trusted(ours, version), _trusted(theirs, version)
        for network in other:
            mine = _without(mine, network)
        apart += map(str, mine)
    return apart


def _trusted(some: Sequence[Pattern], version: int) -> list[Network]:
    """The networks of a match list: the first pattern that matches counts, so the last is taken first."""
    trusted: list[Network] = []
    for pattern in reversed(some):
        if pattern.network is None or pattern.network.version != version:
            continue
        trusted = _without(trusted, pattern.network)
        if not pattern.excludes:
            trusted.append(pattern.network)
    return _collapsed(trusted)


def _without(some: Sequence[Network], taken: Network) -> list[Network]:
    """Networks, less one of the same family."""
    return _collapsed(left for network in some for left in _less(network, taken))


def _less(network: Any, taken: Any) -> Iterable[Network]:
    if network.subnet_of(taken):
        return ()
    found: Iterable[Network] = network.address_exclude(taken) if taken.subnet_of(network) else (network,)
    return found


def _collapsed(some: Iterable[Any]) -> list[Network]:
    return list(collapse_addresses(some))
