"""The configuration: TOML text to frozen dataclasses, or every complaint at once.

Owns the keys, their defaults, units and bounds, what goes together, and where in the file a complaint
belongs: `FILE:LINE: [section] key: what was expected, got ...`. The grammar is TOML 1.0 (tomllib);
values are checked by pydantic. Durations are strings with a unit and become seconds; relative paths
start at the folder of the configuration file; listeners are written in Postfix's notation.

Left to the caller, who has the modules for it: whether `search_base` and `policy_base` are DNs,
whether `filter` is a filter, and whether the files that are named can be read. A value that asks for
what is not built yet is refused here, so that nobody believes it to be in force.
"""

import ipaddress
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import unquote, urlsplit

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    StrictBool,
    StrictInt,
    StrictStr,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
)

from ldappolicy.errors import ConfigError
from ldappolicy.mapping import KEYS

UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
YEAR = 365 * UNITS["d"]

# Linux: sockaddr_un.sun_path is 108 bytes with the final NUL (unix(7)).
UNIX_PATH_MAX = 107

GLOBAL_CATALOG = (3268, 3269)
"""Ports of Active Directory where entries have only a part of their attributes, ours not among them."""

# RFC 4512 section 1.4: a keystring or a numericoid.
ATTRIBUTE_NAME = re.compile(r"[A-Za-z][A-Za-z0-9-]*|[0-9]+(\.[0-9]+)+")


