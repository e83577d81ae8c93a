"""Every restriction through real Postfix: natively in main.cf, and left to the service.

A case is a policy in which the restriction decides, and the reply that Postfix alone gives to the last
command (`expected`). Through one call and through a call from each list the reply has to be that one. Each
name of `ldappolicy.vocabulary` comes to at least two different replies, or stands in ONE_ENDING with the
reason.
"""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import pytest

from ldappolicy import vocabulary
from tests.conformance.answering import CLIENT, HELO, SENDER, Answering, sent, session
from tests.conformance.inside import of_pair
from tests.conformance.pairs import Pair, Table
from tests.labs.postfix import require_postfix

ACCEPTED, REJECTED = "250 2.1.5", "554 5.7.1"
NOBODY, ELSEWHERE, UNKNOWN = "a@nobody.example", "u@outside.example", "u@valias.example"
INSIDE = {"name": "inside.local.example", "addr": "10.1.2.3"}
LISTED = {"name": "[UNAVAILABLE]", "reverse_name": "ptr.outside.example", "addr": "192.0.2.66"}
NAMELESS = {"name": "[UNAVAILABLE]", "reverse_name": "[UNAVAILABLE]", "addr": "203.0.113.11"}
UNNAMED_FOR_NOW = {"name": "[TEMPUNAVAIL]", "addr": "203.0.113.12"}


@dataclass(frozen=True)
class Case:
    """A list (or several), who says what, and Postfix's own reply to the last command about it."""

    restriction: str
    lists: str | dict[str, str]
    expected: str
    sender: str = SENDER
    recipients: tuple[str, ...] = ("bob@local.example",)
    client: Mapping[str, str] = field(default_factory=lambda: CLIENT)
    helo: str | None = HELO
    login: str = ""
    etrn: str = ""
    data: bool = False
    table: tuple[str, str] = ()  # type: ignore[assignment]
    knows: bool = True
    certificate: str = ""
    hasty: bool = False
    source: str = "127.0.0.1"
    dns: Mapping[tuple[str, str], list[str]] = field(default_factory=dict)

    def __str__(self) -> str:
        said = self.lists if isinstance(self.lists, str) else "; ".join(map(": ".join, self.lists.items()))
        return f"{said} = {self.expected}"

    def pair(self, fingerprint: str) -> Pair:
        """As data for the runner; FINGERPRINT is that of the client's certificate."""
        lists = {"recipient": self.lists} if isinstance(self.lists, str) else self.lists
        line = tuple(part.replace("FINGERPRINT", fingerprint) for part in self.table)
        tables = {"t": Table("hash", ((line[0], line[1]),))} if line else {}
        said = session(
            self.sender,
            *self.recipients,
            client=self.client,
            helo=self.helo,
            login=self.login,
            etrn=self.etrn,
            data=self.data,
        )
        return Pair(lists, {}, tables, {}, said, knows_networks=self.knows, knows_domains=self.knows)


def either(restriction: str, expected: str, **refused: object) -> tuple[Case, Case]:
    """A restriction that refuses this, and accepts what everybody says."""
    name = restriction.partition(" ")[0]
    return Case(name, restriction, expected, **refused), Case(name, restriction, ACCEPTED)  # type: ignore[arg-type]


def permits(restriction: str, **permitted: object) -> tuple[Case, Case]:
    """A restriction that permits this, and nothing that everybody says; behind it stands a reject."""
    name, text = restriction.partition(" ")[0], f"{restriction}, reject"
    return Case(name, text, ACCEPTED, **permitted), Case(name, text, REJECTED)  # type: ignore[arg-type]


def looks_up(check: str, key: str, **said: object) -> Iterator[Case]:
    """A check that finds the key, and one that does not."""
    for found, expected in ((key, REJECTED), ("other.example", ACCEPTED)):
        yield Case(check, f"{check} %t%", expected, table=(found, "REJECT"), **said)  # type: ignore[arg-type]


def of_login(name: str, login: str, sender: str, expected: str) -> Case:
    """A test of who owns the sender address."""
    return Case(name, name, expected, sender=sender, login=login)


