r"""Hostile values reach a directory only as data: `ldappolicy serve` over a real slapd, by its own log.

Values come as sender, recipient and login, glued together on one connection, with a request between them
whose reply names itself, so that a reply too many or too few would be seen by the next one.
"""

import asyncio
import os
import re
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from ldappolicy.ldap_filter import And, Equality, Filter, Or, Present, parse
from tests.labs.deciding import deciding, rcpt
from tests.labs.ldappolicy import DEADLINE, Ldappolicy, Sections
from tests.labs.slapd import SUFFIX, Slapd, require_slapd

pytestmark = pytest.mark.servers

VALUES = [
    "*",
    "(",
    ")",
    "\\",
    "\\2a",
    "**",
    "()",
    "*)(uid=*",
    "amy)(objectclass=*",
    "*)(|(mail=*",
    "&",
    "|",
    "!",
    "(&)",
    "(|)",
    "=",
    ">=",
    "~=",
    ":=",
    "o'brien",
    '"',
    '"a b"',
    '"a\\"b"',
    "a b",
    "a  b",
    " a",
    "a@b",
    '"a@b"',
    "#",
    ";",
    ",",
    "+",
    "<>",
    "{0}",
    "%s",
    "$(id)",
    "../../etc/passwd",
    "\x01\x7f",
    "\t",
    "j\u00f6rg",
    "stra\u00dfe",
    "\u0130",
    "\uff41\uff4d\uff59",
    "a\u0301",
    "\u202e",
    "\U0001f600",
    "\udcff",
    "\udcc3",
    "\udced\udca0\udc80",
    "uid=amy,ou=people,dc=example,dc=com",
    'cn="Smith, Bob"+sn=x,ou=people,dc=example,dc=com',
    "cn=o'brien\\, zo\u00eb,ou=people,dc=example,dc=com",
    "ldap:///dc=example,dc=com??sub?(uid=*)",
    "ldap://192.0.2.1/",
    "amy@my.domain,bob@my.domain",
    "amy@my.domain bob@my.domain",
    "a%b%c",
    "a!b!c",
    "a%b!c@d",
    "@",
    "@@",
    ".",
    "..",
    "x" * 300,
]

POLICIES = f"""\
dn: cn=owners,ou=policy,{SUFFIX}
objectClass: smtpdPolicy
cn: owners
smtpdSenderRestrictions: reject_sender_login_mismatch

dn: cn=hostile,ou=policy,{SUFFIX}
objectClass: smtpdPolicy
cn: hostile
smtpdClientRestrictions: check_client_access ldap:hostile, check_reverse_client_hostname_access ldap:hostile
smtpdHeloRestrictions: check_helo_access ldap:hostile
smtpdSenderRestrictions: check_sasl_access directory:access, check_sender_access directory:access,
  check_sender_access ldap:hostile, check_sasl_access ldap:hostile
smtpdRecipientRestrictions: check_recipient_access directory:access, check_sender_access recipient:members,
  check_sasl_access recipient:allowed, check_recipient_access ldap:hostile, reject_sender_login_mismatch
smtpdMyorigin: my.domain
smtpdLocalDomains: ldap:local_domains
smtpdRecipientDelimiter: +

dn: cn=hostile,ou=tables,ou=policy,{SUFFIX}
objectClass: smtpdAccessTable
cn: hostile
smtpdAccess: nothing DUNNO
smtpdAccessMember: cn=managers,ou=groups,{SUFFIX}
smtpdAccessURL: ldap:///ou=people,{SUFFIX}?mail,uid?one?(objectClass=inetOrgPerson)
smtpdAccessAction: DUNNO

"""

PEOPLE = [
    "cn=Smith\\2C \\22Bob\\22 \\2B Co",
    "cn=J\u00f6rg M\u00fcller",
    "cn=\\23hash",
    "cn=trailing\\20",
    "cn=a\\5Cb*(c)",
    "cn=multi+sn=valued",
    "cn=\u65e5\u672c",
    "cn=semi\\3Bcolon\\3D\\3C\\3E",
]

FOLDING = ["stra\u00dfe", "\u03bd\u03b9\u03ba\u03bf\u03c2", "j\u00f6rg", "\u0144a", "\u0149a"]
"""Logins with a sharp s, a final sigma, letters that fold as others do."""

NAMES = {"mail", "mailAlternateAddress", "mailLocalAddress", "uid", "associatedDomain"}
NAMES |= {"member", "uniqueMember", "memberUid"}


