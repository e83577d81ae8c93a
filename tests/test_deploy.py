"""What deploy/ ships is in agreement with the program, and works as it stands.

Units are read by systemd's own checks, the excerpts of main.cf and master.cf stand in a real Postfix before a
real service, configurations go through the program's own loader, manual pages through groff. Alerts and
the dashboard are in test_alerts.py.
"""

import re
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import MISSING, fields, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import click
import pytest
import trustme
import yaml

import ldappolicy.cli
from ldappolicy import __version__, config
from ldappolicy.cli import cli, run
from ldappolicy.main_cf import read_main_cf
from ldappolicy.mapping import KEYS, mapping_for
from tests.conftest import ROOT
from tests.labs.ldappolicy import DEADLINE, Ldappolicy, Sections, program
from tests.labs.postfix import OUTSIDE, Postfix, Session, require_postfix
from tests.labs.slapd import wait_until

DEPLOY = ROOT / "deploy"
SOCKET = "private/ldappolicy"
# `#key` is a key, `# Text` is text.
KEY = re.compile("#([a-z_]+) = ")


def text_of(name: str) -> str:
    """A shipped file."""
    return (DEPLOY / name).read_text("utf-8")


# --- the configuration at its defaults ------------------------------------------------------------


def defaults() -> dict[tuple[str, str], Any]:
    """Every key of the program, by section, with its default."""
    found: dict[tuple[str, str], Any] = {}
    for section in fields(config.Config):
        assert section.default_factory is not MISSING
        values = section.default_factory()
        found |= {(section.name, key.name): getattr(values, key.name) for key in fields(values)}
    del found["directory", "attributes"]
    names = mapping_for("generic", {})
    return found | {("directory.attributes", key): getattr(names, key) for key in KEYS}


def uncommented() -> str:
    """The shipped configuration with every key set."""
    return re.sub(f"(?m)^{KEY.pattern}", r"\1 = ", text_of("ldappolicy.toml"))


def manual_as_toml() -> str:
    """The keys that the manual page tells, with their defaults, in the sections of its headings."""
    page = text_of("man/ldappolicy.toml.5").replace(r"\(dq", '"')
    told = re.findall(r"(?m)^\.(?:Ss (?P<section>\[.*\])|It Ic (?P<key>\w+) Li (?P<value>= .*))$", page)
    return "\n".join(section or f"{key} {value}" for section, key, value in told)


def keys_in(text: str) -> list[tuple[str, str]]:
    """The keys that are set in a text of TOML, each as often as it is."""
    section, found = "", []
    for heading, key in re.findall(r"(?m)^(?:\[([a-z.]+)\]|([a-z_]+) = .*)$", text):
        section = heading or section
        found += [(section, key)] if key else []
    return found


every_text = pytest.mark.parametrize("text", [uncommented(), manual_as_toml()], ids=["toml", "manual"])


@every_text
def test_every_key(text: str) -> None:
    """The commented configuration and the manual page have every key, once."""
    assert sorted(defaults()) == sorted(keys_in(text))


@every_text
def test_every_default(text: str) -> None:
    """With the default that it has in the program."""
    told = config.parse(text, "told.toml")
    assert mapping_for("generic", {}) == mapping_for("generic", told.directory.attributes)
    assert config.Config() == replace(told, directory=replace(told.directory, attributes={}))


def test_as_it_stands() -> None:
    """Nobody has to take the file apart: as it is, it changes nothing."""
    assert config.Config() == config.load(DEPLOY / "ldappolicy.toml")
    assert [] == keys_in(text_of("ldappolicy.toml"))


def test_every_key_is_explained() -> None:
    """Above every key, or group of keys, stands a sentence."""
    lines = text_of("ldappolicy.toml").split("\n")
    above = [(before, line) for before, line in pairwise(lines) if KEY.match(line)]
    assert len(defaults()) == len(above)
    assert [] == [line for before, line in above if not before.startswith("#")]


# --- manual pages ---------------------------------------------------------------------------------

PAGES = ["ldappolicy.8", "ldappolicy.toml.5"]


