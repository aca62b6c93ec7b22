"""Fetch the file of a COMPLETE export to its target: attempts, the pauses between, and the end."""

from __future__ import annotations

import errno
import logging
import random
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import anyio
import anyio.to_thread
import attrs

from segments_async._files.digest import Bytes
from segments_async._files.download import Attempt
from segments_async._files.errors import (
    AttemptFailed,
    CannotResume,
    LengthMismatch,
    WrongRangeReceived,
)
from segments_async._files.locked_part import PartBusy, PartModified
from segments_async._files.part import ChecksumMismatch, ExportedBytes, PartFile, part_of
from segments_async._files.refusals import (
    FileDenied,
    LinkExpired,
    Renew,
    as_download_error,
    download_error,
    link_of,
    refuse,
    with_fresh_link,
)
from segments_async._http.storage import Storage, StorageBroken
from segments_async._http.storage_gate import LONGEST_PAUSE, StorageUnavailable
from segments_async._sansio.files.links import LinkRefused
from segments_async._sansio.files.progress_limit import (
    MIN_BYTES_WINDOW,
    LinkRenewals,
    ProgressLimit,
)
from segments_async._sansio.files.range_allocator import size_of
from segments_async._sansio.pace.backoff import full_jitter
from segments_async.errors import DownloadError, DownloadReason, ExportExpiredError
from segments_async.models import Export
from segments_async.results import ExportedFile

logger: logging.Logger = logging.getLogger("segments_async")

#: Seconds for one file, in all. At 50 MB/s it is two terabytes.
DEADLINE = 12 * 3600.0

#: Seconds to wait for the part to be kept or discarded after a cancellation. On a slow disk the
#: thread that does so takes longer, and goes on by itself.
LEAVING = 0.5

#: After so many ranges in a row that weren't asked for, the file is fetched from its beginning: a
#: server that can't serve ranges has the whole file all the same.
MOST_WRONG_RANGES = 2

#: Seconds between two looks at a part that another download has locked: at first, and at last.
FIRST_LOOK, LAST_LOOK = 0.1, 5.0

#: Seconds without a change after which a part that another holder has locked is begun anew. The
#: holder may wait for storage, be stopped, or be no download at all.
UNCHANGED_FOR = 2 * MIN_BYTES_WINDOW

#: How often a file is tried that can't be opened because all file descriptors are used: for some
#: two minutes.
DESCRIPTOR_ATTEMPTS = 8

_DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


async def fetch_file(
    storage: Storage,
    export: Export,
    target: Path,
    *,
    progress: Callable[[int], None] = lambda _: None,
    slots: anyio.Semaphore | None = None,
    renew: Renew | None = None,
) -> ExportedFile:
    """Fetch the export's file to `target`, replacing the file that is there.

    The download continues where an earlier one of the export to this target broke off, in this
    process or another. Until the file is whole it is a `.part` beside the target, with a
    `.part.json` that describes the part. If the file can't be fetched now, both stay for the next
    time, unless they can't be continued or the disk failed.

    Args:
        storage: to ask for the file.
        export: COMPLETE, with a link.
        target: an absolute path.
        progress: called with the number of the file's bytes that are there so far; fewer than
            before if the download starts over.
        slots: limits the connections to storage; the caller holds one slot. A large file takes
            more of them while no task waits for one. None: one connection.
        renew: asks the vendor for the export again, with a fresh link, as often as the link
            expires while bytes arrive. None: an expired link ends the download.

    Raises:
        DownloadError: with its reason.
        ExportExpiredError: the file is gone, and older than 48 hours.
    """
    attempt = 0
    while True:
        part = PartFile(target)
        try:
            return await _Fetch(storage, export, target, progress, slots, renew, part).run()
        except DownloadError as exc:
            if attempt == DESCRIPTOR_ATTEMPTS or not _out_of_descriptors(exc.__cause__):
                raise
            # Other tasks of this process use all file descriptors, and will close some.
            logger.info("%s; again when some are free", str(exc))
        await anyio.sleep(full_jitter(attempt, random.random()))
        attempt += 1


