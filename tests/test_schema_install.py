"""`schema install` into the three families of servers: the schema, who may write it, and a policy in it.

Each server is a lax one, where users write their own entries as far as their directory lets them by default
or by a rule that many sites have: what they are refused afterwards is the work of the access rules.
"""

import re
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol, cast

import pytest

from ldappolicy.cli import EX_CONFIG, EX_DATAERR, EX_USAGE, run
from ldappolicy.directory import Scope
from ldappolicy.directory.ldap.installing import active_directory as active_directory_schema
from ldappolicy.directory.ldap.writing import Writer
from ldappolicy.directory.loading import Attributes
from ldappolicy.errors import ConfigError
from ldappolicy.ldif import read_records
from tests.labs.desk import Desk
from tests.labs.ds389 import DS389, needs_389ds
from tests.labs.samba import ROOT_DN, Samba, needs_samba
from tests.labs.server import tree_of
from tests.labs.slapd import PLAIN, SUFFIX, Slapd, require_slapd

pytestmark = pytest.mark.servers

SCHEMA = Path(__file__).parents[1] / "schema"
NOTHING = (0, ["nothing to do"], "")

CONTROL = {
    "smtpdSenderAccess": "permit",
    "smtpdRecipientAccess": "permit",
    "smtpdMemberSenderAccess": "permit",
    "smtpdMemberRecipientAccess": "permit",
    "smtpdPriority": "1",
    "smtpdAllowedSender": "@",
    "smtpdAllowedSenderDN": SUFFIX,
    "smtpdDeniedSender": "bob@my.domain",
    "smtpdDeniedSenderDN": SUFFIX,
    "smtpdModerator": SUFFIX,
    "smtpdSendAs": SUFFIX,
}


class Server(Protocol):
    """What a lab gives, whichever it is."""

    root_dn: str
    root_pw: str

    @property
    def ldapi_uri(self) -> str:
        """Where it is asked."""
        ...

    def load(self, ldif: str, *, bind_dn: str = "", bind_pw: str = "") -> None:
        """Imports LDIF."""
        ...


@dataclass
class Site:
    """A server without our schema, Amy who has an account there, and an administrator at a desk."""

    server: Server
    desk: Desk
    amy: str
    password: str
    refusal: str
    """What ldapmodify says when Amy is refused."""

    def amy_writes(self, *lines: str) -> None:
        """Amy modifies her own entry."""
        self.server.load(modify(self.amy, *lines), bind_dn=self.amy, bind_pw=self.password)

    def refuses(self, *lines: str) -> None:
        """Amy may not."""
        with pytest.raises(RuntimeError, match=self.refusal):
            self.amy_writes(*lines)


TREE = (
    tree_of("people")
    + f"dn: uid=amy,ou=people,{SUFFIX}\nobjectClass: inetOrgPerson\nuid: amy\ncn: Amy\nsn: Ander\n"
    "userPassword: Secret.123\n\n"
    f"dn: uid=paula,ou=people,{SUFFIX}\nobjectClass: inetOrgPerson\nuid: paula\ncn: Paula\nsn: Post\n"
    "userPassword: Secret.123\n\n"
    f"dn: cn=postmasters,{SUFFIX}\nobjectClass: groupOfNames\ncn: postmasters\n"
    f"member: uid=paula,ou=people,{SUFFIX}\n"
)
AMY, PAULA = f"uid=amy,ou=people,{SUFFIX}", f"uid=paula,ou=people,{SUFFIX}"
AMY_AD = "CN=Amy,OU=people,DC=example,DC=com"
SELF_WRITE = (
    '(targetattr = "*")(version 3.0; acl "own entry"; '
    'allow (read, search, compare, write) userdn = "ldap:///self";)'
)
BELOW = '(version 3.0; acl "below the own entry"; allow (add) userdn = "ldap:///all";)'


def modify(dn: str, *lines: str) -> str:
    """A change record."""
    return "\n".join([f"dn: {dn}", "changetype: modify", *lines, ""])


@contextmanager
def openldap(desk: Desk) -> Iterator[Site]:
    """Slapd, where users write their own entries and add below them."""
    require_slapd()
    access = ("to attrs=userPassword by anonymous auth by * none", "to * by users write by * read")
    with Slapd(overlays=PLAIN, data=TREE, access=access) as server:
        desk.configure(server.ldapi_uri, "bind = 'sasl_external'")
        yield Site(server, desk, AMY, "Secret.123", "Insufficient access")


