"""The mirror answers as the directory would, or says that the directory has to be asked."""

import asyncio
import gc
from collections.abc import AsyncIterator, Callable, Iterable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ldappolicy.address import skeleton
from ldappolicy.directory import Scope, Search
from ldappolicy.directory.changes import Changed, Deleted, Members, entry_uuid
from ldappolicy.directory.ldif import LdifDirectory
from ldappolicy.directory.memory import Entries
from ldappolicy.directory.mirror import Applied, Comparison, Mirror, TooLarge
from ldappolicy.entry import Entry, is_below, normal_dn
from ldappolicy.errors import Unavailable
from ldappolicy.ldap_filter import And, Equality, Filter, Not, Or, Present, Substring, parse

BASE = "dc=example,dc=com"
PEOPLE = f"ou=People,{BASE}"
GROUPS = f"ou=Groups,{BASE}"
ATTRIBUTES = ("objectClass", "uid", "cn", "mail", "owner", "smtpdDeniedSenderDN", "entryUUID", "memberURL")
MEMBERS = ("member", "uniqueMember", "memberUid")


def uuid(number: int) -> str:
    """As events spell it."""
    return f"{number:032x}"


def entry(number: int, dn: str, **values: str | Iterable[str]) -> Entry:
    """An entry with an entryUUID."""
    text = uuid(number)
    spelled = f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
    lists = {name: [value] if isinstance(value, str) else list(value) for name, value in values.items()}
    return Entry(dn, {**lists, "entryUUID": [spelled]})


def person(number: int, name: str, where: str = PEOPLE, **values: str) -> Entry:
    """A user."""
    return entry(number, f"uid={name},{where}", uid=name, mail=f"{name}@example.com", **values)


def group(number: int, name: str, *members: str) -> Entry:
    """A group of users, by name."""
    return entry(number, f"cn={name},{GROUPS}", cn=name, member=[f"uid={who},{PEOPLE}" for who in members])


ROOT = entry(1, BASE, objectClass="domain")
OU_PEOPLE = entry(2, PEOPLE, objectClass="organizationalUnit", ou="People")
OU_GROUPS = entry(3, GROUPS, objectClass="organizationalUnit")
AMY, BOB = person(10, "amy"), person(11, "bob")
STAFF, BOSSES = group(20, "staff", "amy", "bob"), group(21, "bosses", "amy")
TREE = (ROOT, OU_PEOPLE, OU_GROUPS, AMY, BOB, STAFF, BOSSES)


async def pages_of(entries: Iterable[Entry], size: int = 2) -> AsyncIterator[Sequence[Entry]]:
    """Entries as a scan yields them."""
    there = list(entries)
    for start in range(0, len(there), size):
        yield there[start : start + size]


def empty(limit: int = 1000, bases: Sequence[str] = (BASE,)) -> Mirror:
    """A mirror that is not loaded, of a server that lists all classes."""
    return Mirror(bases, ATTRIBUTES, MEMBERS, limit, superiors={})


def loaded(*entries: Entry) -> Mirror:
    """A mirror of these entries."""
    mirror = empty()
    asyncio.run(mirror.load(pages_of(entries)))
    return mirror


def find(
    mirror: Mirror,
    text: str | Filter,
    base: str = BASE,
    scope: Scope = Scope.SUB,
    attributes: tuple[str, ...] = ("uid",),
) -> list[str] | None:
    """The first values of the RDNs that are found; None: the directory has to be asked."""
    tree = parse(text) if isinstance(text, str) else text
    found = mirror.find(Search(base, scope, tree, attributes))
    return None if found is None else sorted(one.key.partition(",")[0].rpartition("=")[2] for one in found)


def of(name: str, attr: str = "member") -> Filter:
    """The filter for the groups of a user."""
    return Equality(attr, f"uid={name},{PEOPLE}")


def settled(mirror: Mirror, dangling: Iterable[str], entries: Iterable[Entry]) -> list[Applied]:
    """What a consumer does, if these entries are what the server answers."""
    dns = list(dangling)
    mirror.readings(dns)
    return mirror.settle(dns, entries)


def content(mirror: Mirror) -> dict[str, Entry]:
    """Everything that is mirrored, by DN."""
    found = mirror.find(Search(BASE, Scope.SUB, Present("objectClass"), mirror.attributes))
    return {one.key: one for one in found or ()}


# ---------------------------------------------------------------- what is answered

