"""Ready-made replies: requests as bytes, answered from what was decided before for requests like them."""

import asyncio
import logging
import re
from collections.abc import Sequence

import pytest

from ldappolicy import identity, ready, restrictions
from ldappolicy.address import REMEMBERED
from ldappolicy.decision_log import DecisionLog, decision_ids
from ldappolicy.directory.ldif import LdifDirectory
from ldappolicy.directory.plan import Planner, Where
from ldappolicy.entry import Entry
from ldappolicy.evaluate import Choices
from ldappolicy.evaluation import Evaluation, Steps
from ldappolicy.mapping import PROFILES
from ldappolicy.memories import BOUNDS, Bound
from ldappolicy.ready import ALWAYS, LONGEST, ReadyReplies
from ldappolicy.request import Request
from ldappolicy.residue import ListOutcome
from ldappolicy.resolver import Limits, Resolver
from ldappolicy.service import Service, Settings
from tests.labs.deciding import Kept
from tests.language import BASE, dn, entry, group, person, policy, restriction_class, table

MAPPING = PROFILES["generic"]
REJECT = b"action=REJECT\n\n"
DUNNO = b"action=DUNNO\n\n"
AMY = person("amy", smtpdSenderAccess="REJECT not amy")


class Clock:
    """Seconds that pass when a test says so."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Stage:
    """A service over some entries, in memory but asked as any directory; and its decision log."""

    def __init__(
        self,
        *entries: Entry,
        held: bool = True,
        numbered: bool = False,
        shadow: bool = False,
        which: str = "rejects",
    ) -> None:
        root = [Entry(BASE, {"dc": ["example"]}), entry("ou=policy", ou="policy"), entry("ou=people", ou="x")]
        self.entries: list[Entry] = [*root, *entries]
        self.clock, self.log = Clock(), Kept()
        directory = LdifDirectory(self.entries)
        resolver = Resolver(directory, Planner(Where(BASE), MAPPING), Limits(ttl=300.0), self.clock)
        if held:
            resolver.use_mirror(directory)
            resolver.vouch()
        settings = Settings(
            BASE, f"ou=policy,{BASE}", MAPPING, Choices(shadow=shadow), decision_id_in_text=numbered
        )
        decisions = DecisionLog(which, "text", self.log, decision_ids(), is_shadow=shadow)
        self.service = Service(resolver, settings, decisions)
        asyncio.run(self.service.reload())

    def ask(self, **attributes: str) -> bytes | Request | None:
        """The answer to one request."""
        return self.service.answer(octets(**attributes))

    def change(self, *entries: Entry) -> None:
        """The directory has other entries now, and they are told of."""
        self.service.resolver.directory = directory = LdifDirectory([*self.entries, *entries])
        self.service.resolver.use_mirror(directory)

    def counted(self, kind: str) -> int:
        """Requests that were decided from what was known, or not."""
        return self.service.counters.cache[kind].value


def octets(**attributes: str) -> bytes:
    """A request at RCPT TO, as Postfix sends it."""
    given = {"protocol_state": "RCPT", "protocol_name": "ESMTP", "client_address": "192.0.2.1", **attributes}
    lines = "".join(f"{name}={given.get(name, '')}\n" for name in Request._fields)
    return f"request=smtpd_access_policy\n{lines}\n".encode("utf-8", "surrogateescape")


def test_again() -> None:
    """The second time nothing is evaluated; both are counted, and written with what is their own."""
    stage = Stage(policy(sender="check_sender_access directory:access"), AMY)
    first = stage.ask(sender="amy@my.domain", recipient="a@x", client_name="one", instance="1")
    assert first == b"action=REJECT not amy\n\n"
    stage.service.evaluator = None  # nobody is there to evaluate
    assert first == stage.ask(sender="amy@my.domain", recipient="a@x", client_name="two", queue_id="Q")
    assert stage.service.counters.requests.values() == {("REJECT", "default"): 2}
    assert (stage.counted("hit"), stage.counted("miss")) == (2, 0)
    assert sum(stage.service.counters.request_durations.counts) == 2
    heads = [re.sub(r"^decision: id=\S+ ", "", line).partition(" state=")[0] for line in stage.log.texts]
    assert heads == [
        "instance=1 client=one[192.0.2.1]",
        "queue_id=Q client=two[192.0.2.1]",
    ]
    rests = {re.sub(r" us=\d+$", "", line.partition(" state=")[2]) for line in stage.log.texts}
    assert len(rests) == 1


@pytest.mark.parametrize(
    "items", ["check_sasl_access directory:nobody", "check_sasl_access directory:access"]
)
def test_logins_that_belong_to_nobody(items: str, caplog: pytest.LogCaptureFixture) -> None:
    """Each request with one is counted, ready or not; the log names the first few."""
    stage = Stage(policy(sender=items, recipient=items), AMY)
    asked = [(login, "a@x") for login in ("ghost", "ghost", "ghoul", "amy", "")] + [("ghost", "b@x")]
    for login, recipient in (*asked, *asked):
        stage.ask(sasl_username=login, sender="u@x", recipient=recipient)
    counters = stage.service.counters
    assert [4, 8] == [sum(one.values().values()) for one in (counters.requests, counters.unknown_logins)]
    assert (12, 0) == (stage.counted("hit"), stage.counted("miss"))
    told = [record.getMessage() for record in caplog.records if "nobody" in record.getMessage()]
    assert [f"login '{login}' belongs to nobody" for login in ("ghost", "ghoul", "ghost")] == told


def test_a_flood_of_unknown_logins(caplog: pytest.LogCaptureFixture) -> None:
    """The log has a few of them, and nothing of what is kept grows by their names."""
    stage = Stage(policy(sender="check_sasl_access directory:access"), AMY)
    for number in range(100):
        stage.ask(sasl_username=f"ghost{number}" + "x" * 2000, sender="u@x", recipient="a@x")
    told = [record.getMessage() for record in caplog.records if "nobody" in record.getMessage()]
    assert 3 == len(told)
    assert all(len(line) < 300 for line in told)


LOOKS: list[tuple[str, str, str, str]] = [
    # the recipient list, the attribute that it looks at, a value that is refused, one that is not
    ("check_client_access ldap:t", "client_address", "192.0.2.9", "192.0.2.8"),
    ("check_client_access ldap:t", "client_name", "bad.example", "good.example"),
    ("check_reverse_client_hostname_access ldap:t", "reverse_client_name", "bad.example", "good.example"),
    ("check_helo_access ldap:t", "helo_name", "bad.example", "good.example"),
    ("check_sender_access ldap:t", "sender", "a@bad.example", "a@good.example"),
    ("check_recipient_access ldap:t", "recipient", "a@bad.example", "a@good.example"),
    ("check_sasl_access ldap:t", "sasl_username", "bad", "good"),
    ("check_ccert_access ldap:t", "ccert_fingerprint", "ba:ad", "go:od"),
    ("check_ccert_access ldap:t", "ccert_pubkey_fingerprint", "ba:ad", "go:od"),
    ("reject_invalid_helo_hostname", "helo_name", "-", "good.example"),
    ("reject_plaintext_session", "encryption_protocol", "", "TLSv1.3"),
    ("reject_multi_recipient_bounce", "recipient_count", "2", "1"),
    ("permit_sasl_authenticated, reject", "sasl_method", "", "PLAIN"),
]
TABLE = table("t", "192.0.2.9 REJECT", "bad.example REJECT", "bad REJECT", "ba:ad REJECT")


@pytest.mark.parametrize("order", [(0, 1, 0, 1), (1, 0, 1, 0)], ids=["refused first", "refused later"])
@pytest.mark.parametrize(("items", "name", "bad", "good"), LOOKS, ids=[f"{i} {n}" for i, n, *_ in LOOKS])
def test_what_is_looked_at_tells_requests_apart(
    items: str, name: str, bad: str, good: str, order: Sequence[int]
) -> None:
    """Whichever attribute it is, nobody has to say so beforehand."""
    stage = Stage(policy(recipient=items), TABLE)
    given = {"recipient": "a@x.example", "helo_name": "h.example"}
    if name == "recipient_count":
        given |= {"protocol_state": "RCPT", "sender": ""}
    answers = [stage.ask(**{**given, name: (bad, good)[number]}) for number in order]
    refused = [answer != DUNNO for answer in answers]
    assert [not number for number in order] == refused


def test_a_list_that_is_not_run_without_helo() -> None:
    """That there is a name is looked at, too."""
    stage = Stage(policy(helo="reject"))
    answers = [stage.ask(recipient="a@x", helo_name=name) for name in ("", "h", "", "h")]
    assert answers == [DUNNO, b"action=reject,\n\n"] * 2


def test_bytes_that_are_no_text() -> None:
    """They are one sender each, in the log as well."""
    stage = Stage(policy(sender="check_sender_access ldap:t"), table("t", "a@x REJECT"))
    for sender in ("\udcff@x", "\udcfe@x", "a@x", "ä@x"):
        for _ in range(2):
            assert (REJECT if sender == "a@x" else DUNNO) == stage.ask(sender=sender, recipient="b@x")


def test_new_facts_begin_anew() -> None:
    """A change that is told is in force with the next request."""
    stage = Stage(policy(sender="check_sender_access directory:access"))
    asked = {"sender": "amy@my.domain", "recipient": "a@x"}
    assert [DUNNO, DUNNO] == [stage.ask(**asked) for _ in range(2)]
    stage.change(policy(sender="check_sender_access directory:access"), AMY)
    assert stage.ask(**asked) == b"action=REJECT not amy\n\n"


def test_answers_of_the_directory_grow_old() -> None:
    """Without a stream that vouches, a ready reply is worth no more than the lookups behind it."""
    stage = Stage(policy(sender="check_sender_access directory:access"), AMY, held=False)
    asked = {"sender": "amy@my.domain", "recipient": "a@x"}
    request = stage.ask(**asked)
    assert isinstance(request, Request)
    assert asyncio.run(stage.service.decide(request)) == "REJECT not amy"
    assert stage.ask(**asked) == b"action=REJECT not amy\n\n"
    stage.clock.now += 299
    assert stage.ask(**asked) == b"action=REJECT not amy\n\n"
    stage.clock.now += 31
    assert isinstance(stage.ask(**asked), Request)


def test_new_policies_begin_anew() -> None:
    """The facts are the same, what follows from them is not."""
    stage = Stage(policy(sender="check_sender_access directory:access"), AMY)
    asked = {"sender": "amy@my.domain", "recipient": "a@x"}
    assert stage.ask(**asked) == b"action=REJECT not amy\n\n"
    facts = stage.service.resolver.facts()
    stage.service.resolver.directory = LdifDirectory([*stage.entries[:3], policy(sender="permit"), AMY])
    asyncio.run(stage.service.reload())
    assert stage.service.resolver.facts() is facts
    assert stage.ask(**asked) == DUNNO


@pytest.mark.parametrize(
    ("lists", "told"),
    [
        ({"sender": "warn_if_reject reject"}, "warn_if_reject: would have been refused: reject,"),
        (
            {"client": "warn_if_reject reject", "recipient": "warn_if_reject reject"},
            "warn_if_reject: would have been refused: reject,",
        ),
        ({"sender": "check_sender_access static:WARN"}, "WARN"),
        ({"recipient": "shadow reject"}, "shadow: would have been answered: reject,"),
    ],
    ids=["one list", "the same in two lists", "a table", "shadow"],
)
def test_what_is_told_is_told_each_time(
    caplog: pytest.LogCaptureFixture, lists: dict[str, str], told: str
) -> None:
    """A decision that the log has more to say of is made anew."""
    stage = Stage(policy(**lists))
    for _ in range(3):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            assert stage.ask(sender="a@x", recipient="b@x") == DUNNO
        assert [told] == [record.getMessage().partition(" (")[0] for record in caplog.records]


def test_shadow_is_counted_each_time() -> None:
    """Of the whole service: DUNNO is sent, what it would have been is counted and written."""
    stage = Stage(policy(sender="check_sender_access directory:access"), AMY, shadow=True)
    for _ in range(3):
        assert stage.ask(sender="amy@my.domain", recipient="a@x") == DUNNO
    assert stage.service.counters.shadow.values() == {"REJECT": 3}
    assert stage.service.counters.requests.values() == {("DUNNO", "default"): 3}
    assert ["action='REJECT not amy'"] * 3 == [
        match[0] for line in stage.log.texts if (match := re.search(r"action='.*?'", line))
    ]


@pytest.mark.parametrize(
    ("held", "passed", "age"), [(True, 100, "0.0"), (False, 100, "100.0"), (False, 310, "0.0")]
)
def test_age(held: bool, passed: float, age: str) -> None:
    """Since the directory said so; what is told of all changes has none."""
    stage = Stage(policy(sender="check_sender_access directory:access"), AMY, held=held)
    for _ in range(2):
        request = stage.ask(sender="amy@my.domain", recipient="a@x")
        if isinstance(request, Request):
            asyncio.run(stage.service.decide(request))
        stage.clock.now += passed
    stage.clock.now -= passed
    stage.service.resolver.facts()
    assert [f"age={age}"] == [word for word in stage.log.texts[-1].split() if word.startswith("age=")]


def test_no_age() -> None:
    """Where nothing was asked, nothing is old."""
    stage = Stage(policy(sender="reject"), held=False)
    assert stage.ask(sender="a@x", recipient="b@x") == b"action=reject,\n\n"
    assert "age=-" in stage.log.texts[0]


def test_a_text_that_fills_the_reply() -> None:
    """Makes room for the number."""
    long = person("amy", smtpdSenderAccess="REJECT " + "é" * 400)
    stage = Stage(policy(sender="check_sender_access directory:access"), long, numbered=True)
    answer = stage.ask(sender="amy@my.domain", recipient="a@x")
    number = stage.log.texts[0].split()[1].removeprefix("id=")
    assert isinstance(answer, bytes)
    assert answer.endswith(f"é ({number})\n\n".encode())
    assert len(answer) <= len(b"action=\n\n") + 500


def test_numbers_are_of_one_request() -> None:
    """With decision_id_in_text every refusal with a text has its own, which is that of its line."""
    stage = Stage(policy(sender="check_sender_access directory:access"), AMY, numbered=True)
    answers = [stage.ask(sender="amy@my.domain", recipient="a@x") for _ in range(3)]
    numbers = [line.split()[1].removeprefix("id=") for line in stage.log.texts]
    assert [f"action=REJECT not amy ({number})\n\n".encode() for number in numbers] == answers
    assert len(set(numbers)) == 3


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n",
        octets() + octets(),
        octets()[:-1],
        octets(sender="a\0"),
        octets(helo_name="\r"),
        b"x" + octets(),
    ],
    ids=["nothing", "an empty line", "two requests", "a piece", "NUL", "CR", "something before it"],
)
def test_what_is_not_one_request(data: bytes) -> None:
    """It is for the reader, which knows what is wrong with it."""
    assert Stage(policy(sender="reject")).service.answer(data) is None


def test_a_policy_that_is_none() -> None:
    """Is the client's word: the counters do not grow with it."""
    stage = Stage(policy(sender="reject"))
    for context in ("nowhere", "elsewhere", "default/nothing"):
        assert stage.ask(policy_context=context, recipient="a@x") == (
            b"action=451 4.3.5 Server configuration error\n\n"
        )
    assert stage.service.counters.requests.values() == {("451", ""): 2, ("451", "default"): 1}


