"""`ldappolicy import --verify`: what is asked, what is compared, and that Postfix agrees with the import.

The folders of main_cf/ and generated policies are imported and asked; planted faults are found.
"""

import io
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from unittest.mock import Mock

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from ldappolicy import verification
from ldappolicy.address import address_keys, client_keys, domain_keys, fold
from ldappolicy.cli.import_main_cf import SHOWN, lines_of, progress, verified
from ldappolicy.errors import InputError, OracleError
from ldappolicy.importing import Carried, carry_over
from ldappolicy.main_cf import MainCf, read_main_cf
from ldappolicy.verification import Difference, Report, compare, verify
from ldappolicy.verification.native import Tables, calls, of_this_host, records
from ldappolicy.verification.people import standing_in
from ldappolicy.verification.questions import Client, Key, Question, keys_of, neighbours, questions
from tests.conformance.generate import pairs
from tests.conformance.pairs import SITE_MAIN, Native, Pair
from tests.labs.importing import BASE, FOLDERS, RECIPES, run_import
from tests.labs.ldappolicy import program
from tests.labs.postfix import require_postfix
from tests.labs.slapd import wait_until

SYSTEM = """\
compatibility_level = 3.6
myhostname = mx.my.domain
mynetworks = 127.0.0.0/8
mydestination = my.domain
smtpd_relay_restrictions = reject_unauth_destination
"""


def written(folder: Path, text: str, **files: str) -> MainCf:
    """SYSTEM with more lines, beside files."""
    for name, content in files.items():
        (folder / name).write_text(content, "utf-8")
    (folder / "main.cf").write_text(SYSTEM + text, "utf-8")
    return read_main_cf(folder / "main.cf")


@pytest.fixture(autouse=True)
def private_postfix(request: pytest.FixtureRequest) -> None:
    """Skips what is marked, saying what it takes, where no private Postfix can be run."""
    if any(request.node.iter_markers("servers")) or any(request.node.iter_markers("long")):
        require_postfix()


# --- neighbours -----------------------------------------------------------------------------------

# Kind, key, recipient_delimiter: what is said first, and what is said as well.
NEIGHBOURS: Mapping[str, tuple[str, str, str, str, tuple[str, ...]]] = {
    "an address": (
        *("sender", "amy@my.example", "", "amy@my.example"),
        ("amyx@my.example", "AMY@my.example", "amy@sub.my.example", "amy@notmy.example", "amy@example"),
    ),
    "an address, more": (
        *("recipient", "amy@my.example", "", "amy@my.example"),
        ("amy@MY.EXAMPLE", "amy@my.example.", "somebody@my.example", "amy"),
    ),
    "an extension": ("recipient", "amy@my.example", "+-", "amy@my.example", ("amy+ext@my.example",)),
    "the null sender beside an address": ("sender", "amy@my.example", "", "amy@my.example", ("",)),
    "the null sender": ("sender", "<>", "", "", ("somebody@stranger.example",)),
    "the null sender of recipients": ("recipient", "<>", "", "somebody@stranger.example", ()),
    "a domain": (
        *("sender", "my.example", "", "somebody@my.example"),
        (
            *("somebody@sub.my.example", "somebody@notmy.example", "somebody@MY.EXAMPLE"),
            *("somebody@my.example.", "somebody@example", "somebody@deep.sub.my.example"),
        ),
    ),
    "what is below a domain": (
        *("recipient", ".my.example", "", "somebody@sub.my.example"),
        ("somebody@my.example", "somebody@notmy.example"),
    ),
    "a local part": ("sender", "amy@", "+", "amy@stranger.example", ("amy+ext@stranger.example", "amy")),
    "a quoted local part": (
        *("sender", '"john doe"@my.example', "", '"john doe"@my.example'),
        ('"john doe"@sub.my.example',),
    ),
    "a local part that needs quotes": ("sender", "john doe@my.example", "", '"john doe"@my.example', ()),
    "an address literal": ("recipient", "u@[192.0.2.1]", "", "u@[192.0.2.1]", ()),
    "a UTF-8 address": ("sender", "ü@my.example", "", "ü@my.example", ("Ü@my.example",)),
    "what no command can say": ("recipient", "a\x01b@c\x01d", "", "somebody@stranger.example", ()),
    "a HELO name": ("helo", "my.host", "", "my.host", ("sub.my.host", "notmy.host", "MY.HOST", "my.host.")),
    "a HELO address": ("helo", "192.0.2.1", "", "192.0.2.1", ("[192.0.2.1]",)),
    "a HELO name with a blank": ("helo", "my host", "", "somebody@stranger.example", ()),
    "a domain of ETRN": ("etrn", "relay.example", "", "relay.example", ("sub.relay.example", "example")),
    "a login": ("sasl", "amy", "", "amy", ("AMY", "amyx", "")),
}


