"""What asking a directory costs, and how soon its changes count: `python -m tests.bench directory`.

Prints one table, over a generated company (`tests.bench.company`) in a private slapd: searches for each kind
of cold decision; searches when distinct senders arrive at many connections; the time from a modify to the
first changed decision, for each family of servers and way of watching; cold decisions/s beside a plain
loop over ldap3's Connection; the mirror's load time and memory; the memory of cached entries; the same
decision in companies of different size. `--quick` is the same with small numbers; `--only` picks rows.

Rates are those of this machine in this run: compare them with one another only. What `serve` is asked comes
from one process beside it, which takes a core of its own. A row for what is not built yet says so.
"""

import argparse
import asyncio
import gc
import itertools
import multiprocessing
import random
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import ldap3
import uvloop

from ldappolicy.directory.ldap import LdapDirectory
from ldappolicy.errors import LdapPolicyError
from ldappolicy.ldap_filter import And, Equality, Filter, Or, to_text
from ldappolicy.request import Request
from ldappolicy.service import Service
from tests.bench.company import ELSEWHERE, LIST_SIZE, PARTNER, PERMITTED, REJECTED, Company, Question
from tests.labs.deciding import deciding, rcpt
from tests.labs.ds389 import DS389
from tests.labs.ldappolicy import Ldappolicy, Sections, Value, merged, program
from tests.labs.samba import Samba
from tests.labs.server import Server, are_installed
from tests.labs.slapd import SUFFIX, Slapd

NOT_YET = "not yet"
ON_DEMAND: Sections = {
    "directory": {"profile": "openldap", "watch": "off"},
    "cache": {"mode": "on_demand"},
    "log": {"decisions": "none"},
}
POLL_INTERVAL = 1.0
LIMIT = 20.0
"""Seconds after which a change that does not show counts as not seen; a server may well stall for five."""

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much of everything."""

    company: Company
    arrivals: int
    connections: int
    changes: int
    plain: int
    cached: int
    ldif: tuple[int, int]


FULL = Sizes(Company(100_000, 1_000, 50_000), 10_000, 200, 20, 1_000, 100_000, (10_000, 1_000_000))
QUICK = Sizes(Company(5_000, 100, 2_500), 1_000, 200, 5, 200, 4_000, (1_000, 10_000))


def row(what: str, *values: str) -> None:
    """One line of the table."""
    print(f"{what:<62} {'  '.join(f'{value:>16}' for value in values)}".rstrip(), flush=True)


def heading(what: str, *columns: str) -> None:
    """The first line of some rows."""
    print(flush=True)
    row(what.upper(), *columns)


def run(work: Coroutine[Any, Any, _T]) -> _T:
    """In the event loop that `serve` has."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)


def said(action: str | None) -> str:
    """An action as the company's answers have it: a class that ends in reject says the item `reject,`."""
    return (action or "").rstrip(",").lower()


def request(question: Question) -> Request:
    """As the service takes it in this process."""
    return rcpt(sender=question.sender, recipient=question.recipient)


def searches(service: Service) -> int:
    """How many searches a service has asked its directory for, whatever for."""
    directory = service.resolver.directory
    assert isinstance(directory, LdapDirectory)
    return directory.searches


