"""Evaluation: a policy, a request and the facts make a decision, or say what lookups it lacks.

Pure: no clock, socket, log or await. The service fetches what is lacking, all of it together, and
evaluates again; so a request whose lookups are all known never suspends.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ldappolicy.evaluation import EARLY_STATES, Evaluation, Naming, OutOfBudget, Steps
from ldappolicy.facts import Facts, Lookup
from ldappolicy.learned import Learned, Values, ValuesOf
from ldappolicy.mapping import Mapping as AttributeMapping
from ldappolicy.memories import BOUNDS, Memory, size_of
from ldappolicy.policy import LISTS, Broken, Policy, PolicySet
from ldappolicy.request import Request
from ldappolicy.residue import (
    NOBODY,
    SERVER_CONFIGURATION_ERROR,
    Decider,
    End,
    Flag,
    ListOutcome,
    Reply,
    compose,
)
from ldappolicy.restrictions import Program
from ldappolicy.vocabulary import Residue

LISTS_OF_STATE: Mapping[str, tuple[str, ...]] = {
    "CONNECT": ("client",),
    "XCLIENT": ("client",),
    "EHLO": ("helo",),
    "HELO": ("helo",),
    "MAIL": ("sender",),
    "RCPT": ("client", "helo", "sender", "relay", "recipient"),
    "VRFY": ("client", "helo", "sender", "relay", "recipient"),
    "DATA": ("data",),
    "END-OF-MESSAGE": ("end_of_data",),
    "ETRN": ("client", "helo", "etrn"),
}
"""Which lists a protocol state runs, as Postfix does with smtpd_delay_reject=yes."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What is answered, and why.

    `action` is None when the connection is to be closed. `error` is why, and by what path, it is a server
    configuration error; `unavailable` that on_unavailable was used. `notes` are lines for the log about
    this request, `outages` the lookups that were unavailable. `restriction` is what decided, by the names
    that led there (nothing where the lists ran out), `dn` the entry whose value did, if one did. `shadowed`
    are the actions that restrictions in shadow would have come to, a permit as OK, and `shadowed_by` the
    restriction and the entry of each. `revision` is that of the policies. `is_passing`: it rests on
    an answer that turns sooner than others like it are asked for again. `unknown_login`: it was asked whose
    the login is, and it belongs to nobody.
    """

    action: str | None
    policy: str = ""
    error: str = ""
    unavailable: bool = False
    notes: tuple[str, ...] = ()
    outages: tuple[str, ...] = ()
    restriction: str = ""
    dn: str = ""
    shadowed: tuple[str, ...] = ()
    is_passing: bool = False
    unknown_login: bool = False
    shadowed_by: tuple[str, ...] = ()
    revision: str = ""


@dataclass(frozen=True, slots=True)
class Lacking:
    """The lookups without which there is no decision."""

    lookups: tuple[Lookup, ...]


@dataclass(frozen=True, slots=True)
class Choices:
    """What the configuration says of answers, and of names."""

    default: str = "default"
    permit_ok: bool = False
    on_unavailable: str = "defer"
    shadow: bool = False
    naming: Naming = field(default_factory=Naming)


class Evaluator:
    """A set of policies, compiled; swapped as a whole when the directory changes."""

    def __init__(self, policies: PolicySet, mapping: AttributeMapping, choices: Choices) -> None:
        self.policies = policies
        self.mapping = mapping
        self.choices = choices
        self._programs = {
            name: Program(policy, policies.in_force(name), choices.naming)
            for name, policy in policies.policies.items()
            if isinstance(policy, Policy)
        }
        self._plans: dict[tuple[str, str], _Plan] = {}
        self._answers: Memory[tuple[_Plan, str | None, Decider, bool], Decision] = Memory(BOUNDS["decisions"])
        """By what decided, and whether the login is unknown: one object for all requests like it."""
        self.looks: set[str] = set()
        """The names of the request attributes that any evaluation without a trace has looked at."""

    def recall(self, context: str, values: Values, facts: Facts) -> "Decision | Begun | None":
        """The decision of a request, if its lists are known to run out; else what to begin `evaluate` with.

        `context` is its policy_context. None: nothing is known yet of what this asks for.
        """
        state = values["protocol_state"].decode("utf-8", "surrogateescape")
        plan = self._plans.get((context, state))
        if plan is None or not plan.is_simple:
            return None
        outcomes: list[ListOutcome] = []
        for part, memory in _memories(plan, facts.derived):
            outcome = memory.recall(values) or _skipped(part, memory, values, facts, self.mapping)
            if outcome is None or outcome.end is End.REFUSED:
                return Begun(plan, values, outcomes, part if outcome is None else None)
            outcomes.append(outcome)
        if outcomes and outcomes[-1] is plan.lists[-1].ran_out:
            return plan.ran_out
        return Begun(plan, values, outcomes)

    def evaluate(
        self,
        request: Request,
        facts: Facts,
        trace: list[dict[str, Any]] | None = None,
        begun: "Begun | None" = None,
    ) -> Decision | Lacking:
        """Decides a request, or says what has to be looked up first; `begun` is what `recall` came to."""
        if begun is None and trace is None:
            known = self.recall(request.policy_context, ValuesOf(request), facts)
            if isinstance(known, Decision):
                return known
            begun = known
        if begun is None:
            key = (request.policy_context, request.protocol_state)
            plan = self._plans.get(key)
            if plan is None:
                made = self._plan(*key)
                if isinstance(made, Decision):
                    return made
                plan = self._plans[key] = made  # there are as many as policies have lists, and no more
            begun = Begun(plan, ValuesOf(request), [])
        evaluation = Evaluation(request, facts, self.mapping, begun.plan.program, trace)
        problem = ""
        try:
            _run(evaluation, begun, self._learned if trace is None else _traced)
        except OutOfBudget as spent:
            problem = str(spent)
        if evaluation.lacking:
            return Lacking(tuple(evaluation.lacking))
        if problem:
            return _configuration_error(begun.plan.program.policy.name, problem)
        return self._decision(evaluation, begun.outcomes, begun.plan)

    def _learned(self, evaluation: Evaluation, part: "_List", begun: "Begun") -> ListOutcome:
        """What a list comes to, which is kept with the facts where it says all there is to say of it."""
        is_first = evaluation.is_unmarked
        memory = _memory(part, evaluation.has_sender, evaluation.derived)
        if is_first and part is not begun.unknown:
            known = memory.recall(begun.values) or _skipped(
                part, memory, begun.values, evaluation.facts, self.mapping
            )
            if known is not None:
                return known
        request, told = evaluation.request, evaluation.told
        taking_notes = evaluation.take_notes()
        outcome = evaluation.run_list(part.name, part.steps)
        evaluation.request = request
        looks = taking_notes.looks
        self.looks.update(looks)
        if is_first and evaluation.is_unmarked and told == evaluation.told and outcome.is_plain:
            outcome = part.ran_out if outcome.end is End.RAN_OUT else outcome
            values = ValuesOf(request)  # those at hand may lack what was looked at
            if not (_WHO_TO_WHOM.issubset(looks) and memory.goes_on(values)):
                memory.learn(looks, values, outcome)
        return outcome

    def _decision(self, evaluation: Evaluation, outcomes: list[ListOutcome], plan: "_Plan") -> Decision:
        choices = self.choices
        reply = compose(
            outcomes, evaluation.effects, permit_ok=choices.permit_ok, on_unavailable=choices.on_unavailable
        )
        by = reply.by or (outcomes[-1].by if outcomes else NOBODY)
        told = evaluation.notes or evaluation.outages or evaluation.shadowed
        is_plain = not (told or reply.error or reply.unavailable or reply.lost or evaluation.is_passing)
        key = (plan, reply.action, by, evaluation.is_unknown_login)
        known = self._answers.get(key) if is_plain else None
        if known is not None:
            return known
        error = reply.error and next(
            (outcome.problem for outcome in outcomes if outcome.problem), reply.error
        )
        decision = Decision(
            reply.action,
            plan.program.policy.name,
            error,
            reply.unavailable,
            _notes(evaluation, reply),
            evaluation.outages,
            ": ".join(by[0]),
            by[1],
            evaluation.shadowed,
            evaluation.is_passing,
            evaluation.is_unknown_login,
            evaluation.shadowed_by,
            plan.program.revision,
        )
        if is_plain:
            self._answers.keep(
                key, decision, size_of(reply.action or "", decision.restriction, *by[0], by[1])
            )
        return decision

    def _plan(self, context: str, state: str) -> "_Plan | Decision":
        """What a context and a protocol state ask for."""
        name, slash, only = context.partition("/")
        name = name or self.choices.default
        program = self._programs.get(name)
        if program is None:
            # What is no policy's name is the client's: no counter is to have it for a label.
            known = name if name in self.policies.policies else ""
            return _configuration_error(known, self._unusable(name))
        if slash and only not in LISTS:
            return _configuration_error(
                name, f"policy_context {context!r} names no list of {', '.join(LISTS)}"
            )
        names = LISTS_OF_STATE.get(state)
        if names is None:
            return Decision("DUNNO", name, notes=(f"unknown protocol_state {state!r}",))
        chosen = (only,) if slash else names
        lists = tuple(_List(name, program.lists[name]) for name in chosen if name in program.lists)
        if any(part.name == "helo" for part in lists):
            self.looks.add("helo_name")  # see _not_yet
        return _Plan(program, lists, alone=bool(slash), state=state)

    def _unusable(self, name: str) -> str:
        found = self.policies.policies.get(name)
        if isinstance(found, Broken):
            return f"policy {name!r} does not parse: {found.dn}: {found.reason}"
        return f"there is no policy {name!r}"


_WHO_TO_WHOM = frozenset(("sender", "recipient"))
"""What looks at both comes as seldom again as a whole decision, which is kept anyway (`ready`).

