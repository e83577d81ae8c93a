"""Metrics: every one moves in a real service over slapd, several processes as one, and what is ready."""

import json
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.client import HTTPConnection
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from ldappolicy.counters import Durations, action_label
from ldappolicy.errors import InputError
from ldappolicy.metrics import Histogram, Snapshot, exposition, merged, readiness, retired
from tests.labs.ldappolicy import DEADLINE, EXAMPLE, HASTY, Ldappolicy, Sections
from tests.labs.slapd import SUFFIX, Slapd, require_slapd
from tests.readme import quoted, table

METRICS = {
    "ldappolicy_requests": ("counter", ("action", "policy")),
    "ldappolicy_request_duration_seconds": ("histogram", ()),
    "ldappolicy_connections": ("gauge", ()),
    "ldappolicy_protocol_errors": ("counter", ()),
    "ldappolicy_unknown_logins": ("counter", ()),
    "ldappolicy_directory_searches": ("counter", ("outcome",)),
    "ldappolicy_slow_searches": ("counter", ()),
    "ldappolicy_directory_search_duration_seconds": ("histogram", ()),
    "ldappolicy_directory_up": ("gauge", ("uri",)),
    "ldappolicy_cache_requests": ("counter", ("result",)),
    "ldappolicy_cache_entries": ("gauge", ()),
    "ldappolicy_data_age_seconds": ("gauge", ()),
    "ldappolicy_changes": ("counter", ("source",)),
    "ldappolicy_policy_revision_info": ("gauge", ("policy", "revision")),
    "ldappolicy_shadow": ("counter", ("action",)),
}
"""Kinds and labels, as they are documented; counters end in _total besides."""

# ---------------------------------------------------------------- what is counted


@pytest.mark.parametrize(
    ("action", "expected"),
    [
        ("DUNNO", "DUNNO"),
        ("OK", "OK"),
        ("REJECT 5.7.1 not for you", "REJECT"),
        ("DEFER_IF_PERMIT 4.3.0 later", "DEFER_IF_PERMIT"),
        ("451 4.3.5 Server configuration error", "451"),
        ("550 no", "550"),
        ("PREPEND X-A: b", "PREPEND"),
        ("reject,", "reject"),
        ("defer,", "defer"),
        ("reject_unlisted_sender, reject", "restrictions"),
        ("smtpd_access_policy_of_somebody,", "restrictions"),
        ("999 x", "restrictions"),
        (None, "none"),
    ],
)
def test_action_label(action: str | None, expected: str) -> None:
    """Labels are few, whatever texts and names an action holds."""
    assert expected == action_label(action)


def test_durations() -> None:
    """A bound belongs to what is below it."""
    durations = Durations((1.0, 2.0))
    for seconds in (0.0, 1.0, 1.5, 2.0, 2.5, 99.0):
        durations.observe(seconds)
    assert (durations.counts, durations.total) == ([2, 2, 2], 106.0)


# ---------------------------------------------------------------- one page

FULL = Snapshot(
    now=1_700_000_000.0,
    counts=(
        ("requests", ("DUNNO", "default"), 3),
        ("requests", ("REJECT", 'a "b"\\\n'), 2),
        ("searches", ("success",), 7),
        ("searches", ("noSuchObject",), 1),
        ("cache", ("hit",), 4),
        ("changes", ("syncrepl",), 5),
        ("shadow", ("REJECT",), 6),
        ("protocol_errors", (), 8),
    ),
    durations=(
        ("requests", Histogram((0.00001, 0.1, 5.0), (2, 3, 0, 1), 6.5)),
        ("searches", Histogram((0.001, 1.0), (0, 0, 0), 0.0)),
    ),
    connections=9,
    cache_entries=10,
    data_age=1.5,
    revisions=(("default", "abc"), ("plain", "abc")),
    directory_up=(("ldap://a", True), ("ldap://b", False)),
    has_policies=True,
)

Labels = tuple[tuple[str, str], ...]
Samples = dict[tuple[str, Labels], float]


