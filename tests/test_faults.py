"""Faults of directories: TLS that proves nothing, result codes, and servers that break under load.

Whatever the fault, nothing is passed that has to be refused, nothing is refused that has not been
decided, no password reaches who has not proved its name, and all is well again when the server is.
"""

import asyncio
import datetime
import random
import re
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trustme

from ldappolicy.directory import Scope, Search
from ldappolicy.directory.ldap import LdapDirectory, LdapSettings
from ldappolicy.errors import Unavailable
from ldappolicy.ldap_filter import Present
from tests.labs.company import ActiveDirectory, Ds389, World
from tests.labs.deciding import deciding, rcpt
from tests.labs.ds389 import needs_389ds
from tests.labs.faulty_ldap import (
    FakeLdap,
    Fault,
    Proxy,
    coded,
    cut,
    garbled,
    noise,
    stalled,
    trickled,
    well,
)
from tests.labs.ldappolicy import Ldappolicy, Sections, merged
from tests.labs.samba import needs_samba
from tests.labs.server import Server
from tests.labs.slapd import SUFFIX, Certificates, Slapd, require_slapd

DEFERRED = "DEFER_IF_PERMIT 4.3.0 Temporary lookup failure"
OLD = "450 4.3.0 Temporary lookup failure"
"""What a refusal is while what it rests on is past its ttl."""