@pytest.mark.servers
@pytest.mark.parametrize("page", PAGES)
def test_page_is_well_formed(page: str) -> None:
    """groff has no complaint, with all its warnings on."""
    if not shutil.which("groff"):
        pytest.skip("groff is not installed: apt-get install groff-base")
    command = ["groff", "-mdoc", "-ww", "-z", "-Tutf8", str(DEPLOY / "man" / page)]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (0, "") == (checked.returncode, checked.stderr)


def test_page_has_its_name() -> None:
    """A page is found under the name and section that others refer to."""
    told = {page: re.findall(r"(?m)^\.Dt (\S+) (\d)$", text_of(f"man/{page}")) for page in PAGES}
    assert {page: [tuple(page.upper().rsplit(".", 1))] for page in PAGES} == told


def commands(group: click.Group, *names: str) -> Iterator[tuple[str, click.Command]]:
    """Every command with its whole name."""
    for name in group.list_commands(click.Context(group)):
        found = group.get_command(click.Context(group), name)
        assert found is not None
        if isinstance(found, click.Group):
            yield from commands(found, *names, name)
        else:
            yield " ".join((*names, name)), found


def options(command: click.Command) -> set[str]:
    """Its options, without the help that each has."""
    shown = [option for option in command.params if isinstance(option, click.Option) and not option.hidden]
    return {name for option in shown for name in option.opts} - {"-h", "--help"}


def told_options(section: str) -> set[str]:
    """What a part of the page has as the heads of its items."""
    heads = re.findall(r"(?m)^\.It (Fl .*)$", section)
    flags = [flag for head in heads for flag in re.findall(r"Fl (\S+)", head)]
    return {f"-{flag}" for flag in flags} - {"-h", "--help", "--version"}


def test_page_has_every_command() -> None:
    """Commands and options of the manual page are those of the program."""
    _, *parts = re.split(r"(?m)^\.S[sh] (.*)$", text_of("man/ldappolicy.8"))
    sections = dict(zip(parts[::2], parts[1::2], strict=True))
    offered = {name: options(command) for name, command in commands(cli)}
    assert offered == {name: told_options(text) for name, text in sections.items() if name.islower()}
    assert {"-c", "--config"} == told_options(sections["DESCRIPTION"])


def test_page_has_every_exit_status() -> None:
    """So are the statuses."""
    named = {value for name, value in vars(ldappolicy.cli).items() if name.startswith("EX_")}
    told = re.findall(r"(?m)^\.It (\d+)$", text_of("man/ldappolicy.8"))
    assert [0, 1, *sorted(named)] == [int(status) for status in told]


# --- systemd --------------------------------------------------------------------------------------

EXPOSURE = 1.2
"""What `systemd-analyze security` may say, of 10; the rest is what a service on sockets has to have."""


def systemd_analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs it; it needs no running systemd for what is asked here."""
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd-analyze is not installed: apt-get install systemd")
    return subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True, check=False)


@pytest.fixture
def units(tmp_path: Path) -> list[str]:
    """Both units, with the program where it is here."""
    for name in ("ldappolicy.service", "ldappolicy.socket"):
        text = text_of(f"systemd/{name}").replace("/opt/ldappolicy/bin/ldappolicy", program())
        (tmp_path / name).write_text(text, "utf-8")
    return [str(tmp_path / "ldappolicy.service"), str(tmp_path / "ldappolicy.socket")]


def settings(unit: str) -> dict[str, list[str]]:
    """What a unit says, by name."""
    found: dict[str, list[str]] = {}
    for name, value in re.findall(r"(?m)^(\w+)=(.*)$", text_of(f"systemd/{unit}")):
        found.setdefault(name, []).append(value)
    return found


SERVICE, LISTENER = settings("ldappolicy.service"), settings("ldappolicy.socket")


@pytest.mark.servers
def test_units_are_well_formed(units: list[str]) -> None:
    """systemd has no complaint about a line of them."""
    checked = systemd_analyze("verify", "--man=no", "--recursive-errors=no", *units)
    assert (0, "") == (checked.returncode, checked.stderr)


@pytest.mark.servers
def test_exposure(units: list[str]) -> None:
    """The service gives away what it does not need."""
    said = systemd_analyze("security", "--offline=true", "--no-pager", units[0]).stdout
    told = re.search(r"Overall exposure level for ldappolicy\.service: ([\d.]+)", said)
    assert told is not None, said
    assert float(told[1]) <= EXPOSURE, "\n".join(line for line in said.splitlines() if "✗" in line)


def test_configuration_for_the_unit(tmp_path: Path) -> None:
    """What the unit's head says for config.toml names the places that the unit makes."""
    head = text_of("systemd/ldappolicy.service").partition("[Unit]")[0]
    lines = re.findall(r"(?m)^#     (\[\w+\]|\w+ = .*)$", head)
    told = config.parse("\n".join(lines), str(tmp_path / "config.toml"))
    credential = SERVICE["LoadCredential"][0].partition(":")[0]
    assert f"/run/credentials/ldappolicy.service/{credential}" == told.directory.bind_pw_file
    assert f"/var/lib/{SERVICE['StateDirectory'][0]}" == str(Path(told.cache.snapshot).parent)


