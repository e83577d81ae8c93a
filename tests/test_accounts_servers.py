"""Disabled and expired accounts on real servers: on demand, told by the stream, mirrored; `ldif:`, `eval`."""

import asyncio
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ldappolicy.cli import run
from ldappolicy.service import Service
from tests.labs.deciding import configuration, deciding, following, rcpt
from tests.labs.ds389 import DS389, needs_389ds
from tests.labs.ldappolicy import EXAMPLE, Sections, merged, toml
from tests.labs.samba import Samba, needs_samba
from tests.labs.server import folder, tree_of
from tests.labs.slapd import SUFFIX, Slapd, require_slapd

pytestmark = pytest.mark.servers

Server = Slapd | DS389 | Samba
AMY = f"CN=amy,OU=people,{SUFFIX}"
ALL = "all@my.domain"
ENABLED = ["DUNNO", "DUNNO", "DUNNO"]
DISABLED = ["REJECT", "reject,", "553 5.7.1 not owned by user amy"]
LONG_AGO, ONE_DAY = "125911584000000000", "159010560000000000"  # 2000, and 2104

Change = tuple[str, str]
"""An attribute and its value; none: it goes."""


@dataclass(frozen=True)
class Kind:
    """A server, what its profile is, and what disables amy there, and does not."""

    start: Callable[[], Server]
    profile: str
    disabling: Sequence[Change]
    enabling: Sequence[Change]
    disabled: Sequence[str] = ()
    is_ad: bool = False

    def tree(self) -> str:
        """Amy, and a list of which she is a member."""
        units = folder("people") + folder("policy") if self.is_ad else tree_of("people", "policy")
        person = (
            "inetOrgPerson\nobjectClass: posixAccount\nobjectClass: shadowAccount\nuidNumber: 1\ngidNumber: 1"
        )
        person = f"{person}\nsn: x\nuid: amy\nhomeDirectory: /"
        if self.is_ad:
            person = "user\nsAMAccountName: amy\nuserAccountControl: 544"
        group = "group\nsAMAccountName: all" if self.is_ad else "groupOfNames\nobjectClass: extensibleObject"
        return (
            f"{units}dn: {AMY}\nobjectClass: {person}\ncn: amy\nmail: amy@my.domain\n\n"
            f"dn: CN=all,{SUFFIX}\nobjectClass: {group}\ncn: all\nmail: {ALL}\nmember: {AMY}\n\n"
            + "".join(self._policy(number, items) for number, items in enumerate(ITEMS))
        )

    def _policy(self, number: int, items: str) -> str:
        name = "default" if number == 0 else f"p{number}"
        head = f"dn: cn={name},OU=policy,{SUFFIX}\nobjectClass: smtpdPolicy\ncn: {name}\n"
        return f"{head}smtpdRecipientRestrictions: {items}\n\n"

    def sections(self, server: Server, folder: Path) -> Sections:
        """The configuration for it."""
        password = folder / "password"
        password.write_text(server.root_pw)
        password.chmod(0o600)
        directory = {"search_base": SUFFIX, "policy_base": f"OU=policy,{SUFFIX}", "profile": self.profile}
        bind = {"bind": "simple", "bind_dn": server.root_dn, "bind_pw_file": str(password)}
        mapped = {"disabled": list(self.disabled)} if self.disabled else {}
        return {"directory": {**directory, **bind}, "directory.attributes": mapped}


ITEMS = (
    "check_sasl_access directory:nobody",
    "check_sasl_access recipient:members, reject",
    "reject_sender_login_mismatch",
)


def slapd() -> Slapd:
    """OpenLDAP whose schema knows shadowExpire."""
    require_slapd()
    return Slapd(schema="ldappolicy", overlays=("syncprov",))


SLAPD = Kind(
    slapd,
    "openldap",
    [("shadowExpire", "10000"), ("description", "disabled")],
    [("shadowExpire", "99999"), ("description", "")],
    ("shadowExpire", "description"),
)
DS = Kind(
    lambda: DS389(schema="ldappolicy", content_sync=True),
    "389ds",
    [("nsAccountLock", "true")],
    [("nsAccountLock", "false")],
)
AD = Kind(
    lambda: Samba(schema="ldappolicy"),
    "active_directory",
    [("userAccountControl", "546"), ("accountExpires", LONG_AGO)],
    [("userAccountControl", "544"), ("accountExpires", ONE_DAY)],
    is_ad=True,
)
KINDS = [
    pytest.param(SLAPD, id="slapd"),
    pytest.param(DS, id="389-ds", marks=needs_389ds),
    pytest.param(AD, id="samba", marks=needs_samba),
]


@pytest.fixture(scope="module", params=KINDS)
def site(request: pytest.FixtureRequest) -> Iterator[tuple[Kind, Server]]:
    """A server with amy."""
    kind: Kind = request.param
    with kind.start() as server:
        server.load(kind.tree())
        yield kind, server


def change(server: Server, *changes: Change) -> None:
    """Amy's account."""
    for name, value in changes:
        line = f"{name}: {value}\n" if value else ""
        server.load(f"dn: {AMY}\nchangetype: modify\nreplace: {name}\n{line}-\n")


async def answers(service: Service) -> list[str | None]:
    """Of each policy."""
    return [
        await service.decide(
            rcpt(
                policy_context="default" if number == 0 else f"p{number}",
                sender="amy@my.domain",
                sasl_username="amy",
                recipient=ALL,
            )
        )
        for number in range(len(ITEMS))
    ]


