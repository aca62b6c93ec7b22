"""Each night: export what has run since the last night. For procrastinate, a queue in PostgreSQL.

    pip install 'segments-async[journal]' 'psycopg[binary]' procrastinate
    export NIGHT_DATABASE=postgresql://exporter@db.example.com/exports NIGHT_FILES=/srv/exports
    procrastinate --app=segments_night.app schema --apply      # once
    procrastinate --app=segments_night.app worker              # on each machine

SEGMENTS_API_KEY and SEGMENTS_ACCESS_TOKEN are the account. The queue and the journal have one
database. NIGHT_FILES is a path that is the same on all machines.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime

import procrastinate

from segments_async import SegmentsClient

DATABASE = os.environ["NIGHT_DATABASE"]

app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=DATABASE))


class UnfinishedError(Exception):
    """Another attempt may go on with some of the run's segments."""


@app.periodic(cron="15 2 * * *")
@app.task(
    queue="segments",
    queueing_lock="segments",  # a second night is not queued while one waits for a worker
    retry=procrastinate.RetryStrategy(max_attempts=3, wait=900, retry_exceptions=[UnfinishedError]),
)
async def export_night(timestamp: int) -> None:
    """Export to files. The job fails where a segment has no file.

    Args:
        timestamp: of the night, which procrastinate passes.
    """
    night = datetime.fromtimestamp(timestamp, UTC).date().isoformat()
    async with SegmentsClient.from_env() as client:
        segments = await client.list_segments()
        # shared=True: a job that is started again beside a live one works with that one.
        async with client.open_bulk_export(
            segments,
            os.environ["NIGHT_FILES"],
            journal=DATABASE,
            run=f"night-{night}",
            shared=True,
            only_changed=True,
        ) as run:
            report = await run.report()
    unfinished = sum(outcome.resumable for outcome in report.not_exported)
    if unfinished:
        raise UnfinishedError(f"{unfinished} segments of night {night}")
    report.raise_for_errors()  # for good: the next night asks again


@app.periodic(cron="* * * * *")
@app.task(queue="segments", queueing_lock="stalled", pass_context=True)
async def retry_stalled(context: procrastinate.JobContext, timestamp: int) -> None:
    """Start the jobs of dead workers again: procrastinate leaves that to a task of the program."""
    del timestamp
    for job in await context.app.job_manager.get_stalled_jobs(task_name=export_night.name):
        await context.app.job_manager.retry_job(job)
