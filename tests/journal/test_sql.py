"""The events and runs that the journal stores, on both backends."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import attrs
import pytest
import sqlalchemy

from journal.lives import (
    DESTINATION,
    GOES_WELL,
    NOON,
    export_of,
    file_of,
    live,
    opened,
    payload_for,
    run_of,
)
from segments_async import ConfigurationError, JournalError
from segments_async._journal.backends import backend
from segments_async._journal.database import Database
from segments_async._journal.records import GuardRecord
from segments_async._journal.sql import SqlJournal
from segments_async._sansio.jobs.lifecycle import Event, IllegalTransition, State
from segments_async._sansio.jobs.payload import Payload, SecretInPayload, UnreadablePayload

pytestmark = pytest.mark.alternating


def rows(where: str, query: str) -> list[Any]:
    """The rows that another connection reads."""
    with backend(where).engine.connect() as connection:
        return list(connection.exec_driver_sql(query).all())


def execute(where: str, statement: str) -> None:
    with backend(where).engine.begin() as connection:
        connection.exec_driver_sql(statement)


def logged(where: str) -> list[tuple[str, str]]:
    query = "SELECT segment_id, event FROM segments_async_events ORDER BY id"
    return [tuple(row) for row in rows(where, query)]


async def test_an_event_is_durable_when_record_returns(where: str) -> None:
    """A second connection sees each event as soon as record() has returned."""
    journal = await opened(where)
    async with run_of(journal) as log:
        log.run_state.add("a")
        told = []
        for event in GOES_WELL:
            await log.record("a", event, payload_for(event, export_of("a")))
            told.append(("a", event.value))
            assert logged(where) == told


async def test_nothing_is_written_of_a_new_segment(where: str) -> None:
    """Opening ten thousand segments takes no row: a segment without events is NEW."""
    async with run_of(await opened(where)) as log:
        for number in range(10_000):
            log.run_state.add(f"s{number}")
        assert log.run_state.count(State.NEW) == 10_000
    assert logged(where) == []


async def test_an_illegal_event_changes_nothing(where: str) -> None:
    """An illegal event, or an unusable payload, raises; neither the log nor the counts change."""
    async with run_of(await opened(where)) as log:
        await live(log, "a", [Event.INTENT])
        with pytest.raises(IllegalTransition):
            await log.record("a", Event.COMPLETED)
        with pytest.raises(UnreadablePayload):
            await log.record("a", Event.ACCEPTED)
        file = attrs.evolve(file_of(export_of("a")), location="https://host/?token=1")
        with pytest.raises(SecretInPayload):
            await log.record("a", Event.ACCEPTED, Payload.of_file(file))
        with pytest.raises(KeyError):
            await log.record("stranger", Event.INTENT)
        assert (log.run_state.state("a"), log.run_state.count(*State)) == (State.INTENT, 1)
        await log.record("a", Event.ACCEPTED, payload_for(Event.ACCEPTED, export_of("a")))
    assert logged(where) == [("a", "intent"), ("a", "accepted")]


async def test_a_run_goes_on(where: str) -> None:
    """The unfinished run to a destination goes on, with the records of the last session."""
    journal = await opened(where)
    async with run_of(journal) as log:
        await live(log, "done")
        await live(log, "submitted", GOES_WELL[:2])
        before = dict(log.run_state.records)
    async with run_of(await opened(where), now_name="later") as log:
        assert (log.name, log.finished) == ("now", False)
        assert log.run_state.records == before
        assert log.run_state.add("done").file == file_of(export_of("done"))
        assert log.run_state.add("submitted").export == export_of("submitted")
        assert log.run_state.add("new").state is State.NEW
        assert (log.run_state.count(State.DONE), log.run_state.count(State.NEW)) == (1, 1)


async def test_the_segments_given_now_decide(where: str) -> None:
    """A segment of an earlier session that this one doesn't have is known, and not counted."""
    journal = await opened(where)
    async with run_of(journal) as log:
        await live(log, "a")
        await live(log, "b")
    async with run_of(journal) as log:
        log.run_state.add("a")
        assert log.run_state.count(State.DONE) == 1


