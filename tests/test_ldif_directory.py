"""The embedded directory answers as a server would, from the entries of a file."""

import asyncio
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ldappolicy.directory import Directory, Scope, Search
from ldappolicy.directory.ldif import LdifDirectory
from ldappolicy.directory.matching import DN_ATTRIBUTES
from ldappolicy.entry import Entry
from ldappolicy.errors import InputError, Unavailable
from ldappolicy.ldap_filter import And, Equality, Extensible, Filter, Not, Or, Present, Substring, parse

TREE = r"""
version: 1

dn: dc=example,dc=com
objectClass: domain
dc: example

dn: ou=People,dc=example,dc=com
objectClass: organizationalUnit
ou: People

dn: uid=amy,ou=People,dc=example,dc=com
objectClass: top
objectClass: inetOrgPerson
uid: amy
cn: Amy  van  Dyk
mail: Amy@Example.com
mailAlternateAddress: a.vandyk@example.com
employeeNumber: 7
userAccountControl: 514
manager: UID=Eve, OU=People, DC=Example, DC=com

dn: uid=bob,ou=People,dc=example,dc=com
objectClass: inetOrgPerson
uid: bob
cn: Bob Strauß
mail: bob@example.com
mail: robert@example.com
employeeNumber: 10
userAccountControl: 512

dn: uid=eve+cn=Eve,ou=People,dc=example,dc=com
objectClass: inetOrgPerson
uid: eve
mail: BOB@example.com
employeeNumber: none

dn: cn=Staff\2C all,ou=Groups,dc=example,dc=com
objectClass: groupOfNames
cn: Staff, all
member: uid=AMY, ou=people, dc=example, dc=com
member: CN=Eve+UID=eve,ou=People,dc=example,dc=com
member: this is no DN

dn: cn=unique,ou=Groups,dc=example,dc=com
objectClass: groupOfUniqueNames
uniqueMember: uid=bob,ou=people,dc=example,dc=com#'0101'B
uniqueMember: uid=amy,ou=people,dc=example,dc=com

dn: cn=alias,ou=sub,ou=Groups,dc=example,dc=com
objectClass: smtpdAccessControl
smtpdModerator: UID=amy,OU=People,DC=example,DC=com
memberURL: ldap:///ou=people,dc=example,dc=com??sub?(cn=*)
"""

DIRECTORY = LdifDirectory.parse(TREE.encode(), "tree.ldif")
BASE = "dc=example,dc=com"


def search(
    filter_: str | Filter, base: str = BASE, scope: Scope = Scope.SUB, directory: LdifDirectory = DIRECTORY
) -> list[Entry]:
    """What a search yields."""
    tree = parse(filter_) if isinstance(filter_, str) else filter_
    return list(asyncio.run(directory.search(Search(base, scope, tree, ("*",)))))


def names(entries: list[Entry]) -> list[str]:
    """The first value of each RDN, which tells entries apart here."""
    return sorted(entry.key.partition(",")[0].rpartition("=")[2] for entry in entries)


