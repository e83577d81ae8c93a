"""ldappolicy with a fault in it: `python -m tests.conformance.faulty FAULT -c FILE serve`.

The search for differences has to find each of these; otherwise it would not find what nobody planted.
"""

import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from ldappolicy import policy, service, tables
from ldappolicy.action import Action, Kind, parse_action
from ldappolicy.address import AddressKeys, address_keys
from ldappolicy.cli import main
from ldappolicy.policy import Broken, PolicySet, RestrictionClass, read_policies


def key_order() -> None:
    """Keys of an address are tried from the most general to the most exact."""

    def wrong(address: str, delimiters: str, parents: bool) -> AddressKeys:
        keys, exact = address_keys(address, delimiters, parents)
        return AddressKeys(keys[::-1], exact)

    vars(tables)["address_keys"] = wrong


def dunno_is_ok() -> None:
    """DUNNO ends a list."""

    def wrong(value: str) -> Action:
        action = parse_action(value)
        return replace(action, kind=Kind.PERMIT) if action.kind is Kind.DUNNO else action

    vars(policy)["parse_action"] = vars(tables)["parse_action"] = wrong


class _AnyCase(dict[str, RestrictionClass | Broken]):
    def get(self, name: str, default: object = None) -> Any:
        return next((found for known, found in self.items() if known.lower() == name.lower()), default)


def classes_without_case() -> None:
    """A class is found by its name in any case."""

    def wrong(*given: Any) -> PolicySet:
        policies = read_policies(*given)
        return replace(policies, classes=_AnyCase(policies.classes))

    vars(service)["read_policies"] = wrong


FAULTS: Mapping[str, Callable[[], None]] = {
    "key-order": key_order,
    "dunno-is-ok": dunno_is_ok,
    "classes-without-case": classes_without_case,
}

if __name__ == "__main__":
    FAULTS[sys.argv.pop(1)]()
    main()
