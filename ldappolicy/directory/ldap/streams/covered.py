"""What a watch covers, and what is told of it: entries as events, whatever a server sends besides.

One search watches all the bases, from the nearest entry that they have in common: streams to one server
are not to be many (389-ds), and an entry that moves from one base to another must not be deleted behind
its arrival. What lies outside of the bases is told as deleted, which means nothing to who never knew it.

When a container is renamed, servers tell of it alone and not of what is below: the first change that is
seen of an entry with subordinates, and each one that changes its name, is `Everything`.
"""

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from ldappolicy.directory import Scope, Search
from ldappolicy.directory.changes import Changed, Deleted, Event, Everything, Members, Watched, entry_uuid
from ldappolicy.directory.ldap.codec import EntryBody
from ldappolicy.directory.ldap.connection import Connection
from ldappolicy.entry import Entry, is_below, normal_dn
from ldappolicy.errors import InputError, Unavailable
from ldappolicy.ldap_filter import Present

ANY = Present("objectClass")
IDENTITIES = ("entryUUID", "objectGUID", "nsUniqueId")

MAX_GONE = 10_000
"""Deleted entries that are remembered: what is told of them afterwards is late."""

SUBORDINATES = ("objectClass", "hasSubordinates", "numSubordinates")
"""Attributes that say whether an entry is a container: X.501, and 389-ds."""

# What is taken for a container where a server does not say whether there is anything below.
_CONTAINERS = frozenset(
    (
        "organizationalunit",
        "organization",
        "organizationalrole",
        "dcobject",
        "domain",
        "domaindns",
        "country",
        "locality",
        "container",
        "nscontainer",
        "builtindomain",
    )
)


class Covered:
    """The entries and attributes of one `Watched`."""

    def __init__(self, watched: Watched) -> None:
        keys = {normal_dn(base): base for base in watched.bases}
        outermost = [key for key in keys if not any(key != other and is_below(key, other) for other in keys)]
        self.bases = tuple(keys[key] for key in outermost)
        """Those that are not below another."""
        self.base = self.bases[0] if len(outermost) == 1 else _common(outermost)
        """What they have in common; empty when that is nothing."""
        self._bases = tuple(outermost)
        self.attributes = watched.attributes
        self.members = frozenset(name.lower() for name in watched.members)
        self.identity = next((name for name in IDENTITIES if name in watched.attributes), "")
        self._names = frozenset(name.lower() for name in watched.attributes)
        self._containers: dict[str, str] = {}
        self._gone: OrderedDict[str, None] = OrderedDict()

    def search(self, *attributes: str) -> Search:
        """All that is covered, and what lies between; these attributes in addition."""
        return Search(self.base, Scope.SUB, ANY, tuple(dict.fromkeys((*self.attributes, *attributes))))

    def covers(self, key: str) -> bool:
        """Whether the entry with this normal DN is meant."""
        return any(is_below(key, base) for base in self._bases)

    def is_top(self, dn: str) -> bool:
        """Whether this is where the search begins."""
        try:
            return normal_dn(dn) == normal_dn(self.base)
        except InputError as error:
            raise Unavailable(str(error)) from error

    def trimmed(self, entry: Entry) -> Entry:
        """With the attributes that are wanted, whatever came."""
        return Entry(entry.dn, {name: values for name, values in entry.items() if name in self._names})

    def identity_of(self, entry: Entry) -> str:
        """Its uuid, by the attribute that the watch asks for, or by what there is."""
        if self.identity:
            return entry_uuid(Entry(entry.dn, {self.identity: entry.values(self.identity)}))
        return entry_uuid(entry)

    def is_doubtful(self, event: Changed) -> bool:
        """Whether the entry has to be read again before it is told.

        389-ds tells what its plugins do to an entry that is deleted behind the deletion, and what was missed
        without operational attributes.
        """
        if event.members is not None:
            return False  # it was read again just now
        if self.identity and not event.entry.values(self.identity):
            return True
        return event.uuid in self._gone and not event.is_new

    def contradicts(self, event: Changed) -> bool:
        """Whether the stream knows entries by something else than the attribute that the watch asks for."""
        uuid = self.identity_of(event.entry) if self.identity else ""
        return bool(uuid) and uuid != event.uuid

    async def read(self, connection: Connection, event: Changed) -> Changed | Everything | None:
        """The same change with what the entry is now; None when it is gone, or another has its place."""
        asked = Search(event.entry.dn, Scope.BASE, ANY, (*self.attributes, *IDENTITIES))
        for entry in await connection.search(asked):
            shown = {entry_uuid(Entry("", {name: entry.values(name)})) for name in IDENTITIES} - {""}
            if event.uuid in shown or not (shown or event.uuid in self._gone):
                return replace(event, entry=self.trimmed(entry))
            if not shown:
                return Everything(f"whether it is the same entry cannot be seen: {entry.dn!r}")
        return None

    def changed(
        self, uuid: str, body: EntryBody, *, is_new: bool = False, members: Members | None = None
    ) -> Iterator[Event]:
        """What is told of an entry as it is now."""
        entry = self.trimmed(whole(body))
        if self.covers(entry.key):
            yield Changed(uuid, entry, is_new, members)
        else:
            yield Deleted(uuid)
        if is_container(body.attributes):
            # One that has entries below it when it comes was moved here with them.
            is_empty = is_new and not _has_subordinates(body.attributes)
            renamed = not is_empty and self._containers.get(uuid) != entry.key
            self._containers[uuid] = entry.key
            if renamed:
                yield Everything(f"a container may have got another name: {entry.dn!r}")

    def seen(self, uuid: str, body: EntryBody) -> None:
        """Remember an entry that nobody is told of."""
        if is_container(body.attributes):
            self._containers[uuid] = whole(body).key

    def deleted(self, uuid: str, dn: str = "") -> Deleted:
        """What is told of an entry that is gone."""
        self._containers.pop(uuid, None)
        self._gone[uuid] = None
        if len(self._gone) > MAX_GONE:
            self._gone.popitem(last=False)
        return Deleted(uuid, dn)


