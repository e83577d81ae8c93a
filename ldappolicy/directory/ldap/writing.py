"""Changes to a directory, one after the other, over ldap3's own Connection: `load`, `schema install`.

A command that imports entries may wait, so this is the blocking, synchronous half of the transport. It
takes the same settings, refuses the same things, and verifies TLS with the same context. What ldap3
would do of its own accord is shut off or walked around:

* referrals are never followed: it would send the password to whatever host one names;
* its `Tls` verifies nothing by default, asks for no name and cannot match an address: ours wraps the
  socket with the transport's context, and no bind is sent before the socket is known to be wrapped
  (`bind` opens a closed connection again, in clear text);
* its StartTLS drops what is said behind the answer: ours is an exchange of its own;
* its timeouts are for one `recv` each: a deadline of ours shuts the socket down when the whole
  operation has taken too long;
* `add` rewrites object classes and `modify` puts changes of one attribute together, out of their order:
  the requests are built here;
* errors come as exceptions, as False, or as True: the result code alone counts, each is looked at.

An operation that the server refuses is an InputError, one that it could not answer Unavailable; both
name the server, the DN and the result.

BUGS: after a deadline the operation may have been done all the same; and entries are read whole, so
that a group of a million members needs the memory for them.
"""

import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, Self

import ldap3
from ldap3.core.exceptions import LDAPException
from ldap3.operation.add import add_operation
from ldap3.operation.bind import bind_operation
from ldap3.protocol import rfc4511

from ldappolicy.directory import Scope
from ldappolicy.directory.ldap import gssapi, requests
from ldappolicy.directory.ldap.codec import (
    NO_SUCH_OBJECT,
    SUCCESS,
    Garbage,
    Result,
    decode,
    message_size,
)
from ldappolicy.directory.ldap.refusals import ATTEMPTS, INVALID_CREDENTIALS, RefusedSecret, in_words
from ldappolicy.directory.ldap.settings import Endpoint, LdapSettings, endpoints, password, tls_context
from ldappolicy.directory.loading import Attributes
from ldappolicy.errors import InputError, Unavailable
from ldappolicy.ldif import OPERATIONS, Modification
from ldappolicy.log import escaped

WRITE_TIMEOUT = 30.0
"""Seconds for one change: a write waits for disks, overlays and replicas, where a lookup does not."""

_PIECE = 4096
"""Octets that the answer to StartTLS may have."""

COMPARE_FALSE, COMPARE_TRUE = 5, 6
ENTRY_ALREADY_EXISTS = 68
# timeLimitExceeded, referral, busy, unavailable: not the fault of what was asked for.
_CANNOT_ANSWER = frozenset((3, 10, 51, 52))

# RFC 3296: an entry as it is stored. Without it slapo-dynlist adds what it computes, and compares DNs octet
# by octet. Only for reading: with a write, slapo-unique takes it for leave to skip its checks.
_MANAGE_DSA_IT = ("2.16.840.1.113730.3.4.2", False, None)
_ALL = "(objectClass=*)"
_ROOT_DSE = (
    "objectClass",
    "configContext",
    "vendorName",
    "rootDomainNamingContext",
    "dsServiceName",
    "schemaNamingContext",
    "namingContexts",
)
_SCOPES = {Scope.BASE: ldap3.BASE, Scope.ONE: ldap3.LEVEL, Scope.SUB: ldap3.SUBTREE}

# What ldap3 raises for a message that it cannot read, and for a socket that it has put away.
_GARBAGE = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)


