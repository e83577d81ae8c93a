"""Exchange's delivery restrictions, read as rules where an entry carries no access attribute of ours."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from ldappolicy.action import parse_action, split_list
from ldappolicy.cli import run
from ldappolicy.directory.plan import Where
from ldappolicy.entry import Entry
from ldappolicy.lint import lint
from ldappolicy.mapping import mapping_for
from ldappolicy.policy import DELIVERY, NO_LOGIN, NOT_AUTHORIZED, read_policies
from ldappolicy.request import Request
from ldappolicy.service import Settings
from tests.labs.deciding import deciding, rcpt
from tests.labs.ldappolicy import Sections, merged, toml
from tests.labs.samba import SUFFIX, Samba, needs_samba
from tests.language import (
    BASE,
    BASES,
    CONFIGURATION_ERROR,
    LOOKUP_FAILURE,
    POLICY_BASE,
    REQUEST,
    Site,
    Values,
    about,
    dn,
    entry,
    of_kind,
    policy,
    restriction_class,
)

AD = mapping_for("active_directory", {})
LIST = "list@my.domain"

CARRIER = dn("CN=list,OU=groups")
AMY, BOB, CAL = (dn(f"CN={name},OU=people") for name in ("amy", "bob", "cal"))
STAFF, INNER, BLOCKED = (dn(f"CN={name},OU=groups") for name in ("staff", "inner", "blocked"))


def user(name: str, **attributes: Values) -> Entry:
    """Somebody as Active Directory has it."""
    mail = {"mail": f"{name}@my.domain", "userAccountControl": "544", **attributes}
    return entry(f"CN={name},OU=people", sAMAccountName=name, **mail)


def group(name: str, *members: str, **attributes: Values) -> Entry:
    """A group; with an address it is a list."""
    return entry(f"CN={name},OU=groups", member=members, **attributes)


PEOPLE = [
    *(user(name) for name in ("amy", "bob", "cal")),
    group("staff", INNER),
    group("inner", AMY, BOB, STAFF),
    group("blocked", BOB),
]
POLICY = policy(recipient="check_recipient_access directory:access, reject")


def restricted(*more: Entry, mapping: Any = AD, **attributes: Values) -> Site:
    """A site with a list that carries these attributes."""
    return Site(POLICY, PEOPLE, group("list", mail=LIST, **attributes), list(more), mapping=mapping)


SENDERS: Mapping[str, Mapping[str, str]] = {
    "amy, logged in": {"login": "amy", "sender": "amy@my.domain"},
    "bob, logged in": {"login": "BOB", "sender": "bob@my.domain"},
    "cal, logged in": {"login": "cal", "sender": "cal@my.domain"},
    "amy as bob": {"login": "amy", "sender": "bob@my.domain"},
    "a login of nobody": {"login": "zed", "sender": "amy@my.domain"},
    "who says to be amy": {"sender": "amy@my.domain"},
    "who says to be bob": {"sender": "bob@my.domain"},
    "a stranger": {"sender": "x@elsewhere.example"},
    "the null sender": {"sender": ""},
}
"""In the order of the columns below."""

ANSWERS = {"+": "DUNNO", "-": "reject,", "x": NOT_AUTHORIZED, "L": NO_LOGIN}
"""Permitted, nothing said (the reject behind it is reached), refused, refused for lack of a login."""

TRUE, FALSE = {"msExchRequireAuthToSendTo": "TRUE"}, {"msExchRequireAuthToSendTo": "FALSE"}
ALLOW_AMY, ALLOW_STAFF = {"authOrig": AMY}, {"dLMemSubmitPerms": STAFF}
ALLOW_OURS = {"smtpdAllowedSenderDN": AMY}
DENY_BOB, DENY_BLOCKED = {"unauthOrig": BOB}, {"dLMemRejectPerms": BLOCKED}

RESTRICTIONS: list[tuple[Mapping[str, Values], str]] = [
    ({}, "---------"),
    (FALSE, "---------"),
    (TRUE, "+++++LLLL"),
    (ALLOW_AMY, "+xx+xxxxx"),
    ({**ALLOW_AMY, **TRUE}, "+xx+xxxxx"),
    ({**ALLOW_AMY, **FALSE}, "+xx+xxxxx"),
    (ALLOW_STAFF, "++x+xxxxx"),
    ({**ALLOW_STAFF, **TRUE}, "++x+xxxxx"),
    ({"authOrig": CAL, **ALLOW_STAFF}, "++++xxxxx"),
    (DENY_BOB, "-x-x--x--"),
    ({**DENY_BOB, **FALSE}, "-x-x--x--"),
    ({**DENY_BOB, **TRUE}, "+x+x+LxLL"),
    (DENY_BLOCKED, "-x-x--x--"),
    ({**DENY_BLOCKED, **TRUE}, "+x+x+LxLL"),
    ({"dLMemRejectPerms": STAFF}, "xx-xxxx--"),
    ({**DENY_BOB, **ALLOW_AMY}, "+xxxxxxxx"),
    ({**DENY_BOB, **ALLOW_STAFF}, "+xxxxxxxx"),
    ({**DENY_BLOCKED, **ALLOW_STAFF, **TRUE}, "+xxxxxxxx"),
    ({"unauthOrig": AMY, **ALLOW_AMY}, "xxxxxxxxx"),
    ({"unauthOrig": [BOB, CAL], **TRUE}, "+xxx+LxLL"),
    # Our own lists count beside Exchange's, and say nothing without them, as under every profile.
    (ALLOW_OURS, "---------"),
    ({**ALLOW_OURS, **FALSE}, "---------"),
    ({**ALLOW_OURS, **TRUE}, "+xx+xxxxx"),
    ({**ALLOW_OURS, **DENY_BOB}, "+xxxxxxxx"),
    ({**ALLOW_OURS, "authOrig": BOB}, "++x+xxxxx"),
    ({"smtpdAllowedSender": "cal@my.domain", **ALLOW_AMY}, "+x++xxxxx"),
    ({"smtpdDeniedSender": "bob@my.domain", **TRUE}, "+x+x+LxLL"),
    ({"smtpdDeniedSender": "elsewhere.example", **ALLOW_AMY}, "+xx+xxxxx"),
    ({"smtpdAllowedSender": "zed", **ALLOW_AMY}, "+xx++xxxx"),
    ({"smtpdAllowedSender": "amy@my.domain", **TRUE}, "+xx+xxxxx"),
    ({"smtpdAllowedSender": "my.domain", **DENY_BOB}, "+x+xxxxxx"),
    ({"smtpdAllowedSender": "my.domain", **FALSE}, "---------"),
    # What is neither TRUE nor FALSE closes.
    ({"msExchRequireAuthToSendTo": "true"}, "+++++LLLL"),
    ({"msExchRequireAuthToSendTo": "False"}, "---------"),
    ({"msExchRequireAuthToSendTo": "1"}, "+++++LLLL"),
    ({"msExchRequireAuthToSendTo": " FALSE"}, "+++++LLLL"),
    ({"msExchRequireAuthToSendTo": ["FALSE", "TRUE"]}, "+++++LLLL"),
    # Who is named there and is not in the directory is nobody.
    ({"authOrig": dn("CN=gone")}, "xxxxxxxxx"),
    ({"unauthOrig": dn("CN=gone")}, "---------"),
]


def _ids(case: object) -> str | None:
    if not isinstance(case, Mapping):
        return None
    return " ".join(f"{name}={value}" for name, value in case.items()) or "nothing"


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [pytest.param(attributes, expected, id=_ids(attributes)) for attributes, expected in RESTRICTIONS],
)
@pytest.mark.parametrize("kind", ["list", "user"])
def test_restrictions(attributes: Mapping[str, Values], expected: str, kind: str) -> None:
    """Who may send to a list or a user that carries them, by what proof."""
    carrier = group("it", mail=LIST, **attributes) if kind == "list" else user("it", mail=LIST, **attributes)
    site = Site(POLICY, PEOPLE, carrier, mapping=AD)
    answers = [site.action(recipient=LIST, **sender) for sender in SENDERS.values()]
    assert [ANSWERS[sign] for sign in expected] == answers


# ---------------------------------------------------------------- beside access attributes of ours

AS_AMY, AS_BOB, STRANGER = (SENDERS[name] for name in ("amy, logged in", "bob, logged in", "a stranger"))


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        pytest.param("permit", "DUNNO", id="it permits"),
        pytest.param("DUNNO", "reject,", id="it says nothing"),
        pytest.param("550 5.7.1 ours", "550 5.7.1 ours", id="it refuses"),
    ],
)
def test_own_attribute_wins(own: str, expected: str) -> None:
    """An entry with an access attribute of ours is read as ever, whatever Exchange's say."""
    site = restricted(smtpdRecipientAccess=own, **ALLOW_STAFF, **TRUE, unauthOrig=AMY)
    assert expected == site.action(recipient=LIST, **AS_AMY)


