"""Exports that the vendor said had FAILED, on their way to another try."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

import anyio
from anyio.abc import TaskGroup

T = TypeVar("T")


class Cooling(Generic[T]):
    """Hands each back after the same number of seconds: one task for however many.

    Args:
        seconds: of the cooldown.
        again: takes one back.
    """

    def __init__(self, seconds: float, again: Callable[[T], Awaitable[None]]) -> None:
        self._seconds = seconds
        self._again = again
        self._queue: deque[tuple[float, T]] = deque()
        self._running = False

    def add(self, item: T, tasks: TaskGroup | None) -> None:
        """Begin an item's cooldown. None is handed back once the run's time is up."""
        self._queue.append((anyio.current_time() + self._seconds, item))
        if tasks is not None and not self._running:
            self._running = True
            tasks.start_soon(self._run)

    def clear(self) -> list[T]:
        """Take out all that are cooling."""
        items = [item for _, item in self._queue]
        self._queue.clear()
        return items

    async def _run(self) -> None:
        try:
            while self._queue:
                await anyio.sleep_until(self._queue[0][0])
                if self._queue:
                    await self._again(self._queue.popleft()[1])
        finally:
            self._running = False
