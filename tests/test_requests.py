"""Recorded requests of real Postfix: read whole and in pieces, of every version, and decided.

The recordings are in tests/requests, made by `python -m tests.requests.record`. Two Postfixes have been
recorded; what older and newer ones send is derived from those here, and called so.
"""

import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

from ldappolicy.oracle import postfix
from ldappolicy.protocol import RequestReader
from ldappolicy.request import Request
from tests.labs.ldappolicy import DEADLINE, Ldappolicy
from tests.labs.postfix import require_postfix
from tests.requests.record import FOLDER, recorder
from tests.requests.situations import SITUATIONS

VERSIONS = {
    "3.7.11": {"tls_sni", "compatibility_level", "mail_version"},
    "3.12-20260821": set[str](),
}
"""A recorded version, and the attributes that it does not send."""

# Since when Postfix sends an attribute (SMTPD_POLICY_README and the release notes); the rest since 2.1.
SINCE = {
    "2.2": {"size", "sasl_method", "sasl_username", "sasl_sender"}
    | {"ccert_subject", "ccert_issuer", "ccert_fingerprint"},
    "2.3": {"recipient_count", "etrn_domain"}
    | {"encryption_protocol", "encryption_cipher", "encryption_keysize"},
    "2.5": {"stress"},
    "2.9": {"ccert_pubkey_fingerprint"},
    "3.0": {"client_port"},
    "3.1": {"policy_context"},
    "3.2": {"server_address", "server_port"},
    "3.8": {"compatibility_level", "mail_version"},
    "3.12": {"tls_sni"},
}
AGES = ["2.1", *SINCE]
NEWER = {age: set[str]().union(*list(SINCE.values())[number:]) for number, age in enumerate(AGES)}
"""An age of Postfix, and the attributes that came later."""


@cache
def recorded(version: str, situation: str) -> bytes:
    """What that Postfix sent, as it stands in the file."""
    return (FOLDER / version / f"{situation}.request").read_bytes()


def text(data: bytes) -> str:
    """As values are read."""
    return data.decode("utf-8", "surrogateescape")


def attributes(data: bytes) -> list[dict[str, str]]:
    """Each request of a recording, as one reads it by eye: lines, and an empty line behind them."""
    blocks = text(data).removesuffix("\n\n").split("\n\n")
    return [dict(line.split("=", 1) for line in block.split("\n")) for block in blocks]


def encode(request: Mapping[str, str]) -> bytes:
    """The bytes of these attributes."""
    lines = "".join(f"{name}={value}\n" for name, value in request.items())
    return f"{lines}\n".encode("utf-8", "surrogateescape")


def requests(data: bytes) -> list[Request]:
    """The requests that the file is to be read as."""
    return [Request(**{k: v for k, v in one.items() if k != "request"}) for one in attributes(data)]


def read(chunks: Iterable[bytes]) -> list[Request]:
    """The requests of one connection that sends these chunks."""
    reader = RequestReader()
    found = [request for chunk in chunks for request in reader.feed(chunk)]
    assert (None, True) == (reader.error, reader.idle)
    return found


every_version = pytest.mark.parametrize("version", VERSIONS)
every_situation = pytest.mark.parametrize("situation", SITUATIONS)


# --- what is recorded ---------------------------------------------------------------------------

SOME = "(some)"
"""A value that another run has otherwise; but there is one."""

USUAL = {
    **dict.fromkeys(Request._fields, ""),
    "protocol_name": "ESMTP",
    "client_address": "198.51.100.7",
    "client_name": "mail.outside.example",
    "client_port": "52525",
    "reverse_client_name": "mail.outside.example",
    "server_address": "192.0.2.25",
    "server_port": "25",
    "helo_name": "mail.outside.example",
    "recipient_count": "0",
    "size": "0",
    "encryption_keysize": "0",
}
"""What a request says when nothing else is expected."""

