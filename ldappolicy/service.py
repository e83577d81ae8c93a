"""The service: evaluate, fetch what is lacking in one batch, evaluate again, bounded.

Holds what can change while it runs: the policies in force and the directory. Policies are swapped as a
whole; a set that cannot be used leaves the old one in force. A request that has to wait for the directory
has `request_timeout` for all of it; past that its lookups count as unavailable, which is not an error.
"""

import asyncio
import logging
import re
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, NamedTuple

from ldappolicy import facts
from ldappolicy.counters import Tally, action_label
from ldappolicy.decision_log import DecisionLog, shown_of, with_id
from ldappolicy.directory import Scope, Search
from ldappolicy.entry import Entry, normal_dn
from ldappolicy.errors import ConfigError, Unavailable
from ldappolicy.evaluate import Choices, Decision, Evaluator, Lacking
from ldappolicy.evaluation import SHOWN
from ldappolicy.facts import Lookup, Missed, Outcome
from ldappolicy.ldap_filter import And, Equality, Or, Present
from ldappolicy.log import Limited, shortened
from ldappolicy.mapping import Mapping as AttributeMapping
from ldappolicy.memories import BOUNDS, Memory, size_of
from ldappolicy.policy import (
    LISTS,
    POLICY_ATTRIBUTES,
    POLICY_CLASSES,
    Broken,
    Policy,
    PolicySet,
    Table,
    object_kind,
    read_policies,
)
from ldappolicy.protocol import encode_reply, plain_values
from ldappolicy.ready import Ready, ReadyReplies
from ldappolicy.request import Request
from ldappolicy.residue import TEMPORARY_LOOKUP_FAILURE
from ldappolicy.resolver import Resolver
from ldappolicy.revision import held_back

MAX_ROUNDS = 200
"""Every round of lookups goes one level of nesting deeper; no sane directory nests as far."""

RIGHTS = "attributeLevelRights"
"""What an account may do with each attribute, as `name:rsc, name:none` (see `Search.rights_of`)."""

logger = logging.getLogger("ldappolicy.service")


@dataclass(frozen=True, slots=True)
class Settings:
    """What the service needs of the configuration."""

    search_base: str
    policy_base: str
    mapping: AttributeMapping
    choices: Choices = field(default_factory=Choices)
    request_timeout: float = 5.0
    decision_id_in_text: bool = False
    account: str = ""
    """The DN that the directory is asked as, where the configuration has it."""