def samples(page: str) -> Samples:
    """Every number of a page, by name and labels."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


def test_exposition() -> None:
    """Every metric has its documented kind and labels, and a text that says what it is."""
    families = {family.name: family for family in text_string_to_metric_families(exposition(FULL).decode())}
    shown = {
        name: (family.type, tuple(name for name in family.samples[0].labels if name != "le"))
        for name, family in families.items()
    }
    assert METRICS == shown
    assert all(family.documentation.endswith(".") for family in families.values())


def test_readme() -> None:
    """README's table has every metric with its labels, and no other."""
    rows = {quoted(name)[0]: tuple(quoted(labels)) for name, labels, _ in table("metrics")}
    expected = {
        f"{name}_total" if kind == "counter" else name: labels for name, (kind, labels) in METRICS.items()
    }
    assert expected == rows


def test_numbers() -> None:
    """Each number stands where it belongs; labels are escaped; buckets are cumulated."""
    shown = samples(exposition(FULL).decode())
    some = {
        ("ldappolicy_requests_total", (("action", "REJECT"), ("policy", 'a "b"\\\n'))): 2,
        ("ldappolicy_requests_total", (("action", "DUNNO"), ("policy", "default"))): 3,
        ("ldappolicy_directory_searches_total", (("outcome", "noSuchObject"),)): 1,
        ("ldappolicy_request_duration_seconds_bucket", (("le", "1e-05"),)): 2,
        ("ldappolicy_request_duration_seconds_bucket", (("le", "0.1"),)): 5,
        ("ldappolicy_request_duration_seconds_bucket", (("le", "5.0"),)): 5,
        ("ldappolicy_request_duration_seconds_bucket", (("le", "+Inf"),)): 6,
        ("ldappolicy_request_duration_seconds_count", ()): 6,
        ("ldappolicy_request_duration_seconds_sum", ()): 6.5,
        ("ldappolicy_connections", ()): 9,
        ("ldappolicy_cache_entries", ()): 10,
        ("ldappolicy_data_age_seconds", ()): 1.5,
        ("ldappolicy_protocol_errors_total", ()): 8,
        ("ldappolicy_directory_up", (("uri", "ldap://b"),)): 0,
        ("ldappolicy_policy_revision_info", (("policy", "plain"), ("revision", "abc"))): 1,
        ("ldappolicy_shadow_total", (("action", "REJECT"),)): 6,
        ("ldappolicy_changes_total", (("source", "syncrepl"),)): 5,
    }
    assert some == {key: shown.get(key) for key in some}


def test_shown_from_the_start() -> None:
    """What alerts look at is 0 before it happens; an age that nobody knows is not shown at all."""
    labelled = [
        *(("ldappolicy_cache_requests_total", (("result", name),)) for name in ("hit", "miss", "stale")),
        *(
            ("ldappolicy_directory_searches_total", (("outcome", name),))
            for name in ("success", "timeout", "unavailable")
        ),
    ]
    names = [f"ldappolicy_{name}_total" for name in ("protocol_errors", "unknown_logins", "slow_searches")]
    names += ["ldappolicy_connections", "ldappolicy_cache_entries"]
    expected: Samples = dict.fromkeys([*labelled, *((name, ()) for name in names)], 0)
    assert expected == samples(exposition(Snapshot(now=0.0)).decode())


# ---------------------------------------------------------------- several processes


@pytest.mark.parametrize("snapshot", [FULL, Snapshot(now=1.0), retired(FULL)])
def test_json(snapshot: Snapshot) -> None:
    """A snapshot goes through one line of JSON and is the same."""
    text = snapshot.to_json()
    assert "\n" not in text
    assert json.loads(text)["now"] == snapshot.now
    assert snapshot == Snapshot.from_json(text) == Snapshot.from_json(text.encode())


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", '{"now": "x"}', '{"now": 1, "counts": [["a"]]}', '{"now": 1, "data_age": []}'],
)
def test_no_snapshot(text: str) -> None:
    """What is none is refused."""
    with pytest.raises(InputError, match=r"^snapshot of a worker: "):
        Snapshot.from_json(text)


OTHER = Snapshot(
    now=1_700_000_001.0,
    counts=(("requests", ("DUNNO", "default"), 10), ("searches", ("timeout",), 1)),
    durations=(("requests", Histogram((0.00001, 0.1, 5.0), (1, 0, 0, 0), 0.5)),),
    connections=1,
    cache_entries=2,
    data_age=3.0,
    revisions=(("default", "def"),),
    directory_up=(("ldap://a", False), ("ldap://c", True)),
    has_policies=True,
    is_waiting=True,
)


