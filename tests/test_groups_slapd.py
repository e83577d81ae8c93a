"""Who belongs to which group: real slapd in all its group models, and the embedded directory, agree.

The same LDIF is loaded over LDAP (slapo-memberof does not run in slapadd) into servers that keep memberOf,
that compute it, nested or not at all, with and without dynlist; each is asked for every pair of a person
and a group, by login and by envelope sender.
"""

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from ldappolicy.service import Service
from tests.labs.deciding import deciding, rcpt
from tests.labs.ldappolicy import Sections
from tests.labs.server import tree_of
from tests.labs.slapd import NESTED, PLAIN, STORED, SUFFIX, Slapd, require_slapd

ZOE = f"cn=O\\27Brien\\, Zo\\C3\\AB,ou=people,{SUFFIX}"

HEAD = (
    tree_of("people", "away", "groups", "policy")
    + f"""\
dn: cn=default,ou=policy,{SUFFIX}
objectClass: smtpdPolicy
cn: default
smtpdRecipientRestrictions: check_sender_access recipient:members, reject

dn: cn=login,ou=policy,{SUFFIX}
objectClass: smtpdPolicy
cn: login
smtpdRecipientRestrictions: check_sasl_access recipient:members, reject

dn: {ZOE}
objectClass: inetOrgPerson
cn:: TydCcmllbiwgWm/Dqw==
sn: O'Brien
uid: zoe
mail: zoe@x.example

"""
)

BELONGS = {
    "amy": {"g1", "g2", "g3", "unique", "around-unique"},
    "zoe": {"g1", "g2", "g3", "unique", "around-unique"},
    "bob": {"g2", "g3", "unique", "around-unique"},
    "carol": {"loop-a", "loop-b"},
    "dan": {"itself", "unique", "around-unique"},
    "eve": {"dynamic", "around-dynamic", "any"},
    "fred": {"posix", "around-posix"},
    "gus": {"any", "one"},
    "nobody": set(),
}
"""Whom which groups have, at any depth."""

MEMBERS = {
    "g1": ("member", ["uid=amy,ou=people", ZOE]),
    "g2": ("member", ["CN=G1, OU=groups", "uid=bob,ou=people"]),
    "g3": ("member", ["cn=g2,ou=groups"]),
    "loop-a": ("member", ["cn=loop-b,ou=groups", "uid=carol,ou=people"]),
    "loop-b": ("member", ["cn=loop-a,ou=groups"]),
    "itself": ("member", ["cn=itself,ou=groups", "uid=dan,ou=people"]),
    "unique": ("uniqueMember", ["uid=dan,ou=people", "cn=g2,ou=groups"]),
    "around-unique": ("member", ["cn=unique,ou=groups"]),
    "posix": ("memberUid", ["fred", "frederic"]),
    "around-posix": ("member", ["cn=posix,ou=groups"]),
    "dynamic": ("memberURL", [f"ldap:///ou=people,{SUFFIX}??one?(title=boss)"]),
    "around-dynamic": ("member", ["cn=dynamic,ou=groups"]),
    "any": ("memberURL", [f"ldap:///{SUFFIX}??sub?(&(objectClass=inetOrgPerson)(title=boss))"]),
    "one": ("memberURL", [f"ldap:///uid=gus,ou=away,{SUFFIX}", f"ldap:///{SUFFIX}??one?(title=boss)"]),
    "other": ("member", [f"cn=nobody,{SUFFIX}"]),
}
CLASSES = {
    "member": "groupOfNames",
    "uniqueMember": "groupOfUniqueNames",
    "memberUid": "posixGroup",
    "memberURL": "groupOfURLs",
}


def person(uid: str, *lines: str, where: str = "people") -> str:
    """One of ou=people."""
    return "\n".join(
        (
            f"dn: uid={uid},ou={where},{SUFFIX}",
            "objectClass: inetOrgPerson",
            *(f"{name}: {uid}" for name in ("uid", "cn", "sn")),
            f"mail: {uid}@x.example",
            *lines,
            "\n",
        )
    )


def group(name: str, attribute: str, values: Sequence[str]) -> str:
    """One of ou=groups, with an address of its own."""
    if attribute in ("member", "uniqueMember"):
        values = [value if value.endswith(SUFFIX) else f"{value},{SUFFIX}" for value in values]
    lines = [f"objectClass: {CLASSES[attribute]}", "objectClass: smtpdAccessControl", f"cn: {name}"]
    lines += ["gidNumber: 100"] if attribute == "memberUid" else []
    lines += [f"mail: {name}@x.example", *(f"{attribute}: {value}" for value in values)]
    return "\n".join((f"dn: cn={name},ou=groups,{SUFFIX}", *lines, "\n"))


TREE = (
    HEAD
    + "".join(person(uid) for uid in ("amy", "bob", "carol", "dan", "fred", "nobody"))
    + person("eve", "title: boss")
    + person("gus", "title: Boss", where="away")
    + "".join(group(name, *members) for name, members in MEMBERS.items())
)

SERVERS = {
    "plain": PLAIN,
    "memberof": ("memberof",),
    "stored": STORED,
    "dynlist": ("dynlist",),
    "nested": NESTED,
}


