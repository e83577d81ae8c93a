"""lint --main-cf: what a main.cf and the policy disagree about, each disagreement a case, with its line.

The policies are those of the example company (`schema/example.ldif`), changed where a case says so. A case is
the text of a main.cf and what is printed of it, without the file's name: `error: LINE: PARAMETER: text`.
"""

import os
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from ldappolicy.cli import EX_DATAERR, EX_USAGE, run
from tests.conftest import ROOT
from tests.labs.slapd import Slapd, require_slapd
from tests.readme import blocks

EXAMPLE = ROOT / "schema" / "example.ldif"

CALL = "smtpd_recipient_restrictions = check_policy_service inet:127.0.0.1:10040\n"
GUARD = "smtpd_relay_restrictions = permit_mynetworks, reject_unauth_destination\n"
IDENTITY = """\
compatibility_level = 3.6
myhostname = mail.my.domain
myorigin = my.domain
mydestination = my.domain, other.example, localhost
recipient_delimiter = +
mynetworks = 127.0.0.0/8 [::1]/128 192.0.2.0/24
"""
SMTP = "smtp inet n - y - - smtpd\n"
AGREES = IDENTITY + GUARD + CALL
"""A whole main.cf that says what the example says."""


@dataclass
class Lint:
    """Runs the command over a main.cf, with the example company for a directory."""

    folder: Path
    capsys: pytest.CaptureFixture[str]
    said: str = ""

    def __call__(
        self,
        main: str,
        *,
        master: str = SMTP,
        entries: str = "",
        changed: tuple[tuple[str, str], ...] = (),
        config: str = "",
        uri: str = "",
        options: tuple[str, ...] = (),
    ) -> list[str]:
        """What is printed, without the path of main.cf; `status` and `said` are kept."""
        tree = EXAMPLE.read_text(encoding="utf-8")
        for old, new in changed:
            assert old in tree
            tree = tree.replace(old, new)
        (self.folder / "tree.ldif").write_text(tree + "\n" + entries, encoding="utf-8")
        uri = uri or f"ldif:{self.folder / 'tree.ldif'}"
        (self.folder / "config.toml").write_text(
            f'[directory]\nuri = ["{uri}"]\nsearch_base = "dc=example,dc=com"\n'
            f'policy_base = "ou=policy,dc=example,dc=com"\n{config}',
            encoding="utf-8",
        )
        (self.folder / "main.cf").write_text(main, encoding="utf-8")
        if master:
            (self.folder / "master.cf").write_text(master, encoding="utf-8")
        arguments = ["-c", str(self.folder / "config.toml"), "lint", "--main-cf"]
        self.status = run([*arguments, str(self.folder / "main.cf"), *options])
        printed = self.capsys.readouterr()
        self.said = printed.err
        return [self._short(line) for line in printed.out.splitlines()]

    def _short(self, line: str) -> str:
        return re.sub(r"main\.cf:(?=[0-9])", "", line.replace(f"{self.folder}/", ""))


