"""Files that are being fetched by one client: two that want one file share it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio

from segments_async.results import ExportedFile


class _Fetch:
    def __init__(self, export_id: str) -> None:
        self.export_id = export_id
        self.ended = anyio.Event()
        self.file: ExportedFile | None = None


class InProgressDownloads:
    """One fetch to a target at a time."""

    def __init__(self) -> None:
        self._by_target: dict[Path, _Fetch] = {}

    async def fetch(
        self, target: Path, export_id: str, fetch: Callable[[], Awaitable[ExportedFile]]
    ) -> ExportedFile:
        """Fetch the export's file, or take the one that another task fetches meanwhile.

        A fetch of another export to the target is waited for: the later one replaces its file.
        One that fails says nothing of the next.
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
