"""One process's session of a run that several processes share.

The session claims segments for parts of its own, and runs an ordinary session for each part. Once a
second it looks at the journal: for parts whose processes are gone, which it takes over, for the
account's ticket guard, and for the run's end. With nothing to do it stays until then, since
another process may die yet. The theory is at the head of `_sansio/jobs/parts.py`.
"""

from __future__ import annotations

import itertools
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Generic, cast

import anyio
import anyio.to_thread
import attrs
from anyio.abc import TaskGroup

from segments_async._pace.sharing import Sharing
from segments_async._run.job import Job
from segments_async._run.manifest import Manifest
from segments_async._run.outcomes import Outcomes
from segments_async._run.pace_watch import PaceWatch
from segments_async._run.part_session import PartOutcomes, PartSession
from segments_async._run.recorder import GuardWriter, Recorder
from segments_async._run.request import RunRequest, unusable_id
from segments_async._run.session import GUARD_AT_THE_END, first_error
from segments_async._run.start import Resources, restore_guard, start_with
from segments_async._run.telemetry import log_began, log_ended
from segments_async._sansio.api.wire import is_id
from segments_async._sansio.files.naming import file_name
from segments_async._sansio.jobs.decisions import on_interrupt, recorded_outcome
from segments_async._sansio.jobs.history import RunHistory, Times
from segments_async._sansio.jobs.journal_outage import LONGEST_OUTAGE
from segments_async._sansio.jobs.lifecycle import State
from segments_async._sansio.jobs.parts import SharedView, wants_more
from segments_async._sansio.jobs.record import NEW, ExportRecord
from segments_async._sansio.pace.backoff import LONGEST_GUARD
from segments_async._telemetry.guard import log
from segments_async.errors import JournalError, SegmentsError
from segments_async.results import Exported, NotExported, Outcome, OutcomeT, Progress

if TYPE_CHECKING:
    from segments_async._journal.records import GuardRecord
    from segments_async._journal.shared import Recorded
    from segments_async._journal.shared_log import PartLog, SharedRunLog

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
    directory = None
    if request.destination is not None:
        directory = str(request.destination.directory)
        await anyio.to_thread.run_sync(request.destination.with_names({}).prepare)
    shared = await journal.join(destination=directory, name=request.run, spec=request.spec)
    wanted: list[str] = []
    if not shared.joined.ended:
        await restore_guard(journal, resources.gate.guard)
        ids = list(request.segments)
        durations = await journal.ask(lambda database: database.durations(ids))
        expected = {**durations, **request.options.expected_seconds}
        # The longest first, as within one process.
        wanted = sorted(ids, key=lambda one: -expected.get(one, 0.0))
    return shared, wanted


