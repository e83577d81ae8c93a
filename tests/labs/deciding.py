"""A service in this process, over any directory: what `ldappolicy serve` has behind its listeners.

    async with deciding(slapd.uri) as service:
        assert await service.decide(rcpt(sender="a@b.example", recipient="all@my.domain")) == "reject,"

The configuration is the example company's (`tests.labs.ldappolicy`), changed by what a test says.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from ldappolicy import assembly
from ldappolicy.config import Config, parse
from ldappolicy.request import Request
from ldappolicy.service import Service
from tests.labs.ldappolicy import EXAMPLE, Sections, merged, toml


def configuration(uri: str, sections: Sections | None = None) -> Config:
    """The example company's configuration with that directory, and what else a test says."""
    return parse(toml(merged(EXAMPLE, {"directory": {"uri": [uri]}}, sections or {})), "test.toml")


@asynccontextmanager
async def deciding(
    uri: str, sections: Sections | None = None, *, reload: bool = True
) -> AsyncIterator[Service]:
    """A service that has read its policies; closes its directory in the end."""
    config = configuration(uri, sections)
    directory = assembly.open_directory(config)
    service = assembly.build_service(config, directory)
    try:
        if reload:
            await service.reload()
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