@pytest.mark.parametrize("case", NEIGHBOURS)
def test_neighbours(case: str) -> None:
    """The first neighbour meets the key as it stands, the others almost."""
    kind, key, delimiter, first, others = NEIGHBOURS[case]
    found = neighbours(Key(kind, key), delimiter)
    assert first == found[0]
    assert [] == [other for other in others if other not in found]
    assert len(set(found)) == len(found)


# Key: addresses of clients inside and outside, in order.
CLIENT_ADDRESSES: Mapping[str, tuple[str, ...]] = {
    "192.0.2.9": ("192.0.2.9", "192.0.2.8", "192.0.2.10"),
    "198.51": ("198.51.0.0", "198.51.255.255", "198.50.255.255", "198.52.0.0", "198.51.127.255"),
    "203.0.113.0/28": ("203.0.113.0", "203.0.113.15", "203.0.112.255", "203.0.113.16", "203.0.113.7"),
    "0.0.0.0/0": ("0.0.0.0", "255.255.255.255", "127.255.255.255"),
    "10": ("10.0.0.0", "10.255.255.255", "9.255.255.255", "11.0.0.0", "10.127.255.255"),
    "2001:db8::5": ("2001:db8::5", "2001:db8::4", "2001:db8::6"),
    "[2001:db8:1::]/127": (
        "2001:db8:1::",
        "2001:db8:1::1",
        "2001:db8:0:ffff:ffff:ffff:ffff:ffff",
        "2001:db8:1::2",
    ),
    "2001:db8:1": ("2001:db8:1::1", "2001:db8:1:5::1", "2001:db8:15::1"),
    "2001:db8:": ("2001:db8::1", "2001:db8:5::1", "2001:db85::1"),
}


@pytest.mark.parametrize("key", CLIENT_ADDRESSES)
def test_client_addresses(key: str) -> None:
    """Of a network the first and last address, those just outside, and one in the middle."""
    found = neighbours(Key("client", key))
    assert CLIENT_ADDRESSES[key] == tuple(one.address for one in found if isinstance(one, Client))


CLIENT_NAMES: Mapping[tuple[str, str], tuple[tuple[str, str], tuple[str, str]]] = {
    ("client", "mail.example"): (("mail.example", "mail.example"), ("notmail.example", "notmail.example")),
    ("client", ".example"): (("sub.example", "sub.example"), ("example", "example")),
    ("client", "unknown"): (("", ""), ("", "ptr.stranger.example")),
    ("reverse_client", "ptr.example"): (("", "ptr.example"), ("sub.ptr.example", "")),
    ("reverse_client", ".example"): (("", "sub.example"), ("", "example")),
}


@pytest.mark.parametrize(("kind", "key"), CLIENT_NAMES)
def test_client_names(kind: str, key: str) -> None:
    """A client is met by its name, or by its reverse name alone."""
    first, other = CLIENT_NAMES[kind, key]
    found = [(one.name, one.reverse) for one in neighbours(Key(kind, key)) if isinstance(one, Client)]
    assert first == found[0]
    assert other in found


# --- keys and questions ---------------------------------------------------------------------------


def test_keys_of_a_main_cf() -> None:
    """Every table that a list or class names, by what looks it up; networks and domains as well."""
    found = keys_of(of_this_host(read_main_cf(FOLDERS / "everything" / "main.cf")))
    some = {
        *(Key("client", "mail.friend.example"), Key("client", "2001:db8:bad"), Key("client", "192.0.2.66")),
        *(Key("client", "203.0.113.0/28"), Key("helo", "LOCALHOST"), Key("sender", '"john doe"@example.com')),
        *(Key("sender", ".partner.example"), Key("recipient", "boss@"), Key("recipient", "vmbox.example")),
        *(
            Key("sasl", "amy"),
            Key("sasl", "joe"),
            Key("etrn", "relay.example"),
            Key("recipient", ".relay.example"),
        ),
    }
    assert set() == some - set(found)
    assert len(set(found)) == len(found)


def test_keys_of_a_table_alone_in_a_class(tmp_path: Path) -> None:
    """Which list names the class is not asked: they are keys of any of them."""
    main = written(
        tmp_path,
        "smtpd_restriction_classes = x\nx = texthash:$config_directory/t\nsmtpd_helo_restrictions = x\n",
        t="some.name OK\n",
    )
    kinds = {key.kind for key in keys_of(main) if key.text == "some.name"}
    assert {"sender", "recipient", "client", "helo"} == kinds


def test_keys_of_tables_that_cannot_be_read(tmp_path: Path) -> None:
    """A table that is left out has no keys, nor have networks that are."""
    text = "smtpd_sender_restrictions = texthash:/nosuch/file, regexp:/nosuch/file, inline:{x}\n"
    main = written(tmp_path, text + "mynetworks = ldap:/nosuch\n")
    assert [Key("recipient", "my.domain")] == keys_of(main)


