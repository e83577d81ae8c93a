"""Restrictions: what is evaluated here, what is left to Postfix, what is an error, and how lists nest."""

from typing import Any

import pytest

from ldappolicy.entry import Entry
from ldappolicy.policy import LISTS
from ldappolicy.vocabulary import CHECKS, EVALUATED, LEFT_TO_POSTFIX, OLD_NAMES, ONLY_IN_MAIN_CF
from tests.language import (
    CONFIGURATION_ERROR,
    Site,
    answer,
    asked,
    classes,
    policy,
    restriction_class,
    table,
    tables,
)

NEXT = "check_client_access static:{550 5.7.9 NEXT}"
"""Says that evaluation went on behind what is tested."""

WENT_ON = "550 5.7.9 NEXT"

# ---------------------------------------------------------------- the page's own lists of names


def test_evaluated_names() -> None:
    """Everything that section 2 says is evaluated here is known here, and nothing else is."""
    checks = "client reverse_client_hostname helo sender recipient sasl ccert etrn"
    assert {f"check_{name}_access" for name in checks.split()} == set(CHECKS)
    expected = """permit reject defer defer_if_permit defer_if_reject warn_if_reject permit_sasl_authenticated
        reject_non_fqdn_sender reject_non_fqdn_recipient reject_non_fqdn_helo_hostname
        reject_invalid_helo_hostname reject_plaintext_session reject_multi_recipient_bounce
        reject_sender_login_mismatch reject_authenticated_sender_login_mismatch
        reject_unauthenticated_sender_login_mismatch reject_known_sender_login_mismatch
        permit_mynetworks permit_auth_destination reject_unauth_destination defer_unauth_destination"""
    assert set(expected.split()) == EVALUATED


LEFT = [
    "reject_unknown_client_hostname",
    "reject_unknown_reverse_client_hostname",
    "reject_unknown_helo_hostname",
    "reject_unknown_sender_domain",
    "reject_unknown_recipient_domain",
    "reject_unverified_sender",
    "reject_unverified_recipient",
    "reject_unlisted_sender",
    "reject_unlisted_recipient",
    "reject_unauth_pipelining",
    "permit_inet_interfaces",
    "permit_mx_backup",
    "permit_tls_clientcerts",
    "permit_tls_all_clientcerts",
    "reject_unknown_client",
    "reject_unknown_hostname",
    "reject_unknown_address",
    "check_recipient_maps",
]
LEFT_WITH_ARGUMENT = [
    "reject_rbl_client",
    "reject_rhsbl_client",
    "reject_rhsbl_reverse_client",
    "reject_rhsbl_helo",
    "reject_rhsbl_sender",
    "reject_rhsbl_recipient",
    "permit_dnswl_client",
    "permit_rhswl_client",
    "reject_rbl",
]


def test_names_left_to_postfix() -> None:
    """Everything that section 2 leaves to Postfix is known, with smtpd's older spellings."""
    assert {*LEFT, *LEFT_WITH_ARGUMENT, "sleep"} == set(LEFT_TO_POSTFIX)


@pytest.mark.parametrize("name", sorted(LEFT))
def test_left_to_postfix(name: str) -> None:
    """Such a restriction is DUNNO here and remains, in its place and alone."""
    assert f"{name}, reject" == answer(f"{name}, reject")
    assert f"{name}, reject" == answer(f"{name.upper()}, reject")
    alone = "DUNNO" if name.startswith("permit") else f"{name},"
    assert alone == answer(name)


