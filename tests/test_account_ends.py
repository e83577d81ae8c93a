"""An account that ends at an instant ends there, whatever is remembered and though nothing changes."""

import asyncio
import random
from datetime import UTC, datetime

import pytest

from ldappolicy.directory.ldif import LdifDirectory
from ldappolicy.directory.plan import Planner, Where
from ldappolicy.entry import Entry
from ldappolicy.evaluate import Choices
from ldappolicy.mapping import mapping_for
from ldappolicy.protocol import encode_reply
from ldappolicy.request import Request
from ldappolicy.resolver import HOT_SECONDS, Limits, Resolver
from ldappolicy.service import Service, Settings
from tests.labs.clock import on_virtual_time
from tests.language import AMY, BASE, dn, entry, group, person, policy, table

MAPPING = mapping_for("generic", {"disabled": ("krbPrincipalExpiration", "shadowExpire")})
MIDNIGHT = 1_796_083_200.0  # 2026-12-01, a day as shadowExpire counts
DAY = str(int(MIDNIGHT) // 86_400)
ALL = "all@my.domain"


class Stage:
    """A service in virtual time, `ahead` seconds before midnight; over memory, or asked as any directory."""

    def __init__(self, *entries: Entry, held: bool, ahead: float, items: str) -> None:
        loop = asyncio.get_running_loop()
        root = [Entry(BASE, {"dc": ["example"]}), entry("ou=policy", ou="policy")]
        directory = LdifDirectory([*root, policy(recipient=items), *entries])
        self.wall = MIDNIGHT - ahead
        limits = Limits(ttl=86_400.0, negative_ttl=86_400.0)
        self.resolver = Resolver(
            directory,
            Planner(Where(BASE), MAPPING),
            limits,
            loop.time,
            wall=lambda: self.wall + loop.time(),
        )
        if held:
            self.resolver.use_mirror(directory)
            self.resolver.vouch()
        settings = Settings(BASE, f"ou=policy,{BASE}", MAPPING, Choices(permit_ok=True))
        self.service = Service(self.resolver, settings)

    async def ask(self, **attributes: str) -> str:
        """The reply, by the way of a listener: what is ready, else what is known, else what is fetched."""
        given = {"protocol_state": "RCPT", "client_address": "192.0.2.1", "recipient": ALL, **attributes}
        if given.get("sasl_username"):
            given["sasl_method"] = "PLAIN"
        request = Request.from_attributes(given)
        lines = "".join(f"{name}={value}\n" for name, value in zip(Request._fields, request, strict=True))
        found = self.service.answer(f"request=smtpd_access_policy\n{lines}\n".encode())
        if not isinstance(found, bytes):
            action = await self.service.decide(request)
            assert action is not None
            found = encode_reply(action)
        return found.decode().removeprefix("action=").strip()


LISTED = [group("all", [AMY], mail=ALL, owner=AMY, smtpdModerator=AMY, smtpdAllowedSender="amy")]
LISTS = [
    f"check_sasl_access recipient:{name}, reject" for name in ("members", "owners", "moderators", "allowed")
]
QUESTIONS = [
    ("check_sasl_access directory:nobody", "DUNNO", "REJECT"),
    *((items, "OK", "reject,") for items in LISTS),
    ("reject_sender_login_mismatch", "DUNNO", "553 5.7.1 not owned by user amy"),
    ("check_sasl_access directory:access, reject", "OK", "reject,"),
    ("permit_sasl_authenticated", "OK", "OK"),
]


@pytest.mark.parametrize("held", [True, False], ids=["in memory", "on demand"])
@pytest.mark.parametrize("attribute", [("shadowExpire", DAY), ("krbPrincipalExpiration", "20261201000000Z")])
@pytest.mark.parametrize(("items", "before", "after"), QUESTIONS)
def test_the_instant(items: str, before: str, after: str, attribute: tuple[str, str], *, held: bool) -> None:
    """Asked often enough to be ready-made: right a moment before, at the instant, and from then on."""

    async def story() -> list[str]:
        amy = person("amy", smtpdSenderAccess="OK", **dict([attribute]))
        stage = Stage(amy, *LISTED, held=held, ahead=100.0, items=items)
        await stage.service.reload()
        told = []
        for seconds in (0.0, 0.0, 50.0, 49.0, 0.0, 0.999, 0.001, 0.0, 1.0, 3600.0):
            await asyncio.sleep(seconds)
            told.append(await stage.ask(sasl_username="amy", sender="amy@my.domain"))
        return told

    assert [before] * 6 + [after] * 4 == on_virtual_time(story())


@pytest.mark.parametrize("held", [True, False], ids=["in memory", "on demand"])
def test_others_keep_what_is_remembered(*, held: bool) -> None:
    """An end that is far away costs nothing; it ends what was concluded once, at its instant."""

    async def story() -> None:
        ends = {"amy": DAY, "bob": "99999", "cal": "-1"}
        people = [person(uid, shadowExpire=day) for uid, day in ends.items()]
        stage = Stage(*people, held=held, ahead=100.0, items="check_sasl_access directory:nobody")
        await stage.service.reload()
        seen = set()
        for number in range(40):
            for uid in ends:
                expected = "REJECT" if uid == "amy" and number * 5.0 >= 100.0 else "DUNNO"
                assert expected == await stage.ask(sasl_username=uid, sender=f"{uid}@my.domain"), (
                    uid,
                    number,
                )
            seen.add(id(stage.resolver.facts()))
            kept.append(stage.resolver.current)
            await asyncio.sleep(5.0)
        if held:
            assert 2 == len(seen)  # before it, and since

    kept: list[object] = []  # so that no two have one identity
    on_virtual_time(story())


@pytest.mark.parametrize("held", [True, False], ids=["in memory", "on demand"])
def test_a_clock_that_is_set(*, held: bool) -> None:
    """Ahead or back: what was concluded by the wrong time does not stay for longer than HOT_SECONDS."""

    async def story() -> list[str]:
        amy = person("amy", shadowExpire=DAY)
        stage = Stage(amy, held=held, ahead=1000.0, items="check_sasl_access directory:nobody")
        await stage.service.reload()
        told = []
        for step in (0.0, 2000.0, -4000.0, 3500.0):
            stage.wall += step
            await asyncio.sleep(HOT_SECONDS)
            told += [await stage.ask(sasl_username="amy"), await stage.ask(sasl_username="amy")]
        return told

    assert ["DUNNO"] * 2 + ["REJECT"] * 2 + ["DUNNO"] * 2 + ["REJECT"] * 2 == on_virtual_time(story())


def test_an_end_while_a_request_waits() -> None:
    """What was asked for before it and is decided after it is decided by the time of the decision."""

    async def story() -> str:
        stage = Stage(
            person("amy", shadowExpire=DAY), held=False, ahead=1.0, items="check_sasl_access directory:nobody"
        )
        await stage.service.reload()
        search = stage.resolver.directory.search

        async def slow(*arguments: object) -> object:
            await asyncio.sleep(2.0)
            return await search(*arguments)  # type: ignore[arg-type]

        stage.resolver.directory.search = slow  # type: ignore[method-assign, assignment]
        return await stage.ask(sasl_username="amy")

    assert "REJECT" == on_virtual_time(story())


EVERYTHING = ", ".join(
    (
        "check_sasl_access directory:nobody",
        "check_sasl_access ldap:friends",
        "check_sasl_access recipient:members",
        "reject_authenticated_sender_login_mismatch",
        "check_sasl_access recipient:allowed",
        "reject",
    )
)


def drawn(dice: random.Random) -> list[Entry]:
    """People whose accounts end within a minute, or never, in groups; lists of theirs."""
    names = [f"p{number}" for number in range(6)]
    ends = [datetime.fromtimestamp(MIDNIGHT + dice.randint(-30, 30), UTC) for _ in names]
    people = [
        person(
            name,
            krbPrincipalExpiration=end.strftime("%Y%m%d%H%M%SZ") if dice.random() < 0.7 else [],
            shadowExpire=dice.choice(["-1", DAY, "99999", []]),
            smtpdSendAs=[dn(f"uid={dice.choice(names)},ou=people")] if dice.random() < 0.5 else [],
        )
        for name, end in zip(names, ends, strict=True)
    ]
    some = [[one.dn for one in dice.sample(people, 3)] for _ in range(3)]
    inner = group("inner", some[0])
    everybody = group("all", [inner.dn, *some[1][:1]], mail=ALL, smtpdAllowedSenderDN=some[2])
    return [*people, inner, everybody, table("friends", smtpdAccessMember=some[1][1:])]


@pytest.mark.parametrize("held", [True, False], ids=["in memory", "on demand"])
@pytest.mark.parametrize("seed", range(3))
def test_as_if_nothing_were_remembered(seed: int, *, held: bool) -> None:
    """Whoever asks whenever: a service that has been asked all the time says what a new one says."""

    async def story() -> None:
        dice = random.Random(seed)
        entries = drawn(dice)
        stage = Stage(*entries, held=held, ahead=30.0, items=EVERYTHING)
        await stage.service.reload()
        seen = set()
        for _ in range(150):
            await asyncio.sleep(dice.choice((0.0, 0.1, 0.3, 0.5, 1.0)))
            one, other = dice.randrange(6), dice.randrange(2)
            asked = {"sasl_username": f"p{one}", "sender": f"p{other}@my.domain"}
            fresh = Stage(*entries, held=held, ahead=30.0, items=EVERYTHING)
            await fresh.service.reload()
            expected = await fresh.ask(**asked)
            assert expected == await stage.ask(**asked)
            assert expected == await stage.ask(**asked)
            seen.add(expected)
        assert len(seen) > 1

    on_virtual_time(story())
