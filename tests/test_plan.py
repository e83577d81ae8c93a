"""Lookups become searches, and what comes back is matched to them: tables of both."""

import asyncio
from collections.abc import Iterator, Sequence

import pytest

from ldappolicy import facts
from ldappolicy.address import skeleton
from ldappolicy.directory import Features, Scope, Search, Terms
from ldappolicy.directory.ldif import LdifDirectory
from ldappolicy.directory.plan import (
    IN_CHAIN,
    OR_TERMS,
    Answers,
    Batch,
    Members,
    Planner,
    Probe,
    Unplanned,
    Where,
)
from ldappolicy.entry import Entry
from ldappolicy.errors import Unavailable
from ldappolicy.facts import Absent, Lookup
from ldappolicy.ldap_filter import And, Equality, Filter, Or, parse, to_text
from ldappolicy.mapping import PROFILES, Mapping
from ldappolicy.resolver import Limits, Resolver

BASE = "dc=example,dc=com"
AMY = f"uid=amy,ou=people,{BASE}"
LIST = f"cn=list,ou=groups,{BASE}"
SMALL = Mapping(
    mail=("mail", "mailLocalAddress"),
    login=("uid",),
    domain=("associatedDomain",),
    member=("member", "memberUid"),
)
SERVICE = "(!(employeeType=service))"
URL = f"ldap:///ou=people,{BASE}?mail,uid?one?(title=boss)"


QUOTE = 'a"b@x'


def has(address: str) -> str:
    """The terms for an address without specials: as it is, and with its local part in quotes."""
    local, _, domain = address.partition("@")
    forms = (address, f'"{local}"@{domain}')
    return "".join(f"({name}={form})" for name in SMALL.mail for form in forms)


def planner(*, owners: str = "", domains: Sequence[str] = (), mapping: Mapping = SMALL) -> Planner:
    """One over the example base."""
    return Planner(Where(BASE, parse(owners) if owners else None, frozenset(domains)), mapping)


def search_of(batch: Batch) -> Search:
    """What a batch asks first."""
    assert not isinstance(batch, Unplanned)
    return batch.search


def texts(batches: Sequence[Batch]) -> list[str]:
    """Every search that may be asked, a probe's first: base, scope, filter."""
    searches = [search_of(batch) for batch in batches]
    searches += [part.search for batch in batches if isinstance(batch, Probe) for part in batch.parts]
    return [_text(search) for search in searches]


def _text(search: Search) -> str:
    base = search.base.removesuffix(BASE) or "base"
    return f"{base} {search.scope.name.lower()} {to_text(search.filter)}"


def equalities(tree: Filter) -> int:
    """How many there are in a filter."""
    match tree:
        case And(parts) | Or(parts):
            return sum(map(equalities, parts))
        case Equality():
            return 1
    return 0


class Counting:
    """A directory of some entries that remembers what it was asked."""

    features = Features()

    def __init__(self, *entries: Entry) -> None:
        self.asked: list[Search] = []
        self._tree = LdifDirectory((Entry(BASE, {"objectClass": ["organization"]}), *entries))

    async def search(self, search: Search) -> Sequence[Entry]:
        self.asked.append(search)
        return await self._tree.search(search)

    async def close(self) -> None:
        """Nothing is open."""

    def set_witnesses(self, dns: Sequence[str]) -> None:
        """It has what it has."""

    def set_proofs(self, proofs: Sequence[Search]) -> None:
        """It shows what it has."""


def answers(plan: Planner, directory: Counting, *lookups: Lookup) -> dict[Lookup, list[str]]:
    """The DNs that belong to each lookup, without what all DNs end in."""

    async def story() -> Answers:
        found: Answers = {}
        for batch in plan.plan(lookups):
            found.update(await batch.ask(directory))
        return found

    found = asyncio.run(story())
    return {lookup: [entry.dn.partition(",")[0] for entry in found[lookup]] for lookup in lookups}


