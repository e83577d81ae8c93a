"""`ldappolicy load` looks at what comes of a change before it makes it: schema, order, new errors of lint."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from ldappolicy.cli import EX_DATAERR
from ldappolicy.directory.loading import in_order
from ldappolicy.ldif import read_records
from tests.labs.desk import Desk
from tests.labs.ds389 import DS389, needs_389ds
from tests.labs.samba import Samba, needs_samba
from tests.labs.server import tree_of
from tests.labs.slapd import NESTED, SUFFIX, Slapd, require_slapd

POLICY = f"ou=policy,{SUFFIX}"
AMY = f"uid=amy,ou=people,{SUFFIX}"


def lists(restrictions: str) -> str:
    """A change of the default policy's list for recipients."""
    changed = "changetype: modify\nreplace: smtpdRecipientRestrictions\n"
    return f"dn: cn=default,{POLICY}\n{changed}smtpdRecipientRestrictions: {restrictions}\n\n"


def class_(name: str, body: str) -> str:
    """A class."""
    given = f"objectClass: smtpdRestrictionClass\ncn: {name}\nsmtpdRestrictions: {body}\n\n"
    return f"dn: cn={name},{POLICY}\n{given}"


def table(name: str, line: str) -> str:
    """A table."""
    return f"dn: cn={name},{POLICY}\nobjectClass: smtpdAccessTable\ncn: {name}\nsmtpdAccess: {line}\n\n"


def policy(name: str, restrictions: str) -> str:
    """A policy."""
    given = f"objectClass: smtpdPolicy\ncn: {name}\nsmtpdRecipientRestrictions: {restrictions}\n\n"
    return f"dn: cn={name},{POLICY}\n{given}"


@pytest.fixture(scope="module")
def slapd(example_ldif: Path) -> Iterator[Slapd]:
    """The example company; what a test brings in has names of its own."""
    require_slapd()
    with Slapd(schema="ldappolicy", overlays=NESTED, data=example_ldif.read_text("utf-8")) as server:
        yield server


@pytest.fixture
def desk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Desk:
    """A desk whose configuration is not written yet."""
    return Desk(tmp_path, capsys)


def given(desk: Desk, text: str, *flags: str, name: str = "a.ldif") -> tuple[int, list[str], str]:
    """Loads a file with this text."""
    path = desk.configuration.parent / name
    path.write_text(text, encoding="utf-8")
    status, lines, error = desk.run("load", *flags, str(path))
    return status, lines, error.replace(f"{path}", name)


def bound(desk: Desk, server: Slapd | DS389 | Samba) -> None:
    """The desk may do everything there."""
    secret = desk.configuration.with_name("password")
    secret.write_text(server.root_pw)
    by = f"bind = 'simple'\nbind_dn = '{server.root_dn}'\nbind_pw_file = '{secret}'"
    desk.configure(server.uri, by)


REFUSAL = "ldappolicy: refused: it would bring 1 new error of lint, which only --force brings in"


@pytest.mark.servers
@pytest.mark.parametrize("flag", ["", "--dry-run"])
def test_a_misspelt_restriction_is_refused(slapd: Slapd, desk: Desk, flag: str) -> None:
    """Nobody is deferred over it: it does not come into force, unless somebody says so."""
    bound(desk, slapd)
    text = policy(f"bad{flag}", "reject_unauth_destinaton")
    status, lines, error = given(desk, text, *filter(None, [flag]))
    told, refused = error.splitlines()
    assert (EX_DATAERR, REFUSAL) == (status, refused)
    assert told.startswith(f"ldappolicy: new error: cn=bad{flag},{POLICY}: smtpdRecipientRestrictions: ")
    assert "reject_unauth_destinaton" in told
    status, lines, error = given(desk, text, "--force", *filter(None, [flag]))
    assert (0, told) == (status, error)
    assert lines[0] == f"{'would be ' if flag else ''}added: cn=bad{flag},{POLICY}"


@pytest.mark.servers
def test_what_was_wrong_before_does_not_refuse(slapd: Slapd, desk: Desk) -> None:
    """Nor does what nobody has yet: a policy may come before the rules that it asks for."""
    bound(desk, slapd)
    assert given(desk, policy("wrong", "no_such_class"), "--force")[0] == 0
    assert given(desk, class_("another", "permit_mynetworks, reject")) == (
        0,
        [f"added: cn=another,{POLICY}", "1 added"],
        "",
    )
    moderated = policy("later", "check_sasl_access recipient:moderators, permit_mynetworks, reject")
    assert given(desk, moderated)[0] == 0


