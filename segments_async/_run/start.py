"""The start of a bulk run: the journal's records, the files in place, and the obstacles.

They are read before the first request: an export whose file can't be written, or that isn't needed,
would be hours of the vendor's work for nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import anyio
import attrs

from segments_async._files.places import Place
from segments_async._requests.sharing import read_news
from segments_async._run.recorder import GuardWriter, MemoryLog, Recorder
from segments_async._run.request import RunRequest
from segments_async._run.resources import Resources
from segments_async._sansio.files.naming import is_in
from segments_async._sansio.jobs.exports import is_unchanged
from segments_async._sansio.jobs.lifecycle import State
from segments_async._sansio.jobs.record import ExportRecord
from segments_async._sansio.pace.backoff import LONGEST_GUARD, TicketGuard
from segments_async.errors import JournalError, SegmentsError
from segments_async.models import Segment
from segments_async.results import ExportedFile

if TYPE_CHECKING:
    from segments_async._journal.run_log import RunLog
    from segments_async._journal.sql import SqlJournal


@attrs.frozen(kw_only=True)
class RunStart:
    """The records, files and obstacles that a run starts with.

    Attributes:
        recorder: with the records of earlier sessions.
        obstacles: why a segment can't be exported, by its id.
        unchanged: files of earlier runs that are still right, by segment id.
        files_present: segments whose files, as far as the records have files, are in their place.
        durations: seconds that the segments' last exports took, by segment id.
        journal: the account's processes share the limit by it; None where there is none.
        guard: writes the ticket guard into the journal; None where there is none.
    """

    name: str
    recorder: Recorder
    obstacles: Mapping[str, SegmentsError]
    unchanged: Mapping[str, ExportedFile] = attrs.field(factory=dict[str, ExportedFile])
    files_present: Collection[str] = ()
    durations: Mapping[str, float] = attrs.field(factory=dict[str, float])
    journal: SqlJournal | None = None
    guard: GuardWriter | None = None


async def start_run(resources: Resources, request: RunRequest) -> RunStart:
    """Read everything that the run starts with, and lock the run for this process.

    Raises:
        ConfigurationError: a directory that can't be written, or a journal that can't be one.
        JournalError: a live process has the run, or the journal is damaged...
    """
    resources.check()
    now_name = datetime.now(UTC).strftime("%Y-%m-%dT%H-%M-%SZ")
    if request.journal is None:
        obstacles = await _obstacles(request, ())
        return RunStart(name=request.run or now_name, recorder=MemoryLog(), obstacles=obstacles)
    # Not at the top: most programs have no journal.
    from segments_async._journal.sql import SqlJournal

    journal = await SqlJournal.open(request.journal, account=resources.account)
    log = await journal.open_run(
        destination=request.directory, name=request.run, now_name=now_name, spec=request.spec
    )
    try:
        guard = GuardWriter(journal)
        if await read_news(resources.gate, journal):
            guard.on_read(resources.gate.guard)
        return await start_with(journal, log, request, guard)
    except BaseException:
        with anyio.CancelScope(shield=True):
            await log.aclose()
        raise


async def start_with(
    journal: SqlJournal, log: RunLog, request: RunRequest, guard: GuardWriter
) -> RunStart:
    """Read everything that a run starts with, which this process has locked.

    Raises:
        ConfigurationError: a directory that can't be written.
        JournalError: the journal is damaged...
    """
    directory = request.directory
    # Only of the segments that may be submitted: two look-ups for each of 200 000 segments take
    # half a minute.
    records = log.run_state.records
    ids = [i for i in request.segments if _may_be_submitted(records.get(i))]
    files = await journal.ask(lambda database: database.last_files(ids, directory))
    known = {i: record.file for i, record in records.items() if record.file}
    _check_places([*files.values(), *known.values()], directory, journal.location)
    place = request.destination
    present, unchanged = {}, {}
    if place is not None:
        present = await place.present(known)
    if place is not None and request.only_changed:
        unchanged = await unchanged_files(place, request.segments, files)
    own = {file.location for file in [*files.values(), *known.values()]}
    return RunStart(
        name=log.name,
        recorder=log,
        obstacles=await _obstacles(request, own),
        unchanged=unchanged,
        files_present=present.keys(),
        durations=await journal.ask(lambda database: database.durations(ids)),
        journal=journal,
        guard=guard,
    )


async def _obstacles(request: RunRequest, own: Collection[str]) -> Mapping[str, SegmentsError]:
    if request.destination is None:
        return request.unusable
    in_the_way = await request.destination.obstacles(own)
    return {**in_the_way, **request.unusable}


async def restore_guard(journal: SqlJournal, guard: TicketGuard) -> datetime | None:
    """Hold this client's requests after a 500 that another process of the account received.

    Returns the time before which nothing is sent; None where the journal holds nothing.
    """
    record = await journal.ask(lambda database: database.guard())
    if record is None:
        return None
    # A wall clock that jumped must not hold the account for days.
    left = min((record.until - datetime.now(UTC)).total_seconds(), LONGEST_GUARD)
    guard.restore(anyio.current_time() + left, record.pause)
    return record.until if left > 0 else None


def _may_be_submitted(record: ExportRecord | None) -> bool:
    return record is None or record.state not in _SUBMITTED


_SUBMITTED = frozenset({State.SUBMITTED, State.COMPLETE, State.FETCHING, State.DONE})


def _check_places(files: Iterable[ExportedFile], directory: str | None, journal: str) -> None:
    """Refuse a file that isn't in the run's directory: the next program reads it as an export."""
    for file in files:
        if directory is None or not is_in(directory, file.location):
            raise JournalError(
                f"{journal}: damaged: it calls {file.location!r:.200} an export's file, which is "
                f"not in {directory or 'any directory of the run'}. Nothing was sent",
                reason="damaged",
                location=journal,
            )


async def unchanged_files(
    place: Place, segments: Mapping[str, Segment | None], files: Mapping[str, ExportedFile]
) -> dict[str, ExportedFile]:
    """The files of earlier runs that are still right, and in place."""
    return await place.present(
        {
            segment_id: file
            for segment_id, file in files.items()
            if (segment := segments.get(segment_id)) is not None
            and is_unchanged(segment, file.export.segment)
        }
    )
