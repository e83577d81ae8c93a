"""The pages of [web] listen: /metrics, /healthz (the event loop runs), /readyz (decisions can be trusted).

They show what one process, or a supervisor for all of its workers, has to show. How that is written is of
`metrics`, how it is served of `web`.
"""

from collections.abc import Collection, Sequence
from typing import Protocol

from ldappolicy.config import Inet
from ldappolicy.metrics import CONTENT_TYPE, Snapshot, exposition, merged, readiness
from ldappolicy.web import Page, Web


class Shown(Protocol):
    """Whoever has something to show."""

    @property
    def is_draining(self) -> bool:
        """Whether no more requests are taken."""
        ...

    @property
    def max_stale(self) -> float:
        """How old data may be to be trusted, in seconds."""
        ...

    def snapshots(self) -> Sequence[Snapshot]:
        """Of every process that answers requests."""
        ...

    def ended(self) -> Sequence[Snapshot]:
        """What those counted that do so no more."""
        ...


def web_of(listen: Inet, shown: Shown, hosts: Collection[str] = ()) -> Web:
    """The pages, not started yet; see `Web` for `hosts`."""

    async def metrics() -> Page:
        return Page(200, exposition(merged([*shown.snapshots(), *shown.ended()])), CONTENT_TYPE)

    async def health() -> Page:
        return Page(200, "alive\n")

    async def ready() -> Page:
        if shown.is_draining:
            return Page(503, "stopping\n")
        is_ready, text = readiness(shown.snapshots(), shown.max_stale)
        return Page(200 if is_ready else 503, f"{text}\n")

    return Web(listen, {"/metrics": metrics, "/healthz": health, "/readyz": ready}, hosts=hosts)
