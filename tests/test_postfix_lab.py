"""The private Postfix itself: restrictions, logins, DNS, HOLD, and that nothing stays behind."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from ldappolicy.errors import OracleError
from tests.labs.postfix import OUTSIDE, Postfix, Session, require_postfix

pytestmark = pytest.mark.servers

TABLE = "inline:{h@my.domain=HOLD, no@my.domain=REJECT}"
SERVICES = {
    "plain": {},
    "names": {"smtpd_sender_restrictions": "reject_unknown_sender_domain"},
    "hold": {"smtpd_recipient_restrictions": f"check_recipient_access {TABLE}"},
}
RECORDS = {
    ("known.example", "MX"): ["10 mx.known.example"],
    ("mx.known.example", "A"): ["198.51.100.9"],
    ("six.example", "AAAA"): ["2001:db8::9"],
}


@pytest.fixture(scope="module")
def postfix() -> Iterator[Postfix]:
    """One instance for all the tests here."""
    require_postfix()
    with Postfix(SERVICES, {"unknown_address_reject_code": "550"}, RECORDS, {"broken.example"}) as running:
        yield running


@pytest.fixture
def outside(postfix: Postfix) -> Iterator[Session]:
    """A session of a client that nobody knows."""
    with postfix.session("plain", **OUTSIDE) as session:
        session.ehlo()
        yield session


def test_relay_is_refused(outside: Session) -> None:
    """A stranger may write to us, and not through us."""
    outside.mail("a@b.example")
    assert "250 2.1.5 Ok" == outside.rcpt("joe@my.domain")
    assert "554 5.7.1 <x@far.example>: Relay access denied" == outside.rcpt("x@far.example")


def test_delivery_is_discarded(postfix: Postfix, outside: Session) -> None:
    """What is accepted goes nowhere."""
    outside.mail("a@b.example")
    outside.rcpt("discarded@my.domain")
    assert outside.data(b".dot\r\n").startswith("250 2.0.0 Ok: queued as ")
    assert "relay=none" in postfix.wait_for_log("to=<discarded@my.domain>.*status=sent")


@pytest.mark.parametrize("addr", ["192.0.2.8", "127.0.0.1"])
def test_mynetworks(postfix: Postfix, addr: str) -> None:
    """XCLIENT puts the client where the test wants it."""
    with postfix.session("plain", name="host.my.domain", addr=addr) as session:
        session.ehlo()
        session.mail("a@b.example")
        assert "250 2.1.5 Ok" == session.rcpt("x@far.example")


def test_ipv6_client(postfix: Postfix) -> None:
    """The client may have an IPv6 address."""
    with postfix.session("plain", name="six.example", addr="2001:db8::9") as session:
        session.ehlo()
        session.mail("a@b.example")
        assert session.rcpt("x@far.example").startswith("554")
        postfix.wait_for_log(r"six.example\[2001:db8::9\]: 554")


@pytest.mark.parametrize("login", ["amy", "amy@my.domain", "o'b+r=i en"])
def test_login_by_xclient(postfix: Postfix, login: str) -> None:
    """XCLIENT says who is logged in."""
    with postfix.session("plain", login=login, **OUTSIDE) as session:
        session.ehlo()
        session.mail("a@b.example")
        assert "250 2.1.5 Ok" == session.rcpt("x@far.example")


def test_login_by_auth(outside: Session) -> None:
    """AUTH PLAIN works as well, with any password."""
    assert "235 2.7.0 Authentication successful" == outside.auth("amy")
    outside.mail("a@b.example")
    assert "250 2.1.5 Ok" == outside.rcpt("x@far.example")


@pytest.mark.parametrize(
    ("sender", "code"),
    [
        ("a@known.example", "250 2.1.5 Ok"),
        ("a@six.example", "250 2.1.5 Ok"),
        ("a@unknown.example", "550 5.1.8 <a@unknown.example>: Sender address rejected: Domain not found"),
        ("a@broken.example", "450 4.1.8 <a@broken.example>: Sender address rejected: Domain not found"),
    ],
)
def test_dns(postfix: Postfix, sender: str, code: str) -> None:
    """Names are those of the test: found, not found, or not to be found out now."""
    with postfix.session("names", **OUTSIDE) as session:
        session.ehlo()
        session.mail(sender)
        assert code == session.rcpt("joe@my.domain")


def test_dns_is_asked(postfix: Postfix) -> None:
    """The questions arrive at our server; the machine's own resolver is untouched."""
    assert postfix.dns.address not in Path("/etc/resolv.conf").read_text()
    with postfix.session("names", **OUTSIDE) as session:
        session.ehlo()
        session.mail("a@asked.example")
        session.rcpt("joe@my.domain")
    assert ("asked.example", "MX") in postfix.dns.asked


def test_hold(postfix: Postfix) -> None:
    """A message on hold stays in the queue, where it can be seen."""
    with postfix.session("hold", **OUTSIDE) as session:
        session.ehlo()
        session.mail("a@b.example")
        assert session.rcpt("no@my.domain").startswith("554 5.7.1")
        assert "250 2.1.5 Ok" == session.rcpt("h@my.domain")
        assert session.data().startswith("250")
    (message,) = postfix.queue("hold")
    expected = "a@b.example", ["h@my.domain"]
    assert expected == (message["sender"], [recipient["address"] for recipient in message["recipients"]])
    assert postfix.queue("hold") == postfix.queue()


def test_server_hangs_up(postfix: Postfix) -> None:
    """The end of the connection is an empty reply."""
    with postfix.session("plain") as session:
        assert session.banner.startswith("220 mx.my.domain")
        assert session.helo().startswith("250 mx.my.domain")
        assert "221 2.0.0 Bye" == session.quit()
        assert session.reply() == ""


def test_nothing_stays() -> None:
    """When it ends, its ports are closed, its processes gone and its folder removed."""
    require_postfix()
    with Postfix({"in": {}}) as postfix, postfix.session("in") as session:
        session.ehlo()
        folder, port = postfix.folder, postfix.ports["in"]
        assert running_in(folder)
    assert not folder.exists()
    assert running_in(folder) == []
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))


def running_in(folder: Path) -> list[str]:
    """The processes that name the folder, or work in it."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            says = (process / "cmdline").read_text() + str((process / "cwd").readlink())
        except OSError:
            continue
        if str(folder) in says:
            found.append(process.name)
    return found


def test_wrong_configuration() -> None:
    """A Postfix that does not start is an error, at once."""
    require_postfix()
    wrong = Postfix({"in": {}}, {"default_process_limit": "many"})
    with pytest.raises(OracleError, match="did not start: ended: 1"), wrong:
        pass
    assert not wrong.folder.exists()


def test_wrong_service() -> None:
    """An smtpd that does not start says why in the log."""
    require_postfix()
    with Postfix({"in": {"smtpd_relay_restrictions": "permit_mynetworks"}}) as postfix:
        line = postfix.wait_for_log("fatal")
    assert "fatal: in parameter smtpd_relay_restrictions" in line
