"""The snapshot: a file of what was known, for a start while the directory is away.

It holds the entries under `policy_base` and the outcomes of lookups, with their ages. Its form is lines of
JSON between a header and a checksum of everything above it:

    {"ldappolicy snapshot":1,"written":1700000000.5,"site":"...","profile":"openldap"}
    [DN, {NAME: [VALUE, ...], ...}]                          an entry of a policy
    [[KIND, ...], AGE, [[DN, {NAME: [VALUE, ...]}], ...]]    an outcome; without entries: absent
    sha256 HEX

A file is believed as a whole or not at all: damaged, cut, of another version or site, from the future, or
one that others than its owner may write, it is refused. The checksum tells accidents, not forgery; against
that the file belongs to the service (or to root), with mode 0600. Text is kept in UTF-8 with `surrogatepass`,
which brings back every string as it was, also the bytes that surrogateescape stands for.

`write` and `read` block; beside a running event loop they belong into a thread (`asyncio.to_thread`).
"""

import hashlib
import json
import os
import stat
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeGuard

from ldappolicy.entry import Entry
from ldappolicy.errors import ConfigError, InputError
from ldappolicy.facts import Lookup

VERSION = 1
"""Of the form above, and of what a lookup means (`facts`): a file with another number is refused."""

CLOCK_TOLERANCE = 60.0
"""Seconds by which a file may be from the future: a machine that has just booted may be behind."""

LEFT_BEHIND = 3600.0
"""Seconds after which an unfinished file is one of a process that was killed."""

_MAGIC = "ldappolicy snapshot"
_Outcome = tuple[Lookup, tuple[Entry, ...], float]

_LONGEST_HEADER = 65536
_LATEST = 1e12
_TRAILER = len(b"sha256 \n") + 64

# hashlib and write(2) let go of the interpreter lock for pieces above 2047 bytes: with small ones the event
# loop beside the thread waits for microseconds, not for the interpreter's switch interval of 5 ms.
_PIECE = 4096
_READ = 65536

_encode = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":")
).encode


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What was known at `written` (seconds since the epoch); `outcomes` are (lookup, entries, age).

    `site` says what it belongs to (see `fingerprint`), `profile` what its servers were found to be. Outcomes
    without entries are absent. Ages, in seconds, are those at the moment of writing, and of reading in what
    was read.
    """

    written: float
    site: str
    policies: Sequence[Entry]
    outcomes: Iterable[_Outcome]
    profile: str = ""


def fingerprint(*parts: object) -> str:
    """One word for everything that the answers depend on: values that JSON has (tuples as lists)."""
    return hashlib.sha256(_line(parts)).hexdigest()


# ------------------------------------------------------------ writing


def write(path: Path, snapshot: Snapshot) -> None:
    """Replaces the file in one step; on any fault the old one stays. Raises ConfigError.

    A symbolic link is replaced, not followed. Two writers do not mix: the last one stays.
    """
    try:
        _check_replaceable(path)
        _remove_left_behind(path)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        with ExitStack() as unfinished:
            unfinished.callback(Path(name).unlink, missing_ok=True)
            with os.fdopen(handle, "wb") as file:
                _fill(file, snapshot)
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(path)
            unfinished.pop_all()
        _sync_folder(path.parent)
    except OSError as problem:
        reason = (problem.strerror or "unknown").lower()
        raise ConfigError(
            f"{path}: the snapshot cannot be written: {reason}, expected a folder of ours with room for it"
        ) from None


def _fill(file: BinaryIO, snapshot: Snapshot) -> None:
    digest = hashlib.sha256()
    for piece in _pieces(_lines(snapshot)):
        digest.update(piece)
        file.write(piece)
    file.write(b"sha256 %s\n" % digest.hexdigest().encode())


def _lines(snapshot: Snapshot) -> Iterator[bytes]:
    head = {"written": snapshot.written, "site": snapshot.site, "profile": snapshot.profile}
    yield _line({_MAGIC: VERSION, **head})
    for entry in snapshot.policies:
        yield _line((entry.dn, dict(entry.items())))
    for lookup, entries, age in snapshot.outcomes:
        yield _line((lookup, age, [(entry.dn, dict(entry.items())) for entry in entries]))


def _line(record: object) -> bytes:
    return _encode(record).encode("utf-8", "surrogatepass") + b"\n"


def _pieces(lines: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes, in pieces of at least _PIECE but for the last."""
    gathered: list[bytes] = []
    size = 0
    for line in lines:
        gathered.append(line)
        size += len(line)
        if size >= _PIECE:
            yield b"".join(gathered)
            gathered.clear()
            size = 0
    yield b"".join(gathered)


def _check_replaceable(path: Path) -> None:
    """A device or a folder is a mistake of the configuration; rename(2) would take a device's place."""
    with suppress(FileNotFoundError):
        mode = path.lstat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)):
            raise ConfigError(f"{path}: not a file, expected a path for the snapshot alone")


def _remove_left_behind(path: Path) -> None:
    for other in path.parent.iterdir():
        if other.name.startswith(f".{path.name}.") and other.name.endswith(".tmp"):
            with suppress(OSError):  # another writer has just finished; or it is none of ours
                if time.time() - other.lstat().st_mtime > LEFT_BEHIND:
                    other.unlink()


