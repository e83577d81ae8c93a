"""Which tests may be skipped: how many, of which names, for what reason. Any other skip fails the run.

    pytest -p tests.skips --allowed-skips FILE

A line of FILE is `COUNT NAMES # REASON`; a `*` in NAMES stands for anything. So many tests of those names are
skipped, no more and no fewer, unless none of them was chosen. What is left out by a mark is not skipped.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest


@dataclass(frozen=True)
class Allowed:
    """A line of the file."""

    count: int
    names: str
    reason: str

    def holds(self, name: str) -> bool:
        """Whether it speaks of this test."""
        return re.fullmatch(re.escape(self.names).replace(r"\*", ".*"), name) is not None


def read(text: str) -> list[Allowed]:
    """The lines of the file."""
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    found = [re.fullmatch(r"(\d+) +(\S.*?) +# +(\S.*)", line) for line in lines]
    if None in found:
        raise pytest.UsageError(f"not `COUNT NAMES # REASON`: {lines[found.index(None)]!r}")
    return [Allowed(int(match[1]), match[2], match[3]) for match in found if match]


class Skips:
    """What ran and what was skipped, in this process or in those of pytest-xdist."""

    def __init__(self, config: pytest.Config, allowed: list[Allowed]) -> None:
        self._config = config
        self._allowed = allowed
        self._ran: set[str] = set()
        self._skipped: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A test."""
        name = _name(report.nodeid)
        self._ran.add(name)
        if report.skipped and not hasattr(report, "wasxfail"):
            self._skipped[name] = _reason(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """A module that skips itself, which pytest-xdist tells nobody."""
        if report.skipped:
            self._skipped[report.nodeid] = _reason(report)
            self._ran.add(report.nodeid)
            if (output := getattr(self._config, "workeroutput", None)) is not None:
                output["skipped modules"] = self._skipped

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """The end of a process of pytest-xdist."""
        modules = getattr(node, "workeroutput", {}).get("skipped modules", {})
        self._ran.update(modules)
        self._skipped.update(modules)

    def faults(self) -> Iterator[str]:
        """What is not as the file has it."""
        for name, reason in sorted(self._skipped.items()):
            if not any(line.holds(name) for line in self._allowed):
                yield f"skipped, and not allowed: {name}: {reason}"
        for line in self._allowed:
            count = sum(map(line.holds, self._skipped))
            if count != line.count and any(map(line.holds, self._ran)):
                yield f"skipped: {count} of {line.names}, not {line.count} ({line.reason})"

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """A run with such a fault has failed."""
        if exitstatus == pytest.ExitCode.OK and any(self.faults()):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Says so."""
        for fault in self.faults():
            terminalreporter.write_line(fault, red=True)
        if not any(self.faults()):
            terminalreporter.write_line(f"skips as allowed: {len(self._skipped)}")


def _name(nodeid: str) -> str:
    """Without `@GROUP`, which pytest-xdist puts behind the names of tests that share a process."""
    return nodeid.rpartition("@")[0] if nodeid.rfind("@") > nodeid.rfind("]") else nodeid


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    """Why it was skipped: the last of the three parts that pytest keeps of it."""
    return str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr)


def pytest_addoption(parser: pytest.Parser) -> None:
    """The option."""
    parser.addoption("--allowed-skips", type=Path, metavar="FILE", help="which tests may be skipped")


def pytest_configure(config: pytest.Config) -> None:
    """Without the option any test may be skipped."""
    if (path := config.getoption("--allowed-skips")) is not None:
        config.pluginmanager.register(Skips(config, read(path.read_text("utf-8"))), "allowed skips")
