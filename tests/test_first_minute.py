"""A stranger's first minute: what `make run` shows, and what the running service does when it is told to.

The configuration is deploy/example.toml and the tree schema/example.ldif, copied side by side as in the
checkout; only the port is another one.
"""

import asyncio
import math
import os
import pty
import re
import shlex
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ldappolicy.daemon import Timing, stamp, watch_file
from tests.conftest import ROOT
from tests.labs.clock import on_virtual_time
from tests.labs.ldappolicy import DEADLINE, EXAMPLE, HASTY, Ldappolicy, Sections, merged, program, toml
from tests.labs.slapd import wait_until

PORT = "inet:127.0.0.1:10040"
VISITOR = {"sender": "a@visitor.example", "recipient": "all@my.domain"}
# As long as what it replaces: the file keeps its size.
INSIDER, NEW_INSIDER = "smtpdAccess: partner.example OK", "smtpdAccess: visitor.example OK"


def checkout(folder: Path) -> Path:
    """The configuration in a copy of what it needs, on a port that the kernel chooses."""
    for name in ("deploy", "schema"):
        (folder / name).mkdir(parents=True)
    shutil.copy(ROOT / "schema" / "example.ldif", folder / "schema")
    text = (ROOT / "deploy" / "example.toml").read_text("utf-8")
    assert PORT in text
    config = folder / "deploy" / "example.toml"
    config.write_text(text.replace(f'["{PORT}"]', '["inet:127.0.0.1:0"]'), "utf-8")
    return config


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Ldappolicy]:
    """The demonstration, running; it reads its tree again when it is told to, and not otherwise."""
    with Ldappolicy(config=checkout(tmp_path), timing=replace(HASTY, ldif_quiet_s=86400.0)) as running:
        yield running


@pytest.fixture
def watching(tmp_path: Path) -> Iterator[Ldappolicy]:
    """The same, which reads its tree again soon after a change."""
    timing = replace(HASTY, ldif_look_s=0.02, ldif_quiet_s=0.1)
    with Ldappolicy(config=checkout(tmp_path), timing=timing) as running:
        yield running


@pytest.fixture
def ldif(tmp_path: Path) -> Path:
    """The tree that it serves."""
    return tmp_path / "schema" / "example.ldif"


def rewrite(path: Path, text: str) -> None:
    """New content all at once, however long a pause of ours would be in the middle of a write."""
    new = path.with_suffix(".new")
    new.write_text(text, "utf-8")
    new.replace(path)


# --- what is shown ------------------------------------------------------------------------------------


def test_make_run() -> None:
    """`make run` is this demonstration."""
    if not shutil.which("make"):
        pytest.skip("make is not installed: apt-get install make")
    command = ["make", "-n", "--no-print-directory", "run"]
    planned = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert ".venv/bin/ldappolicy -c deploy/example.toml serve" == planned.splitlines()[-1].strip()


CLASSES = (
    "allowed_only, external_allowed, insiders_only, known_logins, local_only, members_only, "
    "members_only_by_envelope, moderated, owners_only, permissive, restrictive"
)


def facts(text: str) -> dict[str, str]:
    """The table on the terminal: names, and values that may go on in the next line."""
    found: dict[str, str] = {}
    name = ""
    for line in text.partition("Try, ")[0].splitlines()[1:]:
        first, rest = line[:11].strip(), line[11:].strip()
        name = first or name
        found[name] = f"{found.get(name, '')} {rest}".strip()
    return found


def test_what_is_served(service: Ldappolicy, ldif: Path) -> None:
    """The terminal shows the listener, the directory, policies, classes and tables."""
    found = facts(service.stdout())
    assert re.fullmatch("[0-9a-f]+", found.pop("revision"))
    # A long path goes on in the next line.
    entries = len(re.findall("(?m)^dn:", ldif.read_text("utf-8")))
    assert found.pop("directory").replace(" ", "").endswith(f"/schema/example.ldif,{entries}entries")
    assert {
        "listening": service.inet,
        "policies": "default, exercise, plain",
        "classes": CLASSES,
        "tables": "ldap:insiders, ldap:local_domains",
    } == found


def lines_to_try(text: str) -> list[str]:
    """The commands that are shown."""
    return [line.strip() for line in text.partition("Try, in another terminal:\n")[2].splitlines()]


ANSWERS = [
    "action=reject,",
    "action=reject,",
    "action=reject_unknown_sender_domain, reject_unknown_client_hostname",
    "action=reject,",
]


def outcome(line: str) -> str:
    """The first line of what a shell prints for a line, which has to succeed without complaint."""
    done = subprocess.run(
        ["sh", "-c", line], cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE, check=False
    )
    assert (0, "") == (done.returncode, done.stderr), line
    return done.stdout.partition("\n")[0]


@pytest.mark.servers
@pytest.mark.parametrize(
    "name", [pytest.param("checkout", marks=pytest.mark.long), "it's here", "a$b (copy)"]
)
def test_lines_to_try(tmp_path: Path, name: str) -> None:
    """Each line to try works as it stands, wherever the checkout is."""
    with Ldappolicy(config=checkout(tmp_path / name)) as service:
        assert ANSWERS == [outcome(line) for line in lines_to_try(service.stdout())]


