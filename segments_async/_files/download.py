"""One attempt to bring what is missing of a file into its part, over one connection or several.

The body is gathered in batches, which are written and hashed in worker threads while the next one
is received (docs/design.md: Files).
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, NoReturn

import anyio
import anyio.to_thread
from anyio.abc import TaskGroup

from segments_async._files.encoded import EncodedBody
from segments_async._files.part import Bytes, PartFile
from segments_async._http.storage import NO_HEADERS, Storage, StorageAnswer, StorageBroken
from segments_async._sansio.files.progress_limit import MIN_BYTES, MIN_BYTES_WINDOW, SpeedMeter
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

#: Bytes gathered before they are written and hashed in a worker thread. Smaller ones cost more
#: hops, of some 0.3 ms each; larger ones no longer fit the processor's cache. The first one is
#: small: after it is decided whether more connections are of use.
BATCH = 4 * 1024 * 1024
FIRST_BATCH = 2 * 1024 * 1024

#: Batches of a connection: one is received, one is written, one is hashed. A fourth, to wait
#: between them, no longer fits the processor's cache: 0.80 s a GiB instead of 0.72.
BATCHES = 3

#: Bytes of all connections' batches, however many there are.
ALL_BATCHES = 24 * 1024 * 1024

#: Seconds after which a batch is written however small it is: a kill -9 costs what is in hand.
BATCH_SECONDS = 0.25

#: Bytes that a connection claims at a time, and of a file that is worth several connections.
CHUNK = 16 * 1024 * 1024
PARALLEL_FROM = 64 * 1024 * 1024


#: Where in the file it belongs, its memory, and how much of that is filled.
_Batch = tuple[int, bytearray, int]


class AttemptFailed(Exception):
    """Something that may pass: a broken link, a server that asks to slow down.

    Attributes:
        pause: seconds that the server asked for, or None.
        away: whether storage is away, so that the file isn't to blame.
    """

    def __init__(self, what: str, pause: float | None = None, *, away: bool = False) -> None:
        super().__init__(what)
        self.pause = pause
        self.away = away


class CannotResume(AttemptFailed):
    """What is there can't be continued."""


class LengthMismatch(CannotResume):
    """The body was not as long as announced, though the link held."""


class WrongRangeReceived(AttemptFailed):
    """Another range came than was asked for. What is there can still be continued."""


