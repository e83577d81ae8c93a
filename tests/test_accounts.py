"""Accounts that are disabled or expired: how each attribute says it, and what such a login may not."""

from datetime import UTC, datetime
from typing import Any

import pytest

from ldappolicy.accounts import end_of
from ldappolicy.entry import Entry
from ldappolicy.facts import FOREVER
from ldappolicy.mapping import PROFILES, mapping_for
from tests.language import AMY, BOB, Site, asked, entry, group, person, policy, restriction_class, table

ALWAYS = -FOREVER
NOON = datetime(2026, 12, 1, 12, 0, tzinfo=UTC).timestamp()
NOON_AS_FILE_TIME = str((int(NOON) + 11_644_473_600) * 10_000_000)
EXACT = "an exact value"


# ---------------------------------------------------------------- how each attribute says it


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("userAccountControl", "512", FOREVER),
        ("userAccountControl", "514", ALWAYS),
        ("USERACCOUNTCONTROL", "66050", ALWAYS),
        ("userAccountControl", "-2147483646", ALWAYS),
        ("accountExpires", "0", FOREVER),
        ("accountExpires", "9223372036854775807", FOREVER),
        ("accountExpires", "9223372036854775806", 910692730085.4775),
        ("accountExpires", "116444736000000000", 0.0),
        ("accountExpires", "1", -11644473599.9999999),
        ("accountExpires", NOON_AS_FILE_TIME, NOON),
        ("nsAccountLock", "true", ALWAYS),
        ("nsAccountLock", "TRUE", ALWAYS),
        ("nsAccountLock", "False", FOREVER),
        ("pwdAccountLockedTime", "000001010000Z", ALWAYS),
        ("pwdAccountLockedTime", "20261201120000Z", NOON),
        ("krbPrincipalExpiration", "20261201120000Z", NOON),
        ("krbPrincipalExpiration", "2026120112Z", NOON),
        ("krbPrincipalExpiration", "202612011200Z", NOON),
        ("krbPrincipalExpiration", "20261201130000+01", NOON),
        ("krbPrincipalExpiration", "20261201063000-0530", NOON),
        ("krbPrincipalExpiration", "2026120111.5-0030", NOON),
        ("krbPrincipalExpiration", "202612011159,5Z", NOON - 30),
        ("krbPrincipalExpiration", "20261201120000.25Z", NOON + 0.25),
        ("krbPrincipalExpiration", "20261201115960Z", NOON),
        ("shadowExpire", "20788", NOON - 12 * 3600),
        ("shadowExpire", "0", 0.0),
        ("shadowExpire", "-1", FOREVER),
        ("accountStatus", "Disabled", ALWAYS),
        ("accountStatus", "true", ALWAYS),
        ("accountStatus", " TRUE ", ALWAYS),
        ("accountStatus", "active", FOREVER),
        ("accountStatus", "FALSE", FOREVER),
        ("accountStatus", "1", FOREVER),
    ],
)
def test_forms(name: str, value: str, expected: float) -> None:
    """From when on an account is disabled, in seconds since 1970."""
    end = end_of(Entry("", {name: [value]}), (name,))
    assert end.at == pytest.approx(expected)
    assert "" == end.problem


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("userAccountControl", ("", "0x202", "normal", "5 14", "99999999999", "9" * 5000)),
        ("accountExpires", ("-1", "9223372036854775808", "never", "2026-12-01", "1e17")),
        ("nsAccountLock", ("yes", "1", "", "TRUEFALSE")),
        ("pwdAccountLockedTime", ("000001010000", "00000101000000Z", "locked")),
        (
            "krbPrincipalExpiration",
            (
                *(
                    "20261201120000",
                    "20261301120000Z",
                    "20260230120000Z",
                    "20261201240000Z",
                    "20261201126000Z",
                ),
                *(
                    "20261201120061Z",
                    "20261201120000+2400",
                    "20261201120000+0160",
                    "2026120112000Z",
                    "261201Z",
                ),
                *(
                    "20261201120000.Z",
                    "20261201Z",
                    "00000101000000Z",
                    "20261201120000z",
                    "２０２６1201120000Z",
                ),
            ),
        ),
        ("shadowExpire", ("-2", "never", "1.5", "99999999999", "2026-12-01")),
    ],
)
def test_what_is_no_form_closes(name: str, values: tuple[str, ...]) -> None:
    """It counts as disabled, and is told with what was expected."""
    for value in values:
        end = end_of(Entry("", {name: [value]}), (name,))
        assert ALWAYS == end.at, value
        assert name == end.name
        assert end.problem.startswith(f"{value[:64]!r} counts as disabled, expected "), value


def test_the_first_end_counts() -> None:
    """Whichever attribute and value it stands in; what is not mapped says nothing."""
    names = ("shadowExpire", "accountStatus", "krbPrincipalExpiration")
    both = {"shadowExpire": ["30000", "20000"], "krbPrincipalExpiration": ["20261201120000Z"]}
    assert 20000 * 86400.0 == end_of(Entry("", both), names).at
    assert ALWAYS == end_of(Entry("", {**both, "accountStatus": ["disabled"]}), names).at
    assert FOREVER == end_of(Entry("", {"nsAccountLock": ["TRUE"]}), names).at


