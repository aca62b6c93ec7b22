"""Fetch the file of a COMPLETE export to its target: attempts, the pauses between, and the end."""

from __future__ import annotations

import errno
import logging
import random
from collections.abc import Callable, Mapping
from functools import partial

import anyio
import attrs

from segments_async._files.digest import Bytes
from segments_async._files.download import Attempt
from segments_async._files.errors import (
    AttemptFailed,
    CannotResume,
    LengthMismatch,
    WrongRangeReceived,
)
from segments_async._files.locked_part import PartModified
from segments_async._files.part import ChecksumMismatch, ExportedBytes, is_whole
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
from segments_async._files.target import Part, Target
from segments_async._filesystem.threads import NoThread
from segments_async._http.storage import Storage
from segments_async._http.storage_body import StorageBroken
from segments_async._http.storage_gate import LONGEST_PAUSE, StorageUnavailable
from segments_async._sansio.files.destination_outage import DestinationOutage
from segments_async._sansio.files.links import LinkRefused
from segments_async._sansio.files.progress_limit import LinkRenewals, ProgressLimit
from segments_async._sansio.files.range_allocator import size_of
from segments_async._sansio.pace.backoff import full_jitter
from segments_async.errors import (
    DestinationError,
    DestinationReason,
    DownloadError,
    DownloadReason,
    ExportExpiredError,
)
from segments_async.models import Export
from segments_async.results import ExportedFile

logger: logging.Logger = logging.getLogger("segments_async")

#: Seconds for one file, in all. At 50 MB/s it is two terabytes.
DEADLINE = 12 * 3600.0

#: After this many ranges in a row that weren't asked for, the file is fetched from its beginning: a
#: server that can't serve ranges has the whole file all the same.
MOST_WRONG_RANGES = 2

#: Attempts at a file while no file descriptor, or no thread, is free: for some two minutes.
SHORT_ATTEMPTS = 8

_DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


async def fetch_file(
    storage: Storage,
    export: Export,
    target: Target,
    *,
    progress: Callable[[int], None],
    slots: anyio.Semaphore,
    renew: Renew,
    on_break: Callable[[str], None] = lambda _: None,
) -> ExportedFile:
    """Fetch the export's file to `target`, replacing the file that is there.

    The download continues where an earlier one of the export to this target broke off, in this
    process or another. Until the file is whole it is a `.part` beside the target, with a
    `.part.json` that describes the part. If the file can't be fetched now, both stay for the next
    time, unless they can't be continued or the disk failed.

    Args:
        export: COMPLETE, with a link.
        target: the file's place. A destination keeps no part: the next download to it starts from
            the beginning.
        progress: called with the number of the file's bytes that are there so far; fewer than
            before if the download starts over.
        slots: limits the connections to storage; the caller holds one slot. A large file takes
            more of them while no task waits for one.
        renew: asks the vendor for the export again, with a fresh link, as often as the link
            expires while bytes arrive.
        on_break: called with the reason when an attempt fails, and another one follows.

    Raises:
        DownloadError: with its reason.
        ExportExpiredError: the file is gone, and older than 48 hours.
    """
    attempt = 0
    while True:
        part = target.part()
        fetch = _Fetch(storage, export, target.location, progress, slots, renew, part, on_break)
        try:
            return await fetch.run()
        except DownloadError as exc:
            if attempt == SHORT_ATTEMPTS or not _is_short(exc.__cause__):
                raise
            # Other tasks of this process use all descriptors, or threads, and will free some.
            logger.info("%s; trying again in a moment", str(exc))
        await anyio.sleep(full_jitter(attempt, random.random()))
        attempt += 1


