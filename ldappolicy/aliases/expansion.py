"""Where mail for an address goes by virtual_alias_maps and alias_maps: cleanup(8) and local(8), without them.

The order of keys is mail_addr_find(3)'s, the expansion of a virtual alias cleanup_map1n(3)'s with its two
limits, that of a local alias local(8)'s with its 100 levels, `:include:` and `owner-` included. Tables are
given as what they hold (`listing`).

What is reached on the way counts as well: an alias of a list leads to the list, whatever that expands to.

BUGS: canonical_maps, transport_maps, .forward files and what a command or a file does are not followed.
"""

import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ldappolicy.address import quoted, split_address, without_extension
from ldappolicy.errors import InputError
from ldappolicy.main_cf import read_text
from ldappolicy.rewriting import addresses_in, completed

LEVELS = 100
"""Of recursion in local(8): each alias takes four, each file one more."""

FORWARDED = 1_000
"""Addresses that one delivery is forwarded to in turn: Postfix breaks such loops by Delivered-To alone."""

INCLUDE = ":include:"


@dataclass(frozen=True, slots=True)
class Alias:
    """One line of a table: the key, its value, FILE:LINE and the parameter that names the table."""

    key: str
    value: str
    where: str
    parameter: str


Aliases = Mapping[str, Alias]
"""By folded key; where several tables have it, the first counts."""


@dataclass(frozen=True, slots=True)
class Reached:
    """The addresses that mail comes by, the first one left out; `problem`: why Postfix does not accept it."""

    addresses: tuple[str, ...] = ()
    problem: str = ""


@dataclass(frozen=True)
class MailSystem:
    """What decides about the way of a message; `destinations` are the folded domains of mydestination."""

    virtual: Aliases
    local: Aliases
    destinations: frozenset[str] = frozenset()
    myorigin: str = ""
    completes: str = ""
    """mydomain where append_dot_mydomain is on."""
    delimiter: str = ""
    propagates: frozenset[str] = frozenset(("canonical", "virtual"))
    recursion_limit: int = 1_000
    expansion_limit: int = 1_000
    unread: dict[str, str] = field(default_factory=dict)
    """The `:include:` files that could not be read, and why."""
    _files: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def is_local(self, domain: str) -> bool:
        """Whether local(8) delivers it."""
        return domain.casefold() in self.destinations

    def addresses(self, text: str) -> list[str]:
        """The addresses of a value, in the form that trivial-rewrite(8) gives them."""
        return [completed(address, self.myorigin, self.completes) for address in addresses_in(text)]

    def included(self, path: str) -> tuple[str, ...]:
        """The lines of an `:include:` file; none where local(8) would not read it."""
        if path not in self._files:
            self._files[path] = self._read(path)
        return self._files[path]

    def _read(self, path: str) -> tuple[str, ...]:
        try:
            if not path.startswith("/"):
                raise InputError(f"{path}: is a relative path")
            text = read_text(Path(path))
            if Path(path).stat().st_mode & stat.S_IWOTH:
                raise InputError(f"{path}: everybody may write it")
        except (InputError, OSError) as problem:
            self.unread[path] = str(problem)
            return ()
        return tuple(line for line in text.split("\n") if not line.startswith("#"))

    def finals(self, address: str) -> list[str]:
        """The addresses that cleanup(8) writes the message for; none where it does not accept it."""
        return _Expansion(self).run(address)

    def reached_from(self, address: str) -> Reached:
        """Where mail for an address, in internal form, comes by."""
        found: dict[str, None] = {}
        waiting, seen = [address], set[str]()
        while waiting and len(seen) < FORWARDED:
            one = waiting.pop()
            if one.casefold() in seen:
                continue
            seen.add(one.casefold())
            expansion = _Expansion(self)
            finals = expansion.run(one)
            if expansion.problem and one == address:
                return Reached(problem=expansion.problem)
            found |= expansion.met
            for final in finals:
                if self.is_local(split_address(final)[1]):
                    delivery = _Delivery(self)
                    delivery.recipient(final, 0, "", is_indirect=False)
                    found |= delivery.met
                    waiting += delivery.forwarded
        found.pop(address, None)
        return Reached(tuple(found))


# ---------------------------------------------------------------- cleanup(8)


def _find(system: MailSystem, address: str) -> tuple[Alias | None, str]:
    """mail_addr_find(3): what the address has in the virtual tables, and its extension, if that is left."""
    bare = without_extension(address, system.delimiter)
    forms = [(address, "")]
    if bare is not None:
        forms.append((bare, split_address(address)[0][len(split_address(bare)[0]) :]))
    for form, extension in forms:
        if alias := _get(system.virtual, quoted(form), form):
            return alias, extension
    domain = split_address(address)[1].casefold()
    if domain == system.myorigin.casefold() or system.is_local(domain):
        for form, extension in forms:
            local = split_address(form)[0]
            if alias := _get(system.virtual, quoted(f"{local}@")[:-1], local):
                return alias, extension
    return system.virtual.get(f"@{domain}"), ""


def _get(aliases: Aliases, *keys: str) -> Alias | None:
    return next((found for key in keys if (found := aliases.get(key.casefold()))), None)


