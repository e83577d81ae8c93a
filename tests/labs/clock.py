"""An event loop whose time passes only when nothing else is left to do: an hour's timeout takes no time.

    assert "late" == on_virtual_time(story())      asyncio.run, on such a loop; its clock begins at 0

While something is ready to run, to be read or to be written, the clock stands still; then it jumps to the
next timer. So durations are exact, and no test that counts time depends on how busy the machine is. While a
thread of the loop's executor works, the clock stands still as well.

BUGS: what another process has on its way is not seen; TCP may take the kernel a moment even within a process.
Between two ends of one test use socket files or pairs: what is written there can be read at once.
"""

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from typing import Any, TypeVar, TypeVarTuple

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class _Skipping(selectors.DefaultSelector):
    """Waits for nothing but threads: `now` is what it would have waited, all in all."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.threads = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """What is ready; if nothing is, so much later nothing is either."""
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        if timeout is None or self.threads:
            return super().select(None)
        self.now += timeout
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """See above; for `asyncio.Runner(loop_factory=...)`."""

    def __init__(self) -> None:
        self._skipping = _Skipping()
        super().__init__(self._skipping)

    def time(self) -> float:
        """Seconds that would have passed since the loop was made."""
        return self._skipping.now

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[*Ts], T], *args: *Ts
    ) -> asyncio.Future[T]:
        """As it is done elsewhere, while the clock stands still."""
        future = super().run_in_executor(executor, func, *args)
        self._skipping.threads += 1
        future.add_done_callback(self._thread_done)
        return future

    def _thread_done(self, _: asyncio.Future[Any]) -> None:
        self._skipping.threads -= 1


def on_virtual_time(main: Coroutine[Any, Any, T]) -> T:
    """Runs it to its end on such a loop."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)
