"""The tally of a run: where each export stands, and how many stand where."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segments_async._sansio.jobs.lifecycle import Event, IllegalTransition, State, advance
from segments_async._sansio.jobs.tally import Tally


def test_an_illegal_event_changes_nothing() -> None:
    """An event that can't happen raises, and neither state nor counts change."""
    tally = Tally()
    tally.open("a")
    with pytest.raises(IllegalTransition):
        tally.record("a", Event.COMPLETED)
    assert tally.state("a") is State.NEW
    assert (tally.count(State.NEW), tally.count(*State)) == (1, 1)


def test_an_unknown_segment_is_an_error() -> None:
    """An event of a segment that isn't the run's is a fault in this library, and kept nowhere."""
    tally = Tally()
    with pytest.raises(KeyError):
        tally.record("stranger", Event.INTENT)
    assert tally.count(*State) == 0


def test_an_event_is_kept() -> None:
    """After an event, the state is the table's, and counted there."""
    tally = Tally()
    tally.open("a")
    tally.record("a", Event.INTENT)
    assert tally.state("a") is State.INTENT
    assert (tally.count(State.NEW), tally.count(State.INTENT)) == (0, 1)


@given(st.lists(st.tuples(st.sampled_from(["a", "b", "c"]), st.sampled_from(Event)), max_size=60))
def test_counts_agree_with_states(events: list[tuple[str, Event]]) -> None:
    """After any events, legal or not, each state's count is the number of exports in it."""
    tally = Tally()
    states = dict.fromkeys("abc", State.NEW)
    for segment_id in states:
        tally.open(segment_id)

    for segment_id, event in events:
        try:
            after = tally.record(segment_id, event)
        except IllegalTransition:
            continue
        states[segment_id] = advance(states[segment_id], event)
        assert after is states[segment_id]
    assert {segment_id: tally.state(segment_id) for segment_id in states} == states
    assert {s: tally.count(s) for s in State} == {s: [*states.values()].count(s) for s in State}
