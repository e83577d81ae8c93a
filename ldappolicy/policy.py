"""Policies, restriction classes and tables: the entries under policy_base in parsed, immutable form.

An entry that does not parse is a `Fault`, never an exception: its last good form stays in force, and
without one it is `Broken`, which is a server configuration error for whoever reaches it, and for nobody
else. What the names in a list do is not known here (see `restrictions`), only their form: which of them
are followed by an argument.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from ipaddress import IPv4Address, IPv6Address
from itertools import accumulate, islice
from types import MappingProxyType
from typing import NamedTuple, TypeVar, cast

from ldappolicy import vocabulary
from ldappolicy.action import WHOLE_MESSAGE, Action, Kind, parse_action, split_list, split_places
from ldappolicy.entry import Entry, is_below, normal_dn
from ldappolicy.errors import InputError
from ldappolicy.ldap_filter import parse_url
from ldappolicy.network import Network, Pattern, parse_network, parse_pattern

_A = TypeVar("_A")
_R = TypeVar("_R")

LISTS = {
    "client": "smtpdClientRestrictions",
    "helo": "smtpdHeloRestrictions",
    "sender": "smtpdSenderRestrictions",
    "relay": "smtpdRelayRestrictions",
    "recipient": "smtpdRecipientRestrictions",
    "data": "smtpdDataRestrictions",
    "end_of_data": "smtpdEndOfDataRestrictions",
    "etrn": "smtpdEtrnRestrictions",
}
"""The lists of a policy, by the name they have in policy_context."""

PARAMETERS = {name: f"smtpd_{name}_restrictions" for name in LISTS}
"""The parameter of main.cf that each list is."""

POLICY_CLASSES = ("smtpdPolicy", "smtpdRestrictionClass", "smtpdAccessTable")
"""Object classes of what stands under policy_base."""

POLICY_ATTRIBUTES = (
    *("objectClass", "cn", *LISTS.values(), "smtpdRestrictions", "smtpdMynetworks", "smtpdMyorigin"),
    *("smtpdLocalDomains", "smtpdParentDomainMatchesSubdomains", "smtpdRecipientDelimiter"),
    *("smtpdAccess", "smtpdAccessType", "smtpdAccessMember", "smtpdAccessURL", "smtpdAccessAction"),
)
"""What is read of them."""

IDENTITY_TABLES = {
    ("directory", "access"): frozenset(("sender", "sasl", "recipient")),
    ("directory", "nobody"): frozenset(("sender", "sasl")),
    ("recipient", "members"): frozenset(("sender", "sasl")),
    ("recipient", "owners"): frozenset(("sender", "sasl")),
    ("recipient", "moderators"): frozenset(("sender", "sasl")),
    ("recipient", "allowed"): frozenset(("sender", "sasl")),
    ("recipient", "denied"): frozenset(("sender", "sasl")),
}
"""Tables made of the directory itself, and the checks that each can serve."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that is wrong with an entry: what lint prints, and what is logged at a reload."""

    error: bool
    dn: str
    attribute: str
    text: str

    @property
    def what(self) -> str:
        """Where and what, without how bad it is."""
        return f"{self.dn}: {self.attribute}: {self.text}"

    def __str__(self) -> str:
        return f"{'error' if self.error else 'warning'}: {self.what}"


@dataclass(frozen=True, slots=True)
class TableName:
    """`type:name` as it stands in a list; `shipped` is the form that DELIVERY has, which no text can name."""

    type: str
    name: str
    shipped: bool = False

    def __str__(self) -> str:
        return f"{self.type}:{self.name}"


@dataclass(frozen=True, slots=True)
class Item:
    """One restriction of a list: its name as written, and its argument if it takes one.

    An item that is only a table has an empty name. `fault` is why it is an error when reached.
    """

    name: str
    table: TableName | None = None
    argument: str = ""
    fault: str = ""

    def __str__(self) -> str:
        return " ".join(filter(None, (self.name, str(self.table or ""), self.argument)))


