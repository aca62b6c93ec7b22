"""The files of exports, for all callers of one client: with their links, fetched or read."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from functools import partial

import anyio

from segments_async._files.body import ExportBody
from segments_async._files.fetch import fetch_file
from segments_async._files.in_progress import InProgressDownloads
from segments_async._files.stream import open_file
from segments_async._files.target import Target
from segments_async._http.storage import Storage
from segments_async._sansio.api.redaction import redact
from segments_async._sansio.jobs.exports import is_complete
from segments_async._sansio.pace.hold import Hold
from segments_async.errors import ConfigurationError, ExportFailedError
from segments_async.models import Export, ExportStatus
from segments_async.results import ExportedFile


class ExportFiles:
    """Fetches and reads the files of exports. Callers for the same file share one download.

    Args:
        downloads: files fetched at once.
        get_export: asks the vendor for an export, with a fresh link.

    Attributes:
        slots: for connections to storage; each download and each read holds one.
    """

    def __init__(
        self,
        storage: Storage,
        downloads: int,
        get_export: Callable[[Export | str], Awaitable[Export]],
    ) -> None:
        self._storage = storage
        self._get_export = get_export
        self._in_progress = InProgressDownloads()
        self.downloads: int = downloads
        self.slots: anyio.Semaphore = anyio.Semaphore(downloads, max_value=downloads)

    @property
    def connections(self) -> int:
        """Connections to storage that are in use."""
        return self.downloads - self.slots.value

    def hold(self, now: float) -> Hold | None:
        """What delays the downloads; None where nothing does."""
        return self._storage.hold(now)

    async def fetch(self, export: Export, target: Target) -> ExportedFile:
        """Fetch the file of a COMPLETE export to a place that was checked."""
        async with self.slots:
            return await self.fetch_in_slot(export, target)

    async def fetch_in_slot(
        self,
        export: Export,
        target: Target,
        progress: Callable[[int], None] = lambda _: None,
        on_break: Callable[[str], None] = lambda _: None,
    ) -> ExportedFile:
        """As `fetch`, for a caller that holds a slot.

        Args:
            export: COMPLETE, with a link.
            target: a place that was checked.
            progress: called with the number of the file's bytes so far; see `fetch_file`.
            on_break: called with the reason when an attempt fails, and another one follows.
        """
        fetch = partial(
            fetch_file,
            self._storage,
            export,
            target,
            progress=progress,
            slots=self.slots,
            renew=self._get_export,
            on_break=on_break,
        )
        return await self._in_progress.fetch(target.location, export.export_id, fetch)

    @contextlib.asynccontextmanager
    async def open(self, export: Export) -> AsyncGenerator[ExportBody]:
        """Read the file of a COMPLETE export without storing it."""
        async with (
            self.slots,
            open_file(self._storage, export, renew=self._get_export) as answer,
        ):
            yield ExportBody(answer.chunks, export)

    async def with_link(self, export: Export | str) -> Export:
        """The export with a link: polled once, if the caller's export has none.

        Raises:
            ExportFailedError: the vendor says FAILED.
            ConfigurationError: the export isn't COMPLETE yet.
        """
        if isinstance(export, Export) and export.filename:
            return export
        found = await self._get_export(export)
        if found.status == ExportStatus.FAILED:
            raise ExportFailedError(
                f"the vendor says that export {found.export_id} failed",
                segment_id=found.segment.segment_id,
                export=found,
            )
        if not is_complete(found):
            raise ConfigurationError(
                f"export {found.export_id} is {redact(found.status)}: wait_for_export() waits for "
                "its file"
            )
        return found
