r"""Each night: export what has run since the last night. For Airflow 3.2 or later.

Install `segments-async[journal]` where Airflow's workers run, put this file into the folder of the
DAGs, and make the connection `segments`:

    airflow connections add segments --conn-type generic \
        --conn-login API_KEY --conn-password ACCESS_TOKEN \
        --conn-extra '{"to": "/srv/exports", "journal": "postgresql://user:password@host/database"}'

`to` is a directory that outlives the worker: on a file system that all workers have, if there are
several. `journal` is a database that outlives the worker. Without it, the journal is the SQLite
file `/srv/exports.journal.db`, which is right for one machine.

The task is an async function, which Airflow runs in an event loop on the worker. A worker that is
killed loses nothing: the next try continues the run, by its journal, and requests no export twice.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import BaseHook, dag, task


@task(
    retries=3,
    retry_delay=timedelta(minutes=15),
    execution_timeout=timedelta(hours=12),  # of each try; what is unfinished stays resumable
)
async def export() -> dict[str, Any]:
    """Export to files. Fails, and is tried again, where a segment has no file."""
    from segments_async import SegmentsClient  # not at each parsing of the folder

    account = await BaseHook.aget_connection("segments")
    options = account.extra_dejson
    to = Path(options["to"])
    base_url = {"base_url": account.host} if account.host else {}
    async with SegmentsClient(account.login or "", account.password or "", **base_url) as client:
        report = await client.bulk_export(
            await client.list_segments(),
            to,
            journal=options.get("journal", to.with_suffix(".journal.db")),
            only_changed=True,
            retry_failed=1,
        )
    report.raise_for_errors()
    return report.progress.to_dict()  # the result that Airflow keeps: counts alone


@dag(
    schedule="15 2 * * *",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,  # a night that was missed is in the next one
    max_active_runs=1,  # a run of the journal belongs to one process
)
def segments_nightly() -> None:
    """One task: the library divides the work, and keeps the vendor's limit."""
    export()


segments_nightly()
