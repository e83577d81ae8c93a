"""Restrictions: each name of a list compiled to a step, and whole policies to programs.

The tests are those of smtpd_check(8); what needs the DNS, the session or Postfix's own tables is left to
Postfix. A built-in that refuses here is handed back by its name, so that code and text are Postfix's.
"""

from collections.abc import Callable, Mapping

from ldappolicy import identity, tables, vocabulary
from ldappolicy.address import (
    fold,
    is_address_literal,
    is_host_address,
    is_hostname,
    is_routed,
    is_unicode_hostname,
    split_address,
    strip_dot,
)
from ldappolicy.evaluation import (
    DEPTH_LIMIT,
    DUNNO,
    OK,
    TEMPORARY_FAILURE,
    Evaluation,
    MissedLookup,
    Naming,
    ServerConfigurationError,
    Skip,
    Step,
    Steps,
)
from ldappolicy.memories import BOUNDS, Memory, size_of
from ldappolicy.network import match_client
from ldappolicy.policy import (
    Broken,
    Item,
    Mynetworks,
    Policy,
    PolicySet,
    RestrictionClass,
    TableName,
    covered,
    parse_right_hand_side,
)
from ldappolicy.residue import Refusal
from ldappolicy.tables import Finder, Subject
from ldappolicy.vocabulary import Residue

# ---------------------------------------------------------------- refusing and permitting


def _permit(evaluation: Evaluation) -> int:
    return OK


def _item_refusal(name: str, *, temporary: bool) -> Refusal:
    """A refusal that Postfix words itself: the built-in's name, then what closes if it disagrees."""
    return Refusal("", temporary, (name, "defer" if temporary else "reject"))


_REJECT = Refusal("", temporary=False, items=("reject",))
_DEFER = Refusal("", temporary=True, items=("defer",))


def _refusing(refusal: Refusal) -> Step:
    return lambda evaluation: evaluation.refuse(refusal)


def _when(fails: Callable[[Evaluation], bool], name: str, *, temporary: bool = False) -> Step:
    """A built-in that refuses when its test fails."""
    refusal = _item_refusal(name, temporary=temporary)

    def step(evaluation: Evaluation) -> int:
        return evaluation.refuse(refusal) if fails(evaluation) else DUNNO

    return step


def _is_authenticated(evaluation: Evaluation) -> bool:
    """permit_sasl_authenticated looks at the mechanism, not at the name."""
    method = evaluation.request.sasl_method
    return bool(method) and method.casefold() != "anonymous"


def _permit_sasl_authenticated(evaluation: Evaluation) -> int:
    if _is_authenticated(evaluation):
        return OK
    evaluation.reason = "no login"
    return DUNNO


def _is_plaintext(evaluation: Evaluation) -> bool:
    return not evaluation.request.encryption_protocol


# ---------------------------------------------------------------- syntax


def _truncated(name: str) -> str:
    """The name without one trailing dot, but not without one of two."""
    return name[:-1] if len(name) > 1 and name.endswith(".") and name[-2] != "." else name


def _requires_fqdn(name: str, subject: Callable[[Evaluation], str]) -> Step:
    """reject_non_fqdn_*: a hostname with a dot, or an address literal.

    A name that is not ASCII is good with SMTPUTF8 only, which no request attribute tells: left to Postfix.
    """
    refusal = _item_refusal(name, temporary=False)

    def step(evaluation: Evaluation) -> int:
        domain = _truncated(subject(evaluation))
        if domain == _GOOD or ("." in domain and is_hostname(domain)):
            return DUNNO
        if "." in domain and not domain.isascii() and is_unicode_hostname(domain):
            return evaluation.leave(name, Residue.REFUSES_FOR_GOOD)
        return evaluation.refuse(refusal)

    return step


_GOOD = "good.example"
"""Stands for what a test lets through without looking."""


