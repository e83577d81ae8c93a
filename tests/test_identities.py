"""Identities: in which form addresses are looked up, and who may send as whom."""

from collections.abc import Sequence

import pytest

from ldappolicy.entry import Entry
from tests.language import (
    AMY,
    BOB,
    CONFIGURATION_ERROR,
    LOOKUP_FAILURE,
    Site,
    answer,
    classes,
    dn,
    entry,
    group,
    person,
    policy,
    table,
    tables,
)

Entries = Sequence[Entry]

# ---------------------------------------------------------------- rewriting

ALL = "all@my.domain"
SPELLINGS = [
    "all@my.domain",
    "All@My.Domain",
    "all@my.domain.",
    "all%my.domain@my.domain",
    "my.domain!all@my.domain",
    "all@my.domain@my.domain",
    "all",
    "all%my.domain",
    "my.domain!all",
    "all%my.domain.@my.domain.",
    "all%my.domain%my.domain@my.domain",
    "my.domain!all%my.domain@my.domain",
    "my.domain!my.domain!all",
    "all" + "%my.domain" * 70 + "@my.domain",
]
"""What the protocol sends for each spelling in section 5 (addresses come unquoted), and more of the kind."""

LOCAL = {"smtpdLocalDomains": "inline:{my.domain=x, other.domain=x}", "smtpdMyorigin": "my.domain"}


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("local", ["known", "unknown"])
@pytest.mark.parametrize("way", ["line", "entry", "recipient:"])
def test_every_spelling_reaches_the_list(spelling: str, local: str, way: str) -> None:
    """However it is spelled, what Postfix delivers to the list is looked up as the list."""
    listed = {
        "line": f"check_recipient_access inline:{{{ALL}=REJECT}}",
        "entry": "check_recipient_access directory:access",
        "recipient:": "check_sender_access recipient:denied",
    }
    settings = LOCAL if local == "known" else {"smtpdMyorigin": "my.domain"}
    the_list = entry("cn=all", mail=ALL, smtpdRecipientAccess="REJECT", smtpdDeniedSender="b.example")
    assert "REJECT" == Site(policy(recipient=listed[way], **settings), the_list).action(recipient=spelling)


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_of_a_sender(spelling: str) -> None:
    """Senders are looked up in the same form."""
    site = Site(policy(recipient=f"check_sender_access inline:{{{ALL}=REJECT}}", **LOCAL))
    assert "REJECT" == site.action(sender=spelling)


@pytest.mark.parametrize(
    ("received", "settings", "found"),
    [
        pytest.param("all@my.domain..", LOCAL, False, id="two dots"),
        pytest.param("all", {}, False, id="without myorigin it stays as it stands"),
        pytest.param("all", {"smtpdMyorigin": "My.Domain"}, True, id="myorigin is folded"),
        pytest.param("all%my.domain", {}, True, id="a percent needs no myorigin"),
        pytest.param("all%my.domain@foreign.example", LOCAL, False, id="foreign domains are not taken off"),
        pytest.param("all@my.domain@foreign.example", LOCAL, False, id="nor before an at"),
        pytest.param("all%my.domain@other.domain", LOCAL, True, id="any domain of ours is"),
        pytest.param("all%my.domain@foreign.example", {}, True, id="any is, without smtpdLocalDomains"),
        pytest.param("all%my.domain@sub.my.domain", LOCAL, False, id="a bare domain has no subdomains there"),
        pytest.param("all@my.domain.evil.example", LOCAL, False, id="my.domain.evil.example"),
        pytest.param("all@notmy.domain", LOCAL, False, id="notmy.domain"),
        pytest.param("all+x@my.domain", LOCAL, False, id="no delimiter"),
    ],
)
def test_rewriting(received: str, settings: dict[str, str], found: bool) -> None:
    """A domain is taken off while it is ours, any where the policy names none."""
    site = Site(policy(recipient=f"check_recipient_access inline:{{{ALL}=REJECT}}", **settings))
    assert ("REJECT" if found else "DUNNO") == site.action(recipient=received)


