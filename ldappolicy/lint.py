"""Faults that can be seen before a request meets them: in policies, classes, tables, and the whole directory.

An **error** is what a request would be answered for with a server configuration error, or what makes a lookup
unavailable; a **warning** is what is served, and hardly meant. What does not parse was found when it was
read (`policy.PolicySet.faults`). The rest is found here, in what no request can reach yet as well: names
that mean nothing, actions where they must not stand, tables in lists that they cannot serve, replies that
cannot be said (`foresight`), entries that contradict one another.

Pure, but for `lint`, which reads the directory first (`inventory`). Printing is left to the command.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import cached_property
from itertools import pairwise

from ldappolicy import inventory, reach, vocabulary
from ldappolicy.accounts import ends
from ldappolicy.action import ACTION_WORDS, Action, Kind, parse_action
from ldappolicy.address import is_catch_all, split_address
from ldappolicy.directory import Directory
from ldappolicy.directory.plan import Where
from ldappolicy.entry import Entry, is_below, normal_dn
from ldappolicy.errors import InputError
from ldappolicy.evaluation import DEPTH_LIMIT, MAX_STEPS
from ldappolicy.foresight import Contents, Foresight, kinds_of
from ldappolicy.inventory import Inventory
from ldappolicy.ldap_filter import parse_url
from ldappolicy.mapping import Mapping as AttributeMapping
from ldappolicy.mapping import addresses_in, is_prefixed
from ldappolicy.member_urls import MAX_URLS
from ldappolicy.policy import (
    IDENTITY_TABLES,
    LISTS,
    NOBODY_TABLE,
    Covered,
    Fault,
    Item,
    Policy,
    PolicySet,
    RestrictionClass,
    Table,
    TableName,
    TablePart,
    covered,
    needs_local_domains,
    parse_inline,
    parse_right_hand_side,
    parse_static,
    reserved_to_policies,
)
from ldappolicy.service import Settings
from ldappolicy.tables import ACCESS

HINTS = 200
"""Unknown names that a similar one is looked for: each costs a millisecond."""

_TABLE_TYPES = frozenset(("static", "inline", "fail"))
_FAILS = "a fail: table fails every request that reaches it, expected one in tests only"
_NAMED = 3  # entries that are named as sharing something; the others are counted
_ENDING = frozenset(("permit", "reject", "defer"))
_PARENTHESIS = re.compile(r" \([^()]*\)$")  # what evaluation says of one request
_QUOTED = re.compile(r'"(?:\\.|[^"\\])*"')
_COMPAT = ",cn=compat,"  # of FreeIPA: entries of cn=accounts once more, in the form of RFC 2307
_SEPARATORS = frozenset(" \t\r\n,:{}")
_Folded = Callable[[Entry, str], Iterable[str]]  # the values of one attribute as they are compared


async def lint(
    policies: PolicySet, directory: Directory, settings: Settings, where: Where
) -> tuple[Fault, ...]:
    """Every fault of policies and directory, by DN; raises Unavailable."""
    named = {dn for table in _tables(policies) for part in table.parts for dn in part.members}
    found = await inventory.read(directory, where, settings.mapping, named)
    there = await reach.faults(policies, directory, settings, where, found.absent)
    return tuple(sorted({*check(policies, found, settings, where), *there}, key=_place))


def check(policies: PolicySet, found: Inventory, settings: Settings, where: Where) -> tuple[Fault, ...]:
    """Every fault of policies and of what the directory was found to carry."""
    writing = _Writing(policies)
    entries = _Entries(found, settings, where, writing, _good(policies))
    faults = [*policies.faults, *entries.faults()]
    contents = Contents(policies, entries.sender_values, entries.recipient_values)
    faults += _Policies(policies, contents, writing, found.absent).faults(settings)
    faults += _SenderDomains(policies, contents, settings, found).faults()
    return tuple(sorted(dict.fromkeys(faults), key=_place))


def _place(fault: Fault) -> tuple[str, str, bool, str]:
    """Entries beside one another that stand beside one another in the tree."""
    return (",".join(reversed(fault.dn.lower().split(","))), fault.attribute, not fault.error, fault.text)


def _good(policies: PolicySet) -> list[Policy]:
    return [policy for policy in policies.policies.values() if isinstance(policy, Policy)]


def _tables(policies: PolicySet) -> list[Table]:
    return [table for table in policies.tables.values() if isinstance(table, Table)]


@dataclass(frozen=True, slots=True)
class _Spot:
    """Where something is written; `line` is put in front of what is said of it."""

    dn: str
    attribute: str
    line: str = ""

    def error(self, text: str) -> Fault:
        return Fault(True, self.dn, self.attribute, self.line + text)

    def warning(self, text: str) -> Fault:
        return Fault(False, self.dn, self.attribute, self.line + text)


@dataclass(frozen=True, slots=True)
class _Remark:
    """What is wrong with a text, wherever it stands."""

    error: bool
    text: str

    def at(self, spot: _Spot) -> Fault:
        return Fault(self.error, spot.dn, spot.attribute, spot.line + self.text)


# ---------------------------------------------------------------- lists and right-hand sides


class _Writing:
    """What lists and right-hand sides say, each text looked at once."""

    def __init__(self, policies: PolicySet) -> None:
        self._policies = policies
        self._remarks: dict[Action, tuple[_Remark, ...]] = {}
        self._similar: dict[tuple[str, bool], str] = {}
        names = {*vocabulary.RESERVED, *policies.classes}
        self._names = {name.lower(): name for name in sorted(names, reverse=True)}
        self._table_names = {name: f"ldap:{name}" for name in policies.tables}

    def list(self, items: Iterable[Item]) -> Iterator[_Remark]:
        """What is wrong with a list, in whatever place."""
        items = tuple(items)
        for item in items:
            yield from self._item(item)
        for before, behind in pairwise(covered(items)):
            if _ends(before):
                text = f"{str(behind)!r} is never reached: {before.item} before it ends the list"
                yield _Remark(False, text)
                break

    def _item(self, item: Item) -> Iterator[_Remark]:
        name = item.name.lower()
        if item.fault:
            yield _Remark(True, item.fault)
        elif item.table is not None:
            yield from self._table(item.table)
            yield from self._ok_of_reverse_client(item)
        elif name not in vocabulary.RESERVED and item.name not in self._policies.classes:
            yield _Remark(True, self._unknown(item.name))

    def _unknown(self, name: str) -> str:
        text = f"unknown restriction or class {name!r}"
        if name.upper() in ACTION_WORDS:
            return f"{text}, an action stands on a right-hand side only"
        return text + self._hint(name.lower(), self._names, is_table=False)

    def _hint(self, name: str, known: Mapping[str, str], *, is_table: bool) -> str:
        """A similar name, if there is one."""
        key = (name, is_table)
        if key not in self._similar and len(self._similar) < HINTS:
            similar = [name] if name in known else get_close_matches(name, known, n=1, cutoff=0.8)
            self._similar[key] = f", {known[similar[0]]} is similar" if similar else ""
        return self._similar.get(key, "")

    # ------------------------------------------------------------ tables in lists

    def _table(self, table: TableName) -> Iterator[_Remark]:
        yield from self.table_name(table)
        if table.type == "static":
            yield from self._within(f"{table}: ", parse_static(table.name))
        elif table.type == "inline":
            yield from self._inline(table)

    def table_name(self, table: TableName) -> Iterator[_Remark]:
        """What is wrong with the name of a table, whatever it is asked for."""
        if table.type == "ldap":
            known = table.name.casefold() in self._policies.tables
        else:
            known = table.type in _TABLE_TYPES or (table.type, table.name) in IDENTITY_TABLES
        if table.type == "fail":
            yield _Remark(False, _FAILS)
        elif not known:
            yield _Remark(True, self._unknown_table(table))

    def _unknown_table(self, table: TableName) -> str:
        text = f"unknown table {str(table)!r}"
        if table.type in ("directory", "recipient"):
            known = ", ".join(":".join(name) for name in IDENTITY_TABLES if name[0] == table.type)
            return f"{text}, expected {known}"
        if table.type != "ldap":
            return f"{text}, expected ldap:, directory:, recipient:, static:, inline: or fail:"
        return text + self._hint(table.name.casefold(), self._table_names, is_table=True)

    def _inline(self, table: TableName) -> Iterator[_Remark]:
        try:
            lines = parse_inline(table.name)
        except InputError as fault:
            yield _Remark(True, str(fault))
            return
        for key, action in lines.items():
            yield from self._within(f"inline: line {key!r}: ", action)

    def _within(self, where: str, action: Action) -> Iterator[_Remark]:
        return (replace(remark, text=where + remark.text) for remark in self.action(action))

    def _ok_of_reverse_client(self, item: Item) -> Iterator[_Remark]:
        """A table that says OK of a name which whoever owns the address block chooses."""
        if item.table is None or kinds_of(item) != ("reverse_client",):
            return
        actions = Contents(self._policies).of(item.table, "reverse_client")
        permits = next((action for action in actions if action.kind is Kind.PERMIT), None)
        if permits is not None:
            yield _Remark(True, f"{item} says {permits.text!r}, which is not allowed there, expected DUNNO")
            return
        for action in actions:
            if permitting := self._permitting(parse_right_hand_side(action.tokens)):
                left = permitting <= vocabulary.LEFT_TO_POSTFIX.keys()
                problem = "that one reply cannot say" if left else "that is not allowed there"
                yield _Remark(False, f"{item} says {action.text!r}, which can permit: {problem}")
                return

    def _permitting(self, items: Iterable[Item]) -> set[str]:
        """The restrictions that can permit among the items, and in the classes among them."""
        seen: set[str] = set()
        names = {item.name for item in _in_force(items)}
        while names - seen:
            seen |= names
            classes = (self._policies.classes.get(name) for name in names)
            bodies = (found.items for found in classes if isinstance(found, RestrictionClass))
            names = {item.name for body in bodies for item in _in_force(body)}
        built_in = {name.lower() for name in seen} & vocabulary.BUILT_IN
        return {name for name in built_in if name.startswith("permit")}

    # ------------------------------------------------------------ right-hand sides

    def action(self, action: Action) -> tuple[_Remark, ...]:
        """What is wrong with a right-hand side."""
        remarks = self._remarks.get(action)
        if remarks is None:
            remarks = self._remarks[action] = tuple(self._of_action(action))
        return remarks

    def _of_action(self, action: Action) -> Iterator[_Remark]:
        if action.problem:
            yield _Remark(action.kind is Kind.INVALID, action.problem)
        elif action.kind is Kind.PERMIT and len(action.text) == 3 and action.text[0] in "45":
            yield _Remark(
                False, f"{action.text!r} alone is OK, as all numbers are: a status code needs a text"
            )
        elif action.kind is Kind.LIST:
            yield from self.list(parse_right_hand_side(action.tokens))

    def value(self, spot: _Spot, text: str) -> Iterator[Fault]:
        """What is wrong with a right-hand side that an entry carries which is no policy."""
        action = parse_action(text)
        if problem := reserved_to_policies(action):
            yield spot.error(problem)
            return
        yield from (remark.at(spot) for remark in self.action(action))


def _ends(known: Covered) -> bool:
    """Whether the list ends there for every request."""
    name = known.item.name.lower()
    return not known.shadowed and (name == "permit" or (name in _ENDING and not known.warned))


def _in_force(items: Iterable[Item]) -> Iterator[Item]:
    """The items that are not in shadow."""
    return (known.item for known in covered(items) if not known.shadowed)


# ---------------------------------------------------------------- policies, classes, tables


class _Policies:
    """What is wrong with what stands under policy_base."""

    def __init__(
        self, policies: PolicySet, contents: Contents, writing: _Writing, absent: frozenset[str]
    ) -> None:
        self._policies = policies
        self._contents = contents
        self._writing = writing
        self._absent = absent
        self._good = _good(policies)
        self._classes = {
            name: found for name, found in policies.classes.items() if isinstance(found, RestrictionClass)
        }

    def faults(self, settings: Settings) -> Iterator[Fault]:
        """All of them."""
        default = settings.choices.default
        if default not in self._policies.policies:
            yield Fault(True, settings.policy_base, "cn", f"there is no policy {default!r}, the default one")
        for policy in self._good:
            yield from self._of_policy(policy)
        for found in self._classes.values():
            yield from self._of_class(found)
        for table in _tables(self._policies):
            for part in table.parts:
                yield from self._of_part(part)
        yield from self._long_ways_round()
        yield from self._too_many_steps()

    # ------------------------------------------------------------ policies

    def _of_policy(self, policy: Policy) -> Iterator[Fault]:
        for name, items in policy.lists.items():
            spot = _Spot(policy.dn, LISTS[name])
            yield from (remark.at(spot) for remark in self._writing.list(items))
            yield from self._in_list(spot, items, name, spot)
            for found in self._contents.reached(items, name):
                place = _Spot(found.dn, "smtpdRestrictions")
                yield from self._in_list(place, found.items, name, spot)
            yield from self._two_accesses(spot, items, name)
        yield from self._of_mynetworks(policy)
        yield from self._of_local_domains(policy)
        yield from self._unsayable(policy)

    def _of_mynetworks(self, policy: Policy) -> Iterator[Fault]:
        if policy.mynetworks is not None and None in policy.mynetworks.patterns:
            yield Fault(False, policy.dn, "smtpdMynetworks", _FAILS)

    def _of_local_domains(self, policy: Policy) -> Iterator[Fault]:
        table = policy.local_domains
        spot = _Spot(policy.dn, "smtpdLocalDomains")
        if table is None:
            return
        if (table.type, table.name) in IDENTITY_TABLES:
            yield spot.error(f"{table} holds no domains, expected the name of a table, as ldap:local_domains")
        else:
            yield from (remark.at(spot) for remark in self._writing.table_name(table))

    def _in_list(self, place: _Spot, items: Iterable[Item], stage: str, origin: _Spot) -> Iterator[Fault]:
        """What is wrong with items only because of the list that leads to them."""
        whose = "" if place == origin else f" (reached from {origin.attribute} of {origin.dn})"
        for item in items:
            if item.table is None or item.fault:
                continue
            kinds = kinds_of(item, stage)
            if not kinds:
                yield place.error(f"{item} needs a check_*_access before it in {LISTS[stage]}{whose}")
            elif not item.name and not _can_serve(item.table, kinds[0]):
                yield place.error(f"{item} cannot serve the check of {LISTS[stage]}{whose}")
            elif kinds[0] == "recipient" or item.table.type == "recipient":
                yield from _without_recipient(place, item, stage, whose)

    def _two_accesses(self, spot: _Spot, items: tuple[Item, ...], stage: str) -> Iterator[Fault]:
        """Sender and recipient rules in one list: the OK of one ends the other."""
        lists = [items, *(self._classes[name].items for name in self._by_name(items))]
        kinds = {
            kind
            for some in lists
            for item in _in_force(some)
            if item.table == ACCESS
            for kind in kinds_of(item, stage)
        }
        if "recipient" in kinds and len(kinds) > 1:
            yield spot.warning(
                "sender and recipient checks of directory:access in one list: the OK of one ends the other,"
                " expected sender rules in smtpdSenderRestrictions, recipient rules in"
                " smtpdRecipientRestrictions"
            )

    def _by_name(self, items: Iterable[Item]) -> set[str]:
        """Classes that a list leads to by names alone, in force."""
        reached: set[str] = set()
        waiting = [item.name for item in _in_force(items)]
        while waiting:
            name = waiting.pop()
            if name in self._classes and name not in reached:
                reached.add(name)
                waiting += [item.name for item in _in_force(self._classes[name].items)]
        return reached

    def _unsayable(self, policy: Policy) -> Iterator[Fault]:
        """What one reply cannot say: certain for most requests, or possible for some."""
        for conflict in Foresight(policy, self._contents).conflicts():
            apart = "; call the service once for each list (NAME/LIST)" if len(conflict.lists) > 1 else ""
            lists = " and ".join(LISTS[name] for name in conflict.lists)
            way = f" by {', '.join(conflict.trail)}" if conflict.trail else ""
            problem = _PARENTHESIS.sub("", conflict.problem).removesuffix(" in one reply")
            text = f"{problem}: {lists} {'lead' if len(conflict.lists) > 1 else 'leads'} there{way}{apart}"
            yield Fault(conflict.certain, policy.dn, LISTS[conflict.lists[-1]], text)

    # ------------------------------------------------------------ classes

    def _of_class(self, found: RestrictionClass) -> Iterator[Fault]:
        name = _Spot(found.dn, "cn")
        problem = _bad_name(found.name)
        if problem:
            yield name.error(f"{found.name!r} {problem}")
        else:
            yield from self._nearly(name, found.name)
        body = _Spot(found.dn, "smtpdRestrictions")
        yield from (remark.at(body) for remark in self._writing.list(found.items))

    def _nearly(self, spot: _Spot, name: str) -> Iterator[Fault]:
        """A name that is easily taken for another one."""
        for other in self._classes:
            if other != name and other.casefold() == name.casefold():
                yield spot.warning(f"{name!r} differs from the class {other!r} by case only")
        for built_in in sorted(vocabulary.RESERVED):
            if _is_one_edit_away(name.lower(), built_in):
                yield spot.warning(f"{name!r} is easily taken for the restriction {built_in}")

    def _long_ways_round(self) -> Iterator[Fault]:
        """Classes that reach themselves, but not by names alone: their evaluation ends by an error only."""
        around = {
            name: self._contents.classes_in(found.items) & self._classes.keys()
            for name, found in self._classes.items()
        }
        for name in sorted(around.keys() - self._policies.looping):
            if name in _all_behind(around, name):
                text = f"class {name!r} can reach itself through a table: that has no end, and is an error"
                yield Fault(True, self._classes[name].dn, "smtpdRestrictions", text)

    def _too_many_steps(self) -> Iterator[Fault]:
        """Lists that take more steps than an evaluation has, by the classes that they name alone."""
        known: dict[str, int] = {}
        for name, found in self._classes.items():
            if name not in self._policies.looping and self._steps(found.items, known) > MAX_STEPS:
                text = f"class {name!r} takes more than the {MAX_STEPS:,} steps that an evaluation may have"
                yield Fault(True, found.dn, "smtpdRestrictions", text)
        for policy in self._good:
            for name, items in policy.lists.items():
                if self._steps(items, known) > MAX_STEPS:
                    text = f"it takes more than the {MAX_STEPS:,} steps that an evaluation may have"
                    yield Fault(True, policy.dn, LISTS[name], text)

    def _steps(self, items: Iterable[Item], known: dict[str, int], depth: int = 0) -> int:
        """Restrictions that are tried and tables that are consulted, where nothing ends the list before."""
        steps = 0
        for item in (covering.item for covering in covered(items)):
            steps += 1 if item.table is None else 2
            found = self._classes.get(item.name)
            if found is None or item.name in self._policies.looping or depth > DEPTH_LIMIT:
                continue
            if item.name not in known:
                known[item.name] = self._steps(found.items, known, depth + 1)
            steps += known[item.name]
        return steps

    # ------------------------------------------------------------ tables

    def _of_part(self, part: TablePart) -> Iterator[Fault]:
        lines = [(key, action) for key, action in part.lines.items()]
        lines += [("!" * line.excludes + str(line.network), line.action) for line in part.cidr]
        for key, action in lines:
            spot = _Spot(part.dn, "smtpdAccess", f"line {key!r}: ")
            yield from (remark.at(spot) for remark in self._writing.action(action))
        yield from (self._key_faults(part)) if part.lines else ()
        if part.action.text != "OK":
            spot = _Spot(part.dn, "smtpdAccessAction")
            yield from (remark.at(spot) for remark in self._writing.action(part.action))
        for dn in sorted(part.members & self._absent):
            yield Fault(False, part.dn, "smtpdAccessMember", f"{dn!r} does not exist")

    def _key_faults(self, part: TablePart) -> Iterator[Fault]:
        """Keys that nothing is ever looked up by."""
        parents = _always_parents(self._good, part.name.casefold())
        for key in part.lines:
            problem = _never_looked_up(key, parents)
            if problem:
                yield Fault(False, part.dn, "smtpdAccess", problem)


class _SenderDomains:
    """What directory:nobody, as a check of senders, makes of smtpdLocalDomains."""

    def __init__(self, policies: PolicySet, contents: Contents, settings: Settings, found: Inventory) -> None:
        self._policies = policies
        self._contents = contents
        self._naming = settings.choices.naming
        self._mapping = settings.mapping
        self._found = found

    def faults(self) -> Iterator[Fault]:
        """Policies that do not say which domains are ours, and domains of ours without an entry."""
        for policy in self._policies.policies.values():
            if isinstance(policy, Policy):
                asking = [place for name in policy.lists for place in self._asking(policy, name)]
                if policy.local_domains is None:
                    text = f"{NOBODY_TABLE} asks which addresses are ours, expected smtpdLocalDomains in"
                    yield from (place.error(f"{text} {policy.dn}") for place in asking)
                elif asking:
                    yield from self._without_entries(policy, policy.local_domains)

    def _asking(self, policy: Policy, name: str) -> Iterator[_Spot]:
        """The list, or the classes that it leads to, that look for nobody's sender addresses."""
        if needs_local_domains(policy.lists[name], name):
            yield _Spot(policy.dn, LISTS[name])
        for found in self._contents.reached(policy.lists[name], name):
            if needs_local_domains(found.items, name):
                yield _Spot(found.dn, "smtpdRestrictions")

    def _without_entries(self, policy: Policy, table: TableName) -> Iterator[Fault]:
        domains = self._held
        listed = self._contents.keys_of(table)
        empty = [key for key in listed if key and not self._has_entries(key, domains)]
        if empty:
            more = f" and {len(empty) - _NAMED} more" if len(empty) > _NAMED else ""
            what = f"no entry has an address in {', '.join(empty[:_NAMED])}{more}"
            text = f"{what}: {NOBODY_TABLE} refuses every sender there"
            yield Fault(False, policy.dn, "smtpdLocalDomains", text)

    def _has_entries(self, key: str, domains: frozenset[str]) -> bool:
        """Whether an entry has an address in a domain, or it is none that is asked for."""
        if key.startswith("."):
            return any(domain.endswith(key) for domain in domains)
        return key in domains or not self._naming.is_asked_for(key)

    @cached_property
    def _held(self) -> frozenset[str]:
        """The domains that entries have addresses in."""
        return frozenset(
            split_address(address)[1]
            for entry in self._found.entries
            if entry.key in self._found.owners
            for address in self._mapping.addresses_of(entry)
        )


