"""What others see of a coordinated run: its progress, its history, and the exports under way."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from segments_async._run.outcomes import Outcomes
from segments_async._sansio.jobs.history import RunHistory, Times
from segments_async._sansio.jobs.record import ExportRecord
from segments_async.cluster.tracking import Tracking
from segments_async.results import Activity, Exported, Held, HeldReason, NotExported, Progress

if TYPE_CHECKING:
    from segments_async._journal.records import GuardRecord


class CoordinatorView:
    """What others see of a coordinated run.

    Attributes:
        guard: the account's ticket guard, as last read.
        requests: of the batches that have ended.
        throttled: how many of those were answered 429.
    """

    def __init__(self, tracking: Tracking, outcomes: Outcomes[Exported], directory: str) -> None:
        self._tracking = tracking
        self._outcomes = outcomes
        self._directory = directory
        self.guard: GuardRecord | None = None
        self.requests: int = 0
        self.throttled: int = 0

    async def whole(self) -> tuple[list[Exported | NotExported], Progress]:
        """The outcomes of the whole run, and its progress, once it has ended."""
        return self._outcomes.told, self.progress()

    def progress(self) -> Progress:
        """How far the run is, by the journal as it was last read."""
        counts, places = self._tracking.counts, self._tracking.places()
        over = self._outcomes.finished.is_set()
        return Progress(
            total=len(self._tracking.segments),
            waiting=places["waiting"],
            pending=places["pending"],
            fetching=places["fetching"],
            exported=counts["exported"],
            unchanged=counts["unchanged"],
            not_exported=counts["not_exported"],
            bytes=counts["bytes"],
            requests=self.requests,
            throttled=self.throttled,
            rate=None,
            oldest_link_age=None,
            eta_seconds=0.0 if over else None,
            held=None if over else self._held(),
        )

    def activity(self, limit: int) -> list[Activity]:
        """The exports under way, the latest first; as `BulkRun.activity`."""
        now = datetime.now(UTC)
        found = itertools.islice(self._tracking.under_way(), limit)
        return [self._activity(segment_id, record, now) for segment_id, record in found]

    def _activity(self, segment_id: str, record: ExportRecord, now: datetime) -> Activity:
        segment = self._tracking.segments.get(segment_id)
        accepted = record.submitted_at
        return Activity(
            segment_id,
            None if record.export is None else record.export.export_id,
            None if segment is None else segment.name,
            record.state.value,
            0.0 if accepted is None else max(0.0, (now - accepted).total_seconds()),
            0,
        )

    def history(self) -> RunHistory:
        """When the run's exports moved on. The pace is of the workers, and isn't known here."""
        records = self._tracking.records
        return RunHistory(
            times={segment_id: Times.of(record) for segment_id, record in records.items()},
            pace=(),
            destination=self._directory,
        )

    def _held(self) -> Held | None:
        if self.guard is None:
            return None
        seconds = (self.guard.until - datetime.now(UTC)).total_seconds()
        return (
            Held(reason=HeldReason.TICKET_GUARD, seconds=seconds, until=self.guard.until)
            if seconds > 0
            else None
        )