@pytest.fixture(
    scope="module", params=[*(pytest.param(name, marks=pytest.mark.servers) for name in SERVERS), "ldif"]
)
def uri(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The tree behind a server of each kind, and in a file."""
    if request.param == "ldif":
        path = tmp_path_factory.mktemp("groups") / "tree.ldif"
        path.write_text(TREE, "utf-8")
        yield f"ldif:{path}"
        return
    require_slapd()
    with Slapd(schema="ldappolicy", overlays=SERVERS[request.param]) as slapd:
        slapd.load(TREE)
        yield slapd.uri


async def memberships(service: Service, context: str) -> dict[str, set[str]]:
    """Who is a member of what, as the restriction has it."""

    async def belongs(who: str, name: str) -> bool:
        request = rcpt(
            sender=f"{who}@x.example" if not context else "",
            sasl_username=who if context else "",
            recipient=f"{name}@x.example",
            policy_context=context,
        )
        action = await service.decide(request)
        assert action in ("DUNNO", "reject,"), (who, name)
        return action == "DUNNO"

    return {who: {name for name in MEMBERS if await belongs(who, name)} for who in BELONGS}


@pytest.mark.parametrize("context", ["", "login"])
def test_every_directory_says_the_same_of_everybody(uri: str, context: str) -> None:
    """DNs in other spellings, loops, groups of themselves, memberUid, uniqueMember, memberURL, all nested."""

    async def story() -> dict[str, set[str]]:
        async with deciding(uri) as service:
            return await memberships(service, context)

    assert asyncio.run(story()) == BELONGS


def test_what_is_known_of_one_is_not_taken_for_another(uri: str) -> None:
    """All pairs at once, over one cache and shared searches: the same again."""

    async def story() -> None:
        async with deciding(uri) as service:
            both = await asyncio.gather(memberships(service, ""), memberships(service, "login"))
            assert list(both) == [BELONGS, BELONGS]

    asyncio.run(story())


@pytest.mark.servers
@pytest.mark.parametrize("overlay", ["memberof", "dynlist_nested"])
def test_member_of_alone_is_enough(overlay: str) -> None:
    """Where the server keeps memberOf, groups need not be asked for: each memberOf value names one."""
    require_slapd()
    sections: Sections = {"directory.attributes": {"member": ["memberUid"]}}

    async def story(uri: str) -> dict[str, set[str]]:
        async with deciding(uri, sections) as service:
            return await memberships(service, "login")

    with Slapd(schema="ldappolicy", overlays=[overlay]) as slapd:
        slapd.load(TREE)
        found = asyncio.run(story(slapd.uri))
    for who in ("amy", "zoe", "bob"):
        assert {"g1", "g2", "g3"} & BELONGS[who] == found[who] & {"g1", "g2", "g3"}
    assert all(found[who] <= BELONGS[who] for who in BELONGS)
    assert found["carol"] >= {"loop-a"}


def test_member_of_in_a_file(tmp_path: Path) -> None:
    """An export holds memberOf as the server computed it: spelled otherwise, dangling, or in a loop."""
    (tmp_path / "tree.ldif").write_text(
        HEAD
        + person("amy", f"memberOf: CN=g1 , ou=Groups,{SUFFIX}", f"memberOf: cn=gone,ou=groups,{SUFFIX}")
        + group("g1", "member", ["uid=other,ou=people"]).rstrip()
        + f"\nmemberOf: cn=g2,ou=groups,{SUFFIX}\n\n"
        + group("g2", "member", ["uid=other,ou=people"]).rstrip()
        + f"\nmemberOf: cn=g1,ou=groups,{SUFFIX}\n\n"
        + group("g3", "member", ["uid=other,ou=people"]),
        "utf-8",
    )

    async def story() -> list[str | None]:
        async with deciding(f"ldif:{tmp_path}/tree.ldif") as service:
            return [
                await service.decide(rcpt(sender="amy@x.example", recipient=f"{name}@x.example"))
                for name in ("g1", "g2", "g3")
            ]

    assert asyncio.run(story()) == ["DUNNO", "DUNNO", "reject,"]


@pytest.mark.servers
@pytest.mark.parametrize(
    ("who", "most"),
    [
        ("nobody", 4),
        ("amy", 8),
    ],
)
def test_members_are_found_from_below(who: str, most: int) -> None:
    """A search for each level, whatever the size of the groups: their members are never read."""
    require_slapd()
    many = "\n".join(f"member: uid=u{n},ou=people,{SUFFIX}" for n in range(2000))
    crowd = f"dn: cn=crowd,ou=groups,{SUFFIX}\nobjectClass: groupOfNames\ncn: crowd\n{many}\n"

    async def story(slapd: Slapd) -> None:
        sections: Sections = {"directory.attributes": {"member": ["member"]}}
        async with deciding(slapd.uri, sections) as service:
            before = slapd.searches()
            request = rcpt(sender=f"{who}@x.example", recipient="g3@x.example")
            expected = "DUNNO" if "g3" in BELONGS[who] else "reject,"
            assert await service.decide(request) == expected
            assert slapd.searches() - before <= most
            assert " attr=" in slapd.log.read_text()
            asked = [line for line in slapd.log.read_text().splitlines() if "SRCH attr=" in line]
            assert not any("member" in line.split("attr=")[1].split() for line in asked)

    with Slapd(schema="ldappolicy", overlays=PLAIN) as slapd:
        slapd.load(TREE + crowd)
        asyncio.run(story(slapd))
