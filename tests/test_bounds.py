"""What one value may cost: however long or cunning it is, work and memory are bounded, and counted here."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from ldappolicy import log, member_urls, rewriting
from ldappolicy.entry import Entry
from ldappolicy.errors import InputError
from ldappolicy.evaluate import Decision, Lacking
from ldappolicy.evaluation import MAX_LEFT, MAX_STEPS, MAX_TOLD, OUT_OF_STEPS
from ldappolicy.ldap_filter import LdapUrl, parse_url
from ldappolicy.log import shortened
from ldappolicy.member_urls import MAX_URLS
from ldappolicy.memories import BOUNDS, Bound
from tests.labs.deciding import Kept, deciding, rcpt
from tests.labs.ldappolicy import Sections, merged
from tests.language import (
    AMY,
    BASE,
    BASES,
    CAL,
    CONFIGURATION_ERROR,
    LOOKUP_FAILURE,
    POLICY_BASE,
    Site,
    Values,
    asked,
    classes,
    dn,
    entry,
    group,
    of_kind,
    person,
    policy,
    restriction_class,
    table,
)

CHECKS = ["client", "reverse_client_hostname", "helo", "sender", "recipient", "sasl", "ccert"]

HOSTILE = {
    "octets": "1." * 60_000,
    "hextets": "1:" * 60_000,
    "labels": "a." * 60_000 + "example",
    "one label": "a" * 120_000,
    "other letters": "\u00e4" * 60_000,
    "an address": "x" * 120_000 + "@my.domain",
    "labels of an address": "x@" + "a." * 60_000 + "my.domain",
}
"""120 KB: as much as a request may have."""

ATTRIBUTES = {
    "client_name": "client",
    "reverse_client_name": "reverse_client_hostname",
    "client_address": "client",
    "helo_name": "helo",
    "sender": "sender",
    "recipient": "recipient",
    "sasl_username": "sasl",
    "ccert_fingerprint": "ccert",
}


def traced(site: Site, attributes: Mapping[str, str]) -> tuple[Decision, list[dict[str, Any]]]:
    """The decision of a request, and what was done for it."""
    trace: list[dict[str, Any]] = []
    return site.resolve(asked(**attributes), trace), trace


# --- keys -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("attribute", ATTRIBUTES)
def test_a_long_value_makes_few_keys_of_few_bytes(attribute: str, value: str) -> None:
    """120 KB of anything, anywhere, is looked up in fewer keys than it has thousands of letters."""
    checks = ", ".join(f"check_{check}_access ldap:{name}" for check in CHECKS for name in ("lines", "nets"))
    site = Site(
        policy(recipient=f"{checks}, reject_non_fqdn_helo_hostname, reject_non_fqdn_sender"),
        table("lines", "nobody REJECT"),
        table("nets", "192.0.2.0/24 REJECT", smtpdAccessType="cidr"),
    )
    decision, trace = traced(site, {attribute: value})
    keys = [event["key"] for event in trace if "key" in event]
    assert not decision.unavailable
    assert len(keys) < 600
    assert sum(map(len, keys)) < 4 * 120_000


@pytest.mark.parametrize("letters", [30, 1200, 5000, 100_000])
def test_a_long_extension_does_not_lead_round_a_list(letters: int) -> None:
    """Whatever is behind the delimiter, the address without it is protected."""
    site = Site(
        policy(recipient="check_recipient_access ldap:lists", smtpdRecipientDelimiter="+"),
        table("lists", "all@my.domain REJECT no"),
    )
    assert site.action(recipient=f"all+{'x' * letters}@my.domain") == "REJECT no"


# --- steps ----------------------------------------------------------------------------------------


def steps_of(trace: Sequence[Mapping[str, Any]]) -> int:
    """Restrictions that were tried."""
    return sum("restriction" in event for event in trace)


def doubling(levels: int, word: str = "") -> list[Entry]:
    """Classes that each name the next one twice; the last one warns, which ends nothing."""
    bodies = {f"c{n}": f"{word} c{n + 1}, {word} c{n + 1}" for n in range(levels)}
    return classes(**bodies, **{f"c{levels}": "check_sender_access static:DUNNO"})


CAREFUL = restriction_class("careful", "check_sasl_access directory:access, check_sender_access static:DUNNO")


@pytest.mark.parametrize("word", ["", "shadow", "warn_if_reject", "warn_if_reject shadow"])
@pytest.mark.parametrize("rest", ["", ", reject"])
def test_an_evaluation_has_so_many_steps(word: str, rest: str) -> None:
    """A class that an entry's own value leads back to, twice: an error at last, whatever stands around it."""
    value = f"{word} careful, {word} careful"
    site = Site(
        policy(sender="check_sasl_access directory:access" + rest, recipient="permit"),
        CAREFUL,
        person("amy", smtpdSenderAccess=value),
    )
    decision = site.decide(login="amy")
    assert decision.action == CONFIGURATION_ERROR
    if "shadow" in word:
        assert decision.error.endswith(OUT_OF_STEPS)
        assert "careful" in decision.error
    assert len(decision.error) < 2500
    assert site.action(login="bob") == ("reject," if "reject" in rest else "DUNNO")


