"""lint: every fault that language and schema know, what is printed of it, and that it happens as foretold.

`bad_policies/NAME.ldif` is a directory with one fault (or one kind of it), `NAME.expected` what lint prints
of it. `CASES` says of each which sentence makes it a fault.
"""

import asyncio
import itertools
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ldappolicy import cli
from ldappolicy.directory import Directory, Features, Search
from ldappolicy.directory.ldif import LdifDirectory
from ldappolicy.directory.plan import Where
from ldappolicy.entry import Entry
from ldappolicy.evaluate import Choices, Decision, Evaluator
from ldappolicy.evaluation import Naming
from ldappolicy.facts import Absent, Facts
from ldappolicy.foresight import Contents, Foresight
from ldappolicy.ldap_filter import parse
from ldappolicy.lint import lint
from ldappolicy.mapping import Mapping
from ldappolicy.policy import Fault, Policy, read_policies
from ldappolicy.request import Request
from ldappolicy.service import Settings
from tests.labs.slapd import Slapd

Run = Callable[..., tuple[int, str, str]]

FOLDER = Path(__file__).parent / "bad_policies"
BASE = "dc=example,dc=com"
POLICY_BASE = "ou=policy,dc=example,dc=com"

CASES = (
    ("network_list", "a policy error: a network that is none"),
    ("network_with_host_bits", "a policy error: a network that is none, as Postfix sees it"),
    ("local_domains_unknown", "smtpdLocalDomains names a table"),
    ("local_domains_no_table", "smtpdLocalDomains names a table"),
    (
        "local_domains_of_identities",
        "smtpdLocalDomains names a table in which the domain alone is looked up",
    ),
    ("parents_neither", "schema: smtpdParentDomainMatchesSubdomains is a Boolean"),
    (
        "parents_dotted_key",
        "keys are access(5)'s: .domain is looked up only where the policy says so",
    ),
    ("at_domain_key", "keys and their order are access(5)'s: never @domain"),
    ("braces_in_policy", "a policy error: unbalanced braces"),
    ("braces_in_class", "a policy error: unbalanced braces"),
    (
        "default_policy_absent",
        "interfaces: a context that names no policy, the configured one above all",
    ),
    ("without_default_policy_that_parses", "a policy error: what does not parse"),
    ("unknown_restriction", "an unknown restriction"),
    ("unknown_class_in_class", "an unknown class, in a class that nothing reaches"),
    ("unknown_class_in_line", "an unknown class, in a table line that nothing reaches"),
    ("unknown_class_in_table_action", "an unknown class, in smtpdAccessAction"),
    ("unknown_class_in_inline", "an unknown class, in an inline: table"),
    ("unknown_class_in_static", "an unknown class, in a static: table"),
    (
        "unknown_class_of_user",
        "an unknown class, in attributes of a user, a list, a group and a domain",
    ),
    ("action_as_item", "an unknown restriction: actions stand on right-hand sides only"),
    ("near_miss_case", "class names are not case-insensitive; lint points at near misses"),
    ("near_miss_spelling", "lint points at near misses"),
    ("near_miss_classes", "lint points at near misses: two classes"),
    ("near_miss_of_built_in", "lint points at near misses: a class"),
    ("unknown_table", "an unknown table, never absent"),
    ("unknown_table_near_miss", "an unknown table, never absent; near misses"),
    ("unknown_table_type", "the tables there are"),
    ("unknown_identity_table", "the tables there are"),
    ("mx_access", "check_*_{a,mx,ns}_access: their argument can be declared in main.cf only"),
    ("policy_service", "check_policy_service: its argument can be declared in main.cf only"),
    ("class_loop", "a class that reaches itself by names alone"),
    ("class_loop_of_one", "a class that reaches itself by names alone, unreached"),
    ("entry_loop", "a class that reaches itself through a table is a lint error"),
    ("steps", "so are the steps of one evaluation: 10,000"),
    ("table_loop", "depth is bounded at 100 as in Postfix"),
    ("rhs_braces", "a right-hand side that is none"),
    ("rhs_missing_argument", "a right-hand side that is none: a missing argument"),
    ("ok_for_reverse_client", "OK from a table that must not say it"),
    ("ok_for_reverse_client_by_class", "OK from a table that must not say it, by a class"),
    ("argument_missing", "a policy error: a missing argument"),
    ("argument_no_table", "a policy error: a missing argument: what is there is no table"),
    ("line_without_action", "a policy error: a table line without an action"),
    ("line_quoted_without_action", "schema: white space in a key stands inside double quotes"),
    ("cidr_without_action", "a policy error: a table line without an action"),
    ("access_type", "a policy error: an unknown smtpdAccessType"),
    ("sleep_in_attribute", "FILTER and its like, sleep as well, count only from entries under policy_base"),
    ("sleep", "left to Postfix: sleep takes a number"),
    (
        "argument_with_colon",
        "a residue is joined into one reply, and no reply may hold a colon",
    ),
    (
        "table_alone_in_data",
        "a table without a check_ before it means the check of its list: data has none",
    ),
    (
        "table_alone_does_not_fit",
        "a table alone means the check of its list: any other is a policy error",
    ),
    (
        "check_of_directory_access",
        "directory:access serves sender, sasl and recipient checks, any other is a policy error",
    ),
    (
        "check_of_recipient_table",
        "the recipient: tables serve sender and sasl checks, any other is a policy error",
    ),
    ("check_of_directory_nobody", "directory:nobody serves sender and sasl checks"),
    ("nobody_without_local_domains", "directory:nobody: a policy error without smtpdLocalDomains"),
    ("nobody_in_class", "directory:nobody in a class that a policy without smtpdLocalDomains reaches"),
    ("nobody_in_relay_domain", "lint warns where relay domains without entries are in smtpdLocalDomains"),
    ("recipient_tables_without_recipient", "without a recipient they are skipped"),
    ("fail_table", "fail: is the server configuration error that a failed table is there"),
    ("inline_no_pair", "inline:{...}, as in Postfix"),
    ("inline_no_braces", "inline:{...}, as in Postfix"),
    ("cidr_no_network", "cidr_table(5): a network that is none"),
    ("cidr_number_twice", "two lines with one N are a policy error"),
    ("cidr_number_none", "lines may begin with {N}"),
    (
        "cidr_number_twice_joined",
        "two lines with one N are a policy error, in joined entries too",
    ),
    ("url_with_host", "smtpdAccessURL carries no host"),
    ("url_outside", "smtpdAccessURL carries a base below search_base or policy_base"),
    ("url_without_attribute", "schema: the values of its attributes are keys"),
    ("url_no_filter", "schema: smtpdAccessURL is an RFC 4516 URL"),
    ("member_url_with_host", "memberURL carries no host"),
    ("member_url_outside", "memberURL carries a base below search_base or policy_base"),
    ("table_in_rhs", "type:table inside a right-hand side is an error: write a class"),
    (
        "table_in_attribute",
        "type:table inside a right-hand side is an error, in the attribute of a user too",
    ),
    ("empty_rhs", "an empty right-hand side is OK with a warning"),
    ("code_without_text", "all-numeric is OK, a status code needs a text"),
    (
        "bad_arguments",
        "access(5): FILTER, REDIRECT, BCC, PREPEND with a bad argument are DUNNO",
    ),
    (
        "whole_message_in_attribute",
        "FILTER, REDIRECT, BCC, DISCARD, PREPEND in an attribute of a user or list",
    ),
    ("never_reached", "a list ends at its first permit, reject or defer"),
    (
        "address_twice",
        "several entries with one address: different answers make the lookup unavailable",
    ),
    ("address_shared", "several entries with one address: equal answers hold"),
    ("login_twice", "two entries with one login: unavailable"),
    (
        "domain_twice",
        "several entries with one domain: different answers make the lookup unavailable",
    ),
    (
        "dn_absent",
        "schema: owner, smtpdAccessMember, smtpdModerator and their like name entries",
    ),
    ("dn_none", "schema: DN attributes hold DNs"),
    ("access_member_none", "schema: smtpdAccessMember holds DNs"),
    ("pattern_never_matched", "schema: smtpdAllowedSender holds access(5) keys"),
    ("hold_and_residue", "HOLD and a residue: certain"),
    ("hold_and_residue_possible", "HOLD and a residue: possible"),
    (
        "hold_and_residue_in_one_list",
        "HOLD and a residue in one list, where NAME/LIST is no help",
    ),
    ("prepend_and_residue", "PREPEND, FILTER, REDIRECT or BCC and a residue"),
    ("two_effects", "what one reply cannot say: two actions on the message"),
    ("hold_and_defer_if_reject", "what one reply cannot say: two actions, of which one defers"),
    ("discard_behind_residue", "DISCARD behind a residue"),
    (
        "two_permitting_lists",
        "restrictions that can permit in two lists that do not begin with the same ones: certain",
    ),
    (
        "two_permitting_lists_possible",
        "restrictions that can permit in two lists, not the same: possible",
    ),
    ("single_valued", "schema: single-valued attributes"),
    ("two_lines_one_key", "schema: two lines with one folded key and different actions are a policy error"),
    (
        "two_lines_one_key_joined",
        "schema: two lines with one folded key and different actions, in joined entries",
    ),
    ("priority_no_number", "schema: smtpdPriority is an Integer"),
    ("slash_in_name", "schema: no / in the cn of a policy"),
    ("two_policies", "schema: policies with one cn are a policy error"),
    ("two_classes", "schema: classes with one cn are a policy error"),
    ("empty_class", "schema: smtpdRestrictions is a must"),
    ("no_name", "schema: cn is a must"),
    ("class_named_as_restriction", "schema: a class whose name is a built-in"),
    ("class_named_as_action", "schema: a class whose name is an action word"),
    ("class_name_separated", "schema: a class whose name holds white space, a comma, a colon or a brace"),
    (
        "two_accesses_in_one_list",
        "schema: sender and recipient rules in one list: the OK of one must not end the other",
    ),
)