@pytest.mark.parametrize("name", [*sorted(LEFT_WITH_ARGUMENT), "sleep"])
def test_left_to_postfix_with_argument(name: str) -> None:
    """With an argument it remains with its argument."""
    argument = "1" if name == "sleep" else "zen.example=127.0.0.[2..4]"
    assert f"{name} {argument}, reject" == answer(f"{name} {argument}, reject")
    alone = "DUNNO" if name.startswith("permit") else f"{name} {argument}"
    assert alone == answer(f"{name} {argument}")


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(
    "name",
    [
        *(f"{name} hash:x" for name in sorted(ONLY_IN_MAIN_CF)),
        "check_policy_service inet:127.0.0.1:9998",
        "nosuch",
        "Insiders",
        "OK",
        "DUNNO",
        "check_sender_access ldap:nosuch",
        "check_sender_access hash:/etc/postfix/x",
        "check_sender_access regexp:/x",
        "check_sender_access directory:nosuch",
        "check_sender_access recipient:nosuch",
        "check_relay_domains",
        "reject_maps_rbl",
        "permit_naked_ip_address",
        "sleep soon",
        "check_sender_access static:nosuch",
        "check_sender_access static:{ldap:insiders}",
        "check_sender_access static:{600 x}",
        "check_sender_access static:{OK, reject}",
        "check_sender_access fail:x",
        "reject_rbl_client zen.example:53",
        "check_reverse_client_hostname_access static:OK",
        "check_reverse_client_hostname_access static:permit",
        "check_reverse_client_hostname_access static:permit_inet_interfaces",
    ],
)
@pytest.mark.parametrize("place", ["list", "class"])
def test_errors_when_reached(name: str, place: str) -> None:
    """An error is one when it is reached, in a list or a class, and not before."""
    extra = classes(c=name, insiders="permit")
    shown = name if place == "list" else "c"
    assert CONFIGURATION_ERROR == answer(f"{shown}, permit", extra)
    assert "DUNNO" == answer(f"permit, {shown}", extra)


@pytest.mark.parametrize(
    "name", ["nosuch", "check_reverse_client_hostname_access static:OK", "check_sender_mx_access hash:x"]
)
def test_errors_are_not_demoted(name: str) -> None:
    """warn_if_reject does not turn a configuration error into a warning."""
    assert CONFIGURATION_ERROR == answer(f"warn_if_reject {name}")


def test_failed_table_is_demoted() -> None:
    """A failed table is a refusal like others to smtpd, which warn_if_reject demotes."""
    assert "DUNNO" == answer("warn_if_reject check_sender_access fail:x")


def test_error_is_explained() -> None:
    """A server configuration error says what was wrong."""
    decision = Site(policy(recipient="nosuch")).decide()
    assert "nosuch" in decision.error


def test_policy_that_does_not_parse_is_explained() -> None:
    """Whoever asks for it by name gets the error, and the log what is wrong, and where."""
    decision = Site(policy(), policy("bad", recipient="permit {")).decide(policy_context="bad")
    told = "smtpdRecipientRestrictions: unbalanced '{' at character 8"
    assert CONFIGURATION_ERROR == decision.action
    assert f"policy 'bad' does not parse: cn=bad,ou=policy,dc=example: {told}" == decision.error


@pytest.mark.parametrize(
    ("name", "entries"),
    [
        pytest.param("inline:{x=REJECT}", [], id="in the name"),
        pytest.param("ldap:t", [table("t", "x REJECT")], id="one entry"),
        pytest.param("ldap:t", [table("t", "x REJECT"), table("t", "y REJECT", rdn="u")], id="two entries"),
    ],
)
def test_keys_not_found_are_explained(name: str, entries: list[Entry]) -> None:
    """A trace says of every key that a table does not hold it, in the order in which they were tried."""
    trace: list[dict[str, Any]] = []
    Site(policy(recipient=f"check_sender_access {name}"), entries).resolve(asked(), trace)
    tried = [told["key"] for told in trace if told.get("table") == name and told["result"] == "not found"]
    assert ["a@b.example", "b.example", "example", "a@"] == tried


