"""`ldappolicy import`: each construct of main.cf, the recipes of Postfix's READMEs, and what is left out.

The folders of main_cf/ each hold a main.cf with its tables; there $config_directory is the folder.
"""

import ipaddress
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ldappolicy.cli import cli, import_main_cf, run
from ldappolicy.cli.import_main_cf import ldif_of
from ldappolicy.entry import Entry
from ldappolicy.errors import InputError
from ldappolicy.importing import Carried, carry_over
from ldappolicy.importing.leaving import leave
from ldappolicy.ldif import format_record, read_records
from ldappolicy.main_cf import read_main_cf
from ldappolicy.oracle.programs import configure, program
from ldappolicy.policy import Table, read_policies
from tests.labs.importing import BASE, FOLDERS, RECIPES, run_import
from tests.labs.ldappolicy import EXAMPLE, Value, merged, toml
from tests.labs.slapd import PLAIN, Slapd, require_slapd

# A mail system of which everything is known.
SYSTEM = """\
compatibility_level = 3.6
myhostname = mx.my.domain
mynetworks = 127.0.0.0/8
mydestination = my.domain
smtpd_relay_restrictions =
"""
TREE = (
    format_record("dc=example,dc=com", [("objectClass", ["domain"]), ("dc", ["example"])])
    + "\n"
    + format_record(BASE, [("objectClass", ["organizationalUnit"]), ("ou", ["policy"])])
)


def carried(folder: Path, text: str, **files: str | bytes) -> Carried:
    """What becomes of SYSTEM with more lines, beside files; a policy needs a list, any will do."""
    for name, content in files.items():
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    some_list = "" if "_restrictions =" in text else "\nsmtpd_data_restrictions = permit\n"
    (folder / "main.cf").write_text(SYSTEM + text + some_list)
    # Postfix waits until a file that it reads is two seconds old.
    for path in (folder / "main.cf", *(folder / name for name in files)):
        os.utime(path, (1000, 1000))
    return carry_over(read_main_cf(folder / "main.cf"), BASE)


def entries(result: Carried) -> dict[str, Entry]:
    """The entries by their cn; the DN where that is not enough."""
    return {
        dn.removesuffix(f",{BASE}").removeprefix("cn="): Entry(dn, values) for dn, values in result.records
    }


def relative(folder: Path, result: Carried) -> list[str]:
    """What was left out, with files relative to the folder."""
    return [f"{where}: {text}".replace(f"{folder}/", "") for where, text in result.left_out]


# --- lists and classes ----------------------------------------------------------------------------

LISTS: Mapping[str, tuple[str, str, str]] = {
    "white space": ("smtpd_helo_restrictions = permit\n  reject", "smtpdHeloRestrictions", "permit, reject"),
    "client": ("smtpd_client_restrictions = reject", "smtpdClientRestrictions", "reject"),
    "sender": ("smtpd_sender_restrictions = reject", "smtpdSenderRestrictions", "reject"),
    "relay": ("smtpd_relay_restrictions = reject", "smtpdRelayRestrictions", "reject"),
    "recipient": ("smtpd_recipient_restrictions = reject", "smtpdRecipientRestrictions", "reject"),
    "data": ("smtpd_data_restrictions = reject", "smtpdDataRestrictions", "reject"),
    "end of data": ("smtpd_end_of_data_restrictions = reject", "smtpdEndOfDataRestrictions", "reject"),
    "etrn": ("smtpd_etrn_restrictions = reject", "smtpdEtrnRestrictions", "reject"),
    "names": (
        "x = reject\nsmtpd_helo_restrictions = permit_mynetworks $x",
        "smtpdHeloRestrictions",
        "permit_mynetworks, reject",
    ),
    "warn_if_reject": (
        "smtpd_helo_restrictions = Warn_If_Reject, reject",
        "smtpdHeloRestrictions",
        "Warn_If_Reject reject",
    ),
    "argument": (
        "smtpd_helo_restrictions = reject_rbl_client a.example=127.0.0.[2;4..8] reject_rhsbl_helo b.example",
        "smtpdHeloRestrictions",
        "reject_rbl_client a.example=127.0.0.[2;4..8], reject_rhsbl_helo b.example",
    ),
    "inline and static": (
        "smtpd_sender_restrictions = check_sender_access inline:{a=OK, {b = REJECT no}}, static:{DEFER x y}",
        "smtpdSenderRestrictions",
        "check_sender_access inline:{a=OK, {b = REJECT no}}, static:{DEFER x y}",
    ),
    "fail": (
        "smtpd_sender_restrictions = check_sender_access fail:x",
        "smtpdSenderRestrictions",
        "check_sender_access fail:x",
    ),
    "proxy": ("smtpd_helo_restrictions = proxy:static:OK", "smtpdHeloRestrictions", "static:OK"),
    "table": (
        "smtpd_helo_restrictions = CHECK_client_access hash:$config_directory/t, lmdb:$config_directory/t",
        "smtpdHeloRestrictions",
        "CHECK_client_access ldap:t, ldap:t",
    ),
    "networks": ("", "smtpdMynetworks", "127.0.0.0/8"),
    "no networks": ("mynetworks =", "smtpdMynetworks", "!0.0.0.0/0"),
    "networks of a file": (
        "mynetworks = !$config_directory/n, 192.0.2.0/24",
        "smtpdMynetworks",
        "!192.0.2.1, 192.0.2.9, [::1], 192.0.2.0/24",
    ),
    "networks of a table": (
        "mynetworks = hash:$config_directory/nt !cidr:$config_directory/nc",
        "smtpdMynetworks",
        "friend.example, 192.0.2.7, [2001:db8::7], [2001:db8::8], !10.0.0.0/8, ![2001:db8::]/32",
    ),
    "origin": ("", "smtpdMyorigin", "mx.my.domain"),
    "origin of a file": ("myorigin = $config_directory/mailname", "smtpdMyorigin", "mail.my.domain"),
    "delimiter": ("recipient_delimiter = +-", "smtpdRecipientDelimiter", "+-"),
    "parents": ("", "smtpdParentDomainMatchesSubdomains", "TRUE"),
    "no parents": (
        "parent_domain_matches_subdomains = mynetworks",
        "smtpdParentDomainMatchesSubdomains",
        "FALSE",
    ),
    "class": ("smtpd_restriction_classes = c\nc = permit", "smtpdHeloRestrictions", ""),
}
FILES = {
    "t": "a b\n",
    "n": "# ours\n192.0.2.1 !192.0.2.9\n\n![::1]\n",
    "nt": "friend.example x\n192.0.2.7 x\n2001:db8::7 x\n192.0 never\n"
    "2001:DB8::8 folded\n2001:db8:0::9 never\n.x.example never\n",
    "nc": "10.0.0.0/8 x\n2001:db8::/32 x\n",
    "mailname": "mail.my.domain\n",
}


@pytest.mark.parametrize(("text", "attribute", "value"), LISTS.values(), ids=LISTS)
def test_attribute_of_the_policy(tmp_path: Path, text: str, attribute: str, value: str) -> None:
    """Every parameter becomes its attribute, and nothing is left out."""
    result = carried(tmp_path, text, **FILES)
    assert (value,) * bool(value) == entries(result)["default"].values(attribute)
    assert [] == result.left_out


