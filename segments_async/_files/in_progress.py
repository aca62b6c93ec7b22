"""Downloads in progress of one client: tasks that want the same file share one download."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio

from segments_async.results import ExportedFile


class _Fetch:
    def __init__(self, export_id: str) -> None:
        self.export_id = export_id
        self.ended = anyio.Event()
        self.file: ExportedFile | None = None


class InProgressDownloads:
    """The downloads that tasks of one client share: one at a time to each target."""

    def __init__(self) -> None:
        self._by_target: dict[str, _Fetch] = {}

    async def fetch(
        self, target: str, export_id: str, fetch: Callable[[], Awaitable[ExportedFile]]
    ) -> ExportedFile:
        """Fetch the export's file, or wait for the file that another task is fetching.

        A download of another export to the same target is waited for, and its file then replaced.
        If the other task's download fails, this one starts its own.
        """
        while (other := self._by_target.get(target)) is not None:
            await other.ended.wait()
            if other.file is not None and other.export_id == export_id:
                return other.file
        mine = self._by_target[target] = _Fetch(export_id)
        try:
            mine.file = await fetch()
            return mine.file
        finally:
            del self._by_target[target]
            mine.ended.set()
