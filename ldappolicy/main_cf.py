"""main.cf and master.cf as Postfix reads them: postconf(5), master(5), without Postfix.

Owned here: logical lines (readlline(3)), `name = value`, the expansion of `$name`, `${name?text}`,
`${name:text}`, `${name?{text}:{text}}` and `${{a} == {b} ? {text} : {text}}` (mac_expand(3), with the
`<level` family for compatibility levels), the defaults of the parameters that decide about access, and
the services of master.cf with their `-o` overrides. An undefined name is empty. The last definition of
a parameter counts.

A parameter is expanded when it is asked for: one that nobody needs may be wrong. What only the host
knows (its name, its interfaces) is empty, and `lacking` says which parameters those were.

What a value means is left to whoever asks.

BUGS: functions in expansions (Postfix 3.11 and later) are refused. An expansion of more than 10,000
steps is refused as well, where Postfix would go on.
"""

import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ldappolicy.errors import InputError

SPACE = " \t\n\v\f\r"
"""What Postfix takes for white space."""

_COMPATIBLE = "${{$compatibility_level} <level {%s} ? {%s} : {%s}}"

DEFAULTS: Mapping[str, str] = {
    "access_map_defer_code": "450",
    "access_map_reject_code": "554",
    "allow_percent_hack": "yes",
    "allow_untrusted_routing": "no",
    "append_at_myorigin": "yes",
    "append_dot_mydomain": _COMPATIBLE % ("1", "yes", "no"),
    "compatibility_level": "0",
    "default_database_type": "hash",
    "defer_code": "450",
    "inet_interfaces": "all",
    "local_recipient_maps": "proxy:unix:passwd.byname $alias_maps",
    "mydestination": "$myhostname, localhost.$mydomain, localhost",
    "mynetworks_style": _COMPATIBLE % ("2", "subnet", "host"),
    "myorigin": "$myhostname",
    "propagate_unmatched_extensions": "canonical, virtual",
    "parent_domain_matches_subdomains": "debug_peer_list,fast_flush_domains,mynetworks,"
    "permit_mx_backup_networks,qmqpd_authorized_clients,relay_domains,smtpd_access_maps",
    "proxy_interfaces": "",
    "recipient_delimiter": "",
    "reject_code": "554",
    "relay_domains": _COMPATIBLE % ("2", "$mydestination", ""),
    "resolve_dequoted_address": "yes",
    "smtpd_client_restrictions": "",
    "smtpd_data_restrictions": "",
    "smtpd_delay_reject": "yes",
    "smtpd_end_of_data_restrictions": "",
    "smtpd_etrn_restrictions": "",
    "smtpd_helo_restrictions": "",
    "smtpd_null_access_lookup_key": "<>",
    "smtpd_recipient_restrictions": "",
    "smtpd_reject_unlisted_recipient": "yes",
    "smtpd_reject_unlisted_sender": "no",
    "smtpd_relay_before_recipient_restrictions": _COMPATIBLE % ("3.6", "no", "yes"),
    "smtpd_relay_restrictions": _COMPATIBLE
    % ("1", "", "permit_mynetworks, permit_sasl_authenticated, defer_unauth_destination"),
    "smtpd_restriction_classes": "",
    "smtpd_sasl_auth_enable": "no",
    "smtpd_sender_login_maps": "",
    "smtpd_sender_restrictions": "",
    "smtputf8_enable": _COMPATIBLE % ("1", "no", "yes"),
    "soft_bounce": "no",
    "swap_bangpath": "yes",
    "virtual_alias_domains": "$virtual_alias_maps",
    "virtual_alias_expansion_limit": "1000",
    "virtual_alias_maps": "$virtual_maps",
    "virtual_alias_recursion_limit": "1000",
    "virtual_mailbox_domains": "$virtual_mailbox_maps",
    "virtual_mailbox_maps": "",
    "virtual_maps": "",
}

HOST_KNOWS = frozenset(("myhostname", "mydomain", "mynetworks"))
"""Parameters whose default only the host can tell (mydomain where myhostname is set: see there)."""

_DEPTH = 100  # mac_expand.c: "unreasonable macro call nesting"
_STEPS = 10_000


