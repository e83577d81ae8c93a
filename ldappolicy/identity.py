"""People and groups: which entries an address, a login or a domain belongs to, and what those belong to.

Membership is tested from below: the groups around one entry are asked for, level by level, never the
members of a group. An entry belongs to a group that names it by DN or (memberUid) by login, that its own
memberOf names, or whose memberURL covers it; and to every group around such a group.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar, cast

from ldappolicy import facts
from ldappolicy.address import exact_forms, fold, parent_domains, split_address
from ldappolicy.entry import Entry, is_below, normal_dn
from ldappolicy.errors import InputError
from ldappolicy.evaluation import Evaluation, MissedLookup
from ldappolicy.ldap_filter import LdapUrl, parse_url

_R = TypeVar("_R")

MAX_NESTING = 1000
"""Groups around one entry, more than any directory has (recursion_limit of ldap_table(5))."""

Closure = dict[str, Entry | None]
"""Groups by normal DN; None where only the DN is known (a memberOf value without an entry to be seen)."""


def entries_of_address(evaluation: Evaluation, exact: Sequence[str]) -> tuple[Entry, ...]:
    """The entries that have the address, else those that have it without its extension."""
    for address in exact:
        entries = evaluation.lookup(facts.mail(address))
        if entries:
            return entries
    return ()


def entry_of_login(evaluation: Evaluation) -> Entry | None:
    """The one entry of the login; two are unavailable."""
    login = fold(evaluation.request.sasl_username)
    if not login:
        return None
    entries = evaluation.lookup(facts.login(login, evaluation.request.sasl_username))
    if not entries and "@" in login:
        entries = evaluation.lookup(facts.mail(login))
    if len(entries) > 1:
        raise MissedLookup(f"login {login!r} belongs to {len(entries)} entries: {_names(entries)}")
    return entries[0] if entries else None


def entries_of_recipient(evaluation: Evaluation) -> tuple[Entry, ...]:
    """The entries that the recipient address names, in the form that is being checked."""
    forms = (evaluation.form,) if evaluation.form is not None else evaluation.recipients
    for form in forms:
        entries = entries_of_address(evaluation, exact_forms(form, evaluation.around.delimiter))
        if entries:
            return entries
    return ()


def addresses(evaluation: Evaluation, entry: Entry) -> list[str]:
    """The folded addresses of an entry, the primary one first."""
    return [fold(value.strip(" ")) for name in evaluation.mapping.mail for value in entry.values(name)]


def domain_of_login(evaluation: Evaluation, entry: Entry | None) -> str:
    """What stands behind the ``@`` of the login, else the domain of its entry's primary address."""
    login = fold(evaluation.request.sasl_username)
    if "@" in login:
        return split_address(login)[1]
    own = addresses(evaluation, entry) if entry is not None else []
    return split_address(own[0])[1] if own else ""


def agreed(entries: Iterable[Entry], ask: Callable[[Entry], _R], what: str) -> _R | None:
    """What each of several entries with one address says, if they say the same; else unavailable."""
    answers = [(entry, ask(entry)) for entry in entries]
    if not answers:
        return None
    first = answers[0][1]
    if any(answer != first for _, answer in answers[1:]):
        raise MissedLookup(f"entries disagree about {what}: {_names(entry for entry, _ in answers)}")
    return first


def _names(entries: Iterable[Entry]) -> str:
    return "; ".join(sorted(entry.dn for entry in entries))


# ---------------------------------------------------------------- groups


def groups_around(evaluation: Evaluation, entry: Entry) -> Closure:
    """Every group that the entry belongs to, at any depth."""
    key = ("groups", entry.key)
    known = evaluation.derived.get(key)
    if known is not None:
        return cast(Closure, known)
    closure = _climb(evaluation, entry)
    if not evaluation.lacking:
        evaluation.derived[key] = closure
    return closure


def _climb(evaluation: Evaluation, entry: Entry) -> Closure:
    """Level by level upwards; a group that has been seen is not asked again, so loops end."""
    closure: Closure = {}
    waiting = [entry]
    seen = {entry.key}
    while waiting:
        level = [group for member in waiting for group in _direct(evaluation, member, closure)]
        waiting = [group for group in level if group.key not in seen]
        seen.update(group.key for group in waiting)
        if len(closure) > MAX_NESTING:
            raise MissedLookup(f"{entry.dn} belongs to more than {MAX_NESTING} groups")
    return closure


