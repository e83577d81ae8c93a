"""Where main.cf and master.cf call the policy service: each place where it cannot protect is a case.

A case is the text of a main.cf (and of the master.cf beside it), and what is said of it, `error: LINE:
PARAMETER: text` (`master.cf:LINE` for the other file). The policies are `default` (a sender and a recipient
list) and `full` (one list of each kind).
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from ldappolicy.calls import Site, judge
from ldappolicy.config import Inet, Unix
from ldappolicy.entry import Entry
from ldappolicy.main_cf import read_main_cf, read_master_cf
from ldappolicy.policy import LISTS, PARAMETERS, read_policies
from tests.labs.ldappolicy import Ldappolicy
from tests.labs.postfix import Postfix, require_postfix

BASE = "ou=policy,dc=example,dc=com"


def policy(name: str, *lists: str) -> Entry:
    """A policy with these lists."""
    attributes = {LISTS[one]: ["reject_plaintext_session"] for one in lists}
    return Entry(f"cn={name},{BASE}", {"objectClass": ["smtpdPolicy"], "cn": [name], **attributes})


BROKEN = Entry(
    f"cn=broken,{BASE}", {"objectClass": ["smtpdPolicy"], "cn": ["broken"], "smtpdMynetworks": ["/"]}
)
OTHERS = (
    policy("mua", "recipient"),
    policy("both", "sender", "recipient"),
    policy("clients", "client"),
    policy("contents", "data"),
)
POLICIES = read_policies([policy("default", "sender", "recipient"), policy("full", *LISTS), *OTHERS, BROKEN])
SITE = Site(POLICIES, "default", (Inet("127.0.0.1", 10040),))
PERMITS = replace(SITE, permit_ok=True)

Judge = Callable[..., list[str]]


@pytest.fixture
def judged(tmp_path: Path) -> Judge:
    """What is said of a main.cf, and of the master.cf beside it."""

    def judged(main: str, master: str = "", site: Site = SITE) -> list[str]:
        (tmp_path / "main.cf").write_text(main, encoding="utf-8")
        (tmp_path / "master.cf").write_text(master, encoding="utf-8")
        services = read_master_cf(tmp_path / "master.cf")
        faults, _ = judge(read_main_cf(tmp_path / "main.cf"), services, site)
        return [re.sub(r"main\.cf:(?=[0-9])", "", str(one).replace(f"{tmp_path}/", "")) for one in faults]

    return judged


RELAY = "smtpd_relay_restrictions = permit_mynetworks, permit_sasl_authenticated, reject_unauth_destination\n"
TARGET = "inet:127.0.0.1:10040"
CALL = f"check_policy_service {TARGET}"


def recipient(*items: str) -> str:
    """A main.cf that relays to its own domains only, and has that recipient list on line 2."""
    return f"{RELAY}smtpd_recipient_restrictions = {', '.join(items)}\n"


def call(context: str = "", **settings: str) -> str:
    """A call with settings."""
    pairs = [f"{name}={value}" for name, value in settings.items()]
    pairs += [f"policy_context={context}"] if context else []
    return f"check_policy_service {{ {', '.join((TARGET, *pairs))} }}"


def each(policy: str, *lists: str, but: str = "") -> str:
    """A main.cf with a call in each of those lists."""
    lines = (f"{PARAMETERS[one]} = {call(f'{policy}/{one}')}" for one in lists if one != but)
    return RELAY + "\n".join(lines) + "\n"


WHERE = "2: smtpd_recipient_restrictions"
BEHIND = f"{WHERE}: the call stands behind"

# ---------------------------------------------------------------- nothing to say

CLEAN: dict[str, str] = {
    "the call alone": recipient(CALL),
    "as postconf(5) writes it": recipient("check_policy_service", TARGET).replace(",", ""),
    "in braces": recipient(call("default", timeout="10s")),
    "settings with braces": recipient(f"check_policy_service {{ {TARGET}, {{ policy_context = default }} }}"),
    "on this machine by another name": recipient("check_policy_service inet:localhost:10040"),
    "on this machine by its port": recipient("check_policy_service inet:[::1]:10040"),
    "behind what refuses": recipient("reject_non_fqdn_sender", "reject_rbl_client rbl.example", CALL),
    "behind reject_unauth_destination": recipient("reject_unauth_destination", CALL),
    "behind a table that never permits": recipient("check_client_access static:DUNNO", CALL),
    "behind a table that cannot permit": recipient("check_reverse_client_hostname_access hash:/x", CALL),
    "in front of what permits": recipient(CALL, "permit_mynetworks", "permit"),
    "in front of reject_unauth_destination, behind another one": recipient(CALL, "reject_unauth_destination"),
    "in front of reject_unauth_destination, once asked for": recipient(
        "reject_unauth_destination", CALL, "reject_unauth_destination"
    ),
    "in a class": recipient("ours") + f"smtpd_restriction_classes = ours\nours = {CALL}\n",
    "in a class in a class": recipient("outer")
    + f"smtpd_restriction_classes = outer, inner\nouter = reject_non_fqdn_sender, inner\ninner = {CALL}\n",
    "by the name of a parameter": recipient("$ours") + f"ours = {CALL}\n",
    "a class again and again": recipient("ours", "warn_if_reject ours", "outer")
    + "smtpd_restriction_classes = ours, outer\nours = reject_non_fqdn_sender\n"
    + f"outer = ours, ours, {CALL}\n",
    "a class that is called as a restriction is": recipient("Reject_Non_FQDN_Sender", CALL)
    + "smtpd_restriction_classes = Reject_Non_FQDN_Sender\n"
    + "Reject_Non_FQDN_Sender = Reject_Non_FQDN_Sender\n",
    "each list": each("default", "sender", "recipient"),
    "each list there is": each("full", *LISTS, but="relay")
    .replace("reject_unauth_destination\n", f"reject_unauth_destination, {call('full/relay')}\n")
    .replace("permit_mynetworks, permit_sasl_authenticated, ", ""),
    "a policy as a whole, and what RCPT does not run": RELAY
    + "".join(
        f"smtpd_{one}_restrictions = {call('full')}\n" for one in ("recipient", "data", "end_of_data", "etrn")
    ),
    "a permit in front of a call whose lists another one asks for": recipient(
        "permit_mynetworks", CALL
    ).replace(CALL, call("default/recipient"))
    + f"smtpd_client_restrictions = {call('default/recipient')}\n"
    + f"smtpd_sender_restrictions = {call('default/sender')}\n",
    "a default action that defers": recipient(CALL)
    + "smtpd_policy_service_default_action = 451 4.3.5 Server configuration problem\n",
    "a default action that defers if permitted": recipient(call(default_action="DEFER_IF_PERMIT")),
    "a policy that does not parse": recipient(call("broken")),
}


@pytest.mark.parametrize(
    "main",
    [main for name, main in CLEAN.items() if not name.startswith("a permit in")],
    ids=[name for name in CLEAN if not name.startswith("a permit in")],
)
def test_clean(judged: Judge, main: str) -> None:
    """A call that everybody's mail comes to is left alone."""
    assert [] == judged(main)


