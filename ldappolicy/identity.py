"""People and groups: which entries an address, a login or a domain belongs to, and what those belong to.

Membership is tested from below: the groups around one entry are asked for, level by level, never the
members of a group. An entry belongs to a group that names it by DN, by login (memberUid) or by one of its
addresses, that its own memberOf names, that is its primary group, or whose memberURL covers it; and to every
group around such a group. An address that nobody has belongs to the groups that name it, by envelope. How
much of that has to be asked is the server's: some keep memberOf for all of it.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar, cast

from ldappolicy import facts
from ldappolicy.accounts import end_of
from ldappolicy.address import (
    catch_all_of,
    exact_forms,
    fold,
    is_catch_all,
    parent_domains,
    split_address,
    unquoted,
)
from ldappolicy.entry import Entry, is_below, normal_dn
from ldappolicy.errors import InputError
from ldappolicy.evaluation import Evaluation, MissedLookup
from ldappolicy.facts import FOREVER
from ldappolicy.mapping import primary_group_sid
from ldappolicy.member_urls import DynamicGroup, MemberUrl, dynamic_groups

_R = TypeVar("_R")

MAX_NESTING = 1000
"""Groups around one entry, more than any directory has (recursion_limit of ldap_table(5))."""


@dataclass(frozen=True, slots=True)
class Doubtful:
    """A group of which it is not known whether it is around an entry, and why."""

    entry: Entry | None
    reason: str


class Closure(dict[str, Entry | None]):
    """Groups by normal DN; None where only the DN is known (a memberOf value without an entry to be seen).

    `doubtful` are those that may be around as well, none of which is in it.
    """

    __slots__ = ("doubtful",)

    def __init__(self) -> None:
        super().__init__()
        self.doubtful: dict[str, Doubtful] = {}

    def holds(self, dns: frozenset[str]) -> bool:
        """Whether one of those is around; raises MissedLookup where that is not known."""
        if not dns.isdisjoint(self):
            return True
        if self.doubtful and not dns.isdisjoint(self.doubtful):
            raise MissedLookup(next(self.doubtful[dn].reason for dn in sorted(dns) if dn in self.doubtful))
        return False

    def carrying(self, names: Sequence[str]) -> list[Entry]:
        """The groups that have one of some attributes; raises MissedLookup where one may be among them."""
        for group in self.doubtful.values():
            if group.entry is not None and any(map(group.entry.values, names)):
                raise MissedLookup(group.reason)
        return [group for group in self.values() if group is not None and any(map(group.values, names))]


NO_GROUPS = Closure()


def _size(closure: Closure) -> int:
    """Bytes in memory; the groups themselves belong to the answers that they came in."""
    return 120 * (len(closure) + len(closure.doubtful))


def entries_of_address(
    evaluation: Evaluation, exact: Sequence[str], *, catch_all: bool = False
) -> tuple[Entry, ...]:
    """The entries that have the address, else those that have it without its extension.

    With `catch_all` last those that stand for all of its domain.
    """
    for address in exact:
        entries = entries_with(evaluation, address)
        if entries:
            return entries
    last = catch_all_of(exact[0]) if catch_all else ""
    return evaluation.lookup(facts.mail(last)) if last else ()


def entries_with(evaluation: Evaluation, address: str) -> tuple[Entry, ...]:
    """The entries that have just this address; an empty local part is no name that a catch-all answers to."""
    return () if is_catch_all(address) else evaluation.lookup(facts.mail(address))


class Login(NamedTuple):
    """Whom the login belongs to; `name` is the (folded) login as the entry has it, without a realm."""

    entry: Entry | None
    name: str


def entry_of_login(evaluation: Evaluation) -> Entry | None:
    """The one entry of the login; two are unavailable."""
    return identified(evaluation).entry


def identified(evaluation: Evaluation) -> Login:
    """The login as it is known: as it stands, else as an address or without its realm."""
    spelled = evaluation.request.sasl_username
    login = fold(spelled)
    if not login:
        return Login(None, "")
    found = {entry.key: Login(entry, login) for entry in evaluation.lookup(facts.login(login, spelled))}
    if not found:
        for name in _without_realm(unquoted(spelled), evaluation.around.naming.login_realms):
            entries = evaluation.lookup(facts.login(name.casefold(), name))
            found.update((entry.key, Login(entry, name.casefold())) for entry in entries)
        if "@" in login:
            entries = entries_with(evaluation, login)
            found.update((entry.key, Login(entry, login)) for entry in entries)
    if len(found) > 1:
        named = _names(one.entry for one in found.values() if one.entry is not None)
        raise MissedLookup(f"login {login!r} belongs to {len(found)} entries: {named}")
    if not (found or evaluation.lacking):
        evaluation.unknown_login()
    return next(iter(found.values()), Login(None, login))


def _without_realm(login: str, realms: frozenset[str]) -> Iterator[str]:
    """The names that `name@REALM` and `REALM\\name` may mean: a realm is taken off once."""
    name, _, realm = login.rpartition("@")
    if name and realm.casefold() in realms:
        yield name
    realm, _, name = login.partition("\\")
    if name and realm.casefold() in realms:
        yield name


def disabled(evaluation: Evaluation, entry: Entry) -> str:
    """Why an account is let in by nothing: it is disabled, or expired; empty where it is neither."""
    names = evaluation.mapping.disabled
    if not names:
        return ""
    end = end_of(entry, names)
    if end.at > evaluation.facts.now():
        if end.at < FOREVER:
            evaluation.facts.holds_until(end.at)
        return ""
    if end.problem:
        evaluation.note(f"{entry.dn}: {end.reason}")
    return end.reason


def disabled_login(evaluation: Evaluation) -> str:
    """The same of the login's entry; empty where it has none."""
    entry = entry_of_login(evaluation) if evaluation.mapping.disabled else None
    return disabled(evaluation, entry) if entry is not None else ""


