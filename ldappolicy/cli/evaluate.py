"""`ldappolicy eval`: decides requests by the configured directory, and explains them."""

import asyncio
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any

import click

from ldappolicy import assembly
from ldappolicy.cli import EX_CONFIG, EX_TEMPFAIL, Context
from ldappolicy.config import Config
from ldappolicy.directory import Directory
from ldappolicy.errors import InputError
from ldappolicy.evaluate import Decision
from ldappolicy.log import escaped
from ldappolicy.protocol import RequestReader, encode_reply
from ldappolicy.request import Request
from ldappolicy.service import Service

DEFAULTS = {
    "protocol_state": "RCPT",
    "protocol_name": "ESMTP",
    "client_name": "unknown",
    "reverse_client_name": "unknown",
}

_IN_SHADOW = "DUNNO"
"""What is answered to everything with policy.shadow."""


@click.command("eval")
@click.option("--explain", is_flag=True, help="Add the path that led to each decision.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
@click.argument("attributes", nargs=-1, metavar="[ATTR=VALUE ...]")
@click.pass_obj
def command(context: Context, explain: bool, as_json: bool, attributes: tuple[str, ...]) -> int:
    """Decides one request given as ATTR=VALUE, or with - each request on standard input."""
    config = context.load()
    if attributes == ("-",):
        requests: Iterable[Request] = _read_requests(config.server.max_request_bytes)
    else:
        requests = [_request(attributes)]
    directory = assembly.open_directory(config)
    return asyncio.run(_decide_all(config, directory, requests, explain, as_json))


def _request(attributes: tuple[str, ...]) -> Request:
    """The request that the arguments describe."""
    given: dict[str, str] = {}
    for argument in attributes:
        name, equals, value = argument.partition("=")
        if not equals:
            raise click.UsageError(f"{argument!r} is no request attribute, expected ATTR=VALUE")
        if name not in Request._fields:
            raise click.UsageError(f"{name!r} is no request attribute, expected one that Postfix sends")
        if name in given:
            raise click.UsageError(f"{name!r} is given twice, expected one value")
        given[name] = value
    if given.get("sasl_username"):
        given.setdefault("sasl_method", "PLAIN")
    return Request.from_attributes({**DEFAULTS, **given})


def _read_requests(most: int) -> Iterator[Request]:
    """The requests of a stream in the policy protocol, as they come."""
    reader = RequestReader(most)
    while data := os.read(sys.stdin.fileno(), 65536):
        yield from reader.feed(data)
        if reader.error is not None:
            raise InputError(f"standard input: {reader.error}")
    reader.end()
    if reader.error is not None:
        raise InputError(f"standard input: {reader.error}")


async def _decide_all(
    config: Config, directory: Directory, requests: Iterable[Request], explain: bool, as_json: bool
) -> int:
    """Decides each; the worst of their exit statuses."""
    try:
        service = assembly.build_service(await assembly.settled(config, directory), directory)
        await service.reload()
        worst = 0
        for request in requests:
            trace: list[dict[str, Any]] | None = [] if explain or as_json else None
            decision = await service.resolve(request, trace)
            _print(service, decision, trace or [], as_json)
            worst = max(worst, _status(decision))
        return worst
    finally:
        await directory.close()


def _status(decision: Decision) -> int:
    if decision.error:
        return EX_CONFIG
    return EX_TEMPFAIL if decision.unavailable else 0


def _print(service: Service, decision: Decision, trace: list[dict[str, Any]], as_json: bool) -> None:
    for event in trace:
        if "known_at" in event:
            event["age"] = round(max(0.0, time.monotonic() - event.pop("known_at")), 3)
    if decision.error:
        click.echo(f"ldappolicy: server configuration error: {escaped(decision.error)}", err=True)
    elif decision.unavailable:
        click.echo(f"ldappolicy: unavailable: {escaped('; '.join(decision.outages))}", err=True)
    sent = _sent(decision)
    if service.settings.choices.shadow:
        click.echo(f"ldappolicy: in shadow: {_line(sent)} is not answered", err=True)
    if as_json:
        click.echo(json.dumps(_object(service, decision, trace)))
        return
    click.echo(f"action={_IN_SHADOW}" if service.settings.choices.shadow else _line(sent))
    for line in _explanation(decision, trace):
        click.echo(escaped(line))


def _sent(decision: Decision) -> str | None:
    """The action as `serve` would send it."""
    if decision.action is None:
        return None
    return encode_reply(decision.action).decode().removeprefix("action=").rstrip("\n")


def _line(action: str | None) -> str:
    return "(the connection is closed)" if action is None else f"action={action}"


def _object(service: Service, decision: Decision, trace: list[dict[str, Any]]) -> dict[str, Any]:
    """The decision; with policy.shadow `action` is what is answered, `decided` what would be without."""
    evaluator = service.evaluator
    sent = _sent(decision)
    actions = {"action": _IN_SHADOW, "shadow": True, "decided": sent}
    return {
        **(actions if service.settings.choices.shadow else {"action": sent}),
        "shadowed": decision.shadowed,
        "policy": decision.policy,
        "revision": evaluator.policies.revision if evaluator is not None else "",
        "restriction": decision.restriction,
        "dn": decision.dn,
        "trace": trace,
        **({"error": decision.error} if decision.error else {}),
        **({"notes": [*decision.notes, *decision.outages]} if decision.notes or decision.outages else {}),
    }


def _explanation(decision: Decision, trace: list[dict[str, Any]]) -> Iterator[str]:
    """The path, a line an event, indented by how deep the list is nested."""
    if not trace:
        return
    yield f"policy {decision.policy}"
    for event in trace:
        yield "  " * (event["depth"] + 1) + _event(event)
    for note in (*decision.notes, *decision.outages):
        yield f"  note: {note}"


def _event(event: dict[str, Any]) -> str:
    if "list" in event:
        return f"list {event['list']}"
    reason = f" ({event['reason']})" if event.get("reason") else ""
    if "restriction" in event:
        return f"{event['restriction']}: {event.get('result', '?')}{reason}"
    source = "".join(f" in {dn}" for dn in event.get("dn", ()))
    if "lookup" in event:
        if count := event.get("entries"):
            source = f", {count} {'entry' if count == 1 else 'entries'}"
        age = f", {event['age']:g} s old" if "age" in event else ""
        return f"    lookup {event['lookup']}: {event['result']}{source}{age}{reason}"
    value = repr(event["value"]) if "value" in event else event["result"]
    key = f" {event['key']}" if "key" in event else ""
    return f"    {event['table']}{key}: {value}{source}{reason}"
