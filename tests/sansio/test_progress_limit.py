"""Whether a download makes progress."""

from __future__ import annotations

from segments_async._sansio.files.progress_limit import (
    ATTEMPTS,
    FAST,
    MIN_BYTES,
    MIN_BYTES_WINDOW,
    ProgressLimit,
    SpeedMeter,
)


def test_five_attempts_that_get_no_further_are_enough() -> None:
    """Any number of attempts is made while each brings more bytes."""
    patience = ProgressLimit()
    for kept in range(1, 100):
        assert patience.on_break(kept)
    assert [patience.on_break(99) for _ in range(ATTEMPTS)] == [True] * 4 + [False]


def test_what_starts_over_again_and_again_gets_no_further() -> None:
    """Only more bytes than ever count as progress, so a file that always changes is given up."""
    patience = ProgressLimit()
    answers = [patience.on_break(kept) for kept in (50, 0, 50, 0, 50, 0)]
    assert answers == [True, True, True, True, True, False]


def test_a_byte_now_and_then_doesnt_hold_a_connection() -> None:
    """Fewer than 64 KiB in 60 s end a connection, however often bytes arrive."""
    speed = SpeedMeter(100.0)
    for second in range(1, 60):
        speed.on_bytes(1000, 100.0 + second)
    assert speed.deadline == 100.0 + MIN_BYTES_WINDOW


def test_enough_bytes_begin_a_new_window() -> None:
    """The deadline moves with each 64 KiB, but not with every chunk."""
    speed = SpeedMeter(0.0)
    speed.on_bytes(MIN_BYTES, 0.5)
    assert speed.deadline == MIN_BYTES_WINDOW
    speed.on_bytes(1, 1.0)
    assert speed.deadline == 1.0 + MIN_BYTES_WINDOW
    speed.on_bytes(MIN_BYTES - 1, 30.0)
    assert speed.deadline == 1.0 + MIN_BYTES_WINDOW
    speed.on_bytes(1, 40.0)
    assert speed.deadline == 40.0 + MIN_BYTES_WINDOW


def test_a_slow_connection_is_worth_another() -> None:
    """A second connection is opened after the warm-up, and not if the first is fast."""
    slow, fast = SpeedMeter(0.0), SpeedMeter(0.0)
    slow.on_bytes(1000, 5.0)
    fast.on_bytes(int(FAST), 5.0)
    assert not slow.worth_another(5.05)
    assert slow.worth_another(5.2)
    assert not fast.worth_another(5.9)
    assert fast.worth_another(6.1)


def test_before_the_first_byte_nothing_is_known() -> None:
    """The time before the first byte doesn't count as slow."""
    assert not SpeedMeter(0.0).worth_another(50.0)
