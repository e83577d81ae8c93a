"""The mapping: profiles, overrides, traits, and how the values of an attribute are written."""

from collections.abc import Mapping as MappingOf
from typing import Any

import pytest

from ldappolicy.entry import Entry
from ldappolicy.errors import ConfigError, InputError
from ldappolicy.ldap_filter import to_text
from ldappolicy.mapping import (
    KEYS,
    PROFILES,
    Mapping,
    Names,
    addresses_in,
    mapping_for,
    primary_group_sid,
)
from tests.language import DOMAIN, sid, text

# ---------------------------------------------------------------- profiles

PLAIN: MappingOf[str, Names] = {
    "mail": ("mail", "mailAlternateAddress", "mailLocalAddress"),
    "login": ("uid",),
    "member": ("member", "uniqueMember", "memberUid", "memberURL"),
    "member_address": (),
    "owner": ("owner",),
    "domain": ("associatedDomain",),
    "disabled": (),
    "allowed_sender": ("smtpdAllowedSender",),
    "allowed_sender_dn": ("smtpdAllowedSenderDN",),
    "denied_sender": ("smtpdDeniedSender",),
    "denied_sender_dn": ("smtpdDeniedSenderDN",),
    "login_required": (),
    "send_as": ("smtpdSendAs",),
    "moderator": ("smtpdModerator",),
    "sender_access": ("smtpdSenderAccess",),
    "recipient_access": ("smtpdRecipientAccess",),
    "member_sender_access": ("smtpdMemberSenderAccess",),
    "member_recipient_access": ("smtpdMemberRecipientAccess",),
    "priority": ("smtpdPriority",),
}

OTHERWISE: MappingOf[str, MappingOf[str, Names]] = {
    "generic": {},
    "openldap": {},
    "389ds": {"disabled": ("nsAccountLock",)},
    "freeipa": {
        "mail": ("mail", "mailAlternateAddress"),
        "login": ("uid", "krbPrincipalName"),
        "member": ("member",),
        "owner": ("memberManager",),
        "disabled": ("nsAccountLock", "krbPrincipalExpiration"),
    },
    "active_directory": {
        "mail": ("mail", "proxyAddresses"),
        "login": ("sAMAccountName", "userPrincipalName"),
        "member": ("member", "primaryGroupID"),
        "owner": ("managedBy", "msExchCoManagedByLink"),
        "disabled": ("userAccountControl", "accountExpires"),
        "allowed_sender_dn": ("smtpdAllowedSenderDN", "authOrig", "dLMemSubmitPerms"),
        "denied_sender_dn": ("smtpdDeniedSenderDN", "unauthOrig", "dLMemRejectPerms"),
        "login_required": ("msExchRequireAuthToSendTo",),
        "send_as": ("smtpdSendAs", "publicDelegates"),
        "moderator": ("smtpdModerator", "msExchModeratedByLink"),
    },
}


@pytest.mark.parametrize("profile", PROFILES)
def test_profile(profile: str) -> None:
    """Each profile is the plain one but for what its servers call otherwise."""
    mapping = mapping_for(profile, {})
    assert {**PLAIN, **OTHERWISE[profile]} == {key: getattr(mapping, key) for key in KEYS}


def test_keys() -> None:
    """What a site can name otherwise: concepts, not what the server names by itself, nor traits."""
    assert tuple(PLAIN) == KEYS


def test_overrides() -> None:
    """What the site names replaces the profile's list as a whole, the rest stays."""
    mapping = mapping_for("generic", {"mail": ("email",), "owner": ()})
    expected = ("email",), (), Mapping().login
    assert expected == (mapping.mail, mapping.owner, mapping.login)


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("key", KEYS)
def test_every_key_can_be_overridden(profile: str, key: str) -> None:
    """Each key is a concept that a site can name otherwise; every other one keeps the profile's names."""
    mapping = mapping_for(profile, {key: ("x", "y")})
    expected = {**PLAIN, **OTHERWISE[profile], key: ("x", "y")}
    assert expected == {each: getattr(mapping, each) for each in KEYS}


@pytest.mark.parametrize(
    ("profile", "overrides", "complaint"),
    [
        (
            "novell",
            {},
            "expected one of generic, openldap, 389ds, freeipa, active_directory, got 'novell'",
        ),
        ("generic", {"member_of": ("x",)}, "got 'member_of'"),
        ("active_directory", {"uuid": ("x",)}, "got 'uuid'"),
        ("active_directory", {"in_chain": ("x",)}, "got 'in_chain'"),
        ("generic", {"mial": ("x",)}, "got 'mial'"),
    ],
)
def test_refused(profile: str, overrides: dict[str, tuple[str, ...]], complaint: str) -> None:
    """A profile or key that nobody knows is an error of the configuration."""
    with pytest.raises(ConfigError) as error:
        mapping_for(profile, overrides)
    assert str(error.value).endswith(complaint)


# ---------------------------------------------------------------- traits

TRAITS = ("dn_attribute", "uuid", "groups_by_member_of", "member_of_is_nested", "primary_group", "in_chain")


