"""A private OpenLDAP server for the tests: from nothing to an open port in less than 0.1 s.

`slapadd -n 0` makes cn=config out of one LDIF, then slapd runs in the foreground, so that its pid is
the one we started. It runs as whoever runs the tests, root or not, and listens on 127.0.0.1 (a port
that was free) and on a socket file; with certificates also with StartTLS and ldaps.

    with Slapd(schema="ldappolicy") as slapd:
        slapd.load(Path("schema/example.ldif"))
        ... slapd.uri, slapd.ldapi_uri, slapd.root_dn, slapd.root_pw

slapd.log holds the statistics log; `searches()` counts in it.

BUGS: slapadd (`data`) does not run slapo-memberof: groups loaded that way give no memberOf.
"""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

import pytest
import trustme

SUFFIX = "dc=example,dc=com"
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

_SBIN = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin", "/usr/libexec"))
_MODULES = ("/usr/lib/ldap", "/usr/lib/openldap", "/usr/lib64/openldap", "/usr/libexec/openldap")
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
    if not all(shutil.which(name, path=_SBIN) for name in ("slapd", "slapadd", "ldapmodify")):
        pytest.skip("install slapd: apt-get install slapd ldap-utils")
    return _program("slapd")


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(condition: Callable[[], object], timeout: float = 10.0) -> None:
    """Return once the condition holds; fail after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"still not so after {timeout} s: {condition}")
        time.sleep(0.003)


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


class Slapd:
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
        self.suffix = suffix
        self.root_dn = f"cn=root,{suffix}"
        self.root_pw = ROOT_PW
        self.port = free_port()
        self.tls_port = free_port() if certificates else 0
        # Not pytest's tmp_path: the path of a socket file may have 107 bytes.
        self.home = Path(tempfile.mkdtemp(prefix="slapd-"))
        self.log = self.home / "slapd.log"
        self._schema = schema
        self._overlays = tuple(overlays)
        self._access = tuple(access)
        self._data = data
        self._certificates = certificates
        self._size_limit = size_limit
        self._idle_timeout = idle_timeout
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def uri(self) -> str:
        """ldap://, by address."""
        return f"ldap://127.0.0.1:{self.port}"

    @property
    def ldaps_uri(self) -> str:
        """ldaps://, by address; there only with certificates."""
        return f"ldaps://127.0.0.1:{self.tls_port}"

    @property
    def ldapi_uri(self) -> str:
        """ldapi:// with the percent-encoded path of the socket file."""
        return "ldapi://" + quote(str(self.home / "ldapi"), safe="")

    @property
    def pid(self) -> int:
        """The server's process id."""
        return self._running().pid

    def __enter__(self) -> Self:
        try:
            self._create()
            self.start()
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()

    def start(self) -> None:
        """Start (again), with the data and the ports it had; return when it listens."""
        listen = [self.uri + "/", self.ldapi_uri + "/"] + [self.ldaps_uri + "/"] * bool(self.tls_port)
        command = [_program("slapd"), "-F", str(self.home / "conf"), "-h", " ".join(listen), "-d", "stats"]
        with self.log.open("ab") as log:
            greeted = self.connections()
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        wait_until(self._listens)
        wait_until(lambda: self.connections() > greeted)  # so that callers may count from here

    def stop(self) -> None:
        """End it in an orderly way, also when it is suspended; nothing when it does not run."""
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            self._process.send_signal(signal.SIGCONT)
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._process.wait()
        self._process = None

    def kill(self) -> None:
        """End it without a goodbye."""
        process = self._running()
        process.kill()
        process.wait()
        self._process = None

    def restart(self) -> None:
        """Stop and start: the same data, every connection gone."""
        self.stop()
        self.start()

    def suspend(self) -> None:
        """It still has its sockets, and says nothing more."""
        self._running().send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.pid, os.WSTOPPED)  # until then it may answer

    def resume(self) -> None:
        """After `suspend`."""
        self._running().send_signal(signal.SIGCONT)

    def remove(self) -> None:
        """Stop it and delete its files."""
        self.stop()
        shutil.rmtree(self.home, ignore_errors=True)

    def load(self, ldif: Path | str, *, bind_dn: str = "", bind_pw: str = "") -> None:
        """Import LDIF, a file (Path) or the text itself: entries and change records, as the root DN."""
        text = ldif.read_text("utf-8") if isinstance(ldif, Path) else ldif
        who = ["-D", bind_dn or self.root_dn, "-w", bind_pw or self.root_pw]
        _run(["ldapmodify", "-a", "-x", "-H", self.ldapi_uri, *who], text)

    def configure(self, ldif: str) -> None:
        """Change cn=config of the running server."""
        _run(["ldapmodify", "-a", "-x", "-H", self.ldapi_uri, "-D", CONFIG_DN, "-w", ROOT_PW], ldif)

    def searches(self, part: str = "") -> int:
        """How many searches it was asked so far (that name `part` in base or filter)."""
        lines = self.log.read_text("utf-8", "replace").splitlines()
        return sum(" SRCH base=" in line and part in line for line in lines)

    def connections(self) -> int:
        """How many connections it has accepted so far."""
        return self.log.read_text("utf-8", "replace").count(" ACCEPT from ")

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError("slapd does not run")
        return self._process

    def _listens(self) -> bool:
        if self._running().poll() is not None:
            raise RuntimeError(f"slapd did not start: {self.log.read_text('utf-8', 'replace')[-2000:]}")
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except OSError:
            return False
        return True

    def _create(self) -> None:
        for name in ("conf", "db"):
            (self.home / name).mkdir()
        _run(["slapadd", "-n", "0", "-F", str(self.home / "conf")], self._config())
        if self._data:
            # Without -w: with TLS in cn=config it aborts ("double free").
            _run(["slapadd", "-q", "-n", "1", "-F", str(self.home / "conf")], self._data)

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


def _program(name: str) -> str:
    return shutil.which(name, path=_SBIN) or name


def _run(command: list[str], text: str) -> None:
    program = [_program(command[0]), *command[1:]]
    done = subprocess.run(
        program, input=text.encode("utf-8", "surrogateescape"), capture_output=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{command[0]}: {done.stderr.decode('utf-8', 'replace').strip()}")
