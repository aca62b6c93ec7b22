"""The queue of a run's files that are complete at the vendor, and the tasks that fetch them."""

from __future__ import annotations

import heapq
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import anyio
import attrs
from anyio.abc import TaskGroup

from segments_async._files.refusals import LIFETIME
from segments_async._run.job import Job
from segments_async._sansio.jobs.exports import file_since
from segments_async._telemetry.guard import log
from segments_async.models import Export

#: A warning is logged where less than this is left of a file's 48 hours when its fetch begins.
WARN_BELOW = timedelta(hours=6)


@attrs.define(eq=False)
class DownloadQueue:
    """Fetches the oldest file first, since files stay for 48 hours.

    Args:
        fetch: fetches one file, and raises only when it is cancelled.
        slots: for connections to storage, of the whole client.
        at_once: files of this run fetched at once.
    """

    _fetch: Callable[[Job, Export], Awaitable[None]]
    _slots: anyio.Semaphore
    _at_once: int
    _queue: list[tuple[datetime, int, Job, Export]] = attrs.field(
        factory=list[tuple[datetime, int, Job, Export]]
    )
    _added: int = 0
    _fetchers: int = 0
    _under_way: dict[int, datetime] = attrs.field(factory=dict[int, datetime])
    _done: int = 0
    _seconds: float = 0.0

    def add(self, job: Job, export: Export, tasks: TaskGroup | None) -> None:
        """Queue a file. `tasks`: None once the run's time is up: then no file is fetched."""
        self._added += 1
        since = file_since(export) or datetime.now(UTC)
        heapq.heappush(self._queue, (since, self._added, job, export))
        if tasks is not None and self._fetchers < self._at_once:
            self._fetchers += 1
            tasks.start_soon(self._fetch_all)

    @property
    def oldest_link_age(self) -> float | None:
        """Seconds since the oldest file was made, by this machine's clock; None without one."""
        waiting = [entry[0] for entry in self._queue[:1]]
        oldest = min([*self._under_way.values(), *waiting], default=None)
        if oldest is None:
            return None
        return max(0.0, (datetime.now(UTC) - oldest).total_seconds())

    @property
    def seconds_each(self) -> float:
        """Seconds between two fetched files on average; 0 before the first."""
        return self._seconds / self._done / self._at_once if self._done else 0.0

    async def _fetch_all(self) -> None:
        """Fetch until the queue is empty."""
        try:
            while self._queue:
                async with self._slots:
                    if self._queue:
                        await self._fetch_one(*heapq.heappop(self._queue))
        finally:
            self._fetchers -= 1

    async def _fetch_one(self, since: datetime, number: int, job: Job, export: Export) -> None:
        began = anyio.current_time()
        left = since + LIFETIME - datetime.now(UTC)
        if timedelta() < left < WARN_BELOW:
            log(
                logging.WARNING,
                "export %s: the vendor deletes its file in %.1f hours, and it is fetched only now",
                export.export_id,
                left.total_seconds() / 3600,
            )
        self._under_way[number] = since
        try:
            await self._fetch(job, export)
        finally:
            del self._under_way[number]
        self._done += 1
        self._seconds += anyio.current_time() - began
