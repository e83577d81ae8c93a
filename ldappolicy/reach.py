"""Rules that no request reaches, and what the service's account is not shown: what protects nothing, unsaid.

Absence is an answer: a mapped attribute that is misspelt, or that the account may not read, makes every rule
that rests on it one that finds nothing. Here the entries that carry rules are read, the attributes that
policies and rules ask for are looked for, and what cannot be found is a fault. `lint` says it with all else,
`serve` once when it starts.

An attribute that the server does not define is told of where the site named it: a profile names attributes of
several schemas. What only denies (smtpdDeniedSender and its kin) may be nowhere at all.

BUGS: servers other than those that tell effective rights do not say that an attribute is hidden; that some
values can be seen is taken for all.
"""

import asyncio
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields

from ldappolicy import vocabulary
from ldappolicy.accounts import HELD_BY_ALL, LOCKS
from ldappolicy.action import parse_action
from ldappolicy.address import split_address
from ldappolicy.directory import Directory, Scope, Search
from ldappolicy.directory.attribute_types import names_in
from ldappolicy.directory.plan import ANY, Where
from ldappolicy.entry import Entry, is_below, key_of_dn, normal_dn
from ldappolicy.errors import InputError, Unavailable
from ldappolicy.foresight import Contents, kinds_of
from ldappolicy.ldap_filter import And, Equality, Filter, Or, Present
from ldappolicy.mapping import Mapping, Names
from ldappolicy.policy import NOBODY_TABLE, Fault, Item, Policy, PolicySet, Table, parse_right_hand_side
from ldappolicy.service import RIGHTS, Settings, may
from ldappolicy.tables import ACCESS

KEYS = "[directory.attributes]"
"""Where faults of the mapping are told."""

MAX_GROUPS = 500
"""Groups whose members are looked at one by one."""

MAX_MEMBERS = 20
"""Members of one group that are looked for; one that is there is enough."""

FEW = 20
"""Entries with rules whose rights are asked for."""

_NOTHING = ("1.1",)
_UNSEEN = ": none exists, or it may not be read"

_SELF_WRITTEN = {
    "77b5b886-944a-11d1-aebd-0000f80367c1": "Personal-Information",
    "e45795b2-9455-11d1-aebd-0000f80367c1": "Email-Information",
    "e45795b3-9455-11d1-aebd-0000f80367c1": "Web-Information",
    "91e647de-d96f-4b70-9557-d63ff4f3ccd8": "Private-Information",
}
"""Property sets that Active Directory lets all write on their own entry (MS-ADTS section 3.1.1.2.3.3)."""

_CONCEPT_OF = {
    "members": ("member", "member_address"),
    "owners": ("owner",),
    "moderators": ("moderator",),
    "allowed": ("allowed_sender", "allowed_sender_dn"),
}
"""What the recipient: tables rest on."""


@dataclass(frozen=True, slots=True)
class Rules:
    """The entries that carry rules, and what of them can be seen.

    `owners`, `peopled` and `empty` are keys: of those that the filter lets own addresses, of groups with
    members, and of those among them none of whose members is there. `outside` are entries beyond search_base.
    """

    entries: tuple[Entry, ...] = ()
    owners: frozenset[str] = frozenset()
    peopled: frozenset[str] = frozenset()
    empty: frozenset[str] = frozenset()
    outside: tuple[Entry, ...] = ()


async def faults(
    policies: PolicySet,
    directory: Directory,
    settings: Settings,
    where: Where,
    absent: frozenset[str] = frozenset(),
    *,
    at_start: bool = False,
) -> list[Fault]:
    """What protects nothing, in no order; `at_start`: now, not one day. Raises Unavailable.

    `absent` are normal DNs that are known to have no entry.
    """
    mapping = settings.mapping
    rules = await _read(directory, where, mapping)
    contents = Contents(
        policies,
        _values(rules.entries, (*mapping.sender_access, *mapping.member_sender_access)),
        _values(rules.entries, (*mapping.recipient_access, *mapping.member_recipient_access)),
    )
    found = list(_Entries(rules, policies, contents, where, mapping, absent).faults())
    asked = _asked(policies, contents, rules, mapping)
    found += await _unseen_accounts(directory, where, mapping, asked.pop("disabled", ()))
    found += await _unseen(directory, where, mapping, asked, rules)
    found += await unknown(directory, where, mapping)
    found += with_case(directory, mapping)
    if not at_start:
        found += await _not_amended(directory, policies, rules, mapping)
    found += await _rights(directory, where, mapping, settings.account, rules)
    return found + await self_written(directory, mapping)


