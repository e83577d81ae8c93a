"""Tables: what a `check_*_access` looks up, in which keys, and what it finds.

A table is compiled to a finder: a function of the evaluation and the subject of the check that returns the
action found, or None. Keys are tried in access(5) order; for each key a line comes before a member before
a URL. A lookup that is lacking counts as "not found", while all else that could be needed is asked as well.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple, cast

from ldappolicy import facts, identity
from ldappolicy.action import Action, Kind, parse_action
from ldappolicy.address import (
    NULL_SENDER_KEY,
    REMEMBERED,
    address_keys,
    client_keys,
    domain_keys,
    exact_forms,
    fold,
    local_domain_keys,
    single_key,
    split_address,
)
from ldappolicy.entry import Entry
from ldappolicy.errors import InputError
from ldappolicy.evaluation import SHOWN, Evaluation, MissedLookup, ServerConfigurationError, Skip
from ldappolicy.facts import FOREVER, Absent, Facts, Found, Lookup
from ldappolicy.learned import Values
from ldappolicy.mapping import Mapping as AttributeMapping
from ldappolicy.memories import BOUNDS, Memory, size_of
from ldappolicy.network import parse_client_address
from ldappolicy.policy import (
    ALLOWED_SENDERS,
    DENIED_SENDERS,
    IDENTITY_TABLES,
    LOGIN_REQUIRED,
    NOBODY_TABLE,
    NOT_AUTHORIZED,
    Broken,
    PolicySet,
    Table,
    TableName,
    TablePart,
    parse_inline,
    parse_static,
    reserved_to_policies,
)
from ldappolicy.residue import SERVER_CONFIGURATION_ERROR
from ldappolicy.rewriting import means_itself


class Subject(NamedTuple):
    """What is looked up: `full` are the keys that a cidr table is tried with.

    `exact` are the address forms that entries may have; a login is its own `login`. `made` are all keys in
    order, where they are not those of the address `exact[0]`, which are made when they are needed.
    """

    full: tuple[str, ...]
    made: tuple[str, ...] = ()
    exact: tuple[str, ...] = ()
    login: str = ""
    delimiter: str = ""
    parents: bool = False

    @property
    def keys(self) -> tuple[str, ...]:
        """All keys in order."""
        if self.made or not self.exact:
            return self.made
        address = self.exact[0]
        key = address, self.delimiter, self.parents
        known = _KEYS.get(key)
        if known is None:
            known = address_keys(*key).keys
            if len(address) <= REMEMBERED:
                _KEYS.keep(key, known, size_of(*known))
        return known

    @property
    def first(self) -> str:
        """The first of them, by which the subject is named; empty where it is longer than a key can be."""
        return next(iter(self.keys), "")


_KEYS: Memory[tuple[str, str, bool], tuple[str, ...]] = Memory(BOUNDS["address keys"])


Finder = Callable[[Evaluation, Subject], Action | None]


# ---------------------------------------------------------------- subjects


def address_subject(evaluation: Evaluation, address: str) -> Subject:
    """A mail address in rewritten, folded form."""
    around = evaluation.around
    exact = exact_forms(address, around.delimiter)
    return Subject((), (), exact, "", around.delimiter, around.parents)


_NULL_SENDER = Subject((NULL_SENDER_KEY,), (NULL_SENDER_KEY,))


def sender_subject(evaluation: Evaluation) -> Subject | None:
    """The sender; the null sender has one key of its own, and none where there is no sender yet."""
    if not evaluation.has_sender:
        return None
    if not evaluation.request.sender:
        return _NULL_SENDER
    return address_subject(evaluation, evaluation.sender)


def login_subject(evaluation: Evaluation) -> Subject | None:
    """The login, as one key."""
    login = fold(evaluation.request.sasl_username)
    return Subject((login,), single_key(login), login=login) if login else None


def client_subject(evaluation: Evaluation) -> Subject | None:
    """The client's verified hostname and its address."""
    return _host_subject(evaluation, evaluation.request.client_name)


