"""The session as its `BulkRun` uses it: one process's, a shared run's, or a coordinator's."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

import anyio

from segments_async._run.outcomes import Outcomes
from segments_async._sansio.jobs.history import RunHistory
from segments_async.results import Activity, NotExported, OutcomeT, Progress


class RunView(Protocol[OutcomeT]):
    """What others see of a session."""

    async def whole(self) -> tuple[Sequence[OutcomeT | NotExported], Progress]:
        """The outcomes of the whole run, and its progress, once it has ended."""
        ...

    def progress(self) -> Progress:
        """How far the run is, now."""
        ...

    def activity(self, limit: int) -> list[Activity]:
        """At most `limit` exports under way, the one with the latest event first."""
        ...

    def history(self) -> RunHistory:
        """When the run's exports moved on, and its pace."""
        ...


class RunSession(Protocol[OutcomeT]):
    """One session of a run.

    Attributes:
        scope: cancelled when the caller leaves the run.
        started_at: when the session started; aware, UTC.
        ended_at: when the session ended; `started_at` before.
    """

    name: str
    scope: anyio.CancelScope
    started_at: datetime
    ended_at: datetime

    @property
    def outcomes(self) -> Outcomes[OutcomeT]:
        """The outcomes of the segments."""
        ...

    @property
    def view(self) -> RunView[OutcomeT]:
        """What others see of the session."""
        ...

    async def run(self) -> None:
        """Run to the end."""
        ...
