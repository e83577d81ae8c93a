"""Which servers refused which secret of late, so that nobody locks the account by asking again.

A secret is a password or the keys of a keytab, with the name that it is for. One that a server refused is
not tried there again, and not anywhere once three have refused it, until it is another one or `REST` has
passed. The memory may be shared by processes (`descriptor`): all workers together have these attempts.

An attempt has its `turn`: while one is under way at a server, others wait for its outcome; and no more are
under way at other servers than there are attempts left. Turns are record locks (fcntl(2)), which end with the
process that holds them. Secrets are held as digests under a key that is made at each start.

BUGS: a second bind in the second after a success does not wait for its turn: were the password changed within
that second, several attempts could be refused.
"""

import asyncio
import fcntl
import hashlib
import logging
import mmap
import os
import re
import struct
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

from ldappolicy.directory.ldap.codec import Result
from ldappolicy.errors import Unavailable

INVALID_CREDENTIALS = 49

ATTEMPTS = 3
"""How many servers may refuse a secret: account policies lock after as few as five."""
REST = 900.0
"""Seconds after which a refused secret may be tried again: the account may have been unlocked."""
MAX_REFUSALS = 64
"""Refusals that are remembered; the oldest gives way."""

FREE_S = 1.0
"""Seconds after a success in which binds with the same secret do not wait for one another."""
_LOOK_S = 0.005
"""How often it is looked whose turn it is, in seconds."""

# https://learn.microsoft.com/en-us/windows/win32/debug/system-error-codes, in hexadecimal: Active Directory
# puts them into the diagnostic message.
_SUB_CODES = {
    "525": "there is no such account",
    "52e": "the password is wrong",
    "530": "the account may not log on at this time",
    "531": "the account may not log on from this host",
    "532": "the password has expired",
    "533": "the account is disabled",
    "701": "the account has expired",
    "773": "the password has to be changed before the first use",
    "775": "the account is locked",
}
_SUB_CODE = re.compile(r"\bdata ([0-9a-f]{3})\b", re.IGNORECASE)

_DIGEST = 16
_SLOT = struct.Struct(f"={_DIGEST}s{_DIGEST}sd")  # secret, server, when
_NOBODY = bytes(_DIGEST)
_WRITING = 0  # the octet whose lock is held while a refusal is written
_SIZE = _DIGEST + MAX_REFUSALS * _SLOT.size

log = logging.getLogger(__name__)


class RefusedSecret(Unavailable):
    """The server, or the KDC, does not take the password or the key."""


class Withheld(Unavailable):
    """The secret was refused of late: it was not sent."""


