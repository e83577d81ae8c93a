"""LDIF is read as RFC 2849 writes it, and every error says where."""

import base64
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ldappolicy.entry import Entry
from ldappolicy.errors import InputError
from ldappolicy.ldif import Record, Reference, format_entry, format_record, read_records


def read(text: str | bytes) -> list[Record]:
    """All the records of a file named x.ldif."""
    return list(read_records(text.encode() if isinstance(text, str) else text, "x.ldif"))


def entry(line: int, dn: str, **attributes: str) -> Record:
    """A content record whose attributes have one value each."""
    return Record(line, dn, None, {name: (value,) for name, value in attributes.items()})


AMY = entry(1, "uid=amy", cn="Amy")
BOB = "dn: uid=bob\ncn: Bob\n"

CONTENT: list[tuple[str, str | bytes, list[Record]]] = [
    ("nothing", "", []),
    ("nothing but empty lines", "\n\n\n", []),
    ("nothing but comments", "# a\n# b\n\n# c\n", []),
    ("nothing but a version", "version: 1\n", []),
    ("one entry", "dn: uid=amy\ncn: Amy\n", [AMY]),
    ("no end of the last line", "dn: uid=amy\ncn: Amy", [AMY]),
    (
        "CRLF",
        "dn: uid=amy\r\ncn: Amy\r\n\r\ndn: uid=bob\r\ncn: B\r\n ob\r\n",
        [AMY, entry(4, "uid=bob", cn="Bob")],
    ),
    ("byte order mark", b"\xef\xbb\xbfdn: uid=amy\ncn: Amy\n", [AMY]),
    (
        "empty lines before, between and behind",
        f"\n\n{BOB}\n\n\n{BOB}\n\n",
        [
            entry(3, "uid=bob", cn="Bob"),
            entry(8, "uid=bob", cn="Bob"),
        ],
    ),
    ("version before the first record", f"version: 1\n\n{BOB}", [entry(3, "uid=bob", cn="Bob")]),
    ("version in the first record", f"version: 1\n{BOB}", [entry(2, "uid=bob", cn="Bob")]),
    ("version behind a comment", f"# x\nVersion:1\n# y\n{BOB}", [entry(4, "uid=bob", cn="Bob")]),
    ("no space behind the colon", "dn:uid=amy\ncn:Amy\n", [AMY]),
    ("many spaces behind the colon", "dn:   uid=amy\ncn:   Amy\n", [AMY]),
    ("spaces at the end are the value's", "dn: uid=amy\ncn: Amy  \n", [entry(1, "uid=amy", cn="Amy  ")]),
    ("a tab is the value's", "dn: uid=amy\ncn:\tAmy\n", [entry(1, "uid=amy", cn="\tAmy")]),
    ("empty values", "dn: uid=amy\ncn:\nsn: \n", [entry(1, "uid=amy", cn="", sn="")]),
    ("an empty DN", "dn:\ncn: root\n", [entry(1, "", cn="root")]),
    ("base64", "dn:: dWlkPWFteQ==\ncn:: QW15\n", [AMY]),
    ("base64 without and with spaces", "dn::dWlkPWFteQ==\ncn::   QW15  \n", [AMY]),
    ("base64 of nothing", "dn: uid=amy\ncn::\n", [entry(1, "uid=amy", cn="")]),
    ("base64 of UTF-8", "dn: uid=amy\ncn:: w7w=\n", [entry(1, "uid=amy", cn="ü")]),
    ("base64 of other bytes", "dn: uid=amy\ncn:: /w==\n", [entry(1, "uid=amy", cn="\udcff")]),
    ("raw UTF-8", "dn: uid=amy\ncn: ü\n", [entry(1, "uid=amy", cn="ü")]),
    ("raw other bytes", b"dn: uid=amy\ncn: \xff\n", [entry(1, "uid=amy", cn="\udcff")]),
    ("folded", "dn: uid\n =am\n y\ncn: A\n m\n y\n", [AMY]),
    ("a fold keeps the second space", "dn: uid=amy\ncn: A\n  m\n", [entry(1, "uid=amy", cn="A m")]),
    ("a fold of nothing", "dn: uid=amy\ncn: Amy\n \n", [AMY]),
    ("a folded name", "dn: uid=amy\nc\n n: Amy\n", [AMY]),
    ("folded base64", "dn: uid=amy\ncn:: QW\n 15\n", [AMY]),
    ("a fold within a character", b"dn: uid=amy\ncn: \xc3\n \xbc\n", [entry(1, "uid=amy", cn="ü")]),
    ("comments", "# x\ndn: uid=amy\n# y\ncn: Amy\n# z\n", [entry(2, "uid=amy", cn="Amy")]),
    ("folded comments", "# x\n cn: no\ndn: uid=amy\n#\n cn: no\ncn: Amy\n", [entry(3, "uid=amy", cn="Amy")]),
    ("a sharp in a value", "dn: uid=amy\ncn: #Amy\n", [entry(1, "uid=amy", cn="#Amy")]),
    ("a sharp at a fold", "dn: uid=amy\ncn: A\n #my\n", [entry(1, "uid=amy", cn="A#my")]),
    (
        "several values",
        "dn: uid=amy\ncn: 1\nsn: x\ncn: 2\n",
        [Record(1, "uid=amy", None, {"cn": ("1", "2"), "sn": ("x",)})],
    ),
    (
        "names as written",
        "dn: uid=amy\nobjectClass: a\nOID.1: b\n",
        [Record(1, "uid=amy", None, {"objectClass": ("a",), "OID.1": ("b",)})],
    ),
    (
        "one name in two spellings",
        "dn: uid=amy\nCn: 1\ncN: 2\n",
        [Record(1, "uid=amy", None, {"Cn": ("1", "2")})],
    ),
    (
        "options",
        "dn: uid=amy\nmember;x-a=0-1: x\ncn;lang-de: y\n",
        [Record(1, "uid=amy", None, {"member;x-a=0-1": ("x",), "cn;lang-de": ("y",)})],
    ),
    ("colons in values", "dn: uid=amy\ncn: a: b\nsn: :c\n", [entry(1, "uid=amy", cn="a: b", sn=":c")]),
    ("DN in capitals", "DN: uid=amy\ncn: Amy\n", [AMY]),
    (
        "a name before it is known and later",
        "dn: uid=amy\ncn: Amy\n\ndn: uid=amy\ncn:Amy\n",
        [AMY, entry(4, "uid=amy", cn="Amy")],
    ),
]


