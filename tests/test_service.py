"""The service over a real slapd: what it asks, what it remembers, which policies are in force."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar, cast

import pytest

from ldappolicy import assembly
from ldappolicy.config import Inet
from ldappolicy.directory import Directory, Search
from ldappolicy.directory.ldif import LdifDirectory
from ldappolicy.entry import Entry
from ldappolicy.errors import ConfigError, Unavailable
from ldappolicy.evaluate import Decision
from ldappolicy.facts import Found
from ldappolicy.ldap_filter import to_text
from ldappolicy.log import Lines
from ldappolicy.server import PolicyServer
from ldappolicy.service import Service
from tests.labs.clock import on_virtual_time
from tests.labs.deciding import Kept, configuration, deciding, rcpt, unread, until
from tests.labs.ldappolicy import Sections
from tests.labs.slapd import SUFFIX, Slapd, require_slapd

T = TypeVar("T")

MINUTES = 180.0
"""Seconds for which something is waited for that comes soon, unless the machine is busy."""

POLICY = f"cn=default,ou=policy,{SUFFIX}"
DEFERRED = "DEFER_IF_PERMIT 4.3.0 Temporary lookup failure"
AWAY = "friend@elsewhere.example"
STRANGER = {"sender": "stranger@elsewhere.example", "recipient": "all@my.domain"}

# Request, action, searches: the least that the directory can be asked with from nothing.
REQUESTS = [
    (STRANGER, "reject,", 1),
    ({"sender": "x@my.domain", "recipient": "all@my.domain"}, "DUNNO", 1),
    ({"sender": "amy@my.domain", "sasl_username": "amy", "recipient": AWAY}, "reject,", 1),
    ({"sender": "carol@my.domain", "sasl_username": "carol", "recipient": AWAY}, "reject,", 6),
    ({"sender": "carol@my.domain", "sasl_username": "carol", "recipient": "team@my.domain"}, "DUNNO", 6),
    ({"sender": "hank@my.domain", "sasl_username": "hank", "recipient": "sales@my.domain"}, "DUNNO", 5),
    ({"sender": "ned@my.domain", "sasl_username": "ned", "recipient": "press@my.domain"}, "REJECT", 5),
    ({"sender": "", "recipient": AWAY}, "DUNNO", 1),
    ({"sender": "", "recipient": ""}, "DUNNO", 0),
]


@pytest.fixture(scope="module")
def reading(example_ldif: Path) -> Iterator[Slapd]:
    """One server for the tests that only read."""
    require_slapd()
    with Slapd(schema="ldappolicy", data=example_ldif.read_text("utf-8")) as server:
        yield server


@pytest.fixture
def slapd(example_ldif: Path) -> Iterator[Slapd]:
    """A server of the test's own."""
    require_slapd()
    with Slapd(schema="ldappolicy", data=example_ldif.read_text("utf-8")) as server:
        yield server


def over(
    slapd: Slapd,
    story: Callable[[Service], Coroutine[Any, Any, T]],
    sections: Sections | None = None,
    *,
    reload: bool = True,
    log: Lines | None = None,
) -> T:
    """Run a story with a service over a server."""

    async def with_service() -> T:
        async with deciding(slapd.uri, sections, reload=reload, log=log) as service:
            return await story(service)

    return asyncio.run(with_service())


def change(dn: str, *lines: str) -> str:
    """A modification in LDIF."""
    return f"dn: {dn}\nchangetype: modify\n" + "".join(f"{line}\n" for line in lines) + "\n"


# --- what is asked --------------------------------------------------------------------------------


@pytest.mark.parametrize(("attributes", "action", "searches"), REQUESTS)
@pytest.mark.servers
def test_a_decision_takes_few_searches_and_then_none(
    reading: Slapd, attributes: dict[str, str], action: str, searches: int
) -> None:
    """From nothing in few rounds; then the answer is known without a look at the directory."""

    async def story(service: Service) -> None:
        request = rcpt(**attributes)
        before = reading.searches()
        assert await service.decide(request) == action
        asked = reading.searches()
        assert asked - before <= searches
        assert service.decide_now(request) == action
        assert await service.decide(request) == action
        assert reading.searches() == asked

    over(reading, story)