@dataclass(frozen=True, slots=True)
class Broken:
    """An entry that never parsed."""

    dn: str
    reason: str


@dataclass(frozen=True, slots=True)
class RestrictionClass:
    """A named list."""

    dn: str
    name: str
    items: tuple[Item, ...]


@dataclass(frozen=True, slots=True)
class CidrLine:
    """One line of a cidr table; `number` orders those that have one, `excludes` is cidr_table(5)'s `!`."""

    number: int | None
    excludes: bool
    network: Network
    action: Action
    dn: str

    @property
    def order(self) -> tuple[bool, int]:
        """Sort key: by number, then those without, longest prefix first."""
        return (True, -self.network.prefixlen) if self.number is None else (False, self.number)

    def matches(self, address: IPv4Address | IPv6Address) -> bool:
        """Whether the line is about that address; `!` means the rest of its family."""
        return address.version == self.network.version and (address in self.network) != self.excludes


@dataclass(frozen=True, slots=True)
class TablePart:
    """One smtpdAccessTable entry: lines, the DNs whose addresses are keys, and URLs."""

    dn: str
    name: str
    lines: Mapping[str, Action]
    cidr: tuple[CidrLine, ...]
    members: frozenset[str]
    urls: tuple[str, ...]
    action: Action


@dataclass(frozen=True, slots=True)
class Table:
    """All entries with one cn, joined."""

    name: str
    parts: tuple[TablePart, ...]
    cidr: tuple[CidrLine, ...]


@dataclass(frozen=True, slots=True)
class Mynetworks:
    """smtpdMynetworks, in order; None stands for a `fail:` table."""

    patterns: tuple[Pattern | None, ...] = ()


@dataclass(frozen=True, slots=True)
class Policy:
    """What main.cf would carry. A list that is absent is not in `lists`."""

    dn: str
    name: str
    lists: Mapping[str, tuple[Item, ...]]
    mynetworks: Mynetworks | None
    myorigin: str
    local_domains: TableName | None
    parent_domain_matches_subdomains: bool
    recipient_delimiter: str


Parsed = Policy | RestrictionClass | TablePart


@dataclass(frozen=True)
class PolicySet:
    """All that stands under policy_base, swapped as a whole.

    `good` holds the last good form of every entry by its normal DN. `looping` are the classes that
    reach themselves by names alone. `bases` are the normal DNs below which URLs may search. `kept` holds, for
    each policy that could not take its part of this set, the one that it is served from.
    """

    policies: Mapping[str, Policy | Broken] = field(default_factory=dict)
    classes: Mapping[str, RestrictionClass | Broken] = field(default_factory=dict)
    tables: Mapping[str, Table | Broken] = field(default_factory=dict)
    good: Mapping[str, Parsed] = field(default_factory=dict)
    looping: frozenset[str] = frozenset()
    bases: tuple[str, ...] = ()
    faults: tuple[Fault, ...] = ()
    revision: str = ""
    kept: Mapping[str, "PolicySet"] = field(default_factory=dict)

    def in_force(self, name: str) -> "PolicySet":
        """The set that a policy is served from: its classes, its tables, its revision."""
        return self.kept.get(name, self)


# ---------------------------------------------------------------- lists


def parse_list(text: str, name: str = "") -> tuple[Item, ...]:
    """A list of a policy (`name` is one of LISTS) or the body of a class; raises InputError.

    A table without a check before it is checked against the check of its list, where that is known.
    """
    tokens = _Tokens(split_places(text))
    try:
        return tuple(_fitting(_items(tokens), name))
    except InputError as fault:
        raise InputError(f"{fault} at character {tokens.at}") from None


class _Tokens:
    """The tokens of a list one by one; `at` is where the last one begins, counted from 1."""

    def __init__(self, places: Iterable[tuple[int, str]]) -> None:
        self._places = iter(places)
        self.at = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        self.at, token = next(self._places)
        return token