def _direct(evaluation: Evaluation, member: Entry, closure: Closure) -> list[Entry]:
    """The groups directly around one entry that are new to the closure."""
    logins = tuple(value for name in evaluation.mapping.login for value in member.values(name))
    groups = list(evaluation.lookup(facts.groups(member.dn, logins)))
    if evaluation.mapping.has_dynamic_groups:
        groups += [
            group for group in evaluation.lookup(facts.dynamic()) if _covers(evaluation, group, member)
        ]
    found = [group for group in groups if closure.get(group.key) is None]
    closure.update((group.key, group) for group in found)
    for dn in (value for name in evaluation.mapping.member_of for value in member.values(name)):
        found += _named(evaluation, dn, closure)
    return found


def _named(evaluation: Evaluation, dn: str, closure: Closure) -> tuple[Entry, ...]:
    """The group that a memberOf value names."""
    try:
        key = normal_dn(dn)
    except InputError as fault:
        raise MissedLookup(f"memberOf holds what is no DN: {fault}") from None
    if key in closure:
        return ()
    groups = evaluation.lookup(facts.entry(dn))
    closure[key] = groups[0] if groups else None
    return groups


def _covers(evaluation: Evaluation, group: Entry, member: Entry) -> bool:
    """Whether a memberURL of the group covers the entry: base and scope here, the filter by asking."""
    return any(_url_covers(evaluation, text, member) for text in group.values("memberURL"))


def _url_covers(evaluation: Evaluation, text: str, member: Entry) -> bool:
    try:
        url = parse_url(text)
        inside = _in_scope(url, member.key)
        bases = evaluation.around.bases
        allowed = not bases or any(is_below(normal_dn(url.base), base) for base in bases)
    except InputError as fault:
        raise MissedLookup(f"memberURL: {fault}") from None
    if inside and not allowed:
        raise MissedLookup(f"memberURL {text!r}: its base is neither below search_base nor below policy_base")
    return inside and bool(evaluation.lookup(facts.match(member.dn, text)))


def _in_scope(url: LdapUrl, key: str) -> bool:
    base = normal_dn(url.base)
    if url.scope == 0:
        return key == base
    return is_below(key, base) and (url.scope == 2 or (key != base and key.partition(",")[2] == base))


def belongs_to(evaluation: Evaluation, entry: Entry, dns: frozenset[str]) -> bool:
    """Whether the entry is one of those (normal) DNs, or a member of one at any depth."""
    return bool(dns) and (entry.key in dns or not dns.isdisjoint(groups_around(evaluation, entry)))


def normal_values(entry: Entry, names: Iterable[str]) -> frozenset[str]:
    """The DN values of some attributes in normal form; what is no DN is unavailable."""
    try:
        return frozenset(normal_dn(value) for name in names for value in entry.values(name))
    except InputError as fault:
        raise MissedLookup(f"{entry.dn}: {fault}") from None


def single_value(entry: Entry, names: Iterable[str]) -> str | None:
    """The value of the first of some attributes that has one; several values are unavailable."""
    for name in names:
        values = entry.values(name)
        if len(values) > 1:
            raise MissedLookup(f"{entry.dn} has {len(values)} values of {name}, expected one")
        if values:
            return values[0]
    return None


# ---------------------------------------------------------------- who owns an address


def is_known_sender(evaluation: Evaluation) -> bool:
    """Whether the sender address has an owner: an entry has it, or its domain's entry names somebody."""
    return bool(_sender_entries(evaluation)) or bool(_domain_owners(evaluation))


def owns_sender(evaluation: Evaluation, login: Entry | None) -> bool:
    """Whether the login's entry has the sender address, or is named by smtpdSendAs for it."""
    if login is None:
        return False
    send_as = evaluation.mapping.send_as

    def names_login(entry: Entry) -> bool:
        return entry.key == login.key or belongs_to(evaluation, login, normal_values(entry, send_as))

    owned = agreed(_sender_entries(evaluation), names_login, "who may send as it")
    return bool(owned) or belongs_to(evaluation, login, _domain_owners(evaluation))


def _sender_entries(evaluation: Evaluation) -> tuple[Entry, ...]:
    return entries_of_address(evaluation, exact_forms(evaluation.sender, evaluation.around.delimiter))


def _domain_owners(evaluation: Evaluation) -> frozenset[str]:
    """Who may send as every address of the sender's domain: its own entry says, no parent."""
    domain = split_address(evaluation.sender)[1]
    entries = evaluation.lookup(facts.domain(domain)) if domain else ()
    send_as = evaluation.mapping.send_as
    return agreed(entries, lambda entry: normal_values(entry, send_as), "who may send as it") or frozenset()


def entries_of_domain(evaluation: Evaluation, domain: str) -> Iterable[tuple[Entry, ...]]:
    """The entries of a domain, then of its parents."""
    for name in parent_domains(domain):
        entries = evaluation.lookup(facts.domain(name))
        if entries:
            yield entries