def reverse_client_subject(evaluation: Evaluation) -> Subject | None:
    """The client's unverified hostname and its address."""
    return _host_subject(evaluation, evaluation.request.reverse_client_name)


def _host_subject(evaluation: Evaluation, name: str) -> Subject:
    address = evaluation.request.client_address.casefold()
    folded = name.casefold()
    return Subject((folded, address), client_keys(folded, address, evaluation.around.parents))


def helo_subject(evaluation: Evaluation) -> Subject | None:
    """The HELO name as the client gave it."""
    return _domain_subject(evaluation, evaluation.request.helo_name)


def etrn_subject(evaluation: Evaluation) -> Subject | None:
    """The domain of an ETRN command."""
    return _domain_subject(evaluation, evaluation.request.etrn_domain)


def _domain_subject(evaluation: Evaluation, name: str) -> Subject | None:
    folded = name.casefold()
    return Subject((folded,), domain_keys(folded, evaluation.around.parents)) if name else None


def print_subject(evaluation: Evaluation, value: str) -> Subject:
    """A fingerprint, as one key."""
    key = value.casefold()
    return Subject((key,), single_key(key))


def local_domain_subject(evaluation: Evaluation, domain: str) -> Subject:
    """A domain alone, as smtpdLocalDomains is asked for it."""
    return Subject((domain,), local_domain_keys(domain))


# ---------------------------------------------------------------- finders


def compile_table(name: TableName, policies: PolicySet, check: str) -> Finder:
    """The finder of a table for a check; a table that is none is an error when it is reached."""
    if name.type == "ldap":
        return _ldap_finder(name, policies.tables.get(name.name.casefold()), check)
    if name.type == "static":
        action = parse_static(name.name)
        return lambda evaluation, subject: _traced(evaluation, name, subject.first, action)
    if name.type == "inline":
        return _inline_finder(name)
    if name.type == "fail":
        failure = parse_action(SERVER_CONFIGURATION_ERROR)
        return _constant_finder(replace(failure, problem=f"{name} stands for a table that failed"))
    return _identity_finder(name, check) or _error_finder(f"unknown table {str(name)!r} in a {check} check")


def _error_finder(problem: str) -> Finder:
    def find(evaluation: Evaluation, subject: Subject) -> Action | None:
        raise ServerConfigurationError(problem)

    return find


def _constant_finder(action: Action) -> Finder:
    def find(evaluation: Evaluation, subject: Subject) -> Action | None:
        evaluation.origin = ""
        return action

    return find


def _traced(evaluation: Evaluation, table: object, key: str, action: Action, dn: str = "") -> Action:
    evaluation.origin = dn
    evaluation.trace_key(table, key, action.text, dn)
    return action


def _inline_finder(name: TableName) -> Finder:
    try:
        lines = parse_inline(name.name)
    except InputError as fault:
        return _error_finder(str(fault))
    return lambda evaluation, subject: _find_line(evaluation, name, lines, subject.keys)


def _find_line(
    evaluation: Evaluation, table: object, lines: Mapping[str, Action], keys: Iterable[str], dn: str = ""
) -> Action | None:
    for key in keys:
        action = lines.get(key)
        if action is not None:
            return _traced(evaluation, table, key, action, dn)
        if evaluation.trace is not None:
            evaluation.trace_key(table, key, None)
    return None


def _ldap_finder(name: TableName, table: Table | Broken | None, check: str) -> Finder:
    if table is None:
        return _error_finder(f"unknown table {str(name)!r}")
    if isinstance(table, Broken):
        return _error_finder(f"table {str(name)!r} does not parse: {table.dn}: {table.reason}")
    plain = len(table.parts) == 1 and not (table.cidr or table.parts[0].members or table.parts[0].urls)
    if plain:
        part = table.parts[0]
        return lambda evaluation, subject: _find_line(evaluation, name, part.lines, subject.keys, part.dn)

    def find(evaluation: Evaluation, subject: Subject) -> Action | None:
        found = _find_network(evaluation, name, table, subject) if table.cidr else None
        return found or _find_joined(evaluation, name, table.parts, subject, by_envelope=check == "sender")

    return find


