"""The private Postfix of the tests: `ldappolicy.oracle.postfix` as the example company's mail server."""

from collections.abc import Collection, Mapping

import pytest

from ldappolicy.oracle import postfix
from ldappolicy.oracle.dns import Records
from ldappolicy.oracle.smtp import Session

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
