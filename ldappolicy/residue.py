"""The reply: what remains of the lists once everything that is known has been decided.

Each list of a policy ends in a `ListOutcome`: the pieces that are left to Postfix, in order, and how the
list ended. One reply has to say what all of them together come to. What holds
always: accept or refuse is exact, a temporary refusal never becomes a permanent one; the text is given
up first. What one reply cannot say is a server configuration error, never a guess.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum, auto

from ldappolicy.vocabulary import MAY_DEFER, Residue

SERVER_CONFIGURATION_ERROR = "451 4.3.5 Server configuration error"
TEMPORARY_LOOKUP_FAILURE = "DEFER_IF_PERMIT 4.3.0 Temporary lookup failure"
FOR_A_WHILE = "450 4.3.0"
"""The code of a refusal that would be for good, if what it rests on were not past its ttl or missing."""


Decider = tuple[tuple[str, ...], str]
"""What decided: the names from the list down to the restriction, and the DN of the entry whose value did."""

NOBODY: Decider = ((), "")


class Flag(Enum):
    """Known items that stand in their place once there is a residue."""

    DEFER_IF_PERMIT = "defer_if_permit"
    DEFER_IF_REJECT = "defer_if_reject"


@dataclass(frozen=True, slots=True)
class Piece:
    """One item of a residue: its text, and what it can do. `wire` is a flag's own action."""

    text: str
    does: Residue | Flag
    wire: str = ""
    by: Decider = field(default=NOBODY, compare=False, repr=False)

    @property
    def may_defer(self) -> bool:
        """Whether it is a permit that turns into defer_if_reject while the DNS does not answer."""
        return self.does is Residue.PERMITS and not MAY_DEFER.isdisjoint(self.text.lower().split())


class End(Enum):
    """How a list ended."""

    RAN_OUT = auto()
    PERMITTED = auto()
    REFUSED = auto()
    UNAVAILABLE = auto()
    DISCARDED = auto()


@dataclass(frozen=True, slots=True)
class Refusal:
    """A known refusal: an action with its own code or text, or list items (`items`) that Postfix words.

    With both, the items stand for it beside a residue. `before` are items that have to stand before them when
    nothing else does.
    """

    wire: str
    temporary: bool
    items: tuple[str, ...] = ()
    before: tuple[str, ...] = ()
    is_error: bool = False
    alone: str = field(init=False, compare=False, repr=False)
    """The reply when nothing stands before it."""

    def __post_init__(self) -> None:
        alone = self.wire or join((*self.before, *self.items))
        object.__setattr__(self, "alone", alone)

    @property
    def as_items(self) -> tuple[str, ...]:
        """The refusal as list items, its text given up."""
        return self.items or (("defer",) if self.temporary else ("reject",))


@dataclass(slots=True)
class ListOutcome:
    """What one list came to. `discard` is the action that ended it, `problem` why it is an error.

    `acted` says how many pieces stood before its last action on the message: they decide about it. `by` is
    what ended the list, `acted_by` what the first action on the message came from.
    """

    name: str
    pieces: list[Piece] = field(default_factory=list)
    acted: int = 0
    end: End = End.RAN_OUT
    refusal: Refusal | None = None
    discard: str = ""
    problem: str = ""
    by: Decider = NOBODY
    acted_by: Decider = NOBODY

    @property
    def can_permit(self) -> bool:
        """Whether Postfix may find that a piece of it permits."""
        return any(piece.does is Residue.PERMITS for piece in self.pieces)

    @property
    def is_plain(self) -> bool:
        """Whether nothing is left to Postfix, nor was anything unavailable."""
        return not (self.pieces or self.acted or self.discard or self.end in _NEEDS_A_REPLY)

    @property
    def refuses(self) -> bool:
        """Whether it refuses whatever Postfix finds."""
        return self.end is End.REFUSED and not self.can_permit


@dataclass(frozen=True, slots=True)
class Reply:
    """What is sent (None: the connection is closed), and what it stands for.

    `error` says why it is a server configuration error, `unavailable` that on_unavailable was used,
    `lost` the text that gave way to a residue. `by` is None where the lists were gone through: how the last
    one ended is all there is to say.
    """

    action: str | None
    error: str = ""
    unavailable: bool = False
    lost: str = ""
    by: Decider | None = field(default=None, compare=False)


DEFER_IF_REJECT = Piece("defer_if_reject", Flag.DEFER_IF_REJECT)

_SHOWN = 10
"""Of what one reply cannot say, in the message."""

_OK = Reply("OK")
_DUNNO = Reply("DUNNO")
_NEEDS_A_REPLY = (End.UNAVAILABLE, End.DISCARDED)