def test_asked_elsewhere(judged: Judge) -> None:
    """Who is let past one call is asked about by another: that is no fault, only asked for twice."""
    main = CLEAN["a permit in front of a call whose lists another one asks for"]
    assert [] == [line for line in judged(main) if "behind" in line]


# ---------------------------------------------------------------- calls that do not protect

FAULTS: dict[str, tuple[str, list[str]]] = {
    "behind permit_mynetworks": (
        recipient("permit_mynetworks", CALL),
        [f"error: {BEHIND} permit_mynetworks: who it lets through is never asked about"],
    ),
    "behind both": (
        recipient("permit_mynetworks", "Permit_SASL_Authenticated", "reject_unauth_destination", CALL),
        [
            f"error: {BEHIND} permit_mynetworks: who it lets through is never asked about",
            f"error: {BEHIND} Permit_SASL_Authenticated: who it lets through is never asked about",
        ],
    ),
    "behind permit_auth_destination": (
        recipient("permit_auth_destination", CALL, "reject"),
        [f"error: {BEHIND} permit_auth_destination: who it lets through is never asked about"],
    ),
    "behind permit": (
        recipient("permit", CALL),
        [f"error: {WHERE}: the call is never reached: permit before it ends the list"],
    ),
    "behind a permit that only warns": (
        recipient("warn_if_reject permit", CALL),
        [f"error: {WHERE}: the call is never reached: permit before it ends the list"],
    ),
    "behind reject": (
        recipient("reject", CALL),
        [f"warning: {WHERE}: the call is never reached: reject before it ends the list"],
    ),
    "behind a list of known clients": (
        recipient("permit_dnswl_client list.example", CALL),
        [f"warning: {BEHIND} permit_dnswl_client list.example: who it may let through is never asked about"],
    ),
    "behind a table": (
        recipient("check_client_access hash:/etc/postfix/access", CALL),
        [
            (
                f"warning: {BEHIND} check_client_access hash:/etc/postfix/access: who it may let through is"
                " never asked about"
            )
        ],
    ),
    "behind a table alone": (
        recipient("cidr:/etc/postfix/access", CALL),
        [f"warning: {BEHIND} cidr:/etc/postfix/access: who it may let through is never asked about"],
    ),
    "behind a table that permits": (
        recipient("check_client_access static:OK", CALL),
        [f"warning: {BEHIND} check_client_access static:OK: who it may let through is never asked about"],
    ),
    "behind another service": (
        recipient("check_policy_service inet:127.0.0.1:10023", CALL),
        [
            (
                f"warning: {BEHIND} check_policy_service inet:127.0.0.1:10023: who it may"
                " let through is never"
                " asked about"
            )
        ],
    ),
    "behind a class that permits": (
        recipient("trusted", CALL) + "smtpd_restriction_classes = trusted\ntrusted = permit_mynetworks\n",
        [f"error: {BEHIND} permit_mynetworks: who it lets through is never asked about"],
    ),
    "in a class behind what permits": (
        recipient("ours") + f"smtpd_restriction_classes = ours\nours = permit_mynetworks, {CALL}\n",
        [f"error: {BEHIND} permit_mynetworks: who it lets through is never asked about"],
    ),
    "behind a permit on a line of its own": (
        "# first\n" + RELAY + "\nsmtpd_recipient_restrictions =\n  permit_mynetworks,\n  # then\n  " + CALL,
        [
            (
                "error: 4: smtpd_recipient_restrictions: the call stands behind"
                " permit_mynetworks: who it lets"
                " through is never asked about"
            )
        ],
    ),
    "under warn_if_reject": (
        recipient("warn_if_reject", CALL).replace("reject, ", "reject "),
        [
            (
                f"warning: {WHERE}: warn_if_reject before the call: what the policy refuses is logged and let"
                " through"
            )
        ],
    ),
    "in a class under warn_if_reject": (
        recipient("warn_if_reject ours") + f"smtpd_restriction_classes = ours\nours = {CALL}\n",
        [
            (
                f"warning: {WHERE}: warn_if_reject before the call: what the policy refuses is logged and let"
                " through"
            )
        ],
    ),
    "no call": (
        RELAY,
        [
            (
                "error: main.cf: smtpd_recipient_restrictions: no list calls a policy service, expected"
                f" check_policy_service {TARGET}"
            )
        ],
    ),
    "a class that nothing names": (
        RELAY + f"smtpd_restriction_classes = ours\nours = {CALL}\n",
        [
            (
                "error: main.cf: smtpd_recipient_restrictions: no list calls a policy service, expected"
                f" check_policy_service {TARGET}"
            )
        ],
    ),
    "another service": (
        recipient("check_policy_service inet:127.0.0.1:10023"),
        [
            (
                f"warning: {WHERE}: nothing calls {TARGET}, the [server] listen;"
                " inet:127.0.0.1:10023 is taken"
                " for it"
            )
        ],
    ),
    "our port on another machine": (
        recipient(
            "check_policy_service inet:policy.example:10040, check_policy_service inet:127.0.0.1:10023"
        ),
        [
            (
                f"warning: {WHERE}: nothing calls {TARGET}, the [server] listen; inet:policy.example:10040 is"
                " taken for it"
            )
        ],
    ),
    "our policy by another port": (
        recipient(call("full/recipient").replace("10040", "10041")),
        [
            (
                f"warning: {WHERE}: nothing calls {TARGET}, the [server] listen;"
                " inet:127.0.0.1:10041 is taken"
                " for it"
            ),
            *(
                f"warning: main.cf: {PARAMETERS[one]}: policy 'full' has {LISTS[one]},"
                " and nothing calls for it"
                for one in LISTS
                if one not in ("relay", "recipient")
            ),
            (
                f"warning: 1: smtpd_relay_restrictions: policy 'full' has {LISTS['relay']},"
                " and nothing calls for it"
            ),
        ],
    ),
    "a list that is none": (
        recipient("{ reject", CALL),
        [
            f"error: {WHERE}: unbalanced '{{' at character 1",
            (
                "error: main.cf: smtpd_recipient_restrictions: no list calls a policy service, expected"
                f" check_policy_service {TARGET}"
            ),
        ],
    ),
    "no such policy": (
        recipient(call("nosuch")),
        [f"error: {WHERE}: policy_context 'nosuch' names a policy that is not there"],
    ),
    "no such policy, by the parameter": (
        recipient(CALL) + "smtpd_policy_service_policy_context = nosuch\n",
        [f"error: {WHERE}: policy_context 'nosuch' names a policy that is not there"],
    ),
    "no such list": (
        each("default", "sender") + f"smtpd_recipient_restrictions = {call('default/rcpt')}\n",
        [
            (
                "error: 3: smtpd_recipient_restrictions: policy_context 'default/rcpt'"
                " names no list, expected"
                " default/sender, default/recipient, ..."
            ),
            (
                "warning: 3: smtpd_recipient_restrictions: policy 'default' has"
                " smtpdRecipientRestrictions, and"
                " nothing calls for it"
            ),
        ],
    ),
    "another list": (
        each("default", "sender") + f"smtpd_data_restrictions = {call('default/recipient')}\n",
        [
            (
                "warning: 3: smtpd_data_restrictions: policy_context 'default/recipient'"
                " calls for another list"
                " than the one that it stands in, expected default/data"
            )
        ],
    ),
    "as a whole from two lists": (
        recipient(CALL) + f"smtpd_sender_restrictions = {CALL}\n",
        [
            (
                f"warning: {WHERE}: smtpdSenderRestrictions and"
                " smtpdRecipientRestrictions of policy 'default'"
                " evaluated again, after smtpd_sender_restrictions, expected one call,"
                " or NAME/LIST in each list"
            )
        ],
    ),
    "as a whole and by list": (
        recipient(CALL) + f"smtpd_sender_restrictions = {call('default/sender')}\n",
        [
            (
                f"warning: {WHERE}: smtpdSenderRestrictions of policy 'default' evaluated again, after"
                " smtpd_sender_restrictions, expected one call, or NAME/LIST in each list"
            )
        ],
    ),
    "smtpd_delay_reject": (
        each("default", "sender", "recipient") + "smtpd_delay_reject = no\n",
        [
            (
                "warning: 4: smtpd_delay_reject: with 'no' smtpd_sender_restrictions is"
                " asked before there is a"
                " recipient, expected yes"
            )
        ],
    ),
    "an outage opens": (
        recipient(call(default_action="DUNNO")),
        [f"warning: {WHERE}: default_action 'DUNNO' lets mail through while the service is gone"],
    ),
    "an outage opens, by the parameter": (
        recipient(CALL) + "smtpd_policy_service_default_action = OK\n",
        [
            (
                "warning: 3: smtpd_policy_service_default_action: default_action 'OK'"
                " lets mail through while the"
                " service is gone"
            )
        ],
    ),
    "an outage opens, by a restriction": (
        recipient(call(default_action="permit_mynetworks")),
        [f"warning: {WHERE}: default_action 'permit_mynetworks' lets mail through while the service is gone"],
    ),
    "an outage bounces": (
        recipient("check_policy_service { " + TARGET + ", { default_action = 550 5.7.1 Go away } }"),
        [
            (
                f"warning: {WHERE}: default_action '550 5.7.1 Go away' refuses mail for good"
                " while the service is gone"
            )
        ],
    ),
    "a short timeout": (
        recipient(call(timeout="3s")),
        [
            (
                f"warning: {WHERE}: timeout '3s' is shorter than [server]"
                " request_timeout, 5s: Postfix gives up"
                " first"
            )
        ],
    ),
    "a short timeout, by the parameter": (
        recipient(CALL) + "smtpd_policy_service_timeout = 4\n",
        [
            (
                "warning: 3: smtpd_policy_service_timeout: timeout '4' is shorter than"
                " [server] request_timeout,"
                " 5s: Postfix gives up first"
            )
        ],
    ),
    "lists that nothing asks for": (
        recipient(call("full")),
        [
            f"warning: main.cf: {PARAMETERS[one]}: policy 'full' has {LISTS[one]}, and nothing calls for it"
            for one in ("data", "end_of_data", "etrn")
        ],
    ),
    "lists that nothing asks for, called by list": (
        each("default", "sender"),
        [
            (
                "warning: main.cf: smtpd_recipient_restrictions: policy 'default' has"
                " smtpdRecipientRestrictions,"
                " and nothing calls for it"
            )
        ],
    ),
}


