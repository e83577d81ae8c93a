"""Tables: keys and their order in every kind of table, members, URLs, the tables of the directory itself."""

from collections.abc import Sequence

import pytest

from ldappolicy.entry import Entry
from ldappolicy.evaluate import Lacking
from ldappolicy.facts import Facts, Lookup, Outcome
from ldappolicy.request import Request
from tests.language import (
    AMY,
    BOB,
    CAL,
    CONFIGURATION_ERROR,
    LOOKUP_FAILURE,
    REQUEST,
    Site,
    Values,
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

# ---------------------------------------------------------------- lines and their keys, in order

ADDRESS_KEYS = ["u+x@m.b.example", "u@m.b.example", "m.b.example", "b.example", "example", "u+x@", "u@"]
DOTTED_KEYS = ["u+x@m.b.example", "u@m.b.example", "m.b.example", ".b.example", ".example", "u+x@", "u@"]
CLIENT_KEYS = ["m.b.example", "b.example", "example", "192.0.2.10", "192.0.2", "192.0", "192"]
DOMAIN_KEYS = ["m.b.example", "b.example", "example"]

CHECKS: dict[str, tuple[dict[str, str], list[str]]] = {
    "check_sender_access": ({"sender": "U+x@M.b.example"}, ADDRESS_KEYS),
    "check_recipient_access": ({"recipient": "U+x@M.b.example"}, ADDRESS_KEYS),
    "check_client_access": ({"client_name": "M.b.example", "client_address": "192.0.2.10"}, CLIENT_KEYS),
    "check_reverse_client_hostname_access": (
        {"reverse_client_name": "M.b.example", "client_address": "192.0.2.10"},
        CLIENT_KEYS,
    ),
    "check_helo_access": ({"helo_name": "M.b.example"}, DOMAIN_KEYS),
    "check_etrn_access": ({"etrn_domain": "M.b.example"}, DOMAIN_KEYS),
    "check_sasl_access": ({"login": "Amy@b.example"}, ["amy@b.example"]),
    "check_ccert_access": ({"ccert_fingerprint": "AA:BB", "ccert_pubkey_fingerprint": "CC"}, ["aa:bb", "cc"]),
}


def a_table(kind: str, keys: Sequence[str]) -> tuple[str, Entries]:
    """A table of these keys, each refusing with its own name, and its entries."""
    if kind == "ldap":
        return "ldap:t", [table("t", *(f"{key} REJECT {key}" for key in keys))]
    if kind == "joined":
        return "ldap:t", [table("t", f"{key} REJECT {key}", rdn=f"t{n}") for n, key in enumerate(keys)]
    pairs = ", ".join(f"{{ {key} = REJECT {key} }}" for key in keys)
    return f"inline:{{ {pairs} }}", []


@pytest.mark.parametrize("kind", ["ldap", "joined", "inline"])
@pytest.mark.parametrize("dotted", [False, True], ids=["parents", "dotted"])
@pytest.mark.parametrize("check", CHECKS)
def test_key_order(kind: str, dotted: bool, check: str) -> None:
    """The first key that the table has decides, in access(5) order, in every kind of table with lines."""
    attributes, keys = CHECKS[check]
    if dotted:
        keys = [f".{key}" if key in ("b.example", "example") else key for key in keys]
    parents = "FALSE" if dotted else "TRUE"
    for first in range(len(keys)):
        name, entries = a_table(kind, keys[first:])
        settings = {
            "recipient": f"{check} {name}",
            "smtpdRecipientDelimiter": "+",
            "smtpdParentDomainMatchesSubdomains": parents,
        }
        assert f"REJECT {keys[first]}" == Site(policy(**settings), entries).action(**attributes)


@pytest.mark.parametrize(
    ("key", "sender"),
    [
        pytest.param("@b.example", "a@b.example", id="@domain is no key"),
        pytest.param(".b.example", "a@m.b.example", id="a dotted parent is no key"),
        pytest.param("my.domain", "a@notmy.domain", id="notmy.domain"),
        pytest.param("my.domain", "a@my.domain.evil.example", id="my.domain.evil.example"),
        pytest.param("a@b.example", "a@b.example.evil.example", id="address at the beginning"),
        pytest.param("a@b.example", "xa@b.example", id="address at the end"),
        pytest.param("a@b.example", "a+x@b.example", id="no delimiter, no extension"),
        pytest.param("amy@my.domain", "ａｍｙ@my.domain", id="full-width letters"),
        pytest.param("<>", "a@b.example", id="null sender"),
    ],
)
def test_no_such_key(key: str, sender: str) -> None:
    """Domains are compared label by label, addresses as a whole, and nothing wider than case folding."""
    assert "DUNNO" == answer("check_sender_access ldap:t", tables(t=[f"{key} REJECT"]), sender=sender)


@pytest.mark.parametrize("key", ["", "@", "mailer-daemon@", "mailer-daemon@my.domain"])
def test_null_sender_has_one_key(key: str) -> None:
    """The null sender is `<>` and nothing else."""
    site = Site(
        policy(recipient="check_sender_access ldap:t"), table("t", f"{key or 'x'} REJECT", "<> DUNNO")
    )
    assert "DUNNO" == site.action(sender="")


@pytest.mark.parametrize(
    ("line", "sender"),
    [
        ('"john doe"@b.example REJECT found', "john doe@b.example"),
        ('"John Doe"@b.example REJECT found', "john doe@b.example"),
        ('"john doe"@ REJECT found', "john doe@b.example"),
        ('"a..b"@b.example REJECT found', "a..b@b.example"),
        ("a..b@b.example REJECT found", "a..b@b.example"),
        ("strasse@b.example REJECT found", "Straße@b.example"),
        ("bücher.example REJECT found", "a@BÜCHER.example"),
    ],
)
def test_spelling_of_keys(line: str, sender: str) -> None:
    """Quoted and unquoted forms are alike, and both sides are case-folded."""
    assert "REJECT found" == answer("check_sender_access ldap:t", table("t", line), sender=sender)


def test_quoted_key_comes_first() -> None:
    """Where a table has both forms, the quoted one decides."""
    site = Site(
        policy(recipient="check_sender_access ldap:t"),
        table("t", '"a..b"@b REJECT quoted', "a..b@b REJECT plain"),
    )
    assert "REJECT quoted" == site.action(sender="a..b@b")


def test_dunno_of_a_key_ends_the_search() -> None:
    """The first key that is found decides, also with DUNNO: an address is an exception to its domain."""
    assert "DUNNO" == answer(
        "check_sender_access ldap:t", tables(t=["a@b.example DUNNO", "b.example REJECT"])
    )


# ---------------------------------------------------------------- static, inline, fail


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("static:REJECT", "REJECT"),
        ("static:{REJECT with spaces}", "REJECT with spaces"),
        ("static:{ 550 5.7.1 no }", "550 5.7.1 no"),
        ("static:DUNNO", "DUNNO"),
        ("static:c", "reject,"),
        ("inline:{a@b.example=REJECT}", "REJECT"),
        ("inline:{ A@b.example=REJECT, x=y }", "REJECT"),
        ("inline:{ {a@b.example = REJECT a, b} }", "REJECT a, b"),
        ("inline:{ {b.example=c, d} }", "reject,"),
        ("inline:{x=REJECT}", "DUNNO"),
        ("fail:x", CONFIGURATION_ERROR),
        ("fail:", CONFIGURATION_ERROR),
    ],
)
def test_tables_of_postfix(name: str, expected: str) -> None:
    """static:, inline: and fail: are as in Postfix."""
    assert expected == answer(f"check_sender_access {name}", classes(c="reject", d="permit"))