def test_bare_address_as_it_stands() -> None:
    """Without smtpdMyorigin an address without a domain is its own key."""
    assert "REJECT" == answer("check_recipient_access inline:{all=REJECT}", recipient="All")


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        pytest.param("all%foreign.example@my.domain=REJECT received", "REJECT received", id="as received"),
        pytest.param("all@foreign.example=REJECT rewritten", "REJECT rewritten", id="what it means"),
        pytest.param(
            "{all@foreign.example=REJECT rewritten} {all%foreign.example@my.domain=REJECT received}",
            "REJECT rewritten",
            id="rewritten first",
        ),
        pytest.param(
            "{foreign.example=DUNNO} {my.domain=REJECT received}", "REJECT received", id="DUNNO goes on"
        ),
        pytest.param(
            "{foreign.example=OK} {my.domain=REJECT received}", "DUNNO", id="an OK of the first ends"
        ),
        pytest.param("my.domain=OK", "reject,", id="an OK of the routed form is DUNNO"),
        pytest.param("my.domain=permissive", "reject,", id="also one of a class"),
        pytest.param("my.domain=1234", "reject,", id="also one of digits"),
        pytest.param("foreign.example=OK", "DUNNO", id="an OK of the rewritten form is one"),
        pytest.param("my.domain=DISCARD", "DISCARD", id="DISCARD is no OK"),
        pytest.param("my.domain=HOLD", "reject,", id="effects of a refused recipient are not sent"),
    ],
)
def test_both_forms(lines: str, expected: str) -> None:
    """A routed recipient is checked in both forms, each a check of its own."""
    if not lines.startswith("{"):
        lines = f"{{{lines}}}"
    listed = f"check_recipient_access inline:{{ {lines} }}, reject"
    assert expected == Site(policy(recipient=listed, **LOCAL), classes(permissive="permit")).action(
        recipient="all%foreign.example@my.domain"
    )


@pytest.mark.parametrize(
    ("recipient", "expected"),
    [
        ("a%b@foreign.example", "reject,"),
        ("a!b@foreign.example", "reject,"),
        ("a@b@foreign.example", "reject,"),
        ("a@foreign.example", "DUNNO"),
    ],
)
def test_routed_recipient_is_never_ok(recipient: str, expected: str) -> None:
    """An OK for an address whose local part still routes is DUNNO."""
    site = Site(policy(recipient="check_recipient_access inline:{foreign.example=OK}, reject", **LOCAL))
    assert expected == site.action(recipient=recipient)


@pytest.mark.parametrize(
    ("recipient", "expected"),
    [
        pytest.param("x@my.domain", "DUNNO", id="plain"),
        pytest.param("x%my.domain@my.domain", "DUNNO", id="routed through us: known"),
        pytest.param("x%my.domain@[203.0.113.9]", "reject,", id="a literal that may be ours"),
        pytest.param("x%my.domain@localhost", "reject,", id="localhost"),
        pytest.param("x%my.domain%[203.0.113.9]", "reject,", id="a literal behind a percent"),
        pytest.param("my.domain!x@[203.0.113.9]", "reject,", id="bang"),
        pytest.param("x%my.domain@foreign.example", "reject,", id="somebody else's"),
    ],
)
def test_guess_is_never_ok(recipient: str, expected: str) -> None:
    """An OK for what we only guess to be local is DUNNO: a restricted login gets no relay out of it."""
    site = Site(
        policy(
            recipient="check_sasl_access directory:access, reject",
            smtpdLocalDomains="ldap:local_domains",
            smtpdMyorigin="my.domain",
        ),
        table("local_domains", "my.domain OK"),
        classes(local_only="check_recipient_access ldap:local_domains, reject"),
        person("amy", smtpdSenderAccess="local_only"),
    )
    assert expected == site.action(recipient=recipient, login="amy")


@pytest.mark.parametrize(
    "recipient", ["all%my.domain@[203.0.113.9]", "my.domain!all@[203.0.113.9]", "all%my.domain@localhost"]
)
def test_guess_is_refused_as_the_list(recipient: str) -> None:
    """What may be ours is looked up as what it would mean then."""
    site = Site(policy(recipient=f"check_recipient_access inline:{{{ALL}=REJECT}}", **LOCAL))
    assert "REJECT" == site.action(recipient=recipient)


