"""Mail addresses, and the access(5) keys of addresses, domains, hosts and clients, in order.

Addresses are in Postfix's internal (unquoted) form, as the policy protocol carries them: the local
part is everything before the last ``@``. Keys follow access(5) and smtpd(8)'s check_mail_access,
check_domain_access and check_addr_access. Comparison is by `str.casefold` on both sides, as in Postfix
(a U-label matches a U-label only: no IDNA here).
"""

import ipaddress
import re
import unicodedata
from collections.abc import Iterator
from typing import NamedTuple

from ldappolicy.memories import BOUNDS, Memory, size_of

NULL_SENDER_KEY = "<>"
"""smtpd_null_access_lookup_key."""

ROUTING = frozenset("@%!")
"""What makes a local part name a destination of its own."""

LONGEST_KEY = 2048
"""line_length_limit of Postfix: no client can say a longer address or login. In characters."""

_DOMAIN_OCTETS = 255
"""RFC 1035 section 2.3.4."""

LONGEST_IP = 45
"""INET6_ADDRSTRLEN without its NUL: characters of an IP address."""

REMEMBERED = 128
"""What was made of longer addresses and domains is not kept: clients choose them, keys grow by the square."""

# RFC 822 atoms as quote_822_local(3) of Postfix sees them: 8-bit clean, dots between atoms.
_DOT_STRING = re.compile(r"[^\x00-\x20\x7f()<>@,;:\\\".\[\]]+(?:\.[^\x00-\x20\x7f()<>@,;:\\\".\[\]]+)*")
_QUOTED_SPECIALS = str.maketrans({special: "\\" + special for special in '"\\\r'})
_OCTETS = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9}){3}")
_UNSPLIT = frozenset(("postmaster", "mailer-daemon", "double-bounce"))


class AddressKeys(NamedTuple):
    """The access(5) keys of one address, in order.

    `keys` are all of them, `exact` those with local part and domain in internal form (with and
    without the extension): what an entry of the directory can have as an address.
    """

    keys: tuple[str, ...]
    exact: tuple[str, ...]


def split_address(address: str) -> tuple[str, str]:
    """Local part and domain; the domain is empty when there is no ``@``."""
    local, at, domain = address.rpartition("@")
    return (local, domain) if at else (address, "")


def is_catch_all(address: str) -> bool:
    """Whether the local part is empty: as a value of an entry it stands for every address of its domain."""
    return address.rfind("@") == 0


def catch_all_of(address: str) -> str:
    """What an entry has that stands for the address among all of its domain; empty without a domain."""
    domain = split_address(address)[1]
    return "@" + domain if domain else ""


def is_routed(address: str) -> bool:
    """Whether the local part (the whole, without a domain) holds ``@``, ``%`` or ``!``."""
    return not ROUTING.isdisjoint(split_address(address)[0])


def quoted(address: str, *, always: bool = False) -> str:
    """External form (RFC 5321 Quoted-string) where the local part needs it, or always."""
    local, at, domain = address.rpartition("@")
    if not at or (_DOT_STRING.fullmatch(local) and not always):
        return address
    return '"' + local.translate(_QUOTED_SPECIALS) + '"@' + domain


def unquoted(address: str) -> str:
    """Internal form of an address that may be written with a quoted local part."""
    local, at, domain = address.rpartition("@")
    if at and len(local) > 1 and local[0] == local[-1] == '"':
        return re.sub(r"\\(.)", r"\1", local[1:-1], flags=re.DOTALL) + "@" + domain
    return address


def fold(address: str) -> str:
    """The form in which addresses, logins and domains are compared."""
    return unquoted(address.casefold()) if '"' in address else address.casefold()


def skeleton(folded: str) -> str:
    """What is left of a folded text without accents and other forms of its letters (NFKD, less the marks).

    Servers may match by such a rule, and return an entry for a key that none of its values equals.
    """
    if folded.isascii():
        return folded
    letters = unicodedata.normalize("NFKD", folded)
    return "".join(one for one in letters if not unicodedata.category(one).startswith("M")).casefold()


def without_extension(address: str, delimiters: str) -> str | None:
    """The address without its extension, or None when it has none (split_addr of Postfix)."""
    if not delimiters:
        return None
    local, _, domain = address.rpartition("@")
    folded = local.casefold()
    if folded in _UNSPLIT:
        return None
    if "-" in delimiters and (
        folded.startswith("owner-") or (len(local) > 8 and folded.endswith("-request"))
    ):
        return None
    cut = min((at for at in map(local.find, delimiters) if at >= 0), default=0)
    return f"{local[:cut]}@{domain}" if cut else None


def _parents(name: str, with_dot: bool) -> Iterator[str]:
    """The name, then its parents without or with a leading dot: those no longer than a domain can be."""
    if 0 < len(name) <= _DOMAIN_OCTETS:
        yield name
    while (dot := name.find(".", max(1, len(name) - _DOMAIN_OCTETS - 1))) >= 0:
        name = name[dot:] if with_dot else name[dot + 1 :]
        if name:
            yield name