def _domain_of(address: str) -> str:
    """The domain that reject_non_fqdn_address looks at; a literal is let through."""
    domain = address.rpartition("@")[2] if "@" in address else ""
    return _GOOD if not address or (domain.startswith("[") and domain.endswith("]")) else domain


def _sender_domain(evaluation: Evaluation) -> str:
    return _domain_of(evaluation.request.sender)


def _recipient_domain(evaluation: Evaluation) -> str:
    return _domain_of(evaluation.request.recipient)


def _helo_domain(evaluation: Evaluation) -> str:
    name = evaluation.request.helo_name
    if not name or (name.startswith("[") and not _bad_literal(name)):
        return _GOOD
    return "" if name.startswith("[") else name


def _bad_literal(name: str) -> bool:
    inner = name[1:-1] if len(name) > 2 and name.endswith("]") else name
    return not is_address_literal(inner)


def _invalid_helo(evaluation: Evaluation) -> bool:
    name = evaluation.request.helo_name
    if name.startswith("["):
        return _bad_literal(name)
    short = _truncated(name)
    return bool(name) and not is_hostname(short) and not is_host_address(short)


def _multi_recipient_bounce(evaluation: Evaluation) -> int:
    """Known once Postfix tells the number of recipients; at RCPT it does not."""
    request = evaluation.request
    if request.sender or not evaluation.has_sender:
        return DUNNO
    told = request.recipient_count
    count = int(told) if told.isdecimal() and len(told) < 10 else 0
    if count == 0:
        return evaluation.leave("reject_multi_recipient_bounce", Residue.REFUSES)
    return evaluation.refuse(_BOUNCE) if count > 1 else DUNNO


_BOUNCE = _item_refusal("reject_multi_recipient_bounce", temporary=False)


# ---------------------------------------------------------------- who may send as whom


def _mismatch(text: str) -> Refusal:
    return Refusal(f"553 5.7.1 {text}", temporary=False)


def _auth_mismatch(evaluation: Evaluation, *, known_only: bool) -> bool:
    login = identity.entry_of_login(evaluation)
    if identity.owns_sender(evaluation, login):
        return False
    return not known_only or identity.is_known_sender(evaluation)


def _login_mismatch(*, authenticated: bool, unauthenticated: bool, known_only: bool = False) -> Step:
    """reject_*_sender_login_mismatch; the null sender is nobody's."""

    def test(evaluation: Evaluation) -> int:
        login = evaluation.request.sasl_username
        if login:
            if authenticated and _auth_mismatch(evaluation, known_only=known_only):
                return evaluation.refuse(_mismatch(f"not owned by user {login}"))
        elif unauthenticated and identity.is_known_sender(evaluation):
            return evaluation.refuse(_mismatch("not logged in"))
        return DUNNO

    def step(evaluation: Evaluation) -> int:
        if not evaluation.request.sender:
            return DUNNO
        try:
            return test(evaluation)
        except MissedLookup as missed:
            return evaluation.unavailable(missed)

    return step


# ---------------------------------------------------------------- networks and destinations


STEP_BYTES = 2048
"""Of one restriction that is compiled, nearly: functions with what they close over."""


def _permit_mynetworks(mynetworks: Mynetworks | None) -> Step:
    if mynetworks is None:
        return _leaving("permit_mynetworks", Residue.PERMITS)
    patterns = mynetworks.patterns
    known: Memory[tuple[str, str], bool | None] = Memory(BOUNDS["clients in networks"])

    def step(evaluation: Evaluation) -> int:
        request = evaluation.request
        client = request.client_name.casefold(), request.client_address.casefold()
        if client in known:
            found = known[client]
        else:
            found = match_client(patterns, *client)
            known.keep(client, found, size_of(*client))
        if found:
            return OK
        if found is None:
            raise ServerConfigurationError("smtpdMynetworks names a table that failed", TEMPORARY_FAILURE)
        evaluation.reason = "the client is not in smtpdMynetworks"
        return DUNNO

    return step


