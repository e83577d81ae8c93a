"""Several processes behind the same sockets: none loses a request, all are as the configuration says."""

import asyncio
import http.client
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from ldappolicy.config import Config, Server
from ldappolicy.supervisor import worker_count
from ldappolicy.workers import MOST_UNREAD, Channel
from tests.labs.ldappolicy import DEADLINE, EXAMPLE, HASTY, Ldappolicy, Sections, merged, toml
from tests.labs.slapd import Slapd, wait_until
from tests.labs.smtpd import Address, Case, Crowd
from tests.labs.systemd import Systemd

TWO: Sections = {"server": {"workers": 2}, "log": {"decisions": "none"}}
SMTPDS = 50
ANSWERS = r"worker \d \(pid \d+\) answers"

pytestmark = pytest.mark.servers  # two processes that nobody has forked


def case(reply: str, **attributes: str) -> Case:
    """A request of the example company, and its reply."""
    lines = {"request": "smtpd_access_policy", "protocol_state": "RCPT", **attributes}
    text = "".join(f"{name}={value}\n" for name, value in lines.items())
    return f"{text}\n".encode(), f"action={reply}\n\n".encode()


CASES = [
    case("reject,", sender="stranger@elsewhere.example", recipient="all@my.domain"),
    case(
        "reject_unknown_sender_domain, reject_unknown_client_hostname",
        sender="joe@my.domain",
        recipient="jane@my.domain",
    ),
    case("reject,", sender="bob@my.domain", recipient="friend@elsewhere.example", sasl_username="bob"),
    case("DUNNO", sender="mia@my.domain", recipient="friend@elsewhere.example", sasl_username="mia"),
    case("DUNNO", sender="stranger@elsewhere.example", recipient="nobody@my.domain"),
]


def inet(service: Ldappolicy) -> tuple[str, int]:
    """Where a service listens, for TCP."""
    host, port = service.inet.removeprefix("inet:").split(":")
    return host, int(port)


def addresses(service: Ldappolicy) -> list[Address]:
    """Where a service listens."""
    return [inet(service), service.unix.removeprefix("unix:")]


def is_gone(pid: int) -> bool:
    """Whether a process has ended."""
    try:
        return ") Z " in Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True


@pytest.fixture(scope="module")
def started() -> Iterator[Ldappolicy]:
    """A service of two workers for tests that leave it with two; another of them is started soon."""
    timing = replace(HASTY, first_pause_s=0.01, longest_pause_s=0.1)
    with Ldappolicy(merged(TWO, {"web": {"listen": "127.0.0.1:0"}}), timing=timing) as service:
        yield service


@pytest.fixture
def two(started: Ldappolicy) -> Ldappolicy:
    """The same, when both answer."""
    wait_for_both(started)
    return started


def wait_for_both(service: Ldappolicy, without: Sequence[int] = ()) -> None:
    """Until two workers answer, of which none is one of these processes."""

    def both_answer() -> bool:
        pids = service.workers()
        answering = [pid for pid in pids if service.log(rf"\(pid {pid}\) answers")]
        return 2 == len(pids) == len(answering) and not set(pids) & set(without)

    wait_until(both_answer, DEADLINE)


def shown(service: Ldappolicy, path: str) -> tuple[int, str]:
    """The status and the text of a page of its web server."""
    told = re.search(r"http://([0-9.]+:[0-9]+)/metrics", service.stdout())
    assert told is not None
    connection = http.client.HTTPConnection(told[1], timeout=DEADLINE)
    connection.request("GET", path)
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, text


def metric(service: Ldappolicy, name: str, label: str) -> float:
    """The sum of a metric over its other labels."""
    lines = shown(service, "/metrics")[1].splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(f"{name}{{") and label in line)


# ---------------------------------------------------------------- nothing is lost


@pytest.mark.parametrize(
    ("workers", "restarts"), [(1, 2), (2, 1), pytest.param(2, 2, marks=pytest.mark.long)]
)
def test_restart_under_load(tmp_path: Path, workers: int, restarts: int) -> None:
    """Sockets that systemd holds: each request has its one right reply, at the second try at the latest."""
    sections: Sections = merged(TWO, {"server": {"workers": workers}})

    async def restart() -> None:
        with Systemd(tmp_path) as systemd, Ldappolicy(sections, **systemd.passes) as service:
            async with Crowd(systemd.addresses, CASES, SMTPDS) as crowd:
                for _ in range(restarts):
                    await crowd.answers(10 * SMTPDS)
                    assert 0 == await asyncio.to_thread(service.stop)
                    await asyncio.to_thread(service.start)
                await crowd.answers(10 * SMTPDS)
            assert ([], 0) == (crowd.wrong, crowd.unanswered)
            assert crowd.closed >= restarts * SMTPDS

    asyncio.run(restart())


