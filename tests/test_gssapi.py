"""GSSAPI: our side of the exchange by itself, then with a domain controller, its KDC, and slapd."""

import asyncio
import hashlib
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from ldappolicy.directory.ldap import LdapSettings, codec
from ldappolicy.directory.ldap.gssapi import (
    MAX_ASKING,
    GssapiClient,
    Login,
    Refused,
    authenticate,
    authenticate_blocking,
    begin,
    channel_binding,
)
from ldappolicy.directory.ldap.settings import endpoints
from ldappolicy.errors import ConfigError
from tests.labs.kerberos import (
    CLOSED_PORT,
    HOST,
    KRB5_CONF,
    RELAY_PORT,
    SILENT_PORT,
    STRANGER,
    Answer,
    KerberosSlapd,
    Realm,
    needs_gssapi,
    needs_kerberos,
)
from tests.labs.ldappolicy import Value, toml
from tests.labs.samba import SUFFIX
from tests.labs.slapd import Certificates, free_port, require_slapd, wait_until

pytestmark = needs_gssapi

EXAMPLE = Path(__file__).parents[1] / "schema" / "example.ldif"
SVC_DN = f"CN=svc,CN=Users,{SUFFIX}"
PASSWORD = "Secret.123"
BELOW = f"ldaps://{HOST}"


# The exchange without a server.


class Agreed:
    """A context for which everything was proved; what is "wrapped" has brackets around it."""

    complete = True

    def __init__(self, message: bytes = b"") -> None:
        self.message = message

    def step(self, token: bytes | None = None) -> bytes | None:
        raise AssertionError(token)

    def wrap(self, message: bytes, encrypt: bool) -> "Agreed":
        assert not encrypt
        return Agreed(b"[" + message + b"]")

    def unwrap(self, message: bytes) -> "Agreed":
        return Agreed(message.removeprefix(b"[").removesuffix(b"]"))


class Halfway(Agreed):
    """A context in which the server did not prove anything yet."""

    complete = False

    def step(self, token: bytes | None = None) -> bytes | None:
        return {None: b"ours", b"theirs": None}[token]


@pytest.mark.parametrize(
    "layers", ["01000000", "01ffffff", "07010000", "05000400"], ids=["none", "size", "all", "some"]
)
def test_no_layer(layers: str) -> None:
    """Where the server can do without a security layer, none is asked for, and nobody else is named."""
    client = GssapiClient(Agreed())

    assert b"[\x01\0\0\0]" == client.step(b"[" + bytes.fromhex(layers) + b"]")
    assert client.done


INSISTING = ["06010000", "02000400", "04ffffff", "00000000", "", "01", "010000", "0100000000"]


@pytest.mark.parametrize("layers", INSISTING)
def test_layer_insisted(layers: str) -> None:
    """A server that wants a layer, or says something else, gets no answer."""
    client = GssapiClient(Agreed())
    with pytest.raises(Refused) as refused:
        client.step(bytes.fromhex(layers))

    assert f"the server insists on a security layer of SASL: {layers}" == str(refused.value)
    assert not client.done


def test_tokens() -> None:
    """The first challenge is empty, and where the mechanism has no token left the response is."""
    client = GssapiClient(Halfway())

    assert b"ours" == client.step(b"")
    assert b"" == client.step(b"theirs")
    assert not client.done


def test_too_much() -> None:
    """When all is said a further challenge is refused: no server keeps us busy."""
    client = GssapiClient(Agreed())
    client.step(b"\1\0\0\0")
    with pytest.raises(Refused, match="more than the mechanism has"):
        client.step(b"\1\0\0\0")


@pytest.mark.parametrize(
    ("number", "expected"),
    [(2529638936, True), (2529638919, False), (0, False)],
    ids=["preauthentication failed", "server unknown", "none"],
)
def test_refused_key(number: int, expected: bool) -> None:
    """What the KDC says of our key is told from what it says of others."""
    misc = pytest.importorskip("gssapi.raw.misc")

    class Failing(Halfway):
        def step(self, token: bytes | None = None) -> bytes | None:
            raise misc.GSSError(851968, number)

    with pytest.raises(Refused) as refused:
        GssapiClient(Failing()).step(b"")

    assert expected == refused.value.is_for_key


@pytest.mark.parametrize("context", [Halfway(), Agreed()], ids=["token", "layers"])
def test_success_too_early(context: Agreed) -> None:
    """A server that says success before it has proved who it is, is not believed."""
    client = GssapiClient(context)
    with pytest.raises(Refused, match="without having proved who it is"):
        client.goes_on(codec.Result(codec.SUCCESS, ""))