@pytest.mark.parametrize("name", ["inline:x", "inline:{}", "inline:{a}", "inline:{ =b }"])
def test_bad_inline(name: str) -> None:
    """An inline table that is none is an error."""
    assert CONFIGURATION_ERROR == answer(f"check_sender_access {name}")


# ---------------------------------------------------------------- members

PEOPLE = [person("amy", "amy@my.domain", "amy.a@my.domain"), person("bob"), person("cal")]


def members(of: Values, *people: Entry, action: str = "REJECT member", url: Values = ()) -> list[Entry]:
    """A table of the addresses of these entries, and people."""
    mine = table("t", smtpdAccessMember=of, smtpdAccessURL=url, smtpdAccessAction=action)
    return [mine, *(people or PEOPLE)]


@pytest.mark.parametrize(
    ("sender", "found"),
    [
        ("amy@my.domain", True),
        ("AMY.A@MY.DOMAIN", True),
        ('"amy"@my.domain', True),
        ("amy+x@my.domain", True),
        ("bob@my.domain", False),
        ("amy@my.domain.evil.example", False),
        ("amy@notmy.domain", False),
        ("ａｍｙ@my.domain", False),
        ("my.domain", False),
        ("", False),
    ],
)
def test_member(sender: str, found: bool) -> None:
    """Every address of an entry that smtpdAccessMember names is a key, also with an extension."""
    site = Site(policy(recipient="check_sender_access ldap:t", smtpdRecipientDelimiter="+"), members(AMY))
    assert ("REJECT member" if found else "DUNNO") == site.action(sender=sender)


NESTED = [
    group("g", [dn("cn=h,ou=groups")]),
    group("h", [dn("cn=i,ou=groups"), BOB]),
    group("i", [dn("cn=g,ou=groups"), AMY]),
]
"""Three groups in a circle: everybody in one is in all."""


@pytest.mark.parametrize("name", ["g", "h", "i"])
@pytest.mark.parametrize(("sender", "found"), [("amy", True), ("bob", True), ("cal", False)])
def test_nested_members(name: str, sender: str, found: bool) -> None:
    """Members of groups in groups are members, and a circle ends."""
    site = Site(
        policy(recipient="check_sender_access ldap:t"), members(dn(f"cn={name},ou=groups"), *PEOPLE, *NESTED)
    )
    assert ("REJECT member" if found else "DUNNO") == site.action(sender=f"{sender}@my.domain")


ROUNDABOUT = {
    "member": [group("g", [AMY])],
    "uniqueMember": [entry("cn=g,ou=groups", cn="g", uniqueMember=AMY)],
    "memberUid": [entry("cn=g,ou=groups", cn="g", memberUid=["amy", "zoe"])],
    "memberURL": [entry("cn=g,ou=groups", cn="g", memberURL="ldap:///ou=people,dc=example??sub?(uid=amy)")],
    "memberURL base": [entry("cn=g,ou=groups", cn="g", memberURL=f"ldap:///{AMY}")],
    "memberURL one": [
        entry("cn=g,ou=groups", cn="g", memberURL="ldap:///ou=people,dc=example??one?(uid=amy)")
    ],
}


@pytest.mark.parametrize("how", ROUNDABOUT)
@pytest.mark.parametrize(("sender", "found"), [("amy", True), ("bob", False)])
def test_kinds_of_membership(how: str, sender: str, found: bool) -> None:
    """A group names its members by DN, by login, or by a URL."""
    site = Site(
        policy(recipient="check_sender_access ldap:t"),
        members(dn("cn=g,ou=groups"), *PEOPLE, *ROUNDABOUT[how]),
    )
    assert ("REJECT member" if found else "DUNNO") == site.action(sender=f"{sender}@my.domain")


@pytest.mark.parametrize("scope", ["", "??base", "??one?(uid=bob)", "??sub?(uid=bob)"])
def test_member_url_that_does_not_cover(scope: str) -> None:
    """Base, scope and filter of a memberURL all count; its default scope is the base alone."""
    url = entry("cn=g,ou=groups", cn="g", memberURL=f"ldap:///ou=people,dc=example{scope}")
    site = Site(policy(recipient="check_sender_access ldap:t"), members(dn("cn=g,ou=groups"), *PEOPLE, url))
    assert "DUNNO" == site.action(sender="amy@my.domain")


def test_bad_member_url() -> None:
    """A memberURL that names a host opens no connection: membership is not known."""
    url = entry("cn=g,ou=groups", cn="g", memberURL="ldap://evil.example/dc=example??sub?(uid=amy)")
    site = Site(policy(recipient="check_sender_access ldap:t"), members(dn("cn=g,ou=groups"), *PEOPLE, url))
    assert LOOKUP_FAILURE == site.action(sender="amy@my.domain")


def test_member_url_above_the_search_base() -> None:
    """A memberURL whose base is above search_base is not followed: membership is not known."""
    url = "ldap:///??sub?(uid=amy)"
    dynamic = entry("cn=g,ou=groups", cn="g", memberURL=url)
    site = Site(
        policy(recipient="check_sender_access ldap:t"), members(dn("cn=g,ou=groups"), *PEOPLE, dynamic)
    )
    decision = site.decide(sender="amy@my.domain")
    problem = f"memberURL {url!r}: its base is neither below search_base nor below policy_base"
    assert (LOOKUP_FAILURE, (problem,)) == (decision.action, decision.outages)


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_member_of(depth: int) -> None:
    """What an entry's own memberOf names, it belongs to, and what that belongs to."""
    amy = person("amy", memberOf=dn("cn=g0,ou=groups"))
    chain = [group(f"g{n}", memberOf=dn(f"cn=g{n + 1},ou=groups")) for n in range(depth)]
    site = Site(
        policy(recipient="check_sender_access ldap:t"), members(dn(f"cn=g{depth},ou=groups"), amy, *chain)
    )
    assert "REJECT member" == site.action(sender="amy@my.domain")


def test_member_of_without_the_group() -> None:
    """A memberOf value counts although no entry of that DN is to be seen."""
    amy = person("amy", memberOf="CN=Gone, OU=groups,DC=example")
    site = Site(policy(recipient="check_sender_access ldap:t"), members(dn("cn=gone,ou=groups"), amy))
    assert "REJECT member" == site.action(sender="amy@my.domain")


