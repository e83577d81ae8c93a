"""A password that is refused: who is asked with it again, and when."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from ldappolicy.config import Unix
from ldappolicy.directory import Scope, Search
from ldappolicy.directory.ldap import LdapDirectory, LdapSettings, Refusals
from ldappolicy.directory.ldap.codec import Result
from ldappolicy.directory.ldap.refusals import (
    ATTEMPTS,
    FREE_S,
    MAX_REFUSALS,
    REST,
    RefusedSecret,
    Withheld,
    in_words,
)
from ldappolicy.directory.ldap.writing import connect
from ldappolicy.errors import Unavailable
from ldappolicy.ldap_filter import Present
from ldappolicy.ldif import read_records
from ldappolicy.server import PolicyServer
from ldappolicy.service import Service
from tests.labs.clock import on_virtual_time
from tests.labs.deciding import deciding, rcpt
from tests.labs.faulty_ldap import FakeLdap, Proxy
from tests.labs.ldappolicy import Ldappolicy, Sections, merged
from tests.labs.samba import SUFFIX as DOMAIN
from tests.labs.samba import Samba, needs_samba
from tests.labs.slapd import Slapd, require_slapd, wait_until

WHO = Search("cn=svc", Scope.BASE, Present("objectClass"), ("cn",))
SERVERS = 5
WORKERS = 4
LOCKED = "80090308: LdapErr: DSID-0C09044E, comment: AcceptSecurityContext error, data 775, v4563"


class Site:
    """Some servers that take one password, and the file that the service's is in."""

    def __init__(self, fakes: list[FakeLdap], file: Path, opened: LdapDirectory) -> None:
        self.fakes = fakes
        self.file = file
        self.directory = opened

    def refused(self) -> list[int]:
        """How many binds each refused."""
        return [fake.refused for fake in self.fakes]

    async def ask(self, seconds: float) -> str:
        """Lookups for so long, as mail comes in; the reason why the last one was unavailable."""
        reason, loop = "", asyncio.get_running_loop()
        end = loop.time() + seconds
        while loop.time() < end:
            try:
                await self.directory.search(WHO)
                reason = ""
            except Unavailable as error:
                reason = str(error)
            await asyncio.sleep(0.5)
        return reason


@asynccontextmanager
async def site(folder: Path, **settings: Any) -> AsyncIterator[Site]:
    """Five servers, none of which takes the password yet."""
    file = folder / "password"
    file.write_text("old")
    async with AsyncExitStack() as stack:
        fakes = [
            await stack.enter_async_context(FakeLdap({"cn=svc": {"cn": ["svc"]}}, root_dse={}))
            for _ in range(SERVERS)
        ]
        for fake in fakes:
            fake.secret, fake.refusal = b"new", LOCKED
        told = LdapSettings(
            [fake.uri for fake in fakes],
            bind="simple",
            bind_dn="cn=svc",
            bind_pw_file=str(file),
            **settings,
        )
        opened = LdapDirectory(told, clock=asyncio.get_running_loop().time)
        stack.push_async_callback(opened.close)
        yield Site(fakes, file, opened)