So it is learned once for each first value, which tells that the list goes on there (`Learned.goes_on`).
"""


@dataclass(frozen=True, slots=True, eq=False)
class _List:
    """One list of a plan; it is itself, and equals no other. `ran_out` is what it mostly comes to."""

    name: str
    steps: Steps
    ran_out: ListOutcome = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "ran_out", ListOutcome(self.name))


@dataclass(frozen=True, slots=True, eq=False)
class _Plan:
    """The lists to run in a protocol state, in order; `alone` when the context names one.

    `ran_out` is the decision where all of them run out.
    """

    program: Program
    lists: tuple[_List, ...]
    alone: bool
    state: str
    ran_out: Decision = field(init=False)
    is_simple: bool = field(init=False)
    """Whether every list is run for every request, and there always is a sender, be it the null sender."""

    def __post_init__(self) -> None:
        object.__setattr__(
            self, "ran_out", Decision("DUNNO", self.program.policy.name, revision=self.program.revision)
        )
        is_simple = self.state not in EARLY_STATES and "helo" not in (part.name for part in self.lists)
        object.__setattr__(self, "is_simple", is_simple)

    @property
    def verifies(self) -> bool:
        """Whether it is for VRFY, which may come without a sender."""
        return self.state == "VRFY"


@dataclass(slots=True)
class Begun:
    """An evaluation that is to go on: `outcomes` are those of its first lists.

    The list `unknown`, if there is one, is known to be neither learned nor skipped.
    """

    plan: _Plan
    values: Values
    outcomes: list[ListOutcome]
    unknown: _List | None = None


def _notes(evaluation: Evaluation, reply: Reply) -> tuple[str, ...]:
    lost = f"text given up for restrictions left to Postfix: {reply.lost}"
    return (*evaluation.notes, *([lost] if reply.lost else []))


def _configuration_error(policy: str, problem: str) -> Decision:
    return Decision(SERVER_CONFIGURATION_ERROR, policy, error=problem)


def _memory(part: _List, sender: bool, derived: Memory[object, object]) -> Learned[ListOutcome]:
    """What is known of a list, with or without a sender."""
    memory = derived.get((part, sender))
    if memory is None:
        memory = derived[part, sender] = Learned(derived)
    return memory  # type: ignore[return-value]  # a cast would cost as much as the look


def _memories(plan: _Plan, derived: Memory[object, object]) -> tuple[tuple[_List, Learned[ListOutcome]], ...]:
    """What is known of each list of a plan, with a sender: one look for all."""
    memories = derived.get(plan)
    if memories is None:
        memories = derived[plan] = tuple((part, _memory(part, True, derived)) for part in plan.lists)
    return memories  # type: ignore[return-value]  # as above


def _skipped(
    part: _List, memory: Learned[ListOutcome], values: Values, facts: Facts, mapping: AttributeMapping
) -> ListOutcome | None:
    """That a list runs out, by a look at what it would look at, which is learned; None: it has to be run.

    Where it is known to look at more than its first attribute, that one carried something before.
    """
    skips = part.steps.skips
    if not skips or memory.goes_on(values):
        return None
    looks: list[str] = []
    for skip in skips:
        look = skip(values, facts, mapping)
        if not look:
            return None
        if look not in looks:
            looks.append(look)
    if not _WHO_TO_WHOM.issubset(looks):
        memory.learn(looks, values, part.ran_out)
    return part.ran_out


_Run = Callable[[Evaluation, _List, Begun], ListOutcome]


def _traced(evaluation: Evaluation, part: _List, begun: Begun) -> ListOutcome:
    """A list from its beginning, told in the trace."""
    assert evaluation.trace is not None
    evaluation.trace.append({"depth": 0, "list": part.name})
    return evaluation.run_list(part.name, part.steps)


def _run(evaluation: Evaluation, begun: Begun, run: _Run) -> None:
    """The lists, independent of one another, until one certainly refuses or discards.

    The outcomes get theirs; those of the first lists may be in there. While lookups are lacking the rest is
    walked as well, so that all of them are asked for at once.
    """
    plan, outcomes = begun.plan, begun.outcomes
    verifying = plan.verifies
    if verifying and plan.alone and any(part.name == "sender" for part in plan.lists):
        evaluation.has_sender = True  # Postfix runs that list with a sender only: the null sender
    for part in plan.lists[len(outcomes) :]:
        name = part.name
        if _not_yet(name, evaluation.request, evaluation.has_sender, plan.alone):
            continue
        if evaluation.rejecting is not None and not (name == "recipient" and outcomes[-1].name == "relay"):
            evaluation.forget_defer_if_reject()
        outcome = run(evaluation, part, begun)
        outcomes.append(outcome)
        if outcome.end is End.REFUSED or outcome.end is End.DISCARDED:
            if not evaluation.lacking and (outcome.refuses or outcome.end is End.DISCARDED):
                break
        elif outcome.pieces and not (plan.alone or name in ("relay", "recipient")):
            _forget_defer_if_reject(outcome)
    if verifying and not (evaluation.has_sender or plan.alone):
        _forget_deferrals(outcomes)


def _not_yet(name: str, request: Request, sender: bool, alone: bool) -> bool:
    """Whether Postfix does not run the list: smtpd_check_helo before HELO, smtpd_check_mail without MAIL."""
    if name == "helo":
        return not request.helo_name
    return name == "sender" and not alone and not sender


def _forget_deferrals(outcomes: Iterable[ListOutcome]) -> None:
    """Without a sender a deferral of the client and helo lists is lost: smtpd_check_mail carries it on."""
    for outcome in outcomes:
        if outcome.name in ("client", "helo"):
            outcome.pieces[:] = [piece for piece in outcome.pieces if piece.does is not Flag.DEFER_IF_PERMIT]


def _forget_defer_if_reject(outcome: ListOutcome) -> None:
    """The flag does not leave its list: only what can refuse behind it there still knows it."""
    harmless = (Residue.PERMITS, Flag.DEFER_IF_REJECT)
    behind = len(outcome.pieces)
    while behind and outcome.pieces[behind - 1].does in harmless:
        behind -= 1
    outcome.pieces[behind:] = [piece for piece in outcome.pieces[behind:] if piece.does is Residue.PERMITS]
