"""A private Active Directory domain controller (Samba's) for the tests: its LDAP service alone.

A domain is provisioned once a run (4 s), then copied for every server (0.2 s with its start); so is one with
our schema, or with the data that several tests share. The ports of a domain controller cannot be chosen, so
each runs in a network namespace of its own, and is asked through its socket file, which is a file and seen
from outside. No root is needed where users may have namespaces.

    with Samba(schema="ldappolicy") as samba:
        samba.load("dn: OU=people,DC=example,DC=com\\nobjectClass: organizationalUnit\\n")
        ... samba.uri (ldapi), samba.root_dn, samba.root_pw

Everybody who is to read has to bind: `root_dn`, or a user that a test made with `user`. Passwords can be
set since the strong authentication that it would ask for is switched off.

BUGS: Samba serves one connection after the other (`-M single`); it never cuts `member` into ranges.
"""

import base64
import functools
import hashlib
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.labs.server import Server, are_installed, program
from tests.labs.templates import copy, template

SUFFIX = "DC=example,DC=com"
REALM = "EXAMPLE.COM"
ROOT_DN = f"CN=Administrator,CN=Users,{SUFFIX}"
ROOT_PW = "Passw0rd.xyz"
PROJECT_SCHEMA = Path(__file__).parents[2] / "schema" / "ldappolicy-ad.ldif"

PACKAGES = (
    "samba-ad-dc samba-ad-provision samba-dsdb-modules samba-vfs-modules winbind python3-samba "
    "iproute2 ldap-utils"
)

# Samba's Python is the system's, whatever runs the tests. The rights of files in sysvol, which nobody
# asks for here, would need root.
_SETUP = "/usr/share/samba/setup/provision.ldif"
_PYTHON = "/usr/bin/python3"
_PROVISION = """\
import logging, os, sys
from samba.auth import system_session
from samba.param import LoadParm
from samba.provision import provision
target, realm, password = sys.argv[1:]
os.makedirs(target + "/etc")
provision(
    logging.getLogger(), system_session(), smbconf=None, targetdir=target, lp=LoadParm(), realm=realm,
    domain=realm.split(".")[0], hostname="dc1", hostip="127.0.0.1", adminpass=password, dns_backend="NONE",
    serverrole="active directory domain controller", use_rfc2307=True, skip_sysvolacl=True,
    dom_for_fun_level=4,
)
"""
# The schema has to know an attribute before it is named; the updates in the file are for a running server.
_EXTEND = """\
import sys
from samba.auth import system_session
from samba.param import LoadParm
from samba.samdb import SamDB
configuration, database = sys.argv[1:]
update = "dn:\\nchangetype: modify\\nadd: schemaUpdateNow\\nschemaUpdateNow: 1\\n-\\n"
lp = LoadParm()
lp.load(configuration)
samdb = SamDB(url=database, session_info=system_session(), lp=lp)
for part in sys.stdin.read().split(update):
    samdb.transaction_start()
    samdb.modify_ldif(part)
    samdb.transaction_commit()
    samdb.set_schema_update_now()
"""

_CONFIG = """\
[global]
    netbios name = DC1
    realm = {realm}
    workgroup = EXAMPLE
    server role = active directory domain controller
    server services = {services}
    interfaces = lo
    bind interfaces only = yes
    private dir = {home}/private
    state directory = {home}/state
    cache directory = {home}/cache
    lock directory = {home}/lock
    pid directory = {home}/run
    ncalrpc dir = {home}/ncalrpc
    binddns dir = {home}/bind-dns
    winbindd socket directory = {home}/winbindd
    ntp signd socket directory = {home}/ntp_signd
    log file = {home}/log.%m
    ldap server require strong auth = no
    dsdb:schema update allowed = yes
    idmap_ldb:use rfc2307 = yes
{tls}
{more}
[sysvol]
    path = {home}/state/sysvol
[netlogon]
    path = {home}/state/sysvol/{domain}/scripts
"""


def _namespace() -> list[str]:
    """unshare(1) with what it takes: root may, others become root of a namespace of users first."""
    return [program("unshare"), "-n"] if os.geteuid() == 0 else [program("unshare"), "-U", "-r", "-n"]


@functools.cache
def _reason() -> str:
    """Why none can be started here; empty if one can."""
    programs = are_installed("samba", "samba-tool", "unshare", "ip", "ldapmodify")
    if not (programs and all(Path(file).exists() for file in (_PYTHON, _SETUP))):
        return f"apt-get install {PACKAGES}"
    asked = [*_namespace(), "true"]
    if subprocess.run(asked, capture_output=True, check=False).returncode:
        return "network namespaces are needed, and 'unshare -n' is not permitted here"
    return ""


needs_samba = pytest.mark.skipif(bool(_reason()), reason=_reason())
"""For tests that start one."""