MISMATCH = "553 5.7.1"
AMY, OWNED_BY_BOB = "amy@local.example", "x@outside.example"
MISMATCHES = {
    "reject_sender_login_mismatch": {
        ("bob", AMY): MISMATCH,
        ("", AMY): MISMATCH,
        ("bob", NOBODY): MISMATCH,
        ("", NOBODY): ACCEPTED,
        ("amy", AMY): ACCEPTED,
        ("bob", OWNED_BY_BOB): ACCEPTED,
    },
    "reject_authenticated_sender_login_mismatch": {
        ("bob", AMY): MISMATCH,
        ("bob", NOBODY): MISMATCH,
        ("", AMY): ACCEPTED,
        ("amy", AMY): ACCEPTED,
    },
    "reject_unauthenticated_sender_login_mismatch": {
        ("", AMY): MISMATCH,
        ("bob", AMY): ACCEPTED,
        ("", NOBODY): ACCEPTED,
    },
    "reject_known_sender_login_mismatch": {
        ("bob", AMY): MISMATCH,
        ("", AMY): MISMATCH,
        ("bob", NOBODY): ACCEPTED,
        ("amy", AMY): ACCEPTED,
    },
}

HERE = (
    Case("permit", "permit, reject", ACCEPTED),
    Case("permit", {"client": "permit", "recipient": "reject"}, REJECTED),
    Case("reject", "reject", REJECTED),
    Case("reject", {"client": "permit, reject"}, ACCEPTED),
    Case("defer", "defer", "450 4.3.2"),
    Case("defer", "permit, defer", ACCEPTED),
    Case("defer_if_permit", "defer_if_permit", "450 4.7.0"),
    Case("defer_if_permit", "defer_if_permit, reject", REJECTED),
    Case("defer_if_reject", "defer_if_reject, reject", "450 4.7.0"),
    Case("defer_if_reject", "defer_if_reject", ACCEPTED),
    Case("warn_if_reject", "warn_if_reject reject", ACCEPTED),
    Case("warn_if_reject", "warn_if_reject reject, reject", REJECTED),
    Case("warn_if_reject", "warn_if_reject reject_unknown_sender_domain", ACCEPTED, sender=NOBODY),
    *permits("permit_sasl_authenticated", login="amy"),
    *permits("permit_mynetworks", client=INSIDE),
    *permits("permit_mynetworks", client=INSIDE, knows=False),
    Case("permit_auth_destination", "permit_auth_destination, reject", ACCEPTED),
    Case("permit_auth_destination", "permit_auth_destination, reject", REJECTED, recipients=(ELSEWHERE,)),
    Case(
        "permit_auth_destination",
        "permit_auth_destination, reject",
        REJECTED,
        recipients=(ELSEWHERE,),
        knows=False,
    ),
    *either("reject_unauth_destination", REJECTED, recipients=(ELSEWHERE,)),
    *either("reject_unauth_destination", REJECTED, recipients=(ELSEWHERE,), knows=False),
    *either("reject_unauth_destination", REJECTED, recipients=("x%outside.example@local.example",)),
    *either("defer_unauth_destination", "454 4.7.1", recipients=(ELSEWHERE,)),
    *either("defer_unauth_destination", "454 4.7.1", recipients=(ELSEWHERE,), knows=False),
    *either("reject_non_fqdn_sender", "504 5.5.2", sender="x@nodot"),
    *either("reject_non_fqdn_recipient", "504 5.5.2", recipients=("x@nodot",)),
    *either("reject_non_fqdn_helo_hostname", "504 5.5.2", helo="nodot"),
    *either("reject_invalid_helo_hostname", "501 5.5.2", helo="bad_name!.example"),
    Case("reject_plaintext_session", "reject_plaintext_session", "450 4.7.1"),
    Case("reject_plaintext_session", "reject_plaintext_session", ACCEPTED, certificate="none"),
    *either("reject_multi_recipient_bounce", "550 5.5.3", sender="", recipients=(AMY, "bob@local.example")),
    Case(
        "reject_multi_recipient_bounce",
        {"data": "reject_multi_recipient_bounce"},
        "550 5.5.3",
        sender="",
        recipients=(AMY, "bob@local.example"),
        data=True,
    ),
    Case(
        "reject_multi_recipient_bounce",
        {"data": "reject_multi_recipient_bounce"},
        "250 2.0.0",
        sender="",
        data=True,
    ),
    *(
        of_login(name, login, sender, expected)
        for name, cases in MISMATCHES.items()
        for (login, sender), expected in cases.items()
    ),
)

LOOKUPS = (
    *looks_up("check_client_access", "outside.example"),
    *looks_up("check_client_access", "203.0.113"),
    *looks_up("check_reverse_client_hostname_access", "ptr.outside.example", client=LISTED),
    *looks_up("check_helo_access", HELO),
    *looks_up("check_sender_access", SENDER),
    *looks_up("check_recipient_access", "bob@"),
    *looks_up("check_sasl_access", "amy", login="amy"),
    *looks_up("check_ccert_access", "FINGERPRINT", certificate="trusted"),
    Case(
        "check_etrn_access",
        {"etrn": "check_etrn_access %t%"},
        REJECTED,
        etrn="relay.example",
        table=("relay.example", "REJECT"),
    ),
    Case(
        "check_etrn_access",
        {"etrn": "check_etrn_access %t%"},
        "250 Queuing",
        etrn="relay.example",
        table=("other.example", "REJECT"),
    ),
)

