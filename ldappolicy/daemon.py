"""The running service: reads policies at start, when they change, every poll_interval and on SIGHUP.

Nothing here decides anything. What goes wrong while it runs (a directory that is down, a file or a policy
that does not parse) is said in the log, and what was in force stays so.
"""

import asyncio
import dataclasses
import logging
import select
import signal
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ldappolicy import assembly, reach
from ldappolicy.config import Config
from ldappolicy.counters import Counters
from ldappolicy.decision_log import DecisionLog, decision_ids
from ldappolicy.directory import Directory
from ldappolicy.directory.ldap import Refusals
from ldappolicy.directory.ldif import Extent, LdifDirectory
from ldappolicy.directory.replacing import extent, refuse_less, refuse_loss
from ldappolicy.doors import Door, allow_files
from ldappolicy.entry import Entry
from ldappolicy.errors import ConfigError, Unavailable
from ldappolicy.freshness import Freshness
from ldappolicy.log import Limited, Lines, is_journal, set_up
from ldappolicy.mapping import GENERIC, PROFILES
from ldappolicy.metrics import Snapshot, take
from ldappolicy.pages import web_of
from ldappolicy.server import FIRST_REPLY_S, PolicyServer
from ldappolicy.service import Service
from ldappolicy.systemd import Systemd
from ldappolicy.warm_start import WarmStart

MAX_FAULTS = 50
"""Rules that protect nothing of which each is said at start."""

INSIST = 1.0
"""How often a task is cancelled that goes on, in seconds."""

logger = logging.getLogger("ldappolicy.daemon")


@dataclass(frozen=True, slots=True)
class Timing:
    """Waiting times that no configuration sets. Sites use the defaults; tests use shorter ones.

    Of workers ticks are counted, not seconds: while the machine sleeps nobody's time runs out. `missed` of
    them without a sign of life are too many: a machine that is short of memory or disk may hold a worker up
    for seconds, and its death costs its connections and what it remembers. `missed_at_start` are too many
    before it is ready (a large LDIF file takes its time).
    A worker that dies `stable_s` after its start or later is replaced after `first_pause_s`; others after a
    pause that doubles up to `longest_pause_s`.
    """

    ldif_look_s: float = 0.25
    """How often the LDIF file is looked at."""
    ldif_quiet_s: float = 1.0
    """How long it has to be as it is before it is read again."""
    retry_s: float = 1.0
    """How soon policies are asked for again while there are none, and a configuration is tried again."""
    snapshot_interval_s: float = 300.0
    """How often what is known is written down."""
    first_reply_s: float = FIRST_REPLY_S
    tick_s: float = 1.0
    missed: int = 15
    missed_at_start: int = 300
    stable_s: float = 10.0
    first_pause_s: float = 0.1
    longest_pause_s: float = 10.0


DEFAULT_TIMING = Timing()

Stamp = tuple[int, int, int] | None
"""What changes when a file is written or replaced."""


