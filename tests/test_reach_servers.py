"""What an account is not shown, and what users may write about themselves, tried on real servers."""

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from ldappolicy import assembly, cli, reach
from ldappolicy.mapping import mapping_for
from tests.conftest import ROOT
from tests.labs.deciding import configuration
from tests.labs.ds389 import DS389, ROOT_PW, needs_389ds, spoken
from tests.labs.samba import SUFFIX, Samba, needs_samba
from tests.labs.server import run
from tests.labs.slapd import Slapd

pytestmark = pytest.mark.servers

BASE = "dc=example,dc=com"
AMY = f"CN=amy,CN=Users,{SUFFIX}"
PASSWORD = "Amy.passw0rd"


# ---------------------------------------------------------------- rights that lack


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Where the configuration is to be."""
    return tmp_path / "config.toml"


def lint(
    hidden: str, config: Path, example_ldif: Path, capsys: pytest.CaptureFixture[str]
) -> tuple[int, str]:
    """What lint says of the example company, some of whose attributes nobody may read."""
    access = (f"to attrs={hidden} by * none", "to * by * read") if hidden else ("to * by * read",)
    with Slapd(schema="ldappolicy", access=access) as slapd:
        slapd.load(example_ldif)
        directory = f'[directory]\nuri = ["{slapd.uri}"]\nsearch_base = "{BASE}"\n'
        config.write_text(f'{directory}policy_base = "ou=policy,{BASE}"\n')
        status = cli.run(["-c", str(config), "lint"])
    return status, capsys.readouterr().out


def test_everything_may_be_read(config: Path, example_ldif: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The healthy example is silent through LDAP."""
    assert (0, "") == lint("", config, example_ldif, capsys)


