"""The two stacks as fixtures: each is started for the module's tests, and gone behind them.

pytest-docker brings the services up and down; which compose command, files and names is said here.
"""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_docker.plugin import Services, get_docker_services

from tests.labs.slapd import free_port
from tests.stack.composed import Composed
from tests.stack.engine import COMPOSE_FILES, Engine, NoEngineError, engine, make_images, must
from tests.stack.native import Native
from tests.stack.stack import DIRECTORIES, REPLICAS, Stack

PORTS = ("SMTP_PORT", "WEB1_PORT", "WEB2_PORT", "LDAP1_PORT", "LDAP2_PORT")
TAG = f"test-{os.getpid()}"

notes = pytest.StashKey[list[str]]()


@pytest.fixture(scope="module")
def stack(request: pytest.FixtureRequest, example_ldif: Path) -> Iterator[Stack]:
    """The one that a test asks for; containers are skipped where there is no engine, saying what it takes."""
    began = time.monotonic()
    if request.param == "docker":
        yield request.getfixturevalue("composed")
        return
    with Native.open(example_ldif) as native:
        note(request, f"on native servers, up in {time.monotonic() - began:.1f} s")
        yield native


@pytest.fixture(scope="module")
def composed(docker_engine: Engine, docker_services: Services) -> Composed:
    """What docker-compose.yml describes, when all of it answers."""
    parts = (*REPLICAS, *DIRECTORIES, "postfix")
    containers = {part: compose(docker_engine, "ps", "-q", part).strip() for part in parts}
    stack = Composed(docker_services, containers)
    stack.wait()
    return stack


@pytest.fixture(scope="module")
def docker_engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """An engine that has the images."""
    began = time.monotonic()
    try:
        with engine() as found, pytest.MonkeyPatch.context() as environment:
            make_images(TAG)
            environment.setenv("LDAPPOLICY_TAG", TAG)
            for name in PORTS:
                environment.setenv(name, str(free_port()))
            note(request, f"in containers: {found.name}, images made in {time.monotonic() - began:.0f} s")
            yield found
    except NoEngineError as reason:
        note(request, f"not in containers: {reason}")
        pytest.skip(f"{reason} (the same scenarios run on native servers)")


@pytest.fixture(scope="module")
def docker_services(docker_engine: Engine) -> Iterator[Services]:
    """pytest-docker's services, for the module instead of the session: then the engine can go."""
    cleanup = ["down --volumes --timeout 2"]
    with get_docker_services(docker_engine.compose, COMPOSE_FILES, TAG, [], cleanup) as services:
        # Not as its setup: what has come up is not taken down when the rest does not.
        compose(docker_engine, "up", "--detach")
        yield services


def compose(used: Engine, *arguments: str) -> str:
    """Run the compose command on the services; what it printed."""
    files = [word for file in COMPOSE_FILES for word in ("-f", file)]
    return must(*used.compose.split(), *files, "-p", TAG, *arguments)


def note(request: pytest.FixtureRequest, text: str) -> None:
    """A line for the end of the run."""
    request.config.stash.setdefault(notes, []).append(text)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say which stacks the scenarios ran on."""
    for text in config.stash.get(notes, []):
        terminalreporter.write_line(f"tests/stack: {text}")
