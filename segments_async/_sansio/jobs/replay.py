"""The record of each export of a run, from the run's log as the journal reads it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime

import attrs

from segments_async._sansio.jobs.lifecycle import ENDS, Event, State, advance
from segments_async._sansio.jobs.payload import UnreadablePayload, payload_from_json
from segments_async._sansio.jobs.record import NEW, SUBMITTING, ExportRecord, checked

#: One event of the log: the segment's id, the event, the time as :func:`datetime.fromisoformat`
#: reads it, and the payload as JSON.
StoredEntry = tuple[str, Event, str, str]


@attrs.define(eq=False, repr=False)
class _Replayed:
    """One segment while its events are replayed. Only the last payloads are decoded."""

    state: State = State.NEW
    failures: int = 0
    submitted_at: str | None = None
    completed_at: str | None = None
    ended_at: str | None = None
    #: Payloads, as JSON: the last event's, and the last one that has the export.
    last: str = "{}"
    export: str | None = None

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


class Replay:
    """The records of segments, while the events of one log are read."""

    def __init__(self) -> None:
        self._replayed: dict[str, _Replayed] = {}

    def step(self, entry: StoredEntry) -> str:
        """Take the next event. Returns its segment's id.

        Raises:
            IllegalTransition: no run of this library has such a log.
        """
        segment_id, event, at, payload = entry
        known = self._replayed.get(segment_id)
        if known is None:
            known = self._replayed[segment_id] = _Replayed()
        known.step(event, at, payload)
        return segment_id

    def record(self, segment_id: str) -> ExportRecord:
        """The record of a segment; of one that isn't in the log, a NEW one.

        Raises:
            UnreadablePayload: no run of this library has such a log.
        """
        known = self._replayed.get(segment_id)
        try:
            return NEW if known is None else known.record(segment_id)
        except ValueError as exc:  # no JSON, or no time
            raise UnreadablePayload(str(exc)) from exc

    def records(self) -> dict[str, ExportRecord]:
        """The records of all segments in the log."""
        return {segment_id: self.record(segment_id) for segment_id in self._replayed}


def records(log: Iterable[StoredEntry]) -> dict[str, ExportRecord]:
    """The records of all segments in the log; a segment that isn't there is NEW.

    The result is what :meth:`ExportRecord.after` gives for each event. A large journal has millions
    of events, so a payload that a later one replaces isn't decoded.

    Raises:
        IllegalTransition, UnreadablePayload: no run of this library has such a log.
    """
    replay = Replay()
    for entry in log:
        replay.step(entry)
    return replay.records()
