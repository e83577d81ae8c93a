"""What one request takes, counted: a process that `instructions` starts, since a trace slows everything down.

    python -m tests.bench.counting              the bytecodes and calls of each stage, as JSON
    python -m tests.bench.counting STAGE LAPS   the stage that often, uncounted, for a counter outside

The stages: reading a request; a decision over known lookups; and whole requests on the socket of a running
service, rejects logged: the first ones, whose lookups nobody knows, new ones between the same people, all of
them again. Only bytecodes of the package count, and only its calls (of Python functions, and of others, such
as a regular expression's): no clock, so the numbers are the same on any machine with that version of Python.
"""

import asyncio
import gc
import itertools
import json
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import uvloop

import ldappolicy
from ldappolicy import daemon
from ldappolicy.evaluate import Lacking
from ldappolicy.protocol import RequestReader
from ldappolicy.request import Request
from ldappolicy.service import Service
from tests.bench.company import ELSEWHERE, Company
from tests.labs.deciding import configuration
from tests.labs.ldappolicy import Sections

PACKAGE = str(Path(ldappolicy.__file__).parent)
COMPANY = Company(60, 2, 30)
FIRST, REPEATED = ("first", "new"), ("read", "evaluate", "warm")
STAGES = (*REPEATED, *FIRST)
PEOPLE = 6
"""How many senders, and how many recipients."""


@dataclass(slots=True)
class Count:
    """Of one request, on average."""

    bytecodes: float = 0
    calls: float = 0
    other_calls: float = 0

    def of_each(self, requests: int) -> "Count":
        """The same of one of so many."""
        return Count(*(round(number / requests, 1) for number in asdict(self).values()))


@contextmanager
def counting() -> Iterator[Count]:
    """Counts what the package does in this thread."""
    count, ours = Count(), dict[CodeType, bool]()

    def is_ours(code: CodeType) -> bool:
        if code not in ours:
            ours[code] = code.co_filename.startswith(PACKAGE)
        return ours[code]

    def trace(frame: FrameType, event: str, argument: Any) -> Callable[..., Any] | None:
        if not is_ours(frame.f_code):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        return step

    def step(frame: FrameType, event: str, argument: Any) -> Callable[..., Any]:
        count.bytecodes += event == "opcode"
        return step

    def profile(frame: FrameType, event: str, argument: Any) -> None:
        if event in ("call", "c_call") and is_ours(frame.f_code):
            if event == "call":
                count.calls += 1
            else:
                count.other_calls += 1

    # The collector runs when it likes, and with it what is to be done when an object goes.
    gc.disable()
    sys.setprofile(profile)
    sys.settrace(trace)
    try:
        yield count
    finally:
        sys.settrace(None)
        sys.setprofile(None)
        gc.enable()


# ------------------------------------------------------------ requests


def texts() -> list[bytes]:
    """Requests as Postfix 3.7 sends them: each of some senders to each of some recipients.

    The first ones are a sender and a recipient that occur in none before.
    """
    people = (COMPANY.address(f"user{number}") for number in (0, 1, 11, 20, COMPANY.outsider))
    senders = [*people, ELSEWHERE]
    recipients = [COMPANY.address(name) for name in ("user5", "list0", "list1", "all", "nested1")]
    pairs = list(itertools.product(senders, [*recipients, f"friend-{ELSEWHERE}"]))
    first = pairs[:: PEOPLE + 1]
    return [request(*pair) for pair in (*first, *(pair for pair in pairs if pair not in first))]


def request(sender: str, recipient: str) -> bytes:
    """One, with a login where the sender has one."""
    is_known = sender != ELSEWHERE
    given = {
        "protocol_state": "RCPT",
        "protocol_name": "ESMTP",
        "client_address": "10.20.11.27" if is_known else "192.0.2.27",
        "client_name": "pc27.corp.example" if is_known else "mx27.elsewhere.example",
        "client_port": "40362",
        "reverse_client_name": "pc27.corp.example" if is_known else "mx27.elsewhere.example",
        "server_address": "10.20.0.5",
        "server_port": "587" if is_known else "25",
        "helo_name": "pc27.corp.example" if is_known else "mx27.elsewhere.example",
        "sender": sender,
        "recipient": recipient,
        "recipient_count": "0",
        "instance": "3a91.69210000.5f3c.0",
        "size": "18342",
        "sasl_method": "PLAIN" if is_known else "",
        "sasl_username": sender if is_known else "",
        "encryption_protocol": "TLSv1.3",
        "encryption_cipher": "TLS_AES_256_GCM_SHA384",
        "encryption_keysize": "256",
    }
    sent = Request._fields[: Request._fields.index("tls_sni")]  # 3.12's
    lines = (f"{name}={given.get(name, '')}\n" for name in (*sent, "policy_context"))
    return f"request=smtpd_access_policy\n{''.join(lines)}\n".encode()