GOING_ON = {codec.SUCCESS: False, codec.SASL_BIND_IN_PROGRESS: True, 49: False, 53: False}


@pytest.mark.parametrize(("code", "expected"), GOING_ON.items())
def test_goes_on(code: int, expected: bool) -> None:
    """After the proof every result but one ends the exchange."""
    client = GssapiClient(Agreed())
    client.step(b"\1\0\0\0")

    assert expected is client.goes_on(codec.Result(code, ""))


# Channel binding: RFC 5929 section 4.1.

RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC = ec.generate_private_key(ec.SECP256R1())
SIGNED = {
    "rsa sha256": (RSA, hashes.SHA256(), None, "sha256"),
    "rsa sha384": (RSA, hashes.SHA384(), None, "sha384"),
    "rsa sha512": (RSA, hashes.SHA512(), None, "sha512"),
    "ecdsa sha256": (EC, hashes.SHA256(), None, "sha256"),
    "ecdsa sha384": (EC, hashes.SHA384(), None, "sha384"),
    "ecdsa sha512": (EC, hashes.SHA512(), None, "sha512"),
    "pss: in its parameters": (RSA, hashes.SHA256(), padding.PSS(padding.MGF1(hashes.SHA256()), 32), ""),
    "ed25519: none": (ed25519.Ed25519PrivateKey.generate(), None, None, ""),
}  # fmt: skip


@pytest.mark.parametrize(("key", "digest", "pad", "expected"), SIGNED.values(), ids=SIGNED.keys())
def test_channel_binding(
    key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey,
    digest: hashes.SHA256 | hashes.SHA384 | hashes.SHA512 | None,
    pad: padding.PSS | None,
    expected: str,
) -> None:
    """The certificate's digest is the one of its signature, where that has one."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, HOST)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(HOST)]), critical=False)
        .sign(key, digest, rsa_padding=pad)
        .public_bytes(Encoding.DER)
    )
    binding = b"tls-server-end-point:" + hashlib.new(expected, certificate).digest() if expected else b""

    assert binding == channel_binding(certificate)


@pytest.mark.parametrize("octets", [b"", b"\0", b"\x30\x03\x02\x01\x05", b"\x30\x84\xff\xff\xff\xff"])
def test_no_certificate(octets: bytes) -> None:
    """Without a certificate that can be read there is no binding, and no accident."""
    assert b"" == channel_binding(octets)


# What the settings say.

CLEAR = f"uri: 'ldap://{HOST}': bind = 'gssapi' without TLS needs allow_cleartext = true"
REFUSED = {
    "clear text": (f"ldap://{HOST}", {}, CLEAR),
    "clear text, wanted": (f"ldap://{HOST}", {"allow_cleartext": True}, ""),
    "start_tls": (f"ldap://{HOST}", {"start_tls": True}, ""),
    "ldaps": (BELOW, {}, ""),
    "loopback": ("ldap://127.0.0.1", {}, ""),
    "a socket file": ("ldapi:///", {}, ""),
    "a principal": (BELOW, {"bind_dn": "svc@EXAMPLE.COM"}, ""),
}  # fmt: skip


@pytest.mark.parametrize(("uri", "keys", "complaint"), REFUSED.values(), ids=REFUSED.keys())
def test_settings(uri: str, keys: dict[str, bool], complaint: str) -> None:
    """Where what the server says could be changed on the way, it takes a word of the administrator."""
    settings = LdapSettings(uris=(uri,), bind="gssapi", **keys)  # type: ignore[arg-type]
    complaints: tuple[str, ...] = ()
    try:
        endpoints(settings)
    except ConfigError as error:
        complaints = error.complaints

    assert ((complaint,) if complaint else ()) == complaints


# A KDC that does not answer.


@pytest.fixture
def silence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ExitStack]:
    """A KDC that takes everything and says nothing, until it is closed; keys are there."""
    with ExitStack() as listening:
        port = free_port()
        listening.enter_context(socket.create_server(("127.0.0.1", port)))
        datagrams = listening.enter_context(socket.socket(type=socket.SOCK_DGRAM))
        datagrams.bind(("127.0.0.1", port))
        conf, keytab = tmp_path / "krb5.conf", tmp_path / "svc.keytab"
        conf.write_text(KRB5_CONF.format(realm="EXAMPLE.COM", port=port, more=""), "utf-8")
        entry = f"addent -password -p svc@EXAMPLE.COM -k 1 -e aes256-cts\n{PASSWORD}\nwkt {keytab}\n"
        subprocess.run(["ktutil"], input=entry, text=True, check=True, capture_output=True)
        monkeypatch.setenv("KRB5_CONFIG", str(conf))
        monkeypatch.setenv("KRB5_CLIENT_KTNAME", str(keytab))
        monkeypatch.setenv("KRB5CCNAME", "MEMORY:silence")
        yield listening


async def unasked(token: bytes) -> codec.Result:
    """A server that nobody should come to."""
    raise AssertionError(token)


def refusal(login: Login) -> str:
    """Why there is no ticket."""
    with pytest.raises(Refused) as refused:
        begin(login).result(30)
    return str(refused.value)


@pytest.mark.servers
@needs_kerberos
def test_silent_kdc(silence: ExitStack) -> None:
    """Nobody waits longer than for the connection, a few threads at most, and they make room in the end."""
    login = Login(HOST, b"", "", 0.25)
    for _ in range(MAX_ASKING // 2):
        with pytest.raises(Refused, match=r"no ticket within 0\.2 s: the KDC does not answer"):
            asyncio.run(authenticate(unasked, login))
        with pytest.raises(Refused, match=r"no ticket within 0\.2 s: the KDC does not answer"):
            authenticate_blocking(lambda token: codec.Result(codec.SUCCESS, ""), login)

    assert "no ticket: the KDC did not answer earlier requests yet" == refusal(login)
    silence.close()
    expected = f"no ticket for 'ldap/{HOST}': Cannot contact any KDC for realm 'EXAMPLE.COM'"
    wait_until(lambda: refusal(login) == expected)


@pytest.mark.servers
@needs_kerberos
def test_unreadable_keytab(silence: ExitStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What libkrb5 keeps to itself: that it could not read the keys; a socket file is this machine's."""
    keytab = f"{tmp_path}/none.keytab"
    monkeypatch.setenv("KRB5_CLIENT_KTNAME", f"FILE:{keytab}")
    monkeypatch.setenv("KRB5CCNAME", "MEMORY:none")
    told = refusal(Login("", b"", "", 1))

    assert told.startswith("no ticket for 'ldap/")
    assert told.endswith(f"; KRB5_CLIENT_KTNAME: '{keytab}': No such file or directory")


