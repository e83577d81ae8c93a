"""The LDAP transport against a real slapd; against a fake only for what slapd never does."""

import asyncio
import base64
import random
import re
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from ldappolicy.directory import Scope, Search
from ldappolicy.directory.ldap import LdapDirectory, LdapSettings, codec, requests
from ldappolicy.directory.ldap.connection import MAX_IN_FLIGHT, Connection
from ldappolicy.directory.ldap.health import Server
from ldappolicy.directory.ldap.settings import endpoints
from ldappolicy.entry import Entry
from ldappolicy.errors import ConfigError, Unavailable
from ldappolicy.ldap_filter import (
    And,
    Approx,
    Equality,
    Extensible,
    Filter,
    GreaterOrEqual,
    LessOrEqual,
    Not,
    Or,
    Present,
    Substring,
)
from tests.labs.clock import on_virtual_time
from tests.labs.faulty_ldap import FakeLdap, Proxy, nobody, stalled, well
from tests.labs.slapd import SUFFIX, Certificates, Slapd, require_slapd

AMY = f"uid=amy,ou=people,{SUFFIX}"
ANY = Present("objectClass")

MAILS = [
    "amy@example.com",
    "o'brien@example.com",
    "*@example.com",
    "*",
    "(x)@example.com",
    "a)(mail=*@example.com",
    "back\\slash@example.com",
    "\\2a@example.com",
    '"john doe"@example.com',
    '"a\\"b@c"@example.com',
    "a+b=c,d#e;f<g>@example.com",
    "&|!~@example.com",
]
DNS = [
    'cn=Smith\\, \\"Bob\\" \\+ Co,ou=people,' + SUFFIX,
    "cn=Jörg Müller,ou=people," + SUFFIX,
    "cn=\\#hash,ou=people," + SUFFIX,
    "cn=trailing\\20,ou=people," + SUFFIX,
    "cn=a\\5cb*(c),ou=people," + SUFFIX,
    "cn=multi+sn=valued,ou=people," + SUFFIX,
]
SECRETS = [
    b"secret",
    b"\0",
    b"*",
    b"(",
    b")",
    b"\\",
    b" lead",
    b"trail ",
    b"\xff\xfe\x80",
    b"\\2a",
    b"a\0b",
    b"\n",
]

TREE = f"""\
dn: {SUFFIX}
objectClass: dcObject
objectClass: organization
dc: example
o: Example

dn: ou=people,{SUFFIX}
objectClass: organizationalUnit
ou: people

dn: ou=secret,{SUFFIX}
objectClass: organizationalUnit
ou: secret
description: for amy

dn: ou=socket,{SUFFIX}
objectClass: organizationalUnit
ou: socket
description: for whoever runs slapd

dn: ou=certificate,{SUFFIX}
objectClass: organizationalUnit
ou: certificate
description: for the certificate of amy

dn: {AMY}
objectClass: inetOrgPerson
uid: amy
cn: Amy
sn: A
cn;lang-de: Amalie
employeeNumber: 7
userPassword: secret

"""
ACCESS = (
    f'to dn.base="ou=secret,{SUFFIX}" by dn.exact="{AMY}" read by * none',
    f'to dn.base="ou=socket,{SUFFIX}" by dn.regex="^gidNumber=.*,cn=peercred,cn=external" read by * none',
    f'to dn.base="ou=certificate,{SUFFIX}" by dn.regex="^cn=amy,ou=testing cert" read by * none',
    "to * by * read",
)


def record(dn: str, **values: str | Sequence[bytes]) -> str:
    """One LDIF entry whose DN and values are all in base64."""
    pairs = [("dn", dn.encode())]
    for name, several in values.items():
        pairs += [(name, value) for value in ([several.encode()] if isinstance(several, str) else several)]
    return "".join(f"{name}:: {base64.b64encode(value).decode()}\n" for name, value in pairs) + "\n"


def tree() -> str:
    """TREE, and whatever is hostile."""
    people = [
        record(f"uid=m{n},ou=people,{SUFFIX}", objectClass="inetOrgPerson", cn="M", sn="M", mail=mail)
        for n, mail in enumerate(MAILS)
    ]
    people += [record(dn, objectClass="person", sn="valued") for dn in DNS]
    people += [
        record(
            f"uid=s{n},ou=people,{SUFFIX}", objectClass="inetOrgPerson", cn="S", sn="S", userPassword=[secret]
        )
        for n, secret in enumerate(SECRETS)
    ]
    return TREE + "".join(people)