def _fitting(items: Iterable[Item], name: str) -> Iterator[Item]:
    """The same items; raises InputError at the first whose table cannot serve its check."""
    for item in items:
        check = vocabulary.CHECKS.get(item.name.lower(), vocabulary.DEFAULT_CHECKS.get(name))
        if item.table is not None and check is not None:
            _require_fit(str(item), item.table, check)
        yield item


NOBODY_TABLE = TableName("directory", "nobody")
"""Logins and sender addresses that belong to nobody; which addresses are ours smtpdLocalDomains tells."""


def needs_local_domains(items: Iterable[Item], name: str) -> Item | None:
    """The first item of a list (`name` is one of LISTS) that looks for nobody's sender addresses."""
    default = vocabulary.DEFAULT_CHECKS.get(name)
    for item in items:
        if item.table == NOBODY_TABLE and vocabulary.CHECKS.get(item.name.lower(), default) == "sender":
            return item
    return None


def parse_right_hand_side(tokens: tuple[str, ...]) -> tuple[Item, ...]:
    """A list that stands in a table or attribute: what does not parse is an error when reached."""
    if tokens in DELIVERY:
        return DELIVERY[tokens]
    items: list[Item] = []
    try:
        items.extend(_items(tokens))
    except InputError as fault:
        items.append(Item(" ".join(tokens), fault=str(fault)))
    return tuple(items)


def reserved_to_policies(action: Action) -> str:
    """Why a right-hand side counts from entries under policy_base only; "" where it does anywhere.

    Whoever may edit one list, or an entry of their own, must not redirect the mail of all, nor stop it.
    """
    what = f"{action.verb} acts on whole messages" if action.verb in WHOLE_MESSAGE else ""
    if "sleep" in map(str.lower, action.tokens):
        sleeps = any(item.name.lower() == "sleep" for item in parse_right_hand_side(action.tokens))
        what = "sleep holds a process of Postfix's" if sleeps else ""
    return what and f"{what}: it counts from policy_base only"


def _items(tokens: Iterable[str]) -> Iterator[Item]:
    """The items one by one; raises InputError at the first that is none."""
    waiting = iter(tokens)
    for token in waiting:
        name = token.lower()
        if name in vocabulary.CHECKS:
            yield Item(token, table=_table_name(_argument(token, waiting, "type:table")))
        elif name in vocabulary.ONLY_IN_MAIN_CF:
            argument = _argument(token, waiting, "an argument")
            yield Item(token, argument=argument, fault=f"{token} works in main.cf only")
        elif name in vocabulary.WITH_DOMAIN:
            yield _with_domain(token, _argument(token, waiting, "an argument"))
        elif ":" in token:
            yield Item("", table=_table_name(token))
        else:
            yield Item(token)


class Covered(NamedTuple):
    """An item with the words before it: `warned` is warn_if_reject, `shadowed` is shadow."""

    item: Item
    warned: bool
    shadowed: bool

    def __str__(self) -> str:
        words = ("warn_if_reject " * self.warned, f"{vocabulary.SHADOW} " * self.shadowed)
        return f"{''.join(words)}{self.item}"


def covered(items: Iterable[Item]) -> Iterator[Covered]:
    """The items, without the words that say something of the next one; at the end these do nothing."""
    warned = shadowed = False
    for item in items:
        word = "" if item.fault else item.name.lower()
        if word not in ("warn_if_reject", vocabulary.SHADOW):
            yield Covered(item, warned, shadowed)
            warned = shadowed = False
        warned = warned or word == "warn_if_reject"
        shadowed = shadowed or word == vocabulary.SHADOW


def _argument(name: str, waiting: Iterable[str], expected: str) -> str:
    argument = next(iter(waiting), None)
    if argument is None:
        raise InputError(f"{name} is followed by nothing, expected {expected}")
    if argument.startswith("{") and argument.endswith("}"):
        argument = argument[1:-1].strip()
    return argument