@pytest.mark.parametrize(
    ("right_hand_side", "expected"),
    [
        ("permit, nosuch", "DUNNO"),
        ("nosuch, permit", CONFIGURATION_ERROR),
        ("reject nosuch", "REJECT nosuch"),
        ("permit, check_sender_access foo", "DUNNO"),
        ("check_sender_access foo", CONFIGURATION_ERROR),
        ("permit, reject_rbl_client", "DUNNO"),
        ("permit, {reject}", "DUNNO"),
        ("{reject}", CONFIGURATION_ERROR),
        ("permit, ldap:x", CONFIGURATION_ERROR),
        ("reject,", "reject,"),
        ("defer,", "defer,"),
    ],
)
def test_right_hand_side(right_hand_side: str, expected: str) -> None:
    """A list in a table is an error only where evaluation gets to it, but never holds a table."""
    assert expected == answer(f"check_sender_access static:{{{right_hand_side}}}, reject")


# ---------------------------------------------------------------- permit, reject, defer


@pytest.mark.parametrize(
    ("listed", "expected"),
    [
        ("permit", "DUNNO"),
        ("reject", "reject,"),
        ("defer", "defer,"),
        ("defer_if_permit", "defer_if_permit,"),
        ("defer_if_reject", "defer_if_reject,"),
        ("PERMIT, reject", "DUNNO"),
        ("Reject", "reject,"),
        ("warn_if_reject", "DUNNO"),
        ("", "DUNNO"),
        ("defer_if_permit, reject", "reject,"),
        ("defer_if_permit, permit", "defer_if_permit,"),
        ("defer_if_reject, permit", "defer_if_reject,"),
        ("permit, defer_if_permit", "DUNNO"),
    ],
)
def test_generic(listed: str, expected: str) -> None:
    """The generic restrictions, alone and after one another."""
    assert expected == answer(listed)


# ---------------------------------------------------------------- authentication and encryption


@pytest.mark.parametrize(
    ("method", "username", "expected"),
    [
        ("PLAIN", "amy", "DUNNO"),
        ("", "", "reject,"),
        ("", "amy", "reject,"),
        ("PLAIN", "", "DUNNO"),
        ("anonymous", "amy", "reject,"),
        ("ANONYMOUS", "amy", "reject,"),
    ],
)
def test_permit_sasl_authenticated(method: str, username: str, expected: str) -> None:
    """What counts is the mechanism, not the name."""
    site = Site(policy(recipient="permit_sasl_authenticated, reject"))
    assert expected == site.action(sasl_method=method, sasl_username=username)


@pytest.mark.parametrize(
    ("protocol", "expected"), [("", "reject_plaintext_session, defer"), ("TLSv1.3", "DUNNO")]
)
def test_reject_plaintext_session(protocol: str, expected: str) -> None:
    """Without encryption it refuses; its code is a 4xx."""
    assert expected == answer("reject_plaintext_session", encryption_protocol=protocol)


# ---------------------------------------------------------------- syntax


@pytest.mark.parametrize(
    ("address", "passes"),
    [
        ("u@b.example", True),
        ("u@b.example.", True),
        ("u@localhost", False),
        ("u@b..", False),
        ("u", False),
        ("u@", False),
        ("u@[192.0.2.1]", True),
        ("u@[anything]", True),
        ("u@[", False),
        ("u@-b.example", False),
        ("u@b_c.example", True),
        ("u@192.0.2.1", False),
        ("u@c.example@b", False),
        ("u@b c.example", False),
        ("", True),
    ],
)
@pytest.mark.parametrize("who", ["sender", "recipient"])
def test_reject_non_fqdn_address(address: str, passes: bool, who: str) -> None:
    """A domain that is a hostname with a dot passes, so does any literal; empty is skipped."""
    name = f"reject_non_fqdn_{who}"
    expected = WENT_ON if passes else f"{name}, reject"
    assert expected == answer(f"{name}, {NEXT}", **{who: address})