def _values(entries: Iterable[Entry], names: Names) -> tuple[str, ...]:
    return tuple(sorted({value for entry in entries for name in names for value in entry.values(name)}))


# ---------------------------------------------------------------- what is read


def _either(names: Iterable[str]) -> Filter:
    return Or(tuple(map(Present, dict.fromkeys(names))))


def _own_rules(mapping: Mapping) -> Names:
    """Attributes of ours that apply to the entry that carries them."""
    senders = (*mapping.allowed_sender_dn, *mapping.denied_sender_dn, *mapping.send_as)
    named = (*mapping.allowed_sender, *mapping.denied_sender, *senders)
    ours = (name for name in named if name.lower().startswith("smtpd"))
    return (*mapping.sender_access, *mapping.recipient_access, *ours)


def _members(mapping: Mapping) -> Names:
    """Attributes of a group that make members."""
    dynamic = ("memberURL",) if mapping.has_dynamic_groups else ()
    return (*mapping.member_dns, *mapping.member_logins, *mapping.member_address, *dynamic)


async def _read(directory: Directory, where: Where, mapping: Mapping) -> Rules:
    names = (*_own_rules(mapping), *mapping.member_access)
    if not names:
        return Rules()
    rests_on = (*mapping.owner, *mapping.moderator, *mapping.login_required)
    rests_on += (*mapping.allowed_sender, *mapping.allowed_sender_dn)
    rests_on += ("objectSid",) if mapping.primary_group else ()
    read = tuple(dict.fromkeys((*names, *mapping.mail, *mapping.login, *mapping.domain, *rests_on)))
    carrying = _either(names)
    entries = tuple(await directory.search(Search(where.search_base, Scope.SUB, carrying, read)))
    outside = await _outside(directory, where, names)
    if not entries:
        return Rules(outside=outside)
    owners = entries
    if where.filter is not None:
        allowed = And((where.filter, carrying))
        owners = tuple(await directory.search(Search(where.search_base, Scope.SUB, allowed, _NOTHING)))
    peopled = frozenset[str]()
    if members := _members(mapping):
        groups = And((carrying, _either(members)))
        shown = await directory.search(Search(where.search_base, Scope.SUB, groups, _NOTHING))
        peopled = frozenset(entry.key for entry in shown)
    empty = await _without_members(directory, where, mapping, entries, peopled)
    return Rules(entries, frozenset(entry.key for entry in owners), peopled, empty, outside)


async def _outside(directory: Directory, where: Where, names: Names) -> tuple[Entry, ...]:
    """Entries with rules that are not below search_base."""
    root = await directory.search(Search("", Scope.BASE, ANY, ("namingContexts",)))
    contexts = {value for entry in root for value in entry.values("namingContexts")}
    base = normal_dn(where.search_base)
    if not root:  # a file
        contexts = {""}
    found: dict[str, Entry] = {}
    for context in sorted(contexts):
        try:
            if is_below(normal_dn(context), base):
                continue
            shown = await directory.search(Search(context, Scope.SUB, _either(names), names))
        except (InputError, Unavailable):
            continue  # what the account may not search holds nothing that can be said
        found.update((entry.key, entry) for entry in shown if not is_below(entry.key, base))
    return tuple(found.values())


async def _without_members(
    directory: Directory, where: Where, mapping: Mapping, entries: Iterable[Entry], peopled: frozenset[str]
) -> frozenset[str]:
    """Keys of groups with rules for their members, or for who writes to them, of which nobody is there."""
    rules = (*mapping.member_access, *mapping.recipient_access)
    groups = [entry for entry in entries if any(map(entry.values, rules))][:MAX_GROUPS]
    empty = {entry.key for entry in groups if entry.key not in peopled}
    for entry in groups:
        if entry.key in peopled and not await _has_member(directory, mapping, entry):
            empty.add(entry.key)
    for entry in groups if mapping.primary_group else ():
        if entry.key in empty and await _is_primary(directory, where, entry):
            empty.discard(entry.key)
    return frozenset(empty)


