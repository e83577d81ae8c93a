"""What a process shows of itself: a snapshot, several as one, the Prometheus text, whether it is ready.

A `Snapshot` goes through JSON, so that a worker can hand it to whoever serves the pages. The names and labels
of metrics are an interface. prometheus_client is used here alone, and only to write its format: what is
counted is counted in `counters`.

BUGS: without a change stream the data age is the time since the directory last answered; an answer in the
cache may be older by its ttl.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from pydantic import TypeAdapter, ValidationError

from ldappolicy.counters import Counters, Durations
from ldappolicy.directory import Directory
from ldappolicy.directory.ldap import LdapDirectory
from ldappolicy.errors import InputError
from ldappolicy.policy import Policy
from ldappolicy.service import Service

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""The media type of `exposition`."""

EMBEDDED = "ldif:"
"""Stands for the URI of the embedded directory, whose path is nobody's business."""


@dataclass(frozen=True, slots=True)
class Histogram:
    """Durations: how many were at most as long as each bound (not cumulated; the last is beyond all)."""

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    total: float


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that one process has to show at a time (`now`, seconds of the epoch).

    `counts` are rows of family, labels and number, `durations` histograms by name. `revisions` are pairs of a
    policy and its revision. `kept_age` is that of what is known without a directory: what a stream or a
    snapshot told; answers to the lookups of one request say nothing about the next. `directory_up` is by URI.
    `is_waiting`: the directory has not told its policies yet; those of a snapshot file may be in force
    nevertheless, which `has_policies` says. `is_loading`: what that file holds is not in memory yet.
    """

    now: float
    counts: tuple[tuple[str, tuple[str, ...], int], ...] = ()
    durations: tuple[tuple[str, Histogram], ...] = ()
    connections: int = 0
    cache_entries: int = 0
    data_age: float | None = None
    kept_age: float | None = None
    revisions: tuple[tuple[str, str], ...] = ()
    directory_up: tuple[tuple[str, bool], ...] = ()
    has_policies: bool = False
    is_waiting: bool = False
    is_loading: bool = False

    def to_json(self) -> str:
        """One line."""
        return _ADAPTER.dump_json(self).decode()

    @staticmethod
    def from_json(text: str | bytes) -> "Snapshot":
        """What `to_json` wrote; raises InputError."""
        try:
            return _ADAPTER.validate_json(text)
        except ValidationError as problem:
            first = problem.errors(include_input=False, include_url=False)[0]
            raise InputError(f"snapshot of a worker: {first['msg']}") from None


_ADAPTER = TypeAdapter(Snapshot)


def take(
    counters: Counters,
    service: Service,
    directory: Directory,
    *,
    connections: int,
    is_waiting: bool,
    is_loading: bool,
    now: float,
) -> Snapshot:
    """What a process has to show now."""
    policies = service.evaluator.policies if service.evaluator is not None else None
    served = policies.policies.items() if policies is not None else ()
    return Snapshot(
        now=now,
        counts=tuple(_counts(counters)),
        durations=(
            ("requests", _histogram(counters.request_durations)),
            ("searches", _histogram(counters.search_durations)),
        ),
        connections=connections,
        cache_entries=service.resolver.entries,
        data_age=_data_age(service, directory),
        kept_age=_kept_age(service),
        revisions=tuple(
            (name, policies.in_force(name).revision)
            for name, found in served
            if policies is not None and isinstance(found, Policy)
        ),
        directory_up=_directory_up(directory),
        has_policies=policies is not None,
        is_waiting=is_waiting,
        is_loading=is_loading,
    )


def _counts(counters: Counters) -> Iterator[tuple[str, tuple[str, ...], int]]:
    known, unknown = counters.requests.values(), counters.unknown_logins.values()
    for labels in dict.fromkeys((*known, *unknown)):
        yield "requests", labels, known.get(labels, 0) + unknown.get(labels, 0)
    yield "unknown_logins", (), sum(unknown.values())
    for name in ("shadow", "searches", "cache", "changes"):
        for label, number in getattr(counters, name).values().items():
            yield name, (label,), number
    yield "slow_searches", (), counters.slow_searches.value
    yield "protocol_errors", (), counters.protocol_errors.value


def _histogram(durations: Durations) -> Histogram:
    return Histogram(durations.bounds, tuple(durations.counts), durations.total)


def _data_age(service: Service, directory: Directory) -> float | None:
    """Since a change stream last vouched; without one, since the directory or a file told anything."""
    told = service.resolver.data_age
    if told is not None or not isinstance(directory, LdapDirectory):
        return told
    ages = (directory.answer_age, service.resolver.recalled_age)
    return min((age for age in ages if age is not None), default=None)


def _kept_age(service: Service) -> float | None:
    ages = (service.resolver.data_age, service.resolver.recalled_age)
    return min((age for age in ages if age is not None), default=None)


def _directory_up(directory: Directory) -> tuple[tuple[str, bool], ...]:
    if isinstance(directory, LdapDirectory):
        return tuple(directory.servers().items())
    return ((EMBEDDED, True),)


# ---------------------------------------------------------------- several processes


def merged(snapshots: Iterable[Snapshot]) -> Snapshot:
    """Several processes as one.

    What is counted adds up, and so do connections and entries (each worker has caches of its own). The data
    age is that of the worst, and a directory is up when it is for all that tried it: a request may meet any
    worker, and one that is cut off must be seen. Of revisions all are shown.
    """
    each = list(snapshots)
    ages = [one.data_age for one in each if one.data_age is not None]
    up: dict[str, bool] = {}
    for uri, is_up in (pair for one in each for pair in one.directory_up):
        up[uri] = up.get(uri, True) and is_up
    return Snapshot(
        now=max((one.now for one in each), default=0.0),
        counts=_summed(each),
        durations=_added(each),
        connections=sum(one.connections for one in each),
        cache_entries=sum(one.cache_entries for one in each),
        data_age=max(ages, default=None),
        revisions=tuple(dict.fromkeys(pair for one in each for pair in one.revisions)),
        directory_up=tuple(up.items()),
        has_policies=bool(each) and all(one.has_policies for one in each),
        is_waiting=any(one.is_waiting for one in each),
        is_loading=any(one.is_loading for one in each),
    )


def retired(snapshot: Snapshot) -> Snapshot:
    """What remains of a process that has ended: what it counted.

    It is merged with those that live only by way of `merged`, which takes it for one that has policies.
    """
    return Snapshot(snapshot.now, snapshot.counts, snapshot.durations, has_policies=True)


def _summed(each: Sequence[Snapshot]) -> tuple[tuple[str, tuple[str, ...], int], ...]:
    sums: Counter[tuple[str, tuple[str, ...]]] = Counter()
    for name, labels, number in (row for one in each for row in one.counts):
        sums[name, labels] += number
    return tuple((name, labels, number) for (name, labels), number in sums.items())


def _added(each: Sequence[Snapshot]) -> tuple[tuple[str, Histogram], ...]:
    sums: dict[str, Histogram] = {}
    for name, one in (pair for snapshot in each for pair in snapshot.durations):
        before = sums.get(name)
        if before is not None:
            counts = tuple(map(sum, zip(before.counts, one.counts, strict=True)))
            one = Histogram(one.bounds, counts, before.total + one.total)
        sums[name] = one
    return tuple(sums.items())


# ---------------------------------------------------------------- is it ready


def readiness(snapshots: Sequence[Snapshot], max_stale: float) -> tuple[bool, str]:
    """Whether decisions can be trusted, and if not, why; every process that takes requests has to be ready.

    A policy is loaded, and what is known is younger than `max_stale` or a directory answers.
    """
    if not snapshots:
        return False, "no worker is there to answer"
    reasons = [reason for one in snapshots if (reason := _unready(one, max_stale))]
    count = f" ({len(reasons)} of {len(snapshots)} workers)" if len(snapshots) > 1 else ""
    return not reasons, f"{'; '.join(dict.fromkeys(reasons))}{count}" if reasons else "ready"


def _unready(one: Snapshot, max_stale: float) -> str:
    if not one.has_policies:
        return "no policy has been read yet"
    if one.is_loading:
        return "the snapshot is being loaded"
    if any(is_up for _, is_up in one.directory_up):
        return ""
    if one.kept_age is None:
        return "the directory is unavailable and nothing is known"
    if one.kept_age < max_stale:
        return ""
    return f"the directory is unavailable and what is known is older than max_stale, {max_stale:g} s"


# ---------------------------------------------------------------- for Prometheus

_COUNTERS = (
    (
        "requests",
        "ldappolicy_requests",
        "Requests decided, by verb or status code of the action and by policy.",
        ("action", "policy"),
    ),
    (
        "protocol_errors",
        "ldappolicy_protocol_errors",
        "Connections closed because what came was no policy request.",
        (),
    ),
    (
        "unknown_logins",
        "ldappolicy_unknown_logins",
        "Requests with a login that belongs to nobody in the directory, of those that asked whose it is.",
        (),
    ),
    (
        "searches",
        "ldappolicy_directory_searches",
        "Searches by outcome: success, timeout, unavailable, or the name of an LDAP result code.",
        ("outcome",),
    ),
    (
        "slow_searches",
        "ldappolicy_slow_searches",
        "Searches that took 100 ms or longer; the log names base and attributes of each kind once.",
        (),
    ),
    (
        "cache",
        "ldappolicy_cache_requests",
        "Requests decided from what is known (hit) or not (miss), and lookups served though stale (stale).",
        ("result",),
    ),
    (
        "changes",
        "ldappolicy_changes",
        "Changes of the directory, by how they were learnt of.",
        ("source",),
    ),
    (
        "shadow",
        "ldappolicy_shadow",
        "Actions that shadow mode kept from being answered.",
        ("action",),
    ),
)

_DURATIONS = {
    "requests": ("ldappolicy_request_duration_seconds", "Time from a request to its decision."),
    "searches": (
        "ldappolicy_directory_search_duration_seconds",
        "Time from a search to its outcome.",
    ),
}

_FROM_THE_START = (
    *(("cache", (result,)) for result in ("hit", "miss", "stale")),
    *(("searches", (outcome,)) for outcome in ("success", "timeout", "unavailable")),
    ("protocol_errors", ()),
    ("unknown_logins", ()),
    ("slow_searches", ()),
)
"""Shown as 0 until they happen, so that a rate sees the first one."""


def exposition(snapshot: Snapshot) -> bytes:
    """The page of metrics, in the Prometheus text format."""
    registry = CollectorRegistry()
    registry.register(_Shown(snapshot))
    return generate_latest(registry)


class _Shown(Collector):
    """A snapshot as prometheus_client takes it."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterator[Metric]:
        yield from _counter_families(self._snapshot)
        for name, one in self._snapshot.durations:
            metric, text = _DURATIONS[name]
            family = HistogramMetricFamily(metric, text)
            family.add_metric([], list(_cumulated(one)), one.total)
            yield family
        yield from _gauges(self._snapshot)


