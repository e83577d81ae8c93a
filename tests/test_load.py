"""`ldappolicy load`: LDIF into a real slapd, again, with changes, rehearsed, refused."""

import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from ldappolicy.cli import EX_CONFIG, EX_DATAERR, EX_UNAVAILABLE, EX_USAGE, run
from ldappolicy.directory.ldap import LdapSettings
from ldappolicy.directory.ldap.writing import Writer, connect
from ldappolicy.directory.loading import Attributes, Rehearsal, carry_out
from ldappolicy.errors import InputError, Unavailable
from ldappolicy.ldif import Modification, read_records
from tests.labs.slapd import NESTED, PLAIN, STORED, SUFFIX, Certificates, Slapd, free_port, require_slapd

SCHEMA = Path(__file__).parents[1] / "schema"
PEOPLE = f"ou=people,{SUFFIX}"
AMY = f"uid=amy,{PEOPLE}"

TOP = f"""\
dn: {SUFFIX}
objectClass: dcObject
objectClass: organization
dc: example
o: Example

dn: {PEOPLE}
objectClass: organizationalUnit
ou: people

"""
PERSON = f"""\
dn: {AMY}
objectClass: inetOrgPerson
uid: amy
cn: Amy
sn: A
mail: amy@my.domain
mail: a@my.domain
"""


@dataclass
class Desk:
    """Where commands are given: a configuration for a server, a folder for files, what was said."""

    folder: Path
    capsys: pytest.CaptureFixture[str]
    configuration: Path

    def load(self, *arguments: str | Path) -> tuple[int, list[str], str]:
        """Runs `load`: exit status, the lines of standard output, standard error."""
        status = run(["-c", str(self.configuration), "load", *map(str, arguments)])
        said = self.capsys.readouterr()
        return status, said.out.splitlines(), said.err.rstrip("\n")

    def file(self, text: str, name: str = "a.ldif") -> Path:
        """A file with this text."""
        path = self.folder / name
        path.write_text(text, encoding="utf-8")
        return path

    def configure(self, **keys: str | bool) -> None:
        """Writes the configuration's [directory]."""
        lines = [
            f"{key} = {str(value).lower() if value in (True, False) else repr(value)}"
            for key, value in keys.items()
        ]
        uri = [
            line.replace("uri = ", "uri = [") + "]" if line.startswith("uri = ") else line for line in lines
        ]
        self.configuration.write_text("\n".join(["[directory]", *uri]) + "\n", encoding="utf-8")


@pytest.fixture
def desk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Desk:
    """A desk whose configuration is not written yet."""
    return Desk(tmp_path, capsys, tmp_path / "config.toml")


@pytest.fixture
def slapd(desk: Desk) -> Iterator[Slapd]:
    """An empty server; the desk is bound to it as its root DN, by password."""
    require_slapd()
    with Slapd(schema="ldappolicy", overlays=PLAIN) as server:
        by_password(desk, server)
        yield server


def by_password(desk: Desk, server: Slapd, **keys: str | bool) -> None:
    """Configures a simple bind as the root DN."""
    (desk.folder / "password").write_text(f"{server.root_pw}\n", encoding="utf-8")
    desk.configure(
        **{"uri": server.uri, "bind": "simple", "bind_dn": server.root_dn, "bind_pw_file": "password", **keys}
    )


@contextmanager
def reader(server: Slapd) -> Iterator[Writer]:
    """A connection of our own, for looking."""
    with connect(LdapSettings([server.ldapi_uri])) as writer:
        yield writer


def stored(server: Slapd, dn: str) -> Mapping[str, set[str]] | None:
    """The entry as the server shows it."""
    with reader(server) as writer:
        found = writer.read(dn)
    return None if found is None else {name: set(values) for name, values in found.items()}


# What the shipped files do


@pytest.mark.servers
@pytest.mark.parametrize("overlays", [STORED, NESTED, PLAIN], ids=["stored", "nested", "plain"])
def test_shipped_files_twice(desk: Desk, overlays: Sequence[str]) -> None:
    """The example and the classes are imported whole, and a second time nothing is changed."""
    require_slapd()
    with Slapd(schema="ldappolicy", overlays=overlays) as server:
        by_password(desk, server)
        files = (SCHEMA / "example.ldif", SCHEMA / "classes.ldif")
        count = [len(list(read_records(file.read_bytes(), ""))) for file in files]

        first, lines, error = desk.load(*files)
        again = desk.load(*files)

        assert (0, "") == (first, error)
        assert f"{count[0]} added, {count[1]} unchanged" == lines[-1]
        assert count[0] + 1 == len(lines)
        assert (0, [f"nothing to do, {sum(count)} unchanged"], "") == again


