"""What the benchmarks are made from: the kit's programs, its requests, and its directory in our terms.

The kit (policyload, policyecho, rcptload, mkrequests) stands beside the checkout in `shared/bench`, or where
LDAPPOLICY_BENCH says. Its rules: a restricted user may write to the local domain only; a list takes mail from
its members only. The same directory always follows from the same sizes.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ldappolicy.ldif import format_record
from tests.labs.slapd import SUFFIX

ROOT = Path(__file__).resolve().parents[2]
KIT = Path(os.environ.get("LDAPPOLICY_BENCH", ROOT.parent / "shared" / "bench"))
PROGRAMS = ("policyload", "policyecho", "rcptload")


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much of everything."""

    users: int = 10_000
    lists: int = 200
    requests: int = 50_000
    rounds: int = 5
    seconds: float = 2.0
    rate: int = 10_000
    """Requests a second of the open loop."""
    idle: int = 4_950
    """Open connections beside 50 busy ones."""
    cached: int = 100_000
    """Entries that the caches are filled with."""
    subset: int = 2_000
    """Requests that a service with 100 answers a second can be asked in one go."""


FULL = Sizes()
QUICK = Sizes(rounds=3, seconds=1.0, cached=20_000, subset=500)
TINY = Sizes(users=60, lists=4, requests=400, rounds=1, seconds=0.03, rate=500, idle=20, cached=40, subset=40)


def lacking() -> str:
    """What it takes to run a benchmark here; empty: nothing is missing."""
    if not (KIT / "policyload.c").exists():
        return "the benchmark kit is not beside the checkout: put it there, or set LDAPPOLICY_BENCH"
    return "" if shutil.which("cc") else "no C compiler: apt-get install gcc libc6-dev"


class Kit:
    """Programs and data in one folder, which other users (Postfix's) may read."""

    def __init__(self, folder: Path, sizes: Sizes) -> None:
        self.folder = folder
        self.sizes = sizes
        self.requests = folder / "requests.txt"
        self.expect = folder / "expect.txt"
        self.tree = folder / "tree.ldif"

    def make(self) -> None:
        """Compiles the programs, writes the data."""
        self.folder.chmod(0o755)
        for name in PROGRAMS:
            subprocess.run(["cc", "-O2", "-o", self.program(name), KIT / f"{name}.c"], check=True)
        sizes = self.sizes
        counts = {"--users": sizes.users, "--lists": sizes.lists, "--requests": sizes.requests}
        options = [text for name, count in counts.items() for text in (name, str(count))]
        script = [sys.executable, str(KIT / "mkrequests.py"), str(self.folder), *options]
        subprocess.run(script, check=True, stdout=subprocess.DEVNULL)
        self.tree.write_text("\n".join(records(self.directory)))

    def program(self, name: str) -> Path:
        """One that was compiled."""
        return self.folder / name

    @cached_property
    def directory(self) -> dict[str, Any]:
        """The kit's own picture of it: domain, users, lists."""
        found: dict[str, Any] = json.loads((self.folder / "directory.json").read_text())
        return found

    @cached_property
    def texts(self) -> list[str]:
        """Every request, with its empty line."""
        return [f"{text}\n\n" for text in self.requests.read_text().split("\n\n")[:-1]]

    @cached_property
    def answers(self) -> list[str]:
        """What is right, request by request: DUNNO or REJECT."""
        return self.expect.read_text().split()

    @cached_property
    def pairs(self) -> list[tuple[str, str]]:
        """Sender and recipient of each request."""
        return [(_value(text, "sender"), _value(text, "recipient")) for text in self.texts]

    def part(self, name: str, numbers: Iterator[int] | range) -> "Part":
        """Some of the requests, as files of their own."""
        chosen = list(numbers)
        part = Part(self.folder / f"{name}.requests", self.folder / f"{name}.expect", len(chosen))
        part.requests.write_text("".join(self.texts[number] for number in chosen))
        part.expect.write_text("".join(f"{self.answers[number]}\n" for number in chosen))
        return part

    @cached_property
    def whole(self) -> "Part":
        """All of the requests."""
        return Part(self.requests, self.expect, self.sizes.requests)

    def internal(self) -> "Part":
        """Ordinary mail between users: whoever of them is paired with whom, nothing is refused."""
        users = self.directory["users"]
        pairs = enumerate(self.pairs)
        return self.part("internal", (n for n, pair in pairs if pair[0] in users and pair[1] in users))


@dataclass(frozen=True, slots=True)
class Part:
    """Requests and what is right for each."""

    requests: Path
    expect: Path
    count: int


def _value(request: str, name: str) -> str:
    return request.partition(f"\n{name}=")[2].partition("\n")[0]


# ------------------------------------------------------------ the directory, as entries of ours


def record(dn: str, **values: str | list[str]) -> str:
    """One LDIF record."""
    lists = ((name, [value] if isinstance(value, str) else value) for name, value in values.items())
    return format_record(dn, lists)


def records(directory: dict[str, Any]) -> Iterator[str]:
    """Restricted users, lists for members only, one policy."""
    yield record(SUFFIX, objectClass=["organization", "dcObject"], o="bench", dc=SUFFIX.split(",")[0][3:])
    for unit in ("people", "lists", "policy"):
        yield record(f"ou={unit},{SUFFIX}", objectClass="organizationalUnit", ou=unit)
    yield from policy_records(f"ou=policy,{SUFFIX}", directory["domain"])
    for address, user in directory["users"].items():
        yield user_record(address, user)
    for address, entry in directory["lists"].items():
        yield record(
            f"cn={entry['cn']},ou=lists,{SUFFIX}",
            objectClass=["groupOfNames", "smtpdAccessControl"],
            cn=entry["cn"],
            mail=address,
            member=[f"uid={member.partition('@')[0]},ou=people,{SUFFIX}" for member in entry["members"]],
            smtpdRecipientAccess="members_only",
        )


def user_record(address: str, user: dict[str, Any]) -> str:
    """A user, restricted or not."""
    access = {"smtpdSenderAccess": "local_only"} if user["restricted"] else {}
    uid = user["uid"]
    classes = ["inetOrgPerson", "smtpdAccessControl"]
    names = {"uid": uid, "cn": uid, "sn": uid, "mail": address}
    return record(f"uid={uid},ou=people,{SUFFIX}", objectClass=classes, **names, **access)


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