@pytest.mark.parametrize("name", ["sender", "recipient", "helo_hostname"])
def test_only_postfix_knows_smtputf8(name: str) -> None:
    """A name that needs Unicode passes for clients that asked for SMTPUTF8: Postfix knows which."""
    listed = f"reject_non_fqdn_{name}"
    key, prefix = (name, "u@") if name != "helo_hostname" else ("helo_name", "")
    assert f"{listed}, {listed}" != answer(listed, **{key: f"{prefix}bücher.example"})
    assert f"{listed}," == answer(listed, **{key: f"{prefix}bücher.example"})
    assert f"{listed}, reject" == answer(listed, **{key: f"{prefix}bü cher.example"})


HELO = {
    # name: (reject_invalid_helo_hostname passes, reject_non_fqdn_helo_hostname passes)
    "helo.example": (True, True),
    "helo.example.": (True, True),
    "localhost": (True, False),
    "helo..example": (False, False),
    "foo?bar.example": (False, False),
    "my_host.example": (True, True),
    "192.0.2.1": (True, False),
    "0.1.2.3": (False, False),
    "[192.0.2.1]": (True, True),
    "[192.0.2.1": (False, False),
    "[IPv6:2001:db8::1]": (True, True),
    "[2001:db8::1]": (False, False),
    "[]": (False, False),
    "[": (False, False),
    ".": (False, False),
    "": (True, True),
    "-": (False, False),
}


@pytest.mark.parametrize("helo", HELO)
@pytest.mark.parametrize("which", [0, 1], ids=["invalid", "non_fqdn"])
def test_helo_syntax(helo: str, which: int) -> None:
    """Both tests of a HELO name agree about literals, and are skipped without HELO."""
    name = ("reject_invalid_helo_hostname", "reject_non_fqdn_helo_hostname")[which]
    expected = WENT_ON if HELO[helo][which] else f"{name}, reject"
    assert expected == answer(f"{name}, {NEXT}", helo_name=helo)


@pytest.mark.parametrize(("old", "new"), sorted(OLD_NAMES.items()))
def test_old_names(old: str, new: str) -> None:
    """The older spelling of an evaluated restriction means the same, and is sent under today's name."""
    assert f"{new}, reject" == answer(old.title(), helo_name="a..b")


@pytest.mark.parametrize(
    ("state", "sender", "count", "expected"),
    [
        pytest.param("RCPT", "", "0", "reject_multi_recipient_bounce,", id="not known at RCPT"),
        pytest.param("RCPT", "a@b.example", "0", "DUNNO", id="no bounce"),
        pytest.param("DATA", "", "1", "DUNNO", id="one"),
        pytest.param("DATA", "", "2", "reject_multi_recipient_bounce, reject", id="two"),
        pytest.param("DATA", "a@b.example", "2", "DUNNO", id="no bounce at DATA"),
        pytest.param("END-OF-MESSAGE", "", "3", "reject_multi_recipient_bounce, reject", id="three"),
        pytest.param(
            "DATA", "", "9" * 5000, "reject_multi_recipient_bounce,", id="no number that Postfix sends"
        ),
        pytest.param("DATA", "", "", "reject_multi_recipient_bounce,", id="not told"),
    ],
)
def test_reject_multi_recipient_bounce(state: str, sender: str, count: str, expected: str) -> None:
    """A bounce to several recipients is refused where their number is known, else left to Postfix."""
    name = "reject_multi_recipient_bounce"
    site = Site(policy(recipient=name, data=name, end_of_data=name))
    assert expected == site.action(protocol_state=state, sender=sender, recipient_count=count)


# ---------------------------------------------------------------- networks and destinations