@pytest.fixture
def lint(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Lint:
    """The command, in a folder of its own."""
    monkeypatch.delenv("LDAPPOLICY_CONFIG", raising=False)
    return Lint(tmp_path, capsys)


def with_line(line: str) -> str:
    """AGREES with one parameter replaced, or added, at the end."""
    name = line.partition("=")[0].strip()
    kept = [one for one in AGREES.splitlines() if one.partition("=")[0].strip() != name]
    return "\n".join((*kept, line)) + "\n"


# ---------------------------------------------------------------- nothing to say


@pytest.mark.parametrize("example", blocks("main.cf"), ids=["one call", "a call for each list"])
@pytest.mark.parametrize("identity", ["", IDENTITY], ids=["as it stands", "in a whole main.cf"])
def test_readme(lint: Lint, example: str, identity: str) -> None:
    """What the README shows for main.cf agrees with the example company."""
    assert [] == lint(identity + example)
    assert (0, "") == (lint.status, lint.said)


CLEAN = {
    "all the same": AGREES,
    "networks in another order": with_line("mynetworks = 192.0.2.0/24, [::1]/128, 127.0.0.0/8"),
    "networks cut otherwise": with_line("mynetworks = 192.0.2.0/25, 192.0.2.128/25, [::1], 127.0.0.0/8"),
    "networks by exclusion": with_line(
        "mynetworks = !10.1.0.0/16 127.0.0.0/8 [::1]/128 192.0.2.0/24, !192.0.2.1"
    ),
    "networks that the host alone knows": IDENTITY.replace("mynetworks =", "mynetworks_style = host\n#")
    + GUARD
    + CALL,
    "networks in a table": with_line("mynetworks = cidr:/etc/postfix/networks"),
    "myorigin in other letters": with_line("myorigin = My.Domain"),
    "myorigin by name": with_line("myorigin = $mydestination").replace(
        "mydestination = my.domain, other.example, localhost",
        "mydestination = my.domain\nrelay_domains = other.example",
    ),
    "the domains in several parameters": with_line("mydestination = localhost, my.domain")
    + "virtual_alias_domains = other.example\n",
    "a domain in a table": with_line("mydestination = my.domain, localhost, hash:/etc/postfix/domains"),
    "a relay domain above": with_line("mydestination = my.domain, localhost")
    + "relay_domains = other.example, my.domain\n",
    "an address literal": with_line("mydestination = my.domain, other.example, localhost, [192.0.2.1]"),
    "a piece": CALL,
    "a piece with its networks": "mynetworks = 127.0.0.0/8, [::1]/128, 192.0.2.0/24\n" + CALL,
    "without myhostname": AGREES.replace("myhostname = mail.my.domain\n", "").replace(
        "myorigin = my.domain\n", ""
    ),
    "mydestination that the host alone knows": AGREES.replace("myhostname = mail.my.domain\n", "").replace(
        "mydestination =", "mydestination = $myhostname, localhost.$mydomain,"
    ),
}


@pytest.mark.parametrize("main", CLEAN.values(), ids=CLEAN)
def test_agreement(lint: Lint, main: str) -> None:
    """What says the same in other words, or cannot be compared, is not complained of."""
    assert [] == lint(main)
    assert (0, "") == (lint.status, lint.said)


def test_without_the_option(lint: Lint, tmp_path: Path) -> None:
    """Lint as it was says nothing of main.cf."""
    lint("mynetworks = 0.0.0.0/0\n")
    assert 0 == run(["-c", str(tmp_path / "config.toml"), "lint"])
    assert "" == lint.capsys.readouterr().out


# ---------------------------------------------------------------- disagreements

POLICY = "policy 'default'"


def missing(line: str, parameter: str, names: str) -> str:
    """What is said of domains that only main.cf has."""
    text = f"{line}: {parameter}: {names} is not in smtpdLocalDomains of {POLICY}: "
    if parameter == "mydestination":
        return f"error: {text}routed spellings (user%domain@it) reach protected recipients"
    return f"warning: {text}mail for it counts as mail for elsewhere"


def extra(line: str, parameter: str, names: str) -> str:
    """What is said of domains that only the policy has."""
    others = "mydestination, virtual_alias_domains, virtual_mailbox_domains, relay_domains"
    return f"error: {line}: {parameter}: {names} is in smtpdLocalDomains of {POLICY}, and in none of {others}"


DISAGREEMENTS: dict[str, tuple[str, list[str]]] = {
    "another delimiter": (
        with_line("recipient_delimiter = -"),
        [f"error: 8: recipient_delimiter: it is '-', and {POLICY} has smtpdRecipientDelimiter '+'"],
    ),
    "one delimiter more": (
        with_line("recipient_delimiter = +-"),
        [f"error: 8: recipient_delimiter: it is '+-', and {POLICY} has smtpdRecipientDelimiter '+'"],
    ),
    "no delimiter, by its own word": (
        with_line("recipient_delimiter ="),
        [f"warning: 8: recipient_delimiter: it is '', and {POLICY} has smtpdRecipientDelimiter '+'"],
    ),
    "no delimiter, by default": (
        AGREES.replace("recipient_delimiter = +\n", ""),
        [f"warning: main.cf: recipient_delimiter: it is '', and {POLICY} has smtpdRecipientDelimiter '+'"],
    ),
    "another myorigin": (
        with_line("myorigin = elsewhere.example"),
        [f"error: 8: myorigin: it is 'elsewhere.example', and {POLICY} has smtpdMyorigin 'my.domain'"],
    ),
    "myorigin by default": (
        AGREES.replace("myorigin = my.domain\n", ""),
        [f"error: main.cf: myorigin: it is 'mail.my.domain', and {POLICY} has smtpdMyorigin 'my.domain'"],
    ),
    "append_dot_mydomain": (
        AGREES + "append_dot_mydomain = yes\n",
        [
            (
                "error: 9: append_dot_mydomain: it is 'yes': user@host is not looked up as"
                " user@host.$mydomain, expected no"
            )
        ],
    ),
    "append_dot_mydomain by default": (
        AGREES.replace("compatibility_level = 3.6\n", ""),
        [
            (
                "error: main.cf: append_dot_mydomain: it is 'yes', the default below compatibility_level 1:"
                " user@host is not looked up as user@host.$mydomain, expected no"
            )
        ],
    ),
    "parent domains": (
        AGREES + "parent_domain_matches_subdomains = relay_domains, mynetworks\n",
        [
            (
                "warning: 9: parent_domain_matches_subdomains: it does not list smtpd_access_maps, and"
                f" {POLICY} has smtpdParentDomainMatchesSubdomains TRUE"
            )
        ],
    ),
    "a network less": (
        with_line("mynetworks = 127.0.0.0/8, [::1]/128"),
        [f"error: 8: mynetworks: {POLICY} trusts '192.0.2.0/24' by smtpdMynetworks, and main.cf does not"],
    ),
    "half a network less": (
        with_line("mynetworks = 127.0.0.0/8, [::1]/128, 192.0.2.0/25"),
        [f"error: 8: mynetworks: {POLICY} trusts '192.0.2.128/25' by smtpdMynetworks, and main.cf does not"],
    ),
    "an address excluded": (
        with_line("mynetworks = !192.0.2.7, 127.0.0.0/8, [::1]/128, 192.0.2.0/24"),
        [f"error: 8: mynetworks: {POLICY} trusts '192.0.2.7/32' by smtpdMynetworks, and main.cf does not"],
    ),
    "a network more": (
        with_line("mynetworks = 127.0.0.0/8, [::1]/128, 192.0.2.0/24, 10.0.0.0/8, [2001:db8::]/32"),
        [
            (
                "warning: 8: mynetworks: it trusts '10.0.0.0/8', '2001:db8::/32', and smtpdMynetworks of"
                f" {POLICY} does not"
            )
        ],
    ),
    "a name more": (
        with_line("mynetworks = 127.0.0.0/8, [::1]/128, 192.0.2.0/24, clients.example"),
        [f"warning: 8: mynetworks: it trusts 'clients.example', and smtpdMynetworks of {POLICY} does not"],
    ),
    "a name excluded": (
        with_line("mynetworks = !bad.example, 127.0.0.0/8, [::1]/128, 192.0.2.0/24"),
        [f"error: 8: mynetworks: {POLICY} trusts 'bad.example' by smtpdMynetworks, and main.cf does not"],
    ),
    "no network at all": (
        with_line("mynetworks ="),
        [
            (
                f"error: 8: mynetworks: {POLICY} trusts '127.0.0.0/8', '192.0.2.0/24', '::1/128' by"
                " smtpdMynetworks, and main.cf does not"
            )
        ],
    ),
    "a destination more": (
        with_line("mydestination = $myhostname, my.domain, other.example, localhost"),
        [missing("8", "mydestination", "'mail.my.domain'")],
    ),
    "destinations by default": (
        AGREES.replace("mydestination = my.domain, other.example, localhost\n", ""),
        [
            missing("main.cf", "mydestination", "'mail.my.domain', 'localhost.my.domain'"),
            extra("main.cf", "mydestination", "'my.domain', 'other.example'"),
        ],
    ),
    "a destination more, beside a table": (
        with_line("mydestination = third.example, my.domain, hash:/etc/postfix/domains"),
        [missing("8", "mydestination", "'third.example'")],
    ),
    "a virtual and a relay domain more": (
        AGREES + "virtual_mailbox_domains = third.example\nrelay_domains = fourth.example, third.example\n",
        [
            missing("9", "virtual_mailbox_domains", "'third.example'"),
            missing("10", "relay_domains", "'fourth.example'"),
        ],
    ),
    "a domain less": (
        with_line("mydestination = my.domain, localhost"),
        [extra("8", "mydestination", "'other.example'")],
    ),
    "continuation lines and comments": (
        "# comment\n\n"
        + AGREES.replace("mynetworks = ", "mynetworks =\n  # inside\n  ").replace(" [::1]", "\n\n\t[::1]")
        + "\nrecipient_delimiter = -\n",
        [f"error: 16: recipient_delimiter: it is '-', and {POLICY} has smtpdRecipientDelimiter '+'"],
    ),
    "continuation lines of what is wrong": (
        "# comment\n"
        + AGREES.replace("mynetworks = 127.0.0.0/8", "mynetworks =\n  127.0.0.0/8,\n  10.0.0.0/8"),
        [f"warning: 7: mynetworks: it trusts '10.0.0.0/8', and smtpdMynetworks of {POLICY} does not"],
    ),
    "a parameter set twice": (
        "recipient_delimiter = +\n" + with_line("recipient_delimiter = -"),
        [f"error: 9: recipient_delimiter: it is '-', and {POLICY} has smtpdRecipientDelimiter '+'"],
    ),
}


@pytest.mark.parametrize("case", DISAGREEMENTS)
def test_disagreement(lint: Lint, case: str) -> None:
    """Each disagreement is told of once, with the line of the parameter; what opens is an error."""
    main, expected = DISAGREEMENTS[case]
    assert expected == lint(main)
    opens = any(line.startswith("error") for line in expected)
    assert (int(opens), "") == (lint.status, lint.said)


# What stands in the policy, and what a main.cf that agrees with the example has to say of it.
POLICIES: dict[str, tuple[tuple[str, str], str, list[str]]] = {
    "no delimiter": (
        ("smtpdRecipientDelimiter: +\n", ""),
        AGREES,
        [f"error: 5: recipient_delimiter: it is '+', and {POLICY} has no smtpdRecipientDelimiter"],
    ),
    "no myorigin": (
        ("smtpdMyorigin: my.domain\n", ""),
        AGREES,
        [f"error: 3: myorigin: it is 'my.domain', and {POLICY} has no smtpdMyorigin"],
    ),
    "no mynetworks: left to Postfix": (
        ("smtpdMynetworks: 127.0.0.0/8, [::1]/128, 192.0.2.0/24\n", ""),
        with_line("mynetworks = 10.0.0.0/8"),
        [],
    ),
    "mynetworks that fail": (
        ("smtpdMynetworks: 127.0.0.0/8", "smtpdMynetworks: fail:test, 127.0.0.0/8"),
        with_line("mynetworks = 10.0.0.0/8"),
        [
            (
                "warning: cn=default,ou=policy,dc=example,dc=com: smtpdMynetworks: a fail: table fails every"
                " request that reaches it, expected one in tests only"
            )
        ],
    ),
    "a name in mynetworks": (
        ("smtpdMynetworks: ", "smtpdMynetworks: clients.example, "),
        AGREES,
        [f"error: 6: mynetworks: {POLICY} trusts 'clients.example' by smtpdMynetworks, and main.cf does not"],
    ),
    "a name in mynetworks, without its subdomains": (
        ("smtpdMynetworks: ", "smtpdMynetworks: clients.example, "),
        AGREES.replace("mynetworks = ", "mynetworks = clients.example ")
        + "parent_domain_matches_subdomains = smtpd_access_maps\n",
        [
            (
                "error: 9: parent_domain_matches_subdomains: it does not list mynetworks, and the policy"
                " trusts the subdomains of 'clients.example' too"
            )
        ],
    ),
    "parent domains": (
        ("cn: default\n", "cn: default\nsmtpdParentDomainMatchesSubdomains: FALSE\n"),
        AGREES,
        [
            (
                "warning: main.cf: parent_domain_matches_subdomains: it lists smtpd_access_maps, and"
                f" {POLICY} has smtpdParentDomainMatchesSubdomains FALSE"
            )
        ],
    ),
    "no local domains": (
        ("smtpdLocalDomains: ldap:local_domains\n", ""),
        with_line("mydestination = third.example"),
        [],
    ),
    "subdomains of a local domain": (
        ("smtpdAccess: other.example OK", "smtpdAccess: other.example OK\nsmtpdAccess: .my.domain OK"),
        with_line("mydestination = my.domain, other.example, mail.my.domain, localhost")
        + "relay_domains = my.domain\n",
        [],
    ),
    "subdomains of a local domain, not of main.cf": (
        ("smtpdAccess: other.example OK", "smtpdAccess: other.example OK\nsmtpdAccess: .third.example OK"),
        AGREES,
        [extra("4", "mydestination", "'.third.example'")],
    ),
    "domains inline": (
        (
            "smtpdLocalDomains: ldap:local_domains",
            "smtpdLocalDomains: inline:{my.domain=OK, other.example=OK}",
        ),
        AGREES.replace("other.example,", "other.example, third.example,"),
        [missing("4", "mydestination", "'third.example'")],
    ),
    "every domain": (
        ("smtpdLocalDomains: ldap:local_domains", "smtpdLocalDomains: static:OK"),
        with_line("mydestination = third.example"),
        [],
    ),
    "domains by URL": (
        (
            "smtpdAccess: other.example OK",
            (
                "smtpdAccess: other.example OK\nsmtpdAccessURL: ldap:///ou=domains,dc=example,dc=com"
                "?associatedDomain?sub?(associatedDomain=*)"
            ),
        ),
        with_line("mydestination = my.domain, other.example, sub.third.example"),
        [
            missing("8", "mydestination", "'sub.third.example'"),
            extra("8", "mydestination", "'third.example'"),
        ],
    ),
}

THIRD = """\
dn: dc=third,ou=domains,dc=example,dc=com
objectClass: domain
objectClass: domainRelatedObject
dc: third
associatedDomain: Third.Example
"""


@pytest.mark.parametrize("case", POLICIES)
def test_policies(lint: Lint, case: str) -> None:
    """The other side of the same: what the policy says, or does not say."""
    changed, main, expected = POLICIES[case]
    assert expected == lint(main, changed=(changed,), entries=THIRD)


def test_files(lint: Lint, tmp_path: Path) -> None:
    """`/file` patterns are read in place, `!` in front of them included."""
    (tmp_path / "networks").write_text("# ours\n127.0.0.0/8\n  [::1]/128\n\n192.0.2.0/24\n", encoding="utf-8")
    (tmp_path / "apart").write_text("!192.0.2.1, 192.0.2.0/25\n", encoding="utf-8")
    (tmp_path / "domains").write_text("my.domain\nother.example\nthird.example\n", encoding="utf-8")
    main = with_line(f"mydestination = {tmp_path}/domains")
    networks = f"mynetworks = !{tmp_path}/apart {tmp_path}/networks\n"
    assert [
        missing("8", "mydestination", "'third.example'"),
        (
            f"error: 9: mynetworks: {POLICY} trusts '192.0.2.0/32', '192.0.2.2/31', '192.0.2.4/30',"
            " '192.0.2.8/29', '192.0.2.16/28' and 2 more by smtpdMynetworks, and main.cf does not"
        ),
    ] == lint(main + networks)


NETWORKS = "127.0.0.0/8 [::1]/128 192.0.2.0/24"
READ_DIFFERENTLY = "begins with white space: versions of Postfix read it differently: it is not compared"
DEEP = "is read from 5 files within one another: it is not compared"

# What stands in the files `one` and `two` ({} is their folder), mynetworks, and what is said of it.
FILES: dict[str, tuple[str, str, str, list[str]]] = {
    "lines that begin with white space": ("#\n127.0.0.0/8\n [::1]/128\n\t192.0.2.0/24\n", "", "{}/one", []),
    "comments": (f"# 10.0.0.0/8\n\n#!192.0.2.1\n{NETWORKS}\n", "", "{}/one", []),
    "tokens apart": ("127.0.0.0/8,[::1]/128\r\n,192.0.2.0/25\t192.0.2.128/25", "", "{}/one", []),
    "excluded twice": ("!{}/two\n", f"!{NETWORKS.replace(' ', ' !')}\n", "{}/one", []),
    "a first line that begins with white space": (
        f" !192.0.2.0/28\n{NETWORKS}\n",
        "",
        "{}/one",
        [f"warning: one:1: mynetworks: {READ_DIFFERENTLY}"],
    ),
    "a comment that begins with white space": (
        f"{NETWORKS}\n  # !192.0.2.0/28\n",
        "",
        "{}/one",
        [f"warning: one:2: mynetworks: {READ_DIFFERENTLY}"],
    ),
    "a file that names itself": (
        "{}/one\n",
        "",
        "{}/one",
        [f"warning: one:1: mynetworks: '{{}}/one' {DEEP}"],
    ),
    "files that name one another": (
        "{}/two\n",
        "10.0.0.0/8 {}/one\n",
        "{}/one",
        [f"warning: one:1: mynetworks: '{{}}/two' {DEEP}"],
    ),
    "a file that is not there": (
        "",
        "",
        "127.0.0.0/8 {}/three",
        ["warning: 8: mynetworks: three: cannot be read: no such file or directory: it is not compared"],
    ),
    "a folder": (
        "",
        "",
        "{}",
        ["warning: 8: mynetworks: {}: cannot be read: is a directory: it is not compared"],
    ),
    "nothing behind an exclusion": (
        f"{NETWORKS} !\n",
        "",
        "{}/one",
        ["warning: one:1: mynetworks: no pattern after '!': it is not compared"],
    ),
    "braces": (
        "",
        "",
        "{ 127.0.0.0/8",
        ["warning: 8: mynetworks: unbalanced '{' at character 1: it is not compared"],
    ),
}


@pytest.mark.parametrize("case", FILES)
def test_file(lint: Lint, tmp_path: Path, case: str) -> None:
    """A `/file` is read as Postfix reads it; one that cannot be, or by some versions only, is told of."""
    first, second, patterns, expected = FILES[case]
    one, two, mynetworks = (text.replace("{}", str(tmp_path)) for text in (first, second, patterns))
    (tmp_path / "one").write_text(one, encoding="utf-8")
    (tmp_path / "two").write_text(two, encoding="utf-8")
    told = [line.replace("{}", str(tmp_path)).replace(f"{tmp_path}/", "") for line in expected]
    assert told == lint(with_line(f"mynetworks = {mynetworks}"))
    assert (0, "") == (lint.status, lint.said)


def test_beside_what_cannot_be_read(lint: Lint, tmp_path: Path) -> None:
    """What stands in front of it and behind it is compared, and what is missing is not guessed at."""
    (tmp_path / "self").write_text(f"{tmp_path}/self\n", encoding="utf-8")
    main = with_line(f"mydestination = third.example, {tmp_path}/self, fourth.example")
    assert [
        missing("8", "mydestination", "'third.example', 'fourth.example'"),
        f"warning: self:1: mydestination: 'self' {DEEP}",
    ] == lint(main)


def test_an_inline_table(lint: Lint) -> None:
    """Its keys are domains as well."""
    main = with_line("mydestination = inline:{third.example=x, {fourth.example = x}}, my.domain")
    assert [
        missing("8", "mydestination", "'third.example', 'fourth.example'"),
        extra("8", "mydestination", "'other.example'"),
    ] == lint(main)


def test_told_once(lint: Lint, tmp_path: Path) -> None:
    """What is wrong with main.cf alone is not said again for each policy."""
    call = CALL.replace("inet:127.0.0.1:10040", "{ inet:127.0.0.1:10040, policy_context=other/sender }")
    other = "dn: cn=other,ou=policy,dc=example,dc=com\nobjectClass: smtpdPolicy\ncn: other\n"
    other += "smtpdMynetworks: 127.0.0.0/8\nsmtpdSenderRestrictions: permit\n"
    main = with_line(f"mynetworks = {tmp_path}/none") + call.replace("recipient_r", "sender_r")
    found = [line for line in lint(main, entries=other) if "mynetworks" in line]
    assert [
        "warning: 8: mynetworks: none: cannot be read: no such file or directory: it is not compared"
    ] == found


def test_tables(lint: Lint, tmp_path: Path) -> None:
    """Tables of domains are read from the text that postmap(1) makes them of."""
    text = "# ours\nother.example x\nThird.Example x\nall@fourth.example amy\nabuse amy\n"
    (tmp_path / "virtual").write_text(text, encoding="utf-8")
    for kind in ("hash", "texthash", "proxy:btree"):
        main = (
            with_line("mydestination = my.domain, localhost")
            + f"virtual_alias_maps = {kind}:{tmp_path}/virtual\n"
        )
        assert [missing("main.cf", "virtual_alias_domains", "'third.example'")] == lint(main)
    main = with_line(f"mydestination = my.domain, hash:{tmp_path}/virtual")
    (tmp_path / "virtual").write_text("third.example x\n", encoding="utf-8")
    assert [
        missing("8", "mydestination", "'third.example'"),
        extra("8", "mydestination", "'other.example'"),
    ] == lint(main)
    (tmp_path / "virtual").write_text("  broken\n", encoding="utf-8")
    assert [] == [line for line in lint(main) if "third" in line]


def test_keys_that_are_users(lint: Lint, tmp_path: Path) -> None:
    """A key without a dot may be in smtpdLocalDomains, as Postfix takes it for a domain, or not."""
    (tmp_path / "virtual").write_text("other.example x\nroot amy\nabuse amy\n", encoding="utf-8")
    main = (
        with_line("mydestination = my.domain, localhost") + f"virtual_alias_maps = hash:{tmp_path}/virtual\n"
    )
    known = "smtpdAccess: other.example OK\n"
    both = (known, f"{known}smtpdAccess: root OK\nsmtpdAccess: abuse OK\n")
    assert ([], []) == (lint(main), lint(main, changed=(both,)))
    third = (known, f"{known}smtpdAccess: postmaster OK\n")
    assert [extra("8", "mydestination", "'postmaster'")] == lint(main, changed=(third,))


def test_myorigin_in_a_file(lint: Lint, tmp_path: Path) -> None:
    """Debian's main.cf names a file that holds myorigin."""
    (tmp_path / "mailname").write_text("mail.elsewhere.example\n", encoding="utf-8")
    assert [
        f"error: 8: myorigin: it is 'mail.elsewhere.example', and {POLICY} has smtpdMyorigin 'my.domain'"
    ] == lint(with_line(f"myorigin = {tmp_path}/mailname"))
    assert [] == lint(with_line("myorigin = /nowhere/mailname"))


def test_several_policies(lint: Lint) -> None:
    """Each policy that main.cf calls for is compared, and no other."""
    call = CALL.replace("inet:127.0.0.1:10040", "{ inet:127.0.0.1:10040, policy_context=plain/recipient }")
    sender = call.replace("recipient_restrictions", "sender_restrictions").replace(
        "plain/recipient", "exercise"
    )
    main = (AGREES.replace(CALL, call) + sender).replace("delimiter = +", "delimiter = -")
    assert [
        "error: 5: recipient_delimiter: it is '-', and policy 'exercise' has smtpdRecipientDelimiter '+'",
        "error: 5: recipient_delimiter: it is '-', and policy 'plain' has smtpdRecipientDelimiter '+'",
    ] == [line for line in lint(main) if "recipient_delimiter" in line]


# ---------------------------------------------------------------- the command


def test_calls(lint: Lint) -> None:
    """Where main.cf and the master.cf beside it call the service is judged as well, all of it by line."""
    master = (
        f"{SMTP}submission inet n - y - - smtpd\n"
        "  -o smtpd_recipient_restrictions=permit_sasl_authenticated,reject\n"
    )
    main = IDENTITY + (
        "smtpd_relay_restrictions =\nsmtpd_recipient_restrictions = permit_mynetworks,\n"
        "  check_policy_service inet:127.0.0.1:10040, reject_unauth_destination\nrecipient_delimiter = -\n"
    )
    parameter = "smtpd_recipient_restrictions"
    assert [
        (
            f"error: 8: {parameter}: the call stands behind permit_mynetworks: who it lets through is"
            " never asked about"
        ),
        (
            f"error: 8: {parameter}: the call stands in front of reject_unauth_destination while [policy]"
            ' permit_reply = "OK": an open relay'
        ),
        f"error: 10: recipient_delimiter: it is '-', and {POLICY} has smtpdRecipientDelimiter '+'",
        (
            f"error: master.cf:2: {parameter}: service submission does not call the policy service: what"
            " it sets here takes the place of main.cf's list"
        ),
    ] == lint(main, master=master, config='[policy]\npermit_reply = "OK"\n')
    assert 1 == lint.status


def test_submission_with_a_policy_of_its_own(lint: Lint) -> None:
    """A service that asks another policy is protected by that, and that policy is compared too."""
    call = "check_policy_service { inet:127.0.0.1:10040, policy_context=plain }"
    master = (
        f"{SMTP}submission inet n - y - - smtpd\n"
        f"  -o {{ smtpd_recipient_restrictions = {call}, permit_sasl_authenticated, reject }}\n"
    )
    assert [] == [line for line in lint(AGREES, master=master) if "master.cf" in line]
    said = lint(AGREES.replace("delimiter = +", "delimiter = -"), master=master)
    assert ["'default'", "'plain'"] == [
        line.split("policy ")[1].split()[0] for line in said if "recipient_delimiter" in line
    ]


def test_without_master_cf(lint: Lint) -> None:
    """Services that nobody looked at are told of."""
    text = "services: the file is not there, what they call for is not looked at"
    assert [f"warning: master.cf: {text}"] == lint(AGREES, master="")
    assert (0, "") == (lint.status, lint.said)
    lint(AGREES, master="", options=("--strict",))
    assert 1 == lint.status


def to_nowhere(path: Path) -> None:
    """A symbolic link to what is not there."""
    path.symlink_to(path.parent / "nowhere")


def to_itself(path: Path) -> None:
    """A symbolic link to itself."""
    path.symlink_to(path)


def socket_file(path: Path) -> None:
    """A socket."""
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(path))


