"""SMTP replies compared: what of two of them has to be the same.

What stands in front of a text (`<a@b>: Sender address rejected: `) names the list that refused, and is
left out.
"""

import re


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
