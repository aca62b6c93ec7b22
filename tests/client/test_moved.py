"""A directory that was moved with its journal, by the sandbox's record."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from client.vendor import STEADY, all_whole, connected
from segments_async import BulkReport, ConfigurationError, Journal, JournalError
from segments_async._journal.tables import events, runs, with_checksum
from segments_async.sandbox import API_ORIGIN, PAGE_API_KEY, Sandbox

pytestmark = pytest.mark.alternating

#: Where the command line has it.
INSIDE = Path(".segments-async") / "runs.db"
#: Seconds after which some of six exports have files, and others are at the vendor.
HALF_WAY = 4.3


def sandbox_of(segments: int = 6) -> Sandbox:
    return Sandbox(segments=segments, rows=5, durations=STEADY)


async def session(
    sandbox: Sandbox, to: Path, *, journal: Path | None = None, **options: Any
) -> BulkReport[Any]:
    """One session of a run, with the journal in the directory of the files."""
    async with connected(sandbox) as client:
        segments = await client.list_segments()
        where = journal or to / INSIDE
        return await client.bulk_export(segments, to, journal=where, **options)


async def journal_at(path: Path) -> Journal:
    return await Journal.open(path, api_key=PAGE_API_KEY, base_url=API_ORIGIN)


def directories(report: BulkReport[Any]) -> set[Path]:
    return {outcome.file.path.parent for outcome in report.exported}


def sources(report: BulkReport[Any]) -> list[str]:
    return [outcome.source for outcome in report.exported]


@pytest.mark.parametrize("seconds", [0.5, 2.0, HALF_WAY])
async def test_the_run_goes_on_in_the_moved_directory(seconds: float, tmp_path: Path) -> None:
    """No export is requested twice, and each file is in the present directory, also of before."""
    sandbox, old, new = sandbox_of(), tmp_path / "old", tmp_path / "new"
    first = await session(sandbox, old, timeout=seconds)
    old.rename(new)
    second = await session(sandbox, new)
    assert second.name == first.name
    assert second.ok
    assert all_whole(sandbox, second.exported)
    assert directories(second) == {new}
    assert sources(second).count("resumed") == len(first.exported)
    assert sandbox.record.duplicates() == {}
    assert not old.exists()


async def test_a_mark_that_others_may_have_written_proves_nothing(tmp_path: Path) -> None:
    """A directory isn't taken for a moved one by files that any user could have put there."""
    sandbox, old, new = sandbox_of(), tmp_path / "old", tmp_path / "new"
    journal = tmp_path / "old" / "runs.db"
    await session(sandbox, old / "out", journal=journal, timeout=HALF_WAY)
    old.rename(new)
    (new / "out" / ".segments-async").chmod(0o777)
    [status] = await (await journal_at(new / "runs.db")).runs()
    assert status.destination == str(old / "out")
    (new / "out" / ".segments-async").chmod(0o700)
    [status] = await (await journal_at(new / "runs.db")).runs()
    assert status.destination == str(new / "out")


async def test_the_directory_above_was_moved(tmp_path: Path) -> None:
    """The journal and the directory lie beside each other in a directory that was renamed."""
    sandbox, old, new = sandbox_of(), tmp_path / "old", tmp_path / "new"
    await session(sandbox, old / "x" / "out", journal=old / "runs.db", timeout=HALF_WAY)
    old.rename(new)
    report = await session(sandbox, new / "x" / "out", journal=new / "runs.db")
    assert report.ok
    assert directories(report) == {new / "x" / "out"}
    assert len(sandbox.record.submits()) == 6


async def test_a_directory_that_is_moved_again_and_back(tmp_path: Path) -> None:
    """Each session may find the directory at another path, or at an earlier one."""
    sandbox, place = sandbox_of(), tmp_path / "a"
    await session(sandbox, place, timeout=HALF_WAY)
    for name in ("b", "c", "a", "b"):
        place = place.rename(tmp_path / name)
        await session(sandbox, place, timeout=0.01)
    report = await session(sandbox, place)
    assert report.ok
    assert directories(report) == {place}
    assert len(sandbox.record.submits()) == 6


async def test_a_new_directory_at_the_old_path(tmp_path: Path) -> None:
    """An archived directory goes on with its run, also within a new one at the same path."""
    sandbox, place = sandbox_of(), tmp_path / "exports"
    first = await session(sandbox, place, timeout=HALF_WAY)
    aside = place.rename(tmp_path / "aside")
    other = sandbox_of()
    await session(other, place, timeout=HALF_WAY)
    archived = aside.rename(place / "november")
    report = await session(sandbox, archived)
    assert (report.name, report.ok) == (first.name, True)
    assert directories(report) == {archived}
    assert (await session(other, place)).ok
    assert sandbox.record.duplicates() == other.record.duplicates() == {}


