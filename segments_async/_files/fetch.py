"""Fetch the file of a COMPLETE export: from its link to a whole file, or to a stream."""

from __future__ import annotations

import contextlib
import errno
import logging
import random
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from datetime import timedelta
from email.utils import parsedate_to_datetime
from functools import partial
from pathlib import Path
from typing import NoReturn

import anyio
import anyio.to_thread
import attrs

from segments_async._files.download import (
    Attempt,
    AttemptFailed,
    CannotResume,
    LengthMismatch,
    WrongRangeReceived,
)
from segments_async._files.gzip_stream import DecodedChunks, NotGzip
from segments_async._files.min_speed import TOO_SLOW, MinSpeedChunks
from segments_async._files.part import (
    Bytes,
    ChecksumMismatch,
    ExportedBytes,
    PartBusy,
    PartFile,
    PartModified,
    part_of,
)
from segments_async._http.storage import STORAGE_ERROR_CAP, Storage, StorageAnswer, StorageBroken
from segments_async._http.storage_gate import LONGEST_PAUSE, StorageUnavailable
from segments_async._sansio.files.links import LinkMalformed, LinkRefused
from segments_async._sansio.files.progress_limit import (
    MIN_BYTES_WINDOW,
    LinkRenewals,
    ProgressLimit,
)
from segments_async._sansio.files.range_allocator import size_of
from segments_async._sansio.files.ranges import ObjectVersion, content_encoding, read_answer
from segments_async._sansio.files.storage_errors import StorageError, storage_error
from segments_async._sansio.jobs.exports import file_since
from segments_async._sansio.pace.backoff import full_jitter, retry_after_seconds
from segments_async.errors import (
    APIConnectionError,
    APIError,
    DownloadError,
    DownloadReason,
    ExportExpiredError,
    RateLimitedError,
    ServerError,
)
from segments_async.models import Export
from segments_async.results import ExportedFile

logger: logging.Logger = logging.getLogger("segments_async")

#: Seconds for one file, in all. At 50 MB/s it is two terabytes.
DEADLINE = 12 * 3600.0

#: Seconds for leaving the part as it should be, once a download is cancelled. A thread that takes
#: longer for it (a slow disk) goes on by itself.
LEAVING = 0.5

#: "The file will remain in Amazon for no more than 48 hours."
LIFETIME = timedelta(hours=48)

#: Ranges in a row that aren't what was asked for, after which the file is fetched from its
#: beginning.
MISFITS = 2

#: Seconds between two looks at a part that another download has: at first, and at last.
FIRST_LOOK = 0.1
LAST_LOOK = 5.0

#: Seconds without a change after which a part that another holder has locked is begun anew. The
#: other one may wait for storage, be stopped, or be no download at all.
STANDSTILL = 2 * MIN_BYTES_WINDOW

#: A file that can't be opened for want of descriptors is tried this often, over some two minutes.
SCARCE_ATTEMPTS = 8

Renew = Callable[[Export], Awaitable[Export]]

_DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class LinkExpired(Exception):
    """The link no longer opens the file, which may be there."""


class Denied(Exception):
    """Storage refuses the file.

    Attributes:
        error: how.
    """

    def __init__(self, error: StorageError) -> None:
        super().__init__(error.message)
        self.error = error


async def fetch_file(
    storage: Storage,
    export: Export,
    target: Path,
    *,
    progress: Callable[[int], None] = lambda _: None,
    slots: anyio.Semaphore | None = None,
    renew: Renew | None = None,
) -> ExportedFile:
    """Fetch the export's file to `target`, replacing what is there.

    It goes on where an earlier download of the export to this target broke off, in whatever
    process. Until the file is whole it is a `.part` beside the target, with a `.part.json` that
    says what it is. If the file can't be fetched now, they stay for the next time, unless they
    can't be continued or the disk failed.

    Args:
        storage: who fetches.
        export: COMPLETE, with a link.
        target: an absolute path.
        progress: told how many bytes of the file are there so far; fewer where it starts over.
        slots: of connections to storage, one of which the caller holds. A large file takes more of
            them while nobody waits for one. None: one connection.
        renew: asks the vendor for the export anew, with a fresh link, as often as the link expires
            while bytes come. None: an expired link is the end.

    Raises:
        DownloadError: with its reason.
        ExportExpiredError: the file is gone, and older than 48 hours.
    """
    for attempt in range(SCARCE_ATTEMPTS):
        try:
            return await _fetch_to(target, storage, export, progress, slots, renew)
        except DownloadError as exc:
            if not _is_scarce(exc.__cause__):
                raise
            # Other tasks of this process have all of its descriptors, and give them back.
            logger.info("%s; again when some are free", exc)
        await anyio.sleep(full_jitter(attempt, random.random()))
    return await _fetch_to(target, storage, export, progress, slots, renew)