def join(items: Iterable[str]) -> str:
    """List items as a reply; a single word needs a comma, or Postfix may take it for an action."""
    text = ", ".join(items)
    return text + "," if " " not in text else text


def compose(
    lists: Sequence[ListOutcome], effects: Sequence[str], *, permit_ok: bool, on_unavailable: str
) -> Reply:
    """The one reply for all lists, in their order. `effects` are HOLD and its like, as actions."""
    if not effects and not any(outcome.pieces or outcome.end in _NEEDS_A_REPLY for outcome in lists):
        return _plain(lists, permit_ok)
    for at, outcome in enumerate(lists):
        if outcome.refuses:
            return _refuse(lists[: at + 1])
    if lists and lists[-1].end is End.DISCARDED:
        return _discard(lists, on_unavailable)
    if not any(_is_left(piece) for outcome in lists for piece in outcome.pieces):
        return _known(lists, effects, permit_ok, on_unavailable)
    return _mixed(lists, effects, permit_ok, on_unavailable)


def _plain(lists: Sequence[ListOutcome], permit_ok: bool) -> Reply:
    """Everything was decided here: the refusal that ended the lists, else a permit."""
    refusal = lists[-1].refusal if lists else None
    if refusal is None:
        return _let_through(lists, permit_ok)
    return _refused(lists[-1], refusal.alone)


def _let_through(lists: Sequence[ListOutcome], permit_ok: bool) -> Reply:
    return _OK if permit_ok and lists and lists[-1].end is End.PERMITTED else _DUNNO


def _is_left(piece: Piece) -> bool:
    return isinstance(piece.does, Residue)


# ---------------------------------------------------------------- a refusal that is certain


def _refuse(lists: Sequence[ListOutcome]) -> Reply:
    """The last list refuses; what can permit in the earlier ones makes no difference (rule 5)."""
    refusals = [(outcome, outcome.refusal) for outcome in lists if outcome.refusal is not None]
    (by, refusal), ending = refusals[-1], len(lists) - 1
    if any(outcome.can_permit for outcome in lists):
        temporary = next((known for known in refusals if known[1].temporary), None)
        if temporary is not None:
            return _refused(temporary[0], temporary[1].alone)
        by, refusal = refusals[0]
        ending = _last_that_may_defer(lists)
    pieces = [piece for at in range(ending + 1) for piece in _refusing(lists[at], last=at == ending)]
    is_alone = not any(map(_is_left, pieces)) if refusal.items else _can_go(pieces, refusal)
    if refusal.wire and is_alone:
        return _refused(by, refusal.wire)
    texts = [piece.text for piece in pieces]
    before = () if "defer_if_reject" in texts else refusal.before
    return _refused(by, join((*texts, *before, *refusal.as_items)))


def _last_that_may_defer(lists: Sequence[ListOutcome]) -> int:
    """Where the pieces end: at the first refusal, or at the last list that may still refuse for a while.

    That first refusal may not be reached, if Postfix permits before it; then the later pieces decide
    whether the certain refusal stays a temporary one.
    """
    first = next(at for at, outcome in enumerate(lists) if outcome.refusal is not None)
    later = (
        at
        for at in range(len(lists) - 1, first, -1)
        if any(piece.does is Residue.REFUSES for piece in lists[at].pieces)
    )
    return next(later, first)


def _refused(outcome: ListOutcome, action: str) -> Reply:
    refusal = outcome.refusal
    assert refusal is not None
    lost = refusal.wire if action != refusal.wire and not refusal.items else ""
    error = "a server configuration error was reached" if refusal.is_error else ""
    return Reply(action, error, lost=lost, by=outcome.by)


def _refusing(outcome: ListOutcome, *, last: bool) -> list[Piece]:
    """The pieces that still matter when the recipient is refused; defer_if_reject acts in its own list."""
    known = (DEFER_IF_REJECT if piece.may_defer else piece for piece in outcome.pieces)
    pieces = [piece for piece in known if piece.does not in (Residue.PERMITS, Flag.DEFER_IF_PERMIT)]
    while not last and outcome.name != "relay" and pieces and pieces[-1].does is Flag.DEFER_IF_REJECT:
        pieces.pop()
    return pieces


def _can_go(pieces: Sequence[Piece], refusal: Refusal) -> bool:
    """Whether the pieces before a refusal with its own text can be dropped for it (rule 3).

    A bare REJECT has none: as a list item it says the same, and leaves theirs to what stands before it.
    """
    if refusal.temporary or not pieces:
        return True
    return refusal.wire != "REJECT" and all(piece.does is Residue.REFUSES_FOR_GOOD for piece in pieces)