def _find_network(evaluation: Evaluation, name: object, table: Table, subject: Subject) -> Action | None:
    """cidr_table(5): the first line whose network holds a full key that is an address."""
    for key in subject.full or subject.keys[:1]:
        address = parse_client_address(key)
        if address is not None:
            for line in table.cidr:
                if line.matches(address):
                    return _traced(evaluation, name, key, line.action, line.dn)
        evaluation.trace_key(name, key, None)
    return None


def _find_joined(
    evaluation: Evaluation,
    name: object,
    parts: tuple[TablePart, ...],
    subject: Subject,
    *,
    by_envelope: bool,
) -> Action | None:
    """Key by key: a line of any entry, then its members, then its URLs."""
    for key in subject.keys:
        for part in parts:
            if key in part.lines:
                return _traced(evaluation, name, key, part.lines[key], part.dn)
        for part in parts:
            if part.members and _is_member(evaluation, part, subject, key, by_envelope):
                return _traced(evaluation, name, key, part.action, part.dn)
        for part in parts:
            if any(evaluation.lookup(facts.url(url, key)) for url in part.urls):
                return _traced(evaluation, name, key, part.action, part.dn)
        evaluation.trace_key(name, key, None)
    return None


def _is_member(
    evaluation: Evaluation, part: TablePart, subject: Subject, key: str, by_envelope: bool
) -> bool:
    """Whether a full address, or the login, belongs to an entry that smtpdAccessMember names."""
    if subject.login:
        login = identity.entry_of_login(evaluation)
        return login is not None and identity.belongs_to(evaluation, login, part.members)
    if key not in subject.exact:
        return False
    entries = identity.entries_with(evaluation, key)
    inside = identity.agreed(
        entries,
        lambda entry: identity.belongs_to(evaluation, entry, part.members),
        f"membership in {part.dn}",
    )
    if inside or not by_envelope or key != subject.exact[0]:
        return bool(inside)
    return identity.groups_of_envelope(evaluation, subject.exact).holds(part.members)


# ---------------------------------------------------------------- directory:access

ACCESS = TableName("directory", "access")
_CARRYING = facts.carrying()


def _find_access(evaluation: Evaluation, subject: Subject, *, recipient: bool) -> Action | None:
    """The access attribute of the entry, of a group around it, of its domain or a parent of that."""
    if evaluation.trace is not None:
        return _ask_access(evaluation, subject, recipient)
    exact = subject.exact
    # Servers may tell apart what folds alike, but not capitals.
    login = evaluation.request.sasl_username.lower() if subject.login else ""
    key = ("access", recipient, exact, login)
    known = evaluation.derived.get(key)
    if known is not None:
        action, evaluation.origin = cast(tuple[Action | None, str], known)
        return action
    evaluation.origin = ""
    if len(exact) == 1 and _carries_nothing(exact[0], evaluation.facts, evaluation.mapping, recipient):
        return None
    action = _ask_access(evaluation, subject, recipient)
    is_told = bool(subject.login) and evaluation.is_unknown_login  # each time
    is_kept = evaluation.is_lasting and not is_told
    if is_kept and len(exact[0] if exact else subject.login) <= REMEMBERED:
        evaluation.derived.keep(key, (action, evaluation.origin), size_of(login, *exact))
    return action


def _carries_nothing(address: str, known: Facts, mapping: AttributeMapping, recipient: bool) -> bool:
    """Whether it is known at a glance that entry, groups and domain of an address have no access attribute.

    So it is for most addresses. False says nothing.
    """
    if ("no access", address.rpartition("@")[2], recipient) not in known.derived:
        return False
    outcome = known.get(("mail", address))
    if type(outcome) is Absent:
        return outcome.turns_at == FOREVER
    if type(outcome) is not Found or outcome.turns_at < FOREVER:
        return False
    if not _stays_absent(known, _CARRYING):
        return False
    telling = mapping.recipient_telling if recipient else mapping.sender_telling
    carries = False
    for entry in outcome.entries:  # no generator: every new address comes here
        carries = carries or entry.has_any(telling)
    return not carries