@pytest.mark.parametrize("word", ["", "shadow", "warn_if_reject"])
def test_classes_that_name_the_next_one_twice(word: str) -> None:
    """60 of them are 2^60 steps; eleven are fewer than 10,000, and are gone through."""
    decision, trace = traced(Site(policy(recipient=f"{word} c0, reject"), doubling(60, word)), {})
    assert CONFIGURATION_ERROR == decision.action
    assert decision.error.endswith(OUT_OF_STEPS)
    assert steps_of(trace) <= MAX_STEPS
    decision, _ = traced(Site(policy(recipient=f"{word} c0, reject"), doubling(11, word)), {})
    assert decision.action == "reject,"


@pytest.mark.parametrize(
    "earlier", ["permit", "permit_mx_backup", "reject_unknown_sender_domain", "defer_if_permit"]
)
def test_no_other_list_makes_up_for_steps_that_are_spent(earlier: str) -> None:
    """It is the whole decision that is the error."""
    site = Site(policy(client=earlier, recipient="shadow c0", data="permit"), doubling(60))
    assert site.action() == CONFIGURATION_ERROR
    assert site.action(protocol_state="DATA") == "DUNNO"


def test_the_budget_is_for_restrictions_and_tables() -> None:
    """Each restriction is a step and each table that is consulted; lines and keys are none."""
    lines = [f"k{n}.example DUNNO" for n in range(2000)]
    body = ", ".join(["check_sender_access ldap:lines"] * 4999)
    site = Site(policy(recipient=f"{body}, reject"), table("lines", *lines))
    assert site.action() == "reject,"
    assert Site(policy(recipient=f"{body}, permit, permit"), table("lines", *lines)).action() == "DUNNO"
    site = Site(policy(recipient=f"{body}, {body}, reject"), table("lines", *lines))
    assert site.action() == CONFIGURATION_ERROR


def test_what_is_lacking_is_asked_for_before_steps_are_spent_for_good() -> None:
    """A list that ends at what is found has its answer, though it would go on for ever without."""
    site = Site(
        policy(recipient="check_sasl_access directory:access, c0"),
        doubling(60),
        person("amy", smtpdSenderAccess="REJECT no"),
    )
    assert site.action(login="amy") == "REJECT no"
    assert site.action(login="bob") == CONFIGURATION_ERROR


def test_few_things_are_told_of_many_steps() -> None:
    """What is in shadow, or left to Postfix, is told or left some hundred times, not ten thousand."""
    many = ", ".join(
        f"shadow check_sender_access {{inline:{{b.example={{REJECT no {n}}}}}}}" for n in range(300)
    )
    decision = Site(policy(recipient=many)).decide()
    assert decision.action == "DUNNO"
    assert MAX_TOLD == len(decision.shadowed) == len(decision.notes)
    left = ", ".join(f"permit_dnswl_client d{n}.example" for n in range(300))
    decision = Site(policy(recipient=f"{left}, reject")).decide()
    assert decision.action == CONFIGURATION_ERROR
    assert f"more than {MAX_LEFT} restrictions are left to Postfix" in decision.error