def people() -> str:
    """Entries whose DNs have to be escaped, one group that has half of them, and one with nobody."""
    entries = [
        f"dn: {rdn},ou=people,{SUFFIX}\nobjectClass: inetOrgPerson\nsn: valued\nuid: odd{n}\n"
        f"mail: odd{n}@my.domain\n"
        for n, rdn in enumerate(PEOPLE)
    ]
    entries += [
        f"dn: cn=folding{n},ou=people,{SUFFIX}\nobjectClass: inetOrgPerson\nsn: x\nuid: {login}\n"
        f"mail: folding{n}@my.domain\n"
        for n, login in enumerate(FOLDING)
    ]
    members = "".join(f"member: {rdn},ou=people,{SUFFIX}\n" for rdn in PEOPLE[::2])
    entries.append(
        f"dn: cn=odd,ou=lists,{SUFFIX}\nobjectClass: groupOfNames\nobjectClass: smtpdAccessControl\ncn: odd\n"
        f"mail: odd@my.domain\nsmtpdRecipientAccess: members_only\n{members}"
    )
    return "\n".join(entries) + "\n"


@pytest.fixture(scope="module")
def slapd(example_ldif: Path) -> Iterator[Slapd]:
    """The example company, and what is odd."""
    require_slapd()
    with Slapd(schema="ldappolicy", data=example_ldif.read_text("utf-8")) as server:
        server.load(POLICIES + people())
        yield server


@pytest.fixture(scope="module")
def service(slapd: Slapd) -> Iterator[Ldappolicy]:
    """The real command."""
    sections: Sections = {
        "directory": {"uri": [slapd.uri]},
        "cache": {"size": 1000},
        "log": {"decisions": "none"},
    }
    with Ldappolicy(sections) as running:
        yield running


def request(**attributes: str) -> bytes:
    """A request in bytes."""
    given = {"request": "smtpd_access_policy", "protocol_state": "RCPT", **attributes}
    if "sasl_username" in attributes:
        given["sasl_method"] = "PLAIN"
    text = "".join(f"{name}={value}\n" for name, value in given.items()) + "\n"
    return text.encode("utf-8", "surrogateescape")


def marker(number: int) -> bytes:
    """A request whose reply names its number, and needs the directory."""
    return request(
        policy_context="owners", sender="amy@my.domain", sasl_username=f"m{number}", recipient="x@y"
    )


def talk(service: Ldappolicy, requests: Sequence[bytes]) -> list[str]:
    """The actions for requests on one connection, sent in one go; checks that each has one, in order."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(DEADLINE)
        sock.connect(service.unix.removeprefix("unix:"))
        stream = sock.makefile("rb")
        actions = []
        for first in range(0, len(requests), 20):
            chunk = list(enumerate(requests))[first : first + 20]
            sock.sendall(b"".join(one + marker(number) for number, one in chunk))
            for number, _ in chunk:
                actions.append(reply(stream.readline(), stream.readline()))
                own = reply(stream.readline(), stream.readline())
                assert own == f"553 5.7.1 not owned by user m{number}"
        sock.shutdown(socket.SHUT_WR)
        assert stream.read() == b""
    return actions


def reply(line: bytes, empty: bytes) -> str:
    """The action of one reply."""
    assert empty == b"\n"
    return line.decode().removeprefix("action=").removesuffix("\n")


# --- through the service --------------------------------------------------------------------------


@pytest.mark.parametrize("context", ["", "plain", "hostile"])
@pytest.mark.parametrize(
    "position", ["sender", "sender@", "recipient", "recipient@", "login", "login@", "all"]
)
def test_every_value_has_one_reply_in_its_turn(service: Ldappolicy, context: str, position: str) -> None:
    """Never an error of ours, and nothing that such a value could have wanted."""

    def attributes(value: str) -> dict[str, str]:
        if position == "all":
            return {"sender": value, "recipient": value, "sasl_username": value}
        whole = f"{value}@my.domain" if position.endswith("@") else value
        name = {"login": "sasl_username"}.get(position.rstrip("@"), position.rstrip("@"))
        return {"sender": "x@elsewhere.example", "recipient": "r@elsewhere.example", name: whole}

    actions = talk(service, [request(policy_context=context, **attributes(value)) for value in VALUES])
    has_login = position.startswith(("login", "all"))
    allowed = None if context == "hostile" and has_login else {"DUNNO"}
    if context != "hostile" and has_login:
        allowed = {"DUNNO", "REJECT"}  # nobody has it: known_logins
    if context == "hostile" and position.startswith("sender"):
        allowed = {"DUNNO", "553 5.7.1 not logged in"}  # o'brien, who exists
    for value, action in zip(VALUES, actions, strict=True):
        own = f"553 5.7.1 not owned by user {shown(value, position)}".rstrip(" ")
        expected = allowed or {"DUNNO", own}
        if value == "\uff41\uff4d\uff59":
            expected = {
                "DEFER_IF_PERMIT 4.3.0 Temporary lookup failure",
                "DUNNO",
            }  # slapd takes it for amy: neither she nor nobody
        assert action in expected | {"reject_unauth_destination, reject"}, value


def shown(value: str, position: str) -> str:
    """A login as a reply may show it: no control characters, valid UTF-8."""
    login = f"{value}@my.domain" if position.endswith("@") else value
    text = re.sub(r"[\x00-\x1f\x7f-\x9f]", " ", login)
    return text.encode("utf-8", "replace").decode("utf-8")


def test_the_directory_saw_data_only(slapd: Slapd, service: Ldappolicy) -> None:
    """Every filter in slapd's log is one of ours: equalities of mapped attributes, values escaped."""
    logins = [value for value in VALUES if shows_as_it_is(value)]
    assert len(logins) > 30
    talk(service, [request(sender="x@y.example", recipient="z@y.example", sasl_username=v) for v in logins])
    talk(service, [request(sender=f"{v}@y.example", recipient=f"{v}@my.domain") for v in VALUES])
    filters = list(logged_filters(slapd))
    for tree in filters:
        assert_ours(tree)
    equalities = [found for tree in filters for found in equalities_of(tree)]
    asked = {found.value for found in equalities if found.attr == "uid"}
    assert {login.lower() for login in logins} <= asked
    addresses = {found.value for found in equalities if found.attr == "mail"}
    assert {"*@my.domain", "*)(uid=*@my.domain", "(@my.domain", "\\@my.domain"} <= addresses