def entries_of_recipient(evaluation: Evaluation) -> tuple[Entry, ...]:
    """The entries that the recipient address names, in the form that is being checked."""
    forms = (evaluation.form,) if evaluation.form is not None else evaluation.recipients
    for form in forms:
        exact = exact_forms(form, evaluation.around.delimiter)
        entries = entries_of_address(evaluation, exact, catch_all=True)
        if entries:
            return entries
    return ()


def addresses(evaluation: Evaluation, entry: Entry) -> tuple[str, ...]:
    """The folded addresses of an entry, the primary one first; a catch-all is none."""
    return tuple(address for address in evaluation.mapping.addresses_of(entry) if not is_catch_all(address))


def domain_of_login(evaluation: Evaluation, login: Login) -> str:
    """What stands behind the ``@`` of the login, else the domain of its entry's primary address.

    A realm that was taken off is no domain of anybody.
    """
    if "@" in login.name:
        return split_address(login.name)[1]
    entry = login.entry
    own = (addresses(evaluation, entry) or evaluation.mapping.addresses_of(entry)) if entry else ()
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
    closure = _climb(evaluation, [entry], Closure())
    if evaluation.is_lasting:
        evaluation.derived.keep(key, closure, _size(closure))
    return closure


NOWHERE: frozenset[str] = frozenset()


def _climb(
    evaluation: Evaluation, waiting: list[Entry], closure: Closure, until: frozenset[str] = NOWHERE
) -> Closure:
    """Every group around some entries, or so many that one of some groups is reached.

    Around a group that may be around them, there are groups that may be.
    """
    _climb_known(evaluation, waiting, closure, until)
    asked: set[str] = set()
    while until.isdisjoint(closure) and (new := closure.doubtful.keys() - closure.keys() - asked):
        asked |= new
        for key in new:
            group = closure.doubtful[key]
            around = Closure()
            _climb_known(evaluation, [group.entry] if group.entry else [], around)
            found = {dn: Doubtful(entry, group.reason) for dn, entry in around.items()}
            closure.doubtful = {**found, **around.doubtful, **closure.doubtful}
    for key in closure.doubtful.keys() & closure.keys():
        del closure.doubtful[key]
    return closure


