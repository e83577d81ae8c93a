"""Which answers a change may make wrong: all of those (random changes), and no others (a table)."""

import asyncio
from collections.abc import Iterable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ldappolicy import facts
from ldappolicy.directory.changes import Members
from ldappolicy.directory.ldif import LdifDirectory
from ldappolicy.directory.plan import Planner, Where
from ldappolicy.entry import Entry
from ldappolicy.facts import Lookup
from ldappolicy.invalidation import Dependencies
from ldappolicy.mapping import Mapping

BASE = "dc=example,dc=com"
MAPPING = Mapping(member_address=("rfc822MailMember",))
URL = f"ldap:///{BASE}?mail?sub?(title=boss)"


def dn(name: str) -> str:
    """The DN of somebody or something."""
    return f"cn={name},{BASE}"


def person(name: str, *mails: str, **more: list[str]) -> Entry:
    """An entry with an identity, a login and addresses."""
    return Entry(dn(name), {"entryUUID": [f"{name}-id"], "uid": [name], "mail": list(mails), **more})


def group(name: str, *members: str, **more: list[str]) -> Entry:
    """An entry with an identity and members."""
    return Entry(
        dn(name), {"entryUUID": [f"{name}-id"], "member": [dn(member) for member in members], **more}
    )


AMY, BOB = person("amy", "amy@x"), person("bob", "bob@x", "b@x")
STAFF, CHIEFS = group("staff", "amy", "bob"), group("chiefs", "amy")
PARTNERS = group("partners")  # as answers have it, without its members

# What is remembered, with the answers.
REMEMBERED: dict[Lookup, tuple[Entry, ...]] = {
    facts.mail("amy@x"): (AMY,),
    facts.mail("bob@x"): (BOB,),
    facts.mail("b@x"): (BOB,),
    facts.mail("new@x"): (),
    facts.login("amy"): (AMY,),
    facts.login("bob", "BOB"): (BOB,),
    facts.login("zoe", "Zoe"): (),
    facts.domain("x"): (),
    facts.groups(AMY.dn, ("amy",)): (STAFF, CHIEFS),
    facts.groups(BOB.dn, ("bob",)): (STAFF,),
    facts.groups(STAFF.dn, ()): (),
    facts.groups(CHIEFS.dn, ()): (),
    facts.addressed("a@y"): (PARTNERS,),
    facts.addressed("b@y"): (),
    facts.entry(dn("staff")): (STAFF,),
    facts.entry(dn("ghosts")): (),
    facts.dynamic(): (),
    facts.match(AMY.dn, URL): (),
    facts.chain(BOB.dn, CHIEFS.dn): (),
    facts.url(URL, "amy@x"): (AMY,),
    facts.sid("S1"): (),
}
FILTERED = {facts.match(AMY.dn, URL), facts.chain(BOB.dn, CHIEFS.dn), facts.url(URL, "amy@x")}
"""What depends on filters and chains, which any change may concern."""


def remembering(remembered: dict[Lookup, tuple[Entry, ...]]) -> Dependencies:
    """The dependencies of these answers."""
    dependencies = Dependencies(MAPPING)
    for lookup, entries in remembered.items():
        dependencies.add(lookup, entries)
    return dependencies


