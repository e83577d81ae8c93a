"""The stack as containers: deploy/docker-compose.yml, through its published ports."""

import subprocess
from typing import Protocol

from ldappolicy.oracle.smtp import Session
from tests.labs.slapd import wait_until
from tests.stack.stack import DIRECTORIES, REPLICAS, Stack


class Services(Protocol):
    """What pytest-docker says of services that run."""

    def port_for(self, service: str, container_port: int) -> int:
        """Where the port is published."""


class Composed(Stack):
    """Its containers by service, as `docker compose ps` knows them."""

    name = "docker"

    def __init__(self, services: Services, containers: dict[str, str]) -> None:
        self._services = services
        self._containers = containers
        self.port = services.port_for("postfix", 25)

    def session(self) -> Session:
        """From outside: the engine's proxy is not in mynetworks."""
        return Session(self.port)

    def mail_log(self) -> str:
        """The engine keeps it for as long as there is the container."""
        return docker("logs", self._containers["postfix"])

    def kill(self, part: str) -> None:
        """The engine does not restart what its user has killed."""
        docker("kill", self._containers[part])

    def start(self, part: str) -> None:
        """With the ports it had."""
        docker("start", self._containers[part])
        self.wait_for(part)

    def wait(self) -> None:
        """Return when all of it answers."""
        for part in self._containers:
            self.wait_for(part)

    def wait_for(self, part: str) -> None:
        """Return when it answers; where it does not, say what it said."""
        try:
            wait_until(lambda: self._answers(part), 120)
        except TimeoutError as error:
            raise RuntimeError(f"{part}: {docker('logs', self._containers[part])[-1000:]}") from error

    def _answers(self, part: str) -> bool:
        if part in REPLICAS:
            return bool(self.page(part, "/readyz"))
        try:
            if part in DIRECTORIES:
                return bool(self.ldap(part, "ldapwhoami"))
            with self.session() as smtp:
                return smtp.banner.startswith("220")
        except (RuntimeError, OSError):
            return False

    def web(self, replica: str) -> int:
        """On loopback."""
        return self._services.port_for(replica, 9414)

    def ldap(self, directory: str, command: str, *arguments: str, text: str = "") -> str:
        """Inside the container, which has them."""
        inside = ["exec", "--interactive", self._containers[directory], command, "-x"]
        return docker(*inside, "-H", "ldap://127.0.0.1:1389", *arguments, text=text)


def docker(*arguments: str, text: str = "") -> str:
    """Run the command; what it printed."""
    done = subprocess.run(
        ["docker", *arguments], input=text, capture_output=True, text=True, check=False, timeout=120
    )
    if done.returncode:
        raise RuntimeError(f"docker {' '.join(arguments)}: {done.stderr}")
    return done.stdout + done.stderr