def _climb_known(
    evaluation: Evaluation, waiting: list[Entry], closure: Closure, until: frozenset[str] = NOWHERE
) -> None:
    """Level by level upwards; a group that has been seen is not asked again, so loops end."""
    seen = {entry.key for entry in waiting}
    while waiting and until.isdisjoint(closure):
        level = [group for member in waiting for group in _direct(evaluation, member, closure)]
        waiting = [group for group in level if group.key not in seen]
        seen.update(group.key for group in waiting)
        if len(closure) > MAX_NESTING:
            raise MissedLookup(f"{next(iter(closure))} and groups around it: more than {MAX_NESTING} groups")


def _direct(evaluation: Evaluation, member: Entry, closure: Closure) -> list[Entry]:
    """The groups directly around one entry that are new to the closure, and to be asked for those around."""
    named = _member_of(evaluation, member)
    former = _naming_formerly(evaluation, member)
    if former is None:
        return []
    asked = facts.groups(member.dn, _logins(evaluation, member))
    static = (*former, *evaluation.lookup(asked))
    by_address = _naming(evaluation, addresses(evaluation, member))
    dynamic = _dynamic(evaluation, member, closure)
    if asked in evaluation.lacking:
        # Whatever memberOf names will be among them, mostly; then only those around those are lacking.
        if evaluation.facts.tells_apart:
            for dn in named.values():
                evaluation.lookup(facts.groups(dn, ()))
        return []
    if _tells_all(evaluation, named, static):
        # The server keeps memberOf, and through groups: there is nothing around that it does not name.
        _add(closure, static)
        _add_named(evaluation, named, closure)
        return _add(closure, dynamic)
    found = _add(closure, [*static, *by_address, *dynamic, *_primary(evaluation, member)])
    return found + _add_named(evaluation, named, closure)


def _naming_formerly(evaluation: Evaluation, member: Entry) -> Sequence[Entry] | None:
    """The groups that name one by an old DN; None: they are asked for first.

    Whoever asks for the new DN after them finds each group by one of the two, whenever the server amends it.
    """
    renamed = evaluation.facts.renamed
    if not renamed:
        return ()
    lookups = [facts.groups(one.old, ()) for one in renamed.values() if one.key == member.key]
    found = [group for lookup in lookups for group in evaluation.lookup(lookup)]
    return None if any(lookup in evaluation.lacking for lookup in lookups) else found


def _tells_all(evaluation: Evaluation, named: dict[str, str], static: Sequence[Entry]) -> bool:
    """Whether memberOf names every group around, at any depth; of members by address it knows nothing."""
    mapping = evaluation.mapping
    is_nested = mapping.member_of_is_nested and not mapping.member_address
    return is_nested and bool(named) and all(group.key in named for group in static)


def _naming(evaluation: Evaluation, own: Iterable[str]) -> list[Entry]:
    """The groups that name one of some addresses."""
    if not evaluation.mapping.member_address:
        return []
    return [group for address in own for group in evaluation.lookup(facts.addressed(address))]


def groups_of_envelope(evaluation: Evaluation, exact: Sequence[str]) -> Closure:
    """Every group that an address is in by its envelope alone, at any depth; it counts whole.

    None where an entry has it, with or without its extension: then that entry is the member.
    """
    if not evaluation.mapping.member_address or is_catch_all(exact[0]):
        return NO_GROUPS
    direct = [] if entries_of_address(evaluation, exact) else _naming(evaluation, exact[:1])
    closure = Closure()
    return _climb(evaluation, _add(closure, direct), closure)


