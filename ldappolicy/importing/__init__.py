"""A main.cf carried over: its restrictions, classes and tables as entries under policy_base.

The promise is postconf(5)'s and access(5)'s meaning, kept: a policy made here decides as Postfix would.
What cannot be carried is named, and closes rather than opens: a table that is unknown to the directory
(regexp:, mysql:) keeps its place in its list, where reaching it is a server configuration error (451
4.3.5), and lint finds it; so do check_policy_service and check_*_mx_access, unless they stay in main.cf
(`leaving`). mynetworks and the local domains are carried whole or not at all: without them Postfix
evaluates what needs them.

Entries stand side by side under policy_base, in an organizationalUnit of its own only where two would have
one DN: so does what a table holds beyond 1,000 lines, as tables with one cn are joined. The entry of
policy_base itself has to be there, and so does its directory: see `ldappolicy load`.

BUGS: `-o` overrides of master.cf are not looked at. A restriction list is read as main.cf has it now,
a hash: table as its text is now, whether or not postmap(1) has been run.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from ldappolicy import vocabulary
from ldappolicy.action import split_list
from ldappolicy.entry import Entry, normal_dn
from ldappolicy.errors import InputError
from ldappolicy.importing import places
from ldappolicy.importing.group_tables import GroupTable, read_group_table
from ldappolicy.importing.leaving import grouped
from ldappolicy.importing.sources import (
    INDEXED,
    LeftOut,
    Notes,
    Source,
    in_our_words,
    lines_of,
    names_our_word,
    right_hand_side,
    source_of,
)
from ldappolicy.main_cf import MainCf, is_utf8
from ldappolicy.policy import LISTS, PARAMETERS, parse_inline, parse_list, parse_static, read_policies

Attributes = dict[str, tuple[str, ...]]

LOCAL_DOMAINS = "local_domains"
"""The table that smtpdLocalDomains names."""

MOST_VALUES = 1_000
"""Of one attribute of an entry: Active Directory holds about 1,200."""

NOTHING = "check_client_access static:DUNNO"
"""The body of a class without restrictions: an attribute has to have a value."""

_AS_THEY_ARE = frozenset(("static", "inline", "fail"))
_OURS = frozenset(("ldap", "directory", "recipient"))
"""Table types that mean something else in the directory than in main.cf."""

_REMOVED = frozenset(("reject_maps_rbl", "check_relay_domains", "permit_naked_ip_address"))
"""Restrictions of Postfix before 3.9."""

_RESTS_ON = {
    "allow_percent_hack": ("yes", "user%domain@local is read as user@domain"),
    "allow_untrusted_routing": ("no", "OK for a recipient with '@', '%' or '!' in its local part is DUNNO"),
    "append_dot_mydomain": ("no", "user@host is looked up as it stands"),
    "resolve_dequoted_address": ("yes", "'@' within quotes is taken for a domain"),
    "smtpd_null_access_lookup_key": ("<>", "the null sender is looked up as '<>'"),
    "smtputf8_enable": ("yes", "keys are folded as Unicode"),
    "swap_bangpath": ("yes", "domain!user is read as user@domain"),
}
"""Parameters that a policy cannot carry: the value that it rests on, and what that means."""


_PARAMETERS = {attribute: PARAMETERS[name] for name, attribute in LISTS.items()} | {
    "smtpdMynetworks": "mynetworks",
    "smtpdMyorigin": "myorigin",
    "smtpdParentDomainMatchesSubdomains": "parent_domain_matches_subdomains",
    "smtpdRecipientDelimiter": "recipient_delimiter",
}
"""What each attribute of a policy is made of."""


@dataclass(frozen=True, slots=True)
class Carried:
    """Entries (DN, attributes), what was left out (FILE:LINE, text), and what is to be known of the rest.

    `group_tables` are the ldap: tables that became smtpdAccessMember, by their names in main.cf.
    """

    records: list[tuple[str, Attributes]]
    left_out: list[tuple[str, str]]
    warnings: list[str] = field(default_factory=list)
    group_tables: Mapping[str, GroupTable] = field(default_factory=dict)


def carry_over(main: MainCf, policy_base: str, name: str = "default") -> Carried:
    """The entries of a policy `name` under `policy_base`; raises InputError for what cannot be read."""
    normal_dn(policy_base)
    carrying = _Carrying(main, policy_base)
    carrying.carry(name)
    notes = carrying.notes
    left_out, warnings = dict.fromkeys(notes.left_out), dict.fromkeys(notes.warnings)
    return Carried(carrying.records, list(left_out), list(warnings), carrying.group_tables)


class _Carrying:
    """Builds one Carried: `records` and `notes`."""

    def __init__(self, main: MainCf, policy_base: str) -> None:
        self.main = main
        self.base = policy_base
        utf8 = "" if self._is("smtputf8_enable", "yes") else self._value("smtputf8_enable")
        self.notes = Notes(warnings=list(main.warnings), no_utf8=utf8)
        self.records: list[tuple[str, Attributes]] = []
        self._origins: dict[tuple[str, str], str] = {}
        self._tables: dict[tuple[str, str], str] = {}
        self._taken: set[str] = set()
        self.group_tables: dict[str, GroupTable] = {}
        self._table_records: list[tuple[str, str, Attributes]] = []
        self._table_names = {LOCAL_DOMAINS}
        self._classes = self._class_names()

    def carry(self, name: str) -> None:
        """Everything, in the order of the LDIF: the policy, the classes, the tables."""
        policy: Attributes = {}
        for list_name, attribute in LISTS.items():
            text = self._list(PARAMETERS[list_name], list_name)
            if text:
                policy[attribute] = (text,)
        self._settings(policy)
        from_here = f"imported from {self.main.path.name}"
        policy["description"] = (from_here,)
        origins = {attribute: self.main.where(_PARAMETERS[attribute]) for attribute in _PARAMETERS}
        self._add(name, "smtpdPolicy", policy, origins)
        for class_name in self._classes:
            text, where = self._list(class_name, ""), self.main.where(class_name)
            body: Attributes = {"smtpdRestrictions": (text,), "description": (from_here,)}
            self._add(in_our_words(class_name), "smtpdRestrictionClass", body, {"smtpdRestrictions": where})
        for table, where, attributes in self._table_records:
            for part in _parts(attributes):
                self._add(table, "smtpdAccessTable", part, {"smtpdAccess": where})
        self._differences(policy)
        self._validate()

    def _add(self, name: str, kind: str, attributes: Attributes, origins: Mapping[str, str]) -> None:
        """Files an entry; where its DN is taken, in an organizationalUnit of its own."""
        base, number = self.base, 1
        while normal_dn(f"cn={_escaped(name)},{base}") in self._taken:
            number += 1
            base = f"ou={_escaped(name)}-{number},{self.base}"
        if base != self.base:
            unit: Attributes = {"objectClass": ("organizationalUnit",), "ou": (f"{name}-{number}",)}
            self.records.append((base, unit))
        dn = f"cn={_escaped(name)},{base}"
        self._taken.add(normal_dn(dn))
        whole: Attributes = {"objectClass": (kind,), "cn": (name,), **attributes}
        for attribute, values in whole.items():
            if any(not is_utf8(value) for value in values):
                where = origins.get(attribute, str(self.main.path))
                raise InputError(f"{where}: {attribute} of {name!r} is not UTF-8")
        self.records.append((dn, whole))
        self._origins |= {(dn, attribute): where for attribute, where in origins.items()}

    def _note(self, problem: LeftOut) -> None:
        self.notes.left_out.append((problem.where, problem.text))

    # ------------------------------------------------------------ lists and classes

    def _class_names(self) -> list[str]:
        """The classes that are defined, once each."""
        parameter = "smtpd_restriction_classes"
        names = []
        for name in dict.fromkeys(_split(self.main, parameter)):
            if self.main.get(name) and self.main.is_set(name):
                names.append(name)
                self._tell_of_name(name)
            else:
                what = (
                    f"class {name!r} is not defined: Postfix does not start, here it is an error when reached"
                )
                self.notes.left_out.append((self.main.where(parameter), what))
        return names

    def _tell_of_name(self, name: str) -> None:
        if in_our_words(name) != name:
            what = f"class {name!r} is carried over as {in_our_words(name)!r}: {name} is a word of ours"
            self.notes.warnings.append(f"{self.main.where(name)}: {what}")

    def _list(self, parameter: str, list_name: str) -> str:
        """A restriction list as the directory has it."""
        where = self.main.where(parameter)
        lacking = self.main.lacking(parameter)
        if lacking:
            text = (
                f"{parameter} needs {', '.join(lacking)}, which is not set: the list is an error when reached"
            )
            self.notes.left_out.append((where, text))
            return f"needs_{lacking[0]}"
        items = [self._item(item, where, list_name) for item in grouped(_split(self.main, parameter))]
        if not items and parameter in self._classes:
            return NOTHING
        text = re.sub(r"(?i)\b(warn_if_reject), ", r"\1 ", ", ".join(items))
        self._remarks(parameter, text, list_name)
        return text

    def _item(self, item: tuple[str, ...], where: str, list_name: str) -> str:
        """One restriction with its argument, its table renamed."""
        name, *argument = item
        if name.lower() in vocabulary.CHECKS and argument:
            return f"{name} {self._table(argument[0], where, vocabulary.CHECKS[name.lower()])}"
        if not argument and ":" in name:
            return self._table(name, where, vocabulary.DEFAULT_CHECKS.get(list_name, ""))
        return " ".join((in_our_words(name), *argument))

    def _remarks(self, parameter: str, text: str, list_name: str) -> None:
        """Names what the directory cannot do, and words that nobody knows."""
        try:
            items = parse_list(text, list_name)
        except InputError:
            return  # the whole entry does not parse: see _validate
        where = self.main.where(parameter)
        known = {*vocabulary.BUILT_IN, *map(in_our_words, self._classes)}
        for item in items:
            if item.fault:
                what = f"{parameter}: {item.fault}: it is an error when reached"
                if item.name.lower() in vocabulary.ONLY_IN_MAIN_CF:
                    what += f" (--leave-in-main-cf {item.name} leaves it there)"
                self.notes.left_out.append((where, what))
            elif item.name.lower() in _REMOVED:
                what = f"{parameter}: {item.name} was removed from Postfix 3.9: it is an error when reached"
                self.notes.left_out.append((where, what))
            elif item.name and known.isdisjoint((item.name, item.name.lower())):
                what = f"{parameter}: {item.name!r} is neither a restriction nor a class, in Postfix as here"
                self.notes.warnings.append(f"{where}: {what}")

    # ------------------------------------------------------------ tables

    def _table(self, token: str, where: str, check: str) -> str:
        """The name in the directory of a table of main.cf; what is left out stays, and closes."""
        source = source_of(token, where)
        try:
            if source.type in _AS_THEY_ARE:
                return _unchanged(source)
            if source.type in INDEXED or source.type == "cidr":
                return f"ldap:{self._named(source)}"
            if source.type == "ldap":
                return f"ldap:{self._of_groups(source, check)}"
            raise LeftOut(where, f"table {token} cannot be carried over: it is an error when reached")
        except LeftOut as problem:
            self._note(problem)
        # A type in braces is none there; our own reader would take the braces off.
        if token.startswith("{"):
            return f"{{postfix-{token[1:-1].strip()}}}"
        is_other = source.type in _AS_THEY_ARE and vocabulary.SHADOW in source.name.lower()
        return f"postfix-{source}" if is_other or source.type in _OURS else token

    def _named(self, source: Source) -> str:
        """The table of that file, read once; raises LeftOut."""
        kind = "cidr" if source.type == "cidr" else "hash"
        key = kind, source.name
        if key not in self._tables:
            values = lines_of(source, self.notes)
            name = self._free_name(source.name)
            attributes: Attributes = {"smtpdAccessType": ("cidr",)} if kind == "cidr" else {}
            attributes["smtpdAccess"] = tuple(values)
            attributes["description"] = (f"imported from {source.type}: {_base_name(source.name)}",)
            self._table_records.append((name, source.name, attributes))
            self._tables[key] = name
        return self._tables[key]

    def _of_groups(self, source: Source, check: str) -> str:
        """The table of the members of groups, read once; raises LeftOut."""
        found = read_group_table(self.main, source, check)
        key = "ldap", source.name
        if key not in self._tables:
            name = self._free_name(source.name)
            attributes: Attributes = {
                "smtpdAccessMember": found.groups,
                "smtpdAccessAction": (right_hand_side(found.action),),
                "description": (f"imported from ldap: {_base_name(source.name)}",),
            }
            self._table_records.append((name, source.name, attributes))
            self._tables[key], self.group_tables[source.name] = name, found
            what = f"{source} is carried over as the members, at any depth, of {'; '.join(found.groups)}"
            self.notes.warnings.append(f"{source.where}: {what}")
        elif found.by_login is not self.group_tables[source.name].by_login:
            raise LeftOut(source.where, f"table {source} is asked for addresses and for logins")
        return self._tables[key]

    def _free_name(self, path: str) -> str:
        """A cn made of the name of the file."""
        stem = name = re.sub(r"[^A-Za-z0-9_.-]+", "_", _base_name(path)).strip("._") or "table"
        number = 1
        while name.casefold() in self._table_names:
            number += 1
            name = f"{stem}-{number}"
        self._table_names.add(name.casefold())
        return name

    # ------------------------------------------------------------ the rest of the policy

    def _settings(self, policy: Attributes) -> None:
        """Networks, origin, domains, delimiters: each whole, or named."""
        with self._noting():
            policy["smtpdMynetworks"] = (places.mynetworks(self.main, self.notes),)
        with self._noting():
            if self._is("append_at_myorigin", "yes"):
                origin = places.myorigin(self.main)
                policy |= {"smtpdMyorigin": (origin,)} if origin else {}
        with self._noting():
            keys = places.local_domains(self.main, self.notes)
            policy["smtpdLocalDomains"] = (f"ldap:{LOCAL_DOMAINS}",)
            lines = tuple(f"{key} OK" for key in keys)
            what = "mydestination, virtual_alias_domains, virtual_mailbox_domains and relay_domains"
            table: Attributes = {"smtpdAccess": lines, "description": (f"imported from {what}",)}
            self._table_records.append((LOCAL_DOMAINS, str(self.main.path), table))
        with self._noting():
            parents = places.parents_match(self.main, "smtpd_access_maps")
            policy["smtpdParentDomainMatchesSubdomains"] = ("TRUE" if parents else "FALSE",)
        delimiter = self.main.get("recipient_delimiter")
        if delimiter:
            policy["smtpdRecipientDelimiter"] = (delimiter,)

    @contextmanager
    def _noting(self) -> Iterator[None]:
        """Names what is left out in there; the rest goes on."""
        try:
            yield
        except LeftOut as problem:
            self._note(problem)

    def _value(self, parameter: str) -> str:
        """What main.cf has, and where."""
        default = "" if self.main.is_set(parameter) else ", by default"
        return f"{parameter} is {self.main.get(parameter).strip()!r}{default} ({self.main.where(parameter)})"

    def _is(self, parameter: str, value: str) -> bool:
        return self.main.get(parameter).strip().lower() == value

    def _differences(self, policy: Mapping[str, object]) -> None:
        """Names parameters that change decisions and that no policy can carry."""
        said = [
            (parameter, f"a policy rests on {parameter} = {value}: {meaning}; {self._value(parameter)}")
            for parameter, (value, meaning) in _RESTS_ON.items()
            if not self._is(parameter, value)
        ]
        early = [LISTS[name] for name in ("client", "helo", "sender")]
        if not self._is("smtpd_delay_reject", "yes") and any(name in policy for name in early):
            what = "the client, helo and sender lists are evaluated for each recipient"
            said.append(("smtpd_delay_reject", f"a policy rests on smtpd_delay_reject = yes: {what}"))
        order = "smtpd_relay_before_recipient_restrictions"
        if not self._is(order, "yes") and LISTS["relay"] in policy and LISTS["recipient"] in policy:
            what = "with both lists the relay list is asked first"
            said.append((order, f"a policy rests on {order} = yes: {what}"))
        if any("sender_login_mismatch" in value for value in _texts(self.records)):
            what = "smtpd_sender_login_maps: who owns an address is told by the directory (smtpdSendAs, mail)"
            said.append(("smtpd_sender_login_maps", what))
        self.notes.left_out += [(self.main.where(parameter), text) for parameter, text in said]

    def _validate(self) -> None:
        """Names what the directory would refuse: it stands in the LDIF as it is, and closes."""
        faults = read_policies(Entry(dn, attributes) for dn, attributes in self.records).faults
        for fault in faults:
            where = self._origins.get((fault.dn, fault.attribute), str(self.main.path))
            self.notes.left_out.append((where, fault.what))


# ---------------------------------------------------------------- texts


def _split(main: MainCf, parameter: str) -> tuple[str, ...]:
    try:
        return split_list(main.get(parameter))
    except InputError as problem:
        if str(problem).startswith(main.where(parameter)):
            raise
        raise InputError(f"{main.where(parameter)}: {parameter}: {problem}") from None


def _parts(attributes: Attributes) -> Iterator[Attributes]:
    """The same in entries that hold no more values of one attribute than a server may."""
    longest = max(map(len, attributes.values()))
    for at in range(0, longest, MOST_VALUES):
        yield {
            name: values if len(values) == 1 else values[at : at + MOST_VALUES]
            for name, values in attributes.items()
            if len(values) == 1 or len(values) > at
        }


def _unchanged(source: Source) -> str:
    """A table that means the same here; raises LeftOut for what does not, or Postfix would not open."""
    actions = [parse_static(source.name)] if source.type == "static" else []
    if source.type == "inline":
        try:
            actions = [*parse_inline(source.name).values()]
        except InputError as problem:
            raise LeftOut(source.where, str(problem)) from None
    other = next((action.text for action in actions if names_our_word(action.text)), None)
    if other is not None:
        raise LeftOut(
            source.where, f"{other!r} in {source} says something else here: it is an error when reached"
        )
    return str(source)


def _base_name(path: str) -> str:
    return "inline" if path.startswith("{") else path.rstrip("/").rpartition("/")[2]


def _escaped(value: str) -> str:
    """A value in a DN: RFC 4514 section 2.4."""
    text = re.sub(r'([,+"\\<>;=])', r"\\\1", value)
    text = re.sub(r"[\x00-\x1f\x7f]", lambda found: f"\\{ord(found[0]):02x}", text)
    return f"\\{text}" if text.startswith(("#", " ")) else text


def _texts(records: Iterable[tuple[str, Attributes]]) -> Iterator[str]:
    return (value for _, attributes in records for values in attributes.values() for value in values)
