"""The source texts of Postfix's tables: postmap(1), texthash, cidr_table(5), match_list(3) files.

What Postfix warns of and ignores is warned of and ignored here. A table that Postfix would not open, or
that cannot be said as lines of a smtpdAccessTable, raises `LeftOut`: never a half of it.

`if` blocks of cidr tables are flattened: what stands inside is cut with the networks of the block.
"""

import ipaddress
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path

from ldappolicy import vocabulary
from ldappolicy.action import parse_action, split_list
from ldappolicy.errors import InputError
from ldappolicy.main_cf import SPACE, is_utf8, logical_lines, read_text
from ldappolicy.network import Network, parse_network
from ldappolicy.policy import parse_line

INDEXED = frozenset(("hash", "btree", "lmdb", "dbm", "cdb", "sdbm", "texthash"))
"""Tables that postmap(1) makes of a text, and the text itself."""


class LeftOut(Exception):
    """Something that cannot be carried: where, and why."""

    def __init__(self, where: str, text: str) -> None:
        super().__init__(f"{where}: {text}")
        self.where = where
        self.text = text


@dataclass(slots=True)
class Notes:
    """What is left out (where, text), and what Postfix would warn of as well.

    `no_utf8` is what main.cf says of smtputf8_enable, without which Postfix takes lines that are not UTF-8.
    """

    left_out: list[tuple[str, str]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    no_utf8: str = ""


@dataclass(frozen=True, slots=True)
class Source:
    """A table as main.cf names it: type and name without `proxy:`, and where it is named."""

    type: str
    name: str
    where: str

    def __str__(self) -> str:
        return f"{self.type}:{self.name}"


def source_of(token: str, where: str) -> Source:
    """`type:name`, `proxy:type:name`."""
    kind, _, name = token.partition(":")
    while kind == "proxy" and ":" in name:
        kind, _, name = name.partition(":")
    return Source(kind, name, where)


def lines_of(source: Source, notes: Notes) -> list[str]:
    """The smtpdAccess values of an indexed or cidr table; raises LeftOut."""
    if source.type == "cidr":
        return [
            f"{{{number}}} {network} {right_hand_side(rule.value)}"
            for number, (rule, network) in enumerate(_networks(cidr_rules(source, notes)), 1)
        ]
    values = []
    for where, key, written in pairs(source, notes):
        value = right_hand_side(written)
        text = f"{key} {value}"
        try:
            understood = parse_line(text) == (key.casefold(), parse_action(value))
        except InputError:
            understood = False
        if not understood:
            raise LeftOut(where, f"key {key!r} of {source} cannot be a line of a table in the directory")
        values.append(text)
    return values


def in_our_words(name: str) -> str:
    """A name of main.cf as the directory has it: `shadow` says something else there."""
    return f"postfix-{name}" if name.lower() == vocabulary.SHADOW else name


def names_our_word(value: str) -> bool:
    """Whether a right-hand side names what is called otherwise in the directory."""
    return any(in_our_words(token) != token for token in parse_action(value).tokens)


def right_hand_side(value: str) -> str:
    """A right-hand side as the directory has it."""
    return ", ".join(map(in_our_words, parse_action(value).tokens)) if names_our_word(value) else value


def pairs(source: Source, notes: Notes) -> Iterator[tuple[str, str, str]]:
    """Where, key and value of each line of an indexed table; the key as written."""
    path = Path(source.name)
    _warn_of_age(source, path, notes)
    seen: dict[str, str] = {}
    for number, line in _logical(path, source, notes):
        where = f"{path}:{number}"
        key, value, complaint = _split(line)
        if notes.no_utf8 and not is_utf8(line):
            raise LeftOut(where, f"{complaint}, and {notes.no_utf8}")
        if complaint:
            notes.warnings.append(f"{where}: {complaint}, Postfix ignores the line")
            continue
        earlier = seen.setdefault(key.casefold(), where)
        if earlier == where:
            yield where, key, value
        elif source.type == "texthash":
            raise LeftOut(
                where, f"key {key!r} stands at {earlier} already: Postfix does not open such a table"
            )
        else:
            notes.warnings.append(f"{where}: key {key!r} stands at {earlier} already, that one counts")


def _warn_of_age(source: Source, path: Path, notes: Notes) -> None:
    """postmap(1) makes the index; what is in it may be older than the text."""
    for index in (Path(f"{path}.db"), Path(f"{path}.lmdb"), Path(f"{path}.cdb")):
        try:
            older = source.type != "texthash" and index.stat().st_mtime < path.stat().st_mtime
        except (OSError, ValueError):
            continue
        if older:
            notes.warnings.append(
                f"{path}: is newer than {index.name}: Postfix still has what that one holds"
            )


def _logical(path: Path, source: Source, notes: Notes) -> Iterator[tuple[int, str]]:
    if not path.is_absolute():
        what = "a relative path, which Postfix reads below queue_directory"
        raise LeftOut(source.where, f"{source} has {what}, expected an absolute one")
    try:
        text = read_text(path)
    except InputError as problem:
        raise LeftOut(source.where, f"{source}: {problem}") from None
    return logical_lines(text, str(path), notes.warnings)


def _split(line: str) -> tuple[str, str, str]:
    """Key, value, and what postmap(1) complains of."""
    quoted, at = False, 0
    while at < len(line) and (quoted or line[at] not in SPACE):
        quoted ^= line[at] == '"'
        at += 2 if line[at] == "\\" else 1
    key, value = line[:at], line[at:].strip(SPACE)
    if not is_utf8(line):
        return key, value, f"{line[:30]!r} is not UTF-8"
    if quoted:
        return key, value, f"unbalanced '\"' in {line[:30]!r}"
    if not value:
        return key, value, f"{key!r} has no value, expected key, white space, value"
    return key, value, ""


# ---------------------------------------------------------------- cidr


@dataclass(frozen=True, slots=True)
class CidrRule:
    """One line: its networks, its value, and how it is written where it needs no `if` block."""

    networks: tuple[Network, ...]
    value: str
    as_written: str = ""


def cidr_rules(source: Source, notes: Notes) -> Iterator[CidrRule]:
    """The lines of a cidr table, `if` blocks resolved; raises LeftOut."""
    blocks: list[tuple[Network, ...]] = []
    for where, line in _cidr_lines(source, notes):
        word = line[: 5 if line[:5].lower() == "endif" else 2].lower()
        behind = line[len(word) :]
        try:
            if word in ("if", "endif") and not re.match("[0-9A-Za-z]", behind):
                _block(word, behind.strip(SPACE), blocks)
            else:
                yield _rule(where, line, blocks)
        except InputError as problem:
            notes.warnings.append(f"{where}: {problem}: Postfix skips the line")


def _cidr_lines(source: Source, notes: Notes) -> Iterator[tuple[str, str]]:
    """Lines of a file, or of `cidr:{{line}, ...}`, and where they stand."""
    if not source.name.startswith("{"):
        path = Path(source.name)
        yield from ((f"{path}:{number}", line) for number, line in _logical(path, source, notes))
        return
    try:
        rules = split_list(source.name[1:-1])
    except InputError as problem:
        raise LeftOut(source.where, f"{source}: {problem}") from None
    if not source.name.endswith("}") or not all(rule[0] + rule[-1] == "{}" for rule in rules):
        raise LeftOut(source.where, f"{source} is no table, expected cidr:{{{{network action}}, ...}}")
    yield from ((source.where, rule[1:-1].strip(SPACE)) for rule in rules)


def _block(word: str, pattern: str, blocks: list[tuple[Network, ...]]) -> None:
    """Enter or leave an `if` block."""
    if word == "if":
        blocks.append(_pattern(pattern)[1])
    elif pattern:
        raise InputError(f"text {pattern!r} behind 'endif'")
    elif not blocks:
        raise InputError("'endif' without 'if'")
    else:
        blocks.pop()


def _rule(where: str, line: str, blocks: list[tuple[Network, ...]]) -> CidrRule:
    marks = line[: len(line) - len(line.lstrip("!" + SPACE))]
    pattern, *rest = re.split(f"[{SPACE}]+", line[len(marks) :], maxsplit=1)
    excludes, networks = _pattern(marks + pattern)
    value = "".join(rest).strip(SPACE)
    if not value:
        raise InputError(f"{pattern!r} has no value")
    if not is_utf8(value):
        raise LeftOut(where, f"{value[:30]!r} is not UTF-8")
    if blocks:
        return CidrRule(reduce(_common, blocks, networks), value)
    return CidrRule(networks, value, f"!{parse_network(pattern)}" if excludes else "")


def _pattern(text: str) -> tuple[bool, tuple[Network, ...]]:
    """`network`, `!network`: whether it is the second, and the networks that match."""
    bare = text.lstrip("!" + SPACE)
    if not bare:
        raise InputError(f"{text!r} has no network")
    network = parse_network(bare)
    if text[: len(text) - len(bare)].count("!") % 2 == 0:
        return False, (network,)
    everything = ipaddress.ip_network("0.0.0.0/0" if network.version == 4 else "::/0")
    return True, tuple(everything.address_exclude(network))  # type: ignore[arg-type]


def _common(some: tuple[Network, ...], others: tuple[Network, ...]) -> tuple[Network, ...]:
    """The addresses in both: of two networks that overlap, one holds the other."""
    return tuple(
        one if one.prefixlen >= other.prefixlen else other
        for one in some
        for other in others
        if one.version == other.version and one.overlaps(other)
    )


def _networks(rules: Iterator[CidrRule]) -> Iterator[tuple[CidrRule, str]]:
    """Each rule with each of its networks, as written where it can be."""
    for rule in rules:
        if rule.as_written:
            yield rule, rule.as_written
        else:
            yield from ((rule, str(network)) for network in rule.networks)