def test_keys_that_the_import_does_not_see(tmp_path: Path) -> None:
    """Files are read without grammar as well: a key that the import loses is asked for all the same."""
    (tmp_path / "nets").write_text(" !10.66.0.0/16\n10.0.0.0/8 # 10.5.0.0/16\n")
    main = written(
        tmp_path,
        f"smtpd_sender_restrictions = texthash:$config_directory/t\nmynetworks = !{tmp_path}/nets\n",
        t="  lost@a.example OK\n#off@a.example OK\n",
    )
    found = set(keys_of(main))
    assert {Key("client", net) for net in ("10.66.0.0/16", "10.0.0.0/8", "10.5.0.0/16")} <= found
    assert {Key("sender", "lost@a.example"), Key("sender", "off@a.example")} <= found


LABEL = st.text("abcdefghij", min_size=1, max_size=5)
DOMAIN = st.lists(LABEL, min_size=1, max_size=3).map(".".join)
ADDRESS = st.builds("{}@{}".format, LABEL, DOMAIN)
OCTET = st.integers(1, 223).map(str)
KEYS = st.one_of(
    st.builds(
        Key, st.sampled_from(("sender", "recipient")), st.one_of(ADDRESS, DOMAIN, LABEL.map("{}@".format))
    ),
    st.builds(Key, st.just("sender"), st.just("<>")),
    st.builds(
        Key, st.just("client"), st.one_of(DOMAIN, st.lists(OCTET, min_size=1, max_size=4).map(".".join))
    ),
    st.builds(Key, st.sampled_from(("helo", "etrn")), DOMAIN),
    st.builds(Key, st.just("sasl"), LABEL),
)


def is_met(key: Key, question: Question) -> bool:
    """Whether the access(5) keys of what the question says hold the key."""
    if key.kind == "client":
        client = question.client
        return key.text in client_keys(client.name or "unknown", client.address, True)
    if key.kind == "sasl":
        return key.text == question.login
    said = str(getattr(question, key.kind))
    if key.kind in ("helo", "etrn"):
        return key.text in domain_keys(said, True)
    return key.text in (address_keys(fold(said), "+", True).keys if said else ("<>",))


@pytest.mark.servers
@given(st.lists(KEYS, min_size=1, max_size=12, unique=True), st.integers(0, 5))
def test_every_key_is_met(keys: list[Key], seed: int) -> None:
    """With as many questions as keys each is met once, as it stands, before any has its second turn."""
    asked = list(islice(questions(keys, "+", seed), len(keys)))
    assert [] == [key for key in keys if not any(is_met(key, question) for question in asked)]


def test_same_questions() -> None:
    """The seed decides what is asked, and nothing else."""
    keys = [Key("sender", "a@b"), Key("recipient", "my.domain"), Key("client", "10"), Key("etrn", "x.y")]

    def some(seed: int) -> list[Question]:
        return list(islice(questions(keys, "+", seed), 40))

    assert some(1) == some(1)
    assert some(1) != some(2)


def test_questions_without_keys() -> None:
    """A main.cf without tables is asked about plain requests."""
    assert 5 == len(set(islice(questions([], "", 1), 5)))


def test_variety() -> None:
    """Logged in or not, with HELO or without, the null sender, our recipients and others: all come."""
    keys = [Key("sender", "a@b.c"), Key("recipient", "my.domain"), Key("client", "10"), Key("sasl", "amy")]
    asked = list(islice(questions(keys, "+", 1), 200))
    assert {True, False} == {bool(question.login) for question in asked}
    assert {True, False} == {question.helo is None for question in asked}
    assert {True, False} == {question.sender == "" for question in asked}
    assert {True, False} == {question.recipient.endswith("my.domain") for question in asked}


def test_question_in_one_line() -> None:
    """A difference names all that was said."""
    client = Client("", "192.0.2.1", "ptr.example")
    said = str(Question(client, "h", "amy", "", "b@c", "x.example"))
    first, last = "client=unknown[192.0.2.1] reverse=ptr.example helo=h", "sender=<> recipient=<b@c>"
    assert f"{first} login=amy etrn=x.example {last}" == said


# --- what Postfix is given ------------------------------------------------------------------------

PUT: Mapping[str, tuple[str, str]] = {
    "check_sender_access mysql:/etc/x.cf, reject": (
        "check_sender_access fail:mysql, reject",
        "check_sender_access , reject",
    ),
    "proxy:ldap:/etc/x.cf": ("fail:ldap", ""),
    "check_policy_service { inet:[::1]:1, timeout=2s } permit": (
        "check_client_access fail:check_policy_service permit",
        "check_policy_service { inet:[::1]:1, timeout=2s } permit",
    ),
    "Check_Policy_Service inet:127.0.0.1:1": (
        "check_client_access fail:check_policy_service",
        "Check_Policy_Service inet:127.0.0.1:1",
    ),
    "proxy:texthash:/nosuch": ("texthash:/nosuch", "texthash:/nosuch"),
    "static:{REJECT see mysql}": ("static:{REJECT see mysql}", "static:{REJECT see mysql}"),
    "127.0.0.0/8, [::1]/128": ("127.0.0.0/8, [::1]/128", "127.0.0.0/8, [::1]/128"),
}