CASES: list[tuple[str, str, Scope, tuple[str, ...], list[str] | None]] = [
    ("(mail=AMY@example.com)", BASE, Scope.SUB, ("mail",), ["amy"]),
    ("(|(mail=amy@example.com)(uid=bob))", PEOPLE, Scope.ONE, ("MAIL", "cn"), ["amy", "bob"]),
    ("(mail=nobody@example.com)", BASE, Scope.SUB, ("mail",), []),
    ("(mail=prvs=1=nobody@example.com)", BASE, Scope.SUB, ("mail",), []),
    (f"(member=UID=amy, {PEOPLE})", BASE, Scope.SUB, ("cn",), ["bosses", "staff"]),
    (f"(&(cn=staff)(member=uid=amy,{PEOPLE}))", BASE, Scope.SUB, ("cn",), ["staff"]),
    (f"(&(member=uid=amy,{PEOPLE})(!(cn=staff)))", BASE, Scope.SUB, ("cn",), ["bosses"]),
    ("(objectClass=*)", f"UID=amy,{PEOPLE}", Scope.BASE, ("1.1",), ["amy"]),
    ("(objectClass=organizationalUnit)", BASE, Scope.ONE, ("1.1",), ["groups", "people"]),
    ("(uid:=amy)", BASE, Scope.SUB, ("uid",), ["amy"]),
    ("(mail=a*@example.com)", BASE, Scope.SUB, ("uid",), ["amy"]),
    ("(uid:1.2.840.113556.1.4.803:=1)", BASE, Scope.SUB, ("uid",), []),
    ("(memberURL=*)", BASE, Scope.SUB, ("memberURL",), []),
    # a base that is not there
    ("(objectClass=*)", f"uid=eve,{PEOPLE}", Scope.BASE, ("uid",), []),
    ("(objectClass=*)", f"uid=eve,{PEOPLE}", Scope.SUB, ("uid",), None),
    ("(objectClass=*)", f"ou=else,{BASE}", Scope.ONE, ("uid",), None),
    # a base that is not mirrored
    ("(objectClass=*)", "dc=com", Scope.BASE, ("uid",), None),
    ("(mail=amy@example.com)", "dc=com", Scope.SUB, ("uid",), None),
    ("(mail=amy@example.com)", "dc=org", Scope.SUB, ("uid",), None),
    ("(mail=amy@example.com)", "", Scope.SUB, ("uid",), None),
    ("(mail=amy@example.com)", "nowhere", Scope.SUB, ("uid",), None),
    # what is not mirrored
    ("(mail=amy@example.com)", BASE, Scope.SUB, ("uid", "memberOf"), None),
    ("(mail=amy@example.com)", BASE, Scope.SUB, ("*",), None),
    ("(sn=x)", BASE, Scope.SUB, ("uid",), None),
    ("(!(sn=x))", BASE, Scope.SUB, ("uid",), None),
    ("(&(mail=amy@example.com)(sn=*))", BASE, Scope.SUB, ("uid",), None),
    ("(|(mail=amy@example.com)(createTimestamp=*))", BASE, Scope.SUB, ("uid",), None),
    ("(commonName=staff)", BASE, Scope.SUB, ("uid",), None),
    ("(mail;lang-en=amy@example.com)", BASE, Scope.SUB, ("uid",), None),
    ("(memberOf=cn=x)", BASE, Scope.SUB, ("uid",), None),
    # what a server with its schema may see otherwise
    ("(uid>=a)", BASE, Scope.SUB, ("uid",), None),
    ("(!(uid<=a))", BASE, Scope.SUB, ("uid",), None),
    ("(uid~=amie)", BASE, Scope.SUB, ("uid",), None),
    ("(member=uid=amy*)", BASE, Scope.SUB, ("uid",), None),
    ("(!(member=no dn))", BASE, Scope.SUB, ("uid",), None),
    (f"(uid=uid=amy,{PEOPLE})", BASE, Scope.SUB, ("uid",), None),
    ("(objectClass=organ*)", BASE, Scope.SUB, ("uid",), None),
    ("(memberOf:1.2.840.113556.1.4.1941:=cn=x)", BASE, Scope.SUB, ("uid",), None),
    ("(uid:caseExactMatch:=Amy)", BASE, Scope.SUB, ("uid",), None),
    ("(:caseIgnoreMatch:=amy)", BASE, Scope.SUB, ("uid",), None),
    ("(ou:dn:=people)", BASE, Scope.SUB, ("uid",), None),
]


@pytest.mark.parametrize(("text", "base", "scope", "attributes", "expected"), CASES)
def test_find(
    text: str, base: str, scope: Scope, attributes: tuple[str, ...], expected: list[str] | None
) -> None:
    """What is known is answered; what is not mirrored is never "there is none"."""
    assert expected == find(loaded(*TREE), text, base, scope, attributes)


def test_only_what_was_asked_for() -> None:
    """An entry comes with the attributes of the search, and with its DN as spelled."""
    found = loaded(*TREE).find(Search(BASE, Scope.SUB, Equality("uid", "amy"), ("MAIL", "entryUUID", "cn")))
    assert found is not None
    assert [("mail", ("amy@example.com",)), ("entryuuid", AMY.values("entryUUID"))] == sorted(
        found[0].items(), reverse=True
    )
    assert AMY.dn == found[0].dn


UUIDS = [
    ("entryUUID", "6e5a1c01-12b3-11ec-8f23-a0b0c1d2e3f4"),
    ("nsUniqueId", "6e5a1c01-12b311ec-8f23a0b0-c1d2e3f4"),
    ("objectGUID", bytes(range(0x78, 0x88)).decode("utf-8", "surrogateescape")),
    ("entryUUID", "6E5A1C01-12B3-11EC-8F23-A0B0C1D2E3F4"),
    ("nsUniqueId", "odd"),
    ("entryUUID", ""),
]


@pytest.mark.parametrize(("name", "value"), UUIDS)
def test_a_uuid_is_told_as_it_was_spelled(name: str, value: str) -> None:
    """It is held once, in the form of events, and its attribute is what it was."""
    mirror = Mirror([BASE], [name], [], 10)
    asyncio.run(mirror.load(pages_of([Entry(BASE, {name: [value]})])))
    assert {BASE: Entry(BASE, {name: [value]})} == content(mirror)


def test_classes_without_their_superiors() -> None:
    """A server matches superior classes that are not listed: with its schema so do we, else we do not say."""
    ann = entry(30, f"uid=ann,{PEOPLE}", objectClass=["inetOrgPerson", "TOP"], uid="ann")
    tree = parse("(&(uid=ann)(objectClass=person))")
    superiors = {"inetorgperson": ("organizationalperson", "person", "top")}
    expected = [(None, None), ({}, []), (superiors, ["ann"])]
    for known, answer in expected:
        mirror = Mirror([BASE], ATTRIBUTES, MEMBERS, 10, known)
        asyncio.run(mirror.load(pages_of([ROOT, ann])))
        assert answer == find(mirror, tree)
        assert ["ann"] == find(mirror, "(&(uid=ann)(objectClass=*))")


def test_nothing_is_answered_before_it_is_loaded() -> None:
    """Nor is anything held that is told before; what was cleared is as if it had never been loaded."""
    mirror = empty()
    assert Applied(after=AMY) == mirror.apply(Changed(uuid(10), AMY))
    assert Applied() == mirror.apply(Deleted(uuid(10)))
    assert find(mirror, "(uid=amy)") is None
    asyncio.run(mirror.load(pages_of(TREE)))
    assert (["amy"], 7) == (find(mirror, "(uid=amy)"), len(mirror))
    mirror.clear()
    assert (None, 0) == (find(mirror, "(uid=amy)"), len(mirror))


# ---------------------------------------------------------------- changes