def configuration(uri: str, more: str = "") -> str:
    """A configuration for the example tree in some directory."""
    return f'[directory]\nuri = ["{uri}"]\nsearch_base = "{BASE}"\npolicy_base = "{POLICY_BASE}"\n{more}'


@pytest.fixture
def run_lint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the command over a directory; its exit status, and what it prints on both outputs."""

    def run(uri: str, *arguments: str, more: str = "") -> tuple[int, str, str]:
        file = tmp_path / "config.toml"
        file.write_text(configuration(uri, more), encoding="utf-8")
        status = cli.run(["-c", str(file), "lint", *arguments])
        output = capsys.readouterr()
        return status, output.out, output.err

    return run


def faults_of(
    ldif: str,
    mapping: Mapping | None = None,
    where: Where | None = None,
    choices: Choices | None = None,
) -> list[str]:
    """What lint finds in some LDIF."""
    directory = LdifDirectory.parse(ldif.encode(), "test")
    settings_ = Settings(BASE, POLICY_BASE, mapping or Mapping(), choices or Choices())
    policies = read_policies(directory)
    found = asyncio.run(lint(policies, directory, settings_, where or Where(BASE)))
    return [str(fault) for fault in found]


def entry(dn: str, kind: str, **attributes: str | Sequence[str]) -> str:
    """An LDIF record; attributes are given in full."""
    lines = [f"dn: {dn}", f"objectClass: {kind}"]
    for name, values in attributes.items():
        lines += [f"{name}: {value}" for value in ([values] if isinstance(values, str) else values)]
    return "\n".join(lines) + "\n\n"


def policy(name: str = "default", **lists: str) -> str:
    """A policy as LDIF; it needs a list, any will do."""
    lists = (
        lists if any("Restrictions" in key for key in lists) else {**lists, "smtpdDataRestrictions": "permit"}
    )
    return entry(f"cn={name},{POLICY_BASE}", "smtpdPolicy", cn=name, **lists)


# ---------------------------------------------------------------- every fault


@pytest.mark.parametrize(("name", "sentence"), CASES, ids=[name for name, _ in CASES])
def test_fault(name: str, sentence: str, run_lint: Run) -> None:
    """Each fault is found, told of in exactly these lines, and makes the exit status 1 if it is an error."""
    expected = (FOLDER / f"{name}.expected").read_text(encoding="utf-8")
    status, printed, _ = run_lint(f"ldif:{FOLDER / name}.ldif")
    assert (expected, int("error: " in expected)) == (printed, status), sentence


@pytest.mark.parametrize("name", [name for name, _ in CASES])
def test_strict(name: str, run_lint: Run) -> None:
    """With --strict there is no fault that does not count."""
    assert run_lint(f"ldif:{FOLDER / name}.ldif", "--strict")[0] == 1


def test_every_file_has_a_case() -> None:
    """The files and the table are the same, and no case expects nothing."""
    names = sorted(name for name, _ in CASES)
    assert names == sorted(path.stem for path in FOLDER.glob("*.ldif"))
    assert names == sorted(path.stem for path in FOLDER.glob("*.expected"))
    assert all(path.stat().st_size for path in FOLDER.glob("*.expected"))


def test_form() -> None:
    """Every line is of the form that the page of interfaces promises."""
    lines = [line for path in FOLDER.glob("*.expected") for line in path.read_text().splitlines()]
    odd = [line for line in lines if line.split(": ")[0] not in ("error", "warning") or line.count(": ") < 3]
    assert [] == odd


def test_example_is_clean(example_ldif: Path, run_lint: Run) -> None:
    """The example company and the shipped classes have neither errors nor warnings."""
    assert (0, "", "") == run_lint(f"ldif:{example_ldif}", "--strict")


def test_references_of_an_export(example_ldif: Path, tmp_path: Path, run_lint: Run) -> None:
    """Entries that the search which made the file did not follow are missing, and lint says so."""
    text = example_ldif.read_text("utf-8") + "\nref: ldap://b.example/\n"
    (file := tmp_path / "tree.ldif").write_text(text, "utf-8")
    place = f"{file}:{text.count(chr(10))}"
    told = "ref: 'ldap://b.example/' was not followed, the entries there are missing"
    assert (0, f"warning: {place}: {told}\n", "") == run_lint(f"ldif:{file}")


@pytest.mark.parametrize(
    ("listing", "values"),
    [
        ("permit_mynetworks, check_sender_access static:DUNNO, reject", "HOLD"),
        ("check_client_access ldap:t, permit", "4"),
        (
            "reject_rbl_client zen.example=127.0.0.[2..11], warn_if_reject reject_unknown_client_hostname",
            "DUNNO",
        ),
        ("warn_if_reject reject, permit", "REJECT 5.7.1 no"),
        ("PERMIT_MYNETWORKS, Reject", "451 later"),
        ("sleep 1, defer_if_permit", "permit_sasl_authenticated, reject"),
    ],
)
def test_what_is_no_fault(listing: str, values: str) -> None:
    """What is meant as it is written is not told of."""
    table = entry(f"cn=t,{POLICY_BASE}", "smtpdAccessTable", cn="t", smtpdAccess=f"a.example {values}")
    assert [] == faults_of(policy(smtpdClientRestrictions=listing) + table)


# ---------------------------------------------------------------- the command


def test_exit_without_configuration(tmp_path: Path) -> None:
    """A configuration that cannot be read, or says what is none, is 78 and one line on standard error."""
    file = tmp_path / "config.toml"
    assert cli.run(["-c", str(file), "lint"]) == 78
    file.write_text(configuration(f"ldif:{tmp_path}/none.ldif"))
    assert cli.run(["-c", str(file), "lint"]) == 78
    file.write_text(configuration("ldap://127.0.0.1", "colour = 3\n"))
    assert cli.run(["-c", str(file), "lint"]) == 78


@pytest.mark.parametrize("filter_", ["(mail", "(&(a=b)"])
def test_bad_filter(filter_: str, example_ldif: Path, run_lint: Run) -> None:
    """A filter that is none is a fault of the configuration."""
    status, printed, complaint = run_lint(f"ldif:{example_ldif}", more=f'filter = "{filter_}"\n')
    assert (78, "") == (status, printed)
    assert "[directory] filter: not a filter" in complaint


def test_unavailable(run_lint: Run) -> None:
    """A directory that does not answer is 69, not a directory without faults."""
    status, printed, complaint = run_lint("ldap://127.0.0.1:1")
    assert (69, "") == (status, printed)
    assert complaint.startswith("ldappolicy: the directory is unavailable: ")


def test_hostile_names(tmp_path: Path, run_lint: Run) -> None:
    """What would drive a terminal or begin a line of its own is escaped; other DNs stand as they are."""
    file = tmp_path / "tree.ldif"
    file.write_bytes(
        (policy() + "dn:: Y249YQplcnJvcjogeDogeTogeixkYz1leGFtcGxlLGRjPWNvbQ==\n").encode()
        + b"objectClass: person\nmail: a@b.example\nsmtpdSenderAccess:: Ym/bWzMxbQ==\n\n"
        + entry(
            "cn=O\\27Brien\\, Zo\\C3\\AB,dc=example,dc=com",
            "person",
            mail="c@b.example",
            smtpdSenderAccess="nobody",
        ).encode()
    )
    _, printed, _ = run_lint(f"ldif:{file}")
    assert len(printed.splitlines()) == 2
    assert "\x1b" not in printed
    assert "error: cn=O\\27Brien\\, Zo\\C3\\AB,dc=example,dc=com: smtpdSenderAccess: unknown" in printed


@pytest.mark.servers
def test_command_line(example_ldif: Path, tmp_path: Path) -> None:
    """The installed command runs."""
    file = tmp_path / "config.toml"
    file.write_text(configuration(f"ldif:{FOLDER}/unknown_table.ldif"))
    command = [sys.executable, "-m", "ldappolicy", "-c", str(file), "lint"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (1, (FOLDER / "unknown_table.expected").read_text()) == (done.returncode, done.stdout)


# ---------------------------------------------------------------- what the configuration says


def user(uid: str, **more: str | Sequence[str]) -> str:
    """A user as LDIF."""
    return entry(f"uid={uid},ou=people,{BASE}", "inetOrgPerson", **{"uid": uid, **more})


TWICE = user("a", mail="a@my.domain", employeeType="service") + user("b", mail="A@my.domain")


def test_filter_tells_owners() -> None:
    """An entry that the configured filter leaves out shares no address."""
    where = Where(BASE, parse("(!(employeeType=service))"))
    assert 2 == len(faults_of(policy() + TWICE))
    assert [] == faults_of(policy() + TWICE, where=where)


def test_domains_that_are_asked_for() -> None:
    """Addresses in domains that are never asked for may be shared."""
    assert [] == faults_of(policy() + TWICE, where=Where(BASE, domains=frozenset(("other.example",))))


def test_quoted_address_is_shared() -> None:
    """Two spellings of one address are one."""
    both = user("a", mail='"a.b"@my.domain') + user("b", mailAlternateAddress="a.b@MY.domain")
    names = [fault.split(": ")[2] for fault in faults_of(policy() + both)]
    assert ["mail", "mailAlternateAddress"] == names


def test_login_with_a_realm_is_shared() -> None:
    """An address that is somebody else's login with a realm is a login of two entries."""
    people = user("a") + user("b", mail="A@corp.example") + user("c", mail="a@x.example")
    people += user("d", mail="d@corp.example") + user("e", mail="f@corp.example") + user("f@corp.example")
    text = f"as a login 'a@corp.example' belongs to uid=a,ou=people,{BASE} as well, without its realm"
    assert [
        f"error: uid=b,ou=people,{BASE}: mail: {text}: it is unavailable, expected one entry"
    ] == faults_of(policy() + people, choices=Choices(naming=Naming(frozenset(("corp.example",)))))
    assert [] == faults_of(policy() + people)