def test_lists_that_may_not_be_read(
    config: Path, example_ldif: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A policy whose lists are hidden is not one that lets everybody through."""
    lists = "smtpdClientRestrictions,smtpdSenderRestrictions,smtpdRecipientRestrictions,smtpdHeloRestrictions"
    status, said = lint(f"{lists},smtpdRelayRestrictions", config, example_ldif, capsys)
    assert 1 == status
    text = f"error: cn=default,ou=policy,{BASE}: smtpdRecipientRestrictions: the policy has no list"
    assert text in said


@pytest.mark.parametrize(
    ("hidden", "concept"),
    [
        ("member,uniqueMember,memberUid,memberURL", "member"),
        ("uid", "login"),
        (
            "smtpdSenderAccess,smtpdRecipientAccess,smtpdMemberSenderAccess,smtpdMemberRecipientAccess",
            "access",
        ),
    ],
)
def test_what_may_not_be_read(
    hidden: str, concept: str, config: Path, example_ldif: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Attributes that policies and rules ask for, and the account may not read."""
    status, said = lint(hidden, config, example_ldif, capsys)
    assert 1 == status
    assert re.search(rf"error: \[directory.attributes\]: {concept}: no entry with .*may not be read", said), (
        said
    )


# ---------------------------------------------------------------- what users write


@pytest.fixture(scope="module")
def domain() -> Iterator[Samba]:
    """A domain with a user who has a password."""
    with Samba(schema="ldappolicy") as samba:
        samba.user(AMY, "amy", PASSWORD)
        yield samba


def named(which: str) -> list[str]:
    """The attributes that the page of access rules names."""
    page = (ROOT / "schema" / "access-ad.md").read_text("utf-8")
    found = re.search(rf"\${which} = '([^']+)'", page)
    assert found is not None
    return found[1].split()


def writes(samba: Samba, name: str) -> bool:
    """Whether amy may write an attribute of her own entry."""
    change = f"dn: {AMY}\nchangetype: modify\nreplace: {name}\n{name}: 1\n-\n"
    try:
        samba.load(change, bind_dn=AMY, bind_pw=PASSWORD)
    except RuntimeError as problem:
        if "Insufficient access (50)" in str(problem):
            return False
        raise
    return True


@needs_samba
def test_what_users_write_about_themselves(domain: Samba) -> None:
    """The page's lists are true of a domain controller."""
    written, refused = named("written_by_everybody"), named("not_written_by_users")
    assert written == [name for name in (*written, *refused) if writes(domain, name)]


@needs_samba
def test_mapping_of_what_users_write(domain: Samba, tmp_path: Path) -> None:
    """Exactly the mapped attributes of the page's first list are errors, and none of the profile."""
    password = tmp_path / "password"
    password.write_text(domain.root_pw)
    written, refused = named("written_by_everybody"), named("not_written_by_users")
    mapping = mapping_for("active_directory", {"sender_access": tuple(written + refused)})
    directory = {
        "profile": "active_directory",
        "search_base": SUFFIX,
        "policy_base": SUFFIX,
        "bind": "simple",
        "bind_dn": domain.root_dn,
        "bind_pw_file": str(password),
    }
    config = configuration(domain.uri, {"directory": directory})

    async def told() -> list[str]:
        opened = assembly.open_directory(config)
        try:
            assembly.build_service(config, opened)
            return [fault.text for fault in await reach.self_written(opened, mapping)]
        finally:
            await opened.close()

    said = asyncio.run(told())
    assert sorted(written) == sorted(text.split("'")[1] for text in said)


USER_ACCOUNT_CONTROL = "bf967a68-0de6-11d0-a285-00aa003049e2"
"""Its schemaIDGUID (MS-ADA3)."""


@needs_samba
def test_accounts_that_may_not_be_read(
    domain: Samba, tmp_path: Path, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What tells that a login is disabled is read by all unless it is hidden, and no user writes his own."""
    assert [] == [name for name in ("userAccountControl", "accountExpires") if writes(domain, name)]
    bob = f"CN=bob,CN=Users,{SUFFIX}"
    domain.user(bob, "bob", PASSWORD)
    (tmp_path / "password").write_text(PASSWORD)
    domain.load(f"dn: OU=policy,{SUFFIX}\nobjectClass: organizationalUnit\n")
    policy = f"dn: CN=default,OU=policy,{SUFFIX}\nobjectClass: smtpdPolicy\ncn: default\n"
    domain.load(f"{policy}smtpdSenderRestrictions: check_sasl_access directory:nobody\n")
    config.write_text(
        f'[directory]\nuri = ["{domain.uri}"]\nsearch_base = "{SUFFIX}"\npolicy_base = "OU=policy,{SUFFIX}"\n'
        f'bind = "simple"\nbind_dn = "{AMY}"\nbind_pw_file = "password"\n'
    )
    told = []
    for hides in (False, True):
        if hides:
            deny = f"(OD;;RP;{USER_ACCOUNT_CONTROL};;AU)"
            who = [f"--simple-bind-dn={domain.root_dn}", f"--password={domain.root_pw}"]
            command = ["samba-tool", "dsacl", "set", "-H", domain.uri, "--objectdn", bob]
            run([*command, "--sddl", deny, *who], "")
        cli.run(["-c", str(config), "lint"])
        told.append(capsys.readouterr().out)
    said = f"error: [directory.attributes]: disabled: {bob} has no userAccountControl: it may not be read\n"
    assert [False, True] == [said in one for one in told], told


# ---------------------------------------------------------------- 389 Directory Server tells rights


def hide(server: DS389, account: str, name: str) -> None:
    """From now on an account may not read an attribute."""
    rule = f'deny (read, search, compare) userdn = "ldap:///{account}";'
    aci = f'(targetattr = "{name}")(version 3.0; acl "{name}"; {rule})'
    server.load(f"dn: {BASE}\nchangetype: modify\nadd: aci\naci: {aci}\n-\n")


@needs_389ds
def test_one_list_that_may_not_be_read(
    tmp_path: Path, config: Path, example_ldif: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where effective rights are told: an attribute that only denies, and one list of several."""
    account = f"cn=svc,{BASE}"
    (tmp_path / "password").write_text(ROOT_PW)
    with DS389(schema="ldappolicy") as server:
        server.load(spoken(example_ldif.read_text("utf-8")))
        server.load(
            f"dn: {account}\nobjectClass: organizationalRole\nobjectClass: simpleSecurityObject\ncn: svc\n"
            f"userPassword: {ROOT_PW}\n"
        )
        config.write_text(
            f'[directory]\nuri = ["{server.uri}"]\nprofile = "389ds"\nsearch_base = "{BASE}"\n'
            f'policy_base = "ou=policy,{BASE}"\nbind = "simple"\nbind_dn = "{account}"\n'
            f'bind_pw_file = "password"\n'
        )
        hide(server, account, "smtpdDeniedSender")
        cli.run(["-c", str(config), "lint"])
        accounts_told = capsys.readouterr().out
        hide(server, account, "nsAccountLock")
        cli.run(["-c", str(config), "lint"])
        said = capsys.readouterr().out
        allowed = cli.run(["-c", str(config), "eval"])
        capsys.readouterr()
        hide(server, account, "smtpdRecipientRestrictions")
        denied = cli.run(["-c", str(config), "eval"])
    assert (0, 78) == (allowed, denied)
    assert (
        "error: [directory.attributes]: denied_sender: the account may not read 'smtpdDeniedSender'" in said
    )
    assert "smtpdRecipientRestrictions: the account may not read it" in capsys.readouterr().err
    unread = "error: [directory.attributes]: disabled: the account may read 'nsAccountLock' of no login"
    assert (False, True) == (unread in accounts_told, unread in said)


@needs_389ds
def test_rights_that_are_told(
    tmp_path: Path, config: Path, example_ldif: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A mapped attribute that the account may not read, and one that users write about themselves."""
    with DS389(schema="ldappolicy") as server:
        server.load(spoken(example_ldif.read_text("utf-8")))
        (tmp_path / "password").write_text(server.root_pw)
        config.write_text(
            f'[directory]\nuri = ["{server.uri}"]\nprofile = "389ds"\nsearch_base = "{BASE}"\n'
            f'policy_base = "ou=policy,{BASE}"\nbind = "simple"\nbind_dn = "{server.root_dn}"\n'
            f'bind_pw_file = "password"\n'
        )
        cli.run(["-c", str(config), "lint"])
        before = capsys.readouterr().out
        rule = 'allow (write) userdn = "ldap:///self";'
        server.load(
            f"dn: {BASE}\nchangetype: modify\nadd: aci\n"
            f'aci: (targetattr = "smtpdSenderAccess")(version 3.0; acl "own"; {rule})\n-\n'
        )
        cli.run(["-c", str(config), "lint"])
        after = capsys.readouterr().out
    assert "makes policy" not in before
    assert "may not read" not in before
    assert re.search(
        r"error: \[directory.attributes\]: sender_access: 'smtpdSenderAccess' may be written by 'uid=", after
    ), after