@pytest.mark.parametrize("case", FAULTS)
def test_fault(judged: Judge, case: str) -> None:
    """Each fault is told of with its line; only what is certain is an error."""
    main, expected = FAULTS[case]
    assert sorted(expected) == sorted(judged(main))


# ---------------------------------------------------------------- asked elsewhere, in vain

PASSED = f"error: {BEHIND} permit_mynetworks: who it lets through is never asked about"

# What stands in main.cf beside a recipient list that has permit_mynetworks in front of a call for the whole
# policy, or for its recipient list; whether that asks who is let past.
BESIDE: dict[str, tuple[str, str, bool]] = {
    "the sender list": ("", f"smtpd_sender_restrictions = {CALL}\n", True),
    "the client list": ("", f"smtpd_client_restrictions = reject_unknown_client_hostname, {CALL}\n", True),
    "the relay list": ("", f"smtpd_relay_restrictions = reject_unauth_destination, {CALL}\n", True),
    "another policy": ("", f"smtpd_sender_restrictions = {call('both')}\n", False),
    "under warn_if_reject": ("", f"smtpd_sender_restrictions = warn_if_reject {CALL}\n", False),
    "behind reject": ("", f"smtpd_client_restrictions = reject, {CALL}\n", False),
    "behind defer": ("", f"smtpd_client_restrictions = defer, {CALL}\n", False),
    "behind a reject that warns": ("", f"smtpd_client_restrictions = warn_if_reject reject, {CALL}\n", True),
    "behind another permit": ("", f"smtpd_sender_restrictions = permit_sasl_authenticated, {CALL}\n", False),
    "by a class": (
        "",
        "smtpd_sender_restrictions = ours\nsmtpd_restriction_classes = ours\n" + f"ours = {CALL}\n",
        True,
    ),
    "by a class under warn_if_reject": (
        "",
        (
            "smtpd_sender_restrictions = warn_if_reject ours\nsmtpd_restriction_classes = ours\n"
            f"ours = reject_non_fqdn_sender, {CALL}\n"
        ),
        False,
    ),
    "the list alone": (
        "default/recipient",
        f"smtpd_sender_restrictions = {call('default/recipient')}\n",
        True,
    ),
    "the other list": ("default/recipient", f"smtpd_sender_restrictions = {call('default/sender')}\n", False),
    "for another command": (
        "default/recipient",
        f"smtpd_etrn_restrictions = {call('default/recipient')}\n",
        False,
    ),
    "after the recipients": (
        "default/recipient",
        f"smtpd_data_restrictions = {call('default/recipient')}\n",
        False,
    ),
    "before the recipients": (
        "default/recipient",
        f"smtpd_client_restrictions = {call('default/recipient')}\nsmtpd_delay_reject = no\n",
        False,
    ),
}