def _can_serve(table: TableName, kind: str) -> bool:
    return kind in IDENTITY_TABLES.get((table.type, table.name), (kind,))


def _without_recipient(place: _Spot, item: Item, stage: str, whose: str) -> Iterator[Fault]:
    if stage == "etrn":
        yield place.warning(f"{item} is always skipped in {LISTS[stage]}: there is no recipient{whose}")
    elif stage in ("data", "end_of_data"):
        yield place.warning(
            f"{item} is skipped in {LISTS[stage]} unless the message has exactly one recipient{whose}"
        )


def _bad_name(name: str) -> str:
    """Why no list can name such a class."""
    if name.lower() in vocabulary.RESERVED:
        return "is the name of a restriction, expected another name for the class"
    if name.upper() in ACTION_WORDS or (name.isascii() and name.isdigit()):
        return "is an action, expected another name for the class"
    if not _SEPARATORS.isdisjoint(name):
        return "holds what separates names in a list, expected no white space, comma, colon or brace"
    return ""


def _is_one_edit_away(one: str, two: str) -> bool:
    """Whether one letter more, less, or in place of another makes the difference."""
    short, long = sorted((one, two), key=len)
    at = next((at for at, (a, b) in enumerate(zip(short, long, strict=False)) if a != b), len(short))
    rest = short[at:] if len(short) < len(long) else short[at + 1 :]
    return one != two and rest == long[at + 1 :]


