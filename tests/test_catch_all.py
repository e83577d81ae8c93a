"""Catch-alls: `mail: @domain` is every address of the domain that no other entry has, and nobody's proof."""

import pytest

from ldappolicy import facts
from ldappolicy.entry import Entry
from ldappolicy.invalidation import Dependencies
from ldappolicy.mapping import Mapping, mapping_for
from tests.language import AMY, GENERIC, Site, answer, asked, dn, entry, group, person, policy, table

LAB = dn("cn=lab,ou=groups")
RECIPIENT = "check_recipient_access directory:access"
SENDER = "check_sender_access directory:access"
LOGIN = "check_sasl_access directory:access"


def lab(*members: str, mail: str = "@lab.example", **attributes: str | list[str]) -> Entry:
    """A list that has the rest of a domain."""
    return group("lab", members, mail=["hello@lab.example", mail], **attributes)


@pytest.mark.parametrize(
    ("recipient", "expected"),
    [
        pytest.param("anything@lab.example", "REJECT", id="the rest of the domain"),
        pytest.param("Any+thing@LAB.example.", "REJECT", id="however it is spelled"),
        pytest.param("anything%lab.example@lab.example", "REJECT", id="or routed"),
        pytest.param("@lab.example", "REJECT", id="an empty local part as well"),
        pytest.param("amy@lab.example", "DUNNO", id="somebody else's"),
        pytest.param("amy+news@lab.example", "DUNNO", id="somebody else's without its extension"),
        pytest.param("anything@sub.lab.example", "DUNNO", id="no subdomain"),
        pytest.param("anything@example", "DUNNO", id="no parent"),
        pytest.param("anything", "DUNNO", id="no domain"),
    ],
)
@pytest.mark.parametrize("mail", ["@lab.example", "@LAB.Example", '""@lab.example'])
def test_whom_a_catch_all_stands_for(mail: str, recipient: str, expected: str) -> None:
    """Exactly one domain, and last: after the address and the address without its extension."""
    settings = policy(recipient=RECIPIENT, smtpdRecipientDelimiter="+")
    amy = person("amy", "amy@my.domain", "amy@lab.example")
    site = Site(settings, lab(mail=mail, smtpdRecipientAccess="REJECT"), amy)
    assert expected == site.action(recipient=recipient)


def test_proxy_addresses() -> None:
    """A catch-all behind smtp: is one as well."""
    values = ["SMTP:lab@my.domain", "smtp:@lab.example"]
    shared = entry("cn=lab", proxyAddresses=values, smtpdRecipientAccess="REJECT")
    site = Site(policy(recipient=RECIPIENT), shared, mapping=mapping_for("active_directory", {}))
    assert ["REJECT", "REJECT"] == [site.action(recipient=to) for to in ("x@lab.example", "lab@my.domain")]


@pytest.mark.parametrize(
    ("sender", "expected"),
    [("anything@lab.example", "REJECT"), ("amy@lab.example", "DUNNO"), ("x@my.domain", "DUNNO")],
)
def test_rules_of_a_sender(sender: str, expected: str) -> None:
    """What the entry carries, or a group around it, holds for senders that it stands for."""
    own = lab(smtpdSenderAccess="REJECT")
    around = group("around", [LAB], smtpdMemberSenderAccess="REJECT")
    amy = person("amy", "amy@lab.example")
    for entries in ([own, amy], [lab(), around, amy]):
        assert expected == answer(SENDER, *entries, sender=sender)


def test_an_address_that_is_not_restricted_is_learned_for_itself_alone() -> None:
    """That one address of a domain carries nothing says nothing of the others while a catch-all is there."""
    site = Site(policy(sender=SENDER), lab(smtpdSenderAccess="REJECT"), person("amy", "amy@lab.example"))
    lookups = [
        *(facts.mail(name) for name in ("amy@lab.example", "bob@lab.example", "@lab.example")),
        *(facts.domain(name) for name in ("lab.example", "example")),
        facts.carrying(),
        facts.groups(dn("uid=amy,ou=people"), ("amy",)),
        facts.groups(LAB, ()),
        facts.dynamic(),
    ]
    known = site.facts(site.ask(lookups))
    actions = [
        getattr(site.evaluator.evaluate(asked(sender=sender), known), "action", None)
        for sender in ("amy@lab.example", "amy@lab.example", "bob@lab.example")
    ]
    assert ["DUNNO", "DUNNO", "REJECT"] == actions


@pytest.mark.parametrize("table", ["members", "owners", "moderators", "allowed"])
@pytest.mark.parametrize("sender", ["anything@lab.example", "@lab.example", '""@lab.example'])
def test_it_lets_nobody_in(table: str, sender: str) -> None:
    """Whoever invents an address of the domain is no member by it; the entry's own address is one."""
    named = {"owner": LAB, "smtpdModerator": LAB, "smtpdAllowedSenderDN": LAB, "smtpdAllowedSender": "x"}
    all_hands = group("all", [LAB], mail="all@my.domain", **named)
    listed = f"check_sender_access recipient:{table}, reject"
    site = Site(policy(recipient=listed), all_hands, lab(AMY), person("amy"))
    told = [site.action(sender=one, recipient="all@my.domain") for one in (sender, "hello@lab.example")]
    assert ["reject,", "DUNNO"] == told


