"""`ldappolicy import` over a folder with a main.cf: the examples, and the command in this process."""

from pathlib import Path

import pytest

from ldappolicy.cli import run

FOLDERS = Path(__file__).parents[1] / "main_cf"
RECIPES = sorted(folder.name for folder in FOLDERS.iterdir())
BASE = "ou=policy,dc=example,dc=com"


def run_import(main_cf: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit status, standard output, standard error of the command."""
    capsys.readouterr()
    no_configuration = ("-c", str(main_cf.parent / "none"))
    status = run([*no_configuration, "import", "--main-cf", str(main_cf), "--policy-base", BASE, *arguments])
    said = capsys.readouterr()
    return status, said.out, said.err
