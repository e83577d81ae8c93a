"""Targets: what a service remembers of earlier requests, and what it writes of decisions.

Every request of an input goes to one service, which keeps what it can of replies, lists and answers, and to
an evaluator made for it alone, which keeps nothing: both have to decide the same.
"""

import ast
import asyncio
import json
import re
from functools import cache
from select import PIPE_BUF

from ldappolicy.decision_log import DecisionLog, shown_of
from ldappolicy.directory.plan import Planner, Where
from ldappolicy.evaluate import Choices, Decision, Evaluator
from ldappolicy.log import Lines
from ldappolicy.protocol import RequestReader, encode_reply
from ldappolicy.request import Request
from ldappolicy.resolver import Limits, Resolver
from ldappolicy.service import Service, Settings
from tests.fuzz.target import Target
from tests.fuzz.wire import written
from tests.language import (
    AMY,
    BASE,
    BOB,
    CAL,
    GENERIC,
    POLICY_BASE,
    Site,
    classes,
    entry,
    group,
    person,
    policy,
    table,
)

MOST = 4
"""Requests of one input that are asked."""

DIRECTORY = [
    person("amy", smtpdSenderAccess="inside"),
    person("bob", smtpdSendAs=AMY, smtpdRecipientAccess="known"),
    person("cal", "cal@my.domain", "alias@my.domain"),
    group("g", [AMY, CAL], smtpdMemberSenderAccess="known"),
    group("all", [AMY], mail="all@my.domain", owner=BOB, smtpdRecipientAccess="members"),
    entry("dc=my", associatedDomain="my.domain", smtpdRecipientAccess="helo"),
    *classes(
        inside="check_recipient_access ldap:local, reject",
        known="check_sasl_access ldap:t, check_sender_access ldap:t, reject",
        members="check_sasl_access recipient:members, check_sender_access recipient:owners, reject",
        helo="check_helo_access inline:{bad.example=REJECT}, check_client_access inline:{192.0.2.9=HOLD}",
    ),
    table("t", "b.example DUNNO", "amy DEFER_IF_REJECT later", "192.0.2.8 PREPEND X: y"),
    table("local", "my.domain DUNNO"),
]

POLICIES = [
    policy(
        sender="check_sasl_access directory:access, check_sender_access directory:access, "
        "check_helo_access inline:{h.example=DUNNO}, reject_sender_login_mismatch",
        recipient="check_recipient_access directory:access, check_client_access ldap:t, permit_mynetworks, "
        "permit_sasl_authenticated, reject_non_fqdn_sender, check_recipient_access ldap:t",
        smtpdMynetworks="192.0.2.0/24, !198.51.100.1, inside.example",
        smtpdMyorigin="my.domain",
        smtpdLocalDomains="ldap:local",
        smtpdRecipientDelimiter="+",
    ),
    policy("plain", client="check_client_access inline:{{192.0.2.7=REJECT 5.7.1 no}, a.example=HOLD}"),
    policy("tls", data="check_ccert_access inline:{ab=REJECT}, check_sender_access ldap:t", helo="helo"),
]


@cache
def _site() -> Site:
    return Site(DIRECTORY, POLICIES)


def _requests(data: bytes) -> list[Request]:
    reader = RequestReader(16_384)
    return reader.feed(data)[:MOST]


def remembered(data: bytes) -> str:
    """What is remembered of earlier requests never decides a later one otherwise."""
    requests = _requests(data)
    return asyncio.run(_all_alike(requests)) if requests else "no request"


async def _all_alike(requests: list[Request]) -> str:
    site = _site()
    resolver = Resolver(site.directory, Planner(Where(BASE), GENERIC), Limits(), lambda: 0.0)
    service = Service(resolver, Settings(BASE, POLICY_BASE, GENERIC))
    await service.reload()
    expected = {request: await _afresh(site, request) for request in requests}
    said = set()
    for request in [*requests, *requests]:
        answered = service.answer(written(request))
        now = service.decide_now(request)
        assert now is None or expected[request] == encode_reply(now), request
        if isinstance(answered, bytes):
            assert expected[request] == answered, request
        else:
            assert answered in (None, request)
            action = await service.decide(request)
            assert action is not None
            assert expected[request] == encode_reply(action), request
        said.add(type(answered).__name__)
    return f"{sorted(said)} {[reply[7:20] for reply in expected.values()][:2]}"


async def _afresh(site: Site, request: Request) -> bytes:
    """The reply of an evaluator that has seen nothing before."""
    evaluator = Evaluator(site.policies, GENERIC, Choices("default"))
    resolver = Resolver(site.directory, Planner(Where(BASE), GENERIC), Limits(), lambda: 0.0)
    while not isinstance(decision := evaluator.evaluate(request, resolver.facts()), Decision):
        await resolver.fetch(decision.lookups)
    assert decision.action is not None
    return encode_reply(decision.action)


# ---------------------------------------------------------------- what is written of them

_FIELD = re.compile(r"([a-z_]+)=('(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|[^ '\"]*)(?: |$)")


def fields_of(line: str) -> dict[str, str]:
    """The fields of a decision's line: bare values, or string literals of Python."""
    text = line.removeprefix("decision: ")
    fields: dict[str, str] = {}
    at = 0
    while at < len(text):
        found = _FIELD.match(text, at)
        assert found is not None, text[at : at + 80]
        name, value = found[1], found[2]
        assert name not in fields, line
        fields[name] = ast.literal_eval(value) if value[:1] in ("'", '"') else value
        at = found.end()
    return fields


class _Kept(Lines):
    """Keeps the last line."""

    line = ""

    def put(self, line: str) -> None:
        """In the place of writing it."""
        self.line = line


def decision_line(data: bytes) -> str:
    """Whatever a request holds is read back from its line, in either form; a line is one line."""
    for request in _requests(data):
        texts = (request.helo_name, request.tls_sni)
        decision = Decision(texts[0], policy=texts[1], restriction=texts[0], dn=texts[1], shadowed=texts)
        for form in ("text", "json"):
            lines = _Kept(-1)
            decisions = DecisionLog("all", form, lines, lambda: "id", is_shadow=True)
            decisions.write(decisions.alike(request, decision), shown_of(request), 0.5, 1.0)
            assert lines.line.isprintable(), lines.line
            assert len(lines.line.encode()) < PIPE_BUF
            if sum(map(len, request)) > 300:
                continue  # it is cut
            _read_back(request, json.loads(lines.line) if form == "json" else fields_of(lines.line), form)
    return "written"


def _read_back(request: Request, fields: dict[str, str], form: str) -> None:
    if form == "json":
        request = Request._make(value.encode("utf-8", "backslashreplace").decode() for value in request)
    sender, recipient = request.sender, request.recipient
    if form == "text":
        sender, recipient = f"<{sender}>", f"<{recipient}>"
    assert (sender, recipient, request.sasl_username) == (
        fields["sender"],
        fields["recipient"],
        fields["login"],
    )
    assert fields["client"] == f"{request.client_name}[{request.client_address}]"
    assert fields["policy"] == fields["dn"] == request.tls_sni
    assert fields["state"] == request.protocol_state
    place = "queue_id" if request.queue_id else "instance"
    assert fields[place] == (request.queue_id or request.instance)


TARGETS = (Target("remembered", remembered), Target("decision_log", decision_line))
