"""When the directory does not answer: what is missed, what still stands, and what is said."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from ldappolicy.entry import Entry
from ldappolicy.facts import Lookup
from tests.language import (
    AMY,
    CONFIGURATION_ERROR,
    LOOKUP_FAILURE,
    Site,
    about,
    acting,
    asked,
    classes,
    every,
    group,
    nothing,
    of_kind,
    person,
    policy,
    table,
    tables,
)

ASK = "check_sender_access directory:access"
UNTIL_KNOWN = "450 4.3.0 Temporary lookup failure"
P, R, G = "permit_inet_interfaces", "reject_unknown_sender_domain", "reject_rbl_client x.example"


def down(lists: Mapping[str, str], on_unavailable: str = "defer") -> Site:
    """A site whose directory answers no lookup."""
    entries = classes(c=f"{ASK}, reject", d="reject")
    return Site(policy(**lists), entries, missed=every, on_unavailable=on_unavailable)


@pytest.mark.parametrize(
    ("lists", "expected"),
    [
        # reached or not
        pytest.param({"recipient": f"{ASK}, reject"}, LOOKUP_FAILURE, id="a reject behind it does not stand"),
        pytest.param({"recipient": f"{ASK}, permit"}, LOOKUP_FAILURE, id="nor does a permit"),
        pytest.param({"recipient": f"reject, {ASK}"}, "reject,", id="not reached behind a reject"),
        pytest.param({"recipient": f"permit, {ASK}"}, "DUNNO", id="not reached behind a permit"),
        pytest.param({"recipient": "c, permit"}, LOOKUP_FAILURE, id="reached in a class"),
        pytest.param(
            {"recipient": "check_client_access static:c, permit"}, LOOKUP_FAILURE, id="reached in a table"
        ),
        pytest.param({"recipient": f"{acting('DUNNO')}, {ASK}"}, LOOKUP_FAILURE, id="reached behind DUNNO"),
        pytest.param(
            {"recipient": "check_sasl_access directory:access, reject"},
            "reject,",
            id="skipped without login",
        ),
        pytest.param({"data": ASK}, "DUNNO", id="another state's list"),
        # later lists
        pytest.param({"sender": ASK, "recipient": "reject"}, "reject,", id="a later refusal stands"),
        pytest.param(
            {"sender": ASK, "recipient": acting("550 5.7.1 no")}, "550 5.7.1 no", id="with its text"
        ),
        pytest.param({"sender": ASK, "recipient": "defer"}, "defer,", id="a later deferral stands"),
        pytest.param({"sender": ASK, "relay": ASK, "recipient": "reject"}, "reject,", id="behind two"),
        pytest.param(
            {"sender": ASK, "relay": acting("REJECT a"), "recipient": acting("REJECT b")},
            "REJECT a",
            id="the first",
        ),
        pytest.param(
            {"sender": ASK, "recipient": "permit"}, LOOKUP_FAILURE, id="a later permit does not help"
        ),
        pytest.param(
            {"sender": ASK, "recipient": f"{ASK}, reject"}, LOOKUP_FAILURE, id="a refusal behind another"
        ),
        pytest.param({"sender": ASK, "recipient": f"reject, {ASK}"}, "reject,", id="one before another"),
        pytest.param({"sender": "reject", "recipient": ASK}, "reject,", id="an earlier refusal"),
        pytest.param({"sender": "permit", "recipient": ASK}, LOOKUP_FAILURE, id="an earlier permit"),
        pytest.param(
            {"sender": ASK, "recipient": acting("DISCARD")}, LOOKUP_FAILURE, id="DISCARD is no refusal"
        ),
        pytest.param(
            {"sender": acting("DISCARD"), "recipient": ASK}, "DISCARD", id="nothing is reached behind DISCARD"
        ),
        pytest.param({"sender": ASK, "recipient": acting("HOLD")}, LOOKUP_FAILURE, id="effects are not sent"),
        pytest.param({"sender": acting("HOLD"), "recipient": ASK}, LOOKUP_FAILURE, id="nor earlier ones"),
        pytest.param(
            {"sender": ASK, "recipient": "nosuch"},
            CONFIGURATION_ERROR,
            id="a configuration error is a refusal",
        ),
        pytest.param(
            {"sender": ASK, "recipient": acting("DEFER_IF_PERMIT x")}, LOOKUP_FAILURE, id="a deferral is not"
        ),
        # with a residue
        pytest.param({"recipient": f"{R}, {ASK}, reject"}, f"{R}, defer_if_permit", id="R before"),
        pytest.param({"recipient": f"{ASK}, {R}"}, LOOKUP_FAILURE, id="R behind is not reached"),
        pytest.param({"recipient": f"{P}, {ASK}, reject"}, f"{P}, defer_if_permit", id="P before"),
        pytest.param({"sender": ASK, "recipient": R}, f"defer_if_permit, {R}", id="R in a later list"),
        pytest.param({"sender": R, "recipient": ASK}, f"{R}, defer_if_permit", id="R in an earlier list"),
        pytest.param(
            {"sender": ASK, "recipient": f"{P}, reject"},
            f"defer_if_permit, {P}, reject",
            id="P in a later list",
        ),
        pytest.param(
            {"sender": f"{R}, {ASK}", "recipient": "reject"}, f"{R}, reject", id="a later refusal and R"
        ),
        pytest.param({"sender": f"{P}, {ASK}", "recipient": "reject"}, "reject,", id="a later refusal and P"),
        pytest.param(
            {"sender": f"{P}, {ASK}", "recipient": f"{P}, {R}"},
            f"{P}, defer_if_permit, {R}",
            id="a common head",
        ),
        # under warn_if_reject
        pytest.param({"recipient": f"warn_if_reject {ASK}, reject"}, UNTIL_KNOWN, id="warned, then a reject"),
        pytest.param(
            {"recipient": f"warn_if_reject {ASK}, {acting('550 5.7.1 no')}"},
            "450 4.3.0 no",
            id="warned, then a reject with its text",
        ),
        pytest.param(
            {"sender": f"warn_if_reject {ASK}", "recipient": "reject"},
            "reject,",
            id="warned in another list",
        ),
        pytest.param({"recipient": f"warn_if_reject {ASK}"}, "DUNNO", id="warned"),
        pytest.param({"recipient": "warn_if_reject c, permit"}, "DUNNO", id="a warned class"),
        pytest.param({"recipient": f"warn_if_reject {ASK}, {R}"}, f"{R},", id="warned beside a residue"),
    ],
)
def test_defer(lists: dict[str, str], expected: str) -> None:
    """A lookup that is reached ends its list; a later refusal stands; else the whole reply is a deferral."""
    assert expected == down(lists).action()


@pytest.mark.parametrize(
    ("choice", "lists", "expected"),
    [
        ("dunno", {"recipient": f"{ASK}, reject"}, "DUNNO"),
        ("dunno", {"recipient": f"{R}, {ASK}"}, "DUNNO"),
        ("dunno", {"sender": ASK, "recipient": "reject"}, "reject,"),
        ("dunno", {"sender": ASK, "recipient": acting("HOLD")}, "DUNNO"),
        ("dunno", {"sender": ASK, "recipient": acting("DISCARD")}, "DUNNO"),
        ("dunno", {"recipient": f"permit, {ASK}"}, "DUNNO"),
        ("disconnect", {"recipient": f"{ASK}, reject"}, None),
        ("disconnect", {"recipient": f"{R}, {ASK}"}, None),
        ("disconnect", {"sender": ASK, "recipient": "reject"}, "reject,"),
        ("disconnect", {"sender": ASK, "recipient": acting("DISCARD")}, None),
        ("disconnect", {"recipient": f"permit, {ASK}"}, "DUNNO"),
        ("disconnect", {"recipient": f"warn_if_reject {ASK}"}, "DUNNO"),
    ],
)
def test_other_choices(choice: str, lists: dict[str, str], expected: str | None) -> None:
    """`dunno` and `disconnect` are the whole reply, unless a refusal stands."""
    decision = down(lists, choice).decide()
    assert expected == decision.action
    stands = expected == "reject," or lists["recipient"].startswith(("permit", "warn"))
    assert stands != decision.unavailable


def test_outage_is_told_of() -> None:
    """What was unavailable is said once, and is no error of the configuration."""
    decision = down({"sender": ASK, "recipient": ASK}).decide()
    assert (LOOKUP_FAILURE, True, "") == (decision.action, decision.unavailable, decision.error)
    assert 1 == len(decision.outages)


EVERY_CHECK = {
    "directory:access, entry": (ASK, of_kind("mail"), {}),
    "directory:access, domain": (ASK, of_kind("domain"), {}),
    "directory:access, groups": (ASK, of_kind("groups"), {"sender": "amy@my.domain"}),
    "directory:access, dynamic groups": (ASK, of_kind("dynamic"), {"sender": "amy@my.domain"}),
    "directory:access, groups that carry rules": (ASK, of_kind("carrying"), {"sender": "amy@my.domain"}),
    "directory:access, login": ("check_sasl_access directory:access", of_kind("login"), {"login": "amy"}),
    "directory:access, login by address": (
        "check_sasl_access directory:access",
        of_kind("mail"),
        {"login": "x@my.domain"},
    ),
    "recipient:members, list": ("check_sender_access recipient:members", about("all@my.domain"), {}),
    "recipient:members, member": (
        "check_sender_access recipient:members",
        about("amy@my.domain"),
        {"sender": "amy@my.domain"},
    ),
    "recipient:members, groups": (
        "check_sender_access recipient:members",
        of_kind("groups"),
        {"sender": "amy@my.domain"},
    ),
    "recipient:owners": (
        "check_sender_access recipient:owners",
        of_kind("groups"),
        {"sender": "bob@my.domain"},
    ),
    "recipient:denied": ("check_sender_access recipient:denied", of_kind("mail"), {}),
    "members of a table": ("check_sender_access ldap:t", of_kind("mail"), {"sender": "amy@my.domain"}),
    "URL of a table": ("check_sender_access ldap:t", of_kind("url"), {"sender": "bob@my.domain"}),
    "login mismatch, login": ("reject_sender_login_mismatch", of_kind("login"), {"login": "amy"}),
    "login mismatch, address": ("reject_sender_login_mismatch", of_kind("mail"), {"login": "amy"}),
    "login mismatch, domain": (
        "reject_sender_login_mismatch",
        of_kind("domain"),
        {"sender": "x@my.domain", "login": "amy"},
    ),
    "unauthenticated": ("reject_unauthenticated_sender_login_mismatch", of_kind("mail"), {}),
    "local domains": ("reject_unauth_destination", of_kind("url"), {"recipient": "u@foreign.example"}),
    "rewriting": ("check_recipient_access static:OK", of_kind("url"), {"recipient": "a%b@foreign.example"}),
}


@pytest.mark.parametrize("name", EVERY_CHECK)
@pytest.mark.parametrize("choice", ["defer", "dunno", "disconnect"])
def test_every_kind_of_lookup(name: str, choice: str) -> None:
    """Each lookup that a check cannot do without makes the reply what on_unavailable says, never a 5xx."""
    listed, missed, attributes = EVERY_CHECK[name]
    local = "ldap:local" if "url" in name.lower() or name in ("local domains", "rewriting") else ""
    settings = {"smtpdLocalDomains": local} if local else {}
    site = Site(
        policy(recipient=f"{listed}, reject", **settings),
        table(
            "t",
            smtpdAccessMember="cn=g,ou=groups,dc=example",
            smtpdAccessURL="ldap:///dc=example?mail?sub?(cn=x)",
        ),
        table("local", smtpdAccessURL="ldap:///dc=example?associatedDomain?sub?(cn=x)"),
        person("amy"),
        person("bob"),
        group("g", [AMY]),
        group("ruled", [], smtpdMemberSenderAccess="reject", smtpdMemberRecipientAccess="reject"),
        group("all", [AMY], mail="all@my.domain", owner="cn=g,ou=groups,dc=example", smtpdDeniedSender="x"),
        missed=missed,
        on_unavailable=choice,
    )
    expected = {"defer": LOOKUP_FAILURE, "dunno": "DUNNO", "disconnect": None}[choice]
    assert expected == site.action(**{"recipient": "all@my.domain", **attributes})


@pytest.mark.parametrize(
    ("missed", "expected"),
    [
        pytest.param(about("amy@my.domain"), LOOKUP_FAILURE, id="the key that decides"),
        pytest.param(about("amy@"), "REJECT line", id="a key behind what is found"),
        pytest.param(of_kind("domain"), "REJECT line", id="a kind that nobody reaches"),
    ],
)
def test_keys_of_a_table(missed: Callable[[Lookup], bool], expected: str) -> None:
    """Keys are tried in order: only what stands before the one that decides can be missed."""
    site = Site(
        policy(recipient=f"check_sender_access ldap:t, {ASK}"),
        table("t", "my.domain REJECT line", smtpdAccessURL="ldap:///dc=example?mail?sub?(cn=x)"),
        missed=missed,
    )
    assert expected == site.action(sender="amy@my.domain")


def test_line_before_a_missed_member() -> None:
    """A line for the key decides before its members and URLs are reached."""
    lines = table(
        "t", "amy@my.domain REJECT line", smtpdAccessMember=AMY, smtpdAccessURL="ldap:///dc=example?mail"
    )
    site = Site(policy(recipient="check_sender_access ldap:t"), lines, missed=every)
    assert "REJECT line" == site.action(sender="amy@my.domain")


def test_own_access_before_missed_groups() -> None:
    """Who carries an access attribute does not need to be asked for groups."""
    site = Site(
        policy(recipient=ASK),
        person("amy", smtpdSenderAccess="REJECT own"),
        missed=of_kind("groups", "dynamic", "domain"),
    )
    assert "REJECT own" == site.action(sender="amy@my.domain")


def test_tables_of_lines_need_no_directory() -> None:
    """What stands under policy_base is known all along."""
    site = Site(policy(recipient="check_sender_access ldap:t"), tables(t=["b.example REJECT"]), missed=every)
    assert "REJECT" == site.action()


@pytest.mark.parametrize(("length", "shown"), [(195, "mail {}"), (196, "mail {}...")], ids=["whole", "cut"])
def test_long_lookup_is_cut(length: int, shown: str) -> None:
    """What was looked up stands in the log with its first 200 characters; clients choose how long it is."""
    sender = "a" * (length - len("@b.example")) + "@b.example"
    (outage,) = down({"recipient": ASK}).decide(sender=sender).outages
    assert f"{shown.format(sender[:195])}: made unavailable" in outage


# --- what is past its ttl ---------------------------------------------------------------------------


def aged(lists: Mapping[str, str], *entries: Entry | Sequence[Entry]) -> Site:
    """A site whose directory is away, and whose answers are past their ttl."""
    return Site(policy(**lists), classes(c=f"{ASK}, reject", d="reject"), *entries, stale=every)


@pytest.mark.parametrize(
    ("lists", "expected"),
    [
        pytest.param({"recipient": f"{ASK}, reject"}, UNTIL_KNOWN, id="a reject behind it"),
        pytest.param({"recipient": "c"}, UNTIL_KNOWN, id="in a class"),
        pytest.param({"recipient": f"{ASK}, c"}, UNTIL_KNOWN, id="before a class"),
        pytest.param({"recipient": f"reject, {ASK}"}, "reject,", id="behind it"),
        pytest.param({"recipient": f"{ASK}, {acting('REJECT go away')}"}, "450 4.3.0 go away", id="a text"),
        pytest.param({"recipient": f"{ASK}, {acting('REJECT')}"}, UNTIL_KNOWN, id="a bare REJECT"),
        pytest.param({"recipient": f"{ASK}, {acting('550 5.7.1')}"}, UNTIL_KNOWN, id="a bare code"),
        pytest.param({"recipient": f"{ASK}, {acting('521 5.7.1 no')}"}, "450 4.3.0 no", id="a code and text"),
        pytest.param(
            {"recipient": f"{ASK}, {acting('421 4.7.0 no')}"}, "421 4.7.0 no", id="for a while anyway"
        ),
        pytest.param({"recipient": f"{ASK}, defer"}, "defer,", id="a deferral"),
        pytest.param({"recipient": f"{ASK}, nosuch"}, CONFIGURATION_ERROR, id="a configuration error"),
        pytest.param({"recipient": f"{ASK}, reject_non_fqdn_recipient"}, UNTIL_KNOWN, id="a built-in"),
        pytest.param({"recipient": f"{ASK}, permit"}, "DUNNO", id="a permit"),
        pytest.param({"recipient": f"{ASK}, {acting('HOLD')}"}, "HOLD", id="an effect"),
        pytest.param({"recipient": f"defer_if_reject, {ASK}, reject"}, UNTIL_KNOWN, id="a flag"),
        # it rests on its own list
        pytest.param({"sender": ASK, "recipient": "reject"}, "reject,", id="in an earlier list"),
        pytest.param({"sender": "reject", "recipient": ASK}, "reject,", id="in a later list"),
        pytest.param({"sender": ASK, "recipient": f"{ASK}, reject"}, UNTIL_KNOWN, id="asked in both"),
        # shadow and warn_if_reject
        pytest.param({"recipient": f"shadow {ASK}, reject"}, "reject,", id="in shadow"),
        pytest.param({"recipient": f"warn_if_reject {ASK}, reject"}, UNTIL_KNOWN, id="warned"),
        # a residue
        pytest.param({"recipient": f"{P}, {ASK}, reject"}, f"{P}, defer", id="P before"),
        pytest.param({"recipient": f"{P}, {ASK}, {acting('550 no')}"}, f"{P}, defer", id="P and a text"),
        pytest.param({"recipient": f"{G}, {ASK}, reject"}, f"{G}, defer", id="R before"),
        pytest.param({"recipient": f"{G}, {ASK}, {acting('550 no')}"}, "450 4.3.0 no", id="R and a text"),
        pytest.param({"sender": P, "recipient": f"{ASK}, reject"}, UNTIL_KNOWN, id="P in an earlier list"),
        pytest.param({"sender": G, "recipient": f"{ASK}, reject"}, f"{G}, defer", id="R in an earlier list"),
        pytest.param({"sender": P, "recipient": f"{P}, {ASK}, reject"}, f"{P}, defer", id="a common head"),
    ],
)
def test_a_refusal_that_rests_on_old_answers(lists: dict[str, str], expected: str) -> None:
    """It is no refusal for good; its own text stays, beside a residue it is a deferral."""
    recipient = "x" if "fqdn" in lists["recipient"] else "x@my.domain"
    decision = aged(lists).decide(recipient=recipient)
    assert expected == decision.action
    assert decision.unavailable is False


@pytest.mark.parametrize("explained", [False, True])
@pytest.mark.parametrize("name", EVERY_CHECK)
def test_every_kind_of_old_answer(name: str, explained: bool) -> None:
    """Whichever lookup it is: what is refused behind it is refused for a while, what passes passes."""
    listed, aged_ones, attributes = EVERY_CHECK[name]
    settings = {"smtpdLocalDomains": "ldap:local"} if "url" in name.lower() else {}
    if name in ("local domains", "rewriting"):
        settings = {"smtpdLocalDomains": "ldap:local"}

    def site(stale: Callable[[Lookup], bool]) -> Site:
        return Site(
            policy(sender=f"{listed}", recipient=f"{listed}, reject", **settings),
            table(
                "t", smtpdAccessMember="cn=g,ou=groups,dc=example", smtpdAccessURL="ldap:///dc=example?mail"
            ),
            table("local", smtpdAccessURL="ldap:///dc=example?associatedDomain?sub?(cn=x)"),
            person("amy"),
            person("bob"),
            group("g", [AMY]),
            group("ruled", [], smtpdMemberSenderAccess="reject", smtpdMemberRecipientAccess="reject"),
            group("all", [], mail="all@my.domain", owner="cn=g,ou=groups,dc=example", smtpdDeniedSender="x"),
            stale=stale,
        )

    request = asked(**{"recipient": "all@my.domain", **attributes})
    trace: list[dict[str, Any]] | None = [] if explained else None
    fresh = site(nothing).resolve(request)
    old = site(aged_ones).resolve(request, trace)
    is_refused = str(fresh.action).startswith(("5", "reject", "REJECT"))
    assert (UNTIL_KNOWN if is_refused else fresh.action) == old.action


def test_what_a_refusal_rests_on_is_told() -> None:
    """Once, with the lookup that is too old."""
    decision = aged({"recipient": f"{ASK}, reject"}).decide(sender="amy@my.domain")
    assert ("mail amy@my.domain: the answer is stale",) == decision.outages
