"""The listeners of a run, and the log lines of the run's own beginning and end."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any

import anyio

from segments_async._run.run_session import RunSession
from segments_async._sansio.jobs.record import ExportRecord, LogEntry
from segments_async._sansio.jobs.run_state import RunState
from segments_async._telemetry.guard import log
from segments_async._telemetry.listener import End, Listeners, Operation
from segments_async._telemetry.log_lines import LogLines
from segments_async._telemetry.otel import current_metrics, open_telemetry
from segments_async.results import Held, Outcome, Progress

#: Seconds between two looks at what holds a run, while metrics are in use.
LOOK = 1.0


class RunTelemetry:
    """The listeners of one run.

    Attributes:
        oldest_file: as in `metrics.Live`; looked at every second.
    """

    def __init__(self, run: str, run_state: RunState, total: int) -> None:
        self._state = run_state
        self._total = total
        self.oldest_file: float | None = None
        self._metrics = current_metrics()
        spans = open_telemetry(Operation.EXPORT, self._metrics, run=run)
        self._listeners = Listeners(LogLines(run), spans)
        run_state.listener = self._on_change

    def places(self) -> Iterable[tuple[str, int]]:
        """How many exports are where; see `metrics.Live`."""
        return self._state.places(self._total).items()

    def began(self) -> None:
        """The run begins. `ended` has to follow."""
        if self._metrics is not None:
            self._metrics.begin(self)

    def on_outcome(self, outcome: Outcome, *, earlier: bool) -> None:
        """A segment's outcome is told. `earlier`: an earlier session of the run told it already."""
        submitted_at = self._state.record(outcome.segment_id).submitted_at
        self._listeners.on_end(End.of(outcome, submitted_at, earlier=earlier))

    def ended(self) -> None:
        """The run has ended."""
        if self._metrics is not None:
            self._metrics.end(self)
        self._listeners.on_closed()

    async def look(
        self, done: anyio.Event, waits: Callable[[], tuple[Held | None, float | None]]
    ) -> None:
        """While the run goes on, tell the metrics every second what holds it.

        Args:
            done: set at the run's end.
            waits: what holds the run, and the age of its oldest file. The whole progress has an
                estimate of the run's end, which takes a millisecond, and which no metric shows.
        """
        metrics = self._metrics
        if metrics is None:
            return
        since = anyio.current_time()
        while not done.is_set():
            with anyio.move_on_after(LOOK):
                await done.wait()
            (held, self.oldest_file), now = waits(), anyio.current_time()
            if held is not None:
                metrics.on_held(held.reason, now - since)
            since = now

    def _on_change(self, entry: LogEntry, before: ExportRecord, after: ExportRecord) -> None:
        export = after.export or before.export
        export_id = None if export is None else export.export_id
        self._listeners.on_change(
            entry.segment_id, export_id, entry.event, before.state, after.state
        )


async def run_logged(session: RunSession[Any], total: int) -> None:
    """Run a session to its end, between a log line of its begin and one of its end.

    Args:
        session: of a whole run, or of a batch.
        total: segments of the session.
    """
    _log_began(session.name, total)
    try:
        await session.run()
    finally:
        seconds = (session.ended_at - session.started_at).total_seconds()
        _log_ended(session.name, session.view.progress(), seconds, session.outcomes.error)


def _log_began(run: str, total: int) -> None:
    fields = {"segments_event": "run_began", "segments_run": run, "segments_total": total}
    log(logging.INFO, "Run %s begins: %d segments.", run, total, extra=fields)


def _log_ended(run: str, progress: Progress, seconds: float, error: BaseException | None) -> None:
    fields: dict[str, object] = {
        "segments_event": "run_ended",
        "segments_run": run,
        "segments_total": progress.total,
        "segments_exported": progress.exported,
        "segments_unchanged": progress.unchanged,
        "segments_not_exported": progress.not_exported,
        "segments_bytes": progress.bytes,
        "segments_requests": progress.requests,
        "segments_throttled": progress.throttled,
        "segments_seconds": seconds,
    }
    because = ""
    if error is not None:
        # The error's class alone: the error itself is raised to the run's caller.
        fields["segments_error"] = type(error).__name__
        because = f" by {type(error).__name__}"
    log(
        logging.INFO,
        "Run %s has ended%s after %.0f s: %d exported, %d unchanged, %d not exported.",
        run,
        because,
        seconds,
        progress.exported,
        progress.unchanged,
        progress.not_exported,
        extra=fields,
    )