class SharedSession(Generic[OutcomeT]):
    """One process's session of a shared run.

    Args:
        resources: what the run uses of its client.
        request: what the caller asked.
        shared: the run, which this process has joined.
        wanted: segments of the request, in the order in which they are claimed.

    Attributes:
        name: the run's.
        outcomes: of the segments that this process worked at.
        scope: cancelled when the caller leaves the run.
        started_at: when the session started; aware, UTC.
        ended_at: when it ended; `started_at` before.
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
        manifest = None if request.destination is None else Manifest(request.destination.manifest)
        self.outcomes: Outcomes[OutcomeT] = Outcomes(self.name, manifest)
        self.scope: anyio.CancelScope = anyio.CancelScope()
        self._deadline = anyio.CancelScope()
        self._stop_reason = f"no time left after {request.options.timeout} s"
        self._told: set[str] = set()
        self._live: dict[int, PartSession[OutcomeT]] = {}
        self._ended: Counter[str] = Counter()
        self._submitted = 0
        self._submit_rate = _Rate()
        self._guard = GuardWriter(shared.journal)
        self._guard_seen: GuardRecord | None = None
        gate = resources.gate
        self._requests_before, self._throttled_before = gate.requests, gate.throttled
        self._errors_before = self._errors_counted = gate.guard.internal_errors
        self.pace: PaceWatch = PaceWatch(gate, Recorder(), lambda: self.progress().held)
        self._records: dict[str, ExportRecord] = {}
        self._away_since: float | None = None
        self._news = anyio.Event()
        self.started_at: datetime = datetime.now(UTC)
        self.ended_at: datetime = self.started_at

    # ----------------------------------------------------------------- from start to end

    async def run(self) -> None:
        """Work until the whole run is over. An error is raised to the callers that iterate."""
        log_began(self.name, len(self._request.segments))
        try:
            if not self._shared.joined.ended:
                # Not in the scopes below: each part's session ends by itself, and tells the rest.
                async with anyio.create_task_group() as sessions:
                    with self.scope:
                        with anyio.move_on_after(self._request.options.timeout) as self._deadline:
                            await self._work(sessions)
                        if self._deadline.cancelled_caught:
                            self._leave(self._stop_reason)
                    if self.scope.cancelled_caught:
                        self._leave("the run was left before its end")
        except (BaseExceptionGroup, Exception) as exc:  # noqa: BLE001 - raised to the run's caller
            error = first_error(exc)
            self.outcomes.error = self.outcomes.error or error
            if not isinstance(error, SegmentsError):
                log(logging.ERROR, "bulk export %s broke off", self.name, exc_info=error)
        finally:
            await self._finish()

    async def _work(self, sessions: TaskGroup) -> None:
        try:
            async with anyio.create_task_group() as tasks:
                done = anyio.Event()
                try:
                    sharing = Sharing(self._resources.gate, self._shared.journal)
                    await sharing.join()
                    tasks.start_soon(sharing.keep, done)
                    tasks.start_soon(self.pace.watch, done)
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
        while True:
            try:
                view = await self._look()
                if view.stopped:
                    self._stop_for_errors(view.internal_errors)
                    return
                for part_id in view.orphans(self._live):
                    await self._take_over(sessions, part_id)
                await self._claim(sessions)
                if await self._is_over(view):
                    return
                self._away_since = None
            except JournalError as exc:
                self._on_away(exc)
            with anyio.move_on_after(LOOK):
                await self._news.wait()
            self._news = anyio.Event()

    async def _look(self) -> SharedView:
        gate = self._resources.gate
        view, guard = await self._shared.look()
        self._heed(guard)
        if new := gate.guard.internal_errors - self._errors_counted:
            await self._shared.add_internal_errors(new)
            self._errors_counted += new
        return view

    async def _take_over(self, sessions: TaskGroup, part_id: int) -> None:
        part = await self._shared.take_over(part_id)
        await self._begin(sessions, part)
        if part is not None:
            log(
                logging.INFO,
                "run %s: a process that worked at it is gone, and this process goes on with its "
                "part of %d segments",
                self.name,
                len(part.files),
            )

    async def _claim(self, sessions: TaskGroup) -> None:
        live = list(self._live.values())
        submitted = self._submitted + sum(one.engine.stats.submitted for one in live)
        rate = self._submit_rate.after(submitted, anyio.current_time())
        if self._wanted and wants_more(sum(one.waiting for one in live), rate):
            part, looked_at = await self._shared.claim(self._wanted)
            del self._wanted[:looked_at]
            await self._begin(sessions, part)

    async def _is_over(self, view: SharedView) -> bool:
        round_ = self._shared.joined.round
        if self._live or self._wanted or not view.is_over(round_):
            return False
        if view.ended or view.round > round_:
            await self._tidy()
            return True
        over, missing = await self._shared.finish()
        if over:
            await self._tidy()
        files = self._request.destination is not None
        # Another process's, which is gone: its id alone is known here.
        self._wanted = [(one, file_name(one, None) if files else None) for one in missing]
        if missing:
            self._news.set()
        return over

    async def _tidy(self) -> None:
        if self._request.destination is not None:
            await self._shared.tidy(str(self._request.destination.directory))

    def _on_away(self, error: JournalError) -> None:
        """The journal is away: go on with the parts. Raises the error where that takes too long."""
        if error.reason not in ("locked", "unavailable"):
            raise error
        now = anyio.current_time()
        self._away_since = now if self._away_since is None else self._away_since
        if now - self._away_since > LONGEST_OUTAGE:
            raise error

    # ----------------------------------------------------------------- parts

    async def _begin(self, sessions: TaskGroup, part: PartLog | None) -> None:
        """Work at a part, in a task."""
        if part is None:
            return
        try:
            request = self._request_of(part.files)
            start = await start_with(self._shared.journal, part.log, request, self._guard)
        except BaseException:
            with anyio.CancelScope(shield=True):
                await part.log.aclose()
            raise
        # Without the journal: this process has one membership in the limit, and not one for a part.
        start = attrs.evolve(start, name=self.name, journal=None, is_part=True)
        session = PartSession[OutcomeT](
            self._resources,
            request,
            start,
            PartOutcomes(self.name, self.outcomes, self._told),
            partial(self._shared.leave_over, part.run_id),
        )
        session.engine.stats.internal_errors_before = self._errors_before
        self._live[part.run_id] = session
        sessions.start_soon(self._run_part, part.run_id, session)

    def _request_of(self, files: Mapping[str, str | None]) -> RunRequest:
        whole = self._request
        names = {one: name for one, name in files.items() if name is not None}
        return attrs.evolve(
            whole,
            segments={one: whole.segments.get(one) for one in files},
            destination=whole.destination and whole.destination.with_names(names),
            options=attrs.evolve(whole.options, timeout=None),
            unusable={one: unusable_id(one) for one in files if not is_id(one)},
        )

    async def _run_part(self, part_id: int, session: PartSession[OutcomeT]) -> None:
        try:
            await session.run()
        finally:
            del self._live[part_id]
            stats = session.engine.stats
            self._ended.update(session.counts)
            self._ended["bytes"] += stats.bytes
            self._submitted += stats.submitted
            self._news.set()
        error = session.outcomes.error
        if session.lost:
            log(logging.INFO, "run %s: another process goes on with one of its parts", self.name)
        elif error is not None:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        """An error about the account, or about the journal, ends this process's session."""
        self.outcomes.error = self.outcomes.error or error
        if isinstance(error, SegmentsError):
            for session in self._live.values():
                session.stop(error)
        self._deadline.cancel()

    def _leave(self, reason: str) -> None:
        """This process leaves the run. The others go on with what it leaves."""
        for session in self._live.values():
            session.left_early = True
            session.expire(reason)

    def _stop_for_errors(self, count: int) -> None:
        """The run has had all the 500s that it may have: no process goes on with it."""
        self._stop_reason = f"the vendor answered {count} requests with 500"
        for session in self._live.values():
            session.expire(self._stop_reason)

    # ----------------------------------------------------------------- the ticket guard

    def _heed(self, record: GuardRecord | None) -> None:
        """Wait after a 500 that another process received, as after one of our own."""
        if record is None or record == self._guard_seen:
            return
        self._guard_seen = record
        guard = self._resources.gate.guard
        # Another machine's clock may be wrong.
        left = min((record.until - datetime.now(UTC)).total_seconds(), LONGEST_GUARD)
        until = anyio.current_time() + left
        if left > 0 and until > guard.until + LOOK:
            guard.restore(until, record.pause)
            self._guard.on_read(guard)

    # ----------------------------------------------------------------- the end

    async def _finish(self) -> None:
        self.ended_at = datetime.now(UTC)
        self.pace.look()
        with anyio.CancelScope(shield=True):
            await self.outcomes.write()
            with anyio.move_on_after(GUARD_AT_THE_END):
                try:
                    await self._guard.record(self._resources.gate.guard)
                except JournalError as exc:
                    self.outcomes.error = self.outcomes.error or exc
        self.outcomes.finish()
        seconds = (self.ended_at - self.started_at).total_seconds()
        log_ended(self.name, self.progress(), seconds, self.outcomes.error)

    async def whole(self) -> tuple[list[OutcomeT | NotExported], Progress]:
        """The outcomes of all processes, as far as they are recorded, and their counts.

        Raises:
            JournalError: the journal can't be read.
        """
        own = {outcome.segment_id for outcome in self.outcomes.told}
        recorded = await self._shared.whole()
        self._records = {one.segment_id: one.record for one in recorded}
        others = [one for one in recorded if one.segment_id not in own]
        known = own.union(one.segment_id for one in others)
        outcomes: list[Outcome] = [*cast(list[Outcome], self.outcomes.told)]
        outcomes += map(self._recorded, others)
        outcomes += [
            recorded_outcome(one, NEW, run=self.name, file_present=False)
            for one in self._request.segments
            if one not in known
        ]
        counts = Counter(map(_count_as, outcomes))
        progress = attrs.evolve(
            self.progress(),
            total=len(outcomes),
            waiting=0,
            pending=0,
            fetching=0,
            exported=counts["exported"],
            unchanged=counts["unchanged"],
            not_exported=counts["not_exported"],
            eta_seconds=0.0,
            held=None,
        )
        return cast(list[OutcomeT | NotExported], outcomes), progress

    def history(self) -> RunHistory:
        """When the exports of all processes moved on, as `whole` read it, and this one's pace."""
        destination = self._request.destination
        return RunHistory(
            times={one: Times.of(record) for one, record in self._records.items()},
            pace=self.pace.points,
            destination=None if destination is None else str(destination.directory),
        )

    def _recorded(self, one: Recorded) -> Outcome:
        """The outcome of a segment of another process, by the journal's record of it.

        The file isn't looked at: it may be on another machine.
        """
        if one.settled:
            outcome = recorded_outcome(one.segment_id, one.record, run=self.name, file_present=True)
        else:
            outcome = on_interrupt(
                one.segment_id,
                one.record,
                None,
                reason=f"unfinished when this process left run {self.name}",
                run=self.name,
                file_present=True,
                known=True,
            )
        segment = self._request.segments.get(one.segment_id)
        if isinstance(outcome, NotExported) and segment is not None:
            outcome = attrs.evolve(outcome, name=segment.name)
        return outcome

    # ----------------------------------------------------------------- progress

    def progress(self) -> Progress:
        """How far this process is with the segments that it has claimed, now."""
        live = [session.progress() for session in self._live.values()]
        gate, ended = self._resources.gate, self._ended
        fields = ("waiting", "pending", "fetching", "exported", "unchanged", "not_exported")
        counts = {
            name: ended[name] + sum(int(getattr(one, name)) for one in live) for name in fields
        }
        estimates = [one.eta_seconds for one in live]
        known = [one for one in estimates if one is not None]
        ages = [one.oldest_link_age for one in live if one.oldest_link_age is not None]
        over = self.outcomes.finished.is_set()
        finished = over or len(known) == len(estimates) > 0
        return Progress(
            total=sum(counts.values()),
            **counts,
            bytes=ended["bytes"] + sum(one.bytes for one in live),
            requests=gate.requests - self._requests_before,
            throttled=gate.throttled - self._throttled_before,
            rate=gate.rate,
            oldest_link_age=max(ages, default=None),
            eta_seconds=max(known, default=0.0) if finished and not self._wanted else None,
            held=None
            if over
            else self._resources.held(
                waiting=counts["waiting"] > 0,
                pending=counts["pending"] > 0,
                fetching=counts["fetching"] > 0,
                journal_away=self._away_since is not None,
            ),
        )

    def latest(self) -> Iterator[tuple[Job, State]]:
        """The exports under way, those of the newest part first."""
        newest = reversed(list(self._live.values()))
        return itertools.chain.from_iterable(session.latest() for session in newest)


def _count_as(outcome: Outcome) -> str:
    if isinstance(outcome, NotExported):
        return "not_exported"
    unchanged = isinstance(outcome, Exported) and outcome.source == "unchanged"
    return "unchanged" if unchanged else "exported"


class _Rate:
    """Submits per second, between two looks."""

    def __init__(self) -> None:
        self._last: tuple[int, float] | None = None

    def after(self, submitted: int, now: float) -> float:
        last, self._last = self._last, (submitted, now)
        if last is None or now <= last[1]:
            return 0.0
        return max(0, submitted - last[0]) / max(LOOK / 2, now - last[1])
