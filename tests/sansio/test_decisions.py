"""The next step of a run for a segment, at each occasion."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from segments_async import errors
from segments_async._sansio.jobs.decisions import (
    MOST_RESUBMITS,
    RETRY_FAILED_AFTER,
    Decision,
    Fetch,
    Follow,
    Following,
    Found,
    RetryAt,
    Settle,
    Submit,
    is_overdue,
    left_outcome,
    on_expired,
    on_fetched,
    on_interrupt,
    on_overdue,
    on_start,
    on_vendor_end,
)
from segments_async._sansio.jobs.lifecycle import Event, State
from segments_async._sansio.jobs.payload import Failure, payload_from_json, payload_to_json
from segments_async._sansio.jobs.record import ExportRecord, RunOptions
from segments_async.models import Export, ExportStatus, Segment, SegmentType
from segments_async.results import Completed, Exported, ExportedFile, NotExported

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
NOW = 1000.0
EXPORT = Export("e", Segment("a", "Buyers", "p", SegmentType.STATIC), ExportStatus.COMPLETE, NOON)
FILE = ExportedFile("/exports/a.csv", 7, "ab" * 32, True, EXPORT)
REPORT = RunOptions()
RESUBMIT = RunOptions(on_unknown="resubmit", on_expired="resubmit", retry_failed=1)


def record_in(state: State, **facts: Any) -> ExportRecord:
    """A record in this state, as an earlier session may have left it."""
    if state not in (State.NEW, State.INTENT, State.UNASKED, State.REFUSED, State.UNKNOWN):
        facts.setdefault("export", EXPORT)
    if state in (State.DONE, State.UNCHANGED):
        facts.setdefault("file", FILE)
    return ExportRecord(state, **facts)


def events(decision: Decision) -> tuple[Event, ...]:
    return tuple(event for event, _ in decision.events)


def start(found: Found, options: RunOptions = REPORT) -> Decision:
    return on_start("a", found, options=options, run="r")


def outcome_of(decision: Decision) -> Any:
    assert isinstance(decision.step, Settle)
    return decision.step.outcome


@pytest.mark.parametrize(
    ("state", "options", "expected", "step"),
    [
        (State.NEW, REPORT, (), Submit),
        (State.INTENT, REPORT, (Event.LOST,), Settle),
        (State.INTENT, RESUBMIT, (Event.LOST, Event.OPTED_IN), Submit),
        (State.SUBMITTED, REPORT, (), Follow),
        (State.COMPLETE, REPORT, (Event.RESUMED,), Follow),
        (State.FETCHING, REPORT, (Event.RESUMED,), Follow),
        (State.DONE, REPORT, (), Settle),
        (State.UNCHANGED, REPORT, (), Settle),
        (State.REFUSED, REPORT, (), Settle),  # the log doesn't say that the vendor did nothing
        (State.UNKNOWN, REPORT, (), Settle),
        (State.UNKNOWN, RESUBMIT, (Event.OPTED_IN,), Submit),
        (State.FAILED, REPORT, (), Settle),
        (State.FAILED, RESUBMIT, (Event.OPTED_IN,), Submit),
        (State.UNASKED, REPORT, (Event.RESUMED,), Submit),
        (State.BROKEN_OFF, REPORT, (Event.RESUMED,), Follow),
        (State.EXPIRED, REPORT, (), Settle),
        (State.EXPIRED, RESUBMIT, (Event.OPTED_IN,), Submit),
    ],
)
def test_a_session_takes_an_export_up(
    state: State, options: RunOptions, expected: tuple[Event, ...], step: type
) -> None:
    """Each state has its events and its step; a finished run sends nothing and records nothing."""
    failures = int(state is State.FAILED)
    record = record_in(state, failures=failures)
    decision = start(Found(record=record, file_present=True), options)
    assert (events(decision), type(decision.step)) == (expected, step)
    over = start(Found(record=record, file_present=True, finished=True), options)
    assert (events(over), type(over.step)) == ((), Settle)


def test_a_file_that_is_gone_is_asked_for_again() -> None:
    """A DONE export whose file is gone is polled for a new link; an UNCHANGED one is submitted."""
    done = start(Found(record=record_in(State.DONE)))
    assert (events(done), done.step) == ((Event.RESUMED,), Follow(EXPORT, NOON))
    unchanged = start(Found(record=record_in(State.UNCHANGED)))
    assert (events(unchanged), unchanged.step) == ((Event.RESUMED,), Submit())


def test_an_obstacle_ends_a_segment_before_its_submit() -> None:
    """The outcome is the obstacle, which is resumable only if the segment's id can be sent."""
    obstacle = errors.ConfigurationError("exists")
    decision = start(Found(record=ExportRecord(), obstacle=obstacle, unchanged=FILE))
    assert (events(decision), outcome_of(decision).error) == ((Event.GAVE_UP,), obstacle)
    assert outcome_of(decision).resumable
    found = Found(record=ExportRecord(), obstacle=obstacle)
    assert not outcome_of(on_start("a b", found, options=REPORT, run="r")).resumable


