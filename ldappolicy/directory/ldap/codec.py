"""LDAP messages to bytes and back, for the transport of the running service.

Of ldap3 we use the ASN.1 types of RFC 4511, the encoder and the fast decoder; its Connection, with
habits of its own about referrals, retries and deadlines, stays outside. Filters go from our tree to
ASN.1 without a filter string in between: ldap3's parser strips blanks off a value.

Strings are UTF-8 with surrogateescape, so that every octet string survives the way there and back.
The decoder believes lengths inside of a message, and an odd message makes it raise whatever Python
raises for an odd index: all of that comes out as `Garbage`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ldap3.core.results import RESULT_CODES
from ldap3.protocol import rfc4511
from ldap3.strategy.base import BaseStrategy
from ldap3.utils.asn1 import decode_message_fast, encode

from ldappolicy.directory import Search
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

SUCCESS = 0
NO_SUCH_OBJECT = 32

_START_TLS = b"1.3.6.1.4.1.1466.20037"
_NOTICE_OF_DISCONNECTION = b"1.3.6.1.4.1.1466.20036"

# Tags of the protocol operations that a server may send, RFC 4511 section 4.2 to 4.13.
_BIND_RESPONSE, _ENTRY, _DONE, _REFERENCE, _EXTENDED_RESPONSE, _INTERMEDIATE = 1, 4, 5, 19, 24, 25
_RESPONSE_NAME = 10

_SEQUENCE = 0x30
_DIAGNOSTIC_LENGTH = 200

message_size: Callable[[bytes | bytearray], int] = BaseStrategy.compute_ldap_message_size
"""How long the message that begins here is, -1 while that cannot be said."""


class Garbage(Exception):
    """What came is no LDAP message."""


@dataclass(frozen=True, slots=True)
class EntryBody:
    """SearchResultEntry: a DN, and values by attribute description (options included)."""

    dn: str
    attributes: Mapping[str, list[str]]


@dataclass(frozen=True, slots=True)
class Reference:
    """SearchResultReference: a part of the answer is elsewhere."""


@dataclass(frozen=True, slots=True)
class Result:
    """What ends an operation: a result code, its name, and what the server says about it."""

    code: int
    diagnostic: str
    is_notice: bool = False

    def __str__(self) -> str:
        name = RESULT_CODES.get(self.code, "unknown result")
        return f"{name} ({self.code})" + (f": {self.diagnostic}" if self.diagnostic else "")


Body = EntryBody | Reference | Result | None


def search_request(number: int, search: Search, time_limit: int) -> bytes:
    """SearchRequest, RFC 4511 section 4.5.1: aliases are never followed, no size limit is asked for."""
    request = rfc4511.SearchRequest()
    request["baseObject"] = rfc4511.LDAPDN(_octets(search.base))
    request["scope"] = rfc4511.Scope(int(search.scope))
    request["derefAliases"] = rfc4511.DerefAliases("neverDerefAliases")
    request["sizeLimit"] = rfc4511.Integer0ToMax(0)
    request["timeLimit"] = rfc4511.Integer0ToMax(time_limit)
    request["typesOnly"] = rfc4511.TypesOnly(False)
    request["filter"] = _filter(search.filter)
    selection = rfc4511.AttributeSelection()
    for position, name in enumerate(search.attributes):
        selection[position] = rfc4511.Selector(_octets(name))
    request["attributes"] = selection
    return _message(number, "searchRequest", request)


def simple_bind(number: int, dn: str, password: bytes) -> bytes:
    """BindRequest with a password; the octets go as they are."""
    return _bind(number, dn, "simple", rfc4511.Simple(password))


def external_bind(number: int) -> bytes:
    """BindRequest SASL EXTERNAL: whoever the server takes us for, by socket or certificate."""
    credentials = rfc4511.SaslCredentials()
    credentials["mechanism"] = b"EXTERNAL"
    credentials["credentials"] = b""
    return _bind(number, "", "sasl", credentials)


def start_tls(number: int) -> bytes:
    """The StartTLS operation, RFC 4511 section 4.14."""
    request = rfc4511.ExtendedRequest()
    request["requestName"] = rfc4511.RequestName(_START_TLS)
    return _message(number, "extendedReq", request)


def abandon(number: int, other: int) -> bytes:
    """AbandonRequest: the answer to message `other` is not wanted any more."""
    return _message(number, "abandonRequest", rfc4511.AbandonRequest(other))


def unbind(number: int) -> bytes:
    """UnbindRequest: the goodbye."""
    return _message(number, "unbindRequest", rfc4511.UnbindRequest(""))


def is_message_start(octet: int) -> bool:
    """Whether an LDAPMessage may begin with this octet."""
    return octet == _SEQUENCE


def decode(message: bytes) -> tuple[int, Body]:
    """The message id and what the message says; None for what has no meaning here."""
    try:
        decoded = decode_message_fast(message)
        return int(decoded["messageID"]), _body(decoded["protocolOp"], decoded["payload"])
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise Garbage(f"{message[:40]!r}") from error


def _body(operation: int, payload: Any) -> Body:
    if operation == _ENTRY:
        # An item of the decoder is (class, constructed, tag, value).
        attributes: dict[str, list[str]] = {}
        for item in payload[1][3]:
            name, values = item[3]
            attributes.setdefault(_text(name[3]), []).extend(_text(value[3]) for value in values[3])
        return EntryBody(_text(payload[0][3]), attributes)
    if operation == _REFERENCE:
        return Reference()
    if operation == _INTERMEDIATE:
        return None
    if operation not in (_BIND_RESPONSE, _DONE, _EXTENDED_RESPONSE):
        raise ValueError(f"operation {operation}")
    return _result(payload)


def _result(payload: Any) -> Result:
    """LDAPResult: resultCode, matchedDN, diagnosticMessage, then what the operation adds."""
    named = any(item[2] == _RESPONSE_NAME and item[3] == _NOTICE_OF_DISCONNECTION for item in payload[3:])
    return Result(int(payload[0][3]), _printable(payload[2][3]), named)


def _printable(octets: bytes) -> str:
    """A server's own words, fit for one line of a log."""
    text = octets[:_DIAGNOSTIC_LENGTH].decode("utf-8", "replace")
    return "".join(letter if letter.isprintable() else " " for letter in text).strip()


