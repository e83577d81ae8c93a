"""The exception tree, and what the program does for each branch of it.

================  ==========================================================
ConfigError       the configuration is wrong: exit 78, or the old one stays
InputError        data that was handed in is wrong: exit 65
Unavailable       the directory did not answer (never: it has no such entry)
LimitExceeded     of these: it answered with a part, for a limit of its own
ProtocolError     not a policy request: the connection is closed, no reply
OracleError       a private Postfix does not run or does not answer: exit 69
================  ==========================================================

Faults of a *policy* are not exceptions: they are `policy.Fault` values, since one bad entry must
not stop the others from being served.
"""


class LdapPolicyError(Exception):
    """Every error that the program raises on purpose; `str()` is one line for a person."""


class ConfigError(LdapPolicyError):
    """The configuration cannot be used; carries every complaint, one each."""

    def __init__(self, *complaints: str) -> None:
        super().__init__("; ".join(complaints))
        self.complaints = complaints


class InputError(LdapPolicyError):
    """Bad input data (LDIF, a filter, a URL, a DN): what, where, what was expected."""


class Unavailable(LdapPolicyError):
    """The directory could not answer. Never to be taken for "absent"."""


class LimitExceeded(Unavailable):
    """The directory is there, but gives no more: a size, time or administrative limit of the server's."""


class ProtocolError(LdapPolicyError):
    """What a client sent is not the policy delegation protocol; the connection is closed."""


class OracleError(LdapPolicyError):
    """The private Postfix (`ldappolicy.oracle`) does not run, or does not answer as it should."""
