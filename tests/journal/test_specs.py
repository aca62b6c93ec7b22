"""The spec of a run in the journal: the segments and options for a later session."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from journal.lives import live, opened, run_of
from journal.test_sql import execute, rows
from segments_async import JournalError, RunSpec
from segments_async._journal.backends import backend
from segments_async._journal.database import Database
from segments_async._journal.sql import SqlJournal
from segments_async._journal.tables import limit, members, specs

pytestmark = pytest.mark.alternating

SPEC = RunSpec(segments=["a", "b", "c"], options={"only_changed": True, "export_timeout": 7.0})


async def spec_of(journal: SqlJournal, run: str = "x") -> RunSpec | None:
    return await journal.ask(lambda database: database.spec(run))


async def test_a_spec_is_stored_until_the_run_ends(where: str) -> None:
    """The last session's spec is given back by a later process, and is gone with the run's end."""
    journal = await opened(where)
    log = await journal.open_run(destination="/exports", name="x", now_name="now", spec=SPEC)
    await live(log, "a")
    [run] = await journal.ask(Database.runs)
    assert (run.segments, run.exported, run.unfinished) == (3, 1, 2)
    assert await spec_of(journal) == RunSpec(segments=("a", "b", "c"), options=SPEC.options)
    await log.aclose()
    async with run_of(await opened(where), "x") as log:  # without a spec of its own
        assert (await spec_of(journal)) is not None
        await log.finish()
    assert await spec_of(journal) is None
    assert rows(where, "SELECT * FROM segments_async_specs") == []


async def test_a_later_session_replaces_the_spec(where: str) -> None:
    """Segments with events stay counted, where a later session is given fewer."""
    journal = await opened(where)
    for segments in ("ab", "c"):
        spec = RunSpec(segments=list(segments), options={})
        log = await journal.open_run(destination=None, name="x", now_name="now", spec=spec)
        await live(log, segments[0])
        await log.aclose()
    assert await spec_of(journal) == RunSpec(segments=("c",), options={})
    [run] = await journal.ask(Database.runs)
    assert (run.segments, run.exported) == (2, 2)
    assert (await journal.ask(lambda database: database.segments("x"))).keys() == {"a", "c"}


async def test_a_spec_that_was_flipped_is_damage(where: str) -> None:
    """The segments of a run are exported as they were given, or not at all."""
    journal = await opened(where)
    log = await journal.open_run(destination=None, name="x", now_name="now", spec=SPEC)
    await log.aclose()
    execute(where, "UPDATE segments_async_specs SET spec = replace(spec, 'b', 'x')")
    with pytest.raises(JournalError) as caught:
        await spec_of(journal)
    assert caught.value.reason == "damaged"


async def test_a_journal_of_an_earlier_version(where: str) -> None:
    """Without the newer tables a journal is read as it is; the next run adds them."""
    journal = await opened(where)
    async with run_of(journal, "old") as log:
        await live(log, "a")
    with backend(where).engine.begin() as connection:
        for table in (specs, limit, members):
            table.drop(connection)
    journal = await opened(where)
    [run] = await journal.ask(Database.runs)
    assert (run.name, run.segments, run.exported) == ("old", None, 1)
    assert await spec_of(journal, "old") is None
    with pytest.raises(Exception, match="segments_async_specs"):
        rows(where, "SELECT * FROM segments_async_specs")
    log = await journal.open_run(destination="/exports", name="old", now_name="x", spec=SPEC)
    assert set(log.run_state.records) == {"a"}
    await log.aclose()
    assert (await spec_of(journal, "old")) is not None
    assert rows(where, "SELECT * FROM segments_async_limit") == []


async def test_a_pruned_run_takes_its_spec_along(where: str) -> None:
    """The database deletes the spec with its run, also if an earlier version prunes."""
    journal = await opened(where)
    log = await journal.open_run(destination=None, name="x", now_name="now", spec=SPEC)
    await log.aclose()
    assert await journal.prune(datetime.now(UTC) + timedelta(days=1)) == 1
    assert rows(where, "SELECT * FROM segments_async_specs") == []