def shows_as_it_is(value: str) -> bool:
    """Whether slapd logs such a login unchanged but for case: it squashes spaces and knows Unicode."""
    return value.isascii() and value.isprintable() and value == " ".join(value.split())


def logged_filters(slapd: Slapd) -> Iterator[Filter]:
    """The filters of all searches in slapd's log; `(?` marks what it does not define."""
    for line in slapd.log.read_text("utf-8", "surrogateescape").splitlines():
        found = re.search(r' SRCH base=".*" scope=\d deref=0 filter="(.*)"$', line)
        if found is not None:
            yield parse(found[1].replace("(?", "("))


def equalities_of(tree: Filter) -> Iterator[Equality]:
    """All of them."""
    if isinstance(tree, Equality):
        yield tree
    elif isinstance(tree, And | Or):
        for part in tree.parts:
            yield from equalities_of(part)


def assert_ours(tree: Filter) -> None:
    """A presence that we ask for, or equalities."""
    match tree:
        case And(parts) | Or(parts):
            for part in parts:
                assert_ours(part)
        case Equality(attr, value):
            known = {"objectClass": {"inetOrgPerson", "smtpdPolicy"}, "departmentNumber": {"sales"}}
            policies = {"smtpdRestrictionClass", "smtpdAccessTable"}
            assert (
                attr in NAMES
                or value in known.get(attr, set()) | policies
                or (attr, value)
                == (
                    "cn",
                    "default",
                )
            )
        case Present(attr):
            assert attr.startswith("smtpd") or attr in ("objectClass", "memberURL", *NAMES)
        case _:
            pytest.fail(f"not a filter of ours: {tree}")


@pytest.mark.parametrize(
    ("login", "sender", "owned"),
    [
        ("ann(*)", "ann starr@my.domain", True),
        ("ann(*)", "ann*starr@my.domain", True),
        ("ann(*)", '"ann starr"@my.domain', True),
        ("ANN(*)", "Ann Starr@MY.domain", True),
        ("zoe", "o'brien@my.domain", True),
        ("zoe", "O'BRIEN@my.domain", True),
        ("*", "amy@my.domain", False),
        ("ann(", "ann starr@my.domain", False),
        ("ann*", "ann starr@my.domain", False),
        ("ann(*)", "ann%starr@my.domain", False),
        ("a m y", "amy@my.domain", False),
        ("amy)(uid=bob", "bob@my.domain", False),
        ("zoe", "*@my.domain", False),
        ("amy", "amy@my.domain", True),
        (" amy", "amy@my.domain", False),
        ("amy ", "amy@my.domain", False),
        ("amy", "amy @my.domain", False),
    ],
)
def test_an_odd_name_is_itself_and_nobody_else(
    service: Ldappolicy, login: str, sender: str, owned: bool
) -> None:
    """Who owns what is compared by us, however wide the server's own comparison is."""
    [action] = talk(
        service, [request(policy_context="owners", sender=sender, sasl_username=login, recipient="x@y")]
    )
    assert action == ("DUNNO" if owned else f"553 5.7.1 not owned by user {login.rstrip(' ')}")


