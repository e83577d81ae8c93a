"""Rules that protect nothing, and what the account is not shown: each told of with DN and attribute."""

import asyncio
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from ldappolicy import assembly, reach
from ldappolicy.config import parse as parse_config
from ldappolicy.daemon import MAX_FAULTS, look_over
from ldappolicy.directory import Features, Search
from ldappolicy.directory.ldif import LdifDirectory
from ldappolicy.directory.plan import Where
from ldappolicy.entry import Entry
from ldappolicy.ldap_filter import parse
from ldappolicy.lint import lint
from ldappolicy.mapping import PROFILES, Mapping, Names, mapping_for
from ldappolicy.policy import read_policies
from ldappolicy.service import Settings
from tests.language import BASE, POLICY_BASE, classes, entry, policy, table

LISTS = {
    "sender": "check_sasl_access directory:access, check_sender_access directory:access",
    "recipient": "check_recipient_access directory:access",
    "smtpdMyorigin": "my.domain",
}
AMY = entry("uid=amy", uid="amy", mail="amy@my.domain")
STAFF = entry("cn=staff", cn="staff", member="uid=amy,dc=example", smtpdMemberSenderAccess="reject")
HEALTHY = (AMY, STAFF)
BODIES = classes(
    members_only="check_sasl_access recipient:members, reject",
    moderated="check_sasl_access recipient:moderators, check_recipient_access static:{HOLD waits}",
    allowed_only="check_sasl_access recipient:allowed, reject",
    either="check_sasl_access recipient:members, check_sasl_access recipient:moderators, reject",
    ours="permit_sasl_authenticated, check_sasl_access recipient:members, reject",
)
KEYS = "error: [directory.attributes]: "
WARNING = "warning: [directory.attributes]: "
UNSEEN = ": none exists, or it may not be read"


def found(
    *entries: Entry, mapping: Mapping | None = None, where: Where | None = None, **lists: str
) -> list[str]:
    """What is told of these entries beside a healthy site."""
    directory = LdifDirectory([policy(**(lists or LISTS)), *BODIES, *HEALTHY, *entries])
    settings = Settings(BASE, POLICY_BASE, mapping or Mapping())
    policies = read_policies(directory)
    faults = asyncio.run(lint(policies, directory, settings, where or Where(BASE)))
    return [str(fault) for fault in faults]


def test_a_healthy_site_is_silent() -> None:
    """Nothing is told where every rule is reached."""
    press = entry(
        "cn=press", mail="press@my.domain", member="uid=amy,dc=example", smtpdRecipientAccess="either"
    )
    mods = entry("cn=mods", mail="mods@my.domain", smtpdModerator="uid=amy,dc=example")
    some = entry(
        "cn=some",
        mail="some@my.domain",
        smtpdRecipientAccess="allowed_only",
        smtpdAllowedSenderDN="uid=amy,dc=example",
    )
    alone = entry("uid=bot", uid="bot", smtpdSenderAccess="reject")
    domain = entry("ou=d", associatedDomain="my.domain", smtpdRecipientAccess="ours")
    assert [] == found(press, mods, some, alone, domain)


