"""One policy request, under Postfix's attribute names.

The order of the attributes is the one in which smtpd(8) sends them (SMTPD_POLICY_README, Postfix 3.12);
`protocol` relies on it to make a request from its values alone. Values are text as Postfix sent it:
UTF-8, bytes that are none kept by surrogateescape (smtputf8_enable=no lets anything through). Postfix
may leave out what it does not know, or send it empty, or as 0: an attribute that is absent is "".
"""

from collections.abc import Mapping
from typing import NamedTuple


class Request(NamedTuple):
    """What Postfix asks: who sends from where to whom. A tuple, since those are made fastest."""

    protocol_state: str = ""
    protocol_name: str = ""
    client_address: str = ""
    client_name: str = ""
    client_port: str = ""
    reverse_client_name: str = ""
    server_address: str = ""
    server_port: str = ""
    helo_name: str = ""
    sender: str = ""
    recipient: str = ""
    recipient_count: str = ""
    queue_id: str = ""
    instance: str = ""
    size: str = ""
    etrn_domain: str = ""
    stress: str = ""
    sasl_method: str = ""
    sasl_username: str = ""
    sasl_sender: str = ""
    ccert_subject: str = ""
    ccert_issuer: str = ""
    ccert_fingerprint: str = ""
    ccert_pubkey_fingerprint: str = ""
    encryption_protocol: str = ""
    encryption_cipher: str = ""
    encryption_keysize: str = ""
    tls_sni: str = ""
    policy_context: str = ""
    compatibility_level: str = ""
    mail_version: str = ""

    @classmethod
    def from_attributes(cls, attributes: Mapping[str, str]) -> "Request":
        """The request with these attributes; unknown ones are ignored, as SMTPD_POLICY_README asks."""
        return cls._make([attributes.get(name, "") for name in cls._fields])
