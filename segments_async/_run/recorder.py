"""The log of a run that has no journal, and the writer of the ticket guard into a journal."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

import anyio

from segments_async._journal.records import GuardRecord
from segments_async._sansio.jobs.lifecycle import Event, State
from segments_async._sansio.jobs.payload import NOTHING, Payload
from segments_async._sansio.jobs.run_state import RunState
from segments_async._sansio.pace.backoff import TicketGuard
from segments_async._sansio.pace.trace import PacePoint

if TYPE_CHECKING:
    from segments_async._journal.database import Database
    from segments_async._journal.run_log import RunLog
    from segments_async._journal.sql import SqlJournal


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


class MemoryLog:
    """The log of a run without a journal, in the place of a `RunLog`: it ends with the process."""

    durable: bool = False
    finished: bool = False
    away: bool = False
    lingers: bool = False
    has_sessions: bool = False
    trace: Sequence[PacePoint] = ()

    def __init__(self) -> None:
        self.run_state: RunState = RunState()

    async def on_event(self, segment_id: str, event: Event, payload: Payload = NOTHING) -> State:
        self.run_state.apply(segment_id, event, payload, at=datetime.now(UTC))
        return self.run_state.state(segment_id)

    def knows_export(self, segment_id: str) -> bool:  # noqa: ARG002
        return False

    def keep_trace(self, points: Sequence[PacePoint]) -> None:
        """Nothing to do: `PaceWatch` has the points."""

    def hurry(self) -> None: ...

    async def flush(self) -> None: ...

    async def returned(self) -> None: ...

    async def check(self, idle: float) -> None: ...

    async def finish(self, *, patience: float = 0.0) -> None: ...

    async def aclose(self) -> None: ...


#: Where a run records its events. A journal is an extra, so the name alone is known here.
Recorder: TypeAlias = "MemoryLog | RunLog"


def _set_guard(record: GuardRecord | None, database: Database) -> None:
    database.set_guard(record)
