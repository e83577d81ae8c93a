"""`ldappolicy import`: Postfix's restrictions, classes and tables as LDIF for `ldappolicy load`."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ldappolicy.cli import DEFAULT_CONFIG, EX_DATAERR, EX_UNAVAILABLE, Context
from ldappolicy.config import Directory, Policy
from ldappolicy.entry import normal_dn
from ldappolicy.errors import InputError
from ldappolicy.importing import Carried, carry_over
from ldappolicy.importing.leaving import leave
from ldappolicy.ldif import format_record
from ldappolicy.log import escaped
from ldappolicy.main_cf import MainCf, read_main_cf
from ldappolicy.oracle.postfix import lacking
from ldappolicy.verification import MOST, Report, verify
from ldappolicy.verification.people import standing_in

SHOWN = 20
"""Differences that are printed; the others are counted."""


@click.command("import")
@click.option(
    "--main-cf",
    required=True,
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The main.cf to carry over; $config_directory is its folder.",
)
@click.option(
    "--policy-base",
    metavar="DN",
    help="Where the entries go; by default the policy_base of the configuration, if there is one.",
)
@click.option(
    "--verify",
    "count",
    metavar="N",
    type=click.IntRange(1, MOST),
    help="Ask N requests, made from the keys of the tables, of a private Postfix and of the policy.",
)
@click.option(
    "--leave-in-main-cf",
    "names",
    metavar="NAME",
    multiple=True,
    help="A restriction, such as check_policy_service, that is not imported where that opens nothing.",
)
@click.pass_obj
def command(
    context: Context, main_cf: Path, policy_base: str | None, count: int | None, names: tuple[str, ...]
) -> int:
    """Prints Postfix's restrictions, classes and tables as LDIF for ldappolicy load.

    What cannot be carried over is named on standard error, and the exit status is 65. With --verify it is
    1 when a request differs, and 69 when no private Postfix can be run.
    """
    base, name = _target(context, policy_base)
    left = leave(read_main_cf(main_cf), names)
    main = left.main
    carried = carry_over(main, base, name)
    click.echo(ldif_of(carried, main_cf.name, base), nl=False)
    for where, text in left.stays:
        _say(f"left in main.cf: {where}: {text}")
    for warning in carried.warnings:
        _say(f"warning: {warning}")
    left_out = (*left.refused, *carried.left_out)
    for where, text in left_out:
        _say(f"left out: {where}: {text}")
    status = EX_DATAERR if left_out else 0
    return status if count is None else verified(main, carried, base, name, count) or status


def _target(context: Context, policy_base: str | None) -> tuple[str, str]:
    """The DN that entries go under, and the name of the policy."""
    if policy_base is None:
        if not context.path.exists() and str(context.path) == DEFAULT_CONFIG:
            return Directory().policy_base, Policy().name
        config = context.load()
        return config.directory.policy_base, config.policy.name.partition("/")[0]
    try:
        normal_dn(policy_base)
    except InputError as problem:
        raise click.UsageError(f"--policy-base: {problem}") from None
    return policy_base, Policy().name


def ldif_of(carried: Carried, source: str, policy_base: str) -> str:
    """The entries as LDIF; comments on top say what it is."""
    head = [
        f"Postfix's restrictions, classes and tables from {source}, for ldappolicy load.",
        f"The entry {policy_base} has to be there.",
    ]
    if carried.left_out:
        head.append(f"Left out, named when this was printed: {len(carried.left_out)}.")
    comments = "".join(f"# {escaped(line)}\n" for line in head)
    return "\n".join((comments, *(format_record(dn, given.items()) for dn, given in carried.records)))


def verified(main: MainCf, carried: Carried, policy_base: str, name: str, count: int) -> int:
    """Compares, prints what differs; the exit status, 0 when nothing does."""
    why = lacking()
    if why:
        _say(f"--verify: {why}")
        return EX_UNAVAILABLE
    for table in carried.group_tables:
        _say(f"verify: on both sides somebody is in the place of those whom ldap:{table} finds")
    main, records = standing_in(main, carried.records, carried.group_tables, policy_base)
    with _interrupted_by_sigterm(), progress(Console(stderr=True), count) as step:
        report = verify(main, records, policy_base, name, count, step)
    for line in lines_of(report):
        _say(line)
    return 1 if report.differences else 0


@contextmanager
def _interrupted_by_sigterm() -> Iterator[None]:
    """What was started and written is removed then as it is with SIGINT."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def progress(console: Console, count: int) -> Iterator[Callable[[], None]]:
    """A bar on a terminal, nothing elsewhere; what is yielded counts one request."""
    columns = (TextColumn("verifying"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("verifying", total=count)
        yield lambda: bar.advance(task)


def lines_of(report: Report) -> Iterator[str]:
    """What is said of a verification: differences, then how many there are."""
    for difference in report.differences[:SHOWN]:
        yield f"differs: {difference}"
    if report.unmet:
        yield (
            f"verify: {report.unmet} of the {report.keys} keys had no request of their own: "
            f"--verify {report.keys} meets each of them"
        )
    if report.unasked:
        shown = ", ".join(map(repr, report.unasked[:SHOWN]))
        yield f"verify: {len(report.unasked)} keys were not asked for, SMTP cannot say them: {shown}"
    if report.apart:
        yield f"verify: {report.apart} differ in code or text alone: there something is left to Postfix"
    yield f"verify: {report.asked} requests from {report.keys} keys, {len(report.differences)} differ"


def _say(text: str) -> None:
    click.echo(f"ldappolicy: {escaped(text)}", err=True)