# --- what is asked --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lookups", "expected"),
    [
        ([], []),
        ([facts.mail("amy@x.org")], [f"base sub (|{has('amy@x.org')})"]),
        ([facts.login("amy")], ["base sub (uid=amy)"]),
        ([facts.domain("x.org")], ["base sub (associatedDomain=x.org)"]),
        (
            [facts.mail("amy@x.org"), facts.domain("x.org"), facts.login("amy")],
            [f"base sub (|{has('amy@x.org')}(uid=amy)(associatedDomain=x.org))"],
        ),
        ([facts.mail("a b@x")], [f"base sub (|{has('a b@x')})"]),
        (
            [facts.mail(QUOTE)],
            [f"base sub (|{has(QUOTE)})".replace('"a"b"', '"a\\5c"b"')],
        ),
        (
            [facts.login("*)(uid=*"), facts.domain("\\")],
            ["base sub (|(uid=\\2a\\29\\28uid=\\2a)(associatedDomain=\\5c))"],
        ),
        ([facts.mail("nobody")], ["base sub (|(mail=nobody)(mailLocalAddress=nobody))"]),
        ([facts.entry(AMY)], ["uid=amy,ou=people, base (objectClass=*)"]),
        ([facts.groups(AMY, ())], [f"base sub (member={AMY})"]),
        (
            [facts.groups(AMY, ("amy", "a2"))],
            [f"base sub (|(member={AMY})(memberUid=amy)(memberUid=a2))"],
        ),
        (
            [facts.groups("cn=a*(b),dc=x", ())],
            ["base sub (member=cn=a\\2a\\28b\\29,dc=x)"],
        ),
        (
            [facts.groups(AMY, ("amy",)), facts.groups(LIST, ())],
            [
                f"base sub (|(|(member={AMY})(memberUid=amy))(member={LIST}))",
                f"base sub (|(member={AMY})(memberUid=amy))",
                f"base sub (member={LIST})",
            ],
        ),
        ([facts.dynamic()], ["base sub (memberURL=*)"]),
        (
            [facts.carrying()],
            ["base sub (|(smtpdMemberSenderAccess=*)(smtpdMemberRecipientAccess=*))"],
        ),
        ([facts.sid("S\udcff")], ["base sub (objectSid=S\\ff)"]),
        (
            [facts.chain(AMY, LIST)],
            [f"uid=amy,ou=people, base (memberOf:1.2.840.113556.1.4.1941:={LIST})"],
        ),
        (
            [facts.chain(AMY, LIST), facts.chain(AMY, "cn=x")],
            [
                f"uid=amy,ou=people, base (|(memberOf:{IN_CHAIN}:={LIST})(memberOf:{IN_CHAIN}:=cn=x))",
                f"uid=amy,ou=people, base (memberOf:{IN_CHAIN}:={LIST})",
                f"uid=amy,ou=people, base (memberOf:{IN_CHAIN}:=cn=x)",
            ],
        ),
        (
            [facts.match(AMY, f"ldap:///{BASE}??sub?(&(title=boss)(!(l=x)))")],
            ["uid=amy,ou=people, base (&(title=boss)(!(l=x)))"],
        ),
        (
            [facts.url(URL, "amy@x"), facts.url(URL, "x")],
            ["ou=people, one (&(title=boss)(|(mail=amy@x)(mail=x)(uid=amy@x)(uid=x)))"],
        ),
        (
            [facts.url(f"ldap:///{BASE}?cn??(a=b)", "*")],
            ["base base (&(a=b)(cn=\\2a))"],
        ),
        (
            [facts.mail("a@x"), facts.groups(AMY, ()), facts.dynamic()],
            [
                f"base sub (|{has('a@x')})",
                f"base sub (member={AMY})",
                "base sub (memberURL=*)",
            ],
        ),
    ],
)
def test_lookups_become_searches(lookups: list[Lookup], expected: list[str]) -> None:
    """As few as it takes, every value escaped."""
    assert expected == texts(planner().plan(lookups))


