"""The configuration: defaults, units, and the exact complaint for everything that is refused."""

from dataclasses import FrozenInstanceError, fields, is_dataclass
from pathlib import Path

import pytest

from ldappolicy.config import (
    Cache,
    Config,
    Directory,
    Inet,
    Listener,
    Log,
    Policy,
    Server,
    Unix,
    Web,
    load,
    parse,
)
from ldappolicy.errors import ConfigError
from ldappolicy.mapping import KEYS

SOURCE = "/etc/ldappolicy/config.toml"
ROOT = Path(__file__).parents[1]

# --- the defaults and the examples --------------------------------------------------------------

EVERY_KEY = """
[server]
listen = ["inet:127.0.0.1:10040"]      # and unix:/path; Postfix's own notation
socket_mode = "0666"
workers = 1
max_connections = 4096
idle_timeout = "1h"
request_timeout = "5s"
max_request_bytes = 131072
shutdown_grace = "10s"

[directory]
uri = ["ldap://127.0.0.1"]
profile = "auto"
search_base = "dc=example,dc=com"
filter = ""
domain = []
login_realms = []
policy_base = "ou=policy,dc=example,dc=com"
bind = "none"
bind_dn = ""
bind_pw_file = ""
allow_cleartext = false
start_tls = false
tls_ca_cert_file = ""
tls_cert_file = ""
tls_key_file = ""
tls_require_cert = true
timeout = "2s"
connections = 1
watch = "auto"
poll_interval = "30s"

[directory.attributes]

[cache]
mode = "auto"
mirror_max_entries = 500000
size = 100000
ttl = "5m"
negative_ttl = "1m"
max_stale = "4h"
snapshot = ""

[policy]
name = "default"
permit_reply = "DUNNO"
on_unavailable = "defer"
shadow = false

[web]
listen = ""
hosts = []

[log]
format = "text"
level = "info"
decisions = "rejects"
decision_id_in_text = false
"""


@pytest.mark.parametrize("text", ["", EVERY_KEY, "[server]\n[cache]", EVERY_KEY.replace("\n", "\r\n")])
def test_defaults(text: str) -> None:
    """What is not said has the documented default; the documented defaults are accepted."""
    assert Config() == parse(text, SOURCE)


def test_every_key_is_in_the_list_above() -> None:
    """No key is read that the documentation does not have."""
    for section in fields(Config):
        part = getattr(Config(), section.name)
        assert is_dataclass(part)
        for key in fields(part):
            assert f"\n{key.name} = " in EVERY_KEY or key.name == "attributes"


def test_demonstration() -> None:
    """`make run` serves the example company from the LDIF file beside the configuration's folder."""
    config = load(ROOT / "deploy" / "example.toml")
    expected = (Inet("127.0.0.1", 10040),), ROOT / "schema" / "example.ldif"
    assert expected == (config.server.listen, config.directory.ldif)


def test_frozen() -> None:
    """A configuration does not change under those who read it."""
    with pytest.raises(FrozenInstanceError):
        Config().server.workers = 2  # type: ignore[misc]