def test_shadow_of_the_whole_service_answers_dunno(tmp_path: Path) -> None:
    """`[policy] shadow` withholds this error like any decision."""
    entries = Site(policy(recipient="shadow c0"), doubling(60)).directory
    (tmp_path / "tree.ldif").write_text("\n".join(map(as_ldif, entries)), "utf-8")

    async def story(shadow: bool) -> str | None:
        directory: Sections = {"directory": {"search_base": BASE, "policy_base": POLICY_BASE}}
        sections = merged(directory, {"policy": {"shadow": shadow}})
        async with deciding(f"ldif:{tmp_path}/tree.ldif", sections) as service:
            return await service.decide(asked())

    assert CONFIGURATION_ERROR == asyncio.run(story(shadow=False))
    assert "DUNNO" == asyncio.run(story(shadow=True))


def as_ldif(entry: Entry) -> str:
    """One entry, which needs no base64."""
    lines = [f"{name}: {value}" for name, values in entry.items() for value in values]
    return "\n".join([f"dn: {entry.dn}", *lines]) + "\n"


# --- sleep ----------------------------------------------------------------------------------------

SLEEPING = [
    "sleep 1",
    "SLEEP 1",
    "warn_if_reject sleep 1",
    "shadow sleep 0",
    "permit_mynetworks, sleep 30",
    "sleep 9, reject",
]


@pytest.mark.parametrize("value", SLEEPING)
@pytest.mark.parametrize(
    ("attribute", "check"),
    [
        ("smtpdSenderAccess", "check_sender_access"),
        ("smtpdSenderAccess", "check_sasl_access"),
        ("smtpdRecipientAccess", "check_recipient_access"),
    ],
)
def test_an_entry_holds_no_process_of_postfix(attribute: str, check: str, value: str) -> None:
    """`sleep` in the value of a user, a list, a group or a domain is a server configuration error."""
    lists = policy(recipient=f"{check} directory:access, reject")
    request = {"sender": "amy@my.domain", "recipient": "amy@my.domain", "login": "amy"}
    member = attribute.replace("smtpd", "smtpdMember")
    domain = entry("dc=my", associatedDomain="my.domain", **{attribute: value})
    for entries in (
        [person("amy", **{attribute: value})],
        [person("amy"), group("g", [AMY], **{member: value})],
        [person("amy"), domain],
    ):
        decision = Site(lists, entries).decide(**request)
        assert decision.action == CONFIGURATION_ERROR
        assert "sleep holds a process of Postfix's: it counts from policy_base only" in decision.error


def test_from_policies_sleep_counts() -> None:
    """In a list, a class, or a table it is left to Postfix; and a list or domain may be called sleep."""
    tarpit = restriction_class("tarpit", "sleep 5, reject")
    assert "sleep 30, reject" == Site(policy(recipient="sleep 30, reject")).action()
    assert "sleep 5, reject" == Site(policy(recipient="tarpit"), tarpit).action()
    lines = table("t", "b.example sleep 5, reject")
    assert "sleep 5, reject" == Site(policy(recipient="check_sender_access ldap:t"), lines).action()
    amy = (
        person("amy", smtpdSenderAccess="tarpit"),
        person("bob", smtpdSenderAccess="reject_rbl_client sleep, reject"),
    )
    site = Site(policy(sender="check_sasl_access directory:access"), tarpit, amy)
    assert "sleep 5, reject" == site.action(login="amy")
    assert "reject_rbl_client sleep, reject" == site.action(login="bob")


