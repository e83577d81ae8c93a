"""Clients that misbehave: slow, half closed, deaf, too many, too large, with hostile names."""

import json
import socket
import time
from contextlib import suppress

from tests.abuse.scene import (
    DUNNO,
    PASSED,
    QUESTIONS,
    REFUSAL,
    REFUSED,
    Client,
    Row,
    cpu,
    descriptors,
    many,
    memory,
    others,
    request,
    until,
    with_limit,
)
from tests.fuzz.deciding import fields_of
from tests.labs.ldappolicy import Ldappolicy, Sections, merged, program

CUT_OFF = "not a policy request: connection closed within a request"
QUIET: Sections = {"log": {"decisions": "none"}}


def slow_loris(clients: int = 200, bytes_each: int = 20, pause: float = 0.02) -> Row:
    """Requests a byte at a time, on many connections: others are served, each gets its reply in the end."""
    with Ldappolicy(QUIET) as service, many(service, clients) as slow:
        before, start = cpu(service), time.monotonic()
        for at in range(bytes_each):
            for client in slow:
                client.send(REFUSED[at : at + 1])
            if at % 5 == 0:
                spent = cpu(service)
                seen = others(service, 100)
                assert cpu(service) - spent < 100 * 0.005
            time.sleep(pause)  # that is what these clients do
        used = 100 * (cpu(service) - before) / (time.monotonic() - start)
        for client in slow:
            client.send(REFUSED[bytes_each:])
        assert [REFUSAL] * clients == [client.reply() for client in slow]
    return Row(
        "slow-loris: a byte at a time, never a whole request",
        f"{clients} connections, {bytes_each} bytes each, one every {pause:g} s",
        f"{seen}; {used:.0f} % of a processor; all {clients} answered once they were complete",
    )


def half_closed(clients: int = 200) -> Row:
    """Clients that shut their side: behind a request they get the reply, within one they are closed."""
    with Ldappolicy(QUIET) as service:
        idle = descriptors(service)
        with many(service, clients) as whole, many(service, clients) as cut:
            for one, other in zip(whole, cut, strict=True):
                one.send(REFUSED)
                other.send(REFUSED[:40])
                for client in (one, other):
                    client.socket.shutdown(socket.SHUT_WR)
            assert [(REFUSAL, True)] * clients == [(client.reply(), client.is_closed()) for client in whole]
            assert all(client.is_closed() for client in cut)
            until(lambda: descriptors(service) <= idle)
            seen = others(service)
        service.wait_for_log(CUT_OFF)
        warned = service.log(CUT_OFF)
        assert len(warned) <= 20
    return Row(
        "half-closed connections, behind a request and within one",
        f"{2 * clients} connections",
        f"{clients} replies, {clients} closed without one, every descriptor back, "
        f"{len(warned)} warnings; {seen}",
    )


def deaf(clients: int = 50) -> Row:
    """Clients that ask and never read: they are read no further, take little, and are closed when idle."""
    sections = merged(QUIET, {"server": {"idle_timeout": "2s"}})
    with Ldappolicy(sections) as service:
        idle, before = descriptors(service), memory(service)
        with many(service, clients) as silent:
            sent = sum(_fill(client) for client in silent)
            seen = others(service)
            grown = memory(service) - before
            until(lambda: descriptors(service) <= idle)
        assert grown < 8 + clients * 0.6
    return Row(
        "clients that ask without an end and never read",
        f"{clients} connections, {sent / 2**20:.0f} MiB of requests until they blocked",
        f"{grown:.1f} MiB more memory ({1024 * grown / clients:.0f} KiB each), closed after idle_timeout; "
        f"{seen}",
    )


def _fill(client: Client) -> int:
    """Sends requests until nothing more is taken for a moment; how many bytes."""
    client.socket.settimeout(0.02)
    sent = 0
    with suppress(TimeoutError, BrokenPipeError):
        while sent < 2**24:
            sent += client.socket.send(PASSED * 50)
    return sent


def too_many(most: int = 1500, more: int = 50) -> Row:
    """max_connections at once, and more: these are closed, the others go on."""
    sections = merged(QUIET, {"server": {"max_connections": most}})
    with Ldappolicy(sections, command=with_limit(most + 200, [program()])) as service:
        before = memory(service)
        start = time.monotonic()
        with many(service, most) as crowd:
            opened = time.monotonic() - start
            for number, client in enumerate(crowd):
                client.send(QUESTIONS[number % 2][0])
            expected = [QUESTIONS[number % 2][1] for number in range(most)]
            assert expected == [client.reply() for client in crowd]
            grown = memory(service) - before
            with many(service, more) as refused:
                assert all(client.is_closed() for client in refused)
            assert [REFUSAL] * 200 == [client.ask(REFUSED) for client in crowd[:200]]
            crowd[0].close()
            until(lambda: _is_let_in(service))
        service.wait_for_log(f"connection refused: max_connections {most} reached")
        assert grown < 10 + most * 0.03
    return Row(
        "connections at once, and more than max_connections",
        f"{most} and {more} more",
        f"all {most} answered ({opened:.1f} s to connect, {1024 * grown / most:.1f} KiB of memory each); "
        f"{more} closed at once; one place free, one let in",
    )


