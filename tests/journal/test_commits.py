"""What the journal costs a run: which events are written together, and when an outcome is told."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from client.vendor import STEADY, connected

from journal.lives import export_of, live, opened, payload_for, run_of
from journal.statements import counted
from journal.test_run_log import Recorder, recorded_by, stands
from journal.test_sql import logged
from segments_async import Exported, JournalError, Pacer
from segments_async._journal.opened_run import OpenedRun
from segments_async._journal.run_log import RunLog
from segments_async._sansio.jobs.commits import LINGER, LONGEST
from segments_async._sansio.jobs.lifecycle import Event, State
from segments_async.sandbox import Durations, Fault, Sandbox, TokenBucket

pytestmark = pytest.mark.alternating

COMPLETE = (Event.INTENT, Event.ACCEPTED, Event.COMPLETED)


@asynccontextmanager
async def with_exports(where: str, *segment_ids: str) -> AsyncIterator[tuple[RunLog, Recorder]]:
    """A log in which these exports are complete, and one more is at the vendor."""
    async with run_of(await opened(where)) as log:
        for segment_id in segment_ids:
            await live(log, segment_id, COMPLETE)
        await live(log, "other", COMPLETE[:2])
        await anyio.sleep(10)
        yield log, recorded_by(log)


async def record(log: RunLog, segment_id: str, event: Event) -> None:
    log.run_state.add(segment_id)
    await log.record(segment_id, event, payload_for(event, export_of(segment_id)))


async def test_an_outcome_goes_with_the_next_intent(where: str) -> None:
    """Soon after a commit, FETCHED waits for the commit of an INTENT, which doesn't wait."""
    async with with_exports(where, "a", "b") as (log, recorder):
        await record(log, "a", Event.FETCHED)
        began = anyio.current_time()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(record, log, "b", Event.FETCHED)
            await anyio.sleep(0.1)
            assert recorder.batches == [["a"]]
            await record(log, "c", Event.INTENT)
            assert anyio.current_time() - began == pytest.approx(0.1)
        assert recorder.batches == [["a"], ["b", "c"]]
        assert anyio.current_time() - began == pytest.approx(0.1)


async def test_an_outcome_waits_for_half_a_second_at_most(where: str) -> None:
    """Without another commit, FETCHED is durable `LINGER` seconds after the last one."""
    async with with_exports(where, "a", "b", "c") as (log, recorder):
        await record(log, "a", Event.FETCHED)
        began = anyio.current_time()
        async with anyio.create_task_group() as tasks:
            for name in "bc":
                tasks.start_soon(record, log, name, Event.FETCHED)
        assert anyio.current_time() - began == pytest.approx(LINGER)
        assert [sorted(batch) for batch in recorder.batches] == [["a"], ["b", "c"]]


async def test_the_last_export_waits_for_nothing(where: str) -> None:
    """While no other export is under way, events are written at once, whatever they are."""
    async with run_of(await opened(where)) as log:
        began = anyio.current_time()
        await live(log, "a")
        await live(log, "b")
        assert anyio.current_time() == began


async def test_granted_together_written_together(where: str) -> None:
    """The INTENTs of requests that were granted at once are one commit."""
    async with run_of(await opened(where)) as log:
        recorder = recorded_by(log)
        async with anyio.create_task_group() as tasks:
            for name in "abcdef":
                tasks.start_soon(record, log, name, Event.INTENT)
        assert len(recorder.batches) == 1


async def test_an_event_for_which_no_caller_waits(where: str) -> None:
    """`add` doesn't wait; `flush` writes a second later, or ends with another event's commit."""
    async with run_of(await opened(where)) as log:
        recorder = recorded_by(log)
        for name in "ab":
            await live(log, name, COMPLETE[:2])
        before = len(recorder.batches)
        began = anyio.current_time()
        log.add("a", Event.COMPLETED, payload_for(Event.COMPLETED, export_of("a")))
        assert log.lingers
        await log.flush()
        assert anyio.current_time() - began == pytest.approx(LONGEST)
        log.add("b", Event.COMPLETED, payload_for(Event.COMPLETED, export_of("b")))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(log.flush)
            await anyio.sleep(0.1)
            await record(log, "c", Event.INTENT)
        assert anyio.current_time() - began == pytest.approx(LONGEST + 0.1)
        assert recorder.batches[before:] == [["a"], ["b", "c"]]


async def test_closing_writes_what_waits(where: str) -> None:
    """The end of a session writes at once what no caller waited for."""
    async with run_of(await opened(where)) as log:
        await live(log, "a", COMPLETE[:2])
        log.add("a", Event.COMPLETED, payload_for(Event.COMPLETED, export_of("a")))
        began = anyio.current_time()
    assert anyio.current_time() == began
    assert await stands(where) == {"a": State.COMPLETE}


async def test_a_session_that_ends_waits_for_nothing(where: str) -> None:
    """After `hurry`, an outcome that waits is written at once, and so are later ones."""
    async with with_exports(where, "a", "b", "c") as (log, _):
        await record(log, "a", Event.FETCHED)
        began = anyio.current_time()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(record, log, "b", Event.FETCHED)
            await anyio.wait_all_tasks_blocked()
            log.hurry()
        await record(log, "c", Event.FETCHED)
        assert anyio.current_time() == began


