"""examples/rows_to_postgresql.py: rows of the right segments, once each, whatever breaks off."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import anyio
import psycopg
import psycopg.waiting
import pytest
import rows_to_postgresql
from example_account import QUICK, client_of, rows_of
from forked import Forked, ForkServer
from journal.server import PostgresServer

from segments_async.sandbox import PAGE_ACCESS_TOKEN, PAGE_API_KEY, Fault, Sandbox
from segments_async.sandbox.server import SandboxServer

pytestmark = [pytest.mark.needs("PostgreSQL"), pytest.mark.real_time]

PATIENCE = 300.0  # seconds, for a test that hangs


@pytest.fixture
def anyio_backend() -> str:
    """Connections of psycopg work on asyncio alone."""
    return "asyncio"


@pytest.fixture
def database(postgres: PostgresServer) -> str:
    return postgres.schema()


def loaded(database: str) -> dict[str, list[dict[str, str]]]:
    """By segment id, the rows in the database, by their users' ids, which is the file's order.

    A table has no order: PostgreSQL puts new rows into the pages that deleted ones have left.
    """
    found: dict[str, list[Any]] = {}
    with psycopg.connect(database) as connection:
        query = "SELECT segment_id, row FROM segment_rows ORDER BY row->>'user_id' COLLATE \"C\""
        rows = connection.execute(query)
        for segment_id, row in rows:
            found.setdefault(segment_id, []).append(row)
        loads = connection.execute("SELECT segment_id, rows FROM segment_loads").fetchall()
    assert dict(loads) == {segment_id: len(rows) for segment_id, rows in found.items()}
    return found


async def run(server: SandboxServer, database: str, name: str = "night") -> dict[str, str]:
    async with client_of(server) as client:
        with anyio.fail_after(PATIENCE):
            return await rows_to_postgresql.load_segments(client, database, name)


async def test_two_nights(database: str) -> None:
    """Rows are those of the files; a run given again reads nothing, the next one replaces them."""
    with SandboxServer(Sandbox(segments=6, rows=200, durations=QUICK)) as server:
        sandbox = server.sandbox
        for name in ("monday", "monday"):
            assert await run(server, database, name) == {}
            assert loaded(database) == {one: rows_of(sandbox, one) for one in sandbox.segment_ids}
        assert len(sandbox.record.files()) == 6
        assert await run(server, database, "tuesday") == {}
        assert loaded(database) == {one: rows_of(sandbox, one, 1) for one in sandbox.segment_ids}


async def test_what_breaks(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that breaks off is read again; a failed segment keeps its rows, and is reported."""
    monkeypatch.setattr(rows_to_postgresql, "ATTEMPTS", 2)
    monkeypatch.setattr(rows_to_postgresql, "PAUSE", 0.0)
    with SandboxServer(Sandbox(segments=4, rows=200, durations=QUICK)) as server:
        sandbox = server.sandbox
        assert await run(server, database, "monday") == {}
        failing, broken, once, whole = sandbox.segment_ids
        sandbox.fail_next(failing)
        sandbox.inject(Fault.cut(5_000), origin="files", segment_id=broken, times=2)
        sandbox.inject(Fault.cut(5_000), origin="files", segment_id=once)
        assert (await run(server, database, "tuesday")).keys() == {failing, broken}
    assert loaded(database) == {
        failing: rows_of(sandbox, failing),
        broken: rows_of(sandbox, broken),
        once: rows_of(sandbox, once, 1),
        whole: rows_of(sandbox, whole, 1),
    }


async def test_a_row_that_the_database_refuses(database: str) -> None:
    """A NUL, which jsonb can't hold, fails its segment alone; no data of the row are shown."""
    nul = Fault.changed(lambda body: body[:-2] + b"\0" + body[-2:])
    with SandboxServer(Sandbox(segments=3, rows=20, durations=QUICK)) as server:
        first, *others = server.sandbox.segment_ids
        server.sandbox.inject(nul, origin="files", segment_id=first)
        failed = await run(server, database)
        assert failed == {first: "a row has a NUL, which no jsonb can hold"}
        assert loaded(database).keys() == set(others)
        assert await run(server, database) == {}
    assert loaded(database).keys() == {first, *others}


async def test_a_database_that_refuses(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the database fails, the program ends with its error, and the run goes on afterwards."""
    # Each statement waits for the event loop, as on a busy one: all of them can be cancelled.
    monkeypatch.setattr(psycopg.waiting, "MAX_BUSY_TIME", 0.0, raising=False)
    with SandboxServer(Sandbox(segments=3, rows=20, durations=QUICK)) as server:
        with psycopg.connect(database, autocommit=True) as connection:
            connection.execute("CREATE TABLE segment_rows (segment_id text)")
            with pytest.raises(ExceptionGroup) as caught:
                await run(server, database)
            assert caught.group_contains(psycopg.Error)
            connection.execute("DROP TABLE segment_rows")
        assert await run(server, database) == {}
        assert server.sandbox.record.duplicates() == {}
        expected = {one: rows_of(server.sandbox, one) for one in server.sandbox.segment_ids}
    assert loaded(database) == expected


def test_as_a_program(fork_server: ForkServer, database: str, tmp_path: Path) -> None:
    """The program exits with 1 where a segment isn't loaded, and names it and the reason."""
    account = {"SEGMENTS_API_KEY": PAGE_API_KEY, "SEGMENTS_ACCESS_TOKEN": PAGE_ACCESS_TOKEN}
    with SandboxServer(Sandbox(segments=3, rows=5, durations=QUICK)) as server:
        failing = server.sandbox.segment_ids[1]
        server.sandbox.fail_next(failing)
        process = Forked(
            fork_server,
            program=rows_to_postgresql.__file__,
            cwd=tmp_path,
            env={
                **os.environ,
                **account,
                "SEGMENTS_BASE_URL": server.base_url,
                "DATABASE_URL": database,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out) == (1, "")
    assert failing in err
    assert len(loaded(database)) == 2
