"""Evaluation: a policy, a request and the facts make a decision, or say what lookups it lacks.

Pure: no clock, socket, log or await. The service fetches what is lacking, all of it together, and
evaluates again; so a request whose lookups are all known never suspends.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ldappolicy.evaluation import Evaluation, Steps
from ldappolicy.facts import Facts, Lookup
from ldappolicy.mapping import Mapping as AttributeMapping
from ldappolicy.policy import LISTS, Broken, Policy, PolicySet
from ldappolicy.request import Request
from ldappolicy.residue import SERVER_CONFIGURATION_ERROR, End, Flag, ListOutcome, Reply, compose
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
    this request, `outages` the lookups that were unavailable.
    """

    action: str | None
    policy: str = ""
    error: str = ""
    unavailable: bool = False
    notes: tuple[str, ...] = ()
    outages: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Lacking:
    """The lookups without which there is no decision."""

    lookups: tuple[Lookup, ...]


@dataclass(frozen=True, slots=True)
class Choices:
    """What the configuration's [policy] section says of answers."""

    default: str = "default"
    permit_ok: bool = False
    on_unavailable: str = "defer"


class Evaluator:
    """A set of policies, compiled; swapped as a whole when the directory changes."""

    def __init__(self, policies: PolicySet, mapping: AttributeMapping, choices: Choices) -> None:
        self.policies = policies
        self.mapping = mapping
        self.choices = choices
        self._programs = {
            name: Program(policy, policies)
            for name, policy in policies.policies.items()
            if isinstance(policy, Policy)
        }
        self._plans: dict[tuple[str, str], _Plan | Decision] = {}

    def evaluate(
        self, request: Request, facts: Facts, trace: list[dict[str, Any]] | None = None
    ) -> Decision | Lacking:
        """Decides a request, or says what has to be looked up first."""
        key = (request.policy_context, request.protocol_state)
        plan = self._plans.get(key)
        if plan is None:
            plan = self._plan(*key)
            if len(self._plans) < _MAX_PLANS:
                self._plans[key] = plan
        if isinstance(plan, Decision):
            return plan
        evaluation = Evaluation(request, facts, self.mapping, plan.program, trace)
        outcomes = _run(evaluation, plan, trace)
        if evaluation.lacking:
            return Lacking(tuple(evaluation.lacking))
        return self._decision(evaluation, outcomes, plan)

    def _decision(self, evaluation: Evaluation, outcomes: list[ListOutcome], plan: "_Plan") -> Decision:
        choices = self.choices
        reply = compose(
            outcomes, evaluation.effects, permit_ok=choices.permit_ok, on_unavailable=choices.on_unavailable
        )
        known = plan.answers.get(reply)
        if known is not None and not (evaluation.notes or evaluation.outages):
            return known
        notes = evaluation.notes
        if reply.lost:
            notes = [*notes, f"text given up for restrictions left to Postfix: {reply.lost}"]
        error = reply.error and next(
            (outcome.problem for outcome in outcomes if outcome.problem), reply.error
        )
        name = plan.program.policy.name
        outages = tuple(evaluation.outages)
        decision = Decision(reply.action, name, error, reply.unavailable, tuple(notes), outages)
        if not (error or reply.unavailable or notes or outages) and len(plan.answers) < _MAX_ANSWERS:
            plan.answers[reply] = decision
        return decision

    def _plan(self, context: str, state: str) -> "_Plan | Decision":
        """What a context and a protocol state ask for."""
        name, slash, only = context.partition("/")
        name = name or self.choices.default
        program = self._programs.get(name)
        if program is None:
            return _configuration_error(name, self._unusable(name))
        if slash and only not in LISTS:
            return _configuration_error(
                name, f"policy_context {context!r} names no list of {', '.join(LISTS)}"
            )
        names = LISTS_OF_STATE.get(state)
        if names is None:
            return Decision("DUNNO", name, notes=(f"unknown protocol_state {state!r}",))
        chosen = (only,) if slash else names
        lists = tuple((name, program.lists[name]) for name in chosen if name in program.lists)
        return _Plan(program, lists, alone=bool(slash))

    def _unusable(self, name: str) -> str:
        found = self.policies.policies.get(name)
        if isinstance(found, Broken):
            return f"policy {name!r} does not parse: {found.dn}: {found.reason}"
        return f"there is no policy {name!r}"


_MAX_ANSWERS = 1000
"""Texts come from the directory."""

_MAX_PLANS = 1000
"""policy_context is the administrator's, but nothing that arrives may grow without bound."""


@dataclass(frozen=True, slots=True)
class _Plan:
    """The lists to run, in order; `alone` when the context names one. `answers` are ready-made ones."""

    program: Program
    lists: tuple[tuple[str, Steps], ...]
    alone: bool
    answers: dict[Reply, Decision] = field(default_factory=dict)


def _configuration_error(policy: str, problem: str) -> Decision:
    return Decision(SERVER_CONFIGURATION_ERROR, policy, error=problem)


def _run(evaluation: Evaluation, plan: _Plan, trace: list[dict[str, Any]] | None) -> list[ListOutcome]:
    """The lists, independent of one another, until one certainly refuses or discards.

    While lookups are lacking the rest is walked as well, so that all of them are asked for at once.
    """
    outcomes: list[ListOutcome] = []
    verifying = evaluation.request.protocol_state == "VRFY"
    if verifying and plan.alone and any(name == "sender" for name, _ in plan.lists):
        evaluation.has_sender = True  # Postfix runs that list with a sender only: the null sender
    for name, steps in plan.lists:
        if _not_yet(name, evaluation, plan.alone):
            continue
        if trace is not None:
            trace.append({"depth": 0, "list": name})
        if evaluation.rejecting is not None and not (name == "recipient" and outcomes[-1].name == "relay"):
            evaluation.forget_defer_if_reject()
        outcome = evaluation.run_list(name, steps)
        outcomes.append(outcome)
        if outcome.end is End.REFUSED or outcome.end is End.DISCARDED:
            if not evaluation.lacking and (outcome.refuses or outcome.end is End.DISCARDED):
                break
        elif outcome.pieces and not (plan.alone or name in ("relay", "recipient")):
            _forget_defer_if_reject(outcome)
    if verifying and not (evaluation.has_sender or plan.alone):
        _forget_deferrals(outcomes)
    return outcomes


def _not_yet(name: str, evaluation: Evaluation, alone: bool) -> bool:
    """Whether Postfix does not run the list: smtpd_check_helo before HELO, smtpd_check_mail without MAIL."""
    if name == "helo":
        return not evaluation.request.helo_name
    return name == "sender" and not alone and not evaluation.has_sender


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
