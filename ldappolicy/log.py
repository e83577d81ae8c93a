"""What is written to the log, and how: one line an event, as text or as JSON, safe to read.

Whatever came from outside is escaped, so that no value can begin a line of its own or drive a terminal.
Warnings that repeat are limited in rate; what was left out is counted in the next one.

All lines go through `Lines`: one thread writes them, so that the event loop waits for no pipe and no disk.
What does not fit while nobody reads, or cannot be written (the disk is full, the pipe is closed), is dropped,
and the next line that can be written says how much.

Lines of text begin with the time (RFC 3339, UTC) where `is_timed`: not where the journal adds its own.

BUGS: what is cut in the middle by a full disk is ended by a line end once there is room again, and stays cut.
"""

import json
import logging
import os
import select
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from ldappolicy.memories import BOUNDS, Memory, size_of

MOST_WAITING = 4 * 1024 * 1024
"""Characters that wait to be written; at 20,000 lines a second most of a second."""

PAUSE = 0.1
"""Seconds in which lines are collected for one write(2), which takes the interpreter from the event loop.

A program that is killed loses the lines of as long.
"""

FEW = 8
"""Lines that are written without such a pause: whoever watches the log is to see them at once."""

PIECE = 1024 * 1024
"""Octets in one write(2), where no other process writes to the same place.

A pipe takes less at a time; write(2) waits for the rest without the interpreter.
"""

PATIENCE = 1.0
"""Seconds that one piece waits for a descriptor that somebody made non-blocking."""

AT_EXIT = 2.0
"""Seconds that the end of the program waits for a reader who does not read."""


def escaped(text: str) -> str:
    """The text with all that is not printable as escapes: controls, directions, invalid bytes, odd spaces."""
    if text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape", "surrogatepass").decode()
        for letter in text
    )


LONGEST_VALUE = 320
"""Letters of a value that a client chose; an address has 254 (RFC 5321 section 4.5.3.1.3, erratum 1690)."""

LONGEST_TEXT = 2000
"""Letters of an event, whatever went into it."""


def shortened(value: str, most: int = LONGEST_VALUE) -> str:
    """The value, or the beginning of one that is longer than anybody needs."""
    return value if len(value) <= most else f"{value[:LEFT]}..."


LEFT = 24
"""Letters that are left of a longer value: each may be written in ten."""


class Lines:
    """Lines on their way to a descriptor. `whole`: pieces that are written in one go.

    Where several processes share a pipe, `whole` is PIPE_BUF (POSIX, write(): so much is never mixed with
    what others write); a longer line goes by itself. `dropped` counts lines that were lost, `form` is that
    of the line that tells of them. `is_timed`: lines of text begin with the time.
    """

    def __init__(self, descriptor: int, *, most: int = MOST_WAITING, whole: int = PIECE) -> None:
        self.dropped = 0
        self.form = "text"
        self.is_timed = False
        self._descriptor = descriptor
        self._most = most
        self._whole = whole
        self._waiting: list[str] = []
        self._size = 0
        self._said = 0
        self._reason = ""
        self._is_cut = False
        self._sleeps = False
        self._is_writing = False
        self._hurries = 0
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._thread: threading.Thread | None = None

    def put(self, line: str) -> None:
        """Hands over a line, without its end; never waits."""
        if self.is_timed and self.form == "text":
            line = f"{_stamp(time.time())} {line}"
        with self._lock:
            if self._size + len(line) > self._most:
                self.dropped += 1
                self._reason = "they came faster than they could be written"
                return
            self._waiting.append(line)
            self._size += len(line)
            if self._sleeps:
                self._sleeps = False
                self._changed.notify_all()
            elif self._thread is None:
                self._thread = threading.Thread(target=self._run, name="log", daemon=True)
                self._thread.start()

    def flush(self, seconds: float = AT_EXIT) -> bool:
        """Waits until all is written, or for so long; whether it is."""
        with self._lock:
            self._hurries += 1
            self._changed.notify_all()
            done = self._changed.wait_for(lambda: not (self._waiting or self._is_writing), seconds)
            self._hurries -= 1
        return done

    def _run(self) -> None:
        while True:
            with self._lock:
                while not self._waiting:
                    self._sleeps = True
                    self._changed.wait()
                lines, self._waiting, self._size = self._waiting, [], 0
                self._sleeps, self._is_writing = False, True
            self._write(lines)
            with self._lock:
                self._is_writing = False
                self._changed.notify_all()
                if len(lines) > FEW and not self._hurries:
                    self._changed.wait(PAUSE)

    def _write(self, lines: Sequence[str]) -> None:
        for piece in self._pieces(lines):
            unsaid = self.dropped - self._said
            notice = f"{self._notice(unsaid)}\n".encode() if unsaid else b""
            if self._send(notice + piece, len(notice)):
                self._said += unsaid

    def _pieces(self, lines: Sequence[str]) -> Iterator[bytes]:
        """Whole lines, as many as fit."""
        octets = ("\n".join(lines) + "\n").encode("utf-8", "backslashreplace")
        start = 0
        while start < len(octets):
            most = start + self._whole
            end = most if most >= len(octets) else octets.rfind(b"\n", start, most) + 1
            end = end or octets.index(b"\n", most) + 1
            yield octets[start:end]
            start = end

    def _send(self, octets: bytes, notice: int) -> bool:
        """Writes a piece, of which the first `notice` octets are ours; False: not all of it."""
        if self._is_cut:
            octets, notice = b"\n" + octets, notice + 1
        sent = 0
        try:
            while sent < len(octets):
                sent += self._some(memoryview(octets)[sent:])
        except OSError as error:
            self._lose(octets.count(b"\n", max(sent, notice)), os.strerror(error.errno or 0).lower())
            return False
        finally:
            self._is_cut = self._is_cut if not sent else not octets.endswith(b"\n", 0, sent)
        return True

    def _some(self, rest: memoryview) -> int:
        """How much of it could be written."""
        try:
            return os.write(self._descriptor, rest)
        except BlockingIOError:
            poll = select.poll()  # select(2) takes no descriptor beyond 1023
            poll.register(self._descriptor, select.POLLOUT)
            poll.poll(PATIENCE * 1000)
            return os.write(self._descriptor, rest)

    def _lose(self, lines: int, reason: str) -> None:
        with self._lock:
            self.dropped += lines
            self._reason = reason

    def _notice(self, count: int) -> str:
        text = f"{count} lines of the log were dropped: {self._reason}"
        event = {"time": round(time.time(), 3), "level": "warning", "logger": "ldappolicy.log", "text": text}
        if self.form == "json":
            return json.dumps(event)
        return f"{_stamp(time.time())} warning: {text}" if self.is_timed else f"warning: {text}"


