"""Claims about the estimated end of a run."""

from __future__ import annotations

from typing import Any

import pytest

from segments_async._sansio.jobs.eta import eta_seconds


def eta(**facts: Any) -> float | None:
    usual: dict[str, Any] = {
        "waiting": 0,
        "pending": 0,
        "fetching": 0,
        "rate": 10.0,
        "requests": 400,
        "durations": [4.0] * 100,
        "oldest": 0.0,
        "newest": 0.0,
        "fetch_seconds": 0.0,
    }
    return eta_seconds(**(usual | facts))


def test_nothing_is_told_before_something_is_known() -> None:
    """Before three exports have ended, there is no estimate."""
    assert eta(waiting=10, durations=[4.0, 4.0]) is None


def test_nothing_left_takes_no_time() -> None:
    """A run without unfinished exports ends now."""
    assert eta(durations=[]) == 0.0


def test_where_the_budget_binds_it_is_what_remains_to_be_sent() -> None:
    """A thousand exports of two requests each, at 10/s."""
    assert eta(waiting=1000, requests=200) == pytest.approx(200.0)


def test_where_the_vendor_binds_it_is_the_usual_duration() -> None:
    """The export submitted last takes as long as nine tenths of those seen."""
    assert eta(pending=5, rate=None, newest=1.0) == pytest.approx(3.0)


def test_one_that_takes_unusually_long_is_expected_to_go_on() -> None:
    """An export known to have taken 60 s where 4 are usual: half as long again."""
    assert eta(pending=1, oldest=60.0, newest=60.0) == pytest.approx(30.0)


def test_downloads_count() -> None:
    """Files that take longer than everything else decide."""
    assert eta(fetching=50, fetch_seconds=2.0) == pytest.approx(100.0)
