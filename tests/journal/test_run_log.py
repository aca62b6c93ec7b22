"""Group commit: which caller writes, in which order, and the events of a cancelled caller."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Sequence
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from journal.lives import GOES_WELL, export_of, opened, payload_for, run_of
from segments_async._journal import group_commit
from segments_async._journal.opened_run import OpenedRun
from segments_async._journal.refusals import Locked
from segments_async._journal.run_log import RunLog
from segments_async._sansio.jobs.lifecycle import Event, State

pytestmark = pytest.mark.alternating

Rows = Sequence[dict[str, Any]]


class Recorder:
    """Stands between a log and its database: sees each batch, and can hold, break or refuse it."""

    def __init__(self, run: OpenedRun) -> None:
        self.batches: list[list[str]] = []
        self.before: Callable[[], None] = lambda: None
        self._append = run.append
        run.append = self.append  # type: ignore[method-assign]

    def append(self, rows: Rows) -> None:
        self.before()
        self._append(rows)
        self.batches.append([row["segment_id"] for row in rows])

    @property
    def written(self) -> list[str]:
        return [segment_id for batch in self.batches for segment_id in batch]


class Hold:
    """Holds the thread that writes, until `let_go()`."""

    def __init__(self, recorder: Recorder) -> None:
        self._there = threading.Event()
        self._go = threading.Event()
        recorder.before = self._wait

    def _wait(self) -> None:
        self._there.set()
        assert self._go.wait(10)

    async def reached(self) -> None:
        """A batch is about to be written."""
        await anyio.to_thread.run_sync(self._there.wait, 10)

    def let_go(self) -> None:
        self._go.set()


def recorded_by(log: RunLog) -> Recorder:
    return Recorder(log.opened)


async def turns() -> None:
    """Every task gets as far as it can (no timer runs while the thread is held)."""
    for _ in range(10):
        await anyio.lowlevel.checkpoint()


async def intents(log: RunLog, *segment_ids: str) -> None:
    """Record at once, in this order."""
    for segment_id in segment_ids:
        log.run_state.add(segment_id)
    async with anyio.create_task_group() as tasks:
        for segment_id in segment_ids:
            tasks.start_soon(log.record, segment_id, Event.INTENT)


async def stands(where: str) -> dict[str, State]:
    """The records that a later session finds."""
    async with run_of(await opened(where)) as log:
        return {segment_id: record.state for segment_id, record in log.run_state.records.items()}


async def test_what_gathers_is_written_together(where: str) -> None:
    """While one commit is under way, all events that come are gathered for the next one."""
    names = [f"s{n}" for n in range(50)]
    async with run_of(await opened(where)) as log:
        recorder = recorded_by(log)
        hold = Hold(recorder)
        log.run_state.add("first")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(log.record, "first", Event.INTENT)
            await hold.reached()
            tasks.start_soon(intents, log, *names)
            await turns()
            hold.let_go()
        assert recorder.batches[0] == ["first"]
        assert len(recorder.batches) == 2
        assert sorted(recorder.batches[1]) == sorted(names)


async def test_events_are_written_in_the_order_of_the_calls(where: str) -> None:
    """The log has the events in the order of the calls of record(), whichever caller writes."""
    called: list[str] = []

    async def life(log: RunLog, segment_id: str) -> None:
        log.run_state.add(segment_id)
        for event in GOES_WELL:
            called.append(segment_id)
            await log.record(segment_id, event, payload_for(event, export_of(segment_id)))

    async with run_of(await opened(where)) as log:
        recorder = recorded_by(log)
        async with anyio.create_task_group() as tasks:
            for number in range(30):
                tasks.start_soon(life, log, f"s{number}")
        assert recorder.written == called
        assert len(recorder.batches) < len(called) / 2


async def test_no_more_than_a_transaction_is_worth(
    where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many events are written in several transactions, in order, and each caller returns."""
    monkeypatch.setattr(group_commit, "_MOST_AT_ONCE", 7)
    async with run_of(await opened(where)) as log:
        recorder = recorded_by(log)
        await intents(log, *(f"s{n}" for n in range(50)))
        assert max(len(batch) for batch in recorder.batches) == 7
        assert len(recorder.written) == 50


class Countdown:
    """Cancels a scope at the given number of steps of one task: at each of its await points."""

    def __init__(self, after: int) -> None:
        self.left = after
        self.scope = anyio.CancelScope()

    async def tick(self) -> None:
        while self.left:
            self.left -= 1
            await anyio.lowlevel.checkpoint()
        self.scope.cancel()


