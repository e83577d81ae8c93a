"""Addresses: keys in access(5) order, extensions, quoting, rewriting, and Postfix's syntax tests."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ldappolicy.address import (
    LONGEST_KEY,
    address_keys,
    client_keys,
    domain_keys,
    fold,
    is_address_literal,
    is_host_address,
    is_hostname,
    is_routed,
    is_unicode_hostname,
    local_domain_keys,
    parent_domains,
    quoted,
    split_address,
    strip_dot,
    unquoted,
    without_extension,
)

# ---------------------------------------------------------------- keys


@pytest.mark.parametrize(
    ("address", "delimiter", "expected"),
    [
        pytest.param("u@b.example", "", "u@b.example b.example example u@", id="plain"),
        pytest.param(
            "u+x@m.b.example",
            "+",
            "u+x@m.b.example u@m.b.example m.b.example b.example example u+x@ u@",
            id="extension",
        ),
        pytest.param("u+x@b.example", "", "u+x@b.example b.example example u+x@", id="no delimiter"),
        pytest.param("u+x+y@b", "+", "u+x+y@b u@b b u+x+y@ u@", id="first delimiter"),
        pytest.param("u-x+y@b", "+-", "u-x+y@b u@b b u-x+y@ u@", id="any of several delimiters"),
        pytest.param("+x@b", "+", "+x@b b +x@", id="an extension alone is none"),
        pytest.param(
            "postmaster+x@b", "+", "postmaster+x@b postmaster@b b postmaster+x@ postmaster@", id="pm+"
        ),
        pytest.param("double-bounce@b", "-", "double-bounce@b b double-bounce@", id="double-bounce"),
        pytest.param("mailer-daemon@b", "-", "mailer-daemon@b b mailer-daemon@", id="mailer-daemon"),
        pytest.param("owner-list@b", "-", "owner-list@b b owner-list@", id="owner-"),
        pytest.param("list-request@b", "-", "list-request@b b list-request@", id="-request"),
        pytest.param("list-x@b", "-", "list-x@b list@b b list-x@ list@", id="minus"),
        pytest.param(
            "u@[192.0.2.1]",
            "",
            "u@[192.0.2.1] [192.0.2.1] 0.2.1] 2.1] 1] u@",
            id="literal as Postfix cuts it",
        ),
        pytest.param("u", "+", "u", id="no domain"),
        pytest.param(
            "bücher@bücher.example", "", "bücher@bücher.example bücher.example example bücher@", id="u"
        ),
    ],
)
def test_address_keys(address: str, delimiter: str, expected: str) -> None:
    """The full address, without extension, the domain and its parents, the local part alone."""
    assert tuple(expected.split()) == address_keys(address, delimiter, parents=True).keys


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        pytest.param(
            "john doe@b", ('"john doe"@b', "john doe@b", "b", '"john doe"@', "john doe@"), id="space"
        ),
        pytest.param("a..b@b", ('"a..b"@b', "a..b@b", "b", '"a..b"@', "a..b@"), id="two dots"),
        pytest.param(".a@b", ('".a"@b', ".a@b", "b", '".a"@', ".a@"), id="leading dot"),
        pytest.param("a@c@b", ('"a@c"@b', "a@c@b", "b", '"a@c"@', "a@c@"), id="at"),
        pytest.param('a"@b', ('"a\\""@b', 'a"@b', "b", '"a\\""@', 'a"@'), id="quote"),
        pytest.param("o'brien@b", ("o'brien@b", "b", "o'brien@"), id="apostrophe needs none"),
    ],
)
def test_quoted_form_first(address: str, expected: tuple[str, ...]) -> None:
    """Each key with a local part comes in quoted form first, where that differs."""
    assert expected == address_keys(address, "", parents=True).keys


def test_dotted_parents() -> None:
    """Without parent_domain_matches_subdomains a parent has a leading dot, the domain itself none."""
    expected = ("u@m.b.example", "m.b.example", ".b.example", ".example", "u@")
    assert expected == address_keys("u@m.b.example", "", parents=False).keys


def test_exact_forms() -> None:
    """Entries may have an address with its extension and without, in internal form."""
    assert ("john doe+x@b", "john doe@b") == address_keys("john doe+x@b", "+", parents=True).exact


@pytest.mark.parametrize(
    ("address", "delimiters", "expected"),
    [
        ("u+x@b", "+", "u@b"),
        ("u@b", "+", None),
        ("u+x@b", "", None),
        ("+x@b", "+", None),
        ("u+@b", "+", "u@b"),
        ("u-x@b", "+", None),
        ("postmaster@b", "m", None),
    ],
)
def test_without_extension(address: str, delimiters: str, expected: str | None) -> None:
    """An extension begins at the first delimiter and leaves something before it."""
    assert expected == without_extension(address, delimiters)


@pytest.mark.parametrize(
    ("name", "address", "expected"),
    [
        pytest.param(
            "mail.b.example",
            "192.0.2.10",
            "mail.b.example b.example example 192.0.2.10 192.0.2 192.0 192",
            id="IPv4",
        ),
        pytest.param(
            "unknown",
            "2001:db8::1",
            "unknown 2001:db8::1 2001:db8: 2001:db8 2001",
            id="IPv6 as Postfix cuts it",
        ),
        pytest.param(
            "192.0.2.10", "192.0.2.10", "192.0.2.10 192.0.2.10 192.0.2 192.0 192", id="numeric name"
        ),
        pytest.param("", "192.0.2.10", "192.0.2.10 192.0.2 192.0 192", id="no name"),
    ],
)
def test_client_keys(name: str, address: str, expected: str) -> None:
    """Hostname and parents, then the address and its networks by octet or hextet."""
    assert tuple(expected.split()) == client_keys(name, address, parents=True)


@pytest.mark.parametrize(
    ("name", "parents", "expected"),
    [
        pytest.param("foo.bar.example", True, "foo.bar.example bar.example example", id="parents"),
        pytest.param("foo.bar.example", False, "foo.bar.example .bar.example .example", id="dotted"),
        pytest.param("foo.bar.", True, "foo.bar. bar.", id="a trailing dot stays"),
        pytest.param("192.0.2.1", True, "192.0.2.1", id="an address has no parents"),
        pytest.param("2001:db8::1", True, "2001:db8::1", id="nor has IPv6"),
        pytest.param("[192.0.2.1]", True, "[192.0.2.1] 0.2.1] 2.1] 1]", id="a literal is no address"),
    ],
)
def test_domain_keys(name: str, parents: bool, expected: str) -> None:
    """A HELO or ETRN name as it stands, then its parents."""
    assert tuple(expected.split()) == domain_keys(name, parents)


HOSTILE = {
    "dots": "." * 120_000,
    "octets": "1." * 60_000,
    "hextets": "1:" * 60_000,
    "labels": "a." * 60_000 + "example",
    "one label": "a" * 120_000,
    "other letters": "\u00e4" * 60_000,
    "dot behind": "a" * 120_000 + ".example.",
}


@pytest.mark.parametrize("value", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("parents", [True, False])
def test_no_key_is_longer_than_it_can_be(value: str, parents: bool) -> None:
    """Names of 120 KB make some hundred keys, each no longer than a domain; the shorter ones are there."""
    hosts = [
        *domain_keys(value, parents),
        *client_keys(value, value, parents),
        *local_domain_keys(value),
        *parent_domains(value),
    ]
    assert max(map(len, hosts), default=0) <= 256
    assert len(hosts) <= 4 * 256
    for address in (value, f"a@{value}", f"{value}@my.domain", f"a+{value}@my.domain"):
        keys = address_keys(address, "+", parents).keys
        assert max(map(len, keys), default=0) <= 2 * LONGEST_KEY
        assert len(keys) <= 270
    assert {"my.domain", "a@my.domain", "a@"} <= set(keys)


def test_the_bound_is_on_each_key() -> None:
    """A value that is too long has the keys of its shorter forms, to the last letter that each may have."""
    long = "x" * (LONGEST_KEY - len("all+@b.example"))
    short = ("all@b.example", "b.example", "example")
    full = f"all+{long}@b.example"
    assert (full, *short, f"all+{long}@", "all@") == address_keys(full, "+", parents=True).keys
    assert (*short, f"all+{long}x@", "all@") == address_keys(f"all+{long}x@b.example", "+", parents=True).keys
    assert ("a" * 255,) == domain_keys("a" * 255, parents=True)
    assert () == domain_keys("a" * 256, parents=True)
    assert ("example", "192.0.2", "192.0", "192") == client_keys("a" * 300 + ".example", "192.0.2", True)
    assert ("1" * 45,) == client_keys("", "1" * 45, parents=True)
    assert () == client_keys("", "1" * 46, parents=True)


def test_a_name_is_measured_before_it_is_converted() -> None:
    """IDNA takes time by the square of a label: none of 120 KB comes to it."""

    class Unconverted(str):
        """A name that nobody may make bytes of."""

        __slots__ = ()

        def encode(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:
            raise AssertionError(encoding)

    assert not is_unicode_hostname(Unconverted("\u00e4." * 60_000))
    assert is_unicode_hostname("m\u00e4il.example")


def test_local_domain_keys() -> None:
    """A domain as it stands, then its parents with a leading dot: only smtpdLocalDomains does so."""
    assert ("a.b.example", ".b.example", ".example") == local_domain_keys("a.b.example")


def test_parent_domains() -> None:
    """The domain, then its parents."""
    assert ("a.b.example", "b.example", "example") == parent_domains("a.b.example")


# ---------------------------------------------------------------- forms


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("u@b", ("u", "b")),
        ("a@c@b", ("a@c", "b")),
        ("u", ("u", "")),
        ("@b", ("", "b")),
        ("u@", ("u", "")),
        ("", ("", "")),
    ],
)
def test_split_address(address: str, expected: tuple[str, str]) -> None:
    """The local part is everything before the last at sign."""
    assert expected == split_address(address)


@pytest.mark.parametrize(
    ("spelled", "expected"),
    [
        ("U@B.Example", "u@b.example"),
        ('"U"@B', "u@b"),
        ('"john doe"@b', "john doe@b"),
        ('"a\\"b"@b', 'a"b@b'),
        ('"@b', '"@b'),
        ("STRASSE@b", "strasse@b"),
        ("Straße@b", "strasse@b"),
        ("ΣΊΣΥΦΟΣ@b", "σίσυφοσ@b"),
        ("ａｍｙ@b", "ａｍｙ@b"),
        ("", ""),
    ],
)
def test_fold(spelled: str, expected: str) -> None:
    """Addresses are compared case-folded and unquoted, and no wider: full-width letters are others."""
    assert expected == fold(spelled)


@given(st.text(alphabet='ab."\\ @+\x00é', max_size=12))
def test_quoting_is_undone(local: str) -> None:
    """What was quoted reads back as it was."""
    address = f"{local}@b"
    expected = unquoted(address) if address == quoted(address) else address
    assert expected == unquoted(quoted(address))


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("u@b.", "u@b"),
        ("u@b..", "u@b.."),
        ("u@.", "u@."),
        ("u@b", "u@b"),
        ("", ""),
    ],
)
def test_strip_dot(address: str, expected: str) -> None:
    """One trailing dot of the domain goes, not one of two, not the only one."""
    assert expected == strip_dot(address)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("a%b@c", True),
        ("a!b@c", True),
        ("a@b@c", True),
        ("a@b!c", False),
        ("a@b", False),
        ("a%b", True),
        ("a", False),
    ],
)
def test_is_routed(address: str, expected: bool) -> None:
    """Routing stands in the local part, not in the domain."""
    assert expected == is_routed(address)


# ---------------------------------------------------------------- syntax


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mail.example", True),
        ("localhost", True),
        ("my_host.example", True),
        ("a-b.example", True),
        ("1a.example", True),
        ("", False),
        (".example", False),
        ("a..b", False),
        ("a.", False),
        ("-a.example", False),
        ("a-.example", False),
        ("a b.example", False),
        ("bücher.example", False),
        ("192.0.2.1", False),
        ("1", False),
        ("1.2-3", True),
        ("a" * 63 + ".example", True),
        ("a" * 64 + ".example", False),
        (".".join(["a" * 50] * 5), True),
        (".".join(["a" * 51] * 5), False),
    ],
)
def test_is_hostname(text: str, expected: bool) -> None:
    """valid_hostname(3): letters, digits, inner hyphens, underscores, and not digits alone."""
    assert expected == is_hostname(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("bücher.example", True), ("bü cher.example", False), ("\udcff.example", False)],
)
def test_is_unicode_hostname(text: str, expected: bool) -> None:
    """valid_utf8_hostname(3): labels that have an ASCII form will do."""
    assert expected == is_unicode_hostname(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("192.0.2.1", True),
        ("192.0.2.256", False),
        ("192.0.2", False),
        ("192.0.2.1.", False),
        ("0.0.0.0", True),
        ("0.1.2.3", False),
        ("192.00.02.01", True),
        ("2001:db8::1", True),
        ("::1", True),
        ("::ffff:192.0.2.1", True),
        ("2001:db8::1::2", False),
        ("fe80::1%eth0", False),
        ("", False),
        ("mail.example", False),
        ("[192.0.2.1]", False),
    ],
)
def test_is_host_address(text: str, expected: bool) -> None:
    """valid_hostaddr(3), with its rule about a leading zero octet."""
    assert expected == is_host_address(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("192.0.2.1", True),
        ("IPv6:2001:db8::1", True),
        ("ipv6:2001:db8::1", True),
        ("2001:db8::1", False),
        ("IPv6:192.0.2.1", False),
        ("mail.example", False),
        ("", False),
    ],
)
def test_is_address_literal(text: str, expected: bool) -> None:
    """valid_mailhost_addr(3): IPv6 needs its prefix, IPv4 has none."""
    assert expected == is_address_literal(text)
