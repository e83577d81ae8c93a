"""Mail from several clients at once that knows what becomes of it, and loses nothing: as an MTA sends.

    with Load(stack) as load:
        load.more(100)          # that many more recipients have been settled
        ...
    assert load.tally == ...    # what was put off has been tried again until it was accepted or refused

A recipient is settled by 5xx, or by 2xx once the message has been taken; 4xx and a lost connection put it
off.
"""

import itertools
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from ldappolicy.errors import OracleError
from tests.labs.slapd import wait_until
from tests.stack.stack import Stack

CLIENTS = 6
PAUSE = 0.01
"""Seconds between two messages of a client, and before it tries again: load, not a stampede."""
PATIENCE = 120.0
"""Seconds after which a recipient that was put off counts as unanswered."""


@dataclass(frozen=True)
class Mail:
    """One message; `takes` and `refuses` are its recipients by what they have to be answered."""

    login: str
    sender: str
    takes: tuple[str, ...] = ()
    refuses: tuple[str, ...] = ()


# The example company: README's recipes 3 to 6.
MAILS = (
    Mail("", "stranger@elsewhere.example", takes=("bob", "joe"), refuses=("all", "team", "press")),
    Mail("", "joe@my.domain", takes=("all", "club"), refuses=("team", "board")),
    Mail("", "amy@my.domain", takes=("all",), refuses=("team",)),
    Mail("", "pat@partner.example", takes=("all", "club", "mia@other.example"), refuses=("press",)),
    Mail("amy", "amy@my.domain", takes=("team", "all"), refuses=("friend@elsewhere.example", "board")),
    Mail("bob", "bob@my.domain", takes=("team",), refuses=("friend@elsewhere.example",)),
    Mail("carol", "carol@my.domain", takes=("team", "bob"), refuses=("friend@elsewhere.example", "board")),
    Mail("dave", "dave@my.domain", takes=("friend@elsewhere.example",), refuses=("team",)),
    Mail("erin", "erin@my.domain", takes=("mia",), refuses=("friend@elsewhere.example",)),
    Mail("mia", "mia@my.domain", takes=("board", "press", "friend@elsewhere.example"), refuses=("team",)),
    Mail("ned", "ned@my.domain", takes=("friend@elsewhere.example",), refuses=("board", "press")),
    Mail("pat", "pat@partner.example", takes=("press", "club"), refuses=("team",)),
    Mail("eve", "eve@partner.example", takes=("all",), refuses=("press",)),
)


@dataclass
class Tally:
    """What became of the recipients that were sent; all but `deferred`, which counts tries."""

    sent: int = 0
    right: int = 0
    wrong: list[str] = field(default_factory=list)
    unanswered: list[str] = field(default_factory=list)
    deferred: Counter[str] = field(default_factory=Counter)
    """How often each temporary reply was given; a lost connection is an empty one."""
    delivered: Counter[str] = field(default_factory=Counter)
    """Recipients of messages that were taken."""


class Load:
    """CLIENTS threads that send MAILS, each in its own order, until the end of the block."""

    def __init__(self, stack: Stack) -> None:
        self.tally = Tally()
        self._stack = stack
        self._delivered_before = stack.delivered()
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._client, args=(number,)) for number in range(CLIENTS)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def more(self, count: int) -> None:
        """Return when that many more recipients are settled."""
        enough = self.tally.right + count
        try:
            wait_until(lambda: self.tally.right >= enough or self.tally.wrong, PATIENCE)
        except TimeoutError as error:
            raise AssertionError(f"put off: {self.tally.deferred}") from error

    def delivered(self) -> Counter[str]:
        """How often Postfix has delivered to each recipient of MAILS since the load began."""
        more = self._stack.delivered() - self._delivered_before
        ours = {recipient for mail in MAILS for recipient, _ in expected(mail)}
        return Counter({recipient: count for recipient, count in more.items() if recipient in ours})

    def _client(self, number: int) -> None:
        for mail in itertools.islice(itertools.cycle(MAILS), number * 2, None):
            if self._ended.is_set():
                return
            self._deliver(mail)

    def _deliver(self, mail: Mail) -> None:
        """Send it until each recipient is settled."""
        due = dict(expected(mail))
        with self._lock:
            self.tally.sent += len(due)
        deadline = time.monotonic() + PATIENCE
        while due and time.monotonic() < deadline:
            try:
                self._settle(mail, due, attempt(self._stack, mail, list(due)))
            except (OSError, OracleError) as problem:
                self._put_off(str(problem))
            time.sleep(PAUSE)
        with self._lock:
            self.tally.unanswered += [f"{mail.sender} to {recipient}" for recipient in due]

    def _settle(self, mail: Mail, due: dict[str, str], replies: dict[str, str]) -> None:
        """Take out of `due` what was answered for good."""
        for recipient, reply in replies.items():
            if reply[:1] not in ("2", "5"):
                self._put_off(reply)
                continue
            with self._lock:
                self.tally.delivered[recipient] += reply[:1] == "2"
                if reply[:1] == due.pop(recipient):
                    self.tally.right += 1
                else:
                    self.tally.wrong.append(f"{mail.login!r} as {mail.sender} to {recipient}: {reply}")

    def _put_off(self, reply: str) -> None:
        with self._lock:
            self.tally.deferred[re.sub(r"<[^>]*>: ", "", reply)] += 1


def expected(mail: Mail) -> Iterator[tuple[str, str]]:
    """Each recipient, whole, and the first digit of its reply."""
    for recipients, digit in ((mail.takes, "2"), (mail.refuses, "5")):
        for recipient in recipients:
            yield (recipient if "@" in recipient else f"{recipient}@my.domain"), digit


def attempt(stack: Stack, mail: Mail, recipients: list[str]) -> dict[str, str]:
    """One session: the reply to each recipient; where it was rightly a 2xx, the reply to the message."""
    with stack.session() as smtp:
        smtp.ehlo()
        if mail.login and not (reply := smtp.auth(mail.login)).startswith("235"):
            return dict.fromkeys(recipients, f"4xx for us: AUTH: {reply}")
        if not (reply := smtp.mail(mail.sender)).startswith("250"):
            return dict.fromkeys(recipients, f"4xx for us: MAIL: {reply}")
        replies = {recipient: smtp.rcpt(recipient) for recipient in recipients}
        accepted = [recipient for recipient, reply in replies.items() if reply.startswith("250")]
        if accepted:
            said = smtp.data()
            replies |= {one: said for one, digit in expected(mail) if one in accepted and digit == "2"}
        smtp.quit()
        return replies
