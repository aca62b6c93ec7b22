"""The events that the tests write into journals."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from segments_async._journal.run_log import RunLog
from segments_async._journal.sql import SqlJournal
from segments_async._sansio.jobs.lifecycle import Event
from segments_async._sansio.jobs.payload import NOTHING, Payload
from segments_async.models import Export, ExportStatus, Segment, SegmentType
from segments_async.results import ExportedFile

ACCOUNT = "ab" * 32
NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
DESTINATION = "/exports"

GOES_WELL = (Event.INTENT, Event.ACCEPTED, Event.COMPLETED, Event.FETCH, Event.FETCHED)


def export_of(segment_id: str, *, seconds: float = 60.0, last_run: datetime = NOON) -> Export:
    return Export(
        export_id=f"export-of-{segment_id}",
        segment=Segment(segment_id, "Büyers", "p", SegmentType.DYNAMIC, last_run=last_run),
        status=ExportStatus.COMPLETE,
        start_time=NOON,
        end_time=NOON + timedelta(seconds=seconds),
    )


def file_of(export: Export) -> ExportedFile:
    return ExportedFile(f"/exports/{export.export_id}.csv", 7, "ab" * 32, True, export)


def payload_for(event: Event, export: Export) -> Payload:
    match event:
        case Event.ACCEPTED | Event.COMPLETED:
            return Payload(export)
        case Event.FETCHED | Event.UNCHANGED:
            return Payload.of_file(file_of(export))
        case _:
            return NOTHING


async def live(
    log: RunLog, segment_id: str, events: Sequence[Event] = GOES_WELL, **about: Any
) -> None:
    """Record a segment's events, one after the other."""
    log.run_state.add(segment_id)
    for event in events:
        await log.record(segment_id, event, payload_for(event, export_of(segment_id, **about)))


async def opened(where: str | Path) -> SqlJournal:
    return await SqlJournal.open(where, account=ACCOUNT)


@asynccontextmanager
async def run_of(
    journal: SqlJournal,
    name: str | None = None,
    *,
    destination: str | None = DESTINATION,
    now_name: str = "now",
) -> AsyncIterator[RunLog]:
    log = await journal.open_run(destination=destination, name=name, now_name=now_name)
    try:
        yield log
    finally:
        await log.aclose()
