"""Which profile suits a server, by what its root DSE says (RFC 4512 section 5.1)."""

from collections.abc import Mapping, Sequence

ATTRIBUTES = (
    "objectClass",
    "configContext",
    "vendorName",
    "vendorVersion",
    "rootDomainNamingContext",
    "supportedCapabilities",
    "supportedExtension",
)
"""What is looked at."""

ACTIVE_DIRECTORY = "1.2.840.113556.1.4.800"
"""LDAP_CAP_ACTIVE_DIRECTORY_OID, MS-ADTS section 3.1.1.3.4.3.1."""

_IPA = "2.16.840.1.113730.3.8.10."
"""Begins the extended operations of FreeIPA's plugins (keytabs, enrolment, names of trusted domains)."""

NAMES = {
    "active_directory": "Active Directory",
    "389ds": "389 Directory Server",
    "freeipa": "FreeIPA",
    "openldap": "OpenLDAP",
    "": "of no family that is known",
}
"""What a server is, by the profile that suits it."""


def profile_of(root: Mapping[str, Sequence[str]]) -> str:
    """The profile, by attributes under names in lower case; empty if they do not tell."""
    if "rootdomainnamingcontext" in root or ACTIVE_DIRECTORY in root.get("supportedcapabilities", ()):
        return "active_directory"
    if "openldaprootdse" in map(str.lower, root.get("objectclass", ())) or "configcontext" in root:
        return "openldap"
    if any("389" in said for name in ("vendorname", "vendorversion") for said in root.get(name, ())):
        is_ipa = any(name.startswith(_IPA) for name in root.get("supportedextension", ()))
        return "freeipa" if is_ipa else "389ds"
    return ""