class Daemon:
    """One process: a service and its listeners.

    `load` reads the configuration again, for SIGHUP; without it SIGHUP is somebody else's, who calls
    `replace`. `doors` are served instead of the configured listeners. A `worker` is one of several: its
    supervisor shows the web page, only the first one writes the snapshot, and without policies it accepts
    nothing before `accept_anyway`: another may have them; `held` is what the others have of the LDIF file.
    While the directory is away nothing is accepted before what the snapshot's mirror held is in memory:
    connections wait, where systemd holds the sockets.
    """

    _is_loading = False
    """Whether the policies of a snapshot are known, and its mirror is not in memory yet."""

    def __init__(
        self,
        config: Config,
        load: Callable[[], Config] | None = None,
        *,
        doors: Sequence[Door] = (),
        systemd: Systemd | None = None,
        worker: int | None = None,
        held: Extent | None = None,
        refusals: Refusals | None = None,
        timing: Timing = DEFAULT_TIMING,
    ) -> None:
        self.config, self._timing = config, timing
        self.counters = Counters()
        self.is_draining = self._has_begun = False
        self._worker = worker
        self._systemd = systemd or Systemd()
        self._read_at = stamp(config.directory.ldif)
        self._lines = set_up_log(config, is_alone=worker is None)
        self._ids = decision_ids(worker or 0)
        self._refusals = refusals or Refusals()
        opened = assembly.open_directory(config, self.counters, self._refusals)
        self.directory: Directory = _judged(opened, config, held=held)
        self._settled = assembly.settled_beforehand(config)
        provisional = assembly.with_profile(config, GENERIC)  # without policies nothing is looked up
        self.service: Service = self._build_service(provisional, self.directory)
        self.server, alone = self._build_server(config), config.web.listen if worker is None else None
        self.web = web_of(alone, self, config.web.hosts) if alone is not None else None
        self._load = load
        self._doors = list(doors) or self._systemd.doors
        self._stop, self._reread, self._moved = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._in_force, self._may_accept, self._can_answer = asyncio.Event(), asyncio.Event(), asyncio.Event()
        if worker is None:
            self._may_accept.set()
        self._swapping = asyncio.Lock()
        self._freshness: Freshness | None = None
        self._is_waiting, self._has_looked = True, False
        self._warm_start = _warm_start(provisional)
        self._leaving: set[asyncio.Task[None]] = set()
        self._warnings = Limited(logger)

    async def run(self, started: Callable[["Daemon"], None]) -> None:
        """Serves until SIGTERM or SIGINT; `started` is called once requests are taken.

        Raises ConfigError when there is nothing to serve with; an unavailable directory is no such thing.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        loop.add_signal_handler(signal.SIGHUP, self._reread.set)
        if self.web is not None:
            await self.web.start()
        self._warn_of_exposed_files()
        await self._first_policies()
        allow_files(self.config.server.max_connections)
        if self._may_accept.is_set():
            await self._accept(started)
        work = (
            *(self._until_stopped(started), self._poll(), self._obey_sighup(), self._watch_file()),
            *(self._follow(), self._keep(), self._attend()),
        )
        tasks = [asyncio.create_task(step) for step in work]
        ended, running = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        logger.info("stopping")
        self.is_draining = True
        self._systemd.stopping()
        await cancelled(*running, *self._leaving)
        await self.server.stop()
        await self._write_snapshot()
        await self.directory.close()
        if self.web is not None:
            await self.web.stop()
        for task in ended:
            task.result()  # a bug in one of them ends the service, and is seen

    def stop(self) -> None:
        """Has `run` finish what is in hand, and end."""
        self._stop.set()
        self._may_accept.set()

    def accept_anyway(self) -> None:
        """Nobody else has policies either."""
        self._may_accept.set()

    @property
    def is_accepting(self) -> bool:
        """Whether new connections are taken."""
        return bool(self.server.addresses) and not self.is_draining

    @property
    def is_passed_over(self) -> bool:
        """Whether the start is over, but for policies or `accept_anyway`."""
        return self._has_begun and not (self._may_accept.is_set() or self._is_loading)

    async def _accept(self, started: Callable[["Daemon"], None]) -> None:
        await self.server.start_listening(self._doors or None)
        started(self)
        if self._in_force.is_set():
            self._can_answer.set()

    async def _until_stopped(self, started: Callable[["Daemon"], None]) -> None:
        await self._may_accept.wait()
        if not self.server.addresses and not self._stop.is_set():
            await self._accept(started)
        await self._stop.wait()

    def snapshot(self) -> Snapshot:
        """What there is to show, now."""
        return take(
            self.counters,
            self.service,
            self.directory,
            connections=self.server.connections,
            is_waiting=self._is_waiting,
            is_loading=self._is_loading,
            now=time.time(),
        )

    @property
    def max_stale(self) -> float:
        """How old data may be to be trusted, in seconds."""
        return self.config.cache.max_stale

    def snapshots(self) -> list[Snapshot]:
        """See `pages`."""
        return [self.snapshot()]

    def ended(self) -> list[Snapshot]:
        """See `pages`: there is no other process."""
        return []

    def _build_service(self, config: Config, directory: Directory) -> Service:
        return assembly.build_service(config, directory, self.counters, self._decisions(config))

    def _build_server(self, config: Config) -> PolicyServer:
        return PolicyServer(
            self.service,
            config.server.listen,
            socket_mode=config.server.socket_mode,
            max_connections=config.server.max_connections,
            idle_timeout=config.server.idle_timeout,
            max_request_bytes=config.server.max_request_bytes,
            shutdown_grace=config.server.shutdown_grace,
            first_reply_s=self._timing.first_reply_s,
            counters=self.counters,
        )

    def _decisions(self, config: Config) -> DecisionLog:
        return assembly.decision_log(config, self._lines, self._ids)

    async def _attend(self) -> None:
        await self._systemd.attend(self._can_answer, self.status, lambda: True)

    @property
    def is_in_force(self) -> bool:
        """Whether there are policies."""
        return self._in_force.is_set()

    def status(self) -> str:
        """In one line for a person."""
        if self.service.evaluator is None:
            return "no policies yet, requests are answered as on_unavailable says"
        if self._is_loading:
            return "the snapshot is being loaded"
        return f"policies in force: revision {self._revision()}"

    def held(self) -> Extent | None:
        """What is in force of the LDIF file, if that is the directory."""
        return self.directory.extent if isinstance(self.directory, LdifDirectory) else None

    # ------------------------------------------------------------ policies

    async def _first_policies(self) -> None:
        """A directory that is down at start is waited for, with what the snapshot knows if there is one."""
        async with self._swapping:
            await self._first_attempt()
        self._has_begun = True

    async def _first_attempt(self) -> None:
        known = await self._recalled()
        service = self.service
        try:
            await self._settle()
            if self.service is service:
                service.recall(known)  # what cannot be taken of the new ones keeps the form that it had
            await self.service.reload()
            self._take_up()
            if not {id(entry) for entry in known}.isdisjoint(map(id, self.service.policy_entries)):
                what = "those of the directory are not"
                logger.error("policies of the snapshot are in force where %s: %s", what, self._revision())
        except (Unavailable, ConfigError) as problem:
            if self.service is service and service.recall(known):
                self._is_loading = self._warm_start.has_mirror
                if self._is_loading:
                    self._may_accept.clear()
                else:
                    self._put_in_force()
                logger.error("policies of the snapshot are in force, %s: %s", self._revision(), problem)
            elif isinstance(problem, ConfigError):
                raise
            else:
                logger.error("no policies yet: %s", problem)

    async def _recalled(self) -> Sequence[Entry]:
        """The policies of the snapshot, under the profile that its directory was found to have."""
        if self._settled is None and (profile := await self._warm_start.profile()) in PROFILES:
            self._settle_on(assembly.settled_on(self.config, self.directory, profile))
        known = await self._warm_start.read(self.service) if self._settled is not None else ()
        if not known:
            self._settled = assembly.unsettled(self.config, self.directory)
        return known

    async def _settle(self) -> None:
        """Learns what the servers are; raises ConfigError, and Unavailable while none says it."""
        self._settle_on(await assembly.settled(self.config, self.directory))

    def _settle_on(self, config: Config) -> None:
        if config == self._settled:
            return
        if self._settled is not None:  # the snapshot's: what it knew is not of these servers
            self.directory.set_witnesses(())
        logger.info("profile %s", config.directory.profile)
        self._settled = config
        self.service = self.server.decider = self._build_service(config, self.directory)
        self._warm_start = _warm_start(config)
        self._moved.set()

    async def _follow(self) -> None:
        """Keeps the service as its directory is, whichever that is."""
        while True:
            self._moved.clear()
            self._freshness = None
            if self._settled is not None:
                self._freshness = assembly.build_freshness(
                    self._settled, self.directory, self.service, self._reload
                )
            if self._freshness is not None:
                await self._warm_start.begin(self._freshness)
            self._loaded()
            work = [self._moved.wait(), *([self._freshness.run()] if self._freshness else [])]
            following: list[asyncio.Task[object]] = [asyncio.create_task(step) for step in work]
            try:
                ended, _ = await asyncio.wait(following, return_when=asyncio.FIRST_COMPLETED)
            finally:
                await cancelled(*following)
            for task in ended:
                task.result()  # a bug ends the service, and is seen

    def _loaded(self) -> None:
        """What the snapshot holds is in memory; its policies may have turned out to be another server's."""
        if self._is_loading:
            self._is_loading = False
            self._may_accept.set()
            if self.service.evaluator is not None:
                self._put_in_force()

    async def _poll(self) -> None:
        """With watch = "off" only until the directory has told policies; then SIGHUP asks for them."""
        while True:
            await asyncio.sleep(
                self._timing.retry_s if self._is_waiting else self.config.directory.poll_interval
            )
            if self._is_waiting or self.config.directory.watch != "off":
                await self._reload()

    async def _reload(self) -> None:
        """Reads the policies again; on any fault the old ones stay."""
        try:
            async with self._swapping:
                if self._settled is None:
                    await self._settle()
                changed = await self.service.reload()
                self._take_up()
            if changed:
                logger.info("policies in force: revision %s", self._revision())
        except Unavailable as problem:
            self._warnings.log(logging.ERROR, f"policies cannot be read: {problem}")
        except ConfigError as problem:
            kept = "no policies yet" if self.service.evaluator is None else "the old ones stay in force"
            self._warnings.log(logging.ERROR, f"policies refused, {kept}: {problem}")

    def _take_up(self) -> None:
        """Policies have been read."""
        self._is_waiting = False
        self._put_in_force()
        if not self._has_looked and not self._worker:
            self._has_looked = True
            self._beside(look_over(self.config, self.directory, self.service))

    def _put_in_force(self) -> None:
        self._is_loading = False
        self._in_force.set()
        self._may_accept.set()
        if self.server.addresses:
            self._can_answer.set()

    def _revision(self) -> str:
        evaluator = self.service.evaluator
        return evaluator.policies.revision if evaluator is not None else "none"

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(self._timing.snapshot_interval_s)
            await self._write_snapshot()

    async def _write_snapshot(self) -> None:
        if not self._worker:
            await self._warm_start.keep(self.service, self._freshness)

    # ------------------------------------------------------------ SIGHUP

    async def _obey_sighup(self) -> None:
        while True:
            await self._reread.wait()
            self._reread.clear()
            if self._load is None:
                continue
            if self._in_force.is_set():
                self._systemd.reloading()
            try:
                config = self._load()
                say_what_needs_a_restart(self.config, config)
                await self.replace(config)
            except (ConfigError, Unavailable) as problem:
                logger.error("configuration refused, the old one stays: %s", problem)
            if self._in_force.is_set():
                self._systemd.ready(self.status())

    async def replace(self, config: Config) -> None:
        """Validates, then swaps; the listeners stay as they are. Raises ConfigError or Unavailable."""
        async with self._swapping:
            if self._settled is not None and _is_same_directory(config, self.config):
                self.service.resolver.ask_again()
                settled = assembly.with_profile(config, self._settled.directory.profile)
                settings = assembly.service_settings(settled)
                service = self.service.with_settings(settings, self._decisions(config))
                await service.reload()
                await self._swap(config, settled, self.directory, service)
            else:
                same = (config.directory, config.cache) == (self.config.directory, self.config.cache)
                await self._open_anew(config, keep_forms=same, is_asked_for=True)

    async def _open_anew(self, config: Config, *, keep_forms: bool, is_asked_for: bool) -> None:
        """Swaps to a directory of its own; `keep_forms`: what no longer parses keeps its last good form.

        `is_asked_for`: by somebody, who knows that entries of an LDIF file are gone.
        """
        old = self.directory if config.directory.ldif == self.config.directory.ldif else None

        def open_directory() -> Directory:
            opened = assembly.open_directory(config, self.counters, self._refusals)
            return _judged(opened, config, old, is_asked_for=is_asked_for)

        directory = await asyncio.to_thread(open_directory)
        try:
            settled = await assembly.settled(config, directory)
            service = self._build_service(settled, directory)
            if keep_forms:
                service.take_over(self.service)
            await service.reload()
        except (ConfigError, Unavailable, asyncio.CancelledError):
            await directory.close()
            raise
        await self._swap(config, settled, directory, service)

    async def _swap(self, config: Config, settled: Config, directory: Directory, service: Service) -> None:
        """`settled` is the configuration with the profile of the servers."""
        old, timeout = self.directory, self.config.server.request_timeout
        self.config, self.directory, self.service = config, directory, service
        self._settled = settled
        self._take_up()
        self._warm_start = _warm_start(settled)
        self.server.decider = service
        set_up_log(config, is_alone=self._worker is None)
        self._moved.set()
        if old is not directory:
            self._beside(self._leave(old, timeout))
        self._warn_of_exposed_files()
        logger.info("configuration in force: revision %s", self._revision())

    def _warn_of_exposed_files(self) -> None:
        for fault in assembly.exposed_files(self.config) if not self._worker else ():
            logger.warning("%s", fault.what)

    def _beside(self, work: Coroutine[Any, Any, None]) -> None:
        """Has something done that nobody waits for; it ends with the service."""
        task = asyncio.create_task(work)
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    async def _leave(self, directory: Directory, after: float) -> None:
        """Closes a directory once no request in hand can need it: none lives longer than its timeout."""
        try:
            await asyncio.sleep(after)
        finally:
            await directory.close()

    # ------------------------------------------------------------ the embedded directory

    async def _watch_file(self) -> None:
        await watch_file(
            lambda: self.config.directory.ldif, self._read_at, self._read_file_again, self._timing
        )

    async def _read_file_again(self) -> None:
        if self.config.directory.watch == "off":
            return
        try:
            async with self._swapping:
                await self._open_anew(self.config, keep_forms=True, is_asked_for=False)
            self.counters.changes["file"].add()
        except (ConfigError, Unavailable) as problem:
            logger.error("file refused, its old content stays in force: %s", problem)