DOMAINS: Mapping[str, tuple[str, str]] = {
    "destination": ("mydestination = A.example, .b.example", "a.example"),
    "nothing": ("mydestination =", ""),
    "virtual": (
        "virtual_alias_domains = v.example\nvirtual_mailbox_domains = w.example",
        "my.domain v.example w.example",
    ),
    "keys of virtual_alias_maps": ("virtual_alias_maps = hash:$config_directory/v", "my.domain v.example"),
    "keys of virtual_mailbox_maps": (
        "virtual_mailbox_maps = inline:{w.example=x, a@w.example=y}",
        "my.domain w.example",
    ),
    "relay": ("relay_domains = r.example", "my.domain r.example .r.example"),
    "relay without parents": (
        "parent_domain_matches_subdomains =\nmynetworks = 127.0.0.1\nrelay_domains = r.example, .s.example",
        "my.domain r.example .s.example",
    ),
    "relay, in a table": ("relay_domains = texthash:$config_directory/r", "my.domain r.example .r.example"),
    "file": ("mydestination = localhost $config_directory/d", "localhost d.example"),
    "literal": ("mydestination = localhost, [192.0.2.1]", "localhost [192.0.2.1]"),
}


@pytest.mark.parametrize(("text", "keys"), DOMAINS.values(), ids=DOMAINS)
def test_local_domains(tmp_path: Path, text: str, keys: str) -> None:
    """The four kinds of own domains are one table."""
    result = carried(
        tmp_path, text, v="v.example x\na@b x\n@c x\n", r="r.example x\n.x.example x\n", d="d.example\n"
    )
    found = entries(result)
    assert ("ldap:local_domains",) == found["default"].values("smtpdLocalDomains")
    assert tuple(f"{key} OK" for key in keys.split()) == found["local_domains"].values("smtpdAccess")
    assert [] == result.left_out


def test_classes(tmp_path: Path) -> None:
    """All classes that are defined are entries of their own, also where a DN would be taken."""
    result = carried(
        tmp_path, "smtpd_restriction_classes = b, a b default A\nb = permit\na = b\nA = reject\ndefault = a\n"
    )
    found = {name: entry.values("smtpdRestrictions") for name, entry in entries(result).items()}
    assert {
        "b": ("permit",),
        "a": ("b",),
        "default,ou=default-2": ("a",),
        "A,ou=A-2": ("reject",),
    } == {name: body for name, body in found.items() if body}
    assert () == read_policies(entries(result).values()).faults


# --- tables ---------------------------------------------------------------------------------------

INDEXED = """\
# comment
plain REJECT no
folded@Example.Com
   550 5.7.1 two
   lines
"john doe"@x   OK
"a \\" b"@x\tDUNNO
<>\tclass_a,  class_b
# at the end
"""


@pytest.mark.parametrize("kind", ["hash", "btree", "lmdb", "dbm", "cdb", "sdbm", "texthash", "proxy:hash"])
def test_indexed_table(tmp_path: Path, kind: str) -> None:
    """A table is read from its text, whatever postmap(1) makes of that."""
    result = carried(tmp_path, f"smtpd_helo_restrictions = {kind}:$config_directory/t", t=INDEXED)
    assert (
        "plain REJECT no",
        "folded@Example.Com 550 5.7.1 two   lines",
        '"john doe"@x OK',
        '"a \\" b"@x DUNNO',
        "<> class_a,  class_b",
    ) == entries(result)["t"].values("smtpdAccess")
    assert ([], []) == (result.left_out, result.warnings)


def test_one_file_twice(tmp_path: Path) -> None:
    """A file that two lists name is one table; as another kind of table it is another."""
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "t").write_text("x OK\n")
    text = "smtpd_helo_restrictions = hash:{0}/t, lmdb:{0}/t, cidr:{0}/t, hash:{0}/more/t, hash:{0}/a,b"
    text = text.replace(", hash:{0}/a,b", " hash:{0}/ü").replace("{0}", "$config_directory")
    result = carried(tmp_path, text, t="192.0.2.1 OK\n", ü="x OK\n")
    helo = "ldap:t, ldap:t, ldap:t-2, ldap:t-3, ldap:table"
    assert (helo,) == entries(result)["default"].values("smtpdHeloRestrictions")
    assert ("{1} 192.0.2.1/32 OK",) == entries(result)["t-2"].values("smtpdAccess")


WARNED: Mapping[str, tuple[str | bytes, str]] = {
    "no value": (
        "a OK\nb\n",
        "t:2: 'b' has no value, expected key, white space, value, Postfix ignores the line",
    ),
    "quote": ('a OK\nb"c OK\n', "t:2: unbalanced '\"' in 'b\"c OK', Postfix ignores the line"),
    "twice": ("a OK\nA REJECT\n", "t:2: key 'A' stands at t:1 already, that one counts"),
    "bytes": (b"a OK\n\xe9 OK\n", "t:2: '\\udce9 OK' is not UTF-8, Postfix ignores the line"),
    "continuation of nothing": ("  x\na OK\n", "t:1: 'x' continues no line, it is ignored"),
}


@pytest.mark.parametrize(("text", "said"), WARNED.values(), ids=WARNED)
def test_line_that_postfix_ignores(tmp_path: Path, text: str | bytes, said: str) -> None:
    """What postmap(1) warns of and ignores is warned of and ignored."""
    result = carried(tmp_path, "smtpd_helo_restrictions = hash:$config_directory/t", t=text)
    assert [said] == [warning.replace(f"{tmp_path}/", "") for warning in result.warnings]
    assert ("a OK",) == entries(result)["t"].values("smtpdAccess")
    assert [] == result.left_out


def test_table_older_than_its_text(tmp_path: Path) -> None:
    """What postmap(1) has not made a table of yet is not what Postfix sees."""
    index = tmp_path / "t.db"
    index.write_bytes(b"")
    os.utime(index, (0, 0))
    result = carried(tmp_path, "smtpd_helo_restrictions = hash:$config_directory/t", t="a OK\n")
    assert [f"{tmp_path}/t: is newer than t.db: Postfix still has what that one holds"] == result.warnings


CIDR: Mapping[str, tuple[str, list[str]]] = {
    "order": ("10.0.0.0/8 OK\n10.1.0.0/16 REJECT a b\n", ["{1} 10.0.0.0/8 OK", "{2} 10.1.0.0/16 REJECT a b"]),
    "address": ("192.0.2.1 OK\n[2001:db8::1] OK\n", ["{1} 192.0.2.1/32 OK", "{2} 2001:db8::1/128 OK"]),
    "exclusion": (
        "!10.0.0.0/8 OK\n! ! 10.0.0.0/8\tREJECT\n",
        ["{1} !10.0.0.0/8 OK", "{2} 10.0.0.0/8 REJECT"],
    ),
    "if": (
        "IF 10.0.0.0/8\n10.1.0.0/16 OK\n0.0.0.0/0 REJECT\n192.0.2.0/24 OK\n::/0 OK\nENDIF\n",
        ["{1} 10.1.0.0/16 OK", "{2} 10.0.0.0/8 REJECT"],
    ),
    "if not": ("if !0.0.0.0/1\n0.0.0.0/0 OK\nendif\n", ["{1} 128.0.0.0/1 OK"]),
    "nested": (
        "if 10.0.0.0/8\nif !10.128.0.0/9\n0.0.0.0/0 OK\nendif\nendif\n::/0 x\n",
        ["{1} 10.0.0.0/9 OK", "{2} ::/0 x"],
    ),
    "not within if": ("if 10.0.0.0/30\n!10.0.0.1 OK\nendif\n", ["{1} 10.0.0.2/31 OK", "{2} 10.0.0.0/32 OK"]),
    "if without endif": ("if 10.0.0.0/8\n0.0.0.0/0 OK\n", ["{1} 10.0.0.0/8 OK"]),
}