X = "cn=x,dc=example: "
NO_ADDRESS = "it protects nothing: the entry has no address (mail, mailAlternateAddress, mailLocalAddress)"
NOBODY = "it applies to nobody: no member of the group can be seen"
CASES: dict[str, tuple[dict[str, str], str]] = {
    "no address": ({"smtpdRecipientAccess": "reject"}, f"error: {X}smtpdRecipientAccess: {NO_ADDRESS}"),
    "a login receives nothing": (
        {"uid": "x", "smtpdAllowedSender": "a@b.example"},
        f"error: {X}smtpdAllowedSender: {NO_ADDRESS}",
    ),
    "no domain": (
        {"mail": "x", "smtpdRecipientAccess": "reject"},
        (
            f"error: {X}smtpdRecipientAccess: it protects nothing: address 'x' has no domain,"
            " and is never looked up without one"
        ),
    ),
    "the form for itself on a group": (
        {"mail": "x@my.domain", "member": "uid=amy,dc=example", "smtpdSenderAccess": "reject"},
        (
            f"warning: {X}smtpdSenderAccess: it applies to what the group itself sends,"
            " expected smtpdMemberSenderAccess for its members"
        ),
    ),
    "nobody in the group": (
        {"smtpdMemberRecipientAccess": "reject"},
        f"error: {X}smtpdMemberRecipientAccess: {NOBODY}",
    ),
    "members that are gone": (
        {"member": "uid=gone,dc=example", "smtpdMemberSenderAccess": "reject"},
        f"error: {X}smtpdMemberSenderAccess: {NOBODY}",
    ),
    "no members": (
        {"mail": "x@my.domain", "smtpdRecipientAccess": "members_only"},
        f"error: {X}smtpdRecipientAccess: nobody can pass 'members_only': no recipient:members is left",
    ),
    "no moderator": (
        {"mail": "x@my.domain", "smtpdRecipientAccess": "moderated"},
        f"error: {X}smtpdRecipientAccess: nobody can pass 'moderated': no recipient:moderators is left",
    ),
    "nobody allowed": (
        {"mail": "x@my.domain", "smtpdRecipientAccess": "allowed_only"},
        f"error: {X}smtpdRecipientAccess: nobody can pass 'allowed_only': no recipient:allowed is left",
    ),
    "an allowed one that is gone": (
        {
            "mail": "x@my.domain",
            "smtpdRecipientAccess": "allowed_only",
            "smtpdAllowedSenderDN": "uid=gone,dc=example",
        },
        f"warning: {X}smtpdAllowedSenderDN: 'uid=gone,dc=example' does not exist",
    ),
    "all allowed ones are gone": (
        {
            "mail": "x@my.domain",
            "smtpdRecipientAccess": "allowed_only",
            "smtpdAllowedSenderDN": "uid=gone,dc=example",
        },
        f"error: {X}smtpdRecipientAccess: nobody can pass 'allowed_only': no recipient:allowed is left",
    ),
    "all members of a list are gone": (
        {"mail": "x@my.domain", "smtpdRecipientAccess": "members_only", "member": "uid=gone,dc=example"},
        f"error: {X}smtpdRecipientAccess: nobody can pass 'members_only': no recipient:members is left",
    ),
}


@pytest.mark.parametrize(("attributes", "expected"), CASES.values(), ids=CASES)
def test_protects_nothing(attributes: dict[str, str], expected: str) -> None:
    """Each is told in this line."""
    assert expected in found(entry("cn=x", **attributes))


@pytest.mark.parametrize(
    ("key", "problem"),
    [
        ("*@partner.example", "there are no wildcards, expected a domain"),
        (".partner.example", "while smtpdParentDomainMatchesSubdomains is TRUE, expected 'partner.example'"),
        ('"Ada" <ada@partner.example>', "expected the address alone"),
        ("a@partner.example,b@partner.example", "expected one key in each value"),
    ],
)
@pytest.mark.parametrize("name", ["smtpdAllowedSender", "smtpdDeniedSender"])
def test_keys_that_never_match(name: str, key: str, problem: str) -> None:
    """A pattern that no access(5) key is equal to."""
    press = entry("cn=press", mail="press@my.domain", **{name: key})
    (fault,) = found(press)
    assert fault.startswith(f"warning: cn=press,dc=example: {name}: key {key!r} is never looked up")
    assert fault.endswith(problem)


def test_quoted_local_parts_are_keys() -> None:
    """What stands in quotes is no list and no display name."""
    assert [] == found(entry("cn=p", mail="p@my.domain", smtpdAllowedSender='"a,<b"@partner.example'))


def test_outside_of_search_base() -> None:
    """A rule beyond the base, such as on the primary group of everybody."""
    users = entry("cn=users,ou=builtin", member="uid=amy,dc=example", smtpdMemberSenderAccess="reject")
    inside = entry("cn=in,ou=people", member="uid=bo,ou=people,dc=example", smtpdMemberSenderAccess="reject")
    bo = entry("uid=bo,ou=people", uid="bo", mail="bo@my.domain")
    told = found(users, inside, bo, where=Where("ou=people,dc=example"))
    text = "smtpdMemberSenderAccess: no lookup finds it outside of search_base 'ou=people,dc=example'"
    expected = [f"error: {dn},dc=example: {text}" for dn in ("cn=users,ou=builtin", "cn=staff")]
    assert sorted(expected) == sorted(told)


