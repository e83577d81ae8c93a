"""Private servers and programs for the tests. What they start reads no settings of the machine's own."""

import os

_SETTINGS = {
    "LDAPNOINIT": "1",  # neither ldap.conf nor ldaprc
    "KRB5_CONFIG": os.devnull,
}

_MARK = "LDAPPOLICY_LAB"

# What a test starts has them already, or those of a realm of the labs.
if _MARK not in os.environ:
    os.environ |= {**_SETTINGS, _MARK: "1"}