LEFT = (
    # XCLIENT does not change what this one looks at.
    Case("permit_inet_interfaces", "permit_inet_interfaces, reject", ACCEPTED),
    Case("permit_inet_interfaces", "permit_inet_interfaces, reject", REJECTED, source="127.0.0.2"),
    Case("permit_mx_backup", "permit_mx_backup, reject", ACCEPTED, recipients=("u@backup.example",)),
    Case("permit_mx_backup", "permit_mx_backup, reject", REJECTED, recipients=(ELSEWHERE,)),
    Case("permit_mx_backup", "permit_mx_backup, reject", "450 4.4.4", recipients=("u@some.servfail",)),
    *permits("permit_tls_clientcerts", certificate="trusted"),
    Case("permit_tls_clientcerts", "permit_tls_clientcerts, reject", REJECTED, certificate="self-signed"),
    *permits("permit_tls_all_clientcerts", certificate="trusted"),
    Case("permit_tls_all_clientcerts", "permit_tls_all_clientcerts, reject", REJECTED, certificate="none"),
    Case("permit_dnswl_client", "permit_dnswl_client dnswl.example, reject", ACCEPTED),
    Case("permit_dnswl_client", "permit_dnswl_client dnswl.example, reject", REJECTED, client=LISTED),
    Case("permit_dnswl_client", "permit_dnswl_client servfail, reject", "450 4.7.1"),
    Case("permit_rhswl_client", "permit_rhswl_client rhswl.example, reject", ACCEPTED),
    Case("permit_rhswl_client", "permit_rhswl_client rhswl.example, reject", REJECTED, client=NAMELESS),
    Case("permit_rhswl_client", "permit_rhswl_client servfail, reject", "450 4.7.1"),
    *either("reject_rbl_client rbl.example", REJECTED, client=LISTED),
    *either("reject_rbl rbl.example", REJECTED, client=LISTED),
    *(
        either(
            f"{name} rhsbl.example", REJECTED, **said, dns={(f"{listed}.rhsbl.example", "A"): ["127.0.0.2"]}
        )[at]
        for name, listed, said in (
            (
                "reject_rhsbl_client",
                "mail.listed.example",
                {"client": {**CLIENT, "name": "mail.listed.example"}},
            ),
            ("reject_rhsbl_reverse_client", "ptr.outside.example", {"client": LISTED}),
            ("reject_rhsbl_helo", "helo.listed.example", {"helo": "helo.listed.example"}),
            ("reject_rhsbl_sender", "listed.example", {"sender": "a@listed.example"}),
            ("reject_rhsbl_recipient", "listed.example", {"recipients": ("u@listed.example",)}),
        )
        for at in (0,)
    ),
    *(
        Case(name, f"{name} other.example", ACCEPTED)
        for name in (
            "reject_rhsbl_client",
            "reject_rhsbl_reverse_client",
            "reject_rhsbl_helo",
            "reject_rhsbl_sender",
            "reject_rhsbl_recipient",
        )
    ),
    Case(
        "reject_unauth_pipelining", {"data": "reject_unauth_pipelining"}, "503 5.5.0", data=True, hasty=True
    ),
    Case("reject_unauth_pipelining", {"data": "reject_unauth_pipelining"}, "250 2.0.0", data=True),
    *either("reject_unknown_client_hostname", "450 4.7.25", client=NAMELESS),
    *either("reject_unknown_client_hostname", "450 4.7.25", client=UNNAMED_FOR_NOW),
    *either("reject_unknown_client", "450 4.7.25", client=NAMELESS),
    *either("reject_unknown_reverse_client_hostname", "450 4.7.1", client=NAMELESS),
    Case(
        "reject_unknown_reverse_client_hostname",
        "reject_unknown_reverse_client_hostname",
        ACCEPTED,
        client=LISTED,
    ),
    *either("reject_unknown_helo_hostname", "450 4.7.1", helo="helo.nobody.example"),
    *either("reject_unknown_hostname", "450 4.7.1", helo="helo.nobody.example"),
    *either("reject_unknown_sender_domain", "450 4.1.8", sender=NOBODY),
    *either("reject_unknown_sender_domain", "450 4.1.8", sender="x@some.servfail"),
    *either("reject_unknown_address", "450 4.1.8", sender=NOBODY),
    *either("reject_unknown_recipient_domain", "450 4.1.2", recipients=("u@nobody.example",)),
    *either("reject_unverified_sender", "450 4.1.7", sender=UNKNOWN),
    *either("reject_unverified_recipient", "450 4.1.1", recipients=(UNKNOWN,)),
    *either("reject_unlisted_sender", "550 5.1.7", sender=UNKNOWN),
    *(
        Case(name, f"{name}, reject", expected, recipients=(recipient,))
        for name in ("reject_unlisted_recipient", "check_recipient_maps")
        for recipient, expected in ((UNKNOWN, "550 5.1.1"), (AMY, REJECTED))
    ),
    Case("sleep", "sleep 0", ACCEPTED),
    Case("sleep", "sleep 0, reject", REJECTED),
)

