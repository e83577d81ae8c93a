"""How fast it is, beside a C service that does nothing: `make bench`.

Uses the kit in `shared/bench` (policyload, policyecho, mkrequests), which stands beside the checkout or
where LDAPPOLICY_BENCH says. Prints, over the kit's example mix: microseconds of one pure evaluation over
known lookups, requests/s of `serve` beside policyecho's (runs interleaved, medians), and wrong answers.
`python -m tests.bench directory` measures what asking a directory costs instead (`tests.bench.directory`).
"""

import argparse
import asyncio
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ldappolicy import assembly, config
from ldappolicy.evaluate import Lacking
from ldappolicy.ldif import format_record
from ldappolicy.protocol import RequestReader
from ldappolicy.request import Request
from tests.bench import directory

ROOT = Path(__file__).resolve().parents[2]
KIT = Path(os.environ.get("LDAPPOLICY_BENCH", ROOT.parent / "shared" / "bench"))
BASE = "dc=bench,dc=example"


def build(folder: Path) -> None:
    """Compiles the kit."""
    for name in ("policyload", "policyecho"):
        subprocess.run(["cc", "-O2", "-o", folder / name, KIT / f"{name}.c"], check=True)


def make_data(folder: Path, users: int, lists: int, requests: int) -> None:
    """Requests and right answers by the kit, and the same directory as objects of ours."""
    sizes = ["--users", str(users), "--lists", str(lists), "--requests", str(requests)]
    subprocess.run([sys.executable, KIT / "mkrequests.py", folder, *sizes], check=True)
    directory = json.loads((folder / "directory.json").read_text())
    (folder / "tree.ldif").write_text("\n".join(records(directory)))


def record(dn: str, **values: str | list[str]) -> str:
    """One LDIF record; attributes without a value are left out."""
    lists = ((name, [value] if isinstance(value, str) else value) for name, value in values.items())
    return format_record(dn, ((name, value) for name, value in lists if value))


def records(directory: dict[str, Any]) -> Iterator[str]:
    """The kit's directory as LDIF: restricted users, lists for members only, one policy."""
    yield record(BASE, objectClass="domain", dc="bench")
    for unit in ("people", "lists", "policy"):
        yield record(f"ou={unit},{BASE}", objectClass="organizationalUnit", ou=unit)
    yield from policy_records(f"ou=policy,{BASE}", directory["domain"])
    for address, user in directory["users"].items():
        access = "local_only" if user["restricted"] else ""
        dn = f"uid={user['uid']},ou=people,{BASE}"
        yield record(dn, objectClass="inetOrgPerson", uid=user["uid"], mail=address, smtpdSenderAccess=access)
    for address, entry in directory["lists"].items():
        yield record(
            f"cn={entry['cn']},ou=lists,{BASE}",
            objectClass="groupOfNames",
            cn=entry["cn"],
            mail=address,
            member=[f"uid={member.partition('@')[0]},ou=people,{BASE}" for member in entry["members"]],
            smtpdRecipientAccess="members_only",
        )


def policy_records(base: str, domain: str) -> Iterator[str]:
    """The two rules behind the kit's answers, as one policy."""
    yield record(
        f"cn=default,{base}",
        objectClass="smtpdPolicy",
        cn="default",
        smtpdSenderRestrictions="check_sender_access directory:access",
        smtpdRecipientRestrictions="check_recipient_access directory:access",
        smtpdLocalDomains="ldap:local_domains",
    )
    yield record(
        f"cn=local_domains,{base}",
        objectClass="smtpdAccessTable",
        cn="local_domains",
        smtpdAccess=f"{domain} OK",
    )
    for name, body in (
        ("local_only", "check_recipient_access ldap:local_domains, reject"),
        ("members_only", "check_sender_access recipient:members, reject"),
    ):
        yield record(
            f"cn={name},{base}", objectClass="smtpdRestrictionClass", cn=name, smtpdRestrictions=body
        )


def write_config(folder: Path) -> Path:
    """The configuration of the service that is measured."""
    path = folder / "config.toml"
    path.write_text(
        f"""[server]
listen = ["unix:{folder}/policy.sock"]
[directory]
uri = ["ldif:tree.ldif"]
search_base = "{BASE}"
policy_base = "ou=policy,{BASE}"
[log]
decisions = "none"
"""
    )
    return path


