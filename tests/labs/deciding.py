"""A service in this process, over any directory: what `ldappolicy serve` has behind its listeners.

    async with deciding(slapd.uri) as service:
        assert await service.decide(rcpt(sender="a@b.example", recipient="all@my.domain")) == "reject,"

The configuration is the example company's (`tests.labs.ldappolicy`), changed by what a test says.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from ldappolicy import assembly
from ldappolicy.config import Config, parse
from ldappolicy.decision_log import decision_ids
from ldappolicy.errors import ConfigError, Unavailable
from ldappolicy.freshness import Freshness
from ldappolicy.log import Lines
from ldappolicy.mapping import GENERIC
from ldappolicy.request import Request
from ldappolicy.service import Service
from tests.labs.ldappolicy import EXAMPLE, Sections, merged, toml


def configuration(uri: str, sections: Sections | None = None) -> Config:
    """The example company's configuration with that directory, and what else a test says."""
    return parse(toml(merged(EXAMPLE, {"directory": {"uri": [uri]}}, sections or {})), "test.toml")


class Kept(Lines):
    """Lines that stay where they are, in `texts`."""

    def __init__(self) -> None:
        super().__init__(-1)
        self.texts: list[str] = []

    def put(self, line: str) -> None:
        """Keeps it."""
        self.texts.append(line)


@asynccontextmanager
async def following(service: Service, config: Config) -> AsyncIterator[Freshness]:
    """Keeps the service as its directory is, as the daemon does; from when changes are told."""

    async def reload() -> None:
        with suppress(Unavailable, ConfigError):
            await service.reload()

    freshness = assembly.build_freshness(config, service.resolver.directory, service, reload)
    assert freshness is not None
    task = asyncio.create_task(freshness.run())
    try:
        await until(lambda: service.resolver.data_age == 0 or task.done())
        if config.cache.mode == "mirror":
            await until(lambda: freshness.is_mirrored or task.done())
        yield freshness
    finally:
        task.cancel()
        await asyncio.wait((task,))
        if not task.cancelled() and (bug := task.exception()) is not None:
            raise bug


async def until(condition: Callable[[], bool], seconds: float = 180.0) -> None:
    """Waits for a condition, looking often."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110  # nothing tells of it
            await asyncio.sleep(0.002)


@asynccontextmanager
async def deciding(
    uri: str, sections: Sections | None = None, *, reload: bool = True, log: Lines | None = None
) -> AsyncIterator[Service]:
    """A service that has read its policies, and writes decisions to `log`; its directory is closed then."""
    config = configuration(uri, sections)
    directory = assembly.open_directory(config)
    decisions = assembly.decision_log(config, log, decision_ids()) if log is not None else None
    try:
        settled = (
            await assembly.settled(config, directory) if reload else assembly.with_profile(config, GENERIC)
        )
        service = assembly.build_service(settled, directory, decisions=decisions)
        if reload:
            await service.reload()
            # What everybody needs is asked for with the policies.
            await until(lambda: service.resolver.is_idle)
        yield service
    finally:
        await directory.close()


def rcpt(**attributes: str) -> Request:
    """A request at RCPT TO; a login brings its mechanism."""
    given = {"protocol_state": "RCPT", "protocol_name": "ESMTP", "client_address": "203.0.113.9"}
    if attributes.get("sasl_username"):
        given["sasl_method"] = "PLAIN"
    return Request.from_attributes({**given, **attributes})


def unread(port: int) -> bool:
    """Whether something waits in a connection to that port that its suspended server has not read."""
    lines = Path("/proc/net/tcp").read_text("ascii").splitlines()[1:]
    fields = [line.split() for line in lines]
    established = [line for line in fields if line[1].endswith(f":{port:04X}") and line[3] == "01"]
    return any(int(line[4].partition(":")[2], 16) for line in established)
