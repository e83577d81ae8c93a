"""The benchmark runs from end to end in a tiny size, and its instruments tell what is so.

What it measures in that size says nothing; that there is a figure in every row, and no wrong answer, does.
"""

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bench import kit, postfwd, smtp, speed, table
from tests.bench.beside import ROWS, command, parser
from tests.bench.kit import TINY, Kit
from tests.bench.load import Run, idle_connections, in_turn, middle, processes
from tests.bench.memory import settled
from tests.labs.slapd import wait_until

SPEED = [
    "first pass, 100 connections, nothing remembered",
    "10 connections",
    "10 connections, 2 workers",
    "100 connections",
    "100 connections, 2 workers",
    "100 connections, TCP",
    "open loop, 500/s, 100 connections: p50 / p99",
    "70 connections of which 50 are busy",
]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Kit:
    """The kit, made once; a short path, for sockets."""
    if reason := kit.lacking():
        pytest.skip(reason)
    made = Kit(tmp_path_factory.mktemp("b"), TINY)
    made.make()
    return made


@pytest.mark.servers
def test_first_pass(tiny: Kit) -> None:
    """The first row of speed: a service just started, beside one that does nothing."""
    row = speed.first_pass(tiny)
    assert (SPEED[0], "0") == (row.what, row.wrong)
    assert re.match("[1-9]", row.measured)
    assert row.beside


@pytest.mark.long
def test_speed(tiny: Kit) -> None:
    """Every row has a figure beside another one, and no wrong answer."""
    rows = list(speed.rows(tiny))
    assert SPEED == [row.what for row in rows]
    assert ["0"] * len(rows) == [row.wrong for row in rows]
    assert [] == [row for row in rows if not re.match("[1-9]", row.measured) or not row.beside]


@pytest.mark.servers
def test_native_rules(tiny: Kit, tmp_path: Path) -> None:
    """Each list is a class of its own for Postfix, over tables of one kind."""
    if reason := smtp.lacking():
        pytest.skip(reason)
    cases = {"h": smtp.hash_tables(tiny, tmp_path), "l": smtp.ldap_tables(tiny, tmp_path, "ldap://127.0.0.1")}
    for letter, native in cases.items():
        names = [f"{letter}{name}" for name in ("local", "list0000", "list0001", "list0002", "list0003")]
        assert names == list(native.classes)
        assert ", ".join(names) == native.restrictions["smtpd_restriction_classes"]
    assert "user" in (tmp_path / "list0000").read_text()
    assert (tmp_path / "list0000.db").exists()


@pytest.mark.servers
def test_rules_of_postfwd(tiny: Kit, tmp_path: Path) -> None:
    """Every jump leads somewhere, every table holds something."""
    postfwd.write_rules(tiny, tmp_path)
    rules = (tmp_path / "rules").read_text().splitlines()
    names = [re.split("[=;]", rule)[1] for rule in rules]
    assert 5 + 3 * TINY.lists == len(set(names)) == len(names)
    assert set() == set(re.findall(r"jump\((\w+)\)", "\n".join(rules))) - set(names)
    files = re.findall(r"table:([^;]+);", "\n".join(rules))
    assert [] == [name for name in files if not Path(name).read_text()]


@pytest.mark.servers
def test_tree(tiny: Kit) -> None:
    """The service's directory holds what the kit's does."""
    text = tiny.tree.read_text()
    restricted = sum(user["restricted"] for user in tiny.directory["users"].values())
    assert TINY.users == text.count("objectClass: inetOrgPerson")
    assert restricted == text.count("smtpdSenderAccess: local_only")
    assert sum(len(one["members"]) for one in tiny.directory["lists"].values()) == text.count("\nmember: ")


@pytest.mark.servers
def test_ordinary_mail(tiny: Kit) -> None:
    """Mail between users is right to permit, whoever of them is paired with whom."""
    part = tiny.internal()
    assert {"DUNNO"} == set(part.expect.read_text().split())
    assert 0 < part.count < TINY.requests
    assert part.count == part.requests.read_text().count("\n\n")


# ------------------------------------------------------------ instruments


def test_in_turn() -> None:
    """Everybody has a run in each round, in the same order; what is told is the median."""
    order: list[str] = []

    def contestant(name: str, rates: Iterator[float]) -> Run:
        order.append(name)
        return Run(next(rates), wrong=1)

    first, second = iter((5.0, 900.0, 6.0)), iter((1.0, 2.0, 3.0))
    found = in_turn(3, {"a": lambda: contestant("a", first), "b": lambda: contestant("b", second)})
    assert list("ababab") == order
    assert {"a": Run(6.0, wrong=3), "b": Run(2.0, wrong=3)} == found


def test_middle() -> None:
    """Figures are medians each for itself; wrong answers add up."""
    runs = [Run(1, 30, 9, 2, 0), Run(3, 10, 7, 3, 5), Run(2, 20, 8, 1, 1)]
    assert Run(2, 20, 8, 2, 6) == middle(runs)


def test_processes() -> None:
    """A process, what it started, and what that started."""
    nested = f"import subprocess; subprocess.run([{sys.executable!r}, '-c', 'input()'])"
    with subprocess.Popen([sys.executable, "-c", nested], stdin=subprocess.PIPE) as process:
        wait_until(lambda: len(processes(process.pid)) == 2)
        first, second = processes(process.pid)
        assert process.pid == first != second
        process.communicate(b"\n")


def test_memory() -> None:
    """Memory of its own is no more than its share, and is told once it stays."""
    [(pss, uss)] = settled([os.getpid()])
    assert 0 < uss <= pss


def test_idle_connections(tmp_path: Path) -> None:
    """They are open while they should be, and gone afterwards."""
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(5)
        with idle_connections(path, 3):
            held = [listener.accept()[0] for _ in range(3)]
            listener.setblocking(False)
            with pytest.raises(BlockingIOError):
                listener.accept()
        assert [b"", b"", b""] == [one.recv(1) for one in held]
        for one in held:
            one.close()


RATIOS = [
    (1.0, "1.00"),
    (0.347, "0.35"),
    (0.1, "0.10"),
    (0.0423, "0.042"),
    (0.0005, "0.0005"),
    (12.345, "12.35"),
]


@pytest.mark.parametrize(("number", "text"), RATIOS)
def test_ratio(number: float, text: str) -> None:
    """A small ratio is not rounded to nothing."""
    assert text == table.ratio(number)


def test_line() -> None:
    """A rate beside another one is a row of Markdown."""
    row = table.rate("x", Run(1234.5, cpu=7.25, wrong=2), "echo", Run(5000))
    assert "| x | 1,234/s | echo 5,000/s | 0.25 | 7.2 | 2 |" == table.line(row)


COMMANDS = [
    ([], "make bench"),
    (["--quick"], "make bench QUICK=1"),
    (["--pin", "--only", "speed", "--only", "memory"], "make bench PIN=1 ONLY='speed memory'"),
]


@pytest.mark.parametrize(("arguments", "expected"), COMMANDS)
def test_command(arguments: list[str], expected: str) -> None:
    """The table says how to have it again."""
    assert expected == command(parser().parse_args(arguments))


def test_rows_have_names() -> None:
    """What ONLY takes is what the Makefile says."""
    makefile = (Path(__file__).parents[2] / "Makefile").read_text()
    assert f'ONLY="{" ".join(ROWS)}"' in makefile