@pytest.mark.parametrize(("text", "expected"), [row[1:] for row in CONTENT], ids=[row[0] for row in CONTENT])
def test_content(text: str | bytes, expected: list[Record]) -> None:
    """Entries in every spelling that RFC 2849 allows."""
    assert expected == read(text)


MODIFY = """\
dn: uid=amy
changetype: modify
add: cn
cn: A
cn:: Qg==
-
delete: sn
-
Replace: mail
MAIL: a@b.c
-
increment: n
n: 1
-
"""
CHANGES = [
    ("add", "dn: uid=amy\nchangetype: add\ncn: Amy\n", Record(1, "uid=amy", "add", {"cn": ("Amy",)})),
    ("capitals", "dn: uid=amy\nChangeType: ADD\ncn: Amy\n", Record(1, "uid=amy", "add", {"cn": ("Amy",)})),
    ("delete", "dn: uid=amy\nchangetype: delete\n", Record(1, "uid=amy", "delete")),
    (
        "modify",
        MODIFY,
        Record(
            1,
            "uid=amy",
            "modify",
            modifications=(
                ("add", "cn", ("A", "B")),
                ("delete", "sn", ()),
                ("replace", "mail", ("a@b.c",)),
                ("increment", "n", ("1",)),
            ),
        ),
    ),
    (
        "modify without the last hyphen",
        "dn: uid=amy\nchangetype: modify\nadd: cn\ncn: A\n",
        Record(1, "uid=amy", "modify", modifications=(("add", "cn", ("A",)),)),
    ),
    ("modify of nothing", "dn: uid=amy\nchangetype: modify\n", Record(1, "uid=amy", "modify")),
    (
        "modrdn",
        "dn: uid=amy\nchangetype: modrdn\nnewrdn: uid=eve\ndeleteoldrdn: 1\n",
        Record(1, "uid=amy", "modrdn", new_rdn="uid=eve", delete_old_rdn=True),
    ),
    (
        "moddn",
        "dn: uid=amy\nchangetype: moddn\nnewrdn:: dWlkPWV2ZQ==\ndeleteOldRdn: 0\nnewSuperior: dc=com\n",
        Record(1, "uid=amy", "moddn", new_rdn="uid=eve", delete_old_rdn=False, new_superior="dc=com"),
    ),
]


