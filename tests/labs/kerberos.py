"""A private Kerberos realm for the tests: Samba's domain controller with its KDC, and who asks it.

The KDC and the LDAP service have fixed ports and one name, `dc1.example.com`, in a namespace of their own
(network, host name, /etc/hosts); the programs that ask run inside of it (nsenter, by process id).

    with Realm(certificates) as realm:
        keytab = realm.keytab("svc")
        realm.run([sys.executable, "-c", "..."], realm.environment(keytab))
"""

import asyncio
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest

from ldappolicy.directory import Scope, Search
from ldappolicy.directory.ldap import LdapDirectory, LdapSettings
from ldappolicy.directory.ldap.gssapi import is_installed
from ldappolicy.errors import Unavailable
from ldappolicy.ldap_filter import Present
from tests.labs.ldappolicy import program as ldappolicy
from tests.labs.samba import PACKAGES as SAMBA_PACKAGES
from tests.labs.samba import REALM, Samba, needs_samba
from tests.labs.server import Server, are_installed, program
from tests.labs.slapd import Certificates, Slapd

HOST = "dc1.example.com"
STRANGER = "other.example.com"
"""A name of the same machine that the KDC has no key for."""

KDC_PORT, SILENT_PORT, CLOSED_PORT, RELAY_PORT = 88, 9088, 9089, 9090

KRB5_CONF = """\
[libdefaults]
    default_realm = {realm}
    dns_lookup_kdc = false
    dns_lookup_realm = false
    dns_canonicalize_hostname = false
    rdns = false
{more}
[realms]
    {realm} = {{
        kdc = 127.0.0.1:{port}
    }}
[domain_realm]
    .example.com = {realm}
"""

# No library for a wrong clock is installed everywhere; the compiler that built gssapi is.
_CLOCK = """\
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>
static long ahead(void) { return atol(getenv("CLOCK_AHEAD")); }
int clock_gettime(clockid_t id, struct timespec *at) {
    int (*real)(clockid_t, struct timespec *) = dlsym(RTLD_NEXT, "clock_gettime");
    int failed = real(id, at);
    if (!failed && id == CLOCK_REALTIME) at->tv_sec += ahead();
    return failed;
}
int gettimeofday(struct timeval *at, void *zone) {
    int (*real)(struct timeval *, void *) = dlsym(RTLD_NEXT, "gettimeofday");
    int failed = real(at, zone);
    if (!failed) at->tv_sec += ahead();
    return failed;
}
time_t time(time_t *at) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (at) *at = now.tv_sec;
    return now.tv_sec;
}
"""

PACKAGES = f"krb5-user libkrb5-dev gcc {SAMBA_PACKAGES}"
_INSTALLED = are_installed("kinit", "klist", "ktutil", "nsenter", "cc")

needs_gssapi = pytest.mark.skipif(
    not is_installed(), reason="apt-get install gcc libkrb5-dev; pip install gssapi"
)
"""For tests that need the library."""

needs_kerberos = pytest.mark.skipif(
    not _INSTALLED or bool(needs_samba.args[0]),
    reason=str(needs_samba.kwargs["reason"]) if _INSTALLED else f"apt-get install {PACKAGES}",
)
"""For tests that start a realm, or use Kerberos' programs."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of the searches: the values of each, or why there are none."""

    found: list[list[str]]
    error: str


