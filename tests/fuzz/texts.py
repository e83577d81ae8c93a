"""Targets: texts of administrators and directories: LDIF, DNs, filters, URLs, configurations, snapshots."""

import hashlib
import re
import tempfile
from contextlib import suppress
from pathlib import Path

from ldappolicy import config, snapshot
from ldappolicy.directory.ldap.requests import filter_octets
from ldappolicy.directory.ldif import LdifDirectory
from ldappolicy.directory.matching import matcher
from ldappolicy.entry import Entry, is_below, key_of_dn, normal_dn
from ldappolicy.errors import ConfigError, InputError, Unavailable
from ldappolicy.ldap_filter import attributes_in, parse, parse_url, to_text
from ldappolicy.ldif import Record, format_entry, format_record, read_records
from ldappolicy.main_cf import read_main_cf, read_master_cf
from tests.fuzz.target import Target, growths, kind_of, text_of


def ldif(data: bytes) -> str:
    """What is printed is read again; CR LF means LF; a directory of it is what it was."""
    try:
        records = list(read_records(data, "f"))
    except InputError as error:
        return kind_of(error)
    contents = [record for record in records if record.changetype is None]
    printed = "\n".join(format_record(record.dn, record.attributes.items()) for record in contents)
    assert list(map(_said, contents)) == list(map(_said, read_records(printed.encode(), "f")))
    if b"\r" not in data:
        assert records == list(read_records(data.replace(b"\n", b"\r\n"), "f"))
    try:
        directory = LdifDirectory.parse(data, "f")
    except InputError as error:
        return kind_of(error)
    printed = "\n".join(map(format_entry, directory))
    assert list(directory) == list(LdifDirectory.parse(printed.encode(), "f"))
    return f"{min(len(records), 3)} {records[0].changetype if records else ''}"


def _said(record: Record) -> tuple[str, dict[str, tuple[str, ...]]]:
    return record.dn, record.attributes


def distinguished_name(data: bytes) -> str:
    """The normal form is one; a name is below its parents alone."""
    dn = text_of(data)
    try:
        normal = normal_dn(dn)
    except InputError as error:
        assert not key_of_dn(dn)
        return kind_of(error)
    assert (
        normal == normal_dn(normal) == Entry(dn, {}).key == normal_dn(dn.swapcase() if dn.isascii() else dn)
    )
    parent = normal.partition(",")[2]
    assert is_below(normal, parent)
    assert not parent or not is_below(parent, normal)
    assert not parent or normal_dn(parent) == parent
    return f"{min(normal.count(','), 3)} {normal.count('+') > 0} {chr(92) in normal}"


ENTRY = Entry(
    "uid=amy,ou=people,dc=example,dc=com",
    {"objectClass": ["inetOrgPerson"], "uid": ["amy"], "mail": ["amy@my.domain", "a m"], "uidNumber": ["7"]},
)


def search_filter(data: bytes) -> str:
    """What is printed is read again; it is sent, and matches or does not."""
    try:
        tree = parse(text_of(data))
    except InputError as error:
        return kind_of(error)
    printed = to_text(tree)
    assert parse(printed) == tree
    assert to_text(parse(printed)) == printed
    assert len(list(attributes_in(tree))) <= len(data)
    assert len(filter_octets(tree)) <= 100 + 30 * len(data)
    try:
        matches = matcher(tree)(ENTRY)
    except Unavailable as error:
        return kind_of(error)
    return f"{type(tree).__name__} {matches}"


def ldap_url(data: bytes) -> str:
    """A URL names no host, and its filter is one."""
    try:
        url = parse_url(text_of(data))
    except InputError as error:
        return kind_of(error)
    assert url.scope in (0, 1, 2)
    assert parse(to_text(url.filter)) == url.filter
    return f"{url.scope} {len(url.attributes)} {type(url.filter).__name__}"


def configuration(data: bytes) -> str:
    """A configuration, or complaints of one line each that begin with the place."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return "not UTF-8"
    try:
        found = config.parse(text, "f")
    except ConfigError as error:
        return _complaints(error, text.count("\n") + 1)
    assert found.directory.uri
    return "fine"


def _complaints(error: ConfigError, lines: int) -> str:
    """Each is of this text, and names a line of it if any."""
    assert error.complaints
    for complaint in error.complaints:
        place = re.match(r"f(?::(\d+))?: ", complaint)
        assert place is not None, complaint
        assert place[1] is None or 1 <= int(place[1]) <= lines, complaint
    return " ".join(kind_of(ConfigError(complaint)) for complaint in error.complaints)


NAMES = ("smtpd_recipient_restrictions", "mynetworks", "myhostname", "mydomain", "a", "b", "relay_domains")


def main_cf(data: bytes) -> str:
    """Parameters with their values, and services, or one line that says where it went wrong."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "main.cf"
        path.write_bytes(data)
        said = []
        try:
            read = read_main_cf(path)
            for name in NAMES:
                with suppress(InputError):
                    read.get(name)
                    read.lacking(name)
                read.where(name)
            said.append(str(len(read.definitions)))
        except InputError as error:
            said.append(kind_of(InputError(str(error).replace(folder, ""))))
        try:
            said.append(str(len(read_master_cf(path))))
        except InputError as error:
            said.append(kind_of(InputError(str(error).replace(folder, ""))))
        return " ".join(said)