def test_member_of_and_member_mixed() -> None:
    """Knowledge from both directions is put together: memberOf first, then member, then memberOf."""
    amy = person("amy", memberOf=dn("cn=a,ou=groups"))
    groups = [group("a"), group("b", [dn("cn=a,ou=groups")], memberOf=dn("cn=c,ou=groups")), group("c")]
    site = Site(policy(recipient="check_sender_access ldap:t"), members(dn("cn=c,ou=groups"), amy, *groups))
    assert "REJECT member" == site.action(sender="amy@my.domain")


@pytest.mark.parametrize(
    ("login", "found"),
    [("amy", True), ("AMY", True), ("amy@my.domain", True), ("bob", False), ("zoe", False)],
)
def test_member_by_login(login: str, found: bool) -> None:
    """In check_sasl_access the login, or an address of its entry, stands for the entry."""
    assert ("REJECT member" if found else "DUNNO") == answer(
        "check_sasl_access ldap:t", members(AMY), login=login
    )


@pytest.mark.parametrize("check", ["check_client_access", "check_helo_access"])
def test_members_are_addresses(check: str) -> None:
    """A check of anything but an address or login finds no member."""
    assert "DUNNO" == answer(
        f"{check} ldap:t", members(AMY), client_name="amy@my.domain", helo_name="amy@my.domain"
    )


def test_default_action_of_members() -> None:
    """Without smtpdAccessAction a member is OK."""
    site = Site(
        policy(recipient="check_sender_access ldap:t, reject"), table("t", smtpdAccessMember=AMY), PEOPLE
    )
    assert ["DUNNO", "reject,"] == [site.action(sender=f"{uid}@my.domain") for uid in ("amy", "bob")]


def test_member_of_a_table_twice() -> None:
    """Two entries with one address that agree about membership hold; if they differ, nobody knows."""
    both = [person("amy", "x@my.domain"), person("bob", "x@my.domain")]
    agreeing = Site(policy(recipient="check_sender_access ldap:t"), members([AMY, BOB], *both))
    assert "REJECT member" == agreeing.action(sender="x@my.domain")
    differing = Site(policy(recipient="check_sender_access ldap:t"), members(AMY, *both))
    assert LOOKUP_FAILURE == differing.action(sender="x@my.domain")


# ---------------------------------------------------------------- URLs

URL = "ldap:///ou=people,dc=example?mail,associatedDomain?sub?(employeeType=guest)"
GUESTS = [
    person("amy", employeeType="guest"),
    person("bob"),
    entry("o=p,ou=people", o="p", associatedDomain="Partner.example", employeeType="guest"),
]


@pytest.mark.parametrize(
    ("sender", "found"),
    [
        ("amy@my.domain", True),
        ("AMY@My.Domain", True),
        ("amy+x@my.domain", True),
        ('"amy"@my.domain', True),
        ("bob@my.domain", False),
        ("x@partner.example", True),
        ("x@sub.partner.example", True),
        ("x@notpartner.example", False),
        ("*@my.domain", False),
        ("amy@my.domain)(uid=*", False),
        ("ａｍｙ@my.domain", False),
        ("", False),
    ],
)
def test_url(sender: str, found: bool) -> None:
    """A value of the URL's attributes is a key of any kind; keys are data in the filter, never syntax."""
    settings = {"recipient": "check_sender_access ldap:t", "smtpdRecipientDelimiter": "+"}
    site = Site(policy(**settings), table("t", smtpdAccessURL=URL, smtpdAccessAction="REJECT guest"), GUESTS)
    assert ("REJECT guest" if found else "DUNNO") == site.action(sender=sender)


@pytest.mark.parametrize("scope", ["base", "one", ""])
def test_scope_of_url(scope: str) -> None:
    """The scope of a URL counts, base where it has none."""
    url = f"ldap:///dc=example?mail?{scope}?(uid=amy)"
    assert "DUNNO" == answer("check_sender_access ldap:t", members(BOB, url=url), sender="amy@my.domain")


def test_line_then_member_then_url() -> None:
    """For each key a line comes before a member before a URL, whichever entry of the table has it."""
    everything = [
        table("t", smtpdAccessURL=URL, smtpdAccessAction="REJECT url", rdn="t1"),
        table("t", smtpdAccessMember=AMY, smtpdAccessAction="REJECT member", rdn="t2"),
        table("t", "amy@my.domain REJECT line", "my.domain REJECT domain", rdn="t3"),
    ]
    for count, expected in ((3, "line"), (2, "member"), (1, "url")):
        site = Site(policy(recipient="check_sender_access ldap:t"), everything[:count], GUESTS)
        assert f"REJECT {expected}" == site.action(sender="amy@my.domain")


def test_an_earlier_key_wins_over_a_line() -> None:
    """A URL that yields the address comes before a line for its domain."""
    entries = [
        table("t", "my.domain REJECT domain", smtpdAccessURL=URL, smtpdAccessAction="REJECT url"),
        *GUESTS,
    ]
    assert "REJECT url" == answer("check_sender_access ldap:t", entries, sender="amy@my.domain")
    assert "REJECT domain" == answer("check_sender_access ldap:t", entries, sender="bob@my.domain")


def test_url_of_policy_base() -> None:
    """A URL may also search below policy_base."""
    url = "ldap:///ou=policy,dc=example?description?sub?(cn=keys)"
    keys = entry("cn=keys,ou=policy", cn="keys", description=["b.example", "c.example"])
    assert "REJECT k" == answer(
        "check_sender_access ldap:t", table("t", smtpdAccessURL=url, smtpdAccessAction="REJECT k"), keys
    )


# ---------------------------------------------------------------- directory:access

LIST, OUTER = dn("cn=all,ou=groups"), dn("cn=outer,ou=groups")
OWN, MEMBER = "smtpdSenderAccess", "smtpdMemberSenderAccess"
DOMAIN = entry("dc=my,ou=domains", associatedDomain="my.domain", smtpdSenderAccess="REJECT domain")
PARENT = entry("dc=d,ou=domains", associatedDomain="domain", smtpdSenderAccess="REJECT parent")


