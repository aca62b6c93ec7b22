"""The start of a bulk run: the journal's records, the files in place, and the obstacles.

They are read before the first request: an export whose file can't be written, or that isn't needed,
would be hours of the vendor's work for nothing.
"""

from __future__ import annotations

import hashlib
import math
import stat
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
import attrs

from segments_async._exports.followers import CallFollower
from segments_async._exports.registry import ExportRegistry
from segments_async._exports.requests import ExportRequests
from segments_async._exports.shared_export import SharedExport
from segments_async._files.in_progress import InProgressDownloads
from segments_async._files.refusals import Renew
from segments_async._http.storage import Storage
from segments_async._pace.gate import Gate
from segments_async._run.recorder import GuardWriter, Recorder
from segments_async._run.request import RunRequest
from segments_async._sansio.api.credentials import parse_base_url
from segments_async._sansio.files.naming import is_in
from segments_async._sansio.jobs.lifecycle import State
from segments_async._sansio.jobs.record import ExportRecord
from segments_async._sansio.jobs.unchanged import is_unchanged
from segments_async._sansio.pace.backoff import LONGEST_GUARD, TicketGuard
from segments_async._sansio.pace.hold import Hold, heaviest
from segments_async.errors import JournalError, SegmentsError
from segments_async.models import Export, Segment
from segments_async.results import ExportedFile, Held, HeldReason

if TYPE_CHECKING:
    from segments_async._journal.run_log import RunLog
    from segments_async._journal.sql import SqlJournal


@attrs.frozen(kw_only=True)
class Resources:
    """The parts of a client that its runs use.

    Attributes:
        check: called first by each operation of the client; see `SegmentsClient`.
        account: a digest of the account; see :func:`account_of`.
        gate: through which requests go.
        registry: of shared exports.
        requests: sends their requests.
        storage: where files are fetched from.
        in_progress: downloads that others may share.
        download_slots: for connections to storage, of the whole client.
        downloads: files that one run fetches at once.
        renew: gives an export with a fresh link.
    """

    check: Callable[[], None]
    account: str
    gate: Gate
    registry: ExportRegistry
    requests: ExportRequests
    storage: Storage
    in_progress: InProgressDownloads
    download_slots: anyio.Semaphore
    downloads: int
    renew: Renew

    async def wait(
        self,
        follower: CallFollower,
        join: Callable[[], SharedExport],
        until: Callable[[SharedExport], bool] = lambda shared: shared.ended,
    ) -> Export:
        """Follow an export for a single call; see `CallFollower.wait`."""
        return await follower.wait(self.gate, self.registry, self.requests, join, until)

    def held(
        self,
        *,
        waiting: bool = True,
        pending: bool = True,
        fetching: bool,
        journal_away: bool = False,
    ) -> Held | None:
        """What delays the requests or downloads by more than their turn; None where nothing does.

        Args:
            fetching: whether the asker has files that are not in place yet.
            waiting: whether it has exports that are not submitted yet.
            pending: whether it has exports that the vendor works on.
            journal_away: whether its journal can't be written.
        """
        api = self.gate.hold if waiting or pending else None
        if api is not None and api.reason is HeldReason.JOB_CAP and not waiting:
            api = None
        journal = Hold(HeldReason.JOURNAL_AWAY, math.inf) if journal_away else None
        if not fetching and api is None and journal is None:
            return None
        now = anyio.current_time()
        storage = self.storage.hold(now) if fetching else None
        hold = heaviest([api, storage, journal])
        return None if hold is None else hold.told(now, datetime.now(UTC))