@pytest.mark.servers
def test_over_ldapi_as_whoever_runs_it(desk: Desk) -> None:
    """SASL EXTERNAL over the socket file is enough where the access rules say so."""
    require_slapd()
    mine = 'to * by dn.regex="^gidNumber=.*,cn=peercred,cn=external,cn=auth$" write by * read'
    with Slapd(overlays=PLAIN, access=[mine]) as server:
        desk.configure(uri=server.ldapi_uri, bind="sasl_external")

        assert (0, [f"added: {SUFFIX}", f"added: {PEOPLE}", "2 added"], "") == desk.load(desk.file(TOP))


# An entry that is there

SAME = {
    "as it was": PERSON,
    "changetype add": PERSON.replace("objectClass", "changetype: add\nobjectClass", 1),
    "other order": PERSON.replace("mail: amy@my.domain\n", "") + "mail: amy@my.domain\n",
    "names in another case": PERSON.replace("mail:", "MAIL:").replace("objectClass:", "OBJECTCLASS:"),
    "values that the server takes for the same": PERSON.replace("cn: Amy", "cn:  AMY").replace(
        "inetO", "INETo"
    ),
    "DN in another spelling": PERSON.replace(AMY, AMY.replace("uid=amy,", "UID=Amy , ")),
}
OTHER = {
    "value changed": (PERSON.replace("sn: A", "sn: Other"), "sn"),
    "value more": (PERSON + "mail: third@my.domain\n", "mail"),
    "value less": (PERSON.replace("mail: a@my.domain\n", ""), "mail"),
    "attribute more": (PERSON + "description: new\n", "description"),
    "attributes less and more": (
        PERSON.replace("mail", "description"), "description, mail"
    ),
    "class more": (PERSON + "objectClass: smtpdAccessControl\n", "objectClass"),
}  # fmt: skip


@pytest.mark.servers
@pytest.mark.parametrize("text", SAME.values(), ids=SAME.keys())
def test_same_content_is_left(desk: Desk, slapd: Slapd, text: str) -> None:
    """Content is the same when the server takes it for the same; with --replace too."""
    slapd.load(TOP + PERSON)

    assert (0, ["nothing to do, 1 unchanged"], "") == desk.load(desk.file(text))
    assert (0, ["nothing to do, 1 unchanged"], "") == desk.load("--replace", desk.file(text))


def lost_and_gained(before: Mapping[str, set[str]], after: Attributes) -> Iterator[str]:
    """Every value of one and not of the other."""
    for name in {*before, *after}:
        was, now = before.get(name, set()), set(after.get(name, ()))
        yield from (f"  - {name}: {value}" for value in was - now)
        yield from (f"  + {name}: {value}" for value in now - was)


@pytest.mark.servers
@pytest.mark.parametrize(("text", "names"), OTHER.values(), ids=OTHER.keys())
def test_other_content(desk: Desk, slapd: Slapd, text: str, names: str) -> None:
    """Other content is an error that changes nothing; with --replace the entry becomes the record."""
    slapd.load(TOP + PERSON)
    file = desk.file(text)
    before = stored(slapd, AMY)
    (record,) = read_records(text.encode(), "")

    refused = (
        f"ldappolicy: {file}:1: {AMY}: is there with other content ({names}), which only --replace changes"
    )
    assert (EX_DATAERR, ["stopped after nothing"], refused) == desk.load(file)
    assert before == stored(slapd, AMY)

    status, [first, *values, last], _ = desk.load("--replace", file)
    assert (0, f"replaced: {AMY}", "1 replaced") == (status, first, last)
    assert sorted(values) == sorted(lost_and_gained(before or {}, record.attributes))
    assert {name: set(values) for name, values in record.attributes.items()} == stored(slapd, AMY)
    assert (0, ["nothing to do, 1 unchanged"], "") == desk.load(file)


