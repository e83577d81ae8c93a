"""What is read together is one revision: whether each policy may take its part of a new one.

A policy that would name what is not there any more, or not yet, keeps its last good form, with the classes
and tables of the revision that it is from: replication may bring a policy before its class. It reaches a
class or a table by the names in its lists, in the bodies of classes and in the right-hand sides of tables;
through directory:access every class, since an entry may name any.

Names in values of people's entries are not looked at: they are server configuration errors when reached.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain

from ldappolicy import vocabulary
from ldappolicy.action import Action, Kind
from ldappolicy.errors import InputError
from ldappolicy.policy import (
    IDENTITY_TABLES,
    LISTS,
    Fault,
    Item,
    Policy,
    PolicySet,
    RestrictionClass,
    Table,
    TableName,
    parse_inline,
    parse_right_hand_side,
    parse_static,
)

MOST_TOLD = 5
"""Names that are told of for one policy."""

_OF_EVERYBODY = TableName("directory", "access")
_MADE_HERE = frozenset(("static", "inline", "fail"))


def held_back(new: PolicySet, previous: PolicySet) -> PolicySet:
    """The new set, in which each policy that cannot take its part is what it was, and is told of."""
    if new.revision == previous.revision and not previous.kept:
        return new
    names = _Names(new)
    kept: dict[str, PolicySet] = {}
    faults: list[Fault] = []
    for name, policy in new.policies.items():
        before = previous.in_force(name)
        good = before.policies.get(name)
        if not isinstance(policy, Policy) or not isinstance(good, Policy):
            continue
        if missing := names.missing(policy) - _Names(before).missing(good):
            kept[name] = replace(before, kept={})
            stays = f"; the last good form of policy {name!r} stays in force"
            told = sorted(missing, key=lambda one: (one.dn, one.attribute, one.name))[:MOST_TOLD]
            faults += [Fault(True, one.dn, one.attribute, one.text + stays) for one in told]
    if not kept:
        return new
    policies = {**new.policies, **{name: held.policies[name] for name, held in kept.items()}}
    return replace(new, policies=policies, kept=kept, faults=(*new.faults, *faults))


@dataclass(frozen=True, slots=True)
class Missing:
    """A name that means nothing, and where it stands."""

    dn: str
    attribute: str
    name: str
    what: str

    @property
    def text(self) -> str:
        """What lint and the log say of it."""
        return f"unknown {self.what} {self.name!r}"


_Place = tuple[str, str]  # DN and attribute
_List = tuple[_Place, tuple[Item, ...]]


class _Names:
    """What the lists of a set name; each class and each table is looked at once."""

    def __init__(self, policies: PolicySet) -> None:
        self._policies = policies
        self._known: dict[object, tuple[tuple[Missing, ...], tuple[object, ...]]] = {}

    def missing(self, policy: Policy) -> frozenset[Missing]:
        """All that a policy reaches and that is not there."""
        found: set[Missing] = set()
        seen: set[object] = set()
        lists: list[_List] = [((policy.dn, LISTS[name]), items) for name, items in policy.lists.items()]
        if policy.local_domains is not None:
            place = (policy.dn, "smtpdLocalDomains")
            lists.append((place, (Item("", table=policy.local_domains),)))
        waiting = [self._look(part) for one in lists for part in self._with_made_here(one)]
        while waiting:
            absent, named = waiting.pop()
            found.update(absent)
            waiting += [self._behind(key) for key in named if key not in seen]
            seen.update(named)
        return frozenset(found)

    def _behind(self, key: object) -> tuple[tuple[Missing, ...], tuple[object, ...]]:
        """What a class (by name) or a table (as it is named) holds: what is missing, and what it names."""
        known = self._known.get(key)
        if known is None:
            looks = [self._look(part) for one in self._lists_of(key) for part in self._with_made_here(one)]
            absent = tuple(one for missing, _ in looks for one in missing)
            known = self._known[key] = absent, tuple(one for _, named in looks for one in named)
        return known

    def _lists_of(self, key: object) -> Iterator[_List]:
        if isinstance(key, TableName):
            if key == _OF_EVERYBODY:
                for name in self._policies.classes:
                    yield from self._lists_of(name)
            for place, action in self._actions(key):
                if action.kind is Kind.LIST:
                    yield place, parse_right_hand_side(action.tokens)
            return
        found = self._policies.classes.get(str(key))
        if isinstance(found, RestrictionClass):
            yield (found.dn, "smtpdRestrictions"), found.items

    def _actions(self, name: TableName) -> Iterator[tuple[_Place, Action]]:
        table = self._policies.tables.get(name.name.casefold()) if name.type == "ldap" else None
        if isinstance(table, Table):
            for part in table.parts:
                lines = [*part.lines.values(), *(line.action for line in part.cidr)]
                yield from (((part.dn, "smtpdAccess"), action) for action in dict.fromkeys(lines))
                yield (part.dn, "smtpdAccessAction"), part.action

    def _look(self, one: _List) -> tuple[tuple[Missing, ...], tuple[object, ...]]:
        (dn, attribute), items = one
        absent: list[Missing] = []
        named: list[object] = []
        for item in items:
            if item.fault:
                continue
            if item.table is not None:
                key: object = item.table
                unknown = "" if self._is_table(item.table) else "table"
            elif item.name.lower() in vocabulary.RESERVED:
                continue
            else:
                key = item.name
                is_class = isinstance(self._policies.classes.get(item.name), RestrictionClass)
                unknown = "" if is_class else "restriction or class"
            if unknown:
                absent.append(Missing(dn, attribute, str(key), unknown))
            named.append(key)
        return tuple(absent), tuple(named)

    def _with_made_here(self, one: _List) -> Iterator[_List]:
        """A list, and those that stand in its static: and inline: tables."""
        place, items = one
        yield one
        for action in chain.from_iterable(actions_made_here(item.table) for item in items if item.table):
            if action.kind is Kind.LIST:
                yield place, parse_right_hand_side(action.tokens)

    def _is_table(self, name: TableName) -> bool:
        if name.type == "ldap":
            return isinstance(self._policies.tables.get(name.name.casefold()), Table)
        return name.type in _MADE_HERE or (name.type, name.name) in IDENTITY_TABLES


def actions_made_here(table: TableName) -> Iterable[Action]:
    """The right-hand sides of `static:` and `inline:`; nothing where it is none, or does not parse."""
    if table.type == "static":
        return (parse_static(table.name),)
    if table.type != "inline":
        return ()
    try:
        return dict.fromkeys(parse_inline(table.name).values())
    except InputError:
        return ()
