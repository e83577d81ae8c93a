"""`ldappolicy import`: Postfix's restrictions, classes and tables as LDIF for `ldappolicy load`."""

from pathlib import Path

import click

from ldappolicy.cli import DEFAULT_CONFIG, EX_DATAERR, Context
from ldappolicy.entry import normal_dn
from ldappolicy.errors import InputError
from ldappolicy.importing import Carried, carry_over
from ldappolicy.ldif import format_record
from ldappolicy.log import escaped
from ldappolicy.main_cf import read_main_cf

POLICY_BASE = "ou=policy,dc=example,dc=com"
"""Where policies stand when nobody says anything: the default of [directory] policy_base."""


@click.command("import")
@click.option(
    "--main-cf",
    required=True,
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="The main.cf to carry over; $config_directory is its folder.",
)
@click.option(
    "--policy-base",
    metavar="DN",
    help="Where the entries go; by default the policy_base of the configuration, if there is one.",
)
@click.pass_obj
def command(context: Context, main_cf: Path, policy_base: str | None) -> int:
    """Prints Postfix's restrictions, classes and tables as LDIF for ldappolicy load.

    What cannot be carried over is named on standard error, and the exit status is 65.
    """
    base, name = _target(context, policy_base)
    carried = carry_over(read_main_cf(main_cf), base, name)
    click.echo(ldif_of(carried, main_cf.name, base), nl=False)
    for warning in carried.warnings:
        click.echo(f"ldappolicy: warning: {escaped(warning)}", err=True)
    for where, text in carried.left_out:
        click.echo(f"ldappolicy: left out: {escaped(f'{where}: {text}')}", err=True)
    return EX_DATAERR if carried.left_out else 0


def _target(context: Context, policy_base: str | None) -> tuple[str, str]:
    """The DN that entries go under, and the name of the policy."""
    if policy_base is None:
        if not context.path.exists() and str(context.path) == DEFAULT_CONFIG:
            return POLICY_BASE, "default"
        config = context.load()
        return config.directory.policy_base, config.policy.name.partition("/")[0]
    try:
        normal_dn(policy_base)
    except InputError as problem:
        raise click.UsageError(f"--policy-base: {problem}") from None
    return policy_base, "default"


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
