"""One answer in all modes: random directories and requests, on demand, mirrored, from a file and by `eval`.

The server has attributes of this test's own, of which one tells upper and lower case apart (caseExactMatch)
and one takes full-width letters for plain ones, as slapd's caseIgnoreMatch does. What is compared are the
replies. They may differ in one thing: a key that is nobody's and resembles somebody's is unavailable wherever
all values are in memory, and on demand where the server returned the entry, for this key or beside it. What
comes of that is then no permit.
"""

import asyncio
import json
import random
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ldappolicy.address import fold, skeleton
from ldappolicy.directory.plan import Where
from ldappolicy.ldif import format_record
from ldappolicy.lint import lint
from tests.labs.deciding import configuration, deciding, following, rcpt
from tests.labs.ds389 import DS389, needs_389ds
from tests.labs.ldappolicy import EXAMPLE, Sections, merged, toml
from tests.labs.server import folder, tree_of
from tests.labs.slapd import STORED, SUFFIX, Slapd, require_slapd

pytestmark = pytest.mark.servers

OWN = """\
dn: cn=modes,cn=schema,cn=config
objectClass: olcSchemaConfig
cn: modes
olcAttributeTypes: ( 1.3.6.1.4.1.99999.7.1 NAME 'exactMail' EQUALITY caseExactMatch
  SYNTAX 1.3.6.1.4.1.1466.115.121.1.15 )
olcAttributeTypes: ( 1.3.6.1.4.1.99999.7.2 NAME 'exactLogin' SUP exactMail )
olcAttributeTypes: ( 1.3.6.1.4.1.99999.7.3 NAME 'wideMail' EQUALITY caseIgnoreMatch
  SYNTAX 1.3.6.1.4.1.1466.115.121.1.15 )
olcObjectClasses: ( 1.3.6.1.4.1.99999.7.4 NAME 'modesEntry' SUP top AUXILIARY
  MAY ( exactMail $ exactLogin $ wideMail ) )

"""
MAPPED: Sections = {
    "directory": {"profile": "openldap"},
    "directory.attributes": {
        "mail": ["mail", "exactMail", "wideMail"],
        "login": ["uid", "exactLogin"],
        "member": ["member", "memberUid"],
    },
}
ON_DEMAND: Sections = {"directory": {"watch": "off"}, "cache": {"mode": "on_demand"}}
MIRROR: Sections = {"directory": {"watch": "syncrepl"}, "cache": {"mode": "mirror"}}

NAMES = (
    "amy",
    "bob",
    "jos\u00e9",
    "Zo\u00eb",
    "Jos\u00c9e",
    "Ren\u00e9e",
    "jose",
    "\uff41my",
    "Kim",
    "\u00d8yvind",
    "ole",
)
"""None with a letter that is folded to several (sharp s): what is compared there is under README's limits."""
ACCENTS = str.maketrans("aeio", "\u00e1\u00e9\u00ed\u00f3")
WIDE = str.maketrans({letter: chr(ord(letter) + 0xFEE0) for letter in "abemoy"})
SPELLINGS: tuple[Callable[[str], str], ...] = (
    *([str] * 4),
    str.upper,
    str.lower,
    str.swapcase,
    lambda text: text.translate(WIDE),
    lambda text: text[:1].translate(WIDE) + text[1:],
    lambda text: text.translate(ACCENTS),
    lambda text: skeleton(text.casefold()),
    lambda text: f"{text}x",
    lambda text: text[:-1],
)


def spelled(text: str, draw: random.Random) -> str:
    """The same, or almost the same, value."""
    return draw.choice(SPELLINGS)(text)


def written(local: str, draw: random.Random) -> str:
    """An address with that local part, in one of the forms that clients use."""
    form = draw.choice(("{}@my.domain",) * 4 + ("{}@MY.domain", '"{}"@my.domain', "{}+x@my.domain", "{}"))
    return form.format(local)


