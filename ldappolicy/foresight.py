"""What a policy can come to, seen without a request: what one reply cannot say, before anybody asks.

Each list is walked along all its ways at once. A table is asked no key: it may find nothing, or any
right-hand side that it holds; a test of the request may come out either way. Of a way only that is kept
which a reply has to say (what is left to Postfix, HOLD and its like, how the list ends), so that there are
few. Ways of two lists of one protocol state are then put together by `residue.compose`, as they would
be for a request.

The **plain** way is the one on which no table finds anything and no test refuses or permits: there are
such requests at every site, so what it cannot say is certain; what another way cannot say is possible.

BUGS: ways are taken to be independent (a login that one list restricts may never write to the recipient
that another list holds). What is left to Postfix only for odd addresses (a destination behind `@`, `%` or
`!`, a name that is not ASCII) is taken to be decided here. A list keeps 256 ways at most.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import chain, combinations, product, takewhile

from ldappolicy import vocabulary
from ldappolicy.action import Action, Kind, parse_action
from ldappolicy.errors import InputError
from ldappolicy.evaluate import LISTS_OF_STATE
from ldappolicy.policy import (
    NOBODY_TABLE,
    Item,
    Policy,
    PolicySet,
    RestrictionClass,
    Table,
    TableName,
    covered,
    parse_inline,
    parse_right_hand_side,
    reserved_to_policies,
)
from ldappolicy.residue import End, Flag, ListOutcome, Piece, Refusal, compose
from ldappolicy.revision import actions_made_here
from ldappolicy.vocabulary import Residue

MAX_WAYS = 256

STATES = ("RCPT", "ETRN", "DATA", "END-OF-MESSAGE")
"""Those whose lists are not run together by another."""


class Contents:
    """The right-hand sides that tables hold. `sender` and `recipient` are those of directory:access."""

    def __init__(
        self, policies: PolicySet, sender: Iterable[str] = (), recipient: Iterable[str] = ()
    ) -> None:
        self.policies = policies
        self._sender = _distinct(map(parse_action, sender))
        self._recipient = _distinct(map(parse_action, recipient))
        self.of = lru_cache(maxsize=None)(self._of)

    def _of(self, table: TableName, kind: str) -> tuple[Action, ...]:
        """What a check of that kind may find in the table; nothing where the table is none."""
        if table.type == "ldap":
            return self._of_ldap(self.policies.tables.get(table.name.casefold()))
        if table.type in ("static", "inline"):
            return tuple(actions_made_here(table))
        if table == NOBODY_TABLE:
            return (parse_action("REJECT"),)
        if table.type == "directory":
            return self._recipient if kind == "recipient" else self._sender
        if table.type == "recipient":
            return (parse_action("REJECT" if table.name == "denied" else "OK"),)
        return ()

    @staticmethod
    def _of_ldap(table: object) -> tuple[Action, ...]:
        if not isinstance(table, Table):
            return ()
        actions = [action for part in table.parts for action in part.lines.values()]
        actions += [line.action for line in table.cidr]
        actions += [part.action for part in table.parts if part.members or part.urls]
        return _distinct(actions)

    def keys_of(self, table: TableName) -> tuple[str, ...]:
        """The keys of the lines of a hash table, sorted; nothing of what has no such lines."""
        if table.type == "inline":
            try:
                return tuple(sorted(parse_inline(table.name)))
            except InputError:
                return ()
        found = self.policies.tables.get(table.name.casefold()) if table.type == "ldap" else None
        parts = found.parts if isinstance(found, Table) else ()
        return tuple(sorted({key for part in parts for key in part.lines}))

    def reached(self, items: Iterable[Item], stage: str) -> tuple[RestrictionClass, ...]:
        """Every class that a list leads to, by names and by what its tables hold, by name."""
        reached: dict[str, RestrictionClass] = {}
        waiting = [items]
        while waiting:
            for name in self.classes_in(waiting.pop(), stage) - reached.keys():
                found = self.policies.classes[name]
                if isinstance(found, RestrictionClass):
                    reached[name] = found
                    waiting.append(found.items)
        return tuple(reached[name] for name in sorted(reached))

    def classes_in(self, items: Iterable[Item], stage: str = "") -> set[str]:
        """Names in a list, and in the right-hand sides that its tables hold."""
        names: set[str] = set()
        for item in items:
            names.add(item.name)
            for kind in kinds_of(item, stage):
                assert item.table is not None
                names.update(token for action in self.of(item.table, kind) for token in action.tokens)
        return names & self.policies.classes.keys()


def kinds_of(item: Item, stage: str = "") -> tuple[str, ...]:
    """What a table is asked for: by its check, else by the list that it stands in, else by any list."""
    if item.table is None or item.fault:
        return ()
    if item.name:
        return (vocabulary.CHECKS[item.name.lower()],)
    if stage:
        return (vocabulary.DEFAULT_CHECKS[stage],) if stage in vocabulary.DEFAULT_CHECKS else ()
    return tuple(sorted(set(vocabulary.DEFAULT_CHECKS.values())))


def _distinct(actions: Iterable[Action]) -> tuple[Action, ...]:
    return tuple(dict.fromkeys(actions))


# ---------------------------------------------------------------- ways


Flags = frozenset[Flag]


@dataclass(frozen=True, slots=True)
class Way:
    """One way through a list; `end` is None while it goes on, `trail` are the right-hand sides behind it.

    `before` are the effects before the last piece that can permit: those behind it count only where the
    list does not refuse. `acted` says how many pieces stand before the last effect: they decide about it.
    """

    pieces: tuple[Piece, ...] = ()
    effects: tuple[str, ...] = ()
    before: tuple[str, ...] = ()
    end: End | None = None
    refusal: Refusal | None = None
    plain: bool = True
    acted: int = 0
    trail: tuple[str, ...] = field(default=(), compare=False)

    def then(self, other: "Way", raised: Flags) -> "Way":
        """This way, and the other behind it; `raised` are the flags that earlier lists raised."""
        pieces, acted = self.pieces, self.acted
        for at, piece in enumerate(other.pieces):
            acted = len(pieces) if other.effects and at == other.acted else acted
            # What was tried before in this list and did not permit cannot permit now.
            if piece not in (pieces if piece.does is Residue.PERMITS else pieces[-1:]):
                pieces += (piece,)
        acted = len(pieces) if other.effects and other.acted >= len(other.pieces) else acted
        effects = tuple(dict.fromkeys(self.effects + other.effects))
        trail = tuple(dict.fromkeys(self.trail + other.trail))
        plain = self.plain and other.plain
        end = _both_raised(pieces, raised)
        if end:
            return Way(
                pieces[:end], effects, (), End.RAN_OUT, None, plain and not other.effects, acted, trail
            )
        permits = [piece in self.pieces for piece in other.pieces if piece.does is Residue.PERMITS]
        before = self.before if all(permits) else tuple(dict.fromkeys(self.effects + other.before))
        # `other.before` is told of its last permit, which may be one that cannot permit here.
        plain = plain and (all(permits) or not permits[-1])
        if other.end is End.REFUSED and any(piece.does is Residue.PERMITS for piece in pieces):
            effects = before
        return Way(pieces, effects, before, other.end, other.refusal, plain, acted, trail)

    @property
    def raised(self) -> Flags:
        """The flags that nothing before them can make untrue."""
        before = takewhile(lambda piece: piece.does is not Residue.PERMITS, self.pieces)
        return frozenset(piece.does for piece in before if isinstance(piece.does, Flag))

    def outcome(self, name: str) -> ListOutcome:
        """The same as evaluation would have it."""
        discard = "DISCARD" if self.end is End.DISCARDED else ""
        acted = self.acted if self.effects else 0
        return ListOutcome(name, list(self.pieces), acted, self.end or End.RAN_OUT, self.refusal, discard)

    @property
    def says_something(self) -> bool:
        """Whether it can be in another's way."""
        return bool(self.pieces or self.effects) or self.end is End.DISCARDED