def test_routed_sender_may_be_ok() -> None:
    """Only recipients are demoted."""
    site = Site(policy(recipient="check_sender_access inline:{foreign.example=OK}, reject", **LOCAL))
    assert "DUNNO" == site.action(sender="a%b@foreign.example")


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param("permit_inet_interfaces", "reject,", id="it may permit: dropped, both ways are DUNNO"),
        pytest.param(
            "reject_rbl_client x, permit_inet_interfaces", "reject_rbl_client x, reject", id="behind R"
        ),
        pytest.param("permit_inet_interfaces, reject", CONFIGURATION_ERROR, id="no reply can say that"),
        pytest.param("permit_inet_interfaces, reject_rbl_client x", CONFIGURATION_ERROR, id="nor that"),
        pytest.param("reject_rbl_client x", "reject_rbl_client x, reject", id="R is as ever"),
    ],
)
def test_what_postfix_may_permit_for_a_routed_recipient(body: str, expected: str) -> None:
    """A permit that only Postfix can find would not count either."""
    listed = "check_recipient_access inline:{foreign.example=c}, reject"
    site = Site(policy(recipient=listed, **LOCAL), classes(c=body))
    assert expected == site.action(recipient="a%b@foreign.example")


def test_literal_form_is_asked_once() -> None:
    """An address that is not routed has one form only, and one catch-all."""
    site = Site(policy(recipient="check_recipient_access directory:access", **LOCAL))
    site.action(recipient="all@my.domain.")
    asked = [lookup for asked in site.rounds for lookup in asked if lookup[0] == "mail"]
    assert [("mail", ALL), ("mail", "@my.domain")] == asked


def test_broken_local_domains() -> None:
    """Where it is not known which domains are ours, a routed recipient cannot be looked up."""
    site = Site(policy(recipient="check_recipient_access static:OK, reject", smtpdLocalDomains="ldap:gone"))
    assert [CONFIGURATION_ERROR, "DUNNO"] == [site.action(recipient=one) for one in ("a%b@c.example", ALL)]


# ---------------------------------------------------------------- who may send as whom

PEOPLE = [person("amy"), person("bob"), person("cal")]


def verdicts(sender: str, entries: Entries = (), **settings: str) -> dict[str, str]:
    """What each form of the restriction says to the logins amy, zoe (who is nobody) and none."""
    short = {
        "not owned by user amy": "not owned",
        "not owned by user zoe": "not owned",
        "not logged in": "not logged in",
    }
    found = {}
    for form in ("authenticated_", "unauthenticated_", "known_", ""):
        site = Site(policy(recipient=f"reject_{form}sender_login_mismatch", **settings), PEOPLE, entries)
        for login in ("amy", "zoe", ""):
            action = site.action(sender=sender, login=login) or ""
            text = action.removeprefix("553 5.7.1 ")
            found[f"{form}{login or 'none'}"] = short.get(text, action)
    return found


FREE = "DUNNO"
UNOWNED = {
    "authenticated_amy": "not owned",
    "authenticated_zoe": "not owned",
    "authenticated_none": FREE,
    "unauthenticated_amy": FREE,
    "unauthenticated_zoe": FREE,
    "unauthenticated_none": FREE,
    "known_amy": FREE,
    "known_zoe": FREE,
    "known_none": FREE,
    "amy": "not owned",
    "zoe": "not owned",
    "none": FREE,
}
BOBS = {**UNOWNED} | {
    "unauthenticated_none": "not logged in",
    "known_amy": "not owned",
    "known_zoe": "not owned",
    "known_none": "not logged in",
    "none": "not logged in",
}
AMYS = {**BOBS} | {"authenticated_amy": FREE, "known_amy": FREE, "amy": FREE}
NOBODYS = dict.fromkeys(UNOWNED, FREE)

