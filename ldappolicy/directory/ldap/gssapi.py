"""Who we are by Kerberos: the SASL mechanism GSSAPI, RFC 4752, for `bind = "gssapi"`.

Tickets come from where Kerberos has them: the cache that KRB5CCNAME names (else krb5.conf, or the library's
default), filled and renewed with the keys of the client keytab, which KRB5_CLIENT_KTNAME names. `bind_dn`
may name the principal; without it, the cache's or the keytab's first one is it. The server has to
hold the key of `ldap/HOST`, where HOST is the one of the URI, or this machine's own name where that
says loopback or a socket file.

The server proves itself as we do, or nothing it says is believed. No security layer is negotiated:
TLS protects what follows, and the proof is tied to it (tls-server-end-point, RFC 5929), so that it
cannot be passed on to another server. A server that insists on a layer is refused. Credentials are
not delegated.

The KDC is asked on a thread of its own, which nobody waits for longer than for the connection, nor the end
of the program; a KDC that does not answer can hold up only a few.

BUGS: a ticket in the cache is used until it expires, also when the server's key has changed. Where neither
keytab nor cache is a file that the environment names, other keys than the refused ones are not noticed: they
are tried when `refusals.REST` has passed.
"""

import asyncio
import hashlib
import importlib.util
import ipaddress
import os
import socket
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from pyasn1.codec.der import decoder
from pyasn1.error import PyAsn1Error

from ldappolicy.directory.ldap import codec
from ldappolicy.errors import Unavailable
from ldappolicy.log import escaped

if TYPE_CHECKING:
    from gssapi.raw.misc import GSSError

MECHANISM = "GSSAPI"
MAX_ASKING = 8
"""Threads that may wait for a KDC; libkrb5 gives up by itself after a while, 5 to 30 s."""

_KDC_SHARE = 0.8
"""The part of the timeout that the KDC may use up, so that it can be told from a silent server."""

_NO_LAYER = 1  # RFC 4752 section 3.3: a bit for each security layer, then the largest message in 3 octets

# The digest of the certificate's signature, MD5 and SHA-1 replaced: RFC 5929 section 4.1.
_DIGESTS = {
    "1.2.840.113549.1.1.4": "sha256",
    "1.2.840.113549.1.1.5": "sha256",
    "1.2.840.113549.1.1.11": "sha256",
    "1.2.840.113549.1.1.12": "sha384",
    "1.2.840.113549.1.1.13": "sha512",
    "1.2.840.10045.4.1": "sha256",
    "1.2.840.10045.4.3.2": "sha256",
    "1.2.840.10045.4.3.3": "sha384",
    "1.2.840.10045.4.3.4": "sha512",
}

# com_err numbers of libkrb5 (krb5_err.et): those of the protocol, RFC 4120 section 7.5.9, from here on.
_KDC_ERRORS = 2**32 - 1765328384
# CLIENT_REVOKED, KEY_EXPIRED, PREAUTH_FAILED, BAD_INTEGRITY.
_REFUSED_KEYS = frozenset((18, 23, 24, 31))

_turns = threading.BoundedSemaphore(MAX_ASKING)


class Refused(Unavailable):
    """No ticket, or a server that did not prove what it has to; `is_for_key`: the KDC does not take ours."""

    def __init__(self, *reasons: str, is_for_key: bool = False) -> None:
        super().__init__(*reasons)
        self.is_for_key = is_for_key


@dataclass(frozen=True, slots=True)
class Login:
    """Who binds where: the URI's host (empty for a socket file), TLS's certificate of the server (DER,
    empty without TLS), the principal or nothing, and the seconds that the connection may take.
    """

    host: str
    certificate: bytes
    principal: str
    timeout: float

    @property
    def patience(self) -> float:
        """The seconds that the KDC may take."""
        return _KDC_SHARE * self.timeout


class Unwrapped(Protocol):
    """What gssapi makes of a wrapped message."""

    @property
    def message(self) -> bytes:
        """What was wrapped."""


class Context(Protocol):
    """The part of `gssapi.SecurityContext` that is needed here."""

    @property
    def complete(self) -> bool:
        """Whether both have proved who they are."""

    def step(self, token: bytes | None = None) -> bytes | None:
        """The next token of ours."""

    def wrap(self, message: bytes, encrypt: bool) -> Unwrapped:
        """The message with a proof that we said it."""

    def unwrap(self, message: bytes) -> Unwrapped:
        """The message, when the other side said it."""


class GssapiClient:
    """Our side of the exchange: challenges in, responses out; `done` when the server may say success."""

    def __init__(self, context: Context) -> None:
        self.done = False
        self._context = context

    def step(self, challenge: bytes) -> bytes:
        """The response to a challenge, the first of which is empty; raises Refused."""
        from gssapi.raw.misc import GSSError

        if self.done:
            raise Refused("the server asks for more than the mechanism has")
        try:
            if not self._context.complete:
                return self._context.step(challenge or None) or b""
            layers = self._context.unwrap(challenge).message
            if len(layers) != 4 or not layers[0] & _NO_LAYER:
                raise Refused(f"the server insists on a security layer of SASL: {layers[:8].hex()}")
            response = self._context.wrap(bytes((_NO_LAYER, 0, 0, 0)), False).message
        except GSSError as error:
            raise _refusal(error) from error
        self.done = True
        return response

    def goes_on(self, result: codec.Result) -> bool:
        """Whether the server's answer is a challenge; its success counts when it has proved who it is."""
        if result.code == codec.SUCCESS and not self.done:
            raise Refused("the server says success without having proved who it is")
        return result.code == codec.SASL_BIND_IN_PROGRESS


