"""A private OpenLDAP server for the tests: from nothing to an open port in less than 0.1 s.

`slapadd -n 0` makes cn=config out of one LDIF, then slapd runs in the foreground, so that its pid is
the one we started. It runs as whoever runs the tests, root or not, and listens on 127.0.0.1 (a port
that was free) and on a socket file; with certificates also with StartTLS and ldaps.

    with Slapd(schema="ldappolicy") as slapd:
        slapd.load(Path("schema/example.ldif"))
        ... slapd.uri, slapd.ldapi_uri, slapd.root_dn, slapd.root_pw

slapd.log holds the statistics log; `searches()` counts in it.

BUGS: Debian's slapd looks for /etc/ldap/sasl2/slapd.conf, which nothing can keep it from; no package brings
one. slapadd (`data`) does not run slapo-memberof: groups loaded that way give no memberOf.
"""

import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import pytest
import trustme

from tests.labs.ports import free_port as free_port
from tests.labs.server import SUFFIX as SUFFIX
from tests.labs.server import Server, are_installed, program, run
from tests.labs.server import wait_until as wait_until

CONFIG_DN = "cn=admin,cn=config"
ROOT_PW = "secret"
PROJECT_SCHEMA = Path(__file__).parents[2] / "schema" / "ldappolicy.ldif"

READABLE = ("to attrs=userPassword by anonymous auth by * none", "to * by * read")
"""The default access rules."""

OVERLAYS = {
    "memberof": """\
objectClass: olcMemberOfConfig
olcMemberOfGroupOC: groupOfNames
olcMemberOfMemberAD: member
olcMemberOfMemberOfAD: memberOf
olcMemberOfRefInt: TRUE
olcMemberOfDangling: ignore
""",
    "refint": """\
objectClass: olcRefintConfig
olcRefintAttribute: member
olcRefintAttribute: uniqueMember
olcRefintNothing: cn=nobody
""",
    "dynlist": """\
objectClass: olcDynListConfig
olcDynListAttrSet: groupOfURLs memberURL member
""",
    # In place of memberof and dynlist: memberOf is computed, for nested groups too.
    "dynlist_nested": """\
objectClass: olcDynListConfig
olcDynListAttrSet: groupOfURLs memberURL member+memberOf@groupOfNames*
""",
    "syncprov": """\
objectClass: olcSyncProvConfig
olcSpCheckpoint: 100 1
olcSpSessionlog: 10000
""",
}
STORED = ("memberof", "refint", "dynlist", "syncprov")
NESTED = ("refint", "dynlist_nested", "syncprov")
PLAIN: tuple[str, ...] = ()

_MODULES = ("/usr/lib/ldap", "/usr/lib/openldap", "/usr/lib64/openldap", "/usr/libexec/openldap")
# No setting of the machine's: the package brings these definitions here, and nowhere else.
_SCHEMAS = ("/etc/ldap/schema", "/etc/openldap/schema")
_INDEXES = (
    "objectClass entryUUID entryCSN mail mailLocalAddress uid cn associatedDomain "
    "member uniqueMember memberUid gidNumber"
)

CONFIG = """\
dn: cn=config
objectClass: olcGlobal
cn: config
olcPidFile: {home}/slapd.pid
olcArgsFile: {home}/slapd.args
olcThreads: 4
olcConnMaxPending: 1000
olcConnMaxPendingAuth: 1000
{tls}
dn: cn=module{{0}},cn=config
objectClass: olcModuleList
cn: module{{0}}
olcModulePath: {modules}
olcModuleLoad: back_mdb
olcModuleLoad: memberof
olcModuleLoad: refint
olcModuleLoad: dynlist
olcModuleLoad: syncprov

dn: cn=schema,cn=config
objectClass: olcSchemaConfig
cn: schema

{schemas}
dn: olcDatabase={{-1}}frontend,cn=config
objectClass: olcDatabaseConfig
objectClass: olcFrontendConfig
olcDatabase: {{-1}}frontend

dn: olcDatabase={{0}}config,cn=config
objectClass: olcDatabaseConfig
olcDatabase: {{0}}config
olcRootDN: cn=admin,cn=config
olcRootPW: {root_pw}
olcAccess: {{0}}to *
  by dn.exact=gidNumber={gid}+uidNumber={uid},cn=peercred,cn=external,cn=auth manage
  by * none

dn: olcDatabase={{1}}mdb,cn=config
objectClass: olcDatabaseConfig
objectClass: olcMdbConfig
olcDatabase: {{1}}mdb
olcSuffix: {suffix}
olcRootDN: {root_dn}
olcRootPW: {root_pw}
olcSizeLimit: {size_limit}
olcDbDirectory: {home}/db
olcDbMaxSize: 1073741824
olcDbEnvFlags: nosync
olcDbEnvFlags: writemap
{indexes}
{access}
{overlays}"""


def require_slapd() -> str:
    """The slapd program; a test that asks for it is skipped where there is none."""
    if not are_installed("slapd", "slapadd", "ldapmodify"):
        pytest.skip("install slapd: apt-get install slapd ldap-utils")
    return program("slapd")


