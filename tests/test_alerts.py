"""Every alert of deploy/ fires on real metrics, and none for a service that is well.

Real services get into real trouble, each in its way, and a real Prometheus scrapes them and evaluates the
shipped rules, whose expressions are as they are. It also answers every question of the shipped dashboard.
"""

import hashlib
import json
import re
import resource
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

from ldappolicy.config import Server
from tests.conftest import ROOT
from tests.labs.ldappolicy import DEADLINE, Ldappolicy, Value
from tests.labs.ports import free_port
from tests.labs.prometheus import Prometheus, require_prometheus
from tests.labs.slapd import Slapd, require_slapd, wait_until

RULES = (ROOT / "deploy" / "prometheus" / "alerts.yaml").read_text("utf-8")
PANELS = json.loads((ROOT / "deploy" / "grafana" / "dashboard.json").read_text("utf-8"))["panels"]

# Who has to be in which trouble: alerts, and the labels that say who.
TROUBLES = {
    "LdappolicyDown": {"instance": "gone"},
    "LdappolicyNotReady": {"instance": "waiting"},
    "LdappolicyDirectoryDown": {"instance": "old"},
    "LdappolicyNoDirectory": {"instance": "old"},
    "LdappolicyDataOld": {"instance": "old"},
    "LdappolicyUnavailable": {"instance": "waiting"},
    "LdappolicyConfigurationErrors": {"instance": "wrong", "policy": "default"},
    "LdappolicyProtocolErrors": {"instance": "wrong"},
    "LdappolicyConnectionsNearLimit": {"instance": "wrong"},
    "LdappolicySlow": {"instance": "stuck"},
    "LdappolicyDirectorySlow": {"instance": "stuck"},
    "LdappolicySearchesFail": {"instance": "stuck"},
    "LdappolicyRejectsSurge": {"job": "ldappolicy", "policy": "default"},
    "LdappolicyRevisionsDiffer": {"job": "ldappolicy", "policy": "default"},
    "LdappolicyNotAsked": {"job": "ldappolicy-idle"},
    "LdappolicyShadow": {"job": "ldappolicy", "action": "reject"},
}

# What there is to ask for (without the program's name); the dashboard shows all of it.
METRICS = {
    "requests_total",
    "request_duration_seconds",
    "connections",
    "protocol_errors_total",
    "directory_searches_total",
    "directory_search_duration_seconds",
    "directory_up",
    "cache_requests_total",
    "cache_entries",
    "data_age_seconds",
    "changes_total",
    "policy_revision_info",
    "shadow_total",
}

CONNECTIONS = 3300
"""More than the alert's number, less than [server] max_connections."""

PATIENCE = 300.0
"""Seconds until every alert fires; some take seconds of trouble, and each scrape has one."""

REFUSED = {"sender": "stranger@elsewhere.example", "recipient": "all@my.domain"}

BROKEN = """\
dn: cn=broken,ou=lists,dc=example,dc=com
objectClass: groupOfNames
objectClass: smtpdAccessControl
cn: broken
mail: broken@my.domain
member: uid=joe,ou=people,dc=example,dc=com
smtpdRecipientAccess: no_such_class, reject
"""

THREE_HOURS = 3 * 3600.0


def shipped() -> list[dict[str, Any]]:
    """The rules."""
    (group,) = yaml.safe_load(RULES)["groups"]
    rules: list[dict[str, Any]] = group["rules"]
    return rules


def questions(panel: dict[str, Any]) -> list[str]:
    """What a panel of the dashboard asks, for everything there is."""
    return [re.sub(r"\$(job|instance)", ".*", target["expr"]) for target in panel["targets"]]


def named(expressions: list[str]) -> set[str]:
    """The metrics of ours in them."""
    found = {name for text in expressions for name in re.findall(r"\bldappolicy_([a-z_]+)", text)}
    return {re.sub("_(bucket|count|sum)$", "", name) for name in found}


# --- what is written ------------------------------------------------------------------------------


def test_rules_are_well_formed() -> None:
    """Each has a name of its own, a severity, and says what it means and what to do."""
    assert list(TROUBLES) == [rule["alert"] for rule in shipped()]
    assert [] == [
        rule["alert"]
        for rule in shipped()
        if set(rule["annotations"]) != {"summary", "description", "runbook"}
    ]
    assert {"critical", "warning", "info"} == {rule["labels"]["severity"] for rule in shipped()}


