"""Searches that take long: they are counted, told once of each kind, and lint finds them."""

import asyncio
from pathlib import Path
from typing import cast

import pytest

from ldappolicy.cli import run
from ldappolicy.counters import Counters
from ldappolicy.directory import Directory, Features, Scope, Search
from ldappolicy.directory.ldap import LdapDirectory, LdapSettings
from ldappolicy.directory.ldap.slow import MAX_KINDS, SLOW_S, SlowSearches
from ldappolicy.directory.plan import Where
from ldappolicy.entry import Entry
from ldappolicy.errors import Unavailable
from ldappolicy.ldap_filter import And, Equality, Or, Present, attributes_in
from ldappolicy.mapping import PROFILES
from ldappolicy.policy import PolicySet
from ldappolicy.slowness import slow_lookups
from tests.labs.clock import on_virtual_time
from tests.labs.faulty_ldap import FakeLdap, Proxy, delayed
from tests.labs.ldappolicy import EXAMPLE, Ldappolicy, Sections, merged, toml
from tests.labs.slapd import SUFFIX, Slapd

TREE = {SUFFIX: {"o": ["x"]}, f"uid=amy,{SUFFIX}": {"uid": ["amy"]}}


def by(*names: str, value: str = "x", base: str = SUFFIX, scope: Scope = Scope.SUB) -> Search:
    """A search by some attributes."""
    return Search(base, scope, Or(tuple(Equality(name, value) for name in names)), ("1.1",))


def test_told_once_of_each_kind(caplog: pytest.LogCaptureFixture) -> None:
    """Another value is no other kind; another base, or another attribute, is."""
    counters = Counters()
    slow = SlowSearches(counters.slow_searches)
    searches = [
        *(by("mail", "uid", value=value) for value in "abc"),
        by("uid", "mail"),
        by("mail", base=f"ou=people,{SUFFIX}"),
        *(by("objectClass", base=f"uid={name},{SUFFIX}", scope=Scope.BASE) for name in "ab"),
        Search(SUFFIX, Scope.SUB, And((Present("mail"), Equality("uid", "x"))), ("1.1",)),
    ]
    for search in searches:
        slow.note(search, 0.28)
    assert [
        f"slow search, 280 ms, at {SUFFIX!r} by mail, uid: are they indexed? Not told again",
        f"slow search, 280 ms, at 'ou=people,{SUFFIX}' by mail: are they indexed? Not told again",
        "slow search, 280 ms, for single entries by objectClass: are they indexed? Not told again",
    ] == [record.getMessage() for record in caplog.records]
    assert len(searches) == counters.slow_searches.value


def test_what_is_told_is_bounded(caplog: pytest.LogCaptureFixture) -> None:
    """However many kinds there are; all are counted."""
    counters = Counters()
    slow = SlowSearches(counters.slow_searches)
    for number in range(2 * MAX_KINDS):
        slow.note(by(f"a{number}"), 1.0)
    assert (MAX_KINDS, 2 * MAX_KINDS) == (len(caplog.records), counters.slow_searches.value)


@pytest.mark.parametrize(
    ("seconds", "expected"), [(0.0, 0), (SLOW_S - 0.01, 0), (SLOW_S + 0.01, 1), (0.28, 1), (9.0, 1)]
)
def test_slow_searches_are_counted(seconds: float, expected: int) -> None:
    """Those that the server takes long for, also one that it does not answer in time."""

    async def story() -> int:
        counters = Counters()
        async with FakeLdap(TREE, root_dse={}) as fake, Proxy(fake.path) as proxy:
            clock = asyncio.get_running_loop().time
            opened = LdapDirectory(LdapSettings([proxy.uri]), clock=clock, counters=counters)
            await opened.search(by("mail"))
            proxy.be(delayed(seconds))
            try:
                await opened.search(by("mail"))
            except Unavailable:
                assert seconds > 2
            await opened.close()
        return counters.slow_searches.value

    assert expected == on_virtual_time(story())


def test_who_waits_for_a_turn_is_not_slow() -> None:
    """A thousand searches at once, each of which the server answers soon."""

    async def story() -> int:
        counters = Counters()
        async with FakeLdap(TREE, root_dse={}) as fake, Proxy(fake.path) as proxy:
            clock = asyncio.get_running_loop().time
            opened = LdapDirectory(LdapSettings([proxy.uri]), clock=clock, counters=counters)
            proxy.be(delayed(0.03))
            began = clock()
            await asyncio.gather(*(opened.search(by("mail", value=str(n))) for n in range(1000)))
            assert clock() - began > SLOW_S
            await opened.close()
        return counters.slow_searches.value

    assert 0 == on_virtual_time(story())


class Unindexed:
    """A directory that finds nothing, and takes long, some times, for searches by one attribute."""

    features = Features()

    def __init__(self, attribute: str, times: int) -> None:
        self._attribute = attribute
        self._times = times

    async def search(self, search: Search) -> list[Entry]:
        """Nothing."""
        if self._attribute in attributes_in(search.filter) and self._times:
            self._times -= 1
            await asyncio.sleep(0.28)
        return []


@pytest.mark.parametrize(
    ("attribute", "times", "expected"),
    [
        ("none", 99, []),
        ("uid", 1, []),
        ("uid", 99, ["uid: a lookup by login"]),
        ("mail", 99, ["mail, mailAlternateAddress, mailLocalAddress: a lookup by address"]),
        ("associatedDomain", 99, ["associatedDomain: a lookup by domain"]),
        ("member", 99, ["member, memberUid, uniqueMember: a lookup of groups by member"]),
        ("memberURL", 99, ["memberURL: a lookup of dynamic groups"]),
    ],
)
def test_lint_times_each_kind_of_lookup(attribute: str, times: int, expected: list[str]) -> None:
    """What stays slow is named with its attributes."""
    directory = cast(Directory, Unindexed(attribute, times))
    told = slow_lookups(PolicySet(), directory, Where(SUFFIX), PROFILES["openldap"])
    took = " takes 280 ms, expected less than 100: are these attributes indexed?"
    assert [f"warning: {SUFFIX}: {what}{took}" for what in expected] == list(map(str, on_virtual_time(told)))


@pytest.mark.servers
def test_a_site_without_indexes(
    example_ldif: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Lint warns of every kind of lookup, serve counts searches and logs them."""
    with Slapd(schema="ldappolicy") as slapd, Proxy(slapd.port) as proxy:
        slapd.load(example_ldif)
        proxy.be(delayed(0.15))
        directory: Sections = {"directory": {"uri": [proxy.uri], "timeout": "60s"}}
        (tmp_path / "config.toml").write_text(toml(merged(EXAMPLE, directory)))
        assert 0 == run(["-c", str(tmp_path / "config.toml"), "lint"])
        said = capsys.readouterr().out
        for what in ("by address", "by login", "by domain", "of groups by member", "of dynamic groups"):
            assert f"a lookup {what} takes" in said
        with Ldappolicy(merged(directory, {"cache": {"mode": "on_demand"}})) as service:
            service.ask(sender="stranger@elsewhere.example", recipient="all@my.domain")
            service.wait_for_log(r"slow search, \d+ ms, at 'dc=example,dc=com' by associatedDomain, mail")