@pytest.mark.parametrize("text", PUT)
def test_nothing_else_is_asked(tmp_path: Path, text: str) -> None:
    """A table that asks a server fails in a list and is gone elsewhere; other services fail."""
    tables = Tables(tmp_path)
    assert PUT[text] == (tables.put_list(text), tables.put(text))


@pytest.mark.servers
def test_tables_are_made_anew(tmp_path: Path) -> None:
    """A table is copied once, and made by postmap(1) where it takes that."""
    (tmp_path / "text").write_text("a b\n")
    folder = tmp_path / "made"
    folder.mkdir()
    tables = Tables(folder)
    there = f"{tmp_path}/text"
    kinds = re.findall(r"(\w+):(\S+)", tables.put(f"texthash:{there} cidr:{there} hash:{there} hash:{there}"))
    assert [("texthash", f"{folder}/1"), ("cidr", f"{folder}/2")] == kinds[:2]
    assert kinds[2] == kinds[3]
    assert [f"3.{'lmdb' if kinds[2][0] == 'lmdb' else 'db'}"] == [path.name for path in folder.glob("3.*")]


def test_host(tmp_path: Path) -> None:
    """What only the host knows is chosen, what main.cf says stays."""
    (tmp_path / "main.cf").write_text("mynetworks = 10.0.0.0/8\n")
    main = of_this_host(read_main_cf(tmp_path / "main.cf"))
    assert ("10.0.0.0/8", "mx.host.example") == (main.get("mynetworks"), main.get("myhostname"))


def test_calls() -> None:
    """Each list asks for itself, and smtpd finds the reject that it wants."""
    found = calls("inet:127.0.0.1:1", "default", ["helo", "relay"])
    call = "check_policy_service { inet:127.0.0.1:1, timeout=20s, policy_context=default/%s }"
    assert call % "helo" == found["smtpd_helo_restrictions"]
    assert f"{call % 'relay'}, check_client_access static:OK, reject" == found["smtpd_relay_restrictions"]
    assert ("", "") == (found["smtpd_sender_restrictions"], found["smtpd_restriction_classes"])


def test_dns(tmp_path: Path) -> None:
    """The domains of keys are there; one client is on every DNS list."""
    main = written(tmp_path, "smtpd_helo_restrictions = reject_rbl_client Rbl.example=127.0.0.2\n")
    found = records(main, [Key("sender", "amy@my.example"), Key("client", "10"), Key("sender", "ü.example")])
    assert ["10 mx.my.example"] == found["my.example", "MX"]
    assert ["127.0.0.2"] == found["66.0.18.198.rbl.example", "A"]
    assert not [name for name, _ in found if not name.isascii()]


# --- what may differ ------------------------------------------------------------------------------

PLAIN = Question(Client("", "192.0.2.1"), None, "", "a@b", "c@d")
ROUTED = Question(Client("", "192.0.2.1"), None, "", "a@b", "c%e@d")
DENIED = "554 5.7.1 <c@d>: Recipient address rejected: Access denied"
LATER = "450 4.7.1 <c@d>: Recipient address rejected: later"
ERROR = "451 4.3.5 <c@d>: Recipient address rejected: Server configuration error"

# Question, Postfix's reply, ours, what was left to Postfix: where they differ; True: as they may; False: not.
MAY: Mapping[str, tuple[Question, str, str, str, object]] = {
    "equal": (PLAIN, DENIED, DENIED, "", False),
    "another name in front": (PLAIN, DENIED, DENIED.replace("Recipient", "Sender"), "", False),
    "other texts of success": (
        PLAIN,
        "250 2.0.0 Ok: queued as A",
        "250 2.0.0 Ok: queued as B",
        "DUNNO",
        False,
    ),
    "another text": (PLAIN, DENIED, DENIED + "!", "", "RCPT"),
    "another text beside a residue": (PLAIN, DENIED, DENIED + "!", "reject_unverified_sender", True),
    "another code beside a residue": (PLAIN, DENIED, DENIED.replace("554", "550"), "sleep", True),
    "refused": (PLAIN, "250 2.1.5 Ok", DENIED, "reject_rbl_client", "RCPT"),
    "permitted": (PLAIN, DENIED, "250 2.1.5 Ok", "permit_mynetworks", "RCPT"),
    "for good": (PLAIN, LATER, DENIED, "reject_rbl_client", "RCPT"),
    "for a while": (PLAIN, DENIED, LATER, "reject_rbl_client", "RCPT"),
    "an error behind a residue": (PLAIN, LATER, ERROR, "reject_unverified_sender", "RCPT"),
    "an error": (PLAIN, LATER, ERROR, "", "RCPT"),
    "an error instead of a refusal": (PLAIN, DENIED, ERROR, "reject_rbl_client", "RCPT"),
    "a routed recipient and an error": (ROUTED, "250 2.1.5 Ok", ERROR, "", "RCPT"),
    "a routed recipient and a hang-up": (ROUTED, "250 2.1.5 Ok", "", "", "RCPT"),
    "a routed recipient": (ROUTED, "250 2.1.5 Ok", DENIED, "", True),
    "a routed recipient permitted": (ROUTED, DENIED, "250 2.1.5 Ok", "", "RCPT"),
    "a code of an address": (
        PLAIN,
        "550 5.1.0 <a>: x rejected: no",
        "550 5.1.1 <a>: x rejected: no",
        "550",
        True,
    ),
    "a code of another": (
        PLAIN,
        "550 5.7.0 <a>: x rejected: no",
        "550 5.1.1 <a>: x rejected: no",
        "550",
        "RCPT",
    ),
    "a failure of the DNS softens no unknown user": (
        *(PLAIN, "450 4.7.1 <c@d>: Service unavailable", "550 5.1.1 <c@d>: User unknown", "permit_mx_backup"),
        True,
    ),
    "no reply": (PLAIN, DENIED, "", "", "RCPT"),
}


