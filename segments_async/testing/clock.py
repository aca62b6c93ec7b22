"""Virtual time on trio; see `loop`."""

from __future__ import annotations

import math

import trio

from segments_async.testing.loop import GLANCE


class VirtualClock(trio.abc.Clock):
    """A trio clock that starts at 0 and jumps to the next deadline when no task can run.

    ``trio.run(main, clock=VirtualClock())`` runs in it. trio's own ``MockClock`` jumps while a
    worker thread is at work; this one waits for the thread.
    """

    def __init__(self) -> None:
        self._now = 0.0
        self._looked_for: float | None = None

    def start_clock(self) -> None:
        """Called by trio when a run begins. A clock that is used again goes on where it was."""

    def current_time(self) -> float:
        """Virtual seconds since the clock was made."""
        return self._now

    def deadline_to_sleep_time(self, deadline: float) -> float:
        """Called by trio when no task can run: real seconds to wait for sockets and threads."""
        if deadline <= self._now:
            return 0.0
        if deadline == math.inf or _threads_at_work():
            return GLANCE
        if self._looked_for != deadline:
            # What has come already comes first: trio looks at sockets and threads, and asks again.
            self._looked_for = deadline
            return 0.0
        self._looked_for = None
        self._now = deadline
        return 0.0


def _threads_at_work() -> bool:
    return trio.to_thread.current_default_thread_limiter().borrowed_tokens > 0
