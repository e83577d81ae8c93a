"""What a fuzz target is, and what targets have in common.

A target takes bytes, as a client, a directory or a file may have them, and checks every property that it
knows. It returns the kind of outcome in a few words, by which the mutation sees what it has not seen
before; anything but an AssertionError or one of the declared exceptions is a bug of the package.
"""

import random
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from ldappolicy.errors import LdapPolicyError

_PARTICULAR = re.compile(r"'.*'|\".*\"|[0-9]+", re.DOTALL)

Growth = tuple[bytes, bytes, bytes]
"""A head, what is repeated behind it, and a tail."""


@dataclass(frozen=True, slots=True)
class Target:
    """One reader; `growths` are inputs that can be made as long as one likes."""

    name: str
    run: Callable[[bytes], str]
    growths: tuple[Growth, ...] = ()


def growths(*parts: tuple[str, str, str]) -> tuple[Growth, ...]:
    """Growths of a target, as texts."""
    return tuple((head.encode(), unit.encode(), tail.encode()) for head, unit, tail in parts)


def text_of(data: bytes) -> str:
    """As values of the protocol and of a directory are read."""
    return data.decode("utf-8", "surrogateescape")


def kind_of(error: LdapPolicyError | Exception) -> str:
    """What went wrong, without what it went wrong with; the text has to be one line."""
    text = str(error)
    assert not {"\n", "\r", "\0", "\x1b"} & set(text), f"not one line: {text!r}"
    return f"{type(error).__name__}: {_PARTICULAR.sub('_', text)[:80]}"


def pieces(data: bytes) -> Iterator[list[bytes]]:
    """Some ways to cut the bytes, always the same for the same bytes."""
    yield [data[:1], data[1:]]
    chance = random.Random(zlib.crc32(data))
    for count in (1, 3, 9):
        places = sorted(chance.randrange(len(data) + 1) for _ in range(count))
        yield [data[start:end] for start, end in pairwise((0, *places, len(data)))]
    if len(data) <= 300:
        yield [data[at : at + 1] for at in range(len(data))]
