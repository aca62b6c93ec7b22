"""One process's session of a run that several processes share.

The session claims segments for parts of its own, and runs an ordinary session for each part. Once a
second it looks at the journal: for parts whose processes are gone, which it takes over, for what
other processes were answered, and for the run's end. With nothing to do it stays until then, since
another process may die yet. The theory is at the head of `_sansio/jobs/parts.py`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Generic

import anyio
from anyio.abc import TaskGroup

from segments_async._requests.sharing import Sharing, read_news
from segments_async._run.outcomes import Outcomes
from segments_async._run.parts import Parts
from segments_async._run.recorder import GuardWriter
from segments_async._run.request import RunRequest
from segments_async._run.resources import Resources
from segments_async._run.session import AT_THE_END, ending_error, first_error
from segments_async._run.shared_view import SharedSessionView
from segments_async._sansio.files.naming import file_name
from segments_async._sansio.jobs.journal_outage import JournalLooks
from segments_async._sansio.jobs.parts import SharedView, most_by_pace, wants_more
from segments_async._telemetry.guard import log
from segments_async.errors import JournalError, SegmentsError
from segments_async.results import OutcomeT

if TYPE_CHECKING:
    from segments_async._journal.shared_log import SharedRunLog
    from segments_async._journal.sql import SqlJournal

#: Seconds between two looks at the journal.
LOOK = 1.0


async def join_run(resources: Resources, request: RunRequest) -> tuple[SharedRunLog, Sequence[str]]:
    """Join the shared run that the request names, or start it.

    Returns: the run, and the request's segments in the order in which they are claimed.

    Raises:
        ConfigurationError: a directory that can't be written, or another run has the name.
        JournalError: the journal is damaged...
    """
    resources.check()
    if request.journal is None or request.run is None:
        raise AssertionError("a shared run without a journal, or without a name")
    # Not at the top: most programs have no journal.
    from segments_async._journal.sql import SqlJournal

    journal = await SqlJournal.open(request.journal, account=resources.account)
    if request.destination is not None:
        await request.destination.with_names({}).obstacles(())
    shared = await journal.join(destination=request.directory, name=request.run, spec=request.spec)
    wanted: list[str] = []
    if not shared.joined.ended:
        await read_news(resources.gate, journal)
        wanted = await longest_first(journal, request)
    return shared, wanted


async def longest_first(journal: SqlJournal, request: RunRequest) -> list[str]:
    """The request's segments, by the seconds that each is expected to take, as in one process.

    Raises:
        JournalError: the journal can't be read.
    """
    ids = list(request.segments)
    durations = await journal.ask(lambda database: database.durations(ids))
    expected = {**durations, **request.options.expected_seconds}
    return sorted(ids, key=lambda one: -expected.get(one, 0.0))


class SharedSession(Generic[OutcomeT]):
    """One process's session of a shared run; its attributes are those of `RunSession`.

    Args:
        wanted: segments of the request, in the order in which they are claimed.
    """

    def __init__(
        self,
        resources: Resources,
        request: RunRequest,
        shared: SharedRunLog,
        wanted: Sequence[str],
    ) -> None:
        self.name: str = shared.joined.name
        self._resources = resources
        self._request = request
        self._shared = shared
        names: Mapping[str, str] = {}
        if request.destination is not None:
            names = request.destination.names
        self._wanted: list[tuple[str, str | None]] = [(one, names.get(one)) for one in wanted]
        self.outcomes: Outcomes[OutcomeT] = Outcomes(self.name, request.destination)
        self.scope: anyio.CancelScope = anyio.CancelScope()
        self._deadline = anyio.CancelScope()
        self._stop_reason = f"no time left after {request.options.timeout} s"
        self._submit_rate = _Rate()
        self._working_since = 0.0
        self._guard = GuardWriter(shared.journal)
        if resources.gate.guard.told:
            self._guard.on_read(resources.gate.guard)
        self._sharing = Sharing(resources.gate, shared.journal, self._guard.on_read)
        self._errors_counted = resources.gate.guard.internal_errors
        self._parts = Parts[OutcomeT](
            resources, request, shared, self.outcomes, self._guard, self._on_part_end
        )
        self._looks = JournalLooks()
        self.view: SharedSessionView[OutcomeT] = SharedSessionView(
            self.name,
            resources,
            request,
            shared,
            self.outcomes,
            self._parts,
            lambda: bool(self._wanted),
            self._looks,
        )
        self._news = anyio.Event()
        self.started_at: datetime = datetime.now(UTC)
        self.ended_at: datetime = self.started_at

    # ----------------------------------------------------------------- from start to end

    async def run(self) -> None:
        """Work until the whole run is over. An error is raised to the callers that iterate."""
        try:
            if not self._shared.joined.ended:
                # Outside of the scopes below: each part's session ends by itself and tells the
                # rest.
                async with anyio.create_task_group() as sessions:
                    with self.scope:
                        with anyio.move_on_after(self._request.options.timeout) as self._deadline:
                            await self._work(sessions)
                        if self._deadline.cancelled_caught:
                            self._parts.leave(self._stop_reason)
                    if self.scope.cancelled_caught:
                        self._parts.leave("the run was left before its end")
        except (BaseExceptionGroup, Exception) as exc:  # noqa: BLE001 - raised to the run's caller
            error = ending_error(exc, self.name)
            self.outcomes.error = self.outcomes.error or error
        finally:
            await self._finish()

    async def _work(self, sessions: TaskGroup) -> None:
        try:
            async with anyio.create_task_group() as tasks:
                done = anyio.Event()
                try:
                    await self._sharing.join()
                    tasks.start_soon(self._sharing.keep, done)
                    tasks.start_soon(self.view.pace.watch, done)
                    await self._share(sessions)
                finally:
                    done.set()
        except (BaseExceptionGroup, Exception) as exc:
            error = first_error(exc)
            if not isinstance(error, SegmentsError):
                raise
            self._fail(error)

    async def _share(self, sessions: TaskGroup) -> None:
        """Take over, claim, and wait, until the round is over."""
        self._working_since = anyio.current_time()
        while True:
            try:
                view = await self._look()
                if view.stopped:
                    self._stop_for_errors(view.internal_errors)
                    return
                not_now = self._parts.lost.left_alone(anyio.current_time())
                for part_id in view.orphans(not_now.union(self._parts.live)):
                    await self._take_over(sessions, part_id)
                await self._claim(sessions)
                if await self._is_over(view):
                    return
                self.view.idle = not self._parts.live and not self._wanted
                self._looks.on_look()
            except JournalError as exc:
                self._looks.on_error(exc, anyio.current_time())  # the parts go on meanwhile
            with anyio.move_on_after(LOOK):
                await self._news.wait()
            self._news = anyio.Event()

    async def _look(self) -> SharedView:
        gate = self._resources.gate
        view, news = await self._shared.look()
        self._sharing.heed(news)
        if new := gate.guard.internal_errors - self._errors_counted:
            await self._shared.add_internal_errors(new)
            self._errors_counted += new
        return view

    async def _take_over(self, sessions: TaskGroup, part_id: int) -> None:
        part = await self._shared.take_over(part_id)
        await self._parts.begin(sessions, part)
        if part is not None:
            log(
                logging.INFO,
                "run %s: a process that worked at it is gone, and this process goes on with its "
                "part of %d segments",
                self.name,
                len(part.files),
            )

    async def _claim(self, sessions: TaskGroup) -> None:
        now = anyio.current_time()
        rate = self._submit_rate.after(self._parts.submitted, now)
        if self._wanted and wants_more(self._parts.waiting, rate):
            most = most_by_pace(rate, now - self._working_since)
            claimed = await self._shared.claim(self._wanted, most)
            del self._wanted[: claimed.looked_at]
            await self._parts.begin(sessions, claimed.part)

    async def _is_over(self, view: SharedView) -> bool:
        round_ = self._shared.joined.round
        if self._parts.live or self._wanted or not view.is_over(round_):
            return False
        over, missing = view.ended or view.round > round_, list[str]()
        if not over:
            over, missing = await self._shared.finish()
        if over:
            await self._shared.tidy(self._request.directory)
        files = self._request.destination is not None
        # Another process's, which is gone: its id alone is known here.
        self._wanted = [(one, file_name(one, None) if files else None) for one in missing]
        if missing:
            self._news.set()
        return over

    def _on_part_end(self, error: BaseException | None) -> None:
        self._news.set()
        if error is not None:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        """An error about the account, or about the journal, ends this process's session."""
        self.outcomes.error = self.outcomes.error or error
        if isinstance(error, SegmentsError):
            self._parts.stop(error)
        self._deadline.cancel()

    def _stop_for_errors(self, count: int) -> None:
        """The run has had all the 500s that it may have: no process goes on with it."""
        self._stop_reason = f"the vendor answered {count} requests with 500"
        self._parts.expire(self._stop_reason)

    # ----------------------------------------------------------------- the end

    async def _finish(self) -> None:
        self.ended_at = datetime.now(UTC)
        self.view.pace.look()
        with anyio.CancelScope(shield=True):
            await self.outcomes.write()
            with anyio.move_on_after(AT_THE_END):
                try:
                    await self._guard.record(self._resources.gate.guard)
                except JournalError as exc:
                    self.outcomes.error = self.outcomes.error or exc
        self.outcomes.finish()


class _Rate:
    """Submits per second, between two looks."""

    def __init__(self) -> None:
        self._last: tuple[int, float] | None = None

    def after(self, submitted: int, now: float) -> float:
        last, self._last = self._last, (submitted, now)
        if last is None or now <= last[1]:
            return 0.0
        return max(0, submitted - last[0]) / max(LOOK / 2, now - last[1])