@pytest.mark.parametrize(
    ("attributes", "sender", "expected"),
    [
        pytest.param(ALLOW_AMY, AS_AMY, "DUNNO", id="allowed: the group is not asked"),
        pytest.param(ALLOW_AMY, AS_BOB, NOT_AUTHORIZED, id="nor for others"),
        pytest.param(TRUE, AS_BOB, "DUNNO", id="logged in: nor then"),
        pytest.param(TRUE, STRANGER, NO_LOGIN, id="nor for strangers"),
        pytest.param(DENY_BOB, AS_BOB, NOT_AUTHORIZED, id="denied"),
        pytest.param(DENY_BOB, AS_AMY, "550 5.7.1 around", id="not denied: what else is said of it counts"),
        pytest.param(DENY_BOB, STRANGER, "550 5.7.1 around", id="also for strangers"),
        pytest.param(FALSE, STRANGER, "550 5.7.1 around", id="nothing restricted"),
    ],
)
@pytest.mark.parametrize("where", ["group", "domain"])
def test_what_groups_and_domains_say(
    attributes: Mapping[str, Values], sender: Mapping[str, str], expected: str, where: str
) -> None:
    """Restrictions stand where the entry's own attribute would; one that only denies opens nothing."""
    if where == "group":
        around = group("around", CARRIER, smtpdMemberRecipientAccess="550 5.7.1 around")
    else:
        around = entry("OU=domain", associatedDomain="my.domain", smtpdRecipientAccess="550 5.7.1 around")
    assert expected == restricted(around, **attributes).action(recipient=LIST, **sender)


