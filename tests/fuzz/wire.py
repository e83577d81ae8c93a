"""Targets: the policy protocol, its replies, and what an LDAP server sends."""

import asyncio
import json
import logging
from collections.abc import Iterable
from typing import cast

from ldappolicy.action import Action, Kind, parse_action
from ldappolicy.directory.changes import Watched
from ldappolicy.directory.ldap import ber, codec
from ldappolicy.directory.ldap.connection import Connection
from ldappolicy.directory.ldap.streams import dirsync, persistent_search, syncrepl
from ldappolicy.directory.ldap.streams.covered import Covered
from ldappolicy.errors import Unavailable
from ldappolicy.log import escaped
from ldappolicy.protocol import RequestReader, encode_reply
from ldappolicy.request import Request
from tests.fuzz.target import Target, growths, kind_of, pieces, text_of

Read = tuple[list[Request], str, bool]

LIMIT = 4096


def read(chunks: Iterable[bytes], limit: int = LIMIT) -> Read:
    """The requests of these bytes, what ended them, and whether nothing is left of one."""
    reader = RequestReader(limit)
    requests: list[Request] = []
    for chunk in chunks:
        if reader.error is None:
            requests += reader.feed(chunk)
    idle = reader.idle
    reader.end()
    return requests, kind_of(reader.error) if reader.error else "", idle


def written(request: Request) -> bytes:
    """A request as the newest Postfix would send it."""
    attributes = [("request", "smtpd_access_policy"), *request._asdict().items()]
    return (
        "".join(f"{name}={value}\n" for name, value in attributes).encode("utf-8", "surrogateescape") + b"\n"
    )


def protocol(data: bytes) -> str:
    """However the bytes are cut they are the same requests; fast and slow reader agree."""
    requests, error, idle = whole = read([data])
    assert bool(error) or idle
    for chunks in pieces(data):
        assert whole == read(chunks), chunks
    for request in requests[:3]:
        wire = written(request)
        fast, slow = read([wire], len(wire)), read([wire[:1], wire[1:]], len(wire))
        assert ([request], "", True) == fast == slow
        assert read([wire], len(wire) - 1)[0] == []
    return f"{min(len(requests), 2)} {error}"


_REFUSING = (Kind.REFUSE, Kind.DEFER_IF_PERMIT, Kind.DEFER_IF_REJECT)


def reply(data: bytes) -> str:
    """One reply, whatever the directory says; what Postfix reads in it is what was meant."""
    text = text_of(data)
    action = parse_action(text)
    for wire in dict.fromkeys((action.wire, action.wire_plain, *action.tokens, text)):
        try:
            octets = encode_reply(wire)
        except ValueError:
            continue
        assert octets.startswith(b"action=")
        assert octets.endswith(b"\n\n")
        said = octets[7:-2].decode("utf-8")
        assert said.isprintable() or "\n" not in said
        assert not any(letter < " " or "\x7f" <= letter < "\xa0" for letter in said)
        assert len(octets) <= 4010
        if wire in (action.wire, action.wire_plain) and action.kind in _REFUSING:
            _means_the_same(action, parse_action(said))
    return f"{action.kind} {action.verb[:12] if action.kind is not Kind.LIST else ''}{bool(action.problem)}"


def _means_the_same(meant: Action, heard: Action) -> None:
    assert (meant.kind, meant.temporary, meant.verb) == (heard.kind, heard.temporary, heard.verb)


def log_line(data: bytes) -> str:
    """A value in the log is one line of printable text, and JSON stays JSON."""
    text = text_of(data)
    line = escaped(text)
    assert "\n" not in line
    assert escaped(line) == line
    line.encode("utf-8")
    assert all(letter >= " " and letter not in "\x7f\u202e\u2028" for letter in line)
    record = logging.LogRecord("ldappolicy", logging.INFO, "", 0, "%s", (text,), None)
    assert text == json.loads(json.dumps({"text": record.getMessage()}))["text"]
    return str(line == text)