@pytest.mark.servers
def test_entry_that_is_not_shown(desk: Desk) -> None:
    """Where the identity may add but not read, an entry that is there is not taken for the same."""
    require_slapd()
    rules = [f'to dn.base="{AMY}" by dn.exact="{PEOPLE}" write by anonymous auth', "to * by * write"]
    with Slapd(overlays=PLAIN, access=rules, data=TOP + PERSON) as server:
        by_password(desk, server)
        desk.configure(uri=server.uri)  # no bind
        status, _, error = desk.load(desk.file(PERSON))

    assert EX_DATAERR == status
    assert error.startswith(f"ldappolicy: {desk.folder}/a.ldif:1: {AMY}: ")


# Values that are more than they seem


@pytest.mark.servers
def test_hostile_values(desk: Desk, slapd: Slapd) -> None:
    """Octets that are no UTF-8, special characters and long values arrive as they are, and stay."""
    dns = [
        f"cn={name},{PEOPLE}"
        for name in ("a\\2C b", "*(x)", 'O\'Brien\\+\\"q\\"', "Zoë", "\\#hash", "a\\5Cb")
    ]
    text = TOP + "".join(
        f"dn: {dn}\nobjectClass: inetOrgPerson\nsn: x\njpegPhoto:: /9j/AAD+\ndescription: {'é' * 40000}\n"
        f"userPassword:: AP8=\nmail: a*(b)\\c@my.domain\ncn: {cn}\n\n"
        for dn, cn in zip(dns, ("a, b", "*(x)", 'O\'Brien+"q"', "Zoë", "#hash", "a\\b"), strict=True)
    )

    status, _, error = desk.load(desk.file(text))
    assert (0, "") == (status, error)
    assert (0, ["nothing to do, 8 unchanged"], "") == desk.load(desk.file(text))
    for dn in dns:
        found = stored(slapd, dn)
        assert found is not None
        assert {"\udcff\udcd8\udcff\x00\x00\udcfe"} == found["jpegPhoto"]
        assert {"a*(b)\\c@my.domain"} == found["mail"]


# Change records

CHANGES = f"""\
dn: {AMY}
changetype: modify
delete: mail
mail: a@my.domain
-
add: description
description: first
-
add: mail
mail: new@my.domain
-
replace: sn
sn: B
-
replace: title

dn: {AMY}
changetype: modrdn
newrdn: uid=ann
deleteoldrdn: 1

dn: ou=former,{SUFFIX}
changetype: add
objectClass: organizationalUnit
ou: former

dn: uid=ann,{PEOPLE}
changetype: moddn
newrdn: uid=ann
deleteoldrdn: 0
newsuperior: ou=former,{SUFFIX}

dn: {PEOPLE}
changetype: delete
"""


@pytest.mark.servers
def test_change_records(desk: Desk, slapd: Slapd) -> None:
    """Modify, modrdn, moddn, add and delete are carried out in the order of the file."""
    slapd.load(TOP + PERSON)

    done = desk.load(desk.file(CHANGES))

    assert (
        0,
        [
            f"modified: {AMY}",
            f"renamed: {AMY}",
            f"added: ou=former,{SUFFIX}",
            f"renamed: uid=ann,{PEOPLE}",
            f"deleted: {PEOPLE}",
            "1 added, 1 modified, 2 renamed, 1 deleted",
        ],
        "",
    ) == done
    assert stored(slapd, PEOPLE) is None
    assert {
        "objectClass": {"inetOrgPerson"},
        "uid": {"ann"},
        "cn": {"Amy"},
        "sn": {"B"},
        "mail": {"amy@my.domain", "new@my.domain"},
        "description": {"first"},
    } == stored(slapd, f"uid=ann,ou=former,{SUFFIX}")


@pytest.mark.servers
def test_modifications_keep_their_order(desk: Desk, slapd: Slapd) -> None:
    """Changes of one attribute are not put together: what was added in between counts."""
    slapd.load(TOP + PERSON)
    text = (
        f"dn: {AMY}\nchangetype: modify\nreplace: mail\n-\n"
        "replace: sn\nsn: C\n-\nadd: mail\nmail: a@my.domain\n-\n"
    )

    assert 0 == desk.load(desk.file(text))[0]
    assert {"a@my.domain"} == (stored(slapd, AMY) or {})["mail"]


