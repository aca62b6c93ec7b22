"""Where one export of one run stands: one table.

Rules, after h11: the state changes only through `advance`, and an event that the table doesn't know
raises and changes nothing. A restart is a replay of the same events through the same table
(`standing.py`).

Only NEW may be POSTed, and the table alone decides what may become NEW again: what provably never
was an export (NOT_SENT, and RESUMED out of UNASKED, REFUSED and UNCHANGED), and what the caller
opted in to export a second time (OPTED_IN).
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
    UNCHANGED = "unchanged"  # the last run's file is still right: nothing asked
    REFUSED = "refused"  # the vendor answered the POST with an error, and did nothing
    UNKNOWN = "unknown"  # whether the POST was acted on can't be known: lost, or answered 5xx
    FAILED = "failed"  # the vendor says FAILED
    UNASKED = "unasked"  # we gave up before anything was asked
    BROKEN_OFF = "broken_off"  # we gave up on an export that was asked for: deadline, link, file
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
    UNCHANGED = "unchanged"
    RESUMED = "resumed"  # a later session goes on
    OPTED_IN = "opted_in"  # a second export is wanted: on_unknown, on_expired, retry_failed


class IllegalTransition(Exception):
    """An event that can't happen in this state: a fault in this library."""


_TABLE: dict[State, dict[Event, State]] = {
    State.NEW: {
        Event.INTENT: State.INTENT,
        Event.ADOPTED: State.SUBMITTED,
        Event.UNCHANGED: State.UNCHANGED,
        Event.GAVE_UP: State.UNASKED,
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
    # Links are kept nowhere. So whatever had come further than SUBMITTED goes on from there: the
    # vendor is asked for the export's status, and the link, once more.
    State.COMPLETE: {
        Event.FETCH: State.FETCHING,
        Event.FETCHED: State.DONE,  # nothing to fetch: a run that wants only links
        Event.EXPIRED: State.EXPIRED,
        Event.GAVE_UP: State.BROKEN_OFF,
        Event.RESUMED: State.SUBMITTED,
    },
    State.FETCHING: {
        Event.FETCHED: State.DONE,
        Event.FETCH_BROKE: State.COMPLETE,
        Event.EXPIRED: State.EXPIRED,
        Event.GAVE_UP: State.BROKEN_OFF,
        Event.RESUMED: State.SUBMITTED,
    },
    State.DONE: {Event.RESUMED: State.SUBMITTED},  # the file is gone, or only the link was wanted
    State.UNCHANGED: {Event.RESUMED: State.NEW},  # the file is gone
    State.REFUSED: {Event.RESUMED: State.NEW},
    State.UNKNOWN: {Event.OPTED_IN: State.NEW},
    State.FAILED: {Event.OPTED_IN: State.NEW},
    State.UNASKED: {Event.RESUMED: State.NEW},
    State.BROKEN_OFF: {Event.RESUMED: State.SUBMITTED},
    State.EXPIRED: {Event.OPTED_IN: State.NEW},
}

#: What doesn't happen by itself.
_DECIDED = frozenset({Event.RESUMED, Event.OPTED_IN})

#: Where nothing more happens, unless a later session or the caller decides that it goes on.
ENDS = frozenset(state for state, events in _TABLE.items() if events.keys() <= _DECIDED)


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
