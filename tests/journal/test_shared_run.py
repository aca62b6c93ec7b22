"""A run that several processes share: by the sandbox's record, no segment is requested twice."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest
from client.vendor import STEADY, all_whole, connected
from reliability.crew import Plan, share
from reliability.judge import load
from reliability.lies import of_locks
from reliability.processes import die_everywhere, session_server
from reliability.victim import Job
from sqlalchemy import Connection, event

from segments_async import (
    BulkReport,
    BulkRun,
    ConfigurationError,
    Exported,
    Journal,
    JournalError,
    NotExported,
    RunSpec,
    Segment,
    SegmentsClient,
    SubmitUnknownError,
)
from segments_async._journal import shared
from segments_async._journal.claiming import claim
from segments_async._journal.database import Database
from segments_async._journal.sql import SqlJournal
from segments_async._run.bulk_run import file_names
from segments_async._run.resources import account_of
from segments_async.sandbox import (
    API_ORIGIN,
    PAGE_API_KEY,
    Durations,
    Fault,
    Sandbox,
    TokenBucket,
)
from segments_async.sandbox.server import SandboxServer

POST: dict[str, Any] = {"method": "POST", "path": "export/"}

Outcome = Exported | NotExported


class Process:
    """One process's work at the run: a client of its own, in the test's own process."""

    def __init__(self, client: SegmentsClient, run: BulkRun[Any]) -> None:
        self.client = client
        self.run = run
        self.outcomes: list[Outcome] = []

    async def work(self) -> BulkReport[Any]:
        """Iterate to the end, and return the report."""
        async for outcome in self.run:
            self.outcomes.append(outcome)
        return await self.run.report()


@asynccontextmanager
async def joined(
    sandbox: Sandbox,
    where: str,
    to: Path | None,
    segments: Sequence[Segment | str] | None = None,
    client: dict[str, Any] | None = None,
    **options: Any,
) -> AsyncIterator[Process]:
    """A process that has joined the run `nightly`."""
    destination: Any = to
    async with (
        connected(sandbox, **(client or {})) as own,
        own.open_bulk_export(
            sandbox.segment_ids if segments is None else segments,
            destination,
            journal=where,
            run="nightly",
            shared=True,
            **options,
        ) as run,
    ):
        yield Process(own, run)


async def all_join(
    sandbox: Sandbox, where: str, to: Path | None, processes: int = 2, **options: Any
) -> tuple[list[BulkReport[Any]], list[list[Outcome]]]:
    """Several processes join at once, and work to the end."""
    reports: list[BulkReport[Any]] = []
    outcomes: list[list[Outcome]] = []

    async def work() -> None:
        async with joined(sandbox, where, to, **options) as process:
            reports.append(await process.work())
            outcomes.append(process.outcomes)

    async with anyio.create_task_group() as tasks:
        for _ in range(processes):
            tasks.start_soon(work)
    return reports, outcomes


def sandbox_of(segments: int = 60, **options: Any) -> Sandbox:
    return Sandbox(segments=segments, rows=5, durations=STEADY, **options)


def ids(outcomes: Collection[Outcome]) -> list[str]:
    return sorted(outcome.segment_id for outcome in outcomes)


def posted_once(sandbox: Sandbox) -> bool:
    """Whether each segment has one export, and no POST that may have acted was repeated."""
    made = sandbox.record.exports_per_segment()
    return sandbox.record.duplicates() == {} and sorted(made) == sorted(sandbox.segment_ids)


async def opened(where: str) -> Journal:
    return await Journal.open(where, api_key=PAGE_API_KEY, base_url=API_ORIGIN)


# One run, several processes.


@pytest.mark.alternating
async def test_two_processes_join_one_run(where: str, tmp_path: Path) -> None:
    """Each outcome is yielded once, by the process that did the work; each report has all."""
    sandbox = sandbox_of()
    reports, outcomes = await all_join(sandbox, where, tmp_path / "out")
    assert posted_once(sandbox)
    assert ids([*outcomes[0], *outcomes[1]]) == sorted(sandbox.segment_ids)
    assert min(map(len, outcomes)) >= 20
    for report, own in zip(reports, outcomes, strict=True):
        assert ids(report.exported) == sorted(sandbox.segment_ids)
        assert report.ok
        assert report.progress.exported == report.progress.total == 60
        assert all_whole(sandbox, report.exported)
        assert Counter(o.source for o in report.exported) == {
            "exported": len(own), "resumed": 60 - len(own),
        }  # fmt: skip
    journal = await opened(where)
    [status] = await journal.runs()
    page = await journal.report_html("nightly")
    assert all(segment_id in page for segment_id in sandbox.segment_ids)
    assert len(list((tmp_path / "out" / ".segments-async").glob("seen-*"))) == 1
    assert (status.name, status.exported, status.unfinished) == ("nightly", 60, 0)
    assert status.ended_at is not None
    assert not status.live


@pytest.mark.alternating
async def test_files_have_the_names_that_one_process_gives(tmp_path: Path) -> None:
    """A shared run's files are named as an ordinary run's, and the manifest has each once."""
    sandbox = sandbox_of(30)
    async with connected(sandbox) as client:
        segments = await client.list_segments()
    where = str(tmp_path / "runs.db")
    await all_join(sandbox, where, tmp_path / "out", segments=segments)
    files = {path.name for path in (tmp_path / "out").glob("*.csv")}
    assert files == set(file_names(segments).values())
    lines = (tmp_path / "out" / "manifest.jsonl").read_text().splitlines()
    assert len(lines) == 30
    assert all('"run": "nightly"' in line for line in lines)


@pytest.mark.alternating
async def test_a_run_without_files(tmp_path: Path) -> None:
    """With `to=None` each process yields the links of the exports that it asked for."""
    where = str(tmp_path / "runs.db")
    sandbox = sandbox_of(40)
    reports, outcomes = await all_join(sandbox, where, None)
    assert posted_once(sandbox)
    assert ids([*outcomes[0], *outcomes[1]]) == sorted(sandbox.segment_ids)
    assert all(len(report.exported) == 40 for report in reports)


@pytest.mark.alternating
async def test_a_process_that_joins_later_takes_its_share(tmp_path: Path) -> None:
    """A process that joins in the middle of the run works at what no other has claimed."""
    sandbox = sandbox_of(200, limit=TokenBucket(8, 4))
    where = str(tmp_path / "runs.db")
    reports: list[BulkReport[Any]] = []

    async def join_later() -> None:
        await anyio.sleep(6)
        async with joined(sandbox, where, tmp_path / "out") as second:
            [status] = await (await opened(where)).runs()
            assert status.live
            reports.append(await second.work())
            assert 20 <= len(second.outcomes) <= 120

    async with joined(sandbox, where, tmp_path / "out") as first, anyio.create_task_group() as both:
        both.start_soon(first.work)
        both.start_soon(join_later)
    assert [len(report.exported) for report in reports] == [200]
    assert posted_once(sandbox)


@pytest.mark.alternating
async def test_a_process_that_joins_after_the_end(tmp_path: Path) -> None:
    """Opened again after its end, the run yields nothing and sends nothing; its report has all."""
    where = str(tmp_path / "runs.db")
    sandbox = sandbox_of(25)
    await all_join(sandbox, where, tmp_path / "out", processes=1)
    before = len(sandbox.record)
    async with joined(sandbox, where, tmp_path / "out") as late:
        report = await late.work()
    assert late.outcomes == []
    assert len(report.exported) == 25
    assert len(sandbox.record) == before
    with pytest.raises(StopAsyncIteration):
        await anext(aiter(late.run))


@pytest.mark.alternating
async def test_lists_that_differ(tmp_path: Path) -> None:
    """The run exports every segment that any process gave, each to a file of its own."""
    where = str(tmp_path / "runs.db")
    sandbox = sandbox_of(90)
    async with connected(sandbox) as client:
        segments = await client.list_segments()
    # Two names that are alike, neither of which the other process's list has.
    alike = [Segment("A" * 8 + "-1", "Same"), Segment("A" * 8 + "-2", "same")]
    first, second = [*segments[:60], alike[0]], [*segments[30:], alike[1]]
    reports: list[BulkReport[Any]] = []

    async def work(some: Sequence[Segment]) -> None:
        async with joined(sandbox, where, tmp_path / "out", some) as process:
            reports.append(await process.work())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(work, first)
        tasks.start_soon(work, second)
    for report in reports:
        told = [*report.exported, *report.not_exported]
        assert ids(told) == sorted([*sandbox.segment_ids, *(one.segment_id for one in alike)])
        assert ids(report.not_exported) == [one.segment_id for one in alike]  # 404
    assert posted_once(sandbox)
    assert len(list((tmp_path / "out").glob("*.csv"))) == 90


@pytest.mark.alternating
async def test_segments_of_a_process_that_is_gone(tmp_path: Path) -> None:
    """Segments that a process brought, and did not come to claim, are exported by the others."""
    where = str(tmp_path / "runs.db")
    sandbox = sandbox_of(50)
    # It joins, and leaves before its first look at the run.
    async with joined(sandbox, where, tmp_path / "out", sandbox.segment_ids[20:]):
        pass
    reports, _ = await all_join(sandbox, where, tmp_path / "out", segments=sandbox.segment_ids[:20])
    assert [len(report.exported) for report in reports] == [50, 50]
    assert posted_once(sandbox)


@pytest.mark.alternating
async def test_two_names_that_are_alike_in_two_parts(tmp_path: Path) -> None:
    """The second of two segments with one file name gets another name."""
    journal = await SqlJournal.open(tmp_path / "j.db", account=account_of(API_ORIGIN, PAGE_API_KEY))
    spec = RunSpec(segments=["12345678-a", "12345678-b"], options={})
    log = await journal.join(destination=None, name="n", spec=spec)
    names: list[str | None] = []
    for one, name in [("12345678-a", "Köln-12345678.csv"), ("12345678-b", "KÖLN-12345678.csv")]:
        found = await journal.hand_over(
            lambda database, one=one, name=name: claim(
                database, log.joined.run_id, "me", [(one, name)], most=1
            )
        )
        assert found.part is not None
        names += found.part.files.values()
        found.close()
    assert names == ["Köln-12345678.csv", "KÖLN-12345678-b.csv"]


@pytest.mark.alternating
async def test_claims_of_others_are_looked_up_before_the_others_are_excluded(
    tmp_path: Path,
) -> None:
    """However much of a run is claimed, others wait for one query that looks for free segments."""
    database = Database.open(tmp_path / "runs.db", "0" * 64)
    wanted: list[tuple[str, str | None]] = [(f"{number:08}", None) for number in range(3000)]
    spec = RunSpec(segments=[one for one, _ in wanted], options={})
    run_id = shared.join(database, None, "n", spec).run_id
    claim(database, run_id, "other", wanted[:2600], most=None).close()
    excluding: list[str] = []

    def note(connection: Connection, _: Any, statement: str, *__: Any) -> None:
        reads = "sqlite_begin" in connection.get_execution_options()
        if "segment_id IN" in statement and not reads:
            excluding.append(statement)

    event.listen(database.backend.engine, "before_cursor_execute", note)
    found = claim(database, run_id, "me", wanted, most=100)
    found.close()
    assert found.looked_at == 2700
    assert found.part is not None
    assert list(found.part.files) == [one for one, _ in wanted[2600:2700]]
    assert len(excluding) == 1


# What is refused.


@pytest.mark.alternating
@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"run": None}, "needs the run's name"),
        ({"journal": None, "run": None}, "needs a journal"),
    ],
)
async def test_a_run_that_others_could_not_find(
    options: dict[str, Any], says: str, tmp_path: Path
) -> None:
    """Without a journal, or without a name, `shared` is refused."""
    sandbox = sandbox_of(1)
    arguments: dict[str, Any] = {"journal": tmp_path / "runs.db", "run": "a", "shared": True}
    async with connected(sandbox) as client:
        with pytest.raises(ConfigurationError, match=says):
            client.open_bulk_export(["a"], tmp_path, **{**arguments, **options})


@pytest.mark.alternating
async def test_runs_of_the_other_kind(tmp_path: Path) -> None:
    """A shared run isn't opened by one process alone, nor an ordinary one shared."""
    where = str(tmp_path / "runs.db")
    sandbox = sandbox_of(2)
    async with connected(sandbox) as client:
        await client.bulk_export(sandbox.segment_ids, tmp_path / "out", journal=where, run="alone")
        await client.bulk_export(
            sandbox.segment_ids, tmp_path / "out", journal=where, run="ours", shared=True
        )
        before = len(sandbox.record)
        for name, shared, says in [
            ("alone", True, "can't be joined"),
            ("ours", False, "shared=True joins"),
        ]:
            with pytest.raises(ConfigurationError, match=says):
                await client.bulk_export(
                    sandbox.segment_ids, tmp_path / "out", journal=where, run=name, shared=shared
                )
        with pytest.raises(ConfigurationError, match="give the run's own directory"):
            await client.bulk_export(
                sandbox.segment_ids, tmp_path / "else", journal=where, run="ours", shared=True
            )
        with pytest.raises(ConfigurationError, match="not a run's name"):
            await client.bulk_export(
                sandbox.segment_ids, tmp_path / "out", journal=where, run="\x1eours, part 1"
            )
    assert len(sandbox.record) == before


