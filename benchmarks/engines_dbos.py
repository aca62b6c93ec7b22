"""DBOS, for benchmarks/engines.py: a workflow for each export, in a queue with a limiter.

As its documentation has it: requests are steps, the workflow sleeps by `DBOS.sleep_async`, the
queue's limiter starts no more workflows a second than the account's limit has requests for, and
each process is restarted with its executor id, by which it recovers its own workflows.
"""

from __future__ import annotations

import sys
import threading
import time

from dbos import DBOS, DBOSClient, DBOSConfig
from engines_vendor import POLL_EVERY, Settings, Vendor, count_statements

_QUEUE = "exports"
_VERSION = "1"

#: Seconds until the first process has created the tables.
_PATIENCE = 60.0

settings = Settings.read(sys.argv[2])
_vendors: list[Vendor] = []


def _vendor() -> Vendor:
    if not _vendors:
        _vendors.append(Vendor(settings))
    return _vendors[0]


@DBOS.step()
async def submit(segment_id: str) -> str:
    return await _vendor().submit(segment_id)


@DBOS.step()
async def poll(export_id: str) -> str | None:
    return await _vendor().poll(export_id)


@DBOS.step()
async def fetch(link: str, segment_id: str) -> str:
    return await _vendor().fetch(link, segment_id)


@DBOS.workflow(name="export")
async def export(segment_id: str) -> str:
    export_id = await submit(segment_id)
    link = None
    while link is None:
        await DBOS.sleep_async(POLL_EVERY)
        link = await poll(export_id)
    return await fetch(link, segment_id)


def work(number: str) -> None:
    config: DBOSConfig = {
        "name": "exports",
        "system_database_url": settings.server,
        "executor_id": f"process-{number}",
        "application_version": _VERSION,
        "log_level": "ERROR",
    }
    DBOS(config=config)
    DBOS.launch()
    starts = max(1, round(settings.rate / settings.requests))
    DBOS.register_queue(_QUEUE, limiter={"limit": starts, "period": 1.0})
    threading.Event().wait()


def call() -> None:
    """Enqueue all exports, and wait for the result of each."""
    client = _client()
    handles = [
        client.enqueue(
            {
                "queue_name": _QUEUE,
                "workflow_name": "export",
                "workflow_id": segment_id,
                "app_version": _VERSION,
            },
            segment_id,
        )
        for segment_id in settings.segments
    ]
    results = {}
    for handle in handles:
        try:
            results[handle.get_workflow_id()] = {"file": str(handle.get_result())}
        except Exception as exc:  # noqa: BLE001 - it is the caller's result
            results[handle.get_workflow_id()] = {"error": type(exc).__name__}
    settings.tell(results)


def _client() -> DBOSClient:
    """A client, as soon as a process has created DBOS's tables and its queue."""
    until = time.monotonic() + _PATIENCE
    while True:
        try:
            client = DBOSClient(system_database_url=settings.server)
            client.list_workflows()
        except Exception:
            if time.monotonic() > until:
                raise
            time.sleep(0.2)
        else:
            return client


if __name__ == "__main__":
    if sys.argv[1] == "caller":
        call()
    else:
        count_statements(settings.directory)
        work(sys.argv[3])
