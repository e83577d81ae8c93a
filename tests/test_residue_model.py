"""What the reply comes to, held to a model of what the lists come to in Postfix.

Every list is run twice for every outcome that the restrictions left to Postfix could have: as Postfix runs
the lists, and as Postfix runs our reply. The model is generic_checks and smtpd_check_rcpt of smtpd(8).
"""

import itertools
import random
from collections.abc import Iterator, Mapping, Sequence

import pytest

from ldappolicy.action import Kind, parse_action
from ldappolicy.entry import Entry
from ldappolicy.evaluate import Choices, Decision, Evaluator
from ldappolicy.facts import Facts
from ldappolicy.mapping import Mapping as AttributeMapping
from ldappolicy.policy import LISTS, read_policies
from ldappolicy.request import Request
from ldappolicy.residue import SERVER_CONFIGURATION_ERROR

ITEMS = {
    "permit": "permit",
    "reject": "reject",
    "defer": "defer",
    "dip": "defer_if_permit",
    "dir": "defer_if_reject",
    "text5": "check_client_access static:{REJECT go away}",
    "text4": "check_client_access static:{450 come back}",
    "diptext": "check_client_access static:{DEFER_IF_PERMIT wait}",
    "dirtext": "check_client_access static:{DEFER_IF_REJECT wait}",
    "P": "permit_mynetworks",
    "Q": "permit_tls_clientcerts",
    "W": "permit_dnswl_client wl.example",
    "G": "reject_rbl_client rbl.example",
    "R": "reject_unknown_sender_domain",
    "warnR": "warn_if_reject reject_unknown_sender_domain",
    "warnP": "warn_if_reject permit_mynetworks",
    "warn5": "warn_if_reject check_client_access static:{REJECT go away}",
    "builtin": "reject_non_fqdn_recipient",
    "builtin4": "reject_plaintext_session",
}

WORLDS = {
    "P": ("ok", "no"),
    "Q": ("ok", "no"),
    "W": ("ok", "no", "dir"),
    "G": ("no", "5"),
    "R": ("no", "5", "4", "dip"),
}

NAMES = {
    "permit_mynetworks": "P",
    "permit_tls_clientcerts": "Q",
    "permit_dnswl_client": "W",
    "reject_rbl_client": "G",
    "reject_unknown_sender_domain": "R",
    "reject_non_fqdn_recipient": "5",
    "reject_plaintext_session": "4",
}


class Session:
    """smtpd's state at one RCPT: what generic_checks does, for the items that occur here."""

    def __init__(self, world: Mapping[str, str]) -> None:
        self.world = world
        self.deferring = False
        self.rejecting = False

    def refuse(self, code: str, warned: bool) -> str:
        if warned:
            return ""
        return "4" if code == "5" and self.rejecting else code

    def defer_if_permit(self, warned: bool) -> None:
        self.deferring = self.deferring or not warned

    def item(self, name: str, warned: bool) -> str:
        """One item: "" (DUNNO), "ok", "5" or "4"."""
        if name == "permit":
            return "ok"
        if name in ("reject", "defer"):
            return self.refuse("5" if name == "reject" else "4", warned)
        if name == "defer_if_permit":
            self.defer_if_permit(warned)
        elif name == "defer_if_reject":
            self.rejecting = True
        elif name in NAMES:
            return self.left(self.world.get(NAMES[name], NAMES[name]), warned)
        return ""

    def left(self, outcome: str, warned: bool) -> str:
        if outcome == "dip":
            self.defer_if_permit(warned)
            return ""
        if outcome == "dir":
            self.rejecting = True
            return ""
        if outcome in ("5", "4"):
            return self.refuse(outcome, warned)
        return "ok" if outcome == "ok" else ""

    def action(self, value: str, warned: bool) -> str:
        """A right-hand side of a table."""
        action = parse_action(value)
        if action.kind is Kind.REFUSE:
            return self.refuse("4" if action.temporary else "5", warned)
        if action.kind is Kind.DEFER_IF_PERMIT:
            self.defer_if_permit(warned)
        elif action.kind is Kind.DEFER_IF_REJECT:
            self.rejecting = True
        elif action.kind is Kind.LIST:
            return self.list([token.lower() for token in action.tokens])
        return "ok" if action.kind is Kind.PERMIT else ""

    def list(self, tokens: Sequence[str]) -> str:
        """A list of tokens; arguments follow their names."""
        waiting = iter(tokens)
        warned = False
        for token in waiting:
            if token == "warn_if_reject":
                warned = True
                continue
            if token == "check_client_access":
                status = self.action(next(waiting).removeprefix("static:").strip("{}"), warned)
            else:
                status = self.item(token, warned)
                if token in ("reject_rbl_client", "permit_dnswl_client"):
                    next(waiting)
            warned = False
            if status:
                return status
            if self.deferring and self.rejecting:
                return ""
        return ""