OWNERS = f"""\
dn: cn=owners,ou=policy,{SUFFIX}
objectClass: smtpdPolicy
cn: owners
smtpdSenderRestrictions: reject_sender_login_mismatch

"""


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """An authority that the tests trust."""
    return Certificates.issue(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def example(example_ldif: Path) -> str:
    """The example company, and a policy whose refusals name the login."""
    return example_ldif.read_text("utf-8") + "\n" + OWNERS


# --- TLS ------------------------------------------------------------------------------------------

PASSWORD = b"open-sesame"
BIND_DN = "cn=service,dc=example,dc=com"
TODAY = datetime.datetime.now(datetime.UTC)
DAY = datetime.timedelta(days=1)

CERTIFICATES: dict[str, tuple[str, str, dict[str, Any], str]] = {
    # name, what signs it, for whom, when, and what the log says
    "good": ("ours", "127.0.0.1", {}, ""),
    "wrong authority": ("other", "127.0.0.1", {}, "unable to get local issuer certificate|self.signed"),
    "wrong name": ("ours", "ldap.example.net", {}, "IP address mismatch"),
    "expired": ("ours", "127.0.0.1", {"not_before": TODAY - 9 * DAY, "not_after": TODAY - DAY}, "expired"),
    "not yet valid": (
        "ours",
        "127.0.0.1",
        {"not_before": TODAY + DAY, "not_after": TODAY + 9 * DAY},
        "not yet valid",
    ),
}


@pytest.fixture(scope="module")
def authorities() -> dict[str, trustme.CA]:
    """The one we trust and one that we do not."""
    return {"ours": trustme.CA(), "other": trustme.CA()}


@dataclass
class Heard:
    """What happened: the reason for no answer, what went over the wire, and what the server was told."""

    reason: str
    wire: bytes
    server: bytes


def greeting(tmp_path: Path, ca: trustme.CA, mode: str, context: ssl.SSLContext) -> Heard:
    """One search with a simple bind over TLS, to a server that writes down every octet."""
    (tmp_path / "password").write_bytes(PASSWORD)
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")

    async def ask(proxy: Proxy) -> str:
        settings = LdapSettings(
            [proxy.ldaps_uri if mode == "always" else proxy.uri],
            bind="simple",
            bind_dn=BIND_DN,
            bind_pw_file=str(tmp_path / "password"),
            start_tls=mode != "always",
            tls_ca_cert_file=str(tmp_path / "ca.pem"),
        )
        directory = LdapDirectory(settings)
        try:
            await directory.search(Search(SUFFIX, Scope.BASE, Present("objectClass"), ("1.1",)))
        except Unavailable as error:
            return str(error)
        finally:
            await directory.close()
        return ""

    with FakeLdap({SUFFIX: {"o": ["x"]}}, tls=mode, context=context) as fake, Proxy(fake.port) as proxy:
        return Heard(asyncio.run(ask(proxy)), proxy.received, fake.heard)


@pytest.mark.parametrize("mode", ["always", "start"])
@pytest.mark.parametrize("name", CERTIFICATES)
def test_no_credential_reaches_who_has_not_proved_its_name(
    tmp_path: Path,
    authorities: dict[str, trustme.CA],
    caplog: pytest.LogCaptureFixture,
    name: str,
    mode: str,
) -> None:
    """Refused with one line that says why; the server has heard neither the password nor the DN."""
    signer, host, validity, expected = CERTIFICATES[name]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authorities[signer].issue_cert(host, **validity).configure_cert(context)
    heard = greeting(tmp_path, authorities["ours"], mode, context)
    for secret in (PASSWORD, BIND_DN.encode()):
        assert (secret in heard.server) == (name == "good")
        assert secret not in heard.wire
    lines = [line.getMessage() for line in caplog.records if line.levelname == "WARNING"]
    if name == "good":
        assert (heard.reason, lines) == ("", [])
    else:
        assert re.search(f"^ldaps?://[^ ]+: certificate not accepted: .*({expected})", heard.reason)
        assert lines == [f"directory server failed, 1 in a row: {heard.reason}"]
        assert "\n" not in heard.reason


def test_a_start_tls_that_is_refused_sends_nothing_in_clear_text(
    tmp_path: Path, authorities: dict[str, trustme.CA]
) -> None:
    """Somebody between who says "no TLS here" learns no more than that we asked."""
    heard = greeting(tmp_path, authorities["ours"], "refused", ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
    assert heard.reason.endswith(": StartTLS: protocolError (2)")
    assert heard.wire == heard.server
    assert (PASSWORD in heard.wire, BIND_DN.encode() in heard.wire) == (False, False)


# --- result codes on a connection that was good ---------------------------------------------------

CODES = {
    "operationsError": 1,
    "timeLimitExceeded": 3,
    "sizeLimitExceeded": 4,
    "referral": 10,
    "adminLimitExceeded": 11,
    "insufficientAccessRights": 50,
    "busy": 51,
    "unavailable": 52,
    "unwillingToPerform": 53,
    "other": 80,
    "a code of no standard": 4095,
}
FORGETFUL: Sections = {
    "cache": {"ttl": "1ms", "negative_ttl": "1ms", "max_stale": "1ms"},
    "server": {"request_timeout": "1m"},
    "directory": {"timeout": "1m"},
}


@pytest.mark.servers
def test_no_result_code_reads_as_absent(example: str) -> None:
    """With each of them, after what was found or nothing: deferred, neither passed nor refused."""
    require_slapd()
    refused = rcpt(sender="stranger@elsewhere.example", recipient="all@my.domain")
    passed = rcpt(sender="new@elsewhere.example", recipient="new@elsewhere.example")

    async def story(proxy: Proxy) -> None:
        async with deciding(proxy.uri, FORGETFUL) as service:
            for name, code in CODES.items():
                told = []
                for fault in (well, coded(code), well):
                    proxy.be(fault)
                    told.append((await service.decide(refused), await service.decide(passed)))
                assert told == [("reject,", "DUNNO"), (DEFERRED, DEFERRED), ("reject,", "DUNNO")], name

    with Slapd(schema="ldappolicy", data=example) as slapd, Proxy(slapd.port) as proxy:
        asyncio.run(story(proxy))


# --- servers that break under load ----------------------------------------------------------------

CLIENTS = {"servers": 8, "long": 50}
"""How many there are in each tier."""
AT_A_TIME = 5
STEADY = 100
"""Right answers in a row that count as "all is well"."""
DEADLINE_S = 180.0

# What is known is forgotten at once, so that nearly every decision needs the directory.
SERVING: Sections = {
    "server": {"request_timeout": "1m"},
    "directory": {"timeout": "500ms", "watch": "off", "connections": 2},
    "cache": {"ttl": "5ms", "negative_ttl": "5ms", "max_stale": "20ms"},
    "log": {"decisions": "none"},
}


Kind = tuple[dict[str, str], str]
"""Request attributes and the one right answer; `{n}` is the number of the request in both."""

WHO = "{n}@elsewhere.example"
LOGIN = {"sasl_method": "PLAIN", "sasl_username": "u{n}"}
KINDS: list[Kind] = [
    ({"sender": WHO, "recipient": "all@my.domain"}, "reject,"),
    (
        {"policy_context": "owners", "sender": "amy@my.domain", "recipient": WHO, **LOGIN},
        "553 5.7.1 not owned by user u{n}",
    ),
    ({"sender": WHO, "recipient": WHO}, "DUNNO"),
]


@dataclass
class Load:
    """Clients that ask and compare, each request with a number of its own, until they are told to stop."""

    seed: int
    kinds: list[Kind]
    clients: int
    asked: int = 0
    heard: int = 0
    deferred: int = 0
    steady: int = 0
    wrong: list[str] = field(default_factory=list)
    is_over: bool = False

    async def client(self, socket: str, number: int) -> None:
        """One connection: up to five requests at a time, a reply for each, in order, and nothing else."""
        chance = random.Random(self.seed * 1000 + number)
        reader, writer = await asyncio.open_unix_connection(socket)
        while not self.is_over:
            requests = [self._request(chance) for _ in range(chance.randint(1, AT_A_TIME))]
            writer.write(b"".join(octets for octets, _ in requests))
            for _, expected in requests:
                reply = await asyncio.wait_for(reader.readuntil(b"\n\n"), DEADLINE_S)
                self._compare(reply.decode().removeprefix("action=").rstrip("\n"), expected)
        writer.write_eof()
        if rest := await reader.read():
            self.wrong.append(f"more than was asked for: {rest[:80]!r}")
        writer.close()

    async def settles(self, when: str) -> None:
        """Wait until the answers are right again, without a deferral among them."""
        self.steady = 0
        await self._until(lambda: self.steady >= STEADY, f"still deferred {when}")

    async def is_broken(self) -> None:
        """Wait until twice as many replies have come as requests can have been in hand before."""
        enough = self.heard + 2 * self.clients * AT_A_TIME
        await self._until(lambda: self.heard >= enough, "no replies")

    async def is_deferred(self) -> None:
        """Wait until a request is."""
        before = self.deferred
        await self._until(lambda: self.deferred > before, "nothing is deferred")

    async def _until(self, condition: Callable[[], bool], otherwise: str) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + DEADLINE_S
        while not condition():
            assert loop.time() < deadline, otherwise
            await asyncio.sleep(0.01)

    def _request(self, chance: random.Random) -> tuple[bytes, str]:
        self.asked += 1
        attributes, expected = chance.choice(self.kinds)
        lines = {"request": "smtpd_access_policy", "protocol_state": "RCPT", **attributes}
        text = "".join(f"{key}={value}\n" for key, value in lines.items()) + "\n"
        return text.format(n=self.asked).encode(), expected.format(n=self.asked)

    def _compare(self, reply: str, expected: str) -> None:
        self.heard += 1
        if reply == expected:
            self.steady += 1
        elif reply == DEFERRED or (reply == OLD and expected.startswith(("5", "reject"))):
            self.deferred += 1
            self.steady = 0
        else:
            self.wrong.append(f"expected {expected!r}, got {reply!r}")


@asynccontextmanager
async def load(
    service: Ldappolicy, seed: int, tier: str = "servers", kinds: list[Kind] = KINDS
) -> AsyncIterator[Load]:
    """Many clients; in the end every one of them must have had its replies, and only right ones."""
    clients = Load(seed, kinds, CLIENTS[tier])
    socket = service.unix.removeprefix("unix:")
    tasks = [asyncio.create_task(clients.client(socket, number)) for number in range(clients.clients)]
    try:
        yield clients
    finally:
        clients.is_over = True
        ends = await asyncio.gather(*tasks, return_exceptions=True)
    assert [end for end in ends if end is not None] == []
    assert clients.wrong == []


Work = Callable[[], object]


@dataclass
class Site:
    """A real server and the proxy in front of it."""

    server: Slapd
    proxy: Proxy

    def breaks(self, **faults: Fault) -> Iterator[tuple[str, Work, Work]]:
        """Ways to break it: the name, what does it, and what mends it."""
        server, proxy = self.server, self.proxy
        yield "killed", server.kill, server.start
        yield "suspended", server.suspend, server.resume
        yield "restarted", server.restart, proxy.mend
        yield "refused", proxy.away, proxy.mend
        yield "dropped", proxy.drop, proxy.mend
        yield "reset", proxy.reset, proxy.mend
        for name, fault in faults.items():
            yield name, partial(proxy.be, fault), proxy.mend


@pytest.fixture(scope="module")
def sites(certificates: Certificates, example: str) -> Iterator[tuple[Site, Site]]:
    """Two servers with the same data, both asked over TLS: without it a changed octet can go unnoticed."""
    require_slapd()
    with ExitStack() as stack:
        found = []
        for seed in (1, 2):
            server = Slapd(schema="ldappolicy", data=example, certificates=certificates)
            stack.enter_context(server)
            found.append(Site(server, stack.enter_context(Proxy(server.tls_port, seed))))
        yield found[0], found[1]


@contextmanager
def serving(sites: tuple[Site, Site], certificates: Certificates, *more: Sections) -> Iterator[Ldappolicy]:
    """The real command over both of them."""
    uris = [site.proxy.ldaps_uri for site in sites]
    own: Sections = {"directory": {"uri": uris, "tls_ca_cert_file": str(certificates.ca_file)}}
    with Ldappolicy(merged(SERVING, own, *more)) as running:
        yield running


async def elsewhere(work: Work) -> None:
    """What waits for a process must not hold up the clients."""
    await asyncio.to_thread(work)


FAULTS: dict[str, Fault] = {
    "garbled": garbled,
    "noise": noise,
    "stalled": stalled,
    "trickled": trickled,
    "cut at once": cut(0),
    "cut in the middle": cut(40),
}


SERVERS, LONG = (pytest.param(tier, marks=getattr(pytest.mark, tier)) for tier in CLIENTS)


@pytest.mark.parametrize("tier", [SERVERS, LONG])
def test_one_server_at_a_time(sites: tuple[Site, Site], certificates: Certificates, tier: str) -> None:
    """Decisions go on while one is broken, whatever the fault, and afterwards."""

    async def story(service: Ldappolicy) -> None:
        async with load(service, 4, tier) as clients:
            await clients.settles("at first")
            for number, site in enumerate(sites):
                for name, breaks, mends in site.breaks(**FAULTS if number == 0 else {}):
                    if tier == "servers" and (number, name) not in OF_ONE:
                        continue
                    await elsewhere(breaks)
                    await clients.is_broken()
                    await clients.settles(f"while server {number} is {name}")
                    await elsewhere(mends)
                    await clients.settles(f"after server {number} was {name}")

    with serving(sites, certificates) as service:
        asyncio.run(story(service))


OF_ONE = {(0, "killed"), (0, "stalled"), (1, "killed")}
"""The rest is long; each fault, of both servers, is in the next test."""

MIRROR: Sections = {"directory": {"watch": "auto"}, "cache": {"mode": "mirror"}}


@pytest.mark.parametrize(
    ("tier", "way", "faults"),
    [
        pytest.param("servers", {}, FAULTS, marks=pytest.mark.servers),
        pytest.param("long", {}, FAULTS, marks=pytest.mark.long),
        pytest.param("servers", MIRROR, {"garbled": garbled}, marks=pytest.mark.servers),
    ],
)
def test_all_servers_at_once(
    sites: tuple[Site, Site],
    certificates: Certificates,
    tier: str,
    way: Sections,
    faults: dict[str, Fault],
) -> None:
    """Nothing is decided that is not known, and all is well within minutes when they are back."""

    async def story(service: Ldappolicy) -> None:
        async with load(service, 5, tier) as clients:
            await clients.settles("at first")
            for (name, *one), (_, *other) in zip(*(site.breaks(**faults) for site in sites), strict=True):
                breaks, mends = zip(one, other, strict=True)
                await asyncio.gather(*map(elsewhere, breaks))
                await clients.is_broken()
                await asyncio.gather(*map(elsewhere, mends))
                await clients.settles(f"after both servers were {name}")
            assert clients.deferred > 0

    with serving(sites, certificates, way) as service:
        asyncio.run(story(service))


# --- the other families ---------------------------------------------------------------------------

COMPANY: list[Kind] = [
    ({"sender": WHO, "recipient": "team@my.domain"}, "reject,"),
    ({"sender": WHO, "recipient": WHO}, "DUNNO"),
]
SLOWER: Sections = {
    "directory": {"timeout": "1s", "watch": "off"},
    "cache": {"ttl": "1s", "negative_ttl": "1s", "max_stale": "1s"},
}


class SmallDomain(ActiveDirectory):
    """Without the list of 2,000, which takes a domain controller many seconds to load."""

    def __init__(self, server: Server | Slapd, uri: str) -> None:
        super().__init__(server, uri)
        self.things["crowd"] = replace(self.things["crowd"], members=())


@pytest.mark.parametrize(
    "family",
    [
        pytest.param(Ds389, marks=needs_389ds, id="389ds"),
        pytest.param(SmallDomain, marks=needs_samba, id="samba"),
    ],
)
@pytest.mark.servers
def test_other_servers(family: type[Ds389 | SmallDomain]) -> None:
    """The same load while 389-ds or a domain controller is killed, or suspended, and comes back."""

    async def story(world: World, service: Ldappolicy) -> None:
        async with load(service, 6, kinds=COMPANY) as clients:
            await clients.settles("at first")
            for breaks, mends in ((world.kill, world.start), (world.suspend, world.resume)):
                await elsewhere(breaks)
                await clients.is_deferred()
                await elsewhere(mends)
                await clients.settles(f"after {breaks.__name__}")

    with (
        family.open() as world,
        Ldappolicy(merged(SERVING, world.sections, SLOWER)) as service,
    ):
        asyncio.run(story(world, service))
