"""The decision log: its fields, which decisions it holds, and that no value leaves its place."""

import ast
import json
import os
import re
import socket
from pathlib import Path
from select import PIPE_BUF
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ldappolicy.decision_log import DecisionLog, decision_ids, shown_of, with_id
from ldappolicy.evaluate import Decision
from ldappolicy.request import Request
from tests.labs.deciding import Kept
from tests.labs.ldappolicy import DEADLINE, Ldappolicy, Sections, program

REQUEST = Request(
    protocol_state="RCPT",
    client_name="mail.elsewhere.example",
    client_address="203.0.113.9",
    sender="stranger@elsewhere.example",
    recipient="all@my.domain",
    instance="4a5c.65f1d2a3.9b1f2.0",
)
DECISION = Decision(
    "REJECT not for you",
    "default",
    restriction="recipient: check_recipient_access directory:access: members_only: reject",
    dn="cn=all,ou=groups,dc=example,dc=com",
    revision="0a1b2c3d4e5f",
)


def written(
    request: Request = REQUEST,
    decision: Decision = DECISION,
    *,
    form: str = "text",
    age: float | None = 1.25,
    is_shadow: bool = False,
) -> str:
    """The one line of a decision."""
    lines = Kept()
    log = DecisionLog("all", form, lines, decision_ids(), is_shadow=is_shadow)
    log.write(log.alike(request, decision), shown_of(request), 35.4e-6, age, "1lg70-1")
    (line,) = lines.texts
    return line


HEAD = "decision: id=1lg70-1 instance=4a5c.65f1d2a3.9b1f2.0 client=mail.elsewhere.example[203.0.113.9] "
STATE = "state=RCPT policy=default revision=0a1b2c3d4e5f "
SENDER, RECIPIENT, LOGIN = "sender=<stranger@elsewhere.example> ", "recipient=<all@my.domain> ", "login= "
WHY = (
    "action='REJECT not for you' "
    "restriction='recipient: check_recipient_access directory:access: members_only: reject' "
    "dn='cn=all,ou=groups,dc=example,dc=com' "
)
TAIL = "age=1.2 us=35"
WHOLE = HEAD + STATE + SENDER + RECIPIENT + LOGIN + WHY + TAIL

# Each is the line above, but for what it says: (attributes, circumstances, (what, by what)).
TEXTS = [
    pytest.param({}, {}, ("", ""), id="plain"),
    pytest.param(
        {"queue_id": "4Tq1xW2kz9zK1"},
        {},
        ("instance=4a5c.65f1d2a3.9b1f2.0", "queue_id=4Tq1xW2kz9zK1"),
        id="a queue id",
    ),
    pytest.param({"sender": ""}, {}, (SENDER, "sender=<> "), id="the null sender"),
    pytest.param({"sasl_username": "amy"}, {}, (LOGIN, "login=amy "), id="a login"),
    pytest.param(
        {"recipient": "o'brien@my.domain"}, {}, (RECIPIENT, 'recipient="<o\'brien@my.domain>" '), id="a quote"
    ),
    pytest.param({"sender": "Zoë@my.domain"}, {}, (SENDER, "sender=<Zoë@my.domain> "), id="any script"),
    pytest.param(
        {"sender": "x> action='OK' dn='"},
        {},
        (SENDER, "sender=\"<x> action='OK' dn='>\" "),
        id="a value that looks like fields",
    ),
    pytest.param(
        {"sasl_username": "amy\ndecision: id=2"},
        {},
        (LOGIN, "login='amy\\ndecision: id=2' "),
        id="a value that looks like a line",
    ),
    pytest.param(
        {"client_name": "a\x1b]0;\u202e\udcff"},
        {},
        ("client=mail.elsewhere.example[203.0.113.9]", "client='a\\x1b]0;\\u202e\\udcff[203.0.113.9]'"),
        id="terminals",
    ),
    pytest.param({}, {"age": None}, ("age=1.2", "age=-"), id="no age"),
    pytest.param({}, {"age": 0.0}, ("age=1.2", "age=0.0"), id="live"),
    pytest.param({}, {"is_shadow": True}, ("age=", "shadow=yes age="), id="the service in shadow"),
]


