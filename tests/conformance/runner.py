"""Pairs run twice through real Postfix: natively, and through ldappolicy; and what is the same.

One Postfix and one `ldappolicy serve` for all pairs. Every smtpd process serves one session (max_use) and
reads main.cf when it starts, so the next pair is a new main.cf, new tables and a SIGHUP. Three smtpd run
the same session:

* `native`: the lists, classes and tables in main.cf;
* `once`: one call of the policy from smtpd_recipient_restrictions (and one each from the data,
  end-of-data and etrn restrictions);
* `each`: the policy called from each list that it has (NAME/LIST).

Compared are replies (`ldappolicy.oracle.replies`) and what smtpd logs of HOLD and its like, step by step.
What may differ, and how it is counted, is in `Difference`.
"""

import re
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import Self

from ldappolicy.address import is_routed
from ldappolicy.oracle.postfix import Postfix
from ldappolicy.oracle.programs import make_old
from ldappolicy.oracle.replies import effective, is_of_address, parts, says
from ldappolicy.oracle.smtp import Session as Smtp
from ldappolicy.vocabulary import LEFT_TO_POSTFIX, MAY_DEFER, Residue
from tests.conformance import BASE, POLICY_BASE
from tests.conformance.pairs import DNS, LISTS, SERVFAIL, SITE_MAIN, Native, Pair, entries
from tests.labs.ldappolicy import Ldappolicy, merged

DEADLINE = 180.0
POLICY = "pair"
REFUSED = ("4", "5")
HUNG_UP = ("421", "521")
"""Replies behind which smtpd ends the connection."""

CONFIGURATION_ERROR = ("451", "4.3.5", "Server configuration error")

# What smtpd says of an action on the message, by the recipient's command (smtpd_check.c, log_whatsup).
EFFECT = re.compile(
    r": (?P<what>hold|discard|filter|redirect|bcc|prepend|reject): (?P<state>\S+) from [^;]*?"
    r"(?:triggers (?P<action>[^;]*))?; (?:from=<(?P<sender>[^>]*)>)? ?(?:to=<(?P<recipient>.*?)> proto)?"
)
CANNOT = re.compile(r"one reply cannot say (?P<what>.*) \((?P<left>[^()]*|.*?)\) \((?:queue_id|state)=")


DIRECTORY: dict[str, str | int | bool | list[str]] = {
    "uri": ["ldif:tree.ldif"],
    "watch": "off",
    "search_base": BASE,
    "policy_base": POLICY_BASE,
}


class Ending(Enum):
    """How Postfix by itself ended a command about a recipient, a sender or a message."""

    PERMIT = "permit"
    REJECT = "reject"
    DEFER = "defer"
    HELD = "held or another action on the message"
    ERROR = "configuration error"


class Difference(Enum):
    """Why a step may differ."""

    CANNOT_SAY = "one reply cannot say it"
    TEXT = "the text or code of a refusal gave way to what is left to Postfix"
    PLACES = "refusals left to Postfix in several lists changed places"
    X_1_Y = "an x.1.y code of an address, mapped to the list that called"
    ROUTED = "a recipient with routing in its local part is checked as it stands as well"
    UNLISTED = "a permit at the end was dropped: its DNS failure does not soften that a recipient is unknown"
    CARRIED = "called once per list, a list does not know that an earlier one deferred"
    VRFY = "at VRFY without a sender Postfix forgets what the client and helo lists deferred"
    REFUSED = "an action on the message by a recipient that was refused"


@dataclass(frozen=True)
class Step:
    """A command, its reply, and what ldappolicy wrote to its log about it."""

    command: str
    reply: str
    log: tuple[str, ...] = ()


@dataclass(frozen=True)
class Run:
    """All steps of a session at one smtpd, and the actions on the message by accepted recipient."""

    steps: tuple[Step, ...]
    effects: dict[str, frozenset[str]]
    refused: frozenset[str]
    """Who had an action on the message and was refused all the same."""


@dataclass
class Outcome:
    """What came of a pair: the endings, what may differ, and what must not."""

    pair: Pair
    endings: list[Ending] = field(default_factory=list)
    apart: list[tuple[Difference, str]] = field(default_factory=list)
    differs: list[str] = field(default_factory=list)


