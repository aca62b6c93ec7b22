"""A body that is read as it arrives, from a server that may be too slow."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio

from segments_async._http.storage import StorageBroken
from segments_async._sansio.files.progress_limit import MIN_BYTES, MIN_BYTES_WINDOW, SpeedMeter
from segments_async._sansio.pace.standstill import LATE

TOO_SLOW = f"fewer than {MIN_BYTES} bytes came in {MIN_BYTES_WINDOW:g} s"


class MinSpeedChunks:
    """The chunks of a body, as long as enough of them come.

    Only what is waited for the server counts: a reader takes the time that it likes.
    """

    def __init__(self, chunks: AsyncIterator[bytes]) -> None:
        self._chunks = chunks
        self._speed = SpeedMeter(0.0)
        self._waited = 0.0

    def __aiter__(self) -> MinSpeedChunks:
        return self

    async def __anext__(self) -> bytes:
        began = anyio.current_time()
        # No timer of a minute: due after a standstill of this process, it would take that for the
        # server's. Each read has its own, and this one is for transports that have none.
        with anyio.move_on_after(2 * MIN_BYTES_WINDOW):
            chunk = await self._chunks.__anext__()
            waited = anyio.current_time() - began
            self._waited += waited if waited < MIN_BYTES_WINDOW + LATE else 0.0
            if self._waited >= self._speed.deadline:
                raise StorageBroken(TOO_SLOW)
            self._speed.on_bytes(len(chunk), self._waited)
            return chunk
        raise StorageBroken(TOO_SLOW)
