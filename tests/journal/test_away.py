"""A database that is away for a moment: which events wait, and which process has the run."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from frames import given_away

from journal.lives import GOES_WELL, export_of, live, opened, payload_for, run_of
from journal.server import PostgresServer
from journal.test_run_log import Recorder, recorded_by
from journal.test_sessions import by
from journal.test_sql import execute, logged, rows
from segments_async import JournalError
from segments_async._journal import attempts
from segments_async._journal.opened_run import OpenedRun
from segments_async._journal.refusals import Locked
from segments_async._journal.run_log import RunLog
from segments_async._sansio.jobs.journal_outage import LONGEST_OUTAGE
from segments_async._sansio.jobs.lifecycle import Event, State

pytestmark = pytest.mark.alternating

AWAY = JournalError("the server is gone", reason="unavailable", location="here")


class Away:
    """Fails every attempt to write, until `back` is called."""

    def __init__(self, recorder: Recorder, error: Exception = AWAY) -> None:
        self._error = error
        self._away = True
        self.attempts = 0
        recorder.before = self._refuse

    def _refuse(self) -> None:
        if self._away:
            self.attempts += 1
            raise self._error

    def come_back(self) -> None:
        self._away = False


@contextlib.asynccontextmanager
async def kept_by(log: RunLog) -> AsyncIterator[None]:
    """While the block lasts, a task waits for the database's return, as a run does."""
    async with anyio.create_task_group() as tasks:

        async def wait() -> None:
            while True:
                await log.returned()
                await anyio.sleep(0.1)

        tasks.start_soon(wait)
        yield
        tasks.cancel_scope.cancel()


async def stands(where: str) -> dict[str, State]:
    async with run_of(await opened(where)) as log:
        return {segment_id: record.state for segment_id, record in log.run_state.records.items()}


async def record(log: RunLog, segment_id: str, event: Event) -> None:
    await log.record(segment_id, event, payload_for(event, export_of(segment_id)))


async def until(there: Callable[[], bool]) -> None:
    while not there():  # noqa: ASYNC110 - it has no event
        await anyio.sleep(0.05)


# What a log does, whatever the database.


@pytest.mark.parametrize("error", [AWAY, Locked("busy")], ids=["unavailable", "busy"])
async def test_events_are_kept_until_it_is_back(where: str, error: Exception) -> None:
    """An event of an export id returns at once while the database is away, and is written later."""
    async with run_of(await opened(where)) as log:
        recorder = recorded_by(log)
        log.run_state.add("a")
        await record(log, "a", Event.INTENT)
        away = Away(recorder, error)
        with anyio.fail_after(10):
            await record(log, "a", Event.ACCEPTED)
        assert log.away
        with anyio.fail_after(1):
            await record(log, "a", Event.COMPLETED)
        assert logged(where) == [("a", "intent")]
        async with kept_by(log):
            await anyio.sleep(120)
            assert log.away
            away.come_back()
            await until(lambda: not log.away)
        assert log.knows_export("a")
    assert [event for _, event in logged(where)] == ["intent", "accepted", "completed"]


async def test_no_post_may_go_meanwhile(where: str) -> None:
    """An INTENT is taken back; at once, if the database is known to be away."""
    async with run_of(await opened(where)) as log:
        away = Away(recorded_by(log))
        for name in ("a", "b"):
            log.run_state.add(name)
            with anyio.fail_after(1):
                await log.record(name, Event.INTENT)
            assert log.run_state.state(name) is State.NEW
        assert log.away
        away.come_back()
        await log.returned()
        await log.record("b", Event.INTENT)
        assert log.run_state.state("b") is State.INTENT
    # The first one may have been written before the connection broke, so both stand there.
    assert logged(where) == [("a", "intent"), ("a", "not_sent"), ("b", "intent")]


async def test_one_warning_and_one_word_of_its_return(
    where: str, caplog: pytest.LogCaptureFixture
) -> None:
    """An outage, however long, logs one WARNING at its beginning and one INFO at its end."""
    caplog.set_level(logging.INFO, logger="segments_async")
    async with run_of(await opened(where)) as log:
        away = Away(recorded_by(log))
        log.run_state.add("a")
        await log.record("a", Event.INTENT)
        async with kept_by(log):
            await anyio.sleep(60)
            away.come_back()
            await until(lambda: not log.away)
    assert away.attempts > 10
    words = [(r.levelname, r.getMessage()) for r in caplog.records if r.name == "segments_async"]
    assert [level for level, _ in words] == ["WARNING", "INFO"]
    assert "run now: the journal is away" in words[0][1]
    assert "the server is gone" in words[0][1]
    assert "the journal is back" in words[1][1]