def test_merged() -> None:
    """Counts, connections and entries add up; of ages, directories and policies the worst counts."""
    both = merged([FULL, OTHER])
    counts = {(name, labels): number for name, labels, number in both.counts}
    before = {(name, labels): number for name, labels, number in FULL.counts}
    expected = {**before, ("requests", ("DUNNO", "default")): 13, ("searches", ("timeout",)): 1}
    assert expected == counts
    assert dict(both.durations)["requests"] == Histogram((0.00001, 0.1, 5.0), (3, 3, 0, 1), 7.0)
    assert (both.connections, both.cache_entries, both.data_age) == (10, 12, 3.0)
    assert dict(both.directory_up) == {"ldap://a": False, "ldap://b": False, "ldap://c": True}
    assert both.revisions == (("default", "abc"), ("plain", "abc"), ("default", "def"))
    assert (both.now, both.has_policies, both.is_waiting) == (OTHER.now, True, True)


def test_merged_one_and_none() -> None:
    """One process is itself; none has nothing."""
    assert merged([FULL]) == FULL
    assert merged([]) == Snapshot(now=0.0)


def test_retired() -> None:
    """Of a process that ended only what it counted stays: no counter ever falls."""
    both = merged([OTHER, retired(FULL)])
    assert both.counts == merged([OTHER, FULL]).counts
    assert replace(both, counts=OTHER.counts, durations=OTHER.durations) == OTHER


READY = Snapshot(now=0.0, has_policies=True, data_age=0.0, kept_age=0.0, directory_up=(("ldap://a", True),))
DOWN = replace(READY, directory_up=(("ldap://a", False),))
OLD = "the directory is unavailable and what is known is older than max_stale, 10 s"


@pytest.mark.parametrize(
    ("snapshots", "expected"),
    [
        pytest.param([READY], "", id="all is well"),
        pytest.param([replace(READY, has_policies=False)], "no policy has been read yet", id="no policy"),
        pytest.param([replace(DOWN, kept_age=9.9)], "", id="down, not for long"),
        pytest.param([replace(DOWN, kept_age=10.0)], OLD, id="down for too long"),
        pytest.param([replace(READY, data_age=99.0)], "", id="no stream, but it answers"),
        pytest.param(
            [replace(DOWN, kept_age=99.0, directory_up=(("a", False), ("b", True)))], "", id="another answers"
        ),
        pytest.param(
            [replace(DOWN, kept_age=None)], "the directory is unavailable and nothing is known", id="no age"
        ),
        pytest.param([replace(READY, is_waiting=True)], "", id="policies of a snapshot, and it answers"),
        pytest.param(
            [replace(DOWN, is_loading=True, is_waiting=True)], "the snapshot is being loaded", id="loading"
        ),
        pytest.param([], "no worker is there to answer", id="no worker"),
        pytest.param([READY, READY], "", id="two"),
        pytest.param([READY, replace(DOWN, kept_age=11.0)], f"{OLD} (1 of 2 workers)", id="one of two"),
        pytest.param([replace(DOWN, kept_age=11.0)] * 2, f"{OLD} (2 of 2 workers)", id="both"),
    ],
)
def test_readiness(snapshots: list[Snapshot], expected: str) -> None:
    """Ready is who has a policy and either data younger than max_stale or a directory that answers."""
    assert readiness(snapshots, 10.0) == (not expected, expected or "ready")


# ---------------------------------------------------------------- the real service


def until(condition: Callable[[], object]) -> None:
    """Waits until a page shows it; not so often that the service is busy with that."""
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, "still not so"
        time.sleep(0.03)