def _with_domain(name: str, argument: str) -> Item:
    """A restriction that is handed back with its argument: no reply may hold a colon."""
    if name.lower() == "sleep" and not _is_short(argument):
        expected = f"a number of seconds, at most {vocabulary.MAX_SLEEP_S}"
        fault = f"sleep is followed by {argument!r}, expected {expected}"
        return Item(name, argument=argument, fault=fault)
    if not argument.isprintable() or not set(argument).isdisjoint(" ,:{}"):
        return Item(name, argument=argument, fault=f"argument {argument!r} of {name} cannot stand in a reply")
    return Item(name, argument=argument)


def _is_short(seconds: str) -> bool:
    """Whether it is a number of seconds that a process of Postfix's may be held for."""
    is_number = seconds.isascii() and seconds.isdigit()
    return is_number and len(seconds.lstrip("0")) <= 2 and int(seconds) <= vocabulary.MAX_SLEEP_S


def _table_name(text: str) -> TableName:
    kind, colon, name = text.partition(":")
    if not colon or not kind:
        raise InputError(f"{text!r} is no table, expected type:name")
    return TableName(kind, name)


def _require_fit(item: str, table: TableName, check: str) -> None:
    """Raises InputError unless a table of the directory's own can serve that check."""
    serves = IDENTITY_TABLES.get((table.type, table.name))
    if serves is not None and check not in serves:
        raise InputError(
            f"{item!r} checks the {check}, but {table} serves {', '.join(sorted(serves))} checks"
        )


def _result(value: str) -> Action:
    """What a table of main.cf yields: maps(3) takes an empty result for a table that failed."""
    return parse_action(value) if value else Action(Kind.INVALID, "", problem=_NO_VALUE)


_NO_VALUE = "no value in the table, expected an action"


def parse_static(name: str) -> Action:
    """The right-hand side of `static:VALUE`; braces around it keep its spaces."""
    if name.startswith("{") and name.endswith("}"):
        name = name[1:-1].strip()
    return _result(name)


_INLINE_PAIR = re.compile(
    r"""\s*(?P<key>(?:\\.|"(?:\\.|[^"\\])*"|[^\s="\\{}])+)\s*=\s*(?P<value>.*?)\s*""", re.DOTALL | re.ASCII
)
"""split_qnameval(3): white space in a key stands in quotes."""


def _is_one_group(token: str) -> bool:
    """Whether the brace at its beginning is closed at its end: extpar(3)."""
    depths = accumulate((char == "{") - (char == "}") for char in token)
    return all(depth > 0 for depth in islice(depths, len(token) - 1)) and token.endswith("}")


def parse_inline(name: str) -> Mapping[str, Action]:
    """The lines of `inline:{key=value, {key = text with spaces}}`; raises InputError."""
    if not (name.startswith("{") and name.endswith("}")):
        raise InputError(f"{'inline:' + name!r} is not of the form inline:{{key=value, ...}}")
    lines = {}
    for token in split_list(name[1:-1]):
        if token.startswith("{") and not _is_one_group(token):
            raise InputError(f"{token!r} in an inline: table has text behind its brace")
        pair = _INLINE_PAIR.fullmatch(token[1:-1] if token.startswith("{") else token)
        if pair is None:
            raise InputError(f"{token!r} in an inline: table is not of the form key=value")
        lines[pair["key"].casefold()] = _result(pair["value"])
    if not lines:
        raise InputError("an inline: table needs at least one key=value")
    return lines


# ---------------------------------------------------------------- delivery restrictions


def _delivery(what: str) -> Action:
    """A right-hand side of one token, with white space: no text is split into such a one."""
    text = f"delivery restrictions: {what}"
    return Action(Kind.LIST, text, tokens=(text,))


