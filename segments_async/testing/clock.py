"""Virtual time on trio; see `loop`."""

from __future__ import annotations

import math

import trio
import trio.testing

from segments_async.testing.loop import GLANCE


class VirtualClock(trio.abc.Clock):
    """A trio clock that starts at 0 and jumps to the next deadline when every task waits.

    ``trio.run(main, clock=VirtualClock())`` runs in it. trio's own ``MockClock`` jumps while a
    worker thread is at work; this one waits for the thread.
    """

    def __init__(self) -> None:
        self._now = 0.0

    def start_clock(self) -> None:
        """Called by trio when a run begins: its time is 0, also of a clock that is used again."""
        self._now = 0.0
        # trio can't spawn a task yet; its entry queue runs this once it can.
        trio.lowlevel.current_trio_token().run_sync_soon(
            trio.lowlevel.spawn_system_task, self._jump_when_idle
        )

    def current_time(self) -> float:
        """Virtual seconds since the clock was made."""
        return self._now

    def deadline_to_sleep_time(self, deadline: float) -> float:
        """Called by trio when no task can run: real seconds until a deadline that may come alone.

        None comes alone: the clock's own task, which trio wakes first, jumps to it.
        """
        return 0.0 if deadline <= self._now else math.inf

    async def _jump_when_idle(self) -> None:
        while True:
            await trio.testing.wait_all_tasks_blocked()
            # Tasks that waited for this moment as well were woken together with this one.
            await trio.testing.wait_all_tasks_blocked()
            seconds = trio.lowlevel.current_statistics().seconds_to_next_deadline
            if seconds == math.inf or _threads_at_work():
                # Real I/O, a deadlock, or a thread at work: really wait. An event ends the wait.
                await trio.testing.wait_all_tasks_blocked(GLANCE)
            elif seconds > 0:
                self._now += seconds


def _threads_at_work() -> bool:
    return trio.to_thread.current_default_thread_limiter().borrowed_tokens > 0
