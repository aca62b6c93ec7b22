"""examples/rows_to_duckdb.py: rows of the right segments, once each, whatever breaks off."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anyio
import duckdb
import pytest
import rows_to_duckdb
from client.vendor import STEADY, connected
from example_account import rows_of

from segments_async.sandbox import Fault, Sandbox


def loaded(database: Path) -> dict[str, list[dict[str, str]]]:
    """By segment id, the rows in the database, in their order."""
    found: dict[str, list[Any]] = {}
    with duckdb.connect(str(database), read_only=True) as connection:
        rows = connection.execute("SELECT * FROM segment_rows ORDER BY rowid").fetchall()
        loads = connection.execute("SELECT segment_id, rows FROM segment_loads").fetchall()
    for segment_id, row in rows:
        found.setdefault(segment_id, []).append(json.loads(row))
    assert dict(loads) == {segment_id: len(rows) for segment_id, rows in found.items()}
    return found


async def run(sandbox: Sandbox, database: Path, name: str = "night") -> dict[str, str]:
    async with connected(sandbox) as client:
        return await rows_to_duckdb.load_segments(client, database, name)


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "segments.duckdb"


async def test_all_rows(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each segment's rows are those of its file, over several batches, and no file is left."""
    monkeypatch.setattr(rows_to_duckdb, "BATCH", 64)
    sandbox = Sandbox(segments=4, rows=200, durations=STEADY)
    assert await run(sandbox, database) == {}
    assert loaded(database) == {one: rows_of(sandbox, one) for one in sandbox.segment_ids}
    assert [path.suffix for path in database.parent.iterdir() if path.suffix == ".csv"] == []


async def test_a_second_run(database: Path) -> None:
    """A run given again requests and reads nothing; the next night's replaces the rows."""
    sandbox = Sandbox(segments=3, rows=20, durations=STEADY)
    for name in ("monday", "monday", "tuesday"):
        assert await run(sandbox, database, name) == {}
    assert loaded(database) == {one: rows_of(sandbox, one, 1) for one in sandbox.segment_ids}
    assert set(sandbox.record.exports_per_segment().values()) == {2}
    assert len(sandbox.record.files()) == 6


async def test_a_broken_connection(database: Path) -> None:
    """A file that breaks off is read again, and none of its rows are there twice."""
    sandbox = Sandbox(segments=2, rows=200, durations=STEADY)
    sandbox.inject(Fault.cut(5_000), origin="files")
    assert await run(sandbox, database) == {}
    assert loaded(database) == {one: rows_of(sandbox, one) for one in sandbox.segment_ids}


async def test_a_broken_night(database: Path) -> None:
    """A segment without a file keeps its rows of the night before, and is reported."""
    sandbox = Sandbox(segments=3, rows=20, durations=STEADY)
    assert await run(sandbox, database, "monday") == {}
    failing, broken, whole = sandbox.segment_ids
    sandbox.fail_next(failing)
    sandbox.inject(Fault.cut(100), origin="files", segment_id=broken, times=99)
    assert (await run(sandbox, database, "tuesday")).keys() == {failing, broken}
    assert loaded(database) == {
        failing: rows_of(sandbox, failing),
        broken: rows_of(sandbox, broken),
        whole: rows_of(sandbox, whole, 1),
    }


async def test_a_cancelled_load(database: Path) -> None:
    """A load that is cancelled leaves no half segment, and the run given again goes on."""
    sandbox = Sandbox(segments=2, rows=200, durations=STEADY)
    sandbox.inject(Fault.slow(3600), origin="files", skip=1)
    async with connected(sandbox) as client:
        with anyio.move_on_after(60):
            await rows_to_duckdb.load_segments(client, database, "night")
    assert len(loaded(database)) == 1
    assert await run(sandbox, database) == {}
    assert loaded(database) == {one: rows_of(sandbox, one) for one in sandbox.segment_ids}
    assert sandbox.record.duplicates() == {}