def _mapped(system: MailSystem, address: str) -> list[str] | None:
    """mail_addr_map(3): what the address is replaced with; None: it stays as it is."""
    alias, extension = _find(system, address)
    if alias is None:
        return None
    text = alias.value.strip()
    if text.startswith("@"):
        local = split_address(address)[0]
        text = quoted(f"{local.removesuffix(extension) if extension else local}{text}")
    extension = extension if "virtual" in system.propagates else ""
    return [_extended(one, extension) for one in system.addresses(text)]


def _extended(address: str, extension: str) -> str:
    local, domain = split_address(address)
    return f"{local}{extension}@{domain}" if domain else address + extension


class _Expansion:
    """cleanup_map1n(3): `run`, then `met` and `problem`."""

    def __init__(self, system: MailSystem) -> None:
        self._system = system
        self.met: dict[str, None] = {}
        self.problem = ""

    def run(self, address: str) -> list[str]:
        """The addresses that the message is written for; nothing where it is not accepted."""
        addresses, been_here = [address], set[str]()
        at = 0
        while at < len(addresses):
            if len(addresses) > self._system.expansion_limit:
                return self._refused("virtual_alias_expansion_limit", self._system.expansion_limit)
            if not self._replace(addresses, at, been_here):
                return []
            at += 1
        return addresses

    def _replace(self, addresses: list[str], at: int, been_here: set[str]) -> bool:
        """The address at a place by its first result, again and again; whether that comes to an end."""
        for _ in range(self._system.recursion_limit):
            before = addresses[at]
            if before.casefold() in been_here:
                return True
            results = _mapped(self._system, before)
            if not results:
                return True
            self.met |= dict.fromkeys(results)
            addresses[at] = results[0]
            addresses += results[1:]
            if before.casefold() in map(str.casefold, results):
                been_here.add(before.casefold())
        self._refused("virtual_alias_recursion_limit", self._system.recursion_limit)
        return False

    def _refused(self, limit: str, value: int) -> list[str]:
        self.problem = f"it expands past {limit}, {value}: Postfix does not accept mail for it"
        self.met = {}
        return []


# ---------------------------------------------------------------- local(8)


class _Delivery:
    """One delivery of local(8): `recipient`, then `met` and what is `forwarded`, through cleanup(8) again."""

    def __init__(self, system: MailSystem) -> None:
        self._system = system
        self._seen: set[tuple[int, str]] = set()
        self._included: set[str] = set()
        self.met: dict[str, None] = {}
        self.forwarded: list[str] = []

    def recipient(self, address: str, level: int, expanded_from: str, *, is_indirect: bool) -> None:
        """deliver_recipient and deliver_switch: the alias of the whole local part, then of the user."""
        level += 1
        if level > LEVELS or (level, address) in self._seen:
            return
        self._seen.add((level, address))
        bare = without_extension(address, self._system.delimiter)
        for form in (address,) if bare is None else (address, bare):
            name = split_address(form)[0].casefold()
            extension = split_address(address)[0][len(name) :] if "alias" in self._system.propagates else ""
            if self._alias(name, level + 1, expanded_from, extension, is_indirect=is_indirect):
                return
        if is_indirect:
            self.forwarded.append(address)

    def _alias(self, name: str, level: int, expanded_from: str, extension: str, *, is_indirect: bool) -> bool:
        """deliver_alias: whether there is one, and it was followed. One in itself means the user."""
        level += 1
        aliases = self._system.local
        alias = None if name == expanded_from else _get(aliases, quoted(f"{name}@")[:-1], name)
        if alias is None:
            return False
        if level <= LEVELS:
            is_indirect = is_indirect or f"owner-{name}" in aliases
            self._texts(alias.value, level, name, extension, is_indirect=is_indirect)
        return True

    def _texts(self, text: str, level: int, expanded_from: str, extension: str, *, is_indirect: bool) -> None:
        """deliver_token: addresses and files; what a command or a mailbox file gets is the end of it."""
        for token in addresses_in(text):
            if token.lower().startswith(INCLUDE):
                self._include(token[len(INCLUDE) :], level, expanded_from)
            elif not token.startswith(("/", "~", "|")):
                address = completed(token, self._system.myorigin, self._system.completes)
                self._resolve(_extended(address, extension), level, expanded_from, is_indirect=is_indirect)

    def _include(self, path: str, level: int, expanded_from: str) -> None:
        """deliver_include: each file once; local users in it are forwarded to."""
        level += 1
        if level <= LEVELS and path not in self._included:
            self._included.add(path)
            for line in self._system.included(path):
                self._texts(line, level, expanded_from, "", is_indirect=True)

    def _resolve(self, address: str, level: int, expanded_from: str, *, is_indirect: bool) -> None:
        """deliver_resolve_tree: in here while it is local, else through cleanup(8)."""
        level += 1
        if not self._system.is_local(split_address(address)[1]):
            self.met[address] = None
            self.forwarded.append(address)
        elif level < LEVELS:
            self.met[address] = None
            self.recipient(address, level, expanded_from, is_indirect=is_indirect)


def starts(alias: Alias, system: MailSystem) -> Iterator[str]:
    """The addresses that a key is found for, where they can be listed: not those of `@domain`."""
    local, domain = split_address(alias.key)
    if local and domain:
        yield alias.key
    elif not domain:
        domains = {*system.destinations, *([system.myorigin.casefold()] if system.myorigin else [])}
        if alias.parameter == "alias_maps":
            domains = set(system.destinations)
        yield from (f"{alias.key}@{one}" for one in sorted(domains))