@pytest.mark.parametrize(
    ("networks", "expected"),
    [
        pytest.param(None, "permit_mynetworks, reject", id="left to Postfix"),
        pytest.param("203.0.113.0/24", "DUNNO", id="inside"),
        pytest.param("198.51.100.0/24", "reject,", id="outside"),
        pytest.param("!203.0.113.5, 203.0.113.0/24", "reject,", id="excluded"),
        pytest.param("outside.example", "DUNNO", id="by name"),
        pytest.param("fail:x", "451 4.3.0 Temporary lookup failure", id="fail"),
        pytest.param("203.0.113.0/24 fail:x", "DUNNO", id="before a failure"),
        pytest.param("198.51.100.0/24 fail:x", "451 4.3.0 Temporary lookup failure", id="then a failure"),
        pytest.param("!203.0.113.5 fail:x", "reject,", id="excluded before a failure"),
    ],
)
def test_permit_mynetworks(networks: str | None, expected: str) -> None:
    """permit_mynetworks is decided by smtpdMynetworks, in order, and left to Postfix without it."""
    settings = {} if networks is None else {"smtpdMynetworks": networks}
    assert expected == Site(policy(recipient="permit_mynetworks, reject", **settings)).action()


def test_failed_mynetworks_is_not_demoted() -> None:
    """A failed mynetworks is a data error to smtpd: warn_if_reject does not apply to it."""
    site = Site(policy(recipient="warn_if_reject permit_mynetworks", smtpdMynetworks="fail:x"))
    assert "451 4.3.0 Temporary lookup failure" == site.action()


LOCAL = tables(local_domains=["my.domain x", ".sub.domain x"])


@pytest.mark.parametrize(
    ("recipient", "local"),
    [
        pytest.param("u@my.domain", "yes", id="ours"),
        pytest.param("U@MY.domain", "yes", id="folded"),
        pytest.param("u@my.domain.", "yes", id="trailing dot"),
        pytest.param("u@a.my.domain", "no", id="a subdomain of a bare domain is not"),
        pytest.param("u@a.sub.domain", "yes", id="below a dotted one"),
        pytest.param("u@a.b.sub.domain", "yes", id="far below a dotted one"),
        pytest.param("u@sub.domain", "no", id="the dotted one itself"),
        pytest.param("u@notmy.domain", "no", id="label by label"),
        pytest.param("u@my.domain.evil.example", "no", id="not the beginning"),
        pytest.param("u@other.example", "no", id="foreign"),
        pytest.param("u", "left", id="no domain"),
        pytest.param("u@[192.0.2.1]", "left", id="literal"),
        pytest.param("a%b@my.domain", "left", id="percent"),
        pytest.param("a!b@my.domain", "left", id="bang"),
        pytest.param("a@b@my.domain", "left", id="at"),
        pytest.param("a%b@other.example", "left", id="percent elsewhere"),
        pytest.param("", "none", id="no recipient"),
    ],
)
@pytest.mark.parametrize(
    "name", ["permit_auth_destination", "reject_unauth_destination", "defer_unauth_destination"]
)
def test_destinations(name: str, recipient: str, local: str) -> None:
    """The domain is looked up, then its parents with a leading dot; what only Postfix knows is left."""
    site = Site(policy(recipient=f"{name}, {NEXT}", smtpdLocalDomains="ldap:local_domains"), LOCAL)
    verb, _, _ = name.partition("_")
    refusal = f"{name}, {verb}"
    # NEXT has a text of its own: behind what may refuse for a while it becomes the list item.
    left = f"{name}, reject"
    expected = {
        "permit": {"yes": "DUNNO", "no": WENT_ON, "left": left, "none": WENT_ON},
        "reject": {"yes": WENT_ON, "no": refusal, "left": left, "none": WENT_ON},
        "defer": {"yes": WENT_ON, "no": refusal, "left": left, "none": WENT_ON},
    }
    assert expected[verb][local] == site.action(recipient=recipient)


def test_literal_in_local_domains() -> None:
    """An address literal that is in the table is known here."""
    site = Site(
        policy(recipient="reject_unauth_destination", smtpdLocalDomains="ldap:t"), tables(t=["[192.0.2.1] x"])
    )
    assert "DUNNO" == site.action(recipient="u@[192.0.2.1]")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("permit_auth_destination", "permit_auth_destination, reject"),
        ("reject_unauth_destination", "reject_unauth_destination, reject"),
        ("defer_unauth_destination", "defer_unauth_destination, reject"),
    ],
)
def test_destinations_unknown(name: str, expected: str) -> None:
    """Without smtpdLocalDomains the tests are left to Postfix, and skipped without a recipient."""
    assert expected == answer(f"{name}, reject")
    assert "reject," == answer(f"{name}, reject", recipient="")


