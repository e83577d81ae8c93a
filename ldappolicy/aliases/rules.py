"""Which rule the policy has for a recipient address: what its check_recipient_access find, asked one by one.

The evaluator answers, over a policy that has nothing but these checks: what it finds for an address is what a
request would meet. A rule that lets everybody through is none.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ldappolicy.action import Kind, parse_action
from ldappolicy.evaluate import Choices, Evaluator, Lacking
from ldappolicy.facts import Lookup, Missed, Outcome
from ldappolicy.foresight import kinds_of
from ldappolicy.mapping import Mapping as AttributeMapping
from ldappolicy.policy import Item, Policy, PolicySet, RestrictionClass, Table
from ldappolicy.request import Request
from ldappolicy.resolver import Resolver

AT_ONCE = 500
"""Addresses whose lookups are asked for together."""

ROUNDS = 200
"""As many as a request may take: each goes one level of groups further."""

_PROBE = "lint"
_STAGES = ("client", "helo", "sender", "relay", "recipient")


@dataclass(frozen=True, slots=True)
class Rule:
    """What is found for an address, and the entry (or the table) that has it."""

    value: str
    source: str


class RecipientRules:
    """The rules of one policy; `of` asks for some addresses."""

    def __init__(
        self, policy: Policy, policies: PolicySet, mapping: AttributeMapping, resolver: Resolver
    ) -> None:
        self._policies = policies
        self._resolver = resolver
        self.items = tuple(self._checks(policy))
        probe = replace(policy, name=_PROBE, lists={"recipient": self.items})
        only = replace(policies, policies={_PROBE: probe})
        self._evaluator = Evaluator(only, mapping, Choices(_PROBE))
        self._known: dict[str, Rule | None] = {}

    def _checks(self, policy: Policy) -> Iterator[Item]:
        """The checks of recipients in its lists, and in classes that these name."""
        seen: set[str] = set()
        for stage in _STAGES:
            waiting = list(policy.lists.get(stage, ()))
            while waiting:
                item = waiting.pop(0)
                found = self._policies.classes.get(item.name)
                if kinds_of(item, stage) == ("recipient",):
                    yield Item("check_recipient_access", item.table)
                elif isinstance(found, RestrictionClass) and item.name not in seen:
                    seen.add(item.name)
                    waiting = [*found.items, *waiting]

    def tables(self) -> Iterator[Table]:
        """The tables of the directory among them."""
        for item in self.items:
            if item.table is not None and item.table.type == "ldap":
                found = self._policies.tables.get(item.table.name.casefold())
                if isinstance(found, Table):
                    yield found

    async def of(self, addresses: Iterable[str]) -> Mapping[str, Rule | None]:
        """The rule for each address, None for none."""
        wanted = [one for one in dict.fromkeys(addresses) if one not in self._known]
        for at in range(0, len(wanted), AT_ONCE):
            await self._ask(wanted[at : at + AT_ONCE])
        return self._known

    async def _ask(self, addresses: list[str]) -> None:
        here: dict[Lookup, Outcome] = {}
        for number in range(ROUNDS):
            lacking: dict[Lookup, None] = {}
            for address in addresses:
                trace: list[dict[str, Any]] = []
                found = self._evaluate(address, here, trace)
                if isinstance(found, Lacking):
                    lacking |= dict.fromkeys(found.lookups)
                else:
                    self._known[address] = self._rule(trace, bool(found.outages))
            if not lacking:
                return
            addresses = [one for one in addresses if one not in self._known]
            if number < ROUNDS - 2:
                here |= await self._resolver.fetch(lacking)
            else:
                here |= dict.fromkeys(lacking, Missed("groups are nested too deep"))

    def _evaluate(self, address: str, here: Mapping[Lookup, Outcome], trace: list[dict[str, Any]]) -> Any:
        facts = self._resolver.facts().asking(lambda lookup: here.get(lookup) or self._resolver.known(lookup))
        request = Request.from_attributes({"protocol_state": "RCPT", "recipient": address})
        return self._evaluator.evaluate(request, facts, trace)

    def _rule(self, trace: list[dict[str, Any]], is_unavailable: bool) -> Rule | None:
        """The first answer of a table of the policy's own lists that restricts anybody."""
        depth = next((event["depth"] for event in trace if "restriction" in event), 0)
        for event in trace:
            is_own = "table" in event and event["depth"] == depth and event.get("result") == "found"
            if is_own and self._restricts(event["value"], set()):
                return Rule(event["value"], "".join(event["dn"]) or event["table"])
        return Rule("", "nobody knows which") if is_unavailable else None

    def _restricts(self, value: str, around: set[str]) -> bool:
        action = parse_action(value)
        if action.kind is not Kind.LIST:
            return action.kind not in (Kind.PERMIT, Kind.DUNNO, Kind.LOG)
        return any(self._item_restricts(token, around) for token in action.tokens if ":" not in token)

    def _item_restricts(self, name: str, around: set[str]) -> bool:
        """Whether a restriction may refuse: those that permit cannot, nor a class of nothing else."""
        found = self._policies.classes.get(name)
        if isinstance(found, RestrictionClass) and name not in around:
            items = [item for item in found.items if item.name]
            return any(
                self._table_restricts(item) and self._item_restricts(item.name, around | {name})
                for item in items
            )
        return not name.lower().startswith("permit")

    def _table_restricts(self, item: Item) -> bool:
        table = item.table
        return table is None or table.type != "static" or self._restricts(table.name, set())
