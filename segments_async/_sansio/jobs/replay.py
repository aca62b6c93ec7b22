"""The record of each export of a run, from the run's log as the journal reads it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime

from segments_async._sansio.jobs.lifecycle import ENDS, Event, State, advance
from segments_async._sansio.jobs.payload import UnreadablePayload, payload_from_json
from segments_async._sansio.jobs.record import SUBMITTING, ExportRecord, checked

#: One event of the log: the segment's id, the event, the time as :func:`datetime.fromisoformat`
#: reads it, and the payload as JSON.
StoredEntry = tuple[str, Event, str, str]

_NO_PAYLOAD = "{}"


class _Replayed:
    """One segment while its events are replayed. Only the last payloads are decoded."""

    __slots__ = (
        "completed_at",
        "ended_at",
        "export",
        "failures",
        "last",
        "state",
        "submitted_at",
    )

    def __init__(self) -> None:
        self.state = State.NEW
        self.failures = 0
        self.submitted_at: str | None = None
        self.completed_at: str | None = None
        self.ended_at: str | None = None
        #: Payloads, as JSON: the last event's, and the last one that has the export.
        self.last = _NO_PAYLOAD
        self.export: str | None = None

    def step(self, event: Event, at: str, payload: str) -> None:
        state = self.state = advance(self.state, event)
        self.last = payload
        if state is State.NEW:
            self.submitted_at = self.completed_at = self.ended_at = self.export = None
            return
        self.ended_at = at if state in ENDS else None
        if payload.startswith('{"export":'):
            self.export = payload
        if event in SUBMITTING:
            self.submitted_at = at
        elif event is Event.COMPLETED and self.completed_at is None:
            self.completed_at = at
        self.failures += state is State.FAILED

    def record(self, segment_id: str) -> ExportRecord:
        if self.state is State.NEW:
            return ExportRecord(failures=self.failures)
        export = None
        if self.export is not None and self.export is not self.last:
            export = payload_from_json(segment_id, json.loads(self.export)).export
        payload = payload_from_json(segment_id, json.loads(self.last), export)
        record = ExportRecord(
            state=self.state,
            export=payload.export or export,
            submitted_at=_time(self.submitted_at),
            file=payload.file if self.state in (State.DONE, State.UNCHANGED) else None,
            failure=payload.failure if self.state in ENDS else None,
            failures=self.failures,
            completed_at=_time(self.completed_at),
            ended_at=_time(self.ended_at),
        )
        return checked(segment_id, record)


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def records(log: Iterable[StoredEntry]) -> dict[str, ExportRecord]:
    """The records of all segments in the log; a segment that isn't there is NEW.

    The result is what :meth:`ExportRecord.after` gives for each event. A large journal has millions
    of events, so a payload that a later one replaces isn't decoded.

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