async def look_over(config: Config, directory: Directory, service: Service) -> None:
    """Says which rules protect nothing, and what the account is not shown (see `reach`)."""
    if service.evaluator is None:
        return
    policies, where = service.evaluator.policies, assembly.where_of(config)
    try:
        found = await reach.faults(policies, directory, service.settings, where, at_start=True)
    except Unavailable as problem:
        logger.warning("rules that protect nothing were not looked for: %s", problem)
        return
    for fault in found[:MAX_FAULTS]:
        logger.log(logging.ERROR if fault.error else logging.WARNING, "%s", fault.what)
    if len(found) > MAX_FAULTS:
        logger.error("%d more rules that protect nothing: ldappolicy lint names all", len(found) - MAX_FAULTS)


async def watch_file(
    path: Callable[[], Path | None], read: Stamp, read_again: Callable[[], Awaitable[None]], timing: Timing
) -> None:
    """Has a file read again once it is not as it was when it was `read`, and has been quiet for a while."""
    loop = asyncio.get_running_loop()
    last, since = read, loop.time()
    while True:
        await asyncio.sleep(timing.ldif_look_s)
        now = stamp(path())
        if now != last:
            last, since = now, loop.time()
        elif now != read and loop.time() - since >= timing.ldif_quiet_s:
            read = now
            await read_again()


