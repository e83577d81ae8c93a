"""`ldappolicy schema`: what is listed and shown, and what a running slapd holds after `install`."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ldappolicy.cli import EX_CONFIG, EX_DATAERR, EX_USAGE, run
from ldappolicy.cli.schema import kind_of_server
from ldappolicy.directory import Scope
from ldappolicy.directory.ldap import LdapSettings
from ldappolicy.directory.ldap.installing.openldap import KINDS
from ldappolicy.directory.ldap.writing import connect
from ldappolicy.directory.loading import Attributes
from ldappolicy.ldif import read_records
from ldappolicy.schema_files import SCHEMA_FILES
from tests.labs.desk import Desk
from tests.labs.server import tree_of
from tests.labs.slapd import PLAIN, SUFFIX, Slapd, require_slapd

SCHEMA = Path(__file__).parents[1] / "schema"
RULES = ["access_openldap", "access_389ds", "access_active_directory"]
NAMES = ["openldap", "slapd", "389ds", "active_directory", "classes", "example", *RULES]

TOP = tree_of()


@pytest.fixture
def desk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Desk:
    """A desk whose configuration is not written yet."""
    return Desk(tmp_path, capsys)


@pytest.fixture
def slapd(desk: Desk) -> Iterator[Slapd]:
    """A server without our schema; the desk is bound over ldapi as whoever runs the tests."""
    require_slapd()
    with Slapd(overlays=PLAIN, data=TOP) as server:
        desk.configure(server.ldapi_uri, "bind = 'sasl_external'")
        yield server


def schemas(server: Slapd) -> dict[str, dict[str, list[str]]]:
    """The entries below cn=schema,cn=config: the definitions of each."""
    with connect(LdapSettings([server.ldapi_uri], bind="sasl_external")) as writer:
        found = writer.search("cn=schema,cn=config", Scope.ONE, tuple(KINDS))
    return {dn: {name: list(values) for name, values in held.items()} for dn, held in found}


def in_words(definition: str) -> str:
    """A definition without its number and its folding."""
    return " ".join(re.sub(r"^\{\d+\}", "", definition).split())


def ours(server: Slapd) -> tuple[str, list[str]]:
    """The entry that has our attribute types, and all its definitions in order."""
    (found,) = ((dn, held) for dn, held in schemas(server).items() if "ldappolicy" in dn)
    return found[0], [in_words(text) for kind in KINDS for text in found[1][kind]]


def shipped() -> list[str]:
    """The definitions of ldappolicy.ldif, in order."""
    (record,) = read_records((SCHEMA / "ldappolicy.ldif").read_bytes(), "ldappolicy.ldif")
    return [in_words(text) for kind in KINDS for text in record.attributes[kind]]


OUR_DN = "cn={6}ldappolicy,cn=schema,cn=config"
ADDED = f"added: {OUR_DN}: 30 attribute types, 4 object classes"
DATABASE = "olcDatabase={1}mdb,cn=config"
CLOSED = [
    f"added: {DATABASE}: olcAccess for 30 attributes, written by nobody but the root DN",
    f"replaced: {DATABASE}: olcAddContentAcl: TRUE",
]


# list, show


def test_list(desk: Desk) -> None:
    """Every shipped form is listed with its file; no configuration is needed."""
    status, lines, error = desk.schema("list")

    assert (0, "") == (status, error)
    assert [[name, SCHEMA_FILES[name].file] for name in NAMES] == [line.split()[:2] for line in lines]


@pytest.mark.parametrize("name", NAMES)
def test_show(capfdbinary: pytest.CaptureFixture[bytes], name: str) -> None:
    """A file is shown as it is, octet by octet."""
    assert 0 == run(["schema", "show", name])
    assert (SCHEMA / SCHEMA_FILES[name].file).read_bytes() == capfdbinary.readouterr().out


def test_every_file_has_a_name() -> None:
    """The access rules as well, which a site fills in by hand."""
    named = {shipped.file for shipped in SCHEMA_FILES.values()}
    assert named == {path.name for path in SCHEMA.iterdir()}


# install, into cn=config


@pytest.mark.servers
@pytest.mark.parametrize("name", [[], ["openldap"]], ids=["by the root DSE", "by name"])
def test_install_twice(desk: Desk, slapd: Slapd, name: list[str]) -> None:
    """A running slapd has the schema, whole; the second time nothing is changed."""
    assert (0, [ADDED, *CLOSED], "") == desk.schema("install", *name)
    assert (OUR_DN, shipped()) == ours(slapd)
    before = schemas(slapd)

    assert (0, ["nothing to do"], "") == desk.schema("install", *name)
    assert before == schemas(slapd)


@pytest.mark.servers
def test_installed_is_as_loaded_by_ldapadd(desk: Desk, slapd: Slapd) -> None:
    """What somebody imported with ldapadd is all there."""
    slapd.configure((SCHEMA / "ldappolicy.ldif").read_text(encoding="utf-8"))

    assert (0, ["nothing to do"], "") == desk.schema("install", "--no-access")


@pytest.mark.servers
def test_install_survives_a_restart(desk: Desk, slapd: Slapd) -> None:
    """slapd keeps it, and starts with it."""
    desk.schema("install")
    slapd.restart()

    assert (0, ["nothing to do"], "") == desk.schema("install")


def older(slapd: Slapd, *, dn: str = OUR_DN) -> None:
    """Takes smtpdMyorigin away, and from the class that allows it, as an older version had it."""
    held = schemas(slapd)[dn]
    types, classes = (held[kind] for kind in KINDS)
    (policy,) = (text for text in classes if "'smtpdPolicy'" in text)
    (origin,) = (text for text in types if "'smtpdMyorigin'" in text)
    without = policy.replace(" $ smtpdMyorigin", "")
    slapd.configure(
        f"dn: {dn}\nchangetype: modify\ndelete: olcObjectClasses\nolcObjectClasses: {policy}\n-\n"
        f"add: olcObjectClasses\nolcObjectClasses: {without}\n-\n"
        f"delete: olcAttributeTypes\nolcAttributeTypes: {origin}\n"
    )


@pytest.mark.servers
def test_older_version(desk: Desk, slapd: Slapd) -> None:
    """What is missing is added, a class that has grown is exchanged, even in use; then nothing is left."""
    desk.schema("install")
    slapd.load(f"dn: cn=used,{SUFFIX}\nobjectClass: smtpdPolicy\ncn: used\n")
    older(slapd)

    assert (
        0,
        [
            f"added: {OUR_DN}: attribute type smtpdMyorigin",
            f"replaced: {OUR_DN}: object class smtpdPolicy",
        ],
        "",
    ) == desk.schema("install")
    assert (OUR_DN, shipped()) == ours(slapd)
    slapd.load(f"dn: cn=used,{SUFFIX}\nchangetype: modify\nadd: smtpdMyorigin\nsmtpdMyorigin: my.domain\n")
    assert (0, ["nothing to do"], "") == desk.schema("install")


@pytest.mark.servers
def test_under_another_name(desk: Desk, slapd: Slapd) -> None:
    """A site's own entry with our definitions is found by them, and completed."""
    text = (SCHEMA / "ldappolicy.ldif").read_text(encoding="utf-8")
    slapd.configure(text.replace("cn=ldappolicy,", "cn=postfix,").replace("cn: ldappolicy", "cn: postfix"))
    dn = "cn={6}postfix,cn=schema,cn=config"

    assert (0, ["nothing to do"], "") == desk.schema("install", "--no-access")
    older(slapd, dn=dn)
    status, lines, _ = desk.schema("install", "--no-access")
    assert 0 == status
    assert f"added: {dn}: attribute type smtpdMyorigin" == lines[0]