@pytest.mark.parametrize(("attributes", "more", "expected"), TEXTS)
def test_text(attributes: dict[str, str], more: dict[str, Any], expected: tuple[str, str]) -> None:
    """The fields, in their order, quoted where they have to be."""
    assert WHOLE.replace(*expected) == written(REQUEST._replace(**attributes), **more)


def test_shadowed() -> None:
    """What restrictions in shadow would have come to stands at the end."""
    by = ("recipient: members_only: reject, cn=all", "")
    decision = Decision("DUNNO", "default", shadowed=("REJECT a'b", "DEFER"), shadowed_by=by)
    end = """ shadowed="REJECT a'b; DEFER" shadowed_by='recipient: members_only: reject, cn=all; ' """
    assert written(decision=decision).endswith(end + TAIL)
    event = json.loads(written(decision=decision, form="json"))
    assert (event["shadowed"], event["shadowed_by"]) == (["REJECT a'b", "DEFER"], list(by))


def test_json() -> None:
    """One object with the same names, besides what every line of the log has."""
    event = json.loads(written(REQUEST._replace(sender="", sasl_username="amy"), form="json", is_shadow=True))
    assert event.pop("time") > 1e9
    assert event == {
        "level": "info",
        "logger": "ldappolicy.decision",
        "id": "1lg70-1",
        "instance": "4a5c.65f1d2a3.9b1f2.0",
        "state": "RCPT",
        "policy": "default",
        "revision": "0a1b2c3d4e5f",
        "client": "mail.elsewhere.example[203.0.113.9]",
        "sender": "",
        "recipient": "all@my.domain",
        "login": "amy",
        "action": "REJECT not for you",
        "restriction": "recipient: check_recipient_access directory:access: members_only: reject",
        "dn": "cn=all,ou=groups,dc=example,dc=com",
        "age": 1.2,
        "us": 35,
        "shadow": True,
    }


def test_json_without() -> None:
    """An age that is not known is null, a queue id takes the place of the instance."""
    event = json.loads(written(REQUEST._replace(queue_id="Q1"), form="json", age=None))
    assert (event["queue_id"], event["age"], "instance" in event, "shadow" in event) == (
        "Q1",
        None,
        False,
        False,
    )


@pytest.mark.parametrize("form", ["text", "json"])
def test_disconnect(form: str) -> None:
    """A connection that is closed instead of an answer is an action of its own."""
    assert "disconnect" in written(decision=Decision(None, "default"), form=form)


# --- whatever the values are -----------------------------------------------------------------------

HOSTILE = st.sampled_from("\n\r\0\t\x1b '\"\\=<>[]{}:,é\x85\xa0\u2028\u202e\ufeff\udcff\ud800\U0001f600")
VALUES = st.text(st.one_of(HOSTILE, st.characters(exclude_categories=())), max_size=12)
FIELD = re.compile(
    r"""([a-z_]+)=('(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|[^ ]*)(?: |$)""",
)


def read_back(line: str) -> dict[str, str]:
    """The fields of a line, as its documentation says that they are to be read."""
    head, _, rest = line.partition(" ")
    assert head == "decision:"
    found: dict[str, str] = {}
    at = 0
    while at < len(rest):
        match = FIELD.match(rest, at)
        assert match is not None, rest[at:]
        value = match[2]
        assert match[1] not in found
        found[match[1]] = ast.literal_eval(value) if value[:1] in ("'", '"') else value
        at = match.end()
    return found