@pytest.mark.parametrize(
    ("profile", "overrides", "expected"),
    [
        ("generic", {}, ("", ("entryUUID",), False, False, False, False)),
        ("openldap", {}, ("entryDN", ("entryUUID",), False, False, False, False)),
        ("389ds", {}, ("entrydn", ("nsUniqueId",), False, True, False, False)),
        ("freeipa", {}, ("entrydn", ("nsUniqueId",), True, True, False, False)),
        ("active_directory", {}, ("distinguishedName", ("objectGUID",), True, False, True, True)),
        (
            "active_directory",
            {"mail": ("x",)},
            ("distinguishedName", ("objectGUID",), True, False, True, True),
        ),
        (
            "active_directory",
            {"member": ("member",)},
            ("distinguishedName", ("objectGUID",), True, False, False, True),
        ),
        (
            "active_directory",
            {"member": ("MEMBER", "PrimaryGroupId", "memberURL")},
            ("distinguishedName", ("objectGUID",), True, False, True, True),
        ),
        (
            "active_directory",
            {"member": ("member", "memberUid")},
            ("distinguishedName", ("objectGUID",), False, False, False, True),
        ),
        (
            "freeipa",
            {"member": ("member", "uniqueMember")},
            ("entrydn", ("nsUniqueId",), False, True, False, False),
        ),
    ],
)
def test_traits(profile: str, overrides: MappingOf[str, Names], expected: tuple[Any, ...]) -> None:
    """What a server does by itself; memberOf tells all only of the members that the server knows as such."""
    mapping = mapping_for(profile, overrides)
    assert expected == tuple(getattr(mapping, trait) for trait in TRAITS)


@pytest.mark.parametrize(
    ("profile", "dns", "logins", "dynamic"),
    [
        ("generic", ("member", "uniqueMember"), ("memberUid",), True),
        ("freeipa", ("member",), (), False),
        ("active_directory", ("member",), (), False),
    ],
)
def test_members(profile: str, dns: Names, logins: Names, dynamic: bool) -> None:
    """Members are named by DN, by login, by a URL, or by the number of their primary group."""
    mapping = mapping_for(profile, {})
    assert (dns, logins, dynamic) == (mapping.member_dns, mapping.member_logins, mapping.has_dynamic_groups)


@pytest.mark.parametrize("profile", PROFILES)
def test_read_attributes(profile: str) -> None:
    """Everything that decides is read, once, and never the members of a group."""
    mapping = mapping_for(profile, {})
    read = mapping.read_attributes
    concepts = {name for key in KEYS if key != "member" for name in getattr(mapping, key)}
    own = {"primaryGroupID", "objectSid"} if profile == "active_directory" else set()
    assert sorted({*concepts, "memberOf", *mapping.uuid, *own}) == sorted(read)


@pytest.mark.parametrize(
    ("profile", "overrides", "expected"),
    [
        ("generic", {}, ()),
        ("openldap", {"allowed_sender_dn": ("smtpdAllowedSenderDN", "AuthOrig")}, ("AuthOrig",)),
        ("generic", {"login_required": ("internalOnly",)}, ("internalOnly",)),
        (
            "active_directory",
            {},
            ("msExchRequireAuthToSendTo", "authOrig", "dLMemSubmitPerms", "unauthOrig", "dLMemRejectPerms"),
        ),
        ("active_directory", {"login_required": (), "allowed_sender_dn": (), "denied_sender_dn": ()}, ()),
    ],
)
def test_delivery_restrictions(profile: str, overrides: MappingOf[str, Names], expected: Names) -> None:
    """Exchange's own attributes restrict by themselves where they are mapped; ours are only asked."""
    assert expected == mapping_for(profile, overrides).delivery_restrictions


# ---------------------------------------------------------------- addresses


