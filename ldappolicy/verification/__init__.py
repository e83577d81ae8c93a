"""A main.cf and its policy asked the same: what `ldappolicy import --verify` counts.

Each question (`questions`) is put to two smtpd of one private Postfix: `native` has the lists, classes and
tables of the main.cf, `ours` has calls of the real service over the imported entries, one from each list.
What the service leaves to Postfix is evaluated there. Accept or refuse, temporary or permanent are compared
exactly, and so are HOLD and its like, by what smtpd logs. Code and text are compared where nothing was left
to Postfix: there the text of a refusal may be given up, and it is counted apart.

What differs is asked again, three times in all: an address that Postfix verifies
(reject_unverified_sender) is deferred until it has been.

BUGS: smtpd does not log PREPEND, so it is not compared.
"""

import re
import select
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Self

from ldappolicy.address import is_routed
from ldappolicy.errors import InputError, OracleError
from ldappolicy.main_cf import MainCf
from ldappolicy.oracle.postfix import NotStarted, Postfix
from ldappolicy.oracle.programs import DEADLINE
from ldappolicy.oracle.replies import effective, is_of_address, parts, says
from ldappolicy.oracle.smtp import Session
from ldappolicy.policy import LISTS, PARAMETERS
from ldappolicy.verification.native import NATIVE, OURS, calls, of_this_host, parameters, records
from ldappolicy.verification.ours import Ours, Records
from ldappolicy.verification.questions import Question, can_be_asked, keys_of, questions
from ldappolicy.vocabulary import MAY_DEFER

SEED = 1
"""The same main.cf is asked the same questions in the same order."""

MOST = 20_000
"""Questions of one run: each has a port of its own, three times over."""

_ROUNDS = 3
_SETTLES = 0.3  # seconds until a verification that was under way has ended
_EFFECT = re.compile(
    r"/(?P<service>native|ours)/smtpd\[\d+\]: \S+ (?P<what>hold|discard|filter|redirect|bcc|prepend): \S+ "
    r"from \S*\]:(?P<number>\d+): [^;]*?(?:triggers (?P<action>[^;]*))?;"
)

Step = tuple[str, str]
"""A command and its reply."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A question, and the first command of it that Postfix and the policy answer differently."""

    question: Question
    command: str
    native: str
    ours: str
    why: str = ""
    """What the service logs where it answers with a server configuration error."""

    def __str__(self) -> str:
        said = f"{self.question}: {self.command}: Postfix {self.native!r}, ldappolicy {self.ours!r}"
        return f"{said} ({self.why})" if self.why else said


BROKEN = "connection"
"""The step at which a connection broke, on either side: it never counts as the same."""


@dataclass(slots=True)
class Report:
    """How many questions, of how many keys; `unmet` keys had no turn; `apart` differ as they may.

    `unasked` are keys that SMTP has no way to say.
    """

    asked: int
    keys: int
    differences: list[Difference] = field(default_factory=list)
    apart: int = 0
    unasked: tuple[str, ...] = ()

    @property
    def unmet(self) -> int:
        """Keys without a question of their own."""
        return max(0, self.keys - self.asked)


def verify(
    main: MainCf,
    imported: Records,
    policy_base: str,
    policy: str,
    count: int,
    progress: Callable[[], None] = lambda: None,
) -> Report:
    """Asks `count` questions; `progress` is called after each.

    Raises InputError for a main.cf that Postfix refuses, or entries that cannot be served, OracleError
    when Postfix cannot be run or does not answer.
    """
    main = of_this_host(main)
    imported = list(imported)
    lists = list(_lists(main, imported))
    named = keys_of(main)
    keys = [key for key in named if can_be_asked(key)]
    asked = list(islice(questions(keys, main.get("recipient_delimiter"), SEED), count))
    with ExitStack() as stack:
        ours = stack.enter_context(Ours(imported, policy_base, policy))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ldappolicy-")))
        # The tables are nobody else's business than smtpd's.
        folder.chmod(0o700)
        shutil.chown(folder, "postfix")
        smtpd = {NATIVE: {}, OURS: calls(ours.address, policy, lists)}
        postfix = Postfix(smtpd, parameters(main, folder), records(main, keys))
        try:
            stack.enter_context(postfix)
        except NotStarted as problem:
            raise InputError(f"Postfix refuses this main.cf: {problem}") from None
        _wait_for_greetings(postfix)
        with_message = not {"data", "end_of_data"}.isdisjoint(lists)
        with _Comparison(postfix, ours, with_message) as comparison:
            unasked = tuple(key.text for key in named if not can_be_asked(key))
            report = Report(len(asked), len(keys), unasked=unasked)
            try:
                comparison.run(asked, report, progress)
            except OSError as problem:
                raise OracleError(f"the comparison broke off: {problem.strerror or problem}") from problem
    return report


