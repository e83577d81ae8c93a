"""Lists that mix what is decided here with what is left to Postfix, and every answer that the DNS can give.

Each case is a policy, with the reply that one call gets (`sent`). Whatever the DNS answers to the
restrictions that it leaves to Postfix, Postfix evaluates that reply to the verdict that it comes to by
itself. The number before the colon is the rule: 1 items stay in order; 2 a built-in that refuses is handed
back by its name; 3 a text behind what can only refuse; 4 a text behind what can permit; 5 a list that
certainly refuses; 6 several lists.

A world is one answer for each restriction that asks. `make test` has worlds enough for every two answers to
meet (`covering`), `make test-all` the rest of the product, too.
"""

import itertools
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conformance.answering import CLIENT, HELO, RECIPIENT, Answering, sent, session
from tests.conformance.covering import all_pairs, pairs
from tests.conformance.pairs import Pair, Table
from tests.conformance.runner import Difference, Outcome, Step
from tests.labs.postfix import require_postfix
from tests.language import acting

U = "reject_unknown_sender_domain"
C = "reject_unknown_client_hostname"
B = "reject_rbl_client deny.example"
S = "reject_rhsbl_sender names.deny.example"
W = "permit_dnswl_client allow.example"
V = "permit_rhswl_client names.allow.example"
M = "permit_mx_backup"
J = "permit_inet_interfaces"
N = "permit_mynetworks"

SENDER, SECOND = "a@asked.example", "u@second.example"
ADDRESS, BACKUP = ["127.0.0.2"], ["10 mx.backup.example", "20 mx.test.example"]


@dataclass(frozen=True)
class World:
    """An answer: records, domains that fail for now, who the client is, where it comes from, main.cf."""

    records: Mapping[tuple[str, str], list[str]] = field(default_factory=dict)
    servfail: frozenset[str] = frozenset()
    client: Mapping[str, str] = field(default_factory=dict)
    main: Mapping[str, str] = field(default_factory=dict)
    source: str = ""

    def __add__(self, other: "World") -> "World":
        return World(
            {**self.records, **other.records},
            self.servfail | other.servfail,
            {**self.client, **other.client},
            {**self.main, **other.main},
            self.source or other.source,
        )


NOTHING = World()


def listed(zone: str, *names: str) -> dict[str, World]:
    """What a list in the DNS can answer."""
    return {
        "listed": World({(f"{name}.{zone}", "A"): ADDRESS for name in names}),
        "not listed": NOTHING,
        "SERVFAIL": World(servfail=frozenset({zone})),
    }


ANSWERS = {
    U: {
        "known": World({("asked.example", "A"): ADDRESS}),
        "unknown": NOTHING,
        "unknown for good": World(main={"unknown_address_reject_code": "550"}),
        "SERVFAIL": World(servfail=frozenset({"asked.example"})),
    },
    C: {
        "named": NOTHING,
        "nameless": World(client={"name": "[UNAVAILABLE]"}),
        "nameless for good": World(
            client={"name": "[UNAVAILABLE]"}, main={"unknown_client_reject_code": "550"}
        ),
        "SERVFAIL": World(client={"name": "[TEMPUNAVAIL]"}),
    },
    B: listed("deny.example", "9.113.0.203", "3.2.1.10"),
    S: listed("names.deny.example", "asked.example"),
    W: listed("allow.example", "9.113.0.203", "3.2.1.10"),
    V: listed("names.allow.example", "mail.outside.example"),
    J: {"ours": NOTHING, "not ours": World(source="127.0.0.2")},
    N: {"inside": World(client={"addr": "10.1.2.3"}), "outside": NOTHING},
    M: {
        "backup": World({("second.example", "MX"): BACKUP}),
        "not backup": World({("second.example", "MX"): BACKUP[:1]}),
        "SERVFAIL": World(servfail=frozenset({"second.example"})),
    },
}


