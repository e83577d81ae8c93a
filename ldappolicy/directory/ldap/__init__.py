"""The directory behind an LDAP server, in asyncio, over the codec of ldap3.

=============  ====================================================================================
`settings`     what it is told, and what is refused beforehand
`codec`        LDAP messages to bytes and back, over ldap3's codec
`connection`   one connection: numbers, deadlines, TLS, bind
`failover`     several servers: which one is asked, and the proofs it has to show first
`writing`      changes, over ldap3's own connection: for `load` and `schema install`
`installing`   the schema in cn=config
=============  ====================================================================================
"""

from ldappolicy.directory.ldap.failover import LdapDirectory
from ldappolicy.directory.ldap.settings import LdapSettings

__all__ = ["LdapDirectory", "LdapSettings"]
