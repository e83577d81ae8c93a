"""Ways in by aliases: what Postfix makes of virtual and local aliases, and which keys lead past a rule.

What mail for some addresses comes by, by tables; the private Postfix is asked the same. The cases of `WAYS`
are a main.cf beside the example company (`schema/example.ldif`), and what `lint --main-cf` says of it.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ldappolicy.address import quoted
from ldappolicy.aliases.expansion import Alias, MailSystem
from ldappolicy.cli import run
from ldappolicy.rewriting import addresses_in
from tests.conftest import ROOT
from tests.labs.postfix import Postfix, require_postfix

EXAMPLE = ROOT / "schema" / "example.ldif"
RULE = "has a rule (cn=all,ou=lists,dc=example,dc=com), and has none itself"

LISTS: Mapping[str, tuple[str, ...]] = {
    "a@b.example, c": ("a@b.example", "c"),
    "a b@c.example": ("a", "b@c.example"),
    "Foo Bar <a@b.example>, c": ("a@b.example", "c"),
    '"john doe"@x.example (hi), y': ("john doe@x.example", "y"),
    "group: a@b.example, c;, d": ("a@b.example", "c", "d"),
    ":include:/etc/a.b/c-d": (":include:/etc/a.b/c-d",),
    '"|/bin/x -f", z': ("|/bin/x -f", "z"),
    "@firm.example": ("@firm.example",),
    "": (),
}


@pytest.mark.parametrize(("text", "addresses"), LISTS.items(), ids=LISTS)
def test_addresses_in(text: str, addresses: tuple[str, ...]) -> None:
    """A value is taken apart as tok822_parse does it."""
    assert addresses == addresses_in(text)


VIRTUAL = {
    "one@my.domain": "two@my.domain",
    "two@my.domain": "three@my.domain, four@elsewhere.example",
    "three": "five@elsewhere.example",
    "plus@my.domain": "six@elsewhere.example",
    "plus+known@my.domain": "seven@elsewhere.example",
    "self@my.domain": "self@my.domain, eight@elsewhere.example",
    "loop@my.domain": "back@my.domain",
    "back@my.domain": "loop@my.domain",
    "grow@my.domain": ", ".join(f"u{number}@elsewhere.example" for number in range(1100)),
    "@old.example": "@new.example",
    "kept@old.example": "nine@elsewhere.example",
    "@new.example": "@other.example, ten@elsewhere.example",
    "bare@my.domain": "eleven",
    "quoted@my.domain": '"john doe"@elsewhere.example',
    '"jane doe"@my.domain': "twelve@elsewhere.example",
    "@all.example": "thirteen@elsewhere.example",
}
ASKED = (
    *("one@my.domain", "two@my.domain", "three@my.domain", "three@other.example", "THREE@localhost"),
    *("plus+x@my.domain", "plus+known@my.domain", "plus@my.domain", "self@my.domain", "loop@my.domain"),
    *("grow@my.domain", "x@old.example", "kept@old.example", "kept+y@old.example", "x+y@old.example"),
    *("bare@my.domain", "quoted@my.domain", '"jane doe"@my.domain', "x@all.example", "x+y@all.example"),
    *("nobody@my.domain", "three+z@my.domain", "Self@My.Domain"),
)


def mail_system(virtual: Mapping[str, str] = {}, local: Mapping[str, str] = {}) -> MailSystem:
    """The example company's, with these tables."""
    return MailSystem(
        {key: Alias(key, value, "", "virtual_alias_maps") for key, value in virtual.items()},
        {key: Alias(key, value, "", "alias_maps") for key, value in local.items()},
        frozenset(("my.domain", "other.example", "localhost")),
        "my.domain",
        delimiter="+",
    )


WAY: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "chain": (
        "one@my.domain",
        ("two@my.domain", "three@my.domain", "four@elsewhere.example", "five@elsewhere.example"),
    ),
    "local part of a local domain": ("three@other.example", ("five@elsewhere.example",)),
    "extension is passed on": ("plus+x@my.domain", ("six+x@elsewhere.example",)),
    "key with its extension": ("plus+known@my.domain", ("seven@elsewhere.example",)),
    "itself, and another": ("self@my.domain", ("eight@elsewhere.example",)),
    "domain to domain, and what stands behind it": (
        "x@old.example",
        ("x@new.example", "x@other.example, ten@elsewhere.example"),
    ),
    "a key before @domain": ("kept@old.example", ("nine@elsewhere.example",)),
    "nothing": ("nobody@my.domain", ()),
}


@pytest.mark.parametrize(("address", "reached"), WAY.values(), ids=WAY)
def test_virtual(address: str, reached: tuple[str, ...]) -> None:
    """Every address that mail comes by counts, in whatever order."""
    assert sorted(reached) == sorted(mail_system(VIRTUAL).reached_from(address).addresses)