def test_left_out_by_the_filter_or_the_domains() -> None:
    """What the configuration keeps from being looked up."""
    press = entry("cn=press", mail="press@my.domain", description="old", smtpdRecipientAccess="reject")
    spot = "error: cn=press,dc=example: smtpdRecipientAccess: it protects nothing: "
    by_filter = found(press, where=Where(BASE, parse("(!(description=old))")))
    by_domain = found(press, where=Where(BASE, domains=frozenset(("other.example",))))
    assert [f"{spot}[directory] filter leaves the entry out"] == by_filter
    assert [f"{spot}address 'press@my.domain' is in no domain of [directory] domain"] == by_domain


def test_what_cannot_be_seen() -> None:
    """A concept that a policy or a rule asks for, and no entry has anything of."""
    told = found(mapping=Mapping(mail=("maill",), login=("uidd",)))
    assert [f"{KEYS}login: no entry with uidd{UNSEEN}", f"{KEYS}mail: no entry with maill{UNSEEN}"] == told
    assert [] == found(mapping=Mapping(mail=("maill",)), recipient="permit")


def test_hidden_members_and_access() -> None:
    """An account that may not read `member`, or the attributes that rules stand in."""
    told = found(mapping=Mapping(member=("members",)))
    assert f"{KEYS}member: no entry with members{UNSEEN}" in told
    hidden = Mapping(
        sender_access=("hidden",), recipient_access=(), member_sender_access=(), member_recipient_access=()
    )
    assert f"{KEYS}access: no entry with hidden{UNSEEN}" in found(mapping=hidden)


CAL = "error: uid=cal,dc=example: shadowExpire: "
HIDDEN = f"{KEYS}disabled: uid=cal,dc=example has no userAccountControl: it may not be read"
USER = {"objectClass": "user"}
ENDS = {"login": ("uid",), "member": ("member",), "disabled": ("shadowExpire",)}


@pytest.mark.parametrize(
    ("profile", "keys", "held", "expected"),
    [
        ("active_directory", {}, USER, [HIDDEN]),
        ("active_directory", {}, {**USER, "userAccountControl": "512"}, []),
        ("active_directory", {}, {}, []),
        ("generic", {"disabled": ("nsAccountLock", "pwdAccountLockedTime")}, {}, []),
        ("generic", ENDS, {}, [f"{WARNING}disabled: no entry with shadowExpire{UNSEEN}"]),
        ("generic", ENDS, {"shadowExpire": "99999"}, []),
        (
            *("generic", ENDS, {"shadowExpire": "never"}),
            [f"{CAL}'never' counts as disabled, expected days since 1970, or -1"],
        ),
    ],
)
def test_accounts(profile: str, keys: dict[str, Names], held: dict[str, str], expected: list[str]) -> None:
    """What tells that a login is disabled: not to be seen, where that says something, or not to be read."""
    mapping = mapping_for(profile, {"login": ("uid",), "member": ("member",), **keys})
    assert expected == found(entry("uid=cal", uid="cal", mail="cal@my.domain", **held), mapping=mapping)
    assert [] == found(mapping=mapping, recipient="permit")
    no_login = entry("cn=cal", mail="cal@my.domain", **held)
    told = found(no_login, mapping=mapping)
    assert [one for one in expected if one.startswith(WARNING)] == told


def test_compat_tree_of_freeipa() -> None:
    """It repeats every login; that is told once, with the base to be used."""
    again = entry("uid=amy,cn=users,cn=compat", uid="amy")
    text = "cn=compat repeats every login: they are unavailable, expected cn=accounts,dc=example"
    assert [f"error: [directory]: search_base: {text}"] == found(again)


@dataclass
class Telling:
    """A directory that answers at some bases, as a server with a schema does."""

    answers: dict[str, Entry]
    features: Features

    async def search(self, search: Search) -> Sequence[Entry]:
        """What is at the base."""
        return [self.answers[search.base]] if search.base in self.answers else []

    def set_proofs(self, proofs: Sequence[Search]) -> None:
        """It has what it has."""

    def set_witnesses(self, dns: Sequence[str]) -> None:
        """The same."""

    async def close(self) -> None:
        """Nothing is open."""


