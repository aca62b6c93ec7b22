"""Hints about the limit in headers: used where they make sense, ignored where they don't."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segments_async import Pacer
from segments_async._sansio.pace.limit_headers import Hint, HintedWaits, read_hint


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"ratelimit-remaining": "0"},
        {"ratelimit-remaining": "0", "ratelimit-reset": "-3"},
        {"ratelimit-remaining": "0", "ratelimit-reset": "nan"},
        {"ratelimit-remaining": "0", "ratelimit-reset": "1774000000"},
        {"ratelimit-remaining": "7", "ratelimit-reset": "30"},
        {"ratelimit": '"default";r=50;t=30'},
        {"ratelimit": "gibberish"},
        {"x-mp-rate-limit-percentage-used": "40"},
        {"x-mp-rate-limit-percentage-used": "soon"},
    ],
)
def test_no_hint_without_sense(headers: dict[str, str]) -> None:
    """Absent, incomplete, absurd and unremarkable figures give no hint."""
    assert read_hint(headers) is None


@pytest.mark.parametrize(
    "headers",
    [
        {"ratelimit-remaining": "0", "ratelimit-reset": "12"},
        {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "12"},
        {"x-rate-limit-remaining": "0", "x-rate-limit-reset": "12"},
        {"ratelimit": '"default";r=0;t=12'},
    ],
)
def test_a_used_up_budget_is_waited_for(headers: dict[str, str]) -> None:
    """With nothing left and a known reset, the requests wait for the reset, and the rate stays."""
    assert read_hint(headers) == Hint(wait=12.0, steady=True)


def test_a_nearly_used_budget_stops_growth() -> None:
    """A percentage near 100 stops growth, and delays no request."""
    assert read_hint({"x-mp-rate-limit-percentage-used": "99"}) == Hint(wait=0.0, steady=True)


@given(
    st.dictionaries(
        st.sampled_from(
            ["ratelimit", "ratelimit-remaining", "ratelimit-reset", "x-ratelimit-remaining"]
        ),
        st.text(max_size=40),
    )
)
def test_whatever_comes_the_wait_is_bounded(headers: dict[str, str]) -> None:
    """With any header, the wait is between 0 and two minutes."""
    hint = read_hint(headers)
    assert hint is None or 0 <= hint.wait <= 120


def test_milliseconds_stop_the_account_for_two_minutes_at_most() -> None:
    """A Reset of 3 s in milliseconds is a wait of two minutes, not of fifty."""
    headers = {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "3000"}
    assert read_hint(headers) == Hint(wait=120.0, steady=True)


def seconds_for(requests: int, hint: Callable[[float], Hint | None]) -> float:
    """Seconds that a client takes for so many requests, each granted after 0.1 s with a hint."""
    pacer, now = Pacer(), 0.0
    for _ in range(requests):
        pacer.on_waiting()
        now = max(now, pacer.next_at())
        epoch = pacer.take(now)
        now += 0.1
        pacer.on_accepted(now, epoch, hint(now))
    return now


def test_a_budget_that_is_always_used_up_is_not_believed_for_long() -> None:
    """A server that grants each request, and says each time that none is left, costs minutes."""
    assert seconds_for(200, lambda _: Hint(wait=120.0, steady=True)) < 300


def test_a_true_budget_is_waited_for_each_time() -> None:
    """Ten requests in each window of 60 s: after each tenth, the whole rest of it is waited for."""
    windows: Counter[int] = Counter()

    def hint(now: float) -> Hint | None:
        windows[int(now // 60)] += 1
        used_up = windows[int(now // 60)] >= 10
        return Hint(wait=60 - now % 60, steady=True) if used_up else None

    seconds_for(100, hint)
    assert list(windows.values()) == [10] * 10


def test_a_429_restores_the_belief() -> None:
    """Waits that were of no use are believed again once the vendor has refused a request."""
    waits, hint = HintedWaits(), Hint(wait=60.0, steady=True)
    held: list[float] = []
    now = 0.0
    for _ in range(4):
        held.append(waits.on_granted(now, hint) - now)
        now += held[-1]
    assert held == [60.0, 60.0, 30.0, 15.0]
    waits.on_throttled()
    assert waits.on_granted(now, hint) == now + 60.0


def test_short_waits_are_always_believed() -> None:
    """A bucket without a burst says after each request that the budget is used up, and is right."""
    assert seconds_for(50, lambda _: Hint(wait=1.0, steady=True)) >= 49