def test_a_worker_is_killed_under_load(two: Ldappolicy) -> None:
    """Its clients ask again, and get the same answers from another."""

    async def kill() -> None:
        async with Crowd(addresses(two), CASES, SMTPDS) as crowd:
            await crowd.answers(10 * SMTPDS)
            killed = two.workers()[0]
            os.kill(killed, signal.SIGKILL)
            await asyncio.to_thread(wait_for_both, two, [killed])
            await crowd.answers(10 * SMTPDS)
        assert ([], 0) == (crowd.wrong, crowd.unanswered)
        assert crowd.closed >= 1

    asyncio.run(kill())


def test_what_was_counted_stays(two: Ldappolicy) -> None:
    """The metrics are of all workers, also of those that have ended."""

    def counted() -> float:
        return metric(two, "ldappolicy_requests_total", 'policy="plain"')

    for _ in range(10):
        two.ask(recipient="nobody@my.domain", policy_context="plain")
    wait_until(lambda: counted() == 10, DEADLINE)
    before = two.workers()
    for pid in before:
        os.kill(pid, signal.SIGTERM)
    for pid in before:
        two.wait_for_log(rf"\(pid {pid}\) ended with status 0; another is started")
    two.ask(recipient="nobody@my.domain", policy_context="plain")
    wait_until(lambda: counted() == 11, DEADLINE)
    assert (200, "alive\n") == shown(two, "/healthz")


def test_connections_are_shared_out(two: Ldappolicy) -> None:
    """Postfix keeps its connections: no worker is to have all of them."""
    before = [open_files(pid) for pid in two.workers()]
    with ExitStack() as stack:
        for _ in range(SMTPDS):
            client = stack.enter_context(socket.create_connection(inet(two)))
            client.sendall(CASES[0][0])
            assert CASES[0][1] == client.recv(4096)
        after = [open_files(pid) for pid in two.workers()]
        assert min(new - old for old, new in zip(before, after, strict=True)) >= SMTPDS // 4


def open_files(pid: int) -> int:
    """How many descriptors a process has."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


# ---------------------------------------------------------------- the life of a worker


def test_a_worker_that_hangs() -> None:
    """It is killed by its id, and replaced."""
    with Ldappolicy(TWO, timing=replace(HASTY, missed=20)) as two:
        wait_for_both(two)
        pid = two.workers()[0]
        os.kill(pid, signal.SIGSTOP)
        two.wait_for_log(rf"worker \d \(pid {pid}\) has given no sign of life for 2.0 s: killed")
        two.wait_for_log(rf"worker \d \(pid {pid}\) was killed by signal 9; another is started")
        wait_until(lambda: len(two.workers()) == 2 and pid not in two.workers(), DEADLINE)


def test_a_worker_without_policies(example_ldif: Path) -> None:
    """It is passed over while another has them; where nobody has, requests are answered as is configured."""
    stranger = {"sender": "stranger@elsewhere.example", "recipient": "all@my.domain"}
    loaded = "mirror complete"
    with Slapd(schema="ldappolicy") as slapd:
        slapd.load(example_ldif)
        with Ldappolicy(merged(TWO, {"directory": {"uri": [slapd.uri]}})) as service:
            service.wait_for_log(loaded, 2)
            slapd.kill()
            os.kill(service.workers()[0], signal.SIGKILL)
            service.wait_for_log("no policies yet")
            assert {"reject,"} == {service.ask(**stranger) for _ in range(20)}
            assert 2 == len(service.log(ANSWERS))
            os.kill(service.workers()[0], signal.SIGKILL)
            service.wait_for_log(ANSWERS, 3)
            assert "DEFER_IF_PERMIT" in str(service.ask(**stranger))
            slapd.start()
            service.wait_for_log(loaded, 4)
            assert {"reject,"} == {service.ask(**stranger) for _ in range(20)}


OTHER_BUCKETS = """
import sys
from ldappolicy import counters
from ldappolicy.cli import main
if "--control" in sys.argv:
    try:
        open("OTHER", "x").close()
    except FileExistsError:
        counters.DECISION_BUCKETS = (1.0,)
main()
"""


def test_a_worker_of_another_version(tmp_path: Path) -> None:
    """What it counted does not fit: that is lost, the service is not."""
    program = OTHER_BUCKETS.replace("OTHER", str(tmp_path / "other"))
    with Ldappolicy(TWO, command=[sys.executable, "-c", program]) as two:
        wait_for_both(two)
        before = two.workers()
        for pid in before:
            os.kill(pid, signal.SIGTERM)
        two.wait_for_log(r"what worker \d \(pid \d+\) counted is lost: it was of another version")
        wait_for_both(two, before)
        assert "DUNNO" == two.ask(recipient="nobody@my.domain")


def test_workers_without_a_supervisor(two: Ldappolicy) -> None:
    """They end by themselves, and a new service takes their place."""
    workers = two.workers()
    two.kill()
    wait_until(lambda: all(map(is_gone, workers)), DEADLINE)
    two.start()
    assert "DUNNO" == two.ask(recipient="nobody@my.domain")


PAUSES = re.compile(r"worker 0 \(pid \d+\) ended with status 3; another is started in (\S+) s")

DIES_AT_START = """
import sys
from ldappolicy.cli import main
if "--control" in sys.argv:
    sys.exit(3)