class Realm(Samba):
    """A domain controller with a KDC, and with TLS for HOST and STRANGER."""

    def __init__(
        self, certificates: Certificates, *, schema: str = "none", options: Sequence[str] = ()
    ) -> None:
        # Samba looks at the rights of the key: nobody else may read it.
        certificates.key_file.chmod(0o600)
        self.certificates = certificates
        files = (certificates.ca_file, certificates.cert_file, certificates.key_file)
        super().__init__(schema=schema, services=("ldap", "kdc"), tls=files, options=options)

    def create(self) -> None:
        """See `Server.create`."""
        super().create()
        names = f"127.0.0.1 localhost\n127.0.0.1 {HOST} dc1\n127.0.0.1 {STRANGER}\n"
        (self.home / "hosts").write_text(names, "utf-8")
        self.tool("spn", "add", f"ldap/{HOST}", "DC1$")  # it would give itself this name by DNS

    def command(self) -> list[str]:
        """Samba as in the lab, with the machine's name and /etc/hosts its own."""
        alone = super().command()
        place = alone.index("sh")
        script = f"mount --bind {self.home}/hosts /etc/hosts && hostname {HOST} && {alone[place + 2]}"
        return [*alone[:place], "-m", "-u", "sh", "-c", script, *alone[place + 3 :]]

    def keytab(self, principal: str) -> Path:
        """The keys that it has now, in a new file."""
        file = self.home / f"{principal.replace('/', '_')}.keytab"
        file.unlink(missing_ok=True)
        self.tool("domain", "exportkeytab", str(file), f"--principal={principal}")
        return file

    def tool(self, *arguments: str) -> None:
        """samba-tool(8) on the files of this domain controller."""
        command = [program("samba-tool"), *arguments, "-s", str(self.home / "etc" / "smb.conf")]
        told = {**os.environ, **self.variables}
        done = subprocess.run(command, capture_output=True, check=False, env=told)
        if done.returncode:
            raise RuntimeError(f"samba-tool: {done.stderr.decode('utf-8', 'replace').strip()}")

    def environment(
        self,
        keytab: Path | None = None,
        *,
        cache: str = "MEMORY:",
        kdc: int = KDC_PORT,
        more: str = "",
        ahead: int = 0,
    ) -> dict[str, str]:
        """What Kerberos finds in its environment; the clock may be `ahead` by some seconds."""
        conf = self.home / f"krb5-{kdc}-{len(more)}.conf"
        conf.write_text(KRB5_CONF.format(realm=REALM, port=kdc, more=more), "utf-8")
        clock = {"LD_PRELOAD": str(_clock(self.home)), "CLOCK_AHEAD": str(ahead)} if ahead else {}
        keys = str(keytab or self.home / "none.keytab")
        return {"KRB5_CONFIG": str(conf), "KRB5CCNAME": cache, "KRB5_CLIENT_KTNAME": keys, **clock}

    def run(
        self, command: Sequence[str], environment: Mapping[str, str], text: str = "", timeout: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """Run a program where the domain controller is."""
        return subprocess.run(
            [*self.inside(environment), *command],
            cwd=Path(__file__).parents[2],
            input=text,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
        )

    def ask(
        self,
        environment: Mapping[str, str],
        searches: Sequence[tuple[str, str]],
        *,
        silent: bool = False,
        relay: Certificates | None = None,
        to: int = 0,
        **settings: str | bool | float,
    ) -> Answer:
        """Base searches (DN, attribute) by our LdapDirectory with these settings, where the realm is.

        With `silent` somebody listens on SILENT_PORT and says nothing; with `relay` somebody in the middle
        does on RELAY_PORT, who shows that certificate and passes everything on to the TLS port `to`.
        """
        usual = {"bind": "gssapi", "tls_ca_cert_file": str(self.certificates.ca_file), "timeout": 10.0}
        told = {
            "settings": {**usual, **settings},
            "searches": searches,
            "silent": silent,
            "relay": [str(relay.cert_file), str(relay.key_file), to] if relay else [],
        }
        done = self.run([sys.executable, "-m", "tests.labs.kerberos"], environment, json.dumps(told))
        assert not done.returncode, done.stderr
        return Answer(**json.loads(done.stdout))

    def ldappolicy(self, environment: Mapping[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
        """The program, where the realm is."""
        return self.run([ldappolicy(), *arguments], environment)

    def inside(self, environment: Mapping[str, str]) -> list[str]:
        """What goes before a command, so that it runs where the realm is."""
        user = [] if os.geteuid() == 0 else ["-U", "--preserve-credentials"]
        # env, so that a wrong clock is the program's alone.
        told = ["env", *(f"{name}={value}" for name, value in environment.items())]
        return [program("nsenter"), "-t", str(self.pid), *user, "-n", "-m", "-u", "--", *told]


class KerberosSlapd(Slapd):
    """slapd with the key of ldap/HOST, in the place of a realm; asked by TCP there, by its socket file here.

    Cyrus SASL names a client uid=svc,cn=gssapi,cn=auth.
    """

    def __init__(self, realm: Realm, *, access: Sequence[str], data: str, schema: str) -> None:
        super().__init__(access=access, data=data, schema=schema, certificates=realm.certificates)
        self._realm = realm

    def command(self) -> list[str]:
        """Slapd, where the realm is, with its key."""
        key = self._realm.keytab(f"ldap/{HOST}")
        inside = self._realm.inside({**self._realm.environment(), "KRB5_KTNAME": str(key)})
        return [*inside, *super().command()]

    def probe(self) -> None:
        """Its socket file: its ports are elsewhere."""
        Server.probe(self)

    def uri_of(self, host: str) -> str:
        """ldaps:// by that name."""
        return f"ldaps://{host}:{self.tls_port}"

    def mechanisms(self) -> str:
        """What it says about SASL."""
        asked = ["-x", "-LLL", "-H", self.ldapi_uri, "-s", "base", "-b", "", "supportedSASLMechanisms"]
        return subprocess.run(
            [program("ldapsearch"), *asked], capture_output=True, text=True, check=True
        ).stdout


def _clock(home: Path) -> Path:
    """The library that makes the clock wrong, compiled once."""
    library = home / "clock.so"
    if not library.exists():
        compiler = shutil.which("cc") or "cc"
        command = [compiler, "-shared", "-fPIC", "-x", "c", "-", "-D_GNU_SOURCE", "-o", str(library)]
        subprocess.run(command, input=_CLOCK, text=True, check=True)
    return library


async def _asked(settings: LdapSettings, searches: Sequence[tuple[str, str]]) -> list[list[str]]:
    directory = LdapDirectory(settings)
    try:
        found = []
        for base, name in searches:
            (entry,) = await directory.search(Search(base, Scope.BASE, Present("objectClass"), (name,)))
            found.append(list(entry.values(name)))
        return found
    finally:
        await directory.close()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while octets := await reader.read(65536):
        writer.write(octets)
    writer.close()


async def _relayed(certificate: str, key: str, port: int) -> None:
    """Somebody in the middle, for one connection."""
    shown = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    shown.load_cert_chain(certificate, key)
    trusting = ssl.create_default_context()
    trusting.check_hostname = False
    trusting.verify_mode = ssl.CERT_NONE

    async def between(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = await asyncio.open_connection("127.0.0.1", port, ssl=trusting)
        await asyncio.gather(_pass_on(reader, there[1]), _pass_on(there[0], writer))

    await asyncio.start_server(between, "127.0.0.1", RELAY_PORT, ssl=shown)


async def _answer(told: dict[str, Any]) -> Answer:
    if told["relay"]:
        await _relayed(*told["relay"])
    settings = LdapSettings(uris=(told["settings"].pop("uri"),), **told["settings"])
    try:
        found, error = await _asked(settings, told["searches"]), ""
    except Unavailable as unavailable:
        found, error = [], str(unavailable)
    return Answer(found, error)


def _main() -> None:
    """What `Realm.ask` runs."""
    told = json.load(sys.stdin)
    with ExitStack() as listening:
        if told["silent"]:
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                silent = listening.enter_context(socket.socket(socket.AF_INET, kind))
                silent.bind(("127.0.0.1", SILENT_PORT))
                if kind == socket.SOCK_STREAM:
                    silent.listen()
        print(json.dumps(asdict(asyncio.run(_answer(told)))))


if __name__ == "__main__":
    _main()
