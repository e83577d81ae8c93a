"""A private 389 Directory Server for the tests: from nothing to an answer in half a second.

dscreate is not used, since it asks systemd to start what it made: the template that it fills is filled
here, and ns-slapd runs in the foreground. It listens on 127.0.0.1 (a port that was free) and on a socket
file, and runs as whoever runs the tests.

    with DS389(schema="ldappolicy", content_sync=True) as server:
        server.load(spoken(Path("schema/example.ldif").read_text()))
        ... server.uri, server.ldapi_uri, server.root_dn, server.root_pw

Anybody may read below the suffix from the first `load` on that brings the suffix in (its entry holds the
access control instruction); nobody but the Directory Manager writes.

BUGS: an orderly stop takes 2.5 s, so that leaving the context kills it. memberOf is kept for what comes in
over LDAP, as everything does here.
"""

import base64
import hashlib
import os
import pwd
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.labs.server import Server, are_installed, program
from tests.labs.slapd import free_port

ROOT_DN = "cn=Directory Manager"
ROOT_PW = "secretsecret"
PROJECT_SCHEMA = Path(__file__).parents[2] / "schema" / "99ldappolicy.ldif"

_DATA = Path("/usr/share/dirsrv")
_TEMPLATE = _DATA / "data" / "template-dse.ldif"
_COLLATION = 'collation "" "" "" 1 3 2.16.840.1.113730.3.3.2.0.1 default\n'

needs_389ds = pytest.mark.skipif(
    not (are_installed("ns-slapd", "certutil", "ldapmodify") and _TEMPLATE.exists()),
    reason="apt-get install 389-ds-base ldap-utils",
)
"""For tests that start one."""

READABLE = (
    '(targetattr != "userPassword")'
    '(version 3.0; acl "read"; allow (read, search, compare) userdn = "ldap:///anyone";)'
)

_BACKEND = """\
dn: cn=userRoot,cn=ldbm database,cn=plugins,cn=config
objectClass: top
objectClass: extensibleObject
objectClass: nsBackendInstance
cn: userRoot
nsslapd-suffix: %ds_suffix%
nsslapd-directory: %db_dir%/userRoot

dn: cn="%ds_suffix%",cn=mapping tree,cn=config
objectClass: top
objectClass: extensibleObject
objectClass: nsMappingTree
cn: %ds_suffix%
nsslapd-state: backend
nsslapd-backend: userRoot
"""

_INDEX = """\
dn: cn={name},cn=index,cn=userRoot,cn=ldbm database,cn=plugins,cn=config
objectClass: top
objectClass: nsIndex
cn: {name}
nsSystemIndex: false
nsIndexType: eq
"""
_INDEXES = (
    "mail mailAlternateAddress uid cn associatedDomain member uniqueMember memberUid owner memberOf "
    "gidNumber entryUUID nsUniqueId"
)

_PLUGIN = """\
dn: cn={name},cn=plugins,cn=config
objectClass: top
objectClass: nsSlapdPlugin
objectClass: extensibleObject
cn: {name}
nsslapd-pluginPath: lib{library}-plugin
nsslapd-pluginInitfunc: {name}_plugin_init
nsslapd-pluginType: {kind}
nsslapd-pluginEnabled: on
nsslapd-pluginId: {name}
nsslapd-pluginVersion: none
nsslapd-pluginVendor: 389 Project
nsslapd-pluginDescription: {name}
"""

MEMBER_OF = "MemberOf Plugin"
CHANGELOG = "Retro Changelog Plugin"
CONTENT_SYNC = "Content Synchronization"
REFINT = "referential integrity postoperation"

# What is said besides "on" in an entry of the template.
_MORE = {
    MEMBER_OF: "memberOfAutoAddOC: inetUser\n",
    CHANGELOG: "nsslapd-attribute: nsuniqueid:targetUniqueId\n",
    "config": """\
nsslapd-listenhost: 127.0.0.1
nsslapd-rootpwstoragescheme: SSHA512
nsslapd-accesslog-logging-enabled: {access_log}
nsslapd-accesslog-logbuffering: off
nsslapd-sizelimit: {size_limit}
nsslapd-lookthroughlimit: -1
nsslapd-idletimeout: {idle_timeout}
""",
}


def spoken(ldif: str) -> str:
    """LDIF as slapd has it, in this server's schema, where mailLocalAddress has another name."""
    words = {"inetLocalMailRecipient": "mailRecipient", "mailLocalAddress": "mailAlternateAddress"}
    return re.sub("|".join(words), lambda found: words[found[0]], ldif)


