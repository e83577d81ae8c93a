"""What an LDAP directory is told: the servers, how to bind, how to prove who they are.

`LdapSettings` holds plain values under the names of the `[directory]` section. `Endpoint` is one URI
taken apart. What cannot work, or would send a password where others can read it, is a ConfigError
before anything is connected.
"""

import ipaddress
import ssl
import stat
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

from ldappolicy.directory import Search
from ldappolicy.directory.ldap import gssapi
from ldappolicy.errors import ConfigError, Unavailable

BINDS = ("none", "simple", "sasl_external", "gssapi")

DEFAULT_SOCKET = "/var/run/slapd/ldapi"
"""What `ldapi:///` means: Debian's place; each distribution has its own."""

_PORTS = {"ldap": 389, "ldaps": 636, "ldapi": 0}
_SCHEMES = ", ".join(f"{scheme}://" for scheme in _PORTS)


@dataclass(frozen=True, slots=True)
class LdapSettings:
    """`start_tls` concerns the ldap:// URIs; `timeout` and `proof_interval` are in seconds.

    `suited` are what servers may be (`Features.profile`); none: whatever they are.
    """

    uris: Sequence[str]
    bind: str = "none"
    bind_dn: str = ""
    bind_pw_file: str = ""
    allow_cleartext: bool = False
    start_tls: bool = False
    tls_ca_cert_file: str = ""
    tls_cert_file: str = ""
    tls_key_file: str = ""
    tls_require_cert: bool = True
    timeout: float = 2.0
    connections: int = 1
    proofs: Sequence[Search] = ()
    suited: Collection[str] = ()
    proof_interval: float = 30.0


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where one URI leads: `path` of a socket, or host and port; `tls` is "", "start" or "always"."""

    uri: str
    host: str
    port: int
    path: str
    tls: str

    @property
    def is_private(self) -> bool:
        """Whether nobody else reads along: TLS, a socket file, or loopback."""
        return bool(self.tls or self.path) or _is_loopback(self.host)


def endpoints(settings: LdapSettings) -> tuple[Endpoint, ...]:
    """The URIs, in order; raises ConfigError with every complaint about the settings."""
    found: list[Endpoint] = []
    complaints: list[str] = []
    for uri in settings.uris:
        try:
            found.append(_endpoint(uri, settings.start_tls))
        except ValueError as error:
            complaints.append(f"uri: {uri!r}: {error}")
    complaints += _complaints(settings, found)
    if complaints:
        raise ConfigError(*complaints)
    return tuple(found)


def tls_context(settings: LdapSettings) -> ssl.SSLContext:
    """The context for ldaps and StartTLS; certificate and host name are verified unless told not to."""
    try:
        context = ssl.create_default_context(cafile=settings.tls_ca_cert_file or None)
        if settings.tls_cert_file:
            context.load_cert_chain(settings.tls_cert_file, settings.tls_key_file or None)
    except (OSError, ValueError) as error:
        files = (settings.tls_ca_cert_file, settings.tls_cert_file, settings.tls_key_file)
        named = ", ".join(repr(name) for name in files if name)
        raise ConfigError(f"cannot load the TLS files {named}: {error}") from error
    if not settings.tls_require_cert:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def password(settings: LdapSettings) -> bytes:
    """The password, read now: a changed file is used by the next connection."""
    try:
        # The line end is the editor's, not the password's.
        secret = Path(settings.bind_pw_file).read_bytes().rstrip(b"\r\n")
    except OSError as error:
        raise Unavailable(f"bind_pw_file: {settings.bind_pw_file!r}: {error.strerror}") from error
    if not secret:
        # RFC 4513 section 5.1.2: a bind with a name and no password "succeeds" as nobody.
        raise Unavailable(f"bind_pw_file: {settings.bind_pw_file!r} is empty")
    return secret


def exposed(settings: LdapSettings) -> Iterator[tuple[str, str]]:
    """The keys of secret files that everybody on this machine may read, with what they name."""
    files = {"tls_key_file": settings.tls_key_file}
    if settings.bind == "simple":
        files["bind_pw_file"] = settings.bind_pw_file
    if settings.bind == "gssapi":
        files["bind"] = gssapi.keytab()
    for key, name in files.items():
        if name and _is_exposed(Path(name).absolute()):
            yield key, name


def _is_exposed(path: Path) -> bool:
    """Whether others may read it, and enter the folders that it is in."""
    try:
        found = path.resolve(strict=True)
        folders = (folder.stat().st_mode & stat.S_IXOTH for folder in found.parents)
        return bool(found.stat().st_mode & stat.S_IROTH) and all(folders)
    except OSError:
        return False


def credentials(settings: LdapSettings) -> bytes:
    """What the server, or the KDC, may refuse: the password, or what the files of keys and tickets hold."""
    if settings.bind == "simple":
        return password(settings)
    return gssapi.keys() if settings.bind == "gssapi" else b""


def _endpoint(uri: str, start_tls: bool) -> Endpoint:
    parts = urlsplit(uri)
    if parts.scheme not in _PORTS:
        raise ValueError(f"expected {_SCHEMES}")
    if parts.path not in ("", "/") or parts.query or parts.fragment or parts.username is not None:
        raise ValueError("expected a server only, without a DN or a user")
    if parts.scheme == "ldapi":
        return _socket(uri, parts)
    if not parts.hostname:
        raise ValueError("expected a host name")
    try:
        parts.hostname.encode("idna")
    except UnicodeError:
        raise ValueError("expected a host name with labels of 1 to 63 characters") from None
    tls = "always" if parts.scheme == "ldaps" else "start" if start_tls else ""
    return Endpoint(uri, parts.hostname, parts.port or _PORTS[parts.scheme], "", tls)


def _socket(uri: str, parts: SplitResult) -> Endpoint:
    path = unquote(parts.netloc) or DEFAULT_SOCKET
    if not path.startswith("/"):
        raise ValueError("expected the path of a socket with %2F for each slash")
    return Endpoint(uri, "", 0, path, "")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _complaints(settings: LdapSettings, found: Sequence[Endpoint]) -> Iterator[str]:
    if not settings.uris:
        yield "uri: expected at least one server"
    if settings.bind not in BINDS:
        yield f"bind: {settings.bind!r}: expected one of {', '.join(BINDS)}"
    if settings.timeout <= 0:
        yield f"timeout: {settings.timeout!r}: expected more than nothing"
    if settings.proof_interval <= 0:
        yield f"proof_interval: {settings.proof_interval!r}: expected more than nothing"
    if settings.connections < 1:
        yield f"connections: {settings.connections!r}: expected at least 1"
    if settings.tls_key_file and not settings.tls_cert_file:
        yield "tls_key_file: expected tls_cert_file with it"
    if settings.bind == "simple":
        yield from _complaints_simple(settings, found)
    if settings.bind == "sasl_external":
        yield from _complaints_external(settings, found)
    if settings.bind == "gssapi":
        yield from _complaints_gssapi(settings, found)


def _complaints_simple(settings: LdapSettings, found: Sequence[Endpoint]) -> Iterator[str]:
    if not settings.bind_dn:
        yield "bind_dn: expected one for bind = 'simple'"
    if not settings.bind_pw_file:
        yield "bind_pw_file: expected one for bind = 'simple'"
    else:
        try:
            password(settings)
        except Unavailable as error:
            yield str(error)
    for endpoint in found:
        if not endpoint.is_private and not settings.allow_cleartext:
            yield f"uri: {endpoint.uri!r}: a simple bind without TLS needs allow_cleartext = true"


def _complaints_external(settings: LdapSettings, found: Sequence[Endpoint]) -> Iterator[str]:
    for endpoint in found:
        if not endpoint.path and not (endpoint.tls and settings.tls_cert_file):
            yield f"uri: {endpoint.uri!r}: bind = 'sasl_external' needs ldapi:// or TLS with tls_cert_file"


def _complaints_gssapi(settings: LdapSettings, found: Sequence[Endpoint]) -> Iterator[str]:
    if not gssapi.is_installed():
        yield "bind: 'gssapi' needs the Python library gssapi: pip install gssapi"
    for endpoint in found:
        if not endpoint.is_private and not settings.allow_cleartext:
            # Nobody could read a password, but what the server answers could be changed on the way.
            yield f"uri: {endpoint.uri!r}: bind = 'gssapi' without TLS needs allow_cleartext = true"
