"""A body that is read as it arrives, and ends if its server is too slow."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio

from segments_async._http.storage import StorageBroken
from segments_async._sansio.files.progress_limit import MIN_BYTES_WINDOW, TOO_SLOW, SpeedMeter
from segments_async._sansio.pace.standstill import LATE


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