@pytest.mark.parametrize("value", ["OK", "DUNNO", "REJECT", "nosuch", "550 x"])
def test_value_in_local_domains_does_not_matter(value: str) -> None:
    """A domain is ours when the table has it, whatever the value."""
    site = Site(
        policy(recipient="reject_unauth_destination", smtpdLocalDomains="ldap:t"),
        tables(t=[f"my.domain {value}"]),
    )
    assert "DUNNO" == site.action()


@pytest.mark.parametrize("name", ["fail:x", "ldap:nosuch", "hash:/x", "directory:access"])
def test_local_domains_that_failed(name: str) -> None:
    """A table of local domains that is none, or stands for a failed one, never makes a domain ours."""
    for listed in ("permit_auth_destination, permit", "reject_unauth_destination"):
        assert CONFIGURATION_ERROR == Site(policy(recipient=listed, smtpdLocalDomains=name)).action()


# ---------------------------------------------------------------- access checks and what they look up


@pytest.mark.parametrize(
    ("check", "key", "attributes"),
    [
        ("check_client_access", "mail.outside.example", {}),
        ("check_client_access", "outside.example", {}),
        ("check_client_access", "203.0.113", {}),
        ("check_client_access", "unknown", {"client_name": "unknown"}),
        ("check_reverse_client_hostname_access", "ptr.example", {"reverse_client_name": "PTR.example"}),
        ("check_reverse_client_hostname_access", "203.0.113.5", {}),
        ("check_helo_access", "helo.outside.example", {}),
        ("check_helo_access", "[192.0.2.1]", {"helo_name": "[192.0.2.1]"}),
        ("check_sender_access", "a@b.example", {}),
        ("check_sender_access", "<>", {"sender": ""}),
        ("check_recipient_access", "u@my.domain", {}),
        ("check_sasl_access", "amy", {"login": "Amy"}),
        ("check_ccert_access", "aa:bb", {"ccert_fingerprint": "AA:BB"}),
        ("check_ccert_access", "cc:dd", {"ccert_pubkey_fingerprint": "CC:DD"}),
        ("check_ccert_access", "cc:dd", {"ccert_fingerprint": "AA:BB", "ccert_pubkey_fingerprint": "CC:DD"}),
        ("check_etrn_access", "b.example", {"etrn_domain": "B.example"}),
    ],
)
def test_checks(check: str, key: str, attributes: dict[str, str]) -> None:
    """Each check looks up its own attribute, in any case, and nothing else."""
    site = Site(policy(recipient=f"{check.title()} ldap:t"), tables(t=[f"{key} REJECT found"]))
    assert "REJECT found" == site.action(**attributes)
    others = Site(policy(recipient=f"{check} ldap:t"), tables(t=["nothing.invalid REJECT found"]))
    assert "DUNNO" == others.action(**attributes)


@pytest.mark.parametrize(
    ("check", "attributes"),
    [
        ("check_helo_access", {"helo_name": ""}),
        ("check_recipient_access", {"recipient": ""}),
        ("check_sasl_access", {}),
        ("check_ccert_access", {}),
        ("check_etrn_access", {}),
        ("check_sender_access", {"sender": "", "protocol_state": "CONNECT"}),
    ],
)
def test_skipped_checks(check: str, attributes: dict[str, str]) -> None:
    """A check of what is not there is skipped, whatever the table."""
    site = Site(policy(recipient=f"{check} static:REJECT", client=f"{check} static:REJECT"))
    assert "DUNNO" == site.action(**attributes)