def say_what_needs_a_restart(old: Config, new: Config) -> None:
    """What SIGHUP does not change."""
    if new.server != dataclasses.replace(old.server, request_timeout=new.server.request_timeout):
        logger.warning("changes in [server], but for request_timeout, need a restart")
    if new.web != old.web:
        logger.warning("changes in [web] need a restart")


def _judged(
    opened: Directory,
    config: Config,
    old: Directory | None = None,
    *,
    held: Extent | None = None,
    is_asked_for: bool = False,
) -> Directory:
    """What was opened, to be in the place of an old one, or of the LDIF file that others hold.

    Raises ConfigError where that lost what is not known to be gone.
    """
    if isinstance(opened, LdifDirectory):
        mapping, path = assembly.mapping_of(config), str(config.directory.ldif)
        opened.extent = extent(opened, mapping)
        if isinstance(old, LdifDirectory):
            refuse_loss(opened, old, mapping, path, is_accepted=is_asked_for)
        elif held is not None:
            refuse_less(opened.extent, held, path, is_accepted=is_asked_for)
    return opened


async def try_out(config: Config, old: Config, refusals: Refusals, held: Extent | None = None) -> None:
    """Whether a configuration can be put in force where another is; raises ConfigError or Unavailable."""
    known = held if config.directory.ldif == old.directory.ldif else None

    def open_directory() -> Directory:
        opened = assembly.open_directory(config, None, refusals)
        return _judged(opened, config, held=known, is_asked_for=True)

    directory = await asyncio.to_thread(open_directory)
    try:
        service = assembly.build_service(await assembly.settled(config, directory), directory)
        entries, _ = await service.read_policies()
        # Of those that do not parse any more the last good form stays, where the directory does.
        if not _is_same_directory(config, old) and not service.recall(entries):
            name, base = config.policy.name, config.directory.policy_base
            raise ConfigError(f"{base}: no policy named {name!r} that parses, expected a smtpdPolicy")
    finally:
        await directory.close()


