"""Only what is allowed to be skipped is skipped: pytest on small modules, with and without pytest-xdist."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.skips import Allowed, read

pytestmark = pytest.mark.servers  # pytest starts in a second, with two workers in two

TESTS = """\
import pytest
@pytest.mark.parametrize("name", ["a", "b"])
def test_one(name): pytest.skip("no such thing")
@pytest.mark.xdist_group("it")
@pytest.mark.skipif(True, reason="never")
def test_two(): ...
def test_three(): ...
@pytest.mark.xfail(strict=True)
def test_four(): assert False
"""
MODULE = 'import pytest\npytest.importorskip("not_there")\ndef test(): ...\n'

ONE, TWO, MISSING = (
    "2 test_it.py::test_one[*] # none here",
    "1 *::test_two # never",
    "1 test_module.py # lacks",
)
TWO_SKIPPED = "skipped, and not allowed: test_it.py::test_two: Skipped: never"
MODULE_SKIPPED = (
    "skipped, and not allowed: test_module.py: "
    "Skipped: could not import 'not_there': No module named 'not_there'"
)
CASES = [
    ("all allowed", [ONE, TWO, MISSING], [], 0, ["skips as allowed: 4"]),
    (
        "all allowed, in two processes",
        [ONE, TWO, MISSING],
        ["-n", "2", "--dist", "loadgroup"],
        0,
        ["skips as allowed: 4"],
    ),
    ("not allowed", [ONE], [], 1, [TWO_SKIPPED, MODULE_SKIPPED]),
    (
        "not allowed, in two processes",
        [ONE],
        ["-n", "2", "--dist", "loadgroup"],
        1,
        [TWO_SKIPPED, MODULE_SKIPPED],
    ),
    (
        "too many",
        [ONE.replace("2", "1"), TWO, MISSING],
        [],
        1,
        ["skipped: 2 of test_it.py::test_one[*], not 1 (none here)"],
    ),
    ("too few", [ONE, TWO, MISSING, "1 *three # x"], [], 1, ["skipped: 0 of *three, not 1 (x)"]),
    (
        "not chosen",
        [ONE, TWO],
        ["-k", "three or four", "--ignore", "test_module.py"],
        0,
        ["skips as allowed: 0"],
    ),
]


@pytest.mark.parametrize(
    ("lines", "options", "status", "said"), [row[1:] for row in CASES], ids=[row[0] for row in CASES]
)
def test_skips(tmp_path: Path, lines: list[str], options: list[str], status: int, said: list[str]) -> None:
    """The run fails for a skip that no line allows, and for another number of them than a line has."""
    (tmp_path / "test_it.py").write_text(TESTS)
    (tmp_path / "test_module.py").write_text(MODULE)
    (tmp_path / "allowed").write_text("\n".join(["# count, names, reason", "", *lines]))
    command = [sys.executable, "-m", "pytest", "-p", "tests.skips", "--allowed-skips", "allowed", *options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("PYTEST_XDIST_WORKER", None)
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    found = [line for line in done.stdout.splitlines() if line.startswith("skip")]
    assert (status, said) == (done.returncode, found), done.stdout + done.stderr


def test_line_of_the_file() -> None:
    """A line is a number, names and a reason; another one is refused."""
    assert [Allowed(12, "tests/a.py::b[c-#1]", "d # e")] == read("12 tests/a.py::b[c-#1]  # d # e\n")
    with pytest.raises(pytest.UsageError, match=r"not `COUNT NAMES # REASON`: '1 tests/a.py'"):
        read("# why\n\n1 tests/a.py\n")
