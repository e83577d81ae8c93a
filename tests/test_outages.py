"""Outages: `ldappolicy serve` and a real slapd that is down, goes away, hangs, refuses, or has lost its data.

Whatever happens, a request is answered with what is still known or with a deferral, never with a refusal
that nobody decided, never for good by what is past its ttl, and never with a pass; and all is well again by
itself when the server is.
"""

import re
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.labs.deciding import unread
from tests.labs.faulty_ldap import FakeLdap
from tests.labs.ldappolicy import EXAMPLE, Ldappolicy, Sections, merged, program, toml
from tests.labs.slapd import SUFFIX, Slapd, require_slapd, wait_until

pytestmark = pytest.mark.servers

DEFERRED = "DEFER_IF_PERMIT 4.3.0 Temporary lookup failure"
OLD = "450 4.3.0 Temporary lookup failure"
"""What a refusal is while what it rests on is past its ttl."""
KNOWN = {"sender": "stranger@elsewhere.example", "recipient": "all@my.domain"}
UNKNOWN = {"sender": "stranger@elsewhere.example", "recipient": "team@my.domain"}

# Everything is stale at once; a server that does answer has all the time that it takes.
SHORT: Sections = {
    "server": {"request_timeout": "1m"},
    "directory": {"timeout": "1m", "poll_interval": "500ms", "watch": "poll"},
    "cache": {"mode": "on_demand", "ttl": "50ms", "negative_ttl": "50ms", "max_stale": "1h"},
}

HANGING: Sections = {"directory": {"timeout": "300ms"}}
"""For a server that hangs, which is not waited for long; how long, is tested where time is a virtual one."""

DEADLINE_S = 120.0

OWNERS = f"""\
dn: cn=owners,ou=policy,{SUFFIX}
objectClass: smtpdPolicy
cn: owners
smtpdSenderRestrictions: reject_sender_login_mismatch

"""

CONFIGURATION = "dn: olcDatabase={1}mdb,cn=config\nchangetype: modify\n"
REFUSES = {
    "unwillingToPerform": "add: olcRestrict\nolcRestrict: search\n",
    "noSuchObject": "replace: olcAccess\nolcAccess: {0}to * by * none\n",
    "sizeLimitExceeded": "replace: olcSizeLimit\nolcSizeLimit: 1\n",
}
HEALS = {
    "unwillingToPerform": "delete: olcRestrict\n",
    "noSuchObject": "replace: olcAccess\nolcAccess: {0}to * by * read\n",
    "sizeLimitExceeded": "replace: olcSizeLimit\nolcSizeLimit: unlimited\n",
}


@pytest.fixture
def slapd(example_ldif: Path) -> Iterator[Slapd]:
    """A server with the example company, of the test's own."""
    require_slapd()
    with Slapd(schema="ldappolicy", data=example_ldif.read_text("utf-8") + "\n" + OWNERS) as server:
        yield server


@contextmanager
def serving(slapd: Slapd, *sections: Sections) -> Iterator[Ldappolicy]:
    """The real command over that server."""
    layers = merged(SHORT, {"directory": {"uri": [slapd.uri]}}, *sections)
    with Ldappolicy(layers) as service:
        yield service


def becomes(service: Ldappolicy, expected: str, *before: str, **attributes: str) -> None:
    """Ask until the answer is the expected one; meanwhile it is nothing but one of `before`."""
    deadline = time.monotonic() + DEADLINE_S
    while (action := service.ask(**attributes)) != expected:
        assert action in before
        assert time.monotonic() < deadline, f"still {action!r}, expected {expected!r}"
        time.sleep(0.02)


def recovers(service: Ldappolicy) -> None:
    """What was known and what was not are decided again as they should be."""
    becomes(service, "reject,", DEFERRED, OLD, **UNKNOWN)
    becomes(service, "reject,", DEFERRED, OLD, **KNOWN)
    becomes(service, "DUNNO", DEFERRED, sender="new@elsewhere.example", recipient="new@elsewhere.example")


# --- one for each way to fail ---------------------------------------------------------------------


def test_down_at_start(slapd: Slapd) -> None:
    """Requests are deferred until the first policies are read, without anybody's doing."""
    slapd.stop()
    with serving(slapd) as service:
        assert [service.ask(**KNOWN), service.ask(**UNKNOWN)] == [DEFERRED, DEFERRED]
        service.wait_for_log("no policies yet")
        slapd.start()
        recovers(service)
        service.wait_for_log("policies in force")


