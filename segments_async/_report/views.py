"""A run as its page shows it: from a report in memory, or from the journal."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from segments_async._journal.records import StoredRun
from segments_async._report.content import RunView
from segments_async._report.rows import rows_of_records, rows_of_report, shown
from segments_async.results import BulkReport


def view_of_report(report: BulkReport[Any]) -> RunView:
    """The view of a run that has just ended."""
    history = report._history  # pyright: ignore[reportPrivateUsage]
    pace = () if history is None else history.pace
    counted = len(pace) > 0
    return RunView(
        name=shown(report.name),
        destination=None if history is None else history.destination,
        started_at=report.started_at,
        ended_at=report.ended_at,
        rows=rows_of_report(report, {} if history is None else history.times),
        pace=pace,
        # Of a run that was gone on with, the pace has the requests of all its sessions.
        requests=sum(p.requests for p in pace) if counted else report.progress.requests,
        throttled=sum(p.throttled for p in pace) if counted else report.progress.throttled,
    )


def view_of_run(stored: StoredRun) -> RunView:
    """The view of a run as the journal has it."""
    status, pace = stored.status, stored.pace
    return RunView(
        name=shown(status.name),
        destination=status.destination,
        started_at=status.started_at.astimezone(UTC),
        ended_at=_end(status.ended_at),
        live=status.live,
        rows=rows_of_records(
            stored.segments or (),
            stored.records,
            run=status.name,
            ended=status.ended_at is not None,
        ),
        pace=pace,
        requests=sum(point.requests for point in pace) if pace else None,
        throttled=sum(point.throttled for point in pace) if pace else None,
        complete=status.segments is not None,
    )


def _end(at: datetime | None) -> datetime | None:
    return None if at is None else at.astimezone(UTC)
