"""The log of one run: an event counts as recorded only once it is durable."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

import anyio
import anyio.lowlevel

from segments_async._filesystem.threads import NoThread, in_thread
from segments_async._journal.group_commit import GRACE, Entry, GroupCommit
from segments_async._journal.opened_run import OpenedRun
from segments_async._journal.refusals import journal_error
from segments_async._sansio.jobs.commits import UNAWAITED
from segments_async._sansio.jobs.journal_outage import BUSY_PAUSE, LONGEST_OUTAGE
from segments_async._sansio.jobs.lifecycle import Event, State
from segments_async._sansio.jobs.payload import NOTHING, Payload, payload_to_json
from segments_async._sansio.jobs.run_state import RunState
from segments_async._sansio.pace.trace import PacePoint, trace_to_json
from segments_async.errors import JournalError

logger: logging.Logger = logging.getLogger("segments_async")


class RunLog(GroupCommit):
    """One run's log in the database.

    Attributes:
        run_state: where each of the run's exports stands. An event is applied there, and the entry
            that comes of it is appended to the log.
        finished: whether the run had ended before it was opened here, or has ended since. Nothing
            can be recorded then.
        trace: the run's pace over time, as earlier sessions stored it.
        has_sessions: whether the database can end the run's session unnoticed; `check` finds that
            out.
    """

    durable: bool = True

    def __init__(self, run: OpenedRun) -> None:
        super().__init__(run)
        self._closed = False
        self.run_state: RunState = RunState(run.known)
        self.finished: bool = run.ended
        self.name: str = run.name
        self.trace: Sequence[PacePoint] = run.trace
        self.has_sessions: bool = run.has_sessions

    def keep_trace(self, points: Sequence[PacePoint]) -> None:
        """Store the run's pace with the next events that are written."""
        if not self.finished:
            self.opened.unstored_trace = trace_to_json(points)

    def knows_export(self, segment_id: str) -> bool:
        """Whether a later session will find the export of this segment, in the log or set aside."""
        known = self.run_state.record(segment_id).export is not None
        return known and self.tells_export(segment_id)

    async def on_event(self, segment_id: str, event: Event, payload: Payload = NOTHING) -> State:
        """Record an event of a session as durably as it has to be. Returns the state after it.

        The task may be another caller's, because the requests of a shared export are sent by
        whichever of its followers is handed the permit. So recording is shielded from that caller's
        cancellation; the log bounds how long a write may take.

        A caller has to `flush` afterwards. Raises as `record` does.
        """
        # FETCH is of no use to a later session, which asks for the link anew: not worth a commit.
        if event is Event.FETCH:
            self.run_state.apply(segment_id, event, payload, at=datetime.now(UTC))
        elif event in UNAWAITED:
            self.add(segment_id, event, payload)
        else:
            with anyio.CancelScope(shield=True):
                await self.record(segment_id, event, payload)
        return self.run_state.state(segment_id)

    async def record(self, segment_id: str, event: Event, payload: Payload = NOTHING) -> None:
        """Log the event. Returns once the event is durable, or at once while the database is away.

        An event that can wait is written together with another one (`_sansio/jobs/commits.py`).

        While the database is away, the event stays in memory, and is written when the database is
        back. Of all events, only an INTENT must be durable before anything follows. So an INTENT is
        taken back then (by a NOT_SENT, where the INTENT may have been written): the state is NEW,
        and the POST must not be sent.

        Events are logged in the order of the calls. Under cancellation: before the event is in the
        queue, nothing was logged; afterwards the event is, unless the database can't be written.

        Args:
            segment_id: a segment of this session; see `RunState.add`.
            event: what happened.
            payload: what the event tells besides its name.

        Raises:
            IllegalTransition: it can't happen there; nothing changes.
            UnreadablePayload, SecretInPayload: the payload can't be logged; nothing changes.
            JournalError: the database can't be written. Nothing can be recorded any more.
        """
        await anyio.lowlevel.checkpoint_if_cancelled()
        self._check_open()
        if self.away and event is Event.INTENT:
            return
        entry = self._entry(segment_id, event, payload)
        await self.written(entry)
        if not entry.settled and event is Event.INTENT:
            self._queue.append(self._entry(segment_id, Event.NOT_SENT, NOTHING))

    def add(self, segment_id: str, event: Event, payload: Payload = NOTHING) -> None:
        """Log the event without waiting: it is durable before the segment's next event is.

        A caller has to `flush` afterwards. Raises as `record` does.
        """
        self._check_open()
        entry = self._entry(segment_id, event, payload)
        entry.due = self.due_later()
        self._queue.append(entry)

    def _check_open(self) -> None:
        self.attempts.raise_broken()
        if self.finished or self._closed:
            raise AssertionError(f"run {self.name} is over: nothing happens in it")

    def _entry(self, segment_id: str, event: Event, payload: Payload) -> Entry:
        text = payload_to_json(payload)
        entry = self.run_state.apply(segment_id, event, payload, at=datetime.now(UTC))
        active = self.run_state.active
        due = self.due(event, others=len(active) > (segment_id in active))
        return Entry(self.opened.row(entry, text), entry, due=due)

    async def check(self, idle: float) -> None:
        """If nothing was written for `idle` seconds, check that this process still holds the run.

        Raises:
            JournalError: another process has gone on with the run...
        """
        if not self.away and self.idle() >= idle:
            await self.written(Entry())

    async def finish(self, *, patience: float = LONGEST_OUTAGE) -> None:
        """Write that the run is finished. Opened again by its name, the run yields its outcomes.

        Args:
            patience: seconds to wait for the database.

        Raises:
            JournalError: the database can't be written.
        """
        with anyio.move_on_after(patience):
            while not self.finished:
                if self.away or self.unwritten:
                    await self.drained()
                self.attempts.raise_broken()
                states = {state: self.run_state.count(state) for state in State}
                write = partial(self.opened.finish, datetime.now(UTC), states)
                if await self.attempts.attempt(write):
                    self.finished = True
                elif not self.away:
                    await anyio.sleep(BUSY_PAUSE)
        if not self.finished:
            raise journal_error(
                self.opened.location,
                "unavailable",
                f"run {self.name} has ended, and the journal is away: its end was not written. The "
                "same run can be started again, and requests nothing twice",
            )

    async def aclose(self) -> None:
        """Write the queued events, and release the run. Never raises a JournalError."""
        if self._closed:
            return
        self._closed = True
        try:
            left = self.unwritten or (self.opened.unstored_trace and not self.finished)
            if left and not self.attempts.broken:
                with anyio.move_on_after(GRACE, shield=True):
                    await self.drained()
        except JournalError:
            pass  # the callers that waited for the events have got it
        finally:
            await self._release()

    async def _release(self) -> None:
        rows = self.unwritten
        try:
            with anyio.CancelScope(shield=True):
                await in_thread(self._close, rows)
        except NoThread:
            self._close(rows)
        except BaseException:
            self.opened.close()  # cancelled by asyncio itself before the thread started
            raise

    def _close(self, rows: Sequence[dict[str, Any]]) -> None:
        """Store the unwritten events for the next session, and release the run. For a thread."""
        if rows and not self.opened.set_aside(rows):
            logger.error(
                "run %s: the journal is away, and the last %d events could not be stored; "
                "manifest.jsonl has the exports' ids",
                self.name,
                len(rows),
            )
        self.opened.close()