def test_goes_away(slapd: Slapd) -> None:
    """The last answers serve, for a while; what was never asked is deferred; then it comes back."""
    with serving(slapd) as service:
        assert service.ask(**KNOWN) == "reject,"
        slapd.kill()
        becomes(service, OLD, "reject,", **KNOWN)
        for _ in range(3):
            assert [service.ask(**KNOWN), service.ask(**UNKNOWN)] == [OLD, DEFERRED]
        slapd.start()
        recovers(service)


def test_goes_away_for_longer_than_max_stale(slapd: Slapd) -> None:
    """Past max_stale nothing is known any more."""
    with serving(slapd, {"cache": {"max_stale": "700ms"}}) as service:
        assert service.ask(**KNOWN) == "reject,"
        slapd.stop()
        becomes(service, DEFERRED, "reject,", OLD, **KNOWN)
        assert service.ask(**KNOWN) == DEFERRED
        slapd.start()
        recovers(service)


@pytest.mark.parametrize(
    "waits",
    # Without a stream: a poll that hangs vouches for what is known until `timeout`.
    [HANGING, {"directory": {"timeout": "1h", "watch": "off"}, "server": {"request_timeout": "300ms"}}],
    ids=["timeout", "request_timeout"],
)
def test_hangs(slapd: Slapd, waits: Sections) -> None:
    """A server that says nothing is waited for no longer than the shorter of the timeouts says."""
    with serving(slapd, waits) as service:
        becomes(service, "reject,", DEFERRED, **KNOWN)
        slapd.suspend()
        becomes(service, OLD, "reject,", **KNOWN)
        for _ in range(3):
            assert [service.ask(**KNOWN), service.ask(**UNKNOWN)] == [OLD, DEFERRED]
        slapd.resume()
        recovers(service)


def test_hangs_at_start(slapd: Slapd) -> None:
    """The same without any policies."""
    slapd.suspend()
    with serving(slapd, HANGING) as service:
        assert [service.ask(**KNOWN), service.ask(**UNKNOWN)] == [DEFERRED, DEFERRED]
        slapd.resume()
        recovers(service)


@pytest.mark.parametrize("error", REFUSES)
def test_answers_with_an_error(slapd: Slapd, error: str) -> None:
    """A result code other than success is no answer, on a connection that was good."""
    with serving(slapd) as service:
        assert service.ask(**KNOWN) == "reject,"
        slapd.configure(CONFIGURATION + REFUSES[error])
        becomes(service, OLD, "reject,", **KNOWN)
        for n in range(3):
            assert service.ask(**KNOWN) == OLD
            if error != "sizeLimitExceeded":  # one entry is below the limit
                assert service.ask(**UNKNOWN | {"sender": f"s{n}@x.example"}) == DEFERRED
        service.wait_for_log(re.escape(error))
        slapd.configure(CONFIGURATION + HEALS[error])
        recovers(service)


@pytest.mark.parametrize(
    "code",
    [51, 4095, *(pytest.param(code, marks=pytest.mark.long) for code in (1, 3, 11, 50, 52, 53, 80))],
)
def test_answers_with_any_code(code: int) -> None:
    """At start, by a server that says nothing else: operationsError, busy, insufficient rights."""
    with FakeLdap({}) as server:
        server.code = code
        sections: Sections = {"directory": {"uri": [server.uri]}}
        with Ldappolicy(merged(SHORT, sections)) as service:
            assert [service.ask(**KNOWN), service.ask(**UNKNOWN)] == [DEFERRED, DEFERRED]
            service.wait_for_log(rf"no policies yet: .*\({code}\)")


@pytest.mark.parametrize("left", ["nothing", "the base", "all but the policies"])
def test_comes_back_as_an_empty_replica(slapd: Slapd, example_ldif: Path, left: str) -> None:
    """A server that does not show base and policy is not believed: "no such list" would be a pass."""
    records = example_ldif.read_text("utf-8").split("\n\n")
    data = {
        "nothing": "",
        "the base": next(record for record in records if f"dn: {SUFFIX}\n" in record) + "\n",
        "all but the policies": "\n\n".join(
            part for part in records if "objectClass: smtpdPolicy" not in part
        ),
    }[left]
    with serving(slapd) as service:
        assert service.ask(**KNOWN) == "reject,"
        slapd.stop()
        empty = Slapd(schema="ldappolicy", data=data)
        empty.port = slapd.port
        with empty:
            becomes(service, OLD, "reject,", **KNOWN)
            for _ in range(3):
                assert [service.ask(**KNOWN), service.ask(**UNKNOWN)] == [OLD, DEFERRED]
            service.wait_for_log("does not show|noSuchObject")
        slapd.start()
        recovers(service)


