"""What smtpd(8) makes of restriction lists, as far as replies of a policy service depend on it.

A model of generic_checks and its callers (smtpd_check.c), to hold replies against: it runs the lists of a
policy as Postfix would have them in main.cf, and a reply as Postfix runs it inside its recipient list. What
is left to Postfix is decided by a `World`: restriction as written, and what Postfix finds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto

from ldappolicy.action import split_list


class Finding(Enum):
    """What one restriction comes to."""

    DUNNO = auto()
    OK = auto()
    PERMANENT = auto()
    TEMPORARY = auto()
    DEFER_IF_PERMIT = auto()
    DEFER_IF_REJECT = auto()
    HOLD = auto()
    DISCARD = auto()


F = Finding
World = Mapping[str, Finding]

CAN_BE: Mapping[str, tuple[Finding, ...]] = {
    "permit_inet_interfaces": (F.DUNNO, F.OK),
    "permit_tls_all_clientcerts": (F.DUNNO, F.OK),
    "reject_rbl_client x.example": (F.DUNNO, F.PERMANENT),
    "reject_unauth_pipelining": (F.DUNNO, F.PERMANENT),
    "reject_unknown_sender_domain": (F.DUNNO, F.PERMANENT, F.TEMPORARY, F.DEFER_IF_PERMIT),
    "reject_unlisted_recipient": (F.DUNNO, F.PERMANENT, F.TEMPORARY),
}
"""Restrictions left to Postfix, and what it may find."""

KNOWN: Mapping[str, Finding] = {
    "permit": F.OK,
    "reject": F.PERMANENT,
    "defer": F.TEMPORARY,
    "defer_if_permit": F.DEFER_IF_PERMIT,
    "defer_if_reject": F.DEFER_IF_REJECT,
    "reject_non_fqdn_sender": F.PERMANENT,
    "reject_plaintext_session": F.TEMPORARY,
}
"""Restrictions as they are for a sender without a domain over a connection without TLS."""

ACTIONS: Mapping[str, Finding] = {
    "OK": F.OK,
    "DUNNO": F.DUNNO,
    "REJECT": F.PERMANENT,
    "REJECT 5.7.1 no": F.PERMANENT,
    "550 no": F.PERMANENT,
    "DEFER": F.TEMPORARY,
    "450 later": F.TEMPORARY,
    "DEFER_IF_PERMIT dip": F.DEFER_IF_PERMIT,
    "DEFER_IF_REJECT dir": F.DEFER_IF_REJECT,
    "HOLD": F.HOLD,
    "DISCARD": F.DISCARD,
}
"""Actions that a table may hold, and a reply may be."""


def in_table(action: str) -> str:
    """The restriction that looks an action up."""
    return f"check_client_access static:{{{action}}}"


@dataclass(frozen=True)
class Verdict:
    """What the SMTP client is told, and what becomes of the message."""

    finding: Finding
    effects: frozenset[Finding] = frozenset()


@dataclass
class Smtpd:
    """The flags of one SMTP session while one recipient is checked."""

    world: World
    defer_if_permit: bool = False
    defer_if_reject: bool = False
    effects: set[Finding] = field(default_factory=set)
    trail: list[str] = field(default_factory=list)

    def run(self, items: Sequence[tuple[bool, Finding]]) -> Finding:
        """One list: pairs of whether warn_if_reject stands before, and what the restriction comes to."""
        for warned, finding in items:
            status = self._one(warned, finding)
            if status is not F.DUNNO:
                return status
            if self.defer_if_permit and self.defer_if_reject:
                break
        return F.DUNNO

    def _one(self, warned: bool, finding: Finding) -> Finding:
        if finding in (F.PERMANENT, F.TEMPORARY):
            if warned:
                return F.DUNNO
            return F.TEMPORARY if self.defer_if_reject else finding
        if finding is F.DEFER_IF_PERMIT:
            self.defer_if_permit = self.defer_if_permit or not warned
        elif finding is F.DEFER_IF_REJECT:
            self.defer_if_reject = True
        elif finding is F.HOLD:
            self.effects.add(finding)
        elif finding is F.DISCARD:
            self.effects.add(finding)
            return F.OK
        return F.OK if finding is F.OK else F.DUNNO

    def verdict(self, status: Finding) -> Verdict:
        """What the recipient gets once all lists are done."""
        if status in (F.PERMANENT, F.TEMPORARY):
            return Verdict(status)
        return Verdict(F.TEMPORARY) if self.defer_if_permit else Verdict(F.OK, frozenset(self.effects))


ORDER = ("client", "helo", "sender", "relay", "recipient")


def natively(lists: Mapping[str, str], world: World) -> Verdict:
    """The lists of main.cf at RCPT, with smtpd_delay_reject=yes."""
    smtpd = Smtpd(world)
    for name in ORDER:
        if F.DISCARD in smtpd.effects:
            break
        if name != "recipient":
            smtpd.defer_if_reject = False
        status = smtpd.run(parsed(lists.get(name, ""), world))
        if status in (F.PERMANENT, F.TEMPORARY):
            return Verdict(status)
    return smtpd.verdict(F.DUNNO)


def replied(action: str, world: World) -> Verdict:
    """A reply of a policy service that is all that the recipient list has."""
    smtpd = Smtpd(world)
    if action in ACTIONS:
        return smtpd.verdict(smtpd.run([(False, ACTIONS[action])]))
    if action.startswith("451 "):
        return Verdict(F.TEMPORARY)
    return smtpd.verdict(smtpd.run(parsed(action, world)))


def parsed(text: str, world: World) -> list[tuple[bool, Finding]]:
    """A list as pairs for `Smtpd.run`; a name that nobody knows fails."""
    waiting = iter(split_list(text))
    items = []
    warned = False
    for name in waiting:
        if name == "warn_if_reject":
            warned = True
            continue
        items.append((warned, _finding(name, waiting, world)))
        warned = False
    return items


def _finding(name: str, waiting: "Sequence[str] | object", world: World) -> Finding:
    if name in KNOWN:
        return KNOWN[name]
    if name in world:
        return world[name]
    argument = next(iter(waiting))  # type: ignore[call-overload]
    if name == "check_client_access":
        return ACTIONS[argument.removeprefix("static:{").removesuffix("}")]
    return world[f"{name} {argument}"]
