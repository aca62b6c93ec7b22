"""The next step of a bulk run for one segment: pure functions, one for each occasion.

===================  =========================================================================
`on_start`           a session begins: take the segment up where earlier sessions left it
`on_vendor_end`      nothing more is asked of the vendor: fetch the file, ask again, or settle
`on_fetched`         the file is in place
`on_expired`         the vendor has deleted the file
`on_overdue`         the export has taken longer than `export_timeout`
`on_interrupt`       the run's time is up, or its caller leaves: tell what is under way
`left_outcome`       the same of a segment that follows no export
===================  =========================================================================

A :class:`Decision` has the events to record first, in order, and the step that follows. The engine
carries it out.
"""

from __future__ import annotations

from datetime import datetime
from functools import reduce

import attrs

from segments_async._sansio.api.wire import is_id
from segments_async._sansio.jobs.lifecycle import Event, State, advance
from segments_async._sansio.jobs.payload import NOTHING, Payload, Submitted
from segments_async._sansio.jobs.record import (
    ExportRecord,
    RunOptions,
    interrupted_outcome,
    resume_events,
    resume_payload,
)
from segments_async._sansio.jobs.verdict import unusable_outcome
from segments_async.errors import (
    ExportExpiredError,
    ExportTimeoutError,
    JournalError,
    NotSubmittedError,
    SegmentsError,
    SubmitUnknownError,
)
from segments_async.models import Export, Segment
from segments_async.results import Completed, Exported, ExportedFile, NotExported, Outcome, Source

#: Seconds before a FAILED export is asked for again: the cause of a failure seldom passes at once.
RETRY_FAILED_AFTER = 60.0

#: With `on_unknown="resubmit"`, how often at most a session submits a segment again: each time
#: risks one export more.
MOST_RESUBMITS = 3

#: States from which a later session goes on.
_GOES_ON = frozenset(
    {
        State.NEW,
        State.SUBMITTED,
        State.COMPLETE,
        State.FETCHING,
        State.UNASKED,
        State.REFUSED,
        State.BROKEN_OFF,
    }
)


@attrs.frozen
class Submit:
    """Ask the vendor for an export of the segment."""


@attrs.frozen
class RetryAt:
    """Ask for another export after a while.

    Attributes:
        at: when, in seconds of the event loop's clock.
        outcome: the segment's outcome, if the run ends before.
    """

    at: float
    outcome: NotExported


@attrs.frozen
class Follow:
    """Poll an export that an earlier session submitted.

    Attributes:
        export: as last seen.
        submitted_at: when its POST was accepted; None where neither journal nor vendor says when.
    """

    export: Export
    submitted_at: datetime | None


@attrs.frozen
class Fetch:
    """Fetch the file of a COMPLETE export."""

    export: Export


@attrs.frozen
class Settle:
    """The segment's outcome is known."""

    outcome: Outcome


Step = Submit | RetryAt | Follow | Fetch | Settle


@attrs.frozen
class Decision:
    """The run's decision about a segment: first the events to record, then the step."""

    step: Step
    events: tuple[tuple[Event, Payload], ...] = ()


@attrs.frozen(kw_only=True)
class Found:
    """The facts about a segment at the start of a session.

    Attributes:
        record: as earlier sessions left it.
        finished: whether the run was finished before: then nothing is sent.
        file_present: whether the file that the record has is in its place.
        obstacle: why the segment can't be exported; None where nothing is in the way.
        unchanged: an earlier run's file that is still right, or None.
    """

    record: ExportRecord
    finished: bool = False
    file_present: bool = False
    obstacle: SegmentsError | None = None
    unchanged: ExportedFile | None = None


def on_start(segment_id: str, found: Found, *, options: RunOptions, run: str) -> Decision:
    """Take a segment up where earlier sessions left it.

    Args:
        run: the run's name, for messages.
    """
    record = found.record
    names: tuple[Event, ...] = ()
    if not found.finished:
        names = resume_events(record, options, file_present=found.file_present)
    events = tuple((name, resume_payload(name, segment_id, record, run=run)) for name in names)
    if names:
        record = attrs.evolve(record, state=reduce(advance, names, record.state))
    if record.state is State.NEW and not found.finished:
        after = _on_start_new(segment_id, found)
    elif record.state is State.SUBMITTED and not found.finished:
        after = _on_start_submitted(segment_id, record)
    else:
        outcome = recorded_outcome(segment_id, record, run=run, file_present=found.file_present)
        after = Decision(Settle(outcome))
    return Decision(after.step, events + after.events)