async def test_a_cancelled_caller_waits_for_nothing(where: str) -> None:
    """A caller that is cancelled while its event lingers writes the event at once."""
    async with with_exports(where, "a", "b") as (log, _):
        await record(log, "a", Event.FETCHED)
        began = anyio.current_time()
        with anyio.move_on_after(0.1) as scope:
            await record(log, "b", Event.FETCHED)
        assert scope.cancelled_caught
        assert anyio.current_time() - began == pytest.approx(0.1)
        assert ("b", "fetched") in logged(where)


# Whole runs.


def sandbox_of(segments: int, rate: float) -> Sandbox:
    return Sandbox(
        segments=segments,
        rows=5,
        latency=0.03,
        durations=Durations(1.0, 0.7),
        limit=TokenBucket(rate, 20),
    )


async def test_an_outcome_is_durable_when_it_is_told(where: str, tmp_path: Path) -> None:
    """Whenever an outcome is yielded, the journal has its FETCHED."""
    sandbox = sandbox_of(30, 20.0)
    async with (
        connected(sandbox) as client,
        client.open_bulk_export(
            sandbox.segment_ids, tmp_path / "out", journal=where, run="nightly"
        ) as run,
    ):
        told = 0
        async for outcome in run:
            assert isinstance(outcome, Exported)
            assert (outcome.segment_id, "fetched") in logged(where)
            told += 1
    assert told == 30


async def test_a_single_export_is_no_slower(where: str, tmp_path: Path) -> None:
    """An export takes as long with a journal as without, in three commits and those of its run."""

    async def seconds(**options: Any) -> float:
        sandbox = Sandbox(segments=1, rows=5, durations=STEADY)
        async with connected(sandbox) as client:
            began = anyio.current_time()
            run: Any = await client.bulk_export(
                sandbox.segment_ids, tmp_path / str(len(options)), **options
            )
            assert len(run.exported) == 1
        return anyio.current_time() - began

    without = await seconds()
    with counted() as counts:
        assert await seconds(journal=where, run="one") == pytest.approx(without)
    assert counts.batches == {"intent": 1, "accepted": 1, "completed fetched": 1}


@pytest.mark.parametrize(
    ("clients", "segments", "rate", "statements", "commits"),
    [(1, 150, 50.0, 5.0, 1.9), (3, 180, 40.0, 9.5, 2.8)],
)
async def test_what_an_export_costs(
    where: str,
    tmp_path: Path,
    clients: int,
    segments: int,
    rate: float,
    statements: float,
    commits: float,
) -> None:
    """A run takes so many statements and commits for each export at most, its start included.

    23 exports a second, and 6 in each of three processes.
    """
    sandbox = sandbox_of(segments, rate)

    async def work() -> None:
        async with connected(sandbox, pacer=Pacer()) as client:
            await client.bulk_export(
                sandbox.segment_ids,
                tmp_path / "out",
                journal=where,
                run="nightly",
                shared=clients > 1,
            )

    with counted() as counts:
        async with anyio.create_task_group() as tasks:
            for _ in range(clients):
                tasks.start_soon(work)
    assert len(sandbox.record.exports_per_segment()) == segments
    assert counts.statements.total() / segments <= statements
    assert counts.commits.total() / segments <= commits


@pytest.mark.parametrize("timeout", [2.0, 5.01, 5.3])
async def test_leaving_costs_no_time(timeout: float, where: str, tmp_path: Path) -> None:
    """A run whose time is up ends then, with every known export in the journal."""
    sandbox = sandbox_of(60, 20.0)
    async with connected(sandbox) as client:
        began = anyio.current_time()
        report = await client.bulk_export(
            sandbox.segment_ids, tmp_path / "out", journal=where, run="nightly", timeout=timeout
        )
        assert anyio.current_time() - began <= timeout + 0.1
    found = logged(where)
    for outcome in report.exported:
        assert (outcome.segment_id, "fetched") in found
    known = {o.segment_id for o in report.not_exported if o.export is not None}
    assert known <= {segment_id for segment_id, event in found if event == "accepted"}


async def test_a_journal_that_breaks_while_an_event_waits(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run ends with the error, though no caller waits for the event."""
    sandbox = Sandbox(segments=1, rows=5, durations=STEADY)
    sandbox.inject(Fault.slow(5.0), origin="files")
    append = OpenedRun.append

    def breaking(run: OpenedRun, rows: Any) -> None:
        if [row["event"] for row in rows] == [Event.COMPLETED]:
            raise JournalError("broken", reason="damaged", location="here")
        append(run, rows)

    monkeypatch.setattr(OpenedRun, "append", breaking)
    async with connected(sandbox) as client:
        began = anyio.current_time()
        with pytest.raises(JournalError, match="broken"):
            await client.bulk_export(
                sandbox.segment_ids, tmp_path / "out", journal=where, run="nightly"
            )
        # Polls are seconds apart, and the file would take five more.
        assert anyio.current_time() - began < 4.0 + LONGEST + 3.0
