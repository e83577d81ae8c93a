"""Private servers and programs for the tests. What they start reads no settings of the machine's own."""

import os

_NOTHING = {
    "LDAPNOINIT": "1",  # neither ldap.conf nor ldaprc
    "KRB5_CONFIG": os.devnull,
}

# What a test starts has them already, or something better.
if not _NOTHING.keys() <= os.environ.keys():
    os.environ |= _NOTHING