def _wait_for_greetings(postfix: Postfix) -> None:
    """Until both smtpd speak; raises InputError where one ends instead, as it says why in its log alone."""
    for name in (NATIVE, OURS):
        with socket.create_connection(("127.0.0.1", postfix.ports[name])) as greeted:
            deadline = time.monotonic() + DEADLINE
            while not select.select([greeted], [], [], 0.05)[0]:
                if fatal := postfix.log(f"/{name}/smtpd.*: (fatal|panic): "):
                    said = re.sub("^.*?: (fatal|panic): ", "", fatal[0])
                    raise InputError(f"Postfix refuses this main.cf: {said}")
                if time.monotonic() > deadline:
                    raise OracleError(f"smtpd {name!r} has not greeted within {DEADLINE:g} seconds")


def _lists(main: MainCf, imported: Records) -> Iterator[str]:
    """The lists that decide anything, there or here."""
    present = {attribute for _, attributes in imported for attribute in attributes}
    for name, attribute in LISTS.items():
        if attribute in present or main.get(PARAMETERS[name]).strip():
            yield name


class _Comparison:
    """Asks both smtpd, and holds their answers together; a context manager."""

    def __init__(self, postfix: Postfix, ours: Ours, with_message: bool) -> None:
        self._ours = ours
        self._postfix = postfix
        self._smtpd = {name: _Smtpd(postfix, name, with_message) for name in (NATIVE, OURS)}
        self._number = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for smtpd in self._smtpd.values():
            smtpd.hang_up()

    def run(self, asked: Iterable[Question], report: Report, progress: Callable[[], None]) -> None:
        """Fills the report: what differs three times differs."""
        for found in self._round(asked, progress):
            if isinstance(found, Difference):
                report.differences.append(found)
            else:
                report.apart += found
        for _ in range(1, _ROUNDS):
            if not report.differences:
                return
            time.sleep(_SETTLES)
            again = [difference.question for difference in report.differences]
            outcomes = list(self._round(again, lambda: None))
            report.differences = [found for found in outcomes if isinstance(found, Difference)]
            report.apart += sum(found for found in outcomes if isinstance(found, bool))

    def _round(self, asked: Iterable[Question], progress: Callable[[], None]) -> Iterator[Difference | bool]:
        """What came of each question: a difference, or whether there is one that may be."""
        compared: dict[int, tuple[Question, Difference | bool]] = {}
        for question in asked:
            self._number += 1
            native = self._smtpd[NATIVE].ask(question, self._number)
            self._ours.forget()
            ours = self._smtpd[OURS].ask(question, self._number)
            found = compare(question, native, ours, self._ours.left)
            if isinstance(found, Difference):
                found = replace(found, why=self._ours.errors())
            compared[self._number] = question, found
            progress()
        effects = self._effects()
        for number, (question, found) in compared.items():
            acted = effects.get((NATIVE, number), ""), effects.get((OURS, number), "")
            if found is False and acted[0] != acted[1]:
                found = Difference(question, "the message", acted[0] or "no action", acted[1] or "no action")
            yield found

    def _effects(self) -> dict[tuple[str, int], str]:
        """The actions on messages by service and question, of the log when it is complete."""
        for smtpd in self._smtpd.values():
            smtpd.hang_up()
            # What smtpd replied to it has logged before: behind this connection there is nothing more.
            with socket.create_connection(("127.0.0.1", self._postfix.ports[smtpd.name])) as last:
                port = last.getsockname()[1]
            self._postfix.wait_for_log(rf"/{smtpd.name}/smtpd\[\d+\]: disconnect from \S*\]:{port}\b")
        found: dict[tuple[str, int], list[str]] = {}
        for line in self._postfix.log("/smtpd"):
            if match := _EFFECT.search(line):
                key = match["service"], int(match["number"])
                found.setdefault(key, []).append(match["action"] or match["what"])
        return {key: ", ".join(sorted(effective(actions))) for key, actions in found.items()}


