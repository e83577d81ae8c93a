"""A DNS server of our own: a table of records, and NXDOMAIN for everything else.

It listens on an address of its own in 127.0.0.0/8, on port 53, since resolv.conf(5) knows no ports;
so it takes root. RFC 1035 section 4 in the little that a stub resolver asks for: one question, UDP.

    with Dns({("ok.example", "MX"): ["10 mx.ok.example"], ("mx.ok.example", "A"): ["192.0.2.1"]}) as dns:
        ... dns.address, dns.asked

BUGS: no truncation, no CNAME chains, no EDNS answer.
"""

import ipaddress
import random
import socketserver
import struct
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from ldappolicy.errors import OracleError
from ldappolicy.oracle.serving import serving

Records = Mapping[tuple[str, str], Sequence[str]]

TYPES = {1: "A", 2: "NS", 5: "CNAME", 12: "PTR", 15: "MX", 16: "TXT", 28: "AAAA"}
SERVFAIL, NXDOMAIN = 2, 3
# RFC 1035 section 4.1.4: a pointer to offset 12, where the only question starts.
TO_THE_QUESTION = b"\xc0\x0c"


class Dns:
    """The server; `servfail` names domains whose every question fails for now."""

    def __init__(self, records: Records, servfail: Collection[str] = ()) -> None:
        self.records = {(name.lower(), kind): list(values) for (name, kind), values in records.items()}
        self.servfail = set(servfail)
        self.asked: list[tuple[str, str]] = []
        self._server = _bind(self)
        self.address = str(self._server.server_address[0])
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self._stack.enter_context(serving(self._server))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def answer(self, query: bytes) -> bytes:
        """The reply to one datagram."""
        name, end = _name(query, 12)
        number = struct.unpack(">H", query[end : end + 2])[0]
        kind = TYPES.get(number, str(number))
        self.asked.append((name, kind))
        values = self.records.get((name, kind), [])
        found = b"".join(_record(number, encode(kind, value)) for value in values)
        # QR, RD, RA; then one question and the answers.
        header = query[:2] + struct.pack(">HHHHH", 0x8180 | self._code(name), 1, len(values), 0, 0)
        return header + query[12 : end + 4] + found

    def _code(self, name: str) -> int:
        if any(f".{name}".endswith(f".{domain}") for domain in self.servfail):
            return SERVFAIL
        return 0 if any(name == known for known, _ in self.records) else NXDOMAIN


class _Question(socketserver.BaseRequestHandler):
    server: "_Server"

    def handle(self) -> None:
        query, sock = self.request
        sock.sendto(self.server.dns.answer(query), self.client_address)


class _Server(socketserver.UDPServer):
    def __init__(self, address: str, dns: Dns) -> None:
        self.dns = dns
        super().__init__((address, 53), _Question)


def _bind(dns: Dns) -> _Server:
    """On an address that nobody else has: several test runs may share a machine."""
    for _ in range(20):
        try:
            return _Server(f"127.77.{random.randint(0, 255)}.{random.randint(1, 254)}", dns)
        except OSError as error:
            last = error
    raise OracleError(f"no address for a DNS server of its own: {last.strerror}") from last


def _name(message: bytes, start: int) -> tuple[str, int]:
    """The (uncompressed) name at an offset, in lower case, and where it ends."""
    labels: list[str] = []
    while length := message[start]:
        labels.append(message[start + 1 : start + 1 + length].decode("latin-1"))
        start += 1 + length
    return ".".join(labels).lower(), start + 1


def _record(number: int, data: bytes) -> bytes:
    return TO_THE_QUESTION + struct.pack(">HHIH", number, 1, 60, len(data)) + data


def encode(kind: str, value: str) -> bytes:
    """The RDATA of a record, from its zone file notation."""
    if kind in ("A", "AAAA"):
        return ipaddress.ip_address(value).packed
    if kind == "MX":
        preference, name = value.split()
        return struct.pack(">H", int(preference)) + encode("NS", name)
    if kind == "TXT":
        return bytes([len(value)]) + value.encode()
    labels = (label.encode() for label in value.rstrip(".").split(".") if label)
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"