@dataclass(frozen=True)
class Case:
    """A list (or several), and what is sent; `apart` are the differences that some answer leads to."""

    id: str
    lists: str | dict[str, str]
    sent: str
    apart: tuple[Difference, ...] = ()
    sender: str = SENDER
    recipient: str = RECIPIENT
    helo: str = HELO
    login: str = ""
    data: bool = False
    knows: bool = True

    @property
    def by_name(self) -> dict[str, str]:
        """The lists by name."""
        return {"recipient": self.lists} if isinstance(self.lists, str) else self.lists

    @property
    def asked(self) -> list[dict[str, World]]:
        """What each restriction in it that asks can be answered, by name."""
        text = re.sub(r"\bc\b", CLASS, " ".join(self.by_name.values()))
        return [
            answers for name, answers in ANSWERS.items() if name in text and (name != N or not self.knows)
        ]

    def worlds(self) -> list[tuple[str, ...]]:
        """Every combination of answers to what occurs in it."""
        return list(itertools.product(*self.asked))

    def covering(self) -> list[tuple[str, ...]]:
        """So many of them that every two answers meet."""
        return all_pairs([list(answers) for answers in self.asked])

    def world(self, names: tuple[str, ...]) -> World:
        """The answers of these names together."""
        found = (answers[name] for answers, name in zip(self.asked, names, strict=True))
        return sum(found, NOTHING)

    def pair(self, world: World) -> Pair:
        """As data for the runner."""
        client = {**CLIENT, **world.client}
        said = session(
            self.sender, self.recipient, client=client, helo=self.helo, login=self.login, data=self.data
        )
        tables = {"insiders": Table("hash", (("inside.example", "OK"),))}
        return Pair(self.by_name, {"c": CLASS}, tables, {}, said, knows_networks=self.knows)


CLASS = f"{U}, {B}"


NO, LATER = acting("550 5.7.9 no"), acting("450 4.7.9 later")
TEXT, PLACES, CANNOT_SAY = Difference.TEXT, Difference.PLACES, Difference.CANNOT_SAY
ERROR = "451 4.3.5 Server configuration error"
NODOT = "x@nodot"

