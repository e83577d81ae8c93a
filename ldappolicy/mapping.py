"""Which attributes of the directory hold what: the mapping, its profiles, a site's overrides.

Policies speak of concepts (an address, a login, a member); a site has its own attribute names for
them. A profile is a named set of defaults; each can be overridden by its key in the configuration's
`[directory.attributes]`. A concept is always a list of attributes, and the first is the primary one:
where one value has to be chosen, it is chosen there. An empty list switches the concept off.

A profile also says what its family of servers does by itself (traits). Traits are no keys: they are
true of a server or not, whatever a site calls its attributes.

How a value is written is the attribute's own nature, under every profile: `proxyAddresses` holds mail
addresses behind `smtp:` (the primary one behind `SMTP:`), and addresses of other systems that are none
to us (`x500:`, `sip:`; MS-OXOABK, PidTagAddressBookProxyAddresses); `objectSid` and `objectGUID` are
octets, kept as text with surrogateescape as every value that is not UTF-8.
"""

from collections.abc import Iterator
from collections.abc import Mapping as MappingOf
from dataclasses import dataclass, fields, replace
from functools import cached_property
from itertools import chain
from typing import ClassVar

from ldappolicy.address import fold
from ldappolicy.entry import Entry
from ldappolicy.errors import ConfigError, InputError
from ldappolicy.ldap_filter import Equality, Filter

Names = tuple[str, ...]

PREFIX = "smtp:"
_PREFIXED = frozenset(("proxyaddresses",))
_MEMBERS = frozenset(("member", "member_address"))
_NO_DN = frozenset(("memberuid", "memberurl", "primarygroupid"))

DELIVERY_RESTRICTIONS = frozenset(("authorig", "unauthorig", "dlmemsubmitperms", "dlmemrejectperms"))
"""Exchange's attributes that restrict delivery by what they hold; other mapped ones are only asked."""


@dataclass(frozen=True)
class Mapping:
    """The attributes that hold each concept; the defaults are those of the profile `generic`."""

    mail: Names = ("mail", "mailAlternateAddress", "mailLocalAddress")
    login: Names = ("uid",)
    member: Names = ("member", "uniqueMember", "memberUid", "memberURL")
    member_address: Names = ()
    owner: Names = ("owner",)
    domain: Names = ("associatedDomain",)
    disabled: Names = ()
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
    # Kept by the server under the names that the server gives them: nothing to be mapped.
    member_of: Names = ("memberOf",)
    uuid: Names = ("entryUUID",)

    dn_attribute: ClassVar[str] = ""
    """The attribute that holds the entry's own DN and can be searched for; empty: none is known."""
    member_of_is_nested: ClassVar[bool] = False
    """Whether memberOf names the groups at every depth."""
    in_chain: ClassVar[bool] = False
    """Whether the server has the rule LDAP_MATCHING_RULE_TRANSITIVE_EVAL (MS-ADTS section 3.1.1.3.4.4.3)."""
    shows_all_classes: ClassVar[bool] = False
    """Whether objectClass of an entry lists the superior classes too."""
    member_of_tells_all: ClassVar[bool] = False
    """Whether memberOf is kept for every group that names its members in `member`."""

    # ------------------------------------------------------------ what entries carry

    @cached_property
    def sender_telling(self) -> frozenset[str]:
        """The attributes, in lower case, without which an entry carries nothing for a sender."""
        return frozenset(map(str.lower, (*self.sender_access, *self.member_of)))

    @cached_property
    def recipient_telling(self) -> frozenset[str]:
        """The same of a recipient."""
        own = (*self.recipient_access, *self.delivery_restrictions)
        return frozenset(map(str.lower, (*own, *self.member_of)))

    @cached_property
    def rules(self) -> frozenset[str]:
        """The attributes, in lower case, of which each is a rule of who may send as, to or by an entry."""
        access = (*self.sender_access, *self.recipient_access, *self.member_access)
        allowed = (*self.allowed_sender, *self.allowed_sender_dn, *self.send_as, *self.moderator)
        denied = (*self.denied_sender, *self.denied_sender_dn, *self.login_required)
        return frozenset(map(str.lower, (*access, *allowed, *denied)))

    # ------------------------------------------------------------ groups

    @cached_property
    def has_dynamic_groups(self) -> bool:
        """Whether a memberURL makes members."""
        return _has(self.member, "memberurl")

    @cached_property
    def member_access(self) -> Names:
        """The attributes by which a group says what applies to its members."""
        return tuple(dict.fromkeys((*self.member_sender_access, *self.member_recipient_access)))

    @cached_property
    def primary_group(self) -> bool:
        """Whether primaryGroupID makes a member: of that group, see `primary_group_sid`."""
        return _has(self.member, "primarygroupid")

    @cached_property
    def member_dns(self) -> Names:
        """The attributes of `member` that hold DNs."""
        return tuple(name for name in self.member if name.lower() not in _NO_DN)

    @cached_property
    def member_logins(self) -> Names:
        """The attributes of `member` that hold logins."""
        return tuple(name for name in self.member if name.lower() == "memberuid")

    @cached_property
    def groups_by_member_of(self) -> bool:
        """Whether memberOf tells all static groups around an entry: no search for them by `member`.

        Not when the site names other attributes as members, of which the server's memberOf knows nothing.
        """
        return (
            self.member_of_tells_all
            and not self.member_logins
            and all(name.lower() == "member" for name in self.member_dns)
        )

    @cached_property
    def links(self) -> Names:
        """The attributes that hold DNs of others, and are amended by servers when those are renamed."""
        senders = (*self.allowed_sender_dn, *self.denied_sender_dn, *self.send_as)
        return (*senders, *self.owner, *self.moderator)

    @cached_property
    def read_attributes(self) -> Names:
        """Everything of users, groups, lists and domains that decisions use: never a group's members."""
        own = (getattr(self, field.name) for field in fields(self) if field.name not in _MEMBERS)
        sid = ("primaryGroupID", "objectSid") if self.primary_group else ()
        return tuple(dict.fromkeys((*chain.from_iterable(own), *sid)))

    # ------------------------------------------------------------ addresses

    def addresses_of(self, entry: Entry) -> tuple[str, ...]:
        """The folded addresses of an entry, each once, the primary one first."""
        return tuple(dict.fromkeys(chain.from_iterable(addresses_in(entry, name) for name in self.mail)))

    def mail_terms(self, form: str) -> list[Filter]:
        """What finds the entries that have an address, in one written form of it."""
        return [address_term(name, form) for name in self.mail]

    # ------------------------------------------------------------ delivery restrictions

    @cached_property
    def delivery_restrictions(self) -> Names:
        """The mapped attributes whose values restrict delivery without an access attribute of ours."""
        names = (*self.allowed_sender_dn, *self.denied_sender_dn)
        return (*self.login_required, *(name for name in names if name.lower() in DELIVERY_RESTRICTIONS))