ALLOWED_SENDERS = _delivery("allowed senders")
DENIED_SENDERS = _delivery("denied senders")
LOGIN_REQUIRED = _delivery("login required")

NOT_AUTHORIZED = "550 5.7.1 Delivery not authorized"
NO_LOGIN = "550 5.7.1 Authentication required"

_DENIED = TableName("recipient", "denied", shipped=True)
_ACCESS = TableName("directory", "access", shipped=True)
_REFUSE_DENIED = (Item("check_sasl_access", _DENIED), Item("check_sender_access", _DENIED))

DELIVERY: Mapping[tuple[str, ...], tuple[Item, ...]] = {
    ALLOWED_SENDERS.tokens: (
        *_REFUSE_DENIED,
        Item("check_sasl_access", TableName("recipient", "allowed")),
        Item("check_recipient_access", TableName("static", NOT_AUTHORIZED)),
    ),
    LOGIN_REQUIRED.tokens: (
        *_REFUSE_DENIED,
        Item("permit_sasl_authenticated"),
        Item("check_recipient_access", TableName("static", NO_LOGIN)),
    ),
    DENIED_SENDERS.tokens: (*_REFUSE_DENIED, Item("check_recipient_access", _ACCESS)),
}
"""What an entry is read to carry that has Exchange's delivery restrictions and no access attribute of ours.

It stands where that attribute would: before what the groups around the entry and its domain say. A list that
only denies takes nothing off those, and goes on to them: one sender more that is denied opens nothing.
The envelope proves nothing: it is believed of those only who are refused by it.
"""

# ---------------------------------------------------------------- entries

NO_LIST = "the policy has no list that can be seen, expected at least one (permit, where all are let through)"


def parse_policy(entry: Entry) -> Policy:
    """A smtpdPolicy; raises InputError as `attribute: text`."""
    lists = {}
    for name, attribute in LISTS.items():
        text = _one(entry, attribute)
        if text:
            lists[name] = _within(attribute, partial(parse_list, name=name), text)
    if not any(lists.values()):
        # An account that may not read the lists must not make the policy one that lets everybody through.
        raise InputError(f"{LISTS['recipient']}: {NO_LIST}")
    parents = _one(entry, "smtpdParentDomainMatchesSubdomains").upper() or "TRUE"
    if parents not in ("TRUE", "FALSE"):
        raise InputError(f"smtpdParentDomainMatchesSubdomains: {parents!r} is neither TRUE nor FALSE")
    networks = _one(entry, "smtpdMynetworks")
    local = _one(entry, "smtpdLocalDomains")
    for name, items in lists.items() if not local else ():
        if item := needs_local_domains(items, name):
            raise InputError(
                f"{LISTS[name]}: {item} asks which addresses are ours, expected smtpdLocalDomains"
            )
    return Policy(
        dn=entry.dn,
        name=_name(entry),
        lists=lists,
        mynetworks=_within("smtpdMynetworks", _mynetworks, networks) if networks else None,
        myorigin=_one(entry, "smtpdMyorigin"),
        local_domains=_within("smtpdLocalDomains", _table_name, local) if local else None,
        parent_domain_matches_subdomains=parents == "TRUE",
        recipient_delimiter=_one(entry, "smtpdRecipientDelimiter"),
    )


def _mynetworks(text: str) -> Mynetworks:
    tokens = split_list(text)
    return Mynetworks(tuple(None if token.startswith("fail:") else parse_pattern(token) for token in tokens))


def parse_class(entry: Entry) -> RestrictionClass:
    """A smtpdRestrictionClass; raises InputError."""
    text = _one(entry, "smtpdRestrictions")
    if not text.strip():
        raise InputError("smtpdRestrictions: it is empty, expected restrictions")
    return RestrictionClass(entry.dn, _name(entry), _within("smtpdRestrictions", parse_list, text))


