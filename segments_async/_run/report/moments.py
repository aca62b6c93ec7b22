"""Where the exports of a run were over time: the numbers below the picture."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import attrs

from segments_async._run.report.content import MOMENTS, RunView, Span


@attrs.frozen(kw_only=True)
class Moment:
    """How many exports were where at one time.

    Attributes:
        at: in seconds from the page's first time.
        waiting: not requested yet.
        pending: at the vendor.
        fetching: complete, their files not in place.
        done: exports with a file, or that needed none.
        failed: exports that ended without a file.
    """

    at: float
    waiting: int = 0
    pending: int = 0
    fetching: int = 0
    done: int = 0
    failed: int = 0


def moments(view: RunView, most: int = MOMENTS) -> list[Moment]:
    """Where the exports were, at times that are evenly spread over the run."""
    spans = view.spans
    whole = (view.end - view.begin).total_seconds()
    count = most if whole > 0 else 1
    return [_moment(whole * step / max(1, count - 1), spans) for step in range(count)]


def _moment(at: float, spans: Iterable[Span]) -> Moment:
    return Moment(at=at, **Counter(_place(one, at) for one in spans))


def _place(one: Span, at: float) -> str:
    if one.ended is not None and one.ended <= at:
        return "done" if one.good else "failed"
    if one.completed is not None and one.completed <= at:
        return "fetching"
    return "pending" if one.submitted is not None and one.submitted <= at else "waiting"
