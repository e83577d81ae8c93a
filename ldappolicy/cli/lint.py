"""`ldappolicy lint`: the faults of configuration, policies and directory, one a line."""

import asyncio
from dataclasses import replace
from pathlib import Path

import click

from ldappolicy import assembly
from ldappolicy.agreement import lint_main_cf
from ldappolicy.aliases import Around
from ldappolicy.calls import Site
from ldappolicy.cli import Context
from ldappolicy.config import Config
from ldappolicy.directory import Directory
from ldappolicy.directory.ldap import LdapDirectory
from ldappolicy.directory.ldif import LdifDirectory
from ldappolicy.lint import lint
from ldappolicy.policy import Fault, PolicySet
from ldappolicy.slowness import slow_lookups

PATIENCE = 300.0
"""Seconds for one search: a whole directory is asked for at once, and no mail waits for it."""


@click.command("lint")
@click.option("--strict", is_flag=True, help="Let warnings count as errors.")
@click.option(
    "--main-cf",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Compare this main.cf, and the master.cf beside it, with the policies.",
)
@click.pass_obj
def command(context: Context, strict: bool, main_cf: Path | None) -> int:
    """Looks for faults in configuration, policies and directory."""
    faults = asyncio.run(_faults(patient(context.load()), main_cf))
    for fault in faults:
        click.echo(_printable(str(fault)))
    return int(any(fault.error or strict for fault in faults))


def patient(config: Config) -> Config:
    """With time for searches that bring everything."""
    directory = replace(config.directory, timeout=max(PATIENCE, config.directory.timeout))
    return replace(config, directory=directory)


async def _faults(config: Config, main_cf: Path | None) -> tuple[Fault, ...]:
    directory = assembly.open_directory(config)
    try:
        return await _faults_in(await assembly.settled(config, directory), directory, main_cf)
    finally:
        await directory.close()


async def _faults_in(config: Config, directory: Directory, main_cf: Path | None) -> tuple[Fault, ...]:
    service = assembly.build_service(config, directory)
    settings = service.settings
    where = assembly.where_of(config)
    _, policies = await service.read_policies()
    faults = (*_not_in_file(directory), *assembly.exposed_files(config))
    faults += await lint(policies, directory, settings, where)
    if isinstance(directory, LdapDirectory):
        faults += tuple(await slow_lookups(policies, directory, where, settings.mapping))
    if main_cf is not None:
        around = Around(policies, directory, service.resolver, settings.mapping, settings.search_base)
        faults += await lint_main_cf(main_cf, _site(config, policies), around)
    return faults


def _not_in_file(directory: Directory) -> tuple[Fault, ...]:
    """What the search that made an LDIF file did not find."""
    references = directory.references if isinstance(directory, LdifDirectory) else ()
    return tuple(Fault(False, one.place, "ref", one.text) for one in references)


def _site(config: Config, policies: PolicySet) -> Site:
    """What a main.cf has to agree with."""
    permit_ok = config.policy.permit_reply == "OK"
    server = config.server
    realms = frozenset(config.directory.login_realms)
    return Site(policies, config.policy.name, server.listen, permit_ok, server.request_timeout, realms)


def _printable(line: str) -> str:
    """DNs as they are, but for what would drive a terminal or begin a line of its own."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in line)