@pytest.mark.parametrize("text", ["DISCARD", "BCC x@my.domain"])
def test_whole_messages_behind_a_denial(text: str) -> None:
    """What a group must not say it must not say behind restrictions either."""
    around = group("around", CARRIER, smtpdMemberRecipientAccess=text)
    assert CONFIGURATION_ERROR == restricted(around, **DENY_BOB).action(recipient=LIST, **AS_AMY)


def test_other_form_of_the_recipient() -> None:
    """Each form of a routed recipient has its own entry, and its own access attribute wins for it."""
    site = restricted(
        group("odd", mail="list%my.domain@other.domain", smtpdRecipientAccess="550 5.7.1 odd"),
        group("around", dn("CN=odd,OU=groups"), smtpdMemberRecipientAccess="550 5.7.1 around"),
        **DENY_BOB,
    )
    assert "550 5.7.1 odd" == site.action(recipient="list%my.domain@other.domain", **AS_AMY)
    assert NOT_AUTHORIZED == site.action(recipient="list%my.domain@other.domain", **AS_BOB)


def test_of_the_recipient_only() -> None:
    """Who may send to somebody says nothing of what that one sends."""
    checks = "check_sasl_access directory:access, check_sender_access directory:access, reject"
    site = Site(policy(recipient=checks), PEOPLE, user("dan", **DENY_BOB, **TRUE), mapping=AD)
    assert "reject," == site.action(recipient="x@elsewhere.example", login="dan", sender="dan@my.domain")


# ---------------------------------------------------------------- mappings


@pytest.mark.parametrize(
    ("profile", "overrides", "expected"),
    [
        ("generic", {}, "reject,"),
        ("openldap", {"allowed_sender_dn": ("smtpdAllowedSenderDN",)}, "reject,"),
        ("openldap", {"allowed_sender_dn": ("AUTHORIG",)}, NOT_AUTHORIZED),
        ("389ds", {"login_required": ("internalOnly",)}, NO_LOGIN),
        ("active_directory", {}, NOT_AUTHORIZED),
        ("active_directory", {"allowed_sender_dn": ()}, "reject,"),
        ("active_directory", {"allowed_sender_dn": ("smtpdAllowedSenderDN",)}, "reject,"),
        ("active_directory", {"recipient_access": ("extensionAttribute7",)}, "550 5.7.1 ours"),
    ],
)
def test_mappings(profile: str, overrides: Mapping[str, tuple[str, ...]], expected: str) -> None:
    """They count wherever a site maps them, and nowhere else."""
    mapping = mapping_for(profile, overrides)
    site = restricted(
        mapping=mapping, authOrig=AMY, internalOnly="TRUE", extensionAttribute7="550 5.7.1 ours"
    )
    assert expected == site.action(recipient=LIST, **STRANGER)


