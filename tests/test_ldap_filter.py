"""Filters are read, printed and escaped; URLs never name a host."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ldappolicy.errors import InputError
from ldappolicy.ldap_filter import (
    MAX_DEPTH,
    And,
    Approx,
    Equality,
    Extensible,
    Filter,
    GreaterOrEqual,
    LdapUrl,
    LessOrEqual,
    Not,
    Or,
    Present,
    Substring,
    parse,
    parse_url,
    to_text,
)

A = Equality("a", "1")
B = Equality("b", "2")

READ_AND_PRINTED: list[tuple[str, Filter]] = [
    ("(cn=Babs Jensen)", Equality("cn", "Babs Jensen")),
    ("(!(cn=Tim Howes))", Not(Equality("cn", "Tim Howes"))),
    (
        "(&(objectClass=Person)(|(sn=Jensen)(cn=Babs J*)))",
        And(
            (
                Equality("objectClass", "Person"),
                Or((Equality("sn", "Jensen"), Substring("cn", "Babs J"))),
            )
        ),
    ),
    ("(o=univ*of*mich*)", Substring("o", "univ", ("of", "mich"))),
    ("(o=*x)", Substring("o", None, (), "x")),
    ("(o=*x*)", Substring("o", None, ("x",))),
    ("(o=a*z)", Substring("o", "a", (), "z")),
    ("(seeAlso=)", Equality("seeAlso", "")),
    ("(mail=*)", Present("mail")),
    ("(age>=21)", GreaterOrEqual("age", "21")),
    ("(age<=21)", LessOrEqual("age", "21")),
    ("(cn~=Babs)", Approx("cn", "Babs")),
    ("(cn:caseExactMatch:=Fred)", Extensible("caseExactMatch", "cn", "Fred")),
    ("(cn:=Betty)", Extensible(None, "cn", "Betty")),
    ("(sn:dn:2.4.6.8.10:=Barney)", Extensible("2.4.6.8.10", "sn", "Barney", True)),
    ("(o:dn:=Ace)", Extensible(None, "o", "Ace", True)),
    ("(:1.2.3:=Wilma)", Extensible("1.2.3", None, "Wilma")),
    ("(:dn:2.4.6:=Dino)", Extensible("2.4.6", None, "Dino", True)),
    ("(cn:dnQualifierMatch:=x)", Extensible("dnQualifierMatch", "cn", "x")),
    (
        "(memberOf:1.2.840.113556.1.4.1941:=cn=g,dc=x)",
        Extensible("1.2.840.113556.1.4.1941", "memberOf", "cn=g,dc=x"),
    ),
    (r"(o=Parens R Us \28for all\29)", Equality("o", "Parens R Us (for all)")),
    (r"(cn=*\2a*)", Substring("cn", None, ("*",))),
    (r"(filename=C:\5cMyFile)", Equality("filename", "C:\\MyFile")),
    (r"(bin=\00\ff)", Equality("bin", "\0\udcff")),
    ("(cn=Lučić)", Equality("cn", "Lučić")),
    ("(cn;lang-de=x)", Equality("cn;lang-de", "x")),
    ("(2.5.4.3=x)", Equality("2.5.4.3", "x")),
    ("(mail=a=b<c>d~e:f)", Equality("mail", "a=b<c>d~e:f")),
    ("(cn= a )", Equality("cn", " a ")),
    ("(&)", And(())),
    ("(|)", Or(())),
]


@pytest.mark.parametrize(("text", "tree"), READ_AND_PRINTED)
def test_read_and_printed(text: str, tree: Filter) -> None:
    """A filter in its plainest spelling is read into its tree and printed as it was."""
    assert tree == parse(text)
    assert text == to_text(tree)


READ: list[tuple[str, Filter]] = [
    ("a=1", A),
    ("&(a=1)(b=2)", And((A, B))),
    ("|(a=1)(b=2)", Or((A, B))),
    ("!(a=1)", Not(A)),
    (" ( & ( a=1)\n\t(b=2) ) ", And((A, Equality("b", "2")))),
    (r"(o=\4d\c3\bc)", Equality("o", "Mü")),
    (r"(o=\C3\BC)", Equality("o", "ü")),
    (r"(a=\ff*\2A)", Substring("a", "\udcff", (), "*")),
    ("(a=**)", Present("a")),
    ("(a=x**y)", Substring("a", "x", (), "y")),
    ("(o:DN:=Ace)", Extensible(None, "o", "Ace", True)),
]


@pytest.mark.parametrize(("text", "tree"), READ)
def test_other_spellings_are_read(text: str, tree: Filter) -> None:
    """What LDAP libraries accept is accepted, and can be printed."""
    assert tree == parse(text)
    assert tree == parse(to_text(tree))


REFUSED = [
    ("", "attribute=value at character 1"),
    ("()", "attribute=value at character 2"),
    ("a", "attribute=value at character 1"),
    ("(a=1", "')' at character 5"),
    ("(a=1))", "the end at character 6"),
    ("a=1)", "the end at character 4"),
    ("(a=1)(b=2)", "the end at character 6"),
    ("(a=(b)", "')' at character 4"),
    ("(!a=1)", "'(' at character 3"),
    ("(!(a=1)(b=2))", "')' at character 8"),
    ("(&(a=1)b=2)", "')' at character 8"),
    ("(a b=1)", "attribute=value at character 2"),
    ("(=1)", "attribute=value at character 2"),
    ("(a:dn=1)", "attribute=value at character 2"),
    ("(a:rule=1)", "attribute=value at character 2"),
    ("(:=1)", "an attribute or a matching rule at character 2"),
    ("(:dn:=1)", "an attribute or a matching rule at character 2"),
    ("(a>=1*)", "'\\2a' for '*' in the value at character 2"),
    ("(a:=1*)", "'\\2a' for '*' in the value at character 2"),
    ("(a=\\)", "two hex digits behind '\\' in the value at character 2"),
    ("(a=\\2)", "two hex digits behind '\\' in the value at character 2"),
    ("(a=\\zz*)", "two hex digits behind '\\' in the value at character 2"),
    ("(a=1\0)", "')' at character 5"),
    ("(a>1)", "attribute=value at character 2"),
    ("(é=1)", "attribute=value at character 2"),
]


@pytest.mark.parametrize(("text", "expected"), REFUSED)
def test_refused_with_what_was_expected(text: str, expected: str) -> None:
    """An error quotes the filter and names the place."""
    with pytest.raises(InputError) as caught:
        parse(text)
    assert f"not a filter: {text!r}, expected {expected}" == str(caught.value)


def test_depth_is_bounded() -> None:
    """A filter cannot exhaust the stack."""
    deepest = "(!" * (MAX_DEPTH - 1) + "(a=1)" + ")" * (MAX_DEPTH - 1)
    assert deepest == to_text(parse(deepest))
    with pytest.raises(InputError, match="expected no more than 100 levels"):
        parse(f"(!{deepest})")
    with pytest.raises(InputError, match="expected no more than 100 levels"):
        parse("(!" * 100000)


VALUES = [
    ("*", r"\2a"),
    ("(", r"\28"),
    (")", r"\29"),
    ("\\", r"\5c"),
    ("\0", r"\00"),
    ("\udc80", r"\80"),
    ("\udcff", r"\ff"),
    ("*)(uid=*", r"\2a\29\28uid=\2a"),
    (r"\2a", r"\5c2a"),
    ("é", "é"),
    ("a b", "a b"),
]


@pytest.mark.parametrize(("value", "escaped"), VALUES)
def test_every_kind_of_value_is_escaped(value: str, escaped: str) -> None:
    """No value can end its filter, or become a pattern."""
    printed: list[tuple[str, Filter]] = [
        (f"(a={escaped})", Equality("a", value)),
        (f"(a>={escaped})", GreaterOrEqual("a", value)),
        (f"(a<={escaped})", LessOrEqual("a", value)),
        (f"(a~={escaped})", Approx("a", value)),
        (f"(a:r:={escaped})", Extensible("r", "a", value)),
        (f"(a={escaped}*{escaped}*{escaped})", Substring("a", value, (value,), value)),
    ]
    for text, tree in printed:
        assert text == to_text(tree)
        assert tree == parse(text)


BAD_NAMES = ["", "a)(b", "a=b", "a*", "a b", "é", "a:b", "a\\", "(a"]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_name_is_a_name(name: str) -> None:
    """What is not an attribute's name is not printed either."""
    trees: list[Filter] = [
        Equality(name, "1"),
        Present(name),
        Substring(name, "1"),
        Extensible(None, name, "1"),
        Extensible(name, "a", "1"),
    ]
    for tree in trees:
        with pytest.raises(InputError, match="expected a name or an object identifier"):
            to_text(tree)


