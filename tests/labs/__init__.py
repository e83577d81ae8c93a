"""Private servers and programs for the tests. What they start reads no settings of the machine's own."""

import os

os.environ |= {
    "LDAPNOINIT": "1",  # ldap.conf, ldaprc
    "KRB5_CONFIG": os.devnull,
    "SASL_CONF_PATH": os.devnull,
    "OPENSSL_CONF": os.devnull,
    "GNUTLS_SYSTEM_PRIORITY_FILE": os.devnull,
}
