"""The directory: one interface, and the searches that it takes.

A `Directory` answers `Search`es with entries, or raises `errors.Unavailable`; an empty answer means
that the directory said so. Its makers are `directory.ldap` (an LDAP server) and `directory.ldif`
(an LDIF file). What a lookup asks of them is in `directory.plan`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

from ldappolicy.entry import Entry
from ldappolicy.ldap_filter import Filter


class Scope(IntEnum):
    """RFC 4511 section 4.5.1.2, with its numbers."""

    BASE = 0
    ONE = 1
    SUB = 2


@dataclass(frozen=True, slots=True)
class Search:
    """One search: `base` is a DN, `attributes` the names to return (never empty)."""

    base: str
    scope: Scope
    filter: Filter
    attributes: tuple[str, ...]


class Directory(Protocol):
    """What answers searches."""

    async def search(self, search: Search) -> Sequence[Entry]:
        """All entries that match, in the directory's order.

        noSuchObject for a base is an empty answer only for `Scope.BASE`; for the others, as for
        referrals, limits, refusals and silence, `Unavailable` is raised.
        """
        ...

    def set_proofs(self, proofs: Sequence[Search]) -> None:
        """Searches that have to find something before a server is believed that anything is absent."""
        ...

    async def close(self) -> None:
        """Let go of connections; a later search may open them again."""
        ...