def test_a_changed_entry() -> None:
    """The old values find it no more, the new ones do; before and after are whole."""
    mirror = loaded(*TREE)
    new = entry(10, AMY.dn, uid="amy", mail=["amy@example.com", "a@example.com"], title="x")
    mirrored = entry(10, AMY.dn, uid="amy", mail=["amy@example.com", "a@example.com"])
    assert Applied(AMY, mirrored) == mirror.apply(Changed(uuid(10), new))
    assert ["amy"] == find(mirror, "(mail=a@example.com)")
    assert Applied(mirrored, AMY) == mirror.apply(Changed(uuid(10), AMY))
    assert [] == find(mirror, "(mail=a@example.com)")


def test_a_new_entry_and_one_that_goes() -> None:
    """Nobody names them, so nothing is dangling."""
    mirror = loaded(*TREE)
    eve = person(12, "eve")
    assert Applied(None, eve) == mirror.apply(Changed(uuid(12), eve, is_new=True))
    assert ["eve"] == find(mirror, "(mail=eve@example.com)")
    assert Applied(eve, None) == mirror.apply(Deleted(uuid(12)))
    assert ([], []) == (find(mirror, "(mail=eve@example.com)"), find(mirror, of("eve")))
    assert Applied() == mirror.apply(Deleted(uuid(12), eve.dn))


DELETIONS = [
    (Deleted(uuid(11), "uid=somebody,dc=else"), []),
    (Deleted(uuid(99), BOB.dn), ["bob"]),  # the one that is there is another
    (Deleted("", BOB.dn), []),
    (Deleted("", "no dn"), ["bob"]),
    (Deleted("", ""), ["bob"]),
]


@pytest.mark.parametrize(("change", "expected"), DELETIONS)
def test_who_is_deleted(change: Deleted, expected: list[str]) -> None:
    """The uuid says who it is, a DN only where there is none."""
    mirror = loaded(*TREE)
    mirror.apply(change)
    assert expected == find(mirror, "(uid=bob)")


def test_an_entry_that_leaves_the_mirrored_bases() -> None:
    """It is told as changed, and is gone."""
    mirror = loaded(*TREE)
    applied = mirror.apply(Changed(uuid(10), person(10, "amy", "dc=org")))
    assert (AMY, None, (AMY.dn,)) == (applied.before, applied.after, applied.dangling)
    assert [] == find(mirror, "(uid=amy)")
    assert Applied() == mirror.apply(Changed(uuid(77), person(77, "eve", "dc=org")))


def test_a_deleted_member_is_in_doubt_until_it_is_settled() -> None:
    """Who takes the name of a deleted entry is asked for at the server, and then has what the server says."""
    mirror = loaded(*TREE)
    assert (AMY.dn,) == mirror.apply(Deleted(uuid(10))).dangling
    other = person(13, "amy")
    assert Applied(None, other, (AMY.dn,)) == mirror.apply(Changed(uuid(13), other, is_new=True))
    assert find(mirror, "(member=*)") is None
    assert (None, None, ["staff"]) == (
        find(mirror, of("amy")),
        find(mirror, Not(of("amy"))),
        find(mirror, of("bob")),
    )
    assert find(mirror, "(cn=staff)", attributes=("member",)) is None
    applied = settled(mirror, [AMY.dn], [group(20, "staff", "amy", "bob")])
    assert ([STAFF, BOSSES], [STAFF, None]) == ([one.before for one in applied], [applied[0].after, None])
    assert ["staff"] == find(mirror, of("amy"))
    assert () == content(mirror)[BOSSES.key].values("member")


def test_a_denied_sender_that_is_deleted() -> None:
    """Not only members name others: what shows a DN in doubt is asked for, and nothing else is."""
    closed = entry(22, f"cn=closed,{GROUPS}", cn="closed", smtpdDeniedSenderDN=AMY.dn.upper())
    mirror = loaded(ROOT, AMY, closed)
    assert (AMY.dn,) == mirror.apply(Deleted(uuid(10))).dangling
    assert find(mirror, "(cn=closed)", attributes=("smtpdDeniedSenderDN",)) is None
    assert ["closed"] == find(mirror, "(cn=closed)", attributes=("cn",))
    settled(mirror, [AMY.dn], [])
    assert ["closed"] == find(mirror, "(cn=closed)", attributes=("smtpdDeniedSenderDN",))
    assert [] == find(mirror, Equality("smtpdDeniedSenderDN", AMY.dn))


def test_a_renamed_member() -> None:
    """Both names are in doubt; the groups that are read anew end it."""
    mirror = loaded(*TREE)
    ann = person(10, "ann")
    applied = mirror.apply(Changed(uuid(10), ann))
    assert Applied(AMY, ann, (AMY.dn, ann.dn)) == applied
    assert (None, None) == (find(mirror, of("amy")), find(mirror, of("ann")))
    settled(mirror, applied.dangling, [group(20, "staff", "ann", "bob"), group(21, "bosses", "ann")])
    assert ([], ["bosses", "staff"]) == (find(mirror, of("amy")), find(mirror, of("ann")))
    assert ([], ["ann"]) == (find(mirror, "(uid=amy)"), find(mirror, "(uid=ann)"))


def test_what_is_told_while_groups_are_read() -> None:
    """An answer may be older than what the stream has told since: that stays, and what it names in doubt."""
    mirror = loaded(*TREE)
    dangling = mirror.apply(Deleted(uuid(10))).dangling
    mirror.readings(dangling)
    mirror.apply(Changed(uuid(20), group(20, "staff", "bob", "eve")))
    mirror.apply(Deleted(uuid(21)))
    applied = mirror.settle(dangling, [group(20, "staff", "bob", "amy"), BOSSES])
    assert [Applied(dangling=dangling)] == applied
    assert (None, ["staff"], []) == (
        find(mirror, of("amy")),
        find(mirror, of("eve")),
        find(mirror, "(cn=bosses)"),
    )
    assert [] == settled(mirror, applied[0].dangling, [])
    assert [] == find(mirror, of("amy"))


def test_a_load_while_groups_are_read() -> None:
    """The answers are older than what is held now, and count for nothing."""
    mirror = loaded(*TREE)
    dangling = mirror.apply(Deleted(uuid(10))).dangling
    mirror.readings(dangling)
    asyncio.run(mirror.load(pages_of((ROOT, OU_PEOPLE, BOB, group(20, "staff", "eve"), BOSSES))))
    assert [] == mirror.settle(dangling, [STAFF])
    assert ["staff"] == find(mirror, of("eve"))


