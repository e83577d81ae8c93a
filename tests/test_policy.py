"""Policies, classes and tables from entries: syntax, faults, last good forms, joined tables, revision."""

from collections.abc import Sequence

import pytest

from ldappolicy.entry import Entry
from ldappolicy.errors import InputError
from ldappolicy.policy import (
    Broken,
    Item,
    Policy,
    PolicySet,
    RestrictionClass,
    Table,
    TableName,
    TablePart,
    parse_line,
    parse_list,
    read_policies,
)
from tests.language import (
    BASES,
    CONFIGURATION_ERROR,
    Site,
    Values,
    classes,
    dn,
    entry,
    policy,
    restriction_class,
    table,
    tables,
)

# ---------------------------------------------------------------- lists


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("permit", (Item("permit"),), id="one"),
        pytest.param(
            "permit, reject\tdefer\n", (Item("permit"), Item("reject"), Item("defer")), id="separators"
        ),
        pytest.param(
            "check_sender_access ldap:a", (Item("check_sender_access", TableName("ldap", "a")),), id="check"
        ),
        pytest.param(
            "CHECK_Sender_Access ldap:a", (Item("CHECK_Sender_Access", TableName("ldap", "a")),), id="case"
        ),
        pytest.param(
            "check_sender_access { ldap:a }",
            (Item("check_sender_access", TableName("ldap", "a")),),
            id="braces",
        ),
        pytest.param(
            "check_sender_access static:{REJECT a b}, permit",
            (Item("check_sender_access", TableName("static", "{REJECT a b}")), Item("permit")),
            id="braces inside a table",
        ),
        pytest.param("ldap:a", (Item("", TableName("ldap", "a")),), id="bare table"),
        pytest.param(
            "reject_rbl_client zen.example=127.0.0.[2..4]",
            (Item("reject_rbl_client", argument="zen.example=127.0.0.[2..4]"),),
            id="rbl",
        ),
        pytest.param("sleep 1", (Item("sleep", argument="1"),), id="sleep"),
        pytest.param("my_class", (Item("my_class"),), id="a name that is not known is a name"),
    ],
)
def test_parse_list(text: str, expected: tuple[Item, ...]) -> None:
    """A list is names, some with their argument."""
    assert expected == parse_list(text)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("check_sender_access", id="check without table"),
        pytest.param("permit, reject_rbl_client", id="rbl without domain"),
        pytest.param("sleep", id="sleep without number"),
        pytest.param("check_policy_service", id="policy service without anything"),
        pytest.param("check_sender_access insiders", id="no type"),
        pytest.param("check_sender_access :insiders", id="empty type"),
        pytest.param("permit {reject", id="open brace"),
        pytest.param("permit } reject", id="closing brace"),
        pytest.param("check_client_access directory:access", id="directory:access for a client"),
        pytest.param("check_helo_access directory:access", id="directory:access for HELO"),
        pytest.param("check_recipient_access recipient:members", id="recipient: for a recipient"),
        pytest.param("check_ccert_access recipient:owners", id="recipient: for a certificate"),
        pytest.param("check_etrn_access recipient:allowed", id="recipient: for ETRN"),
        pytest.param("check_reverse_client_hostname_access recipient:denied", id="recipient: for a name"),
    ],
)
def test_list_that_does_not_parse(text: str) -> None:
    """Unbalanced braces, a missing argument and a table that cannot serve the check are policy errors."""
    with pytest.raises(InputError):
        parse_list(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("permit {reject", "unbalanced '{' at character 8", id="open brace"),
        pytest.param("permit, } reject", "unbalanced '}' at character 9", id="closing brace"),
        pytest.param(
            "permit, check_sender_access",
            "check_sender_access is followed by nothing, expected type:table at character 9",
            id="no table",
        ),
        pytest.param(
            "permit,\n reject_rbl_client\n",
            "reject_rbl_client is followed by nothing, expected an argument at character 10",
            id="no argument",
        ),
        pytest.param(
            "check_sender_access insiders, permit",
            "'insiders' is no table, expected type:name at character 21",
            id="what is no table",
        ),
        pytest.param(
            "check_sender_access { insiders }",
            "'insiders' is no table, expected type:name at character 21",
            id="what is no table in braces",
        ),
        pytest.param(
            "permit, :x", "':x' is no table, expected type:name at character 9", id="what is no table alone"
        ),
        pytest.param(
            "permit, check_helo_access directory:access, reject",
            "'check_helo_access directory:access' checks the helo, "
            "but directory:access serves recipient, sasl, sender checks at character 27",
            id="a table that does not fit",
        ),
    ],
)
def test_position_of_what_does_not_parse(text: str, expected: str) -> None:
    """The error tells attribute and character, of a policy as of a class."""
    site = Site(policy(), policy("other", recipient=text), restriction_class("c", text))
    assert {
        f"error: {dn('cn=other,ou=policy')}: smtpdRecipientRestrictions: {expected}",
        f"error: {dn('cn=c,ou=classes,ou=policy')}: smtpdRestrictions: {expected}",
    } == {str(fault) for fault in site.policies.faults}