T = TypeVar("T")


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run it in an event loop of its own."""
    return asyncio.run(coroutine)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """An authority that the tests trust."""
    return Certificates.issue(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def slapd(certificates: Certificates) -> Iterator[Slapd]:
    """One server for all the tests that only read."""
    require_slapd()
    with Slapd(access=ACCESS, certificates=certificates) as server:
        server.load(tree())
        yield server


@pytest.fixture
def own_slapd() -> Iterator[Slapd]:
    """A server that a test may ill-treat."""
    require_slapd()
    with Slapd(data=TREE) as server:
        yield server


@asynccontextmanager
async def directory(*uris: str, **settings: Any) -> AsyncIterator[LdapDirectory]:
    """A directory that is closed at the end; a real server has a minute for whatever it has to answer."""
    opened = LdapDirectory(LdapSettings(uris, **{"timeout": 60.0, **settings}))
    try:
        yield opened
    finally:
        await opened.close()


def base(dn: str, condition: Filter = ANY, *attributes: str) -> Search:
    """A search of one entry."""
    return Search(dn, Scope.BASE, condition, attributes or ("1.1",))


def below(dn: str, condition: Filter = ANY, *attributes: str) -> Search:
    """A search of a tree."""
    return Search(dn, Scope.SUB, condition, attributes or ("1.1",))


async def ask(search: Search, *uris: str, **settings: Any) -> list[Entry]:
    """One search on a connection of its own."""
    async with directory(*uris, **settings) as opened:
        return await opened.search(search)


async def refusal(search: Awaitable[object]) -> str:
    """The text of the Unavailable that the search must end with."""
    with pytest.raises(Unavailable) as caught:
        await search
    return str(caught.value)


async def until(condition: Callable[[], object]) -> None:
    """Let the loop run until the condition holds."""
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110  # what another process does sets no Event of ours
            await asyncio.sleep(0.002)


async def answered(opened: LdapDirectory) -> None:
    """Ask until there is an answer: where the timeout is short, a busy server may need more than one."""
    async with asyncio.timeout(60):
        while True:
            try:
                assert rdns(await opened.search(base(AMY))) == ["uid=amy"]
                return
            except Unavailable:
                await asyncio.sleep(0.05)


def rdns(entries: Sequence[Entry]) -> list[str]:
    """The first components of the DNs, sorted."""
    return sorted(entry.dn.partition(",")[0] for entry in entries)


# --- what is found --------------------------------------------------------------------------------


@pytest.mark.servers
def test_an_entry_has_its_attributes_as_stored(slapd: Slapd) -> None:
    """Names in any case, all values, options dropped, nothing that was not asked for."""
    [amy] = run(ask(base(AMY, ANY, "CN", "employeeNumber", "mail"), slapd.uri))
    expected = Entry(AMY, {"cn": ["Amy", "Amalie"], "employeenumber": ["7"]})
    assert (amy.dn, sorted(amy.values("cn")), amy.values("mail")) == (AMY, ["Amalie", "Amy"], ())
    assert dict(amy.items()).keys() == dict(expected.items()).keys()


@pytest.mark.servers
@pytest.mark.parametrize("mail", MAILS)
def test_a_hostile_address_is_a_value_and_nothing_else(slapd: Slapd, mail: str) -> None:
    """A filter finds the entry with exactly that address, never what the address would mean in a filter."""
    found = run(ask(below(SUFFIX, Equality("mail", mail), "mail"), slapd.uri))
    assert [entry.values("mail") for entry in found] == [(mail,)]


@pytest.mark.servers
@pytest.mark.parametrize("mail", MAILS)
def test_a_hostile_address_is_a_part_of_a_value(slapd: Slapd, mail: str) -> None:
    """The same in each place of a substring filter."""
    for part in (
        Substring("mail", mail),
        Substring("mail", None, (mail,)),
        Substring("mail", None, (), mail),
    ):
        found = run(ask(below(SUFFIX, part, "mail"), slapd.uri))
        assert mail in [entry.values("mail")[0] for entry in found]


@pytest.mark.servers
@pytest.mark.parametrize("secret", SECRETS)
def test_every_octet_goes_there_and_back(slapd: Slapd, secret: bytes) -> None:
    """An octet string comes back as it was stored, and finds its entry."""
    value = secret.decode("utf-8", "surrogateescape")
    found = run(ask(below(SUFFIX, Equality("userPassword", value), "userPassword"), slapd.uri))
    assert value in {entry.values("userPassword")[0] for entry in found}
    assert {entry.values("userPassword") for entry in found} == {(value,)}


@pytest.mark.servers
@pytest.mark.parametrize("dn", DNS)
def test_a_dn_is_a_base_as_it_stands(slapd: Slapd, dn: str) -> None:
    """Commas, quotes, backslashes, NUL and other alphabets in a DN; what slapd spells is understood too."""
    [entry] = run(ask(base(dn), slapd.uri))
    [again] = run(ask(base(entry.dn), slapd.uri))
    assert entry.key == again.key == Entry(dn, {}).key


@pytest.mark.servers
@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (Equality("uid", "AMY"), ["uid=amy"]),
        (And((Equality("uid", "amy"), Present("cn"))), ["uid=amy"]),
        (And((Equality("uid", "amy"), And(()))), ["uid=amy"]),
        (Or((Equality("uid", "amy"), Equality("uid", "m0"))), ["uid=amy", "uid=m0"]),
        (Or((Equality("uid", "amy"), Or(()))), ["uid=amy"]),
        (And((Present("uid"), Not(Present("mail")), Not(Present("userPassword")))), []),
        (And((Present("employeeNumber"), Not(Or((Equality("uid", "m0"), Present("mail")))))), ["uid=amy"]),
        (Substring("uid", "a", (), "y"), ["uid=amy"]),
        (Substring("uid", None, ("m",), "y"), ["uid=amy"]),
        (And((Equality("uid", "amy"), GreaterOrEqual("createTimestamp", "20200101000000Z"))), ["uid=amy"]),
        (And((Equality("uid", "amy"), LessOrEqual("createTimestamp", "20200101000000Z"))), []),
        (And((Equality("uid", "amy"), LessOrEqual("createTimestamp", "29990101000000Z"))), ["uid=amy"]),
        (Approx("uid", "amy"), ["uid=amy"]),
        (Extensible("caseExactMatch", "cn", "Amy"), ["uid=amy"]),
        (Extensible("caseExactMatch", "cn", "amy"), []),
        (Extensible(None, "ou", "people", dn_attributes=True), None),
        (Equality("nosuchattribute", "x"), []),
    ],
    ids=repr,
)
def test_every_kind_of_filter_means_what_it_says(
    slapd: Slapd, condition: Filter, expected: list[str] | None
) -> None:
    """slapd reads from the wire what the tree says; None: everything below ou=people."""
    found = rdns(run(ask(below(SUFFIX, condition), slapd.uri)))
    assert found == (
        expected if expected is not None else rdns(run(ask(below(f"ou=people,{SUFFIX}"), slapd.uri)))
    )


@pytest.mark.servers
def test_a_scope_is_one_of_three(slapd: Slapd) -> None:
    """The entry, its children, or everything from it downwards."""
    condition = Or((Present("ou"), Equality("uid", "amy")))
    found = [
        rdns(run(ask(Search(f"ou=people,{SUFFIX}", scope, condition, ("1.1",)), slapd.uri)))
        for scope in Scope
    ]
    assert found == [["ou=people"], ["uid=amy"], ["ou=people", "uid=amy"]]


@pytest.mark.servers
def test_a_base_that_is_not_there_is_absent_only_as_itself(slapd: Slapd) -> None:
    """noSuchObject answers a base search; a search below nothing has not been answered."""
    nowhere = f"ou=nowhere,{SUFFIX}"
    assert run(ask(base(nowhere), slapd.uri)) == []
    reason = run(refusal(ask(below(nowhere), slapd.uri)))
    assert reason == f"{slapd.uri}: search at {nowhere!r}: noSuchObject (32)"


@pytest.mark.servers
def test_a_part_of_the_answer_is_no_answer() -> None:
    """sizeLimitExceeded comes with entries, and is unavailable all the same."""
    require_slapd()
    with Slapd(data=TREE, size_limit="2") as slapd:
        reason = run(refusal(ask(below(SUFFIX), slapd.uri)))
        assert reason == f"{slapd.uri}: search at {SUFFIX!r}: sizeLimitExceeded (4)"


@pytest.mark.servers
def test_searches_share_a_connection_at_once(slapd: Slapd) -> None:
    """300 at a time are answered, each with its own answer, over one connection."""

    async def many() -> list[list[Entry]]:
        async with directory(slapd.uri) as opened:
            asked = [base(f"uid=m{n % len(MAILS)},ou=people,{SUFFIX}", ANY, "mail") for n in range(300)]
            answers = await asyncio.gather(*map(opened.search, asked))
            assert opened.searches == 300
            return answers

    before = slapd.connections()
    answers = run(many())
    assert [entries[0].values("mail")[0] for entries in answers] == [
        MAILS[n % len(MAILS)] for n in range(300)
    ]
    assert slapd.connections() == before + 1


@pytest.mark.servers
def test_several_connections_take_turns(slapd: Slapd) -> None:
    """`connections` is how many are opened, and no more."""

    async def many(before: int) -> None:
        async with directory(slapd.uri, connections=3) as opened:
            for _ in range(2):
                await asyncio.gather(*(opened.search(base(AMY)) for _ in range(30)))
                await until(lambda: slapd.connections() >= before + 3)

    before = slapd.connections()
    run(many(before))
    assert slapd.connections() == before + 3


# --- who we are, and who the server is ------------------------------------------------------------


def tls(certificates: Certificates, **more: Any) -> dict[str, Any]:
    """Settings that trust the authority."""
    return {"tls_ca_cert_file": str(certificates.ca_file), **more}


def simple(directory: Path, password: bytes = b"secret") -> dict[str, Any]:
    """Settings that bind as amy, her password in a file."""
    (directory / "password").write_bytes(password)
    return {"bind": "simple", "bind_dn": AMY, "bind_pw_file": str(directory / "password")}


def external(certificates: Certificates) -> dict[str, Any]:
    """Settings that bind by amy's certificate."""
    return tls(
        certificates,
        bind="sasl_external",
        tls_cert_file=str(certificates.client_cert_file),
        tls_key_file=str(certificates.client_key_file),
    )


