"""The evaluator, as Postfix meets it: the real service over imported entries, on a port of loopback.

    with Ours(records, "ou=policy,dc=example,dc=com", "default") as ours:
        ... ours.address, ours.left()

It runs on an event loop in a thread of its own.
"""

import asyncio
import tempfile
import threading
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ldappolicy import assembly
from ldappolicy.config import Config, Directory, Inet, Log, Policy
from ldappolicy.errors import ConfigError, InputError
from ldappolicy.evaluate import Decision
from ldappolicy.ldif import format_record
from ldappolicy.request import Request
from ldappolicy.server import PolicyServer
from ldappolicy.service import Service

Records = Iterable[tuple[str, Mapping[str, tuple[str, ...]]]]


class Ours:
    """The service; a context manager. Raises InputError for entries that cannot be served."""

    def __init__(self, records: Records, policy_base: str, policy: str) -> None:
        self._requests: list[Request] = []
        self.address = ""
        self._records = list(records)
        self._base = policy_base
        self._policy = policy
        self._loop = asyncio.new_event_loop()
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ldappolicy-")))
            stack.callback(self._loop.close)
            base = self._base, {"objectClass": ("organizationalUnit",)}
            tree = [format_record(dn, has.items()) for dn, has in (base, *self._records)]
            (folder / "tree.ldif").write_text("\n".join(tree), "utf-8")
            self._server = self._loop.run_until_complete(self._start(folder / "tree.ldif"))
            thread = threading.Thread(target=self._loop.run_forever, daemon=True)
            thread.start()
            stack.callback(self._stop, thread)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def forget(self) -> None:
        """What was requested up to now counts no more."""
        self._requests.clear()

    def left(self) -> frozenset[str]:
        """The restrictions that were left to Postfix since, in lower case.

        By the explanations: what the reply gave up for them does not show in it.
        """
        events = [event for _, trace in self._explained() for event in trace]
        names = (event["restriction"] for event in events if event.get("result") == "left to Postfix")
        return frozenset(word.casefold() for name in names for word in str(name).split())

    def errors(self) -> str:
        """Why any of it since was a server configuration error."""
        return "; ".join(dict.fromkeys(found.error for found, _ in self._explained() if found.error))

    def _explained(self) -> list[tuple[Decision, list[dict[str, Any]]]]:
        return asyncio.run_coroutine_threadsafe(self._explain(), self._loop).result()

    async def _explain(self) -> list[tuple[Decision, list[dict[str, Any]]]]:
        found = []
        for request in self._requests:
            trace: list[dict[str, Any]] = []
            found.append((await self._service.resolve(request, trace), trace))
        return found

    async def _start(self, path: Path) -> PolicyServer:
        bases = {"search_base": self._base, "policy_base": self._base}
        config = Config(
            directory=Directory(uri=(f"ldif:{path}",), watch="off", **bases),  # type: ignore[arg-type]
            policy=Policy(name=self._policy),
            log=Log(decisions="none"),
        )
        try:
            self._service = assembly.build_service(config, assembly.open_directory(config))
            await self._service.reload()
        except ConfigError as problem:
            raise InputError(f"the imported policy cannot be served: {problem}") from None
        server = PolicyServer(
            _Recorded(self._service, self._requests), [Inet("127.0.0.1", 0)], shutdown_grace=1.0
        )
        await server.start_listening()
        door = server.addresses[0]
        assert isinstance(door, Inet)
        self.address = f"inet:{door.host}:{door.port}"
        return server

    def _stop(self, thread: threading.Thread) -> None:
        asyncio.run_coroutine_threadsafe(self._server.stop(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        thread.join()


class _Recorded:
    """A decider that remembers what the service was asked."""

    def __init__(self, service: Service, requests: list[Request]) -> None:
        self._service = service
        self._requests = requests

    def answer(self, data: bytes) -> None:
        """Every request is to be seen."""

    def decide_now(self, request: Request) -> str | None:
        """The action, if it is known at once."""
        self._requests.append(request)
        return self._service.decide_now(request)

    async def decide(self, request: Request) -> str | None:
        """The action, whatever it takes."""
        return await self._service.decide(request)
