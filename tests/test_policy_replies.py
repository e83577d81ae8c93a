"""What smtpd(8) makes of a reply, as a model of its own; and everything that we send, held to it.

`policy_replies.json` holds replies of a policy service and what smtpd 3.7.11 and 3.12 made of them. The
model is check_table_result and generic_checks of smtpd_check.c (and is_map_command, argv_splitq), as far
as it takes to know whether a reply ends in `451 4.3.5 Server configuration error`; it shares nothing with
the program.
"""

import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ldappolicy import vocabulary
from ldappolicy.entry import Entry
from ldappolicy.protocol import encode_reply
from ldappolicy.vocabulary import CHECKS, EVALUATED, LEFT_TO_POSTFIX, WITH_DOMAIN
from tests.conformance import FOLDER
from tests.conformance.answering import session
from tests.conformance.generate import pairs
from tests.conformance.inside import company, of_pair
from tests.conformance.pairs import Pair, Table
from tests.conftest import ROOT
from tests.language import AMY, Site, acting, group, person, policy

ERROR = "451 4.3.5 Server configuration error"
LONGEST = 64 * 1024
"""Postfix has no limit; a list of restrictions may be long."""

# ---------------------------------------------------------------- smtpd


def words(text: str) -> frozenset[str]:
    """Names, with white space between them."""
    return frozenset(text.split())


ACTIONS = words("""
dunno reject defer hangup info warn filter hold discard redirect bcc defer_if_permit defer_if_reject
prepend ok relay
""")
RESTRICTIONS = words("""
check_policy_service check_recipient_maps check_relay_domains defer defer_if_permit defer_if_reject
defer_unauth_destination permit permit_auth_destination permit_dnswl_client permit_inet_interfaces
permit_mx_backup permit_mynetworks permit_naked_ip_address permit_rhswl_client permit_sasl_authenticated
permit_tls_all_clientcerts permit_tls_clientcerts reject reject_invalid_helo_hostname
reject_invalid_hostname reject_maps_rbl reject_multi_recipient_bounce reject_non_fqdn_helo_hostname
reject_non_fqdn_hostname reject_non_fqdn_recipient reject_non_fqdn_sender reject_plaintext_session
reject_rbl reject_rbl_client reject_rhsbl_client reject_rhsbl_helo reject_rhsbl_recipient
reject_rhsbl_reverse_client reject_rhsbl_sender reject_unauth_destination reject_unauth_pipelining
reject_unknown_address reject_unknown_client reject_unknown_client_hostname reject_unknown_helo_hostname
reject_unknown_hostname reject_unknown_recipient_domain reject_unknown_reverse_client_hostname
reject_unknown_sender_domain reject_unlisted_recipient reject_unlisted_sender reject_unverified_recipient
reject_unverified_sender sleep warn_if_reject reject_sender_login_mismatch
reject_authenticated_sender_login_mismatch reject_known_sender_login_mismatch
reject_unauthenticated_sender_login_mismatch
""")
OF_A_TABLE = words("""
check_ccert_access check_client_a_access check_client_access check_client_mx_access
check_client_ns_access check_etrn_access check_helo_a_access check_helo_access check_helo_mx_access
check_helo_ns_access check_recipient_a_access check_recipient_access check_recipient_mx_access
check_recipient_ns_access check_reverse_client_hostname_a_access check_reverse_client_hostname_access
check_reverse_client_hostname_mx_access check_reverse_client_hostname_ns_access check_sasl_access
check_sender_a_access check_sender_access check_sender_mx_access check_sender_ns_access
""")
OF_A_DOMAIN = words("""
reject_rbl_client reject_rbl permit_dnswl_client permit_rhswl_client reject_rhsbl_client
reject_rhsbl_reverse_client reject_rhsbl_helo reject_rhsbl_sender reject_rhsbl_recipient
""")
REMOVED = {"check_relay_domains", "reject_maps_rbl", "permit_naked_ip_address"}
"""Since 3.9 a server configuration error."""
MOST_LISTS = 100


class ConfigurationError(Exception):
    """reject_server_error."""