def test_an_extensible_match_of_nothing_is_refused() -> None:
    """It would print as something that nobody can read."""
    with pytest.raises(InputError, match="expected an attribute or a matching rule"):
        to_text(Extensible(None, None, "x"))


@pytest.mark.parametrize("text", ["\ud800", "\\20\ud800"])
def test_half_a_surrogate_pair_is_refused(text: str) -> None:
    """A str that came from no bytes has none to send."""
    with pytest.raises(InputError, match="expected UTF-8"):
        to_text(Equality("a", text))


def test_half_a_surrogate_pair_beside_an_escape_is_refused() -> None:
    """Reading does not fail in another way than printing."""
    with pytest.raises(InputError, match="expected UTF-8"):
        parse("(a=\\20\ud800)")


values = st.one_of(st.text(st.characters(exclude_categories=["Cs"])), st.binary()).map(
    lambda given: given if isinstance(given, str) else given.decode("utf-8", "surrogateescape")
)
parts = values.filter(bool)
names = st.from_regex(r"[A-Za-z][A-Za-z0-9-]{0,5}(;[a-z]{1,3})?", fullmatch=True)
rules = st.from_regex(r"[A-Ca-c][a-z]{0,4}Match|2\.5\.[0-9]{1,3}", fullmatch=True)
substrings = st.builds(Substring, names, st.none() | parts, st.lists(parts, max_size=3).map(tuple), parts)
leaves = st.one_of(
    st.builds(Equality, names, values),
    st.builds(GreaterOrEqual, names, values),
    st.builds(LessOrEqual, names, values),
    st.builds(Approx, names, values),
    st.builds(Present, names),
    st.builds(Extensible, rules, st.none() | names, values, st.booleans()),
    substrings,
)
filters = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.builds(And, st.lists(inner, max_size=4).map(tuple)),
        st.builds(Or, st.lists(inner, max_size=4).map(tuple)),
        st.builds(Not, inner),
    ),
    max_leaves=12,
)


