"""`workers` > 1: the process that opens the listeners, and sees to it that so many others answer on them.

It answers nothing itself. Workers are started by exec (no state of this process is theirs but the listening
sockets and one end of a socket pair), share every listener, and are replaced when they end, at once or, when
that does not help, ever more slowly. One that has given no sign of life for some ticks is killed by its
process id. One without policies accepts nothing as long as another has them. All of them have the same
configuration, which is read and tried here, and end together.

A connection that nobody has accepted is not lost when a worker dies: any other accepts it. What a worker had
accepted is closed by the kernel, and Postfix asks again on a new connection (auto_clnt(3)).

BUGS: after an upgrade of the program a worker that is replaced runs the new one: restart the service then.
"""

import asyncio
import logging
import os
import signal
import socket
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from ldappolicy import config as configuration
from ldappolicy.config import Config
from ldappolicy.daemon import DEFAULT_TIMING, Timing, cancelled, say_what_needs_a_restart, set_up_log, try_out
from ldappolicy.directory.ldap import Refusals
from ldappolicy.directory.ldif import Extent
from ldappolicy.doors import Counts, Door, open_doors
from ldappolicy.errors import ConfigError, InputError, Unavailable
from ldappolicy.metrics import Snapshot, merged, retired
from ldappolicy.pages import web_of
from ldappolicy.systemd import Systemd
from ldappolicy.workers import Channel, Facts, Message

MARGIN = 5.0
"""Seconds beyond shutdown_grace after which a worker that is to end is killed: it writes its snapshot."""

SWAP_PATIENCE = 30.0
"""Seconds within which a configuration that was tried is in force everywhere, or is said not to be."""

logger = logging.getLogger("ldappolicy.supervisor")


@dataclass(slots=True)
class _Child:
    """A worker as it is seen from here."""

    name: str
    process: Process
    channel: Channel
    turn: int = -1
    missed: int = 0
    is_ready: bool = False
    has_begun: bool = False
    in_force: bool = False
    status: str = ""
    complaints: list[str] = field(default_factory=list)
    snapshot: Snapshot | None = None

    def kill(self) -> None:
        """Now, unless it has just ended."""
        with suppress(ProcessLookupError):
            self.process.kill()