def _on_start_new(segment_id: str, found: Found) -> Decision:
    if found.obstacle is not None:
        # A segment whose id can't be sent will not have another id later.
        usable = is_id(segment_id)
        return given_up(NotExported(segment_id, None, found.obstacle, "no", resumable=usable))
    if found.unchanged is not None:
        file = found.unchanged
        outcome = Exported(segment_id, file.export, file, "unchanged")
        return Decision(Settle(outcome), ((Event.UNCHANGED, Payload.of_file(file)),))
    return Decision(Submit())


def _on_start_submitted(segment_id: str, record: ExportRecord) -> Decision:
    export = record.export
    if export is None:
        raise AssertionError("the journal refuses a submitted export without an id")
    if not is_id(export.export_id):
        # The session that got the id died before it could give the export up.
        return given_up(unusable_outcome(segment_id, export))
    return Decision(Follow(export, record.submitted_at or export.start_time))


def recorded_outcome(
    segment_id: str, record: ExportRecord, *, run: str, file_present: bool = True
) -> Outcome:
    """The outcome of an export that ended in an earlier session."""
    if record.file is not None and file_present:
        source: Source = "unchanged" if record.state is State.UNCHANGED else "resumed"
        return Exported(segment_id, record.file.export, record.file, source)
    if record.state is State.DONE and record.export is not None and record.file is None:
        return Completed(segment_id, record.export)
    if (failure := record.failure) is None:
        return interrupted_outcome(segment_id, record, run=run)
    error = failure.error(record.export)
    return NotExported(
        segment_id, record.export, error, failure.submitted, failure.resumable, failure.name
    )


def named(outcome: Outcome, segment: Segment | None) -> Outcome:
    """The outcome of a segment without a file, with the name that the caller gave, if it did."""
    if isinstance(outcome, NotExported) and segment is not None:
        return attrs.evolve(outcome, name=segment.name or outcome.name)
    return outcome


def on_vendor_end(
    record: ExportRecord,
    outcome: NotExported | Completed,
    *,
    now: float,
    options: RunOptions,
    resubmits: int,
    fetches: bool,
) -> Decision:
    """The export has ended at the vendor.

    Args:
        record: with the end recorded.
        outcome: `Completed` where the vendor has a file; else why not.
        now: seconds.
        resubmits: how often this session has submitted the segment again.
        fetches: whether the run fetches files.
    """
    if isinstance(outcome, Completed):
        if fetches:
            return Decision(Fetch(outcome.export))
        return Decision(Settle(outcome), ((Event.FETCHED, NOTHING),))
    if record.state is State.FAILED and record.failures <= options.retry_failed:
        return Decision(RetryAt(now + RETRY_FAILED_AFTER, outcome))
    # Only a lost answer: a 500 has raised a ticket, and a second POST might raise another.
    lost = record.state is State.UNKNOWN and isinstance(outcome.error, SubmitUnknownError)
    if lost and options.on_unknown == "resubmit" and resubmits < MOST_RESUBMITS:
        return Decision(Submit(), ((Event.OPTED_IN, NOTHING),))
    return Decision(Settle(outcome))


def on_fetched(segment_id: str, file: ExportedFile) -> Decision:
    """The file is in place."""
    outcome = Exported(segment_id, file.export, file, "exported")
    return Decision(Settle(outcome), ((Event.FETCHED, Payload.of_file(file)),))


def on_expired(
    segment_id: str,
    export: Export,
    error: ExportExpiredError,
    *,
    options: RunOptions,
    replaced: bool,
) -> Decision:
    """The vendor has deleted the file. `replaced`: this session has asked again already."""
    outcome = NotExported(segment_id, export, error, "yes", resumable=False)
    expired = (Event.EXPIRED, Payload.of_outcome(outcome))
    if options.on_expired == "resubmit" and not replaced:
        return Decision(Submit(), (expired, (Event.OPTED_IN, NOTHING)))
    return Decision(Settle(outcome), (expired,))


