"""The counts of a run, and its progress."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import islice

from segments_async._requests.gate import Gate
from segments_async._sansio.jobs.eta import Running, eta_seconds
from segments_async._sansio.jobs.exports import seconds_taken
from segments_async._sansio.jobs.lifecycle import State
from segments_async._sansio.jobs.record import ExportRecord
from segments_async._sansio.jobs.run_state import RunState
from segments_async.results import Progress

#: The number of durations that are kept, of the exports that ended last.
_DURATIONS_KEPT = 500
#: An estimate takes a millisecond. So it is made at most once in this many seconds, however often a
#: caller looks at the progress.
_SECONDS_AN_ESTIMATE = 0.5
_AFTER_THE_VENDOR = frozenset({State.COMPLETE, State.FETCHING, State.DONE})


class RunStats:
    """The counts of a run besides the states of its exports.

    Args:
        gate: its requests are counted from now on.
        durations: seconds that exports of the run took in earlier sessions; see `known_durations`.

    Attributes:
        internal_errors_before: answers of 500 to this client before the run began.
        bytes: of files, fetched so far.
        submitted: POSTs that were accepted.
    """

    def __init__(self, gate: Gate, total: int, durations: Iterable[float] = ()) -> None:
        self._gate = gate
        self._total = total
        self._requests_before = gate.requests
        self._throttled_before = gate.throttled
        self.internal_errors_before: int = gate.guard.internal_errors
        self._durations: deque[float] = deque(durations, maxlen=_DURATIONS_KEPT)
        self.submitted: int = 0
        self._estimate: float | None = None
        self._estimate_until = -math.inf
        self._ended = 0
        self.bytes: int = 0

    @property
    def internal_errors(self) -> int:
        """Answers of 500 since the run began."""
        return self._gate.guard.internal_errors - self.internal_errors_before

    def add_ended(self, seconds: float | None) -> None:
        """An export is complete. `seconds`: how long it took at the vendor; None where unknown."""
        self._ended += 1
        if seconds is not None:
            self._durations.append(seconds)

    def progress(
        self,
        run_state: RunState,
        *,
        now: float,
        running: Callable[[], Sequence[Running]],
        oldest_link_age: float | None,
        fetch_seconds: float,
    ) -> Progress:
        """The run's progress at `now`; the arguments are as in :func:`eta_seconds`."""
        exported, unchanged = run_state.count(State.DONE), run_state.count(State.UNCHANGED)
        places = run_state.places(self._total)
        requests = self._gate.requests - self._requests_before
        unfinished = sum(places.values())
        if not unfinished or now >= self._estimate_until:
            self._estimate_until = now + _SECONDS_AN_ESTIMATE
            self._estimate = eta_seconds(
                **places,
                rate=self._gate.rate,
                polls=max(0, requests - self.submitted),
                ended=self._ended,
                durations=self._durations,
                running=running(),
                fetch_seconds=fetch_seconds,
            )
        return Progress(
            total=self._total,
            **places,
            exported=exported,
            unchanged=unchanged,
            not_exported=self._total - unfinished - exported - unchanged,
            bytes=self.bytes,
            requests=requests,
            throttled=self._gate.throttled - self._throttled_before,
            rate=self._gate.rate,
            oldest_link_age=oldest_link_age,
            eta_seconds=self._estimate,
            held=None,
        )


def known_durations(records: Iterable[ExportRecord]) -> list[float]:
    """Seconds that exports took at the vendor: the first `_DURATIONS_KEPT` of these records."""
    exports = (record.export for record in records if record.state in _AFTER_THE_VENDOR)
    taken = (seconds_taken(export) for export in exports if export is not None)
    return list(islice((one for one in taken if one is not None), _DURATIONS_KEPT))