@pytest.mark.parametrize(("text", "lines"), CIDR.values(), ids=CIDR)
def test_cidr_table(tmp_path: Path, text: str, lines: list[str]) -> None:
    """Lines keep their order by number; if blocks become lines of their own."""
    result = carried(
        tmp_path, "smtpd_helo_restrictions = check_client_access cidr:$config_directory/t", t=text
    )
    assert sorted(lines) == sorted(entries(result)["t"].values("smtpdAccess"))
    assert ([], []) == (result.left_out, result.warnings)


def test_inline_cidr_table(tmp_path: Path) -> None:
    """A cidr table may stand in main.cf (Postfix 3.7)."""
    result = carried(tmp_path, "smtpd_client_restrictions = cidr:{{10.0.0.0/8 OK}, {::/0 REJECT no}}")
    assert ("{1} 10.0.0.0/8 OK", "{2} ::/0 REJECT no") == entries(result)["inline"].values("smtpdAccess")


CIDR_WARNED = {
    "bits": (
        "10.0.0.1/8 OK",
        "'10.0.0.1/8' is not a network: 10.0.0.1/8 has host bits set: Postfix skips the line",
    ),
    "name": ("x.example OK", "Postfix skips the line"),
    "a no-break space": ("10.1.2.3\u00a0OK", "Postfix skips the line"),
    "no value": ("10.0.0.0/8", "'10.0.0.0/8' has no value: Postfix skips the line"),
    "endif": ("endif", "'endif' without 'if': Postfix skips the line"),
    "behind endif": ("endif 10.0.0.0/8", "text '10.0.0.0/8' behind 'endif': Postfix skips the line"),
    "if": ("if", "Postfix skips the line"),
}


@pytest.mark.parametrize(("line", "said"), CIDR_WARNED.values(), ids=CIDR_WARNED)
def test_cidr_line_that_postfix_skips(tmp_path: Path, line: str, said: str) -> None:
    """What cidr_table(5) skips with a warning is skipped with a warning."""
    result = carried(tmp_path, "smtpd_client_restrictions = cidr:$config_directory/t", t=f"{line}\n::/0 OK\n")
    assert ("{1} ::/0 OK",) == entries(result)["t"].values("smtpdAccess")
    (warning,) = result.warnings
    assert warning.startswith(f"{tmp_path}/t:1: ")
    assert warning.endswith(said)


def test_bytes_without_smtputf8(tmp_path: Path) -> None:
    """Without smtputf8_enable Postfix finds keys that are not UTF-8: such a table is left out."""
    (tmp_path / "t").write_bytes(b"sp\xe4mmer@bad.example REJECT\nok@bad.example OK\n")
    text = "smtpd_sender_restrictions = check_sender_access texthash:$config_directory/t\nsmtputf8_enable = "
    off, on = (carried(tmp_path, text + value) for value in ("no", "yes"))
    assert "t" not in entries(off)
    assert ["t:1"] == [where.removeprefix(f"{tmp_path}/") for where, _ in off.left_out][:1]
    assert ("ok@bad.example OK",) == entries(on)["t"].values("smtpdAccess")


# Small numbers, so that networks hold one another.
SMALL = st.builds(
    lambda bits, length: str(ipaddress.ip_network((0x0A000000 + bits, 32 - length), strict=False)),
    st.integers(0, 7),
    st.integers(0, 3),
)
LINES = st.lists(
    st.one_of(
        st.builds("{}{} R{}".format, st.sampled_from(["", "", "!"]), SMALL, st.integers(0, 9)),
        st.builds("{} {}{}".format, st.just("if"), st.sampled_from(["", "!"]), SMALL),
        st.just("endif"),
        st.just("2001:db8::/32 R6"),
    ),
    min_size=1,
    max_size=9,
)


@pytest.fixture(scope="module")
def postmap() -> str:
    """Postfix's command; a skip where it is not installed."""
    if (found := shutil.which(program("postmap"))) is None:
        pytest.skip("Postfix is not installed: apt-get install postfix")
    return found


@pytest.mark.servers
@given(LINES)
def test_cidr_as_postmap(tmp_path_factory: pytest.TempPathFactory, postmap: str, lines: list[str]) -> None:
    """For every address, the table of the directory gives what postmap -q gives."""
    folder = tmp_path_factory.mktemp("cidr")
    result = carried(
        folder, "smtpd_client_restrictions = cidr:$config_directory/t", t="\n".join(lines) + "\n"
    )
    table = read_policies(entries(result).values()).tables["t"]
    assert isinstance(table, Table)
    addresses = [ipaddress.ip_address(f"10.0.0.{last}") for last in range(9)] + [
        ipaddress.ip_address("2001:db8::1")
    ]
    ours = {
        str(address): next((line.action.text for line in table.cidr if line.matches(address)), None)
        for address in addresses
    }
    assert ask_postmap(postmap, folder, f"cidr:{folder}/t", list(ours)) == ours


def ask_postmap(postmap: str, folder: Path, table: str, keys: list[str]) -> dict[str, str | None]:
    """What postmap -q finds for each key; its status says whether it found them all."""
    own = folder / "own"
    own.mkdir()
    configure(own, {"compatibility_level": "3.6"})
    done = subprocess.run(
        [postmap, "-c", str(own), "-q", "-", table],
        input="".join(f"{key}\n" for key in keys),
        capture_output=True,
        text=True,
        check=False,
    )
    found = dict(line.split("\t", 1) for line in done.stdout.splitlines())
    return {key: found.get(key) for key in keys}


@pytest.mark.servers
def test_indexed_as_postmap(tmp_path: Path, postmap: str) -> None:
    """For each key, the table of the directory has what postmap -q finds."""
    result = carried(tmp_path, "smtpd_helo_restrictions = texthash:$config_directory/t", t=INDEXED)
    table = read_policies(entries(result).values()).tables["t"]
    assert isinstance(table, Table)
    ours = {key: action.text for key, action in table.parts[0].lines.items()}
    assert 5 == len(ours)
    assert ours == ask_postmap(postmap, tmp_path, f"texthash:{tmp_path}/t", list(ours))


# --- what is left out -----------------------------------------------------------------------------