# ---------------------------------------------------------------- nothing left to Postfix


def _discard(lists: Sequence[ListOutcome], on_unavailable: str) -> Reply:
    """DISCARD ends everything; a defer_if_permit before it still defers this recipient."""
    missed = _first_unavailable(lists)
    if missed is not None:
        return _unavailable(on_unavailable, missed)
    pieces = [piece for outcome in lists for piece in _trimmed(outcome, last_and_ok=False).pieces]
    if any(map(_is_left, pieces)):
        return _cannot("DISCARD behind restrictions that are left to Postfix", lists)
    deferred = next((piece for piece in pieces if piece.does is Flag.DEFER_IF_PERMIT), None)
    return _flag_alone(deferred) if deferred else Reply(lists[-1].discard, by=lists[-1].by)


def _first_unavailable(lists: Sequence[ListOutcome]) -> ListOutcome | None:
    return next((outcome for outcome in lists if outcome.end is End.UNAVAILABLE), None)


def _known(
    lists: Sequence[ListOutcome], effects: Sequence[str], permit_ok: bool, on_unavailable: str
) -> Reply:
    missed = _first_unavailable(lists)
    if missed is not None:
        return _unavailable(on_unavailable, missed)
    flags = {piece.does: piece for outcome in reversed(lists) for piece in reversed(outcome.pieces)}
    if Flag.DEFER_IF_PERMIT in flags:
        return _flag_alone(flags[Flag.DEFER_IF_PERMIT])
    single = _single_effect(effects)
    if single is None:
        return _cannot(" and ".join(effects[:_SHOWN]), lists)
    if single and Flag.DEFER_IF_REJECT in flags:
        return _cannot(f"{single} and DEFER_IF_REJECT", lists)
    if single:
        acted_by = (outcome.acted_by for outcome in lists if outcome.acted_by is not NOBODY)
        return Reply(single, by=next(acted_by, NOBODY))
    if Flag.DEFER_IF_REJECT in flags:
        return _flag_alone(flags[Flag.DEFER_IF_REJECT])
    return _let_through(lists, permit_ok)


def _flag_alone(piece: Piece) -> Reply:
    return Reply(piece.wire or join([piece.text]), by=piece.by)


def _single_effect(effects: Sequence[str]) -> str | None:
    """The one action that says all effects: HOLD twice is HOLD, the last FILTER or REDIRECT wins."""
    last: dict[str, str] = {}
    for number, effect in enumerate(effects):
        verb = effect.partition(" ")[0]
        key = verb if verb in ("HOLD", "FILTER", "REDIRECT") else effect
        key = f"{effect} {number}" if verb == "PREPEND" else key
        last[key] = last.get(key, effect) if verb == "HOLD" else effect
    return None if len(last) > 1 else next(iter(last.values()), "")


def _unavailable(on_unavailable: str, missed: ListOutcome) -> Reply:
    action = {"defer": TEMPORARY_LOOKUP_FAILURE, "disconnect": None}.get(on_unavailable, "DUNNO")
    return Reply(action, unavailable=True, by=missed.by)


def _cannot(what: str, lists: Sequence[ListOutcome]) -> Reply:
    left = "; ".join(
        f"{known.name}: {', '.join(piece.text for piece in known.pieces[:_SHOWN])}"
        for known in lists
        if known.pieces
    )
    error = f"one reply cannot say {what} ({left or 'nothing left to Postfix'})"
    return Reply(SERVER_CONFIGURATION_ERROR, error, by=NOBODY)


# ---------------------------------------------------------------- some known, some left to Postfix


def _mixed(
    lists: Sequence[ListOutcome], effects: Sequence[str], permit_ok: bool, on_unavailable: str
) -> Reply:
    missed = _first_unavailable(lists)
    if missed is not None and on_unavailable != "defer":
        return _unavailable(on_unavailable, missed)
    kept = [_trimmed(outcome, permit_ok and outcome is lists[-1]) for outcome in lists]
    _keep_defer_if_reject(lists, kept)
    if not any(_is_left(piece) for outcome in kept for piece in outcome.pieces):
        return _known(kept, effects, permit_ok, on_unavailable)
    if effects and not any(map(_defers, kept)):
        return _cannot(f"{effects[0]} and restrictions that are left to Postfix", kept)
    permitting = [outcome for outcome in kept if outcome.can_permit]
    head = _common_head(permitting)
    if head is None:
        what = "restrictions that can permit in two lists that do not begin with the same ones"
        return _cannot(what, permitting)
    items = ["defer_if_reject"] if _overtakes_a_deferral(kept) else []
    items += [piece.text for outcome in kept if not outcome.can_permit for piece in outcome.pieces]
    items += [piece.text for piece in permitting[0].pieces[:head]] if permitting else []
    lost = _append_rests(items, permitting, head)
    if permit_ok and lists[-1].end is End.PERMITTED and not any(known.refusal for known in permitting):
        items.append("permit")
    by = _decider(kept, permitting, missed)
    return Reply(join(items), unavailable=missed is not None, lost=lost, by=by)