@pytest.mark.parametrize("seconds", ["31", "100", "0031", "9" * 5000, "-1", "1.5", "soon", "\u0663"])
def test_sleep_is_short(seconds: str) -> None:
    """More than 30 seconds, or no number of seconds, is an error when reached; zeros before it are fine."""
    for site in (
        Site(policy(recipient=f"sleep {seconds}")),
        Site(policy(recipient="check_sender_access ldap:t"), table("t", f"b.example sleep {seconds}")),
    ):
        assert CONFIGURATION_ERROR == site.action()
    assert "sleep 30," in str(Site(policy(recipient="sleep 0030, reject")).action())


@pytest.mark.parametrize(
    ("restrictions", "expected"),
    [
        ("sleep 20, sleep 20, reject", "sleep 20, sleep 10, reject"),
        ("sleep 30, sleep 1, reject", "sleep 30, reject"),
        ("tarpit, tarpit, tarpit, reject", "sleep 25, sleep 5, reject"),
        ("shadow sleep 30, sleep 30, reject", "sleep 30, reject"),
        ("sleep 0, sleep 0, reject", "sleep 0, sleep 0, reject"),
    ],
)
def test_one_reply_sleeps_no_longer_than_one_sleep(restrictions: str, expected: str) -> None:
    """A class that sleeps can be named many times by an entry: what is over 30 seconds is left out."""
    amy = person("amy", smtpdSenderAccess=restrictions) if "tarpit" in restrictions else ()
    lists = {"sender": "check_sasl_access directory:access"} if amy else {"client": restrictions}
    site = Site(policy(**lists), classes(tarpit="sleep 25"), amy)
    assert expected == site.action(login="amy")


# --- memberURL ------------------------------------------------------------------------------------

PEOPLE = [person(uid) for uid in ("amy", "bob", "cal")]
BAD_URLS = {
    "no URL": "nonsense",
    "a host": "ldap://evil.example/dc=example??sub?(uid=amy)",
    "no filter": "ldap:///dc=example??sub?(uid=",
    "no DN": "ldap:///nothing??sub?(uid=amy)",
    "above the base": "ldap:///??sub?(uid=amy)",
}


def dynamic(cn: str, *urls: str, **attributes: Values) -> Entry:
    """A group that is defined by URLs."""
    return entry(f"cn={cn},ou=groups", cn=cn, memberURL=urls, **attributes)


def about(*groups: str) -> list[Entry]:
    """A policy that refuses the members of some groups."""
    named = [dn(f"cn={cn},ou=groups") for cn in groups]
    lists = policy(recipient="check_sender_access ldap:t, check_sender_access directory:access")
    return [lists, table("t", smtpdAccessMember=named, smtpdAccessAction="REJECT member"), *PEOPLE]


@pytest.mark.parametrize("bad", BAD_URLS.values(), ids=BAD_URLS)
@pytest.mark.parametrize("has_chain", [False, True])
def test_a_bad_member_url_concerns_its_own_group_alone(bad: str, has_chain: bool) -> None:
    """Who is in another group is known; who is in that one, or in one around it, is not."""
    spoilt = dynamic("spoilt", bad)
    good = dynamic("good", "ldap:///ou=people,dc=example??one?(uid=bob)")
    around = group("around", [dn("cn=spoilt,ou=groups")])
    above = group("above", [dn("cn=around,ou=groups"), CAL])
    static = group("static", [AMY])
    carrying = group("carrying", [CAL], smtpdMemberSenderAccess="REJECT carried")
    entries = [spoilt, good, around, above, static, carrying]
    asked_about = {
        "static": ("REJECT member", "DUNNO", "REJECT carried"),
        "good": ("DUNNO", "REJECT member", "REJECT carried"),
        "spoilt": (LOOKUP_FAILURE, LOOKUP_FAILURE, LOOKUP_FAILURE),
        "around": (LOOKUP_FAILURE, LOOKUP_FAILURE, LOOKUP_FAILURE),
        "above": (LOOKUP_FAILURE, LOOKUP_FAILURE, "REJECT member"),
    }
    for name, expected in asked_about.items():
        site = Site(about(name), entries, has_chain=has_chain)
        for _ in range(2):
            found = tuple(site.action(sender=f"{uid}@my.domain") for uid in ("amy", "bob", "cal"))
            assert expected == found, name