# What is refused: (text, the line, the DN, what is said)
REFUSED = {
    "missing parent": (
        f"dn: uid=x,ou=none,{SUFFIX}\nobjectClass: account\nuid: x\n",
        1,
        f"uid=x,ou=none,{SUFFIX}: add refused by URI: noSuchObject (32): there is only '{SUFFIX}'",
    ),
    "outside": (
        "dn: dc=elsewhere\nobjectClass: domain\ndc: elsewhere\n",
        1,
        "dc=elsewhere: add refused by URI: unwillingToPerform (53): no global superior knowledge",
    ),
    "unknown attribute": (
        f"dn: cn=x,{PEOPLE}\nobjectClass: person\ncn: x\nsn: x\nsmtpdNone: x\n",
        1,
        (f"cn=x,{PEOPLE}: add refused by URI: undefinedAttributeType (17): "
        "smtpdNone: attribute type undefined"),
    ),
    "no object class": (
        f"\n\ndn: cn=x,{PEOPLE}\ncn: x\n",
        3,
        f"cn=x,{PEOPLE}: add refused by URI: objectClassViolation (65): no objectClass attribute",
    ),
    "not a DN": (
        "dn: nonsense\ncn: x\n",
        1,
        "not a DN: 'nonsense', expected type=value (RFC 4514) at character 1",
    ),
    "modify what is not there": (
        f"dn: uid=x,{PEOPLE}\nchangetype: modify\nadd: mail\nmail: x@y\n",
        1,
        f"uid=x,{PEOPLE}: modify refused by URI: noSuchObject (32): there is only '{PEOPLE}'",
    ),
    "delete what is not there": (
        f"dn: uid=x,{PEOPLE}\nchangetype: delete\n",
        1,
        f"uid=x,{PEOPLE}: delete refused by URI: noSuchObject (32): there is only '{PEOPLE}'",
    ),
    "delete what has entries below": (
        f"dn: {PEOPLE}\nchangetype: delete\n",
        1,
        (f"{PEOPLE}: delete refused by URI: notAllowedOnNonLeaf (66): "
        "subordinate objects must be deleted first"),
    ),
    "rename onto another": (
        f"dn: {AMY}\nchangetype: modrdn\nnewrdn: uid=bob\ndeleteoldrdn: 1\n",
        1,
        f"{AMY}: rename refused by URI: entryAlreadyExists (68)",
    ),
}  # fmt: skip


@pytest.mark.servers
@pytest.mark.parametrize(("text", "line", "said"), REFUSED.values(), ids=REFUSED.keys())
def test_refused(desk: Desk, slapd: Slapd, text: str, line: int, said: str) -> None:
    """What the server refuses is one line: file, line, DN, server, result; most is known beforehand."""
    slapd.load(TOP + PERSON + f"\ndn: uid=bob,{PEOPLE}\nobjectClass: account\nuid: bob\n")
    file = desk.file(text)

    expected = f"ldappolicy: {file}:{line}: {said.replace('URI', slapd.uri)}"
    status, lines, error = desk.load("--force", file)
    assert (EX_DATAERR, ["stopped after nothing"], expected) == (status, lines, error.splitlines()[-1])
    status, lines, error = desk.load(file)
    assert (EX_DATAERR, ["stopped after nothing"]) == (status, lines)
    assert error.startswith(f"ldappolicy: {file}:{line}: ")
    assert "\n" not in error


@pytest.mark.servers
def test_stops_at_the_first_error(desk: Desk, slapd: Slapd) -> None:
    """Nothing is done where it is known beforehand; forced, what stands before the error is done and said."""
    bad = f"dn: uid=x,ou=none,{SUFFIX}\nobjectClass: account\nuid: x\n\n"

    files = desk.file(TOP, "1.ldif"), desk.file(bad + PERSON, "2.ldif")
    where = f"{desk.folder}/2.ldif:1: uid=x,ou=none,{SUFFIX}: "

    said = f"ldappolicy: {where}the entry above it is not there"
    assert (EX_DATAERR, ["stopped after nothing"], said) == desk.load(*files)
    assert stored(slapd, SUFFIX) is None

    status, lines, error = desk.load("--force", *files)

    assert EX_DATAERR == status
    assert [f"added: {SUFFIX}", f"added: {PEOPLE}", "stopped after 2 added"] == lines
    assert error.splitlines()[-1].startswith(f"ldappolicy: {where}")
    assert stored(slapd, AMY) is None