async def _has_member(directory: Directory, mapping: Mapping, group: Entry) -> bool:
    """Whether a member is there, as far as that can be seen in a few searches."""
    try:
        shown = await directory.search(Search(group.dn, Scope.BASE, ANY, _members(mapping)))
    except Unavailable:
        return True  # so many members that Active Directory sends them in pieces
    dns = [value for entry in shown for name in mapping.member_dns for value in entry.values(name)]
    others = set(_members(mapping)) - set(mapping.member_dns)
    if not dns or any(entry.values(name) for entry in shown for name in others):
        return True
    keys = list(filter(None, map(key_of_dn, dns)))
    searches = (Search(key, Scope.BASE, ANY, _NOTHING) for key in keys[:MAX_MEMBERS])
    found = await asyncio.gather(*map(directory.search, searches))
    return any(found) or len(keys) > MAX_MEMBERS


async def _is_primary(directory: Directory, where: Where, group: Entry) -> bool:
    """Whether a group of Active Directory is somebody's primary group."""
    for sid in group.values("objectSid"):
        number = int.from_bytes(sid.encode("utf-8", "surrogateescape")[-4:], "little")
        having = Equality("primaryGroupID", str(number))
        if await directory.search(Search(where.search_base, Scope.SUB, having, _NOTHING, limit=1)):
            return True
    return False


# ---------------------------------------------------------------- entries with rules


class _Entries:
    """Rules that no lookup finds, or that apply to nobody."""

    def __init__(
        self,
        rules: Rules,
        policies: PolicySet,
        contents: Contents,
        where: Where,
        mapping: Mapping,
        absent: frozenset[str],
    ) -> None:
        self._rules = rules
        self._absent = absent
        self._contents = contents
        self._where = where
        self._mapping = mapping
        found = [one for one in policies.policies.values() if isinstance(one, Policy)]
        self._completes = bool(found) and all(one.myorigin for one in found)

    def faults(self) -> Iterator[Fault]:
        """All of them."""
        mapping = self._mapping
        for entry in self._rules.entries:
            yield from self._unreachable(entry)
            yield from self._of_group(entry)
            yield from self._nobody_passes(entry)
        for entry in self._rules.outside:
            for name in filter(entry.values, (*_own_rules(mapping), *mapping.member_access)):
                text = f"no lookup finds it outside of search_base {self._where.search_base!r}"
                yield Fault(True, entry.dn, name, text)

    def _unreachable(self, entry: Entry) -> Iterator[Fault]:
        """Its own rules, where no address, login or domain leads to them."""
        mapping = self._mapping
        if any(map(entry.values, mapping.domain)):
            return
        addresses = mapping.addresses_of(entry)
        is_sender = any(map(entry.values, mapping.login))
        problem = self._no_address(entry, addresses)
        if not problem:
            return
        by_login = (*mapping.sender_access,) if is_sender else ()
        for name in _own_rules(mapping):
            if entry.values(name) and name not in by_login:
                yield Fault(True, entry.dn, name, f"it protects nothing: {problem}")

    def _no_address(self, entry: Entry, addresses: tuple[str, ...]) -> str:
        """Why no lookup of an address finds the entry, or nothing."""
        if not addresses:
            return f"the entry has no address ({', '.join(self._mapping.mail)})"
        usable = [one for one in addresses if split_address(one)[1] or not self._completes]
        if not usable:
            return f"address {addresses[0]!r} has no domain, and is never looked up without one"
        domains = self._where.domains
        if domains and not any(split_address(one)[1] in domains for one in usable):
            return f"address {usable[0]!r} is in no domain of [directory] domain"
        if entry.key not in self._rules.owners:
            return "[directory] filter leaves the entry out"
        return ""

    def _of_group(self, entry: Entry) -> Iterator[Fault]:
        mapping = self._mapping
        is_group = entry.key in self._rules.peopled and not any(map(entry.values, mapping.login))
        for name in mapping.sender_access if is_group else ():
            if entry.values(name):
                meant = next(iter(mapping.member_sender_access), "a Member form")
                text = f"it applies to what the group itself sends, expected {meant} for its members"
                yield Fault(False, entry.dn, name, text)
        if entry.key in self._rules.empty:
            for name in filter(entry.values, mapping.member_access):
                text = "it applies to nobody: no member of the group can be seen"
                yield Fault(True, entry.dn, name, text)

    def _nobody_passes(self, entry: Entry) -> Iterator[Fault]:
        """A list that lets in members, owners, moderators or allowed senders, and has none of them."""
        mapping = self._mapping
        has = {
            "members": entry.key in self._rules.peopled and entry.key not in self._rules.empty,
            "owners": self._names_somebody(entry, mapping.owner),
            "moderators": self._names_somebody(entry, mapping.moderator),
            "allowed": any(map(entry.values, mapping.allowed_sender))
            or self._names_somebody(entry, mapping.allowed_sender_dn),
        }
        for name in mapping.recipient_access:
            for value in entry.values(name):
                action = parse_action(value)
                items = parse_right_hand_side(action.tokens) if action.tokens else ()
                every = [
                    *items,
                    *(one for c in self._contents.reached(items, "recipient") for one in c.items),
                ]
                asked = list(filter(None, map(_lets_in, every)))
                permits = any(one.name.lower().startswith("permit") for one in every)
                if asked and not permits and not any(has[one] for one in asked):
                    some = ", ".join(f"recipient:{one}" for one in dict.fromkeys(asked))
                    yield Fault(True, entry.dn, name, f"nobody can pass {value!r}: no {some} is left")

    def _names_somebody(self, entry: Entry, names: Names) -> bool:
        return any(key_of_dn(value) not in self._absent for name in names for value in entry.values(name))