def parse_table(entry: Entry, bases: tuple[str, ...]) -> TablePart:
    """A smtpdAccessTable; `bases` are normal DNs, one of which a URL has to stay under."""
    kind = (_one(entry, "smtpdAccessType") or "hash").casefold()
    if kind not in ("hash", "cidr"):
        raise InputError(f"smtpdAccessType: {kind!r} is not known, expected hash or cidr")
    values = entry.values("smtpdAccess")
    lines = _within("smtpdAccess", _lines, values) if kind == "hash" else {}
    cidr = _within("smtpdAccess", _cidr_lines, (values, entry.dn)) if kind == "cidr" else ()
    members = frozenset(
        _within("smtpdAccessMember", normal_dn, dn) for dn in entry.values("smtpdAccessMember")
    )
    urls = tuple(
        _within("smtpdAccessURL", _table_url, (url, bases)) for url in entry.values("smtpdAccessURL")
    )
    action = parse_action(_one(entry, "smtpdAccessAction") or "OK")
    return TablePart(entry.dn, _name(entry), lines, cidr, members, urls, action)


def _lines(values: tuple[str, ...]) -> Mapping[str, Action]:
    """access(5) lines of a hash table by folded key."""
    lines: dict[str, Action] = {}
    for value in values:
        key, action = parse_line(value)
        if lines.setdefault(key, action).text != action.text:
            raise InputError(f"two lines for {key!r} with different actions")
    return lines


def parse_line(value: str) -> tuple[str, Action]:
    """One access(5) line: key (white space only inside double quotes), white space, action."""
    quote = False
    stripped = value.strip()
    for at, char in enumerate(stripped):
        if char == '"' and (at == 0 or stripped[at - 1] != "\\"):
            quote = not quote
        elif char in " \t" and not quote:
            return stripped[:at].casefold(), parse_action(stripped[at:])
    raise InputError(f"line {value!r} has no action behind its key")


def _cidr_lines(values_dn: tuple[tuple[str, ...], str]) -> tuple[CidrLine, ...]:
    values, dn = values_dn
    lines = []
    for value in values:
        number, text = _number(value.strip())
        pattern, _, action = text.replace("\t", " ").partition(" ")
        if not action.strip():
            raise InputError(f"line {value!r} has no action behind its network")
        network = pattern.removeprefix("!")
        excludes = network != pattern
        lines.append(CidrLine(number, excludes, parse_network(network), parse_action(action), dn))
    return tuple(lines)


def _number(line: str) -> tuple[int | None, str]:
    """The `{N}` before a cidr line, and the rest."""
    if not line.startswith("{"):
        return None, line
    number, brace, rest = line[1:].partition("}")
    if not brace or not (number.isascii() and number.isdigit() and len(number) < 10):
        raise InputError(f"line {line!r} begins with a brace, expected {{N}}")
    return int(number), rest.strip()


def _table_url(url_bases: tuple[str, tuple[str, ...]]) -> str:
    """The URL itself, once it is known to name keys and to stay below the bases."""
    text, bases = url_bases
    url = parse_url(text)
    if not url.attributes:
        raise InputError(f"{text!r} names no attribute whose values are the keys")
    if bases and not any(is_below(normal_dn(url.base), base) for base in bases):
        raise InputError(f"the base {url.base!r} is neither below search_base nor below policy_base")
    return text


def _name(entry: Entry) -> str:
    name = _one(entry, "cn")
    if not name:
        raise InputError("cn: there is none, expected a name")
    return name


def _one(entry: Entry, attribute: str) -> str:
    """The value of a single-valued attribute, or the empty string."""
    values = entry.values(attribute)
    if len(values) > 1:
        raise InputError(f"{attribute}: there are {len(values)} values, expected one")
    return values[0] if values else ""


def _within(attribute: str, parse: Callable[[_A], _R], value: _A) -> _R:
    """What `parse` makes of the value; a fault is told of the attribute."""
    try:
        return parse(value)
    except InputError as fault:
        raise InputError(f"{attribute}: {fault}") from None


