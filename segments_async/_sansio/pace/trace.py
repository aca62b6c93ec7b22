"""The pace of a run over time, in a bounded number of points, whatever the run's length.

A point covers some time: how many requests were sent in it, how many were answered 429, the rate at
its end, and for how long each reason held the run. Where there are too many points, neighbours are
merged, those that are closest together first. So a run of four minutes is known to the second, and
one of a day to some ten minutes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import attrs

#: Points of a run, at most.
MOST_POINTS = 300

#: Seconds between two looks at a run: a second at first, more as the run grows longer.
SHORTEST_LOOK = 1.0
LONGEST_LOOK = 15.0
LOOK_BY_AGE = 0.004


@attrs.frozen
class PacePoint:
    """The pace of a run during some time.

    Attributes:
        begin: in seconds since 1970 (UTC).
        end: likewise.
        seconds: of this time in which the run was worked on: less than its length where sessions of
            the run were merged.
        requests: sent in this time.
        throttled: how many of those were answered 429.
        rate: requests/s sent at most, at the end; None while nothing limits them.
        held: by reason, the seconds of this time in which the run was held.
    """

    begin: float
    end: float
    seconds: float
    requests: int
    throttled: int
    rate: float | None
    held: Mapping[str, float] = attrs.field(factory=dict[str, float])

    def joined(self, later: PacePoint) -> PacePoint:
        """One point for this time and a later one."""
        held = dict(self.held)
        for reason, seconds in later.held.items():
            held[reason] = held.get(reason, 0.0) + seconds
        return PacePoint(
            self.begin,
            later.end,
            self.seconds + later.seconds,
            self.requests + later.requests,
            self.throttled + later.throttled,
            later.rate,
            held,
        )


class PaceTrace:
    """The points of one run.

    Args:
        points: of earlier sessions.
    """

    def __init__(self, points: Iterable[PacePoint] = ()) -> None:
        self.points: list[PacePoint] = list(points)

    def add(self, point: PacePoint) -> None:
        """Add a point after the last one."""
        self.points.append(point)
        if len(self.points) > MOST_POINTS:
            self.points = thinned(self.points, MOST_POINTS // 2)


def thinned(points: Sequence[PacePoint], most: int) -> list[PacePoint]:
    """The points, with neighbours merged until there are `most` at most.

    A time between two sessions counts as length, so that it is bridged last.
    """
    found = list(points)
    if len(found) <= most:
        return found
    width = min(b.end - a.begin for a, b in pairwise(found))
    while len(found) > most:
        found = _merged(found, width)
        width = max(2 * width, 1e-3)
    return found


def _merged(points: Sequence[PacePoint], width: float) -> list[PacePoint]:
    """The points, each merged with those that follow it within `width` seconds."""
    found = [points[0]]
    for point in points[1:]:
        if point.end - found[-1].begin <= width:
            found[-1] = found[-1].joined(point)
        else:
            found.append(point)
    return found


def next_look(age: float) -> float:
    """Seconds until the next look at a run that began `age` seconds ago."""
    return min(LONGEST_LOOK, max(SHORTEST_LOOK, LOOK_BY_AGE * age))


def trace_to_json(points: Sequence[PacePoint]) -> str:
    """The points as JSON, for the journal."""
    return json.dumps([_row(point) for point in points], separators=(",", ":"), allow_nan=False)


def trace_from_json(text: str) -> list[PacePoint]:
    """The points that :func:`trace_to_json` wrote.

    Raises:
        ValueError: the text isn't one that it writes.
    """
    if not text.startswith("["):
        raise ValueError("a trace is a list")
    return [_point(row) for row in json.loads(text)]


def _row(point: PacePoint) -> list[object]:
    rate = None if point.rate is None else round(point.rate, 3)
    held = {reason: round(seconds, 1) for reason, seconds in point.held.items()}
    times = (round(point.begin, 3), round(point.end, 3), round(point.seconds, 3))
    return [*times, point.requests, point.throttled, rate, held]


def _point(row: Any) -> PacePoint:
    try:
        begin, end, seconds, requests, throttled, rate, held = row
        return PacePoint(
            _number(begin),
            _number(end),
            _number(seconds),
            _count(requests),
            _count(throttled),
            None if rate is None else _number(rate),
            {str(reason): _number(length) for reason, length in held.items()},
        )
    except (TypeError, AttributeError) as exc:
        raise ValueError("not a point of a trace") from exc


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise ValueError("not a time, a length or a rate")
    return float(value)


def _count(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError("not a count")
    return value
