"""The states of an export: the table, its rules, and replay."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segments_async._sansio.jobs.lifecycle import (
    ENDS,
    Event,
    IllegalTransition,
    State,
    advance,
)

ALL = [(state, event) for state in State for event in Event]
EVENTS = st.lists(st.sampled_from(Event), max_size=40)


def replay(events: Iterable[Event]) -> State:
    """The state after these events."""
    return functools.reduce(advance, events, State.NEW)


def target(state: State, event: Event) -> State | None:
    """The state after the event, None where it can't happen."""
    try:
        return advance(state, event)
    except IllegalTransition:
        return None


def walk(choices: list[int]) -> list[Event]:
    """Legal events from NEW, one per choice until nothing more can happen."""
    state, events = State.NEW, []
    for choice in choices:
        legal = [event for event in Event if target(state, event)]
        if not legal:
            break
        events.append(legal[choice % len(legal)])
        state = advance(state, events[-1])
    return events


WALKS = st.lists(st.integers(0, 20), max_size=40).map(walk)


def reachable(start: State, without: frozenset[State] = frozenset()) -> set[State]:
    seen, todo = set[State](), [start]
    while todo:
        state = todo.pop()
        seen.add(state)
        nexts = {after for event in Event if (after := target(state, event))}
        todo.extend(nexts - seen - without)
    return seen


@pytest.mark.parametrize(("state", "event"), ALL)
def test_an_event_leads_to_a_state_or_raises(state: State, event: Event) -> None:
    """The table is closed: every event in every state has a state as its target, or raises."""
    if target(state, event) is None:
        with pytest.raises(IllegalTransition, match=f"^{event} in state {state}$"):
            advance(state, event)
    else:
        assert advance(state, event) in set(State)


@pytest.mark.parametrize(
    ("state", "event"),
    [
        (State.NEW, Event.ACCEPTED),
        (State.NEW, Event.LOST),
        (State.NEW, Event.COMPLETED),
        (State.INTENT, Event.INTENT),
        (State.INTENT, Event.GAVE_UP),
        (State.INTENT, Event.ADOPTED),
        (State.SUBMITTED, Event.INTENT),
        (State.SUBMITTED, Event.FETCH),
        (State.SUBMITTED, Event.NOT_SENT),
        (State.COMPLETE, Event.INTENT),
        (State.COMPLETE, Event.FAILED),
        (State.FETCHING, Event.COMPLETED),
        (State.UNKNOWN, Event.NOT_SENT),
        (State.UNKNOWN, Event.INTENT),
        (State.DONE, Event.FETCH),
        (State.BROKEN_OFF, Event.INTENT),
        (State.BROKEN_OFF, Event.OPTED_IN),
        (State.SUBMITTED, Event.OPTED_IN),
        (State.INTENT, Event.RESUMED),
        (State.UNKNOWN, Event.RESUMED),
        (State.UNASKED, Event.ACCEPTED),
    ],
)
def test_illegal_events_raise(state: State, event: Event) -> None:
    """An event that means a second POST, a step back or a skipped step is illegal."""
    with pytest.raises(IllegalTransition):
        advance(state, event)


@pytest.mark.parametrize("state", sorted(set(State) - {State.NEW}))
def test_only_new_may_be_posted(state: State) -> None:
    """No event leads from any state but NEW to INTENT."""
    assert State.INTENT not in {target(state, event) for event in Event}


def test_new_leads_to_intent_by_intent_alone() -> None:
    """A POST is announced by its own event."""
    assert [e for e in Event if target(State.NEW, e) is State.INTENT] == [Event.INTENT]


def test_only_what_never_was_or_what_was_opted_in_may_be_posted_again() -> None:
    """NEW comes back where no export can be, and else by the caller's opting in alone."""
    back = {(state, event) for state, event in ALL if target(state, event) is State.NEW}
    assert {state for state, event in back if event is not Event.OPTED_IN} == {
        State.INTENT,
        State.UNASKED,
        State.REFUSED,
        State.UNCHANGED,
    }
    assert {state for state, event in back if event is Event.OPTED_IN} == {
        State.UNKNOWN,
        State.FAILED,
        State.EXPIRED,
    }