# ---------------------------------------------------------------- the whole set


def object_kind(entry: Entry) -> str:
    """Which of POLICY_CLASSES the entry is, or the empty string."""
    names = {value.casefold() for value in entry.values("objectClass")}
    return next((kind for kind in POLICY_CLASSES if kind.casefold() in names), "")


def read_policies(
    entries: Iterable[Entry],
    bases: tuple[str, ...] = (),
    previous: PolicySet | None = None,
    hidden: Mapping[str, Iterable[str]] = MappingProxyType({}),
) -> PolicySet:
    """All policies, classes and tables that the entries hold.

    `bases` are the normal DNs below which a smtpdAccessURL may search; `hidden` are lists, by the normal DN
    of their policy, that the account may not read. What does not parse keeps the form it had in `previous`; a
    policy that is no longer there stays as it was.
    """
    return _Reading(bases, previous or PolicySet(), hidden).read(sorted(entries, key=lambda entry: entry.key))


_FORMS: Mapping[str, type] = {
    "smtpdPolicy": Policy,
    "smtpdRestrictionClass": RestrictionClass,
    "smtpdAccessTable": TablePart,
}


class _Reading:
    """Builds one PolicySet."""

    def __init__(
        self, bases: tuple[str, ...], previous: PolicySet, hidden: Mapping[str, Iterable[str]]
    ) -> None:
        self.bases = bases
        self.hidden = hidden
        self.previous = previous
        self.faults: list[Fault] = []
        self.good: dict[str, Parsed] = {}
        self.policies: dict[str, Parsed | Broken] = {}
        self.classes: dict[str, Parsed | Broken] = {}
        self.parts: dict[str, list[Parsed | Broken]] = {}

    def read(self, entries: list[Entry]) -> PolicySet:
        for entry in entries:
            kind = object_kind(entry)
            if kind:
                self._take(entry, kind)
        self._keep_vanished()
        tables = {name: self._join(name, parts) for name, parts in self.parts.items()}
        policies = cast(dict[str, Policy | Broken], self.policies)
        classes = cast(dict[str, RestrictionClass | Broken], self.classes)
        looping = frozenset(_looping(classes))
        for name in sorted(looping):
            text = f"class {name!r} reaches itself by names alone"
            self._fault(classes[name].dn, "smtpdRestrictions", text)
        return PolicySet(
            policies=policies,
            classes=classes,
            tables=tables,
            good=self.good,
            looping=looping,
            bases=self.bases,
            faults=tuple(self.faults),
            revision=_revision(entries),
        )

    def _take(self, entry: Entry, kind: str) -> None:
        try:
            parsed: Parsed | Broken = self._parse(entry, kind)
        except InputError as fault:
            parsed = self._not_parsed(entry, kind, fault)
        if not isinstance(parsed, Broken):
            self.good[entry.key] = parsed
        name = _any_name(entry, parsed)
        if kind == "smtpdPolicy":
            self._name_once(self.policies, self.previous.policies, name, parsed)
        elif kind == "smtpdRestrictionClass":
            self._name_once(self.classes, self.previous.classes, name, parsed)
        else:
            self.parts.setdefault(name.casefold(), []).append(parsed)

    def _parse(self, entry: Entry, kind: str) -> Parsed:
        if kind == "smtpdPolicy":
            if unseen := next(iter(self.hidden.get(entry.key, ())), ""):
                raise InputError(f"{unseen}: the account may not read it")
            policy = parse_policy(entry)
            if "/" in policy.name:
                raise InputError(
                    f"cn: {policy.name!r} holds a slash, which separates the list in a policy_context"
                )
            return policy
        return parse_class(entry) if kind == "smtpdRestrictionClass" else parse_table(entry, self.bases)

    def _not_parsed(self, entry: Entry, kind: str, fault: InputError) -> Parsed | Broken:
        """The last good form of an entry that does not parse, if it had one."""
        attribute, _, text = str(fault).partition(": ")
        last = self.previous.good.get(entry.key)
        if not isinstance(last, _FORMS[kind]):
            last = None
        kept = "; the last good form stays in force" if last is not None else ""
        self._fault(entry.dn, attribute, text + kept)
        return last if last is not None else Broken(entry.dn, str(fault))

    def _name_once(
        self,
        named: dict[str, Parsed | Broken],
        before: Mapping[str, Policy | Broken] | Mapping[str, RestrictionClass | Broken],
        name: str,
        parsed: Parsed | Broken,
    ) -> None:
        """Files the parsed entry under its name; with two of one name, what was in force stays."""
        if name not in named:
            named[name] = parsed
            return
        for dn in (named[name].dn, parsed.dn):
            self._fault(dn, "cn", f"there are two entries of its kind named {name!r}")
        last = before.get(name)
        named[name] = last if last is not None else Broken(parsed.dn, f"there are two entries named {name!r}")

    def _keep_vanished(self) -> None:
        """A policy that is gone while the directory answers stays in force, and is told of."""
        for name, policy in self.previous.policies.items():
            if name not in self.policies and isinstance(policy, Policy):
                self.policies[name] = policy
                self.good.setdefault(normal_dn(policy.dn), policy)
                self._fault(policy.dn, "cn", f"policy {name!r} vanished; its last good form stays in force")

    def _join(self, name: str, parts: list[Parsed | Broken]) -> Table | Broken:
        """One table of all the entries with its name; where that cannot be, what was in force stays."""
        last = self.previous.tables.get(name)
        whole = [part for part in parts if isinstance(part, TablePart)]
        if len(whole) < len(parts):
            return last or next(part for part in parts if isinstance(part, Broken))
        problem = _conflict(whole)
        if problem:
            self._fault(whole[0].dn, "smtpdAccess", problem)
            return last or Broken(whole[0].dn, problem)
        cidr = sorted((line for part in whole for line in part.cidr), key=lambda line: line.order)
        return Table(whole[0].name, tuple(whole), tuple(cidr))

    def _fault(self, dn: str, attribute: str, text: str) -> None:
        self.faults.append(Fault(True, dn, attribute, text))