def test_a_new_entry_under_a_name_that_is_listed_already() -> None:
    """A value that was there before its entry may be stale: the server is asked."""
    mirror = loaded(ROOT, AMY, group(20, "staff", "amy", "eve"))
    assert (f"uid=eve,{PEOPLE}",) == mirror.apply(Changed(uuid(12), person(12, "eve"), is_new=True)).dangling
    assert (None, ["staff"]) == (find(mirror, of("eve")), find(mirror, of("amy")))


def test_readings() -> None:
    """The searches that `settle` needs: whatever names a DN, in the attributes that are mirrored."""
    mirror = Mirror([BASE, PEOPLE, "dc=org"], ("mail", "owner"), ("member", "memberUid"), 10)
    tree = Or(tuple(Equality(name, dn) for dn in ("dc=a", "dc=b") for name in ("owner", "member")))
    attributes = ("mail", "owner", "member", "memberuid")
    expected = [Search(base, Scope.SUB, tree, attributes) for base in (BASE, "dc=org")]
    assert expected == mirror.readings(["dc=a", "dc=b", "dc=a"])
    many = mirror.readings([f"dc={number}" for number in range(60)])
    assert all(isinstance(search.filter, Or) and len(search.filter.parts) <= 50 for search in many)
    assert 2 * 3 == len(many)


def test_an_entry_that_displaces_another() -> None:
    """When the deletion is told late, it does not take the new one with it."""
    mirror = loaded(*TREE)
    other = person(13, "amy")
    assert Applied(None, other, (AMY.dn,), displaced=AMY) == mirror.apply(Changed(uuid(13), other))
    assert Applied() == mirror.apply(Deleted(uuid(10), AMY.dn))
    assert ["amy"] == find(mirror, "(uid=amy)")


TEARS = [
    ("a renamed container", Changed(uuid(2), entry(2, f"ou=Staff,{BASE}"))),
    ("a container that went elsewhere", Changed(uuid(2), entry(2, "ou=Staff,dc=org"))),
    ("a deleted container", Deleted(uuid(2))),
    ("a container that came from elsewhere", Changed(uuid(40), entry(40, f"ou=Staff,{BASE}"))),
]


@pytest.mark.parametrize("change", [row[1] for row in TEARS], ids=[row[0] for row in TEARS])
def test_what_is_below_has_another_name_now(change: Changed | Deleted) -> None:
    """Servers do not tell of the entries below: nothing is answered until all is read again."""
    mirror = loaded(*TREE)
    assert mirror.apply(change).reload
    assert find(mirror, "(uid=bob)") is None
    asyncio.run(mirror.load(pages_of(TREE)))
    assert ["bob"] == find(mirror, "(uid=bob)")


WHOLE = [
    Changed(uuid(2), OU_PEOPLE),
    Changed(uuid(2), entry(2, PEOPLE.upper(), ou="People")),
    Changed(uuid(40), entry(40, f"ou=New,{BASE}"), is_new=True),
    Changed(uuid(10), person(10, "ann")),
    Changed(uuid(41), person(41, "new")),
]


@pytest.mark.parametrize("change", WHOLE)
def test_what_needs_no_reload(change: Changed) -> None:
    """Containers that keep their names, and entries with nothing below them."""
    mirror = loaded(*TREE)
    assert not mirror.apply(change).reload
    assert ["bob"] == find(mirror, "(uid=bob)")


DELTAS = [
    (Members(added=(f"uid=eve,{PEOPLE}",)), ["amy", "bob", "eve"]),
    (Members(added=(f"UID=amy,{PEOPLE}",)), ["amy", "bob"]),
    (Members(removed=(f"uid=amy,{PEOPLE}",)), ["bob"]),
    (Members(removed=(f"UID=AMY, {PEOPLE}", "no dn")), ["bob"]),
    (Members((f"uid=eve,{PEOPLE}",), (f"uid=amy,{PEOPLE}", f"uid=bob,{PEOPLE}")), ["eve"]),
    (Members(removed=(f"uid=nobody,{PEOPLE}",)), ["amy", "bob"]),
    (Members((AMY.dn,), (AMY.dn,)), ["amy", "bob"]),
    (Members(), ["amy", "bob"]),
]


@pytest.mark.parametrize(("members", "expected"), DELTAS)
def test_members_that_came_and_went(members: Members, expected: list[str]) -> None:
    """A group that is told without its members keeps those that it had, and the index knows."""
    mirror = loaded(*TREE)
    applied = mirror.apply(Changed(uuid(20), entry(20, STAFF.dn, cn="crew"), members=members))
    assert applied.after is not None
    told = sorted(
        normal_dn(dn).partition(",")[0].removeprefix("uid=") for dn in applied.after.values("member")
    )
    assert (STAFF, expected, ("crew",)) == (applied.before, told, applied.after.values("cn"))
    inside = [who for who in ("amy", "bob", "eve") if "staff" in (find(mirror, of(who)) or ())]
    assert expected == inside


def test_members_of_a_group_that_was_not_held() -> None:
    """What came is what it has."""
    mirror = loaded(*TREE)
    mirror.apply(Changed(uuid(29), entry(29, f"cn=new,{GROUPS}"), members=Members((AMY.dn,))))
    assert ["bosses", "new", "staff"] == find(mirror, of("amy"))
    mirror.apply(Changed(uuid(20), entry(20, f"cn=crew,{GROUPS}"), members=Members((AMY.dn,))))
    assert ["bosses", "crew", "new"] == find(mirror, of("amy"))
    assert 2 == len(content(mirror)[normal_dn(f"cn=crew,{GROUPS}")].values("member"))
    bare = Mirror([BASE], ("uid",), (), 10)
    asyncio.run(bare.load(pages_of([AMY])))
    assert bare.apply(Changed(uuid(10), AMY, members=Members((BOB.dn,)))).before is not None