def test_unit_fits_the_program() -> None:
    """Limits of the unit lie above those of the service, and its command is one."""
    server = config.Server()
    assert config.seconds(SERVICE["TimeoutStopSec"][0]) > server.shutdown_grace
    assert int(SERVICE["LimitNOFILE"][0]) > server.max_connections
    options = dict(zip(*[iter(SERVICE["ExecStart"][0].split()[1:-1])] * 2, strict=True))
    assert {"-c": "/etc/ldappolicy/config.toml"} == options
    assert SERVICE["ExecStart"][0].split()[-1] in cli.list_commands(click.Context(cli))


def members(group: str) -> set[str]:
    """The system calls of one of systemd's groups."""
    said = systemd_analyze("syscall-filter", group).stdout.splitlines()[1:]
    names = {line.strip() for line in said if line.strip() and not line.strip().startswith("#")}
    return {call for name in names for call in (members(name) if name.startswith("@") else {name}) if call}


def allowed() -> set[str]:
    """What is left by the lines of SystemCallFilter, in order."""
    left: set[str] = set()
    for line in SERVICE["SystemCallFilter"]:
        calls = set().union(*map(members, line.lstrip("~").split()))
        left = left - calls if line.startswith("~") else left | calls
    return left


@pytest.mark.servers
def test_system_calls(tmp_path: Path) -> None:
    """Whatever the service asks of the kernel, the unit allows; nothing writable is made executable."""
    if not shutil.which("strace"):
        pytest.skip("strace is not installed: apt-get install strace")
    permitted = allowed()
    trace = tmp_path / "trace"
    # -D: the service is the process that is started, and strace(1) the one beside it.
    command = ["strace", "-D", "-f", "-q", "-o", str(trace), program()]
    own: Sections = {"server": {"workers": 2}, "cache": {"snapshot": str(tmp_path / "snapshot")}}
    with Ldappolicy(own, command=command) as service:
        assert "reject," == service.ask(sender="a@elsewhere.example", recipient="all@my.domain")
        ended = re.compile(rf"(?m)^{service.process.pid} +\+\+\+ exited with 0")
        assert 0 == service.stop()
        wait_until(lambda: ended.search(trace.read_text("utf-8", "replace")), DEADLINE)
    lines = trace.read_text("utf-8", "replace").splitlines()
    asked = {call for line in lines for call in re.findall(r"^\d+ +(\w+)\(", line)}
    assert {"listen", "rename"} <= asked
    assert set() == asked - permitted
    assert [] == [line for line in lines if re.search(r"mprotect\(.*PROT_EXEC|PROT_WRITE\|PROT_EXEC", line)]


# --- Postfix --------------------------------------------------------------------------------------

STRANGER = "stranger@elsewhere.example"
REFUSED = "554 5.7.1 <all@my.domain>: Recipient address rejected: Access denied"
SHIPPED = {"in": "smtp", "submission": "submission"}


