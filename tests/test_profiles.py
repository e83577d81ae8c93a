"""Profiles at work: whom an address or a login finds, and whose member, owner and moderator that one is."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from ldappolicy.entry import Entry
from ldappolicy.mapping import PROFILES, Names, mapping_for, sid_text
from tests.language import DOMAIN, LOOKUP_FAILURE, Site, Values, asked, dn, entry, policy, sid, text

Overrides = Mapping[str, Names]

FOUND = "550 5.7.1 found"
NOT = "reject,"
NO_OVERRIDES: Overrides = {}


def ids(case: object) -> str | None:
    """Mappings and tuples told apart in the names of tests."""
    return ",".join(f"{key}={value}" for key, value in case.items()) if isinstance(case, Mapping) else None


# ---------------------------------------------------------------- addresses

MAIL = {
    "mail": "amy@my.domain",
    "mailAlternateAddress": "alternate@my.domain",
    "mailLocalAddress": "local@my.domain",
    "proxyAddresses": [
        "SMTP:primary@my.domain",
        "smtp:proxy@my.domain",
        "sip:sip@my.domain",
        "bare@my.domain",
    ],
    "email": "email@my.domain",
}
"""One entry with an address in every attribute that some profile reads."""

PLAIN = {"amy", "alternate", "local"}


@pytest.mark.parametrize(
    ("profile", "overrides", "found"),
    [
        ("generic", {}, PLAIN),
        ("openldap", {}, PLAIN),
        ("389ds", {}, PLAIN),
        ("freeipa", {}, {"amy", "alternate"}),
        ("active_directory", {}, {"amy", "primary", "proxy"}),
        ("active_directory", {"mail": ("proxyAddresses",)}, {"primary", "proxy"}),
        ("active_directory", {"mail": ("mail", "email")}, {"amy", "email"}),
        ("openldap", {"mail": ("mail", "proxyAddresses")}, {"amy", "primary", "proxy"}),
        ("openldap", {"mail": ("PROXYADDRESSES",)}, {"primary", "proxy"}),
        ("generic", {"mail": ()}, set()),
        ("freeipa", {"login": ("email",)}, {"amy", "alternate"}),
    ],
    ids=ids,
)
def test_addresses(profile: str, overrides: Overrides, found: set[str]) -> None:
    """Each profile finds an entry by the attributes it reads, and by no other."""
    listed = policy(recipient="check_recipient_access directory:access, reject")
    site = Site(
        listed, entry("CN=amy", smtpdRecipientAccess=FOUND, **MAIL), mapping=mapping_for(profile, overrides)
    )
    asked = ["amy", "alternate", "local", "primary", "proxy", "sip", "bare", "email"]
    spelled = {name: site.action(recipient=f"{name.upper()}@My.Domain") for name in asked}
    assert spelled == {name: FOUND if name in found else NOT for name in asked}


@pytest.mark.parametrize(
    ("value", "address", "found"),
    [
        ("SMTP:amy@my.domain", "amy@my.domain", True),
        ("sMtP:Amy@My.Domain", "amy@my.domain", True),
        ('smtp:"a b"@my.domain', "a b@my.domain", True),
        ("smtp:a*b@my.domain", "a*b@my.domain", True),
        ("smtp:amy@my.domain", "a*@my.domain", False),
        ("smtp:amy@my.domain", "smtp:amy@my.domain", False),
        ("smtp:smtp:amy@my.domain", "smtp:amy@my.domain", True),
        ("smtp:smtp:amy@my.domain", "amy@my.domain", False),
        ("x500:amy@my.domain", "x500:amy@my.domain", False),
        ("x500:amy@my.domain", "amy@my.domain", False),
        ("amy@my.domain", "amy@my.domain", False),
        ("smtp:\uff41my@my.domain", "amy@my.domain", False),
        ("smtp:amy@my.domain)(mail=*", "amy@my.domain", False),
        ("smtp:amy@my.domain\nsmtp:bob@my.domain", "amy@my.domain", False),
    ],
)
def test_proxy_addresses(value: str, address: str, found: bool) -> None:
    """Only what is written as an address of mail is one, whatever else is written there."""
    site = Site(
        policy(recipient="check_recipient_access directory:access, reject"),
        entry("CN=amy", proxyAddresses=value, smtpdRecipientAccess=FOUND),
        mapping=mapping_for("active_directory", {}),
    )
    assert (FOUND if found else NOT) == site.action(recipient=address)


def test_a_prefix_that_is_not_ours() -> None:
    """A directory that returns an entry for a value that is no address of ours says nothing of the key."""
    site = Site(
        policy(recipient="check_recipient_access directory:access, reject"),
        entry("CN=amy", proxyAddresses="\u017fmtp:amy@my.domain", smtpdRecipientAccess=FOUND),
        mapping=mapping_for("active_directory", {}),
    )
    assert site.action(recipient="amy@my.domain") == "DEFER_IF_PERMIT 4.3.0 Temporary lookup failure"


def test_primary_address_is_that_of_the_domain() -> None:
    """The domain of a login without one is that of its entry's primary address: mail, else SMTP:."""
    checks = policy(recipient="check_sasl_access directory:access, reject")
    rule = entry("OU=d", associatedDomain="primary.domain", smtpdSenderAccess=FOUND)
    mapping = mapping_for("active_directory", {})

    def answer(**mail: Values) -> str | None:
        site = Site(checks, rule, entry("CN=amy", sAMAccountName="amy", **mail), mapping=mapping)
        return site.action(login="amy")

    others = ["smtp:a@other.domain", "SMTP:a@primary.domain"]
    assert [FOUND, FOUND, NOT] == [
        answer(proxyAddresses=others),
        answer(proxyAddresses=["SMTP:a@other.domain"], mail="a@primary.domain"),
        answer(proxyAddresses=others, mail="a@other.domain"),
    ]