@pytest.mark.servers
@given(filters)
def test_what_is_printed_is_read_back(tree: Filter) -> None:
    """Printing loses nothing and adds nothing."""
    assert tree == parse(to_text(tree))


@given(st.text())
def test_any_text_is_a_filter_or_an_input_error(text: str) -> None:
    """There are two outcomes, whatever stands in a configuration or an entry."""
    try:
        tree = parse(text)
    except InputError:
        return
    assert tree == parse(to_text(tree))


URLS = [
    ("ldap:///", LdapUrl("")),
    ("ldap:///dc=example,dc=com", LdapUrl("dc=example,dc=com")),
    ("LDAP:///dc=com?mail", LdapUrl("dc=com", ("mail",))),
    ("ldap:///dc=com?mail,cn?one", LdapUrl("dc=com", ("mail", "cn"), 1)),
    ("ldap:///dc=com??sub?(a=1)", LdapUrl("dc=com", (), 2, A)),
    ("ldap:///dc=com??base?a=1", LdapUrl("dc=com", (), 0, A)),
    ("ldap:///dc=com?mail?SUB?", LdapUrl("dc=com", ("mail",), 2)),
    ("ldap:///dc=com????x-one,x-two=3", LdapUrl("dc=com")),
    ("ldap:///o=University%20of%20Michigan,c=US", LdapUrl("o=University of Michigan,c=US")),
    ("ldap:///o=University of Michigan,c=US", LdapUrl("o=University of Michigan,c=US")),
    ("ldap:///o=Question%3f,c=US?mail", LdapUrl("o=Question?,c=US", ("mail",))),
    ("ldap:///o=An%20Example%5C2C%20Inc.,c=US", LdapUrl(r"o=An Example\2C Inc.,c=US")),
    ("ldap:///dc=com?mail?sub?(int=%5c00%5c04)", LdapUrl("dc=com", ("mail",), 2, Equality("int", "\0\4"))),
    ("ldap:///ou=%C3%BC??one?(cn=%c3%bc*)", LdapUrl("ou=ü", (), 1, Substring("cn", "ü"))),
    ("ldap:///dc=com?*,+,1.1", LdapUrl("dc=com", ("*", "+", "1.1"))),
    ("ldap:///dc=com?cn%3Blang-de", LdapUrl("dc=com", ("cn;lang-de",))),
    ("ldap:///ou=a/b,dc=com", LdapUrl("ou=a/b,dc=com")),
]


