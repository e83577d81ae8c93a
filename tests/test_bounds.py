"""What one value may cost: however long or cunning it is, work and memory are bounded, and counted here."""

from collections.abc import Mapping
from typing import Any

import pytest

from ldappolicy.evaluate import Decision
from tests.language import Site, asked, policy, table

CHECKS = ["client", "reverse_client_hostname", "helo", "sender", "recipient", "sasl", "ccert"]

HOSTILE = {
    "octets": "1." * 60_000,
    "hextets": "1:" * 60_000,
    "labels": "a." * 60_000 + "example",
    "one label": "a" * 120_000,
    "other letters": "\u00e4" * 60_000,
    "an address": "x" * 120_000 + "@my.domain",
    "labels of an address": "x@" + "a." * 60_000 + "my.domain",
}
"""120 KB: as much as a request may have."""

ATTRIBUTES = {
    "client_name": "client",
    "reverse_client_name": "reverse_client_hostname",
    "client_address": "client",
    "helo_name": "helo",
    "sender": "sender",
    "recipient": "recipient",
    "sasl_username": "sasl",
    "ccert_fingerprint": "ccert",
}


def traced(site: Site, attributes: Mapping[str, str]) -> tuple[Decision, list[dict[str, Any]]]:
    """The decision of a request, and what was done for it."""
    trace: list[dict[str, Any]] = []
    return site.resolve(asked(**attributes), trace), trace


# --- keys -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("attribute", ATTRIBUTES)
def test_a_long_value_makes_few_keys_of_few_bytes(attribute: str, value: str) -> None:
    """120 KB of anything, anywhere, is looked up in fewer keys than it has thousands of letters."""
    checks = ", ".join(f"check_{check}_access ldap:{name}" for check in CHECKS for name in ("lines", "nets"))
    site = Site(
        policy(recipient=f"{checks}, reject_non_fqdn_helo_hostname, reject_non_fqdn_sender"),
        table("lines", "nobody REJECT"),
        table("nets", "192.0.2.0/24 REJECT", smtpdAccessType="cidr"),
    )
    decision, trace = traced(site, {attribute: value})
    keys = [event["key"] for event in trace if "key" in event]
    assert not decision.unavailable
    assert len(keys) < 600
    assert sum(map(len, keys)) < 4 * 120_000


@pytest.mark.parametrize("letters", [30, 1200, 5000, 100_000])
def test_a_long_extension_does_not_lead_round_a_list(letters: int) -> None:
    """Whatever is behind the delimiter, the address without it is protected."""
    site = Site(
        policy(recipient="check_recipient_access ldap:lists", smtpdRecipientDelimiter="+"),
        table("lists", "all@my.domain REJECT no"),
    )
    assert site.action(recipient=f"all+{'x' * letters}@my.domain") == "REJECT no"
