r"""The policy delegation protocol without sockets: bytes in, requests out; actions in, bytes out.

Grammar (SMTPD_POLICY_README; Postfix util/attr_print_plain.c, util/attr_scan_plain.c)::

    request = "request=smtpd_access_policy\n" *attribute "\n"     ; attributes in any order
    attribute = name "=" value "\n"                               ; nothing is escaped in either
    reply = "action=" action "\n\n"

Of two attributes with one name the first counts, unknown ones are ignored. What Postfix never sends is
an error that ends the connection: a line without "=" or without a name, NUL, a line that ends in CR
(to answer it in kind would hang a Postfix until its timeout), a request without `request=`, one that
is empty, one over the limit. The server closes; nothing here knows of sockets, times or decisions.
"""

import re
from collections.abc import Callable, Container
from operator import itemgetter

from ldappolicy.action import ACTION_WORDS
from ldappolicy.errors import ProtocolError
from ldappolicy.memories import remembered
from ldappolicy.request import Request

EXCERPT_BYTES = 80
"""What the log gets to see of a request that is none."""

TEXT_BYTES = 500
"""An action with a text is cut here: Postfix cuts its whole reply to the client at 510."""

LIST_BYTES = 4000
"""A restriction list cannot be cut without changing what it means; a longer one is refused."""

SERVER_CONFIGURATION_ERROR = b"action=451 4.3.5 Server configuration error\n\n"

_KIND = b"smtpd_access_policy"
_FIELDS = {name.encode("ascii"): name for name in Request._fields}


def _postfix_order(grouped: Container[str]) -> str:
    """The pattern of a whole request as some Postfix since 3.1 sends it; the `grouped` fields are groups."""
    names = Request._fields
    at = names.index

    def lines(*names: str, optional: bool = False) -> str:
        # Possessive, so that a value is scanned once; "." is anything but a newline.
        block = "".join(f"{name}=(?P<{name}>.*+)\n" if name in grouped else f"{name}=.*+\n" for name in names)
        return f"(?:{block})?" if optional else block

    return (
        f"request={_KIND.decode()}\n"
        + lines(*names[: at("server_address")])
        + lines("server_address", "server_port", optional=True)  # 3.2
        + lines(*names[at("helo_name") : at("sasl_method")])
        + lines(*names[at("sasl_method") : at("ccert_subject")], optional=True)  # built with SASL
        + lines(*names[at("ccert_subject") : at("tls_sni")], optional=True)  # built with TLS
        + lines("tls_sni", optional=True)  # 3.12
        + lines("policy_context")
        + lines("compatibility_level", "mail_version", optional=True)  # 3.8
        + "\n"
    )


_in_postfix_order = re.compile(_postfix_order(Request._fields)).fullmatch

_NUL, _CR = b"\0\r"
"""What "." lets through, to be looked for beforehand; as numbers, since those are found faster."""


def plain_values(data: bytes) -> tuple[str, ...] | None:
    """The values of one whole request as Postfix sends it, in the order of `Request`.

    None is no error: bytes that `RequestReader` may make requests of, or refuse.
    """
    if _NUL in data or _CR in data:
        return None
    match = _in_postfix_order(data.decode("utf-8", "surrogateescape"))
    return None if match is None else match.groups("")


class Glance:
    """Looks at the same requests without making text of them: `read` gives a key of some fields.

    Names are most of a request, and looking at them most of the time. So the end of a request, from the
    certificate on, is looked at once: hardly more of it differs than the cipher. `fields` are names.
    """

    def __init__(self, fields: Container[str]) -> None:
        grouped = [name for name in _FRONT if name in fields or name in SHOWN]
        front = _postfix_order(grouped).partition("sasl_sender=")[0] + ")?"
        self._front = re.compile(front.encode("ascii")).match
        self._tails: dict[bytes, bytes] = {}
        self._contexts: dict[bytes, str] = {}
        self._chosen: Take = itemgetter(*(at for at, name in enumerate(grouped, 1) if name in fields))
        self._shown: Take = itemgetter(*(grouped.index(name) + 1 for name in SHOWN))

    def read(self, data: bytes) -> tuple[bytes, re.Match[bytes]] | None:
        """The key, and a match with the fields before the certificate by name; None: not such a request."""
        if _NUL in data or _CR in data:
            return None
        match = self._front(data)
        if match is None:
            return None
        tail = data[match.end() :]
        token = self._tails.get(tail) or self._token(tail, data)
        chosen = self._chosen(match)
        if token is None or None in chosen:
            return None
        return _joined(chosen) + token, match  # type: ignore[arg-type]  # None is not in it

    def shown(self, match: re.Match[bytes]) -> list[str]:
        """The values of SHOWN."""
        shown = self._shown(match)
        return _joined(shown).decode("utf-8", "surrogateescape").split("\n")  # type: ignore[arg-type]  # nor here

    def context(self, data: bytes, match: re.Match[bytes]) -> str | None:
        """The policy_context of a request that was read; None: its end is not known by a number."""
        return self._contexts.get(data[match.end() :])

    def _token(self, tail: bytes, data: bytes) -> bytes | None:
        """What stands for an end of requests that is as it should be."""
        whole = _whole_in_postfix_order(data)
        if whole is None:
            return None
        if len(tail) > LONGEST_TAIL or len(self._tails) >= MOST_TAILS:
            return b"\n" + tail
        self._contexts[tail] = whole["policy_context"].decode("utf-8", "surrogateescape")
        return self._tails.setdefault(tail, b"\n%d" % len(self._tails))


Take = Callable[[re.Match[bytes]], tuple[bytes | None, ...]]

_FRONT = Request._fields[: Request._fields.index("sasl_username") + 1]
_joined = b"\n".join
_whole_in_postfix_order = re.compile(_postfix_order(("policy_context",)).encode("ascii")).fullmatch

