"""Networks: mynetworks as match_list(3) of Postfix reads it, and cidr_table(5) patterns.

A pattern of mynetworks is an address, `[IPv6]`, a network with its prefix length, or a hostname that
also matches its subdomains (mynetworks stands in parent_domain_matches_subdomains by default). They
are tried from left to right, the first that matches decides, `!` excludes.
"""

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass

from ldappolicy.address import LONGEST_IP, is_hostname
from ldappolicy.errors import InputError

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def parse_network(text: str) -> Network:
    """A CIDR block or a single address, IPv6 with or without brackets around the address.

    Raises InputError when it is none, also when bits are set behind the prefix, as Postfix does.
    """
    inside = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    address, slash, length = inside.partition("/")
    bare = address[1:-1] if address.startswith("[") and address.endswith("]") else address
    if "%" in text or (slash and not (length.isascii() and length.isdigit())):
        raise InputError(
            f"{text!r} is not a network: expected an address, or one with the length of a prefix"
        )
    try:
        return ipaddress.ip_network(bare + slash + length)
    except ValueError as problem:
        raise InputError(f"{text!r} is not a network: {problem}") from None


@dataclass(frozen=True, slots=True)
class Pattern:
    """One pattern of mynetworks: a network, or a folded hostname."""

    excludes: bool
    network: Network | None
    hostname: str

    def matches(self, hostname: str, address: ipaddress.IPv4Address | ipaddress.IPv6Address | None) -> bool:
        """Whether it covers a client of that (folded) name or that address."""
        if self.network is not None:
            return address is not None and address in self.network
        return hostname == self.hostname or hostname.endswith("." + self.hostname)


def parse_pattern(text: str) -> Pattern:
    """One pattern of mynetworks; raises InputError."""
    bare = text.lstrip("!")
    excludes = (len(text) - len(bare)) % 2 == 1
    if "/" in bare or ":" in bare or bare.startswith("[") or bare.replace(".", "").isdigit():
        return Pattern(excludes, parse_network(bare), "")
    if not is_hostname(bare):
        raise InputError(f"{text!r} is neither a network nor a hostname")
    return Pattern(excludes, None, bare.casefold())


def parse_client_address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address of a client, or None when it is none (`unknown`, empty)."""
    if len(text) > LONGEST_IP:
        return None
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def match_client(patterns: Iterable[Pattern | None], hostname: str, address: str) -> bool | None:
    """Whether mynetworks covers the client; `hostname` folded.

    A pattern that is None stands for a table that failed (`fail:`): where it is reached nothing is
    known, and so is the answer.
    """
    parsed = parse_client_address(address)
    for pattern in patterns:
        if pattern is None:
            return None
        if pattern.matches(hostname, parsed):
            return not pattern.excludes
    return False
