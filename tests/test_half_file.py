"""A file of the embedded directory that is half written never comes into force where that can be seen."""

import os
import re
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ldappolicy.cli import EX_CONFIG, run
from ldappolicy.directory.ldif import LdifDirectory
from ldappolicy.directory.replacing import carries_rule, extent, refuse_less, refuse_loss
from ldappolicy.errors import ConfigError, InputError
from ldappolicy.mapping import Mapping
from tests.labs.ldappolicy import DEADLINE, EXAMPLE, HASTY, Ldappolicy, Sections, merged, toml
from tests.labs.slapd import wait_until

MARK = "\n# end\n"
BASE = "dn: dc=my,dc=domain\nobjectClass: domain\n"
POLICY = (
    "\ndn: cn=default,dc=my,dc=domain\nobjectClass: smtpdPolicy\ncn: default\n"
    "smtpdSenderRestrictions: permit\n"
)
LIST = "\ndn: cn=all,dc=my,dc=domain\nobjectClass: mailGroup\nmail: all@my.domain\n"
RULE = "smtpdRecipientAccess: reject\n"
PEOPLE = "".join(f"\ndn: uid={name},dc=my,dc=domain\nuid: {name}\nmail: {name}@my.domain\n" for name in "abc")
TREE = BASE + POLICY + LIST + RULE + PEOPLE

INPLACE, ANOTHER = (1, 1), (1, 2)


def lost(new: str, old: str = TREE, *, is_accepted: bool = False, file: tuple[int, int] = ANOTHER) -> str:
    """Why a file's content does not replace the old one; empty: it does."""
    try:
        found = LdifDirectory.parse(new.encode(), "tree", file)
        held = LdifDirectory.parse(old.encode(), "tree", INPLACE)
        refuse_loss(found, held, Mapping(), "tree", is_accepted=is_accepted)
    except ConfigError as problem:
        return str(problem)
    return ""


def without(text: str, name: str) -> str:
    """A tree without one entry."""
    return re.sub(rf"\ndn: {name}[^\n]*\n(?:[^\n]+\n)*", "", text)


ACCEPT = "expected a last line '# end', or SIGHUP, to accept that"
LOST = "tree: the last line is not '# end', as it is in the content in force"
CASES = [
    ("the same", TREE, TREE, "", ""),
    ("more", TREE, TREE + PEOPLE.replace("uid=", "uid=x"), "", ""),
    ("few without a rule", TREE, without(TREE, "uid=b"), "", ""),
    ("a rule taken off", TREE, TREE.replace(RULE, ""), "", ""),
    (
        "an entry with a rule",
        TREE,
        without(TREE, "cn=all"),
        f"tree: 'cn=all,dc=my,dc=domain', which carried a rule, is gone, {ACCEPT}",
        "",
    ),
    (
        "a policy",
        TREE,
        without(TREE, "cn=default"),
        f"tree: 'cn=default,dc=my,dc=domain', which carried a rule, is gone, {ACCEPT}",
        "",
    ),
    ("half of them", TREE, BASE + POLICY + LIST + RULE, f"tree: 3 of 6 entries are gone, {ACCEPT}", ""),
    ("all of them", TREE, "", f"tree: 6 of 6 entries are gone, {ACCEPT}", ""),
    ("any loss, marked", TREE, BASE + MARK, "", ""),
    ("any loss, both marked", TREE + MARK, BASE + MARK, "", ""),
    ("the mark", TREE + MARK, TREE, LOST, LOST),
    ("the mark, within", TREE + MARK, TREE + MARK + PEOPLE.replace("uid=", "uid=x"), LOST, LOST),
    ("the mark, a longer line", TREE + MARK, TREE + "\n# end of people\n", LOST, LOST),
    ("empty lines behind the mark", TREE + MARK, BASE + MARK + "\n\n", "", ""),
    ("CR LF", TREE + MARK, (BASE + MARK).replace("\n", "\r\n"), "", ""),
]  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new", "by_itself", "by_sighup"), [row[1:] for row in CASES], ids=[row[0] for row in CASES]
)
def test_what_is_refused(old: str, new: str, by_itself: str, by_sighup: str) -> None:
    """What may be half a file is refused, unless it is marked or somebody asks; a lost mark always."""
    assert by_itself == lost(new, old)
    assert by_sighup == lost(new, old, is_accepted=True)