G = dn("cn=g,ou=groups")
AMYS_GROUP = group("g", [dn("cn=h,ou=groups")])
INNER = group("h", [AMY])


def domain_entry(name: str, **attributes: str) -> Entry:
    """The entry that stands for a domain."""
    return entry(f"dc={name},ou=domains", associatedDomain=name, **attributes)


@pytest.mark.parametrize(
    ("sender", "entries", "expected"),
    [
        pytest.param("", [], NOBODYS, id="the null sender is everybody's"),
        pytest.param("x@foreign.example", [], UNOWNED, id="an address that no entry has"),
        pytest.param("amy@my.domain", [], AMYS, id="her own"),
        pytest.param("AMY@My.Domain.", [], AMYS, id="her own, in another spelling"),
        pytest.param("bob@my.domain", [], BOBS, id="somebody else's"),
        pytest.param("amy@my.domain.evil.example", [], UNOWNED, id="evil domain"),
        pytest.param(
            "list@my.domain", [group("l", mail="list@my.domain", smtpdSendAs=AMY)], AMYS, id="send as"
        ),
        pytest.param(
            "list@my.domain", [group("l", mail="list@my.domain", smtpdSendAs=BOB)], BOBS, id="not she"
        ),
        pytest.param(
            "list@my.domain",
            [group("l", mail="list@my.domain", smtpdSendAs=G), AMYS_GROUP, INNER],
            AMYS,
            id="a group she belongs to",
        ),
        pytest.param(
            "bob2@my.domain",
            [person("bob2", smtpdSendAs=[BOB, AMY])],
            AMYS,
            id="another user's, who lets her",
        ),
        pytest.param("any@d.example", [domain_entry("d.example", smtpdSendAs=AMY)], AMYS, id="a domain"),
        pytest.param(
            "any@d.example", [domain_entry("d.example", smtpdSendAs=BOB)], BOBS, id="another's domain"
        ),
        pytest.param(
            "any@s.d.example", [domain_entry("d.example", smtpdSendAs=AMY)], UNOWNED, id="not a subdomain"
        ),
        pytest.param(
            "any@nod.example", [domain_entry("d.example", smtpdSendAs=AMY)], UNOWNED, id="nod.example"
        ),
        pytest.param("any@d.example", [domain_entry("d.example")], UNOWNED, id="a domain that names nobody"),
        pytest.param(
            "bob@my.domain",
            [domain_entry("my.domain", smtpdSendAs=AMY)],
            AMYS,
            id="every address of that domain",
        ),
        pytest.param(
            "any@d.example",
            [domain_entry("d.example", smtpdSendAs=G), AMYS_GROUP, INNER],
            AMYS,
            id="a domain and a group",
        ),
    ],
)
def test_login_mismatch(sender: str, entries: Entries, expected: dict[str, str]) -> None:
    """A login owns its entry's addresses, and what names it or a group around it in smtpdSendAs."""
    assert expected == verdicts(sender, entries)


def test_login_mismatch_with_extension() -> None:
    """An address with an extension belongs to whom it belongs without."""
    assert AMYS == verdicts("amy+x@my.domain", smtpdRecipientDelimiter="+")
    assert UNOWNED == verdicts("amy+x@my.domain")


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        pytest.param(
            [person("a1", "x@my.domain"), person("a2", "x@my.domain")],
            "553 5.7.1 not owned by user amy",
            id="agree",
        ),
        pytest.param(
            [person("a1", "x@my.domain", smtpdSendAs=AMY), person("a2", "x@my.domain")],
            LOOKUP_FAILURE,
            id="disagree",
        ),
        pytest.param([entry("cn=twin", uid="amy")], LOOKUP_FAILURE, id="two entries with the login"),
        pytest.param([person("a1", "x@my.domain", smtpdSendAs="nonsense")], LOOKUP_FAILURE, id="no DN"),
    ],
)
def test_login_mismatch_in_doubt(entries: Entries, expected: str) -> None:
    """Where entries contradict one another, nobody knows."""
    assert expected == answer(
        "reject_sender_login_mismatch", PEOPLE, entries, sender="x@my.domain", login="amy"
    )