class Watched:
    """A running service and its web page."""

    def __init__(self, service: Ldappolicy) -> None:
        self.service = service
        told = re.search(r"http://127\.0\.0\.1:(\d+)/metrics", service.stdout())
        assert told is not None, service.stdout()
        self._port = int(told[1])

    def page(self, path: str) -> tuple[int, str]:
        """Its status and text."""
        connection = HTTPConnection("127.0.0.1", self._port, timeout=DEADLINE)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def metrics(self) -> Samples:
        """Every number."""
        status, text = self.page("/metrics")
        assert status == 200
        return samples(text)

    def number(self, name: str, **labels: str) -> float:
        """One number, 0 when it is not there."""
        return self.metrics().get((f"ldappolicy_{name}", tuple(sorted(labels.items()))), 0.0)

    def moves(self, cause: Callable[[], object], name: str, by: float | None = None, **labels: str) -> None:
        """The number becomes another one by the cause, once or several times; or more by so many, by one."""
        before = self.number(name, **labels)
        cause()

        def has_moved() -> bool:
            if self.number(name, **labels) != before:
                return True
            if by is None:
                cause()
            return False

        until(has_moved)
        if by is not None:
            assert self.number(name, **labels) - before == by


@pytest.fixture(scope="module")
def slapd(example_ldif: Path) -> Iterator[Slapd]:
    """A server with the example company, which this module starts and stops."""
    require_slapd()
    with Slapd(schema="ldappolicy", data=example_ldif.read_text("utf-8")) as server:
        yield server


@contextmanager
def watched(slapd: Slapd, sections: Sections) -> Iterator[Watched]:
    """The real command over that server, with a web page on a port that was free."""
    where: Sections = {
        "directory": {"uri": [slapd.uri], "timeout": "3s"},
        "web": {"listen": "127.0.0.1:0"},
    }
    layers = {name: {**where.get(name, {}), **sections.get(name, {})} for name in {*where, *sections}}
    with Ldappolicy(layers) as service:
        yield Watched(service)


TO_ALL = {"sender": "stranger@elsewhere.example", "recipient": "all@my.domain"}


def policy(name: str, restrictions: str) -> str:
    """A record that adds a policy."""
    dn = f"dn: cn={name},ou=policy,{SUFFIX}\n"
    return f"{dn}objectClass: smtpdPolicy\ncn: {name}\nsmtpdRecipientRestrictions: {restrictions}\n"


def removal(name: str) -> str:
    """A record that takes it away again."""
    return f"dn: cn={name},ou=policy,{SUFFIX}\nchangetype: delete\n"


SHORT: Sections = {"cache": {"mode": "on_demand", "ttl": "100ms", "negative_ttl": "100ms"}}
"""So that answers are stale as soon as nobody vouches for them."""


@pytest.mark.servers
def test_every_metric_moves(slapd: Slapd) -> None:
    """What requests, searches, changes and policies move; with the directory gone, the rest."""
    with watched(slapd, SHORT) as here:
        service = here.service
        host, port = service.inet.removeprefix("inet:").split(":")
        service.wait_for_log("changes are told by")
        asked = iter(range(1000))

        def ask() -> None:
            service.ask(**TO_ALL)

        def ask_new() -> None:
            service.ask(sender=f"new{next(asked)}@my.domain", recipient="jane@my.domain")

        here.moves(ask, "requests_total", 1, action="reject", policy="default")
        here.moves(ask, "request_duration_seconds_count", 1)
        here.moves(ask, "request_duration_seconds_sum")
        here.moves(ask, "cache_requests_total", result="hit")
        here.moves(ask_new, "cache_requests_total", 1, result="miss")
        here.moves(ask_new, "directory_searches_total", outcome="success")
        here.moves(ask_new, "directory_search_duration_seconds_count")
        here.moves(ask_new, "cache_entries")
        with socket.create_connection((host, int(port)), DEADLINE) as client:
            until(lambda: here.number("connections") == 1)
            here.moves(lambda: client.sendall(b"nonsense\n\n"), "protocol_errors_total", 1)
        until(lambda: here.number("connections") == 0)

        revisions = [key for key in here.metrics() if key[0] == "ldappolicy_policy_revision_info"]
        added = policy("shadowed", "shadow, reject")
        here.moves(lambda: slapd.load(added), "changes_total", 1, source="syncrepl")
        until(lambda: not set(revisions) & here.metrics().keys())
        to_shadowed = {"policy_context": "shadowed", **TO_ALL}
        here.moves(lambda: service.ask(**to_shadowed), "shadow_total", 1, action="reject")
        slapd.load(removal("shadowed"))

        assert (here.number("directory_up", uri=slapd.uri), here.number("data_age_seconds")) == (1, 0)
        slapd.suspend()
        try:
            here.moves(ask_new, "directory_searches_total", outcome="timeout")
        finally:
            slapd.resume()
        slapd.kill()
        try:
            here.moves(ask, "cache_requests_total", result="stale")
            here.moves(ask, "data_age_seconds")
            here.moves(ask_new, "directory_searches_total", outcome="unavailable")
            until(lambda: here.number("directory_up", uri=slapd.uri) == 0)
            assert here.page("/readyz") == (200, "ready\n")
        finally:
            slapd.start()