@pytest.mark.servers
def test_taking_away_what_is_named_is_refused(slapd: Slapd, desk: Desk) -> None:
    """A class that a policy names is deleted together with the name, or not at all."""
    bound(desk, slapd)
    assert given(desk, class_("needed", "reject") + policy("needs", "needed"))[0] == 0
    gone = f"dn: cn=needed,{POLICY}\nchangetype: delete\n\n"
    status, _, error = given(desk, gone)
    assert (EX_DATAERR, REFUSAL) == (status, error.splitlines()[-1])
    both = gone + f"dn: cn=needs,{POLICY}\nchangetype: delete\n\n"
    assert given(desk, both)[0] == 0


@pytest.mark.servers
def test_what_names_comes_last(slapd: Slapd, desk: Desk) -> None:
    """Whatever the order in the files: tables, classes, rules, policies."""
    bound(desk, slapd)
    rule = f"dn: {AMY}\nchangetype: modify\nreplace: smtpdSenderAccess\nsmtpdSenderAccess: fresh\n\n"
    text = (
        policy("p", "fresh")
        + rule
        + class_("fresh", "check_sender_access ldap:t, reject")
        + table("t", "x@y OK")
    )
    status, lines, error = given(desk, text)
    assert (0, "") == (status, error)
    names = [line.partition(": ")[2].partition(",")[0] for line in lines[:-1]]
    assert names == ["cn=t", "cn=fresh", "uid=amy", "cn=p"]


def test_the_order_of_records() -> None:
    """Entries stand behind those above them, deletions last; where one comes twice nothing is moved."""
    above = f"dn: ou=d,{SUFFIX}\nobjectClass: organizationalUnit\nou: d\nsmtpdRecipientAccess: c\n\n"
    below = f"dn: ou=e,ou=d,{SUFFIX}\nobjectClass: organizationalUnit\nou: e\n\n"
    gone = f"dn: cn=old,{POLICY}\nchangetype: delete\n\n"

    def order(text: str) -> list[str]:
        records = [("", record) for record in read_records(text.encode(), "")]
        return [record.dn.partition(",")[0] for _, record in in_order(records)]

    assert order(gone + policy("p", "c") + above + below + class_("c", "reject")) == [
        *("cn=c", "ou=d", "ou=e", "cn=p", "cn=old"),
    ]
    again = gone.replace("cn=old", "cn=c")
    assert order(policy("p", "c") + again + class_("c", "reject")) == ["cn=p", "cn=c", "cn=c"]


PERSON = (
    f"dn: uid=new,ou=people,{SUFFIX}\nobjectClass: inetOrgPerson\nobjectClass: smtpdAccessControl\nuid: new\n"
)
NAMED = "cn: New\nsn: New\n"
SCHEMA = {
    "an attribute": (
        PERSON + NAMED + "maill: new@my.domain\n",
        "maill: is unknown to the server's schema, expected one of its attributes",
    ),
    "a class": (
        PERSON.replace("inetOrg", "inet") + NAMED,
        "objectClass: 'inetPerson' is unknown to the server's schema",
    ),
    "two where there is one": (
        PERSON + NAMED + "smtpdPriority: 1\nsmtpdPriority: 2\n",
        "smtpdPriority: 2 values, expected one",
    ),
    "no number": (PERSON + NAMED + "smtpdPriority: high\n", "smtpdPriority: 'high', expected a whole number"),
    "no DN": (PERSON + NAMED + "smtpdModerator: amy\n", "smtpdModerator: 'amy', expected a DN"),
    "letters": (PERSON + NAMED + "mail: n\u00e9w@my.domain\n", "mail: 'n\u00e9w@my.domain', expected ASCII"),
    "required": (PERSON + "cn: New\n", "sn: is required by the object classes, expected a value"),
    "not allowed": (
        PERSON.replace("objectClass: smtpdAccessControl\n", "") + NAMED + "smtpdSenderAccess: reject\n",
        "smtpdSenderAccess: is not allowed by the object classes inetOrgPerson",
    ),
}


