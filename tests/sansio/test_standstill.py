"""A late request and a process that stood still are different things."""

from __future__ import annotations

from segments_async._sansio.pace.standstill import LATE, LOOK, MOMENT, Standstill


def look(clock: Standstill, now: float, due: float, *, late: float = 0.0) -> float:
    """Sleep until the next look, which comes so much later than planned. Returns the time."""
    at = now + clock.plan(now, due) + late
    clock.on_look(at)
    return at


def test_a_request_ends_when_its_time_is_over() -> None:
    """In a process that didn't stand still, a request ends exactly when its time is over."""
    clock, now = Standstill(0.0), 0.0
    while not clock.is_over(5.5, now):
        now = look(clock, now, 5.5)
    assert now == 5.5


def test_the_clock_is_looked_at_every_second() -> None:
    """The clock is read each second, so a standstill in mid-request is noticed."""
    clock = Standstill(0.0)
    assert clock.plan(0.0, 30.0) == LOOK
    assert clock.plan(0.0, float("inf")) == LOOK


def test_after_a_standstill_a_request_has_a_moment() -> None:
    """A request whose time was over in a standstill ends after the moment, and no later."""
    clock = Standstill(0.0)
    now = look(clock, 0.0, 5.0, late=60.0)
    assert not clock.is_over(5.0, now)
    now = look(clock, now, 5.0)
    assert now == LOOK + 60.0 + MOMENT
    assert clock.is_over(5.0, now)


def test_a_standstill_lengthens_no_request_that_has_time() -> None:
    """A request with more time left than the standstill took ends at its own deadline."""
    clock = Standstill(0.0)
    now = look(clock, 0.0, 90.0, late=60.0)
    while not clock.is_over(90.0, now):
        now = look(clock, now, 90.0)
    assert now == 90.0


def test_a_busy_loop_is_no_standstill() -> None:
    """Looks that are a little late delay no end."""
    clock, now = Standstill(0.0), 0.0
    while not clock.is_over(5.0, now):
        now = look(clock, now, 5.0, late=LATE)
    assert now <= 5.0 + LATE


def test_each_standstill_has_its_moment() -> None:
    """A process that is stopped again within the moment gets another one."""
    clock = Standstill(0.0)
    now = look(clock, 0.0, 5.0, late=60.0)
    now = look(clock, now, 5.0, late=60.0)
    assert not clock.is_over(5.0, now)
    now = look(clock, now, 5.0)
    assert clock.is_over(5.0, now)
