"""What lists came to, by what they looked at: a tree that may never say what the list would not say."""

import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ldappolicy.learned import LONGEST, PLACE_BYTES, Learned, NotedRequest, ValuesOf
from ldappolicy.memories import BOUNDS, Bound, Memory
from ldappolicy.request import Request

NAMES = ("sender", "recipient", "sasl_username", "client_name")
VALUES = ("", "a", "b", "c")

Decide = Callable[[Request], str]


def requests() -> st.SearchStrategy[Request]:
    """Requests that differ in a few attributes, of few values."""
    chosen = st.fixed_dictionaries({name: st.sampled_from(VALUES) for name in NAMES})
    return chosen.map(Request.from_attributes)


def decisions(depth: int = 4) -> st.SearchStrategy[Decide]:
    """Functions that look at one attribute after the other, the next by the value of the last."""
    leaves = st.sampled_from(("DUNNO", "OK", "reject")).map(lambda outcome: lambda request: outcome)
    if not depth:
        return leaves
    deeper = st.dictionaries(st.sampled_from(VALUES), decisions(depth - 1), max_size=3)

    def looking(drawn: tuple[str, dict[str, Decide], Decide]) -> Decide:
        name, branches, otherwise = drawn
        return lambda request: branches.get(getattr(request, name), otherwise)(request)

    return leaves | st.tuples(st.sampled_from(NAMES), deeper, leaves).map(looking)


def ask(memory: Learned[str], decide: Decide, request: Request) -> str:
    """What the memory says, else what the list says, which is learned."""
    known = memory.recall(ValuesOf(request))
    if known is None:
        taking_notes = NotedRequest(request)
        known = decide(taking_notes.as_request)
        memory.learn(taking_notes.looks, ValuesOf(request), known)
    return known


@given(decisions(), st.lists(requests(), max_size=40))
def test_what_is_recalled_is_what_would_be_decided(decide: Decide, asked: list[Request]) -> None:
    """Whatever was asked before."""
    memory: Learned[str] = Learned(Memory(BOUNDS["conclusions"]))
    assert [ask(memory, decide, request) for request in asked] == [decide(request) for request in asked]


@given(decisions(), decisions(), st.lists(requests(), max_size=40))
def test_another_order_of_looking_does_no_harm(one: Decide, other: Decide, asked: list[Request]) -> None:
    """A cache inside a list may change the order; here two parts of it take turns."""
    memory: Learned[tuple[str, str]] = Learned(Memory(BOUNDS["conclusions"]))
    for number, request in enumerate(asked):
        known = memory.recall(ValuesOf(request))
        if known is None:
            taking_notes = NotedRequest(request)
            first, second = (one, other) if number % 2 else (other, one)
            answers = {first: first(taking_notes.as_request)}
            answers[second] = second(taking_notes.as_request)
            known = (answers[one], answers[other])
            memory.learn(taking_notes.looks, ValuesOf(request), known)
        assert (one(request), other(request)) == known


def test_a_request_notes_what_is_looked_at() -> None:
    """By name, in order, once."""
    taking_notes = NotedRequest(Request(sender="a", recipient="b"))
    request = taking_notes.as_request
    assert (request.recipient, request.sender, request.recipient) == ("b", "a", "b")
    assert taking_notes.looks == ["recipient", "sender"]


def test_what_is_no_attribute() -> None:
    """Is none here either."""
    taking_notes = NotedRequest(Request())
    for name in ("nothing", "_replace"):
        with pytest.raises(AttributeError):
            getattr(taking_notes, name)
    assert taking_notes.looks == []


def test_a_list_that_looks_at_nothing() -> None:
    """Comes to the same for everybody."""
    memory: Learned[str] = Learned(Memory(BOUNDS["conclusions"]))
    memory.learn([], ValuesOf(Request()), "reject")
    assert memory.recall(ValuesOf(Request(sender="anybody"))) == "reject"


def test_an_attribute_that_is_not_at_hand() -> None:
    """Whoever has only some of them does not know."""
    memory: Learned[str] = Learned(Memory(BOUNDS["conclusions"]))
    memory.learn(["sender"], ValuesOf(Request(sender="a")), "reject")
    match = re.match(b"(?P<recipient>b)", b"b")
    assert match is not None
    assert memory.recall(match) is None


def test_whether_it_looks_at_more() -> None:
    """It is known of the value that it was seen with."""
    memory: Learned[str] = Learned(Memory(BOUNDS["conclusions"]))
    assert not memory.goes_on(ValuesOf(Request(sender="a")))
    memory.learn(["sender", "recipient"], ValuesOf(Request(sender="a", recipient="b")), "reject")
    memory.learn(["sender"], ValuesOf(Request(sender="c")), "OK")
    assert [memory.goes_on(ValuesOf(Request(sender=sender))) for sender in "acd"] == [True, False, False]


@pytest.mark.parametrize(("size", "known"), [(LONGEST, "OK"), (LONGEST + 1, None)])
def test_long_values_are_not_kept(size: int, known: str | None) -> None:
    """Clients choose them; wherever in the tree they come."""
    for looks in (["sender"], ["recipient", "sender"], ["sender", "recipient"]):
        memory: Learned[str] = Learned(Memory(BOUNDS["conclusions"]))
        values = ValuesOf(Request(sender="x" * size, recipient="y"))
        memory.learn(looks, values, "OK")
        assert memory.recall(values) == known


def test_how_many_are_kept_is_bounded() -> None:
    """Beyond that all of them go, and what else is among them."""
    among: Memory[object, object] = Memory(Bound(10, 4 * PLACE_BYTES))
    among["else"] = True
    memory: Learned[str] = Learned(among)
    known = []
    for number in range(4):
        memory.learn(["sender"], ValuesOf(Request(sender=str(number))), "OK")
        known.append(sum(memory.recall(ValuesOf(Request(sender=str(one)))) is not None for one in range(4)))
    assert known == [1, 2, 3, 1]
    assert not among
