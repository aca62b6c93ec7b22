"""A SQLite journal that was cut off, or whose bytes flipped: as it was, or refused; never another.

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
    facts_for,
    opened,
    run_of,
)
from segments_async import JournalError
from segments_async._journal.database import Database
from segments_async._sansio.standing import Standing

BLOCK = 512

#: Of the blocks of a file, each in turn.
EVERY_BLOCK = pytest.mark.counted(every=7, of=f"blocks of {BLOCK} bytes")
SEGMENTS = 64

#: Of a killed process's journal, what SQLite had moved out of its log already.
IN_DATABASE = 55


@attrs.frozen
class Written:
    """A journal as it was left: its files, and what each event made known."""

    database: bytes
    log: bytes
    #: What was known after so many events.
    known: list[dict[str, Standing]]


def written(directory: Path, *, closed: bool) -> Written:
    """A few hundred events; the files after the close, or as a kill would leave them."""
    path = directory / "runs.db"
    known: list[dict[str, Standing]] = [{}]

    async def write() -> Written | None:
        async with run_of(await opened(path)) as log:
            for n in range(SEGMENTS):
                if n == IN_DATABASE:
                    checkpoint(path)
                events = GOES_WELL[: 1 + n % 5]
                log.open(f"s{n}")
                for event in events:
                    facts = facts_for(event, export_of(f"s{n}"))
                    await log.record(f"s{n}", event, facts)
                    known.append(dict(log.standings))
            wal = path.with_name("runs.db-wal")
            return None if closed else Written(path.read_bytes(), wal.read_bytes(), known)

    left = anyio.run(write)
    return left or Written(path.read_bytes(), b"", known)


def checkpoint(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Written:
    return written(tmp_path_factory.mktemp("closed"), closed=True)


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Written:
    return written(tmp_path_factory.mktemp("killed"), closed=False)


def read(directory: Path, database: bytes, log: bytes) -> dict[str, Standing] | None:
    """What a later session reads in these files; None where it refuses them."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    path = directory / "runs.db"
    path.write_bytes(database)
    if log:
        path.with_name("runs.db-wal").write_bytes(log)
    try:
        run = Database.open(path, ACCOUNT).open_run(DESTINATION, "now", "x")
    except JournalError:
        return None
    try:
        return run.known
    finally:
        run.close()


def flips(data: bytes, seed: int, every: int) -> list[bytes]:
    """The data with one byte changed, once in each block, or in every so many-th."""
    chance = random.Random(seed)
    changed = []
    for start in range(0, len(data), every * BLOCK):
        at = start + chance.randrange(min(BLOCK, len(data) - start))
        changed.append(data[:at] + bytes([data[at] ^ chance.randrange(1, 256)]) + data[at + 1 :])
    return changed


def test_whole(closed: Written, killed: Written, tmp_path: Path) -> None:
    """Untouched, both are read as they were written, also from a killed process's log."""
    assert read(tmp_path / "a", closed.database, b"") == closed.known[-1]
    assert read(tmp_path / "b", killed.database, killed.log) == killed.known[-1]
    assert len(closed.known) > 150
    assert len(killed.log) > 150 * BLOCK


@EVERY_BLOCK
@pytest.mark.parametrize("seed", [1, 2])
def test_flipped(closed: Written, tmp_path: Path, seed: int, every: int) -> None:
    """A flipped byte in each 512 bytes of the database: read as it was written, or refused."""
    found = [read(tmp_path / "x", data, b"") for data in flips(closed.database, seed, every)]
    assert [known for known in found if known is not None and known != closed.known[-1]] == []
    assert found.count(None) > len(found) / 4


@EVERY_BLOCK
def test_cut_off(closed: Written, tmp_path: Path, every: int) -> None:
    """A database that was cut off at any 512 bytes is refused, at none too."""
    for size in range(0, len(closed.database), every * BLOCK):
        assert read(tmp_path / "x", closed.database[:size], b"") is None


@EVERY_BLOCK
def test_cut_off_with_a_log(killed: Written, tmp_path: Path, every: int) -> None:
    """A database cut off under a whole log: the log has every page, or the two are refused."""
    for size in range(0, len(killed.database), every * BLOCK):
        assert read(tmp_path / "x", killed.database[:size], killed.log) in (None, killed.known[-1])


@EVERY_BLOCK
def test_a_log_that_was_cut_off(killed: Written, tmp_path: Path, every: int) -> None:
    """A write-ahead log that was cut off: what was logged before, to the event."""
    longest = 0
    # From the end, at which a commit or two may be missing.
    first = (len(killed.log) - BLOCK) % (every * BLOCK)
    for size in (0, *range(first, len(killed.log), every * BLOCK)):
        known = read(tmp_path / "x", killed.database, killed.log[:size])
        assert known in killed.known
        assert killed.known.index(known) >= longest
        longest = killed.known.index(known)
    assert longest >= len(killed.known) - 2


@EVERY_BLOCK
@pytest.mark.parametrize("seed", [1])
def test_a_flipped_log(killed: Written, tmp_path: Path, seed: int, every: int) -> None:
    """A flipped byte in the log: read as it was written, or refused.

    In the last two commits it can't be told from a write that was cut off.
    """
    last = len(killed.known) - 1
    lasts = [killed.known[last - lost] for lost in range(3)]
    refused = tried = 0
    for data in flips(killed.log, seed, every):
        known = read(tmp_path / "x", killed.database, data)
        assert known is None or known in lasts
        refused += known is None
        tried += 1
    assert refused > 0.6 * tried


def test_a_log_without_its_database(killed: Written, tmp_path: Path) -> None:
    """An empty file under a log isn't taken for a new journal, and the log isn't dropped."""
    assert read(tmp_path / "x", b"", killed.log) is None
    assert (tmp_path / "x" / "runs.db-wal").read_bytes() == killed.log


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
    """Files that are something else are refused, and not touched."""
    path = tmp_path / "runs.db"
    change(path)
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(JournalError) as caught:
        Database.open(path, ACCOUNT)
    assert (caught.value.reason, caught.value.location) == (reason, str(path))
    assert (path.read_bytes() if path.is_file() else None) == before