@attrs.define(eq=False, repr=False)
class _Fetch:
    """The download of one file, over several attempts."""

    _storage: Storage
    _export: Export
    _target: Path
    _progress: Callable[[int], None]
    _slots: anyio.Semaphore | None
    _renew: Renew | None
    _part: PartFile
    _limit: ProgressLimit = attrs.field(factory=ProgressLimit)
    _renewals: LinkRenewals = attrs.field(factory=LinkRenewals)
    _link_expired: bool = False

    async def run(self) -> ExportedFile:
        leave = self._part.keep
        try:
            with anyio.move_on_after(DEADLINE):
                await self._open_part()
                return await self._fetch()
            raise download_error(
                self._export,
                "broken",
                f"not whole within {DEADLINE / 3600:g} hours; the part stays for the next time",
            )
        except (LinkRefused, StorageUnavailable) as exc:
            raise as_download_error(self._export, exc) from None
        except FileDenied as exc:
            if exc.error.absent:
                leave = self._part.discard
            raise as_download_error(self._export, exc) from None
        except ExportExpiredError:
            leave = self._part.discard
            raise
        except OSError as exc:
            if not _out_of_descriptors(exc):
                leave = self._part.discard  # makes room for other files; such a disk isn't trusted
            reason: DownloadReason = "disk_full" if exc.errno in _DISK_FULL else "broken"
            what = f"{self._target}: {exc.strerror or exc}"
            raise download_error(self._export, reason, what) from exc
        finally:
            if not self._part.is_finished:
                await leave_part(leave)

    async def _open_part(self) -> None:
        """Open the part, once no other download has locked it.

        A download of another process, or of another client, to the same target is waited for,
        whichever export it is of. A part that no longer changes is begun anew.
        """
        pause, seen, since = FIRST_LOOK, None, anyio.current_time()
        while True:
            unchanged = anyio.current_time() - since >= UNCHANGED_FOR
            open_part = partial(self._part.open, self._export.export_id, ignore_lock=unchanged)
            try:
                return await anyio.to_thread.run_sync(open_part)
            except PartBusy:
                found = await anyio.to_thread.run_sync(_state_of, part_of(self._target))
            if seen is None:
                logger.info(
                    "file of export %s: another download is writing %s; waiting for it to end",
                    self._export.export_id,
                    self._target,
                )
            if found != seen:
                seen, since = found, anyio.current_time()
            await anyio.sleep(pause)
            pause = min(LAST_LOOK, 2 * pause)

    async def _fetch(self) -> ExportedFile:
        """Try until the file is in place, or five attempts in a row brought no more bytes.

        Attempts that an outage of storage ended don't count.
        """
        while True:
            try:
                placed = await self._attempt()
            except LinkExpired as exc:
                now = anyio.current_time()
                may_renew = self._renewals.may_renew(size_of(self._part.held), now)
                if self._renew is None or not may_renew:
                    raise as_download_error(self._export, exc) from None
                self._link_expired = True
            except (AttemptFailed, StorageBroken, ChecksumMismatch, PartModified) as exc:
                await self._pause(exc)
            else:
                version = self._part.version
                return ExportedFile(
                    location=str(self._target),
                    size=placed.size,
                    sha256=placed.sha256,
                    verified=version is not None and version.total is not None,
                    export=self._export,
                )

    async def _attempt(self) -> ExportedBytes:
        if self._link_expired and self._renew is not None:
            self._export = await with_fresh_link(self._export, self._renew)
            self._link_expired = False
        attempt = Attempt(
            storage=self._storage,
            link=link_of(self._export),
            part=self._part,
            refuse=partial(refuse, self._export),
            progress=self._progress,
            slots=self._slots,
        )
        await attempt.run()
        return await self._finish(attempt.rest)

    async def _finish(self, rest: Bytes) -> ExportedBytes:
        if not self._part.is_whole(rest):
            raise AttemptFailed("one of several connections broke, and bytes are missing")
        if self._part.held:
            # In steps: bytes of an earlier download, or that came out of order, aren't hashed yet.
            while not await anyio.to_thread.run_sync(self._part.hash_on):
                pass
        return await anyio.to_thread.run_sync(self._part.finish, rest)

    async def _pause(self, exc: Exception) -> None:
        """Wait before the next attempt; raise if there is none."""
        unusable = isinstance(exc, CannotResume | ChecksumMismatch | PartModified)
        wrong_ranges = self._limit.without_progress >= MOST_WRONG_RANGES
        unusable |= isinstance(exc, WrongRangeReceived) and wrong_ranges
        if self._part.held and (unusable or not self._part.resumable):
            await anyio.to_thread.run_sync(self._part.reset)
        kept = size_of(self._part.held)
        self._progress(kept)
        name = self._export.export_id
        if isinstance(exc, AttemptFailed | StorageBroken) and exc.away:
            logger.info("file of export %s: %s; waiting for storage", name, str(exc))
            return
        if not self._limit.on_break(kept):
            reason: DownloadReason = "broken"
            if isinstance(exc, LengthMismatch | ChecksumMismatch):
                reason = "length" if isinstance(exc, LengthMismatch) else "checksum"
            count = self._limit.without_progress
            what = f"{exc} ({count} attempts got no further)"
            raise download_error(self._export, reason, what)
        pause = full_jitter(self._limit.without_progress, random.random())
        if isinstance(exc, AttemptFailed) and exc.pause is not None:
            pause = min(exc.pause, LONGEST_PAUSE)
        logger.info("file of export %s: %s; again in %.1f s", name, str(exc), pause)
        await anyio.sleep(pause)


async def leave_part(leave: Callable[[], None]) -> None:
    """Keep or discard the part in a thread, and wait for at most `LEAVING` seconds."""
    try:
        with anyio.move_on_after(LEAVING, shield=True):
            await anyio.to_thread.run_sync(leave, abandon_on_cancel=True)
    except BaseException:
        # asyncio's own cancellation respects no shield, and may come before the thread has begun:
        # the part would stay locked as long as the process lives. Leaving it twice does no harm.
        threading.Thread(target=leave, name="segments-async-leave").start()
        raise


def _state_of(path: Path) -> tuple[int, ...]:
    """The properties of a file that change while a download writes it."""
    try:
        found = path.stat(follow_symlinks=False)
    except FileNotFoundError:
        return ()
    return found.st_ino, found.st_size, found.st_mtime_ns


def _out_of_descriptors(exc: BaseException | None) -> bool:
    """Whether the process or the system has no free file descriptor; the disk is not at fault."""
    return isinstance(exc, OSError) and exc.errno in (errno.EMFILE, errno.ENFILE)
