"""The Docker engine of the tests: always one of our own, whatever engine the machine may have.

It takes root, Debian's docker.io, iptables and debootstrap. It has everything in one temporary folder,
listens on a socket file there, and lives in mount and process namespaces that end with the pipe that we hold:
no process and no mount is left, however the tests end. It changes no packet filter and makes no bridge of
its own (`--iptables=false --bridge=none`): images are built in the machine's network, containers talk over
the bridge that the compose file has them make, and published ports are the engine's proxy's. The client's
own files (~/.docker) are in that folder, too: no context of the user's leads elsewhere.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.labs.slapd import wait_until

ROOT = Path(__file__).parents[2]
BASE = "debian:bookworm-slim"
# Debian's Python in BASE: some wheels hold machine code for one Python.
PYTHON = (3, 11)

# What is shipped, and what an engine without a network needs behind it.
COMPOSE_FILES = [str(ROOT / "deploy" / "docker-compose.yml"), str(ROOT / "tests" / "stack" / "alone.yml")]
DOCKERFILES = {
    "ldappolicy": "deploy/Dockerfile",
    "ldappolicy-demonstration-directory": "deploy/compose/directory/Dockerfile",
    "ldappolicy-demonstration-postfix": "deploy/compose/postfix/Dockerfile",
}

# What a script is run with: namespaces of its own, which end with it.
NAMESPACES = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c")

# Process 1 in there. The end of its standard input is the end of all the rest. In memory, where
# there is enough: the kernel writes a disk's back when overlays are unmounted, for half a minute.
# The machine's configuration of an engine, and a containerd that it runs, are not seen in there.
INSIDE = """
mount -t proc proc /proc || exit
for place in /etc/docker /run/containerd; do
    mkdir -p $place && mount -t tmpfs tmpfs $place || exit
done
[ "$2" = disk ] || mount -t tmpfs -o mode=711 tmpfs "$1/data" || exit
dockerd --data-root "$1/data" --exec-root "$1/exec" --pidfile "$1/pid" --host "unix://$1/socket" \\
    --bridge=none --iptables=false --ip-forward=false --ip-masq=false >"$1/log" 2>&1 &
