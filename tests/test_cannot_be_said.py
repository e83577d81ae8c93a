"""What one reply cannot say, enumerated: a server configuration error, a log line, and lint before.

Each case runs through real Postfix. Through one call it is `451 4.3.5` and a line that names it; a call
from each list says it where what is in the way stands in different lists. README's Limits have the rows.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations

import pytest
from hypothesis import HealthCheck, given, settings

from ldappolicy.action import WHOLE_MESSAGE
from ldappolicy.oracle.replies import says
from ldappolicy.request import Request
from tests.conformance.answering import Answering, sent, session
from tests.conformance.generate import pairs
from tests.conformance.inside import POLICY, of_pair, requests
from tests.conformance.pairs import Pair, Table
from tests.conformance.report import UNSAID, combination
from tests.conformance.runner import cannot_say
from tests.labs.postfix import require_postfix
from tests.language import acting
from tests.readme import table

U = "reject_unknown_sender_domain"
B = "reject_rbl_client deny.example"
W = "permit_dnswl_client allow.example"
V = "permit_rhswl_client names.allow.example"

EFFECTS = {
    "HOLD": "HOLD",
    "PREPEND": "PREPEND X-Test: value",
    "FILTER": "FILTER discard:there",
    "REDIRECT": "REDIRECT r@local.example",
    "BCC": "BCC b@local.example",
}
# The rows of the table in README, and how the log names each.
ROWS = dict(
    zip(
        (
            "`HOLD`, `PREPEND`, `FILTER`, `REDIRECT` or `BCC`, and a restriction left to Postfix",
            (
                "two different ones of `HOLD`, `PREPEND`, `FILTER`, `REDIRECT` and `BCC`; "
                "two of `PREPEND` or of `BCC`"
            ),
            "`HOLD`, `PREPEND`, `FILTER`, `REDIRECT` or `BCC`, and `DEFER_IF_REJECT`",
            "`DISCARD` behind a restriction left to Postfix",
            "restrictions left to Postfix that can permit, in two lists that do not begin with the same ones",
            (
                "a restriction left to Postfix that can permit, where "
                "`check_reverse_client_hostname_access` finds it"
            ),
            "the same where `check_recipient_access` finds it for a recipient with routing in its local part",
        ),
        UNSAID,
        strict=True,
    )
)
RESIDUE, TWO, FLAG, DISCARD, PERMITS, NO_OK, ROUTED = ROWS

CERTAIN, POSSIBLE, UNSEEN = "error", "warning", ""


@dataclass(frozen=True)
class Case:
    """A policy that one reply cannot say. `apart`: a call from each list can; `lint`: what it finds."""

    row: str
    lists: Mapping[str, str]
    apart: bool
    lint: str = CERTAIN
    recipients: tuple[str, ...] = ()
    action: str = ""
    """The action of somebody's attribute, or (with %t%) of a table."""

    def __str__(self) -> str:
        return (
            f"{[*ROWS].index(self.row) + 1}: "
            + "; ".join(map(": ".join, self.lists.items()))
            + f" {self.action}"
        )

    @property
    def pair(self) -> Pair:
        """As data for the runner."""
        tables = {"t": Table("hash", (("local.example", self.action),))} if self.action else {}
        site = {"amy": {"smtpdSenderAccess": self.action}} if self.action == "HOLD" else {}
        return Pair(dict(self.lists), {}, tables, site, session("amy@local.example", *self.recipients))


def one_list(row: str, text: str, lint: str = CERTAIN, action: str = "") -> Case:
    """Everything in one list: no way to say it."""
    return Case(row, {"recipient": text}, apart=False, lint=lint, action=action)


def two_lists(
    row: str, first: str, second: str, at: str = "client", lint: str = CERTAIN, action: str = ""
) -> Case:
    """In two lists, each of which can be said."""
    return Case(row, {at: first, "recipient": second}, apart=True, lint=lint, action=action)


