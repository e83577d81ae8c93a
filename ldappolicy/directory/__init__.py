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

MATCHED_VALUES = "1.2.826.0.1.3344810.2.3"
"""The control of RFC 3876."""


EFFECTIVE_RIGHTS = "1.3.6.1.4.1.42.2.27.9.5.2"
"""The control by which 389 Directory Server tells them (draft-ietf-ldapext-acl-model-08)."""


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
    values: tuple[Filter, ...] = ()
    """Of each entry only the values that match one of these, where the directory can (RFC 3876)."""
    limit: int = 0
    """At most so many entries, whichever they are; 0: all."""
    rights_of: str = ""
    """The DN whose rights on each entry are told in attributeLevelRights, where the directory does that."""


Terms = Sequence[tuple[str, tuple[str, ...]]]
"""Attributes, their names in lower case, with values, of which an entry has one."""


@dataclass(frozen=True, slots=True)
class Features:
    """What a directory says that it can do, in its root DSE (RFC 4512 section 5.1); empty: nothing known."""

    controls: frozenset[str] = frozenset()
    """supportedControl: object identifiers."""
    capabilities: frozenset[str] = frozenset()
    """supportedCapabilities (Active Directory) and supportedFeatures: object identifiers."""
    profile: str = ""
    """The profile of the configuration that suits it; empty where it does not say what it is."""
    exact: frozenset[tuple[str, str]] = frozenset()
    """Attributes (in lower case) that are compared with case, and the rule of their syntax that does not."""

    @property
    def has_matched_values(self) -> bool:
        """RFC 3876: `Search.values` is obeyed."""
        return MATCHED_VALUES in self.controls

    @property
    def tells_rights(self) -> bool:
        """Whether `Search.rights_of` is obeyed."""
        return EFFECTIVE_RIGHTS in self.controls

    @property
    def is_active_directory(self) -> bool:
        """LDAP_CAP_ACTIVE_DIRECTORY_OID, MS-ADTS section 3.1.1.3.4.3.1."""
        return "1.2.840.113556.1.4.800" in self.capabilities


class Directory(Protocol):
    """What answers searches."""

    @property
    def features(self) -> Features:
        """What the server that is asked now says of itself."""
        ...

    async def search(self, search: Search) -> Sequence[Entry]:
        """All entries that match, in the directory's order.

        noSuchObject for a base is an empty answer only for `Scope.BASE`; for the others, as for
        referrals, limits, refusals and silence, `Unavailable` is raised.
        """
        ...

    def set_proofs(self, proofs: Sequence[Search]) -> None:
        """Searches that have to find something before a server is believed that anything is absent."""
        ...

    def set_witnesses(self, dns: Sequence[str]) -> None:
        """DNs that were found lately, of which a server has to show at least half: else it is half loaded."""
        ...

    async def close(self) -> None:
        """Let go of connections; a later search may open them again."""
        ...
