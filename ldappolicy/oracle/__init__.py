"""Postfix itself, asked: what decides where the language is in doubt.

`postfix` runs a private one, `smtp` speaks to it, `dns` is its only resolver.
"""

from ldappolicy.errors import LdapPolicyError


class OracleError(LdapPolicyError):
    """The private Postfix does not run, or does not answer as it should."""
