"""What is counted while the service runs: plain numbers, added to where something happens.

Nothing here knows how they are shown (see `metrics`); adding one costs an increment and no lock, since only
the event loop's thread adds. Names and labels are those of the metrics. Durations are in seconds.
"""

import re
from bisect import bisect_left
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Labels = TypeVar("Labels")

DECISION_BUCKETS = (0.00001, 0.00002, 0.00005, 0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0)
"""Upper bounds of the durations of requests that are told apart: microseconds warm, seconds in an outage."""

SEARCH_BUCKETS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
"""The same of searches."""


class Tally:
    """A number that only grows."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0

    def add(self, count: int = 1) -> None:
        """Counts."""
        self.value += count


class Family(Generic[Labels]):
    """Tallies by their labels; one is made when it is first asked for."""

    def __init__(self) -> None:
        self._tallies: dict[Labels, Tally] = {}

    def __getitem__(self, labels: Labels) -> Tally:
        tally = self._tallies.get(labels)
        if tally is None:
            tally = self._tallies[labels] = Tally()
        return tally

    def values(self) -> dict[Labels, int]:
        """Every number, by its labels."""
        return {labels: tally.value for labels, tally in self._tallies.items()}


class Durations:
    """A histogram: how many took at most as long as each bound (not cumulated; the last is beyond all)."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, seconds: float) -> None:
        """Counts one."""
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.total += seconds


@dataclass(slots=True)
class Counters:
    """All of them, for one process."""

    requests: Family[tuple[str, str]] = field(default_factory=Family)
    """By (action, policy); actions as `action_label` shortens them."""
    unknown_logins: Family[tuple[str, str]] = field(default_factory=Family)
    """By the same, those whose login belongs to nobody; they are not in `requests`."""
    request_durations: Durations = field(default_factory=lambda: Durations(DECISION_BUCKETS))
    shadow: Family[str] = field(default_factory=Family)
    """By action: what shadow mode kept from being answered."""
    searches: Family[str] = field(default_factory=Family)
    """By outcome: success, timeout, unavailable, or the name of an LDAP result code."""
    search_durations: Durations = field(default_factory=lambda: Durations(SEARCH_BUCKETS))
    cache: Family[str] = field(default_factory=Family)
    """By result: hit (a request decided from what is known), miss (one that had to ask), stale (a lookup)."""
    changes: Family[str] = field(default_factory=Family)
    """By source: the kind of change stream, or comparison, file, snapshot."""
    slow_searches: Tally = field(default_factory=Tally)
    """See `directory.ldap.slow`."""
    protocol_errors: Tally = field(default_factory=Tally)


_CODE = re.compile(r"[2-5][0-9]{2}")
_WORDS = frozenset(
    (
        *("OK", "DUNNO", "REJECT", "DEFER", "DEFER_IF_PERMIT", "DEFER_IF_REJECT"),
        *("HOLD", "DISCARD", "FILTER", "REDIRECT", "BCC", "PREPEND"),
    )
)


def action_label(action: str | None) -> str:
    """An action in one word, of which there are few: texts and names of restrictions would be without end.

    Actions by their verb or status code, the list items `reject` and `defer` as such, any other list of
    restrictions as `restrictions`; no reply at all as `none`.
    """
    if action is None:
        return "none"
    word = action.partition(" ")[0]
    if word in _WORDS or _CODE.fullmatch(word):
        return word
    return word.rstrip(",") if action in ("reject,", "defer,") else "restrictions"
