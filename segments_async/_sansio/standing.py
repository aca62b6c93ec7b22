"""Where an export stands after a log of events, and what a later session does with it.

The process that records an event and the one that replays it take the same :func:`step`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Literal, assert_never

import attrs

from segments_async._sansio.facts import Ending, UnreadableFacts, read_facts
from segments_async._sansio.lifecycle import ENDS, Event, State, advance
from segments_async.errors import (
    DownloadError,
    ExportExpiredError,
    ExportFailedError,
    ExportTimeoutError,
    NotSubmittedError,
    SegmentsError,
    SubmitUnknownError,
)
from segments_async.models import Export, ExportedFile, NotExported

IfLost = Literal["report", "resubmit"]


@attrs.frozen
class Logged:
    """One event as it is logged.

    Attributes:
        segment_id: the segment.
        event: what happened.
        at: when (aware, UTC).
        facts: what it tells, as :func:`facts_of` makes it.
    """

    segment_id: str
    event: Event
    at: datetime
    facts: Mapping[str, Any] = attrs.field(factory=dict[str, Any])


@attrs.frozen
class Standing:
    """What is known of one segment of a run.

    Attributes:
        state: where its export stands.
        export: as last seen, without its link; None before its POST is accepted.
        submitted_at: when the accepted POST (or the joining of another's export) was logged; None
            before.
        file: its file, once it is in place; the last run's where it is UNCHANGED.
        ending: why there is no file, where one of the ends without a file was told.
        failures: how often the vendor said FAILED, in this run.
    """

    state: State = State.NEW
    export: Export | None = None
    submitted_at: datetime | None = None
    file: ExportedFile | None = None
    ending: Ending | None = None
    failures: int = 0


def step(standing: Standing, logged: Logged) -> Standing:
    """Where the export stands after one more event.

    Raises:
        IllegalTransition: the event can't happen there.
        UnreadableFacts: its facts aren't what this library writes, or lack what the event needs.
    """
    state = advance(standing.state, logged.event)
    if state is State.NEW:
        return Standing(failures=standing.failures)
    facts = read_facts(logged.segment_id, logged.facts, standing.export)
    began = logged.event in (Event.ACCEPTED, Event.ADOPTED)
    after = Standing(
        state=state,
        export=facts.export or standing.export,
        submitted_at=logged.at if began else standing.submitted_at,
        file=facts.file if state in (State.DONE, State.UNCHANGED) else None,
        ending=facts.ending if state in ENDS else None,
        failures=standing.failures + (state is State.FAILED),
    )
    if state in _NEEDS_EXPORT and after.export is None:
        raise UnreadableFacts(f"segment {logged.segment_id}: {logged.event} without an export")
    if state is State.UNCHANGED and after.file is None:
        raise UnreadableFacts(f"segment {logged.segment_id}: {logged.event} without a file")
    return after


def standings(events: Iterable[Logged]) -> dict[str, Standing]:
    """Where each export stands that something is logged of; of all others it is NEW.

    Raises:
        IllegalTransition, UnreadableFacts: no run of this library has such a log.
    """
    known: dict[str, Standing] = {}
    for logged in events:
        before = known.get(logged.segment_id, _NOTHING)
        known[logged.segment_id] = step(before, logged)
    return known


def resumption(
    standing: Standing,
    *,
    file_there: bool = True,
    on_unknown: IfLost = "report",
    on_expired: IfLost = "report",
    retry_failed: int = 0,
) -> tuple[Event, ...]:
    """The events with which a later session of the run takes up an export, in order.

    After them, NEW is submitted, SUBMITTED is asked for its status, and an end is told as it ended.

    Args:
        standing: where the last session left it.
        file_there: of DONE and UNCHANGED, whether the file is still in its place.
        on_unknown: ``"resubmit"`` takes the risk of a second export.
        on_expired: ``"resubmit"`` asks for another export where the file is gone.
        retry_failed: how many FAILED exports of one segment are followed by another.
    """
    state, ending = standing.state, standing.ending
    match state:
        case State.NEW | State.SUBMITTED:
            return ()
        case State.INTENT:  # died with the POST on the wire, or about to go
            return (Event.LOST, *_opted_in(on_unknown == "resubmit"))
        case State.COMPLETE | State.FETCHING | State.UNASKED:
            return (Event.RESUMED,)
        case State.DONE | State.UNCHANGED:
            return () if file_there else (Event.RESUMED,)
        case State.BROKEN_OFF:
            return (Event.RESUMED,) if ending is None or ending.resumable else ()
        case State.REFUSED:
            # The table trusts that the vendor did nothing; here it must have been said.
            return (Event.RESUMED,) if ending and ending.submitted == "no" else ()
        case State.UNKNOWN:
            return _opted_in(on_unknown == "resubmit")
        case State.EXPIRED:
            return _opted_in(on_expired == "resubmit")
        case State.FAILED:
            return _opted_in(standing.failures <= retry_failed)
        case _:
            assert_never(state)


def untold(segment_id: str, standing: Standing, *, run: str) -> NotExported:
    """The outcome of an export of which no session told the end: it died before it could."""
    facts: dict[str, Any] = {"segment_id": segment_id, "export": standing.export}
    match standing.state:
        case State.INTENT | State.UNKNOWN:
            error: SegmentsError = SubmitUnknownError(
                f"segment {segment_id}: the process ended while the export request was on its way; "
                "the export may be running at the vendor, so the request was not repeated",
                segment_id=segment_id,
            )
            return NotExported(segment_id, None, error, "maybe", resumable=False)
        case State.NEW | State.UNASKED | State.REFUSED:
            text = f"segment {segment_id}: not submitted; run {run} is finished"
            error = NotSubmittedError(text, **facts)
            return NotExported(segment_id, None, error, "no", resumable=True)
        case State.FAILED:
            error = ExportFailedError(f"segment {segment_id}: the export failed", **facts)
        case State.EXPIRED:
            error = ExportExpiredError(f"segment {segment_id}: the file is gone", **facts)
        case State.DONE | State.UNCHANGED:
            error = DownloadError(
                f"segment {segment_id}: the file is not in its place any more; run {run} is "
                "finished, and exports nothing again",
                reason="broken",
                export=standing.export,
            )
        case _:
            text = f"segment {segment_id}: given up; run {run} is finished"
            error = ExportTimeoutError(text, **facts)
    return NotExported(segment_id, standing.export, error, "yes", resumable=False)


_NOTHING = Standing()
_NEEDS_EXPORT = frozenset(State) - {
    State.NEW,
    State.INTENT,
    State.UNASKED,
    State.REFUSED,
    State.UNKNOWN,
}


def _opted_in(wanted: bool) -> tuple[Event, ...]:
    return (Event.OPTED_IN,) if wanted else ()
