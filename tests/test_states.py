"""Protocol states and contexts: which policy, and which of its lists, answer a request."""

import pytest

from ldappolicy.policy import LISTS
from tests.language import CONFIGURATION_ERROR, Site, answer, entry, policy

EVERY = {name: f"check_client_access static:{{INFO {name}}}" for name in LISTS}
"""Each list leaves its name in the log."""


def lists_run(site: Site, **attributes: str) -> list[str]:
    """The lists that were evaluated, in order."""
    decision = site.decide(**attributes)
    assert "DUNNO" == decision.action
    return [note.removeprefix("INFO ") for note in decision.notes]


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ("CONNECT", "client"),
        ("XCLIENT", "client"),
        ("EHLO", "helo"),
        ("HELO", "helo"),
        ("MAIL", "sender"),
        ("RCPT", "client helo sender relay recipient"),
        ("VRFY", "client helo sender relay recipient"),
        ("DATA", "data"),
        ("END-OF-MESSAGE", "end_of_data"),
        ("ETRN", "client helo etrn"),
    ],
)
def test_lists_of_a_state(state: str, expected: str) -> None:
    """Each protocol state runs the lists that Postfix would run, in its order."""
    assert expected.split() == lists_run(Site(policy(**EVERY)), protocol_state=state)


@pytest.mark.parametrize("state", ["", "rcpt", "QUIT", "BDAT"])
def test_other_states(state: str) -> None:
    """Any other state is DUNNO and a warning, also where every list refuses."""
    decision = Site(policy(**dict.fromkeys(LISTS, "reject"))).decide(protocol_state=state)
    assert ("DUNNO", "") == (decision.action, decision.error)
    assert any("protocol_state" in note for note in decision.notes)


@pytest.mark.parametrize("name", list(LISTS))
@pytest.mark.parametrize("state", ["RCPT", "DATA", "CONNECT", "ETRN"])
def test_one_list_only(name: str, state: str) -> None:
    """NAME/LIST evaluates that one list, in whatever state it is called."""
    site = Site(policy(**EVERY))
    assert [name] == lists_run(site, policy_context=f"default/{name}", protocol_state=state)


def test_empty_lists() -> None:
    """A list that is absent is empty, not Postfix's default."""
    assert "DUNNO" == Site(policy()).action()
    assert "DUNNO" == Site(policy(client="reject")).action(policy_context="default/recipient")


@pytest.mark.parametrize(
    ("context", "expected"),
    [
        ("", "REJECT default"),
        ("default", "REJECT default"),
        ("other", "REJECT other"),
        ("other/recipient", "REJECT other"),
        ("other/sender", "DUNNO"),
        ("/recipient", "REJECT default"),
        ("nosuch", CONFIGURATION_ERROR),
        ("nosuch/recipient", CONFIGURATION_ERROR),
        ("other/nosuch", CONFIGURATION_ERROR),
        ("other/Recipient", CONFIGURATION_ERROR),
        ("other/", CONFIGURATION_ERROR),
        ("other/recipient/x", CONFIGURATION_ERROR),
        ("default/end-of-data", CONFIGURATION_ERROR),
    ],
)
def test_contexts(context: str, expected: str) -> None:
    """policy_context names the policy, and after a slash the list; what it cannot name is an error."""
    named = [
        policy(name, recipient=f"check_client_access static:{{REJECT {name}}}")
        for name in ("default", "other")
    ]
    decision = Site(*named).decide(policy_context=context)
    assert expected == decision.action
    assert (expected == CONFIGURATION_ERROR) == bool(decision.error)


@pytest.mark.parametrize("context", ["nosuch", "default/nosuch"])
def test_context_before_state(context: str) -> None:
    """A context that means nothing is an error in every state that Postfix knows."""
    for state in ("CONNECT", "DATA", "END-OF-MESSAGE"):
        assert CONFIGURATION_ERROR == Site(policy()).action(policy_context=context, protocol_state=state)


@pytest.mark.parametrize(
    ("state", "sender", "expected"),
    [
        *((state, "", "none yet") for state in ("CONNECT", "XCLIENT", "EHLO", "HELO", "VRFY", "ETRN")),
        *((state, "", "null") for state in ("MAIL", "RCPT", "DATA", "END-OF-MESSAGE")),
        ("ETRN", "a@b.example", "address"),
        ("RCPT", "a@b.example", "address"),
    ],
)
def test_empty_sender(state: str, sender: str, expected: str) -> None:
    """An empty sender is none yet in the early states, and the null sender elsewhere."""
    name = "client" if expected == "none yet" or state == "ETRN" else "sender"
    actions = {"none yet": "DUNNO", "null": "REJECT null", "address": "REJECT address"}
    inline = "check_sender_access inline:{ {<>=REJECT null} {b.example=REJECT address} }"
    site = Site(policy(**{name: inline}))
    actual = site.action(protocol_state=state, sender=sender, policy_context=f"default/{name}")
    assert actions[expected] == actual


@pytest.mark.parametrize(
    ("context", "sender", "expected"),
    [
        ("default", "", "DUNNO"),
        ("default", "a@b.example", "reject,"),
        ("default/sender", "", "reject,"),
    ],
)
def test_verify_before_mail(context: str, sender: str, expected: str | None) -> None:
    """At VRFY Postfix skips the sender list while there is no sender; one that calls has one."""
    site = Site(policy(sender="reject"))
    assert expected == site.action(protocol_state="VRFY", sender=sender, policy_context=context)


