"""access(5) actions: what the right-hand side of a table, or the value of an attribute, asks for.

`parse_action` reads a right-hand side as smtpd(8)'s check_table_result does, in its order: the verb is
what stands before the first space or tab, without regard to case; all digits are OK; a status code needs
a text; what is no action is a list of restrictions. The form on the wire is made here once: the verb in
upper case, never a status code without a text (older Postfix leaks bytes of an earlier reply then).
"""

import re
from dataclasses import dataclass
from enum import Enum, auto

from ldappolicy.errors import InputError
from ldappolicy.memories import remembered

ACTION_WORDS = frozenset(
    (
        *("OK", "RELAY", "DUNNO", "REJECT", "DEFER", "DEFER_IF_PERMIT", "DEFER_IF_REJECT", "INFO", "WARN"),
        *("HOLD", "DISCARD", "FILTER", "REDIRECT", "BCC", "PREPEND", "HANGUP"),
    )
)
"""Names that mean an action wherever they stand alone; no class can have one of them."""


WHOLE_MESSAGE = frozenset(("DISCARD", "FILTER", "REDIRECT", "BCC", "PREPEND"))
"""What acts on a message for all its recipients, and so counts from entries under policy_base only.

HOLD does as well, but nothing is lost by it: whoever edits a list may have its mail looked at.
"""


class Kind(Enum):
    """What an action does to the list that it stands in."""

    PERMIT = auto()
    DUNNO = auto()
    REFUSE = auto()
    DEFER_IF_PERMIT = auto()
    DEFER_IF_REJECT = auto()
    EFFECT = auto()
    DISCARD = auto()
    LOG = auto()
    LIST = auto()
    INVALID = auto()


@dataclass(frozen=True, slots=True)
class Action:
    """One right-hand side.

    `wire` is what is sent for a check of a mail address, `wire_plain` for any other check (an x.1.y
    enhanced code tells of an address and becomes x.0.0 there, smtpd_dsn_fix(3)). `temporary` is whether
    a refusal is a 4xx, `plain` whether it is a bare REJECT. `tokens` are the names of a LIST. `problem`
    says what is wrong with an INVALID one, or what lint warns of.
    """

    kind: Kind
    text: str
    wire: str = ""
    wire_plain: str = ""
    temporary: bool = False
    tokens: tuple[str, ...] = ()
    problem: str = ""

    @property
    def verb(self) -> str:
        """The verb on the wire."""
        return self.wire.partition(" ")[0]

    @property
    def own_text(self) -> str:
        """What stands behind the verb and its enhanced code; empty where nothing does."""
        rest = _CONTROL.sub(" ", _command(self.text)[1]).strip()
        code = _ENHANCED.match(rest)
        return rest if code is None else rest[code.end() :]


_SEPARATORS = " ,\t\r\n"
_ENHANCED = re.compile(r"([245])\.(\d{1,3})\.(\d{1,3})(?=\s|$)\s*")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_HEADER = re.compile(r"[!-9;-~]+[ \t]*:")


def split_list(text: str) -> tuple[str, ...]:
    """Names of a restriction list: commas and white space separate, ``{ }`` keeps together.

    mystrtokq(3) of Postfix. Raises InputError for braces that do not match.
    """
    return tuple(token for _, token in split_places(text))


def split_places(text: str) -> tuple[tuple[int, str], ...]:
    """The same, each with the number of its first character, from 1 on."""
    places: list[tuple[int, str]] = []
    depth = start = brace = 0
    inside = False
    for at, char in enumerate(text):
        if char == "{":
            depth += 1
            brace = at if depth == 1 else brace
        elif char == "}":
            depth -= 1
            if depth < 0:
                raise InputError(f"unbalanced '}}' at character {at + 1}")
        if depth == 0 and char in _SEPARATORS:
            if inside:
                places.append((start + 1, text[start:at]))
            inside = False
        elif not inside:
            inside, start = True, at
    if depth:
        raise InputError(f"unbalanced '{{' at character {brace + 1}")
    return (*places, (start + 1, text[start:])) if inside else tuple(places)


