"""What is written to the log, and how: one line an event, as text or as JSON, safe to read.

Whatever came from outside is escaped, so that no value can begin a line of its own or drive a terminal.
Warnings that repeat are limited in rate; what was left out is counted in the next one.
"""

import json
import logging
import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def escaped(text: str) -> str:
    """The text with control characters and invalid bytes as escapes."""
    return _UNPRINTABLE.sub(lambda match: match[0].encode("unicode_escape", "surrogatepass").decode(), text)


class _Text(logging.Formatter):
    """`LEVEL NAME: text`; the time is the journal's."""

    def format(self, record: logging.LogRecord) -> str:
        line = f"{record.levelname.lower()}: {escaped(record.getMessage())}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class _Json(logging.Formatter):
    """One object a line."""

    def format(self, record: logging.LogRecord) -> str:
        event: dict[str, object] = {
            "time": round(record.created, 3),
            "level": record.levelname.lower(),
            "logger": record.name,
            "text": record.getMessage(),
        }
        if record.exc_info:
            event["traceback"] = self.formatException(record.exc_info)
        return json.dumps(event, ensure_ascii=True)


def set_up(form: str, level: str) -> None:
    """Sends the program's log to standard error, as `form` (text or json)."""
    output = logging.StreamHandler(sys.stderr)
    output.setFormatter(_Json() if form == "json" else _Text())
    root = logging.getLogger("ldappolicy")
    root.handlers[:] = [output]
    root.propagate = False
    root.setLevel(level.upper())


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
        self._kinds: dict[str, _Kind] = {}

    def log(self, level: int, text: str, key: str = "") -> None:
        """Logs the text, unless there were too many with its key (by default, the text itself)."""
        now = self._clock()
        kind = self._kinds.get(key or text)
        if kind is None:
            if len(self._kinds) >= MOST_KINDS:
                self._kinds.clear()
            kind = self._kinds[key or text] = _Kind(now)
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


MOST_KINDS = 1000
"""Kinds that are told apart; texts may come from outside."""