class Attempt:
    """One attempt. Whatever breaks it, what came is in the part.

    Args:
        storage: who fetches.
        link: to the file.
        part: open.
        refuse: raises what storage's refusal means.
        progress: told how many bytes of the file have come so far.
        slots: of connections to storage, one of which the caller holds; None: only that one.
    """

    def __init__(
        self,
        storage: Storage,
        link: str,
        part: PartFile,
        *,
        refuse: Callable[[StorageAnswer], Awaitable[NoReturn]],
        progress: Callable[[int], None],
        slots: anyio.Semaphore | None,
    ) -> None:
        self._storage = storage
        self._link = link
        self._part = part
        self._refuse = refuse
        self._progress = progress
        self._slots = slots
        self._received = size_of(part.held)
        self._claims = RangeAllocator((), NO_END)
        self._syncs = False
        self._others = 0
        self._others_broke = False
        self._failure: Exception | None = None
        self._tasks: TaskGroup | None = None
        #: All of a file of less than a batch: it is written when it is finished, in one hop.
        self.rest: Bytes = b""

    async def run(self) -> None:
        """Fetch what is missing.

        Raises:
            AttemptFailed, StorageBroken: it isn't all there.
            OSError: it can't be written.
        """
        async with anyio.create_task_group() as self._tasks:
            try:
                await self._lead()
            except Exception as exc:  # noqa: BLE001 - raised below, as itself
                # Not from inside the task group, which would wrap it in an ExceptionGroup.
                self._fail(exc)
        if self._failure is not None:
            raise self._failure

    def _fail(self, exc: Exception) -> None:
        self._failure = self._failure or exc
        self._group.cancel_scope.cancel()

    @property
    def _group(self) -> TaskGroup:
        if self._tasks is None:
            raise AssertionError("an attempt that doesn't run")
        return self._tasks

    async def _lead(self) -> None:
        """The first connection, which goes on until nothing is free."""
        if self._part.resumable and self._part.version is not None:
            self._claims = RangeAllocator(self._part.held, self._part.version.total or 0)
        else:
            await self._request(None, 0, leads=True)
        while (claimed := self._claim()) is not None:
            await self._request(*claimed, leads=True)

    def _claim(self) -> tuple[Range, int] | None:
        """What to ask for next, and how far of it is claimed.

        Alone, a connection asks for all that follows, and claims more of it as it goes.
        """
        version = self._part.version
        claimed = self._claims.take(CHUNK)
        if version is None or claimed is None:
            return None
        start, stop = claimed
        return Range(version, start, stop if self._others else self._claims.room(stop)), stop

    async def _request(self, asked: Range | None, stop: int, *, leads: bool) -> None:
        """One request, watched for its speed."""
        await self._storage.turn()
        speed = SpeedMeter(anyio.current_time())
        with anyio.CancelScope(deadline=speed.deadline) as scope:
            headers = NO_HEADERS if asked is None else asked.headers()
            async with self._storage.get(self._link, headers) as answer:
                meaning = read_answer(answer.status, answer.headers, asked)
                match meaning:
                    case PartialContent() if asked is not None:
                        stream = _Stream(self, asked.start, stop, asked.stop, speed, leads=leads)
                        await stream.receive(answer, scope)
                    case ObjectVersion() if leads and not self._others:
                        await self._receive_all(answer, meaning, speed, scope)
                    case Restart():
                        raise CannotResume(meaning.why)
                    case WrongRange():
                        raise WrongRangeReceived(meaning.why)
                    case Refused() if leads:
                        await self._refuse(answer)
                    case _:
                        raise AttemptFailed(f"storage answered a range with {answer.status}")
        if scope.cancelled_caught:
            raise AttemptFailed(f"fewer than {MIN_BYTES} bytes came in {MIN_BYTES_WINDOW:g} s")

    async def _receive_all(
        self,
        answer: StorageAnswer,
        version: ObjectVersion,
        speed: SpeedMeter,
        scope: anyio.CancelScope,
    ) -> None:
        """A body that is the whole file, whatever was asked for."""
        before = self._part.version
        if self._part.held and not (before is not None and version.is_same(before)):
            await anyio.to_thread.run_sync(self._part.reset)
        self._part.version = version
        self._received = 0
        if version.gzip:
            body = EncodedBody(self._part, version, speed, scope)
            if not await body.receive(answer.chunks, self.batch, self._progress):
                raise LengthMismatch("the encoded body was not as long as announced")
            self._claims = RangeAllocator((), 0)
            return
        end = NO_END if version.total is None else version.total
        self._claims = RangeAllocator((), end)
        _, stop = self._claims.take(CHUNK) or (0, 0)
        await _Stream(self, 0, stop, end, speed, leads=True).receive(answer, scope)
        if version.total is None:
            self._claims = RangeAllocator((), 0)

    # ----------------------------------------------------------------- for streams

    @property
    def batch(self) -> int:
        """Bytes of a batch, by how many connections share the memory now."""
        slots = self._slots
        of_others = 0 if slots is None else (slots.max_value or 0) - slots.value
        return min(BATCH, ALL_BATCHES // BATCHES // max(1 + self._others, of_others))

    def is_last(self, end: int) -> bool:
        version = self._part.version
        return version is not None and end in (NO_END, version.total)

    def extend(self, stop: int) -> int:
        return self._claims.extend(stop, CHUNK)

    def on_bytes(self, count: int) -> None:
        self._received += count
        self._progress(self._received)

    async def write(self, offset: int, batch: Bytes) -> None:
        """Write and hash a batch."""
        try:
            await anyio.to_thread.run_sync(self._part.write, offset, batch)
        except Exception as exc:  # noqa: BLE001 - raised by run(), as itself
            self._fail(exc)
            return
        if self._part.wants_sync and not self._syncs:
            self._syncs = True
            self._group.start_soon(self._sync)

    async def _sync(self) -> None:
        """Bring to the disk what is written, while more comes."""
        try:
            await anyio.to_thread.run_sync(self._part.sync, abandon_on_cancel=True)
        except Exception as exc:  # noqa: BLE001 - raised by run(), as itself
            self._fail(exc)
        finally:
            self._syncs = False

    def start_soon(self, do: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._group.start_soon(do)

    # ----------------------------------------------------------------- more connections

    def widen(self, speed: SpeedMeter) -> None:
        """Open as many more connections as are of use, and as are free without waiting."""
        version = self._part.version
        if (
            self._slots is None
            or self._others_broke
            or version is None
            or not version.divisible
            or (version.total or 0) <= PARALLEL_FROM
            or not speed.worth_another(anyio.current_time())
        ):
            return
        while self._slots.value:
            self._others += 1
            claimed = self._claim()
            if claimed is None:
                self._others -= 1
                return
            self._slots.acquire_nowait()
            self._group.start_soon(self._follow, self._slots, claimed)

    async def _follow(self, slots: anyio.Semaphore, claimed: tuple[Range, int] | None) -> None:
        """Another connection: chunk by chunk, until nothing is free or somebody wants its slot."""
        try:
            while claimed is not None:
                await self._request(*claimed, leads=False)
                # Somebody else's whole file comes before the parts of this one.
                claimed = self._claim() if not slots.statistics().tasks_waiting else None
        except CannotResume as exc:
            self._fail(exc)
        except (AttemptFailed, StorageBroken) as exc:
            # The next attempt fetches what it leaves; opening another would be hammering.
            self._others_broke = True
            logger.info("one of several connections to a file: %s", exc)
        except Exception as exc:  # noqa: BLE001 - raised by run(), as itself
            self._fail(exc)
        finally:
            self._others -= 1
            slots.release()


class _Stream:
    """A body, written while it comes.

    Args:
        attempt: whose it is.
        start: where in the file it begins.
        stop: how far it is claimed.
        end: where it ends; NO_END where nobody knows.
        speed: told of each chunk.
        leads: whether it is the attempt's first connection.
    """

    def __init__(
        self, attempt: Attempt, start: int, stop: int, end: int, speed: SpeedMeter, *, leads: bool
    ) -> None:
        self._attempt = attempt
        self._at = start
        self._stop = stop
        self._end = end
        self._speed = speed
        self._leads = leads
        self._offset = start
        # A byte more than a small file has: its end is seen before the batch is full.
        self._batch = bytearray(min(FIRST_BATCH, attempt.batch, end - start + 1))
        self._filled = 0
        self._spare: bytearray | None = None
        self._began = anyio.current_time()
        self._batches, self._to_write = anyio.create_memory_object_stream[_Batch](0)
        self._written = anyio.Event()

    async def receive(self, answer: StorageAnswer, scope: anyio.CancelScope) -> None:
        """Read it to its end, or to where another connection has claimed what follows."""
        self._attempt.start_soon(self._write)
        try:
            unseen = 0
            while size := await answer.read_into(memoryview(self._batch)[self._filled :]):
                unseen += size
                due = False
                if unseen >= MIN_BYTES:  # less than that is too slow whenever it comes
                    now = anyio.current_time()
                    self._speed.on_bytes(unseen, now)
                    scope.deadline = self._speed.deadline
                    unseen = 0
                    due = now - self._began >= BATCH_SECONDS
                self._take(size)
                if due or self._filled == len(self._batch):
                    await self._hand_over()
                    if self._leads:
                        self._attempt.widen(self._speed)
                if self._at == self._stop < self._end:
                    return
            if self._end not in (NO_END, self._at):
                raise LengthMismatch(f"the body ended at {self._at} of {self._end} bytes")
            if self._offset == 0 and self._attempt.is_last(self._end):
                self._attempt.rest = memoryview(self._batch)[: self._filled]
                self._filled = 0
        finally:
            # What has come isn't fetched again.
            with anyio.CancelScope(shield=True):
                try:
                    if self._filled:
                        await self._hand_over()
                finally:
                    # Whatever happens (asyncio's own cancellation respects no shield): or the
                    # writer would wait for ever.
                    self._batches.close()
                await self._written.wait()

    async def _write(self) -> None:
        """Write batch after batch while the next one is received."""
        try:
            with anyio.CancelScope(shield=True), self._to_write:
                hashed = None
                async for offset, batch, filled in self._to_write:
                    await self._attempt.write(offset, memoryview(batch)[:filled])
                    # This one may still be hashed.
                    self._spare, hashed = hashed, batch
        finally:
            self._written.set()

    def _take(self, size: int) -> None:
        self._at += size
        while self._at >= self._stop < self._end:
            longer = self._attempt.extend(self._stop)
            if longer == self._stop:
                break
            self._stop = longer
        if self._at > self._stop:
            if self._stop == self._end:
                raise LengthMismatch(f"more than the {self._end} bytes that were announced")
            size -= self._at - self._stop
            self._at = self._stop
        self._filled += size
        self._attempt.on_bytes(size)

    async def _hand_over(self) -> None:
        await self._batches.send((self._offset, self._batch, self._filled))
        self._offset, self._filled, self._began = self._at, 0, anyio.current_time()
        self._batch = self._memory()

    def _memory(self) -> bytearray:
        """For the next batch: what the last one left, if it has the size. New memory costs."""
        spare, self._spare = self._spare, None
        size = self._attempt.batch
        return spare if spare is not None and len(spare) == size else bytearray(size)
