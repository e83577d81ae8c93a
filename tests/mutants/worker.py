"""Collects the tests of one checkout once, and runs chosen ones of them in children, with changed functions.

    python -P worker.py MODULE...     in the checkout, with its own Python

It is started as a file, not imported: a checkout may be older. The first line out says what was collected.
Then a line of JSON in is a job: `tests` in their order, whether to `stop` at the first failure, how many
`seconds` it may take, and `texts` of files whose functions take the place of the imported ones. A line out is
what failed, or null where a text differs in what only an import would show.
"""

import ast
import contextlib
import functools
import gc
import json
import os
import resource
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, FunctionType
from typing import IO, Any

import _pytest.main
import pytest

PACKAGE = str(Path.cwd() / "ldappolicy") + os.sep
MEMORY = 6 * 2**30
OPTIONS = ["-q", "-p", "no:cacheprovider", "--hypothesis-seed=1", "--continue-on-collection-errors"]

CACHE = type(functools.cache(repr))

_Place = tuple[str, str, int]


class Server:
    """A plugin in the place of pytest's own loop."""

    def __init__(self, jobs: IO[str], answers: IO[str]) -> None:
        self._jobs = jobs
        self._answers = answers
        self._failed: list[str] = []
        self._session: pytest.Session
        self._items: dict[str, pytest.Item] = {}
        self._functions: dict[_Place, list[FunctionType]] = {}
        self._forget: list[Callable[[], None]] = []

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """A module that cannot be imported fails."""
        if report.failed:
            self._failed.append(report.nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A test fails, or what is set up for it."""
        if report.failed:
            self._failed.append(report.nodeid)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Serves until there are no more jobs."""
        self._session = session
        self._items = {item.nodeid: item for item in session.items}
        self._note_functions()
        gc.collect()
        gc.freeze()
        self._say({name: _kind(item) for name, item in self._items.items()})
        for line in self._jobs:
            self._say(self._in_child(json.loads(line)))
        return True

    def _note_functions(self) -> None:
        for each in gc.get_objects():
            if isinstance(each, FunctionType) and each.__code__.co_filename.startswith(PACKAGE):
                self._functions.setdefault(_place(each.__code__), []).append(each)
            elif isinstance(each, CACHE) and each.__module__.startswith("ldappolicy."):
                self._forget.append(each.cache_clear)
            elif (type(each).__module__, type(each).__name__) == ("ldappolicy.memories", "Memory"):
                self._forget.append(each.clear)

    def _say(self, answer: object) -> None:
        self._answers.write(json.dumps(answer) + "\n")
        self._answers.flush()

    def _in_child(self, job: dict[str, Any]) -> list[str] | None:
        reading, writing = os.pipe()
        if not (child := os.fork()):
            try:
                os.setsid()
                os.write(writing, json.dumps(self._run(job)).encode() + b"\n")
            except BaseException:  # noqa: BLE001 - nothing of the child may reach the loop of its parent
                traceback.print_exc()
                os.write(writing, b"null\n")
            finally:
                os._exit(0)
        os.close(writing)
        signal.alarm(job["seconds"])
        with os.fdopen(reading, "rb") as stream, contextlib.suppress(TimeoutError):
            line = b""
            line = stream.readline()  # not to its end: a test may have left a process
        signal.alarm(0)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
        answer: list[str] | None = json.loads(line) if line else ["(time or memory ran out)"]
        return answer

    def _run(self, job: dict[str, Any]) -> list[str] | None:
        for path, text in job["texts"].items():
            if not self._replace(str(Path(path).resolve()), text):
                return None
        for forget in self._forget:
            forget()
        if job["stop"]:
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))  # servers reserve more
        self._session.items = [self._items[name] for name in job["tests"] if name in self._items]
        self._session.testsfailed = 0  # not those that could not be collected
        self._session.config.option.maxfail = int(job["stop"])
        with contextlib.suppress(self._session.Failed, self._session.Interrupted):
            _pytest.main.pytest_runtestloop(self._session)
        return self._failed

    def _replace(self, path: str, text: str) -> bool:
        """Whether the text differs in functions only; they are exchanged."""
        before = Path(path).read_text("utf-8")
        if _only_at_import(ast.parse(before)) != _only_at_import(ast.parse(text)):
            return False
        old, new = compile(before, path, "exec"), compile(text, path, "exec")
        was = {_place(code): code for code in _codes(old)}
        for code in _codes(new):
            if code != was.get(_place(code)):
                for function in self._functions.get(_place(code), []):
                    if code.co_freevars != function.__code__.co_freevars:
                        return False
                    function.__code__ = code
        return True


def _place(code: CodeType) -> _Place:
    return code.co_filename, code.co_qualname, code.co_firstlineno


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for each in code.co_consts:
        if isinstance(each, CodeType):
            yield from _codes(each)


def _only_at_import(tree: ast.Module) -> str:
    """What is not in the body of a function."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            node.body = []
    return ast.dump(tree)


def _kind(item: pytest.Item) -> str:
    """`long`, `servers`, or the fixtures of ours that it shares with other tests."""
    for mark in ("long", "servers"):
        if any(item.iter_markers(mark)):
            return mark
    assert isinstance(item, pytest.Function)
    indices = item.callspec.indices if hasattr(item, "callspec") else {}
    definitions = item._fixtureinfo.name2fixturedefs  # noqa: SLF001 - pytest has no public way to ask
    shared = [
        f"{name}{indices.get(name, '')}"
        for name, found in sorted(definitions.items())
        if found[-1].scope != "function" and found[-1].baseid
    ]
    return f"{item.nodeid.partition('::')[0]} {shared}" if shared else ""


def _expired(number: int, frame: object) -> None:
    raise TimeoutError


if __name__ == "__main__":
    server = Server(os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w"))
    log = os.open("build/mutants.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for descriptor in (1, 2):
        os.dup2(log, descriptor)
    signal.signal(signal.SIGALRM, _expired)
    sys.path.insert(0, str(Path.cwd()))
    sys.exit(pytest.main([*OPTIONS, *sys.argv[1:]], plugins=[server]))
