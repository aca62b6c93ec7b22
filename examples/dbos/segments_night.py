"""Each night: export what has run since the last night. For DBOS: one step for the whole run.

    pip install 'segments-async[journal]' 'psycopg[binary]' dbos
    export NIGHT_DATABASE=postgresql://exporter@db.example.com/exports NIGHT_FILES=/srv/exports
    export NIGHT_JOURNAL=$NIGHT_DATABASE
    python segments_night.py

SEGMENTS_API_KEY and SEGMENTS_ACCESS_TOKEN are the account. DBOS and the journal may have one
database in PostgreSQL, since DBOS has a schema of its own; of SQLite, each needs its own file.
DBOS__VMID names the process where there are several: a process recovers the workflows of its name.
"""

from __future__ import annotations

import os
import threading
from datetime import datetime
from typing import Any

from dbos import DBOS, DBOSConfig

from segments_async import SegmentsClient


class UnfinishedError(Exception):
    """Another attempt may go on with some of the run's segments."""


async def _may_help(error: BaseException) -> bool:
    return isinstance(error, UnfinishedError)


@DBOS.step(retries_allowed=True, interval_seconds=60.0, max_attempts=4, should_retry=_may_help)
async def export_night(night: str) -> dict[str, int]:
    """Export to files. The same call again goes on with the run. Returns counts."""
    async with SegmentsClient.from_env() as client:
        segments = await client.list_segments()
        # shared=True: a workflow that is recovered elsewhere, beside a live one, works with it.
        async with client.open_bulk_export(
            segments,
            os.environ["NIGHT_FILES"],
            journal=os.environ["NIGHT_JOURNAL"],
            run=f"night-{night}",
            shared=True,
            only_changed=True,
        ) as run:
            report = await run.report()
    unfinished = sum(outcome.resumable for outcome in report.not_exported)
    if unfinished:
        raise UnfinishedError(f"{unfinished} segments of night {night}")
    # What is not exported is so for good: the next night asks again.
    return {"exported": len(report.exported), "not_exported": len(report.not_exported)}


@DBOS.workflow()
async def night(scheduled_at: datetime, context: Any) -> dict[str, int]:
    """One night. After the step come those that use the files."""
    del context
    return await export_night(scheduled_at.date().isoformat())


def launch() -> None:
    """Start DBOS: workflows of an earlier process of this name go on."""
    config: DBOSConfig = {
        "name": "segments",
        "system_database_url": os.environ["NIGHT_DATABASE"],
        "application_version": "1",  # a new release goes on with the last one's workflows
    }
    DBOS(config=config)
    DBOS.launch()
    DBOS.apply_schedules(
        [{"schedule_name": "segments", "workflow_fn": night, "schedule": "15 2 * * *"}]
    )


if __name__ == "__main__":
    launch()
    threading.Event().wait()