class Service:
    """Decides requests. `resolver` answers lookups from the same directory that holds the policies.

    `decisions` is where decisions are written; None: nowhere.
    """

    def __init__(self, resolver: Resolver, settings: Settings, decisions: DecisionLog | None = None) -> None:
        self.resolver = resolver
        self.settings = settings
        self.counters = resolver.counters
        self._clock = resolver.clock
        self.evaluator: Evaluator | None = None
        self.policy_entries: Sequence[Entry] = ()
        self._is_recalled = False
        self._ready = ReadyReplies()
        self._shared: Memory[int, _Shared] = Memory(BOUNDS["shared replies"])
        """By the identity of the decision, which is kept alive there: no other has the same."""
        self._durations = self.counters.request_durations
        self._hits = self.counters.cache["hit"]
        self._misses = self.counters.cache["miss"]
        self._decisions = decisions
        self._warnings = Limited(logger, most=3)
        self._are_rights_told = False
        self._errors = Limited(logger)

    # ------------------------------------------------------------ deciding

    def answer(self, data: bytes) -> bytes | Request | None:
        """The reply to the one whole request that `data` is, as Postfix sends it.

        The request itself, where `decide` has to be asked; None, where `data` has to be read otherwise.
        """
        began = self._clock()
        ready = self._ready
        glance = ready.read(data)
        if glance is None:
            return None
        key, match = glance
        resolver = self.resolver
        facts = resolver.current if began < resolver.current_until else resolver.facts(began)
        if facts is not ready.facts:
            ready.begin(facts)
        known = ready.replies.get(key)
        if known is None:
            return self._answer_anew(data, key, match, began)
        # As `_count` does, without the calls: nearly every request comes here.
        known.tally.value += 1
        self._hits.value += 1
        seconds = self._clock() - began
        durations = self._durations
        durations.counts[bisect_left(durations.bounds, seconds)] += 1
        durations.total += seconds
        if known.line:
            assert self._decisions is not None
            self._decisions.write(known.line, ready.shown(match), seconds, resolver.age(began))
        return known.reply

    def _answer_anew(
        self, data: bytes, key: bytes, match: re.Match[bytes], began: float
    ) -> bytes | Request | None:
        """The answer to a request like which there was none since the facts are what they are."""
        evaluator, ready = self.evaluator, self._ready
        if evaluator is None:
            return _request(data)
        context = ready.context(data, match)
        assert ready.facts is not None
        begun = None if context is None else evaluator.recall(context, match, ready.facts)
        shared = self._shared.get(id(begun))
        if shared is not None and not shared.is_logged:
            kept = shared.ready
            self._count(kept, began)
        else:
            request = _request(data)
            if request is None:
                return None
            if isinstance(begun, Decision):
                decision: Decision | Lacking = begun
            else:
                decision = evaluator.evaluate(request, ready.facts, begun=begun)
            if isinstance(decision, Lacking) or decision.action is None:
                return request
            kept, is_lasting = self._decided(request, decision, began)
            if not is_lasting:
                return kept.reply
        ready.keep(key, kept, len(data), evaluator.looks)
        return kept.reply

    def _decided(self, request: Request, decision: Decision, began: float) -> tuple[Ready, bool]:
        """The reply to a request that was decided now, and whether it is that of all requests like it."""
        shared = self._shared.get(id(decision))
        if shared is None:
            self._hits.value += 1
            concluded = self._conclude(request, decision, began)
            assert concluded.action is not None
            ready = Ready(encode_reply(concluded.action), concluded.tally, concluded.line)
            is_alike = concluded.is_lasting and not decision.unknown_login  # of those the log names some
            if is_alike:
                alike = _Shared(decision, Ready(ready.reply, ready.tally), is_logged=bool(ready.line))
                size = size_of(decision.action or "", decision.restriction, decision.dn)
                self._shared.keep(id(decision), alike, size + len(ready.reply))
            return ready, concluded.is_lasting
        ready = shared.ready
        seconds = self._count(ready, began)
        if shared.is_logged:
            line = self._write(request, decision, seconds, self.resolver.age(began))
            ready = Ready(ready.reply, ready.tally, line)
        return ready, True

    def _count(self, ready: Ready, began: float) -> float:
        """One more that was answered so; how long it took, in seconds."""
        ready.tally.value += 1
        self._hits.value += 1
        seconds = self._clock() - began
        self._durations.observe(seconds)
        return seconds

    def decide_now(self, request: Request) -> str | None:
        """The action for a request whose lookups are all known; None: use `decide`."""
        began = self._clock()
        if self.evaluator is None:
            return None
        decision = self.evaluator.evaluate(request, self.resolver.facts())
        if isinstance(decision, Lacking) or decision.action is None:
            return None
        self._hits.value += 1
        return self._conclude(request, decision, began).action

    async def decide(self, request: Request) -> str | None:
        """The action for a request; None: close the connection."""
        began = self._clock()
        self._misses.value += 1
        here: dict[Lookup, Outcome] = {}
        decision = await self.resolve(request, here=here)
        return self._conclude(request, decision, began, here.values()).action

    def _conclude(
        self, request: Request, decision: Decision, began: float, asked: Iterable[Outcome] = ()
    ) -> "_Concluded":
        """What is sent for a decision, which is counted and written down; `asked` was asked for."""
        action, withheld = decision.action, decision.shadowed
        if self.settings.choices.shadow:
            action = "DUNNO"
            withheld = (*withheld, *([decision.action] if decision.action not in ("DUNNO", "OK") else ()))
        action, number = self._numbered(decision, action)
        seconds = self._clock() - began
        self._durations.observe(seconds)
        family = self.counters.unknown_logins if decision.unknown_login else self.counters.requests
        tally = family[action_label(action), decision.policy]
        tally.value += 1
        for would in withheld:
            self.counters.shadow[action_label(would)].value += 1
        self._complain(request, decision)
        line = ""
        if self._decisions is not None and self._decisions.wants(decision):
            line = self._write(request, decision, seconds, self.resolver.age(began, asked), number)
        told = decision.notes or decision.outages or decision.error or decision.unavailable or withheld
        return _Concluded(action, tally, line, is_lasting=not (told or number or decision.is_passing))

    def _numbered(self, decision: Decision, action: str | None) -> tuple[str | None, str]:
        """The action with the number of a decision that is logged behind its text, if so configured."""
        if not self.settings.decision_id_in_text or self._decisions is None or action is None:
            return action, ""
        if not self._decisions.wants(decision):
            return action, ""
        number = self._decisions.next_id()
        numbered = with_id(action, number)
        return numbered, "" if numbered is action else number

    def _write(
        self, request: Request, decision: Decision, seconds: float, age: float | None, number: str = ""
    ) -> str:
        """Writes a decision to its log; what that says of all requests alike."""
        decisions = self._decisions
        assert decisions is not None
        line = decisions.alike(request, decision)
        decisions.write(line, shown_of(request), seconds, age, number)
        return line

    async def resolve(
        self,
        request: Request,
        trace: list[dict[str, Any]] | None = None,
        here: dict[Lookup, Outcome] | None = None,
    ) -> Decision:
        """Decides a request, asking the directory for what is lacking.

        `trace` gets the last path, `here` what was asked for.
        """
        evaluator = self.evaluator
        if evaluator is None:
            return self._without_policies()
        here = {} if here is None else here
        deadline = asyncio.get_running_loop().time() + self.settings.request_timeout
        rounds = 0
        while True:
            decision = _evaluate(evaluator, request, self.resolver, here, None)
            if isinstance(decision, Decision):
                break
            rounds += 1
            if rounds < MAX_ROUNDS:
                here.update(await self._fetch(decision, deadline))
            else:
                here.update(dict.fromkeys(decision.lookups, Missed("groups are nested too deep")))
        if trace is not None:
            _evaluate(evaluator, request, self.resolver, here, trace)
        return decision

    async def _fetch(self, lacking: Lacking, deadline: float) -> Mapping[Lookup, Outcome]:
        """The lacking lookups, or Missed for those that take too long."""
        if asyncio.get_running_loop().time() < deadline:
            try:
                async with asyncio.timeout_at(deadline):
                    return await self.resolver.fetch(lacking.lookups)
            except TimeoutError:
                pass
        reason = f"no answer within the request_timeout of {self.settings.request_timeout:g} s"
        return {lookup: self.resolver.last_known(lookup, reason) for lookup in lacking.lookups}

    def _without_policies(self) -> Decision:
        choice = self.settings.choices.on_unavailable
        action = {"defer": TEMPORARY_LOOKUP_FAILURE, "dunno": "DUNNO"}.get(choice)
        return Decision(action, unavailable=True, outages=("no policy has been read yet",))

    def _complain(self, request: Request, decision: Decision) -> None:
        """Logs what is wrong about a decision."""
        for outage in decision.outages:
            self._warnings.log(logging.WARNING, f"unavailable: {outage}", key=outage.partition(": ")[2])
        if decision.unknown_login:
            login = repr(request.sasl_username[:SHOWN])
            self._warnings.log(logging.WARNING, f"login {login} belongs to nobody", key="unknown login")
        if decision.error:
            text = f"server configuration error: {decision.error} ({_description(request, decision)})"
            self._errors.log(logging.ERROR, text, key=decision.error)
        for note in decision.notes:
            logger.warning("%s (%s)", note, _description(request, decision))

    # ------------------------------------------------------------ policies

    def with_settings(self, settings: Settings, decisions: DecisionLog | None = None) -> "Service":
        """A service with other settings over the same caches, the same policies in force."""
        service = Service(self.resolver, settings, decisions)
        service.take_over(self)
        return service

    def take_over(self, other: "Service") -> None:
        """Starts with the policies that another service has in force."""
        self.policy_entries = other.policy_entries
        if other.evaluator is not None:
            self._put_in_force(other.evaluator.policies)

    def recall(self, entries: Sequence[Entry]) -> bool:
        """Puts the policies of another time in force; False when there is none to serve with."""
        policies = read_policies(entries, self._bases)
        if not isinstance(policies.policies.get(self.settings.choices.default), Policy):
            return False
        self.policy_entries = entries
        self._put_in_force(policies)
        self._is_recalled = True
        return True

    @property
    def _bases(self) -> tuple[str, str]:
        return (normal_dn(self.settings.search_base), normal_dn(self.settings.policy_base))

    def _put_in_force(self, policies: PolicySet) -> None:
        self.evaluator = Evaluator(policies, self.settings.mapping, self.settings.choices)
        self._ready = ReadyReplies()
        self._shared.clear()

    async def read_policies(self) -> tuple[Sequence[Entry], PolicySet]:
        """All policies as the directory has them now, and the entries that hold them; raises Unavailable."""
        kinds = Or(tuple(Equality("objectClass", kind) for kind in POLICY_CLASSES))
        search = Search(self.settings.policy_base, Scope.SUB, kinds, POLICY_ATTRIBUTES)
        previous = None if self.evaluator is None else self.evaluator.policies
        entries = await self.resolver.directory.search(search)
        served = [entry for entry in entries if object_kind(entry) == "smtpdPolicy"]
        name = self.settings.choices.default
        was_there = previous is not None and isinstance(previous.policies.get(name), Policy)
        if was_there and not any(name in entry.values("cn") for entry in served):
            # It no longer shows what it has to (see `proofs`): what it has not got may be there.
            await self.resolver.directory.close()
        if not served:
            raise ConfigError(self._no_default(None))
        policies = read_policies(entries, self._bases, previous, await self._hidden_lists())
        return entries, policies if previous is None else held_back(policies, previous)

    async def _hidden_lists(self) -> Mapping[str, list[str]]:
        """The lists that the account may not read, by policy, where the server tells it.

        Raises Unavailable when a server does not, and told it before: one that never did may not want to.
        """
        account, directory = self.settings.account, self.resolver.directory
        if not account or not directory.features.tells_rights:
            return {}
        policies = Equality("objectClass", "smtpdPolicy")
        asked = (*LISTS.values(), RIGHTS)
        search = Search(self.settings.policy_base, Scope.SUB, policies, asked, rights_of=account)
        try:
            shown = await directory.search(search)
        except Unavailable:
            if self._are_rights_told:
                raise
            return {}
        self._are_rights_told = True
        return {
            entry.key: [name for name in LISTS.values() if "r" not in may(entry, name)] for entry in shown
        }

    async def reload(self) -> bool:
        """Reads the policies and puts them in force; whether anything changed.

        Raises Unavailable when the directory does not answer, ConfigError when it holds no policy to
        serve with; what was in force stays so.
        """
        entries, policies = await self.read_policies()
        found = policies.policies.get(self.settings.choices.default)
        if not isinstance(found, Policy):
            raise ConfigError(self._no_default(found))
        self.policy_entries = self._last_good(entries, policies)
        self.resolver.directory.set_proofs(self.proofs(in_force=True))
        before = self.evaluator.policies if self.evaluator is not None else PolicySet()
        same = before.revision == policies.revision and before.faults == policies.faults
        if same and not self._is_recalled:
            return False
        self._is_recalled = False
        for fault in policies.faults:
            if fault not in before.faults:
                logger.log(logging.ERROR if fault.error else logging.WARNING, "%s", fault.what)
        self._put_in_force(policies)
        self.resolver.look_ahead((facts.dynamic(), facts.carrying()))
        return True

    def _last_good(self, entries: Sequence[Entry], policies: PolicySet) -> list[Entry]:
        """The entries, where one is wrong as it was before."""
        if policies.kept:  # they go with classes and tables that may be gone
            return list(self.policy_entries)
        wrong = {fault.dn for fault in policies.faults if fault.error}
        before = {entry.key: entry for entry in self.policy_entries}
        return [before.get(entry.key, entry) if entry.dn in wrong else entry for entry in entries]

    def _no_default(self, found: Broken | None) -> str:
        name, base = self.settings.choices.default, self.settings.policy_base
        if found is None:
            return f"{base}: no policy named {name!r}, expected a smtpdPolicy with that cn"
        return f"{found.dn}: the default policy does not parse: {found.reason}"

    def urls(self) -> list[str]:
        """The smtpdAccessURLs of the policies in force."""
        policies = self.evaluator.policies if self.evaluator is not None else PolicySet()
        tables = chain.from_iterable(one.tables.values() for one in (policies, *policies.kept.values()))
        parts = (part for table in tables if isinstance(table, Table) for part in table.parts)
        return list(dict.fromkeys(url for part in parts for url in part.urls))

    def proofs(self, *, in_force: bool = False) -> tuple[Search, ...]:
        """What a server has to show before it is believed that something is not there.

        The search base always, and the default policy once it is in force: an empty replica, or an
        account that lost its rights, shows neither.
        """
        base = shown_by_all(self.settings.search_base)
        if self.evaluator is None and not in_force:
            return (base,)
        name = Equality("cn", self.settings.choices.default)
        default = And((Equality("objectClass", "smtpdPolicy"), name))
        return (base, Search(self.settings.policy_base, Scope.SUB, default, ("1.1",)))