def _both_raised(pieces: tuple[Piece, ...], raised: Flags) -> int:
    """Where defer_if_permit and defer_if_reject together end a list: how many pieces until then, or 0."""
    for at, piece in enumerate(pieces):
        if piece.does is Residue.PERMITS:
            return 0
        if isinstance(piece.does, Flag):
            raised |= {piece.does}
            if len(raised) == 2:
                return at + 1
    return 0


Ways = tuple[Way, ...]

_ON: Ways = (Way(),)
_PERMITTED = Way(end=End.PERMITTED)
_REFUSED = Way(end=End.REFUSED, refusal=Refusal("", temporary=False, items=("reject",)))
_DEFERRED = Way(end=End.REFUSED, refusal=Refusal("", temporary=True, items=("defer",)))


def _maybe(way: Way) -> Ways:
    """A test of the request."""
    return (*_ON, replace(way, plain=False))


@dataclass(frozen=True, slots=True)
class Conflict:
    """What one reply cannot say. `lists` are the one or two lists that lead to it."""

    certain: bool
    lists: tuple[str, ...]
    problem: str
    trail: tuple[str, ...]


class Foresight:
    """The ways of one policy."""

    def __init__(self, policy: Policy, contents: Contents) -> None:
        self._policy = policy
        self._contents = contents
        self._mynetworks_fail = policy.mynetworks is not None and policy.mynetworks.patterns[:1] == (None,)
        self._stage = ""
        self._raised: Flags = frozenset()
        self._memory: dict[tuple[str, Flags, str, bool], Ways] = {}

    def ways(self, name: str, raised: Flags = frozenset()) -> Ways:
        """All ways through a list of the policy; `raised` are the flags that earlier lists raised."""
        self._stage = name
        self._raised = raised
        return self._list(self._policy.lists[name], warned=False)

    def _list(self, items: Iterable[Item], *, warned: bool) -> Ways:
        ways: Ways = _ON
        for known in covered(items):
            if known.shadowed:
                continue  # It changes nothing.
            after = self._step(known.item, warned or known.warned)
            joined = (
                way.then(more, self._raised) if way.end is None else way for way in ways for more in after
            )
            ways = tuple(dict.fromkeys(joined))[:MAX_WAYS]
        return ways

    def _step(self, item: Item, warned: bool) -> Ways:
        if item.fault:
            return (_DEFERRED,)
        name = item.name.lower()
        name = vocabulary.OLD_NAMES.get(name, name)
        if item.table is not None:
            return self._check(item, warned)
        if name in vocabulary.LEFT_TO_POSTFIX:
            return _left(f"{name} {item.argument}".strip(), vocabulary.LEFT_TO_POSTFIX[name], warned)
        if name in vocabulary.EVALUATED:
            return self._built_in(name, warned)
        return self._class(item.name, warned)

    def _class(self, name: str, warned: bool) -> Ways:
        found = self._contents.policies.classes.get(name)
        if not isinstance(found, RestrictionClass) or name in self._contents.policies.looping:
            return (_DEFERRED,)
        return self._remembered(f"class {name}", found.items, warned)

    def _remembered(self, what: str, items: Iterable[Item], warned: bool) -> Ways:
        """A list that several lead to; one that leads back to itself adds nothing there."""
        key = (self._stage, self._raised, what, warned)
        if key not in self._memory:
            self._memory[key] = _ON
            self._memory[key] = self._list(items, warned=warned)
        return self._memory[key]

    # ------------------------------------------------------------ built-ins

    def _built_in(self, name: str, warned: bool) -> Ways:
        if name in ("defer_if_permit", "defer_if_reject"):
            return _flag(Flag(name), warned)
        if name == "permit":
            return (_PERMITTED,)
        if name in ("reject", "defer"):
            return _refused(_REFUSED if name == "reject" else _DEFERRED, warned)
        residue = self._residue_of(name)
        if residue is not None:
            return _left(name, residue, warned)
        if name == "reject_multi_recipient_bounce" and self._stage not in ("data", "end_of_data"):
            return (*_ON, *(replace(way, plain=False) for way in _left(name, Residue.REFUSES, warned)))
        if name == "permit_mynetworks" and self._mynetworks_fail:
            return (_DEFERRED,)
        if name.startswith("permit_"):
            return _maybe(_PERMITTED)
        return _ON if warned else _maybe(_REFUSED)

    def _residue_of(self, name: str) -> Residue | None:
        """What a restriction does that is left to Postfix because the policy does not say enough."""
        if name == "permit_mynetworks" and self._policy.mynetworks is None:
            return Residue.PERMITS
        if name.endswith("auth_destination") and self._policy.local_domains is None:
            return Residue.PERMITS if name.startswith("permit") else Residue.REFUSES
        return None

    # ------------------------------------------------------------ tables

    def _check(self, item: Item, warned: bool) -> Ways:
        assert item.table is not None
        kinds = kinds_of(item, self._stage)
        if not kinds or item.table.type == "fail":
            return (_DEFERRED,)
        always = item.table.type == "static"
        ways: dict[Way, None] = {} if always else dict.fromkeys(_ON)
        for action in self._contents.of(item.table, kinds[0]):
            found = self._apply(action, item.table, warned)
            if kinds[0] == "reverse_client":
                found = tuple(_DEFERRED if way.end is End.PERMITTED else way for way in found)
            trail = () if always else (f"{item.table} {action.text!r}",)
            ways.update(
                (replace(way, plain=way.plain and always, trail=trail + way.trail), None) for way in found
            )
        return tuple(ways)

    def _apply(self, action: Action, table: TableName, warned: bool) -> Ways:
        kind = action.kind
        if table.type == "directory" and reserved_to_policies(action):
            return (_DEFERRED,)
        if kind is Kind.PERMIT:
            return (_PERMITTED,)
        if kind is Kind.REFUSE:
            return _refused(_DEFERRED if action.temporary else _REFUSED, warned)
        if kind in (Kind.DEFER_IF_PERMIT, Kind.DEFER_IF_REJECT):
            return _flag(Flag(kind.name.lower()), warned)
        if kind is Kind.LIST:
            return self._remembered(f"value {action.text}", parse_right_hand_side(action.tokens), warned)
        if kind is Kind.INVALID:
            return (_DEFERRED,)
        return self._effect(action, table)

    def _effect(self, action: Action, table: TableName) -> Ways:
        """HOLD and its like; what a table holds of one verb counts as one text."""
        if action.kind is Kind.DISCARD and self._stage != "etrn":
            return (Way(end=End.DISCARDED),)
        if action.kind is not Kind.EFFECT or self._stage == "etrn":
            return _ON
        if action.verb == "PREPEND" and self._stage == "end_of_data":
            return _ON
        effect = "HOLD" if action.verb == "HOLD" else f"{action.verb} of {table}"
        return (Way(effects=(effect,)),)

    # ------------------------------------------------------------ lists together

    def _one_after_another(self, names: Iterable[str]) -> Iterator[tuple[str, Ways]]:
        """The ways of some lists; flags that one raises are known in those behind it."""
        befores: dict[tuple[Flags, bool], None] = {(frozenset(), True): None}
        for name in names:
            ways: dict[Way, None] = {}
            afters: dict[tuple[Flags, bool], None] = {}
            for raised, plain in befores:
                for way in self.ways(name, raised):
                    way = replace(way, plain=way.plain and plain)
                    ways[way] = None
                    kept = raised | way.raised
                    afters[kept if name == "relay" else kept - {Flag.DEFER_IF_REJECT}, way.plain] = None
            befores = afters
            yield name, tuple(ways)

    def conflicts(self) -> Iterator[Conflict]:
        """What one reply cannot say, once at most for each list and for each two of a protocol state."""
        for state in STATES:
            names = [name for name in LISTS_OF_STATE[state] if name in self._policy.lists]
            ways = {name: _open(name, some, state) for name, some in self._one_after_another(names)}
            # Behind a list that refuses whatever comes there is nothing, and before it only DISCARD counts.
            reached = dict(takewhile(lambda item: item[1], ways.items()))
            told = ("client", "helo") if state == "ETRN" else ()  # RCPT has them as well
            for pair in chain(combinations(reached, 1), combinations(reached, 2)):
                if not set(pair).issubset(told):
                    yield from _between(pair, reached, is_refused=len(reached) < len(ways))