@pytest.mark.servers
def test_decide_now_says_when_it_does_not_know(reading: Slapd) -> None:
    """None is for the server to call `decide`, which asks."""

    async def story(service: Service) -> None:
        request = rcpt(**STRANGER)
        before = reading.searches()
        assert service.decide_now(request) is None
        assert reading.searches() == before
        await service.decide(request)
        assert service.decide_now(request) == "reject,"

    over(reading, story)


@pytest.mark.servers
def test_everything_that_one_round_lacks_is_one_search(reading: Slapd) -> None:
    """Sender, login, recipient and their domains, all unknown, are one question."""

    async def story(service: Service) -> None:
        before = reading.searches("scope=2")
        await service.decide(rcpt(sender="s@a.b.example", recipient="r@c.d.example", sasl_username="nobody"))
        assert reading.searches("scope=2") - before == 1

    over(reading, story)


@pytest.mark.servers
def test_many_requests_at_once_share_their_searches(reading: Slapd) -> None:
    """A hundred smtpd processes that ask the same in the same moment cost one search."""

    async def story(service: Service) -> None:
        before = reading.searches()
        actions = await asyncio.gather(*(service.decide(rcpt(**STRANGER)) for _ in range(100)))
        assert set(actions) == {"reject,"}
        assert reading.searches() - before == 1

    over(reading, story)


@pytest.mark.servers
def test_a_client_that_goes_does_not_lose_the_answer(reading: Slapd) -> None:
    """A request that is cancelled has begun a search; the next one finds its answer."""

    async def story(service: Service) -> None:
        before = reading.searches()
        task = asyncio.ensure_future(service.decide(rcpt(**STRANGER)))
        await asyncio.sleep(0)
        task.cancel()
        assert await service.decide(rcpt(**STRANGER)) == "reject,"
        assert reading.searches() - before == 1

    over(reading, story)


@pytest.mark.servers
def test_groups_nested_deep_are_followed_to_the_end(slapd: Slapd) -> None:
    """A chain of 150 groups is silly, but no bug: its member is a member."""
    chain = [
        f"dn: cn=g{n},ou=groups,{SUFFIX}\nobjectClass: groupOfNames\ncn: g{n}\nmember: {member}\n"
        for n, member in enumerate(
            [f"uid=mia,ou=people,{SUFFIX}", *(f"cn=g{n},ou=groups,{SUFFIX}" for n in range(149))]
        )
    ]
    slapd.load("\n".join(chain))
    slapd.load(
        change(f"cn=restricted,ou=groups,{SUFFIX}", "add: member", f"member: cn=g149,ou=groups,{SUFFIX}")
    )

    async def story(service: Service) -> None:
        action = await service.decide(rcpt(sender="mia@my.domain", recipient=AWAY))
        assert action in ("reject,", DEFERRED)
        assert await service.decide(rcpt(sender="ned@my.domain", recipient=AWAY)) == "DUNNO"

    over(slapd, story)


# --- when time is up, or nothing is known ---------------------------------------------------------


@pytest.mark.parametrize(
    ("choice", "expected"), [("defer", DEFERRED), ("dunno", "DUNNO"), ("disconnect", None)]
)
@pytest.mark.servers
def test_a_request_has_request_timeout_for_all_of_it(slapd: Slapd, choice: str, expected: str | None) -> None:
    """Past it on_unavailable applies, however long the directory itself would be given."""

    async def story(service: Service) -> None:
        slapd.suspend()
        try:
            assert await service.decide(rcpt(**STRANGER)) == expected
        finally:
            slapd.resume()
        async with asyncio.timeout(MINUTES):
            while await service.decide(rcpt(**STRANGER)) != "reject,":  # noqa: ASYNC110  # slapd has no Event
                await asyncio.sleep(0.05)

    sections: Sections = {
        "server": {"request_timeout": "300ms"},
        "directory": {"timeout": "1h"},
        "policy": {"on_unavailable": choice},
    }
    over(slapd, story, sections)


