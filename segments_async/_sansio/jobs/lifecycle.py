"""The life of one export in one run: thirteen states, fifteen events, one table.

::

                          NOT_SENT
                    .------------------.
                    v                  |
    run starts --> NEW --- INTENT --> INTENT --- ACCEPTED --> SUBMITTED --- COMPLETED --> COMPLETE
                                        |                         |                          |
                          REFUSED or UNKNOWN                   FAILED                      FETCH
                                                                                             v
                                                  DONE <------------- FETCHED --------- FETCHING

    also: NEW --> UNCHANGED, and --> UNASKED; SUBMITTED, COMPLETE, FETCHING --> BROKEN_OFF;
    COMPLETE, FETCHING --> EXPIRED

Who fires which event:

* The verdict on a POST (`verdict.on_submit`): INTENT before the POST; then ACCEPTED, NOT_SENT,
  REFUSED or LOST.
* The verdict on a poll (`verdict.on_poll`): COMPLETED, FAILED, or GAVE_UP.
* The run (`decisions`): ADOPTED where another caller's export is joined; FETCH, FETCHED, EXPIRED;
  UNCHANGED; GAVE_UP where a deadline, a file or an option ends the export; OPTED_IN where the
  caller asked for a second export (`on_unknown`, `on_expired`, `retry_failed`).
* A later session (`record.resume_events`): RESUMED, LOST for an INTENT that it finds, OPTED_IN.

Rules, after h11: a state changes only through :func:`advance`; an event that the table doesn't have
for a state raises, and changes nothing. A restart replays the logged events through the same table
(`replay.py`). FETCH alone isn't logged, so a log has no FETCHING: its FETCHED, EXPIRED and GAVE_UP
follow COMPLETE.

Only a NEW export is POSTed. So the table alone decides what may be POSTed twice: an export of which
the vendor provably made nothing (NOT_SENT, and RESUMED out of UNASKED, REFUSED and UNCHANGED), and
an export that the caller wants a second time (OPTED_IN).
"""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    """Where an export stands in a run."""

    NEW = "new"  # nothing asked: the only state from which a POST may go
    INTENT = "intent"  # a POST is about to be sent, or is on the wire
    SUBMITTED = "submitted"  # the vendor gave an id, and is at work
    COMPLETE = "complete"  # the vendor is done, the file is not fetched
    FETCHING = "fetching"
    DONE = "done"  # the file is in place
    UNCHANGED = "unchanged"  # the last run's file is still right: nothing was asked
    REFUSED = "refused"  # the vendor answered the POST with an error, and did nothing
    UNKNOWN = "unknown"  # the POST's answer was lost, or was 5xx: the vendor may have acted
    FAILED = "failed"  # the vendor says FAILED
    UNASKED = "unasked"  # the run gave up before anything was asked
    BROKEN_OFF = "broken_off"  # the run gave up on a submitted export: deadline, link, file
    EXPIRED = "expired"  # the vendor has deleted the file (after 48 hours)


class Event(StrEnum):
    """What happened."""

    INTENT = "intent"
    NOT_SENT = "not_sent"  # the POST provably never arrived, or was answered "not now"
    ACCEPTED = "accepted"
    REFUSED = "refused"
    LOST = "lost"
    ADOPTED = "adopted"  # another caller's export was joined
    COMPLETED = "completed"
    FAILED = "failed"
    FETCH = "fetch"
    FETCHED = "fetched"
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
    # The journal keeps no link. So an export that had come further than SUBMITTED goes on from
    # SUBMITTED: the vendor is polled once more, and gives the link.
    State.COMPLETE: {
        Event.FETCH: State.FETCHING,
        Event.FETCHED: State.DONE,  # a run that wants only links, and every log: see the head
        Event.EXPIRED: State.EXPIRED,
        Event.GAVE_UP: State.BROKEN_OFF,
        Event.RESUMED: State.SUBMITTED,
    },
    State.FETCHING: {
        Event.FETCHED: State.DONE,
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

#: Events that only a later session, or an option of the caller's, fires.
_DECIDED = frozenset({Event.RESUMED, Event.OPTED_IN})

#: The states in which an outcome is final, unless a later session or an option goes on from there.
ENDS = frozenset(state for state, events in _TABLE.items() if events.keys() <= _DECIDED)


def advance(state: State, event: Event) -> State:
    """The state after the event; IllegalTransition where the table has none."""
    try:
        return _TABLE[state][event]
    except KeyError:
        raise IllegalTransition(f"{event} in state {state}") from None