def given_up(outcome: NotExported) -> Decision:
    """The run gives the export up."""
    return Decision(Settle(outcome), ((Event.GAVE_UP, Payload.of_outcome(outcome)),))


def unrecorded(segment_id: str, export: Export, cause: JournalError, *, known: bool) -> NotExported:
    """The outcome of an export whose last answer could not be recorded in the journal.

    Args:
        export: as last seen.
        cause: why the journal could not.
        known: whether a later session finds the export in the journal.
    """
    error = JournalError(
        f"segment {segment_id}: export {export.export_id} is at the vendor, and its last event was "
        f"not recorded in the journal: {cause}",
        reason=cause.reason,
        location=cause.location,
    )
    return NotExported(segment_id, export, error, "yes", resumable=known)


@attrs.frozen(kw_only=True)
class Following:
    """The facts about the export that a segment follows.

    Attributes:
        export: as last seen; None before its POST is accepted.
        submitted: whether the vendor was asked for it.
        posting: whether its POST may be on the wire.
        setback: why the last polls brought no status, or an attempt to fetch the file failed, for
            the end of a message; else empty.
        cause: the error of the last such poll.
    """

    export: Export | None = None
    submitted: Submitted = "no"
    posting: bool = False
    setback: str = ""
    cause: SegmentsError | None = None


def is_overdue(submitted_at: float, *, now: float, since: float, timeout: float) -> bool:
    """Whether an export has taken longer than `export_timeout`.

    Args:
        submitted_at: when its POST was accepted, in seconds of the event loop's clock.
        now: seconds.
        since: when this session began. A poll without an answer says nothing of an export that an
            earlier session left days ago: such an export may be complete, and gets as long again.
        timeout: the caller's `export_timeout`, in seconds.
    """
    return now - max(submitted_at, since) > timeout


def on_overdue(segment_id: str, following: Following, *, timeout: float, known: bool) -> Decision:
    """Give up an export that is overdue.

    Args:
        timeout: the caller's `export_timeout`, in seconds.
        known: whether a later session finds the export in the journal, if there is one.
    """
    error = ExportTimeoutError(
        f"segment {segment_id}: not finished within {timeout:g} s; the export goes on at the "
        f"vendor{following.setback}",
        segment_id=segment_id,
        export=following.export,
    )
    error.__cause__ = following.cause
    return given_up(
        NotExported(segment_id, following.export, error, following.submitted, resumable=known)
    )


def on_interrupt(segment_id: str, following: Following, *, reason: str, known: bool) -> NotExported:
    """The outcome of a segment whose export is under way when the run ends.

    No event is recorded: to a later session, the export stands where it stood.

    Args:
        reason: why the run ends, for messages.
        known: whether a later session finds the export in the journal, if there is one.
    """
    if following.posting:
        lost = SubmitUnknownError(
            f"segment {segment_id}: {reason}; the export may be running at the vendor",
            segment_id=segment_id,
        )
        return NotExported(segment_id, None, lost, "maybe", resumable=False)
    kept = "not submitted" if following.submitted == "no" else "the export is not lost"
    return _unfinished(segment_id, following, f"{reason}; {kept}", known=known)


def left_outcome(
    segment_id: str,
    record: ExportRecord,
    *,
    reason: str,
    run: str,
    file_present: bool = True,
    known: bool = True,
) -> Outcome:
    """The outcome of a segment that follows no export when the run ends, by its record alone.

    Args:
        record: its record.
        reason: why the run ends, for messages.
        run: the run's name, for messages.
        file_present: whether the file that the record has is in its place.
        known: as in `on_interrupt`.
    """
    if record.state not in _GOES_ON:
        return recorded_outcome(segment_id, record, run=run, file_present=file_present)
    submitted: Submitted = "no" if record.export is None else "yes"
    left = Following(export=record.export, submitted=submitted)
    return _unfinished(segment_id, left, reason, known=known)


def _unfinished(segment_id: str, following: Following, why: str, *, known: bool) -> NotExported:
    kind = NotSubmittedError if following.submitted == "no" else ExportTimeoutError
    text = f"segment {segment_id}: {why}{following.setback}"
    error = kind(text, segment_id=segment_id, export=following.export)
    error.__cause__ = following.cause
    resumable = following.export is None or known
    return NotExported(segment_id, following.export, error, following.submitted, resumable)
