"""How far a run is, by its journal and by what was kept of it."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Self

import attrs

from segments_async._journal.records import RunSummary
from segments_async._sansio.jobs.lifecycle import State
from segments_async.cli.kept import Kept

_NOT_EXPORTED = (State.REFUSED, State.UNKNOWN, State.FAILED, State.EXPIRED)
#: Given up, which a later session of an unfinished run takes back.
_GIVEN_UP = (State.UNASKED, State.BROKEN_OFF)


@attrs.frozen(kw_only=True)
class Standing:
    """One run, counted.

    Attributes:
        name: the run's.
        destination: where its files go; None where it wants only links.
        started_at: aware, UTC.
        ended_at: aware, UTC; None where it is unfinished.
        segments: how many it has; None where nobody kept that.
        exported: their files are in place.
        unchanged: their earlier files are still right.
        not_exported: ended without a file.
        unfinished: neither; where `segments` is None, of those that something happened to.
    """

    name: str
    destination: str | None
    started_at: datetime
    ended_at: datetime | None
    segments: int | None
    exported: int
    unchanged: int
    not_exported: int
    unfinished: int

    @classmethod
    def of(cls, run: RunSummary) -> Self:
        """Count a run. Reads what was kept of it beside its files."""
        exported = run.states.get(State.DONE, 0)
        unchanged = run.states.get(State.UNCHANGED, 0)
        over = _NOT_EXPORTED if run.ended_at is None else (*_NOT_EXPORTED, *_GIVEN_UP)
        not_exported = sum(run.states.get(state, 0) for state in over)
        logged = sum(run.states.values())
        segments = _segments(run, logged)
        unfinished = (segments or logged) - exported - unchanged - not_exported
        return cls(
            name=run.name,
            destination=run.destination,
            started_at=run.started_at,
            ended_at=run.ended_at,
            segments=segments,
            exported=exported,
            unchanged=unchanged,
            not_exported=not_exported,
            unfinished=unfinished,
        )


def _segments(run: RunSummary, logged: int) -> int | None:
    if run.ended_at is not None:
        return logged
    kept = None if run.destination is None else Kept.load(Path(run.destination), run.name)
    # Fewer than are logged where a session was given fewer: the run has had them all the same.
    return None if kept is None else max(logged, len(kept.segments))
