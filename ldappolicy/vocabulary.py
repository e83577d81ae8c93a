"""The names of Postfix's restrictions, and where each is decided: here, in Postfix, or nowhere.

The README's table of restrictions is this module. Names are compared in lower case, as in smtpd(8).
"""

from enum import Enum

CHECKS = {
    "check_client_access": "client",
    "check_reverse_client_hostname_access": "reverse_client",
    "check_helo_access": "helo",
    "check_sender_access": "sender",
    "check_recipient_access": "recipient",
    "check_sasl_access": "sasl",
    "check_ccert_access": "ccert",
    "check_etrn_access": "etrn",
}
"""Access checks, and what each looks up."""

DEFAULT_CHECKS = {
    "client": "client",
    "helo": "helo",
    "sender": "sender",
    "relay": "recipient",
    "recipient": "recipient",
    "etrn": "etrn",
}
"""What a table without a check before it means in each list; in the others it is an error."""

EVALUATED = frozenset(
    (
        *("permit", "reject", "defer", "defer_if_permit", "defer_if_reject", "warn_if_reject"),
        *("permit_sasl_authenticated", "permit_mynetworks", "permit_auth_destination"),
        *("reject_unauth_destination", "defer_unauth_destination"),
        *("reject_non_fqdn_sender", "reject_non_fqdn_recipient", "reject_non_fqdn_helo_hostname"),
        *("reject_invalid_helo_hostname", "reject_plaintext_session", "reject_multi_recipient_bounce"),
        *("reject_sender_login_mismatch", "reject_authenticated_sender_login_mismatch"),
        *("reject_unauthenticated_sender_login_mismatch", "reject_known_sender_login_mismatch"),
    )
)
"""Restrictions without an argument that are decided here (some only when the policy knows enough)."""


class Residue(Enum):
    """What a restriction that is left to Postfix can do to a list."""

    PERMITS = "can permit"
    REFUSES = "can only refuse, maybe for a while"
    REFUSES_FOR_GOOD = "can only refuse, always permanently"


LEFT_TO_POSTFIX = {
    "permit_inet_interfaces": Residue.PERMITS,
    "permit_mx_backup": Residue.PERMITS,
    "permit_tls_clientcerts": Residue.PERMITS,
    "permit_tls_all_clientcerts": Residue.PERMITS,
    "permit_dnswl_client": Residue.PERMITS,
    "permit_rhswl_client": Residue.PERMITS,
    "reject_rbl_client": Residue.REFUSES_FOR_GOOD,
    "reject_rbl": Residue.REFUSES_FOR_GOOD,
    "reject_rhsbl_client": Residue.REFUSES_FOR_GOOD,
    "reject_rhsbl_reverse_client": Residue.REFUSES_FOR_GOOD,
    "reject_rhsbl_helo": Residue.REFUSES_FOR_GOOD,
    "reject_rhsbl_sender": Residue.REFUSES_FOR_GOOD,
    "reject_rhsbl_recipient": Residue.REFUSES_FOR_GOOD,
    "reject_unauth_pipelining": Residue.REFUSES_FOR_GOOD,
    "reject_unknown_client_hostname": Residue.REFUSES,
    "reject_unknown_client": Residue.REFUSES,
    "reject_unknown_reverse_client_hostname": Residue.REFUSES,
    "reject_unknown_helo_hostname": Residue.REFUSES,
    "reject_unknown_hostname": Residue.REFUSES,
    "reject_unknown_sender_domain": Residue.REFUSES,
    "reject_unknown_recipient_domain": Residue.REFUSES,
    "reject_unknown_address": Residue.REFUSES,
    "reject_unverified_sender": Residue.REFUSES,
    "reject_unverified_recipient": Residue.REFUSES,
    "reject_unlisted_sender": Residue.REFUSES,
    "reject_unlisted_recipient": Residue.REFUSES,
    "check_recipient_maps": Residue.REFUSES,
    "sleep": Residue.REFUSES,
}
"""Restrictions that need the DNS, the session or Postfix's own tables."""

MAY_DEFER = frozenset(("permit_mx_backup", "permit_dnswl_client", "permit_rhswl_client"))
"""Permits that are a defer_if_reject while the DNS does not answer (smtpd_check.c)."""

WITH_DOMAIN = frozenset(
    name for name in LEFT_TO_POSTFIX if "_rbl" in name or "_rhsbl_" in name or "wl_client" in name
) | {"sleep"}
"""Restrictions that are followed by one argument that is no table."""

MAX_SLEEP_S = 30
"""Seconds that `sleep` may hold a process of smtpd(8); there are a hundred (default_process_limit)."""

ONLY_IN_MAIN_CF = frozenset(
    f"check_{what}_{record}_access"
    for what in ("client", "reverse_client_hostname", "helo", "sender", "recipient")
    for record in ("a", "mx", "ns")
) | {"check_policy_service"}
"""Their argument can be declared in main.cf only: a server configuration error here."""

OLD_NAMES = {
    "reject_invalid_hostname": "reject_invalid_helo_hostname",
    "reject_non_fqdn_hostname": "reject_non_fqdn_helo_hostname",
}
"""Spellings that smtpd(8) still takes for a restriction that is evaluated here."""

BUILT_IN = EVALUATED | set(CHECKS) | set(LEFT_TO_POSTFIX) | ONLY_IN_MAIN_CF | set(OLD_NAMES)
"""Every name that smtpd(8) knows."""

SHADOW = "shadow"
"""Ours: before a restriction that is being tried, which is then evaluated and changes nothing."""

RESERVED = BUILT_IN | {SHADOW}
"""Every name that cannot be the name of a class."""
