"""Whether a run's database is available, busy or away, judged by attempts to write and read."""

from __future__ import annotations

from typing import get_args

import pytest

from segments_async import JournalError
from segments_async._sansio.jobs.journal_outage import (
    BUSY_PAUSE,
    BUSY_SECONDS,
    LONGEST_OUTAGE,
    JournalLooks,
    JournalOutage,
)
from segments_async.errors import JournalReason


def test_a_busy_database_is_away_after_a_while() -> None:
    """Another transaction is waited for in short pauses, and counts as an outage after seconds."""
    outage = JournalOutage()
    assert not outage.on_busy(10.0)
    assert outage.next_pause() == BUSY_PAUSE
    assert not outage.on_busy(10.0 + BUSY_SECONDS - 0.1)
    assert outage.on_busy(10.0 + BUSY_SECONDS)


def test_a_written_transaction_ends_what_was_busy() -> None:
    """The next transaction that holds the database is waited for anew."""
    outage = JournalOutage()
    outage.on_busy(0.0)
    assert outage.on_written(1.0) is None
    assert not outage.on_busy(BUSY_SECONDS + 1.0)


def test_an_outage_is_waited_for_in_growing_pauses() -> None:
    """The pauses double up to a last one, and begin anew with each outage."""
    outage = JournalOutage()
    assert outage.on_away(0.0) == "begins"
    assert outage.away
    pauses = [outage.next_pause() for _ in range(8)]
    assert pauses[:3] == [0.1, 0.2, 0.4]
    assert pauses[-1] == pauses[-2] == 2.0
    assert outage.on_away(30.0) == "lasts"
    assert outage.on_written(31.0) == 31.0
    assert (outage.away, outage.next_pause()) == (False, 0.0)
    outage.on_away(40.0)
    assert outage.next_pause() == 0.1


def test_an_outage_ends_the_run_after_ten_minutes() -> None:
    """After ten minutes of an outage the run waits no longer."""
    outage = JournalOutage()
    outage.on_away(0.0)
    assert outage.on_away(LONGEST_OUTAGE) == "lasts"
    assert outage.on_away(LONGEST_OUTAGE + 0.1) == "over"
    assert not outage.away


def test_idle_counts_from_the_last_write() -> None:
    """The idle time is infinite before the first write, and counts from the last write then."""
    outage = JournalOutage()
    assert outage.idle(0.0) == float("inf")
    outage.on_written(5.0)
    assert outage.idle(8.0) == 3.0


def error_of(reason: JournalReason) -> JournalError:
    return JournalError("the journal", reason=reason, location="runs.db")


@pytest.mark.parametrize("reason", get_args(JournalReason))
def test_a_failed_look_ends_the_session_where_waiting_is_of_no_use(reason: JournalReason) -> None:
    """A journal that is locked or unavailable is waited for; any other error is raised at once."""
    looks = JournalLooks()
    if reason in ("locked", "unavailable"):
        looks.on_error(error_of(reason), 0.0)
        assert looks.away
    else:
        with pytest.raises(JournalError) as raised:
            looks.on_error(error_of(reason), 0.0)
        assert raised.value.reason == reason


def test_failed_looks_end_the_session_after_ten_minutes() -> None:
    """Ten minutes without a look are too many, counted from the first that failed."""
    looks, error = JournalLooks(), error_of("unavailable")
    looks.on_error(error, 0.0)
    looks.on_error(error, LONGEST_OUTAGE)
    with pytest.raises(JournalError):
        looks.on_error(error, LONGEST_OUTAGE + 0.1)


def test_a_look_that_succeeds_ends_the_wait() -> None:
    """After one good look the ten minutes begin anew."""
    looks, error = JournalLooks(), error_of("locked")
    looks.on_error(error, 0.0)
    looks.on_look()
    assert not looks.away
    looks.on_error(error, LONGEST_OUTAGE + 1.0)
    assert looks.away