@pytest.mark.servers
@pytest.mark.parametrize(("text", "said"), SCHEMA.values(), ids=SCHEMA)
@pytest.mark.parametrize("flag", ["", "--dry-run"])
def test_the_schema_is_looked_at_first(slapd: Slapd, desk: Desk, flag: str, text: str, said: str) -> None:
    """What stands before the entry in the file is not written either."""
    bound(desk, slapd)
    before = table("before", "x@y OK")
    status, lines, error = given(desk, before + text, *filter(None, [flag]))
    assert (EX_DATAERR, "stopped after nothing") == (status, lines[-1])
    assert error == f"ldappolicy: a.ldif:6: uid=new,ou=people,{SUFFIX}: {said}"
    assert f"would be added: cn=before,{POLICY}" in given(desk, before, "--dry-run")[1]


@pytest.mark.servers
def test_a_value_that_is_there_already_is_no_error(slapd: Slapd, desk: Desk) -> None:
    """By the server's own matching; others in the same change are added."""
    bound(desk, slapd)
    change = f"dn: {AMY}\nchangetype: modify\nadd: mail\n"
    assert given(desk, f"{change}mail: extra@my.domain\n")[1][-1] == "1 modified"
    assert given(desk, f"{change}mail: Extra@my.domain\n") == (0, ["nothing to do, 1 unchanged"], "")
    assert given(desk, f"{change}mail: extra@my.domain\nmail: more@my.domain\n")[1][-1] == "1 modified"


@pytest.mark.servers
def test_replacements_are_shown(slapd: Slapd, desk: Desk) -> None:
    """Value by value, twenty of an attribute, no password."""
    bound(desk, slapd)
    old = "".join(f"mail: a{number}@my.domain\n" for number in range(30))
    assert given(desk, PERSON + NAMED + old + "userPassword: secret\n")[0] == 0
    for flags in (["--dry-run"], []):
        _, lines, _ = given(
            desk, PERSON + NAMED + "mail: b@my.domain\nuserPassword: other\n", "--replace", *flags
        )
        shown = lines[1:-1]
        assert len([line for line in shown if line.startswith("  - mail: a")]) == 20
        assert {"  + mail: b@my.domain", "  - mail: 10 more", "  + userPassword: (not shown)"} <= set(shown)
        assert not any("secret" in line or "other" in line for line in shown)


@pytest.mark.servers
def test_a_server_that_gives_no_more(desk: Desk, example_ldif: Path) -> None:
    """Where a limit ends what lint reads, that is said, and the change is made."""
    require_slapd()
    kinds = "objectClass: organizationalRole\nobjectClass: simpleSecurityObject\n"
    writer = f"\ndn: cn=writer,{SUFFIX}\n{kinds}cn: writer\nuserPassword: secret\n"
    access = (f'to * by dn.exact="cn=writer,{SUFFIX}" write by * read',)
    data = example_ldif.read_text("utf-8") + writer
    with Slapd(schema="ldappolicy", data=data, size_limit="5", access=access) as server:
        secret = desk.configuration.with_name("password")
        secret.write_text("secret")
        by = f"bind = 'simple'\nbind_dn = 'cn=writer,{SUFFIX}'\nbind_pw_file = '{secret}'"
        desk.configure(server.uri, by)
        status, lines, error = given(desk, table("few", "x@y OK"))
    assert (0, "1 added") == (status, lines[-1])
    assert error.startswith("ldappolicy: warning: what comes of the change is not looked at: ")


@pytest.mark.servers
@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: DS389(schema="ldappolicy"), id="389-ds", marks=needs_389ds),
        pytest.param(lambda: Samba(schema="ldappolicy"), id="samba", marks=needs_samba),
    ],
)
def test_on_other_servers(desk: Desk, make: type[DS389] | type[Samba]) -> None:
    """The first policy of an empty policy base, then one that is misspelt, or unknown to the schema."""
    with make() as server:
        bound(desk, server)
        if isinstance(server, DS389):
            server.load(tree_of())
        base = f"dn: {POLICY}\nobjectClass: organizationalUnit\nou: policy\n\n"
        status, lines, error = given(desk, policy("default", "permit_mynetworks, reject") + base)
        assert (0, "", "2 added") == (status, error, lines[-1])
        assert lines[0].endswith(POLICY)
        status, _, error = given(desk, lists("reject_unauth_destinaton"))
        assert (EX_DATAERR, REFUSAL) == (status, error.splitlines()[-1])
        status, _, error = given(desk, table("t", "x@y OK").replace("smtpdAccess:", "smtpdAcces:"))
        assert status == EX_DATAERR
        assert "smtpdAcces: is unknown to the server's schema" in error
        assert given(desk, lists("permit_mynetworks, defer"))[0] == 0
