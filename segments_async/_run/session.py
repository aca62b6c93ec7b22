"""One session of a run, from its entering to its end: its tasks, its timeout, and its end."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from typing import Generic, cast

import anyio
import attrs

from segments_async._exports.followers import POST_GRACE
from segments_async._pace.permits import Permit
from segments_async._pace.sharing import Sharing
from segments_async._pace.watch import RequestWatch
from segments_async._run.engine import Engine
from segments_async._run.job import Job
from segments_async._run.manifest import Manifest
from segments_async._run.outcomes import Outcomes
from segments_async._run.pace_watch import PaceWatch
from segments_async._run.request import RunRequest
from segments_async._run.start import Resources, RunStart
from segments_async._run.telemetry import RunTelemetry
from segments_async._run.workers import WorkerPool
from segments_async._sansio.jobs.eta import Running
from segments_async._sansio.jobs.history import RunHistory, Times
from segments_async._sansio.jobs.lifecycle import State
from segments_async._sansio.pace.backoff import MOST_INTERNAL_ERRORS
from segments_async._sansio.pace.scheduler import Kind
from segments_async._telemetry.guard import log
from segments_async.errors import JournalError, SegmentsError
from segments_async.results import Held, NotExported, OutcomeT, Progress

#: Exports that are looked at to estimate the run's end.
_MOST_SAMPLES = 24


#: Seconds that a run that ends waits for the journal to take the ticket guard.
GUARD_AT_THE_END = 2.0


class Session(Generic[OutcomeT]):
    """One session of a run.

    Args:
        resources: what the run uses of its client.
        request: what the caller asked.
        start: what the run starts with.
        outcomes: where outcomes are told; None: for this session alone.

    Attributes:
        name: the run's.
        outcomes: of its segments.
        pace: of the run over time.
        scope: cancelled when the caller leaves the run.
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
        directory = request.destination
        self._destination = None if directory is None else str(directory.directory)
        manifest = None if directory is None else Manifest(directory.manifest)
        self.outcomes: Outcomes[OutcomeT] = outcomes or Outcomes(start.name, manifest)
        self._workers = WorkerPool(self._perform)
        self._watch = RequestWatch()
        self._posts: set[Permit] = set()
        self._telemetry = RunTelemetry(
            start.name, start.recorder.run_state, len(request.segments), is_part=start.is_part
        )
        self.engine: Engine[OutcomeT] = Engine(
            resources, request, start, self._workers, self.outcomes, self._telemetry, self.stop
        )
        self.pace: PaceWatch = PaceWatch(resources.gate, start.recorder, self._held_now)
        self.scope: anyio.CancelScope = anyio.CancelScope()
        self._deadline = anyio.CancelScope()
        self._stop_reason = f"no time left after {self._options.timeout} s"
        self._expired = False
        self._ended_at = 0.0

    @property
    def waiting(self) -> int:
        """How many segments wait to be submitted."""
        state = self._recorder.run_state
        not_added = len(self.engine.jobs) - state.added
        return not_added + state.count(State.NEW, State.INTENT)

    @property
    def started_at(self) -> datetime:
        """When the session started; aware, UTC."""
        return self.engine.stats.started_at

    @property
    def ended_at(self) -> datetime:
        """When the session ended; `started_at` before."""
        return self.engine.stats.ended_at

    async def whole(self) -> tuple[list[OutcomeT | NotExported], Progress]:
        """The outcomes of the whole run, and its progress, once it has ended."""
        return self.outcomes.told, self.progress()

    # ----------------------------------------------------------------- from start to end

    async def run(self) -> None:
        """Run to the end. An error that ends the run is raised to the callers that iterate."""
        self._telemetry.began()
        with self._resources.gate.mailbox(self._workers):
            try:
                with self.scope:
                    with anyio.move_on_after(self._options.timeout) as self._deadline:
                        if self._expired:
                            self._deadline.cancel()
                        await self._work()
                        await self._finish_recording()
                    if self._deadline.cancelled_caught and self._tells_the_rest():
                        self.engine.interrupt(self._stop_reason)
                if self.scope.cancelled_caught and self._tells_the_rest():
                    self.engine.interrupt("the run was left before its end")
            except (BaseExceptionGroup, Exception) as exc:  # noqa: BLE001 - raised to the run's caller
                # In the caller's task group it would come out of the caller's block in a group.
                self.outcomes.error = error = first_error(exc)
                if not isinstance(error, SegmentsError):
                    log(logging.ERROR, "bulk export %s broke off", self.name, exc_info=error)
            finally:
                await self._finish()

    async def _work(self) -> None:
        journal, unfinished = self._start.journal, not self._recorder.finished
        try:
            async with anyio.create_task_group() as tasks:
                self.engine.open(tasks)
                self._workers.open(tasks)
                self._watch.open(tasks)
                done = anyio.Event()
                try:
                    if journal is not None and unfinished:
                        sharing = Sharing(self._resources.gate, journal)
                        await sharing.join()
                        tasks.start_soon(sharing.keep, done)
                    if self._recorder.can_be_lost and unfinished:
                        tasks.start_soon(self.engine.upkeep.check_until, done)
                    tasks.start_soon(self._telemetry.look, done, self.progress)
                    tasks.start_soon(self.pace.watch, done)
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
        """Limit the time of the POSTs on the wire, which are shielded for their answers' ids."""
        until = anyio.current_time() + POST_GRACE
        for permit in self._posts:
            permit.bound(until)

    def expire(self, reason: str) -> None:
        """End the session as if its time were up: the unfinished segments are told of."""
        self._stop_reason, self._expired = reason, True
        self._deadline.cancel()

    def stop(self, error: SegmentsError) -> None:
        """An error about the account, or about the journal, ends the run."""
        if self.outcomes.error is None and isinstance(error, JournalError):
            self._stop_reason = f"the journal ended the run: {error}"
        self.outcomes.error = self.outcomes.error or error
        self._deadline.cancel()

    def _tells_the_rest(self) -> bool:
        """Whether unfinished segments get outcomes: not where the account ended the run."""
        return self.outcomes.error is None or isinstance(self.outcomes.error, JournalError)

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
        self._ended_at = anyio.current_time()
        self.engine.stats.ended_at = datetime.now(UTC)
        self._keep_pace()
        with anyio.CancelScope(shield=True):
            await self.outcomes.write()
            with anyio.move_on_after(GUARD_AT_THE_END):
                # A run that is left at the moment of a 500 has not written the guard yet.
                await self.engine.upkeep.record_guard()
            try:
                await self._close_recorder(finished=self._is_finished())
            except JournalError as exc:
                self.outcomes.error = self.outcomes.error or exc
        self.outcomes.finish()
        seconds = (self.engine.stats.ended_at - self.engine.stats.started_at).total_seconds()
        self._telemetry.ended(self.progress(), seconds, self.outcomes.error)

    async def _close_recorder(self, *, finished: bool) -> None:
        await self._recorder.close(finished=finished)

    def _keep_pace(self) -> None:
        self.pace.look()
        self.pace.keep()

    def _is_finished(self) -> bool:
        """Whether nothing is left that a later session could do."""
        missing = (o for o in self.outcomes.told if isinstance(o, NotExported))
        left = (
            self.engine.unsettled or self.engine.retry_pending or any(o.resumable for o in missing)
        )
        return not left and self.outcomes.error is None

    # ----------------------------------------------------------------- progress

    def progress(self) -> Progress:
        """How far the run is, now."""
        finished = self.outcomes.finished.is_set()
        now = self._ended_at if finished else anyio.current_time()
        run_state = self._recorder.run_state
        progress = self.engine.stats.progress(
            run_state,
            now=now,
            running=partial(self._running, now),
            oldest_link_age=self.engine.downloads.oldest_link_age,
            fetch_seconds=self.engine.downloads.seconds_each,
        )
        return progress if finished else attrs.evolve(progress, held=self._held_now())

    def history(self) -> RunHistory:
        """When the run's exports moved on, and its pace."""
        records = self._recorder.run_state.records
        return RunHistory(
            times={i: Times.of(records[i]) for i in self.engine.jobs if i in records},
            pace=self.pace.points,
            destination=self._destination,
        )

    def _held_now(self) -> Held | None:
        """What delays the run's requests or downloads by more than their turn."""
        places = dict(self._telemetry.places())
        return self._resources.held(
            waiting=places["waiting"] > 0,
            pending=places["pending"] > 0,
            fetching=places["fetching"] > 0,
            journal_away=self._recorder.away,
        )

    def latest(self) -> Iterator[tuple[Job, State]]:
        """The exports under way, the latest event first."""
        run_state = self._recorder.run_state
        for segment_id in run_state.latest():
            yield self.engine.jobs[segment_id], run_state.state(segment_id)

    def _running(self, now: float) -> list[Running]:
        """Some of the exports that the vendor works on, evenly chosen by their last events."""
        active = self._recorder.run_state.active
        step = 1 + len(active) // _MOST_SAMPLES
        chosen = itertools.islice(active, 0, None, step)
        found = [one for one in map(self._running_one(now), chosen) if one is not None]
        if found or step == 1:
            return found
        # A few of them among many files that are being fetched.
        every = (one for one in map(self._running_one(now), active) if one is not None)
        return list(itertools.islice(every, _MOST_SAMPLES))

    def _running_one(self, now: float) -> Callable[[str], Running | None]:
        def running(segment_id: str) -> Running | None:
            shared = self.engine.jobs[segment_id].shared
            if shared is None or not shared.running:
                return None
            return Running(now - shared.submitted_at, shared.known_seconds())

        return running


def first_error(exc: BaseException) -> BaseException:
    """The first exception in a group that is no group itself."""
    while isinstance(exc, BaseExceptionGroup):
        exc = cast(BaseException, exc.exceptions[0])
    return exc
