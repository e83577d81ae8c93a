"""The directory behind an LDAP server, in asyncio.

=============  ====================================================================================
`settings`     what it is told, and what is refused beforehand
`ber`          the encoding of everything, bounded
`requests`     what is sent, in bytes
`codec`        what comes, out of bytes
`gssapi`       the Kerberos part of a bind
`refusals`     which servers refused which password, so that it is not tried again
`slow`         searches that take long, counted and told
`connection`   one connection: numbers, deadlines, TLS, bind
`health`       what is remembered of a server that failed
`family`       which profile suits a server
`proving`      what a connection has to show before it is believed
`lines`        the connections to one server, for lookups
`failover`     several servers: which one is asked, and the way back to the preferred one
`streams`      how a server tells of changes: syncrepl, persistent search, DirSync, polling
`writing`      changes, over ldap3's own connection: for `load` and `schema install`
`installing`   the schema and its access rules in a running server
=============  ====================================================================================
"""

from ldappolicy.directory.ldap.failover import LdapDirectory
from ldappolicy.directory.ldap.refusals import Refusals
from ldappolicy.directory.ldap.settings import LdapSettings, exposed

__all__ = ["LdapDirectory", "LdapSettings", "Refusals", "exposed"]