# A realm.


@pytest.fixture(scope="module")
def realm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Realm]:
    """A domain with a KDC, LDAP over TLS, and the account svc."""
    with Realm(Certificates.issue(tmp_path_factory.mktemp("tls"), HOST, STRANGER)) as started:
        started.user(SVC_DN, "svc", PASSWORD)
        yield started


@pytest.fixture(scope="module")
def keytab(realm: Realm) -> Path:
    """The keys of svc."""
    return realm.keytab("svc")


def ask(realm: Realm, environment: dict[str, str], uri: str = BELOW, **more: Any) -> Answer:
    """Who the server takes us for, and who svc is."""
    return realm.ask(environment, [("", "tokenGroups"), (SVC_DN, "objectSid")], uri=uri, **more)


def is_svc(answer: Answer) -> bool:
    """MS-ADTS section 3.1.1.3.2: the root DSE's tokenGroups are those of who asks, itself the first."""
    assert "" == answer.error
    return answer.found[0][0] == answer.found[1][0]


PLACES: dict[str, dict[str, Any]] = {
    "ldaps": {"uri": BELOW},
    "StartTLS": {"uri": f"ldap://{HOST}", "start_tls": True},
    "loopback": {"uri": "ldap://127.0.0.1"},
    "named": {"uri": BELOW, "bind_dn": "svc@EXAMPLE.COM"},
    "named without a realm": {"uri": BELOW, "bind_dn": "svc"},
    "several connections": {"uri": BELOW, "connections": 3},
}


@pytest.mark.servers
@needs_kerberos
@pytest.mark.parametrize("settings", PLACES.values(), ids=PLACES.keys())
def test_bind(realm: Realm, keytab: Path, settings: dict[str, Any]) -> None:
    """With its keytab the service is the account that the keytab is of."""
    assert is_svc(ask(realm, realm.environment(keytab), **settings))


@pytest.mark.servers
@needs_kerberos
def test_socket_file(realm: Realm, keytab: Path) -> None:
    """Behind a socket file the server has this machine's name."""
    assert is_svc(ask(realm, realm.environment(keytab), realm.ldapi_uri))


@pytest.mark.servers
@needs_kerberos
def test_clock_corrected(realm: Realm, keytab: Path) -> None:
    """A clock that is wrong by more than the KDC allows is no trouble: libkrb5 goes by the KDC's."""
    assert is_svc(ask(realm, realm.environment(keytab, ahead=900)))