# ---------------------------------------------------------------- what is odd, and what is not to be had


@pytest.mark.parametrize(
    ("attributes", "more"),
    [
        pytest.param({"authOrig": "amy"}, [], id="what is no DN"),
        pytest.param({"unauthOrig": ["amy", BOB]}, [], id="what is no DN among others"),
        pytest.param(ALLOW_AMY, [group("two", mail=LIST)], id="two entries, one without"),
        pytest.param(ALLOW_AMY, [group("two", mail=LIST, **TRUE)], id="two entries with other ones"),
        pytest.param(ALLOW_AMY, [group("two", mail=LIST, authOrig=BOB)], id="two entries that allow others"),
        pytest.param(DENY_BOB, [group("two", mail=LIST, smtpdRecipientAccess="OK")], id="one with ours"),
    ],
)
def test_unavailable(attributes: Mapping[str, Values], more: Sequence[Entry]) -> None:
    """What cannot be told opens nothing and refuses nobody for good."""
    assert LOOKUP_FAILURE == restricted(*more, **attributes).action(recipient=LIST, **AS_AMY)


@pytest.mark.parametrize(
    ("attributes", "missed", "sender", "expected"),
    [
        pytest.param(ALLOW_AMY, about("amy"), AS_AMY, LOOKUP_FAILURE, id="who logged in"),
        pytest.param(ALLOW_STAFF, of_kind("groups"), AS_AMY, LOOKUP_FAILURE, id="their groups"),
        pytest.param(DENY_BLOCKED, of_kind("groups"), AS_AMY, LOOKUP_FAILURE, id="groups that are denied"),
        pytest.param(TRUE, of_kind("login", "groups"), AS_AMY, "DUNNO", id="that there is a login is known"),
        pytest.param(TRUE, of_kind("groups"), STRANGER, NO_LOGIN, id="that there is none as well"),
        pytest.param(ALLOW_AMY, about(LIST), STRANGER, LOOKUP_FAILURE, id="the list"),
        pytest.param(ALLOW_AMY, about("x@elsewhere.example"), STRANGER, NOT_AUTHORIZED, id="not needed"),
    ],
)
@pytest.mark.parametrize("one_by_one", [False, True])
def test_outages(
    attributes: Mapping[str, Values], missed: Any, sender: Mapping[str, str], expected: str, one_by_one: bool
) -> None:
    """What nobody can look up decides nothing; what does not depend on it is decided."""
    site = restricted(**attributes)
    site.missed, site.one_by_one = missed, one_by_one
    assert expected == site.action(recipient=LIST, **sender)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("1", "'1'"),
        ("\udcff\r\nX", r"'\udcff\r\nX'"),
        ("x" * 5000, "'" + "x" * 200 + "'"),
    ],
)
def test_neither_true_nor_false_is_logged(value: str, shown: str) -> None:
    """What is neither closes, and the log says where it stands."""
    decision = restricted(msExchRequireAuthToSendTo=value).decide(recipient=LIST, **STRANGER)
    note = f"{CARRIER}: msExchRequireAuthToSendTo is {shown}, neither TRUE nor FALSE: as TRUE"
    assert (NO_LOGIN, (note,)) == (decision.action, decision.notes)


def test_warn_if_reject() -> None:
    """Refusals can be tried out as those of any other list."""
    listed = policy(recipient="warn_if_reject check_recipient_access directory:access")
    decision = Site(listed, PEOPLE, group("list", mail=LIST, **TRUE), mapping=AD).decide(
        recipient=LIST, **STRANGER
    )
    expected = "DUNNO", (f"warn_if_reject: would have been refused: {NO_LOGIN}",)
    assert expected == (decision.action, decision.notes)


def test_login_without_a_name() -> None:
    """The mechanism ANONYMOUS is no login."""
    site = restricted(**TRUE)
    answer = site.action(recipient=LIST, sasl_method="ANONYMOUS", sasl_username="anonymous", sender="")
    assert NO_LOGIN == answer


