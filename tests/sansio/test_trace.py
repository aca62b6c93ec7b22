"""The pace of a run over time, in a bounded number of points."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segments_async._sansio.pace.trace import (
    LONGEST_LOOK,
    MOST_POINTS,
    SHORTEST_LOOK,
    PacePoint,
    PaceTrace,
    next_look,
    thinned,
    trace_from_json,
    trace_to_json,
)

seconds = st.floats(0.001, 50, allow_nan=False)


@st.composite
def traces(draw: st.DrawFn) -> list[PacePoint]:
    """Points after one another, now and then with the time between two sessions before them."""
    found, at = [], 1.7e9
    for _ in range(draw(st.integers(2, 15))):
        at += draw(st.sampled_from([0, 0, 0, 90_000]))
        length = draw(seconds)
        held = draw(st.dictionaries(st.sampled_from(["rate_limit", "job_cap"]), seconds))
        found.append(PacePoint(at, at + length, length, 5, draw(st.integers(0, 5)), 2.5, held))
        at += length
    return found


@settings(max_examples=40)  # a trace has many numbers to draw
@given(traces(), st.integers(1, 8))
def test_merging_loses_no_request_and_no_second(points: list[PacePoint], most: int) -> None:
    """However few points are left: all counts are in them, in order, within the same time."""
    found = thinned(points, most)
    assert len(found) <= max(most, 1)
    assert sum(p.requests for p in found) == sum(p.requests for p in points)
    assert sum(p.throttled for p in found) == sum(p.throttled for p in points)
    assert math.isclose(sum(p.seconds for p in found), sum(p.seconds for p in points))
    for reason in ("rate_limit", "job_cap"):
        held = [sum(p.held.get(reason, 0.0) for p in each) for each in (found, points)]
        assert math.isclose(held[0], held[1], abs_tol=1e-9)
    assert (found[0].begin, found[-1].end) == (points[0].begin, points[-1].end)
    assert all(a.end <= b.begin for a, b in pairwise(found))


def test_a_week_has_no_more_points_than_an_hour() -> None:
    """The number of points is bounded, and so is the number of looks."""
    trace, at, looks = PaceTrace(), 0.0, 0
    while at < 7 * 86_400:
        step = next_look(at)
        trace.add(PacePoint(at, at + step, step, 1, 0, None))
        assert len(trace.points) <= MOST_POINTS
        at, looks = at + step, looks + 1
    assert sum(point.requests for point in trace.points) == looks
    assert len(trace.points) >= MOST_POINTS // 4
    assert looks < 42_000


def test_looks_are_a_second_apart_at_first() -> None:
    """A short run is known to the second, and a long one is looked at four times a minute."""
    assert [next_look(age) for age in (0, 250)] == [SHORTEST_LOOK, SHORTEST_LOOK]
    assert next_look(86_400) == LONGEST_LOOK


def test_the_time_between_two_sessions_is_bridged_last() -> None:
    """Two sessions a day apart stay two points, when each has to be one."""
    night = [PacePoint(at, at + 1, 1, 1, 0, None) for at in range(50)]
    next_night = [PacePoint(at, at + 1, 1, 1, 0, None) for at in range(86_400, 86_450)]
    first, second = thinned([*night, *next_night], 2)
    assert (first.begin, first.end, first.seconds) == (0, 50, 50)
    assert (second.begin, second.end, second.requests) == (86_400, 86_450, 50)


@settings(max_examples=40)  # a trace has many numbers to draw
@given(traces())
def test_the_journal_gives_back_what_it_was_given(points: list[PacePoint]) -> None:
    """A stored trace is read as it was, to the millisecond and to a tenth of a second held."""
    found = trace_from_json(trace_to_json(points))
    assert [(p.requests, p.throttled, p.rate) for p in found] == [
        (p.requests, p.throttled, p.rate) for p in points
    ]
    for before, after in zip(points, found, strict=True):
        assert after.begin == pytest.approx(before.begin, abs=0.001)
        assert after.seconds == pytest.approx(before.seconds, abs=0.001)
        assert dict(after.held) == pytest.approx(dict(before.held), abs=0.051)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[1]",
        "[[1,2,3]]",
        '[[0,1,1,1,0,null,["rate_limit"]]]',
        "[[0,1,1,1.5,0,null,{}]]",
        "[[0,1,1,-1,0,null,{}]]",
        "[[0,1,1,true,0,null,{}]]",
        "[[0,1,1,1,0,NaN,{}]]",
        "[[0,1,1,1,0,Infinity,{}]]",
        '[["0",1,1,1,0,null,{}]]',
    ],
)
def test_another_text_is_no_trace(text: str) -> None:
    """What this library doesn't write is refused, and not drawn."""
    with pytest.raises(ValueError, match=r"."):
        trace_from_json(text)