@pytest.mark.parametrize(
    ("address", "limit"),
    [
        ("loop@my.domain", "virtual_alias_recursion_limit"),
        ("grow@my.domain", "virtual_alias_expansion_limit"),
    ],
)
def test_loop(address: str, limit: str) -> None:
    """Mail that expands without end is not accepted, so that it leads nowhere."""
    reached = mail_system(VIRTUAL).reached_from(address)
    assert () == reached.addresses
    assert f"it expands past {limit}, 1000" in reached.problem


@pytest.mark.servers
def test_as_cleanup() -> None:
    """A message is queued for the addresses that the expansion ends at, or it is not accepted."""
    require_postfix()
    main = {
        "myorigin": "my.domain",
        "mydestination": "my.domain, other.example, localhost",
        "virtual_alias_domains": "old.example new.example all.example",
        "virtual_alias_maps": "inline:{ " + ", ".join(f"{{ {k} = {v} }}" for k, v in VIRTUAL.items()) + " }",
        "recipient_delimiter": "+",
    }
    hold = {"smtpd_relay_restrictions": "check_client_access static:HOLD, permit_mynetworks, reject"}
    lab = Postfix({"in": hold}, main)
    with lab, lab.session("in") as smtp:
        smtp.ehlo()
        for number, address in enumerate(ASKED):
            smtp.mail(f"a{number}@elsewhere.example")
            smtp.rcpt(address)
            smtp.data()
        queued = {
            message["sender"]: sorted(one["address"] for one in message["recipients"])
            for message in lab.queue("hold")
        }
    system = mail_system(VIRTUAL)
    for number, address in enumerate(ASKED):
        assert ends(system, address) == queued.get(f"a{number}@elsewhere.example", []), address


def ends(system: MailSystem, address: str) -> list[str]:
    """Where the expansion of an address, as a client writes it, ends, in external form."""
    (plain,) = addresses_in(address)
    return sorted(map(quoted, system.finals(plain)))


LOCAL = {
    "staff": "one@elsewhere.example, crew",
    "crew": "two@elsewhere.example, crew, owner-crew",
    "listed": ":include:{folder}/listed",
    "nested": ":include:{folder}/nested",
    "open": ":include:{folder}/open",
    "round": "square",
    "square": "round, three@elsewhere.example",
    "cmd": '"|/bin/false", /dev/null, four@elsewhere.example',
    **{f"deep{number}": f"deep{number + 1}" for number in range(1, 30)},
    "deep30": "five@elsewhere.example",
    "to-virtual": "alias@virtual.example",
}
FILES = {
    "listed": "# nobody@elsewhere.example\nsix@elsewhere.example, seven\nseven@elsewhere.example",
    "nested": ":include:{folder}/nested\n:include:{folder}/listed\n",
    "open": "eight@elsewhere.example\n",
}
LOCALLY: Mapping[str, tuple[str, ...]] = {
    "staff@my.domain": ("one@elsewhere.example", "two@elsewhere.example"),
    "staff+x@other.example": ("one@elsewhere.example", "two@elsewhere.example"),
    "listed@my.domain": ("six@elsewhere.example", "seven@elsewhere.example"),
    "nested@my.domain": ("six@elsewhere.example", "seven@elsewhere.example"),
    "open@my.domain": (),
    "round@my.domain": ("three@elsewhere.example",),
    "cmd@my.domain": ("four@elsewhere.example",),
    "deep1@my.domain": (),
    "deep10@my.domain": ("five@elsewhere.example",),
    "to-virtual@my.domain": ("alias@virtual.example", "nine@elsewhere.example"),
    "staff@elsewhere.example": (),
}


@pytest.fixture
def locally(tmp_path: Path) -> MailSystem:
    """A mail system with LOCAL aliases and FILES."""
    for name, text in FILES.items():
        (tmp_path / name).write_text(text.format(folder=tmp_path))
        (tmp_path / name).chmod(0o666 if name == "open" else 0o644)
    aliases = {key: value.format(folder=tmp_path) for key, value in LOCAL.items()}
    return mail_system({"alias@virtual.example": "nine@elsewhere.example"}, aliases)


@pytest.mark.parametrize(("address", "reached"), LOCALLY.items(), ids=LOCALLY)
def test_local(locally: MailSystem, address: str, reached: tuple[str, ...]) -> None:
    """Aliases of local users are followed as local(8) does, to the addresses that are somewhere else."""
    found = locally.reached_from(address).addresses
    assert sorted(reached) == sorted(
        one for one in found if one.endswith((".example", "x")) and "other" not in one
    )


def test_unread_file(locally: MailSystem, tmp_path: Path) -> None:
    """A file that local(8) would not read is told of."""
    locally.reached_from("open@my.domain")
    assert {f"{tmp_path}/open": f"{tmp_path}/open: everybody may write it"} == locally.unread