class Samba(Server):
    """One domain controller; a context manager that always stops what it started."""

    def __init__(
        self,
        *,
        schema: str = "none",
        services: Sequence[str] = ("ldap",),
        tls: tuple[Path, Path, Path] | None = None,
        options: Sequence[str] = (),
    ) -> None:
        """`schema` is "none" or "ldappolicy"; `tls` CA, certificate and key; `options` more of smb.conf."""
        super().__init__("samba", root_dn=ROOT_DN, root_pw=ROOT_PW, suffix=SUFFIX)
        self.socket_file = self.home / "private" / "ldapi"
        self.realm = REALM
        self._schema = schema
        self._services = services
        self._tls = tls
        self._options = options
        self.data = ""
        """LDIF that it has from the beginning: loaded once a run."""
        self.variables = _variables(self.home)

    def create(self) -> None:
        """A copy of the provisioned domain, with a configuration that points into it."""
        copy(self._template(), self.home)
        for name in ("cache", "lock", "run", f"state/sysvol/{REALM.lower()}/scripts"):
            (self.home / name).mkdir(parents=True, exist_ok=True)
        (self.home / "etc" / "smb.conf").write_text(self._configuration(), "utf-8")

    def command(self) -> list[str]:
        """Samba in the foreground, which is the process that was started: every step is an exec."""
        script = 'ip link set lo up && exec "$0" -i -M single --no-process-group -s "$1"'
        return [*_namespace(), "sh", "-c", script, program("samba"), str(self.home / "etc" / "smb.conf")]

    def user(self, dn: str, login: str, password: str, *lines: str) -> None:
        """A user who can bind with this DN; `lines` are more attributes, as LDIF."""
        quoted = base64.b64encode(f'"{password}"'.encode("utf-16-le")).decode("ascii")
        more = "".join(f"{line}\n" for line in lines)
        self.load(
            f"dn: {dn}\nobjectClass: user\nsAMAccountName: {login}\nuserAccountControl: 512\n"
            f"userPrincipalName: {login}@{REALM.lower()}\nunicodePwd:: {quoted}\n{more}"
        )

    def _template(self) -> Path:
        if self.data:
            digest = hashlib.sha256(self.data.encode()).hexdigest()
            return template(f"samba-{self._schema}-{digest}", self._filled)
        if self._schema == "ldappolicy":
            return template("samba-ldappolicy", _extended)
        return template("samba", _provisioned)

    def _filled(self, home: Path) -> None:
        with Samba(schema=self._schema) as empty:
            empty.load(self.data)
            empty.stop()
            (empty.home / "private" / "ldapi").unlink(missing_ok=True)
            copy(empty.home, home)

    def _configuration(self) -> str:
        tls = "    tls enabled = no"
        if self._tls:
            names = ("cafile", "certfile", "keyfile")
            lines = [f"    tls {name} = {file}" for name, file in zip(names, self._tls, strict=True)]
            tls = "\n".join(["    tls enabled = yes", *lines])
        return _CONFIG.format(
            home=self.home,
            realm=REALM,
            domain=REALM.lower(),
            services=", ".join(self._services),
            tls=tls,
            more="\n".join(f"    {option}" for option in self._options),
        )


def _variables(home: Path) -> dict[str, str]:
    """What Samba's programs find in their environment, so that they find no other files."""
    return {
        "SMB_CONF_PATH": str(home / "etc" / "smb.conf"),
        "KRB5_CONFIG": str(home / "krb5.conf"),
        # No domain outlives this machine: two thousand users are there in seconds, not in minutes.
        "TDB_NO_FSYNC": "1",
    }


def _provisioned(home: Path) -> None:
    # mkdtemp's folder is ours alone; Samba looks at the rights of what is in it.
    (home / "krb5.conf").touch()
    _python(home, _PROVISION, str(home), REALM, ROOT_PW)


def _extended(home: Path) -> None:
    """As an administrator would bring it in by hand, but without a server, which takes ten seconds for it."""
    text = PROJECT_SCHEMA.read_text("utf-8").replace("DC=X", SUFFIX)
    records = "".join(line for line in text.splitlines(keepends=True) if not line.startswith("#"))
    plain = Samba()
    try:
        plain.create()
        files = (plain.home / "etc" / "smb.conf", plain.home / "private" / "sam.ldb")
        _python(plain.home, _EXTEND, *map(str, files), text=records)
        copy(plain.home, home)
    finally:
        plain.remove()


def _python(home: Path, program_text: str, *arguments: str, text: str = "") -> None:
    """Samba's own Python, with its library."""
    done = subprocess.run(
        [*_namespace(), _PYTHON, "-c", program_text, *arguments],
        input=text,
        text=True,
        capture_output=True,
        check=False,
        env={**os.environ, **_variables(home)},
    )
    if done.returncode:
        raise RuntimeError(f"no domain provisioned: {done.stderr[-3000:]}")
