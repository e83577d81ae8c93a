"""A directory as it would be with changes that nobody has made yet, for who looks before writing.

BUGS: what a server computes (memberOf, effective rights) is as it is without the changes, and absent of
entries that are changed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ldappolicy.directory import Directory, Features, Search
from ldappolicy.directory.memory import Entries
from ldappolicy.entry import Entry, ancestors, normal_dn


class Overlay:
    """A `Directory` over another one; `changed` are entries by normal DN, None for one that is gone.

    `added` are those of them that the other one has not got.
    """

    def __init__(
        self, directory: Directory, changed: Mapping[str, Entry | None], added: frozenset[str] = frozenset()
    ) -> None:
        self._directory = directory
        self._changed = changed
        self._added = added
        self._now = Entries(entry for entry in changed.values() if entry is not None)

    @property
    def features(self) -> Features:
        """Those of the directory below."""
        return self._directory.features

    async def search(self, search: Search) -> Sequence[Entry]:
        """See `Directory.search`."""
        if not self._changed or not search.base or search.rights_of:
            return await self._directory.search(search)
        base = normal_dn(search.base)
        found: list[Entry] = []
        if self._added.isdisjoint((base, *ancestors(base))):
            limit = search.limit + len(self._changed) if search.limit else 0
            there = await self._directory.search(replace(search, limit=limit))
            found += [entry for entry in there if not self._is_changed(entry.key)]
        found += self._now.search(base, search.scope, search.filter) or ()
        return found[: search.limit] if search.limit else found

    def _is_changed(self, key: str) -> bool:
        changed = self._changed
        return key in changed or any(changed.get(above, self) is None for above in ancestors(key))

    def set_proofs(self, proofs: Sequence[Search]) -> None:
        """The server is believed as it is: a directory that is being filled cannot show much."""

    def set_witnesses(self, dns: Sequence[str]) -> None:
        """The same."""

    async def close(self) -> None:
        """The directory below is its owner's to close."""