def carrying(cn: str, text: str, priority: str = "", members: Sequence[str] = (AMY,)) -> Entry:
    """A group with an access attribute for its members as senders."""
    more = {"smtpdPriority": priority} if priority else {}
    return group(cn, members, **{MEMBER: f"REJECT {text}"}, **more)


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        pytest.param([person("amy")], "DUNNO", id="nothing"),
        pytest.param([], "DUNNO", id="no entry"),
        pytest.param(
            [person("amy", smtpdSenderAccess="REJECT own"), carrying("g", "group"), DOMAIN, PARENT],
            "REJECT own",
            id="the entry itself",
        ),
        pytest.param([person("amy"), carrying("g", "group"), DOMAIN, PARENT], "REJECT group", id="a group"),
        pytest.param([person("amy"), DOMAIN, PARENT], "REJECT domain", id="the domain"),
        pytest.param([person("amy"), PARENT], "REJECT parent", id="its parent"),
        pytest.param([DOMAIN, PARENT], "REJECT domain", id="the domain, without an entry of its own"),
        pytest.param([PARENT], "REJECT parent", id="the parent, without an entry of its own"),
        pytest.param(
            [person("amy", smtpdSenderAccess="DUNNO"), carrying("g", "group"), DOMAIN],
            "DUNNO",
            id="DUNNO decides",
        ),
        pytest.param(
            [person("amy"), carrying("a", "two", "2"), carrying("b", "one", "1")],
            "REJECT one",
            id="lowest priority",
        ),
        pytest.param(
            [person("amy"), carrying("a", "ten", "10"), carrying("b", "nine", "9")],
            "REJECT nine",
            id="as numbers",
        ),
        pytest.param(
            [person("amy"), carrying("a", "none"), carrying("b", "some", "99")],
            "REJECT some",
            id="some before none",
        ),
        pytest.param(
            [person("amy"), carrying("a", "zero", "0"), carrying("b", "minus", "-5")],
            "REJECT minus",
            id="negative",
        ),
        pytest.param(
            [person("amy"), carrying("b", "b", "1"), carrying("a", "a", "1")], "REJECT a", id="equals by DN"
        ),
        pytest.param(
            [person("amy"), carrying("b", "b"), carrying("a", "a")], "REJECT a", id="those without one by DN"
        ),
        pytest.param(
            [person("amy"), group("in", [AMY]), carrying("out", "outer", members=[dn("cn=in,ou=groups")])],
            "REJECT outer",
            id="at any depth",
        ),
        pytest.param(
            [
                person("amy"),
                carrying("in", "inner", "5"),
                carrying("out", "outer", "1", members=[dn("cn=in,ou=groups")]),
            ],
            "REJECT outer",
            id="depth does not matter, priority does",
        ),
        pytest.param(
            [person("amy"), group("g", [AMY], smtpdSenderAccess="REJECT own")],
            "DUNNO",
            id="a group's own attribute is not its members'",
        ),
        pytest.param(
            [person("amy", smtpdMemberSenderAccess="REJECT x")], "DUNNO", id="members' is not the entry's own"
        ),
        pytest.param(
            [
                person("amy"),
                entry("dc=my,ou=domains", associatedDomain="my.domain", smtpdMemberSenderAccess="REJECT x"),
            ],
            "DUNNO",
            id="a domain carries the plain form",
        ),
        pytest.param(
            [
                person("amy", smtpdRecipientAccess="REJECT r"),
                group("g", [AMY], smtpdMemberRecipientAccess="REJECT r"),
            ],
            "DUNNO",
            id="recipient attributes are not for senders",
        ),
        pytest.param(
            [person("amy", memberOf=dn("cn=g,ou=groups")), carrying("g", "by memberOf", members=())],
            "REJECT by memberOf",
            id="by memberOf",
        ),
        pytest.param(
            [person("amy", smtpdSenderAccess=["OK", "REJECT"])],
            LOOKUP_FAILURE,
            id="several values are unavailable",
        ),
        pytest.param(
            [person("amy"), carrying("g", "x", "high")], LOOKUP_FAILURE, id="a priority that is no number"
        ),
    ],
)
def test_directory_access(entries: Entries, expected: str) -> None:
    """The entry, else a group by priority, else its domain, else a parent: alike for address and login."""
    site = Site(
        policy(sender="check_sender_access directory:access", client="check_sasl_access directory:access"),
        entries,
    )
    assert expected == site.action(sender="amy@my.domain", policy_context="default/sender")
    login = site.action(login="amy@my.domain", policy_context="default/client")
    assert expected == login


def as_recipient(one: Entry) -> Entry:
    """The same entry with the attributes for recipients."""
    renamed = {name.replace("sender", "recipient"): values for name, values in one.items()}
    return Entry(one.dn, renamed)


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ([person("amy", smtpdSenderAccess="REJECT own"), carrying("g", "group"), DOMAIN], "REJECT own"),
        ([person("amy"), carrying("g", "group"), DOMAIN], "REJECT group"),
        ([person("amy"), DOMAIN, PARENT], "REJECT domain"),
        ([PARENT], "REJECT parent"),
        ([person("amy"), carrying("a", "two", "2"), carrying("b", "one", "1")], "REJECT one"),
    ],
)
def test_directory_access_of_recipients(entries: Entries, expected: str) -> None:
    """Recipients have attributes of their own, in the same order."""
    site = Site(
        policy(recipient="check_recipient_access directory:access"), [as_recipient(one) for one in entries]
    )
    assert expected == site.action(recipient="Amy@my.domain")


@pytest.mark.parametrize(
    ("login", "entries", "expected"),
    [
        pytest.param("amy", [person("amy", smtpdSenderAccess="REJECT own")], "REJECT own", id="by login"),
        pytest.param("amy", [person("amy"), DOMAIN], "REJECT domain", id="domain of its primary address"),
        pytest.param(
            "amy",
            [person("amy", "amy@my.domain", "amy@other.example"), DOMAIN],
            "REJECT domain",
            id="the first",
        ),
        pytest.param(
            "amy", [person("amy", "amy@other.example", "amy@my.domain"), DOMAIN], "DUNNO", id="the first only"
        ),
        pytest.param("zoe", [DOMAIN], "DUNNO", id="a login without entry has no domain"),
        pytest.param("zoe@my.domain", [DOMAIN], "REJECT domain", id="but what stands behind its @"),
        pytest.param(
            "amy@other.example", [person("amy", "amy@other.example"), DOMAIN], "DUNNO", id="@ before address"
        ),
        pytest.param(
            "amy@my.domain",
            [
                person("amy", "a@x.example", smtpdSenderAccess="REJECT address"),
                entry("cn=l", uid="amy@my.domain", smtpdSenderAccess="REJECT login"),
            ],
            "REJECT login",
            id="a login attribute",
        ),
        pytest.param(
            "amy@my.domain",
            [
                person("amy", "amy@my.domain", smtpdSenderAccess="REJECT address"),
                entry("cn=l", uid="amy@my.domain", smtpdSenderAccess="REJECT login"),
            ],
            "REJECT login",
            id="a login attribute before a mail attribute",
        ),
        pytest.param(
            "amy",
            [person("x", "amy@my.domain", smtpdSenderAccess="REJECT address")],
            "DUNNO",
            id="without @ no mail attribute",
        ),
        pytest.param(
            "amy", [person("amy"), entry("cn=l", uid="amy")], LOOKUP_FAILURE, id="two entries with one login"
        ),
        pytest.param(
            "amy",
            [person("amy", smtpdSenderAccess="OK"), entry("cn=l", uid="amy", smtpdSenderAccess="OK")],
            LOOKUP_FAILURE,
            id="two entries with one login that agree",
        ),
        pytest.param(
            "x@my.domain",
            [person("amy", "x@my.domain"), person("bob", "x@my.domain")],
            LOOKUP_FAILURE,
            id="two entries with a login's address",
        ),
    ],
)
def test_directory_access_of_logins(login: str, entries: Entries, expected: str) -> None:
    """A login belongs to the entry with that login, else, with an @, to that with the address."""
    assert expected == answer("check_sasl_access directory:access", entries, login=login)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        pytest.param(("OK", "OK"), "DUNNO", id="agree"),
        pytest.param(("REJECT no", "REJECT no"), "REJECT no", id="agree to refuse"),
        pytest.param(("OK", "REJECT"), LOOKUP_FAILURE, id="disagree"),
        pytest.param(("OK", ""), LOOKUP_FAILURE, id="one says nothing"),
    ],
)
def test_several_entries_with_one_address(values: tuple[str, str], expected: str) -> None:
    """Several entries with one address are each asked: equal answers hold, different ones are unavailable."""
    entries = [
        person(uid, "x@my.domain", **({"smtpdSenderAccess": value} if value else {}))
        for uid, value in zip(("amy", "bob"), values, strict=True)
    ]
    assert expected == answer("check_sender_access directory:access", entries, sender="x@my.domain")


