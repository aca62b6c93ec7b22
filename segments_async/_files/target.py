"""The target of one download, and the part that becomes its file: on a disk, or in a destination.

A download uses these methods alone. So attempts, checks and timeouts are the same for both places.
`LocalTarget` is the one on a disk; `upload.py` has the one in a destination.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Protocol

import anyio

from segments_async._files.digest import Bytes
from segments_async._files.gzip_stream import GzipDecoder
from segments_async._files.locked_part import PartBusy
from segments_async._files.part import ExportedBytes, PartFile, part_of
from segments_async._filesystem.threads import in_thread
from segments_async._sansio.files.progress_limit import MIN_BYTES_WINDOW
from segments_async._sansio.files.range_allocator import Ranges
from segments_async._sansio.files.ranges import ObjectVersion

logger: logging.Logger = logging.getLogger("segments_async")

#: Seconds to wait for the part to be kept or discarded after a cancellation. On a slow disk the
#: thread that does so takes longer, and goes on by itself.
LEAVING = 0.5

#: Seconds between two looks at a part that another download has locked: at first, and at last.
FIRST_LOOK, LAST_LOOK = 0.1, 5.0

#: Seconds without a change after which a part that another holder has locked is begun anew. The
#: holder may wait for storage, be stopped, or be no download at all.
UNCHANGED_FOR = 2 * MIN_BYTES_WINDOW


class Part(Protocol):
    """A file that appears under its name only when it is whole."""

    @property
    def version(self) -> ObjectVersion | None:
        """The version of the stored object; None until an answer of storage tells it."""
        ...

    @version.setter
    def version(self, version: ObjectVersion | None) -> None: ...
    @property
    def held(self) -> Ranges:
        """The ranges of the file's bytes that are in the part."""
        ...

    @property
    def sequential(self) -> bool:
        """Whether bytes are taken in their order only, so that one connection brings them."""
        ...

    @property
    def resumable(self) -> bool:
        """Whether the bytes that are there can be continued."""
        ...

    @property
    def wants_sync(self) -> bool:
        """Whether enough was written since the last `sync` for the next one."""
        ...

    async def open(self, export_id: str) -> None:
        """Make the part ready for the export's bytes. Raises OSError."""
        ...

    async def reset(self) -> None:
        """Start with an empty part."""
        ...

    async def write(self, offset: int, data: Bytes) -> None:
        """Write and hash bytes. `data` may be read until the next call has returned."""
        ...

    async def write_decoded(self, decoder: GzipDecoder, offset: int) -> int:
        """Write some of the decoder's output. Returns the new offset; the same one at its end."""
        ...

    async def sync(self) -> None:
        """Bring the bytes written so far to the disk."""
        ...

    async def finish(self, rest: Bytes) -> ExportedBytes:
        """Check the bytes, and put the file in place. `rest`: all bytes of a small file."""
        ...

    def interrupt(self) -> None:
        """End a write that is under way, since the download is cancelled. May be called twice."""
        ...

    async def leave(self, *, discard: bool) -> None:
        """Leave an unfinished part for a later download, if it can be continued. Bounded in time.

        Does nothing once the file is in place.
        """
        ...


class Target(Protocol):
    """The place of one file."""

    @property
    def location(self) -> str:
        """Its absolute path, or its URL."""
        ...

    def part(self) -> Part:
        """A part for the next download."""
        ...


class LocalTarget:
    """A path on this machine."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def location(self) -> str:
        return str(self._path)

    def part(self) -> LocalPart:
        return LocalPart(self._path)


class LocalPart:
    """A `PartFile`, whose methods are called in worker threads."""

    sequential: bool = False

    def __init__(self, target: Path) -> None:
        self._target = target
        self._file = PartFile(target)

    @property
    def version(self) -> ObjectVersion | None:
        return self._file.version

    @version.setter
    def version(self, version: ObjectVersion | None) -> None:
        self._file.version = version

    @property
    def held(self) -> Ranges:
        return self._file.held

    @property
    def resumable(self) -> bool:
        return self._file.resumable

    @property
    def wants_sync(self) -> bool:
        return self._file.wants_sync

    async def open(self, export_id: str) -> None:
        """Open the part, once no other download has locked it.

        A download of another process, or of another client, to the same target is waited for,
        whichever export it is of. A part that no longer changes is begun anew.
        """
        pause, seen, since = FIRST_LOOK, None, anyio.current_time()
        while True:
            unchanged = anyio.current_time() - since >= UNCHANGED_FOR
            open_part = partial(self._file.open, export_id, ignore_lock=unchanged)
            try:
                return await in_thread(open_part)
            except PartBusy:
                found = await in_thread(_state_of, part_of(self._target))
            if seen is None:
                logger.info(
                    "file of export %s: another download is writing %s; waiting for it to end",
                    export_id,
                    self._target,
                )
            if found != seen:
                seen, since = found, anyio.current_time()
            await anyio.sleep(pause)
            pause = min(LAST_LOOK, 2 * pause)

    async def reset(self) -> None:
        await in_thread(self._file.reset)

    async def write(self, offset: int, data: Bytes) -> None:
        await in_thread(self._file.write, offset, data)

    async def write_decoded(self, decoder: GzipDecoder, offset: int) -> int:
        return await in_thread(decoder.write_some, self._file, offset)

    async def sync(self) -> None:
        await in_thread(self._file.sync, abandon_on_cancel=True)

    async def finish(self, rest: Bytes) -> ExportedBytes:
        if self._file.held:
            # In steps: bytes of an earlier download, or that came out of order, aren't hashed yet.
            while not await in_thread(self._file.hash_on):
                pass
        return await in_thread(self._file.finish, rest)

    def interrupt(self) -> None:
        """A write to the disk is short: it is waited for."""

    async def leave(self, *, discard: bool) -> None:
        if not self._file.is_finished:
            await leave_part(self._file.discard if discard else self._file.keep)


async def leave_part(leave: Callable[[], None]) -> None:
    """Keep or discard the part in a thread, and wait for at most `LEAVING` seconds."""
    begun = threading.Event()

    def work() -> None:
        begun.set()
        leave()

    try:
        with anyio.move_on_after(LEAVING, shield=True):
            await in_thread(work, abandon_on_cancel=True)
    finally:
        # No thread could be started; or asyncio's own cancellation, which respects no shield, came
        # before: the part would stay locked as long as the process lives. Leaving it twice does no
        # harm.
        if not begun.is_set():
            _leave_without_waiting(leave)


def _leave_without_waiting(leave: Callable[[], None]) -> None:
    try:
        threading.Thread(target=leave, name="segments-async-leave").start()
    except RuntimeError:
        leave()


def _state_of(path: Path) -> tuple[int, ...]:
    """The properties of a file that change while a download writes it."""
    try:
        found = path.stat(follow_symlinks=False)
    except FileNotFoundError:
        return ()
    return found.st_ino, found.st_size, found.st_mtime_ns
