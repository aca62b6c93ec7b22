"""Hints about the limit in headers: used where they make sense, ignored where they don't."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segments_async._sansio.pace.limit_headers import Hint, read_hint


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
