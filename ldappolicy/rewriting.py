"""What Postfix makes of an address: trivial-rewrite(8) and its resolver, for addresses in internal form.

Postfix delivers to what an address means: `all%my.domain@my.domain`, `my.domain!all`, `"all@my.domain"@`
are all@my.domain. So the same is done here, token by token as tok822_parse(3), rewrite_tree and
resolve_addr do it: whatever is cut by strings alone can be spelled round.
Parameters are Postfix's defaults (swap_bangpath, allow_percent_hack, resolve_dequoted_address,
append_at_myorigin; append_dot_mydomain off). Where Postfix has myhostname, myorigin serves.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from ldappolicy.address import quoted
from ldappolicy.errors import InputError

LONGEST = 2048
"""line_length_limit of Postfix: no client can say a longer one. Only what has to be taken apart counts."""

MOST_ROUNDS = 100
"""Each takes a routing away. Postfix goes on for longer, but no line of a client is worth the time."""

MOST_TOKENS = 20_000
"""Tokens that all rounds together look at, and letters that are read again: some ms, where 2 KB took 40."""

TOO_MANY = f"an address holds more than {MOST_ROUNDS} routings, or long ones"
TOO_LONG = f"an address that has to be taken apart is too long, expected at most {LONGEST} characters"

_OPERATORS = frozenset('|%!()<>@,;:".[]')
_SPACE = frozenset(" \t\r\n")
_ENDS_ATOM = {*_OPERATORS, *_SPACE, ""}
_PLAIN_ATOM = re.compile(r"[^\x00-\x20\x7f|%!()<>@,;:\"\\.\[\]]+")
_NEEDS_QUOTES = re.compile(r'[\x00-\x20\x7f|%!()<>@,;:\\".\[\]]')

means_itself = re.compile(
    r'[^@%!:]+@[^\x00-\x20\x7f|%!()<>@,;:\\".\[\]]+(?:\.[^\x00-\x20\x7f|%!()<>@,;:\\".\[\]]+)*'
).fullmatch
"""Whether there is no routing in an address, and its domain is of atoms without a trailing dot."""


@dataclass(slots=True, eq=False)
class _Word:
    """An atom, a quoted string or a domain literal, without its quotes or brackets.

    Operators are plain strings of one character; a word never equals one, whatever it holds.
    """

    text: str
    kind: str = "atom"

    @property
    def internal(self) -> str:
        """As it stands in an address in internal form."""
        return f"[{self.text}]" if self.kind == "literal" else self.text


Tokens = list[str | _Word]


def rewrite(address: str, myorigin: str, is_local: Callable[[str], bool]) -> str:
    """The address that Postfix would deliver to.

    `address`, folded, and the answer are in internal form; `is_local` says of a domain whether its local
    parts are resolved here. Without `myorigin` an address without a domain stays as it stands. Raises
    InputError when it is longer, or holds more routings, than can be followed.
    """
    if means_itself(address):
        return address
    if len(address) > LONGEST:
        raise InputError(TOO_LONG)
    myorigin = myorigin.casefold()
    return _resolve(_internal(_rewrite_tree(_scan(_external(address)), myorigin)), myorigin, is_local)


def completed(address: str, myorigin: str, mydomain: str = "") -> str:
    """What trivial-rewrite(8) makes of an address in a table: its canonical form, in internal form.

    With `mydomain` a domain without a dot is completed (append_dot_mydomain).
    """
    tokens = _rewrite_tree(_scan(_external(address)), myorigin)
    at = _last(tokens, "@")
    domain = [] if at is None else tokens[at + 1 :]
    is_short = len(domain) == 1 and isinstance(domain[0], _Word) and domain[0].kind != "literal"
    return _internal([*tokens, ".", *_scan(mydomain)] if mydomain and is_short else tokens)


def addresses_in(text: str) -> tuple[str, ...]:
    """The addresses of a list as tables hold them (tok822_parse), each in internal form, not completed.

    A comma, a semicolon and two words beside one another separate; of `phrase <address>` only the address
    counts, of `group: address;` what is in it.
    """
    tokens = _scan(text)
    found: list[Tokens] = [[]]
    firm = 0  # what stands before this place cannot turn out to be a phrase
    for at, part in enumerate(tokens):
        ends_name = part == ":" and ";" in tokens[at:]
        if part == "<" or ends_name:
            del found[firm:]
        if part in (",", ";", "<", ">") or ends_name:
            found.append([])
            firm = len(found) - 1 if part != "<" else firm
            continue
        if isinstance(part, _Word) and found[-1] and isinstance(found[-1][-1], _Word):
            found.append([])
        found[-1].append(part)
    return tuple(_internal(one) for one in found if one)


def _resolve(address: str, myorigin: str, is_local: Callable[[str], bool]) -> str:
    """resolve_addr: takes local domains off until a domain is left that is not, or no routing."""
    tokens = _scan(_external(address))
    saved: Tokens = []
    left = MOST_TOKENS
    for _ in range(MOST_ROUNDS):
        left -= len(tokens)
        if left < 0:
            break
        _strip_dot(tokens)
        at = _last(tokens, "@")
        if at is not None:
            domain = tokens[at + 1 :]
            if domain and not is_local(_internal(domain).removesuffix(".")):
                return _internal(tokens)
            saved, tokens = tokens[at:], tokens[:at]
        if not {"@", "%", "!"}.isdisjoint(tokens):
            tokens = _rewrite_tree(tokens, myorigin)
            continue
        cracked = _crack(tokens)
        if cracked is not None:
            left -= sum(len(token if isinstance(token, str) else token.text) for token in cracked)
            tokens = _rewrite_tree(cracked, myorigin)
            continue
        return _completed(tokens, saved, myorigin)
    raise InputError(TOO_MANY)


def _completed(tokens: Tokens, saved: Tokens, myorigin: str) -> str:
    """The local part that is left, with the last domain that was taken off it."""
    if not _internal(tokens):
        tokens = [_Word("mailer-daemon")]
    if len(saved) < 2 and myorigin:
        saved = ["@", *_scan(myorigin)]
    return _internal([*tokens, *saved])


def _crack(tokens: Tokens) -> Tokens | None:
    """A local part that is one quoted string with routing inside, scanned anew; else None."""
    word = tokens[0] if len(tokens) == 1 else None
    if not isinstance(word, _Word) or word.kind != "quoted":
        return None
    local = word.text
    for operator in "@%!":
        at = local.rfind(operator)
        if at >= 0:
            text = local[:at] + "@" + local[at + 1 :] if operator == "%" else local
            return _scan(text if operator == "!" else _external(text))
    return None


def _rewrite_tree(tokens: Tokens, myorigin: str) -> Tokens:
    """rewrite_tree: source routes go, bang paths and percent hacks become addresses."""
    if tokens == ["@"]:
        return [_Word("", "quoted")]
    if tokens[:1] == ["@"] and ":" in tokens and tokens.index(":") < len(tokens) - 1:
        tokens = tokens[tokens.index(":") + 1 :]
    if "@" not in tokens:
        if "!" in tokens:
            at = tokens.index("!")
            tokens = [*tokens[at + 1 :], "@", *tokens[:at]]
        elif "%" in tokens:
            at = len(tokens) - 1 - tokens[::-1].index("%")
            tokens = [*tokens[:at], "@", *tokens[at + 1 :]]
        elif myorigin:
            tokens = [*tokens, "@", *_scan(myorigin)]
    _strip_dot(tokens)
    return tokens


def _strip_dot(tokens: Tokens) -> None:
    """One trailing dot of a domain goes, but not of two, nor behind the ``@``."""
    if len(tokens) > 1 and tokens[-1] == "." and tokens[-2] not in (".", "@") and "@" in tokens:
        tokens.pop()


def _last(tokens: Tokens, operator: str) -> int | None:
    return len(tokens) - 1 - tokens[::-1].index(operator) if operator in tokens else None


# ---------------------------------------------------------------- tokens


def _scan(text: str) -> Tokens:
    """tok822_scan: atoms, quoted strings, domain literals, operators; white space and comments go."""
    tokens: Tokens = []
    at = 0
    while at < len(text):
        char = text[at]
        plain = None if char in _OPERATORS else _PLAIN_ATOM.match(text, at)
        if plain is not None and text[plain.end() : plain.end() + 1] in _ENDS_ATOM:
            tokens.append(_Word(plain[0]))
            at = plain.end()
        elif char in _SPACE:
            at += 1
        elif char == "(":
            at = _skip_comment(text, at + 1)
        elif char in '["':
            word, at = _collect(text, at + 1, "]" if char == "[" else '"')
            at += 1
            tokens.append(_Word(word, "literal" if char == "[" else "quoted"))
        elif char in _OPERATORS:
            tokens.append(char)
            at += 1
        else:
            word, at = _collect(text, at, None)
            tokens.append(_Word(word, "quoted" if _NEEDS_QUOTES.search(word) else "atom"))
    return tokens


def _collect(text: str, at: int, end: str | None) -> tuple[str, int]:
    """Characters up to `end` (None: the end of an atom), backslashes resolved; and where that is."""
    found = []
    while at < len(text):
        char = text[at]
        if char == "\\":
            at += 1
            if at == len(text):
                break
            char = text[at]
        elif char == end or (end is None and (char in _OPERATORS or char in _SPACE)):
            break
        found.append(" " if char in _SPACE else char)
        at += 1
    return "".join(found), at


def _skip_comment(text: str, at: int) -> int:
    """Where a comment, nested ones included, is over."""
    depth = 1
    while at < len(text) and depth:
        depth += {"(": 1, ")": -1}.get(text[at], 0)
        at += 2 if text[at] == "\\" else 1
    return at


def _internal(tokens: Tokens) -> str:
    """tok822_internalize: the text without quotes, a space between two words."""
    parts: list[str] = []
    for at, token in enumerate(tokens):
        if isinstance(token, str):
            parts.append(token)
        else:
            parts.append(" " if at and isinstance(tokens[at - 1], _Word) else "")
            parts.append(token.internal)
    return "".join(parts)


def _external(address: str) -> str:
    """quote_822_local: the local part in quotes where it needs them, behind a source route."""
    if address.startswith("@") and ":" in address:
        route, _, rest = address.partition(":")
        return f"{route}:{_external_local(rest)}"
    return _external_local(address)


def _external_local(address: str) -> str:
    return quoted(address) if "@" in address else quoted(address + "@")[:-1]
