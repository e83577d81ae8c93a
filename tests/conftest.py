"""What every test shares: where the project's files are, how hypothesis runs, and the three tiers.

`make check` runs what has no mark, `make test` what is marked `servers` as well, `make test-all` also what is
marked `long`. A test without a mark that starts a server of somebody else's fails and names it, so that the
inner loop stays one. Tests that share a fixture of a module run in one process (`--dist loadgroup`).
"""

import os
import sys
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from tests.labs.templates import place

ROOT = Path(__file__).parents[1]

# No deadline for one example, and none for drawing them: a pause of a machine that is shared is not a fault.
# The same examples each time: a run tells of the change (--hypothesis-profile=other-examples: others).
hypothesis.settings.register_profile(
    "other-examples", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.register_profile(
    "shared", hypothesis.settings.get_profile("other-examples"), derandomize=True
)
hypothesis.settings.load_profile("shared")

SERVERS = frozenset(("slapd", "ns-slapd", "prometheus", "unshare", "ktutil", "systemd-analyze", "groff"))
"""Programs that only a test with a mark starts; unshare(1) is what starts Postfix, Samba and Docker."""

_unmarked = ""


def _refuse_servers(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "subprocess.Popen" and _unmarked and Path(os.fsdecode(arguments[0])).name in SERVERS:
        raise RuntimeError(f"{_unmarked} starts {arguments[0]}: mark it `servers` or `long`")


sys.addaudithook(_refuse_servers)


def pytest_configure() -> None:
    """The processes of a run share what takes long to prepare; the first of them removes it."""
    place()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> Any:
    """Holds a test without a mark to `make check`."""
    global _unmarked
    marked = any(item.iter_markers("servers")) or any(item.iter_markers("long"))
    _unmarked = "" if marked else item.nodeid
    try:
        return (yield)
    finally:
        _unmarked = ""


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> Any:
    """Tests that share a fixture of their module run one after the other in one process."""
    for item in items:
        group = isinstance(item, pytest.Function) and _shares(item)
        if group and not any(item.iter_markers("xdist_group")):
            item.add_marker(pytest.mark.xdist_group(group))
    result = yield
    for item in items:
        for mark in item.iter_markers("xdist_group"):
            # pytest-xdist 3.8 does this itself, by a name that pytest 9.2 has given up.
            behind = f"@{mark.args[0]}"
            is_there = item.nodeid.endswith(behind) or not hasattr(item, "_id")
            if "PYTEST_XDIST_WORKER" in os.environ and not is_there:
                item._id = item.id.parse(f"{item.nodeid}{behind}")  # noqa: SLF001
    return result


def _shares(item: pytest.Function) -> str:
    """The module and the parameters of its shared fixtures; empty: it shares nothing that takes time."""
    definitions = item._fixtureinfo.name2fixturedefs  # noqa: SLF001 - pytest has no public way to ask
    shared = {name for name, found in definitions.items() if found[-1].scope in ("module", "package")}
    if not shared:
        return ""
    chosen = getattr(item, "callspec", None)
    indices = chosen.indices if chosen else {}
    which = "-".join(str(indices[name]) for name in sorted(shared & indices.keys()))
    return f"{item.path.relative_to(ROOT)}-{which}"


@pytest.fixture(scope="session")
def example_ldif() -> Path:
    """The example company: the one tree of README, demonstration and tests."""
    return ROOT / "schema" / "example.ldif"
