"""Where the exports of a run stand: in memory, and in the journal where there is one.

Whoever tells the ledger may be another caller's task, since requests of a shared export are sent
by whichever of its parties is handed the grant. So recording is shielded from that caller's
cancellation; the log bounds how long that can take.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import anyio

from segments_async._journal.records import GuardRecord
from segments_async._sansio.jobs.lifecycle import Event, State
from segments_async._sansio.jobs.record import ExportRecord
from segments_async._sansio.jobs.tally import Tally
from segments_async._sansio.pace.backoff import TicketGuard

if TYPE_CHECKING:
    from segments_async._journal.run_log import RunLog
    from segments_async._journal.sql import SqlJournal

#: Of no use to a later session, which asks for the link anew: not worth a commit.
_NOT_LOGGED = frozenset({Event.FETCH, Event.FETCH_BROKE})

#: Seconds for which a run that is being left waits for its journal.
_LAST_SECONDS = 2.0

_NEW = ExportRecord()


class Ledger:
    """The states of a run's exports, by segment id.

    Args:
        journal: None where there is none.
        log: the run's in it, held by this process.
    """

    def __init__(self, journal: SqlJournal | None = None, log: RunLog | None = None) -> None:
        self._journal = journal
        self._log = log
        self._tally = Tally()
        self._guard_told: tuple[bool, float] | None = None

    @property
    def durable(self) -> bool:
        """Whether what is recorded outlives the process."""
        return self._log is not None

    @property
    def finished(self) -> bool:
        """Whether the run had ended before it was opened: nothing can be recorded then."""
        return self._log is not None and self._log.finished

    def open(self, segment_id: str) -> ExportRecord:
        """A segment of the run; where an earlier session left it."""
        record = _NEW if self._log is None else self._log.open(segment_id)
        self._tally.open(segment_id, record.state)
        return record

    def known(self, segment_id: str) -> ExportRecord:
        """Where earlier sessions, and this one, left it, as far as that is durable."""
        return _NEW if self._log is None else self._log.records.get(segment_id, _NEW)

    async def record(
        self, segment_id: str, event: Event, payload: Mapping[str, Any] | None = None
    ) -> State:
        """Keep the event, durably where there is a journal. Returns the state after it.

        While the journal is away, the event is kept in memory until the journal is back. An INTENT
        is not: the state stays NEW, and no POST may go.

        Raises:
            IllegalTransition: it can't happen there; nothing changes.
            JournalError: the journal can't be written.
        """
        if self.away and event is Event.INTENT:
            return self._tally.state(segment_id)
        state = self._tally.record(segment_id, event)
        if self._log is not None and event not in _NOT_LOGGED:
            with anyio.CancelScope(shield=True):
                await self._log.record(segment_id, event, payload)
            if event is Event.INTENT and self._log.state(segment_id) is State.NEW:
                state = self._tally.record(segment_id, Event.NOT_SENT)
        return state

    @property
    def away(self) -> bool:
        """Whether the journal can't be written for now."""
        return self._log is not None and self._log.away

    @property
    def can_be_lost(self) -> bool:
        """Whether the run's hold on the journal can be lost without a word: see `check`."""
        return self._log is not None and self._log.has_sessions

    def knows_export(self, segment_id: str) -> bool:
        """Whether a later session will find the segment's export in the journal."""
        return self._log is not None and self._log.knows_export(segment_id)

    async def returned(self) -> None:
        """Wait for the journal, if it is away.

        Raises:
            JournalError: it was away for too long.
        """
        if self._log is not None:
            await self._log.returned()

    async def check(self, idle: float) -> None:
        """See whether the run is still held, if nothing was written for so many seconds.

        Raises:
            JournalError: another process has gone on with it.
        """
        if self._log is not None and not self._log.away:
            await self._log.check(idle)

    def note(self, segment_id: str, event: Event) -> State:
        """As `record`, in memory alone: to the journal, the export stands where it stood."""
        return self._tally.record(segment_id, event)

    def state(self, segment_id: str) -> State:
        return self._tally.state(segment_id)

    def count(self, *states: State) -> int:
        """How many of the run's exports are in one of these states."""
        return self._tally.count(*states)

    async def remember(self, guard: TicketGuard, now: float) -> None:
        """Keep the ticket guard for other processes of the account, where it has changed.

        Raises:
            JournalError: the journal can't be written.
        """
        told = (guard.armed, guard.until)
        if self._journal is None or told == (self._guard_told or (False, guard.until)):
            return
        if self.away:
            return  # told once the journal is back
        record = None
        if guard.armed:
            until = datetime.now(UTC) + timedelta(seconds=max(0.0, guard.until - now))
            record = GuardRecord(until, guard.pause, guard.internal_errors)
        with anyio.CancelScope(shield=True):
            await self._journal.set_guard(record)
        self._guard_told = told

    async def finish(self) -> None:
        """Nothing is left for a later session to do. Waits for a journal that is away.

        Raises:
            JournalError: the journal can't be written.
        """
        if self._log is not None and not self._log.finished:
            await self._log.finish()

    async def close(self, *, finished: bool) -> None:
        """Let go of the run; `finished`: as `finish`, but not for long.

        Raises:
            JournalError: the journal can't be written.
        """
        if self._log is None:
            return
        try:
            if finished and not self._log.finished:
                await self._log.finish(patience=_LAST_SECONDS)
        finally:
            await self._log.aclose()