def _has(names: Names, wanted: str) -> bool:
    return any(name.lower() == wanted for name in names)


# ---------------------------------------------------------------- how values are written


def is_prefixed(name: str) -> bool:
    """Whether an attribute holds mail addresses behind `smtp:`, beside others."""
    return name.lower() in _PREFIXED


def address_term(name: str, form: str) -> Filter:
    """What finds an address, in one written form of it, in one attribute."""
    return Equality(name, PREFIX + form if is_prefixed(name) else form)


def addresses_in(entry: Entry, name: str) -> Iterator[str]:
    """The folded addresses that one attribute of an entry holds, the primary one first."""
    values = [value.strip(" ") for value in entry.values(name)]
    if is_prefixed(name):
        # Lower case, not folded: a long s is no s here, as it is none to the server.
        mail = [value for value in values if value[: len(PREFIX)].lower() == PREFIX]
        mail.sort(key=lambda value: not value.startswith(PREFIX.upper()))
        values = [value[len(PREFIX) :] for value in mail]
    return (fold(value) for value in values if value)


_SID_HEAD = 8  # revision, count of sub-authorities, identifier authority: MS-DTYP section 2.4.2.2
_SUB_AUTHORITY = 4


def primary_group_sid(entry: Entry) -> str | None:
    """The objectSid of the primary group: the domain's, with primaryGroupID as its last number.

    None where there is no primaryGroupID; raises InputError for what makes no SID.
    """
    numbers = entry.values("primaryGroupID")
    if not numbers:
        return None
    sids = entry.values("objectSid")
    if len(numbers) > 1 or len(sids) != 1:
        raise InputError(f"{entry.dn} has {len(numbers)} primaryGroupID and {len(sids)} objectSid")
    number = numbers[0]
    if not (number.isascii() and number.isdigit() and len(number) <= 10 and int(number) < 2**32):
        raise InputError(f"{entry.dn}: primaryGroupID {number!r} is no 32-bit number")
    sid = sids[0].encode("utf-8", "surrogateescape")
    if len(sid) <= _SID_HEAD or sid[0] != 1 or len(sid) != _SID_HEAD + _SUB_AUTHORITY * sid[1]:
        raise InputError(f"{entry.dn}: objectSid {sid.hex()} is no SID")
    group = sid[:-_SUB_AUTHORITY] + int(number).to_bytes(_SUB_AUTHORITY, "little")
    return group.decode("utf-8", "surrogateescape")


