"""What came of many pairs: how they ended, what they were made of, what may differ and what did."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from tests.conformance.runner import Difference, Ending, Outcome

LEAST = 20
"""How often everything should occur in 2,000 pairs."""

MOST_UNSAID = 0.10
"""The share of pairs that one reply may not be able to say."""

ANY = "(?:HOLD|PREPEND|FILTER|REDIRECT|BCC)(?: .*?)?"

# What one reply cannot say, as the log names it, in the order of README's table; and what it is called here.
UNSAID = {
    rf"{ANY} and restrictions that are left to Postfix": "an action on the message and a residue",
    rf"{ANY} and {ANY}(?: and {ANY})*": "two actions on the message",
    rf"{ANY} and DEFER_IF_REJECT": "an action on the message and DEFER_IF_REJECT",
    "DISCARD behind restrictions that are left to Postfix": "DISCARD behind a residue",
    "restrictions that can permit in two lists that do not begin with the same ones": "permits in two lists",
    "a permit that is left to Postfix where OK is not allowed": "a permit where OK is not allowed",
    "a permit that is left to Postfix for a recipient with routing in its local part": "a permit for routing",
}


def combination(what: str) -> str:
    """The enumerated combination that a log line names; StopIteration for one that is not."""
    return next(said for row, said in UNSAID.items() if re.fullmatch(row, what))


@dataclass
class Report:
    """Counts; `add` takes each outcome once."""

    pairs: int = 0
    replies: Counter[Ending] = field(default_factory=Counter)
    endings: Counter[str] = field(default_factory=Counter)
    seen: Counter[str] = field(default_factory=Counter)
    apart: Counter[str] = field(default_factory=Counter)
    unsaid: Counter[str] = field(default_factory=Counter)
    differing: int = 0

    def add(self, outcome: Outcome) -> None:
        """One more pair."""
        self.pairs += 1
        self.seen.update(set(outcome.pair.seen))
        self.replies.update(outcome.endings)
        self.endings.update({ending.value for ending in outcome.endings})
        for why in {why for why, _ in outcome.apart if why is not Difference.CANNOT_SAY}:
            self.apart[why.value] += 1
        unsaid = {combination(what) for why, what in outcome.apart if why is Difference.CANNOT_SAY}
        self.unsaid.update(unsaid)
        if unsaid:
            self.endings["cannot be said in one reply"] += 1
        self.differing += bool(outcome.differs)

    def missing(self, expected: Iterable[str]) -> list[str]:
        """What occurred less often than it should, for so many pairs."""
        return sorted(
            f"{name}: {self.seen[name]}" for name in expected if self.seen[name] < LEAST * self.pairs / 2000
        )

    def lines(self) -> Iterator[str]:
        """The report, for people."""
        yield f"{self.pairs} pairs, {sum(self.replies.values())} replies compared"
        yield from _section("pairs in which Postfix by itself answered, at least once", self.endings)
        yield from _section("pairs that one reply cannot say, by what", self.unsaid)
        yield from _section("pairs in which a reply may differ, by why", self.apart)
        for kind in ("list", "restriction", "table", "key", "action", "with"):
            named = {
                name.partition(" ")[2]: count
                for name, count in self.seen.items()
                if name.startswith(f"{kind} ")
            }
            yield from _section(f"pairs by {kind}", Counter(named))
        yield f"{self.pairs} pairs, {self.differing} differ"


def _section(title: str, counts: Counter[str]) -> Iterator[str]:
    yield f"{title}:"
    yield from (f"  {count:6} {name}" for name, count in sorted(counts.items()))
