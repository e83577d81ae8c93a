"""What docker-compose.yml and its files say, without an engine."""

import re
from pathlib import Path

import pytest

from ldappolicy import config

DEPLOY = Path(__file__).parents[2] / "deploy"
COMPOSE = (DEPLOY / "docker-compose.yml").read_text("utf-8")


def test_everything_is_published_on_loopback() -> None:
    """The demonstration's passwords are known."""
    published = re.findall(r'(?m)^ +ports: \["(.*)"\]$', COMPOSE)
    assert COMPOSE.count("ports:") == len(published) == 5
    assert [] == [port for port in published if not re.fullmatch(r"127\.0\.0\.1:\$\{\w+:-\d+\}:\d+", port)]


@pytest.mark.parametrize("name", re.findall(r"dockerfile: (\S+)", COMPOSE))
def test_images_are_made_from_what_is_there(name: str) -> None:
    """Each Dockerfile starts from the one base image, and copies what the build context has."""
    text = (DEPLOY.parent / name).read_text("utf-8")
    assert {"debian:bookworm-slim", "python"} >= set(re.findall(r"(?m)^FROM (\S+)", text))
    ignored = (DEPLOY.parent / ".dockerignore").read_text("utf-8").splitlines()
    shown = [line.removeprefix("!") for line in ignored if line.startswith("!")]
    copied = re.findall(r"(?m)^COPY (?!--from)(.*)$", text.replace("\\\n", " "))
    sources = [source for line in copied for source in line.split()[:-1]]
    assert sources
    assert [] == [source for source in sources if not source.startswith(tuple(shown))]


def test_the_replicas_are_configured_with_keys_that_there_are() -> None:
    """Both directories, in order; metrics and health; where the compose file asks for them."""
    read = config.load(DEPLOY / "compose" / "ldappolicy.toml")
    assert ("ldap://directory1:1389", "ldap://directory2:1389") == tuple(read.directory.uri)
    assert read.web.listen is not None
    assert f"http://127.0.0.1:{read.web.listen.port}/readyz" in COMPOSE


def test_postfix_asks_the_name_that_has_both_replicas() -> None:
    """One call; the name is the alias of either, the port the one they listen on."""
    text = (DEPLOY / "compose" / "postfix" / "main.cf").read_text("utf-8")
    ((host, port),) = re.findall(r"check_policy_service \{ inet:(\w+):(\d+),", text)
    assert f"aliases: [{host}]" in COMPOSE
    (listener,) = config.load(DEPLOY / "compose" / "ldappolicy.toml").server.listen
    assert f"inet:0.0.0.0:{port}" == str(listener)
