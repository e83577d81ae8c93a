"""Rows of a product in which every two values meet: what most faults need, in fewer rows than the product."""

from collections.abc import Hashable, Sequence
from itertools import combinations, product
from typing import TypeVar

T = TypeVar("T", bound=Hashable)


def all_pairs(factors: Sequence[Sequence[T]]) -> list[tuple[T, ...]]:
    """The same rows each time: always the first of those that bring most pairs that are lacking."""
    rows = list(product(*factors))
    chosen: list[tuple[T, ...]] = []
    lacking = {pair for row in rows for pair in pairs(row)}
    while lacking:
        best = max(rows, key=lambda row: len(lacking & pairs(row)))
        lacking -= pairs(best)
        chosen.append(best)
    return chosen


def pairs(row: Sequence[T]) -> set[tuple[tuple[int, T], ...]]:
    """Every two values of a row, each with its place; of a row of one, that one."""
    return set(combinations(enumerate(row), min(len(row), 2)))
