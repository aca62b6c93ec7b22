"""The end of a connection that is too slow: of one request, or of a body that is read slowly."""

from __future__ import annotations

import contextlib
import math
from collections.abc import AsyncIterator, Generator

import anyio

from segments_async._http.storage_body import StorageBroken
from segments_async._sansio.files.progress_limit import MIN_BYTES_WINDOW, TOO_SLOW, SpeedMeter
from segments_async._sansio.pace.standstill import LATE


class MinSpeed:
    """The scope of one request: cancelled if fewer than `MIN_BYTES` arrive in a minute."""

    def __init__(self) -> None:
        self._meter = SpeedMeter(anyio.current_time())
        self.scope = anyio.CancelScope(deadline=self._meter.deadline)

    def on_bytes(self, count: int) -> None:
        self._meter.on_bytes(count, anyio.current_time())
        self.scope.deadline = self._meter.deadline

    @contextlib.contextmanager
    def not_counting(self) -> Generator[None]:
        """Leave out the time in which nothing is read, since what arrived is still written.

        A destination may be slower than storage, and storage isn't to blame for that.
        """
        began = anyio.current_time()
        self.scope.deadline = math.inf
        try:
            yield
        finally:
            self._meter.skip(anyio.current_time() - began)
            self.scope.deadline = self._meter.deadline

    @property
    def worth_another(self) -> bool:
        """Whether a second connection would make the download faster."""
        return self._meter.worth_another(anyio.current_time())


class MinSpeedChunks:
    """The chunks of a body, while they arrive fast enough.

    Only the time spent waiting for the server counts: a reader may be as slow as it likes.
    """

    def __init__(self, chunks: AsyncIterator[bytes]) -> None:
        self._chunks = chunks
        self._meter = SpeedMeter(0.0)
        self._waited = 0.0

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        began = anyio.current_time()
        # Twice the window: after a standstill of this process a shorter timer would be due before
        # the chunk that waits in the socket. The transport's reads have timers of their own; this
        # one is for transports that have none.
        with anyio.move_on_after(2 * MIN_BYTES_WINDOW):
            chunk = await anext(self._chunks)
            waited = anyio.current_time() - began
            self._waited += waited if waited < MIN_BYTES_WINDOW + LATE else 0.0
            if self._waited >= self._meter.deadline:
                raise StorageBroken(TOO_SLOW)
            self._meter.on_bytes(len(chunk), self._waited)
            return chunk
        raise StorageBroken(TOO_SLOW)