@pytest.mark.servers
def test_on_a_terminal(tmp_path: Path) -> None:
    """On a real terminal a line to try is one line, that can be copied."""
    command = [program(), "-c", str(checkout(tmp_path)), "serve"]
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        command, stdout=theirs, stderr=subprocess.PIPE, env={**os.environ, "TERM": "xterm"}
    ) as process:
        os.close(theirs)
        try:
            shown = read_until(ours, b"head -n 1")
        finally:
            process.send_signal(signal.SIGINT)
            os.close(ours)
    assert process.returncode == 0
    plain = re.sub(r"\x1b\[[0-9;]*m", "", shown).replace("\r\n", "\n")
    tried = lines_to_try(plain)
    assert len(ANSWERS) == len(tried)
    assert all(shlex.split(line)[0] in (program(), "bash") for line in tried)


def read_until(descriptor: int, end: bytes) -> str:
    """What comes from a terminal, up to the line with `end`."""
    got = b""
    while end not in got or not got.endswith(b"\n"):
        got += os.read(descriptor, 4096)
    return got.decode()


# --- streams that are closed, or take nothing ---------------------------------------------------------


STREAMS = [
    *((how, 1) for how in ("2>&-", ">/dev/full", "<&- >&- 2>&-")),
    ("<&- >&- 2>&-", 2),
    *(pytest.param(how, 1, marks=pytest.mark.long) for how in ("<&-", ">&-")),
    *(pytest.param(how, 2, marks=pytest.mark.long) for how in (">&-", ">/dev/full")),
]


@pytest.mark.servers
@pytest.mark.parametrize(("how", "workers"), STREAMS)
def test_standard_streams(tmp_path: Path, how: str, workers: int) -> None:
    """The service starts, answers and ends in order, whatever its standard streams are."""
    path, config = tmp_path / "policy", tmp_path / "config.toml"
    there: Sections = {"server": {"listen": [f"unix:{path}"], "workers": workers}}
    config.write_text(toml(merged(EXAMPLE, there)))
    command = ["sh", "-c", f'exec "$@" {how}', "sh", program(), "-c", str(config), "serve"]
    null = subprocess.DEVNULL
    with subprocess.Popen(command, stdin=null, stdout=null, stderr=null) as process:
        try:
            wait_until(lambda: listens(path) or process.poll() is not None, DEADLINE)
            assert [b"action=reject,\n"] * 2 == [asked(path) for _ in range(2)]
        finally:
            process.terminate()
        assert 0 == process.wait(DEADLINE)
    assert not path.exists()


def listens(path: Path) -> bool:
    """Whether a client gets through; the file is there a moment earlier."""
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(str(path)) == 0


def asked(path: Path) -> bytes:
    """The first line of the reply to a request at a socket file."""
    lines = "".join(f"{name}={value}\n" for name, value in VISITOR.items())
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(DEADLINE)
        client.connect(str(path))
        client.sendall(f"request=smtpd_access_policy\nprotocol_state=RCPT\n{lines}\n".encode())
        return client.makefile("rb").readline()


# --- SIGTERM, SIGINT ------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_stops(number: signal.Signals) -> None:
    """It ends in order: exit status 0, idle connections closed, the socket file gone, nothing but a word."""
    with Ldappolicy() as service:
        host, port = service.inet.removeprefix("inet:").split(":")
        path = Path(service.unix.removeprefix("unix:"))
        assert path.is_socket()
        with socket.create_connection((host, int(port)), DEADLINE) as idle:
            process = service.process
            process.send_signal(number)
            assert b"" == idle.recv(1)
            assert 0 == process.wait(DEADLINE)
        assert not path.exists()
        assert ["info: stopping"] == service.log()[-1:]
        assert [] == service.log("Traceback|error|warning")


# --- SIGHUP ---------------------------------------------------------------------------------------------


def write_unseen(path: Path, text: str) -> None:
    """New content under the old size, time and inode: who looks at those sees no change."""
    before = path.stat()
    path.write_text(text, "utf-8")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert before.st_size == path.stat().st_size


def test_hang_up_reads_the_tree(service: Ldappolicy, ldif: Path) -> None:
    """SIGHUP swaps the tree, whether its file looks changed or not."""
    assert "reject," == service.ask(**VISITOR)
    write_unseen(ldif, ldif.read_text("utf-8").replace(INSIDER, NEW_INSIDER))
    assert "reject," == service.ask(**VISITOR)
    service.hang_up()
    service.wait_for_log("configuration in force")
    assert "DUNNO" == service.ask(**VISITOR)


def test_hang_up_reads_the_configuration(service: Ldappolicy) -> None:
    """SIGHUP swaps the configuration as a whole."""
    request = {"client_address": "198.51.100.7", "sender": "a@b.example", "recipient": "internal@my.domain"}
    assert "reject," == service.ask(**request)
    text = service.config.read_text("utf-8")
    service.config.write_text(text.replace('name = "default"', 'name = "plain"'), "utf-8")
    service.hang_up()
    service.wait_for_log("configuration in force")
    assert "permit_mynetworks, reject" == service.ask(**request)