@pytest.mark.parametrize(
    ("sender", "found"),
    [
        ("amy@my.domain", True),
        ("amy+x@my.domain", True),
        ("AMY+X@MY.DOMAIN", True),
        ("amy-x@my.domain", False),
        ("xamy@my.domain", False),
        ("amy@notmy.domain", False),
        ("amy@my.domain.evil.example", False),
        ("ａｍｙ@my.domain", False),
        ("", False),
    ],
)
def test_owner_of_an_address(sender: str, found: bool) -> None:
    """An address belongs to the entry that has it, then without its extension; the null sender to none."""
    settings = {"recipient": "check_sender_access directory:access", "smtpdRecipientDelimiter": "+"}
    site = Site(policy(**settings), person("amy", smtpdSenderAccess="REJECT amy"))
    assert ("REJECT amy" if found else "DUNNO") == site.action(sender=sender)


def test_with_extension_first() -> None:
    """An entry that has the address with its extension comes first."""
    entries = [
        person("amy", smtpdSenderAccess="REJECT plain"),
        person("bob", "amy+x@my.domain", smtpdSenderAccess="REJECT extended"),
    ]
    settings = {"recipient": "check_sender_access directory:access", "smtpdRecipientDelimiter": "+"}
    assert "REJECT extended" == Site(policy(**settings), entries).action(sender="amy+x@my.domain")


@pytest.mark.parametrize(
    ("spelled", "address"),
    [
        ('"amy"@my.domain', "amy@my.domain"),
        ('"john doe"@my.domain', "john doe@my.domain"),
        ("john doe@my.domain", "john doe@my.domain"),
        ("Amy@MY.domain", "amy@my.domain"),
        ("STRASSE@my.domain", "straße@my.domain"),
    ],
)
def test_spelling_in_the_directory(spelled: str, address: str) -> None:
    """An entry may have an address quoted, unquoted, in any case."""
    one = person("amy", spelled, smtpdSenderAccess="REJECT found")
    assert "REJECT found" == answer("check_sender_access directory:access", one, sender=address)


@pytest.mark.parametrize("attribute", ["mail", "mailAlternateAddress", "mailLocalAddress"])
def test_mapped_mail_attributes(attribute: str) -> None:
    """Each of the mapped mail attributes holds addresses."""
    values: dict[str, Values] = {attribute: "x@my.domain", "smtpdSenderAccess": "REJECT found"}
    one = entry("cn=x", **values)
    assert "REJECT found" == answer("check_sender_access directory:access", one, sender="x@my.domain")


@pytest.mark.parametrize(
    "value",
    [
        "FILTER x:y",
        "REDIRECT a@b",
        "BCC a@b",
        "DISCARD",
        "PREPEND X: y",
        "filter x:y",
        "Discard text",
        "FILTER bad",
    ],
)
@pytest.mark.parametrize(
    "where", ["smtpdSenderAccess", "smtpdMemberSenderAccess", "domain"], ids=["entry", "group", "domain"]
)
def test_whole_message_actions_in_attributes(value: str, where: str) -> None:
    """What acts on the whole message is an error in an attribute of a user, list or domain."""
    entries = {
        "smtpdSenderAccess": [person("amy", smtpdSenderAccess=value)],
        "smtpdMemberSenderAccess": [person("amy"), group("g", [AMY], smtpdMemberSenderAccess=value)],
        "domain": [entry("dc=my", associatedDomain="my.domain", smtpdSenderAccess=value)],
    }
    assert CONFIGURATION_ERROR == answer(
        "check_sender_access directory:access", entries[where], sender="amy@my.domain"
    )


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("HOLD", "HOLD"),
        ("HOLD wait", "HOLD wait"),
        ("redirected", "REDIRECT a@b.example"),
        ("INFO x", "DUNNO"),
        ("DEFER_IF_PERMIT 4.1.8 x", "DEFER_IF_PERMIT 4.1.8 x"),
        ("reject", "REJECT"),
        ("nosuch", CONFIGURATION_ERROR),
        ("ldap:x", CONFIGURATION_ERROR),
        ("550 no", "550 no"),
    ],
)
def test_other_actions_in_attributes(value: str, expected: str) -> None:
    """HOLD is allowed there, and so is a class of the policy that does more."""
    entries = [
        person("amy", smtpdSenderAccess=value),
        *classes(redirected="check_client_access static:{REDIRECT a@b.example}"),
    ]
    assert expected == answer("check_sender_access directory:access", entries, sender="amy@my.domain")


def test_whole_message_actions_in_tables() -> None:
    """From entries under policy_base they count."""
    assert "FILTER x:y" == answer("check_sender_access ldap:t", tables(t=["a@b.example FILTER x:y"]))
    action = members(AMY, action="REDIRECT a@b.example")
    assert "REDIRECT a@b.example" == answer("check_sender_access ldap:t", action, sender="amy@my.domain")


@pytest.mark.parametrize("order", [("plus", "default"), ("default", "plus")])
def test_conclusions_are_one_policy_s(order: tuple[str, str]) -> None:
    """What was concluded for one policy does not answer for another that reads addresses differently."""
    listed = "check_sender_access directory:access"
    policies = [policy(recipient=listed), policy("plus", recipient=listed, smtpdRecipientDelimiter="+")]
    site = Site(policies, person("amy", smtpdSenderAccess="REJECT amy"))
    known: dict[Lookup, Outcome] = {}
    facts = Facts(known.get)
    actions = {}
    for context in order * 2:
        attributes = {**REQUEST, "sender": "amy+x@my.domain", "policy_context": context}
        while isinstance(
            decision := site.evaluator.evaluate(Request.from_attributes(attributes), facts), Lacking
        ):
            known.update(site.ask(decision.lookups))
        actions[context] = decision.action
    assert {"default": "DUNNO", "plus": "REJECT amy"} == actions