@pytest.mark.parametrize("case", BESIDE)
def test_let_past_unless_asked_elsewhere(judged: Judge, case: str) -> None:
    """Who is let past a call is asked by another only where that is reached, can refuse, and runs as well."""
    context, beside, is_asked = BESIDE[case]
    said = judged(recipient("permit_mynetworks", call(context)) + beside)
    assert ([] if is_asked else [PASSED]) == [line for line in said if line == PASSED]


# ---------------------------------------------------------------- classes


def classes(bodies: dict[str, str]) -> str:
    """Definitions of restriction classes."""
    names = f"smtpd_restriction_classes = {', '.join(bodies)}\n"
    return names + "".join(f"{name} = {body}\n" for name, body in bodies.items())


def chain(length: int, end: str, times: int = 1) -> str:
    """Classes that each name the next, so many times."""
    bodies = {f"c{at}": ", ".join([f"c{at + 1}"] * times) for at in range(1, length)}
    return classes({**bodies, f"c{length}": end})


DEEPER = "holds more than 100 classes within one another"
LONGER = "more than 1,000 restrictions, those of its classes included"

# A main.cf, and why its recipient list cannot be read.
ENDLESS: dict[str, tuple[str, str]] = {
    "a class that reaches itself": (
        recipient("ours", CALL) + classes({"ours": "ours"}),
        "'ours' reaches itself",
    ),
    "a class that reaches itself by another": (
        recipient(CALL, "a") + classes({"a": "reject_non_fqdn_sender, b", "b": "c", "c": "b"}),
        "class 'b' reaches itself",
    ),
    "a class in 100 others": (recipient("c1") + chain(101, CALL), f"class 'c1' {DEEPER}"),
    "a class in 100 others, the inner ones first": (
        recipient("c60", "c1") + chain(101, CALL),
        f"class 'c1' {DEEPER}",
    ),
    "a class in 1,500 others": (recipient("c1", CALL) + chain(1500, "reject"), f"class 'c1' {DEEPER}"),
    "2 ** 24 restrictions": (recipient("c1", CALL) + chain(25, "reject_non_fqdn_sender", 2), LONGER),
    "2 ** 60 calls": (recipient("c1") + chain(61, CALL, 2), LONGER),
    "1,001 restrictions": (recipient(*["reject_non_fqdn_sender"] * 1000, CALL), LONGER),
    "a brace": (recipient("{"), "unbalanced '{' at character 1"),
}


@pytest.mark.parametrize("case", ENDLESS)
def test_endless(judged: Judge, case: str) -> None:
    """Classes without an end, or with one that nobody lives to see, are an error and not a traceback."""
    main, expected = ENDLESS[case]
    said = judged(main)
    assert said[0].startswith(f"error: {WHERE}: ")
    assert said[0].endswith(expected)


SHARED = {
    "100 classes within one another": recipient("c1") + chain(100, CALL),
    "100 classes, all of them named": recipient(*(f"c{at}" for at in range(100, 1, -1)), CALL)
    + chain(100, "reject_non_fqdn_sender"),
    "2 ** 60 times nothing": recipient("c1", CALL) + chain(61, "", 2),
    "1,000 restrictions": recipient(*["reject_non_fqdn_sender"] * 999, CALL),
}


@pytest.mark.parametrize("main", SHARED.values(), ids=SHARED)
def test_classes_to_the_bound(judged: Judge, main: str) -> None:
    """A class is taken apart once, however often it is named."""
    assert [] == judged(main)