def natively(lists: Mapping[str, Sequence[str]], world: Mapping[str, str]) -> str:
    """Whether Postfix accepts ("2"), defers ("4") or rejects ("5") with these lists in main.cf."""
    session = Session(world)
    for name in ("client", "helo", "sender", "relay", "recipient"):
        if name != "recipient":
            session.rejecting = False
        tokens = [token for key in lists.get(name, ()) for token in _tokens(ITEMS[key])]
        status = session.list(tokens)
        if status in ("4", "5"):
            return status
    return "4" if session.deferring else "2"


def _tokens(text: str) -> list[str]:
    head, brace, rest = text.partition("static:")
    return [*head.split(), brace + rest] if brace else text.split()


def by_reply(action: str, world: Mapping[str, str]) -> str:
    """The same for a reply of ours in smtpd_recipient_restrictions."""
    session = Session(world)
    status = session.action(action, warned=False)
    if status in ("4", "5"):
        return status
    return "4" if session.deferring else "2"


ETRN = {LISTS["etrn"]: ["permit"]}
"""A policy needs a list."""


def decide(lists: Mapping[str, Sequence[str]]) -> Decision:
    """Our reply for these lists."""
    values = {LISTS[name]: [", ".join(ITEMS[key] for key in keys)] for name, keys in lists.items() if keys}
    entry = Entry("cn=default", {"objectClass": ["smtpdPolicy"], "cn": ["default"], **ETRN, **values})
    policies = read_policies([entry])
    assert policies.faults == ()
    request = Request(protocol_state="RCPT", sender="a@b.example", recipient="nodot@nodot", client_name="c")
    decision = Evaluator(policies, AttributeMapping(), Choices()).evaluate(
        request, Facts(lambda lookup: None)
    )
    assert isinstance(decision, Decision)
    return decision


def worlds(lists: Mapping[str, Sequence[str]]) -> Iterator[Mapping[str, str]]:
    """Every outcome of what is left to Postfix in these lists."""
    used = sorted({key.removeprefix("warn") for keys in lists.values() for key in keys} & WORLDS.keys())
    for outcomes in itertools.product(*(WORLDS[name] for name in used)):
        yield dict(zip(used, outcomes, strict=True))


def differences(lists: Mapping[str, Sequence[str]]) -> Iterator[tuple[str, str]]:
    """Where the reply opens or closes ("verdict"), or makes a temporary refusal permanent ("permanent")."""
    decision = decide(lists)
    assert decision.action is not None
    if decision.error:
        assert decision.action == SERVER_CONFIGURATION_ERROR
        return
    for world in worlds(lists):
        native, ours = natively(lists, world), by_reply(decision.action, world)
        told = f"{dict(lists)} in {dict(world)}: Postfix {native}, ours {ours} by {decision.action!r}"
        if (native == "2") != (ours == "2"):
            yield "verdict", told
        elif native == "4" and ours == "5":
            yield "permanent", told


def may_change_places(lists: Mapping[str, Sequence[str]]) -> bool:
    """Rules 5 and 6 move refusals that are left to Postfix past what can permit in another list.

    Which of two such refusals is told can then differ, and so can its code: README, Limits.
    """
    refusing = [keys for keys in lists.values() if not {"G", "R"}.isdisjoint(keys)]
    permitting = [keys for keys in lists.values() if not {"P", "Q", "W", "warnP"}.isdisjoint(keys)]
    return len(refusing) > 1 and bool(permitting)


@pytest.mark.parametrize("first", ITEMS)
def test_one_list(first: str) -> None:
    """Every list of up to three items comes to what it comes to in Postfix."""
    lists = [
        {"recipient": (first, *rest)} for count in range(3) for rest in itertools.product(ITEMS, repeat=count)
    ]
    assert [told for one in lists for _, told in differences(one)] == []


@pytest.mark.parametrize(
    "seed", [*range(5), *(pytest.param(seed, marks=pytest.mark.servers) for seed in range(5, 20))]
)
def test_several_lists(seed: int) -> None:
    """Random lists together: accept or refuse is exact, and no temporary refusal becomes permanent."""
    chance = random.Random(seed)
    found = []
    for _ in range(300):
        names = chance.sample(["client", "sender", "relay", "recipient"], chance.randint(2, 4))
        lists = {name: [chance.choice(list(ITEMS)) for _ in range(chance.randint(0, 3))] for name in names}
        allowed = {"permanent"} if may_change_places(lists) else set()
        found += [told for kind, told in differences(lists) if kind not in allowed]
    assert found == []


def test_the_model_notices(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reply that forgets the refusal behind a residue is found."""
    monkeypatch.setattr("tests.test_residue_model.decide", lambda lists: Decision("permit_mynetworks,"))
    assert {kind for kind, _ in differences({"recipient": ("P", "reject")})} == {"verdict"}