@pytest.mark.parametrize(
    ("lookups", "expected"),
    [
        (
            [facts.mail("a@x"), facts.login("amy"), facts.domain("x")],
            [
                f"base sub (&{SERVICE}(|{has('a@x')}))",
                "base sub (|(uid=amy)(associatedDomain=x))",
            ],
        ),
        ([facts.login("amy")], ["base sub (uid=amy)"]),
        ([facts.groups(AMY, ())], [f"base sub (member={AMY})"]),
        ([facts.entry(AMY)], ["uid=amy,ou=people, base (objectClass=*)"]),
        ([facts.url(URL, "k")], ["ou=people, one (&(title=boss)(|(mail=k)(uid=k)))"]),
    ],
)
def test_the_filter_is_for_owners_of_addresses(lookups: list[Lookup], expected: list[str]) -> None:
    """Logins, domains, groups, entries and URLs are asked for without it."""
    assert expected == texts(planner(owners=SERVICE).plan(lookups))


@pytest.mark.parametrize(
    ("lookup", "expected"),
    [
        (facts.mail("amy@my.domain"), False),
        (facts.mail("amy@b@my.domain"), False),
        (facts.mail("amy@sub.my.domain"), True),
        (facts.mail("amy@notmy.domain"), True),
        (facts.mail("amy@my.domain.evil.example"), True),
        (facts.mail("amy"), True),
        (facts.mail("my.domain"), True),
        (facts.login("amy@elsewhere.example"), False),
        (facts.domain("elsewhere.example"), False),
        (facts.groups(AMY, ()), False),
    ],
)
def test_addresses_in_other_domains_are_never_asked_for(lookup: Lookup, expected: bool) -> None:
    """`domain` is compared whole; logins, domains and groups are asked for all the same."""
    assert expected is planner(domains=["my.domain"]).known_absent(lookup)
    assert planner().known_absent(lookup) is False


def test_dynamic_groups_are_not_asked_for_where_none_are_mapped() -> None:
    """A site without memberURL pays nothing for it."""
    assert planner().known_absent(facts.dynamic())
    assert not planner(mapping=Mapping()).known_absent(facts.dynamic())


def test_members_are_never_downloaded() -> None:
    """What groups answer is everything that decisions use, but not who is in them."""
    [search] = [search_of(batch) for batch in planner(mapping=Mapping()).plan([facts.groups(AMY, ("amy",))])]
    assert {"mail", "uid", "memberOf", "smtpdPriority", "owner"} <= set(search.attributes)
    assert {"member", "uniqueMember", "memberUid", "memberURL"}.isdisjoint(search.attributes)


MATCHED = Features(controls=frozenset(("1.2.826.0.1.3344810.2.3",)))
NAMING = PROFILES["active_directory"]


def test_groups_of_several_are_one_search_that_shows_them_alone() -> None:
    """Where the server returns the members that were asked for, and no others (RFC 3876)."""
    lookups = [facts.groups(AMY, ("amy",)), facts.groups(LIST, ())]
    [batch] = planner().plan(lookups, MATCHED)
    assert isinstance(batch, Members)
    assert to_text(batch.search.filter) == f"(|(|(member={AMY})(memberUid=amy))(member={LIST}))"
    shown = [to_text(value) for value in batch.search.values]
    assert shown[:3] == [f"(member={AMY})", "(memberUid=amy)", f"(member={LIST})"]
    assert set(shown[3:]) == {f"({name}=*)" for name in SMALL.read_attributes}
    assert {"member", "memberUid", *SMALL.read_attributes} == set(batch.search.attributes)


