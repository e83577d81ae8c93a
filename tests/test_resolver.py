"""The cache in front of a directory: what is remembered, for how long, and who waits for whom.

The directory is a fake at the edge, whose answers come when the test says so.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, TypeVar, cast

import pytest

from ldappolicy import facts
from ldappolicy.directory import Features, Search, Terms
from ldappolicy.directory.changes import Changed, Deleted
from ldappolicy.directory.matching import matcher
from ldappolicy.directory.plan import RESEMBLES, Planner, Where
from ldappolicy.entry import Entry
from ldappolicy.errors import Unavailable
from ldappolicy.facts import FOREVER, Absent, Found, Lookup, Missed, Outcome
from ldappolicy.ldap_filter import to_text
from ldappolicy.mapping import PROFILES, Mapping
from ldappolicy.resolver import Limits, Resolver

T = TypeVar("T")

BASE = "dc=example,dc=com"
MAPPING = Mapping(mail=("mail",), login=("uid",), domain=("associatedDomain",), member=("member",))
LIMITS = Limits(size=100, ttl=300.0, negative_ttl=60.0, max_stale=3600.0)

AMY = Entry(f"uid=amy,{BASE}", {"mail": ["amy@x"], "uid": ["amy"]})
BOB = Entry(f"uid=bob,{BASE}", {"mail": ["bob@x"], "uid": ["bob"]})
GROUP = Entry(f"cn=g,{BASE}", {"cn": ["g"]})


class Fake:
    """A directory: every search returns `entries`, once `gate` is open; `down` is why it does not."""

    features = Features()

    def __init__(self, *entries: Entry) -> None:
        self.entries: Sequence[Entry] = entries
        self.wide: Sequence[Entry] = ()  # what every search finds besides, by a rule that is not ours
        self.down = ""
        self.refuse = ""  # what a filter must hold for its search to be unavailable
        self.bug: Exception | None = None
        self.asked: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def search(self, search: Search) -> Sequence[Entry]:
        text = to_text(search.filter)
        self.asked.append(text)
        await self.gate.wait()
        if self.bug is not None:
            raise self.bug
        if self.down or (self.refuse and self.refuse in text):
            raise Unavailable(self.down or "refused")
        if any(f"({name}=" in text for name in ("mail", "uid", "associatedDomain")):
            matches = matcher(search.filter)
            return [*self.wide, *(entry for entry in self.entries if matches(entry))]
        return self.entries

    async def close(self) -> None:
        """Nothing is open."""

    def set_witnesses(self, dns: Sequence[str]) -> None:
        """It has what it has."""

    def set_proofs(self, proofs: Sequence[Search]) -> None:
        """It shows what it has."""


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def passes(self, seconds: float) -> None:
        self.now += seconds


class Stage:
    """A resolver with its fake directory and its clock."""

    def __init__(self, *entries: Entry, limits: Limits = LIMITS, domains: Iterable[str] = ()) -> None:
        self.directory = Fake(*entries)
        self.clock = Clock()
        planner = Planner(Where(BASE, None, frozenset(domains)), MAPPING)
        self.resolver = Resolver(self.directory, planner, limits, self.clock)

    async def ask(self, lookup: Lookup) -> Outcome:
        """As a request does it: what is known, else what is fetched."""
        known = self.resolver.known(lookup)
        return known if known is not None else (await self.resolver.fetch([lookup]))[lookup]

    @property
    def searches(self) -> int:
        """How many the directory was asked."""
        return len(self.directory.asked)


def run(story: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a story in an event loop of its own."""
    return asyncio.run(story())


async def turns() -> None:
    """Let everything that can go on do so."""
    for _ in range(10):
        await asyncio.sleep(0)


def names(outcome: Outcome) -> list[str]:
    """Which entries were found."""
    assert isinstance(outcome, Found)
    return [entry.dn.partition(",")[0] for entry in outcome.entries]


A, B = facts.mail("amy@x"), facts.mail("bob@x")
NOBODY = facts.mail("nobody@x")


# --- what is remembered ---------------------------------------------------------------------------