@pytest.mark.servers
def test_files_are_read_before_anything_is_changed(desk: Desk, slapd: Slapd) -> None:
    """A fault in the last line of the last file, or a file that is not there, changes nothing."""
    good, bad = desk.file(TOP, "1.ldif"), desk.file(PERSON + "nonsense\n", "2.ldif")
    absent = desk.folder / "3.ldif"

    fault = f"ldappolicy: {bad}:8: 'nonsense', expected 'attribute: value'"
    assert (EX_DATAERR, [], fault) == desk.load(good, bad)
    missing = f"ldappolicy: {absent}: cannot be read: no such file or directory, expected an LDIF file"
    assert (EX_DATAERR, [], missing) == desk.load(good, absent)
    assert stored(slapd, SUFFIX) is None


@pytest.mark.servers
def test_plain_output_of_a_search(desk: Desk, slapd: Slapd) -> None:
    """What ldapsearch prints without -LLL is loaded; each reference is a warning."""
    file = desk.file(f"{TOP}\nref: ldap://b.example/\n\nsearch: 2\nresult: 0 Success\n")

    status, lines, error = desk.load(file)

    assert (0, "2 added") == (status, lines[-1])
    place = f"{file}:{TOP.count(chr(10)) + 2}"
    told = "ref: 'ldap://b.example/' was not followed, the entries there are missing"
    assert f"ldappolicy: warning: {place}: {told}" == error


@pytest.mark.servers
def test_names_cannot_drive_the_terminal(desk: Desk, slapd: Slapd) -> None:
    """Control characters in a DN are shown as escapes."""
    text = "dn:: " + "Y249ABtbMm0=" + "\nchangetype: delete\n"  # cn= NUL ESC [2m

    status, _, error = desk.load(desk.file(text))

    assert EX_DATAERR == status
    assert error.isprintable()


# A rehearsal


@pytest.mark.servers
def test_dry_run(desk: Desk, slapd: Slapd) -> None:
    """All of it is said and nothing done: additions below additions, replacements, changes."""
    slapd.load(TOP + PERSON)
    text = (
        PERSON.replace("sn: A", "sn: Other")
        + f"\ndn: ou=a\\, b,{SUFFIX}\nobjectClass: organizationalUnit\nou: a, b\n"
        + f'\ndn: cn=x,ou="a, b",{SUFFIX}\nobjectClass: person\ncn: x\nsn: x\n'
        + f"\ndn: {PEOPLE}\nobjectClass: organizationalUnit\nou: people\n\n"
        + CHANGES
    )
    before = stored(slapd, AMY)
    file = desk.file(text)

    rehearsed = desk.load("--dry-run", "--replace", file)

    assert before == stored(slapd, AMY)
    assert stored(slapd, f"ou=a\\, b,{SUFFIX}") is None
    status, lines, _ = desk.load("--replace", file)
    assert 0 == status
    would = [line if line.startswith(" ") else f"would be {line}" for line in lines[:-1]]
    expected = [*would, f"dry run, nothing was changed: {lines[-1]}"]
    assert (0, expected, "") == rehearsed
    assert "3 added, 1 unchanged, 1 replaced, 1 modified, 2 renamed, 1 deleted" == lines[-1]


REHEARSED_FAULTS = {
    "missing parent": (REFUSED["missing parent"][0], "the entry above it is not there"),
    "outside": (REFUSED["outside"][0], "is below none of the suffixes of the server"),
    "modify what is not there": (REFUSED["modify what is not there"][0], "is not there"),
    "delete what is not there": (REFUSED["delete what is not there"][0], "is not there"),
    "rename what is not there": (
        f"dn: uid=x,{PEOPLE}\nchangetype: modrdn\nnewrdn: uid=y\ndeleteoldrdn: 1\n",
        "is not there",
    ),
    "rename onto another": (
        f"dn: {AMY}\nchangetype: modrdn\nnewrdn: ou=people\ndeleteoldrdn: 1\nnewsuperior: {SUFFIX}\n",
        f"'ou=people,{SUFFIX}' is there already",
    ),
    "other content": (
        OTHER["value changed"][0],
        "is there with other content (sn), which only --replace changes",
    ),
}


@pytest.mark.servers
@pytest.mark.parametrize(("text", "said"), REHEARSED_FAULTS.values(), ids=REHEARSED_FAULTS.keys())
def test_dry_run_finds(desk: Desk, slapd: Slapd, text: str, said: str) -> None:
    """A rehearsal ends where the import would, if that can be known from the entries."""
    slapd.load(TOP + PERSON)

    status, lines, error = desk.load("--dry-run", desk.file(text))

    assert (EX_DATAERR, ["stopped after nothing"]) == (status, lines)
    assert error.endswith(f": {said}")


