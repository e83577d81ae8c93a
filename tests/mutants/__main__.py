"""`python -m tests.mutants`: a fixed sample of faults in the core, and which tests see each of them.

    .venv/bin/python -m pytest -m "not long" --cov --cov-context=test --cov-report= --junitxml=build/tests.xml
    .venv/bin/python -m tests.mutants [--tree CHECKOUT] [--earlier FILE]

What is tried is the last commit of the checkout, in two copies. First each mutant alone, against the tests of
`make check` that cover its line, until one fails. Then what survived, at most 60 at once, against every test
of that run: each is tried alone on those that fail and cover it; for what fails still, the one that does it
alone is looked for and taken out, until nothing fails. (One could hide another: that counts as a survivor.)
Results are lines of JSON. What an interrupted run found is kept; `--earlier` says what saw which in another.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import accumulate
from pathlib import Path
from queue import SimpleQueue

from tests.mutants.sample import COUNT, Mutant, sample
from tests.mutants.suite import Suite
from tests.mutants.trees import Tree, module_of

ALONE_SECONDS = 20.0
"""How long the covering tests of one mutant alone may take, by the JUnit file."""

TOGETHER = 60
"""Mutants that are run at once against the rest."""

BATCH = 60


@dataclass(frozen=True, slots=True)
class Result:
    """What saw a mutant: a test of `make check`, another that covers its line, or one of the rest."""

    key: str
    mutant: str
    by: str = ""
    test: str = ""


class Run:
    """One sample against one suite."""

    def __init__(self, trees: Sequence[Tree], suite: Suite, earlier: dict[str, str], file: Path) -> None:
        self._trees = trees
        self._file = file
        self._suite = suite
        self._earlier = earlier
        lines = file.read_text("utf-8").splitlines() if file.exists() else []
        self.results = [Result(**json.loads(line)) for line in lines]
        self.seen = {result.key for result in self.results if result.by}

    def alone(self, mutants: Sequence[Mutant], tests: set[str]) -> list[Mutant]:
        """Each against those of the tests that cover its line; what survives."""
        free: SimpleQueue[Tree] = SimpleQueue()
        for tree in self._trees:
            free.put(tree)

        def attempt(mutant: Mutant) -> None:
            tree = free.get()
            try:
                if test := _killer(tree, mutant, self._chosen(mutant, tests)):
                    self.note(mutant, test)
            finally:
                free.put(tree)

        with ThreadPoolExecutor(len(self._trees)) as pool:
            list(pool.map(attempt, mutants))
        return [mutant for mutant in mutants if mutant.key not in self.seen]

    def _chosen(self, mutant: Mutant, tests: set[str]) -> list[str]:
        """As many as there is time for; the one that saw it before goes first."""
        names = self._suite.ordered(self._suite.covering(mutant) & tests)
        times = accumulate(self._suite.seconds[name] for name in names)
        taken = [name for name, seconds in zip(names, times, strict=True) if seconds < ALONE_SECONDS]
        return sorted(taken, key=lambda name: name != self._earlier.get(mutant.key))

    def together(self, mutants: Sequence[Mutant]) -> list[Mutant]:
        """At most 60 at once against every test; what overlaps with them, against those that cover it."""
        group, others = _disjoint(mutants, TOGETHER)
        left = self._rounds(self._suite.all, group)
        while others:
            group, others = _disjoint(others, TOGETHER)
            covering = set().union(*map(self._suite.covering, group))
            left += self._rounds([name for name in self._suite.all if name in covering], group)
        return left

    def _rounds(self, tests: Sequence[str], mutants: Sequence[Mutant]) -> list[Mutant]:
        """Takes out one after the other that makes a test fail, until none does; what is left."""
        failing = self._failing(tests, mutants)
        print(f"{len(failing)} tests fail with {len(mutants)} mutants at once", flush=True)
        left = self.alone(mutants, set(failing))
        while failing and left:
            failing.sort(key=lambda name: self._suite.seconds.get(name, 0.0))
            still = self._failing(failing[:BATCH], left)
            failing = [*still, *failing[BATCH:]]
            for test, culprit in self._culprits(still[:: max(1, len(still) // 2)], left):
                if culprit is None:
                    failing.remove(test)
                    print(f"not one alone: {test}", flush=True)
                elif culprit in left:  # two tests may show the same one
                    left.remove(culprit)
                    self.note(culprit, test)
        return left

    def _failing(self, tests: Sequence[str], mutants: Sequence[Mutant]) -> list[str]:
        """Those of the tests that fail with these changes, module by module in both trees."""
        modules: dict[str, list[str]] = {}
        for name in tests:
            modules.setdefault(module_of(name), []).append(name)
        shares: list[list[str]] = [[] for _ in self._trees]
        for names in sorted(modules.values(), key=self._suite.cost, reverse=True):
            min(shares, key=self._suite.cost).extend(names)

        with ThreadPoolExecutor(len(self._trees)) as pool:
            found = pool.map(lambda tree, share: tree.failing(share, mutants), self._trees, shares)
            return [name for names in found for name in dict.fromkeys(names)]

    def _culprits(self, tests: Sequence[str], mutants: Sequence[Mutant]) -> list[tuple[str, Mutant | None]]:
        """One test in each tree."""
        with ThreadPoolExecutor(len(self._trees)) as pool:
            found = pool.map(lambda tree, test: self._culprit(tree, test, mutants), self._trees, tests)
            return list(zip(tests, found, strict=False))

    def _culprit(self, tree: Tree, test: str, mutants: Sequence[Mutant]) -> Mutant | None:
        """Which one alone makes the test fail; those whose line it covers are asked first."""
        covered = [mutant for mutant in mutants if test in self._suite.covering(mutant)]
        others = [mutant for mutant in mutants if mutant not in covered]
        suspects = covered if tree.failing([test], covered) else others
        while len(suspects) > 1:
            half = suspects[: len(suspects) // 2]
            suspects = half if tree.failing([test], half) else suspects[len(half) :]
        if not suspects or not tree.failing([test], suspects) or tree.failing([test], []):
            return None
        return suspects[0]

    def note(self, mutant: Mutant, test: str = "") -> None:
        """Keeps and prints what saw one."""
        if not test or test not in self._suite.covering(mutant):
            by = "rest" if test in self._suite.seconds else "check" if test else ""
        else:
            by = "check" if test in self._suite.quick else "covering"
        self.results.append(Result(mutant.key, str(mutant), by, test))
        self.seen.update([mutant.key] if test else [])
        with self._file.open("a", encoding="utf-8") as out:
            out.write(json.dumps(asdict(self.results[-1])) + "\n")
        print(f"{len(self.results)} {by or 'SURVIVED'} {mutant} {test}", flush=True)


def _killer(tree: Tree, mutant: Mutant, tests: Sequence[str]) -> str:
    """The first test that fails with a mutant, again with it, and not without it."""
    while test := tree.first_failing(tests, mutant):
        if test not in tests or (tree.first_failing([test], mutant) and not tree.failing_unchanged([test])):
            return test
        tests = tests[tests.index(test) + 1 :]
    return ""


def _disjoint(mutants: Sequence[Mutant], most: int) -> tuple[list[Mutant], list[Mutant]]:
    """As many as do not overlap, and the others."""
    group: list[Mutant] = []
    for mutant in mutants:
        apart = all(
            mutant.file != each.file or mutant.end <= each.start or each.end <= mutant.start for each in group
        )
        if apart and len(group) < most:
            group.append(mutant)
    return group, [mutant for mutant in mutants if mutant not in group]


def main() -> int:
    """Prints what saw how many."""
    asked = _arguments()
    mutants = sample(asked.tree, asked.count)
    trees = [Tree(asked.tree, asked.folder / str(number)) for number in range(2)]
    suite = Suite(asked.coverage, asked.junit, trees[0].items)
    earlier = _killers(asked.earlier) if asked.earlier else {}
    run = Run(trees, suite, earlier, asked.results)
    left = run.alone([mutant for mutant in mutants if mutant.key not in run.seen], suite.quick)
    print(f"{len(left)} of {len(mutants)} survive what covers them and is quick", flush=True)
    for mutant in run.together(left):
        run.note(mutant)
    for tree in trees:
        tree.close()
    print(dict(Counter(result.by or "survived" for result in run.results)))
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.mutants", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--tree", type=Path, default=Path.cwd(), help="the checkout (this one)")
    parser.add_argument("--folder", type=Path, default=Path("build/mutants"), help="for two copies of it")
    parser.add_argument("--coverage", type=Path, default=Path(".coverage"), help="of a run with contexts")
    parser.add_argument("--junit", type=Path, default=Path("build/tests.xml"), help="of the same run")
    parser.add_argument("--earlier", type=Path, help="results of an earlier run")
    parser.add_argument("--results", type=Path, default=Path("build/mutants.jsonl"), help="what to write")
    parser.add_argument("--count", type=int, default=COUNT, help=f"how many of the sample ({COUNT})")
    return parser.parse_args()


def _killers(results: Path) -> dict[str, str]:
    lines = results.read_text("utf-8").splitlines()
    return {result["key"]: result["test"] for result in map(json.loads, lines)}


if __name__ == "__main__":
    sys.exit(main())
