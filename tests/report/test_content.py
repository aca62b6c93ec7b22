"""What the page of a run says: totals, sentence, reasons, what to do, and series."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import attrs
import pytest

import segments_async.errors as errors
from report.made import GUARDED, NIGHT, Night
from segments_async._run.report import content
from segments_async._run.report.advice import HELD, HeldWords, advice, held_words
from segments_async._run.report.content import RunView
from segments_async._run.report.moments import moments
from segments_async._run.report.rows import Problem, Row, RowState, Stage
from segments_async._run.report.views import view_of_report
from segments_async._run.report.words import counted, in_time, number
from segments_async._sansio.jobs.history import Times
from segments_async._sansio.pace.trace import PacePoint
from segments_async.errors import SegmentsError
from segments_async.results import HeldReason


def row(number: int, state: RowState = RowState.EXPORTED, **about: object) -> Row:
    return Row(segment_id=f"s{number}", name=None, export_id=None, state=state, **about)  # type: ignore[arg-type] # as Row says


def view(*rows: Row, seconds: float = 90.0, **about: Any) -> RunView:
    options = {
        "name": "x",
        "destination": None,
        "started_at": NIGHT,
        "ended_at": NIGHT + timedelta(seconds=seconds),
        "pace": (),
        "requests": None,
        "throttled": None,
    }
    return RunView(rows=rows, **{**options, **about})  # type: ignore[arg-type] # as RunView says


def times(*seconds: float | None) -> Times:
    return Times(*(None if s is None else NIGHT + timedelta(seconds=s) for s in seconds))


FAILED, LEFT = RowState.NOT_EXPORTED, RowState.UNFINISHED


@pytest.mark.parametrize(
    ("states", "about", "said"),
    [
        ([], {}, "The run had no segments."),
        ([RowState.EXPORTED], {}, "The one segment is done, after 1 min 30 s."),
        ([RowState.EXPORTED] * 3, {}, "All 3 segments are done, after 1 min 30 s."),
        ([RowState.UNCHANGED, RowState.RESUMED], {}, "All 2 segments are done, after 1 min 30 s."),
        (
            [RowState.EXPORTED, FAILED],
            {},
            "1 of 2 segments is done after 1 min 30 s; 1 was not exported.",
        ),
        (
            [RowState.RESUMED] * 2 + [FAILED] * 2 + [LEFT],
            {},
            "2 of 5 segments are done after 1 min 30 s; 2 were not exported and 1 is unfinished.",
        ),
        (
            [RowState.EXPORTED, RowState.KEPT, RowState.KEPT],
            {},
            "All 3 segments are done, after 1 min 30 s; 2 files were there already, and were kept.",
        ),
        (
            [RowState.EXPORTED, LEFT],
            {"ended_at": None},
            "The run is unfinished: 1 of 2 segments is done after 0 s.",
        ),
        (
            [RowState.EXPORTED, FAILED, LEFT],
            {"ended_at": None, "live": True},
            "The run is under way: 1 of 3 segments is done after 0 s; 1 was not exported.",
        ),
    ],
)
def test_the_sentence(states: list[RowState], about: dict[str, Any], said: str) -> None:
    """One sentence says how the run went."""
    rows = [row(n, state) for n, state in enumerate(states)]
    assert content.sentence(view(*rows, **about)) == said


def point(begin: float, end: float, **held: float) -> PacePoint:
    zero = NIGHT.timestamp()
    return PacePoint(zero + begin, zero + end, end - begin, 3, 1, 2.0, held)


def test_the_sentence_of_a_run_that_was_cut_counts_its_work() -> None:
    """Where nobody worked at a run for a part of its time, the sentence says "of work"."""
    pace = [point(0, 15), point(75, 90)]
    said = content.sentence(view(row(0), pace=pace))
    assert said == "The one segment is done, after 30 s of work."


def test_the_sentence_names_the_longest_hold() -> None:
    """What held the run longest is in the sentence, with its seconds."""
    pace = [point(0, 30, rate_limit=5.0), point(30, 90, vendor_away=40.0, rate_limit=2.0)]
    said = content.sentence(view(row(0), pace=pace))
    assert said == (
        "The one segment is done, after 1 min 30 s, held for 40 s of that by a vendor that could "
        "not be reached."
    )


def test_holds_are_added_up() -> None:
    """Of each reason: the seconds in all, and the first and last time."""
    pace = [point(0, 30, rate_limit=5.0), point(30, 90, vendor_away=40.0), point(90, 91)]
    longest, other = content.holds([*pace, point(91, 95, rate_limit=2.0)])
    zero = NIGHT.timestamp()
    assert (longest.reason, longest.seconds) == ("vendor_away", 40.0)
    assert (longest.first - zero, longest.last - zero) == (30, 90)
    assert (other.reason, other.seconds) == ("rate_limit", 7.0)
    assert (other.first - zero, other.last - zero) == (0, 95)


def test_a_run_in_two_nights_took_the_time_of_its_sessions() -> None:
    """The time between two sessions is not a part of what the run took."""
    pace = [point(0, 30), point(86_400, 86_430)]
    both = view(row(0), pace=pace, seconds=86_430)
    assert both.seconds == 60
    assert (both.end - both.begin).total_seconds() == 86_430


def test_the_page_begins_with_the_first_known_time() -> None:
    """A resumed export was requested before the session whose report this is."""
    resumed = row(0, RowState.RESUMED, times=times(-500, -400, -300))
    assert view(resumed).begin == NIGHT - timedelta(seconds=500)


def problem(text: str, **about: object) -> Problem:
    options = {"kind": "ExportFailedError", "reason": None, "resumable": False}
    return Problem(text=text, **{**options, **about})  # type: ignore[arg-type] # as Problem says


def test_reasons_are_told_once_the_most_frequent_first() -> None:
    """Segments with one reason are together; those that can be gone on with are apart."""
    rows = [
        row(0, FAILED, problem=problem("one")),
        row(1, FAILED, problem=problem("two")),
        row(2, FAILED, problem=problem("two")),
        row(3, LEFT, problem=problem("two", resumable=True)),
        row(4),
    ]
    groups = content.failures(view(*rows))
    assert [[r.segment_id for r in group.rows] for group in groups] == [
        ["s1", "s2"],
        ["s0"],
        ["s3"],
    ]


def test_the_slowest_come_first() -> None:
    """The slowest exports, from their requests to their ends."""
    rows = [row(n, times=times(0, n, n + 1)) for n in range(20)]
    found = content.slowest(view(*rows, row(99)))
    assert [one.segment_id for one in found] == [f"s{n}" for n in range(19, 9, -1)]
    assert content.total_seconds(found[0]) == 20
    assert content.vendor_seconds(found[0]) == 19
    assert content.fetch_seconds(found[0]) == 1


def test_the_places_of_the_exports_add_up() -> None:
    """At each time, every segment is in one place: waiting, pending, fetching, done or failed."""
    rows = [
        row(0, times=times(10, 20, 30)),
        row(1, FAILED, times=times(10, None, 40)),
        row(2, FAILED, times=times(None, None, 50)),
        row(3, LEFT, stage=Stage.PENDING, times=times(60, None, 61)),
        row(4, LEFT, stage=Stage.WAITING),
        row(5, RowState.UNCHANGED, times=times(None, None, 0)),
    ]
    found = moments(view(*rows, seconds=100), most=11)
    assert [one.at for one in found] == list(range(0, 101, 10))
    for one in found:
        assert one.waiting + one.pending + one.fetching + one.done + one.failed == len(rows)
    assert [one.pending for one in found] == [0, 2, 1, 1, 0, 0, 1, 1, 1, 1, 1]
    assert [one.fetching for one in found] == [0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]
    assert [one.done for one in found] == [1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2]
    assert [one.failed for one in found] == [0, 0, 0, 0, 1, 2, 2, 2, 2, 2, 2]


def test_a_night_in_figures() -> None:
    """Of a run in memory, the page counts what the report has."""
    night = Night(500)
    report = night.report()
    seen = view_of_report(report, night.history)
    counts = seen.counts
    sources = [outcome.source for outcome in report.exported]
    assert counts[RowState.EXPORTED] == sources.count("exported")
    assert counts[RowState.UNCHANGED] == sources.count("unchanged")
    assert sum(counts.values()) == 500
    changed = [o.file.size for o in report.exported if o.source == "exported"]
    assert seen.bytes == sum(changed)
    [guard] = [hold for hold in content.holds(seen.pace) if hold.reason == "ticket_guard"]
    assert guard.seconds == pytest.approx(GUARDED, abs=1)
    assert dict(content.figures(seen))["Segments"] == "500"


def test_a_state_that_never_occurs_is_counted_all_the_same() -> None:
    """The head always has the five counts; rare ones only where they occur."""
    states = [state for state, _ in content.shown_states(view(row(0)))]
    assert states == [
        RowState.EXPORTED,
        RowState.RESUMED,
        RowState.UNCHANGED,
        RowState.NOT_EXPORTED,
        RowState.UNFINISHED,
    ]
    links = [state for state, _ in content.shown_states(view(row(0, RowState.COMPLETED)))]
    assert links == [RowState.COMPLETED, RowState.NOT_EXPORTED, RowState.UNFINISHED]


OF_EXPORTS = sorted(
    name
    for name, found in vars(errors).items()
    if isinstance(found, type)
    and issubclass(found, SegmentsError)
    and name not in {"SegmentsError", "APIError", "APIStatusError", "ExportError"}
)


@pytest.mark.parametrize("kind", OF_EXPORTS)
def test_there_is_advice_for_each_error(kind: str) -> None:
    """Every class of error has a sentence of its own about what to do."""
    said = advice(problem("x", kind=kind))
    assert said.endswith(".")
    assert said != advice(problem("x", kind="Another"))


def test_what_can_be_gone_on_with_is_said_first() -> None:
    """Where a later session goes on, that is the first advice; a kept file stays as it is."""
    assert advice(problem("x", kind="ExportTimeoutError", resumable=True)).startswith("The same")
    assert not advice(problem("x", kind="TargetExistsError", resumable=True)).startswith("The same")
    host = advice(problem("x", kind="DownloadError", reason="link_refused"))
    assert "--file-host" in host


@pytest.mark.parametrize("reason", HeldReason)
def test_each_reason_of_a_hold_has_words(reason: HeldReason) -> None:
    """A label, words for the sentence, and a meaning."""
    words = HELD[reason]
    assert held_words(reason) is words
    assert words.meaning.endswith(".")


def test_a_reason_of_a_later_version_is_shown_as_it_is() -> None:
    """A journal may have a reason that this version doesn't know."""
    assert held_words("eclipse") == HeldWords("eclipse", "eclipse", "")


def test_numbers_in_words() -> None:
    """Times and counts as people write them."""
    assert [in_time(s) for s in (0, 0.44, 7, 9.96, 59.6, 200, 7500, 200_000)] == [
        "0 s",
        "0.4 s",
        "7 s",
        "10 s",
        "1 min 00 s",
        "3 min 20 s",
        "2 h 05 min",
        "2 d 7 h",
    ]
    assert [counted(n, "segment") for n in (0, 1)] == ["0 segments", "1 segment"]
    assert number(1_234_567) == "1\u202f234\u202f567"


def test_a_view_can_be_changed_for_another_time() -> None:
    """Values that are computed once belong to one view."""
    one = view(row(0))
    assert one.counts[RowState.EXPORTED] == 1
    assert attrs.evolve(one, rows=()).counts[RowState.EXPORTED] == 0
