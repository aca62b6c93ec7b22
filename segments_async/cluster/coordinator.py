"""The session of a run whose segments are worked at by an executor's workers.

Once a second the session reads from the journal what the workers recorded. What the executor says
of its tasks is a hint alone: see `_sansio/jobs/batches.py`.
"""

from __future__ import annotations

import itertools
import logging
import math
import uuid
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import anyio
import attrs

from segments_async._run.manifest import Manifest
from segments_async._run.outcomes import Outcomes
from segments_async._run.request import RunRequest
from segments_async._run.session import ending_error
from segments_async._sansio.api.wire import is_id
from segments_async._sansio.files.naming import file_name
from segments_async._sansio.jobs.batches import Attempts, BatchView, Step, batches
from segments_async._sansio.jobs.journal_outage import JournalLooks, is_away
from segments_async._sansio.jobs.verdict import fatal
from segments_async._telemetry.guard import log
from segments_async.cluster.task import Batch, BatchEnd, name_of_attempt
from segments_async.cluster.tasks import AnyExecutor, Refused, Task, all_done, any_done, submit
from segments_async.cluster.tracking import Tracking
from segments_async.cluster.view import CoordinatorView
from segments_async.cluster.worker import work
from segments_async.errors import ConfigurationError, JournalError, SegmentsError
from segments_async.models import Segment
from segments_async.results import Exported, Outcome

if TYPE_CHECKING:
    from segments_async._journal.coordinated_log import CoordinatedRun
    from segments_async._journal.coordination import News

#: Seconds between two looks at the journal, unless a task ends before.
JOURNAL_LOOK = 1.0

#: Seconds that a task has to end in, after the journal has the ends of all of its segments: its
#: last lines are being written, and its result is on the way.
ENDING = 3.0

#: Seconds between two looks at the journal, after the run was left.
LEFT_LOOK = 0.25

#: Seconds that tasks have to end in, after the run was left: a worker sees it within a second or
#: two, and then waits for the POSTs on the wire.
LEAVING = 20.0


@attrs.define(eq=False)
class _Given:
    """One batch of this session, and its latest task."""

    ids: Sequence[str]
    attempts: Attempts
    task: Task[BatchEnd] | None = None
    read: bool = False
    done_at: float = math.inf
    error: str = "its task ended without an error"

    def step(self, view: BatchView, now: float) -> Step:
        """The next step of the batch, which the journal has as `view`."""
        if self.task is None:
            return Step.SUBMIT
        return self.attempts.step(view, now, ended=self.task.done)


