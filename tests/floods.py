"""What fills each memory of `ldappolicy.memories` with the largest values that it takes, all different.

    python -m tests.floods NAME     the bytes of memory that the process has grown by, on standard output

Each goes the way by which such values come: nothing is put into a memory from outside. Letters are of four
bytes, and what is kept of a text is as long as may be.
"""

import gc
import logging
import sys
from collections.abc import Callable
from pathlib import Path

from ldappolicy import log
from ldappolicy.action import parse_action
from ldappolicy.address import parent_domains
from ldappolicy.counters import Tally
from ldappolicy.decision_log import DecisionLog, decision_ids
from ldappolicy.entry import Entry, normal_dn
from ldappolicy.evaluate import Decision
from ldappolicy.facts import Absent, Facts, Found, Lookup, Outcome
from ldappolicy.member_urls import MAX_URLS, dynamic_groups
from ldappolicy.memories import BOUNDS
from ldappolicy.protocol import encode_reply
from ldappolicy.ready import LONGEST, Ready, ReadyReplies
from ldappolicy.request import Request
from ldappolicy.tables import Subject
from tests.labs.deciding import Kept
from tests.language import Site, asked, entry, person, policy

WIDE = "\U0001f600"
ACCESS = policy(sender="check_sasl_access directory:access, check_sender_access directory:access")

Flood = Callable[[int], object]


def text(number: int, letters: int) -> str:
    """One of many, that long."""
    return f"{number}{WIDE * (letters - 8)}"


def address(number: int) -> str:
    """One whose keys are many and long, and which is short enough to be remembered."""
    return f"{number}@{f'{WIDE}.' * 55}example"


def conclusions() -> Flood:
    """Senders whom nobody has, each of a domain of its own."""
    site, known = Site(ACCESS), Facts(lambda lookup: Absent())
    return lambda number: site.evaluator.evaluate(asked(sender=f"{number:0>60}@{number:0>50}.example"), known)


def decisions() -> Flood:
    """Senders whose entries each say something else."""

    def get(lookup: Lookup) -> Outcome:
        uid = lookup[-1].partition("@")[0]
        if lookup[0] != "mail" or not uid.isdigit():
            return Absent()
        return Found((person(uid, smtpdSenderAccess=f"REJECT {text(int(uid), 200)}"),))

    site, known = Site(ACCESS), Facts(get)
    return lambda number: site.evaluator.evaluate(asked(sender=f"{number}@my.domain"), known)


def reasons() -> Flood:
    """Decisions of many texts."""
    decided = DecisionLog("all", "text", Kept(), decision_ids())
    return lambda number: decided.alike(Request(), Decision(text(number, 300), dn=WIDE * 200))


def dynamic() -> Flood:
    """Groups with as many URLs as are read."""

    def group(number: int, one: int) -> Entry:
        urls = [f"ldap:///ou=n{number},dc=x??sub?(uid={one}{at})" for at in range(MAX_URLS)]
        return entry(f"cn=g{one},ou=groups", memberURL=urls)

    return lambda number: dynamic_groups(tuple(group(number, one) for one in range(40)), ())


def ready() -> Flood:
    """Requests as long as may be."""
    replies = ReadyReplies()
    size = LONGEST - 300
    return lambda number: replies.keep(
        b"%d" % number + bytes(size), Ready(b"action=DUNNO\n\n", Tally()), size + 10, frozenset()
    )


def right_hand_sides() -> Flood:
    """Lists of many restrictions."""
    program = Site(ACCESS).evaluator._programs["default"]  # noqa: SLF001
    return lambda number: program.right_hand_side((f"unknown{number}", *["permit_auth_destination"] * 20))


def networks() -> Flood:
    """Clients with names as long as may be."""
    site = Site(policy(client="permit_mynetworks", smtpdMynetworks="192.0.2.0/24"))
    return lambda number: site.decide(client_name=text(number, 250), client_address="2001:db8::1")


def kinds() -> Flood:
    """Warnings of many kinds."""
    limited = log.Limited(logging.getLogger("nobody reads this"))
    return lambda number: limited.log(logging.DEBUG, "", key=text(number, 400))


FLOODS: dict[str, tuple[int, Callable[[], Flood], tuple[str, ...]]] = {
    "ready replies": (120_000, ready, ()),
    "conclusions": (200_000, conclusions, ("address keys", "parent domains")),
    "decisions": (40_000, decisions, ("actions", "conclusions", "address keys", "parent domains")),
    "names": (80_000, lambda: lambda number: normal_dn("cn=" + text(number, normal_dn.longest - 3)), ()),
    "attribute names": (30_000, lambda: lambda number: Entry("cn=x", {text(number, 250): ["x"]}), ()),
    "actions": (
        15_000,
        lambda: lambda number: parse_action(f"{number:06} {'a, ' * 999}"[: parse_action.longest]),
        (),
    ),
    "address keys": (20_000, lambda: lambda number: Subject((), exact=(address(number),)).keys, ()),
    "parent domains": (10_000, lambda: lambda number: parent_domains(address(number).partition("@")[2]), ()),
    "encoded replies": (3000, lambda: lambda number: encode_reply(text(number, encode_reply.longest)), ()),
    "reasons in the log": (10_000, reasons, ()),
    "seconds": (300_000, lambda: lambda number: log._stamp(float(number)), ()),  # noqa: SLF001
    "dynamic groups": (60, dynamic, ()),
    "clients in networks": (30_000, networks, ()),
    "right-hand sides": (2000, right_hand_sides, ()),
    "kinds of lines": (30_000, kinds, ()),
}
"""How many, who sends them, and what else remembers something of them."""


def resident() -> int:
    """Bytes of memory of this process."""
    gc.collect()
    status = Path("/proc/self/status").read_text("ascii")
    return int(status.partition("VmRSS:")[2].split()[0]) * 1024


def grown(name: str) -> int:
    """The bytes that a flood leaves behind."""
    count, make, _ = FLOODS[name]
    flood = make()
    flood(0)
    before = resident()
    for number in range(1, count):
        flood(number)
    return resident() - before


def bound(name: str) -> int:
    """The bytes that it may leave behind."""
    return sum(BOUNDS[one].size for one in (name, *FLOODS[name][2]))


if __name__ == "__main__":
    print(grown(sys.argv[1]))