def _stays_absent(known: Facts, lookup: Lookup) -> bool:
    """Whether there is no such thing for as long as the facts hold."""
    outcome = known.get(lookup)
    return type(outcome) is Absent and outcome.turns_at == FOREVER


def access_skip(attribute: str, delimiters: str) -> Skip:
    """Whether `directory:access` holds nothing for the sender or recipient (`attribute`), told at a glance.

    It says nothing of an address that Postfix may rewrite, or that has several forms.
    """
    recipient = attribute == "recipient"

    def skip(values: Values, known: Facts, mapping: AttributeMapping) -> str:
        address = values[attribute].decode("utf-8", "surrogateescape").casefold()
        # `means_itself` lets quotes pass in local parts; in keys they are off.
        if not (address.isascii() and means_itself(address)) or '"' in address:
            return ""
        if delimiters and len(exact_forms(address, delimiters)) > 1:
            return ""
        return attribute if _carries_nothing(address, known, mapping, recipient) else ""

    return skip


def _ask_access(evaluation: Evaluation, subject: Subject, recipient: bool) -> Action | None:
    """What entry, groups or domain carry; None: nothing. An action on whole messages is an error there."""
    entries, domain = _owners(evaluation, subject, catch_all=True)
    if recipient and evaluation.lacking and evaluation.mapping.delivery_restrictions:
        _ask_who_sends(evaluation)

    by_envelope = identity.NO_GROUPS if recipient else _groups_of_sender(evaluation, subject)

    def ask(entry: Entry) -> _Access | None:
        own = _own_access(evaluation, entry, recipient)
        return own or _group_access(evaluation, entry, recipient, by_envelope)

    answer = identity.agreed(entries, ask, "its access") if entries else None
    if not entries and (by_envelope or by_envelope.doubtful):
        answer = _ranked(evaluation, (by_envelope,), recipient)
    return _told(evaluation, subject, answer or _access_of_domain(evaluation, domain, recipient))


def _ask_who_sends(evaluation: Evaluation) -> None:
    """Those whom delivery restrictions are about, so that they are asked for together with the recipient."""
    for subject in (login_subject(evaluation), sender_subject(evaluation)):
        if subject is not None:
            _owners(evaluation, subject, catch_all=True)


def _find_access_behind(evaluation: Evaluation, subject: Subject) -> Action | None:
    """For a recipient that delivery restrictions only deny some senders to: what groups and domain say.

    The other form of the recipient, if its entry has none of these, is a check of its own.
    """
    entries, domain = _owners(evaluation, subject, catch_all=True)
    own = identity.agreed(entries, lambda entry: _own_access(evaluation, entry, recipient=True), "its access")
    if own is None or own.action != DENIED_SENDERS:
        return None
    answer = identity.agreed(
        entries, lambda entry: _group_access(evaluation, entry, True, identity.NO_GROUPS), "its access"
    )
    return _told(evaluation, subject, answer or _access_of_domain(evaluation, domain, recipient=True))


def _told(evaluation: Evaluation, subject: Subject, answer: "_Access | None") -> Action | None:
    if answer is None:
        return None
    action = _traced(evaluation, "directory:access", subject.first, answer.action, answer.dn)
    problem = reserved_to_policies(action)
    return Action(Kind.INVALID, action.text, problem=problem) if problem else action


def _owners(evaluation: Evaluation, subject: Subject, *, catch_all: bool) -> tuple[tuple[Entry, ...], str]:
    """The entries that the subject belongs to, and its domain; a login never belongs to a catch-all."""
    if subject.login:
        login = identity.identified(evaluation)
        entries = (login.entry,) if login.entry is not None else ()
        return entries, identity.domain_of_login(evaluation, login)
    if not subject.exact:
        return (), ""
    owners = identity.entries_of_address(evaluation, subject.exact, catch_all=catch_all)
    return owners, split_address(subject.exact[0])[1]


@dataclass(frozen=True, slots=True)
class _Access:
    """An action and the DN that it came from; two are equal when the actions are."""

    action: Action
    dn: str = field(compare=False)