def _lets_in(item: Item) -> str:
    """The recipient: table by which it may let somebody in, by its name."""
    table = item.table
    return table.name if table is not None and table.type == "recipient" and table.name in _CONCEPT_OF else ""


# ---------------------------------------------------------------- what can be seen at all


def _asked(policies: PolicySet, contents: Contents, rules: Rules, mapping: Mapping) -> dict[str, Names]:
    """The concepts that policies and rules ask for, each with the attributes that may hold it."""
    concepts: set[str] = set()
    for policy in policies.policies.values():
        for name, items in policy.lists.items() if isinstance(policy, Policy) else ():
            every = [*items, *(one for c in contents.reached(items, name) for one in c.items)]
            for item in every:
                concepts.update(_asked_by(item, name))
    if any(entry.values(name) for entry in rules.entries for name in mapping.member_access):
        concepts.add("member")
    asked: dict[str, Names] = {}
    for concept in sorted(concepts):
        asked[concept] = _attributes(concept, mapping)
    return asked


def _attributes(concept: str, mapping: Mapping) -> Names:
    if concept == "access":
        own = (*mapping.sender_access, *mapping.recipient_access, *mapping.member_access)
        return (*own, *mapping.delivery_restrictions)
    if concept == "member":
        return (*_members(mapping), *(("primaryGroupID",) if mapping.primary_group else ()))
    if concept == "allowed_sender":
        return (*mapping.allowed_sender, *mapping.allowed_sender_dn)
    names: Names = getattr(mapping, concept)
    return names


def _asked_by(item: Item, stage: str) -> Iterator[str]:
    """What a restriction looks for in the directory."""
    table = item.table
    if table is None:
        if item.name.lower() in vocabulary.EVALUATED and "login_mismatch" in item.name.lower():
            yield from ("login", "mail", "disabled")
        return
    kinds = kinds_of(item, stage)
    if table in (ACCESS, NOBODY_TABLE) or table.type == "recipient":
        yield from ("login", "disabled") if kinds[:1] == ("sasl",) else ("mail",)
    if table == ACCESS:
        yield "access"
    if table.type == "recipient" and table.name in _CONCEPT_OF:
        yield _CONCEPT_OF[table.name][0]


async def _unseen(
    directory: Directory, where: Where, mapping: Mapping, asked: dict[str, Names], rules: Rules
) -> list[Fault]:
    """The concepts of which no entry has anything that can be seen."""
    left = {
        concept: names
        for concept, names in asked.items()
        if names and not any(entry.values(name) for entry in rules.entries for name in names)
    }
    searches = [
        Search(where.search_base, Scope.SUB, _either(names), _NOTHING, limit=1) for names in left.values()
    ]
    answers = await asyncio.gather(*map(directory.search, searches))
    return [
        Fault(True, KEYS, concept, f"no entry with {' or '.join(names)}{_UNSEEN}")
        for (concept, names), entries in zip(left.items(), answers, strict=True)
        if not entries
    ]


