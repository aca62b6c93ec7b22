"""One row for each segment of a run, from the run's outcomes or from its records in the journal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum

import attrs

from segments_async._sansio.api.redaction import redact, without_signatures
from segments_async._sansio.jobs.decisions import recorded_outcome
from segments_async._sansio.jobs.history import Times
from segments_async._sansio.jobs.record import ExportRecord
from segments_async._sansio.jobs.run_state import PLACES
from segments_async.errors import SegmentsError, TargetExistsError, printable
from segments_async.results import (
    Completed,
    Exported,
    NotExported,
    Outcome,
    leaves_all_as_it_was,
)

#: Characters of a text from elsewhere that a page shows at most.
LONGEST_TEXT = 400

#: Every signature has one of these before its value, in any coding: most texts have none, and the
#: search for signatures takes half of the time that a page does.
_OF_SIGNATURES = "=%\\&"

#: The times of an export to which nothing has happened yet.
NEVER = Times()


class RowState(StrEnum):
    """How the export of one segment stands."""

    EXPORTED = "exported"
    RESUMED = "resumed"
    UNCHANGED = "unchanged"
    COMPLETED = "completed"
    KEPT = "kept"
    NOT_EXPORTED = "not_exported"
    UNFINISHED = "unfinished"


class Stage(StrEnum):
    """Where an unfinished export is."""

    WAITING = "waiting"
    PENDING = "pending"
    FETCHING = "fetching"


@attrs.frozen(kw_only=True)
class Problem:
    """Why a segment has no file.

    Attributes:
        kind: the name of the error's class.
        text: the error's message, without the ids that stand beside it.
        reason: of a DownloadError or JournalError, its `reason`.
        resumable: as in :class:`NotExported`.
    """

    kind: str
    text: str
    reason: str | None
    resumable: bool


@attrs.frozen(kw_only=True)
class Row:
    """One segment of a run. Its texts can be shown: short, printable and without secrets.

    Attributes:
        name: the segment's; None where it isn't known.
        export_id: the vendor's; None where there is none.
        state: how its export stands.
        stage: of an unfinished one, where it is.
        size: of the file in bytes; None without a file.
        file: the file's name, without its directory.
        problem: why there is no file; None where nothing went wrong.
        times: when the export moved on.
    """

    segment_id: str
    name: str | None
    export_id: str | None
    state: RowState
    stage: Stage | None = None
    size: int | None = None
    file: str | None = None
    problem: Problem | None = None
    times: Times = NEVER


def rows_of_outcomes(outcomes: Iterable[Outcome], times: Mapping[str, Times]) -> list[Row]:
    """The rows of outcomes, in their order."""
    return [_row(each, times.get(each.segment_id, NEVER)) for each in outcomes]


def rows_of_records(
    segments: Sequence[str], records: Mapping[str, ExportRecord], *, run: str, ended: bool
) -> list[Row]:
    """The rows of a run as its journal has it.

    Args:
        segments: the ids of the run's spec; empty where there is none.
        records: of the segments that have events.
    """
    ids = dict.fromkeys([*records, *segments])
    return [_row_of_record(i, records.get(i, ExportRecord()), run=run, ended=ended) for i in ids]


def _row_of_record(segment_id: str, record: ExportRecord, *, run: str, ended: bool) -> Row:
    stage = None if ended or record.state not in PLACES else Stage(PLACES[record.state])
    times = Times.of(record)
    if stage is not None:
        export = record.export
        return Row(
            segment_id=shown(segment_id),
            name=None if export is None else shown_name(export.segment.name),
            export_id=None if export is None else shown(export.export_id),
            state=RowState.UNFINISHED,
            stage=stage,
            times=times,
        )
    outcome = recorded_outcome(segment_id, record, run=run)
    if isinstance(outcome, Exported) and outcome.source == "resumed":
        # In the journal, every file is one of an earlier session.
        outcome = attrs.evolve(outcome, source="exported")
    return _row(outcome, times)


def _row(outcome: Outcome, times: Times) -> Row:
    export = outcome.export
    name = None if export is None else export.segment.name
    problem: Problem | None = None
    stage: Stage | None = None
    size: int | None = None
    file: str | None = None
    state = RowState.COMPLETED
    match outcome:
        case Exported():
            state = RowState(outcome.source)
            size, file = outcome.file.size, shown(outcome.file.location.rpartition("/")[2])
        case Completed():
            pass
        case NotExported():
            name = name or outcome.name
            state, problem = _state_of(outcome), _problem(outcome)
            stage = _stage_of(outcome, times) if state is RowState.UNFINISHED else None
    return Row(
        segment_id=shown(outcome.segment_id),
        name=shown_name(name),
        export_id=None if export is None else shown(export.export_id),
        state=state,
        stage=stage,
        size=size,
        file=file,
        problem=problem,
        times=times,
    )


def _state_of(outcome: NotExported) -> RowState:
    if leaves_all_as_it_was(outcome):
        return RowState.KEPT
    return RowState.UNFINISHED if outcome.resumable else RowState.NOT_EXPORTED


def _stage_of(outcome: NotExported, times: Times) -> Stage:
    if outcome.export is None:
        return Stage.WAITING
    return Stage.PENDING if times.completed_at is None else Stage.FETCHING


def _problem(outcome: NotExported) -> Problem:
    error, export = outcome.error, outcome.export
    reason = getattr(error, "reason", None)
    return Problem(
        kind=type(error).__name__,
        text=_reason(error, outcome.segment_id, None if export is None else export.export_id),
        reason=reason if isinstance(reason, str) else None,
        resumable=outcome.resumable,
    )


def _reason(error: SegmentsError, segment_id: str, export_id: str | None) -> str:
    """An error's message without the segment's ids and file: many segments may share it."""
    text = str(error).removeprefix(f"segment {segment_id}: ")
    if isinstance(error, TargetExistsError):
        text = text.replace(printable(error.path), "the file")
    if export_id:
        text = text.replace(f"export {export_id}", "the export").removeprefix("the export: ")
    return shown(text.replace(segment_id, "...") if len(segment_id) > 20 else text)


def shown(text: str) -> str:
    """A text from elsewhere as a page shows it: no secret in it, printable, and not long."""
    if "://" in text:
        text = redact(text)
    elif any(char in text for char in _OF_SIGNATURES):
        text = without_signatures(text)
    if len(text) > LONGEST_TEXT:
        text = f"{text[:LONGEST_TEXT]}… ({len(text)} characters)"
    return printable(text)


def shown_name(name: str | None) -> str | None:
    """A segment's name as a page shows it; None where there is none."""
    return shown(name) if name else None