def _add(closure: Closure, groups: Iterable[Entry]) -> list[Entry]:
    """Those of the groups that are new."""
    found = [group for group in groups if closure.get(group.key) is None]
    closure.update((group.key, group) for group in found)
    return found


def _add_named(evaluation: Evaluation, named: dict[str, str], closure: Closure) -> list[Entry]:
    """The groups that memberOf names and nothing else has shown."""
    found: list[Entry] = []
    for key, dn in named.items():
        if key not in closure:
            groups = () if _ends_there(evaluation, key) else evaluation.lookup(facts.entry(dn))
            closure[key] = groups[0] if groups else None
            found += groups
    return found


def _ends_there(evaluation: Evaluation, key: str) -> bool:
    """Whether no more than the name of a group is of use.

    Active Directory's built-in groups (Users, whom everybody belongs to by the primary group) are in no other
    group (MS-ADTS section 6.1.1.4.12): they are asked for only if they carry something.
    """
    if not evaluation.mapping.in_chain or ",cn=builtin," not in key:
        return False
    return all(group.key != key for group in evaluation.lookup(facts.carrying()))


def _logins(evaluation: Evaluation, entry: Entry) -> tuple[str, ...]:
    return tuple(value for name in evaluation.mapping.login for value in entry.values(name))


def _member_of(evaluation: Evaluation, entry: Entry) -> dict[str, str]:
    """The DNs in memberOf by their normal form."""
    values = [value for name in evaluation.mapping.member_of for value in entry.values(name)]
    try:
        named = {normal_dn(value): value for value in values}
    except InputError as fault:
        raise MissedLookup(f"memberOf holds what is no DN: {fault}") from None
    for old, one in evaluation.facts.renamed.items():
        if old in named:
            del named[old]
            named[one.key] = one.new
    return named


def is_named_elsewhere(evaluation: Evaluation, entry: Entry) -> bool:
    """Whether memberOf names a group that is not below search_base, where lookups of groups look."""
    below = evaluation.around.bases[:1]
    return any(not is_below(key, base) for key in _member_of(evaluation, entry) for base in below)


def _primary(evaluation: Evaluation, entry: Entry) -> tuple[Entry, ...]:
    """The primary group, on Active Directory, which no member names."""
    if not evaluation.mapping.primary_group:
        return ()
    try:
        sid = primary_group_sid(entry)
    except InputError as fault:
        raise MissedLookup(str(fault)) from None
    return evaluation.lookup(facts.sid(sid)) if sid is not None else ()


def _dynamic(evaluation: Evaluation, entry: Entry, closure: Closure) -> list[Entry]:
    """The groups whose memberURL covers the entry; those that may are the closure's doubtful ones."""
    if not evaluation.mapping.has_dynamic_groups:
        return []
    entries = evaluation.lookup(facts.dynamic())
    if not entries:
        return []
    known = evaluation.derived.get(_DYNAMIC)
    if known is None:
        known = dynamic_groups(entries, evaluation.around.bases)
        evaluation.derived.keep(_DYNAMIC, known, 0)
    found = []
    for group, urls in cast(tuple[DynamicGroup, ...], known):
        covering = [_covers(evaluation, url, entry) for url in urls]
        if True in covering:
            found.append(group)
        elif reason := next(filter(None, covering), ""):
            closure.doubtful.setdefault(group.key, Doubtful(group, str(reason)))
    return found


_DYNAMIC = "dynamic groups"


def _covers(evaluation: Evaluation, url: MemberUrl, member: Entry) -> bool | str:
    """Base and scope here, the filter by asking; why that cannot be told."""
    if not url.holds(member.key):
        return False
    if url.reason:
        return url.reason
    try:
        return bool(evaluation.lookup(facts.match(member.dn, url.text)))
    except MissedLookup as missed:
        return str(missed)


def belongs_to(evaluation: Evaluation, entry: Entry, dns: frozenset[str]) -> bool:
    """Whether the entry is one of those (normal) DNs, or a member of one at any depth."""
    if not dns:
        return False
    if renamed := evaluation.facts.renamed:
        dns = frozenset(renamed[dn].key if dn in renamed else dn for dn in dns)
    return entry.key in dns or is_inside(evaluation, entry, dns)