@pytest.mark.parametrize(("text", "expected"), URLS)
def test_urls(text: str, expected: LdapUrl) -> None:
    """RFC 4516, with its defaults."""
    assert expected == parse_url(text)


def test_defaults_of_a_url() -> None:
    """A URL that says nothing means the entry at its base."""
    assert LdapUrl("dc=com", (), 0, Present("objectClass")) == parse_url("ldap:///dc=com")


BAD_URLS = [
    ("ldap://ldap.example.com/dc=com??sub", "the URL names a host: {}, expected ldap:///"),
    ("ldap://127.0.0.1:389/dc=com", "the URL names a host: {}, expected ldap:///"),
    ("ldap://:389/dc=com", "the URL names a host: {}, expected ldap:///"),
    ("ldap://evil.example.com", "the URL names a host: {}, expected ldap:///"),
    ("ldap://", "the URL has no base: {}, expected ldap:///"),
    ("ldap://?mail", "the URL has no base: {}, expected ldap:///"),
    ("ldaps:///dc=com", "not an LDAP URL: {}, expected ldap:///"),
    ("ldapi:///dc=com", "not an LDAP URL: {}, expected ldap:///"),
    ("http://example.com/", "not an LDAP URL: {}, expected ldap:///"),
    ("dc=com", "not an LDAP URL: {}, expected ldap:///"),
    ("", "not an LDAP URL: {}, expected ldap:///"),
    (" ldap:///dc=com", "not an LDAP URL: {}, expected ldap:///"),
    ("ldap:///dc=com?a?sub?(a=1)?x?y", "not an LDAP URL: {}, expected no more than four '?'"),
    (
        "ldap:///dc=com??subordinates",
        "not an LDAP URL: {}, expected base, one or sub instead of 'subordinates'",
    ),
    ("ldap:///dc=com????!bindname=cn=x", "not an LDAP URL: {}, expected no critical extension"),
    ("ldap:///dc=com????x-y, !z", "not an LDAP URL: {}, expected no critical extension"),
    ("ldap:///dc=com????%21z", "not an LDAP URL: {}, expected no critical extension"),
    ("ldap:///dc=%zz", "not an LDAP URL: {}, expected two hex digits behind '%'"),
    ("ldap:///dc=com%2", "not an LDAP URL: {}, expected two hex digits behind '%'"),
    ("ldap:///dc=com?a)(b", "not an LDAP URL: {}, expected an attribute instead of 'a)(b'"),
]


@pytest.mark.parametrize(("text", "expected"), BAD_URLS)
def test_urls_that_are_refused(text: str, expected: str) -> None:
    """No host, nothing critical that nobody here knows, nothing unreadable."""
    with pytest.raises(InputError) as caught:
        parse_url(text)
    assert expected.format(repr(text)) == str(caught.value)


def test_a_bad_filter_in_a_url_is_an_input_error() -> None:
    """The filter's own error is good enough."""
    with pytest.raises(InputError, match=r"not a filter: '\(a=1'"):
        parse_url("ldap:///dc=com??sub?(a=1")
