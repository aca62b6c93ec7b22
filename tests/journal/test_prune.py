"""Deleting runs in small steps, beside processes that write."""

from __future__ import annotations

import contextlib
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio
import pytest

from journal.lives import ACCOUNT, GOES_WELL, live, opened, run_of
from journal.test_sql import rows
from segments_async._journal import pruning
from segments_async._journal.database import Database
from segments_async._sansio.jobs.lifecycle import Event

pytestmark = pytest.mark.alternating

TOMORROW = datetime.now(UTC) + timedelta(days=1)


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pruning, "_EVENTS_AT_ONCE", 7)


async def filled(where: str, *names: str, segments: int = 10) -> None:
    for name in names:
        async with run_of(await opened(where), name) as log:
            async with anyio.create_task_group() as tasks:
                for number in range(segments):
                    tasks.start_soon(live, log, f"s{number}", GOES_WELL)
            await log.finish()


async def test_steps(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No transaction deletes more than a few events, and nothing is left at the end."""
    await filled(where, "one", "two")
    journal = await opened(where)
    delete_some, steps = pruning.delete_some, []

    def counted(database: Database, run_id: int) -> bool:
        before = rows(where, "SELECT count(*) FROM segments_async_events")[0][0]
        left = delete_some(database, run_id)
        steps.append(before - rows(where, "SELECT count(*) FROM segments_async_events")[0][0])
        return left

    monkeypatch.setattr(pruning, "delete_some", counted)
    assert await journal.prune(TOMORROW) == 2
    assert sum(steps) == 2 * 10 * len(GOES_WELL)
    assert max(steps) == 7
    assert rows(where, "SELECT * FROM segments_async_runs") == []


@pytest.mark.parametrize("steps", range(4))
async def test_killed_in_the_middle(where: str, steps: int) -> None:
    """A half-deleted run is not listed, used, or damage; the next prune deletes the rest."""
    await filled(where, "nightly")
    journal = await opened(where)
    database = Database.open(where, ACCOUNT)
    [run_id] = pruning.old_runs(database, TOMORROW)
    assert pruning.hide(database, run_id)
    for _ in range(steps):
        assert pruning.delete_some(database, run_id)
    assert database.runs() == []
    assert database.last_files(["s0", "s9"], "/exports") == {}
    async with run_of(await opened(where), "nightly") as log:
        assert not log.finished
        await live(log, "new", [Event.INTENT])
    assert await journal.prune(datetime.now(UTC) - timedelta(days=1)) == 0
    assert rows(where, "SELECT segment_id FROM segments_async_events") == [("new",)]
    [left] = database.runs()
    assert (left.exported, left.unfinished) == (0, 1)


async def test_cancelled_in_the_middle(where: str) -> None:
    """A prune that is cancelled after a step leaves the rest to the next prune."""
    await filled(where, "one", segments=30)
    journal = await opened(where)
    with anyio.move_on_after(0.05) as scope:
        await journal.prune(TOMORROW)
    assert scope.cancelled_caught
    assert 0 < rows(where, "SELECT count(*) FROM segments_async_events")[0][0] < 150
    assert await journal.prune(TOMORROW) == 0
    assert rows(where, "SELECT * FROM segments_async_events") == []


async def test_a_live_run_beside_it(where: str) -> None:
    """A live run writes during a prune, and its log is whole afterwards."""
    await filled(where, "old", segments=30)
    journal = await opened(where)
    async with run_of(await opened(where), "live") as log, anyio.create_task_group() as tasks:
        tasks.start_soon(journal.prune, TOMORROW)
        for number in range(30):
            await live(log, f"s{number}", GOES_WELL)
        assert not log.away
    [left] = Database.open(where, ACCOUNT).runs()
    assert (left.name, left.exported, left.unfinished) == ("live", 30, 0)
    async with run_of(await opened(where), "live") as log:
        assert len(log.run_state.records) == 30


async def test_a_file_shrinks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A journal of this version gives space back; an older one uses the space again."""
    monkeypatch.setattr(pruning, "_EVENTS_AT_ONCE", 500)
    sizes = {}
    for name in ("new", "old"):
        path = tmp_path / f"{name}.db"
        await opened(path)
        if name == "old":
            with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
                connection.execute("PRAGMA auto_vacuum = NONE")
                connection.execute("VACUUM")
        await filled(str(path), "one", segments=150)
        before = path.stat().st_size
        await (await opened(path)).prune(TOMORROW)
        sizes[name] = path.stat().st_size / before
    assert sizes["new"] < 0.5
    assert sizes["old"] == 1