@pytest.mark.alternating
async def test_an_older_copy_of_the_journal(tmp_path: Path) -> None:
    """A journal that lacks a part of which the directory has a mark is refused."""
    sandbox = sandbox_of(100, limit=TokenBucket(4, 4))
    where = tmp_path / "runs.db"
    async with joined(sandbox, str(where), tmp_path / "out"):
        await anyio.sleep(2)
    copy = tmp_path / "copy.db"
    shutil.copy(where, copy)
    async with joined(sandbox, str(where), tmp_path / "out") as process:
        await process.work()
    shutil.copy(copy, where)
    before = len(sandbox.record)
    with pytest.raises(JournalError, match="has the run as unfinished") as caught:
        async with joined(sandbox, str(where), tmp_path / "out"):
            pass
    assert caught.value.reason == "damaged"
    assert len(sandbox.record) == before


@pytest.mark.alternating
async def test_an_older_copy_during_the_run(tmp_path: Path) -> None:
    """The same of an unfinished run, whose parts have marks of their own."""
    sandbox = sandbox_of(100, limit=TokenBucket(4, 4))
    where, copy = tmp_path / "runs.db", tmp_path / "copy.db"
    for seconds in (2, 12):
        async with joined(sandbox, str(where), tmp_path / "out"):
            await anyio.sleep(seconds)
        if not copy.exists():
            shutil.copy(where, copy)
    shutil.copy(copy, where)
    before = len(sandbox.record)
    with pytest.raises(JournalError, match="durable") as caught:
        async with joined(sandbox, str(where), tmp_path / "out") as process:
            await process.work()
    assert caught.value.reason == "damaged"
    assert len(sandbox.record) == before


