"""The rows of all segments in PostgreSQL: streamed from storage, with no file in between.

    pip install 'segments-async[journal]' 'psycopg[binary]'
    export SEGMENTS_API_KEY=... SEGMENTS_ACCESS_TOKEN=...
    export DATABASE_URL=postgresql://user:password@host/database
    python rows_to_postgresql.py [RUN]

The vendor doesn't describe a file's columns, so a row is a JSON object: `row ->> 'email'`. Each
segment is one transaction: its rows of before stay until its new ones are all there. The journal is
in the same database. A run that broke off goes on when it is given again by its name (the date,
unless you give another): no export is requested twice, and what is loaded isn't read again.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from datetime import UTC, datetime

import anyio
import psycopg
from anyio.streams.memory import MemoryObjectReceiveStream

from segments_async import Completed, DownloadError, Export, SegmentsClient, SegmentsError

#: Segments that are loaded at once, each over a connection of its own.
LOADERS = 4

#: Attempts to read a file whose connection breaks off. A failed one leaves nothing in the database.
ATTEMPTS = 3

#: Seconds between two attempts.
PAUSE = 2.0

TABLES = """
CREATE TABLE IF NOT EXISTS segment_loads (
    segment_id text PRIMARY KEY,
    export_id text NOT NULL,
    name text NOT NULL,
    rows bigint NOT NULL,
    loaded_at timestamptz NOT NULL
);
CREATE TABLE IF NOT EXISTS segment_rows (segment_id text NOT NULL, row jsonb NOT NULL);
CREATE INDEX IF NOT EXISTS segment_rows_segment_id ON segment_rows (segment_id);
"""

#: The first statement of a segment's transaction: a second loader of the segment waits for its end.
BEGIN = """
INSERT INTO segment_loads VALUES (%(segment_id)s, %(export_id)s, %(name)s, 0, now())
ON CONFLICT (segment_id) DO UPDATE
SET export_id = excluded.export_id, name = excluded.name, loaded_at = excluded.loaded_at
"""


class Loader:
    """Loads segments over one connection to the database.

    Attributes:
        failed: by segment id, why its rows are not loaded.
    """

    def __init__(
        self, client: SegmentsClient, connection: psycopg.AsyncConnection, failed: dict[str, str]
    ) -> None:
        self._client = client
        self._connection = connection
        self.failed = failed

    async def load_all(self, exports: MemoryObjectReceiveStream[Export]) -> None:
        """Load each export that comes. An error of one is kept; one of the database is raised."""
        async for export in exports:
            if await self._is_loaded(export):
                continue
            try:
                await self._load_patiently(export)
            except SegmentsError as error:
                self.failed[export.segment.segment_id] = str(error)

    async def _is_loaded(self, export: Export) -> bool:
        query = "SELECT 1 FROM segment_loads WHERE segment_id = %s AND export_id = %s"
        found = await self._connection.execute(query, (export.segment.segment_id, export.export_id))
        return await found.fetchone() is not None

    async def _load_patiently(self, export: Export) -> None:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                await self._load(export)
            except DownloadError as error:
                if error.reason != "broken" or attempt == ATTEMPTS:
                    raise
                await anyio.sleep(PAUSE)
            else:
                return

    async def _load(self, export: Export) -> None:
        segment = export.segment
        key = {"segment_id": segment.segment_id}
        count = 0
        async with self._client.open_export(export) as body, self._connection.transaction():
            await self._connection.execute(
                BEGIN, {**key, "export_id": export.export_id, "name": segment.name}
            )
            await self._connection.execute(
                "DELETE FROM segment_rows WHERE segment_id = %(segment_id)s", key
            )
            async with self._connection.cursor().copy("COPY segment_rows FROM STDIN") as copy:
                async for row in body.rows():
                    await copy.write_row((segment.segment_id, json.dumps(row, ensure_ascii=False)))
                    count += 1
            await self._connection.execute(
                "UPDATE segment_loads SET rows = %(rows)s WHERE segment_id = %(segment_id)s",
                {**key, "rows": count},
            )


async def load_segments(client: SegmentsClient, database: str, run: str) -> dict[str, str]:
    """Export all segments, and load their rows.

    Args:
        client: of the account.
        database: the URL of the database, `postgresql://...`.
        run: the run's name in the journal.

    Returns:
        by segment id, why its rows are not loaded.

    Raises:
        SegmentsError: of the account, or of the journal.
        ExceptionGroup: of psycopg's errors, where the database failed.
    """
    failed: dict[str, str] = {}
    async with await psycopg.AsyncConnection.connect(database, autocommit=True) as connection:
        await connection.execute(TABLES)
    segments = await client.list_segments()
    # A stream without a buffer: the exports wait at the vendor until a loader is free.
    send, receive = anyio.create_memory_object_stream[Export]()

    async def loader(exports: MemoryObjectReceiveStream[Export]) -> None:
        connecting = psycopg.AsyncConnection.connect(database, autocommit=True)
        async with exports, await connecting as connection:
            await Loader(client, connection, failed).load_all(exports)

    async with (
        client.open_bulk_export(segments, None, journal=database, run=run) as outcomes,
        anyio.create_task_group() as tasks,
        send,
    ):
        for _ in range(LOADERS):
            tasks.start_soon(loader, receive.clone())
        receive.close()
        async for outcome in outcomes:
            if isinstance(outcome, Completed):
                await send.send(outcome.export)
            else:
                failed[outcome.segment_id] = str(outcome.error)
    return failed


async def main(run: str) -> int:
    async with SegmentsClient.from_env() as client:
        failed = await load_segments(client, os.environ["DATABASE_URL"], run)
    for segment_id, error in failed.items():
        print(f"{segment_id}: {error}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    name = sys.argv[1] if len(sys.argv) > 1 else f"rows-{datetime.now(UTC):%Y-%m-%d}"
    sys.exit(asyncio.run(main(name)))  # psycopg's connections are asyncio's