async def _fetch_to(
    target: Path,
    storage: Storage,
    export: Export,
    progress: Callable[[int], None],
    slots: anyio.Semaphore | None,
    renew: Renew | None,
) -> ExportedFile:
    part = PartFile(target)
    leave = part.keep
    try:
        with anyio.move_on_after(DEADLINE):
            await _open(part, export, target)
            return await _persist(storage, export, part, target, progress, slots, renew)
        _raise(export, "broken", f"not whole within {DEADLINE / 3600:g} hours")
    except LinkRefused as exc:
        _raise_refused(export, exc)
    except OSError as exc:
        if not _is_scarce(exc):
            leave = part.discard  # room for the others, and no trust in such a disk
        reason: DownloadReason = "disk_full" if exc.errno in _DISK_FULL else "broken"
        _raise(export, reason, f"{target}: {exc.strerror or exc}", exc)
    except ExportExpiredError:
        leave = part.discard
        raise
    except Denied as exc:
        if exc.error.absent:
            leave = part.discard
        _raise_denied(export, exc)
    finally:
        if not part.is_finished:
            await _leave(leave)


async def _open(part: PartFile, export: Export, target: Path) -> None:
    """Open the part, once no other download has it.

    That of another process, or of another client, to the same target: of whichever export, it is
    left to end. A part that stands still is begun anew.
    """
    look, seen, since = FIRST_LOOK, None, anyio.current_time()
    while True:
        still = anyio.current_time() - since >= STANDSTILL
        try:
            await anyio.to_thread.run_sync(partial(part.open, export.export_id, ignore_lock=still))
        except PartBusy:
            pass
        else:
            return
        found = await anyio.to_thread.run_sync(_looks, part_of(target))
        if seen is None:
            logger.info(
                "file of export %s: another download is writing %s; waiting for it to end",
                export.export_id,
                target,
            )
        if found != seen:
            seen, since = found, anyio.current_time()
        await anyio.sleep(look)
        look = min(LAST_LOOK, 2 * look)


def _looks(path: Path) -> tuple[int, ...]:
    """What changes of a file that somebody writes."""
    try:
        found = path.stat(follow_symlinks=False)
    except FileNotFoundError:
        return ()
    return found.st_ino, found.st_size, found.st_mtime_ns


def _is_scarce(exc: BaseException | None) -> bool:
    """Whether the process, or the system, is out of descriptors: that says nothing of the disk."""
    return isinstance(exc, OSError) and exc.errno in (errno.EMFILE, errno.ENFILE)


async def _leave(leave: Callable[[], None]) -> None:
    """Leave the part, in a thread that may take longer than is waited for it."""
    try:
        with anyio.move_on_after(LEAVING, shield=True):
            await anyio.to_thread.run_sync(leave, abandon_on_cancel=True)
    except BaseException:
        # asyncio's own cancellation respects no shield, and may come before the thread has begun:
        # the part would be locked as long as the process lives. To leave it twice does no harm.
        threading.Thread(target=leave, name="segments-async-leave").start()
        raise


