"""The parts of a shared run that one process works at: a session for each, in a task of its own."""

from __future__ import annotations

import logging
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Generic

import anyio
import attrs
from anyio.abc import TaskGroup

from segments_async._run.outcomes import Outcomes
from segments_async._run.part_session import PartOutcomes, PartSession
from segments_async._run.recorder import GuardWriter
from segments_async._run.request import RunRequest, unusable_id
from segments_async._run.resources import Resources
from segments_async._run.start import start_with
from segments_async._sansio.api.wire import is_id
from segments_async._sansio.jobs.parts import LostParts
from segments_async._telemetry.guard import log
from segments_async.errors import SegmentsError
from segments_async.results import OutcomeT

if TYPE_CHECKING:
    from segments_async._journal.claiming import PartLog
    from segments_async._journal.shared_log import SharedRunLog


class Parts(Generic[OutcomeT]):
    """The parts that one process works at.

    Args:
        request: what the caller asked of the whole run.
        outcomes: of the segments that this process works at.
        on_end: called at the end of each part, with the error that ends this process's session, if
            there is one.

    Attributes:
        live: the sessions of the parts, by the part's run id.
        lost: the parts that other processes took.
        ended: counts of the parts that have ended, by the fields of `Progress`.
    """

    def __init__(
        self,
        resources: Resources,
        request: RunRequest,
        shared: SharedRunLog,
        outcomes: Outcomes[OutcomeT],
        guard: GuardWriter,
        on_end: Callable[[BaseException | None], None],
    ) -> None:
        self._name = shared.joined.name
        self._resources = resources
        self._request = request
        self._shared = shared
        self._outcomes = outcomes
        self._guard = guard
        self._on_end = on_end
        self._told: set[str] = set()
        self._submitted = 0
        self._errors_before = resources.gate.guard.internal_errors
        self.live: dict[int, PartSession[OutcomeT]] = {}
        self.ended: Counter[str] = Counter()
        self.lost: LostParts = LostParts()

    def __iter__(self) -> Iterator[PartSession[OutcomeT]]:
        return iter(list(self.live.values()))

    @property
    def submitted(self) -> int:
        """How many exports this process has submitted."""
        return self._submitted + sum(one.engine.stats.submitted for one in self)

    @property
    def waiting(self) -> int:
        """How many of the claimed segments wait to be submitted."""
        return sum(one.view.waiting for one in self)

    async def begin(self, sessions: TaskGroup, part: PartLog | None) -> None:
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
        # Without the journal: this process has one membership in the limit, not one for each part.
        start = attrs.evolve(start, name=self._name, journal=None)
        outcomes = PartOutcomes(self._name, self._outcomes, self._told)
        leave_over = partial(self._shared.leave_over, part.run_id)
        session = PartSession(self._resources, request, start, outcomes, leave_over)
        session.engine.stats.internal_errors_before = self._errors_before
        self.live[part.run_id] = session
        sessions.start_soon(self._run, part.run_id, session, outcomes)

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

    async def _run(
        self, part_id: int, session: PartSession[OutcomeT], outcomes: PartOutcomes[OutcomeT]
    ) -> None:
        try:
            await session.run()
        finally:
            del self.live[part_id]
            stats = session.engine.stats
            self.ended.update(outcomes.counts)
            self.ended["bytes"] += stats.bytes
            self._submitted += stats.submitted
        if outcomes.lost:
            self.lost.add(part_id, anyio.current_time(), random.random())
            log(logging.INFO, "run %s: another process goes on with one of its parts", self._name)
        self._on_end(None if outcomes.lost else outcomes.error)

    def stop(self, error: SegmentsError) -> None:
        """An error about the account, or about the journal, ends this process's session."""
        for session in self:
            session.stop(error)

    def leave(self, reason: str) -> None:
        """This process leaves the run. The others go on with its unfinished segments."""
        for session in self:
            session.left_early = True
            session.expire(reason)

    def expire(self, reason: str) -> None:
        """The time of the whole run is up: no process goes on with it."""
        for session in self:
            session.expire(reason)