def test_limit_is_that_of_the_service() -> None:
    """The alert about connections comes at four fifths of what the service takes."""
    (rule,) = (rule for rule in shipped() if rule["alert"] == "LdappolicyConnectionsNearLimit")
    limit = Server().max_connections
    assert f"ldappolicy_connections > {limit * 4 // 5}" == rule["expr"]
    assert limit * 4 // 5 < CONNECTIONS < limit


def test_metrics_are_ours() -> None:
    """Alerts and dashboard ask for metrics that there are; the dashboard shows all of them."""
    assert set() == named([rule["expr"] for rule in shipped()]) - METRICS
    assert METRICS == named([question for panel in PANELS for question in questions(panel)])


def test_panels() -> None:
    """Every panel has a number and a place of its own."""
    assert len(PANELS) == len({panel["id"] for panel in PANELS})
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in PANELS)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24


# --- trouble --------------------------------------------------------------------------------------


class Unasked(Ldappolicy):
    """A service that the lab does not greet: nobody has ever asked it anything."""

    def ask(self, **attributes: str) -> str | None:
        """Nothing."""
        return None


class Troubles:
    """Services by what is the matter with them, and how they are brought to it again and again."""

    def __init__(self, stack: ExitStack, folder: Path, example: Path) -> None:
        self._stack = stack
        self._folder = folder
        self._example = example
        self._asked = 0
        self._services: dict[str, Ldappolicy] = {}

    def ports(self) -> dict[str, int]:
        """Where each shows its metrics; who is gone shows none."""
        told = {name: service.stdout() for name, service in self._services.items()}
        found = {name: re.search(r"http://127\.0\.0\.1:(\d+)/metrics", text) for name, text in told.items()}
        return {"gone": free_port(), **{name: int(match[1]) for name, match in found.items() if match}}

    def begin(self) -> None:
        """Starts everybody; then the directory stops to answer."""
        slapd = self._stack.enter_context(Slapd(schema="ldappolicy"))
        slapd.load(self._example)
        nowhere = f"ldap://127.0.0.1:{free_port()}"
        directories: dict[str, dict[str, Value]] = {
            "well": {},
            "wrong": {"uri": [f"ldif:{self._wrong_tree()}"]},
            "trying": {},
            "waiting": {"uri": [nowhere]},
            "stuck": {"uri": [slapd.uri], "timeout": "600ms", "watch": "off"},
            "old": {"uri": [slapd.uri], "timeout": "600ms", "watch": "syncrepl"},
        }
        with ThreadPoolExecutor() as pool:
            list(pool.map(self._start, directories, directories.values()))
        self._grow_old(self._services["old"], slapd)
        for _ in range(CONNECTIONS):
            self._connect("wrong")

    def end(self) -> None:
        """At once: what they would still have to say is of no use."""
        for service in self._services.values():
            service.kill()

    def provoke(self) -> None:
        """Once more; counters are to grow between two scrapes."""
        for _ in range(5):
            self._services["well"].ask(sender="joe@my.domain", recipient="hank@my.domain")
            self._services["waiting"].ask(recipient="hank@my.domain")
            self._services["wrong"].ask(recipient="broken@my.domain")
            self._connect("wrong").sendall(b"GET / HTTP/1.1\r\n\r\n")
            for _ in range(10):
                self._services["wrong"].ask(**REFUSED)
            self._services["trying"].ask(**REFUSED)
        self._asked += 1
        request = (
            f"request=smtpd_access_policy\nprotocol_state=RCPT\nrecipient=new{self._asked}@my.domain\n\n"
        )
        self._connect("stuck").sendall(request.encode())

    def _start(self, name: str, directory: dict[str, Value]) -> None:
        own: dict[str, dict[str, Value]] = {
            "directory": directory,
            "policy": {"shadow": name == "trying"},
            "cache": {
                "snapshot": str(self._folder / name),
                "mode": "on_demand" if name == "stuck" else "auto",
            },
            "web": {"listen": "127.0.0.1:0"},
            "log": {"decisions": "none"},
        }
        service = (Unasked if name == "old" else Ldappolicy)(own)
        self._services[name] = self._stack.enter_context(service)

    def _wrong_tree(self) -> Path:
        """The example, with another revision, and a list whose rule names what is not there."""
        path = self._folder / "wrong.ldif"
        changed = self._example.read_text("utf-8").replace("partner.example OK", "visitor.example OK")
        path.write_text(f"{changed}\n{BROKEN}", "utf-8")
        return path

    def _grow_old(self, service: Ldappolicy, slapd: Slapd) -> None:
        """It starts again while the directory is silent, with what somebody knew three hours ago."""
        service.wait_for_log("mirror complete")
        service.stop()
        make_old(self._folder / "old", THREE_HOURS)
        slapd.suspend()
        service.start()

    def _connect(self, name: str) -> socket.socket:
        """A connection that stays, as that of an smtpd process."""
        connection = self._stack.enter_context(socket.socket(socket.AF_UNIX))
        connection.connect(self._services[name].unix.removeprefix("unix:"))
        return connection