@pytest.mark.parametrize(
    ("shown", "expected", "searches"),
    [
        ([("one", [AMY]), ("two", [LIST, AMY.upper()])], [["cn=one", "cn=two"], ["cn=two"]], 1),
        ([("one", [f"{AMY}#'0'B"])], [["cn=one"], []], 1),
        ([], [[], []], 1),
        ([("odd", [AMY, "cn=somebody else"])], [["cn=odd"], ["cn=odd"]], 3),
        ([("odd", [])], [["cn=odd"], ["cn=odd"]], 3),
    ],
)
def test_groups_are_told_apart_by_the_members_they_show(
    shown: list[tuple[str, list[str]]], expected: list[list[str]], searches: int
) -> None:
    """One that shows anybody else, or nobody, is not believed: each lookup is asked alone."""
    directory = Counting()
    entries = [Entry(f"cn={name},{BASE}", {"cn": [name], "member": members}) for name, members in shown]

    async def search(search: Search) -> Sequence[Entry]:
        directory.asked.append(search)
        return entries

    directory.search = search  # type: ignore[method-assign]
    lookups = [facts.groups(AMY, ()), facts.groups(LIST, ())]

    async def story() -> Answers:
        [batch] = planner().plan(lookups, MATCHED)
        return await batch.ask(directory)

    found = asyncio.run(story())
    assert [[entry.dn.partition(",")[0] for entry in found[lookup]] for lookup in lookups] == expected
    assert len(directory.asked) == searches


def test_entries_that_are_known_by_name_are_one_search() -> None:
    """And whom it does not show is asked for alone: it may be there, and not be searchable by name."""
    plan = planner(mapping=NAMING)
    people = (
        Entry(AMY, {"distinguishedName": [AMY]}),
        Entry(LIST, {"cn": ["list"]}),
        Entry(f"cn=g,{BASE}", {"objectSid": ["S1"]}),
    )
    directory = Counting(*people)
    lookups = (facts.entry(AMY), facts.entry(LIST), facts.sid("S1"), facts.entry("cn=x,dc=elsewhere"))
    found = answers(plan, directory, *lookups)
    assert [["uid=amy"], ["cn=list"], ["cn=g"], []] == list(found.values())
    asked = [_text(search) for search in directory.asked]
    assert asked == [
        "cn=x,dc=elsewhere base (objectClass=*)",
        f"base sub (|(distinguishedName={AMY})(distinguishedName={LIST})(objectSid=S1))",
        "cn=list,ou=groups, base (objectClass=*)",
    ]


class Copy:
    """A copy of the directory that has PEOPLE, or cannot answer."""

    def __init__(self, *, can_answer: bool = True) -> None:
        self.can_answer = can_answer
        self.asked: list[tuple[str, ...]] = []

    def find(self, search: Search) -> Sequence[Entry] | None:
        """All of them."""
        self.asked.append(search.attributes)
        return PEOPLE if self.can_answer else None

    def resembling(self, base: str, terms: Terms, attributes: frozenset[str]) -> Sequence[Entry]:
        """Nobody."""
        return []

    def having(self, base: str, terms: Terms, attributes: frozenset[str]) -> Sequence[Entry] | None:
        """Those who have one of the values, as the copy compares them."""
        self.asked.append(tuple(attributes))
        wanted = {value for _, values in terms for value in values}
        people = [entry for entry in PEOPLE if any(wanted & set(values) for _, values in entry.items())]
        return people if self.can_answer else None


@pytest.mark.parametrize("lookup", [facts.mail("a@other"), facts.login("amy"), facts.dynamic()], ids=str)
def test_a_copy_answers_without_memberof(lookup: Lookup) -> None:
    """Which is not kept in it; what it cannot say is None."""
    copy, plan = Copy(), planner()
    found = plan.from_mirror(lookup, copy)
    assert found is not None
    assert (lookup == facts.dynamic()) == (len(found) > 1)
    assert [AMY] == [entry.dn for entry in found[:1]]
    assert not {"memberof"} & {name.lower() for names in copy.asked for name in names}
    assert plan.from_mirror(lookup, Copy(can_answer=False)) is None
    assert plan.from_mirror(facts.match(AMY, "no url"), copy) is None


