"""The data that the page's script draws: small, and safe inside a script element."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from segments_async._run.report.advice import held_words
from segments_async._run.report.content import RunView, Span
from segments_async._run.report.rows import Row, RowState, Stage

#: A letter for each state, and for each stage of an unfinished export.
LETTERS: dict[RowState | Stage, str] = {
    RowState.EXPORTED: "e",
    RowState.RESUMED: "r",
    RowState.UNCHANGED: "u",
    RowState.COMPLETED: "c",
    RowState.KEPT: "k",
    RowState.NOT_EXPORTED: "n",
    Stage.WAITING: "w",
    Stage.PENDING: "p",
    Stage.FETCHING: "f",
}


def page_data(view: RunView) -> dict[str, Any]:
    """The rows, column by column, and the pace: each id and each name once.

    Times are whole hundredths of a second: `a`, when an export was requested, from the page's first
    time; `c`, its completion, from `a`; `e`, its end, from the time before it. -1: there is none.
    """
    return {
        "begin": round(view.begin.timestamp() * 1000),
        "seconds": round((view.end - view.begin).total_seconds(), 2),
        **_columns(view.rows),
        **_time_columns(view.spans),
        **_problem_columns(view.rows),
        "pace": _pace(view),
        "held": {reason: held_words(reason).label for point in view.pace for reason in point.held},
    }


def _columns(rows: Sequence[Row]) -> dict[str, Any]:
    return {
        "id": [row.segment_id for row in rows],
        "name": [row.name or 0 for row in rows],
        "export": [row.export_id or 0 for row in rows],
        "state": "".join(_letter(row) for row in rows),
        "size": [-1 if row.size is None else row.size for row in rows],
        "file": [row.file or 0 for row in rows],
    }


def _time_columns(spans: Sequence[Span]) -> dict[str, Any]:
    times = [_times(one) for one in spans]
    return {
        "a": [a for a, _, _ in times],
        "c": [c for _, c, _ in times],
        "e": [e for _, _, e in times],
    }


def _problem_columns(rows: Sequence[Row]) -> dict[str, Any]:
    """Each problem once, and of each row the number of its problem."""
    problems: dict[tuple[str, str], int] = {}
    numbers = [_problem_number(row, problems) for row in rows]
    return {"problem": numbers, "problems": [f"{text} ({kind})" for kind, text in problems]}


def _letter(row: Row) -> str:
    if row.state is RowState.UNFINISHED:
        return LETTERS[row.stage or Stage.WAITING]
    return LETTERS[row.state]


def _times(one: Span) -> tuple[int, int, int]:
    found: list[int] = []
    before = 0
    for at in (one.submitted, one.completed, one.ended):
        if at is None:
            found.append(-1)
        else:
            now = max(before, round(at * 100))
            found.append(now - before)
            before = now
    return found[0], found[1], found[2]


def _problem_number(row: Row, problems: dict[tuple[str, str], int]) -> int:
    if row.problem is None:
        return -1
    return problems.setdefault((row.problem.kind, row.problem.text), len(problems))


def _pace(view: RunView) -> list[list[Any]]:
    zero = view.begin.timestamp()
    return [
        [
            round(point.begin - zero, 2),
            round(point.end - zero, 2),
            round(point.seconds, 2),
            point.requests,
            point.throttled,
            None if point.rate is None else round(point.rate, 2),
            {reason: round(seconds, 1) for reason, seconds in point.held.items()},
        ]
        for point in view.pace
    ]


#: Characters that could end the script element, begin a comment or an entity, or end a line of
#: JavaScript (https://html.spec.whatwg.org/#restrictions-for-contents-of-script-elements).
_ESCAPED = {ord(char): f"\\u{ord(char):04x}" for char in "<>&\u2028\u2029"}


def script_json(value: object) -> str:
    """The value as JSON that can stand in a script element."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.translate(_ESCAPED)