def test_values_that_differ_in_spelling_only() -> None:
    """The last of them that goes takes the entry out of the index."""
    mirror = loaded(ROOT, BOB)
    values = ["x", "X", " x", "y"]
    while values:
        mirror.apply(Changed(uuid(10), entry(10, AMY.dn, uid="amy", mail=values)))
        assert (["amy"] if "x" in map(str.strip, map(str.lower, values)) else []) == find(mirror, "(mail=x)")
        values.pop(0)
    mirror.apply(Changed(uuid(10), AMY))
    assert ([], ["amy"]) == (find(mirror, "(mail=y)"), find(mirror, "(mail=amy@example.com)"))


def test_put() -> None:
    """An entry that was read, and not told, is held as well; without its uuid it is who has its DN."""
    mirror = loaded(*TREE)
    mirror.put(group(20, "staff", "bob"))
    assert ["bosses"] == find(mirror, of("amy"))
    assert STAFF.dn == getattr(mirror.put(Entry(STAFF.dn, {"cn": ["crew"]})).before, "dn", "")
    assert (7, ["staff"]) == (len(mirror), find(mirror, "(cn=crew)"))
    mirror.apply(Deleted(uuid(20)))
    assert 6 == len(mirror)


def test_one_more_member_of_a_large_group() -> None:
    """The index takes the difference: nothing is read as a DN but what came."""
    names = [f"u{number}" for number in range(50_000)]
    mirror = loaded(ROOT, group(20, "staff", *names))
    before = len(normal_dn)
    mirror.apply(Changed(uuid(20), group(20, "staff", *names, "one more")))
    mirror.apply(Changed(uuid(20), entry(20, STAFF.dn), members=Members(removed=(f"uid=u7,{PEOPLE}",))))
    assert (["staff"], [], ["staff"]) == tuple(find(mirror, of(name)) for name in ("one more", "u7", "u8"))
    assert len(normal_dn) - before < 20


# ---------------------------------------------------------------- loading


def test_a_comparison() -> None:
    """A second load tells what differs, by uuid; another order of values is no difference."""
    both = entry(10, AMY.dn, uid="amy", mail=["a@example.com", "b@example.com"])
    turned = entry(10, AMY.dn, uid="amy", mail=["b@example.com", "a@example.com"])
    mirror = empty()
    held = [ROOT, OU_PEOPLE, both, BOB, STAFF]
    there = [ROOT, OU_PEOPLE, turned, person(11, "rob"), group(20, "staff", "rob"), BOSSES]
    assert Comparison(5, 0, 0) == asyncio.run(mirror.load(pages_of(held)))
    assert Comparison(0, 0, 0) == asyncio.run(mirror.load(pages_of(held)))
    assert Comparison(1, 2, 0) == asyncio.run(mirror.load(pages_of(there)))
    assert Comparison(0, 0, 3) == asyncio.run(mirror.load(pages_of(there[:3])))
    assert (["amy"], []) == (find(mirror, "(uid=*)"), find(mirror, of("rob")))


def test_bases_that_overlap() -> None:
    """An entry that is scanned twice is one."""
    mirror = empty(bases=(PEOPLE, BASE, PEOPLE))
    assert Comparison(7, 0, 0) == asyncio.run(mirror.load(pages_of((*TREE, *TREE))))


@pytest.mark.parametrize(("limit", "is_refused"), [(7, False), (6, True)])
def test_too_large(limit: int, is_refused: bool) -> None:
    """Beyond the limit nothing is held, and the pages are read no further."""
    mirror = empty(limit)
    pages = pages_of(TREE, 1)
    if is_refused:
        with pytest.raises(TooLarge, match="more than 6 entries"):
            asyncio.run(mirror.load(pages))
    else:
        asyncio.run(mirror.load(pages))
    assert (0 if is_refused else 7) == len(mirror)


def test_too_large_by_and_by() -> None:
    """A mirror that grows beyond its limit asks for the load that says so."""
    mirror = empty(7)
    asyncio.run(mirror.load(pages_of(TREE)))
    assert not mirror.apply(Changed(uuid(10), AMY)).reload
    assert mirror.apply(Changed(uuid(12), person(12, "eve"), is_new=True)).reload
    assert ["eve"] == find(mirror, "(uid=eve)")


MANY = [person(100 + number, f"u{number}") for number in range(29)]
SHOWN = [
    # (held, shown by the next load, whether that is believed)
    ([ROOT, *MANY], [ROOT, *MANY[:14]], True),
    ([ROOT, *MANY], [ROOT, *MANY[:13]], False),
    ([ROOT, *MANY[:19]], [ROOT], True),
    ([ROOT, *MANY[:20]], [ROOT], False),
    ([ROOT], [], False),
    (
        [ROOT, *MANY],
        [ROOT, *(person(200 + number, f"u{number}") for number in range(29))],
        True,
    ),
]


@pytest.mark.parametrize(("held", "shown", "is_believed"), SHOWN)
def test_a_replica_that_is_half_loaded(held: list[Entry], shown: list[Entry], is_believed: bool) -> None:
    """More than half of the entries do not go at once: what was held stays; new uuids are no loss."""
    mirror = empty()
    asyncio.run(mirror.load(pages_of(held)))
    if is_believed:
        asyncio.run(mirror.load(pages_of(shown)))
    else:
        with pytest.raises(Unavailable, match="not believed"):
            asyncio.run(mirror.load(pages_of(shown)))
    now = shown if is_believed else held
    assert len(now) == len(mirror)
    assert {one.key for one in now} == set(content(mirror))


def test_an_empty_directory_is_not_believed() -> None:
    """Not even at first: absent would be said of everybody."""
    mirror = empty()
    with pytest.raises(Unavailable, match="no entry at all"):
        asyncio.run(mirror.load(pages_of([])))
    assert find(mirror, "(objectClass=*)", f"uid=amy,{PEOPLE}", Scope.BASE) is None


def between(
    change: Callable[[], object], before: Iterable[Entry], after: Iterable[Entry]
) -> AsyncIterator[Sequence[Entry]]:
    """Pages between which something happens."""

    async def pages() -> AsyncIterator[Sequence[Entry]]:
        yield list(before)
        change()
        yield list(after)

    return pages()