BAD_TREES = [
    ("broken", lambda text: f"{text}\nnonsense\n", r"example\.ldif:\d+: "),
    ("cut off", lambda text: text[: text.index("dn: cn=insiders")] + "dn: cn=ins", "example.ldif"),
    ("changes", lambda text: f"{text}\ndn: dc=x\nchangetype: delete\n", r"example\.ldif:\d+: "),
    ("empty", lambda text: "", "dc=example,dc=com"),
    ("no policy", lambda text: text.replace("objectClass: smtpdPolicy\n", "objectClass: device\n"), "policy"),
]
bad_trees = pytest.mark.parametrize(
    ("change", "complaint"), [row[1:] for row in BAD_TREES], ids=[row[0] for row in BAD_TREES]
)


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ('[policy]\nnmae = "x"\n', "nmae"),
        ("[policy\n", r"example\.toml"),
        ('[directory]\nuri = ["ldif:nowhere.ldif"]\nsearch_base = "dc=x"\npolicy_base = "dc=x"\n', "nowhere"),
    ],
    ids=["unknown key", "no TOML", "no such file"],
)
def test_hang_up_with_a_bad_configuration(service: Ldappolicy, wrong: str, complaint: str) -> None:
    """A bad configuration is refused, said so, and the old one stays, until there is a good one."""
    good = service.config.read_text("utf-8")
    service.config.write_text(wrong, "utf-8")
    service.hang_up()
    assert re.search(complaint, service.wait_for_log("refused"))
    assert "reject," == service.ask(**VISITOR)
    service.config.write_text(good, "utf-8")
    service.hang_up()
    service.wait_for_log("configuration in force")
    assert "reject," == service.ask(**VISITOR)
    assert [] == service.log("Traceback")


# --- the file is watched ----------------------------------------------------------------------------------


@pytest.mark.parametrize("pause", [0.0, 0.4, 0.9])
def test_half_a_file_is_not_read(tmp_path: Path, pause: float) -> None:
    """It is read again, once, when it has been quiet for a second, however long its writer pauses."""
    file = tmp_path / "tree.ldif"
    file.write_text("old")
    found: list[tuple[str, float]] = []

    async def read_again() -> None:
        found.append((file.read_text(), asyncio.get_running_loop().time()))

    async def story() -> None:
        watching = asyncio.create_task(watch_file(lambda: file, stamp(file), read_again, Timing()))
        await asyncio.sleep(3.1)
        assert [] == found
        file.write_text("half")
        await asyncio.sleep(pause)
        file.write_text("whole of it")
        await asyncio.sleep(60)
        watching.cancel()

    on_virtual_time(story())
    # Looked at every quarter of a second: seen at the next, and quiet for a second since.
    assert [("whole of it", math.ceil((3.1 + pause) * 4) / 4 + 1.0)] == found


def test_change_is_seen(watching: Ldappolicy, ldif: Path) -> None:
    """A change is picked up by itself, in the file or of a file that took its place."""
    old = ldif.read_text("utf-8")
    rewrite(ldif, old.replace(INSIDER, NEW_INSIDER))
    wait_until(lambda: watching.ask(**VISITOR) == "DUNNO", DEADLINE)
    assert [] == watching.log("refused")
    ldif.write_text(old, "utf-8")
    wait_until(lambda: watching.ask(**VISITOR) == "reject,", DEADLINE)


@bad_trees
def test_bad_tree_is_refused(
    watching: Ldappolicy, ldif: Path, change: Callable[[str], str], complaint: str
) -> None:
    """A bad file is refused, said so, and its old content stays, until there is a good one."""
    good = ldif.read_text("utf-8")
    rewrite(ldif, change(good))
    assert re.search(complaint, watching.wait_for_log("refused"))
    assert "reject," == watching.ask(**VISITOR)
    rewrite(ldif, good.replace(INSIDER, NEW_INSIDER))
    wait_until(lambda: watching.ask(**VISITOR) == "DUNNO", DEADLINE)
    assert [] == watching.log("Traceback")


def test_bad_policy_stays_as_it_was(watching: Ldappolicy, ldif: Path) -> None:
    """Of a policy that does not parse the last good form stays in force; the rest of the file is taken."""
    text = ldif.read_text("utf-8").replace(INSIDER, NEW_INSIDER)
    good, bad = "check_recipient_access directory:access", "check_recipient_access"
    rewrite(ldif, text.replace(f"smtpdRecipientRestrictions: {good}", f"smtpdRecipientRestrictions: {bad}"))
    wait_until(lambda: watching.ask(**VISITOR) == "DUNNO", DEADLINE)
    assert "reject," == watching.ask(sender="a@b.example", recipient="all@my.domain")
    told = "cn=default,ou=policy,dc=example,dc=com: smtpdRecipientRestrictions: "
    watching.wait_for_log(told)
    (line,) = watching.log(told)
    assert line.startswith("error: cn=default,")
