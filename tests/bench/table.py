"""The table of a run, as README shows it: Markdown, with what the figures are worthless without."""

import os
import platform
from collections.abc import Iterable
from dataclasses import astuple, dataclass, fields
from datetime import UTC, datetime

from tests.bench.load import Run


@dataclass(frozen=True, slots=True)
class Row:
    """One line; `measured` is what it is about, `beside` what was run in turn with it."""

    what: str
    measured: str
    beside: str = ""
    ratio: str = ""
    cpu: str = ""
    wrong: str = ""


HEADINGS = Row("what", "measured", "beside it", "ratio", "CPU a request, us", "wrong answers")


def rate(what: str, run: Run, name: str, beside: Run, unit: str = "/s") -> Row:
    """A rate beside another one."""
    return Row(
        what,
        f"{run.per_s:,.0f}{unit}",
        f"{name} {beside.per_s:,.0f}{unit}",
        ratio(run.per_s / beside.per_s),
        f"{run.cpu:.1f}" if run.cpu else "",
        f"{run.wrong}",
    )


def ratio(number: float) -> str:
    """Two digits that count."""
    return f"{number:.2f}" if number >= 0.1 else f"{number:.2g}"


def lines(command: str, rows: Iterable[Row]) -> Iterable[str]:
    """The heading, then each row as soon as it is there."""
    today = datetime.now(UTC).date().isoformat()
    yield f"{today}, `{command}`: {os.cpu_count()} cores, Python {platform.python_version()}, {kernel()}."
    yield ""
    yield line(HEADINGS)
    yield "|" + "---|" * len(fields(Row))
    yield from map(line, rows)


def line(row: Row) -> str:
    """One row of the table."""
    return "| " + " | ".join(astuple(row)) + " |"


def kernel() -> str:
    """What the machine runs."""
    return f"{platform.system()} {platform.release()} {platform.machine()}"