def test_one_list_that_cannot_be_read(judged: Judge) -> None:
    """The others are judged all the same."""
    main = recipient("permit_mynetworks", CALL) + "smtpd_etrn_restrictions = a\n" + classes({"a": "a"})
    assert [
        "error: 3: smtpd_etrn_restrictions: class 'a' reaches itself",
        f"error: {BEHIND} permit_mynetworks: who it lets through is never asked about",
    ] == judged(main)


@pytest.mark.parametrize("digits", [4, 400, 5000])
def test_a_long_timeout(judged: Judge, digits: int) -> None:
    """However many digits a time has, it is compared."""
    assert [] == judged(recipient(call(timeout="9" * digits)))


# ---------------------------------------------------------------- open relays

FRONT = "the call stands in front of"
OPEN = f'{FRONT} reject_unauth_destination while [policy] permit_reply = "OK": an open relay'
MAYBE = (
    f"{FRONT} reject_unauth_destination: restrictions left to Postfix that can permit"
    " would make an open relay"
)
OTHER = f'{FRONT} reject_unauth_destination, which permit_reply = "OK" passes over: only'
LATE = f"{CALL}, reject_unauth_destination"

# main.cf, what is said with permit_reply OK, and with DUNNO; there is a relay list by default from
# compatibility_level 1 on.
RELAYS: dict[str, tuple[str, list[str], list[str]]] = {
    "no relay list": (
        f"smtpd_recipient_restrictions = {LATE}\n",
        [f"error: 1: smtpd_recipient_restrictions: {OPEN}"],
        [f"warning: 1: smtpd_recipient_restrictions: {MAYBE}"],
    ),
    "an empty relay list": (
        f"compatibility_level = 3.6\nsmtpd_relay_restrictions =\nsmtpd_recipient_restrictions = {LATE}\n",
        [f"error: 3: smtpd_recipient_restrictions: {OPEN}"],
        [f"warning: 3: smtpd_recipient_restrictions: {MAYBE}"],
    ),
    "the relay list by default": (
        f"compatibility_level = 3.6\nsmtpd_recipient_restrictions = {LATE}\n",
        [f"warning: 2: smtpd_recipient_restrictions: {OTHER} smtpd_relay_restrictions refuses to relay"],
        [],
    ),
    "a relay list of its own": (
        recipient(LATE),
        [f"warning: {WHERE}: {OTHER} smtpd_relay_restrictions refuses to relay"],
        [],
    ),
    "in the relay list": (
        f"smtpd_relay_restrictions = {LATE}\n",
        [f"error: 1: smtpd_relay_restrictions: {OPEN}"],
        [f"warning: 1: smtpd_relay_restrictions: {MAYBE}"],
    ),
    "in the relay list, recipients guarded": (
        f"smtpd_relay_restrictions = {LATE}\nsmtpd_recipient_restrictions = reject_unauth_destination\n",
        [f"warning: 1: smtpd_relay_restrictions: {OTHER} smtpd_recipient_restrictions refuses to relay"],
        [],
    ),
    "in both lists": (
        (
            f"smtpd_relay_restrictions = {CALL}, reject_unauth_destination\n"
            f"smtpd_recipient_restrictions = {LATE}\n"
        ),
        [
            f"error: 1: smtpd_relay_restrictions: {OPEN}",
            f"error: 2: smtpd_recipient_restrictions: {OPEN}",
        ],
        [
            f"warning: 1: smtpd_relay_restrictions: {MAYBE}",
            f"warning: 2: smtpd_recipient_restrictions: {MAYBE}",
        ],
    ),
    "behind a permit in the relay list": (
        f"smtpd_relay_restrictions = permit\nsmtpd_recipient_restrictions = {LATE}\n",
        [f"error: 2: smtpd_recipient_restrictions: {OPEN}"],
        [f"warning: 2: smtpd_recipient_restrictions: {MAYBE}"],
    ),
    "behind a warning in the relay list": (
        (
            "smtpd_relay_restrictions = warn_if_reject reject_unauth_destination\n"
            f"smtpd_recipient_restrictions = {LATE}\n"
        ),
        [f"error: 2: smtpd_recipient_restrictions: {OPEN}"],
        [f"warning: 2: smtpd_recipient_restrictions: {MAYBE}"],
    ),
    "whatever the order of the lists": (
        recipient(LATE) + "smtpd_relay_before_recipient_restrictions = no\n",
        [f"warning: {WHERE}: {OTHER} smtpd_relay_restrictions refuses to relay"],
        [],
    ),
    "the sender list": (
        recipient("reject_unauth_destination") + f"smtpd_sender_restrictions = {CALL}\n",
        [],
        [],
    ),
    "behind it": (recipient("reject_unauth_destination", CALL), [], []),
}


@pytest.mark.parametrize("case", RELAYS)
def test_open_relay(judged: Judge, case: str) -> None:
    """A permit before reject_unauth_destination relays for everybody, unless another list refuses to."""
    main, ok, dunno = RELAYS[case]

    def about(site: Site) -> list[str]:
        return [line for line in judged(main, site=site) if FRONT in line]

    assert (ok, dunno) == (about(PERMITS), about(SITE))


# ---------------------------------------------------------------- master.cf

SMTP = "smtp inet n - y - - smtpd\n"
SUBMISSION = "submission inet n - y - - smtpd\n"
INHERITED = "what it sets here takes the place of main.cf's list"
UPSTREAM = """\
#submission inet n - y - - smtpd
#  -o smtpd_recipient_restrictions=reject
submission inet n       -       y       -       -       smtpd
  -o syslog_name=postfix/submission
  -o smtpd_tls_security_level=encrypt
  -o smtpd_sasl_auth_enable=yes
  -o smtpd_client_restrictions=
  -o smtpd_helo_restrictions=
  -o smtpd_sender_restrictions=
  -o smtpd_relay_restrictions=
  -o smtpd_recipient_restrictions=permit_sasl_authenticated,reject
"""