def test_a_login_that_the_server_takes_for_another(service: Ldappolicy) -> None:
    """slapd finds amy by full-width letters: whose it is cannot be said, and nothing is refused for good."""
    said = {"sender": "amy@my.domain", "sasl_username": "\uff41\uff4d\uff59", "recipient": "x@y"}
    [action] = talk(service, [request(policy_context="owners", **said)])
    assert action == "DEFER_IF_PERMIT 4.3.0 Temporary lookup failure"


@pytest.mark.parametrize(
    ("stored", "written"),
    [
        *((login, login) for login in FOLDING),
        ("j\u00f6rg", "J\u00d6RG"),
        ("\u03bd\u03b9\u03ba\u03bf\u03c2", "\u039d\u0399\u039a\u039f\u03a3"),
        ("\u0144a", "\u0143A"),
        ("stra\u00dfe", "Stra\u00dfe"),
    ],
)
def test_a_login_is_found_however_its_letters_fold(service: Ldappolicy, stored: str, written: str) -> None:
    """What holds for him holds: slapd lowers letter by letter, where we fold whole words."""
    sender = f"folding{FOLDING.index(stored)}@my.domain"
    [action] = talk(
        service, [request(policy_context="owners", sender=sender, sasl_username=written, recipient="x@y")]
    )
    assert action == "DUNNO"


@pytest.mark.parametrize("number", range(len(PEOPLE)))
def test_a_dn_with_special_characters_is_a_member_like_others(service: Ldappolicy, number: int) -> None:
    """Commas, quotes, other alphabets in the DN of a member; who is not in the group is refused."""
    actions = talk(
        service,
        [
            request(sender="x@y", recipient="odd@my.domain", sasl_username=f"odd{number}"),
            request(sender="x@y", recipient="team@my.domain", sasl_username="zoe"),
        ],
    )
    assert actions == ["reject," if number % 2 else "DUNNO", "DUNNO"]


# --- size and time --------------------------------------------------------------------------------