async def test_a_copy_is_another_directory(tmp_path: Path) -> None:
    """While the original directory exists, its run stays there; a new run starts in the copy."""
    sandbox, place, copy = sandbox_of(), tmp_path / "exports", tmp_path / "copy"
    first = await session(sandbox, place, timeout=HALF_WAY)
    shutil.copytree(place, copy)
    for seen in (copy / INSIDE.parent).glob("seen-*"):
        assert (place / INSIDE.parent / seen.name).exists()
    other = await session(sandbox, copy, overwrite=True)
    assert sources(other) == ["exported"] * 6
    again = await session(sandbox, place)
    assert again.name == first.name
    assert sources(again).count("resumed") == len(first.exported)


async def test_a_link_at_the_old_path(tmp_path: Path) -> None:
    """Both paths lead to the run, where a link to the moved directory is at the old path."""
    sandbox, old, new = sandbox_of(), tmp_path / "old", tmp_path / "disk" / "new"
    await session(sandbox, old, timeout=HALF_WAY)
    new.parent.mkdir()
    old.rename(new)
    old.symlink_to(new)
    await session(sandbox, new, timeout=0.01)
    report = await session(sandbox, old)
    assert report.ok
    assert directories(report) == {new}
    assert len(sandbox.record.submits()) == 6


async def test_the_journal_shows_the_present_directory(tmp_path: Path) -> None:
    """`Journal` finds runs, specs and unchanged files by the new path, and changes nothing."""
    sandbox, new = sandbox_of(), tmp_path / "new"
    report = await session(sandbox, tmp_path / "old")
    (tmp_path / "old").rename(new)
    before = (new / INSIDE).read_bytes()
    journal = await journal_at(new / INSIDE)
    [status] = await journal.runs(new)
    assert status.destination == str(new)
    assert await journal.runs(tmp_path / "old") == []
    async with connected(sandbox) as client:
        segments = await client.list_segments()
    unchanged = {outcome.segment_id for outcome in report.exported}
    assert await journal.unchanged(segments, new) == unchanged
    assert (new / INSIDE).read_bytes() == before
    submits = len(sandbox.record.submits())
    again = await session(sandbox, new, only_changed=True)
    assert sources(again) == ["unchanged"] * 6
    assert directories(again) == {new}
    assert len(sandbox.record.submits()) == submits
    assert await journal.prune(datetime.now(UTC) + timedelta(days=1)) == 2
    assert list((new / INSIDE.parent).glob("seen-*")) == []


async def test_an_older_copy_of_a_moved_journal(tmp_path: Path) -> None:
    """A move doesn't hide that the journal lost events: nothing is sent."""
    sandbox, old, new = sandbox_of(), tmp_path / "old", tmp_path / "new"
    await session(sandbox, old, timeout=0.5)
    shutil.copy(old / INSIDE, tmp_path / "backup.db")
    await session(sandbox, old, timeout=HALF_WAY)
    old.rename(new)
    shutil.copy(tmp_path / "backup.db", new / INSIDE)
    (new / INSIDE).chmod(0o600)
    submits = len(sandbox.record.submits())
    for _ in range(2):
        with pytest.raises(JournalError, match="older copy") as caught:
            await session(sandbox, new)
        assert caught.value.reason == "damaged"
    assert len(sandbox.record.submits()) == submits


async def test_a_live_run_of_a_moved_directory_is_locked(tmp_path: Path) -> None:
    """While a process has the run, nothing of its row is changed, and nothing is sent."""
    sandbox, old, new = sandbox_of(), tmp_path / "old", tmp_path / "new"
    await session(sandbox, old, timeout=HALF_WAY)
    async with connected(sandbox) as client:
        segments = await client.list_segments()
        async with client.open_bulk_export(segments, old, journal=old / INSIDE):
            old.rename(new)
            with pytest.raises(JournalError, match="held by a live process") as caught:
                await session(sandbox, new)
            assert caught.value.reason == "locked"
            new.rename(old)
    assert (await session(sandbox, old)).ok
    assert sandbox.record.duplicates() == {}