OLD = (
    *either("reject_invalid_hostname", "501 5.5.2", helo="bad_name!.example"),
    *either("reject_non_fqdn_hostname", "504 5.5.2", helo="nodot"),
)

CASES = (*HERE, *LOOKUPS, *LEFT, *OLD)

# Restrictions that never decide themselves: the endings are those of what stands around them.
ONE_ENDING = {
    "sleep": "it only waits: test_sleep",
    **dict.fromkeys(vocabulary.ONLY_IN_MAIN_CF, "always an error here: test_only_in_main_cf"),
}


@pytest.fixture(scope="module")
def runner() -> Iterator[Answering]:
    """One Postfix for all."""
    require_postfix()
    with Answering({"address_verify_poll_delay": "1s"}) as running:
        running.say(relay_clientcerts=f"inline:{{{running.fingerprint()}=amy}}")
        yield running


def run(runner: Answering, case: Case) -> None:
    """Says it everywhere."""
    runner.answer(case.dns)
    runner.certificate, runner.hasty, runner.source = case.certificate, case.hasty, case.source
    outcome = runner.run(case.pair(runner.fingerprint()))
    last = runner.runs["native"].steps[-1]
    assert case.expected == " ".join(last.reply.split()[:2]), last
    assert ([], []) == (outcome.differs, outcome.apart)
    assert {"native", "once", "each"} == runner.runs.keys()


@pytest.mark.servers
@pytest.mark.parametrize("case", CASES, ids=str)
def test_restriction(runner: Answering, case: Case) -> None:
    """Postfix by itself, one call and a call from each list: the same reply."""
    run(runner, case)


def test_every_restriction() -> None:
    """Every name comes to two replies, or it is said why not."""
    found: dict[str, set[str]] = {}
    for case in CASES:
        found.setdefault(case.restriction, set()).add(case.expected)
    assert set(vocabulary.BUILT_IN) == found.keys() | ONE_ENDING.keys()
    assert [] == sorted(name for name, replies in found.items() if len(replies) < 2)
    assert {"sleep"} == found.keys() & ONE_ENDING.keys()


@pytest.mark.servers
def test_sleep(runner: Answering) -> None:
    """It waits, in each of the three; Postfix is sent it once."""
    before = time.monotonic()
    run(runner, Case("sleep", "sleep 1", ACCEPTED))
    assert time.monotonic() - before >= 3
    assert {"sleep 1"} == {sent(runner.runs[name].steps[-1]) for name in ("once", "each")}


def argument(name: str) -> str:
    """What stands behind the name natively."""
    return "inet:127.0.0.1:1" if name == "check_policy_service" else "%t%"


@pytest.mark.servers
@pytest.mark.parametrize("name", sorted(vocabulary.ONLY_IN_MAIN_CF))
def test_only_in_main_cf(runner: Answering, name: str) -> None:
    """A server configuration error with a log line that names it, and a lint error before."""
    pair = Case(name, f"{name} {argument(name)}", "", table=("x", "REJECT")).pair("")
    wrong = [line for line in of_pair(pair).lint() if name in line]
    assert [True] == [line.startswith("error: ") for line in wrong]
    runner.answer({})
    runner.certificate, runner.source = "", "127.0.0.1"
    runner.run(pair)
    for service in ("once", "each"):
        step = runner.runs[service].steps[-1]
        assert ("451 4.3.5", "451 4.3.5 Server configuration error") == (step.reply[:9], sent(step))
        assert [name in line for line in step.log if line.startswith("error:")] == [True]


@pytest.mark.servers
def test_only_in_main_cf_before_it_is_reached(runner: Answering) -> None:
    """It is no error where the list ends before it."""
    run(runner, Case("permit", f"permit, check_policy_service {argument('check_policy_service')}", ACCEPTED))