@pytest.mark.parametrize(
    ("line", "key", "action"),
    [
        ("amy@my.domain OK", "amy@my.domain", "OK"),
        ("AMY@my.domain\tREJECT  go away ", "amy@my.domain", "REJECT  go away"),
        ('"john doe"@b REJECT', '"john doe"@b', "REJECT"),
        ('"a\\" b"@c REJECT', '"a\\" b"@c', "REJECT"),
        ("2001:db8: REJECT", "2001:db8:", "REJECT"),
        ("<> REJECT", "<>", "REJECT"),
        ("Straße@b OK", "strasse@b", "OK"),
    ],
)
def test_parse_line(line: str, key: str, action: str) -> None:
    """A line is a key, white space, an action; white space in a key stands inside double quotes."""
    assert (key, action) == (parse_line(line)[0], parse_line(line)[1].text)


@pytest.mark.parametrize("line", ["amy@my.domain", "", '"john doe@b REJECT', " x "])
def test_line_without_action(line: str) -> None:
    """A line without an action is a policy error."""
    with pytest.raises(InputError):
        parse_line(line)


# ---------------------------------------------------------------- entries that do not parse


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({"recipient": "permit {"}, id="list"),
        pytest.param({"recipient": ["permit", "reject"]}, id="two lists"),
        pytest.param({"smtpdMynetworks": "192.0.2.1/24"}, id="network"),
        pytest.param({"smtpdMynetworks": "ldap:nets"}, id="table for a network"),
        pytest.param({"client": "directory:access"}, id="bare directory:access for a client"),
        pytest.param({"recipient": "recipient:members"}, id="bare recipient: for a recipient"),
        pytest.param({"smtpdLocalDomains": "local_domains"}, id="local domains"),
        pytest.param({"smtpdParentDomainMatchesSubdomains": "maybe"}, id="boolean"),
    ],
)
def test_broken_policy(settings: dict[str, Values]) -> None:
    """A policy that never parsed is a server configuration error for whoever asks it, and only for those."""
    site = Site(policy(recipient="reject"), policy("other", **settings))
    assert CONFIGURATION_ERROR == site.action(policy_context="other")
    assert "reject," == site.action()
    assert [True] == [fault.error for fault in site.policies.faults]


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param(restriction_class("c", "permit {"), id="braces"),
        pytest.param(restriction_class("c", "check_sender_access"), id="argument"),
        pytest.param(restriction_class("c", ""), id="empty"),
    ],
)
def test_broken_class(broken: Entry) -> None:
    """A class that never parsed is an error where it is reached, and nowhere else."""
    site = Site(policy(recipient="c", sender="permit, c"), broken)
    assert CONFIGURATION_ERROR == site.action()
    assert "DUNNO" == site.action(policy_context="default/sender")


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param(table("t", "x"), id="line without action"),
        pytest.param(table("t", "a OK", "A REJECT"), id="one folded key, two actions"),
        pytest.param(table("t", "a OK", smtpdAccessType="regexp"), id="type"),
        pytest.param(table("t", "192.0.2.1/24 OK", smtpdAccessType="cidr"), id="network"),
        pytest.param(table("t", "192.0.2.0/24", smtpdAccessType="cidr"), id="cidr line without action"),
        pytest.param(
            table("t", "{1}192.0.2.0/24 OK", "{1}192.0.2.0/25 REJECT", smtpdAccessType="cidr"),
            id="number twice",
        ),
        pytest.param(table("t", "{x}192.0.2.0/24 OK", smtpdAccessType="cidr"), id="no number"),
        pytest.param(table("t", smtpdAccessMember="no dn"), id="no DN"),
        pytest.param(table("t", smtpdAccessURL="ldap://host/dc=example?mail"), id="URL with a host"),
        pytest.param(table("t", smtpdAccessURL="ldap:///dc=other?mail"), id="URL outside"),
        pytest.param(table("t", smtpdAccessURL="ldap:///dc=example"), id="URL without attribute"),
        pytest.param(table("t", smtpdAccessURL="ldap:///?mail"), id="URL of the root"),
        pytest.param(table("t", smtpdAccessURL="http://x/"), id="another URL"),
        pytest.param(table("t", "a OK", smtpdAccessAction=["OK", "REJECT"]), id="two actions"),
    ],
)
def test_broken_table(broken: Entry) -> None:
    """A table that never parsed is an error where it is reached: it is never an empty one."""
    site = Site(
        policy(recipient="check_sender_access ldap:t", sender="permit, check_sender_access ldap:t"), broken
    )
    assert CONFIGURATION_ERROR == site.action()
    assert "DUNNO" == site.action(policy_context="default/sender")
    assert [broken.dn] == [fault.dn for fault in site.policies.faults]