class Rounds:
    """A directory of which every search takes so many seconds; the policies are the example's."""

    def __init__(self, inner: LdifDirectory, seconds: float) -> None:
        self._inner = inner
        self.seconds = seconds

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def search(self, search: Search) -> Sequence[Entry]:
        """What there is, then."""
        await asyncio.sleep(self.seconds)
        return await self._inner.search(search)


# How long a search takes, of which the request takes four; the action, and when it is there.
ROUNDS = [(0.0, "reject,", 0.0), (0.07, "reject,", 0.28), (0.08, DEFERRED, 0.3), (3600.0, DEFERRED, 0.3)]


@pytest.mark.parametrize(("seconds", "action", "after"), ROUNDS)
def test_request_timeout_is_for_all_rounds(
    example_ldif: Path, seconds: float, action: str, after: float
) -> None:
    """To the moment, by the event loop's clock."""

    directory = Rounds(LdifDirectory.parse(example_ldif.read_bytes(), "example.ldif"), 0.0)

    async def story() -> tuple[str | None, float]:
        layout: Sections = {"server": {"request_timeout": "300ms"}, "directory": {"profile": "generic"}}
        config = configuration("ldap://unasked", layout)
        service = assembly.build_service(config, cast(Directory, directory))
        await service.reload()
        await until(lambda: service.resolver.is_idle)
        directory.seconds = seconds
        loop = asyncio.get_running_loop()
        began = loop.time()
        request = rcpt(sender="carol@my.domain", sasl_username="carol", recipient=AWAY)
        return await service.decide(request), loop.time() - began

    decided, took = on_virtual_time(story())
    assert action == decided
    assert pytest.approx(after) == took


@pytest.mark.servers
def test_a_request_whose_time_is_up_has_the_last_known_answers(slapd: Slapd) -> None:
    """A directory that hangs is unavailable: what is known and not too old serves."""

    async def story(service: Service) -> None:
        request = rcpt(sender="carol@my.domain", sasl_username="carol", recipient=AWAY)
        assert await service.decide(request) == "reject,"
        service.resolver.ask_again()
        slapd.suspend()
        try:
            assert await service.decide(request) == "reject,"
        finally:
            slapd.resume()

    over(slapd, story, {"server": {"request_timeout": "300ms"}, "directory": {"timeout": "2s"}})


@pytest.mark.parametrize(
    ("choice", "expected"), [("defer", DEFERRED), ("dunno", "DUNNO"), ("disconnect", None)]
)
@pytest.mark.servers
def test_without_policies_every_request_is_answered_as_on_unavailable_says(
    slapd: Slapd, choice: str, expected: str | None
) -> None:
    """Until they could be read; each of these decisions is logged like any other."""
    slapd.stop()
    log = Kept()

    async def story(service: Service) -> None:
        with pytest.raises(Unavailable):
            await service.reload()
        assert service.decide_now(rcpt(**STRANGER)) is None
        assert await service.decide(rcpt(**STRANGER)) == expected
        assert len(log.texts) == (choice != "dunno")
        slapd.start()
        async with asyncio.timeout(MINUTES):
            while service.evaluator is None:
                try:
                    await service.reload()
                except Unavailable:
                    await asyncio.sleep(0.05)
        assert await service.decide(rcpt(**STRANGER)) == "reject,"

    sections: Sections = {"policy": {"on_unavailable": choice}, "log": {"decisions": "rejects"}}
    over(slapd, story, sections, reload=False, log=log)


@pytest.mark.servers
def test_an_outage_is_told_of_in_few_lines(slapd: Slapd, caplog: pytest.LogCaptureFixture) -> None:
    """A line for each address would be the spammers' to multiply."""
    caplog.set_level(logging.WARNING, "ldappolicy")

    async def story(service: Service) -> None:
        slapd.stop()
        for n in range(50):
            request = rcpt(sender=f"s{n}@elsewhere.example", recipient=f"r{n}@my.domain")
            assert await service.decide(request) == DEFERRED
        assert 1 <= sum(record.name == "ldappolicy.service" for record in caplog.records) <= 5

    over(slapd, story, {"log": {"decisions": "none"}})


