"""BER as LDAP restricts it (RFC 4511 section 5.1): definite lengths, tags of one octet.

Reading is bounded: an element that does not end within what it stands in is `Garbage`, whatever its
length says, and so is a length of more than four octets.
"""

SEQUENCE, SET, OCTETS, INTEGER, BOOLEAN, ENUMERATED = 0x30, 0x31, 0x04, 0x02, 0x01, 0x0A

_LONG = 0x80
_LONGEST = 4
_MOST = 100_000  # elements in one: each takes ten times its two octets
_WIDEST = 8


class Garbage(Exception):
    """What came is no LDAP message, or no value that LDAP has there."""


def element(tag: int, *parts: bytes) -> bytes:
    """Tag, length, and the parts one behind another."""
    octets = b"".join(parts)
    size = len(octets)
    if size < _LONG:
        return bytes((tag, size)) + octets
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, _LONG | len(length))) + length + octets


def integer(number: int, tag: int = INTEGER) -> bytes:
    """An INTEGER, or an ENUMERATED by its tag."""
    return element(tag, number.to_bytes(number.bit_length() // 8 + 1, "big", signed=True))


def boolean(truth: bool) -> bytes:
    """A BOOLEAN."""
    return element(BOOLEAN, b"\xff" if truth else b"\0")


def head(octets: bytes | bytearray, at: int) -> tuple[int, int, int]:
    """Tag, start and end of the element at `at`; IndexError when its head is not complete."""
    tag, size = octets[at], octets[at + 1]
    start = at + 2
    if size >= _LONG:
        count = size - _LONG
        if not 0 < count <= _LONGEST:
            raise Garbage(f"{bytes(octets[at : at + 2])!r}, expected a length of {_LONGEST} octets at most")
        octets[start + count - 1]  # IndexError: not all of the length is there
        size = int.from_bytes(octets[start : start + count], "big")
        start += count
    return tag, start, start + size


def elements(octets: bytes, start: int = 0, end: int | None = None) -> list[tuple[int, int, int]]:
    """Tag, start and end of each element between two places."""
    end = len(octets) if end is None else end
    found = []
    while start < end:
        try:
            found.append(head(octets, start))
        except IndexError:
            raise Garbage(f"{octets[start:end][:40]!r}, expected an element") from None
        start = found[-1][2]
        if len(found) > _MOST:
            raise Garbage(f"more than {_MOST} elements")
    if start != end:
        raise Garbage(f"an element ends at {start}, expected {end}")
    return found


def parts(octets: bytes, tag: int = SEQUENCE) -> list[tuple[int, bytes]]:
    """What the one element that these octets are holds: tag and content of each."""
    outer = elements(octets)
    if len(outer) != 1 or outer[0][0] != tag:
        raise Garbage(f"{octets[:40]!r}, expected one element with the tag {tag:#x}")
    return [(inner, octets[start:end]) for inner, start, end in elements(octets, *outer[0][1:])]


def number(octets: bytes) -> int:
    """The content of an INTEGER or ENUMERATED."""
    if not 0 < len(octets) <= _WIDEST:
        raise Garbage(f"expected a number of {_WIDEST} octets at most")
    return int.from_bytes(octets, "big", signed=True)