@attrs.frozen(kw_only=True)
class RunStart:
    """The records, files and obstacles that a run starts with.

    Attributes:
        name: the run's.
        recorder: with the records of earlier sessions.
        obstacles: why a segment can't be exported, by its id.
        unchanged: files of earlier runs that are still right, by segment id.
        files_present: segments whose files, as far as the records have files, are in their place.
        durations: seconds that the segments' last exports took, by segment id.
        journal: by which the account's processes share its limit; None where there is none.
        is_part: whether it is a part of a shared run.
    """

    name: str
    recorder: Recorder
    obstacles: Mapping[str, SegmentsError]
    unchanged: Mapping[str, ExportedFile] = attrs.field(factory=dict[str, ExportedFile])
    files_present: Collection[str] = ()
    durations: Mapping[str, float] = attrs.field(factory=dict[str, float])
    journal: SqlJournal | None = None
    is_part: bool = False


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
        return RunStart(name=request.run or now_name, recorder=Recorder(), obstacles=obstacles)
    # Not at the top: most programs have no journal.
    from segments_async._journal.sql import SqlJournal

    journal = await SqlJournal.open(request.journal, account=resources.account)
    directory = None if request.destination is None else str(request.destination.directory)
    log = await journal.open_run(
        destination=directory, name=request.run, now_name=now_name, spec=request.spec
    )
    try:
        await restore_guard(journal, resources.gate.guard)
        return await start_with(journal, log, request, GuardWriter(journal))
    except BaseException:
        with anyio.CancelScope(shield=True):
            await log.aclose()
        raise


async def start_with(
    journal: SqlJournal, log: RunLog, request: RunRequest, guard: GuardWriter
) -> RunStart:
    """Read everything that a run starts with, which this process has locked.

    Args:
        journal: of the account.
        log: of the run.
        request: the caller's.
        guard: writes the ticket guard.

    Raises:
        ConfigurationError: a directory that can't be written.
        JournalError: the journal is damaged...
    """
    directory = None if request.destination is None else str(request.destination.directory)
    # Only of the segments that may be submitted: two look-ups for each of 200 000 segments take
    # half a minute.
    ids = [i for i in request.segments if _may_be_submitted(log.records.get(i))]
    files = await journal.ask(lambda database: database.last_files(ids, directory))
    known = {i: record.file for i, record in log.records.items() if record.file}
    _check_places([*files.values(), *known.values()], directory, journal.location)
    present = await anyio.to_thread.run_sync(_in_place, known)
    unchanged = {}
    if request.only_changed:
        unchanged = await anyio.to_thread.run_sync(unchanged_files, request.segments, files)
    own = {file.location for file in [*files.values(), *known.values()]}
    return RunStart(
        name=log.name,
        recorder=Recorder(guard, log),
        obstacles=await _obstacles(request, own),
        unchanged=unchanged,
        files_present=present.keys(),
        durations=await journal.ask(lambda database: database.durations(ids)),
        journal=journal,
    )


async def _obstacles(request: RunRequest, own: Collection[str]) -> Mapping[str, SegmentsError]:
    if request.destination is None:
        return request.unusable
    in_the_way = await anyio.to_thread.run_sync(request.destination.prepare, own)
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


def account_of(base_url: str, api_key: str) -> str:
    """A digest of the account, by which a journal recognises its account without the key.

    Equal base URLs in different spellings, as with a slash at the end, have one digest.
    """
    place = parse_base_url(base_url)
    text = f"{place.scheme}://{place.host}:{place.port}{place.prefix}\n{api_key}"
    return hashlib.sha256(text.encode()).hexdigest()


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


def _in_place(files: Mapping[str, ExportedFile]) -> dict[str, ExportedFile]:
    return {segment_id: file for segment_id, file in files.items() if _is_there(file)}


def _is_there(file: ExportedFile) -> bool:
    """Whether a file of the recorded size is in its place. A symbolic link isn't followed."""
    try:
        found = Path(file.location).lstat()
    except (OSError, ValueError):
        return False
    return stat.S_ISREG(found.st_mode) and found.st_size == file.size


def unchanged_files(
    segments: Mapping[str, Segment | None], files: Mapping[str, ExportedFile]
) -> dict[str, ExportedFile]:
    """The last files that are still right, and in place. For worker threads."""
    return {
        segment_id: file
        for segment_id, file in files.items()
        if (segment := segments.get(segment_id)) is not None
        and is_unchanged(segment, file.export.segment)
        and _is_there(file)
    }
