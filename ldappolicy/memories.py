"""What is remembered of what clients send and directories hold, and how much of each at most: one list.

Whoever keeps such a thing for later takes a `Memory`, or `remembered`, with a bound of BOUNDS, in number and
in bytes. Keys are folded, so that spellings are one. When a memory is full all of it goes, since everything
in it can be made again; reading one costs what reading a dict does. What ends with a request, a connection
or a command is none, nor is a copy of the directory.
"""

from collections.abc import Callable
from functools import lru_cache
from sys import getsizeof
from typing import Generic, NamedTuple, TypeVar

_K = TypeVar("_K")
_V = TypeVar("_V")

_MIB = 2**20

EACH = 300
"""Bytes of one beside what is told of it: its place in a dict that has just grown, tuples, objects."""

ANSWER_BYTES = 4096
"""An answer of the directory with more bytes counts as several: `[cache] size` bounds bytes as well."""


class Bound(NamedTuple):
    """How many at most, and how many bytes all of them take."""

    most: int
    size: int


BOUNDS: dict[str, Bound] = {
    # for each worker
    "ready replies": Bound(65_536, 64 * _MIB),
    "conclusions": Bound(200_000, 96 * _MIB),
    "shared replies": Bound(10_000, 8 * _MIB),
    "decisions": Bound(10_000, 8 * _MIB),
    "names": Bound(32_768, 96 * _MIB),
    "attribute names": Bound(4096, _MIB),
    "actions": Bound(4096, 40 * _MIB),
    "address keys": Bound(16_384, 16 * _MIB),
    "parent domains": Bound(4096, 4 * _MIB),
    "encoded replies": Bound(256, 8 * _MIB),
    "reasons in the log": Bound(1024, 2 * _MIB),
    "seconds": Bound(8, _MIB),
    "dynamic groups": Bound(4, 64 * _MIB),
    # for each policy
    "clients in networks": Bound(4096, 2 * _MIB),
    "right-hand sides": Bound(4096, 8 * _MIB),
    # for each logger that is limited
    "kinds of lines": Bound(1000, 2 * _MIB),
}


class Memory(dict[_K, _V]):
    """Values by their keys; `used` are the bytes that were told of."""

    __slots__ = ("largest", "most", "size", "used")

    def __init__(self, bound: Bound) -> None:
        super().__init__()
        self.most, self.size = bound.most, bound.size * 7 // 8
        self.largest = bound.size - self.size
        self.used = 0

    @property
    def is_full(self) -> bool:
        """Whether there is no room for one more."""
        return len(self) >= self.most or self.used >= self.size

    def keep(self, key: _K, value: _V, size: int) -> None:
        """Keeps a value; `size` are the bytes of both. What would take an eighth of the room is not kept."""
        if self.used >= self.size or len(self) >= self.most:
            self.clear()
        if size <= self.largest:
            self.used += size + EACH
            self[key] = value

    def clear(self) -> None:
        """Nothing is remembered."""
        super().clear()
        self.used = 0


def size_of(*texts: str) -> int:
    """Bytes of some texts."""
    return sum(map(getsizeof, texts))


class Remembered(Generic[_V]):
    """A function of a text that remembers what it returned for those that were not too long."""

    def __init__(self, function: Callable[[str], _V], most: int, longest: int) -> None:
        self.once = function
        self.longest = longest
        self._known = lru_cache(most)(function)
        self.forget = self._known.cache_clear

    def __call__(self, text: str, /) -> _V:
        """What the function returns."""
        return self._known(text) if len(text) <= self.longest else self.once(text)

    def __len__(self) -> int:
        return self._known.cache_info().currsize


def remembered(name: str, each: int) -> Callable[[Callable[[str], _V]], Remembered[_V]]:
    """For a function by which a letter takes up to `each` bytes, in the text and in what comes of it.

    As many letters are remembered of one as leave room for all. The oldest go, one by one.
    """
    bound = BOUNDS[name]
    return lambda function: Remembered(function, bound.most, (bound.size // bound.most - EACH) // each)