def test_found_and_absent_are_two_answers_of_one_search() -> None:
    """An entry that came belongs to its lookup; the other lookup has none, which is known as well."""

    async def story() -> None:
        stage = Stage(AMY)
        assert stage.resolver.known(A) is None
        outcomes = await stage.resolver.fetch([A, NOBODY])
        assert {A: Found((AMY,), 1000.0), NOBODY: Absent(1000.0)} == outcomes
        assert outcomes == {lookup: stage.resolver.known(lookup) for lookup in (A, NOBODY)}
        assert (stage.searches, stage.resolver.entries) == (1, 2)

    run(story)


@pytest.mark.parametrize(
    ("lookup", "age", "known"),
    [
        (A, 0.0, True),
        (A, 299.9, True),
        (A, 300.0, False),
        (A, 5000.0, False),
        (NOBODY, 0.0, True),
        (NOBODY, 59.9, True),
        (NOBODY, 60.0, False),
        (NOBODY, 299.0, False),
    ],
)
def test_an_answer_is_trusted_for_its_time(lookup: Lookup, age: float, known: bool) -> None:
    """ttl for what is found, negative_ttl for what is not; then the directory is asked again."""

    async def story() -> None:
        stage = Stage(AMY)
        first = await stage.ask(lookup)
        stage.clock.passes(age)
        assert (stage.resolver.known(lookup) is not None) is known
        again = await stage.ask(lookup)
        assert stage.searches == (1 if known else 2)
        assert (again == first) is known
        assert type(again) is type(first)

    run(story)


def test_the_age_of_an_answer_is_counted_from_the_question() -> None:
    """What a slow directory says was true when it was asked, at best."""

    async def story() -> None:
        stage = Stage(AMY)
        stage.directory.gate.clear()
        asked = asyncio.ensure_future(stage.ask(A))
        await turns()
        stage.clock.passes(200)
        stage.directory.gate.set()
        assert await asked == Found((AMY,), 1000.0)
        stage.clock.passes(100)
        assert stage.resolver.known(A) is None

    run(story)


def test_an_entry_that_goes_and_comes_is_one_or_the_other() -> None:
    """The last answer of the directory replaces the one before, in both directions."""

    async def story() -> None:
        stage = Stage(AMY)
        assert names(await stage.ask(A)) == ["uid=amy"]
        stage.directory.entries = ()
        stage.clock.passes(301)
        assert isinstance(await stage.ask(A), Absent)
        assert isinstance(stage.resolver.known(A), Absent)
        stage.directory.entries = (AMY,)
        stage.clock.passes(61)
        assert names(await stage.ask(A)) == ["uid=amy"]
        assert isinstance(stage.resolver.known(A), Found)
        assert stage.resolver.entries == 1

    run(story)


def test_what_the_configuration_rules_out_is_never_asked_for() -> None:
    """An address in a domain that is not in `domain` is absent without a search."""

    async def story() -> None:
        stage = Stage(AMY, domains=["y"])
        assert await stage.ask(A) == Absent(1000.0)
        assert (stage.searches, stage.resolver.entries) == (0, 0)

    run(story)


@pytest.mark.parametrize("chosen", [facts.mail, facts.login, facts.domain])
def test_a_flood_of_absent_keys_leaves_the_found_ones(chosen: Callable[[str], Lookup]) -> None:
    """Spammers choose the absent keys: they push out one another, and nothing else."""

    async def story() -> None:
        stage = Stage(AMY, limits=Limits(size=10))
        await stage.ask(A)
        for n in range(500):
            assert isinstance(await stage.ask(chosen(f"n{n}@x")), Absent)
        assert names(await stage.ask(A)) == ["uid=amy"]
        assert stage.resolver.entries == 11
        assert stage.searches == 501

    run(story)


def test_found_entries_are_bounded_too() -> None:
    """The one that was asked for last stays."""

    async def story() -> None:
        people = [Entry(f"uid=u{n},{BASE}", {"mail": [f"u{n}@x"]}) for n in range(50)]
        stage = Stage(*people, limits=Limits(size=10))
        for n in range(50):
            assert names(await stage.ask(facts.mail(f"u{n}@x"))) == [f"uid=u{n}"]
        assert stage.resolver.entries == 10
        assert stage.resolver.known(facts.mail("u49@x")) is not None
        assert stage.resolver.known(facts.mail("u0@x")) is None

    run(story)