# ---------------------------------------------------------------- how it is asked, shown and named


def test_asked_together() -> None:
    """Who sends is asked for with the recipient, so that membership alone is a second round."""
    site = restricted(**ALLOW_STAFF, **DENY_BLOCKED)
    site.action(recipient=LIST, **AS_AMY)
    kinds = [sorted({lookup[0] for lookup in asked}) for asked in site.rounds]
    assert [["domain", "login", "mail"], ["groups"]] == kinds[:2]


def test_explained() -> None:
    """The path names the entry that carries them, and each check of the list that they amount to."""
    trace: list[dict[str, Any]] = []
    site = restricted(**ALLOW_AMY)
    request = Request.from_attributes({**REQUEST, "recipient": LIST})
    assert NOT_AUTHORIZED == site.resolve(request, trace).action
    last = len(trace) - 1 - next(at for at, event in enumerate(reversed(trace)) if event.get("list"))
    told = [
        (event["depth"], event.get("restriction") or event.get("value"), *event.get("dn", ()))
        for event in trace[last:]
        if "restriction" in event or event.get("table") == "directory:access"
    ]
    assert told == [
        (1, "check_recipient_access directory:access"),
        (1, "delivery restrictions: allowed senders", CARRIER),
        (2, "check_sasl_access recipient:denied"),
        (2, "check_sender_access recipient:denied"),
        (2, "check_sasl_access recipient:allowed"),
        (2, f"check_recipient_access static:{NOT_AUTHORIZED}"),
    ]


@pytest.mark.parametrize("tokens", DELIVERY)
@pytest.mark.parametrize("form", ["{}", "{{{}}}", '"{}"'])
def test_no_text_names_them(tokens: tuple[str, ...], form: str) -> None:
    """No right-hand side, list or class that anybody writes is read as one of the shipped lists."""
    text = form.format(tokens[0])
    assert tokens != split_list(text)
    assert tokens != parse_action(text).tokens


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("delivery restrictions: allowed senders", CONFIGURATION_ERROR),
        ("check_sasl_access recipient:denied", "REJECT"),
    ],
)
def test_written_by_hand(body: str, expected: str) -> None:
    """In a class the tables that the shipped lists ask have the answers that they have everywhere."""
    carrier = group("list", mail=LIST, **DENY_BOB)
    site = Site(policy(recipient="mine"), PEOPLE, carrier, restriction_class("mine", body), mapping=AD)
    assert expected == site.action(recipient=LIST, **AS_BOB)


# ---------------------------------------------------------------- lint


def found(*entries: Entry) -> list[str]:
    """What lint says of a site under Active Directory's profile, without the DNs."""
    ruled = group("ruled", mail="ruled@my.domain", smtpdRecipientAccess="DUNNO")
    directory = Site(POLICY, PEOPLE, [ruled, *entries], mapping=AD).directory
    policies = read_policies(list(directory), BASES)
    told = asyncio.run(lint(policies, directory, Settings(BASE, POLICY_BASE, AD), Where(BASE)))
    return [str(fault).replace(f"{CARRIER}: ", "") for fault in told]


BESIDE = "warning: msExchRequireAuthToSendTo: it restricts nothing by itself beside smtpdRecipientAccess"
NO_DN = "not a DN: 'x', expected type=value (RFC 4514) at character 1"


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({**ALLOW_STAFF, **DENY_BOB, **TRUE}, []),
        ({**ALLOW_AMY, **FALSE, "msExchModeratedByLink": AMY, "msExchCoManagedByLink": BOB}, []),
        ({"msExchRequireAuthToSendTo": "false"}, []),
        (
            {"msExchRequireAuthToSendTo": "YES"},
            ["warning: msExchRequireAuthToSendTo: 'YES' is taken for TRUE, expected TRUE or FALSE"],
        ),
        (
            {**ALLOW_AMY, **FALSE, "smtpdRecipientAccess": "OK"},
            ["warning: authOrig: it restricts nothing by itself beside smtpdRecipientAccess"],
        ),
        ({**TRUE, "smtpdRecipientAccess": "OK"}, [BESIDE]),
        ({"authOrig": "x"}, [f"error: authOrig: {NO_DN}"]),
        ({"unauthOrig": dn("CN=gone")}, ["warning: unauthOrig: 'CN=gone,dc=example' does not exist"]),
        (
            {"proxyAddresses": ["smtp:a@my.domain", "x500:/o=x", "b@my.domain"]},
            ["warning: proxyAddresses: 'b@my.domain' is not read, expected smtp: before it"],
        ),
    ],
    ids=_ids,
)
def test_lint(attributes: Mapping[str, Values], expected: list[str]) -> None:
    """What is read as it is written is not told of; what is not, or is taken otherwise, is a warning."""
    assert expected == found(group("list", mail=LIST, **attributes))