THIS = {
    "client_address": "127.0.0.1",
    "client_name": SOME,
    "client_port": SOME,
    "reverse_client_name": SOME,
    "server_address": "127.0.0.1",
    "server_port": SOME,
}
IPV6 = {
    "client_address": "2001:db8::25",
    "client_name": "mail6.outside.example",
    "reverse_client_name": "mail6.outside.example",
    "server_address": "2001:db8::1",
}
NAMELESS = {"client_name": "unknown", "reverse_client_name": "unknown"}
INSIDE = {
    "client_address": "192.0.2.10",
    "client_name": "pc10.my.domain",
    "reverse_client_name": "pc10.my.domain",
}
PROXIED = {
    "protocol_name": "SMTP",
    "helo_name": "behind.example",
    "sasl_method": "XCLIENT",
    "sasl_username": "mia",
}
AMY = {"sender": "amy@my.domain", "sasl_method": "PLAIN", "sasl_username": "amy"}
TLS = {
    "encryption_protocol": SOME,
    "encryption_cipher": SOME,
    "encryption_keysize": SOME,
    "tls_sni": "mx.my.domain",
}
SELF_SIGNED = {**TLS, "ccert_fingerprint": SOME, "ccert_pubkey_fingerprint": SOME}
TRUSTED = {**SELF_SIGNED, "ccert_subject": "Amy+20Ander+2Bx=y", "ccert_issuer": "Example+20CA"}


Expected = dict[str, str]


def xclient(**other: str) -> Expected:
    """A client that XCLIENT has named; nothing else is known."""
    return {"protocol_state": "XCLIENT", "protocol_name": "SMTP", "helo_name": "", **other}


def helo(name: str, state: str = "HELO", **other: str) -> Expected:
    """The protocol is not chosen yet when the client says its name."""
    return {"protocol_state": state, "protocol_name": "SMTP", "helo_name": name, **other}


def mail(sender: str = "eva@outside.example", **other: str) -> Expected:
    """A sender, no transaction yet."""
    return {"protocol_state": "MAIL", "sender": sender, **other}


def rcpt(recipient: str = "joe@my.domain", sender: str = "eva@outside.example", **other: str) -> Expected:
    """The first recipient: no queue file yet."""
    return {
        "protocol_state": "RCPT",
        "sender": sender,
        "recipient": recipient,
        "instance": SOME,
        **other,
    }


def data(
    count: int, recipient: str = "joe@my.domain", sender: str = "eva@outside.example", **other: str
) -> Expected:
    """A queue file, and the recipient if there is just one."""
    return {
        "protocol_state": "DATA",
        "sender": sender,
        "recipient": recipient,
        "recipient_count": str(count),
        "queue_id": SOME,
        "instance": SOME,
        **other,
    }


def end(count: int, size: int, recipient: str = "joe@my.domain", **other: str) -> Expected:
    """The size is the message's own now."""
    return {**data(count, recipient), "protocol_state": "END-OF-MESSAGE", "size": str(size), **other}


UTF8 = {"sender": "jörg@bücher.example", "recipient": "zoë@my.domain"}
ALL, TEAM, FRIEND = "all@my.domain", "team@my.domain", "friend@elsewhere.example"

