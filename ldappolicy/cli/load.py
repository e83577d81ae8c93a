"""`ldappolicy load`: LDIF into the configured directory, and the import that `schema install` shares."""

import asyncio
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from ldappolicy import assembly
from ldappolicy.cli import Context
from ldappolicy.cli.lint import patient
from ldappolicy.config import Config
from ldappolicy.directory.ldap import LdapDirectory
from ldappolicy.directory.ldap.family import profile_of
from ldappolicy.directory.ldap.subschema import read_subschema
from ldappolicy.directory.ldap.writing import Writer, connect
from ldappolicy.directory.loading import Outcome, Rehearsal, Target, carry_out, in_order
from ldappolicy.directory.overlay import Overlay
from ldappolicy.entry import key_of_dn
from ldappolicy.errors import ConfigError, InputError, LimitExceeded, Unavailable
from ldappolicy.ldif import Record, read_records
from ldappolicy.lint import lint
from ldappolicy.log import escaped, shortened
from ldappolicy.policy import Fault
from ldappolicy.reach import KEYS

MOST_VALUES = 20
"""Values of one attribute that are shown."""
SECRET = re.compile("password|pwd", re.IGNORECASE)
"""Names of attributes whose values are not."""

Sourced = tuple[str, Record]
"""A record, and where it stands: FILE:LINE."""


@click.command("load")
@click.option("--replace", is_flag=True, help="Give entries that are there with other content that of FILE.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and change nothing.")
@click.option("--force", is_flag=True, help="Go on where lint would tell of new errors: they are printed.")
@click.argument("files", nargs=-1, required=True, metavar="FILE...", type=click.Path(path_type=Path))
@click.pass_obj
def command(context: Context, replace: bool, dry_run: bool, force: bool, files: tuple[Path, ...]) -> None:
    """Imports LDIF, entries and changes, into the configured directory.

    Every FILE is read, and what comes of all together is looked at, before anything is changed: what the
    server's schema refuses, and new errors of lint, are refused. An entry that is there with the same
    content is left. Tables come before classes and these before policies; the first error ends the import.
    """
    config = context.load()
    refuse_ldif(context, config, "load")
    records = in_order([sourced for file in files for sourced in sources(_read(file), str(file))])
    with connect(assembly.ldap_settings(config)) as writer:
        if dry_run:
            bring_in(records, writer, replace=replace, dry_run=True)
        try:
            _look_ahead(config, records, writer, replace=replace, force=force)
        except InputError as problem:
            if not force:
                click.echo("stopped after nothing")
                raise
            warn(str(problem))
        if not dry_run:
            bring_in(records, writer, replace=replace, dry_run=False)


def _look_ahead(
    config: Config, records: Iterable[Sourced], writer: Writer, *, replace: bool, force: bool
) -> None:
    """Raises InputError for what the schema refuses of the outcome, and for new errors of lint."""
    rehearsal = Rehearsal(writer, _suffixes(writer))
    tells_content = profile_of(writer.root_dse()) != "active_directory"
    schema = read_subschema(writer, tells_content=tells_content)
    for source, record in records:
        with _at(source):
            carry_out(record, rehearsal, replace)
            schema.check(record, rehearsal.read(record.dn) or {})
    errors = asyncio.run(_new_errors(patient(config), rehearsal))
    for fault in errors:
        click.echo(f"ldappolicy: new {escaped(str(fault))}", err=True)
    if errors and not force:
        count = f"{len(errors)} new error{'s' * (len(errors) > 1)} of lint"
        raise InputError(f"refused: it would bring {count}, which only --force brings in")


_NO_POLICY = ("", "", "")
"""Under which the one error is that nothing can be looked at."""


async def _new_errors(config: Config, rehearsal: Rehearsal) -> list[Fault]:
    """Those that the directory has not got without the change, whoever may see what."""
    live = LdapDirectory(assembly.ldap_settings(config))
    try:
        settled = await assembly.settled(config, live)
        before = await _errors(settled, Overlay(live, {}))
        changed = rehearsal.changed()
        after = await _errors(settled, Overlay(live, changed, frozenset(rehearsal.added)))
    finally:
        await live.close()
    if _NO_POLICY in before:  # what was wrong before cannot be said
        return [fault for key, fault in after.items() if key[0] in changed]
    return [fault for key, fault in after.items() if key not in before]


async def _errors(config: Config, directory: Overlay) -> dict[tuple[str, str, str], Fault]:
    """Each under what makes it the same; one for all where there is no policy to be read."""
    service = assembly.build_service(config, directory)
    try:
        _, policies = await service.read_policies()
        found = await lint(policies, directory, service.settings, assembly.where_of(config))
    except (ConfigError, Unavailable) as problem:
        if isinstance(problem, LimitExceeded):
            warn(f"what comes of the change is not looked at: {problem}")
        return {_NO_POLICY: Fault(True, config.directory.policy_base, "policies", str(problem))}
    return {
        (key_of_dn(fault.dn) or fault.dn, fault.attribute.lower(), fault.text): fault
        for fault in found
        if fault.error and fault.dn != KEYS
    }


@contextmanager
def _at(source: str) -> Iterator[None]:
    """Says where the record stands that an error is about."""
    try:
        yield
    except (InputError, Unavailable) as problem:
        raise type(problem)(escaped(f"{source}: {problem}")) from problem


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
            with _at(source):
                became = carry_out(record, target, replace)
            done[became.outcome] += 1
            if became.outcome is not Outcome.UNCHANGED:
                click.echo(f"{'would be ' if dry_run else ''}{became.outcome.value}: {escaped(record.dn)}")
            for line in _told(became.values):
                click.echo(f"  {escaped(line)}")
    except (InputError, Unavailable):
        click.echo(f"stopped after {_counts(done) or 'nothing'}")
        raise
    click.echo(f"dry run, nothing was changed: {_summary(done)}" if dry_run else _summary(done))


def _told(values: Iterable[tuple[str, str, str]]) -> Iterator[str]:
    """What an entry lost and gained; of an attribute not more than some, of a password nothing."""
    told: Counter[tuple[str, str]] = Counter()
    for sign, name, value in values:
        told[sign, name] += 1
        if told[sign, name] <= MOST_VALUES:
            yield f"{sign} {name}: {'(not shown)' if SECRET.search(name) else shortened(value)}"
    for (sign, name), count in told.items():
        if count > MOST_VALUES:
            yield f"{sign} {name}: {count - MOST_VALUES} more"


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