@pytest.mark.servers
def test_a_decision_is_logged_once(reading: Slapd) -> None:
    """Also when decide_now could not make it, and when the connection is to be closed."""
    log = Kept()

    async def story(service: Service) -> None:
        for request in (rcpt(**STRANGER), rcpt(policy_context="nowhere")):
            log.texts.clear()
            assert (service.decide_now(request) or await service.decide(request)) is not None
            assert len(log.texts) == 1

    over(reading, story, {"log": {"decisions": "all"}}, log=log)


# --- policies -------------------------------------------------------------------------------------


@pytest.mark.servers
def test_policies_are_swapped_as_a_whole(slapd: Slapd) -> None:
    """Nothing of a change is in force before it is read, everything after; read again, nothing is new."""

    async def story(service: Service) -> None:
        request = rcpt(**STRANGER)
        assert await service.decide(request) == "reject,"
        assert await service.reload() is False
        slapd.load(
            change(
                f"cn=insiders_only,ou=classes,ou=policy,{SUFFIX}",
                "replace: smtpdRestrictions",
                "smtpdRestrictions: check_sender_access ldap:welcome, reject",
            )
            + f"dn: cn=welcome,ou=tables,ou=policy,{SUFFIX}\nobjectClass: smtpdAccessTable\ncn: welcome\n"
            "smtpdAccess: elsewhere.example DUNNO\nsmtpdAccess: other.example 550 5.7.1 go away\n"
        )
        assert await service.decide(request) == "reject,"
        assert await service.reload() is True
        assert await service.decide(request) == "reject,"
        other = rcpt(sender="x@other.example", recipient="all@my.domain")
        assert await service.decide(other) == "550 5.7.1 go away"
        assert await service.reload() is False

    over(slapd, story)


@pytest.mark.servers
def test_a_request_in_hand_ends_under_the_policies_it_began_with(slapd: Slapd) -> None:
    """A swap while it waits for the directory does not mix two sets of policies."""

    async def story(service: Service) -> None:
        before = service.evaluator
        slapd.suspend()
        waiting = asyncio.ensure_future(service.decide(rcpt(**STRANGER)))
        async with asyncio.timeout(MINUTES):
            while not unread(slapd.port):  # noqa: ASYNC110  # what the kernel holds has no Event
                await asyncio.sleep(0.005)
        async with deciding(f"ldif:{slapd.home}/other.ldif", reload=False) as other:
            await other.reload()
            service.take_over(other)
        slapd.resume()
        assert await waiting == "reject,"
        assert service.evaluator is not before
        assert await service.decide(rcpt(**STRANGER)) == "550 5.7.1 closed"

    (slapd.home / "other.ldif").write_text(
        f"dn: {POLICY}\nobjectClass: smtpdPolicy\ncn: default\n"
        "smtpdClientRestrictions: check_client_access static:{550 5.7.1 closed}\n"
    )
    over(slapd, story)


@pytest.mark.parametrize(
    "broken",
    [
        "check_sender_access {directory:access",
        "check_sender_access",
        "check_recipient_access recipient:members",
        "check_client_access nonsense",
    ],
)
@pytest.mark.servers
def test_a_policy_that_does_not_parse_stays_as_it_was(
    slapd: Slapd, caplog: pytest.LogCaptureFixture, broken: str
) -> None:
    """The last good form is in force, the log says where to look; the others are served as they are."""

    async def story(service: Service) -> None:
        assert await service.decide(rcpt(**STRANGER)) == "reject,"
        slapd.load(
            change(POLICY, "replace: smtpdRecipientRestrictions", f"smtpdRecipientRestrictions: {broken}")
        )
        assert await service.reload() is True
        assert await service.decide(rcpt(**STRANGER)) == "reject,"
        assert await service.decide(rcpt(policy_context="plain", **STRANGER)) == "reject,"
        [line] = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
        assert line.startswith(f"{POLICY}: smtpdRecipientRestrictions: ")
        assert line.endswith("; the last good form stays in force")
        caplog.clear()
        assert await service.reload() is False
        assert caplog.records == []

    over(slapd, story)