@dataclass(frozen=True, slots=True)
class Definition:
    """A value as it stands in a file, white space around it removed, and its place there."""

    value: str
    where: str


@dataclass(frozen=True, slots=True)
class MainCf:
    """The parameters of one main.cf; `warnings` are what Postfix would warn of when it reads it."""

    path: Path
    definitions: Mapping[str, Definition]
    warnings: tuple[str, ...] = ()

    def get(self, name: str) -> str:
        """The expanded value, Postfix's default when it is not set, empty when unknown."""
        return self._expand(name).text

    def is_set(self, name: str) -> bool:
        """Whether the file defines it."""
        return name in self.definitions

    def where(self, name: str) -> str:
        """FILE:LINE of its definition; only FILE for a default."""
        return self.definitions[name].where if name in self.definitions else str(self.path)

    def lacking(self, name: str) -> tuple[str, ...]:
        """What the value of `name` needs of the host, which is empty in it."""
        return tuple(sorted(self._expand(name).lacking))

    def of_service(self, service: "MasterService") -> "MainCf":
        """The parameters as that service has them: its `-o` overrides win."""
        where = f"{service.path}:{service.line}"
        overrides = {name: Definition(value, where) for name, value in service.overrides.items()}
        return MainCf(self.path, {**self.definitions, **overrides}, self.warnings)

    def _expand(self, name: str) -> "_Expansion":
        expansion = _Expansion(self._raw)
        try:
            expansion.run(f"${{{name}}}" if _NAME.fullmatch(name) else self._raw(name) or "")
        except InputError as problem:
            raise InputError(f"{self.where(name)}: {name}: {problem}") from None
        return expansion

    def _raw(self, name: str) -> str | None:
        """The value before expansion; None where it is not said here."""
        if name == "myhostname" and not self.is_set("mydomain"):
            return self._hostname()
        if name in self.definitions:
            return self.definitions[name].value
        if name == "config_directory":
            # Typed in its folder, main.cf has no other, and lists take names of files from the root only.
            return _literally(str(self.path.parent.absolute()))
        if name == "mydomain":
            hostname = self._hostname()
            return None if hostname is None else _domain_of(hostname)
        # Postfix has a default for hundreds of others: what is none of its parameters is empty there.
        return None if name in HOST_KNOWS else DEFAULTS.get(name)

    def _hostname(self) -> str | None:
        """myhostname as mail_params.c reads it first: a mydomain that is not set is still empty then."""
        if not self.is_set("myhostname"):
            return None
        expansion = _Expansion(lambda name: "" if name in ("myhostname", "mydomain") else self._raw(name))
        expansion.run(self.definitions["myhostname"].value)
        return _literally(expansion.text)


def _literally(text: str) -> str:
    """Text that expands to itself."""
    return text.replace("$", "$$")


def _domain_of(hostname: str) -> str:
    """check_mydomainname of mail_params.c."""
    _, dot, domain = hostname.partition(".")
    return domain if dot else "localdomain"


def read_main_cf(path: Path) -> MainCf:
    """The parameters that a main.cf sets; raises InputError with FILE:LINE."""
    definitions: dict[str, Definition] = {}
    warnings: list[str] = []
    for number, line in logical_lines(read_text(path), str(path), warnings):
        where = f"{path}:{number}"
        name, value = _name_value(line, where)
        earlier = definitions.get(name)
        if earlier is not None and earlier.value != value:
            warnings.append(f"{where}: {name} is set again, {earlier.where} does not count")
        definitions[name] = Definition(value, where)
    return MainCf(path, definitions, tuple(warnings))


def is_utf8(text: str) -> bool:
    """Whether a text of `read_text` was UTF-8: bytes that are none come as surrogates."""
    return text.isascii() or not any("\ud800" <= char <= "\udfff" for char in text)


