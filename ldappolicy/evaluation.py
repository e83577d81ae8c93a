"""What one evaluation has at hand: the request, the facts, and what the list at hand has come to so far.

A restriction is compiled to a step: a function of the `Evaluation` that returns DUNNO, OK or REFUSE, as
the functions of smtpd_check(8) do, or END where the list ends undecided. Nothing here knows a clock, a
socket or a log; what is worth a log line is left in `notes`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, cast

from ldappolicy.action import Action, Kind
from ldappolicy.address import fold, is_routed, strip_dot
from ldappolicy.entry import Entry
from ldappolicy.errors import InputError
from ldappolicy.facts import FOREVER, Facts, Found, Lookup, Missed
from ldappolicy.learned import NotedRequest, Values
from ldappolicy.mapping import Mapping, sid_text
from ldappolicy.request import Request
from ldappolicy.residue import (
    FOR_A_WHILE,
    NOBODY,
    SERVER_CONFIGURATION_ERROR,
    Decider,
    End,
    Flag,
    ListOutcome,
    Piece,
    Refusal,
    compose,
)
from ldappolicy.rewriting import rewrite
from ldappolicy.vocabulary import MAX_SLEEP_S, Residue

Step = Callable[["Evaluation"], int]

Skip = Callable[[Values, Facts, Mapping], str]
"""The attribute that it looked at, if that tells that a step comes to nothing; "" where it does not tell.

It is one that `ready.ALWAYS` has: nobody is told of these looks.
"""

_RESTORED = (
    *("outcome", "effects", "effects_before_permit", "flags", "rejecting", "both", "warned", "form"),
    *("path", "label", "dn", "by", "by_dn", "origin", "expired", "sleep_left"),
)
"""What a step in shadow leaves as it was."""

_S = TypeVar("_S")
_A = TypeVar("_A")

DUNNO, OK, REFUSE, END = 0, 1, 2, 3
"""What a step returns; all but DUNNO end the list and every list around it."""

DEPTH_LIMIT = 100
"""smtpd(8) refuses a deeper right-hand side."""

MAX_STEPS = 10_000
"""Restrictions that one evaluation tries, and tables that it consults.

Depth that is bounded is no work that is bounded: a list that leads to itself twice doubles at each level.
"""

FEW_STEPS_LEFT = MAX_STEPS - 500
"""From here on it is remembered what tables told: they may have been asked for 250 keys each time."""

OUT_OF_STEPS = f"more than {MAX_STEPS} restrictions and tables in one evaluation"

MAX_LEFT = 200
"""Restrictions of one list that are left to Postfix, which takes no reply of 4,000 octets."""

MAX_TOLD = 100
"""Notes, outages and actions in shadow that one evaluation tells of, each."""

EARLY_STATES = frozenset(("CONNECT", "XCLIENT", "EHLO", "HELO", "VRFY", "ETRN"))
"""States in which an empty sender means that there is none yet, and in which no message is affected.