@pytest.mark.parametrize("max_stale", [0.0, 10.0])
def test_answers_are_trusted_for_ttl_whatever_max_stale_is(max_stale: float) -> None:
    """max_stale is about outages: a site that wants no stale answers still has a cache."""

    async def story() -> None:
        stage = Stage(AMY, limits=Limits(10, ttl=300.0, negative_ttl=60.0, max_stale=max_stale))
        await stage.resolver.fetch([A, NOBODY])
        stage.clock.passes(50)
        assert names(await stage.ask(A)) == ["uid=amy"]
        assert isinstance(await stage.ask(NOBODY), Absent)
        assert stage.searches == 1
        stage.directory.down = "down"
        stage.clock.passes(250)
        assert await stage.ask(A) == Missed("down")

    run(story)


# --- who waits for whom ---------------------------------------------------------------------------


def test_two_requests_share_one_search() -> None:
    """The second waits for the answer to the first one's question."""

    async def story() -> None:
        stage = Stage(AMY)
        stage.directory.gate.clear()
        both = asyncio.gather(stage.ask(A), stage.ask(A))
        await turns()
        assert stage.searches == 1
        stage.directory.gate.set()
        first, second = await both
        assert first is second
        assert names(first) == ["uid=amy"]

    run(story)


def test_requests_share_what_they_have_in_common() -> None:
    """Only what nobody has asked for yet is asked for."""

    async def story() -> None:
        stage = Stage(AMY, BOB)
        stage.directory.gate.clear()
        first = asyncio.ensure_future(stage.resolver.fetch([A]))
        await turns()
        second = asyncio.ensure_future(stage.resolver.fetch([A, B]))
        await turns()
        assert stage.directory.asked == [f'(|(mail={name}@x)(mail="{name}"@x))' for name in ("amy", "bob")]
        stage.directory.gate.set()
        assert [*await first] == [A]
        assert {A: ["uid=amy"], B: ["uid=bob"]} == {
            key: names(value) for key, value in (await second).items()
        }

    run(story)


@pytest.mark.parametrize("others", [0, 1, 20])
def test_a_request_that_gives_up_does_not_lose_the_search(others: int) -> None:
    """Its answer is for whoever waits as well, and for whoever comes later."""

    async def story() -> None:
        stage = Stage(AMY)
        stage.directory.gate.clear()
        first = asyncio.ensure_future(stage.ask(A))
        waiting = [asyncio.ensure_future(stage.ask(A)) for _ in range(others)]
        await turns()
        first.cancel()
        await turns()
        assert first.cancelled()
        assert not any(task.done() for task in waiting)
        stage.directory.gate.set()
        assert [["uid=amy"]] * others == [names(outcome) for outcome in await asyncio.gather(*waiting)]
        await turns()
        assert names(await stage.ask(A)) == ["uid=amy"]
        assert stage.searches == 1

    run(story)


def test_a_second_question_while_the_first_is_answered_is_new() -> None:
    """Nothing stays under way: the next fetch after an answer is a search again."""

    async def story() -> None:
        stage = Stage(AMY)
        for count in (1, 2, 3):
            await stage.resolver.fetch([A])
            assert stage.searches == count

    run(story)


# --- when the directory does not answer -----------------------------------------------------------


@pytest.mark.parametrize("lookup", [A, NOBODY])
@pytest.mark.parametrize(
    ("age", "expected"), [(301.0, True), (3599.0, True), (3600.0, False), (9999.0, False)]
)
def test_the_last_answer_serves_while_it_is_young_enough(lookup: Lookup, age: float, expected: bool) -> None:
    """What was found stays found, what was absent stays absent, until it is max_stale old."""

    async def story() -> None:
        stage = Stage(AMY)
        first = await stage.ask(lookup)
        stage.directory.down = "connection lost"
        stage.clock.passes(age)
        assert await stage.ask(lookup) == (first if expected else Missed("connection lost"))
        assert (stage.searches, stage.resolver.counters.cache["stale"].value) == (2, int(expected))

    run(story)