def memory(pid: int | str) -> int:
    """Bytes of main memory that a process has."""
    gc.collect()
    lines = Path(f"/proc/{pid}/status").read_text("ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))


def apart(function: Callable[..., _T], *arguments: object) -> _T:
    """The result of a function in a process of its own: nobody else's memory is in the way."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


# ------------------------------------------------------------ searches for each kind of cold decision


def cold_searches(title: str, uri: str, company: Company, sections: Sections) -> None:
    """With empty caches; then of another sender in the same groups; then the same once more."""
    heading(f"searches on demand, {title}", "nothing known", "groups known", "the same again")

    async def measure() -> None:
        for question in company.questions():
            twin = replace(question, sender=question.twin)
            async with deciding(uri, sections) as service:
                row(question.what, *[await searches_for(service, one) for one in (question, twin, twin)])

    run(measure())


async def searches_for(service: Service, question: Question) -> str:
    """How many, and whether the answer was right."""
    before = searches(service)
    action = said(await service.decide(request(question)))
    count = searches(service) - before
    return f"{count}" if action == question.answer else f"{count} WRONG: {action}"


# ------------------------------------------------------------ many distinct senders at many connections


class Client:
    """One connection to a policy socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def ask(self, question: Question) -> str:
        """The action, as the company's answers have it."""
        head = "request=smtpd_access_policy\nprotocol_state=RCPT\nprotocol_name=ESMTP\n"
        client = "client_address=203.0.113.9\nclient_name=unknown\n"
        text = f"{head}{client}sender={question.sender}\nrecipient={question.recipient}\n\n"
        self._writer.write(text.encode())
        reply = await self._reader.readuntil(b"\n\n")
        return said(reply.decode().strip().removeprefix("action="))

    async def close(self) -> None:
        """Hang up."""
        self._writer.close()
        await self._writer.wait_closed()


@asynccontextmanager
async def clients(service: Ldappolicy, count: int) -> AsyncIterator[list[Client]]:
    """Connections to a served policy."""
    path = service.unix.removeprefix("unix:")
    connected = [Client(*await asyncio.open_unix_connection(path)) for _ in range(count)]
    try:
        yield connected
    finally:
        for client in connected:
            await client.close()


async def arrive(connected: Sequence[Client], questions: Sequence[Question]) -> int:
    """Each connection takes the next question as soon as it has its answer; how many were wrong."""
    left = iter(questions)

    async def work(client: Client) -> int:
        return sum([await client.ask(question) != question.answer for question in left])

    return sum(await asyncio.gather(*map(work, connected)))


@dataclass(frozen=True, slots=True)
class Lap:
    """The arrivals once."""

    searches: int
    seconds: float
    wrong: int


async def arrivals(service: Ldappolicy, slapd: Slapd, sizes: Sizes) -> list[Lap]:
    """All of them over the policy socket; then once more, when everything is known."""
    questions, laps = sizes.company.arrivals(sizes.arrivals), []
    async with clients(service, sizes.connections) as connected:
        for _ in range(2):
            before, began = slapd.searches(), time.perf_counter()
            wrong = await arrive(connected, questions)
            seconds = time.perf_counter() - began
            laps.append(Lap(slapd.searches() - before, seconds, wrong))
    return laps


def show_arrivals(count: int, *laps: Lap) -> None:
    """The figures of each lap."""
    row("searches", *(f"{lap.searches:,}" for lap in laps))
    row("searches a decision", *(f"{lap.searches / count:.3f}" for lap in laps))
    row("decisions/s", *(f"{count / lap.seconds:,.0f}" for lap in laps))
    row("wrong answers", *(str(lap.wrong) for lap in laps))


def distinct_senders(slapd: Slapd, sizes: Sizes) -> None:
    """On demand, against `serve`."""
    title = f"{sizes.arrivals:,} distinct senders, {sizes.connections} connections, serve"
    heading(title, "first", "again")
    with Ldappolicy(merged(ON_DEMAND, {"directory": {"uri": [slapd.uri]}}), command=[program()]) as service:
        show_arrivals(sizes.arrivals, *run(arrivals(service, slapd, sizes)))


# ------------------------------------------------------------ from a modify to the first changed decision


@dataclass(frozen=True, slots=True)
class Family:
    """A family of servers, and the ways of watching that it has."""

    name: str
    profile: str
    programs: tuple[str, ...]
    start: Callable[[str], Slapd | Server]
    kinds: tuple[str, ...]


def start_slapd(data: str) -> Slapd:
    """With changes streamed."""
    return Slapd(overlays=("syncprov",), schema="ldappolicy", data=data)


def start_ds389(data: str) -> DS389:
    """With content synchronization."""
    return DS389(schema="ldappolicy", content_sync=True)


def start_samba(data: str) -> Samba:
    """With our schema."""
    return Samba(schema="ldappolicy")


FAMILIES = (
    Family("slapd", "openldap", ("slapd",), start_slapd, ("syncrepl", "poll")),
    Family("389-ds", "389ds", ("ns-slapd",), start_ds389, ("syncrepl", "persistent_search", "poll")),
    Family("Samba", "active_directory", ("samba", "unshare"), start_samba, ("dirsync", "poll")),
)
STAFF = 60
"""Users of the company that changes are made in."""


@dataclass(frozen=True, slots=True)
class Toggle:
    """A value that comes and goes, and the question whose answer goes with it."""

    what: str
    dn: str
    name: str
    value: str
    question: Question


def toggles(company: Company) -> list[Toggle]:
    """An attribute of a user, a member of a group, a line of a table that the policies use."""
    outsider, someone = company.outsider, company.address("user0")
    table = f"cn=local_domains,ou=policy,{SUFFIX}"
    joins = Question("", company.address(f"user{outsider}"), company.address("list0"), REJECTED)
    return [
        Toggle(
            "user",
            company.user_dn(0),
            "smtpdSenderAccess",
            "local_only",
            Question("", someone, ELSEWHERE, PERMITTED),
        ),
        Toggle("member", company.group_dn("list0"), "member", company.user_dn(outsider), joins),
        Toggle(
            "policy",
            table,
            "smtpdAccess",
            f"{PARTNER} OK",
            Question("", company.address("user1"), f"someone@{PARTNER}", REJECTED),
        ),
    ]


class Hand:
    """Who changes the directory."""

    def __init__(self, server: Slapd | Server) -> None:
        where = ldap3.Server(server.uri, get_info=ldap3.NONE)
        self._connection: Any = ldap3.Connection(where, server.root_dn, server.root_pw, auto_bind=True)

    def modify(self, toggle: Toggle, operation: str) -> None:
        """Adds or deletes the value."""
        done = self._connection.modify(toggle.dn, {toggle.name: [(operation, [toggle.value])]})
        if not done:
            raise SystemExit(f"{toggle.dn}: {self._connection.result}")

    def close(self) -> None:
        """Hang up."""
        self._connection.unbind()


async def effect(client: Client, hand: Hand, toggle: Toggle, operation: str) -> float:
    """Seconds from the sending of a modify to the first other answer; infinite past the limit."""
    before = await client.ask(toggle.question)
    began, seen = time.perf_counter(), float("inf")
    changing = asyncio.create_task(asyncio.to_thread(hand.modify, toggle, operation))
    while seen > LIMIT and time.perf_counter() - began < LIMIT:
        if await client.ask(toggle.question) != before:
            seen = time.perf_counter() - began
        else:
            await asyncio.sleep(0.0003)
    await changing
    return seen


async def effects(service: Ldappolicy, hand: Hand, toggle: Toggle, changes: int, kind: str) -> list[float]:
    """The value comes and goes in turn, at any moment of an interval; the first not seen is the last."""
    seen: list[float] = []
    async with clients(service, 1) as [client]:
        if (action := await client.ask(toggle.question)) != toggle.question.answer:
            raise NotYet(f"expected {toggle.question}, got {action!r}")
        operations = itertools.cycle((ldap3.MODIFY_ADD, ldap3.MODIFY_DELETE))
        while len(seen) < changes and float("inf") not in seen:
            await asyncio.sleep(random.random() * (POLL_INTERVAL if kind == "poll" else 0.05))
            seen.append(await effect(client, hand, toggle, next(operations)))
        if len(seen) % 2:
            hand.modify(toggle, ldap3.MODIFY_DELETE)
    return seen


def spread(seconds: Sequence[float]) -> str:
    """Median and maximum in milliseconds."""
    if max(seconds) == float("inf"):
        return f"not in {LIMIT:.0f} s"
    return f"{statistics.median(seconds) * 1000:.1f} / {max(seconds) * 1000:.1f}"


def time_to_effect(sizes: Sizes) -> None:
    """For each family, way of watching and kind of change; with and without a mirror."""
    title = f"from a modify to its effect, ms: median / maximum of {sizes.changes}"
    heading(title, *(toggle.what for toggle in toggles(Company(STAFF, 2, STAFF // 2))))
    for site in sites(FAMILIES):
        for kind, mode in itertools.product(site.family.kinds, ("on_demand", "mirror")):
            if (kind, mode) != ("poll", "mirror"):
                watched(site, kind, mode, sizes.changes)


def small_searches() -> None:
    """The searches of the families that the large company is not loaded into."""
    for site in sites(FAMILIES[1:]):
        try:
            cold_searches(site.family.name, site.server.uri, site.company, merged(ON_DEMAND, site.sections))
        except LdapPolicyError as reason:
            row(site.family.name, f"{NOT_YET}: {str(reason)[:150]}")


@dataclass(frozen=True, slots=True)
class Site:
    """A running server with a small company, and what a service has to be told of it."""

    family: Family
    server: Slapd | Server
    company: Company
    sections: Sections


def sites(families: Sequence[Family]) -> Iterator[Site]:
    """One after the other; what is not installed is told."""
    for family in families:
        if not are_installed(*family.programs):
            row(family.name, f"no {family.programs[0]} here")
            continue
        company = Company(STAFF, 2, STAFF // 2, profile=family.profile)
        data = "".join(company.ldif())
        with family.start(data) as server, tempfile.TemporaryDirectory() as folder:
            if isinstance(server, Server):
                server.load(data)
            yield Site(family, server, company, sections(server, company, Path(folder) / "password"))


def sections(server: Slapd | Server, company: Company, password: Path) -> Sections:
    """Whoever reads Active Directory, or asks 389-ds for its changes, has to bind."""
    how: dict[str, Value] = {"uri": [server.uri], "profile": company.profile}
    if isinstance(server, Server):
        password.write_text(server.root_pw)
        how |= {"bind": "simple", "bind_dn": server.root_dn, "bind_pw_file": str(password)}
    return {"directory": how}


def watched(site: Site, kind: str, mode: str, changes: int) -> None:
    """One row."""
    name = f"{site.family.name}, {kind}, {mode}"
    how: Sections = {
        "directory": {"watch": kind, "poll_interval": f"{POLL_INTERVAL:.0f}s"},
        "cache": {"mode": mode},
    }
    hand = Hand(site.server)
    try:
        with serving(merged(ON_DEMAND, site.sections, how), kind, mode) as service:
            seen = (run(effects(service, hand, toggle, changes, kind)) for toggle in toggles(site.company))
            row(name, *map(spread, seen))
    except NotYet as reason:
        row(name, f"{NOT_YET}: {reason}")
    finally:
        hand.close()


class NotYet(Exception):
    """What is asked for cannot be served."""


@contextmanager
def serving(sections: Sections, kind: str, mode: str) -> Iterator[Ldappolicy]:
    """A service that watches as it should, and has its mirror."""
    service = Ldappolicy(sections, command=[program()])
    try:
        service.start()
        if kind != "off":
            service.wait_for_log("changes are told by")
        if mode == "mirror":
            service.wait_for_log("mirror complete")
    except (RuntimeError, AssertionError, OSError) as reason:
        last = service.log("rror")[-1:] or [str(reason)]
        service.remove()
        raise NotYet(last[0][:150]) from None
    try:
        yield service
    finally:
        service.remove()


# ------------------------------------------------------------ beside a plain loop over ldap3


class Plain:
    """What a script does: whose addresses these are, then upwards through the groups, a level at a time."""

    def __init__(self, uri: str) -> None:
        self._connection: Any = ldap3.Connection(ldap3.Server(uri, get_info=ldap3.NONE), auto_bind=True)
        self.searches = 0

    def decide(self, question: Question) -> str:
        """Whether the sender is in the group that has the recipient's address."""
        sender = self._dns(Equality("mail", question.sender))
        wanted = set(self._dns(Equality("mail", question.recipient)))
        seen: set[str] = set()
        while sender:
            sender = [dn for dn in self._dns(any_of("member", sender)) if dn not in seen]
            seen.update(sender)
            if wanted & seen:
                return PERMITTED
        return REJECTED

    def close(self) -> None:
        """Hang up."""
        self._connection.unbind()

    def _dns(self, found: Filter) -> list[str]:
        self.searches += 1
        self._connection.search(
            SUFFIX, to_text(found), attributes=["smtpdSenderAccess", "smtpdRecipientAccess"]
        )
        return [entry["dn"] for entry in self._connection.response]


def any_of(name: str, values: Sequence[str]) -> Filter:
    """An entry that has one of the values."""
    terms: tuple[Filter, ...] = tuple(Equality(name, value) for value in values)
    return Or(terms) if len(terms) > 1 else And(terms)


def beside_plain(slapd: Slapd, sizes: Sizes) -> None:
    """The same questions, rounds interleaved, everything cold; medians of five."""
    columns = ("ldap3 loop", "one by one", f"{sizes.connections} at once")
    heading("cold decisions/s, in this process", *columns)
    rates: list[list[float]] = [[], [], []]
    asked, wrong = [0, 0, 0], [0, 0, 0]
    for lap in range(5):
        questions = sizes.company.arrivals(sizes.plain, lap * sizes.plain)
        measured = (
            plain(slapd.uri, questions),
            run(ours(slapd.uri, questions, 1)),
            run(ours(slapd.uri, questions, sizes.connections)),
        )
        for column, (seconds, count, errors) in enumerate(measured):
            rates[column].append(len(questions) / seconds)
            asked[column] += count
            wrong[column] += errors
    medians = [statistics.median(column) for column in rates]
    row("decisions/s", *(f"{rate:,.0f}" for rate in medians))
    row("ratio to the ldap3 loop", *(f"{rate / medians[0]:.2f}" for rate in medians))
    row("searches a decision", *(f"{count / 5 / sizes.plain:.3f}" for count in asked))
    row("wrong answers", *map(str, wrong))


def plain(uri: str, questions: Sequence[Question]) -> tuple[float, int, int]:
    """Seconds, searches, wrong answers."""
    loop = Plain(uri)
    began = time.perf_counter()
    wrong = sum(loop.decide(question) != question.answer for question in questions)
    seconds = time.perf_counter() - began
    loop.close()
    return seconds, loop.searches, wrong


async def ours(uri: str, questions: Sequence[Question], tasks: int) -> tuple[float, int, int]:
    """The same of a service with empty caches, by so many tasks."""
    async with deciding(uri, ON_DEMAND) as service:
        before, began = searches(service), time.perf_counter()
        wrong = await decide_all(service, questions, tasks)
        return time.perf_counter() - began, searches(service) - before, wrong


async def decide_all(service: Service, questions: Sequence[Question], tasks: int) -> int:
    """How many answers were wrong."""
    left = iter(questions)

    async def work() -> int:
        return sum([said(await service.decide(request(question))) != question.answer for question in left])

    return sum(await asyncio.gather(*(work() for _ in range(tasks))))


# ------------------------------------------------------------ memory


def mirror(slapd: Slapd, sizes: Sizes) -> None:
    """Beside a service of the same directory without one."""
    company = sizes.company
    heading(f"mirror of {company.users:,} users, {company.lists:,} lists")
    where: Sections = {"directory": {"uri": [slapd.uri]}}
    with Ldappolicy(merged(ON_DEMAND, where), command=[program()]) as service:
        without = memory(service.process.pid)
    mirrored: Sections = {"directory": {"watch": "syncrepl"}, "cache": {"mode": "mirror"}}
    try:
        with serving(merged(ON_DEMAND, where, mirrored), "syncrepl", "mirror") as service:
            told = service.wait_for_log("mirror complete").partition("mirror complete: ")[2]
            more = memory(service.process.pid) - without
            first, again = run(arrivals(service, slapd, sizes))
    except NotYet as reason:
        row("load time, memory a user", f"{NOT_YET}: {reason}")
        return
    row("load time, as the service says", told)
    row("memory beside a service without", f"{more / 1e6:.1f} MB", f"{more / company.users:,.0f} B a user")
    row(f"{sizes.arrivals:,} distinct senders, {sizes.connections} connections", "first", "again")
    show_arrivals(sizes.arrivals, first, again)


def cached(slapd: Slapd, sizes: Sizes) -> None:
    """In a process of its own, which holds nothing else."""
    heading("memory of cached answers, on demand")
    entries, more, wrong = apart(fill_cache, slapd.uri, sizes.company, sizes.cached)
    row(
        f"{entries:,} answers", f"{more / 1e6:.1f} MB", f"{more / entries:,.0f} B an answer", f"{wrong} wrong"
    )


def fill_cache(uri: str, company: Company, wanted: int) -> tuple[int, int, int]:
    """Distinct senders until so many answers are cached: how many there are, their bytes, wrong answers."""

    async def fill() -> tuple[int, int, int]:
        async with deciding(uri, merged(ON_DEMAND, {"cache": {"size": 2 * wanted}})) as service:
            await decide_all(service, company.arrivals(10), 1)
            before, entries, wrong = memory("self"), service.resolver.entries, 0
            questions = iter(company.arrivals(company.users))
            while service.resolver.entries < wanted and (some := list(itertools.islice(questions, 1_000))):
                wrong += await decide_all(service, some, 200)
            return service.resolver.entries - entries, memory("self") - before, wrong

    return run(fill())


# ------------------------------------------------------------ the same decision in other companies


def company_sizes(sizes: Sizes) -> None:
    """Over `ldif:`, each size in a process of its own; a median over distinct senders, cold and again."""
    heading("the same decision, ldif:", "cold, us", "again, us", "load, s", "memory, MB")
    medians = []
    for users in sizes.ldif:
        whole = sizes.company
        company = Company(users, min(whole.lists, users // LIST_SIZE), min(whole.large, users // 2))
        cold, again, seconds, size, wrong = apart(decide_from_file, company)
        wrong_ones = [f"{wrong} WRONG"] if wrong else []
        figures = (f"{cold:.1f}", f"{again:.1f}", f"{seconds:.1f}", f"{size / 1e6:,.0f}")
        row(f"{users:,} users", *figures, *wrong_ones)
        medians.append((cold, again))
    (small, small_again), (large, large_again) = medians
    row("ratio", f"{large / small:.2f}", f"{large_again / small_again:.2f}")


def decide_from_file(company: Company) -> tuple[float, float, float, int, int]:
    """Microseconds of a cold and a warm decision, seconds to load, bytes, wrong answers."""
    with tempfile.TemporaryDirectory(prefix="ldappolicy-bench-") as folder:
        path = Path(folder) / "tree.ldif"
        with path.open("w", encoding="utf-8") as file:
            file.writelines(company.ldif())
        return run(decide_from(path, company))


async def decide_from(path: Path, company: Company) -> tuple[float, float, float, int, int]:
    """The same, of a file."""
    before, began = memory("self"), time.perf_counter()
    async with deciding(f"ldif:{path}", ON_DEMAND) as service:
        seconds, size, wrong = time.perf_counter() - began, memory("self") - before, 0
        gc.freeze()
        laps: list[list[float]] = [[], []]
        for lap in laps:
            for question in company.arrivals(500):
                began = time.perf_counter()
                wrong += said(await service.decide(request(question))) != question.answer
                lap.append(time.perf_counter() - began)
    cold, again = (statistics.median(lap) * 1e6 for lap in laps)
    return cold, again, seconds, size, wrong


# ------------------------------------------------------------ all of it

ROWS = ("searches", "families", "arrivals", "effect", "plain", "mirror", "cached", "sizes")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(prog="directory", description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="small numbers")
    parser.add_argument("--only", choices=ROWS, action="append", help="these rows")
    chosen = parser.parse_args(arguments)
    sizes, rows = QUICK if chosen.quick else FULL, chosen.only or ROWS
    with_slapd: dict[str, Callable[[Slapd], None]] = {
        "searches": lambda slapd: cold_searches("slapd", slapd.uri, sizes.company, ON_DEMAND),
        "arrivals": lambda slapd: distinct_senders(slapd, sizes),
        "plain": lambda slapd: beside_plain(slapd, sizes),
        "mirror": lambda slapd: mirror(slapd, sizes),
        "cached": lambda slapd: cached(slapd, sizes),
    }
    if any(name in with_slapd for name in rows):
        began = time.perf_counter()
        with Slapd(overlays=("syncprov",), schema="ldappolicy", data="".join(sizes.company.ldif())) as slapd:
            company = sizes.company
            row(f"slapd: {company.users:,} users, {company.lists:,} lists, depth {company.depth}")
            row("loaded by slapadd", f"{time.perf_counter() - began:.1f} s")
            for name in (name for name in rows if name in with_slapd):
                with_slapd[name](slapd)
    if "families" in rows:
        small_searches()
    if "effect" in rows:
        time_to_effect(sizes)
    if "sizes" in rows:
        company_sizes(sizes)


if __name__ == "__main__":
    main()