async def _unseen_accounts(directory: Directory, where: Where, mapping: Mapping, asked: Names) -> list[Fault]:
    """What tells that an account is disabled and cannot be seen: an error where every user has it.

    Else a warning where the site named it, and no entry has it; what a profile names may be nowhere.
    """
    profile = type(mapping)()
    every = [name for name in asked if name.lower() in HELD_BY_ALL]
    named = [name for name in asked if name not in (*every, *profile.disabled) and name.lower() not in LOCKS]
    users = And((Equality("objectClass", "user"), _either(mapping.login)))
    look = Search(where.search_base, Scope.SUB, users, tuple(every), limit=FEW)
    shown = await directory.search(look) if every and mapping.login else ()
    found = [
        Fault(True, KEYS, "disabled", f"{entry.dn} has no {name}: it may not be read")
        for name in every
        for entry in shown
        if not entry.values(name)
    ][:1]
    searches = [Search(where.search_base, Scope.SUB, Present(name), _NOTHING, limit=1) for name in named]
    answers = await asyncio.gather(*map(directory.search, searches))
    return found + [
        Fault(False, KEYS, "disabled", f"no entry with {name}{_UNSEEN}")
        for name, entries in zip(named, answers, strict=True)
        if not entries
    ]


async def unknown(directory: Directory, where: Where, mapping: Mapping) -> list[Fault]:
    """Attributes that the site named, and the server's schema does not have (RFC 4512 section 4.2)."""
    profile = type(mapping)()
    named = [
        (key, name) for key, names in _mapped(mapping) for name in names if name not in getattr(profile, key)
    ]
    known = await _schema(directory, where) if named else frozenset[str]()
    return [
        Fault(True, KEYS, key, f"attribute {name!r} is unknown to the server's schema")
        for key, name in named
        if known and name.lower() not in known
    ]


def with_case(directory: Directory, mapping: Mapping) -> list[Fault]:
    """Attributes that the site named, and the server compares with case: lookups of them take long."""
    rules = dict(directory.features.exact)
    profile = type(mapping)()
    return [
        Fault(
            False,
            KEYS,
            key,
            f"{name!r} is compared with case by the server: it is asked for by {rules[name.lower()]}, "
            "which no index serves",
        )
        for key, names in _mapped(mapping)
        for name in names
        if name.lower() in rules and name not in getattr(profile, key)
    ]


async def _not_amended(
    directory: Directory, policies: PolicySet, rules: Rules, mapping: Mapping
) -> list[Fault]:
    """DN attributes that slapo-refint(5) leaves as they are when the entry that they name is renamed."""
    ours = {*(name for name in mapping.links if name.lower().startswith("smtpd"))}
    used = {name for name in ours if any(entry.values(name) for entry in rules.entries)}
    tables = (table for table in policies.tables.values() if isinstance(table, Table))
    if any(part.members for table in tables for part in table.parts):
        used.add("smtpdAccessMember")
    if not used:
        return []
    overlay = Equality("objectClass", "olcRefintConfig")
    try:
        shown = await directory.search(Search("cn=config", Scope.SUB, overlay, ("olcRefintAttribute",)))
    except Unavailable:
        return []  # no OpenLDAP, or not for this account to read
    found = []
    for entry in shown:
        amended = {name for value in entry.values("olcRefintAttribute") for name in value.lower().split()}
        lacking = sorted(name for name in used if name.lower() not in amended)
        if lacking:
            text = f"lacks {', '.join(lacking)}: who is renamed or deleted stays named there"
            found.append(Fault(False, entry.dn, "olcRefintAttribute", text))
    return found