class Coordinator:
    """The session of a coordinated run; its attributes are those of `RunSession`.

    Args:
        shared: the run, whose row this process has locked.
        order: the segments, in the order in which they are given out.
        template: a batch without segments.
        batch: segments of one batch, at most.
        retries: see `export_on`.
    """

    def __init__(
        self,
        request: RunRequest,
        shared: CoordinatedRun,
        executor: AnyExecutor,
        order: Iterable[str],
        template: Batch,
        *,
        batch: int,
        retries: int,
    ) -> None:
        assert request.destination is not None
        self.name: str = shared.joined.name
        self._request = request
        self._names = request.destination.names
        self._directory = request.destination.location
        self._shared = shared
        self._executor = executor
        self._template = template
        self._batch = batch
        self._retries = retries
        self._tracking = Tracking(self.name, request)
        # The workers write the manifest's lines of the outcomes that they have.
        self._manifest = Manifest(request.destination)
        self.outcomes: Outcomes[Exported] = Outcomes(self.name, None)
        self.view: CoordinatorView = CoordinatorView(self._tracking, self.outcomes, self._directory)
        self.scope: anyio.CancelScope = anyio.CancelScope()
        self._stop_reason = "the run was left before its end"
        #: Batches that are not done, and those that are done whose tasks have not ended.
        self._given: list[_Given] = []
        #: The attempts of this session, by which its workers are recognised.
        self._attempts: set[str] = set()
        #: Segments in no batch: they wait for their turn, or for the end of their part's process.
        self._unbatched = list(order)
        #: How many of the run's segments were in `_unbatched` so far.
        self._known = len(self._unbatched)
        self._looks = JournalLooks()
        self.started_at: datetime = datetime.now(UTC)
        self.ended_at: datetime = self.started_at

    # ----------------------------------------------------------------- from start to end

    async def run(self) -> None:
        """Give out the segments, until the run is over. An error is raised to those who iterate."""
        timeout = self._request.options.timeout
        try:
            with self.scope, anyio.move_on_after(timeout) as deadline:
                await self._coordinate()
            if deadline.cancelled_caught:
                self._stop_reason = f"no time left after {timeout} s"
        except (BaseExceptionGroup, Exception) as exc:  # noqa: BLE001 - raised to the run's caller
            self.outcomes.error = error = ending_error(exc, self.name)
            if isinstance(error, JournalError):
                self._stop_reason = f"the journal ended the run: {error}"
        finally:
            with anyio.CancelScope(shield=True):
                await self._finish()

    async def _coordinate(self) -> None:
        while True:
            try:
                news = await self._learn()
                if self._shared.joined.ended:
                    self._tell(self._tracking.close())
                    return
                if news.view.round != self._shared.joined.round:
                    self._stop_reason = "the run was started anew by another process"
                    return
                if news.view.stopped:
                    count = news.view.internal_errors
                    self._stop_reason = f"the vendor answered {count} requests with 500"
                    return
                await self._give_out()
                if await self._is_over(news):
                    return
                self._looks.on_look()
            except JournalError as exc:
                self._looks.on_error(exc, anyio.current_time())  # the workers go on meanwhile
            except Refused as exc:
                self._stop_reason = f"the executor takes no more tasks ({exc})"
                return
            await self._pause()

    async def _learn(self) -> News:
        news = await self._shared.news()
        self.view.guard = news.guard
        self._apply(news)
        return news

    def _apply(self, news: News) -> None:
        for outcome in self._tracking.apply(news):
            self.outcomes.add(outcome, None)

    async def _is_over(self, news: News) -> bool:
        if not self._tracking.has_told_all:
            return False
        if news.locked or self._given:
            return False  # the last lines and the part's end are being written
        over, missing = await self._shared.finish()
        if over:
            await self._shared.tidy(self._directory)
        # Segments of another process, which is gone; or of a batch that was given up without a
        # part.
        new = [one for one in missing if one not in self._tracking.told]
        self._tracking.add(new)
        return not new

    async def _pause(self) -> None:
        """Wait until the next look at the journal, or the end of a task."""
        running = [one.task for one in self._given if one.task is not None and not one.read]
        with anyio.move_on_after(JOURNAL_LOOK):
            await any_done(running)

    # ----------------------------------------------------------------- batches

    async def _give_out(self) -> None:
        """Give the batches to the executor that it has not, or has lost."""
        self._add_batches()
        now = anyio.current_time()
        due: list[_Given] = []
        for one in list(self._given):
            self._read(one)
            match one.step(self._tracking.view(one.ids), now):
                case Step.SUBMIT:
                    due.append(one)
                case Step.GIVE_UP:
                    self._given.remove(one)
                    self._give_up(one)
                case Step.DONE:
                    one.done_at = min(one.done_at, now)
                    # Some futures never end (dask/distributed#3196).
                    if one.read or now - one.done_at >= ENDING:
                        self._given.remove(one)
                case Step.WAIT:
                    pass
        if due:
            await self._submit(due)

    async def _submit(self, due: Sequence[_Given]) -> None:
        for one in due:
            one.attempts.start(self._tracking.view(one.ids))
            self._say_lost(one)
        tasks = await submit(self._executor, work, [(self._task_of(one),) for one in due])
        for one, task in zip(due, tasks, strict=True):
            one.task, one.read = task, False

    def _add_batches(self) -> None:
        # Once they are in batches, a look costs nothing for each segment that waits.
        tracking = self._tracking
        self._unbatched += itertools.islice(tracking.segments, self._known, None)
        self._known = len(tracking.segments)
        new = [i for i in self._unbatched if tracking.is_free(i)]
        self._unbatched = [
            i for i in self._unbatched if not (tracking.is_free(i) or tracking.is_settled(i))
        ]
        for ids in batches(new, self._batch):
            self._given.append(_Given(ids, Attempts(self._retries)))

    def _task_of(self, one: _Given) -> Batch:
        segments = self._tracking.segments
        only_changed = self._request.only_changed  # for which a bare id is not enough
        given = [segments[i] or (Segment(i) if only_changed else i) for i in one.ids]
        names = {i: self._names.get(i) or file_name(i, None) for i in one.ids if is_id(i)}
        options = dict(self._template.options)
        expected = self._request.options.expected_seconds
        options["expected_seconds"] = {i: expected[i] for i in one.ids if i in expected}
        attempt = uuid.uuid4().hex
        self._attempts.add(name_of_attempt(attempt))
        return attrs.evolve(
            self._template,
            segments=given,
            files=names,
            options=options,
            attempt=attempt,
        )

    def _read(self, one: _Given) -> None:
        """Read the result of a task, once. An error of the account, say, is raised."""
        if one.task is None or one.read or not one.task.done:
            return
        one.read = True
        end = one.task.result()
        if end is None:
            one.error = one.task.error or one.error
            return
        self.view.requests += end.requests
        self.view.throttled += end.throttled
        if end.refusal is not None:
            raise ConfigurationError(f"{end.refusal}. This worker sent nothing")
        if end.error is not None:
            if _ends_the_run(end.error):
                raise end.error
            one.error = str(end.error)
        if end.left:
            one.attempts.on_left()
            one.error = (
                "its worker left the run: it was told to end, or it didn't see this process in the "
                "journal"
            )

    def _say_lost(self, one: _Given) -> None:
        if one.task is not None:
            text = "run %s: a batch of %d segments is given out again: %s"
            log(logging.WARNING, text, self.name, len(one.ids), one.error)

    def _give_up(self, one: _Given) -> None:
        times = max(one.attempts.deaths, one.attempts.unbegun)
        reason = f"given up after {times} tasks that came to nothing; the last one: {one.error}"
        self._tell(self._tracking.give_up(one.ids, reason))

    def _tell(self, outcomes: Iterable[Outcome]) -> None:
        """Tell outcomes that no worker has, and write their lines."""
        for outcome in outcomes:
            self.outcomes.add(outcome, None)
            self._manifest.add(outcome.to_dict(run=self.name, at=datetime.now(UTC)))

    # ----------------------------------------------------------------- the end

    async def _finish(self) -> None:
        tasks: list[Task[Any]] = [one.task for one in self._given if one.task is not None]
        for task in tasks:
            task.cancel()
        try:
            await self._shared.release()
            await self._wait_for(tasks)
            await self._learn_the_last()
        except JournalError as exc:
            self.outcomes.error = self.outcomes.error or exc
        if self.outcomes.tells_the_rest:
            self._tell(self._tracking.give_up(list(self._tracking.untold), self._stop_reason))
        await self._manifest.write()
        self.ended_at = datetime.now(UTC)
        self.outcomes.finish()

    async def _wait_for(self, tasks: Sequence[Task[Any]]) -> None:
        """Wait for the workers to leave the run."""
        with anyio.move_on_after(LEAVING) as waited:
            await all_done(tasks)
            # Dask calls a task cancelled, and so done, while its function goes on.
            while self._attempts and await self._have_workers():  # noqa: ASYNC110 - the journal
                await anyio.sleep(LEFT_LOOK)
        if waited.cancelled_caught:
            text = "run %s: tasks of the executor have not ended within %d s; they leave the run"
            log(logging.WARNING, text, self.name, LEAVING)

    async def _have_workers(self) -> bool:
        """Whether the journal shows live workers of this session."""
        try:
            self._apply(await self._shared.last_news())
        except JournalError as exc:
            if not is_away(exc):
                raise
            return True
        return any(name_of_attempt(one) in self._attempts for one in self._tracking.at_work)

    async def _learn_the_last(self) -> None:
        """What the workers recorded while they left. The lock was released before."""
        if not self._tracking.has_told_all:
            self._apply(await self._shared.last_news())


def _ends_the_run(error: SegmentsError) -> bool:
    """Whether the error would be the same in every worker."""
    if isinstance(error, JournalError):
        return not is_away(error)
    return fatal(error) or isinstance(error, ConfigurationError)