class Memory:
    """A Target that holds entries by their DN as spelled, and takes no change."""

    def __init__(self, entries: Mapping[str, Attributes]) -> None:
        self.entries = entries

    def read(self, dn: str) -> Attributes | None:
        """The entry."""
        return self.entries.get(dn)

    def holds(self, dn: str, name: str, value: str) -> bool:
        """Octet by octet."""
        return value in self.entries[dn].get(name, ())

    def add(self, *_: object) -> bool:
        """Never."""
        raise AssertionError

    def modify(self, *_: object) -> None:
        """Never."""
        raise AssertionError

    rename = delete = modify


MODIFICATIONS: dict[str, tuple[list[Modification], dict[str, tuple[str, ...]]]] = {
    "add": ([("add", "Mail", ("c",))], {"mail": ("a", "b", "c")}),
    "delete a value": ([("delete", "mail", ("a",))], {"mail": ("b",)}),
    "delete all": ([("delete", "mail", ())], {}),
    "replace": ([("replace", "mail", ("x",))], {"mail": ("x",)}),
    "replace by nothing": ([("replace", "mail", ())], {}),
    "increment": ([("increment", "mail", ("1",))], {"mail": ("a", "b")}),
    "in order": (
        [("delete", "mail", ()), ("add", "sn", ("s",)), ("add", "mail", ("z",))],
        {"sn": ("s",), "mail": ("z",)},
    ),
}  # fmt: skip


@pytest.mark.parametrize(("modifications", "after"), MODIFICATIONS.values(), ids=MODIFICATIONS.keys())
def test_rehearsed_modification(modifications: list[Modification], after: dict[str, tuple[str, ...]]) -> None:
    """What is read after a rehearsed change is the changed entry."""
    rehearsal = Rehearsal(Memory({AMY: {"mail": ("a", "b")}}), ())

    rehearsal.modify(AMY, modifications)

    assert after == rehearsal.read(AMY.upper())


def test_rehearsed_removal_takes_what_is_below() -> None:
    """What stood below an entry that was deleted or renamed is not there any more."""
    rehearsal = Rehearsal(Memory({PEOPLE: {"ou": ("people",)}, AMY: {"uid": ("amy",)}}), ())

    rehearsal.rename(PEOPLE, "ou=staff", True, None)

    assert rehearsal.read(AMY) is None
    assert {"ou": ("people",)} == rehearsal.read(f"ou=staff,{SUFFIX}")
    assert rehearsal.add(PEOPLE, {"ou": ("people",)})
    assert rehearsal.holds(PEOPLE, "OU", "people")


def test_empty_modification_is_nothing() -> None:
    """A modify record without modifications asks nothing of the directory."""
    (record,) = read_records(f"dn: {AMY}\nchangetype: modify\n".encode(), "")

    assert "unchanged" == carry_out(record, Memory({}), replace=False).outcome.value


# The server, and who we are to it


@pytest.mark.servers
def test_wrong_password(desk: Desk, slapd: Slapd) -> None:
    """A refused bind is one line with the server, the identity and the result, without the password."""
    (desk.folder / "password").write_text("wrong\n")

    expected = (
        f"ldappolicy: the directory is unavailable: {slapd.uri}: simple bind '{slapd.root_dn}': "
        "invalidCredentials (49)"
    )
    assert (EX_UNAVAILABLE, [], expected) == desk.load(desk.file(TOP))


@pytest.mark.servers
def test_no_bind(desk: Desk, slapd: Slapd) -> None:
    """Without a bind the server says what it wants."""
    desk.configure(uri=slapd.uri)
    file = desk.file(TOP)

    status, _, error = desk.load(file)

    assert EX_DATAERR == status
    assert f"ldappolicy: {file}:1: {SUFFIX}: add refused by {slapd.uri}: strongerAuthRequired (8)" in error


def test_server_down(desk: Desk) -> None:
    """Nobody listens: one line with the server and why."""
    uri = f"ldap://127.0.0.1:{free_port()}"
    desk.configure(uri=uri)

    status, lines, error = desk.load(desk.file(TOP))

    assert (EX_UNAVAILABLE, []) == (status, lines)
    assert error.startswith(f"ldappolicy: the directory is unavailable: {uri}: ")
    assert error.endswith(": connection refused")