@given(st.lists(VALUES, min_size=12, max_size=12))
def test_values_stay_in_their_place(values: list[str]) -> None:
    """Any values make exactly one printable line, out of which the same values can be read."""
    state, policy, name, address, sender, recipient, login, action, restriction, dn, queue_id, instance = (
        values
    )
    request = Request(
        protocol_state=state,
        client_name=name,
        client_address=address,
        sender=sender,
        recipient=recipient,
        queue_id=queue_id,
        instance=instance,
        sasl_username=login,
    )
    decision = Decision(
        action, policy, restriction=restriction, dn=dn, shadowed=(action,), shadowed_by=(dn,), revision="r1"
    )
    text, form = written(request, decision), written(request, decision, form="json")
    assert text.isprintable()
    assert form.isprintable()
    assert form.isascii()
    place = {"queue_id": queue_id} if queue_id else {"instance": instance}
    same = {
        "id": "1lg70-1",
        **place,
        "state": state,
        "policy": policy,
        "client": f"{name}[{address}]",
        "login": login,
        "action": action,
        "restriction": restriction,
        "dn": dn,
    }
    brackets = {"sender": f"<{sender}>", "recipient": f"<{recipient}>"}
    ends = {"age": "1.2", "us": "35", "shadowed": action, "shadowed_by": dn, "revision": "r1"}
    assert {**same, **brackets, **ends} == read_back(text)
    event = json.loads(form)
    expected = {**same, "sender": sender, "recipient": recipient}
    octets = {name: value.encode("utf-8", "backslashreplace") for name, value in expected.items()}
    assert {name: value.decode() for name, value in octets.items()} == {name: event[name] for name in octets}


@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.parametrize("letter", ["x", "\udcff", "\u202e", "\U0001f600", "'"])
def test_long_values_are_cut(form: str, letter: str) -> None:
    """A line is never longer than what stays whole in a pipe that several processes write to."""
    long = letter * 2000
    request = Request(*[long] * len(Request._fields))
    decision = Decision(long, long, restriction=long, dn=long, shadowed=(long,) * 50)
    line = written(request, decision, form=form)
    assert len(line.encode("utf-8")) < PIPE_BUF
    assert "..." in line


# --- which decisions -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("decision", "rejects"),
    [
        pytest.param(Decision("DUNNO"), False, id="no objection"),
        pytest.param(Decision("OK"), False, id="permitted"),
        pytest.param(Decision("REJECT x"), True, id="refused"),
        pytest.param(Decision("451 4.3.5 Server configuration error"), True, id="misconfigured"),
        pytest.param(Decision("reject,"), True, id="left to Postfix"),
        pytest.param(Decision("HOLD x"), True, id="an effect"),
        pytest.param(Decision(None), True, id="disconnected"),
        pytest.param(Decision("DUNNO", shadowed=("REJECT x",)), True, id="refused in shadow"),
        pytest.param(Decision("DUNNO", shadowed=("OK",)), False, id="permitted in shadow"),
    ],
)
def test_wants(decision: Decision, rejects: bool) -> None:
    """`rejects` is whatever does not just permit, in earnest or in shadow."""
    ids = decision_ids()
    told = {
        which: DecisionLog(which, "text", Kept(), ids).wants(decision) for which in ("none", "rejects", "all")
    }
    assert told == {"none": False, "rejects": rejects, "all": True}


# --- ids -------------------------------------------------------------------------------------------


def test_ids_are_unique() -> None:
    """Over a start of the program, over starts in the same second, and over workers."""
    makers = [decision_ids(), *(decision_ids(worker) for worker in (1, 2, 1))]
    numbers = [make() for make in makers for _ in range(1000)]
    assert len(set(numbers)) == len(numbers)
    assert all(re.fullmatch(r"[0-9a-v]{11,12}-[0-9a-f]{1,3}", number) for number in numbers)


@pytest.mark.parametrize(
    ("action", "expected"),
    [
        ("REJECT", "REJECT Access denied (N)"),
        ("DEFER", "DEFER Access denied (N)"),
        ("DEFER_IF_PERMIT", "DEFER_IF_PERMIT Service unavailable (N)"),
        ("DEFER_IF_REJECT", "DEFER_IF_REJECT Service unavailable (N)"),
        ("REJECT not for you", "REJECT not for you (N)"),
        ("REJECT 5.7.1 not for you", "REJECT 5.7.1 not for you (N)"),
        ("DEFER_IF_PERMIT 4.3.0 later", "DEFER_IF_PERMIT 4.3.0 later (N)"),
        ("550 5.7.1 no", "550 5.7.1 no (N)"),
        ("451 4.3.5 Server configuration error", "451 4.3.5 Server configuration error (N)"),
        *(
            (same, same)
            for same in (
                *("DUNNO", "OK", "reject,", "defer,", "reject_unlisted_sender, permit_mynetworks, reject"),
                *(
                    "reject",
                    "defer_if_permit",
                    "HOLD",
                    "HOLD why",
                    "DISCARD why",
                    "FILTER smtp:[a]",
                    "BCC a@b",
                ),
                *("REDIRECT a@b", "PREPEND X-A: b", "INFO x", "WARN x", "250 x", "550", "4500 x", ""),
            )
        ),
    ],
)
def test_with_id(action: str, expected: str) -> None:
    """What a client is told ends in the id; everything else stays what it is."""
    assert expected == with_id(action, "N")