def whole(body: EntryBody) -> Entry:
    """With all that came; raises Unavailable for what has no DN."""
    try:
        return Entry(body.dn, body.attributes)
    except InputError as error:
        raise Unavailable(str(error)) from error


async def naming_context(connection: Connection, base: str) -> str:
    """The naming context of the server that holds the base; empty when none does."""
    asked = Search("", Scope.BASE, ANY, ("namingContexts",))
    contexts = [value for root in await connection.search(asked) for value in root.values("namingContexts")]
    return max((context for context in contexts if _is_over(context, normal_dn(base))), key=len, default="")


def _is_over(context: str, key: str) -> bool:
    try:
        return is_below(key, normal_dn(context))
    except InputError:
        return False


def is_container(attributes: Mapping[str, Sequence[str]]) -> bool:
    """Whether there is anything below, or may be."""
    known = {_plain(name): values for name, values in attributes.items()}
    said = [*known.get("hassubordinates", ()), *known.get("numsubordinates", ())]
    if said:
        return any(value.upper() not in ("FALSE", "0") for value in said)
    return any(value.lower() in _CONTAINERS for value in known.get("objectclass", ()))


def _has_subordinates(attributes: Mapping[str, Sequence[str]]) -> bool:
    said = (
        values
        for name, values in attributes.items()
        if _plain(name) in ("hassubordinates", "numsubordinates")
    )
    return any(value.upper() not in ("FALSE", "0") for values in said for value in values)


def _common(bases: Sequence[str]) -> str:
    """The nearest common ancestor; a normal DN has a comma only between RDNs."""
    paths = [base.split(",")[::-1] for base in bases]
    common = []
    for rdns in zip(*paths, strict=False):
        if len(set(rdns)) > 1:
            break
        common.append(rdns[0])
    return ",".join(common[::-1])


def _plain(description: str) -> str:
    return description.partition(";")[0].lower()