def _octets(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _text(octets: bytes) -> str:
    return octets.decode("utf-8", "surrogateescape")


def _message(number: int, kind: str, operation: Any) -> bytes:
    message = rfc4511.LDAPMessage()
    message["messageID"] = rfc4511.MessageID(number)
    message["protocolOp"] = rfc4511.ProtocolOp().setComponentByName(kind, operation)
    octets: bytes = encode(message)
    return octets


def _bind(number: int, dn: str, kind: str, credentials: Any) -> bytes:
    request = rfc4511.BindRequest()
    request["version"] = rfc4511.Version(3)
    request["name"] = rfc4511.LDAPDN(_octets(dn))
    request["authentication"] = rfc4511.AuthenticationChoice().setComponentByName(kind, credentials)
    return _message(number, "bindRequest", request)


def _filter(node: Filter) -> Any:
    """The tree in ASN.1; the names of ldap3's components stand in for the tags of RFC 4511."""
    compiled = rfc4511.Filter()
    match node:
        case And(()):
            return _filter(_TRUE)
        case Or(()):
            return _filter(Not(_TRUE))
        case And(parts):
            compiled["and"] = _set_of(rfc4511.And(), parts)
        case Or(parts):
            compiled["or"] = _set_of(rfc4511.Or(), parts)
        case Not(part):
            inner = rfc4511.Not()
            inner["innerNotFilter"] = _filter(part)
            # Without constraints: ldap3 ties the recursive type together after it was made.
            compiled.setComponentByName("notFilter", inner, verifyConstraints=False)
        case Present(name):
            compiled["present"] = rfc4511.Present(_octets(name))
        case Substring():
            compiled["substringFilter"] = _substring(node)
        case Extensible():
            compiled["extensibleMatch"] = _extensible(node)
        case _:
            component, asn1_type = _ASSERTIONS[type(node)]
            compiled[component] = _assertion(asn1_type(), node.attr, node.value)
    return compiled


# RFC 4526 has empty sets for these; RFC 4511, ldap3 and many servers do not.
_TRUE = Present("objectClass")

_ASSERTIONS: Mapping[type, tuple[str, Any]] = {
    Equality: ("equalityMatch", rfc4511.EqualityMatch),
    GreaterOrEqual: ("greaterOrEqual", rfc4511.GreaterOrEqual),
    LessOrEqual: ("lessOrEqual", rfc4511.LessOrEqual),
    Approx: ("approxMatch", rfc4511.ApproxMatch),
}


def _set_of(collection: Any, parts: tuple[Filter, ...]) -> Any:
    for position, part in enumerate(parts):
        collection[position] = _filter(part)
    return collection


def _assertion(assertion: Any, name: str, value: str) -> Any:
    assertion["attributeDesc"] = rfc4511.AttributeDescription(_octets(name))
    assertion["assertionValue"] = rfc4511.AssertionValue(_octets(value))
    return assertion


def _substring(node: Substring) -> Any:
    parts = [("initial", rfc4511.Initial, node.initial)] if node.initial else []
    parts += [("any", rfc4511.Any, part) for part in node.any]
    parts += [("final", rfc4511.Final, node.final)] if node.final else []
    substrings = rfc4511.Substrings()
    for position, (kind, asn1_type, text) in enumerate(parts):
        substrings[position] = rfc4511.Substring().setComponentByName(kind, asn1_type(_octets(text)))
    compiled = rfc4511.SubstringFilter()
    compiled["type"] = rfc4511.AttributeDescription(_octets(node.attr))
    compiled["substrings"] = substrings
    return compiled


def _extensible(node: Extensible) -> Any:
    compiled = rfc4511.ExtensibleMatch()
    if node.rule is not None:
        compiled["matchingRule"] = rfc4511.MatchingRule(_octets(node.rule))
    if node.attr is not None:
        compiled["type"] = rfc4511.Type(_octets(node.attr))
    compiled["matchValue"] = rfc4511.MatchValue(_octets(node.value))
    compiled["dnAttributes"] = rfc4511.DnAttributes(node.dn_attributes)
    return compiled