# --- what one value may be ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Inet:
    """A TCP listener; port 0 lets the system choose."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"inet:{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Unix:
    """A listener in the file system."""

    path: str

    def __str__(self) -> str:
        return f"unix:{self.path}"


Listener = Inet | Unix


def listener(value: object) -> Listener:
    """`inet:HOST:PORT`, `inet:[ADDRESS]:PORT`, `inet:PORT` (on 127.0.0.1) or `unix:/PATH`."""
    if isinstance(value, str) and (m := re.fullmatch(r"unix:(/.*[^/])", value)):
        if len(m[1].encode()) > UNIX_PATH_MAX:
            raise ValueError(f"expected a path of at most {UNIX_PATH_MAX} bytes")
        return Unix(m[1])
    inet = r"inet:(?:(?:\[(?P<literal>[^\]]*)\]|(?P<name>[^\s:\[\]/]+)):)?(?P<port>[0-9]{1,5})"
    if not isinstance(value, str) or not (m := re.fullmatch(inet, value)) or int(m["port"]) > 65535:
        raise ValueError("expected 'inet:HOST:PORT' or 'unix:/PATH'")
    if m["literal"] is not None and not is_address(m["literal"]):
        raise ValueError("expected an address in the brackets")
    return Inet(m["literal"] or m["name"] or "127.0.0.1", int(m["port"]))


def web_listener(value: object) -> Inet | None:
    """`HOST:PORT` or `[ADDRESS]:PORT`; empty: none."""
    if value == "":
        return None
    expected = "expected 'HOST:PORT', or nothing"
    if not isinstance(value, str) or value.startswith("inet:") or ":" not in value:
        raise ValueError(expected)
    try:
        found = listener(f"inet:{value}")
    except ValueError:
        raise ValueError(expected) from None
    assert isinstance(found, Inet)
    return found


def is_address(text: str) -> bool:
    """Whether the text is an IPv4 or IPv6 address."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """Whether traffic to the host stays on this machine, as far as its name tells."""
    return host == "localhost" or (is_address(host) and ipaddress.ip_address(host).is_loopback)


def seconds(value: object) -> float:
    """A duration that may be nothing ('0s'): digits and a unit."""
    if not isinstance(value, str) or not (m := re.fullmatch(r"([0-9]{1,12})(ms|s|m|h|d)", value)):
        raise ValueError("expected a duration such as '500ms', '2s', '5m', '4h' or '1d'")
    if (duration := int(m[1]) * UNITS[m[2]]) > YEAR:
        raise ValueError("expected at most '365d'")
    return duration


def some_seconds(value: object) -> float:
    """A duration in which something can happen."""
    if not (duration := seconds(value)):
        raise ValueError("expected more than nothing")
    return duration


def permissions(value: object) -> int:
    """Permissions in octal notation, as chmod(1) takes them."""
    if not isinstance(value, str) or not re.fullmatch(r"0?[0-7]{3}", value):
        raise ValueError("expected octal permissions such as '0666'")
    return int(value, 8)


def directory_uri(value: object, info: ValidationInfo) -> str:
    """`ldap://HOST[:PORT]`, `ldaps://HOST[:PORT]`, `ldapi://[PATH]` or `ldif:PATH`."""
    expected = "expected 'ldap://HOST', 'ldaps://HOST', 'ldapi:///' or 'ldif:PATH'"
    if isinstance(value, str) and value.startswith("ldif:") and value != "ldif:":
        return f"ldif:{(_folder(info) / value.removeprefix('ldif:')).resolve()}"
    if not isinstance(value, str) or not is_ldap_url(value):
        raise ValueError(expected)
    if urlsplit(value).port in GLOBAL_CATALOG:
        raise ValueError("expected another port: the Global Catalog has only a part of each entry")
    return value.rstrip("/")


def is_ldap_url(text: str) -> bool:
    """Whether a URL names a server and nothing of what it holds (bases are keys of their own)."""
    try:
        url = urlsplit(text)
        host, port = url.hostname, url.port
    except ValueError:
        return False
    if url.query or url.fragment or url.path not in ("", "/") or re.search(r"\s", text):
        return False
    if url.scheme == "ldapi":
        return unquote(url.netloc)[:1] in ("", "/")
    return url.scheme in ("ldap", "ldaps") and bool(host) and "@" not in url.netloc and port != 0


def domain_name(value: str) -> str:
    """A host name, folded: ldap_table(5) takes files, tables and patterns as well, this does not.

    Labels are those of RFC 1123 section 2.1, with the underscores that are met and letters of any script.
    """
    label = r"[^\W_](?:[\w-]*\w)?|_(?:[\w-]*\w)?"
    if len(value) > 255 or not re.fullmatch(rf"(?:{label})(?:\.(?:{label}))*", value):
        raise ValueError("expected a domain such as 'example.com'")
    return value.casefold()


def login_realm(value: str) -> str:
    """What a login may have behind its `@`, or before its `\\`; folded."""
    if value == "auto":
        raise ValueError("not available yet, expected the names of realms")
    if not re.fullmatch(r"[^\s@\\]+", value):
        raise ValueError("expected a realm such as 'mail.example.com' or 'CORP'")
    return value.casefold()


def mapping_key(value: str) -> str:
    """A concept of the mapping."""
    if value not in KEYS:
        raise ValueError("unknown key")
    return value


def attribute_name(value: str) -> str:
    """The name or OID of an attribute, without options."""
    if not ATTRIBUTE_NAME.fullmatch(value):
        raise ValueError("expected an attribute name")
    return value


def policy_name(value: str) -> str:
    """The cn of a policy; `/` separates it from a list in policy_context."""
    if not value or "/" in value or value != value.strip():
        raise ValueError("expected the name of a policy, without '/'")
    return value


def _path(value: str, info: ValidationInfo) -> str:
    return str(_folder(info) / value) if value else value


def _folder(info: ValidationInfo) -> Path:
    """Where relative paths start: `parse` hands it in."""
    assert isinstance(info.context, Path)
    return info.context


def _some(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if not values:
        raise ValueError("expected at least one")
    return values


Span = Annotated[float, BeforeValidator(seconds)]
Time = Annotated[float, BeforeValidator(some_seconds)]
Text = StrictStr
File = Annotated[StrictStr, AfterValidator(_path)]
Switch = StrictBool
Uri = Annotated[str, BeforeValidator(directory_uri)]
Profile = Literal["auto", "generic", "openldap", "389ds", "freeipa", "active_directory"]
Overrides = Mapping[
    Annotated[StrictStr, AfterValidator(mapping_key)],
    tuple[Annotated[StrictStr, AfterValidator(attribute_name)], ...],
]


def _count(least: int, most: int) -> Any:
    return Field(ge=least, le=most)


# --- the sections -------------------------------------------------------------------------------


class _Section:
    """What every section has in common: a key that nobody knows is a mistake."""

    __slots__ = ()
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")


@dataclass(frozen=True, slots=True)
class Server(_Section):
    """[server]: where requests come in, and how many."""

    listen: Annotated[tuple[Annotated[Listener, PlainValidator(listener)], ...], AfterValidator(_some)] = (
        Inet("127.0.0.1", 10040),
    )
    socket_mode: Annotated[int, BeforeValidator(permissions)] = 0o666
    workers: Annotated[StrictInt, _count(0, 1024)] = 1
    max_connections: Annotated[StrictInt, _count(1, 1_000_000)] = 4096
    idle_timeout: Time = 3600.0
    request_timeout: Time = 5.0
    # Postfix's own values reach some KiB (line_length_limit 2048), certificate names have no limit.
    max_request_bytes: Annotated[StrictInt, _count(4096, 16_777_216)] = 131072
    shutdown_grace: Span = 10.0


@dataclass(frozen=True, slots=True)
class Directory(_Section):
    """[directory]: where entries are, and how to ask for them."""

    uri: Annotated[tuple[Uri, ...], AfterValidator(_some)] = ("ldap://127.0.0.1",)
    profile: Profile = "auto"
    search_base: Text = "dc=example,dc=com"
    filter: Text = ""
    domain: tuple[Annotated[StrictStr, AfterValidator(domain_name)], ...] = ()
    login_realms: tuple[Annotated[StrictStr, AfterValidator(login_realm)], ...] = ()
    policy_base: Text = "ou=policy,dc=example,dc=com"
    bind: Literal["none", "simple", "sasl_external", "gssapi"] = "none"
    bind_dn: Text = ""
    bind_pw_file: File = ""
    allow_cleartext: Switch = False
    start_tls: Switch = False
    tls_ca_cert_file: File = ""
    tls_cert_file: File = ""
    tls_key_file: File = ""
    tls_require_cert: Switch = True
    timeout: Time = 2.0
    connections: Annotated[StrictInt, _count(1, 64)] = 1
    watch: Literal["auto", "syncrepl", "persistent_search", "dirsync", "poll", "off"] = "auto"
    poll_interval: Time = 30.0
    attributes: Overrides = field(default_factory=dict)

    @property
    def ldif(self) -> Path | None:
        """The file of the embedded directory, where it is one."""
        first = self.uri[0]
        return Path(first.removeprefix("ldif:")) if first.startswith("ldif:") else None


@dataclass(frozen=True, slots=True)
class Cache(_Section):
    """[cache]: what is remembered, how much of it, for how long."""

    mode: Literal["on_demand", "mirror", "auto"] = "auto"
    mirror_max_entries: Annotated[StrictInt, _count(1, 100_000_000)] = 500_000
    size: Annotated[StrictInt, _count(1, 100_000_000)] = 100_000
    ttl: Span = 300.0
    negative_ttl: Span = 60.0
    max_stale: Span = 14400.0
    snapshot: File = ""


@dataclass(frozen=True, slots=True)
class Policy(_Section):
    """[policy]: which policy answers, and how."""

    name: Annotated[StrictStr, AfterValidator(policy_name)] = "default"
    permit_reply: Literal["DUNNO", "OK"] = "DUNNO"
    on_unavailable: Literal["defer", "dunno", "disconnect"] = "defer"
    shadow: Switch = False


@dataclass(frozen=True, slots=True)
class Web(_Section):
    """[web]: metrics and health."""

    listen: Annotated[Inet | None, PlainValidator(web_listener)] = None
    hosts: tuple[Annotated[StrictStr, AfterValidator(domain_name)], ...] = ()


@dataclass(frozen=True, slots=True)
class Log(_Section):
    """[log]: what is said about the work."""

    format: Literal["text", "json"] = "text"
    level: Literal["debug", "info", "warning", "error"] = "info"
    decisions: Literal["none", "rejects", "all"] = "rejects"
    decision_id_in_text: Switch = False


# --- what does not go together ------------------------------------------------------------------


def _check_uris(directory: Directory) -> Iterator[tuple[str, str]]:
    if len(directory.uri) > 1 and any(uri.startswith("ldif:") for uri in directory.uri):
        yield "uri", f"expected 'ldif:' to stand alone, got {len(directory.uri)} values"


def _check_bind(directory: Directory) -> Iterator[tuple[str, str]]:
    if directory.bind == "simple":
        for key in ("bind_dn", "bind_pw_file"):
            if not getattr(directory, key):
                yield "bind", f"expected {key} to be set, got 'simple' without it"
    servers = not all(uri.startswith(("ldapi:", "ldif:")) for uri in directory.uri)
    if directory.bind == "sasl_external" and servers and not directory.tls_cert_file:
        yield "bind", "expected 'ldapi:' or tls_cert_file, got 'sasl_external' with neither"


def _check_tls(directory: Directory) -> Iterator[tuple[str, str]]:
    if directory.start_tls and any(uri.startswith("ldaps:") for uri in directory.uri):
        yield "start_tls", "expected false with 'ldaps:', got true"
    for key, other in (("tls_cert_file", "tls_key_file"), ("tls_key_file", "tls_cert_file")):
        if getattr(directory, key) and not getattr(directory, other):
            yield key, f"expected {other} to be set as well, got {key} alone"


def _check_cleartext(directory: Directory) -> Iterator[tuple[str, str]]:
    if directory.bind != "simple" or directory.start_tls or directory.allow_cleartext:
        return
    for uri in directory.uri:
        if uri.startswith("ldap:") and not is_loopback(urlsplit(uri).hostname or ""):
            yield "uri", f"expected TLS or allow_cleartext for a simple bind, got {uri!r}"


class _Apart(ValueError):
    """Values that do not go together: (key, what is wrong), each."""

    def __init__(self, *complaints: tuple[str, str]) -> None:
        super().__init__("values that do not go together")
        self.complaints = complaints


def _together(directory: Directory) -> Directory:
    checks = (_check_uris, _check_bind, _check_tls, _check_cleartext)
    if complaints := [complaint for check in checks for complaint in check(directory)]:
        raise _Apart(*complaints)
    return directory


@dataclass(frozen=True, slots=True)
class Config(_Section):
    """The whole configuration; `Config()` holds the defaults."""

    server: Server = field(default_factory=Server)
    directory: Annotated[Directory, AfterValidator(_together)] = field(default_factory=Directory)
    cache: Cache = field(default_factory=Cache)
    policy: Policy = field(default_factory=Policy)
    web: Web = field(default_factory=Web)
    log: Log = field(default_factory=Log)


# --- reading ------------------------------------------------------------------------------------

Where = tuple[str, ...]
Complaint = tuple[Where, str]


def load(path: str | Path) -> Config:
    """The configuration in a file; raises ConfigError with every complaint."""
    return parse(read(path), str(path))


def read(path: str | Path) -> str:
    """The text of a configuration, for `parse`; raises ConfigError."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {(error.strerror or 'unknown').lower()}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: expected UTF-8, got the byte {error.object[error.start]:#04x}") from None


