"""A run whose journal is away for a while, by the sandbox's record."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from client.test_journal import sandbox_of
from client.vendor import all_whole, connected
from segments_async import (
    Exported,
    ExportTimeoutError,
    JournalError,
    NotExported,
    NotSubmittedError,
    Pacer,
    SegmentsClient,
)
from segments_async._http.api import SLOTS
from segments_async._journal.database import Database
from segments_async._journal.opened_run import OpenedRun
from segments_async._journal.refusals import Locked
from segments_async.client import statistics_of
from segments_async.sandbox import Fault, Sandbox

pytestmark = pytest.mark.alternating

GONE = JournalError("the server is gone", reason="unavailable", location="here")

#: Requests a second, so that a run of some hundred segments takes some seconds.
RATE = {"pacer": Pacer(rate=20)}


class Server:
    """The journal's database, which is away at times, by virtual time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.away: tuple[float, float] = (0.0, 0.0)
        self.error: Exception = GONE
        self._now: Callable[[], float] = lambda: 0.0
        for owner, name in ((OpenedRun, "append"), (OpenedRun, "finish"), (Database, "set_guard")):
            monkeypatch.setattr(owner, name, self._guarded(getattr(owner, name)))

    def _guarded(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def guarded(*args: Any) -> Any:
            if self.away[0] <= self.now < self.away[1]:
                raise self.error
            return call(*args)

        return guarded

    #: As a loop's task last saw it: threads have no loop.
    now: float = 0.0

    async def tick(self) -> None:
        while True:
            self.now = anyio.current_time()
            await anyio.sleep(0.05)


@pytest.fixture
def database(monkeypatch: pytest.MonkeyPatch) -> Server:
    return Server(monkeypatch)


class Session:
    """The outcomes of one session of a run, and the error that ended the session."""

    def __init__(self) -> None:
        self.outcomes: list[Any] = []
        self.error: JournalError | None = None

    @property
    def missing(self) -> list[NotExported]:
        return [o for o in self.outcomes if isinstance(o, NotExported)]

    @property
    def exported(self) -> list[Exported]:
        return [o for o in self.outcomes if isinstance(o, Exported)]

    async def run(
        self, client: SegmentsClient, ids: Any, folder: Path, database: Server, **options: Any
    ) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(database.tick)
            try:
                async with client.open_bulk_export(
                    ids, folder / "out", journal=folder / "runs.db", **options
                ) as run:
                    async for outcome in run:
                        self.outcomes.append(outcome)
            except JournalError as exc:
                self.error = exc
            tasks.cancel_scope.cancel()


async def session(sandbox: Sandbox, folder: Path, database: Server, **options: Any) -> Session:
    made = Session()
    async with connected(sandbox, pacer=Pacer(rate=20)) as client:
        await made.run(client, sandbox.segment_ids, folder, database, **options)
    return made


@pytest.mark.parametrize("error", [GONE, Locked("busy")], ids=["gone", "busy"])
@pytest.mark.parametrize("since", [0.5, 1.7])
async def test_an_absence_costs_nothing(
    error: Exception,
    since: float,
    tmp_path: Path,
    database: Server,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Whenever the journal is away for a minute, all is exported once, and a restart agrees."""
    caplog.set_level(logging.INFO, logger="segments_async")
    sandbox = sandbox_of(40, latency=0.3)
    database.away, database.error = (since, since + 60), error
    made = await session(sandbox, tmp_path, database, run="n")
    assert made.error is None
    assert all_whole(sandbox, made.exported)
    assert len(made.exported) == 40
    assert sandbox.record.duplicates() == {}
    words = [r.getMessage() for r in caplog.records if "the journal is" in r.getMessage()]
    assert ["away" in word for word in words] == [True, False]
    again = await session(sandbox, tmp_path, database, run="n")
    assert [o.source for o in again.exported] == ["resumed"] * 40
    assert len(sandbox.record.submits()) == 40


async def test_no_post_goes_out_meanwhile(tmp_path: Path, database: Server) -> None:
    """While the journal is away, polls and downloads continue, and waiting submits hold no slot."""
    sandbox = sandbox_of(200, latency=0.2)
    database.away = (3.0, 63.0)
    free: list[int] = []
    made = Session()
    async with (
        connected(sandbox, pacer=Pacer(rate=20)) as client,
        anyio.create_task_group() as tasks,
    ):

        async def look() -> None:
            await anyio.sleep(30)
            free.append(statistics_of(client)[0].free_slots)
            await client.list_segments()

        tasks.start_soon(look)
        await made.run(client, sandbox.segment_ids, tmp_path, database)
    posts = [e.at for e in sandbox.record.submits()]
    quiet = [at for at in posts if 3.5 < at - sandbox.record.submits()[0].at < 60]
    assert quiet == []
    assert len(made.exported) == 200
    assert sandbox.record.duplicates() == {}
    assert free == [SLOTS]
    polled = [e for e in sandbox.record.polls() if e.at - posts[0] > 4 and e.at - posts[0] < 60]
    assert polled


async def test_outcomes_come_meanwhile(tmp_path: Path, database: Server) -> None:
    """Exports requested before are fetched, and are outcomes, while the journal is away."""
    sandbox = sandbox_of(40)
    database.away = (1.0, 400.0)
    made = Session()
    async with (
        connected(sandbox, pacer=Pacer(rate=20)) as client,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(made.run, client, sandbox.segment_ids, tmp_path, database)
        await anyio.sleep(100)
        assert 5 < len(made.exported) < 40
        await anyio.sleep(400)
        assert len(made.exported) == 40
    assert sandbox.record.duplicates() == {}


async def test_one_that_never_comes_back(tmp_path: Path, database: Server) -> None:
    """The run ends with the error; each export with a known id is an outcome."""
    sandbox = sandbox_of(100, latency=1.0)
    sandbox.inject(Fault.cut(0), origin="files", times=10**6)
    database.away = (3.0, 1e9)
    made = await session(sandbox, tmp_path, database)
    assert made.error is not None
    assert made.error.reason == "unavailable"
    assert "away for 10 minutes" in str(made.error)
    assert len(made.outcomes) == 100
    posted = {e.segment_id for e in sandbox.record.submits()}
    assert 5 < len(posted) < 100
    for outcome in made.missing:
        if outcome.segment_id in posted:
            assert outcome.submitted == "yes"
            assert outcome.export is not None
        else:
            assert outcome.submitted == "no"
            assert isinstance(outcome.error, NotSubmittedError)
            assert outcome.resumable
    lines = (tmp_path / "out" / "manifest.jsonl").read_text().splitlines()
    written = {line["segment_id"]: line for line in map(json.loads, lines)}
    assert {i for i, line in written.items() if line["export_id"]} == posted


async def test_what_is_called_resumable_is(tmp_path: Path, database: Server) -> None:
    """An export that a later session can't know isn't called resumable; none is made twice."""
    sandbox = sandbox_of(60, latency=1.0)
    sandbox.inject(Fault.cut(0), origin="files", times=90)
    database.away = (3.0, 1e9)
    made = await session(sandbox, tmp_path, database)
    database.away = (0.0, 0.0)
    again = await session(sandbox, tmp_path, database)
    resumable = {o.segment_id for o in made.missing if o.resumable}
    assert {o.segment_id for o in again.missing} <= {
        o.segment_id for o in made.missing if not o.resumable
    }
    assert resumable <= {o.segment_id for o in again.exported}
    assert sandbox.record.duplicates() == {}


@pytest.mark.parametrize("seconds", [1.5, 30.0])
async def test_time_is_up_meanwhile(seconds: float, tmp_path: Path, database: Server) -> None:
    """The run's timeout ends the run also while the journal is away."""
    sandbox = sandbox_of(100, latency=0.2)
    database.away = (1.0, 1e9)
    made = Session()
    async with connected(sandbox, pacer=Pacer(rate=20)) as client:
        began = anyio.current_time()
        await made.run(client, sandbox.segment_ids, tmp_path, database, timeout=seconds)
        assert anyio.current_time() - began < seconds + 4
    assert len(made.outcomes) == 100
    kinds = {type(o.error) for o in made.missing}
    assert kinds <= {NotSubmittedError, ExportTimeoutError}
    database.away = (0.0, 0.0)
    again = await session(sandbox, tmp_path, database)
    assert sandbox.record.duplicates() == {}
    assert {o.segment_id for o in again.missing} <= {
        o.segment_id for o in made.missing if not o.resumable
    }


async def test_left_meanwhile(tmp_path: Path, database: Server) -> None:
    """Leaving the block is quick, and loses only events that the journal never got."""
    sandbox = sandbox_of(50, latency=0.2)
    database.away = (1.0, 1e9)
    outcomes: list[Any] = []
    async with (
        connected(sandbox, pacer=Pacer(rate=20)) as client,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(database.tick)
        async with client.open_bulk_export(
            sandbox.segment_ids, tmp_path / "out", journal=tmp_path / "runs.db"
        ) as run:
            await anyio.sleep(20)
            began = anyio.current_time()
        assert anyio.current_time() - began < 3
        outcomes.extend([o async for o in run])
        tasks.cancel_scope.cancel()
    assert len(outcomes) == 50


async def test_a_callers_export_is_shared_meanwhile(tmp_path: Path, database: Server) -> None:
    """A caller without a journal and the run share one export."""
    sandbox = sandbox_of(30, latency=0.2)
    database.away = (0.5, 60.0)
    made = Session()
    async with (
        connected(sandbox, pacer=Pacer(rate=20)) as client,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(made.run, client, sandbox.segment_ids, tmp_path, database)
        await anyio.sleep(10)
        last = sandbox.segment_ids[-1]
        file = await client.export(last, tmp_path / "single.csv")
        assert file.size
        assert len(made.exported) < 30
    assert len(made.exported) == 30
    assert len(sandbox.record.submits()) <= 31


async def test_a_guard_that_can_not_be_told(tmp_path: Path, database: Server) -> None:
    """A 500 while the journal is away delays this process, and is recorded later."""
    sandbox = sandbox_of(20, latency=0.2)
    sandbox.inject(
        Fault.status(500), method="POST", path="export/", segment_id=sandbox.segment_ids[5]
    )
    database.away = (0.2, 30.0)
    made = await session(sandbox, tmp_path, database)
    assert made.error is None
    assert len(made.outcomes) == 20