def make_old(path: Path, seconds: float) -> None:
    """A snapshot as if it had been written earlier, with a checksum that is right."""
    header, *lines = path.read_bytes().splitlines(keepends=True)[:-1]
    told = json.loads(header)
    told["written"] -= seconds
    content = b"".join([json.dumps(told).encode() + b"\n", *lines])
    path.write_bytes(content + b"sha256 %s\n" % hashlib.sha256(content).hexdigest().encode())


@pytest.fixture(scope="module")
def many_files() -> Iterator[None]:
    """Room for CONNECTIONS at both ends."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = CONNECTIONS + 1000
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.skip(f"needs {wanted} open files: ulimit -Hn")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture(scope="module")
def prometheus(
    many_files: None, tmp_path_factory: pytest.TempPathFactory, example_ldif: Path
) -> Iterator[Prometheus]:
    """It has seen every service in its trouble for as long as it took."""
    require_prometheus()
    require_slapd()
    with ExitStack() as stack:
        troubles = Troubles(stack, tmp_path_factory.mktemp("troubles"), example_ldif)
        # First of all, since it takes five seconds before it scrapes anybody.
        running = stack.enter_context(Prometheus(["ldappolicy", "ldappolicy-idle"], RULES))
        troubles.begin()
        ports = troubles.ports()
        running.scrape("ldappolicy-idle", {"old": ports.pop("old")})
        running.scrape("ldappolicy", ports)
        stack.callback(troubles.end)

        def all_fire() -> bool:
            troubles.provoke()
            return set(TROUBLES) <= {alert["alertname"] for alert in running.firing()}

        with suppress(TimeoutError):  # each alert has a test of its own that says so
            wait_until(all_fire, PATIENCE)
        yield running


@pytest.mark.parametrize("alert", TROUBLES)
@pytest.mark.servers
def test_fires(prometheus: Prometheus, alert: str) -> None:
    """The alert fires, and for whom it is meant."""
    wanted = {"alertname": alert, **TROUBLES[alert]}.items()
    wait_until(lambda: any(wanted <= labels.items() for labels in prometheus.firing()), DEADLINE)


@pytest.mark.servers
def test_nothing_fires_for_who_is_well(prometheus: Prometheus) -> None:
    """A service that works has no alert of its own, and those that are asked are not called idle."""
    busy = {"alertname": "LdappolicyNotAsked", "job": "ldappolicy"}

    def is_quiet() -> bool:
        firing = prometheus.firing()
        return not any(
            labels.get("instance") == "well" or busy.items() <= labels.items() for labels in firing
        )

    wait_until(is_quiet, DEADLINE)


@pytest.mark.parametrize("metric", sorted(METRICS))
@pytest.mark.servers
def test_metric_is_there(prometheus: Prometheus, metric: str) -> None:
    """Every metric that is asked for is scraped."""
    suffix = "_count" if metric.endswith("duration_seconds") else ""
    wait_until(lambda: prometheus.query(f"ldappolicy_{metric}{suffix}"), DEADLINE)


@pytest.mark.parametrize("panel", PANELS, ids=[panel["title"] for panel in PANELS])
@pytest.mark.servers
def test_dashboard_shows_something(prometheus: Prometheus, panel: dict[str, Any]) -> None:
    """What a panel asks has an answer."""
    wait_until(lambda: all(map(prometheus.query, questions(panel))), DEADLINE)


@pytest.mark.servers
def test_texts_of_alerts(prometheus: Prometheus) -> None:
    """Whoever is woken up reads who and how much: templates name labels that there are."""
    texts = [text for alert in prometheus.alerts() for text in alert["annotations"].values()]
    assert texts
    assert [] == [text for text in texts if "<no value>" in text or "{{" in text or "error expanding" in text]