def test_a_probe_and_a_match_ask_for_no_attribute() -> None:
    """RFC 4511's 1.1: whether there is one is the whole question."""
    probe, match = planner().plan(
        [facts.groups(AMY, ()), facts.groups(LIST, ()), facts.match(AMY, f"ldap:///{BASE}??sub?(a=b)")]
    )
    assert [search_of(probe).attributes, search_of(match).attributes] == [("1.1",), ("1.1",)]


MANY = [f"u{n}" for n in range(3 * OR_TERMS)]


@pytest.mark.parametrize(
    "lookups",
    [
        [facts.mail(f"{name}@x") for name in MANY],
        [facts.mail(f"{name} z@x") for name in MANY],
        [facts.login(name) for name in MANY],
        [facts.domain(name) for name in MANY],
        [facts.url(f"ldap:///{BASE}?mail,uid?one", name) for name in MANY],
        [facts.groups(f"uid={name},{BASE}", (name,)) for name in MANY],
        [lookup for name in MANY for lookup in (facts.mail(name), facts.login(name), facts.domain(name))],
    ],
    ids=["mail", "quoted mail", "login", "domain", "url", "groups", "mixed"],
)
@pytest.mark.parametrize("mapping", [SMALL, Mapping()], ids=["small", "generic"])
def test_an_or_is_bounded(mapping: Mapping, lookups: list[Lookup]) -> None:
    """At most OR_TERMS equalities in one search, and each lookup in one batch."""
    batches = planner(mapping=mapping).plan(lookups)
    assert max(equalities(search_of(batch).filter) for batch in batches) <= OR_TERMS
    assert sorted(lookups) == sorted(lookup for batch in batches for lookup in batch.lookups)


# --- what comes back ------------------------------------------------------------------------------

PEOPLE = (
    Entry(AMY, {"uid": ["amy"], "mail": ["Amy@My.Domain", "a@other"], "objectClass": ["person"]}),
    Entry(f"uid=bob,{BASE}", {"uid": ["bob"], "mail": ["bob@my.domain"], "employeeType": ["service"]}),
    Entry(f"uid=john,{BASE}", {"uid": ["john"], "mail": ['"John Doe"@my.domain']}),
    Entry(f"uid=jane,{BASE}", {"uid": ["jane"], "mailLocalAddress": ["jane doe@my.domain"]}),
    Entry(f"uid=x,{BASE}", {"uid": ["amy@my.domain"], "cn": ["amy@my.domain"]}),
    Entry(f"ou=d,{BASE}", {"associatedDomain": ["My.Domain"]}),
    Entry(f"cn=one,{BASE}", {"member": [AMY, f"uid=bob,{BASE}"]}),
    Entry(f"cn=two,{BASE}", {"memberUid": ["amy"]}),
)


@pytest.mark.parametrize(
    ("lookup", "expected"),
    [
        (facts.mail("amy@my.domain"), ["uid=amy"]),
        (facts.mail("a@other"), ["uid=amy"]),
        (facts.mail("nobody@my.domain"), []),
        (facts.mail("john doe@my.domain"), ["uid=john"]),
        (facts.mail("jane doe@my.domain"), ["uid=jane"]),
        (facts.login("amy@my.domain"), ["uid=x"]),
        (facts.login("bob"), ["uid=bob"]),
        (facts.domain("my.domain"), ["ou=d"]),
        (facts.domain("domain"), []),
        (facts.entry(AMY.upper()), ["uid=amy"]),
        (facts.entry(f"uid=nobody,{BASE}"), []),
        (facts.groups(AMY, ()), ["cn=one"]),
        (facts.groups(AMY, ("amy",)), ["cn=one", "cn=two"]),
        (facts.groups(f"uid=jane,{BASE}", ("jane",)), []),
        (facts.match(AMY, "ldap:///??sub?(objectClass=person)"), ["uid=amy"]),
        (facts.match(AMY, "ldap:///??sub?(objectClass=device)"), []),
        (facts.match(f"uid=nobody,{BASE}", "ldap:///??sub"), []),
        (facts.url(f"ldap:///{BASE}?mail?sub", "amy@my.domain"), ["uid=amy"]),
        (facts.url(f"ldap:///{BASE}?mail?sub", "john doe@my.domain"), ["uid=john"]),
        (facts.url(f"ldap:///{BASE}?mail?sub?(uid=bob)", "amy@my.domain"), []),
        (facts.url(f"ldap:///{BASE}?cn,uid?sub", "amy@my.domain"), ["uid=x"]),
    ],
)
def test_an_answer_is_what_belongs_to_the_lookup(lookup: Lookup, expected: list[str]) -> None:
    """Alone, and amid all the others."""
    directory = Counting(*PEOPLE)
    assert {lookup: expected} == answers(planner(), directory, lookup)
    others = [facts.mail("bob@my.domain"), facts.login("amy"), facts.groups(f"uid=bob,{BASE}", ("bob",))]
    assert expected == answers(planner(), directory, *others, lookup)[lookup]