# What stands in the place of master.cf, and what is said of it.
NO_FILES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a folder": (Path.mkdir, "is not a file"),
    "a pipe": (os.mkfifo, "is not a file"),
    "a socket": (socket_file, "is not a file"),
    "a link to nowhere": (to_nowhere, "cannot be read: no such file or directory"),
    "a link to itself": (to_itself, "cannot be read: too many levels of symbolic links"),
}


@pytest.mark.parametrize("case", NO_FILES)
def test_master_cf_that_is_no_file(lint: Lint, tmp_path: Path, case: str) -> None:
    """It is bad input, as main.cf would be: one line, exit 65, and nothing waits for it."""
    make, expected = NO_FILES[case]
    make(tmp_path / "master.cf")
    assert [] == lint(AGREES, master="")
    assert (EX_DATAERR, f"ldappolicy: {tmp_path}/master.cf: {expected}\n") == (lint.status, lint.said)


def test_what_the_configuration_says(lint: Lint) -> None:
    """The service is known by [server] listen, and Postfix has to wait for as long as a decision may take."""
    config = '[server]\nlisten = ["unix:/var/spool/postfix/private/ldappolicy"]\nrequest_timeout = "30s"\n'
    call = "{ unix:private/ldappolicy, timeout=10s }"
    assert [
        (
            "warning: 8: smtpd_recipient_restrictions: timeout '10s' is shorter than [server]"
            " request_timeout, 30s: Postfix gives up first"
        )
    ] == lint(AGREES.replace("inet:127.0.0.1:10040", call), config=config)


