"""The log: formats, escaping, and warnings that are limited in rate."""

import json
import logging
from collections.abc import Iterator

import pytest

from ldappolicy.log import Limited, escaped, set_up


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    """The program's logger, as it was afterwards."""
    logger = logging.getLogger("ldappolicy")
    before = logger.handlers[:], logger.propagate, logger.level
    yield logger
    logger.handlers[:], logger.propagate = before[0], before[1]
    logger.setLevel(before[2])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("plain o'brien <a@b>", "plain o'brien <a@b>", id="plain"),
        pytest.param("a\nb\rc", "a\\nb\\rc", id="line ends"),
        pytest.param("\x1b[2J", "\\x1b[2J", id="escape sequence"),
        pytest.param("\x85\u2028\u202e", "\\x85\\u2028\\u202e", id="unicode line ends and directions"),
        pytest.param("\udcff", "\\udcff", id="bytes that are not UTF-8"),
        pytest.param("back\\slash", "back\\slash", id="backslash"),
        pytest.param("Zoë", "Zoë", id="letters of any script"),
    ],
)
def test_escaped(text: str, expected: str) -> None:
    """No value begins a line of its own or drives a terminal."""
    assert expected == escaped(text)


def test_text(root: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    """One line an event, the level first."""
    set_up("text", "warning")
    root.getChild("x").info("too quiet")
    root.getChild("x").warning("sender %s", "<a\nerror: forged>")
    assert capsys.readouterr().err == "warning: sender <a\\nerror: forged>\n"


def test_json(root: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    """One object a line, whatever the values hold."""
    set_up("json", "info")
    root.getChild("x").info("sender %s", "<a\nb\udcff>")
    (line,) = capsys.readouterr().err.splitlines()
    event = json.loads(line)
    del event["time"]
    assert event == {"level": "info", "logger": "ldappolicy.x", "text": "sender <a\nb\udcff>"}


def test_traceback(root: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    """A bug comes with its traceback, in both forms."""
    for form in ("text", "json"):
        set_up(form, "info")
        try:
            raise RuntimeError("bug")
        except RuntimeError:
            root.exception("closed")
        assert "RuntimeError: bug" in capsys.readouterr().err


def lines(times: list[float], keys: list[str] | None = None) -> list[str]:
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
    assert lines([0.0, 1.0, 2.0, 9.9, 10.0, 10.1, 10.2, 30.0, 50.0]) == [
        "w0",
        "w1",
        "w4 (2 more like this were not logged)",
        "w5",
        "w7 (1 more like this were not logged)",
        "w8",
    ]


def test_limited_by_kind() -> None:
    """One kind does not use up what another may say."""
    assert lines([0.0] * 5, ["a", "a", "a", "b", "a"]) == ["w0", "w1", "w3"]


def test_kinds_are_bounded() -> None:
    """Texts from outside do not fill the memory."""
    limited = Limited(logging.getLogger("ldappolicy.none"))
    for number in range(5000):
        limited.log(logging.DEBUG, f"text {number}")
    assert len(limited._kinds) <= 1000  # noqa: SLF001
