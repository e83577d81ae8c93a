"""What an address means to Postfix: tables of spellings, and the bounds on what is taken apart."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ldappolicy.errors import InputError
from ldappolicy.rewriting import LONGEST, MOST_ROUNDS, rewrite

OURS = ("my.domain", "other.example")
"""Domains whose local parts are resolved here; myorigin is the first of them."""


def meaning(received: str) -> str:
    """Where Postfix would deliver to, at the example company."""
    return rewrite(received, OURS[0], lambda domain: domain in OURS)


# The spellings of test_spellings, as smtpd sends them to a policy service: in internal form.
MEANS_THE_LIST = [
    *("all@my.domain", "all@my.domain.", "all", "all%my.domain@my.domain", "my.domain!all@my.domain"),
    *("all@my.domain@my.domain", "all%my.domain", "my.domain!all", "all%my.domain@", "all@my.domain@"),
    *("my.domain!all@", "all%my.domain@@", "all%my.domain@my.domain@", "all%my.domain.@", "all%my.domain%"),
    *("all%my.domain%@", "!all%my.domain", "!all%my.domain@my.domain", "!my.domain!all@my.domain"),
    *("my.domain!!all%my.domain@", "all%my.domain@@my.domain", "@:all", "@my.domain@:all", "@:my.domain!all"),
    *("my.domain!all ", 'my.domain!"all', "all@my.domain @my.domain", "my.domain! all@my.domain"),
    *('my.domain!"all"@my.domain', "my.domain!a\\ll@my.domain", 'all@"my.domain"@my.domain'),
    *("@x:my.domain!all@my.domain", "@x:all@my.domain@my.domain", "my.domain! all%other.example@my.domain"),
    *("all@ my.domain", "all%my.domain@other.example", "my.domain!all@other.example"),
    *("other.example!all%my.domain", "all%my.domain@other.example@my.domain"),
]


@pytest.mark.parametrize("received", MEANS_THE_LIST)
def test_means_the_list(received: str) -> None:
    """However it is spelled, it is delivered to all@my.domain."""
    assert "all@my.domain" == meaning(received)


@pytest.mark.parametrize(
    ("received", "expected"),
    [
        pytest.param("ally@my.domain", "ally@my.domain", id="another local part"),
        pytest.param("all@notmy.domain", "all@notmy.domain", id="another domain"),
        pytest.param("all@my.domain.evil.example", "all@my.domain.evil.example", id="ours in front"),
        pytest.param("all+x@my.domain", "all+x@my.domain", id="extensions are for tables"),
        pytest.param("all+x%my.domain@", "all+x@my.domain", id="also behind a percent"),
        pytest.param("all%my.domain@elsewhere.example", "all%my.domain@elsewhere.example", id="theirs"),
        pytest.param("my.domain!all@elsewhere.example", "my.domain!all@elsewhere.example", id="their bang"),
        pytest.param("elsewhere.example!all%my.domain", "all%my.domain@elsewhere.example", id="bang to them"),
        pytest.param("all%my.domain@[127.0.0.1]", "all%my.domain@[127.0.0.1]", id="a literal is no table's"),
        pytest.param("my.domain!all@[127.0.0.1]", "my.domain!all@[127.0.0.1]", id="nor for a bang"),
        pytest.param("all%my.domain%[127.0.0.1]", "all%my.domain@[127.0.0.1]", id="nor behind a percent"),
        pytest.param("all%my.domain@localhost", "all%my.domain@localhost", id="localhost is no table's"),
        pytest.param("all@my.domain..", "all@my.domain..", id="two dots"),
        pytest.param("@elsewhere.example", "@elsewhere.example", id="no local part"),
        pytest.param("a()!@my.domain", "@a", id="a comment ends at its parenthesis"),
    ],
)
def test_means_something_else(received: str, expected: str) -> None:
    """What Postfix takes for another address is left at that; own literals are a guess of evaluation's."""
    assert expected == meaning(received)


@pytest.mark.parametrize(
    "received",
    [
        pytest.param("a%b@" + "c" * LONGEST, id="percent"),
        pytest.param("a" * (LONGEST - 11) + "%b@my.domain", id="one character too long"),
        pytest.param("%" * (LONGEST + 1), id="nothing but routing"),
        pytest.param("a" * (LONGEST + 1), id="without a domain"),
    ],
)
def test_too_long_to_be_taken_apart(received: str) -> None:
    """No client can say it to Postfix; it is not looked at."""
    with pytest.raises(InputError, match=f"expected at most {LONGEST}"):
        meaning(received)