WAYS = [
    "tcp",
    "ldapi",
    "ldaps",
    "start_tls",
    "tcp simple",
    "ldapi simple",
    "ldaps simple",
    "start_tls simple",
]
WAYS += ["ldapi external", "ldaps external", "start_tls external"]
LOOPS: list[Any] = [None, uvloop.new_event_loop]


@pytest.mark.servers
@pytest.mark.parametrize("loop", LOOPS, ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("way", WAYS)
def test_a_connection_is_who_it_says(
    slapd: Slapd, certificates: Certificates, tmp_path: Path, way: str, loop: Any
) -> None:
    """Each transport with each bind; slapd shows to each what is for it alone."""
    transport, _, bind = way.partition(" ")
    uri = {"ldapi": slapd.ldapi_uri, "ldaps": slapd.ldaps_uri}.get(transport, slapd.uri)
    settings: dict[str, Any] = tls(certificates, start_tls=transport == "start_tls")
    settings |= {"simple": simple(tmp_path), "external": external(certificates)}.get(bind, {})
    if way == "ldapi external":
        settings = {"bind": "sasl_external"}

    async def shown() -> list[str]:
        async with directory(uri, **settings) as opened:
            units = [base(f"ou={name},{SUFFIX}") for name in ("people", "secret", "socket", "certificate")]
            found = await asyncio.gather(*map(opened.search, units))
            assert opened.describe() == uri
            return [name for entries in found for name in rdns(entries)]

    own = {"simple": ["ou=secret"], "external": ["ou=socket" if transport == "ldapi" else "ou=certificate"]}
    with asyncio.Runner(loop_factory=loop) as runner:
        assert runner.run(shown()) == ["ou=people", *own.get(bind, [])]


@pytest.mark.servers
@pytest.mark.parametrize("way", ["ldaps", "start_tls"])
@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ("wrong authority", r"certificate not accepted: unable to get local issuer certificate|self.signed"),
        ("wrong name", r"certificate not accepted: IP address mismatch, .*'127\.0\.0\.1'"),
    ],
)
def test_no_password_leaves_before_the_server_has_proved_its_name(
    tmp_path: Path, certificates: Certificates, way: str, fault: str, expected: str
) -> None:
    """A certificate of another authority, or of another host: unavailable, and slapd has seen no bind."""
    require_slapd()
    stranger = Certificates.issue(tmp_path, *["mail.example.net"] * (fault == "wrong name"))
    trusted = certificates if fault == "wrong authority" else stranger
    with Slapd(data=TREE, certificates=stranger) as slapd:
        uri = slapd.ldaps_uri if way == "ldaps" else slapd.uri
        settings = tls(trusted, start_tls=way == "start_tls", **simple(tmp_path))
        reason = run(refusal(ask(base(AMY), uri, **settings)))
        assert re.search(expected, reason)
        assert reason.startswith(f"{uri}: ")
        assert " BIND " not in slapd.log.read_text()
        settings["tls_require_cert"] = False
        assert rdns(run(ask(base(AMY), uri, **settings))) == ["uid=amy"]


@pytest.mark.servers
def test_a_wrong_password_is_unavailable(slapd: Slapd, tmp_path: Path) -> None:
    """The reason names server, DN and result code, and not the password."""
    reason = run(refusal(ask(base(AMY), slapd.uri, **simple(tmp_path, b"wrong"))))
    assert reason == f"{slapd.uri}: simple bind {AMY!r}: invalidCredentials (49)"


