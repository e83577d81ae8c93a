"""Mutants of the language core, the resolver, the planner and the protocol: all of them, and a fixed sample.

A mutant is known by what it changes (file, function, text before and after, and which of several alike), not
by a line, and the sample are those whose digest is smallest: so it stays the same where other code changes.
"""

import ast
import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path

SEED = 10
COUNT = 320

CORE = (
    "action address entry evaluate evaluation facts identity invalidation learned ldap_filter mapping",
    "network policy protocol ready request residue resolver restrictions rewriting tables vocabulary",
    "directory/matching directory/memory directory/plan",
)
FILES = [f"ldappolicy/{name}.py" for names in CORE for name in names.split()]

COMPARISONS = {
    "==": "!=",
    "!=": "==",
    "<": "<=",
    "<=": "<",
    ">": ">=",
    ">=": ">",
    "is not": "is",
    "is": "is not",
    "not in": "in",
    "in": "not in",
}
ARITHMETIC = {"+": "-", "-": "+", "*": "//", "//": "*", "|": "&", "&": "|"}
NAMES = {
    "any": "all",
    "all": "any",
    "min": "max",
    "max": "min",
    "startswith": "endswith",
    "endswith": "startswith",
    "partition": "rpartition",
    "rpartition": "partition",
    "lower": "upper",
    "casefold": "upper",
    "isdisjoint": "issuperset",
    "issubset": "issuperset",
}

UNREAD = ("annotation", "returns", "decorator_list")
"""Parts of a syntax tree that decide nothing, or too much."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change; `start` and `end` are bytes of the file as it is, `lines` where the change is."""

    file: str
    function: str
    operator: str
    before: str
    after: str
    ordinal: int
    start: int = field(compare=False)
    end: int = field(compare=False)
    lines: range = field(compare=False)

    @property
    def key(self) -> str:
        """Its name, by content."""
        known = {name: value for name, value in asdict(self).items() if name not in ("start", "end", "lines")}
        return hashlib.sha256(f"{SEED}{sorted(known.items())}".encode()).hexdigest()[:12]

    def __str__(self) -> str:
        place = f"{self.file}:{self.lines.start} {self.function}"
        return f"{self.key} {place}: {self.operator}: {self.before!r} -> {self.after!r}"


def sample(root: Path, count: int = COUNT) -> list[Mutant]:
    """The same every time, in the order of their digests; of constants, which are many, one in four."""
    every = sorted((mutant for file in FILES for mutant in mutants(root, file)), key=lambda each: each.key)
    return [each for each in every if each.operator != "constant" or each.key[-1] in "0369"][:count]


def mutated(source: bytes, chosen: Iterable[Mutant]) -> bytes:
    """The text of their file with these changes, which must not overlap."""
    for mutant in sorted(chosen, key=lambda each: -each.start):
        source = source[: mutant.start] + mutant.after.encode() + source[mutant.end :]
    return source


def mutants(root: Path, file: str) -> Iterator[Mutant]:
    """All that can be made of a file."""
    source = (root / file).read_bytes()
    seen: Counter[tuple[str, ...]] = Counter()
    for function, operator, start, end, after in _Finder(source).found(ast.parse(source), ""):
        before = source[start:end].decode()
        after += "\n" * (before.count("\n") - after.count("\n"))  # later lines stay where they are
        alike = (function, operator, before, after)
        first = source.count(b"\n", 0, start) + 1
        lines = range(first, first + before.count("\n") + 1)
        yield Mutant(file, *alike, seen[alike], start, end, lines)
        seen[alike] += 1


_Found = tuple[str, str, int, int, str]
_Change = tuple[str, int, int, str]