def test_what_is_told_during_a_load_outlives_it() -> None:
    """A page that was read before the change does not bring back what was."""
    mirror = loaded(*TREE)
    eve, new = person(12, "eve"), person(10, "amy", cn="new")

    def happen() -> None:
        mirror.apply(Changed(uuid(10), person(10, "amy", cn="old")))
        mirror.apply(Changed(uuid(10), new))
        mirror.apply(Changed(uuid(12), eve, is_new=True))
        mirror.apply(Deleted(uuid(11)))
        mirror.apply(Changed(uuid(20), entry(20, STAFF.dn, cn="staff"), members=Members((eve.dn,))))
        mirror.apply(Changed(uuid(20), entry(20, STAFF.dn, cn="staff"), members=Members((), (AMY.dn,))))
        assert ["amy"] == find(mirror, "(cn=new)")

    pages = between(happen, (ROOT, OU_PEOPLE, OU_GROUPS, AMY, BOB), (STAFF, BOSSES))
    assert Comparison(0, 0, 0, (BOB.dn,)) == asyncio.run(mirror.load(pages))
    found = [find(mirror, text) for text in ("(cn=new)", "(uid=eve)", "(uid=bob)")]
    assert [["amy"], ["eve"], []] == found
    assert [["bosses"], ["staff"], None] == [find(mirror, of(who)) for who in ("amy", "eve", "bob")]


def test_a_name_that_was_left_during_a_load() -> None:
    """A page of a group may be older than what the server mended, and the page of the member younger."""
    for change in (Deleted(uuid(10)), Changed(uuid(10), person(10, "ann"))):
        mirror = loaded(*TREE)

        def happen(mirror: Mirror = mirror, change: Changed | Deleted = change) -> None:
            settled(mirror, mirror.apply(change).dangling, [])

        left = [person(10, "ann")] if isinstance(change, Changed) else []
        comparison = asyncio.run(mirror.load(between(happen, (STAFF,), (ROOT, OU_PEOPLE, BOB, *left))))
        assert AMY.dn in comparison.dangling
        assert (None, ["staff"]) == (find(mirror, of("amy")), find(mirror, of("bob")))
        assert (None if left else []) == find(mirror, of("ann"))


FIRST = [
    (Changed(uuid(12), person(12, "eve"), is_new=True), False),
    (Changed(uuid(10), AMY), True),
    (Deleted(uuid(11)), True),
]


@pytest.mark.parametrize(("change", "is_torn"), FIRST)
def test_what_is_told_during_the_first_load(change: Changed | Deleted, is_torn: bool) -> None:
    """Nothing says what a changed entry was called before: unless it is new, it takes another load."""
    mirror = empty()
    pages = between(lambda: mirror.apply(change), (ROOT, STAFF), (AMY,))
    assert is_torn is asyncio.run(mirror.load(pages)).reload
    assert (None if is_torn else ["amy"]) == find(mirror, "(uid=amy)")


def test_a_container_that_is_renamed_during_a_load() -> None:
    """Some pages have the old names and some the new ones: it takes another load."""
    for mirror in (loaded(*TREE), empty()):
        staff = entry(2, f"ou=Staff,{BASE}")
        pages = between(
            lambda mirror=mirror, staff=staff: mirror.apply(Changed(uuid(2), staff)),  # type: ignore[misc]
            (ROOT, OU_PEOPLE, AMY),
            (BOB, STAFF),
        )
        assert asyncio.run(mirror.load(pages)).reload
        assert find(mirror, "(uid=amy)") is None


async def broken() -> AsyncIterator[Sequence[Entry]]:
    """A scan that is cut off."""
    yield [ROOT]
    raise Unavailable("the connection was lost")


def test_a_load_that_fails() -> None:
    """What is held stays and is kept up, and the next load finds nothing left over."""
    mirror = loaded(*TREE)
    with pytest.raises(Unavailable, match="lost"):
        asyncio.run(mirror.load(broken()))
    mirror.apply(Deleted(uuid(10)))
    assert (["bob"], 6, True) == (find(mirror, "(uid=*)"), len(mirror), gc.isenabled())
    asyncio.run(mirror.load(pages_of(TREE)))
    assert ["amy", "bob"] == find(mirror, "(uid=*)")


def test_one_load_at_a_time() -> None:
    """The second is refused, the first goes on, and a cancelled one leaves what was held."""

    async def run() -> None:
        mirror, waits = empty(), asyncio.Event()
        await mirror.load(pages_of(TREE))

        async def slow() -> AsyncIterator[Sequence[Entry]]:
            yield [ROOT]
            await waits.wait()
            yield [AMY]

        first = asyncio.create_task(mirror.load(slow()))
        await asyncio.sleep(0)
        with pytest.raises(Unavailable, match="already"):
            await mirror.load(pages_of(TREE))
        waits.set()
        assert Comparison(0, 0, 5) == await first
        waits.clear()
        again = asyncio.create_task(mirror.load(slow()))
        await asyncio.sleep(0)
        again.cancel()
        await asyncio.gather(again, return_exceptions=True)
        assert (2, True) == (len(mirror), gc.isenabled())
        assert Comparison(5, 0, 0) == await mirror.load(pages_of(TREE))

    asyncio.run(run())


@pytest.mark.servers
def test_the_collector_is_off_while_loading_and_does_not_see_what_is_loaded() -> None:
    """Looking through a large mirror for garbage would stop every request for a while."""
    seen = []
    large = [person(1000 + number, f"u{number}") for number in range(10_000)]
    mirror = empty(20_000)
    before = gc.get_freeze_count()
    try:
        asyncio.run(mirror.load(between(lambda: seen.append(gc.isenabled()), [ROOT], large)))
        assert ([False], True) == (seen, gc.isenabled())
        assert gc.get_freeze_count() - before > 10_000
    finally:
        gc.unfreeze()


def test_others_run_while_it_loads() -> None:
    """A large page, or a large group, does not keep the event loop for itself."""
    turns = 0

    async def run() -> None:
        nonlocal turns

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        counting = asyncio.create_task(count())
        people = [person(1000 + number, f"u{number}") for number in range(2000)]
        everybody = group(20, "staff", *(f"u{number}" for number in range(2000)))
        await empty(5000).load(pages_of([ROOT, *people, everybody], 5000))
        counting.cancel()

    asyncio.run(run())
    assert turns > 20