@pytest.mark.parametrize("same", [("a OK", "A OK"), ("a OK", "a  OK")])
def test_line_twice(same: tuple[str, str]) -> None:
    """Two lines that say the same are no contradiction."""
    assert () == Site(policy(), table("t", *same)).policies.faults


def test_slash_in_the_name_of_a_policy() -> None:
    """A slash separates the list in a policy_context, so no policy has one in its name."""
    name = "cn=a/b,ou=policy"
    site = Site(policy(), entry(name, objectClass="smtpdPolicy", cn="a/b", smtpdDataRestrictions="permit"))
    assert [f"{name},dc=example"] == [fault.dn for fault in site.policies.faults]


@pytest.mark.parametrize(
    "values", [{}, {"smtpdRecipientRestrictions": " , "}, {"smtpdMynetworks": "127.0.0.1"}]
)
def test_policy_without_a_list(values: dict[str, str]) -> None:
    """One that means to permit says so: an account that may not read the lists sees none."""
    found = read(entry("cn=p", objectClass="smtpdPolicy", cn="p", **values))
    text = (
        "the policy has no list that can be seen, expected at least one (permit, where all are let through)"
    )
    assert [f"error: {dn('cn=p')}: smtpdRecipientRestrictions: {text}"] == [str(one) for one in found.faults]
    assert isinstance(found.policies["p"], Broken)


def test_policy_that_lost_its_lists() -> None:
    """Its last good form stays in force."""
    before = read(policy("p", recipient="reject"))
    after = read(entry("cn=p,ou=policy", objectClass="smtpdPolicy", cn="p"), previous=before)
    assert before.policies == after.policies


# ---------------------------------------------------------------- the last good form


def read(*entries: Entry | Sequence[Entry], previous: PolicySet | None = None) -> PolicySet:
    """The set that these entries make after another."""
    flat = [one for given in entries for one in ([given] if isinstance(given, Entry) else given)]
    return read_policies(flat, BASES, previous)


def items(parsed: object) -> tuple[Item, ...]:
    """The recipient list of a policy, or the body of a class."""
    if isinstance(parsed, Policy):
        return parsed.lists["recipient"]
    assert isinstance(parsed, RestrictionClass), parsed
    return parsed.items


GOOD, BETTER = (Item("permit"),), (Item("reject"),)


def test_last_good_policy() -> None:
    """A policy that no longer parses stays as it was, is told of, and recovers."""
    first = read(policy(recipient="permit"))
    second = read(policy(recipient="permit {"), previous=first)
    third = read(policy(recipient="{"), previous=second)
    fourth = read(policy(recipient="reject"), previous=third)
    assert [GOOD, GOOD, GOOD, BETTER] == [
        items(known.policies["default"]) for known in (first, second, third, fourth)
    ]
    assert [0, 1, 1, 0] == [len(known.faults) for known in (first, second, third, fourth)]


def test_last_good_class() -> None:
    """So does a class."""
    first = read(classes(c="permit"))
    second = read(classes(c="check_sender_access"), previous=first)
    assert GOOD == items(second.classes["c"])
    assert "smtpdRestrictions" == second.faults[0].attribute


def lines(known: PolicySet, name: str = "t") -> dict[str, str]:
    """The lines of a joined table."""
    found = known.tables[name]
    assert isinstance(found, Table), found
    return {key: action.text for part in found.parts for key, action in part.lines.items()}


