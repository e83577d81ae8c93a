r"""Search filters and LDAP URLs: the only place where a filter string is made.

A filter is a tree of frozen values. `parse` reads RFC 4515, `to_text` prints it, `parse_url` reads the
URLs of RFC 4516 that name no host: nothing that stands in a directory ever opens a connection.

Escaping is not the caller's: a value is any string, and what would mean something in a filter (`*`,
`(`, `)`, `\`, NUL) or is not UTF-8 (kept in a str with surrogateescape) is printed as `\XX`. An attribute
or matching rule is printed only if it is a name.

What a filter matches is left to directories. `And(())` is true and `Or(())` is false (RFC 4526).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import unquote

from ldappolicy.errors import InputError

MAX_DEPTH = 100  # reading and matching recurse; nobody writes 20

_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*+(?:;[A-Za-z0-9_-]++)*+"
_DESCRIPTION = re.compile(_NAME)
_ITEM = re.compile(
    rf"(?P<attr>{_NAME})?(?P<dn>:[Dd][Nn])?(?::(?P<rule>[A-Za-z0-9][A-Za-z0-9._-]*+))?"
    r"(?P<type>:=|~=|>=|<=|=)(?P<value>[^()\0]*+)"
)
_SPACE = re.compile(r"[ \t\r\n]*+")
_MEANS_SOMETHING = re.compile("[*()\\\\\0\udc80-\udcff]")
_ESCAPE = re.compile(rb"\\([0-9A-Fa-f]{2})?")
_BAD_PERCENT = re.compile("%(?![0-9A-Fa-f]{2})")


@dataclass(frozen=True, slots=True)
class And:
    """`(&...)`"""

    parts: "tuple[Filter, ...]"


@dataclass(frozen=True, slots=True)
class Or:
    """`(|...)`"""

    parts: "tuple[Filter, ...]"


@dataclass(frozen=True, slots=True)
class Not:
    """`(!...)`"""

    part: "Filter"


@dataclass(frozen=True, slots=True)
class Equality:
    """`(attr=value)`"""

    attr: str
    value: str


@dataclass(frozen=True, slots=True)
class Substring:
    """`(attr=initial*any*any*final)`; a part that is not there is None."""

    attr: str
    initial: str | None = None
    any: tuple[str, ...] = ()
    final: str | None = None


@dataclass(frozen=True, slots=True)
class Present:
    """`(attr=*)`"""

    attr: str


@dataclass(frozen=True, slots=True)
class GreaterOrEqual:
    """`(attr>=value)`"""

    attr: str
    value: str


@dataclass(frozen=True, slots=True)
class LessOrEqual:
    """`(attr<=value)`"""

    attr: str
    value: str


@dataclass(frozen=True, slots=True)
class Approx:
    """`(attr~=value)`"""

    attr: str
    value: str


@dataclass(frozen=True, slots=True)
class Extensible:
    """`(attr:dn:rule:=value)`; at least one of rule and attr is there."""

    rule: str | None
    attr: str | None
    value: str
    dn_attributes: bool = False


Filter = And | Or | Not | Equality | Substring | Present | GreaterOrEqual | LessOrEqual | Approx | Extensible

_VALUED: dict[str, type[Equality | GreaterOrEqual | LessOrEqual | Approx]] = {
    "=": Equality,
    ">=": GreaterOrEqual,
    "<=": LessOrEqual,
    "~=": Approx,
}


def parse(text: str) -> Filter:
    """Read a filter; the outermost parentheses may be left out, as LDAP libraries allow."""
    reader = _Reader(text)
    found = reader.filter() if reader.next() == "(" else reader.inside(0)
    if reader.next():
        raise reader.expected("the end")
    return found


class _Reader:
    """Recursive descent over one filter's text; white space between filters means nothing."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def expected(self, what: str) -> InputError:
        return InputError(f"not a filter: {self.text!r}, expected {what} at character {self.at + 1}")

    def next(self) -> str:
        """The next character that is not white space, or nothing."""
        if found := _SPACE.match(self.text, self.at):
            self.at = found.end()
        return self.text[self.at : self.at + 1]

    def filter(self, depth: int = 1) -> Filter:
        if self.next() != "(":
            raise self.expected("'('")
        if depth > MAX_DEPTH:
            raise self.expected(f"no more than {MAX_DEPTH} levels")
        self.at += 1
        found = self.inside(depth)
        if self.next() != ")":
            raise self.expected("')'")
        self.at += 1
        return found

    def inside(self, depth: int) -> Filter:
        operator = self.next()
        if operator not in ("&", "|", "!"):
            return self.item()
        self.at += 1
        if operator == "!":
            return Not(self.filter(depth + 1))
        parts: list[Filter] = []
        while self.next() == "(":
            parts.append(self.filter(depth + 1))
        return And(tuple(parts)) if operator == "&" else Or(tuple(parts))

    def item(self) -> Filter:
        found = _ITEM.match(self.text, self.at)
        if found is None:
            raise self.expected("attribute=value")
        attr, rule, value = found["attr"], found["rule"], found["value"]
        if found["type"] == ":=":
            if attr is None and rule is None:
                raise self.expected("an attribute or a matching rule")
            made: Filter = Extensible(rule, attr, self.value(value), found["dn"] is not None)
        elif attr is None or rule is not None or found["dn"] is not None:
            raise self.expected("attribute=value")
        elif found["type"] == "=" and "*" in value:
            made = self.substring(attr, value)
        else:
            made = _VALUED[found["type"]](attr, self.value(value))
        self.at = found.end()
        return made

    def substring(self, attr: str, text: str) -> Filter:
        initial, *between, final = (self.value(part) for part in text.split("*"))
        any_ = tuple(part for part in between if part)  # "**" asks for nothing more than "*"
        if not (initial or any_ or final):
            return Present(attr)
        return Substring(attr, initial or None, any_, final or None)

    def value(self, text: str) -> str:
        if "*" in text:
            raise self.expected("'\\2a' for '*' in the value")
        if "\\" not in text:
            return text

        def byte(escape: re.Match[bytes]) -> bytes:
            if escape[1] is None:
                raise self.expected("two hex digits behind '\\' in the value")
            return bytes.fromhex(escape[1].decode())

        return _ESCAPE.sub(byte, _utf8(text)).decode("utf-8", "surrogateescape")