def sid_text(value: str) -> str:
    """A SID as people write it (MS-DTYP section 2.4.2.1); octets that make none in hexadecimal digits."""
    octets = value.encode("utf-8", "surrogateescape")
    if len(octets) <= _SID_HEAD or len(octets) != _SID_HEAD + _SUB_AUTHORITY * octets[1]:
        return octets.hex()
    numbers = (octets[at : at + _SUB_AUTHORITY] for at in range(_SID_HEAD, len(octets), _SUB_AUTHORITY))
    authority = int.from_bytes(octets[2:_SID_HEAD], "big")
    return "-".join(
        ("S", str(octets[0]), str(authority), *(str(int.from_bytes(n, "little")) for n in numbers))
    )


# ---------------------------------------------------------------- profiles


@dataclass(frozen=True)
class _OpenLdap(Mapping):
    """slapd(8): entryDN of RFC 5020."""

    dn_attribute: ClassVar[str] = "entryDN"


@dataclass(frozen=True)
class _Ds389(Mapping):
    """389 Directory Server, whose memberOf plugin follows nested groups."""

    disabled: Names = ("nsAccountLock",)
    uuid: Names = ("nsUniqueId",)

    dn_attribute: ClassVar[str] = "entrydn"
    shows_all_classes: ClassVar[bool] = True
    member_of_is_nested: ClassVar[bool] = True


@dataclass(frozen=True)
class _FreeIpa(_Ds389):
    """389 Directory Server as FreeIPA sets it up."""

    mail: Names = ("mail", "mailAlternateAddress")
    login: Names = ("uid", "krbPrincipalName")
    member: Names = ("member",)
    owner: Names = ("memberManager",)
    disabled: Names = ("nsAccountLock", "krbPrincipalExpiration")

    member_of_tells_all: ClassVar[bool] = True


@dataclass(frozen=True)
class _ActiveDirectory(Mapping):
    """Active Directory, with or without Exchange's attributes."""

    mail: Names = ("mail", "proxyAddresses")
    login: Names = ("sAMAccountName", "userPrincipalName")
    member: Names = ("member", "primaryGroupID")
    owner: Names = ("managedBy", "msExchCoManagedByLink")
    disabled: Names = ("userAccountControl", "accountExpires")
    allowed_sender_dn: Names = ("smtpdAllowedSenderDN", "authOrig", "dLMemSubmitPerms")
    denied_sender_dn: Names = ("smtpdDeniedSenderDN", "unauthOrig", "dLMemRejectPerms")
    login_required: Names = ("msExchRequireAuthToSendTo",)
    send_as: Names = ("smtpdSendAs", "publicDelegates")
    moderator: Names = ("smtpdModerator", "msExchModeratedByLink")
    uuid: Names = ("objectGUID",)

    dn_attribute: ClassVar[str] = "distinguishedName"
    shows_all_classes: ClassVar[bool] = True
    in_chain: ClassVar[bool] = True
    member_of_tells_all: ClassVar[bool] = True


PROFILES: MappingOf[str, Mapping] = {
    "generic": Mapping(),
    "openldap": _OpenLdap(),
    "389ds": _Ds389(),
    "freeipa": _FreeIpa(),
    "active_directory": _ActiveDirectory(),
}

GENERIC = "generic"
AUTO = "auto"
"""In the configuration, for the profile that suits the servers' root DSE."""

_FAMILIES = (frozenset(("active_directory",)), frozenset(("389ds", "freeipa")), frozenset(("openldap",)))


def suited_by(profile: str, *, is_found: bool = False) -> frozenset[str]:
    """Which servers a profile may be used with, by the profile that suits them (empty: none is known to).

    One that was found (`AUTO`) is for servers of the same family alone.
    """
    if profile == GENERIC:
        return frozenset(("",)) if is_found else frozenset(("", *PROFILES)) - {"active_directory"}
    (family,) = (family for family in _FAMILIES if profile in family)
    return family if is_found else family | {""}


_NO_KEYS = frozenset(("member_of", "uuid"))
KEYS: tuple[str, ...] = tuple(field.name for field in fields(Mapping) if field.name not in _NO_KEYS)


def mapping_for(profile: str, overrides: MappingOf[str, Names]) -> Mapping:
    """The mapping of a profile, with what the site names otherwise."""
    if profile not in PROFILES:
        raise ConfigError(f"no such profile: expected one of {', '.join(PROFILES)}, got {profile!r}")
    for key in overrides:
        if key not in KEYS:
            raise ConfigError(f"no such mapping: expected one of {', '.join(KEYS)}, got {key!r}")
    return replace(PROFILES[profile], **{key: tuple(names) for key, names in overrides.items()})