def evaluation(folder: Path, path: Path) -> tuple[float, float, int]:
    """Microseconds of one evaluation whose lookups are known, and of reading one request; wrong answers."""
    settings = config.load(path)
    directory = assembly.open_directory(settings)
    service = assembly.build_service(settings, directory)
    raw = (folder / "requests.txt").read_bytes().split(b"\n\n")[:-1]
    expected = (folder / "expect.txt").read_text().split()
    chunks = [request + b"\n\n" for request in raw]
    reader = RequestReader()
    began = time.process_time()
    requests: list[Request] = [reader.feed(chunk)[0] for chunk in chunks]
    reading = time.process_time() - began

    async def warm() -> list[str | None]:
        await service.reload()
        return [(await service.resolve(request)).action for request in requests]

    # A class that ends in reject says the list item `reject,`; the kit compares the word alone.
    answers = [(action or "").rstrip(",").upper() for action in asyncio.run(warm())]
    wrong = sum(action != right for action, right in zip(answers, expected, strict=True))
    evaluator, facts = service.evaluator, service.resolver.facts()
    assert evaluator is not None
    laps = []
    for _ in range(5):
        began = time.process_time()
        for request in requests:
            evaluator.evaluate(request, facts)
        laps.append(time.process_time() - began)
    assert not any(isinstance(evaluator.evaluate(request, facts), Lacking) for request in requests)
    count = len(requests)
    return statistics.median(laps) / count * 1e6, reading / count * 1e6, wrong


@contextmanager
def running(command: list[str | Path], socket: Path) -> Iterator[None]:
    """A service, once its socket is there."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            deadline = time.monotonic() + 60
            while not socket.exists():
                if process.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit(f"{command[0]} did not start")
                time.sleep(0.02)
            yield
        finally:
            process.terminate()
            process.wait(20)


def load(folder: Path, socket: Path, connections: int, *options: str) -> dict[str, float]:
    """One run of the load generator."""
    requests = folder / "requests.txt"
    command: list[str | Path] = [
        folder / "policyload",
        "-j",
        "-u",
        socket,
        "-f",
        requests,
        "-c",
        str(connections),
        *options,
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode not in (0, 3):
        raise SystemExit(f"policyload ended with {done.returncode}: {done.stderr}{done.stdout}")
    result: dict[str, float] = json.loads(done.stdout)
    return result


def serving(folder: Path, path: Path, runs: int, seconds: int) -> None:
    """requests/s of both, interleaved; the first pass over the requests before anything else."""
    ours, echo = folder / "policy.sock", folder / "echo.sock"
    count = (folder / "requests.txt").read_text().count("\n\n")
    command: list[str | Path] = [Path(sys.executable).parent / "ldappolicy", "-c", path, "serve"]
    right = ("-x", str(folder / "expect.txt"))
    with running(command, ours), running([folder / "policyecho", "-u", echo], echo):
        first = load(folder, ours, 100, "-K", str(count), *right)
        print(
            f"first pass, nothing cached: {first['per_s']:,.0f}/s, wrong answers: {first['mismatches']:.0f}"
        )
        for connections in (10, 100):
            rates: dict[Path, list[float]] = {ours: [], echo: []}
            wrong = 0.0
            for _ in range(runs):
                rates[echo].append(load(folder, echo, connections, "-T", str(seconds))["per_s"])
                result = load(folder, ours, connections, "-T", str(seconds), *right)
                rates[ours].append(result["per_s"])
                wrong += result["mismatches"]
            mine, theirs = statistics.median(rates[ours]), statistics.median(rates[echo])
            print(
                f"{connections:4} connections: ldappolicy {mine:>9,.0f}/s, policyecho {theirs:>9,.0f}/s, "
                f"ratio {mine / theirs:.2f}, wrong answers: {wrong:.0f}"
            )


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    for name, default in (
        ("users", 10_000),
        ("lists", 200),
        ("requests", 50_000),
        ("runs", 5),
        ("seconds", 2),
    ):
        parser.add_argument(f"--{name}", type=int, default=default)
    arguments = parser.parse_args()
    if not (KIT / "policyload.c").exists() or shutil.which("cc") is None:
        raise SystemExit("needs the kit shared/bench beside the checkout (or LDAPPOLICY_BENCH), and cc")
    with tempfile.TemporaryDirectory(prefix="ldappolicy-bench-") as name:
        folder = Path(name)
        build(folder)
        make_data(folder, arguments.users, arguments.lists, arguments.requests)
        path = write_config(folder)
        pure, reading, wrong = evaluation(folder, path)
        print(f"pure evaluation: {pure:.1f} us, reading a request: {reading:.1f} us, wrong answers: {wrong}")
        serving(folder, path, arguments.runs, arguments.seconds)


if __name__ == "__main__":
    if sys.argv[1:2] == ["directory"]:
        directory.main(sys.argv[2:])
    else:
        main()