VRFY may come within a transaction of the null sender; Postfix does not tell, and mostly it does not.
"""

TEMPORARY_FAILURE = "451 4.3.0 Temporary lookup failure"
"""reject_dict_retry of smtpd(8)."""

STALE = "the answer is stale"

SHOWN = 200
"""Of a lookup in a log line or a trace, in characters."""


_UNTIL_KNOWN = Refusal(f"{FOR_A_WHILE} Temporary lookup failure", temporary=True, items=("defer",))
"""What a refusal without a text of its own becomes that rests on what nobody knows any more."""


class MissedLookup(Exception):
    """A lookup that evaluation reached is unavailable."""


class ServerConfigurationError(Exception):
    """What smtpd(8) answers with 451 4.3.5, whatever stands around it, warn_if_reject included.

    `path` are the names of lists and restrictions that led there, `reply` what is sent.
    """

    SHOWN_PATH = 20
    """Names that are shown of a longer path, half of them from each end."""

    def __init__(self, problem: str, reply: str = SERVER_CONFIGURATION_ERROR) -> None:
        super().__init__(problem)
        self.reply = reply
        self.path: list[str] = []

    def came_from(self, origin: str) -> None:
        """Adds a DN, or another name, in front of the path."""
        if origin:
            self.path.insert(0, origin)

    def __str__(self) -> str:
        path, half = self.path, self.SHOWN_PATH // 2
        if len(path) > self.SHOWN_PATH:
            path = [*path[:half], f"... {len(path) - 2 * half} more ...", *path[-half:]]
        return ": ".join([*path, *map(str, self.args)])


class OutOfBudget(ServerConfigurationError):
    """The whole decision is an error, in shadow and under warn_if_reject as well: it might not end."""


@dataclass(frozen=True, slots=True)
class Steps:
    """A compiled list: the steps, each with how it is written.

    `skips`, one for each step or none at all, tell without an `Evaluation` that the step comes to nothing.
    """

    steps: tuple[tuple[Step, str], ...]
    skips: tuple[Skip, ...] = ()


@dataclass(frozen=True, slots=True)
class Naming:
    """What the configuration says of names: realms that are taken off logins, domains that are asked for.

    Both are folded; without `domains` all are asked for.
    """

    login_realms: frozenset[str] = frozenset()
    domains: frozenset[str] = frozenset()

    def is_asked_for(self, domain: str) -> bool:
        """Whether the directory is asked for addresses in a domain."""
        return not self.domains or domain in self.domains


class Surroundings(Protocol):
    """What a policy looks like to its steps (see `restrictions.Program`)."""

    dn: str
    myorigin: str
    delimiter: str
    parents: bool
    knows_local_domains: bool
    bases: tuple[str, ...]
    naming: Naming

    def is_local(self, evaluation: "Evaluation", domain: str) -> bool:
        """Whether a domain stands in smtpdLocalDomains; any does when the policy has none."""
        ...

    def right_hand_side(self, tokens: tuple[str, ...]) -> Steps:
        """The compiled form of a list that a table or an attribute holds."""
        ...


def has_sender(request: Request) -> bool:
    """Whether there is a sender, the null sender included."""
    return bool(request.sender) or request.protocol_state not in EARLY_STATES


class Evaluation:
    """The state of one evaluation; its attributes are for the steps to use."""

    outcome: ListOutcome
    stage = ""
    origin = reason = ""
    effects_before_permit = 0
    """How many effects stand before the last permit that is left to Postfix in this list."""
    label = dn = ""
    """The name of the restriction at hand; the entry whose value led to it."""
    by: tuple[str, ...] = ()
    by_dn = ""
    warned = both = guessed = False
    rejecting: Piece | None = None
    form: str | None = None
    notes: tuple[str, ...] = ()
    outages: tuple[str, ...] = ()
    shadowed: tuple[str, ...] = ()
    shadowed_by: tuple[str, ...] = ()
    """What there is to tell beside the decision (see `Decision`)."""
    is_unknown_login = False
    """Whether it was asked whose the login is, and it belongs to nobody."""
    told = 0
    """How often there was something to tell beside the decision, told before or not."""
    expired = ""
    """The first answer in this list that is past its ttl or missing; what refuses rests on it."""
    is_passing = False
    """Whether an answer has been seen that does not hold for as long as the facts do."""
    steps_left = MAX_STEPS
    sleep_left = MAX_SLEEP_S
    _sender: str | None = None
    _recipients: tuple[str, ...] | None = None

    def __init__(
        self,
        request: Request,
        facts: Facts,
        mapping: Mapping,
        around: Surroundings,
        trace: list[dict[str, Any]] | None = None,
    ) -> None:
        self.request = request
        self.facts = facts
        self.known = facts.get
        self.derived = facts.derived
        self.mapping = mapping
        self.around = around
        self.trace = trace
        if trace is not None:
            self._traced: set[str] = set()
        self.lacking: dict[Lookup, None] = {}
        self._consulted: dict[object, tuple[object, str]] = {}
        self.effects: list[str] = []
        self.flags: set[Residue | Flag] = set()
        # The names that led here: of the list, of the steps around this one.
        self.path: list[str] = []
        self.has_sender = has_sender(request)

    @property
    def depth(self) -> int:
        """How many lists are around this place."""
        return len(self.path)

    # ------------------------------------------------------------ what is learned

    @property
    def is_unmarked(self) -> bool:
        """Whether no list has left anything that the next one, or the reply, depends on."""
        return not (self.flags or self.effects or self.lacking or self.rejecting or self.is_passing)

    @property
    def is_lasting(self) -> bool:
        """Whether what was concluded holds for as long as the facts do."""
        return not (self.lacking or self.is_passing)

    def take_notes(self) -> NotedRequest:
        """From now on it is noted what is looked at; the next list looks at everything anew."""
        taking_notes = NotedRequest(self.request)
        self.request = taking_notes.as_request
        return taking_notes

    # ------------------------------------------------------------ lists

    def run_list(self, name: str, steps: Steps) -> ListOutcome:
        """One list of the policy from its beginning; it rests on what it looks up itself."""
        self._sender = self._recipients = None
        self.guessed = False
        self.expired = ""
        self.stage = name
        self.origin = ""
        self.outcome = outcome = ListOutcome(name)
        self.path = []
        self.label = name
        self.dn = self.by_dn = ""
        self.by = ()
        self.warned = False
        try:
            status = self.run(steps)
        except ServerConfigurationError as problem:
            problem.came_from(f"{self.around.dn}: {name}")
            if isinstance(problem, OutOfBudget):
                raise
            status = self._failed(problem)
        if status:
            self._end(status)
            outcome.by = (self.by, self.by_dn)
        return outcome

    def _failed(self, problem: ServerConfigurationError) -> int:
        """The list at hand is a server configuration error."""
        self.outcome.problem = str(problem)
        self.outcome.refusal = Refusal(problem.reply, temporary=True, is_error=True)
        return REFUSE

    def _end(self, status: int) -> None:
        """How the list at hand ended."""
        outcome = self.outcome
        if status == OK and outcome.end is End.RAN_OUT:
            outcome.end = End.PERMITTED
        elif status == REFUSE:
            outcome.end = End.REFUSED
            if outcome.can_permit:
                # Whoever gets as far as the effects behind the last permit is refused.
                del self.effects[self.effects_before_permit :]

    def run(self, steps: Steps) -> int:
        """The steps in order, as generic_checks does: what is not DUNNO ends this list and its callers."""
        if self.trace is not None:
            return self._run_traced(steps)
        self.path.append(self.label)
        status = DUNNO
        try:
            for step, label in steps.steps:
                self.label = label
                self.steps_left -= 1
                if self.steps_left < 0:
                    raise OutOfBudget(OUT_OF_STEPS)
                status = step(self)
                if status or self.both:
                    status = status or END
                    self.by = self.by or (*self.path, label)
                    break
        except ServerConfigurationError as problem:
            self.by = self.by or (*self.path, label)
            problem.came_from(label)
            raise
        self.label = self.path.pop()
        return status

    def spend_step(self) -> None:
        """One restriction or table more; raises OutOfBudget."""
        self.steps_left -= 1
        if self.steps_left < 0:
            raise OutOfBudget(OUT_OF_STEPS)

    def consult(
        self, find: Callable[["Evaluation", _S], _A | None], about: Callable[..., _S | None], *given: str
    ) -> _A | None:
        """What a table has for a subject, which `about` makes of the evaluation and what is given.

        Raises OutOfBudget, MissedLookup. Keys are no steps: a list that asks a thousand times is told what it
        was told before.
        """
        self.steps_left -= 1
        if self.steps_left < 0:
            raise OutOfBudget(OUT_OF_STEPS)
        if self.steps_left > FEW_STEPS_LEFT or self.trace is not None:
            subject = about(self, *given)
            return None if subject is None else find(self, subject)
        key = (self.stage, self.form, find, about, given)
        if key not in self._consulted:
            self.origin = ""
            subject = about(self, *given)
            action = None if subject is None else find(self, subject)
            self._consulted[key] = action, self.origin
        known, self.origin = cast(tuple[_A | None, str], self._consulted[key])
        return known

    def undecided(self) -> None:
        """What decided did not decide: its OK does not count."""
        self.by, self.by_dn = (), ""

    def _run_traced(self, steps: Steps) -> int:
        """The same, saying what each step did and why."""
        assert self.trace is not None
        self.path.append(self.label)
        status = DUNNO
        for step, label in steps.steps:
            event: dict[str, Any] = {"depth": self.depth, "restriction": label}
            self.trace.append(event)
            left = len(self.outcome.pieces)
            self.label, self.reason = label, ""
            try:
                self.spend_step()
                status = step(self)
            except ServerConfigurationError as problem:
                event.update(result="server configuration error", reason=str(problem))
                self.by = self.by or (*self.path, label)
                problem.came_from(label)
                raise
            event["result"] = _result(status, self.outcome, left)
            if self.reason:
                event["reason"] = self.reason
            if status or self.both:
                status = status or END
                self.by = self.by or (*self.path, label)
                break
        self.label = self.path.pop()
        return status

    def run_right_hand_side(self, tokens: tuple[str, ...]) -> int:
        """A list in a table or an attribute, evaluated in place."""
        if self.depth > DEPTH_LIMIT:
            raise ServerConfigurationError(f"{' '.join(tokens)!r} causes unreasonable recursion")
        return self.run(self.around.right_hand_side(tokens))

    # ------------------------------------------------------------ what steps do

    def refuse(self, refusal: Refusal, text: str = "") -> int:
        """Refuses, or under warn_if_reject says that it would have; `text` is its own, if that is known."""
        if self.expired and not refusal.temporary:
            refusal = self._until_known(text)
        if self.warned:
            self.note(f"warn_if_reject: would have been refused: {refusal.alone}")
            self.reason = f"warn_if_reject: {refusal.alone}"
            return DUNNO
        rejecting = self.rejecting
        if rejecting is not None and not refusal.temporary:
            # A DEFER without a text would have another one than a DEFER_IF_REJECT without (smtpd_check.c).
            text = rejecting.wire.removeprefix("DEFER_IF_REJECT") or " Service unavailable"
            wire = f"DEFER{text}" if rejecting.wire else ""
            items = () if wire else ("reject",)
            refusal = Refusal(wire, temporary=True, items=items, before=("defer_if_reject",))
        self.outcome.refusal = refusal
        return REFUSE

    def _until_known(self, text: str) -> Refusal:
        """What is sent for a refusal for good while what it rests on is past its ttl or missing."""
        self.told += 1
        self.reason = f"not for good, since it rests on {self.expired}"
        if self.expired not in self.outages:
            self.outages = (*self.outages, self.expired)
        return Refusal(f"{FOR_A_WHILE} {text}", temporary=True) if text else _UNTIL_KNOWN

    def leave(self, text: str, does: Residue) -> int:
        """Leaves an item to Postfix: DUNNO, and remember it."""
        if self.warned:
            text = f"warn_if_reject {text}"
            does = does if does is Residue.PERMITS else Residue.REFUSES_FOR_GOOD
        piece = Piece(text, does, by=self._here())
        if does is not Residue.PERMITS:
            self._add(piece)
        elif piece not in self.outcome.pieces:
            # What was tried before in this list and did not permit cannot permit now.
            self._add(piece)
            self.effects_before_permit = len(self.effects)
        return DUNNO

    def leave_sleep(self, seconds: int) -> int:
        """Leaves a `sleep` to Postfix, which one reply does not hold for longer than a single one may."""
        seconds = min(seconds, self.sleep_left)
        if seconds == 0 == self.sleep_left:
            return DUNNO
        self.sleep_left -= seconds
        return self.leave(f"sleep {seconds}", Residue.REFUSES)

    def _add(self, piece: Piece) -> None:
        if len(self.outcome.pieces) >= MAX_LEFT:
            raise OutOfBudget(f"more than {MAX_LEFT} restrictions are left to Postfix")
        self.outcome.pieces.append(piece)

    def defer_if_permit(self, wire: str) -> int:
        """Changes a later permit into a deferral; the first text wins."""
        if self.warned:
            self.note(f"warn_if_reject: would have been deferred: {wire or 'defer_if_permit'}")
            return DUNNO
        self._raise_flag(Piece("defer_if_permit", Flag.DEFER_IF_PERMIT, wire, self._here()))
        return DUNNO

    def defer_if_reject(self, wire: str) -> int:
        """Changes a later permanent refusal into a deferral; the first text wins."""
        piece = Piece("defer_if_reject", Flag.DEFER_IF_REJECT, wire, self._here())
        self.rejecting = self.rejecting or piece
        self._raise_flag(piece)
        return DUNNO

    def forget_defer_if_reject(self) -> None:
        """The flag does not leave the list that raised it (relay and recipient count as one)."""
        self.rejecting = None
        self.flags.discard(Flag.DEFER_IF_REJECT)
        self.both = False

    def _raise_flag(self, piece: Piece) -> None:
        """Both flags raised end the list, unless Postfix may find that something before them permits."""
        if not self.outcome.can_permit:
            self.flags.add(piece.does)
            self.both = len(self.flags) == 2
        self._add(piece)

    def unavailable(self, missed: MissedLookup) -> int:
        """Ends the list: what is behind a lookup that nobody can answer is not known."""
        self.told += 1
        if len(self.outages) < MAX_TOLD and str(missed) not in self.outages:
            self.outages = (*self.outages, str(missed))
        self.reason = str(missed)
        if self.warned:
            self.expired = self.expired or str(missed)
            return DUNNO
        self.outcome.end = End.UNAVAILABLE
        return END

    def apply(self, action: Action, about_address: bool) -> int:
        """What the right-hand side that was just found asks for; an error tells where it stands."""
        origin, around = self.origin, self.dn
        self.dn = origin or around
        try:
            status = self._apply(action, about_address)
        except ServerConfigurationError as problem:
            self.by_dn = self.by_dn or self.dn
            problem.came_from(origin)
            raise
        if status:
            self.by_dn = self.by_dn or self.dn
        self.dn = around
        return status

    def _here(self) -> Decider:
        return ((*self.path, self.label), self.dn)

    def _apply(self, action: Action, about_address: bool) -> int:
        kind = action.kind
        if kind is Kind.DUNNO:
            return DUNNO
        if kind is Kind.PERMIT:
            return OK
        if kind is Kind.LIST:
            return self.run_right_hand_side(action.tokens)
        if kind is Kind.REFUSE:
            return self._refuse_with(action, about_address)
        wire = action.wire if about_address else action.wire_plain
        if kind is Kind.DEFER_IF_PERMIT:
            return self.defer_if_permit(wire)
        if kind is Kind.DEFER_IF_REJECT:
            return self.defer_if_reject(wire)
        return self._apply_rest(action)

    def _refuse_with(self, action: Action, about_address: bool) -> int:
        wire = action.wire if about_address else action.wire_plain
        refusal = Refusal(wire, action.temporary, is_error=bool(action.problem))
        status = self.refuse(refusal, action.own_text if self.expired else "")
        if status == REFUSE and action.problem:
            self.outcome.problem = f"{self.around.dn}: {self.stage}: {action.problem}"
        return status

    def _apply_rest(self, action: Action) -> int:
        if action.kind is Kind.INVALID:
            raise ServerConfigurationError(action.problem)
        if action.kind is Kind.LOG:
            self.note(action.wire)
        elif self.request.protocol_state not in EARLY_STATES and self._acts(action):
            if action.kind is Kind.DISCARD:
                self.outcome.discard = action.wire
                self.outcome.end = End.DISCARDED
                return OK
            self.effects.append(action.wire)
            self.outcome.acted = len(self.outcome.pieces)
            if self.outcome.acted_by is NOBODY:
                self.outcome.acted_by = self._here()
        return DUNNO

    def _acts(self, action: Action) -> bool:
        """PREPEND comes too late at the end of the data."""
        return action.verb != "PREPEND" or self.request.protocol_state != "END-OF-MESSAGE"

    # ------------------------------------------------------------ shadow

    def shadow(self, step: Step) -> int:
        """Takes a step to its end and tells what it came to, of which nothing stays: DUNNO.

        Flags that are raised already count in there, as they would without shadow.
        """
        label, saved = self.label, [(name, getattr(self, name)) for name in _RESTORED]
        self.path, self.flags = [*self.path], {*self.flags}
        self.outcome, self.effects, self.effects_before_permit = ListOutcome(self.stage), [], 0
        self.undecided()
        try:
            status = step(self)
        except ServerConfigurationError as problem:
            problem.came_from(label)
            if isinstance(problem, OutOfBudget):
                raise
            status = self._failed(problem)
        self._end(status)
        outcome, effects = self.outcome, self.effects
        if status:
            outcome.by = (self.by or (*self.path, label), self.by_dn or self.dn)
        for name, value in saved:
            setattr(self, name, value)
        self._tell_shadow(outcome, effects)
        return DUNNO

    def _tell_shadow(self, outcome: ListOutcome, effects: list[str]) -> None:
        """Counts what a step in shadow came to; a permit is no line for the log, an outage has its own."""
        self.reason = "in shadow"
        if outcome.end is End.UNAVAILABLE:
            return
        reply = compose([outcome], effects, permit_ok=False, on_unavailable="defer")
        action = "OK" if reply.by is None and outcome.end is End.PERMITTED else reply.action
        if action is None or action == "DUNNO":
            return
        self.told += 1
        by = _said(reply.by or outcome.by)
        if len(self.shadowed) < MAX_TOLD:
            self.shadowed = (*self.shadowed, action)
            self.shadowed_by = (*self.shadowed_by, by)
        self.reason = f"in shadow: {action}"
        if action != "OK":
            problem = outcome.problem or reply.error
            why = problem or by
            self.note(f"shadow: would have been answered: {action}" + f" ({why})" * bool(why))

    def unknown_login(self) -> None:
        """The login belongs to nobody."""
        self.told += 1
        self.is_unknown_login = True

    def note(self, text: str) -> None:
        """Something for the log."""
        self.told += 1
        if len(self.notes) < MAX_TOLD and text not in self.notes:
            self.notes = (*self.notes, text)

    # ------------------------------------------------------------ lookups

    def lookup(self, lookup: Lookup) -> tuple[Entry, ...]:
        """The entries of a lookup. One that is lacking counts as none for now, and is remembered.

        Raises MissedLookup when it is unavailable.
        """
        outcome = self.known(lookup)
        if outcome is None:
            self.lacking[lookup] = None
            return ()
        if self.trace is not None:
            self._trace_lookup(lookup, outcome)
        if type(outcome) is Missed:
            raise MissedLookup(f"{_lookup_text(lookup)}: {outcome.reason}")
        if outcome.turns_at < FOREVER:  # type: ignore[union-attr]
            self.is_passing = True
            if outcome.is_stale and not self.expired:  # type: ignore[union-attr]
                self.expired = f"{_lookup_text(lookup)}: {STALE}"
        return outcome.entries  # type: ignore[union-attr]

    def _trace_lookup(self, lookup: Lookup, outcome: Any) -> None:
        assert self.trace is not None
        text = _lookup_text(lookup)
        if text in self._traced:
            return
        self._traced.add(text)
        event: dict[str, Any] = {"depth": self.depth, "lookup": text}
        if isinstance(outcome, Missed):
            event.update(result="unavailable", reason=outcome.reason)
        else:
            event["result"] = "found" if isinstance(outcome, Found) else "absent"
            event["known_at"] = outcome.at
            if lookup[0] in _OF_ALL:
                event["entries"] = len(outcome.entries)
            else:
                event["dn"] = [entry.dn for entry in outcome.entries]
        self.trace.append(event)

    def trace_key(self, table: object, key: str, value: str | None, dn: str = "") -> None:
        """Says what a table holds for a key; None: nothing."""
        if self.trace is not None:
            event: dict[str, Any] = {"depth": self.depth, "table": str(table), "key": key}
            if value is None:
                event["result"] = "not found"
            else:
                event.update(result="found", value=value, dn=[dn] if dn else [])
            self.trace.append(event)

    def trace_note(self, table: object, dn: str, reason: str) -> None:
        """Says why an entry that was found does not count."""
        if self.trace is not None:
            event = {
                "depth": self.depth,
                "table": str(table),
                "result": "not used",
                "dn": [dn],
                "reason": reason,
            }
            self.trace.append(event)

    # ------------------------------------------------------------ addresses

    @property
    def sender(self) -> str:
        """The folded sender as Postfix would rewrite it; empty for the null sender."""
        if self._sender is None:
            sender = self.request.sender.casefold()
            self._sender = self._rewritten(sender, self._is_local) if sender else ""
        return self._sender

    @property
    def recipients(self) -> tuple[str, ...]:
        """The forms in which the recipient is checked: rewritten, then as received where that is routed.

        Where it depends on more than smtpdLocalDomains says (`guessed`), the widest reading comes first.
        """
        if self._recipients is None:
            received = self.request.recipient.casefold()
            known = self._rewritten(received, self._is_known_local)
            self._recipients = (known,)
            if known != received and "@" in received and is_routed(received):
                self._recipients += (fold(strip_dot(received)),)
            if is_routed(known):
                widest = self._rewritten(received, self._may_be_local)
                self.guessed = widest != known
                self._recipients = (widest, *self._recipients)
            self._recipients = tuple(dict.fromkeys(self._recipients))
        return self._recipients

    def _rewritten(self, address: str, is_local: Callable[[str], bool]) -> str:
        """What has more routings than can be followed is refused for a while, as in smtpd(8)."""
        try:
            return fold(rewrite(address, self.around.myorigin, is_local))
        except InputError as problem:
            raise ServerConfigurationError(str(problem), TEMPORARY_FAILURE) from None

    def _is_local(self, domain: str) -> bool:
        """Whether Postfix resolves local parts of the domain; any, where the policy does not say."""
        return self.around.is_local(self, domain)

    def _is_known_local(self, domain: str) -> bool:
        return self.around.knows_local_domains and self.around.is_local(self, domain)

    def _may_be_local(self, domain: str) -> bool:
        """Postfix's own literals and localhost are local as well, and stand in no table."""
        return domain.startswith("[") or domain == "localhost" or self._is_local(domain)


def _result(status: int, outcome: ListOutcome, left: int) -> str:
    """How a step went, in a word or two."""
    if status == DUNNO:
        return "left to Postfix" if len(outcome.pieces) > left else "DUNNO"
    if status == REFUSE and outcome.refusal is not None:
        return f"refused: {outcome.refusal.alone}"
    if outcome.end is End.UNAVAILABLE:
        return "unavailable"
    return "permitted" if status == OK else "ended"


_OF_ALL = frozenset(("carrying", "dynamic"))
"""Lookups that find the same groups for every request: a trace counts them."""


def _said(by: Decider) -> str:
    """The names that led to a restriction, and the entry; empty where the list ran out."""
    path, dn = by
    return f"{': '.join(path)}, {dn}" if path and dn else ": ".join(path)


def _lookup_text(lookup: Lookup) -> str:
    text = " ".join((lookup[0], sid_text(lookup[1])) if lookup[0] == "sid" else lookup)
    return text if len(text) <= SHOWN else text[:SHOWN] + "..."
