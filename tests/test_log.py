"""The log: formats, escaping, warnings that are limited in rate, and the one thread that writes it all."""

import json
import logging
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import pytest

from ldappolicy.log import Limited, Lines, escaped, is_journal, set_up
from tests.labs.slapd import wait_until

DEADLINE = 180.0


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    """The program's logger; it and asyncio's are afterwards as they were."""
    loggers = [logging.getLogger(name) for name in ("ldappolicy", "asyncio")]
    before = [(logger.handlers[:], logger.propagate, logger.level) for logger in loggers]
    yield loggers[0]
    for logger, (outputs, propagate, level) in zip(loggers, before, strict=True):
        logger.handlers[:], logger.propagate = outputs, propagate
        logger.setLevel(level)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("plain o'brien <a@b>", "plain o'brien <a@b>", id="plain"),
        pytest.param("a\nb\rc", "a\\nb\\rc", id="line ends"),
        pytest.param("\x1b[2J", "\\x1b[2J", id="escape sequence"),
        pytest.param("\x85\u2028\u202e", "\\x85\\u2028\\u202e", id="unicode line ends and directions"),
        pytest.param("\u061c\ufeff\U000e0041", "\\u061c\\ufeff\\U000e0041", id="what nobody sees"),
        pytest.param("a\xa0b\u3000c", "a\\xa0b\\u3000c", id="odd spaces"),
        pytest.param("\udcff", "\\udcff", id="bytes that are not UTF-8"),
        pytest.param("back\\slash", "back\\slash", id="backslash"),
        pytest.param("Zoë", "Zoë", id="letters of any script"),
    ],
)
def test_escaped(text: str, expected: str) -> None:
    """No value begins a line of its own or drives a terminal."""
    assert expected == escaped(text)


def test_text(root: logging.Logger, capfd: pytest.CaptureFixture[str]) -> None:
    """One line an event, the level first."""
    lines = set_up("text", "warning", Lines(2))
    root.getChild("x").info("too quiet")
    root.getChild("x").warning("sender %s", "<a\nerror: forged>")
    assert lines.flush(DEADLINE)
    assert capfd.readouterr().err == "warning: sender <a\\nerror: forged>\n"


def test_json(root: logging.Logger, capfd: pytest.CaptureFixture[str]) -> None:
    """One object a line, whatever the values hold."""
    lines = set_up("json", "info", Lines(2))
    root.getChild("x").info("sender %s", "<a\nb\udcff>")
    assert lines.flush(DEADLINE)
    (line,) = capfd.readouterr().err.splitlines()
    event = json.loads(line)
    del event["time"]
    assert event == {"level": "info", "logger": "ldappolicy.x", "text": "sender <a\nb\udcff>"}


def test_traceback(root: logging.Logger, capfd: pytest.CaptureFixture[str]) -> None:
    """A bug comes with its traceback, in both forms; what the bug says cannot begin a line either."""
    for form in ("text", "json"):
        lines = set_up(form, "info", Lines(2))
        try:
            raise RuntimeError("bug\nerror: forged\x1b[2J")
        except RuntimeError:
            root.exception("closed")
        assert lines.flush(DEADLINE)
        written = capfd.readouterr().err
        assert "RuntimeError: bug" in written
        assert "\x1b" not in written
        assert all(line.startswith(("error: closed", "    ", "{")) for line in written.splitlines())


def test_what_does_not_fit_together(root: logging.Logger, capfd: pytest.CaptureFixture[str]) -> None:
    """A text and arguments that do not match cost a complaint, not the program."""
    lines = set_up("text", "info", Lines(2))
    root.warning("%d entries", "many")
    root.warning("next")
    assert lines.flush(DEADLINE)
    assert "warning: next" in capfd.readouterr().err


def test_set_up_again(root: logging.Logger, capfd: pytest.CaptureFixture[str]) -> None:
    """SIGHUP changes form and level, the thread is the same; asyncio's own complaints go there too."""
    lines = set_up("text", "error", Lines(2))
    assert set_up("json", "info", Lines(1)) is lines
    root.info("now")
    logging.getLogger("asyncio").error("Task exception was never retrieved")
    assert lines.flush(DEADLINE)
    texts = [json.loads(line)["text"] for line in capfd.readouterr().err.splitlines()]
    assert texts == ["now", "Task exception was never retrieved"]


# --- warnings that are limited in rate -------------------------------------------------------------