def test_many_share_one_address() -> None:
    """A message names three of the entries and counts the others."""
    found = faults_of(policy() + "".join(user(f"u{at}", mail="all@my.domain") for at in range(10)))
    assert 10 == len(found)
    assert all(" and 6 more as well" in fault for fault in found)


def test_mapping_is_obeyed() -> None:
    """The attributes that are looked at are those of the site, and others are not."""
    mapping = Mapping(sender_access=("extensionAttribute7",))
    tree = policy() + user("a", extensionAttribute7="nobody", smtpdSenderAccess="nobody_either")
    found = faults_of(tree, mapping)
    assert [
        f"error: uid=a,ou=people,{BASE}: extensionAttribute7: unknown restriction or class 'nobody'"
    ] == found


def test_catch_all_as_a_member() -> None:
    """A whole domain is no member by address, and no fault where nobody reads it."""
    tree = policy() + user("a", rfc822MailMember=["@my.domain", "x@my.domain"])
    name = "rfc822MailMember"
    text = "'@my.domain' is ignored, expected the address of a member"
    assert [f"error: uid=a,ou=people,{BASE}: {name}: {text}"] == faults_of(
        tree, Mapping(member_address=(name,))
    )
    assert [] == faults_of(tree)


def test_dynamic_groups_switched_off() -> None:
    """A memberURL that nobody reads is nobody's fault."""
    tree = policy() + entry(f"cn=g,{BASE}", "groupOfURLs", cn="g", mail="g@my.domain", memberURL="ldap://x/")
    assert 1 == len(faults_of(tree))
    assert [] == faults_of(tree, Mapping(member=("member",)))