CASES = (
    # 1: items stay in order
    Case("1: an insider", f"{B}, check_sender_access %insiders%, reject", B, sender="a@inside.example"),
    Case("1: an outsider", f"{B}, check_sender_access %insiders%, reject", f"{B}, reject"),
    Case("1: order", f"{U}, {W}, {B}, reject", f"{U}, {W}, {B}, reject"),
    Case("1: a permit at the end is dropped", f"{U}, {W}", f"{U},"),
    Case("1: several permits at the end", f"{U}, {W}, {V}, permit", f"{U},"),
    Case("1: a permit first", f"{W}, {U}", f"{W}, {U}"),
    Case("1: a permit alone", W, "DUNNO"),
    Case("1: a permit before permit", f"{W}, permit, reject", "DUNNO"),
    Case("1: refusals alone", f"{C}, {U}", f"{C}, {U}"),
    Case("1: before permit", f"{B}, permit", B),
    Case("1: behind what does not permit", f"permit_sasl_authenticated, {B}, {U}", f"{B}, {U}"),
    Case("1: behind what permits", f"permit_sasl_authenticated, {B}, {U}", "DUNNO", login="amy"),
    Case("1: around what is known", f"{C}, permit_mynetworks, {B}, reject", f"{C}, {B}, reject"),
    Case("1: defer_if_permit", f"{U}, defer_if_permit, {B}", f"{U}, defer_if_permit, {B}"),
    Case("1: defer_if_permit behind a permit", f"{W}, defer_if_permit, permit", f"{W}, defer_if_permit"),
    Case("1: defer_if_reject", f"{U}, defer_if_reject, {B}", f"{U}, defer_if_reject, {B}"),
    Case(
        "1: both flags",
        f"defer_if_reject, {U}, defer_if_permit, reject",
        f"defer_if_reject, {U}, defer_if_permit",
    ),
    Case("1: warn_if_reject", f"warn_if_reject {U}, {B}", f"warn_if_reject {U}, {B}"),
    Case(
        "1: warn_if_reject of a class",
        "warn_if_reject c, reject",
        f"warn_if_reject {U}, warn_if_reject {B}, reject",
    ),
    Case(
        "1: warn_if_reject of a permit",
        f"warn_if_reject {W}, {B}, reject",
        f"warn_if_reject {W}, {B}, reject",
    ),
    Case("1: a class", f"c, {S}", f"{U}, {B}, {S}"),
    Case("1: a backup", f"{M}, {B}, reject", f"{M}, {B}, reject", recipient=SECOND),
    Case("1: at DATA", {"data": f"{B}, {U}"}, f"{B}, {U}", data=True),
    # 2: a built-in that refuses
    Case(
        "2: behind a refusal",
        f"{U}, reject_non_fqdn_recipient",
        f"{U}, reject_non_fqdn_recipient, reject",
        recipient=NODOT,
    ),
    Case("2: behind a permit", f"{W}, reject_plaintext_session", f"{W}, reject_plaintext_session, defer"),
    Case(
        "2: of the recipient",
        f"{B}, reject_unauth_destination",
        f"{B}, reject_unauth_destination, reject",
        recipient=SECOND,
    ),
    Case(
        "2: for a while",
        f"{B}, defer_unauth_destination",
        f"{B}, defer_unauth_destination, defer",
        recipient=SECOND,
    ),
    Case(
        "2: behind both",
        f"{W}, {B}, reject_unauth_destination",
        f"{W}, {B}, reject_unauth_destination, reject",
        recipient=SECOND,
    ),
    Case(
        "2: behind a backup",
        f"{M}, reject_unauth_destination, {U}",
        f"{M}, reject_unauth_destination, reject",
        recipient=SECOND,
    ),
    Case(
        "2: of HELO",
        f"{U}, reject_non_fqdn_helo_hostname, {B}",
        f"{U}, reject_non_fqdn_helo_hostname, reject",
        helo="nodot",
    ),
    Case(
        "2: a login mismatch is a text",
        f"{B}, reject_sender_login_mismatch",
        "553 5.7.1 not owned by user bob",
        (TEXT,),
        login="bob",
    ),
    # 3: a text behind what can only refuse
    Case("3: REJECT behind what is always permanent", f"{B}, {acting('REJECT no')}", "REJECT no", (TEXT,)),
    Case("3: behind two of those", f"{B}, {S}, {NO}", "550 5.7.9 no", (TEXT,)),
    Case("3: behind what only warns", f"warn_if_reject {U}, {NO}", "550 5.7.9 no"),
    Case("3: behind what may be temporary", f"{U}, {NO}", f"{U}, reject", (TEXT,)),
    Case("3: behind a nameless client", f"{C}, {NO}", f"{C}, reject", (TEXT,)),
    Case("3: behind both", f"{B}, {U}, {NO}", f"{B}, {U}, reject", (TEXT,)),
    Case("3: a temporary one", f"{U}, {LATER}", "450 4.7.9 later", (TEXT,)),
    Case("3: DEFER", f"{B}, {acting('DEFER later')}", "DEFER later", (TEXT,)),
    Case("3: a bare REJECT", f"{U}, {acting('REJECT')}", f"{U}, reject"),
    Case("3: an error", f"{U}, nosuch", ERROR, (TEXT,)),
    # 4: a text behind what can permit
    Case("4: REJECT", f"{W}, {acting('REJECT no')}", f"{W}, reject", (TEXT,)),
    Case("4: a permanent one", f"{W}, {NO}", f"{W}, reject", (TEXT,)),
    Case("4: a temporary one", f"{W}, {LATER}", f"{W}, defer", (TEXT,)),
    Case("4: an error", f"{W}, nosuch", f"{W}, defer", (TEXT,)),
    Case("4: behind a refusal as well", f"{W}, {B}, {NO}", f"{W}, {B}, reject", (TEXT,)),
    Case("4: of names", f"{V}, {U}, {acting('REJECT no')}", f"{V}, {U}, reject", (TEXT,)),
    Case("4: behind a backup", f"{M}, {NO}", f"{M}, reject", (TEXT,), recipient=SECOND),
    Case("4: with warn_if_reject", f"warn_if_reject {W}, {NO}", f"warn_if_reject {W}, reject", (TEXT,)),
    Case("4: DEFER_IF_PERMIT", f"{acting('DEFER_IF_PERMIT wait')}, {U}", f"defer_if_permit, {U}", (TEXT,)),
    Case("4: a bare DEFER_IF_REJECT", f"{acting('DEFER_IF_REJECT')}, reject", "DEFER Service unavailable"),
    Case("4: DEFER_IF_REJECT", f"{acting('DEFER_IF_REJECT wait')}, {U}", f"defer_if_reject, {U}", (TEXT,)),
    Case(
        "4: DEFER_IF_PERMIT behind a permit",
        f"{W}, {acting('DEFER_IF_PERMIT wait')}",
        f"{W}, defer_if_permit",
        (TEXT,),
    ),
    Case("4: behind what the DNS has no part in", f"{J}, {NO}", f"{J}, reject", (TEXT,)),
    # 5: a list that certainly refuses
    Case("5: the permit goes", {"client": W, "recipient": "reject"}, "reject,"),
    Case(
        "5: the refusal stays",
        {"client": f"{W}, {U}", "recipient": "reject"},
        f"defer_if_reject, {U}, reject",
        (TEXT,),
    ),
    Case(
        "5: a temporary refusal alone",
        {"client": f"{W}, {U}", "recipient": LATER},
        "450 4.7.9 later",
        (TEXT,),
    ),
    Case("5: one behind the permit", {"client": f"{W}, defer", "recipient": "reject"}, "defer,", (TEXT,)),
    Case("5: a later one", {"client": f"{W}, reject", "recipient": "defer"}, "defer,", (TEXT,)),
    Case(
        "5: ends at the first refusal",
        {"client": f"{W}, reject", "recipient": NO},
        "defer_if_reject, reject",
        (TEXT,),
    ),
    Case("5: with its text", {"client": W, "recipient": NO}, "550 5.7.9 no"),
    Case(
        "5: behind what is always permanent",
        {"client": f"{W}, {B}", "recipient": NO},
        f"defer_if_reject, {B}, reject",
        (TEXT,),
    ),
    Case(
        "5: behind what may be temporary",
        {"client": f"{W}, {U}", "recipient": NO},
        f"defer_if_reject, {U}, reject",
        (TEXT,),
    ),
    Case("5: two permits", {"client": W, "sender": V, "recipient": "reject"}, "reject,"),
    Case("5: with HOLD", {"client": f"{acting('HOLD')}, {W}", "recipient": "reject"}, "reject,"),
    Case(
        "5: HOLD beside a refusal",
        {"client": f"{acting('HOLD')}, {U}", "recipient": "reject"},
        f"{U}, reject",
        (CANNOT_SAY,),
    ),
    Case("5: without a permit", {"client": U, "recipient": "reject"}, f"{U}, reject"),
    Case("5: relay", {"relay": f"{W}, {U}", "recipient": "reject"}, f"defer_if_reject, {U}, reject", (TEXT,)),
    Case("5: refused before", {"client": "reject", "recipient": U}, "reject,"),
    Case("5: permanent refusals alone", {"client": f"{J}, {B}", "recipient": NO}, "550 5.7.9 no", (TEXT,)),
    Case("5: what may be temporary", {"client": f"{J}, {U}", "recipient": "reject"}, f"{U}, reject", (TEXT,)),
    Case("5: the first one", {"client": f"{J}, reject", "recipient": NO}, "reject,", (TEXT,)),
    # 6: several lists
    Case("6: without a permit", {"client": C, "sender": U, "recipient": B}, f"{C}, {U}, {B}"),
    Case(
        "6: the one with the permit goes last",
        {"client": f"{W}, {U}", "recipient": B},
        f"defer_if_reject, {B}, {W}, {U}",
        (TEXT,),
    ),
    Case("6: it is last", {"client": U, "recipient": f"{W}, reject"}, f"{U}, {W}, reject"),
    Case("6: one head", {"client": f"{W}, {U}", "recipient": f"{W}, {B}"}, f"{W}, {U}, {B}"),
    Case(
        "6: one head of three",
        {"client": f"{W}, {U}", "relay": f"{W}, {B}", "recipient": f"{W}, reject"},
        f"{W}, {U}, {B}, defer_if_reject, reject",
        (TEXT,),
    ),
    Case(
        "6: a longer head", {"client": f"{W}, {V}, {U}", "recipient": f"{W}, {V}, {B}"}, f"{W}, {V}, {U}, {B}"
    ),
    Case(
        "6: a head and others",
        {"client": f"{W}, {U}", "sender": S, "recipient": f"{W}, {B}"},
        f"defer_if_reject, {S}, {W}, {U}, {B}",
        (TEXT,),
    ),
    Case("6: a permit at the end is none", {"client": W, "recipient": f"{W}, {U}"}, f"{W}, {U}"),
    Case("6: nor is another one", {"client": V, "recipient": f"{W}, {U}"}, f"{W}, {U}"),
    Case("6: what is known ends its own list", {"client": f"{U}, permit", "recipient": B}, f"{U}, {B}"),
    Case(
        "6: a deferral first",
        {"client": "defer_if_permit", "recipient": f"{W}, {U}"},
        f"defer_if_permit, {W}, {U}",
    ),
    Case(
        "6: refusals of one answer",
        {"client": f"{W}, {B}", "recipient": f"{B}, reject_plaintext_session"},
        "reject_plaintext_session, defer",
        (TEXT,),
    ),
    Case(
        "6: relay and recipient",
        {"relay": f"{M}, reject_unauth_destination", "recipient": B},
        f"defer_if_reject, {B}, {M}, defer_if_reject, reject_unauth_destination, reject",
        (TEXT,),
        recipient=SECOND,
    ),
    # The one exception: what U refuses for a while may be refused for good by B, which has its place.
    Case("6: places change", {"client": f"{J}, {U}", "recipient": B}, f"{B}, {J}, {U}", (TEXT, PLACES)),
    Case(
        "6: permit_mynetworks heads two lists",
        {"client": f"{N}, {U}", "recipient": f"{N}, {B}, reject_unauth_destination"},
        f"{N}, {U}, {B}, reject_unauth_destination, reject",
        recipient=SECOND,
        knows=False,
    ),
    Case(
        "6: and the relay list",
        {
            "relay": f"{N}, permit_sasl_authenticated, reject_unauth_destination",
            "recipient": f"{N}, {C}, {U}",
        },
        f"{N}, {C}, {U}",
        knows=False,
    ),
)