# ---------------------------------------------------------------- logins

LOGINS = {
    "uid": "amy",
    "krbPrincipalName": "amy@MY.REALM",
    "sAMAccountName": "Amy.Sam",
    "userPrincipalName": "Amy@Corp.Example",
    "mail": "amy@my.domain",
}


@pytest.mark.parametrize(
    ("profile", "overrides", "found"),
    [
        *((profile, {}, {"amy", "amy@my.domain"}) for profile in ("generic", "openldap", "389ds")),
        ("freeipa", {}, {"amy", "amy@my.realm", "amy@my.domain"}),
        ("active_directory", {}, {"amy.sam", "amy@corp.example", "amy@my.domain"}),
        ("active_directory", {"login": ("uid",)}, {"amy", "amy@my.domain"}),
        ("freeipa", {"login": ("sAMAccountName",), "mail": ()}, {"amy.sam"}),
    ],
    ids=ids,
)
def test_logins(profile: str, overrides: Overrides, found: set[str]) -> None:
    """Each profile knows its own forms of a login, and an address as the last one."""
    listed = policy(recipient="check_sasl_access directory:access, reject")
    site = Site(
        listed, entry("CN=amy", smtpdSenderAccess=FOUND, **LOGINS), mapping=mapping_for(profile, overrides)
    )
    asked = [value.lower() for value in LOGINS.values()]
    assert {login: FOUND if login in found else NOT for login in asked} == {
        login: site.action(login=login.upper()) for login in asked
    }


# ---------------------------------------------------------------- owners, moderators, who may send as

AMY = dn("CN=amy")
LIST = "list@my.domain"


@pytest.mark.parametrize(
    ("check", "attribute", "profiles"),
    [
        ("owners", "owner", {"generic", "openldap", "389ds"}),
        ("owners", "memberManager", {"freeipa"}),
        ("owners", "managedBy", {"active_directory"}),
        ("owners", "msExchCoManagedByLink", {"active_directory"}),
        ("moderators", "smtpdModerator", set(PROFILES)),
        ("moderators", "msExchModeratedByLink", {"active_directory"}),
        ("allowed", "smtpdAllowedSenderDN", set(PROFILES)),
        ("allowed", "authOrig", {"active_directory"}),
        ("allowed", "dLMemSubmitPerms", {"active_directory"}),
        ("denied", "smtpdDeniedSenderDN", set(PROFILES)),
        ("denied", "unauthOrig", {"active_directory"}),
        ("denied", "dLMemRejectPerms", {"active_directory"}),
        ("members", "member", set(PROFILES)),
        ("members", "uniqueMember", {"generic", "openldap", "389ds"}),
    ],
)
@pytest.mark.parametrize("profile", PROFILES)
def test_roles(profile: str, check: str, attribute: str, profiles: set[str]) -> None:
    """Who is named by which attribute of a list is its owner, moderator, member, allowed or denied."""
    mapping = mapping_for(profile, {})
    site = Site(
        policy(recipient=f"check_sasl_access recipient:{check}, reject"),
        entry("CN=amy", **{mapping.login[0]: "amy"}),
        entry("CN=list", mail=LIST, **{attribute: AMY}),
        mapping=mapping,
    )
    found = "REJECT" if check == "denied" else "DUNNO"
    assert (found if profile in profiles else NOT) == site.action(recipient=LIST, login="amy")


