"""ldappolicy: an LDAP-backed directory policy engine for Postfix."""

__version__ = "0.1.0"
