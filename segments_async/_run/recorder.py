"""Records events of a run: in its state, and durably in the journal where there is one.

An event may be recorded in another caller's task, because the requests of a shared export are sent
by whichever of its followers is handed the permit. So recording is shielded from that caller's
cancellation; the log bounds how long a write may take.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING

import anyio

from segments_async._journal.records import GuardRecord
from segments_async._sansio.jobs.commits import UNAWAITED
from segments_async._sansio.jobs.lifecycle import Event, State
from segments_async._sansio.jobs.payload import NOTHING, Payload
from segments_async._sansio.jobs.run_state import RunState
from segments_async._sansio.pace.backoff import TicketGuard
from segments_async._sansio.pace.trace import PacePoint, trace_to_json

if TYPE_CHECKING:
    from segments_async._journal.database import Database
    from segments_async._journal.run_log import RunLog
    from segments_async._journal.sql import SqlJournal

#: Seconds for which a run that is being left waits for its journal.
_LAST_SECONDS = 2.0


class GuardWriter:
    """Writes the ticket guard into the journal, for the account's other processes."""

    def __init__(self, journal: SqlJournal) -> None:
        self._journal = journal
        #: Whether the guard was armed, and until when, as the journal has it.
        self._written: tuple[bool, float] | None = None
        self._writing = anyio.Lock()

    def knows(self, guard: TicketGuard) -> bool:
        """Whether the journal has the guard as it is now."""
        return (guard.armed, guard.until) == (self._written or (False, guard.until))

    def on_read(self, guard: TicketGuard) -> None:
        """The guard was set to what the journal has."""
        self._written = (guard.armed, guard.until)

    async def record(self, guard: TicketGuard) -> None:
        """Write the guard, where it has changed.

        Raises:
            JournalError: the journal can't be written.
        """
        if self.knows(guard):
            return
        # One write at a time, and again where the guard has changed meanwhile: of two writes in two
        # threads, the one of the older state may be the last.
        with anyio.CancelScope(shield=True):
            async with self._writing:
                while not self.knows(guard):
                    current, record = (guard.armed, guard.until), None
                    if guard.armed:
                        left = max(0.0, guard.until - anyio.current_time())
                        until = datetime.now(UTC) + timedelta(seconds=left)
                        record = GuardRecord(until, guard.pause, guard.internal_errors)
                    await self._journal.ask(partial(_set_guard, record))
                    self._written = current


class Recorder:
    """The state of a run, and the journal that keeps it.

    Args:
        log: the run's log in the journal, held by this process.
    """

    def __init__(self, log: RunLog | None = None) -> None:
        self._log = log
        self.run_state: RunState = RunState() if log is None else log.run_state

    @property
    def durable(self) -> bool:
        """Whether recorded events outlive the process."""
        return self._log is not None

    @property
    def finished(self) -> bool:
        """Whether the run had ended before this session: nothing can be recorded then."""
        return self._log is not None and self._log.finished

    async def record(self, segment_id: str, event: Event, payload: Payload = NOTHING) -> State:
        """Record an event, durably where there is a journal. Returns the state after it.

        An event on which nothing depends is durable before the segment's next event: nothing is
        sent and no outcome is told between the two. See `flush`.

        While the journal is away, the event stays in memory until the journal is back. An INTENT is
        not recorded then: the state stays NEW, and no POST may go.

        Raises:
            IllegalTransition: the event can't happen there; nothing changes.
            JournalError: the journal can't be written.
        """
        # FETCH is of no use to a later session, which asks for the link anew: not worth a commit.
        if self._log is None or event is Event.FETCH:
            self.run_state.apply(segment_id, event, payload, at=datetime.now(UTC))
        elif event in UNAWAITED:
            self._log.add(segment_id, event, payload)
        else:
            with anyio.CancelScope(shield=True):
                await self._log.record(segment_id, event, payload)
        return self.run_state.state(segment_id)

    @property
    def away(self) -> bool:
        """Whether the journal can't be written for now."""
        return self._log is not None and self._log.away

    @property
    def lingers(self) -> bool:
        """Whether events wait in memory, so that `flush` is needed."""
        return self._log is not None and self._log.lingers

    async def flush(self) -> None:
        """Write the events that wait in memory, each once it has waited long enough.

        Raises:
            JournalError: the journal can't be written.
        """
        if self._log is not None:
            await self._log.flush()

    def hurry(self) -> None:
        """The session ends: let no event wait for another one from now on."""
        if self._log is not None:
            self._log.hurry()

    @property
    def can_be_lost(self) -> bool:
        """Whether the database can give the run to another process unnoticed: see `check`."""
        return self._log is not None and self._log.has_sessions

    @property
    def trace(self) -> Sequence[PacePoint]:
        """The run's pace in earlier sessions."""
        return () if self._log is None else self._log.trace

    def keep_trace(self, points: Sequence[PacePoint]) -> None:
        """Store the run's pace with the next events that are written."""
        if self._log is not None and not self._log.finished:
            self._log.keep_trace(trace_to_json(points))

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
        """Ask the database whether this process still holds the run.

        The database is asked only if nothing was written for `idle` seconds.

        Raises:
            JournalError: another process has gone on with the run.
        """
        if self._log is not None and not self._log.away:
            await self._log.check(idle)

    async def finish(self) -> None:
        """Write that the run is finished. Waits for a journal that is away.

        Raises:
            JournalError: the journal can't be written.
        """
        if self._log is not None and not self._log.finished:
            await self._log.finish()

    async def close(self, *, finished: bool) -> None:
        """Release the run.

        Args:
            finished: whether to write before that the run is finished, within two seconds.

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


def _set_guard(record: GuardRecord | None, database: Database) -> None:
    database.set_guard(record)
