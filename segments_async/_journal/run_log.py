"""The log of one run: an event is told only once it is durable, and many are made so at once.

*Group commit.* Whoever has an event puts it at the end of the queue. If nobody leads, that caller
leads: in one hop to a worker thread it writes all that has gathered, wakes those whose events these
were, and hands on the lead. No task belongs to the log.

*Away.* A database restarts, fails over, is locked, or has no space, and mostly it is back soon.
Meanwhile events stay in the queue, in order, and nobody waits for them: of all events only an
INTENT must be durable before anything follows. An INTENT is taken back, so that no POST goes out,
and `returned` waits for the database, and writes what has gathered. What gathers is bounded by what
is under way at the vendor, since nothing new is asked for.

A cancelled caller stays for the moment that it takes to write an event that it handed over. Rows
are numbered, and written at most once, so that a task which doesn't live to see its thread's end
(asyncio's own `Task.cancel()` respects no shield) leaves nothing in doubt.
"""

from __future__ import annotations

import itertools
import logging
import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread

from segments_async._journal.locked import Locked
from segments_async._journal.opened_run import OpenedRun
from segments_async._sansio.jobs.lifecycle import Event, State
from segments_async._sansio.jobs.payload import NOTHING, Payload, payload_to_json
from segments_async._sansio.jobs.record import ExportRecord, LogEntry
from segments_async._sansio.jobs.run_state import RunState
from segments_async.errors import JournalError, JournalReason

logger: logging.Logger = logging.getLogger("segments_async")

#: Events in one transaction.
_MOST_AT_ONCE = 1000

#: Seconds for which a database may be away before the run ends as `JournalError`. A restart takes
#: seconds, a failover a minute or two, another process's long transaction some minutes.
PATIENCE = 600.0

#: Seconds for which another process's transaction is waited for in silence.
_BUSY_SECONDS = 2.0

#: Seconds after which an attempt is left to its thread, and the database counts as away.
_STALL_SECONDS = 5.0

#: Seconds between two attempts, while it is busy, and at first and at last while it is away.
_BETWEEN = 0.05
_SHORTEST_PAUSE = 0.1
_LONGEST_PAUSE = 2.0

#: Seconds for which a cancelled caller sees to it that an event is written that was handed over.
_GRACE = 0.5


class _Entry:
    """A place in the queue. Without a row, it waits for those before it.

    Attributes:
        row: None where there is nothing to write.
        log_entry: what the row says.
        settled: whether it was written, or never will be.
        patient: whether its caller waits while the database is away.
        wakeup: set when there is news, while its caller waits.
    """

    __slots__ = ("log_entry", "patient", "row", "settled", "wakeup")

    def __init__(
        self, row: dict[str, Any] | None = None, log_entry: LogEntry | None = None
    ) -> None:
        self.row = row
        self.log_entry = log_entry
        self.settled = False
        self.patient = row is None
        self.wakeup: anyio.Event | None = None