def test_an_account_that_lost_its_rights(slapd: Slapd) -> None:
    """On its next connection it is shown no policy, and so is not believed."""
    with serving(slapd) as service:
        assert service.ask(**KNOWN) == "reject,"
        slapd.configure(
            CONFIGURATION + "replace: olcAccess\n"
            f'olcAccess: {{0}}to dn.subtree="ou=policy,{SUFFIX}" by * none\n'
            f'olcAccess: {{1}}to dn.subtree="ou=lists,{SUFFIX}" by * none\n'
            "olcAccess: {2}to * by * read\n"
        )
        slapd.restart()
        becomes(service, OLD, "reject,", **KNOWN)
        for _ in range(3):
            assert [service.ask(**KNOWN), service.ask(**UNKNOWN)] == [OLD, DEFERRED]
        slapd.configure(CONFIGURATION + HEALS["noSuchObject"])
        recovers(service)


def test_a_second_server_takes_over(slapd: Slapd, example_ldif: Path) -> None:
    """Nobody is deferred, nothing is stale."""
    with (
        Slapd(schema="ldappolicy", data=example_ldif.read_text("utf-8")) as second,
        serving(slapd, {"directory": {"uri": [slapd.uri, second.uri]}}) as service,
    ):
        assert service.ask(**KNOWN) == "reject,"
        slapd.stop()
        for n in range(3):
            assert service.ask(sender=f"s{n}@x.example", recipient="all@my.domain") == "reject,"
        assert second.searches() > 0


# --- what the site chose --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("choice", "expected"), [("defer", DEFERRED), ("dunno", "DUNNO"), ("disconnect", None)]
)
def test_on_unavailable(slapd: Slapd, choice: str, expected: str | None) -> None:
    """The site's choice is the reply, without policies and with them; never for what is still known."""
    with serving(slapd, {"policy": {"on_unavailable": choice}}) as service:
        assert service.ask(**KNOWN) == "reject,"
        slapd.stop()
        becomes(service, OLD, "reject,", **KNOWN)
        assert service.ask(**UNKNOWN) == expected
    # The command is asked for a first answer before it counts as started: here none may come.
    with serving(slapd, {"policy": {"on_unavailable": choice}}) as service:
        assert service.ask(**UNKNOWN) == expected


# --- at start, and on SIGHUP ----------------------------------------------------------------------


def test_a_directory_without_the_policy_is_an_error_at_start(slapd: Slapd, tmp_path: Path) -> None:
    """It answers, so waiting would not help: exit 78 after saying why."""
    slapd.load(f"dn: cn=default,ou=policy,{SUFFIX}\nchangetype: delete\n")
    path = tmp_path / "config.toml"
    sections: Sections = {"directory": {"uri": [slapd.uri]}, "server": {"listen": ["inet:127.0.0.1:0"]}}
    path.write_text(toml(merged(EXAMPLE, SHORT, sections)), "utf-8")
    done = subprocess.run(
        [program(), "-c", str(path), "serve"], capture_output=True, text=True, timeout=DEADLINE_S, check=False
    )
    assert (done.returncode, done.stdout) == (78, "")
    assert done.stderr.splitlines()[-1] == (
        f"ldappolicy: ou=policy,{SUFFIX}: no policy named 'default', expected a smtpdPolicy with that cn"
    )


def test_a_refused_configuration_leaves_nothing_behind(slapd: Slapd) -> None:
    """SIGHUP with a policy that is not there: told, the old one answers on the same two connections."""
    with serving(slapd) as service:
        assert service.ask(**KNOWN) == "reject,"
        good = service.sections
        for count in (1, 2, 3):
            bad: Sections = {"policy": {"name": "nowhere"}, "directory": {"filter": f"(cn={count})"}}
            service.configure(merged(good, bad))
            service.hang_up()
            service.wait_for_log("configuration refused", count)
            assert service.ask(**KNOWN) == "reject,"
        wait_until(lambda: open_connections(slapd) == 2, DEADLINE_S)
        service.configure(good)
        service.hang_up()
        service.wait_for_log("configuration in force")
        recovers(service)


def test_a_refused_name_leaves_what_a_server_has_to_show(slapd: Slapd) -> None:
    """SIGHUP with the name of no policy: what nobody asked before is looked up, also on a new connection."""
    with serving(slapd) as service:
        assert service.ask(**KNOWN) == "reject,"
        service.configure(merged(service.sections, {"policy": {"name": "nowhere"}}))
        service.hang_up()
        service.wait_for_log("configuration refused")
        assert service.ask(**UNKNOWN) == "reject,"
        slapd.restart()
        recovers(service)


