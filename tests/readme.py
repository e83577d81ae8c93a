"""README.md as the tests read it: its blocks and tables, by the comments that name them.

`<!-- test: NAME -->` or `<!-- walk: NAME -->` stands above a block, `<!-- table: NAME -->` above a table.
"""

import re

from tests.conftest import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
WALK: list[tuple[str, str]] = re.findall(r"(?ms)^<!-- walk: (\S+) -->\n```\w*\n(.*?)^```$", README)
"""The blocks of the walk, each with its name, in order."""


def blocks(mark: str) -> list[str]:
    """The blocks under `<!-- test: MARK -->`."""
    found = re.findall(rf"(?ms)^<!-- test: {re.escape(mark)} -->\n```\w*\n(.*?)^```$", README)
    assert found, f"no block {mark!r}"
    return found


def block(mark: str) -> str:
    """The only one."""
    (found,) = blocks(mark)
    return found


def table(mark: str) -> list[list[str]]:
    """The rows of the table under `<!-- table: MARK -->`, without its head."""
    found = re.search(rf"(?m)^<!-- table: {re.escape(mark)} -->\n((?:\|.*\n)+)", README)
    assert found, f"no table {mark!r}"
    rows = [
        [cell.strip() for cell in line.strip().strip("|").split("|")] for line in found[1].splitlines()[2:]
    ]
    assert len({len(row) for row in rows}) == 1, f"{mark}: rows of different length"
    return rows


def quoted(text: str) -> list[str]:
    """What stands between backquotes."""
    return re.findall(r"`([^`]+)`", text)


def section(title: str) -> str:
    """The text under a heading."""
    found = re.search(rf"(?ms)^## {re.escape(title)}\n(.*?)(?=^## |\Z)", README)
    assert found, f"no section {title!r}"
    return found[1]