def test_defaults() -> None:
    """What the profiles look at."""
    assert {
        "generic": (),
        "openldap": (),
        "389ds": ("nsAccountLock",),
        "freeipa": ("nsAccountLock", "krbPrincipalExpiration"),
        "active_directory": ("userAccountControl", "accountExpires"),
    } == {name: mapping.disabled for name, mapping in PROFILES.items()}


# ---------------------------------------------------------------- what such a login may not

MAPPING = mapping_for("generic", {"disabled": ("accountStatus", "shadowExpire")})
OFF = {"accountStatus": "disabled"}
ALL = "all@my.domain"


def site(*entries: Entry, mapping: Any = MAPPING, **lists: str) -> Site:
    """Amy, and what a test says."""
    return Site(
        policy(smtpdLocalDomains="inline:{my.domain=x}", **lists), *entries, mapping=mapping, permit_ok=True
    )


@pytest.mark.parametrize(
    ("held", "expected"),
    [
        ({}, "DUNNO"),
        ({"accountStatus": "active"}, "DUNNO"),
        (OFF, "REJECT"),
        ({"shadowExpire": "1"}, "REJECT"),
        ({"shadowExpire": "99999"}, "DUNNO"),
        ({"shadowExpire": "-1"}, "DUNNO"),
        ({"shadowExpire": "never"}, "REJECT"),
    ],
)
def test_nobody(held: dict[str, str], expected: str) -> None:
    """Found by directory:nobody, by any form of the login; as a sender the address is somebody's."""
    around = site(person("amy", **held), sender="check_sasl_access directory:nobody")
    assert [expected] * 2 == [around.action(login=one, sender="x@y") for one in ("amy", "amy@my.domain")]
    around = site(person("amy", **held), sender="check_sender_access directory:nobody")
    assert "DUNNO" == around.action(sender="amy@my.domain", login="amy")


def test_a_value_that_cannot_be_read_is_told() -> None:
    """One line that says whose, what, and what was expected; the login is not one that nobody has."""
    around = site(person("amy", shadowExpire="never"), sender="check_sasl_access directory:nobody")
    decision = around.decide(login="amy")
    expected = f"{AMY}: shadowExpire: 'never' counts as disabled, expected days since 1970, or -1"
    assert ((expected,), False, AMY) == (decision.notes, decision.unknown_login, decision.dn)


LISTS = {
    "members": {"member": AMY},
    "owners": {"owner": AMY},
    "moderators": {"smtpdModerator": AMY},
    "allowed": {"smtpdAllowedSenderDN": AMY},
    "allowed by login": {"smtpdAllowedSender": "amy"},
    "allowed by address": {"smtpdAllowedSender": "amy@my.domain"},
}


@pytest.mark.parametrize("name", LISTS)
def test_no_list_lets_it_in(name: str) -> None:
    """Members, owners, moderators, allowed: by the login; the envelope is no login, and stays as it was."""
    target = entry("cn=all,ou=groups", cn="all", mail=ALL, **LISTS[name])
    kind = name.partition(" ")[0]
    for held, expected in (({}, "OK"), (OFF, "reject,")):
        around = site(person("amy", **held), target, recipient=f"check_sasl_access recipient:{kind}, reject")
        assert expected == around.action(login="amy", recipient=ALL)
        if name != "allowed by login":
            around = site(
                person("amy", **held), target, recipient=f"check_sender_access recipient:{kind}, reject"
            )
            assert "OK" == around.action(login="amy", sender="amy@my.domain", recipient=ALL)


@pytest.mark.parametrize("denied", [{"smtpdDeniedSender": "amy@my.domain"}, {"smtpdDeniedSenderDN": AMY}])
def test_denials_hold(denied: dict[str, str]) -> None:
    """Who is denied stays so."""
    target = entry("cn=all,ou=groups", cn="all", mail=ALL, **denied)
    around = site(person("amy", **OFF), target, recipient="check_sasl_access recipient:denied")
    assert "REJECT" == around.action(login="amy", recipient=ALL)


ACCESS = "check_sasl_access directory:access, reject"


