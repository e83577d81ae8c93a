"""The snapshot file: what was written comes back; what is not whole, or not ours, is refused."""

import asyncio
import hashlib
import json
import os
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ldappolicy import snapshot as module
from ldappolicy.entry import Entry
from ldappolicy.errors import ConfigError, InputError
from ldappolicy.snapshot import CLOCK_TOLERANCE, LEFT_BEHIND, Snapshot, fingerprint, read, write

NOW = 1_700_000_000.0
SITE = "here"
ODD = b"\xff\xfe\x80 \xed\xb2\x80".decode("utf-8", "surrogateescape")
POLICY = Entry("cn=default,ou=policy,dc=x", {"cn": ["default"], "objectClass": ["top", "smtpdPolicy"]})
AMY = Entry("uid=Amy,dc=x", {"mail": ["amy@x", "a\u2028b\n@x"], "jpegPhoto": [ODD], "uid": ["amy"]})
SMALL = Snapshot(
    NOW,
    SITE,
    [POLICY],
    [(("mail", "amy@x"), (AMY,), 1.25), (("mail", "bob@x"), (), 0.0), (("dynamic",), (AMY, POLICY), 3)],
)


def contents(read_back: Snapshot | None) -> tuple[object, ...]:
    """What compares: entries also by how their DNs are spelled."""
    assert read_back is not None
    return (
        read_back.written,
        read_back.site,
        [(entry.dn, entry) for entry in read_back.policies],
        [(lookup, [(e.dn, e) for e in entries], age) for lookup, entries, age in read_back.outcomes],
    )


def written(path: Path) -> bytearray:
    """The bytes of the small snapshot."""
    write(path, SMALL)
    return bytearray(path.read_bytes())