# Text, what becomes of the helo list, what is said.
LEFT_OUT: Mapping[str, tuple[str, str, str]] = {
    "a table in braces": (
        "check_sender_access {static:OK}",
        "check_sender_access {postfix-static:OK}",
        "main.cf:6: table {static:OK} cannot be carried over: it is an error when reached",
    ),
    "inline with text behind a brace": (
        "check_sender_access inline:{{a@b=REJECT x}y}",
        "check_sender_access inline:{{a@b=REJECT x}y}",
        "main.cf:6: '{a@b=REJECT x}y' in an inline: table has text behind its brace",
    ),
    "inline with white space in a key": (
        "check_sender_access inline:{{k k = OK}}",
        "check_sender_access inline:{{k k = OK}}",
        "main.cf:6: '{k k = OK}' in an inline: table is not of the form key=value",
    ),
    "regexp": (
        "check_helo_access regexp:/x, reject",
        "check_helo_access regexp:/x, reject",
        "main.cf:6: table regexp:/x cannot be carried over: it is an error when reached",
    ),
    "mysql behind proxy": (
        "proxy:mysql:/x",
        "proxy:mysql:/x",
        "main.cf:6: table proxy:mysql:/x cannot be carried over: it is an error when reached",
    ),
    "ldap": (
        "ldap:/x",
        "postfix-ldap:/x",
        (
            "main.cf:6: table ldap:/x cannot be carried over: it is an error when reached "
            "(it is not asked for an address or a login)"
        ),
    ),
    "unionmap": (
        "unionmap:{hash:/a, hash:/b}",
        "unionmap:{hash:/a, hash:/b}",
        "main.cf:6: table unionmap:{hash:/a, hash:/b} cannot be carried over: it is an error when reached",
    ),
    "no file": (
        "hash:/nobody/x",
        "hash:/nobody/x",
        "main.cf:6: hash:/nobody/x: /nobody/x: cannot be read: no such file or directory",
    ),
    "policy service": (
        "check_policy_service { unix:x, timeout=3s }, reject",
        "check_policy_service { unix:x, timeout=3s }, reject",
        (
            "main.cf:6: smtpd_helo_restrictions: check_policy_service works in main.cf only: "
            "it is an error when reached (--leave-in-main-cf check_policy_service leaves it there)"
        ),
    ),
    "mx": (
        "check_sender_mx_access hash:/x",
        "check_sender_mx_access hash:/x",
        (
            "main.cf:6: smtpd_helo_restrictions: check_sender_mx_access works in main.cf only: "
            "it is an error when reached (--leave-in-main-cf check_sender_mx_access leaves it there)"
        ),
    ),
    "removed": (
        "reject_maps_rbl",
        "reject_maps_rbl",
        (
            "main.cf:6: smtpd_helo_restrictions: reject_maps_rbl was removed from Postfix 3.9: "
            "it is an error when reached"
        ),
    ),
    "cidr that is no table": (
        "cidr:{10.0.0.0/8 OK}",
        "cidr:{10.0.0.0/8 OK}",
        "main.cf:6: cidr:{10.0.0.0/8 OK} is no table, expected cidr:{{network action}, ...}",
    ),
    "cidr that is not UTF-8": (
        "cidr:$config_directory/c",
        "cidr:FOLDER/c",
        "c:1: 'caf\\udce9' is not UTF-8",
    ),
    "inline": (
        "inline:{a}",
        "inline:{a}",
        "main.cf:6: 'a' in an inline: table is not of the form key=value",
    ),
    "no argument": (
        "reject, check_helo_access",
        "reject, check_helo_access",
        (
            f"main.cf:6: cn=default,{BASE}: smtpdHeloRestrictions: "
            "check_helo_access is followed by nothing, expected type:table at character 9"
        ),
    ),
    "twice in texthash": (
        "texthash:$config_directory/t",
        "texthash:FOLDER/t",
        "t:2: key 'A' stands at t:1 already: Postfix does not open such a table",
    ),
    "relative path": (
        "hash:t",
        "hash:t",
        (
            "main.cf:6: hash:t has a relative path, which Postfix reads below queue_directory, "
            "expected an absolute one"
        ),
    ),
    "escape outside of quotes": (
        "hash:$config_directory/u",
        "hash:FOLDER/u",
        "u:1: key 'a\\\\ b' of hash:u cannot be a line of a table in the directory",
    ),
    "owners": (
        "reject_sender_login_mismatch",
        "reject_sender_login_mismatch",
        "main.cf: smtpd_sender_login_maps: who owns an address is told by the directory (smtpdSendAs, mail)",
    ),
}


@pytest.mark.parametrize(("text", "becomes", "said"), LEFT_OUT.values(), ids=LEFT_OUT)
def test_left_out_of_a_list(tmp_path: Path, text: str, becomes: str, said: str) -> None:
    """What cannot be carried is named, and keeps its place, where it closes."""
    result = carried(
        tmp_path, f"smtpd_helo_restrictions = {text}\n", t="a OK\nA OK\n", u="a\\ b OK\n", c=b"::/0 caf\xe9\n"
    )
    assert [said] == relative(tmp_path, result)
    (helo,) = entries(result)["default"].values("smtpdHeloRestrictions")
    assert becomes == helo.replace(str(tmp_path), "FOLDER")