def _own_access(evaluation: Evaluation, entry: Entry, recipient: bool) -> _Access | None:
    """What the entry itself carries: its access attribute, else its delivery restrictions."""
    carried = _plain_access(evaluation, entry, recipient)
    if carried is not None or not recipient:
        return carried
    action = _delivery_of(evaluation, entry)
    return None if action is None else _Access(action, entry.dn)


def _plain_access(evaluation: Evaluation, entry: Entry, recipient: bool) -> _Access | None:
    mapping = evaluation.mapping
    value = identity.single_value(entry, mapping.recipient_access if recipient else mapping.sender_access)
    return None if value is None else _Access(parse_action(value), entry.dn)


def _delivery_of(evaluation: Evaluation, entry: Entry) -> Action | None:
    """The list that the entry's delivery restrictions amount to, if it has any."""
    mapping = evaluation.mapping
    restricting = mapping.delivery_restrictions
    if not any(map(entry.values, restricting)):
        return None
    required = _requires_login(evaluation, entry)
    if not required and not any(
        entry.values(name) for name in restricting if name not in mapping.login_required
    ):
        return None
    if any(map(entry.values, (*mapping.allowed_sender, *mapping.allowed_sender_dn))):
        return ALLOWED_SENDERS
    return LOGIN_REQUIRED if required else DENIED_SENDERS


def _requires_login(evaluation: Evaluation, entry: Entry) -> bool:
    """Whether any value says more than FALSE; what is neither closes, and is logged."""
    required = False
    for name in evaluation.mapping.login_required:
        for value in entry.values(name):
            said = value.upper()
            if said not in ("TRUE", "FALSE"):
                evaluation.note(f"{entry.dn}: {name} is {value[:SHOWN]!r}, neither TRUE nor FALSE: as TRUE")
            required = required or said != "FALSE"
    return required


def _groups_of_sender(evaluation: Evaluation, subject: Subject) -> identity.Closure:
    """The groups that the sender is in by envelope alone, if any group carries something."""
    if subject.login or not (subject.exact and evaluation.mapping.member_address):
        return identity.NO_GROUPS
    matters = evaluation.lookup(_CARRYING) or _CARRYING in evaluation.lacking
    return identity.groups_of_envelope(evaluation, subject.exact) if matters else identity.NO_GROUPS


def _group_access(
    evaluation: Evaluation, entry: Entry, recipient: bool, by_envelope: identity.Closure
) -> _Access | None:
    """What the groups around an entry, and these others, carry for their members."""
    if not evaluation.lookup(facts.carrying()) and not identity.is_named_elsewhere(evaluation, entry):
        return _ranked(evaluation, (by_envelope,), recipient)
    return _ranked(evaluation, (by_envelope, identity.groups_around(evaluation, entry)), recipient)


def _ranked(evaluation: Evaluation, closures: Iterable[identity.Closure], recipient: bool) -> _Access | None:
    """What the group with the lowest priority carries for its members."""
    mapping = evaluation.mapping
    by_group = mapping.member_recipient_access if recipient else mapping.member_sender_access
    carrying = {group.key: group for closure in closures for group in closure.carrying(by_group)}
    if not carrying:
        return None
    first, *others = sorted(carrying.values(), key=lambda group: _rank(evaluation, group))
    for group in others:
        evaluation.trace_note("directory:access", group.dn, f"outranked by {first.dn}")
    return _Access(parse_action(identity.single_value(first, by_group) or ""), first.dn)


def _rank(evaluation: Evaluation, group: Entry) -> tuple[bool, int, str]:
    """Lowest priority first, then those without one, equals by DN."""
    priority = identity.single_value(group, evaluation.mapping.priority)
    try:
        return (priority is None, int(priority or 0), group.key)
    except ValueError:
        raise MissedLookup(f"{group.dn}: priority {priority!r} is no number") from None