# ---------------------------------------------------------------- properties

NAMES = ("amy", "bob", "eve")
LISTS = ("staff", "bosses")


class Server:
    """A directory that changes and tells what servers tell; `refint`: it mends groups, and says nothing."""

    def __init__(self, refint: bool) -> None:
        self.entries = {entry_uuid(one): one for one in TREE}
        self.people = PEOPLE
        self.refint = refint
        self.latest = 100

    def search(self, search: Search) -> list[Entry]:
        """What a search yields now."""
        return list(asyncio.run(LdifDirectory(self.entries.values()).search(search)))

    def at(self, dn: str) -> str:
        """The uuid of the entry with a DN, if there is one."""
        return next((uuid for uuid, one in self.entries.items() if one.key == normal_dn(dn)), "")

    def write(self, number: str, made: Entry, *, is_new: bool = False) -> Changed:
        """Hold an entry, and tell it."""
        self.entries[number] = made
        return Changed(number, made, is_new=is_new)

    def change(self, what: int, name: str, other: str, listed: str) -> Changed | Deleted | None:
        """One operation; None if there is nothing to do it with."""
        user, new = self.at(f"uid={name},{self.people}"), self.at(f"uid={other},{self.people}")
        cn = self.at(f"cn={listed},{GROUPS}")
        match what:
            case 0 if not user:
                self.latest += 1
                made = person(self.latest, name, self.people)
                return self.write(entry_uuid(made), made, is_new=other == "eve")
            case 1 if user:
                gone = self.entries.pop(user)
                self.mend(gone.dn, ())
                return Deleted(user)
            case 2 if user and not new:
                renamed = person(int(user, 16), other, self.people)
                self.mend(self.entries[user].dn, (renamed.dn,))
                return self.write(user, renamed)
            case 3 if user:
                return self.write(user, person(int(user, 16), name, self.people, cn=other))
            case 4 | 5 if cn:
                return self.list_or_not(cn, f"uid={name},{self.people}", is_part=what == 5)
            case 6 if cn:
                del self.entries[cn]
                return Deleted(cn, f"cn={listed},{GROUPS}")
            case 7 if not cn:
                self.latest += 1
                return self.write(uuid(self.latest), group(self.latest, listed, name))
            case 8:
                return self.move_people()
        return None

    def list_or_not(self, number: str, dn: str, *, is_part: bool) -> Changed:
        """Add a member to a group, or take it out."""
        had = self.entries[number]
        members = had.values("member")
        is_in = dn in members
        now = tuple(one for one in members if one != dn) if is_in else (*members, dn)
        told = self.write(number, Entry(had.dn, {**dict(had.items()), "member": now}))
        if not is_part:
            return told
        bare = Entry(had.dn, {name: values for name, values in had.items() if name != "member"})
        return Changed(number, bare, members=Members((), (dn,)) if is_in else Members((dn,)))

    def mend(self, old: str, new: tuple[str, ...]) -> None:
        """Referential integrity, if the server has it."""
        for number, one in self.entries.items():
            members = one.values("member")
            if self.refint and old in members:
                now = (*(dn for dn in members if dn != old), *new)
                self.entries[number] = Entry(one.dn, {**dict(one.items()), "member": now})

    def move_people(self) -> Changed:
        """Rename the container; only that is told."""
        old, self.people = self.people, f"ou=Staff,{BASE}" if self.people == PEOPLE else PEOPLE
        for number, one in list(self.entries.items()):
            if one.dn.endswith("," + old):
                dn = one.dn.removesuffix(old) + self.people
                self.entries[number] = Entry(dn, dict(one.items()))
                self.mend(one.dn, (dn,))
        return self.write(uuid(2), entry(2, self.people))


def assert_never_wrong(mirror: Mirror, server: Server) -> None:
    """Whatever is answered is what the server would answer now."""
    dns = [f"uid={name},{where}" for name in NAMES for where in (PEOPLE, f"ou=Staff,{BASE}")]
    asked = [*(Equality("member", dn) for dn in dns), *(Equality("uid", name) for name in NAMES)]
    for tree in asked:
        search = Search(BASE, Scope.SUB, tree, ("uid", "cn"))
        found = mirror.find(search)
        if found is not None:
            assert {one.key for one in server.search(search)} == {one.key for one in found}, tree


def settle(mirror: Mirror, server: Server, dangling: tuple[str, ...]) -> None:
    """What a consumer does about DNs that are dangling."""
    read = {one.key: one for search in mirror.readings(dangling) for one in server.search(search)}
    mirror.settle(dangling, read.values())


def step(mirror: Mirror, server: Server, operation: tuple[int, str, str, str]) -> bool:
    """One operation at the server and at the mirror; whether the mirror asks to be loaded."""
    change = server.change(*operation)
    if change is None:
        return False
    applied = mirror.apply(change)
    assert_never_wrong(mirror, server)
    settle(mirror, server, applied.dangling)
    assert_never_wrong(mirror, server)
    return applied.reload


def assert_as_loaded(mirror: Mirror, server: Server) -> None:
    """Nothing tells the mirror from one that has just been loaded."""
    fresh = empty()
    asyncio.run(fresh.load(pages_of(server.entries.values())))
    shown = [
        {key: {name: sorted(values) for name, values in one.items()} for key, one in content(which).items()}
        for which in (fresh, mirror)
    ]
    assert shown[0] == shown[1]
    for name in NAMES:
        tree = Equality("member", f"uid={name},{server.people}")
        assert find(fresh, tree) == find(mirror, tree)
    assert asyncio.run(mirror.load(pages_of(server.entries.values()))) == Comparison(0, 0, 0)


operations = st.lists(
    st.tuples(
        st.sampled_from((0, 0, 1, 1, 2, 3, 4, 4, 5, 6, 7, 8)),
        st.sampled_from(NAMES),
        st.sampled_from(NAMES),
        st.sampled_from(LISTS),
    ),
    max_size=12,
)


