r"""One directory entry, and the normal form of a DN.

A **normal DN** is a key: two DNs name one entry exactly when their normal forms are equal strings.
It is read by RFC 4514 (and RFC 4514 section 3's legacy: `;` between RDNs, quoted values, `OID.`), then

* attribute types are in lower case, under one name where the standards give several;
* values are unescaped, brought to NFKC and lower case, spaces squashed and cut off at both ends;
* the pairs of a multi-valued RDN are sorted;
* every special character in a value is `\XX`, so that a comma always ends an RDN, and the parent of
  a normal DN is what stands behind its first comma.

Lower case, not case folding: `ß` and `ss` are two names to a directory. Nothing but spaces is left out.

An **Entry** has attributes without case, each with one or several values. What bytes mean is left to
whoever asks; a value that is not UTF-8 is kept with surrogateescape.

BUGS: every attribute type is compared as a directory string, since there is no schema here.
"""

import re
import sys
import unicodedata
from collections.abc import ItemsView, Iterable, Iterator, Mapping
from itertools import chain
from sys import getsizeof
from typing import NoReturn, final

from ldappolicy.errors import InputError
from ldappolicy.memories import BOUNDS, Memory, remembered, size_of

# RFC 4519 and RFC 2985 names that stand for one type; the shortest is the normal one.
_ALIASES = {
    "2.5.4.3": "cn",
    "commonname": "cn",
    "2.5.4.4": "sn",
    "surname": "sn",
    "2.5.4.6": "c",
    "countryname": "c",
    "2.5.4.7": "l",
    "localityname": "l",
    "2.5.4.8": "st",
    "stateorprovincename": "st",
    "2.5.4.9": "street",
    "streetaddress": "street",
    "2.5.4.10": "o",
    "organizationname": "o",
    "2.5.4.11": "ou",
    "organizationalunitname": "ou",
    "0.9.2342.19200300.100.1.1": "uid",
    "userid": "uid",
    "0.9.2342.19200300.100.1.25": "dc",
    "domaincomponent": "dc",
    "1.2.840.113549.1.9.1": "email",
    "emailaddress": "email",
    "e": "email",
}

_WORD = r"[!$-*\--:=?-\[\]-~]++"  # printable ASCII that means nothing in a DN; lower case was made before
_PAIR = rf"(?:cn|ou|dc|uid|o|c|l|st|sn)={_WORD}(?: {_WORD})*+"
_PLAIN = re.compile(rf"{_PAIR}(?:,{_PAIR})*+")

# Possessive throughout: a DN is input, and must be read in linear time whatever it is.
_AVA = re.compile(
    r"""
    \ *+ (?P<type> [A-Za-z0-9][A-Za-z0-9._-]*+ ) \ *+ = \ *+
    (?: \# (?P<hex> (?:[0-9A-Fa-f]{2})++ ) \ *+
      | "  (?P<quoted> (?: [^"\\\0] | \\. )*+ ) " \ *+
      |    (?P<plain> (?!\#) (?: [^"+,;<>\\\0] | \\. )*+ )
    )
    (?P<end> [+,;] | \Z )
    """,
    re.VERBOSE | re.DOTALL,
)
_ESCAPE = re.compile(rb"\\([0-9A-Fa-f]{2}|.)", re.DOTALL)
_ESCAPABLE = frozenset(b' "#+,;<=>\\')
_SPECIAL = re.compile(r'["#+,;<>\\\0]')
_SPACES = re.compile(" {2,}")

# OCTET STRING, UTF8String, NumericString, PrintableString, TeletexString, IA5String, VisibleString
_STRING_TAGS = frozenset((0x04, 0x0C, 0x12, 0x13, 0x14, 0x16, 0x1A))


def key_of_dn(dn: str) -> str:
    """The normal form of a DN; empty for what is none, which names nothing."""
    try:
        return normal_dn(dn)
    except InputError:
        return ""


_UNIQUE_SUFFIX = re.compile(r"#'[01]*'B$")


def without_uid(value: str) -> str:
    """The DN in a value of Name and Optional UID (RFC 4517 section 3.3.21)."""
    return _UNIQUE_SUFFIX.sub("", value)


def ancestors(normal: str) -> Iterator[str]:
    """The DNs above a normal one, the nearest first; without the empty one."""
    while normal := normal.partition(",")[2]:
        yield normal


def is_below(normal: str, base: str) -> bool:
    """Whether a normal DN is equal to, or somewhere under, a normal base."""
    return not base or normal == base or normal.endswith("," + base)


MOST_RDNS = 500
"""Names in one DN; every name above an entry is counted, and trees are ten deep."""


@remembered("names", 12)
def normal_dn(dn: str) -> str:
    """The key under which a DN is compared; raises InputError for what is not a DN.

    `normal_dn.once` does not remember: DNs by the thousand would only sweep the memory.
    """
    if dn.count(",") > MOST_RDNS:
        raise InputError(f"not a DN: {dn[:100]!r}..., expected at most {MOST_RDNS} names")
    low = dn.lower()
    if _PLAIN.fullmatch(low):
        return dn if low == dn else low  # one string for both, when a million are kept
    return _normalise_slowly(dn) if dn.strip(" ") else ""


_NUMERIC_OID = re.compile(r"[0-9]+(?:\.[0-9]+)*")