class DS389(Server):
    """One server with one database; a context manager that always stops what it started."""

    grace = 20.0

    def __init__(
        self,
        *,
        schema: str = "none",
        memberof: bool = True,
        content_sync: bool = False,
        changelog: bool = False,
        refint: bool = True,
        access_log: bool = False,
        size_limit: int = -1,
        idle_timeout: int = 0,
    ) -> None:
        """`schema` is "none" or "ldappolicy"; content synchronization brings the retro changelog along."""
        super().__init__("ds389", root_dn=ROOT_DN, root_pw=ROOT_PW)
        self.port = free_port()
        # A semaphore in /dev/shm bears this folder's name: one name for all would be one semaphore for all.
        self.conf = self.home / self.home.name
        self.access = self.home / "log" / "access"
        chosen = {
            MEMBER_OF: memberof,
            CHANGELOG: changelog or content_sync,
            CONTENT_SYNC: content_sync,
            REFINT: refint,
        }
        self._plugins = {name for name, wanted in chosen.items() if wanted}
        self._schema = schema
        self._settings = {
            "access_log": "on" if access_log else "off",
            "size_limit": str(size_limit),
            "idle_timeout": str(idle_timeout),
        }
        self._is_readable = False

    @property
    def uri(self) -> str:
        """ldap://, by address."""
        return f"ldap://127.0.0.1:{self.port}"

    def create(self) -> None:
        """The folders, configuration, schema, and a certificate store, without which it does not start."""
        conf = self.conf
        for name in (f"{conf.name}/schema", "db", "run", "log", "lock", "ldif", "bak", "tmp"):
            (self.home / name).mkdir(parents=True)
        (conf / "dse.ldif").write_text("\n".join(self._configuration()), "utf-8")
        # It does not start with an empty folder; the schema proper it takes from /usr/share.
        (conf / "schema" / "99user.ldif").write_text("dn: cn=schema\nobjectClass: top\ncn: schema\n", "ascii")
        if self._schema == "ldappolicy":
            shutil.copy(PROJECT_SCHEMA, conf / "schema")
        # Those in /etc/dirsrv are for the server's own user to read.
        (conf / "certmap.conf").write_text("certmap default default\n", "ascii")
        (conf / "slapd-collations.conf").write_text(_COLLATION, "ascii")
        store = [program("certutil"), "-N", "-d", str(conf), "--empty-password"]
        subprocess.run(store, check=True, capture_output=True)

    def command(self) -> list[str]:
        """ns-slapd in the foreground."""
        pid_file = self.home / "run" / "pid"
        return [program("ns-slapd"), "-D", str(self.conf), "-i", str(pid_file), "-d", "0"]

    def remove(self) -> None:
        """As `Server.remove`, with what a server that is killed leaves outside its home."""
        super().remove()
        Path(f"/dev/shm/sem.{self.conf.name}.stats").unlink(missing_ok=True)  # sem_overview(7)

    def load(self, ldif: Path | str, *, bind_dn: str = "", bind_pw: str = "") -> None:
        """As `Server.load`; the first that brings in the suffix makes everything readable."""
        text = ldif.read_text("utf-8") if isinstance(ldif, Path) else ldif
        super().load(text, bind_dn=bind_dn, bind_pw=bind_pw)
        if not self._is_readable and f"dn: {self.suffix}\n" in text:
            super().load(f"dn: {self.suffix}\nchangetype: modify\nadd: aci\naci: {READABLE}\n")
            self._is_readable = True

    def searches(self, part: str = "") -> int:
        """How many searches it was asked so far (that name `part` in base or filter), with `access_log`."""
        lines = self.access.read_text("utf-8", "replace").splitlines()
        return sum(" SRCH base=" in line and part in line for line in lines)

    def _listens(self) -> bool:
        if not super()._listens():
            return False
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except OSError:
            return False
        return True

    def _configuration(self) -> Iterator[str]:
        template = "\n".join((_TEMPLATE.read_text("utf-8"), *_uuid_plugins(), _BACKEND, *_indexes()))
        filled = re.sub(r"%(\w+)%", lambda found: self._values()[found[1]], template)
        for entry in re.split(r"\n\s*\n", filled.strip()):
            name = re.match(r"dn: cn=([^,\n]+)(,cn=plugins,cn=config)?\n", entry)
            yield self._chosen(name[1], entry) if name else entry + "\n"

    def _chosen(self, name: str, entry: str) -> str:
        if name in self._plugins:
            entry = re.sub(r"(?i)(nsslapd-pluginenabled): *off", r"\1: on", entry)
        elif name != "config":
            return entry + "\n"
        return entry + "\n" + _MORE.get(name, "").format(**self._settings)

    def _values(self) -> dict[str, str]:
        home = str(self.home)
        folders = {
            f"{name}_dir": f"{home}/{name}" for name in ("lock", "tmp", "ldif", "bak", "run", "log", "db")
        }
        return folders | {
            "schema_dir": f"{self.conf}/schema",
            "cert_dir": str(self.conf),
            "config_dir": str(self.conf),
            "db_home_dir": f"{home}/db",
            "inst_dir": home,
            "db_lib": "bdb",
            "instance_name": "test",
            "fqdn": "localhost",
            "ds_port": str(self.port),
            "ds_user": pwd.getpwuid(os.getuid()).pw_name,
            "ds_suffix": self.suffix,
            "rootdn": self.root_dn,
            "ds_passwd": _hashed(self.root_pw),
            "ldapi_enabled": "on",
            "ldapi": str(self.socket_file),
            "ldapi_autobind": "on",
        }


def _indexes() -> Iterator[str]:
    for name in _INDEXES.split():
        yield _INDEX.format(name=name)


def _uuid_plugins() -> Iterator[str]:
    """For entryUUID, which the template leaves out, where the server has them."""
    if (_DATA / "schema" / "03entryuuid.ldif").exists():
        yield _PLUGIN.format(name="entryuuid_syntax", library="entryuuid-syntax", kind="syntax")
        yield _PLUGIN.format(name="entryuuid", library="entryuuid", kind="betxnpreoperation")


def _hashed(password: str, salt: bytes = b"8 octets") -> str:
    """As cn=config wants it: it refuses a password in clear text."""
    digest = hashlib.sha512(password.encode() + salt).digest()
    return "{SSHA512}" + base64.b64encode(digest + salt).decode("ascii")