def test_last_good_table() -> None:
    """So does each entry of a table, while the others are read anew."""
    first = read(table("t", "a OK"), table("t", "b OK", rdn="t2"))
    second = read(table("t", "a"), table("t", "b REJECT", rdn="t2"), previous=first)
    assert {"a": "OK", "b": "REJECT"} == lines(second)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        pytest.param(
            policy(recipient="permit"),
            entry("cn=x,ou=policy", objectClass="smtpdPolicy", cn="default"),
            id="policy",
        ),
        pytest.param(
            restriction_class("default", "permit"),
            entry(
                "cn=x,ou=policy",
                objectClass="smtpdRestrictionClass",
                cn="default",
                smtpdRestrictions="reject",
            ),
            id="class",
        ),
    ],
)
def test_second_entry_of_a_name(first: Entry, second: Entry) -> None:
    """Two policies or classes of one name are a policy error: what was in force stays."""
    before = read(first)
    after = read(first, second, previous=before)
    named = {**after.policies, **after.classes}
    assert GOOD == items(named["default"])
    assert {first.dn, second.dn} == {fault.dn for fault in after.faults}
    fresh = read(first, second)
    assert isinstance({**fresh.policies, **fresh.classes}["default"], Broken)


@pytest.mark.parametrize(
    ("mine", "added"),
    [
        pytest.param(table("t", "a OK"), table("t", "A REJECT", rdn="t2"), id="contradiction"),
        pytest.param(
            table("t", "{1}192.0.2.0/24 OK", smtpdAccessType="cidr"),
            table("t", "{1}192.0.2.0/25 OK", smtpdAccessType="cidr", rdn="t2"),
            id="one number",
        ),
    ],
)
def test_conflict_of_joined_tables(mine: Entry, added: Entry) -> None:
    """Entries of one table that contradict one another are a policy error: what was in force stays."""
    before = read(mine)
    after = read(mine, added, previous=before)
    assert before.tables["t"] == after.tables["t"]
    assert 1 == len({fault.text for fault in after.faults})
    assert isinstance(read(mine, added).tables["t"], Broken)


def test_vanished_policy() -> None:
    """A policy that is gone while the directory answers stays in force and is told of, until it is back."""
    first = read(policy(recipient="permit"), policy("other", recipient="permit"))
    second = read(policy(recipient="reject"), previous=first)
    third = read(policy(recipient="reject"), previous=second)
    fourth = read(policy(recipient="reject"), policy("other", recipient="reject"), previous=third)
    assert [GOOD, GOOD, GOOD, BETTER] == [
        items(known.policies["other"]) for known in (first, second, third, fourth)
    ]
    assert [0, 1, 1, 0] == [len(known.faults) for known in (first, second, third, fourth)]


def test_broken_after_it_vanished() -> None:
    """A policy that comes back broken still has its last good form."""
    first = read(policy(recipient="permit"))
    gone = read(previous=first)
    back = read(policy(recipient="{"), previous=gone)
    assert GOOD == items(back.policies["default"])


def test_class_that_becomes_a_broken_table() -> None:
    """The last good form of an entry is one of its own kind: a class is no table."""
    first = read(classes(c="permit"))
    broken = entry("cn=c,ou=classes,ou=policy", objectClass="smtpdAccessTable", cn="c", smtpdAccess="a")
    second = read(broken, previous=first)
    assert isinstance(second.tables["c"], Broken)
    assert [(broken.dn, "line 'a' has no action behind its key")] == [
        (fault.dn, fault.text) for fault in second.faults
    ]
    third = read(restriction_class("c", "reject"), previous=second)
    assert (BETTER, {}) == (items(third.classes["c"]), dict(third.tables))


def test_renamed_policy() -> None:
    """A policy under a new name has a last good form of its own beside that of the name that vanished."""

    def named(name: str, listed: str) -> Entry:
        settings = {"objectClass": "smtpdPolicy", "cn": name, "smtpdRecipientRestrictions": listed}
        return entry("cn=default,ou=policy", **settings)

    first = read(named("default", "permit"))
    second = read(named("new", "reject"), previous=first)
    third = read(named("new", "{"), previous=second)
    assert [(GOOD, BETTER)] * 2 == [
        (items(known.policies["default"]), items(known.policies["new"])) for known in (second, third)
    ]
    vanished = "policy 'default' vanished; its last good form stays in force"
    broken = "unbalanced '{' at character 1; the last good form stays in force"
    assert [[vanished], [broken, vanished]] == [
        [fault.text for fault in known.faults] for known in (second, third)
    ]


def test_deleted_class_and_table() -> None:
    """A class or table that was deleted is unknown."""
    site = Site(policy(recipient="c, check_sender_access ldap:t", sender="check_sender_access ldap:t"))
    assert CONFIGURATION_ERROR == site.action()
    assert CONFIGURATION_ERROR == site.action(policy_context="default/sender")
    after = read(
        policy(recipient="c"), previous=read(policy(recipient="c"), classes(c="permit"), tables(t=["a OK"]))
    )
    assert ({}, {}) == (dict(after.classes), dict(after.tables))


# ---------------------------------------------------------------- tables, loops, revision


