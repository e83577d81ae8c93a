"""A start while the directory is away: what the snapshot knows is decided, and when it is not believed."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from itertools import islice
from pathlib import Path

import pytest

from ldappolicy import snapshot
from ldappolicy.assembly import build_freshness
from ldappolicy.directory.changes import Deleted
from ldappolicy.directory.packing import Packed
from ldappolicy.entry import Entry
from ldappolicy.freshness import Freshness
from ldappolicy.warm_start import MIRROR, WarmStart
from tests.labs.deciding import configuration, deciding, until
from tests.labs.ldappolicy import DEADLINE, Ldappolicy, Sections
from tests.labs.slapd import Slapd, wait_until

pytestmark = pytest.mark.servers

REFUSED, PASSES, UNAVAILABLE = "reject,", "DUNNO", "DEFER_IF_PERMIT 4.3.0 Temporary lookup failure"
OFFSITE = "friend@elsewhere.example"
BOB = {"sender": "bob@my.domain", "recipient": OFFSITE, "sasl_username": "bob"}
MIA = {"sender": "mia@my.domain", "recipient": OFFSITE, "sasl_username": "mia"}


@pytest.fixture
def slapd(example_ldif: Path) -> Iterator[Slapd]:
    """The example company, in a server that tells of changes."""
    with Slapd(schema="ldappolicy", overlays=("syncprov",)) as server:
        server.load(example_ldif)
        yield server


def sections(server: Slapd, file: Path, mode: str = "on_demand", **cache: str) -> Sections:
    """A configuration with a snapshot."""
    return {
        "directory": {"uri": [server.uri], "profile": "openldap"},
        "cache": {"mode": mode, "snapshot": str(file), **cache},
    }


def served(server: Slapd, file: Path, mode: str = "on_demand", **cache: str) -> None:
    """A service that has been, asked about bob, and left a snapshot."""
    with Ldappolicy(sections(server, file, mode, **cache)) as service:
        if mode == "mirror":
            service.wait_for_log("mirror complete")
        assert service.ask(**BOB) == REFUSED


@pytest.mark.parametrize(("mode", "stranger"), [("on_demand", UNAVAILABLE), ("mirror", PASSES)])
def test_what_was_known_is_decided(slapd: Slapd, tmp_path: Path, mode: str, stranger: str) -> None:
    """Whoever was asked about, and with a mirror everybody; what changes is seen when the server is back."""
    file = tmp_path / "snapshot"
    served(slapd, file, mode)
    slapd.kill()
    with Ldappolicy(sections(slapd, file, mode)) as service:
        service.wait_for_log("policies of the snapshot are in force")
        if mode == "mirror":
            service.wait_for_log("mirror of the snapshot")
        assert (service.ask(**BOB), service.ask(**MIA)) == (REFUSED, stranger)
        slapd.start()
        slapd.load(
            "dn: cn=restricted,ou=groups,dc=example,dc=com\nchangetype: modify\n"
            "delete: smtpdMemberSenderAccess\n"
        )
        wait_until(lambda: service.ask(**BOB) == PASSES, DEADLINE)
        assert service.ask(**MIA) == PASSES


def test_who_is_ready_can_answer(slapd: Slapd, tmp_path: Path) -> None:
    """Nobody is deferred while the mirror of the snapshot gets into memory: nobody is answered then."""
    file, many = tmp_path / "snapshot", 4000
    slapd.load(
        "".join(
            f"dn: uid=p{n},ou=people,dc=example,dc=com\nobjectClass: inetOrgPerson\nuid: p{n}\ncn: P\nsn: P\n"
            f"mail: p{n}@my.domain\n\n"
            for n in range(many)
        )
    )
    served(slapd, file, "mirror")
    slapd.kill()
    with Ldappolicy(sections(slapd, file, "mirror")) as service:
        assert (service.ask(**BOB), service.ask(**MIA)) == (REFUSED, PASSES)
        order = [service.log(said)[0] for said in ("policies of the snapshot", "mirror of the snapshot")]
        assert [line for line in service.log("") if line in order] == order


def test_a_snapshot_is_good_for_max_stale(slapd: Slapd, tmp_path: Path) -> None:
    """Older answers are not believed; the policies still say what is unavailable."""
    file = tmp_path / "snapshot"
    served(slapd, file)
    slapd.kill()
    with Ldappolicy(sections(slapd, file, max_stale="1ms")) as service:
        assert service.ask(**BOB) == UNAVAILABLE


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        pytest.param(lambda octets: octets[:-9], "snapshot refused", id="cut"),
        pytest.param(
            lambda octets: octets.replace(b"local_only", b"lokal_only", 1), "snapshot refused", id="byte"
        ),
        pytest.param(lambda octets: b"", "snapshot refused", id="empty"),
        pytest.param(None, "no policies yet", id="not there"),
    ],
)
def test_a_file_that_is_not_believed(slapd: Slapd, tmp_path: Path, spoil: object, said: str) -> None:
    """It is as if there were none: nothing is decided until the directory answers."""
    file = tmp_path / "snapshot"
    served(slapd, file)
    if callable(spoil):
        file.write_bytes(spoil(file.read_bytes()))
    else:
        file.unlink()
    slapd.kill()
    with Ldappolicy(sections(slapd, file)) as service:
        service.wait_for_log(said)
        service.wait_for_log("no policies yet")
        assert service.ask(**BOB) == UNAVAILABLE


def test_a_snapshot_belongs_to_its_configuration(slapd: Slapd, tmp_path: Path) -> None:
    """Another filter may have had other answers."""
    file = tmp_path / "snapshot"
    served(slapd, file)
    slapd.kill()
    other = sections(slapd, file)
    with Ldappolicy({**other, "directory": {**other["directory"], "filter": "(!(ou=x))"}}) as service:
        service.wait_for_log("snapshot refused")
        assert service.ask(**BOB) == UNAVAILABLE


def test_the_last_good_policy_is_kept(slapd: Slapd, tmp_path: Path) -> None:
    """A directory whose default policy does not parse is served with what was in force."""
    file = tmp_path / "snapshot"
    served(slapd, file)
    slapd.load(
        "dn: cn=default,ou=policy,dc=example,dc=com\nchangetype: modify\n"
        "replace: smtpdSenderRestrictions\nsmtpdSenderRestrictions: check_sender_access {\n"
    )
    with Ldappolicy(sections(slapd, file)) as service:
        service.wait_for_log("policies of the snapshot are in force")
        assert service.ask(**BOB) == REFUSED


def test_a_folder_that_cannot_be_written_is_said(slapd: Slapd, tmp_path: Path) -> None:
    """The service goes on."""
    with Ldappolicy(sections(slapd, tmp_path / "nowhere" / "snapshot")) as service:
        assert service.ask(**BOB) == REFUSED
        service.stop()
        assert service.log("snapshot not written")


def test_a_replica_that_is_half_loaded_is_not_believed(slapd: Slapd, tmp_path: Path) -> None:
    """It has the policies and not the people: who was known is decided as before, and nobody is absent."""
    file = tmp_path / "snapshot"
    people = ("amy", "bob", "carol", "mia", "ned")
    with Ldappolicy(sections(slapd, file)) as service:
        for name in people:
            service.ask(sender=f"{name}@my.domain", recipient=OFFSITE, sasl_username=name)
    groups = ("contractors", "restricted", "managers", "everyone-restricted", "offsite")
    gone = (*(f"uid={name},ou=people" for name in people), *(f"cn={name},ou=groups" for name in groups))
    slapd.load("\n".join(f"dn: {name},dc=example,dc=com\nchangetype: delete\n" for name in gone))
    with Ldappolicy(sections(slapd, file)) as service:
        service.wait_for_log("does not show")
        assert service.ask(**BOB) == REFUSED
        assert service.ask(sender="joe@my.domain", recipient=OFFSITE, sasl_username="joe") == UNAVAILABLE


BASE = "dc=example,dc=com"
PEOPLE = [Entry(f"uid=p{number},{BASE}", {"uid": [f"p{number}"], "cn": ["P"]}) for number in range(5000)]
TEAM = Entry(f"cn=team,{BASE}", {"cn": ["team"], "member": [PEOPLE[-1].dn]})


async def untouched() -> None:
    """Policies stay as they are."""


@asynccontextmanager
async def holding(
    server: Slapd, file: Path
) -> AsyncIterator[tuple[Freshness, Callable[[], Awaitable[None]]]]:
    """A mirror of 5001 entries, and what writes the snapshot."""
    layout = sections(server, file, "mirror")
    async with deciding(server.uri, layout) as service:
        config = configuration(server.uri, layout)
        freshness = build_freshness(config, service.resolver.directory, service, untouched)
        assert freshness is not None
        await freshness.begin_with([*PEOPLE, TEAM], 7.0)
        yield freshness, lambda: WarmStart(str(file), "site", "openldap").keep(service, freshness)


def mirrored(file: Path) -> list[tuple[Entry, ...]]:
    """What a snapshot holds of the mirror, piece by piece."""
    known = snapshot.read(file, "site", time.time())
    assert known is not None
    return [entries for lookup, entries, _ in known.outcomes if lookup[0] == MIRROR]


def test_a_mirror_is_written_beside_the_event_loop(
    slapd: Slapd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unpacked in another thread, while the loop goes on, and as it was when the snapshot began."""
    file, count, ran = tmp_path / "snapshot", 0, threading.Event()
    unpack = Packed.items

    def unpacked(packed: Packed) -> Iterator[tuple[str, tuple[str, ...]]]:
        nonlocal count
        if threading.current_thread() is not threading.main_thread():
            count += 1
            if count % 1000 == 0:
                ran.clear()
                assert ran.wait(DEADLINE), "the loop does not go on"
        return unpack(packed)

    async def story() -> None:
        async with holding(slapd, file) as (freshness, keep):
            assert freshness.mirror is not None
            monkeypatch.setattr(Packed, "items", unpacked)
            written, left = asyncio.ensure_future(keep()), iter(PEOPLE)
            await until(lambda: count > 0)
            while not written.done():
                for person in islice(left, 1000):
                    freshness.mirror.apply(Deleted("", person.dn))
                ran.set()
                await asyncio.sleep(0.001)
            await written

    asyncio.run(story())
    assert [entry for piece in mirrored(file) for entry in piece] == [*PEOPLE, TEAM]
    assert count == len(PEOPLE) + 1


def test_a_mirror_in_doubt_is_not_written(slapd: Slapd, tmp_path: Path) -> None:
    """A member is gone and the group still names it: the file of before stays until that is settled."""
    file = tmp_path / "snapshot"

    async def story() -> None:
        async with holding(slapd, file) as (freshness, keep):
            await keep()
            before = file.read_bytes()
            assert freshness.mirror is not None
            gone = freshness.mirror.apply(Deleted("", PEOPLE[-1].dn)).dangling
            await keep()
            assert (gone, file.read_bytes()) == ((PEOPLE[-1].dn,), before)
            freshness.mirror.readings(gone)
            freshness.mirror.settle(gone, [])
            await keep()
            assert sum(map(len, mirrored(file))) == len(PEOPLE)

    asyncio.run(story())