def test_a_file_without_an_end() -> None:
    """A last line without its end is refused by whoever reads the file, at the first start too."""
    with pytest.raises(InputError, match=r"^tree:4: no end of the last line, expected the whole file$"):
        LdifDirectory.parse((BASE + MARK).encode()[:-2], "tree")


def test_a_record_that_is_cut() -> None:
    """In a file that is written in place, the last record may be the beginning of what it was."""
    old = BASE + PEOPLE + POLICY + LIST + RULE
    cut = old.removesuffix(RULE)
    refused = f"tree: the last entry, 'cn=all,dc=my,dc=domain', is the beginning of what it was, {ACCEPT}"
    assert refused == lost(cut, old, file=INPLACE)
    for accepted in (cut + MARK, cut + "smtpdRecipientAccess: permit\n", cut + PEOPLE.replace("=", "=x")):
        assert lost(accepted, old, file=INPLACE) == ""
    assert lost(cut, old, file=ANOTHER) == ""  # a file of another inode was whole when it took the place
    assert lost(cut, old, file=INPLACE, is_accepted=True) == ""


def test_every_cut(example_ldif: Path) -> None:
    """Wherever the example is cut: refused, or every entry that carried a rule is there as it was."""
    text = example_ldif.read_text("utf-8")
    old = LdifDirectory.parse(text.encode(), "tree", INPLACE)
    rules = [entry for entry in old if carries_rule(entry, Mapping())]
    lines = text.splitlines(keepends=True)
    taken = 0
    for count in range(len(lines) - 60, len(lines)):
        try:
            new = LdifDirectory.parse("".join(lines[:count]).encode(), "tree", INPLACE)
            refuse_loss(new, old, Mapping(), "tree", is_accepted=False)
        except (InputError, ConfigError):
            continue
        taken += 1
        assert rules == [new.get(entry.key) for entry in rules]
    assert 0 < taken < 60


EXTENTS = [
    (TREE, TREE, "", ""),
    (TREE, without(TREE, "uid=b"), "", ""),
    (TREE, without(TREE, "cn=all"), f"tree: 1 of 2 entries with a rule are gone, {ACCEPT}", ""),
    (TREE, BASE + POLICY + LIST + RULE, f"tree: 3 of 6 entries are gone, {ACCEPT}", ""),
    (TREE + MARK, TREE, LOST, LOST),
    (TREE + MARK, BASE + MARK, "", ""),
]


@pytest.mark.parametrize(("old", "new", "by_itself", "by_sighup"), EXTENTS)
def test_a_process_that_never_read_the_old_content(
    old: str, new: str, by_itself: str, by_sighup: str
) -> None:
    """What the others have in force is known in numbers."""
    held, found = (extent(LdifDirectory.parse(text.encode(), "tree"), Mapping()) for text in (old, new))
    for expected, is_accepted in ((by_itself, False), (by_sighup, True)):
        said = ""
        try:
            refuse_less(found, held, "tree", is_accepted=is_accepted)
        except ConfigError as problem:
            said = str(problem)
        assert expected == said


# ---------------------------------------------------------------- the service

ALL = {"sender": "stranger@elsewhere.example", "recipient": "all@my.domain"}
INSIDE = {"sender": "a@visitor.example", "recipient": "all@my.domain"}
INSIDER, NEW_INSIDER = "smtpdAccess: partner.example OK", "smtpdAccess: visitor.example OK"


@pytest.fixture
def tree(tmp_path: Path, example_ldif: Path) -> Path:
    """A copy of the example with the mark."""
    path = tmp_path / "tree.ldif"
    path.write_text(example_ldif.read_text("utf-8") + MARK, "utf-8")
    return path