@pytest.mark.parametrize(
    ("entries", "path"),
    [
        pytest.param(
            [person("amy", smtpdSenderAccess="nosuch")],
            [AMY, "unknown restriction or class 'nosuch'"],
            id="class named by a user",
        ),
        pytest.param(
            [person("amy", smtpdSenderAccess="c"), *classes(c="permit_mynetworks, nosuch")],
            [AMY, dn("cn=c,ou=classes,ou=policy"), "unknown restriction or class 'nosuch'"],
            id="name inside a class",
        ),
        pytest.param(
            [group("g", [AMY], smtpdMemberSenderAccess="nosuch"), person("amy")],
            [dn("cn=g,ou=groups"), "unknown restriction or class 'nosuch'"],
            id="class named by a group",
        ),
        pytest.param(
            [person("amy", smtpdSenderAccess="DISCARD")],
            [AMY, "DISCARD acts on whole messages"],
            id="an action that is not allowed there",
        ),
    ],
)
@pytest.mark.parametrize("check", ["check_sender_access", "check_sasl_access"])
def test_origin_of_an_error(check: str, entries: Entries, path: list[str]) -> None:
    """The error tells the entries that led there, also once the conclusion is known from before."""
    site = Site(policy(recipient=f"{check} directory:access", smtpdMynetworks="10.0.0.0/8"), entries)
    sasl = {"sasl_username": "amy", "sasl_method": "PLAIN"}
    request = Request.from_attributes({**REQUEST, **sasl, "sender": "amy@my.domain"})
    known: dict[Lookup, Outcome] = {}
    while isinstance(decision := site.evaluator.evaluate(request, Facts(known.get)), Lacking):
        known.update(site.ask(decision.lookups))
    facts = Facts(known.get)
    errors = []
    for _ in range(2):
        again = site.evaluator.evaluate(request, facts)
        assert not isinstance(again, Lacking)
        assert CONFIGURATION_ERROR == again.action
        errors.append(again.error)
    assert facts.derived
    assert [decision.error] * 2 == errors
    assert decision.error.startswith(f"{dn('cn=default,ou=policy')}: recipient: {check} directory:access: ")
    places = [decision.error.find(part) for part in path]
    assert -1 not in places, decision.error
    assert sorted(places) == places


# ---------------------------------------------------------------- directory:nobody

OURS = {
    "smtpdLocalDomains": "inline:{my.domain=x, relay.example=x, caught.example=x}",
    "smtpdMyorigin": "my.domain",
}
SOMEBODY = [
    person("amy", "amy@my.domain", "amy@x.example", "@caught.example"),
    group("list", mail="list@my.domain"),
]


@pytest.mark.parametrize(
    ("login", "expected"),
    [
        ("amy", "DUNNO"),
        ("AMY", "DUNNO"),
        ("amy@my.domain", "DUNNO"),
        ("amy@corp", "DUNNO"),
        ("amy@other", "REJECT"),
        ("ghost", "REJECT"),
        ("ghost@my.domain", "REJECT"),
        ("ghost@not-asked.example", "REJECT"),
        pytest.param("", "DUNNO", id="no login"),
    ],
)
def test_nobody_s_login(login: str, expected: str) -> None:
    """A login that belongs to no entry is refused; that an address is not asked for makes it nobody's."""
    listed = policy(recipient="check_sasl_access directory:nobody")
    site = Site(listed, SOMEBODY, login_realms=["corp"], domains=["my.domain"])
    assert expected == site.action(login=login)


@pytest.mark.parametrize(
    ("sender", "expected"),
    [
        ("amy@my.domain", "DUNNO"),
        ("Amy+x@My.Domain.", "DUNNO"),
        ("amy%my.domain", "DUNNO"),
        ("amy", "DUNNO"),
        ("list@my.domain", "DUNNO"),
        ("ghost@my.domain", "REJECT"),
        ("ghost+x@my.domain", "REJECT"),
        ("ghost%my.domain@my.domain", "REJECT"),
        ("ghost", "REJECT"),
        pytest.param("", "DUNNO", id="the null sender"),
        pytest.param("ghost@foreign.example", "DUNNO", id="not ours"),
        pytest.param("ghost@sub.my.domain", "DUNNO", id="a bare domain has no subdomains there"),
        pytest.param("ghost@relay.example", "DUNNO", id="not asked for"),
        pytest.param("ghost@caught.example", "DUNNO", id="a catch-all has it"),
    ],
)
def test_nobody_s_address(sender: str, expected: str) -> None:
    """A sender address of ours that belongs to no entry is refused, unless it is not asked for."""
    listed = policy(recipient="check_sender_access directory:nobody", smtpdRecipientDelimiter="+", **OURS)
    site = Site(listed, SOMEBODY, domains=["my.domain", "caught.example"])
    assert expected == site.action(sender=sender)


def test_nobody_in_a_class() -> None:
    """As part of a class, and in the list where it means the check of that list."""
    site = Site(policy(sender="directory:nobody", recipient="known_logins", **OURS), SOMEBODY,
                classes(known_logins="check_sasl_access directory:nobody"))  # fmt: skip
    assert ["REJECT", "REJECT", "DUNNO"] == [
        site.action(sender="x@my.domain"),
        site.action(sender="amy@my.domain", login="ghost"),
        site.action(sender="amy@my.domain", login="amy"),
    ]


@pytest.mark.parametrize("kind", ["login", "mail"])
def test_nobody_in_an_outage(kind: str) -> None:
    """Whom nobody can ask about is not nobody."""
    listed = "check_sasl_access directory:nobody, check_sender_access directory:nobody"
    site = Site(policy(recipient=listed, **OURS), SOMEBODY, missed=lambda lookup: lookup[0] == kind)
    assert LOOKUP_FAILURE == site.action(login="ghost@my.domain", sender="ghost@my.domain")


def test_nobody_without_local_domains() -> None:
    """Which addresses are ours has to be known: a policy error, by way of a class an error when reached."""
    direct = Site(policy(recipient="check_sender_access directory:nobody"), SOMEBODY)
    asks = "check_sender_access directory:nobody asks which addresses are ours, expected smtpdLocalDomains"
    told = [fault.what.partition(": ")[2] for fault in direct.policies.faults]
    assert [f"smtpdRecipientRestrictions: {asks}"] == told
    by_class = Site(policy(recipient="c"), classes(c="check_sender_access directory:nobody"))
    assert CONFIGURATION_ERROR == by_class.action(sender="amy@my.domain")
    assert "DUNNO" == Site(policy(recipient="check_sasl_access directory:nobody"), SOMEBODY).action(
        login="amy"
    )


def test_nobody_is_asked_for_at_once() -> None:
    """What is behind it is asked for in the same round."""
    listed = "check_sasl_access directory:nobody, check_sender_access directory:nobody, ldap:t"
    site = Site(policy(recipient=listed, **OURS), SOMEBODY, table("t", smtpdAccessMember=AMY))
    site.action(login="amy", sender="amy@my.domain")
    mails = ("amy@my.domain", "@my.domain", REQUEST["recipient"])
    assert {("login", "amy"), *(("mail", one) for one in mails)} == set(site.rounds[0])


# ---------------------------------------------------------------- recipient:

TO = "all@my.domain"
Q = {"recipient": TO}


def the_list(members: Sequence[str] = (), **attributes: Values) -> Entry:
    """The list that mail goes to."""
    return group("all", members, mail=TO, **attributes)


