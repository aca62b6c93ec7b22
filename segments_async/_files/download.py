"""One attempt to download the missing bytes of a file, over one connection or several.

Each body is gathered in batches, which worker threads write and hash while the next batch arrives
(docs/decisions.md: Files).
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, NoReturn

import anyio
import attrs
from anyio.abc import TaskGroup

from segments_async._files.body_writer import BodyWriter
from segments_async._files.digest import Bytes
from segments_async._files.errors import (
    AttemptFailed,
    CannotResume,
    LengthMismatch,
    WrongRangeReceived,
)
from segments_async._files.gzip_stream import GzipDecoder
from segments_async._files.min_speed import MinSpeed
from segments_async._files.target import Part
from segments_async._filesystem.threads import in_thread
from segments_async._http.storage import NO_HEADERS, Storage, StorageAnswer
from segments_async._http.storage_body import StorageBroken
from segments_async._sansio.files.progress_limit import TOO_SLOW
from segments_async._sansio.files.range_allocator import RangeAllocator, size_of
from segments_async._sansio.files.ranges import (
    NO_END,
    ObjectVersion,
    PartialContent,
    Range,
    Refused,
    Restart,
    WrongRange,
    read_answer,
)

logger: logging.Logger = logging.getLogger("segments_async")

#: Bytes of a batch. Smaller batches cost more hand-overs to threads, of some 0.3 ms each; larger
#: ones no longer fit the processor's cache.
BATCH = 4 * 1024 * 1024

#: Bytes of a batch for a part that takes its bytes in order: it copies each, for its destination.
SEQUENTIAL_BATCH = 1024 * 1024

#: Batches of a connection: one is received, one is written, one is hashed. With a fourth, waiting
#: between them, a GiB takes 0.80 s instead of 0.72 s: it no longer fits the processor's cache.
BATCHES = 3

#: Bytes of the batches of all connections together.
ALL_BATCHES = 24 * 1024 * 1024

#: Bytes that a connection reserves at a time, and of a file that several connections share.
CHUNK = 16 * 1024 * 1024
PARALLEL_FROM = 64 * 1024 * 1024


@attrs.define(eq=False, repr=False, kw_only=True)
class Attempt:
    """One attempt. However it ends, the bytes that arrived are in the part.

    Args:
        part: open.
        refuse: raises the error that a refusal by storage means.
        progress: called with the number of the file's bytes that have arrived so far.
        slots: limits the connections to storage; the caller holds one slot.
        alone: no more than one connection, although slots are free.

    Attributes:
        rest: all bytes of a file smaller than a batch: they are written when the file is finished,
            in the same hand-over to a thread.
    """

    storage: Storage
    link: str
    part: Part
    refuse: Callable[[StorageAnswer], Awaitable[NoReturn]]
    progress: Callable[[int], None]
    slots: anyio.Semaphore
    alone: bool = False
    _received: int = attrs.field(default=0, init=False)
    _allocator: RangeAllocator = attrs.field(init=False)
    _syncing: bool = attrs.field(default=False, init=False)
    _extra_connections: int = attrs.field(default=0, init=False)
    _extra_broke: bool = attrs.field(default=False, init=False)
    _failure: Exception | None = attrs.field(default=None, init=False)
    _tasks: TaskGroup | None = attrs.field(default=None, init=False)
    rest: Bytes = attrs.field(default=b"", init=False)

    async def run(self) -> None:
        """Fetch the missing bytes.

        Raises:
            AttemptFailed, StorageBroken: some are still missing.
            OSError: they can't be written.
        """
        self._received = size_of(self.part.held)
        ended = anyio.Event()
        async with anyio.create_task_group() as self._tasks:
            if self.part.sequential:
                self._tasks.start_soon(self._interrupt_on_cancel, ended)
            try:
                if self.part.resumable and self.part.version is not None:
                    total = self.part.version.total or 0
                    self._allocator = RangeAllocator(self.part.held, total)
                else:
                    await self._request(None, 0, first=True)
                while (reserved := self._reserve()) is not None:
                    await self._request(*reserved, first=True)
            except Exception as exc:  # noqa: BLE001 - raised below, as itself
                # Raised inside the task group it would be wrapped in an ExceptionGroup.
                self._fail(exc)
            finally:
                ended.set()
        if self._failure is not None:
            raise self._failure

    async def _interrupt_on_cancel(self, ended: anyio.Event) -> None:
        """Interrupt a write that the body's own task is shielded for: a destination may hang."""
        try:
            await ended.wait()
        except anyio.get_cancelled_exc_class():
            self.part.interrupt()
            raise

    def _fail(self, exc: Exception) -> None:
        self._failure = self._failure or exc
        self._group.cancel_scope.cancel()

    @property
    def _group(self) -> TaskGroup:
        if self._tasks is None:
            raise AssertionError("an attempt that doesn't run")
        return self._tasks

    def _reserve(self) -> tuple[Range, int] | None:
        """The range to ask for next, and the end of its reserved bytes; None: nothing is missing.

        A single connection asks for all that follows, and reserves more of it as bytes arrive.
        """
        version = self.part.version
        reserved = self._allocator.take(CHUNK)
        if version is None or reserved is None:
            return None
        start, stop = reserved
        end = stop if self._extra_connections else self._allocator.room(stop)
        return Range(version, start, end), stop

    async def _request(self, asked: Range | None, stop: int, *, first: bool) -> None:
        """Make one request, and receive its body while the connection is fast enough."""
        await self.storage.turn()
        speed = MinSpeed()
        with speed.scope:
            headers = NO_HEADERS if asked is None else asked.headers()
            async with self.storage.get(self.link, headers) as answer:
                meaning = read_answer(answer.status, answer.headers, asked)
                match meaning:
                    case PartialContent() if asked is not None:
                        body = BodyWriter(self, asked.start, stop, asked.stop, speed, first=first)
                        await body.receive(answer)
                    case ObjectVersion() if first and not self._extra_connections:
                        await self._receive_all(answer, meaning, speed)
                    case Restart():
                        raise CannotResume(meaning.why)
                    case WrongRange():
                        raise WrongRangeReceived(meaning.why)
                    case Refused() if first:
                        await self.refuse(answer)
                    case _:
                        raise AttemptFailed(f"storage answered a range with {answer.status}")
        if speed.scope.cancelled_caught:
            raise AttemptFailed(TOO_SLOW)

    async def _receive_all(
        self, answer: StorageAnswer, version: ObjectVersion, speed: MinSpeed
    ) -> None:
        """A body that is the whole file, although a range may have been asked for."""
        before = self.part.version
        if self.part.held and not (before is not None and version.is_same(before)):
            await self.part.reset()
        self.part.version = version
        self._received = 0
        if version.gzip:
            await self._receive_gzip(answer, version, speed)
            self._allocator = RangeAllocator((), 0)
            return
        end = NO_END if version.total is None else version.total
        self._allocator = RangeAllocator((), end)
        _, stop = self._allocator.take(CHUNK) or (0, 0)
        await BodyWriter(self, 0, stop, end, speed, first=True).receive(answer)
        if version.total is None:
            self._allocator = RangeAllocator((), 0)

    async def _receive_gzip(
        self, answer: StorageAnswer, version: ObjectVersion, speed: MinSpeed
    ) -> None:
        """Decode the body into the part. If it breaks it can't be resumed.

        The place of a decoded byte in the file depends on all encoded bytes before.
        """
        decoder = GzipDecoder(version.md5)
        offset, arrived, batch = 0, 0, bytearray()

        async def write() -> None:
            nonlocal offset
            with speed.not_counting():
                await in_thread(decoder.feed, bytes(batch))
                written = -1
                while written != offset:
                    written = offset
                    offset = await self.part.write_decoded(decoder, offset)
            self.progress(offset)

        async for chunk in answer.chunks:
            arrived += len(chunk)
            speed.on_bytes(len(chunk))
            batch += chunk
            if len(batch) >= self.batch_size:
                await write()
                batch = bytearray()
        if version.total not in (None, arrived):
            raise LengthMismatch("the encoded body was not as long as announced")
        await write()
        decoder.end()

    # ----------------------------------------------------------------- for the bodies

    @property
    def batch_size(self) -> int:
        """Bytes of a batch, depending on how many connections share the memory now."""
        taken = (self.slots.max_value or 0) - self.slots.value
        largest = SEQUENTIAL_BATCH if self.part.sequential else BATCH
        return min(largest, ALL_BATCHES // BATCHES // max(1 + self._extra_connections, taken))

    def is_last(self, end: int) -> bool:
        """Whether the file ends here."""
        version = self.part.version
        return version is not None and end in (NO_END, version.total)

    def extend(self, stop: int) -> int:
        """Reserve the bytes after `stop`. Returns the end of the reserved bytes."""
        return self._allocator.extend(stop, CHUNK)

    def on_bytes(self, count: int) -> None:
        self._received += count
        self.progress(self._received)

    async def write(self, offset: int, batch: Bytes) -> None:
        """Write and hash a batch. An error ends the attempt."""
        try:
            await self.part.write(offset, batch)
        except Exception as exc:  # noqa: BLE001 - raised by run(), as itself
            self._fail(exc)
            return
        if self.part.wants_sync and not self._syncing:
            self._syncing = True
            self._group.start_soon(self._sync)

    async def _sync(self) -> None:
        """Bring the written bytes to the disk while more arrive."""
        try:
            await self.part.sync()
        except Exception as exc:  # noqa: BLE001 - raised by run(), as itself
            self._fail(exc)
        finally:
            self._syncing = False

    def start_soon(self, do: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._group.start_soon(do)

    # ----------------------------------------------------------------- more connections

    def open_more(self, speed: MinSpeed) -> None:
        """Open as many more connections as are useful, and have a free slot."""
        version = self.part.version
        total = version.total or 0 if version is not None and version.divisible else 0
        if self.alone or self._extra_broke or total <= PARALLEL_FROM:
            return
        if self.part.sequential or not speed.worth_another:
            return
        while self.slots.value:
            self._extra_connections += 1
            reserved = self._reserve()
            if reserved is None:
                self._extra_connections -= 1
                return
            self.slots.acquire_nowait()
            self._group.start_soon(self._run_extra, reserved)

    async def _run_extra(self, reserved: tuple[Range, int] | None) -> None:
        """Another connection: it fetches chunk by chunk, while no other task waits for its slot."""
        try:
            while reserved is not None:
                await self._request(*reserved, first=False)
                # Another file's first connection comes before the extra ones of this file.
                waits = self.slots.statistics().tasks_waiting
                reserved = None if waits else self._reserve()
        except CannotResume as exc:
            self._fail(exc)
        except (AttemptFailed, StorageBroken) as exc:
            # The next attempt fetches the bytes that are missing; a new connection right now would
            # press a storage that refuses.
            self._extra_broke = True
            logger.info("one of several connections to a file failed: %s", str(exc))
        except Exception as exc:  # noqa: BLE001 - raised by run(), as itself
            self._fail(exc)
        finally:
            self._extra_connections -= 1
            self.slots.release()
