"""What happened in a run, and when: for a page about the run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

import attrs

from segments_async._sansio.jobs.record import ExportRecord
from segments_async._sansio.pace.trace import PacePoint


@attrs.frozen
class Times:
    """When one export moved on; aware, UTC. None: it has not.

    Attributes:
        submitted_at: its POST was accepted.
        completed_at: it was first seen to be COMPLETE.
        ended_at: its outcome was known, with a file or without.
    """

    submitted_at: datetime | None = None
    completed_at: datetime | None = None
    ended_at: datetime | None = None

    @classmethod
    def of(cls, record: ExportRecord) -> Times:
        """The times that a record has."""
        return cls(record.submitted_at, record.completed_at, record.ended_at)


@attrs.frozen(kw_only=True)
class RunHistory:
    """The times of a run's exports, and its pace.

    Attributes:
        times: by segment id.
        pace: over time.
        destination: the directory of the files; None for a run without files.
    """

    times: Mapping[str, Times]
    pace: Sequence[PacePoint]
    destination: str | None