def shown_by_all(search_base: str) -> Search:
    """What every server has to show, whatever the policies are."""
    return Search(search_base, Scope.BASE, Present("objectClass"), ("1.1",))


def may(entry: Entry, name: str) -> str:
    """What RIGHTS says of an attribute, a letter for each right: r reads, w and o write; `r` if nothing."""
    told = (right.strip() for value in entry.values(RIGHTS) for right in value.split(","))
    rights = {attribute.lower(): letters for attribute, _, letters in (one.partition(":") for one in told)}
    letters = rights.get(name.lower(), "r")
    return "" if letters == "none" else letters


def _request(data: bytes) -> Request | None:
    """The one request that `data` is, if it is as Postfix sends it."""
    values = plain_values(data)
    return None if values is None else Request._make(values)


@dataclass(frozen=True, slots=True)
class _Shared:
    """What a decision comes to for every request that is decided so, but for its line in the log."""

    decision: Decision
    ready: Ready
    is_logged: bool


class _Concluded(NamedTuple):
    """What is sent for a decision; `is_lasting`: the same, with this `line`, for all requests like it."""

    action: str | None
    tally: Tally
    line: str
    is_lasting: bool


def _evaluate(
    evaluator: Evaluator,
    request: Request,
    resolver: Resolver,
    here: Mapping[Lookup, Outcome],
    trace: list[dict[str, Any]] | None,
) -> Decision | Lacking:
    """One round. What this request has fetched stays as it was, whatever the cache does meanwhile."""

    def get(lookup: Lookup) -> Outcome | None:
        return here.get(lookup) or resolver.known(lookup)

    known = resolver.facts()
    return evaluator.evaluate(request, known.asking(get), trace)


def _description(request: Request, decision: Decision) -> str:
    """A request and its decision in one line; the log escapes what came from outside."""
    fields = {
        "queue_id": shortened(request.queue_id or request.instance),
        "state": shortened(request.protocol_state),
        "policy": decision.policy,
        "client": f"{shortened(request.client_name)}[{shortened(request.client_address)}]",
        "sender": f"<{shortened(request.sender)}>",
        "recipient": f"<{shortened(request.recipient)}>",
        "login": shortened(request.sasl_username),
        "action": repr(shortened(decision.action or "disconnect")),
    }
    return " ".join(f"{name}={value}" for name, value in fields.items() if value)
