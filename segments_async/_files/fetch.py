"""Fetch the file of a COMPLETE export: from its link to a whole file, or to a stream.

The stream is read without a chunk size (passing one halves httpx's speed), and written and hashed
in batches in a worker thread (docs/design.md has the measurements).
"""

from __future__ import annotations

import contextlib
import errno
import logging
import random
from collections.abc import AsyncGenerator, Callable
from datetime import timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import NoReturn

import anyio
import anyio.to_thread

from segments_async._files.part import PartFile
from segments_async._sansio.links import LinkRefused
from segments_async._sansio.retry import full_jitter
from segments_async._storage import STORAGE_ERROR_CAP, Storage, StorageAnswer, StorageBroken
from segments_async.errors import DownloadError, DownloadReason, ExportExpiredError
from segments_async.models import Export, ExportedFile

logger: logging.Logger = logging.getLogger("segments_async")

#: Bytes gathered before they are written and hashed in a worker thread.
BATCH = 4 * 1024 * 1024

#: A broken download is tried this often in all.
ATTEMPTS = 5

#: "The file will remain in Amazon for no more than 48 hours."
LIFETIME = timedelta(hours=48)

_DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class _TryAgain(Exception):
    """Something that may pass: a broken link, a server that asks to slow down."""


class _LengthMismatch(_TryAgain):
    """The body was not as long as announced."""


async def fetch_file(
    storage: Storage,
    export: Export,
    target: Path,
    *,
    progress: Callable[[int], None] = lambda _: None,
) -> ExportedFile:
    """Fetch the export's file to `target`, replacing what is there.

    Args:
        storage: who fetches.
        export: COMPLETE, with a link.
        target: an absolute path.
        progress: told how many bytes of the file have come so far; from 0 again after a break.

    Raises:
        DownloadError: with its reason.
        ExportExpiredError: the file is gone, and older than 48 hours.
    """
    for attempt in range(ATTEMPTS):
        try:
            return await _attempt(storage, export, target, progress)
        except (_TryAgain, StorageBroken) as exc:
            progress(0)
            if attempt + 1 == ATTEMPTS:
                reason: DownloadReason = "length" if isinstance(exc, _LengthMismatch) else "broken"
                _raise(export, reason, f"{exc} ({ATTEMPTS} attempts)")
            pause = full_jitter(attempt, random.random())
            logger.info("file of export %s: %s; again in %.1f s", export.export_id, exc, pause)
            await anyio.sleep(pause)
    raise AssertionError("unreachable: the last attempt returns or raises")


@contextlib.asynccontextmanager
async def open_file(storage: Storage, export: Export) -> AsyncGenerator[StorageAnswer]:
    """The export's file as a stream, once.

    Raises:
        DownloadError: with its reason.
        ExportExpiredError: the file is gone, and older than 48 hours.
    """
    try:
        async with storage.get(_link(export)) as answer:
            await _check_status(export, answer)
            yield answer
    except LinkRefused as exc:
        _raise(export, "link_refused", str(exc))
    except (_TryAgain, StorageBroken) as exc:
        _raise(export, "broken", str(exc))


def announced_length(answer: StorageAnswer) -> int | None:
    """The body's length in bytes, None where the server doesn't tell."""
    value = answer.headers.get("content-length", "")
    return int(value) if value.isdecimal() else None


async def _attempt(
    storage: Storage, export: Export, target: Path, progress: Callable[[int], None]
) -> ExportedFile:
    part = PartFile(target)
    try:
        async with storage.get(_link(export)) as answer:
            await _check_status(export, answer)
            return await _save(part, answer, export, target, progress)
    except LinkRefused as exc:
        _raise(export, "link_refused", str(exc))
    except OSError as exc:
        reason: DownloadReason = "disk_full" if exc.errno in _DISK_FULL else "broken"
        _raise(export, reason, f"{target}: {exc.strerror or exc}", exc)
    finally:
        if part.is_open:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(part.discard)


async def _save(
    part: PartFile,
    answer: StorageAnswer,
    export: Export,
    target: Path,
    progress: Callable[[int], None],
) -> ExportedFile:
    batch: list[bytes] = []
    size = batched = 0
    async for chunk in answer.chunks:
        batch.append(chunk)
        size += len(chunk)
        batched += len(chunk)
        progress(size)
        if batched >= BATCH:
            await anyio.to_thread.run_sync(part.write, batch)
            batch, batched = [], 0
    length = announced_length(answer)
    if length is not None and length != size:
        raise _LengthMismatch(f"{size} bytes came where {length} were announced")
    sha256 = await anyio.to_thread.run_sync(part.finish, batch)
    return ExportedFile(
        location=str(target), size=size, sha256=sha256, verified=length is not None, export=export
    )


def _link(export: Export) -> str:
    if not export.filename:
        raise LinkRefused("the export has no link")
    return export.filename


async def _check_status(export: Export, answer: StorageAnswer) -> None:
    """Storage's refusals, told apart by status and by the words of its error page."""
    if answer.status == 200:
        if answer.headers.get("content-encoding", "identity").lower() not in ("identity", ""):
            _raise(export, "broken", "the file is stored compressed, which is not supported")
        return
    if answer.status in (429, 500, 502, 503, 504):
        raise _TryAgain(f"storage answered {answer.status}")
    page = await _error_page(answer)
    gone = answer.status in (404, 410) or (answer.status == 403 and "expired" in page.lower())
    if gone and _expired(export, answer):
        raise ExportExpiredError(
            f"the file of export {export.export_id} is gone: files stay for no more than 48 hours",
            segment_id=export.segment.segment_id,
            export=export,
        )
    if answer.status == 403 and "expired" in page.lower():
        _raise(export, "expired_link", "the link has expired")
    if answer.status in (401, 403, 404, 410):
        _raise(export, "denied", f"storage answered {answer.status}")
    _raise(export, "broken", f"storage answered {answer.status}")


async def _error_page(answer: StorageAnswer) -> str:
    page = b""
    async for chunk in answer.chunks:
        page += chunk
        if len(page) >= STORAGE_ERROR_CAP:
            break
    return page[:STORAGE_ERROR_CAP].decode("utf-8", "replace")


def _expired(export: Export, answer: StorageAnswer) -> bool:
    """Whether the file's 48 hours are over, by storage's clock."""
    try:
        now = parsedate_to_datetime(answer.headers.get("date", ""))
    except (ValueError, TypeError, OverflowError):
        return False
    since = export.end_time or export.start_time
    return now.tzinfo is not None and now - since >= LIFETIME


def _raise(
    export: Export, reason: DownloadReason, what: str, cause: OSError | None = None
) -> NoReturn:
    raise DownloadError(
        f"file of export {export.export_id}: {what}", reason=reason, export=export
    ) from cause