# --- what is accepted ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("snippet", "expected"),
    [
        ("[server]\nsocket_mode = '0660'", Config(server=Server(socket_mode=0o660))),
        ("[server]\nsocket_mode = '600'", Config(server=Server(socket_mode=0o600))),
        ("[server]\nidle_timeout = '500ms'", Config(server=Server(idle_timeout=0.5))),
        ("[server]\nidle_timeout = '2s'", Config(server=Server(idle_timeout=2.0))),
        ("[server]\nidle_timeout = '5m'", Config(server=Server(idle_timeout=300.0))),
        ("[server]\nidle_timeout = '4h'", Config(server=Server(idle_timeout=14400.0))),
        ("[server]\nidle_timeout = '1d'", Config(server=Server(idle_timeout=86400.0))),
        ("[server]\nidle_timeout = '365d'", Config(server=Server(idle_timeout=31536000.0))),
        ("[server]\nshutdown_grace = '0s'", Config(server=Server(shutdown_grace=0.0))),
        ("cache.ttl = '0s'", Config(cache=Cache(ttl=0.0))),
        ("cache = {mode = 'on_demand', size = 7}", Config(cache=Cache(mode="on_demand", size=7))),
        ("[policy]\non_unavailable = 'dunno'", Config(policy=Policy(on_unavailable="dunno"))),
        ("[policy]\npermit_reply = 'OK'", Config(policy=Policy(permit_reply="OK"))),
        ("[policy]\nname = 'mx in'", Config(policy=Policy(name="mx in"))),
        ("[web]\nlisten = ''", Config(web=Web())),
        ("[web]\nlisten = '127.0.0.1:9414'", Config(web=Web(Inet("127.0.0.1", 9414)))),
        ("[web]\nlisten = '[::1]:0'", Config(web=Web(Inet("::1", 0)))),
        ("[web]\nlisten = 'metrics.internal:80'", Config(web=Web(Inet("metrics.internal", 80)))),
        ("[log]\ndecision_id_in_text = true", Config(log=Log(decision_id_in_text=True))),
        ("[log]\nformat = 'json'", Config(log=Log(format="json"))),
        ("[directory]\nwatch = 'poll'", Config(directory=Directory(watch="poll"))),
        ("[directory]\nwatch = 'off'", Config(directory=Directory(watch="off"))),
        ("[directory]\nprofile = 'openldap'", Config(directory=Directory(profile="openldap"))),
        (
            "[directory]\ndomain = ['Example.COM', 'x']",
            Config(directory=Directory(domain=("example.com", "x"))),
        ),
        (
            "[directory]\nlogin_realms = ['Mail.Example.COM', 'CORP']",
            Config(directory=Directory(login_realms=("mail.example.com", "corp"))),
        ),
        (
            "[directory.attributes]\nmail = ['mail', '1.2.840.1']\nowner = []",
            Config(directory=Directory(attributes={"mail": ("mail", "1.2.840.1"), "owner": ()})),
        ),
        (
            "[directory]\nbind = 'simple'\nbind_dn = 'cn=x'\nbind_pw_file = 'pw'",
            Config(directory=Directory(bind="simple", bind_dn="cn=x", bind_pw_file="/etc/ldappolicy/pw")),
        ),
        (
            "[directory]\ntls_cert_file = '/c.pem'\ntls_key_file = '../k.pem'",
            Config(directory=Directory(tls_cert_file="/c.pem", tls_key_file="/etc/ldappolicy/../k.pem")),
        ),
    ],
)
def test_accepted(snippet: str, expected: Config) -> None:
    """A key that is said has its value, in the program's units; every other its default."""
    assert expected == parse(snippet, SOURCE)


@pytest.mark.parametrize(
    ("text", "expected", "shown"),
    [
        ("inet:127.0.0.1:10040", Inet("127.0.0.1", 10040), None),
        ("inet:localhost:1", Inet("localhost", 1), None),
        ("inet:[::1]:10040", Inet("::1", 10040), None),
        ("inet:[127.0.0.1]:0", Inet("127.0.0.1", 0), "inet:127.0.0.1:0"),
        ("inet:10040", Inet("127.0.0.1", 10040), "inet:127.0.0.1:10040"),
        ("unix:/run/ldappolicy/socket", Unix("/run/ldappolicy/socket"), None),
        ("unix:/a b", Unix("/a b"), None),
        ("unix:/" + 106 * "a", Unix("/" + 106 * "a"), None),
    ],
)
def test_listener(text: str, expected: Listener, shown: str | None) -> None:
    """Listeners are written, and shown, in Postfix's notation."""
    (listener,) = parse(f"[server]\nlisten = ['{text}']", SOURCE).server.listen
    assert (expected, shown or text) == (listener, str(listener))


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("ldap://127.0.0.1", None),
        ("ldap://ldap.example.com:1389/", "ldap://ldap.example.com:1389"),
        ("ldap://[::1]:1389", None),
        ("ldaps://ldap.example.com", None),
        ("ldapi:///", "ldapi:"),
        ("ldapi://%2Frun%2Fslapd%2Fldapi", None),
        ("ldif:/srv/tree.ldif", None),
        ("ldif:tree.ldif", "ldif:/etc/ldappolicy/tree.ldif"),
        ("ldif:../tree.ldif", "ldif:/etc/tree.ldif"),
    ],
)
def test_uri(uri: str, expected: str | None) -> None:
    """A URI names one server or one file; a relative file starts at the configuration's folder."""
    directory = parse(f"[directory]\nuri = ['{uri}']", SOURCE).directory
    assert (expected or uri,) == directory.uri
    assert (directory.ldif is not None) == uri.startswith("ldif:")


SIMPLE = "bind = 'simple'\nbind_dn = 'cn=x'\nbind_pw_file = '/pw'\n"