@pytest.mark.servers
def test_empty_entry_with_our_name(desk: Desk, slapd: Slapd) -> None:
    """An entry of that name without definitions is filled."""
    slapd.configure("dn: cn=ldappolicy,cn=schema,cn=config\nobjectClass: olcSchemaConfig\ncn: ldappolicy\n")

    status, lines, _ = desk.schema("install", "--no-access")

    assert (0, 34) == (status, len(lines))
    assert (OUR_DN, shipped()) == ours(slapd)


@pytest.mark.servers
def test_attribute_type_that_differs_is_left(desk: Desk, slapd: Slapd) -> None:
    """A site's own syntax for one of ours is said, not overwritten."""
    text = (SCHEMA / "ldappolicy.ldif").read_text(encoding="utf-8")
    slapd.configure(text.replace("DESC 'as Postfix myorigin'", "DESC 'ours'"))
    before = schemas(slapd)

    left = f"left: {OUR_DN}: attribute type smtpdMyorigin, which is not as shipped"
    assert (0, [left, "nothing to do"], "") == desk.schema("install", "--no-access")
    assert before == schemas(slapd)


@pytest.mark.servers
def test_who_may_not_see_it(desk: Desk, slapd: Slapd) -> None:
    """An identity without rights on cn=config hears what is needed."""
    desk.configure(slapd.uri)

    expected = (
        f"ldappolicy: {slapd.uri} does not show cn=schema,cn=config, expected an identity that may write it, "
        "such as uri = ['ldapi:///'] with bind = 'sasl_external'"
    )
    assert (EX_CONFIG, [], expected) == desk.schema("install")