def _conflict(parts: list[TablePart]) -> str:
    """What keeps table entries from being joined: contradicting lines, or one number twice."""
    lines: dict[str, Action] = {}
    for part in parts:
        for key, action in part.lines.items():
            if lines.setdefault(key, action).text != action.text:
                return f"two lines for {key!r} with different actions"
    numbers = [line.number for part in parts for line in part.cidr if line.number is not None]
    twice = next((number for number, count in Counter(numbers).items() if count > 1), None)
    return "" if twice is None else f"two lines are numbered {{{twice}}}"


def _any_name(entry: Entry, parsed: Parsed | Broken) -> str:
    """The name an entry is known by, also when it does not parse."""
    return next(iter(entry.values("cn")), "") if isinstance(parsed, Broken) else parsed.name


def _looping(classes: Mapping[str, RestrictionClass | Broken]) -> Iterator[str]:
    """Classes that reach themselves through the names in their bodies."""
    names = {
        name: {item.name for item in value.items} & classes.keys()
        for name, value in classes.items()
        if isinstance(value, RestrictionClass)
    }
    for start in names:
        seen: set[str] = set()
        waiting = [start]
        while waiting:
            waiting += (reached := names.get(waiting.pop(), set()) - seen)
            seen |= reached
        if start in seen:
            yield start


def _revision(entries: Iterable[Entry]) -> str:
    """A short digest of everything that policies are made of."""
    digest = hashlib.sha256()
    for entry in entries:
        values = sorted((name, sorted(entry.values(name))) for name in POLICY_ATTRIBUTES)
        digest.update(repr((entry.key, values)).encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:12]