FILTERS = [
    # equality
    ("(mail=amy@example.com)", ["amy"]),
    ("(MAIL=AMY@EXAMPLE.COM)", ["amy"]),
    ("(mail=bob@example.com)", ["bob", "eve"]),
    ("(mail=robert@example.com)", ["bob"]),
    ("(mail=nobody@example.com)", []),
    ("(mail=amy)", []),
    ("(cn=amy van dyk)", ["amy"]),
    ("(cn=  AMY   van dyk )", ["amy"]),
    ("(cn=bob strauss)", ["bob"]),
    ("(cn~=bob strauss)", ["bob"]),
    ("(nothing=x)", []),
    ("(objectclass=INETORGPERSON)", ["amy", "bob", "eve"]),
    ("(objectClass=top)", ["amy"]),
    # values that are DNs
    ("(member=uid=amy,ou=People,dc=example,dc=com)", [r"staff\2c all"]),
    ("(member=UID=amy ; ou=people;dc=example;dc=com)", [r"staff\2c all"]),
    ("(member=uid=eve+cn=eve,ou=people,dc=example,dc=com)", [r"staff\2c all"]),
    ("(member=uid=bob,ou=people,dc=example,dc=com)", []),
    ("(member=this is no dn)", []),
    ("(member=)", []),
    ("(uniqueMember=uid=bob,ou=people,dc=example,dc=com)", ["unique"]),
    ("(uniqueMember=uid=amy,ou=people,dc=example,dc=com#'1'B)", ["unique"]),
    ("(manager=cn=eve,ou=people,dc=example,dc=com)", []),
    ("(manager=uid=eve,ou=people,dc=example,dc=com)", ["amy"]),
    ("(smtpdModerator=uid=amy,ou=people,dc=example,dc=com)", ["alias"]),
    ("(member=uid=amy*)", []),
    ("(member>=a)", []),
    ("(member<=z)", []),
    # presence
    ("(objectClass=*)", ["alias", "amy", "bob", "eve", "example", "people", r"staff\2c all", "unique"]),
    ("(mail=*)", ["amy", "bob", "eve"]),
    ("(member=*)", [r"staff\2c all"]),
    ("(nothing=*)", []),
    # substrings
    ("(mail=*@example.com)", ["amy", "bob", "eve"]),
    ("(mail=rob*)", ["bob"]),
    ("(mail=*VANDYK*)", []),
    ("(mailAlternateAddress=*VANDYK*)", ["amy"]),
    ("(mail=bob@*.com)", ["bob", "eve"]),
    ("(mail=bob@example.com*example.com)", []),
    ("(mail=bob@*example.com)", ["bob", "eve"]),
    ("(cn=amy * dyk)", ["amy"]),
    ("(cn=amy  van*)", ["amy"]),
    ("(cn=*a*v*n*k)", ["amy"]),
    ("(cn=*a*n*v*)", []),
    ("(nothing=*x*)", []),
    # order
    ("(employeeNumber>=7)", ["amy", "bob", "eve"]),
    ("(employeeNumber>=8)", ["bob", "eve"]),
    ("(employeeNumber<=9)", ["amy"]),
    ("(employeeNumber<=-1)", []),
    ("(uid>=bob)", ["bob", "eve"]),
    ("(uid<=BOB)", ["amy", "bob"]),
    ("(nothing>=0)", []),
    ("(nothing<=0)", []),
    ("(employeeNumber<=" + "9" * 5000 + ")", ["amy", "bob"]),
    # not: true for what is not there
    ("(&(uid=*)(!(uid=amy)))", ["bob", "eve"]),
    ("(!(mail=*))", ["alias", "example", "people", r"staff\2c all", "unique"]),
    ("(&(mail=*)(!(nothing=x)))", ["amy", "bob", "eve"]),
    ("(&(mail=*)(!(!(nothing=x))))", []),
    # and, or
    ("(&(mail=bob@example.com)(uid=eve))", ["eve"]),
    ("(&(mail=bob@example.com)(uid=amy))", []),
    ("(&(cn=*)(employeeNumber>=8))", ["bob"]),
    ("(&(!(uid=amy))(employeeNumber=7))", []),
    ("(|(mail=amy@example.com)(mail=bob@example.com))", ["amy", "bob", "eve"]),
    ("(|(mail=bob@example.com)(mail=robert@example.com)(uid=BOB))", ["bob", "eve"]),
    ("(|(mail=amy@example.com)(member=*))", ["amy", r"staff\2c all"]),
    ("(|(mail=amy@example.com)(cn=bob*))", ["amy", "bob"]),
    ("(|(uid~=amy)(member=no dn)(uid=eve))", ["amy", "eve"]),
    ("(&(|(uid=amy)(uid=bob))(|(mail=robert@example.com)(cn=x)))", ["bob"]),
    ("(|(&(uid=amy)(cn=amy*))(&(uid=bob)(cn=amy*)))", ["amy"]),
    ("(&)", ["alias", "amy", "bob", "eve", "example", "people", r"staff\2c all", "unique"]),
    ("(|)", []),
    ("(&(uid=amy)(&))", ["amy"]),
    # extensible matches
    ("(cn:=AMY van dyk)", ["amy"]),
    ("(cn:caseIgnoreMatch:=AMY van dyk)", ["amy"]),
    ("(cn:caseExactMatch:=AMY van dyk)", []),
    ("(cn:2.5.13.5:=Amy van Dyk)", ["amy"]),
    ("(mail:1.3.6.1.4.1.1466.109.114.1:=Amy@Example.com)", ["amy"]),
    ("(member:=UID=amy,ou=people,dc=example,dc=com)", [r"staff\2c all"]),
    ("(memberURL:distinguishedNameMatch:=dc=com)", []),
    ("(employeeNumber:integerMatch:=007)", ["amy"]),
    ("(employeeNumber:integerMatch:=none)", []),
    ("(:caseExactMatch:=Amy@Example.com)", ["amy"]),
    ("(ou:=people)", ["people"]),
    ("(ou:dn:=PEOPLE)", ["amy", "bob", "eve", "people"]),
    ("(organizationalUnitName:dn:=sub)", ["alias"]),
    (r"(cn:dn:=staff\2c ALL)", [r"staff\2c all"]),
    ("(cn:dn:=eve)", ["eve"]),
    ("(:dn:caseIgnoreMatch:=sub)", ["alias"]),
    ("(ou;x:dn:=people)", []),
    ("(&(uid=*)(userAccountControl:1.2.840.113556.1.4.803:=2))", ["amy"]),
    ("(&(uid=*)(!(userAccountControl:1.2.840.113556.1.4.803:=2)))", ["bob", "eve"]),
    ("(userAccountControl:1.2.840.113556.1.4.803:=3)", []),
    ("(userAccountControl:1.2.840.113556.1.4.804:=3)", ["amy"]),
    ("(employeeNumber:1.2.840.113556.1.4.804:=1)", ["amy"]),
    ("(employeeNumber:1.2.840.113556.1.4.803:=x)", []),
]