@pytest.mark.servers
@settings(deadline=None)
@given(operations, st.booleans())
def test_changes_lead_where_a_load_leads(done: list[tuple[int, str, str, str]], refint: bool) -> None:
    """After any changes the mirror is as if it were loaded, and on the way it never says what is not so."""
    server = Server(refint)
    mirror = loaded(*server.entries.values())
    for operation in done:
        if step(mirror, server, operation):
            asyncio.run(mirror.load(pages_of(server.entries.values())))
    assert_as_loaded(mirror, server)


@pytest.mark.servers
@settings(deadline=None)
@given(operations, st.booleans(), st.booleans(), st.permutations(range(len(TREE))), st.integers(1, 4))
def test_changes_during_a_load(
    done: list[tuple[int, str, str, str]], refint: bool, is_first: bool, order: list[int], size: int
) -> None:
    """The same, with all the changes between the pages of one load."""
    server = Server(refint)
    mirror = empty() if is_first else loaded(*server.entries.values())
    left = list(done)
    numbers = [entry_uuid(TREE[number]) for number in order]

    async def pages() -> AsyncIterator[Sequence[Entry]]:
        for start in range(0, len(numbers), size):
            page = [number for number in numbers[start : start + size] if number in server.entries]
            yield [server.entries[number] for number in page]
            for _ in range(2):
                if left:
                    await asyncio.to_thread(step, mirror, server, left.pop(0))

    comparison = asyncio.run(mirror.load(pages()))
    assert_never_wrong(mirror, server)
    settle(mirror, server, comparison.dangling)
    assert_never_wrong(mirror, server)
    if comparison.reload:
        asyncio.run(mirror.load(pages_of(server.entries.values())))
    assert_as_loaded(mirror, server)


DNS = (AMY.dn, AMY.dn.upper(), BOB.dn.upper(), f"uid=eve,{PEOPLE}")
BRANCH = ("dc=com", "ou=a,dc=com", "ou=b,ou=a,dc=com", "uid=c,ou=b,ou=a,dc=com", "uid=d,ou=b,ou=a,dc=com")


@given(st.lists(st.sampled_from(BRANCH)))
def test_which_bases_are_there(turned: list[str]) -> None:
    """A base is there as long as an entry is at it or under it, in whatever order they come and go."""
    entries: Entries[Entry] = Entries()
    held: set[str] = set()
    for dn in turned:
        held ^= {dn}
        if dn in held:
            entries.put(Entry(dn, {}))
        else:
            entries.remove(dn)
        for base in (*BRANCH, ""):
            below = any(is_below(key, base) and key != base for key in held)
            assert (base in held or below, below) == (entries.holds(base), entries.is_parent(base))


LETTERS = ("jos\u00e9", "JOS\u00c9", "j\u00f3se", "jose", "\uff41my", "Amy", "amy")


@given(
    st.lists(st.tuples(st.sampled_from(DNS[:2] + DNS[3:]), st.lists(st.sampled_from(LETTERS), max_size=3)))
)
def test_what_resembles_is_known_after_any_change(put: list[tuple[str, list[str]]]) -> None:
    """By the index it is whoever has a value of that skeleton, which is not ASCII or is the skeleton."""
    entries: Entries[Entry] = Entries()
    for name in LETTERS:
        entries.resembling(BASE, [("uid", (name,))])
    for dn, names in put:
        entries.put(Entry(dn, {"uid": names}))
        for name in LETTERS:
            expected = {
                one.key
                for one in entries
                if skeleton(name.casefold()) in {skeleton(value.casefold()) for value in one.values("uid")}
            }
            found = entries.resembling(BASE, [("uid", (name,))]) + (
                entries.having(BASE, [("uid", (name,))]) or []
            )
            assert expected == {one.key for one in found}


VALUES = ("amy", "BOB", "staff", "amy@example.com", "x")
texts = st.sampled_from(("uid", "Mail", "cn", "memberUid", "objectClass", "sn"))
trees: st.SearchStrategy[Filter] = st.recursive(
    st.one_of(
        st.builds(Equality, texts, st.sampled_from(VALUES)),
        st.builds(Equality, st.sampled_from(("member", "uniqueMember", "owner")), st.sampled_from(DNS)),
        st.builds(Present, st.sampled_from(("objectClass", "mail", "member", "owner"))),
        st.builds(Substring, texts, st.sampled_from(("a", "b"))),
    ),
    lambda inner: st.one_of(
        st.builds(And, st.lists(inner, max_size=3).map(tuple)),
        st.builds(Or, st.lists(inner, max_size=3).map(tuple)),
        st.builds(Not, inner),
    ),
    max_leaves=8,
)
people = st.builds(
    lambda number, name, mails, member, owner, where: entry(
        number, f"uid={name}{number},{where}", uid=name, mail=mails, member=member, owner=owner
    ),
    st.integers(100, 130),
    st.sampled_from(VALUES[:3]),
    st.lists(st.sampled_from(VALUES), max_size=3),
    st.lists(st.sampled_from((*DNS, "no dn")), max_size=12),
    st.lists(st.sampled_from(DNS), max_size=1),
    st.sampled_from((PEOPLE, GROUPS)),
)


@pytest.mark.servers
@settings(deadline=None)
@given(
    st.lists(people, max_size=20),
    trees,
    st.sampled_from(list(Scope)),
    st.sampled_from((BASE, PEOPLE, GROUPS)),
)
def test_find_is_what_a_search_finds(told: list[Entry], tree: Filter, scope: Scope, where: str) -> None:
    """Whatever is answered is what the embedded directory answers from the same entries."""
    first = (ROOT, OU_PEOPLE, OU_GROUPS, AMY)
    mirror = loaded(*first, *told[: len(told) // 2])
    directory = LdifDirectory({entry_uuid(one): one for one in (*first, *told)}.values())
    for one in told[len(told) // 2 :]:
        dangling = mirror.apply(Changed(entry_uuid(one), one)).dangling
        settled(mirror, dangling, [])
    for one in directory:
        mirror.put(one)
    search = Search(where, scope, tree, mirror.attributes)
    found = mirror.find(search)
    if found is not None:
        expected = asyncio.run(directory.search(search))
        shown = [Entry(one.dn, {name: one.values(name) for name in mirror.attributes}) for one in expected]
        assert {one.key: one for one in shown} == {one.key: one for one in found}
