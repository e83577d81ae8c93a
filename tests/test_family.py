"""What a server is, and whether the profile is for it."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from ldappolicy import config as configuration
from ldappolicy.cli import EX_CONFIG, EX_UNAVAILABLE, run
from ldappolicy.directory import Scope, Search
from ldappolicy.directory.ldap import LdapDirectory, LdapSettings
from ldappolicy.directory.ldap.family import profile_of
from ldappolicy.errors import ConfigError, Unavailable
from ldappolicy.ldap_filter import Present
from ldappolicy.mapping import suited_by
from tests.labs.clock import on_virtual_time
from tests.labs.ds389 import DS389, needs_389ds
from tests.labs.faulty_ldap import ACTIVE_DIRECTORY, FakeLdap
from tests.labs.ldappolicy import EXAMPLE, Ldappolicy, Sections, merged, toml
from tests.labs.samba import ROOT_DN, ROOT_PW, Samba, needs_samba
from tests.labs.samba import SUFFIX as DOMAIN
from tests.labs.slapd import Slapd, require_slapd

Root = Mapping[str, Sequence[str]]

HERE = Search("cn=x", Scope.BASE, Present("objectClass"), ("cn",))
TREE = {"cn=x": {"cn": ["x"]}}
STRANGER = {"sender": "stranger@elsewhere.example", "recipient": "all@my.domain"}

SLAPD: Root = {"objectClass": ["top", "OpenLDAProotDSE"]}
DS: Root = {"vendorName": ["389 Project"]}
IPA: Root = {**DS, "supportedExtension": ["2.16.840.1.113730.3.8.10.1"]}


@pytest.mark.parametrize(
    ("root", "expected"),
    [
        (SLAPD, "openldap"),
        ({"configContext": ["cn=config"]}, "openldap"),
        (DS, "389ds"),
        ({"vendorName": ["Somebody"], "vendorVersion": ["389-Directory/2.3.1 B2023"]}, "389ds"),
        (IPA, "freeipa"),
        (ACTIVE_DIRECTORY, "active_directory"),
        ({"rootDomainNamingContext": ["DC=x"]}, "active_directory"),
        ({"vendorName": ["Somebody"]}, ""),
        ({}, ""),
    ],
)
def test_profile_of(root: Root, expected: str) -> None:
    """The root DSE tells it, or nothing does."""
    assert expected == profile_of({name.lower(): values for name, values in root.items()})


@pytest.mark.parametrize(
    ("profile", "explicit", "found"),
    [
        ("generic", ["", "389ds", "freeipa", "generic", "openldap"], [""]),
        ("openldap", ["", "openldap"], ["openldap"]),
        ("389ds", ["", "389ds", "freeipa"], ["389ds", "freeipa"]),
        ("freeipa", ["", "389ds", "freeipa"], ["389ds", "freeipa"]),
        ("active_directory", ["", "active_directory"], ["active_directory"]),
    ],
)
def test_suited_by(profile: str, explicit: list[str], found: list[str]) -> None:
    """Families do not mix; what is configured may be used with servers that do not say what they are."""
    assert explicit == sorted(suited_by(profile))
    assert found == sorted(suited_by(profile, is_found=True))


@pytest.mark.parametrize("port", [3268, 3269])
def test_the_global_catalog_is_refused(port: int) -> None:
    """It shows a part of each entry, and what it lacks would read as absent."""
    with pytest.raises(ConfigError, match=r"c.toml:2: \[directory\] uri: .*Global Catalog has only a part"):
        configuration.parse(f"[directory]\nuri = ['ldaps://dc.example:{port}']\n", "c.toml")


# ---------------------------------------------------------------- several servers


@asynccontextmanager
async def servers(
    *roots: Root, suited: Sequence[str] = ()
) -> AsyncIterator[tuple[list[FakeLdap], LdapDirectory]]:
    """Some, each of which says something else of itself."""
    fakes = [FakeLdap(TREE, root_dse=root) for root in roots]
    for fake in fakes:
        await fake.__aenter__()
    opened = LdapDirectory(
        LdapSettings([fake.uri for fake in fakes], proofs=[HERE], suited=suited),
        clock=asyncio.get_running_loop().time,
    )
    try:
        yield fakes, opened
    finally:
        await opened.close()
        for fake in fakes:
            await fake.__aexit__()


def test_a_server_of_another_family_is_not_used() -> None:
    """Not when the others are away either, and it is told what it is."""

    async def story() -> None:
        async with servers(SLAPD, ACTIVE_DIRECTORY, SLAPD, suited=["openldap"]) as (fakes, opened):
            fakes[0].refuse()
            await opened.search(HERE)
            assert fakes[2].uri == opened.describe()
            for fake in fakes[0], fakes[2]:
                await fake.__aexit__()
            with pytest.raises(Unavailable):
                await opened.search(HERE)
            with pytest.raises(Unavailable, match="is Active Directory, which the profile is not for"):
                await opened.search(HERE)
            assert "" == opened.unsuited  # what the others are is not known
            assert all(base == "" for base, _ in fakes[1].searches)

    on_virtual_time(story())


def test_the_one_that_suits_is_used() -> None:
    """Wherever it stands in the list."""

    async def story() -> None:
        async with servers(DS, {}, IPA, suited=["389ds", "freeipa"]) as (fakes, opened):
            await opened.search(HERE)
            assert fakes[0].uri == opened.describe()
            opened.expect(["freeipa"])
            await opened.close()
            await opened.search(HERE)
            assert fakes[2].uri == opened.describe()

    on_virtual_time(story())


def test_all_of_another_family() -> None:
    """Each is named with what it is."""

    async def story() -> None:
        async with servers(SLAPD, DS, suited=["active_directory", ""]) as (fakes, opened):
            with pytest.raises(Unavailable):
                await opened.identify()
            told = opened.unsuited
            assert f"{fakes[0].uri} is OpenLDAP, which" in told
            assert f"{fakes[1].uri} is 389 Directory Server, which" in told

    on_virtual_time(story())


# ---------------------------------------------------------------- real servers


def configured(folder: Path, sections: Sections) -> Path:
    """A configuration file."""
    file = folder / "config.toml"
    file.write_text(toml(merged(EXAMPLE, sections)))
    return file


@pytest.fixture
def slapd(example_ldif: Path) -> Iterator[Slapd]:
    """The example company."""
    require_slapd()
    with Slapd(schema="ldappolicy", overlays=("syncprov",)) as server:
        server.load(example_ldif)
        yield server


def complaint(
    folder: Path, capsys: pytest.CaptureFixture[str], uri: str, profile: str, **more: str
) -> list[tuple[int, str]]:
    """What `lint` and `eval` say, with their exit status."""
    directory: Sections = {"directory": {"uri": [uri], "profile": profile, **more}}
    file = configured(folder, directory)
    told = []
    for command in (["lint"], ["eval", *(f"{name}={value}" for name, value in STRANGER.items())]):
        status = run(["-c", str(file), *command])
        told.append((status, capsys.readouterr().err))
    return told


@pytest.mark.servers
def test_slapd_is_openldap(slapd: Slapd, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is found; the profiles of others are configuration errors, generic and its own are none."""
    for profile in ("auto", "openldap", "generic"):
        assert [0, 0] == [status for status, _ in complaint(tmp_path, capsys, slapd.uri, profile)]
    for profile in ("active_directory", "389ds", "freeipa"):
        for status, said in complaint(tmp_path, capsys, slapd.uri, profile):
            assert EX_CONFIG == status
            expected = (
                f"[directory] profile: expected 'auto' or the one of the server, got {profile!r}: server"
            )
            assert f"{expected} {slapd.uri} is OpenLDAP, which the profile is not for" in said


