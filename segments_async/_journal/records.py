"""What the journal tells beside the logs of runs."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import attrs

from segments_async._sansio.jobs.lifecycle import State


@attrs.frozen
class RunSummary:
    """One run, as the journal knows it.

    Attributes:
        name: the run's.
        destination: where its files go; None where it wants only links.
        started_at: aware, UTC.
        ended_at: aware, UTC; None where it is unfinished.
        states: how many exports stand where. Of an unfinished run, those that are NEW are not
            counted: nothing is logged of them.
    """

    name: str
    destination: str | None
    started_at: datetime
    ended_at: datetime | None
    states: Mapping[State, int]


@attrs.frozen
class GuardRecord:
    """The ticket guard, as it was last told to the journal.

    Attributes:
        until: nothing is sent before (wall time; aware, UTC).
        pause: the next pause, in seconds.
        internal_errors: answers of 500 since the guard was armed.
    """

    until: datetime
    pause: float
    internal_errors: int
