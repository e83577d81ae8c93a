"""mynetworks, myorigin and the domains of a mail system, as a policy says them.

Pattern lists are match_list(3)'s: `/file` is read, `!` excludes, `type:table` is replaced with its keys.
mynetworks is matched by name (a pattern covers subdomains) and by address, mydestination and the virtual
domains by the domain itself, relay_domains by parents as parent_domain_matches_subdomains says.

Half of mynetworks, or half of the local domains, would permit what Postfix refuses, or the reverse: what
cannot be carried whole raises LeftOut, and the restrictions that need it stay Postfix's.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ldappolicy.action import split_list
from ldappolicy.address import is_hostname
from ldappolicy.errors import InputError
from ldappolicy.importing.sources import INDEXED, LeftOut, Notes, Source, cidr_rules, pairs, source_of
from ldappolicy.main_cf import SPACE, MainCf, read_text
from ldappolicy.network import parse_client_address, parse_pattern
from ldappolicy.policy import parse_inline

_DEPTH = 5  # of files in files; Postfix does not notice that a file names itself

EXACT_DOMAINS = ("mydestination", "virtual_alias_domains", "virtual_mailbox_domains")
"""Parameters of domains that are compared as they stand; relay_domains is the other one."""


@dataclass(frozen=True, slots=True)
class Member:
    """One pattern: its text without `!`, and where it stands."""

    excludes: bool
    text: str
    where: str

    @property
    def is_table(self) -> bool:
        """MATCH_DICTIONARY of match_list.h."""
        return not self.text.startswith("[") and ":" in self.text


def known(main: MainCf, name: str) -> str:
    """The value; raises LeftOut where it needs what only the host knows."""
    lacking = main.lacking(name)
    if lacking:
        if name in lacking:
            raise LeftOut(main.where(name), f"{name} is not set: only the host knows it, and Postfix there")
        needed = ", ".join(lacking)
        raise LeftOut(main.where(name), f"{name} needs {needed}, which is not set: only the host knows it")
    return main.get(name)


def parents_match(main: MainCf, name: str) -> bool:
    """Whether parent_domain_matches_subdomains names that list."""
    value = known(main, "parent_domain_matches_subdomains")
    return any(name == token.casefold() for token in _tokens(value, main.where(name)))


def _tokens(value: str, where: str) -> tuple[str, ...]:
    try:
        return split_list(value)
    except InputError as problem:
        raise LeftOut(where, str(problem)) from None


def members(main: MainCf, name: str) -> Iterator[Member]:
    """The patterns of a list, files read."""
    return members_of(known(main, name), main.where(name))


def members_of(value: str, where: str) -> Iterator[Member]:
    """The same of a text that stands there; raises LeftOut where it comes to what cannot be read."""
    return _members(value, where, False, 0)


def _members(value: str, where: str, excludes: bool, depth: int) -> Iterator[Member]:
    for token in _tokens(value, where):
        text = token.lstrip("!")
        inverted = excludes != ((len(token) - len(text)) % 2 == 1)
        if not text:
            raise LeftOut(where, f"no pattern after {token!r}")
        if not text.startswith("/"):
            yield Member(inverted, text, where)
            continue
        if depth >= _DEPTH:
            raise LeftOut(where, f"{text!r} is read from {_DEPTH} files within one another")
        try:
            content = read_text(Path(text))
        except InputError as problem:
            raise LeftOut(where, str(problem)) from None
        for place, line in _lines(content, text):
            yield from _members(line, place, inverted, depth + 1)


def _lines(content: str, path: str) -> Iterator[tuple[str, str]]:
    """The lines of a `/file` that hold patterns, and where they stand.

    match_list(3) reads physical lines in some versions and logical ones in others: where that makes a
    difference, raises LeftOut.
    """
    begun = False
    for number, line in enumerate(content.split("\n"), 1):
        said = line.strip(SPACE)
        if not said or line.startswith("#"):
            continue
        if line[0] in SPACE and (said.startswith("#") or not begun):
            raise LeftOut(
                f"{path}:{number}", "begins with white space: versions of Postfix read it differently"
            )
        begun = True
        yield f"{path}:{number}", line


# ---------------------------------------------------------------- mynetworks


def mynetworks(main: MainCf, notes: Notes) -> str:
    """smtpdMynetworks; raises LeftOut."""
    subdomains = parents_match(main, "mynetworks")
    patterns: list[str] = []
    for member in members(main, "mynetworks"):
        mark = "!" if member.excludes else ""
        texts = list(_network_keys(member, notes)) if member.is_table else [member.text]
        for text in texts:
            try:
                pattern = parse_pattern(mark + text)
            except InputError as problem:
                raise LeftOut(member.where, f"mynetworks: {problem}") from None
            if pattern.network is None and not subdomains:
                what = f"mynetworks: {text!r} covers no subdomains there (parent_domain_matches_subdomains)"
                raise LeftOut(member.where, what)
            patterns.append(mark + text)
    # No attribute would leave it to Postfix; an empty list covers nobody.
    return ", ".join(patterns) or "!0.0.0.0/0"


def _network_keys(member: Member, notes: Notes) -> Iterator[str]:
    """The patterns that are the same as looking the name and the address up in a table."""
    source = source_of(member.text, member.where)
    if source.type == "cidr":
        for rule in cidr_rules(source, notes):
            yield from map(_bracketed, map(str, rule.networks))
        return
    for key in table_keys(source, notes, "mynetworks"):
        address = parse_client_address(key)
        if address is not None:
            if str(address) == key:
                yield _bracketed(key)
        elif is_hostname(key) and not key.replace(".", "").isdigit():
            yield key


def _bracketed(network: str) -> str:
    address, slash, length = network.partition("/")
    return f"[{address}]{slash}{length}" if ":" in address else network


def table_keys(source: Source, notes: Notes, name: str) -> Iterator[str]:
    """The keys of a table, folded; raises LeftOut for a table that has no list of them."""
    if source.type in INDEXED:
        yield from (key.casefold() for _, key, _ in pairs(source, notes))
        return
    if source.type != "inline":
        raise LeftOut(source.where, f"{name}: {source} cannot be carried over")
    try:
        yield from parse_inline(source.name)
    except InputError as problem:
        raise LeftOut(source.where, f"{name}: {problem}") from None


# ---------------------------------------------------------------- domains


def local_domains(main: MainCf, notes: Notes) -> list[str]:
    """The keys of the table of local domains; raises LeftOut."""
    keys: dict[str, None] = {}
    for name in EXACT_DOMAINS:
        keys |= dict.fromkeys(key for key in _domains(main, name, notes) if not key.startswith("."))
    parents = parents_match(main, "relay_domains")
    for key in _domains(main, "relay_domains", notes):
        if not parents:
            keys[key] = None
        elif not key.startswith("."):
            keys |= {key: None, f".{key}": None}
    return list(keys)


def _domains(main: MainCf, name: str, notes: Notes) -> Iterator[str]:
    for member in members(main, name):
        if member.excludes:
            raise LeftOut(member.where, f"{name}: {'!' + member.text!r} cannot be said in a table")
        source = source_of(member.text, member.where)
        keys = table_keys(source, notes, name) if member.is_table else iter((member.text.casefold(),))
        yield from (key for key in keys if _is_domain(key))


def _is_domain(key: str) -> bool:
    """Whether it can be equal to a domain; what else a table of users holds is no key of domains."""
    return key.isprintable() and set('@" ').isdisjoint(key)


def myorigin(main: MainCf) -> str:
    """smtpdMyorigin, `/file` (Debian) read; raises LeftOut."""
    value = known(main, "myorigin")
    if not value.startswith("/"):
        return value
    try:
        content = read_text(Path(value))
    except InputError as problem:
        raise LeftOut(main.where("myorigin"), f"myorigin: {problem}") from None
    return content.split("\n")[0].strip()