REALM = "smtpd_sasl_auth_enable = yes\nsmtpd_sasl_local_domain = $myhostname\n"


@pytest.mark.parametrize(
    ("main", "realms", "is_told"),
    [
        pytest.param(AGREES + REALM, "", True, id="it is not there"),
        pytest.param(AGREES + REALM, "Mail.My.Domain", False, id="it is"),
        pytest.param(AGREES + REALM.replace("yes", "no"), "", False, id="nobody logs in"),
        pytest.param(AGREES + REALM.replace("$myhostname", ""), "", False, id="no realm"),
        pytest.param(CALL + REALM, "", False, id="the host alone knows it"),
    ],
)
def test_login_realms(lint: Lint, main: str, realms: str, is_told: bool) -> None:
    """A realm that Postfix puts behind logins is in login_realms, or it is told of."""
    config = f'login_realms = ["{realms}"]\n' if realms else ""
    expected = (
        "warning: 10: smtpd_sasl_local_domain: logins may come as 'name@mail.my.domain': where no entry"
        " has that as a login or address they are nobody's, expected 'mail.my.domain' in [directory]"
        " login_realms"
    )
    assert [expected] * is_told == lint(main, config=config)


def test_strict(lint: Lint) -> None:
    """A warning counts with --strict."""
    main = with_line("recipient_delimiter =")
    lint(main)
    assert 0 == lint.status
    lint(main, options=("--strict",))
    assert 1 == lint.status


