"""The walk of README, from an installation to a rule in force: its files and commands as they stand there.

Comments in README say what a block is: `<!-- walk: NAME -->` above a file of that name, above commands and
what they print (`run`, and `watch` once there has been mail), and above what the test does in its own way:
`main.cf`, `systemd`, `reply`. In what is printed `...` stands for anything.

What is different here is in `Walk.different`: folders and ports, an environment that finds the dependencies
where the tests have them and asks no package index, a lab in the place of systemd and its journal. slapd is
like Debian's: it has no overlay, everybody may read, and root may write cn=config.
"""

import os
import re
import shlex
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.labs.ldappolicy import Ldappolicy
from tests.labs.postfix import Postfix, require_postfix
from tests.labs.slapd import PLAIN, SUFFIX, Slapd, free_port, require_slapd
from tests.labs.systemd import Systemd
from tests.readme import WALK

UNIT = ROOT / "deploy" / "systemd" / "ldappolicy.service"
FETCH = "import sys, urllib.request as web; print(web.urlopen(sys.argv[1]).read().decode())"

PASSED = "250 2.1.5 Ok"
MOST_MAILS = 1000
"""Sessions until the rule has to be in force: some seconds, with a poll it would be half a minute."""

# What the company has in its directory.
TREE = f"""\
dn: {SUFFIX}
objectClass: dcObject
objectClass: organization
dc: example
o: Example Company

dn: ou=people,{SUFFIX}
objectClass: organizationalUnit
ou: people

dn: ou=lists,{SUFFIX}
objectClass: organizationalUnit
ou: lists

dn: uid=amy,ou=people,{SUFFIX}
objectClass: inetOrgPerson
uid: amy
cn: Amy Ander
sn: Ander
mail: amy@my.domain

dn: cn=team,ou=lists,{SUFFIX}
objectClass: groupOfNames
cn: team
member: uid=amy,ou=people,{SUFFIX}
"""


class Debians(Slapd):
    """A slapd that has not loaded syncprov."""

    def _config(self) -> str:
        whole = super()._config()
        without = whole.replace("olcModuleLoad: syncprov\n", "")
        assert whole != without
        return without


def parameters() -> dict[str, str]:
    """The lines of main.cf."""
    (text,) = (text for name, text in WALK if name == "main.cf")
    lines = (line.partition("=") for line in text.splitlines() if not line.startswith("#"))
    return {name.strip(): value.strip() for name, _, value in lines}


def pattern(output: str) -> str:
    """What is printed, as a regular expression."""
    lines = (
        "(?:.*\n)*" if line == "..." else ".*".join(map(re.escape, line.split("..."))) + "\n"
        for line in output.splitlines()
    )
    return "".join(lines)