@remembered("actions", 36)
def parse_action(value: str) -> Action:
    """The action that a right-hand side asks for; never raises."""
    value = value.strip(" \t\r\n")
    word, rest = _command(value)
    verb = word.upper()
    if verb in ("DUNNO", "INFO", "WARN"):
        return Action(Kind.DUNNO if verb == "DUNNO" else Kind.LOG, value, f"{verb} {rest}".strip())
    if verb in ("REJECT", "DEFER"):
        return _refusal(value, verb, rest, temporary=verb == "DEFER")
    if verb in ("DEFER_IF_PERMIT", "DEFER_IF_REJECT"):
        return _text_action(Kind[verb], value, verb, rest, "Service unavailable", temporary=True)
    if verb in WHOLE_MESSAGE or verb == "HOLD":
        return _effect(value, verb, rest)
    if value.isascii() and value.isdigit():
        return Action(Kind.PERMIT, value)
    if len(word) == 3 and rest and word[0] in "45" and word.isascii() and word.isdigit():
        return _refusal(value, word, rest, temporary=word[0] == "4")
    if verb in ("OK", "RELAY"):
        return Action(Kind.PERMIT, value)
    return _list(value)


def _command(value: str) -> tuple[str, str]:
    """The verb, and what stands behind it."""
    cut = len(value)
    for separator in " \t":
        at = value.find(separator)
        if 0 <= at < cut:
            cut = at
    return value[:cut], value[cut:].lstrip(" \t")


def _refusal(value: str, verb: str, rest: str, *, temporary: bool) -> Action:
    return _text_action(Kind.REFUSE, value, verb, rest, "Access denied", temporary=temporary)


def _text_action(kind: Kind, value: str, verb: str, rest: str, default: str, *, temporary: bool) -> Action:
    """An action with an optional enhanced code and an optional text."""
    rest = _CONTROL.sub(" ", rest).strip()
    code = _ENHANCED.match(rest)
    if code is None:
        wire = f"{verb} {rest}".strip()
        return Action(kind, value, wire, wire, temporary)
    text = rest[code.end() :] or default
    plain = f"{code[1]}.0.0" if code[2] == "1" else code[0].strip()
    return Action(kind, value, f"{verb} {code[0].strip()} {text}", f"{verb} {plain} {text}", temporary)


def _effect(value: str, verb: str, rest: str) -> Action:
    """HOLD, DISCARD, FILTER, REDIRECT, BCC, PREPEND; Postfix takes a bad argument for DUNNO."""
    problem = ""
    if verb == "FILTER" and ":" not in rest:
        problem = "FILTER needs transport:destination"
    elif verb in ("REDIRECT", "BCC") and "@" not in rest:
        problem = f"{verb} needs user@domain"
    elif verb == "PREPEND" and not _HEADER.match(rest):
        problem = "PREPEND needs 'header: text'"
    wire = f"{verb} {_CONTROL.sub(' ', rest)}".strip()
    if problem:
        return Action(Kind.DUNNO, value, wire, problem=problem + "; Postfix ignores it")
    return Action(Kind.DISCARD if verb == "DISCARD" else Kind.EFFECT, value, wire)


def _list(value: str) -> Action:
    """A list of restrictions and classes; tables cannot stand in it, as in Postfix."""
    if ":" in value:
        problem = f"{value!r} is no action, and a right-hand side cannot name a table: write a class"
        return Action(Kind.INVALID, value, problem=problem)
    try:
        tokens = split_list(value)
    except InputError as fault:
        return Action(Kind.INVALID, value, problem=str(fault))
    if not tokens:
        return Action(Kind.PERMIT, value, problem="an empty right-hand side is OK, write OK or DUNNO")
    return Action(Kind.LIST, value, tokens=tokens)