class Supervisor:
    """Keeps as many workers as there should be, each started by `command` and the number of a descriptor."""

    def __init__(
        self,
        path: Path,
        command: Sequence[str],
        *,
        systemd: Systemd | None = None,
        timing: Timing = DEFAULT_TIMING,
    ) -> None:
        self._path = path
        self._command = command
        self._systemd = systemd or Systemd()
        self._timing = timing
        self._text = configuration.read(path)
        self.config = self._parsed(self._text)
        self.count = worker_count(self.config)
        set_up_log(self.config, is_alone=False)
        self._turn = 0
        self._doors: list[Door] = []
        self._shared = os.memfd_create("ldappolicy-connections")
        self._counts = Counts.made(self._shared, self.count)
        self._refused_secrets = os.memfd_create("ldappolicy-refusals")
        self._refusals = Refusals(self._refused_secrets)
        self._children: dict[int, _Child] = {}
        self._refused: dict[int, list[str]] = {}
        self._ended = merged([])
        self._held: Extent | None = None
        """What the workers have of the LDIF file; one that is started later must not have less."""
        self._was_ready = False
        self._draining = asyncio.Event()
        listen = self.config.web.listen
        self.web = web_of(listen, self, self.config.web.hosts) if listen is not None else None
        self._stop = asyncio.Event()
        self._reread = asyncio.Event()
        self._in_force = asyncio.Event()
        self._changed = asyncio.Event()

    async def run(self, started: Callable[[Facts], None]) -> None:
        """Serves until SIGTERM or SIGINT; `started` is called once requests are answered.

        Raises ConfigError when no worker could ever start.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._reread.set)
        if self.web is not None:
            await self.web.start()
        server = self.config.server
        self._doors = self._systemd.doors or await open_doors(server.listen, server.socket_mode)
        steps = (self._stop.wait(), self._obey_sighup(), self._attend())
        work: list[asyncio.Task[object]] = [asyncio.create_task(step) for step in steps]
        keeping = [asyncio.create_task(self._keep_up(number, started)) for number in range(self.count)]
        ended, _ = await asyncio.wait([*work, *keeping], return_when=asyncio.FIRST_COMPLETED)
        logger.info("stopping")
        self._draining.set()
        await cancelled(*work)
        await self._drain(keeping)
        if self.web is not None:
            await self.web.stop()
        for task in ended:
            task.result()  # a refusal by all, or a bug: it ends the service, and is seen

    async def _drain(self, keeping: Sequence[asyncio.Task[None]]) -> None:
        """All workers finish what they have in hand, at the same time."""
        self._systemd.stopping()
        for door in self._doors:
            door.shut()
        for child in self._children.values():
            child.channel.send(do="stop")
        await asyncio.wait(keeping, timeout=self.config.server.shutdown_grace + MARGIN)
        for child in self._children.values():
            logger.error("%s does not end: killed", child.name)
            child.kill()
        await asyncio.wait(keeping)

    @property
    def is_draining(self) -> bool:
        """Whether no more requests are taken."""
        return self._draining.is_set()

    # ------------------------------------------------------------ the life of a worker

    async def _keep_up(self, number: int, started: Callable[[Facts], None]) -> None:
        """Starts a worker whenever there is none with this number."""
        clock, failures = asyncio.get_running_loop().time, 0
        while not self.is_draining:
            began = clock()
            try:
                end = await self._one_life(number, started)
            except OSError as problem:
                end = f"worker {number} cannot be started: {(problem.strerror or 'unknown').lower()}"
            if self._draining.is_set():
                return
            failures = 0 if clock() - began >= self._timing.stable_s else failures + 1
            pause = min(self._timing.longest_pause_s, self._timing.first_pause_s * 2 ** min(failures, 20))
            # Of a configuration that nobody can start with the service says why, once, when it ends.
            level = logging.ERROR if self._was_ready or number not in self._refused else logging.INFO
            logger.log(level, "%s; another is started in %.1f s", end, pause)
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._draining.wait()

    async def _one_life(self, number: int, started: Callable[[Facts], None]) -> str:
        """From the start of a worker to its end; how it ended."""
        child = await self._start(number)
        listening = asyncio.create_task(self._listen(child, started))
        watching = asyncio.create_task(self._watch(child))
        self._children[number] = child
        if self.is_draining:
            child.channel.send(do="stop")
        try:
            status, _ = await asyncio.gather(child.process.wait(), listening)
        finally:
            del self._children[number]
            self._counts.leave(number)
            listening.cancel()
            watching.cancel()
            child.channel.close()
            if child.process.returncode is None:
                child.kill()
        self._keep_counts(child)
        self._note_refusal(number, child)
        self._changed.set()
        if child.complaints:
            return f"{child.name} cannot start: {'; '.join(child.complaints)}"
        how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
        return f"{child.name} {how}"

    def _keep_counts(self, child: _Child) -> None:
        if child.snapshot is None:
            return
        try:
            self._ended = merged([self._ended, retired(child.snapshot)])
        except ValueError:  # after an upgrade the histograms of the new program may be others
            logger.error("what %s counted is lost: it was of another version", child.name)

    def _note_refusal(self, number: int, child: _Child) -> None:
        """What stops every worker from the beginning stops the service."""
        if child.complaints and not self._was_ready:
            self._refused[number] = child.complaints
            if len(self._refused) == self.count:
                raise ConfigError(*child.complaints)

    async def _start(self, number: int) -> _Child:
        ours, theirs = socket.socketpair()
        with theirs:
            channel = await Channel.over(ours)
            doors = [door.socket.fileno() for door in self._doors]
            control, counts, refusals = theirs.fileno(), self._shared, self._refused_secrets
            try:
                process = await asyncio.create_subprocess_exec(
                    *self._command, str(control), stdin=DEVNULL, pass_fds=(control, counts, refusals, *doors)
                )
            except OSError:
                channel.close()
                raise
        channel.send(
            do="serve",
            number=number,
            path=str(self._path),
            text=self._text,
            turn=self._turn,
            doors=doors,
            counts=counts,
            count=self.count,
            refusals=refusals,
            timing=asdict(self._timing),
            held=asdict(self._held) if self._held is not None else None,
        )
        return _Child(f"worker {number} (pid {process.pid})", process, channel)

    async def _watch(self, child: _Child) -> None:
        while True:
            await asyncio.sleep(self._timing.tick_s)
            child.missed += 1
            most = self._timing.missed if child.has_begun else self._timing.missed_at_start
            if child.missed > most:
                seconds = most * self._timing.tick_s
                logger.error("%s has given no sign of life for %.1f s: killed", child.name, seconds)
                child.kill()
                return

    async def _listen(self, child: _Child, started: Callable[[Facts], None]) -> None:
        async for message in child.channel.messages():
            child.missed = 0
            try:
                self._take(child, message)
            except (InputError, KeyError) as problem:
                logger.error("%s is not understood, and killed: %s", child.name, problem)
                child.kill()
                return
            if child.is_ready and not self._was_ready:
                self._was_ready = True
                started(message["facts"])
            self._changed.set()

    def _take(self, child: _Child, message: Message) -> None:
        match message["say"]:
            case "ready":
                child.is_ready = child.has_begun = True
                child.turn = message["turn"]
                logger.info("%s answers", child.name)
            case "swapped":
                child.turn = message["turn"]
            case "refused":
                child.complaints = message["complaints"]
            case "alive":
                child.in_force, child.status = message["in_force"], message["status"]
                child.snapshot = Snapshot.from_json(message["snapshot"])
                if child.turn == self._turn and message.get("held"):
                    self._held = Extent(**message["held"])
                if child.in_force and child.is_ready:
                    self._in_force.set()
                if message["passed_over"]:
                    self._pass_over(child)

    def _pass_over(self, child: _Child) -> None:
        """A worker without policies accepts only where no other has them."""
        child.has_begun = True
        if not any(one.in_force for one in self._children.values()):
            child.channel.send(do="accept")

    # ------------------------------------------------------------ SIGHUP

    def _parsed(self, text: str) -> Config:
        return configuration.parse(text, str(self._path))

    async def _obey_sighup(self) -> None:
        while True:
            await self._reread.wait()
            self._reread.clear()
            if self._in_force.is_set():
                self._systemd.reloading()
            try:
                await self._replace(configuration.read(self._path))
            except (ConfigError, Unavailable) as problem:
                logger.error("configuration refused, the old one stays: %s", problem)
            if self._in_force.is_set():
                self._systemd.ready(self._status())

    async def _replace(self, text: str) -> None:
        """Tries a configuration, then has every worker swap to it; those that start get it as well."""
        config = self._parsed(text)
        say_what_needs_a_restart(self.config, config)
        await try_out(config, self.config, self._refusals, self._held)
        self._held = self._held if config.directory.ldif == self.config.directory.ldif else None
        self._text, self.config, self._turn = text, config, self._turn + 1
        set_up_log(config, is_alone=False)
        for child in self._children.values():
            child.channel.send(do="swap", text=text, turn=self._turn)
        try:
            async with asyncio.timeout(SWAP_PATIENCE):
                await self._all_swapped()
        except TimeoutError:
            behind = ", ".join(child.name for child in self._children.values() if child.turn != self._turn)
            logger.error("configuration not in force yet in %s", behind)
        else:
            logger.info("configuration in force in every worker")

    async def _all_swapped(self) -> None:
        """Those that cannot start are not waited for."""
        while any(child.is_ready and child.turn != self._turn for child in self._children.values()):
            self._changed.clear()
            await self._changed.wait()

    # ------------------------------------------------------------ what is shown

    @property
    def max_stale(self) -> float:
        """How old data may be to be trusted, in seconds."""
        return self.config.cache.max_stale

    def snapshots(self) -> list[Snapshot]:
        """See `pages`: what each worker said last, at most some ticks ago."""
        known = [child.snapshot for child in self._children.values() if child.is_ready]
        return [snapshot for snapshot in known if snapshot is not None]

    def ended(self) -> list[Snapshot]:
        """See `pages`."""
        return [retired(self._ended)]

    async def _attend(self) -> None:
        await self._systemd.attend(self._in_force, self._status, lambda: bool(self._answering()))

    def _answering(self) -> list[_Child]:
        return [child for child in self._children.values() if child.snapshot is not None]

    def _status(self) -> str:
        answering = sorted(self._answering(), key=lambda child: not child.in_force)
        what = answering[0].status if answering else "no worker answers"
        return f"{len(answering)} of {self.count} workers; {what}"


def worker_count(config: Config) -> int:
    """How many there should be: 0 in the configuration stands for one for each core that may be used."""
    return config.server.workers or len(os.sched_getaffinity(0))
