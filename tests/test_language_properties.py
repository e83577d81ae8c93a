"""What holds for every policy and every request: one decision, whatever is asked first, and no exception."""

import string

from hypothesis import given, settings
from hypothesis import strategies as st

from ldappolicy.evaluate import LISTS_OF_STATE, Decision, Lacking
from ldappolicy.facts import Facts, Lookup, Outcome
from ldappolicy.policy import LISTS
from ldappolicy.request import Request
from tests.language import AMY, BOB, REQUEST, Site, classes, dn, entry, group, person, policy, table

URL = "ldap:///dc=example?mail,associatedDomain?sub?(employeeType=guest)"
DIRECTORY = [
    person("amy", "amy@my.domain", "amy.a@my.domain", memberOf=dn("cn=g,ou=groups")),
    person("bob", smtpdSenderAccess="b", smtpdSendAs=AMY, employeeType="guest"),
    person("twin", "bob@my.domain", "cal@my.domain"),
    entry("cn=other", uid="amy2", mail="cal@my.domain", smtpdRecipientAccess="HOLD"),
    group("g", [dn("cn=h,ou=groups"), BOB], smtpdMemberSenderAccess="c, reject", smtpdPriority="3"),
    group("h", [dn("cn=g,ou=groups")], smtpdMemberSenderAccess="DUNNO", smtpdMemberRecipientAccess="b"),
    entry(
        "cn=d,ou=groups", memberURL="ldap:///ou=people,dc=example??sub?(uid=a*)", member=dn("cn=h,ou=groups")
    ),
    group(
        "all",
        [AMY, dn("cn=d,ou=groups")],
        mail="all@my.domain",
        owner=BOB,
        smtpdRecipientAccess="c",
        smtpdAllowedSender="my.domain",
        smtpdDeniedSenderDN=dn("cn=d,ou=groups"),
    ),
    entry(
        "dc=my",
        associatedDomain="my.domain",
        smtpdSenderAccess="a",
        smtpdRecipientAccess="DUNNO",
        smtpdSendAs=dn("cn=h,ou=groups"),
    ),
    entry("dc=d", associatedDomain="domain", smtpdSenderAccess="FILTER x:y"),
    *classes(
        a="check_sasl_access recipient:members, check_sender_access ldap:t",
        b="warn_if_reject check_sender_access recipient:allowed, check_recipient_access directory:access",
        c="check_sender_access recipient:denied, reject_unknown_sender_domain, check_sasl_access ldap:t",
        loop="check_client_access static:loop",
    ),
    table(
        "t",
        "my.domain a",
        "b.example REJECT 5.1.1 no",
        smtpdAccessMember=dn("cn=g,ou=groups"),
        smtpdAccessURL=URL,
    ),
    table("local", "my.domain x", smtpdAccessURL=URL),
]

ITEMS = st.sampled_from(
    [
        *(
            "permit",
            "reject",
            "defer",
            "defer_if_permit",
            "defer_if_reject",
            "warn_if_reject",
            "a",
            "b",
            "c",
            "loop",
        ),
        *(
            "permit_mynetworks",
            "permit_inet_interfaces",
            "reject_rbl_client x",
            "reject_unknown_sender_domain",
        ),
        *("permit_sasl_authenticated", "reject_unauth_destination", "permit_auth_destination"),
        *("reject_sender_login_mismatch", "reject_known_sender_login_mismatch", "reject_non_fqdn_sender"),
        *(f"check_{who}_access directory:access" for who in ("sender", "sasl", "recipient")),
        *(f"check_sender_access recipient:{what}" for what in ("members", "owners", "allowed", "denied")),
        *(f"check_{who}_access ldap:t" for who in ("sender", "sasl", "recipient", "client")),
        "check_client_access static:HOLD",
        "check_client_access static:{DEFER_IF_REJECT x}",
        "check_recipient_access static:{b, c}",
        "nosuch",
    ]
)
LOCAL_DOMAINS = st.sampled_from([{}, {"smtpdLocalDomains": "ldap:local"}, {"smtpdMyorigin": "my.domain"}])


@st.composite
def policies(draw: st.DrawFn) -> dict[str, str]:
    """The settings of a policy with some lists."""
    names = draw(
        st.lists(st.sampled_from(["client", "sender", "relay", "recipient"]), min_size=1, max_size=3)
    )
    lists = {name: ", ".join(draw(st.lists(ITEMS, max_size=5))) for name in names}
    return {**lists, **draw(LOCAL_DOMAINS), "smtpdRecipientDelimiter": "+"}


ADDRESSES = st.sampled_from(
    [
        *(
            "",
            "amy@my.domain",
            "Amy.A+x@My.Domain.",
            "bob@my.domain",
            "cal@my.domain",
            "all@my.domain",
            "a@b.example",
        ),
        *("all%my.domain@my.domain", "my.domain!all", "x%y@foreign.example", "all", "x@sub.my.domain"),
    ]
)
REQUESTS = st.fixed_dictionaries(
    {
        "sender": ADDRESSES,
        "recipient": ADDRESSES,
        "login": st.sampled_from(["", "amy", "Bob", "amy.a@my.domain", "zoe"]),
    }
)
MISSED = st.sets(
    st.sampled_from(["mail", "login", "domain", "entry", "groups", "dynamic", "match", "url"]), max_size=2
)


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
    asked = [lookup for round_ in site.rounds for lookup in round_]
    known: dict[Lookup, Outcome] = {}
    more: list[Lookup] = [("mail", "x@y"), ("domain", "my.domain"), ("login", "amy"), ("dynamic",), *asked]
    known.update(site.ask(list(dict.fromkeys(more))))
    login = request.get("login", "")
    sasl = {"sasl_username": login, "sasl_method": "PLAIN"} if login else {}
    attributes = {**REQUEST, **sasl, **{key: value for key, value in request.items() if key != "login"}}
    trace: list[dict[str, object]] = []
    actual = site.evaluator.evaluate(Request.from_attributes(attributes), Facts(known.get), trace)
    assert not isinstance(actual, Lacking)
    assert expected == actual


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