class RunLog:
    """One run's log in the database.

    Attributes:
        run_state: where each of the run's exports stands. An event is applied there, and the entry
            that comes of it is appended to the log.
        finished: whether the run had ended before it was opened here, or has ended since. Nothing
            can be recorded then.
    """

    def __init__(self, run: OpenedRun) -> None:
        self._run = run
        self.run_state: RunState = RunState(run.known)
        self._queue: deque[_Entry] = deque()
        self._leading = False
        self._busy_since: float | None = None
        self._away_since: float | None = None
        self._pause = _SHORTEST_PAUSE
        self._last_write = -math.inf
        self._broken: JournalError | None = None
        #: Segments of whose exports the log doesn't tell, and rows to set aside, once it is broken.
        self._never_written: frozenset[str] = frozenset()
        self._unwritten: list[dict[str, Any]] = []
        self._sets_aside = False
        self._closed = False
        self.finished: bool = run.ended_at is not None

    @property
    def name(self) -> str:
        return self._run.name

    @property
    def started_at(self) -> datetime:
        """When the run's first session started."""
        return self._run.started_at

    @property
    def ended_at(self) -> datetime | None:
        return self._run.ended_at

    @property
    def records(self) -> Mapping[str, ExportRecord]:
        """The records of all exports of which the log has an event."""
        return self.run_state.records

    @property
    def away(self) -> bool:
        """Whether the database can't be written for now, and events wait in memory."""
        return self._away_since is not None

    @property
    def has_sessions(self) -> bool:
        """Whether the database can lose the run's session without a word: see `check`."""
        return self._run.has_sessions

    def knows_export(self, segment_id: str) -> bool:
        """Whether a later session will find the export of this segment, in the log or set aside."""
        if self.run_state.record(segment_id).export is None:
            return False
        if self._sets_aside and (self._broken is None or self._unwritten):
            return True
        if segment_id in self._never_written:
            return False
        return not any(_tells_export(entry, segment_id) for entry in self._queue)

    async def record(self, segment_id: str, event: Event, payload: Payload = NOTHING) -> None:
        """Log the event. Returns once it is durable, or at once while the database is away.

        Then the event is kept in memory, and written when the database is back; but an INTENT is
        taken back (by a NOT_SENT, where it may have been written): the state is NEW, and the POST
        must not go.

        Events are logged in the order of the calls. Under cancellation: before the event is handed
        over, nothing was logged; afterwards the event is, unless the database can't be written.

        Args:
            segment_id: an opened segment.
            event: what happened.
            facts: as :func:`payload_of` makes them.

        Raises:
            IllegalTransition: it can't happen there; nothing changes.
            UnreadablePayload, SecretInPayload: the payload can't be logged; nothing changes.
            JournalError: the database can't be written. Nothing can be recorded any more.
        """
        await anyio.lowlevel.checkpoint_if_cancelled()
        self._raise_broken()
        if self.finished or self._closed:
            raise AssertionError(f"run {self.name} is over: nothing happens in it")
        if self.away and event is Event.INTENT:
            return
        entry = self._entry(segment_id, event, payload)
        await self._written(entry)
        if not entry.settled and event is Event.INTENT:
            self._queue.append(self._entry(segment_id, Event.NOT_SENT, NOTHING))

    def _entry(self, segment_id: str, event: Event, payload: Payload) -> _Entry:
        text = payload_to_json(payload)
        entry = self.run_state.apply(segment_id, event, payload, at=datetime.now(UTC))
        return _Entry(self._run.row(entry, text), entry)

    async def returned(self) -> None:
        """Wait for the database, if it is away, and write what has gathered.

        Raises:
            JournalError: it was away for too long, or came back without what was durable. Nothing
                can be recorded any more.
        """
        self._raise_broken()
        while self.away or any(e.wakeup is None and not e.patient for e in self._queue):
            await self._settle(_Entry())

    async def check(self, idle: float) -> None:
        """If nothing was written for so many seconds, see whether the run is still held.

        Raises:
            JournalError: another process has gone on with the run...
        """
        if self._queue or anyio.current_time() - self._last_write < idle:
            return
        entry = _Entry()
        entry.patient = False
        await self._written(entry)

    async def finish(self, *, patience: float = PATIENCE) -> None:
        """The run is over: opened again by its name, it tells how everything ended.

        Args:
            patience: seconds to wait for the database.

        Raises:
            JournalError: the database can't be written.
        """
        with anyio.move_on_after(patience):
            while not self.finished:
                await self._settle(_Entry())
                ended = partial(
                    self._run.finish,
                    datetime.now(UTC),
                    {state: self.run_state.count(state) for state in State},
                )
                if self._note(await self._attempt(ended)):
                    self.finished = True
                elif not self.away:
                    await anyio.sleep(_BETWEEN)
        if not self.finished:
            raise self._unfinished()

    async def aclose(self) -> None:
        """Write what was handed over, and let go of the run. Never raises for the journal."""
        if self._closed:
            return
        self._closed = True
        try:
            if self._broken is None and self._queue:
                with anyio.move_on_after(_GRACE, shield=True):
                    await self._settle(_Entry())
        except JournalError:
            pass  # who waited for the event has been told
        finally:
            await self._let_go()

    async def _let_go(self) -> None:
        rows = self._unwritten or [e.row for e in self._queue if e.row is not None]
        try:
            with anyio.CancelScope(shield=True):
                if rows:
                    await anyio.to_thread.run_sync(self._set_aside, rows)
                await anyio.to_thread.run_sync(self._run.close)
        except BaseException:
            self._run.close()  # cancelled by asyncio itself before the thread started
            raise

    def _set_aside(self, rows: Sequence[dict[str, Any]]) -> None:
        """Keep what was never written for the next session. For a worker thread."""
        if not self._run.set_aside(rows):
            logger.error(
                "run %s: its journal is away, and the last %d events are in it nowhere; "
                "manifest.jsonl has the exports' ids",
                self.name,
                len(rows),
            )

    # ----------------------------------------------------------------- group commit

    async def _written(self, entry: _Entry) -> None:
        """Wait for the entry to be written, or for the news that the database is away."""
        try:
            await self._settle(entry)
        except anyio.get_cancelled_exc_class():
            if not entry.settled:
                with anyio.move_on_after(_GRACE, shield=True):
                    await self._settle(entry, queued=True)
            raise

    async def _settle(self, entry: _Entry, *, queued: bool = False) -> None:
        """Wait for the entry to be written, by whoever leads."""
        if not queued:
            self._queue.append(entry)
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
            self._hand_on()
        self._raise_broken()

    async def _lead(self) -> None:
        """Write what has gathered, once. At the end nobody leads."""
        self._leading = True
        try:
            if self.away:
                await anyio.sleep(self._pause)
                self._pause = min(2 * self._pause, _LONGEST_PAUSE)
            elif self._busy_since is not None:
                await anyio.sleep(_BETWEEN)
            await self._write_batch()
        finally:
            self._leading = False

    async def _write_batch(self) -> None:
        batch = list(itertools.islice(self._queue, _MOST_AT_ONCE))
        rows = [entry.row for entry in batch if entry.row is not None]
        # Without rows, only to see whether any could be written.
        if self._note(await self._attempt(partial(self._run.append, rows))):
            for entry in batch:
                if self._queue and self._queue[0] is entry:
                    self._queue.popleft()
                _tell(entry)

    async def _attempt(self, call: Callable[[], None]) -> Exception | None:
        """Make one call in a worker thread. What it raised; None where it did its work.

        Shielded, but not for ever: a server that is gone without a word would keep its thread for
        minutes. Such a thread is left alone, and what it still does is found by the next attempt.
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
        return JournalError(
            f"{self._run.location}: no answer within {_STALL_SECONDS:g} s",
            reason="unavailable",
            location=self._run.location,
        )

    def _note(self, error: Exception | None) -> bool:
        """What an attempt says of the database. Whether the attempt did its work."""
        now = anyio.current_time()
        if error is None:
            self._last_write = now
            self._came_back(now)
            return True
        if isinstance(error, Locked):
            if self._busy_since is None:
                self._busy_since = now
            if now - self._busy_since < _BUSY_SECONDS:
                return False
            why = self._error(str(error), "locked")
        elif isinstance(error, JournalError) and error.reason == "unavailable":
            why = error
        else:
            why = error if isinstance(error, JournalError) else self._unwritable(error)
            self._break(why, error)
            return False
        self._went_away(now, why, error)
        return False

    def _went_away(self, now: float, why: JournalError, cause: Exception) -> None:
        if self._away_since is None:
            self._away_since, self._pause = now, _SHORTEST_PAUSE
            self._sets_aside = self._run.sets_aside
            logger.warning(
                "run %s: the journal is away (%s); no export is asked for until it is back, and "
                "what happens meanwhile is kept in memory",
                self.name,
                why,
            )
        elif now - self._away_since > PATIENCE:
            gone = self._gone(why)
            self._unwritten = [e.row for e in self._queue if e.row is not None]
            self._break(gone, cause)
            return
        self._wake_all()

    def _came_back(self, now: float) -> None:
        self._busy_since = None
        if self._away_since is not None:
            seconds = now - self._away_since
            self._away_since = None
            logger.info("run %s: the journal is back, after %.1f s", self.name, seconds)

    def _hand_on(self) -> None:
        """If nobody leads, whoever waits first does."""
        if self._leading:
            return
        waiting = (entry.wakeup for entry in self._queue if entry.wakeup is not None)
        if (wakeup := next(waiting, None)) is not None:
            wakeup.set()

    def _wake_all(self) -> None:
        for entry in self._queue:
            if entry.wakeup is not None:
                entry.wakeup.set()

    def _break(self, error: JournalError, cause: Exception) -> None:
        error.__cause__ = cause.__cause__ if cause is error else cause
        self._broken = error
        self._away_since = None
        self._never_written = frozenset(
            entry.log_entry.segment_id
            for entry in self._queue
            if entry.log_entry is not None and _tells_export(entry, entry.log_entry.segment_id)
        )
        while self._queue:
            _tell(self._queue.popleft())

    def _raise_broken(self) -> None:
        if self._broken is not None:
            error = JournalError(
                str(self._broken), reason=self._broken.reason, location=self._broken.location
            )
            raise error from self._broken.__cause__

    def _error(self, what: str, reason: JournalReason) -> JournalError:
        where = self._run.location
        return JournalError(f"{where}: {what}", reason=reason, location=where)

    def _gone(self, why: JournalError) -> JournalError:
        rows = sum(entry.row is not None for entry in self._queue)
        return JournalError(
            f"{why}; run {self.name} was ended, since its journal had been away for "
            f"{PATIENCE / 60:g} minutes. {rows} events were not written; exports whose id is known "
            "are told of as outcomes, and in manifest.jsonl",
            reason=why.reason,
            location=self._run.location,
        )

    def _unfinished(self) -> JournalError:
        return self._error(
            f"run {self.name} has ended, and the journal is away: its end was not written. The "
            "same run can be started again, and asks for nothing twice",
            "unavailable",
        )

    def _unwritable(self, exc: Exception) -> JournalError:
        return self._error(f"can't be written: {type(exc).__name__}", "unavailable")


def _tells_export(entry: _Entry, segment_id: str) -> bool:
    """Whether the entry is what first tells of the segment's export."""
    log_entry = entry.log_entry
    return (
        log_entry is not None
        and log_entry.segment_id == segment_id
        and log_entry.event in (Event.ACCEPTED, Event.ADOPTED)
    )


def _tell(entry: _Entry) -> None:
    entry.settled = True
    if entry.wakeup is not None:
        entry.wakeup.set()
