"""A journal that another user may have written is refused: it says which files are exports."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
from client.vendor import connected

from segments_async import BulkReport, ConfigurationError, JournalError
from segments_async._journal.set_aside import SetAside
from segments_async._journal.tables import events, runs, with_checksum
from segments_async.errors import JournalReason
from segments_async.sandbox import PAGE_SEGMENT_ID, Sandbox

pytestmark = pytest.mark.alternating

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="gives files to another user")

#: Who owns nothing here.
NOBODY = 65534

PASSWD_SIZE = Path("/etc/passwd").stat().st_size


async def export(tmp_path: Path, journal: Path, sandbox: Sandbox | None = None) -> BulkReport[Any]:
    async with connected(sandbox or Sandbox(rows=5)) as client:
        return await client.bulk_export([PAGE_SEGMENT_ID], tmp_path / "out", journal=journal)


def given_away(journal: Path) -> None:
    os.chown(journal, NOBODY, NOBODY)


def by_group(journal: Path) -> None:
    journal.chmod(0o660)


def by_all(journal: Path) -> None:
    journal.chmod(0o602)


def open_directory(journal: Path) -> None:
    journal.parent.chmod(0o777)


def open_parent(journal: Path) -> None:
    journal.parent.parent.chmod(0o707)


def hard_link(journal: Path) -> None:
    os.link(journal, journal.with_name("another"))


def link_in_an_open_directory(journal: Path) -> None:
    place = journal.parent.with_name("open")
    place.mkdir()
    moved = journal.parent.with_name("moved")
    journal.parent.rename(moved)
    (place / "hop").symlink_to(moved)
    journal.parent.symlink_to(place / "hop")
    place.chmod(0o777)


def planted_transaction(journal: Path) -> None:
    beside = journal.with_name(journal.name + "-journal")
    beside.touch()
    beside.chmod(0o666)


def linked_transaction(journal: Path) -> None:
    journal.with_name(journal.name + "-wal").symlink_to("/etc/passwd")


def change(journal: Path, *statements: str) -> None:
    with contextlib.closing(sqlite3.connect(journal)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


ENDLESS = "WITH RECURSIVE n(version) AS (SELECT 1 UNION ALL SELECT 1 FROM n)"


def endless_view(journal: Path) -> None:
    change(
        journal,
        "DROP TABLE segments_async_journal",
        f"CREATE VIEW segments_async_journal AS {ENDLESS} SELECT version, 1 account, 1 seal FROM n",
    )


def endless_guard(journal: Path) -> None:
    change(
        journal,
        "DROP TABLE segments_async_guard",
        f"CREATE VIEW segments_async_guard AS {ENDLESS} SELECT version FROM n",
    )


def trigger(journal: Path) -> None:
    change(
        journal,
        "CREATE TRIGGER t AFTER INSERT ON segments_async_events "
        "BEGIN DELETE FROM segments_async_runs; END",
    )


REFUSED: dict[str, tuple[Callable[[Path], None], str]] = {
    "writable by its group": (by_group, "may be written by others"),
    "writable by all": (by_all, "may be written by others"),
    "an open directory": (open_directory, "others may write to the directory"),
    "an open parent": (open_parent, "others may write to the directory"),
    "a hard link": (hard_link, "another name"),
    "links through an open directory": (link_in_an_open_directory, "open"),
    "a planted transaction": (planted_transaction, "-journal may be written by others"),
    "a linked transaction": (linked_transaction, "-wal is not a regular file"),
    "a view": (endless_view, "is a view"),
    "a view of the guard": (endless_guard, "is a view"),
    "a trigger": (trigger, "is a trigger"),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_what_others_may_have_written_is_refused(name: str, tmp_path: Path) -> None:
    """The message names the file or directory; nothing is sent, and no endless view is read."""
    meddle, sentence = REFUSED[name]
    journal = tmp_path / "a" / "b" / "j.db"
    await export(tmp_path, journal)
    meddle(journal)
    sandbox = Sandbox()
    with pytest.raises(JournalError, match=sentence) as caught:
        await export(tmp_path, journal, sandbox)
    expected: JournalReason = "foreign"
    assert caught.value.reason == expected
    assert len(sandbox.record) == 0


@as_root
@pytest.mark.parametrize("end", ["", "-journal"])
async def test_another_users_journal_is_refused(end: str, tmp_path: Path) -> None:
    """Another user's journal is refused, by root, too."""
    journal = tmp_path / "a" / "j.db"
    await export(tmp_path, journal)
    beside = journal.with_name(journal.name + end)
    beside.touch(0o600)
    given_away(beside)
    with pytest.raises(JournalError, match="belongs to another user") as caught:
        await export(tmp_path, journal)
    assert caught.value.reason == "foreign"


