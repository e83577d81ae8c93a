"""How long the directory takes for each kind of lookup: one of each is asked, for what no entry has.

Without an index a server looks at all its entries, also when none of them matches, and each new sender or
recipient has to wait for that.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable

from ldappolicy import facts
from ldappolicy.directory import Directory
from ldappolicy.directory.ldap.slow import SLOW_S
from ldappolicy.directory.plan import Planner, Shared, Where
from ldappolicy.facts import Lookup
from ldappolicy.ldap_filter import attributes_in
from ldappolicy.mapping import Mapping
from ldappolicy.policy import Fault, PolicySet, Table

TRIES = 5
"""How often a slow one is asked again: a server may have been busy, or not awake."""

_NAME = "ldappolicy-probe"


async def slow_lookups(
    policies: PolicySet, directory: Directory, where: Where, mapping: Mapping
) -> list[Fault]:
    """A warning for each kind of lookup that takes long; raises Unavailable."""
    planner = Planner(where, mapping)
    faults = []
    async for what, dn, names, seconds in _timed(planner, directory, _lookups(policies, where)):
        if seconds >= SLOW_S:
            took = f"takes {1000 * seconds:.0f} ms, expected less than {1000 * SLOW_S:.0f}"
            faults.append(Fault(False, dn, names, f"a lookup {what} {took}: are these attributes indexed?"))
    return faults


def _lookups(policies: PolicySet, where: Where) -> Iterable[tuple[str, str, Lookup]]:
    """What is looked up, the DN that makes us, and the lookup."""
    address = f"{_NAME}@{min(where.domains, default='probe.invalid')}"
    base = where.search_base
    yield "by address", base, facts.mail(address)
    yield "by login", base, facts.login(_NAME)
    yield "by domain", base, facts.domain("probe.invalid")
    yield "of groups by member", base, facts.groups(f"cn={_NAME},{base}", (_NAME,))
    yield "of groups by member's address", base, facts.addressed(address)
    yield "of dynamic groups", base, facts.dynamic()
    yield "of groups with rules for members", base, facts.carrying()
    tables = (table for table in policies.tables.values() if isinstance(table, Table))
    for part in (part for table in tables for part in table.parts):
        yield from (("by smtpdAccessURL", part.dn, facts.url(url, address)) for url in part.urls)


async def _timed(
    planner: Planner, directory: Directory, lookups: Iterable[tuple[str, str, Lookup]]
) -> AsyncIterator[tuple[str, str, str, float]]:
    """What, where, by which attributes, and the seconds that it takes."""
    for what, dn, lookup in lookups:
        if planner.known_absent(lookup):
            continue
        for batch in planner.plan((lookup,), directory.features):
            if isinstance(batch, Shared):
                names = ", ".join(sorted(set(attributes_in(batch.search.filter))))
                yield what, dn, names, await _least(directory, batch)


async def _least(directory: Directory, batch: Shared) -> float:
    """The seconds that the quickest of some tries took."""
    clock, least = asyncio.get_running_loop().time, float("inf")
    for _ in range(TRIES):
        began = clock()
        await batch.ask(directory)
        least = min(least, clock() - began)
        if least < SLOW_S:
            break
    return least