def is_journal(descriptor: int) -> bool:
    """Whether the journal reads what is written there (systemd.exec(5), JOURNAL_STREAM)."""
    try:
        status = os.fstat(descriptor)
    except OSError:
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def _stamp(seconds: float) -> str:
    whole, part = divmod(int(seconds * 1000), 1000)
    return f"{_SECONDS.get(whole) or _second(whole)}.{part:03}Z"


_SECONDS: Memory[int, str] = Memory(BOUNDS["seconds"])


def _second(seconds: int) -> str:
    written = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    _SECONDS.keep(seconds, written, size_of(written))
    return written


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]}..."


class _Text(logging.Formatter):
    """`LEVEL: text`. The lines of a traceback are indented, whatever they hold."""

    def format(self, record: logging.LogRecord) -> str:
        line = f"{record.levelname.lower()}: {escaped(_cut(record.getMessage()))}"
        if not record.exc_info:
            return line
        return "\n    ".join([line, *map(escaped, self.formatException(record.exc_info).splitlines())])


class _Json(logging.Formatter):
    """One object a line."""

    def format(self, record: logging.LogRecord) -> str:
        event: dict[str, object] = {
            "time": round(record.created, 3),
            "level": record.levelname.lower(),
            "logger": record.name,
            "text": _cut(record.getMessage()),
        }
        if record.exc_info:
            event["traceback"] = self.formatException(record.exc_info)
        return json.dumps(event, ensure_ascii=True)


class _Output(logging.Handler):
    """Hands records to `Lines`; `logging` flushes it when the program ends."""

    def __init__(self, lines: Lines) -> None:
        super().__init__()
        self.lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self.lines.put(self.format(record))
        except (TypeError, ValueError):  # a text and arguments that do not match
            self.handleError(record)

    def flush(self) -> None:
        self.lines.flush()


def set_up(form: str, level: str, lines: Lines | None = None, *, is_timed: bool = False) -> Lines:
    """Sends the program's log, as `form` (text or json), to `lines`, by default to standard error.

    Later calls change form and level and whether text begins with the time, and go on with the lines of the
    first.
    """
    root, loop = logging.getLogger("ldappolicy"), logging.getLogger("asyncio")
    before = next((output.lines for output in root.handlers if isinstance(output, _Output)), None)
    output = _Output(before or lines or Lines(sys.__stderr__.fileno() if sys.__stderr__ else -1))
    output.setFormatter(_Json() if form == "json" else _Text())
    output.lines.form, output.lines.is_timed = form, is_timed
    for logger in (root, loop):
        logger.handlers[:] = [output]
        logger.propagate = False
    root.setLevel(level.upper())
    loop.setLevel(logging.WARNING)
    return output.lines


class Limited:
    """A logger of warnings that may come with every request: `most` of each kind in `seconds`.

    The first line of a kind after such a time says how many there were that are not in the log.
    """

    def __init__(
        self,
        logger: logging.Logger,
        most: int = 10,
        seconds: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._logger = logger
        self._most = most
        self._seconds = seconds
        self._clock = clock
        self._kinds: Memory[str, _Kind] = Memory(BOUNDS["kinds of lines"])

    def log(self, level: int, text: str, key: str = "") -> None:
        """Logs the text, unless there were too many with its key (by default, the text itself)."""
        now = self._clock()
        key = (key or text)[:LONGEST_TEXT]
        kind = self._kinds.get(key)
        if kind is None:
            kind = _Kind(now)
            self._kinds.keep(key, kind, size_of(key))
        left_out = 0
        if now - kind.since >= self._seconds:
            left_out = max(0, kind.seen - self._most)
            kind.since, kind.seen = now, 0
        kind.seen += 1
        if kind.seen <= self._most:
            more = f" ({left_out} more like this were not logged)" if left_out else ""
            self._logger.log(level, "%s%s", text, more)


@dataclass(slots=True)
class _Kind:
    """Lines of one kind: since when they are counted, and how many came."""

    since: float
    seen: int = 0