# --- lint --main-cf ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Way:
    """Lines of a main.cf, files beside it, entries of the directory; what is said, FOLDER/ left out."""

    main: str
    said: tuple[str, ...]
    files: Mapping[str, str] = field(default_factory=dict)
    entries: str = ""


VIRTUAL_FILE = "virtual_alias_maps = hash:$config_directory/virtual\n"
ALIASES = "alias_maps = hash:$config_directory/aliases\n"
ALIAS_ENTRY = """
dn: cn=alias,ou=lists,dc=example,dc=com
objectClass: organizationalRole
objectClass: extensibleObject
cn: alias
mailLocalAddress: {mail}
{more}
"""
TABLE = """server_host = ldap://127.0.0.1
search_base = ou=lists,dc=example,dc=com
query_filter = (&(cn=alias)(mailLocalAddress=%s))
result_attribute = description
"""
LDAP = "virtual_alias_maps = ldap:$config_directory/table\n"

WAYS: Mapping[str, Way] = {
    "key": Way(
        VIRTUAL_FILE,
        (f"error: virtual:1: virtual_alias_maps: 'every@my.domain' leads to 'all@my.domain', which {RULE}",),
        {"virtual": "every@my.domain all@my.domain\nfine@my.domain\tamy@my.domain\n"},
    ),
    "protected itself": Way(
        VIRTUAL_FILE,
        (),
        {"virtual": "every@my.domain all@my.domain\n"},
        "dn: cn=every,ou=lists,dc=example,dc=com\nobjectClass: groupOfNames\n"
        "objectClass: smtpdAccessControl\ncn: every\nmember: uid=amy,ou=people,dc=example,dc=com\n"
        "mail: every@my.domain\nsmtpdRecipientAccess: insiders_only\n",
    ),
    "a list that lets everybody through": Way(
        VIRTUAL_FILE,
        (),
        {"virtual": "every@my.domain open@my.domain\n"},
        "dn: cn=open,ou=lists,dc=example,dc=com\nobjectClass: groupOfNames\n"
        "objectClass: smtpdAccessControl\ncn: open\nmember: uid=amy,ou=people,dc=example,dc=com\n"
        "mail: open@my.domain\nsmtpdRecipientAccess: permissive\n",
    ),
    "local part alone": Way(
        VIRTUAL_FILE,
        (
            (
                "error: virtual:1: virtual_alias_maps: 'every' leads, as 'every@localhost', to "
                f"'all@my.domain', which {RULE}"
            ),
        ),
        {"virtual": "every all\n"},
    ),
    "domain to domain": Way(
        VIRTUAL_FILE + "virtual_alias_domains = old.example\n",
        (
            (
                "error: virtual:1: virtual_alias_maps: '@old.example' leads, as 'jane@old.example', to "
                "'jane@my.domain', which has a rule (uid=jane,ou=people,dc=example,dc=com), "
                "and has none itself"
            ),
        ),
        {"virtual": "@old.example @my.domain\n"},
    ),
    "domain to a list": Way(
        VIRTUAL_FILE + "virtual_alias_domains = old.example\n",
        (
            (
                "error: virtual:1: virtual_alias_maps: '@old.example' leads, as "
                f"'ldappolicy-lint@old.example', to 'all@my.domain', which {RULE}"
            ),
        ),
        {"virtual": "@old.example all@my.domain\n"},
    ),
    "loop": Way(
        VIRTUAL_FILE,
        (
            (
                "warning: virtual:1: virtual_alias_maps: 'a@my.domain': it expands past "
                "virtual_alias_recursion_limit, 1000: Postfix does not accept mail for it"
            ),
            (
                "warning: virtual:2: virtual_alias_maps: 'b@my.domain': it expands past "
                "virtual_alias_recursion_limit, 1000: Postfix does not accept mail for it"
            ),
        ),
        {"virtual": "a@my.domain b@my.domain, all@my.domain\nb@my.domain a@my.domain, all@my.domain\n"},
    ),
    "aliases, with a file": Way(
        ALIASES,
        (
            (
                "error: aliases:2: alias_maps: 'every' leads, as 'every@localhost', to 'all@my.domain', "
                f"which {RULE}"
            ),
        ),
        {"aliases": "# a comment\nevery: :include:{folder}/list\nfine: amy\n", "list": "all@my.domain\n"},
    ),
    "file that is not there": Way(
        ALIASES,
        (
            (
                "warning: main.cf:7: alias_maps: :include:/nowhere: cannot be read: no such file or "
                "directory: where it leads is not looked at"
            ),
        ),
        {"aliases": "every: :include:/nowhere\n"},
    ),
    "table that is not there": Way(
        VIRTUAL_FILE,
        (
            (
                "warning: main.cf:7: virtual_alias_maps: hash:virtual: virtual: cannot be read: "
                "no such file or directory: where its aliases lead is not looked at"
            ),
        ),
    ),
    "table without a list": Way(
        "virtual_alias_maps = pcre:$config_directory/p, inline:{ { every@my.domain = all@my.domain } }\n",
        (
            f"error: main.cf:7: virtual_alias_maps: 'every@my.domain' leads to 'all@my.domain', which {RULE}",
            (
                "warning: main.cf:7: virtual_alias_maps: pcre:p cannot be listed: where its aliases lead "
                "is not looked at"
            ),
        ),
    ),
    "table of the directory": Way(
        LDAP,
        (f"error: table: virtual_alias_maps: 'every@my.domain' leads to 'all@my.domain', which {RULE}",),
        {"table": TABLE},
        ALIAS_ENTRY.format(mail="Every@my.domain", more="description: all@my.domain"),
    ),
    "table of the directory, DNs followed": Way(
        LDAP,
        (f"error: table: virtual_alias_maps: 'every@my.domain' leads to 'all@my.domain', which {RULE}",),
        {
            "table": TABLE.replace("(mailLocalAddress=%s)", "(|(mailLocalAddress=%u@%d)(uid=%u))")
            + "result_attribute = mail\nspecial_result_attribute = seeAlso\n"
        },
        ALIAS_ENTRY.format(mail="every@my.domain", more="seeAlso: cn=all,ou=lists,dc=example,dc=com"),
    ),
    "table of another domain": Way(
        LDAP,
        (),
        {"table": TABLE + "domain = elsewhere.example\n"},
        ALIAS_ENTRY.format(mail="every@my.domain", more="description: all@my.domain"),
    ),
    "table of another directory": Way(
        LDAP,
        (
            (
                "warning: main.cf:7: virtual_alias_maps: ldap:table cannot be listed: its search_base "
                "'dc=other' is not below 'dc=example,dc=com': where its aliases lead is not looked at"
            ),
        ),
        {"table": TABLE.replace("ou=lists,dc=example,dc=com", "dc=other")},
    ),
    "parameters in main.cf": Way(
        "virtual_alias_maps = proxy:ldap:lists\nlists_search_base = ou=lists,dc=example,dc=com\n"
        "lists_query_filter = (cn=%u)\nlists_result_attribute = description\n",
        (
            (
                "error: lists: virtual_alias_maps: 'alias' leads, as 'alias@localhost', to 'all@my.domain', "
                f"which {RULE}"
            ),
            *(
                f"error: lists: virtual_alias_maps: 'alias@{domain}' leads to 'all@my.domain', which {RULE}"
                for domain in ("localhost", "my.domain", "other.example")
            ),
        ),
        {},
        ALIAS_ENTRY.format(mail="x@my.domain", more="description: all@my.domain"),
    ),
}
SYSTEM = """\
compatibility_level = 3.6
myhostname = mail.my.domain
myorigin = my.domain
mydestination = my.domain, other.example, localhost
recipient_delimiter = +
mynetworks = 127.0.0.0/8 [::1]/128 192.0.2.0/24
"""
CALLS = """\
smtpd_relay_restrictions = permit_mynetworks, reject_unauth_destination
smtpd_recipient_restrictions = check_policy_service inet:127.0.0.1:10040
"""


