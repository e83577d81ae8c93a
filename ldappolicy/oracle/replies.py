"""What Postfix said, compared: replies, and what smtpd logs of HOLD and its like; what has to be the same.

What stands in front of a text (`<a@b>: Sender address rejected: `) names the list that refused, and is
left out.
"""

import re
from collections.abc import Iterable


def parts(reply: str) -> tuple[str, str | None, str]:
    """The code, the enhanced code, and the text behind `rejected: `, else behind `<...>: `."""
    match = re.fullmatch(r"(\d{3}) (?:(\d\.\d{1,3}\.\d{1,3}) )?(.*)", reply, re.DOTALL)
    if match is None:
        return reply, None, ""
    code, enhanced, text = match.groups()
    _, rejected, behind = text.partition("rejected: ")
    return code, enhanced, behind if rejected else re.sub(r"^<[^>]*>: ", "", text)


def says(reply: str) -> tuple[str | None, ...]:
    """What has to be the same: of a reply that is none of success, code and text; of a success, the code."""
    found = parts(reply)
    return found[:1] if found[0].startswith("2") else found


def is_of_address(enhanced: str | None) -> bool:
    """x.1.y and x.0.y: smtpd maps them by the list that refuses (smtpd_dsn_fix.c)."""
    return enhanced is not None and re.fullmatch(r"[45]\.[01]\.\d+", enhanced) is not None


def effective(actions: Iterable[str]) -> frozenset[str]:
    """What they come to: DISCARD ends everything, the last FILTER and REDIRECT win, HOLD twice is HOLD."""
    last: dict[str, str] = {}
    for action in actions:
        verb = action.partition(" ")[0].upper()
        if verb == "DISCARD":
            return frozenset({verb})
        last[verb if verb in ("FILTER", "REDIRECT") else action] = verb if verb == "HOLD" else action
    return frozenset(last.values())