@pytest.mark.parametrize(
    ("one", "two", "expected"),
    [
        ({"proxyAddresses": "smtp:two@my.domain"}, {"mail": "TWO@my.domain", **TRUE}, "error"),
        ({"proxyAddresses": "smtp:two@my.domain"}, {"mail": "TWO@my.domain"}, "warning"),
        ({"proxyAddresses": "SMTP:two@my.domain"}, {"proxyAddresses": "smtp:two@my.domain"}, "warning"),
        ({"proxyAddresses": "x500:two@my.domain"}, {"proxyAddresses": "x500:two@my.domain"}, ""),
        ({"proxyAddresses": "smtp:two@my.domain"}, {"mail": "smtp:two@my.domain"}, ""),
    ],
    ids=_ids,
)
def test_lint_of_shared_addresses(
    one: Mapping[str, Values], two: Mapping[str, Values], expected: str
) -> None:
    """One address in two entries is found by what it is, however its attribute writes it."""
    told = found(group("one", **one), group("two", **two))
    assert [expected] * 2 * bool(expected) == [line.partition(":")[0] for line in told]


# ---------------------------------------------------------------- a domain controller

OR_NAME = "attributeSyntax: 2.5.5.7\noMSyntax: 127\noMObjectClass:: VgYBAgULHQ=="
DN_SYNTAX = "attributeSyntax: 2.5.5.1\noMSyntax: 127\noMObjectClass:: KwwCh3McAIVK"
BOOLEAN = "attributeSyntax: 2.5.5.8\noMSyntax: 1"
OURS = "1.2.840.113556.1.8000.2554.9840.56368.15588.18656.48344.2791780.14767382.99"

EXCHANGE = (
    ("authOrig", "1.2.840.113556.1.2.129", OR_NAME),
    ("unauthOrig", "1.2.840.113556.1.2.221", OR_NAME),
    ("dLMemSubmitPerms", "1.2.840.113556.1.2.144", OR_NAME),
    ("dLMemRejectPerms", "1.2.840.113556.1.2.47", OR_NAME),
    ("publicDelegates", "1.2.840.113556.1.2.238", DN_SYNTAX),
    ("msExchRequireAuthToSendTo", "1.2.840.113556.1.4.7000.102.5062", BOOLEAN),
    ("msExchCoManagedByLink", f"{OURS}.1", DN_SYNTAX),
    ("msExchModeratedByLink", f"{OURS}.2", DN_SYNTAX),
)
"""Name, identifier and syntax of Exchange's attributes, as far as they are published; else an arc of ours."""

SCHEMA = f"CN=Schema,CN=Configuration,{SUFFIX}"
UPDATE = "dn:\nchangetype: modify\nadd: schemaUpdateNow\nschemaUpdateNow: 1\n-\n\n"


def exchange_schema() -> str:
    """What Exchange's set-up adds to the schema, as much of it as is read."""
    single = {name: "TRUE" if syntax is BOOLEAN else "FALSE" for name, _, syntax in EXCHANGE}
    attributes = "".join(
        f"dn: CN={name},{SCHEMA}\nchangetype: add\nobjectClass: attributeSchema\ncn: {name}\n"
        f"lDAPDisplayName: {name}\nattributeID: {identifier}\nisSingleValued: {single[name]}\n{syntax}\n\n"
        for name, identifier, syntax in EXCHANGE
    )
    may = "".join(f"mayContain: {name}\n" for name, _, _ in EXCHANGE)
    carriers = "".join(
        f"dn: CN={name},{SCHEMA}\nchangetype: modify\nadd: mayContain\n{may}-\n\n"
        for name in ("User", "Group")
    )
    return attributes + UPDATE + carriers + UPDATE


