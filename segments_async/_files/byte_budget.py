"""The memory that the writers of one destination share."""

from __future__ import annotations

from collections import deque

import anyio


class ByteBudget:
    """A number of bytes, granted in the order of the requests for them.

    Args:
        size: bytes in all.

    Attributes:
        free: bytes that no writer has.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self.free: int = size
        self._waiting: deque[tuple[int, anyio.Event]] = deque()

    async def acquire(self, count: int) -> int:
        """Wait for `count` bytes, or for the whole budget. Returns how many to give back."""
        count = min(count, self._size)
        if not self._waiting and count <= self.free:
            self.free -= count
            return count
        mine = (count, anyio.Event())
        self._waiting.append(mine)
        try:
            await mine[1].wait()
        except BaseException:
            if mine[1].is_set():
                self.release(count)
            else:
                self._waiting.remove(mine)
                self._serve()
            raise
        return count

    def release(self, count: int) -> None:
        """Give bytes back."""
        self.free += count
        self._serve()

    def _serve(self) -> None:
        while self._waiting and self._waiting[0][0] <= self.free:
            count, event = self._waiting.popleft()
            self.free -= count
            event.set()
