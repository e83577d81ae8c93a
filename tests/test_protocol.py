"""The delegation protocol: whatever the cuts, the same requests and the same errors."""

import re
import sys
from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ldappolicy import protocol
from ldappolicy.errors import ProtocolError
from ldappolicy.protocol import SHOWN, Glance, RequestReader, encode_reply
from ldappolicy.ready import ALWAYS
from ldappolicy.request import Request

# One RCPT of an authenticated client, as smtpd(8) of Postfix 3.7 writes it.
VALUES = Request(
    protocol_state="RCPT",
    protocol_name="ESMTP",
    client_address="10.20.3.67",
    client_name="pc67.example.com",
    client_port="49152",
    reverse_client_name="pc67.example.com",
    server_address="10.20.0.5",
    server_port="587",
    helo_name="pc67.example.com",
    sender="u=v@example.com",
    recipient="john doe@example.org",
    recipient_count="0",
    queue_id="4Zk000001z5Q",
    instance="1f4a.69210000.8d2f.0",
    size="1024",
    sasl_method="PLAIN",
    sasl_username="joe=x,y z@dom",
    encryption_protocol="TLSv1.3",
    encryption_cipher="TLS_AES_256_GCM_SHA384",
    encryption_keysize="256",
)
ORDER = ("request", *Request._fields)
SINCE_38 = {"compatibility_level", "mail_version"}
SASL = {"sasl_method", "sasl_username", "sasl_sender"}
TLS = set(ORDER[ORDER.index("ccert_subject") : ORDER.index("policy_context")])
VERSIONS = {
    "3.12": set[str](),
    "3.8": {"tls_sni"},
    "3.7": {"tls_sni", *SINCE_38},
    "3.1": {"tls_sni", "server_address", "server_port", *SINCE_38},
    "3.12 without TLS": TLS,
    "3.12 without SASL": SASL,
    "3.7 without both": TLS | SASL | SINCE_38,
}


def encode(attributes: Iterable[tuple[str, str]]) -> bytes:
    """The bytes of a request with these attributes, in this order."""
    text = "".join(f"{name}={value}\n" for name, value in attributes) + "\n"
    return text.encode("utf-8", "surrogateescape")


def as_postfix(request: Request, *, without: Iterable[str] = ()) -> list[tuple[str, str]]:
    """The attributes in Postfix's order."""
    attributes = [("request", "smtpd_access_policy"), *request._asdict().items()]
    return [(name, value) for name, value in attributes if name not in without]


POSTFIX_37 = encode(as_postfix(VALUES, without=VERSIONS["3.7"]))
SHORT = b"request=smtpd_access_policy\nsender=a@b\n\n"
A_AT_B = Request(sender="a@b")


def read(chunks: Iterable[bytes], limit: int = 131072) -> tuple[list[Request], str | None]:
    """All requests of the chunks, and what the error says without its excerpt."""
    reader = RequestReader(limit)
    requests: list[Request] = []
    for chunk in chunks:
        requests += reader.feed(chunk)
        if reader.error is not None:
            return requests, str(reader.error).partition("; it begins ")[0]
    return requests, None