def said(folder: Path, way: Way, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What `lint --main-cf` says of the alias tables, without the folder."""
    for name, text in way.files.items():
        (folder / name).write_text(text.replace("{folder}", str(folder)))
        os.utime(folder / name, (1000, 1000))
    tree = EXAMPLE.read_text(encoding="utf-8") + "\n" + way.entries
    (folder / "tree.ldif").write_text(tree, encoding="utf-8")
    (folder / "config.toml").write_text(
        '[directory]\nuri = ["ldif:tree.ldif"]\nsearch_base = "dc=example,dc=com"\n'
        'policy_base = "ou=policy,dc=example,dc=com"\n'
    )
    alias_maps = "" if "\nalias_maps" in f"\n{way.main}" else "alias_maps =\n"
    (folder / "main.cf").write_text(SYSTEM + way.main + alias_maps + CALLS)
    (folder / "master.cf").write_text("smtp inet n - y - - smtpd\n")
    run(["-c", str(folder / "config.toml"), "lint", "--main-cf", str(folder / "main.cf")])
    lines = capsys.readouterr().out.replace(f"{folder}/", "").splitlines()
    return [line for line in lines if re.search(r": (virtual_)?alias_maps: ", line)]


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_ways_in(tmp_path: Path, way: Way, capsys: pytest.CaptureFixture[str]) -> None:
    """Each key that leads past a rule is named with its place, and what could not be looked at."""
    assert sorted(way.said) == sorted(said(tmp_path, way, capsys))