SENDER = (
    *("check_sasl_access directory:nobody", "check_sasl_access directory:access"),
    *("check_sender_access directory:access", "reject_authenticated_sender_login_mismatch"),
)

Records = list[tuple[str, dict[str, tuple[str, ...]]]]


@dataclass
class World:
    """A directory below a base of its own, and what is asked of it."""

    base: str
    records: Records
    addresses: list[str] = field(default_factory=list)
    """Of everybody and every list, without `@my.domain`."""
    logins: list[str] = field(default_factory=list)

    def may_differ(self, request: dict[str, str]) -> bool:
        """Whether something in it is nobody's, and resembles what somebody has."""
        local = [request[name].rpartition("@")[0] or request[name] for name in ("sender", "recipient")]
        asked = [one.strip('"') for text in local for one in (text, text.partition("+")[0])]
        return _resemble(asked, self.addresses) or _resemble([request["sasl_username"]], self.logins)


def _resemble(asked: Iterable[str], values: Iterable[str]) -> bool:
    folded = {fold(value) for value in values}
    skeletons = {skeleton(value) for value in folded}
    return any(key not in folded and skeleton(key) in skeletons for key in map(fold, asked))


def world(number: int, draw: random.Random) -> World:
    """People with rules, groups with rules for their members, lists for members only."""
    base = f"ou=w{number},{SUFFIX}"
    made = World(base, [(base, {"objectClass": ("organizationalUnit",), "ou": (f"w{number}",)})])
    names = draw.sample(NAMES, 6)
    people = [f"uid=p{place},{base}" for place in range(len(names))]
    for place, (dn, name) in enumerate(zip(people, names, strict=True)):
        kinds = ("inetOrgPerson", "smtpdAccessControl", "modesEntry")
        given = {"objectClass": kinds, "uid": (f"p{place}",), "cn": (name,), "sn": (name,)}
        login, mail = spelled(name, draw), spelled(name, draw)
        given[draw.choice(("exactLogin", "uid"))] = (login, f"p{place}")
        given[draw.choice(("exactMail", "wideMail"))] = (f"{mail}@my.domain",)
        made.addresses.append(mail)
        made.logins += [login, f"p{place}"]
        if draw.random() < 0.4:
            given["smtpdSenderAccess"] = (draw.choice(("reject", "450 4.7.1 not now", "own_only")),)
        made.records.append((dn, given))
    for place in range(3):
        dn = f"cn=g{place},{base}"
        kinds = ("groupOfNames", "smtpdAccessControl", "modesEntry")
        address = spelled(draw.choice(NAMES), draw) if draw.random() < 0.3 else f"list{place}"
        members = (*draw.sample(people, 2), f"cn=g{draw.randrange(3)},{base}")
        given = {"objectClass": kinds, "cn": (f"g{place}",), "member": members}
        given["wideMail"] = (f"{address}@my.domain",)
        made.addresses.append(address)
        if draw.random() < 0.7:
            given["smtpdRecipientAccess"] = (draw.choice(("members_only", "members_sent", "reject")),)
        if draw.random() < 0.5:
            given["smtpdMemberSenderAccess"] = (draw.choice(("reject", "own_only")),)
        made.records.append((dn, given))
    login = spelled(draw.choice(made.logins), draw)
    kinds = ("posixGroup", "smtpdAccessControl", "modesEntry")
    given = {"objectClass": kinds, "cn": ("posix",), "gidNumber": ("1",), "wideMail": ("posix@my.domain",)}
    if login.isascii():
        given["memberUid"] = (login,)
    given |= {"smtpdRecipientAccess": ("members_only",), "smtpdMemberSenderAccess": ("450 4.7.1 posix",)}
    made.records.append((f"cn=posix,{base}", given))
    made.addresses.append("posix")
    made.records += policies(base)
    return made


