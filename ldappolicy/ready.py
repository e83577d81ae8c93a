"""Ready-made replies: whole decisions, by the request attributes that they were made from.

A decision depends on the policies, the facts, and on those attributes of the request that its evaluation
looks at. Which ones these are is declared nowhere but seen (`Evaluator.looks`): two requests that agree in
all that evaluations have ever looked at are decided alike, as long as the facts are the same object. New
facts, or new policies, begin anew.

Requests are looked up by the bytes of those attributes: for one that is known nothing is made text of.
"""

from collections.abc import Set
from dataclasses import dataclass

from ldappolicy.counters import Tally
from ldappolicy.facts import Facts
from ldappolicy.memories import BOUNDS, Memory
from ldappolicy.protocol import Glance

ALWAYS = frozenset(("protocol_state", "sender", "recipient", "sasl_username", "policy_context"))
"""What the key begins with: what hardly any decision does without."""

LONGEST = 1536
"""A request of more bytes, those of its line in the log included, is not kept."""


@dataclass(frozen=True, slots=True)
class Ready:
    """A reply as it is sent; `tally` counts its requests, `line` is what the log says of each, or ""."""

    reply: bytes
    tally: Tally
    line: str = ""


class ReadyReplies:
    """The replies of one set of policies. `facts` is what `replies` hold for (see `begin`).

    `read`, `shown` and `context` are those of the `protocol.Glance` in use.
    """

    def __init__(self) -> None:
        self.facts: Facts | None = None
        self.replies: Memory[bytes, Ready] = Memory(BOUNDS["ready replies"])
        self._use(ALWAYS)

    def _use(self, fields: frozenset[str]) -> None:
        """From now on the key is made of these; what stands behind the login is in it anyway."""
        self._fields = fields
        glance = Glance(fields)
        self.read = glance.read
        self.shown = glance.shown
        self.context = glance.context

    def begin(self, facts: Facts) -> None:
        """Other facts: no reply is ready."""
        self.facts = facts
        self.replies.clear()

    def keep(self, key: bytes, ready: Ready, size: int, looks: Set[str]) -> None:
        """Keeps a reply for the facts at hand, unless evaluations have looked at more than the key has."""
        if not looks <= self._fields:
            self.replies.clear()
            self._use(self._fields | looks)
            return
        size += _size(ready.line)
        if size <= LONGEST:
            self.replies.keep(key, ready, size + len(ready.reply))


def _size(line: str) -> int:
    """Bytes in memory, at most: one letter beyond ASCII makes all of them wider."""
    return len(line) if line.isascii() else 4 * len(line)