def parameters(name: str) -> dict[str, str]:
    """The parameters of an excerpt of main.cf, as Postfix reads them."""
    found = read_main_cf(DEPLOY / "postfix" / name)
    assert () == found.warnings
    return {key: definition.value for key, definition in found.definitions.items()}


class Site(Postfix):
    """A Postfix with the excerpts, as they are but for the ports: `in`, `submission`, and `lists`."""

    def __init__(self, certificate: Path) -> None:
        tls = {"smtpd_tls_cert_file": str(certificate), "smtpd_tls_key_file": str(certificate)}
        services = {"in": {}, "submission": {}, "lists": parameters("main-per-list.cf")}
        super().__init__(services, {**tls, **parameters("main.cf")})

    def _service(self, name: str) -> str:
        """A service of the shipped master.cf on a free port of ours."""
        if name not in SHIPPED:
            return super()._service(name)
        services = re.split(r"(?m)^(?=[a-z]+ +inet)", text_of("postfix/master.cf"))
        (found,) = (text for text in services if text.startswith(f"{SHIPPED[name]} "))
        return found.replace(SHIPPED[name], f"127.0.0.1:{self.ports[name]}", 1)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """Who vouches for the mail server."""
    return trustme.CA()


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory, example_ldif: Path) -> Path:
    """The example company, with the policy for submission."""
    path = tmp_path_factory.mktemp("tree") / "tree.ldif"
    path.write_text(f"{example_ldif.read_text('utf-8')}\n{text_of('postfix/submission.ldif')}", "utf-8")
    return path


