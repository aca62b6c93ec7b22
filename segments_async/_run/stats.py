"""How far a run is, in numbers."""

from __future__ import annotations

from collections import deque
from datetime import UTC, datetime

from segments_async._pace.gate import Gate
from segments_async._run.ledger import Ledger
from segments_async._sansio.jobs.eta import eta_seconds
from segments_async._sansio.jobs.lifecycle import State
from segments_async.results import Progress

#: Of the exports that ended last, so many durations tell how long the next ones may take.
_DURATIONS_KEPT = 500


class RunStats:
    """What a run counts, beside where each of its exports stands.

    Args:
        gate: whose requests are counted, from :meth:`begin` on.
        total: segments of the run.
    """

    def __init__(self, gate: Gate, total: int) -> None:
        self._gate = gate
        self._total = total
        self._requests_before = self._throttled_before = self._internal_errors_before = 0
        self._durations: deque[float] = deque(maxlen=_DURATIONS_KEPT)
        #: Bytes of files, fetched so far.
        self.bytes: int = 0
        #: When the last POST was accepted.
        self.submitted_at: float = 0.0
        #: Wall time; the end is the beginning until there is one.
        self.started_at: datetime = datetime.now(UTC)
        self.ended_at: datetime = self.started_at

    def begin(self) -> None:
        """Count from here."""
        self.started_at = datetime.now(UTC)
        self._requests_before = self._gate.requests
        self._throttled_before = self._gate.throttled
        self._internal_errors_before = self._gate.guard.internal_errors

    @property
    def internal_errors(self) -> int:
        """Answers of 500 since the beginning."""
        return self._gate.guard.internal_errors - self._internal_errors_before

    def took(self, seconds: float) -> None:
        """An export took so long at the vendor."""
        self._durations.append(seconds)

    def progress(
        self,
        ledger: Ledger,
        *,
        now: float,
        oldest_pending: float,
        oldest_link_age: float | None,
        fetch_seconds: float,
    ) -> Progress:
        """The run's progress at `now`; the arguments are as in :func:`eta_seconds`."""
        count = ledger.count
        exported, unchanged = count(State.DONE), count(State.UNCHANGED)
        fetching = count(State.COMPLETE, State.FETCHING)
        # Those that the run hasn't come to yet are in no state.
        unopened = self._total - count(*State)
        waiting, pending = unopened + count(State.NEW, State.INTENT), count(State.SUBMITTED)
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