@contextmanager
def ds389(desk: Desk) -> Iterator[Site]:
    """389-ds, where users write their own entries and add others."""
    with DS389() as server:
        server.load(TREE)
        server.load(modify(SUFFIX, "add: aci", f"aci: {SELF_WRITE}", f"aci: {BELOW}"))
        desk.configure(server.ldapi_uri, *by_root(desk, server))
        yield Site(server, desk, AMY, "Secret.123", "Insufficient access")


@contextmanager
def active_directory(desk: Desk, schema: str = "none") -> Iterator[Site]:
    """A domain controller as it comes: users write what is in their property sets."""
    with Samba(schema=schema) as server:
        server.load("dn: OU=people,DC=example,DC=com\nobjectClass: organizationalUnit\n")
        server.user(AMY_AD, "amy", "Secret.123")
        desk.configure(server.ldapi_uri, *by_root(desk, server))
        yield Site(server, desk, AMY_AD, "Secret.123", "Insufficient access")


def by_root(desk: Desk, server: Server) -> list[str]:
    """Configuration for a simple bind as the root identity."""
    (desk.configuration.parent / "password").write_text(server.root_pw)
    return [
        "bind = 'simple'",
        f"bind_dn = '{server.root_dn}'",
        "bind_pw_file = 'password'",
        "timeout = '20s'",
    ]


FAMILIES: dict[str, Callable[[Desk], AbstractContextManager[Site]]] = {
    "openldap": openldap,
    "389ds": ds389,
    "active_directory": active_directory,
    # To bring the schema into a domain takes longer than all that follows.
    "extended": partial(active_directory, schema="ldappolicy"),
}
LAX = [pytest.param("openldap"), pytest.param("389ds", marks=needs_389ds)]
EVERY = [*LAX, pytest.param("active_directory", marks=needs_samba)]
INSTALLED = [*LAX, pytest.param("extended", id="active_directory", marks=needs_samba)]
"""Where the schema is there after `schema install`."""


@pytest.fixture
def desk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Desk:
    """Where commands are given."""
    return Desk(tmp_path, capsys)


@pytest.fixture
def site(request: pytest.FixtureRequest, desk: Desk) -> Iterator[Site]:
    """One of the families."""
    with FAMILIES[request.param](desk) as made:
        yield made


@pytest.mark.parametrize("site", EVERY, indirect=True)
def test_install_twice(site: Site) -> None:
    """By the root DSE: what was missing is named, the second time nothing is changed; rehearsed before."""
    status, rehearsed, error = site.desk.schema("install", "--dry-run")
    assert (0, "", "dry run, nothing was changed") == (status, error, rehearsed.pop())
    assert rehearsed == site.desk.schema("install", "--dry-run")[1][:-1]

    status, lines, error = site.desk.schema("install")

    assert (0, "") == (status, error)
    assert lines
    # cn=schema,cn=config numbers the entry that it is given.
    assert rehearsed == [f"would be {re.sub('cn={[0-9]+}ldap', 'cn=ldap', line)}" for line in lines]
    assert all(line.startswith(("added: ", "replaced: ", "modified: ")) for line in lines)
    assert NOTHING == site.desk.schema("install")
    site.server.load(modify(site.amy, *allowed(site), "add: smtpdSenderAccess", "smtpdSenderAccess: reject"))


def allowed(site: Site) -> list[str]:
    """What has to be done so that an entry may carry our attributes: nothing on Active Directory."""
    if site.amy == AMY_AD:
        return []
    return ["add: objectClass", "objectClass: smtpdAccessControl", "-"]


@pytest.mark.parametrize("site", INSTALLED, indirect=True)
def test_user_cannot_write_policy_on_an_own_entry(site: Site) -> None:
    """No policy attribute gets in, none that is there gets out; the rest is written as before."""
    site.desk.schema("install")
    there = ["add: smtpdDeniedSender", "smtpdDeniedSender: eve@my.domain"]
    site.server.load(modify(site.amy, *allowed(site), *there))

    for name, value in CONTROL.items():
        site.refuses(f"add: {name}", f"{name}: {value}")
        site.refuses(f"replace: {name}", f"{name}: {value}")
    site.refuses("delete: smtpdDeniedSender")
    site.amy_writes("replace: telephoneNumber", "telephoneNumber: 42")


@pytest.mark.parametrize("site", LAX, indirect=True)
def test_user_could_without_the_rules(site: Site) -> None:
    """The refusals are the rules' work."""
    site.desk.schema("install", "--no-access")
    site.server.load(modify(site.amy, *allowed(site)[:2]))

    for name, value in CONTROL.items():
        site.amy_writes(f"add: {name}", f"{name}: {value}")