def open_connections(slapd: Slapd) -> int:
    """How many the server has just now; its own tools have closed theirs."""
    log = slapd.log.read_text("utf-8", "replace")
    return log.count(" ACCEPT from ") - len(re.findall(r"conn=\d+ fd=\d+ closed", log))


def test_sighup_while_the_directory_is_down(slapd: Slapd) -> None:
    """The configuration is refused, what is known serves; every answer is asked for again afterwards."""
    long: Sections = {"cache": {"ttl": "1h", "negative_ttl": "1h"}}
    with serving(slapd, long) as service:
        assert service.ask(**KNOWN) == "reject,"
        slapd.stop()
        service.hang_up()
        service.wait_for_log("configuration refused")
        assert [service.ask(**KNOWN), service.ask(**UNKNOWN)] == ["reject,", DEFERRED]
        slapd.start()
        slapd.load(
            f"dn: cn=all,ou=lists,{SUFFIX}\nchangetype: modify\nreplace: smtpdRecipientAccess\n"
            "smtpdRecipientAccess: 550 5.7.1 changed\n"
        )
        becomes(service, "550 5.7.1 changed", "reject,", **KNOWN)


def test_a_request_in_hand_survives_a_swap(slapd: Slapd, example_ldif: Path) -> None:
    """SIGHUP with another server while a decision waits for the old one: it still gets its answer."""
    with (
        Slapd(schema="ldappolicy", data=example_ldif.read_text("utf-8")) as second,
        # No poll meanwhile: a reading of the policies under way would hold up the new configuration.
        serving(slapd, {"directory": {"poll_interval": "1h"}}) as service,
    ):
        service.wait_for_log("changes are told by")
        slapd.suspend()
        answers: list[str | None] = []
        waiting = threading.Thread(target=lambda: answers.append(service.ask(**KNOWN)))
        waiting.start()
        wait_until(lambda: unread(slapd.port), DEADLINE_S)
        service.configure(merged(service.sections, {"directory": {"uri": [second.uri]}}))
        service.hang_up()
        service.wait_for_log("configuration in force")
        slapd.resume()
        waiting.join(DEADLINE_S)
        assert answers == ["reject,"]
        assert service.ask(**KNOWN) == "reject,"


# --- one reply each, in order, throughout ---------------------------------------------------------


def test_every_request_has_its_own_reply_through_all_of_it(slapd: Slapd) -> None:
    """One connection, a hundred requests for each state of the directory; each reply names its own login."""
    with serving(slapd, HANGING) as service, socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(DEADLINE_S)
        sock.connect(service.unix.removeprefix("unix:"))
        stream = sock.makefile("rb")
        told = 0

        def hundred(may_know: bool) -> int:
            nonlocal told
            numbers = range(told, told + 100)
            told += 100
            sock.sendall(b"".join(mismatch(number) for number in numbers))
            replies = [(stream.readline() + stream.readline()).decode() for _ in numbers]
            decided = 0
            for number, reply in zip(numbers, replies, strict=True):
                own = f"action=553 5.7.1 not owned by user u{number}\n\n"
                assert reply in (own, f"action={DEFERRED}\n\n")
                decided += reply == own
            assert may_know or not decided
            return decided

        def well() -> None:
            deadline = time.monotonic() + DEADLINE_S
            while hundred(True) < 100:
                assert time.monotonic() < deadline

        well()
        for breaks, heals in steps(slapd):
            breaks()
            hundred(False)
            heals()
            well()
        sock.shutdown(socket.SHUT_WR)
        assert stream.read() == b""


def steps(slapd: Slapd) -> Iterator[tuple[Callable[[], None], Callable[[], None]]]:
    """Ways to break it, and what mends each."""
    yield slapd.stop, slapd.start
    yield slapd.suspend, slapd.resume
    for error in ("unwillingToPerform", "noSuchObject"):
        yield (
            lambda error=error: slapd.configure(CONFIGURATION + REFUSES[error]),  # type: ignore[misc]
            lambda error=error: slapd.configure(CONFIGURATION + HEALS[error]),  # type: ignore[misc]
        )


def mismatch(number: int) -> bytes:
    """A login that nobody has, and that does not own the sender: the reply names it."""
    return (
        f"request=smtpd_access_policy\nprotocol_state=RCPT\npolicy_context=owners\n"
        f"sender=amy@my.domain\nrecipient=x@x.example\nsasl_method=PLAIN\nsasl_username=u{number}\n\n"
    ).encode()
