"""What is remembered, whoever sends it: in number and in bytes no more than its bound says."""

import subprocess
import sys

import pytest

from ldappolicy.memories import BOUNDS, EACH, Bound, Memory, Remembered
from tests.floods import FLOODS, bound

SLACK = 12 * 2**20
"""What an allocator keeps for later, and the dict of twice the size while one grows."""


def test_all_of_it_goes_when_it_is_full() -> None:
    """By number, and by bytes; what would take much of it is not kept."""
    for few in (Bound(3, 2**20), Bound(100, 8 * 3 * (1000 + EACH) // 7)):
        memory: Memory[int, str] = Memory(few)
        seen = []
        for number in range(5):
            memory.keep(number, "x", 1000)
            seen.append(len(memory))
        assert [1, 2, 3, 1, 2] == seen if few.most == 3 else seen[-1] < 5
    memory = Memory(Bound(3, 8000))
    memory.keep(0, "x", 1001)
    assert not memory


def test_a_function_remembers_short_texts_alone() -> None:
    """The oldest go one by one."""
    asked: list[str] = []

    def length(text: str) -> int:
        asked.append(text)
        return len(text)

    remembered = Remembered(length, most=2, longest=3)
    texts = ("a", "a", "long", "long", "bb", "ccc", "a")
    assert [len(text) for text in texts] == [remembered(text) for text in texts]
    assert ["a", "long", "long", "bb", "ccc", "a"] == asked
    assert 2 == len(remembered)


def test_every_memory_is_flooded() -> None:
    """Whoever adds one says what fills it; for replies that are shared see `test_ready`."""
    assert sorted(BOUNDS) == sorted({*FLOODS, "shared replies"})


@pytest.mark.long
@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_leaves_no_more_than_the_bound(name: str) -> None:
    """In a process of its own, whose memory is looked at before and after."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.floods", name], capture_output=True, text=True, check=False, timeout=600
    )
    assert 0 == done.returncode, done.stderr
    assert int(done.stdout) < bound(name) + SLACK