# --- the real service ------------------------------------------------------------------------------

REFUSED = {"sender": "amy@my.domain", "recipient": "friend@elsewhere.example", "sasl_username": "amy"}
PASSED = {"sender": "new@elsewhere.example", "recipient": "new@elsewhere.example"}


def log_section(**values: str | bool) -> Sections:
    """The [log] section of a configuration."""
    return {"log": {"decisions": "rejects", **values}}


def test_one_line_each() -> None:
    """Also where the decision is remembered; what just passes is not written, by default."""
    with Ldappolicy(log_section()) as service:
        for number in range(3):
            service.ask(
                **REFUSED, instance=f"i{number}", client_name="a\u2028\x1b", client_address="192.0.2.1"
            )
            service.ask(**PASSED)
        service.wait_for_log("^decision:", 3)
        read = [read_back(line) for line in service.log("^decision:")]
        assert [fields["instance"] for fields in read] == ["i0", "i1", "i2"]
        assert len({fields.pop("id") for fields in read}) == 3
        expected = {"state": "RCPT", "policy": "default", "client": "a\u2028\x1b[192.0.2.1]", "login": "amy"}
        assert [{**fields, **expected} for fields in read] == read


def test_id_in_text() -> None:
    """The id that a client is told is that of the line; JSON as configured; nothing else gets one."""
    with Ldappolicy(log_section(format="json", decision_id_in_text=True, decisions="all")) as service:
        told = [service.ask(policy_context="nobody's", sasl_username="amy") for _ in range(3)]
        assert service.ask(**PASSED) == "DUNNO"
        assert service.ask(sender="x@elsewhere.example", recipient="all@my.domain") == "reject,"
        service.wait_for_log('"action": "reject,"')
        events = [json.loads(line) for line in service.log("ldappolicy.decision")]
        refusals = [event for event in events if event["login"] == "amy"]
        assert told == [f"{event['action']} ({event['id']})" for event in refusals]
        assert len(set(told)) == 3
        assert {event["action"] for event in refusals} == {"451 4.3.5 Server configuration error"}


def redirected(where: str) -> list[str]:
    """The program with its standard error somewhere else."""
    return ["/bin/sh", "-c", f'exec "$0" "$@" 2>{where}', program()]


def ask_many(service: Ldappolicy, count: int) -> set[str]:
    """The actions of as many requests on one connection."""
    given = {"request": "smtpd_access_policy", "protocol_state": "RCPT", **REFUSED}
    text = "".join(f"{name}={value}\n" for name, value in given.items()) + "\n"
    host, port = service.inet.removeprefix("inet:").split(":")
    with socket.create_connection((host, int(port)), DEADLINE) as client, client.makefile("rb") as replies:
        actions = set()
        for _ in range(count):
            client.sendall(text.encode())
            actions.add(replies.readline().decode().strip())
            replies.readline()
    return actions


@pytest.mark.servers
def test_disk_is_full() -> None:
    """Every request is answered though no line can be written."""
    if not Path("/dev/full").is_char_device():
        pytest.skip("needs /dev/full (Linux)")
    with Ldappolicy(log_section(), command=redirected("/dev/full")) as service:
        assert len(ask_many(service, 500)) == 1
        assert service.stop() == 0


@pytest.mark.servers
def test_nobody_reads(tmp_path: Path) -> None:
    """Nor does a full pipe hold up anybody: what was written first is in it, the rest is dropped."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reading = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    try:
        with Ldappolicy(log_section(), command=redirected(str(fifo))) as service:
            assert len(ask_many(service, 2000)) == 1  # some hundred fit
            assert service.stop() == 0
        assert os.read(reading, 65536).count(b"decision: ") > 100
    finally:
        os.close(reading)