class LocalDomains:
    """smtpdLocalDomains: whether a domain is one of ours."""

    def __init__(self, name: TableName, finder: Finder) -> None:
        self._name = name
        self._finder = finder

    def holds(self, evaluation: Evaluation, domain: str) -> bool:
        """Whether the table has the domain; raises MissedLookup."""
        if self._name.type == "fail":
            raise ServerConfigurationError(f"smtpdLocalDomains names {self._name}, a table that failed")
        return evaluation.consult(self._finder, tables.local_domain_subject, domain) is not None


def _destination(
    local: LocalDomains | None, name: str, decide: Callable[[Evaluation, bool], int], does: Residue
) -> Step:
    """A test of the recipient's domain, left to Postfix where only it can know."""
    if local is None:
        return _leaving(name, does, needs_recipient=True)

    def step(evaluation: Evaluation) -> int:
        received = fold(evaluation.request.recipient)
        if not received:
            return DUNNO
        domain = split_address(strip_dot(received))[1]
        if not domain or is_routed(received):
            return evaluation.leave(name, does)
        try:
            is_local = local.holds(evaluation, domain)
        except MissedLookup as missed:
            return evaluation.unavailable(missed)
        if not is_local and domain.startswith("["):
            return evaluation.leave(name, does)
        return decide(evaluation, is_local)

    return step


def _permit_if_local(evaluation: Evaluation, is_local: bool) -> int:
    return OK if is_local else DUNNO


def _refuse_unless_local(name: str, *, temporary: bool) -> Callable[[Evaluation, bool], int]:
    refusal = _item_refusal(name, temporary=temporary)
    return lambda evaluation, is_local: DUNNO if is_local else evaluation.refuse(refusal)


# ---------------------------------------------------------------- left to Postfix, or an error


def _leaving(text: str, does: Residue, *, needs_recipient: bool = False) -> Step:
    def step(evaluation: Evaluation) -> int:
        if needs_recipient and not evaluation.request.recipient:
            return DUNNO
        return evaluation.leave(text, does)

    return step


def _failing(problem: str) -> Step:
    def step(evaluation: Evaluation) -> int:
        raise ServerConfigurationError(problem)

    return step


def _warning(inner: Step) -> Step:
    """warn_if_reject: the next item, and all of it if it is a class."""

    def step(evaluation: Evaluation) -> int:
        if evaluation.warned:
            return inner(evaluation)
        evaluation.warned = True
        try:
            return inner(evaluation)
        finally:
            evaluation.warned = False

    return step


def _shadowing(inner: Step) -> Step:
    """shadow: the next item, and all of it if it is a class."""
    return lambda evaluation: evaluation.shadow(inner)


# ---------------------------------------------------------------- access checks

_SUBJECTS: Mapping[str, Callable[[Evaluation], Subject | None]] = {
    "client": tables.client_subject,
    "reverse_client": tables.reverse_client_subject,
    "helo": tables.helo_subject,
    "sender": tables.sender_subject,
    "sasl": tables.login_subject,
    "etrn": tables.etrn_subject,
}


_SKIPPED = frozenset(("sender", "recipient"))
"""Checks of an address that mostly come to nothing, by the attribute of the request that it is."""

_OF_ACCOUNTS = frozenset(("ldap", "directory", "recipient"))
"""Types of tables whose OK a login has by its entry, or by what stands in the directory about it."""

_NOTHING = {"sasl": "no login", "helo": "no HELO name", "etrn": "no ETRN domain", "sender": "no sender yet"}


def _check(kind: str, finder: Finder, table: TableName) -> Step:
    """A `check_*_access` of that kind."""
    if kind == "recipient":
        return _recipient_check(finder)
    if kind == "ccert":
        return _certificate_check(finder)
    step = _plain_check(kind, finder)
    if kind == "reverse_client":
        return _never_ok(step)
    return _check_of_account(step) if kind == "sasl" and table.type in _OF_ACCOUNTS else step