@pytest.mark.parametrize(("state", "expected"), [("VRFY", "DUNNO"), ("RCPT", "defer_if_permit,")])
def test_deferral_at_verify(state: str, expected: str) -> None:
    """A defer_if_permit of the client list is lost at VRFY before MAIL, as in Postfix."""
    site = Site(policy(client="defer_if_permit"))
    assert expected == site.action(protocol_state=state, sender="")


@pytest.mark.parametrize("state", ["CONNECT", "EHLO", "MAIL", "DATA"])
def test_empty_recipient(state: str) -> None:
    """Without a recipient its checks are skipped, those of anything else are not."""
    listed = """check_recipient_access static:REJECT, reject_non_fqdn_recipient, reject_unauth_destination,
        permit_auth_destination, check_sender_access recipient:denied,
        check_client_access static:{550 5.7.9 NEXT}"""
    site = Site(policy(recipient=listed, smtpdLocalDomains="inline:{x=y}"))
    actual = site.action(protocol_state=state, recipient="", policy_context="default/recipient")
    assert "550 5.7.9 NEXT" == actual


# ---------------------------------------------------------------- lists are independent


@pytest.mark.parametrize(
    ("lists", "expected"),
    [
        pytest.param({"client": "permit", "recipient": "reject"}, "reject,", id="a permit ends its own list"),
        pytest.param({"relay": "reject", "recipient": "permit"}, "reject,", id="none undoes another"),
        pytest.param({"client": "reject", "recipient": "defer"}, "reject,", id="the first refusal"),
        pytest.param({"sender": "defer", "recipient": "reject"}, "defer,", id="the first deferral"),
        pytest.param(
            {"client": "defer_if_permit", "recipient": "permit"}, "defer_if_permit,", id="defers at the end"
        ),
        pytest.param(
            {"client": "defer_if_permit", "recipient": "reject"}, "reject,", id="a refusal comes first"
        ),
        pytest.param(
            {"client": "defer_if_reject", "recipient": "reject"}, "reject,", id="defer_if_reject stays"
        ),
        pytest.param(
            {"relay": "defer_if_reject", "recipient": "reject"},
            "defer_if_reject, reject",
            id="relay and recipient are one",
        ),
        pytest.param({"client": "defer_if_reject"}, "DUNNO", id="forgotten at the end of its list"),
        pytest.param({"relay": "defer_if_reject"}, "defer_if_reject,", id="relay's reaches the reply"),
    ],
)
def test_independent_lists(lists: dict[str, str], expected: str) -> None:
    """A permit ends only its own list, a reject or defer ends everything."""
    assert expected == Site(policy(**lists)).action()


@pytest.mark.parametrize("name", ["client", "helo", "sender", "data"])
def test_defer_if_reject_of_one_list(name: str) -> None:
    """With NAME/LIST, DEFER_IF_REJECT reaches the reply from every list."""
    site = Site(policy(**{name: "check_client_access static:{DEFER_IF_REJECT x}"}))
    assert "DEFER_IF_REJECT x" == site.action(policy_context=f"default/{name}")


@pytest.mark.parametrize("lists", ["helo", "sender"])
def test_no_helo(lists: str) -> None:
    """Without HELO the helo list is not evaluated, as in smtpd; the others are."""
    site = Site(policy(**{lists: "reject"}))
    assert ("DUNNO" if lists == "helo" else "reject,") == site.action(helo_name="")


@pytest.mark.parametrize(
    ("state", "name"),
    [
        ("CONNECT", "client"),
        ("XCLIENT", "client"),
        ("EHLO", "helo"),
        ("HELO", "helo"),
        ("ETRN", "etrn"),
        ("ETRN", "client"),
    ],
)
@pytest.mark.parametrize(
    "action", ["HOLD", "DISCARD", "FILTER x:y", "REDIRECT a@b", "BCC a@b", "PREPEND X: y"]
)
def test_no_message_yet(state: str, name: str, action: str) -> None:
    """Before there is a message, what acts on one is skipped."""
    site = Site(policy(**{name: f"check_client_access static:{{{action}}}"}))
    assert "DUNNO" == site.action(protocol_state=state, sender="", recipient="")


@pytest.mark.parametrize("name", ["client", "helo", "sender", "relay", "recipient"])
def test_effects_at_rcpt(name: str) -> None:
    """At RCPT they count from every list."""
    site = Site(policy(**{name: "check_client_access static:HOLD"}))
    assert "HOLD" == site.action()


@pytest.mark.parametrize(
    ("state", "name", "expected"),
    [
        ("RCPT", "recipient", "PREPEND X: y"),
        ("DATA", "data", "PREPEND X: y"),
        ("END-OF-MESSAGE", "end_of_data", "DUNNO"),
    ],
)
def test_prepend(state: str, name: str, expected: str) -> None:
    """At END-OF-MESSAGE it is too late to prepend a header."""
    site = Site(policy(**{name: "check_client_access static:{PREPEND X: y}"}))
    assert expected == site.action(protocol_state=state)


def test_another_default() -> None:
    """A policy elsewhere than directly under policy_base is one too."""
    deep = entry(
        "cn=default,ou=a,ou=b,ou=policy",
        objectClass=["top", "SMTPDPOLICY"],
        cn="default",
        smtpdClientRestrictions="reject",
    )
    assert "reject," == Site(deep).action()
    assert "DUNNO" == answer("permit")