def read_text(path: Path) -> str:
    """A file of Postfix; bytes that are no UTF-8 stay what they are. Raises InputError."""
    try:
        # A pipe would be waited for, and /dev/zero has no end.
        if not (path.is_dir() or stat.S_ISREG(path.stat().st_mode) or str(path) == os.devnull):
            raise InputError(f"{path}: cannot be read: is no file")
        text = path.read_bytes().decode("utf-8", "surrogateescape")
    except (OSError, ValueError) as problem:
        reason = getattr(problem, "strerror", None) or str(problem)
        raise InputError(f"{path}: cannot be read: {reason.lower()}") from None
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise InputError(f"{path}: cannot be read: line {line} holds a NUL")
    return text


def logical_lines(text: str, source: str, warnings: list[str] | None = None) -> Iterator[tuple[int, str]]:
    """readlline(3): lines with their continuations, without comments, and the number of the first.

    Comments and empty lines do not end a line. White space that continues nothing is warned of.
    """
    first, parts = 0, list[str]()
    for number, line in enumerate(text.split("\n"), 1):
        stripped = line.strip(SPACE)
        if not stripped or stripped.startswith("#"):
            continue
        if line[0] not in SPACE:
            if parts:
                yield first, "".join(parts)
            first, parts = number, [line]
        elif parts:
            parts.append(line)
        elif warnings is not None:
            warnings.append(f"{source}:{number}: {stripped[:30]!r} continues no line, it is ignored")
    if parts:
        yield first, "".join(parts)


def _name_value(line: str, where: str) -> tuple[str, str]:
    """split_nameval(3); raises InputError."""
    name, equals, value = line.strip(SPACE).partition("=")
    name = name.rstrip(SPACE)
    if equals and not name:
        raise InputError(f"{where}: {_shown(line)} has no name before its '=', expected name = value")
    if not equals or _WHITE.search(name):
        raise InputError(f"{where}: {_shown(line)} has no '=' after its name, expected name = value")
    return name, value.strip(SPACE)


_WHITE = re.compile(rf"[{SPACE}]")
_NAME = re.compile(r"[A-Za-z0-9_]+")
_PLAIN = re.compile(r"[A-Za-z0-9_]*")
_OPERATOR = re.compile(r"[<>!=?+\-*/~&|%]*")
_SUFFIX = re.compile(r"[A-Za-z0-9]*")


def _shown(text: str) -> str:
    text = text.strip(SPACE)
    return repr(text if len(text) <= 60 else text[:60] + "...")


# ---------------------------------------------------------------- expansion


class _Expansion:
    """mac_expand(3) with MAC_EXP_FLAG_RECURSE: `run`, then `text` and `lacking`."""

    def __init__(self, lookup: Callable[[str], str | None]) -> None:
        self._lookup = lookup
        self._parts: list[str] = []
        self._steps = 0
        self.lacking: set[str] = set()

    @property
    def text(self) -> str:
        """What came out."""
        return "".join(self._parts)

    def run(self, text: str, depth: int = 0) -> None:
        """Expand the text; raises InputError."""
        for is_expression, part in _macros(text):
            self._steps += 1
            if depth > _DEPTH:
                raise InputError(f"${{{_shown(part)[1:-1]}}} is expanded by itself")
            if self._steps > _STEPS:
                raise InputError(f"the expansion takes more than {_STEPS} steps")
            if is_expression:
                self._expression(part, depth + 1)
            else:
                self._parts.append(part)

    def _expression(self, text: str, depth: int) -> None:
        if text.lstrip(SPACE).startswith("{"):
            value, rest = self._relation(text.lstrip(SPACE), depth)
            if rest and rest[0] not in "?:":
                raise InputError(f"{_shown(rest)} in ${{...}}, expected '?' or ':'")
        else:
            name, rest = _name_and_rest(text)
            value = self._value(name)
        if rest:
            self.run(_chosen(rest, bool(value)), depth)
        elif value:
            self.run(value, depth)

    def _value(self, name: str) -> str:
        value = self._lookup(name)
        if value is None:
            self.lacking.add(name)
        return value or ""

    def _relation(self, text: str, depth: int) -> tuple[str, str]:
        """`{a} == {b}`: "true" or nothing, and what stands behind it."""
        left, rest = _braced(text)
        match = _OPERATOR.match(rest)
        operator = match[0] if match else ""
        rest = rest[len(operator) :]
        suffix = (_SUFFIX.match(rest) or [""])[0]
        if operator not in _COMPARISONS or suffix not in ("", "level"):
            raise InputError(f"{operator + suffix!r} in ${{...}} is no comparison, expected == or the like")
        rest = rest[len(suffix) :].lstrip(SPACE)
        if not rest.startswith("{"):
            raise InputError(f"{_shown(rest)} in ${{...}}, expected {{text}} behind {operator}{suffix}")
        right, rest = _braced(rest)
        sides = (self._side(left, depth), self._side(right, depth))
        holds = _compare_levels if suffix else _compare
        return "true" if _COMPARISONS[operator](holds(*sides)) else "", rest

    def _side(self, text: str, depth: int) -> str:
        """One side of a comparison, expanded on its own."""
        outer, self._parts = self._parts, []
        self.run(text, depth)
        inner, self._parts = self.text, outer
        return inner


