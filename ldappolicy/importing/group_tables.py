"""ldap_table(5) files that say "who has this address and is in that group gets this": smtpdAccessMember.

    query_filter = (&(mail=%s)(memberOf=cn=interns,ou=groups,dc=example,dc=com))
    result_attribute = mail
    result_format = local_only

is a table whose smtpdAccessMember is the group and whose smtpdAccessAction is `local_only`. The address may
be asked for in several attributes, the group be one of several; in check_sasl_access the login stands for the
address. A group that is the base of the search names its members by DN: `(member=uid=%s,ou=people,...)`.

Whatever else a filter asks, or a result that is not the same for everybody, raises `LeftOut`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ldappolicy.action import split_list
from ldappolicy.entry import normal_dn
from ldappolicy.errors import InputError
from ldappolicy.importing.sources import LeftOut, Source
from ldappolicy.ldap_filter import And, Equality, Extensible, Filter, Or, parse
from ldappolicy.main_cf import MainCf, read_main_cf
from ldappolicy.mapping import PROFILES, is_prefixed

IN_CHAIN = "1.2.840.113556.1.4.1941"
"""LDAP_MATCHING_RULE_TRANSITIVE_EVAL."""

_LOGINS = frozenset(name.lower() for mapping in PROFILES.values() for name in mapping.login)
_MAILS = frozenset(name.lower() for mapping in PROFILES.values() for name in mapping.mail)
_MEMBERS = frozenset(("member", "uniquemember"))
_KINDS = frozenset(("objectclass", "objectcategory"))
_ALWAYS_THERE = frozenset(("cn", "objectclass"))


@dataclass(frozen=True, slots=True)
class GroupTable:
    """Groups, and what their members get; `by_login`: it is asked for logins."""

    groups: tuple[str, ...]
    action: str
    by_login: bool


def parameters_of(main: MainCf, source: Source) -> Mapping[str, str]:
    """What an ldap: file says, or (ldap:NAME) main.cf by NAME_parameter; raises InputError."""
    if source.name.startswith(("/", ".")):
        said = read_main_cf(Path(source.name)).definitions
        return {name: definition.value for name, definition in said.items()}
    names = [name for name in main.definitions if name.startswith(f"{source.name}_")]
    return {name.removeprefix(f"{source.name}_"): main.get(name) for name in names}


def read_group_table(main: MainCf, source: Source, check: str) -> GroupTable:
    """The table of a check (`sender`, `recipient`, `sasl`); raises LeftOut."""
    try:
        if check not in ("sender", "recipient", "sasl"):
            raise InputError("it is not asked for an address or a login")
        return _read(parameters_of(main, source), by_login=check == "sasl")
    except InputError as problem:
        what = f"table {source} cannot be carried over: it is an error when reached ({problem})"
        raise LeftOut(source.where, what) from None


def _read(given: Mapping[str, str], *, by_login: bool) -> GroupTable:
    tree = parse(given.get("query_filter", "(mailacceptinggeneralid=%s)"))
    parts = tree.parts if isinstance(tree, And) else (tree,)
    keyed = [part for part in parts if _leaves_with_key(part)]
    others = [part for part in parts if part not in keyed and not _is_kind(part)]
    if len(keyed) != 1:
        raise InputError("its query_filter does not ask for the address once")
    asked = _alternatives(keyed[0])
    names = {leaf.attr.lower() for leaf in asked}
    if names <= _MEMBERS:
        groups = _group_of_base(given, asked, others, by_login=by_login)
    else:
        _require_addresses(asked, by_login=by_login)
        groups = _groups_in(others)
    return GroupTable(groups, _action(given, names), by_login)


def _leaves_with_key(tree: Filter) -> bool:
    parts = tree.parts if isinstance(tree, And | Or) else (tree,)
    return any("%" in str(getattr(part, "value", "%")) for part in parts)


def _is_kind(part: Filter) -> bool:
    """Whether it tells entries of people from others, as every member is one."""
    parts = part.parts if isinstance(part, And | Or) else (part,)
    return all(isinstance(one, Equality) and one.attr.lower() in _KINDS for one in parts)


def _alternatives(part: Filter) -> tuple[Equality, ...]:
    """One equality, or any of several."""
    parts = part.parts if isinstance(part, Or) else (part,)
    found = tuple(one for one in parts if isinstance(one, Equality))
    if len(found) != len(parts) or not found:
        raise InputError("its query_filter asks for the address otherwise than by (attribute=%s)")
    return found


def _require_addresses(asked: Iterable[Equality], *, by_login: bool) -> None:
    """That the key is asked for where entries have their addresses, or logins."""
    known = _LOGINS if by_login else _MAILS
    for leaf in asked:
        is_whole = leaf.value == "%s" or (is_prefixed(leaf.attr) and leaf.value.lower() == "smtp:%s")
        if leaf.attr.lower() not in known or not is_whole or is_prefixed(leaf.attr) == (leaf.value == "%s"):
            what = "a login" if by_login else "an address"
            raise InputError(f"({leaf.attr}={leaf.value}) does not ask for {what} as entries have it")


def _groups_in(others: Iterable[Filter]) -> tuple[str, ...]:
    """The groups of `(memberOf=DN)`, of which an entry is in one."""
    (part, *more) = [*others] or [Or(())]
    groups: list[str] = []
    for leaf in part.parts if isinstance(part, Or) else (part,):
        is_direct = isinstance(leaf, Equality) and leaf.attr.lower() == "memberof"
        is_deep = isinstance(leaf, Extensible) and leaf.rule == IN_CHAIN and not leaf.dn_attributes
        if not is_direct and not (is_deep and str(getattr(leaf, "attr", "")).lower() == "memberof"):
            raise InputError("its query_filter asks for more than an address and a group (memberOf=DN)")
        value = str(getattr(leaf, "value", ""))
        normal_dn(value)
        groups.append(value)
    if more or not groups:
        raise InputError("its query_filter asks for more, or less, than an address and a group (memberOf=DN)")
    return tuple(groups)


def _group_of_base(
    given: Mapping[str, str], asked: tuple[Equality, ...], others: list[Filter], *, by_login: bool
) -> tuple[str, ...]:
    """The group that the search is about, whose members are named by a DN with the key in it."""
    known = _LOGINS if by_login else _MAILS
    base = given.get("search_base", "")
    for leaf in asked:
        attribute, _, rest = leaf.value.partition("=")
        value, comma, people = rest.partition(",")
        if attribute.strip().lower() not in known or value != "%s" or not comma or "%" in people:
            raise InputError(f"({leaf.attr}={leaf.value}) does not name an entry by its address or login")
    if given.get("scope", "sub") != "base" or others or not base or "%" in base:
        raise InputError("which group it asks is not told by search_base and scope = base")
    normal_dn(base)
    return (base,)


def _action(given: Mapping[str, str], asked: set[str]) -> str:
    """What everybody gets who is found."""
    text = given.get("result_format", given.get("result_filter", "%s"))
    if "%" in text.replace("%%", "") or not text.strip():
        raise InputError(f"its result_format {text!r} is not the same for everybody")
    attributes = {name.lower() for name in split_list(given.get("result_attribute", "maildrop"))}
    if attributes.isdisjoint(asked | _ALWAYS_THERE):
        raise InputError("not everybody has its result_attribute")
    if given.get("domain", ""):
        raise InputError("it has a domain of its own")
    if any(given.get(f"{kind}_result_attribute") for kind in ("special", "leaf", "terminal")):
        raise InputError("it follows the values of a result_attribute")
    return text.replace("%%", "%").strip()