@pytest.mark.parametrize(("text", "expected"), FILTERS)
def test_filters(text: str, expected: list[str]) -> None:
    """Each kind of filter, from an index or by looking at every entry."""
    assert expected == names(search(text))


@pytest.mark.parametrize(("text", "expected"), FILTERS)
def test_filters_without_an_index(text: str, expected: list[str]) -> None:
    """Twice Not looks at every entry, and finds the same."""
    assert expected == names(search(Not(Not(parse(text)))))


@pytest.mark.parametrize(("text", "expected"), FILTERS)
def test_filters_at_an_entry(text: str, expected: list[str]) -> None:
    """A search for one entry agrees with the search for all."""
    entries = [entry for entry in DIRECTORY if search(text, entry.dn, Scope.BASE)]
    assert expected == names(entries)


def test_each_entry_is_found_once() -> None:
    """An entry that several values lead to is one entry."""
    found = search("(|(mail=bob@example.com)(mail=robert@example.com)(objectClass=inetOrgPerson)(uid=bob))")
    assert ["amy", "bob", "eve"] == names(found)


@pytest.mark.parametrize("attr", sorted(DN_ATTRIBUTES))
def test_attributes_that_hold_dns_are_compared_as_dns(attr: str) -> None:
    """Another spelling of the DN finds the entry, by index and without."""
    directory = LdifDirectory.parse(f"dn: cn=a,dc=com\n{attr}: UID=Amy, DC=Com\n".encode(), "x")
    tree = Equality(attr.upper(), "uid=amy;dc=com")
    for asked in (tree, Not(Not(tree)), Or((tree,))):
        assert ["a"] == names(search(asked, "dc=com", Scope.SUB, directory))