@pytest.mark.servers
def test_a_service_does_not_start_with_another_profile(slapd: Slapd) -> None:
    """It ends with 78, after saying why."""
    directory: Sections = {"directory": {"uri": [slapd.uri], "profile": "active_directory"}}
    with pytest.raises(RuntimeError, match=r"ended with 78: .* is OpenLDAP"), Ldappolicy(directory):
        pass


@pytest.mark.servers
@needs_389ds
def test_389_directory_server(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is found; FreeIPA's profile is of its family."""
    with DS389() as server:
        policies = f"dn: ou=policy,{server.suffix}\nobjectClass: organizationalUnit\n"
        server.load(f"dn: {server.suffix}\nobjectClass: domain\ndc: example\n\n{policies}")
        for profile in ("auto", "389ds", "freeipa", "generic"):
            for status, said in complaint(tmp_path, capsys, server.uri, profile):
                assert EX_CONFIG == status
                assert "no policy named 'default'" in said
        for profile in ("active_directory", "openldap"):
            for status, said in complaint(tmp_path, capsys, server.uri, profile):
                assert EX_CONFIG == status
                assert "is 389 Directory Server, which the profile is not for" in said


@pytest.mark.servers
@needs_samba
def test_active_directory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is found; generic is not for it."""
    (tmp_path / "password").write_text(ROOT_PW)
    more = {
        "bind": "simple",
        "bind_dn": ROOT_DN,
        "bind_pw_file": str(tmp_path / "password"),
        "search_base": DOMAIN,
        "policy_base": f"OU=policy,{DOMAIN}",
    }
    with Samba() as samba:
        samba.load(f"dn: OU=policy,{DOMAIN}\nobjectClass: organizationalUnit\n")
        for profile in ("auto", "active_directory"):
            for status, said in complaint(tmp_path, capsys, samba.uri, profile, **more):
                assert EX_CONFIG == status
                assert "no policy named 'default'" in said
        for profile in ("generic", "openldap", "389ds", "freeipa"):
            for status, said in complaint(tmp_path, capsys, samba.uri, profile, **more):
                assert EX_CONFIG == status
                assert "is Active Directory, which the profile is not for" in said


@pytest.mark.servers
@pytest.mark.parametrize("workers", [1, 2])
def test_until_a_server_says_what_it_is(slapd: Slapd, workers: int) -> None:
    """No lookup is answered; once it does, all are, and SIGHUP changes nothing about that."""
    slapd.kill()
    with Ldappolicy({"server": {"workers": workers}, "directory": {"uri": [slapd.uri]}}) as service:
        service.wait_for_log("no policies yet", workers)
        assert "DEFER_IF_PERMIT" in str(service.ask(**STRANGER))
        slapd.start()
        service.wait_for_log("mirror complete", workers)
        assert workers == len(service.log("profile openldap"))
        assert "reject," == service.ask(**STRANGER)
        service.hang_up()
        service.wait_for_log("configuration in force")
        assert "reject," == service.ask(**STRANGER)


@pytest.mark.servers
def test_the_family_is_in_the_snapshot(slapd: Slapd, tmp_path: Path) -> None:
    """A start while the directory is away knows what its servers are."""
    sections: Sections = {
        "directory": {"uri": [slapd.uri]},
        "cache": {"snapshot": str(tmp_path / "snapshot"), "mode": "mirror"},
    }
    with Ldappolicy(sections) as service:
        service.wait_for_log("mirror complete")
        assert "reject," == service.ask(**STRANGER)
    slapd.kill()
    with Ldappolicy(sections) as service:
        service.wait_for_log("policies of the snapshot are in force")
        assert ["profile openldap"] == [line.partition(": ")[2] or line for line in service.log("profile")][
            -1:
        ]
        assert "reject," == service.ask(**STRANGER)
        slapd.start()
        service.wait_for_log("mirror complete")
        assert "reject," == service.ask(**STRANGER)


@pytest.mark.servers
def test_nobody_there_is_no_family(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`eval` and `lint` do not guess."""
    with FakeLdap({}) as fake:
        fake.refuse()
        for status, said in complaint(tmp_path, capsys, fake.uri, "auto"):
            assert EX_UNAVAILABLE == status
            assert fake.uri in said


@pytest.mark.servers
def test_a_directory_that_moved_to_another_family(slapd: Slapd, tmp_path: Path) -> None:
    """What a snapshot says of the servers keeps nobody from those that have taken their place."""
    sections: Sections = {
        "directory": {"uri": [slapd.uri]},
        "cache": {"snapshot": str(tmp_path / "snapshot"), "mode": "on_demand"},
    }
    with Ldappolicy(sections) as service:
        assert "reject," == service.ask(**STRANGER)
    file = tmp_path / "snapshot"
    header, _, rest = file.read_bytes().partition(b"\n")
    body = header.replace(b'"openldap"', b'"389ds"') + b"\n" + rest[: rest.rindex(b"sha256 ")]
    file.write_bytes(body + b"sha256 %s\n" % hashlib.sha256(body).hexdigest().encode())
    with Ldappolicy(sections) as service:
        service.wait_for_log("profile openldap")
        assert "reject," == service.ask(**STRANGER)