def limited_lines(times: list[float], keys: list[str] | None = None) -> list[str]:
    """What is logged when warnings come at these times."""
    logged: list[str] = []

    class Sink(logging.Logger):
        def log(self, level: int, msg: object, *args: object, **kwargs: object) -> None:
            logged.append(str(msg) % args)

    clock = iter(times)
    limited = Limited(Sink("sink"), most=2, seconds=10.0, clock=lambda: next(clock))
    for number in range(len(times)):
        limited.log(logging.WARNING, f"w{number}", key=keys[number] if keys else "w")
    return logged


def test_limited() -> None:
    """So many lines in so much time; the first one of the next time tells how many there were."""
    assert limited_lines([0.0, 1.0, 2.0, 9.9, 10.0, 10.1, 10.2, 30.0, 50.0]) == [
        "w0",
        "w1",
        "w4 (2 more like this were not logged)",
        "w5",
        "w7 (1 more like this were not logged)",
        "w8",
    ]


def test_limited_by_kind() -> None:
    """One kind does not use up what another may say."""
    assert limited_lines([0.0] * 5, ["a", "a", "a", "b", "a"]) == ["w0", "w1", "w3"]


def test_kinds_are_bounded() -> None:
    """Texts from outside do not fill the memory."""
    limited = Limited(logging.getLogger("ldappolicy.none"))
    for number in range(5000):
        limited.log(logging.DEBUG, f"text {number}")
    assert len(limited._kinds) <= 1000  # noqa: SLF001


# --- the thread that writes ------------------------------------------------------------------------


@contextmanager
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe that is closed at the end, whatever the test closed of it."""
    ends = os.pipe()
    try:
        yield ends
    finally:
        for end in ends:
            try:
                os.close(end)
            except OSError:
                continue  # the test did


def read_until(descriptor: int, end: str) -> list[str]:
    """What comes until a line begins so; that one is the last."""
    with os.fdopen(os.dup(descriptor), encoding="utf-8") as file:
        read = []
        for line in file:
            read.append(line.rstrip("\n"))
            if line.startswith(end):
                break
    return read


def redirect(descriptor: int, path: Path) -> None:
    """The descriptor is a file from now on."""
    with path.open("wb") as file:
        os.dup2(file.fileno(), descriptor)


def test_order() -> None:
    """Lines come as they were handed over, many in one write."""
    with pipe() as (reading, writing):
        lines = Lines(writing)
        texts = [f"line {number} Zoë \udcff".replace("\udcff", "") for number in range(5000)]
        got: list[str] = []
        reader = Thread(target=lambda: got.extend(read_until(reading, "line 4999")))
        reader.start()
        for text in texts:
            lines.put(text)
        assert lines.flush(DEADLINE)
        reader.join(DEADLINE)
        assert got == texts
        assert lines.dropped == 0


@pytest.mark.parametrize("form", ["text", "json"])
def test_nobody_reads(form: str) -> None:
    """A pipe that is full stops nobody: lines are dropped, and the next ones say how many."""
    with pipe() as (reading, writing):
        lines = Lines(writing, most=100_000)
        lines.form = form
        count = 4000
        for number in range(count):
            lines.put(f"line {number:04} {'x' * 90}")
        assert not lines.flush(0.05)
        assert lines.dropped > 0
        got: list[str] = []
        reader = Thread(target=lambda: got.extend(read_until(reading, "last")))
        reader.start()
        assert lines.flush(DEADLINE)
        lines.put("last")
        reader.join(DEADLINE)
        notices = [line for line in got if "dropped" in line]
        told = [json.loads(line)["text"] if form == "json" else line for line in notices]
        expected = (
            r"(warning: )?(\d+) lines of the log were dropped: they came faster than they could be written"
        )
        counts = [match and int(match[2]) for match in (re.fullmatch(expected, line) for line in told)]
        assert lines.dropped == sum(number or 0 for number in counts)
        assert count == lines.dropped + sum(line.startswith("line") for line in got)
        assert all(len(line) == 100 for line in got if line.startswith("line"))


def test_closed_pipe(tmp_path: Path) -> None:
    """A reader that is gone costs the lines that it did not read, which are counted."""
    with pipe() as (reading, writing):
        lines = Lines(writing)
        os.close(reading)
        lines.put("one")
        lines.put("two")
        assert lines.flush(DEADLINE)
        assert lines.dropped == 2
        redirect(writing, tmp_path / "log")
        lines.put("three")
        assert lines.flush(DEADLINE)
        expected = "warning: 2 lines of the log were dropped: broken pipe\nthree\n"
        assert expected == (tmp_path / "log").read_text("utf-8")


def test_full_disk(tmp_path: Path) -> None:
    """No space left: the same."""
    if not Path("/dev/full").is_char_device():
        pytest.skip("needs /dev/full (Linux)")
    descriptor = os.open("/dev/full", os.O_WRONLY)
    try:
        lines = Lines(descriptor)
        for _ in range(3):
            lines.put("lost")
            assert lines.flush(DEADLINE)
        redirect(descriptor, tmp_path / "log")
        lines.put("kept")
        assert lines.flush(DEADLINE)
        expected = "warning: 3 lines of the log were dropped: no space left on device\nkept\n"
        assert expected == (tmp_path / "log").read_text("utf-8")
    finally:
        os.close(descriptor)


CUT = """
import os, resource, sys
from ldappolicy.log import Lines