BASES = [
    ("dc=example,dc=com", Scope.BASE, ["example"]),
    ("DC=Example, DC=COM", Scope.BASE, ["example"]),
    ("uid=nobody,dc=example,dc=com", Scope.BASE, []),
    ("dc=com", Scope.BASE, []),
    ("ou=Groups,dc=example,dc=com", Scope.BASE, []),
    ("", Scope.BASE, []),
    ("dc=example,dc=com", Scope.ONE, ["people"]),
    ("ou=people,dc=example,dc=com", Scope.ONE, ["amy", "bob", "eve"]),
    ("OU=Groups,dc=example,dc=com", Scope.ONE, [r"staff\2c all", "unique"]),
    ("uid=amy,ou=people,dc=example,dc=com", Scope.ONE, []),
    ("dc=com", Scope.ONE, ["example"]),
    ("", Scope.ONE, []),
    ("ou=groups,dc=example,dc=com", Scope.SUB, ["alias", r"staff\2c all", "unique"]),
    ("ou=sub,ou=groups,dc=example,dc=com", Scope.SUB, ["alias"]),
    ("uid=amy,ou=people,dc=example,dc=com", Scope.SUB, ["amy"]),
    ("", Scope.SUB, ["alias", "amy", "bob", "eve", "example", "people", r"staff\2c all", "unique"]),
]


@pytest.mark.parametrize(("base", "scope", "expected"), BASES)
def test_base_and_scope(base: str, scope: Scope, expected: list[str]) -> None:
    """A base is there when an entry is at it or under it; whole RDNs count."""
    assert expected == names(search("(objectClass=*)", base, scope))


INDEXED_BASES = [
    ("dc=example,dc=com", Scope.ONE, []),
    ("ou=people,dc=example,dc=com", Scope.ONE, ["amy"]),
    ("ou=groups,dc=example,dc=com", Scope.SUB, []),
    ("uid=bob,ou=people,dc=example,dc=com", Scope.BASE, []),
]


@pytest.mark.parametrize(("base", "scope", "expected"), INDEXED_BASES)
def test_an_index_does_not_widen_the_scope(base: str, scope: Scope, expected: list[str]) -> None:
    """What an index yields is held to base and scope too."""
    assert expected == names(search("(uid=amy)", base, scope))


@pytest.mark.parametrize("scope", [Scope.ONE, Scope.SUB])
@pytest.mark.parametrize(
    "base", ["dc=example,dc=org", "ou=nowhere,dc=example,dc=com", "xdc=com", "all,dc=com"]
)
def test_a_base_that_is_not_there_is_unavailable(base: str, scope: Scope) -> None:
    """A search in the wrong place must not look like "there is none"."""
    with pytest.raises(Unavailable):
        search("(mail=amy@example.com)", base, scope)


def test_a_base_that_is_no_dn_is_unavailable() -> None:
    """A server would refuse it, too."""
    with pytest.raises(Unavailable, match="expected type=value"):
        search("(mail=x)", "nowhere", Scope.BASE)


@pytest.mark.parametrize(
    "text", ["(a:1.2.3:=x)", "(!(a:someMatch:=x))", "(memberOf:1.2.840.113556.1.4.1941:=dc=x)"]
)
@pytest.mark.parametrize("scope", list(Scope))
def test_an_unknown_matching_rule_is_unavailable(text: str, scope: Scope) -> None:
    """It must not open what a Not closes."""
    with pytest.raises(Unavailable, match="matching rule"):
        search(text, BASE, scope)


def test_entries_are_whole_and_shared() -> None:
    """Nothing is copied: two searches yield one object, with every attribute."""
    (one,) = search("(mail=amy@example.com)")
    (other,) = search("(uid=amy)")
    assert one is other
    assert ("7",) == one.values("employeenumber")


def test_names_and_sets_of_classes_are_shared() -> None:
    """A million entries hold each attribute name, and each set of classes, once."""
    bob, eve = search("(mail=bob@example.com)")
    assert bob.values("objectClass") is eve.values("objectClass")
    assert next(name for name, _ in bob.items()) is next(name for name, _ in eve.items())


