"""Programs that a private Postfix takes: one that fails is one line, and none reads what the machine has.

The machine of a case is this one in a mount namespace, with something missing, broken or in the way.
"""

import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from unittest.mock import Mock

import pytest

from ldappolicy.errors import OracleError
from ldappolicy.oracle import dns, programs
from ldappolicy.oracle.programs import SEARCH_PATH, configure, parameter, program, run, table_types
from tests.labs.importing import BASE, FOLDERS
from tests.labs.postfix import Postfix, require_postfix

# A script, a part of what is said of it.
FAILING: Mapping[str, tuple[str, str]] = {
    "a status": ("exit 3", "ended with status 3"),
    "what it said": ("echo a fault >&2; echo; exit 1", "ended with status 1: a fault"),
    "two lines": ("echo one; echo; echo ' two'; exit 1", "ended with status 1: one; two"),
    "not UTF-8": (r"printf '\377'; exit 1", "ended with status 1: \ufffd"),
    "a signal": ("kill -KILL $$", "was ended by SIGKILL"),
    "a signal of real time": (f"kill -{signal.SIGRTMIN + 1} $$", "was ended by signal 35"),
}


@pytest.mark.parametrize("case", FAILING)
def test_failing(case: str) -> None:
    """What was run, what became of it and what it said stand in one line."""
    script, said = FAILING[case]
    with pytest.raises(OracleError) as failed:
        run("sh", "-c", script)
    assert f"{shlex.join(['sh', '-c', script])!r} {said}" == str(failed.value)


def test_missing(tmp_path: Path) -> None:
    """A program that is not there, or that nobody may run, is said to be so, whoever waits for its end."""
    (tmp_path / "text").touch()
    for name, said in (("none", "No such file or directory"), ("text", "Permission denied")):
        expected = f"'{tmp_path}/{name} -x' cannot be run: {said}"
        with pytest.raises(OracleError, match=f"^{re.escape(expected)}$"):
            run(tmp_path / name, "-x")
        with (tmp_path / "out").open("w") as output, pytest.raises(OracleError, match=re.escape(expected)):
            programs.start(tmp_path / name, "-x", output=output)


def test_without_an_end() -> None:
    """A program that does not end is ended."""
    with pytest.raises(OracleError, match=r"^'sleep 600' has not ended within 0.1 seconds$"):
        run("sleep", "600", timeout=0.1)


def test_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Postfix's and libldap's programs read no configuration that nobody has named."""
    monkeypatch.setenv("MAIL_CONFIG", "/etc/postfix")
    assert "/nonexistent 1\n" == run("sh", "-c", 'echo "$MAIL_CONFIG $LDAPNOINIT"')


def test_shared_objects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The types of tables are those whose shared objects are there."""
    for name in ("postfix-ldap.so", "postfix-lmdb.so", "libpostfix-dns.so"):
        (tmp_path / name).touch()
    monkeypatch.setattr(programs, "parameter", lambda *_: str(tmp_path))
    configure(tmp_path, {"compatibility_level": "3.6"})
    expected = "ldap postfix-ldap.so dict_ldap_open\nlmdb postfix-lmdb.so dict_lmdb_open mkmap_lmdb_open\n"
    assert expected == (tmp_path / "dynamicmaps.cf").read_text()
    assert {f"meta_directory = {tmp_path}", "compatibility_level = 3.6"} < {
        *(tmp_path / "main.cf").read_text().splitlines()
    }