@pytest.mark.parametrize(("size", "kept"), [(LONGEST, 1), (LONGEST + 1, 0)])
def test_long_requests_are_not_kept(size: int, kept: int) -> None:
    """Few of them would fill the memory."""
    replies = ReadyReplies()
    replies.keep(b"key", ready.Ready(DUNNO, Stage(policy()).service.counters.cache["hit"]), size, set())
    assert len(replies.replies) == kept


def test_how_many_are_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients choose the keys."""
    monkeypatch.setitem(BOUNDS, "ready replies", Bound(3, 2**20))
    stage = Stage(policy(sender="permit"))
    for number in range(10):
        assert stage.ask(sender=f"s{number}@x", recipient="a@x") == DUNNO
        assert len(stage.service._ready.replies) <= 3  # noqa: SLF001


def plain(*names: str) -> str:
    """A list of checks that mostly come to nothing."""
    return ", ".join(f"check_{name}_access directory:access" for name in names)


BOARD = group("board", [dn("uid=cal,ou=people")], smtpdMemberSenderAccess="REJECT not the board")


@pytest.mark.parametrize(
    ("sender", "runs"),
    [
        ("ned@my.domain", 0),
        ("NED@My.Domain", 0),
        ("nobody@my.domain", 0),
        ("amy@my.domain", 1),  # carries something
        ("ned@other.example", 1),  # a domain that nobody has looked at yet
        ("ned+x@my.domain", 1),  # two forms
        ('"n d"@my.domain', 1),
        ("ned%x@my.domain", 1),
        ("ned", 1),
        ("nél@my.domain", 1),
        ("", 1),
    ],
)
def test_lists_that_need_not_run(monkeypatch: pytest.MonkeyPatch, sender: str, runs: int) -> None:
    """An address that is written plainly and is known to carry nothing; the answer is that of a list."""
    lists = policy(sender=plain("sender"), recipient=plain("recipient"), smtpdRecipientDelimiter="+")
    stage = Stage(lists, AMY, person("ned"), person("zed"))
    run = runs_of(monkeypatch)
    assert stage.ask(sender="zed@my.domain", recipient="zed@my.domain") == DUNNO
    run.clear()
    answer = stage.ask(sender=sender, recipient="zed@my.domain")
    assert answer == (b"action=REJECT not amy\n\n" if sender.startswith("amy") else DUNNO)
    assert run == ["sender"] * runs


@pytest.mark.parametrize(
    ("sender", "expected"), [("cal", b"action=REJECT not the board\n\n"), ("ned", DUNNO)]
)
def test_no_list_is_spared_where_groups_carry_something(
    monkeypatch: pytest.MonkeyPatch, sender: str, expected: bytes
) -> None:
    """Whoever has an entry may be in such a group."""
    stage = Stage(policy(sender=plain("sender")), BOARD, person("cal"), person("ned"), person("zed"))
    assert stage.ask(sender="zed@my.domain", recipient="a@x") == DUNNO
    run = runs_of(monkeypatch)
    assert stage.ask(sender=f"{sender}@my.domain", recipient="a@x") == expected
    assert run == ["sender"]


def test_both_checks_in_one_list(monkeypatch: pytest.MonkeyPatch) -> None:
    """Senders and recipients that meet for the first time take no run, but for those of the first of all."""
    stage = Stage(policy(recipient=plain("sender", "recipient")), AMY, *map(person, "abcd"))
    asked = [(f"{one}@my.domain", f"{other}@my.domain") for one in "abcd" for other in "abcd"]
    run = runs_of(monkeypatch)
    for sender, recipient in asked:
        assert stage.ask(sender=sender, recipient=recipient) == DUNNO
    assert run == ["recipient"] * 4
    assert stage.ask(sender="amy@my.domain", recipient="a@my.domain") == b"action=REJECT not amy\n\n"


def runs_of(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The lists that are run from now on."""
    names: list[str] = []
    run_list = Evaluation.run_list

    def noting(evaluation: Evaluation, name: str, steps: Steps) -> ListOutcome:
        names.append(name)
        return run_list(evaluation, name, steps)

    monkeypatch.setattr(Evaluation, "run_list", noting)
    return names