class Smtpd:
    """smtpd with these classes; `ending` are the restrictions that end a list there."""

    def __init__(
        self,
        classes: Mapping[str, str],
        ending: frozenset[str] = frozenset(),
        removed: frozenset[str] = frozenset(),
    ) -> None:
        self.classes = classes
        self.ending = ending
        self.removed = removed

    def refuses(self, reply: str) -> bool:
        """Whether this reply, with its frame, comes to a server configuration error."""
        value = reply.partition("=")[2].partition("\n")[0]
        try:
            self.result(value, 0)
        except ConfigurationError:
            return True
        return False

    def result(self, value: str, depth: int) -> bool:
        """check_table_result; whether the list that led here ends."""
        command, text = re.split(r"[ \t]", value + " ", maxsplit=1)
        if command.lower() in ACTIONS:
            return command.lower() in ("reject", "defer", "discard", "ok", "relay", "hangup")
        if re.fullmatch(r"[0-9]+", value) or (re.fullmatch(r"[45][0-9]{2}", command) and text.strip(" \t")):
            return True
        if ":" in value or depth > MOST_LISTS:
            raise ConfigurationError(value)
        return self.list(split(value), depth + 1) or not split(value)

    def list(self, names: list[str], depth: int) -> bool:
        """generic_checks; whether it ends the list around it."""
        waiting = iter(names)
        return any(self.item(name, waiting, depth) for name in waiting)

    def item(self, name: str, waiting: Iterator[str], depth: int) -> bool:
        """One restriction, with its argument."""
        lower = name.lower()
        if lower in OF_A_TABLE:
            return self.lookup(next(waiting, ""), depth)
        if lower == "check_policy_service" or lower in self.removed:
            raise ConfigurationError(name)
        if lower in OF_A_DOMAIN:
            next(waiting, None)
        elif lower == "sleep" and not re.fullmatch("[0-9]+", next(waiting, "")):
            raise ConfigurationError(name)
        elif lower not in RESTRICTIONS:
            return self.list(split(self.class_(name)), depth + 1)
        return lower in self.ending

    def class_(self, name: str) -> str:
        """Its body; names of classes are compared as they are."""
        if name not in self.classes:
            raise ConfigurationError(name)
        return self.classes[name]

    def lookup(self, table: str, depth: int) -> bool:
        """A table finds what it has; those of the recording have one key, that of the request."""
        if ":" not in table:
            raise ConfigurationError(table)
        found = re.fullmatch(r"inline:\{\S+=(\S+)\}", table)
        return found is not None and self.result(found[1], depth)


def split(value: str) -> list[str]:
    """argv_splitq: at commas and white space that are not within braces."""
    tokens, level = [""], 0
    for char in value:
        level += (char == "{") - (char == "}" and level > 0)
        if level == 0 and char in ", \t\r\n":
            tokens.append("")
        else:
            tokens[-1] += char
    return [token for token in tokens if token]


# ---------------------------------------------------------------- the recording


RECORDED = json.loads((FOLDER / "policy_replies.json").read_text("utf-8"))
CONTEXT, CLASSES_AT = RECORDED["context"], "classes: "
CLASSES = dict(re.split("=", one, maxsplit=1) for one in CONTEXT.partition(CLASSES_AT)[2].split("; "))
# What permits or refuses there: a client outside mynetworks, in plain text, a sender domain that is unknown.
ENDING = words("""
permit reject defer reject_unknown_sender_domain reject_plaintext_session permit_auth_destination
permit_mx_backup
""")
VERSIONS = {"result_3_7_11": frozenset[str](), "result_3_12": frozenset(REMOVED)}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    "case", RECORDED["replies"], ids=[repr(case["reply"]) for case in RECORDED["replies"]]
)
def test_recorded(case: Mapping[str, str], version: str) -> None:
    """The model knows what smtpd answered with a server configuration error, and what not."""
    smtpd = Smtpd(CLASSES, ENDING, VERSIONS[version])
    assert (case[version] == ERROR) == smtpd.refuses(case["reply"])


