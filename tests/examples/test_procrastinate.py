"""examples/procrastinate: a night as a job, one that fails for a segment, and a dead worker's."""

from __future__ import annotations

import importlib
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import psycopg
import pytest
from example_account import QUICK
from journal.server import PostgresServer
from procrastinate.exceptions import AlreadyEnqueued

from segments_async.sandbox import PAGE_ACCESS_TOKEN, PAGE_API_KEY, Durations, Fault, Sandbox
from segments_async.sandbox.server import SandboxServer

pytestmark = [pytest.mark.needs("PostgreSQL"), pytest.mark.real_time]

FOLDER = Path(__file__).parents[2] / "examples" / "procrastinate"
PATIENCE = 300.0  # seconds, for a test that hangs
NIGHT = int(datetime(2026, 11, 26, 2, 15, tzinfo=UTC).timestamp())


@pytest.fixture
def anyio_backend() -> str:
    """Procrastinate works on asyncio alone."""
    return "asyncio"


@pytest.fixture
async def night(
    postgres: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Any]:
    """The program, its queue in an empty database."""
    monkeypatch.setenv("NIGHT_DATABASE", postgres.schema())
    monkeypatch.setenv("NIGHT_FILES", str(tmp_path / "files"))
    monkeypatch.setenv("SEGMENTS_API_KEY", PAGE_API_KEY)
    monkeypatch.setenv("SEGMENTS_ACCESS_TOKEN", PAGE_ACCESS_TOKEN)
    monkeypatch.syspath_prepend(str(FOLDER))
    program = importlib.import_module("segments_night")
    try:
        # No night of the clock's: a job of its own would come between.
        program.app.periodic_registry.periodic_tasks.clear()
        async with program.app.open_async():
            await program.app.schema_manager.apply_schema_async()
            yield program
    finally:
        del sys.modules["segments_night"]


async def work(night: Any) -> None:
    """A worker that ends where no job is left to do."""
    await night.app.run_worker_async(queues=["segments"], wait=False, install_signal_handlers=False)


def jobs(database: str) -> list[str]:
    """The state of each night's job, in the order of the queue."""
    query = "SELECT status FROM procrastinate_jobs WHERE task_name LIKE %s ORDER BY id"
    with psycopg.connect(database) as connection:
        rows = connection.execute(query, ["%export_night"])
        return [status for (status,) in rows]


def kill_a_worker(sandbox: Sandbox) -> None:
    """Start a worker of its own process, and kill it once all exports are at the vendor."""
    program = "import segments_night as it; it.app.periodic_registry.periodic_tasks.clear();"
    program += "it.app.run_worker()"
    until = time.monotonic() + PATIENCE
    with subprocess.Popen([sys.executable, "-c", program], cwd=FOLDER) as worker:
        while len({entry.export_id for entry in sandbox.record.polls()}) < 4:
            assert time.monotonic() < until
            time.sleep(0.02)
        worker.kill()


async def test_two_nights(night: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A segment without a file fails the job, and the next night's job asks for it again."""
    sandbox = Sandbox(segments=4, rows=3, durations=QUICK)
    with SandboxServer(sandbox) as server:
        monkeypatch.setenv("SEGMENTS_BASE_URL", server.base_url)
        sandbox.inject(Fault.status(404), method="POST", segment_id=sandbox.segment_ids[2])
        await night.export_night.defer_async(timestamp=NIGHT)
        with pytest.raises(AlreadyEnqueued):
            await night.export_night.defer_async(timestamp=NIGHT)
        await work(night)
        assert jobs(night.DATABASE) == ["failed"]
        assert len(list((tmp_path / "files").glob("*.csv"))) == 3
        await night.export_night.defer_async(timestamp=NIGHT + 86_400)
        await work(night)
        assert jobs(night.DATABASE) == ["failed", "succeeded"]
    assert len(list((tmp_path / "files").glob("*.csv"))) == 4
    dynamic = {s.segment_id for s in sandbox.segments if s.type == "Dynamic"}
    assert sandbox.record.duplicates().keys() <= dynamic


async def test_a_dead_workers_night(
    night: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job of a killed worker is started again, goes on, and requests no export twice."""
    sandbox = Sandbox(segments=4, rows=3, durations=Durations(median=2.0, sigma=0))
    with SandboxServer(sandbox) as server:
        monkeypatch.setenv("SEGMENTS_BASE_URL", server.base_url)
        await night.export_night.defer_async(timestamp=NIGHT)
        await anyio.to_thread.run_sync(kill_a_worker, sandbox)
        with psycopg.connect(night.DATABASE) as connection:  # half a minute later
            connection.execute(
                "UPDATE procrastinate_workers SET last_heartbeat = now() - interval '31 s'"
            )
        await night.retry_stalled.defer_async(timestamp=NIGHT)
        await work(night)
        assert jobs(night.DATABASE) == ["succeeded"]
    files = (tmp_path / "files").glob("*.csv")
    assert {f.read_bytes() for f in files} == {sandbox.content(s) for s in sandbox.segment_ids}
    assert len(sandbox.record.submits()) == 4
