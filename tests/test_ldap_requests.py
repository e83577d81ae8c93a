"""What is sent is what ldap3 would send for the same: random searches, octet for octet."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ldap3.operation.bind import bind_operation
from ldap3.operation.search import search_operation
from ldap3.protocol import rfc4511
from ldap3.protocol.controls import build_control
from ldap3.utils.asn1 import encode

from ldappolicy.directory import Scope, Search
from ldappolicy.directory.ldap import requests
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
    to_text,
)

SCOPES = {Scope.BASE: "BASE", Scope.ONE: "LEVEL", Scope.SUB: "SUBTREE"}

names = st.sampled_from(("mail", "cn", "memberOf", "1.2.840.113556.1.4.1941"))
# ldap3's parser cuts blanks off a value, and takes no empty one.
values = st.text(min_size=1, max_size=200).map(lambda text: f"x{text}x").filter(lambda text: "\0" not in text)
leaves: st.SearchStrategy[Filter] = st.one_of(
    *(st.builds(kind, names, values) for kind in (Equality, GreaterOrEqual, LessOrEqual, Approx)),
    st.builds(Present, names),
    st.builds(Substring, names, values, st.lists(values, max_size=2).map(tuple), st.none() | values),
    st.builds(
        Extensible, st.sampled_from(("1.2.840.113556.1.4.1941", "2.5.13.2")), names, values, st.booleans()
    ),
)
trees = st.recursive(
    leaves,
    lambda inner: st.one_of(
        *(st.lists(inner, min_size=1, max_size=4).map(tuple).map(kind) for kind in (And, Or)),
        st.builds(Not, inner),
    ),
    max_leaves=12,
)


def by_ldap3(number: int, kind: str, operation: object, controls: list[object] | None = None) -> bytes:
    """A message as ldap3 builds it."""
    message = rfc4511.LDAPMessage()
    message["messageID"] = rfc4511.MessageID(number)
    message["protocolOp"] = rfc4511.ProtocolOp().setComponentByName(kind, operation)
    if controls:
        asked = rfc4511.Controls()
        for position, control in enumerate(controls):
            asked.setComponentByPosition(position, control)
        message["controls"] = asked
    octets: bytes = encode(message)
    return octets


@pytest.mark.servers
@given(
    st.integers(1, 2**31 - 1),
    st.text(max_size=300),
    st.sampled_from(Scope),
    trees,
    st.lists(names, min_size=1, max_size=20, unique=True).map(tuple),
    st.integers(0, 70_000),
)
def test_a_search(
    number: int, base: str, scope: Scope, tree: Filter, attributes: tuple[str, ...], seconds: int
) -> None:
    """Whatever the filter, and however long anything is."""
    search = Search(base, scope, tree, attributes)
    control = requests.Control("1.2.3.4", True, b"\0\xff")
    operation = search_operation(
        base, to_text(tree), SCOPES[scope], "NEVER", attributes, 0, seconds, False, False, None, None, None
    )
    theirs = by_ldap3(number, "searchRequest", operation, [build_control("1.2.3.4", True, b"\0\xff", False)])
    assert requests.search_request(number, search, seconds, [control]) == theirs


@pytest.mark.parametrize("number", [1, 127, 128, 65535, 2**31 - 1])
def test_other_requests(number: int) -> None:
    """Binds, StartTLS, the goodbye, and what is not wanted any more."""
    simple = bind_operation(3, "SIMPLE", "cn=a,dc=x", b"secret", auto_encode=False)
    assert requests.simple_bind(number, "cn=a,dc=x", b"secret") == by_ldap3(number, "bindRequest", simple)
    sasl = bind_operation(3, "SASL", "", None, "GSSAPI", b"token", auto_encode=False)
    assert requests.sasl_bind(number, "GSSAPI", b"token") == by_ldap3(number, "bindRequest", sasl)
    tls = rfc4511.ExtendedRequest()
    tls["requestName"] = rfc4511.RequestName("1.3.6.1.4.1.1466.20037")
    assert requests.start_tls(number) == by_ldap3(number, "extendedReq", tls)
    abandoned = rfc4511.AbandonRequest(number)
    assert requests.abandon(7, number) == by_ldap3(7, "abandonRequest", abandoned)
    assert requests.unbind(number) == by_ldap3(number, "unbindRequest", rfc4511.UnbindRequest(""))


@pytest.mark.parametrize(
    ("tree", "same"),
    [(And(()), Present("objectClass")), (Or(()), Not(Present("objectClass")))],
)
def test_nothing_to_be_true_and_nothing_to_be_false(tree: Filter, same: Filter) -> None:
    """RFC 4526's filters, in what every server knows."""
    assert requests.filter_octets(tree) == requests.filter_octets(same)
