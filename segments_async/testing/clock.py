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
        #: The clock's own task, while it waits for real events; and whether trio has waited since.
        self._parked: trio.lowlevel.Task | None = None
        self._waited = False

    def start_clock(self) -> None:
        """Called by trio when a run begins: its time is 0, also of a clock that is used again."""
        self._now, self._parked = 0.0, None
        # trio can't spawn a task yet; its entry queue runs this once it can.
        trio.lowlevel.current_trio_token().run_sync_soon(
            trio.lowlevel.spawn_system_task, self._jump_when_idle
        )

    def current_time(self) -> float:
        """Virtual seconds since the clock was made."""
        return self._now

    def deadline_to_sleep_time(self, deadline: float) -> float:
        """Real seconds for which trio waits for real events; trio asks when no task can run.

        No deadline comes by itself: the clock's own task, which trio wakes first, jumps to it.
        While that task waits for real events, the next event ends the wait, or `GLANCE` seconds do.
        """
        if deadline <= self._now:
            return 0.0
        if self._parked is None:
            return math.inf
        if not self._waited:
            self._waited = True
            return GLANCE
        task, self._parked = self._parked, None
        trio.lowlevel.reschedule(task)
        return 0.0

    async def _jump_when_idle(self) -> None:
        while True:
            await trio.testing.wait_all_tasks_blocked()
            # Tasks that waited for this moment as well were woken together with this one.
            await trio.testing.wait_all_tasks_blocked()
            seconds = trio.lowlevel.current_statistics().seconds_to_next_deadline
            if seconds == math.inf or _threads_at_work():
                # Real I/O, a deadlock, or a thread at work: really wait.
                await self._park()
            elif seconds > 0:
                self._now += seconds

    async def _park(self) -> None:
        """Wait until trio has waited for real events once."""

        def abort(_: object) -> trio.lowlevel.Abort:
            self._parked = None
            return trio.lowlevel.Abort.SUCCEEDED

        self._parked, self._waited = trio.lowlevel.current_task(), False
        await trio.lowlevel.wait_task_rescheduled(abort)


def _threads_at_work() -> bool:
    return trio.to_thread.current_default_thread_limiter().borrowed_tokens > 0