def test_an_unchanged_segment_is_not_submitted() -> None:
    """The outcome of an unchanged segment is the file of the earlier run."""
    decision = start(Found(record=ExportRecord(), unchanged=FILE))
    assert events(decision) == (Event.UNCHANGED,)
    assert outcome_of(decision) == Exported("a", EXPORT, FILE, "unchanged")


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (record_in(State.DONE), Exported("a", EXPORT, FILE, "resumed")),
        (record_in(State.UNCHANGED), Exported("a", EXPORT, FILE, "unchanged")),
        (record_in(State.DONE, file=None), Completed("a", EXPORT)),
    ],
)
def test_a_recorded_end_is_yielded_again(record: ExportRecord, expected: Any) -> None:
    """A finished run's outcomes are those of its records."""
    assert outcome_of(start(Found(record=record, file_present=True, finished=True))) == expected


def test_a_recorded_failure_is_yielded_as_it_was() -> None:
    """A recorded failure has the error's class, its message, and its facts about the vendor."""
    failure = Failure("ServerError", "500", "maybe", resumable=False)
    found = Found(record=record_in(State.UNKNOWN, failure=failure))
    outcome = outcome_of(start(found))
    assert (type(outcome.error), str(outcome.error)) == (errors.ServerError, "500")
    assert (outcome.submitted, outcome.resumable) == ("maybe", False)


# --------------------------------------------------------------------- at the vendor's end


def failed(error: errors.SegmentsError) -> NotExported:
    return NotExported("a", EXPORT, error, "yes", resumable=False)


FAILED = failed(errors.ExportFailedError("failed", segment_id="a", export=EXPORT))
LOST = NotExported("a", None, errors.SubmitUnknownError("lost", segment_id="a"), "maybe", False)
TICKET = NotExported(
    "a",
    None,
    errors.ServerError("500", method="POST", path="/", status_code=500, body="", retry_after=None),
    "maybe",
    resumable=False,
)


@pytest.mark.parametrize(
    ("state", "failures", "outcome", "options", "resubmits", "expected", "step"),
    [
        (State.FAILED, 1, FAILED, REPORT, 0, (), Settle(FAILED)),
        (State.FAILED, 1, FAILED, RESUBMIT, 0, (), RetryAt(NOW + RETRY_FAILED_AFTER, FAILED)),
        (State.FAILED, 2, FAILED, RESUBMIT, 0, (), Settle(FAILED)),
        (State.UNKNOWN, 0, LOST, REPORT, 0, (), Settle(LOST)),
        (State.UNKNOWN, 0, LOST, RESUBMIT, 0, (Event.OPTED_IN,), Submit()),
        (State.UNKNOWN, 0, LOST, RESUBMIT, MOST_RESUBMITS, (), Settle(LOST)),
        (State.UNKNOWN, 0, TICKET, RESUBMIT, 0, (), Settle(TICKET)),
        (State.COMPLETE, 0, Completed("a", EXPORT), REPORT, 0, (), Fetch(EXPORT)),
    ],
)
def test_at_the_vendors_end(
    state: State,
    failures: int,
    outcome: Any,
    options: RunOptions,
    resubmits: int,
    expected: tuple[Event, ...],
    step: Any,
) -> None:
    """A second export only where the caller opted in; never after a 500, which raised a ticket."""
    record = record_in(state, failures=failures)
    decision = on_vendor_end(
        record, outcome, now=NOW, options=options, resubmits=resubmits, fetches=True
    )
    assert (events(decision), decision.step) == (expected, step)