def signed(*lines: object) -> bytes:
    """A file with a right checksum, whatever its lines are."""
    text = b"".join(line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n" for line in lines)
    return text + b"sha256 %s\n" % hashlib.sha256(text).hexdigest().encode()


def put(path: Path, content: bytes) -> Path:
    """A file that only its owner may write."""
    path.write_bytes(content)
    path.chmod(0o600)
    return path


HEADER = {"ldappolicy snapshot": module.VERSION, "written": NOW, "site": SITE}


# ------------------------------------------------------------ what was written comes back


def test_round_trip(tmp_path: Path) -> None:
    """Policies, found and absent outcomes with their ages, and bytes that are no text."""
    write(tmp_path / "snapshot", SMALL)
    assert contents(SMALL) == contents(read(tmp_path / "snapshot", SITE, NOW))


AGES = [
    # (when it is read, the ages then)
    (NOW, [1.25, 0.0, 3.0]),
    (NOW + 5, [6.25, 5.0, 8.0]),
    (NOW + 86400, [86401.25, 86400.0, 86403.0]),
    (NOW - 30, [1.25, 0.0, 3.0]),  # by a clock that is behind
]


@pytest.mark.parametrize(("now", "ages"), AGES)
def test_ages(tmp_path: Path, now: float, ages: list[float]) -> None:
    """What is known grows older in the file as it does in memory."""
    write(tmp_path / "snapshot", SMALL)
    found = read(tmp_path / "snapshot", SITE, now)
    assert found is not None
    assert ages == [age for _, _, age in found.outcomes]


def test_nothing_known(tmp_path: Path) -> None:
    """A snapshot without policies and outcomes is one as well."""
    empty = Snapshot(NOW, SITE, [], [])
    write(tmp_path / "snapshot", empty)
    assert contents(empty) == contents(read(tmp_path / "snapshot", SITE, NOW))


def test_no_file(tmp_path: Path) -> None:
    """At the first start there is none, which is no error."""
    assert read(tmp_path / "snapshot", SITE, NOW) is None


TEXT = st.one_of(
    st.binary(max_size=20).map(lambda octets: octets.decode("utf-8", "surrogateescape")),
    st.text(st.characters(exclude_categories=()), max_size=20),  # surrogates of both kinds among them
)
ENTRIES = st.builds(
    Entry,
    st.sampled_from(["", "cn=a,dc=x", "cn=B\\2C,dc=x", "cn=\\ff,dc=x", "uid=ü,dc=x"]),
    st.dictionaries(st.text("abcXYZ-", min_size=1), st.lists(TEXT, max_size=3), max_size=3),
)
OUTCOMES = st.tuples(
    st.lists(TEXT, min_size=1, max_size=3).map(tuple),
    st.lists(ENTRIES, max_size=3).map(tuple),
    st.floats(0, 1e9),
)


@pytest.mark.servers
@given(site=TEXT, policies=st.lists(ENTRIES, max_size=3), outcomes=st.lists(OUTCOMES, max_size=5))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_text_comes_back(
    tmp_path: Path,
    site: str,
    policies: list[Entry],
    outcomes: list[tuple[tuple[str, ...], tuple[Entry, ...], float]],
) -> None:
    """Whatever bytes a directory holds."""
    given_one = Snapshot(NOW, site, policies, outcomes)
    write(tmp_path / "snapshot", given_one)
    assert contents(given_one) == contents(read(tmp_path / "snapshot", site, NOW))


def test_fingerprint() -> None:
    """It depends on every part and on where one ends; tuples are lists."""
    words = [(), ("a",), ("a", "b"), ("ab",), (["a", "b"],), ("b", "a"), (None,), ({"a": 1},), ({"a": 2},)]
    assert len(words) == len({fingerprint(*word) for word in words})
    assert fingerprint(["a"]) == fingerprint(("a",))
    assert 64 == len(fingerprint(ODD))


# ------------------------------------------------------------ what is not believed


@pytest.mark.servers
def test_every_flipped_byte(tmp_path: Path) -> None:
    """One other byte anywhere, by one bit or by all of them, and the file is refused."""
    path = tmp_path / "snapshot"
    whole = written(path)
    for at in range(len(whole)):
        for flip in (0x01, 0x20, 0x80, 0xFF):
            whole[at] ^= flip
            path.write_bytes(whole)
            whole[at] ^= flip
            with pytest.raises(InputError, match=r"snapshot"):
                read(path, SITE, NOW)
    path.write_bytes(whole)
    assert read(path, SITE, NOW) is not None


def test_every_cut(tmp_path: Path) -> None:
    """Cut after any byte, or before any, it is refused."""
    path = tmp_path / "snapshot"
    whole = written(path)
    for at in range(len(whole)):
        for part in (whole[:at], whole[at + 1 :]):
            path.write_bytes(part)
            with pytest.raises(InputError, match=r"snapshot"):
                read(path, SITE, NOW)


ADDED = [b"\n", b"\0", b" ", b"[]\n", b"sha256 0\n"]


@pytest.mark.parametrize("more", ADDED)
def test_something_behind(tmp_path: Path, more: bytes) -> None:
    """Nor with anything behind the checksum."""
    path = tmp_path / "snapshot"
    path.write_bytes(written(path) + more)
    with pytest.raises(InputError, match="damaged"):
        read(path, SITE, NOW)


REFUSED = [
    # (what, the file, what is said)
    ("empty", b"", "not a snapshot"),
    ("a checksum alone", signed(), "not a snapshot"),
    ("another file", b"[server]\nlisten = []\n", "not a snapshot"),
    ("zeros", bytes(200_000), "not a snapshot"),
    ("deep", b"[" * 100_000, "not a snapshot"),
    ("a list", signed([1]), "not a snapshot"),
    ("version 0", signed({**HEADER, "ldappolicy snapshot": 0}), "version 0, expected version 1"),
    ("version 2, unsigned", b'{"ldappolicy snapshot":2}\n', "version 2, expected version 1"),
    ("no time", signed({**HEADER, "written": None}), "written at None"),
    ("time that is none", signed({**HEADER, "written": float("nan")}), "written at nan"),
    ("before the epoch", signed({**HEADER, "written": -1}), "written at -1"),
    ("an endless number", signed({**HEADER, "written": 10**400}), "written at 1"),
    ("no site", signed({**HEADER, "site": None}), "another site: None, expected 'here'"),
    ("another site", signed({**HEADER, "site": "there"}), "another site: 'there', expected 'here'"),
    ("from the future", signed({**HEADER, "written": NOW + 3600}), "from the future"),
    ("no JSON", signed(HEADER, b"{\n"), "line 2: not a record"),
    ("no UTF-8", signed(HEADER, b'["cn=a",{"a":["\xff"]}]\n'), "line 2: not a record"),
    ("deep record", signed(HEADER, b"[" * 100_000 + b"\n"), "line 2: not a record"),
    ("a number", signed(HEADER, ["cn=a", {}], 7), "line 3: not a record"),
    ("an empty list", signed(HEADER, []), "line 2: not a record"),
    ("no DN", signed(HEADER, ["amy", {}]), "line 2: not a record"),
    ("a DN of another kind", signed(HEADER, [None, {}]), "line 2: not a record"),
    ("attributes in a list", signed(HEADER, ["cn=a", []]), "line 2: not a record"),
    ("a value without a list", signed(HEADER, ["cn=a", {"cn": "abc"}]), "line 2: not a record"),
    ("a value of another kind", signed(HEADER, ["cn=a", {"cn": [1]}]), "line 2: not a record"),
    ("a lookup of nothing", signed(HEADER, [[], 1, []]), "line 2: not a record"),
    ("a lookup of another kind", signed(HEADER, [["mail", 1], 1, []]), "line 2: not a record"),
    ("a negative age", signed(HEADER, [["dynamic"], -1, []]), "line 2: not a record"),
    ("no age", signed(HEADER, [["dynamic"], None, []]), "line 2: not a record"),
    ("an endless age", signed(HEADER, [["dynamic"], float("inf"), []]), "line 2: not a record"),
    ("no entries", signed(HEADER, [["dynamic"], 1, None]), "line 2: not a record"),
    ("entries of another kind", signed(HEADER, [["dynamic"], 1, ["ab"]]), "line 2: not a record"),
    ("four parts", signed(HEADER, [["dynamic"], 1, [], []]), "line 2: not a record"),
]


@pytest.mark.parametrize(("content", "said"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_refused(tmp_path: Path, content: bytes, said: str) -> None:
    """One line says which file, where, what is wrong; nothing of it is believed."""
    path = put(tmp_path / "snapshot", content)
    with pytest.raises(InputError) as caught:
        read(path, SITE, NOW)
    assert str(caught.value).startswith(f"{path}: ")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_clock_that_is_behind(tmp_path: Path) -> None:
    """A clock that is a little behind after a boot is no reason to start without it."""
    path = tmp_path / "snapshot"
    write(path, SMALL)
    assert read(path, SITE, NOW - CLOCK_TOLERANCE) is not None
    with pytest.raises(InputError, match="from the future"):
        read(path, SITE, NOW - CLOCK_TOLERANCE - 1)


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_others_may_write_it(tmp_path: Path, mode: int) -> None:
    """A checksum is no proof of who wrote it: the permissions are."""
    path = tmp_path / "snapshot"
    write(path, SMALL)
    path.chmod(mode)
    with pytest.raises(InputError, match=f"others may write it .*mode {mode:04o}"):
        read(path, SITE, NOW)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_of_somebody_else(tmp_path: Path) -> None:
    """Nor is a file believed that belongs to somebody else."""
    path = tmp_path / "snapshot"
    write(path, SMALL)
    os.chown(path, 65534, -1)
    with pytest.raises(InputError, match=r"others may write it .owner 65534"):
        read(path, SITE, NOW)


def test_not_a_file(tmp_path: Path) -> None:
    """A named pipe neither blocks nor is replaced, a folder neither."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(InputError, match="not a file"):
        read(pipe, SITE, NOW)
    with pytest.raises(ConfigError, match="is a directory"):
        read(tmp_path, SITE, NOW)
    for path in (pipe, tmp_path):
        before = path.lstat().st_mode
        with pytest.raises(ConfigError, match="not a file"):
            write(path, SMALL)
        assert before == path.lstat().st_mode
    assert [pipe] == list(tmp_path.iterdir())


# ------------------------------------------------------------ the old one stays


def files(folder: Path) -> list[str]:
    """The names in a folder."""
    return sorted(path.name for path in folder.iterdir())


def test_permissions(tmp_path: Path) -> None:
    """Only we may read it, whatever the umask; nothing is left beside it."""
    before = os.umask(0)
    try:
        write(tmp_path / "snapshot", SMALL)
    finally:
        os.umask(before)
    assert 0o600 == stat.S_IMODE((tmp_path / "snapshot").stat().st_mode)
    assert ["snapshot"] == files(tmp_path)


def test_symbolic_link(tmp_path: Path) -> None:
    """A link is replaced; what it points to stays as it is."""
    target = put(tmp_path / "target", b"mine")
    (tmp_path / "snapshot").symlink_to(target)
    write(tmp_path / "snapshot", SMALL)
    assert b"mine" == target.read_bytes()
    assert not (tmp_path / "snapshot").is_symlink()
    assert contents(SMALL) == contents(read(tmp_path / "snapshot", SITE, NOW))


FULL = """
import resource, signal, sys
from pathlib import Path
from ldappolicy.entry import Entry
from ldappolicy.errors import ConfigError
from ldappolicy.snapshot import Snapshot, write
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
big = [Entry(f"cn={n},dc=x", {"cn": ["x" * 1000]}) for n in range(1000)]
try:
    write(Path(sys.argv[1]), Snapshot(1.0, "here", big, []))
except ConfigError as problem:
    print(problem)
"""


@pytest.mark.parametrize("room", [0, 5_000, 500_000])
def test_no_room(tmp_path: Path, room: int) -> None:
    """Where it does not fit, it is said so, the old one stays, and nothing is left beside it."""
    path = tmp_path / "snapshot"
    old = written(path)
    command = [sys.executable, "-c", FULL, str(path), str(room)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert f"{path}: the snapshot cannot be written: file too large" in done.stdout
    assert old == path.read_bytes()
    assert ["snapshot"] == files(tmp_path)


def test_fault_while_writing(tmp_path: Path) -> None:
    """Nor does it stay half written when what is written fails."""
    old = written(tmp_path / "snapshot")
    with pytest.raises(ValueError, match="not JSON compliant"):
        write(tmp_path / "snapshot", Snapshot(float("nan"), SITE, [], []))
    assert old == (tmp_path / "snapshot").read_bytes()
    assert ["snapshot"] == files(tmp_path)


def no_folder(folder: Path) -> Path:
    """Nothing is there."""
    return folder / "none" / "snapshot"


def file_as_folder(folder: Path) -> Path:
    """A file is there."""
    return put(folder / "file", b"") / "snapshot"


def long_name(folder: Path) -> Path:
    """No file system has such names."""
    return folder / ("x" * 300)


@pytest.mark.parametrize("place", [no_folder, file_as_folder, long_name])
def test_no_place(tmp_path: Path, place: Callable[[Path], Path]) -> None:
    """A path where nothing can be is said with the reason; only a missing one is read as none."""
    path = place(tmp_path)
    with pytest.raises(ConfigError, match=r"the snapshot cannot be written: .*, expected"):
        write(path, SMALL)
    if place is no_folder:
        assert read(path, SITE, NOW) is None
    else:
        with pytest.raises(ConfigError, match=r"the snapshot cannot be read: .*, expected"):
            read(path, SITE, NOW)


FORBIDDEN = """
import os, sys
from pathlib import Path
from ldappolicy.errors import ConfigError
from ldappolicy.snapshot import Snapshot, read, write
if os.geteuid() == 0:
    os.setgroups([])
    os.setuid(65534)
path = Path(sys.argv[1])
for step in (lambda: read(path, "here", 1e9), lambda: write(path, Snapshot(1.0, "here", [], []))):
    try:
        print("no error:", step())
    except ConfigError as problem:
        print(problem)
"""


def test_folder_that_is_closed(tmp_path: Path) -> None:
    """A folder that we may not enter is an error of the configuration, not an absent file."""
    folder = tmp_path / "closed"
    folder.mkdir()
    written(folder / "snapshot")
    folder.chmod(0o000)
    try:
        command = [sys.executable, "-c", FORBIDDEN, str(folder / "snapshot")]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    finally:
        folder.chmod(0o700)
    said = [
        line.partition(": the snapshot cannot be ")[2].partition(", expected")[0]
        for line in done.stdout.splitlines()
    ]
    assert ["read: permission denied", "written: permission denied"] == said


def test_two_writers(tmp_path: Path) -> None:
    """While several write, every reader sees one of theirs, whole; in the end one is left."""
    path = tmp_path / "snapshot"
    sizes = range(1, 5)
    kinds = {n: Snapshot(NOW, SITE, [POLICY] * n * 50, []) for n in sizes}
    write(path, kinds[1])

    def work(number: int) -> None:
        for _ in range(20):
            write(path, kinds[number])

    writers = [threading.Thread(target=work, args=(number,)) for number in sizes]
    for writer in writers:
        writer.start()
    seen = set()
    while any(writer.is_alive() for writer in writers):
        found = read(path, SITE, NOW)
        assert found is not None
        seen.add(len(found.policies))
    for writer in writers:
        writer.join()
    assert seen <= {n * 50 for n in sizes}
    assert ["snapshot"] == files(tmp_path)


def test_left_behind(tmp_path: Path) -> None:
    """What a killed writer left goes with the next; what is being written, or is another's, stays."""
    path = tmp_path / "snapshot"
    names = [".snapshot.old.tmp", ".snapshot.new.tmp", ".other.old.tmp", "snapshot.tmp"]
    for name in names:
        (tmp_path / name).touch()
        if "new" not in name:
            os.utime(tmp_path / name, (0, time.time() - LEFT_BEHIND - 1))
    write(path, SMALL)
    assert sorted([*names[1:], "snapshot"]) == files(tmp_path)


KILLED = """
import os, signal, sys
from pathlib import Path
from ldappolicy.snapshot import Snapshot, write
def outcomes():
    for number in range(100_000):
        yield ("mail", f"{number}@x"), (), 0.0
        if number == 50_000:
            os.kill(os.getpid(), signal.SIGKILL)
write(Path(sys.argv[1]), Snapshot(1.0, "here", [], outcomes()))
"""


def test_killed_while_writing(tmp_path: Path) -> None:
    """A process that ends in the middle leaves the old one in its place."""
    path = tmp_path / "snapshot"
    write(path, SMALL)
    done = subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False)
    assert -9 == done.returncode
    assert contents(SMALL) == contents(read(path, SITE, NOW))


@pytest.mark.servers
def test_beside_an_event_loop(tmp_path: Path) -> None:
    """In a thread it leaves the loop its turns while it writes."""
    many = Snapshot(NOW, SITE, [], [(("mail", f"{n}@x"), (AMY,), 1.0) for n in range(20_000)])

    async def turns() -> int:
        task = asyncio.create_task(asyncio.to_thread(write, tmp_path / "snapshot", many))
        count = 0
        while not task.done():
            await asyncio.sleep(0)
            count += 1
        await task
        return count

    assert asyncio.run(turns()) > 10
    found = read(tmp_path / "snapshot", SITE, NOW)
    assert found is not None
    assert 20_000 == len(list(found.outcomes))
