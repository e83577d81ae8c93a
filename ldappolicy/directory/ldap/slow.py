"""Searches that take long, as for an attribute without an index: counted, and told once of each kind.

A kind is a base and the attributes of the filter: what is asked for changes with each request, and what has
to be indexed does not. Searches for one entry by its DN are one kind for each set of attributes.
"""

import logging

from ldappolicy.counters import Tally
from ldappolicy.directory import Scope, Search
from ldappolicy.ldap_filter import attributes_in

SLOW_S = 0.1
"""Seconds from which a search is slow: an index is looked up in less than one hundredth of that."""
MAX_KINDS = 100
"""Kinds that are told of: policies name a few bases, and clients name none."""

log = logging.getLogger(__name__)


class SlowSearches:
    """Counts in `tally`, and remembers what was told."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._told: set[tuple[str, tuple[str, ...]]] = set()

    def note(self, search: Search, seconds: float) -> None:
        """One more that took so long."""
        self._tally.add()
        base = "" if search.scope == Scope.BASE else search.base
        kind = base, tuple(sorted(set(attributes_in(search.filter))))
        if kind in self._told or len(self._told) >= MAX_KINDS:
            return
        self._told.add(kind)
        where = f"at {base!r}" if base else "for single entries"
        names = ", ".join(kind[1]) or "no attribute"
        log.warning(
            "slow search, %.0f ms, %s by %s: are they indexed? Not told again", 1000 * seconds, where, names
        )