@attrs.define(eq=False, repr=False)
class _Fetch:
    """The download of one file, over several attempts."""

    _storage: Storage
    _export: Export
    _location: str
    _progress: Callable[[int], None]
    _slots: anyio.Semaphore
    _renew: Renew
    _part: Part
    _on_break: Callable[[str], None]
    _limit: ProgressLimit = attrs.field(factory=ProgressLimit)
    _renewals: LinkRenewals = attrs.field(factory=LinkRenewals)
    _outage: DestinationOutage = attrs.field(factory=DestinationOutage)
    _link_expired: bool = False
    #: Whether storage has answered a range with another version. Where its servers disagree about
    #: the version, each further connection would be answered so, and one alone brings the file.
    _disagrees: bool = False

    async def run(self) -> ExportedFile:
        discard = False
        try:
            with anyio.move_on_after(DEADLINE):
                await self._part.open(self._export.export_id)
                return await self._fetch()
            raise download_error(
                self._export,
                "broken",
                f"not whole within {DEADLINE / 3600:g} hours; the part stays for the next time",
            )
        except (LinkRefused, StorageUnavailable) as exc:
            raise as_download_error(self._export, exc) from None
        except FileDenied as exc:
            discard = exc.error.absent
            raise as_download_error(self._export, exc) from None
        except ExportExpiredError:
            discard = True
            raise
        except DestinationError as exc:
            raise download_error(
                self._export, _REASONS.get(exc.reason, "broken"), str(exc)
            ) from exc
        except OSError as exc:
            # The part goes: other files may need its room, and a disk that failed isn't trusted.
            discard = not _is_short(exc)
            reason: DownloadReason = "disk_full" if exc.errno in _DISK_FULL else "broken"
            what = f"{exc.filename or self._location}: {exc.strerror or exc}"
            raise download_error(self._export, reason, what) from exc
        finally:
            await self._part.leave(discard=discard)

    async def _fetch(self) -> ExportedFile:
        """Try until the file is in place, or five attempts in a row brought no more bytes.

        Attempts that an outage of storage ended don't count.
        """
        while True:
            try:
                placed = await self._attempt()
            except LinkExpired as exc:
                now = anyio.current_time()
                if not self._renewals.may_renew(size_of(self._part.held), now):
                    raise as_download_error(self._export, exc) from None
                self._link_expired = True
            except (AttemptFailed, StorageBroken, ChecksumMismatch, PartModified) as exc:
                await self._pause(exc)
            except DestinationError as exc:
                await self._wait_for_destination(exc)
            else:
                version = self._part.version
                return ExportedFile(
                    location=self._location,
                    size=placed.size,
                    sha256=placed.sha256,
                    verified=version is not None and version.total is not None,
                    export=self._export,
                )

    async def _attempt(self) -> ExportedBytes:
        if self._link_expired:
            self._export = await with_fresh_link(self._export, self._renew)
            self._link_expired = False
        attempt = Attempt(
            storage=self._storage,
            link=link_of(self._export),
            part=self._part,
            refuse=partial(refuse, self._export),
            progress=self._progress,
            slots=self._slots,
            alone=self._disagrees,
        )
        await attempt.run()
        return await self._finish(attempt.rest)

    async def _finish(self, rest: Bytes) -> ExportedBytes:
        if not is_whole(self._part.version, self._part.held, rest):
            raise AttemptFailed("one of several connections broke, and bytes are missing")
        return await self._part.finish(rest)

    async def _wait_for_destination(self, exc: DestinationError) -> None:
        """Wait before the file is begun again, while the destination is away; raise otherwise."""
        self._on_break(str(exc))
        now = anyio.current_time()
        pause = self._outage.pause(exc.reason, now, random.random())
        if pause is None:
            raise exc
        await self._part.reset()
        self._progress(0)
        logger.warning(
            "file of export %s: %s; it is begun again in %.1f s",
            self._export.export_id,
            str(exc),
            pause,
        )
        await anyio.sleep(pause)

    async def _pause(self, exc: Exception) -> None:
        """Wait before the next attempt; raise if there is none."""
        self._on_break(str(exc))
        self._disagrees |= isinstance(exc, CannotResume)
        unusable = isinstance(exc, CannotResume | ChecksumMismatch | PartModified)
        wrong_ranges = self._limit.without_progress >= MOST_WRONG_RANGES
        unusable |= isinstance(exc, WrongRangeReceived) and wrong_ranges
        if self._part.held and (unusable or not self._part.resumable):
            await self._part.reset()
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


#: The reasons of a destination that have a name among those of a download.
_REASONS: Mapping[DestinationReason, DownloadReason] = {"full": "disk_full"}


def _is_short(exc: BaseException | None) -> bool:
    """Whether the process has no free file descriptor, or no thread; the disk is not at fault."""
    no_descriptor = isinstance(exc, OSError) and exc.errno in (errno.EMFILE, errno.ENFILE)
    return no_descriptor or isinstance(exc, NoThread)