@pytest.mark.parametrize(
    "snippet",
    [
        "uri = ['ldap://localhost', 'ldap://127.7.7.7:389', 'ldap://[::1]', 'ldapi:///']",
        "uri = ['ldaps://ldap.example.com']",
        "uri = ['ldap://ldap.example.com']\nstart_tls = true",
        "uri = ['ldap://ldap.example.com']\nallow_cleartext = true",
        "uri = ['ldif:x']",
    ],
)
def test_password_is_safe(snippet: str) -> None:
    """A simple bind is accepted where the password stays on the machine, under TLS, or allowed."""
    assert parse(f"[directory]\n{SIMPLE}{snippet}", SOURCE).directory.bind == "simple"


@pytest.mark.parametrize(
    "snippet",
    ["uri = ['ldapi:///']", "uri = ['ldaps://a']\ntls_cert_file = '/c'\ntls_key_file = '/k'"],
)
def test_sasl_external(snippet: str) -> None:
    """SASL EXTERNAL has an identity from the socket or from a certificate."""
    assert parse(f"[directory]\nbind = 'sasl_external'\n{snippet}", SOURCE).directory.bind == "sasl_external"


@pytest.mark.parametrize("key", [key for key in KEYS if key != "login_required"])
def test_mapping_keys(key: str) -> None:
    """Every concept of the mapping can be overridden."""
    attributes = parse(f"[directory.attributes]\n{key} = ['x']", SOURCE).directory.attributes
    assert {key: ("x",)} == attributes


def test_login_required_switched_off() -> None:
    """What is not built yet may be named to be off."""
    attributes = parse("[directory.attributes]\nlogin_required = []", SOURCE).directory.attributes
    assert {"login_required": ()} == attributes


# --- what is refused ----------------------------------------------------------------------------

LISTENER = "expected 'inet:HOST:PORT' or 'unix:/PATH'"
URI = "expected 'ldap://HOST', 'ldaps://HOST', 'ldapi:///' or 'ldif:PATH'"
WEB = "expected 'HOST:PORT', or nothing"
DURATION = "expected a duration such as '500ms', '2s', '5m', '4h' or '1d'"
ATTRIBUTE = "expected an attribute name"

# Strings and arrays that span lines, with what looks like sections and keys inside.
SPANNING = """
[server]
listen = [  # [cache]
  "inet:1",
  "inet:2",
]
[directory]
filter = '''
ttl = 5
'''
[ cache ]
"ttl" = 5
"""