@pytest.mark.servers
def test_the_password_is_read_at_each_connect(own_slapd: Slapd, tmp_path: Path) -> None:
    """A changed file counts from the next connection on; one that became empty never binds as nobody."""

    async def story() -> list[str]:
        async with directory(own_slapd.uri, **simple(tmp_path, b"wrong\n")) as opened:
            reasons = [await refusal(opened.search(base(AMY)))]
            simple(tmp_path, b"secret\n")
            assert rdns(await opened.search(base(AMY))) == ["uid=amy"]
            simple(tmp_path, b"\n")
            own_slapd.restart()
            reasons.append(await refusal(opened.search(base(AMY))))
            (tmp_path / "password").unlink()
            reasons.append(await refusal(opened.search(base(AMY))))
            return reasons

    file = str(tmp_path / "password")
    assert run(story()) == [
        f"{own_slapd.uri}: simple bind {AMY!r}: invalidCredentials (49)",
        f"bind_pw_file: {file!r} is empty",
        f"bind_pw_file: {file!r}: No such file or directory",
    ]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"uris": ()}, ["uri: expected at least one server"]),
        ({"uris": ["http://a"]}, ["uri: 'http://a': expected ldap://, ldaps://, ldapi://"]),
        ({"uris": ["ldap://"]}, ["uri: 'ldap://': expected a host name"]),
        (
            {"uris": ["ldapi://var"]},
            ["uri: 'ldapi://var': expected the path of a socket with %2F for each slash"],
        ),
        (
            {"uris": ["ldap://a/dc=b"]},
            ["uri: 'ldap://a/dc=b': expected a server only, without a DN or a user"],
        ),
        ({"uris": ["ldap://u@a"]}, ["uri: 'ldap://u@a': expected a server only, without a DN or a user"]),
        (
            {"uris": ["ldap://a"], "bind": "magic", "timeout": 0.0, "connections": 0},
            [
                "bind: 'magic': expected one of none, simple, sasl_external, gssapi",
                "timeout: 0.0: expected more than nothing",
                "connections: 0: expected at least 1",
            ],
        ),
        (
            {"uris": ["ldap://localhost"], "bind": "simple"},
            ["bind_dn: expected one for bind = 'simple'", "bind_pw_file: expected one for bind = 'simple'"],
        ),
        (
            {"uris": ["ldap://a", "ldaps://a", "ldapi:///"], "bind": "sasl_external"},
            [
                "uri: 'ldap://a': bind = 'sasl_external' needs ldapi:// or TLS with tls_cert_file",
                "uri: 'ldaps://a': bind = 'sasl_external' needs ldapi:// or TLS with tls_cert_file",
            ],
        ),
        ({"uris": ["ldap://a"], "tls_key_file": "k"}, ["tls_key_file: expected tls_cert_file with it"]),
        (
            {"uris": ["ldaps://a"], "tls_ca_cert_file": "/nowhere"},
            ["cannot load the TLS files '/nowhere': [Errno 2] No such file or directory"],
        ),
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, Any], expected: list[str]) -> None:
    """Every complaint at once, before anything is connected."""
    with pytest.raises(ConfigError) as caught:
        LdapDirectory(LdapSettings(**settings))
    assert list(caught.value.complaints) == expected


@pytest.mark.parametrize(
    ("uri", "start_tls", "allowed"),
    [
        ("ldap://ldap.example.com", False, False),
        ("ldap://192.0.2.1", False, False),
        ("ldap://localhost.example.com", False, False),
        ("ldap://ldap.example.com", True, True),
        ("ldaps://ldap.example.com", False, True),
        ("ldap://127.0.0.2:3389", False, True),
        ("ldap://[::1]", False, True),
        ("ldap://localhost", False, True),
        ("ldapi://%2Frun%2Fldapi", False, True),
    ],
)
def test_a_password_is_not_sent_in_clear_text(
    tmp_path: Path, uri: str, start_tls: bool, allowed: bool
) -> None:
    """Unless the host is this one, or the administrator says so."""
    settings = LdapSettings([uri], start_tls=start_tls, **simple(tmp_path))
    if not allowed:
        with pytest.raises(ConfigError) as caught:
            LdapDirectory(settings)
        expected = f"uri: {uri!r}: a simple bind without TLS needs allow_cleartext = true"
        assert str(caught.value) == expected
        settings = LdapSettings([uri], allow_cleartext=True, **simple(tmp_path))
    assert LdapDirectory(settings).describe() == "not connected"


def test_a_uri_is_taken_apart() -> None:
    """Default ports, addresses in brackets, socket paths."""
    uris = ["ldap://a", "ldaps://B.example:1636/", "ldap://[::1]:3389", "ldapi://%2Frun%2Fa%20b"]
    found = [(point.host, point.port, point.path) for point in endpoints(LdapSettings(uris))]
    assert found == [("a", 389, ""), ("b.example", 1636, ""), ("::1", 3389, ""), ("", 0, "/run/a b")]


# --- trouble with a real server -------------------------------------------------------------------


