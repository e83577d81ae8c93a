"""The kept corpus of every target, some examples more, how costs grow, and that the fuzzer finds faults.

With every run: the corpus, a few examples of each target, and faults that are planted.
"""

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.mutation import Finding, failure, fuzz, growth_fault, octets_held
from tests.fuzz.target import Growth, Target
from tests.fuzz.targets import CORPUS, TARGETS, WORDS, seeds, words

every_target = pytest.mark.parametrize("target", TARGETS.values(), ids=list(TARGETS))


@every_target
def test_what_is_kept(target: Target) -> None:
    """Every file of the corpus holds what the target checks."""
    kept = seeds(target.name)
    assert len(kept) >= 3
    assert dict.fromkeys(kept, "") == {name: failure(target, data) for name, data in kept.items()}


def test_nothing_is_kept_for_nobody() -> None:
    """Corpus and words are those of the targets."""
    assert set(TARGETS) == {path.name for path in CORPUS.iterdir()} == {path.name for path in WORDS.iterdir()}


def inputs(name: str) -> st.SearchStrategy[bytes]:
    """Pieces of the corpus, words and any bytes, one behind another."""
    corpus = list(seeds(name).values())
    cut = st.tuples(st.sampled_from(corpus), st.integers(0, 200), st.integers(0, 200)).map(
        lambda drawn: drawn[0][drawn[1] : drawn[1] + drawn[2]]
    )
    piece = st.sampled_from(words(name)) | cut | st.sampled_from(corpus) | st.binary(max_size=8)
    return st.lists(piece, max_size=6).map(b"".join)


@pytest.mark.parametrize(
    "count", [pytest.param(20, marks=pytest.mark.servers), pytest.param(200, marks=pytest.mark.long)]
)
@every_target
def test_examples(target: Target, count: int) -> None:
    """Always the same ones: chance finds new ones in `make fuzz`, where nothing else waits for it."""
    checks = list(HealthCheck)
    most = min(count, 100) if target.name in ("remembered", "snapshot") else count

    @settings(max_examples=most, derandomize=True, database=None, suppress_health_check=checks)
    @given(inputs(target.name))
    def check(data: bytes) -> None:
        target.run(data)

    check()


def growths() -> Iterator[object]:
    """Every growth with the target that it belongs to."""
    for target in TARGETS.values():
        for number, growth in enumerate(target.growths):
            yield pytest.param(target, growth, id=f"{target.name}-{number}")


every_growth = pytest.mark.parametrize(("target", "growth"), list(growths()))


@pytest.mark.long
@every_growth
def test_growth(target: Target, growth: Growth) -> None:
    """Twice the size takes about twice the time, whatever it is that is repeated."""
    assert growth_fault(target, growth) == ""


@pytest.mark.long
@every_growth
def test_memory(target: Target, growth: Growth) -> None:
    """No byte of input takes more than a thousand of memory; what grows with the square would here."""
    assert octets_held(target, growth, 8192) < 1000


# ---------------------------------------------------------------- the fuzzer itself


def planted(data: bytes) -> str:
    """A reader with three faults: an exception, a property, and one input that takes for ever."""
    if b"<<" in data:
        raise KeyError(data)
    if data.count(b"a") > 3:
        assert data.startswith(b"a"), data
    if data.startswith(b"loop"):
        while True:
            pass
    return str(len(data) % 7)


PLANTED = Target("planted", planted)


@pytest.mark.servers
def test_planted_faults_are_found() -> None:
    """Each is found once and made small; what the package declares is none."""
    found = fuzz(PLANTED, [b"", b"text <x> of nothing"], [b"<", b"a"], 1, lambda made: made < 2000).findings
    by_fault = {finding.fault: finding.data for finding in found}
    assert b"<<" == by_fault["KeyError in test_fuzz.py:planted"]
    [other] = [data for fault, data in by_fault.items() if fault.startswith("AssertionError")]
    assert sorted(other[-4:]) == sorted(b"aaaa") or other.count(b"a") == 4


def test_an_input_without_an_end_is_found() -> None:
    """It is ended, and told."""
    assert failure(PLANTED, b"loop", patience=0.1) == "TooSlow in test_fuzz.py:planted"


def test_one_seed_makes_one_run() -> None:
    """What a seed has found it finds again."""
    runs = [fuzz(PLANTED, [b"x<x"], [b"<"], seed, lambda made: made < 500).findings for seed in (7, 7)]
    assert runs[0] == runs[1] == (Finding("planted", "KeyError in test_fuzz.py:planted", b"<<"),)


class Steps:
    """A clock that goes by the steps of a target, and no machine disturbs."""

    taken = 0.0

    def __call__(self) -> float:
        return self.taken / 1_000_000

    def quadratic(self, data: bytes) -> str:
        """Takes as many as the square of the size has."""
        self.taken += len(data) ** 2
        return ""


def test_a_square_is_found() -> None:
    """Growth is told from what is linear."""
    unit: Growth = (b"", b"x", b"")
    steps = Steps()
    square = growth_fault(Target("square", steps.quadratic), unit, steps)
    assert square == "time grows with the power 2.0 of the size"
    assert growth_fault(Target("line", lambda data: str(list(data))), unit) == ""