def _plain_check(kind: str, finder: Finder) -> Step:
    subject_of = _SUBJECTS[kind]
    about_address = kind == "sender"

    def step(evaluation: Evaluation) -> int:
        try:
            action = evaluation.consult(finder, subject_of)
        except MissedLookup as missed:
            return evaluation.unavailable(missed)
        if action is None:
            is_nothing = evaluation.trace is not None and subject_of(evaluation) is None
            evaluation.reason = _NOTHING[kind] if is_nothing else "no key found"
            return DUNNO
        return evaluation.apply(action, about_address)

    return step


def _never_ok(check: Step) -> Step:
    """Whoever owns the address block chooses that name: Postfix forbids OK."""

    def step(evaluation: Evaluation) -> int:
        left = len(evaluation.outcome.pieces)
        status = check(evaluation)
        if _can_permit(evaluation, left):
            raise _unsaid(evaluation, left, "where OK is not allowed")
        if status == OK and not evaluation.outcome.discard:
            raise ServerConfigurationError("OK is not allowed in check_reverse_client_hostname_access")
        return status

    return step


def _recipient_check(finder: Finder) -> Step:
    """Each form of the recipient, rewritten first; a DUNNO of one does not end the other."""

    def step(evaluation: Evaluation) -> int:
        if not evaluation.request.recipient:
            evaluation.reason = "no recipient"
            return DUNNO
        around, status = evaluation.form, DUNNO
        try:
            for form in evaluation.recipients:
                evaluation.form = form
                status = _check_recipient(evaluation, finder, form)
                if status or evaluation.both:
                    return status
        except MissedLookup as missed:
            return evaluation.unavailable(missed)
        finally:
            evaluation.form = around
        return DUNNO

    return step


def _check_recipient(evaluation: Evaluation, finder: Finder, form: str) -> int:
    action = evaluation.consult(finder, tables.address_subject, form)
    if action is None:
        evaluation.reason = "no key found"
        return DUNNO
    left = len(evaluation.outcome.pieces)
    status = evaluation.apply(action, True)
    if (status == OK or _can_permit(evaluation, left)) and _is_untrusted(evaluation, form):
        return _without_permit(evaluation, status, left, "a recipient with routing in its local part")
    return status


def _check_of_account(check: Step) -> Step:
    """An OK that the directory has for a login whose entry is disabled or expired is DUNNO."""

    def step(evaluation: Evaluation) -> int:
        left = len(evaluation.outcome.pieces)
        status = check(evaluation)
        if status != OK and not _can_permit(evaluation, left):
            return status
        try:
            reason = identity.disabled_login(evaluation)
        except MissedLookup as missed:
            return evaluation.unavailable(missed)
        if not reason:
            return status
        return _without_permit(evaluation, status, left, f"a disabled login ({reason})")

    return step


def _without_permit(evaluation: Evaluation, status: int, left: int, whose: str) -> int:
    """What a check came to that is not to permit; an error where that cannot be said to Postfix."""
    pieces = evaluation.outcome.pieces
    while status == DUNNO and len(pieces) > left and pieces[-1].does is Residue.PERMITS:
        pieces.pop()
    if _can_permit(evaluation, left):
        raise _unsaid(evaluation, left, f"for {whose}")
    if status == OK and not evaluation.outcome.discard:
        evaluation.reason = f"an OK for {whose} is DUNNO"
        evaluation.undecided()
        return DUNNO
    return status


def _can_permit(evaluation: Evaluation, left: int) -> bool:
    """Whether anything that was left to Postfix since can permit."""
    return any(piece.does is Residue.PERMITS for piece in evaluation.outcome.pieces[left:])


def _unsaid(evaluation: Evaluation, left: int, where: str) -> ServerConfigurationError:
    """The error for a permit that is left to Postfix, in a place where it would be none there."""
    texts = ", ".join(piece.text for piece in evaluation.outcome.pieces[left:])
    del evaluation.outcome.pieces[left:]
    return ServerConfigurationError(
        f"one reply cannot say a permit that is left to Postfix {where} ({texts})"
    )


