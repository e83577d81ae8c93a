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

_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\\]")


def escaped(text: str) -> str:
    """The text with control characters, invalid bytes and backslashes as escapes."""
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
    """A logger of warnings that may come with every request: one of each kind in `interval` seconds."""

    def __init__(
        self, logger: logging.Logger, interval: float = 10.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._logger = logger
        self._interval = interval
        self._clock = clock
        self._last: dict[str, float] = {}
        self._left_out = 0

    def log(self, level: int, text: str, key: str = "") -> None:
        """Logs the text, unless one with the same key (by default, the same text) was a moment ago."""
        now = self._clock()
        key = key or text
        if now - self._last.get(key, float("-inf")) < self._interval:
            self._left_out += 1
            return
        if len(self._last) >= 1000:
            self._last.clear()
        self._last[key] = now
        also = f" ({self._left_out} similar lines left out)" if self._left_out else ""
        self._left_out = 0
        self._logger.log(level, "%s%s", text, also)