def _open(name: str, ways: Ways, state: str) -> Ways:
    """The ways that do not certainly refuse, as the lists behind see them.

    An ETRN has no message that something could be done to; defer_if_reject is known in relay and recipient
    lists only, once the list that raised it is over.
    """
    if state == "ETRN":
        ways = tuple(replace(way, effects=()) for way in ways)
    if name not in ("relay", "recipient"):
        ways = tuple(map(_forgetting, ways))
    return tuple(way for way in ways if not way.outcome(name).refuses)


def _forgetting(way: Way) -> Way:
    pieces = way.pieces
    while way.end is not End.REFUSED and pieces and pieces[-1].does is Flag.DEFER_IF_REJECT:
        pieces = pieces[:-1]
    return replace(way, pieces=pieces)


def _left(text: str, does: Residue, warned: bool) -> Ways:
    """A restriction left to Postfix. Which of those that refuse it is makes no difference here."""
    if does is not Residue.PERMITS:
        return (Way((Piece("R", Residue.REFUSES),)),)
    return (Way((Piece(f"warn_if_reject {text}" if warned else text, does),)),)


def _flag(flag: Flag, warned: bool) -> Ways:
    return _ON if warned else (Way((Piece(flag.value, flag),)),)


def _refused(way: Way, warned: bool) -> Ways:
    return _ON if warned else (way,)