def test_a_run_that_wants_links_is_done_at_complete() -> None:
    """A run without files fetches nothing: COMPLETE is its end."""
    complete = Completed("a", EXPORT)
    decision = on_vendor_end(
        record_in(State.COMPLETE), complete, now=NOW, options=REPORT, resubmits=0, fetches=False
    )
    assert (events(decision), decision.step) == ((Event.FETCHED,), Settle(complete))


def test_a_fetched_file_is_recorded_and_told() -> None:
    """With the file, so that a later session finds it."""
    decision = on_fetched("a", FILE)
    assert [payload.file for _, payload in decision.events] == [FILE]
    assert outcome_of(decision) == Exported("a", EXPORT, FILE, "exported")


@pytest.mark.parametrize(
    ("options", "replaced", "again"),
    [(REPORT, False, False), (RESUBMIT, False, True), (RESUBMIT, True, False)],
)
def test_an_expired_file_is_replaced_once(options: RunOptions, replaced: bool, again: bool) -> None:
    """An expired file is replaced only if the caller opted in, and once in a session."""
    error = errors.ExportExpiredError("gone", segment_id="a", export=EXPORT)
    decision = on_expired("a", EXPORT, error, options=options, replaced=replaced)
    assert events(decision) == ((Event.EXPIRED, Event.OPTED_IN) if again else (Event.EXPIRED,))
    assert isinstance(decision.step, Submit if again else Settle)


# --------------------------------------------------------------------- time

PENDING = Following(export=EXPORT, submitted="yes", setback="; polls fail")


@pytest.mark.parametrize(
    ("now", "since", "over"), [(100, -9, False), (101, -9, True), (101, 50, False)]
)
def test_an_export_is_overdue_by_its_own_time(now: float, since: float, over: bool) -> None:
    """From its accepted POST, or from the session's start where no poll was answered yet."""
    assert is_overdue(0.0, now=now, since=since, timeout=100) == over


def test_an_overdue_export_is_given_up_and_not_lost() -> None:
    """The error says that the last polls failed, and a later session polls the export again."""
    decision = on_overdue("a", PENDING, timeout=100, known=True)
    assert events(decision) == (Event.GAVE_UP,)
    assert str(outcome_of(decision).error).endswith("at the vendor; polls fail")
    assert outcome_of(decision).resumable


def test_a_post_that_its_process_did_not_outlive_is_recorded_with_the_reason() -> None:
    """The LOST of a killed process has its error, and so a place for the segment's name."""
    [(event, payload)] = start(Found(record=record_in(State.INTENT))).events
    named = payload_from_json("a", json.loads(payload_to_json(payload.named("Buyers"))))
    assert event is Event.LOST
    assert named.failure is not None
    assert (named.failure.type, named.failure.name) == ("SubmitUnknownError", "Buyers")
    lost = ExportRecord(State.UNKNOWN, failure=named.failure)
    assert outcome_of(start(Found(record=lost))).name == "Buyers"


@pytest.mark.parametrize(
    ("state", "following", "kind", "submitted", "resumable"),
    [
        (State.NEW, None, errors.NotSubmittedError, "no", True),
        (State.NEW, Following(), errors.NotSubmittedError, "no", True),
        (State.INTENT, Following(posting=True), errors.SubmitUnknownError, "maybe", False),
        (State.INTENT, None, errors.SubmitUnknownError, "maybe", False),
        (State.SUBMITTED, PENDING, errors.ExportTimeoutError, "yes", True),
        (State.SUBMITTED, None, errors.ExportTimeoutError, "yes", True),
    ],
)
def test_a_run_that_is_left_tells_what_may_go_on(
    state: State, following: Following | None, kind: type, submitted: str, resumable: bool
) -> None:
    """An export that was not requested, or whose id is known, is resumable; a lost POST is not."""
    if following is None:
        outcome = left_outcome("a", record_in(state), reason="time is up", run="r")
    else:
        outcome = on_interrupt("a", following, reason="time is up", known=True)
    assert isinstance(outcome, NotExported)
    assert (type(outcome.error), outcome.submitted) == (kind, submitted)
    assert outcome.resumable == resumable


def test_an_export_that_no_session_will_find_is_not_resumable() -> None:
    """Without its id in the journal, a later session could only ask a second time."""
    record, why = record_in(State.SUBMITTED), "time is up"
    outcome = left_outcome("a", record, reason=why, run="r", known=False)
    assert isinstance(outcome, NotExported)
    assert not outcome.resumable
    assert not on_interrupt("a", PENDING, reason=why, known=False).resumable
