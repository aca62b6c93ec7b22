"""The file of a COMPLETE export as a stream, read as it arrives and never stored."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator

import anyio
import attrs

from segments_async._files.errors import AttemptFailed
from segments_async._files.gzip_stream import DecodedChunks
from segments_async._files.min_speed import MinSpeedChunks
from segments_async._files.refusals import (
    FileDenied,
    LinkExpired,
    Renew,
    as_download_error,
    link_of,
    refuse,
    with_fresh_link,
)
from segments_async._http.storage import Storage, StorageAnswer
from segments_async._http.storage_body import StorageBroken
from segments_async._sansio.files.links import LinkRefused
from segments_async._sansio.files.progress_limit import MIN_BYTES_WINDOW, TOO_SLOW
from segments_async._sansio.files.ranges import ObjectVersion, WrongRange, read_answer
from segments_async.models import Export


@contextlib.asynccontextmanager
async def open_file(
    storage: Storage, export: Export, *, renew: Renew
) -> AsyncGenerator[StorageAnswer]:
    """Open the export's file, decoded if it is stored gzip-encoded.

    Args:
        export: COMPLETE, with a link.
        renew: asks the vendor for the export with a fresh link, once.

    Raises:
        DownloadError: with its reason.
        ExportExpiredError: the file is gone, and older than 48 hours.
    """
    try:
        async with contextlib.AsyncExitStack() as stack:
            try:
                answer = await _opened(storage, export, stack)
            except LinkExpired:
                export = await with_fresh_link(export, renew)
                answer = await _opened(storage, export, stack)
            yield answer
    except (LinkRefused, LinkExpired, FileDenied, AttemptFailed, StorageBroken) as exc:
        raise as_download_error(export, exc) from None


async def _opened(
    storage: Storage, export: Export, stack: contextlib.AsyncExitStack
) -> StorageAnswer:
    """Request the file. The head, or an error page, has a time limit; the body a minimum speed."""
    with anyio.move_on_after(MIN_BYTES_WINDOW):
        answer = await stack.enter_async_context(storage.get(link_of(export)))
        version = read_answer(answer.status, answer.headers, None)
        if isinstance(version, WrongRange):
            raise AttemptFailed(version.why)
        if not isinstance(version, ObjectVersion):
            await refuse(export, answer)
        chunks: AsyncIterator[bytes] = MinSpeedChunks(answer.chunks)
        if version.gzip:
            chunks = DecodedChunks(chunks)
        return attrs.evolve(answer, chunks=chunks)
    raise StorageBroken(TOO_SLOW)
