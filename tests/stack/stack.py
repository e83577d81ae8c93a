"""What a stack is to the scenarios: one Postfix, two replicas of ldappolicy, two directories that replicate.

A scenario sends mail from outside and kills and starts parts by name. What the parts are, processes or
containers, is said by who derives.
"""

import re
from abc import ABC, abstractmethod
from collections import Counter
from typing import ClassVar
from urllib.error import URLError
from urllib.request import urlopen

from ldappolicy.oracle.smtp import Session
from tests.labs.slapd import ROOT_PW, SUFFIX

REPLICAS = ("ldappolicy1", "ldappolicy2")
DIRECTORIES = ("directory1", "directory2")


class Stack(ABC):
    """A stack that runs; `change` and `holds` speak LDAP to one of the directories."""

    name: ClassVar[str]

    @abstractmethod
    def session(self) -> Session:
        """An SMTP connection from outside our networks."""

    @abstractmethod
    def mail_log(self) -> str:
        """What Postfix has logged so far."""

    @abstractmethod
    def kill(self, part: str) -> None:
        """SIGKILL."""

    @abstractmethod
    def start(self, part: str) -> None:
        """Start what was killed; return when it answers."""

    @abstractmethod
    def web(self, replica: str) -> int:
        """The port of its metrics and health."""

    @abstractmethod
    def ldap(self, directory: str, command: str, *arguments: str, text: str = "") -> str:
        """Run one of OpenLDAP's commands against that directory; what it printed."""

    def decided(self, replica: str) -> int:
        """How many decisions its metrics count, since it was started."""
        counted = re.findall(
            r"(?m)^ldappolicy_requests_total\{.*\} ([\d.]+)$", self.page(replica, "/metrics")
        )
        return int(sum(map(float, counted)))

    def delivered(self) -> Counter[str]:
        """How often Postfix has delivered to each recipient so far."""
        return Counter(re.findall(r" to=<([^>]*)>.* status=sent ", self.mail_log()))

    def page(self, replica: str, path: str) -> str:
        """A page of its metrics and health; empty when there is none, or it says that something is wrong."""
        try:
            with urlopen(f"http://127.0.0.1:{self.web(replica)}{path}", timeout=5) as answer:
                return str(answer.read().decode())
        except (URLError, ConnectionError, TimeoutError):
            return ""

    def change(self, directory: str, ldif: str) -> None:
        """Bring LDIF into a directory, as its root DN."""
        self.ldap(directory, "ldapmodify", "-D", f"cn=root,{SUFFIX}", "-w", ROOT_PW, text=ldif)

    def holds(self, directory: str, dn: str, line: str) -> bool:
        """Whether the entry has a line there."""
        return line in self.ldap(directory, "ldapsearch", "-LLL", "-s", "base", "-b", dn).splitlines()
