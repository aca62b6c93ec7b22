"""Looks at a run now and then, and keeps its pace over time: for the run's page."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime

import anyio

from segments_async._requests.gate import Gate
from segments_async._run.recorder import Recorder
from segments_async._sansio.pace.trace import PacePoint, PaceTrace, next_look
from segments_async.results import Held

#: The pace is handed to the journal at most once in this many seconds.
KEEP = 30.0


class PaceWatch:
    """The pace of one run: of earlier sessions, and of this one since its beginning.

    Args:
        gate: its requests are counted from now on.
        held: what holds the run now.
    """

    def __init__(self, gate: Gate, recorder: Recorder, held: Callable[[], Held | None]) -> None:
        self._gate = gate
        self._recorder = recorder
        self._held = held
        self._trace = PaceTrace(recorder.trace)
        self._began = self._last = anyio.current_time()
        self._kept = -math.inf
        #: The last look by the wall clock, which may be set back, also between two sessions: the
        #: points stay in order, since neighbours are merged by their times.
        self._at = max([_now(), *(point.end for point in recorder.trace[-1:])])
        self._requests, self._throttled = gate.requests, gate.throttled

    @property
    def points(self) -> tuple[PacePoint, ...]:
        """The run's pace so far."""
        return tuple(self._trace.points)

    async def watch(self, done: anyio.Event) -> None:
        """Look at the run until it is done."""
        while not done.is_set():
            with anyio.move_on_after(next_look(self._last - self._began)):
                await done.wait()
                return
            self.look()
            if self._last - self._kept >= KEEP:
                self.keep()

    def look(self) -> None:
        """Add a point for the time since the last look.

        What holds the run now counts as having held it since then: a hold that is shorter than the
        time between two looks is seen now and then, in proportion to its length.
        """
        now, gate = anyio.current_time(), self._gate
        seconds, held = now - self._last, self._held()
        requests, throttled = gate.requests - self._requests, gate.throttled - self._throttled
        if not seconds and not requests and not throttled:
            return
        self._last, self._requests, self._throttled = now, gate.requests, gate.throttled
        end = max(self._at, _now())
        begin = max(self._at, end - seconds)
        self._at = end
        reasons = {} if held is None else {held.reason.value: seconds}
        self._trace.add(PacePoint(begin, end, seconds, requests, throttled, gate.rate, reasons))

    def keep(self) -> None:
        """Hand the pace to the journal, which stores it with the next events."""
        self._kept = self._last
        self._recorder.keep_trace(self._trace.points)


def _now() -> float:
    return datetime.now(UTC).timestamp()