def sections(tree: Path, **server: int) -> Sections:
    """The example's configuration over that file."""
    return merged(EXAMPLE, {"directory": {"uri": [f"ldif:{tree}"]}, "server": server})


@pytest.fixture
def service(tree: Path) -> Iterator[Ldappolicy]:
    """A service that reads the file again soon after a change."""
    with Ldappolicy(sections(tree), timing=replace(HASTY, ldif_look_s=0.02, ldif_quiet_s=0.1)) as running:
        yield running


@pytest.mark.servers
def test_half_of_the_file_in_place(service: Ldappolicy, tree: Path) -> None:
    """The list that is not there yet stays protected until the whole file is there."""
    whole = tree.read_text("utf-8")
    assert "dn: cn=all,ou=lists" in whole
    half = whole[: whole.index("dn: cn=all,ou=lists")]
    tree.write_text(half, "utf-8")
    assert LOST.removeprefix("tree") in service.wait_for_log("file refused")
    assert "reject," == service.ask(**ALL)
    service.hang_up()
    assert LOST.removeprefix("tree") in service.wait_for_log("configuration refused")
    assert "reject," == service.ask(**ALL)
    tree.write_text(whole.replace(INSIDER, NEW_INSIDER), "utf-8")
    wait_until(lambda: service.ask(**INSIDE) == "DUNNO", DEADLINE)
    assert "reject," == service.ask(**ALL)


@pytest.mark.servers
def test_sighup_accepts_a_loss_without_a_mark(tree: Path) -> None:
    """A list that is really gone is gone once somebody says so; a last line without an end never is."""
    whole = tree.read_text("utf-8").removesuffix(MARK)
    tree.write_text(whole, "utf-8")
    timing = replace(HASTY, ldif_look_s=0.02, ldif_quiet_s=0.1)
    with Ldappolicy(sections(tree), timing=timing) as service:
        less = without(whole, "cn=all,ou=lists")
        tree.write_text(less.removesuffix("\n"), "utf-8")
        service.wait_for_log("file refused.*no end of the last line")
        service.hang_up()
        service.wait_for_log("configuration refused.*no end of the last line")
        tree.write_text(less, "utf-8")
        service.wait_for_log(
            "file refused.*'cn=all,ou=lists,dc=example,dc=com', which carried a rule, is gone"
        )
        assert "reject," == service.ask(**ALL)
        service.hang_up()
        wait_until(lambda: service.ask(**ALL) == "DUNNO", DEADLINE)


def test_first_start(tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No command starts with a file whose last line has no end."""
    text = tree.read_text("utf-8")
    tree.write_text(text[: text.index("dn: cn=all,ou=lists") + 20], "utf-8")
    (config := tmp_path / "config.toml").write_text(toml(sections(tree)), "utf-8")
    for command in (["serve"], ["lint"], ["eval", "recipient=all@my.domain"]):
        assert EX_CONFIG == run(["-c", str(config), *command])
        assert "no end of the last line, expected the whole file" in capsys.readouterr().err


@pytest.mark.servers
def test_a_worker_that_is_replaced_meanwhile(tree: Path) -> None:
    """A worker that starts while half of the file is there serves nothing of it; the others go on."""
    timing = replace(HASTY, first_pause_s=0.01, longest_pause_s=0.1)
    whole = tree.read_text("utf-8")
    with Ldappolicy(sections(tree, workers=2), timing=timing) as service:
        wait_until(lambda: len(set(service.log(r"\(pid \d+\) answers"))) == 2, DEADLINE)
        tree.write_text(whole[: whole.index("dn: cn=all,ou=lists")], "utf-8")
        os.kill(service.workers()[0], signal.SIGKILL)
        service.wait_for_log(r"cannot start: .*the last line is not '# end'")
        assert ["reject,"] * 20 == [service.ask(**ALL) for _ in range(20)]
        tree.write_text(whole, "utf-8")
        wait_until(lambda: len(set(service.log(r"\(pid \d+\) answers"))) == 3, DEADLINE)
