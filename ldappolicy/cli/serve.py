"""`ldappolicy serve`: the policy service, and what it says when it starts."""

import asyncio
import json
import logging
import os
import shlex
import sys
import time

import click
import uvloop
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ldappolicy import workers
from ldappolicy.cli import Context
from ldappolicy.config import Inet
from ldappolicy.daemon import DEFAULT_TIMING, Daemon
from ldappolicy.directory.ldap import LdapDirectory
from ldappolicy.directory.ldif import LdifDirectory
from ldappolicy.policy import Policy, PolicySet, RestrictionClass
from ldappolicy.supervisor import Supervisor, worker_count
from ldappolicy.systemd import take
from ldappolicy.web import Web
from ldappolicy.workers import Facts

logger = logging.getLogger("ldappolicy.serve")


@click.command("serve")
@click.option("--control", type=int, hidden=True, help="A worker, whose supervisor is at this descriptor.")
@click.pass_obj
def command(context: Context, control: int | None) -> None:
    """Answers Postfix (check_policy_service) until SIGTERM."""
    _open_standard_streams()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(context) if control is None else workers.serve(control, _facts))


def _open_standard_streams() -> None:
    """Those that are closed: libuv aborts when a socket of its own has such a number."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)


async def _serve(context: Context) -> None:
    systemd = take(os.environ)
    config, timing = context.load(), context.timing or DEFAULT_TIMING

    def say(facts: Facts, web: Web | None) -> None:
        try:
            _say_started(facts, web, context, is_unattended=bool(systemd.address))
        except (OSError, UnicodeEncodeError) as problem:
            logger.warning("not said on standard output what is served: %s", problem)
            _discard_output()

    if worker_count(config) == 1:
        daemon = Daemon(config, context.load, systemd=systemd, timing=timing)
        await daemon.run(lambda daemon: say(_facts(daemon), daemon.web))
    else:
        # The same program again, however it was called.
        command = [sys.executable, *sys.orig_argv[1:], "--control"]
        supervisor = Supervisor(context.path, command, systemd=systemd, timing=timing)
        await supervisor.run(lambda facts: say(facts, supervisor.web))


def _discard_output() -> None:
    """What could not be written would be tried again at the end, and spoil the exit status."""
    descriptor = os.open(os.devnull, os.O_WRONLY)
    os.dup2(descriptor, 1)
    os.close(descriptor)


def _say_started(facts: Facts, web: Web | None, context: Context, *, is_unattended: bool) -> None:
    """What is being served, and lines to try against it, but for a journal."""
    if sys.__stdout__ is None:
        return  # it was closed
    if facts["is_json"]:
        event = {"time": round(time.time(), 3), "level": "info", "logger": "ldappolicy", "text": "serving"}
        rows = [*facts["rows"], *([("metrics", _metrics(web))] if web is not None else [])]
        click.echo(json.dumps(event | dict(rows)))
        return
    console = Console(file=sys.stdout, highlight=False, soft_wrap=True)
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts["rows"]:
        table.add_row(name, escape(value))
    if web is not None:
        table.add_row("metrics", escape(_metrics(web)))
    console.print("[bold]ldappolicy[/bold] is serving")
    console.print(table)
    if facts["is_embedded"] and not is_unattended:
        console.print("Try, in another terminal:")
        for line in _lines_to_try(facts, context):
            console.print(escape(line), soft_wrap=True)
    sys.stdout.flush()


def _metrics(web: Web) -> str:
    return f"http://{str(web.address).removeprefix('inet:')}/metrics"


def _facts(daemon: Daemon) -> Facts:
    """What is said of a service that answers; JSON has all of it."""
    inet = next((address for address in daemon.server.addresses if isinstance(address, Inet)), None)
    return {
        "rows": _rows(daemon),
        "is_embedded": isinstance(daemon.directory, LdifDirectory),
        "is_json": daemon.config.log.format == "json",
        "inet": (inet.host, inet.port) if inet is not None else None,
    }


def _rows(daemon: Daemon) -> list[tuple[str, str]]:
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
        *([("workers", str(worker_count(daemon.config)))] if daemon.config.server.workers != 1 else []),
    ]


def _directory(daemon: Daemon) -> str:
    directory = daemon.directory
    if isinstance(directory, LdifDirectory):
        return f"{daemon.config.directory.uri[0]}, {directory.entry_count} entries"
    assert isinstance(directory, LdapDirectory)
    return directory.describe()


def _lines_to_try(facts: Facts, context: Context) -> list[str]:
    """Requests about the example company: a restricted user, a protected list, the socket itself."""
    call = f"  {shlex.join([sys.argv[0], '-c', str(context.path), 'eval'])}"
    lines = [
        f"{call} --explain sasl_username=amy sender=amy@my.domain recipient=friend@elsewhere.example",
        f"{call} sender=stranger@elsewhere.example recipient=all@my.domain",
        f"{call} sender=joe@my.domain recipient=jane@my.domain",
    ]
    if facts["inet"] is not None:
        host, port = facts["inet"]
        request = (
            r"request=smtpd_access_policy\nprotocol_state=RCPT\n"
            r"sender=stranger@elsewhere.example\nrecipient=all@my.domain\n\n"
        )
        lines.append(f"  bash -c 'exec 3<>/dev/tcp/{host}/{port}; printf \"{request}\" >&3; head -n 1 <&3'")
    return lines
