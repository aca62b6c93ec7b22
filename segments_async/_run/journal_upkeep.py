"""Waiting for a run's journal that is away, its events that can wait, and checks of an idle one."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

import anyio
import attrs
from anyio.abc import TaskGroup

from segments_async._run.job import Job
from segments_async._run.recorder import GuardWriter, Recorder
from segments_async._sansio.jobs.journal_outage import is_away
from segments_async._sansio.pace.backoff import TicketGuard
from segments_async.errors import JournalError

logger: logging.Logger = logging.getLogger("segments_async")

#: Seconds without a write to the journal after which the database is asked whether this process
#: still holds the run.
CHECK_JOURNAL = 30.0


@attrs.define(eq=False)
class JournalUpkeep:
    """Waits for the run's journal while it is away, and then submits the segments that waited.

    And it writes the events for which no caller waits.

    Args:
        guard: the ticket guard, which other processes learn of by the journal.
        writer: writes the guard; None where there is no journal.
        submit: submits a segment whose INTENT could not be recorded. It may raise a JournalError.
        stop: ends the run for a JournalError.
    """

    _recorder: Recorder
    _guard: TicketGuard
    _writer: GuardWriter | None
    _submit: Callable[[Job], Awaitable[None]]
    _stop: Callable[[JournalError], None]
    _tasks: TaskGroup | None = None
    _waiting: bool = False
    _flushing: bool = False
    _jobs: list[Job] = attrs.field(factory=list[Job])
    _guard_failed: bool = False

    def open(self, tasks: TaskGroup | None) -> None:
        """Wait in this task group from now on; None: wait no more."""
        self._tasks = tasks

    def hold(self, job: Job) -> None:
        """Submit the segment when the journal is back. It keeps no slot meanwhile."""
        self._jobs.append(job)
        self.look_after()

    def look_after(self) -> None:
        """Start the task that is needed now, unless it is there already.

        One waits for a journal that is away; the other one writes the events that wait in memory.
        """
        if self._tasks is None:
            return
        if (self._recorder.away or self._jobs) and not self._waiting:
            self._waiting = True
            self._tasks.start_soon(self._wait)
        if not self._flushing and not self._recorder.away and self._recorder.lingers:
            self._flushing = True
            self._tasks.start_soon(self._flush)

    async def check_until(self, done: anyio.Event) -> None:
        """Now and then, while nothing is written, see that this process still holds the run."""
        while not done.is_set():
            with anyio.move_on_after(CHECK_JOURNAL):
                await done.wait()
                return
            try:
                await self._recorder.check(CHECK_JOURNAL)
            except JournalError as exc:
                self._stop(exc)
                return
            self.look_after()

    async def record_guard(self) -> None:
        """Write the ticket guard for the account's other processes, where it has changed.

        While the journal is away, nothing is written: that is done once it is back.
        """
        if self._writer is None or self._recorder.away:
            return
        try:
            await self._writer.record(self._guard)
        except JournalError as exc:
            if not is_away(exc):
                self._stop(exc)
            elif not self._guard_failed:
                # The next request tries again. This process itself waits, written or not.
                self._guard_failed = True
                logger.warning("other processes are not told of the vendor's 500: %s", exc)
        else:
            self._guard_failed = False

    async def _wait(self) -> None:
        try:
            await self._recorder.returned()
        except JournalError as exc:
            self._stop(exc)
            return
        finally:
            self._waiting = False
        await self.record_guard()
        jobs, self._jobs = self._jobs, []
        for job in jobs:
            if job.waiting:
                try:
                    await self._submit(job)
                except JournalError as exc:
                    self._stop(exc)
        self.look_after()

    async def _flush(self) -> None:
        try:
            await self._recorder.flush()
        except JournalError as exc:
            self._stop(exc)
            return
        finally:
            self._flushing = False
        self.look_after()
