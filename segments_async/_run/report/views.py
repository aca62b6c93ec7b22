"""A run as its page shows it: from its report in memory, or from its records in a journal."""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING, Any

from segments_async._journal.records import StoredRun
from segments_async._run.report.content import RunView
from segments_async._run.report.rows import rows_of_outcomes, rows_of_records, shown
from segments_async._sansio.jobs.history import RunHistory

if TYPE_CHECKING:
    from segments_async._run.report.bulk_report import BulkReport


def view_of_report(report: BulkReport[Any], history: RunHistory | None) -> RunView:
    """The view of a run that has just ended. `history`: None for a report that a program made."""
    progress = report.progress
    pace = () if history is None else history.pace
    counted = len(pace) > 0
    outcomes = [*report.exported, *report.not_exported]
    return RunView(
        name=shown(report.name),
        destination=None if history is None else history.destination,
        started_at=report.started_at,
        ended_at=report.ended_at,
        rows=rows_of_outcomes(outcomes, {} if history is None else history.times),
        pace=pace,
        # The pace has the requests of all sessions of the run, the progress those of this one.
        requests=sum(p.requests for p in pace) if counted else progress.requests,
        throttled=sum(p.throttled for p in pace) if counted else progress.throttled,
    )


def view_of_stored(stored: StoredRun) -> RunView:
    """The view of a run as a journal has it."""
    status, segments, pace = stored.status, stored.segments, stored.pace
    ended_at = status.ended_at
    rows = rows_of_records(
        segments or (), stored.records, run=status.name, ended=ended_at is not None
    )
    return RunView(
        name=shown(status.name),
        destination=status.destination,
        started_at=status.started_at.astimezone(UTC),
        ended_at=None if ended_at is None else ended_at.astimezone(UTC),
        live=status.live,
        rows=rows,
        pace=pace,
        requests=sum(point.requests for point in pace) if pace else None,
        throttled=sum(point.throttled for point in pace) if pace else None,
        complete=status.segments is not None,
    )