# ---------------------------------------------------------------- replies that cannot be said

REQUEST = {
    "protocol_state": "RCPT",
    "client_name": "client.example",
    "client_address": "203.0.113.5",
    "helo_name": "client.example",
    "sender": "s@my.domain",
    "recipient": "r@my.domain",
}


def decide(tree: str, **request: str) -> Decision:
    """What evaluation makes of a request when nothing but tables under policy_base is there."""
    policies = read_policies(LdifDirectory.parse(tree.encode(), "test"))
    evaluator = Evaluator(policies, Mapping(), Choices())
    decision = evaluator.evaluate(
        Request.from_attributes({**REQUEST, **request}), Facts(lambda lookup: Absent())
    )
    assert isinstance(decision, Decision)
    return decision


CERTAIN = [
    path
    for path in FOLDER.glob("*.expected")
    if "error: " in path.read_text() and "one reply" in path.read_text()
]


@pytest.mark.parametrize("path", CERTAIN, ids=lambda path: path.stem)
def test_certain_conflicts_happen(path: Path) -> None:
    """What lint calls an error of the reply is one for a request of which no table knows anything."""
    decision = decide(
        path.with_suffix(".ldif").read_text(), sender="x@else.example", recipient="y@else.example"
    )
    assert "one reply cannot say" in decision.error


