"""A journal without its last commits is refused, and no export is requested twice."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import anyio
import anyio.from_thread
import pytest
from reliability.lies import of_locks
from sqlalchemy import Connection

from journal.lives import GOES_WELL, NOON, live, opened, run_of
from journal.server import PostgresServer
from journal.test_sql import execute
from segments_async import JournalError
from segments_async._journal import opening
from segments_async._journal.high_water import DIRECTORY, HighWaterFile, HighWaterMark, marks
from segments_async._journal.log import Log
from segments_async._journal.opening import mark_of
from segments_async._sansio.jobs.lifecycle import Event, State

pytestmark = pytest.mark.alternating


@pytest.fixture
def to(tmp_path: Path) -> str:
    """A directory for files, as a run creates it."""
    directory = tmp_path / "exports"
    directory.mkdir()
    return str(directory)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs.db"


def remove(path: Path) -> None:
    path.unlink()


def seen_in(to: str) -> list[Path]:
    return sorted((Path(to) / DIRECTORY).glob("*"))


async def begun(path: Path, to: str, backup: Path | None = None) -> None:
    """A run with two exports, of which the backup knows one."""
    async with run_of(await opened(path), destination=to) as log:
        await live(log, "a", GOES_WELL[:2])
        if backup is not None:
            shutil.copy(path, backup)
        await live(log, "b", GOES_WELL[:2])


async def test_a_backup_that_was_put_back(path: Path, to: str, tmp_path: Path) -> None:
    """A backup has fewer events than were durable. The message has both numbers, and advice."""
    await begun(path, to, tmp_path / "backup")
    shutil.copy(path, tmp_path / "newest")
    shutil.copy(tmp_path / "backup", path)
    for _ in range(2):
        with pytest.raises(
            JournalError, match="4 events of it were durable, and the journal has 2"
        ) as caught:
            async with run_of(await opened(path), destination=to):
                pass
        assert caught.value.reason == "damaged"
        assert str(seen_in(to)[0]) in str(caught.value)
    shutil.copy(tmp_path / "newest", path)
    async with run_of(await opened(path), destination=to) as log:
        assert log.run_state.records.keys() == {"a", "b"}


async def test_a_backup_from_before_the_run(path: Path, to: str, tmp_path: Path) -> None:
    """A backup without the run is refused: the run would be started anew."""
    await opened(path)
    shutil.copy(path, tmp_path / "backup")
    await begun(path, to)
    shutil.copy(tmp_path / "backup", path)
    with pytest.raises(JournalError, match="does not have it") as caught:
        async with run_of(await opened(path), destination=to):
            pass
    assert caught.value.reason == "damaged"


async def test_a_journal_that_was_removed(path: Path, to: str) -> None:
    """A new journal is refused, too, until the file that the message names is removed."""
    await begun(path, to)
    remove(path)
    with pytest.raises(JournalError, match="does not have it"):
        async with run_of(await opened(path), destination=to):
            pass
    [seen] = seen_in(to)
    seen.unlink()
    async with run_of(await opened(path), destination=to) as log:
        assert dict(log.run_state.records) == {}


@pytest.mark.parametrize("name", ["nightly", None])
async def test_a_backup_from_before_the_runs_end(
    name: str | None, path: Path, to: str, tmp_path: Path
) -> None:
    """A backup that has a finished run as unfinished is refused."""
    async with run_of(await opened(path), name, destination=to) as log:
        await live(log, "a", [Event.INTENT, Event.LOST])
        shutil.copy(path, tmp_path / "backup")
        await log.finish()
    shutil.copy(tmp_path / "backup", path)
    with pytest.raises(JournalError, match="has the run as unfinished"):
        async with run_of(await opened(path), name, destination=to):
            pass


async def test_a_run_that_ends_while_it_is_opened(
    path: Path, to: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An end that was written after the run's row was read is no sign of an older copy."""
    for where, method, lie in of_locks():
        monkeypatch.setattr(where, method, lie)
    async with run_of(await opened(path), "nightly", destination=to) as log:
        await live(log, "a", [Event.INTENT, Event.LOST])

        def finish_first(journal: str, row: Mapping[str, Any]) -> HighWaterMark | None:
            log.opened.finish(NOON, {State.UNKNOWN: 1})
            return mark_of(journal, row)

        monkeypatch.setattr(opening, "mark_of", finish_first)
        async with run_of(await opened(path), "nightly", destination=to) as second:
            assert second.finished


