"""Policies, classes and tables that are read together are one revision, which policies take whole or not."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from ldappolicy.entry import Entry
from ldappolicy.policy import PolicySet, read_policies
from ldappolicy.revision import held_back
from tests.labs.ldappolicy import DEADLINE, EXAMPLE, HASTY, Ldappolicy, merged
from tests.labs.slapd import wait_until
from tests.language import BASE, classes, policy, restriction_class, table


def revision(*entries: Entry | Sequence[Entry], before: PolicySet | None = None) -> PolicySet:
    """What is in force when these entries are read after what was in force."""
    flat = [one for some in entries for one in ([some] if isinstance(some, Entry) else some)]
    found = read_policies(flat, previous=before)
    return found if before is None else held_back(found, before)


def told(policies: PolicySet) -> list[str]:
    """What is said of policies that are held back."""
    return [str(fault) for fault in policies.faults if "stays in force" in fault.text]


STAYS = "; the last good form of policy 'default' stays in force"
DEFAULT = f"error: cn=default,ou=policy,{BASE}: smtpdRecipientRestrictions: "
INNER = f"error: cn=inner,ou=classes,ou=policy,{BASE}: smtpdRestrictions: unknown restriction or class "
UNKNOWN = DEFAULT + "unknown restriction or class "

HELD: dict[str, tuple[list[Entry], list[Entry], str]] = {
    "a misspelt restriction": (
        [policy(recipient="permit")],
        [policy(recipient="reject_unath_destination")],
        UNKNOWN + f"'reject_unath_destination'{STAYS}",
    ),
    "a class that is gone": (
        [policy(recipient="inner"), *classes(inner="reject")],
        [policy(recipient="inner")],
        UNKNOWN + f"'inner'{STAYS}",
    ),
    "a class before it is there, under another name": (
        [policy(recipient="inner"), *classes(inner="reject")],
        [policy(recipient="outer"), *classes(inner="reject")],
        UNKNOWN + f"'outer'{STAYS}",
    ),
    "a class that does not parse, where there was none": (
        [policy(recipient="permit")],
        [policy(recipient="inner"), *classes(inner="check_sender_access")],
        UNKNOWN + f"'inner'{STAYS}",
    ),
    "a table that is gone": (
        [policy(recipient="check_sender_access ldap:t"), table("t", "a REJECT")],
        [policy(recipient="check_sender_access ldap:t")],
        DEFAULT + f"unknown table 'ldap:t'{STAYS}",
    ),
    "a table of a type that is none": (
        [policy(recipient="permit")],
        [policy(recipient="check_sender_access hash:/etc/postfix/t")],
        DEFAULT + f"unknown table 'hash:/etc/postfix/t'{STAYS}",
    ),
    "a table that is none of recipient's": (
        [policy(recipient="permit")],
        [policy(recipient="check_sender_access recipient:membres")],
        DEFAULT + f"unknown table 'recipient:membres'{STAYS}",
    ),
    "our destinations": (
        [policy(smtpdLocalDomains="ldap:t"), table("t", "a OK")],
        [policy(smtpdLocalDomains="ldap:t")],
        f"error: cn=default,ou=policy,{BASE}: smtpdLocalDomains: unknown table 'ldap:t'{STAYS}",
    ),
    "in the body of a class": (
        [policy(recipient="inner"), *classes(inner="reject")],
        [policy(recipient="inner"), *classes(inner="rejcet")],
        INNER + f"'rejcet'{STAYS}",
    ),
    "in a line of a table": (
        [policy(recipient="check_sender_access ldap:t"), table("t", "a REJECT")],
        [policy(recipient="check_sender_access ldap:t"), table("t", "a inner, reject")],
        f"error: cn=t,ou=tables,ou=policy,{BASE}: smtpdAccess: unknown restriction or class 'inner'{STAYS}",
    ),
    "in inline:": (
        [policy(recipient="permit")],
        [policy(recipient="check_sender_access inline:{a=inner}")],
        UNKNOWN + f"'inner'{STAYS}",
    ),
    "in a class that values of entries may name": (
        [policy(recipient="check_recipient_access directory:access"), *classes(inner="reject")],
        [policy(recipient="check_recipient_access directory:access"), *classes(inner="rejcet")],
        INNER + f"'rejcet'{STAYS}",
    ),
}


@pytest.mark.parametrize(("before", "after", "said"), HELD.values(), ids=HELD.keys())
def test_held_back(before: list[Entry], after: list[Entry], said: str) -> None:
    """A policy that would name what is not there stays, with its classes and tables, and it is said why."""
    first = revision(before)
    second = revision(after, before=first)
    assert [said] == told(second)
    assert first.policies["default"] == second.policies["default"]
    held = second.in_force("default")
    assert (first.classes, first.tables, first.revision) == (held.classes, held.tables, held.revision)
    again = revision(after, before=second)
    assert (second.faults, second.revision) == (again.faults, again.revision)
    assert {} == revision(before, before=again).kept


TAKEN: dict[str, tuple[list[Entry], list[Entry]]] = {
    "what was wrong before": ([policy(recipient="inner")], [policy(recipient="inner, reject")]),
    "names that are there": (
        [policy(recipient="permit")],
        [policy(recipient="inner, check_sender_access ldap:t"), *classes(inner="reject"), table("t", "a OK")],
    ),
    "a class that nothing names": ([policy(), *classes(inner="reject")], [policy()]),
    "an error in a class that nothing names": (
        [policy(recipient="permit"), *classes(inner="reject")],
        [policy(recipient="permit"), *classes(inner="rejcet")],
    ),
    "a class that values of entries may name": (
        [policy(recipient="check_recipient_access directory:access"), *classes(inner="reject")],
        [policy(recipient="check_recipient_access directory:access")],
    ),
    "classes that name each other": (
        [policy(recipient="permit")],
        [policy(recipient="a"), *classes(a="check_sender_access ldap:t", b="a"), table("t", "x b")],
    ),
}


@pytest.mark.parametrize(("before", "after"), TAKEN.values(), ids=TAKEN.keys())
def test_taken(before: list[Entry], after: list[Entry]) -> None:
    """What has no last good form, what resolves, and what no policy reaches is taken."""
    second = revision(after, before=revision(before))
    assert ({}, []) == (second.kept, told(second))


def test_others_take_their_part() -> None:
    """A policy that reaches nothing of what is wrong takes its part of the revision."""
    first = revision(policy(recipient="inner"), policy("other", recipient="permit"), classes(inner="reject"))
    second = revision(policy(recipient="inner"), policy("other", recipient="reject"), before=first)
    assert {"default"} == second.kept.keys()
    assert ("reject",) == tuple(map(str, second.policies["other"].lists["recipient"]))  # type: ignore[union-attr]
    assert (first.revision, second.revision) == tuple(
        second.in_force(name).revision for name in ("default", "other")
    )


def test_until_the_class_is_there() -> None:
    """Replication brings a policy before its class: it is in force when both are there."""
    old, inner = policy(recipient="permit"), restriction_class("inner", "reject")
    new = policy(recipient="inner")
    first = revision(old)
    second = revision(new, before=first)
    third = revision(new, restriction_class("unlike", "permit"), before=second)
    assert first.policies["default"] == third.policies["default"]
    fourth = revision(new, inner, before=third)
    assert ({}, []) == (fourth.kept, told(fourth))
    assert ("inner",) == tuple(map(str, fourth.policies["default"].lists["recipient"]))  # type: ignore[union-attr]


def test_few_are_told() -> None:
    """A hundred misspelt names are five lines of log."""
    wrong = ", ".join(f"wrong{number}" for number in range(100))
    second = revision(policy(recipient=wrong), before=revision(policy(recipient="permit")))
    assert 5 == len(told(second))


@pytest.mark.servers
def test_in_service(tmp_path: Path, example_ldif: Path) -> None:
    """A misspelt restriction changes nothing, not even at the next start; its correction is taken."""
    good = example_ldif.read_text("utf-8")
    policies = "smtpdRecipientRestrictions: check_recipient_access directory:access"
    (tree := tmp_path / "tree.ldif").write_text(good, "utf-8")
    request = {"sender": "stranger@elsewhere.example", "recipient": "all@my.domain"}
    other = {**request, "recipient": "nobody@my.domain"}
    sections = merged(
        EXAMPLE, {"directory": {"uri": [f"ldif:{tree}"]}, "cache": {"snapshot": str(tmp_path / "snapshot")}}
    )
    with Ldappolicy(sections, timing=replace(HASTY, ldif_look_s=0.02, ldif_quiet_s=0.1)) as service:
        assert "reject," == service.ask(**request)
        tree.write_text(good.replace(policies, f"{policies}, rejcet"), "utf-8")
        place = "error: cn=default,ou=policy,dc=example,dc=com: smtpdRecipientRestrictions: "
        service.wait_for_log(f"^{place}unknown restriction or class 'rejcet'{STAYS}$")
        for _ in range(2):
            assert "reject," == service.ask(**request)
            assert "DUNNO" == service.ask(**other)
            service.stop()
            service.start()
        tree.write_text(good.replace(policies, f"{policies}, reject"), "utf-8")
        wait_until(lambda: service.ask(**other) == "reject,", DEADLINE)
