"""ldap_table(5) files, listed: every key that a query finds something for, and what it finds.

A table is asked of the directory that is configured, for all its keys at once: the filter with every part
that names the key (`%s`, `%u`, `%d`) made into a test of presence. Which keys an entry is found by is told
by the values of the attributes in those parts. Only a table whose search_base that directory holds is
asked: its server_host is taken for another name of the same one, and nothing is ever connected to.

BUGS: two parts of a filter that have to hold for one key are held against the entry here, the others are
the server's. Where a table with special_result_attribute leads is read in one search below search_base.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ldappolicy.action import split_list
from ldappolicy.address import split_address
from ldappolicy.directory import Directory, Scope, Search
from ldappolicy.directory.matching import matcher
from ldappolicy.entry import Entry, is_below, key_of_dn, normal_dn
from ldappolicy.errors import InputError, Unavailable
from ldappolicy.importing.group_tables import parameters_of
from ldappolicy.importing.sources import LeftOut, Source
from ldappolicy.ldap_filter import And, Equality, Filter, Not, Or, Present, parse
from ldappolicy.main_cf import MainCf

_SCOPES = {"sub": Scope.SUB, "one": Scope.ONE, "base": Scope.BASE}
_PART = re.compile("%(.)")
_PARTS_OF_KEY = frozenset("suSU")
_TRUE = And(())
_VALUES = 1_000_000
"""Results of one table: what is past it is a table that cannot be listed."""


@dataclass(frozen=True, slots=True)
class Asked:
    """Whom tables are asked of; `domains` are those that keys of `%u` alone may have."""

    directory: Directory
    search_base: str
    domains: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Table:
    """What a file says."""

    base: str
    scope: Scope
    filter: Filter
    results: tuple[str, ...]
    special: tuple[str, ...]
    leaf: tuple[str, ...]
    terminal: tuple[str, ...]
    format: str
    domains: tuple[str, ...]
    expansion_limit: int
    recursion_limit: int


async def listed(main: MainCf, source: Source, asked: Asked) -> Mapping[str, str]:
    """Folded keys and the text that each is replaced with.

    Raises LeftOut for a table that cannot be listed, or is not of this directory.
    """
    try:
        table = _read(main, source)
        base = normal_dn(asked.search_base)
        if not is_below(normal_dn(table.base), base):
            raise InputError(f"its search_base {table.base!r} is not below {asked.search_base!r}")
        return await _keys(table, asked)
    except (InputError, Unavailable) as problem:
        raise LeftOut(source.where, f"{source} cannot be listed: {problem}") from None


def _read(main: MainCf, source: Source) -> _Table:
    """The parameters of a file, or (ldap:NAME) of main.cf; raises InputError."""
    given = parameters_of(main, source)
    scope = given.get("scope", "sub")
    if "%" in given.get("search_base", "") or scope not in _SCOPES or "search_base" not in given:
        raise InputError("its search_base or scope is not one that is known beforehand")
    special, leaf, terminal = (
        tuple(split_list(given.get(f"{kind}_result_attribute", "")))
        for kind in ("special", "leaf", "terminal")
    )
    return _Table(
        given["search_base"],
        _SCOPES[scope],
        parse(given.get("query_filter", "(mailacceptinggeneralid=%s)")),
        tuple(split_list(given.get("result_attribute", "maildrop"))),
        special,
        leaf,
        terminal,
        given.get("result_format", given.get("result_filter", "%s")),
        tuple(map(str.casefold, split_list(given.get("domain", "")))),
        _number(given.get("expansion_limit", "0")),
        _number(given.get("recursion_limit", "1000")),
    )


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise InputError(f"limit {text!r}, expected a number")
    return int(text)


# ---------------------------------------------------------------- the filter


def _names_key(value: str) -> bool:
    """Whether a value of a filter depends on the key."""
    return any(found[1] != "%" for found in _PART.finditer(value))


def _leaves(tree: Filter, *, positive: bool = True) -> Iterator[tuple[Equality, bool]]:
    """The parts that name the key, and whether they have to hold; raises InputError for others than `=`."""
    match tree:
        case And(parts) | Or(parts):
            for part in parts:
                yield from _leaves(part, positive=positive)
        case Not(part):
            yield from _leaves(part, positive=not positive)
        case Equality(_, value):
            if _names_key(value):
                yield tree, positive
        case _:
            if any(isinstance(value, str) and _names_key(value) for value in _texts(tree)):
                raise InputError("its query_filter asks for the key otherwise than by (attribute=...)")


def _texts(tree: Filter) -> Iterator[object]:
    for name in getattr(tree, "__slots__", ()):
        value = getattr(tree, name)
        yield from value if isinstance(value, tuple) else (value,)


def _for_any_key(tree: Filter) -> Filter:
    """The filter that every entry matches which is found by some key."""
    match tree:
        case And(parts):
            return And(tuple(map(_for_any_key, parts)))
        case Or(parts):
            return Or(tuple(map(_for_any_key, parts)))
        case Not(part):
            return _TRUE if any(_leaves(part)) else tree
        case Equality(attr, value) if _names_key(value):
            return Present(attr)
        case Equality(attr, value):
            return Equality(attr, value.replace("%%", "%"))
        case _:
            return tree


def _for_key(tree: Filter, key: str) -> Filter:
    """What is left to be held against an entry that the server found: the parts that name the key."""
    match tree:
        case And(parts):
            return And(tuple(_for_key(part, key) for part in parts))
        case Or(parts):
            return Or(tuple(_for_key(part, key) for part in parts))
        case Not(part):
            return Not(_for_key(part, key)) if any(_leaves(part)) else _TRUE
        case Equality(attr, value) if _names_key(value):
            text = _expanded(value, key, key)
            return Or(()) if text is None else Equality(attr, text)
        case _:
            return _TRUE


def _expanded(format_: str, value: str, key: str) -> str | None:
    """db_common_expand: a format with a value and a key; None where they have not what it names."""
    user, domain = split_address(value)
    key_user, key_domain = split_address(key)
    labels = key_domain.split(".")[::-1]
    known = {"s": value, "S": key, "u": user, "U": key_user, "d": domain, "D": key_domain, "%": "%"}
    known |= {str(at): label for at, label in enumerate(labels, 1) if label and at < 10}
    wanted = [found[1] for found in _PART.finditer(format_)]
    if any(not known.get(one) for one in wanted):
        return None
    return _PART.sub(lambda found: known[found[1]], format_)


# ---------------------------------------------------------------- keys and values


async def _keys(table: _Table, asked: Asked) -> dict[str, str]:
    leaves = [leaf for leaf, positive in _leaves(table.filter) if positive]
    if not leaves:
        raise InputError("its query_filter does not ask for the key")
    attributes = (
        *(leaf.attr for leaf in leaves),
        *table.results,
        *table.special,
        *table.leaf,
        *table.terminal,
    )
    attributes = tuple(dict.fromkeys(attributes))
    search = Search(table.base, table.scope, _for_any_key(table.filter), attributes)
    entries = await asked.directory.search(search)
    results = _Results(table, await _around(table, asked) if table.special else {})
    found: dict[str, str] = {}
    for key, owners in _by_key(entries, leaves, table, asked).items():
        values = results.of(owners, key)
        if values:
            found[key] = ",".join(values)
    return found


def _by_key(
    entries: Iterable[Entry], leaves: Sequence[Equality], table: _Table, asked: Asked
) -> dict[str, list[Entry]]:
    """The keys that entries are found by."""
    found: dict[str, list[Entry]] = {}
    for entry in entries:
        candidates = (key for leaf in leaves for key in _candidates(entry, leaf, asked.domains))
        for key in dict.fromkeys(candidates):
            is_asked = not table.domains or split_address(key)[1] in table.domains
            if is_asked and matcher(_for_key(table.filter, key))(entry):
                found.setdefault(key, []).append(entry)
    return found


def _candidates(entry: Entry, leaf: Equality, domains: Sequence[str]) -> Iterator[str]:
    """The keys that one part of the filter may find an entry by."""
    pattern = _pattern(leaf.value)
    for value in entry.values(leaf.attr):
        match = pattern.fullmatch(value.casefold())
        if match is None:
            continue
        parts = match.groupdict()
        if "s" in parts:
            yield parts["s"]
        elif "u" in parts and "d" in parts:
            yield f"{parts['u']}@{parts['d']}"
        elif "u" in parts:
            yield parts["u"]
            yield from (f"{parts['u']}@{domain}" for domain in domains)
        elif "d" in parts:
            yield f"@{parts['d']}"


def _pattern(value: str) -> re.Pattern[str]:
    """What a value of the filter looks like with a key in it."""
    seen: set[str] = set()

    def part(found: re.Match[str]) -> str:
        name = found[1].lower()
        if name == "%":
            return "%"
        if name in seen or name not in ("s", "u", "d"):
            return ".+"
        seen.add(name)
        return f"(?P<{name}>.+)"

    pieces = re.split("(%.)", value.casefold())
    return re.compile("".join(_PART.sub(part, one) if one[:1] == "%" else re.escape(one) for one in pieces))


async def _around(table: _Table, asked: Asked) -> dict[str, Entry]:
    """The entries that DNs in a special_result_attribute may lead to."""
    names = tuple(dict.fromkeys((*table.results, *table.leaf, *table.terminal, *table.special)))
    search = Search(asked.search_base, Scope.SUB, Or(tuple(map(Present, names))), names)
    return {entry.key: entry for entry in await asked.directory.search(search)}


class _Results:
    """dict_ldap_get_values: what a query yields, DNs followed."""

    def __init__(self, table: _Table, around: Mapping[str, Entry]) -> None:
        self._table = table
        self._around = around
        self._made = 0

    def of(self, entries: Iterable[Entry], key: str) -> list[str]:
        """The results for a key; none where it has more than expansion_limit, which is a failure there."""
        values: list[str] = []
        limit = self._table.expansion_limit or _VALUES
        for text in self._values(entries, key, 1, set()):
            values.append(text)
            if len(values) > limit:
                return []
        self._made += len(values)
        if self._made > _VALUES:
            raise InputError(f"it has more than {_VALUES:,} results")
        return values

    def _values(self, entries: Iterable[Entry], key: str, depth: int, around: set[str]) -> Iterator[str]:
        table = self._table
        for entry in entries:
            if entry.key in around:
                continue  # what follows would come again, until a limit makes it a failure
            is_terminal = any(map(entry.values, table.terminal))
            is_leaf = not any(map(entry.values, table.special))
            names = table.terminal if is_terminal else (*table.results, *(table.leaf if is_leaf else ()))
            values = (value for name in dict.fromkeys(names) for value in entry.values(name))
            for value in values:
                if (text := _expanded(table.format, value, key)) is not None:
                    yield text
            if not is_terminal and depth < min(table.recursion_limit, 100):
                yield from self._values(self._behind(entry), key, depth + 1, around | {entry.key})

    def _behind(self, entry: Entry) -> Iterator[Entry]:
        """The entries that the DNs of a special_result_attribute name."""
        for name in self._table.special:
            if any(other.startswith(f"{name.lower()};range=") for other, _ in entry.items()):
                raise InputError(f"{entry.dn} has more values of {name} than the server shows at once")
            for value in entry.values(name):
                if value[:5].lower() == "ldap:":
                    raise InputError(f"{entry.dn} has a URL in {name}")
                if (found := self._around.get(key_of_dn(value))) is not None:
                    yield found