@pytest.mark.parametrize(("text", "expected"), [row[1:] for row in CHANGES], ids=[row[0] for row in CHANGES])
def test_changes(text: str, expected: Record) -> None:
    """All the change records of RFC 2849."""
    assert [expected] == read(text)


def test_a_file_may_mix_entries_and_changes() -> None:
    """Who wants one kind only can tell."""
    records = read("dn: uid=amy\ncn: Amy\n\ndn: uid=bob\nchangetype: delete\n")
    assert [(1, None), (4, "delete")] == [(record.line, record.changetype) for record in records]


PLAIN = """\
# extended LDIF
#
# LDAPv3
# base <uid=amy> (default) with scope subtree
# filter: (objectclass=*)
# requesting: ALL
#

# amy
dn: uid=amy
cn: Amy

# search reference
ref: ldap://b.example/uid=b??sub
ref: ldap://c.example/

# search result
search: 2
result: 0 Success
control: 1.2.840.113556.1.4.319 false MAUCAQAEAA==
pagedresults: cookie=

# numResponses: 3
# numEntries: 1
# numReferences: 1
"""


def test_the_output_of_a_plain_search() -> None:
    """ldapsearch without -LLL: entries are read, the result is looked at, references are handed over."""
    references: list[Reference] = []
    records = list(read_records(PLAIN.encode(), "x.ldif", references.append))
    assert [Record(10, "uid=amy", None, {"cn": ("Amy",)})] == records
    expected = [("x.ldif:14", "ldap://b.example/uid=b??sub"), ("x.ldif:15", "ldap://c.example/")]
    assert expected == [(one.place, one.uri) for one in references]


HEAD = "# one\n# two\n\ndn: uid=amy\n"  # the next line is the fifth
CHANGE = HEAD + "changetype: "

