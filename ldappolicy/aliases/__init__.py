"""Ways in by aliases: keys of virtual_alias_maps and alias_maps that lead to an address with a rule, past it.

smtpd(8) asks about the recipient as the client names it. An alias of a protected list that has no rule of its
own is delivered to the list all the same: virtual(5), aliases(5).

`listing` says what the tables hold, `expansion` where mail for an address comes by, `rules` which rule the
policy has for an address. Found here is each key whose address has none, while one that it leads to has.

BUGS: of a key `@domain` those local parts are tried that some address with a rule has. Which addresses have
one is told by the entries that carry it; where a group, a member or a URL does, by all of a domain.
"""

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ldappolicy.address import split_address, unquoted
from ldappolicy.aliases.expansion import INCLUDE, Alias, MailSystem, Reached, starts
from ldappolicy.aliases.ldap_table import Asked
from ldappolicy.aliases.listing import LOCAL, VIRTUAL, default_aliases, listing
from ldappolicy.aliases.rules import RecipientRules, Rule
from ldappolicy.directory import Directory, Scope, Search
from ldappolicy.ldap_filter import And, Or, Present
from ldappolicy.main_cf import MainCf
from ldappolicy.mapping import Mapping as AttributeMapping
from ldappolicy.policy import Fault, Policy, PolicySet
from ldappolicy.resolver import Resolver

ANYBODY = "ldappolicy-lint"
"""A local part that nobody has: what holds for it holds for a whole domain."""

MOST_TRIED = 50_000
"""Addresses that one key `@domain` is tried with."""


@dataclass(frozen=True, slots=True)
class Around:
    """Whom rules and tables are asked of."""

    policies: PolicySet
    directory: Directory
    resolver: Resolver
    mapping: AttributeMapping
    search_base: str


async def ways_in(
    main: MainCf,
    called: Sequence[Policy],
    around: Around,
    destinations: frozenset[str],
    domains: Iterable[str],
) -> tuple[Fault, ...]:
    """Each key that leads past a rule of a policy that is called; what could not be looked at.

    `destinations` are the folded names of mydestination, `domains` all of the mail system.
    Raises Unavailable.
    """
    asked = Asked(around.directory, around.search_base, tuple(domains))
    virtual = await listing(main, VIRTUAL, main.get(VIRTUAL), asked)
    local = await listing(main, LOCAL, default_aliases(main) if destinations else "", asked)
    system = _system(main, virtual.aliases, local.aliases, destinations)
    faults = [*virtual.faults, *local.faults]
    for policy in called:
        ways = _Ways(system, RecipientRules(policy, around.policies, around.mapping, around.resolver), around)
        faults += await ways.faults()
    unread = (f"{INCLUDE}{problem}: where it leads is not looked at" for problem in system.unread.values())
    faults += [Fault(False, main.where(LOCAL), LOCAL, text) for text in unread]
    return tuple(dict.fromkeys(faults))


def _system(
    main: MainCf, virtual: Mapping[str, Alias], local: Mapping[str, Alias], destinations: frozenset[str]
) -> MailSystem:
    """The mail system of a main.cf; what it cannot say has Postfix's default."""
    transport = main.get("local_transport")
    is_ours = not transport or transport.partition(":")[0] == "local"
    origin = main.get("myorigin")
    completes = main.get("append_dot_mydomain").strip().lower() == "yes"
    spread = main.get("propagate_unmatched_extensions").replace(",", " ").split()
    return MailSystem(
        virtual,
        local if is_ours else {},
        destinations,
        "" if origin.startswith("/") else origin,
        main.get("mydomain") if completes else "",
        main.get("recipient_delimiter"),
        frozenset(map(str.lower, spread)),
        _limit(main, "virtual_alias_recursion_limit"),
        _limit(main, "virtual_alias_expansion_limit"),
    )


def _limit(main: MainCf, name: str) -> int:
    text = main.get(name)
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 1_000


