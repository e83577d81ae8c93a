"""Small inputs that failed at real sites: each folder of cases/ is a directory and what to ask it.

`expect` holds one command a line, as it is typed in the folder, and behind ` => ` what comes of it: of `eval`
the whole action, of others a part of what they print, or `status N`. With `!` before it: must not be seen.
"""

import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.labs.ldappolicy import program

pytestmark = pytest.mark.servers  # one process for each line

CASES = Path(__file__).parent / "cases"
EXPECTED = [
    pytest.param(path.parent, *line.rsplit(" => ", 1), id=f"{path.parent.name}: {line}")
    for path in sorted(CASES.glob("*/expect"))
    for line in path.read_text().splitlines()
    if line.strip() and not line.startswith("#")
]


@pytest.mark.parametrize(("folder", "command", "expected"), EXPECTED)
def test_case(folder: Path, command: str, expected: str, tmp_path: Path) -> None:
    """What the administrator expected is what the command does."""
    copy = tmp_path / folder.name
    shutil.copytree(folder, copy)
    words = shlex.split(command)
    done = subprocess.run(
        [program(), "-c", "config.toml", *words],
        cwd=copy, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    said = done.stdout + done.stderr
    unwanted, wanted = expected.startswith("!"), expected.removeprefix("!")
    if wanted.startswith("status "):
        assert int(wanted.split()[1]) == done.returncode, said
    elif words[0] == "eval":
        (action,) = [line for line in done.stdout.splitlines() if line.startswith("action=")]
        assert unwanted is not (f"action={wanted}" == action), said
    else:
        assert unwanted is not (wanted in said), said
