"""Inputs out of inputs: mutation with a seed, findings made small, and how costs grow with the size."""

import math
import random
import re
import signal
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from ldappolicy.action import parse_action
from ldappolicy.entry import normal_dn
from ldappolicy.protocol import encode_reply
from tests.fuzz.target import Growth, Target

LONGEST = 20_000
"""Bytes of an input that is mutated; how costs grow is measured apart."""

PATIENCE = 5.0
"""Seconds of processor time that one input may take."""

POOL = 2000
"""Inputs that are kept because their outcome was new."""


class TooSlow(Exception):
    """One input took more than its time."""


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Ends what takes more of the processor's time."""

    def expired(number: int, frame: FrameType | None) -> None:
        raise TooSlow(f"more than {seconds:g} s of processor time")

    before = signal.signal(signal.SIGVTALRM, expired)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def failure(target: Target, data: bytes, patience: float = PATIENCE) -> str:
    """What is wrong with a target at some input; empty for nothing."""
    return _outcome(target, data, patience)[1]


def _outcome(target: Target, data: bytes, patience: float = PATIENCE) -> tuple[str, str]:
    try:
        with limited(patience):
            return target.run(data), ""
    except Exception as error:  # noqa: BLE001 - whatever comes here is a finding
        return "", _place(error)


_OURS = re.compile(rf"{re.escape(str(Path(__file__).parents[2]))}/(ldappolicy|tests/fuzz)/(?!mutation\.py)")


def _place(error: Exception) -> str:
    """The exception and where it was raised: two inputs with one such place are one finding."""
    last = error.__traceback__
    ours = None
    while last is not None:
        code = last.tb_frame.f_code
        if _OURS.match(code.co_filename):
            ours = f"{code.co_filename.rpartition('/')[2]}:{code.co_name}"
        last = last.tb_next
    return f"{type(error).__name__} in {ours}"


@dataclass(frozen=True, slots=True)
class Finding:
    """A fault, and the smallest input that was found for it."""

    target: str
    fault: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Run:
    """What one run over a target did."""

    executions: int
    outcomes: int
    findings: tuple[Finding, ...]


class Mutator:
    """Endless inputs, the same ones for the same seed."""

    def __init__(self, pool: Sequence[bytes], words: Sequence[bytes], chance: random.Random) -> None:
        self.pool = list(pool)
        self._words = words
        self._chance = chance

    def next(self) -> bytes:
        """An input that nobody has seen yet."""
        data = self._chance.choice(self.pool)
        for _ in range(self._chance.choice((1, 1, 2, 3, 5, 8))):
            data = self._chance.choice(_CHANGES)(self._chance, data, self._words, self.pool)
        return data[:LONGEST]


Change = Callable[[random.Random, bytes, Sequence[bytes], Sequence[bytes]], bytes]


def _word(chance: random.Random, data: bytes, words: Sequence[bytes], pool: Sequence[bytes]) -> bytes:
    at = chance.randrange(len(data) + 1)
    return data[:at] + chance.choice(words) + data[at:]


def _replaced(chance: random.Random, data: bytes, words: Sequence[bytes], pool: Sequence[bytes]) -> bytes:
    start, end = _slice(chance, data)
    return data[:start] + chance.choice(words) + data[end:]


def _octet(chance: random.Random, data: bytes, words: Sequence[bytes], pool: Sequence[bytes]) -> bytes:
    if not data:
        return bytes((chance.randrange(256),))
    at = chance.randrange(len(data))
    octet = chance.choice((chance.randrange(256), data[at] ^ (1 << chance.randrange(8)), 0, 32, 127, 255))
    return data[:at] + bytes((octet,)) + data[at + 1 :]


def _cut(chance: random.Random, data: bytes, words: Sequence[bytes], pool: Sequence[bytes]) -> bytes:
    start, end = _slice(chance, data)
    return data[:start] + data[end:]


def _repeated(chance: random.Random, data: bytes, words: Sequence[bytes], pool: Sequence[bytes]) -> bytes:
    start, end = _slice(chance, data)
    return data[:end] + data[start:end] * chance.choice((1, 1, 2, 7, 100)) + data[end:]


def _joined(chance: random.Random, data: bytes, words: Sequence[bytes], pool: Sequence[bytes]) -> bytes:
    other = chance.choice(pool)
    start, end = _slice(chance, other)
    at = chance.randrange(len(data) + 1)
    return data[:at] + other[start:end] + data[at:]


