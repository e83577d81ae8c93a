"""What a connection has to show before a server is believed that anything is absent.

The proofs are searches that have to find something: an empty replica, or an account that lost its rights,
must not read as "no such entry". The witnesses are DNs that were found lately: a replica that has the
policies and not yet the people shows fewer than half of them. One that was moved, or whose container was
renamed, counts as shown when its RDN is found below the base of the first proof. A domain controller
moreover has to say that it is synchronized (isSynchronized, MS-ADTS section 3.1.1.3.2).

What the server says of itself is read first: one of another family than the profile is not believed, since
lookups would ask for attributes that it does not have.
"""

import asyncio
import re
from collections.abc import Collection, Sequence

from ldappolicy.directory import Scope, Search
from ldappolicy.directory.ldap import family
from ldappolicy.directory.ldap.connection import Connection
from ldappolicy.entry import normal_dn
from ldappolicy.errors import Unavailable
from ldappolicy.ldap_filter import Equality, Or, Present, to_text

FEWEST_WITNESSES = 3
"""Of fewer, one person who left would be most of them."""
MOST_WITNESSES = 8

_ANY = Present("objectClass")
_NO_ATTRIBUTES = ("1.1",)
_SYNCHRONIZED = Search("", Scope.BASE, _ANY, ("isSynchronized",))


class Unsuited(Unavailable):
    """A server of another family than the profile's."""


async def prove(
    connection: Connection, proofs: Sequence[Search], witnesses: Sequence[str], suited: Collection[str] = ()
) -> int:
    """How many searches it took; raises Unavailable when it does not show what it has to.

    Raises Unsuited for a server that is not one of the `suited` (none: it may be any). Who asks for no proof
    learns nothing: the features of the connection are not read then.
    """
    if not proofs and not suited:
        return 0
    features = await connection.read_features()
    if suited and features.profile not in suited:
        what = family.NAMES[features.profile]
        raise Unsuited(f"server {connection.uri} is {what}, which the profile is not for")
    if not proofs:
        return 1
    count = 1
    if features.is_active_directory:
        count += 1
        await _check_synchronized(connection)
    witnesses = witnesses if len(witnesses) >= FEWEST_WITNESSES else ()
    asked = [*proofs, *(Search(dn, Scope.BASE, _ANY, _NO_ATTRIBUTES) for dn in witnesses)]
    found = await asyncio.gather(*map(connection.search, asked))
    for proof, entries in zip(proofs, found, strict=False):
        if not entries:
            what = f"{to_text(proof.filter)} at {proof.base!r}"
            raise Unavailable(f"server {connection.uri} does not show {what}")
    shown = found[len(proofs) :]
    lost = [dn for dn, entries in zip(witnesses, shown, strict=True) if not entries]
    if 2 * len(lost) <= len(witnesses):
        return count + len(asked)
    await _find_moved(connection, proofs[0].base, lost, len(witnesses))
    return count + len(asked) + 1


async def _check_synchronized(connection: Connection) -> None:
    root = await connection.search(_SYNCHRONIZED)
    said = [value for entry in root for value in entry.values("isSynchronized")]
    if said != ["TRUE"]:
        expected = f"expected isSynchronized TRUE, got {said}"
        raise Unavailable(f"server {connection.uri} is not synchronized: {expected}")


async def _find_moved(connection: Connection, base: str, lost: Sequence[str], among: int) -> None:
    rdns = {_first_rdn(dn) for dn in lost}
    parts = tuple(Equality(name, value) for name, value in sorted(rdns))
    found = await connection.search(Search(base, Scope.SUB, Or(parts), _NO_ATTRIBUTES))
    here = rdns & {_first_rdn(entry.dn) for entry in found}
    still_lost = [dn for dn in lost if _first_rdn(dn) not in here]
    if 2 * len(still_lost) > among:
        count = f"{len(still_lost)} of {among} entries that were found lately"
        raise Unavailable(f"server {connection.uri} does not show {count}, {still_lost[0]!r} and others")


def _first_rdn(dn: str) -> tuple[str, str]:
    """Type and value, normalised; of an RDN with several pairs the first."""
    pair = re.split("[,+]", normal_dn(dn), maxsplit=1)[0]
    name, _, value = pair.partition("=")
    return name, re.sub(r"\\([0-9a-f]{2})", lambda escape: chr(int(escape[1], 16)), value)
