"""Whether a run's database is available, busy or away, judged by the attempts to write."""

from __future__ import annotations

from segments_async._sansio.jobs.journal_outage import (
    BUSY_PAUSE,
    BUSY_SECONDS,
    LONGEST_OUTAGE,
    JournalOutage,
)


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