@pytest.mark.parametrize("case", MAY)
def test_may_differ(case: str) -> None:
    """Accept or refuse, for good or for a while never differ; code and text only beside a residue."""
    question, native, ours, left, expected = MAY[case]
    found = compare(question, [("RCPT", native)], [("RCPT", ours)], lambda: frozenset(left.split()))
    assert expected == (found.command if isinstance(found, Difference) else found)


def test_another_length() -> None:
    """One command more on one side differs, whatever came before."""
    step = ("MAIL", "250 2.1.0 Ok")
    more = ("RCPT", "250 2.1.5 Ok")
    assert Difference(PLAIN, "RCPT", "", more[1]) == compare(PLAIN, [step], [step, more], frozenset)
    assert Difference(PLAIN, "RCPT", more[1], "") == compare(PLAIN, [step, more], [step], frozenset)
    assert Difference(PLAIN, "MAIL/RCPT", step[1], more[1]) == compare(PLAIN, [step], [more], frozenset)


# --- what is said ---------------------------------------------------------------------------------

ONE = Difference(PLAIN, "RCPT", "250 2.1.5 Ok", "554 5.7.1 no")
SAID: Mapping[str, tuple[Report, list[str]]] = {
    "nothing": (Report(100, 7), ["verify: 100 requests from 7 keys, 0 differ"]),
    "one": (
        Report(100, 7, [ONE]),
        [
            f"differs: {PLAIN}: RCPT: Postfix '250 2.1.5 Ok', ldappolicy '554 5.7.1 no'",
            "verify: 100 requests from 7 keys, 1 differ",
        ],
    ),
    "text": (
        Report(100, 7, [], 3),
        [
            "verify: 3 differ in code or text alone: there something is left to Postfix",
            "verify: 100 requests from 7 keys, 0 differ",
        ],
    ),
    "a key that is no address": (
        Report(5, 5, unasked=("a\nb",)),
        [
            "verify: 1 keys were not asked for, SMTP cannot say them: 'a\\nb'",
            "verify: 5 requests from 5 keys, 0 differ",
        ],
    ),
    "fewer than keys": (
        Report(5, 7),
        [
            "verify: 2 of the 7 keys had no request of their own: --verify 7 meets each of them",
            "verify: 5 requests from 7 keys, 0 differ",
        ],
    ),
}


@pytest.mark.parametrize("case", SAID)
def test_lines(case: str) -> None:
    """Differences in a line each, then how many there are."""
    report, lines = SAID[case]
    assert lines == list(lines_of(report))


def test_first_differences() -> None:
    """More differences than anybody reads are counted."""
    lines = list(lines_of(Report(100, 7, [ONE] * 50)))
    assert SHOWN + 1 == len(lines)
    assert lines[-1].endswith(" 50 differ")


def shown(console: Console) -> None:
    """A run of three requests."""
    with progress(console, 3) as step:
        for _ in range(3):
            step()


def test_progress() -> None:
    """A terminal has a bar that counts to the end, anything else has nothing."""
    terminal, other = io.StringIO(), io.StringIO()
    shown(Console(file=terminal, force_terminal=True, width=80))
    shown(Console(file=other))
    assert "verifying" in terminal.getvalue()
    assert "3/3" in terminal.getvalue()
    assert "" == other.getvalue()


# --- recipes --------------------------------------------------------------------------------------


def imported(main: MainCf) -> Carried:
    """What the import makes of it."""
    return carry_over(main, BASE)


def verification_of(main: MainCf, count: int) -> Report:
    """Real Postfix and the import."""
    return verify(main, imported(main).records, BASE, "default", count)


def told(report: Report) -> str:
    """What differs, for a failing test."""
    return "\n".join(map(str, report.differences[:5]))


@pytest.mark.parametrize(
    "count", [pytest.param(40, marks=pytest.mark.servers), pytest.param(200, marks=pytest.mark.long)]
)
@pytest.mark.parametrize("name", RECIPES)
def test_recipe(name: str, count: int) -> None:
    """Postfix and what was imported agree about every key of a recipe and about what is near it."""
    steps: list[None] = []
    main = read_main_cf(FOLDERS / name / "main.cf")
    report = verify(main, imported(main).records, BASE, "default", count, lambda: steps.append(None))
    assert (count, 0, 0) == (report.asked, report.apart, len(report.differences)), told(report)
    assert len(steps) == count
    assert report.unmet == 0


