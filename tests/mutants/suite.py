"""What is known of the tests: which cover a line, how long each takes, which tier it is of."""

import xml.etree.ElementTree as ElementTree
from collections import Counter, defaultdict
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from coverage import CoverageData

from tests.mutants.sample import Mutant

QUICK_SECONDS = 0.5
"""In a suite without marks, what takes longer or shares a fixture with it is not of the inner loop."""

LEFT_OUT = ("tests/bench/", "tests/stack/", "tests/test_house.py")
"""They judge speed, images, and how the source looks."""


class Suite:
    """The tests of a checkout: coverage with contexts, the JUnit file of that run, and what was collected."""

    def __init__(self, coverage: Path, junit: Path, items: dict[str, str]) -> None:
        self._data = CoverageData(str(coverage))
        self._data.read()
        self._files = {file.rpartition("/ldappolicy/")[2]: file for file in self._data.measured_files()}
        seconds, failed = _times(junit)
        self.seconds = {name: seconds.get(_junit_name(name), 0.1) for name in items}
        self.quick = _quick(items, self.seconds)
        self.all = [
            name
            for name, kind in items.items()
            if kind != "long" and not name.startswith(LEFT_OUT) and _junit_name(name) not in failed
        ]
        self._known = set(self.all)

    def cost(self, tests: Iterable[str]) -> float:
        """Seconds of all of them; of a module that could not be collected nobody knows."""
        return sum(self.seconds.get(name, 1.0) for name in tests)

    def covering(self, mutant: Mutant) -> set[str]:
        """The tests that run its line; where that happens at import alone, all that run the file, or any."""
        contexts = self._contexts(mutant.file)
        found = set().union(*(contexts.get(line, set()) for line in mutant.lines))
        return (found or set().union(*contexts.values()) or self._known) & self._known

    @cache  # noqa: B019 - there is one suite
    def _contexts(self, file: str) -> dict[int, set[str]]:
        path = self._files[file.removeprefix("ldappolicy/")]
        found = self._data.contexts_by_lineno(path)
        return {
            line: {each.rpartition("|")[0] for each in contexts} - {""} for line, contexts in found.items()
        }

    def ordered(self, tests: Iterable[str]) -> list[str]:
        """One case of each function before the second of any, the quicker ones first."""
        seen: Counter[str] = Counter()
        ranked = []
        for name in sorted(tests, key=lambda name: (self.seconds[name], name)):
            function = name.partition("[")[0]
            ranked.append((seen[function], self.seconds[name], name))
            seen[function] += 1
        return [name for _, _, name in sorted(ranked)]


def _quick(items: dict[str, str], seconds: dict[str, float]) -> set[str]:
    """The tests of `make check`: those without a mark; in a suite that has no marks, those that are quick."""
    if "servers" in items.values():
        return {name for name, kind in items.items() if kind not in ("servers", "long")}
    slowest: defaultdict[str, float] = defaultdict(float)
    for name, kind in items.items():
        slowest[kind or name] = max(slowest[kind or name], seconds[name])
    return {name for name, kind in items.items() if slowest[kind or name] < QUICK_SECONDS}


def _junit_name(test: str) -> tuple[str, str]:
    module, _, inside = test.partition("::")
    function, bracket, parameters = inside.partition("[")
    *classes, name = function.split("::")
    return ".".join([module.removesuffix(".py").replace("/", "."), *classes]), name + bracket + parameters


def _times(junit: Path) -> tuple[dict[tuple[str, str], float], set[tuple[str, str]]]:
    """The seconds of each test, and those that failed or were skipped."""
    seconds: dict[tuple[str, str], float] = {}
    failed = set()
    for case in ElementTree.parse(junit).iter("testcase"):  # noqa: S314 - pytest wrote it a moment ago
        name = case.get("classname", ""), case.get("name", "")
        seconds[name] = float(case.get("time", "0"))
        if any(child.tag in ("failure", "error", "skipped") for child in case):
            failed.add(name)
    return seconds, failed