@pytest.mark.servers
def test_a_class_that_does_not_parse_stays_as_it_was(slapd: Slapd) -> None:
    """What goes for policies goes for what they are made of."""

    async def story(service: Service) -> None:
        slapd.load(
            change(
                f"cn=insiders_only,ou=classes,ou=policy,{SUFFIX}",
                "replace: smtpdRestrictions",
                "smtpdRestrictions: check_sender_access",
            )
        )
        assert await service.reload() is True
        assert await service.decide(rcpt(**STRANGER)) == "reject,"

    over(slapd, story)


@pytest.mark.servers
def test_a_policy_that_never_parsed_is_an_error_for_its_context_only(slapd: Slapd) -> None:
    """Nobody else pays for it."""
    slapd.load(
        f"dn: cn=bad,ou=policy,{SUFFIX}\nobjectClass: smtpdPolicy\ncn: bad\n"
        "smtpdSenderRestrictions: check_sender_access\n"
    )

    async def story(service: Service) -> None:
        assert (
            await service.decide(rcpt(policy_context="bad", **STRANGER))
            == "451 4.3.5 Server configuration error"
        )
        assert await service.decide(rcpt(**STRANGER)) == "reject,"

    over(slapd, story)


@pytest.mark.servers
def test_a_policy_that_vanished_stays_until_it_is_there_again(
    slapd: Slapd, caplog: pytest.LogCaptureFixture
) -> None:
    """The directory answers, but not with it: its last good form is in force, and the log says so once."""
    plain = f"cn=plain,ou=policy,{SUFFIX}"
    request = rcpt(policy_context="plain", **STRANGER)

    async def story(service: Service) -> None:
        slapd.load(f"dn: {plain}\nchangetype: delete\n")
        assert await service.reload() is True
        assert await service.decide(request) == "reject,"
        assert [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR] == [
            f"{plain}: cn: policy 'plain' vanished; its last good form stays in force"
        ]
        assert await service.reload() is False
        assert await service.decide(request) == "reject,"
        slapd.load(
            f"dn: {plain}\nobjectClass: smtpdPolicy\ncn: plain\n"
            "smtpdSenderRestrictions: check_sender_access static:{550 5.7.1 new}\n"
        )
        assert await service.reload() is True
        assert await service.decide(request) == "550 5.7.1 new"

    over(slapd, story)


@pytest.mark.parametrize(
    ("ldif", "expected"),
    [
        (
            f"dn: {POLICY}\nchangetype: delete\n",
            f"ou=policy,{SUFFIX}: no policy named 'default', expected a smtpdPolicy with that cn",
        ),
        (
            change(POLICY, "replace: smtpdMynetworks", "smtpdMynetworks: 192.0.2.0/33"),
            f"{POLICY}: the default policy does not parse: smtpdMynetworks: ",
        ),
        (
            change(
                POLICY, "replace: smtpdSenderRestrictions", "smtpdSenderRestrictions: check_sender_access"
            ),
            f"{POLICY}: the default policy does not parse: smtpdSenderRestrictions: ",
        ),
    ],
)
@pytest.mark.servers
def test_there_has_to_be_a_default_policy_at_start(slapd: Slapd, ldif: str, expected: str) -> None:
    """The directory answers, and there is nothing to serve with: that is an error, no outage."""
    slapd.load(ldif)

    async def story(service: Service) -> None:
        with pytest.raises(ConfigError) as caught:
            await service.reload()
        assert str(caught.value).startswith(expected)
        assert service.evaluator is None

    over(slapd, story, reload=False)


@pytest.mark.servers
def test_an_empty_database_at_start_is_unavailable() -> None:
    """A replica that has not been filled yet does not show search_base: it is waited for."""
    require_slapd()

    async def story(service: Service) -> None:
        with pytest.raises(Unavailable):
            await service.reload()
        assert await service.decide(rcpt(**STRANGER)) == DEFERRED

    with Slapd(schema="ldappolicy") as server:
        over(server, story, reload=False)