ERRORS: list[tuple[str, str | bytes, str]] = [
    ("no DN", "cn: Amy\n", "1: 'cn: Amy', expected 'dn:' at the start of a record"),
    (
        "no DN in the second record",
        BOB + "\n# x\ncn: Amy\n",
        "5: 'cn: Amy', expected 'dn:' at the start of a record",
    ),
    ("no colon", "uid=amy\n", "1: 'uid=amy', expected 'attribute: value'"),
    ("no colon in an attribute", HEAD + "cn\n", "5: 'cn', expected 'attribute: value'"),
    ("no colon in a known attribute", HEAD + "cn: x\ncn\n", "6: 'cn', expected 'attribute: value'"),
    ("a hyphen in an entry", HEAD + "cn: x\n-\n", "6: '-', expected 'attribute: value'"),
    ("a fold of nothing", " cn: x\n", "1: ' cn: x', expected 'dn:' at the start of a record"),
    ("nothing but a DN", HEAD, "4: no attributes, expected at least one"),
    (
        "two DNs",
        HEAD + "cn: x\ndn: uid=bob\n",
        "6: 'dn:' within a record, expected it only at the start of one",
    ),
    (
        "a late changetype",
        HEAD + "cn: x\nchangetype: add\n",
        "6: 'changetype:' within a record, expected it only at the start of one",
    ),
    (
        "a late version",
        HEAD + "version: 1\n",
        "5: 'version:' within a record, expected it only at the start of one",
    ),
    ("another version", "# x\n\nversion: 2\n", "3: version '2', expected 1"),
    ("an odd name", HEAD + "c n: x\n", "5: 'c n', expected an attribute"),
    ("an empty name", HEAD + ": x\n", "5: '', expected an attribute"),
    ("bad base64", HEAD + "cn:: QW1\n", "5: 'QW1', expected base64"),
    ("rubbish in base64", HEAD + "cn:: QW-15\n", "5: 'QW-15', expected base64"),
    ("letters that are not ASCII in base64", HEAD + "cn:: é\n", "5: 'é', expected base64"),
    ("bad base64 in the DN", "dn:: x\ncn: y\n", "1: 'x', expected base64"),
    (
        "a value by URL",
        HEAD + "cn:< file:///etc/passwd\n",
        "5: a value by URL 'file:///etc/passwd', expected it in the file",
    ),
    (
        "a known value by URL",
        HEAD + "cn: x\ncn:<file:///x: y\n",
        "6: a value by URL 'file:///x: y', expected it in the file",
    ),
    ("a DN by URL", "dn:< file:///x\n", "1: a value by URL 'file:///x', expected it in the file"),
    ("NUL", HEAD + "cn: x\nsn: a\0b\n", "6: a carriage return or NUL within a line, expected it in base64"),
    (
        "a carriage return",
        "dn: uid=amy\rcn: x\r",
        "1: a carriage return or NUL within a line, expected it in base64",
    ),
    ("behind folds", HEAD + "# a\n b\ncn: x\n y\n z\nsn\n", "10: 'sn', expected 'attribute: value'"),
    ("the line where a fold starts", HEAD + "cn:: Q\n W\n 1\n", "5: 'QW1', expected base64"),
    ("behind CRLF", "dn: uid=amy\r\n\r\n", "1: no attributes, expected at least one"),
    (
        "a control",
        HEAD + "control: 1.2.3 true\nchangetype: delete\n",
        "5: a control, expected none: controls are not supported",
    ),
    (
        "an unknown change",
        CHANGE + "remove\n",
        "5: changetype 'remove', expected one of add, delete, modify, modrdn, moddn",
    ),
    ("an add of nothing", CHANGE + "add\n", "5: no attributes, expected at least one"),
    ("a delete of something", CHANGE + "delete\ncn: x\n", "6: 'cn: x', expected the end of the record"),
    (
        "an unknown operation",
        CHANGE + "modify\nremove: cn\n-\n",
        "6: 'remove', expected one of add, delete, replace, increment",
    ),
    ("an odd attribute", CHANGE + "modify\nadd: c n\n-\n", "6: 'c n', expected an attribute"),
    (
        "a part of the values",
        HEAD + "cn: x\nmember;range=0-1499: x\n",
        "6: 'member;range=0-1499', expected all values: a range is a part of them",
    ),
    (
        "a change of a part of the values",
        CHANGE + "modify\nadd: member;lang-x;Range=0-*\n-\n",
        "6: 'member;lang-x;Range=0-*', expected an attribute",
    ),
    (
        "a change of so many values",
        CHANGE + "modify\nadd: member;Range=0-9\n-\n",
        "6: 'member;Range=0-9', expected all values: a range is a part of them",
    ),
    ("UTF-16", BOB.encode("utf-16"), "1: UTF-16, expected UTF-8"),
    ("UTF-16, big-endian, without a mark", BOB.encode("utf-16-be"), "1: UTF-16, expected UTF-8"),
    (
        "a search that was cut off",
        f"{BOB}\n# search result\nsearch: 2\nresult: 4 Size limit exceeded\n",
        "6: result '4 Size limit exceeded', expected '0 Success': entries are missing",
    ),
    (
        "a search without an end",
        f"{BOB}\n# search result\nsearch: 2\n",
        "5: the end of the record, expected 'result:'",
    ),
    ("a reference and more", "ref: ldap://x\ncn: x\n", "2: 'cn', expected 'ref:'"),
    ("another attribute", CHANGE + "modify\nadd: cn\nsn: x\n-\n", "7: 'sn', expected 'cn' or '-'"),
    ("a lone hyphen", CHANGE + "modify\n-\n", "6: '-', expected 'attribute: value'"),
    ("no newrdn", CHANGE + "modrdn\n", "5: the end of the record, expected 'newrdn:'"),
    ("something else than newrdn", CHANGE + "modrdn\ncn: x\n", "6: 'cn', expected 'newrdn:'"),
    ("no deleteoldrdn", CHANGE + "modrdn\nnewrdn: x\n", "6: the end of the record, expected 'deleteoldrdn:'"),
    (
        "an odd deleteoldrdn",
        CHANGE + "modrdn\nnewrdn: x\ndeleteoldrdn: y\n",
        "7: deleteoldrdn 'y', expected 0 or 1",
    ),
    (
        "something else than newsuperior",
        CHANGE + "modrdn\nnewrdn: x\ndeleteoldrdn: 0\ncn: x\n",
        "8: 'cn', expected 'newsuperior:'",
    ),
    (
        "something behind newsuperior",
        CHANGE + "modrdn\nnewrdn: x\ndeleteoldrdn: 0\nnewsuperior: x\ny: z\n",
        "9: 'y: z', expected the end of the record",
    ),
]