class _Finder:
    """What can be changed in one source; places are offsets into its bytes."""

    def __init__(self, source: bytes) -> None:
        self._source = source
        lengths = [len(line) for line in source.splitlines(keepends=True)]
        self._starts = [sum(lengths[:number]) for number in range(len(lengths))]

    def found(self, node: ast.AST, function: str) -> Iterator[_Found]:
        """Everything at or below a node, but for annotations, texts of documentation and of f-strings."""
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            function = f"{function}.{node.name}".lstrip(".")
        yield from ((function, *change) for change in self._changes(node))
        for name, value in ast.iter_fields(node):
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST) and name not in UNREAD and not _is_text(child):
                    yield from self.found(child, function)

    def _changes(self, node: ast.AST) -> Iterator[_Change]:
        match node:
            case ast.Compare(left=left, comparators=others):
                for one, other in pairwise([left, *others]):
                    yield from self._between(one, other, COMPARISONS)
            case ast.BoolOp(values=values):
                for one, other in pairwise(values):
                    yield from self._between(one, other, {"and": "or", "or": "and"})
            case ast.BinOp(left=left, right=right):
                yield from self._between(left, right, ARITHMETIC)
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                yield "no not", *self._span(node), f"({self._text(operand)})"
            case ast.Constant(value=value):
                yield from self._constant(node, value)
            case ast.Subscript(value=value, slice=ast.Slice()):
                yield "no slice", *self._span(node), self._text(value)
            case ast.Name(id=name) if name in NAMES:
                yield "other name", *self._span(node), NAMES[name]
            case ast.Attribute(attr=name, end_col_offset=int()) if name in NAMES:
                end = self._span(node)[1]
                yield "other name", end - len(name), end, NAMES[name]
            case ast.comprehension(ifs=tests):
                for test in tests:
                    yield "not", *self._span(test), f"(not ({self._text(test)}))"
            case ast.stmt():
                yield from self._statement(node)
            case ast.IfExp(test=test):
                yield "not", *self._span(test), f"(not ({self._text(test)}))"

    def _statement(self, node: ast.stmt) -> Iterator[_Change]:
        match node:
            case ast.If(test=test) | ast.While(test=test):
                yield "not", *self._span(test), f"not ({self._text(test)})"
            case ast.Return(value=ast.expr() as value) if not isinstance(value, ast.Constant) or value.value:
                yield "return None", *self._span(node), "return None"
            case ast.Expr(value=ast.Call() | ast.Await()) | ast.AugAssign() | ast.Raise() | ast.Delete():
                yield "no statement", *self._span(node), "pass"
            case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
                yield "no statement", *self._span(node), "pass"
            case ast.Continue():
                yield "break", *self._span(node), "break"
            case ast.Break():
                yield "continue", *self._span(node), "continue"

    def _constant(self, node: ast.expr, value: object) -> Iterator[_Change]:
        match value:
            case bool():
                yield "constant", *self._span(node), str(not value)
            case int() | float():
                yield "constant", *self._span(node), f"{value + 1!r}"
            case str() | bytes() if value:
                yield "constant", *self._span(node), f"{value[:0] if len(value) == 1 else value[1:]!r}"

    def _between(self, left: ast.expr, right: ast.expr, others: dict[str, str]) -> Iterator[_Change]:
        start, end = self._span(left)[1], self._span(right)[0]
        words = "|".join(map(re.escape, sorted(others, key=len, reverse=True)))
        if (
            match := re.search(rf"(?<![\w*])({words})(?![\w*])", self._source[start:end].decode())
        ) is not None:
            operator = match[1]
            yield (
                f"{operator} to {others[operator]}",
                start + match.start(1),
                start + match.end(1),
                others[operator],
            )

    def _span(self, node: ast.expr | ast.stmt) -> tuple[int, int]:
        last_line, last_column = node.end_lineno or 0, node.end_col_offset or 0  # the parser gives both
        return self._starts[node.lineno - 1] + node.col_offset, self._starts[last_line - 1] + last_column

    def _text(self, node: ast.expr) -> str:
        return self._source[slice(*self._span(node))].decode()


def _is_text(node: ast.AST) -> bool:
    """Documentation, an f-string, or what only mypy reads."""
    match node:
        case ast.JoinedStr() | ast.Expr(value=ast.Constant()) | ast.If(test=ast.Name(id="TYPE_CHECKING")):
            return True
        case (
            ast.Assign(value=ast.Call(func=ast.Name(id="TypeVar" | "cast"))) | ast.ImportFrom() | ast.Import()
        ):
            return True
        case ast.ClassDef(bases=[ast.Name(id="Protocol")]):
            return True
    return False