def test_all_are_there() -> None:
    """134 replies, of which some are refused and some are not."""
    refused = [case for case in RECORDED["replies"] if case["result_3_12"] == ERROR]
    assert (134, 31) == (len(RECORDED["replies"]), len(refused))


def test_names_are_those_of_smtpd() -> None:
    """Every name that can be sent is one that smtpd knows."""
    assert set(vocabulary.BUILT_IN) <= RESTRICTIONS | OF_A_TABLE
    assert REMOVED == (RESTRICTIONS | OF_A_TABLE) - set(vocabulary.BUILT_IN)


# ---------------------------------------------------------------- what we send

STRICT = Smtpd({}, frozenset(), frozenset(REMOVED))
"""Nothing ends its lists, so that every item has to be known."""


NOT_MEANT = re.compile(r"[0-9]+|reject|defer|defer_if_permit|defer_if_reject|(?i:hangup)\b.*")
CODE_ALONE = re.compile(
    r"(?i:reject|defer|defer_if_permit|defer_if_reject|[45][0-9]{2}) +[245]\.[0-9]{1,3}\.[0-9]{1,3}"
)


def wrong(action: str | None) -> str:
    """What smtpd would make something else of than was meant; empty: nothing."""
    if action is None or action == ERROR:
        return ""
    reply = encode_reply(action).decode("utf-8")
    framed = re.fullmatch(r"action=(\S[^\x00-\x1f\x7f]*)\n\n", reply)
    if framed is None or framed[1] != framed[1].rstrip() or len(reply) > LONGEST:
        return "not a line of text, or one without an end"
    if NOT_MEANT.fullmatch(framed[1]):
        return "an action that was not meant"
    if CODE_ALONE.fullmatch(framed[1]):
        return "a code without a text, which old versions fill with what they have"
    return "a server configuration error" if STRICT.refuses(reply) else ""


def test_golden() -> None:
    """What the explanations of the recipes show is sent."""
    shown = [
        line.removeprefix("action=")
        for path in sorted((ROOT / "tests" / "golden").glob("*.txt"))
        for line in path.read_text("utf-8").splitlines()
        if line.startswith("action=")
    ]
    assert len(shown) > 20
    assert [] == [(action, wrong(action)) for action in shown if wrong(action)]


@pytest.mark.servers
def test_example(example_ldif: Path) -> None:
    """Everybody of the example company writes to everybody, logged in as anybody, from anywhere."""
    site = company(example_ldif)
    logins = {
        address: entry.values("uid") for entry in site.directory for address in entry.values("mail")
    } | {"": (), "stranger@elsewhere.example": ("nobody",)}
    sent = set()
    for (sender, own), recipient in itertools.product(logins.items(), logins):
        for login in ("", *own):
            said = {"sender": sender, "recipient": recipient, "login": login}
            sent.add(site.action(**said, client_address="198.51.100.7"))
    assert len(sent) >= 5
    assert [] == [(action, wrong(action)) for action in sent if wrong(action)]


@pytest.mark.servers
@settings(max_examples=100, suppress_health_check=list(HealthCheck))
@given(pairs())
def test_generated(pair: Pair) -> None:
    """So is what generated policies come to, in every state."""
    assert [] == [(action, wrong(action)) for _, action in of_pair(pair).answers(pair) if wrong(action)]


EVERY_ITEM = [
    *sorted(EVALUATED - {"warn_if_reject"}),
    *(f"{name} 1" if name in WITH_DOMAIN else name for name in sorted(LEFT_TO_POSTFIX)),
    *(f"{check} static:{{REJECT 5.7.1}}" for check in sorted(CHECKS)),
    *(
        f"{check} directory:access"
        for check in ("check_sender_access", "check_recipient_access", "check_sasl_access")
    ),
    *map(
        acting,
        ("OK", "550", "HOLD", "DISCARD", "INFO x", "PREPEND X: y", "550 5.1.1", "DEFER_IF_PERMIT 4.7.1"),
    ),
]
STRANGE = {
    "sender": "nobody",
    "helo_name": "a..b",
    "login": "amy",
    "ccert_fingerprint": "aa",
    "etrn_domain": "x",
    "recipient": "a%b@c d",
}
PEOPLE: Sequence[Entry] = [person("amy", smtpdSenderAccess="REJECT 5.7.1"), group("g", [AMY])]