def _macros(text: str) -> Iterator[tuple[bool, str]]:
    """mac_parse(3): literal text (False) and what stands in `$name`, `${...}`, `$(...)` (True)."""
    literal, at = "", 0
    while at < len(text):
        dollar = text.find("$", at)
        if dollar < 0:
            break
        literal += text[at:dollar]
        at = dollar + 1
        if text.startswith("$", at):
            literal, at = literal + "$", at + 1
            continue
        if literal:
            yield False, literal
        inside, at = _macro(text, at)
        if not inside:
            raise InputError(f"{_shown(text)} has a '$' without a name, expected $name, ${{name}} or $$")
        yield True, inside
        literal = ""
    literal += text[at:]
    if literal:
        yield False, literal


def _macro(text: str, at: int) -> tuple[str, int]:
    """What the macro whose `$` stands before `at` holds, and where it ends."""
    opening = text[at : at + 1]
    if opening not in ("(", "{"):
        match = _PLAIN.match(text, at)
        end = match.end() if match else at
        return text[at:end], end
    closing, level = (")" if opening == "(" else "}"), 0
    for end in range(at, len(text)):
        level += (text[end] == opening) - (text[end] == closing)
        if level == 0:
            return text[at + 1 : end], end + 1
    raise InputError(f"{_shown(text)} has a '{opening}' without '{closing}'")


def _name_and_rest(text: str) -> tuple[str, str]:
    """`name`, and `?text` or `:text` behind it."""
    text = text.lstrip(SPACE)
    match = _PLAIN.match(text)
    name = match[0] if match else ""
    rest = text[len(name) :].lstrip(SPACE)
    if rest.startswith("{"):
        raise InputError(f"function {name!r} is not known")
    if rest and rest[0] not in "?:":
        raise InputError(f"{_shown(text)} in ${{...}} is no name of a parameter")
    return name, rest


def _chosen(rest: str, condition: bool) -> str:
    """The text of `?text`, `:text` or `?{text}:{text}` that counts; empty for none."""
    if rest[0] == "?":
        text = rest[1:].lstrip(SPACE)
        if not text.startswith("{"):
            return rest[1:] if condition else ""
        then, rest = _braced(text)
        if condition:
            _require_end(rest)
            return then
        if not rest:
            return ""
        _require_end(rest)
    text = rest[1:].lstrip(SPACE)
    if not text.startswith("{"):
        return "" if condition else rest[1:]
    otherwise, rest = _braced(text)
    if rest:
        raise InputError(f"{_shown(rest)} in ${{...}}, expected nothing more")
    return "" if condition else otherwise


def _require_end(rest: str) -> None:
    if rest and rest[0] != ":":
        raise InputError(f"{_shown(rest)} in ${{...}}, expected ':'")


def _braced(text: str) -> tuple[str, str]:
    """The content of the braces that the text begins with, and the rest without white space."""
    level = 0
    for at, char in enumerate(text):
        level += (char == "{") - (char == "}")
        if level == 0:
            return text[1:at], text[at + 1 :].lstrip(SPACE)
    raise InputError(f"unbalanced braces in {_shown(text)}")


