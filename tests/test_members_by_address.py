"""Members by address: groups that name their members in `member_address`, with an entry or without one."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from ldappolicy import facts
from ldappolicy.directory import Features
from ldappolicy.directory.changes import Changed
from ldappolicy.directory.mirror import Mirror
from ldappolicy.directory.plan import Planner, Shared, Where
from ldappolicy.entry import Entry
from ldappolicy.mapping import Mapping, mapping_for
from tests.language import BASE, Site, dn, entry, group, person, policy, table

NAME = "rfc822MailMember"
MAPPING = Mapping(member_address=(NAME,))
TO = "crew@my.domain"
LOGIN, SENDER = (f"check_{kind}_access recipient:members, reject" for kind in ("sasl", "sender"))
AMY, BOB = person("amy", "amy@my.domain", "a.my@my.domain"), person("bob")
PARTNER = "partner@agency.example"


def crew(*addresses: str, cn: str = "crew", **attributes: str) -> Entry:
    """A list of addresses."""
    return group(cn, mail=f"{cn}@my.domain", **{NAME: addresses}, **attributes)


def site(*entries: Entry | Sequence[Entry], mapping: Mapping = MAPPING, **lists: str) -> Site:
    """Amy and bob, some groups, and a policy of these lists."""
    settings = policy(**lists, smtpdRecipientDelimiter="+")
    return Site(settings, AMY, BOB, *entries, mapping=mapping, permit_ok=True)


@pytest.mark.parametrize(
    ("addresses", "expected"),
    [
        pytest.param(["amy@my.domain"], "OK", id="her address"),
        pytest.param(["A.My@MY.domain"], "OK", id="another of hers, in another case"),
        pytest.param(['"a.my"@my.domain'], "OK", id="quoted"),
        pytest.param(["bob@my.domain"], "reject,", id="another's"),
        pytest.param(["amy+news@my.domain"], "reject,", id="with an extension it is another's"),
        pytest.param(["@my.domain"], "reject,", id="no domain is a member"),
        pytest.param([], "reject,", id="nobody"),
    ],
)
def test_a_login_is_a_member_by_an_address_of_its_entry(addresses: list[str], expected: str) -> None:
    """As if the group named the entry."""
    assert expected == site(crew(*addresses), recipient=LOGIN).action(login="amy", recipient=TO)


def test_a_list_in_a_list() -> None:
    """A list's address makes its members members of the list around, by both kinds of names, at any depth."""
    inner = crew("amy@my.domain", cn="inner")
    middle = group("middle", [inner.dn], mail="middle@my.domain")
    for outer in (crew("inner@my.domain"), crew("MIDDLE@my.domain"), group("crew", [middle.dn], mail=TO)):
        around = site(inner, middle, outer, recipient=LOGIN)
        assert ["OK", "reject,"] == [around.action(login=who, recipient=TO) for who in ("amy", "bob")]


def test_loops_end() -> None:
    """Through names of both kinds."""
    one, two = crew("two@my.domain", cn="one"), group("two", [dn("cn=crew,ou=groups")], mail="two@my.domain")
    back = group("crew", [one.dn], mail=TO, **{NAME: [TO, "amy@my.domain"]})
    around = site(one, two, back, recipient=LOGIN)
    told = [(who, f"{to}@my.domain") for who in ("amy", "bob") for to in ("one", "two", "crew")]
    assert ["OK"] * 3 + ["reject,"] * 3 == [around.action(login=who, recipient=to) for who, to in told]


@pytest.mark.parametrize(
    ("sender", "expected"),
    [
        pytest.param(PARTNER, "OK", id="just so"),
        pytest.param("Partner@AGENCY.example.", "OK", id="however it is spelled"),
        pytest.param("partner+news@agency.example", "reject,", id="no extension is taken off"),
        pytest.param("other@agency.example", "reject,", id="another"),
        pytest.param("@agency.example", "reject,", id="a domain is no member"),
        pytest.param("amy@my.domain", "OK", id="with an entry it is the entry"),
        pytest.param("a.my@my.domain", "OK", id="by any of its addresses"),
        pytest.param("amy+news@my.domain", "OK", id="and those with an extension"),
    ],
)
def test_members_by_envelope(sender: str, expected: str) -> None:
    """An address that nobody has is a member, where the sender is what is looked up."""
    listed = crew(PARTNER, "@agency.example", "amy@my.domain")
    assert expected == site(listed, recipient=SENDER).action(sender=sender, recipient=TO)