def policies(base: str) -> Iterator[tuple[str, dict[str, tuple[str, ...]]]]:
    """Everything that asks a directory."""
    here = f"ou=policy,{base}"
    yield here, {"objectClass": ("organizationalUnit",), "ou": ("policy",)}
    bodies = {
        "members_only": "check_sasl_access recipient:members, reject",
        "members_sent": "check_sender_access recipient:members, reject",
        "own_only": "reject_authenticated_sender_login_mismatch",
    }
    for name, body in bodies.items():
        kind = ("smtpdRestrictionClass",)
        yield f"cn={name},{here}", {"objectClass": kind, "cn": (name,), "smtpdRestrictions": (body,)}
    lists = {
        "smtpdSenderRestrictions": (", ".join(SENDER),),
        "smtpdRecipientRestrictions": ("check_recipient_access directory:access",),
    }
    given = {"objectClass": ("smtpdPolicy",), "cn": ("default",), "smtpdMyorigin": ("my.domain",)}
    yield f"cn=default,{here}", {**given, "smtpdRecipientDelimiter": ("+",), **lists}


LISTS = [one for one in policies(SUFFIX) if not one[0].startswith("ou=")]


def requests(made: World, count: int, draw: random.Random) -> list[dict[str, str]]:
    """Spelled as people, lists and strangers are."""

    def somebody() -> str:
        return spelled(draw.choice((*made.addresses, *made.logins, "nobody")), draw)

    return [
        {
            "sender": written(somebody(), draw) if draw.random() < 0.8 else "",
            "recipient": written(somebody(), draw),
            "sasl_username": somebody() if draw.random() < 0.7 else "",
        }
        for _ in range(count)
    ]


@pytest.fixture(scope="module")
def slapd() -> Iterator[Slapd]:
    """With the attributes above; each test brings in trees of its own."""
    require_slapd()
    with Slapd(schema="ldappolicy", overlays=STORED, data=tree_of()) as server:
        server.configure(OWN)
        yield server


MEMBERS = (
    f"dn: uid=amy,{SUFFIX}\nobjectClass: inetOrgPerson\nuid: amy\ncn: a\nsn: a\n\n"
    f"dn: cn=posix,{SUFFIX}\nobjectClass: posixGroup\nobjectClass: extensibleObject\ncn: posix\n"
    "gidNumber: 1\nmemberUid: Amy\nmemberUid: bob\nmail: posix@my.domain\n"
    "smtpdRecipientAccess: members_only\n\n"
)


@pytest.mark.parametrize("make", [pytest.param(DS389, marks=needs_389ds), Slapd], ids=["389-ds", "slapd"])
def test_logins_of_members_are_compared_without_case(make: type[DS389] | type[Slapd], tmp_path: Path) -> None:
    """memberUid is caseExactIA5Match (RFC 2307): by another rule amy is Amy on demand, too."""
    require_slapd()
    asked = [
        {"sender": "", "recipient": "posix@my.domain", "sasl_username": name}
        for name in ("amy", "AMY", "bob", "eve")
    ]
    mapped = {"directory.attributes": {"member": ["memberUid"]}}
    with make(schema="ldappolicy") as server:
        policy = (format_record(dn, given.items()) for dn, given in LISTS)
        server.load("\n".join((tree_of("policy"), MEMBERS, *policy)))
        told = asyncio.run(answers(server.uri, merged(ON_DEMAND, mapped), asked))
    assert told[:4] == ["DUNNO", "DUNNO", "REJECT", "REJECT"]


async def answers(uri: str, sections: Sections, asked: Sequence[dict[str, str]]) -> list[str | None]:
    """What a service over that directory replies, and what it replies to the same once more."""
    async with AsyncExitStack() as stack:
        service = await stack.enter_async_context(deciding(uri, sections))
        if "cache" in sections and sections["cache"]["mode"] == "mirror":
            await stack.enter_async_context(following(service, configuration(uri, sections)))
        return [await service.decide(rcpt(**request)) for request in (*asked, *asked)]