@pytest.mark.parametrize("carrier", ["spoilt", "around"])
def test_a_bad_member_url_of_a_group_that_carries_something(carrier: str) -> None:
    """Whether its rule holds is not known; what it carries for recipients, does not concern a sender."""
    for attribute, expected in (
        ("smtpdMemberSenderAccess", LOOKUP_FAILURE),
        ("smtpdMemberRecipientAccess", "DUNNO"),
    ):
        carries = {carrier: {attribute: "REJECT carried"}}
        site = Site(
            about("static"),
            dynamic("spoilt", "nonsense", **carries.get("spoilt", {})),
            group("around", [dn("cn=spoilt,ou=groups")], **carries.get("around", {})),
        )
        assert expected == site.action(sender="amy@my.domain")
        assert "DUNNO" == site.action(sender="nobody@my.domain")


def test_a_member_who_is_named_as_well_is_in_the_group() -> None:
    """What is known of a group is not made unknown by one of its URLs."""
    spoilt = dynamic("spoilt", "nonsense", "ldap:///ou=people,dc=example??one?(uid=bob)", member=[AMY])
    site = Site(about("spoilt"), spoilt)
    found = [site.action(sender=f"{uid}@my.domain") for uid in ("amy", "bob", "cal")]
    assert ["REJECT member", "REJECT member", LOOKUP_FAILURE] == found


def test_a_filter_that_the_server_refuses() -> None:
    """It is its group's trouble as well, like an outage in that search."""
    spoilt = dynamic("spoilt", "ldap:///ou=people,dc=example??one?(uid=bob)")
    missed = of_kind("match")
    assert "DUNNO" == Site(about("static"), spoilt, missed=missed).action(sender="amy@my.domain")
    assert LOOKUP_FAILURE == Site(about("spoilt"), spoilt, missed=missed).action(sender="amy@my.domain")


def urls(count: int) -> list[str]:
    """So many that parse, and cover nobody."""
    return [f"ldap:///ou=elsewhere,dc=example??sub?(&(objectClass=person)(uid=n{n}))" for n in range(count)]


def test_member_urls_are_read_once_and_not_without_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """5,000 of one group are not read at all, those of others once for everybody."""
    read: list[str] = []

    def counted(text: str) -> LdapUrl:
        read.append(text)
        return parse_url(text)

    monkeypatch.setattr(member_urls, "parse_url", counted)
    member_urls.DYNAMIC_GROUPS.clear()
    people = [person(f"p{n}") for n in range(50)]
    site = Site(about("static"), people, dynamic("many", *urls(5000)), dynamic("some", *urls(MAX_URLS)))
    for n in range(50):
        assert "DUNNO" == site.action(sender=f"p{n}@my.domain")
    assert MAX_URLS == len(read)
    site = Site(about("many"), dynamic("many", *urls(5000)))
    decision = site.decide(sender="amy@my.domain")
    assert (LOOKUP_FAILURE, True) == (decision.action, "5000 values of memberURL" in str(decision.outages))
    assert MAX_URLS == len(read)


def test_member_urls_of_all_groups_are_bounded() -> None:
    """Groups with few come first; in number and in letters."""
    small = dynamic("small", "ldap:///ou=people,dc=example??one?(uid=amy)")
    for many in (
        [dynamic(f"g{n}", *urls(MAX_URLS)) for n in range(60)],
        [dynamic(f"g{n}", "ldap:///dc=example??sub?(uid=" + "x" * 100_000 + ")") for n in range(5)],
    ):
        groups = dict(member_urls.dynamic_groups((*many, small), BASES))
        assert not groups[small][0].reason
        assert sum(len(found) for found in groups.values()) <= member_urls.MAX_URLS_IN_ALL + 60
        assert any(
            "too many values of memberURL in all" in one.reason for found in groups.values() for one in found
        )
        site = Site(about("small", "g0"), many, small)
        assert "REJECT member" == site.action(sender="amy@my.domain")


# --- slow addresses, and what is logged of them ---------------------------------------------------