def test_a_stale_answer_is_not_fresh_again() -> None:
    """Every request asks the directory anew; the answer does not get younger by being served."""

    async def story() -> None:
        stage = Stage(AMY)
        first = await stage.ask(A)
        stage.directory.down = "down"
        stage.clock.passes(400)
        for count in (2, 3, 4):
            again = await stage.ask(A)
            assert (again, cast(Found, again).is_stale) == (first, True)
            assert stage.searches == count
        stage.clock.passes(3200)
        assert await stage.ask(A) == Missed("down")

    run(story)


@pytest.mark.parametrize(("lookup", "ttl"), [(A, 300.0), (NOBODY, 60.0)])
def test_an_answer_says_when_it_turns(lookup: Lookup, ttl: float) -> None:
    """Near its end it is not for keeping, and says so; past it, it is stale, and says how long it serves."""

    async def story() -> None:
        stage = Stage(AMY)

        async def is_so_after(seconds: float) -> tuple[bool, float]:
            stage.clock.now = 1000.0 + seconds
            answer = await stage.ask(lookup)
            assert not isinstance(answer, Missed)
            return answer.is_stale, answer.turns_at - 1000.0

        await stage.ask(lookup)
        stage.directory.down = "gone"
        assert await is_so_after(ttl - 20) == (False, FOREVER)
        assert await is_so_after(ttl - 1) == (False, ttl)
        assert await is_so_after(ttl) == (True, 3600.0)
        assert await is_so_after(3599) == (True, 3600.0)

    run(story)


def test_a_young_answer_that_is_asked_for_again_is_not_stale() -> None:
    """As after SIGHUP, and in a snapshot: it is past its ttl when it is so old."""

    async def story() -> None:
        stage = Stage(AMY)
        stage.resolver.recall([(A, (AMY,), 10.0), (B, (BOB,), 400.0)])
        stage.directory.down = "gone"
        answers = [await stage.ask(lookup) for lookup in (A, B)]
        assert [(one.is_stale, one.turns_at) for one in cast(list[Found], answers)] == [
            (False, 1290.0),
            (True, 1000.0 + 3200.0),
        ]

    run(story)


def test_a_mirror_whose_stream_is_lost_turns_stale_as_a_whole() -> None:
    """What it lacks no sooner than what it holds: its ttl is one."""

    async def story() -> None:
        stage = Stage(BOB)
        stage.resolver.vouch()
        stage.resolver.use_mirror(Copy(lambda asked: [AMY] if "amy" in asked else []))
        stage.resolver.unvouch()
        stage.directory.down = "gone"
        for passed, expected in ((298.0, (False, 1300.0)), (3.0, (True, 4600.0))):
            stage.clock.passes(passed)
            for lookup in (A, NOBODY):
                answer = await stage.ask(lookup)
                assert not isinstance(answer, Missed)
                assert (answer.is_stale, answer.turns_at) == expected

    run(story)


@pytest.mark.parametrize("before", [[], [AMY]], ids=["absent", "found"])
def test_an_answer_from_before_does_not_serve_where_an_entry_resembles(before: list[Entry]) -> None:
    """The directory did answer: that a server may take an entry for it, which is neither."""

    async def story() -> None:
        stage = Stage(*before)
        assert isinstance(await stage.ask(A), Found if before else Absent)
        stage.directory.entries = ()
        stage.directory.wide = [Entry(f"uid=amy2,{BASE}", {"mail": ["\uff41my@x"]})]
        stage.clock.passes(400.0)
        assert await stage.ask(A) == Missed(RESEMBLES)
        stage.directory.down = "gone"
        assert await stage.ask(A) == Missed("gone")

    run(story)


def test_what_was_never_known_is_unavailable_and_not_remembered() -> None:
    """As soon as the directory is back, it is asked."""

    async def story() -> None:
        stage = Stage(AMY)
        stage.directory.down = "no route to host"
        assert await stage.ask(A) == Missed("no route to host")
        assert (stage.resolver.known(A), stage.resolver.entries) == (None, 0)
        stage.directory.down = ""
        assert names(await stage.ask(A)) == ["uid=amy"]

    run(story)