# Each: the text, then its complaints without the file in front.
BAD: list[tuple[str, list[str]]] = [
    # unknown names
    ("[serfer]", ["1: [serfer]: unknown section"]),
    ("\nport = 5", ["2: [port]: unknown section"]),
    ("[server]\n\n# port\nport = 5", ["4: [server] port: unknown key"]),
    ("server.port = 5", ["1: [server] port: unknown key"]),
    ("server = {port = 5}", ["1: [server] port: unknown key"]),
    ("[server.tls]\nx = 1", ["1: [server] tls: unknown key"]),
    ("[directory]\nAttributes = {}", ["2: [directory] Attributes: unknown key"]),
    ("[directory.attributes]\nmial = ['m']", ["2: [directory.attributes] mial: unknown key"]),
    ("[directory.attributes]\nmember_of = ['m']", ["2: [directory.attributes] member_of: unknown key"]),
    # types
    ("server = 5", ["1: [server]: expected a section, got 5"]),
    ("[[server]]", ["1: [server]: expected a section, got [{}]"]),
    ("[directory]\nattributes = 5", ["2: [directory] attributes: expected a section, got 5"]),
    ("[server]\nlisten = 'inet:1'", ["2: [server] listen: expected a list, got 'inet:1'"]),
    ("[server]\nmax_connections = '7'", ["2: [server] max_connections: expected a whole number, got '7'"]),
    ("[server]\nmax_connections = 7.0", ["2: [server] max_connections: expected a whole number, got 7.0"]),
    ("[server]\nmax_connections = true", ["2: [server] max_connections: expected a whole number, got true"]),
    ("[directory]\nstart_tls = 1", ["2: [directory] start_tls: expected true or false, got 1"]),
    ("[directory]\nstart_tls = 'no'", ["2: [directory] start_tls: expected true or false, got 'no'"]),
    ("[directory]\nfilter = 5", ["2: [directory] filter: expected a string, got 5"]),
    (
        "[directory.attributes]\nmail = 'mail'",
        ["2: [directory.attributes] mail: expected a list, got 'mail'"],
    ),
    ("[directory.attributes]\nmail = [5]", ["2: [directory.attributes] mail: expected a string, got 5"]),
    # listeners
    ("[server]\nlisten = []", ["2: [server] listen: expected at least one, got []"]),
    ("[server]\nlisten = ['']", [f"2: [server] listen: {LISTENER}, got ''"]),
    ("[server]\nlisten = [5]", [f"2: [server] listen: {LISTENER}, got 5"]),
    ("[server]\nlisten = ['127.0.0.1:10040']", [f"2: [server] listen: {LISTENER}, got '127.0.0.1:10040'"]),
    ("[server]\nlisten = ['inet:a:65536']", [f"2: [server] listen: {LISTENER}, got 'inet:a:65536'"]),
    ("[server]\nlisten = ['inet:::1:5']", [f"2: [server] listen: {LISTENER}, got 'inet:::1:5'"]),
    ("[server]\nlisten = ['inet:a:smtp']", [f"2: [server] listen: {LISTENER}, got 'inet:a:smtp'"]),
    ("[server]\nlisten = ['inet:a:']", [f"2: [server] listen: {LISTENER}, got 'inet:a:'"]),
    ("[server]\nlisten = ['unix:a']", [f"2: [server] listen: {LISTENER}, got 'unix:a'"]),
    ("[server]\nlisten = ['unix:/a/']", [f"2: [server] listen: {LISTENER}, got 'unix:/a/'"]),
    (
        "[server]\nlisten = ['inet:[x]:1']",
        ["2: [server] listen: expected an address in the brackets, got 'inet:[x]:1'"],
    ),
    (
        f"[server]\nlisten = ['unix:/{107 * 'a'}']",
        [f"2: [server] listen: expected a path of at most 107 bytes, got 'unix:/{107 * 'a'}'"],
    ),
    # numbers, durations, permissions
    ("[server]\nmax_connections = 0", ["2: [server] max_connections: expected at least 1, got 0"]),
    (
        "[server]\nmax_request_bytes = 4095",
        ["2: [server] max_request_bytes: expected at least 4096, got 4095"],
    ),
    ("[server]\nworkers = -1", ["2: [server] workers: expected at least 0, got -1"]),
    ("[directory]\nconnections = 65", ["2: [directory] connections: expected at most 64, got 65"]),
    ("[cache]\nsize = 0", ["2: [cache] size: expected at least 1, got 0"]),
    ("[cache]\nttl = 5", [f"2: [cache] ttl: {DURATION}, got 5"]),
    ("[cache]\nttl = '5'", [f"2: [cache] ttl: {DURATION}, got '5'"]),
    ("[cache]\nttl = '5 m'", [f"2: [cache] ttl: {DURATION}, got '5 m'"]),
    ("[cache]\nttl = '-5m'", [f"2: [cache] ttl: {DURATION}, got '-5m'"]),
    ("[cache]\nttl = '1w'", [f"2: [cache] ttl: {DURATION}, got '1w'"]),
    ("[cache]\nttl = '٣s'", [f"2: [cache] ttl: {DURATION}, got '٣s'"]),
    ("[cache]\nttl = '366d'", ["2: [cache] ttl: expected at most '365d', got '366d'"]),
    ("[directory]\ntimeout = '0s'", ["2: [directory] timeout: expected more than nothing, got '0s'"]),
    *(
        (f"[web]\nlisten = {value}", [f"2: [web] listen: {WEB}, got {value}"])
        for value in (
            *("'9414'", "':9414'", "'x'", "'a:65536'", "'::1:9414'", "'[a]:1'", "'a:'", "' a:1'"),
            *("'inet:127.0.0.1:9414'", "'unix:/x'", "'http://a:1'", "9414"),
        )
    ),
    (
        "[server]\nsocket_mode = 666",
        ["2: [server] socket_mode: expected octal permissions such as '0666', got 666"],
    ),
    (
        "[server]\nsocket_mode = '0686'",
        ["2: [server] socket_mode: expected octal permissions such as '0666', got '0686'"],
    ),
    # choices
    ("[cache]\nmode = 'all'", ["2: [cache] mode: expected 'on_demand', 'mirror' or 'auto', got 'all'"]),
    ("[policy]\npermit_reply = 'ok'", ["2: [policy] permit_reply: expected 'DUNNO' or 'OK', got 'ok'"]),
    (
        "[policy]\non_unavailable = 'reject'",
        ["2: [policy] on_unavailable: expected 'defer', 'dunno' or 'disconnect', got 'reject'"],
    ),
    ("[log]\nformat = 5", ["2: [log] format: expected 'text' or 'json', got 5"]),
    # names
    ("[policy]\nname = ''", ["2: [policy] name: expected the name of a policy, without '/', got ''"]),
    ("[policy]\nname = 'a/b'", ["2: [policy] name: expected the name of a policy, without '/', got 'a/b'"]),
    (
        "[directory]\ndomain = ['@x']",
        ["2: [directory] domain: expected a domain such as 'example.com', got '@x'"],
    ),
    (
        "[directory]\ndomain = ['hash:/x', '.y']",
        [
            "2: [directory] domain: expected a domain such as 'example.com', got 'hash:/x'",
            "2: [directory] domain: expected a domain such as 'example.com', got '.y'",
        ],
    ),
    (
        "[directory]\nlogin_realms = ['@x', '', 'auto']",
        [
            "2: [directory] login_realms: expected a realm such as 'mail.example.com' or 'CORP', got '@x'",
            "2: [directory] login_realms: expected a realm such as 'mail.example.com' or 'CORP', got ''",
            "2: [directory] login_realms: not available yet, expected the names of realms, got 'auto'",
        ],
    ),
    (
        "[directory]\ndomain = ['*.my.domain', '!my.domain', 'my.domain.', 'my-.domain', '-']",
        [
            f"2: [directory] domain: expected a domain such as 'example.com', got {one!r}"
            for one in ("*.my.domain", "!my.domain", "my.domain.", "my-.domain", "-")
        ],
    ),
    ("[directory.attributes]\nmail = ['m;x']", [f"2: [directory.attributes] mail: {ATTRIBUTE}, got 'm;x'"]),
    ("[directory.attributes]\nmail = ['']", [f"2: [directory.attributes] mail: {ATTRIBUTE}, got ''"]),
    # where the directory is
    ("[directory]\nuri = []", ["2: [directory] uri: expected at least one, got []"]),
    ("[directory]\nuri = 'ldap://a'", ["2: [directory] uri: expected a list, got 'ldap://a'"]),
    ("[directory]\nuri = ['ldif:']", [f"2: [directory] uri: {URI}, got 'ldif:'"]),
    ("[directory]\nuri = ['http://a']", [f"2: [directory] uri: {URI}, got 'http://a'"]),
    ("[directory]\nuri = ['ldap:///']", [f"2: [directory] uri: {URI}, got 'ldap:///'"]),
    ("[directory]\nuri = ['ldap://a/dc=x']", [f"2: [directory] uri: {URI}, got 'ldap://a/dc=x'"]),
    ("[directory]\nuri = ['ldap://a:x']", [f"2: [directory] uri: {URI}, got 'ldap://a:x'"]),
    ("[directory]\nuri = ['ldap://a:0']", [f"2: [directory] uri: {URI}, got 'ldap://a:0'"]),
    ("[directory]\nuri = ['ldap://u:p@a']", [f"2: [directory] uri: {URI}, got 'ldap://u:p@a'"]),
    ("[directory]\nuri = ['ldap://a b']", [f"2: [directory] uri: {URI}, got 'ldap://a b'"]),
    ("[directory]\nuri = ['ldap://[::1']", [f"2: [directory] uri: {URI}, got 'ldap://[::1'"]),
    ("[directory]\nuri = ['ldapi://run']", [f"2: [directory] uri: {URI}, got 'ldapi://run'"]),
    (
        "[directory]\nuri = ['ldif:a', 'ldap://localhost']",
        ["2: [directory] uri: expected 'ldif:' to stand alone, got 2 values"],
    ),
    (
        "[directory]\nuri = ['ldif:a', 'ldif:b']",
        ["2: [directory] uri: expected 'ldif:' to stand alone, got 2 values"],
    ),
    # what does not go together
    (
        "[directory]\nbind = 'simple'",
        [
            "2: [directory] bind: expected bind_dn to be set, got 'simple' without it",
            "2: [directory] bind: expected bind_pw_file to be set, got 'simple' without it",
        ],
    ),
    (
        f"[directory]\n{SIMPLE}uri = ['ldap://localhost', 'ldap://a.example']",
        ["5: [directory] uri: expected TLS or allow_cleartext for a simple bind, got 'ldap://a.example'"],
    ),
    (
        f"[directory]\n{SIMPLE}uri = ['ldap://localhost.evil.example']",
        [
            "5: [directory] uri: expected TLS or allow_cleartext for a simple bind, got 'ldap://localhost.evil.example'"
        ],
    ),
    (
        "[directory]\nbind = 'sasl_external'",
        ["2: [directory] bind: expected 'ldapi:' or tls_cert_file, got 'sasl_external' with neither"],
    ),
    (
        "[directory]\nstart_tls = true\nuri = ['ldap://a', 'ldaps://b']",
        ["2: [directory] start_tls: expected false with 'ldaps:', got true"],
    ),
    (
        "[directory]\ntls_cert_file = 'c'",
        ["2: [directory] tls_cert_file: expected tls_key_file to be set as well, got tls_cert_file alone"],
    ),
    (
        "[directory]\ntls_key_file = 'k'",
        ["2: [directory] tls_key_file: expected tls_cert_file to be set as well, got tls_key_file alone"],
    ),
    # what does not go together, in different sections
    (
        "[directory]\nwatch = 'off'\n[cache]\nmode = 'mirror'",
        ["4: [cache] mode: expected a watch that keeps the mirror up, got 'mirror' with watch = 'off'"],
    ),
    # not TOML
    ("[server", ["1: not TOML: expected ']' at the end of a table declaration"]),
    ("\n\nlisten = [", ["3: not TOML: invalid value"]),
    ("a = 1\na = 2", ["2: not TOML: cannot overwrite a value"]),
    # the line of a key behind others that span lines
    (
        SPANNING,
        [f"12: [cache] ttl: {DURATION}, got 5"],
    ),
    ("[server]\nlisten = [\n'inet:1',\n'x',\n]", [f"2: [server] listen: {LISTENER}, got 'x'"]),
    ("[policy]\nname = 'a\u2028b'\nx = 1", ["3: [policy] x: unknown key"]),
    # everything at once, by line
    (
        "[log]\nlevel = 'loud'\n[server]\nworkers = 1025\nport = 1\n[directory]\nstart_tls = true\nuri = ['ldaps://a']\n",
        [
            "2: [log] level: expected 'debug', 'info', 'warning' or 'error', got 'loud'",
            "4: [server] workers: expected at most 1024, got 1025",
            "5: [server] port: unknown key",
            "7: [directory] start_tls: expected false with 'ldaps:', got true",
        ],
    ),
]


