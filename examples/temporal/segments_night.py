r"""Each night: export what has run since the last night. For Temporal: one activity for a run.

    pip install 'segments-async[journal]' 'psycopg[binary]' temporalio
    export NIGHT_JOURNAL=postgresql://exporter@db.example.com/exports NIGHT_FILES=/srv/exports
    python segments_night.py                                   # a worker, on each machine
    temporal schedule create --schedule-id segments --cron '15 2 * * *' \
        --workflow-id segments --task-queue segments --type Night

SEGMENTS_API_KEY and SEGMENTS_ACCESS_TOKEN are the account, TEMPORAL_ADDRESS is the server.
NIGHT_FILES is a path that is the same on all machines.
"""

from __future__ import annotations

import asyncio
import os
from datetime import timedelta

from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.common import RetryPolicy
from temporalio.exceptions import ApplicationError
from temporalio.worker import Worker

QUEUE = "segments"

#: Seconds between two heartbeats, and without one until another worker goes on.
HEARTBEAT, SILENCE = 3.0, 10.0


@activity.defn
async def export_night(night: str) -> dict[str, int]:
    """Export to files. The same call again goes on with the run. Returns counts.

    A worker that is stopped, or a workflow that is cancelled, cancels this task: then the run is
    left in order, and stays resumable.
    """
    from segments_async import SegmentsClient  # not in the sandbox of workflows

    async with SegmentsClient.from_env() as client:
        segments = await client.list_segments()
        # shared=True: a worker that Temporal takes for dead, and isn't, works with the next one.
        async with (
            client.open_bulk_export(
                segments,
                os.environ["NIGHT_FILES"],
                journal=os.environ["NIGHT_JOURNAL"],
                run=f"night-{night}",
                shared=True,
                only_changed=True,
            ) as run,
            asyncio.TaskGroup() as tasks,
        ):
            beats = tasks.create_task(_beat())
            report = await run.report()
            beats.cancel()
    unfinished = sum(outcome.resumable for outcome in report.not_exported)
    if unfinished:
        raise ApplicationError(f"{unfinished} segments can be gone on with", type="Unfinished")
    return {
        "exported": len(report.exported),
        "not_exported": len(report.not_exported),  # for good: the next night asks again
    }


async def _beat() -> None:
    while True:
        activity.heartbeat()
        await asyncio.sleep(HEARTBEAT)


@workflow.defn
class Night:
    """One night."""

    @workflow.run
    async def run(self, night: str | None = None) -> dict[str, int]:
        """Export the night of this date; None: the date on which the workflow started (UTC)."""
        return await workflow.execute_activity(
            export_night,
            night or workflow.info().start_time.date().isoformat(),
            start_to_close_timeout=timedelta(hours=12),  # of each attempt
            heartbeat_timeout=timedelta(seconds=SILENCE),
            retry_policy=RetryPolicy(
                initial_interval=timedelta(seconds=5),
                maximum_interval=timedelta(minutes=15),
                maximum_attempts=10,
                non_retryable_error_types=[
                    "AuthenticationError", "PermissionDeniedError", "ConfigurationError",
                ],
            ),
        )  # fmt: skip


async def main() -> None:
    client = await Client.connect(os.environ.get("TEMPORAL_ADDRESS", "localhost:7233"))
    worker = Worker(client, task_queue=QUEUE, workflows=[Night], activities=[export_night])
    await worker.run()


if __name__ == "__main__":
    asyncio.run(main())
