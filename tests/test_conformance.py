"""What Postfix alone decided, decided through the service: real Postfix, the same replies.

What stands in front of a text (`<a@b>: Sender address rejected: `) is Postfix's, by the list that called
the service; code, enhanced code and text are compared (`ldappolicy.oracle.replies`).
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from zlib import crc32

import pytest
from hypothesis import HealthCheck, given, settings

from ldappolicy.oracle.replies import says
from tests import conformance
from tests.conformance.faulty import FAULTS
from tests.conformance.generate import pairs
from tests.conformance.pairs import Pair
from tests.conformance.report import MOST_UNSAID, Report
from tests.conformance.runner import Ending, Runner
from tests.conformance.search import regressions, search
from tests.conftest import ROOT
from tests.labs.ldappolicy import Ldappolicy, program
from tests.labs.postfix import Postfix, require_postfix

VECTORS = conformance.vectors()
EXCUSED = conformance.excused()
# These make sense list by list only: main.cf chose another order, or a list runs before RCPT.
LIST_BY_LIST = {"G04", "G07"}

# The project that this one began in has a runner of its own beside it; a checkout alone has not.
OTHER_RUNNER = ROOT.parent / "shared" / "conformance" / "through_ldappolicy.py"


@pytest.fixture(scope="module", params=[False, True], ids=["once", "each-list"])
def postfix(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postfix]:
    """One tree, one service, one Postfix an smtpd for each vector that calls once, or from each list."""
    require_postfix()
    ldif = tmp_path_factory.mktemp("conformance") / "tree.ldif"
    ldif.write_text(conformance.tree(VECTORS), "utf-8")
    bases = {"search_base": conformance.BASE, "policy_base": conformance.POLICY_BASE}
    with Ldappolicy({"directory": {"uri": [f"ldif:{ldif}"], **bases}}) as service:
        smtpds = {
            case.id: case.smtpd(service.inet, request.param or case.id in LIST_BY_LIST) for case in VECTORS
        }
        with Postfix(smtpds, conformance.MAIN, conformance.DNS, conformance.SERVFAIL) as running:
            yield running


@pytest.mark.servers
@pytest.mark.parametrize("case", VECTORS, ids=[case.id for case in VECTORS])
def test_vector(postfix: Postfix, case: conformance.Vector) -> None:
    """The reply is the one that Postfix gave with these lists and tables in its main.cf."""
    expected, got = says(case.result.removeprefix("MAIL: ")), reply(postfix, case)
    if case.id in EXCUSED:
        assert expected != says(got), f"no longer to be excused: {EXCUSED[case.id]}"
    else:
        assert expected == says(got), f"{case.title}: {got}"


def reply(postfix: Postfix, case: conformance.Vector) -> str:
    """Postfix's reply to RCPT, or to MAIL where that is refused already."""
    request = case.request
    client = {
        "name": request.get("name", "mail.outside.example"),
        "addr": request.get("addr", "192.0.2.10").removeprefix("IPV6:"),
    }
    if "login" in request:
        client["login"] = request["login"]
    with postfix.session(case.id, **client) as session:
        helo = request.get("helo", "helo.client.example")
        if helo is not None:
            session.ehlo(helo)
        answer = session.mail(request["sender"], "SMTPUTF8" if request.get("smtputf8") else "")
        return session.rcpt(request["rcpt"]) if answer.startswith("250") else answer


def test_excused() -> None:
    """Every excuse belongs to a vector, and there are no more than were agreed upon."""
    assert {"B10", "I13"} == EXCUSED.keys() & {case.id for case in VECTORS} == EXCUSED.keys()


# --- generated pairs ----------------------------------------------------------------------------------

SEED = 20261122
# Seeds with which the search meets each fault among its first hundred pairs; others take up to a thousand.
SOON = {"key-order": 14, "dunno-is-ok": 14, "classes-without-case": SEED}


@pytest.fixture(scope="module")
def runner() -> Iterator[Runner]:
    """One Postfix and one service for all pairs."""
    require_postfix()
    with Runner() as running:
        yield running


@pytest.mark.servers
@pytest.mark.parametrize("pair", regressions(), ids=lambda pair: f"{crc32(str(pair).encode()):08x}")
def test_regression(runner: Runner, pair: Pair) -> None:
    """What once differed does so no more."""
    assert [] == runner.run(pair).differs


@pytest.mark.timeout(3000)  # one that differs is made small
@pytest.mark.parametrize(
    "count", [pytest.param(200, marks=pytest.mark.servers), pytest.param(2000, marks=pytest.mark.long)]
)
def test_generated_pairs(runner: Runner, capsys: pytest.CaptureFixture[str], count: int) -> None:
    """Generated policies decide alike natively and through ldappolicy: `make conformance`, the short form."""
    report = Report()
    found = search(runner, count, SEED, report)
    print(*report.lines(), sep="\n")
    with capsys.disabled():
        print(f"\nseed {SEED}: {report.pairs} pairs, {report.differing} differ")
    assert found is None, f"seed {SEED}: {found.pair}\n{found.differs}"
    assert count == report.pairs
    assert sum(report.unsaid.values()) <= MOST_UNSAID * count
    assert {ending.value for ending in Ending} <= report.endings.keys()


@pytest.mark.servers
@pytest.mark.parametrize("fault", FAULTS)
def test_planted_fault(runner: Runner, fault: str) -> None:
    """A fault in the evaluation is found; the same pair does not differ without it."""
    with runner.served_by(sys.executable, "-m", "tests.conformance.faulty", fault):
        found = search(runner, 1000, SOON[fault], Report(), shrink=False)
        assert found is not None
    assert [] == runner.run(found.pair).differs


@given(pairs())
@settings(max_examples=30, suppress_health_check=list(HealthCheck))
def test_pair_as_json(pair: Pair) -> None:
    """A pair that is written down is the same pair."""
    assert pair == Pair.from_json(json.loads(str(pair)))


@pytest.mark.long
@pytest.mark.skipif(not OTHER_RUNNER.exists(), reason="needs ../shared/conformance beside the checkout")
def test_other_runner(tmp_path: Path) -> None:
    """The runner that came with the vectors finds no difference either."""
    require_postfix()
    command = [sys.executable, str(OTHER_RUNNER)]
    if not shutil.which("ip"):
        pytest.skip("the other runner needs ip(8): apt-get install iproute2")
    environment = {**os.environ, "LDAPPOLICY": program()}
    done = subprocess.run(
        command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=110, check=False
    )
    last = done.stdout.splitlines()[-1:]
    assert (0, ["115 vectors, 0 differ, 2 excused"]) == (done.returncode, last), done.stdout + done.stderr
