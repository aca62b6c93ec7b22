"""Writes entries to one run's log, many in one transaction, and waits for a database that is away.

*Group commit.* A caller that has an entry puts it at the end of the queue. If no caller leads, this
one does: in one hop to a worker thread it writes all entries that have gathered, wakes the callers
whose entries these were, and another caller leads. No task belongs to the log.

*Lingering.* An entry that can wait is due later (`_sansio/jobs/commits.py`). Its caller leads only
then, and only if no other caller has written the entry with its own.

*Away.* A database restarts, fails over, is locked, or has no space, and mostly it is back soon.
Meanwhile entries stay in the queue, in order, and no caller waits for them, except those that ask
to wait. The queue is bounded: nothing new is submitted, so only exports at the vendor add entries.

A cancelled caller stays for the moment that it takes to write an entry that is in the queue. Rows
are numbered and written at most once, so that a task which doesn't live to see its thread's end
(asyncio's own `Task.cancel()` respects no shield) leaves nothing in doubt.
"""

from __future__ import annotations

import itertools
import math
from collections import deque
from functools import partial
from typing import Any

import anyio
import anyio.lowlevel
import attrs

from segments_async._journal.attempts import Attempts
from segments_async._journal.opened_run import OpenedRun
from segments_async._sansio.jobs.commits import CommitSchedule
from segments_async._sansio.jobs.lifecycle import Event
from segments_async._sansio.jobs.record import LogEntry

#: Entries in one transaction.
_MOST_AT_ONCE = 1000

#: Seconds for which a cancelled caller, or one that closes the log, waits for what is in the queue.
GRACE = 0.5


@attrs.define(eq=False)
class Entry:
    """A place in the queue. Without a row, it waits for those before it.

    Attributes:
        row: None where there is nothing to write.
        log_entry: what the row says.
        due: when it is written at the latest, in seconds.
        settled: whether it was written, or never will be.
        patient: whether its caller waits while the database is away.
        waited: whether a caller waits for it.
        wakeup: set when the caller that waits is to look again.
    """

    row: dict[str, Any] | None = None
    log_entry: LogEntry | None = None
    due: float = -math.inf
    settled: bool = False
    patient: bool = False
    waited: bool = False
    wakeup: anyio.Event | None = None

    def first_tells_export(self, segment_id: str | None = None) -> bool:
        """Whether the log has the segment's export from this entry on; None: any segment's."""
        entry = self.log_entry
        if entry is None or segment_id not in (None, entry.segment_id):
            return False
        return entry.event in (Event.ACCEPTED, Event.ADOPTED)

    def settle(self) -> None:
        self.settled = True
        if self.wakeup is not None:
            self.wakeup.set()