@pytest.mark.servers
def test_name_that_is_taken(desk: Desk, slapd: Slapd) -> None:
    """A number of ours under another name is slapd's to refuse; what it says is passed on."""
    text = "dn: cn=x,cn=schema,cn=config\nobjectClass: olcSchemaConfig\ncn: x\nolcAttributeTypes: "
    oid = shipped()[0].split()[1]
    slapd.configure(f"{text}( {oid} NAME 'other' SYNTAX 1.3.6.1.4.1.1466.115.121.1.15 )\n")

    status, lines, error = desk.schema("install")

    assert (EX_DATAERR, []) == (status, lines)
    start = f"ldappolicy: cn=ldappolicy,cn=schema,cn=config: add refused by {slapd.ldapi_uri}: other (80): "
    assert error.startswith(start)
    assert oid in error


# install, of entries


@pytest.mark.servers
def test_classes_below_the_configured_base(desk: Desk, slapd: Slapd) -> None:
    """The classes go below policy_base, which is made if need be; the second time nothing is changed."""
    desk.schema("install")
    base = f"OU=Mail policy,{SUFFIX}"
    by_root(desk, slapd, f"policy_base = '{base}'")

    status, lines, error = desk.schema("install", "classes")
    assert (0, "") == (status, error)
    assert [f"added: {base}", f"added: ou=classes,{base}"] == lines[:2]
    assert f"added: cn=local_only,ou=classes,{base}" in lines
    assert (0, ["nothing to do, 12 unchanged"], "") == desk.schema("install", "classes")


@pytest.mark.servers
def test_classes_below_a_base_that_cannot_be_made(desk: Desk, slapd: Slapd) -> None:
    """A policy_base of another kind has to be there."""
    base = f"cn=policy,{SUFFIX}"
    by_root(desk, slapd, f"policy_base = '{base}'")

    said = desk.schema("install", "classes")

    expected = f"ldappolicy: {base}: is not there, expected the entry of policy_base"
    assert (EX_DATAERR, expected) == (said[0], said[2])


@pytest.mark.servers
def test_changed_class_is_not_overwritten(desk: Desk, slapd: Slapd) -> None:
    """A class that a site has changed stays, and is said."""
    desk.schema("install")
    by_root(desk, slapd)
    assert 0 == desk.schema("install", "classes")[0]
    dn = f"cn=permissive,ou=classes,ou=policy,{SUFFIX}"
    slapd.load(f"dn: {dn}\nchangetype: modify\nreplace: smtpdRestrictions\nsmtpdRestrictions: reject\n")

    status, _, error = desk.schema("install", "classes")

    assert EX_DATAERR == status
    assert error.endswith(
        f": {dn}: is there with other content (smtpdRestrictions), which only --replace changes"
    )