GROUPS = """\
smtpd_restriction_classes = local_only
local_only = check_recipient_access inline:{my.domain=OK}, reject
mydestination = my.domain
smtpd_relay_restrictions = reject_unauth_destination
smtpd_sender_restrictions = check_sender_access proxy:ldap:%(folder)s/interns,
    check_sasl_access ldap:%(folder)s/clerks, check_sender_access inline:{ {spam.example = REJECT} }
"""
INTERNS = "cn=interns,ou=groups,dc=example,dc=com"
ASKED = (
    f"query_filter = (&(mail=%s)(memberOf={INTERNS}))\nresult_attribute = mail\nresult_format = local_only\n"
)
CLERKS = """\
query_filter = (&(uid=%s)(memberOf=cn=clerks,ou=groups,dc=example,dc=com))
result_attribute = cn
result_format = 550 5.7.1 no {clerk}, at 50%%
"""


@pytest.mark.servers
@pytest.mark.parametrize("action", ["local_only", "reject"])
def test_members_of_groups(tmp_path: Path, action: str) -> None:
    """What an ldap: table gives the members of a group is compared; were it something else, it would show."""
    (tmp_path / "interns").write_text(ASKED)
    (tmp_path / "clerks").write_text(CLERKS)
    (tmp_path / "main.cf").write_text(GROUPS % {"folder": tmp_path})
    main = read_main_cf(tmp_path / "main.cf")
    carried = imported(main)
    assert ["clerks", "interns"] == sorted(Path(name).name for name in carried.group_tables)
    records = [
        (dn, {**given, "smtpdAccessAction": (action,)} if dn.startswith("cn=interns,") else given)
        for dn, given in carried.records
    ]
    report = verify(*standing_in(main, records, carried.group_tables, BASE), BASE, "default", 60)
    shown = {difference.question.sender.lower().rstrip(".") for difference in report.differences}
    assert shown == (set() if action == "local_only" else {"somebody-1@my.domain"}), told(report)


# --- the command line -----------------------------------------------------------------------------