def failure(answer: Answer) -> str:
    """What the log says about a bind that failed; if somebody waited it says that, and nothing else."""
    assert [] == answer.found
    assert "\n" not in answer.error
    return answer.error


NO_TICKET = f"{BELOW}: gssapi bind '': no ticket for 'ldap/{HOST}': "


@pytest.mark.servers
@needs_kerberos
def test_no_keytab(realm: Realm) -> None:
    """Neither tickets nor keys: the log names both places."""
    cache = f"FILE:{realm.home}/none.cache"
    expected = (
        f"No Kerberos credentials available (default cache: {cache}); "
        f"KRB5_CLIENT_KTNAME: '{realm.home}/none.keytab': No such file or directory"
    )

    assert NO_TICKET + expected == failure(ask(realm, realm.environment(cache=cache)))


@pytest.mark.servers
@needs_kerberos
def test_old_keytab(realm: Realm) -> None:
    """The keys of a password that was changed since."""
    realm.user(f"CN=old,CN=Users,{SUFFIX}", "old", PASSWORD)
    keytab = realm.keytab("old")
    realm.tool("user", "setpassword", "old", "--newpassword=Other.1234")

    assert NO_TICKET + "Preauthentication failed" == failure(ask(realm, realm.environment(keytab)))


@pytest.mark.servers
@needs_kerberos
def test_other_principal(realm: Realm, keytab: Path) -> None:
    """A principal whose keys are not there."""
    answer = ask(realm, realm.environment(keytab), bind_dn="amy@EXAMPLE.COM")
    expected = f"no ticket for 'ldap/{HOST}': Can't find client principal amy@EXAMPLE.COM in cache collection"

    assert f"{BELOW}: gssapi bind 'amy@EXAMPLE.COM': {expected}" == failure(answer)


@pytest.mark.servers
@needs_kerberos
def test_unknown_server(realm: Realm, keytab: Path) -> None:
    """A host that the KDC has no key for, although its certificate is in order."""
    uri = f"ldaps://{STRANGER}"
    expected = f"no ticket for 'ldap/{STRANGER}': Server not found in Kerberos database"

    assert f"{uri}: gssapi bind '': {expected}" == failure(ask(realm, realm.environment(keytab), uri))


@pytest.mark.servers
@needs_kerberos
def test_kdc_down(realm: Realm, keytab: Path) -> None:
    """Nobody listens where the KDC should be."""
    answer = ask(realm, realm.environment(keytab, kdc=CLOSED_PORT))

    assert NO_TICKET + "Cannot contact any KDC for realm 'EXAMPLE.COM'" == failure(answer)


@pytest.mark.servers
@needs_kerberos
def test_kdc_silent(realm: Realm, keytab: Path) -> None:
    """The KDC takes everything and says nothing, which libkrb5 bears for half a minute, and we do not."""
    answer = ask(realm, realm.environment(keytab, kdc=SILENT_PORT), silent=True, timeout=2.0)

    assert f"{BELOW}: gssapi bind '': no ticket within 1.6 s: the KDC does not answer" == failure(answer)


@pytest.mark.servers
@needs_kerberos
def test_clock_skew(realm: Realm, keytab: Path) -> None:
    """Where libkrb5 may not correct a wrong clock, the log says that it is wrong."""
    environment = realm.environment(keytab, ahead=900, more="    kdc_timesync = 0")

    assert NO_TICKET + "Clock skew too great" == failure(ask(realm, environment))


@pytest.mark.servers
@needs_kerberos
def test_certificate_first(realm: Realm, keytab: Path, tmp_path: Path) -> None:
    """Without a certificate that can be verified, Kerberos is not even asked."""
    others = Certificates.issue(tmp_path, HOST)
    answer = ask(realm, realm.environment(keytab, kdc=CLOSED_PORT), tls_ca_cert_file=str(others.ca_file))

    assert failure(answer).startswith(f"{BELOW}: certificate not accepted: ")


@pytest.mark.servers
@needs_kerberos
def test_expired(realm: Realm, keytab: Path) -> None:
    """A ticket that has expired is of no use; with the keys the next connection gets another one."""
    cache = f"FILE:{realm.home}/tickets"
    without, with_keys = realm.environment(cache=cache), realm.environment(keytab, cache=cache)
    done = realm.run(["kinit", "-l", "2s", "-k", "-t", str(keytab), "svc"], without)
    assert (0, "") == (done.returncode, done.stderr)
    wait_until(lambda: realm.run(["klist", "-s"], without).returncode == 1)

    assert failure(ask(realm, without)).startswith(NO_TICKET + "Ticket expired")
    assert is_svc(ask(realm, with_keys))
    assert is_svc(ask(realm, without))