def without(line: int, name: str, parameter: str = "smtpd_recipient_restrictions", what: str = "") -> str:
    """What is said of a service that does not call."""
    what = what or "the policy service"
    return f"master.cf:{line}: {parameter}: service {name} does not call {what}: {INHERITED}"


IN_VAIN = (
    "master.cf:2: smtpd_recipient_restrictions: service submission calls for default/recipient,"
    f" default/sender in vain: {INHERITED}"
)

MASTERS: dict[str, tuple[str, str, list[str]]] = {
    "inherited": (recipient(CALL), SMTP + SUBMISSION + "  -o smtpd_sasl_auth_enable=yes\n", []),
    "the comments of master.cf uncommented": (
        recipient(CALL),
        SMTP + UPSTREAM,
        ["error: " + without(4, "submission")],
    ),
    "submissions": (
        recipient(CALL),
        SMTP + "submissions inet n - y - - smtpd -o smtpd_recipient_restrictions=reject\n",
        ["error: " + without(2, "submissions")],
    ),
    "by number and address": (
        recipient(CALL),
        SMTP + "192.0.2.1:465 inet n - y - - smtpd -o { smtpd_recipient_restrictions ="
        " permit_mynetworks, reject }\n",
        ["error: " + without(2, "192.0.2.1:465")],
    ),
    "submission on loopback": (
        recipient(CALL),
        SMTP + "[::1]:587 inet n - y - - smtpd -o smtpd_recipient_restrictions=\n",
        ["error: " + without(2, "[::1]:587")],
    ),
    "any other service": (
        recipient(CALL),
        SMTP + "2525 inet n - y - - smtpd -o smtpd_recipient_restrictions=reject\n",
        ["warning: " + without(2, "2525")],
    ),
    "behind a content filter": (
        recipient(CALL),
        SMTP
        + "127.0.0.1:10025 inet n - y - - smtpd -o smtpd_recipient_restrictions=permit_mynetworks,reject\n",
        [],
    ),
    "no smtpd": (
        recipient(CALL),
        SMTP + "587 inet n - y - - smtpd-like\npickup unix n - y 60 1 pickup\n",
        [],
    ),
    "behind postscreen": (
        recipient(CALL),
        "smtp inet n - y - 1 postscreen\nsmtpd pass - - y - - smtpd -o smtpd_recipient_restrictions=reject\n",
        ["warning: " + without(2, "smtpd")],
    ),
    "one call of two": (
        each("default", "sender", "recipient"),
        SMTP + SUBMISSION + "  -o smtpd_sender_restrictions=\n",
        ["error: " + without(2, "submission", "smtpd_sender_restrictions", "for default/sender")],
    ),
    "a call of its own": (
        recipient(CALL),
        SMTP
        + SUBMISSION
        + f"  -o {{ smtpd_recipient_restrictions = {CALL}, permit_sasl_authenticated, reject }}\n",
        [],
    ),
    "a call of its own, behind a permit": (
        recipient(CALL),
        SMTP + SUBMISSION + f"  -o {{ smtpd_recipient_restrictions = permit_sasl_authenticated, {CALL} }}\n",
        [
            (
                "error: master.cf:2: smtpd_recipient_restrictions: the call stands behind"
                " permit_sasl_authenticated: who it lets through is never asked about"
            )
        ],
    ),
    "a policy of its own": (
        recipient(CALL),
        SMTP + SUBMISSION + f"  -o {{ smtpd_recipient_restrictions = {call('mua')}, reject }}\n",
        [],
    ),
    "a policy of its own, asked in another list of the same state": (
        recipient(CALL),
        SMTP + SUBMISSION + "  -o smtpd_recipient_restrictions=permit_sasl_authenticated,reject\n"
        f"  -o {{ smtpd_client_restrictions = {call('mua')} }}\n",
        [],
    ),
    "lists of a policy of its own": (
        each("default", "sender", "recipient"),
        SMTP + SUBMISSION + f"  -o {{ smtpd_recipient_restrictions = {call('both/recipient')} }}\n"
        f"  -o {{ smtpd_sender_restrictions = {call('both/sender')} }}\n",
        [],
    ),
    "a list of a policy of its own, the other one inherited": (
        each("default", "sender", "recipient"),
        SMTP + SUBMISSION + f"  -o {{ smtpd_recipient_restrictions = {call('mua/recipient')} }}\n",
        [],
    ),
    "one list of a policy of its own": (
        recipient(CALL),
        SMTP + SUBMISSION + f"  -o {{ smtpd_recipient_restrictions = {call('mua/recipient')}, reject }}\n",
        ["warning: " + without(2, "submission", what="for default/sender")],
    ),
    "a policy of its own in another state": (
        recipient(CALL),
        SMTP + SUBMISSION + "  -o smtpd_recipient_restrictions=permit_sasl_authenticated,reject\n"
        f"  -o {{ smtpd_data_restrictions = {call('contents/data')} }}\n",
        ["error: " + without(2, "submission", what="for default/recipient, default/sender")],
    ),
    "another policy of main.cf": (
        recipient(CALL) + f"smtpd_client_restrictions = {call('clients/client')}\n",
        SMTP + SUBMISSION + "  -o smtpd_recipient_restrictions=permit_sasl_authenticated,reject\n",
        ["error: " + without(2, "submission", what="for default/recipient, default/sender")],
    ),
    "a policy of its own that is not there": (
        recipient(CALL),
        SMTP + SUBMISSION + f"  -o {{ smtpd_recipient_restrictions = {call('nosuch')}, reject }}\n",
        [
            (
                "error: master.cf:2: smtpd_recipient_restrictions: policy_context 'nosuch' names a policy"
                " that is not there"
            )
        ],
    ),
    "a call under warn_if_reject": (
        recipient(CALL),
        SMTP
        + SUBMISSION
        + "  -o smtpd_recipient_restrictions=permit_sasl_authenticated,reject\n"
        + f"  -o {{ smtpd_sender_restrictions = warn_if_reject {CALL} }}\n",
        [
            (
                "warning: master.cf:2: smtpd_sender_restrictions: warn_if_reject before the call: what the"
                " policy refuses is logged and let through"
            ),
            f"error: {IN_VAIN}",
        ],
    ),
    "a call of another policy under warn_if_reject": (
        recipient(CALL),
        SMTP
        + SUBMISSION
        + f"  -o {{ smtpd_recipient_restrictions = warn_if_reject {call('both')}, reject }}\n",
        [
            (
                "warning: master.cf:2: smtpd_recipient_restrictions: warn_if_reject before the call: what the"
                " policy refuses is logged and let through"
            ),
            "error: " + without(2, "submission", what="for default/recipient, default/sender"),
        ],
    ),
    "a call that is never reached": (
        recipient(CALL),
        SMTP + SUBMISSION + f"  -o {{ smtpd_recipient_restrictions = reject, {CALL} }}\n",
        [
            (
                "warning: master.cf:2: smtpd_recipient_restrictions: the call is never reached: reject before"
                " it ends the list"
            ),
            f"error: {IN_VAIN}",
        ],
    ),
    "a call for another command": (
        each("default", "sender", "recipient"),
        SMTP
        + SUBMISSION
        + "  -o smtpd_recipient_restrictions=permit_sasl_authenticated,reject\n"
        + f"  -o {{ smtpd_etrn_restrictions = {call('default/recipient')} }}\n",
        [
            (
                "warning: master.cf:2: smtpd_etrn_restrictions: policy_context 'default/recipient' calls for"
                " another list than the one that it stands in, expected default/etrn"
            ),
            (
                "error: master.cf:2: smtpd_recipient_restrictions: service submission calls for"
                f" default/recipient in vain: {INHERITED}"
            ),
        ],
    ),
    "all under warn_if_reject": (
        recipient(f"warn_if_reject {CALL}"),
        SMTP + SUBMISSION + "  -o smtpd_recipient_restrictions=permit_sasl_authenticated,reject\n",
        [
            (
                f"warning: {WHERE}: warn_if_reject before the call: what the policy refuses is logged and"
                " let through"
            ),
            "error: " + without(2, "submission"),
        ],
    ),
    "all under warn_if_reject, inherited": (
        recipient(f"warn_if_reject {CALL}"),
        SMTP + SUBMISSION,
        [
            (
                f"warning: {WHERE}: warn_if_reject before the call: what the policy refuses is logged and"
                " let through"
            ),
        ],
    ),
    "a list that cannot be read": (
        recipient(CALL) + "smtpd_restriction_classes = ours\nours = reject_non_fqdn_sender\n",
        SMTP + SUBMISSION + "  -o smtpd_recipient_restrictions=ours,reject -o ours=ours\n",
        [
            "error: master.cf:2: smtpd_recipient_restrictions: class 'ours' reaches itself",
            "error: " + without(2, "submission"),
        ],
    ),
    "a call by a parameter of main.cf": (
        recipient(CALL) + f"mua_recipient_restrictions = {CALL}, reject\n",
        SMTP + SUBMISSION + "  -o smtpd_recipient_restrictions=$mua_recipient_restrictions\n",
        [],
    ),
    "a parameter that the lists are made of": (
        recipient("$ours") + f"ours = {CALL}\n",
        SMTP + SUBMISSION + "  -o ours=reject\n",
        [
            (
                "error: master.cf:2: smtpd_recipient_restrictions: service submission"
                " does not call the policy"
                " service"
            )
        ],
    ),
    "on submission alone": (
        RELAY,
        SMTP + SUBMISSION + f"  -o {{ smtpd_recipient_restrictions = {CALL}, reject }}\n",
        ["warning: master.cf:1: smtpd_recipient_restrictions: service smtp does not call the policy service"],
    ),
    "smtpd_delay_reject": (
        each("default", "sender", "recipient"),
        SMTP + SUBMISSION + "  -o smtpd_delay_reject=no\n",
        [
            (
                "warning: master.cf:2: smtpd_delay_reject: with 'no'"
                " smtpd_sender_restrictions is asked before"
                " there is a recipient, expected yes"
            )
        ],
    ),
    "what is said of main.cf is said once": (
        recipient("permit_mynetworks", CALL),
        SMTP + SUBMISSION + "smtps inet n - y - - smtpd -o smtpd_sasl_auth_enable=yes\n",
        [f"error: {BEHIND} permit_mynetworks: who it lets through is never asked about"],
    ),
}