def test_three_servers_are_asked_once_each(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """And no other, for a quarter of an hour; then three of them once more."""

    async def story() -> None:
        async with site(tmp_path) as here:
            reason = await here.ask(REST - 20)
            assert [1, 1, 1, 0, 0] == here.refused()
            assert "servers refused the password or key" in reason
            await here.ask(40)
            assert 2 * ATTEMPTS == sum(here.refused())

    on_virtual_time(story())
    said = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert 2 * ATTEMPTS == len(said)
    assert all(
        "simple bind 'cn=svc': the account is locked: invalidCredentials (49)" in text for text in said
    )
    assert 4 * ATTEMPTS >= len([record for record in caplog.records if record.levelname == "WARNING"])


def test_another_password_is_tried_at_once(tmp_path: Path) -> None:
    """The file has changed: within the pause of a server that costs nobody much."""

    async def story() -> None:
        async with site(tmp_path) as here:
            await here.ask(60)
            here.file.write_text("older")
            await here.ask(10)
            assert 2 * ATTEMPTS == sum(here.refused())
            here.file.write_text("new\n")
            assert "" == await here.ask(10)
            assert 2 * ATTEMPTS == sum(here.refused())

    on_virtual_time(story())


def test_a_password_that_was_good_is_refused_once(tmp_path: Path) -> None:
    """The password is changed and all connections are lost, those for streams as well."""

    async def story() -> None:
        async with site(tmp_path, connections=8) as here:
            here.file.write_text("new")
            await asyncio.gather(*(here.directory.search(WHO) for _ in range(20)))
            await here.directory.open_connection()
            await asyncio.sleep(2 * FREE_S)
            for fake in here.fakes:
                fake.secret = b"newest"
            await here.directory.close()
            for _ in range(100):
                asked = (here.directory.search(WHO), here.directory.open_connection())
                told = await asyncio.gather(*asked, return_exceptions=True)
                assert all(isinstance(one, Unavailable) for one in told)
                await asyncio.sleep(0.1)
            assert ATTEMPTS == sum(here.refused())

    on_virtual_time(story())


def test_an_attempt_waits_for_the_one_before(tmp_path: Path) -> None:
    """Of twenty at once one is sent."""

    async def story() -> None:
        refusals, sent = Refusals(), []

        async def attempt() -> None:
            async with refusals.turn("ldap://a", b"secret"):
                sent.append(1)
                await asyncio.sleep(0.1)
                raise RefusedSecret("no")

        told = await asyncio.gather(*(attempt() for _ in range(20)), return_exceptions=True)
        assert [1] == sent
        assert [RefusedSecret, *[Withheld] * 19] == [type(one) for one in told]

    on_virtual_time(story())


def test_no_more_attempts_are_under_way_than_are_left() -> None:
    """At twenty servers at once, three."""

    async def story() -> None:
        refusals, sent = Refusals(), []

        async def attempt(number: int) -> None:
            async with refusals.turn(f"ldap://{number}", b"secret"):
                sent.append(number)
                await asyncio.sleep(0.1)
                raise RefusedSecret("no")

        await asyncio.gather(*map(attempt, range(20)), return_exceptions=True)
        assert [0, 1, 2] == sent

    on_virtual_time(story())


def test_what_is_no_refusal_is_not_counted() -> None:
    """A server that is silent, busy or gone may be asked again, and its turn is over."""

    async def story() -> None:
        refusals = Refusals()
        for _ in range(5):
            with pytest.raises(Unavailable, match="busy"):
                async with refusals.turn("ldap://a", b"secret"):
                    raise Unavailable("busy")
        async with refusals.turn("ldap://a", b"secret"):
            pass

    on_virtual_time(story())


def test_the_oldest_refusal_gives_way() -> None:
    """What is remembered is bounded, and what others share is seen by them."""
    descriptor = os.memfd_create("refusals")

    async def story() -> None:
        ours, theirs = Refusals(descriptor), Refusals(descriptor)
        for number in range(MAX_REFUSALS + 1):
            with pytest.raises(RefusedSecret):
                async with ours.turn("ldap://a", b"secret%d" % number):
                    raise RefusedSecret("no")
        theirs.check("ldap://a", b"secret0")
        for number in range(1, MAX_REFUSALS + 1):
            with pytest.raises(Withheld):
                theirs.check("ldap://a", b"secret%d" % number)

    try:
        on_virtual_time(story())
    finally:
        os.close(descriptor)


@pytest.mark.parametrize(
    ("code", "said", "expected"),
    [
        (49, "data 52e, v4563", "the password is wrong: invalidCredentials (49): data 52e, v4563"),
        (49, "error, data 52E, v0", "the password is wrong: "),
        (49, "data 532, v", "the password has expired: "),
        (49, "data 533, v", "the account is disabled: "),
        (49, "data 701, v", "the account has expired: "),
        (49, "data 773, v", "the password has to be changed before the first use: "),
        (49, "data 775, v", "the account is locked: "),
        (49, "data 999, v", "invalidCredentials (49): data 999, v"),
        (49, "", "invalidCredentials (49)"),
        (53, "data 775, v", "unwillingToPerform (53): data 775, v"),
    ],
)
def test_sub_codes(code: int, said: str, expected: str) -> None:
    """The reason in words, where Active Directory gives it as a number."""
    assert in_words(Result(code, said)).startswith(expected)


# ---------------------------------------------------------------- real servers


def failed(slapd: Slapd) -> int:
    """How many binds it has refused so far."""
    return slapd.log.read_text("utf-8", "replace").count("RESULT tag=97 err=49")


@pytest.fixture
def doors(example_ldif: Path) -> Iterator[tuple[Slapd, list[str]]]:
    """A slapd under five addresses, as so many servers."""
    require_slapd()
    with ExitStack() as stack:
        slapd = stack.enter_context(Slapd(schema="ldappolicy"))
        slapd.load(example_ldif)
        yield slapd, [stack.enter_context(Proxy(slapd.port)).uri for _ in range(SERVERS)]


@pytest.mark.servers
def test_attempts_are_counted_over_all_workers(doors: tuple[Slapd, list[str]]) -> None:
    """Four workers, five servers, a wrong password: three refusals, also after SIGHUP; then the right one."""
    slapd, uris = doors
    with Ldappolicy({"server": {"workers": WORKERS}}) as service:
        file = service.folder / "password"
        file.write_text("wrong")
        who: Sections = {"directory": {"bind": "simple", "bind_dn": slapd.root_dn, "uri": uris}}
        secret: Sections = {"directory": {"bind_pw_file": str(file)}}
        service.configure(merged(service.sections, who, secret))
        service.stop()
        service.start()
        service.wait_for_log("no policies yet", WORKERS)
        service.hang_up()
        service.wait_for_log("configuration refused, the old one stays: .* refused the password or key")
        for _ in range(40):
            assert "DEFER_IF_PERMIT" in str(service.ask(sender="a@b.example", recipient="all@my.domain"))
        assert ATTEMPTS == failed(slapd)
        file.write_text(slapd.root_pw)
        service.wait_for_log("policies in force", WORKERS)
        assert "reject," == service.ask(sender="a@b.example", recipient="all@my.domain")
        assert ATTEMPTS == failed(slapd)


@pytest.mark.servers
def test_a_writer_asks_three_servers(doors: tuple[Slapd, list[str]], tmp_path: Path) -> None:
    """`load` and `schema install` have the same patience."""
    slapd, uris = doors
    (tmp_path / "password").write_text("wrong")
    settings = LdapSettings(
        uris, bind="simple", bind_dn=slapd.root_dn, bind_pw_file=str(tmp_path / "password"), timeout=60.0
    )
    with pytest.raises(Unavailable, match="invalidCredentials"):
        connect(settings)
    wait_until(lambda: failed(slapd) >= ATTEMPTS)  # its log may be behind
    assert ATTEMPTS == failed(slapd)


@pytest.mark.servers
@needs_samba
def test_active_directory_says_why(tmp_path: Path) -> None:
    """A wrong password, and a disabled account, as Samba says it."""
    dn = f"CN=svc,CN=Users,{DOMAIN}"
    (tmp_path / "password").write_text("Wrong.1234")

    async def reason(uri: str) -> str:
        settings = LdapSettings(
            [uri], bind="simple", bind_dn=dn, bind_pw_file=str(tmp_path / "password"), timeout=60.0
        )
        opened = LdapDirectory(settings)
        with pytest.raises(Unavailable) as caught:
            await opened.search(WHO)
        await opened.close()
        return str(caught.value)

    with Samba() as samba:
        samba.user(dn, "svc", "Right.1234")
        assert "the password is wrong: invalidCredentials (49)" in asyncio.run(reason(samba.uri))
        samba.load(f"dn: {dn}\nchangetype: modify\nreplace: userAccountControl\nuserAccountControl: 514\n")
        (tmp_path / "password").write_text("Right.1234")
        assert "the account is disabled: invalidCredentials (49)" in asyncio.run(reason(samba.uri))


# ---------------------------------------------------------------- beside others

CLIENTS = 50
ROUNDS = 40


def company(example_ldif: Path) -> dict[str, dict[str, list[str]]]:
    """The example company, as the fake takes it."""
    records = read_records(example_ldif.read_bytes(), "example.ldif")
    return {
        record.dn: {name: list(values) for name, values in record.attributes.items()} for record in records
    }


class Asking:
    """One smtpd: a connection on which the same is asked again and again."""

    def __init__(self, path: str, name: str) -> None:
        self._path = path
        text = (
            f"protocol_state=RCPT\nsender=bob@my.domain\nrecipient=friend@{name}.example\nsasl_username=bob\n"
        )
        self._request = (
            f"request=smtpd_access_policy\nprotocol_name=ESMTP\nsasl_method=PLAIN\n{text}\n".encode()
        )
        self.waits: list[float] = []
        self.replies: set[bytes] = set()

    async def ask(self, rounds: int) -> None:
        """So many requests, with a pause between them."""
        loop = asyncio.get_running_loop()
        reader, writer = await asyncio.open_unix_connection(self._path)
        for _ in range(rounds):
            began = loop.time()
            writer.write(self._request)
            self.replies.add(await reader.readuntil(b"\n\n"))
            self.waits.append(loop.time() - began)
            await asyncio.sleep(0.25)
        writer.close()


def test_nobody_waits_for_a_password_that_is_refused(
    example_ldif: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The password is changed and the connections are lost while fifty ask: they are answered as before."""

    async def story() -> tuple[list[Asking], int]:
        (tmp_path / "password").write_text("old")
        async with FakeLdap(company(example_ldif), root_dse={}) as fake, Proxy(fake.path) as proxy:
            bind: Sections = {"directory": {"bind": "simple", "bind_dn": "cn=svc", "profile": "generic"}}
            secret: Sections = {"directory": {"bind_pw_file": str(tmp_path / "password")}}
            fake.secret = b"old"
            async with deciding(proxy.uri, merged(bind, secret)) as service:
                server = PolicyServer(service, [Unix(f"{tmp_path}/policy")])
                await server.start_listening()
                clients = [Asking(f"{tmp_path}/policy", f"d{number}") for number in range(CLIENTS)]
                await asyncio.gather(*(client.ask(1) for client in clients))
                fake.secret = b"new"
                proxy.drop()
                await asyncio.gather(*(client.ask(ROUNDS) for client in clients), shake(service, ROUNDS))
                await server.stop()
            return clients, fake.refused

    clients, refused = on_virtual_time(story())
    assert 1 == refused
    assert [{b"action=reject,\n\n"}] * CLIENTS == [client.replies for client in clients]
    assert 0.25 >= max(max(client.waits) for client in clients)


async def shake(service: Service, rounds: int) -> None:
    """Somebody who is asked about and not known: each time the directory has to be asked, and cannot be."""
    for number in range(rounds):
        request = rcpt(
            sender=f"n{number}@my.domain", recipient="x@elsewhere.example", sasl_username=f"n{number}"
        )
        assert "DEFER_IF_PERMIT" in str(await service.decide(request))
        await asyncio.sleep(0.25)