class Runner:
    """One Postfix, one service; a context manager."""

    def __init__(
        self,
        main: Mapping[str, str] | None = None,
        built: Path | None = None,
    ) -> None:
        """`main` is more for main.cf; `built` a folder with another Postfix (`ldappolicy.oracle.postfix`)."""
        self._built = built
        self._stack = ExitStack()
        self._more = main or {}

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.postfix = Postfix(
                dict(self._smtpds()), {**SITE_MAIN, **self._more}, DNS, SERVFAIL, self._built
            )
            stack.enter_context(self.postfix)
            self._main = (self.postfix.etc / "main.cf").read_text()
            self._mail = stack.enter_context(closing(_Tail(self.postfix.folder / "mail.log")))
            self.service, self._ours = stack.enter_context(serving())
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @contextmanager
    def served_by(self, *command: str) -> Iterator[None]:
        """That program runs in the place of ldappolicy until the end of the block."""
        own = self.service, self._ours
        with serving(*command) as (self.service, self._ours):
            try:
                yield
            finally:
                self.service, self._ours = own

    def _smtpds(self) -> Iterator[tuple[str, dict[str, str]]]:
        """The three smtpd; what a pair says stands in main.cf under names of its own."""
        always = {"max_use": "1"}
        native = {f"smtpd_{name}_restrictions": f"$native_{name}" for name in LISTS}
        yield "native", {**always, **native, "smtpd_restriction_classes": "$native_classes"}
        for service in ("once", "each"):
            own = {f"smtpd_{name}_restrictions": f"${service}_{name}" for name in LISTS}
            yield service, {**always, **own}

    # --- one pair ---------------------------------------------------------------------------------

    def run(self, pair: Pair) -> Outcome:
        """Puts a pair in force, runs its session everywhere, and compares."""
        self._put(pair)
        outcome = Outcome(pair)
        native = self._session("native", pair)
        outcome.endings = list(endings(native))
        if pair.delay_reject:
            Comparison(outcome, native, self._session("once", pair), once=True).compare()
        Comparison(outcome, native, self._session("each", pair), once=False).compare()
        return outcome

    def _put(self, pair: Pair) -> None:
        write_tree(self.service, entries(pair, POLICY))
        self._ours.skip()
        self.service.hang_up()
        folder = self.postfix.etc / "tables"
        folder.mkdir(exist_ok=True)
        native = Native(pair, str(folder))
        parameters = native.parameters()
        for called, rows in native.files.items():
            (folder / called).write_text("".join(f"{key} {value}\n" for key, value in rows), "utf-8")
        main = {**parameters, **self._calls(pair)}
        new = self.postfix.etc / "main.cf.new"
        new.write_text(self._main + "".join(f"{key} = {value}\n" for key, value in main.items()), "utf-8")
        new.replace(self.postfix.etc / "main.cf")
        make_old(*folder.iterdir(), self.postfix.etc / "main.cf")
        self._wait_for_policy()

    def _calls(self, pair: Pair) -> dict[str, str]:
        """The lists of `once` and `each`. `reject_rbl_client reject`: see `pairs.Native`."""
        found = dict.fromkeys((f"{one}_{name}" for one in ("once", "each") for name in LISTS), "")
        for name, text in pair.lists.items():
            if text:
                found[f"each_{name}"] = self._call(f"{POLICY}/{name}")
        for name in ("recipient", "data", "end_of_data", "etrn"):
            found[f"once_{name}"] = self._call(POLICY)
        for one in ("once", "each"):
            found[f"{one}_relay"] = f"reject_rbl_client reject, {found[f'{one}_relay']}"
        return found

    def _call(self, context: str) -> str:
        return f"check_policy_service {{ {self.service.inet}, timeout=180s, policy_context={context} }}"

    def _wait_for_policy(self) -> None:
        lines: list[str] = []
        deadline = time.monotonic() + DEADLINE
        while not any("configuration in force" in line for line in lines):
            if time.monotonic() > deadline or any("refused" in line for line in lines):
                raise AssertionError(f"the policy is not in force: {lines}")
            time.sleep(0.001)
            lines += self._ours.new()
        faults = [line for line in lines if line.startswith(("error:", "warning:"))]
        if faults:
            raise AssertionError(f"not a policy: {faults}")

    def connect(self, service: str) -> Smtp:
        """A connection to one of the three smtpd."""
        return self.postfix.session(service)

    def _session(self, service: str, pair: Pair) -> Run:
        self._mail.skip()
        steps: list[Step] = []
        try:
            with self.connect(service) as smtp:
                steps.append(Step("banner", smtp.banner))
                hung_up = smtp.banner.startswith(HUNG_UP)
                for command, reply in () if hung_up else dialogue(smtp, pair):
                    steps.append(Step(command, reply, tuple(self._told())))
                    if not reply or reply.startswith(HUNG_UP):
                        break
        except (ConnectionError, TimeoutError) as error:
            steps.append(Step("connection", repr(error), tuple(self.postfix.log("fatal|panic|error")[-3:])))
        lines = self._mail.until(rf"postfix/{service}/smtpd\[\d+\]: disconnect from")
        return Run(tuple(steps), *effects([line for line in lines if f"postfix/{service}/" in line]))

    def _told(self) -> list[str]:
        """What ldappolicy has logged, up to the decision of a request of our own, which comes last."""
        self.service.ask(protocol_state="CONNECT", instance=MARK)
        lines = self._ours.until(f"^decision: .*{MARK}")
        return [line for line in lines if MARK not in line]