@pytest.fixture(scope="module")
def runner() -> Iterator[Answering]:
    """One Postfix for all."""
    require_postfix()
    with Answering() as running:
        yield running


def last(runner: Answering, service: str) -> Step:
    """The last step of that service's session."""
    return runner.runs[service].steps[-1]


def run(runner: Answering, case: Case, world: World) -> tuple[Outcome, str, str]:
    """Says it everywhere while that is so: what came of it, Postfix's own reply, and that to ours."""
    runner.answer(world.records, world.servfail)
    runner.source = world.source or "127.0.0.1"
    runner.say(**world.main)
    outcome = runner.run(case.pair(world))
    return outcome, last(runner, "native").reply, last(runner, "once").reply


def mixed(runner: Answering, case: Case, worlds: Collection[tuple[str, ...]]) -> set[Difference]:
    """The same verdict in all of them, and what was expected is sent; why code or text was given up."""
    found, apart = set(), set()
    # A main.cf is put in force once.
    for world in sorted(map(case.world, worlds), key=lambda world: sorted(world.main.items())):
        outcome, native, once = run(runner, case, world)
        assert [] == outcome.differs, world
        assert (native[0] == "2") == (once[0] == "2"), world
        assert last(runner, "each").reply[0] in native[0] + "4", world
        found.add(sent(last(runner, "once")))
        apart |= {why for why, _ in outcome.apart}
    assert {case.sent} == found
    return apart