async def linted(uri: str, sections: Sections) -> list[str]:
    """What lint tells."""
    async with deciding(uri, sections) as service:
        directory = service.resolver.directory
        _, policies = await service.read_policies()
        faults = await lint(policies, directory, service.settings, Where(service.settings.search_base))
    return list(map(str, faults))


def test_lint_names_what_no_index_serves(slapd: Slapd) -> None:
    """Of what the site has mapped; what it has by its profile (memberUid) is asked for among few entries."""
    text = "is compared with case by the server: it is asked for by caseIgnoreMatch, which no index serves"
    tree = "\n".join((folder("policy"), *(format_record(dn, given.items()) for dn, given in LISTS)))
    slapd.load(tree)
    try:
        told = asyncio.run(linted(slapd.uri, merged(MAPPED, ON_DEMAND)))
    finally:
        dns = [dn for dn, _ in LISTS[::-1]] + [f"ou=policy,{SUFFIX}"]
        slapd.load("\n".join(f"dn: {dn}\nchangetype: delete\n" for dn in dns))
    found = [one for one in told if "compared with case" in one]
    assert found == [
        f"warning: [directory.attributes]: {key}: {name!r} {text}"
        for key, name in (("login", "exactLogin"), ("mail", "exactMail"))
    ]


def evaluated(
    sections: Sections,
    uri: str,
    asked: Sequence[dict[str, str]],
    folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> list[str]:
    """What `ldappolicy eval` says of each."""
    path = folder / "config.toml"
    path.write_text(toml(merged(EXAMPLE, sections, {"directory": {"uri": [uri]}})), "utf-8")
    given = ""
    for one in asked:
        said = {"request": "smtpd_access_policy", **rcpt(**one)._asdict()}
        given += "".join(f"{name}={value}\n" for name, value in said.items()) + "\n"
    words = [sys.executable, "-m", "ldappolicy", "-c", str(path), "eval", "--json", "-"]
    done = subprocess.run(words, input=given, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 75, 78), done.stderr
    return [json.loads(line)["action"] for line in done.stdout.splitlines()]


@pytest.mark.parametrize(
    "seed", [*range(3), *(pytest.param(seed, marks=pytest.mark.long) for seed in range(3, 40))]
)
def test_one_answer_in_all_modes(
    slapd: Slapd,
    tmp_path: Path,
    seed: int,
    request: pytest.FixtureRequest,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Forty requests of a random directory."""
    draw = random.Random(seed)
    made = world(seed, draw)
    asked = requests(made, 40, draw)
    text = "\n".join(format_record(dn, given.items()) for dn, given in made.records)
    slapd.load(text)
    gone = "\n".join(f"dn: {dn}\nchangetype: delete\n" for dn, _ in reversed(made.records))
    request.addfinalizer(lambda: slapd.load(gone))
    (tmp_path / "tree.ldif").write_text(f"{tree_of()}{text}\n# end\n", "utf-8")
    here = merged(MAPPED, {"directory": {"policy_base": f"ou=policy,{made.base}"}})
    file = f"ldif:{tmp_path}/tree.ldif"

    async def story() -> tuple[list[str | None], ...]:
        on_demand = await answers(slapd.uri, merged(here, ON_DEMAND), asked)
        mirrored = await answers(slapd.uri, merged(here, MIRROR), asked)
        return on_demand, mirrored, await answers(file, here, asked)

    on_demand, mirrored, embedded = asyncio.run(story())
    twice = (*asked, *asked)
    assert [] == [told for told in zip(twice, mirrored, embedded, strict=True) if told[1] != told[2]]
    other = [told for told in zip(twice, on_demand, mirrored, strict=True) if told[1] != told[2]]
    assert [] == [told for told in other if told[2] == "DUNNO" or not made.may_differ(told[0])]
    assert embedded[: len(asked)] == evaluated(here, file, asked, tmp_path, capsys)
    assert len(set(on_demand)) > 3