def _access_of_domain(evaluation: Evaluation, domain: str, recipient: bool) -> _Access | None:
    """The plain attribute on the entry of the domain, then of its parents."""
    if not domain:
        return None
    answer = _look_at_domain(evaluation, domain, recipient)
    is_plain = answer is None and evaluation.is_lasting and len(domain) <= REMEMBERED
    if not recipient and evaluation.mapping.member_address:
        # Somebody without an entry may be a member of what carries something.
        is_plain = is_plain and _stays_absent(evaluation.facts, _CARRYING)
    if is_plain and _stays_absent(evaluation.facts, facts.mail(f"@{domain}")):
        evaluation.derived.keep(("no access", domain, recipient), True, size_of(domain))
    return answer


def _look_at_domain(evaluation: Evaluation, domain: str, recipient: bool) -> _Access | None:
    for entries in identity.entries_of_domain(evaluation, domain):
        answer = identity.agreed(
            entries,
            lambda entry: _plain_access(evaluation, entry, recipient),
            f"the access of {domain}",
        )
        if answer is not None:
            return answer
    return None


# ---------------------------------------------------------------- directory:nobody

_REJECT = parse_action("REJECT")


def _find_nobody(evaluation: Evaluation, subject: Subject) -> Action | None:
    """REJECT for a login without an entry or disabled, and for a sender address of ours without an entry."""
    find = _nobodys_login if subject.login else _nobodys_address
    found, dn = find(evaluation, subject)
    if found and not evaluation.lacking:
        return _traced(evaluation, NOBODY_TABLE, subject.first, _REJECT, dn)
    evaluation.trace_key(NOBODY_TABLE, subject.first, None)
    return None


def _nobodys_login(evaluation: Evaluation, subject: Subject) -> tuple[bool, str]:
    """Whether no entry is behind the login, or that one is disabled: then its DN as well."""
    login = identity.entry_of_login(evaluation)
    if login is None:
        return True, ""
    reason = identity.disabled(evaluation, login)
    if reason:
        evaluation.trace_note(NOBODY_TABLE, login.dn, reason)
    return bool(reason), login.dn


def _nobodys_address(evaluation: Evaluation, subject: Subject) -> tuple[bool, str]:
    """Addresses in domains that the directory is not asked for are not known to be nobody's."""
    around = evaluation.around
    if not around.knows_local_domains:
        raise ServerConfigurationError(
            f"{NOBODY_TABLE} asks which addresses are ours, expected smtpdLocalDomains"
        )
    domain = split_address(subject.exact[0])[1] if subject.exact else ""
    if not domain or not around.naming.is_asked_for(domain):
        return False, ""
    entries = identity.entries_of_address(evaluation, subject.exact, catch_all=True)
    return around.is_local(evaluation, domain) and not entries, ""


# ---------------------------------------------------------------- the recipient: tables

Test = Callable[[Evaluation, Entry, Subject], bool]


def _recipient_finder(table: str, test: Test, found: str) -> Finder:
    """A table whose key is found when the recipient's entry says so of the subject."""
    action = parse_action(found)
    denies = table in _DENYING

    def find(evaluation: Evaluation, subject: Subject) -> Action | None:
        if not evaluation.request.recipient or not (subject.exact or subject.login):
            return None
        entries = identity.entries_of_recipient(evaluation)
        if evaluation.lacking:
            _owners(evaluation, subject, catch_all=denies)  # so that both are asked for together
            _is_in_by_envelope(evaluation, subject, identity.NOWHERE)
        if identity.agreed(entries, lambda entry: test(evaluation, entry, subject), table):
            return _traced(evaluation, table, subject.first, action, entries[0].dn)
        evaluation.trace_key(table, subject.first, None)
        return None

    return find


def _is_list_member(evaluation: Evaluation, target: Entry, subject: Subject) -> bool:
    dns = frozenset((target.key,))

    def inside(entry: Entry) -> bool:
        return identity.is_inside(evaluation, entry, dns)

    entries, _ = _owners(evaluation, subject, catch_all=False)
    found = identity.agreed(entries, inside, f"membership in {target.dn}")
    return bool(found) or _is_in_by_envelope(evaluation, subject, dns)