def test_a_catch_all_is_nobody() -> None:
    """Beside it an address is a member by envelope as well; the catch-all's entry is not asked."""
    agency = entry("cn=agency", mail="@agency.example")
    around = site(crew(PARTNER), agency, recipient=SENDER)
    senders = (PARTNER, "other@agency.example")
    assert ["OK", "reject,"] == [around.action(sender=one, recipient=TO) for one in senders]
    around = site(group("crew", [agency.dn], mail=TO), agency, recipient=SENDER)
    assert "reject," == around.action(sender=PARTNER, recipient=TO)


def test_an_envelope_is_no_login() -> None:
    """Nor is an envelope member somebody who is sent to."""
    listed = crew(PARTNER)
    assert "reject," == site(listed, recipient=LOGIN).action(login=PARTNER, sender=PARTNER, recipient=TO)
    members = table("t", smtpdAccessMember=[listed.dn], smtpdAccessAction="REJECT")
    told = [
        site(listed, members, recipient=f"check_{kind}_access ldap:t").action(
            sender=PARTNER, recipient=PARTNER, login=PARTNER
        )
        for kind in ("sender", "recipient", "sasl")
    ]
    assert ["REJECT", "DUNNO", "DUNNO"] == told


def test_an_entry_without_the_extension_is_the_member() -> None:
    """What is somebody's is no member by envelope."""
    listed = crew("amy+news@my.domain")
    assert "reject," == site(listed, recipient=SENDER).action(sender="amy+news@my.domain", recipient=TO)


@pytest.mark.parametrize(
    "attribute", ["owner", "smtpdModerator", "smtpdAllowedSenderDN", "smtpdDeniedSenderDN"]
)
def test_groups_of_addresses_elsewhere(attribute: str) -> None:
    """Wherever a group means its members, those by address are meant as well."""
    names = {"owner": "owners", "smtpdModerator": "moderators"}
    name = names.get(attribute, "denied" if "Denied" in attribute else "allowed")
    listed = crew(PARTNER, "amy@my.domain", cn="inner")
    target = group("crew", mail=TO, **{attribute: listed.dn})
    found = "REJECT" if name == "denied" else "OK"
    by_sender = site(listed, target, recipient=f"check_sender_access recipient:{name}")
    told = [by_sender.action(sender=one, recipient=TO) for one in (PARTNER, "amy@my.domain", "x@y.example")]
    assert [found, found, "DUNNO"] == told
    by_login = site(listed, target, recipient=f"check_sasl_access recipient:{name}")
    assert [found, "DUNNO"] == [by_login.action(login=one, recipient=TO) for one in ("amy", PARTNER)]


def test_rules_for_members() -> None:
    """What a group carries for its members holds for those by address, for senders without an entry too."""
    bound = crew(PARTNER, "amy@my.domain", cn="bound", smtpdMemberSenderAccess="REJECT", smtpdPriority="2")
    first = crew("amy@my.domain", cn="first", smtpdMemberSenderAccess="DUNNO", smtpdPriority="1")
    rules = "check_sasl_access directory:access, check_sender_access directory:access"
    around = site(bound, sender=rules)
    assert ["REJECT", "REJECT", "DUNNO", "DUNNO"] == [
        around.action(sender=sender, login=login)
        for sender, login in ((PARTNER, ""), ("x@y.example", "amy"), ("x@y.example", "bob"), ("x@y", ""))
    ]
    outranked = site(bound, first, sender=rules)
    assert ["REJECT", "DUNNO"] == [outranked.action(sender=one) for one in (PARTNER, "amy@my.domain")]
    agency = entry("cn=agency", mail="@agency.example")
    assert "REJECT" == site(bound, agency, sender=rules).action(sender=PARTNER)
    received = crew(PARTNER, "amy@my.domain", cn="bound", smtpdMemberRecipientAccess="REJECT")
    around = site(received, recipient="check_recipient_access directory:access")
    assert ["DUNNO", "REJECT"] == [around.action(recipient=one) for one in (PARTNER, "amy@my.domain")]


