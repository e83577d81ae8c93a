"""The search for a pair that differs: hypothesis draws, runs, and shrinks what it finds.

    python -m tests.conformance [--pairs 2000] [--seed N]

prints the seed, a report, and how many differ. A pair that differs is made as small as it gets, and put
into regressions.json, which the tests run ever after.
"""

import json
import warnings
from collections.abc import Callable
from pathlib import Path

import hypothesis
from hypothesis import HealthCheck, Phase, Verbosity
from hypothesis.errors import Flaky, HypothesisWarning

from tests.conformance.generate import pairs
from tests.conformance.pairs import Pair
from tests.conformance.report import Report
from tests.conformance.runner import Outcome, Runner

REGRESSIONS = Path(__file__).parent / "regressions.json"


class Differs(AssertionError):
    """What hypothesis looks for."""


def search(
    runner: Runner,
    count: int,
    seed: int,
    report: Report,
    *,
    shrink: bool = True,
    progress: Callable[[int], None] = lambda done: None,
) -> Outcome | None:
    """Runs `count` pairs; the smallest that differs, if one does. The report has those before it.

    To make one small may take minutes; without `shrink` it is the first that was found.
    """
    found: list[Outcome] = []

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=count,
        deadline=None,
        database=None,
        report_multiple_bugs=False,
        verbosity=Verbosity.quiet,
        phases=[Phase.generate, Phase.shrink] if shrink else [Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @hypothesis.given(pairs())
    def run(pair: Pair) -> None:
        outcome = runner.run(pair)
        if not found:
            report.add(outcome)
            progress(report.pairs)
        if outcome.differs:
            found.append(outcome)
            raise Differs

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", HypothesisWarning)
            run()
    except (Differs, Flaky):
        # Also one that differed once and then no more: it is told of all the same.
        return found[-1]
    return None


def regressions() -> list[Pair]:
    """The pairs that once differed."""
    return [Pair.from_json(one) for one in json.loads(REGRESSIONS.read_text("utf-8"))]


def remember(pair: Pair) -> None:
    """Puts a pair among the regressions, once."""
    known = regressions()
    if pair not in known:
        text = json.dumps([one.to_json() for one in [*known, pair]], ensure_ascii=False, indent=1)
        REGRESSIONS.write_text(text + "\n", "utf-8")
