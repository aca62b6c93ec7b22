"""One process's work at a part of a shared run: a session, whose outcomes are the run's."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Awaitable, Callable

from anyio.abc import TaskGroup

from segments_async._run.outcomes import Outcomes, field_of
from segments_async._run.request import RunRequest
from segments_async._run.resources import Resources
from segments_async._run.session import Session
from segments_async._run.start import RunStart
from segments_async._telemetry.guard import log
from segments_async.errors import JournalError
from segments_async.results import NotExported, Outcome, OutcomeT


class PartOutcomes(Outcomes[OutcomeT]):
    """The outcomes of a part, which are outcomes of the shared run as well.

    Args:
        whole: the outcomes of this process's work at the run.
        told: the segments whose outcomes this process has told.
    """

    def __init__(self, run: str, whole: Outcomes[OutcomeT], told: set[str]) -> None:
        super().__init__(run, None)
        self._whole = whole
        self._told = told
        #: How many were told, by the fields of `Progress`.
        self.counts: Counter[str] = Counter()

    @property
    def lost(self) -> bool:
        """Whether another process has taken over the part, with its unfinished segments."""
        return isinstance(self.error, JournalError) and self.error.reason == "locked"

    def add(self, outcome: Outcome, tasks: TaskGroup | None) -> None:
        """Tell the outcome, unless it is another process's, or was told by this one."""
        if self.lost:
            self._drop(outcome)
            return
        super().add(outcome, None)
        if outcome.segment_id not in self._told:
            self._told.add(outcome.segment_id)
            self.counts[field_of(outcome)] += 1
            self._whole.add(outcome, tasks)

    def hurry(self) -> None:
        """The part's outcomes have their lines in the run's manifest."""
        self._whole.hurry()

    def _drop(self, outcome: Outcome) -> None:
        if outcome.export is not None and isinstance(outcome, NotExported):
            log(
                logging.INFO,
                "segment %s: another process goes on with it; this process knows its export %s",
                outcome.segment_id,
                outcome.export.export_id,
            )


class PartSession(Session[OutcomeT]):
    """A session of a part.

    Args:
        request: the segments of the part, and the caller's options.
        leave_over: writes that the part was worked through, and has exports left.

    Attributes:
        left_early: set where this process leaves the run before its end: others go on.
    """

    def __init__(
        self,
        resources: Resources,
        request: RunRequest,
        start: RunStart,
        outcomes: PartOutcomes[OutcomeT],
        leave_over: Callable[[], Awaitable[None]],
    ) -> None:
        super().__init__(resources, request, start, outcomes)
        self._leave_over = leave_over
        self.left_early: bool = False

    async def _close_recorder(self, *, finished: bool) -> None:
        told = not self.engine.unsettled and self.outcomes.error is None
        try:
            if told and not finished and not self.left_early:
                # While the part is locked: an open part without a lock is taken over.
                await self._leave_over()
        finally:
            await super()._close_recorder(finished=finished)