def test_one_search_of_several_that_fails_is_its_own_trouble() -> None:
    """The other lookups of the same request have their answers, and keep them."""
    group = facts.groups(AMY.dn, ())

    async def story() -> None:
        stage = Stage(AMY)
        stage.directory.refuse = "member="
        outcomes = await stage.resolver.fetch([A, NOBODY, group])
        assert {A: Found((AMY,), 1000.0), NOBODY: Absent(1000.0), group: Missed("refused")} == outcomes
        assert stage.resolver.known(A) is not None
        assert stage.resolver.known(group) is None

    run(story)


def test_a_stale_and_an_unknown_lookup_in_one_request() -> None:
    """Each has what is known of it."""

    async def story() -> None:
        stage = Stage(AMY)
        await stage.ask(A)
        stage.directory.down = "down"
        stage.clock.passes(400)
        assert {A: Found((AMY,), 1000.0), B: Missed("down")} == await stage.resolver.fetch([A, B])

    run(story)


def test_ask_again_trusts_nothing_and_forgets_nothing() -> None:
    """After SIGHUP every answer is asked for anew, and serves while the directory does not answer."""

    async def story() -> None:
        stage = Stage(AMY)
        await stage.resolver.fetch([A, NOBODY])
        stage.clock.passes(1)
        stage.resolver.ask_again()
        assert [stage.resolver.known(lookup) for lookup in (A, NOBODY)] == [None, None]
        stage.directory.down = "down"
        assert {A: Found((AMY,), 1000.0), NOBODY: Absent(1000.0)} == await stage.resolver.fetch([A, NOBODY])
        stage.directory.down = ""
        assert await stage.ask(A) == Found((AMY,), 1001.0)
        assert stage.resolver.known(A) == Found((AMY,), 1001.0)

    run(story)


@pytest.mark.parametrize(("vouched", "later"), [(False, 1), (True, 0)], ids=["", "vouched, at once"])
def test_an_answer_to_a_question_from_before_is_not_trusted_after(vouched: bool, later: float) -> None:
    """A search that was under way when everything was to be asked again may be of the old state."""

    async def story() -> None:
        stage = Stage(AMY)
        if vouched:
            stage.resolver.vouch()
        stage.directory.gate.clear()
        asked = asyncio.ensure_future(stage.ask(A))
        await turns()
        stage.clock.passes(later)
        stage.resolver.ask_again()
        stage.directory.gate.set()
        await asked
        assert stage.resolver.known(A) is None

    run(story)


def test_a_bug_leaves_nobody_waiting() -> None:
    """Whatever is raised, each waiter has an outcome, none of them "absent", and the next search is made."""
    group = facts.groups(AMY.dn, ())

    async def story() -> None:
        stage = Stage(AMY)
        reported: list[str] = []
        asyncio.get_running_loop().set_exception_handler(
            lambda loop, context: reported.append(repr(context.get("exception")))
        )
        stage.directory.bug = ZeroDivisionError("a bug")
        first, second = await asyncio.gather(stage.resolver.fetch([A, group]), stage.resolver.fetch([A]))
        assert {type(outcome) for outcome in (*first.values(), *second.values())} == {Missed}
        stage.directory.bug = None
        await turns()
        assert names(await stage.ask(A)) == ["uid=amy"]
        assert reported == ["ZeroDivisionError('a bug')"]

    run(story)


def test_a_lookup_that_cannot_be_planned_is_its_own_trouble() -> None:
    """A URL that is none makes its own lookup unavailable, not those beside it."""
    bad = facts.url("ldap://elsewhere.example/dc=x?mail", "amy@x")
    worse = facts.match(AMY.dn, "http://elsewhere.example")

    async def story() -> None:
        stage = Stage(AMY)
        outcomes = await stage.resolver.fetch([A, bad, worse])
        assert names(outcomes[A]) == ["uid=amy"]
        assert {type(outcomes[bad]), type(outcomes[worse])} == {Missed}

    run(story)


# --- requests that come together ------------------------------------------------------------------


