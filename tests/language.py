"""A small site for the table tests of the language: policies and entries in few words, requests to their end.

Nothing of the program is replaced: entries lie in the embedded directory, lookups are planned and asked as
the resolver does, and the loop below is the service's without its clock and cache. A test can say which
lookups are unavailable, and whether what is lacking is asked all at once or one by one.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ldappolicy.directory.ldif import LdifDirectory
from ldappolicy.directory.plan import RESEMBLES, Answers, Planner, Where
from ldappolicy.entry import Entry, normal_dn
from ldappolicy.evaluate import Choices, Decision, Evaluator, Lacking
from ldappolicy.evaluation import Naming
from ldappolicy.facts import Absent, Facts, Found, Lookup, Missed, Outcome
from ldappolicy.learned import NotedRequest, ValuesOf
from ldappolicy.mapping import Mapping as AttributeMapping
from ldappolicy.policy import LISTS, PolicySet, read_policies
from ldappolicy.ready import ALWAYS
from ldappolicy.request import Request

BASE = "dc=example"
POLICY_BASE = "ou=policy,dc=example"
BASES = (normal_dn(BASE), normal_dn(POLICY_BASE))

CONFIGURATION_ERROR = "451 4.3.5 Server configuration error"
LOOKUP_FAILURE = "DEFER_IF_PERMIT 4.3.0 Temporary lookup failure"

REQUEST = {
    "protocol_state": "RCPT",
    "protocol_name": "ESMTP",
    "client_address": "203.0.113.5",
    "client_name": "mail.outside.example",
    "reverse_client_name": "mail.outside.example",
    "helo_name": "helo.outside.example",
    "sender": "a@b.example",
    "recipient": "u@my.domain",
}
"""A stranger's first recipient, over a connection without TLS."""

GENERIC = AttributeMapping()

Values = str | Sequence[str]


def entry(dn: str, **attributes: Values) -> Entry:
    """An entry below BASE; an attribute has one value or a list of them."""
    several = {name: [value] if isinstance(value, str) else value for name, value in attributes.items()}
    return Entry(f"{dn},{BASE}", several)


def dn(name: str) -> str:
    """The DN of an entry of these tests."""
    return f"{name},{BASE}"


def acting(action: str) -> str:
    """A check that finds this action, whoever asks."""
    return f"check_client_access static:{{{action}}}"


def policy(name: str = "default", **settings: Values) -> Entry:
    """A smtpdPolicy: lists by their short names, everything else by its attribute.

    One has to have a list: where a test gives it none, that of ETRN permits.
    """
    if not any(settings.get(key) for key in LISTS):
        settings = {**settings, "etrn": "permit"}
    named = {LISTS.get(key, key): value for key, value in settings.items()}
    return entry(f"cn={name},ou=policy", objectClass="smtpdPolicy", cn=name, **named)


def restriction_class(name: str, body: str) -> Entry:
    """A smtpdRestrictionClass."""
    return entry(
        f"cn={name},ou=classes,ou=policy",
        objectClass="smtpdRestrictionClass",
        cn=name,
        smtpdRestrictions=body,
    )


def table(name: str, *lines: str, rdn: str = "", **settings: Values) -> Entry:
    """A smtpdAccessTable of these lines; `rdn` makes a second entry of one name."""
    attributes = {"smtpdAccess": lines, **settings} if lines else settings
    return entry(
        f"cn={rdn or name},ou=tables,ou=policy", objectClass="smtpdAccessTable", cn=name, **attributes
    )


def tables(**lines: Sequence[str]) -> list[Entry]:
    """Several plain tables by name."""
    return [table(name, *values) for name, values in lines.items()]


def classes(**bodies: str) -> list[Entry]:
    """Several classes by name."""
    return [restriction_class(name, body) for name, body in bodies.items()]


def person(uid: str, *mail: str, **attributes: Values) -> Entry:
    """Somebody with a login and addresses."""
    return entry(f"uid={uid},ou=people", uid=uid, mail=mail or f"{uid}@my.domain", **attributes)


def group(cn: str, members: Sequence[str] = (), **attributes: Values) -> Entry:
    """A group of DNs; with `mail` it is a list."""
    return entry(f"cn={cn},ou=groups", cn=cn, member=list(members), **attributes)


AMY, BOB, CAL = (dn(f"uid={uid},ou=people") for uid in ("amy", "bob", "cal"))


DOMAIN = (21, 3623811015, 3361044348, 30300820)
"""The sub-authorities of a domain's identifier."""


def sid(*numbers: int) -> bytes:
    """S-1-5 and these sub-authorities, as MS-DTYP section 2.4.2.2 has it."""
    tail = b"".join(number.to_bytes(4, "little") for number in numbers)
    return bytes((1, len(numbers), 0, 0, 0, 0, 0, 5)) + tail


def text(octets: bytes) -> str:
    """Octets as an entry holds them."""
    return octets.decode("utf-8", "surrogateescape")


def nothing(lookup: Lookup) -> bool:
    """No lookup."""
    return False


def every(lookup: Lookup) -> bool:
    """Every lookup."""
    return True


def of_kind(*kinds: str) -> Callable[[Lookup], bool]:
    """Lookups of these kinds."""
    return lambda lookup: lookup[0] in kinds


def about(*values: str) -> Callable[[Lookup], bool]:
    """Lookups that ask for one of these values."""
    return lambda lookup: not set(values).isdisjoint(lookup[1:])


