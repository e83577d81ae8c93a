"""The embedded directory: the entries of an LDIF file, searched in memory.

It owns how a file becomes entries. Which of them a base, a scope and a filter cover is `directory.memory`'s,
what a filter matches without a schema `directory.matching`'s. Loading and watching the file is left to
whoever made the directory.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from ldappolicy.directory import Features, Search, Terms
from ldappolicy.directory.memory import Entries
from ldappolicy.entry import Entry, normal_dn
from ldappolicy.errors import InputError, Unavailable
from ldappolicy.ldif import Record, Reference, read_records, refuse_utf_16

END = b"# end"
"""The last line of a file that says that nothing is missing."""

MOST_REFERENCES = 100
"""Search references of a file that are told of."""


@dataclass(frozen=True, slots=True)
class Extent:
    """A file's content in numbers, for who has not read it: its entries, and those of them with a rule."""

    is_marked: bool
    entries: int
    rules: int


class LdifDirectory:
    """The entries of one file; nothing in it changes once it is made. `extent` is for who measured it."""

    features = Features()
    extent: Extent | None = None

    def __init__(
        self,
        entries: Iterable[Entry],
        *,
        references: Sequence[Reference] = (),
        is_marked: bool = False,
        file: tuple[int, int] | None = None,
    ) -> None:
        self._entries = Entries(entries)
        self.references = references
        """Of the search that made the file, the first of those that it did not follow."""
        self.is_marked = is_marked
        """Whether the last line of the file says that it is the last one."""
        self.file = file
        """Device and inode of the file: those of another one, where it was replaced by a rename."""

    @classmethod
    def parse(cls, data: bytes, source: str, file: tuple[int, int] | None = None) -> "LdifDirectory":
        """Read a file's content; raises InputError with the line for what is not an entry, or is twice.

        Refused too is a file whose last line has no end: the rest of it may not have been written yet.
        """
        refuse_utf_16(data, source)
        if data and not data.endswith(b"\n"):
            line = data.count(b"\n") + 1
            raise InputError(f"{source}:{line}: no end of the last line, expected the whole file")
        references: list[Reference] = []

        def refer(reference: Reference) -> None:
            if len(references) < MOST_REFERENCES:
                references.append(reference)

        entries = _unique_entries(read_records(data, source, refer), source)
        is_marked = data.rstrip(b"\r\n").rpartition(b"\n")[2] == END
        return cls(entries, references=references, is_marked=is_marked, file=file)

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries)

    def __contains__(self, key: str) -> bool:
        return self.get(key) is not None

    def get(self, key: str) -> Entry | None:
        """The entry with a normal DN."""
        return self._entries.get(key)

    @property
    def entry_count(self) -> int:
        """How many entries there are."""
        return len(self._entries)

    def prepare(self, attributes: Iterable[str]) -> None:
        """Make indexes before they are needed; with a million entries, each takes about a second."""
        for name in attributes:
            for _ in self._entries.index(name.lower()):
                pass

    async def search(self, search: Search) -> Sequence[Entry]:
        """All entries that match, whole: they are immutable and shared. See `directory.Directory`."""
        return self._find(search)

    def find(self, search: Search) -> Sequence[Entry] | None:
        """The same at once; None where `search` raises."""
        try:
            return self._find(search)
        except Unavailable:
            return None

    def having(self, base: str, terms: Terms, attributes: frozenset[str]) -> Sequence[Entry] | None:
        """See `plan.Held`; entries come whole."""
        return self._entries.having(base, terms)

    def resembling(self, base: str, terms: Terms, attributes: frozenset[str]) -> Sequence[Entry]:
        """See `plan.Held`; entries come whole."""
        return self._entries.resembling(base, terms)

    def _find(self, search: Search) -> Sequence[Entry]:
        try:
            base = normal_dn(search.base)
        except InputError as error:
            raise Unavailable(f"the search base is {error}") from error
        found = self._entries.search(base, search.scope, search.filter)
        if found is None:
            raise Unavailable(f"no such object: {search.base!r}, expected an entry at or under it")
        return found[: search.limit] if search.limit else found

    def holds(self, base: str) -> bool:
        """Whether anything is at or under a DN."""
        return self._entries.holds(normal_dn(base))

    def set_proofs(self, proofs: Sequence[Search]) -> None:
        """A file is what it is: nothing to prove."""

    def set_witnesses(self, dns: Sequence[str]) -> None:
        """The same."""

    async def close(self) -> None:
        """Nothing is open."""


def _unique_entries(records: Iterable[Record], source: str) -> Iterator[Entry]:
    seen: set[str] = set()
    classes: dict[tuple[str, ...], tuple[str, ...]] = {}
    for record in records:
        if record.changetype not in (None, "add"):
            what = f"changetype {record.changetype!r}, expected entries or changetype 'add'"
            raise InputError(f"{source}:{record.line}: {what}")
        if (values := record.attributes.get("objectClass")) is not None:
            record.attributes["objectClass"] = classes.setdefault(values, values)  # a few serve all entries
        try:
            entry = Entry(record.dn, record.attributes)
        except InputError as error:
            raise InputError(f"{source}:{record.line}: {error}") from None
        if entry.key in seen:
            raise InputError(f"{source}:{record.line}: the entry {record.dn!r} again, expected it once")
        seen.add(entry.key)
        yield entry