ONE_OF_EACH = [
    *("permit", "reject", "defer_if_permit", "defer_if_reject", "reject_non_fqdn_sender"),
    *("permit_inet_interfaces", "reject_unknown_sender_domain", "reject_rbl_client x.example"),
    *("reject_sender_login_mismatch", "permit_auth_destination"),
    *map(acting, ("OK", "HOLD", "550 5.1.1", "DEFER_IF_PERMIT 4.7.1")),
]


@pytest.mark.parametrize("first", EVERY_ITEM)
def test_every_reply_is_taken(first: str) -> None:
    """Whatever the lists are, the reply is one that Postfix does not answer with 451 4.3.5 by mistake."""
    for second in ONE_OF_EACH:
        one = policy("one", recipient=f"{first}, warn_if_reject {second}, {second}")
        site = Site(one, policy("two", client=second, recipient=first), PEOPLE)
        for context, request in itertools.product(("one", "two"), (STRANGE, {})):
            action = site.action(policy_context=context, **request)
            assert not wrong(action), (second, context, action)


CHARACTERS = st.characters(exclude_categories=["Cs"])
WORDS = (
    *("REJECT", "DEFER", "550", "450 4.7.1", "5500", "HOLD", "PREPEND", "FILTER", "BCC", "REDIRECT", "OK,"),
    *("DISCARD", "DEFER_IF_PERMIT", "DEFER_IF_REJECT", "DUNNO", "permit", "reject", "HANGUP", "INFO", "{"),
    *("reject_rbl_client", "sleep", "check_policy_service", "warn_if_reject", "static:", "c", "REJECT 5.7.1"),
)
SEPARATORS = (" ", "", ",", ", ", "\t", ":", " {", "\n", "\r\n", "\0", "\u2028", "\x85", "=")
RESTS = st.text(CHARACTERS, max_size=20) | st.sampled_from(("a@b", "x:y", "5.7.1", "reject", "x" * 3000))
HOSTILE = st.text(CHARACTERS, max_size=40) | st.builds(
    "{}{}{}".format, st.sampled_from(WORDS), st.sampled_from(SEPARATORS), RESTS
)
PLACES = (
    "reject_rbl_client deny.example, {}",
    "permit_mx_backup, {}, reject",
    "{}",
    "warn_if_reject {}",
    "{}, {}",
)


@pytest.mark.servers
@settings(max_examples=150, suppress_health_check=list(HealthCheck))
@given(value=HOSTILE, listed=st.sampled_from(PLACES))
@example("reject_rbl_client x\x1fpermit", "{}, reject")
@pytest.mark.parametrize("check", ["check_client_access %t%", "check_sender_access directory:access", "c"])
def test_hostile(check: str, value: str, listed: str) -> None:
    """Whatever stands in a table, in an attribute of a user or in a class, smtpd takes what is sent."""
    # LDIF is no place for a line end, an attribute is; the rest of the hostile values is test_hostile.py's.
    one = re.sub("[\n\r\0]", " ", value).strip() or "permit"
    lists = {"recipient": listed.replace("{}", check)}
    tables = {"t": Table("hash", (("outside.example", one),))}
    pair = Pair(lists, {"c": one}, tables, {"amy": {"smtpdSenderAccess": one}}, session("amy@local.example"))
    assert [] == [(action, wrong(action)) for _, action in of_pair(pair).answers(pair) if wrong(action)]


NOT_TAKEN = (
    *(" reject", "reject", "REJECT 5.7.1", "OK, reject", "DUNNO,reject", "{reject}", "nosuch, reject"),
    *(
        "permit_mynetworks; reject",
        "check_sender_access",
        "check_sender_access hash:/x",
        "600 x",
        "4.7.1 text",
    ),
)


@pytest.mark.parametrize("action", NOT_TAKEN)
def test_what_is_wrong(action: str) -> None:
    """The test of what is sent finds what must not be."""
    assert wrong(action)