class Refusals:
    """The memory of refusals; without a `descriptor` (of a memory file, memfd_create(2)) for one process."""

    def __init__(self, descriptor: int | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._descriptor = descriptor
        self._clock = clock
        self._memory: mmap.mmap | bytearray = bytearray(_SIZE)
        if descriptor is not None:
            if not os.fstat(descriptor).st_size:
                os.ftruncate(descriptor, _SIZE)
                os.pwrite(descriptor, os.urandom(_DIGEST), 0)
            self._memory = mmap.mmap(descriptor, _SIZE)
        else:
            self._memory[:_DIGEST] = os.urandom(_DIGEST)
        self._held: set[int] = set()
        self._accepted: dict[bytes, float] = {}

    def check(self, server: str, secret: bytes) -> None:
        """Raises Withheld for a secret that is not to be sent to this server."""
        if reason := self._reason(server, secret):
            raise Withheld(f"{server}: {reason}")

    @asynccontextmanager
    async def turn(self, server: str, secret: bytes) -> AsyncIterator[None]:
        """For one attempt inside, whose RefusedSecret is remembered; raises Withheld."""
        held = await self._turn(server, secret)
        try:
            yield
        except RefusedSecret as error:
            self._remember(server, secret)
            log.error(
                "%s; not tried again there before it has changed, or %g min have passed", error, REST / 60
            )
            raise
        finally:
            for place in held:
                self._unlock(place)
        if len(self._accepted) >= MAX_REFUSALS:
            self._accepted.clear()
        self._accepted[self._digest(server.encode(), secret)] = self._clock()

    async def _turn(self, server: str, secret: bytes) -> list[int]:
        """The places in the file that are locked for this attempt."""
        while True:
            self.check(server, secret)
            accepted = self._accepted.get(self._digest(server.encode(), secret))
            if accepted is not None and self._clock() - accepted < FREE_S:
                return []
            if held := self._grabbed(server, secret):
                return held
            await asyncio.sleep(_LOOK_S)

    def _grabbed(self, server: str, secret: bytes) -> list[int]:
        """The server's place and one of the attempts that are left; empty while others have them."""
        here = self._place(b"server", server.encode())
        if not self._lock(here):
            return []
        if not self._reason(server, secret):  # it may have been refused until just now
            for number in range(ATTEMPTS - self._count(secret)):
                attempt = self._place(b"attempt", bytes([number]), secret)
                if self._lock(attempt):
                    return [here, attempt]
        self._unlock(here)
        return []

    # ------------------------------------------------------------ what is remembered

    def _reason(self, server: str, secret: bytes) -> str:
        """Why a secret is not to be sent there; empty: it may be."""
        known = dict(self._refused(secret))
        here = self._digest(server.encode())
        if here not in known and len(known) < ATTEMPTS:
            return ""
        who = "it" if here in known else f"{len(known)} servers"
        since = known[here] if here in known else min(known.values())
        left = max(1, round((since + REST - self._clock()) / 60))
        return f"{who} refused the password or key, tried again when that has changed, or in {left} min"

    def _count(self, secret: bytes) -> int:
        return len(dict(self._refused(secret)))

    def _refused(self, secret: bytes) -> Iterator[tuple[bytes, float]]:
        """Digests of the servers that refused it, and when."""
        wanted, now = self._digest(secret), self._clock()
        for known, server, when in self._slots():
            if known == wanted and now - when < REST:
                yield server, when

    def _slots(self) -> Iterator[tuple[bytes, bytes, float]]:
        return _SLOT.iter_unpack(self._memory[_DIGEST:])

    def _remember(self, server: str, secret: bytes) -> None:
        if self._descriptor is not None:
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX, 1, _WRITING)
        slots = [float("-inf") if known == _NOBODY else when for known, _, when in self._slots()]
        oldest = slots.index(min(slots))
        found = self._digest(secret), self._digest(server.encode()), self._clock()
        _SLOT.pack_into(self._memory, _DIGEST + oldest * _SLOT.size, *found)
        if self._descriptor is not None:
            fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1, _WRITING)

    # ------------------------------------------------------------ whose turn it is

    def _lock(self, place: int) -> bool:
        """A record lock is the process's: within it, the set says who has it."""
        if place in self._held:
            return False
        if self._descriptor is not None:
            try:
                fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
            except OSError:
                return False
        self._held.add(place)
        return True

    def _unlock(self, place: int) -> None:
        self._held.discard(place)
        if self._descriptor is not None:
            fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1, place)

    def _place(self, *parts: bytes) -> int:
        return _WRITING + 1 + int.from_bytes(self._digest(*parts)[:7], "big")

    def _digest(self, *parts: bytes) -> bytes:
        key = bytes(self._memory[:_DIGEST])
        return hashlib.blake2b(b"\0".join(parts), digest_size=_DIGEST, key=key).digest()


def in_words(result: Result) -> str:
    """The result of a bind; where Active Directory gives its reason as a number, the reason first."""
    found = _SUB_CODE.search(result.diagnostic) if result.code == INVALID_CREDENTIALS else None
    reason = _SUB_CODES.get(found[1].lower()) if found else None
    return f"{reason}: {result}" if reason else str(result)
