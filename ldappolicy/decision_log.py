"""One line for each decision: who asked for what, what was answered, why, from how old data, how fast.

As text, fields in a fixed order:

    decision: id=... queue_id=... client=NAME[ADDRESS] state=RCPT policy=... revision=... sender=<...>
    recipient=<...> login=... action='...' restriction='...' dn='...' [shadow=yes]
    [shadowed='...' shadowed_by='...'] age=1.2 us=35

in one line. Without a queue id there is `instance` in its place; `age` is `-` where no data age is known. A
value is either bare, and ends at the next space, or a Python string literal: `action`, `restriction`, `dn`,
`shadowed` and `shadowed_by` always are, the others when they hold a space, a quote or anything that is not
printable. So a line can be read back (`ast.literal_eval`), and no value can pretend to be another field or
another line.

As JSON, one object with the same names, and sender and recipient without brackets; `shadowed` and
`shadowed_by` are arrays.

What is said of all requests alike is made once (`alike`); what differs is put in for each. None of this goes
through `logging`, which costs more than a decision does.
"""

import re
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import count
from json.encoder import encode_basestring_ascii
from operator import attrgetter

from ldappolicy.evaluate import Decision
from ldappolicy.log import LEFT, LONGEST_VALUE, Lines, shortened
from ldappolicy.memories import BOUNDS, Memory, size_of
from ldappolicy.protocol import SHOWN, TEXT_BYTES, cut
from ldappolicy.request import Request

_PERMITTING = frozenset(("DUNNO", "OK"))

_DEFAULT_TEXTS = {
    "REJECT": "Access denied",
    "DEFER": "Access denied",
    "DEFER_IF_PERMIT": "Service unavailable",
    "DEFER_IF_REJECT": "Service unavailable",
}
"""What Postfix says when an action has no text of its own (check_table_result in smtpd_check.c)."""

ALIKE_BYTES = 3000
SHOWN_LETTERS = 300
"""What a line may take, in two parts: one under PIPE_BUF (4096 bytes) stays whole in a pipe of several."""

LONGEST_ACTION = 600
"""Letters of an action: of a text no more are sent (`protocol.TEXT_BYTES`)."""

_DIGITS = "0123456789abcdefghijklmnopqrstuv"


Shown = Sequence[str]
"""What a line says of one request (see `protocol.SHOWN`); the rest is the same of all decided alike."""


shown_of: Callable[[Request], Shown] = attrgetter(*SHOWN)
"""The same of a request that is text, as `protocol.Glance.shown` has it of bytes."""


class DecisionLog:
    """Writes decisions: `which` is none, rejects or all, `form` text or json.

    `next_id` makes the number of a decision; `is_shadow` when nothing of what is decided is answered.
    """

    def __init__(
        self, which: str, form: str, lines: Lines, ids: Callable[[], str], *, is_shadow: bool = False
    ) -> None:
        self.next_id = ids
        self._which = which
        self._put = lines.put
        self._alike, self._line = (_json_alike, _json) if form == "json" else (_text_alike, _text)
        self._is_shadow = is_shadow

    def wants(self, decision: Decision) -> bool:
        """Whether such a decision is written; shadow restrictions count as if they had been answered."""
        if self._which == "rejects":
            return not _PERMITTING.issuperset((decision.action, *decision.shadowed))
        return self._which == "all"

    def alike(self, request: Request, decision: Decision) -> str:
        """The part of the line that is the same of all requests that are decided alike, for `write`."""
        line = self._alike(request, decision, self._is_shadow)
        if len(line) > LONGEST_VALUE and max(map(len, (*request, _action(decision)))) > LONGEST_VALUE:
            request = Request._make(map(shortened, request))
            decision = replace(decision, action=shortened(_action(decision), LONGEST_ACTION))
            line = self._alike(request, decision, self._is_shadow)
        if len(line) <= ALIKE_BYTES and (line.isascii() or len(_octets(line)) <= ALIKE_BYTES):
            return line
        return self._alike(_short_request(request), _short_decision(decision), self._is_shadow)

    def write(self, alike: str, shown: Shown, seconds: float, age: float | None, number: str = "") -> None:
        """Writes a decision that took so many seconds; `number` is its id if it was told somebody."""
        if sum(map(len, shown)) > SHOWN_LETTERS:
            shown = [_short(value) for value in shown]
        self._put(self._line(alike, shown, int(seconds * 1e6), age, number or self.next_id()))


def _text(alike: str, shown: Shown, microseconds: int, age: float | None, number: str) -> str:
    address, name, queue_id, instance = shown
    client = f"{name}[{address}]"
    if not _are_bare("".join(shown)):
        client, queue_id, instance = _bare(client), _bare(queue_id), _bare(instance)
    place = f"queue_id={queue_id}" if queue_id else f"instance={instance}"
    old = "-" if age is None else f"{age:.1f}" if age else "0.0"
    return f"decision: id={number} {place} client={client} {alike} age={old} us={microseconds}"