class _Wire(asyncio.Transport):
    """Goes nowhere."""

    def abort(self) -> None:
        """Nothing to end."""

    def is_closing(self) -> bool:
        """Never by itself."""
        return False

    def pause_reading(self) -> None:
        """Nothing is read."""


_WATCHED = Watched(
    ("ou=people,dc=example,dc=com", "ou=policy,dc=example,dc=com"),
    ("mail", "uid", "member", "objectClass", "entryUUID", "objectGUID"),
    ("member",),
)
_GARBAGE = (codec.Garbage, Unavailable)


def _streams(body: codec.Body) -> str:
    """What the change streams make of one message."""
    covered = Covered(_WATCHED)
    told = []
    for live in (False, True):
        machine = syncrepl.Syncrepl(covered)
        machine.begin()
        machine.is_live = live
        try:
            told.append(str(len(list(machine.feed(body)))))
        except _GARBAGE as error:
            told.append(kind_of(error)[:30])
    try:
        if isinstance(body, codec.EntryBody):
            told.append(str(len(list(persistent_search.told(covered, body)))))
            dirsync.identity(body)
            dirsync.DirSync(covered).members(body)
        elif isinstance(body, codec.Result):
            told.append(str(len(codec.page_cookie(body))))
            dirsync.DirSync(covered).take(body)
    except _GARBAGE as error:
        told.append(kind_of(error)[:30])
    return " ".join(told)


def _messages(data: bytes) -> tuple[list[tuple[int, codec.Body | None]], str]:
    """The messages that the bytes begin with, and why they end."""
    found = []
    try:
        while 0 < (size := codec.message_size(data)) <= len(data):
            found.append(codec.decode(data[:size]))
            data = data[size:]
    except codec.Garbage as error:
        return found, type(error).__name__
    return found, "incomplete" if data else ""


def _ended(chunks: Iterable[bytes]) -> bool:
    connection = Connection("ldap://127.0.0.1", 1.0)
    connection.connection_made(cast(asyncio.BaseTransport, _Wire()))
    for chunk in chunks:
        connection.data_received(chunk)
    return bool(connection.ended)


def ldap(data: bytes) -> str:
    """Messages or garbage, the same however they are cut; nothing is believed of a length."""
    found, end = _messages(data)
    ended = _ended([data])
    for chunks in pieces(data):
        assert ended == _ended(chunks), chunks
    kinds = [type(body).__name__ for _, body in found[:2]]
    streams = [_streams(body) for _, body in found[:4] if body is not None]
    return f"{kinds} {end} {ended} {streams}"


def element(data: bytes) -> str:
    """BER: what is read is written the same way, but for lengths that are longer than they have to be."""
    try:
        found = ber.elements(data)
    except ber.Garbage as error:
        return type(error).__name__
    again = b"".join(ber.element(tag, data[start:end]) for tag, start, end in found)
    assert len(again) <= len(data)
    assert [(tag, data[start:end]) for tag, start, end in found] == [
        (tag, again[start:end]) for tag, start, end in ber.elements(again)
    ]
    for tag, start, end in found:
        if tag == ber.INTEGER and 0 < end - start <= 8:
            assert ber.number(ber.integer(ber.number(data[start:end]))[2:]) == ber.number(data[start:end])
    return f"{len(found)} {[tag for tag, _, _ in found[:3]]}"


TARGETS = (
    Target(
        "protocol",
        protocol,
        growths(
            ("", "request=smtpd_access_policy\nsender=x\n\n", ""),
            ("request=smtpd_access_policy\n", "a=b\n", "\n"),
            ("request=smtpd_access_policy\nsender=", "x", "\n\n"),
        ),
    ),
    Target(
        "reply",
        reply,
        growths(("REJECT ", "x\n", ""), ("", "reject, ", ""), ("550 5.7.1", " ", ""), ("", "{", "")),
    ),
    Target("log", log_line),
    Target("ldap", ldap),
    Target("ber", element),
)