def _between(names: tuple[str, ...], ways: Mapping[str, Ways], *, is_refused: bool) -> Iterator[Conflict]:
    """The conflict of one list, or of two: a certain one, else the first that is possible."""
    meeting = [_meeting(name, ways[name], alone=len(names) == 1) for name in names]
    if is_refused:
        meeting[-1] = [way for way in meeting[-1] if way.end is End.DISCARDED]
    plain = [[way for way in some if way.plain] for some in meeting]
    for chosen in chain(product(*plain), product(*meeting)):
        problem = _problem(names, chosen)
        if problem:
            certain = all(way.plain for way in chosen) and _happens(
                dict(zip(names, chosen, strict=True)), ways
            )
            trail = tuple(step for way in chosen for step in way.trail)
            yield Conflict(certain, names, problem, trail)
            return


def _happens(chosen: Mapping[str, Way], ways: Mapping[str, Ways]) -> bool:
    """Whether it comes to that when the other lists go their plain ways."""
    plain = {name: next((way for way in some if way.plain), None) for name, some in ways.items()}
    together = {name: chosen.get(name, way) for name, way in plain.items()}
    known = {name: way for name, way in together.items() if way is not None}
    return len(known) == len(ways) and bool(_problem(tuple(known), tuple(known.values())))


def _meeting(name: str, ways: Ways, *, alone: bool) -> list[Way]:
    """The ways that can be in another's; one that is a conflict on its own is told of as such."""
    return [way for way in ways if way.says_something and (alone or not _problem((name,), (way,)))]


def _problem(names: tuple[str, ...], ways: tuple[Way, ...]) -> str:
    """What one reply cannot say, or nothing. A DISCARD ends everything: no later list is asked."""
    if any(way.end is End.DISCARDED for way in ways[:-1]):
        return ""
    outcomes = [way.outcome(name) for name, way in zip(names, ways, strict=True)]
    effects = [effect for way in ways for effect in way.effects]
    return compose(outcomes, effects, permit_ok=False, on_unavailable="defer").error