@pytest.mark.parametrize(("text", "expected"), [row[1:] for row in ERRORS], ids=[row[0] for row in ERRORS])
def test_errors(text: str | bytes, expected: str) -> None:
    """One line: the file, the line, what stands there and what was expected."""
    with pytest.raises(InputError) as caught:
        read(text)
    assert f"x.ldif:{expected}" == str(caught.value)


def test_records_before_an_error_are_read() -> None:
    """Records come one after the other, so that a file need not be held twice."""
    records = read_records(b"dn: uid=amy\ncn: Amy\n\nrubbish\n", "x.ldif")
    assert next(records) == AMY
    with pytest.raises(InputError, match=r"^x\.ldif:4: "):
        next(records)


PRINTED = [
    ("plain", "Amy", "cn: Amy"),
    ("empty", "", "cn:"),
    ("space at the start", " x", "cn:: IHg="),
    ("space at the end", "x ", "cn:: eCA="),
    ("space", " ", "cn:: IA=="),
    ("colon at the start", ":x", "cn:: Ong="),
    ("less at the start", "<x", "cn:: PHg="),
    ("colon and less within", "x:<y", "cn: x:<y"),
    ("sharp", "#x", "cn: #x"),
    ("line feed", "a\nb", "cn:: YQpi"),
    ("carriage return", "a\rb", "cn:: YQ1i"),
    ("NUL", "a\0b", "cn:: YQBi"),
    ("UTF-8", "ü", "cn:: w7w="),
    ("other bytes", "\udcff", "cn:: /w=="),
]


@pytest.mark.parametrize(("value", "expected"), [row[1:] for row in PRINTED], ids=[row[0] for row in PRINTED])
def test_printed_values(value: str, expected: str) -> None:
    """Base64 where RFC 2849 demands it, and nowhere else."""
    assert f"dn: uid=amy\n{expected}\n" == format_record("uid=amy", [("cn", [value])])


def test_an_entry_is_printed_as_it_is_spelled() -> None:
    """The DN as spelled, the attributes in their order."""
    amy = Entry("UID=Amy,dc=com", {"objectClass": ["top", "person"], "cn": ["Amy"]})
    assert "dn: UID=Amy,dc=com\nobjectclass: top\nobjectclass: person\ncn: Amy\n" == format_entry(amy)


@pytest.mark.parametrize("length", range(60, 240))
def test_long_lines_are_folded(length: int) -> None:
    """No line is longer than 76 characters, and none but a short last one is shorter."""
    text = format_record("uid=amy", [("cn", ["x" * length])])
    lines = text.splitlines()[1:]
    assert all(len(line) == 76 and after.startswith(" ") for line, after in pairwise(lines))
    assert 1 < len(lines[-1]) <= 76
    assert ("x" * length,) == read(text)[0].attributes["cn"]


values = st.binary(max_size=120).map(lambda octets: octets.decode("utf-8", "surrogateescape"))
names = st.from_regex(r"[a-z][a-z0-9-]{0,8}", fullmatch=True).filter(
    lambda name: name not in ("dn", "changetype", "control", "version")
)


@pytest.mark.servers
@given(values, st.dictionaries(names, st.lists(values, min_size=1, max_size=3).map(tuple), min_size=1))
def test_what_is_printed_is_read_back(dn: str, attributes: dict[str, tuple[str, ...]]) -> None:
    """Printing loses nothing, whatever bytes a value holds."""
    text = format_record(dn, attributes.items())
    assert [Record(1, dn, None, attributes)] == read(text)
    assert [Record(1, dn, None, attributes)] == read(text.replace("\n", "\r\n"))


@given(
    st.lists(
        st.sampled_from(["dn: a=b", "cn: x", "cn:: eA==", "cn:: x", " y", "#", "", "-", "changetype: add"])
    )
)
def test_any_lines_are_records_or_an_input_error(lines: list[str]) -> None:
    """There are two outcomes, and an error names a line that is there."""
    try:
        read("\n".join(lines))
    except InputError as error:
        source, line, _ = str(error).split(":", 2)
        assert source == "x.ldif"
        assert 1 <= int(line) <= len(lines)


def test_every_octet_survives_base64() -> None:
    """A value is any octet string."""
    octets = bytes(range(256))
    text = f"dn: uid=amy\ncn:: {base64.b64encode(octets).decode()}\n"
    assert octets == read(text)[0].attributes["cn"][0].encode("utf-8", "surrogateescape")
