"""`ldappolicy serve`: the policy service, and what it says when it starts."""

import asyncio
import shlex
import sys

import click
import uvloop
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ldappolicy.cli import Context
from ldappolicy.config import Config, Inet
from ldappolicy.daemon import Daemon
from ldappolicy.directory.ldap import LdapDirectory
from ldappolicy.directory.ldif import LdifDirectory
from ldappolicy.log import set_up
from ldappolicy.policy import Policy, PolicySet, RestrictionClass


@click.command("serve")
@click.pass_obj
def command(context: Context) -> None:
    """Answers Postfix (check_policy_service) until SIGTERM."""
    config = context.load()
    set_up(config.log.format, config.log.level)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(config, context))


async def _serve(config: Config, context: Context) -> None:
    daemon = Daemon(config, context.load)
    await daemon.run(lambda daemon: _say_started(daemon, context))


def _say_started(daemon: Daemon, context: Context) -> None:
    """What is being served, and lines to try against it."""
    console = Console(file=sys.stdout, highlight=False, soft_wrap=True)
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in _facts(daemon):
        table.add_row(name, escape(value))
    console.print("[bold]ldappolicy[/bold] is serving")
    console.print(table)
    if isinstance(daemon.directory, LdifDirectory):
        console.print("Try, in another terminal:")
        for line in _lines_to_try(daemon, context):
            console.print(escape(line), soft_wrap=True)
    sys.stdout.flush()


def _facts(daemon: Daemon) -> list[tuple[str, str]]:
    evaluator = daemon.service.evaluator
    policies = evaluator.policies if evaluator is not None else PolicySet()
    names = [name for name, policy in policies.policies.items() if isinstance(policy, Policy)]
    classes = [name for name, found in policies.classes.items() if isinstance(found, RestrictionClass)]
    return [
        ("listening", ", ".join(map(str, daemon.server.addresses))),
        ("directory", _directory(daemon)),
        ("policies", ", ".join(names) or "none yet: requests are answered as on_unavailable says"),
        ("classes", ", ".join(classes)),
        ("tables", ", ".join(f"ldap:{name}" for name in policies.tables)),
        ("revision", policies.revision or "none"),
    ]


def _directory(daemon: Daemon) -> str:
    directory = daemon.directory
    if isinstance(directory, LdifDirectory):
        return f"{daemon.config.directory.uri[0]}, {directory.entry_count} entries"
    assert isinstance(directory, LdapDirectory)
    return directory.describe()


def _lines_to_try(daemon: Daemon, context: Context) -> list[str]:
    """Requests about the example company: a restricted user, a protected list, the socket itself."""
    call = f"  {shlex.join([sys.argv[0], '-c', str(context.path), 'eval'])}"
    lines = [
        f"{call} --explain sasl_username=amy sender=amy@my.domain recipient=friend@elsewhere.example",
        f"{call} sender=stranger@elsewhere.example recipient=all@my.domain",
        f"{call} sender=joe@my.domain recipient=jane@my.domain",
    ]
    inet = next((address for address in daemon.server.addresses if isinstance(address, Inet)), None)
    if inet is not None:
        request = (
            r"request=smtpd_access_policy\nprotocol_state=RCPT\n"
            r"sender=stranger@elsewhere.example\nrecipient=all@my.domain\n\n"
        )
        lines.append(
            f"  bash -c 'exec 3<>/dev/tcp/{inet.host}/{inet.port}; printf \"{request}\" >&3; head -n 1 <&3'"
        )
    return lines