@pytest.mark.parametrize("case", MASTERS)
def test_master(judged: Judge, case: str) -> None:
    """Every smtpd in master.cf asks for what main.cf asks for, or it is told of; submission is an error."""
    main, master, expected = MASTERS[case]
    assert expected == judged(main, master)


# ---------------------------------------------------------------- which service is ours

# A target in main.cf, a listener, whether the one is the other.
TARGETS: Sequence[tuple[str, Inet | Unix, bool]] = (
    ("inet:127.0.0.1:10040", Inet("127.0.0.1", 10040), True),
    ("inet:localhost:10040", Inet("127.0.0.1", 10040), True),
    ("inet:[::1]:10040", Inet("127.0.0.1", 10040), True),
    ("inet:10040", Inet("127.0.0.1", 10040), True),
    ("inet:Policy.example:10040", Inet("policy.example", 10040), True),
    ("inet:policy.example:10040", Inet("0.0.0.0", 10040), True),
    ("inet:192.0.2.1:10040", Inet("::", 10040), True),
    ("inet:192.0.2.1:10040", Inet("192.0.2.1", 10040), True),
    ("inet:192.0.2.1:10040", Inet("192.0.2.2", 10040), False),
    ("inet:127.0.0.1:10041", Inet("127.0.0.1", 10040), False),
    ("unix:private/ldappolicy", Unix("/var/spool/postfix/private/ldappolicy"), True),
    ("unix:/private/ldappolicy", Unix("/var/spool/postfix/private/ldappolicy"), True),
    ("unix:/var/spool/postfix/private/ldappolicy", Unix("/var/spool/postfix/private/ldappolicy"), True),
    ("unix:/run/ldappolicy", Unix("/run/ldappolicy"), True),
    ("unix:private/other", Unix("/var/spool/postfix/private/ldappolicy"), False),
    ("unix:private/ldappolicy", Inet("127.0.0.1", 10040), False),
    ("inet:127.0.0.1:10040", Unix("/run/ldappolicy"), False),
)