SHOWN = ("client_address", "client_name", "queue_id", "instance")
"""What a log line says of the request itself, whatever decided."""

LONGEST_TAIL = 1024
MOST_TAILS = 1000
"""Ends of requests that are known by a number; others are their own."""

_new_request = tuple.__new__


class RequestReader:
    """Makes requests of the bytes of one connection, however they were cut.

    `error` is None until the bytes are no requests any more; the requests before that place have been
    returned then and are owed their replies. `feed` must not be called after that.
    """

    __slots__ = ("_attributes", "_beginning", "_is_policy", "_most", "_partial", "_size", "error")

    def __init__(self, max_request_bytes: int = 131072) -> None:
        self.error: ProtocolError | None = None
        self._most = max_request_bytes
        self._partial = bytearray()
        self._next_request()

    @property
    def idle(self) -> bool:
        """Whether there is no part of a request."""
        return not self._size and not self._partial

    def feed(self, data: bytes) -> list[Request]:
        """The requests that end in `data`; sets `error` for what is none. Raises it when called again."""
        if self.error is not None:
            raise self.error
        # Postfix has one request outstanding, so a read is nearly always just that.
        if not (self._size or self._partial or len(data) > self._most):
            values = plain_values(data)
            if values is not None:
                return [_new_request(Request, values)]
        return self._feed_lines(data)

    def end(self) -> None:
        """No more bytes will come; sets `error` when that cuts a request off."""
        if self.error is None and not self.idle:
            self._begin(self._partial)
            self.error = self._trouble("connection closed within a request", "an empty line")

    def _next_request(self) -> None:
        self._attributes: dict[str, str] = {}
        self._is_policy = False
        self._size = 0
        self._beginning = b""

    def _feed_lines(self, data: bytes) -> list[Request]:
        requests: list[Request] = []
        *lines, rest = data.split(b"\n")
        try:
            for line in lines:
                if self._take_line(line):
                    requests.append(Request.from_attributes(self._attributes))
                    self._next_request()
            self._keep(rest)
        except ProtocolError as error:
            self.error = error
            self._partial.clear()
        return requests

    def _take_line(self, line: bytes) -> bool:
        """Reads one line without its newline; whether the request is complete with it."""
        if self._partial:
            line = bytes(self._partial) + line
            self._partial.clear()
        if len(self._beginning) < EXCERPT_BYTES:
            self._begin(line[:EXCERPT_BYTES] + b"\n")
        self._size += len(line) + 1
        if self._size > self._most:
            raise self._too_long()
        if line:
            self._take_attribute(line)
            return False
        if not self._is_policy:
            what = "empty request" if self._size == 1 else "request without the attribute 'request'"
            raise self._trouble(what, "request=smtpd_access_policy")
        return True

    def _take_attribute(self, line: bytes) -> None:
        if b"\0" in line:
            raise self._trouble("NUL in a request", "text")
        if line.endswith(b"\r"):
            raise self._trouble("line ends in CR LF", "LF alone")
        name, equals, value = line.partition(b"=")
        if not equals or not name:
            raise self._trouble("line without a name and '='", "name=value")
        field = _FIELDS.get(name)
        if field is not None:
            self._attributes.setdefault(field, value.decode("utf-8", "surrogateescape"))
        elif name == b"request" and not self._is_policy:
            if value != _KIND:
                raise self._trouble(f"request={value[:EXCERPT_BYTES]!r}", "request=smtpd_access_policy")
            self._is_policy = True

    def _keep(self, rest: bytes) -> None:
        """Holds the beginning of a line until its end comes; never more than a request may have."""
        if self._size + len(self._partial) + len(rest) > self._most:
            self._begin(self._partial + rest[:EXCERPT_BYTES])
            raise self._too_long()
        self._partial += rest

    def _begin(self, data: bytes | bytearray) -> None:
        """Remembers the first bytes of the request for the log."""
        self._beginning = (self._beginning + data[:EXCERPT_BYTES])[:EXCERPT_BYTES]

    def _too_long(self) -> ProtocolError:
        return self._trouble("request over the limit", f"at most {self._most} bytes")

    def _trouble(self, what: str, expected: str) -> ProtocolError:
        return ProtocolError(f"{what}, expected {expected}; it begins {self._beginning!r}")


_CONTROLS = dict.fromkeys((*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029), " ")
_WORDS_WITH_TEXT = ACTION_WORDS - {"FILTER", "REDIRECT", "BCC"}
_STATUS_CODE = re.compile(r"[45][0-9]{2}")


@remembered("encoded replies", 8)
def encode_reply(action: str) -> bytes:
    """The reply that asks for `action`.

    Controls and line separators become spaces, lone surrogates "?": a value from the directory cannot
    end the reply, and Postfix takes no invalid UTF-8. A text is cut; a list that is too long is a server
    configuration error. ValueError for what Postfix would take for OK: nothing, or digits alone.
    """
    text = action.translate(_CONTROLS).strip(" ")
    if not text or (text.isascii() and text.isdigit()):
        raise ValueError(f"action {action!r}, expected one that cannot be read as OK")
    value = text.encode("utf-8", "replace")
    word = text.partition(" ")[0].upper()
    if word in _WORDS_WITH_TEXT or _STATUS_CODE.fullmatch(word):
        value = cut(value)
    elif len(value) > LIST_BYTES:
        return SERVER_CONFIGURATION_ERROR
    return b"action=" + value + b"\n\n"


def cut(value: bytes, most: int = TEXT_BYTES) -> bytes:
    """At most so many bytes of valid UTF-8, and no half character."""
    if len(value) <= most:
        return value
    return value[:most].decode("utf-8", "ignore").encode("utf-8").rstrip(b" ")