def parse(text: str, source: str) -> Config:
    """The configuration in a text; `source` is the path that complaints and relative paths start from."""
    try:
        return _parse(text, source)
    except RecursionError:
        raise _too_deep(source) from None


def _too_deep(source: str) -> ConfigError:
    return ConfigError(f"{source}: nested too deep, expected sections with keys")


def _is_deep(value: Any, left: int = 10) -> bool:
    """Whether sections stand in sections; two levels are all there is."""
    return isinstance(value, dict) and (not left or any(_is_deep(one, left - 1) for one in value.values()))


def _parse(text: str, source: str) -> Config:
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(_syntax_complaint(source, text, str(error))) from None
    if _is_deep(tree):
        raise _too_deep(source)
    try:
        config: Config = TypeAdapter(Config).validate_python(tree, context=Path(source).absolute().parent)
    except ValidationError as error:
        details = error.errors(include_url=False)
        complaints = [complaint for one in details for complaint in _complaints(one)]
        raise _error(source, text, complaints) from None
    if config.cache.mode == "mirror" and config.directory.watch == "off":
        complaint = "expected a watch that keeps the mirror up, got 'mirror' with watch = 'off'"
        raise _error(source, text, [(("cache", "mode"), complaint)])
    return config


def _error(source: str, text: str, complaints: list[Complaint]) -> ConfigError:
    lines = _lines(text)
    placed = sorted(((_line_of(where, lines), where, what) for where, what in complaints), key=lambda p: p[0])
    return ConfigError(*(f"{source}:{line}: {_name(where)}: {what}" for line, where, what in placed))


