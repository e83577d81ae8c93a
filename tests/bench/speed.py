"""Rows of speed: the service with everything on, beside policyecho in the same run.

`serve` has one worker unless a row says otherwise. Before it is timed it has played the whole file once, but
for the first pass, which is that of a service just started.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace

from tests.bench.kit import Kit
from tests.bench.load import Run, Target, idle_connections, in_turn, once, timed
from tests.bench.services import Served, ldappolicy, policyecho
from tests.bench.table import Row, rate

BUSY = 50


@dataclass(frozen=True, slots=True)
class Field:
    """Who runs in turn."""

    kit: Kit
    echo: Target
    echo_tcp: Target
    one: Served
    two: Served

    def run(self, target: Target, connections: int, *options: str) -> Callable[[], Run]:
        """A contestant; what a run wrote to the log is not kept."""

        def contestant() -> Run:
            found = timed(self.kit, target, connections, *options)
            self.one.forget_log()
            self.two.forget_log()
            return found

        return contestant

    def in_turn(self, **contestants: Callable[[], Run]) -> dict[str, Run]:
        """Medians of the rounds."""
        return in_turn(self.kit.sizes.rounds, contestants)


def rows(kit: Kit) -> Iterator[Row]:
    """All of them."""
    yield first_pass(kit)
    with ExitStack() as stack:
        echo, echo_tcp = (stack.enter_context(policyecho(kit, tcp=tcp)) for tcp in (False, True))
        one, two = (stack.enter_context(ldappolicy(kit, workers=count)) for count in (1, 2))
        field = Field(kit, echo, echo_tcp, one, two)
        for served in (one, two, two):  # each worker has caches of its own
            once(kit, served.unix, 100)
        yield from closed_loop(field)
        yield tcp(field)
        yield open_loop(field)
        yield idle(field)


def first_pass(kit: Kit) -> Row:
    """Nothing is remembered: a fresh service for each round."""

    def fresh() -> Run:
        with ldappolicy(kit) as served:
            return once(kit, served.unix, 100)

    with policyecho(kit) as echo:
        found = in_turn(kit.sizes.rounds, {"ours": fresh, "echo": lambda: once(kit, echo, 100)})
    title = "first pass, 100 connections, nothing remembered"
    return rate(title, found["ours"], "policyecho", found["echo"])


def closed_loop(field: Field) -> Iterator[Row]:
    """As fast as it goes, with one worker and with two."""
    for count in (10, 100):
        found = field.in_turn(
            echo=field.run(field.echo, count),
            one=field.run(field.one.unix, count),
            two=field.run(field.two.unix, count),
        )
        echo = found["echo"]
        yield rate(f"{count} connections", found["one"], "policyecho", echo)
        yield rate(f"{count} connections, 2 workers", found["two"], "policyecho", echo)


def tcp(field: Field) -> Row:
    """The same by TCP, both."""
    found = field.in_turn(echo=field.run(field.echo_tcp, 100), ours=field.run(field.one.tcp, 100))
    return rate("100 connections, TCP", found["ours"], "policyecho", found["echo"])


def open_loop(field: Field) -> Row:
    """Latency from when a request was due, at a rate that is not the limit."""
    per_s = field.kit.sizes.rate
    options = ("-r", str(per_s))
    found = field.in_turn(
        echo=field.run(field.echo, 100, *options), ours=field.run(field.one.unix, 100, *options)
    )
    ours, echo = found["ours"], found["echo"]
    return Row(
        f"open loop, {per_s:,}/s, 100 connections: p50 / p99",
        f"{ours.p50:.0f} / {ours.p99:.0f} us",
        f"policyecho {echo.p50:.0f} / {echo.p99:.0f} us",
        f"{ours.p50 - echo.p50:+.0f} / {ours.p99 - echo.p99:+.0f} us",
        f"{ours.cpu:.1f}",
        f"{ours.wrong}",
    )


def idle(field: Field) -> Row:
    """Busy connections among many open ones, beside the busy ones alone."""
    count = field.kit.sizes.idle
    busy = field.run(field.one.unix, BUSY)

    def alone() -> Run:
        field.one.wait_for_connections(at_most=BUSY)  # those of the round before are to be closed
        return busy()

    def among() -> Run:
        with idle_connections(field.one.path, count):
            field.one.wait_for_connections(at_least=count)
            return busy()

    found = field.in_turn(alone=alone, among=among)
    wrong = found["alone"].wrong + found["among"].wrong
    title = f"{count + BUSY:,} connections of which {BUSY} are busy"
    return rate(title, replace(found["among"], wrong=wrong), f"{BUSY} alone", found["alone"])
