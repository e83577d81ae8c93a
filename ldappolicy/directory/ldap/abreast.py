"""Whether a server has what was seen at another: decisions must not go back in time with a return to it.

slapd says how far it has come (contextCSN: the latest change by the server where it was made; OpenLDAP
Administrator's Guide, "LDAP Sync Replication"). Of other servers, or where that may not be read, sentinel
entries are compared: some that were found, and that changed, lately.

BUGS: sentinels tell of a replica that lags as a whole, not of one change among many.
"""

from collections.abc import Iterable
from dataclasses import replace

from ldappolicy.directory import Scope, Search
from ldappolicy.directory.ldap.connection import Connection
from ldappolicy.directory.ldap.streams.covered import naming_context
from ldappolicy.entry import Entry, key_of_dn
from ldappolicy.errors import Unavailable
from ldappolicy.ldap_filter import Present

MAX_SENTINELS = 8
"""Entries that are compared; the ones before are forgotten."""

_ANY = Present("objectClass")
_COMPUTED = frozenset(("memberof", "modifytimestamp"))
"""What a server makes of other entries, or of its own clock."""


class Sentinels:
    """The entries that were seen last, by their names."""

    def __init__(self) -> None:
        self._seen: dict[str, Search] = {}

    def note(self, dn: str, attributes: tuple[str, ...]) -> None:
        """One was found, or has changed, with these attributes."""
        key = key_of_dn(dn)
        self._seen.pop(key, None)
        self._seen[key] = Search(dn, Scope.BASE, _ANY, attributes)
        if len(self._seen) > MAX_SENTINELS:
            del self._seen[next(iter(self._seen))]

    def searches(self) -> list[Search]:
        """What reads them."""
        return [replace(search, attributes=_plain(search.attributes)) for search in self._seen.values()]


async def is_abreast(server: Connection, used: Connection, base: str, sentinels: Iterable[Search]) -> bool:
    """Whether a server has come as far as the one that is used, below a base; raises Unavailable.

    The one that is used is read first: what it gets meanwhile is not asked of the other.
    """
    seen = await _latest(used, base)
    has = await _latest(server, base) if seen else {}
    if has:
        return all(has.get(maker, "") >= latest for maker, latest in seen.items())
    for search in sentinels:
        try:
            expected = await used.search(search)
        except Unavailable:
            if used.ended:
                raise
            continue  # it cannot be read there either, so that it says nothing
        if _content(expected) != _content(await server.search(search)):
            return False
    return True


async def _latest(connection: Connection, base: str) -> dict[str, str]:
    """The latest change by the number of the server that it was made at; empty where nothing says so.

    A value is TIME#COUNT#SERVER#MODIFICATION, each of a fixed width: they compare as texts.
    """
    context = await naming_context(connection, base)
    if not context:
        return {}
    found = await connection.search(Search(context, Scope.BASE, _ANY, ("contextCSN",)))
    values = [value for entry in found for value in entry.values("contextCSN")]
    return {parts[2]: value for value in values if len(parts := value.split("#")) == 4}


def _plain(attributes: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name for name in attributes if name.lower() not in _COMPUTED) or ("1.1",)


def _content(entries: Iterable[Entry]) -> list[dict[str, frozenset[str]]]:
    return [{name.lower(): frozenset(values) for name, values in entry.items()} for entry in entries]
