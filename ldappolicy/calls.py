"""Where Postfix calls the policy service, and what stands around the call: main.cf and master.cf, judged.

The grammar is that of smtpd_recipient_restrictions in postconf(5) and of check_policy_service in Postfix's
SMTPD_POLICY_README: a TARGET, or `{ TARGET, name=value, { name = text } }`. Restriction classes are followed
by their names, `warn_if_reject` is kept with what it warns of. A class that reaches itself, which smtpd(8)
follows without end, is an error, and so are classes nested deeper or lists longer than anybody writes.

A call is **ours** when its target is one of `[server] listen` (any loopback address stands for another, a
listener on all addresses for any host, a path for its end below queue_directory). Without one, ours are
the calls of our port on another machine and those whose policy_context names a policy; without these, every
one.

An **error** is what certainly leaves clients or recipients unasked, or makes an open relay; a **warning** is
what may, or is hardly meant. A permit ends its own list only: a call in front of reject_unauth_destination
is an open relay unless another list has that without a call before it.

BUGS: what a table of main.cf says is not looked at: that it can permit is a warning, and a call in a class
that only a table names is not found.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from ldappolicy import vocabulary
from ldappolicy.action import Kind, parse_action, split_list
from ldappolicy.config import Inet, Listener, Unix, is_loopback
from ldappolicy.errors import InputError
from ldappolicy.evaluate import LISTS_OF_STATE
from ldappolicy.main_cf import MainCf, MasterService
from ldappolicy.policy import (
    LISTS,
    PARAMETERS,
    Fault,
    Item,
    Policy,
    PolicySet,
    parse_right_hand_side,
    parse_static,
)

AT_RCPT = LISTS_OF_STATE["RCPT"]

_STATES_IF_DELAYED = {
    "client": ("RCPT", "ETRN"),
    "helo": ("RCPT", "ETRN"),
    "sender": ("RCPT",),
    "relay": ("RCPT",),
    "recipient": ("RCPT",),
    "data": ("DATA",),
    "end_of_data": ("END-OF-MESSAGE",),
    "etrn": ("ETRN",),
}
_STATES_AT_ONCE = {**_STATES_IF_DELAYED, "client": ("CONNECT",), "helo": ("EHLO",), "sender": ("MAIL",)}

_SUBMISSION = frozenset(("submission", "submissions", "smtps", "587", "465"))
_GUARDS = frozenset(("reject_unauth_destination", "defer_unauth_destination", "reject", "defer"))
_LETS_THROUGH = frozenset(
    ("permit", "permit_mynetworks", "permit_sasl_authenticated", "permit_auth_destination")
)
_ENDS = frozenset(("permit", "reject", "defer"))

_DEPTH = 100  # of classes within one another, as when they are evaluated
_STEPS = 1_000  # of one list, classes taken apart: each call is compared with all that stands around it

_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
# postconf(5), Postfix 3.12: what a service-specific setting has when neither it nor its parameter is set.
_DEFAULTS = {"timeout": "100s", "default_action": "451 4.3.5 Server configuration problem"}


@dataclass(frozen=True, slots=True)
class Site:
    """What the calls are compared with: the policies, and what the configuration says."""

    policies: PolicySet
    default: str
    listen: Sequence[Listener] = ()
    permit_ok: bool = False
    request_timeout: float = 5.0
    login_realms: frozenset[str] = frozenset()

    def policy(self, name: str) -> Policy | None:
        """A policy that parsed."""
        found = self.policies.policies.get(name)
        return found if isinstance(found, Policy) else None


@dataclass(frozen=True, slots=True)
class Step:
    """One restriction of a list, classes taken apart; `warned` is whether warn_if_reject covers it."""

    item: Item
    warned: bool


@dataclass(frozen=True, slots=True)
class Call:
    """One check_policy_service: the list that it stands in, what stands there before and behind it."""

    stage: str
    target: str
    options: Mapping[str, str]
    warned: bool = False
    before: tuple[Step, ...] = field(default=(), repr=False)
    behind: tuple[Step, ...] = field(default=(), repr=False)

    @property
    def parameter(self) -> str:
        """The parameter that it stands in."""
        return PARAMETERS[self.stage]


class _Classes:
    """The restriction classes of one smtpd(8), each taken apart once."""

    def __init__(self, get: Callable[[str], str]) -> None:
        self._get = get
        self._known: dict[str, tuple[tuple[Step, ...], int]] = {}
        self._inside: list[str] = []

    @cached_property
    def _names(self) -> frozenset[str]:
        return frozenset(split_list(self._get("smtpd_restriction_classes")))

    def steps(self, text: str) -> tuple[Step, ...]:
        """A list, classes taken apart; raises InputError when it is none, or too much of one."""
        self._inside.clear()
        return self._list(text)[0]

    def _list(self, text: str) -> tuple[tuple[Step, ...], int]:
        """The restrictions, and how deep the classes among them are nested."""
        found: list[Step] = []
        depth, is_warned = 0, False
        for item in parse_right_hand_side(split_list(text)):
            if item.name.lower() == "warn_if_reject":
                is_warned = True
                continue
            steps: tuple[Step, ...] = (Step(item, is_warned),)
            if item.name in self._names and item.name.lower() not in vocabulary.BUILT_IN:
                steps, inner = self._class(item.name)
                depth = max(depth, inner + 1)
                if is_warned:
                    steps = tuple(Step(step.item, warned=True) for step in steps)
            found += steps
            if len(found) > _STEPS:
                raise InputError(f"more than {_STEPS:,} restrictions, those of its classes included")
            is_warned = False
        return tuple(found), depth

    def _class(self, name: str) -> tuple[tuple[Step, ...], int]:
        if name in self._inside:
            raise InputError(f"class {name!r} reaches itself")
        if name not in self._known:
            self._require_depth(name, 1)
            self._inside.append(name)
            self._known[name] = self._list(self._get(name))
            self._inside.pop()
        found = self._known[name]
        self._require_depth(name, found[1] + 1)
        return found

    def _require_depth(self, name: str, below: int) -> None:
        if len(self._inside) + below > _DEPTH:
            first = (*self._inside, name)[0]
            raise InputError(f"class {first!r} holds more than {_DEPTH} classes within one another")


class Smtpd:
    """The parameters of one smtpd(8): those of main.cf, and what its entry in master.cf overrides."""

    def __init__(self, main: MainCf, service: MasterService | None = None) -> None:
        self.main = main if service is None else main.of_service(service)
        self.name = "" if service is None else service.name
        self.place = str(main.path) if service is None else f"{service.path}:{service.line}"
        self.get = self.main.get
        self.where = self.main.where

    def is_on(self, name: str) -> bool:
        """A boolean that is yes by default."""
        return self.get(name).strip().lower() != "no"

    # ------------------------------------------------------------ lists

    @cached_property
    def _read(self) -> tuple[Mapping[str, tuple[Step, ...]], tuple[Fault, ...]]:
        """Every list, empty where it cannot be read, and the faults of those."""
        lists, faults = {}, []
        classes = _Classes(self.get)
        for stage, parameter in PARAMETERS.items():
            try:
                lists[stage] = classes.steps(self.get(parameter))
            except InputError as problem:
                lists[stage] = ()
                faults.append(Fault(True, self.where(parameter), parameter, str(problem)))
        return lists, tuple(faults)

    @property
    def lists(self) -> Mapping[str, tuple[Step, ...]]:
        """Every list that can be read, classes taken apart."""
        return self._read[0]

    @property
    def unreadable(self) -> tuple[Fault, ...]:
        """What is wrong with the others."""
        return self._read[1]

    @cached_property
    def calls(self) -> tuple[Call, ...]:
        """Every check_policy_service, whoever is called."""
        return tuple(
            call
            for stage, steps in self.lists.items()
            for at, step in enumerate(steps)
            if (call := _call(stage, step, steps[:at], steps[at + 1 :])) is not None
        )

    def states(self, stage: str) -> tuple[str, ...]:
        """The protocol states in which a list is run."""
        return (_STATES_IF_DELAYED if self.is_on("smtpd_delay_reject") else _STATES_AT_ONCE)[stage]

    def setting(self, call: Call, name: str) -> str:
        """What a call says of itself, or smtpd_policy_service_NAME."""
        own = call.options.get(name)
        return own if own is not None else self.get(f"smtpd_policy_service_{name}") or _DEFAULTS.get(name, "")


def _call(stage: str, step: Step, before: tuple[Step, ...], behind: tuple[Step, ...]) -> Call | None:
    if step.item.name.lower() != "check_policy_service":
        return None
    target, *options = split_list(step.item.argument) or ("",)
    pairs = [option.strip("{}").partition("=") for option in options]
    settings = {name.strip(): value.strip() for name, _, value in pairs}
    return Call(stage, target, settings, step.warned, before, behind)


# ---------------------------------------------------------------- which calls are ours


def _is_target(target: str, listener: Listener, queue_directory: str) -> bool:
    """Whether a target of main.cf is that listener."""
    kind, _, place = target.partition(":")
    if isinstance(listener, Unix):
        below = f"{queue_directory.rstrip('/')}/{place.lstrip('/')}"
        return kind == "unix" and listener.path in (place, below)
    host, port = _host_and_port(place)
    if kind != "inet" or port != str(listener.port):
        return False
    if listener.host in ("0.0.0.0", "::"):  # noqa: S104 - compared, not bound
        return True
    return host.lower() == listener.host.lower() or (is_loopback(host) and is_loopback(listener.host))


def _host_and_port(place: str) -> tuple[str, str]:
    """`host:port`, or a port alone, which is on this machine."""
    host, _, port = place.rpartition(":")
    return host.strip("[]") or "127.0.0.1", port


class Ours:
    """The calls of one Postfix that are for this service."""

    def __init__(self, smtpds: Iterable[Smtpd], site: Site) -> None:
        self._site = site
        calls: dict[str, list[str]] = {}
        exact: set[str] = set()
        for smtpd in smtpds:
            queue_directory = smtpd.get("queue_directory") or "/var/spool/postfix"
            for call in smtpd.calls:
                calls.setdefault(call.target, []).append(smtpd.setting(call, "policy_context"))
                if any(_is_target(call.target, one, queue_directory) for one in site.listen):
                    exact.add(call.target)
        near = {target for target, contexts in calls.items() if self._is_near(target, contexts)}
        self.targets = frozenset(exact or near or calls)
        self.is_sure = bool(exact) or not calls

    def _is_near(self, target: str, contexts: Iterable[str]) -> bool:
        ports = {str(listener.port) for listener in self._site.listen if isinstance(listener, Inet)}
        if target.startswith("inet:") and _host_and_port(target)[1] in ports:
            return True
        return any(context and _named(context)[0] in self._site.policies.policies for context in contexts)

    def of(self, smtpd: Smtpd) -> tuple[Call, ...]:
        """Those of one smtpd."""
        return tuple(call for call in smtpd.calls if call.target in self.targets)


def _named(context: str) -> tuple[str, str, str]:
    """Policy, slash, list."""
    return context.partition("/")


# ---------------------------------------------------------------- one smtpd


Evaluated = frozenset[tuple[str, str]]
"""(policy, list) pairs that are evaluated."""


class Standing:
    """What is wrong with the calls of one smtpd."""

    def __init__(self, smtpd: Smtpd, ours: Ours, site: Site) -> None:
        self._smtpd = smtpd
        self._site = site
        self.calls = ours.of(smtpd)
        self._ours = ours.targets

    def _policy(self, call: Call) -> str:
        return _named(self._smtpd.setting(call, "policy_context"))[0] or self._site.default

    def _evaluates_in(self, call: Call) -> frozenset[tuple[str, str, str]]:
        """(state, policy, list): what a call evaluates of what its policy has."""
        name = self._policy(call)
        policy = self._site.policy(name)
        return frozenset(
            (state, name, one)
            for state in self._smtpd.states(call.stage)
            for one in self._asks(call, state)
            if policy is None or one in policy.lists
        )

    def _asks(self, call: Call, state: str) -> tuple[str, ...]:
        """The lists that a call asks for in a state, whether its policy has them or not."""
        only = _named(self._smtpd.setting(call, "policy_context"))[2]
        return (only,) if only else LISTS_OF_STATE[state]

    @cached_property
    def evaluated(self) -> Evaluated:
        """What all the calls evaluate."""
        return frozenset((name, one) for call in self.calls for _, name, one in self._evaluates_in(call))

    @cached_property
    def protected(self) -> Evaluated:
        """What of it is evaluated where it can refuse, and in a state that Postfix runs such a list in."""
        return frozenset(
            (name, one)
            for call in filter(_has_effect, self.calls)
            for state, name, one in self._evaluates_in(call)
            if one in LISTS_OF_STATE[state]
        )

    @property
    def policies(self) -> frozenset[str]:
        """The names of the policies that are called."""
        return frozenset(map(self._policy, self.calls))

    def lists_beside(self, others: frozenset[str]) -> tuple[frozenset[str], frozenset[str]]:
        """The lists that it asks a policy of its own for, and those of the same states that it might have."""
        asked: set[str] = set()
        near: set[str] = set()
        for call in filter(_has_effect, self.calls):
            if self._policy(call) not in others:
                for state in self._smtpd.states(call.stage):
                    asked.update(self._asks(call, state))
                    near.update(LISTS_OF_STATE[state])
        return frozenset(asked), frozenset(near)

    def faults(self) -> Iterator[Fault]:
        """All of them."""
        for call in self.calls:
            yield from self._of_context(call)
            yield from self._of_settings(call)
            yield from self._of_what_warns(call)
        yield from self._behind_a_permit()
        yield from self._never_reached()
        yield from self._open_relay()
        yield from self._several_times()
        yield from self._without_delay()
        yield from self._logins()

    def _fault(self, error: bool, call: Call, text: str) -> Fault:
        return Fault(error, self._smtpd.where(call.parameter), call.parameter, text)

    # ------------------------------------------------------------ the call itself

    def _of_context(self, call: Call) -> Iterator[Fault]:
        context = self._smtpd.setting(call, "policy_context")
        name, slash, stage = _named(context)
        if self._policy(call) not in self._site.policies.policies:
            yield self._fault(True, call, f"policy_context {context!r} names a policy that is not there")
        elif slash and stage not in LISTS:
            expected = ", ".join(f"{name}/{one}" for one in ("sender", "recipient"))
            yield self._fault(
                True, call, f"policy_context {context!r} names no list, expected {expected}, ..."
            )
        elif slash and stage != call.stage:
            text = f"policy_context {context!r} calls for another list than the one that it stands in"
            yield self._fault(False, call, f"{text}, expected {name}/{call.stage}")

    def _of_settings(self, call: Call) -> Iterator[Fault]:
        timeout = self._smtpd.setting(call, "timeout")
        seconds = _seconds(timeout)
        if seconds is not None and seconds < self._site.request_timeout:
            text = f"timeout {timeout!r} is shorter than [server] request_timeout"
            where, parameter = self._place_of(call, "timeout")
            yield Fault(
                False, where, parameter, f"{text}, {self._site.request_timeout:g}s: Postfix gives up first"
            )
        action = self._smtpd.setting(call, "default_action")
        problem = _in_an_outage(action)
        if problem:
            where, parameter = self._place_of(call, "default_action")
            yield Fault(
                False, where, parameter, f"default_action {action!r} {problem} while the service is gone"
            )

    def _place_of(self, call: Call, setting: str) -> tuple[str, str]:
        """Where a setting of a call is made."""
        parameter = call.parameter if setting in call.options else f"smtpd_policy_service_{setting}"
        return self._smtpd.where(parameter), parameter

    def _of_what_warns(self, call: Call) -> Iterator[Fault]:
        if call.warned:
            text = "warn_if_reject before the call: what the policy refuses is logged and let through"
            yield self._fault(False, call, text)

    def _without_delay(self) -> Iterator[Fault]:
        early = [call.parameter for call in self.calls if call.stage in ("client", "helo", "sender")]
        if early and not self._smtpd.is_on("smtpd_delay_reject"):
            text = f"with 'no' {' and '.join(early)} is asked before there is a recipient, expected yes"
            yield Fault(False, self._smtpd.where("smtpd_delay_reject"), "smtpd_delay_reject", text)

    def _logins(self) -> Iterator[Fault]:
        """The realm that Cyrus SASL puts behind a login without one, which no entry may have."""
        name = "smtpd_sasl_local_domain"
        realm = self._smtpd.get(name).strip()
        is_known = not realm or self._smtpd.main.lacking(name) or realm.casefold() in self._site.login_realms
        if self.calls and not is_known and self._smtpd.get("smtpd_sasl_auth_enable").strip().lower() == "yes":
            text = (
                f"logins may come as 'name@{realm}': where no entry has that as a login or address they are"
            )
            text += f" nobody's, expected {realm!r} in [directory] login_realms"
            yield Fault(False, self._smtpd.where(name), name, text)

    # ------------------------------------------------------------ what stands around it

    def _behind_a_permit(self) -> Iterator[Fault]:
        """Calls that somebody is let past, unless another call asks about all the same."""
        free = [call for call in self.calls if _has_effect(call) and not any(_permits(call, self._ours))]
        elsewhere = frozenset().union(*map(self._evaluates_in, free))
        for call in self.calls:
            state, *_ = self._smtpd.states(call.stage)
            here = {one for one in self._evaluates_in(call) if one[0] == state}
            if not here or not here <= elsewhere:
                for item, is_certain in _permits(call, self._ours):
                    yield self._fault(is_certain, call, _let_past(item, is_certain))

    def _never_reached(self) -> Iterator[Fault]:
        for call in self.calls:
            refuses = (step.item.name for step in call.before if not step.warned)
            end = next((name for name in refuses if name.lower() in ("reject", "defer")), "")
            if end:
                yield self._fault(False, call, f"the call is never reached: {end} before it ends the list")

    def _open_relay(self) -> Iterator[Fault]:
        """Calls in front of the restriction that refuses to relay."""
        guarded = {stage for stage in self._with_recipient() if self._is_guarded(stage)}
        for call in self.calls:
            guard = next(_guards(call.behind), "")
            if call.stage not in AT_RCPT or not guard or next(_guards(call.before), ""):
                continue
            text = f"the call stands in front of {guard}"
            others = sorted(PARAMETERS[stage] for stage in guarded - {call.stage})
            if others and self._site.permit_ok:
                text += f', which permit_reply = "OK" passes over: only {others[0]} refuses to relay'
                yield self._fault(False, call, text)
            elif self._site.permit_ok:
                yield self._fault(True, call, text + ' while [policy] permit_reply = "OK": an open relay')
            elif not others:
                text += ": restrictions left to Postfix that can permit would make an open relay"
                yield self._fault(False, call, text)

    def _with_recipient(self) -> tuple[str, ...]:
        """The lists that are run when there is a recipient."""
        return AT_RCPT if self._smtpd.is_on("smtpd_delay_reject") else ("relay", "recipient")

    def _is_guarded(self, stage: str) -> bool:
        """Whether a list refuses to relay before any call of ours, and before it permits everything."""
        for step in self._smtpd.lists[stage]:
            if next(_guards((step,)), ""):
                return True
            if step.item.name.lower() == "permit" or self._is_ours(step):
                return False
        return False

    def _is_ours(self, step: Step) -> bool:
        call = _call("", step, (), ())
        return call is not None and call.target in self._ours

    def _several_times(self) -> Iterator[Fault]:
        """Lists of a policy that are evaluated more than once for one request."""
        first: dict[tuple[str, str, str], Call] = {}
        for call in self.calls:
            here = self._evaluates_in(call)
            again = sorted(here & first.keys())
            if again:
                lists = " and ".join(LISTS[one] for one in LISTS if one in {one for *_, one in again})
                text = f"{lists} of policy {again[0][1]!r} evaluated again, after {first[again[0]].parameter}"
                yield self._fault(False, call, f"{text}, expected one call, or NAME/LIST in each list")
            first = {**dict.fromkeys(here, call), **first}


def _let_past(item: str, is_certain: bool) -> str:
    if item.lower() == "permit":
        return "the call is never reached: permit before it ends the list"
    lets = "it lets" if is_certain else "it may let"
    return f"the call stands behind {item}: who {lets} through is never asked about"


def _is_end(step: Step) -> bool:
    """Whether nothing behind it is ever reached."""
    name = step.item.name.lower()
    return name in _ENDS and not (step.warned and name != "permit")


def _has_effect(call: Call) -> bool:
    """Whether a call is reached, and what the policy refuses is refused."""
    return not call.warned and not any(map(_is_end, call.before))


def _permits(call: Call, ours: frozenset[str]) -> Iterator[tuple[str, bool]]:
    """What can permit before a call, and whether it certainly does for somebody."""
    for step in call.before:
        name = step.item.name.lower()
        if name.startswith("permit"):
            yield str(step.item), name in _LETS_THROUGH
        elif _may_say_ok(step, ours):
            yield str(step.item), False
        if _is_end(step):
            return


def _may_say_ok(step: Step, ours: frozenset[str]) -> bool:
    """Whether a table or another policy service may permit."""
    item = step.item
    if item.table is not None:
        if item.name.lower() == "check_reverse_client_hostname_access":
            return False
        return item.table.type != "static" or _can_permit(item.table.name)
    foreign = _call("", step, (), ())
    return foreign is not None and foreign.target not in ours


def _can_permit(value: str) -> bool:
    action = parse_static(value)
    return action.kind is Kind.PERMIT or any(token.lower().startswith("permit") for token in action.tokens)


def _guards(steps: Iterable[Step]) -> Iterator[str]:
    return (step.item.name for step in steps if step.item.name.lower() in _GUARDS and not step.warned)


def _seconds(text: str) -> float | None:
    """A time of main.cf."""
    found = re.fullmatch(r"([0-9]+)([smhdw]?)", text.strip())
    return float(found[1]) * _UNITS[found[2]] if found else None


def _in_an_outage(value: str) -> str:
    """What is wrong with a default_action."""
    action = parse_action(value)
    first = action.tokens[0].lower() if action.tokens else ""
    if action.kind in (Kind.REFUSE, Kind.LIST) and not action.temporary:
        refuses = action.kind is Kind.REFUSE or first == "reject"
        return (
            "refuses mail for good"
            if refuses
            else ("lets mail through" if first.startswith("permit") else "")
        )
    opens = (Kind.PERMIT, Kind.DUNNO, Kind.LOG, Kind.EFFECT)
    return "lets mail through" if action.kind in opens else ""


# ---------------------------------------------------------------- the whole of it


def judge(main: MainCf, master: Sequence[MasterService], site: Site) -> tuple[list[Fault], set[str]]:
    """What is wrong with the calls, and the names of the policies that are called."""
    plain = Smtpd(main)
    services = [Smtpd(main, service) for service in master if _is_smtpd(service)]
    ours = Ours([plain, *services], site)
    unreadable = [fault for smtpd in (plain, *services) for fault in smtpd.unreadable]
    if not ours.targets:
        text = f"no list calls a policy service, expected check_policy_service {_some(site.listen)}"
        return _once([*unreadable, Fault(True, plain.place, PARAMETERS["recipient"], text)]), set()
    faults = [*unreadable, *_doubt(plain, services, ours, site)]
    standing = [Standing(smtpd, ours, site) for smtpd in (plain, *services)]
    for one in standing:
        faults += one.faults()
    model = standing[0] if standing[0].calls else max(standing, key=lambda one: len(one.evaluated))
    evaluated = frozenset().union(*(one.evaluated for one in standing))
    policies = set().union(*(one.policies for one in standing))
    for service, one in zip(services, standing[1:], strict=True):
        faults += _lacking(service, one, model)
    faults += _not_called(plain, policies, evaluated, site)
    return _once(faults), policies


def _some(listen: Sequence[Listener]) -> str:
    return " or ".join(map(str, listen)) or "TARGET"


def _is_smtpd(service: MasterService) -> bool:
    return service.command == "smtpd" and service.kind in ("inet", "pass")


def _doubt(plain: Smtpd, services: Sequence[Smtpd], ours: Ours, site: Site) -> Iterator[Fault]:
    """Says which calls are taken for ours when none is to be recognised."""
    if ours.is_sure:
        return
    first = next(
        (smtpd.where(call.parameter), call.parameter)
        for smtpd in (plain, *services)
        for call in ours.of(smtpd)
    )
    taken = " and ".join(sorted(ours.targets))
    yield Fault(
        False, *first, f"nothing calls {_some(site.listen)}, the [server] listen; {taken} is taken for it"
    )


def _lacking(service: Smtpd, standing: Standing, model: Standing) -> Iterator[Fault]:
    """What another smtpd asks for and this one does not, unless it asks a policy of its own."""
    asked, near = standing.lists_beside(model.policies)
    lacking = (model.evaluated - standing.evaluated) | (model.protected - standing.protected)
    missing = sorted(pair for pair in lacking if pair[1] not in asked)
    host, _, port = service.name.rpartition(":")
    is_submission = port in _SUBMISSION
    if not missing or (host and is_loopback(host.strip("[]")) and not is_submission):
        return
    parameters = [call.parameter for call in model.calls]
    own = next((one for one in parameters if service.where(one) == service.place), "")
    what = f"for {', '.join(map('/'.join, missing))}" if standing.calls else "the policy service"
    in_vain = standing.evaluated.issuperset(missing)
    text = f"service {service.name} {f'calls {what} in vain' if in_vain else f'does not call {what}'}"
    if own:
        text += ": what it sets here takes the place of main.cf's list"
    is_error = is_submission and any(one not in near for _, one in missing)
    yield Fault(is_error, service.place, own or parameters[0], text)


def _not_called(plain: Smtpd, policies: Iterable[str], evaluated: Evaluated, site: Site) -> Iterator[Fault]:
    """Lists that a policy has, and that nothing ever asks for."""
    for name in sorted(policies):
        policy = site.policy(name)
        for stage in policy.lists if policy is not None else ():
            if (name, stage) not in evaluated:
                text = f"policy {name!r} has {LISTS[stage]}, and nothing calls for it"
                yield Fault(False, plain.where(PARAMETERS[stage]), PARAMETERS[stage], text)


def _once(faults: Iterable[Fault]) -> list[Fault]:
    """What is said of main.cf is not said again of every service that inherits it."""
    return list(dict.fromkeys(faults))