async def test_a_finished_run_is_not_gone_on_with(where: str) -> None:
    """After finish() the next unnamed run is a new one, with a name of its own."""
    journal = await opened(where)
    names = []
    for _ in range(3):
        async with run_of(journal) as log:
            names.append(log.name)
            await log.finish()
            assert log.finished
    assert names == ["now", "now-2", "now-3"]


async def test_a_finished_named_run_tells_its_outcomes(where: str) -> None:
    """A finished run is opened by any number of processes, and accepts no event."""
    journal = await opened(where)
    async with run_of(journal, "nightly") as log:
        await live(log, "a")
        await log.finish()
    async with run_of(journal, "nightly") as log, run_of(journal, "nightly") as again:
        assert log.finished
        assert again.run_state.records["a"].state is State.DONE
        log.run_state.add("b")
        with pytest.raises(AssertionError):
            await log.record("b", Event.INTENT)


async def test_a_named_run_is_no_unnamed_one(where: str) -> None:
    """Without a name, no named run goes on; with a name, any run of that name does."""
    journal = await opened(where)
    async with run_of(journal, "nightly") as log:
        await live(log, "a", [Event.INTENT])
    async with run_of(journal) as log:
        assert (log.name, dict(log.run_state.records)) == ("now", {})
    async with run_of(journal, "now") as log:
        assert not log.finished
    async with run_of(journal, "nightly") as log:
        assert log.run_state.records["a"].state is State.INTENT


async def test_each_destination_has_its_own_run(where: str) -> None:
    """Unnamed runs differ by destination, also by none; a named run has one destination."""
    journal = await opened(where)
    async with run_of(journal, destination="/a") as a, run_of(journal, destination=None) as b:
        assert {a.name, b.name} == {"now", "now-2"}
    async with run_of(journal, destination=None) as b:
        assert b.name == "now-2"
    with pytest.raises(ConfigurationError, match="go to no directory, not to /a"):
        await journal.open_run(destination="/a", name="now-2", now_name="x")


async def test_a_held_run_is_refused(where: str) -> None:
    """An open run is locked for others, also in this process, until it is closed."""
    journal, other = await opened(where), await opened(where)
    async with run_of(journal) as log:
        await live(log, "a", [Event.INTENT])
        with pytest.raises(JournalError, match="run now is held by a live process") as caught:
            await other.open_run(destination=DESTINATION, name=None, now_name="x")
        assert caught.value.reason == "locked"
        async with run_of(other, "another") as second:
            await live(second, "a", [Event.INTENT])
    async with run_of(other) as log:
        assert log.name == "now"


async def test_another_accounts_journal_is_refused(where: str) -> None:
    """Another account's journal is refused."""
    await opened(where)
    with pytest.raises(JournalError, match="another account") as caught:
        await SqlJournal.open(where, account="cd" * 32)
    assert caught.value.reason == "foreign"


async def test_a_newer_schema_is_refused(where: str) -> None:
    """A later version's journal is refused as `newer`, and not changed."""
    await opened(where)
    execute(where, "UPDATE segments_async_journal SET version = 2")
    with pytest.raises(JournalError, match="later version") as caught:
        await opened(where)
    assert caught.value.reason == "newer"


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE segments_async_events SET facts = '{}' WHERE event = 'accepted'",
        "UPDATE segments_async_events SET event = 'failed' WHERE event = 'completed'",
        "UPDATE segments_async_events SET segment_id = 'b' WHERE number = 1",
        "DELETE FROM segments_async_events WHERE number = 2",
        "UPDATE segments_async_events SET number = 9 WHERE number = 2",
        "UPDATE segments_async_runs SET destination = '/elsewhere'",
        "UPDATE segments_async_journal SET account = account || 'x'",
        "DELETE FROM segments_async_journal",
    ],
)
async def test_what_was_changed_is_damage(where: str, statement: str) -> None:
    """A changed value, or a missing row, is found and refused."""
    async with run_of(await opened(where), "nightly") as log:
        await live(log, "a")
    execute(where, statement)
    with pytest.raises(JournalError) as caught:
        async with run_of(await opened(where), "nightly"):
            pass
    assert caught.value.reason == "damaged"