@pytest.fixture(scope="module")
def site(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Postfix, running."""
    require_postfix()
    certificate = tmp_path_factory.mktemp("tls") / "mx.pem"
    authority.issue_cert("mx.my.domain").private_key_and_cert_chain_pem.write_to_path(str(certificate))
    with Site(certificate) as running:
        yield running


@pytest.fixture(scope="module")
def service(site: Site, tree: Path) -> Iterator[Ldappolicy]:
    """The service on the socket that the excerpts name."""
    listen = ["inet:127.0.0.1:0", f"unix:{site.spool}/{SOCKET}"]
    with Ldappolicy({"server": {"listen": listen}, "directory": {"uri": [f"ldif:{tree}"]}}) as running:
        yield running


@pytest.fixture
def outside(site: Site, service: Ldappolicy) -> Iterator[Session]:
    """A session of somebody outside."""
    with site.session("in", **OUTSIDE) as session:
        session.ehlo()
        yield session


@pytest.mark.servers
def test_refused_and_accepted(outside: Session) -> None:
    """One call decides, in a chroot too: a protected list is closed to a stranger, its neighbour is not."""
    outside.mail(STRANGER)
    assert REFUSED == outside.rcpt("all@my.domain")
    assert "250 2.1.5 Ok" == outside.rcpt("hank@my.domain")
    assert outside.data().startswith("250 2.0.0 Ok: queued")


@pytest.mark.servers
def test_relaying_is_decided_before(outside: Session) -> None:
    """What is not ours to decide about is refused by Postfix."""
    outside.mail(STRANGER)
    assert "554 5.7.1 <x@far.example>: Relay access denied" == outside.rcpt("x@far.example")


@pytest.mark.servers
def test_per_list(site: Site, service: Ldappolicy) -> None:
    """One call in each list: Postfix names what was refused, the sender or the recipient."""
    with site.session("lists", login="amy", **OUTSIDE) as session:
        session.ehlo()
        session.mail("amy@my.domain")
        sent = session.rcpt("x@far.example")
        assert "554 5.7.1 <amy@my.domain>: Sender address rejected: Access denied" == sent
        session.rset()
        session.mail(STRANGER)
        assert REFUSED == session.rcpt("all@my.domain")
        assert "250 2.1.5 Ok" == session.rcpt("hank@my.domain")
        assert session.data().startswith("250 2.0.0 Ok: queued")


@pytest.mark.servers
def test_submission(site: Site, service: Ldappolicy, authority: trustme.CA) -> None:
    """The submission service has a policy of its own: a login writes under its own addresses."""
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    with site.session("submission") as session:
        session.ehlo()
        session.starttls(trusting, "mx.my.domain")
        session.ehlo()
        assert session.auth("hank").startswith("235")
        session.mail("joe@my.domain")
        refused = session.rcpt("x@far.example")
        session.rset()
        session.mail("hank@my.domain")
        assert "250 2.1.5 Ok" == session.rcpt("x@far.example")
    assert "553 5.7.1 <joe@my.domain>: Sender address rejected: not owned by user hank" == refused


def reply_to(site: Site, recipient: str) -> str:
    """What a stranger is told about a recipient, in a session of its own."""
    with site.session("in", **OUTSIDE) as session:
        session.ehlo()
        session.mail(STRANGER)
        return session.rcpt(recipient)


@pytest.mark.servers
def test_service_is_gone(site: Site, service: Ldappolicy) -> None:
    """Without the service everybody is deferred, nobody is let through or bounced; then all is as before."""
    recipients = ("all@my.domain", "hank@my.domain")
    service.stop()
    with ThreadPoolExecutor() as pool:
        replies = list(pool.map(partial(reply_to, site), recipients))
    service.start()
    text = "Recipient address rejected: Policy service unavailable; try again later"
    assert [f"451 4.3.0 <{address}>: {text}" for address in recipients] == replies
    assert REFUSED == reply_to(site, "all@my.domain")


EXCERPTS = ["main.cf", "main-per-list.cf"]


@pytest.mark.parametrize("name", EXCERPTS)
def test_lint_agrees(name: str, tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`lint --main-cf` finds nothing in the excerpts, beside the example company's domains and networks."""
    company = """
        myhostname = mx.my.domain
        myorigin = my.domain
        mydestination = my.domain, other.example
        mynetworks = 127.0.0.0/8 [::1]/128 192.0.2.0/24
        recipient_delimiter = +
        compatibility_level = 3.6
    """
    lines = [line.strip() for line in company.splitlines()]
    (tmp_path / "main.cf").write_text("\n".join([text_of(f"postfix/{name}"), *lines, ""]), "utf-8")
    shutil.copy(DEPLOY / "postfix" / "master.cf", tmp_path)
    listen = LISTENER["ListenStream"][0]
    (tmp_path / "config.toml").write_text(
        f'[server]\nlisten = ["unix:{listen}"]\n[directory]\nuri = ["ldif:{tree}"]\n', "utf-8"
    )
    config_file, main_cf = str(tmp_path / "config.toml"), str(tmp_path / "main.cf")
    assert 0 == run(["-c", config_file, "lint", "--strict", "--main-cf", main_cf])
    assert ("", "") == capsys.readouterr()


@pytest.mark.parametrize("name", EXCERPTS)
def test_values_fit(name: str) -> None:
    """Postfix waits longer than the service takes, and closes first."""
    values = {key.removeprefix("smtpd_policy_service_"): value for key, value in parameters(name).items()}
    server = config.Server()
    assert config.seconds(values["timeout"]) > server.request_timeout
    assert config.seconds(values["max_idle"]) < server.idle_timeout
    assert config.seconds(values["max_ttl"]) < server.idle_timeout
    assert values["default_action"].startswith("451 4.3.0 ")


def test_one_socket() -> None:
    """The socket of systemd is the one that the excerpts name, and Postfix's user may open it."""
    named = {
        word
        for name in (*EXCERPTS, "master.cf")
        for word in re.findall(r"unix:([\w/]+)", text_of(f"postfix/{name}"))
    }
    assert {SOCKET} == named
    assert [f"/var/spool/postfix/{SOCKET}"] == LISTENER["ListenStream"]
    assert (["postfix"], ["0600"]) == (LISTENER["SocketUser"], LISTENER["SocketMode"])


# --- Kubernetes -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def manifest() -> dict[str, Any]:
    """The objects by their kind, of which there is one each."""
    found = list(yaml.safe_load_all(text_of("kubernetes/ldappolicy.yaml")))
    by_kind = {document["kind"]: document for document in found}
    assert len(found) == len(by_kind)
    return by_kind


@pytest.fixture
def pod(manifest: dict[str, Any]) -> Any:
    """What every replica is."""
    return manifest["Deployment"]["spec"]["template"]["spec"]


@pytest.fixture
def container(pod: Any) -> Any:
    """The only container of a replica."""
    (only,) = pod["containers"]
    return only


@pytest.fixture
def served(manifest: dict[str, Any]) -> config.Config:
    """The configuration in the ConfigMap, at its place in the container."""
    return config.parse(manifest["ConfigMap"]["data"]["config.toml"], "/etc/ldappolicy/config.toml")


def test_objects(manifest: dict[str, Any]) -> None:
    """Everything belongs to one application, and at least one of two replicas stays."""
    assert {"Secret", "ConfigMap", "Deployment", "Service", "PodDisruptionBudget", "NetworkPolicy"} == set(
        manifest
    )
    deployment = manifest["Deployment"]["spec"]
    label = {"app": "ldappolicy"}
    assert {str(label)} == {str(document["metadata"]["labels"]) for document in manifest.values()}
    chosen = [
        deployment["selector"]["matchLabels"],
        deployment["template"]["metadata"]["labels"],
        manifest["Service"]["spec"]["selector"],
        manifest["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
        manifest["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"],
    ]
    assert [label] * 5 == chosen
    assert (2, 1) == (deployment["replicas"], manifest["PodDisruptionBudget"]["spec"]["minAvailable"])


def test_container_is_closed(pod: Any, container: Any) -> None:
    """No root, no capabilities, nothing to write to but its state, no token of the cluster."""
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["automountServiceAccountToken"] is False
    assert {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    } == container["securityContext"]


def test_container_is_the_image(pod: Any, container: Any) -> None:
    """It is what deploy/Dockerfile makes of this version, run as the user who owns its files."""
    user = re.search(r"(?m)^USER (\d+):(\d+)$", text_of("Dockerfile"))
    assert user is not None
    context = pod["securityContext"]
    assert user.groups() == (str(context["runAsUser"]), str(context["runAsGroup"]))
    assert f"ldappolicy:{__version__}" == container["image"]


def test_container_runs_the_service(container: Any, served: config.Config, pod: Any) -> None:
    """Its command, its ports and its probes are those of the program and of the configuration."""
    assert ["-c", "/etc/ldappolicy/config.toml", "serve"] == container["args"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    (listener,) = served.server.listen
    assert (f"inet:0.0.0.0:{ports['policy']}", f"inet:0.0.0.0:{ports['web']}") == (
        str(listener),
        str(served.web.listen),
    )
    probes = {name: container[f"{name}Probe"]["httpGet"] for name in ("readiness", "liveness")}
    assert {
        "readiness": {"path": "/readyz", "port": "web"},
        "liveness": {"path": "/healthz", "port": "web"},
    } == probes
    assert pod["terminationGracePeriodSeconds"] > served.server.shutdown_grace


def test_container_has_its_files(
    manifest: dict[str, Any], container: Any, pod: Any, served: config.Config
) -> None:
    """The configuration, the password and the snapshot are where the configuration says."""
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    mounts = {mount["mountPath"]: volumes[mount["name"]] for mount in container["volumeMounts"]}
    password, snapshot = Path(served.directory.bind_pw_file), Path(served.cache.snapshot)
    assert "ldappolicy" == mounts["/etc/ldappolicy"]["configMap"]["name"]
    assert "ldappolicy" == mounts[str(password.parent)]["secret"]["secretName"]
    assert [password.name] == list(manifest["Secret"]["stringData"])
    assert "emptyDir" in mounts[str(snapshot.parent)]


def test_ports_agree(manifest: dict[str, Any], container: Any) -> None:
    """Service and NetworkPolicy let in what the container listens on, and nothing else."""
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    offered = {port["targetPort"]: port["port"] for port in manifest["Service"]["spec"]["ports"]}
    rules = manifest["NetworkPolicy"]["spec"]["ingress"]
    assert ports == offered
    assert list(ports) == [port["port"] for rule in rules for port in rule["ports"]]
    assert all(rule["from"] for rule in rules)