def test_joined_tables() -> None:
    """Several entries with one cn are one table, whatever its case."""
    site = Site(
        policy(sender="check_sender_access ldap:insiders"),
        table("Insiders", "a.example REJECT a"),
        table("insiders", "b.example REJECT b", rdn="insiders2"),
    )
    actions = [site.action(sender=f"x@{name}.example") for name in ("a", "b", "c")]
    assert ["REJECT a", "REJECT b", "DUNNO"] == actions


@pytest.mark.parametrize(
    ("values", "client", "expected"),
    [
        pytest.param(
            ("192.0.2.0/24 REJECT wide", "192.0.2.0/28 REJECT narrow"), "192.0.2.1", "narrow", id="longest"
        ),
        pytest.param(
            ("{1} 192.0.2.0/24 REJECT wide", "{2} 192.0.2.0/28 REJECT narrow"),
            "192.0.2.1",
            "wide",
            id="by number",
        ),
        pytest.param(
            ("{10} 192.0.2.0/24 REJECT ten", "{9} 192.0.2.0/24 REJECT nine"),
            "192.0.2.1",
            "nine",
            id="as numbers",
        ),
        pytest.param(
            ("192.0.2.1 REJECT host", "{5}192.0.2.0/24 REJECT net"),
            "192.0.2.1",
            "net",
            id="numbered ones first",
        ),
        pytest.param(("2001:db8::/32 REJECT six",), "2001:db8::1", "six", id="IPv6"),
        pytest.param(("[2001:db8::]/32 REJECT six",), "2001:db8::1", "six", id="IPv6 in brackets"),
        pytest.param(("192.0.2.0/24\tREJECT tab",), "192.0.2.1", "tab", id="tab"),
    ],
)
def test_order_of_cidr_lines(values: tuple[str, ...], client: str, expected: str) -> None:
    """Lines are tried by {N}, then those without, longest prefix first."""
    for given in (values, values[::-1]):
        site = Site(policy(client="check_client_access ldap:t"), table("t", *given, smtpdAccessType="CIDR"))
        assert f"REJECT {expected}" == site.action(client_address=client)


@pytest.mark.parametrize(
    ("bodies", "looping"),
    [
        pytest.param({"a": "a"}, "a", id="itself"),
        pytest.param({"a": "b", "b": "permit_mynetworks, a"}, "a b", id="two"),
        pytest.param({"a": "b", "b": "c", "c": "b"}, "b c", id="leads into a loop"),
        pytest.param({"a": "b", "b": "c", "c": "permit"}, "", id="none"),
        pytest.param({"a": "warn_if_reject b", "b": "warn_if_reject a"}, "a b", id="under warn_if_reject"),
        pytest.param({"a": "check_sender_access static:a"}, "", id="through a table"),
    ],
)
def test_loops_by_names(bodies: dict[str, str], looping: str) -> None:
    """A class that reaches itself by names alone is an error when reached, and told of."""
    site = Site(policy(recipient="a", sender="permit, a"), classes(**bodies))
    assert set(looping.split()) == site.policies.looping
    assert set(looping.split()) == {fault.text.split("'")[1] for fault in site.policies.faults}
    assert "DUNNO" == site.action(policy_context="default/sender")
    if looping:
        assert CONFIGURATION_ERROR == site.action()


def test_revision() -> None:
    """The revision changes with what policies are made of, and with nothing else."""
    one = [policy(recipient="permit"), restriction_class("c", "permit"), table("t", "a OK", "b OK")]
    same = [table("t", "b OK", "a OK"), restriction_class("c", "permit"), policy(recipient="permit")]
    described = [policy(recipient="permit", description="x"), *one[1:]]
    others = [
        [policy(recipient="reject"), *one[1:]],
        [one[0], restriction_class("c", "reject"), one[2]],
        [*one[:2], table("t", "a OK")],
        one[:2],
    ]
    first = read(one).revision
    assert {first} == {read(same).revision, read(described).revision}
    assert 5 == len({first, *(read(other).revision for other in others)})


def test_parts_of_a_table() -> None:
    """A table carries its action for members and URLs, OK where there is none."""
    plain = read(table("t", smtpdAccessMember="cn=x,dc=example")).tables["t"]
    said = read(table("t", smtpdAccessMember="cn=x,dc=example", smtpdAccessAction="reject_all")).tables["t"]
    parts: list[TablePart] = [
        part for known in (plain, said) if isinstance(known, Table) for part in known.parts
    ]
    assert ["OK", "reject_all"] == [part.action.text for part in parts]
    assert [{"cn=x,dc=example"}] * 2 == [part.members for part in parts]
