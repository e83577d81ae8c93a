"""Checkouts of their own in which mutants are tried: a clone, an environment, and workers (`worker`)."""

import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Self

from tests.mutants.sample import Mutant, mutated

WORKER = Path(__file__).with_name("worker.py")
SITES = "import json, sys; print(json.dumps([path for path in sys.path if path.endswith('site-packages')]))"
PROGRAM = "#!{python}\nimport sys\nfrom ldappolicy.__main__ import main\n\nsys.exit(main())\n"

NOTHING = '["(nothing could be collected)"]'

PATIENCE = 30
"""Seconds for one test that is quick as a rule."""

ENOUGH = 3600
"""Seconds for all of them."""


class Worker:
    """A process that has collected the tests of some modules (`worker`)."""

    def __init__(self, folder: Path, arguments: Iterable[str]) -> None:
        python = folder / ".venv" / "bin" / "python"
        command = [str(python), "-P", str(WORKER), *arguments]
        self._process = subprocess.Popen(
            command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.items: dict[str, str] = self._answer()

    def run(self, tests: Sequence[str], texts: dict[str, str], *, stop: bool) -> list[str] | None:
        """Those that failed; None: it takes an import."""
        job = {"tests": list(tests), "texts": texts, "stop": stop, "seconds": ENOUGH}
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it could not collect anything
            self._process.stdin.write(json.dumps(job) + "\n")
            self._process.stdin.flush()
        failed: list[str] | None = self._answer()
        return failed

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline() or NOTHING)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.communicate()


class Tree:
    """One checkout of `root`'s last commit."""

    def __init__(self, root: Path, folder: Path) -> None:
        self.folder = folder
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run(["git", "clone", "--quiet", "--shared", str(root), str(folder)], check=True)
        (folder / "build").mkdir()
        self._environment(root)
        self._written = 1_000_000_000
        self._idle = Worker(folder, [f"--timeout={PATIENCE}", "tests"])
        self.items = self._idle.items

    def _environment(self, root: Path) -> None:
        """What `root` has installed, and this checkout in the place of that one."""
        theirs = root / ".venv" / "bin" / "python"
        ours = self.folder / ".venv"
        subprocess.run([theirs, "-m", "venv", "--without-pip", ours], check=True)
        told = subprocess.run([theirs, "-c", SITES], capture_output=True, text=True, check=True).stdout
        (site,) = ours.glob("lib/python*/site-packages")
        (site / "mutants.pth").write_text("\n".join([str(self.folder), *json.loads(told)]) + "\n", "utf-8")
        program = ours / "bin" / "ldappolicy"
        program.write_text(PROGRAM.format(python=ours / "bin" / "python"), "utf-8")
        program.chmod(0o755)

    def failing(self, tests: Sequence[str], mutants: Iterable[Mutant], *, stop: bool = False) -> list[str]:
        """Those of the tests that fail with these changes in the files, and everything imported anew."""
        if not tests:
            return []
        texts = self._texts(mutants)
        originals = {file: (self.folder / file).read_bytes() for file in texts}
        self._write(texts)
        with Worker(self.folder, dict.fromkeys(map(module_of, tests))) as worker:
            failed = worker.run(tests, {}, stop=stop)
        self._write(originals)
        return failed or []

    def first_failing(self, tests: Sequence[str], mutant: Mutant) -> str:
        """The first that fails when functions are exchanged in a child; else, where that is not all, anew."""
        texts = {file: text.decode() for file, text in self._texts([mutant]).items()}
        failed = self._idle.run(tests, texts, stop=True)
        if failed is None:
            few = set(map(module_of, tests[:3]))  # to import all of them takes seconds
            first = [name for name in tests if module_of(name) in few]
            others = [name for name in tests if module_of(name) not in few]
            failed = self.failing(first, [mutant], stop=True) or self.failing(others, [mutant], stop=True)
        return failed[0] if failed else ""

    def failing_unchanged(self, tests: Sequence[str]) -> list[str]:
        """Those that fail in a child in which nothing was exchanged."""
        return self._idle.run(tests, {}, stop=False) or []

    def _texts(self, mutants: Iterable[Mutant]) -> dict[str, bytes]:
        files: dict[str, list[Mutant]] = {}
        for mutant in mutants:
            files.setdefault(mutant.file, []).append(mutant)
        return {file: mutated((self.folder / file).read_bytes(), chosen) for file, chosen in files.items()}

    def _write(self, texts: dict[str, bytes]) -> None:
        """Each with a time of its own, so that no old bytecode fits."""
        for file, text in texts.items():
            (self.folder / file).write_bytes(text)
            self._written += 2
            os.utime(self.folder / file, (self._written, self._written))

    def close(self) -> None:
        """Ends its worker."""
        self._idle.__exit__()


def module_of(test: str) -> str:
    """The file that a test is in."""
    return test.partition("::")[0]
