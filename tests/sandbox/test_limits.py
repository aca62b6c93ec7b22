"""The limiters, and their bounds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segments_async.sandbox import ContendedLimit, FixedWindow, TokenBucket

OWN_LIMITS: list[TokenBucket | FixedWindow] = [
    TokenBucket(rate=10, burst=20),
    TokenBucket(rate=50, burst=5, steps=((2.0, 5), (4.0, 100))),
    FixedWindow(limit=30, seconds=2.0),
    FixedWindow(limit=30, seconds=2.0, phase=1.5),
]
CONTENDED_LIMITS = [
    ContendedLimit(TokenBucket(rate=10, burst=20), used_up=((0.0, 1.0), (2.0, 2.5))),
    ContendedLimit(TokenBucket(rate=10, burst=20), used=((0.0, 15),)),
    ContendedLimit(FixedWindow(limit=30, seconds=2.0, phase=1.5), used_up=((0.0, 0.0),)),
    ContendedLimit(FixedWindow(limit=30, seconds=2.0, phase=1.5), used=((0.0, 10),)),
    ContendedLimit(FixedWindow(limit=30, seconds=2.0, phase=1.5), used_up=((0.4, 3.0),)),
]
Limit = TokenBucket | FixedWindow | ContendedLimit
LIMITS: list[Limit] = [*OWN_LIMITS, *CONTENDED_LIMITS]


def admitted(limit: Limit, until: float, every: float = 0.001) -> int:
    counter = limit.counter()
    got = 0
    for n in range(int(until / every) + 1):
        while counter.admit(n * every) is None:
            got += 1
    return got


@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("t", [0.0, 0.4, 1.9, 3.0, 5.0])
def test_bound_is_what_a_greedy_client_gets(limit: Limit, t: float) -> None:
    """`admitted_by` is the number of requests that a client gets which sends all the time."""
    got = admitted(limit, t)
    assert got <= limit.admitted_by(t) + 1e-6
    assert got >= limit.admitted_by(t) - 1.2


@pytest.mark.parametrize("limit", OWN_LIMITS)
def test_told_wait_is_right(limit: TokenBucket | FixedWindow) -> None:
    """A refused request passes after the wait of its 429, and not before."""
    early, late = limit.counter(), limit.counter()
    for counter in (early, late):
        while counter.admit(1.0) is None:
            pass
    wait = early.admit(1.0)
    assert wait is not None
    assert early.admit(1.0 + wait * 0.99) is not None
    assert late.admit(1.0 + wait + 1e-9) is None


def test_refused_requests_take_nothing() -> None:
    """More refused requests don't delay the next grant."""
    counter = TokenBucket(rate=1, burst=1).counter()
    counter.admit(0.0)
    assert [counter.admit(n / 10) is None for n in range(1, 11)] == [False] * 9 + [True]


@given(st.integers(1, 1000), st.integers(1, 500))
def test_a_client_on_time_is_never_refused(rate: int, requests: int) -> None:
    """Requests exactly 1/rate apart pass, whatever the rounding."""
    counter = TokenBucket(rate=rate, burst=1).counter()
    assert all(counter.admit(n / rate) is None for n in range(requests))


def test_steps_must_rise() -> None:
    """A step into the past is an error."""
    with pytest.raises(ValueError, match="rising"):
        TokenBucket(rate=1, steps=((5.0, 2.0), (1.0, 3.0)))


def test_others_take_everything_for_a_while() -> None:
    """Without a limit, every request is refused in the spans, and none outside."""
    counter = ContendedLimit(None, used_up=((0.0, 4.0), (6.0, 7.0))).counter()
    waits = [counter.admit(at) for at in (0.0, 3.0, 4.0, 5.9, 6.5, 7.0)]
    assert waits == [4.0, 1.0, None, None, 0.5, None]
    limit = ContendedLimit(None, used_up=((0.0, 4.0),))
    assert limit.admitted_by(3.9) == 0
    assert limit.admitted_by(4.1) == float("inf")


def test_others_take_some_of_a_window() -> None:
    """The requests that others take are missing in that window, and not in the next one."""
    counter = ContendedLimit(FixedWindow(10, 2.0), used=((1.0, 7),)).counter()
    first = [counter.admit(at) is None for at in (0.5, 1.0, 1.1, 1.2)]
    assert first == [True, True, True, False]
    assert [counter.admit(2.0) is None for _ in range(11)] == [True] * 10 + [False]


def test_spans_must_rise() -> None:
    """Spans that overlap are an error, and so is a negative number of requests."""
    with pytest.raises(ValueError, match="used_up"):
        ContendedLimit(None, used_up=((0.0, 2.0), (1.0, 3.0)))
    with pytest.raises(ValueError, match="used is"):
        ContendedLimit(None, used=((0.0, -1),))