ENTRY = f"dn: cn=x,{AMY}\nobjectClass: inetOrgPerson\ncn: x\nsn: x\n"
LOADED = "objectClass: smtpdAccessControl\nsmtpdSenderAccess: permit\n"


@pytest.mark.parametrize("site", LAX, indirect=True)
def test_user_adds_no_entry_with_policy(site: Site) -> None:
    """Who may add entries adds them without our attributes."""
    site.desk.schema("install")

    site.server.load(ENTRY, bind_dn=AMY, bind_pw=site.password)
    with pytest.raises(RuntimeError, match=site.refusal):
        site.server.load(ENTRY.replace("=x", "=y") + LOADED, bind_dn=AMY, bind_pw=site.password)


@pytest.mark.parametrize("site", LAX, indirect=True)
def test_postmasters(site: Site) -> None:
    """The group that is named at the installation writes what users may not."""
    status, lines, _ = site.desk.schema("install", "--postmasters", f"cn=postmasters,{SUFFIX}")
    site.server.load(modify(AMY, *allowed(site)[:2]))
    by_paula: dict[str, str] = {"bind_dn": PAULA, "bind_pw": "Secret.123"}

    assert 0 == status
    assert any(f"cn=postmasters,{SUFFIX}" in line for line in lines)
    if isinstance(site.server, DS389):
        everybody = '(targetattr = "*")(version 3.0; acl "all"; allow (write) userdn = "ldap:///all";)'
        site.server.load(modify(SUFFIX, "add: aci", f"aci: {everybody}"))
    change = modify(AMY, "add: smtpdSenderAccess", "smtpdSenderAccess: reject")
    with pytest.raises(RuntimeError, match=site.refusal):
        site.server.load(change, bind_dn=AMY, bind_pw=site.password)
    site.server.load(change, **by_paula)


POLICY = (
    "dn: cn=default,{base}\nobjectClass: smtpdPolicy\ncn: default\nsmtpdRecipientRestrictions: local_only\n"
)