def test_longest() -> None:
    """The longest that is taken apart, and one that means itself, which has no bound."""
    local = "a" * (LONGEST - len("%my.domain@my.domain"))
    assert f"{local}@my.domain" == meaning(f"{local}%my.domain@my.domain")
    plain = f"{'a' * LONGEST}@my.domain"
    assert plain == meaning(plain)


@pytest.mark.parametrize(("times", "ends"), [(MOST_ROUNDS - 1, True), (MOST_ROUNDS, False)])
@pytest.mark.parametrize("routing", ["percent", "bang"])
def test_most_rounds(routing: str, times: int, ends: bool) -> None:
    """More routings than anybody needs are an error, not a meaning."""
    received = "all" + "%d" * times + "@d" if routing == "percent" else "d!" * times + "all@d"
    if ends:
        assert "all@d" == rewrite(received, "", lambda domain: domain == "d")
    else:
        with pytest.raises(InputError, match=f"holds more than {MOST_ROUNDS} routings"):
            rewrite(received, "", lambda domain: domain == "d")


@pytest.mark.parametrize(
    ("received", "expected"),
    [
        pytest.param("all@my.domain", "all@my.domain", id="plain"),
        pytest.param("all@my.domain.", "all@my.domain", id="trailing dot"),
        pytest.param("all%my.domain@my.domain", "all@my.domain", id="percent"),
        pytest.param("my.domain!all@my.domain", "all@my.domain", id="bang"),
        pytest.param("all@my.domain@my.domain", "all@my.domain", id="at"),
        pytest.param("all", "all@my.domain", id="bare"),
        pytest.param("my.domain!all", "all@my.domain", id="bare bang"),
        pytest.param("all%my.domain", "all@my.domain", id="bare percent"),
        pytest.param("all%my.domain.@my.domain.", "all@my.domain", id="dots and percent"),
        pytest.param("all%my.domain%my.domain@my.domain", "all@my.domain", id="twice"),
        pytest.param("my.domain!my.domain!all@my.domain", "all@my.domain", id="bang twice"),
        pytest.param("a%other.example@my.domain", "a@other.example", id="away"),
        pytest.param("other.example!a@my.domain", "a@other.example", id="bang away"),
        pytest.param("a@other.example@my.domain", "a@other.example", id="at away"),
        pytest.param("a%b@other.example", "a%b@other.example", id="not ours: stays"),
        pytest.param("a@b@other.example", "a@b@other.example", id="not ours: at stays"),
        pytest.param("a:b@other.example@my.domain", "a:b@other.example", id="a colon is no route"),
        pytest.param("a!b%my.domain@my.domain", "b%my.domain@a", id="the bang goes before the percent"),
        pytest.param("a%b%my.domain", "a%b@my.domain->a@b", id="the last percent"),
        pytest.param("a@my.domain..", "a@my.domain..", id="two dots stay"),
    ],
)
def test_rewrite(received: str, expected: str) -> None:
    """An address means what Postfix would deliver to, its own domains being taken off."""
    assert expected.rpartition("->")[2] == rewrite(
        received, "my.domain", lambda domain: domain == "my.domain"
    )


def test_rewrite_without_myorigin() -> None:
    """Without myorigin an address without a domain is looked up as it stands."""
    assert "all" == rewrite("all", "", lambda domain: True)
    assert "all" == rewrite("all@my.domain@my.domain", "", lambda domain: True).removesuffix("@my.domain")


def test_rewrite_folds_myorigin() -> None:
    """The domain that is added is folded as the address is."""
    assert "all@my.domain" == rewrite("all", "My.Domain", lambda domain: False)


@pytest.mark.parametrize("times", [1, 49, 50, 51, 60, 90])
def test_rewrite_to_the_end(times: int) -> None:
    """However often it is routed through us, the address is what comes out at last, as in resolve.c."""
    received = "all" + "%my.domain" * times + "@my.domain"
    assert "all@my.domain" == rewrite(received, "", lambda domain: domain == "my.domain")


@given(st.text(alphabet='ab.%!@[]()" :\\', max_size=40), st.sampled_from(["", "my.domain"]))
def test_rewrite_ends(received: str, myorigin: str) -> None:
    """Rewriting ends for every address, also where every domain is ours."""
    assert isinstance(rewrite(received, myorigin, lambda domain: True), str)


@given(st.text(alphabet="ab.%!@", max_size=40), st.sampled_from(["", "my.domain"]))
def test_rewrite_is_done(received: str, myorigin: str) -> None:
    """What was rewritten means itself (a literal as a local part does not: it is a quoted string then)."""
    once = rewrite(received, myorigin, lambda domain: True)
    assert once == rewrite(once, myorigin, lambda domain: True)
