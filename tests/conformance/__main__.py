"""`make conformance`: many pairs, a report, and how many differ; see `search`."""

import argparse
import random
import sys
from pathlib import Path

from tests.conformance.generate import EXPECTED
from tests.conformance.report import MOST_UNSAID, Report
from tests.conformance.runner import Runner
from tests.conformance.search import regressions, remember, search


def main() -> int:
    """0: nothing differs, and the pairs were as mixed as they should be."""
    parser = argparse.ArgumentParser(prog="python -m tests.conformance", description=__doc__)
    parser.add_argument("--pairs", type=int, default=2000, help="how many (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=random.randrange(2**32), help="of an earlier run")
    parser.add_argument("--built", type=Path, help="a folder with a Postfix that is not installed")
    chosen = parser.parse_args()
    report = Report()
    print(f"seed {chosen.seed}", flush=True)
    with Runner(built=chosen.built) as runner:
        again = [outcome for outcome in map(runner.run, regressions()) if outcome.differs]
        found = search(runner, chosen.pairs, chosen.seed, report, progress=_progress)
    for outcome in [*again, *([found] if found else [])]:
        print(outcome.pair, *outcome.differs, sep="\n")
    if found:
        remember(found.pair)
    rare = report.missing(EXPECTED) if chosen.pairs >= 2000 and not found else []
    wrong = [f"too rare: {name}" for name in rare]
    if sum(report.unsaid.values()) > MOST_UNSAID * report.pairs:
        wrong.append("too many that one reply cannot say")
    print(*report.lines(), *wrong, sep="\n")
    print(f"seed {chosen.seed}: {report.pairs} pairs, {len(again) + bool(found)} differ")
    return int(bool(again or found or wrong))


def _progress(done: int) -> None:
    if sys.stderr.isatty():
        print(f"\r{done} pairs", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
