"""Carries out the decisions about the segments of one run, and follows their exports."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Generic

import anyio
import anyio.lowlevel
import attrs
from anyio.abc import TaskGroup

from segments_async._requests.permits import Mailbox
from segments_async._requests.shared_export import SharedExport
from segments_async._run.downloads import DownloadQueue
from segments_async._run.fetcher import FileFetcher
from segments_async._run.job import Job, following, payload_of, vendor_outcome
from segments_async._run.journal_upkeep import JournalUpkeep
from segments_async._run.outcomes import Outcomes
from segments_async._run.request import RunRequest
from segments_async._run.resources import Resources
from segments_async._run.start import RunStart
from segments_async._run.stats import RunStats, known_durations
from segments_async._run.telemetry import RunTelemetry
from segments_async._run.workers import WorkerPool
from segments_async._sansio.jobs.decisions import (
    Decision,
    Fetch,
    Follow,
    Found,
    RetryAt,
    Settle,
    Submit,
    given_up,
    is_overdue,
    left_outcome,
    on_interrupt,
    on_overdue,
    on_start,
    on_vendor_end,
    unrecorded,
)
from segments_async._sansio.jobs.exports import seconds_taken
from segments_async._sansio.jobs.lifecycle import ENDS, Event, State
from segments_async._sansio.jobs.payload import NOTHING, Payload
from segments_async._sansio.jobs.verdict import fatal
from segments_async.errors import JournalError, NotSubmittedError, SegmentsError
from segments_async.models import Export
from segments_async.results import Completed, NotExported, Outcome, OutcomeT

#: How many segments are started before other tasks get a turn.
_STARTED_AT_ONCE = 500


class Engine(Generic[OutcomeT]):
    """The segments of one run: a follower of their exports.

    Args:
        stop: ends the run, for an error that concerns all its segments.
    """

    def __init__(
        self,
        resources: Resources,
        request: RunRequest,
        start: RunStart,
        workers: WorkerPool,
        outcomes: Outcomes[OutcomeT],
        telemetry: RunTelemetry,
        stop: Callable[[SegmentsError], None],
    ) -> None:
        self._resources = resources
        self._destination = request.destination
        self._options = request.options
        self._start = start
        self._recorder = start.recorder
        self._state = start.recorder.run_state
        self.mailbox: Mailbox = workers
        self._outcomes = outcomes
        self._telemetry = telemetry
        self._stop = stop
        self._began = anyio.current_time()
        self._tasks: TaskGroup | None = None
        self.jobs: dict[str, Job] = {
            segment_id: Job(segment_id, None if segment is None else segment.name)
            for segment_id, segment in request.segments.items()
        }
        #: How many segments have no outcome yet.
        self.unsettled: int = len(self.jobs)
        #: Whether the run was left while a segment waited for another try.
        self.retry_pending: bool = False
        self.stats: RunStats = RunStats(
            resources.gate, len(self.jobs), known_durations(self._state.records.values())
        )
        self._fetcher = FileFetcher(
            resources.files, request, self._state, self.stats, self._given_up
        )
        self.downloads: DownloadQueue = DownloadQueue(
            self._fetch, resources.files.slots, resources.files.downloads
        )
        self.upkeep: JournalUpkeep = JournalUpkeep(
            self._recorder, resources.gate.guard, start.guard, self._submit, stop
        )

    def open(self, tasks: TaskGroup | None) -> None:
        """Start tasks in this task group from now on; None: start no more."""
        self._tasks = tasks
        self.upkeep.open(tasks)

    # ----------------------------------------------------------------- what the exports tell

    async def record(self, shared: SharedExport, event: Event) -> None:
        """An export of this run moved on.

        Never raises for the journal: the task may be another caller's, whose export this is, too.
        The run stops following the export, and a POST that only this run wanted isn't sent.
        """
        if event is Event.ACCEPTED:
            self.stats.submitted += 1
        job = self.jobs[shared.segment_id or ""]
        try:
            if job.retry is not None:
                await self._record(job, Event.OPTED_IN)
                job.retry = None
            state = await self._record(job, event, payload_of(shared, event))
        except JournalError as exc:
            self._stop(exc)
            if shared.export is None:
                self._unfollow(job)
            else:
                # The journal can't be written any more: an outcome tells what the vendor said.
                known = self._recorder.knows_export(job.segment_id)
                self.settle(job, unrecorded(job.segment_id, shared.export, exc, known=known))
        else:
            if event is Event.INTENT and state is State.NEW:
                self._unfollow(job)
                self.upkeep.hold(job)

    async def unfinished(self, shared: SharedExport, now: float, *, answered: bool) -> None:
        """A poll ended, and the export is unfinished: check whether it has taken too long."""
        timeout, since = self._options.export_timeout, -math.inf if answered else self._began
        if not is_overdue(shared.submitted_at, now=now, since=since, timeout=timeout):
            return
        job = self.jobs[shared.segment_id or ""]
        if job.shared is shared:
            known = self._will_be_known(job)
            decision = on_overdue(job.segment_id, following(shared), timeout=timeout, known=known)
            await self._carry_out(job, decision)

    async def ended(self, shared: SharedExport) -> None:
        """An export of this run has ended at the vendor."""
        job = self.jobs[shared.segment_id or ""]
        if job.shared is not shared:
            return
        outcome = vendor_outcome(job.segment_id, shared)
        if isinstance(outcome, Completed):
            self.stats.add_ended(seconds_taken(outcome.export))
        decision = on_vendor_end(
            self._state.record(job.segment_id),
            outcome,
            now=anyio.current_time(),
            options=self._options,
            resubmits=job.resubmits,
            fetches=self._destination is not None,
        )
        job.resubmits += isinstance(decision.step, Submit)
        await self._carry_out(job, decision)
        if isinstance(outcome, NotExported) and fatal(outcome.error):
            self._stop(outcome.error)

    # ----------------------------------------------------------------- decisions carried out

    async def start_all(self) -> None:
        """Take up each segment where it stands; many at once, since each may take a commit."""
        jobs = iter(self.jobs.values())
        while chunk := list(itertools.islice(jobs, _STARTED_AT_ONCE)):
            if self._recorder.durable:
                async with anyio.create_task_group() as tasks:
                    for job in chunk:
                        tasks.start_soon(self._take_up, job)
            else:
                for job in chunk:
                    await self._take_up(job)
                await anyio.lowlevel.checkpoint()

    async def _take_up(self, job: Job) -> None:
        segment_id = job.segment_id
        found = Found(
            record=self._state.add(segment_id),
            finished=self._recorder.finished,
            file_present=segment_id in self._start.files_present,
            obstacle=self._start.obstacles.get(segment_id),
            unchanged=self._start.unchanged.get(segment_id),
        )
        decision = on_start(segment_id, found, options=self._options, run=self._start.name)
        job.retold = isinstance(decision.step, Settle) and not decision.events
        await self._carry_out(job, decision)

    async def _carry_out(self, job: Job, decision: Decision) -> None:
        """Record the events, then take the step. A JournalError stops the run, and isn't raised."""
        # Before anything is awaited: from here on no permit is delivered for the segment.
        if isinstance(decision.step, Settle):
            job.decided = decision.step.outcome
        if not isinstance(decision.step, Fetch):
            self._unfollow(job)
        try:
            for event, payload in decision.events:
                await self._record(job, event, payload)
            await self._take_step(job, decision)
        except JournalError as exc:
            self._stop(exc)

    async def _take_step(self, job: Job, decision: Decision) -> None:
        match decision.step:
            case Submit():
                await self._submit(job)
            case RetryAt(at, outcome):
                job.retry = outcome
                await self._submit(job, not_before=at)
            case Follow(export, submitted_at):
                self._follow(job, export, submitted_at)
            case Fetch(export):
                self.downloads.add(job, export, self._tasks)
            case Settle(outcome):
                self.settle(job, outcome)

    async def _submit(self, job: Job, *, not_before: float = -math.inf) -> None:
        segment_id = job.segment_id
        expected = self._options.expected_seconds.get(segment_id)
        if expected is None:
            expected = self._start.durations.get(segment_id, 0.0)
        shared = job.shared = self._resources.registry.join_segment(
            self, segment_id, expected_seconds=expected, not_before=not_before
        )
        if shared.posting:
            await self.record(shared, Event.INTENT)
        elif shared.running:
            await self.record(shared, Event.ADOPTED)

    def _follow(self, job: Job, export: Export, submitted_at: datetime | None) -> None:
        now = datetime.now(UTC)
        age = max(0.0, (now - (submitted_at or now)).total_seconds())
        registry = self._resources.registry
        job.shared = registry.join_export(self, export.export_id, export, age=age)
        registry.share(job.shared)

    async def _fetch(self, job: Job, export: Export) -> None:
        """Fetch the file, in one of the run's download tasks."""
        try:
            await self._record(job, Event.FETCH)
            decision = await self._fetcher.fetch(job, export)
        except JournalError as exc:
            self._stop(exc)
            return
        job.broke = ""  # the fetch is over: what ends the segment later has its own reason
        job.replaced = job.replaced or isinstance(decision.step, Submit)
        if self._recorder.durable and self._tasks is not None:
            # In a task of its own: the next file needn't wait until this one is recorded.
            self._tasks.start_soon(self._carry_out, job, decision)
        else:
            await self._carry_out(job, decision)
        if (refusal := self._fetcher.refused_links) is not None:
            await self._stop_submits(refusal)

    # ----------------------------------------------------------------- ends

    async def _stop_submits(self, because: SegmentsError) -> None:
        """Ask for no more exports: the link of each would be refused."""
        for job in self.jobs.values():
            if job.shared is not None and job.shared.waits_for_submit:
                error = NotSubmittedError(
                    f"segment {job.segment_id}: not submitted, after: {because}",
                    segment_id=job.segment_id,
                )
                await self._carry_out(job, self._given_up(job, error))

    def _given_up(self, job: Job, error: SegmentsError) -> Decision:
        shared = job.shared
        export, submitted = (None, "no") if shared is None else (shared.export, shared.submitted)
        known = export is None or self._will_be_known(job)
        return given_up(NotExported(job.segment_id, export, error, submitted, resumable=known))

    def _will_be_known(self, job: Job) -> bool:
        """Whether a later session finds the segment's export in the journal, if there is one.

        Without its id, an export counts as one whose answer was lost.
        """
        unwritten = self._recorder.away or isinstance(self._outcomes.error, JournalError)
        return not unwritten or self._recorder.knows_export(job.segment_id)

    def interrupt(self, reason: str) -> None:
        """The run ends: add an outcome for each segment that has none."""
        for job in self.jobs.values():
            if job.settled:
                continue
            self._state.add(job.segment_id)
            if job.decided is None and job.retry is not None:
                self.retry_pending = True
                job.decided = job.retry
            elif job.decided is None and job.shared is not None:
                export, known = following(job.shared, job.broke), self._will_be_known(job)
                job.decided = on_interrupt(job.segment_id, export, reason=reason, known=known)
            elif job.decided is None:
                job.decided = left_outcome(
                    job.segment_id,
                    self._state.record(job.segment_id),
                    reason=reason,
                    run=self._start.name,
                    file_present=job.segment_id in self._start.files_present,
                    known=self._will_be_known(job),
                )
            self.settle(job, job.decided)

    def settle(self, job: Job, outcome: Outcome) -> None:
        """Tell the segment's outcome."""
        if job.settled:
            return  # the run was left while the outcome was being recorded
        self._unfollow(job)
        job.settled = True
        if self._state.state(job.segment_id) not in ENDS:
            self._state.release(job.segment_id)
        self.unsettled -= 1
        if isinstance(outcome, NotExported):
            outcome = attrs.evolve(outcome, name=job.name or outcome.name)
        self._outcomes.add(outcome, self._tasks)
        self._telemetry.on_outcome(outcome, earlier=job.retold)
        if not self.unsettled:
            self.mailbox.deliver(None)

    def close(self) -> None:
        """Stop following every export, and release the permits that were not used."""
        for job in self.jobs.values():
            self._unfollow(job)
        self._resources.registry.release(self.mailbox)

    def _unfollow(self, job: Job) -> None:
        if job.shared is not None:
            self._resources.registry.unfollow(self, job.shared)
            job.shared = None

    async def _record(self, job: Job, event: Event, payload: Payload = NOTHING) -> State:
        state = await self._recorder.on_event(job.segment_id, event, payload.named(job.name))
        self.upkeep.look_after()
        return state