@pytest.mark.parametrize(("target", "listener", "is_ours"), TARGETS)
def test_target(judged: Judge, target: str, listener: Inet | Unix, is_ours: bool) -> None:
    """A target is the listener that Postfix would reach by it; with another one, doubt is said."""
    said = judged(recipient(f"check_policy_service {target}"), site=replace(SITE, listen=(listener,)))
    assert is_ours == (said == [])
    assert is_ours or "the [server] listen" in said[0]


def test_queue_directory(judged: Judge) -> None:
    """A relative path starts where this Postfix has its queue."""
    site = replace(SITE, listen=(Unix("/srv/queue/private/ldappolicy"),))
    main = recipient("check_policy_service unix:private/ldappolicy") + "queue_directory = /srv/queue\n"
    assert [] == judged(main, site=site)


def test_queue_directory_of_a_service(judged: Judge) -> None:
    """What a service has for it counts there, and nowhere else."""
    site = replace(SITE, listen=(Unix("/var/spool/postfix/private/ldappolicy"),))
    main = recipient("check_policy_service unix:private/ldappolicy")
    assert [] == judged(main, SMTP + SUBMISSION + "  -o queue_directory=/srv/queue\n", site=site)


def test_only_ours(judged: Judge) -> None:
    """What other policy services do is theirs, as long as ours is there."""
    main = recipient(CALL, "permit_mynetworks", "check_policy_service { inet:127.0.0.1:10023, timeout=1s }")
    assert [] == judged(main)


def test_names_of_policies(tmp_path: Path) -> None:
    """Which policies are called is told as well: the others are not compared."""
    main = tmp_path / "main.cf"
    main.write_text(each("full", *LISTS) + f"smtpd_sender_restrictions = {CALL}\n", encoding="utf-8")
    assert {"default", "full"} == judge(read_main_cf(main), (), SITE)[1]


# ---------------------------------------------------------------- Postfix itself

TREE = """\
dn: dc=example,dc=com
objectClass: domain
dc: example

dn: ou=policy,dc=example,dc=com
objectClass: organizationalUnit
ou: policy

dn: cn=default,ou=policy,dc=example,dc=com
objectClass: smtpdPolicy
cn: default
smtpdSenderRestrictions: permit
smtpdRecipientRestrictions: check_recipient_access inline:{all@my.domain=REJECT}, permit
"""

PLACES: dict[str, tuple[str, bool]] = {
    "the call alone": (recipient(CALL), False),
    "in a class": (CLEAN["in a class"], False),
    "behind reject_unauth_destination": (recipient("reject_unauth_destination", CALL), False),
    "behind permit_mynetworks": (recipient("permit_mynetworks", CALL), True),
    "behind permit_auth_destination": (recipient("permit_auth_destination", CALL, "reject"), True),
    "behind permit": (recipient("permit", CALL), True),
    "in a class behind what permits": (FAULTS["in a class behind what permits"][0], True),
    "behind a permit, asked in another list": (
        recipient("permit_mynetworks", CALL) + f"smtpd_client_restrictions = {CALL}\n",
        False,
    ),
}
"""A main.cf, and whether a client in mynetworks reaches all@my.domain, which the policy refuses."""

_LISTS = ("smtpd_restriction_classes", "ours", *PARAMETERS.values())


@pytest.fixture(scope="module")
def permitting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A service that says OK to everything but mail for all@my.domain."""
    require_postfix()
    tree = tmp_path_factory.mktemp("tree") / "tree.ldif"
    tree.write_text(TREE, encoding="utf-8")
    with Ldappolicy({"directory": {"uri": [f"ldif:{tree}"]}, "policy": {"permit_reply": "OK"}}) as service:
        yield service.inet


def replies(folder: Path, inet: str, texts: Iterable[str], address: str, recipient: str) -> Iterator[str]:
    """What a real Postfix with each of these main.cf says of one recipient, to a client with that address."""
    services = {}
    for at, text in enumerate(texts):
        (folder / "main.cf").write_text(text.replace(TARGET, inet), encoding="utf-8")
        main = read_main_cf(folder / "main.cf")
        services[f"in{at}"] = {name: main.get(name) for name in _LISTS if main.get(name) or "relay" in name}
    with Postfix(services) as postfix:
        for name in services:
            with postfix.session(name, name="mail.outside.example", addr=address) as session:
                session.ehlo()
                session.mail("stranger@elsewhere.example")
                yield session.rcpt(recipient)


@pytest.mark.servers
def test_open_relay_in_postfix(tmp_path: Path, permitting: str) -> None:
    """Postfix relays for strangers exactly where an open relay was said to be an error."""
    said = replies(
        tmp_path,
        permitting,
        (main for main, *_ in RELAYS.values()),
        "198.51.100.7",
        "friend@elsewhere.example",
    )
    relays = {case: reply.startswith("250") for case, reply in zip(RELAYS, said, strict=True)}
    assert {case: any("error" in line for line in ok) for case, (_, ok, _) in RELAYS.items()} == relays


@pytest.mark.servers
def test_let_past_in_postfix(tmp_path: Path, permitting: str, judged: Judge) -> None:
    """A client in mynetworks reaches the protected list exactly where a call was said to be passed by."""
    said = replies(tmp_path, permitting, (main for main, _ in PLACES.values()), "192.0.2.7", "all@my.domain")
    reaches = {case: reply.startswith("250") for case, reply in zip(PLACES, said, strict=True)}
    assert {case: open_ for case, (_, open_) in PLACES.items()} == reaches
    judgements = {case: any("error" in line for line in judged(main)) for case, (main, _) in PLACES.items()}
    assert judgements == reaches
