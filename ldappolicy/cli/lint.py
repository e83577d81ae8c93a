"""`ldappolicy lint`: the faults of configuration, policies and directory, one a line."""

import asyncio
from dataclasses import replace

import click

from ldappolicy import assembly
from ldappolicy.cli import Context
from ldappolicy.config import Config
from ldappolicy.directory.plan import Where
from ldappolicy.ldap_filter import parse
from ldappolicy.lint import lint
from ldappolicy.policy import Fault

PATIENCE = 300.0
"""Seconds for one search: a whole directory is asked for at once, and no mail waits for it."""


@click.command("lint")
@click.option("--strict", is_flag=True, help="Let warnings count as errors.")
@click.pass_obj
def command(context: Context, strict: bool) -> int:
    """Looks for faults in configuration, policies and directory."""
    config = context.load()
    patient = replace(config.directory, timeout=max(PATIENCE, config.directory.timeout))
    faults = asyncio.run(_faults(replace(config, directory=patient)))
    for fault in faults:
        click.echo(_printable(str(fault)))
    return int(any(fault.error or strict for fault in faults))


async def _faults(config: Config) -> tuple[Fault, ...]:
    directory = assembly.open_directory(config)
    service = assembly.build_service(config, directory)
    settings = service.settings
    found = config.directory
    where = Where(
        settings.search_base, parse(found.filter) if found.filter else None, frozenset(found.domain)
    )
    try:
        return await lint(await service.read_policies(), directory, settings, where)
    finally:
        await directory.close()


def _printable(line: str) -> str:
    """DNs as they are, but for what would drive a terminal or begin a line of its own."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in line)
