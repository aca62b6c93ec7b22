"""One session of a run, from its entering to its end: its tasks, its timeout, and its end."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import Generic, cast

import anyio

from segments_async._requests.followers import POST_GRACE
from segments_async._requests.permits import Permit
from segments_async._requests.sharing import Sharing
from segments_async._requests.watch import RequestWatch
from segments_async._run.engine import Engine
from segments_async._run.outcomes import Outcomes
from segments_async._run.request import RunRequest
from segments_async._run.resources import Resources
from segments_async._run.session_view import SessionView
from segments_async._run.start import RunStart
from segments_async._run.telemetry import RunTelemetry
from segments_async._run.workers import WorkerPool
from segments_async._sansio.pace.backoff import MOST_INTERNAL_ERRORS
from segments_async._sansio.pace.scheduler import Kind
from segments_async._telemetry.guard import log
from segments_async.errors import JournalError, SegmentsError
from segments_async.results import NotExported, OutcomeT

#: Seconds that a session that ends waits for the journal to take the ticket guard, and as many for
#: the journal to take the run's end.
AT_THE_END = 2.0


class Session(Generic[OutcomeT]):
    """One session of a run; its attributes are those of `RunSession`.

    Args:
        outcomes: where outcomes are told; None: for this session alone.
    """

    def __init__(
        self,
        resources: Resources,
        request: RunRequest,
        start: RunStart,
        outcomes: Outcomes[OutcomeT] | None = None,
    ) -> None:
        self.name: str = start.name
        self._resources = resources
        self._start = start
        self._recorder = start.recorder
        self._options = request.options
        self.outcomes: Outcomes[OutcomeT] = outcomes or Outcomes(start.name, request.destination)
        self._workers = WorkerPool(self._perform)
        self._watch = RequestWatch()
        self._posts: set[Permit] = set()
        self._telemetry = RunTelemetry(start.name, start.recorder.run_state, len(request.segments))
        self.engine: Engine[OutcomeT] = Engine(
            resources, request, start, self._workers, self.outcomes, self._telemetry, self.stop
        )
        self.view: SessionView[OutcomeT] = SessionView(
            resources, start.recorder, self.engine, self.outcomes, request.destination
        )
        self.scope: anyio.CancelScope = anyio.CancelScope()
        self._deadline = anyio.CancelScope()
        self._stop_reason = f"no time left after {self._options.timeout} s"
        self.started_at: datetime = datetime.now(UTC)
        self.ended_at: datetime = self.started_at

    # ----------------------------------------------------------------- from start to end

    async def run(self) -> None:
        """Run to the end. An error that ends the run is raised to the callers that iterate."""
        self._telemetry.began()
        try:
            with self.scope:
                if self._options.timeout is not None:
                    self._deadline.deadline = anyio.current_time() + self._options.timeout
                with self._deadline:  # which may have been cancelled before
                    await self._work()
                    await self._finish_recording()
                if self._deadline.cancelled_caught and self.outcomes.tells_the_rest:
                    self.engine.interrupt(self._stop_reason)
            if self.scope.cancelled_caught and self.outcomes.tells_the_rest:
                self.engine.interrupt("the run was left before its end")
        except (BaseExceptionGroup, Exception) as exc:  # noqa: BLE001 - raised to the run's caller
            # Kept, not raised: the caller's task group would wrap it in an ExceptionGroup.
            self.outcomes.error = ending_error(exc, self.name)
        finally:
            await self._finish()

    async def _work(self) -> None:
        journal, guard = self._start.journal, self._start.guard
        unfinished = not self._recorder.finished
        try:
            async with anyio.create_task_group() as tasks:
                self.engine.open(tasks)
                self._workers.open(tasks)
                self._watch.open(tasks)
                done = anyio.Event()
                try:
                    if journal is not None and guard is not None and unfinished:
                        sharing = Sharing(self._resources.gate, journal, guard.on_read)
                        await sharing.join()
                        tasks.start_soon(sharing.keep, done)
                    if self._recorder.has_sessions and unfinished:
                        tasks.start_soon(self.engine.upkeep.check_until, done)
                    tasks.start_soon(self._telemetry.look, done, self.view.waits)
                    tasks.start_soon(self.view.pace.watch, done)
                    await self.engine.start_all()
                    if self.engine.unsettled:
                        # Leads the gate when no other caller does, until all outcomes are known.
                        await self._resources.gate.next(self._workers)
                except anyio.get_cancelled_exc_class():
                    self._bound_posts()
                    raise
                finally:
                    self._watch.close()
                    self._workers.close()
                    self.outcomes.hurry()
                    done.set()
        finally:
            self.engine.open(None)

    async def _perform(self, permit: Permit) -> None:
        """Send one permitted request, in a worker."""
        post = permit.queued.kind is Kind.SUBMIT
        if post:
            self._posts.add(permit)
        self._watch.add(permit)
        try:
            await self._resources.requests.perform(permit)
        finally:
            self._watch.discard(permit)
            self._posts.discard(permit)
        await self.engine.upkeep.record_guard()
        count = self.engine.stats.internal_errors
        if count >= MOST_INTERNAL_ERRORS:
            # Each 500 raises a ticket with the vendor: six of them are enough for one run.
            self.expire(f"the vendor answered {count} requests with 500")

    def _bound_posts(self) -> None:
        """Limit the time of what is shielded: of the POSTs on the wire, and of recording."""
        self._recorder.hurry()
        until = anyio.current_time() + POST_GRACE
        for permit in self._posts:
            permit.bound(until)

    def expire(self, reason: str) -> None:
        """End the session as if its time were up: the unfinished segments are told of."""
        self._stop_reason = reason
        self._deadline.cancel()

    def stop(self, error: SegmentsError) -> None:
        """An error about the account, or about the journal, ends the run."""
        if self.outcomes.error is None and isinstance(error, JournalError):
            self._stop_reason = f"the journal ended the run: {error}"
        self.outcomes.error = self.outcomes.error or error
        self._deadline.cancel()

    # ----------------------------------------------------------------- the end

    async def _finish_recording(self) -> None:
        """Write the last events, and, once every outcome is known, the run's end."""
        try:
            await self._recorder.returned()
            self._keep_pace()
            if self._is_finished():
                await self._recorder.finish()
        except JournalError as exc:
            self.outcomes.error = self.outcomes.error or exc

    async def _finish(self) -> None:
        """After the run's end, for any reason: write the last lines, and wake waiting callers."""
        self.engine.close()
        self.view.on_end()
        self.ended_at = datetime.now(UTC)
        self._keep_pace()
        with anyio.CancelScope(shield=True):
            await self.outcomes.write()
            with anyio.move_on_after(AT_THE_END):
                # A run that is left at the moment of a 500 has not written the guard yet.
                await self.engine.upkeep.record_guard()
            try:
                await self._close_recorder(finished=self._is_finished())
            except JournalError as exc:
                self.outcomes.error = self.outcomes.error or exc
        self.outcomes.finish()
        self._telemetry.ended()

    async def _close_recorder(self, *, finished: bool) -> None:
        try:
            if finished:
                await self._recorder.finish(patience=AT_THE_END)
        finally:
            await self._recorder.aclose()

    def _keep_pace(self) -> None:
        self.view.pace.look()
        self.view.pace.keep()

    def _is_finished(self) -> bool:
        """Whether nothing is left that a later session could do."""
        missing = (o for o in self.outcomes.told if isinstance(o, NotExported))
        left = (
            self.engine.unsettled or self.engine.retry_pending or any(o.resumable for o in missing)
        )
        return not left and self.outcomes.error is None


def ending_error(exc: BaseException, run: str) -> BaseException:
    """The error that ends a run, logged with its frames where it is none of this library's."""
    error = first_error(exc)
    if not isinstance(error, SegmentsError):
        log(logging.ERROR, "bulk export %s broke off", run, exc_info=error)
    return error


def first_error(exc: BaseException) -> BaseException:
    """The first exception in a group that is no group itself."""
    while isinstance(exc, BaseExceptionGroup):
        exc = cast(BaseException, exc.exceptions[0])
    return exc
