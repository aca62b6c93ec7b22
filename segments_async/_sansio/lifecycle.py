"""Where one export of one run stands: one table.

Rules, after h11: the state changes only through `advance`, and an event that the table doesn't know
raises and changes nothing. A restart is a replay of the same events through the same table.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum


class State(StrEnum):
    """Where an export stands."""

    NEW = "new"  # nothing asked: the only state from which a POST may go
    INTENT = "intent"  # a POST is about to go, or on the wire
    SUBMITTED = "submitted"  # the vendor gave an id, and is at work
    COMPLETE = "complete"  # the vendor is done, the file not fetched
    FETCHING = "fetching"
    DONE = "done"  # the file is in place
    REFUSED = "refused"  # the vendor answered the POST with an error
    UNKNOWN = "unknown"  # the answer to the POST was lost
    FAILED = "failed"  # the vendor says FAILED
    BROKEN_OFF = "broken_off"  # we gave up: deadline, link, file; resumable
    EXPIRED = "expired"  # complete, and its file gone


class Event(StrEnum):
    """What happened."""

    INTENT = "intent"
    NOT_SENT = "not_sent"  # provably never arrived, or a 429
    ACCEPTED = "accepted"
    REFUSED = "refused"
    LOST = "lost"
    ADOPTED = "adopted"  # an export of somebody else's, joined
    COMPLETED = "completed"
    FAILED = "failed"
    FETCH = "fetch"
    FETCHED = "fetched"
    FETCH_BROKE = "fetch_broke"
    EXPIRED = "expired"
    GAVE_UP = "gave_up"


class IllegalTransition(Exception):
    """An event that can't happen in this state: a fault in this library."""


_TABLE: dict[State, dict[Event, State]] = {
    State.NEW: {
        Event.INTENT: State.INTENT,
        Event.ADOPTED: State.SUBMITTED,
        Event.GAVE_UP: State.BROKEN_OFF,
    },
    State.INTENT: {
        Event.NOT_SENT: State.NEW,
        Event.ACCEPTED: State.SUBMITTED,
        Event.REFUSED: State.REFUSED,
        Event.LOST: State.UNKNOWN,
    },
    State.SUBMITTED: {
        Event.COMPLETED: State.COMPLETE,
        Event.FAILED: State.FAILED,
        Event.GAVE_UP: State.BROKEN_OFF,
    },
    State.COMPLETE: {
        Event.FETCH: State.FETCHING,
        Event.FETCHED: State.DONE,  # nothing to fetch: a run that wants only links
        Event.GAVE_UP: State.BROKEN_OFF,
    },
    State.FETCHING: {
        Event.FETCHED: State.DONE,
        Event.FETCH_BROKE: State.COMPLETE,
        Event.EXPIRED: State.EXPIRED,
        Event.GAVE_UP: State.BROKEN_OFF,
    },
    State.DONE: {},
    State.REFUSED: {},
    State.UNKNOWN: {},
    State.FAILED: {},
    State.BROKEN_OFF: {},
    State.EXPIRED: {},
}

#: Where nothing more happens.
ENDS = frozenset(state for state, events in _TABLE.items() if not events)


def advance(state: State, event: Event) -> State:
    """The state after the event; IllegalTransition where the table has none."""
    try:
        return _TABLE[state][event]
    except KeyError:
        raise IllegalTransition(f"{event} in state {state}") from None


def replay(events: Iterable[Event]) -> State:
    """Where an export stands after these events."""
    state = State.NEW
    for event in events:
        state = advance(state, event)
    return state