MARK = "conformance-mark"


class _Tail:
    """The lines of a file that are new."""

    def __init__(self, path: Path) -> None:
        self._file = path.open(errors="replace")
        self._rest = ""

    def close(self) -> None:
        """No more of it."""
        self._file.close()

    def new(self) -> list[str]:
        """Those since the last time."""
        *lines, self._rest = (self._rest + self._file.read()).split("\n")
        return lines

    def skip(self) -> None:
        """Forget what has come."""
        self.new()

    def until(self, pattern: str) -> list[str]:
        """Those up to one that matches, when it has come."""
        lines: list[str] = []
        deadline = time.monotonic() + DEADLINE
        while True:
            new = self.new()
            lines += new
            if any(re.search(pattern, line) for line in new):
                return lines
            if time.monotonic() > deadline:
                raise AssertionError(f"nothing matches {pattern!r}: {lines[-5:]}")
            time.sleep(0.001)


EMPTY = (
    f"dn: {BASE}\nobjectClass: domain\ndc: test\n",
    f"dn: ou=policy,{BASE}\nobjectClass: organizationalUnit\nou: policy\n",
    f"dn: cn=default,{POLICY_BASE}\nobjectClass: smtpdPolicy\ncn: default\nsmtpdSenderRestrictions: permit\n",
)


@contextmanager
def serving(*command: str) -> Iterator[tuple[Ldappolicy, _Tail]]:
    """ldappolicy, or that program, with a tree of its own, and its log."""
    service = Ldappolicy({"directory": DIRECTORY}, command=command)
    try:
        write_tree(service, EMPTY)
        service.start()
        with closing(_Tail(service.folder / "stderr")) as log:
            yield service, log
    finally:
        service.remove()


def write_tree(service: Ldappolicy, records: Iterable[str]) -> None:
    """The tree that it reads when it is told to: another file than the last, of which no form is kept."""
    is_other = service.sections["directory"]["uri"] == ["ldif:other.ldif"]
    tree = service.folder / ("tree.ldif" if is_other else "other.ldif")
    tree.write_text("\n".join(records), "utf-8")
    service.configure(merged(service.sections, {"directory": {"uri": [f"ldif:{tree.name}"]}}))