EXPECTED: dict[str, list[Expected]] = {
    "connect": [{"protocol_state": "CONNECT", "protocol_name": "SMTP", "helo_name": "", **THIS}],
    "xclient": [xclient()],
    "xclient-ipv6": [xclient(**IPV6)],
    "xclient-nameless": [xclient(**NAMELESS)],
    "xclient-unverified-name": [
        xclient(client_name="unknown", reverse_client_name="Claimed.Outside.example")
    ],
    "xclient-login": [xclient(**PROXIED)],
    "helo": [helo("mail.outside.example")],
    # As it was said; in later states Postfix has put "?" for what is not in a name.
    "helo-odd": [helo("(joe) <x>;@Y")],
    "helo-latin-1": [helo("j\udcf6rg.example")],
    "ehlo": [helo("mail.outside.example", "EHLO")],
    "ehlo-address-literal": [helo("[IPv6:2001:db8::25]", "EHLO", **IPV6)],
    "ehlo-again-after-tls": [{"protocol_state": "EHLO", **TRUSTED}],
    "mail": [mail()],
    "mail-without-helo": [mail(protocol_name="SMTP", helo_name="")],
    "mail-null-sender": [mail("")],
    "mail-size": [mail(size="123456")],
    "mail-source-route": [mail("Eva@Outside.example")],
    "mail-sasl-auth": [mail(**AMY, sasl_sender="amy+2Bx@my.domain")],
    "mail-smtputf8": [mail("jörg@bücher.example")],
    "rcpt": [rcpt()],
    "rcpt-smtp": [rcpt(protocol_name="SMTP")],
    "rcpt-helo-odd": [rcpt(protocol_name="SMTP", helo_name="?joe???x???Y")],
    "rcpt-insiders": [rcpt(ALL)],
    "rcpt-insider": [rcpt(ALL, "pat@Partner.Example")],
    "rcpt-inside": [rcpt("internal@my.domain", **INSIDE)],
    "rcpt-outside": [rcpt("internal@my.domain")],
    "rcpt-residue": [rcpt("jane@my.domain")],
    "rcpt-null-sender": [rcpt(ALL, "")],
    "rcpt-held": [rcpt("announce@my.domain")],
    "rcpt-second": [rcpt("jane@my.domain", size="2000", queue_id=SOME)],
    "rcpt-next-transaction": [rcpt(sender="", sasl_method="PLAIN", sasl_username="amy")],
    "rcpt-extension": [rcpt("All+News@my.domain", "eva+x@outside.example")],
    "rcpt-quoted": [rcpt("ann starr@my.domain", "eva e=e@outside.example")],
    "rcpt-quoted-at": [rcpt(ALL, "eva@x@outside.example")],
    "rcpt-local-part": [rcpt("joe", "amy", **INSIDE)],
    "rcpt-routed": [rcpt("joe%my.domain@my.domain")],
    "rcpt-address-literal": [rcpt(sender="eva@[IPv6:2001:db8::25]")],
    "rcpt-ipv6": [rcpt(**IPV6)],
    "rcpt-nameless": [rcpt(**NAMELESS)],
    "rcpt-smtputf8": [rcpt(**UTF8)],
    "rcpt-sasl": [rcpt(FRIEND, **AMY)],
    "rcpt-sasl-member": [rcpt(TEAM, **AMY)],
    "rcpt-sasl-odd": [rcpt(TEAM, sasl_method="PLAIN", sasl_username="joe=x,y zoë@dom")],
    "rcpt-xclient-login": [rcpt("board@my.domain", **PROXIED)],
    "rcpt-tls": [rcpt(**TLS)],
    "rcpt-tls-trusted": [rcpt(**TRUSTED)],
    "rcpt-tls-self-signed": [rcpt(**SELF_SIGNED)],
    "rcpt-tls-sasl": [rcpt(FRIEND, **AMY, **TRUSTED)],
    "rcpt-policy-context": [rcpt(policy_context="plain/recipient")],
    "rcpt-stress": [rcpt(stress="yes")],
    "rcpt-every-list": [rcpt()] * 5,
    "vrfy": [{"protocol_state": "VRFY", "recipient": "joe@my.domain"}],
    "data": [data(1)],
    "data-several": [data(3, "", size="2000")],
    "data-null-sender": [data(1, sender="")],
    "data-tls-sasl": [data(1, TEAM, **AMY, **TRUSTED)],
    "data-bdat": [data(1)],
    "end-of-message": [end(1, 28)],
    "end-of-message-several": [end(2, 28, "")],
    "end-of-message-bdat": [end(2, 56, "")],
    "bdat-at-once": [data(1), end(1, 28)],
    "end-of-message-smtputf8": [end(1, 28, **UTF8)],
    "etrn": [{"protocol_state": "ETRN", "etrn_domain": "my.domain"}],
}
"""What the requests of a situation say otherwise than USUAL, whatever the version."""