def test_a_lost_answer_is_the_end() -> None:
    """UNKNOWN is left by an opt-in only: a POST with a lost answer is repeated on request."""
    assert advance(State.INTENT, Event.LOST) is State.UNKNOWN
    assert [event for event in Event if target(State.UNKNOWN, event)] == [Event.OPTED_IN]


def test_what_was_submitted_is_never_new_again_by_resuming() -> None:
    """RESUMED leads a submitted export to SUBMITTED, from wherever it had come to."""
    submitted = {State.COMPLETE, State.FETCHING, State.DONE, State.BROKEN_OFF}
    assert {target(state, Event.RESUMED) for state in submitted} == {State.SUBMITTED}


def test_the_ends() -> None:
    """The ends are DONE, UNCHANGED and the six ways not to get there."""
    assert {
        State.DONE,
        State.UNCHANGED,
        State.REFUSED,
        State.UNKNOWN,
        State.FAILED,
        State.UNASKED,
        State.BROKEN_OFF,
        State.EXPIRED,
    } == ENDS


@pytest.mark.parametrize("state", sorted(ENDS))
@pytest.mark.parametrize("event", sorted(set(Event) - {Event.RESUMED, Event.OPTED_IN}))
def test_after_an_end_nothing_happens(state: State, event: Event) -> None:
    """After the end of an export only the events that open it again are legal."""
    with pytest.raises(IllegalTransition):
        advance(state, event)


@pytest.mark.parametrize("state", State)
def test_every_state_has_a_way_there_and_an_end(state: State) -> None:
    """Every state can come about, and from each an end can."""
    assert state in reachable(State.NEW)
    assert reachable(state) & ENDS


@pytest.mark.parametrize("state", [State.FAILED, State.COMPLETE, State.FETCHING, State.EXPIRED])
def test_nothing_is_complete_that_was_not_submitted(state: State) -> None:
    """An event of the vendor's side is legal only after the export was submitted or adopted."""
    assert state not in reachable(State.NEW, without=frozenset({State.SUBMITTED}))


@given(WALKS)
def test_replay_is_advance_repeated(events: list[Event]) -> None:
    """A restart comes to the same state as the process that recorded the events."""
    state = State.NEW
    for event in events:
        state = advance(state, event)
    assert replay(events) is state


@given(EVENTS)
def test_replay_of_anything_is_a_state_or_illegal(events: list[Event]) -> None:
    """Any sequence of events leads to one state, or replay raises IllegalTransition."""
    try:
        state = replay(events)
    except IllegalTransition:
        return
    assert state in reachable(State.NEW)
    assert not events or target(replay(events[:-1]), events[-1]) is state


@given(WALKS)
def test_between_two_posts_no_export_was_or_one_was_opted_in(events: list[Event]) -> None:
    """Each INTENT but the first comes after a POST without an export, or after an opt-in."""
    posts = [n for n, event in enumerate(events) if event is Event.INTENT]
    for before, after in itertools.pairwise(posts):
        between = events[before + 1 : after]
        assert between[0] in (Event.NOT_SENT, Event.REFUSED) or Event.OPTED_IN in between


def test_replay_of_nothing() -> None:
    """An export of which nothing is recorded is NEW."""
    assert replay([]) is State.NEW


def test_a_life_that_goes_well() -> None:
    """NEW, INTENT, SUBMITTED, COMPLETE, FETCHING, DONE."""
    events = [Event.INTENT, Event.ACCEPTED, Event.COMPLETED, Event.FETCH, Event.FETCHED]
    states = [replay(events[:n]) for n in range(len(events) + 1)]
    assert states == [
        State.NEW,
        State.INTENT,
        State.SUBMITTED,
        State.COMPLETE,
        State.FETCHING,
        State.DONE,
    ]