def test_requests_of_one_turn_share_a_search() -> None:
    """What two requests lack when the event loop comes round is one search; a lone one does not wait."""

    async def story() -> None:
        stage = Stage(AMY, BOB)
        both = await asyncio.gather(stage.ask(A), stage.ask(B))
        assert [names(outcome) for outcome in both] == [["uid=amy"], ["uid=bob"]]
        assert stage.searches == 1
        lone = asyncio.ensure_future(stage.ask(NOBODY))
        await turns()
        assert lone.done()

    run(story)


def test_what_is_looked_ahead_for_is_asked_once() -> None:
    """And not again by those who need it meanwhile."""

    async def story() -> None:
        stage = Stage(AMY)
        stage.resolver.look_ahead([A])
        assert not stage.resolver.is_idle
        assert names(await stage.ask(A)) == ["uid=amy"]
        stage.resolver.look_ahead([A])
        await turns()
        assert (stage.searches, stage.resolver.is_idle) == (1, True)

    run(story)


# --- changes --------------------------------------------------------------------------------------

ELSE = Entry(f"uid=else,{BASE}", {"mail": ["else@x"], "uid": ["else"]})


def test_an_answer_is_trusted_while_a_stream_vouches() -> None:
    """Whatever its age, if it was asked for since; and for its ttl from when the stream was lost."""

    async def story() -> None:
        stage = Stage(AMY)
        stage.resolver.vouch()
        await stage.resolver.fetch([NOBODY])
        stage.clock.passes(3000)
        assert isinstance(stage.resolver.known(NOBODY), Absent)
        assert stage.resolver.data_age == 0
        stage.resolver.unvouch()
        stage.clock.passes(59)
        assert isinstance(stage.resolver.known(NOBODY), Absent)
        assert stage.resolver.data_age == stage.resolver.age(stage.clock()) == 59
        stage.clock.passes(6)
        assert stage.resolver.known(NOBODY) is None

    run(story)


def test_what_was_asked_before_the_stream_is_not_vouched_for() -> None:
    """A change may have come between the two."""

    async def story() -> None:
        stage = Stage(AMY)
        await stage.ask(A)
        stage.clock.passes(1)
        stage.resolver.vouch()
        stage.clock.passes(300)
        assert stage.resolver.known(A) is None

    run(story)


def test_a_change_forgets_what_it_concerns() -> None:
    """And the rest is as it was."""

    async def story() -> None:
        stage = Stage(AMY, BOB)
        stage.resolver.vouch()
        await stage.resolver.fetch([A, B])
        stage.resolver.changed(Changed("", AMY))
        assert (stage.resolver.known(A), names(await stage.ask(B))) == (None, ["uid=bob"])
        assert stage.searches == 1

    run(story)


def test_an_answer_that_a_change_overtakes_is_not_kept() -> None:
    """It may be from before the change: whoever waits gets it, and nobody else."""

    async def story() -> None:
        stage = Stage(AMY)
        stage.resolver.vouch()
        stage.directory.gate.clear()
        asked = asyncio.ensure_future(stage.ask(A))
        await turns()
        stage.clock.passes(1)
        stage.resolver.changed(Changed("", ELSE))
        stage.directory.gate.set()
        assert names(await asked) == ["uid=amy"]
        assert stage.resolver.known(A) is None

    run(story)


def test_an_entry_is_known_by_its_identity() -> None:
    """As it was last answered, while that is remembered."""
    amy = Entry(AMY.dn, {"mail": ["amy@x"], "entryUUID": ["a-1"]})

    async def story() -> None:
        stage = Stage(amy)
        assert stage.resolver.known_entry("a1") is None
        await stage.ask(A)
        assert stage.resolver.known_entry("a1") == amy
        await stage.ask(A)
        assert stage.resolver.lately_found(5) == [AMY.dn]
        stage.resolver.changed(Deleted("a1"))
        assert stage.resolver.known_entry("a1") is None
        assert stage.resolver.known(A) is None

    run(story)