def there(name: str) -> str:
    """A DN of these tests in the domain."""
    return name.replace(f",{BASE}", f",{SUFFIX}")


def record(made: Entry, kind: str) -> str:
    """An entry of these tests as LDIF for the domain."""
    values = [(name, value) for name, several in made.items() for value in several]
    lines = [f"{name}: {there(value)}" for name, value in values]
    return "\n".join([f"dn: {there(made.dn)}", f"objectClass: {kind}", *lines, "", ""])


def is_storable(attributes: Mapping[str, Values]) -> bool:
    """Whether a domain controller takes them: its syntaxes are strict, and links lead to somebody."""
    required = attributes.get("msExchRequireAuthToSendTo", "TRUE")
    return required in ("TRUE", "FALSE") and dn("CN=gone") not in attributes.values()


STORABLE = [(attributes, expected) for attributes, expected in RESTRICTIONS if is_storable(attributes)]


@pytest.fixture(scope="module")
def domain() -> Iterator[Samba]:
    """A domain with Exchange's schema and ours, the people of these tests, and a list for each case."""
    with Samba(schema="ldappolicy") as samba:
        samba.load(exchange_schema())
        ous = ("OU=people", "OU=groups", "OU=policy")
        samba.load("".join(f"dn: {ou},{SUFFIX}\nobjectClass: organizationalUnit\n\n" for ou in ous))
        samba.load("".join(record(user(name), "user") for name in ("amy", "bob", "cal")))
        samba.load(record(group("inner", AMY, BOB), "group") + record(group("staff", INNER), "group"))
        samba.load(f"dn: {there(INNER)}\nchangetype: modify\nadd: member\nmember: {there(STAFF)}\n-\n")
        samba.load(record(group("blocked", BOB), "group"))
        samba.load(record(POLICY, "smtpdPolicy").replace("objectclass: smtpdPolicy\n", ""))
        samba.load(
            record(group("list", mail="beside@my.domain", smtpdRecipientAccess="DUNNO", **TRUE), "group")
        )
        for number, (attributes, _) in enumerate(STORABLE):
            proxy = {"proxyAddresses": [f"SMTP:list{number}@my.domain", "sip:list@my.domain"]}
            samba.load(record(group(f"list{number}", **proxy, **attributes), "group"))
        yield samba


def over(samba: Samba, tmp_path: Path) -> Sections:
    """The configuration for the domain."""
    password = tmp_path / "password"
    password.write_text(samba.root_pw)
    directory = {
        "profile": "active_directory",
        "search_base": SUFFIX,
        "policy_base": f"OU=policy,{SUFFIX}",
        "bind": "simple",
        "bind_dn": samba.root_dn,
        "bind_pw_file": str(password),
    }
    return {"directory": directory}


async def answers_of(samba: Samba, sections: Sections) -> dict[str, str | None]:
    """What the service answers to every sender of each case."""
    answers: dict[str, str | None] = {}
    async with deciding(samba.uri, sections) as service:
        for number, (attributes, _) in enumerate(STORABLE):
            for who, sender in SENDERS.items():
                login = {"sasl_username": sender["login"]} if "login" in sender else {}
                request = rcpt(recipient=f"List{number}@my.domain", sender=sender["sender"], **login)
                answers[f"{_ids(attributes)}: {who}"] = await service.decide(request)
    return answers


@pytest.mark.servers
@needs_samba
def test_in_a_domain(domain: Samba, tmp_path: Path) -> None:
    """A domain controller's entries are read as the table above says, whoever sends."""
    expected = {
        f"{_ids(attributes)}: {who}": ANSWERS[sign]
        for attributes, signs in STORABLE
        for who, sign in zip(SENDERS, signs, strict=True)
    }
    assert expected == asyncio.run(answers_of(domain, over(domain, tmp_path)))


@pytest.mark.servers
@needs_samba
def test_lint_in_a_domain(domain: Samba, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """lint asks for them as well: of all these lists it has one thing to say."""
    config = tmp_path / "config.toml"
    config.write_text(toml(merged({"directory": {"uri": [domain.uri]}}, over(domain, tmp_path))))
    assert run(["-c", str(config), "lint"]) == 0
    assert BESIDE.replace(": ", f": {there(CARRIER)}: ", 1) + "\n" == capsys.readouterr().out