@pytest.mark.servers
@pytest.mark.parametrize("case", CASES, ids=[case.id for case in CASES])
def test_mixed(runner: Answering, case: Case) -> None:
    """Whatever the DNS answers: the same verdict; code and text too, where none had to be given up."""
    assert set(case.apart) == mixed(runner, case, case.covering())


MANY = [case for case in CASES if len(case.covering()) < len(case.worlds())]


@pytest.mark.long
@pytest.mark.parametrize("case", MANY, ids=[case.id for case in MANY])
def test_mixed_elsewhere(runner: Answering, case: Case) -> None:
    """Nor is it otherwise in the worlds that are left out there."""
    others = [world for world in case.worlds() if world not in case.covering()]
    assert set(case.apart) >= mixed(runner, case, others)


def test_every_two_answers_meet() -> None:
    """The worlds of `make test` have every pair that the product has, in a third of its worlds at most."""
    for case in MANY:
        covered = {pair for world in case.covering() for pair in pairs(world)}
        assert covered == {pair for world in case.worlds() for pair in pairs(world)}, case.id
        assert len(case.covering()) * 2 <= len(case.worlds()), case.id
    assert {12, 16} == {len(case.covering()) for case in MANY}


KNOWN = (
    *("permit", "reject", "defer", "defer_if_permit", "defer_if_reject", "c", acting("c"), acting("reject,")),
    *("reject_plaintext_session", "reject_unauth_destination", "reject_non_fqdn_helo_hostname"),
    *("permit_sasl_authenticated", "permit_auth_destination", "reject_sender_login_mismatch"),
    *("check_sender_access %insiders%", acting("OK"), acting("REJECT no"), NO, LATER),
    *(acting("DEFER_IF_PERMIT wait"), acting("DEFER_IF_REJECT wait")),
)
ITEMS = st.builds(
    "{}{}".format,
    st.sampled_from(("", "", "", "", "", "warn_if_reject ")),
    st.sampled_from((U, C, B, S, W, V, M, J)) | st.sampled_from(KNOWN),
)
TEXTS = st.lists(ITEMS, min_size=1, max_size=4).map(", ".join)
NAMES = ("client", "helo", "sender", "relay", "recipient")