@pytest.mark.parametrize("run", [None, "nightly"])
async def test_a_moved_directory_whose_journal_is_elsewhere(
    run: str | None, tmp_path: Path
) -> None:
    """The error names both paths, and nothing is sent; after a move back, the run goes on."""
    sandbox, old, new = sandbox_of(), tmp_path / "old", tmp_path / "new"
    journal = tmp_path / "runs.db"
    await session(sandbox, old, journal=journal, run=run, timeout=HALF_WAY)
    old.rename(new)
    requests = len(sandbox.record.submits())
    with pytest.raises(ConfigurationError) as caught:
        await session(sandbox, new, journal=journal, run=run)
    assert str(old) in str(caught.value)
    assert str(new) in str(caught.value)
    assert len(sandbox.record.submits()) == requests
    new.rename(old)
    assert (await session(sandbox, old, journal=journal, run=run)).ok
    assert sandbox.record.duplicates() == {}


async def test_a_name_begins_a_new_run_in_a_moved_directory(tmp_path: Path) -> None:
    """A run with a new name requests the exports once more, as the error message says."""
    sandbox, journal = sandbox_of(), tmp_path / "runs.db"
    await session(sandbox, tmp_path / "old", journal=journal, timeout=0.5)
    (tmp_path / "old").rename(tmp_path / "new")
    report = await session(sandbox, tmp_path / "new", journal=journal, run="anew")
    assert (report.name, report.ok) == ("anew", True)


def respell(journal: Path, before: Path, *, files: Path, run: Path) -> None:
    """Write other paths into the journal, with right checksums, as an earlier version did."""
    with contextlib.closing(sqlite3.connect(journal)) as connection:
        connection.row_factory = sqlite3.Row
        for row in connection.execute("SELECT * FROM segments_async_events").fetchall():
            facts = row["facts"].replace(str(before), str(files))
            seal = with_checksum(events, {**dict(row), "facts": facts})["seal"]
            values = (facts, seal, row["id"])
            connection.execute(
                "UPDATE segments_async_events SET facts = ?, seal = ? WHERE id = ?", values
            )
        [row] = connection.execute("SELECT * FROM segments_async_runs").fetchall()
        changed = {**dict(row), "named": bool(row["named"]), "destination": str(run)}
        connection.execute(
            "UPDATE segments_async_runs SET destination = ?, seal = ?",
            (str(run), with_checksum(runs, changed)["seal"]),
        )
        connection.commit()


@pytest.mark.parametrize("inside", [True, False])
async def test_a_run_that_was_begun_through_a_link(inside: bool, tmp_path: Path) -> None:
    """An earlier version recorded the link's path; that run goes on by either path."""
    sandbox, real, link = sandbox_of(), tmp_path / "real", tmp_path / "link"
    journal = real / INSIDE if inside else tmp_path / "runs.db"
    first = await session(sandbox, real, journal=journal, timeout=HALF_WAY)
    link.symlink_to(real)
    respell(journal, real, files=link, run=link)
    second = await session(sandbox, link, journal=journal, timeout=0.01)
    report = await session(sandbox, real, journal=journal)
    assert report.name == second.name == first.name
    assert directories(report) == {real}
    assert sources(report).count("resumed") == len(first.exported)
    assert len(sandbox.record.submits()) == 6


async def test_another_runs_directory_that_is_gone(tmp_path: Path) -> None:
    """A journal in one directory has a run of another one, which was removed: it isn't moved."""
    sandbox, here, gone = sandbox_of(), tmp_path / "here", tmp_path / "gone"
    await session(sandbox, here, timeout=HALF_WAY)
    await session(sandbox, gone, journal=here / INSIDE, timeout=HALF_WAY)
    shutil.rmtree(gone)
    report = await session(sandbox, here)
    assert report.ok
    assert directories(report) == {here}
    places = {status.destination for status in await (await journal_at(here / INSIDE)).runs()}
    assert places == {str(here), str(gone)}


async def test_a_file_elsewhere_is_damage_in_a_moved_directory(tmp_path: Path) -> None:
    """Only paths in the former directory are read as paths in the present one."""
    sandbox, old, new = sandbox_of(), tmp_path / "old", tmp_path / "new"
    report = await session(sandbox, old, timeout=HALF_WAY)
    assert report.exported
    respell(old / INSIDE, old, files=tmp_path / "elsewhere", run=old)
    old.rename(new)
    with pytest.raises(JournalError, match=r"calls .* an export's file") as caught:
        await session(sandbox, new)
    assert caught.value.reason == "damaged"
