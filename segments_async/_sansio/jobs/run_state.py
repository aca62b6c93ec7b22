"""Where every export of one run stands: the only copy.

`apply` advances one record by one event, once. The journal appends the entry that `apply` returns;
progress and the outcomes read the records and their counts. The theory is at the head of
`lifecycle`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime

from segments_async._sansio.jobs.lifecycle import Event, State
from segments_async._sansio.jobs.payload import NOTHING, Payload
from segments_async._sansio.jobs.record import NEW, ExportRecord, LogEntry

#: States of exports that are being worked on, at the vendor or here.
ACTIVE = frozenset({State.INTENT, State.SUBMITTED, State.COMPLETE, State.FETCHING})

#: The field of `Progress` in which an export counts that has not ended.
PLACES = {
    State.NEW: "waiting",
    State.INTENT: "waiting",
    State.SUBMITTED: "pending",
    State.COMPLETE: "fetching",
    State.FETCHING: "fetching",
}


class RunState:
    """The records of a run's segments, by segment id.

    Args:
        records: of segments that earlier sessions of the run recorded something about, whether or
            not they are segments of this session.
    """

    def __init__(self, records: Mapping[str, ExportRecord] | None = None) -> None:
        self._records = dict(records or {})
        self._session: set[str] = set()
        self._counts: Counter[State] = Counter()
        self._active: dict[str, None] = {}
        #: Called after each change: the entry, the record before it, and the record after it.
        self.listener: Callable[[LogEntry, ExportRecord, ExportRecord], None] | None = None

    @property
    def records(self) -> Mapping[str, ExportRecord]:
        """Every record that isn't NEW from the start, of this session's segments and others."""
        return self._records

    def add(self, segment_id: str) -> ExportRecord:
        """Make a segment one of this session's, if it isn't yet. Returns its record."""
        record = self.record(segment_id)
        if segment_id not in self._session:
            self._session.add(segment_id)
            self._counts[record.state] += 1
            if record.state in ACTIVE:  # since an earlier session
                self._active[segment_id] = None
        return record

    def apply(
        self, segment_id: str, event: Event, payload: Payload = NOTHING, *, at: datetime
    ) -> LogEntry:
        """Advance a segment of this session by one event.

        Raises:
            KeyError: the segment was not added.
            IllegalTransition: the event can't happen in the segment's state; nothing changes.
            UnreadablePayload: the payload lacks what the event needs; nothing changes.
        """
        if segment_id not in self._session:
            raise KeyError(segment_id)
        before = self._records.get(segment_id, NEW)
        entry = LogEntry(segment_id, event, at, payload)
        after = self._records[segment_id] = before.after(entry)
        self._counts[before.state] -= 1
        self._counts[after.state] += 1
        self._active.pop(segment_id, None)
        if after.state in ACTIVE:
            self._active[segment_id] = None
        if self.listener is not None:
            self.listener(entry, before, after)
        return entry

    def record(self, segment_id: str) -> ExportRecord:
        """The segment's record."""
        return self._records.get(segment_id, NEW)

    def state(self, segment_id: str) -> State:
        """The state in the segment's record."""
        return self._records.get(segment_id, NEW).state

    def count(self, *states: State) -> int:
        """How many of this session's segments are in one of these states."""
        return sum(self._counts[state] for state in states)

    def places(self, total: int) -> dict[str, int]:
        """How many of the session's `total` segments are in which of the `PLACES`.

        A segment that isn't added yet is waiting.
        """
        found = {"waiting": total - len(self._session), "pending": 0, "fetching": 0}
        for state, place in PLACES.items():
            found[place] += self._counts[state]
        return found

    def release(self, segment_id: str) -> None:
        """Count the segment no more: the run was left while its export went on.

        The record stays as it is, for the next session.
        """
        self._counts[self.state(segment_id)] -= 1
        self._active.pop(segment_id, None)

    @property
    def active(self) -> Mapping[str, None]:
        """Ids of the segments in one of the `ACTIVE` states, the last event's last."""
        return self._active

    def latest(self) -> Iterator[str]:
        """Ids of the active segments, the last event's first."""
        return reversed(self._active)