STATES = ["CONNECT", "XCLIENT", "EHLO", "HELO", "MAIL", "RCPT", "VRFY", "DATA", "END-OF-MESSAGE", "ETRN"]


def settled(requests: Iterable[Mapping[str, str]], volatile: set[str]) -> list[Expected]:
    """The requests with a word for each value that another run has otherwise."""
    return [
        {name: SOME if name in volatile and value not in ("", "0") else value for name, value in one.items()}
        for one in requests
    ]


@every_version
def test_every_situation_is_recorded(version: str) -> None:
    """Folder and table name the same situations."""
    assert sorted(SITUATIONS) == sorted(path.stem for path in (FOLDER / version).glob("*.request"))


def test_every_version_is_known() -> None:
    """No recording is left unread."""
    assert sorted(VERSIONS) == sorted(path.name for path in FOLDER.glob("[0-9]*"))


def test_every_state_is_recorded() -> None:
    """Postfix has been asked to ask in every protocol state."""
    assert set(STATES) == {request["protocol_state"] for one in EXPECTED.values() for request in one}


@every_situation
@every_version
def test_attributes(version: str, situation: str) -> None:
    """Each attribute is what the table says."""
    found = read([recorded(version, situation)])

    lacking = dict.fromkeys(VERSIONS[version], "")
    its_own = {} if lacking else {"compatibility_level": "3.6", "mail_version": version}
    expected = [USUAL | one | its_own | lacking for one in EXPECTED[situation]]
    assert expected == settled((one._asdict() for one in found), SITUATIONS[situation].volatile)


@every_situation
@every_version
def test_names(version: str, situation: str) -> None:
    """Postfix sends all attributes every time, in the order of `Request`, and none that we do not know."""
    expected = ["request", *(name for name in Request._fields if name not in VERSIONS[version])]
    assert all(expected == list(one) for one in attributes(recorded(version, situation)))


@every_version
def test_lists_ask_the_same(version: str) -> None:
    """With smtpd_delay_reject=yes five lists send five requests that are the same, byte by byte."""
    first, *others = recorded(version, "rcpt-every-list").removesuffix(b"\n\n").split(b"\n\n")
    assert [first] * 4 == others


# --- how it is read -----------------------------------------------------------------------------


@every_situation
@every_version
def test_whole(version: str, situation: str) -> None:
    """The requests have exactly the attributes that stand in the file."""
    recording = recorded(version, situation)
    assert requests(recording) == read([recording])