def test_an_entry_belongs_to_the_lookup_that_it_matches_only() -> None:
    """One search for three lookups; who has the address as a login does not have the address."""
    directory = Counting(*PEOPLE)
    lookups = (facts.mail("amy@my.domain"), facts.login("amy@my.domain"), facts.domain("my.domain"))
    assert [["uid=amy"], ["uid=x"], ["ou=d"]] == list(answers(planner(), directory, *lookups).values())
    assert len(directory.asked) == 1


def test_the_filter_hides_owners_of_addresses_only() -> None:
    """Who is filtered out has no address, but still a login."""
    lookups = (facts.mail("bob@my.domain"), facts.login("bob"))
    found = answers(planner(owners=SERVICE), Counting(*PEOPLE), *lookups)
    assert [[], ["uid=bob"]] == list(found.values())


class Wide:
    """A directory whose matching rules are so wide that every entry matches everything."""

    features = Features()

    async def search(self, search: Search) -> Sequence[Entry]:
        return [
            Entry("uid=amy,dc=x", {"mail": ["amy@my.domain"], "uid": ["amy"]}),
            Entry("uid=wide,dc=x", {"mail": ["\uff41\uff4d\uff59@my.domain"], "uid": ["\uff41\uff4d\uff59"]}),
            Entry("ou=d,dc=x", {"associatedDomain": ["my.domain", "x"], "mail": []}),
            Entry("cn=other,dc=x", {"cn": ["amy@my.domain"], "description": ["amy"]}),
        ]

    async def close(self) -> None:
        """Nothing is open."""

    def set_witnesses(self, dns: Sequence[str]) -> None:
        """It has what it has."""

    def set_proofs(self, proofs: Sequence[Search]) -> None:
        """It shows what it has."""


@pytest.mark.parametrize(
    ("lookup", "expected"),
    [
        (facts.mail("amy@my.domain"), ["uid=amy"]),
        (facts.mail("\uff41\uff4d\uff59@my.domain"), ["uid=wide"]),
        (facts.mail("am@my.domain"), None),
        (facts.login("amy"), ["uid=amy"]),
        (facts.login("\uff41\uff4d\uff59"), ["uid=wide"]),
        (facts.domain("my.domain"), ["ou=d"]),
        (facts.domain("my"), None),
        (facts.url("ldap:///dc=x?mail", "amy@my.domain"), ["uid=amy"]),
        (facts.url("ldap:///dc=x?cn", "amy@my.domain"), ["cn=other"]),
    ],
)
def test_what_comes_back_is_compared_by_us(lookup: Lookup, expected: list[str] | None) -> None:
    """A server's rule may be wider than casefold: what came back for no reason that we see is no answer."""

    async def story() -> Answers:
        [batch] = planner().plan([lookup])
        return await batch.ask(Wide())

    found = asyncio.run(story()).get(lookup)
    assert expected == (None if found is None else [entry.dn.partition(",")[0] for entry in found])