# Processes that leave, and ends that aren't final.


@pytest.mark.parametrize("how", ["timeout", "left"])
async def test_a_process_that_leaves(how: str, tmp_path: Path) -> None:
    """Another process goes on with the exports of one that leaves, and requests none again."""
    where = str(tmp_path / "runs.db")
    sandbox = sandbox_of(80, limit=TokenBucket(10, 10))
    leaver: list[Process] = []

    async def leave() -> None:
        timeout = 5.0 if how == "timeout" else None
        async with joined(sandbox, where, tmp_path / "out", timeout=timeout) as process:
            leaver.append(process)
            if how == "timeout":
                await process.work()
            else:
                await anyio.sleep(5)
        process.outcomes = [outcome async for outcome in process.run]

    async with joined(sandbox, where, tmp_path / "out") as stayer:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(leave)
            tasks.start_soon(stayer.work)
        report = await stayer.run.report()
    assert len(report.exported) == 80
    assert posted_once(sandbox)
    missing = [o for o in leaver[0].outcomes if isinstance(o, NotExported)]
    assert missing
    assert all(outcome.resumable for outcome in missing)
    assert set(ids(missing)) <= set(ids(stayer.outcomes))


@pytest.mark.alternating
async def test_a_refusal_is_tried_again_by_the_next_start(tmp_path: Path) -> None:
    """No process repeats a refused request in this start; the next start does, and ends the run."""
    where = str(tmp_path / "runs.db")
    sandbox = sandbox_of(30)
    sandbox.inject(Fault.status(422), times=5, **POST)
    reports, outcomes = await all_join(sandbox, where, tmp_path / "out", processes=3)
    assert len(sandbox.record.submits()) == 30
    refused = [o for own in outcomes for o in own if isinstance(o, NotExported)]
    assert len(refused) == 5
    assert all(ids(report.not_exported) == ids(refused) for report in reports)
    journal = await opened(where)
    [status] = await journal.runs()
    assert (status.ended_at, status.exported) == (None, 25)
    spec = await journal.spec("nightly")
    assert spec is not None
    assert spec.options["shared"] is True
    assert sorted(spec.segments) == sorted(sandbox.segment_ids)
    reports, outcomes = await all_join(sandbox, where, tmp_path / "out", processes=3)
    assert len(sandbox.record.submits()) == 35
    assert [len(report.exported) for report in reports] == [30, 30, 30]
    assert {o.segment_id for own in outcomes for o in own} >= set(ids(refused))
    [status] = await journal.runs()
    assert status.ended_at is not None
    assert await journal.spec("nightly") is None
    found = await journal.segments("nightly")
    assert sorted(s if isinstance(s, str) else s.segment_id for s in found) == sorted(
        sandbox.segment_ids
    )