def single_key(text: str) -> tuple[str, ...]:
    """What is looked up as it stands, if it can be a key: a login, a fingerprint, a name without a domain."""
    return (text,) if len(text) <= LONGEST_KEY else ()


def exact_forms(address: str, delimiters: str) -> tuple[str, ...]:
    """The address, and the one without its extension: what an entry of the directory can have."""
    bare = without_extension(address, delimiters) if delimiters and "@" in address else None
    return (address,) if bare is None else (address, bare)


def address_keys(address: str, delimiters: str, parents: bool) -> AddressKeys:
    """Keys of a folded address: full, without extension, domain, parent domains, `user@`.

    `parents` is whether a bare domain matches its subdomains (else `.domain` does). Each key with
    a local part comes in quoted form first, where that differs. Without a domain: as it stands.
    A form that is longer than a key can be has none; the others have theirs.
    """
    if "@" not in address:
        return AddressKeys(single_key(address), (address,))
    exact = exact_forms(address, delimiters)
    middle = tuple(_parents(split_address(address)[1], not parents))
    forms = [full for full in exact if len(full) <= LONGEST_KEY]
    keys = dict.fromkeys(form for full in forms for form in (quoted(full), full))
    users = (user for full in exact if len(user := split_address(full)[0] + "@") <= LONGEST_KEY)
    last = dict.fromkeys(form for user in users for form in (quoted(user), user))
    return AddressKeys((*keys, *middle, *last), exact)


def domain_keys(name: str, parents: bool) -> tuple[str, ...]:
    """Keys of a folded hostname (client, helo, etrn); a numerical one has no parents."""
    return (name,) if is_host_address(name) else tuple(_parents(name, not parents))


def client_keys(name: str, address: str, parents: bool) -> tuple[str, ...]:
    """Keys of a client: hostname, its parents, address, its networks by octet or hextet."""
    return (*domain_keys(name, parents), *_networks(address))


def _networks(address: str) -> Iterator[str]:
    """The address, then its prefixes as check_addr_access cuts them: `2001:db8::1`, `2001:db8:`, ...

    None for what is longer than an address, and so is none.
    """
    if len(address) > LONGEST_IP:
        return
    delimiter = ":" if ":" in address else "."
    while address:
        yield address
        address = address.rpartition(delimiter)[0]


def local_domain_keys(domain: str) -> tuple[str, ...]:
    """A domain as it stands, then its parents with a leading dot (smtpdLocalDomains)."""
    return tuple(_parents(domain, with_dot=True))


def parent_domains(domain: str) -> tuple[str, ...]:
    """The domain itself, then its parents down to the top."""
    known = _PARENTS.get(domain)
    if known is None:
        known = tuple(_parents(domain, with_dot=False))
        if len(domain) <= REMEMBERED:
            _PARENTS.keep(domain, known, size_of(*known))
    return known


_PARENTS: Memory[str, tuple[str, ...]] = Memory(BOUNDS["parent domains"])


def strip_dot(address: str) -> str:
    """One trailing dot of the domain goes (not of `user@.`, nor one of two)."""
    return address[:-1] if address.endswith(".") and address[-2:-1] not in (".", "@", "") else address


def is_host_address(text: str) -> bool:
    """valid_hostaddr(3) of Postfix: a bare IPv4 or IPv6 address."""
    if len(text) > LONGEST_IP:
        return False
    if ":" not in text:
        return _is_ipv4(text)
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return "%" not in text


def _is_ipv4(text: str) -> bool:
    """valid_ipv4_hostaddr(3): leading zeros are fine, a first octet of zero is for 0.0.0.0 alone."""
    if _OCTETS.fullmatch(text) is None:
        return False
    octets = [int(part) for part in text.split(".")]
    return max(octets) <= 255 and (octets[0] != 0 or not any(octets))


_LABEL = re.compile(r"(?![-])[A-Za-z0-9_-]{1,63}(?<!-)")


def is_hostname(name: str) -> bool:
    """valid_hostname(3) of Postfix: RFC 1123 labels (and `_`), not all digits, at most 255 octets."""
    if len(name) > _DOMAIN_OCTETS:
        return False
    labels = name.split(".")
    return all(map(_LABEL.fullmatch, labels)) and not all(part.isdigit() for part in labels)


def is_unicode_hostname(name: str) -> bool:
    """valid_utf8_hostname(3) with SMTPUTF8: as `is_hostname`, U-labels converted first.

    An A-label is longer than its U-label, and converting takes time by the square of the length.
    """
    if len(name) > _DOMAIN_OCTETS:
        return False
    try:
        return is_hostname(name.encode("idna").decode("ascii"))
    except UnicodeError:
        return False


def is_address_literal(text: str) -> bool:
    """valid_mailhost_addr(3): what stands between the brackets of an address literal."""
    if text[:5].casefold() == "ipv6:":
        return ":" in text[5:] and is_host_address(text[5:])
    return ":" not in text and is_host_address(text)