def test_what_is_noted_of_dependencies_is_bounded() -> None:
    """By what is remembered, not by what ever was."""

    async def story() -> None:
        stage = Stage(limits=Limits(size=10))
        stage.resolver.vouch()
        for n in range(500):
            user = Entry(f"uid=u{n},{BASE}", {"mail": [f"u{n}@x"], "entryUUID": [f"u{n}"]})
            stage.directory.entries = (user,)
            assert isinstance(await stage.ask(facts.mail(f"u{n}@x")), Found)
        assert sum(stage.resolver.known_entry(f"u{n}") is not None for n in range(500)) == 10
        assert stage.resolver.dependencies <= 8 * 11

    run(story)


def test_answers_that_depend_on_much_make_room_for_others() -> None:
    """The oldest go; whoever asks for one again is told by the directory."""

    async def story() -> None:
        stage = Stage(limits=Limits(size=10))
        stage.resolver.vouch()
        for n in range(50):
            around = [f"cn=g{n}-{at},{BASE}" for at in range(30)]
            stage.directory.entries = (Entry(f"uid=u{n},{BASE}", {"mail": [f"u{n}@x"], "memberOf": around}),)
            assert isinstance(await stage.ask(facts.mail(f"u{n}@x")), Found)
            assert stage.resolver.dependencies <= 8 * 10
            assert stage.resolver.known(facts.mail(f"u{n}@x")) is not None
        assert 1 <= stage.resolver.entries < 10

    run(story)


# --- the mirror, and what is known from another time ----------------------------------------------


class Copy:
    """A copy of the directory that answers by the text of a filter, or by the values that are asked for."""

    def __init__(self, answer: Callable[[str], list[Entry] | None]) -> None:
        self.answer = answer

    def find(self, search: Search) -> list[Entry] | None:
        """By the filter."""
        return self.answer(to_text(search.filter))

    def having(self, base: str, terms: Terms, attributes: frozenset[str]) -> list[Entry] | None:
        """By the values."""
        return self.answer(" ".join(value for _, values in terms for value in values))

    def resembling(self, base: str, terms: Terms, attributes: frozenset[str]) -> list[Entry]:
        """Nothing does."""
        return []


def test_a_mirror_answers_what_it_can() -> None:
    """None of it is a search; what it cannot say is asked for."""

    async def story() -> None:
        stage = Stage(BOB)
        stage.resolver.vouch()
        stage.resolver.use_mirror(Copy(lambda asked: [AMY] if "amy" in asked else None))
        assert names(await stage.ask(A)) == ["uid=amy"]
        assert stage.searches == 0
        assert names(await stage.ask(B)) == ["uid=bob"]
        assert stage.searches == 1

    run(story)


def test_a_mirror_outlives_its_stream() -> None:
    """Trusted for the ttl; then it is asked when the directory is unavailable, until max_stale."""

    async def story() -> None:
        stage = Stage(BOB)
        stage.resolver.vouch()
        stage.resolver.use_mirror(Copy(lambda asked: [AMY]))
        stage.resolver.unvouch()
        stage.clock.passes(299)
        assert names(await stage.ask(A)) == ["uid=amy"]
        stage.clock.passes(6)
        assert stage.resolver.known(A) is None
        stage.directory.down = "gone"
        assert names(await stage.ask(A)) == ["uid=amy"]
        stage.clock.passes(3600)
        assert await stage.ask(A) == Missed("gone")

    run(story)


def test_what_is_recalled_is_for_an_outage() -> None:
    """It is not fresh, however young: the directory is asked first."""

    async def story() -> None:
        stage = Stage(BOB)
        stage.resolver.recall([(A, (AMY,), 10.0), (NOBODY, (), 10.0), (B, (AMY,), 4000.0)])
        assert stage.resolver.known(A) is None
        stage.directory.down = "gone"
        assert names(await stage.ask(A)) == ["uid=amy"]
        assert isinstance(await stage.ask(NOBODY), Absent)
        assert await stage.ask(B) == Missed("gone")
        assert {lookup: age for lookup, _, age in stage.resolver.remembered()} == {A: 10.0, NOBODY: 10.0}

    run(story)