def attributes_in(tree: Filter) -> Iterator[str]:
    """The attributes that a filter looks at."""
    match tree:
        case And(parts) | Or(parts):
            for part in parts:
                yield from attributes_in(part)
        case Not(part):
            yield from attributes_in(part)
        case Extensible(attr=None):
            pass
        case _:
            assert tree.attr is not None
            yield tree.attr


def to_text(tree: Filter) -> str:
    """Print a filter, with everything escaped that must be."""
    match tree:
        case And(parts):
            return f"(&{''.join(map(to_text, parts))})"
        case Or(parts):
            return f"(|{''.join(map(to_text, parts))})"
        case Not(part):
            return f"(!{to_text(part)})"
        case Equality(attr, value):
            return f"({_name(attr)}={_escaped(value)})"
        case Substring(attr, initial, any_, final):
            parts_of_value = (initial or "", *any_, final or "")
            return f"({_name(attr)}={'*'.join(map(_escaped, parts_of_value))})"
        case Present(attr):
            return f"({_name(attr)}=*)"
        case GreaterOrEqual(attr, value):
            return f"({_name(attr)}>={_escaped(value)})"
        case LessOrEqual(attr, value):
            return f"({_name(attr)}<={_escaped(value)})"
        case Approx(attr, value):
            return f"({_name(attr)}~={_escaped(value)})"
        case Extensible():
            return _extensible_text(tree)


def _extensible_text(match: Extensible) -> str:
    if match.attr is None and match.rule is None:
        raise InputError("not a filter: expected an attribute or a matching rule in an extensible match")
    attr = "" if match.attr is None else _name(match.attr)
    rule = "" if match.rule is None else ":" + _name(match.rule)
    return f"({attr}{':dn' if match.dn_attributes else ''}{rule}:={_escaped(match.value)})"


def _name(text: str) -> str:
    if not _DESCRIPTION.fullmatch(text):
        raise InputError(f"not an attribute: {text!r}, expected a name or an object identifier")
    return text


def _escaped(value: str) -> str:
    _utf8(value)
    return _MEANS_SOMETHING.sub(lambda found: f"\\{ord(found[0]) & 0xFF:02x}", value)


def _utf8(text: str) -> bytes:
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise InputError(f"not a filter: {text!r}, expected UTF-8") from None


@dataclass(frozen=True, slots=True)
class LdapUrl:
    """An RFC 4516 URL without a host: what it would search. `scope` is 0 (base), 1 (one), 2 (sub)."""

    base: str
    attributes: tuple[str, ...] = ()
    scope: int = 0
    filter: Filter = Present("objectClass")


_SCOPES = {"": 0, "base": 0, "one": 1, "sub": 2}


def parse_url(text: str) -> LdapUrl:
    """Read `ldap:///base?attributes?scope?filter?extensions`; what is left out has RFC 4516's default."""
    if text[:7].lower() != "ldap://":
        raise _bad_url(text, "ldap:///")
    host, slash, rest = text[7:].partition("/")
    if host or not slash:
        what = "names a host" if host.partition("?")[0] else "has no base"
        raise InputError(f"the URL {what}: {text!r}, expected ldap:///")
    parts = rest.split("?")
    if len(parts) > 5:
        raise _bad_url(text, "no more than four '?'")
    if _BAD_PERCENT.search(rest):
        raise _bad_url(text, "two hex digits behind '%'")
    base, attributes, scope, filter_text, extensions = parts + [""] * (5 - len(parts))
    if any(extension.strip().startswith(("!", "%21")) for extension in extensions.split(",")):
        raise _bad_url(text, "no critical extension")
    if scope.lower() not in _SCOPES:
        raise _bad_url(text, f"base, one or sub instead of {scope!r}")
    return LdapUrl(
        _decoded(base),
        tuple(_url_attribute(name, text) for name in attributes.split(",") if name),
        _SCOPES[scope.lower()],
        parse(_decoded(filter_text)) if filter_text else Present("objectClass"),
    )


def _bad_url(text: str, expected: str) -> InputError:
    return InputError(f"not an LDAP URL: {text!r}, expected {expected}")


def _decoded(part: str) -> str:
    return unquote(part, "utf-8", "surrogateescape")


def _url_attribute(part: str, text: str) -> str:
    name = _decoded(part).strip()
    if name not in ("*", "+") and not _DESCRIPTION.fullmatch(name):
        raise _bad_url(text, f"an attribute instead of {name!r}")
    return name
