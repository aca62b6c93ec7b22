"""A gzip-encoded body, decoded into its part: in one piece, or not at all.

A broken one can't be continued: where in the file an encoded byte belongs, only those before tell.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import anyio
import anyio.to_thread

from segments_async._files.gzip_stream import STEP, GzipDecoder
from segments_async._files.part import SLICE, ChecksumMismatch, PartFile, md5
from segments_async._sansio.files.progress_limit import SpeedMeter
from segments_async._sansio.files.ranges import ObjectVersion


class EncodedBody:
    """One body.

    Args:
        part: where the decoded bytes go.
        stored: as storage described it; its length and MD5 are of the encoded bytes.
        speed: told of each chunk.
        scope: its deadline is kept at the speed's.
    """

    def __init__(
        self, part: PartFile, version: ObjectVersion, speed: SpeedMeter, scope: anyio.CancelScope
    ) -> None:
        self._part = part
        self._stored = version
        self._speed = speed
        self._scope = scope
        self._decoder = GzipDecoder()
        self._md5 = md5() if version.md5 is not None else None
        self._size = 0

    async def receive(
        self, chunks: AsyncIterator[bytes], batch_size: int, progress: Callable[[int], None]
    ) -> bool:
        """Write it. Returns whether it was as long as announced.

        Raises:
            NotGzip: it is cut off, or something else.
            ChecksumMismatch: it isn't what storage has.
        """
        batch: list[bytes] = []
        came = handed = 0
        async for chunk in chunks:
            came += len(chunk)
            self._speed.on_bytes(len(chunk), anyio.current_time())
            self._scope.deadline = self._speed.deadline
            batch.append(chunk)
            if came - handed >= batch_size:
                await self._decode(batch)
                batch, handed = [], came
                progress(self._size)
        if self._stored.total not in (None, came):
            return False
        await self._decode(batch)
        self._decoder.end()
        progress(self._size)
        if self._md5 is not None and self._md5.hexdigest() != self._stored.md5:
            raise ChecksumMismatch("the bytes that came aren't those that storage has")
        return True

    async def _decode(self, batch: list[bytes]) -> None:
        await anyio.to_thread.run_sync(self._feed, batch)
        while await anyio.to_thread.run_sync(self._write_some):
            pass

    def _feed(self, batch: list[bytes]) -> None:
        data = b"".join(batch)
        if self._md5 is not None:
            self._md5.update(data)
        self._decoder.feed(data)

    def _write_some(self) -> bool:
        """Little enough that a cancellation needn't wait for it. Returns whether there is more."""
        for _ in range(SLICE // STEP):
            piece = self._decoder.read()
            if not piece:
                return False
            self._part.write(self._size, piece)
            self._size += len(piece)
        if self._part.wants_sync:
            self._part.sync()
        return True
