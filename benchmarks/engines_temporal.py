"""Temporal, for benchmarks/engines.py: a workflow for each export, three activities.

As its documentation has it: the submit has one attempt, since it can't be repeated; a poll is an
activity that fails until the export has ended, and is retried at an interval ("infrequent
polling"); the task queue of the API's activities has the account's limit. An activity has a second
more than its HTTP request.
"""

from __future__ import annotations

import asyncio
import sys
from datetime import timedelta
from pathlib import Path

from temporalio import activity, workflow
from temporalio.client import Client, WorkflowFailureError
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError, ApplicationError
from temporalio.worker import Worker

with workflow.unsafe.imports_passed_through():
    from engines_vendor import POLL_EVERY, Settings, Vendor

_AT_MOST = timedelta(seconds=11)


class Activities:
    def __init__(self, vendor: Vendor) -> None:
        self._vendor = vendor

    @activity.defn
    async def submit(self, segment_id: str) -> str:
        return await self._vendor.submit(segment_id)

    @activity.defn
    async def poll(self, export_id: str) -> str:
        link = await self._vendor.poll(export_id)
        if link is None:
            raise ApplicationError("PENDING")
        return link

    @activity.defn
    async def fetch(self, link: str, segment_id: str) -> str:
        return await self._vendor.fetch(link, segment_id)


@workflow.defn
class Export:
    @workflow.run
    async def run(self, segment_id: str) -> dict[str, str]:
        try:
            export_id = await workflow.execute_activity_method(
                Activities.submit,
                segment_id,
                task_queue="api",
                start_to_close_timeout=_AT_MOST,
                retry_policy=RetryPolicy(maximum_attempts=1),
            )
        except ActivityError:
            return {"error": "unknown"}
        await workflow.sleep(POLL_EVERY)
        link = await workflow.execute_activity_method(
            Activities.poll,
            export_id,
            task_queue="api",
            start_to_close_timeout=_AT_MOST,
            retry_policy=RetryPolicy(
                initial_interval=timedelta(seconds=POLL_EVERY), backoff_coefficient=1.0
            ),
        )
        path = await workflow.execute_activity_method(
            Activities.fetch,
            args=[link, segment_id],
            task_queue="files",
            start_to_close_timeout=_AT_MOST,
        )
        return {"file": path}


async def work(settings: Settings) -> None:
    client = await Client.connect(settings.server)
    activities = Activities(Vendor(settings))
    await asyncio.gather(
        Worker(client, task_queue="exports", workflows=[Export]).run(),
        Worker(
            client,
            task_queue="api",
            activities=[activities.submit, activities.poll],
            max_task_queue_activities_per_second=settings.rate,
        ).run(),
        Worker(client, task_queue="files", activities=[activities.fetch]).run(),
    )


async def call(settings: Settings) -> tuple[dict[str, dict[str, str]], int]:
    """Start all workflows, and wait for the result of each. Counts their state transitions."""
    client = await Client.connect(settings.server)
    results: dict[str, dict[str, str]] = {}
    changes = 0
    at_once = asyncio.Semaphore(50)

    async def one(segment_id: str) -> None:
        nonlocal changes
        async with at_once:
            handle = await client.start_workflow(
                Export.run, segment_id, id=segment_id, task_queue="exports"
            )
        try:
            results[segment_id] = await handle.result()
        except WorkflowFailureError as exc:
            results[segment_id] = {"error": type(exc.cause).__name__}
        described = await handle.describe()
        changes += described.raw_description.workflow_execution_info.state_transition_count

    await asyncio.gather(*(one(segment_id) for segment_id in settings.segments))
    return results, changes


if __name__ == "__main__":
    read = Settings.read(sys.argv[2])
    if sys.argv[1] == "caller":
        told, transitions = asyncio.run(call(read))
        Path(read.directory, "transitions").write_text(str(transitions))
        read.tell(told)
    else:
        asyncio.run(work(read))
