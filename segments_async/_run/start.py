"""What a bulk run begins with: the journal's word, files that are there, and what is in the way.

All of it before the first request: an export whose file can't be put anywhere, or that needn't be
made, is hours of the vendor's work for nothing.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
import attrs

from segments_async._files.destination import Destination
from segments_async._journal.records import RunSpec
from segments_async._journal.sql import SqlJournal
from segments_async._pace.gate import Gate
from segments_async._run.engine import RunStart
from segments_async._run.ledger import Ledger
from segments_async._sansio.api.credentials import parse_base_url
from segments_async._sansio.files.naming import is_in
from segments_async._sansio.jobs.lifecycle import State
from segments_async._sansio.jobs.record import ExportRecord
from segments_async._sansio.jobs.unchanged import is_unchanged
from segments_async._sansio.pace.backoff import LONGEST_GUARD, TicketGuard
from segments_async.errors import JournalError, SegmentsError
from segments_async.models import Segment
from segments_async.results import ExportedFile

if TYPE_CHECKING:
    from segments_async._journal.run_log import RunLog

StrPath = str | os.PathLike[str]


def account_of(base_url: str, api_key: str) -> str:
    """Whose journal it is: a digest, so that the journal doesn't hold the key.

    Of the place and not of how it was written: a slash at the end makes no other account.
    """
    place = parse_base_url(base_url)
    text = f"{place.scheme}://{place.host}:{place.port}{place.prefix}\n{api_key}"
    return hashlib.sha256(text.encode()).hexdigest()


@attrs.frozen
class Opening:
    """How a run is opened; see `SegmentsClient.open_bulk_export`.

    Attributes:
        enter: checks what can be checked before anything is read or written.
        gate: whose ticket guard the journal may know of.
        segments: by id; None where only the id was given.
        destination: None where only links are wanted.
        journal: a path or URL; None for none.
        account: :func:`account_of`.
        run: the name that the caller gave.
        spec: stored in the journal, for a later session of the run.
        only_changed: whether to look for what needn't be exported.
        unusable: why a segment can't be exported whatever is there, by its id.
    """

    enter: Callable[[], None]
    gate: Gate
    segments: Mapping[str, Segment | None]
    destination: Destination | None
    journal: StrPath | None
    account: str
    run: str | None
    spec: RunSpec
    only_changed: bool
    unusable: Mapping[str, SegmentsError] = attrs.field(factory=dict[str, SegmentsError])

    async def begin(self) -> RunStart:
        """Look at everything, and take the run for this process.

        Raises:
            ConfigurationError: a directory that can't be written, or a journal that can't be one.
            JournalError: a live process has the run, or the journal is damaged...
        """
        self.enter()
        now_name = datetime.now(UTC).strftime("%Y-%m-%dT%H-%M-%SZ")
        if self.journal is None:
            obstacles = await self._obstacles(())
            return RunStart(self.run or now_name, Ledger(), obstacles, {}, (), {})
        journal = await SqlJournal.open(self.journal, account=self.account)
        directory = None if self.destination is None else str(self.destination.directory)
        log = await journal.open_run(
            destination=directory, name=self.run, now_name=now_name, spec=self.spec
        )
        try:
            return await self._look(journal, log, directory)
        except BaseException:
            with anyio.CancelScope(shield=True):
                await log.aclose()
            raise

    async def _look(self, journal: SqlJournal, log: RunLog, directory: str | None) -> RunStart:
        # Only what may be asked for: two look-ups for each of 200 000 segments take half a minute.
        ids = [i for i in self.segments if _may_be_asked_for(log.records.get(i))]
        files = await journal.last_files(ids, directory) if directory is not None else {}
        known = {i: record.file for i, record in log.records.items() if record.file}
        _check_places([*files.values(), *known.values()], directory, journal.location)
        there = await anyio.to_thread.run_sync(_in_place, known)
        unchanged = {}
        if self.only_changed:
            unchanged = await anyio.to_thread.run_sync(unchanged_files, self.segments, files)
        own = {file.location for file in [*files.values(), *known.values()]}
        await restore_guard(journal, self.gate.guard)
        return RunStart(
            log.name,
            Ledger(journal, log),
            await self._obstacles(own),
            unchanged,
            there.keys(),
            await journal.durations(ids),
            journal,
        )

    async def _obstacles(self, own: Collection[str]) -> Mapping[str, SegmentsError]:
        if self.destination is None:
            return self.unusable
        in_the_way = await anyio.to_thread.run_sync(self.destination.prepare, own)
        return {**in_the_way, **self.unusable}


async def restore_guard(journal: SqlJournal, guard: TicketGuard) -> datetime | None:
    """Hold this client's requests after a 500 that another process of the account received.

    Returns the time before which nothing is sent; None where the journal holds nothing.
    """
    record = await journal.guard()
    if record is None:
        return None
    # A wall clock that jumped must not hold the account for days.
    left = min((record.until - datetime.now(UTC)).total_seconds(), LONGEST_GUARD)
    guard.restore(anyio.current_time() + left, record.pause)
    return record.until if left > 0 else None


def _may_be_asked_for(record: ExportRecord | None) -> bool:
    return record is None or record.state not in _ASKED_FOR


_ASKED_FOR = frozenset({State.SUBMITTED, State.COMPLETE, State.FETCHING, State.DONE})


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
    """Whether the file is where it was put, as long as it was. A symbolic link isn't followed."""
    try:
        found = Path(file.location).lstat()
    except (OSError, ValueError):
        return False
    return stat.S_ISREG(found.st_mode) and found.st_size == file.size


def unchanged_files(
    segments: Mapping[str, Segment | None], files: Mapping[str, ExportedFile]
) -> dict[str, ExportedFile]:
    """Those of the last files that are still right, and in their place. For worker threads."""
    return {
        segment_id: file
        for segment_id, file in files.items()
        if (segment := segments.get(segment_id)) is not None
        and is_unchanged(segment, file.export.segment)
        and _is_there(file)
    }
