"""Groups that are defined by a memberURL: their URLs read once, and bounded in number and size.

Whoever may write a memberURL writes what is looked at for everybody else. What cannot be read, or is over
the bounds, covers nobody knows whom, and says why; whom that concerns is for `identity` to tell.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from ldappolicy.entry import Entry, is_below, normal_dn
from ldappolicy.errors import InputError
from ldappolicy.ldap_filter import parse_url
from ldappolicy.memories import BOUNDS, Memory, size_of

MAX_URLS = 100
"""memberURLs of one group; each in whose scope an entry is means a search for that entry."""

MAX_URLS_IN_ALL = 5000
MAX_LETTERS_IN_ALL = 256 * 1024
"""What is read of all groups together, those with little first."""

LONGEST_REASON = 1000
"""Characters of what is said of a URL, which may be of any length."""


@dataclass(frozen=True, slots=True)
class MemberUrl:
    """One memberURL; `reason` is why it cannot be told whom it covers of those in its scope.

    `scope` and `base` are those of `ldap_filter.LdapUrl`, the base in normal form; everything is below "".
    """

    text: str
    scope: int = 2
    base: str = ""
    reason: str = ""

    def holds(self, key: str) -> bool:
        """Whether an entry of that normal DN is in its scope."""
        if self.scope == 0:
            return key == self.base
        if not is_below(key, self.base):
            return False
        return self.scope == 2 or (key != self.base and key.partition(",")[2] == self.base)


DynamicGroup = tuple[Entry, tuple[MemberUrl, ...]]


DYNAMIC_GROUPS: Memory[tuple[tuple[Entry, ...], tuple[str, ...]], tuple[DynamicGroup, ...]] = Memory(
    BOUNDS["dynamic groups"]
)
URL_BYTES = 500
"""Of one URL that was read, without its text; the groups belong to the answer that they came in."""


def dynamic_groups(groups: tuple[Entry, ...], bases: tuple[str, ...]) -> tuple[DynamicGroup, ...]:
    """The groups, each with its URLs; `bases` are the normal DNs below which these may search."""
    known = DYNAMIC_GROUPS.get((groups, bases))
    if known is None:
        known = tuple(_read(groups, bases))
        texts = [url.text for _, urls in known for url in urls]
        DYNAMIC_GROUPS.keep((groups, bases), known, URL_BYTES * len(texts) + size_of(*texts))
    return known


def _read(groups: tuple[Entry, ...], bases: tuple[str, ...]) -> Iterator[DynamicGroup]:
    left, letters = MAX_URLS_IN_ALL, MAX_LETTERS_IN_ALL
    for group in sorted(groups, key=_letters):
        texts = group.values("memberURL")
        left, letters = left - len(texts), letters - _letters(group)
        reason = ""
        if len(texts) > MAX_URLS:
            reason = f"{group.dn} has {len(texts)} values of memberURL, expected at most {MAX_URLS}"
        elif min(left, letters) < 0:
            reason = f"{group.dn}: there are too many values of memberURL in all"
        urls = (MemberUrl("", reason=reason),) if reason else tuple(_read_url(text, bases) for text in texts)
        yield group, urls


def _letters(group: Entry) -> int:
    return sum(map(len, group.values("memberURL")))


def _read_url(text: str, bases: tuple[str, ...]) -> MemberUrl:
    """One URL; one that does not parse may cover anybody."""
    try:
        url = parse_url(text)
        base = normal_dn(url.base)
    except InputError as fault:
        return MemberUrl(text, reason=f"memberURL: {fault}"[:LONGEST_REASON])
    reason = ""
    if bases and not any(is_below(base, allowed) for allowed in bases):
        reason = f"memberURL {text!r}: its base is neither below search_base nor below policy_base"
    return MemberUrl(text, url.scope, base, reason)