@pytest.mark.parametrize(
    ("before", "after", "members", "expected"),
    [
        pytest.param(
            BOB,
            person("bob", "bob@x"),
            None,
            {
                *(facts.mail("bob@x"), facts.mail("b@x"), facts.login("bob", "BOB")),
                facts.groups(BOB.dn, ("bob",)),
            },
            id="an address went",
        ),
        pytest.param(None, person("new", "new@x"), None, {facts.mail("new@x")}, id="an address came"),
        pytest.param(
            None, person("zoe"), None, {facts.login("zoe", "Zoe")}, id="a login came, asked for as spelled"
        ),
        pytest.param(
            None, Entry(dn("d"), {"associatedDomain": ["X"]}), None, {facts.domain("x")}, id="domain"
        ),
        pytest.param(None, Entry(dn("d"), {"objectSid": ["S1"]}), None, {facts.sid("S1")}, id="objectSid"),
        pytest.param(
            None, Entry(dn("d"), {"memberURL": [URL]}), None, {facts.dynamic()}, id="a dynamic group came"
        ),
        pytest.param(
            CHIEFS,
            group("chiefs", "amy", "bob"),
            None,
            {
                *(facts.groups(AMY.dn, ("amy",)), facts.groups(CHIEFS.dn, ())),
                *(facts.groups(BOB.dn, ("bob",)), facts.mail("bob@x"), facts.mail("b@x")),
                facts.login("bob", "BOB"),
            },
            id="a member came",
        ),
        pytest.param(
            CHIEFS,
            Entry(CHIEFS.dn, {"entryUUID": ["chiefs-id"]}),
            Members(added=(BOB.dn,)),
            {
                *(facts.groups(AMY.dn, ("amy",)), facts.groups(CHIEFS.dn, ())),
                *(facts.groups(BOB.dn, ("bob",)), facts.mail("bob@x"), facts.mail("b@x")),
                facts.login("bob", "BOB"),
            },
            id="a member came, told alone",
        ),
        pytest.param(
            STAFF,
            None,
            None,
            {
                *(facts.groups(AMY.dn, ("amy",)), facts.groups(BOB.dn, ("bob",))),
                *(facts.groups(STAFF.dn, ()), facts.entry(STAFF.dn)),
                *(facts.mail("amy@x"), facts.mail("bob@x"), facts.mail("b@x")),
                *(facts.login("amy"), facts.login("bob", "BOB")),
            },
            id="a group went",
        ),
        pytest.param(
            group("partners", rfc822MailMember=["a@y", "c@y"]),
            group("partners", rfc822MailMember=["A@y", "B@Y"]),
            None,
            {facts.addressed("a@y"), facts.addressed("b@y")},
            id="an address is a member, told with its group",
        ),
        pytest.param(
            None,
            Entry(dn("new"), {"rfc822MailMember": ["B@Y"]}),
            Members(),
            {facts.addressed("b@y")},
            id="an address is a member of a new group",
        ),
        pytest.param(
            person("amy", "amy@x", "a@y"),
            person("amy", "amy@x"),
            None,
            {facts.mail("amy@x"), facts.login("amy"), facts.groups(AMY.dn, ("amy",))},
            id="an address that is a member is nobody's any more",
        ),
        pytest.param(None, group("ghosts"), None, {facts.entry(dn("ghosts"))}, id="a named entry came"),
        pytest.param(None, Entry(dn("other"), {"mail": ["o@x"]}), None, set(), id="somebody else"),
    ],
)
def test_a_change_touches_what_depends_on_it(
    before: Entry | None, after: Entry | None, members: Members | None, expected: set[Lookup]
) -> None:
    """And nothing else but what depends on filters of others."""
    touched = remembering(REMEMBERED).touched(before, after, members)
    assert touched & set(REMEMBERED) == expected | FILTERED


def test_an_entry_is_found_by_its_identity() -> None:
    """A deletion may tell no more than that, and a renamed one has another DN."""
    dependencies = remembering(REMEMBERED)
    assert facts.login("amy") in dependencies.touched(None, None, None, "amyid")
    assert facts.login("bob", "BOB") in dependencies.touched(
        None, Entry(dn("robert"), {"entryUUID": ["bob-id"]}), None, "bobid"
    )


def test_what_memberof_names_is_touched_with_it() -> None:
    """Where the server keeps memberOf, and does not tell when it changes."""
    amy = person("amy", "amy@x", memberOf=[dn("staff")])
    touched = remembering({facts.mail("amy@x"): (amy,)}).touched(None, group("staff", "bob"))
    assert facts.mail("amy@x") in touched


def test_the_size_is_what_is_noted() -> None:
    """It grows with what is remembered, not with how often, and shrinks with what is touched."""
    dependencies = remembering(REMEMBERED)
    size = dependencies.size
    dependencies.add(facts.mail("amy@x"), (AMY,))
    assert dependencies.size == size
    dependencies.touched(BOB, None)
    assert 0 < dependencies.size < size
    dependencies.clear()
    assert (dependencies.size, dependencies.on("amyid")) == (0, frozenset())


