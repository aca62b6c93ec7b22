"""Dask, for benchmarks/engines.py: a task for each export, in a cluster of processes.

A nanny restarts a killed worker, and the scheduler gives its tasks, and those whose results only
this worker had, to the others. So a task looks first whether its file is there. Dask has no limit
of requests per second; as many threads work as keep to it on average.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

from distributed import Client, LocalCluster, WorkerPlugin
from engines_vendor import POLL_EVERY, Settings, Vendor


class Pid(WorkerPlugin):
    """Tells the judge each worker's process, restarted ones too."""

    def __init__(self, directory: str) -> None:
        self._directory = directory

    def setup(self, worker: Any) -> None:  # noqa: ARG002 - Dask's signature
        Path(self._directory, "pids", str(os.getpid())).touch()


def export(segment_id: str, settings: Settings) -> str:
    return asyncio.run(_export(segment_id, settings))


async def _export(segment_id: str, settings: Settings) -> str:
    async with Vendor(settings) as vendor:
        return await _steps(segment_id, vendor)


async def _steps(segment_id: str, vendor: Vendor) -> str:
    if vendor.path(segment_id).exists():
        return str(vendor.path(segment_id))
    export_id = await vendor.submit(segment_id)
    link = None
    while link is None:
        await asyncio.sleep(POLL_EVERY)
        link = await vendor.poll(export_id)
    return await vendor.fetch(link, segment_id)


def call(settings: Settings) -> None:
    """Map the exports, and wait for the result of each."""
    seconds = (settings.requests - 1) * POLL_EVERY  # of one export
    at_once = settings.rate / settings.requests * seconds
    threads = max(1, round(at_once / settings.processes))
    with (
        LocalCluster(
            n_workers=settings.processes, threads_per_worker=threads, dashboard_address=None
        ) as cluster,
        Client(cluster) as client,
    ):
        client.register_plugin(Pid(settings.directory))
        futures = client.map(export, settings.segments, settings=settings, pure=False)
        results = {}
        for segment_id, future in zip(settings.segments, futures, strict=True):
            try:
                results[segment_id] = {"file": str(future.result())}
            except Exception as exc:  # noqa: BLE001 - it is the caller's result
                results[segment_id] = {"error": type(exc).__name__}
    settings.tell(results)


if __name__ == "__main__":
    call(Settings.read(sys.argv[2]))
