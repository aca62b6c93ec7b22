"""The file of one export, for a single call: with its link, fetched or read."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from functools import partial
from pathlib import Path

import anyio

from segments_async._files.body import ExportBody
from segments_async._files.fetch import fetch_file
from segments_async._files.in_progress import InProgressDownloads
from segments_async._files.stream import open_file
from segments_async._http.storage import Storage
from segments_async._sansio.api.redaction import redact
from segments_async._sansio.jobs.exports import is_complete
from segments_async.errors import ConfigurationError, ExportFailedError
from segments_async.models import Export, ExportStatus
from segments_async.results import ExportedFile


class ExportFiles:
    """Fetches and reads the files of exports.

    Args:
        storage: where files are fetched from.
        slots: for connections to storage, of the whole client.
        get_export: asks the vendor for an export, with a fresh link.

    Attributes:
        in_progress: downloads that callers for the same file share.
    """

    def __init__(
        self,
        storage: Storage,
        slots: anyio.Semaphore,
        get_export: Callable[[Export | str], Awaitable[Export]],
    ) -> None:
        self._storage = storage
        self._slots = slots
        self._get_export = get_export
        self.in_progress: InProgressDownloads = InProgressDownloads()

    async def fetch(self, export: Export, target: Path) -> ExportedFile:
        """Fetch the file of a COMPLETE export to a path that was checked."""
        fetch = partial(
            fetch_file,
            self._storage,
            export,
            target,
            slots=self._slots,
            renew=self._get_export,
        )
        async with self._slots:
            return await self.in_progress.fetch(target, export.export_id, fetch)

    @contextlib.asynccontextmanager
    async def open(self, export: Export) -> AsyncGenerator[ExportBody]:
        """Read the file of a COMPLETE export without storing it."""
        async with (
            self._slots,
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
