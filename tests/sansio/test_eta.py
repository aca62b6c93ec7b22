"""Claims about the estimated end of a run."""

from __future__ import annotations

import math
import random
import statistics
from typing import Any

import pytest

from segments_async._sansio.jobs.eta import Running, eta_seconds, fit

FEW, MANY = [3.9, 4.0, 4.1], [4.0] * 100


def eta(**facts: Any) -> float | None:
    usual: dict[str, Any] = {
        "waiting": 0,
        "pending": 0,
        "fetching": 0,
        "rate": 10.0,
        "polls": 100,
        "ended": 100,
        "durations": MANY,
        "running": [Running(0.0)] * facts.get("pending", 0),
        "fetch_seconds": 0.0,
    }
    return eta_seconds(**(usual | facts))


def test_nothing_is_told_before_something_is_known() -> None:
    """Before three exports have ended, and one in twenty, there is no estimate."""
    assert eta(waiting=10, durations=[4.0, 4.0]) is None
    assert eta(pending=500, durations=FEW) is None
    assert eta(pending=20, durations=FEW) is not None


def test_nothing_left_takes_no_time() -> None:
    """A run without unfinished exports ends now."""
    assert eta(durations=[]) == 0.0


def test_where_the_budget_binds_it_is_what_remains_to_be_sent() -> None:
    """A thousand exports of two requests each, at 10/s."""
    assert eta(waiting=1000) == pytest.approx(200.0)


def test_where_the_vendor_binds_it_is_the_slowest_of_those_that_run() -> None:
    """Exports that all take 4 s, submitted a second ago, are there in three."""
    assert eta(pending=5, rate=None, running=[Running(1.0)] * 5) == pytest.approx(3.0, rel=0.1)


def test_one_that_takes_unusually_long_is_expected_to_go_on() -> None:
    """An export known to have taken 60 s where 4 are usual: four tenths of that more."""
    seconds = eta(pending=1, running=[Running(60.0, known=60.0)])
    assert seconds == pytest.approx(0.41 * 60, rel=0.05)


def test_exports_that_run_make_the_law_slower() -> None:
    """Three ended within 4 s and thirty run since 20 s: exports of this account aren't quick."""
    quick, slow = fit(FEW, [], 0), fit(FEW, [Running(20.0, known=20.0)] * 10, 30)
    assert quick is not None
    assert slow is not None
    assert math.exp(quick.log_median) == pytest.approx(4.0, rel=0.05)
    assert math.exp(slow.log_median) > 8.0


def test_exports_that_were_not_polled_say_nothing() -> None:
    """Submitted long ago but never polled, an export may have ended: the law stays."""
    law, same = fit(FEW, [], 0), fit(FEW, [Running(20.0)] * 10, 10)
    assert law is not None
    assert same is not None
    assert same.log_median == pytest.approx(law.log_median)


def test_downloads_count() -> None:
    """Files that take longer than everything else decide; before the first, nothing is known."""
    assert eta(fetching=50, fetch_seconds=2.0) == pytest.approx(100.0)
    assert eta(fetching=50) is None


@pytest.mark.parametrize("spread", [0.6, 1.0])
@pytest.mark.parametrize("part", [0.33, 0.5, 0.8])
@pytest.mark.parametrize("rate", [None, 20.0])
def test_it_is_honest(spread: float, part: float, rate: float | None) -> None:
    """At a third, a half and four fifths of 60 runs, half of the estimates are 0.4 to 2.5 times."""
    ratios = [_ratio(random.Random(seed), spread, part, rate) for seed in range(60)]
    told = [ratio for ratio in ratios if ratio is not None]
    assert len(told) > 20
    low, middle, high = statistics.quantiles(told, n=4)
    assert 0.4 <= low <= high <= 2.5
    assert 0.6 <= middle <= 1.7


def _ratio(chance: random.Random, spread: float, part: float, rate: float | None) -> float | None:
    """The estimated over the true seconds left, where 100 exports of 30 s are polled as they end.

    At so small a limit, polls are left out: the submits decide.
    """
    submits = [index / rate if rate else 0.0 for index in range(100)]
    durations = [30 * math.exp(spread * chance.gauss(0, 1)) for _ in submits]
    begun = list(zip(submits, durations, strict=True))
    end = max(at + seconds for at, seconds in begun)
    now = part * end
    ended = [seconds for at, seconds in begun if at + seconds <= now]
    ages = [now - at for at, seconds in begun if at <= now < at + seconds]
    estimate = eta(
        waiting=sum(at > now for at in submits),
        pending=len(ages),
        rate=rate,
        polls=0,
        ended=len(ended),
        durations=ended,
        running=[Running(age, known=age) for age in ages],
    )
    return None if estimate is None else estimate / (end - now)