# slapd: what Samba does not look at, and the program as a whole.

SLAPD_SUFFIX = "dc=example,dc=com"
SUFFIX_ONLY = [(SLAPD_SUFFIX, "dc")]
READER = "uid=svc,cn=gssapi,cn=auth"


@pytest.fixture
def slapd(realm: Realm) -> Iterator[KerberosSlapd]:
    """The example company, which svc alone may see and change."""
    require_slapd()
    access = (f"to * by dn.exact={READER} manage by * none",)
    with KerberosSlapd(realm, access=access, schema="ldappolicy", data=EXAMPLE.read_text("utf-8")) as started:
        if "GSSAPI" not in started.mechanisms():
            pytest.skip("apt-get install libsasl2-modules-gssapi-mit")
        yield started


@pytest.mark.servers
@needs_kerberos
def test_layer_of_slapd(realm: Realm, keytab: Path, slapd: KerberosSlapd) -> None:
    """A server that was told to insist on a security layer is refused."""
    slapd.configure(
        "dn: cn=config\nchangetype: modify\nreplace: olcSaslSecProps\nolcSaslSecProps: minssf=56\n"
    )
    answer = realm.ask(realm.environment(keytab), SUFFIX_ONLY, uri=slapd.uri)

    expected = f"{slapd.uri}: gssapi bind '': the server insists on a security layer of SASL: 04010000"
    assert expected == failure(answer)


@pytest.mark.servers
@needs_kerberos
def test_in_the_middle(realm: Realm, keytab: Path, slapd: KerberosSlapd, tmp_path: Path) -> None:
    """Somebody with a certificate that we accept cannot pass our proof on: it is tied to the certificate."""
    binding = "dn: cn=config\nchangetype: modify\nreplace: olcSaslCBinding\nolcSaslCBinding: "
    middle = Certificates.issue(tmp_path, HOST)
    environment, direct, relayed = (
        realm.environment(keytab),
        slapd.uri_of(HOST),
        f"ldaps://{HOST}:{RELAY_PORT}",
    )

    def ask_middle() -> Answer:
        trusting = {"relay": middle, "to": slapd.tls_port, "tls_ca_cert_file": str(middle.ca_file)}
        return realm.ask(environment, SUFFIX_ONLY, uri=relayed, **trusting)  # type: ignore[arg-type]

    slapd.configure(binding + "tls-endpoint\n")
    assert [["example"]] == realm.ask(environment, SUFFIX_ONLY, uri=direct).found
    refused = ask_middle()
    slapd.configure(binding + "none\n")
    not_bound = ask_middle()

    assert f"{relayed}: gssapi bind '': invalidCredentials (49): " in failure(refused)
    assert [["example"]] == not_bound.found


@pytest.mark.servers
@needs_kerberos
def test_program(realm: Realm, keytab: Path, slapd: KerberosSlapd, tmp_path: Path) -> None:
    """`load` changes the directory, `eval` decides by it; without keys neither does."""
    config, added = tmp_path / "config.toml", tmp_path / "added.ldif"
    directory: dict[str, Value] = {
        "uri": [slapd.uri_of(HOST)],
        "bind": "gssapi",
        "tls_ca_cert_file": str(realm.certificates.ca_file),
        "search_base": SLAPD_SUFFIX,
        "policy_base": f"ou=policy,{SLAPD_SUFFIX}",
        "watch": "off",
        "timeout": "10s",
    }
    config.write_text(toml({"directory": directory}), "utf-8")
    added.write_text(f"dn: ou=added,{SLAPD_SUFFIX}\nobjectClass: organizationalUnit\n", "utf-8")
    ours, nobodys = realm.environment(keytab), realm.environment()
    evaluate = ["eval", "sender=stranger@elsewhere.example", "recipient=all@my.domain"]

    failed = [
        realm.ldappolicy(nobodys, "-c", str(config), *what) for what in (evaluate, ["load", str(added)])
    ]
    evaluated = realm.ldappolicy(ours, "-c", str(config), *evaluate)
    loaded = realm.ldappolicy(ours, "-c", str(config), "load", str(added))
    found = realm.ask(ours, [(f"ou=added,{SLAPD_SUFFIX}", "ou")], uri=slapd.uri_of(HOST)).found

    assert [True, True] == ["No Kerberos credentials available" in done.stderr for done in failed]
    assert "action=reject," not in failed[0].stdout
    assert ("action=reject,\n", 0) == (evaluated.stdout, evaluated.returncode), evaluated.stderr
    assert 0 == loaded.returncode, loaded.stderr
    assert [["added"]] == found