# ---------------------------------------------------------------- one smtpd


class _Smtpd:
    """One service: its session, opened again when it hung up."""

    def __init__(self, postfix: Postfix, name: str, with_message: bool) -> None:
        self.name = name
        self._postfix = postfix
        self._with_message = with_message
        self._session: Session | None = None

    def ask(self, question: Question, number: int) -> list[Step]:
        """The commands of one question and their replies, as far as they go."""
        steps: list[Step] = []
        session = self._open()
        try:
            for command, reply in self._dialogue(session, question, number):
                steps.append((command, reply.partition("\n")[0] if command == "EHLO" else reply))
                if not reply or reply.startswith(("421", "521")):
                    self.hang_up()
                    break
        except OSError as problem:
            steps.append((BROKEN, str(problem)))
            self.hang_up()
        return steps

    def hang_up(self) -> None:
        """End the session, if there is one."""
        if self._session is not None:
            self._session.close()
        self._session = None

    def _open(self) -> Session:
        if self._session is None:
            self._session = self._postfix.session(self.name)
            self._session.ehlo("localhost")
        return self._session

    def _dialogue(self, session: Session, question: Question, number: int) -> Iterator[Step]:
        reply = session.try_xclient(**_identity(question, number))
        yield "XCLIENT", reply
        if not reply.startswith("220"):
            self.hang_up()  # whom smtpd refuses once gets nothing else
            return
        if question.helo is not None:
            reply = session.ehlo(question.helo)
            yield "EHLO", reply
        if reply[:1] != "2":
            return
        if question.etrn:
            yield "ETRN", session.command(f"ETRN {question.etrn}")
        utf8 = "" if (question.sender + question.recipient).isascii() else "SMTPUTF8"
        reply = session.mail(question.sender, utf8)
        yield "MAIL", reply
        if not reply.startswith("250"):
            return
        reply = session.rcpt(question.recipient)
        yield "RCPT", reply
        if self._with_message and reply.startswith("250"):
            reply = session.data()
            yield "DATA", reply
        if self._session is not None:
            session.rset()


def _identity(question: Question, number: int) -> dict[str, str]:
    """XCLIENT attributes; without LOGIN nobody is logged in."""
    client = question.client
    found = {
        "name": client.name or "[UNAVAILABLE]",
        "reverse_name": client.reverse or "[UNAVAILABLE]",
        "addr": client.address,
        "port": str(number),
    }
    return {**found, "login": question.login} if question.login else found


# ---------------------------------------------------------------- comparing


def compare(
    question: Question, native: list[Step], ours: list[Step], left: Callable[[], frozenset[str]]
) -> Difference | bool:
    """What differs, or whether something does that may; `left` says what was left to Postfix."""
    apart = False
    for (command, was), (other, now) in zip(native, ours, strict=False):
        if command != other:
            return Difference(question, f"{command}/{other}", was, now)
        if command == BROKEN:
            return Difference(question, command, was, now)
        if says(was) == says(now):
            continue
        if not _may_differ(question, was, now, left):
            return Difference(question, command, was, now)
        apart = True
    if len(native) != len(ours):
        last = (native if len(native) > len(ours) else ours)[-1]
        both = (last[1], "") if len(native) > len(ours) else ("", last[1])
        return Difference(question, last[0], *both)
    return apart


ERROR = ("451", "4.3.5")
"""A server configuration error."""


def _may_differ(question: Question, was: str, now: str, left: Callable[[], frozenset[str]]) -> bool:
    """Where code and text may differ, and where an address is checked in a second form."""
    before, after = parts(was), parts(now)
    if after[:2] == ERROR != before[:2]:
        return False
    if after[0][:1] in ("4", "5") and is_routed(question.recipient):
        return True  # what is refused as it stands is refused, whatever Postfix makes of it
    if before[0][:1] not in ("4", "5") or after[0][:1] not in ("4", "5"):
        return False
    if before[0] == after[0] and before[2] == after[2]:
        return is_of_address(before[1]) and is_of_address(after[1])
    names = left()
    if "User unknown" in now and names & MAY_DEFER:
        return True
    return bool(names) and before[0][0] == after[0][0]