@dataclass(frozen=True, slots=True)
class Certificates:
    """A certificate authority of our own, one server certificate and one client certificate."""

    ca_file: Path
    cert_file: Path
    key_file: Path
    client_cert_file: Path
    client_key_file: Path

    @classmethod
    def issue(cls, directory: Path, *names: str) -> Self:
        """Write them into `directory`, for the host names or addresses given (else loopback's)."""
        authority = trustme.CA()
        files = cls(
            *(directory / name for name in ("ca.pem", "server.pem", "server.key", "amy.pem", "amy.key"))
        )
        authority.cert_pem.write_to_path(files.ca_file)
        server = authority.issue_cert(*(names or ("127.0.0.1", "localhost")))
        client = authority.issue_cert("amy@example.com", common_name="amy")
        for leaf, cert_file, key_file in (
            (server, files.cert_file, files.key_file),
            (client, files.client_cert_file, files.client_key_file),
        ):
            leaf.private_key_pem.write_to_path(key_file)
            for number, blob in enumerate(leaf.cert_chain_pems):
                blob.write_to_path(cert_file, append=number > 0)
        return files


class Slapd(Server):
    """One server with one database; a context manager that always stops what it started."""

    def __init__(
        self,
        *,
        overlays: Sequence[str] = STORED,
        schema: str = "none",
        suffix: str = SUFFIX,
        access: Sequence[str] = READABLE,
        data: str = "",
        certificates: Certificates | None = None,
        size_limit: str = "unlimited",
        idle_timeout: int = 0,
    ) -> None:
        """`schema` is "none" or "ldappolicy"; `data` is LDIF for slapadd; `overlays` name OVERLAYS."""
        super().__init__("slapd", root_dn=f"cn=root,{suffix}", root_pw=ROOT_PW, suffix=suffix)
        self.port = free_port()
        self.tls_port = free_port() if certificates else 0
        self._schema = schema
        self._overlays = tuple(overlays)
        self._access = tuple(access)
        self._data = data
        self._certificates = certificates
        self._size_limit = size_limit
        self._idle_timeout = idle_timeout

    @property
    def uri(self) -> str:
        """ldap://, by address."""
        return f"ldap://127.0.0.1:{self.port}"

    @property
    def ldaps_uri(self) -> str:
        """ldaps://, by address; there only with certificates."""
        return f"ldaps://127.0.0.1:{self.tls_port}"

    def create(self) -> None:
        """cn=config, and the data."""
        for name in ("conf", "db"):
            (self.home / name).mkdir()
        run(["slapadd", "-n", "0", "-F", str(self.home / "conf")], self._config())
        if self._data:
            # Without -w: with TLS in cn=config it aborts ("double free").
            run(["slapadd", "-q", "-n", "1", "-F", str(self.home / "conf")], self._data)

    def command(self) -> list[str]:
        """Slapd in the foreground, with the ports it had."""
        listen = [self.uri + "/", self.ldapi_uri + "/"] + [self.ldaps_uri + "/"] * bool(self.tls_port)
        return [program("slapd"), "-F", str(self.home / "conf"), "-h", " ".join(listen), "-d", "stats"]

    def probe(self) -> None:
        """Its port."""
        socket.create_connection(("127.0.0.1", self.port), 1).close()

    def start(self) -> None:
        """As `Server.start`; what listens has been counted, so that callers may count from here."""
        greeted = self.connections() if self.log.exists() else 0
        super().start()
        wait_until(lambda: self.connections() > greeted)

    def configure(self, ldif: str) -> None:
        """Change cn=config of the running server."""
        run(["ldapmodify", "-a", "-x", "-H", self.ldapi_uri, "-D", CONFIG_DN, "-w", ROOT_PW], ldif)

    def searches(self, part: str = "") -> int:
        """How many searches it was asked so far (that name `part` in base or filter)."""
        lines = self.log.read_text("utf-8", "replace").splitlines()
        return sum(" SRCH base=" in line and part in line for line in lines)

    def connections(self) -> int:
        """How many connections it has accepted so far."""
        return self.log.read_text("utf-8", "replace").count(" ACCEPT from ")

    def _config(self) -> str:
        names = ("core", "cosine", "inetorgperson", "nis", "dyngroup", "misc")
        files = [Path(_first(_SCHEMAS)) / f"{name}.ldif" for name in names]
        files += [PROJECT_SCHEMA] if self._schema == "ldappolicy" else []
        return CONFIG.format(
            home=self.home,
            tls=self._tls() + f"olcIdleTimeout: {self._idle_timeout}\n",
            modules=_first(_MODULES),
            schemas="".join(f"include: {file.as_uri()}\n\n" for file in files),
            suffix=self.suffix,
            root_dn=self.root_dn,
            root_pw=self.root_pw,
            size_limit=self._size_limit,
            uid=os.getuid(),
            gid=os.getgid(),
            indexes="\n".join(f"olcDbIndex: {name} eq" for name in _INDEXES.split()),
            access="".join(f"olcAccess: {{{n}}}{rule}\n" for n, rule in enumerate(self._access)),
            overlays="".join(_overlay(name) for name in self._overlays),
        )

    def _tls(self) -> str:
        if self._certificates is None:
            return ""
        return (
            f"olcTLSCACertificateFile: {self._certificates.ca_file}\n"
            f"olcTLSCertificateFile: {self._certificates.cert_file}\n"
            f"olcTLSCertificateKeyFile: {self._certificates.key_file}\n"
            "olcTLSVerifyClient: try\n"
        )


def _overlay(name: str) -> str:
    overlay = "dynlist" if name == "dynlist_nested" else name
    head = f"dn: olcOverlay={overlay},olcDatabase={{1}}mdb,cn=config\n"
    return head + f"objectClass: olcOverlayConfig\nolcOverlay: {overlay}\n{OVERLAYS[name]}\n"


def _first(places: Sequence[str]) -> str:
    return next((place for place in places if Path(place).is_dir()), places[0])