@pytest.mark.parametrize(("snippet", "complaints"), BAD)
def test_refused(snippet: str, complaints: list[str]) -> None:
    """A complaint names file, line, section and key, says what was expected, and quotes what was there."""
    with pytest.raises(ConfigError) as error:
        parse(snippet, SOURCE)
    assert [f"{SOURCE}:{complaint}" for complaint in complaints] == list(error.value.complaints)


# --- files --------------------------------------------------------------------------------------


def complaint_of(path: Path) -> str:
    """What is said about a file that cannot be used."""
    with pytest.raises(ConfigError) as error:
        load(path)
    return str(error.value)


def test_no_file(tmp_path: Path) -> None:
    """A file that is not there is named."""
    path = tmp_path / "config.toml"
    assert f"{path}: cannot be read: no such file or directory" == complaint_of(path)


def test_not_a_file(tmp_path: Path) -> None:
    """A folder is named as what it is."""
    assert f"{tmp_path}: cannot be read: is a directory" == complaint_of(tmp_path)


def test_not_utf8(tmp_path: Path) -> None:
    """TOML is UTF-8."""
    path = tmp_path / "config.toml"
    path.write_bytes(b"# caf\xe9\n")
    assert f"{path}: expected UTF-8, got the byte 0xe9" == complaint_of(path)


def test_relative_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`-c config.toml` finds what stands beside it, from wherever it was started."""
    (tmp_path / "config.toml").write_text("[directory]\nuri = ['ldif:tree.ldif']\n")
    monkeypatch.chdir(tmp_path)
    assert tmp_path / "tree.ldif" == load("config.toml").directory.ldif


@pytest.mark.servers
@pytest.mark.parametrize(
    "value", ["1979-05-27", "5", "5.5", "nan", "''", "[]", "[[]]", "{}", "{a = 1}", "true"]
)
def test_any_value_anywhere(value: str) -> None:
    """No type of value in any key makes anything but a complaint about that key."""
    for section in fields(Config):
        for key in fields(getattr(Config(), section.name)):
            complaints = complaints_about(f"[{section.name}]\n{key.name} = {value}")
            assert all(line.startswith(f"{SOURCE}:2: [{section.name}") for line in complaints)


def complaints_about(text: str) -> tuple[str, ...]:
    """The complaints, if there are any."""
    try:
        parse(text, SOURCE)
    except ConfigError as error:
        return error.complaints
    return ()