class Walk:
    """A machine of the administrator's, and how far the walk has come."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        self._stack = stack
        self.slapd = stack.enter_context(Debians(overlays=PLAIN, data=TREE))
        self.postfix = stack.enter_context(Postfix({"in": parameters()}, {"mydestination": "my.domain"}))
        self.etc = folder / "etc" / "ldappolicy"
        for directory in (folder / "usr/local/bin", folder / "work"):
            directory.mkdir(parents=True)
        self.service: Ldappolicy | None = None
        self.different = self._different(f"127.0.0.1:{free_port()}")
        self._steps: dict[str, Callable[[str], None]] = {
            "run": self.run,
            "watch": self.watch,
            "systemd": self.start,
            "main.cf": lambda _: None,
            "reply": self.refused,
        }

    def _different(self, web: str) -> dict[str, str]:
        """What stands in README, and what it is here; the first that fits, in this order."""
        python, venv = shlex.quote(sys.executable), self.folder / "opt" / "ldappolicy"
        pip = f"{python} -m pip --python {venv}/bin/python install --no-deps --no-index --no-build-isolation"
        return {
            "python3 -m venv": f"{python} -m venv --without-pip",
            "/opt/ldappolicy/bin/pip install --quiet .": f"{pip} --quiet {shlex.quote(str(ROOT))}",
            "/opt/ldappolicy": str(venv),
            "/usr/local/bin/": f"{self.folder}/usr/local/bin/",
            "/etc/ldappolicy": str(self.etc),
            "/etc/postfix/main.cf": f"{self.postfix.etc}/main.cf",
            "/var/spool/postfix": str(self.postfix.spool),
            "ldapi:///": self.slapd.ldapi_uri,
            "ldap://127.0.0.1": self.slapd.uri,
            f"cn=admin,{SUFFIX}": self.slapd.root_dn,
            "127.0.0.1:9414": web,
            "curl -s": f"{python} -c {shlex.quote(FETCH)}",
        }

    def here(self, text: str) -> str:
        """What README says, for this machine."""
        whole = "|".join(map(re.escape, self.different))
        return re.sub(whole, lambda found: self.different[found[0]], text)

    def go(self) -> None:
        """All of it."""
        for name, text in WALK:
            if name in self._steps:
                self._steps[name](text)
            else:
                self.path(name).write_text(self.here(text), "utf-8")

    def path(self, name: str) -> Path:
        """A file of the walk."""
        return self.folder / "work" / self.here(name)

    def run(self, text: str) -> None:
        """Commands, each of which succeeds and prints what stands below it."""
        for command in re.split(r"(?m)^\$ ", text)[1:]:
            line, _, output = command.partition("\n")
            actual = self.output(self.here(line))
            if not re.fullmatch(pattern(self.here(output)), actual):
                assert self.here(output) == actual, line
            self.prepare(line)

    def output(self, line: str) -> str:
        """What a terminal would show of it."""
        environment = {
            **os.environ,
            "PATH": f"{self.folder}/usr/local/bin{os.pathsep}{os.environ['PATH']}",
            "LDAPPOLICY_CONFIG": str(self.etc / "config.toml"),
        }
        done = subprocess.run(
            ["sh", "-c", line],
            cwd=self.folder / "work",
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
        )
        assert 0 == done.returncode, f"{line}: {done.stdout}"
        return done.stdout

    def prepare(self, line: str) -> None:
        """What is there besides: dependencies for the new environment, the password for the file."""
        if " -m venv " in line:
            paths = {"base": str(self.folder / "opt" / "ldappolicy")}
            packages = Path(sysconfig.get_path("purelib", "venv", paths))
            (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n", "utf-8")
        elif line.startswith("mkdir"):
            (self.etc / "admin.password").write_text(self.slapd.root_pw + "\n", "utf-8")

    def start(self, text: str) -> None:
        """systemd: the socket is where the unit has it, and the service is what the unit starts."""
        units = re.findall(r"deploy/\S+", text)
        assert units
        assert all((ROOT / unit).is_file() for unit in units)
        assert (
            "ExecStart=/opt/ldappolicy/bin/ldappolicy -c /etc/ldappolicy/config.toml serve"
            in UNIT.read_text()
        )
        private = self.postfix.spool / "private"
        systemd = self._stack.enter_context(Systemd(private))
        systemd.file.rename(private / "ldappolicy")
        program = [self.here("/opt/ldappolicy/bin/ldappolicy")]
        self.service = Ldappolicy(
            config=self.etc / "config.toml", command=systemd.command(what=program), pass_fds=systemd.fds
        )
        self._stack.enter_context(self.service)
        systemd.wait_for("READY=1")
        self.different["journalctl -u ldappolicy -o cat -g"] = f"grep -h {self.service.folder}/stderr -e"

    def mail(self) -> str:
        """What Postfix says to a stranger who writes to the list."""
        with self.postfix.session("in", addr="203.0.113.9", name="mail.elsewhere.example") as smtp:
            smtp.ehlo("mail.elsewhere.example")
            smtp.mail("stranger@elsewhere.example")
            return smtp.rcpt("team@my.domain")

    def watch(self, text: str) -> None:
        """A mail arrives, and what the rule would have done is seen."""
        assert self.service is not None
        assert PASSED == self.mail()
        self.service.wait_for_log("shadowed=")
        self.run(text)

    def refused(self, text: str) -> None:
        """As soon as the directory has told it; a poll would come half a minute later."""
        assert self.service is not None
        replies = [self.mail()]
        while replies[-1] == PASSED and len(replies) < MOST_MAILS:
            replies.append(self.mail())
        assert text == replies[-1] + "\n"
        self.service.wait_for_log("action='reject,'")


@pytest.fixture
def walk(tmp_path: Path) -> Iterator[Walk]:
    """A machine on which nothing has been done yet."""
    require_slapd()
    require_postfix()
    pytest.importorskip("hatchling.build", reason="needs hatchling (in the extra `dev`)")
    pytest.importorskip("pip", reason="needs pip")
    with ExitStack() as stack:
        yield Walk(tmp_path, stack)


@pytest.mark.servers
def test_walk(walk: Walk) -> None:
    """What README says leads from an installation to a rule in shadow, and to the rule in force."""
    walk.go()
    assert walk.service is not None
    assert [] == walk.service.log("error|Traceback")
    assert [] == walk.postfix.log("warning|fatal")
    where = walk.output(
        walk.here("/opt/ldappolicy/bin/python -c 'import ldappolicy; print(ldappolicy.__file__)'")
    )
    assert where.startswith(f"{walk.folder}/opt/ldappolicy/"), "the checkout was run, not what was installed"