def test_certificate_dunno_goes_on() -> None:
    """A DUNNO for the certificate does not end the search for its public key."""
    site = Site(policy(recipient="check_ccert_access ldap:t"), tables(t=["aa DUNNO", "bb REJECT key"]))
    assert "REJECT key" == site.action(ccert_fingerprint="aa", ccert_pubkey_fingerprint="bb")


@pytest.mark.parametrize(
    ("where", "key"),
    [
        ("client", "mail.outside.example"),
        ("helo", "helo.outside.example"),
        ("sender", "a@b.example"),
        ("relay", "u@my.domain"),
        ("recipient", "u@my.domain"),
        ("etrn", "etrn.example"),
    ],
)
@pytest.mark.parametrize("nested", [False, True], ids=["list", "class"])
def test_bare_table(where: str, key: str, nested: bool) -> None:
    """A table without a check before it means the check of its list, also inside a class."""
    lines = tables(t=[f"{key} REJECT found"])
    site = Site(policy(**{where: "c" if nested else "ldap:t"}), lines, classes(c="ldap:t"))
    assert "REJECT found" == site.action(policy_context=f"default/{where}", etrn_domain="etrn.example")


@pytest.mark.parametrize("where", ["data", "end_of_data"])
def test_bare_table_without_a_check(where: str) -> None:
    """In the data lists there is no such check: it is an error."""
    site = Site(policy(**{where: "static:OK"}))
    assert CONFIGURATION_ERROR == site.action(policy_context=f"default/{where}")


def test_bare_table_in_a_class_of_another_check() -> None:
    """A bare table in a class that a sender table chose is still the check of the list (A25)."""
    site = Site(
        policy(recipient="check_sender_access static:c"),
        classes(c="ldap:t"),
        tables(t=["a@b.example REJECT wrong", "u@my.domain REJECT right"]),
    )
    assert "REJECT right" == site.action()


# ---------------------------------------------------------------- nesting


@pytest.mark.parametrize(
    ("listed", "bodies", "expected"),
    [
        pytest.param("c, reject", {"c": "permit"}, "DUNNO", id="a permit ends the whole list"),
        pytest.param("c, reject", {"c": "permit_sasl_authenticated"}, "reject,", id="a class that runs out"),
        pytest.param("c, permit", {"c": "reject"}, "reject,", id="a reject in a class"),
        pytest.param("C, reject", {"c": "permit"}, CONFIGURATION_ERROR, id="class names have a case"),
        pytest.param("a, reject", {"a": "b", "b": "c", "c": "permit"}, "DUNNO", id="three deep"),
        pytest.param(
            "a, b", {"a": "permit_sasl_authenticated", "b": "reject"}, "reject,", id="the next decides"
        ),
        pytest.param(
            "check_sender_access static:c, reject", {"c": "permit"}, "DUNNO", id="chosen by a table"
        ),
        pytest.param(
            "check_sender_access static:{c, d}, reject",
            {"c": "defer_if_permit", "d": "permit"},
            "defer_if_permit,",
            id="list",
        ),
        pytest.param("permit_sasl_authenticated", {}, "DUNNO", id="a list that runs out"),
    ],
)
def test_nesting(listed: str, bodies: dict[str, str], expected: str) -> None:
    """A class is a nested list: what is not DUNNO ends its callers too."""
    assert expected == answer(listed, classes(**bodies))