@pytest.mark.parametrize("victim", [0, 1, 4])
@pytest.mark.parametrize("steps", range(8))
async def test_a_cancelled_writer(where: str, victim: int, steps: int) -> None:
    """One of many writers is cancelled, at each point where it can be: all others go on.

    The event of the cancelled writer is written, too, if it was handed over; no event is written
    twice.
    """
    async with run_of(await opened(where)) as log:
        recorder = recorded_by(log)
        countdown = Countdown(steps)
        returned = set()

        async def write(number: int) -> None:
            segment_id = f"s{number}"
            with countdown.scope if number == victim else anyio.CancelScope():
                for event in (Event.INTENT, Event.NOT_SENT, Event.GAVE_UP):
                    await log.record(segment_id, event)
                returned.add(segment_id)

        for number in range(6):
            log.run_state.add(f"s{number}")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(countdown.tick)
            for number in range(6):
                tasks.start_soon(write, number)
        found = {f"s{n}": log.run_state.state(f"s{n}") for n in range(6)}
        for number in set(range(6)) - {victim}:
            assert f"s{number}" in returned
            assert recorder.written.count(f"s{number}") == 3
        handed_over = {State.NEW: (0, 2), State.INTENT: (1,), State.UNASKED: (3,)}
        assert recorder.written.count(f"s{victim}") in handed_over[found[f"s{victim}"]]
    after = await stands(where)
    assert {name: after.get(name, State.NEW) for name in found} == found


@pytest.mark.parametrize("victim", ["leader", "waiting", "next"])
async def test_cancelled_while_a_commit_is_under_way(where: str, victim: str) -> None:
    """Leader or not: an event that was handed over is written, once; the others' too."""
    async with run_of(await opened(where)) as log:
        recorder = recorded_by(log)
        hold = Hold(recorder)
        scopes = {name: anyio.CancelScope() for name in ("leader", "waiting", "next", "last")}
        ended: list[str] = []

        async def write(name: str) -> None:
            log.run_state.add(name)
            with scopes[name]:
                await log.record(name, Event.INTENT)
                await anyio.lowlevel.checkpoint()
                ended.append(name)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(write, "leader")
            await hold.reached()
            for name in ("waiting", "next", "last"):
                tasks.start_soon(write, name)
                await turns()
            scopes[victim].cancel()
            hold.let_go()
        assert recorder.written == ["leader", "waiting", "next", "last"]
        assert sorted([*ended, victim]) == sorted(scopes)
    assert await stands(where) == dict.fromkeys(scopes, State.INTENT)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("victim", [0, 1])
@pytest.mark.real_time
async def test_cancelled_by_asyncio_itself(where: str, victim: int) -> None:
    """`Task.cancel()` respects no shield and leaves the thread alone: nothing is written twice."""
    names = ["a", "b", "c"]
    async with run_of(await opened(where)) as log:
        hold = Hold(recorder := recorded_by(log))
        for name in names:
            log.run_state.add(name)
        tasks = []
        for name in names:
            tasks.append(asyncio.create_task(log.record(name, Event.INTENT)))
            await asyncio.sleep(0)
        await hold.reached()
        tasks[victim].cancel()
        await asyncio.sleep(0)
        hold.let_go()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(end) for end in ends if end is not None] == [asyncio.CancelledError]
        await log.record("a", Event.NOT_SENT)
        assert {name for name in recorder.written if name in names} == set(names)
    assert await stands(where) == {"a": State.NEW, "b": State.INTENT, "c": State.INTENT}


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.real_time
async def test_a_run_that_nobody_took(where: str) -> None:
    """A run that was opened for a cancelled task is released."""
    journal = await opened(where)
    for steps in range(6):
        task = asyncio.create_task(journal.open_run(destination=None, name="x", now_name="x"))
        for _ in range(steps):
            await asyncio.sleep(0.005)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await (await task).aclose()
        async with run_of(journal, "x", destination=None):
            pass


async def test_a_busy_database_is_waited_for(where: str) -> None:
    """Another process's transaction delays an event, and nothing else."""
    async with run_of(await opened(where)) as log:
        recorder = recorded_by(log)
        refusals = iter(range(5))

        def busy() -> None:
            if next(refusals, None) is not None:
                raise Locked("busy")

        recorder.before = busy
        await intents(log, "a", "b", "c")
        assert sorted(recorder.written) == ["a", "b", "c"]


async def test_a_caller_may_leave_a_busy_database(where: str) -> None:
    """A cancelled caller is gone within a second; its event is written as soon as one can be."""
    async with run_of(await opened(where)) as log:
        recorder = recorded_by(log)

        def busy() -> None:
            raise Locked("busy")

        recorder.before = busy
        log.run_state.add("a")
        with anyio.move_on_after(0.01) as scope:
            await log.record("a", Event.INTENT)
        assert scope.cancelled_caught
        recorder.before = lambda: None
    assert await stands(where) == {"a": State.INTENT}


async def test_a_cancelled_caller_that_hands_nothing_over(where: str) -> None:
    """Cancelled before the call, nothing is recorded: no INTENT for a POST that never goes."""
    async with run_of(await opened(where)) as log:
        log.run_state.add("a")
        with anyio.CancelScope() as scope:
            scope.cancel()
            await log.record("a", Event.INTENT)
        assert scope.cancelled_caught
        assert log.run_state.state("a") is State.NEW
    assert await stands(where) == {}