def _name(where: Where) -> str:
    section, key = where[:-1], where[-1]
    key = key if key.isprintable() else repr(key)
    return f"[{'.'.join(section)}] {key}" if section else f"[{key}]"


def _syntax_complaint(source: str, text: str, message: str) -> str:
    """Says where it stands in our form; tomllib says it at the end of its message."""
    m = re.search(r" \(at (?:line (\d+), column \d+|end of document)\)$", message)
    line = m[1] if m and m[1] else text.count("\n") + 1
    what = message[: m.start()] if m else message
    return f"{source}:{line}: not TOML: {what[:1].lower()}{what[1:]}"


# --- complaints about one value -----------------------------------------------------------------

EXPECTED: Mapping[str, str] = {
    "bool_type": "true or false",
    "dataclass_type": "a section",
    "greater_than_equal": "at least {ge}",
    "int_type": "a whole number",
    "less_than_equal": "at most {le}",
    "literal_error": "{expected}",
    "mapping_type": "a section",
    "dict_type": "a section",
    "string_type": "a string",
    "tuple_type": "a list",
}


def _complaints(details: Mapping[str, Any]) -> list[Complaint]:
    """Pydantic's error in our words."""
    where = tuple(part for part in details["loc"] if isinstance(part, str) and part != "[key]")
    reason = details.get("ctx", {}).get("error")
    if isinstance(reason, _Apart):
        return [((*where, key), what) for key, what in reason.complaints]
    return [(where, _what(where, details))]