@contextlib.asynccontextmanager
async def open_file(
    storage: Storage, export: Export, *, renew: Renew | None = None
) -> AsyncGenerator[StorageAnswer]:
    """The export's file as a stream, once; decoded where it is stored gzip-encoded.

    Args:
        storage: who fetches.
        export: COMPLETE, with a link.
        renew: as of :func:`fetch_file`.

    Raises:
        DownloadError: with its reason.
        ExportExpiredError: the file is gone, and older than 48 hours.
    """
    try:
        async with contextlib.AsyncExitStack() as stack:
            try:
                answer = await _opened(storage, export, stack)
            except LinkExpired as exc:
                if renew is None:
                    _raise(export, "expired_link", str(exc))
                export = await _renewed(export, renew)
                answer = await _opened(storage, export, stack)
            yield answer
    except LinkRefused as exc:
        _raise_refused(export, exc)
    except LinkExpired as exc:
        _raise(export, "expired_link", str(exc))
    except Denied as exc:
        _raise_denied(export, exc)
    except (AttemptFailed, StorageBroken) as exc:
        _raise(export, "broken", str(exc))


async def _opened(
    storage: Storage, export: Export, stack: contextlib.AsyncExitStack
) -> StorageAnswer:
    """A file may take its time as long as it comes; its head, and an error page, may not."""
    with anyio.move_on_after(MIN_BYTES_WINDOW):
        answer = await stack.enter_async_context(storage.get(_link(export)))
        version = read_answer(answer.status, answer.headers, None)
        if not isinstance(version, ObjectVersion):
            await _refuse(export, answer)
        chunks: AsyncIterator[bytes] = MinSpeedChunks(answer.chunks)
        if version.gzip:
            chunks = DecodedChunks(chunks, StorageBroken)
        return attrs.evolve(answer, chunks=chunks)
    raise StorageBroken(TOO_SLOW)


async def _persist(
    storage: Storage,
    export: Export,
    part: PartFile,
    target: Path,
    progress: Callable[[int], None],
    slots: anyio.Semaphore | None,
    renew: Renew | None,
) -> ExportedFile:
    """Try until the file is in place, or five attempts in a row got no further.

    Attempts that storage's absence ended don't count.
    """
    patience, renewals = ProgressLimit(), LinkRenewals()
    expired = False
    while True:
        try:
            if expired and renew is not None:
                export, expired = await _renewed(export, renew), False
            attempt = Attempt(
                storage,
                _link(export),
                part,
                refuse=partial(_refuse, export),
                progress=progress,
                slots=slots,
            )
            await attempt.run()
            placed = await _finish(part, attempt.rest)
        except LinkExpired as exc:
            may_renew = renewals.may_renew(size_of(part.held), anyio.current_time())
            if renew is None or not may_renew:
                _raise(export, "expired_link", str(exc))
            expired = True
        except StorageUnavailable as exc:
            _raise(export, "broken", str(exc))
        except (AttemptFailed, StorageBroken, ChecksumMismatch, PartModified, NotGzip) as exc:
            await _pause(export, part, patience, exc, progress)
        else:
            verified = part.version is not None and part.version.total is not None
            return ExportedFile(
                location=str(target),
                size=placed.size,
                sha256=placed.sha256,
                verified=verified,
                export=export,
            )


async def _finish(part: PartFile, rest: Bytes) -> ExportedBytes:
    if not part.is_whole(rest):
        raise AttemptFailed("one of several connections broke")
    if part.held:
        # In steps: what was there before, or came out of order, is still to be hashed.
        while not await anyio.to_thread.run_sync(part.hash_on):
            pass
    return await anyio.to_thread.run_sync(part.finish, rest)