def test_how_many() -> None:
    """The number of entries is known."""
    assert (8, 8, 8) == (len(DIRECTORY), DIRECTORY.entry_count, len(list(DIRECTORY)))


def test_it_is_a_directory() -> None:
    """It fits where a directory is asked for, and can be closed and used again."""
    directory: Directory = LdifDirectory.parse(TREE.encode(), "tree.ldif")

    async def use() -> int:
        found = await directory.search(Search(BASE, Scope.SUB, Present("mail"), ("mail",)))
        await directory.close()
        again = await directory.search(Search(BASE, Scope.SUB, Present("mail"), ("mail",)))
        return len(found) + len(again)

    assert asyncio.run(use()) == 6


def test_an_empty_file_is_an_empty_directory() -> None:
    """Nothing is at or under any base, the root included."""
    empty = LdifDirectory.parse(b"", "empty.ldif")
    assert len(empty) == 0
    assert [] == search("(a=b)", "", Scope.BASE, empty)
    with pytest.raises(Unavailable):
        search("(a=b)", "", Scope.SUB, empty)


def test_the_root_can_be_an_entry() -> None:
    """An entry without a name is under nothing but itself."""
    rooted = LdifDirectory.parse(b"dn:\nobjectClass: top\n\ndn: dc=com\ndc: com\n", "root.ldif")
    for scope, expected in [(Scope.BASE, [""]), (Scope.ONE, ["com"]), (Scope.SUB, ["", "com"])]:
        assert expected == names(search("(objectClass=*)", "", scope, rooted))


ERRORS = [
    (
        "dn: dc=com\ndc: com\n\ndn: dc=org\nchangetype: moddn\nnewrdn: dc=x\ndeleteoldrdn: 1\n",
        "4: changetype 'moddn', expected entries or changetype 'add'",
    ),
    ("dn: dc=com\nchangetype: delete\n", "1: changetype 'delete', expected entries or changetype 'add'"),
    (
        "dn: dc=com\nchangetype: add\ndc: com\n\ndn: dc=com\nchangetype: modify\n",
        "5: changetype 'modify', expected entries or changetype 'add'",
    ),
    (
        "dn: cn=a,dc=com\nmember;Range=0-1499: dc=com\n",
        "2: 'member;Range=0-1499', expected all values: a range is a part of them",
    ),
    ("dn: dc=com\ndc: x\n\ndn: DC=Com\ndc: x\n", "4: the entry 'DC=Com' again, expected it once"),
    ("\n\ndn: com\ndc: x\n", "3: not a DN: 'com', expected type=value (RFC 4514) at character 1"),
    ("dn: dc=com\ndc\n", "2: 'dc', expected 'attribute: value'"),
]


@pytest.mark.parametrize(("text", "expected"), ERRORS)
def test_refused_files(text: str, expected: str) -> None:
    """A file is read whole or not at all, and the error has the line."""
    with pytest.raises(InputError) as caught:
        LdifDirectory.parse(text.encode(), "tree.ldif")
    assert f"tree.ldif:{expected}" == str(caught.value)


def test_an_export_of_changes_is_a_directory() -> None:
    """`changetype: add`, as ldifde and others export it, is an entry."""
    text = TREE.replace("\nobjectClass: domain\n", "\nchangetype: add\nobjectClass: domain\n")
    assert list(DIRECTORY) == list(LdifDirectory.parse(text.encode(), "tree.ldif"))


def test_what_a_search_did_not_follow_is_told() -> None:
    """A plain ldapsearch's output is read; entries that its references lead to are missing, and said so."""
    text = f"{TREE}\n# search reference\nref: ldap://b/dc=b??sub\n\nsearch: 2\nresult: 0 Success\n"
    directory = LdifDirectory.parse(text.encode(), "tree.ldif")
    assert list(DIRECTORY) == list(directory)
    line = text[: text.index("ref: ")].count("\n") + 1
    told = f"tree.ldif:{line}: ref: 'ldap://b/dc=b??sub' was not followed, the entries there are missing"
    assert [told] == list(map(str, directory.references))