@every_version
def test_one_read_takes_the_fast_path(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a Postfix sends in one piece is read without the full parser."""
    monkeypatch.delattr(RequestReader, "_feed_lines")
    for situation in SITUATIONS:
        pieces = [part + b"\n\n" for part in recorded(version, situation).split(b"\n\n")[:-1]]
        assert requests(recorded(version, situation)) == read(pieces)


@pytest.mark.servers
@every_situation
@every_version
def test_every_cut_in_two(version: str, situation: str) -> None:
    """A recording that is cut at any byte is the same requests."""
    recording = recorded(version, situation)
    expected = requests(recording)
    for place in range(len(recording) + 1):
        assert expected == read([recording[:place], recording[place:]])


@every_situation
@every_version
def test_pieces(version: str, situation: str) -> None:
    """A recording that drips in, byte by byte or in larger pieces, is the same requests."""
    recording = recorded(version, situation)
    for step in (1, 2, 7, 64, 500):
        pieces = [recording[at : at + step] for at in range(0, len(recording), step)]
        assert requests(recording) == read(pieces)


@every_version
def test_all_on_one_connection(version: str) -> None:
    """One smtpd serves many clients: no request keeps anything of the one before."""
    everything = b"".join(recorded(version, situation) for situation in SITUATIONS)
    expected = [request for situation in SITUATIONS for request in requests(recorded(version, situation))]
    assert expected == read([everything])
    assert expected == read(everything[at : at + 1000] for at in range(0, len(everything), 1000))


# --- other versions -----------------------------------------------------------------------------


@every_situation
def test_the_versions_say_the_same(situation: str) -> None:
    """The recorded Postfixes differ in the attributes that one of them lacks, and in nothing else."""
    old, new = (
        settled(attributes(recorded(version, situation)), SITUATIONS[situation].volatile)
        for version in VERSIONS
    )
    lacking = VERSIONS["3.7.11"]
    assert old == [{name: value for name, value in one.items() if name not in lacking} for one in new]


def test_ages() -> None:
    """The derived versions are told apart by attributes that there are, and the recorded ones are right."""
    assert set(Request._fields) > NEWER["2.1"]
    assert NEWER["3.2"] == VERSIONS["3.7.11"]
    assert NEWER["3.12"] == VERSIONS["3.12-20260821"]


def without(one: Mapping[str, str], names: Iterable[str]) -> Expected:
    """The request as a Postfix sends it that does not know these attributes."""
    left_out = set(names)
    return {name: value for name, value in one.items() if name not in left_out}


@pytest.mark.parametrize("age", AGES)
def test_derived_older(age: str) -> None:
    """Attributes that came later (derived from the recording of 3.12) are empty, the others as they were."""
    for situation in SITUATIONS:
        for one in attributes(recorded("3.12-20260821", situation)):
            expected = requests(encode(one))[0]._replace(**dict.fromkeys(NEWER[age], ""))
            older = encode(without(one, NEWER[age]))
            assert [expected] == read([older])
            assert [expected] == read([older[:100], older[100:]])


@every_situation
@every_version
def test_derived_without_one(version: str, situation: str) -> None:
    """An attribute that is not sent, whichever, is empty, and none of the others is touched."""
    for one in attributes(recorded(version, situation)):
        (whole,) = requests(encode(one))
        for name in Request._fields:
            assert [whole._replace(**{name: ""})] == read([encode(without(one, [name]))])


LATER = [b"new_attribute=x", b"new_attribute=", b"tls_sni2=a=b", b"SENDER=x", "größe=ü".encode(), b"x=\xff"]


@every_situation
@every_version
def test_derived_newer(version: str, situation: str) -> None:
    """Attributes that only a Postfix to come sends are ignored, wherever they stand."""
    recording = recorded(version, situation)
    expected = requests(recording)
    lines = recording.split(b"\n")
    for place in (place for place, line in enumerate(lines) if line):
        newer = b"\n".join([*lines[:place], LATER[place % len(LATER)], *lines[place:]])
        assert expected == read([newer])
    assert expected == read([recording.replace(b"\n\n", b"\n" + b"\n".join(LATER) + b"\n\n")])


# --- how it is decided --------------------------------------------------------------------------

RESIDUE = "reject_unknown_sender_domain, reject_unknown_client_hostname"

# By the example company's policy; the rest is DUNNO.
ACTIONS = {
    "mail-sasl-auth": "reject,",  # local_only: at MAIL there is no recipient that would be one of ours
    "rcpt-insiders": "reject,",
    "rcpt-outside": "reject,",
    "rcpt-residue": RESIDUE,
    "rcpt-null-sender": "reject,",
    "rcpt-held": "HOLD waits for a moderator",
    "rcpt-second": RESIDUE,
    "rcpt-extension": "reject,",
    "rcpt-quoted-at": "reject,",
    "rcpt-sasl": "reject,",
    "rcpt-sasl-odd": "REJECT",  # known_logins: nobody has it
    "rcpt-tls-sasl": "reject,",
}


@pytest.fixture(scope="module")
def service() -> Iterator[Ldappolicy]:
    """The service with the example company's directory."""
    with Ldappolicy() as running:
        yield running


def answered(service: Ldappolicy, data: bytes) -> list[str]:
    """Everything that the service says to these bytes until it has nothing more to say: a line each."""
    host, port = service.inet.removeprefix("inet:").split(":")
    with socket.create_connection((host, int(port)), DEADLINE) as sock:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        replies = sock.makefile("rb").read().decode()
    assert replies.endswith("\n\n")
    return replies.removesuffix("\n\n").split("\n\n")


def actions(situation: str) -> list[str]:
    """The replies to a situation: as many as requests."""
    return [f"action={ACTIONS.get(situation, 'DUNNO')}"] * len(EXPECTED[situation])


@pytest.mark.servers
@every_situation
@every_version
def test_decided(service: Ldappolicy, version: str, situation: str) -> None:
    """A request gets one reply, and that with the action of the table."""
    assert actions(situation) == answered(service, recorded(version, situation))


@pytest.mark.servers
@every_version
def test_decided_on_one_connection(service: Ldappolicy, version: str) -> None:
    """Of all the requests on one connection each gets its own reply, in order."""
    everything = b"".join(recorded(version, situation) for situation in SITUATIONS)
    expected = [action for situation in SITUATIONS for action in actions(situation)]
    assert expected == answered(service, everything)


@pytest.mark.servers
@pytest.mark.parametrize("age", AGES)
def test_derived_older_decided(service: Ldappolicy, age: str) -> None:
    """An older Postfix (derived) gets the same action, but where a login decides that it cannot tell."""
    of_a_login = {"mail-sasl-auth", "rcpt-sasl-member", "rcpt-sasl-odd", "rcpt-xclient-login"}
    for situation in SITUATIONS:
        older = [without(one, NEWER[age]) for one in attributes(recorded("3.12-20260821", situation))]
        replies = answered(service, b"".join(map(encode, older)))
        assert len(older) == len(replies)
        if "sasl_username" in older[0] or situation not in of_a_login:
            assert actions(situation) == replies


@pytest.mark.servers
def test_eval_stream(service: Ldappolicy) -> None:
    """All recordings on standard input of `ldappolicy eval -` give a line for each request."""
    everything = b"".join(recorded(version, situation) for version in VERSIONS for situation in SITUATIONS)
    command = [sys.executable, "-m", "ldappolicy", "-c", str(service.config), "eval", "-"]
    done = subprocess.run(command, input=everything, capture_output=True, check=False)

    assert (0, b"") == (done.returncode, done.stderr)
    expected = [action for _ in VERSIONS for situation in SITUATIONS for action in actions(situation)]
    assert expected == done.stdout.decode().splitlines()


# --- that the recordings are true ---------------------------------------------------------------


@pytest.mark.servers
def test_recorded_again() -> None:
    """The installed Postfix, if it is a recorded one, asks in every situation what stands in the file."""
    require_postfix()
    version = postfix.version()
    if version not in VERSIONS:
        pytest.skip(f"Postfix {version} is installed, the recordings are of {', '.join(VERSIONS)}")
    with recorder() as recording:
        for name, situation in SITUATIONS.items():
            expected = settled(attributes(recorded(version, name)), situation.volatile)
            found = settled(attributes(recording.record(situation)), situation.volatile)
            assert (name, expected) == (name, found)


def test_version_of_a_built_postfix(tmp_path: Path) -> None:
    """Another Postfix than the installed one is asked for its version where it was built."""
    command = tmp_path / "bin" / "postconf"
    command.parent.mkdir()
    command.write_text('#!/bin/sh\necho "3.99 of $*"\n')
    command.chmod(0o755)
    assert "3.99 of -d -h mail_version" == postfix.version(tmp_path)