def test_it_denies() -> None:
    """Somebody who is denied is denied under every address that the entry stands for."""
    listed = "check_sender_access recipient:denied"
    for denied in (LAB, dn("cn=others,ou=groups")):
        all_hands = group("all", mail="all@my.domain", smtpdDeniedSenderDN=denied)
        site = Site(policy(recipient=listed), all_hands, lab(), group("others", [LAB]))
        told = [
            site.action(sender=one, recipient="all@my.domain") for one in ("x@lab.example", "x@my.domain")
        ]
        assert ["REJECT", "DUNNO"] == told


@pytest.mark.parametrize(
    ("attribute", "table", "expected"),
    [("smtpdAllowedSender", "allowed", "DUNNO"), ("smtpdDeniedSender", "denied", "REJECT")],
)
def test_patterns_of_its_login(attribute: str, table: str, expected: str) -> None:
    """The domain of a catch-all is a key of the entry's login where senders are denied, not where allowed."""
    listed = f"check_sasl_access recipient:{table}"
    all_hands = group("all", mail="all@my.domain", **{attribute: "lab.example"})
    amy = person("amy", "amy@my.domain", "@lab.example")
    site = Site(policy(recipient=listed), all_hands, amy, permit_ok=True)
    assert expected == site.action(login="amy", recipient="all@my.domain")


def test_it_is_no_login() -> None:
    """A login of its form belongs to nobody."""
    amy = person("amy", "@lab.example", smtpdSenderAccess="REJECT")
    logins = ("@lab.example", '""@lab.example', "x@lab.example", "amy")
    assert ["DUNNO", "DUNNO", "DUNNO", "REJECT"] == [answer(LOGIN, amy, login=login) for login in logins]


def test_it_is_no_key_of_a_table() -> None:
    """smtpdAccessMember names the addresses that the entry has itself."""
    insiders = table("insiders", smtpdAccessMember=[LAB], smtpdAccessAction="REJECT")
    senders = ("hello@lab.example", "x@lab.example", "@lab.example")
    told = [answer("check_sender_access ldap:insiders", insiders, lab(), sender=one) for one in senders]
    assert ["REJECT", "DUNNO", "DUNNO"] == told


def test_it_owns() -> None:
    """The entry's login sends as every address that it stands for, and nobody else does."""
    listed = "reject_sender_login_mismatch"
    people = [person("amy", "amy@my.domain", "@lab.example"), person("bob", "bob@lab.example")]
    site = Site(policy(sender=listed), people)
    told = [
        site.action(sender=sender, login=login)
        for sender, login in (("x@lab.example", "amy"), ("x@lab.example", "bob"), ("bob@lab.example", "amy"))
    ]
    assert ["DUNNO", *(f"553 5.7.1 not owned by user {name}" for name in ("bob", "amy"))] == told
    assert "553 5.7.1 not logged in" == site.action(sender="x@lab.example")


def test_domain_of_a_login() -> None:
    """A login without an address has the domain of its catch-all, so that the domain's rules hold."""
    lab_domain = entry("dc=lab", associatedDomain="lab.example", smtpdSenderAccess="REJECT")
    people = [person("amy", "@lab.example"), person("bob", "@lab.example", "bob@my.domain")]
    told = [answer(LOGIN, lab_domain, people, login=login) for login in ("amy", "bob")]
    assert ["REJECT", "DUNNO"] == told


def test_a_change_drops_its_answers() -> None:
    """An entry that comes to have the domain, or had it, makes just that answer anew."""
    before, after = person("amy", "amy@lab.example"), person("amy", "amy@lab.example", "@lab.example")
    remembered = [facts.mail(name) for name in ("@lab.example", "x@lab.example", "@my.domain")]
    dependencies = Dependencies(Mapping())
    for lookup in remembered:
        dependencies.add(lookup, ())
    for changes in ((before, after), (after, before), (None, after)):
        touched = dependencies.touched(*changes)
        assert {remembered[0]} == touched & set(remembered)


def test_it_is_asked_for_with_the_address() -> None:
    """One round of lookups for both, and nothing more for the next address of the domain."""
    site = Site(policy(recipient=RECIPIENT), lab(smtpdRecipientAccess="REJECT"))
    assert "REJECT" == site.action(recipient="x@lab.example")
    assert {facts.mail("x@lab.example"), facts.mail("@lab.example")} <= set(site.rounds[0])
    assert GENERIC.addresses_of(lab()) == ("hello@lab.example", "@lab.example")
