"""What an LDAP server sends, out of bytes (RFC 4511 section 4).

It is read by a walk of our own: ldap3's fast decoder takes several times as long (a group of 50,000 members
would keep the event loop for a tenth of a second), reads every BOOLEAN as true, and believes lengths inside
of a message. Whatever is odd comes out as `Garbage`.

Strings are UTF-8 with surrogateescape, so that every octet string survives the way there and back.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from types import MappingProxyType

from ldap3.core.results import RESULT_CODES

from ldappolicy.directory.ldap import ber
from ldappolicy.directory.ldap.ber import Garbage as Garbage
from ldappolicy.directory.ldap.requests import PAGED_RESULTS

SUCCESS = 0
SASL_BIND_IN_PROGRESS = 14
SIZE_LIMIT_EXCEEDED = 4
LIMITS = frozenset((3, 4, 11))
"""timeLimitExceeded, sizeLimitExceeded, adminLimitExceeded (RFC 4511 appendix A)."""
NO_SUCH_OBJECT = 32

_NOTICE_OF_DISCONNECTION = b"1.3.6.1.4.1.1466.20036"

_CONTROLS, _SASL_CREDENTIALS, _RESPONSE_NAME = 0xA0, 0x87, 0x8A
_INTERMEDIATE_NAME, _INTERMEDIATE_VALUE = 0x80, 0x81

_DIAGNOSTIC_LENGTH = 200
_NO_CONTROLS: Mapping[str, bytes] = MappingProxyType({})


class Tag(IntEnum):
    """The operations that a server may send, RFC 4511 section 4.2 to 4.13."""

    BIND_RESPONSE = 0x61
    ENTRY = 0x64
    DONE = 0x65
    REFERENCE = 0x73
    EXTENDED_RESPONSE = 0x78
    INTERMEDIATE = 0x79


@dataclass(frozen=True, slots=True)
class EntryBody:
    """SearchResultEntry: a DN, values by attribute description (with options), what controls say by OID."""

    dn: str
    attributes: Mapping[str, list[str]]
    controls: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Reference:
    """SearchResultReference: a part of the answer is elsewhere."""


@dataclass(frozen=True, slots=True)
class Intermediate:
    """IntermediateResponse: what a control or an extended operation has to say on the way."""

    name: str
    value: bytes


@dataclass(frozen=True, slots=True)
class Result:
    """What ends an operation: a result code, its name, and what the server says about it."""

    code: int
    diagnostic: str
    is_notice: bool = False
    controls: Mapping[str, bytes] = field(default_factory=dict)
    sasl_credentials: bytes = b""

    def __str__(self) -> str:
        return f"{self.name} ({self.code})" + (f": {self.diagnostic}" if self.diagnostic else "")

    @property
    def name(self) -> str:
        """The code's name, as RFC 4511 section 4.1.9 has it."""
        return str(RESULT_CODES.get(self.code, "unknown result"))


Body = EntryBody | Reference | Intermediate | Result


def page_cookie(result: Result) -> bytes:
    """What asks for the page behind this one; empty when it was the last."""
    value = result.controls.get(PAGED_RESULTS)
    if value is None:
        return b""
    match ber.parts(value):
        case [(ber.INTEGER, _), (ber.OCTETS, cookie)]:
            return cookie
    raise Garbage(f"{value[:40]!r}, expected a size and a cookie (RFC 2696)")


def message_size(octets: bytes | bytearray) -> int:
    """How long the message that begins here is, -1 while that cannot be said."""
    if octets and octets[0] != ber.SEQUENCE:
        raise Garbage(f"{bytes(octets[:40])!r}")
    try:
        return ber.head(octets, 0)[2]
    except IndexError:
        return -1


def decode(message: bytes) -> tuple[int, Body | None]:
    """The message id and what the message says; None for what has no meaning here."""
    try:
        [(outer, start, end)] = ber.elements(message)
        (kind, first, last), (operation, *place), *rest = ber.elements(message, start, end)
        if (outer, kind) != (ber.SEQUENCE, ber.INTEGER):
            raise Garbage("expected a message id")
        number = ber.number(message[first:last])
        controls = _controls(message, *rest[0][1:]) if rest and rest[0][0] == _CONTROLS else _NO_CONTROLS
        return number, _body(operation, message, place[0], place[1], controls)
    except (IndexError, ValueError, Garbage) as error:
        raise Garbage(f"{message[:40]!r}") from error