class Writer:
    """One bound connection to one server, made by `connect`; a context manager that says goodbye."""

    def __init__(self, uri: str, connection: Any, timeout: float) -> None:
        self.uri = uri
        self._connection = connection
        self._timeout = timeout

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Say goodbye, whatever state the connection is in."""
        if self._connection.closed:
            return
        try:
            with _deadline(self._connection, self._timeout):
                self._connection.unbind()
        except (Unavailable, *_GARBAGE):
            _let_go(self._connection)

    def read(self, dn: str) -> Attributes | None:
        """The user attributes of an entry as they are stored, None when it is not there."""
        entries = self.search(dn, Scope.BASE, ("*",))
        return entries[0][1] if entries else None

    def root_dse(self) -> Attributes:
        """What the server says it is (RFC 4512 section 5.1), under names in lower case."""
        entries = self.search("", Scope.BASE, _ROOT_DSE)
        return {name.lower(): values for name, values in entries[0][1].items()} if entries else {}

    def search(self, base: str, scope: Scope, names: Sequence[str]) -> list[tuple[str, Attributes]]:
        """Entries with these attributes; none when the base is not there (or is not shown)."""
        result = self._ask(
            base,
            lambda: self._connection.search(
                _dn(base),
                _ALL,
                _SCOPES[scope],
                ldap3.DEREF_NEVER,
                attributes=list(names),
                controls=[_MANAGE_DSA_IT],
            ),
        )
        if result.code == NO_SUCH_OBJECT:
            return []
        self._check(base, "search", result)
        return [_entry(message) for message in self._connection.response or () if "dn" in message]

    def holds(self, dn: str, name: str, value: str) -> bool:
        """Whether the server takes an entry to have this value, by the attribute's matching rule."""
        controls = [_MANAGE_DSA_IT]
        result = self._ask(dn, lambda: self._connection.compare(_dn(dn), name, _octets(value), controls))
        return result.code == COMPARE_TRUE

    def add(self, dn: str, attributes: Attributes) -> bool:
        """Add an entry; False when one with this DN is there already."""
        octets = {name: [_octets(value) for value in values] for name, values in attributes.items()}
        result = self._send(dn, "addRequest", add_operation(_dn(dn), octets, auto_encode=False))
        if result.code == ENTRY_ALREADY_EXISTS:
            return False
        self._check(dn, "add", result)
        return True

    def modify(self, dn: str, modifications: Sequence[Modification]) -> None:
        """Modify an entry, all or nothing, in this order."""
        changes = rfc4511.Changes()
        for position, (operation, name, values) in enumerate(modifications):
            changes[position] = _change(operation, name, values)
        request = rfc4511.ModifyRequest()
        request["object"] = rfc4511.LDAPDN(_dn(dn))
        request["changes"] = changes
        self._check(dn, "modify", self._send(dn, "modifyRequest", request))

    def rename(self, dn: str, new_rdn: str, delete_old_rdn: bool, new_superior: str | None) -> None:
        """Rename or move an entry."""
        superior = _dn(new_superior) if new_superior is not None else None
        result = self._ask(
            dn, lambda: self._connection.modify_dn(_dn(dn), _dn(new_rdn), delete_old_rdn, superior)
        )
        self._check(dn, "rename", result)

    def delete(self, dn: str) -> None:
        """Delete an entry, which must not have any below it."""
        self._check(dn, "delete", self._ask(dn, lambda: self._connection.delete(_dn(dn))))

    def _send(self, dn: str, kind: str, request: Any) -> Result:
        connection = self._connection
        return self._ask(dn, lambda: connection.post_send_single_response(connection.send(kind, request)))

    def _ask(self, dn: str, operation: Callable[[], object]) -> Result:
        """The result of one operation, within the deadline."""
        connection = self._connection
        connection.result = None
        try:
            with _deadline(connection, self._timeout):
                operation()
                found = connection.result
                return Result(int(found["result"]), _diagnostic(found))
        except Unavailable as error:
            raise Unavailable(f"{dn}: {self.uri}: {error}") from error
        except _GARBAGE as error:
            raise Unavailable(f"{dn}: {self.uri}: an answer that cannot be read") from error

    def _check(self, dn: str, what: str, result: Result) -> None:
        if result.code == SUCCESS:
            return
        refused = f"{dn}: {what} refused by {self.uri}: {result}"
        raise Unavailable(refused) if result.code in _CANNOT_ANSWER else InputError(refused)


class Reader(Writer):
    """A Writer that reads, and does as if it wrote."""

    def __init__(self, writer: Writer) -> None:
        super().__init__(writer.uri, writer._connection, writer._timeout)  # noqa: SLF001

    def add(self, dn: str, attributes: Attributes) -> bool:
        """Whether it could be added."""
        return self.read(dn) is None

    def modify(self, dn: str, modifications: Sequence[Modification]) -> None:
        """Nothing."""

    def rename(self, dn: str, new_rdn: str, delete_old_rdn: bool, new_superior: str | None) -> None:
        """Nothing."""

    def delete(self, dn: str) -> None:
        """Nothing."""


def connect(settings: LdapSettings, write_timeout: float = WRITE_TIMEOUT) -> Writer:
    """A connection to the first server that takes one, bound; raises Unavailable with every reason."""
    reasons: list[str] = []
    refused = 0
    servers = endpoints(settings)
    context = tls_context(settings) if any(server.tls for server in servers) else None
    for server in servers:
        try:
            return Writer(server.uri, _open(server, settings, context), write_timeout)
        except Unavailable as error:
            reasons.append(f"{server.uri}: {error}")
            refused += isinstance(error, RefusedSecret)
        if refused == ATTEMPTS:
            break  # more would lock the account
    raise Unavailable("; ".join(reasons))


