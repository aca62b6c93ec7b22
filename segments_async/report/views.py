"""A run as its page shows it: from its outcomes in memory, or from its records in a journal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime

from segments_async._sansio.jobs.history import RunHistory
from segments_async._sansio.jobs.record import ExportRecord
from segments_async._sansio.pace.trace import PacePoint
from segments_async.report.content import RunView
from segments_async.report.rows import rows_of_outcomes, rows_of_records, shown
from segments_async.results import Outcome, Progress


def view_of_outcomes(
    *,
    name: str,
    outcomes: Iterable[Outcome],
    started_at: datetime,
    ended_at: datetime,
    progress: Progress,
    history: RunHistory | None,
) -> RunView:
    """The view of a run that has just ended.

    Args:
        outcomes: one for each segment, in the order of the page.
        started_at: aware.
        ended_at: aware.
        progress: the last.
        history: None where there is none, as of a report that a program made.
    """
    pace = () if history is None else history.pace
    counted = len(pace) > 0
    return RunView(
        name=shown(name),
        destination=None if history is None else history.destination,
        started_at=started_at,
        ended_at=ended_at,
        rows=rows_of_outcomes(outcomes, {} if history is None else history.times),
        pace=pace,
        # Of a run that was gone on with, the pace has the requests of all its sessions.
        requests=sum(p.requests for p in pace) if counted else progress.requests,
        throttled=sum(p.throttled for p in pace) if counted else progress.throttled,
    )


def view_of_records(
    *,
    name: str,
    destination: str | None,
    started_at: datetime,
    ended_at: datetime | None,
    live: bool,
    complete: bool,
    segments: Sequence[str],
    records: Mapping[str, ExportRecord],
    pace: Sequence[PacePoint],
) -> RunView:
    """The view of a run as a journal has it.

    Args:
        destination: the directory of its files; None for a run without files.
        started_at: aware.
        ended_at: aware; None for an unfinished run.
        live: whether a process has the run open.
        complete: whether `segments` and `records` have every segment of the run.
        segments: the ids of the run's spec; empty where there is none.
        records: of the segments that have events, by id.
        pace: over time; empty where it wasn't recorded.
    """
    return RunView(
        name=shown(name),
        destination=destination,
        started_at=started_at.astimezone(UTC),
        ended_at=None if ended_at is None else ended_at.astimezone(UTC),
        live=live,
        rows=rows_of_records(segments, records, run=name, ended=ended_at is not None),
        pace=pace,
        requests=sum(point.requests for point in pace) if pace else None,
        throttled=sum(point.throttled for point in pace) if pace else None,
        complete=complete,
    )
