"""The stack as processes of this machine: what containers would hold, from tests/labs.

The replicas listen on one port of two addresses of loopback, and the private Postfix' DNS gives both to the
name that it asks for: as the engine does in docker-compose.yml.
"""

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Self

from tests.labs.ldappolicy import Ldappolicy
from tests.labs.postfix import Postfix, Session, require_postfix
from tests.labs.slapd import NESTED, ROOT_PW, SUFFIX, Slapd, free_port, require_slapd, wait_until
from tests.stack.stack import DIRECTORIES, REPLICAS, Stack

OUTSIDE = {"addr": "203.0.113.9", "name": "client.outside.example"}

# slapd-config(5): one of two providers that replicate each other.
REPLICATION = """\
dn: cn=config
changetype: modify
add: olcServerID
olcServerID: {number}

dn: olcDatabase={{1}}mdb,cn=config
changetype: modify
add: olcSyncrepl
olcSyncrepl: rid=001 provider={other} type=refreshAndPersist searchbase="{suffix}"
  bindmethod=simple binddn="cn=root,{suffix}" credentials={password} retry="1 +" timeout=3
-
add: olcMultiProvider
olcMultiProvider: TRUE
"""


class Native(Stack):
    """Made by `open`."""

    name = "native"

    def __init__(
        self, postfix: Postfix, replicas: list[Ldappolicy], directories: list[Slapd], webs: list[int]
    ):
        self._postfix = postfix
        self._webs = dict(zip(REPLICAS, webs, strict=True))
        self._replicas = dict(zip(REPLICAS, replicas, strict=True))
        self._directories = dict(zip(DIRECTORIES, directories, strict=True))

    @classmethod
    @contextmanager
    def open(cls, example: Path) -> Iterator[Self]:
        """Start all of it; skip where slapd or Postfix cannot be run."""
        require_slapd()
        require_postfix()
        with ExitStack() as stack:
            directories = [stack.enter_context(Slapd(schema="ldappolicy", overlays=NESTED)) for _ in range(2)]
            replicate(*directories)
            directories[0].load(example)
            wait_until(lambda: has_all_of(*directories), 120)
            port, webs = free_port(), [free_port(), free_port()]
            replicas = [
                stack.enter_context(Ldappolicy(sections(number, port, web, directories)))
                for number, web in enumerate(webs, 1)
            ]
            postfix = stack.enter_context(mail_server(port))
            yield cls(postfix, replicas, directories, webs)

    def session(self) -> Session:
        """By XCLIENT: all that comes from loopback is ours otherwise."""
        return self._postfix.session("in", **OUTSIDE)

    def mail_log(self) -> str:
        """Its file."""
        return "\n".join(self._postfix.log(""))

    def kill(self, part: str) -> None:
        """By process id."""
        (self._replicas.get(part) or self._directories[part]).kill()

    def start(self, part: str) -> None:
        """With the ports it had."""
        (self._replicas.get(part) or self._directories[part]).start()

    def web(self, replica: str) -> int:
        """As configured."""
        return self._webs[replica]

    def ldap(self, directory: str, command: str, *arguments: str, text: str = "") -> str:
        """As installed here."""
        asked = [command, "-x", "-H", self._directories[directory].uri, *arguments]
        return subprocess.run(asked, input=text, capture_output=True, text=True, check=True).stdout


def replicate(first: Slapd, second: Slapd) -> None:
    """Make each the other's provider."""
    for number, (one, other) in enumerate(((first, second), (second, first)), 1):
        one.configure(REPLICATION.format(number=number, other=other.uri, suffix=SUFFIX, password=ROOT_PW))


def has_all_of(first: Slapd, second: Slapd) -> bool:
    """Whether the second has come as far as the first: contextCSN of the suffix says how far that is."""
    return context(first) == context(second) != ""


def context(slapd: Slapd) -> str:
    """The state of its content (RFC 4533 calls it a cookie)."""
    command = ["ldapsearch", "-LLL", "-x", "-H", slapd.uri, "-s", "base", "-b", SUFFIX, "contextCSN"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def sections(
    number: int, port: int, web: int, directories: list[Slapd]
) -> dict[str, dict[str, str | list[str]]]:
    """The configuration of one replica: its address of the two, and a port of its own for the lab."""
    return {
        "server": {"listen": ["inet:127.0.0.1:0", f"inet:127.0.0.{number}:{port}"], "request_timeout": "1m"},
        "directory": {"uri": [slapd.uri for slapd in directories], "profile": "openldap", "timeout": "1m"},
        "web": {"listen": f"127.0.0.1:{web}"},
    }


def mail_server(port: int) -> Postfix:
    """Postfix, with the call of deploy/compose/postfix/main.cf."""
    call = f"check_policy_service {{ inet:policy.test:{port}, timeout=60s, policy_context=default }}"
    return Postfix(
        {"in": {"smtpd_recipient_restrictions": call}},
        dns={("policy.test", "A"): ["127.0.0.1", "127.0.0.2"]},
    )