@pytest.mark.parametrize("text", [text for text, becomes, _ in LEFT_OUT.values() if ":" in becomes])
def test_left_out_closes(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
    """Whoever reaches what was left out gets a server configuration error, not a permission."""
    carried(
        tmp_path,
        f"smtpd_recipient_restrictions = {text}\n",
        t="a OK\nA OK\n",
        u="a\\ b OK\n",
        c=b"::/0 caf\xe9\n",
    )
    _, ldif, _ = run_import(tmp_path / "main.cf", capsys)
    said = decided(tmp_path, capsys, ldif, "sender=a@b.example", "recipient=a@my.domain", "helo_name=x")
    assert "action=451 4.3.5 Server configuration error" == said


# Text, the attribute that is not there, what is said.
UNKNOWN: Mapping[str, tuple[str, str, str]] = {
    "file of networks": (
        "mynetworks = 10.0.0.0/8 /nobody",
        "smtpdMynetworks",
        "main.cf:6: /nobody: cannot be read: no such file or directory",
    ),
    "table of networks": (
        "mynetworks = mysql:/x",
        "smtpdMynetworks",
        "main.cf:6: mynetworks: mysql:/x cannot be carried over",
    ),
    "bare IPv6": (
        "mynetworks = ::1/128",
        "smtpdMynetworks",
        "main.cf:6: mynetworks: ::1/128 cannot be carried over",
    ),
    "bits": (
        "mynetworks = 10.0.0.1/8",
        "smtpdMynetworks",
        "main.cf:6: mynetworks: '10.0.0.1/8' is not a network: 10.0.0.1/8 has host bits set",
    ),
    "names without parents": (
        "mynetworks = a.example\nparent_domain_matches_subdomains = smtpd_access_maps",
        "smtpdMynetworks",
        "main.cf:6: mynetworks: 'a.example' covers no subdomains there (parent_domain_matches_subdomains)",
    ),
    "file in itself": (
        "mynetworks = $config_directory/loop",
        "smtpdMynetworks",
        "loop:1: 'LOOP' is read from 5 files within one another",
    ),
    "an indented line": (
        "mynetworks = $config_directory/indented",
        "smtpdMynetworks",
        "indented:1: begins with white space: versions of Postfix read it differently",
    ),
    "an indented comment": (
        "relay_domains = $config_directory/commented",
        "smtpdLocalDomains",
        "commented:2: begins with white space: versions of Postfix read it differently",
    ),
    "a pipe": (
        "relay_domains = $config_directory/pipe",
        "smtpdLocalDomains",
        "main.cf:6: pipe: cannot be read: is no file",
    ),
    "a NUL": (
        "relay_domains = $config_directory/zero",
        "smtpdLocalDomains",
        "main.cf:6: zero: cannot be read: line 2 holds a NUL",
    ),
    "a default of Postfix": (
        "mynetworks = ${mail_version?10.0.0.0/8}",
        "smtpdMynetworks",
        "main.cf:6: mynetworks needs mail_version, which is not set: only the host knows it",
    ),
    "destination": (
        "mydestination = localhost, pgsql:/x",
        "smtpdLocalDomains",
        "main.cf:6: mydestination: pgsql:/x cannot be carried over",
    ),
    "not this destination": (
        "mydestination = !a.example",
        "smtpdLocalDomains",
        "main.cf:6: mydestination: '!a.example' cannot be said in a table",
    ),
    "users": (
        "virtual_mailbox_maps = ldap:users",
        "smtpdLocalDomains",
        "main.cf: virtual_mailbox_domains: ldap:users cannot be carried over",
    ),
    "static": (
        "relay_domains = static:all",
        "smtpdLocalDomains",
        "main.cf:6: relay_domains: static:all cannot be carried over",
    ),
    "mailname": (
        "myorigin = /nobody",
        "smtpdMyorigin",
        "main.cf:6: myorigin: /nobody: cannot be read: no such file or directory",
    ),
}


@pytest.mark.parametrize(("text", "attribute", "said"), UNKNOWN.values(), ids=UNKNOWN)
def test_whole_or_not_at_all(tmp_path: Path, text: str, attribute: str, said: str) -> None:
    """Networks, domains and origin are never carried by half: Postfix evaluates what needs them."""
    loop = tmp_path / "loop"
    loop.write_text(f"{loop}\n")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").write_text("a.example\nb.example\0\n")
    (tmp_path / "indented").write_text(" !10.66.0.0/16\n10.0.0.0/8\n")
    (tmp_path / "commented").write_text("# fine\n  # a.example\nb.example\n  c.example\n")
    result = carried(tmp_path, text)
    assert () == entries(result)["default"].values(attribute)
    assert said == relative(tmp_path, result)[0].replace(str(loop), "LOOP").replace("'loop'", "'LOOP'")


def test_what_only_the_host_knows(tmp_path: Path) -> None:
    """Networks and names of a host that main.cf does not say are left to Postfix."""
    (tmp_path / "main.cf").write_text("compatibility_level = 3.6\nsmtpd_helo_restrictions = $myhostname")
    result = carry_over(read_main_cf(tmp_path / "main.cf"), BASE)
    assert [
        (
            "main.cf:2: smtpd_helo_restrictions needs myhostname, which is not set: "
            "the list is an error when reached"
        ),
        "main.cf: mynetworks is not set: only the host knows it, and Postfix there",
        "main.cf: myorigin needs myhostname, which is not set: only the host knows it",
        "main.cf: mydestination needs mydomain, myhostname, which is not set: only the host knows it",
    ] == relative(tmp_path, result)
    policy = entries(result)["default"]
    assert ("needs_myhostname",) == policy.values("smtpdHeloRestrictions")
    assert ("permit_mynetworks, permit_sasl_authenticated, defer_unauth_destination",) == policy.values(
        "smtpdRelayRestrictions"
    )


DIFFERENT = {
    "allow_percent_hack": "no",
    "allow_untrusted_routing": "YES",
    "append_dot_mydomain": "yes",
    "resolve_dequoted_address": "no",
    "smtpd_delay_reject": "no",
    "smtpd_null_access_lookup_key": "null",
    "smtpd_relay_before_recipient_restrictions": "no",
    "swap_bangpath": "no",
}
BOTH = "".join(f"smtpd_{name}_restrictions = permit\n" for name in ("relay", "recipient", "helo"))


@pytest.mark.parametrize("parameter", DIFFERENT)
def test_parameters_that_change_decisions(tmp_path: Path, parameter: str) -> None:
    """A parameter that no policy carries is named where it is not what a policy rests on."""
    assert [] == carried(tmp_path, BOTH).left_out
    result = carried(tmp_path, f"{BOTH}{parameter} = {DIFFERENT[parameter]}\n")
    (said,) = relative(tmp_path, result)
    assert said.startswith(f"main.cf:9: a policy rests on {parameter} = ")


def test_parameters_that_change_nothing(tmp_path: Path) -> None:
    """The order of two lists is nothing where one is empty; reply codes are Postfix's own all the same."""
    text = "smtpd_relay_before_recipient_restrictions = no\nsmtpd_delay_reject = no\n"
    text += "smtpd_recipient_restrictions = reject\n"
    more = "reject_code = 550\naccess_map_reject_code = 550\nsoft_bounce = yes\nappend_at_myorigin = no\n"
    result = carried(tmp_path, text + more)
    assert [] == result.left_out
    assert () == entries(result)["default"].values("smtpdMyorigin")


def test_parents_that_only_the_host_knows(tmp_path: Path) -> None:
    """What parent_domain_matches_subdomains says is known, or named."""
    (tmp_path / "main.cf").write_text(
        "compatibility_level = 3.6\nparent_domain_matches_subdomains = $mynetworks\n"
    )
    result = carry_over(read_main_cf(tmp_path / "main.cf"), BASE)
    said = "parent_domain_matches_subdomains needs mynetworks, which is not set: only the host knows it"
    assert f"main.cf:2: {said}" in relative(tmp_path, result)
    assert () == entries(result)["default"].values("smtpdParentDomainMatchesSubdomains")


def test_class_that_is_not_defined(tmp_path: Path) -> None:
    """Postfix does not start with a class that is not defined, or has no value."""
    result = carried(tmp_path, "smtpd_restriction_classes = a b\na =\n")
    said = "is not defined: Postfix does not start, here it is an error when reached"
    assert [f"main.cf:6: class {name!r} {said}" for name in "ab"] == relative(tmp_path, result)


def test_class_without_restrictions(tmp_path: Path) -> None:
    """One that has only commas is empty, as in Postfix: it says nothing, and its caller goes on."""
    result = carried(tmp_path, "smtpd_restriction_classes = a\na = ,\nsmtpd_helo_restrictions = a, reject\n")
    assert [] == relative(tmp_path, result)
    assert ("check_client_access static:DUNNO",) == entries(result)["a"].values("smtpdRestrictions")


# --- ldap_table(5): who is in a group -------------------------------------------------------------

INTERNS = "cn=interns,ou=groups,dc=example,dc=com"
STAFF = "cn=staff,ou=groups,dc=example,dc=com"
BY_MEMBER_OF = f"query_filter = (&(mail=%s)(memberOf={INTERNS}))\nresult_attribute = mail\n"
IN_CHAIN = "1.2.840.113556.1.4.1941"

GROUP_TABLES = {
    "memberOf": ("sender", BY_MEMBER_OF + "result_format = local_only\n", (INTERNS,)),
    "of one of two": (
        "sender",
        (
            "query_filter = (&(|(mail=%s)(proxyAddresses=smtp:%s))"
            f"(|(memberOf={INTERNS})(memberOf={STAFF})))\n"
            "result_attribute = cn\nresult_format = local_only\n"
        ),
        (INTERNS, STAFF),
    ),
    "at any depth": (
        "recipient",
        (
            f"query_filter = (&(objectClass=user)(mail=%s)(memberOf:{IN_CHAIN}:={INTERNS}))\n"
            "result_attribute = mail\nresult_format = local_only\n"
        ),
        (INTERNS,),
    ),
    "a login": (
        "sasl",
        (
            f"query_filter = (&(uid=%s)(memberOf={INTERNS}))\nresult_attribute = uid\n"
            "result_format = local_only\n"
        ),
        (INTERNS,),
    ),
    "by member": (
        "sasl",
        (
            f"search_base = {INTERNS}\nscope = base\n"
            "query_filter = (member=uid=%s,ou=people,dc=example,dc=com)\n"
            "result_attribute = cn\nresult_format = local_only\n"
        ),
        (INTERNS,),
    ),
}


@pytest.mark.parametrize(("check", "text", "groups"), GROUP_TABLES.values(), ids=GROUP_TABLES)
def test_members_of_a_group(tmp_path: Path, check: str, text: str, groups: tuple[str, ...]) -> None:
    """A table that gives the members of a group one action is smtpdAccessMember, and said to be."""
    lists = f"smtpd_{check if check != 'sasl' else 'sender'}_restrictions"
    more = f"{lists} = check_{check}_access ldap:{tmp_path}/interns.cf\n"
    more += "smtpd_restriction_classes = local_only\nlocal_only = reject\n"
    result = carried(tmp_path, more, **{"interns.cf": text})
    assert [] == relative(tmp_path, result)
    table = entries(result)["interns.cf"]
    assert groups == table.values("smtpdAccessMember")
    assert ("local_only",) == table.values("smtpdAccessAction")
    assert any("carried over as the members" in warning for warning in result.warnings)


NO_GROUP_TABLES = {
    "no group": "query_filter = (mail=%s)\nresult_attribute = mail\nresult_format = OK\n",
    "more": BY_MEMBER_OF.replace("(&", "(&(description=x)") + "result_format = OK\n",
    "not": BY_MEMBER_OF.replace(f"(memberOf={INTERNS})", f"(!(memberOf={INTERNS}))") + "result_format = OK\n",
    "a part of the address": BY_MEMBER_OF.replace("%s", "%u") + "result_format = OK\n",
    "another attribute": BY_MEMBER_OF.replace("mail=%s", "cn=%s") + "result_format = OK\n",
    "a login as address": BY_MEMBER_OF.replace("mail=%s", "uid=%s") + "result_format = OK\n",
    "each its own": BY_MEMBER_OF + "result_format = %s\n",
    "not for everybody": BY_MEMBER_OF.replace("= mail\n", "= mobile\n") + "result_format = OK\n",
    "a domain": BY_MEMBER_OF + "result_format = OK\ndomain = my.domain\n",
    "follows": BY_MEMBER_OF + "result_format = OK\nspecial_result_attribute = member\n",
    "no file": None,
}


@pytest.mark.parametrize("text", NO_GROUP_TABLES.values(), ids=NO_GROUP_TABLES)
def test_what_is_more_than_members_of_a_group(tmp_path: Path, text: str | None) -> None:
    """Keeps its place, where it closes."""
    more = f"smtpd_sender_restrictions = check_sender_access ldap:{tmp_path}/t.cf\n"
    result = carried(tmp_path, more, **({} if text is None else {"t.cf": text}))
    (said,) = relative(tmp_path, result)
    assert "t.cf cannot be carried over: it is an error when reached (" in said
    (body,) = entries(result)["default"].values("smtpdSenderRestrictions")
    assert body == f"check_sender_access postfix-ldap:{tmp_path}/t.cf"


def test_a_table_of_many_lines_is_several_entries(tmp_path: Path) -> None:
    """Active Directory holds some 1,200 values of an attribute; tables with one cn are joined."""
    text = "".join(f"u{number}@my.domain OK\n" for number in range(2500))
    result = carried(
        tmp_path, "smtpd_sender_restrictions = check_sender_access hash:$config_directory/t\n", t=text
    )
    values = [given["smtpdAccess"] for _, given in result.records if given.get("cn") == ("t",)]
    assert [1000, 1000, 500] == list(map(len, values))
    table = read_policies(Entry(dn, given) for dn, given in result.records).tables["t"]
    assert isinstance(table, Table)
    assert 2500 == sum(len(part.lines) for part in table.parts)


# --- what stays in main.cf ------------------------------------------------------------------------

STAYS = {
    "a policy service": (
        "reject_non_fqdn_sender, check_policy_service unix:private/grey, reject",
        ("reject_non_fqdn_sender, reject", "behind"),
    ),
    "what only refuses": (
        "reject_rbl_client list.example, permit_sasl_authenticated, reject",
        ("permit_sasl_authenticated, reject", "in front of"),
    ),
    "a permit of Postfix's behind it": (
        "check_policy_service unix:private/grey, permit_tls_clientcerts, reject",
        ("check_policy_service unix:private/grey, permit_tls_clientcerts, reject", ""),
    ),
}


@pytest.mark.parametrize(("text", "expected"), STAYS.values(), ids=STAYS)
def test_left_in_main_cf(tmp_path: Path, text: str, expected: tuple[str, str]) -> None:
    """A restriction is left out of its list where that opens nothing; it is said where it has to stand."""
    carried(tmp_path, f"smtpd_recipient_restrictions = {text}\n")
    name = "reject_rbl_client" if "rbl" in text else "check_policy_service"
    left = leave(read_main_cf(tmp_path / "main.cf"), [name])
    body, place = expected
    (found,) = entries(carry_over(left.main, BASE))["default"].values("smtpdRecipientRestrictions")
    assert body == found
    assert [bool(place), not place] == [bool(left.stays), bool(left.refused)]
    assert all(place in text for _, text in left.stays)


def test_leaving_what_is_in_no_list(tmp_path: Path) -> None:
    """Is a slip, and told."""
    carried(tmp_path, "smtpd_recipient_restrictions = reject\n")
    with pytest.raises(InputError, match="--leave-in-main-cf check_policy_service: no list or class"):
        leave(read_main_cf(tmp_path / "main.cf"), ["check_policy_service"])


def test_endless_class(tmp_path: Path) -> None:
    """A class that reaches itself is said at the line where it stands."""
    result = carried(tmp_path, "smtpd_restriction_classes = a b\na = b\nb = a\n")
    said = "smtpdRestrictions: class {0!r} reaches itself by names alone"
    assert [
        f"main.cf:{line}: cn={name},{BASE}: {said.format(name)}" for line, name in ((7, "a"), (8, "b"))
    ] == relative(tmp_path, result)


def test_unknown_word(tmp_path: Path) -> None:
    """A word that is no restriction is an error in Postfix too: a warning."""
    result = carried(tmp_path, "smtpd_helo_restrictions = permit_all\n")
    what = "smtpd_helo_restrictions: 'permit_all' is neither a restriction nor a class, in Postfix as here"
    assert ([], [f"{tmp_path}/main.cf:6: {what}"]) == (result.left_out, result.warnings)


REFUSED = {
    "unbalanced": (
        b"smtpd_helo_restrictions = {",
        ":6: smtpd_helo_restrictions: unbalanced '{' at character 1",
    ),
    "recursion": (b"smtpd_helo_restrictions = $smtpd_helo_restrictions", ":6: smtpd_helo_restrictions: "),
    "not UTF-8": (
        b"smtpd_helo_restrictions = static:\xe9",
        ":6: smtpdHeloRestrictions of 'default' is not UTF-8",
    ),
    "class not UTF-8": (b"smtpd_restriction_classes = \xe9\n\xe9 = permit", "main.cf: "),
}


@pytest.mark.parametrize(("text", "said"), REFUSED.values(), ids=REFUSED)
def test_refused(tmp_path: Path, text: bytes, said: str) -> None:
    """What nobody can read is one line, and no LDIF."""
    (tmp_path / "main.cf").write_bytes(SYSTEM.encode() + text)
    with pytest.raises(InputError) as caught:
        carry_over(read_main_cf(tmp_path / "main.cf"), BASE)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


# --- the command line -----------------------------------------------------------------------------


def decided(folder: Path, capsys: pytest.CaptureFixture[str], ldif: str, *attributes: str) -> str:
    """What eval says of a request, where the directory is a file with that LDIF."""
    (folder / "tree.ldif").write_text(f"{TREE}\n{ldif}")
    layers = merged(EXAMPLE, {"directory": {"uri": [f"ldif:{folder}/tree.ldif"]}})
    (folder / "config.toml").write_text(toml(layers))
    run(["-c", str(folder / "config.toml"), "eval", *attributes])
    return capsys.readouterr().out.strip()


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_is_carried_whole(capsys: pytest.CaptureFixture[str], name: str) -> None:
    """Of a recipe nothing is left out, and the entries are good policies."""
    status, ldif, error = run_import(FOLDERS / name / "main.cf", capsys)
    assert (0, "") == (status, error)
    records = [Entry(record.dn, record.attributes) for record in read_records(ldif.encode(), name)]
    policies = read_policies(records)
    assert () == policies.faults
    assert ["default"] == list(policies.policies)
    assert str(FOLDERS) not in ldif


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_has_no_lint_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    """lint finds no error in what was imported."""
    _, ldif, _ = run_import(FOLDERS / name / "main.cf", capsys)
    decided(tmp_path, capsys, ldif, "recipient=a@b.example")
    assert 0 == run(["-c", str(tmp_path / "config.toml"), "lint"]), capsys.readouterr().out


OUTSIDE = (
    "client_address=198.51.100.9",
    "client_name=mail.outside.example",
    "helo_name=mail.outside.example",
)
INSIDE = ("client_address=192.0.2.5", "client_name=pc.my.domain", "helo_name=pc.my.domain")

# A recipe, the request, the decision.
DECISIONS: list[tuple[str, tuple[str, ...], str]] = [
    ("protected_by_network", (*INSIDE, "sender=a@b.example", "recipient=all@my.domain"), "DUNNO"),
    ("protected_by_network", (*OUTSIDE, "sender=a@b.example", "recipient=all@my.domain"), "reject,"),
    ("protected_by_network", (*OUTSIDE, "sender=a@b.example", "recipient=joe@my.domain"), "DUNNO"),
    (
        "protected_by_network",
        (*OUTSIDE, "sender=a@b.example", "recipient=all@c.example"),
        "defer_unauth_destination, defer",
    ),
    ("protected_by_network", (*INSIDE, "sender=a@b.example", "recipient=all@c.example"), "DUNNO"),
    ("protected_by_sender", (*OUTSIDE, "sender=joe@my.domain", "recipient=all@my.domain"), "DUNNO"),
    ("protected_by_sender", (*OUTSIDE, "sender=joe@sub.another.domain", "recipient=ALL@my.domain"), "DUNNO"),
    ("protected_by_sender", (*OUTSIDE, "sender=joe@outside.example", "recipient=all@my.domain"), "reject,"),
    ("protected_by_sender", (*OUTSIDE, "sender=", "recipient=all@my.domain"), "reject,"),
    ("local_only", (*INSIDE, "sender=foo@this.domain", "recipient=joe@that.domain"), "DUNNO"),
    ("local_only", (*INSIDE, "sender=foo@this.domain", "recipient=joe@outside.example"), "reject,"),
    ("local_only", (*INSIDE, "sender=joe@this.domain", "recipient=joe@outside.example"), "DUNNO"),
    ("junk_mail_classes", (*OUTSIDE, "sender=a@b", "recipient=joe@my.domain"), "DUNNO"),
    (
        "junk_mail_classes",
        (*OUTSIDE, "sender=a@b", "recipient=jane+list@my.domain"),
        "reject_non_fqdn_sender, reject",
    ),
    (
        "junk_mail_classes",
        (*OUTSIDE, "sender=a@b.example", "recipient=jane@my.domain"),
        "reject_unknown_sender_domain, reject_unknown_client_hostname",
    ),
    ("junk_mail_classes", (*OUTSIDE, "sender=a@b.example", "recipient=other@my.domain"), "DUNNO"),
    (
        "frequently_forged",
        ("client_address=203.0.113.9", "sender=x@webmail.example", "recipient=a@example.com"),
        "reject_unknown_reverse_client_hostname, reject_unverified_sender",
    ),
    (
        "frequently_forged",
        ("client_address=203.0.113.9", "sender=friend@webmail.example", "recipient=a@example.com"),
        "DUNNO",
    ),
    (
        "frequently_forged",
        ("client_address=203.0.113.9", "sender=newsletter@shop.example", "recipient=a@example.com"),
        "550 5.7.1 unsubscribe first",
    ),
    (
        "frequently_forged",
        ("client_address=198.51.100.129", "helo_name=example.com", "sender=", "recipient=a@example.com"),
        "REJECT you are not example.com",
    ),
    (
        "frequently_forged",
        ("client_address=198.51.100.3", "sender=", "recipient=a@example.com"),
        "DEFER_IF_PERMIT come back later",
    ),
    ("frequently_forged", ("client_address=198.51.100.70", "sender=", "recipient=a@example.com"), "REJECT"),
    ("frequently_forged", ("client_address=198.51.100.7", "sender=", "recipient=a@example.com"), "DUNNO"),
    (
        "everything",
        (*INSIDE, "sasl_username=joe", "sender=amy@example.com", "recipient=a@example.com"),
        "REJECT not today",
    ),
    ("everything", (*INSIDE, "sender=x@a.partner.example", "recipient=all+x@example.com"), "DUNNO"),
    (
        "everything",
        (*OUTSIDE, "sender=x@y.example", "recipient=a@c.example"),
        "reject_unauth_destination, reject",
    ),
    ("everything", (*OUTSIDE, "sender=x@y.example", "recipient=all@example.com"), "reject,"),
    (
        "everything",
        (*OUTSIDE, "sender=x@y.example", "recipient=strict@example.com"),
        "reject_unlisted_recipient,",
    ),
]


@pytest.mark.parametrize(("name", "request_", "action"), DECISIONS)
def test_recipe_decides(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, request_: tuple[str, ...], action: str
) -> None:
    """What a recipe is for is what its entries decide."""
    _, ldif, _ = run_import(FOLDERS / name / "main.cf", capsys)
    assert f"action={action}" == decided(tmp_path, capsys, ldif, *request_)


def test_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The LDIF is what is shown here, and nothing else is said."""
    folder = tmp_path / "postfix"
    shutil.copytree(FOLDERS / "protected_by_network", folder)
    status, ldif, error = run_import(folder / "main.cf", capsys)
    assert (0, "") == (status, error)
    assert (Path(__file__).parent / "golden" / "import.ldif").read_text() == ldif


def test_something_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The LDIF is printed all the same, what is missing is named, the status is 65."""
    (tmp_path / "main.cf").write_text(f"{SYSTEM}smtpd_helo_restrictions = pcre:/x, foo\n")
    status, ldif, error = run_import(tmp_path / "main.cf", capsys)
    assert 65 == status
    assert "smtpdHeloRestrictions: pcre:/x, foo\n" in ldif
    assert "# Left out, named when this was printed: 1.\n" in ldif
    what = "smtpd_helo_restrictions: 'foo' is neither a restriction nor a class, in Postfix as here"
    assert [
        f"ldappolicy: warning: {tmp_path}/main.cf:6: {what}",
        (
            f"ldappolicy: left out: {tmp_path}/main.cf:6: table pcre:/x cannot be carried over: "
            "it is an error when reached"
        ),
    ] == error.splitlines()


USAGE: Mapping[str, tuple[list[str], int, str]] = {
    "no file": (["import"], 64, "missing option '--main-cf' (see ldappolicy --help)"),
    "no DN": (["import", "--main-cf", "x", "--policy-base", "x"], 64, "--policy-base: not a DN: 'x'"),
    "not there": (
        ["import", "--main-cf", "nobody", "--policy-base", "o=x"],
        65,
        "nobody: cannot be read: no such file or directory",
    ),
    "a folder": (
        ["import", "--main-cf", "/", "--policy-base", "o=x"],
        64,
        "invalid value for '--main-cf': File '/' is a directory (see ldappolicy --help)",
    ),
    "no configuration": (
        ["-c", "nobody.toml", "import", "--main-cf", "x"],
        78,
        "nobody.toml: cannot be read",
    ),
}


@pytest.mark.parametrize(("arguments", "status", "said"), USAGE.values(), ids=USAGE)
def test_usage(capsys: pytest.CaptureFixture[str], arguments: list[str], status: int, said: str) -> None:
    """A mistake is one line, with the status of sysexits(3)."""
    assert status == run(arguments)
    error = capsys.readouterr().err
    assert error.startswith(f"ldappolicy: {said}")
    assert 1 == len(error.splitlines())


def test_policy_base_of_the_configuration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without --policy-base, base and name of the policy are those of the configuration."""
    main_cf = FOLDERS / "local_only" / "main.cf"
    layers = merged(EXAMPLE, {"directory": {"policy_base": "ou=p,o=x"}, "policy": {"name": "mx"}})
    (tmp_path / "config.toml").write_text(toml(layers))
    assert 0 == run(["-c", str(tmp_path / "config.toml"), "import", "--main-cf", str(main_cf)])
    assert "\ndn: cn=mx,ou=p,o=x\n" in capsys.readouterr().out


def test_without_configuration(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there is no configuration yet, base and name are its defaults."""
    monkeypatch.delenv("LDAPPOLICY_CONFIG", raising=False)
    option = next(one for one in cli.params if one.name == "config")
    monkeypatch.setattr(option, "default", f"{tmp_path}/none.toml")  # this machine may have one in /etc
    monkeypatch.setattr(import_main_cf, "DEFAULT_CONFIG", f"{tmp_path}/none.toml")
    assert 0 == run(["import", "--main-cf", str(FOLDERS / "local_only" / "main.cf")])
    assert f"\ndn: cn=default,{BASE}\n" in capsys.readouterr().out


@pytest.mark.servers
def test_loaded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What import prints is what load takes, into a directory that has the entry of policy_base, twice."""
    require_slapd()
    _, ldif, _ = run_import(FOLDERS / "everything" / "main.cf", capsys)
    (tmp_path / "policy.ldif").write_text(ldif)
    with Slapd(schema="ldappolicy", overlays=PLAIN, data=TREE) as server:
        (tmp_path / "password").write_text(f"{server.root_pw}\n")
        bind: dict[str, Value] = {
            "uri": [server.uri],
            "bind": "simple",
            "bind_dn": server.root_dn,
            "bind_pw_file": "password",
        }
        (tmp_path / "config.toml").write_text(toml(merged(EXAMPLE, {"directory": bind})))
        load = ["-c", str(tmp_path / "config.toml"), "load", str(tmp_path / "policy.ldif")]
        assert (0, "11 added") == (run(load), capsys.readouterr().out.splitlines()[-1])
        assert (0, "nothing to do, 11 unchanged") == (run(load), capsys.readouterr().out.splitlines()[-1])
        run(["-c", str(tmp_path / "config.toml"), "eval", "sasl_username=joe", "sender=a@b", "recipient=c@d"])
        assert "action=REJECT not today\n" == capsys.readouterr().out


# --- any text -------------------------------------------------------------------------------------

WORDS = st.sampled_from(
    [
        *(
            "permit",
            "reject",
            "check_sender_access",
            "check_client_access",
            "check_policy_service",
            "warn_if_reject",
        ),
        *(
            "reject_rbl_client",
            "hash:$config_directory/t",
            "cidr:$config_directory/t",
            "inline:{a=b}",
            "inline:{",
            "}",
        ),
        *(
            "$x",
            "${y?{a}:{b}}",
            "mysql:/x",
            "static:{a b}",
            "c1",
            "c2",
            "!",
            ",",
            "$",
            "\n ",
            "[::1]",
            "10.0.0.0/8",
        ),
        *(
            "é",
            "\udce9",
            "\0",
            "/dev/null",
            "a.example",
            "directory:access",
            "ldap:t",
            "smtpd_access_maps",
            "{a, b}",
        ),
    ]
)
PARAMETERS = st.sampled_from(
    [
        *(
            "smtpd_client_restrictions",
            "smtpd_recipient_restrictions",
            "smtpd_restriction_classes",
            "c1",
            "c2",
            "x",
        ),
        *(
            "mynetworks",
            "mydestination",
            "relay_domains",
            "virtual_alias_maps",
            "myorigin",
            "recipient_delimiter",
        ),
        *(
            "parent_domain_matches_subdomains",
            "myhostname",
            "mydomain",
            "compatibility_level",
            "smtpd_delay_reject",
        ),
    ]
)


def texts() -> Iterator[st.SearchStrategy[str]]:
    """Texts of main.cf, and texts that are none."""
    line = st.tuples(PARAMETERS, st.lists(WORDS, max_size=6).map(" ".join)).map(" = ".join)
    yield st.lists(line, max_size=8).map("\n".join)
    yield st.text(max_size=80)


@given(st.one_of(*texts()), st.text(alphabet='ab@. "\\\n#{}!0123/if OK', max_size=60))
def test_any_text(tmp_path_factory: pytest.TempPathFactory, text: str, table: str) -> None:
    """Any main.cf with any table is LDIF that can be read, or a complaint of one line."""
    folder = tmp_path_factory.mktemp("any")
    (folder / "main.cf").write_bytes(text.encode("utf-8", "surrogatepass"))
    (folder / "t").write_text(table)
    with suppress(InputError):
        result = carry_over(read_main_cf(folder / "main.cf"), BASE)
        ldif = ldif_of(result, "main.cf", BASE)
        assert len(result.records) == len(list(read_records(ldif.encode(), "main.cf")))
        assert not any("\n" in part for note in result.left_out for part in note)
