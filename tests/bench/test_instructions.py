"""A request takes no more than is committed: bytecodes and calls, which no busy machine changes.

What takes more on purpose is written anew with `make bench-instructions UPDATE=1`.
"""

import sys
from collections.abc import Callable, Sequence

import pytest

from tests.bench import instructions
from tests.bench.counting import PEOPLE, STAGES, texts
from tests.bench.instructions import VERSION, Counts, committed, counted, grown, with_perf, with_valgrind

BEFORE: Counts = {"read": {"bytecodes": 100.0, "calls": 10.0}, "warm": {"bytecodes": 50.0, "calls": 0.0}}

CASES: list[tuple[str, Counts, list[str]]] = [
    ("the same", BEFORE, []),
    ("less", {"read": {"bytecodes": 9.0, "calls": 0.0}}, []),
    ("a little more", {"read": {"bytecodes": 109.9, "calls": 11.0}}, []),
    (
        "too much of one",
        {"read": {"bytecodes": 110.2, "calls": 10.0}},
        ["read: 110.2 bytecodes a request, expected at most 1.10 * 100.0"],
    ),
    (
        "something where there was nothing",
        {"warm": {"bytecodes": 50.0, "calls": 1.0}},
        ["warm: 1.0 calls a request, expected at most 1.10 * 0.0"],
    ),
    (
        "a stage that nobody knows",
        {"cold": {"bytecodes": 1.0}},
        ["cold: 1.0 bytecodes a request, expected at most 1.10 * 0.0"],
    ),
]


@pytest.mark.parametrize(("what", "now", "expected"), CASES, ids=[case[0] for case in CASES])
def test_grown(what: str, now: Counts, expected: list[str]) -> None:
    """A tenth more of anything is told."""
    assert expected == grown(BEFORE, now)


def test_requests() -> None:
    """Each of some senders writes to each of some recipients, the first ones to one nobody has written to."""
    pairs = [tuple(line for line in text.splitlines() if line[:3] in (b"sen", b"rec")) for text in texts()]
    assert PEOPLE**2 == len(set(pairs))
    first = pairs[:PEOPLE]
    assert PEOPLE == len({pair[0] for pair in first}) == len({pair[1] for pair in first})


@pytest.mark.servers
def test_a_request_takes_no_more() -> None:
    """Every stage, against what is committed for this version of Python."""
    if VERSION not in committed():
        pytest.skip(f"nothing is committed for Python {VERSION}: make bench-instructions UPDATE=1")
    now = counted()
    assert list(STAGES) == list(now)
    assert [] == grown(committed()[VERSION], now)
    assert [] == [stage for stage, numbers in now.items() if not all(numbers.values())]


LOOP = "i=0; while [ $i -lt {} ]; do i=$((i+1)); done"


@pytest.mark.long
@pytest.mark.parametrize("count", [with_perf, with_valgrind])
def test_instructions_of_the_processor(count: Callable[[Sequence[str]], int | None]) -> None:
    """A counter that is there counts more for more; what fails is not counted."""
    few, many = (count(["sh", "-c", LOOP.format(laps)]) for laps in (1, 2000))
    if few is None or many is None:
        pytest.skip(f"{count.__name__} cannot count here: apt-get install valgrind, or linux-perf")
    assert many > few + 2000
    assert count(["sh", "-c", "exit 1"]) is None


def test_no_counter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody can count, it is said what to install."""
    monkeypatch.setenv("PATH", "")
    assert "not counted: apt-get install valgrind" == instructions.machine("warm")


def test_counting_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told why, not taken for nothing."""
    monkeypatch.setattr(instructions, "COUNTER", [sys.executable, "-c", "raise SystemExit('broken')"])
    with pytest.raises(RuntimeError) as caught:
        counted()
    assert "counting ended with 1: broken\n" == str(caught.value)