@pytest.mark.servers
def test_outage(slapd: Slapd) -> None:
    """Alive all the time; ready until what is known is too old; then again when the directory is back."""
    sections: Sections = {"directory": {"poll_interval": "500ms"}, "cache": {"max_stale": "1s"}}
    with watched(slapd, sections) as here:
        assert (here.page("/healthz"), here.page("/readyz")) == ((200, "alive\n"), (200, "ready\n"))
        until(lambda: here.number("data_age_seconds") == 0)  # a stream stands
        slapd.kill()
        try:
            expected = "the directory is unavailable and what is known is older than max_stale, 1 s\n"
            until(lambda: here.page("/readyz") == (503, expected))
            assert here.number("data_age_seconds") >= 1
            assert here.page("/healthz") == (200, "alive\n")
        finally:
            slapd.start()
        until(lambda: here.page("/readyz") == (200, "ready\n"))
        until(lambda: here.number("directory_up", uri=slapd.uri) == 1)


@pytest.mark.servers
def test_down_at_start(slapd: Slapd, tmp_path: Path) -> None:
    """Not ready without a policy; with those of a snapshot it is, and says that nothing newer is known."""
    snapshot: Sections = {"cache": {"snapshot": str(tmp_path / "snapshot")}}
    slapd.stop()
    try:
        with watched(slapd, {}) as here:
            assert here.page("/readyz") == (503, "no policy has been read yet\n")
            assert here.page("/healthz") == (200, "alive\n")
    finally:
        slapd.start()
    with watched(slapd, snapshot) as here:
        here.service.wait_for_log("mirror complete")
        here.service.ask(**TO_ALL)
    slapd.stop()
    try:
        with watched(slapd, snapshot) as here:
            assert here.page("/readyz") == (200, "ready\n")
            assert here.number("changes_total", source="snapshot") > 0
            assert here.number("data_age_seconds") > 0
            assert here.number("directory_up", uri=slapd.uri) == 0
            assert here.service.ask(**TO_ALL) == "reject,"
    finally:
        slapd.start()


def test_file(tmp_path: Path, example_ldif: Path) -> None:
    """The embedded directory is up, its data are as they are, and a new content is a change."""
    tree = tmp_path / "tree.ldif"
    tree.write_bytes(example_ldif.read_bytes())
    sections: Sections = {
        "directory": {**EXAMPLE["directory"], "uri": [f"ldif:{tree}"]},
        "web": {"listen": "127.0.0.1:0"},
    }
    with Ldappolicy(sections, timing=replace(HASTY, ldif_look_s=0.02, ldif_quiet_s=0.1)) as service:
        here = Watched(service)
        assert (here.page("/readyz"), here.number("directory_up", uri="ldif:")) == ((200, "ready\n"), 1)
        assert here.number("data_age_seconds") == 0

        def change() -> None:
            with tree.open("a", encoding="utf-8") as file:
                file.write("\n" + policy("new", "reject"))

        here.moves(change, "changes_total", 1, source="file")


@pytest.mark.servers
def test_secrets_stay_secret(slapd: Slapd, tmp_path: Path) -> None:
    """Neither the log at its loudest nor a page shows the password that the directory refuses."""
    secret = "correct-horse-battery-staple"
    (tmp_path / "pw").write_text(secret, encoding="utf-8")
    (tmp_path / "pw").chmod(0o600)
    sections: Sections = {
        "directory": {"bind": "simple", "bind_dn": f"uid=x,{SUFFIX}", "bind_pw_file": str(tmp_path / "pw")},
        "log": {"level": "debug", "decisions": "all"},
    }
    with watched(slapd, sections) as here:
        here.service.ask(**TO_ALL)
        here.service.wait_for_log("invalidCredentials")
        shown = [*here.service.log(), *(here.page(path)[1] for path in ("/metrics", "/readyz"))]
        assert [text for text in shown if secret in text] == []