async def become(service: Service, expected: list[str]) -> None:
    """Waits until the answers are so, and sees that they stay."""

    async with asyncio.timeout(60.0):
        while await answers(service) != expected:  # noqa: ASYNC110  # nothing tells of it
            await asyncio.sleep(0.01)
    assert expected == await answers(service)


@pytest.mark.parametrize("mode", ["off", "on_demand", "mirror"])
def test_on_demand_and_mirrored(site: tuple[Kind, Server], mode: str, tmp_path: Path) -> None:
    """Each attribute by itself, and back: as it is asked again, or as the stream tells."""
    kind, server = site
    sections = kind.sections(server, tmp_path)
    watched: Sections = {"directory": {"watch": "off"}} if mode == "off" else {"cache": {"mode": mode}}
    sections = merged(sections, watched)

    async def each(service: Service) -> None:
        assert ENABLED == await answers(service)
        for off, on in zip(kind.disabling, kind.enabling, strict=True):
            for one, expected in ((off, DISABLED), (on, ENABLED)):
                change(server, one)
                if mode == "off":
                    service.resolver.ask_again()
                await become(service, expected)

    async def story() -> None:
        async with deciding(server.uri, sections) as service:
            if mode == "off":
                await each(service)
            else:
                async with following(service, configuration(server.uri, sections)):
                    await each(service)

    change(server, *kind.enabling)
    asyncio.run(story())


def evaluated(config: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """What `eval --json` says of amy."""
    capsys.readouterr()
    given = ["sasl_username=amy", "sender=amy@my.domain", f"recipient={ALL}"]
    assert 0 == run(["-c", str(config), "eval", "--json", *given])
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    return told


def test_eval_and_a_file(
    site: tuple[Kind, Server], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command says why, over the server and over a file with the same entries."""
    kind, server = site
    live, filed = tmp_path / "live.toml", tmp_path / "filed.toml"
    sections = merged(EXAMPLE, kind.sections(server, tmp_path))
    for off, on in zip(kind.disabling, kind.enabling, strict=True):
        change(server, *kind.enabling)
        for one, expected in ((off, "REJECT"), (on, "DUNNO")):
            change(server, one)
            live.write_text(toml(merged(sections, {"directory": {"uri": [server.uri]}})))
            lines = [f"{name}: {value}" for name, value in (one,) if value]
            tree = tmp_path / "tree.ldif"
            top = f"dn: {SUFFIX}\nobjectClass: domain\n\n" if kind.is_ad else ""
            tree.write_text(top + _with(kind.tree(), one[0], lines))
            mapped = {"disabled": [one[0]]}
            of_file: Sections = {
                "directory": {"uri": [f"ldif:{tree}"]},
                "directory.attributes": mapped,
            }
            filed.write_text(toml(merged(sections, of_file)))
            for config in (live, filed):
                told = evaluated(config, capsys)
                assert expected == told["action"], (one, config.name)
                reasons = [event.get("reason", "") for event in told["trace"]]
                assert (expected == "REJECT") == any(one[0] in reason for reason in reasons), reasons


def _with(tree: str, name: str, lines: Sequence[str]) -> str:
    """The tree where amy has other values of an attribute."""
    records = tree.split("\n\n")
    for number, record in enumerate(records):
        if record.startswith(f"dn: {AMY}\n"):
            kept = [line for line in record.splitlines() if not line.startswith(f"{name}:")]
            records[number] = "\n".join([*kept, *lines])
    return "\n\n".join(records)


PPOLICY = f"""\
dn: cn=module{{0}},cn=config
changetype: modify
add: olcModuleLoad
olcModuleLoad: ppolicy
-

dn: olcOverlay=ppolicy,olcDatabase={{1}}mdb,cn=config
objectClass: olcOverlayConfig
objectClass: olcPPolicyConfig
olcOverlay: ppolicy
olcPPolicyDefault: cn=passwords,{SUFFIX}
"""
PASSWORDS = f"""\
dn: cn=passwords,{SUFFIX}
objectClass: device
objectClass: pwdPolicy
cn: passwords
pwdAttribute: userPassword
pwdLockout: TRUE
pwdMaxFailure: 1
"""


@pytest.mark.parametrize("mode", ["on_demand", "mirror"])
def test_a_lock_that_the_server_makes(mode: str, tmp_path: Path) -> None:
    """slapo-ppolicy(5) locks an account after a wrong password; the stream tells of it, and of the end."""

    async def story(server: Slapd) -> None:
        named: Sections = {"directory.attributes": {"disabled": ["pwdAccountLockedTime"]}}
        sections = merged(SLAPD.sections(server, tmp_path), {"cache": {"mode": mode}}, named)
        config = configuration(server.uri, sections)
        async with deciding(server.uri, sections) as service, following(service, config):
            assert ENABLED == await answers(service)
            with pytest.raises(RuntimeError, match="Invalid credentials"):
                server.load("dn: dc=x\nobjectClass: domain\n", bind_dn=AMY, bind_pw="wrong")
            await become(service, DISABLED)
            change(server, ("pwdAccountLockedTime", ""))
            await become(service, ENABLED)

    with slapd() as server:
        server.configure(PPOLICY)
        server.load(SLAPD.tree() + PASSWORDS)
        change(server, ("userPassword", "right"))
        asyncio.run(story(server))