def dialogue(smtp: Smtp, pair: Pair) -> Iterator[tuple[str, str]]:
    """Every command of the session that an answer can be compared for, and the answer."""
    session = pair.session
    # Refused with 521 there, it would be chance how the end of the connection is seen.
    yield "EHLO", smtp.ehlo("xclient.invalid").partition("\n")[0]
    said = {**session.client, **({"login": session.login} if session.login and session.helo is None else {})}
    reply = smtp.try_xclient(**said)
    yield "XCLIENT", reply
    if session.helo is not None and reply.startswith("220"):
        reply = smtp.ehlo(session.helo).partition("\n")[0]
        yield "EHLO", reply
    if reply[:1] != "2":
        return  # refused before there was anybody to refuse
    if session.login and session.helo is not None:
        yield "AUTH", smtp.auth(session.login)
    if session.vrfy:
        yield f"VRFY {session.vrfy}", smtp.command(f"VRFY {session.vrfy}")
    if session.etrn:
        yield f"ETRN {session.etrn}", smtp.command(f"ETRN {session.etrn}")
    for transaction in session.transactions:
        utf8 = not "".join((transaction.sender, *transaction.recipients)).isascii()
        reply = smtp.mail(transaction.sender, "SMTPUTF8" if utf8 else "")
        yield f"MAIL {transaction.sender}", reply
        accepted = 0
        for recipient in transaction.recipients if reply.startswith("250") else ():
            answer = smtp.rcpt(recipient)
            accepted += answer.startswith("250")
            yield f"RCPT {recipient}", answer
        if transaction.data and accepted:
            yield "DATA", smtp.data()
        elif reply.startswith("250"):
            smtp.rset()


def effects(lines: list[str]) -> tuple[dict[str, frozenset[str]], frozenset[str]]:
    """The actions on the message by recipient, of a session's log; and who was refused with one."""
    found: dict[str, list[str]] = {}
    refused = set()
    for line in lines:
        if (match := EFFECT.search(line)) is None:
            continue
        recipient = match["recipient"] or f"{match['state']} {match['sender'] or ''}"
        if match["what"] != "reject":
            found.setdefault(recipient, []).append(match["action"] or match["what"])
        elif found.pop(recipient, None):
            refused.add(recipient)
    told = {recipient: effective(actions) for recipient, actions in found.items()}
    return told, frozenset(refused)


def accepted(run: Run) -> dict[str, frozenset[str]]:
    """The actions on messages that there are: those at MAIL count only if a recipient was accepted."""
    senders: set[str] = set()
    sender = ""
    for step in run.steps:
        verb, _, argument = step.command.partition(" ")
        if verb == "MAIL":
            sender = argument
        elif verb == "RCPT" and step.reply.startswith("250"):
            senders.add(f"MAIL {sender}")
    return {key: value for key, value in run.effects.items() if key in senders or not key.startswith("MAIL ")}


def endings(run: Run) -> Iterator[Ending]:
    """How the commands ended that restrictions decide about."""
    for step in run.steps:
        verb, _, argument = step.command.partition(" ")
        if verb not in ("MAIL", "RCPT", "DATA", "VRFY", "ETRN", "EHLO", "XCLIENT", "banner"):
            continue
        code = step.reply[:1]
        if says(step.reply) == CONFIGURATION_ERROR:
            yield Ending.ERROR
        elif step.reply.startswith(REFUSED):
            yield Ending.REJECT if code == "5" else Ending.DEFER
        elif verb in ("RCPT", "VRFY", "ETRN"):
            yield Ending.HELD if run.effects.get(argument) else Ending.PERMIT


# --- comparing ----------------------------------------------------------------------------------------