class _Tls(ldap3.Tls):  # type: ignore[misc]  # ldap3 has no types
    """ldap3's place for TLS, with the transport's context: verified as that says, with the server's name."""

    def __init__(self, context: ssl.SSLContext, host: str) -> None:
        super().__init__(validate=ssl.CERT_REQUIRED)
        self._context = context
        self._host = host

    def wrap_socket(self, connection: Any, do_handshake: bool = False) -> None:
        """See ldap3; the handshake comes last, so that the deadline finds the socket that it is on."""
        connection.socket = self._context.wrap_socket(
            connection.socket, server_hostname=self._host, do_handshake_on_connect=False
        )
        try:
            connection.socket.do_handshake()
        except ssl.SSLCertVerificationError as error:
            raise Unavailable(f"certificate not accepted: {error.verify_message.rstrip('.')}") from error


def _open(endpoint: Endpoint, settings: LdapSettings, context: ssl.SSLContext | None) -> Any:
    """A connection that is bound; the settings' timeout covers all of it."""
    connection = _connection(endpoint, settings, context)
    with ExitStack() as unfinished:
        unfinished.callback(_let_go, connection)
        try:
            with _deadline(connection, settings.timeout):
                connection.open(read_server_info=False)
                if endpoint.tls == "start":
                    _start_tls(connection)
                if connection.closed or (endpoint.tls and not isinstance(connection.socket, ssl.SSLSocket)):
                    raise Unavailable("no connection that could be bound")
                _bind(connection, endpoint, settings)
                connection.socket.settimeout(None)  # ldap3 leaves the one of the connect on it
        except _GARBAGE as error:
            raise Unavailable("an answer that cannot be read") from error
        unfinished.pop_all()
    return connection


def _start_tls(connection: Any) -> None:
    """Our own exchange: ldap3 drops what comes behind the answer, and what it cannot read."""
    connection.socket.sendall(requests.start_tls(1))
    said = b""
    try:
        while not 0 < (size := message_size(said)) <= len(said):
            if not (more := connection.socket.recv(_PIECE)) or len(said) > _PIECE:
                raise Unavailable("StartTLS: no answer")
            said += more
        _, result = decode(said[:size])
    except Garbage as error:
        raise Unavailable(f"StartTLS: not an LDAP message: {error}") from error
    if not isinstance(result, Result) or result.code != SUCCESS:
        raise Unavailable(f"StartTLS: {result}")
    if len(said) > size:
        # What was sent before TLS must not be read as if it had come through TLS.
        raise Unavailable("StartTLS: more than an answer in clear text")
    connection.server.tls.wrap_socket(connection)
    connection.tls_started = True


def _bind(connection: Any, endpoint: Endpoint, settings: LdapSettings) -> None:
    """Say who we are, if the settings want it."""
    if settings.bind == "none":
        return
    if settings.bind == "gssapi":
        result = _bind_gssapi(connection, endpoint, settings)
    else:
        connection.bind(read_server_info=False)
        result = Result(int(connection.result["result"]), _diagnostic(connection.result))
    if result.code != SUCCESS:
        kind = RefusedSecret if result.code == INVALID_CREDENTIALS else Unavailable
        raise kind(f"{settings.bind} bind {settings.bind_dn!r}: {in_words(result)}")


def _bind_gssapi(connection: Any, endpoint: Endpoint, settings: LdapSettings) -> Result:
    """Our own exchange: ldap3's needs another library for the channel binding, and its release has none."""

    def ask(token: bytes) -> Result:
        request = bind_operation(3, ldap3.SASL, "", None, gssapi.MECHANISM, token)
        connection.post_send_single_response(connection.send("bindRequest", request))
        said = connection.result
        return Result(int(said["result"]), _diagnostic(said), sasl_credentials=said["saslCreds"] or b"")

    tls = connection.socket if isinstance(connection.socket, ssl.SSLSocket) else None
    certificate = (tls.getpeercert(binary_form=True) if tls else None) or b""
    login = gssapi.Login(endpoint.host, certificate, settings.bind_dn, settings.timeout)
    try:
        return gssapi.authenticate_blocking(ask, login)
    except gssapi.Refused as error:
        kind = RefusedSecret if error.is_for_key else Unavailable
        raise kind(f"gssapi bind {settings.bind_dn!r}: {error}") from error