class GroupCommit:
    """The queue of one run's entries, and the attempts to write them.

    Attributes:
        opened: the run in the database.
        attempts: to use the run's database.
    """

    def __init__(self, run: OpenedRun) -> None:
        self.opened: OpenedRun = run
        self.attempts: Attempts = Attempts(run, self._on_away, self._on_broken)
        self._queue: deque[Entry] = deque()
        self._leading = False
        self._schedule = CommitSchedule()
        self._hurried = False
        #: After the last attempt has failed: segments whose exports the log lacks, and the rows.
        self._never_written: frozenset[str] = frozenset()
        self._unwritten: list[dict[str, Any]] = []
        self._sets_aside = False

    @property
    def away(self) -> bool:
        """Whether the database can't be written for now."""
        return self.attempts.away

    @property
    def unwritten(self) -> list[dict[str, Any]]:
        """The rows that the database hasn't taken."""
        return self._unwritten or [e.row for e in self._queue if e.row is not None]

    def tells_export(self, segment_id: str) -> bool:
        """Whether a later session will find the segment's export: in the log, or set aside."""
        if self._sets_aside and (not self.attempts.broken or self._unwritten):
            return True
        if segment_id in self._never_written:
            return False
        return not any(entry.first_tells_export(segment_id) for entry in self._queue)

    def idle(self) -> float:
        """Seconds since the database took anything; 0 while entries are in the queue."""
        return 0.0 if self._queue else self.attempts.idle()

    @property
    def lingers(self) -> bool:
        """Whether entries are in the queue for which no caller waits."""
        return any(not entry.waited for entry in self._queue)

    def due(self, event: Event, *, others: bool) -> float:
        """When an event is written at the latest; see `CommitSchedule.due`."""
        now = anyio.current_time()
        return now if self._hurried else self._schedule.due(event, now, others=others)

    def due_later(self) -> float:
        """When an event is written at the latest for which no caller waits."""
        now = anyio.current_time()
        return now if self._hurried else self._schedule.due_later(now)

    def hurry(self) -> None:
        """Let no entry linger from now on."""
        self._hurried = True
        for entry in self._queue:
            entry.due = -math.inf
            if entry.wakeup is not None:
                entry.wakeup.set()

    async def flush(self) -> None:
        """Write the entries for which no caller waits, once each is due, until there are none.

        Raises:
            JournalError: nothing can be written any more.
        """
        while not self.away:
            entry = next((one for one in self._queue if not one.waited), None)
            if entry is None:
                return
            await self._settle(entry)

    async def written(self, entry: Entry) -> None:
        """Put an entry into the queue, and wait until it is written or the database is away.

        Raises:
            JournalError: nothing can be written any more.
        """
        self._queue.append(entry)
        try:
            await self._settle(entry)
        except anyio.get_cancelled_exc_class():
            if not entry.settled:
                entry.due = -math.inf
                with anyio.move_on_after(GRACE, shield=True):
                    await self._settle(entry)
            raise

    async def drained(self) -> None:
        """Wait until everything in the queue is written.

        Raises:
            JournalError: nothing can be written any more.
        """
        entry = Entry(patient=True)
        self._queue.append(entry)
        await self._settle(entry)

    async def returned(self) -> None:
        """Wait for a database that is away, until the queued events are written.

        Raises:
            JournalError: the database was away for too long, or came back without durable events.
        """
        self.attempts.raise_broken()
        while self.away or self.lingers:
            await self.drained()

    async def _settle(self, entry: Entry) -> None:
        """Wait for an entry in the queue to be written, by whichever caller leads."""
        entry.waited = True
        try:
            while not entry.settled and (entry.patient or not self.away):
                left = entry.due - anyio.current_time()
                if self._leading or left > 0:
                    entry.wakeup = anyio.Event()
                    with anyio.move_on_after(left if left > 0 else math.inf):
                        await entry.wakeup.wait()
                else:
                    await self._lead()
        finally:
            entry.waited, entry.wakeup = False, None
            if entry.row is None and not entry.settled:
                self._queue.remove(entry)
            if not self._leading:
                self._wake_next()
        self.attempts.raise_broken()

    def _wake_next(self) -> None:
        """Wake the caller that has waited longest for an entry that is due: it leads then."""
        now = anyio.current_time()
        for entry in self._queue:
            if entry.wakeup is not None and entry.due <= now:
                entry.wakeup.set()
                return

    async def _lead(self) -> None:
        """Write the queued events once. At the end no caller leads."""
        self._leading = True
        try:
            if pause := self.attempts.next_pause():
                await anyio.sleep(pause)
            else:
                # Requests that were granted together write their INTENTs together.
                await anyio.lowlevel.cancel_shielded_checkpoint()
            await self._write_batch()
        finally:
            self._leading = False

    async def _write_batch(self) -> None:
        batch = list(itertools.islice(self._queue, _MOST_AT_ONCE))
        rows = [entry.row for entry in batch if entry.row is not None]
        # Without rows, the attempt shows whether any could be written.
        if await self.attempts.attempt(partial(self.opened.append, rows)):
            if rows:
                self._schedule.on_commit(anyio.current_time())
            for entry in batch:
                if self._queue and self._queue[0] is entry:
                    self._queue.popleft()
                entry.settle()

    def _on_away(self) -> None:
        """The database is away: no caller waits any more, except those that ask to."""
        self._sets_aside = self.opened.sets_aside
        for entry in self._queue:
            if entry.wakeup is not None:
                entry.wakeup.set()

    def _on_broken(self, keep: bool) -> int:
        """Nothing can be written any more. Returns how many rows the database hasn't taken.

        Args:
            keep: whether the rows are kept, to be set aside for a later session.
        """
        unwritten = self.unwritten
        if keep:
            self._unwritten = unwritten
        self._never_written = frozenset(
            entry.log_entry.segment_id
            for entry in self._queue
            if entry.log_entry is not None and entry.first_tells_export()
        )
        while self._queue:
            self._queue.popleft().settle()
        return len(unwritten)