KIB64 = 65536
LONG = {
    "local part": "x" * KIB64 + "@my.domain",
    "special local part": "*(\\)" * (KIB64 // 4) + "@my.domain",
    "quotes": '"' * KIB64 + "@my.domain",
    "quoted": '"' + "\\a" * (KIB64 // 2) + '"@my.domain',
    "labels": "x@" + "a." * (KIB64 // 2) + "example",
    "domain": "x@" + "a" * KIB64,
    "dots": "x@" + "." * KIB64,
    "at signs": "@" * KIB64,
    "no domain": "x" * KIB64,
    "delimiters": "+" * KIB64 + "@my.domain",
    "spaces": " " * KIB64 + "@my.domain",
    "other letters": "\u0130" * (KIB64 // 2) + "@my.domain",
    "not UTF-8": "\udcff" * KIB64 + "@my.domain",
    "percent": "%".join(["a"] * 1000) + "@my.domain",
    "percent of ours": "%my.domain" * 200 + "@my.domain",
    "bang": "!".join(["my.domain"] * 200) + "@my.domain",
    "bang and percent": "a!b%" * 500 + "@my.domain",
    "at of ours": "@my.domain" * 200,
    "percent, very long": "%" * KIB64 + "@my.domain",
    "bang, very long": "a!" * (KIB64 // 2) + "@my.domain",
    "octets": "1." * (KIB64 // 2),
    "hextets": "1:" * (KIB64 // 2),
}


@pytest.mark.parametrize("kind", LONG)
@pytest.mark.parametrize(
    "position",
    [
        "sender",
        "recipient",
        "sasl_username",
        "client_name",
        "reverse_client_name",
        "client_address",
        "helo_name",
    ],
)
@pytest.mark.parametrize("context", ["", "hostile"])
def test_long_values_are_answered_in_time(
    service: Ldappolicy, context: str, position: str, kind: str
) -> None:
    """64 KiB of anything, or a chain of routes, costs little more than its transport."""
    attributes = {"sender": "x@elsewhere.example", "recipient": "r@elsewhere.example", position: LONG[kind]}
    before = processor_seconds(service)
    [action] = talk(service, [request(policy_context=context, **attributes)])
    assert processor_seconds(service) - before < 2
    # What no client can say to Postfix, and would have to be taken apart, is refused for a while.
    expected = ("DUNNO", "553 5.7.1 not owned by user", "reject", "451 4.3.0 Temporary lookup failure")
    assert action.startswith((*expected, "REJECT") if position == "sasl_username" else expected)
    assert len(action) < 600


def processor_seconds(service: Ldappolicy) -> float:
    """What the service has computed so far: how busy the machine is does not matter."""
    fields = Path(f"/proc/{service.process.pid}/stat").read_text("ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_memory_does_not_grow_with_what_senders_choose(service: Ldappolicy) -> None:
    """Senders with domains of a thousand characters, where each label makes a key, leave nothing behind."""
    talk(service, [request(sender="x@y", recipient="z@y")])
    before = resident(service)
    for first in range(0, 600, 100):
        domains = (f"{n}." + "a." * 490 + "example" for n in range(first, first + 100))
        talk(service, [request(sender=f"x@{domain}", recipient="z@y") for domain in domains])
    assert resident(service) - before < 50


def resident(service: Ldappolicy) -> int:
    """Megabytes."""
    status = Path(f"/proc/{service.process.pid}/status").read_text("ascii")
    return int(status.partition("VmRSS:")[2].split()[0]) // 1024


# --- what the protocol does not carry -------------------------------------------------------------


@pytest.mark.parametrize("position", ["sender", "recipient", "sasl_username", "client_name"])
def test_nul_in_a_request_ends_the_connection(service: Ldappolicy, position: str) -> None:
    """Postfix never sends it: the requests before it have their replies, it has none, others go on."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(DEADLINE)
        sock.connect(service.unix.removeprefix("unix:"))
        bad = request(**{position: "a\0b"})
        sock.sendall(request(sender="x@y", recipient="z@y") + marker(1) + bad + marker(2))
        with sock.makefile("rb") as stream:
            answered = stream.read()
    assert answered == b"action=DUNNO\n\naction=553 5.7.1 not owned by user m1\n\n"
    assert talk(service, [request(sender="x@y", recipient="z@y")]) == ["DUNNO"]


@pytest.mark.parametrize("value", ["a\0b", "\0", "amy\0", "amy\0@my.domain", "\0)(uid=*"])
def test_nul_is_data_to_the_directory(slapd: Slapd, value: str) -> None:
    """By whatever way it would come: it finds nobody, least of all who stands before it."""

    async def story() -> list[str | None]:
        async with deciding(slapd.uri) as service:
            return [
                await service.decide(
                    rcpt(policy_context="owners", sender="amy@my.domain", sasl_username=value)
                ),
                await service.decide(rcpt(sender=f"{value}@my.domain", recipient="team@my.domain")),
                await service.decide(rcpt(sender="x@y", recipient=f"{value}@my.domain")),
            ]

    assert asyncio.run(story()) == [f"553 5.7.1 not owned by user {value}", "reject,", "DUNNO"]
    for tree in logged_filters(slapd):
        assert_ours(tree)


@pytest.mark.parametrize(
    "state", ["CONNECT", "EHLO", "HELO", "MAIL", "RCPT", "VRFY", "DATA", "END-OF-MESSAGE"]
)
def test_a_request_with_hardly_an_attribute_has_a_reply(service: Ldappolicy, state: str) -> None:
    """Whatever Postfix leaves out is empty."""
    [action] = talk(service, [request(protocol_state=state, policy_context="hostile")])
    assert action == "DUNNO"


def test_a_client_without_name_and_address_has_a_reply(slapd: Slapd) -> None:
    """Tables that need no key are no exception."""
    checks = ("client", "reverse_client_hostname", "helo", "sender", "recipient", "sasl")
    names = [
        f"check_{check}_access {table}"
        for check in checks
        for table in ("static:DUNNO", "inline:{a=DUNNO}", "ldap:hostile")
    ]
    slapd.load(
        f"dn: cn=keys,ou=policy,{SUFFIX}\nobjectClass: smtpdPolicy\ncn: keys\n"
        f"smtpdSenderRestrictions: {', '.join(names)}\n"
    )

    async def story() -> str | None:
        async with deciding(slapd.uri) as service:
            return await service.decide(rcpt(policy_context="keys", client_address=""))

    assert asyncio.run(story()) == "DUNNO"
