"""A worker is killed while requests are in its hands: these alone are lost, none is answered wrongly."""

import array
import fcntl
import os
import signal
import termios
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from tests.abuse.resources import ON_DEMAND, QUIET, directory
from tests.abuse.scene import DUNNO, PASSED, QUESTIONS, Client, Row, others, request, until
from tests.labs.ldappolicy import Ldappolicy, merged


@dataclass(slots=True)
class _Load:
    """Clients as Postfix's: a connection that is closed is opened anew, and the request sent once more."""

    service: Ldappolicy
    right: int = 0
    again: int = 0
    wrong: list[bytes] = field(default_factory=list)
    failed: list[OSError] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def run(self) -> None:
        """One client, until the load is ended."""
        client = Client(self.service)
        right = again = 0
        try:
            while not self.ended.is_set():
                question, expected = QUESTIONS[right % 2]
                try:
                    reply = client.ask(question)
                except BrokenPipeError:
                    reply = b""
                if not reply:
                    again += 1
                    client.close()
                    client = Client(self.service)
                    continue
                if reply != expected:
                    self.wrong.append(reply)
                right += 1
        except OSError as error:
            self.failed.append(error)
        finally:
            client.close()
        with self.lock:
            self.right += right
            self.again += again


def killed_worker(clients: int = 40, kills: int = 3) -> Row:
    """SIGKILL of workers: under load, and with requests in hand that wait for the directory."""
    with directory() as slapd:
        sections = merged(QUIET, ON_DEMAND, {"directory": {"uri": [slapd.uri], "timeout": "20s"}})
        sections = merged(sections, {"server": {"workers": 2, "request_timeout": "20s"}})
        with Ldappolicy(sections) as service:
            until(lambda: _both_serve(service))
            load, took = _under_load(service, min(clients, 16), kills)
            until(lambda: _both_serve(service))
            slapd.suspend()
            lost, answered = _with_requests_in_hand(service, slapd.resume, clients)
            until(lambda: _both_serve(service))
            seen = others(service)
            assert service.stop() == 0
    assert not load.wrong
    assert not load.failed
    assert load.again <= kills * min(clients, 16)
    return Row(
        "SIGKILL of one of two workers",
        f"{kills} times under load, then with {clients} requests in hand that waited for the directory",
        f"{load.right} requests right, {load.again} asked again on a new connection, 0 wrong, 0 lost, "
        f"another worker after {took:.1f} s; of those in hand {answered} answered by the other one, "
        f"{lost} asked again and answered; {seen}",
    )


def _under_load(service: Ldappolicy, clients: int, kills: int) -> tuple[_Load, float]:
    load = _Load(service)
    threads = [threading.Thread(target=load.run) for _ in range(clients)]
    for thread in threads:
        thread.start()
    slowest = 0.0
    try:
        for _ in range(kills):
            slowest = max(slowest, _kill_one(service))
    finally:
        load.ended.set()
        for thread in threads:
            thread.join()
    return load, slowest


def _kill_one(service: Ldappolicy) -> float:
    """Kills a worker; seconds until there is another in its place."""
    before = service.workers()
    start = time.monotonic()
    os.kill(before[0], signal.SIGKILL)
    until(lambda: len(service.workers()) == 2 and before[0] not in service.workers())
    return time.monotonic() - start


def _both_serve(service: Ldappolicy) -> bool:
    """Whether each of two workers answers while the other is stopped."""
    workers = service.workers()
    return len(workers) == 2 and all(_answers_without(service, worker) for worker in workers)


def _answers_without(service: Ldappolicy, stopped: int) -> bool:
    with _stopped(stopped), Client(service) as client:
        client.socket.settimeout(0.2)
        try:
            return client.ask(PASSED) == DUNNO
        except TimeoutError:
            return False


@contextmanager
def _stopped(worker: int) -> Iterator[None]:
    """Not for long: a worker without a sign of life is killed after some seconds."""
    os.kill(worker, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(worker, signal.SIGCONT)


def _unread(client: Client) -> int:
    """How much of what was sent has not been read yet; unix(7), SIOCOUTQ."""
    octets = array.array("i", [0])
    fcntl.ioctl(client.socket, termios.TIOCOUTQ, octets)
    return octets[0]


def _with_requests_in_hand(service: Ldappolicy, resume: Callable[[], None], clients: int) -> tuple[int, int]:
    """How many requests were lost with the worker, and how many were answered by the other."""
    asked = [
        request(sender="a@b.example", recipient=f"nobody{number}@my.domain") for number in range(clients)
    ]
    victim, other = service.workers()
    with ExitStack() as opened:
        doomed = [opened.enter_context(client) for client in _held_by(service, other, asked[::2])]
        safe = [opened.enter_context(client) for client in _held_by(service, victim, asked[1::2])]
        os.kill(victim, signal.SIGKILL)
        resume()
        assert all(client.is_closed() for client in doomed)
        assert [DUNNO] * len(safe) == [client.reply() for client in safe]
    for question in asked[::2]:
        with Client(service) as client:
            assert client.ask(question) == DUNNO
    return len(doomed), len(safe)


def _held_by(service: Ldappolicy, stopped: int, asked: Sequence[bytes]) -> list[Client]:
    """Connections whose requests are in the hands of whoever is not stopped meanwhile."""
    with _stopped(stopped):
        clients = [Client(service) for _ in asked]
        for client, question in zip(clients, asked, strict=True):
            client.send(question)
        until(lambda: not any(map(_unread, clients)))
    return clients
