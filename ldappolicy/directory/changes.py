"""What a change stream tells: which entries came, went or are otherwise now, and how far it can be trusted.

A watch yields events until it is cancelled. Between `Live` and `Lost` every change is told; before the
first `Live` and after `Lost` nothing is promised, and `Everything` says that changes may have been missed.
Entries are told apart by `uuid`, which outlives a renaming (entryUUID, nsUniqueId, objectGUID): 32
lower-case hexadecimal digits.
"""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Protocol

from ldappolicy.entry import Entry


@dataclass(frozen=True, slots=True)
class Members:
    """Only the members (DNs) that came and went, where the server tells no more of a group."""

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Changed:
    """An entry as it is now, with every attribute that the watch was asked for.

    With `members` the entry was left without its member values: these came and went. `is_new` only when the
    stream is sure that the entry has just been added; else it may also have been renamed or moved.
    """

    uuid: str
    entry: Entry
    is_new: bool = False
    members: Members | None = None


@dataclass(frozen=True, slots=True)
class Deleted:
    """An entry that is not there any more, or is not covered any more; `dn` is empty where it is not told."""

    uuid: str
    dn: str = ""


@dataclass(frozen=True, slots=True)
class Everything:
    """Changes may have been missed: whatever is known has to be looked at again."""

    reason: str


@dataclass(frozen=True, slots=True)
class Live:
    """From here on every change is told; `kind` is how (a value of `watch`), `uri` by which server."""

    kind: str
    uri: str


@dataclass(frozen=True, slots=True)
class Lost:
    """The stream has ended and is being opened again."""

    reason: str


Event = Changed | Deleted | Everything | Live | Lost


@dataclass(frozen=True, slots=True)
class Watched:
    """What is to be watched: subtrees, the attributes to be told, and how.

    `members` are the attributes among `attributes` that hold members; `kind` is a value of `watch` in the
    configuration, never "off"; `poll_interval` is in seconds.
    """

    bases: tuple[str, ...]
    attributes: tuple[str, ...]
    members: tuple[str, ...]
    kind: str = "auto"
    poll_interval: float = 30.0


class Source(Protocol):
    """A directory that can tell of changes, and be read as a whole."""

    def watch(self, watched: Watched) -> AsyncGenerator[Event, None]:
        """Events until it is closed; it opens lost streams again by itself."""
        ...

    def scan(self, base: str, attributes: Sequence[str]) -> AsyncGenerator[Sequence[Entry], None]:
        """Every entry at and below a base, in pages, long values complete; raises Unavailable."""
        ...


def entry_uuid(entry: Entry) -> str:
    """The identity of an entry in the form that events have; empty when its attribute was not read."""
    for name in ("entryUUID", "objectGUID", "nsUniqueId"):
        for value in entry.values(name):
            octets = value.encode("utf-8", "surrogateescape")
            return octets.hex() if name == "objectGUID" else value.replace("-", "").lower()
    return ""
