"""What the page of a run says: its totals, its sentence, failures, holds and pace."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from functools import cached_property

import attrs

from segments_async._run.report.advice import HeldWords, held_words
from segments_async._run.report.rows import Problem, Row, RowState
from segments_async._run.report.words import counted, in_time, number
from segments_async._sansio.pace.trace import PacePoint
from segments_async.results import in_bytes

#: Rows of the table of slowest exports.
SLOWEST = 10

#: Rows of the tables that say in numbers what a picture shows.
MOMENTS = 13

#: Where a run was worked on for less than this share of its time, the sentence says "of work".
_MOSTLY = 0.9

#: The rows whose segments have the file of this run.
_NEW_FILES = frozenset({RowState.EXPORTED, RowState.RESUMED})


@attrs.frozen
class Span:
    """The stages of one export, in seconds from the page's first time.

    Attributes:
        submitted: when its POST was accepted; None where none was.
        completed: when it was first seen to be COMPLETE; None where it never was.
        ended: when its outcome was known; None for an unfinished export.
        good: whether the outcome is anything but "not exported".
    """

    submitted: float | None
    completed: float | None
    ended: float | None
    good: bool


@attrs.define(kw_only=True, slots=False)
class RunView:
    """A run as its page shows it.

    Attributes:
        name: the run's, fit to be shown.
        destination: the directory of its files; None without files.
        started_at: when the run began; for a page of a report, when its session began.
        ended_at: None where the run is unfinished.
        live: whether a process is at work on it.
        rows: one for each segment.
        pace: over time; empty where it wasn't recorded.
        requests: None where they were not counted.
        throttled: how many requests were answered 429; None where they were not counted.
        complete: whether every segment of the run is among the rows.
    """

    name: str
    destination: str | None
    started_at: datetime
    ended_at: datetime | None
    live: bool = False
    rows: Sequence[Row]
    pace: Sequence[PacePoint]
    requests: int | None
    throttled: int | None
    complete: bool = True

    @cached_property
    def begin(self) -> datetime:
        """The first time of the page."""
        times = [self.started_at, *(t for row in self.rows if (t := row.times.submitted_at))]
        if self.pace:
            times.append(datetime.fromtimestamp(self.pace[0].begin, UTC))
        return min(times)

    @cached_property
    def end(self) -> datetime:
        """The last time of the page: the run's end, or the last that is known of it."""
        times = [self.begin, *_known_times(self.rows)]
        if self.ended_at is not None:
            times.append(self.ended_at)
        if self.pace:
            times.append(datetime.fromtimestamp(self.pace[-1].end, UTC))
        return max(times)

    @cached_property
    def counts(self) -> Counter[RowState]:
        """The number of segments in each state."""
        return Counter(row.state for row in self.rows)

    @cached_property
    def bytes(self) -> int:
        """The size of all files that this run has fetched."""
        return sum(row.size or 0 for row in self.rows if row.state in _NEW_FILES)

    @cached_property
    def seconds(self) -> float:
        """Seconds that the run was worked on: without the time between its sessions."""
        worked = sum(point.seconds for point in self.pace)
        return worked or (self.end - self.begin).total_seconds()

    @cached_property
    def spans(self) -> list[Span]:
        """The stages of each row's export."""
        return [self._span(row) for row in self.rows]

    def _span(self, row: Row) -> Span:
        """An outcome without a recorded time has the page's last time."""
        times = row.times
        ended = self.since_begin(times.ended_at)
        if row.state is RowState.UNFINISHED:
            ended = None  # a session may have given the export up, and a later one gone on with it
        elif ended is None:
            ended = self.since_begin(self.end)
        return Span(
            submitted=self.since_begin(times.submitted_at),
            completed=self.since_begin(times.completed_at),
            ended=ended,
            good=row.state is not RowState.NOT_EXPORTED,
        )

    def since_begin(self, at: datetime | None) -> float | None:
        """Seconds from the page's first time to this one."""
        return None if at is None else (at - self.begin).total_seconds()


def _known_times(rows: Iterable[Row]) -> Iterable[datetime]:
    for row in rows:
        for at in (row.times.submitted_at, row.times.completed_at, row.times.ended_at):
            if at is not None:
                yield at


# --------------------------------------------------------------------- the head


#: The words for each state: in a table, and in a sentence.
STATE_WORDS = {
    RowState.EXPORTED: "Exported",
    RowState.RESUMED: "Resumed",
    RowState.UNCHANGED: "Unchanged",
    RowState.COMPLETED: "Complete",
    RowState.KEPT: "File kept",
    RowState.NOT_EXPORTED: "Not exported",
    RowState.UNFINISHED: "Unfinished",
}

STATE_MEANINGS = {
    RowState.EXPORTED: "the file is in place",
    RowState.RESUMED: "the file was put in place by an earlier session of the run",
    RowState.UNCHANGED: "the segment has not run since its last export, whose file is in place",
    RowState.COMPLETED: "complete at the vendor; the run fetched no files",
    RowState.KEPT: "another file was there already, and was kept",
    RowState.NOT_EXPORTED: "there is no file, and going on changes nothing",
    RowState.UNFINISHED: "there is no file yet; a later session goes on",
}


def figures(view: RunView) -> list[tuple[str, str]]:
    """The figures of the head, beside the states: names and values."""
    unknown = "not recorded"
    return [
        ("Segments", number(len(view.rows))),
        ("In new files", in_bytes(view.bytes)),
        ("Took", in_time(view.seconds)),
        ("Requests", unknown if view.requests is None else number(view.requests)),
        ("Answered 429", unknown if view.throttled is None else number(view.throttled)),
    ]