def test_one_decision_for_several() -> None:
    """Each has a line of its own, whoever decided, and the first time as the second."""
    stage = Stage(policy(recipient=plain("recipient")), person("all", smtpdRecipientAccess="REJECT closed"))
    asked = [
        {"sender": f"{name}@x.example", "client_name": name, "instance": name, "recipient": "all@my.domain"}
        for name in ("one", "two", "three")
    ]
    for number in range(2):
        for attributes in asked:
            assert stage.ask(**attributes) == b"action=REJECT closed\n\n"
        stage.service.evaluator = None if number else stage.service.evaluator
    told = [re.findall(r" (?:instance|client|sender)=(\S+)", line) for line in stage.log.texts]
    assert told == [[a["instance"], f"{a['client_name']}[192.0.2.1]", f"<{a['sender']}>"] for a in asked] * 2
    assert len({line.split()[1] for line in stage.log.texts}) == 6
    assert stage.service.counters.requests.values() == {("REJECT", "default"): 6}
    assert sum(stage.service.counters.request_durations.counts) == stage.counted("hit") == 6


def test_every_decision_is_logged() -> None:
    """Where all are to be, those that many share as well."""
    stage = Stage(policy(sender=plain("sender")), person("zed"), which="all")
    for sender in ("zed", "ned", "zed", "ted"):
        assert stage.ask(sender=f"{sender}@my.domain", recipient="a@x") == DUNNO
    assert [line.split("sender=<")[1].split("@")[0] for line in stage.log.texts] == [
        "zed",
        "ned",
        "zed",
        "ted",
    ]


