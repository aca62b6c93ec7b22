"""The pace of a run in the journal: one row for each run, written with its events."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from journal.lives import live, opened
from journal.test_sql import execute, rows
from segments_async import JournalError
from segments_async._journal.backends import backend
from segments_async._journal.database import Database
from segments_async._journal.records import StoredRun
from segments_async._journal.sql import SqlJournal
from segments_async._journal.tables import traces
from segments_async._sansio.pace.trace import PacePoint

pytestmark = pytest.mark.alternating

POINTS = [PacePoint(10.0, 11.0, 1.0, 20, 1, 9.5, {"rate_limit": 0.5})]
LATER = [*POINTS, PacePoint(11.0, 12.0, 1.0, 5, 0, None)]


async def stored(journal: SqlJournal) -> StoredRun | None:
    return await journal.ask(lambda database: database.stored_run("x"))


async def pace(journal: SqlJournal) -> list[PacePoint]:
    found = await stored(journal)
    assert found is not None
    return list(found.pace)


async def test_a_trace_is_written_with_the_next_events(where: str) -> None:
    """It costs no transaction of its own, and replaces the earlier one."""
    journal = await opened(where)
    log = await journal.open_run(destination=None, name="x", now_name="now")
    log.keep_trace(POINTS)
    assert await pace(journal) == []
    await live(log, "a")
    assert await pace(journal) == POINTS
    log.keep_trace(LATER)
    await live(log, "b")
    assert await pace(journal) == LATER
    assert len(rows(where, "SELECT * FROM segments_async_traces")) == 1
    await log.aclose()


@pytest.mark.parametrize("finishes", [True, False])
async def test_the_last_trace_is_written_at_the_end(where: str, finishes: bool) -> None:
    """Whether the run ends or is left, the pace of its last seconds is stored."""
    journal = await opened(where)
    log = await journal.open_run(destination=None, name="x", now_name="now")
    await live(log, "a")
    log.keep_trace(LATER)
    if finishes:
        await log.finish()
    await log.aclose()
    assert await pace(journal) == LATER


async def test_a_later_session_begins_with_the_earlier_one_s(where: str) -> None:
    """The next session of the run is given what is stored."""
    journal = await opened(where)
    log = await journal.open_run(destination=None, name="x", now_name="now")
    assert list(log.trace) == []
    log.keep_trace(POINTS)
    await live(log, "a")
    await log.aclose()
    log = await (await opened(where)).open_run(destination=None, name="x", now_name="now")
    assert list(log.trace) == POINTS
    await log.aclose()


async def test_a_trace_that_was_changed_is_damage(where: str) -> None:
    """No page is drawn from a row that is not as it was written."""
    journal = await opened(where)
    log = await journal.open_run(destination=None, name="x", now_name="now")
    log.keep_trace(POINTS)
    await live(log, "a")
    await log.aclose()
    execute(where, "UPDATE segments_async_traces SET points = replace(points, '20', '21')")
    with pytest.raises(JournalError) as caught:
        await stored(journal)
    assert caught.value.reason == "damaged"


async def test_a_journal_of_an_earlier_version_has_no_pace(where: str) -> None:
    """Without the table a run can be reported; the next session adds it, and writes its pace."""
    journal = await opened(where)
    log = await journal.open_run(destination=None, name="x", now_name="now")
    await live(log, "a")
    await log.aclose()
    with backend(where).engine.begin() as connection:
        traces.drop(connection)
    journal = await opened(where)
    found = await stored(journal)
    assert found is not None
    assert (list(found.pace), set(found.records)) == ([], {"a"})
    log = await journal.open_run(destination=None, name="x", now_name="now")
    log.keep_trace(POINTS)
    await live(log, "b")
    await log.aclose()
    assert await pace(journal) == POINTS


async def test_a_pruned_run_takes_its_pace_along(where: str) -> None:
    """The database deletes the trace with its run."""
    journal = await opened(where)
    log = await journal.open_run(destination=None, name="x", now_name="now")
    log.keep_trace(POINTS)
    await live(log, "a")
    await log.aclose()
    assert await journal.prune(datetime.now(UTC) + timedelta(days=1)) == 1
    assert rows(where, "SELECT * FROM segments_async_traces") == []
    assert await journal.ask(Database.runs) == []