@pytest.mark.parametrize(
    ("attribute", "profiles"),
    [("smtpdSendAs", set(PROFILES)), ("publicDelegates", {"active_directory"})],
)
@pytest.mark.parametrize("profile", PROFILES)
def test_send_as(profile: str, attribute: str, profiles: set[str]) -> None:
    """Who may send as somebody else."""
    mapping = mapping_for(profile, {})
    site = Site(
        policy(recipient="reject_sender_login_mismatch"),
        entry("CN=amy", **{mapping.login[0]: "amy"}),
        entry("CN=boss", mail="boss@my.domain", **{attribute: AMY}),
        mapping=mapping,
    )
    expected = "DUNNO" if profile in profiles else "553 5.7.1 not owned by user amy"
    assert expected == site.action(sender="boss@my.domain", login="amy")


# ---------------------------------------------------------------- the primary group of Active Directory

PRIMARY = {"primaryGroupID": "513", "objectSid": text(sid(*DOMAIN, 1104))}
USERS = entry("CN=users", objectSid=text(sid(*DOMAIN, 513)), mail=LIST)


def primary(
    attributes: Mapping[str, Values], *entries: Entry, overrides: Overrides = NO_OVERRIDES
) -> str | None:
    """What a member of the list gets, where amy is somebody with these attributes."""
    site = Site(
        policy(recipient="check_sasl_access recipient:members, reject"),
        entry("CN=amy", sAMAccountName="amy", **attributes),
        entries or USERS,
        mapping=mapping_for("active_directory", overrides),
    )
    return site.action(recipient=LIST, login="amy")


@pytest.mark.parametrize(
    ("attributes", "overrides", "expected"),
    [
        pytest.param(PRIMARY, {}, "DUNNO", id="a member"),
        pytest.param(PRIMARY, {"member": ("member",)}, NOT, id="switched off"),
        pytest.param(PRIMARY, {"member": ("PRIMARYGROUPID",)}, "DUNNO", id="alone"),
        pytest.param({**PRIMARY, "primaryGroupID": "512"}, {}, NOT, id="another group"),
        pytest.param({"objectSid": PRIMARY["objectSid"]}, {}, NOT, id="no primary group"),
        pytest.param(
            {**PRIMARY, "objectSid": text(sid(21, 1, 2, 3, 1104))}, {}, NOT, id="another domain's group 513"
        ),
        pytest.param({"primaryGroupID": "513"}, {}, LOOKUP_FAILURE, id="no identifier"),
        pytest.param({**PRIMARY, "primaryGroupID": ["513", "512"]}, {}, LOOKUP_FAILURE, id="two groups"),
        pytest.param({**PRIMARY, "primaryGroupID": "5l3"}, {}, LOOKUP_FAILURE, id="no number"),
        pytest.param({**PRIMARY, "objectSid": "S-1-5-21-1"}, {}, LOOKUP_FAILURE, id="no identifier's octets"),
    ],
)
def test_primary_group(attributes: Mapping[str, Values], overrides: Overrides, expected: str) -> None:
    """The primary group has its members by its number alone; what makes no number is unavailable."""
    assert expected == primary(attributes, overrides=overrides)


def test_around_the_primary_group() -> None:
    """Groups around the primary group are around its members."""
    users = entry("CN=users", objectSid=USERS.values("objectSid")[0])
    assert "DUNNO" == primary(PRIMARY, users, entry("CN=all", mail=LIST, member=dn("CN=users")))
    assert NOT == primary(PRIMARY, users, entry("CN=all", mail=LIST, member=dn("CN=others")))


def test_octets_are_compared_as_octets() -> None:
    """Two identifiers that differ as upper and lower case differ are two groups."""
    low, high = (text(sid(*DOMAIN, number)) for number in (0x61, 0x41))
    both: Sequence[Entry] = [entry("CN=low", objectSid=low), entry("CN=high", objectSid=high, mail=LIST)]
    assert NOT == primary({**PRIMARY, "primaryGroupID": str(0x61)}, *both)
    assert "DUNNO" == primary({**PRIMARY, "primaryGroupID": str(0x41)}, *both)


def test_sid_is_shown_as_people_write_it() -> None:
    """In explanations, where raw octets would spoil a terminal."""
    primary_ = text(sid(*DOMAIN, 513))
    site = Site(
        policy(recipient="check_sasl_access recipient:members, reject"),
        entry("CN=amy", sAMAccountName="amy", **PRIMARY),
        USERS,
        mapping=mapping_for("active_directory", {}),
    )
    trace: list[dict[str, Any]] = []
    site.resolve(asked(recipient=LIST, login="amy"), trace)
    lookups = [str(event["lookup"]) for event in trace if "lookup" in event]
    assert f"sid {sid_text(primary_)}" in lookups
    assert "S-1-5-" + "-".join(map(str, (*DOMAIN, 513))) == sid_text(primary_)
    assert "0102" == sid_text("\x01\x02")
