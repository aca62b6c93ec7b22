"""Writes entries to one run's log, many in one transaction, and waits for a database that is away.

*Group commit.* A caller that has an entry puts it at the end of the queue. If no caller leads, this
one does: in one hop to a worker thread it writes all entries that have gathered, wakes the callers
whose entries these were, and another caller leads. No task belongs to the log.

*Away.* A database restarts, fails over, is locked, or has no space, and mostly it is back soon.
Meanwhile entries stay in the queue, in order, and no caller waits for them, except those that ask
to wait. What gathers is bounded by what runs at the vendor, since nothing new is submitted.

A cancelled caller stays for the moment that it takes to write an entry that is in the queue. Rows
are numbered and written at most once, so that a task which doesn't live to see its thread's end
(asyncio's own `Task.cancel()` respects no shield) leaves nothing in doubt.
"""

from __future__ import annotations

import itertools
import logging
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

import anyio
import anyio.to_thread

from segments_async._journal.opened_run import OpenedRun
from segments_async._journal.refusals import Locked
from segments_async._sansio.jobs.journal_outage import LONGEST_OUTAGE, JournalOutage
from segments_async._sansio.jobs.lifecycle import Event
from segments_async._sansio.jobs.record import LogEntry
from segments_async.errors import JournalError, JournalReason

logger: logging.Logger = logging.getLogger("segments_async")

#: Entries in one transaction.
_MOST_AT_ONCE = 1000

#: Seconds after which an attempt is left to its thread, and the database counts as away.
_STALL_SECONDS = 5.0

#: Seconds for which a cancelled caller, or one that closes the log, waits for what is in the queue.
GRACE = 0.5