def test_an_index_is_not_stale_in_another_directory() -> None:
    """Each content has indexes of its own, so that a new one can replace an old one."""
    old = LdifDirectory.parse(b"dn: uid=a,dc=com\nmail: x@y\n", "old.ldif")
    new = LdifDirectory.parse(b"dn: uid=b,dc=com\nmail: x@y\n", "new.ldif")
    for directory, expected in [(old, ["a"]), (new, ["b"]), (old, ["a"])]:
        assert expected == names(search("(mail=x@y)", "dc=com", Scope.SUB, directory))


def test_values_with_anything_in_them_are_values() -> None:
    """A value that would mean something in a filter is compared, not read."""
    odd = LdifDirectory.parse(
        b"dn: uid=a,dc=com\nmail:: KikoXAA=\nmail: o'brien@x\n\ndn: uid=b,dc=com\nmail: b\n", "x"
    )
    for value, expected in [("*)(\\\0", ["a"]), ("*", []), ("o'brien@x", ["a"]), ("o*", [])]:
        assert expected == names(search(Equality("mail", value), "dc=com", Scope.SUB, odd))


def test_a_value_twice_in_one_entry() -> None:
    """Two spellings of one value lead to their entry once, also beside other entries."""
    values = [("a", "x\nmail: X"), ("b", "X\nmail: x"), ("c", "x")]
    text = "\n".join(f"dn: uid={name},dc=com\nmail: {value}\n" for name, value in values)
    directory = LdifDirectory.parse(text.encode(), "x")
    assert ["a", "b", "c"] == names(search("(mail=x)", "dc=com", Scope.SUB, directory))


@pytest.mark.servers
def test_a_thousand_lookups_do_not_look_at_every_entry() -> None:
    """An indexed search costs the same in a large tree: scanning would take minutes here."""
    text = "".join(f"dn: uid=u{i},dc=com\nuid: u{i}\nmail: u{i}@example.com\n\n" for i in range(20000))
    large = LdifDirectory.parse(text.encode(), "large.ldif")
    large.prepare(["mail", "UID"])

    async def lookups() -> int:
        found = 0
        for i in range(0, 20000, 20):
            wanted = Or((Equality("mail", f"u{i}@example.com"), Equality("uid", f"u{i}")))
            for tree in (wanted, And((Present("mail"), Not(Present("x")), wanted))):
                found += len(await large.search(Search("dc=com", Scope.SUB, tree, ("mail",))))
        return found

    start = time.process_time()
    assert asyncio.run(lookups()) == 2000
    assert time.process_time() - start < 10


trees: st.SearchStrategy[Filter] = st.recursive(
    st.one_of(
        st.builds(
            Equality, st.sampled_from(["uid", "Mail", "member", "none"]), st.sampled_from(["amy", "bob", "x"])
        ),
        st.builds(Equality, st.just("mail"), st.sampled_from(["amy@example.com", "bob@example.com"])),
        st.builds(Present, st.sampled_from(["objectClass", "mail", "member", "cn", "none"])),
        st.builds(Substring, st.just("cn"), st.sampled_from(["amy", "bob"])),
        st.builds(Extensible, st.none(), st.just("uid"), st.sampled_from(["amy", "eve"])),
    ),
    lambda inner: st.one_of(
        st.builds(And, st.lists(inner, max_size=3).map(tuple)),
        st.builds(Or, st.lists(inner, max_size=3).map(tuple)),
        st.builds(Not, inner),
    ),
    max_leaves=10,
)


@given(
    trees,
    st.sampled_from(list(Scope)),
    st.sampled_from([BASE, "ou=people," + BASE, "uid=amy,ou=people," + BASE]),
)
def test_the_indexes_change_nothing(tree: Filter, scope: Scope, base: str) -> None:
    """Whatever the filter, what the indexes yield is what looking at every entry yields."""
    assert names(search(Not(Not(tree)), base, scope)) == names(search(tree, base, scope))
