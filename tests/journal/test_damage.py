"""A truncated SQLite journal, or one with flipped bytes, is read as it was written, or refused.

The judge is the list of events that record() returned for.
"""

from __future__ import annotations

import contextlib
import random
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import anyio
import attrs
import pytest

from journal.lives import (
    ACCOUNT,
    DESTINATION,
    GOES_WELL,
    export_of,
    opened,
    payload_for,
    run_of,
)
from segments_async import JournalError
from segments_async._journal.database import Database
from segments_async._journal.opening import open_run
from segments_async._sansio.jobs.record import ExportRecord
from segments_async.testing import virtual_time

BLOCK = 512

#: Of the blocks of a file, each in turn.
EVERY_BLOCK = pytest.mark.counted(every=7, of=f"blocks of {BLOCK} bytes")
SEGMENTS = 64


@attrs.frozen
class Written:
    """The files of a journal, and the events that were durable."""

    database: bytes
    #: SQLite's rollback journal; empty where nothing was being written.
    rollback: bytes
    #: What was known after so many events.
    known: list[dict[str, ExportRecord]]


def written(directory: Path) -> Written:
    """A few hundred events."""
    path = directory / "runs.db"
    known: list[dict[str, ExportRecord]] = [{}]

    async def write() -> None:
        async with run_of(await opened(path)) as log:
            for n in range(SEGMENTS):
                events = GOES_WELL[: 1 + n % 5]
                log.run_state.add(f"s{n}")
                for event in events:
                    facts = payload_for(event, export_of(f"s{n}"))
                    await log.record(f"s{n}", event, facts)
                    known.append(dict(log.run_state.records))

    name, options = virtual_time("asyncio")  # commits wait for other events: not here
    anyio.run(write, backend=name, backend_options=options)
    return Written(path.read_bytes(), b"", known)


def killed_while_writing(directory: Path) -> Written:
    """The same files, with a part of another transaction, since the process died while it wrote."""
    before = written(directory)
    path = directory / "runs.db"
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = TRUNCATE")
        connection.execute("PRAGMA cache_size = 3")  # pages: the rest goes to the file at once
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("UPDATE segments_async_events SET facts = facts || ' ' WHERE id % 2")
        connection.execute("DELETE FROM segments_async_events WHERE id % 5 = 0")
        left = path.read_bytes(), path.with_name("runs.db-journal").read_bytes()
        connection.execute("ROLLBACK")
    assert left[0] != before.database
    return Written(*left, before.known)


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Written:
    return written(tmp_path_factory.mktemp("closed"))


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Written:
    return killed_while_writing(tmp_path_factory.mktemp("killed"))


def read(directory: Path, database: bytes, rollback: bytes) -> dict[str, ExportRecord] | None:
    """The events that a later session reads in these files; None where it refuses them."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    path = directory / "runs.db"
    path.write_bytes(database)
    if rollback:
        path.with_name("runs.db-journal").write_bytes(rollback)
        path.with_name("runs.db.run-1.lock").touch()  # a dead process leaves its lock file
    try:
        run = open_run(Database.open(path, ACCOUNT), DESTINATION, "now", "x")
    except JournalError:
        return None
    try:
        return run.known
    finally:
        run.close()


def flips(data: bytes, seed: int, every: int) -> list[bytes]:
    """The data with one byte changed, once in each block, or in each n-th block."""
    chance = random.Random(seed)
    changed = []
    for start in range(0, len(data), every * BLOCK):
        at = start + chance.randrange(min(BLOCK, len(data) - start))
        changed.append(data[:at] + bytes([data[at] ^ chance.randrange(1, 256)]) + data[at + 1 :])
    return changed


def test_whole(closed: Written, killed: Written, tmp_path: Path) -> None:
    """Unchanged files are read as they were written: the unfinished transaction is rolled back."""
    assert read(tmp_path / "a", closed.database, b"") == closed.known[-1]
    assert read(tmp_path / "b", killed.database, killed.rollback) == killed.known[-1]
    assert len(closed.known) > 150
    assert len(killed.rollback) > 50 * BLOCK


@EVERY_BLOCK
@pytest.mark.parametrize("seed", [1, 2])
def test_flipped(closed: Written, tmp_path: Path, seed: int, every: int) -> None:
    """With a flipped byte in any 512 bytes, a database is read as it was written, or refused."""
    found = [read(tmp_path / "x", data, b"") for data in flips(closed.database, seed, every)]
    assert [known for known in found if known is not None and known != closed.known[-1]] == []
    assert found.count(None) > len(found) / 4


@EVERY_BLOCK
def test_cut_off(closed: Written, tmp_path: Path, every: int) -> None:
    """A database that was truncated at any 512 bytes, or to none, is refused."""
    for size in range(0, len(closed.database), every * BLOCK):
        assert read(tmp_path / "x", closed.database[:size], b"") is None


def test_without_its_rollback_journal(killed: Written, tmp_path: Path) -> None:
    """A file that was copied, or cleaned up, in the middle of a transaction is refused."""
    assert read(tmp_path / "x", killed.database, b"\0") is None


@EVERY_BLOCK
def test_a_rollback_journal_that_was_cut_off(killed: Written, tmp_path: Path, every: int) -> None:
    """Truncated at any 512 bytes, a rollback journal leaves the logged events, or a refusal."""
    for size in range(BLOCK, len(killed.rollback), every * BLOCK):
        known = read(tmp_path / "x", killed.database, killed.rollback[:size])
        assert known in (None, killed.known[-1])


@EVERY_BLOCK
@pytest.mark.parametrize("seed", [1, 2])
def test_a_flipped_rollback_journal(killed: Written, tmp_path: Path, seed: int, every: int) -> None:
    """A rollback journal with a flipped byte leaves the logged events, or a refusal."""
    found = [
        read(tmp_path / "x", killed.database, data) for data in flips(killed.rollback, seed, every)
    ]
    assert [known for known in found if known not in (None, killed.known[-1])] == []
    assert None in found


def test_a_journal_of_an_earlier_version_is_converted(closed: Written, tmp_path: Path) -> None:
    """A write-ahead log of an earlier version is moved into the file."""
    path = tmp_path / "runs.db"
    path.write_bytes(closed.database)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("UPDATE segments_async_runs SET id = id")  # something in the log
        wal = path.with_name("runs.db-wal").read_bytes()
        database = path.read_bytes()
    assert wal
    path.write_bytes(database)
    path.with_name("runs.db-wal").write_bytes(wal)
    run = open_run(Database.open(path, ACCOUNT), DESTINATION, "now", "x")
    assert run.known == closed.known[-1]
    run.close()
    assert not path.with_name("runs.db-wal").exists()


Change = Callable[[Path], object]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda path: path.write_bytes(b""), "damaged"),
        (lambda path: path.write_bytes(b"id,name\n" * 1000), "foreign"),
        (lambda path: path.write_bytes(random.Random(1).randbytes(8192)), "foreign"),
        (lambda path: path.mkdir(), "foreign"),
    ],
    ids=["empty", "text", "noise", "directory"],
)
def test_what_is_no_journal(tmp_path: Path, change: Change, reason: str) -> None:
    """Files that are no journal are refused, and not changed."""
    path = tmp_path / "runs.db"
    change(path)
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(JournalError) as caught:
        Database.open(path, ACCOUNT)
    assert (caught.value.reason, caught.value.location) == (reason, str(path))
    assert (path.read_bytes() if path.is_file() else None) == before