ITEMS = (
    *(
        "permit",
        "reject",
        "defer",
        "permit_mynetworks",
        "permit_sasl_authenticated",
        "reject_unauth_destination",
    ),
    *("reject_rbl_client rbl.example", "permit_dnswl_client wl.example", "reject_unknown_sender_domain"),
    *("defer_if_permit", "defer_if_reject", "warn_if_reject", "check_sender_access ldap:t", "inner", "outer"),
    *("check_recipient_access ldap:t", "check_sender_access ldap:u", "check_client_access static:{HOLD x}"),
)
ACTIONS = (
    *(
        "OK",
        "DUNNO",
        "REJECT",
        "450 later",
        "HOLD",
        "DISCARD",
        "DEFER_IF_PERMIT",
        "DEFER_IF_REJECT",
        "INFO x",
    ),
    *("FILTER smtp:x", "inner", "outer", "permit_mynetworks, reject", "reject_unknown_client_hostname"),
)
LISTS = st.lists(st.sampled_from(ITEMS), max_size=4).map(", ".join)


@st.composite
def trees(draw: st.DrawFn) -> str:
    """A policy with some lists, two classes and two tables that know the sender and the recipient."""
    names = ("smtpdClientRestrictions", "smtpdSenderRestrictions", "smtpdRecipientRestrictions")
    lists = {name: text for name in names if (text := draw(LISTS))}
    inner = draw(LISTS).replace("inner", "permit").replace("outer", "reject") or "permit"
    outer = draw(LISTS).replace("outer", "defer") or "permit"
    tables = [
        entry(
            f"cn={name},{POLICY_BASE}",
            "smtpdAccessTable",
            cn=name,
            smtpdAccess=[f"{key} {draw(st.sampled_from(ACTIONS))}" for key in ("s@my.domain", "r@my.domain")],
        )
        for name in ("t", "u")
    ]
    classes = [
        entry(f"cn={name},{POLICY_BASE}", "smtpdRestrictionClass", cn=name, smtpdRestrictions=body)
        for name, body in (("inner", inner), ("outer", outer))
    ]
    return policy(**lists) + "".join(tables + classes)