async def _pause(
    export: Export,
    part: PartFile,
    patience: ProgressLimit,
    exc: Exception,
    progress: Callable[[int], None],
) -> None:
    """Wait before the next attempt, or raise because there is none."""
    spoilt = isinstance(exc, CannotResume | ChecksumMismatch | PartModified)
    # A server that can't do ranges has the whole file all the same.
    spoilt |= isinstance(exc, WrongRangeReceived) and patience.without_progress >= MISFITS
    if part.held and (spoilt or not part.resumable):
        await anyio.to_thread.run_sync(part.reset)
    kept = size_of(part.held)
    progress(kept)
    if isinstance(exc, AttemptFailed | StorageBroken) and exc.away:
        logger.info("file of export %s: %s; waiting for storage", export.export_id, exc)
        return
    if not patience.on_break(kept):
        reason: DownloadReason = "broken"
        if isinstance(exc, LengthMismatch | ChecksumMismatch):
            reason = "length" if isinstance(exc, LengthMismatch) else "checksum"
        _raise(export, reason, f"{exc} ({patience.without_progress} attempts got no further)")
    pause = full_jitter(patience.without_progress, random.random())
    if isinstance(exc, AttemptFailed) and exc.pause is not None:
        pause = min(exc.pause, LONGEST_PAUSE)
    logger.info("file of export %s: %s; again in %.1f s", export.export_id, exc, pause)
    await anyio.sleep(pause)


def _link(export: Export) -> str:
    if not export.filename:
        raise LinkMalformed("the export has no link")
    return export.filename


async def _refuse(export: Export, answer: StorageAnswer) -> NoReturn:
    """Storage's refusals, told apart by status and by the words of its error page."""
    if answer.status == 200:
        names = content_encoding(answer.headers)
        _raise(export, "encoding", f"the file is stored in an encoding that isn't decoded: {names}")
    error = storage_error(answer.status, answer.headers, await _error_page(answer))
    if error.remedy == "wait":
        pause = retry_after_seconds(answer.status, answer.headers)
        raise AttemptFailed(error.message, pause, away=answer.away)
    if error.gone and _past_lifetime(export, answer):
        raise ExportExpiredError(
            f"the file of export {export.export_id} is gone: files stay for no more than 48 hours",
            segment_id=export.segment.segment_id,
            export=export,
        )
    if error.remedy == "new_link":
        raise LinkExpired(error.message)
    raise Denied(error)


async def _error_page(answer: StorageAnswer) -> bytes:
    page = b""
    async for chunk in answer.chunks:
        page += chunk
        if len(page) >= STORAGE_ERROR_CAP:
            break
    return page[:STORAGE_ERROR_CAP]


async def _renewed(export: Export, renew: Renew) -> Export:
    """The export with a fresh link. Nothing else of it is taken: it is the same export."""
    try:
        fresh = await renew(export)
    except (APIConnectionError, RateLimitedError, ServerError) as exc:
        # The vendor is away, and says nothing of the export: as with polls, no wait ends by that.
        raise AttemptFailed(f"the link has expired, and no other could be had: {exc}") from exc
    except APIError as exc:
        raise DownloadError(
            f"file of export {export.export_id}: the link has expired, and asking for another one "
            f"came to nothing: {exc}",
            reason="expired_link",
            export=export,
        ) from exc
    if not fresh.filename:
        _raise(export, "expired_link", "the link has expired, and the vendor gives no other")
    logger.info("file of export %s: the link had expired, and was renewed", export.export_id)
    return attrs.evolve(export, filename=fresh.filename)


def _raise_denied(export: Export, denied: Denied) -> NoReturn:
    # From None: the frames of the refusal hold storage's answer.
    raise DownloadError(
        f"file of export {export.export_id}: {denied.error.message}",
        reason=denied.error.reason,
        export=export,
    ) from None


def _past_lifetime(export: Export, answer: StorageAnswer) -> bool:
    """Whether the file's 48 hours are over, by storage's clock."""
    try:
        now = parsedate_to_datetime(answer.headers.get("date", ""))
    except (ValueError, TypeError, OverflowError):
        return False
    since = file_since(export)
    return now.tzinfo is not None and since is not None and now - since >= LIFETIME


def _raise_refused(export: Export, refusal: LinkRefused) -> NoReturn:
    # Not from the refusal: its frames hold the link.
    raise DownloadError(
        f"file of export {export.export_id}: {refusal}",
        reason="link_refused",
        export=export,
        by_policy=not isinstance(refusal, LinkMalformed),
    ) from None


def _raise(
    export: Export, reason: DownloadReason, what: str, cause: OSError | None = None
) -> NoReturn:
    raise DownloadError(
        f"file of export {export.export_id}: {what}", reason=reason, export=export
    ) from cause