def cut(data: bytes, places: Iterable[int]) -> list[bytes]:
    """The data in pieces that end at these places."""
    edges = [0, *sorted(places), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


# --- what is a request --------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
def test_postfix_of_any_version_takes_the_fast_path(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests of every Postfix since 3.1 are read without the full parser."""
    monkeypatch.delattr(RequestReader, "_feed_lines")
    left_out = VERSIONS[version]
    values = VALUES._replace(tls_sni="sni.example", mail_version="3.12", server_address="::1", stress="yes")
    expected = values._replace(**dict.fromkeys(left_out, ""))
    assert read([encode(as_postfix(values, without=left_out))] * 2) == ([expected, expected], None)


def test_every_cut_in_two() -> None:
    """A request cut at any byte is the same request."""
    for place in range(len(POSTFIX_37) + 1):
        assert read(cut(POSTFIX_37, [place])) == ([VALUES], None)


def test_byte_by_byte() -> None:
    """Two requests that drip in are two requests."""
    assert read(cut(POSTFIX_37 + SHORT, range(len(POSTFIX_37 + SHORT)))) == ([VALUES, A_AT_B], None)


def test_every_cut_of_glued_requests() -> None:
    """Requests glued together come out in order, wherever the bytes are cut."""
    data = SHORT + POSTFIX_37 + SHORT
    for place in range(len(data) + 1):
        assert read(cut(data, [place])) == ([A_AT_B, VALUES, A_AT_B], None)


REQUEST = b"request=smtpd_access_policy\n"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param(REQUEST + b"\n", Request(), id="nothing but the kind"),
        pytest.param(b"sender=a@b\n" + REQUEST + b"\n", A_AT_B, id="kind behind"),
        pytest.param(
            REQUEST + b"recipient=c@d\nsender=a@b\n\n", Request(sender="a@b", recipient="c@d"), id="order"
        ),
        pytest.param(REQUEST + b"sender=a@b\nsender=c@d\n\n", A_AT_B, id="twice: the first counts"),
        pytest.param(REQUEST + b"sender=\nsender=c@d\n\n", Request(), id="twice, the first empty"),
        pytest.param(REQUEST + b"sender=a@b\nrequest=other\n\n", A_AT_B, id="kind twice"),
        pytest.param(REQUEST + b"sender=a@b\nnosuch=x\n\xff=\n  =y\n\n", A_AT_B, id="unknown"),
        pytest.param(REQUEST + b"Sender=x\nsender =y\n sender=z\n\n", Request(), id="names are exact"),
        pytest.param(REQUEST + b"sender=a=b=c\n\n", Request(sender="a=b=c"), id="split at the first ="),
        pytest.param(REQUEST + b"sender= a@b \n\n", Request(sender=" a@b "), id="values are not trimmed"),
        pytest.param(REQUEST + b"sender=a\rb\x1b\n\n", Request(sender="a\rb\x1b"), id="controls are kept"),
        pytest.param(
            REQUEST + b"sender=a\x0b\x0c\x85\n\n", Request(sender="a\x0b\x0c\udc85"), id="only LF ends a line"
        ),
        pytest.param(
            REQUEST + "sender=jörg@b\u2028\n\n".encode(), Request(sender="jörg@b\u2028"), id="UTF-8"
        ),
        pytest.param(REQUEST + b"sender=\xff\xc3@b\n\n", Request(sender="\udcff\udcc3@b"), id="not UTF-8"),
        pytest.param(
            REQUEST + b"sender=" + b"x" * 65536 + b"@b\n\n", Request(sender="x" * 65536 + "@b"), id="64 KiB"
        ),
    ],
)
def test_requests(data: bytes, expected: Request) -> None:
    """What a request holds, read at once and byte by byte, on a reader that stays in step."""
    assert read([data, SHORT]) == ([expected, A_AT_B], None)
    pieces = cut(data + SHORT, range(0, len(data) + len(SHORT), 1 + len(data) // 1000))
    assert read(pieces) == ([expected, A_AT_B], None)


# --- what is none -------------------------------------------------------------------------------

NO_NAME = "line without a name and '=', expected name=value"
NO_KIND = "request without the attribute 'request', expected request=smtpd_access_policy"
CRLF = "line ends in CR LF, expected LF alone"
NUL = "NUL in a request, expected text"
TOO_LONG = "request over the limit, expected at most 4096 bytes"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param(b"\n", "empty request, expected request=smtpd_access_policy", id="a lone empty line"),
        pytest.param(b"sender=a@b\n\n", NO_KIND, id="no kind"),
        pytest.param(
            b"request=junk\n", "request=b'junk', expected request=smtpd_access_policy", id="another kind"
        ),
        pytest.param(
            b"request=smtpd_access_policyX\n\n",
            "request=b'smtpd_access_policyX', expected request=smtpd_access_policy",
            id="almost the kind",
        ),
        pytest.param(
            b"request=\n\n", "request=b'', expected request=smtpd_access_policy", id="no kind's name"
        ),
        pytest.param(b"Request=smtpd_access_policy\n\n", NO_KIND, id="names have a case"),
        pytest.param(REQUEST + b"sender\n\n", NO_NAME, id="line without ="),
        pytest.param(REQUEST + b"=a@b\n\n", NO_NAME, id="empty name"),
        pytest.param(REQUEST + b"=\n\n", NO_NAME, id="nothing but ="),
        pytest.param(REQUEST + b" \n\n", NO_NAME, id="blank line"),
        pytest.param(b"EHLO there\n", NO_NAME, id="SMTP"),
        pytest.param(b"GET /?a=b HTTP/1.1\r\n", CRLF, id="HTTP"),
        pytest.param(SHORT.replace(b"\n", b"\r\n"), CRLF, id="CRLF"),
        pytest.param(REQUEST + b"sender=a@b\r\n\n", CRLF, id="one CRLF"),
        pytest.param(REQUEST + b"\r\n", CRLF, id="CRLF as the empty line"),
        pytest.param(POSTFIX_37.replace(b"\nsize=1024\n", b"\nsize=1024\r\n"), CRLF, id="CRLF amid"),
        pytest.param(REQUEST + b"sender=a\0b\n\n", NUL, id="NUL"),
        pytest.param(POSTFIX_37.replace(b"=1024\n", b"=10\x0024\n"), NUL, id="NUL amid"),
        pytest.param(REQUEST + b"\0sender=a@b\n\n", NUL, id="NUL in a name"),
        pytest.param(b"\x16\x03\x01\x02\0\x01" * 900, TOO_LONG, id="TLS"),
        pytest.param(REQUEST + b"sender=" + b"x" * 4096 + b"\n\n", TOO_LONG, id="long line"),
        pytest.param(REQUEST + b"x=y\n" * 1024 + b"\n", TOO_LONG, id="many lines"),
        pytest.param(
            encode(as_postfix(VALUES._replace(stress="x" * 4096))), TOO_LONG, id="long Postfix request"
        ),
    ],
)
def test_errors(data: bytes, expected: str) -> None:
    """What is no request is an error, whatever the cuts, and the requests before it are returned."""
    assert read([data], 4096) == ([], expected)
    assert read([SHORT + POSTFIX_37 + data + SHORT], 4096) == ([A_AT_B, VALUES], expected)
    step = 1 + len(data) // 500
    assert read(cut(SHORT + data, range(0, len(SHORT + data), step)), 4096) == ([A_AT_B], expected)


def test_an_error_is_for_good() -> None:
    """A reader that met an error raises it when it is fed once more."""
    reader = RequestReader()
    assert reader.feed(SHORT + b"junk\n") == [A_AT_B]
    with pytest.raises(ProtocolError) as raised:
        reader.feed(SHORT)
    assert raised.value is reader.error


@pytest.mark.parametrize(
    ("chunks", "excerpt"),
    [
        ([b"EHLO there\n"], rb"b'EHLO there\n'"),
        ([SHORT, b"sender=\xff\x1b[2J\n", b"jun", b"k\n"], rb"b'sender=\xff\x1b[2J\njunk\n'"),
        ([b"y" * 70, b"x" * 300 + b"\n"], b"b'" + b"y" * 70 + b"x" * 10 + b"'"),
        ([b"z" * 200_000], b"b'" + b"z" * 80 + b"'"),
        ([b"a=" + b"z" * 60 + b"\n", b"z" * 60 + b"\n"], b"b'a=" + b"z" * 60 + rb"\n" + b"z" * 17 + b"'"),
    ],
)
def test_errors_show_80_bytes(chunks: list[bytes], excerpt: bytes) -> None:
    """The error ends with the first 80 bytes of the request, escaped, on one line."""
    reader = RequestReader()
    for chunk in chunks:
        reader.feed(chunk)
    assert str(reader.error).endswith("; it begins " + excerpt.decode("ascii"))
    assert "\n" not in str(reader.error)


@pytest.mark.parametrize("filler", [b"\0", b"x", b"\n", b"=", b"a=\n", b"\r\n"])
@pytest.mark.parametrize("size", [1, 4096, 10_000_000])
def test_ten_megabytes_of_nothing(filler: bytes, size: int) -> None:
    """10 MB that are no request are an error before much of them is kept."""
    data = (filler * (10_000_000 // len(filler)))[:10_000_000]
    reader = RequestReader()
    fed = 0
    while reader.error is None:
        assert reader.feed(data[fed : fed + size]) == []
        fed += size
    assert fed <= max(size, 131072 + 4096)


@pytest.mark.parametrize("length", range(95, 106))
def test_the_limit_is_exact(length: int) -> None:
    """A request of max_request_bytes, its empty line included, is read; one byte more is not."""
    data = REQUEST + b"sender=".ljust(length - len(REQUEST) - 2, b"x") + b"\n\n"
    assert len(data) == length
    for chunks in ([data], cut(data, range(length))):
        assert (read(chunks, 100)[1] is None) == (length <= 100)


def test_the_limit_is_for_one_request() -> None:
    """Glued requests may be longer than max_request_bytes together."""
    assert read([SHORT * 100], 100) == ([A_AT_B] * 100, None)


@pytest.mark.parametrize("place", range(len(SHORT) + 1))
def test_the_end_of_the_bytes(place: int) -> None:
    """An end within a request is an error, one between requests is none."""
    reader = RequestReader()
    reader.feed(SHORT)
    reader.feed(SHORT[:place])
    within = 0 < place < len(SHORT)
    assert reader.idle == (not within)
    reader.end()
    expected = f"connection closed within a request, expected an empty line; it begins {SHORT[:place]!r}"
    assert (str(reader.error) if reader.error else None) == (expected if within else None)


def test_the_end_does_not_hide_an_error() -> None:
    """What was wrong first is what is told."""
    reader = RequestReader()
    reader.feed(b"junk\nmore")
    error = reader.error
    reader.end()
    assert reader.error is error is not None


# --- properties ---------------------------------------------------------------------------------

# Any text that may stand in a value; surrogates for bytes that are no UTF-8, as decoding makes them.
values = st.binary(max_size=12).map(
    lambda data: (
        data.replace(b"\n", b"").replace(b"\0", b"").replace(b"\r", b"").decode("utf-8", "surrogateescape")
    )
)
requests = st.builds(Request, **dict.fromkeys(Request._fields, values))
# Pieces of which near-requests are made: in Postfix's order, with lines left out, repeated, broken.
broken = st.sampled_from(
    [b"", b"sender=x", b"x", b"=", b"a=\0", b"a=\r", b"request=no", b"nosuch=1", b"size=\xff"]
)


@given(requests, st.sampled_from(sorted(VERSIONS)), st.sets(st.integers(0, 400)))
def test_round_trip(request: Request, version: str, places: set[int]) -> None:
    """What is encoded is read again, whole and in pieces."""
    left_out = VERSIONS[version]
    data = encode(as_postfix(request, without=left_out))
    expected = request._replace(**dict.fromkeys(left_out, ""))
    assert read([data]) == ([expected], None)
    assert read(cut(data, {place for place in places if place < len(data)})) == ([expected], None)


@given(requests, st.permutations(ORDER))
def test_order_does_not_matter(request: Request, order: list[str]) -> None:
    """Attributes in any order make the same request."""
    attributes = dict(as_postfix(request))
    assert read([encode((name, attributes[name]) for name in order)]) == ([request], None)


@given(st.data())
def test_fast_path_and_full_parser_agree(data: st.DataObject) -> None:
    """Whatever the lines, the fast path says what the full parser says, or leaves it to that."""
    left_out = VERSIONS[data.draw(st.sampled_from(sorted(VERSIONS)))]
    lines = encode(as_postfix(data.draw(requests), without=left_out)).split(b"\n")[:-2]
    for _ in range(data.draw(st.integers(0, 3))):
        at = data.draw(st.integers(0, len(lines)))
        lines[at : at + data.draw(st.integers(0, 2))] = data.draw(st.lists(broken, max_size=2))
    wire = b"\n".join([*lines, b"", b""])
    # Only a whole request in one piece can take the fast path.
    assert read([wire]) == read(cut(wire, [1]))


@given(st.lists(broken | st.just(REQUEST[:-1]), max_size=12), st.sets(st.integers(0, 150)))
def test_cuts_change_nothing(lines: list[bytes], places: set[int]) -> None:
    """Requests and error are the same, however the bytes are cut."""
    wire = b"\n".join([*lines, b""])
    assert read(cut(wire, {place for place in places if place < len(wire)}), 100) == read([wire], 100)


@given(st.binary(max_size=300))
def test_any_bytes(data: bytes) -> None:
    """No bytes make anything but requests or a ProtocolError."""
    requests, error = read([data])
    assert len(requests) <= data.count(b"\n\n")
    assert error is None or "\n" not in error


# --- replies ------------------------------------------------------------------------------------

REFUSED = protocol.SERVER_CONFIGURATION_ERROR


@pytest.mark.parametrize(
    ("action", "expected"),
    [
        ("DUNNO", b"action=DUNNO\n\n"),
        ("reject,", b"action=reject,\n\n"),
        ("reject_rbl_client zen.example, reject", b"action=reject_rbl_client zen.example, reject\n\n"),
        ("  DUNNO \t", b"action=DUNNO\n\n"),
        ("REJECT a\nb", b"action=REJECT a b\n\n"),
        ("REJECT a\n\naction=OK", b"action=REJECT a  action=OK\n\n"),
        ("REJECT a\r\0\x1b\x7f\x85\x9f\u2028\u2029b", b"action=REJECT a        b\n\n"),
        ("REJECT\tno", b"action=REJECT no\n\n"),
        ("REJECT jörg \u00a0", "action=REJECT jörg \u00a0\n\n".encode()),
        ("REJECT \udcff\ud800x", b"action=REJECT ??x\n\n"),
        ("REJECT " + "x" * 600, b"action=REJECT " + b"x" * 493 + b"\n\n"),
        ("reject " + "x" * 600, b"action=reject " + b"x" * 493 + b"\n\n"),
        ("REJECT " + "x" * 492 + "ö" * 9, b"action=REJECT " + b"x" * 492 + b"\n\n"),
        ("REJECT " + "x" * 492 + " y", b"action=REJECT " + b"x" * 492 + b"\n\n"),
        ("550 5.7.1 " + "x" * 600, b"action=550 5.7.1 " + b"x" * 490 + b"\n\n"),
        ("DEFER_IF_PERMIT " + "x" * 9999, b"action=DEFER_IF_PERMIT " + b"x" * 484 + b"\n\n"),
        ("PREPEND X-A: " + "x" * 600, b"action=PREPEND X-A: " + b"x" * 487 + b"\n\n"),
        ("a" * 4000, b"action=" + b"a" * 4000 + b"\n\n"),
        ("a" * 4001, REFUSED),
        ("REJECT, " * 501, REFUSED),
        ("REDIRECT " + "x" * 4000 + "@example.com", REFUSED),
        ("650 " + "x" * 4000, REFUSED),
    ],
)
def test_replies(action: str, expected: bytes) -> None:
    """One line and an empty one, whatever the action; a text is cut, a list never."""
    assert encode_reply(action) == expected


@pytest.mark.parametrize(
    "word", ["OK", "DUNNO", "DEFER", "DEFER_IF_REJECT", "INFO", "WARN", "HOLD", "DISCARD", "HANGUP"]
)
def test_the_text_of_every_action_is_cut(word: str) -> None:
    """Postfix cuts its reply to the client; what is not sent to anybody is cut alike."""
    assert encode_reply(f"{word} {'x' * 600}") == f"action={word} {'x' * 600}".encode()[:507] + b"\n\n"


@pytest.mark.parametrize("action", ["", " ", "\n", "\n\n\x85", "550", " 450\n", "0"])
def test_no_reply_that_means_ok(action: str) -> None:
    """Postfix takes an empty action, and one of digits alone, for OK."""
    with pytest.raises(ValueError) as raised:
        encode_reply(action)
    assert str(raised.value) == f"action {action!r}, expected one that cannot be read as OK"


@given(st.text(max_size=700), st.sampled_from(["", "REJECT ", "550 ", "FILTER ", "x, "]))
def test_any_reply_is_one_reply(text: str, before: str) -> None:
    """No text ends its reply early, begins with a space, or is no UTF-8."""
    try:
        reply = encode_reply(before + text)
    except ValueError:
        return
    assert reply.startswith(b"action=")
    assert reply.endswith(b"\n\n")
    value = reply[len(b"action=") : -2].decode("utf-8")
    assert value == value.strip(" ")
    assert value
    assert not any(ord(char) < 32 or 127 <= ord(char) < 160 for char in value)


def test_replies_are_ready_made() -> None:
    """The common replies are made once."""
    assert encode_reply("DUNNO") is encode_reply("DUNNO")


def test_a_request_of_postfix_is_cheap() -> None:
    """Reading one takes two calls of ours, however many lines it has."""
    feed = RequestReader().feed
    calls: list[str] = []
    sys.setprofile(lambda frame, event, _: calls.append(frame.f_code.co_name) if event == "call" else None)
    try:
        feed(POSTFIX_37)
    finally:
        sys.setprofile(None)
    assert ["feed", "plain_values"] == calls


def glanced(glance: Glance, **attributes: str) -> tuple[bytes, re.Match[bytes], bytes] | None:
    """What it reads of a request, and the request."""
    lines = "".join(f"{name}={attributes.get(name, '')}\n" for name in Request._fields)
    data = f"request=smtpd_access_policy\n{lines}\n".encode("utf-8", "surrogateescape")
    seen = glance.read(data)
    return None if seen is None else (*seen, data)


@pytest.mark.parametrize("context", ["", "strict", "default/recipient", "ä", "\udcff"])
def test_a_glance_knows_the_context(context: str) -> None:
    """Which stands at the end, and is part of the key."""
    glance = Glance(ALWAYS)
    seen = glanced(glance, sender="a@x", policy_context=context)
    other = glanced(glance, sender="a@x", policy_context="other")
    assert seen is not None
    assert other is not None
    assert (glance.context(seen[2], seen[1]), seen[1]["sender"]) == (context, b"a@x")
    assert seen[0] != other[0]


@pytest.mark.parametrize("ends", [["x" * protocol.LONGEST_TAIL] * 2, ["a", "b"]], ids=["long", "too many"])
def test_ends_that_have_no_number(ends: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """They are told apart by themselves; their context has to be read."""
    monkeypatch.setattr(protocol, "MOST_TAILS", 1)
    glance = Glance(ALWAYS)
    assert glanced(glance) is not None
    keys = []
    for number, end in enumerate(ends):
        seen = glanced(glance, ccert_issuer=end, policy_context=str(number))
        assert seen is not None
        assert glance.context(seen[2], seen[1]) is None
        keys.append(seen[0])
    assert keys[0] != keys[1]


def test_what_a_glance_shows() -> None:
    """As text, bytes that are none kept as `plain_values` does."""
    glance = Glance(ALWAYS)
    texts = ["192.0.2.1", "ä.example", "", "\udcff"]
    seen = glanced(glance, **dict(zip(SHOWN, texts, strict=True)))
    assert seen is not None
    assert glance.shown(seen[1]) == texts