def _decider(
    kept: Sequence[ListOutcome], permitting: Sequence[ListOutcome], missed: ListOutcome | None
) -> Decider:
    """The refusal that a mixed reply ends in, else what is unavailable, else what left the first piece."""
    refusing = next((outcome for outcome in permitting if outcome.refusal is not None), missed)
    if refusing is not None:
        return refusing.by
    return next((piece.by for outcome in kept for piece in outcome.pieces), NOBODY)


def _trimmed(outcome: ListOutcome, last_and_ok: bool) -> ListOutcome:
    """The list without what makes no difference at its end; an unavailable one defers there."""
    pieces = list(outcome.pieces)
    if outcome.end is End.UNAVAILABLE:
        pieces.append(Piece("defer_if_permit", Flag.DEFER_IF_PERMIT, TEMPORARY_LOOKUP_FAILURE))
    may_end = outcome.end is End.PERMITTED or (outcome.end is End.RAN_OUT and not last_and_ok)
    while may_end and len(pieces) > outcome.acted and pieces[-1].does is Residue.PERMITS:
        pieces.pop()
    return replace(outcome, pieces=pieces)


def _keep_defer_if_reject(lists: Sequence[ListOutcome], kept: Sequence[ListOutcome]) -> None:
    """A defer_if_reject of the relay list acts in the recipient list as well, also one of the DNS.

    Alone in its request the relay list keeps the permits that may come to it: the next call needs to know.
    """
    at = next((at for at, outcome in enumerate(lists) if outcome.name == "relay"), None)
    if at is None or not any(piece.may_defer for piece in lists[at].pieces):
        return
    if len(lists) == 1:
        kept[at].pieces[:] = lists[at].pieces
    elif any(outcome.refusal or any(map(_is_left, outcome.pieces)) for outcome in kept[at + 1 :]):
        kept[at].pieces.append(DEFER_IF_REJECT)


def _defers(outcome: ListOutcome) -> bool:
    """Whether the list certainly defers: a defer_if_permit that nothing before it can escape."""
    for piece in outcome.pieces:
        if piece.does is Residue.PERMITS:
            return False
        if piece.does is Flag.DEFER_IF_PERMIT:
            return True
    return False


def _overtakes_a_deferral(lists: Sequence[ListOutcome]) -> bool:
    """Whether a list that cannot permit goes before one that natively would have deferred earlier."""
    deferring = next(
        (at for at, known in enumerate(lists) if known.can_permit and _may_defer(known)), len(lists)
    )
    return any(not known.can_permit and any(map(_is_left, known.pieces)) for known in lists[deferring:])


def _may_defer(outcome: ListOutcome) -> bool:
    """Whether it refuses for a while, or makes what is left to Postfix do so."""
    if outcome.refusal is not None and outcome.refusal.temporary:
        return True
    return any(piece.does is Flag.DEFER_IF_REJECT or piece.may_defer for piece in outcome.pieces)


def _common_head(permitting: Sequence[ListOutcome]) -> int | None:
    """How many pieces at the head of every permitting list are the same permits (rule 6); None: too few."""
    if len(permitting) < 2:
        return 0
    first = permitting[0].pieces
    heads = []
    for outcome in permitting:
        count = 0
        for piece, other in zip(outcome.pieces, first, strict=False):
            if piece != other or piece.does is not Residue.PERMITS:
                break
            count += 1
        heads.append(count)
    head = min(heads)
    later = (piece.does is Residue.PERMITS for outcome in permitting for piece in outcome.pieces[head:])
    return None if head == 0 or any(later) else head


def _append_rests(items: list[str], permitting: Sequence[ListOutcome], head: int) -> str:
    """What follows the common head, up to the first refusal; returns the text that gives way."""
    for outcome in permitting:
        items.extend(piece.text for piece in outcome.pieces[head:])
        if outcome.refusal is not None:
            items.extend(outcome.refusal.as_items)
            return "" if outcome.refusal.items else outcome.refusal.wire
    return ""