def shown_states(view: RunView) -> list[tuple[RowState, int]]:
    """The states that the head counts: those that a run always has, and those that occur."""
    always = {RowState.EXPORTED, RowState.UNCHANGED, RowState.RESUMED}
    always |= {RowState.NOT_EXPORTED, RowState.UNFINISHED}
    if view.counts[RowState.COMPLETED]:
        always -= {RowState.EXPORTED, RowState.UNCHANGED, RowState.RESUMED}
    return [(s, view.counts[s]) for s in RowState if s in always or view.counts[s]]


def _took(view: RunView) -> str:
    """The time that was worked on the run; "of work" where the run has paused in between."""
    whole = (view.end - view.begin).total_seconds()
    work = " of work" if view.seconds < _MOSTLY * whole else ""
    return in_time(view.seconds) + work


def sentence(view: RunView) -> str:
    """How the run went, in a sentence."""
    good = len(view.rows) - view.counts[RowState.NOT_EXPORTED] - view.counts[RowState.UNFINISHED]
    left = view.counts[RowState.UNFINISHED]
    failed = view.counts[RowState.NOT_EXPORTED]
    held = holds(view.pace)
    took = _took(view) + (_longest_hold(held[0]) if held else "")
    if view.live:
        return f"The run is under way: {_of(good, view)} done after {took}{_bad(failed, 0)}."
    if not view.rows:
        return "The run had no segments."
    if good == len(view.rows):
        every = "The one segment is" if good == 1 else f"All {number(good)} segments are"
        return f"{every} done, after {took}{_kept(view.counts[RowState.KEPT])}."
    if left and view.ended_at is None:
        return f"The run is unfinished: {_of(good, view)} done after {took}{_bad(failed, 0)}."
    return f"{_of(good, view)} done after {took}{_bad(failed, left)}."


def _of(good: int, view: RunView) -> str:
    be = "is" if good == 1 else "are"
    return f"{number(good)} of {counted(len(view.rows), 'segment')} {be}"


def _bad(failed: int, left: int) -> str:
    """``; 3 were not exported and 4 are unfinished``."""
    parts: list[str] = []
    if failed:
        parts.append(f"{number(failed)} {'was' if failed == 1 else 'were'} not exported")
    if left:
        parts.append(f"{number(left)} {'is' if left == 1 else 'are'} unfinished")
    return f"; {' and '.join(parts)}" if parts else ""


def _kept(files: int) -> str:
    """``; 3 files were there already, and were kept``: the run has not written them."""
    if not files:
        return ""
    be = "was" if files == 1 else "were"
    return f"; {counted(files, 'file')} {be} there already, and {be} kept"


def _longest_hold(held: HoldTotal) -> str:
    """``, held for 1 min 00 s of that by the rate limit``."""
    return f", held for {in_time(held.seconds)} of that by {held.words.by}"


# --------------------------------------------------------------------- what went wrong


@attrs.frozen(kw_only=True)
class Failures:
    """Segments that have no file for the same reason.

    Attributes:
        problem: of the first of them.
        rows: all of them.
    """

    problem: Problem
    rows: Sequence[Row]


def failures(view: RunView) -> list[Failures]:
    """The segments without a file, by reason; the reason of most segments first."""
    found: dict[tuple[str, str, bool], list[Row]] = {}
    problems: dict[tuple[str, str, bool], Problem] = {}
    for row in view.rows:
        if (problem := row.problem) is not None:
            key = (problem.kind, problem.text, problem.resumable)
            problems.setdefault(key, problem)
            found.setdefault(key, []).append(row)
    groups = [Failures(problem=problems[key], rows=rows) for key, rows in found.items()]
    return sorted(groups, key=lambda group: -len(group.rows))


def unfinished(view: RunView) -> list[Row]:
    """The rows that have no outcome yet."""
    return [row for row in view.rows if row.state is RowState.UNFINISHED and row.problem is None]


def slowest(view: RunView) -> list[Row]:
    """The exports that took longest from their requests to their ends, the longest first."""
    timed = [row for row in view.rows if total_seconds(row) is not None]
    return sorted(timed, key=lambda row: -(total_seconds(row) or 0.0))[:SLOWEST]


def total_seconds(row: Row) -> float | None:
    """Seconds from the request of an export to its end; None where either isn't known."""
    return _seconds(row.times.submitted_at, row.times.ended_at)


def vendor_seconds(row: Row) -> float | None:
    """Seconds from the request of an export until it was seen to be complete."""
    return _seconds(row.times.submitted_at, row.times.completed_at)


def fetch_seconds(row: Row) -> float | None:
    """Seconds from an export's completion until its file was in place."""
    return _seconds(row.times.completed_at, row.times.ended_at)


def _seconds(begin: datetime | None, end: datetime | None) -> float | None:
    return None if begin is None or end is None else (end - begin).total_seconds()


# --------------------------------------------------------------------- the pace


@attrs.frozen(kw_only=True)
class HoldTotal:
    """What held a run, and for how long.

    Attributes:
        reason: a `HeldReason`'s value.
        seconds: in all.
        first: when it was first seen, in seconds since 1970.
        last: when it was last seen.
    """

    reason: str
    seconds: float
    first: float
    last: float

    @property
    def words(self) -> HeldWords:
        """The reason in words."""
        return held_words(self.reason)


def holds(pace: Sequence[PacePoint]) -> list[HoldTotal]:
    """What held the run, the longest first."""
    found: dict[str, HoldTotal] = {}
    for point in pace:
        for reason, seconds in point.held.items():
            if not seconds:
                continue
            before = found.get(reason)
            found[reason] = HoldTotal(
                reason=reason,
                seconds=seconds + (0.0 if before is None else before.seconds),
                first=point.begin if before is None else before.first,
                last=point.end,
            )
    return sorted(found.values(), key=lambda hold: -hold.seconds)