async def authenticate(ask: Callable[[bytes], Awaitable[codec.Result]], login: Login) -> codec.Result:
    """The result of the bind; `ask` sends one SASL bind request."""
    try:
        async with asyncio.timeout(login.patience):
            client, response = await asyncio.wrap_future(begin(login))
    except TimeoutError:
        raise Refused(_silence(login)) from None
    while True:
        result = await ask(response)
        if not client.goes_on(result):
            return result
        response = client.step(result.sasl_credentials)


def authenticate_blocking(ask: Callable[[bytes], codec.Result], login: Login) -> codec.Result:
    """The same for who may block."""
    try:
        client, response = begin(login).result(login.patience)
    except TimeoutError:
        raise Refused(_silence(login)) from None
    while True:
        result = ask(response)
        if not client.goes_on(result):
            return result
        response = client.step(result.sasl_credentials)


def begin(login: Login) -> Future[tuple[GssapiClient, bytes]]:
    """A client and its first response, for which the KDC may have to be asked."""
    if not _turns.acquire(blocking=False):
        raise Refused("no ticket: the KDC did not answer earlier requests yet")
    future: Future[tuple[GssapiClient, bytes]] = Future()
    future.set_running_or_notify_cancel()  # nobody can call it off: libkrb5 has no way to
    work = partial(_begin, login)
    try:
        # Not an executor's thread: the interpreter would wait for it when the program ends.
        threading.Thread(target=_run, args=(future, work), name="kerberos", daemon=True).start()
    except RuntimeError as error:
        _turns.release()
        raise Refused(f"no ticket: {error}") from error
    return future


def is_installed() -> bool:
    """Whether the Python library gssapi, which is optional, is there."""
    return importlib.util.find_spec("gssapi") is not None


def channel_binding(certificate: bytes) -> bytes:
    """tls-server-end-point for a certificate in DER; empty where RFC 5929 does not say what it is."""
    try:
        signed, _ = decoder.decode(certificate)
        digest = _DIGESTS[str(signed[1][0])]
    except (PyAsn1Error, LookupError):
        return b""
    return b"tls-server-end-point:" + hashlib.new(digest, certificate).digest()


def _run(future: Future[tuple[GssapiClient, bytes]], work: Callable[[], tuple[GssapiClient, bytes]]) -> None:
    try:
        future.set_result(work())
    except Refused as error:
        future.set_exception(error)
    finally:
        _turns.release()


def _begin(login: Login) -> tuple[GssapiClient, bytes]:
    """What blocks: reading tickets and keys, and asking the KDC."""
    service = _service(login.host)
    try:
        client = GssapiClient(_context(service, login))
        return client, client.step(b"")
    except (ImportError, Refused) as error:
        is_for_key = isinstance(error, Refused) and error.is_for_key
        raise Refused(
            f"no ticket for {service!r}: {error}{_keytab_fault()}", is_for_key=is_for_key
        ) from error


def _context(service: str, login: Login) -> Context:
    import gssapi
    from gssapi.raw import ChannelBindings
    from gssapi.raw.misc import GSSError

    flags = gssapi.RequirementFlag
    binding = channel_binding(login.certificate)
    try:
        who = gssapi.Name(login.principal, gssapi.NameType.kerberos_principal) if login.principal else None
        context: Context = gssapi.SecurityContext(
            name=gssapi.Name(service.replace("/", "@", 1), gssapi.NameType.hostbased_service),
            creds=gssapi.Credentials(name=who, usage="initiate", mechs=[gssapi.MechType.kerberos]),
            mech=gssapi.MechType.kerberos,
            # Without the flag for integrity: Active Directory takes it for the wish to sign inside of TLS.
            flags=flags.mutual_authentication | flags.out_of_sequence_detection,
            channel_bindings=ChannelBindings(application_data=binding) if binding else None,
            usage="initiate",
        )
    except GSSError as error:
        raise _refusal(error) from error
    return context


def _service(host: str) -> str:
    """The principal of the server, without its realm."""
    try:
        is_here = ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_here = host in ("", "localhost")
    return f"ldap/{_own_name() if is_here else host}"


def keytab() -> str:
    """The file that the environment names for our keys; empty for none."""
    return os.environ.get("KRB5_CLIENT_KTNAME", "").removeprefix("FILE:")


def keys() -> bytes:
    """What the keytab holds that the environment names; where it names none, the file of tickets."""
    file = Path(keytab() or os.environ.get("KRB5CCNAME", "").removeprefix("FILE:"))
    with suppress(OSError):
        return file.read_bytes() if file.is_file() else b""
    return b""


def _refusal(error: "GSSError") -> Refused:
    return Refused(_words(error), is_for_key=error.min_code - _KDC_ERRORS in _REFUSED_KEYS)


def _keytab_fault() -> str:
    """What libkrb5 keeps to itself: that it cannot read the keys that it was told to use."""
    file = keytab()
    try:
        if file:
            Path(file).open("rb").close()
    except OSError as error:
        return f"; KRB5_CLIENT_KTNAME: {file!r}: {error.strerror}"
    return ""


def _own_name() -> str:
    name = socket.gethostname()
    try:
        # Not getfqdn, which goes by way of the address and may come back with "localhost".
        return socket.getaddrinfo(name, None, flags=socket.AI_CANONNAME)[0][3] or name
    except OSError:
        return name


def _silence(login: Login) -> str:
    return f"no ticket within {login.patience:g} s: the KDC does not answer"


def _words(error: "GSSError") -> str:
    """libkrb5's words, which it keeps for the thread that the error came up in; else GSSAPI's."""
    said = error.get_all_statuses(error.min_code, False) if error.min_code else []
    return escaped("; ".join(said or error.get_all_statuses(error.maj_code, True)))