def _is_same_directory(config: Config, old: Config) -> bool:
    """Whether what was asked of it is still of use; a file is read anew in any case."""
    same = (config.directory, config.cache) == (old.directory, old.cache)
    return same and config.directory.ldif is None


def set_up_log(config: Config, *, is_alone: bool) -> Lines:
    """The log, to standard error; lines of processes that share one must not mix."""
    lines = None if is_alone else Lines(2, whole=select.PIPE_BUF)
    return set_up(config.log.format, config.log.level, lines, is_timed=not is_journal(2))


async def cancelled(*tasks: asyncio.Task[Any]) -> None:
    """Cancels tasks, and waits for their end.

    Again and again: a TaskGroup in which something fails at the same moment forgets that it was cancelled
    (python/cpython#116720, Python before 3.13).
    """
    running = set(tasks)
    while running:
        for task in running:
            task.cancel()
        _, running = await asyncio.wait(running, timeout=INSIST)


def _warm_start(config: Config) -> WarmStart:
    return WarmStart(config.cache.snapshot, assembly.site(config), config.directory.profile)


def stamp(path: Path | None) -> Stamp:
    """That of a file, None where it is not there."""
    try:
        status = path.stat() if path is not None else None
    except OSError:
        return None
    return None if status is None else (status.st_mtime_ns, status.st_size, status.st_ino)