exec cat >/dev/null
"""

# As in the image that this one stands for: no service is started, dpkg does not
# wait for the disk, and nobody reads manuals or translations.
MAKE_BASE = r"""
set -e
mount -t proc proc /proc
[ "$2" = disk ] || mount -t tmpfs tmpfs "$1"
debootstrap --variant=minbase bookworm "$1" >&2
cd "$1"
printf '#!/bin/sh\nexit 101\n' >usr/sbin/policy-rc.d
chmod 755 usr/sbin/policy-rc.d
echo force-unsafe-io >etc/dpkg/dpkg.cfg.d/unsafe-io
echo 'Acquire::Languages "none";' >etc/apt/apt.conf.d/no-languages
rm -rf usr/share/doc/* usr/share/man/* usr/share/locale/* var/cache/apt/* var/lib/apt/lists/*
tar --exclude='./dev/*' -c . | docker import - "$3"
"""
ENOUGH = 6 << 30
"""Bytes of memory that have to be there: 2 GB would do, and others want some."""


class NoEngineError(Exception):
    """Why there is none, and what would have to be installed."""


@dataclass(frozen=True)
class Engine:
    """One that answers, and what it is."""

    name: str
    compose: str


@contextmanager
def engine() -> Iterator[Engine]:
    """The engine; the environment leads to it while it is needed, and to nothing of the user's."""
    with tempfile.TemporaryDirectory(prefix="docker-") as folder, pytest.MonkeyPatch.context() as environment:
        environment.setenv("DOCKER_CONFIG", f"{folder}/client")
        environment.setenv("DOCKER_HOST", f"unix://{folder}/socket")
        environment.delenv("DOCKER_CONTEXT", raising=False)
        compose = compose_command()
        if lacks := lacking():
            raise NoEngineError(f"no Docker engine can be started: {lacks}")
        with started(Path(folder)):
            yield Engine(f"an engine of its own, {answers()}", compose)


def compose_command() -> str:
    """The plugin, else the older program of that name."""
    if shutil.which("docker") is None:
        raise NoEngineError("no Docker: apt-get install docker.io docker-compose iptables debootstrap")
    if run("docker", "compose", "version").returncode == 0:
        return "docker compose"
    if shutil.which("docker-compose") is None:
        raise NoEngineError("no docker compose: apt-get install docker-compose")
    return "docker-compose"


def answers() -> str:
    """The version of the engine; empty when it does not answer (yet)."""
    asked = run("docker", "version", "--format", "{{.Server.Version}}", timeout=20)
    return asked.stdout.strip() if asked.returncode == 0 else ""


def lacking() -> str:
    """What it takes to start one; empty: nothing is missing."""
    if os.geteuid() != 0:
        return "that needs root"
    if sys.version_info[:2] != PYTHON:
        return "the image takes wheels of Python 3.11, and the tests run in another one"
    programs = {"dockerd": "docker.io", "iptables": "iptables", "debootstrap": "debootstrap"}
    packages = [package for name, package in programs.items() if shutil.which(name) is None]
    return f"apt-get install {' '.join(packages)}" if packages else ""


@contextmanager
def started(folder: Path) -> Iterator[None]:
    """Runs it in that folder."""
    (folder / "data").mkdir()
    command = [*NAMESPACES, INSIDE, "sh", str(folder), place()]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        wait_for(process, folder)
        yield
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait(120)


def wait_for(process: subprocess.Popen[bytes], folder: Path) -> None:
    """Return when it answers."""
    try:
        wait_until(lambda: process.poll() is not None or ((folder / "socket").exists() and answers()), 120)
    except TimeoutError:
        pass
    else:
        if process.poll() is None:
            return
    log = folder / "log"
    said = (
        log.read_text(errors="replace").splitlines()[-3:] if log.exists() else ["namespaces are not allowed"]
    )
    raise NoEngineError(f"dockerd does not start: {' '.join(said)}")


def make_images(tag: str) -> None:
    """Build all that the compose file names, with that tag."""
    try_out()
    with ThreadPoolExecutor() as pool:
        wheels = pool.submit(make_wheels)
        make_base()
        wheels.result()
        builds = [pool.submit(build, f"{name}:{tag}", path) for name, path in DOCKERFILES.items()]
        for one in builds:
            one.result()


def make_wheels() -> None:
    """What the Dockerfile installs: as `make wheels` does."""
    folder = ROOT / "build" / "wheels"
    shutil.rmtree(folder, ignore_errors=True)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check"]
    must(*pip, "--wheel-dir", str(folder), str(ROOT), "pip")


def make_base() -> None:
    """The image that the Dockerfiles start from."""
    with tempfile.TemporaryDirectory(prefix="debootstrap-") as folder:
        done = run(*NAMESPACES, MAKE_BASE, "sh", folder, place(), BASE)
    if done.returncode:
        raise NoEngineError(f"debootstrap: {done.stderr.strip()[-300:]}")


def try_out() -> None:
    """Run a container on a network of its own: the kernel may have no bridges, packet filters or overlays.

    All that is in it is a program that needs nothing else, so that this is known at once.
    """
    must("sh", "-c", "tar -C /sbin -c ldconfig | docker import - tried")
    tried = run("docker", "network", "create", "tried")
    if tried.returncode == 0:
        tried = run("docker", "run", "--rm", "--network", "tried", "tried", "/ldconfig", "--version")
        run("docker", "network", "rm", "tried")
    if tried.returncode:
        raise NoEngineError(f"no container can be run: {tried.stderr.strip()[-300:]}")


def place() -> str:
    """Where to put what is thrown away at the end: "memory", or "disk"."""
    kilobytes = re.search(r"(?m)^MemAvailable: +(\d+) kB$", Path("/proc/meminfo").read_text("ascii"))
    return "memory" if kilobytes and int(kilobytes[1]) * 1024 > ENOUGH else "disk"


def build(image: str, dockerfile: str) -> None:
    """One image; in the machine's network, since the engine has no other."""
    must("docker", "build", "--quiet", "--network", "host", "--tag", image, "--file", dockerfile, ".")


def must(*command: str) -> str:
    """Run it in the checkout; what it printed."""
    done = run(*command)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


def run(*command: str, timeout: float = 500) -> subprocess.CompletedProcess[str]:
    """Run it in the checkout."""
    return subprocess.run(
        command,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
    )