def test_how_many_decisions_are_shared_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their texts come from the directory; beyond that all of them go."""
    for name in ("shared replies", "decisions"):
        monkeypatch.setitem(BOUNDS, name, Bound(2, 2**20))
    people = [person(name, smtpdSenderAccess=f"REJECT not {name}") for name in "abcd"]
    stage = Stage(policy(sender=plain("sender")), *people)
    for number in range(3):
        for name in "abcd":
            answer = stage.ask(sender=f"{name}@my.domain", recipient=f"{number}@x")
            assert answer == f"action=REJECT not {name}\n\n".encode()
            assert len(stage.service._shared) <= 2  # noqa: SLF001
    assert stage.service.counters.requests.values() == {("REJECT", "default"): 12}
    assert len(stage.log.texts) == 12


MEMBERS = restriction_class("members_only", "check_sender_access recipient:members, reject")


@pytest.mark.parametrize(("asked", "climbs"), [("one two", 1), ("two one", 2)])
def test_groups_that_were_all_gone_through(monkeypatch: pytest.MonkeyPatch, asked: str, climbs: int) -> None:
    """Whoever was not in one of them is not looked for again; whoever was, may be in more."""
    inner = group("inner", [dn("uid=ned,ou=people")])
    lists = [
        group("one", mail="one@my.domain", smtpdRecipientAccess="members_only"),
        group("two", [inner.dn], mail="two@my.domain", smtpdRecipientAccess="members_only"),
    ]
    stage = Stage(policy(recipient=plain("recipient")), MEMBERS, inner, *lists, person("ned"))
    went: list[str] = []
    climb = identity._climb  # noqa: SLF001

    def noting(
        evaluation: Evaluation, waiting: list[Entry], closure: identity.Closure, until: frozenset[str]
    ) -> identity.Closure:
        went.extend(entry.dn for entry in waiting)
        return climb(evaluation, waiting, closure, until)

    monkeypatch.setattr(identity, "_climb", noting)
    for name in asked.split():
        answer = stage.ask(sender="ned@my.domain", recipient=f"{name}@my.domain")
        assert answer == (DUNNO if name == "two" else b"action=reject,\n\n")
    assert len(went) == climbs


@pytest.mark.parametrize(("letters", "kept"), [(20, True), (REMEMBERED + 1, False)])
def test_long_addresses_are_not_concluded_about_for_later(letters: int, kept: bool) -> None:
    """Clients choose them, a new one each time; what is known of short ones is bounded with the lookups."""
    stage = Stage(policy(sender=plain("sender")), AMY)
    size = []
    for number in range(50):
        domain = f"{number:06}.{'y' * (letters - 7)}.example"
        assert stage.ask(sender=f"a@{domain}", recipient="b@x") == DUNNO
        size.append(len(stage.service.resolver.facts().derived))
    assert (size[-1] > size[1]) == kept


def test_what_is_skipped_is_in_every_key() -> None:
    """Nobody is told what a skip looks at."""
    assert restrictions._SKIPPED <= ALWAYS  # noqa: SLF001
