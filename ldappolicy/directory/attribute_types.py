"""What a server's schema says of attributes: AttributeTypeDescription, RFC 4512 section 4.1.2."""

import re
from collections.abc import Iterable, Iterator

_EXACT = {"caseexactmatch": "caseIgnoreMatch", "caseexactia5match": "caseIgnoreIA5Match"}
"""Rules that tell case apart, and those of the same syntax that do not (RFC 4517 section 4.2)."""

_OID = re.compile(r"\(\s*([0-9.]+)")
_NAME = re.compile(r"\bNAME\s+(?:'([^']+)'|\(([^)]*)\))")
_SUPERIOR = re.compile(r"\bSUP\s+([^\s)]+)")
_EQUALITY = re.compile(r"\bEQUALITY\s+([^\s)]+)")


def names_in(definition: str) -> Iterator[str]:
    """Names, in lower case, and OID."""
    if oid := _OID.match(definition):
        yield oid[1]
    if found := _NAME.search(definition):
        yield from (found[1] or found[2]).replace("'", "").lower().split()


def exact_in(definitions: Iterable[str]) -> frozenset[tuple[str, str]]:
    """The attributes that are compared with case, or inherit that, each with the rule that does without."""
    exact: dict[str, str] = {}
    heirs: list[tuple[str, str]] = []
    for text in definitions:
        equality = _EQUALITY.search(text)
        if equality is not None and (rule := _EXACT.get(equality[1].lower())):
            exact.update(dict.fromkeys(names_in(text), rule))
        elif equality is None and (superior := _SUPERIOR.search(text)):
            heirs.append((superior[1].lower(), text))
    while inherited := [(exact[above], text) for above, text in heirs if above in exact]:
        heirs = [(above, text) for above, text in heirs if above not in exact]
        for rule, text in inherited:
            exact.update(dict.fromkeys(names_in(text), rule))
    return frozenset(exact.items())
