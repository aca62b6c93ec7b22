"""The state of a run: where each export stands, and how many stand where."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segments_async._sansio.jobs.lifecycle import Event, IllegalTransition, State, advance
from segments_async._sansio.jobs.payload import Payload
from segments_async._sansio.jobs.record import ExportRecord
from segments_async._sansio.jobs.run_state import ACTIVE, RunState
from segments_async.models import Export, ExportStatus, Segment, SegmentType
from segments_async.results import ExportedFile

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


def payload_of(segment_id: str) -> Payload:
    """A payload with every value that any event may need."""
    segment = Segment(segment_id, "Buyers", "p", SegmentType.STATIC)
    export = Export("e", segment, ExportStatus.COMPLETE)
    return Payload(export, ExportedFile("/exports/a.csv", 7, "ab" * 32, True, export))


def apply(run_state: RunState, segment_id: str, event: Event) -> State:
    run_state.apply(segment_id, event, payload_of(segment_id), at=NOON)
    return run_state.state(segment_id)


def state_of(*segment_ids: str) -> RunState:
    run_state = RunState()
    for segment_id in segment_ids:
        run_state.add(segment_id)
    return run_state


def test_an_illegal_event_changes_nothing() -> None:
    """An event that can't happen raises, and neither record nor counts change."""
    run_state = state_of("a")
    with pytest.raises(IllegalTransition):
        apply(run_state, "a", Event.COMPLETED)
    assert run_state.record("a") == ExportRecord()
    assert (run_state.count(State.NEW), run_state.count(*State)) == (1, 1)


def test_an_unknown_segment_is_an_error() -> None:
    """An event of a segment that isn't this session's is a fault in this library."""
    run_state = state_of()
    with pytest.raises(KeyError):
        apply(run_state, "stranger", Event.INTENT)
    assert (run_state.count(*State), run_state.records) == (0, {})


def test_the_entry_is_what_the_journal_appends() -> None:
    """`apply` returns the entry for the journal's log, and advances the record once."""
    run_state = state_of("a")
    entry = run_state.apply("a", Event.INTENT, at=NOON)
    assert (entry.segment_id, entry.event, entry.at) == ("a", Event.INTENT, NOON)
    assert run_state.state("a") is State.INTENT
    assert (run_state.count(State.NEW), run_state.count(State.INTENT)) == (0, 1)


def test_a_segment_of_an_earlier_session_counts_once_it_is_added() -> None:
    """A segment counts once it is added to the session, and only once if it is added twice."""
    submitted = ExportRecord(State.SUBMITTED, payload_of("a").export, NOON)
    run_state = RunState({"a": submitted, "b": submitted})
    assert run_state.add("a") == run_state.add("a") == submitted
    assert (run_state.count(*State), run_state.places(2)["waiting"]) == (1, 1)
    assert run_state.records.keys() == {"a", "b"}


def test_a_released_segment_keeps_its_record() -> None:
    """A run that is left counts an export no more, and the next session finds its record."""
    run_state = state_of("a", "b")
    apply(run_state, "a", Event.ADOPTED)
    run_state.release("a")
    assert run_state.state("a") is State.SUBMITTED
    assert (run_state.count(*State), list(run_state.latest())) == (1, [])


def test_exports_of_an_earlier_session_are_active() -> None:
    """What an earlier session left at the vendor is under way again, once it is added."""
    record = state_of("a", "b")
    apply(record, "a", Event.ADOPTED)
    run_state = RunState(record.records)
    assert list(run_state.latest()) == []
    run_state.add("a")
    run_state.add("b")
    assert list(run_state.latest()) == ["a"]


@given(st.lists(st.tuples(st.sampled_from(["a", "b", "c"]), st.sampled_from(Event)), max_size=60))
def test_counts_agree_with_records(events: list[tuple[str, Event]]) -> None:
    """After any events, legal or not: states are the table's, counts and activity are of them."""
    run_state = state_of(*"abc")
    states = dict.fromkeys("abc", State.NEW)
    touched: list[str] = []
    for segment_id, event in events:
        try:
            after = apply(run_state, segment_id, event)
        except IllegalTransition:
            continue
        states[segment_id] = advance(states[segment_id], event)
        touched.append(segment_id)
        assert after is states[segment_id]
    assert {segment_id: run_state.state(segment_id) for segment_id in states} == states
    counts = {state: [*states.values()].count(state) for state in State}
    assert {state: run_state.count(state) for state in State} == counts
    active = [one for one in dict.fromkeys(reversed(touched)) if states[one] in ACTIVE]
    assert list(run_state.latest()) == active