def _counter_families(snapshot: Snapshot) -> Iterator[Metric]:
    numbers = dict.fromkeys(_FROM_THE_START, 0)
    numbers.update({(name, labels): number for name, labels, number in snapshot.counts})
    for name, metric, text, names in _COUNTERS:
        family = CounterMetricFamily(metric, text, labels=names)
        for (counted, labels), number in numbers.items():
            if counted == name:
                family.add_metric(labels, number)
        yield family


def _cumulated(one: Histogram) -> Iterator[tuple[str, float]]:
    count = 0
    for bound, number in zip((*map(repr, one.bounds), "+Inf"), one.counts, strict=True):
        count += number
        yield bound, count


def _gauges(snapshot: Snapshot) -> Iterator[Metric]:
    yield GaugeMetricFamily("ldappolicy_connections", "Connections of clients.", snapshot.connections)
    yield GaugeMetricFamily("ldappolicy_cache_entries", "Cached answers.", snapshot.cache_entries)
    age = GaugeMetricFamily("ldappolicy_data_age_seconds", "How old what is known may be.", labels=())
    if snapshot.data_age is not None:
        age.add_metric((), snapshot.data_age)
    yield age
    up = GaugeMetricFamily(
        "ldappolicy_directory_up", "Whether a server could be asked when last tried.", labels=("uri",)
    )
    for uri, is_up in snapshot.directory_up:
        up.add_metric((uri,), is_up)
    yield up
    revision = GaugeMetricFamily(
        "ldappolicy_policy_revision_info", "Policies in force.", labels=("policy", "revision")
    )
    for pair in snapshot.revisions:
        revision.add_metric(pair, 1)
    yield revision
