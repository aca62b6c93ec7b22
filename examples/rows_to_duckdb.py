"""The rows of all segments in a DuckDB database: streamed from storage, with no file in between.

    pip install 'segments-async[journal]' duckdb
    export SEGMENTS_API_KEY=... SEGMENTS_ACCESS_TOKEN=...
    python rows_to_duckdb.py segments.duckdb [RUN]
    duckdb segments.duckdb "SELECT row ->> 'email' FROM segment_rows LIMIT 10"

The vendor doesn't describe a file's columns, so a row is a JSON object. Each segment is one
transaction: its rows of before stay until its new ones are all there. The journal is beside the
database. A run that broke off goes on when it is given again by its name (the date, unless you give
another): no export is requested twice, and what is loaded isn't read again.
"""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import anyio
import anyio.to_thread
import duckdb

from segments_async import Completed, DownloadError, Export, SegmentsClient, SegmentsError

#: Rows that are in memory at once. DuckDB takes some 350 000 rows a second in such batches, and
#: 2 400 one by one.
BATCH = 5_000

#: The most memory of DuckDB itself, which would take up to 80 % of the machine's. With a file of
#: 205 MB, the program needs 255 MiB in all.
MEMORY = "256MB"

#: Attempts to read a file whose connection breaks off. A failed one leaves nothing in the database.
ATTEMPTS = 3

#: Seconds between two attempts.
PAUSE = 2.0

TABLES = """
CREATE TABLE IF NOT EXISTS segment_loads (
    segment_id VARCHAR PRIMARY KEY,
    export_id VARCHAR NOT NULL,
    name VARCHAR NOT NULL,
    rows BIGINT NOT NULL,
    loaded_at TIMESTAMPTZ NOT NULL
);
CREATE TABLE IF NOT EXISTS segment_rows (segment_id VARCHAR NOT NULL, row JSON NOT NULL);
"""


class Tables:
    """The two tables, by one connection. DuckDB is synchronous: its work is done in a thread."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection

    async def create(self) -> None:
        """Create the tables, unless they are there."""
        await self._execute(TABLES)

    async def is_loaded(self, export: Export) -> bool:
        """Whether the rows are those of this export."""
        query = "SELECT count(*) FROM segment_loads WHERE segment_id = $1 AND export_id = $2"
        return await self._execute(query, [export.segment.segment_id, export.export_id]) == (1,)

    async def replace(self, export: Export, rows: AsyncIterator[dict[str, str]]) -> None:
        """Put these rows in the place of the segment's: all of them, or none."""
        await self._execute("BEGIN")
        try:
            await self._replace(export, rows)
            await self._execute("COMMIT")
        except BaseException:
            with anyio.CancelScope(shield=True):
                await self._execute("ROLLBACK")
            raise

    async def _replace(self, export: Export, rows: AsyncIterator[dict[str, str]]) -> None:
        segment = export.segment
        await self._execute("DELETE FROM segment_rows WHERE segment_id = $1", [segment.segment_id])
        count = 0
        batch: list[str] = []
        async for row in rows:
            batch.append(json.dumps(row, ensure_ascii=False))
            count += 1
            if len(batch) == BATCH:
                await self._append(segment.segment_id, batch)
                batch = []
        await self._append(segment.segment_id, batch)
        await self._execute(
            "INSERT OR REPLACE INTO segment_loads VALUES ($1, $2, $3, $4, now())",
            [segment.segment_id, export.export_id, segment.name, count],
        )

    async def _append(self, segment_id: str, batch: list[str]) -> None:
        query = "INSERT INTO segment_rows SELECT $1, unnest($2::VARCHAR[])::JSON"
        await self._execute(query, [segment_id, batch])

    async def _execute(self, query: str, values: list[object] | None = None) -> object:
        """The first row of the result, if the statement has one."""
        return await anyio.to_thread.run_sync(
            lambda: self._connection.execute(query, values).fetchone()
        )


async def load(client: SegmentsClient, tables: Tables, export: Export) -> None:
    """Read the export's file into the tables, unless it is there."""
    if await tables.is_loaded(export):
        return
    for attempt in range(1, ATTEMPTS + 1):
        try:
            async with client.open_export(export) as body:
                await tables.replace(export, body.rows())
        except DownloadError as error:
            if error.reason != "broken" or attempt == ATTEMPTS:
                raise
            await anyio.sleep(PAUSE)
        else:
            return


async def load_segments(client: SegmentsClient, database: Path, run: str) -> dict[str, str]:
    """Export all segments, and load their rows, one segment after the other.

    Args:
        client: of the account.
        database: the path of the database. The journal is beside it.
        run: the run's name in the journal.

    Returns:
        by segment id, why its rows are not loaded.

    Raises:
        SegmentsError: of the account, or of the journal.
        duckdb.Error: the database failed.
    """
    failed: dict[str, str] = {}
    segments = await client.list_segments()
    journal = database.with_suffix(".journal.db")
    connection = await anyio.to_thread.run_sync(
        partial(duckdb.connect, str(database), config={"memory_limit": MEMORY})
    )
    with connection:
        tables = Tables(connection)
        await tables.create()
        async with client.open_bulk_export(segments, None, journal=journal, run=run) as outcomes:
            async for outcome in outcomes:
                if not isinstance(outcome, Completed):
                    failed[outcome.segment_id] = str(outcome.error)
                    continue
                try:
                    await load(client, tables, outcome.export)
                except SegmentsError as error:
                    failed[outcome.segment_id] = str(error)
    return failed


async def main(database: Path, run: str) -> int:
    async with SegmentsClient.from_env() as client:
        failed = await load_segments(client, database, run)
    for segment_id, error in failed.items():
        print(f"{segment_id}: {error}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("usage: rows_to_duckdb.py DATABASE [RUN]")
    name = sys.argv[2] if len(sys.argv) > 2 else f"rows-{datetime.now(UTC):%Y-%m-%d}"
    sys.exit(anyio.run(main, Path(sys.argv[1]), name))
