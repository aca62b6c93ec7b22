"""Unwritten events of a session, and the next session that writes them."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from journal.lives import export_of, opened, payload_for, run_of
from journal.test_away import Away
from journal.test_run_log import recorded_by
from journal.test_sql import logged
from segments_async._journal.high_water import DIRECTORY
from segments_async._sansio.jobs.lifecycle import Event, State

pytestmark = pytest.mark.alternating


@pytest.fixture
def to(tmp_path: Path) -> str:
    directory = tmp_path / "exports"
    directory.mkdir()
    return str(directory)


def unwritten(to: str) -> list[Path]:
    return sorted((Path(to) / DIRECTORY).glob("unwritten-*"))


async def left_while_away(where: str, to: str) -> None:
    """A session that ends with an accepted export that is not in the journal."""
    async with run_of(await opened(where), destination=to) as log:
        log.run_state.add("a")
        await log.record("a", Event.INTENT)
        Away(recorded_by(log))
        for event in (Event.ACCEPTED, Event.COMPLETED):
            await log.record("a", event, payload_for(event, export_of("a")))
        assert log.knows_export("a")


async def stands(where: str, to: str) -> State:
    async with run_of(await opened(where), destination=to) as log:
        return log.run_state.records["a"].state


async def test_the_next_session_writes_them(where: str, to: str) -> None:
    """The next session writes the events into the journal, and removes the file."""
    await left_while_away(where, to)
    [path] = unwritten(to)
    assert path.stat().st_mode & 0o777 == 0o600
    assert await stands(where, to) is State.COMPLETE
    assert unwritten(to) == []
    assert [event for _, event in logged(where)] == ["intent", "accepted", "completed"]
    assert await stands(where, to) is State.COMPLETE


async def test_the_directory_was_moved_with_its_journal(to: str, tmp_path: Path) -> None:
    """The next session finds the events beside the journal's present place."""
    await left_while_away(f"{to}/runs.db", to)
    moved = tmp_path / "moved"
    await anyio.Path(to).rename(moved)
    where = str(moved / "runs.db")
    assert await stands(where, str(moved)) is State.COMPLETE
    assert unwritten(str(moved)) == []
    assert [event for _, event in logged(where)] == ["intent", "accepted", "completed"]
    assert [path.name[:5] for path in (moved / DIRECTORY).iterdir()] == ["seen-"]


async def test_some_of_them_were_written_after_all(where: str, to: str) -> None:
    """Rows of a commit whose answer was lost are in the log already, and are not written twice."""
    await left_while_away(where, to)
    [path] = unwritten(to)
    kept = path.read_text()
    assert await stands(where, to) is State.COMPLETE
    path.write_text(kept)
    assert await stands(where, to) is State.COMPLETE
    assert [event for _, event in logged(where)] == ["intent", "accepted", "completed"]


CHANGES: dict[str, Callable[[list[dict[str, Any]]], list[dict[str, Any]]]] = {
    "a changed fact": lambda rows: [{**rows[0], "segment_id": "b"}, *rows[1:]],
    "one is missing": lambda rows: rows[1:],
    "another order": lambda rows: rows[::-1],
    "no row": lambda _: [{"number": 2}],
    "nothing": lambda _: [],
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
async def test_what_does_not_follow_the_log(
    change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]], where: str, to: str
) -> None:
    """Events that do not follow the log are left in the file; the journal is not changed."""
    await left_while_away(where, to)
    [path] = unwritten(to)
    rows = change([json.loads(line) for line in path.read_text().splitlines()])
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert await stands(where, to) is State.INTENT
    assert unwritten(to) == [path]


async def test_another_session_has_gone_on(
    where: str, to: str, caplog: pytest.LogCaptureFixture
) -> None:
    """After another session went on without the events, they stay in the file, with a warning."""
    caplog.set_level(logging.WARNING, logger="segments_async")
    await left_while_away(where, to)
    [path] = unwritten(to)
    kept = path.read_bytes()
    path.unlink()
    async with run_of(await opened(where), destination=to) as log:
        log.run_state.add("a")
        await log.record("a", Event.LOST)
    path.write_bytes(kept)
    caplog.clear()
    assert await stands(where, to) is State.UNKNOWN
    assert "do not follow the journal" in caplog.text
    assert path.read_bytes() == kept


async def test_where_there_is_no_place_for_them(
    where: str, caplog: pytest.LogCaptureFixture
) -> None:
    """For a run without a directory, an ERROR says how many events are lost."""
    async with run_of(await opened(where), destination=None) as log:
        log.run_state.add("a")
        await log.record("a", Event.INTENT)
        Away(recorded_by(log))
        await log.record("a", Event.ACCEPTED, payload_for(Event.ACCEPTED, export_of("a")))
        assert not log.knows_export("a")
    assert "the last 1 events could not be stored" in caplog.text