@pytest.mark.parametrize("site", INSTALLED, indirect=True)
def test_policy_loads(site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """After it the shipped classes and a policy go into every family through the commands for that."""
    configuration, base = site.desk.configuration, f"ou=policy,{SUFFIX}"
    site.desk.schema("install")
    if isinstance(site.server, Slapd):
        site.desk.configure(site.server.ldapi_uri, *by_root(site.desk, site.server))
    policy = tmp_path / "policy.ldif"
    policy.write_text(POLICY.format(base=base))

    status, lines, error = site.desk.schema("install", "classes")
    assert (0, "") == (status, error)
    assert f"added: cn=local_only,ou=classes,{base}" in lines
    assert 0 == run(["-c", str(configuration), "load", str(policy)]), capsys.readouterr().err
    assert [f"added: cn=default,{base}", "1 added"] == capsys.readouterr().out.splitlines()


# What an older version had brought in


def older_389ds(server: Server) -> None:
    """cn=schema without smtpdMyorigin, and the class that allows it without it."""
    (record,) = read_records((SCHEMA / "99ldappolicy.ldif").read_bytes(), "99ldappolicy.ldif")
    types = [one for one in record.attributes["attributeTypes"] if "smtpdMyorigin" not in one]
    classes = [one.replace(" $ smtpdMyorigin", "") for one in record.attributes["objectClasses"]]
    lines = ["add: attributeTypes", *(f"attributeTypes: {one}" for one in types), "-", "add: objectClasses"]
    server.load(modify("cn=schema", *lines, *(f"objectClasses: {one}" for one in classes)))


def older_ad(server: Server) -> None:
    """The schema naming context without smtpdMyorigin and where it is allowed, smtpdSendAs not for users."""
    text = (SCHEMA / "ldappolicy-ad.ldif").read_text("utf-8").replace("DC=X", "DC=example,DC=com")
    head, _, rest = text.partition("dn: CN=smtpdMyorigin,")
    text = (head + rest.partition("\n\n")[2]).replace("mayContain: smtpdMyorigin\n", "")
    head, user, rest = text.partition("dn: CN=User,")
    server.load(head + user + rest.replace("mayContain: smtpdSendAs\n", "", 1))


SCHEMA_AD = "CN=Schema,CN=Configuration,DC=example,DC=com"
OLDER = [
    pytest.param(
        "389ds",
        older_389ds,
        ["added: cn=schema: attribute type smtpdMyorigin", "replaced: cn=schema: object class smtpdPolicy"],
        marks=needs_389ds,
    ),
    pytest.param(
        "active_directory",
        older_ad,
        [
            f"added: CN=smtpdMyorigin,{SCHEMA_AD}",
            f"modified: CN=smtpdPolicy,{SCHEMA_AD}: mayContain: smtpdMyorigin",
            f"modified: CN=User,{SCHEMA_AD}: mayContain: smtpdSendAs",
            f"modified: CN=associatedDomain,{SCHEMA_AD}: searchFlags: 1, an index",
        ],
        marks=needs_samba,
    ),
]


@pytest.mark.parametrize(("site", "older", "said"), OLDER, indirect=["site"])
def test_older_version(site: Site, older: Callable[[Server], None], said: list[str]) -> None:
    """What is missing is added, a class that has grown is completed; then nothing is left to do."""
    older(site.server)

    assert (0, said, "") == site.desk.schema("install", "--no-access")
    assert NOTHING == site.desk.schema("install", "--no-access")


def other_389ds(server: Server) -> None:
    """A syntax of the site's own."""
    text = "2.25.288501390150123640940408713397554904698.1.30 NAME 'smtpdMyorigin'"
    server.load(
        modify(
            "cn=schema",
            "add: attributeTypes",
            f"attributeTypes: ( {text} SYNTAX 1.3.6.1.4.1.1466.115.121.1.26 )",
        )
    )


def other_ad(server: Server) -> None:
    """Several values, where there is to be one."""
    text = (SCHEMA / "ldappolicy-ad.ldif").read_text("utf-8").replace("DC=X", "DC=example,DC=com")
    record = text[text.index("dn: CN=smtpdMyorigin,") :].partition("\n\n")[0]
    server.load(record.replace("isSingleValued: TRUE", "isSingleValued: FALSE") + "\n")


OTHER = [
    pytest.param(
        "389ds",
        other_389ds,
        "left: cn=schema: attribute type smtpdMyorigin, which is not as shipped",
        marks=needs_389ds,
    ),
    pytest.param(
        "active_directory",
        other_ad,
        f"left: CN=smtpdMyorigin,{SCHEMA_AD}, which is not as shipped (isSingleValued)",
        marks=needs_samba,
    ),
]


@pytest.mark.parametrize(("site", "other", "left"), OTHER, indirect=["site"])
def test_what_differs_is_left(site: Site, other: Callable[[Server], None], left: str) -> None:
    """A site's own definition for one of ours is said, each time, and not overwritten."""
    other(site.server)

    status, lines, _ = site.desk.schema("install", "--no-access")
    assert (0, 1) == (status, lines.count(left))
    assert (0, [left, "nothing to do"], "") == site.desk.schema("install", "--no-access")


# Access rules, and where there is no place for them


def test_database_without_rules_stays_readable(desk: Desk) -> None:
    """Where no rule is, everybody reads; the first rule does not take that away."""
    require_slapd()
    with Slapd(overlays=PLAIN, data=TREE, access=()) as server:
        desk.configure(server.ldapi_uri, "bind = 'sasl_external'")
        desk.schema("install")

        asked = ["ldapsearch", "-x", "-LLL", "-H", server.uri, "-b", AMY, "-s", "base", "cn"]
        found = subprocess.run(asked, capture_output=True, check=True, text=True).stdout
        assert ["cn: Amy"] == [line for line in found.splitlines() if line.startswith("cn")]


def test_rules_of_a_site_stay_alone(desk: Desk) -> None:
    """Attributes that a rule names already get no other."""
    require_slapd()
    with Slapd(overlays=PLAIN, data=TREE, schema="ldappolicy") as server:
        server.configure(
            "dn: olcDatabase={1}mdb,cn=config\nchangetype: modify\nadd: olcAccess\n"
            "olcAccess: {0}to attrs=smtpdSenderAccess,SMTPDRECIPIENTACCESS by * read\n"
        )
        desk.configure(server.ldapi_uri, "bind = 'sasl_external'")

        lines = desk.schema("install")[1]
        start = "added: olcDatabase={1}mdb,cn=config: olcAccess for 28 attributes"
        assert lines[0].startswith(start)
        assert NOTHING == desk.schema("install")


def test_no_database_for_the_base(desk: Desk) -> None:
    """A base that the server does not hold is said."""
    require_slapd()
    with Slapd(overlays=PLAIN, data=TREE) as server:
        bases = ["search_base = 'dc=example,dc=org'", "policy_base = 'dc=example,dc=org'"]
        desk.configure(server.ldapi_uri, "bind = 'sasl_external'", *bases)

        left = "left: cn=config: no access rules, for no database holds dc=example,dc=org"
        assert left == desk.schema("install")[1][-1]


@needs_389ds
def test_suffix_that_is_not_there_yet(desk: Desk) -> None:
    """Instructions stand in the suffix: without it they are left, and said."""
    with DS389() as server:
        desk.configure(server.ldapi_uri, *by_root(desk, server))

        left = f"left: {SUFFIX}: no access rules, for it is not there yet: install again when it is"
        assert left == desk.schema("install")[1][-1]
        server.load(TREE)
        assert 2 == len(desk.schema("install")[1])
        assert NOTHING == desk.schema("install")


@needs_389ds
def test_who_may_not(desk: Desk) -> None:
    """An identity without rights changes nothing, and is told."""
    with DS389() as server:
        server.load(TREE)
        desk.configure(server.uri)

        status, lines, error = desk.schema("install")
        assert (EX_DATAERR, []) == (status, lines)
        assert error.startswith(f"ldappolicy: cn=schema: modify refused by {server.uri}: ")


@needs_samba
def test_who_may_not_in_active_directory(desk: Desk) -> None:
    """Before anything is written, since nothing could be taken back: by the account, and by the server."""
    with Samba() as server:
        server.load("dn: OU=people,DC=example,DC=com\nobjectClass: organizationalUnit\n")
        server.user(AMY_AD, "amy", "Secret.123")
        (desk.configuration.parent / "amy").write_text("Secret.123")
        by_amy = ("bind = 'simple'", f"bind_dn = '{AMY_AD}'", "bind_pw_file = 'amy'", "timeout = '20s'")
        schema = "CN=Schema,CN=Configuration,DC=example,DC=com"
        desk.configure(server.ldapi_uri, *by_amy)
        said = (
            f"ldappolicy: {server.ldapi_uri}: {schema}: nothing may be added there, expected a Schema Admin"
        )
        assert (EX_CONFIG, [], said) == desk.schema("install")
        desk.configure(server.ldapi_uri, *by_root(desk, server))
        assert desk.schema("install", "--dry-run")[0] == 0


class Told:
    """What a domain controller shows of itself, and of its schema naming context."""

    uri = "ldap://dc2"

    def __init__(self, owner: str) -> None:
        self.owner = owner
        self.changed: list[str] = []

    def modify(self, dn: str, _: object) -> None:
        """Whatever it is."""
        self.changed.append(dn)

    def root_dse(self) -> Attributes:
        """It is DC2."""
        return {"schemanamingcontext": ("CN=Schema",), "dsservicename": ("CN=NTDS Settings,CN=DC2",)}

    def read(self, dn: str) -> Attributes | None:
        """The schema is there, and nothing in it."""
        return {} if dn == "CN=Schema" else None

    def search(self, base: str, scope: Scope, names: Sequence[str]) -> list[tuple[str, Attributes]]:
        """Whoever asks may do everything."""
        may = ("attributeSchema", "classSchema")
        return [(base, {"fSMORoleOwner": (self.owner,), "allowedChildClassesEffective": may})]


def test_only_the_schema_master_takes_a_schema() -> None:
    """Another server is told from it before the first write: a lab has one server alone."""
    master, other = Told("CN=ntds settings,cn=dc2"), Told("CN=NTDS Settings,CN=DC1")
    assert len(active_directory_schema.install(cast("Writer", master), [])) == 1
    assert master.changed == ["CN=associatedDomain,CN=Schema", ""]
    said = "ldap://dc2 is CN=NTDS Settings,CN=DC2, expected the schema master, CN=NTDS Settings,CN=DC1"
    with pytest.raises(ConfigError, match=said):
        active_directory_schema.install(cast("Writer", other), [])
    assert other.changed == []


@needs_samba
def test_no_group_for_active_directory(desk: Desk) -> None:
    """Where there is no rule to name it in, a group is not taken in silence."""
    with Samba() as server:
        desk.configure(server.ldapi_uri, *by_root(desk, server))

        status, lines, error = desk.schema("install", "--postmasters", ROOT_DN)
        assert (EX_USAGE, []) == (status, lines)
        assert "--postmasters: Active Directory needs no rule for it" in error
