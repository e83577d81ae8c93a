"""The house rules that a machine can hold: floors, one importer each, names, docstrings, lengths, paths.

The floors are in tests/floors.py. A module without one fails: whoever adds it says there where it lives.
Imports go down, or sideways without a cycle, never up.
"""

import ast
import re
import subprocess
from collections.abc import Collection, Iterable, Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from ldappolicy.memories import BOUNDS
from tests.floors import FLOORS
from tests.growing import GROWING

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "ldappolicy"

# Who alone may import what: the rest of the program does not know these libraries.
ONE_IMPORTER = {
    **dict.fromkeys(("ldap3", "pyasn1", "gssapi"), "directory.ldap"),
    "cachetools": "resolver",
    "h11": "web",
    "prometheus_client": "metrics",
}

BANNED = {"utils", "util", "helpers", "helper", "common", "manager", "handler", "base", "info"}
FUNCTION_LINES = 40

# Joined here, so that this file passes its own test.
FORBIDDEN = ["".join(parts) for parts in (("/wo", "rk/"), ("/ro", "ot/"), ("/fa", "rm/"), ("py", "pi.org"))]


def name_of(path: Path) -> str:
    """`ldappolicy/directory/ldif.py` is `directory.ldif`; a package is its `__init__`; the top is empty."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}
TESTS = {path.relative_to(ROOT).as_posix(): path for path in sorted((ROOT / "tests").rglob("*.py"))}


@cache
def tree_of(module: str) -> ast.Module:
    """The parsed text of a module."""
    return ast.parse(MODULES[module].read_text(encoding="utf-8"))


@cache
def nodes_of(module: str) -> tuple[ast.AST, ...]:
    """All that it is made of, at any depth."""
    return tuple(ast.walk(tree_of(module)))


def floor_of(module: str) -> int | None:
    """The floor of the module, or of the nearest package that has one."""
    room = module
    while True:
        for floor, rooms in enumerate(FLOORS):
            if room in rooms:
                return floor
        if "." not in room:
            return None
        room = room.rpartition(".")[0]


def names_in(module: str) -> Iterator[str]:
    """Every name that the module imports, in full: `import a.b`, and `a.b` for `from a import b`."""
    for node in nodes_of(module):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module}: imports are written in full"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@cache
def imports_of(module: str) -> frozenset[str]:
    """The same, each once."""
    return frozenset(names_in(module))


@cache
def rooms_of(module: str) -> set[str]:
    """The modules of ours that the module imports."""
    names = {
        name.removeprefix("ldappolicy").removeprefix(".") for name in imports_of(module) if is_ours(name)
    }
    return {name if name in MODULES else name.rpartition(".")[0] for name in names} - {module}


def is_ours(name: str) -> bool:
    """Whether the imported name is one of this package."""
    return name.split(".")[0] == "ldappolicy"


every_module = pytest.mark.parametrize("module", sorted(MODULES))


@every_module
def test_floor(module: str) -> None:
    """Every module lives on a floor and imports nothing from above."""
    floor = floor_of(module)
    assert floor is not None, f"{module}: say in FLOORS where it lives"
    above = [room for room in rooms_of(module) if (floor_of(room) or 0) > floor]
    assert [] == above


def test_no_cycles() -> None:
    """Not even on one floor do modules import one another in a circle."""
    try:
        TopologicalSorter({module: rooms_of(module) for module in MODULES}).prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(error.args[1][::-1]))


@pytest.mark.parametrize("library", sorted(ONE_IMPORTER))
def test_one_importer(library: str) -> None:
    """A library whose habits end in one room is imported in that room only."""
    room = ONE_IMPORTER[library]
    others = [
        module
        for module in MODULES
        if f"{module}.".find(f"{room}.") != 0 and any(n.split(".")[0] == library for n in imports_of(module))
    ]
    assert [] == others


@every_module
def test_docstring(module: str) -> None:
    """A module opens with what it owns."""
    assert ast.get_docstring(tree_of(module))


@every_module
def test_short_functions(module: str) -> None:
    """Forty lines, the docstring aside, are the point to stop and think."""
    long = [node.name for node in functions_in(nodes_of(module)) if length_of(node) > FUNCTION_LINES]
    assert [] == long


Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions_in(nodes: Iterable[ast.AST]) -> Iterator[Function]:
    """Every function and method there."""
    return (node for node in nodes if isinstance(node, Function))


def length_of(function: Function) -> int:
    """Its lines without the docstring."""
    lines = (function.end_lineno or 0) - function.lineno + 1
    if ast.get_docstring(function) is None:
        return lines
    text = function.body[0]
    return lines - ((text.end_lineno or 0) - text.lineno + 1)


def test_one_broad_except() -> None:
    """One `except Exception` swallows, at the top of a connection; others clean up and raise again."""
    broad = [
        f"{module}:{node.lineno}"
        for module in MODULES
        for node in nodes_of(module)
        if isinstance(node, ast.ExceptHandler) and is_broad(node.type) and not raises_again(node)
    ]
    assert len(broad) <= 1, broad


def is_broad(caught: ast.expr | None) -> bool:
    """Whether an except clause catches everything."""
    if isinstance(caught, ast.Tuple):
        return any(is_broad(one) for one in caught.elts)
    return caught is None or (isinstance(caught, ast.Name) and caught.id in ("Exception", "BaseException"))


def raises_again(handler: ast.ExceptHandler) -> bool:
    """Whether it only cleans up: its last statement is a bare `raise`."""
    last = handler.body[-1]
    return isinstance(last, ast.Raise) and last.exc is None


def test_names() -> None:
    """A module is named after what it holds."""
    paths = [*MODULES.values(), *TESTS.values()]
    assert [] == [str(path) for path in paths if BANNED & set(path.stem.split("_"))]


IMPORT = re.compile(r"^ *(?:from|import) +tests\b[^(\n]*(?:\([^)]*\))?", re.MULTILINE)


def test_no_test_imports_a_test() -> None:
    """What two of them need is in a module of its own."""
    found = {name: [text for text in IMPORT.findall(read(name)) if "test_" in text] for name in TESTS}
    assert {} == {name: imported for name, imported in found.items() if imported}


def read(name: str) -> str:
    """The text of a file of the tests."""
    return TESTS[name].read_text(encoding="utf-8")


CLOCK = re.compile(r"\.(?:monotonic|perf_counter|time)(?:_ns)?\(\)")


def is_elapsed(node: ast.AST, names: Collection[str] = ()) -> bool:
    """Whether a difference to the clock is in there, or the name of one."""
    return any(
        (isinstance(one, ast.BinOp) and isinstance(one.op, ast.Sub) and CLOCK.search(ast.unparse(one)))
        or (isinstance(one, ast.Name) and one.id in names)
        for one in ast.walk(node)
    )


def test_no_assertion_on_elapsed_time() -> None:
    """A machine may be busy: a test waits until a deadline of minutes, and asserts what came, not when."""
    found = {
        f"{name}:{line}"
        for name in TESTS
        if CLOCK.search(text := read(name))
        for node in ast.parse(text).body
        if "on_virtual_time" not in ast.unparse(node)  # exact there, however busy the machine
        for function in functions_in(ast.walk(node))
        for line in elapsed_asserts(function)
    }
    assert set() == found


def elapsed_asserts(function: Function) -> Iterator[int]:
    """The lines that compare how long something took."""
    nodes = list(ast.walk(function))
    assigned = [node for node in nodes if isinstance(node, ast.Assign) and is_elapsed(node.value)]
    names = {node.id for one in assigned for node in one.targets if isinstance(node, ast.Name)}
    asserts = [node for node in nodes if isinstance(node, ast.Assert) and is_elapsed(node.test, names)]
    return (node.lineno for node in asserts if not is_at_least(node.test, names))


def is_at_least(test: ast.expr, names: Collection[str]) -> bool:
    """Whether it is `elapsed >= SECONDS`, which a busy machine does not make untrue."""
    if not isinstance(test, ast.Compare):
        return False
    return [ast.GtE] == [*map(type, test.ops)] and is_elapsed(test.left, names)


def test_no_work_at_import() -> None:
    """A module defines things; what it calls when it is imported makes a value of its own."""
    loose = [
        f"{module}:{node.lineno}"
        for module in MODULES
        if module != "__main__"
        for node in tree_of(module).body
        if isinstance(node, ast.For | ast.While | ast.With | ast.Try)
        or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Call))
    ]
    assert [] == loose


def files() -> Iterator[Path]:
    """What git tracks or would: everything that is not ignored; all files where there is no git."""
    command = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\0")
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs git and a checkout")
    return (ROOT / name for name in listed if name and (ROOT / name).is_file())


def test_no_paths_of_one_machine() -> None:
    """No file names a folder or a host that only one machine has."""
    found = [
        f"{path.relative_to(ROOT)}: {word}"
        for path in files()
        for word in FORBIDDEN
        if word in path.read_text(encoding="utf-8", errors="replace")
    ]
    assert [] == found


# ---------------------------------------------------------------- what is remembered

ENDS = ("foresight", "oracle")
"""Rooms in which a cache ends with the command, or with what it is about."""


def test_caches_are_in_the_list() -> None:
    """Who remembers what clients send or directories hold has a bound in `memories`."""
    caches = {"functools.lru_cache", "functools.cache"}
    found = {module for module in MODULES if caches & imports_of(module)}
    assert {"memories"} == {module for module in found if module.split(".")[0] not in ENDS}


def test_every_bound_is_of_one_memory() -> None:
    """A name stands in the list once, and for one place that remembers."""
    others = [module for module in MODULES if module != "memories"]
    used = [name for module in others for node in nodes_of(module) for name in bound_named(node)]
    assert sorted(BOUNDS) == sorted(used)


def bound_named(node: ast.AST) -> Iterator[str]:
    """The bound that is asked for here: `BOUNDS["name"]` or `remembered("name", ...)`."""
    if isinstance(node, ast.Subscript) and ast.unparse(node.value) == "BOUNDS":
        asked: ast.expr = node.slice
    elif isinstance(node, ast.Call) and ast.unparse(node.func) == "remembered":
        asked = node.args[0]
    else:
        return
    yield ast.literal_eval(asked)


def test_what_grows_has_a_bound_or_a_reason() -> None:
    """A class of the service that begins with an empty dict, set or list says why it is no `Memory`."""
    expected = [name for names in GROWING.values() for name in names.split()]
    found = {name for module in serving() for name in begun_empty(module)}
    assert sorted(expected) == sorted(found)


@cache
def serving() -> frozenset[str]:
    """The modules that `serve` imports."""
    found, waiting = set[str](), ["daemon", "supervisor", "workers"]
    while waiting:
        module = waiting.pop()
        if module not in found:
            found.add(module)
            waiting += rooms_of(module)
    return frozenset(found)


GROWS = {"dict", "set", "list", "defaultdict", "deque", "OrderedDict", "Counter", "TTLCache", "LRUCache"}


def begun_empty(module: str) -> Iterator[str]:
    """What a class, or the module itself, begins with that is empty and grows."""
    yield from (f"{module}.{name}" for name in assigned_empty(tree_of(module).body))
    for node in nodes_of(module):
        if isinstance(node, ast.ClassDef):
            of_self = [one for one in ast.walk(node) if isinstance(one, ast.Assign | ast.AnnAssign)]
            names = (*assigned_empty(node.body), *assigned_empty(of_self, of="self."))
            yield from (f"{module}.{node.name}.{name}" for name in names)


def assigned_empty(nodes: Iterable[ast.AST], of: str = "") -> Iterator[str]:
    """The names, or with `of` the attributes, that get what is empty and grows."""
    for node in nodes:
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None and grows(node.value):
            target = ast.unparse(node.targets[0] if isinstance(node, ast.Assign) else node.target)
            if target.startswith(of) and target.removeprefix(of).isidentifier():
                yield target.removeprefix(of)


def grows(value: ast.expr) -> bool:
    """Whether it is empty, and of a kind that grows."""
    if isinstance(value, ast.Dict | ast.List):
        return not (value.keys if isinstance(value, ast.Dict) else value.elts)
    if not isinstance(value, ast.Call):
        return False
    made = value.func.value if isinstance(value.func, ast.Subscript) else value.func
    kind = ast.unparse(made).rpartition(".")[2]
    if kind == "field":
        return any(one.arg == "default_factory" and ast.unparse(one.value) in GROWS for one in value.keywords)
    return kind in GROWS and (not value.args or kind.endswith("Cache"))