@pytest.mark.parametrize(
    ("listed", "bodies", "expected"),
    [
        pytest.param("warn_if_reject reject", {}, "DUNNO", id="item"),
        pytest.param("warn_if_reject reject, reject", {}, "reject,", id="the next item only"),
        pytest.param("warn_if_reject warn_if_reject reject, reject", {}, "reject,", id="twice"),
        pytest.param("WARN_IF_REJECT defer, permit", {}, "DUNNO", id="case"),
        pytest.param("warn_if_reject permit, reject", {}, "DUNNO", id="a permit permits"),
        pytest.param("warn_if_reject c, reject", {"c": "reject, permit"}, "DUNNO", id="all of a class"),
        pytest.param("warn_if_reject c, reject", {"c": "reject"}, "reject,", id="no further than the class"),
        pytest.param("c, reject", {"c": "warn_if_reject"}, "reject,", id="not out of a class"),
        pytest.param("c", {"c": "warn_if_reject reject, reject"}, "reject,", id="within a class"),
        pytest.param(
            "warn_if_reject c, reject", {"c": "d, reject", "d": "reject"}, "reject,", id="nested classes"
        ),
        pytest.param(
            "warn_if_reject check_sender_access static:c, reject",
            {"c": "reject, reject"},
            "reject,",
            id="through a table",
        ),
        pytest.param("warn_if_reject defer_if_permit", {}, "DUNNO", id="defer_if_permit warns"),
        pytest.param(
            "warn_if_reject defer_if_reject, reject",
            {},
            "defer_if_reject, reject",
            id="defer_if_reject does not",
        ),
        pytest.param("warn_if_reject check_sender_access static:{REJECT no}", {}, "DUNNO", id="an action"),
        pytest.param(
            "warn_if_reject check_sender_access static:{DEFER_IF_PERMIT no}",
            {},
            "DUNNO",
            id="an action that defers",
        ),
        pytest.param("warn_if_reject reject_plaintext_session", {}, "DUNNO", id="a built-in"),
        pytest.param("warn_if_reject check_sender_access static:HOLD", {}, "HOLD", id="effects stay"),
        pytest.param(
            "warn_if_reject reject_rbl_client x",
            {},
            "warn_if_reject reject_rbl_client x",
            id="before a residue",
        ),
        pytest.param(
            "warn_if_reject c, reject",
            {"c": "reject_rbl_client x, reject, permit_inet_interfaces"},
            "warn_if_reject reject_rbl_client x, warn_if_reject permit_inet_interfaces, reject",
            id="before each of its own items",
        ),
    ],
)
def test_warn_if_reject(listed: str, bodies: dict[str, str], expected: str) -> None:
    """warn_if_reject applies to the next item, and to all of it where that is a class."""
    assert expected == answer(listed, classes(**bodies))


def test_warn_if_reject_leaves_a_note() -> None:
    """What would have been refused is a log line of ours."""
    decision = Site(policy(recipient="warn_if_reject check_sender_access static:{REJECT no}")).decide()
    assert ("DUNNO", True) == (decision.action, any("REJECT no" in note for note in decision.notes))


# ---------------------------------------------------------------- depth


def test_loop_through_a_table() -> None:
    """A loop through a table is cut at a depth of 100 (A19)."""
    assert CONFIGURATION_ERROR == answer("loop", classes(loop="check_sender_access static:loop"))


@pytest.mark.parametrize("levels", [10, 49])
def test_deep_tables(levels: int) -> None:
    """What is less deep is evaluated: a class and its table are two levels."""
    chain = [restriction_class(f"c{n}", f"check_sender_access static:c{n + 1}") for n in range(levels)]
    assert "reject," == answer("c0", chain, restriction_class(f"c{levels}", "reject"))


@pytest.mark.parametrize("levels", [90, 400, 2000])
def test_deep_classes(levels: int) -> None:
    """Classes nested by names are evaluated to depth 100; deeper ones are at worst an error when reached."""
    chain = [restriction_class(f"c{n}", f"c{n + 1}") for n in range(levels)]
    site = Site(policy(recipient="c0", sender="permit, c0"), chain, restriction_class(f"c{levels}", "reject"))
    assert "DUNNO" == site.action(policy_context="default/sender")
    assert site.action() in ({"reject,"} if levels < 100 else {"reject,", CONFIGURATION_ERROR})


def test_every_list_has_a_name() -> None:
    """The lists of section 1."""
    assert ["client", "helo", "sender", "relay", "recipient", "data", "end_of_data", "etrn"] == list(LISTS)