ROUTED = {
    "percent": "%".join(["a"] * 1000) + "@my.domain",
    "percent of ours": "%my.domain" * 200 + "@my.domain",
    "bang": "!".join(["a"] * 1000) + "@my.domain",
    "bang and percent": "a!b%" * 500 + "@my.domain",
    "at": "@a" * 1000,
    "quoted": '"a%b' * 500 + "@my.domain",
    "escaped": "%a\\,a\\,a\\,a\\" * 150 + "@my.domain",
}
"""Two kilobytes each: the longest that a client of Postfix can say."""


@pytest.mark.parametrize("address", ROUTED.values(), ids=ROUTED)
def test_routing_is_taken_apart_with_so_much_work(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ever the same local domains, again and again: tokens and letters that are looked at are counted."""
    work = 0
    strip, scan = rewriting._strip_dot, rewriting._scan  # noqa: SLF001

    def counted_strip(tokens: rewriting.Tokens) -> None:
        nonlocal work
        work += len(tokens)
        strip(tokens)

    def counted_scan(text: str) -> rewriting.Tokens:
        nonlocal work
        work += len(text)
        return scan(text)

    monkeypatch.setattr(rewriting, "_strip_dot", counted_strip)
    monkeypatch.setattr(rewriting, "_scan", counted_scan)
    with pytest.raises(InputError):
        rewriting.rewrite(address[-rewriting.LONGEST :], "my.domain", lambda domain: True)
    assert work < 3 * rewriting.MOST_TOKENS


@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.parametrize("address", [*ROUTED.values(), "x" * 2000 + "@my.domain"], ids=[*ROUTED, "plain"])
def test_a_long_address_is_a_short_line(address: str, form: str, caplog: pytest.LogCaptureFixture) -> None:
    """Its decision takes a line of ordinary length, and what is said of the error comes ten times only."""
    example = Path(__file__).parents[1] / "schema" / "example.ldif"

    async def story() -> list[str]:
        kept = Kept()
        sections: Sections = {"log": {"decisions": "all", "format": form}}
        said = {"sender": address, "recipient": address, "sasl_username": address}
        async with deciding(f"ldif:{example}", sections, log=kept) as service:
            for number in range(30):
                await service.decide(rcpt(**said, instance=f"i{number}"))
        return kept.texts

    lines = asyncio.run(story())
    assert 30 == len(lines)
    assert max(map(len, lines)) < 1000
    assert len(caplog.messages) <= 20
    assert max(map(len, caplog.messages), default=0) < 1000


def test_no_event_is_longer_than_a_line_should_be() -> None:
    """Whatever goes into a text, its line is cut; an address that anybody has is not."""
    address = "x" * 242 + "@my.domain"
    assert address == shortened(address)
    assert "x" * 24 + "..." == shortened("x" * 321)
    record = logging.LogRecord("ldappolicy", logging.ERROR, "", 0, "%s", ("x" * 120_000,), None)
    for formatter in (log._Text(), log._Json()):  # noqa: SLF001
        assert len(formatter.format(record)) < 2200


# --- what is concluded --------------------------------------------------------------------------


def test_conclusions_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A login's spellings are one, and no flood of logins or senders keeps more than so much."""
    monkeypatch.setitem(BOUNDS, "conclusions", Bound(50, 2**20))
    site = Site(
        policy(sender="check_sasl_access directory:access, check_sender_access directory:access"),
        person("amy"),
    )
    known = site.facts(site.known)
    for number in range(200):
        names = [f"Nobody{number}", f"NOBODY{number}"]
        for name in names:
            request = asked(login=name, sender=f"{name}@far{number}.example")
            while isinstance(decision := site.evaluator.evaluate(request, known), Lacking):
                site.known.update(site.ask(decision.lookups))
        assert len(known.derived) <= 50
    access = [key for key in known.derived if isinstance(key, tuple) and key[0] == "access"]
    logins = [key[-1] for key in access if key[-1]]
    assert len(logins) == len(set(map(str.casefold, logins)))