def test_what_came_back_for_no_reason_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """The entry is named in the log, once for all that it holds up."""

    async def story() -> None:
        [batch] = planner().plan([facts.mail("nobody@x"), facts.login("nobody")])
        assert await batch.ask(Wide()) == {}

    asyncio.run(story())
    [line] = [record.getMessage() for record in caplog.records]
    assert line.startswith("uid=amy,dc=x: the server returned this entry, no mapped value of which is")


class Letters(Wide):
    """A directory with letters of all kinds, which finds entries by the skeletons of their values."""

    people = (
        Entry(f"uid=1,{BASE}", {"mail": ["jos\u00e9@my.domain"], "uid": ["jos\u00e9"]}),
        Entry(f"uid=2,{BASE}", {"mail": ["amy@my.domain"], "uid": ["amy"]}),
        Entry(f"uid=3,{BASE}", {"mail": ["\uff42\uff4f\uff42@my.domain", "bob@my.domain"], "uid": ["bob"]}),
    )

    async def search(self, search: Search) -> Sequence[Entry]:
        wanted = {skeleton(found.value.casefold()) for found in leaves(search.filter)}
        return [
            entry
            for entry in self.people
            if any(skeleton(value.casefold()) in wanted for _, values in entry.items() for value in values)
        ]


def leaves(tree: Filter) -> Iterator[Equality]:
    """All of a filter."""
    if isinstance(tree, Equality):
        yield tree
    for part in getattr(tree, "parts", ()):
        yield from leaves(part)


SKELETONS = [
    pytest.param(("jos\u00e9@my.domain",), [["uid=1"]], id="the same"),
    pytest.param(("JOS\u00c9@my.domain".casefold(),), [["uid=1"]], id="without case"),
    pytest.param(("jose@my.domain",), [None], id="without the accent"),
    pytest.param(("jose\u0301@my.domain",), [None], id="the accent apart"),
    pytest.param(("\uff41\uff4d\uff59@my.domain",), [None], id="full-width"),
    pytest.param(("amy@my.domain", "nobody@my.domain"), [["uid=2"], []], id="another key's entry"),
    pytest.param(("amy@my.domain", "\uff41my@my.domain"), [["uid=2"], None], id="both of one skeleton"),
    pytest.param(("bob@my.domain", "\uff42\uff4f\uff42@my.domain"), [["uid=3"]] * 2, id="one has both"),
    pytest.param(("nobody@my.domain",), [[]], id="nobody"),
]


@pytest.mark.parametrize("in_memory", [False, True], ids=["on demand", "in memory"])
@pytest.mark.parametrize(("keys", "expected"), SKELETONS)
def test_what_resembles_is_not_absent(
    keys: tuple[str, ...], expected: list[list[str] | None], in_memory: bool
) -> None:
    """An address that a server may take for somebody's is neither his nor nobody's: language.md section 5."""
    lookups = [facts.mail(key) for key in keys]
    made = planner()
    held = LdifDirectory([Entry(BASE, {"dc": ["example"]}), *Letters.people])

    async def story() -> list[tuple[Entry, ...] | None]:
        if in_memory:
            return [from_memory(lookup) for lookup in lookups]
        [batch] = made.plan(lookups)
        answers = await batch.ask(Letters())
        return [answers.get(lookup) for lookup in lookups]

    def from_memory(lookup: Lookup) -> tuple[Entry, ...] | None:
        try:
            return made.from_mirror(lookup, held)
        except Unavailable:
            return None

    found = asyncio.run(story())
    assert expected == [
        None if one is None else [entry.dn.partition(",")[0] for entry in one] for one in found
    ]


