"""Requests: the attributes of Postfix, in its order, and what is absent."""

import pytest

from ldappolicy.request import Request

POSTFIX_ATTRIBUTES = """
    protocol_state protocol_name client_address client_name client_port reverse_client_name server_address
    server_port helo_name sender recipient recipient_count queue_id instance size etrn_domain stress
    sasl_method sasl_username sasl_sender ccert_subject ccert_issuer ccert_fingerprint
    ccert_pubkey_fingerprint encryption_protocol encryption_cipher encryption_keysize tls_sni
    policy_context compatibility_level mail_version
"""
POSTFIX_ORDER = POSTFIX_ATTRIBUTES.split()


def test_fields_are_postfix_attributes() -> None:
    """A request has what smtpd(8) of Postfix 3.12 sends, in its order, without `request` itself."""
    assert list(Request._fields) == POSTFIX_ORDER


@pytest.mark.parametrize("name", POSTFIX_ORDER)
def test_each_attribute_is_found_under_its_name(name: str) -> None:
    """An attribute goes into the field of its name and into no other."""
    request = Request.from_attributes({name: "value"})
    assert getattr(request, name) == "value"
    assert [field for field in POSTFIX_ORDER if getattr(request, field)] == [name]


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({}, Request()),
        ({"sender": ""}, Request()),
        ({"sender": "a@b", "nosuch": "x"}, Request(sender="a@b")),
        ({"Sender": "a@b"}, Request()),
        ({"request": "smtpd_access_policy"}, Request()),
        ({"_fields": "x", "index": "y", "from_attributes": "z"}, Request()),
        ({"sender": "\udcff@b"}, Request(sender="\udcff@b")),
    ],
)
def test_from_attributes(attributes: dict[str, str], expected: Request) -> None:
    """Absent is empty, unknown is ignored, names are case-sensitive."""
    assert Request.from_attributes(attributes) == expected


def test_a_request_cannot_be_changed() -> None:
    """Evaluation may rely on a request to stay what it is."""
    request = Request(sender="a@b")
    with pytest.raises(AttributeError):
        request.sender = "c@d"  # type: ignore[misc]
    with pytest.raises(AttributeError):
        request.nosuch = "x"  # type: ignore[attr-defined]
