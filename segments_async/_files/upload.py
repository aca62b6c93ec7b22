"""One file on its way into a destination: hashed, handed over in order, and visible once whole.

No byte of it touches this machine's disk. So a download that ends before the file is whole begins
again from its first byte; only a broken connection to storage is resumed, within the process.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import anyio
import attrs

from segments_async._files.destination import Destination, DestinationWriter
from segments_async._files.digest import Bytes, PrefixDigest
from segments_async._files.errors import AttemptFailed
from segments_async._files.gzip_stream import GzipDecoder
from segments_async._files.part import ExportedBytes, check_bytes
from segments_async._filesystem.threads import in_thread
from segments_async._sansio.files.range_allocator import Ranges, with_range
from segments_async._sansio.files.ranges import ObjectVersion
from segments_async.errors import DestinationError

logger: logging.Logger = logging.getLogger("segments_async")

#: Seconds that a cancelled download waits for the destination to remove what it wrote.
ABORTING = 10.0

#: Keys of a file's metadata. Azure refuses keys with dashes.
EXPORT_ID, SHA256, VERIFIED = "exportid", "sha256", "verified"


@attrs.frozen(kw_only=True)
class UploadTarget:
    """A file's place in a destination.

    Attributes:
        location: the file's URL.
        replace: whether a file of that name may be replaced.
        on_away: called with True where the destination fails, and with False where it works.
    """

    destination: Destination
    name: str
    location: str
    replace: bool
    on_away: Callable[[bool], None] = lambda _: None

    def part(self) -> UploadPart:
        return UploadPart(self)


class UploadPart:
    """A file that its destination hasn't got whole yet."""

    sequential: bool = True
    wants_sync: bool = False

    def __init__(self, target: UploadTarget) -> None:
        self._target = target
        self._export_id = ""
        self._digest = PrefixDigest()
        self._writer: DestinationWriter | None = None
        self._writing: anyio.CancelScope | None = None
        self._torn = False
        self._interrupted = False
        self._finished = False
        self.version: ObjectVersion | None = None
        self.held: Ranges = ()

    @property
    def resumable(self) -> bool:
        taken = bool(self.held) and not self._torn
        return taken and self.version is not None and self.version.resumable

    async def open(self, export_id: str) -> None:
        self._export_id = export_id

    async def reset(self) -> None:
        await self._abort()
        self._digest.close()
        self._digest = PrefixDigest()
        self.held = ()
        self._torn = self._interrupted = False

    async def write(self, offset: int, data: Bytes) -> None:
        """Hash the bytes, and hand them over.

        Raises:
            DestinationError: the destination can't take them.
            AttemptFailed: the download was cancelled meanwhile.
        """
        taken = self._digest.size
        if offset > taken or self._torn:
            raise AttemptFailed("the file's bytes came out of order")
        fresh = memoryview(data)[taken - offset :]  # storage may send the whole file once more
        if not fresh:
            return
        self._torn = True  # until all of them are hashed, and handed over
        copy = await in_thread(self._hash, fresh)
        with anyio.CancelScope() as self._writing:
            if self._interrupted:  # while no byte was on its way to the destination
                self._writing.cancel()
            await self._hand_over(copy)
        if self._writing.cancelled_caught:
            raise AttemptFailed("the download was cancelled")
        self._torn = False
        self.held = with_range(self.held, 0, self._digest.size)

    def _hash(self, data: memoryview) -> bytes:
        # The caller fills its memory with other bytes while the destination still reads these.
        copy = bytes(data)
        self._digest.add_in_parallel(copy, with_md5=self._wants_md5)
        return copy

    @property
    def _wants_md5(self) -> bool:
        return self.version is not None and self.version.md5 is not None

    async def _hand_over(self, data: bytes) -> None:
        try:
            writer = await self._opened()
            await writer.write(data)
        except DestinationError as exc:
            self._target.on_away(exc.reason == "away")
            raise
        self._target.on_away(False)

    async def _opened(self) -> DestinationWriter:
        if self._writer is None:
            version = self.version
            size = None if version is None or version.gzip else version.total
            self._writer = await self._target.destination.open(
                self._target.name,
                size=size,
                metadata={EXPORT_ID: self._export_id},
                replace=self._target.replace,
            )
        return self._writer

    async def write_decoded(self, decoder: GzipDecoder, offset: int) -> int:
        piece = await in_thread(decoder.read)
        await self.write(offset, piece)
        return offset + len(piece)

    async def sync(self) -> None:
        """Nothing is on a disk of this machine."""

    async def finish(self, rest: Bytes) -> ExportedBytes:
        """Check the bytes, and make the file visible.

        Raises:
            ChecksumMismatch: they aren't those that storage has. Nothing becomes visible.
            DestinationError: the destination can't take them.
        """
        if rest:
            await self.write(0, rest)
        await in_thread(check_bytes, self.version, self._digest)
        placed = ExportedBytes(self._digest.size, self._digest.sha256())
        verified = self.version is not None and self.version.total is not None
        try:
            writer = await self._opened()
            await writer.commit({SHA256: placed.sha256, VERIFIED: str(verified).lower()})
        except DestinationError as exc:
            self._target.on_away(exc.reason == "away")
            raise
        self._target.on_away(False)
        self._finished = True
        self._digest.close()
        return placed

    def interrupt(self) -> None:
        self._interrupted = True
        if self._writing is not None:
            self._writing.cancel()

    async def leave(self, *, discard: bool) -> None:  # noqa: ARG002 - nothing is kept here
        if not self._finished:
            self._finished = True
            self._digest.close()
            await self._abort()

    async def _abort(self) -> None:
        """Let the destination remove what it has. What it can't remove is logged."""
        writer, self._writer = self._writer, None
        if writer is None:
            return
        with anyio.move_on_after(ABORTING, shield=True) as scope:
            try:
                await writer.abort()
            except Exception as exc:  # noqa: BLE001 - a user's own; the download goes on
                logger.warning("%s: can't remove an unfinished file: %s", self._location, exc)
        if scope.cancelled_caught:
            logger.warning(
                "%s: an unfinished file was not removed within %g s", self._location, ABORTING
            )

    @property
    def _location(self) -> str:
        return self._target.location