@pytest.mark.parametrize(
    ("who", "searches"),
    [(["nobody", "nil", "none"], 1), (["nobody", "amy"], 3), (["amy"], 1), (["nobody"], 1)],
)
def test_a_probe_spares_searches_where_nothing_is_found(who: list[str], searches: int) -> None:
    """Several groups: one search says that there is none, and only else each is asked."""
    directory = Counting(*PEOPLE)
    lookups = [facts.groups(f"uid={name},ou=people,{BASE}", ()) for name in who]
    found = answers(planner(), directory, *lookups)
    assert [["cn=one"] if name == "amy" else [] for name in who] == list(found.values())
    assert searches == len(directory.asked)


def test_a_concept_that_is_switched_off_is_absent() -> None:
    """An empty mapping finds nothing, alone or beside others."""
    plan = planner(mapping=Mapping(login=(), member=("memberUid",)))
    lookups = (facts.login("amy"), facts.mail("a@other"), facts.groups(AMY, ()))
    assert [[], ["uid=amy"], []] == list(answers(plan, Counting(*PEOPLE), *lookups).values())
    assert answers(plan, Counting(*PEOPLE), facts.login("amy")) == {facts.login("amy"): []}


@pytest.mark.parametrize(
    ("mapping", "lookup"),
    [
        (Mapping(mail=()), facts.mail("amy@my.domain")),
        (Mapping(login=()), facts.login("amy")),
        (Mapping(domain=()), facts.domain("my.domain")),
        (Mapping(member=()), facts.groups(AMY, ("amy",))),
        (Mapping(member=("memberUid",)), facts.groups(AMY, ())),
        (Mapping(member=("memberURL",)), facts.groups(AMY, ("amy",))),
        (Mapping(member=()), facts.dynamic()),
    ],
)
def test_a_concept_that_is_switched_off_is_not_asked_for(mapping: Mapping, lookup: Lookup) -> None:
    """It is known to be absent before anything is asked."""
    limits = Limits(size=100, ttl=300.0, negative_ttl=60.0, max_stale=3600.0)
    for plan, expected in ((planner(mapping=mapping), True), (planner(mapping=Mapping()), False)):
        directory = Counting(*PEOPLE)
        resolver = Resolver(directory, plan, limits, lambda: 0.0)
        assert expected is isinstance(resolver.known(lookup), Absent)
        assert [] == directory.asked


@pytest.mark.parametrize("value", [" amy@my.domain", "amy@my.domain ", "  Amy@My.Domain  "])
def test_blanks_around_a_value(value: str) -> None:
    """A server compares without them, and so are answers matched to lookups."""
    directory = Counting(Entry(f"uid=blank,{BASE}", {"mail": [value], "uid": [" blank "]}))
    lookups = (facts.mail("amy@my.domain"), facts.login("blank"))
    assert [["uid=blank"], ["uid=blank"]] == list(answers(planner(), directory, *lookups).values())


@pytest.mark.parametrize("name", ["memberUid", "memberuid", "MEMBERUID"])
def test_attribute_names_have_no_case(name: str) -> None:
    """A site may write them as it likes in [directory.attributes]."""
    plan = planner(mapping=Mapping(member=("MEMBER", name)))
    [search] = [search_of(batch) for batch in plan.plan([facts.groups(AMY, ("amy",))])]
    assert to_text(search.filter) == f"(|(MEMBER={AMY})({name}=amy))"


def test_a_base_that_is_not_there_is_unavailable() -> None:
    """Of a subtree search, that is; a single entry may be absent."""
    plan = Planner(Where("dc=elsewhere"), SMALL)
    with pytest.raises(Unavailable):
        answers(plan, Counting(), facts.mail("a@x"))


def test_scopes_of_a_url() -> None:
    """The numbers of RFC 4511."""
    scopes = [
        search_of(planner().plan([facts.url(f"ldap:///{BASE}?cn?{scope}", "k")])[0]).scope
        for scope in ("base", "one", "sub", "")
    ]
    assert scopes == [Scope.BASE, Scope.ONE, Scope.SUB, Scope.BASE]