# ------------------------------------------------------------ stages


@dataclass(frozen=True, slots=True)
class Bench:
    """A service on a socket, one connection to it, and how to run each stage once."""

    service: Service
    ask: Callable[[bytes], Awaitable[bytes]]
    requests: list[bytes]
    parsed: list[Request]

    def part(self, stage: str) -> list[bytes]:
        """The requests of a stage."""
        return {"first": self.requests[:PEOPLE], "new": self.requests[PEOPLE:]}.get(stage, self.requests)

    async def run(self, stage: str) -> None:
        """All requests of a stage, once."""
        if stage == "read":
            self._read()
        elif stage == "evaluate":
            self._evaluate()
        else:
            for text in self.part(stage):
                await self.ask(text)

    def _read(self) -> None:
        reader = RequestReader()
        for text in self.requests:
            reader.feed(text)

    def _evaluate(self) -> None:
        evaluator, facts = self.service.evaluator, self.service.resolver.facts()
        assert evaluator is not None
        for request in self.parsed:
            decision = evaluator.evaluate(request, facts)
            assert not isinstance(decision, Lacking)


def _is_looking_over(task: asyncio.Task[Any]) -> bool:
    """Whether it is what a start looks at besides, which is no request's."""
    return getattr(task.get_coro(), "__name__", "") == daemon.look_over.__name__


@asynccontextmanager
async def bench() -> AsyncIterator[Bench]:
    """Over an LDIF file, everything of a request's way as `serve` has it."""
    with tempfile.TemporaryDirectory(prefix="ldappolicy-bench-") as folder:
        tree, socket = Path(folder) / "tree.ldif", Path(folder) / "socket"
        tree.write_text("".join(COMPANY.ldif()))
        more: Sections = {"server": {"listen": [f"unix:{socket}"]}, "log": {"decisions": "rejects"}}
        served = daemon.Daemon(configuration(f"ldif:{tree}", more))
        started = asyncio.Event()
        serving = asyncio.create_task(served.run(lambda _: started.set()))
        waiting = asyncio.create_task(started.wait())
        await asyncio.wait((serving, waiting), return_when=asyncio.FIRST_COMPLETED)
        if serving.done():
            serving.result()
        await asyncio.gather(*filter(_is_looking_over, asyncio.all_tasks()))
        reader, writer = await asyncio.open_unix_connection(socket)

        async def ask(text: bytes) -> bytes:
            writer.write(text)
            return await reader.readuntil(b"\n\n")

        requests = texts()
        yield Bench(served.service, ask, requests, [RequestReader().feed(text)[0] for text in requests])
        writer.close()
        served.stop()
        await serving


async def once(made: Bench, stage: str) -> Count:
    """What one request of a stage takes."""
    with counting() as count:
        await made.run(stage)
    return count.of_each(len(made.part(stage)))


async def counts() -> dict[str, dict[str, float]]:
    """Of each stage: the first time first, then what is warm."""
    found: dict[str, Count] = {}
    async with bench() as made:
        for stage in FIRST:
            found[stage] = await once(made, stage)
        for stage in REPEATED:
            # The least: something else may have been due meanwhile.
            found[stage] = min([await once(made, stage) for _ in range(4)], key=lambda count: count.bytecodes)
    return {stage: asdict(found[stage]) for stage in STAGES}


async def repeat(stage: str, laps: int) -> None:
    """A stage that is warm, so many times."""
    async with bench() as made:
        for one in (*FIRST, *[stage] * laps):
            await made.run(one)


def main(arguments: list[str]) -> None:
    """In the event loop that `serve` has."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        if arguments:
            runner.run(repeat(arguments[0], int(arguments[1])))
        else:
            print(json.dumps(runner.run(counts())))


if __name__ == "__main__":
    main(sys.argv[1:])