def _what(where: Where, details: Mapping[str, Any]) -> str:
    kind, context = details["type"], details.get("ctx", {})
    if kind == "unexpected_keyword_argument":
        return "unknown key" if len(where) > 1 else "unknown section"
    if kind == "value_error":
        return _refusal(str(context["error"]), details["input"])
    if kind in EXPECTED:
        return _refusal(f"expected {EXPECTED[kind].format(**context)}", details["input"])
    return _refusal(details["msg"].lower(), details["input"])


def _refusal(what: str, got: object) -> str:
    return what if what.startswith("unknown") else f"{what}, got {_shown(got)}"


def _shown(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value)


# --- where in the file --------------------------------------------------------------------------


_CLOSING = ("]", "}", '"""', "'''")
"""What the last line of a statement has one of, if it has several."""


def _lines(text: str) -> dict[Where, int]:
    """The line on which each key and section starts.

    tomllib does not tell, but it knows where a statement ends: the first lines that parse on their own
    are one statement, whatever strings and arrays stand in it.
    """
    found: dict[Where, int] = {}
    section: Where = ()
    statement, start = "", 1
    for number, line in enumerate(text.split("\n"), start=1):
        statement += line + "\n"
        if number > start and not any(mark in line for mark in _CLOSING):
            continue
        try:
            tree = tomllib.loads(statement)
        except tomllib.TOMLDecodeError:
            continue
        paths = list(_paths(tree))
        if statement.lstrip().startswith("["):
            section = paths[-1]
            paths = [section]
        for path in paths:
            where = path if path == section else section + path
            found.setdefault(where, start)
        statement, start = "", number + 1
    return found


def _paths(tree: Mapping[str, Any]) -> Iterator[Where]:
    for key, value in tree.items():
        yield (key,)
        inner = value[0] if isinstance(value, list) and value and isinstance(value[0], dict) else value
        if isinstance(inner, dict):
            for path in _paths(inner):
                yield (key, *path)


def _line_of(where: Where, lines: Mapping[Where, int]) -> int:
    """The line of a key, or of the nearest thing around it that is in the file."""
    for length in range(len(where), 0, -1):
        if where[:length] in lines:
            return lines[where[:length]]
    return 1
