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
import contextlib
import json
import os
import sys
from collections.abc import AsyncGenerator
from datetime import UTC, datetime

import anyio
import psycopg
from anyio.streams.memory import MemoryObjectReceiveStream

from segments_async import (
    Completed,
    DownloadError,
    Export,
    ExportBody,
    SegmentsClient,
    SegmentsError,
)

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


@contextlib.asynccontextmanager
async def connected(database: str) -> AsyncGenerator[psycopg.AsyncConnection]:
    """One connection for each segment: none is idle for the hours that an export may take."""
    # Shielded: of a connection that is cancelled while it is made, psycopg leaves the socket open.
    with anyio.CancelScope(shield=True) as scope:
        connection = await psycopg.AsyncConnection.connect(
            database, autocommit=True, connect_timeout=30
        )
        scope.shield = False
        try:
            yield connection
        finally:
            # `async with connection` would send a ROLLBACK first. Where that is cancelled, psycopg
            # leaves the connection open.
            await connection.close()


async def replace(connection: psycopg.AsyncConnection, body: ExportBody) -> None:
    """Put the rows of the body in the place of the segment's: all of them, or none."""
    segment = body.export.segment
    key = {"segment_id": segment.segment_id}
    count = 0
    async with connection.transaction():
        named = {**key, "export_id": body.export.export_id, "name": segment.name}
        await connection.execute(BEGIN, named)
        await connection.execute("DELETE FROM segment_rows WHERE segment_id = %(segment_id)s", key)
        async with connection.cursor().copy("COPY segment_rows FROM STDIN") as copy:
            async for row in body.rows():
                await copy.write_row((segment.segment_id, json.dumps(row, ensure_ascii=False)))
                count += 1
        await connection.execute(
            "UPDATE segment_loads SET rows = %(rows)s WHERE segment_id = %(segment_id)s",
            {**key, "rows": count},
        )


async def load(client: SegmentsClient, database: str, export: Export) -> None:
    """Read the export's file into the database, unless it is there."""
    async with connected(database) as connection:
        query = "SELECT 1 FROM segment_loads WHERE segment_id = %s AND export_id = %s"
        found = await connection.execute(query, (export.segment.segment_id, export.export_id))
        if await found.fetchone() is not None:
            return
        for attempt in range(1, ATTEMPTS + 1):
            try:
                async with client.open_export(export) as body:
                    await replace(connection, body)
            except DownloadError as error:
                if error.reason != "broken" or attempt == ATTEMPTS:
                    raise
                await anyio.sleep(PAUSE)
            else:
                return


async def load_segments(client: SegmentsClient, database: str, run: str) -> dict[str, str]:
    """Export all segments, and load their rows.

    Args:
        client: of the account.
        database: the URL of the database, `postgresql://...`. The journal is there, too.
        run: the run's name in the journal.

    Returns:
        by segment id, why its rows are not loaded.

    Raises:
        SegmentsError: of the account, or of the journal.
        ExceptionGroup: of psycopg's errors, where the database failed.
    """
    failed: dict[str, str] = {}
    async with connected(database) as connection:
        await connection.execute(TABLES)
    segments = await client.list_segments()

    async def loader(exports: MemoryObjectReceiveStream[Export]) -> None:
        async with exports:
            async for export in exports:
                try:
                    await load(client, database, export)
                except SegmentsError as error:
                    failed[export.segment.segment_id] = str(error)
                except psycopg.errors.UntranslatableCharacter:
                    # The other segments go on. The error isn't shown: it has the row, so the data
                    # of a user.
                    failed[export.segment.segment_id] = "a row has a NUL, which no jsonb can hold"

    async with (
        client.open_bulk_export(segments, None, journal=database, run=run) as outcomes,
        anyio.create_task_group() as tasks,
    ):
        # A stream without a buffer: exports wait at the vendor until a loader is free.
        send, receive = anyio.create_memory_object_stream[Export]()
        async with send:
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