def _normalise_slowly(dn: str) -> str:
    rdns: list[str] = []
    pairs: list[str] = []
    at = 0
    while True:
        ava = _AVA.match(dn, at)
        if ava is None:
            raise InputError(f"not a DN: {dn!r}, expected type=value (RFC 4514) at character {at + 1}")
        pairs.append(_normal_pair(ava, dn))
        if ava["end"] != "+":
            rdns.append("+".join(sorted(pairs)))
            pairs = []
        if not ava["end"]:
            return ",".join(rdns)
        at = ava.end()


def _normal_pair(ava: re.Match[str], dn: str) -> str:
    type_ = ava["type"].lower()
    if type_.startswith("oid."):
        type_ = type_.removeprefix("oid.")
        if not _NUMERIC_OID.fullmatch(type_):
            raise InputError(f"not a DN: {dn!r}, expected a number behind 'OID.', got {type_!r}")
    if ava["hex"] is not None:
        value = _hex_value(bytes.fromhex(ava["hex"]), dn)
    else:
        value = _normal_value(_unescape(ava["quoted"] or ava["plain"] or "", dn))
    return f"{_ALIASES.get(type_, type_)}={value}"


def _hex_value(ber: bytes, dn: str) -> str:
    """RFC 4514 section 2.4: `#` and the value in BER. What is no string stays in hex."""
    start = 2
    length = ber[1] if len(ber) > 1 else 0
    if length > 0x80:
        start += length & 0x7F
        length = int.from_bytes(ber[2:start], "big")
    if start + length != len(ber):
        raise InputError(f"not a DN: {dn!r}, expected BER (RFC 4514) in '#{ber.hex()}'")
    if ber[0] not in _STRING_TAGS:
        return "#" + ber.hex()
    return _normal_value(ber[start:].decode("utf-8", "surrogateescape"))


def _unescape(value: str, dn: str) -> str:
    if "\\" not in value:
        return value

    def character(escape: re.Match[bytes]) -> bytes:
        if len(escape[1]) == 2:
            return bytes.fromhex(escape[1].decode())
        if escape[1][0] not in _ESCAPABLE:
            raise InputError(f"not a DN: {dn!r}, expected a special character or two hex digits behind '\\'")
        return escape[1]

    try:
        octets = _ESCAPE.sub(character, value.encode("utf-8", "surrogateescape"))
        return octets.decode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise InputError(f"not a DN: {dn!r}, expected UTF-8") from None


def _normal_value(value: str) -> str:
    # Letter by letter, as directories do: str.lower() of a whole word knows the final sigma.
    low = "".join(map(str.lower, unicodedata.normalize("NFKC", value)))
    squashed = _SPACES.sub(" ", unicodedata.normalize("NFKC", low)).strip(" ")
    return _SPECIAL.sub(lambda found: f"\\{ord(found[0]):02x}", squashed)


_STORED_NAMES: Memory[str, str] = Memory(BOUNDS["attribute names"])


def _stored_name(name: str) -> str:
    """In lower case and without options; one string for all the entries that have it."""
    stored = sys.intern(name.partition(";")[0].lower())
    _STORED_NAMES.keep(name, stored, size_of(name, stored))
    return stored


_BARE = 200
"""Bytes of an entry without attributes, and of an attribute without values."""


@final
class Entry:
    """One directory entry: immutable, so that it can be shared.

    `dn` is as spelled, `key` its normal form. Options are dropped from attribute names: what stands
    under `mail;lang-en` is a value of `mail`, as it is to a search (RFC 4512 section 2.5.3).
    """

    __slots__ = ("_attributes", "dn", "key")

    dn: str
    key: str
    _attributes: dict[str, tuple[str, ...]]

    def __init__(self, dn: str, attributes: Mapping[str, Iterable[str]]) -> None:
        stored: dict[str, tuple[str, ...]] = {}
        for name, given in attributes.items():
            if values := tuple(given):
                name = _STORED_NAMES.get(name) or _stored_name(name)
                stored[name] = stored[name] + values if name in stored else values
        put = object.__setattr__
        put(self, "dn", dn)
        put(self, "key", normal_dn.once(dn))  # loading a tree would only sweep the memory
        put(self, "_attributes", stored)

    def values(self, name: str) -> tuple[str, ...]:
        """All values of an attribute, its name in any case; none is an empty tuple."""
        return self._attributes.get(name) or self._attributes.get(name.lower(), ())

    def has_any(self, names: frozenset[str]) -> bool:
        """Whether it has values of any of some attributes, named in lower case."""
        return not names.isdisjoint(self._attributes)

    def items(self) -> ItemsView[str, tuple[str, ...]]:
        """The attributes that have values: name in lower case, values."""
        return self._attributes.items()

    @property
    def size(self) -> int:
        """Bytes in memory, nearly."""
        values = self._attributes.values()
        return _BARE * (1 + len(values)) + sum(map(getsizeof, chain.from_iterable(values)))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Entry):
            return NotImplemented
        return self.key == other.key and self._attributes == other._attributes

    def __hash__(self) -> int:
        return hash(self.key)

    def __repr__(self) -> str:
        return f"Entry({self.dn!r}, {self._attributes!r})"

    def __reduce__(self) -> tuple[type["Entry"], tuple[str, dict[str, tuple[str, ...]]]]:
        return Entry, (self.dn, self._attributes)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"an Entry is immutable: {name!r}")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"an Entry is immutable: {name!r}")