def cases() -> Iterator[Case]:
    """Every row with every action that it is about."""
    for effect in EFFECTS.values():
        yield one_list(RESIDUE, f"{acting(effect)}, {B}")
        yield one_list(RESIDUE, f"{U}, {acting(effect)}")
        yield one_list(RESIDUE, f"{acting(effect)}, {W}, permit_sasl_authenticated, {B}")
        yield two_lists(RESIDUE, acting(effect), B)
        yield two_lists(RESIDUE, B, acting(effect))
        yield one_list(RESIDUE, f"check_sender_access %t%, {B}", lint=POSSIBLE, action=effect)
        yield one_list(FLAG, f"defer_if_reject, {acting(effect)}")
        yield one_list(FLAG, f"{acting('DEFER_IF_REJECT wait')}, {acting(effect)}")
        yield one_list(FLAG, f"{acting(effect)}, defer_if_reject")
        yield two_lists(FLAG, "defer_if_reject", acting(effect), at="relay")
        yield one_list(FLAG, "defer_if_reject, check_sender_access %t%", lint=POSSIBLE, action=effect)
    yield one_list(RESIDUE, f"check_sender_access directory:access, {B}", lint=POSSIBLE, action="HOLD")
    for first, second in combinations(EFFECTS.values(), 2):
        yield one_list(TWO, f"{acting(first)}, {acting(second)}")
        yield two_lists(TWO, acting(first), acting(second))
        yield two_lists(TWO, acting(first), "check_sender_access %t%", lint=POSSIBLE, action=second)
    for verb in ("PREPEND", "BCC"):
        again = EFFECTS[verb].replace("value", "more").replace("b@", "c@")
        yield two_lists(TWO, acting(EFFECTS[verb]), acting(again))
    for left in (U, B, f"{W}, {B}", W):
        yield one_list(DISCARD, f"{left}, {acting('DISCARD')}")
    yield two_lists(DISCARD, B, acting("DISCARD"))
    yield one_list(DISCARD, f"{B}, check_sender_access %t%", lint=POSSIBLE, action="DISCARD gone")
    yield two_lists(PERMITS, f"{W}, {U}", f"{V}, {B}")
    yield two_lists(PERMITS, f"{W}, {V}, {U}", f"{W}, {B}")
    yield two_lists(PERMITS, f"{U}, {W}, {B}", f"{U}, {W}, {B}")
    yield two_lists(PERMITS, f"{W}, reject", f"{V}, reject")
    yield two_lists(PERMITS, f"warn_if_reject {W}, {U}", f"{W}, {U}")
    for left in (W, f"{V}, {B}", f"{W}, reject"):
        yield one_list(NO_OK, f"check_reverse_client_hostname_access static:{{{left}}}", lint=POSSIBLE)
        yield Case(
            ROUTED,
            {"recipient": f"check_recipient_access static:{{{left}, {U}}}"},
            apart=False,
            lint=UNSEEN,
            recipients=("x%relay.example@outside.example",),
        )


CASES = tuple(cases())


@pytest.fixture(scope="module")
def runner() -> Iterator[Answering]:
    """One Postfix for all."""
    require_postfix()
    with Answering() as running:
        yield running


@pytest.mark.servers
@pytest.mark.parametrize("case", CASES, ids=str)
def test_cannot_be_said(runner: Answering, case: Case) -> None:
    """One call is a server configuration error that is named; calls from each list say what can be said."""
    outcome = runner.run(case.pair)
    native, once, each = (runner.runs[name].steps[-1] for name in ("native", "once", "each"))
    assert [] == outcome.differs
    assert ("451 4.3.5", "451 4.3.5 Server configuration error") == (once.reply[:9], sent(once))
    assert re.fullmatch(ROWS[case.row], cannot_say(once)), once.log
    assert case.apart == (says(each.reply) == says(native.reply)) == (not cannot_say(each))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_lint(case: Case) -> None:
    """An error where the policy alone shows it, a warning where a table may lead there."""
    found = [line for line in of_pair(case.pair).lint() if "one reply cannot say" in line]
    assert {case.lint} - {UNSEEN} == {line.partition(":")[0] for line in found}
    assert case.apart == any("call the service once for each list" in line for line in found)


@pytest.mark.servers
@settings(max_examples=100, suppress_health_check=list(HealthCheck))
@given(pairs())
def test_nothing_else(pair: Pair) -> None:
    """What generated policies cannot say is one of these."""
    site = of_pair(pair)
    for request in requests(pair):
        asked = Request.from_attributes({**request, "policy_context": POLICY})
        error = site.resolve(asked).error
        said = re.match(r".*?one reply cannot say (.*) \(", error or "")
        assert not said or any(re.fullmatch(row, said[1]) for row in ROWS.values()), error


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ("PREPEND X: a and b and HOLD", "two actions on the message"),
        ("DISCARD behind restrictions that are left to Postfix", "DISCARD behind a residue"),
        ("HOLD and restrictions that are left to Postfix", "an action on the message and a residue"),
    ],
)
def test_combination(what: str, expected: str) -> None:
    """The report of generated pairs knows each row by what the log says."""
    assert expected == combination(what)


def test_actions() -> None:
    """The actions of the table are all that act on a message and let it through."""
    assert {*WHOLE_MESSAGE, "HOLD"} - {"DISCARD"} == EFFECTS.keys()


def test_readme() -> None:
    """README's Limits have the rows, and for each whether calling once for each list helps."""
    helps = {row: {case.apart for case in CASES if case.row == row} for row in ROWS}
    said = {
        frozenset({True}): "always",
        frozenset({False}): "never",
        frozenset({True, False}): "where they stand in different lists",
    }
    assert [[row, said[frozenset(found)]] for row, found in helps.items()] == table("cannot")