@pytest.mark.parametrize(
    ("value", "enabled", "disabled"),
    [
        ("REJECT", "REJECT", "REJECT"),
        ("HOLD for a look", "reject,", "reject,"),
        ("permit", "OK", "reject,"),
        ("OK", "OK", "reject,"),
        ("friends", "OK", "reject,"),
        ("bound", "REJECT bound", "REJECT bound"),
        ("reject_unknown_sender_domain", *["reject_unknown_sender_domain, reject"] * 2),
        ("permit_mynetworks, reject", "permit_mynetworks, reject", EXACT),
        ("permit_mynetworks", "permit_mynetworks, reject", "reject,"),
    ],
)
def test_rules_of_its_entry_and_groups(value: str, enabled: str, disabled: str) -> None:
    """What restricts holds; a permit counts for nothing, and what Postfix would have to judge is an error."""
    classes = [
        restriction_class("friends", "check_sender_access static:OK"),
        restriction_class("bound", "check_sender_access static:{REJECT bound}"),
    ]
    crew = group("crew", [AMY], smtpdMemberSenderAccess=value)
    for held, expected in (({}, enabled), (OFF, disabled)):
        own = site(person("amy", smtpdSenderAccess=value, **held), *classes, recipient=ACCESS)
        by_group = site(person("amy", **held), crew, *classes, recipient=ACCESS)
        told = [around.decide(login="amy", sender="x@y", recipient=ALL) for around in (own, by_group)]
        if expected is EXACT:
            assert all("cannot say a permit" in decision.error for decision in told)
        else:
            assert [expected] * 2 == [decision.action for decision in told]


@pytest.mark.parametrize(
    ("held", "action", "expected"),
    [({}, "OK", "OK"), (OFF, "OK", "reject,"), ({}, "REJECT", "REJECT"), (OFF, "REJECT", "REJECT")],
)
def test_tables(held: dict[str, str], action: str, expected: str) -> None:
    """A table of the directory lets it in neither as a member nor by a line or a search; it may refuse it."""
    url = "ldap:///dc=example?uid?sub?(uid=*)"
    for found_by in ({"smtpdAccessMember": AMY}, {"smtpdAccessURL": url}, {"smtpdAccess": f"amy {action}"}):
        around = site(
            person("amy", **held),
            table("t", smtpdAccessAction=action, **found_by),
            recipient="check_sasl_access ldap:t, reject",
        )
        assert expected == around.action(login="amy", recipient=ALL), found_by
    # What the policy itself says, and Postfix would, asks nobody.
    for items in ("check_sasl_access static:OK, reject", "permit_sasl_authenticated, reject"):
        assert "OK" == site(person("amy", **held), recipient=items).action(login="amy", recipient=ALL)


@pytest.mark.parametrize(
    "restriction", ["reject_sender_login_mismatch", "reject_known_sender_login_mismatch"]
)
def test_owners_of_addresses(restriction: str) -> None:
    """It owns nothing, its addresses stay owned, and those whom it named may send as it."""
    shared = entry("cn=info", mail="info@my.domain", smtpdSendAs=AMY)
    whole = entry("dc=my.domain", associatedDomain="my.domain", smtpdSendAs=AMY)
    amy = person("amy", smtpdSendAs=BOB, **OFF)
    around = site(amy, shared, person("bob"), person("cal"), sender=restriction)
    mine, other = "amy@my.domain", "info@my.domain"
    refused = "553 5.7.1 not owned by user "
    assert [refused + "amy"] * 2 == [around.action(login="amy", sender=one) for one in (mine, other)]
    assert ["DUNNO", refused + "cal"] == [around.action(login=one, sender=mine) for one in ("bob", "cal")]
    of_domain = site(amy, shared, whole, sender=restriction)
    assert refused + "amy" == of_domain.action(login="amy", sender="any@my.domain")
    without_login = site(amy, sender="reject_unauthenticated_sender_login_mismatch")
    assert "553 5.7.1 not logged in" == without_login.action(sender=mine)


def test_a_disabled_entry_is_no_contact() -> None:
    """Outside of our domains an entry without a login is nobody's; one whose login is disabled is not."""
    abroad = "amy@partner.example"
    restriction = "reject_unauthenticated_sender_login_mismatch"
    contact = entry("cn=amy", mail=abroad)
    told = [
        site(one, sender=restriction).action(sender=abroad) for one in (contact, person("amy", abroad, **OFF))
    ]
    assert ["DUNNO", "553 5.7.1 not logged in"] == told


@pytest.mark.parametrize(
    ("held", "reason"),
    [
        (OFF, "disabled: accountStatus is 'disabled'"),
        ({"shadowExpire": "20000"}, "expired on 2024-10-04 00:00:00 UTC: shadowExpire is '20000'"),
        ({"shadowExpire": "x"}, "shadowExpire: 'x' counts as disabled, expected days since 1970, or -1"),
    ],
)
def test_why(held: dict[str, str], reason: str) -> None:
    """The trace says what is wrong with the account, wherever it matters."""
    listed = "check_sasl_access recipient:members"
    target = group("all", [AMY], mail=ALL)
    for items, table_, restriction in (
        ("check_sasl_access directory:nobody", "directory:nobody", ""),
        ("reject_sender_login_mismatch", "sender login", ""),
        (listed, "", listed),
    ):
        around = site(person("amy", **held), target, recipient=items)
        trace: list[dict[str, Any]] = []
        around.resolve(asked(login="amy", sender="amy@my.domain", recipient=ALL), trace)
        told = [
            event["reason"]
            for event in trace
            if event.get("table" if table_ else "restriction") == (table_ or restriction)
            and "reason" in event
        ]
        assert any(reason in text for text in told), (items, trace)