class Entry:
    """A place in the queue. Without a row, it waits for those before it.

    Attributes:
        row: None where there is nothing to write.
        log_entry: what the row says.
        settled: whether it was written, or never will be.
        patient: whether its caller waits while the database is away.
        wakeup: set when the caller that waits is to look again.
    """

    __slots__ = ("log_entry", "patient", "row", "settled", "wakeup")

    def __init__(
        self,
        row: dict[str, Any] | None = None,
        log_entry: LogEntry | None = None,
        *,
        patient: bool = False,
    ) -> None:
        self.row = row
        self.log_entry = log_entry
        self.settled = False
        self.patient = patient
        self.wakeup: anyio.Event | None = None

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

    Args:
        run: where the rows go.
    """

    def __init__(self, run: OpenedRun) -> None:
        self._run = run
        self._queue: deque[Entry] = deque()
        self._leading = False
        self._outage = JournalOutage()
        self._broken: JournalError | None = None
        #: Once it is broken: segments of whose exports the log doesn't tell, and unwritten rows.
        self._never_written: frozenset[str] = frozenset()
        self._unwritten: list[dict[str, Any]] = []
        self._sets_aside = False

    @property
    def away(self) -> bool:
        """Whether the database can't be written for now."""
        return self._outage.away

    @property
    def broken(self) -> bool:
        """Whether nothing can be written any more."""
        return self._broken is not None

    @property
    def unwritten(self) -> list[dict[str, Any]]:
        """The rows that the database hasn't taken."""
        return self._unwritten or [e.row for e in self._queue if e.row is not None]

    def tells_export(self, segment_id: str) -> bool:
        """Whether a later session will find the segment's export: in the log, or set aside."""
        if self._sets_aside and (self._broken is None or self._unwritten):
            return True
        if segment_id in self._never_written:
            return False
        return not any(entry.first_tells_export(segment_id) for entry in self._queue)

    def idle(self) -> float:
        """Seconds since the database took anything; 0 while entries are in the queue."""
        return 0.0 if self._queue else self._outage.idle(anyio.current_time())

    def append(self, entry: Entry) -> None:
        """Put an entry into the queue without waiting for it."""
        self._queue.append(entry)

    async def written(self, entry: Entry) -> None:
        """Put an entry into the queue, and wait until it is written or the database is away.

        Raises:
            JournalError: nothing can be written any more.
        """
        self.append(entry)
        try:
            await self._settle(entry)
        except anyio.get_cancelled_exc_class():
            if not entry.settled:
                with anyio.move_on_after(GRACE, shield=True):
                    await self._settle(entry)
            raise

    async def drained(self) -> None:
        """Wait until everything in the queue is written.

        Raises:
            JournalError: nothing can be written any more.
        """
        entry = Entry(patient=True)
        self.append(entry)
        await self._settle(entry)

    async def returned(self) -> None:
        """Wait for a database that is away, until the queued events are written.

        Raises:
            JournalError: the database was away for too long, or came back without durable events.
        """
        self.raise_broken()
        while self.away or any(e.wakeup is None and not e.patient for e in self._queue):
            await self.drained()

    async def attempt(self, call: Callable[[], None]) -> bool:
        """Make one call of the database in a worker thread. Whether the call did its work."""
        error = await self._attempt(call)
        now = anyio.current_time()
        if error is None:
            seconds = self._outage.on_written(now)
            if seconds is not None:
                logger.info("run %s: the journal is back, after %.1f s", self._run.name, seconds)
            return True
        if isinstance(error, Locked):
            if self._outage.on_busy(now):
                self._on_away(now, self._error(str(error), "locked"), error)
        elif isinstance(error, JournalError) and error.reason == "unavailable":
            self._on_away(now, error, error)
        elif isinstance(error, JournalError):
            self._break(error, error)
        else:
            text = f"can't be written: {type(error).__name__}"
            self._break(self._error(text, "unavailable"), error)
        return False

    def raise_broken(self) -> None:
        """Raise the error that ended all writing, anew for each caller."""
        if self._broken is not None:
            error = JournalError(
                str(self._broken), reason=self._broken.reason, location=self._broken.location
            )
            raise error from self._broken.__cause__

    async def _settle(self, entry: Entry) -> None:
        """Wait for an entry in the queue to be written, by whichever caller leads."""
        try:
            while not entry.settled and (entry.patient or not self.away):
                if self._leading:
                    entry.wakeup = anyio.Event()
                    await entry.wakeup.wait()
                else:
                    await self._lead()
        finally:
            entry.wakeup = None
            if entry.row is None and not entry.settled:
                self._queue.remove(entry)
            if not self._leading:
                # The caller that has waited longest leads.
                waiting = (e.wakeup for e in self._queue if e.wakeup is not None)
                if (wakeup := next(waiting, None)) is not None:
                    wakeup.set()
        self.raise_broken()

    async def _lead(self) -> None:
        """Write the queued events once. At the end no caller leads."""
        self._leading = True
        try:
            if pause := self._outage.next_pause():
                await anyio.sleep(pause)
            await self._write_batch()
        finally:
            self._leading = False

    async def _write_batch(self) -> None:
        batch = list(itertools.islice(self._queue, _MOST_AT_ONCE))
        rows = [entry.row for entry in batch if entry.row is not None]
        # Without rows, the attempt shows whether any could be written.
        if await self.attempt(partial(self._run.append, rows)):
            for entry in batch:
                if self._queue and self._queue[0] is entry:
                    self._queue.popleft()
                entry.settle()

    async def _attempt(self, call: Callable[[], None]) -> Exception | None:
        """Make the call. Returns its error; None if the call succeeded.

        The call is shielded from cancellation, for some seconds only: with a server that vanished,
        its thread would wait for minutes. Such a thread is left alone, and the next attempt finds
        in the log what the thread has written.
        """
        ended = False
        with anyio.CancelScope(shield=True, deadline=anyio.current_time() + _STALL_SECONDS):
            try:
                await anyio.to_thread.run_sync(call, abandon_on_cancel=True)
            except Exception as exc:  # noqa: BLE001 - whatever it is, no later event can be logged
                return exc
            ended = True
        if ended:
            return None
        self._run.abandon()
        return self._error(f"no answer within {_STALL_SECONDS:g} s", "unavailable")

    def _on_away(self, now: float, why: JournalError, cause: Exception) -> None:
        match self._outage.on_away(now):
            case "begins":
                self._sets_aside = self._run.sets_aside
                logger.warning(
                    "run %s: the journal is away (%s); no export is asked for until it is back, "
                    "and what happens meanwhile is kept in memory",
                    self._run.name,
                    why,
                )
            case "over":
                gone = self._gone(why)
                self._unwritten = self.unwritten
                self._break(gone, cause)
                return
            case "lasts":
                pass
        for entry in self._queue:
            if entry.wakeup is not None:
                entry.wakeup.set()

    def _break(self, error: JournalError, cause: Exception) -> None:
        error.__cause__ = cause.__cause__ if cause is error else cause
        self._broken = error
        self._never_written = frozenset(
            entry.log_entry.segment_id
            for entry in self._queue
            if entry.log_entry is not None and entry.first_tells_export()
        )
        while self._queue:
            self._queue.popleft().settle()

    def _error(self, what: str, reason: JournalReason) -> JournalError:
        where = self._run.location
        return JournalError(f"{where}: {what}", reason=reason, location=where)

    def _gone(self, why: JournalError) -> JournalError:
        return JournalError(
            f"{why}; run {self._run.name} was ended, since its journal had been away for "
            f"{LONGEST_OUTAGE / 60:g} minutes. {len(self.unwritten)} events were not written; "
            "exports whose id is known are told of as outcomes, and in manifest.jsonl",
            reason=why.reason,
            location=self._run.location,
        )