def one_of(name: str, *entries: Entry | Sequence[Entry], **attributes: str) -> str | None:
    """Whether `recipient:NAME` finds the sender: NEXT stands for not."""
    listed = f"check_sender_access recipient:{name}, reject"
    return answer(listed, *entries, **{**Q, **attributes})


SENDERS = [
    pytest.param("amy@my.domain", True, id="address"),
    pytest.param("Amy.A@my.domain", True, id="another address"),
    pytest.param("bob@my.domain", False, id="somebody else"),
    pytest.param("zoe@my.domain", False, id="nobody"),
    pytest.param("", False, id="null sender"),
    pytest.param("amy@my.domain.evil.example", False, id="evil domain"),
]

WAYS = {
    "members": the_list([AMY]),
    "owners": the_list(owner=AMY),
    "moderators": the_list(smtpdModerator=AMY),
    "allowed": the_list(smtpdAllowedSenderDN=AMY),
}
NESTED_WAYS = {
    "members": the_list([dn("cn=h,ou=groups")]),
    "owners": the_list(owner=dn("cn=h,ou=groups")),
    "moderators": the_list(smtpdModerator=dn("cn=h,ou=groups")),
    "allowed": the_list(smtpdAllowedSenderDN=dn("cn=h,ou=groups")),
}


@pytest.mark.parametrize("name", WAYS)
@pytest.mark.parametrize("nested", [False, True], ids=["direct", "nested"])
@pytest.mark.parametrize(("sender", "found"), SENDERS)
def test_recipient_tables(name: str, nested: bool, sender: str, found: bool) -> None:
    """Members, owners, moderators and allowed senders of the list, directly or through groups."""
    target = (NESTED_WAYS if nested else WAYS)[name]
    entries = [target, *PEOPLE, group("h", [dn("cn=i,ou=groups")]), group("i", [AMY, dn("cn=h,ou=groups")])]
    assert ("DUNNO" if found else "reject,") == one_of(name, entries, sender=sender)


@pytest.mark.parametrize("name", WAYS)
@pytest.mark.parametrize(
    ("login", "found"),
    [("amy", True), ("AMY", True), ("amy.a@my.domain", True), ("bob", False), ("zoe", False)],
)
def test_recipient_tables_by_login(name: str, login: str, found: bool) -> None:
    """A login is tested as its entry, whatever the envelope says."""
    listed = f"check_sasl_access recipient:{name}, reject"
    actual = answer(listed, WAYS[name], PEOPLE, **Q, login=login, sender="bob@my.domain")
    assert ("DUNNO" if found else "reject,") == actual


@pytest.mark.parametrize("name", [*WAYS, "denied"])
def test_no_login_is_no_member(name: str) -> None:
    """Who merely says so in the envelope is not a member to check_sasl_access."""
    listed = f"check_sasl_access recipient:{name}, reject"
    assert "reject," == answer(listed, WAYS["members"], PEOPLE, **Q, sender="amy@my.domain")


@pytest.mark.parametrize("name", [*WAYS, "denied"])
@pytest.mark.parametrize("recipient", ["", "nobody@my.domain"])
def test_no_recipient(name: str, recipient: str) -> None:
    """Without a recipient, or for one without an entry, nothing is found."""
    site = Site(
        policy(sender=f"check_sender_access recipient:{name}, check_sasl_access recipient:{name}"),
        WAYS["members"],
        PEOPLE,
    )
    assert "DUNNO" == site.action(
        protocol_state="MAIL", sender="amy@my.domain", login="amy", recipient=recipient
    )


PATTERNS = [
    pytest.param("amy@my.domain", "amy@my.domain", True, id="address"),
    pytest.param("AMY@My.Domain", "amy@my.domain", True, id="folded"),
    pytest.param("amy@my.domain", "amy+x@my.domain", True, id="without extension"),
    pytest.param("amy+x@my.domain", "amy+x@my.domain", True, id="with extension"),
    pytest.param("my.domain", "amy@my.domain", True, id="domain"),
    pytest.param("domain", "amy@my.domain", True, id="parent"),
    pytest.param("amy@", "amy@my.domain", True, id="local part"),
    pytest.param('"john doe"@my.domain', "john doe@my.domain", True, id="quoted"),
    pytest.param("my.domain", "amy@notmy.domain", False, id="label by label"),
    pytest.param("my.domain", "amy@my.domain.evil.example", False, id="not the beginning"),
    pytest.param("*", "amy@my.domain", False, id="no wildcard"),
    pytest.param("@my.domain", "amy@my.domain", False, id="no @domain"),
    pytest.param("<>", "amy@my.domain", False, id="null sender's key"),
    pytest.param("<>", "", False, id="the null sender is never found"),
]


@pytest.mark.parametrize(("pattern", "sender", "found"), PATTERNS)
@pytest.mark.parametrize("name", ["allowed", "denied"])
def test_patterns(name: str, pattern: str, sender: str, found: bool) -> None:
    """Patterns are access(5) keys of the address; allowed is OK, denied is REJECT."""
    target = the_list(**{f"smtpd{name.title()}Sender": pattern})
    settings = {"recipient": f"check_sender_access recipient:{name}, defer", "smtpdRecipientDelimiter": "+"}
    hit = "DUNNO" if name == "allowed" else "REJECT"
    assert (hit if found else "defer,") == Site(policy(**settings), target).action(
        recipient=TO, sender=sender
    )


@pytest.mark.parametrize(
    ("pattern", "login", "found"),
    [
        ("amy", "amy", True),
        ("amy@my.domain", "amy", True),
        ("amy.a@my.domain", "amy", True),
        ("my.domain", "amy", True),
        ("amy@", "amy", True),
        ("bob@my.domain", "amy", False),
        ("amy", "bob", False),
        ("zoe", "zoe", True),
        ("zoe@x.example", "zoe@x.example", True),
        ("x.example", "zoe@x.example", True),
        ("amy", "amy@my.domain", False),
    ],
)
@pytest.mark.parametrize("name", ["allowed", "denied"])
def test_patterns_for_logins(name: str, pattern: str, login: str, found: bool) -> None:
    """For a login they are those of the login and of all addresses of its entry."""
    target = the_list(**{f"smtpd{name.title()}Sender": pattern})
    hit = "DUNNO" if name == "allowed" else "REJECT"
    actual = answer(f"check_sasl_access recipient:{name}, defer", target, PEOPLE, **Q, login=login)
    assert (hit if found else "defer,") == actual


@pytest.mark.parametrize(("sender", "found"), SENDERS)
def test_denied(sender: str, found: bool) -> None:
    """Who belongs to an entry or group in smtpdDeniedSenderDN is refused, others go on."""
    target = the_list(smtpdDeniedSenderDN=dn("cn=h,ou=groups"))
    actual = answer(
        "check_sender_access recipient:denied", target, PEOPLE, group("h", [AMY]), **Q, sender=sender
    )
    assert ("REJECT" if found else "DUNNO") == actual


