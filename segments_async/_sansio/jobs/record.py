"""Where an export stands after a log of events, and what a later session does with it.

The process that records an event and the one that replays it take the same :func:`step`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Literal, assert_never

import attrs

from segments_async._sansio.jobs.lifecycle import ENDS, Event, State, advance
from segments_async._sansio.jobs.payload import Failure, UnreadablePayload, read_payload
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


@attrs.frozen
class LogEntry:
    """One event as it is logged.

    Attributes:
        segment_id: the segment.
        event: what happened.
        at: when (aware, UTC).
        facts: what it tells, as :func:`payload_of` makes it.
    """

    segment_id: str
    event: Event
    at: datetime
    payload: Mapping[str, Any] = attrs.field(factory=dict[str, Any])


@attrs.frozen
class ExportRecord:
    """What is known of one segment of a run.

    Attributes:
        state: where its export stands.
        export: as last seen, without its link; None before its POST is accepted.
        submitted_at: when the accepted POST (or the joining of another's export) was logged; None
            before.
        file: its file, once it is in place; the last run's where it is UNCHANGED.
        ending: why there is no file, where one of the ends without a file was told.
        failures: how often the vendor said FAILED, in this run.
    """

    state: State = State.NEW
    export: Export | None = None
    submitted_at: datetime | None = None
    file: ExportedFile | None = None
    failure: Failure | None = None
    failures: int = 0


def step(record: ExportRecord, logged: LogEntry) -> ExportRecord:
    """Where the export stands after one more event.

    Raises:
        IllegalTransition: the event can't happen there.
        UnreadablePayload: its facts aren't what this library writes, or lack what the event needs.
    """
    state = advance(record.state, logged.event)
    if state is State.NEW:
        return ExportRecord(failures=record.failures)
    payload = read_payload(logged.segment_id, logged.payload, record.export)
    began = logged.event in (Event.ACCEPTED, Event.ADOPTED)
    after = ExportRecord(
        state=state,
        export=payload.export or record.export,
        submitted_at=logged.at if began else record.submitted_at,
        file=payload.file if state in (State.DONE, State.UNCHANGED) else None,
        failure=payload.failure if state in ENDS else None,
        failures=record.failures + (state is State.FAILED),
    )
    return _checked(logged.segment_id, after)


def _checked(segment_id: str, record: ExportRecord) -> ExportRecord:
    """The standing, if it has what its state needs; else UnreadablePayload."""
    state = record.state
    if state in _NEEDS_EXPORT and record.export is None:
        raise UnreadablePayload(f"segment {segment_id}: {state} without an export")
    if state is State.UNCHANGED and record.file is None:
        raise UnreadablePayload(f"segment {segment_id}: {state} without a file")
    return record


#: One logged event, as it was read: segment id, event, when (as :func:`datetime.fromisoformat`
#: reads it), and the facts as JSON.
Kept = tuple[str, Event, str, str]


class _Replayed:
    """One segment while its events are gone through. Of the facts, only the last are decoded."""

    __slots__ = ("began_at", "export", "failures", "last", "state")

    def __init__(self) -> None:
        self.state = State.NEW
        self.failures = 0
        self.began_at: str | None = None
        #: Payload, as JSON, of the last event, and of the last one that tells the export.
        self.last = _NO_PAYLOAD
        self.export: str | None = None

    def step(self, event: Event, at: str, payload: str) -> None:
        state = self.state = advance(self.state, event)
        self.last = payload
        if state is State.NEW:
            self.began_at = self.export = None
            return
        if payload.startswith('{"export":'):
            self.export = payload
        if event is Event.ACCEPTED or event is Event.ADOPTED:
            self.began_at = at
        self.failures += state is State.FAILED

    def record(self, segment_id: str) -> ExportRecord:
        if self.state is State.NEW:
            return ExportRecord(failures=self.failures)
        export = None
        if self.export is not None and self.export is not self.last:
            export = read_payload(segment_id, json.loads(self.export)).export
        payload = read_payload(segment_id, json.loads(self.last), export)
        return _checked(
            segment_id,
            ExportRecord(
                state=self.state,
                export=payload.export or export,
                submitted_at=None
                if self.began_at is None
                else datetime.fromisoformat(self.began_at),
                file=payload.file if self.state in (State.DONE, State.UNCHANGED) else None,
                failure=payload.failure if self.state in ENDS else None,
                failures=self.failures,
            ),
        )


def records(log: Iterable[Kept]) -> dict[str, ExportRecord]:
    """Where each export stands that something is logged of; of all others it is NEW.

    The same as :func:`step` for each event. A large journal has some million events, so facts that
    later ones repeat aren't decoded.

    Raises:
        IllegalTransition, UnreadablePayload: no run of this library has such a log.
    """
    replayed: dict[str, _Replayed] = {}
    for segment_id, event, at, payload in log:
        known = replayed.get(segment_id)
        if known is None:
            known = replayed[segment_id] = _Replayed()
        known.step(event, at, payload)
    try:
        return {segment_id: known.record(segment_id) for segment_id, known in replayed.items()}
    except ValueError as exc:  # no JSON, or no time
        raise UnreadablePayload(str(exc)) from exc


def resume_events(
    record: ExportRecord,
    *,
    file_there: bool = True,
    on_unknown: IfLost = "report",
    on_expired: IfLost = "report",
    retry_failed: int = 0,
) -> tuple[Event, ...]:
    """The events with which a later session of the run takes up an export, in order.

    After them, NEW is submitted, SUBMITTED is asked for its status, and an end is told as it ended.

    Args:
        standing: where the last session left it.
        file_there: of DONE and UNCHANGED, whether the file is still in its place.
        on_unknown: ``"resubmit"`` takes the risk of a second export.
        on_expired: ``"resubmit"`` asks for another export where the file is gone.
        retry_failed: how many FAILED exports of one segment are followed by another.
    """
    state, failure = record.state, record.failure
    match state:
        case State.NEW | State.SUBMITTED:
            return ()
        case State.INTENT:  # died with the POST on the wire, or about to go
            return (Event.LOST, *_opted_in(on_unknown == "resubmit"))
        case State.COMPLETE | State.FETCHING | State.UNASKED:
            return (Event.RESUMED,)
        case State.DONE | State.UNCHANGED:
            return () if file_there else (Event.RESUMED,)
        case State.BROKEN_OFF:
            return (Event.RESUMED,) if failure is None or failure.resumable else ()
        case State.REFUSED:
            # The table trusts that the vendor did nothing; here it must have been said.
            return (Event.RESUMED,) if failure and failure.submitted == "no" else ()
        case State.UNKNOWN:
            return _opted_in(on_unknown == "resubmit")
        case State.EXPIRED:
            return _opted_in(on_expired == "resubmit")
        case State.FAILED:
            return _opted_in(record.failures <= retry_failed)
        case _:
            assert_never(state)


def interrupted_outcome(segment_id: str, record: ExportRecord, *, run: str) -> NotExported:
    """The outcome of an export of which no session told the end: it died before it could."""
    payload: dict[str, Any] = {"segment_id": segment_id, "export": record.export}
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
            error = NotSubmittedError(text, **payload)
            return NotExported(segment_id, None, error, "no", resumable=True)
        case State.FAILED:
            error = ExportFailedError(f"segment {segment_id}: the export failed", **payload)
        case State.EXPIRED:
            error = ExportExpiredError(f"segment {segment_id}: the file is gone", **payload)
        case State.DONE | State.UNCHANGED:
            error = DownloadError(
                f"segment {segment_id}: the file is not in its place any more; run {run} is "
                "finished, and exports nothing again",
                reason="broken",
                export=record.export,
            )
        case _:
            text = f"segment {segment_id}: given up; run {run} is finished"
            error = ExportTimeoutError(text, **payload)
    return NotExported(segment_id, record.export, error, "yes", resumable=False)


_NO_PAYLOAD = "{}"
_NEEDS_EXPORT = frozenset(State) - {
    State.NEW,
    State.INTENT,
    State.UNASKED,
    State.REFUSED,
    State.UNKNOWN,
}


def _opted_in(wanted: bool) -> tuple[Event, ...]:
    return (Event.OPTED_IN,) if wanted else ()
