"""The counts of a run, and its progress."""

from __future__ import annotations

from collections import deque
from datetime import UTC, datetime

from segments_async._pace.gate import Gate
from segments_async._sansio.jobs.eta import eta_seconds
from segments_async._sansio.jobs.lifecycle import State
from segments_async._sansio.jobs.run_state import RunState
from segments_async.results import Held, Progress

#: Durations of the exports that ended last, from which the next durations are estimated.
_DURATIONS_KEPT = 500


class RunStats:
    """The counts of a run besides the states of its exports.

    Args:
        gate: whose requests are counted from now on.
        total: segments of the run.

    Attributes:
        bytes: of files, fetched so far.
        submitted_at: when the last POST was accepted, in seconds of the event loop's clock.
        started_at: aware, UTC.
        ended_at: aware, UTC; `started_at` while the run goes on.
    """

    def __init__(self, gate: Gate, total: int) -> None:
        self._gate = gate
        self._total = total
        self._requests_before = gate.requests
        self._throttled_before = gate.throttled
        self._internal_errors_before = gate.guard.internal_errors
        self._durations: deque[float] = deque(maxlen=_DURATIONS_KEPT)
        self.bytes: int = 0
        self.submitted_at: float = 0.0
        self.started_at: datetime = datetime.now(UTC)
        self.ended_at: datetime = self.started_at

    @property
    def internal_errors(self) -> int:
        """Answers of 500 since the run began."""
        return self._gate.guard.internal_errors - self._internal_errors_before

    def add_duration(self, seconds: float) -> None:
        """An export took so many seconds at the vendor."""
        self._durations.append(seconds)

    def progress(
        self,
        run_state: RunState,
        *,
        now: float,
        oldest_pending: float,
        oldest_link_age: float | None,
        fetch_seconds: float,
    ) -> Progress:
        """The run's progress at `now`; the arguments are as in :func:`eta_seconds`."""
        count = run_state.count
        exported, unchanged = count(State.DONE), count(State.UNCHANGED)
        fetching = count(State.COMPLETE, State.FETCHING)
        not_added = self._total - run_state.added
        waiting, pending = not_added + count(State.NEW, State.INTENT), count(State.SUBMITTED)
        requests = self._gate.requests - self._requests_before
        return Progress(
            total=self._total,
            waiting=waiting,
            pending=pending,
            fetching=fetching,
            exported=exported,
            unchanged=unchanged,
            not_exported=self._total - waiting - pending - fetching - exported - unchanged,
            bytes=self.bytes,
            requests=requests,
            throttled=self._gate.throttled - self._throttled_before,
            rate=self._gate.rate,
            oldest_link_age=oldest_link_age,
            eta_seconds=eta_seconds(
                waiting=waiting,
                pending=pending,
                fetching=fetching,
                rate=self._gate.rate,
                requests=requests,
                durations=self._durations,
                oldest=oldest_pending,
                newest=now - self.submitted_at,
                fetch_seconds=fetch_seconds,
            ),
        )


def progress_before_start(total: int, rate: float | None, held: Held | None) -> Progress:
    """The progress of a run that was not entered."""
    return Progress(
        total=total,
        waiting=total,
        pending=0,
        fetching=0,
        exported=0,
        unchanged=0,
        not_exported=0,
        bytes=0,
        requests=0,
        throttled=0,
        rate=rate,
        oldest_link_age=None,
        eta_seconds=None if total else 0.0,
        held=held,
    )
