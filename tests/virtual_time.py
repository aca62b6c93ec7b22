"""Virtual time for async tests, on asyncio and on trio.

A clock that jumps: when every task waits for a timer, time moves to the earliest one at once,
so that a run of four hours takes milliseconds and is the same every time.

Worker threads are seen, as long as they come from the backend's default limiter
(``anyio.to_thread.run_sync`` without ``limiter=``): time stands still until they are done.
Real sockets are not seen; a test that talks over one is marked ``real_time``.
"""

from __future__ import annotations

import asyncio
import math
import selectors
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any, TypeVar, TypeVarTuple

import anyio.to_thread
import trio
from trio._core._run import GLOBAL_RUN_CONTEXT
from trio.testing import MockClock

_Args = TypeVarTuple("_Args")
_Result = TypeVar("_Result")

#: Real seconds to wait at once for a worker thread or a socket. Each of them ends the wait.
_GLANCE = 0.05


class _JumpingSelector(selectors.DefaultSelector):
    """Waits for nothing: where a selector would sleep until a timer, it moves the clock instead."""

    def __init__(self, *, jump: Callable[[float], None], busy: Callable[[], bool]) -> None:
        super().__init__()
        self._jump = jump
        self._busy = busy

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        events = super().select(0)
        if events or (timeout is not None and timeout <= 0):
            return events
        if timeout is None or self._busy():
            # No timer at all (real I/O, or a deadlock), or a thread at work: really wait.
            return super().select(_GLANCE)
        self._jump(timeout)
        return events


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An asyncio event loop whose clock starts at 0 and jumps to the next timer when idle.

    Give it to anyio as ``loop_factory``.
    """

    def __init__(self) -> None:
        self._now = 0.0
        self._executor_jobs = 0
        super().__init__(_JumpingSelector(jump=self._jump, busy=self._busy))

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._now

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[*_Args], _Result], *args: *_Args
    ) -> asyncio.Future[_Result]:
        """As the base class does, and counted: asyncio resolves host names in here."""
        future = super().run_in_executor(executor, func, *args)
        self._executor_jobs += 1
        future.add_done_callback(self._executor_job_done)
        return future

    def _executor_job_done(self, _: asyncio.Future[Any]) -> None:
        self._executor_jobs -= 1

    def _jump(self, seconds: float) -> None:
        self._now += seconds

    def _busy(self) -> bool:
        if self._executor_jobs:
            return True
        return anyio.to_thread.current_default_thread_limiter().borrowed_tokens > 0


def virtual_trio_clock() -> MockClock:
    """A trio clock that starts at 0 and jumps to the next deadline when idle and no thread works.

    trio offers no public way to hold back the jump while a thread works, hence the private
    names; the ``dev`` extra pins trio to the minor version in which they are so.
    """
    clock = MockClock(autojump_threshold=0)
    jump = clock._autojump

    def jump_unless_busy() -> None:
        thread_at_work = trio.to_thread.current_default_thread_limiter().borrowed_tokens > 0
        no_deadline = trio.lowlevel.current_statistics().seconds_to_next_deadline == math.inf
        if thread_at_work or no_deadline:
            # As the run loop waits for sockets. A sleep would hold back a thread that is done.
            manager = GLOBAL_RUN_CONTEXT.runner.io_manager
            manager.process_events(manager.get_events(_GLANCE))
        else:
            jump()

    setattr(clock, "_autojump", jump_unless_busy)  # noqa: B010 - to a type checker it is a method
    return clock


def backend(name: str) -> tuple[str, dict[str, Any]]:
    """The arguments of ``anyio.run`` and of the ``anyio_backend`` fixture, in virtual time."""
    if name == "trio":
        return name, {"clock": virtual_trio_clock()}
    return name, {"loop_factory": VirtualTimeLoop}