def _is_let_in(service: Ldappolicy) -> bool:
    with Client(service) as client:
        try:
            return client.ask(PASSED) == DUNNO
        except BrokenPipeError:
            return False


def large(clients: int = 60, size: int = 131072) -> Row:
    """Requests that go on up to max_request_bytes, on many connections; then one byte more."""
    piece = b"request=smtpd_access_policy\nsender=" + b"x" * (size - 100)
    with Ldappolicy(merged(QUIET, {"server": {"max_request_bytes": size}})) as service:
        before = memory(service)
        with many(service, clients) as heavy:
            for client in heavy:
                client.send(piece)
            seen = others(service)
            grown = memory(service) - before
            for client in heavy:
                client.send(b"x" * 200)
            assert all(client.is_closed() for client in heavy)
        after = memory(service) - before
        again = others(service)
        assert grown < 10 + clients * size * 2.5 / 2**20
    return Row(
        "requests of max_request_bytes without an end",
        f"{clients} connections of {size // 1024} KiB",
        f"{grown:.0f} MiB more memory ({grown * 2**20 / clients / size:.1f} times what was sent), "
        f"{after:.0f} MiB when they had been closed for a byte too many; {seen}; then {again.median:.2f} ms",
    )


LONG = "x" * 9000
CUT = "x" * 24 + "..."

NAMES = [
    "x action='DUNNO'",
    "a' restriction='permit' b='",
    'a" sender=<ceo@my.domain> "',
    "\x1b[2J\x1b[31mred",
    "\rdecision: id=1 action='OK'",
    "a\x85b\u2028c\u2029d",
    "\u202egnp.exe",
    "\udcff\udcfe",
    "\\n\\x1b",
    "a\tb  c",
    "x" * 200,
    LONG,
    "%s%n{0}{request}",
    "zero\u200bwidth\ufeff",
    "amy@my.domain>, recipient=<other",
    "\U0001f600 \U000e0041",
    "=",
    "",
]
PLACES = ("sender", "recipient", "sasl_username", "client_name", "client_address", "helo_name", "queue_id")


def hostile_names() -> Row:
    """Names that want to be other fields or other lines: the log says each as it was, on its line."""
    # A value cannot end in CR (it is no request then), nor hold NUL or LF.
    asked = [
        {place: name, "instance": f"i{number}-{place}", "sasl_method": "PLAIN"}
        for number, name in enumerate(NAMES)
        for place in PLACES
    ]
    for form in ("text", "json"):
        with Ldappolicy({"log": {"decisions": "all", "format": form}}) as service:
            with Client(service) as client:
                assert all(client.ask(request(**attributes)).startswith(b"action=") for attributes in asked)
            assert service.stop() == 0
            lines = (service.folder / "stderr").read_bytes().split(b"\n")
        decisions = [line.decode() for line in lines if _begins(line, form)][-len(asked) :]
        for attributes, line in zip(asked, decisions, strict=True):
            _says(line, attributes, form)
    return Row(
        "names that want to be other fields or lines of the log",
        f"{len(asked)} requests each as text and as JSON",
        "one line each, every value read back (9,000 letters cut, bytes that are no UTF-8 written out in "
        "JSON), no control reached the log",
    )


def _begins(line: bytes, form: str) -> bool:
    return line.startswith(b"decision: ") if form == "text" else b'"ldappolicy.decision"' in line


def _says(line: str, attributes: dict[str, str], form: str) -> None:
    assert line.isprintable(), line
    fields = json.loads(line) if form == "json" else fields_of(line)
    bracket = "" if form == "json" else "<{}>"
    if LONG in attributes.values():
        attributes = {**attributes, **{name: CUT for name, value in attributes.items() if value == LONG}}
    if form == "json":  # bytes that are no UTF-8 are written out
        attributes = {
            name: value.encode("utf-8", "backslashreplace").decode() for name, value in attributes.items()
        }
    for name in ("sender", "recipient"):
        value = attributes.get(name, "")
        assert fields[name] == (bracket.format(value) if bracket else value)
    assert fields["login"] == attributes.get("sasl_username", "")
    assert fields["client"] == f"{attributes.get('client_name', '')}[{attributes.get('client_address', '')}]"
    queue_id = attributes.get("queue_id", "")
    assert fields["queue_id" if queue_id else "instance"] == (queue_id or attributes["instance"])