async def _rights(
    directory: Directory, where: Where, mapping: Mapping, account: str, rules: Rules
) -> list[Fault]:
    """What the account may not read, and what users may write about themselves, where the server tells it."""
    if not directory.features.tells_rights:
        return []
    keys = {name: key for key, names in _mapped(mapping) for name in names}
    asked = (*keys, RIGHTS)
    found = []
    if account and rules.entries:
        names = (*_own_rules(mapping), *mapping.member_access)
        carrying = Search(where.search_base, Scope.SUB, _either(names), asked, limit=FEW, rights_of=account)
        shown = await _told(directory, carrying)
        # What an entry's classes do not allow is told as none; ours are allowed wherever a rule is.
        ours = [name for name in keys if name.lower().startswith("smtpd")]
        hidden = [name for name in ours if any("r" not in may(entry, name) for entry in shown)]
        found += [Fault(True, KEYS, keys[name], f"the account may not read {name!r}") for name in hidden]
    found += await _hidden_accounts(directory, where, mapping, account)
    user = next((entry.dn for entry in rules.entries if any(map(entry.values, mapping.login))), "")
    for entry in await _told(directory, Search(user, Scope.BASE, ANY, asked, rights_of=user)) if user else ():
        written = [name for name in keys if set("woWO").intersection(may(entry, name))]
        text = f"may be written by {user!r} on that entry itself: it makes policy"
        found += [Fault(True, KEYS, keys[name], f"{name!r} {text}") for name in written]
    return found


async def _hidden_accounts(directory: Directory, where: Where, mapping: Mapping, account: str) -> list[Fault]:
    """What tells that an account is disabled, where the account of the service may read it of nobody."""
    if not (account and mapping.disabled and mapping.login):
        return []
    names = (*mapping.disabled, RIGHTS)
    found = Search(where.search_base, Scope.SUB, _either(mapping.login), names, limit=FEW, rights_of=account)
    shown = await _told(directory, found)
    hidden = [name for name in mapping.disabled if not any("r" in may(entry, name) for entry in shown)]
    text = "of no login: whoever is disabled counts as any other"
    return [
        Fault(True, KEYS, "disabled", f"the account may read {name!r} {text}") for name in hidden if shown
    ]


async def _told(directory: Directory, search: Search) -> tuple[Entry, ...]:
    """Entries with rights; none where the server does not tell this account."""
    try:
        return tuple(await directory.search(search))
    except Unavailable:
        return ()


def _mapped(mapping: Mapping) -> list[tuple[str, Names]]:
    kept = ("member_of", "uuid")
    return [(field.name, getattr(mapping, field.name)) for field in fields(mapping) if field.name not in kept]


async def _schema(directory: Directory, where: Where) -> frozenset[str]:
    """Names and OIDs of the attributes that the server knows, in lower case; empty where it does not tell."""
    try:
        base = Search(where.search_base, Scope.BASE, ANY, ("subschemaSubentry",))
        dns = {value for entry in await directory.search(base) for value in entry.values("subschemaSubentry")}
        known: set[str] = set()
        for dn in sorted(dns):
            subschema = Search(dn, Scope.BASE, ANY, ("attributeTypes",))
            for entry in await directory.search(subschema):
                for text in entry.values("attributeTypes"):
                    known.update(names_in(text))
    except Unavailable:
        return frozenset()
    return frozenset(known)


async def self_written(directory: Directory, mapping: Mapping) -> list[Fault]:
    """Attributes that Active Directory lets everybody write on their own entry, by their property set."""
    root = await directory.search(Search("", Scope.BASE, ANY, ("schemaNamingContext",)))
    if not directory.features.is_active_directory:
        return []
    contexts = [value for entry in root for value in entry.values("schemaNamingContext")]
    keys = {name.lower(): key for key, names in _mapped(mapping) for name in names}
    wanted = Or(tuple(Equality("lDAPDisplayName", name) for name in keys))
    read = ("lDAPDisplayName", "attributeSecurityGUID")
    found: list[Fault] = []
    for context in contexts:
        for entry in await directory.search(Search(context, Scope.ONE, wanted, read)):
            of = [_SELF_WRITTEN.get(_guid(value)) for value in entry.values("attributeSecurityGUID")]
            for name in entry.values("lDAPDisplayName") if any(of) else ():
                text = f"all may write {name!r} on their own entry (property set {of[0]}): it makes policy"
                found.append(Fault(True, KEYS, keys.get(name.lower(), name), text))
    return found


def _guid(octets: str) -> str:
    """The text of a GUID, whose first three parts are little-endian (MS-DTYP section 2.3.4.2)."""
    raw = octets.encode("utf-8", "surrogateescape")
    return str(uuid.UUID(bytes_le=raw)) if len(raw) == 16 else ""