@pytest.mark.parametrize("column", ["facts", "at", "segment_id", "seal", "number"])
async def test_a_value_of_another_type_is_damage(tmp_path: Path, column: str) -> None:
    """SQLite stores a type with each value, in which a bit may flip: bytes for a text are found."""
    where = str(tmp_path / "runs.db")
    async with run_of(await opened(where), "nightly") as log:
        await live(log, "a")
    execute(where, f"UPDATE segments_async_events SET {column} = CAST({column} AS BLOB)")
    with pytest.raises(JournalError) as caught:
        async with run_of(await opened(where), "nightly"):
            pass
    assert caught.value.reason == "damaged"


async def test_durations(where: str) -> None:
    """The seconds that each segment's last COMPLETE export took, in any run."""
    journal = await opened(where)
    async with run_of(journal, "one") as log:
        await live(log, "a", seconds=10.0)
        await live(log, "b", seconds=20.0)
        await live(log, "c", GOES_WELL[:2])
    async with run_of(journal, "two", destination=None) as log:
        await live(log, "a", GOES_WELL[:3], seconds=30.5)
    asked = ["a", "b", "c", *(f"s{n}" for n in range(1200))]
    assert await journal.ask(lambda database: database.durations(asked)) == {"a": 30.5, "b": 20.0}


async def test_last_files(where: str) -> None:
    """Each segment's last file in the destination, with the `last_run` of the file's export."""
    journal = await opened(where)
    tomorrow = NOON + timedelta(days=1)
    async with run_of(journal, "one") as log:
        await live(log, "a")
        await live(log, "b")
    async with run_of(journal, "two") as log:
        await live(log, "a", last_run=tomorrow)
        await live(log, "b", [Event.UNCHANGED])
        await live(log, "c", GOES_WELL[:4])
    async with run_of(journal, "three", destination="/elsewhere") as log:
        await live(log, "b", last_run=tomorrow)
    files = await journal.ask(lambda database: database.last_files(["a", "b", "c"], DESTINATION))
    assert files == {
        "a": file_of(export_of("a", last_run=tomorrow)),
        "b": file_of(export_of("b")),
    }


async def test_the_guard(where: str) -> None:
    """The guard is stored for the account, until it is deleted."""
    journal = await opened(where)
    assert await journal.ask(Database.guard) is None
    for pause in (60.0, 0.1 + 0.2):
        record = GuardRecord(NOON, pause, 3)
        await journal.ask(partial(Database.set_guard, record=record))
        assert await (await opened(where)).ask(Database.guard) == record
    await journal.ask(partial(Database.set_guard, record=None))
    assert await journal.ask(Database.guard) is None


async def test_the_table_of_runs(where: str) -> None:
    """Every run, the latest first, with its counts, and whether it is live."""
    journal = await opened(where)
    async with run_of(journal, "one") as log:
        await live(log, "a")
        await live(log, "b", [Event.INTENT, Event.LOST])
        log.run_state.add("c")
        await log.finish()
    async with run_of(journal, "two", destination=None) as log:
        await live(log, "a", [Event.INTENT])
        two, one = await journal.ask(Database.runs)
    assert (one.name, one.destination, one.live) == ("one", DESTINATION, False)
    assert (one.segments, one.exported, one.not_exported, one.unfinished) == (3, 1, 1, 1)
    assert (two.name, two.destination, two.live) == ("two", None, True)
    assert (two.segments, two.exported, two.not_exported, two.unfinished) == (None, 0, 0, 1)
    assert two.ended_at is None
    assert one.ended_at is not None
    assert one.started_at <= one.ended_at <= datetime.now(UTC)