@pytest.mark.parametrize(
    ("profile", "overrides", "attributes", "expected"),
    [
        ("generic", {}, {"mail": ["Amy@X", " b@x "], "mailLocalAddress": ["amy@x", "c@x"]}, "amy@x b@x c@x"),
        ("generic", {}, {"mail": ['"a b"@x']}, "a b@x"),
        ("generic", {}, {"mail": ["", " "]}, ""),
        ("generic", {}, {"proxyAddresses": ["smtp:a@x"]}, ""),
        ("generic", {}, {"mail": ["smtp:a@x"]}, "smtp:a@x"),
        ("active_directory", {}, {"proxyAddresses": ["smtp:b@x", "SMTP:A@x"], "mail": ["a@x"]}, "a@x b@x"),
        ("active_directory", {}, {"proxyAddresses": ["smtp:b@x", "SMTP:a@x", "Smtp:c@x"]}, "a@x b@x c@x"),
        ("active_directory", {}, {"proxyAddresses": [" smtp:b@x ", 'smtp:"q r"@x']}, "b@x q r@x"),
        ("active_directory", {}, {"proxyAddresses": ["x500:a@x", "sip:b@x", "c@x", "smtp", "smtp:"]}, ""),
        ("active_directory", {}, {"proxyAddresses": ["smtpx:a@x", "xsmtp:b@x", "smtp;x:c@x"]}, ""),
        ("active_directory", {}, {"proxyAddresses": ["\u017fmtp:a@x"]}, ""),
        ("active_directory", {}, {"proxyAddresses": ["smtp:smtp:a@x"]}, "smtp:a@x"),
        ("active_directory", {}, {"proxyAddresses": ["smtp:a\udcff@x"]}, "a\udcff@x"),
        ("active_directory", {}, {"mail": ["smtp:a@x"]}, "smtp:a@x"),
        ("active_directory", {"mail": ("mail",)}, {"proxyAddresses": ["smtp:a@x"], "mail": ["b@x"]}, "b@x"),
        ("openldap", {"mail": ("mail", "proxyaddresses")}, {"proxyAddresses": ["smtp:a@x", "b@x"]}, "a@x"),
        ("generic", {"mail": ("proxyAddresses",)}, {"proxyAddresses": ["smtp:a"], "mail": ["b"]}, "a"),
    ],
)  # fmt: skip
def test_addresses(
    profile: str, overrides: MappingOf[str, Names], attributes: dict[str, list[str]], expected: str
) -> None:
    """Folded, each once, the primary one first; of proxyAddresses only those of mail, without the prefix."""
    found = mapping_for(profile, overrides).addresses_of(Entry("cn=x", attributes))
    assert expected == " ".join(found)


@pytest.mark.parametrize(
    ("profile", "overrides", "expected"),
    [
        ("generic", {}, "(mail=a*@x)(mailAlternateAddress=a*@x)(mailLocalAddress=a*@x)"),
        ("active_directory", {}, "(mail=a*@x)(proxyAddresses=smtp:a*@x)"),
        ("generic", {"mail": ("PROXYADDRESSES",)}, "(PROXYADDRESSES=smtp:a*@x)"),
        ("generic", {"mail": ()}, ""),
    ],
)
def test_mail_terms(profile: str, overrides: MappingOf[str, Names], expected: str) -> None:
    """An address is asked for as its attribute holds it, and what means something in a filter is escaped."""
    terms = mapping_for(profile, overrides).mail_terms("a*@x")
    assert expected.replace("*", "\\2a") == "".join(map(to_text, terms))


def test_every_address_is_found_by_its_term() -> None:
    """What an attribute is asked for is what an entry with that address has in it."""
    entry = Entry("cn=x", {"mail": ["a@x"], "proxyAddresses": ["smtp:b@x"]})
    mapping = mapping_for("active_directory", {})
    texts = {to_text(term) for address in mapping.addresses_of(entry) for term in mapping.mail_terms(address)}
    assert {"(mail=a@x)", "(proxyAddresses=smtp:b@x)"} <= texts
    assert [["a@x"], ["b@x"]] == [list(addresses_in(entry, name)) for name in mapping.mail]


# ---------------------------------------------------------------- the primary group

AMY = sid(*DOMAIN, 1104)


@pytest.mark.parametrize(
    ("number", "expected"), [("513", 513), ("0", 0), ("4294967295", 2**32 - 1), ("0513", 513)]
)
def test_primary_group(number: str, expected: int) -> None:
    """The group has the domain's identifier, with primaryGroupID as its last number."""
    entry = Entry("cn=amy", {"primaryGroupID": [number], "objectSid": [text(AMY)]})
    assert text(sid(*DOMAIN, expected)) == primary_group_sid(entry)


def test_no_primary_group() -> None:
    """A group has an identifier and no primary group."""
    assert primary_group_sid(Entry("cn=all", {"objectSid": [text(AMY)]})) is None


@pytest.mark.parametrize(
    ("numbers", "sids"),
    [
        pytest.param(["513"], [], id="the identifier is not to be seen"),
        pytest.param(["513", "514"], [AMY], id="two numbers"),
        pytest.param(["513"], [AMY, sid(*DOMAIN, 1105)], id="two identifiers"),
        pytest.param(["-1"], [AMY], id="negative"),
        pytest.param(["4294967296"], [AMY], id="too large"),
        pytest.param(["9" * 5000], [AMY], id="far too large"),
        pytest.param(["\u0665\u0661\u0663"], [AMY], id="digits that are not ASCII"),
        pytest.param(["x"], [AMY], id="no number"),
        pytest.param(["513"], [AMY[:-1]], id="cut off"),
        pytest.param(["513"], [AMY + b"\0"], id="too long"),
        pytest.param(["513"], [b"\2" + AMY[1:]], id="another revision"),
        pytest.param(["513"], [sid()], id="no domain"),
        pytest.param(["513"], [b"S-1-5-21-1-2-3-1104"], id="as text"),
    ],
)
def test_bad_primary_group(numbers: list[str], sids: list[bytes]) -> None:
    """What makes no identifier is an error, never the lack of a group."""
    entry = Entry("cn=amy", {"primaryGroupID": numbers, "objectSid": list(map(text, sids))})
    with pytest.raises(InputError):
        primary_group_sid(entry)