def test_login_mismatch_by_address() -> None:
    """A login with an @ is that of the entry with the address."""
    listed = "reject_sender_login_mismatch"
    assert "DUNNO" == answer(listed, PEOPLE, sender="amy@my.domain", login="Amy@my.domain")
    assert "553 5.7.1 not owned by user bob@my.domain" == answer(
        listed, PEOPLE, sender="amy@my.domain", login="bob@my.domain"
    )


OUTSIDE = {"smtpdLocalDomains": "inline:{my.domain=x, d.example=x}"}


@pytest.mark.parametrize(
    ("sender", "entries", "expected"),
    [
        pytest.param("s@far.example", [entry("cn=s", mail="s@far.example")], UNOWNED, id="a contact"),
        pytest.param(
            "S@Far.Example.", [entry("cn=s", mail="s@far.example")], UNOWNED, id="in another spelling"
        ),
        pytest.param("s@my.domain", [entry("cn=s", mail="s@my.domain")], BOBS, id="one of ours"),
        pytest.param("s@far.example", [person("s", "s@far.example")], BOBS, id="with a login"),
        pytest.param(
            "s@far.example", [entry("cn=s", mail="s@far.example", smtpdSendAs=AMY)], AMYS, id="that names her"
        ),
        pytest.param(
            "s@far.example", [entry("cn=s", mail="s@far.example", smtpdSendAs=BOB)], BOBS, id="that names him"
        ),
        pytest.param(
            "s@far.example",
            [entry("cn=s", mail="s@far.example"), domain_entry("far.example", smtpdSendAs=BOB)],
            BOBS,
            id="in a domain that names somebody",
        ),
        pytest.param(
            "s@far.example",
            [entry("cn=s", mail="s@far.example"), domain_entry("far.example")],
            UNOWNED,
            id="in a domain that names nobody",
        ),
        pytest.param(
            "s@far.example",
            [entry("cn=s", mail="s@far.example"), person("s", "s@far.example")],
            BOBS,
            id="two with the address, one with a login",
        ),
        pytest.param("x@far.example", [entry("cn=s", mail="@far.example")], UNOWNED, id="a catch-all"),
        pytest.param("s", [entry("cn=s", mail="s")], BOBS, id="without a domain"),
    ],
)
def test_contacts(sender: str, entries: Entries, expected: dict[str, str]) -> None:
    """An entry without a login for somebody elsewhere owns nothing, as long as nobody may send as it."""
    assert expected == verdicts(sender, entries, **OUTSIDE)


def test_contacts_where_nobody_says_what_is_ours() -> None:
    """Without smtpdLocalDomains every address that an entry has is owned."""
    assert BOBS == verdicts("s@far.example", [entry("cn=s", mail="s@far.example")])


# ---------------------------------------------------------------- logins with a realm

REALMS = ("mail.example", "corp", "s.example")
DENIED = [
    group("list", mail="u@my.domain", smtpdDeniedSender=["nina", "far.example"]),
    group("other", mail="v@my.domain", smtpdAllowedSender="nina"),
]
NINA = [
    person("nina", "nina.novak@my.domain", smtpdSenderAccess="REJECT nina"),
    person("x@corp", "x@my.domain", smtpdSenderAccess="REJECT x@corp"),
    person("mia", "mia@mail.example", smtpdSenderAccess="REJECT mia"),
    person("strasse", smtpdSenderAccess="REJECT strasse"),
    entry("dc=my.domain", associatedDomain="my.domain", smtpdSenderAccess="REJECT my.domain"),
    entry("dc=corp", associatedDomain="corp", smtpdSenderAccess="REJECT corp"),
    person("tom", "tom@my.domain"),
    person("ulf", "tom@mail.example", "corp\\ulf@my.domain"),
]