@pytest.mark.alternating
async def test_an_id_that_cannot_be_sent(tmp_path: Path) -> None:
    """The outcome of the vendor's own unusable id is yielded by one process, and the run ends."""
    sandbox = sandbox_of(4)
    async with connected(sandbox) as client:
        segments = [*await client.list_segments(), Segment("not/an id", "Odd")]
    where = str(tmp_path / "runs.db")
    reports, outcomes = await all_join(sandbox, where, tmp_path / "out", segments=segments)
    assert Counter(o.segment_id for own in outcomes for o in own)["not/an id"] == 1
    assert [len(report.not_exported) for report in reports] == [1, 1]
    [status] = await (await opened(where)).runs()
    assert status.ended_at is not None


@pytest.mark.alternating
async def test_only_changed_looks_across_runs(tmp_path: Path) -> None:
    """The next shared run exports only what has run since the last one."""
    sandbox = sandbox_of(30)
    where = str(tmp_path / "runs.db")
    async with connected(sandbox) as client:
        segments = await client.list_segments()
        await client.bulk_export(segments, tmp_path / "out", journal=where, run="1", shared=True)
        before = len(sandbox.record.submits())
        report = await client.bulk_export(
            segments, tmp_path / "out", journal=where, run="2", shared=True, only_changed=True
        )
    assert len(sandbox.record.submits()) == before == 30
    assert {outcome.source for outcome in report.exported} == {"unchanged"}
    assert report.progress.unchanged == 30


