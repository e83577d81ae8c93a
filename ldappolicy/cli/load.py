"""`ldappolicy load`: LDIF into the configured directory, and the import that `schema install` shares."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import click

from ldappolicy import assembly
from ldappolicy.cli import Context
from ldappolicy.config import Config
from ldappolicy.directory.ldap.writing import Writer, connect
from ldappolicy.directory.loading import Outcome, Rehearsal, Target, carry_out
from ldappolicy.errors import ConfigError, InputError, Unavailable
from ldappolicy.ldif import Record, read_records
from ldappolicy.log import escaped

Sourced = tuple[str, Record]
"""A record, and where it stands: FILE:LINE."""


@click.command("load")
@click.option("--replace", is_flag=True, help="Give entries that are there with other content that of FILE.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and change nothing.")
@click.argument("files", nargs=-1, required=True, metavar="FILE...", type=click.Path(path_type=Path))
@click.pass_obj
def command(context: Context, replace: bool, dry_run: bool, files: tuple[Path, ...]) -> None:
    """Imports LDIF, entries and changes, into the configured directory.

    An entry that is there with the same content is left; the first error ends the import. Every FILE is
    read before anything is changed.
    """
    config = context.load()
    refuse_ldif(context, config, "load")
    records = [sourced for file in files for sourced in sources(_read(file), str(file))]
    with connect(assembly.ldap_settings(config)) as writer:
        bring_in(records, writer, replace=replace, dry_run=dry_run)


def refuse_ldif(context: Context, config: Config, what: str) -> None:
    """Raises ConfigError where the directory is a file."""
    if config.directory.ldif is not None:
        (uri,) = config.directory.uri
        raise ConfigError(f"{context.path}: [directory] uri: expected a server for {what!r}, got {uri!r}")


def sources(data: bytes, source: str) -> list[Sourced]:
    """All records of a file; raises InputError, warns of search references."""
    records = read_records(data, source, lambda reference: warn(str(reference)))
    return [(f"{source}:{record.line}", record) for record in records]


def warn(text: str) -> None:
    """Says on standard error what does not end the command."""
    click.echo(f"ldappolicy: warning: {escaped(text)}", err=True)


def bring_in(records: Iterable[Sourced], writer: Writer, *, replace: bool, dry_run: bool) -> None:
    """Carries the records out, in order, and says what became of them."""
    target: Target = Rehearsal(writer, _suffixes(writer)) if dry_run else writer
    done: Counter[Outcome] = Counter()
    try:
        for source, record in records:
            outcome = _carry_out(source, record, target, replace)
            done[outcome] += 1
            if outcome is not Outcome.UNCHANGED:
                click.echo(f"{'would be ' if dry_run else ''}{outcome.value}: {escaped(record.dn)}")
    except (InputError, Unavailable):
        click.echo(f"stopped after {_counts(done) or 'nothing'}")
        raise
    click.echo(f"dry run, nothing was changed: {_summary(done)}" if dry_run else _summary(done))


def _carry_out(source: str, record: Record, target: Target, replace: bool) -> Outcome:
    try:
        return carry_out(record, target, replace)
    except (InputError, Unavailable) as problem:
        raise type(problem)(escaped(f"{source}: {problem}")) from problem


def _summary(done: Counter[Outcome]) -> str:
    """`3 added, 2 unchanged`, or that there was nothing to do."""
    counts = _counts(done)
    if done.total() > done[Outcome.UNCHANGED]:
        return counts
    return f"nothing to do, {counts}" if counts else "nothing to do"


def _counts(done: Counter[Outcome]) -> str:
    return ", ".join(f"{done[outcome]} {outcome.value}" for outcome in Outcome if done[outcome])


def _suffixes(writer: Writer) -> list[str]:
    root = writer.root_dse()
    return [*root.get("namingcontexts", ()), *root.get("configcontext", ())]


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as problem:
        reason = (problem.strerror or "unknown").lower()
        raise InputError(f"{file}: cannot be read: {reason}, expected an LDIF file") from None