def command(main_cf: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit status, standard output, standard error without the name of the program."""
    status, out, error = run_import(main_cf, capsys, *arguments)
    return status, out, error.replace("ldappolicy: ", "")


@pytest.mark.servers
def test_nothing_differs(capsys: pytest.CaptureFixture[str]) -> None:
    """The LDIF is printed as ever; on standard error stands how many differ."""
    main_cf = FOLDERS / "protected_by_sender" / "main.cf"
    _, ldif, _ = command(main_cf, capsys)
    expected = (0, ldif, "verify: 60 requests from 9 keys, 0 differ\n")
    assert expected == command(main_cf, capsys, "--verify", "60")


@pytest.mark.servers
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_interrupted(number: signal.Signals) -> None:
    """Nothing that was started or written is left behind."""
    arguments = ["import", "--main-cf", str(FOLDERS / "everything" / "main.cf"), "--policy-base", BASE]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        process = subprocess.Popen(
            # Who runs the tests may have it ignored (nohup, a job in the background).
            ["env", "--default-signal=INT", program(), *arguments, "--verify", "3000"],
            env={**os.environ, "TMPDIR": name},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        wait_until(lambda: any("native/smtpd" in log.read_text() for log in folder.glob("*/mail.log")), 60)
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
        assert (130, "ldappolicy: interrupted") == (process.returncode, said.splitlines()[-1])
        assert [] == [*folder.iterdir()]


@pytest.mark.servers
def test_on_a_terminal(tmp_path: Path) -> None:
    """The real command shows its progress on a terminal, and prints its LDIF elsewhere."""
    ours, theirs = os.openpty()
    main_cf = FOLDERS / "local_only" / "main.cf"
    words = ["-m", "ldappolicy", "import", "--main-cf", str(main_cf), "--policy-base", BASE, "--verify", "30"]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    with (tmp_path / "ldif").open("w") as ldif:
        done = subprocess.run(
            [sys.executable, *words], stdout=ldif, stderr=theirs, env=environment, timeout=60, check=False
        )
    os.close(theirs)
    said = b"".join(iter(lambda: read(ours), b"")).decode()
    os.close(ours)
    assert 0 == done.returncode
    assert "30/30" in said
    assert said.rstrip().endswith("0 differ")
    assert (tmp_path / "ldif").read_text().startswith("# Postfix's restrictions")


def read(terminal: int) -> bytes:
    """What a terminal has shown; nothing when its other side is closed."""
    try:
        return os.read(terminal, 65536)
    except OSError:
        return b""


@pytest.mark.servers
def test_what_one_reply_cannot_say(tmp_path: Path) -> None:
    """A server configuration error of ours differs, and the line says why it is one."""
    text = "smtpd_recipient_restrictions = check_client_access static:HOLD, reject_rbl_client rbl.example\n"
    report = verification_of(written(tmp_path, text), 10)
    assert report.differences
    path = "recipient: reject_rbl_client rbl.example"
    why = f"one reply cannot say HOLD and restrictions that are left to Postfix ({path})"
    assert {why} == {one.why for one in report.differences}
    assert str(report.differences[0]).endswith(f" ({why})")


# main.cf lines, exit status, how the last line on standard error ends.
ENDINGS: Mapping[str, tuple[str, int, str]] = {
    "something left out, nothing differs": (
        "smtpd_sender_restrictions = check_sender_access mysql:/etc/postfix/senders.cf\n",
        65,
        "0 differ",
    ),
    "an action behind which DISCARD stands": (
        "smtpd_sender_restrictions = check_client_access static:HOLD, check_client_access static:DISCARD\n",
        0,
        "0 differ",
    ),
    "something left out that differs": (
        "smtpd_sender_restrictions = check_sender_access regexp:$config_directory/t\n",
        1,
        "30 differ",
    ),
    "another policy service": (
        "smtpd_recipient_restrictions = check_policy_service inet:127.0.0.1:9\n",
        65,
        "0 differ",
    ),
    "Postfix does not begin": ("soft_bounce = maybe\n", 65, "Postfix did not start: ended: 1"),
    "Postfix does not start": (
        "smtpd_relay_restrictions =\nsmtpd_recipient_restrictions = permit\n",
        65,
        "defer_unauth_destination, reject, defer, defer_if_permit or check_relay_domains",
    ),
}


@pytest.mark.servers
@pytest.mark.parametrize("case", ENDINGS)
def test_ending(tmp_path: Path, capsys: pytest.CaptureFixture[str], case: str) -> None:
    """1 when something differs; 65 when something was left out, or Postfix does not take the main.cf."""
    text, status, end = ENDINGS[case]
    written(tmp_path, text, t="/x/ DUNNO\n")
    got, _, error = command(tmp_path / "main.cf", capsys, "--verify", "30")
    assert (status, True) == (got, error.rstrip().endswith(end)), error


USAGE = ("0", "-3", "many", str(verification.MOST + 1))


@pytest.mark.parametrize("count", USAGE)
def test_usage(capsys: pytest.CaptureFixture[str], count: str) -> None:
    """The number of requests is one that can be asked."""
    assert 64 == command(FOLDERS / "local_only" / "main.cf", capsys, "--verify", count)[0]


@pytest.mark.servers
def test_without_root() -> None:
    """Where no private Postfix can be run the LDIF is printed, and the exit status is 69."""
    script = (
        "import sys, os\n"
        "from ldappolicy.cli import run\n"
        "if os.geteuid() == 0: import ldappolicy.cli.import_main_cf; os.setuid(65534)\n"
        "sys.exit(run(sys.argv[1:]))\n"
    )
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        (Path(name) / "main.cf").write_text(SYSTEM)
        words = ["import", "--main-cf", f"{name}/main.cf", "--policy-base", BASE, "--verify", "5"]
        done = subprocess.run(
            [sys.executable, "-c", script, *words], capture_output=True, text=True, check=False
        )
    assert (69, "ldappolicy: --verify: a private Postfix needs root\n") == (done.returncode, done.stderr)
    assert "smtpdRelayRestrictions: reject_unauth_destination" in done.stdout


# --- planted faults -------------------------------------------------------------------------------

# Recipe, the entry's cn, attribute, what stands there, what is planted; requests that find it.
FAULTS: Mapping[str, tuple[str, str, str, str, str, int]] = {
    "an action": (
        "frequently_forged",
        "sender_access",
        "smtpdAccess",
        "550 5.7.1 unsubscribe first",
        "OK",
        100,
    ),
    "a text": ("frequently_forged", "sender_access", "smtpdAccess", "unsubscribe first", "unsubscribe", 100),
    "a code": ("everything", "clients", "smtpdAccess", "450 4.7.1 later", "451 4.7.1 later", 100),
    "an action on the message": ("everything", "clients-2", "smtpdAccess", "HOLD", "DUNNO", 100),
    "a dropped line": (
        "protected_by_sender",
        "insiders",
        "smtpdAccess",
        "another.domain OK",
        "x.invalid OK",
        100,
    ),
    "a class": ("protected_by_sender", "insiders_only", "smtpdRestrictions", ", reject", ", permit", 100),
    "a class without its end": ("local_only", "local_only", "smtpdRestrictions", ", reject", "", 100),
    "a network": ("protected_by_network", "default", "smtpdMynetworks", "192.0.2.0/24", "192.0.2.0/25", 100),
    "a local domain": ("local_only", "local_domains-2", "smtpdAccess", "that.domain", "x.invalid", 100),
    "a list": ("local_only", "default", "smtpdRecipientRestrictions", "permit_mynetworks, ", "", 100),
    "the delimiter": ("junk_mail_classes", "default", "smtpdRecipientDelimiter", "+", "-", 300),
}


def planted(carried: Carried, cn: str, attribute: str, was: str, becomes: str) -> Carried:
    """The import with one thing that is wrong."""
    records = []
    for dn, attributes in carried.records:
        values = attributes.get(attribute, ())
        if attributes["cn"] == (cn,) and any(was in value for value in values):
            changed = tuple(value.replace(was, becomes) for value in values)
            attributes = {**attributes, attribute: changed}
        records.append((dn, attributes))
    assert records != carried.records
    return Carried(records, carried.left_out, carried.warnings)


@pytest.mark.servers
@pytest.mark.parametrize("fault", FAULTS)
def test_planted_fault(capsys: pytest.CaptureFixture[str], fault: str) -> None:
    """One thing that is wrong in the entries is found, a line each time, and the exit status is 1."""
    recipe, cn, attribute, was, becomes, count = FAULTS[fault]
    main = read_main_cf(FOLDERS / recipe / "main.cf")
    carried = planted(imported(main), cn, attribute, was, becomes)
    status = verified(main, carried, BASE, "default", count)
    error = capsys.readouterr().err.splitlines()
    assert 1 == status, error
    assert error[0].startswith("ldappolicy: differs: client=")
    assert re.search(r", [1-9]\d* differ$", error[-1])


@pytest.mark.servers
def test_a_comparison_that_breaks_off() -> None:
    """A connection that is lost on the way is an error of one line, not of the entries."""
    main = read_main_cf(FOLDERS / "local_only" / "main.cf")
    gone = Mock(side_effect=ConnectionResetError(104, "Connection reset by peer"))
    with pytest.raises(OracleError, match=r"^the comparison broke off: Connection reset by peer$"):
        verify(main, imported(main).records, BASE, "default", 10, gone)


@pytest.mark.servers
def test_entries_that_cannot_be_served() -> None:
    """A policy that does not parse is an error of its own, no difference."""
    main = read_main_cf(FOLDERS / "local_only" / "main.cf")
    carried = planted(imported(main), "default", "smtpdRecipientRestrictions", "permit_mynetworks", "{")
    with pytest.raises(InputError) as refused:
        verify(main, carried.records, BASE, "default", 10)
    assert str(refused.value).startswith("the imported policy cannot be served: ")


# --- generated policies ---------------------------------------------------------------------------

ONLY_THE_DIRECTORY = re.compile(
    r"directory:|recipient:(?:members|owners|moderators|allowed|denied)|login_mismatch|check_ccert_access",
    re.IGNORECASE,
)


def can_be_imported(pair: Pair) -> bool:
    """Whether main.cf and its tables say all of it."""
    return (
        pair.delay_reject
        # smtpd wants a reject in front of any permit, and gets it at the end.
        and "permit" not in pair.lists.get("relay", "").lower()
        and ONLY_THE_DIRECTORY.search(pair.text) is None
        and not any(table.members for table in pair.tables.values())
    )


def as_main_cf(pair: Pair, folder: Path) -> MainCf:
    """The pair's policy as a main.cf with texthash: and cidr: tables."""
    native = Native(pair, str(folder))
    found = {"compatibility_level": "3.6", **SITE_MAIN}
    for name, value in native.parameters().items():
        found["smtpd_restriction_classes" if name == "native_classes" else name] = value
    relay = found.pop("native_relay").removeprefix("reject_rbl_client reject, ").strip(", ")
    for name in [name for name in found if name.startswith("native_")]:
        found[f"smtpd_{name.removeprefix('native_')}_restrictions"] = found.pop(name)
    found["smtpd_relay_restrictions"] = f"{relay}, check_client_access static:OK, reject"
    for name, rows in native.files.items():
        (folder / name).write_text("".join(f"{key} {value}\n" for key, value in dict(rows).items()), "utf-8")
    (folder / "main.cf").write_text("".join(f"{name} = {value}\n" for name, value in found.items()), "utf-8")
    return read_main_cf(folder / "main.cf")


def generated(seed: int, count: int) -> Iterator[Pair]:
    """Pairs of that seed whose policies main.cf can say."""
    found: list[Pair] = []

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=count * 12,
        database=None,
        deadline=None,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @given(pairs())
    def collect(pair: Pair) -> None:
        if can_be_imported(pair) and pair.text not in {one.text for one in found}:
            found.append(pair)

    collect()
    return iter(found[:: max(1, len(found) // count)][:count])


@pytest.mark.parametrize(
    ("seed", "count"),
    [pytest.param(0, 4, marks=pytest.mark.servers)]
    + [pytest.param(seed, 8, marks=pytest.mark.long) for seed in range(4)],
)
def test_generated(tmp_path: Path, seed: int, count: int) -> None:
    """A generated policy decides after its import as before."""
    for number, pair in enumerate(generated(seed, count)):
        folder = tmp_path / str(number)
        folder.mkdir()
        report = verification_of(as_main_cf(pair, folder), 120)
        # What one reply cannot say is known, and named.
        differ = [one for one in report.differences if "one reply cannot say" not in one.why]
        assert [] == differ, f"{pair}\n{told(report)}"
