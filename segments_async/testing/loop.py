"""Virtual time for async tests: where every task waits for a timer, the clock jumps to that timer.

A run of four hours takes milliseconds, and is the same every time. Worker threads are waited for,
as long as they come from anyio's, trio's or asyncio's default limiter or executor: time stands
still until they are done. Sockets are not waited for. A test that talks over a real one needs real
time.
"""

from __future__ import annotations

import asyncio
import math
import selectors
import time
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor
from typing import Any, TypeVar, TypeVarTuple

import anyio.to_thread
from anyio import CapacityLimiter

_Args = TypeVarTuple("_Args")
_Result = TypeVar("_Result")

_RESOLUTION = time.get_clock_info("monotonic").resolution

#: Real seconds of one wait for a worker thread or a socket. The wait ends when one is ready.
GLANCE = 0.05


class _JumpingSelector(selectors.DefaultSelector):
    """Waits for nothing: where a selector would sleep until a timer, it moves the clock instead."""

    def __init__(self, *, jump: Callable[[float], None], busy: Callable[[], bool | None]) -> None:
        super().__init__()
        self._jump = jump
        self._busy = busy

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        events = super().select(0)
        if events or (timeout is not None and timeout <= 0):
            return events
        busy = self._busy()
        if busy is None:
            return events  # a task has to run first
        if timeout is None or busy:
            # No timer at all (real I/O, or a deadlock), or a thread at work: really wait.
            return super().select(GLANCE)
        self._jump(timeout)
        return events


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An asyncio event loop whose clock starts at 0 and jumps to the next timer when idle.

    ``asyncio.Runner(loop_factory=VirtualTimeLoop)`` runs a coroutine in it.
    """

    def __init__(self) -> None:
        self._now = 0.0
        self._jobs: set[object] = set()  # at work in executors; changed by their threads, too
        self._limiter: CapacityLimiter | None = None
        self._finding: asyncio.Task[None] | None = None
        super().__init__(_JumpingSelector(jump=self._jump, busy=self._busy))

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._now

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[*_Args], _Result], *args: *_Args
    ) -> asyncio.Future[_Result]:
        """Run the function as the base class does, and know of its thread until the thread ends.

        asyncio resolves host names by this method. A thread that goes on after its future was
        cancelled is still waited for.
        """
        job = object()
        self._jobs.add(job)
        if isinstance(executor, ProcessPoolExecutor):  # which pickles what it runs
            future = super().run_in_executor(executor, func, *args)
            future.add_done_callback(lambda _: self._jobs.discard(job))
            return future
        begun: list[bool] = []

        def work() -> _Result:
            begun.append(True)
            try:
                return func(*args)
            finally:
                self._jobs.discard(job)

        def ended(future: asyncio.Future[_Result]) -> None:
            if future.cancelled() and not begun:
                self._jobs.discard(job)

        future = super().run_in_executor(executor, work)
        future.add_done_callback(ended)
        return future

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:  # noqa: ARG002
        """Join the executor's threads, however long that takes in real time.

        From Python 3.12 on asyncio gives up after 300 s, to which this clock would jump.
        """
        await super().shutdown_default_executor()

    def _jump(self, seconds: float) -> None:
        self._now += seconds
        if self._now + _RESOLUTION == self._now:
            # asyncio runs a timer whose time is before now plus the clock's resolution. After half
            # a year that sum is now itself, and the timer would never run (CPython issue 116342).
            self._now = math.nextafter(self._now, math.inf)

    def _busy(self) -> bool | None:
        """Whether a worker thread is at work; None until a new task has found anyio's limiter."""
        if self._limiter is None:
            # anyio gives the limiter of this loop to a running task only, and no task runs now.
            self._finding = self._finding or self.create_task(self._find_limiter())
            return None
        return bool(self._jobs) or self._limiter.borrowed_tokens > 0

    async def _find_limiter(self) -> None:
        self._limiter = anyio.to_thread.current_default_thread_limiter()


def virtual_time(backend: str) -> tuple[str, dict[str, Any]]:
    """The value of an ``anyio_backend`` fixture that has virtual time.

    Args:
        backend: ``"asyncio"`` or ``"trio"``.
    """
    if backend == "trio":
        from segments_async.testing.clock import VirtualClock  # needs trio

        return backend, {"clock": VirtualClock()}
    return backend, {"loop_factory": VirtualTimeLoop}