def test_patterns_and_dns() -> None:
    """Patterns and DNs are put together."""
    target = the_list(smtpdAllowedSender="b.example", smtpdAllowedSenderDN=AMY)
    senders = ["x@b.example", "amy@my.domain", "bob@my.domain"]
    assert ["DUNNO", "DUNNO", "reject,"] == [one_of("allowed", target, PEOPLE, sender=one) for one in senders]


def test_a_list_that_is_no_group() -> None:
    """A user can have owners and allowed senders as well as a list."""
    target = person("boss", owner=AMY)
    assert "DUNNO" == answer(
        "check_sender_access recipient:owners, reject",
        target,
        PEOPLE,
        sender="amy@my.domain",
        recipient="boss@my.domain",
    )


def test_the_entry_itself_is_no_member() -> None:
    """A list is not a member of itself, and its own address is not a member's."""
    assert "reject," == one_of("members", the_list([AMY]), PEOPLE, sender=TO)


def test_recipient_in_both_forms() -> None:
    """The entry of the recipient is that of the address Postfix would deliver to."""
    for recipient in ("all+x@my.domain", "all%my.domain@my.domain", "my.domain!all", "all@my.domain.", "ALL"):
        settings = {
            "recipient": "check_sender_access recipient:members, reject",
            "smtpdRecipientDelimiter": "+",
            "smtpdMyorigin": "my.domain",
        }
        site = Site(policy(**settings), the_list([AMY]), PEOPLE)
        senders = ["amy@my.domain", "bob@my.domain"]
        assert ["DUNNO", "reject,"] == [site.action(recipient=recipient, sender=one) for one in senders]


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        ([the_list([AMY]), group("all2", [AMY, BOB], mail=TO)], "DUNNO"),
        ([the_list([AMY]), group("all2", [BOB], mail=TO)], LOOKUP_FAILURE),
    ],
)
def test_two_lists_with_one_address(targets: Entries, expected: str) -> None:
    """Two lists with one address are each asked; where they differ nobody knows."""
    assert expected == one_of("members", targets, PEOPLE, sender="amy@my.domain")


@pytest.mark.parametrize("name", ["owners", "allowed"])
def test_bad_dn(name: str) -> None:
    """A value that is no DN closes: it is unavailable, not absent."""
    target = the_list(**{"owner" if name == "owners" else "smtpdAllowedSenderDN": "nonsense"})
    assert LOOKUP_FAILURE == one_of(name, target, PEOPLE, sender="amy@my.domain")


def test_one_class_serves_every_list() -> None:
    """`members_only` on two lists lets in the members of each."""
    lists = [
        group("a", [AMY], mail="a@my.domain", smtpdRecipientAccess="members_only"),
        group("b", [BOB], mail="b@my.domain", smtpdRecipientAccess="members_only"),
    ]
    site = Site(
        policy(recipient="check_recipient_access directory:access"),
        classes(members_only="check_sasl_access recipient:members, reject"),
        lists,
        PEOPLE,
    )
    table_ = {
        (one, login): site.action(recipient=f"{one}@my.domain", login=login)
        for one in "ab"
        for login in ("amy", "bob")
    }
    assert {
        ("a", "amy"): "DUNNO",
        ("a", "bob"): "reject,",
        ("b", "amy"): "reject,",
        ("b", "bob"): "DUNNO",
    } == table_
    assert "reject," == site.action(recipient="a@my.domain", sender="amy@my.domain")


# ---------------------------------------------------------------- cidr


@pytest.mark.parametrize(
    ("listed", "expected"),
    [
        pytest.param("check_client_access ldap:t", "REJECT net", id="client"),
        pytest.param("check_reverse_client_hostname_access ldap:t", "REJECT net", id="reverse"),
        pytest.param("check_helo_access ldap:t", "DUNNO", id="a name is no address"),
        pytest.param("check_sender_access ldap:t", "DUNNO", id="nor is a mail address"),
        pytest.param("check_sasl_access ldap:t", "DUNNO", id="nor a login"),
    ],
)
def test_cidr(listed: str, expected: str) -> None:
    """A cidr table is tried with the whole key only."""
    site = Site(policy(recipient=listed), table("t", "203.0.113.0/24 REJECT net", smtpdAccessType="cidr"))
    assert expected == site.action(login="amy")


@pytest.mark.parametrize(
    ("client", "expected"),
    [("203.0.113.5", "REJECT second"), ("198.51.100.1", "REJECT first"), ("2001:db8::1", "DUNNO")],
)
def test_negated_cidr_line(client: str, expected: str) -> None:
    """A network behind an exclamation mark stands for all other addresses of its family (cidr_table(5))."""
    lines = table(
        "t", "{1} !203.0.113.0/24 REJECT first", "{2} 203.0.113.0/24 REJECT second", smtpdAccessType="cidr"
    )
    site = Site(policy(recipient="check_client_access ldap:t"), lines)
    assert expected == site.action(client_address=client, client_name="unknown")


def test_cidr_with_a_helo_address() -> None:
    """A HELO name that is an address is looked up as one, a literal is not."""
    site = Site(
        policy(recipient="check_helo_access ldap:t"),
        table("t", "192.0.2.0/24 REJECT", smtpdAccessType="cidr"),
    )
    assert ["REJECT", "DUNNO"] == [site.action(helo_name=name) for name in ("192.0.2.1", "[192.0.2.1]")]


# ---------------------------------------------------------------- one question for all


def test_everything_is_asked_at_once() -> None:
    """What the first round lacks is all that the whole request can need without having seen an entry."""
    site = Site(
        policy(
            client="check_sasl_access directory:access",
            sender="check_sender_access directory:access, check_sender_access ldap:t",
            recipient="check_sender_access recipient:members, check_recipient_access directory:access",
        ),
        members(AMY, *PEOPLE, url=URL),
        the_list([AMY]),
    )
    site.action(sender="amy@my.domain", recipient=TO, login="bob")
    first = set(site.rounds[0])
    expected = {
        ("login", "bob"),
        ("mail", "amy@my.domain"),
        ("mail", TO),
        ("mail", "@my.domain"),  # whoever has the rest of the domain
        *(("domain", name) for name in ("my.domain", "domain")),
        *(("url", URL, key) for key in ("amy@my.domain", "my.domain", "domain", "amy@")),
    }
    assert expected == first
    assert len(site.rounds) <= 3


def test_a_list_and_who_writes_are_asked_for_together() -> None:
    """Whom the list names is not waited for before the sender's own entry is asked for."""
    site = Site(policy(recipient="check_sender_access recipient:moderators, reject"), the_list([AMY]))
    site.action(sender="amy@my.domain", recipient=TO)
    assert {("mail", "amy@my.domain"), ("mail", TO)} <= set(site.rounds[0])


def test_nothing_is_asked_without_need() -> None:
    """Tables of lines need no lookup at all."""
    site = Site(
        policy(recipient="check_sender_access ldap:t, check_client_access ldap:t"), tables(t=["x OK"])
    )
    site.action()
    assert [] == site.rounds


def test_cal_is_nobody() -> None:
    """The people of these tests: CAL belongs to no group."""
    assert CAL == PEOPLE[2].dn