def test_send_as_a_group_of_addresses() -> None:
    """Who is named by a group of addresses in smtpdSendAs owns the address."""
    shared = entry("cn=info", mail="info@my.domain", smtpdSendAs=crew().dn)
    around = site(shared, crew("amy@my.domain"), sender="reject_sender_login_mismatch")
    told = [around.action(sender="info@my.domain", login=one) for one in ("amy", "bob")]
    assert ["DUNNO", "553 5.7.1 not owned by user bob"] == told


def test_other_mappings_know_nothing_of_it() -> None:
    """None is mapped by default: nothing is asked, and nobody is a member."""
    around = site(crew(PARTNER, "amy@my.domain"), mapping=Mapping(), recipient=SENDER)
    assert ["reject,"] * 2 == [around.action(sender=one, recipient=TO) for one in (PARTNER, "amy@my.domain")]
    assert "addressed" not in {lookup[0] for lookup in around.known}


@pytest.mark.parametrize("profile", ["389ds", "freeipa", "active_directory"])
def test_what_servers_keep_is_not_all(profile: str) -> None:
    """memberOf and rules for chains know nothing of members by address, nor of those around their groups."""
    mapping = mapping_for(profile, {"member_address": (NAME,), "login": ("uid",)})
    inner = group("inner", mail="inner@my.domain")
    amy = person("amy", memberOf=inner.dn)
    around = Site(
        policy(recipient=LOGIN), amy, inner, crew("inner@my.domain"), mapping=mapping, has_chain=True,
        permit_ok=True,
    )  # fmt: skip
    assert "OK" == around.action(login="amy", recipient=TO)


def test_how_it_is_asked() -> None:
    """Several addresses in one search, told apart by our own comparison; members are not in the answers."""
    planner = Planner(Where(BASE), MAPPING)
    one, two, three = (facts.addressed(name) for name in ("amy@my.domain", "b@my.domain", "c@my.domain"))
    for features in (Features(), Features(frozenset(("1.2.826.0.1.3344810.2.3",)))):
        [batch] = planner.plan((one, two, three), features)
        assert isinstance(batch, Shared)
        assert features.has_matched_values is bool(batch.search.values)
        assert NAME in batch.search.attributes
        assert NAME not in planner.attributes
        told = batch.told_apart([crew("Amy@my.domain", "c@my.domain"), crew("c@my.domain", cn="other")])
        assert [["crew"], [], ["crew", "other"]] == [
            [group.values("cn")[0] for group in told[lookup]] for lookup in (one, two, three)
        ]
        assert not any(group.values(NAME) for groups in told.values() for group in groups)


def test_a_mirror_answers() -> None:
    """From memory, as it is kept up by the stream; members are not in the answers."""
    planner = Planner(Where(BASE), MAPPING)
    held = (*planner.attributes, NAME, "objectClass", "entryUUID")
    mirror = Mirror([BASE], held, MAPPING.member_dns, 100)

    async def pages() -> AsyncIterator[Sequence[Entry]]:
        yield [Entry(BASE, {"objectClass": ["top"]}), crew("Amy@my.domain", entryUUID="1")]

    asyncio.run(mirror.load(pages()))
    lookup, other = facts.addressed("amy@my.domain"), facts.addressed("bob@my.domain")
    [found] = planner.from_mirror(lookup, mirror) or ()
    assert ("crew@my.domain",) == found.values("mail")
    assert () == found.values(NAME)
    assert () == planner.from_mirror(other, mirror)
    mirror.apply(Changed("1", crew('"bob"@my.domain', entryUUID="1")))
    assert () == planner.from_mirror(lookup, mirror)
    assert 1 == len(planner.from_mirror(other, mirror) or ())
