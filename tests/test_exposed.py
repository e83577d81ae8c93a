"""Files with secrets that everybody on the machine may read."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from ldappolicy.cli import run
from ldappolicy.directory.ldap import LdapSettings, exposed
from tests.labs.ldappolicy import EXAMPLE, Ldappolicy, Sections, merged, toml
from tests.labs.slapd import Slapd


@pytest.fixture
def folder() -> Iterator[Path]:
    """One that everybody may enter; pytest's own are closed."""
    made = Path(tempfile.mkdtemp(prefix="exposed-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@pytest.mark.parametrize(
    ("mode", "around", "expected"),
    [
        (0o600, 0o755, False),
        (0o640, 0o755, False),
        (0o644, 0o755, True),
        (0o604, 0o711, True),
        (0o644, 0o750, False),
        (0o622, 0o755, False),
    ],
)
@pytest.mark.parametrize("key", ["bind_pw_file", "tls_key_file", "bind"])
def test_exposed(
    folder: Path, key: str, mode: int, around: int, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever can enter the folders and read the file; also where a link leads there."""
    secret = folder / "secret"
    secret.write_text("x")
    secret.chmod(mode)
    (folder / "link").symlink_to(secret)
    folder.chmod(around)
    bind = {"bind_pw_file": "simple", "bind": "gssapi"}.get(key, "none")
    for name in (str(secret), str(folder / "link")):
        monkeypatch.setenv("KRB5_CLIENT_KTNAME", f"FILE:{name}")
        files = {} if key == "bind" else {key: name}
        found = list(exposed(LdapSettings(["ldapi:///"], bind=bind, **files)))  # type: ignore[arg-type]
        assert ([(key, name)] if expected else []) == found


@pytest.mark.servers
def test_a_password_that_everybody_may_read(
    folder: Path, example_ldif: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A warning of lint, and one line at the start of the service and when it is told to read again."""
    secret, said = folder / "password", "[directory]: bind_pw_file: everybody may read"
    with Slapd(schema="ldappolicy") as slapd:
        slapd.load(example_ldif)
        secret.write_text(slapd.root_pw)
        secret.chmod(0o644)
        bind: Sections = {"directory": {"uri": [slapd.uri], "bind": "simple", "bind_dn": slapd.root_dn}}
        sections = merged(bind, {"directory": {"bind_pw_file": str(secret)}, "server": {"workers": 2}})
        (folder / "config.toml").write_text(toml(merged(EXAMPLE, sections)))
        assert 0 == run(["-c", str(folder / "config.toml"), "lint"])
        assert f"warning: {said} {str(secret)!r}, expected a file with mode 0600" in capsys.readouterr().out
        with Ldappolicy(sections) as service:
            service.wait_for_log("bind_pw_file: everybody may read")  # by worker 0: another may be quicker
            secret.chmod(0o600)
            service.hang_up()
            service.wait_for_log("configuration in force in every worker")
            assert 1 == len(service.log("bind_pw_file: everybody may read"))
        assert 0 == run(["-c", str(folder / "config.toml"), "lint"])
        assert said not in capsys.readouterr().out
