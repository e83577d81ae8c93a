"""Networks: mynetworks as match_list(3) reads it, and the patterns of cidr_table(5)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ldappolicy.errors import InputError
from ldappolicy.network import match_client, parse_client_address, parse_network, parse_pattern


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("192.0.2.0/24", "192.0.2.0/24"),
        ("192.0.2.1", "192.0.2.1/32"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("2001:db8::/32", "2001:db8::/32"),
        ("::1", "::1/128"),
        ("[::1]", "::1/128"),
        ("[2001:db8::]/32", "2001:db8::/32"),
        ("[2001:db8::/32]", "2001:db8::/32"),
        ("[192.0.2.0]/24", "192.0.2.0/24"),
    ],
)
def test_parse_network(text: str, expected: str) -> None:
    """A network with its prefix length or an address, with brackets in either of cidr_match(3)'s places."""
    assert expected == str(parse_network(text))


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("192.0.2.1/24", id="bits behind the prefix"),
        pytest.param("192.0.2.0/33", id="prefix too long"),
        pytest.param("192.0.2.0/", id="no prefix"),
        pytest.param("192.0.2/24", id="three octets"),
        pytest.param("192.0.2.0/255.255.255.0", id="netmask"),
        pytest.param("192.0.2.0/0.0.0.255", id="hostmask"),
        pytest.param("192.0.2.0/24/24", id="two slashes"),
        pytest.param("[192.0.2.0/24", id="open bracket"),
        pytest.param("[::1]x", id="garbage behind the bracket"),
        pytest.param("fe80::1%eth0", id="zone"),
        pytest.param("mail.example", id="hostname"),
        pytest.param("", id="empty"),
        pytest.param("192.0.2.٠/24", id="other digits"),
        pytest.param("192.0.2.0/٢٤", id="other digits in the length"),
    ],
)
def test_no_network(text: str) -> None:
    """What cidr_match(3) would not take is no network."""
    with pytest.raises(InputError):
        parse_network(text)


@pytest.mark.parametrize(
    ("patterns", "name", "address", "expected"),
    [
        pytest.param("192.0.2.0/24", "x", "192.0.2.77", True, id="inside"),
        pytest.param("192.0.2.0/24", "x", "192.0.3.1", False, id="outside"),
        pytest.param("192.0.2.1", "x", "192.0.2.1", True, id="address"),
        pytest.param("[192.0.2.1]", "x", "192.0.2.1", True, id="address in brackets"),
        pytest.param("!192.0.2.1 192.0.2.0/24", "x", "192.0.2.1", False, id="excluded first"),
        pytest.param("192.0.2.0/24 !192.0.2.1", "x", "192.0.2.1", True, id="the first match wins"),
        pytest.param("!!192.0.2.1", "x", "192.0.2.1", True, id="twice not"),
        pytest.param("[::1]/128", "x", "::1", True, id="IPv6"),
        pytest.param("[2001:db8::]/32", "x", "2001:db8:0:0:0:0:0:1", True, id="IPv6 spelled out"),
        pytest.param("0.0.0.0/0", "x", "::1", False, id="families differ"),
        pytest.param("[::]/0", "x", "192.0.2.1", False, id="families differ, other way"),
        pytest.param("my.domain", "my.domain", "192.0.2.1", True, id="hostname"),
        pytest.param("My.Domain", "my.domain", "192.0.2.1", True, id="hostname folded"),
        pytest.param("my.domain", "mail.my.domain", "192.0.2.1", True, id="subdomain"),
        pytest.param("my.domain", "notmy.domain", "192.0.2.1", False, id="label by label"),
        pytest.param("my.domain", "my.domain.evil.example", "192.0.2.1", False, id="not the beginning"),
        pytest.param("!bad.my.domain my.domain", "bad.my.domain", "192.0.2.1", False, id="host excluded"),
        pytest.param("192.0.2.0/24", "unknown", "unknown", False, id="no address"),
        pytest.param("192.0.2.0/24", "", "", False, id="nothing at all"),
        pytest.param("", "x", "192.0.2.1", False, id="no pattern"),
    ],
)
def test_match_client(patterns: str, name: str, address: str, expected: bool) -> None:
    """Patterns are tried from left to right, the first that matches decides, an exclamation mark excludes."""
    assert expected == bool(match_client(map(parse_pattern, patterns.split()), name, address))


@pytest.mark.parametrize("text", ["/etc/networks", "ldap:nets", "192.0.2.1/24", "!", "a b", "-x.example"])
def test_no_pattern(text: str) -> None:
    """A file, a table, or nothing is no pattern of mynetworks here."""
    with pytest.raises(InputError):
        parse_pattern(text)


@given(st.text(max_size=30))
def test_any_text(text: str) -> None:
    """Whatever a client is called, or a pattern is, ends in an answer or in the one error."""
    parse_client_address(text)
    try:
        pattern = parse_pattern(text)
    except InputError:
        return
    assert not pattern.matches("some.host.invalid", None) or pattern.network is None
