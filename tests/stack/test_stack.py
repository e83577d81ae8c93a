"""The whole service from outside, while parts of it are killed; in containers where an engine can be started.

`make test` kills processes, and has the containers decide and show what they are; `make test-all` kills them.
A recipient of the load may be put off (4xx) while a part is gone, and is then tried again; at the end each
has been answered as the example company's directory says, and each message that was taken was delivered once.
"""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.labs.slapd import SUFFIX, wait_until
from tests.stack.composed import Composed
from tests.stack.load import Load, Mail, attempt
from tests.stack.stack import REPLICAS, Stack

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.servers

# One process for all that needs the engine: to make the images takes longer than the tests.
DOCKER = pytest.param("docker", marks=pytest.mark.xdist_group("docker"))
KILLED = pytest.param("docker", marks=[pytest.mark.xdist_group("docker"), pytest.mark.long])

SALES = f"cn=sales,ou=lists,{SUFFIX}"
HANK = f"uid=hank,ou=people,{SUFFIX}"
PROBE = Mail("", "stranger@elsewhere.example", takes=("hank@my.domain",), refuses=("sales@my.domain",))

# What was refused is accepted, and the other way around.
CHANGE = f"""\
dn: {SALES}
changetype: modify
replace: smtpdRecipientAccess
smtpdRecipientAccess: permissive

dn: {HANK}
changetype: modify
add: objectClass
objectClass: smtpdAccessControl
-
add: smtpdRecipientAccess
smtpdRecipientAccess: reject
"""
CHANGE_BACK = f"""\
dn: {SALES}
changetype: modify
replace: smtpdRecipientAccess
smtpdRecipientAccess: members_only

dn: {HANK}
changetype: modify
delete: smtpdRecipientAccess
-
delete: objectClass
objectClass: smtpdAccessControl
"""
BEFORE = {"hank@my.domain": "2", "sales@my.domain": "5"}
AFTER = {"hank@my.domain": "5", "sales@my.domain": "2"}


def probe(stack: Stack) -> dict[str, str]:
    """How the two recipients that a change is about are answered now."""
    replies = attempt(stack, PROBE, list(BEFORE))
    return {recipient: reply[:1] for recipient, reply in replies.items()}


def nothing_is_lost(load: Load) -> None:
    """Every recipient was answered, rightly, and what was taken has been delivered, once."""
    tally = load.tally
    assert [] == tally.wrong
    assert [] == tally.unanswered, tally.deferred
    assert tally.sent == tally.right
    wait_until(lambda: load.delivered().total() >= tally.delivered.total(), 120)
    assert tally.delivered == load.delivered()


@pytest.mark.parametrize("stack", ["native", DOCKER], indirect=True)
def test_mail_is_refused_and_accepted(stack: Stack) -> None:
    """As the directory says; with all parts there, nothing is put off."""
    with Load(stack) as load:
        load.more(100)
    nothing_is_lost(load)
    assert {} == load.tally.deferred


@pytest.mark.parametrize("stack", ["native", KILLED], indirect=True)
def test_a_replica_is_killed_under_load(stack: Stack) -> None:
    """Postfix goes to the other one, whichever it is."""
    with Load(stack) as load:
        load.more(100)
        for gone, left in (REPLICAS, REPLICAS[::-1]):
            stack.kill(gone)
            decided = stack.decided(left)
            load.more(200)
            assert stack.decided(left) - decided > 100
            stack.start(gone)
    nothing_is_lost(load)


@pytest.mark.parametrize("stack", ["native", KILLED], indirect=True)
def test_the_directory_is_replaced_by_its_second_provider(stack: Stack) -> None:
    """What is changed there is in force at either replica; the first one, when it is back, has it too."""
    assert BEFORE == probe(stack)
    with Load(stack) as load:
        load.more(100)
        stack.kill("directory1")
        load.more(100)
        stack.change("directory2", CHANGE)
        for gone in REPLICAS:
            stack.kill(gone)
            wait_until(lambda: probe(stack) == AFTER, 120)
            stack.start(gone)
        stack.start("directory1")
        wait_until(lambda: stack.holds("directory1", HANK, "smtpdRecipientAccess: reject"), 120)
        stack.change("directory1", CHANGE_BACK)
        wait_until(lambda: stack.holds("directory2", SALES, "smtpdRecipientAccess: members_only"), 120)
        wait_until(lambda: probe(stack) == BEFORE, 120)
    nothing_is_lost(load)


@pytest.mark.parametrize("stack", [DOCKER], indirect=True)
def test_the_demonstration_shows_what_it_says(stack: Composed) -> None:
    """The script for an administrator, who has Python and the published port."""
    script = ROOT / "deploy" / "compose" / "demonstrate.py"
    command = [sys.executable, str(script), str(stack.port)]
    shown = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert (0, "") == (shown.returncode, shown.stderr), shown.stdout
