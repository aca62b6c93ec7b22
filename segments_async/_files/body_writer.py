"""One body, written to the part in batches while more of it arrives."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio

from segments_async._files.errors import LengthMismatch
from segments_async._files.min_speed import MinSpeed
from segments_async._http.storage import StorageAnswer
from segments_async._sansio.files.progress_limit import MIN_BYTES
from segments_async._sansio.files.ranges import NO_END

if TYPE_CHECKING:
    from segments_async._files.download import Attempt

#: Bytes of the first batch. It is small: after it, more connections are opened if they are useful.
FIRST_BATCH = 2 * 1024 * 1024

#: Seconds after which a batch is written however small it is: a kill -9 costs the unwritten bytes.
BATCH_SECONDS = 0.25

#: The offset of a batch in the file, its memory, and how many bytes of the memory are filled.
_Batch = tuple[int, bytearray, int]


class BodyWriter:
    """Receives one body.

    Args:
        attempt: the one that made the request.
        start: offset in the file at which the body begins.
        stop: end of the bytes that are reserved for this connection.
        end: end of the body; NO_END if it is unknown.
        speed: of the connection.
        first: whether this is the attempt's first connection.
    """

    def __init__(
        self, attempt: Attempt, start: int, stop: int, end: int, speed: MinSpeed, *, first: bool
    ) -> None:
        self._attempt = attempt
        self._at = start
        self._stop = stop
        self._end = end
        self._speed = speed
        self._first = first
        self._offset = start
        # One byte more than a small file has: then its end is seen before the batch is full.
        self._batch = bytearray(min(FIRST_BATCH, attempt.batch_size, end - start + 1))
        self._filled = 0
        self._spare: bytearray | None = None
        self._began = anyio.current_time()
        self._batches, self._to_write = anyio.create_memory_object_stream[_Batch](0)
        self._written = anyio.Event()

    async def receive(self, answer: StorageAnswer) -> None:
        """Read the body to its end, or to the bytes that another connection has reserved.

        Raises:
            LengthMismatch: the body is shorter or longer than announced.
        """
        self._attempt.start_soon(self._write_batches)
        try:
            await self._read(answer)
            if self._at == self._stop < self._end:
                return
            if self._end not in (NO_END, self._at):
                raise LengthMismatch(f"the body ended at {self._at} of {self._end} bytes")
            if self._offset == 0 and self._attempt.is_last(self._end):
                self._attempt.rest = memoryview(self._batch)[: self._filled]
                self._filled = 0
        except anyio.get_cancelled_exc_class():
            # A connection that alone is given up interrupts nothing: another one brings the rest.
            if not self._speed.scope.cancel_called:
                self._attempt.part.interrupt()
            raise
        finally:
            # The bytes that arrived are written, under cancellation too.
            with anyio.CancelScope(shield=True):
                try:
                    if self._filled:
                        await self._hand_over()
                finally:
                    # asyncio's own cancellation respects no shield; an open stream would leave the
                    # writing task waiting for ever.
                    self._batches.close()
                await self._written.wait()

    async def _read(self, answer: StorageAnswer) -> None:
        unmetered = 0
        while size := await answer.read_into(memoryview(self._batch)[self._filled :]):
            unmetered += size
            due = False
            if unmetered >= MIN_BYTES:  # a window needs this many: fewer change nothing
                self._speed.on_bytes(unmetered)
                unmetered = 0
                due = anyio.current_time() - self._began >= BATCH_SECONDS
            self._take(size)
            if due or self._filled == len(self._batch):
                await self._hand_over()
                if self._first:
                    self._attempt.open_more(self._speed)
            if self._at == self._stop < self._end:
                return

    def _take(self, size: int) -> None:
        """Count the bytes that arrived, and reserve more of the file as they are used up."""
        self._at += size
        while self._at >= self._stop < self._end:
            longer = self._attempt.extend(self._stop)
            if longer == self._stop:
                break
            self._stop = longer
        if self._at > self._stop:
            if self._stop == self._end:
                raise LengthMismatch(f"the body has more than the announced {self._end} bytes")
            size -= self._at - self._stop
            self._at = self._stop
        self._filled += size
        self._attempt.on_bytes(size)

    async def _hand_over(self) -> None:
        """Give the batch to the writing task, and start the next one in other memory."""
        with self._speed.not_counting():
            await self._batches.send((self._offset, self._batch, self._filled))
        self._offset, self._filled, self._began = self._at, 0, anyio.current_time()
        # Memory that was allocated before is faster than new memory.
        spare, self._spare = self._spare, None
        size = self._attempt.batch_size
        self._batch = spare if spare is not None and len(spare) == size else bytearray(size)

    async def _write_batches(self) -> None:
        try:
            with anyio.CancelScope(shield=True), self._to_write:
                hashed = None
                async for offset, batch, filled in self._to_write:
                    await self._attempt.write(offset, memoryview(batch)[:filled])
                    # Another thread may still hash this batch; the one before is free.
                    self._spare, hashed = hashed, batch
        finally:
            self._written.set()