def _let_go(connection: Any) -> None:
    """Without a goodbye; ldap3 forgets a socket that it could not connect or wrap."""
    left = connection.socket
    connection.strategy.close()
    if left is not None:
        left.close()


def _connection(endpoint: Endpoint, settings: LdapSettings, context: ssl.SSLContext | None) -> Any:
    """ldap3's connection, closed, with its habits shut off."""
    server = ldap3.Server(
        # A socket file of that name; ldap3 undoes the quoting.
        f"ldapi://{endpoint.path.replace('%', '%25')}" if endpoint.path else endpoint.host,
        port=endpoint.port or None,
        use_ssl=endpoint.tls == "always",
        tls=_Tls(context, endpoint.host) if context is not None else None,
        get_info=ldap3.NONE,
        connect_timeout=settings.timeout,
        allowed_referral_hosts=[],
    )
    identity: dict[str, Any] = {}
    if settings.bind == "simple":
        secret = password(settings)  # bytes: a str would be changed by SASLprep
        identity = {"user": settings.bind_dn, "password": secret, "authentication": ldap3.SIMPLE}
    elif settings.bind == "sasl_external":
        identity = {"authentication": ldap3.SASL, "sasl_mechanism": ldap3.EXTERNAL, "sasl_credentials": b""}
    return ldap3.Connection(
        server,
        auto_bind=ldap3.AUTO_BIND_NONE,
        client_strategy=ldap3.SYNC,
        auto_referrals=False,
        auto_range=False,
        auto_encode=False,
        check_names=False,
        raise_exceptions=False,
        return_empty_attributes=False,
        **identity,
    )


@contextmanager
def _deadline(connection: Any, seconds: float) -> Iterator[None]:
    """Ends what goes on inside after so many seconds, and turns ldap3's exceptions into Unavailable."""
    expired = threading.Event()

    def expire() -> None:
        expired.set()
        if isinstance(connection.socket, socket.socket):
            _shut_down(connection.socket)

    timer = threading.Timer(seconds, expire)
    timer.daemon = True
    began = time.monotonic()
    timer.start()
    try:
        yield
    except (LDAPException, OSError, *_GARBAGE) as error:
        if expired.is_set() or time.monotonic() - began >= seconds:  # the socket's own timeout may be first
            raise Unavailable(f"no answer within {seconds:g} s") from error
        if isinstance(error, LDAPException | OSError):
            raise Unavailable(_reason(connection, error)) from error
        raise
    finally:
        timer.cancel()


def _shut_down(sock: socket.socket) -> None:
    with suppress(OSError):  # it was not connected, or is not any more
        # Not SSLSocket's own, which would take the TLS object away from whoever is reading.
        socket.socket.shutdown(sock, socket.SHUT_RDWR)


def _reason(connection: Any, error: BaseException) -> str:
    """The system's words if ldap3 passes them on, else its own, in one line."""
    text = escaped(str(connection.last_error or error))
    system = re.search(r"\[Errno -?[0-9]+\] (.+)", text)
    return system[1].lower() if system else text


def _entry(message: Any) -> tuple[str, Attributes]:
    raw = message["raw_attributes"]
    return str(message["dn"]), {name: tuple(map(_text, values)) for name, values in raw.items()}


def _change(operation: str, name: str, values: Sequence[str]) -> Any:
    change = rfc4511.Change()
    change["operation"] = rfc4511.Operation(OPERATIONS.index(operation))
    change["modification"] = rfc4511.PartialAttribute()
    change["modification"]["type"] = rfc4511.AttributeDescription(name)
    change["modification"]["vals"] = rfc4511.Vals()
    for position, value in enumerate(values):
        change["modification"]["vals"].setComponentByPosition(position, _octets(value))
    return change


def _diagnostic(result: Any) -> str:
    """What the server says besides the code: its message, and how far down it found the DN."""
    said = [str(result["message"])] if result["message"] else []
    if result["result"] == NO_SUCH_OBJECT:
        said.append(f"there is only {result['dn']!r}" if result["dn"] else "not a part of it is there")
    return escaped(", ".join(said))[:300]


def _dn(dn: str) -> str:
    """A DN that can be sent; ldap3 writes it as UTF-8."""
    if any("\udc80" <= letter <= "\udcff" for letter in dn):
        raise InputError(f"{escaped(dn)}: expected a DN in UTF-8")
    return dn


def _octets(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _text(octets: bytes) -> str:
    return octets.decode("utf-8", "surrogateescape")