def _text_alike(request: Request, decision: Decision, is_shadow: bool) -> str:
    state, policy, login = request.protocol_state, decision.policy, request.sasl_username
    sender, recipient = f"<{request.sender}>", f"<{request.recipient}>"
    if not _are_bare(f"{state}{policy}{login}{sender}{recipient}"):
        state, policy, login = _bare(state), _bare(policy), _bare(login)
        sender, recipient = _bare(sender), _bare(recipient)
    why = _text_why(_action(decision), decision.restriction, decision.dn)
    place = f"state={state} policy={policy} revision={decision.revision}"
    line = f"{place} sender={sender} recipient={recipient} login={login} {why}"
    line += " shadow=yes" if is_shadow else ""
    if not decision.shadowed:
        return line
    return f"{line} shadowed={'; '.join(decision.shadowed)!r} shadowed_by={'; '.join(decision.shadowed_by)!r}"


_REASONS: Memory[tuple[str, ...], str] = Memory(BOUNDS["reasons in the log"])


def _text_why(*what: str) -> str:
    """What decided: action, restriction, DN. There are few, and most of the work of a line is here."""
    known = _REASONS.get(what)
    if known is None:
        action, restriction, dn = what
        known = f"action={action!r} restriction={restriction!r} dn={dn!r}"
        _REASONS.keep(what, known, size_of(*what, known))
    return known


_are_bare = re.compile(r"[!#-&(-~]*").fullmatch
"""Whether values, one behind the other, may stand without quotes; it may say no of some that might."""


def _bare(value: str) -> str:
    """The value as it is, if it may stand without quotes."""
    if value.isprintable() and not (" " in value or "'" in value or '"' in value):
        return value
    return repr(value)


def _json(alike: str, shown: Shown, microseconds: int, age: float | None, number: str) -> str:
    address, name, queue_id, instance = shown
    place = f'"queue_id": {_quoted(queue_id)}' if queue_id else f'"instance": {_quoted(instance)}'
    old = "null" if age is None else f"{age:.1f}"
    return (
        f'{{"time": {time.time():.3f}, "level": "info", "logger": "ldappolicy.decision", "id": "{number}", '
        f'{place}, "client": {_quoted(f"{name}[{address}]")}, {alike}, "age": {old}, "us": {microseconds}}}'
    )


def _json_alike(request: Request, decision: Decision, is_shadow: bool) -> str:
    fields = {
        "state": _quoted(request.protocol_state),
        "policy": _quoted(decision.policy),
        "revision": _quoted(decision.revision),
        "sender": _quoted(request.sender),
        "recipient": _quoted(request.recipient),
        "login": _quoted(request.sasl_username),
        "action": _quoted(_action(decision)),
        "restriction": _quoted(decision.restriction),
        "dn": _quoted(decision.dn),
    }
    fields |= {"shadow": "true"} if is_shadow else {}
    for name in ("shadowed", "shadowed_by") if decision.shadowed else ():
        fields[name] = f"[{', '.join(map(_quoted, getattr(decision, name)))}]"
    return ", ".join(f'"{name}": {value}' for name, value in fields.items())


_short = partial(shortened, most=LEFT)
"""What is left of a value in a line that is too long."""


def _short_request(request: Request) -> Request:
    return Request._make(map(_short, request))


def _short_decision(decision: Decision) -> Decision:
    """What a directory says is bounded as what a client does."""
    return replace(
        decision,
        action=_short(_action(decision)),
        policy=_short(decision.policy),
        restriction=_short(decision.restriction),
        dn=_short(decision.dn),
        shadowed=tuple(map(_short, decision.shadowed[:1])),
        shadowed_by=tuple(map(_short, decision.shadowed_by[:1])),
    )


def _octets(line: str) -> bytes:
    return line.encode("utf-8", "backslashreplace")


def _quoted(value: str) -> str:
    """A string of JSON. Bytes that are no UTF-8 are written out: half a pair is no letter (RFC 8259, 8.2)."""
    return encode_basestring_ascii(value if value.isascii() else _octets(value).decode("utf-8"))


def _action(decision: Decision) -> str:
    return "disconnect" if decision.action is None else decision.action


def decision_ids(worker: int = 0) -> Callable[[], str]:
    """Makes numbers of decisions: no other worker, replica or start of the program makes the same.

    The second in which it was made, 20 random bits, the worker where there are several, and a count.
    """
    started = (
        _base32(int(time.time()), 7) + _base32(secrets.randbits(20), 4) + (str(worker) if worker else "")
    )
    numbers = count(1)
    return lambda: f"{started}-{next(numbers):x}"


def _base32(number: int, width: int) -> str:
    return "".join(_DIGITS[number >> 5 * place & 31] for place in reversed(range(width)))


def with_id(action: str, number: str) -> str:
    """The action with the number behind its text, where it has one that a client is told."""
    verb, _, text = action.partition(" ")
    default = _DEFAULT_TEXTS.get(verb)
    if default is not None:
        return f"{_room_for(number, f'{verb} {text or default}')} ({number})"
    if text and len(verb) == 3 and verb[0] in "45" and verb.isdigit():
        return f"{_room_for(number, action)} ({number})"
    return action


def _room_for(number: str, action: str) -> str:
    """The action, cut so that the number is not when the whole is (see `protocol.encode_reply`)."""
    return cut(action.encode("utf-8", "replace"), TEXT_BYTES - len(number) - 3).decode("utf-8")
