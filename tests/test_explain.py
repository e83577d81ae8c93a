"""`ldappolicy eval` explains every recipe: golden files that hold the command and what it prints.

To write them again after a change that is meant: GOLDEN=write python -m pytest tests/test_explain.py,
then read the difference. The age of the data is AGE in there.
"""

import json
import os
import re
import shlex
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.labs.forks import completed

GOLDEN = sorted((ROOT / "tests" / "golden").glob("*.txt"))
PROMPT = "$ "


def run(command: str, given: str = "", status: int = 0, complaint: str = "") -> str:
    """What a command prints, run at the top of the checkout; it complains about nothing else."""
    words = shlex.split(command)
    assert words.pop(0) == "ldappolicy"
    done = completed(words, given=given)
    assert (status, complaint) == (done.returncode, done.stderr), command
    return done.stdout


@pytest.fixture(scope="module")
def shown() -> dict[Path, str]:
    """What each golden file should hold."""
    return {path: show(path) for path in GOLDEN}


def show(path: Path) -> str:
    """The command in the first line of a golden file, and what it prints today."""
    first = path.read_text("utf-8").partition("\n")[0]
    printed = run(first.removeprefix(PROMPT))
    return f"{first}\n" + re.sub(r"\b[\d.]+ s old", "AGE s old", printed)


@pytest.mark.parametrize("path", GOLDEN, ids=[path.stem for path in GOLDEN])
def test_golden(shown: dict[Path, str], path: Path) -> None:
    """The explanation of a decision, line for line."""
    if os.environ.get("GOLDEN") == "write":
        path.write_text(shown[path], "utf-8")
    assert path.read_text("utf-8") == shown[path]


@pytest.mark.parametrize("recipe", range(1, 8))
def test_every_recipe(recipe: int) -> None:
    """Every recipe is explained for somebody who is let through and for somebody who is not."""
    found = (path for path in GOLDEN if path.name.startswith(f"{recipe}_"))
    assert len({path.read_text("utf-8").splitlines()[1] for path in found}) > 1


EVAL = "ldappolicy -c deploy/example.toml eval"
JANE = "sender=stranger@elsewhere.example recipient=jane@my.domain"


def test_json() -> None:
    """--json prints one object: the action, the policy and its revision, and the path as a list."""
    (line,) = run(f"{EVAL} --json {JANE}").splitlines()
    found = json.loads(line)
    assert ["action", "shadowed", "policy", "revision", "restriction", "dn", "trace"] == list(found)
    assert run(f"{EVAL} {JANE}") == f"action={found['action']}\n"
    assert "reject_unknown_sender_domain, reject_unknown_client_hostname" == found["action"]
    assert "default" == found["policy"]
    assert re.fullmatch("[0-9a-f]+", found["revision"])
    assert ["sender", "recipient"] == [event["list"] for event in found["trace"] if "list" in event]
    (value,) = [event for event in found["trace"] if event.get("value") == "restrictive"]
    expected = ("directory:access", "jane@my.domain", ["uid=jane,ou=people,dc=example,dc=com"])
    assert expected == (value["table"], value["key"], value["dn"])
    decider = "recipient: check_recipient_access directory:access: restrictive: reject_unknown_sender_domain"
    assert (decider, *value["dn"], []) == (found["restriction"], found["dn"], found["shadowed"])
    ages = [event["age"] for event in found["trace"] if "lookup" in event]
    assert ages
    assert all(0 <= age < 60 for age in ages)


def test_json_stream() -> None:
    """With - each request of a stream gets its object, on a line of its own, in order."""
    recipients = ["all@my.domain", "mia@my.domain", "announce@my.domain"]
    text = "".join(
        "request=smtpd_access_policy\nprotocol_state=RCPT\n"
        f"sender=stranger@elsewhere.example\nrecipient={recipient}\n\n"
        for recipient in recipients
    )
    actions = [json.loads(line)["action"] for line in run(f"{EVAL} --json -", text).splitlines()]
    assert ["reject,", "DUNNO", "HOLD waits for a moderator"] == actions


def test_json_error() -> None:
    """A server configuration error is in the object, with the reason, and in the exit status."""
    complaint = "ldappolicy: server configuration error: there is no policy 'nowhere'\n"
    printed = run(f"{EVAL} --json policy_context=nowhere {JANE}", status=78, complaint=complaint)
    (line,) = printed.splitlines()
    found = json.loads(line)
    assert "451 4.3.5 Server configuration error" == found["action"]
    assert "nowhere" in found["error"]
