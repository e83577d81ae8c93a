"""Which attributes of the directory hold what: the mapping, its profiles, a site's overrides.

Policies speak of concepts (an address, a login, a member); a site has its own attribute names for
them. A profile is a named set of defaults; each can be overridden by its key in the configuration's
`[directory.attributes]`. A concept is always a list of attributes, and the first is the primary one:
where one value has to be chosen, it is chosen there. An empty list switches the concept off.

Profiles whose values are more than plain values (prefixes, ranged values, tokens) are not here
before there is code that reads them.
"""

from collections.abc import Mapping as MappingOf
from dataclasses import dataclass, fields, replace

from ldappolicy.errors import ConfigError

Names = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Mapping:
    """The attributes that hold each concept; the defaults are those of the profile `generic`."""

    mail: Names = ("mail", "mailAlternateAddress", "mailLocalAddress")
    login: Names = ("uid",)
    member: Names = ("member", "uniqueMember", "memberUid", "memberURL")
    owner: Names = ("owner",)
    domain: Names = ("associatedDomain",)
    allowed_sender: Names = ("smtpdAllowedSender",)
    allowed_sender_dn: Names = ("smtpdAllowedSenderDN",)
    denied_sender: Names = ("smtpdDeniedSender",)
    denied_sender_dn: Names = ("smtpdDeniedSenderDN",)
    login_required: Names = ()
    send_as: Names = ("smtpdSendAs",)
    moderator: Names = ("smtpdModerator",)
    sender_access: Names = ("smtpdSenderAccess",)
    recipient_access: Names = ("smtpdRecipientAccess",)
    member_sender_access: Names = ("smtpdMemberSenderAccess",)
    member_recipient_access: Names = ("smtpdMemberRecipientAccess",)
    priority: Names = ("smtpdPriority",)
    member_of: Names = ("memberOf",)

    @property
    def has_dynamic_groups(self) -> bool:
        """Whether a memberURL makes members."""
        return any(name.lower() == "memberurl" for name in self.member)


PROFILES: MappingOf[str, Mapping] = {"generic": Mapping(), "openldap": Mapping()}

# memberOf is kept by the server under the name that the server gives it: nothing to be mapped.
KEYS: tuple[str, ...] = tuple(field.name for field in fields(Mapping) if field.name != "member_of")


def mapping_for(profile: str, overrides: MappingOf[str, Names]) -> Mapping:
    """The mapping of a profile, with what the site names otherwise."""
    if profile not in PROFILES:
        raise ConfigError(f"no such profile: expected one of {', '.join(PROFILES)}, got {profile!r}")
    for key in overrides:
        if key not in KEYS:
            raise ConfigError(f"no such mapping: expected one of {', '.join(KEYS)}, got {key!r}")
    return replace(PROFILES[profile], **{key: tuple(names) for key, names in overrides.items()})