class _Ways:
    """The keys that lead past one policy's rules."""

    def __init__(self, system: MailSystem, rules: RecipientRules, around: Around) -> None:
        self._system = system
        self._rules = rules
        self._around = around
        self._reached: dict[str, Reached] = {}

    async def faults(self) -> list[Fault]:
        """All of them, those of keys `@domain` behind the others."""
        if not self._rules.items:
            return []
        aliases = [*self._system.virtual.values(), *self._system.local.values()]
        tried = [(alias, list(map(unquoted, starts(alias, self._system)))) for alias in aliases]
        found = [fault async for fault in self._led(tried)]
        catching = [alias for alias in self._system.virtual.values() if alias.key.startswith("@")]
        if not catching:
            return found
        locals_ = await self._local_parts(catching)
        tried = [(alias, list(self._caught(alias, locals_))) for alias in catching]
        return [*found, *[fault async for fault in self._led(tried)]]

    def _reach(self, address: str) -> Reached:
        if address not in self._reached:
            self._reached[address] = self._system.reached_from(address)
        return self._reached[address]

    async def _led(self, tried: Sequence[tuple[Alias, list[str]]]) -> AsyncIterator[Fault]:
        """A fault for each alias of which an address leads past a rule."""
        pairs = [
            (alias, address, self._reach(address)) for alias, addresses in tried for address in addresses
        ]
        rules = await self._rules.of(target for *_, reached in pairs for target in reached.addresses)
        guarded = {
            (alias.where, alias.key, address)
            for alias, address, reached in pairs
            if any(rules[target] for target in reached.addresses)
        }
        rules = await self._rules.of(address for *_, address in guarded)
        told: set[tuple[str, str]] = set()
        for alias, address, reached in pairs:
            place = (alias.where, alias.key)
            if reached.problem and place not in told:
                told.add(place)
                yield Fault(False, alias.where, alias.parameter, f"{alias.key!r}: {reached.problem}")
            elif (*place, address) in guarded and not rules[address] and place not in told:
                told.add(place)
                target = next(one for one in reached.addresses if rules[one])
                yield Fault(True, alias.where, alias.parameter, _told(alias, address, target, rules[target]))

    # ------------------------------------------------------------ keys of whole domains

    def _caught(self, alias: Alias, locals_: Mapping[str, Sequence[str]]) -> Iterator[str]:
        """The addresses that such a key is tried with."""
        domain = alias.key[1:]
        parts = [ANYBODY, *(part for one in self._domains_behind(alias) for part in locals_.get(one, ()))]
        for part in list(dict.fromkeys(parts))[:MOST_TRIED]:
            if f"{part}@{domain}".casefold() not in self._system.virtual:
                yield f"{part}@{domain}"

    def _domains_behind(self, alias: Alias) -> list[str]:
        """The domains that `@domain` leads to with its local part kept."""
        found: dict[str, None] = {}
        waiting = [alias]
        while waiting:
            first = waiting.pop().value.strip()
            domain = first[1:].partition(",")[0].strip().casefold() if first.startswith("@") else ""
            if domain and domain not in found:
                found[domain] = None
                behind = self._system.virtual.get(f"@{domain}")
                waiting += [behind] if behind is not None else []
        return list(found)

    async def _local_parts(self, catching: Iterable[Alias]) -> Mapping[str, Sequence[str]]:
        """By domain: the local parts of addresses that may have a rule, or lead to one that has."""
        domains = {domain for alias in catching for domain in self._domains_behind(alias)}
        named = [key for table in self._rules.tables() for part in table.parts for key in part.lines]
        known = await self._rules.of(())
        named += [address for address, rule in known.items() if rule is not None]
        named += [address for address, reached in self._reached.items() if reached.addresses]
        named += await self._carrying(domains)
        found: dict[str, dict[str, None]] = {domain: {} for domain in domains}
        for address in named:
            local, domain = split_address(address)
            for one in [domain] if domain else domains:
                if local and one in found:
                    found[one][local] = None
        return {domain: tuple(parts) for domain, parts in found.items()}

    async def _carrying(self, domains: set[str]) -> list[str]:
        """The addresses in some domains of entries that a rule may be about."""
        mapping, directory, base = self._around.mapping, self._around.directory, self._around.search_base
        addressed = Or(tuple(map(Present, mapping.mail)))
        own = Or(tuple(map(Present, (*mapping.recipient_access, *mapping.delivery_restrictions))))
        by_group = Or(tuple(map(Present, mapping.member_recipient_access)))
        is_wide = any(part.members or part.urls for table in self._rules.tables() for part in table.parts)
        if not is_wide:
            is_wide = bool(await directory.search(Search(base, Scope.SUB, by_group, ("1.1",))))
        wanted = addressed if is_wide else And((addressed, own))
        entries = await directory.search(Search(base, Scope.SUB, wanted, mapping.mail))
        addresses = (address for entry in entries for address in mapping.addresses_of(entry))
        return [address for address in addresses if split_address(address)[1] in domains]


def _told(alias: Alias, address: str, target: str, rule: Rule | None) -> str:
    way = "" if address == alias.key else f", as {address!r},"
    source = rule.source if rule is not None else ""
    return f"{alias.key!r} leads{way} to {target!r}, which has a rule ({source}), and has none itself"