async def test_a_directory_like_tmp_will_do(tmp_path: Path) -> None:
    """A directory such as /tmp is accepted: no user can move another user's files there."""
    await anyio.Path(tmp_path).chmod(0o1777)
    before = os.umask(0)
    try:
        await export(tmp_path, tmp_path / "a" / "b" / "j.db")
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o755
    report = await export(tmp_path, tmp_path / "a" / "b" / "j.db")
    assert len(report.exported) == 1


def forge(journal: Path, **facts: Any) -> None:
    """Change the file in the journal, with right checksums, and make the run unfinished."""
    for witness in (journal.parent.parent / "out" / ".segments-async").glob("seen-*"):
        witness.unlink()
    with contextlib.closing(sqlite3.connect(journal)) as connection:
        connection.row_factory = sqlite3.Row
        query = "SELECT * FROM segments_async_events WHERE event = 'fetched'"
        row = dict(connection.execute(query).fetchone())
        told = json.loads(row["facts"])
        told["file"] |= facts
        row["facts"] = json.dumps(told)
        connection.execute(
            "UPDATE segments_async_events SET facts = ?, seal = ? WHERE event = 'fetched'",
            (row["facts"], with_checksum(events, row)["seal"]),
        )
        run = dict(connection.execute("SELECT * FROM segments_async_runs").fetchone())
        run |= {"ended_at": None, "states": None, "named": bool(run["named"])}
        connection.execute(
            "UPDATE segments_async_runs SET ended_at = NULL, states = NULL, seal = ?",
            (with_checksum(runs, run)["seal"],),
        )
        connection.commit()


@pytest.mark.parametrize("place", ["/etc/passwd", "{}/../passwd", "{}/..", "{}", "{}/a/b.csv", ""])
async def test_a_file_outside_of_the_destination_is_refused(place: str, tmp_path: Path) -> None:
    """A file outside of the directory is refused: it would be reported as the segment's export."""
    journal = tmp_path / "a" / "j.db"
    await export(tmp_path, journal)
    size = PASSWD_SIZE
    forge(journal, location=place.format(tmp_path / "out"), size=size)
    sandbox = Sandbox()
    with pytest.raises(JournalError, match=r"calls .* an export's file") as caught:
        await export(tmp_path, journal, sandbox)
    assert caught.value.reason == "damaged"
    assert len(sandbox.record) == 0


async def test_a_link_in_the_files_place_is_no_file(tmp_path: Path) -> None:
    """A symbolic link of the right size in the file's place doesn't count as the file."""
    journal = tmp_path / "a" / "j.db"
    report = await export(tmp_path, journal)
    (outcome,) = report.exported
    path = anyio.Path(outcome.file.location)
    forge(journal, size=PASSWD_SIZE)
    await path.unlink()
    await path.symlink_to("/etc/passwd")
    again = await export(tmp_path, journal)
    assert [o for o in again.exported if o.source == "resumed"] == []


def test_events_that_others_may_have_written_are_refused(tmp_path: Path) -> None:
    """A file of unwritten events is refused as a journal is."""
    place = SetAside(tmp_path / ".segments-async" / "unwritten-1.jsonl")
    assert place.save([])
    assert place.load(1, 0, None) == []
    place.path.chmod(0o666)
    with pytest.raises(JournalError, match="may be written by others"):
        place.load(1, 0, None)


@pytest.mark.parametrize("name", ["{}.csv.part", "{}.csv.part.json", "manifest.jsonl"])
@pytest.mark.parametrize("kind", ["hard link", "FIFO"])
async def test_a_hard_link_or_a_fifo_in_the_destination(
    name: str, kind: str, tmp_path: Path
) -> None:
    """The other file is not changed, and no write waits for a reader."""
    precious = tmp_path / "precious"
    precious.write_text("precious")
    target = tmp_path / "out" / name.format(PAGE_SEGMENT_ID)
    target.parent.mkdir()
    if kind == "FIFO":
        os.mkfifo(target)
    else:
        os.link(precious, target)
    with anyio.fail_after(3600):
        with contextlib.suppress(ConfigurationError):
            async with connected(Sandbox(rows=5)) as client:
                await client.bulk_export([PAGE_SEGMENT_ID], tmp_path / "out")
    assert precious.read_text() == "precious"
