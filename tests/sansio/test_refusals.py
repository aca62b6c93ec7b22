"""When a submit that is refused again and again is given up."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from segments_async._sansio.pace.refusals import ENOUGH, LASTING, LONGEST_PAUSE, Refusals


def after(times: list[float], *, passing: bool, others: int = 0) -> Refusals:
    """The state after refusals at these times, with or without another request that passes."""
    found = Refusals()
    for n, now in enumerate(times):
        found = found.refused(now, granted=n if passing else 0, others=others)
    return found


@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=200))
def test_who_is_refused_with_everybody_is_never_given_up(gaps: list[float]) -> None:
    """While a limit refuses all requests, no submit is given up or delayed on its own account."""
    times = [sum(gaps[: n + 1]) for n in range(len(gaps))]
    found = after(times, passing=False)
    assert not found.lasting(times[-1])
    assert found.pause == 0


@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=200))
def test_jobs_at_work_may_be_the_reason(gaps: list[float]) -> None:
    """While exports of this client run, a cap on them may be the reason: nothing is given up."""
    times = [sum(gaps[: n + 1]) for n in range(len(gaps))]
    assert not after(times, passing=True, others=1).lasting(times[-1])


def test_who_is_refused_alone_is_asked_for_ever_more_rarely_and_given_up() -> None:
    """A submit refused alone is tried ever more rarely, and given up within ten minutes."""
    found, now, tries = Refusals(), 0.0, 0
    while not found.lasting(now):
        now += 0.1 + found.pause
        tries += 1
        found = found.refused(now, granted=tries, others=0)
        assert found.pause <= LONGEST_PAUSE
    assert found.alone >= ENOUGH
    assert LASTING <= now <= 600
    assert tries <= 30


def test_a_few_refusals_are_nothing() -> None:
    """A submit that was refused four times within seconds isn't suspicious."""
    assert not after([0, 1, 2, 3], passing=True).suspicious
    assert not after([0.0] * 50, passing=True).suspicious
    assert Refusals().since == math.inf