@st.composite
def drawn(draw: st.DrawFn) -> Case:
    """One to three lists of everything that stands in the table."""
    chosen = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=3, unique=True))
    lists = {name: draw(TEXTS) for name in NAMES if name in chosen}
    who = st.sampled_from((RECIPIENT, SECOND))
    return Case("", lists, "", recipient=draw(who), login=draw(st.sampled_from(("", "bob"))))


@pytest.mark.servers
@settings(max_examples=30, suppress_health_check=list(HealthCheck))
@given(case=drawn(), which=st.integers(0, 1000))
def test_drawn(runner: Answering, case: Case, which: int) -> None:
    """Lists that nobody thought of; what one reply cannot say is refused for a while."""
    worlds = case.worlds()
    for name in (worlds[which % len(worlds)], worlds[which // 7 % len(worlds)]):
        outcome, native, once = run(runner, case, case.world(name))
        whys = {why for why, _ in outcome.apart}
        assert [] == outcome.differs, name
        assert (native[0], once[0]) != ("4", "5") or PLACES in whys, name
        assert native[0] == once[0] or once[0] in "45", name


def test_the_table() -> None:
    """There are at least 52 lists, no two alike, for each of the rules."""
    assert (
        len({(str(case.lists), case.sender, case.recipient, case.login) for case in CASES})
        == len(CASES)
        >= 52
    )
    assert set("123456") == {case.id[0] for case in CASES}