class Comparison:
    """Two runs of a session, command by command, up to where they part."""

    def __init__(self, outcome: Outcome, native: Run, ours: Run, *, once: bool) -> None:
        self.outcome = outcome
        self.native = native
        self.ours = ours
        self.once = once
        self.residue = has_residue(outcome.pair)

    def compare(self) -> None:
        """Adds to the outcome what differs, and why it may."""
        for native, ours in zip(self.native.steps, self.ours.steps, strict=False):
            if native.command != ours.command:
                self._differs(native, ours)
                return
            if says(native.reply) != says(ours.reply) and not self._may(native, ours):
                return
        if len(self.native.steps) != len(self.ours.steps):
            self.outcome.differs.append(f"{self._name}: {self.native.steps} / {self.ours.steps}")
        elif accepted(self.native) != accepted(self.ours):
            self.outcome.differs.append(f"{self._name}: {accepted(self.native)} / {accepted(self.ours)}")

    @property
    def _name(self) -> str:
        return "once" if self.once else "each"

    def _may(self, native: Step, ours: Step) -> bool:
        """Notes a step that differs; whether the session can be followed further."""
        why, what = self._reason(native, ours)
        if why is None:
            self._differs(native, ours)
            return False
        self.outcome.apart.append((why, what))
        hung_up = any(step.reply.startswith(HUNG_UP) for step in (native, ours))
        return (
            native.reply[:1] == ours.reply[:1] and why in (Difference.TEXT, Difference.X_1_Y) and not hung_up
        )

    def _differs(self, native: Step, ours: Step) -> None:
        log = [re.sub(r" \(?(?:queue_id|state)=.*? action=", " action=", line) for line in ours.log]
        self.outcome.differs.append(
            f"{self._name}: {native.command}: {native.reply!r} / {ours.command}: {ours.reply!r} {log}"
        )

    def _reason(self, native: Step, ours: Step) -> tuple[Difference | None, str]:
        recipient = native.command.partition(" ")[2]
        if says(ours.reply) == CONFIGURATION_ERROR and (said := cannot_say(ours)):
            return Difference.CANNOT_SAY, said
        if self.native.refused - {recipient} and native.reply[:1] == "2":
            return Difference.REFUSED, ""
        (was, was_enhanced, _), (now, now_enhanced, _) = parts(native.reply), parts(ours.reply)
        refused = was.startswith(REFUSED) and now.startswith(REFUSED)
        if refused and was == now and is_of_address(was_enhanced) and is_of_address(now_enhanced):
            return Difference.X_1_Y, ""
        if self.residue and native.command.startswith("VRFY") and (was[:1], now[:1]) == ("2", "4"):
            return Difference.VRFY, ""
        closes = now.startswith(REFUSED) or any("action='DISCARD" in line for line in ours.log)
        if closes and is_routed(recipient):
            return Difference.ROUTED, ""
        if (was[:1], now[:1]) == ("4", "4") and not self.once and self._both_deferring():
            return Difference.CARRIED, ""
        if (
            refused
            and "User unknown" in ours.reply
            and any(one in self.outcome.pair.text for one in MAY_DEFER)
        ):
            return Difference.UNLISTED, ""
        if not refused or not self.residue:
            return None, ""
        if was[:1] == "4" and now[:1] == "5":
            return (
                (Difference.PLACES, "") if self.once and may_change_places(self.outcome.pair) else (None, "")
            )
        return Difference.TEXT, ""

    def _both_deferring(self) -> bool:
        """defer_if_permit and defer_if_reject together end a list; they may stand in two."""
        text = self.outcome.pair.text.lower()
        return "defer_if_permit" in text and "defer_if_reject" in text


def cannot_say(step: Step) -> str:
    """What one reply cannot say, by ldappolicy's log."""
    for line in step.log:
        if match := CANNOT.search(line):
            return match["what"]
    return ""


def left_in(text: str) -> set[str]:
    """The restrictions in it that may be left to Postfix."""
    words = set(re.split(r"[\s,{}]+", text.lower()))
    sometimes = {"permit_mynetworks", "permit_auth_destination", "reject_unauth_destination"}
    sometimes |= {"defer_unauth_destination", "reject_multi_recipient_bounce"}
    sometimes |= {name for name in words if name.startswith(("reject_non_fqdn", "reject_invalid"))}
    return words & (LEFT_TO_POSTFIX.keys() | sometimes)


def has_residue(pair: Pair) -> bool:
    """Whether something of it may be left to Postfix."""
    return bool(left_in(pair.text))


def may_change_places(pair: Pair) -> bool:
    """Rules 5 and 6 of the reply move refusals left to Postfix past what can permit in another list."""
    found = left_in(pair.text)
    permits = {name for name in found if name.startswith("permit")}
    refuses = {name for name in found if LEFT_TO_POSTFIX.get(name, Residue.REFUSES) is not Residue.PERMITS}
    return (
        bool(permits) and bool(refuses - permits) and len([text for text in pair.lists.values() if text]) > 1
    )