def _slice(chance: random.Random, data: bytes) -> tuple[int, int]:
    start = chance.randrange(len(data) + 1)
    return start, min(len(data), start + chance.choice((1, 2, 4, 16, 64, 1024)))


_CHANGES: tuple[Change, ...] = (_word, _word, _replaced, _octet, _cut, _repeated, _joined)


Limit = Callable[[int], bool]
"""Whether to go on after so many executions."""


def within(seconds: float) -> Limit:
    """As many executions as there is time for."""
    deadline = time.monotonic() + seconds
    return lambda executions: time.monotonic() < deadline


def fuzz(target: Target, pool: Sequence[bytes], words: Sequence[bytes], seed: int, more: Limit) -> Run:
    """Mutates as long as there are more to be made; an input whose outcome is new is mutated further."""
    mutator = Mutator(pool, words, random.Random(f"{seed} {target.name}"))
    seen: set[str] = set()
    faults: dict[str, bytes] = {}
    executions = 0
    while more(executions):
        data = pool[executions] if executions < len(pool) else mutator.next()
        executions += 1
        outcome, fault = _outcome(target, data)
        if fault and len(data) < len(faults.get(fault, data + b"x")):
            faults[fault] = data
        elif outcome not in seen and len(seen) < POOL:
            seen.add(outcome)
            mutator.pool.append(data)
    found = [Finding(target.name, fault, smaller(target, data, fault)) for fault, data in faults.items()]
    return Run(executions, len(seen), tuple(found))


def smaller(target: Target, data: bytes, fault: str, tries: int = 2000) -> bytes:
    """A smaller input with the same fault: whatever can be left out is."""
    size = 0 if fault.startswith(TooSlow.__name__) else len(data) // 2
    while size and tries > 0:
        at = 0
        while at < len(data) and tries > 0:
            tries -= 1
            shorter = data[:at] + data[at + size :]
            if failure(target, shorter) == fault:
                data = shorter
            else:
                at += size
        size //= 2
    return data


# ---------------------------------------------------------------- how costs grow

SMALLEST = 4096
"""Bytes at which growth is measured at least: shorter than that, bounds of the language count."""

MEASURABLE = 0.002
"""Seconds that the smaller of two inputs takes."""

LARGEST = 65_536
"""Bytes beyond which nothing is worth measuring that was quick until there."""

MOST_GROWTH = 1.7
"""n log n stays below it, a square does not."""


Clock = Callable[[], float]
"""Seconds of the processor."""


def grown(growth: Growth, size: int) -> bytes:
    """An input of about that size."""
    head, unit, tail = growth
    return head + unit * max(1, (size - len(head) - len(tail)) // len(unit)) + tail


def exponent(target: Target, growth: Growth, clock: Clock = time.process_time) -> float:
    """How time grows with the size: 1 for what is linear, 2 for a square."""
    size = SMALLEST
    while (least := _seconds(target, grown(growth, size), 2, clock)) < MEASURABLE:
        size *= 2
        if size > LARGEST:
            return 0.0
    most = _seconds(target, grown(growth, 4 * size), 2, clock)
    return math.log(max(most, MEASURABLE / 100) / least, 4)


def growth_fault(target: Target, growth: Growth, clock: Clock = time.process_time) -> str:
    """What is wrong with how costs grow; empty for nothing."""
    power = math.inf
    try:
        for _ in range(3):  # a pause of the machine is not a fault: the least counts
            power = min(power, exponent(target, growth, clock))
            if power <= MOST_GROWTH:
                return ""
    except Exception as error:  # noqa: BLE001 - whatever comes here is a finding
        return _place(error)
    return f"time grows with the power {power:.1f} of the size"


def _seconds(target: Target, data: bytes, tries: int, clock: Clock) -> float:
    best = math.inf
    for _ in range(tries):
        for remembered in (parse_action, encode_reply, normal_dn):
            remembered.forget()
        start = clock()
        with limited(4 * PATIENCE):
            target.run(data)
        best = min(best, clock() - start)
    return best


def octets_held(target: Target, growth: Growth, size: int) -> float:
    """The most memory that was taken at one time, for each byte of an input of that size."""
    data = grown(growth, size)
    tracemalloc.start()
    try:
        target.run(data)
        return tracemalloc.get_traced_memory()[1] / len(data)
    finally:
        tracemalloc.stop()