def test_after_the_faults_of_the_policies(lint: Lint) -> None:
    """What lint finds elsewhere comes first, and counts as before."""
    changed = (("cn: default\n", "cn: default\nsmtpdHeloRestrictions: nosuch\n"),)
    found = lint(with_line("recipient_delimiter ="), changed=changed)
    assert ["error", "warning"] == [line.partition(":")[0] for line in found]
    assert "unknown restriction or class 'nosuch'" in found[0]
    assert 1 == lint.status


UNREADABLE: dict[str, tuple[str, str]] = {
    "no name": ("= 3\n", "main.cf:1: '= 3' has no name before its '=', expected name = value"),
    "no value": ("mynetworks\n", "main.cf:1: 'mynetworks' has no '=' after its name, expected name = value"),
    "endless": ("myorigin = $myorigin\n" + CALL, "main.cf:1: myorigin: ${myorigin} is expanded by itself"),
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_unreadable(lint: Lint, tmp_path: Path, case: str) -> None:
    """What Postfix cannot read either is one line on standard error, with its place, and exit 65."""
    main, expected = UNREADABLE[case]
    assert [] == lint(main)
    assert EX_DATAERR == lint.status
    assert lint.said.replace(f"{tmp_path}/", "").startswith(f"ldappolicy: {expected[:40]}")
    assert 1 == lint.said.count("\n")


def test_no_such_file(lint: Lint, tmp_path: Path) -> None:
    """A file that is not there is bad input; a folder is bad usage."""
    lint(AGREES)
    (tmp_path / "main.cf").unlink()
    arguments = ["-c", str(tmp_path / "config.toml"), "lint", "--main-cf"]
    assert EX_DATAERR == run([*arguments, str(tmp_path / "main.cf")])
    assert "cannot be read: no such file or directory" in lint.capsys.readouterr().err
    assert EX_USAGE == run([*arguments, str(tmp_path)])


@pytest.mark.servers
def test_slapd_shows_the_same(lint: Lint) -> None:
    """Through LDAP the same is found as in the LDIF file."""
    require_slapd()

    changed = (POLICIES["domains by URL"][0],)
    main = with_line("mydestination = my.domain, fourth.example") + "recipient_delimiter = -\n"
    from_file = lint(main, changed=changed, entries=THIRD)
    with Slapd(schema="ldappolicy") as slapd:
        slapd.load(lint.folder / "tree.ldif")
        from_server = lint(main, changed=changed, entries=THIRD, uri=slapd.uri)
    assert from_file == from_server
    assert 3 == len(from_file)