def _all_behind(around: Mapping[str, set[str]], start: str) -> set[str]:
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        waiting += (reached := around.get(waiting.pop(), set()) - seen)
        seen |= reached
    return seen


def _always_parents(policies: Iterable[Policy], table: str = "") -> bool:
    """Whether a bare domain means its subdomains wherever this table (a pattern: no table) is used."""
    return not any(
        not policy.parent_domain_matches_subdomains
        or (policy.local_domains is not None and policy.local_domains.name.casefold() == table)
        for policy in policies
    )


def _never_looked_up(key: str, parents: bool) -> str:
    text = _QUOTED.sub("", key)
    if "<" in text and "@" in text:
        return f"key {key!r} is never looked up, expected the address alone"
    if "," in text and "@" in text:
        return f"key {key!r} is never looked up, expected one key in each value"
    if text.startswith("*"):
        return f"key {key!r} is never looked up: there are no wildcards, expected a domain"
    if key.startswith("@"):
        return f"key {key!r} is never looked up, expected {key[1:]!r} for all of a domain"
    if parents and key.startswith(".") and "@" not in key:
        return (
            f"key {key!r} is never looked up while smtpdParentDomainMatchesSubdomains is TRUE,"
            f" expected {key[1:]!r}"
        )
    return ""


# ---------------------------------------------------------------- the directory