@pytest.mark.needs("PostgreSQL")
@pytest.mark.parametrize("before", [[], [Event.INTENT]], ids=["the first event", "a later one"])
async def test_a_log_that_is_written_while_it_is_read(
    before: list[Event], postgres: PostgresServer, to: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An event that comes between two statements is no sign of an index without its end.

    A process whose database session broke may still write while another has taken its part over.
    """
    for where, method, lie in of_locks():
        monkeypatch.setattr(where, method, lie)
    journal = await opened(postgres.schema())
    count, coming = Log.count_after, [Event.INTENT, Event.LOST][len(before) : len(before) + 1]

    async with run_of(journal, "nightly", destination=to) as first:
        await live(first, "a", before)

        def write_first(log: Log, connection: Connection, last_id: int) -> int:
            for event in (coming.pop() for _ in tuple(coming)):
                anyio.from_thread.run(live, first, "a", [event])
            return count(log, connection, last_id)

        monkeypatch.setattr(Log, "count_after", write_first)
        async with run_of(journal, "nightly", destination=to) as second:
            expected = State.UNKNOWN if before else State.INTENT
            assert second.run_state.records["a"].state is expected
    assert not coming


async def test_a_copy_elsewhere(path: Path, to: str, tmp_path: Path) -> None:
    """A journal may be moved; a copy without the last commits is refused there, too."""
    await begun(path, to, tmp_path / "copy.db")
    shutil.move(path, tmp_path / "moved.db")
    async with run_of(await opened(tmp_path / "moved.db"), destination=to) as log:
        assert log.run_state.records.keys() == {"a", "b"}
    # The mark is of the original journal: of a moved journal, only its own runs are known.
    shutil.move(tmp_path / "copy.db", path)
    with pytest.raises(JournalError) as caught:
        async with run_of(await opened(path), destination=to):
            pass
    assert caught.value.reason == "damaged"


async def test_what_is_no_reason_to_refuse(path: Path, to: str, tmp_path: Path) -> None:
    """Other journals, deleted finished runs, and missing or damaged mark files are no reason."""
    async with run_of(await opened(path), destination=to) as log:
        await live(log, "a")
        await log.finish()
    (Path(to) / DIRECTORY / "seen-0000.json").write_text("{}")
    (Path(to) / DIRECTORY / "seen-0001.json").write_text("[" * 100_000)
    async with run_of(await opened(path), destination=to, now_name="second"):
        pass
    async with run_of(await opened(tmp_path / "other.db"), destination=to):
        pass
    remove(path)
    for seen in seen_in(to):
        seen.unlink()
    async with run_of(await opened(path), destination=to) as log:
        assert dict(log.run_state.records) == {}


async def test_a_pruned_run_is_not_missed(path: Path, to: str) -> None:
    """Pruning a run removes its mark file."""
    from datetime import UTC, datetime, timedelta

    await begun(path, to)
    journal = await opened(path)
    assert await journal.prune(datetime.now(UTC) + timedelta(days=1)) == 1
    assert seen_in(to) == []
    async with run_of(journal, destination=to) as log:
        assert dict(log.run_state.records) == {}


@pytest.mark.needs("PostgreSQL")
async def test_a_database_that_failed_over(postgres: PostgresServer, to: str) -> None:
    """A PostgreSQL that failed over is refused by another session of the run."""
    where = postgres.schema()
    async with run_of(await opened(where), destination=to) as log:
        await live(log, "a", GOES_WELL[:3])
    execute(where, "DELETE FROM segments_async_events WHERE number = 3")
    with pytest.raises(JournalError, match="3 events of it were durable, and the journal has 2"):
        async with run_of(await opened(where), destination=to):
            pass
    # Another schema is another journal.
    async with run_of(await opened(postgres.schema()), destination=to):
        pass


BREAKS: dict[str, Callable[[Path], Any]] = {
    "a file in its place": lambda to: (to / DIRECTORY).write_text(""),
    "a link in its place": lambda to: (to / DIRECTORY).symlink_to("nowhere"),
    "no directory": lambda to: to.rmdir(),
}


@pytest.mark.parametrize("break_it", BREAKS.values(), ids=BREAKS)
async def test_a_mark_that_can_not_be_written(
    break_it: Callable[[Path], Any], path: Path, to: str
) -> None:
    """A mark file that can't be written harms no run."""
    break_it(Path(to))
    await begun(path, to)
    async with run_of(await opened(path), destination=to) as log:
        assert log.run_state.records.keys() == {"a", "b"}


def test_a_mark_has_the_last_number(to: str) -> None:
    """A mark file has the last number, for its own journal only; only its owner can read it."""
    high_water = HighWaterFile(to, "here", "n", "then")
    for number in range(200):
        high_water.write(number, finished=False)
    high_water.write(199, finished=True)
    high_water.close()
    [path] = seen_in(to)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    [seen] = marks(to, "here")
    assert (seen.run, seen.started_at, seen.events, seen.finished) == ("n", "then", 199, True)
    assert list(marks(to, "elsewhere")) == []
    assert HighWaterMark.read(path.with_name("none")) is None