async def test_a_short_wait_for_another_process_is_no_news(
    where: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Another process's transaction of a second delays an INTENT, and nothing is logged."""
    async with run_of(await opened(where)) as log:
        away = Away(recorded_by(log), Locked("busy"))
        log.run_state.add("a")

        async def come_back() -> None:
            await anyio.sleep(1)
            away.come_back()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(come_back)
            await log.record("a", Event.INTENT)
        assert log.run_state.state("a") is State.INTENT
    assert caplog.records == []


@pytest.mark.parametrize(
    ("error", "reason"), [(AWAY, "unavailable"), (Locked("busy"), "locked")], ids=str
)
async def test_one_that_never_comes_back(where: str, error: Exception, reason: str) -> None:
    """After ten minutes the log breaks, and names the exports that no later session will know."""
    async with run_of(await opened(where)) as log:
        recorder = recorded_by(log)
        for name in "abc":
            log.run_state.add(name)
            await record(log, name, Event.INTENT)
        await record(log, "a", Event.ACCEPTED)
        Away(recorder, error)
        await record(log, "b", Event.ACCEPTED)
        began = anyio.current_time()
        with pytest.raises(JournalError) as caught:
            await log.returned()
        assert caught.value.reason == reason
        assert "away for 10 minutes" in str(caught.value)
        assert LONGEST_OUTAGE <= anyio.current_time() - began < LONGEST_OUTAGE + 10
        with pytest.raises(JournalError):
            await log.record("c", Event.LOST)
        # There is no directory at the destination, so that nothing can be set aside.
        assert [log.knows_export(name) for name in "abc"] == [True, False, False]
    assert await stands(where) == {"a": State.SUBMITTED, "b": State.INTENT, "c": State.INTENT}


async def test_what_is_no_passing_trouble(where: str) -> None:
    """An error other than an outage breaks the log at once, for every waiting caller."""
    async with run_of(await opened(where)) as log:
        Away(recorded_by(log), JournalError("broken", reason="damaged", location="here"))
        reasons = []

        async def write(name: str) -> None:
            log.run_state.add(name)
            try:
                await log.record(name, Event.INTENT)
            except JournalError as exc:
                reasons.append(exc.reason)

        async with anyio.create_task_group() as tasks:
            for name in "abc":
                tasks.start_soon(write, name)
        assert reasons == ["damaged"] * 3
    assert await stands(where) == {}


async def test_a_cancelled_caller_is_gone_at_once(where: str) -> None:
    """A caller that waits for the return may be cancelled; the events stay in the queue."""
    async with run_of(await opened(where)) as log:
        away = Away(recorded_by(log))
        log.run_state.add("a")
        await log.record("a", Event.GAVE_UP)
        began = anyio.current_time()
        with anyio.move_on_after(3):
            await log.returned()
        assert anyio.current_time() - began < 4
        away.come_back()
        await log.returned()
    assert await stands(where) == {"a": State.UNASKED}


async def test_an_end_that_can_not_be_written(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that ends while the database is away raises, and stays unfinished."""
    async with run_of(await opened(where)) as log:
        recorded_by(log)

        def gone(*_: Any) -> None:
            raise AWAY

        with monkeypatch.context() as patched:
            patched.setattr(OpenedRun, "finish", gone)
            with pytest.raises(JournalError, match="its end was not written"):
                await log.finish(patience=30)
    async with run_of(await opened(where)) as log:
        assert not log.finished


@pytest.mark.real_time
async def test_a_server_that_says_nothing(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An attempt without an end is left to its thread; its rows are not written twice."""
    monkeypatch.setattr(attempts, "_STALL_SECONDS", 0.2)
    async with run_of(await opened(where)) as log:
        recorder = recorded_by(log)
        log.run_state.add("a")
        await record(log, "a", Event.INTENT)
        go = threading.Event()
        calls = iter([True])

        def hang() -> None:
            if next(calls, False):
                assert go.wait(10)

        recorder.before = hang
        await record(log, "a", Event.ACCEPTED)
        assert log.away
        async with kept_by(log):
            await until(lambda: not log.away)
        go.set()
        await record(log, "a", Event.COMPLETED)
    assert [event for _, event in logged(where)] == ["intent", "accepted", "completed"]


# A database that really is away.


@pytest.mark.needs("PostgreSQL")
@pytest.mark.real_time
@pytest.mark.parametrize(
    ("driver", "how"),
    [
        ("psycopg", "terminate"),
        ("psycopg", "fast"),
        ("psycopg", "immediate"),
        ("psycopg2", "fast"),
        ("psycopg2", "immediate"),
        ("pg8000", "fast"),
        ("pg8000", "immediate"),
    ],
)
async def test_a_server_that_is_restarted(
    driver: str, how: str, own_postgres: PostgresServer
) -> None:
    """The log connects again, locks its run again, and has every event once."""
    where = own_postgres.schema()
    if driver == "pg8000":  # it knows no `options`
        where = by(driver, own_postgres, f"restarted_{how}_{anyio.get_current_task().id % 10**6}")
    where = where.replace("postgresql:", f"postgresql+{driver}:")
    async with run_of(await opened(where)) as log:
        log.run_state.add("a")
        await record(log, "a", Event.INTENT)
        await anyio.to_thread.run_sync(
            own_postgres.terminate if how == "terminate" else lambda: own_postgres.restart(how)
        )
        for event in GOES_WELL[1:]:
            await record(log, "a", event)
        await log.returned()
        with pytest.raises(JournalError) as caught:
            async with run_of(await opened(where)):
                pass
        assert caught.value.reason == "locked"
        assert [event for _, event in logged(where)] == [event.value for event in GOES_WELL]


@pytest.mark.needs("PostgreSQL")
@pytest.mark.real_time
async def test_a_lost_session_is_noticed_while_nothing_is_written(postgres: PostgresServer) -> None:
    """`check` notices the lost session, and locks the run again before another process can."""
    where = postgres.schema()
    async with run_of(await opened(where)) as log:
        assert log.has_sessions
        await live(log, "a", GOES_WELL[:2])
        await log.check(idle=3600)
        await anyio.to_thread.run_sync(postgres.terminate)
        await log.check(idle=0)
        assert log.away
        await log.returned()
        with pytest.raises(JournalError) as caught:
            async with run_of(await opened(where)):
                pass
        assert caught.value.reason == "locked"


@pytest.mark.needs("PostgreSQL")
@pytest.mark.real_time
@pytest.mark.parametrize("writes", [True, False])
async def test_another_process_took_the_run(writes: bool, postgres: PostgresServer) -> None:
    """If another process took the run, this one ends as locked, and overwrites nothing."""
    where = postgres.schema()
    async with run_of(await opened(where)) as log:
        await live(log, "a", GOES_WELL[:1])
        await anyio.to_thread.run_sync(postgres.terminate)
        async with run_of(await opened(where)) as other:
            if writes:
                other.run_state.add("a")
                await other.record("a", Event.LOST)
            await record(log, "a", Event.ACCEPTED)
            with pytest.raises(JournalError, match="another process has gone on") as caught:
                await log.returned()
            assert caught.value.reason == "locked"
    expected = ["intent", "lost"] if writes else ["intent"]
    assert [event for _, event in logged(where)] == expected


@pytest.mark.needs("PostgreSQL")
@pytest.mark.real_time
async def test_a_failover_that_lost_commits(postgres: PostgresServer) -> None:
    """A server without the last commits is recognised, and ends the run."""
    where = postgres.schema()
    async with run_of(await opened(where)) as log:
        await live(log, "a", GOES_WELL[:3])
        await anyio.to_thread.run_sync(postgres.terminate)
        execute(where, "DELETE FROM segments_async_events WHERE number > 1")
        log.run_state.add("b")
        await log.record("b", Event.INTENT)
        with pytest.raises(JournalError, match="had 3 events here, and has 1 now") as caught:
            await log.returned()
        assert caught.value.reason == "damaged"
        assert "Very-Secret" not in given_away(caught.value)


@pytest.mark.needs("PostgreSQL")
async def test_a_role_whose_sessions_end_when_idle(postgres: PostgresServer) -> None:
    """The journal's sessions turn off the idle limits of a role."""
    where = postgres.schema()
    for name in ("idle_session_timeout", "statement_timeout"):
        postgres.execute(f"ALTER ROLE journal SET {name} = '7s'")
    try:
        for name in ("idle_session_timeout", "statement_timeout"):
            assert rows(where, f"SHOW {name}") == [("0",)]
    finally:
        postgres.execute("ALTER ROLE journal RESET ALL")


@pytest.mark.real_time
async def test_a_file_that_another_process_has_locked(tmp_path: Path) -> None:
    """A SQLite file that is locked for longer than the silent wait loses nothing."""
    path = tmp_path / "runs.db"
    async with run_of(await opened(path)) as log:
        await live(log, "a", GOES_WELL[:1])
        with locked(path):
            await record(log, "a", Event.ACCEPTED)
            assert log.away
        await log.returned()
        await record(log, "a", Event.COMPLETED)
    assert await stands(str(path)) == {"a": State.COMPLETE}


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


@pytest.mark.real_time
async def test_a_disk_that_is_full_for_a_moment(tmp_path: Path) -> None:
    """A commit fails on a full disk; once there is space, the log is written again."""
    path = tmp_path / "runs.db"
    async with run_of(await opened(path)) as log:
        await live(log, "a", GOES_WELL[:1])
        connection = log.opened.link.connection
        assert connection is not None
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
        connection.rollback()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
        connection.rollback()
        for number in range(100):
            await live(log, f"s{number}", [Event.GAVE_UP])
        await log.returned()
    assert len(await stands(str(path))) == 101
