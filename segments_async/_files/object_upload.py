"""One multipart upload: a thread that obstore reads the object's bytes from.

obstore's `put` takes an iterator: it uploads the bytes in parts, completes the upload when the
iterator ends, and aborts it when the iterator raises. Its asynchronous functions work on
asyncio alone, and its files have no abort. So each upload has a thread, in which `put` waits for
bytes. The tasks that wait for the upload need no thread of their own, which might not be startable.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import anyio
import anyio.from_thread
import anyio.lowlevel
import anyio.to_thread
import obstore

from segments_async._files.daemon_thread import as_exception, start_daemon

#: Bytes that may wait until obstore takes them, which it does while fewer parts than allowed are
#: under way.
_WAITING = 1024 * 1024

#: obstore's own text for an abort that failed: the only DELETE of an upload.
_ABORT_FAILED = "Error performing DELETE"


class UploadAborted(Exception):
    """Raised into obstore, which then aborts the upload."""


class MultipartUpload:
    """Uploads one object.

    Args:
        key: of the object, relative to the store's prefix.
        part_size: bytes of each part.
        parts_at_once: parts that are sent at the same time.

    Raises:
        NoThread: there can't be another thread now.
    """

    def __init__(
        self,
        store: Any,
        key: str,
        attributes: Mapping[str, str],
        *,
        part_size: int,
        parts_at_once: int,
    ) -> None:
        self._changed = threading.Condition()
        self._waiting: list[bytes] = []
        self._whole = self._failed = self._over = False
        self._error: BaseException | None = None
        self._loop = anyio.lowlevel.current_token()
        #: Set in the event loop when the thread has changed something.
        self._news = anyio.Event()

        def upload() -> None:
            try:
                obstore.put(
                    store,
                    key,
                    self._pieces(),
                    attributes=dict(attributes),
                    chunk_size=part_size,
                    max_concurrency=parts_at_once,
                )
            except BaseException as exc:  # noqa: BLE001 - raised to the task that writes
                self._error = as_exception(exc)
            finally:
                with self._changed:
                    self._over = True
                    self._waiting.clear()
                self._tell()

        # daemon: at the interpreter's end nobody waits for a store that is away.
        start_daemon(upload, "segments-async-upload")

    # ----------------------------------------------------------------- in the upload's thread

    def _pieces(self) -> Iterator[bytes]:
        while (piece := self._next_piece()) is not None:
            self._tell()
            yield piece

    def _next_piece(self) -> bytes | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._whole or self._failed)
            if self._failed:
                raise UploadAborted
            return self._waiting.pop(0) if self._waiting else None

    def _tell(self) -> None:
        with contextlib.suppress(RuntimeError):  # the event loop has ended, or is closed
            anyio.from_thread.run_sync(lambda: self._news.set(), token=self._loop)

    # ----------------------------------------------------------------- in the event loop

    async def put(self, data: bytes) -> None:
        """Add bytes, once there is room.

        Raises:
            Exception: obstore's; the upload is over.
        """

        def taken() -> bool:
            if self._over:
                raise self._error or UploadAborted
            if self._waiting and sum(map(len, self._waiting)) + len(data) > _WAITING:
                return False
            self._waiting.append(data)
            self._changed.notify_all()
            return True

        await self._until(taken)

    async def finish(self) -> None:
        """Complete the upload: the object is visible.

        Raises:
            Exception: obstore's; the object may be visible, or not.
        """
        with self._changed:
            self._whole = True
            self._changed.notify_all()
        await self._until(lambda: self._over)
        if self._error is not None:
            raise self._error

    async def abort(self) -> bool:
        """Let obstore abort the upload. Returns whether the store has no part of it any more."""
        with self._changed:
            self._failed = True
            self._waiting.clear()
            self._changed.notify_all()
        await self._until(lambda: self._over)
        return self._error is None or _ABORT_FAILED not in str(self._error)

    async def _until(self, ready: Callable[[], bool]) -> None:
        if self._is(ready):
            return
        # anyio's limiter, as of its own threads: by it virtual time knows that a thread is at work.
        async with anyio.to_thread.current_default_thread_limiter():
            while not self._is(ready):
                await self._news.wait()

    def _is(self, ready: Callable[[], bool]) -> bool:
        # Before the look: what the thread changes after it sets the new event.
        if self._news.is_set():
            self._news = anyio.Event()
        with self._changed:
            return ready()
