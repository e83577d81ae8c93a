"""The tables of virtual_alias_maps and alias_maps as lists: every key that they hold, with its value.

Tables that postmap(1) and postalias(1) make are read from their text, `inline:` as it stands, `ldap:` is
asked of the directory (`ldap_table`). Of a table that cannot be listed it is said that nobody looked at it.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from ldappolicy.action import split_list
from ldappolicy.aliases.expansion import Alias
from ldappolicy.aliases.ldap_table import Asked, listed
from ldappolicy.errors import InputError
from ldappolicy.importing.sources import INDEXED, LeftOut, Notes, Source, pairs, source_of
from ldappolicy.main_cf import MainCf, logical_lines, read_text
from ldappolicy.policy import Fault, parse_inline

VIRTUAL, LOCAL = "virtual_alias_maps", "alias_maps"

_POSTALIAS = re.compile(r'\s*("(?:\\.|[^"\\])*"|[^":\s][^":]*?)\s*:\s*(\S.*)', re.DOTALL)


@dataclass(slots=True)
class Listing:
    """What the tables of one parameter hold, by folded key, and what of them could not be looked at."""

    aliases: dict[str, Alias] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)


async def listing(main: MainCf, parameter: str, value: str, asked: Asked) -> Listing:
    """All tables of a parameter whose expanded value that is; raises Unavailable."""
    found, where = Listing(), main.where(parameter)
    try:
        tokens = split_list(value)
    except InputError as problem:
        found.faults.append(Fault(False, where, parameter, f"{problem}: it is not looked at"))
        return found
    for token in tokens:
        source = source_of(token if ":" in token else f"{main.get('default_database_type')}:{token}", where)
        try:
            if source.type == "ldap":
                keys = await listed(main, source, asked)
                _add(found, parameter, ((source.name, key, text) for key, text in keys.items()))
            else:
                _add(found, parameter, _lines(source, parameter))
        except LeftOut as problem:
            text = f"{problem.text}: where its aliases lead is not looked at"
            found.faults.append(Fault(False, problem.where, parameter, text))
    return found


def _add(found: Listing, parameter: str, lines: Iterator[tuple[str, str, str]]) -> None:
    for where, key, value in lines:
        folded = key.casefold()
        found.aliases.setdefault(folded, Alias(folded, value, where, parameter))


def _lines(source: Source, parameter: str) -> Iterator[tuple[str, str, str]]:
    """Where, key and value; raises LeftOut, at the end for what a part of it makes unknown."""
    if source.type == "inline":
        yield from ((source.where, key, text) for key, text in _inline(source).items())
    elif source.type in INDEXED and parameter == LOCAL and source.type != "texthash":
        yield from _postalias(source)
    elif source.type in INDEXED:
        yield from pairs(source, Notes())
    else:
        raise LeftOut(source.where, f"{source} cannot be listed")


def _inline(source: Source) -> Mapping[str, str]:
    try:
        return {key: action.text for key, action in parse_inline(source.name).items()}
    except InputError as problem:
        raise LeftOut(source.where, str(problem)) from None


def _postalias(source: Source) -> Iterator[tuple[str, str, str]]:
    """aliases(5): `name: value`, other lines are ignored as postalias(1) does; the first of a name counts."""
    path = Path(source.name)
    try:
        if not path.is_absolute():
            raise InputError(f"{path}: is a relative path")
        text = read_text(path)
    except InputError as problem:
        raise LeftOut(source.where, f"{source}: {problem}") from None
    for number, line in logical_lines(text, str(path)):
        found = _POSTALIAS.match(line)
        if found is not None and set("@%,").isdisjoint(_bare(found[1])):
            yield f"{path}:{number}", found[1], found[2]


def _bare(name: str) -> str:
    """A name as far as it stands outside of quotes."""
    return "" if name.startswith('"') else name


def default_aliases(main: MainCf) -> str:
    """alias_maps as main.cf has it; where it does not say, the file that every Postfix has, if it is here."""
    if main.is_set(LOCAL):
        return main.get(LOCAL)
    with suppress(OSError):
        if Path("/etc/aliases").is_file():
            return "hash:/etc/aliases"
    return ""