@pytest.mark.servers
def test_second_server_takes_over(desk: Desk, slapd: Slapd) -> None:
    """Servers are tried in order."""
    down = f"ldap://127.0.0.1:{free_port()}"
    text = desk.configuration.read_text().replace("uri = [", f"uri = ['{down}', ")
    desk.configuration.write_text(text)

    assert 0 == desk.load(desk.file(TOP))[0]


@pytest.mark.servers
def test_server_hangs(desk: Desk, slapd: Slapd) -> None:
    """A server that does not answer the bind is given up after the timeout."""
    by_password(desk, slapd, timeout="300ms")
    slapd.suspend()

    expected = f"ldappolicy: the directory is unavailable: {slapd.uri}: no answer within 0.3 s"
    assert (EX_UNAVAILABLE, [], expected) == desk.load(desk.file(TOP))


@pytest.mark.servers
def test_server_hangs_in_the_middle(slapd: Slapd) -> None:
    """A change that gets no answer is given up, and said to be so."""
    with connect(LdapSettings([slapd.uri]), write_timeout=0.3) as writer:
        slapd.suspend()
        with pytest.raises(Unavailable) as raised:
            writer.delete(AMY)
        slapd.resume()

    assert f"{AMY}: {slapd.uri}: no answer within 0.3 s" == str(raised.value)


@pytest.mark.servers
def test_server_goes_away(slapd: Slapd) -> None:
    """A connection that was lost is unavailable, then and from then on."""
    with connect(LdapSettings([slapd.uri])) as writer:
        slapd.kill()
        for _ in range(2):
            with pytest.raises(Unavailable, match=f"{AMY}: {slapd.uri}: "):
                writer.delete(AMY)


@contextmanager
def impostor(
    operation: int, code: int, rest: bytes = b"", behind: bytes = b""
) -> Iterator[tuple[str, bytearray]]:
    """A server that answers the first request with this, and what is `behind`; its URI, what it was sent."""
    heard = bytearray()

    def serve() -> None:
        with listener.accept()[0] as connection:
            heard.extend(connection.recv(65536))
            connection.sendall(answer(bytes(heard), operation, code, rest) + behind)
            while data := connection.recv(65536):
                heard.extend(data)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"ldap://127.0.0.1:{listener.getsockname()[1]}", heard
        thread.join(60)


def answer(request: bytes, operation: int, code: int, rest: bytes) -> bytes:
    """An LDAPResult in BER, for the number of the request; nonsense without an operation."""
    if not operation:
        return b"HTTP/1.1 400 Bad Request\r\n\r\n" * 8
    number = request[2 : 4 + request[3]]  # lengths are short here
    body = bytes((0x0A, 1, code, 4, 0, 4, 0)) + rest
    message = number + bytes((operation, len(body))) + body
    return bytes((0x30, len(message))) + message


DELETED, EXTENDED = 0x6B, 0x78
REFERRAL = b"\xa3\x1a\x04\x18ldap://127.0.0.1:1/dc=x,"
ANSWERS = {
    "busy": (DELETED, 51, b"", "delete refused by URI: busy (51)"),
    "referral": (DELETED, 10, REFERRAL, "delete refused by URI: referral (10)"),
    "unknown result": (DELETED, 90, b"", "URI: an answer that cannot be read"),
    "not LDAP": (0, 0, b"", "URI: "),
}


@pytest.mark.parametrize(("operation", "code", "rest", "said"), ANSWERS.values(), ids=ANSWERS.keys())
def test_answers_that_are_none(operation: int, code: int, rest: bytes, said: str) -> None:
    """A server that cannot do it now, refers elsewhere, or says nonsense is unavailable."""
    seconds = 60.0 if operation else 0.5  # the rest of what is not LDAP is waited for
    with (
        impostor(operation, code, rest) as (uri, _),
        connect(LdapSettings([uri]), write_timeout=seconds) as writer,
        pytest.raises(Unavailable) as raised,
    ):
        writer.delete(AMY)

    assert str(raised.value).startswith(f"{AMY}: {said.replace('URI', uri)}")


def test_trickle() -> None:
    """A server that sends a byte now and then does not hold us beyond the deadline."""
    stop = threading.Event()

    def trickle() -> None:
        with listener.accept()[0] as connection:
            connection.sendall(b"\x30\x84\x00\x01\x00\x00")
            while not stop.wait(0.05):
                try:
                    connection.sendall(b"\0")
                except OSError:
                    return

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=trickle, daemon=True)
        thread.start()
        uri = f"ldap://127.0.0.1:{listener.getsockname()[1]}"
        with connect(LdapSettings([uri]), write_timeout=0.3) as writer, pytest.raises(Unavailable) as raised:
            writer.delete(AMY)
        stop.set()
        thread.join(60)

    assert f"{AMY}: {uri}: no answer within 0.3 s" == str(raised.value)