descriptor = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
lines = Lines(descriptor)
most, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))
lines.put("first")
lines.put("second")
lines.put("third")
lines.flush(60)
resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))
lines.put("fourth")
lines.flush(60)
"""


def test_cut_in_the_middle(tmp_path: Path) -> None:
    """What follows a line that was written in part begins a line of its own."""
    subprocess.run([sys.executable, "-c", CUT, str(tmp_path / "log")], check=True, timeout=DEADLINE)
    expected = ["first", "seco", "warning: 2 lines of the log were dropped: file too large", "fourth"]
    assert expected == (tmp_path / "log").read_text("utf-8").splitlines()


def test_somebody_made_it_non_blocking() -> None:
    """A descriptor that says EAGAIN is waited for."""
    with pipe() as (reading, writing):
        os.set_blocking(writing, False)
        lines = Lines(writing)
        for number in range(3000):
            lines.put(f"line {number:04} {'x' * 90}")
        got: list[str] = []
        reader = Thread(target=lambda: got.extend(read_until(reading, "line 2999")))
        reader.start()
        assert lines.flush(DEADLINE)
        reader.join(DEADLINE)
        assert (len(got), lines.dropped) == (3000, 0)


def test_pieces_are_whole_lines() -> None:
    """No write is longer than what is never mixed with another's, but for a line that is."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        lines = Lines(ours.fileno(), whole=4096)
        texts = [str(number) * 40 for number in range(500)]
        texts[250] = "x" * 10_000
        for text in texts:
            lines.put(text)
        pieces: list[bytes] = []
        while sum(piece.count(b"\n") for piece in pieces) < len(texts):
            pieces.append(theirs.recv(65536))
        assert b"".join(pieces).decode().splitlines() == texts
        assert all(piece.endswith(b"\n") for piece in pieces)
        assert [len(piece) for piece in pieces if len(piece) > 4096] == [10_001]


AT_EXIT = """
import logging, sys
from ldappolicy.log import set_up

set_up("text", "info")
for number in range(1000):
    logging.getLogger("ldappolicy").info("line %d", number)
sys.exit(78)
"""


def test_at_exit() -> None:
    """What was logged before the end of the program is written, however it ends on purpose."""
    done = subprocess.run([sys.executable, "-c", AT_EXIT], capture_output=True, text=True, timeout=DEADLINE)
    assert done.stderr.splitlines() == [f"info: line {number}" for number in range(1000)]
    assert done.returncode == 78


def test_waits_for_nothing_when_idle() -> None:
    """A first line after a pause is written at once, by the thread that is there already."""
    with pipe() as (reading, writing):
        lines = Lines(writing)
        for text in ("a", "b"):
            lines.put(text)
            assert [text] == read_until(reading, text)
            wait_until(lambda: lines.flush(0), DEADLINE)


def test_time() -> None:
    """Where it is wanted, each line of text begins with the time; JSON has it in the object."""
    reader, writer = os.pipe()
    with os.fdopen(reader, encoding="utf-8") as read, os.fdopen(writer, "wb"):
        lines = Lines(writer)
        lines.is_timed = True
        lines.put("warning: x")
        assert lines.flush()
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z warning: x\n", read.readline())
        lines.form = "json"
        lines.put("{}")
        assert lines.flush()
        assert "{}\n" == read.readline()


def test_journal(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the journal reads is told by device and inode: what was redirected since is not it."""
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb"), os.fdopen(writer, "wb"):
        status = os.fstat(writer)
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
        assert is_journal(writer)
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino + 1}")
        assert not is_journal(writer)
        monkeypatch.delenv("JOURNAL_STREAM")
        assert not is_journal(writer)
    assert not is_journal(-1)
