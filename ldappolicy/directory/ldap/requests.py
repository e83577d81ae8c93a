"""What is sent to an LDAP server, in bytes (RFC 4511 section 4).

Written by hand: building a search out of ASN.1 types, as ldap3 has them, takes twenty times as long, more
than half of what a cold decision costs. Filters go from our tree to BER without a filter string in between.
Strings are UTF-8 with surrogateescape, so that every octet string arrives as it was.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from ldappolicy.directory import EFFECTIVE_RIGHTS, MATCHED_VALUES, Search
from ldappolicy.directory.ldap.ber import BOOLEAN, ENUMERATED, OCTETS, SEQUENCE, boolean, element, integer
from ldappolicy.ldap_filter import (
    And,
    Approx,
    Equality,
    Extensible,
    Filter,
    GreaterOrEqual,
    LessOrEqual,
    Not,
    Or,
    Present,
    Substring,
)

PAGED_RESULTS = "1.2.840.113556.1.4.319"  # RFC 2696
DOMAIN_SCOPE = "1.2.840.113556.1.4.1339"  # MS-ADTS section 3.1.1.3.4.1.4

_START_TLS = b"1.3.6.1.4.1.1466.20037"
_VERSION = 3
_NEVER_DEREF_ALIASES = 0

# Tags of operations, and of what stands in them.
_BIND, _UNBIND, _SEARCH, _ABANDON, _EXTENDED = 0x60, 0x42, 0x63, 0x50, 0x77
_CONTROLS, _SIMPLE, _SASL, _REQUEST_NAME = 0xA0, 0x80, 0xA3, 0x80
_AND, _OR, _NOT, _SUBSTRINGS, _PRESENT, _EXTENSIBLE = 0xA0, 0xA1, 0xA2, 0xA4, 0x87, 0xA9
_INITIAL, _ANY, _FINAL = 0x80, 0x81, 0x82
_RULE, _TYPE, _VALUE, _DN_ATTRIBUTES = 0x81, 0x82, 0x83, 0x84
_ASSERTIONS: dict[type, int] = {Equality: 0xA3, GreaterOrEqual: 0xA5, LessOrEqual: 0xA6, Approx: 0xA8}


@dataclass(frozen=True, slots=True)
class Control:
    """What is asked for beyond the operation, RFC 4511 section 4.1.11."""

    oid: str
    critical: bool = False
    value: bytes | None = None


def search_request(number: int, search: Search, time_limit: int, controls: Sequence[Control] = ()) -> bytes:
    """SearchRequest, RFC 4511 section 4.5.1: aliases are never followed."""
    operation = element(
        _SEARCH,
        _string(search.base),
        integer(int(search.scope), ENUMERATED),
        integer(_NEVER_DEREF_ALIASES, ENUMERATED),
        integer(search.limit),
        integer(time_limit),
        boolean(False),
        filter_octets(search.filter),
        element(SEQUENCE, *map(_string, search.attributes)),
    )
    return _message(number, operation, controls)


def matched_values(values: Sequence[Filter]) -> Control:
    """RFC 3876: only values that match. Not critical, for whoever asks compares by itself anyway.

    The items of a ValuesReturnFilter are filters without And, Or and Not.
    """
    return Control(MATCHED_VALUES, value=element(SEQUENCE, *map(filter_octets, values)))


def effective_rights(dn: str) -> Control:
    """What an entity may do with each attribute; critical, or its silence would be taken for a yes."""
    return Control(EFFECTIVE_RIGHTS, True, f"dn: {dn}".encode("utf-8", "surrogateescape"))


def paged_results(size: int, cookie: bytes) -> Control:
    """RFC 2696: the next page."""
    return Control(PAGED_RESULTS, True, element(SEQUENCE, integer(size), element(OCTETS, cookie)))


def simple_bind(number: int, dn: str, password: bytes) -> bytes:
    """BindRequest with a password; the octets go as they are."""
    return _bind(number, dn, element(_SIMPLE, password))


def sasl_bind(number: int, mechanism: str, credentials: bytes) -> bytes:
    """BindRequest by SASL; credentials of no octets are sent as such, not left out."""
    return _bind(number, "", element(_SASL, _string(mechanism), element(OCTETS, credentials)))


def start_tls(number: int) -> bytes:
    """The StartTLS operation, RFC 4511 section 4.14."""
    return _message(number, element(_EXTENDED, element(_REQUEST_NAME, _START_TLS)))


def abandon(number: int, other: int) -> bytes:
    """AbandonRequest: the answer to message `other` is not wanted any more."""
    return _message(number, integer(other, _ABANDON))


def unbind(number: int) -> bytes:
    """UnbindRequest: the goodbye."""
    return _message(number, element(_UNBIND))


def filter_octets(node: Filter) -> bytes:
    """A Filter, RFC 4511 section 4.5.1.7."""
    match node:
        case And(()):
            return filter_octets(_TRUE)
        case Or(()):
            return filter_octets(Not(_TRUE))
        case And(parts):
            return element(_AND, *map(filter_octets, parts))
        case Or(parts):
            return element(_OR, *map(filter_octets, parts))
        case Not(part):
            return element(_NOT, filter_octets(part))
        case Present(name):
            return element(_PRESENT, _octets(name))
        case Substring():
            return _substring(node)
        case Extensible():
            return _extensible(node)
    return element(_ASSERTIONS[type(node)], _string(node.attr), _string(node.value))


# RFC 4526 has empty sets for these; RFC 4511 and many servers do not.
_TRUE = Present("objectClass")


def _substring(node: Substring) -> bytes:
    parts = [element(_INITIAL, _octets(node.initial))] if node.initial else []
    parts += [element(_ANY, _octets(part)) for part in node.any]
    parts += [element(_FINAL, _octets(node.final))] if node.final else []
    return element(_SUBSTRINGS, _string(node.attr), element(SEQUENCE, *parts))


def _extensible(node: Extensible) -> bytes:
    parts = [element(_RULE, _octets(node.rule))] if node.rule is not None else []
    parts += [element(_TYPE, _octets(node.attr))] if node.attr is not None else []
    parts.append(element(_VALUE, _octets(node.value)))
    if node.dn_attributes:
        parts.append(element(_DN_ATTRIBUTES, b"\xff"))
    return element(_EXTENSIBLE, *parts)


def _bind(number: int, dn: str, credentials: bytes) -> bytes:
    return _message(number, element(_BIND, integer(_VERSION), _string(dn), credentials))


def _message(number: int, operation: bytes, controls: Sequence[Control] = ()) -> bytes:
    asked = [element(_CONTROLS, *map(_control, controls))] if controls else []
    return element(SEQUENCE, integer(number), operation, *asked)


def _control(control: Control) -> bytes:
    parts = [_string(control.oid)]
    if control.critical:
        parts.append(element(BOOLEAN, b"\xff"))
    if control.value is not None:
        parts.append(element(OCTETS, control.value))
    return element(SEQUENCE, *parts)


def _string(text: str) -> bytes:
    return element(OCTETS, _octets(text))


def _octets(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")