_COMPARISONS: Mapping[str, Callable[[int], bool]] = {
    "==": lambda delta: delta == 0,
    "!=": lambda delta: delta != 0,
    "<": lambda delta: delta < 0,
    "<=": lambda delta: delta <= 0,
    ">=": lambda delta: delta >= 0,
    ">": lambda delta: delta > 0,
}


def _compare(left: str, right: str) -> int:
    """mac_exp_eval: numbers as such, anything else as strcmp(3)."""
    if _is_number(left) and _is_number(right):
        numbers = int(left), int(right)
        return (numbers[0] > numbers[1]) - (numbers[0] < numbers[1])
    octets = left.encode("utf-8", "surrogateescape"), right.encode("utf-8", "surrogateescape")
    return (octets[0] > octets[1]) - (octets[0] < octets[1])


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 19


def _compare_levels(left: str, right: str) -> int:
    one, other = _level(left), _level(right)
    return (one > other) - (one < other)


def _level(text: str) -> tuple[int, ...]:
    """A compatibility level: major, minor, patch."""
    numbers = text.split(".")
    if len(numbers) > 3 or not all(_is_number(number) for number in numbers):
        raise InputError(f"compatibility level {text!r}, expected up to three numbers with dots")
    return (*map(int, numbers), 0, 0)[:3]


# ---------------------------------------------------------------- master.cf


@dataclass(frozen=True, slots=True)
class MasterService:
    """One service of master.cf; `overrides` are the parameters of its `-o`, not expanded."""

    name: str
    kind: str
    command: str
    overrides: Mapping[str, str] = field(default_factory=dict)
    line: int = 0
    path: Path = Path("master.cf")


_KINDS = frozenset(("inet", "unix", "unix-dgram", "fifo", "pass"))
_WITH_ARGUMENT = frozenset("imnst")  # single_server(3): "cdDi:lm:n:o:s:t:uvVz"


def read_master_cf(path: Path) -> tuple[MasterService, ...]:
    """The services of a master.cf, in order; raises InputError with FILE:LINE."""
    lines = logical_lines(read_text(path), str(path))
    return tuple(_service(path, number, line) for number, line in lines)


def _service(path: Path, number: int, line: str) -> MasterService:
    where = f"{path}:{number}"
    fields = list(_fields(line, where))
    if len(fields) < 8:
        raise InputError(f"{where}: {_shown(line)} has {len(fields)} fields, expected at least 8")
    if fields[1] not in _KINDS:
        raise InputError(f"{where}: service type {fields[1]!r}, expected {', '.join(sorted(_KINDS))}")
    overrides = dict(_overrides(fields[8:], where))
    return MasterService(fields[0], fields[1], fields[7], overrides, number, path)


def _fields(line: str, where: str) -> Iterator[str]:
    """mystrtokq(3): white space separates, braces keep together and are taken off the arguments."""
    level, start = 0, -1
    count = 0
    for at, char in enumerate(line + " "):
        if level == 0 and char in " \t\r\n":
            if start >= 0:
                text = line[start:at]
                yield _unbraced(text, where) if count >= 8 else text
                count += 1
            start = -1
            continue
        start = at if start < 0 else start
        level = max(0, level + (char == "{") - (char == "}"))
    if start >= 0:
        raise InputError(f"{where}: {_shown(line[start:])} has a '{{' without '}}'")


def _unbraced(text: str, where: str) -> str:
    if not text.startswith("{"):
        return text
    if not text.endswith("}"):
        raise InputError(f"{where}: {_shown(text)} has text behind its '}}'")
    return text[1:-1].strip(SPACE)


def _overrides(arguments: Iterable[str], where: str) -> Iterator[tuple[str, str]]:
    """The `-o name=value` among the options of a daemon, up to the first argument that is none."""
    waiting = iter(arguments)
    for argument in waiting:
        if not argument.startswith("-") or argument in ("-", "--"):
            return
        letter = next((at for at, char in enumerate(argument[1:], 1) if char in _WITH_ARGUMENT | {"o"}), 0)
        if not letter:
            continue
        value = argument[letter + 1 :] or next(waiting, "")
        if argument[letter] == "o":
            yield _name_value(value, where)
