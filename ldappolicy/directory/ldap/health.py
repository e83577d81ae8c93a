"""What is remembered of a server: whether it can be asked, and whether it can be relied on.

A failure opens a pause, from 0.2 s to 30 s (5 s where nobody listens), twice as long each time, with
jitter. After three failures in a row the circuit is open: the server is left alone until its pause is over.

One that fails again soon after lookups came back to it is distrusted, from 5 s to 5 minutes, twice as long
each time: for as long lookups stay with another server that answers. Who has no other is not kept from it.
"""

import logging
from collections.abc import Callable

from ldappolicy.directory.ldap.settings import Endpoint

SHORTEST_PAUSE = 0.2
LONGEST_PAUSE = 30.0
LONGEST_ABSENCE = 5.0
"""The longest pause of a server that no connection could be made to, which costs nobody much to try."""
CIRCUIT_FAILURES = 3

STEADY = 30.0
"""Seconds that a server has to do well after lookups came back, before the next failure is a new story."""
SHORTEST_DISTRUST = 5.0
LONGEST_DISTRUST = 300.0

log = logging.getLogger(__name__)


class Server:
    """One server and what is remembered of its health; `jitter` yields numbers from 0 to 1."""

    def __init__(self, endpoint: Endpoint, clock: Callable[[], float], jitter: Callable[[], float]) -> None:
        self.endpoint = endpoint
        self.failures = 0
        self.reason = ""
        self.is_up: bool | None = None  # None: it was never tried
        self._clock = clock
        self._jitter = jitter
        self._tried_at = float("-inf")
        self._pause_ends = float("-inf")
        self._distrust_ends = float("-inf")
        self._relapses = 0
        self._has_failed = False
        self._back_since: float | None = None

    def failed(self, reason: str, longest: float = LONGEST_PAUSE, level: int = logging.WARNING) -> None:
        """It could not be asked; the pause is between a half and the whole of what doubles."""
        self._pause_ends = self._clock() + self._doubled(SHORTEST_PAUSE, self.failures, longest)
        self.failures += 1
        self.reason = reason
        self._tried(is_up=False)
        self._has_failed = True
        self._remember_relapse()
        log.log(level, "directory server failed, %d in a row: %s", self.failures, reason)

    def answered(self) -> None:
        """It is well."""
        self.failures = 0
        self.reason = ""
        self._tried(is_up=True)

    def withheld(self, reason: str) -> None:
        """Nothing was sent to it, since it refused the same password: that costs nobody much to find out."""
        self.failed(reason, LONGEST_ABSENCE, logging.DEBUG)

    def missed(self, reason: str) -> None:
        """It could not be asked when nobody needed it: that is shown, and nobody is kept from trying it."""
        if self.is_up is not False:
            log.warning("directory server that is not in use failed: %s", reason)
        self.reason = reason
        self._tried(is_up=False)

    def chosen(self) -> None:
        """From now on lookups are asked of it."""
        self._tried(is_up=True)
        self._back_since = self._clock() if self._has_failed else None

    @property
    def untried(self) -> float:
        """Seconds since it was last tried."""
        return self._clock() - self._tried_at

    @property
    def is_rested(self) -> bool:
        """Whether no pause is on."""
        return self._clock() >= self._pause_ends

    @property
    def is_given_up(self) -> bool:
        """Whether it has failed so often that it is left alone during its pause."""
        return self.failures >= CIRCUIT_FAILURES

    @property
    def is_distrusted(self) -> bool:
        """Whether another server that answers is to be preferred."""
        return self._clock() < self._distrust_ends

    @property
    def waits(self) -> float:
        """How long until it may be returned to, in seconds."""
        return max(0.0, self._pause_ends - self._clock(), self._distrust_ends - self._clock())

    def _tried(self, *, is_up: bool) -> None:
        self.is_up = is_up
        self._tried_at = self._clock()

    def _remember_relapse(self) -> None:
        if self._back_since is None:
            return
        if self._clock() - self._back_since < STEADY:
            distrust = self._doubled(SHORTEST_DISTRUST, self._relapses, LONGEST_DISTRUST)
            self._distrust_ends = self._clock() + distrust
            self._relapses += 1
        else:
            self._relapses = 0
        self._back_since = None

    def _doubled(self, shortest: float, times: int, longest: float) -> float:
        return min(longest, shortest * (1 << min(times, 20))) * (1 + self._jitter()) / 2