TREE_OF_A_HOLD = (
    "dn: cn=default,ou=policy,dc=example,dc=com\nobjectClass: smtpdPolicy\ncn: default\n"
    "smtpdRecipientRestrictions: permit_mynetworks, check_client_access static:HOLD, permit_mynetworks\n\n"
)


@pytest.mark.servers
@example(TREE_OF_A_HOLD)
@given(trees())
@settings(max_examples=300)
def test_no_conflict_is_missed(tree: str) -> None:
    """Whenever one reply cannot say what a request comes to, lint has told of it before."""
    unsayable = [
        decision.error
        for login, sender, recipient in itertools.product(("", "amy"), ("s", "x"), ("r", "y"))
        if "one reply cannot say" in (decision := _decide(tree, login, sender, recipient)).error
    ]
    found = faults_of(tree)
    assert not unsayable or any("one reply cannot say" in fault for fault in found), (unsayable, found)


def _decide(tree: str, login: str, sender: str, recipient: str) -> Decision:
    method = "PLAIN" if login else ""
    return decide(
        tree,
        sender=f"{sender}@my.domain",
        recipient=f"{recipient}@my.domain",
        sasl_username=login,
        sasl_method=method,
    )


TREE_OF_A_PERMIT_ASKED_TWICE = (
    "dn: cn=default,ou=policy,dc=example,dc=com\nobjectClass: smtpdPolicy\ncn: default\n"
    "smtpdRecipientRestrictions: permit_mynetworks, outer, reject\n\n"
    "dn: cn=outer,ou=policy,dc=example,dc=com\nobjectClass: smtpdRestrictionClass\ncn: outer\n"
    "smtpdRestrictions: check_client_access static:{HOLD x}, permit_mynetworks\n\n"
)