def asked(*, login: str = "", **attributes: str) -> Request:
    """REQUEST with other attributes; `login` stands for both SASL attributes."""
    sasl = {"sasl_username": login, "sasl_method": "PLAIN"} if login else {}
    return Request.from_attributes({**REQUEST, **sasl, **attributes})


class Site:
    """A directory with policies, and the evaluator over them."""

    def __init__(
        self,
        *entries: Entry | Sequence[Entry],
        permit_ok: bool = False,
        on_unavailable: str = "defer",
        missed: Callable[[Lookup], bool] = nothing,
        stale: Callable[[Lookup], bool] = nothing,
        one_by_one: bool = False,
        mapping: AttributeMapping = GENERIC,
        has_chain: bool = False,
        tells_apart: bool = False,
        login_realms: Sequence[str] = (),
        domains: Sequence[str] = (),
    ) -> None:
        flat = [one for given in entries for one in ([given] if isinstance(given, Entry) else given)]
        root = [entry("ou=policy", ou="policy"), Entry(BASE, {"dc": ["example"]})]
        self.directory = LdifDirectory([*root, *flat])
        self.policies: PolicySet = read_policies(list(self.directory), BASES)
        self.mapping, self.choices = (
            mapping,
            Choices(
                "default",
                permit_ok,
                on_unavailable,
                naming=Naming(frozenset(login_realms), frozenset(domains)),
            ),
        )
        self.evaluator = self.new_evaluator()
        self.planner = Planner(Where(BASE, domains=frozenset(domains)), mapping)
        self.missed, self.stale = missed, stale
        self.one_by_one = one_by_one
        self.rounds: list[tuple[Lookup, ...]] = []
        self.known: dict[Lookup, Outcome] = {}
        self.has_chain, self.tells_apart = has_chain, tells_apart

    def new_evaluator(self) -> Evaluator:
        """One that has decided nothing yet."""
        return Evaluator(self.policies, self.mapping, self.choices)

    def facts(self, known: Mapping[Lookup, Outcome]) -> Facts:
        """Facts that nothing has been concluded from yet."""
        return Facts(known.get, has_chain=self.has_chain, tells_apart=self.tells_apart)

    def decide(self, **attributes: str) -> Decision:
        """The decision of a request; `login` stands for both SASL attributes."""
        return self.resolve(asked(**attributes))

    def action(self, **attributes: str) -> str | None:
        """What is answered to a request."""
        return self.decide(**attributes).action

    def resolve(self, request: Request, trace: list[dict[str, Any]] | None = None) -> Decision:
        """Evaluates, asks for what is lacking, evaluates again."""
        known = self.known = {}
        facts = self.facts(known)
        self.rounds = []
        for _ in range(1000):
            decision = self.evaluator.evaluate(request, facts, trace)
            if isinstance(decision, Decision):
                return decision
            assert isinstance(decision, Lacking)
            assert not known.keys() & set(decision.lookups), "asked for again"
            lookups = decision.lookups[:1] if self.one_by_one else decision.lookups
            self.rounds.append(lookups)
            known.update(self.ask(lookups))
        raise AssertionError("no decision after 1000 rounds")

    def ask(self, lookups: Sequence[Lookup]) -> Mapping[Lookup, Outcome]:
        """The outcomes of lookups, in as few searches as the plan has."""
        outcomes: dict[Lookup, Outcome] = {
            lookup: Missed("made unavailable") for lookup in lookups if self.missed(lookup)
        }
        searched = [lookup for lookup in lookups if lookup not in outcomes]
        answers = asyncio.run(self._search(searched))
        outcomes |= {lookup: Missed(RESEMBLES) for lookup in searched if lookup not in answers}
        for lookup, found in answers.items():
            outcome = Found(found) if found else Absent()
            old = replace(outcome, is_stale=True, turns_at=1.0)
            outcomes[lookup] = old if self.stale(lookup) else outcome
        return outcomes

    async def _search(self, lookups: Sequence[Lookup]) -> Answers:
        answers: Answers = {}
        for batch in self.planner.plan(lookups):
            answers.update(await batch.ask(self.directory))
        return answers


def answer(recipient_list: str, *entries: Entry | Sequence[Entry], **attributes: str) -> str | None:
    """What a policy that has this recipient list only answers."""
    return Site(policy(recipient=recipient_list), *entries).action(**attributes)


def decide_in_turn(site: Site, requests: Sequence[Request]) -> None:
    """Asserts that what is learned of earlier requests says what an evaluator says that learns nothing.

    Twice each: as one that nobody has asked yet, and as one that is known. What is looked at is told.
    """
    evaluator = site.evaluator
    known: dict[Lookup, Outcome] = {}
    around = site.facts(known)
    for request in requests:
        values, taking_notes = ValuesOf(request), NotedRequest(request)
        decision = site.resolve(request)
        known.update(site.known)
        expected = _lasting(decision)
        assert expected == _lasting(site.new_evaluator().evaluate(request, site.facts(site.known), []))
        for asked_for in (taking_notes.as_request, request):
            begun = evaluator.recall(request.policy_context, values, around)
            if isinstance(begun, Decision):
                assert expected == _lasting(begun)
            else:
                assert expected == _lasting(evaluator.evaluate(asked_for, around, begun=begun))
            assert expected == _lasting(evaluator.evaluate(asked_for, around))
        assert set(taking_notes.looks) <= ALWAYS | evaluator.looks


def _lasting(decision: Decision | Lacking) -> Decision:
    """Without the notes about entries, which are told once for all requests."""
    assert isinstance(decision, Decision)
    return replace(decision, notes=tuple(note for note in decision.notes if "neither TRUE" not in note))
