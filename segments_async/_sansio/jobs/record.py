"""The record of one export of a run after each event, and the step of a later session."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Literal

import attrs

from segments_async._sansio.jobs.lifecycle import ENDS, Event, State, advance
from segments_async._sansio.jobs.payload import NOTHING, Failure, Payload, UnreadablePayload
from segments_async.errors import (
    DownloadError,
    ExportExpiredError,
    ExportFailedError,
    ExportTimeoutError,
    NotSubmittedError,
    SegmentsError,
    SubmitUnknownError,
)
from segments_async.models import Export
from segments_async.results import ExportedFile, NotExported

IfLost = Literal["report", "resubmit"]

#: States in which the vendor's export may still be unknown.
_WITHOUT_EXPORT = frozenset({State.NEW, State.INTENT, State.UNASKED, State.REFUSED, State.UNKNOWN})

#: Events from which on there is an export at the vendor.
SUBMITTING = frozenset({Event.ACCEPTED, Event.ADOPTED})


@attrs.frozen(kw_only=True)
class RunOptions:
    """The options of a run; see `SegmentsClient.open_bulk_export`."""

    timeout: float | None = None
    export_timeout: float = 86_400.0
    retry_failed: int = 0
    on_unknown: IfLost = "report"
    on_expired: IfLost = "report"
    expected_seconds: Mapping[str, float] = attrs.field(factory=dict[str, float])


@attrs.frozen
class LogEntry:
    """One event of one segment, as the journal's log has it.

    Attributes:
        at: when (aware, UTC).
        payload: the values that belong to the event.
    """

    segment_id: str
    event: Event
    at: datetime
    payload: Payload = NOTHING


@attrs.frozen
class ExportRecord:
    """The recorded facts about one segment's export.

    Attributes:
        export: as last seen; None before its POST is accepted. The journal keeps no link.
        submitted_at: when the accepted POST, or the joining of another caller's export, was
            recorded; None before.
        file: the export's file, once the file is in place; of an UNCHANGED segment, the last run's.
        failure: why there is no file, where the export ended without one and the log says why.
        failures: how often the vendor said FAILED, in this run.
        completed_at: when the export was first seen to be COMPLETE; None before.
        ended_at: when the event was recorded that ended the export; None in the states that have no
            outcome.
    """

    state: State = State.NEW
    export: Export | None = None
    submitted_at: datetime | None = None
    file: ExportedFile | None = None
    failure: Failure | None = None
    failures: int = 0
    completed_at: datetime | None = None
    ended_at: datetime | None = None

    def after(self, entry: LogEntry) -> ExportRecord:
        """The record after one more event.

        Raises:
            IllegalTransition: the event can't happen in this state.
            UnreadablePayload: the payload lacks what the event needs.
        """
        state = advance(self.state, entry.event)
        if state is State.NEW:
            return ExportRecord(failures=self.failures)
        payload = entry.payload
        event, ended = entry.event, state in ENDS
        completed_at = self.completed_at
        if completed_at is None and event is Event.COMPLETED:
            completed_at = entry.at
        record = ExportRecord(
            state,
            payload.export or self.export,
            entry.at if event in SUBMITTING else self.submitted_at,
            payload.file if state in (State.DONE, State.UNCHANGED) else None,
            payload.failure if ended else None,
            self.failures + (state is State.FAILED),
            completed_at,
            entry.at if ended else None,
        )
        return checked(entry.segment_id, record)


#: The record of a segment to which nothing has happened.
NEW = ExportRecord()


def checked(segment_id: str, record: ExportRecord) -> ExportRecord:
    """The record, if it has what its state needs.

    Raises:
        UnreadablePayload: the export or the file is missing.
    """
    state = record.state
    if record.export is None and state not in _WITHOUT_EXPORT:
        raise UnreadablePayload(f"segment {segment_id}: {state} without an export")
    if state is State.UNCHANGED and record.file is None:
        raise UnreadablePayload(f"segment {segment_id}: {state} without a file")
    return record


def resume_events(
    record: ExportRecord, options: RunOptions, *, file_present: bool = True
) -> tuple[Event, ...]:
    """The events with which a later session of the run takes up an export, in order.

    After these events, a NEW export is submitted, a SUBMITTED one is polled, and of any other state
    the outcome is yielded as the earlier session recorded it.

    Args:
        record: the export as the last session left it.
        file_present: of DONE and UNCHANGED, whether the file is still in its place.
    """
    if record.state is State.INTENT:  # the process died before the POST, or before its answer
        return (Event.LOST, *_opted_in(options.on_unknown == "resubmit"))
    wanted = {
        State.UNKNOWN: options.on_unknown == "resubmit",
        State.EXPIRED: options.on_expired == "resubmit",
        State.FAILED: record.failures <= options.retry_failed,
    }
    if record.state in wanted:
        return _opted_in(wanted[record.state])
    return (Event.RESUMED,) if _goes_on(record, file_present=file_present) else ()


def _goes_on(record: ExportRecord, *, file_present: bool) -> bool:
    """Whether a later session works on an export that was left, or has ended."""
    failure = record.failure
    match record.state:
        case State.COMPLETE | State.FETCHING | State.UNASKED:
            return True
        case State.DONE | State.UNCHANGED:
            return not file_present
        case State.BROKEN_OFF:
            return failure is None or failure.resumable
        case State.REFUSED:
            # A POST that was acted on isn't repeated, though the vendor refused it.
            return failure is not None and failure.submitted == "no"
        case _:
            return False


def _opted_in(wanted: bool) -> tuple[Event, ...]:
    return (Event.OPTED_IN,) if wanted else ()


def resume_payload(event: Event, segment_id: str, record: ExportRecord, *, run: str) -> Payload:
    """The payload of one of the `resume_events`.

    LOST has the outcome of a POST whose process was gone before the answer. The others have none.

    Args:
        event: one of the `resume_events`.
        record: the export as the last session left it.
        run: the run's name, for messages.
    """
    if event is not Event.LOST:
        return NOTHING
    return Payload.of_outcome(interrupted_outcome(segment_id, record, run=run))


def interrupted_outcome(segment_id: str, record: ExportRecord, *, run: str) -> NotExported:
    """The outcome of an export whose end no session recorded: the process died before it could."""
    export = record.export
    match record.state:
        case State.INTENT | State.UNKNOWN:
            error: SegmentsError = SubmitUnknownError(
                f"segment {segment_id}: the process ended while the export request was on its way; "
                "the export may be running at the vendor, so the request was not repeated",
                segment_id=segment_id,
            )
            return NotExported(segment_id, None, error, "maybe", resumable=False)
        case State.NEW | State.UNASKED | State.REFUSED:
            text = f"segment {segment_id}: not submitted; run {run} is finished"
            error = NotSubmittedError(text, segment_id=segment_id, export=export)
            return NotExported(segment_id, None, error, "no", resumable=True)
        case State.FAILED:
            text = f"segment {segment_id}: the export failed"
            error = ExportFailedError(text, segment_id=segment_id, export=export)
        case State.EXPIRED:
            text = f"segment {segment_id}: the file is gone"
            error = ExportExpiredError(text, segment_id=segment_id, export=export)
        case State.DONE | State.UNCHANGED:
            error = DownloadError(
                f"segment {segment_id}: the file is not in its place any more; run {run} is "
                "finished, and exports nothing again",
                reason="broken",
                export=export,
            )
        case _:
            text = f"segment {segment_id}: given up; run {run} is finished"
            error = ExportTimeoutError(text, segment_id=segment_id, export=export)
    return NotExported(segment_id, export, error, "yes", resumable=False)