main()
"""


def test_workers_that_die_at_start(tmp_path: Path) -> None:
    """They are started ever more slowly."""
    config = tmp_path / "config.toml"
    config.write_text(toml(merged(EXAMPLE, TWO, {"server": {"listen": [f"unix:{tmp_path}/policy"]}})))
    command = [sys.executable, "-c", DIES_AT_START, "-c", str(config), "serve"]
    log = tmp_path / "log"
    with log.open("wb") as file, subprocess.Popen(command, stderr=file, stdin=subprocess.DEVNULL) as process:
        try:
            wait_until(lambda: len(PAUSES.findall(log.read_text())) == 3, DEADLINE)
        finally:
            process.terminate()
        assert 0 == process.wait(DEADLINE)
    assert ["0.2", "0.4", "0.8"] == PAUSES.findall(log.read_text())[:3]


ABSENT = "ou=policy,dc=example,dc=com: no policy named 'absent', expected a smtpdPolicy with that cn"

REFUSED = [
    (
        {"policy": {"name": "absent"}},
        f"ldappolicy: {ABSENT}",
    ),
    (
        {"server": {"listen": ["inet:192.0.2.1:1"]}},
        "ldappolicy: cannot listen on inet:192.0.2.1:1: cannot assign requested address",
    ),
    (
        {"web": {"listen": "192.0.2.1:1"}},
        "ldappolicy: [web] listen: cannot listen on 192.0.2.1:1: cannot assign requested address",
    ),
]


@pytest.mark.parametrize(("sections", "line"), REFUSED)
def test_a_configuration_that_no_worker_starts_with(tmp_path: Path, sections: Sections, line: str) -> None:
    """Ends the service, with its line said once."""
    config = tmp_path / "config.toml"
    there: Sections = {"server": {"listen": [f"unix:{tmp_path}/policy"]}}
    config.write_text(toml(merged(EXAMPLE, TWO, there, sections)))
    command = [sys.executable, "-m", "ldappolicy", "-c", str(config), "serve"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=False)
    assert (78, [line]) == (ran.returncode, [said for said in ran.stderr.splitlines() if "info:" not in said])
    assert not (tmp_path / "policy").exists()


# ---------------------------------------------------------------- SIGHUP


def test_configuration_of_all(two: Ldappolicy) -> None:
    """A good one is in force in every worker, a bad one in none, not even in those that start later."""
    stranger = {"sender": "stranger@elsewhere.example", "recipient": "all@my.domain"}
    good = two.sections
    assert {"reject,"} == {two.ask(**stranger) for _ in range(10)}
    two.configure(merged(two.sections, {"policy": {"name": "exercise"}}))
    two.hang_up()
    two.wait_for_log("configuration in force in every worker")
    assert {"DUNNO"} == {two.ask(**stranger) for _ in range(10)}
    two.configure(merged(two.sections, {"policy": {"name": "absent"}}))
    two.hang_up()
    two.wait_for_log("configuration refused, the old one stays: .*no policy named 'absent'")
    before = two.workers()
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    wait_for_both(two, before)
    assert {"DUNNO"} == {two.ask(**stranger) for _ in range(10)}
    assert 1 == len(two.log("configuration refused"))
    two.configure(good)
    two.hang_up()
    two.wait_for_log("configuration in force in every worker", 2)


def test_worker_count() -> None:
    """As many as is said, or one for each core that this process may use."""
    cores = len(os.sched_getaffinity(0))
    assert [3, cores] == [worker_count(Config(server=Server(workers=count))) for count in (3, 0)]


# ---------------------------------------------------------------- the channel


def test_channel() -> None:
    """Messages arrive whole and in order, whatever text is in them, until the other end is gone."""

    async def talk() -> None:
        ends = [await Channel.over(end) for end in socket.socketpair()]
        sent: list[dict[str, object]] = [{"say": "x" * 300_000}, {"say": "\udcff\n\0", "turn": 1}, {}]
        for message in sent:
            ends[0].send(**message)
        await ends[0].finish()
        assert sent == [message async for message in ends[1].messages()]
        ends[1].send(say="nobody hears it")
        await ends[1].finish()

    asyncio.run(talk())


def test_channel_that_is_not_read() -> None:
    """Whoever does not read is cut off, and what waits for him is bounded."""

    async def talk() -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            channel = await Channel.over(ours)
            for _ in range(100):
                channel.send(say="x" * (MOST_UNREAD // 10))
            assert [] == [message async for message in channel.messages()]

    asyncio.run(talk())
