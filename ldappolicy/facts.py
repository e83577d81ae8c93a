"""What has been looked up, and what turns out to be lacking.

A **lookup** is a question to the directory, as a tuple whose first member says of which kind it is:

===========================  =====================================================================
``("mail", ADDRESS)``        the entries that have the (folded, unquoted) address in a mail attribute
``("login", LOGIN, ...)``    the entries that have the (folded) login in a login attribute
``("domain", DOMAIN)``       the entries that have the (folded) domain in a domain attribute
``("entry", DN)``            the entry with that DN
``("groups", DN, UID...)``   the groups that name the entry directly: by DN, or by one of its logins
``("addressed", ADDRESS)``   the groups that name the (folded, unquoted) address as a member
``("sid", SID)``             the entry with that (binary) objectSid, on Active Directory
``("chain", DN, GROUP)``     the entry itself, if it is in the group at any depth, on Active Directory
``("dynamic",)``             every group that is defined by a memberURL
``("carrying",)``            every group that carries an access attribute for its members
``("match", DN, URL)``       the entry itself, if the URL's base, scope and filter cover it
``("url", URL, KEY)``        the entries that the URL yields with a value that equals KEY
===========================  =====================================================================

An **outcome** is one of three types and nothing else: `Found` (at least one entry), `Absent` (the
directory answered: there is none), `Missed` (unavailable: nothing is known). That there is no
outcome yet is said by None.

An answer says until when it can be relied on. `turns_at`, in clock seconds, is FOREVER where that is longer
than the `Facts` live that it comes from; else the instant at which it becomes stale or, if it `is_stale`
(past its ttl while the directory is away), too old to be used at all.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from ldappolicy.entry import Entry
from ldappolicy.memories import BOUNDS, Memory

Lookup = tuple[str, ...]

FOREVER = float("inf")


@dataclass(frozen=True, slots=True)
class Found:
    """The directory has it: `entries` is never empty. `at` is when it was asked, in clock seconds."""

    entries: tuple[Entry, ...]
    at: float = 0.0
    turns_at: float = field(default=FOREVER, compare=False)
    is_stale: bool = field(default=False, compare=False)


@dataclass(frozen=True, slots=True)
class Absent:
    """The directory answered that it has no such thing."""

    at: float = 0.0
    entries: tuple[Entry, ...] = ()
    turns_at: float = field(default=FOREVER, compare=False)
    is_stale: bool = field(default=False, compare=False)


@dataclass(frozen=True, slots=True)
class Missed:
    """Unavailable: the directory did not answer, or answered what cannot be trusted."""

    reason: str


Outcome = Found | Absent | Missed


@dataclass(frozen=True, slots=True)
class Renamed:
    """An entry that others may still name by its old DN: `key` is the normal form of the new one."""

    old: str
    new: str
    key: str


def _conclusions() -> Memory[object, object]:
    return Memory(BOUNDS["conclusions"])


@dataclass(frozen=True, slots=True)
class Facts:
    """What an evaluation asks: `get` gives the outcome of a lookup, or None while nobody has looked it up.

    `derived` holds what evaluations concluded from outcomes of `get` alone (the groups around an entry,
    say); it lives and ends with them. `has_chain`: whether `chain` can be asked; `tells_apart`: whether the
    groups around several entries can be asked for in one search. `renamed` are entries that were renamed a
    moment ago, by the normal form of their old DN. `now` is seconds since 1970: what depends on it is told to
    `holds_until`, by the instant from when on it is otherwise, and the facts end by then.
    """

    get: Callable[[Lookup], Outcome | None]
    derived: Memory[object, object] = field(default_factory=_conclusions)
    has_chain: bool = False
    tells_apart: bool = False
    renamed: Mapping[str, Renamed] = field(default_factory=dict)
    now: Callable[[], float] = time.time
    holds_until: Callable[[float], None] = lambda instant: None

    def asking(self, get: Callable[[Lookup], Outcome | None]) -> "Facts":
        """The same where others are asked; nothing has been concluded from them yet."""
        return replace(self, get=get, derived=_conclusions())


def mail(address: str) -> Lookup:
    """Who has this address; `address` is case-folded, its local part unquoted."""
    return ("mail", address)


def login(name: str, spelled: str = "") -> Lookup:
    """Who logs in under this (folded) name; `spelled` as the client wrote it, for servers that fold less."""
    lower = spelled.lower()
    return ("login", name) if lower in ("", name) else ("login", name, lower)


def domain(name: str) -> Lookup:
    """Which entry stands for this (folded) domain."""
    return ("domain", name)


def entry(dn: str) -> Lookup:
    """The entry with this DN."""
    return ("entry", dn)


def groups(dn: str, logins: tuple[str, ...]) -> Lookup:
    """The groups that name an entry directly, by DN or (memberUid) by a login."""
    return ("groups", dn, *logins)


def addressed(address: str) -> Lookup:
    """The groups that name a (folded, unquoted) address as a member."""
    return ("addressed", address)


def sid(value: str) -> Lookup:
    """The entry with this objectSid, its octets as entries have them."""
    return ("sid", value)


def chain(dn: str, group: str) -> Lookup:
    """Whether an entry is a member of a group, itself or through groups."""
    return ("chain", dn, group)


def dynamic() -> Lookup:
    """All groups with a memberURL."""
    return ("dynamic",)


def carrying() -> Lookup:
    """All groups with an access attribute for their members: where there are none, nobody's groups matter."""
    return ("carrying",)


def match(dn: str, url: str) -> Lookup:
    """Whether a memberURL covers the entry."""
    return ("match", dn, url)


def url(url_text: str, key: str) -> Lookup:
    """Whether a smtpdAccessURL yields the key."""
    return ("url", url_text, key)