def test_unknown_to_the_schema() -> None:
    """An attribute that the site named, not one of a profile's many."""
    types = ["( 0.9.1 NAME ( 'mail' 'email' ) )", "( 0.9.2 NAME 'uid' )"]
    answers = {
        "dc=x": Entry("dc=x", {"subschemaSubentry": ["cn=subschema"]}),
        "cn=subschema": Entry("cn=subschema", {"attributeTypes": types}),
    }
    mail = ("Email", "maill", "mailAlternateAddress")
    mapping = Mapping(mail=mail, login=("0.9.2",), disabled=("nsAccountLock",))  # another profile's
    told = asyncio.run(reach.unknown(Telling(answers, Features()), Where("dc=x"), mapping))
    named = (("mail", "maill"), ("disabled", "nsAccountLock"))
    assert [f"{KEYS}{key}: attribute '{name}' is unknown to the server's schema" for key, name in named] == [
        str(one) for one in told
    ]


def test_profiles_are_known() -> None:
    """What a profile names is not told of as unknown."""
    types = ["( 0.9.2 NAME 'uid' )"]
    answers = {
        "dc=x": Entry("dc=x", {"subschemaSubentry": ["cn=subschema"]}),
        "cn=subschema": Entry("cn=subschema", {"attributeTypes": types}),
    }
    for mapping in PROFILES.values():
        assert [] == asyncio.run(reach.unknown(Telling(answers, Features()), Where("dc=x"), mapping))


def test_attributes_that_users_write() -> None:
    """Active Directory: a mapped attribute of a property set that all may write on their own entry."""
    octets = uuid.UUID("77b5b886-944a-11d1-aebd-0000f80367c1").bytes_le
    schema = Entry(
        "cn=info,cn=schema",
        {"lDAPDisplayName": ["info"], "attributeSecurityGUID": [octets.decode("utf-8", "surrogateescape")]},
    )
    answers = {"": Entry("", {"schemaNamingContext": ["cn=schema"]}), "cn=schema": schema}
    directory = Telling(answers, Features(capabilities=frozenset(("1.2.840.113556.1.4.800",))))
    told = asyncio.run(reach.self_written(directory, Mapping(sender_access=("info",))))
    text = "all may write 'info' on their own entry (property set Personal-Information): it makes policy"
    assert [f"{KEYS}sender_access: {text}"] == [str(fault) for fault in told]


def test_said_at_the_start(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """`serve` says the same once, each at its level, and bounded in number."""
    lines = [f"dn: cn=x{number},dc=example\nobjectClass: device\ncn: x{number}\n" for number in range(60)]
    (tmp_path / "tree.ldif").write_text(
        "dn: cn=default,ou=policy,dc=example\nobjectClass: smtpdPolicy\ncn: default\n"
        "smtpdRecipientRestrictions: permit\n\n"
        + "\n".join(f"{one}smtpdRecipientAccess: reject\n" for one in lines)
    )
    bases = 'search_base = "dc=example"\npolicy_base = "ou=policy,dc=example"'
    text = f'[directory]\nuri = ["ldif:tree.ldif"]\n{bases}\n'
    config = parse_config(text, str(tmp_path / "config.toml"))

    async def started() -> None:
        directory = assembly.open_directory(config)
        service = assembly.build_service(await assembly.settled(config, directory), directory)
        await service.reload()
        await look_over(config, directory, service)

    asyncio.run(started())
    said = [record.getMessage() for record in caplog.records if record.name == "ldappolicy.daemon"]
    assert MAX_FAULTS + 1 == len(said)
    assert f"cn=x0,dc=example: smtpdRecipientAccess: {NO_ADDRESS}" in said
    assert "10 more rules that protect nothing: ldappolicy lint names all" == said[-1]


def test_names_that_are_not_amended() -> None:
    """slapo-refint(5) amends the attributes that it is told of; of ours those count that are in use."""
    overlay = Entry(
        "olcOverlay={1}refint,cn=config",
        {"objectClass": ["olcRefintConfig"], "olcRefintAttribute": ["member smtpdmoderator"]},
    )
    listed = entry(
        "cn=l", mail="l@my.domain", smtpdModerator="uid=amy,dc=example", smtpdSendAs="uid=amy,dc=example"
    )
    table_ = table("t", smtpdAccessMember="uid=amy,dc=example")
    text = "lacks smtpdAccessMember, smtpdSendAs: who is renamed or deleted stays named there"
    assert [f"warning: olcOverlay={{1}}refint,cn=config: olcRefintAttribute: {text}"] == found(
        overlay, listed, table_
    )
    assert [] == found(overlay)