def test_no_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where something else answers on port 53 of every address, that is said."""
    monkeypatch.setattr(dns, "_Server", Mock(side_effect=OSError(98, "Address already in use")))
    with pytest.raises(
        OracleError, match=r"^no address for a DNS server of its own: Address already in use$"
    ):
        dns.Dns({})


@pytest.mark.servers
def test_ports_are_kept() -> None:
    """Nobody else has a port of smtpd before it listens there."""
    require_postfix()
    postfix = Postfix({"in": {}})
    with socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind(("127.0.0.1", postfix.ports["in"]))
    with postfix, postfix.session("in") as session:
        assert session.banner.startswith("220 ")


# --- machines -------------------------------------------------------------------------------------

BROKEN = "echo broken >/etc/postfix/main.cf; echo broken >/etc/postfix/master.cf; "
CASES = {
    "no configuration": ("hide /etc/postfix", 0, "verify: 20 requests from 9 keys, 0 differ"),
    "a broken configuration": (
        f"hide /etc/postfix; {BROKEN} echo broken >/etc/postfix/dynamicmaps.cf",
        *(0, "verify: 20 requests from 9 keys, 0 differ"),
    ),
    "no Postfix": (
        "gone $POSTCONF",
        *(69, r"--verify: Postfix is not installed: apt-get install postfix postfix-ldap"),
    ),
    "no user postfix": (
        "grep -v ^postfix: /etc/passwd >$HERE/passwd; mount --bind $HERE/passwd /etc/passwd",
        *(69, r"--verify: Postfix is not installed in full: getpwnam\(\): name not found: 'postfix'"),
    ),
    "no group postdrop": (
        "grep -v ^postdrop: /etc/group >$HERE/group; mount --bind $HERE/group /etc/group",
        *(69, r"--verify: Postfix is not installed in full: getgrnam\(\): name not found: 'postdrop'"),
    ),
    "no unshare": (
        "gone $UNSHARE",
        *(69, r"--verify: mount and pid namespaces are not allowed here: 'unshare .*' cannot be run: .*"),
    ),
    "no namespaces": (
        "instead $UNSHARE 'echo unshare: no >&2; exit 1'",
        *(
            69,
            r"--verify: mount and pid namespaces are not .*: 'unshare .*' ended with status 1: unshare: no",
        ),
    ),
    "no namespace at last": (
        "instead $UNSHARE 'case $* in *bind*resolv.conf) exit;; esac; echo no; exit 1'",
        *(69, r"no private Postfix: Postfix did not start: no"),
    ),
    "a postconf that fails": (
        "instead $POSTCONF 'echo a fault; exit 7'",
        *(69, r"no private Postfix: '\S*postconf .*' ended with status 7: a fault"),
    ),
    "a postmap that fails": (
        "instead $POSTMAP 'echo one; echo two; exit 7'",
        *(69, r"no private Postfix: '\S*postmap .*' ended with status 7: one; two"),
    ),
    "no postmap": ("gone $POSTMAP", 69, r"no private Postfix: 'postmap .*' cannot be run: .*"),
    "a master that is ended": (
        "instead $MASTER 'kill -SEGV $$'",
        *(69, r"no private Postfix: Postfix did not start: .*ended: 139"),
    ),
    "no master": ("gone $MASTER", 69, r"no private Postfix: Postfix did not start: .*; ended: 126"),
}

# Programs that are missing are files that nobody may run: in a mount namespace nothing can be removed.
MACHINE = """
hide() { mount -t tmpfs none "$1"; }
gone() { mount --bind /dev/null "$1"; }
instead() { printf '#!/bin/sh\\n%s\\n' "$2" >$HERE/it; chmod +x $HERE/it; mount --bind $HERE/it "$1"; }
"""


def on_a_machine(change: str, folder: Path, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """The command where that is changed, which nobody else sees."""
    names = {"POSTCONF": program("postconf"), "POSTMAP": program("postmap"), "UNSHARE": "unshare"}
    places = {name: shutil.which(path, path=SEARCH_PATH) for name, path in names.items()}
    places |= {"MASTER": f"{parameter('daemon_directory')}/master", "HERE": str(folder)}
    named = "".join(f"{name}={place}\n" for name, place in places.items())
    script = f'set -e\n{named}{MACHINE}\n{change}\nexec "$@"'
    words = ["unshare", "--mount", "sh", "-c", script, "sh", *command]
    return subprocess.run(words, capture_output=True, text=True, check=False)


AS_ANOTHER = {"no group postdrop", "no namespace at last", "a master that is ended", "no postmap"}
"""Cases that fail where another one does."""


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(one, marks=pytest.mark.long if one in AS_ANOTHER else pytest.mark.servers)
        for one in CASES
    ],
)
def test_machine(tmp_path: Path, case: str) -> None:
    """A verification reads nothing of the machine's own; what it cannot do without is one line, and 69."""
    require_postfix()
    change, status, last = CASES[case]
    main_cf = FOLDERS / "protected_by_sender" / "main.cf"
    command = [sys.executable, "-m", "ldappolicy", "import", "--main-cf", str(main_cf), "--policy-base", BASE]
    done = on_a_machine(change, tmp_path, [*command, "--verify", "20"])
    assert (status, 1) == (done.returncode, len(done.stderr.splitlines())), done.stderr
    assert re.fullmatch(f"ldappolicy: {last}\n", done.stderr), done.stderr
    assert "smtpdRelayRestrictions: " in done.stdout


@pytest.mark.servers
def test_table_types() -> None:
    """Types that are built in, and those of shared objects."""
    require_postfix()
    objects = Path(parameter("shlib_directory")).glob("postfix-*.so")
    loaded = {path.stem.removeprefix("postfix-") for path in objects}
    assert {"texthash", "cidr", "static", *loaded} <= table_types()