@pytest.mark.servers
@pytest.mark.parametrize("dn", [AMY + "\udcff", "\udc80"])
def test_dn_that_is_not_utf8(slapd: Slapd, dn: str) -> None:
    """Such a DN is refused before it is sent."""
    with reader(slapd) as writer, pytest.raises(InputError, match="expected a DN in UTF-8"):
        writer.delete(dn)


# TLS


@pytest.mark.servers
@pytest.mark.parametrize("how", ["ldaps", "StartTLS"])
def test_over_tls(desk: Desk, how: str) -> None:
    """The password goes out after the certificate was verified, by address too."""
    require_slapd()
    certificates = Certificates.issue(desk.folder)
    with Slapd(overlays=PLAIN, certificates=certificates) as server:
        by_password(desk, server, tls_ca_cert_file="ca.pem", **tls(server, how))

        assert 0 == desk.load(desk.file(TOP))[0]


@pytest.mark.servers
@pytest.mark.parametrize("how", ["ldaps", "StartTLS"])
@pytest.mark.parametrize("wrong", ["authority", "name"])
def test_wrong_certificate(desk: Desk, how: str, wrong: str) -> None:
    """With the wrong authority or the wrong name no bind is sent at all."""
    require_slapd()
    (desk.folder / "other").mkdir()
    certificates = Certificates.issue(desk.folder, *(["elsewhere.example"] if wrong == "name" else []))
    Certificates.issue(desk.folder / "other")
    ca_file = "ca.pem" if wrong == "name" else "other/ca.pem"
    with Slapd(overlays=PLAIN, certificates=certificates) as server:
        by_password(desk, server, tls_ca_cert_file=ca_file, **tls(server, how))

        status, _, error = desk.load(desk.file(TOP))

        assert EX_UNAVAILABLE == status
        assert "certificate not accepted" in error
        assert " BIND " not in server.log.read_text(encoding="utf-8", errors="replace")


def tls(server: Slapd, how: str) -> dict[str, str | bool]:
    """What the configuration says for ldaps, or for StartTLS."""
    return {"uri": server.ldaps_uri} if how == "ldaps" else {"uri": server.uri, "start_tls": True}


@pytest.mark.parametrize(
    ("code", "behind", "expected"),
    [
        (2, b"", r"StartTLS: protocolError \(2\)"),
        (0, b"0", "StartTLS: more than an answer in clear text"),
        (0, answer(b"\x30\x05\x02\x01\x02", DELETED, 0, b""), "StartTLS: more than an answer in clear text"),
    ],
    ids=["refused", "a part of a message", "a message"],
)
def test_start_tls_refused(code: int, behind: bytes, expected: str) -> None:
    """A server (or whoever sits in between) that refuses, or says more, gets no password in clear text."""
    with impostor(EXTENDED, code, behind=behind) as (uri, heard):
        secret = Path(__file__)  # any file will do for a password
        settings = LdapSettings(
            [uri], bind="simple", bind_dn="cn=root", bind_pw_file=str(secret), start_tls=True
        )
        with pytest.raises(Unavailable, match=expected):
            connect(settings)

    assert b"cn=root" not in heard


# The configuration


def test_embedded_directory(desk: Desk) -> None:
    """An LDIF file is not loaded into."""
    file = desk.file(TOP)
    desk.configure(uri="ldif:a.ldif")

    expected = (
        f"ldappolicy: {desk.configuration}: [directory] uri: expected a server for 'load', got 'ldif:{file}'"
    )
    assert (EX_CONFIG, [], expected) == desk.load(file)


def test_no_file(desk: Desk) -> None:
    """At least one file is expected."""
    desk.configure(uri="ldapi:///")
    assert (EX_USAGE, [], "ldappolicy: missing argument 'FILE...' (see ldappolicy --help)") == desk.load()


@pytest.mark.servers
def test_empty_file(desk: Desk, slapd: Slapd) -> None:
    """A file of comments is nothing to do."""
    assert (0, ["nothing to do"], "") == desk.load(desk.file("# nothing\n"))
