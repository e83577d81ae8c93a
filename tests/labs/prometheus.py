"""A private Prometheus for the tests: it scrapes what it is told every second, and evaluates rules.

    with Prometheus(["ldappolicy"], rules=text) as prometheus:
        ... prometheus.scrape("ldappolicy", {"mx1": 9414})
        ... prometheus.firing()             alerts, by their labels
        ... prometheus.query("up")          what an expression gives now

Targets are ports of 127.0.0.1 by job and instance. Expressions are left as they are; how long they have to
hold (`for:`) is nothing here, since the tests do not wait for that. It listens on a free port of 127.0.0.1,
keeps its data in a folder of its own, and is ended by its process id.
"""

import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest
import yaml

from tests.labs.ports import free_port
from tests.labs.slapd import wait_until

DEADLINE = 180.0
INTERVAL = "1s"


def require_prometheus() -> None:
    """A test that asks for it is skipped where there is none."""
    if not shutil.which("prometheus") or not shutil.which("promtool"):
        pytest.skip("prometheus is not installed: apt-get install --no-install-recommends prometheus")


def at_once(rules: str) -> str:
    """Rules that fire as soon as their expressions hold."""
    return re.sub(r"(?m)^( +for:) .*$", r"\1 0s", rules)


class Prometheus:
    """One server; a context manager that always ends what it started."""

    def __init__(self, jobs: Sequence[str], rules: str = "") -> None:
        self.home = Path(tempfile.mkdtemp(prefix="prometheus-"))
        self.url = f"http://127.0.0.1:{free_port()}"
        self._log = self.home / "log"
        (self.home / "rules.yaml").write_text(at_once(rules), "utf-8")
        (self.home / "prometheus.yml").write_text(yaml.safe_dump(_configuration(self.home, jobs)), "utf-8")
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        address = self.url.removeprefix("http://")
        command = ["prometheus", f"--web.listen-address={address}", "--log.level=warn"]
        files = [f"--config.file={self.home}/prometheus.yml", f"--storage.tsdb.path={self.home}/data"]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen([*command, *files], stdout=log, stderr=log)
        try:
            wait_until(self._answers, DEADLINE)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def scrape(self, job: str, instances: Mapping[str, int]) -> None:
        """Whom to ask from now on (it looks every five seconds)."""
        targets = [
            {"targets": [f"127.0.0.1:{port}"], "labels": {"instance": name}}
            for name, port in instances.items()
        ]
        new = self.home / f"{job}.new"
        new.write_text(json.dumps(targets), "utf-8")
        new.replace(self.home / f"{job}.json")

    def query(self, expression: str) -> list[dict[str, Any]]:
        """What it gives now: `metric` and `value`, each."""
        found: list[dict[str, Any]] = self._api("query", query=expression)["result"]
        return found

    def alerts(self) -> list[dict[str, Any]]:
        """The alerts there are: `labels`, `annotations`, `state`."""
        found: list[dict[str, Any]] = self._api("alerts")["alerts"]
        return found

    def firing(self) -> list[dict[str, str]]:
        """The labels of those that fire."""
        return [alert["labels"] for alert in self.alerts() if alert["state"] == "firing"]

    def _api(self, page: str, **parameters: str) -> Any:
        with urlopen(f"{self.url}/api/v1/{page}?{urlencode(parameters)}", timeout=DEADLINE) as reply:  # noqa: S310  # our own URL
            return json.load(reply)["data"]

    def _answers(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise RuntimeError(f"prometheus did not start: {self._log.read_text('utf-8')[-3000:]}")
        try:
            with urlopen(f"{self.url}/-/ready", timeout=DEADLINE):  # noqa: S310
                return True
        except URLError:
            return False

    def _end(self) -> None:
        assert self._process is not None
        self._process.kill()  # nobody wants its data written
        self._process.wait()
        shutil.rmtree(self.home, ignore_errors=True)


def _configuration(home: Path, jobs: Sequence[str]) -> dict[str, Any]:
    found = [{"job_name": job, "file_sd_configs": [{"files": [f"{home}/{job}.json"]}]} for job in jobs]
    times = {"scrape_interval": INTERVAL, "scrape_timeout": INTERVAL, "evaluation_interval": INTERVAL}
    return {"global": times, "rule_files": ["rules.yaml"], "scrape_configs": found}