@pytest.mark.servers
def test_what_a_server_has_to_show(slapd: Slapd) -> None:
    """search_base, and the policy that answers, once one is in force; on every new connection."""

    async def story(service: Service) -> None:
        await service.reload()
        proofs = [f"{proof.base} {proof.scope.name} {to_text(proof.filter)}" for proof in service.proofs()]
        assert proofs == [
            f"{SUFFIX} BASE (objectClass=*)",
            f"ou=policy,{SUFFIX} SUB (&(objectClass=smtpdPolicy)(cn=default))",
        ]
        slapd.restart()
        assert await service.decide(rcpt(**STRANGER)) == "reject,"
        slapd.load(f"dn: {POLICY}\nchangetype: delete\n")
        slapd.restart()
        request = rcpt(sender="new@elsewhere.example", recipient="team@my.domain")
        assert await service.decide(request) == DEFERRED

    over(slapd, story, reload=False)


@pytest.mark.servers
def test_another_default_policy_is_what_has_to_be_shown(slapd: Slapd) -> None:
    """From the moment it is in force; the one before it may go."""

    async def story(service: Service) -> None:
        choices = replace(service.settings.choices, default="plain")
        plain = service.with_settings(replace(service.settings, choices=choices))
        assert not await plain.reload()
        slapd.load(f"dn: {POLICY}\nchangetype: delete\n")
        slapd.restart()
        assert await plain.decide(rcpt(**STRANGER)) == "reject,"

    over(slapd, story)


@pytest.mark.servers
def test_other_settings_keep_the_caches_and_the_policies(reading: Slapd) -> None:
    """A changed [policy] section does not ask the directory again for what is known."""

    async def story(service: Service) -> None:
        request = rcpt(sender="x@my.domain", recipient="all@my.domain")
        assert await service.decide(request) == "DUNNO"
        asked = reading.searches()
        same = service.with_settings(service.settings)
        assert same.decide_now(request) == "DUNNO"
        assert same.resolver is service.resolver
        assert reading.searches() == asked

    over(reading, story)


@pytest.mark.servers
def test_the_trace_tells_the_age_of_what_it_used(reading: Slapd) -> None:
    """`eval --explain` prints it: each lookup with the time it was asked at."""

    async def story(service: Service) -> None:
        trace: list[dict[str, Any]] = []
        decision = await service.resolve(rcpt(**STRANGER), trace)
        assert isinstance(decision, Decision)
        assert decision.action == "reject,"
        known = service.resolver.known(("mail", "all@my.domain"))
        assert isinstance(known, Found)
        assert known.at in [event.get("known_at") for event in trace]

    over(reading, story)


# --- the service behind its listeners -------------------------------------------------------------


def test_an_open_connection_sees_what_is_swapped(tmp_path: Path) -> None:
    """Postfix keeps its connections for an hour: the next request on one has the policies of now."""

    def tree(action: str) -> str:
        path = tmp_path / f"{action}.ldif"
        path.write_text(
            f"dn: {POLICY}\nobjectClass: smtpdPolicy\ncn: default\n"
            f"smtpdClientRestrictions: check_client_access static:{{550 5.7.1 {action}}}\n"
        )
        return f"ldif:{path}"

    async def story() -> list[bytes]:
        async with deciding(tree("old")) as old, deciding(tree("new")) as new:
            server = PolicyServer(old, (Inet("127.0.0.1", 0),))
            await server.start_listening()
            [address] = server.addresses
            assert isinstance(address, Inet)
            reader, writer = await asyncio.open_connection(address.host, address.port)
            replies = []
            for service in (old, new):
                server.decider = service
                writer.write(b"request=smtpd_access_policy\nprotocol_state=RCPT\nclient_name=x\n\n")
                replies.append(await reader.readuntil(b"\n\n"))
            writer.close()
            await server.stop()
            return replies

    assert [b"action=550 5.7.1 old\n\n", b"action=550 5.7.1 new\n\n"] == asyncio.run(story())