HEADER = b'{"ldappolicy snapshot":1,"written":1000.5,"site":"s"}\n'


def snapshot_file(data: bytes) -> str:
    """Whatever stands in the file, with a checksum or without: believed as a whole, or not at all."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "snapshot"
        said = []
        for content in (data, _summed(data), _summed(HEADER + data)):
            path.write_bytes(content)
            path.chmod(0o600)
            try:
                known = snapshot.read(path, "s", 2000.0)
            except (InputError, ConfigError) as error:
                said.append(kind_of(type(error)(str(error).replace(folder, ""))))
                continue
            assert known is not None
            said.append(f"{min(len(known.policies), 2)} {min(len(list(known.outcomes)), 2)}")
            _reads_again(path, known)
        return " ".join(said)


def _summed(data: bytes) -> bytes:
    return data + b"sha256 %s\n" % hashlib.sha256(data).hexdigest().encode()


def _reads_again(path: Path, known: snapshot.Snapshot) -> None:
    for lookup, entries, age in known.outcomes:
        assert all(isinstance(part, str) for part in lookup)
        assert all(isinstance(entry, Entry) for entry in entries)
        assert 999.5 <= age < 2e12
    snapshot.write(path, known)
    again = snapshot.read(path, "s", known.written)
    assert again is not None
    assert (list(again.policies), list(again.outcomes)) == (list(known.policies), list(known.outcomes))


TARGETS = (
    Target(
        "ldif",
        ldif,
        growths(
            ("dn: o=x\n", "a: b\n", ""),
            ("dn: o=x\na: ", "b\n ", ""),
            ("dn: o=x\na:: ", "YWFh", ""),
            ("", "# x\n", "dn: o=x\na: b\n"),
            ("", "#x\n x\n", "dn: o=x\na: b\n"),
            ("", "\n", "dn: o=x\na: b\n"),
            ("dn: o=x\nchangetype: modify\n", "add: a\na: b\n-\n", ""),
            ("dn: ", "cn=a,", "o=x\na: b\n"),
            ("dn: o=x\n#", "x\n", "a\n"),
            ("dn: o=x\n", "a: b\n#\n", "a\n"),
        ),
    ),
    Target(
        "dn",
        distinguished_name,
        growths(
            ("", "cn=a,", "o=x"),
            ("cn=", "\\,", ""),
            ('cn="', "\\a", '"'),
            ("cn=#", "04", ""),
            ("cn=", "a ", ""),
            ("", "cn=a+", "cn=b"),
            ("cn=", " ", ""),
            ("cn=", "\u0301", ""),
        ),
    ),
    Target(
        "filter",
        search_filter,
        growths(
            ("(|", "(a=b)", ")"),
            ("", "(!", ""),
            ("(a=", "*b", ")"),
            ("(a=", "\\2a", ")"),
            ("(mail=", "a*", "b)"),
            ("(a", ";b", "=c)"),
            ("(", "a", ")"),
            ("(a:", "b.", ":=c)"),
            ("", " ", "(a=b)"),
        ),
    ),
    Target(
        "url",
        ldap_url,
        growths(
            ("ldap:///", "%2c", "?mail"),
            ("ldap:///?", "mail,", "?sub"),
            ("ldap:///?mail?sub?(|", "(a=b)", ")"),
            ("ldap:///????", "x,", ""),
        ),
    ),
    Target(
        "config",
        configuration,
        growths(
            ("[server]\nlisten = [\n", "'inet:127.0.0.1:1',\n", "]\nx = 1\n"),
            ("x = ", "[", ""),
            ("x = ", "{a = ", ""),
            ("", "# x\n", "x = 1\n"),
            ("[directory]\nfilter = '''", "x\n", "'''\ny = 1\n"),
            ("[log]\nlevel = '", "x", "'\n"),
        ),
    ),
    Target(
        "main_cf",
        main_cf,
        growths(
            ("a = ", "x\n ", ""),
            ("a = ", "$b", ""),
            ("a = ", "${b?", ""),
            ("a = ", "{", ""),
            ("", "a = b\n", ""),
            ("a = ", "$$", ""),
            ("a = ", "${{b} == {b} ? {", ""),
            ("smtp inet n - n - - smtpd ", "-o a=b ", ""),
            ("smtp inet n - n - - smtpd ", "{ ", ""),
        ),
    ),
    Target(
        "snapshot",
        snapshot_file,
        growths(
            ("", '[["mail","a@b"],1,[]]\n', ""),
            ("", "[", ""),
            ('["o=x",{"a":[', '"b",', '"b"]}]\n'),
            ("", "\n", ""),
            ("[[", '"a",', '"b"],1,[]]\n'),
        ),
    ),
)