# ------------------------------------------------------------ random changes

NAMES = [f"n{number}" for number in range(5)]
some_names = st.lists(st.sampled_from(NAMES), max_size=3, unique=True)


@st.composite
def entries(draw: st.DrawFn, name: str) -> Entry:
    """An entry with some of everything that a lookup can depend on."""
    values = {
        "entryUUID": [f"{name}id"],
        "mail": [f"{one}@x" for one in draw(some_names)] + draw(st.sampled_from(([], ["@X"]))),
        "rfc822MailMember": [f"{one}@x" for one in draw(some_names)],
        "uid": [one.upper() if draw(st.booleans()) else one for one in draw(some_names)],
        "associatedDomain": draw(some_names),
        "member": [draw(st.sampled_from((dn(one), dn(one).upper()))) for one in draw(some_names)],
        "uniqueMember": [f"{dn(one)}#'01'B" for one in draw(some_names)],
        "memberUid": draw(some_names),
        "smtpdMemberSenderAccess": draw(st.sampled_from(([], ["local_only"]))),
        "title": draw(st.sampled_from(([], ["boss"]))),
        "memberURL": draw(st.sampled_from(([], [URL]))),
        "objectClass": ["top"],
    }
    return Entry(dn(draw(st.sampled_from((name, f"new-{name}")))), values)


@st.composite
def trees(draw: st.DrawFn) -> dict[str, Entry]:
    """Some of the entries there may be, by name."""
    return {name: draw(entries(name)) for name in draw(some_names)}


def all_lookups(trees: Iterable[dict[str, Entry]]) -> list[Lookup]:
    """Everything that may be asked about the names."""
    dns = sorted({dn(name) for name in NAMES} | {entry.dn for tree in trees for entry in tree.values()})
    lookups: list[Lookup] = [facts.dynamic(), facts.carrying(), facts.mail("@x")]
    for name in NAMES:
        lookups += [
            facts.mail(f"{name}@x"),
            facts.addressed(f"{name}@x"),
            facts.login(name),
            facts.login(name, name.upper()),
        ]
        lookups += [facts.domain(name), facts.url(URL, f"{name}@x")]
    for one in dns:
        lookups += [facts.entry(one), facts.match(one, URL), facts.groups(one, ())]
        lookups += [facts.groups(one, (NAMES[0], NAMES[1].upper()))]
    return lookups


def answers(tree: dict[str, Entry], lookups: Sequence[Lookup]) -> dict[Lookup, tuple[Entry, ...]]:
    """What a directory with these entries answers."""
    directory = LdifDirectory([Entry(BASE, {"objectClass": ["top"]}), *tree.values()])
    planner = Planner(Where(BASE), MAPPING)

    async def asked() -> dict[Lookup, tuple[Entry, ...]]:
        found: dict[Lookup, tuple[Entry, ...]] = {}
        for lookup in lookups:
            [batch] = planner.plan((lookup,))
            found |= await batch.ask(directory)
        return found

    return asyncio.run(asked())


@pytest.mark.servers  # for the seconds that it takes
@given(trees(), st.data(), st.sampled_from(NAMES), st.booleans())
def test_no_answer_that_changes_is_kept(
    tree: dict[str, Entry], data: st.DataObject, name: str, knows_before: bool
) -> None:
    """One entry comes, goes or is otherwise: whatever is answered differently then is touched."""
    before = tree.get(name)
    after = data.draw(st.none() | entries(name))
    then = {key: entry for key, entry in tree.items() if key != name} | ({name: after} if after else {})
    lookups = all_lookups((tree, then))
    old, new = answers(tree, lookups), answers(then, lookups)
    touched = remembering(old).touched(before if knows_before else None, after, None, f"{name}id")
    if before is not None and after is None and not knows_before:
        touched |= remembering(old).touched(Entry(before.dn, {}), None)
    assert {lookup for lookup in lookups if old[lookup] != new[lookup]} <= touched
