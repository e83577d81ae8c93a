"""The private Postfix of the tests: `ldappolicy.oracle.postfix` as the example company's mail server.

`smtpds` are its smtpd services as deploy/ has them: behind reject_unauth_destination, so that a permit in a
residue (`permit_mynetworks, reject`) never opens a relay. `lists` calls the service once for each list
instead, and Postfix then blames the address that its own list is about.
"""

from collections.abc import Collection, Mapping

import pytest

from ldappolicy.oracle import postfix
from ldappolicy.oracle.dns import Records
from ldappolicy.oracle.smtp import Session
from tests.labs.ldappolicy import Ldappolicy

__all__ = ["Postfix", "Session", "require_postfix"]

SITE = {
    "myhostname": "mx.my.domain",
    "mydomain": "my.domain",
    "myorigin": "$mydomain",
    "mydestination": "my.domain, other.example, localhost",
    "mynetworks": "127.0.0.0/8, [::1]/128, 192.0.2.0/24",
    "recipient_delimiter": "+",
    "smtpd_relay_restrictions": "permit_mynetworks, permit_sasl_authenticated, reject_unauth_destination",
    "smtpd_recipient_restrictions": "",
}

OUTSIDE = {"name": "mail.outside.example", "addr": "198.51.100.7"}
# What the world outside is: beside it, broken.example fails for now, and nothing else is there.
WORLD = {
    ("elsewhere.example", "MX"): ["10 mx.elsewhere.example"],
    ("mx.elsewhere.example", "A"): ["198.51.100.9"],
    ("partner.example", "A"): ["198.51.100.10"],
    ("agency.example", "A"): ["198.51.100.11"],
}


def smtpds(service: Ldappolicy) -> dict[str, dict[str, str]]:
    """The smtpd services: the service called once, with each policy, over both sockets; and list by list."""
    recipient = "smtpd_recipient_restrictions"
    return {
        "mx": {recipient: f"check_policy_service {service.inet}"},
        "plain": {recipient: call(service.unix, "plain")},
        "exercise": {recipient: call(service.unix, "exercise")},
        "lists": {
            "smtpd_sender_restrictions": call(service.inet, "default/sender"),
            recipient: call(service.inet, "default/recipient"),
        },
    }


def call(server: str, context: str) -> str:
    """The call of the service with a policy_context, in main.cf syntax."""
    return f"check_policy_service {{ {server}, policy_context={context} }}"


def require_postfix() -> None:
    """Skip the test where no private Postfix can be run, saying what it takes."""
    if reason := postfix.lacking():
        pytest.skip(reason)


class Postfix(postfix.Postfix):
    """One instance; `main` differs from SITE."""

    def __init__(
        self,
        services: Mapping[str, Mapping[str, str]],
        main: Mapping[str, str] | None = None,
        dns: Records | None = None,
        servfail: Collection[str] = (),
    ) -> None:
        super().__init__(services, {**SITE, **(main or {})}, dns, servfail)
