"""A server that is back, but behind: lookups stay with the other one until it has what was seen there."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest

from ldappolicy.directory import Scope, Search
from ldappolicy.directory.ldap import LdapDirectory, LdapSettings
from ldappolicy.directory.ldap.abreast import MAX_SENTINELS, Sentinels
from ldappolicy.ldap_filter import Present
from tests.labs.faulty_ldap import FakeLdap, Proxy
from tests.labs.server import tree_of
from tests.labs.slapd import ROOT_PW, SUFFIX, Slapd, require_slapd, wait_until

PEOPLE = f"ou=people,{SUFFIX}"
TREE = (
    tree_of("people")
    + f"""\
dn: uid=amy,{PEOPLE}
objectClass: inetOrgPerson
uid: amy
cn: amy
sn: amy

"""
)
CHANGED = f"dn: uid=amy,{PEOPLE}\nchangetype: modify\nreplace: sn\nsn: changed\n"
DELETED = f"dn: uid=amy,{PEOPLE}\nchangetype: delete\n"
ANY = Present("objectClass")
HERE = Search(SUFFIX, Scope.BASE, ANY, ("1.1",))
AMY = Search(f"uid=amy,{PEOPLE}", Scope.BASE, ANY, ("uid", "sn"))
DATABASE = "dn: olcDatabase={1}mdb,cn=config\nchangetype: modify\n"


@asynccontextmanager
async def directory(*uris: str) -> AsyncIterator[LdapDirectory]:
    """One that prefers the first server; its pauses are short."""
    opened = LdapDirectory(LdapSettings(uris, proofs=(HERE,), timeout=60.0), jitter=lambda: 0.0)
    try:
        yield opened
    finally:
        await opened.close()


async def until(condition: Callable[[], object]) -> None:
    """Let the loop run until the condition holds."""
    async with asyncio.timeout(300):
        while not condition():  # noqa: ASYNC110  # what another process does sets no Event of ours
            await asyncio.sleep(0.02)


async def name_of_amy(opened: LdapDirectory) -> list[str]:
    """What is found of her; nothing when she is gone."""
    return [value for entry in await opened.search(AMY) for value in entry.values("sn")]


def run(story: Coroutine[Any, Any, None]) -> None:
    """Run it in an event loop of its own."""
    asyncio.run(story)


def following(provider: Slapd) -> str:
    """What makes a server a replica of another (olcSyncrepl, slapd-config(5))."""
    return DATABASE + (
        f'add: olcSyncrepl\nolcSyncrepl: rid=001 provider={provider.uri} searchbase="{SUFFIX}"'
        f' type=refreshAndPersist retry="1 +" bindmethod=simple binddn="cn=root,{SUFFIX}"'
        f" credentials={ROOT_PW}\n"
    )


def has_amy(server: Slapd) -> bool:
    """Whether a server shows her."""

    async def look() -> bool:
        opened = LdapDirectory(LdapSettings((server.uri,), timeout=60.0))
        try:
            return bool(await opened.search(AMY))
        finally:
            await opened.close()

    return asyncio.run(look())


class Pair:
    """The preferred server, which can lag, and the other one; `catches_up` ends the lag."""

    def __init__(self, replica: Slapd, provider: Slapd, catches_up: Callable[[], None]) -> None:
        self.replica = replica
        self.provider = provider
        self.catches_up = catches_up


@contextmanager
def replicating(record: str) -> Iterator[Pair]:
    """Two servers of which one is the other's replica: they say how far they have come."""
    with Slapd(overlays=("syncprov",), data=TREE) as provider, Slapd(overlays=("syncprov",)) as replica:
        replica.configure(following(provider))

        wait_until(lambda: has_amy(replica), 300.0)
        replica.configure(DATABASE + "delete: olcSyncrepl\n")
        yield Pair(replica, provider, lambda: replica.configure(following(provider)))


@contextmanager
def silent(record: str) -> Iterator[Pair]:
    """Two servers that say nothing of each other: what was seen is compared."""
    with Slapd(overlays=(), data=TREE) as provider, Slapd(overlays=(), data=TREE) as replica:
        yield Pair(replica, provider, lambda: replica.load(record))


KINDS = {"by contextCSN": replicating, "by sentinel entries": silent}


@pytest.mark.servers
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("record", "seen"), [(CHANGED, ["changed"]), (DELETED, [])], ids=["changed", "deleted"]
)
def test_a_server_that_lags_is_not_returned_to(kind: str, record: str, seen: list[str]) -> None:
    """Once it has what was seen it is; no decision goes back in time."""
    require_slapd()

    async def story(pair: Pair) -> None:
        pair.replica.stop()
        async with directory(pair.replica.uri, pair.provider.uri) as opened:
            assert await name_of_amy(opened) == ["amy"]
            await asyncio.to_thread(pair.provider.load, record)
            assert await name_of_amy(opened) == seen
            pair.replica.start()
            before = pair.replica.connections()
            await until(lambda: pair.replica.connections() >= before + 3)
            assert opened.describe() == pair.provider.uri
            assert await name_of_amy(opened) == seen
            await asyncio.to_thread(pair.catches_up)
            while opened.describe() != pair.replica.uri:
                assert await name_of_amy(opened) == seen
                await asyncio.sleep(0.02)
            assert await name_of_amy(opened) == seen

    with KINDS[kind](record) as pair:
        run(story(pair))


@pytest.mark.servers
def test_a_server_that_lags_is_better_than_none() -> None:
    """When the one in use fails, whoever answers is used."""
    require_slapd()

    async def story(pair: Pair) -> None:
        pair.replica.stop()
        async with directory(pair.replica.uri, pair.provider.uri) as opened:
            await asyncio.to_thread(pair.provider.load, CHANGED)
            assert await name_of_amy(opened) == ["changed"]
            pair.replica.start()
            before = pair.replica.connections()
            await until(lambda: pair.replica.connections() >= before + 2)
            pair.provider.stop()
            await until(lambda: opened.describe() != pair.provider.uri)
            assert await name_of_amy(opened) == ["amy"]

    with silent(CHANGED) as pair:
        run(story(pair))


def test_a_connection_that_ends_is_no_reason_to_go_back() -> None:
    """The server in use closes what is idle: lookups stay there while the other one lags."""

    async def story() -> None:
        old = FakeLdap({SUFFIX: {"o": ["x"]}, AMY.base: {"uid": ["amy"], "sn": ["amy"]}}, root_dse={})
        new = FakeLdap({SUFFIX: {"o": ["x"]}, AMY.base: {"uid": ["amy"], "sn": ["changed"]}}, root_dse={})
        async with old, new, Proxy(old.path) as first, Proxy(new.path) as second:
            first.refuse()
            async with directory(first.uri, second.uri) as opened:
                assert await name_of_amy(opened) == ["changed"]
                first.accept()
                for _ in range(5):
                    second.drop()
                    assert await name_of_amy(opened) == ["changed"]

    run(story())


def test_sentinels_are_the_last_that_were_seen() -> None:
    """A few of them, each once, without what a server computes."""
    sentinels = Sentinels()
    for number in (*range(3 * MAX_SENTINELS), 3 * MAX_SENTINELS - 1):
        sentinels.note(f"uid=u{number},{PEOPLE}", ("uid", "memberOf"))
    searches = sentinels.searches()
    assert [search.base for search in searches] == [
        f"uid=u{number},{PEOPLE}" for number in range(2 * MAX_SENTINELS, 3 * MAX_SENTINELS)
    ]
    assert {search.attributes for search in searches} == {("uid",)}