def _sync_folder(folder: Path) -> None:
    """What rename(2) did survives a power failure only once the folder is on disk."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


# ------------------------------------------------------------ reading


def read(path: Path, site: str, now: float) -> Snapshot | None:
    """The snapshot in a file; None when there is no such file, which is so at the first start.

    `now` is in seconds since the epoch: every age has grown by what has passed since the writing. Raises
    ConfigError when the file cannot be read, InputError when it is not to be believed.
    """
    try:
        # Path.open takes no opener; a descriptor of our own would leak where the path is a folder.
        with open(path, "rb", opener=_open_at_once) as file:
            _check_owner(path, os.fstat(file.fileno()))
            header = _header(path, file)
            end = _verified_end(path, file)
            written = _check_header(path, header, site, now)
            policies, outcomes = _parsed(path, file, end, max(0.0, now - written))
            return Snapshot(written, site, policies, outcomes)
    except FileNotFoundError:
        return None
    except OSError as problem:
        reason = (problem.strerror or "unknown").lower()
        raise ConfigError(f"{path}: the snapshot cannot be read: {reason}, expected a file of ours") from None


def profile(path: Path) -> str:
    """What the servers were found to be, by a file that is not verified yet; empty where it does not tell."""
    try:
        with open(path, "rb", opener=_open_at_once) as file:
            _check_owner(path, os.fstat(file.fileno()))
            found = _header(path, file).get("profile")
    except (OSError, InputError):
        return ""
    return found if isinstance(found, str) else ""


def _open_at_once(path: str, flags: int) -> int:
    """A named pipe does not block."""
    return os.open(path, flags | os.O_NONBLOCK)


def _check_owner(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{path}: not a file, expected a snapshot")
    if status.st_uid not in (os.geteuid(), 0) or status.st_mode & 0o022:
        raise InputError(
            f"{path}: snapshot refused: others may write it (owner {status.st_uid}, "
            f"mode {stat.S_IMODE(status.st_mode):04o}), expected a file of ours with mode 0600"
        )


def _header(path: Path, file: BinaryIO) -> dict[str, Any]:
    """The first line, whose version tells how the rest is to be read."""
    try:
        header = json.loads(file.readline(_LONGEST_HEADER))
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict) or _MAGIC not in header:
        raise InputError(f"{path}: line 1: not a snapshot, expected the header of one")
    if header[_MAGIC] != VERSION:
        raise InputError(
            f"{path}: line 1: snapshot of version {header[_MAGIC]!r}, expected version {VERSION}"
        )
    return header


def _verified_end(path: Path, file: BinaryIO) -> int:
    """Where the checksum begins, once it is seen to be that of everything above it."""
    end = file.seek(0, os.SEEK_END) - _TRAILER
    digest = hashlib.sha256()
    file.seek(0)
    left = end
    while left > 0 and (piece := file.read(min(left, _READ))):
        digest.update(piece)
        left -= len(piece)
    if end < 0 or file.read() != b"sha256 %s\n" % digest.hexdigest().encode():
        raise InputError(f"{path}: snapshot refused: it is damaged, expected its sha256 in the last line")
    return end


def _check_header(path: Path, header: dict[str, Any], site: str, now: float) -> float:
    """When the file was written."""
    written = header.get("written")
    if not _is_seconds(written):
        raise InputError(f"{path}: line 1: snapshot written at {written!r}, expected seconds")
    if header.get("site") != site:
        raise InputError(
            f"{path}: snapshot of another site: {header.get('site')!r}, expected {site!r} "
            f"(directory, bases, mapping, filter, domains)"
        )
    if written > now + CLOCK_TOLERANCE:
        raise InputError(
            f"{path}: snapshot from the future: written at {written:.0f}, expected at most {now:.0f} (now)"
        )
    return float(written)


def _is_seconds(value: object) -> TypeGuard[float]:
    return isinstance(value, float | int) and 0 <= value < _LATEST


def _parsed(path: Path, file: BinaryIO, end: int, passed: float) -> tuple[list[Entry], list[_Outcome]]:
    """Everything between the header and `end`, older by the seconds that have passed."""
    policies: list[Entry] = []
    outcomes: list[_Outcome] = []
    file.seek(0)
    left = end - len(file.readline())
    number = 1
    while left > 0:
        line = file.readline()
        left -= len(line)
        number += 1
        try:
            record = json.loads(line.decode("utf-8", "surrogatepass"))
            if len(record) == 2:
                policies.append(_entry(record))
            else:
                outcomes.append(_outcome(record, passed))
        except (ValueError, TypeError, RecursionError, InputError):
            raise InputError(
                f"{path}: line {number}: not a record, expected an entry or an outcome"
            ) from None
    return policies, outcomes


def _outcome(record: Any, passed: float) -> _Outcome:
    lookup, age, entries = record
    if not lookup or not _is_seconds(age):
        raise ValueError
    return _texts(lookup), tuple(_entry(entry) for entry in entries), age + passed


def _entry(record: Any) -> Entry:
    dn, attributes = record
    if type(dn) is not str or type(attributes) is not dict:
        raise ValueError
    return Entry(dn, {name: _texts(values) for name, values in attributes.items()})


def _texts(values: Any) -> tuple[str, ...]:
    if type(values) is not list or any(type(value) is not str for value in values):
        raise ValueError
    return tuple(values)