@pytest.mark.servers
def test_example(desk: Desk) -> None:
    """The example company, into an empty database."""
    require_slapd()
    with Slapd(schema="ldappolicy", overlays=PLAIN) as server:
        by_root(desk, server)
        status, lines, error = desk.schema("install", "example")

        assert (0, "") == (status, error)
        assert lines[-1].endswith(" added")
        assert desk.schema("install", "example")[1][0].startswith("nothing to do, ")


def by_root(desk: Desk, server: Slapd, *lines: str) -> None:
    """Configures a simple bind as the root DN."""
    (desk.configuration.parent / "password").write_text(server.root_pw)
    simple = ("bind = 'simple'", f"bind_dn = '{server.root_dn}'", "bind_pw_file = 'password'")
    desk.configure(server.uri, *simple, *lines)


# Which kind of server

ROOTS: dict[str, tuple[Attributes, str]] = {
    "OpenLDAP": ({"objectclass": ("top", "OpenLDAProotDSE")}, "openldap"),
    "OpenLDAP, classes hidden": ({"configcontext": ("cn=config",)}, "openldap"),
    "389 Directory Server": ({"objectclass": ("top",), "vendorname": ("389 Project",)}, "389ds"),
    "Active Directory": (
        {"rootdomainnamingcontext": (SUFFIX,), "schemanamingcontext": (f"CN=Schema,{SUFFIX}",)},
        "active_directory",
    ),
    "another": ({"objectclass": ("top",), "vendorname": ("Somebody",)}, ""),
    "one that shows nothing": ({}, ""),
}


@pytest.mark.parametrize(("root", "kind"), ROOTS.values(), ids=ROOTS.keys())
def test_kind_of_server(root: Attributes, kind: str) -> None:
    """The root DSE tells which schema is meant."""
    assert kind == kind_of_server(root)


# What is refused

REFUSED = {
    "slapd": (
        EX_USAGE,
        (
            "the form for slapd.conf cannot be installed over LDAP, expected 'openldap' (cn=config), or an "
            "include line in slapd.conf (see ldappolicy --help)"
        ),
    ),
    "freeipa": (
        EX_USAGE,
        (
            "invalid value for '[NAME]': 'freeipa' is not one of "
            f"{', '.join(repr(name) for name in NAMES if name not in RULES)} (see ldappolicy --help)"
        ),
    ),
}


@pytest.mark.parametrize(("name", "status", "said"), [(name, *rest) for name, rest in REFUSED.items()])
def test_refused(desk: Desk, name: str, status: int, said: str) -> None:
    """What cannot be installed is refused before anything is connected."""
    assert (status, [], f"ldappolicy: {said}") == desk.schema("install", name)


def test_embedded_directory(desk: Desk) -> None:
    """An LDIF file takes no schema."""
    desk.configure("ldif:tree.ldif")

    expected = (
        f"ldappolicy: {desk.configuration}: [directory] uri: expected a server for 'schema install', "
        f"got 'ldif:{desk.configuration.parent}/tree.ldif'"
    )
    assert (EX_CONFIG, [], expected) == desk.schema("install")


def test_no_command(desk: Desk) -> None:
    """`schema` alone is incomplete."""
    assert (EX_USAGE, [], "ldappolicy: missing command (see ldappolicy --help)") == desk.schema()


@pytest.mark.servers
def test_slapd_takes_what_is_shown(slapd: Slapd) -> None:
    """`schema show openldap` is what ldapadd takes, through a pipe."""
    show = [sys.executable, "-m", "ldappolicy", "schema", "show", "openldap"]
    shown = subprocess.run(show, check=True, capture_output=True).stdout
    add = ["ldapadd", "-Q", "-Y", "EXTERNAL", "-H", slapd.ldapi_uri]
    subprocess.run(add, input=shown, check=True, capture_output=True)

    assert (OUR_DN, shipped()) == ours(slapd)