def _is_untrusted(evaluation: Evaluation, form: str) -> bool:
    """Whether an OK would trust sender-specified routing, or our guess of how Postfix resolves it."""
    return evaluation.guessed or ("@" in form and is_routed(form))


def _certificate_check(finder: Finder) -> Step:
    """The fingerprint of the certificate, then that of its public key."""

    def step(evaluation: Evaluation) -> int:
        request = evaluation.request
        for print_ in (request.ccert_fingerprint, request.ccert_pubkey_fingerprint):
            if print_:
                try:
                    action = evaluation.consult(finder, tables.print_subject, print_)
                except MissedLookup as missed:
                    return evaluation.unavailable(missed)
                status = DUNNO if action is None else evaluation.apply(action, False)
                if status:
                    return status
        return DUNNO

    return step


# ---------------------------------------------------------------- compiling


class Program:
    """One policy, compiled: its lists, and what its steps need to know of it.

    Everything is resolved when it is made; a name that means nothing is a step that says so.
    """

    def __init__(self, policy: Policy, policies: PolicySet, naming: Naming) -> None:
        self.policy = policy
        self.dn = policy.dn
        self.revision = policies.revision
        self.myorigin = policy.myorigin
        self.delimiter = policy.recipient_delimiter
        self.parents = policy.parent_domain_matches_subdomains
        self.bases = policies.bases
        self.naming = naming
        self._policies = policies
        self._classes: dict[str, Steps] = {}
        self._local: LocalDomains | None = None
        if policy.local_domains is not None:
            finder = tables.compile_table(policy.local_domains, policies, "local domain")
            self._local = LocalDomains(policy.local_domains, finder)
        self.knows_local_domains = self._local is not None
        self._built_in = _built_in(policy, self._local)
        self._right_hand_sides: Memory[tuple[str, ...], Steps] = Memory(BOUNDS["right-hand sides"])
        self.lists = {name: self._compile(items) for name, items in policy.lists.items()}

    def is_local(self, evaluation: Evaluation, domain: str) -> bool:
        """Whether a domain stands in smtpdLocalDomains; any does when the policy has none."""
        return self._local is None or self._local.holds(evaluation, domain)

    def right_hand_side(self, tokens: tuple[str, ...]) -> Steps:
        """The compiled form of a list that a table or an attribute holds."""
        known = self._right_hand_sides.get(tokens)
        if known is None:
            known = self._compile(parse_right_hand_side(tokens))
            self._right_hand_sides.keep(tokens, known, size_of(*tokens) + STEP_BYTES * len(tokens))
        return known

    def _compile(self, items: tuple[Item, ...]) -> Steps:
        steps: list[tuple[Step, str]] = []
        skips: list[Skip] = []
        for known in covered(items):
            step = self._step(known.item)
            step = _warning(step) if known.warned else step
            step = _shadowing(step) if known.shadowed else step
            steps.append((step, str(known)))
            skip = self._skip(known.item)
            skips += [skip] if skip else []
        return Steps(tuple(steps), tuple(skips) if len(skips) == len(steps) else ())

    def _skip(self, item: Item) -> Skip | None:
        """What tells that an item comes to nothing, if there is such a thing."""
        kind = vocabulary.CHECKS.get(item.name.lower(), "")
        if kind not in _SKIPPED or item.table != tables.ACCESS or item.fault:
            return None
        return tables.access_skip(kind, self.delimiter)

    def _step(self, item: Item) -> Step:
        if item.fault:
            return _failing(item.fault)
        name = item.name.lower()
        name = vocabulary.OLD_NAMES.get(name, name)
        if item.table is not None:
            return self._table_step(name, item.table)
        if name == "sleep":
            return lambda evaluation: evaluation.leave_sleep(int(item.argument))
        if name in vocabulary.LEFT_TO_POSTFIX:
            text = f"{name} {item.argument}".strip()
            return _leaving(text, vocabulary.LEFT_TO_POSTFIX[name])
        built_in = self._built_in.get(name)
        return built_in if built_in is not None else self._class_step(item.name)

    def _table_step(self, check: str, table: TableName) -> Step:
        if check:
            kind = vocabulary.CHECKS[check]
            return _check(kind, tables.compile_table(table, self._policies, kind), table)
        by_list = {
            stage: _check(kind, tables.compile_table(table, self._policies, kind), table)
            for stage, kind in vocabulary.DEFAULT_CHECKS.items()
        }
        problem = _failing(f"{table} needs a check_*_access before it in this list")
        return lambda evaluation: by_list.get(evaluation.stage, problem)(evaluation)

    def _class_step(self, name: str) -> Step:
        found = self._policies.classes.get(name)
        if found is None:
            return _failing(f"unknown restriction or class {name!r}")
        if isinstance(found, Broken):
            return _failing(f"class {name!r} does not parse: {found.dn}: {found.reason}")
        if name in self._policies.looping:
            return _failing(f"class {name!r} reaches itself by names alone")

        def step(evaluation: Evaluation) -> int:
            if evaluation.depth > DEPTH_LIMIT:
                raise ServerConfigurationError("classes are nested too deep")
            try:
                return evaluation.run(self._class_body(found))
            except ServerConfigurationError as problem:
                problem.came_from(found.dn)
                raise

        return step

    def _class_body(self, found: RestrictionClass) -> Steps:
        """The compiled body, made when it is first run: a class may name others without end."""
        steps = self._classes.get(found.name)
        if steps is None:
            steps = self._classes[found.name] = self._compile(found.items)
        return steps