@pytest.mark.servers
@example(TREE_OF_A_PERMIT_ASKED_TWICE)
@given(trees())
@settings(max_examples=300)
def test_certain_is_certain(tree: str) -> None:
    """What lint calls certain is the reply to a request from outside that no table knows."""
    policies = read_policies(LdifDirectory.parse(tree.encode(), "test"))
    found = policies.policies["default"]
    assert isinstance(found, Policy)
    if any(conflict.certain for conflict in Foresight(found, Contents(policies)).conflicts()):
        assert "one reply cannot say" in _decide(tree, "", "x", "y").error


def test_once_for_each_list() -> None:
    """Two lists that cannot be said together are told how they can; one list alone is not."""
    apart = "call the service once for each list (NAME/LIST)"
    one = faults_of(
        policy(smtpdClientRestrictions="reject_unauth_pipelining, check_client_access static:HOLD")
    )
    two = faults_of(
        policy(
            smtpdClientRestrictions="reject_unauth_pipelining",
            smtpdHeloRestrictions="check_helo_access static:HOLD",
        )
    )
    assert [False, True] == [found[0].endswith(apart) for found in (one, two)]


def test_etrn_has_no_message() -> None:
    """HOLD beside a residue is nothing to an ETRN, and two lists that permit are."""
    hold = policy(smtpdEtrnRestrictions="reject_unauth_pipelining, check_client_access static:HOLD")
    assert [] == faults_of(hold)
    permits = policy(
        smtpdClientRestrictions="permit_mynetworks, reject_rbl_client rbl.example",
        smtpdEtrnRestrictions="permit_inet_interfaces, reject",
    )
    assert ["smtpdEtrnRestrictions"] == [fault.split(": ")[2] for fault in faults_of(permits)]


# ---------------------------------------------------------------- many entries


class Counting:
    """A directory that counts what it is asked."""

    features = Features()

    def __init__(self, directory: Directory) -> None:
        self.directory = directory
        self.searches: list[Search] = []

    async def search(self, search: Search) -> Sequence[Entry]:
        """Counts, and passes on."""
        self.searches.append(search)
        return await self.directory.search(search)

    def set_witnesses(self, dns: Sequence[str]) -> None:
        """It has what it has."""

    def set_proofs(self, proofs: Sequence[Search]) -> None:
        """Nothing has to be shown."""

    async def close(self) -> None:
        """Nothing is open."""