@pytest.mark.parametrize(
    ("login", "expected"),
    [
        ("nina", "REJECT nina"),
        ("nina@mail.example", "REJECT nina"),
        ("NINA@Mail.Example", "REJECT nina"),
        ("CORP\\Nina", "REJECT nina"),
        ("nina@CORP", "REJECT nina"),
        ("straße@corp", "REJECT strasse"),
        ('"nina"@mail.example', "REJECT nina"),
        pytest.param("nina@other.example", "DUNNO", id="a realm that is not listed"),
        pytest.param("OTHER\\nina", "DUNNO", id="nor before a backslash"),
        pytest.param("nina@corp@mail.example", "DUNNO", id="taken off once"),
        pytest.param("CORP\\CORP\\nina", "DUNNO", id="once before a backslash"),
        pytest.param("CORP\\nina@mail.example", "DUNNO", id="once, on either side"),
        pytest.param("@corp", "REJECT corp", id="a name that is empty is none"),
        pytest.param("CORP\\", "DUNNO", id="nor before a backslash is an empty one"),
        pytest.param("x@corp", "REJECT x@corp", id="a login as it stands comes first"),
        pytest.param("mia@mail.example", "REJECT mia", id="mail and login of one entry"),
        pytest.param("tom@mail.example", LOOKUP_FAILURE, id="mail of one entry, login of another"),
        pytest.param("tom@corp", "REJECT my.domain", id="the domain is that of the entry, not the realm"),
        pytest.param("ghost@corp", "REJECT corp", id="nobody's domain is what stands there"),
        pytest.param("nina.novak@corp", "REJECT corp", id="a name is a login, no address"),
    ],
)
def test_login_with_a_realm(login: str, expected: str) -> None:
    """A realm that is listed is taken off a login that is known neither as it stands nor as an address."""
    site = Site(policy(recipient="check_sasl_access directory:access"), NINA, login_realms=REALMS)
    assert expected == site.action(login=login)


def test_login_with_a_realm_is_asked_for_at_once() -> None:
    """All that a login may mean is one round."""
    site = Site(policy(recipient="check_sasl_access directory:access"), NINA, login_realms=REALMS)
    site.action(login="nina@mail.example")
    names = {lookup[:2] for lookup in site.rounds[0] if lookup[0] in ("login", "mail")}
    assert {("login", "nina@mail.example"), ("login", "nina"), ("mail", "nina@mail.example")} == names


@pytest.mark.parametrize("login", ["nina", "nina@corp", "CORP\\nina"])
def test_patterns_and_a_realm(login: str) -> None:
    """A pattern that names the login names it with its realm as well."""
    listed = "check_sasl_access recipient:denied, check_sasl_access recipient:allowed, reject"
    site = Site(policy(recipient=listed), NINA, DENIED, login_realms=REALMS)
    assert ["REJECT", "DUNNO"] == [
        site.action(login=login, recipient=one) for one in ("u@my.domain", "v@my.domain")
    ]


def test_login_mismatch_and_a_realm() -> None:
    """Who logs in with a realm owns what the login owns; it is named as it came."""
    site = Site(policy(recipient="reject_sender_login_mismatch"), PEOPLE, login_realms=REALMS)
    assert "DUNNO" == site.action(sender="amy@my.domain", login="amy@corp")
    assert "553 5.7.1 not owned by user amy@corp" == site.action(sender="bob@my.domain", login="amy@corp")


def test_login_mismatch_behind_a_residue() -> None:
    """It has a text of its own: behind what is always permanent it stays, behind the rest it gives way."""
    request = {"sender": "bob@my.domain", "login": "amy"}
    mismatch = "reject_sender_login_mismatch"
    assert "553 5.7.1 not owned by user amy" == answer(f"reject_rbl_client x, {mismatch}", PEOPLE, **request)
    assert "reject_unknown_sender_domain, reject" == answer(
        f"reject_unknown_sender_domain, {mismatch}", PEOPLE, **request
    )


def test_tables_are_not_asked_for_a_login_that_is_not_there() -> None:
    """Without a login, check_sasl_access does not even look."""
    site = Site(
        policy(recipient="check_sasl_access directory:access, check_sasl_access ldap:t"),
        table("t", smtpdAccessMember=AMY),
    )
    site.action()
    assert [] == site.rounds
    assert tables() == []