def _built_in(policy: Policy, local: LocalDomains | None) -> Mapping[str, Step]:
    """Every restriction without an argument that is evaluated here, by name."""
    unauthorized, later = "reject_unauth_destination", "defer_unauth_destination"
    return {
        "permit": _permit,
        "reject": _refusing(_REJECT),
        "defer": _refusing(_DEFER),
        "defer_if_permit": lambda evaluation: evaluation.defer_if_permit(""),
        "defer_if_reject": lambda evaluation: evaluation.defer_if_reject(""),
        "permit_sasl_authenticated": _permit_sasl_authenticated,
        "permit_mynetworks": _permit_mynetworks(policy.mynetworks),
        "permit_auth_destination": _destination(
            local, "permit_auth_destination", _permit_if_local, Residue.PERMITS
        ),
        unauthorized: _destination(
            local, unauthorized, _refuse_unless_local(unauthorized, temporary=False), Residue.REFUSES
        ),
        later: _destination(local, later, _refuse_unless_local(later, temporary=True), Residue.REFUSES),
        "reject_non_fqdn_sender": _requires_fqdn("reject_non_fqdn_sender", _sender_domain),
        "reject_non_fqdn_recipient": _requires_fqdn("reject_non_fqdn_recipient", _recipient_domain),
        "reject_non_fqdn_helo_hostname": _requires_fqdn("reject_non_fqdn_helo_hostname", _helo_domain),
        "reject_invalid_helo_hostname": _when(_invalid_helo, "reject_invalid_helo_hostname"),
        "reject_plaintext_session": _when(_is_plaintext, "reject_plaintext_session", temporary=True),
        "reject_multi_recipient_bounce": _multi_recipient_bounce,
        "reject_sender_login_mismatch": _login_mismatch(authenticated=True, unauthenticated=True),
        "reject_authenticated_sender_login_mismatch": _login_mismatch(
            authenticated=True, unauthenticated=False
        ),
        "reject_unauthenticated_sender_login_mismatch": _login_mismatch(
            authenticated=False, unauthenticated=True
        ),
        "reject_known_sender_login_mismatch": _login_mismatch(
            authenticated=True, unauthenticated=True, known_only=True
        ),
    }