@pytest.mark.servers
@pytest.mark.parametrize("loop", LOOPS, ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("way", ["tcp", "ldapi", "ldaps", "start_tls"])
def test_a_restarted_server_is_nobodys_trouble(certificates: Certificates, way: str, loop: Any) -> None:
    """The connection that ended while idle is replaced without an error."""
    require_slapd()

    async def story(slapd: Slapd) -> None:
        uri = {"ldapi": slapd.ldapi_uri, "ldaps": slapd.ldaps_uri}.get(way, slapd.uri)
        async with directory(uri, **tls(certificates, start_tls=way == "start_tls")) as opened:
            for end in (slapd.stop, slapd.kill, slapd.stop):
                assert rdns(await opened.search(base(AMY))) == ["uid=amy"]
                end()
                slapd.start()
            assert rdns(await opened.search(base(AMY))) == ["uid=amy"]

    with Slapd(data=TREE, certificates=certificates) as slapd, asyncio.Runner(loop_factory=loop) as runner:
        runner.run(story(slapd))


@pytest.mark.servers
def test_an_idle_timeout_of_the_server_is_nobodys_trouble() -> None:
    """slapd's own olcIdleTimeout drops the connection; the next search opens another."""
    require_slapd()

    async def story(slapd: Slapd) -> None:
        async with directory(slapd.uri) as opened:
            await opened.search(base(AMY))
            await until(lambda: opened.describe() == "not connected")
            assert rdns(await opened.search(base(AMY))) == ["uid=amy"]

    with Slapd(data=TREE, idle_timeout=1) as slapd:
        run(story(slapd))


@pytest.mark.servers
def test_a_killed_server_is_unavailable_until_it_is_back(own_slapd: Slapd) -> None:
    """At once, with the reason; then it is asked again."""

    async def story() -> None:
        async with directory(own_slapd.uri) as opened:
            await opened.search(base(AMY))
            own_slapd.kill()
            reason = await refusal(opened.search(base(AMY)))
            assert reason.startswith(f"{own_slapd.uri}: ")
            assert "within" not in reason  # nobody waited
            assert opened.describe() == reason
            own_slapd.start()
            assert rdns(await opened.search(base(AMY))) == ["uid=amy"]

    run(story())


@pytest.mark.servers
def test_a_hung_server_is_unavailable_until_it_wakes_up(own_slapd: Slapd) -> None:
    """And is told what nobody waits for any more."""

    async def story() -> None:
        async with directory(own_slapd.uri, timeout=0.3) as opened:
            await answered(opened)
            own_slapd.suspend()
            assert await refusal(opened.search(base(AMY))) == f"{own_slapd.uri}: no answer within 0.3 s"
            own_slapd.resume()
            await answered(opened)
            await until(lambda: " ABANDON " in own_slapd.log.read_text())

    run(story())


@pytest.mark.servers
def test_a_hung_server_does_not_get_a_bind_through(own_slapd: Slapd, tmp_path: Path) -> None:
    """Connect, TLS and bind have one deadline."""
    own_slapd.suspend()
    reason = run(refusal(ask(base(AMY), own_slapd.uri, timeout=0.3, **simple(tmp_path))))
    assert reason == f"{own_slapd.uri}: no connection within 0.3 s"


@pytest.mark.servers
def test_the_next_server_takes_over(own_slapd: Slapd, slapd: Slapd) -> None:
    """In the order of the URIs; searches in flight when the first one dies are asked of the second."""

    async def story(dead: str) -> None:
        async with directory(dead, own_slapd.uri, slapd.uri) as opened:
            await opened.search(base(AMY))
            assert opened.describe() == own_slapd.uri
            own_slapd.suspend()
            asked = [asyncio.ensure_future(opened.search(base(AMY))) for _ in range(20)]
            await asyncio.sleep(0)
            own_slapd.kill()
            assert [rdns(entries) for entries in await asyncio.gather(*asked)] == [["uid=amy"]] * 20
            assert opened.describe() == slapd.uri

    with nobody() as dead:
        run(story(dead))


# --- proofs ---------------------------------------------------------------------------------------


@pytest.mark.servers
def test_an_empty_replica_is_not_asked(slapd: Slapd) -> None:
    """A server that lacks the base, or what is below it, does not read as "no such entry"."""
    require_slapd()
    proofs = (base(SUFFIX), below(SUFFIX, Equality("uid", "amy")))

    async def story(empty: Slapd) -> None:
        async with directory(empty.uri, proofs=proofs[:1]) as opened:
            reason = await refusal(opened.search(base(AMY)))
            assert reason == f"server {empty.uri} does not show (objectClass=*) at {SUFFIX!r}"
            empty.load(TREE.partition("\n\n")[0] + "\n")
            assert await opened.search(base(AMY)) == []  # what was asked for was shown
            opened.set_proofs(proofs)
            empty.restart()
            reason = await refusal(opened.search(base(AMY)))
            assert reason == f"server {empty.uri} does not show (uid=amy) at {SUFFIX!r}"
        async with directory(empty.uri, slapd.uri, proofs=proofs) as opened:
            assert rdns(await opened.search(base(AMY))) == ["uid=amy"]
            assert opened.describe() == slapd.uri

    with Slapd() as empty:
        run(story(empty))


@pytest.mark.servers
def test_a_lost_right_is_seen_by_the_next_connection(own_slapd: Slapd) -> None:
    """An account that may not read any more is told apart from an empty directory."""

    async def story() -> None:
        async with directory(own_slapd.uri, proofs=[base(AMY)]) as opened:
            await opened.search(base(AMY))
            own_slapd.configure(
                "dn: olcDatabase={1}mdb,cn=config\nchangetype: modify\nreplace: olcAccess\n"
                "olcAccess: {0}to * by * none\n"
            )
            own_slapd.restart()
            reason = await refusal(opened.search(base(AMY)))
            assert reason == f"server {own_slapd.uri} does not show (objectClass=*) at {AMY!r}"

    run(story())


# --- time, which is a virtual one -----------------------------------------------------------------


def now() -> float:
    """The clock of the loop that runs."""
    return asyncio.get_running_loop().time()


def test_a_hung_server_costs_exactly_the_timeout() -> None:
    """One timeout keeps the connection, and the server may wake up; two in a row end it."""

    async def costs(opened: LdapDirectory, uri: str) -> None:
        started = now()
        assert await refusal(opened.search(base(AMY))) == f"{uri}: no answer within 0.3 s"
        assert now() - started == pytest.approx(0.3)

    async def story() -> None:
        async with (
            FakeLdap({AMY: {"uid": ["amy"]}}) as fake,
            Proxy(fake.path) as proxy,
            directory(proxy.uri, timeout=0.3) as opened,
        ):
            await opened.search(base(AMY))
            proxy.be(stalled)
            await costs(opened, proxy.uri)
            proxy.be(well)
            assert rdns(await opened.search(base(AMY))) == ["uid=amy"]
            proxy.be(stalled)
            await costs(opened, proxy.uri)
            assert opened.describe() == proxy.uri
            await costs(opened, proxy.uri)
            assert opened.describe() == f"{proxy.uri}: no answer to several searches in a row"
            proxy.be(well)
            assert rdns(await opened.search(base(AMY))) == ["uid=amy"]
            assert proxy.connections == 2

    on_virtual_time(story())


def test_opening_has_one_deadline(tmp_path: Path) -> None:
    """A bind that is not answered costs what a search does."""

    async def story() -> None:
        async with Fake(stay_silent) as fake:
            started = now()
            reason = await refusal(ask(base(AMY), fake.uri, timeout=0.3, **simple(tmp_path)))
            assert reason == f"{fake.uri}: no connection within 0.3 s"
            assert now() - started == pytest.approx(0.3)
            assert fake.connections == 1

    on_virtual_time(story())


# --- the memory of failures -----------------------------------------------------------------------


class Clock:
    """A clock that stands still until it is set."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(("jitter", "share"), [(1.0, 1.0), (0.0, 0.5)])
def test_the_pause_doubles_up_to_thirty_seconds(jitter: float, share: float) -> None:
    """0.2, 0.4, 0.8 ... 30 s, of which jitter takes up to a half."""
    clock = Clock()
    [endpoint] = endpoints(LdapSettings(["ldap://a"]))
    server = Server(endpoint, clock, lambda: jitter)
    for pause in (0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30.0, 30.0):
        server.failed("x")
        clock.now += pause * share - 0.01
        assert not server.is_rested
        clock.now += 0.02
        assert server.is_rested
    server.answered()
    server.failed("x")
    assert (server.is_given_up, server.failures) == (False, 1)


def test_an_open_circuit_answers_at_once() -> None:
    """Three failures, then nobody connects before the pause is over; one answer closes the circuit."""
    clock = Clock()

    async def story() -> None:
        async with Fake(close_at_once) as fake:
            opened = LdapDirectory(
                LdapSettings([fake.uri], proofs=[base(AMY)]), clock=clock, jitter=lambda: 1.0
            )
            attempts = []
            for now in (0.0, 0.0, 0.0, 0.0, 0.79, 0.81, 0.82):
                clock.now = now
                reason = await refusal(opened.search(base(AMY)))
                assert reason.startswith(f"{fake.uri}: connection lost")
                attempts.append(fake.connections)
            assert attempts == [1, 2, 3, 3, 3, 4, 4]
            fake.behave = answer_all
            clock.now = 10.0
            assert await opened.search(base(AMY)) == [Entry("", {})]
            await opened.close()

    on_virtual_time(story())


def test_callers_share_one_attempt_to_connect() -> None:
    """Fifty searches at a silent server are one connection, and all are unavailable together."""

    async def story() -> None:
        async with Fake(stay_silent) as fake, directory(fake.uri, proofs=[base(AMY)], timeout=0.3) as opened:
            started = now()
            reasons = await asyncio.gather(*(refusal(opened.search(base(AMY))) for _ in range(50)))
            assert set(reasons) == {f"{fake.uri}: no answer within 0.3 s"}
            assert fake.connections == 1
            assert now() - started == pytest.approx(0.3)

    on_virtual_time(story())


def test_a_caller_without_patience_leaves_the_attempt_to_others() -> None:
    """Cancelling the search that began to connect does not cancel the connecting."""

    async def story() -> None:
        async with Fake(answer_all) as fake, directory(fake.uri) as opened:
            first = asyncio.ensure_future(opened.search(base(AMY)))
            second = asyncio.ensure_future(opened.search(base(AMY)))
            await asyncio.sleep(0)
            first.cancel()
            assert await second == [Entry("", {})]
            assert (first.cancelled(), fake.connections) == (True, 1)

    on_virtual_time(story())


# --- what slapd never does ------------------------------------------------------------------------


def ber(tag: int, *parts: bytes) -> bytes:
    """One BER element, its length in the long form of Active Directory."""
    content = b"".join(parts)
    return bytes([tag, 0x84]) + len(content).to_bytes(4, "big") + content


def message(number: int, *parts: bytes) -> bytes:
    """One LDAPMessage."""
    return ber(0x30, ber(0x02, number.to_bytes(4, "big")), *parts)


def result(tag: int, code: int, diagnostic: bytes = b"", *more: bytes) -> bytes:
    """An LDAPResult under the tag of its operation."""
    return ber(tag, ber(0x0A, code.to_bytes(2, "big")), ber(0x04), ber(0x04, diagnostic), *more)


def entry(dn: bytes, **values: list[bytes]) -> bytes:
    """A SearchResultEntry."""
    attributes = [
        ber(0x30, ber(0x04, name.encode()), ber(0x31, *(ber(0x04, value) for value in several)))
        for name, several in values.items()
    ]
    return ber(0x64, ber(0x04, dn), ber(0x30, *attributes))


DONE = result(0x65, 0)
REFERRED = result(0x65, 10, b"", ber(0xA3, ber(0x04, b"ldap://elsewhere/")))
REFERENCE = ber(0x73, ber(0x04, b"ldap://elsewhere/"))
NOTICE = message(0, result(0x78, 52, b"bye", ber(0x8A, b"1.3.6.1.4.1.1466.20036")))

Behaviour = Callable[["Fake", asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Fake:
    """A server that does on each connection what a test tells it; on a socket file, or with TLS on a port."""

    def __init__(self, behave: Behaviour, *, port: bool = False) -> None:
        self.behave = behave
        self._has_port = port
        self._folder = tempfile.TemporaryDirectory(prefix="ldap-")
        self.connections = 0
        self.received = b""
        self.requests = 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.uri = ""

    async def __aenter__(self) -> "Fake":
        if self._has_port:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
            self.uri = f"ldap://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        else:
            path = self._folder.name + "/ldapi"
            self._server = await asyncio.start_unix_server(self._serve, path)
            self.uri = f"ldapi://{quote(path, safe='')}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._folder.cleanup()

    async def request(self, reader: asyncio.StreamReader) -> int:
        """The number of the next request."""
        head = await reader.readexactly(2)
        more = await reader.readexactly(head[1] & 0x7F) if head[1] & 0x80 else b""
        length = int.from_bytes(more, "big") if more else head[1]
        body = await reader.readexactly(length)
        self.received += head + more + body
        self.requests += 1
        return int.from_bytes(body[2 : 2 + body[1]], "big")

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self.behave(self, reader, writer)
        except (OSError, EOFError, asyncio.CancelledError):
            pass
        finally:
            writer.close()


async def close_at_once(_fake: Fake, _reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    """Hang up."""


async def stay_silent(fake: Fake, reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    """Read for ever."""
    while True:
        await fake.request(reader)


async def answer_all(fake: Fake, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One nameless entry for every search."""
    while True:
        number = await fake.request(reader)
        writer.write(message(number, entry(b"")) + message(number, DONE))


def say(*octets: bytes, close: bool = False) -> Behaviour:
    """Answer the first request with these octets, each a write of its own."""

    async def behave(fake: Fake, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await fake.request(reader)
        for octet in octets:
            writer.write(octet)
            await writer.drain()
        if not close:
            fake.received += await reader.read(-1)

    return behave


@pytest.mark.parametrize(
    ("octets", "expected"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "not an LDAP message: b'HTTP/1.1 400 Bad Request"),
        (b"\x16\x03\x01\x02\x00\x01", "not an LDAP message: b'\\x16"),
        (b"\x30\x84\x7f\xff\xff\xff", "not an LDAP message: 2147483653 bytes, more than 16777216"),
        (b"\x30\xff" + b"\xff" * 127, "not an LDAP message: "),
        (b"\x30\x80\x02\x01\x01", "not an LDAP message: b'0\\x80'"),
        (b"\x30\x00\x30", "not an LDAP message: b'0\\x00'"),
        (message(1), "not an LDAP message: "),
        (message(1, b"\xdf\x01"), "not an LDAP message: "),
        (message(1, ber(0x64, ber(0x04, b"dc=a"))), "not an LDAP message: "),
        (message(1, ber(0x64, b"\x30" * 4000)), "not an LDAP message: "),
        (message(1, ber(0x63, ber(0x04, b"dc=a"))), "not an LDAP message: "),
        (message(1, result(0x67, 0)), "not an LDAP message: "),
        (message(1, REFERENCE) + message(1, DONE), "refers to another server"),
        (message(1, REFERRED), "search at 'dc=x': referral (10)"),
        (message(1, result(0x65, 4095)), "search at 'dc=x': unknown result (4095)"),
        (message(1, result(0x65, 51, b"a\nb\0c")), "search at 'dc=x': busy (51): a b c"),
        (message(1, entry(b"no dn")) + message(1, DONE), "not a DN: 'no dn'"),
        (
            message(1, entry(b"dc=a", **{"member;range=0-1": [b"a", b"b"]})) + message(1, DONE),
            "'dc=a': only a part of it: 'member;range=0-1'",
        ),
    ],
)
def test_an_answer_that_cannot_be_trusted_is_unavailable(octets: bytes, expected: str) -> None:
    """Garbage, lengths that are lies, referrals, unknown result codes: at once, and asked only once."""

    async def story() -> None:
        async with Fake(say(octets)) as fake, directory(fake.uri) as opened:
            reason = await refusal(opened.search(below("dc=x")))
            assert expected in reason
            assert reason.startswith(f"{fake.uri}: ")
            assert fake.connections == 1

    on_virtual_time(story())


def test_garbage_fails_all_that_waits_and_counts_as_a_failure() -> None:
    """Every search in flight is unavailable; the next one opens a new connection."""

    async def story() -> None:
        async with Fake(say(b"garbage")) as fake, directory(fake.uri) as opened:
            reasons = await asyncio.gather(*(refusal(opened.search(base(AMY))) for _ in range(10)))
            assert {reason.partition("message")[0] for reason in reasons} == {f"{fake.uri}: not an LDAP "}
            assert opened.describe() == reasons[0]
            fake.behave = answer_all
            assert await opened.search(base(AMY)) == [Entry("", {})]

    on_virtual_time(story())


def test_a_trickle_does_not_stretch_the_deadline() -> None:
    """One octet every few milliseconds is no answer."""

    async def trickle(fake: Fake, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await fake.request(reader)
        for octet in message(1, entry(b"dc=a", cn=[b"x" * 1000])):
            writer.write(bytes([octet]))
            await asyncio.sleep(0.01)

    async def story() -> float:
        async with Fake(trickle) as fake, directory(fake.uri, timeout=0.3) as opened:
            started = now()
            assert await refusal(opened.search(base(AMY))) == f"{fake.uri}: no answer within 0.3 s"
            return now() - started

    assert on_virtual_time(story()) == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("before", "octets", "retried"),
    [
        ("closed", b"", True),
        ("notice", NOTICE, True),
        ("in the middle of an entry", message(1, entry(b"dc=a"))[:-2], False),
        ("between entries", message(1, entry(b"dc=a")), False),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_search_is_asked_again_only_if_nothing_had_come(before: str, octets: bytes, retried: bool) -> None:
    """Once, on a new connection; half an answer is unavailable."""

    async def once(fake: Fake, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        fake.behave = answer_all
        await say(octets, close=True)(fake, reader, writer)

    async def story() -> None:
        async with Fake(once) as fake, directory(fake.uri) as opened:
            if retried:
                assert await opened.search(base(AMY)) == [Entry("", {})], before
            else:
                assert await refusal(opened.search(base(AMY))) == f"{fake.uri}: connection lost"
            assert fake.connections == 1 + retried

    on_virtual_time(story())


def test_a_server_that_always_hangs_up_is_asked_twice() -> None:
    """The second time is the last."""

    async def story() -> None:
        async with Fake(say(close=True)) as fake, directory(fake.uri) as opened:
            assert await refusal(opened.search(base(AMY))) == f"{fake.uri}: connection lost"
            assert fake.connections == 2

    on_virtual_time(story())


def test_a_half_closed_connection_is_closed() -> None:
    """The server says that it will say no more; waiting would be for ever."""

    async def half(fake: Fake, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = await fake.request(reader)
        writer.write(message(number, entry(b"dc=a")))
        writer.write_eof()
        await reader.read()

    async def story() -> None:
        async with Fake(half) as fake, directory(fake.uri) as opened:
            assert await refusal(opened.search(base(AMY))) == f"{fake.uri}: connection lost"

    on_virtual_time(story())


def test_sixty_four_are_in_flight_and_the_rest_wait() -> None:
    """Those that wait are sent as answers come; the wait counts for the deadline."""

    async def story() -> None:
        async with Fake(stay_silent) as fake, directory(fake.uri, timeout=0.5) as opened:
            started = now()
            asked = [asyncio.ensure_future(refusal(opened.search(base(AMY)))) for _ in range(100)]
            await until(lambda: fake.requests >= MAX_IN_FLIGHT)
            assert fake.requests == MAX_IN_FLIGHT
            assert all("no answer" in reason for reason in await asyncio.gather(*asked))
            assert now() - started == pytest.approx(0.5)
        async with Fake(answer_all) as fake, directory(fake.uri) as opened:
            await asyncio.gather(*(opened.search(base(AMY)) for _ in range(200)))
            assert (fake.requests, fake.connections) == (200, 1)

    on_virtual_time(story())


def test_a_search_that_is_given_up_is_abandoned() -> None:
    """By a timeout or by its caller; its late answer is nobody's."""
    release = asyncio.Event()

    async def late(fake: Fake, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = await fake.request(reader)
        await fake.request(reader)
        await release.wait()
        writer.write(message(number, entry(b"dc=late")) + message(number, DONE))
        await answer_all(fake, reader, writer)

    async def story() -> None:
        async with Fake(late) as fake, directory(fake.uri) as opened:
            search = asyncio.ensure_future(opened.search(base(AMY)))
            await until(lambda: fake.requests == 1)
            search.cancel()
            await until(lambda: fake.requests == 2)
            assert fake.received.endswith(b"\x02\x01\x02\x50\x01\x01")  # message 2: abandon 1
            release.set()
            assert await opened.search(base(AMY)) == [Entry("", {})]
            assert fake.connections == 1

    on_virtual_time(story())


def test_a_closed_directory_lets_go_and_may_be_used_again() -> None:
    """Searches and attempts in hand become unavailable; the goodbye is said."""

    async def story() -> None:
        async with Fake(stay_silent) as fake, directory(fake.uri) as opened:
            search = asyncio.ensure_future(refusal(opened.search(base(AMY))))
            await until(lambda: fake.requests == 1)
            await opened.close()
            assert await search == f"{fake.uri}: closed"
            await until(lambda: fake.received.endswith(b"\x42\x00"))  # unbind
            opened.set_proofs([base(AMY)])
            search = asyncio.ensure_future(refusal(opened.search(base(AMY))))
            await until(lambda: fake.connections == 2)
            await opened.close()
            assert await search == "the directory was closed"
            fake.behave = answer_all
            assert await opened.search(base(AMY)) == [Entry("", {})]

    on_virtual_time(story())


@pytest.mark.parametrize(
    ("octets", "expected"),
    [
        (message(1, result(0x78, 2)), "StartTLS: protocolError (2)"),
        (message(1, result(0x78, 0)) + b"\x30", "StartTLS: more than an answer in clear text"),
        (
            message(1, result(0x78, 0)) + message(2, result(0x65, 0)),
            "StartTLS: more than an answer in clear text",
        ),
        (
            message(7, result(0x65, 0)) + message(1, result(0x78, 0)),
            "StartTLS: more than an answer in clear text",
        ),
        (message(1, result(0x78, 0)) + NOTICE, "notice of disconnection: unavailable (52): bye"),
        (b"", "no connection within 0.3 s"),
        (message(1, result(0x78, 0)), "no connection within 0.3 s"),
    ],
)
@pytest.mark.parametrize("loop", LOOPS, ids=["asyncio", "uvloop"])
def test_no_password_follows_a_start_tls_that_failed(
    tmp_path: Path, octets: bytes, expected: str, loop: Any
) -> None:
    """A server, or somebody between, that does not start TLS, says more than it should, or stalls."""

    async def story() -> None:
        async with Fake(say(octets), port=True) as fake:
            timeout = 0.3 if "within 0.3 s" in expected else 60.0
            settings = {"start_tls": True, "timeout": timeout, **simple(tmp_path, b"sesame")}
            reason = await refusal(ask(base(AMY), fake.uri, **settings))
            assert reason == f"{fake.uri}: {expected}"
            assert b"sesame" not in fake.received

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(story())


@pytest.mark.parametrize("loop", LOOPS, ids=["asyncio", "uvloop"])
def test_a_tls_handshake_that_stalls_ends_at_the_deadline(tmp_path: Path, loop: Any) -> None:
    """As does a server that hangs up in it."""

    async def listen(_fake: Fake, reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read(-1)

    async def story() -> None:
        async with Fake(listen, port=True) as fake:
            uri = fake.uri.replace("ldap:", "ldaps:")
            reason = await refusal(ask(base(AMY), uri, timeout=0.3, **simple(tmp_path)))
            assert reason == f"{uri}: no connection within 0.3 s"
            fake.behave = close_at_once
            assert (await refusal(ask(base(AMY), uri))).startswith(f"{uri}: ")

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(story())


# --- without a server -----------------------------------------------------------------------------


class Wire(asyncio.Transport):
    """The other end of a connection that is fed by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = b""
        self.gone = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.sent += bytes(data)

    def abort(self) -> None:
        self.gone = True

    def is_closing(self) -> bool:
        return self.gone


ANSWER = (
    message(1, entry("cn=Jörg,dc=a".encode(), cn=["Jörg".encode(), b"\xff"], mail=[b"a@b"] * 3))
    + message(1, ber(0x79, ber(0x80, b"1.2.3")))  # an intermediate response
    + message(9, entry(b"dc=not-ours"))
    + message(0, result(0x78, 0, b"", ber(0x8A, b"1.2.3")))  # unsolicited, and of no meaning to us
    + message(1, entry(b"dc=b", cn=[]))
    + message(1, DONE, ber(0xA0, ber(0x30, ber(0x04, b"1.2.3"))))
)


@pytest.mark.parametrize("cut", [*range(1, len(ANSWER)), "each"])
def test_an_answer_may_be_cut_anywhere(cut: int | str) -> None:
    """Reads have no meaning: the same entries come of every cut, and of single octets."""
    if isinstance(cut, int):
        pieces = [ANSWER[:cut], ANSWER[cut:]]
    else:
        pieces = [bytes([octet]) for octet in ANSWER]

    async def story() -> list[Entry]:
        connection = Connection("ldap://fake", 60.0)
        connection.connection_made(Wire())
        search = asyncio.ensure_future(connection.search(below("dc=a")))
        await asyncio.sleep(0)
        for piece in pieces:
            connection.data_received(piece)
        return await search

    first, second = run(story())
    assert (first.dn, first.values("cn"), len(first.values("mail"))) == (
        "cn=Jörg,dc=a",
        ("Jörg", "\udcff"),
        3,
    )
    assert second == Entry("dc=b", {})


@given(st.binary(max_size=60), st.integers(0, len(ANSWER)), st.integers(0, 40))
def test_whatever_comes_is_entries_or_unavailable(noise: bytes, at: int, over: int) -> None:
    """Noise in the middle of an answer never raises anything into the event loop."""

    async def story() -> None:
        wire = Wire()
        connection = Connection("ldap://fake", 60.0)
        connection.connection_made(wire)
        search = asyncio.ensure_future(connection.search(below("dc=a")))
        await asyncio.sleep(0)
        connection.data_received(ANSWER[:at] + noise + ANSWER[at + over :])
        connection.connection_lost(None)
        try:
            assert all(isinstance(found, Entry) for found in await search)
        except Unavailable:
            assert connection.ended

    run(story())


@given(st.text(), st.binary(), st.integers(1, 2**31 - 1))
def test_requests_hold_the_octets_they_were_given(name: str, secret: bytes, number: int) -> None:
    """Names and values are in the request as they are, whatever they are."""
    value = secret.decode("utf-8", "surrogateescape")
    request = requests.search_request(number, below(name, Equality("cn", value)), 2)
    assert name.encode("utf-8", "surrogateescape") in request
    assert secret in request
    assert codec.message_size(request) == len(request)
    assert secret in requests.simple_bind(number, "dc=a", secret)


@pytest.mark.servers
def test_random_octets_are_found_by_their_filter(own_slapd: Slapd) -> None:
    """Two hundred values of any octets, each found by itself and by nothing else."""
    chance = random.Random(7)
    values = {chance.randbytes(chance.randrange(1, 12)) for _ in range(200)}
    own_slapd.configure(
        "dn: olcDatabase={1}mdb,cn=config\nchangetype: modify\nreplace: olcAccess\n"
        "olcAccess: {0}to * by * read\n"
    )
    own_slapd.load(
        "".join(
            record(f"cn=v{n},{SUFFIX}", objectClass="person", sn="v", userPassword=[value])
            for n, value in enumerate(values)
        )
    )

    async def story() -> list[list[bytes]]:
        async with directory(own_slapd.uri) as opened:
            texts = [value.decode("utf-8", "surrogateescape") for value in values]
            asked = [below(SUFFIX, Equality("userPassword", text), "userPassword") for text in texts]
            found = await asyncio.gather(*map(opened.search, asked))
            return [
                [one.values("userPassword")[0].encode("utf-8", "surrogateescape") for one in entries]
                for entries in found
            ]

    assert run(story()) == [[value] for value in values]
