"""`python -m tests.fuzz`: mutate the kept inputs of each target for a while, and print what was found.

What is found is written to `build/fuzz/TARGET/`, small; a bug that was fixed gets its file in
`tests/fuzz/corpus/TARGET/`. The same seed and corpus make the same inputs, as many as there is time for.
"""

import argparse
import hashlib
import logging
import sys
from pathlib import Path

from tests.fuzz.mutation import Finding, fuzz, growth_fault, within
from tests.fuzz.targets import TARGETS, seeds, words

FOUND = Path(__file__).parents[2] / "build" / "fuzz"


def main() -> int:
    """Every target, or the one that is asked for; 1 with findings."""
    asked = _arguments()
    logging.getLogger("ldappolicy").setLevel(logging.CRITICAL)  # what the package says of the inputs
    print(f"{'target':10} {'executions':>10} {'a second':>9} {'outcomes':>9} findings")
    count = sum(_one(name, asked.seconds, asked.seed) for name in asked.target or TARGETS)
    print(f"{count} findings, seed {asked.seed}")
    return 1 if count else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="for each target (60)")
    parser.add_argument("--target", action="append", choices=sorted(TARGETS), help="one of them (all)")
    parser.add_argument("--seed", type=int, default=1, help="(1)")
    return parser.parse_args()


def _one(name: str, seconds: float, seed: int) -> int:
    target = TARGETS[name]
    run = fuzz(target, list(seeds(name).values()), words(name), seed, within(seconds))
    grown = {growth: fault for growth in target.growths if (fault := growth_fault(target, growth))}
    count = len(run.findings) + len(grown)
    rate = run.executions / seconds
    print(f"{name:10} {run.executions:10} {rate:9.0f} {run.outcomes:9} {count or 'none'}", flush=True)
    for (head, unit, tail), fault in grown.items():
        print(f"  {fault}: {head!r}, then many {unit!r}, then {tail!r}")
    for finding in run.findings:
        _keep(finding)
    return count


def _keep(finding: Finding) -> None:
    folder = FOUND / finding.target
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / hashlib.sha256(finding.data).hexdigest()[:12]
    path.write_bytes(finding.data)
    print(f"  {finding.fault}: {finding.data[:200]!r}\n  kept in {path}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