def _body(operation: int, octets: bytes, start: int, end: int, controls: Mapping[str, bytes]) -> Body | None:
    match operation:
        case Tag.ENTRY:
            return EntryBody(*_entry(octets, start, end), controls)
        case Tag.REFERENCE:
            return Reference()
        case Tag.INTERMEDIATE:
            named = {tag: octets[first:last] for tag, first, last in ber.elements(octets, start, end)}
            name, value = named.get(_INTERMEDIATE_NAME, b""), named.get(_INTERMEDIATE_VALUE, b"")
            return Intermediate(_text(name), value)
        case Tag.BIND_RESPONSE | Tag.DONE | Tag.EXTENDED_RESPONSE:
            return _result(operation, octets, start, end, controls)
    raise Garbage(f"operation {operation:#x}")


def _result(operation: int, octets: bytes, start: int, end: int, controls: Mapping[str, bytes]) -> Result:
    """LDAPResult: resultCode, matchedDN, diagnosticMessage, then what the operation adds."""
    code, _, diagnostic, *rest = (
        (tag, octets[first:last]) for tag, first, last in ber.elements(octets, start, end)
    )
    if (code[0], diagnostic[0]) != (ber.ENUMERATED, ber.OCTETS):
        raise Garbage("expected a result code")
    more = dict(rest)
    return Result(
        ber.number(code[1]),
        _printable(diagnostic[1]),
        more.get(_RESPONSE_NAME) == _NOTICE_OF_DISCONNECTION,
        controls,
        more.get(_SASL_CREDENTIALS, b"") if operation == Tag.BIND_RESPONSE else b"",
    )


def _controls(octets: bytes, start: int, end: int) -> Mapping[str, bytes]:
    """Values by OID, RFC 4511 section 4.1.11; criticality means nothing in an answer."""
    found: dict[str, bytes] = {}
    for _, first, last in ber.elements(octets, start, end):
        oid, *rest = ((tag, octets[at:to]) for tag, at, to in ber.elements(octets, first, last))
        found[_text(oid[1])] = next((value for tag, value in rest if tag == ber.OCTETS), b"")
    return found


def _entry(octets: bytes, start: int, end: int) -> tuple[str, dict[str, list[str]]]:
    """SearchResultEntry, RFC 4511 section 4.5.2: objectName, and a sequence of (type, set of values)."""
    (name, first, last), (list_, at, to) = ber.elements(octets, start, end)
    if (name, list_) != (ber.OCTETS, ber.SEQUENCE):
        raise Garbage("expected a DN and attributes")
    attributes: dict[str, list[str]] = {}
    for _, begin, stop in ber.elements(octets, at, to):
        (type_, *type_at), (set_, *values_at) = ber.elements(octets, begin, stop)
        if (type_, set_) != (ber.OCTETS, ber.SET):
            raise Garbage("expected a type and values")
        values = _values(octets, *values_at)
        described = _text(octets[type_at[0] : type_at[1]])
        if described in attributes:
            attributes[described] += values
        else:
            attributes[described] = values
    return _text(octets[first:last]), attributes


def _values(octets: bytes, at: int, end: int) -> list[str]:
    """The loop that counts: `ber.elements` written out, since a group may have 50,000 members."""
    values: list[str] = []
    add = values.append
    while at < end:
        size = octets[at + 1]
        if octets[at] != 0x04:
            raise Garbage("expected a value")
        if size < 0x80:
            at += 2
            stop = at + size
        else:
            _, at, stop = ber.head(octets, at)
        add(str(octets[at:stop], "utf-8", "surrogateescape"))
        at = stop
    if at != end:
        raise Garbage("a value ends elsewhere than its set")
    return values


def _printable(octets: bytes) -> str:
    """A server's own words, fit for one line of a log."""
    text = octets[:_DIAGNOSTIC_LENGTH].decode("utf-8", "replace")
    return "".join(letter if letter.isprintable() else " " for letter in text).strip()


def _text(octets: bytes) -> str:
    return octets.decode("utf-8", "surrogateescape")
