"""When an event of a run is written."""

from __future__ import annotations

import pytest

from segments_async._sansio.jobs.commits import (
    APART,
    INTENTS_APART,
    LINGER,
    LONGEST,
    UNAWAITED,
    CommitSchedule,
)
from segments_async._sansio.jobs.lifecycle import Event

NOW = 1000.0


@pytest.mark.parametrize(
    ("event", "since", "others", "after"),
    [
        # The first commit, and a commit long after the last one, wait for nothing.
        (Event.INTENT, None, True, 0.0),
        (Event.ACCEPTED, None, True, 0.0),
        (Event.FETCHED, None, True, 0.0),
        (Event.INTENT, INTENTS_APART, True, 0.0),
        (Event.ACCEPTED, APART, True, 0.0),
        (Event.FETCHED, LINGER, True, 0.0),
        # Soon after the last one, an event waits for others.
        (Event.INTENT, 0.0, True, INTENTS_APART),
        (Event.ACCEPTED, 0.0, True, APART),
        (Event.REFUSED, 0.0, True, APART),
        (Event.NOT_SENT, 0.25 * APART, True, 0.75 * APART),
        (Event.UNCHANGED, 0.5 * LINGER, True, 0.5 * LINGER),
        (Event.FETCHED, 0.25 * LINGER, True, 0.75 * LINGER),
        # No others are under way.
        (Event.INTENT, 0.0, False, 0.0),
        (Event.ACCEPTED, 0.0, False, 0.0),
        (Event.FETCHED, 0.0, False, 0.0),
    ],
)
def test_when_an_event_is_written(
    event: Event, since: float | None, others: bool, after: float
) -> None:
    """The table, with the last commit `since` seconds ago, and None without one."""
    schedule = CommitSchedule()
    if since is not None:
        schedule.on_commit(NOW - since)
    assert schedule.due(event, NOW, others=others) == pytest.approx(NOW + after)


def test_without_a_caller() -> None:
    """An event for which no caller waits is written after `LONGEST` seconds, whatever happens."""
    schedule = CommitSchedule()
    schedule.on_commit(NOW)
    assert schedule.due_later(NOW) == NOW + LONGEST


def test_what_a_kill_must_not_cost() -> None:
    """The events that say what became of a POST are not among those that linger."""
    schedule = CommitSchedule()
    schedule.on_commit(NOW)
    for event in set(Event) - {Event.INTENT, Event.FETCHED, Event.UNCHANGED} - UNAWAITED:
        assert schedule.due(event, NOW, others=True) == NOW + APART
    assert {Event.COMPLETED, Event.RESUMED, Event.OPTED_IN} == UNAWAITED
    assert APART <= INTENTS_APART < 0.03 < LINGER < LONGEST