def _is_in_by_envelope(evaluation: Evaluation, subject: Subject, dns: frozenset[str]) -> bool:
    """Whether a sender that has no entry is a member of one of those (normal) DNs; a login never is."""
    if subject.login:
        return False
    return identity.groups_of_envelope(evaluation, subject.exact).holds(dns)


def _is_named(names: Callable[[Evaluation], tuple[str, ...]], *, denies: bool = False) -> Test:
    """A test of DN attributes of the recipient's entry; a group there means its members.

    A catch-all lets nobody in, for whoever invents an address in its domain has it; it does deny.
    """

    def test(evaluation: Evaluation, target: Entry, subject: Subject) -> bool:
        dns = identity.normal_values(target, names(evaluation))
        if not dns:
            return False

        def inside(entry: Entry) -> bool:
            return identity.belongs_to(evaluation, entry, dns)

        entries, _ = _owners(evaluation, subject, catch_all=denies)
        found = identity.agreed(entries, inside, f"membership by {target.dn}")
        return bool(found) or _is_in_by_envelope(evaluation, subject, dns)

    return test


def _is_listed(
    patterns: Callable[[Evaluation], tuple[str, ...]],
    names: Callable[[Evaluation], tuple[str, ...]],
    *,
    denies: bool = False,
) -> Test:
    """A test of patterns (access(5) keys) of the recipient's entry, then of DNs."""
    named = _is_named(names, denies=denies)

    def test(evaluation: Evaluation, target: Entry, subject: Subject) -> bool:
        values = frozenset(value.casefold() for name in patterns(evaluation) for value in target.values(name))
        if values and not values.isdisjoint(_all_keys(evaluation, subject, denies)):
            return True
        return named(evaluation, target, subject)

    return test


def _all_keys(evaluation: Evaluation, subject: Subject, denies: bool) -> set[str]:
    """All access(5) keys of an address; of a login, of itself and of all addresses of its entry.

    Of itself as it stands, and as its entry has it: without a realm. Of a catch-all only where senders
    are denied.
    """
    if not subject.login:
        return set(subject.keys)
    login = identity.identified(evaluation)
    own_addresses = evaluation.mapping.addresses_of if denies else partial(identity.addresses, evaluation)
    own = own_addresses(login.entry) if login.entry is not None else ()
    names = dict.fromkeys((subject.login, login.name, *own))
    return {key for name in names for key in address_subject(evaluation, name).keys}


def _sender_access(evaluation: Evaluation, subject: Subject) -> Action | None:
    return _find_access(evaluation, subject, recipient=False)


def _recipient_access(evaluation: Evaluation, subject: Subject) -> Action | None:
    return _find_access(evaluation, subject, recipient=True)


_DENYING = frozenset(("recipient:denied",))

_RECIPIENT_TABLES: Mapping[str, tuple[Test, str]] = {
    "members": (_is_list_member, "OK"),
    "owners": (_is_named(lambda evaluation: evaluation.mapping.owner), "OK"),
    "moderators": (_is_named(lambda evaluation: evaluation.mapping.moderator), "OK"),
    "allowed": (
        _is_listed(
            lambda evaluation: evaluation.mapping.allowed_sender,
            lambda evaluation: evaluation.mapping.allowed_sender_dn,
        ),
        "OK",
    ),
    "denied": (
        _is_listed(
            lambda evaluation: evaluation.mapping.denied_sender,
            lambda evaluation: evaluation.mapping.denied_sender_dn,
            denies=True,
        ),
        "REJECT",
    ),
}


def _identity_finder(name: TableName, check: str) -> Finder | None:
    """The finder of a table that is made of the directory itself, or None."""
    if check not in IDENTITY_TABLES.get((name.type, name.name), frozenset()):
        return None
    if name == NOBODY_TABLE:
        return _find_nobody
    if name.type == "directory":
        if name.shipped:
            return _find_access_behind
        return _recipient_access if check == "recipient" else _sender_access
    test, found = _RECIPIENT_TABLES[name.name]
    if name.shipped:
        found = NOT_AUTHORIZED
    return _recipient_finder(str(name), test, found)
