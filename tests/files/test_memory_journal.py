"""The journal in memory: where each export stands, and how many stand where."""

from __future__ import annotations

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segments_async._journal.memory import MemoryJournal
from segments_async._sansio.lifecycle import Event, IllegalTransition, State, advance


async def test_an_illegal_event_changes_nothing() -> None:
    """An event that can't happen raises, and neither state nor counts change."""
    journal = MemoryJournal()
    journal.open("a")
    with pytest.raises(IllegalTransition):
        await journal.record("a", Event.COMPLETED)
    assert journal.state("a") is State.NEW
    assert (journal.count(State.NEW), journal.count(*State)) == (1, 1)


async def test_an_unknown_segment_is_an_error() -> None:
    """An event of a segment that isn't the run's is a fault in this library, and kept nowhere."""
    journal = MemoryJournal()
    with pytest.raises(KeyError):
        await journal.record("stranger", Event.INTENT)
    assert journal.count(*State) == 0


async def test_an_event_is_kept() -> None:
    """After an event, the state is the table's, and counted there."""
    journal = MemoryJournal()
    journal.open("a")
    await journal.record("a", Event.INTENT)
    assert journal.state("a") is State.INTENT
    assert (journal.count(State.NEW), journal.count(State.INTENT)) == (0, 1)


@given(st.lists(st.tuples(st.sampled_from(["a", "b", "c"]), st.sampled_from(Event)), max_size=60))
def test_counts_agree_with_states(events: list[tuple[str, Event]]) -> None:
    """After any events, legal or not, each state's count is the number of exports in it."""
    journal = MemoryJournal()
    states = dict.fromkeys("abc", State.NEW)
    for segment_id in states:
        journal.open(segment_id)

    async def record_all() -> None:
        for segment_id, event in events:
            try:
                await journal.record(segment_id, event)
            except IllegalTransition:
                continue
            states[segment_id] = advance(states[segment_id], event)

    anyio.run(record_all)
    assert {segment_id: journal.state(segment_id) for segment_id in states} == states
    assert {s: journal.count(s) for s in State} == {s: [*states.values()].count(s) for s in State}
