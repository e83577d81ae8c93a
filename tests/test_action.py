"""Actions: every right-hand side of access(5), and how it is written on the wire."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ldappolicy.action import Kind, parse_action, split_list, split_places
from ldappolicy.errors import InputError

K = Kind


@pytest.mark.parametrize(
    ("value", "kind", "wire"),
    [
        pytest.param("DUNNO", K.DUNNO, "DUNNO", id="DUNNO"),
        pytest.param("dunno", K.DUNNO, "DUNNO", id="verb in any case"),
        pytest.param("OK", K.PERMIT, "", id="OK"),
        pytest.param("ok text", K.PERMIT, "", id="OK with text"),
        pytest.param("RELAY", K.PERMIT, "", id="RELAY"),
        pytest.param("0", K.PERMIT, "", id="zero"),
        pytest.param("550", K.PERMIT, "", id="digits are OK, also a status code"),
        pytest.param("20240131120000", K.PERMIT, "", id="a time stamp is OK"),
        pytest.param("", K.PERMIT, "", id="empty"),
        pytest.param(" \t", K.PERMIT, "", id="blank"),
        pytest.param(",", K.PERMIT, "", id="separators only"),
        pytest.param("REJECT", K.REFUSE, "REJECT", id="REJECT"),
        pytest.param("reject", K.REFUSE, "REJECT", id="a single word that is an action is the action"),
        pytest.param("Reject go away", K.REFUSE, "REJECT go away", id="REJECT with text"),
        pytest.param("REJECT\tgo  away", K.REFUSE, "REJECT go  away", id="tab behind the verb"),
        pytest.param("REJECT 5.1.1 no", K.REFUSE, "REJECT 5.1.1 no", id="REJECT with code"),
        pytest.param("REJECT 5.7.1", K.REFUSE, "REJECT 5.7.1 Access denied", id="a bare code gets a text"),
        pytest.param("REJECT with: colon", K.REFUSE, "REJECT with: colon", id="colon in a text"),
        pytest.param("DEFER", K.REFUSE, "DEFER", id="DEFER"),
        pytest.param("defer later", K.REFUSE, "DEFER later", id="DEFER with text"),
        pytest.param("DEFER 4.7.1", K.REFUSE, "DEFER 4.7.1 Access denied", id="DEFER with bare code"),
        pytest.param("450 later", K.REFUSE, "450 later", id="4NN"),
        pytest.param("550 5.1.1 no user", K.REFUSE, "550 5.1.1 no user", id="5NN"),
        pytest.param("550 5.1.1", K.REFUSE, "550 5.1.1 Access denied", id="5NN with bare code"),
        pytest.param("550 5.7.1 ", K.REFUSE, "550 5.7.1 Access denied", id="5NN with bare code and space"),
        pytest.param("499 x", K.REFUSE, "499 x", id="499"),
        pytest.param("599 x", K.REFUSE, "599 x", id="599"),
        pytest.param("DEFER_IF_PERMIT", K.DEFER_IF_PERMIT, "DEFER_IF_PERMIT", id="DEFER_IF_PERMIT"),
        pytest.param("defer_if_permit x", K.DEFER_IF_PERMIT, "DEFER_IF_PERMIT x", id="dip text"),
        pytest.param("DEFER_IF_REJECT 4.2.0 x", K.DEFER_IF_REJECT, "DEFER_IF_REJECT 4.2.0 x", id="dir"),
        pytest.param("HOLD", K.EFFECT, "HOLD", id="HOLD"),
        pytest.param("hold it", K.EFFECT, "HOLD it", id="HOLD text"),
        pytest.param("FILTER smtp:[192.0.2.1]:25", K.EFFECT, "FILTER smtp:[192.0.2.1]:25", id="FILTER"),
        pytest.param("REDIRECT u@my.domain", K.EFFECT, "REDIRECT u@my.domain", id="REDIRECT"),
        pytest.param("BCC u@my.domain", K.EFFECT, "BCC u@my.domain", id="BCC"),
        pytest.param("PREPEND X-A: b", K.EFFECT, "PREPEND X-A: b", id="PREPEND"),
        pytest.param("PREPEND X-A:", K.EFFECT, "PREPEND X-A:", id="PREPEND without a body"),
        pytest.param("DISCARD", K.DISCARD, "DISCARD", id="DISCARD"),
        pytest.param("discard gone", K.DISCARD, "DISCARD gone", id="DISCARD text"),
        pytest.param("INFO x", K.LOG, "INFO x", id="INFO"),
        pytest.param("WARN", K.LOG, "WARN", id="WARN"),
        pytest.param("FILTER", K.DUNNO, "FILTER", id="FILTER without argument"),
        pytest.param("FILTER foo", K.DUNNO, "FILTER foo", id="FILTER without colon"),
        pytest.param("REDIRECT foo", K.DUNNO, "REDIRECT foo", id="REDIRECT without at"),
        pytest.param("BCC foo", K.DUNNO, "BCC foo", id="BCC without at"),
        pytest.param("PREPEND foo", K.DUNNO, "PREPEND foo", id="PREPEND without header"),
    ],
)
def test_actions(value: str, kind: Kind, wire: str) -> None:
    """The verb stands before the first space or tab, in any case, and is written in upper case."""
    action = parse_action(value)
    assert (kind, wire) == (action.kind, action.wire if kind is not K.PERMIT else "")


@pytest.mark.parametrize(
    ("value", "tokens"),
    [
        pytest.param("insiders_only", ("insiders_only",), id="class"),
        pytest.param("permit_mynetworks, reject", ("permit_mynetworks", "reject"), id="two"),
        pytest.param("a,,  b ,\tc", ("a", "b", "c"), id="all separators"),
        pytest.param("REJECT,text", ("REJECT", "text"), id="a comma is part of the word"),
        pytest.param("reject,", ("reject",), id="a trailing comma forces the list"),
        pytest.param("OK,reject", ("OK", "reject"), id="OK in a list is a name"),
        pytest.param("600 x", ("600", "x"), id="no status code"),
        pytest.param("55 x", ("55", "x"), id="two digits"),
        pytest.param("5500 x", ("5500", "x"), id="four digits"),
        pytest.param("4.7.1 text", ("4.7.1", "text"), id="an enhanced code alone"),
        pytest.param("{reject} text", ("{reject}", "text"), id="braces keep together"),
        pytest.param(
            "reject_rbl_client d=127.0.0.[2..4]", ("reject_rbl_client", "d=127.0.0.[2..4]"), id="rbl"
        ),
        pytest.param("٥٥٠ x", ("٥٥٠", "x"), id="other digits are none"),
    ],
)
def test_lists(value: str, tokens: tuple[str, ...]) -> None:
    """What is no action is a list of restrictions and class names."""
    action = parse_action(value)
    assert (K.LIST, tokens) == (action.kind, action.tokens)


@pytest.mark.parametrize(
    "value",
    [
        "check_sender_access hash:/x",
        "permit, ldap:insiders",
        "inline:{a=b}",
        "{reject",
        "reject}",
    ],
)
def test_invalid(value: str) -> None:
    """A table cannot stand in a right-hand side, and braces have to match."""
    action = parse_action(value)
    assert K.INVALID is action.kind
    assert action.problem


@pytest.mark.parametrize("value", ["", "FILTER foo", "REDIRECT foo", "BCC foo", "PREPEND foo"])
def test_warnings(value: str) -> None:
    """What Postfix only warns of carries what lint says."""
    assert parse_action(value).problem


@pytest.mark.parametrize(
    ("value", "temporary"),
    [
        ("REJECT 4.7.0 x", False),
        ("REJECT", False),
        ("DEFER 5.7.1 x", True),
        ("DEFER", True),
        ("421 bye", True),
        ("521 bye", False),
        ("450 5.7.1 x", True),
    ],
)
def test_temporary(value: str, temporary: bool) -> None:
    """A refusal is temporary by its verb or status code, never by its enhanced code."""
    assert temporary == parse_action(value).temporary


@pytest.mark.parametrize(
    ("value", "about_address", "about_others"),
    [
        ("REJECT 5.1.1 x", "REJECT 5.1.1 x", "REJECT 5.0.0 x"),
        ("550 5.1.8 x", "550 5.1.8 x", "550 5.0.0 x"),
        ("DEFER 4.1.2 x", "DEFER 4.1.2 x", "DEFER 4.0.0 x"),
        ("DEFER_IF_PERMIT 4.1.8 x", "DEFER_IF_PERMIT 4.1.8 x", "DEFER_IF_PERMIT 4.0.0 x"),
        ("DEFER_IF_REJECT 4.1.8 x", "DEFER_IF_REJECT 4.1.8 x", "DEFER_IF_REJECT 4.0.0 x"),
        ("REJECT 5.7.1 x", "REJECT 5.7.1 x", "REJECT 5.7.1 x"),
        ("REJECT 5.10.1 x", "REJECT 5.10.1 x", "REJECT 5.10.1 x"),
        ("REJECT 5.1.1x", "REJECT 5.1.1x", "REJECT 5.1.1x"),
        ("REJECT 6.1.1 x", "REJECT 6.1.1 x", "REJECT 6.1.1 x"),
        ("REJECT 5.1 x", "REJECT 5.1 x", "REJECT 5.1 x"),
    ],
)
def test_address_codes(value: str, about_address: str, about_others: str) -> None:
    """An x.1.y code speaks of an address; a check of anything else sends x.0.0."""
    action = parse_action(value)
    assert (about_address, about_others) == (action.wire, action.wire_plain)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ()),
        ("a", ("a",)),
        (" a, b\tc\r\nd ", ("a", "b", "c", "d")),
        ("check_x {ldap:a b}, c", ("check_x", "{ldap:a b}", "c")),
        ("static:{REJECT a b}", ("static:{REJECT a b}",)),
        ("inline:{ {a = b, c}, d=e }", ("inline:{ {a = b, c}, d=e }",)),
        ("{}", ("{}",)),
    ],
)
def test_split_list(text: str, expected: tuple[str, ...]) -> None:
    """Commas and white space separate names, braces keep together what they hold."""
    assert expected == split_list(text)


def test_split_places() -> None:
    """Each name comes with the number of its first character."""
    assert ((2, "a"), (5, "{b c}"), (11, "d")) == split_places(" a, {b c}\td")


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("{", 1),
        ("}", 1),
        ("a {b", 3),
        ("a} b", 2),
        ("{{a}", 1),
        ("}{", 1),
        ("static:{REJECT a", 8),
        ("{a} {b", 5),
    ],
)
def test_unbalanced(text: str, at: int) -> None:
    """Braces that do not match are an error, which says where."""
    with pytest.raises(InputError, match=rf"^unbalanced '[{{}}]' at character {at}$"):
        split_list(text)


@given(st.text(max_size=40) | st.text(alphabet="REJECTok 45.,{}:\n\x00", max_size=30))
def test_every_value_is_some_action(value: str) -> None:
    """Nothing that stands in a directory makes it raise, and no status code is sent without a text."""
    action = parse_action(value)
    for wire in (action.wire, action.wire_plain):
        assert not re.fullmatch(r"(\S+ )?[245]\.\d{1,3}\.\d{1,3}\s*|[45]\d\d\s*", wire)
        assert not re.search(r"[\x00-\x1f\x7f]", wire)