async def test_prune(where: str) -> None:
    """Old runs and their events go, finished or abandoned; runs of live processes stay."""
    journal = await opened(where)
    async with run_of(journal, "finished") as log:
        await live(log, "a")
        await log.finish()
    async with run_of(journal, "abandoned") as log:
        await live(log, "b")
    async with run_of(journal, "live") as log:
        await live(log, "c", GOES_WELL[:2])
        assert await journal.prune(datetime.now(UTC) - timedelta(days=1)) == 0
        assert await journal.prune(datetime.now(UTC) + timedelta(days=1)) == 2
        assert [run.name for run in await journal.ask(Database.runs)] == ["live"]
        assert {segment_id for segment_id, _ in logged(where)} == {"c"}
        await log.record("c", Event.COMPLETED, payload_for(Event.COMPLETED, export_of("c")))
    async with run_of(journal, "abandoned") as log:
        assert dict(log.run_state.records) == {}


@pytest.mark.parametrize("name", ["", "a\nb", "x" * 201, "https://host/?sig=1", "\udc80", "\x00"])
async def test_what_is_no_name(where: str, name: str) -> None:
    """Names that a terminal or a database can't show or store are refused, and secrets."""
    journal = await opened(where)
    with pytest.raises(ConfigurationError):
        await journal.open_run(destination=None, name=name, now_name="x")


async def test_two_runs_at_once(where: str) -> None:
    """Two journals on one database write different runs at once, each in its order."""
    journals = [await opened(where) for _ in range(2)]

    async def run(number: int) -> None:
        async with (
            run_of(journals[number], f"run-{number}") as log,
            anyio.create_task_group() as tg,
        ):
            for n in range(20):
                tg.start_soon(live, log, f"{number}-{n}")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run, 0)
        tasks.start_soon(run, 1)
    for number in range(2):
        async with run_of(await opened(where), f"run-{number}") as log:
            assert len(log.run_state.records) == 20
            assert {record.state for record in log.run_state.records.values()} == {State.DONE}


@pytest.mark.parametrize(
    "url",
    [
        "mysql://host/x",
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite:///x?mode=ro",
        "://",
        "",
        "nonsense://user:Very-Secret@host/?password=Very-Secret",
    ],
)
async def test_where_no_journal_can_be(url: str) -> None:
    """Other databases, memory and nonsense are refused; the message has no password."""
    with pytest.raises(ConfigurationError) as caught:
        await opened(url)
    assert "Very-Secret" not in str(caught.value)


async def test_without_sqlalchemy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without SQLAlchemy, the error says how to install it."""
    import sys

    for name in ("database", "backends", "errors", "opened_run", "tables"):
        monkeypatch.delitem(sys.modules, f"segments_async._journal.{name}", raising=False)
    monkeypatch.setitem(sys.modules, "sqlalchemy", None)
    with pytest.raises(ConfigurationError, match=r"pip install 'segments-async\[journal\]'"):
        await opened(tmp_path / "runs.db")


@pytest.mark.needs("PostgreSQL")
async def test_no_password_in_an_error(postgres: Any) -> None:
    """A missing database is `unavailable`; the message has no password."""
    with pytest.raises(JournalError, match="no_such_database") as caught:
        await opened(postgres.url("no_such_database"))
    error: BaseException | None = caught.value
    assert caught.value.reason == "unavailable"
    assert "Very-Secret" not in caught.value.location
    while error is not None:
        assert "Very-Secret" not in f"{error}{error!r}"
        error = error.__cause__ or error.__context__


@pytest.mark.needs("PostgreSQL")
async def test_a_commit_waits_for_the_disk(postgres: Any) -> None:
    """The journal's connections turn synchronous_commit on if the server has it off."""
    with backend(postgres.schema()).engine.connect() as connection:
        assert connection.execute(sqlalchemy.text("SHOW synchronous_commit")).scalar() == "on"
