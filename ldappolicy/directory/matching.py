r"""What a filter matches, where there is no schema: for directories that answer from memory.

Hence these rules (RFC 4517's for the types that matter here):

* values are compared by case folding, with spaces squashed and cut off at both ends;
* the values of `DN_ATTRIBUTES` are compared as DNs, and have no order and no parts;
* order is that of numbers where both values are integers, else that of the folded text;
* an attribute that an entry does not have matches nothing, and its Not everything;
* `objectClass` matches the classes that an entry lists, and `(objectClass=*)` every entry.

BUGS: of matching rules only `_RULES` and `BIT_RULES` are known; a filter that asks for another is
refused, since a rule taken for "matches nothing" would open what a `(!(...))` closes.
"""

import re
from collections.abc import Callable, Iterable
from itertools import chain
from typing import Protocol

from ldappolicy.entry import normal_dn, without_uid
from ldappolicy.errors import InputError, Unavailable
from ldappolicy.ldap_filter import (
    And,
    Approx,
    Equality,
    Extensible,
    Filter,
    GreaterOrEqual,
    LessOrEqual,
    Not,
    Or,
    Present,
    Substring,
)

DN_ATTRIBUTES = frozenset(
    (
        "member",
        "uniquemember",
        "owner",
        "seealso",
        "memberof",
        "manager",
        "roleoccupant",
        "managedby",
        "membermanager",
        "distinguishedname",
        "smtpdaccessmember",
        "smtpdallowedsenderdn",
        "smtpddeniedsenderdn",
        "smtpdmoderator",
        "smtpdsendas",
        # Active Directory's and Exchange's, which that profile reads
        "msexchcomanagedbylink",
        "msexchmoderatedbylink",
        "authorig",
        "unauthorig",
        "dlmemsubmitperms",
        "dlmemrejectperms",
        "publicdelegates",
    )
)


class Matched(Protocol):
    """What a filter can be held against: an `entry.Entry`, or what holds the same more tightly."""

    @property
    def key(self) -> str:
        """The normal DN."""
        ...

    def values(self, name: str, /) -> tuple[str, ...]:
        """All values of an attribute, its name in any case; none is an empty tuple."""
        ...

    def items(self) -> Iterable[tuple[str, tuple[str, ...]]]:
        """The attributes that have values: name in lower case, values."""
        ...


Matcher = Callable[[Matched], bool]
Key = Callable[[str], str | None]
"""What a value is compared under; None: it equals nothing."""

_SPACES = re.compile(" {2,}")
_INTEGER = re.compile(r"-?[0-9]{1,4000}")  # int() refuses more than 4300 digits
_PAIR_ENDS = re.compile("[,+]")  # in a normal DN these are nothing else


def key_of(attr: str, *, cached: bool = True) -> Key:
    """How the values of an attribute (its name in lower case) are compared.

    Not `cached` for values by the thousand, which would only sweep the memory of `normal_dn`.
    """
    if attr == "uniquemember":
        return _unique_key if cached else _unique_key_once
    if attr in DN_ATTRIBUTES:
        return dn_key if cached else _dn_key_once
    return _fold


def _fold(value: str) -> str:
    folded = _squash(value).strip(" ")
    return value if folded == value else folded  # the one string for both


def _squash(value: str) -> str:
    folded = value.casefold()
    return _SPACES.sub(" ", folded) if "  " in folded else folded


def _exact(value: str) -> str:
    return _SPACES.sub(" ", value).strip(" ")


def dn_key(value: str) -> str | None:
    """The normal form of a DN; None for what is none."""
    try:
        return normal_dn(value)
    except InputError:
        return None


def _dn_key_once(value: str) -> str | None:
    try:
        return normal_dn.once(value)
    except InputError:
        return None


def _unique_key(value: str) -> str | None:
    return dn_key(without_uid(value))


def _unique_key_once(value: str) -> str | None:
    return _dn_key_once(without_uid(value))


def matcher(tree: Filter) -> Matcher:
    """The test that a filter is; raises Unavailable for a matching rule that is not known."""
    match tree:
        case And(parts):
            return _all_of([matcher(part) for part in parts])
        case Or(parts):
            return _any_of(parts)
        case Not(part):
            inner = matcher(part)
            return lambda entry: not inner(entry)
        case Equality(attr, value) | Approx(attr, value):
            return _equality(attr.lower(), value, key_of(attr.lower()))
        case Present(attr):
            return _present(attr.lower())
        case Substring():
            return _substring(tree)
        case GreaterOrEqual(attr, value):
            return _ordering(attr.lower(), value, greater=True)
        case LessOrEqual(attr, value):
            return _ordering(attr.lower(), value, greater=False)
        case Extensible():
            return _extensible(tree)


def _nothing(entry: Matched) -> bool:
    return False


def _all_of(matchers: list[Matcher]) -> Matcher:
    return lambda entry: all(matches(entry) for matches in matchers)


