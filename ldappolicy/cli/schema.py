"""`ldappolicy schema`: the shipped LDIF, to be listed, shown, and brought into the configured server."""

from collections.abc import Iterator
from dataclasses import replace

import click

from ldappolicy import assembly
from ldappolicy.cli import Context
from ldappolicy.cli.load import Sourced, bring_in, refuse_ldif, sources
from ldappolicy.directory.ldap.family import profile_of
from ldappolicy.directory.ldap.installing import LEFT, Access, active_directory, ds389, openldap
from ldappolicy.directory.ldap.writing import Reader, Writer, connect
from ldappolicy.directory.loading import Attributes
from ldappolicy.entry import normal_dn
from ldappolicy.errors import InputError
from ldappolicy.ldif import Record
from ldappolicy.log import escaped
from ldappolicy.schema_files import SCHEMA_FILES, SchemaFile

SHIPPED_BASE = "ou=policy,dc=example,dc=com"
"""The base in classes.ldif that is to be filled in."""

NAME = click.Choice(list(SCHEMA_FILES))
INSTALLED = click.Choice([name for name in SCHEMA_FILES if not name.startswith("access_")])
SCHEMAS = ("openldap", "389ds", "active_directory")


@click.group("schema", no_args_is_help=False)
def command() -> None:
    """The schema, the access rules, the restriction classes and the example that come with ldappolicy."""


@command.command("list")
def list_files() -> None:
    """Lists what there is to show and to install."""
    shipped = SCHEMA_FILES.values()
    name, file = (max(len(getattr(one, column)) for one in shipped) for column in ("name", "file"))
    for one in shipped:
        click.echo(f"{one.name:<{name}}  {one.file:<{file}}  {one.description}")


@command.command("show")
@click.argument("name", type=NAME, metavar="NAME")
def show(name: str) -> None:
    """Prints a shipped file as it is."""
    click.echo(SCHEMA_FILES[name].read(), nl=False)


@command.command("install")
@click.argument("name", type=INSTALLED, metavar="[NAME]", required=False)
@click.option("--postmasters", default="", metavar="DN", help="The group that may write policy attributes.")
@click.option("--no-access", is_flag=True, help="Bring in no access rules with the schema.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and change nothing.")
@click.pass_obj
def install(context: Context, name: str | None, postmasters: str, no_access: bool, dry_run: bool) -> None:
    """Imports a shipped file over LDAP into the configured server.

    Without NAME it is the schema of the kind of server that answers. It comes with access rules: without
    --postmasters nobody but the server's root identity writes the new attributes. classes goes below
    the configured policy_base. What is there already is left as it is.
    """
    _refuse(name)
    normal_dn(postmasters)
    config = context.load()
    refuse_ldif(context, config, "schema install")
    with connect(assembly.ldap_settings(config)) as writer:
        name = name or kind_of_server(writer.root_dse())
        if not name:
            raise click.UsageError(f"{writer.uri} does not say what kind of server it is, expected NAME")
        shipped = SCHEMA_FILES[name]
        records = sources(shipped.read(), shipped.file)
        if name in SCHEMAS:
            bases = dict.fromkeys((config.directory.search_base, config.directory.policy_base))
            access = None if no_access else Access(tuple(bases), postmasters)
            target = Reader(writer) if dry_run else writer
            lines = _install_schema(name, [record for _, record in records], target, access)
            _say(lines, is_done=not dry_run)
        elif name == "classes":
            moved = list(_below(config.directory.policy_base, records, writer, shipped))
            bring_in(moved, writer, replace=False, dry_run=dry_run)
        else:
            bring_in(records, writer, replace=False, dry_run=dry_run)


def _refuse(name: str | None) -> None:
    if name == "slapd":
        raise click.UsageError(
            "the form for slapd.conf cannot be installed over LDAP, expected 'openldap' (cn=config), "
            "or an include line in slapd.conf"
        )


def kind_of_server(root: Attributes) -> str:
    """Which of the schemas a server takes, by its root DSE; empty if that does not tell."""
    profile = profile_of(root)
    return "389ds" if profile == "freeipa" else profile


def _install_schema(name: str, records: list[Record], writer: Writer, access: Access | None) -> list[str]:
    if name == "active_directory":
        if access is not None and access.postmasters:
            raise click.UsageError("--postmasters: Active Directory needs no rule for it, see access-ad.md")
        return active_directory.install(writer, records)
    (shipped,) = records
    if name == "openldap":
        return openldap.install(writer, shipped, access)
    return ds389.install(writer, shipped, access)


def _say(lines: list[str], *, is_done: bool) -> None:
    for line in lines:
        click.echo(("" if is_done or line.startswith(LEFT) else "would be ") + escaped(line))
    if all(line.startswith(LEFT) for line in lines):
        click.echo("nothing to do")
    elif not is_done:
        click.echo("dry run, nothing was changed")


def _below(base: str, records: list[Sourced], writer: Writer, shipped: SchemaFile) -> Iterator[Sourced]:
    """The records with the configured base in place of the shipped one; the base itself only if missing."""
    (source, top), *others = records
    if writer.read(base) is None:
        yield source, _top(base, top)
    for source, record in others:
        if not record.dn.endswith(SHIPPED_BASE):
            raise InputError(f"{shipped.file}: {record.dn!r}, expected it below {SHIPPED_BASE!r}")
        yield source, replace(record, dn=record.dn.removesuffix(SHIPPED_BASE) + base)


def _top(base: str, shipped: Record) -> Record:
    """The base as an organizationalUnit, which only an `ou=` can be."""
    rdn = base.partition(",")[0]
    kind, _, name = rdn.partition("=")
    if kind.strip().lower() != "ou" or not name or set(name) & set('\\+"#'):
        raise InputError(f"{base}: is not there, expected the entry of policy_base")
    return replace(shipped, dn=base, attributes={**shipped.attributes, "ou": (name.strip(),)})
