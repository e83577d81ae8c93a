"""What holds for every policy and every request: one decision, whatever is asked first, and no exception."""

import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ldappolicy.entry import Entry
from ldappolicy.evaluate import LISTS_OF_STATE, Decision
from ldappolicy.facts import Lookup
from ldappolicy.policy import LISTS
from ldappolicy.request import Request
from tests.drawn import (
    ACCESS,
    CARRYING,
    CHECKS,
    DIRECTORY,
    LISTED,
    LOCAL_DOMAINS,
    MISSED,
    OTHERS,
    PERMITS,
    REQUESTS,
    SMALL,
    VARIED,
    policies,
    varied_requests,
)
from tests.language import Site, asked, classes, decide_in_turn, policy, table


def decide(
    settings_: dict[str, str], request: dict[str, str], missed: set[str], *, one_by_one: bool
) -> Decision:
    """The decision where some kinds of lookups are unavailable."""
    site = Site(
        policy(**settings_),
        DIRECTORY,
        missed=lambda lookup: lookup[0] in missed,
        one_by_one=one_by_one,
        permit_ok=True,
    )
    return site.decide(**request)


@pytest.mark.servers
@settings(max_examples=150)
@given(policies(), REQUESTS, MISSED)
def test_order_of_lookups(settings_: dict[str, str], request: dict[str, str], missed: set[str]) -> None:
    """Asking for everything at once, for one after the other, or twice, makes the same decision."""
    at_once = decide(settings_, request, missed, one_by_one=False)
    assert at_once == decide(settings_, request, missed, one_by_one=True)
    assert at_once == decide(settings_, request, missed, one_by_one=False)


@settings(max_examples=100)
@given(policies(), REQUESTS)
def test_knowing_more(settings_: dict[str, str], request: dict[str, str]) -> None:
    """What is known beyond need, and the trace, change nothing."""
    site = Site(policy(**settings_), DIRECTORY)
    expected = site.decide(**request)
    more: list[Lookup] = [
        ("mail", "x@y"),
        ("domain", "my.domain"),
        ("login", "amy"),
        ("dynamic",),
        *site.known,
    ]
    known = site.ask(list(dict.fromkeys(more)))
    assert expected == site.evaluator.evaluate(asked(**request), site.facts(known), [])


LEARNING = given(
    LISTED, LOCAL_DOMAINS, st.sampled_from([[], [CARRYING]]), *[st.booleans()] * 2, varied_requests()
)


def learn(
    lists: dict[str, str],
    more: dict[str, str],
    carrying: list[Entry],
    tells_apart: bool,
    permit_ok: bool,
    requests: list[dict[str, str]],
) -> None:
    """Whoever decides one request after the other decides each as if it were the first, and as in a trace."""
    settings_ = {**lists, **more, "smtpdRecipientDelimiter": "+", "smtpdMynetworks": "192.0.2.9, my.domain"}
    site = Site(policy(**settings_), SMALL, carrying, tells_apart=tells_apart, permit_ok=permit_ok)
    decide_in_turn(site, [asked(**request) for request in requests])


test_what_is_learned = settings(max_examples=200)(LEARNING(learn))
test_much_that_is_learned = pytest.mark.long(settings(max_examples=5000)(LEARNING(learn)))

BETWEEN_KNOWN = {"protocol_state": "RCPT", "sender": "amy@my.domain", "recipient": "bob@my.domain"}
STAR = [BETWEEN_KNOWN | {name: value} for name, values in VARIED.items() for value in dict.fromkeys(values)]
"""One request, and each that differs from it in one attribute."""


@pytest.mark.parametrize("item", [*ACCESS, *PERMITS, *CHECKS, *OTHERS])
def test_what_a_restriction_looks_at(item: str) -> None:
    """Whatever it is, what is learned of one request is right for the next, in one list as in two."""
    learn({"sender": item, "recipient": f"{item}, {ACCESS[0]}"}, {}, [], False, False, STAR)


ANY_TEXT = st.text(max_size=20) | st.text(alphabet=string.printable + "@%!<>[]\udcff\x00ßİ", max_size=40)
ANY_REQUEST = st.fixed_dictionaries(
    {
        **dict.fromkeys(Request._fields, ANY_TEXT),
        "protocol_state": st.sampled_from([*LISTS_OF_STATE, "", "X"]),
        "policy_context": st.sampled_from(
            ["", "default", "x", "default/x", *(f"default/{name}" for name in LISTS)]
        ),
    }
)
EVERYTHING = Site(
    policy(
        client="permit_mynetworks, check_client_access ldap:t, check_sender_access ldap:t",
        helo="reject_invalid_helo_hostname, reject_non_fqdn_helo_hostname, check_helo_access ldap:t",
        sender="reject_non_fqdn_sender, check_sasl_access directory:access, directory:access",
        relay="permit_auth_destination, reject_non_fqdn_recipient, reject_sender_login_mismatch",
        recipient="check_recipient_access directory:access, check_sender_access recipient:allowed, a, b, c",
        data="reject_multi_recipient_bounce, check_ccert_access ldap:t, check_sasl_access recipient:denied",
        end_of_data="check_reverse_client_hostname_access ldap:t, check_client_access static:{PREPEND X: y}",
        etrn="check_etrn_access ldap:t",
        smtpdMynetworks="!192.0.2.1, 192.0.2.0/24, [::1], my.domain",
        smtpdMyorigin="my.domain",
        smtpdLocalDomains="ldap:local",
        smtpdRecipientDelimiter="+-",
    ),
    DIRECTORY,
)


@pytest.mark.servers
@settings(max_examples=300)
@given(ANY_REQUEST)
def test_any_request(attributes: dict[str, str]) -> None:
    """Every request gets a decision: nothing that a client can send raises."""
    decision = EVERYTHING.resolve(Request.from_attributes(attributes))
    assert decision.action


@settings(max_examples=100)
@given(ANY_TEXT, st.sampled_from(["static", "inline", "ldap", "fail", "directory", "recipient", "x"]))
def test_any_policy(text: str, kind: str) -> None:
    """Whatever somebody writes into a list, a class or a table, requests are answered."""
    entries = [*classes(c=text or "x"), table("t", f"b.example {text}"), *DIRECTORY[:2]]
    for listed in (
        text,
        f"check_sender_access {kind}:{text}",
        f"check_sender_access {kind}:{{{text}}}",
        "c",
        "check_sender_access ldap:t",
    ):
        assert Site(policy(recipient=listed or "x"), entries).action()