def people(count: int) -> Iterable[Entry]:
    """Users with an address, a login and a value of their own, and the policy."""
    yield Entry(
        f"cn=default,{POLICY_BASE}",
        {"objectClass": ["smtpdPolicy"], "cn": ["default"], "smtpdDataRestrictions": ["permit"]},
    )
    for at in range(count):
        attributes = {"uid": f"u{at}", "mail": f"u{at}@my.domain", "smtpdSenderAccess": f"restricted_{at}"}
        yield Entry(f"uid=u{at},ou=people,{BASE}", {name: [value] for name, value in attributes.items()})


def found_among(directory: Directory, entries: Iterable[Entry]) -> tuple[Fault, ...]:
    """What lint finds."""
    policies = read_policies(itertools.islice(entries, 1))
    return asyncio.run(lint(policies, directory, Settings(BASE, POLICY_BASE, Mapping()), Where(BASE)))


def test_one_pass() -> None:
    """However many entries there are, they come in the same few searches."""
    asked = []
    for count in (1, 1000):
        directory = LdifDirectory(people(count))
        counting = Counting(directory)
        assert count == len(found_among(counting, directory))
        asked.append(len(counting.searches))
    assert asked[0] == asked[1]


@pytest.mark.parametrize("count", [5_000, pytest.param(100_000, marks=pytest.mark.long)])
def test_large_directory(count: int) -> None:
    """A hundred thousand users take seconds, also when each has a value of their own, and a bad one."""
    directory = LdifDirectory(people(count))
    began = time.process_time()
    assert count == len(found_among(directory, directory))
    assert time.process_time() - began < 60 * count / 100_000  # 4 s for all


# ---------------------------------------------------------------- a real server


@pytest.mark.servers
def test_slapd_shows_the_same(tmp_path: Path, example_ldif: Path, run_lint: Run) -> None:
    """Through LDAP lint finds what it finds in the same LDIF file."""
    bad = tmp_path / "bad.ldif"
    bad.write_text(
        example_ldif.read_text(encoding="utf-8")
        + "\n"
        + entry(
            f"cn=bad,{POLICY_BASE}",
            "smtpdPolicy",
            cn="bad",
            smtpdClientRestrictions="reject_rbl_client rbl.example",
            smtpdRecipientRestrictions="check_recipient_access directory:access",
            smtpdEtrnRestrictions="nosuch",
        )
        + "".join(
            entry(
                f"uid={uid},ou=people,{BASE}",
                "inetOrgPerson",
                uid=uid,
                cn=uid,
                sn=uid,
                mail="JOE@my.domain",
                smtpdModerator=f"uid=gone,ou=people,{BASE}",
                smtpdRecipientAccess="REDIRECT eve@elsewhere.example",
            ).replace("inetOrgPerson", "inetOrgPerson\nobjectClass: smtpdAccessControl")
            for uid in ("dora", "xavier")
        ),
        encoding="utf-8",
    )
    from_file = run_lint(f"ldif:{bad}")
    with Slapd(schema="ldappolicy") as slapd:
        slapd.load(bad)
        from_server = run_lint(slapd.uri)
    assert from_file == from_server
    assert 1 == from_file[0]
    assert 9 == len(from_file[1].splitlines()), from_file[1]


@pytest.mark.servers
def test_slapd_without_policies(run_lint: Run) -> None:
    """A policy_base without any policy is a configuration error; one without the default policy a fault."""
    tree = entry(BASE, "organization\nobjectClass: dcObject", o="Example", dc="example")
    with Slapd(schema="ldappolicy") as slapd:
        slapd.load(tree + entry(POLICY_BASE, "organizationalUnit", ou="policy"))
        without = run_lint(slapd.uri)
        slapd.load(policy("other"))
        other = run_lint(slapd.uri)
    missing = f"error: {POLICY_BASE}: cn: there is no policy 'default', the default one\n"
    assert [(78, ""), (1, missing)] == [without[:2], other[:2]]