CHAINED = 4
"""Groups that are asked about one by one; for more, all groups around the entry are looked at."""


def is_inside(evaluation: Evaluation, entry: Entry, dns: frozenset[str]) -> bool:
    """Whether the entry is a member of one of those (normal) DNs, at any depth."""
    if not dns.isdisjoint(_member_of(evaluation, entry)):
        return True
    if ("groups", entry.key) in evaluation.derived:
        return groups_around(evaluation, entry).holds(dns)
    has_chain = evaluation.facts.has_chain and not evaluation.mapping.member_address
    if has_chain and len(dns) <= CHAINED:
        return _is_chained(evaluation, entry, dns)
    closure = _climb(evaluation, [entry], Closure(), dns)
    if evaluation.lacking:
        return not dns.isdisjoint(closure)
    if dns.isdisjoint(closure) and evaluation.is_lasting:
        evaluation.derived.keep(("groups", entry.key), closure, _size(closure))  # it went all the way
    return closure.holds(dns)


def _is_chained(evaluation: Evaluation, entry: Entry, dns: frozenset[str]) -> bool:
    """The same by asking the server, which walks through groups itself, for what is above the second level.

    The direct groups are one search, and name those around them. The primary group the server's rule does
    not know: it is asked about like the entry.
    """
    closure = Closure()
    direct = _direct(evaluation, entry, closure)
    if evaluation.lacking:
        return False  # another round comes
    if not dns.isdisjoint(closure) or any(not dns.isdisjoint(_member_of(evaluation, one)) for one in direct):
        return True

    def goes_on(group: Entry) -> bool:
        above = _member_of(evaluation, group)
        return any(not (key in closure or _ends_there(evaluation, key)) for key in above)

    inside: list[Sequence[Entry]] = []
    if any(map(goes_on, direct)):
        asked = [entry, *filter(goes_on, _primary(evaluation, entry))]
        inside = [evaluation.lookup(facts.chain(one.dn, dn)) for one in asked for dn in sorted(dns)]
    if any(inside) or not closure.doubtful:
        return any(inside)
    closure = _climb(evaluation, [], closure)
    return not evaluation.lacking and closure.holds(dns)


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
    """Whether the sender address has an owner: an entry has it, or its domain's entry names somebody.

    An entry without a login that names nobody is a contact where the domain is not ours: no owner.
    """
    entries = _sender_entries(evaluation)
    mapping, around = evaluation.mapping, evaluation.around
    if any(entry.values(name) for entry in entries for name in (*mapping.login, *mapping.send_as)):
        return True
    if _domain_owners(evaluation):
        return True
    domain = split_address(evaluation.sender)[1]
    is_ours = not (domain and around.knows_local_domains) or around.is_local(evaluation, domain)
    return bool(entries) and is_ours


def owns_sender(evaluation: Evaluation, login: Entry | None) -> bool:
    """Whether the login's entry has the sender address, or is named by smtpdSendAs for it.

    One that is disabled owns nothing, and what it has stays owned.
    """
    if login is None:
        return False
    if reason := disabled(evaluation, login):
        evaluation.trace_note("sender login", login.dn, reason)
        return False
    send_as = evaluation.mapping.send_as

    def names_login(entry: Entry) -> bool:
        return entry.key == login.key or belongs_to(evaluation, login, normal_values(entry, send_as))

    owned = agreed(_sender_entries(evaluation), names_login, "who may send as it")
    return bool(owned) or belongs_to(evaluation, login, _domain_owners(evaluation))


def _sender_entries(evaluation: Evaluation) -> tuple[Entry, ...]:
    exact = exact_forms(evaluation.sender, evaluation.around.delimiter)
    return entries_of_address(evaluation, exact, catch_all=True)


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