class _Entries:
    """What is wrong with users, groups, lists and domains."""

    def __init__(
        self,
        found: Inventory,
        settings: Settings,
        where: Where,
        writing: _Writing,
        policies: Iterable[Policy],
    ) -> None:
        self._found = found
        self._mapping: AttributeMapping = settings.mapping
        self._where = where
        self._realms = settings.choices.naming.login_realms
        self._writing = writing
        self._parents = _always_parents(policies)
        self._bases = (normal_dn(settings.search_base), normal_dn(settings.policy_base))
        self.sender_values = self._values(
            (*settings.mapping.sender_access, *settings.mapping.member_sender_access)
        )
        self.recipient_values = self._values(
            (*settings.mapping.recipient_access, *settings.mapping.member_recipient_access)
        )

    def _values(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """The different values of some attributes."""
        values = (value for entry in self._found.entries for name in names for value in entry.values(name))
        return tuple(sorted(set(values)))

    def faults(self) -> Iterator[Fault]:
        """All of them."""
        for entry in self._deciding():
            yield from self._access(entry)
            yield from self._priority(entry)
            yield from self._dns(entry)
            yield from self._patterns(entry)
            yield from self._urls(entry)
            yield from self._delivery(entry)
        yield from self._unread_accounts()
        yield from self._unread_addresses()
        yield from self._catch_alls_as_members()
        yield from self._shared_addresses()
        yield from self._shared_logins()
        yield from self._shared_by_realm()
        yield from self._shared_domains()

    def _deciding(self) -> Iterator[Entry]:
        """Entries that carry more than addresses and logins: most do not."""
        mapping = self._mapping
        names = (*inventory.access_names(mapping), *inventory.dn_names(mapping), *mapping.priority)
        names += (*inventory.pattern_names(mapping), *mapping.login_required, "memberURL")
        deciding = frozenset(map(str.lower, names))
        return (
            entry
            for entry in self._found.entries
            if not deciding.isdisjoint(name for name, _ in entry.items())
        )

    # ------------------------------------------------------------ one entry

    def _access(self, entry: Entry) -> Iterator[Fault]:
        for name in inventory.access_names(self._mapping):
            values = entry.values(name)
            if len(values) > 1:
                yield Fault(True, entry.dn, name, f"there are {len(values)} values, expected one")
            for value in values:
                yield from self._writing.value(_Spot(entry.dn, name), value)

    def _priority(self, entry: Entry) -> Iterator[Fault]:
        """A group whose rank cannot be told makes the access of its members unavailable."""
        mapping = self._mapping
        carries = (*mapping.member_sender_access, *mapping.member_recipient_access)
        matters = any(map(entry.values, carries))
        for name in mapping.priority:
            values = entry.values(name)
            if len(values) > 1:
                yield Fault(matters, entry.dn, name, f"there are {len(values)} values, expected one")
            for value in values:
                if not _is_number(value):
                    yield Fault(matters, entry.dn, name, f"{value!r} is no number")

    def _dns(self, entry: Entry) -> Iterator[Fault]:
        for name in inventory.dn_names(self._mapping):
            for value in entry.values(name):
                try:
                    if normal_dn(value) in self._found.absent:
                        yield Fault(False, entry.dn, name, f"{value!r} does not exist")
                except InputError as problem:
                    yield Fault(True, entry.dn, name, str(problem))

    def _patterns(self, entry: Entry) -> Iterator[Fault]:
        for name in inventory.pattern_names(self._mapping):
            for value in entry.values(name):
                problem = _never_looked_up(value, self._parents)
                if problem:
                    yield Fault(False, entry.dn, name, problem)

    def _urls(self, entry: Entry) -> Iterator[Fault]:
        """A memberURL that is none makes unavailable who is in that group, and in those around it."""
        texts = entry.values("memberURL") if self._mapping.has_dynamic_groups else ()
        if len(texts) > MAX_URLS:
            what = f"there are {len(texts)} values, expected at most {MAX_URLS}"
            yield Fault(True, entry.dn, "memberURL", what)
        for text in texts[:MAX_URLS]:
            try:
                base = normal_dn(parse_url(text).base)
            except InputError as problem:
                yield Fault(True, entry.dn, "memberURL", str(problem))
                continue
            if not any(is_below(base, allowed) for allowed in self._bases):
                what = f"the base of {text!r} is neither below search_base nor below policy_base"
                yield Fault(True, entry.dn, "memberURL", what)

    def _delivery(self, entry: Entry) -> Iterator[Fault]:
        """Delivery restrictions that are taken otherwise than they may be meant."""
        mapping = self._mapping
        for name in mapping.login_required:
            for value in entry.values(name):
                if value.upper() not in ("TRUE", "FALSE"):
                    yield Fault(False, entry.dn, name, f"{value!r} is taken for TRUE, expected TRUE or FALSE")
        ours = next(filter(entry.values, mapping.recipient_access), None)
        for name in mapping.delivery_restrictions if ours else ():
            if any(value.upper() != "FALSE" for value in entry.values(name)):
                yield Fault(False, entry.dn, name, f"it restricts nothing by itself beside {ours}")

    def _unread_accounts(self) -> Iterator[Fault]:
        """Logins of which nobody can tell whether they are disabled."""
        mapping = self._mapping
        for entry in self._found.entries if mapping.disabled else ():
            for end in ends(entry, mapping.disabled) if any(map(entry.values, mapping.login)) else ():
                if end.problem:
                    yield Fault(True, entry.dn, end.name, end.problem)

    def _unread_addresses(self) -> Iterator[Fault]:
        """Addresses of no kind, where each has to say of which kind it is."""
        for name in filter(is_prefixed, self._mapping.mail):
            for entry in self._found.entries:
                for value in entry.values(name):
                    if ":" not in value:
                        yield Fault(False, entry.dn, name, f"{value!r} is not read, expected smtp: before it")

    def _catch_alls_as_members(self) -> Iterator[Fault]:
        """Whole domains that a group is meant to have for members."""
        for name in self._mapping.member_address:
            for entry in self._found.entries:
                for address in filter(is_catch_all, addresses_in(entry, name)):
                    text = f"{address!r} is ignored, expected the address of a member"
                    yield Fault(True, entry.dn, name, text)

    # ------------------------------------------------------------ entries that share something

    def _shared_addresses(self) -> Iterator[Fault]:
        mapping = self._mapping
        asked = (*mapping.sender_access, *mapping.recipient_access, *inventory.pattern_names(mapping))
        asked += (*inventory.dn_names(mapping), *mapping.login_required)
        holders = self._holders(mapping.mail, addresses_in)
        for address, entries in holders.items():
            owners = [entry for entry in entries if entry.key in self._found.owners]
            if len(owners) > 1 and self._is_asked_for(address):
                yield from self._disagreeing(mapping.mail, address, owners, asked)

    def _is_asked_for(self, address: str) -> bool:
        domains = self._where.domains
        return not domains or split_address(address)[1] in domains

    def _shared_logins(self) -> Iterator[Fault]:
        mapping = self._mapping
        repeated = self._holders(mapping.login, _folded_values)
        if any(_COMPAT in entry.key for entries in repeated.values() for entry in entries):
            base = self._where.search_base
            text = f"cn=compat repeats every login: they are unavailable, expected cn=accounts,{base}"
            yield Fault(True, "[directory]", "search_base", text)
            return
        for login, entries in repeated.items():
            for entry in entries:
                name = _attribute_of(entry, mapping.login, login, _folded_values)
                others = _others(entry, entries)
                text = f"login {login!r} belongs to {others} as well: it is unavailable, expected one entry"
                yield Fault(True, entry.dn, name, text)

    def _shared_by_realm(self) -> Iterator[Fault]:
        """Addresses that are a login with its realm of somebody else."""
        if not self._realms:
            return
        mapping = self._mapping
        logins = {
            login: entry
            for entry in self._found.entries
            for name in mapping.login
            for login in _folded_values(entry, name)
        }
        for entry in self._found.entries:
            for name in mapping.mail:
                for address in addresses_in(entry, name):
                    local, _, domain = address.rpartition("@")
                    other = logins.get(local) if domain in self._realms and address not in logins else None
                    if other is not None and other is not entry:
                        text = f"as a login {address!r} belongs to {other.dn} as well, without its realm"
                        yield Fault(True, entry.dn, name, f"{text}: it is unavailable, expected one entry")

    def _shared_domains(self) -> Iterator[Fault]:
        mapping = self._mapping
        asked = (*mapping.sender_access, *mapping.recipient_access, *mapping.send_as)
        for domain, entries in self._holders(mapping.domain, _folded_values).items():
            yield from self._disagreeing(mapping.domain, domain, entries, asked)

    def _holders(self, names: tuple[str, ...], folded: _Folded) -> Mapping[str, list[Entry]]:
        """Values that several entries have."""
        first: dict[str, Entry] = {}
        several: dict[str, list[Entry]] = {}
        for entry in self._found.entries:
            for name in names:
                for key in folded(entry, name):
                    there = first.setdefault(key, entry)
                    if there is not entry and several.setdefault(key, [there])[-1] is not entry:
                        several[key].append(entry)
        return several

    def _disagreeing(
        self, names: tuple[str, ...], value: str, entries: list[Entry], asked: tuple[str, ...]
    ) -> Iterator[Fault]:
        """Each of several entries with one value is asked: different answers make the lookup unavailable."""
        differing = [name for name in asked if len({_folded_values(entry, name) for entry in entries}) > 1]
        folded = addresses_in if names == self._mapping.mail else _folded_values
        for entry in entries:
            name = _attribute_of(entry, names, value, folded)
            shared = f"{value!r} belongs to {_others(entry, entries)} as well"
            if differing:
                text = f"{shared}, and they disagree about {', '.join(differing)}: the lookup is unavailable"
                yield Fault(True, entry.dn, name, text)
            elif names == self._mapping.mail:
                yield Fault(
                    False, entry.dn, name, f"{shared}: where groups tell them apart it is unavailable"
                )


def _is_number(value: str) -> bool:
    try:
        int(value)
    except ValueError:
        return False
    return True


def _others(entry: Entry, entries: Iterable[Entry]) -> str:
    others = [other.dn for other in entries if other is not entry]
    more = f" and {len(others) - _NAMED} more" if len(others) > _NAMED else ""
    return "; ".join(others[:_NAMED]) + more


def _folded_values(entry: Entry, name: str) -> frozenset[str]:
    return frozenset(map(str.casefold, entry.values(name)))


def _attribute_of(entry: Entry, names: tuple[str, ...], value: str, folded: _Folded) -> str:
    """The attribute in which the entry has the (folded) value."""
    return next(name for name in names if value in folded(entry, name))
