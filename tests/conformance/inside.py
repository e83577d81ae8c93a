"""A pair decided in this process, without Postfix: the requests of its session, and what lint says of it."""

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path

from ldappolicy.directory.ldif import LdifDirectory
from ldappolicy.directory.plan import Planner, Where
from ldappolicy.entry import normal_dn
from ldappolicy.evaluate import Choices, Evaluator
from ldappolicy.facts import Lookup, Outcome
from ldappolicy.lint import lint
from ldappolicy.mapping import Mapping
from ldappolicy.policy import read_policies
from ldappolicy.request import Request
from ldappolicy.service import Settings
from tests.conformance import BASE, POLICY_BASE
from tests.conformance.pairs import Pair, entries
from tests.language import Site, nothing

POLICY = "pair"


class Inside(Site):
    """A directory, and the evaluator over it; `policy` is the default one."""

    def __init__(self, ldif: bytes, base: str, policy_base: str, policy: str = "default") -> None:
        self.base = base
        self.bases = (normal_dn(base), normal_dn(policy_base))
        self.directory = LdifDirectory.parse(ldif, "test")
        self.policies = read_policies(list(self.directory), self.bases)
        mapping = Mapping()
        self.evaluator = Evaluator(
            self.policies, mapping, Choices(policy, permit_ok=False, on_unavailable="defer")
        )
        self.planner = Planner(Where(base), mapping)
        self.missed = self.stale = nothing
        self.one_by_one = self.has_chain = self.tells_apart = False
        self.rounds = []
        self._known: dict[Lookup, Outcome] = {}

    def ask(self, lookups: Sequence[Lookup]) -> dict[Lookup, Outcome]:
        """Each only once: the directory stays as it is."""
        self._known.update(super().ask([lookup for lookup in lookups if lookup not in self._known]))
        return {lookup: self._known[lookup] for lookup in lookups}

    def lint(self) -> list[str]:
        """What lint finds wrong with its policy."""
        found = asyncio.run(
            lint(self.policies, self.directory, Settings(*self.bases, Mapping()), Where(self.base))
        )
        return [str(fault) for fault in found]

    def answers(self, pair: Pair) -> Iterator[tuple[str, str | None]]:
        """The action for each request of the session, from one call and from a call of each list."""
        for request in requests(pair):
            for context in (POLICY, *(f"{POLICY}/{name}" for name, text in pair.lists.items() if text)):
                asked = {**request, "policy_context": context}
                yield request["protocol_state"], self.resolve(Request.from_attributes(asked)).action


def of_pair(pair: Pair) -> Inside:
    """The directory of a pair."""
    return Inside("\n".join(entries(pair, POLICY)).encode(), BASE, POLICY_BASE, POLICY)


def company(ldif: Path) -> Inside:
    """The example company."""
    return Inside(ldif.read_bytes(), "dc=example,dc=com", "ou=policy,dc=example,dc=com")


def requests(pair: Pair) -> Iterator[dict[str, str]]:
    """What Postfix would ask, with smtpd_delay_reject, if it accepted everything."""
    said = pair.session
    names = {"[UNAVAILABLE]": "unknown", "[TEMPUNAVAIL]": "unknown"}
    name = said.client["name"]
    always = {
        "protocol_name": "ESMTP",
        "client_address": said.client["addr"],
        "client_name": names.get(name, name),
        "reverse_client_name": said.client.get("reverse_name", names.get(name, name)),
        "helo_name": said.helo or "",
        "sasl_username": said.login,
        "sasl_method": "PLAIN" if said.login else "",
    }
    if said.etrn:
        yield {**always, "protocol_state": "ETRN", "etrn_domain": said.etrn}
    for transaction in said.transactions:
        now = {**always, "sender": transaction.sender}
        for recipient in transaction.recipients:
            yield {**now, "protocol_state": "RCPT", "recipient": recipient}
        count = str(len(transaction.recipients))
        for state in ("DATA", "END-OF-MESSAGE") if transaction.data else ():
            yield {**now, "protocol_state": state, "recipient_count": count}