@pytest.mark.alternating
async def test_prune(tmp_path: Path) -> None:
    """A shared run is pruned with its parts, and not before its last part is old enough."""
    where = str(tmp_path / "runs.db")
    sandbox = sandbox_of(50)
    await all_join(sandbox, where, tmp_path / "out")
    journal = await opened(where)
    now = datetime.now(UTC)
    assert await journal.prune(now - timedelta(hours=1)) == 0
    assert await journal.prune(now + timedelta(hours=1)) == 1
    assert await journal.runs() == []
    assert list((tmp_path / "out" / ".segments-async").glob("seen-*")) == []
    reports, _ = await all_join(sandbox, where, tmp_path / "again", processes=1)
    assert len(reports[0].exported) == 50


# The ticket guard.


@pytest.mark.alternating
async def test_a_500_to_one_process_holds_the_others(tmp_path: Path) -> None:
    """After a 500 no process of the run sends anything for a minute, from the next look on."""
    where = str(tmp_path / "runs.db")
    sandbox = sandbox_of(60, limit=TokenBucket(2, 2))
    async with (
        joined(sandbox, where, tmp_path / "out") as one,
        joined(sandbox, where, tmp_path / "out") as other,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(one.work)
        tasks.start_soon(other.work)
        await anyio.sleep(6)
        sandbox.inject(Fault.status(500), **POST)
    api = sandbox.record.api()
    [error] = [entry for entry in api if entry.status == 500]
    assert error.ended_at is not None
    held = [e.at for e in api if error.ended_at + 4 < e.at < error.ended_at + 58]
    assert held == []
    assert sandbox.record.duplicates() == {}


@pytest.mark.alternating
async def test_six_500s_end_the_whole_run(tmp_path: Path) -> None:
    """The processes of a run count their 500s together: six of them end the session of each."""
    sandbox = sandbox_of(60)
    sandbox.inject(Fault.status(500), times=30, **POST)
    where = str(tmp_path / "runs.db")
    reports, _ = await all_join(sandbox, where, tmp_path / "out", processes=3)
    errors = [entry for entry in sandbox.record.api() if entry.status == 500]
    assert 6 <= len(errors) <= 8  # at most two may be on the wire beside the sixth
    assert all(len(r.exported) + len(r.not_exported) == 60 for r in reports)
    assert sandbox.record.duplicates() == {}


# Locks that lie, and real processes.


@pytest.mark.alternating
async def test_locks_that_lie(where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If every process gets every lock, and sees none: still no segment is requested twice."""
    for owner, name, lie in of_locks():
        monkeypatch.setattr(owner, name, lie)
    sandbox = sandbox_of(25, limit=TokenBucket(10, 10))
    reports, outcomes = await all_join(sandbox, where, tmp_path / "out")
    assert sandbox.record.duplicates() == {}
    assert max(Counter(e.segment_id for e in sandbox.record.submits() if e.acted).values()) == 1
    assert {o.segment_id for own in outcomes for o in own} == set(sandbox.segment_ids)
    for report in reports:
        told = [*report.exported, *report.not_exported]
        assert ids(told) == sorted(sandbox.segment_ids)
        assert {type(o.error) for o in report.not_exported} <= {SubmitUnknownError}


@pytest.fixture(
    params=["sqlite", pytest.param("postgresql", marks=pytest.mark.needs("PostgreSQL"))]
)
def journal(request: pytest.FixtureRequest) -> Callable[[], str | None]:
    """Makes a place for a journal; None: beside the files."""
    if request.param == "sqlite":
        return lambda: None
    server = request.getfixturevalue("postgres")
    return lambda: str(server.schema())


@pytest.mark.counted(2, 25, "kills")
def test_killed_processes(journal: Callable[[], str | None], tmp_path: Path, count: int) -> None:
    """Processes that are killed and started again: nothing is requested twice, nothing is lost."""
    plan = Plan(
        processes=8 if count > 3 else 2,
        segments=20 * count + 20,
        kills=count,
        limit=TokenBucket(60, 20),
        longest=0.6,
    )
    found = share(tmp_path, 20261126, plan, journal())
    assert found.complaints == []
    assert found.exported + found.unknown == plan.segments
    assert found.exported > 2 * found.unknown


@pytest.mark.counted(every=41, of="moments at which something durable is done")
def test_dies_at_every_durable_operation(tmp_path: Path, every: int) -> None:
    """Before, after and in the middle of each write of a shared run: the next process ends it."""
    tally = die_everywhere(tmp_path, lambda: None, first=7, every=every, shared=True)
    assert tally.complaints == [], tally
    assert tally.kills > 80 // every


def test_a_process_that_stands_still(tmp_path: Path) -> None:
    """While a process is stopped, no other takes its part; it goes on, and the run ends."""
    sandbox = Sandbox(segments=60, rows=5, latency=0.02, durations=Durations(0.5, 0.0))
    with SandboxServer(sandbox) as server, session_server() as one, session_server() as other:
        jobs = [
            Job(
                server.base_url,
                sandbox.segment_ids,
                str(tmp_path / "out"),
                str(tmp_path / "runs.db"),
                str(tmp_path / f"told-{number}"),
                shared=True,
            )
            for number in range(2)
        ]
        stopped = one.start(jobs[0])
        _until(lambda: len(sandbox.record.submits()) >= 5)
        os.kill(stopped, signal.SIGSTOP)
        other.start(jobs[1])
        time.sleep(2.5)  # the other one looks at the run; what is claimed doesn't hang on the time
        os.kill(stopped, signal.SIGCONT)
        assert (one.wait(), other.wait()) == (0, 0)
    for job in jobs:
        outcomes = load(Path(job.told).read_text())
        assert sorted(o.segment_id for o in outcomes if o.error is None) == sorted(
            sandbox.segment_ids
        )
    own = [o.segment_id for job in jobs for o in load(Path(f"{job.told}.own").read_text())]
    assert sorted(own) == sorted(sandbox.segment_ids)
    assert sandbox.record.duplicates() == {}


def _until(true: Callable[[], bool]) -> None:
    until = time.monotonic() + 60
    while not true():
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.mark.alternating
async def test_the_log_says_that_a_part_is_taken_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A line of INFO says that a process is gone, and how many segments its part has."""
    sandbox = sandbox_of(30)
    where = str(tmp_path / "runs.db")
    async with joined(sandbox, where, tmp_path / "out"):
        await anyio.sleep(1)
    with caplog.at_level(logging.INFO, "segments_async"):
        await all_join(sandbox, where, tmp_path / "out", processes=1)
    assert [r.message for r in caplog.records if "is gone" in r.message] == [
        "run nightly: a process that worked at it is gone, and this process goes on with its part "
        "of 20 segments"
    ]