def _any_of(parts: tuple[Filter, ...]) -> Matcher:
    """Equalities of one attribute (the many keys of one lookup) are a set; the rest is tried in turn."""
    wanted: dict[str, set[str]] = {}
    matchers: list[Matcher] = []
    for part in parts:
        if isinstance(part, Equality):
            attr = part.attr.lower()
            key = key_of(attr)(part.value)
            if key is not None:
                wanted.setdefault(attr, set()).add(key)
        else:
            matchers.append(matcher(part))
    matchers += [_one_of(attr, keys, key_of(attr)) for attr, keys in wanted.items()]
    return lambda entry: any(matches(entry) for matches in matchers)


def _one_of(attr: str, wanted: set[str], key: Key) -> Matcher:
    return lambda entry: any(key(value) in wanted for value in entry.values(attr))


def _equality(attr: str, value: str, key: Key) -> Matcher:
    wanted = key(value)
    if wanted is None:
        return _nothing
    return lambda entry: any(key(value) == wanted for value in entry.values(attr))


def _present(attr: str) -> Matcher:
    return lambda entry: attr == "objectclass" or bool(entry.values(attr))


def _substring(tree: Substring) -> Matcher:
    attr = tree.attr.lower()
    if attr in DN_ATTRIBUTES:
        return _nothing
    initial = _squash(tree.initial or "").lstrip(" ")
    final = _squash(tree.final or "").rstrip(" ")
    between = [_squash(part) for part in tree.any]

    def matches(value: str) -> bool:
        if not value.startswith(initial):
            return False
        at = len(initial)
        for part in between:
            found = value.find(part, at)
            if found < 0:
                return False
            at = found + len(part)
        return value.endswith(final) and len(value) - len(final) >= at

    return lambda entry: any(matches(_fold(value)) for value in entry.values(attr))


def _ordering(attr: str, limit: str, *, greater: bool) -> Matcher:
    if attr in DN_ATTRIBUTES:
        return _nothing
    folded = _fold(limit)
    if greater:
        return lambda entry: any(_in_order(folded, _fold(value)) for value in entry.values(attr))
    return lambda entry: any(_in_order(_fold(value), folded) for value in entry.values(attr))


def _in_order(low: str, high: str) -> bool:
    if _INTEGER.fullmatch(low) and _INTEGER.fullmatch(high):
        return int(low) <= int(high)
    return low <= high


def _extensible(tree: Extensible) -> Matcher:
    attr = tree.attr.lower() if tree.attr is not None else None
    test = _value_test(tree.rule, attr, tree.value)
    in_dn = _dn_test(attr, tree.value) if tree.dn_attributes else _nothing
    if attr is not None:
        return lambda entry: any(map(test, entry.values(attr))) or in_dn(entry)
    return lambda entry: any(map(test, chain.from_iterable(map(_second, entry.items())))) or in_dn(entry)


def _second(item: tuple[str, tuple[str, ...]]) -> tuple[str, ...]:
    return item[1]


def _value_test(rule: str | None, attr: str | None, value: str) -> Callable[[str], bool]:
    if rule is not None and rule.lower() not in _RULES and rule not in BIT_RULES:
        raise Unavailable(f"the matching rule {rule!r} is not known to the embedded directory")
    if rule in BIT_RULES:
        return _bit_test(value, every=BIT_RULES[rule])
    key = key_of(attr or "") if rule is None else _RULES[rule.lower()]
    wanted = key(value)
    return lambda found: wanted is not None and key(found) == wanted


def _bit_test(value: str, *, every: bool) -> Callable[[str], bool]:
    mask = int(value) if _INTEGER.fullmatch(value) else None

    def test(found: str) -> bool:
        if mask is None or not _INTEGER.fullmatch(found):
            return False
        return int(found) & mask == mask if every else int(found) & mask != 0

    return test


def _dn_test(attr: str | None, value: str) -> Matcher:
    """`(ou:dn:=people)` looks at the pairs of the entry's DN too, compared as in DNs."""
    octets = value.encode("utf-8", "surrogateescape")
    wanted = dn_key(f"{attr or 'cn'}={''.join(f'{chr(92)}{octet:02x}' for octet in octets)}")
    if wanted is None:
        return _nothing
    if attr is not None:
        return lambda entry: wanted in _PAIR_ENDS.split(entry.key)
    behind = wanted.partition("=")[2]
    return lambda entry: any(pair.partition("=")[2] == behind for pair in _PAIR_ENDS.split(entry.key))


def _integer(value: str) -> str | None:
    return str(int(value)) if _INTEGER.fullmatch(value) else None


# RFC 4517 section 4.2, by name and by object identifier.
_RULES: dict[str, Key] = {
    "caseignorematch": _fold,
    "2.5.13.2": _fold,
    "caseignoreia5match": _fold,
    "1.3.6.1.4.1.1466.109.114.2": _fold,
    "caseexactmatch": _exact,
    "2.5.13.5": _exact,
    "caseexactia5match": _exact,
    "1.3.6.1.4.1.1466.109.114.1": _exact,
    "distinguishednamematch": dn_key,
    "2.5.13.1": dn_key,
    "integermatch": _integer,
    "2.5.13.14": _integer,
}
# Active Directory's bit rules, which "is the account disabled" is asked with: every bit, or any.
BIT_RULES = {"1.2.840.113556.1.4.803": True, "1.2.840.113556.1.4.804": False}