def test_a_copy_of_another_time_is_for_an_outage() -> None:
    """The same for a mirror of the snapshot; once a stream is live it has to be replaced."""

    async def story() -> None:
        stage = Stage(BOB)
        stage.resolver.begin_with(Copy(lambda asked: [AMY]), 10.0)
        assert (stage.resolver.known(A), stage.resolver.data_age) == (None, 10.0)
        stage.directory.down = "gone"
        assert names(await stage.ask(A)) == ["uid=amy"]

    run(story)


def test_an_answer_of_a_gap_is_not_vouched_for() -> None:
    """Whoever was asked while no stream stood may have been behind."""

    async def story() -> None:
        stage = Stage(AMY, BOB)
        stage.resolver.vouch()
        stage.clock.passes(1)
        await stage.ask(A)
        stage.clock.passes(1)
        stage.resolver.unvouch()
        stage.clock.passes(1)
        await stage.ask(B)
        stage.clock.passes(1)
        stage.resolver.vouch()
        stage.clock.passes(400)
        assert (stage.resolver.known(A) is None, stage.resolver.known(B) is None) == (False, True)

    run(story)


def test_the_youngest_answer_serves_in_an_outage() -> None:
    """Be it of the mirror, or of a search since its stream was lost."""

    async def story() -> None:
        stage = Stage(AMY)
        stage.resolver.begin_with(Copy(lambda asked: [BOB]), 3000.0)
        await stage.ask(A)
        stage.clock.passes(400)
        stage.directory.down = "gone"
        assert names(await stage.ask(A)) == ["uid=amy"]
        stage.clock.passes(1000)
        assert names(await stage.ask(A)) == ["uid=amy"]

    run(story)


def test_a_request_behind_a_change_asks_anew() -> None:
    """And does not wait for a search that began before it."""

    async def story() -> None:
        stage = Stage(AMY)
        stage.resolver.vouch()
        stage.directory.gate.clear()
        first = asyncio.ensure_future(stage.ask(A))
        await turns()
        stage.resolver.changed(Changed("", AMY))
        second = asyncio.ensure_future(stage.ask(A))
        await turns()
        stage.directory.gate.set()
        assert [names(outcome) for outcome in await asyncio.gather(first, second)] == [["uid=amy"]] * 2
        assert stage.searches == 2

    run(story)


def test_who_is_named_by_a_list_makes_it_expire() -> None:
    """Servers amend such names and tell nobody: ttl, whatever vouches."""
    listed = Entry(f"cn=l,{BASE}", {"mail": ["amy@x"], "smtpdDeniedSenderDN": [BOB.dn]})

    async def story() -> None:
        stage = Stage(listed)
        stage.resolver.vouch()
        await stage.ask(A)
        stage.clock.passes(299)
        assert stage.resolver.known(A) is not None
        stage.clock.passes(10)
        assert stage.resolver.known(A) is None
        await stage.ask(A)
        stage.resolver.changed(Deleted("", BOB.dn))
        assert stage.resolver.known(A) is None

    run(story)


def test_a_change_of_an_entry_with_an_odd_name_is_no_fault() -> None:
    """What is no DN to us names nothing that is remembered."""
    stage = Stage(AMY)
    stage.resolver.changed(Deleted("", "cn=a\\zb,dc=x"))
    assert stage.resolver.known(A) is None


def test_what_memberof_tells_is_not_believed_of_entries_of_a_mirror() -> None:
    """They come without it: groups are asked for while there is one, and while requests hold such entries."""

    async def story() -> None:
        stage = Stage(GROUP)
        stage.directory.features = Features(controls=frozenset(("1.2.3",)))
        planner = Planner(Where(BASE), PROFILES["active_directory"])
        stage.resolver = Resolver(stage.directory, planner, LIMITS, stage.clock)
        groups = facts.groups(AMY.dn, ())
        assert isinstance(stage.resolver.known(groups), Absent)
        stage.resolver.vouch()
        stage.resolver.use_mirror(Copy(lambda asked: None))
        assert stage.resolver.known(groups) is None
        stage.resolver.use_mirror(None)
        assert stage.resolver.known(groups) is None
        stage.clock.passes(60)
        assert isinstance(stage.resolver.known(groups), Absent)

    run(story)
