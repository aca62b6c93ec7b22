"""`Journal`: for programs that look after the runs of an account.

A bulk run writes its journal by itself (``open_bulk_export(..., journal=...)``), and stores there
its options and segments. This module reads them again: which runs there are, how far each one is,
and what a later session has to be given. The command line is made of these calls.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncGenerator, Iterable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Self

from segments_async._files.destination import Destination
from segments_async._files.directory import absolute
from segments_async._files.open_place import location_of, open_place
from segments_async._journal.high_water import DIRECTORY
from segments_async._journal.place import hidden
from segments_async._journal.records import RunSpec, RunStatus, StoredRun
from segments_async._journal.refusals import journal_error
from segments_async._journal.sql import SqlJournal
from segments_async._run.recorder import GuardWriter
from segments_async._run.report.page import page_html
from segments_async._run.report.views import view_of_stored
from segments_async._run.resources import account_of
from segments_async._run.start import restore_guard, unchanged_files
from segments_async._sansio.api.credentials import BASE_URL
from segments_async.models import Segment

if TYPE_CHECKING:
    from segments_async.client import SegmentsClient

__all__ = ["Journal", "RunSpec", "RunStatus"]


class Journal:
    """The journal of one account: a SQLite file, or a schema of PostgreSQL.

    ::

        journal = await Journal.open("exports/.segments-async/runs.db", api_key=key)
        for run in await journal.runs():
            print(run.name, run.exported, run.unfinished)

    Opening creates nothing, locks no run, and leaves no connection open; only :meth:`prune`
    deletes. Every method raises :class:`JournalError` where the journal can't be read.
    """

    def __init__(self, journal: SqlJournal) -> None:
        self._journal = journal

    @classmethod
    async def open(
        cls, where: str | os.PathLike[str], *, api_key: str, base_url: str = BASE_URL
    ) -> Self:
        """Open an existing journal.

        Args:
            where: the path of a SQLite file, or a SQLAlchemy URL (``postgresql://...``).
            api_key: of the account; the access token is not needed.
            base_url: of the vendor's API, as the client has it.

        Raises:
            ConfigurationError: no journal can be there, or the extra ``journal`` isn't installed.
            JournalError: ``missing``: there is no journal; ``foreign``: another account's; or
                another reason.
        """
        place = hidden(where)
        del where  # the URL may have a password, and an error shows this frame's variables
        account = account_of(base_url, api_key)
        return cls(await SqlJournal.open(place, account=account, create=False))

    @staticmethod
    def path_in(directory: str | os.PathLike[str]) -> Path:
        """Where the command line keeps the journal of the exports in this directory.

        Raises:
            ConfigurationError: the directory is a URL.
        """
        return absolute(directory) / DIRECTORY / "runs.db"

    @staticmethod
    def location_of(to: str | os.PathLike[str] | Destination) -> str:
        """The location by which a journal knows the place of files: an absolute path, or a URL.

        Raises:
            ConfigurationError: a URL that can't be one of a destination, or may hold a credential.
        """
        return location_of(to)

    @property
    def location(self) -> str:
        """The file, or the database server without user and password."""
        return self._journal.location

    async def runs(self, to: str | os.PathLike[str] | Destination | None = None) -> list[RunStatus]:
        """Every run, the latest first.

        Args:
            to: only the runs whose files go to this directory or destination.
        """
        directory = None if to is None else location_of(to)
        runs = await self._journal.ask(lambda database: database.runs())
        return [run for run in runs if directory in (None, run.destination)]

    async def spec(self, run: str) -> RunSpec | None:
        """The segments and options of the last session of an unfinished run, by the run's name.

        None where the journal doesn't know: there is no such run, it has ended, or an earlier
        version of this library started it.
        """
        return await self._journal.ask(lambda database: database.spec(run))

    async def segments(self, run: str) -> list[Segment | str]:
        """The segments of a run, finished or not.

        A :class:`Segment` as an export of the run described it. A segment that ended without an
        export is a :class:`Segment` with id and name alone, or its id where it had no name. A
        segment to which nothing has happened yet is its id, or is missing where the unfinished run
        has no spec.
        """
        found = await self._journal.ask(lambda database: database.segments(run))
        return [segment or segment_id for segment_id, segment in found.items()]

    async def report_html(self, run: str) -> str:
        """The page of a run, finished or not: as :meth:`BulkReport.to_html`, by the run's name.

        Raises:
            JournalError: ``missing``: the journal has no run of this name.
        """
        html = await self._journal.ask(lambda database: _page(database.stored_run(run)))
        if html is None:
            where = self.location
            raise journal_error(where, "missing", f"there is no run called {run!r:.200}")
        return html

    async def unchanged(
        self, segments: Iterable[Segment | str], to: str | os.PathLike[str] | Destination
    ) -> set[str]:
        """The ids of the segments that ``only_changed`` would not export to this directory.

        They have not run since their last export, whose file is still in the directory.
        """
        known = {s.segment_id: s for s in segments if isinstance(s, Segment)}
        ids, place = list(known), open_place(to)
        files = await self._journal.ask(lambda database: database.last_files(ids, place.location))
        return set(await unchanged_files(place, known, files))

    async def prune(self, before: datetime) -> int:
        """Delete the runs to which nothing has happened since a time, finished or not.

        A run that a live process has open stays. ``only_changed`` doesn't know the files of a
        deleted run any more. Other processes can write to the journal meanwhile. Where the call is
        cancelled, the next one deletes the rest.

        Args:
            before: the time, aware.

        Returns:
            The number of runs deleted.
        """
        return await self._journal.prune(before)

    @contextlib.asynccontextmanager
    async def ticket_guard(self, client: SegmentsClient) -> AsyncGenerator[datetime | None]:
        """Let calls of this client obey the account's ticket guard, and add to it.

        An answer of 500 makes the vendor open a support ticket, so after one no process of the
        account sends anything for a while. A bulk run with this journal does so by itself; this
        block is for other calls, such as `list_segments` before a run. Yields the time before
        which the client sends nothing (aware, UTC); None where the guard holds nothing.
        """
        guard = client._gate.guard  # pyright: ignore[reportPrivateUsage]
        until = await restore_guard(self._journal, guard)
        try:
            yield until
        finally:
            await GuardWriter(self._journal).record(guard)


def _page(stored: StoredRun | None) -> str | None:
    return None if stored is None else page_html(view_of_stored(stored))
