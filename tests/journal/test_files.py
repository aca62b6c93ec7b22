"""The SQLite journal's files: their rights, their places, and the locks of runs."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import sqlite3
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from client.vendor import connected
from holder import outlived, running, said_by

from journal.lives import ACCOUNT, DESTINATION, GOES_WELL, live, opened, run_of
from segments_async import Journal, JournalError
from segments_async._journal import files
from segments_async._journal.database import Database
from segments_async._journal.files import FileLock, kind_of_network, name_of_new
from segments_async._journal.opening import open_run
from segments_async._sansio.jobs.lifecycle import Event, State
from segments_async.sandbox import API_ORIGIN, PAGE_API_KEY, PAGE_SEGMENT_ID, Sandbox

pytestmark = pytest.mark.alternating


@pytest.fixture(params=[0o000, 0o022, 0o777], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def modes(directory: Path) -> dict[str, int]:
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()}


async def test_only_the_owner_reads_the_files(umask: int, tmp_path: Path) -> None:
    """Whatever the umask, the database and the files of SQLite beside it have the mode 0600."""
    directory = tmp_path / "j"
    directory.mkdir()
    directory.chmod(0o755)
    async with run_of(await opened(directory / "runs.db")) as log:
        await live(log, "a", [Event.INTENT])
        found = modes(directory)
    names = ["runs.db", "runs.db-journal", "runs.db.run-1.lock"]
    assert found == dict.fromkeys(names, 0o600)
    assert modes(directory) == {"runs.db": 0o600, "runs.db-journal": 0o600}


async def test_a_directory_is_made(tmp_path: Path) -> None:
    """A missing directory of the journal is created."""
    await opened(tmp_path / "a" / "b" / "runs.db")
    assert modes(tmp_path / "a" / "b") == {"runs.db": 0o600}


async def test_odd_names(tmp_path: Path) -> None:
    """Characters with a meaning in a URI are a part of the name; a URL names a path, too."""
    path = tmp_path / "a b%20#?.db"
    async with run_of(await opened(path)) as log:
        await live(log, "a", [Event.INTENT])
    assert path.exists()
    await opened(f"sqlite:///{tmp_path / 'plain.db'}")
    assert modes(tmp_path).keys() == {path.name, f"{path.name}-journal", "plain.db"}


async def test_a_path_below_a_file(tmp_path: Path) -> None:
    """A path at which no file can be created is `unavailable`, and the message has the path."""
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(JournalError, match="file") as caught:
        await opened(tmp_path / "file" / "runs.db")
    assert caught.value.reason == "unavailable"


async def test_what_may_not_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A read-only directory is refused at the start, not at the first event."""
    path = tmp_path / "runs.db"
    await opened(path)
    # root may write anywhere, so the answer is made up
    monkeypatch.setattr(os, "access", lambda where, mode: Path(where) != tmp_path)
    with pytest.raises(JournalError) as caught:
        await opened(path)
    assert (caught.value.reason, caught.value.location) == ("unavailable", str(path))


def test_many_create_it_at_once(tmp_path: Path) -> None:
    """One of several processes creates the journal, and all use it; no other file is left."""
    path = tmp_path / "runs.db"
    ready = threading.Barrier(6)
    names = []

    def open_one(number: int) -> None:
        ready.wait()
        run = open_run(Database.open(path, ACCOUNT), DESTINATION, f"run-{number}", "x")
        names.append(run.name)
        run.close()

    threads = [threading.Thread(target=open_one, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(names) == [f"run-{n}" for n in range(6)]
    assert len(Database.open(path, ACCOUNT).runs()) == 6
    assert modes(tmp_path).keys() == {"runs.db", "runs.db-journal"}


def test_a_database_of_something_else(tmp_path: Path) -> None:
    """A SQLite file of another program is refused, and gets no tables."""
    path = tmp_path / "browser.db"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE places (url TEXT)")
    before = path.read_bytes()
    with pytest.raises(JournalError, match="no journal") as caught:
        Database.open(path, ACCOUNT)
    assert caught.value.reason == "foreign"
    assert path.read_bytes() == before


# --------------------------------------------------------------------- network file systems

MOUNTS = r"""
/dev/vda / ext4 rw 0 0
proc /proc proc rw 0 0
server:/export /mnt/nfs nfs4 rw 0 0
//server/share /mnt/a\040share cifs rw 0 0
/dev/vdb /mnt/nfs/local xfs rw 0 0
me@host: /mnt/far fuse.sshfs rw 0 0
C:\134 /mnt/c 9p rw 0 0
/dev/sdb /mnt/twice ext4 rw 0 0
server:/b /mnt/twice nfs rw 0 0
short
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/var/runs.db", None),
        ("/mnt/nfs/runs.db", "nfs4"),
        ("/mnt/nfs/local/runs.db", None),
        ("/mnt/nfsish/runs.db", None),
        ("/mnt/a share/x/runs.db", "cifs"),
        ("/mnt/far/runs.db", "fuse.sshfs"),
        ("/mnt/c/runs.db", "9p"),
        ("/mnt/twice/runs.db", "nfs"),
    ],
)
def test_which_file_systems_are_far(path: str, kind: str | None) -> None:
    """The nearest mount counts; of two mounts at one place, the later one."""
    assert kind_of_network(MOUNTS, Path(path)) == kind


async def test_a_network_file_system_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a network file system no journal is created or opened."""
    mounts = tmp_path / "mounts"
    place = tmp_path / "far"
    mounts.write_text(f"/dev/vda / ext4 rw 0 0\nserver:/x {place} nfs rw 0 0\n")
    monkeypatch.setattr(files, "_MOUNTS", mounts)
    with pytest.raises(JournalError, match="network file system") as caught:
        await opened(place / "runs.db")
    assert caught.value.reason == "unsupported"
    assert not place.exists()


def test_where_mounts_are_not_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without /proc/mounts, no file system is refused."""
    monkeypatch.setattr(files, "_MOUNTS", tmp_path / "none")
    assert files.network_file_system(tmp_path) is None


# --------------------------------------------------------------------- who holds a run


def test_one_holds_a_run(tmp_path: Path) -> None:
    """A lock excludes others until it is released; then its file is removed."""
    path = tmp_path / "lock"
    first = FileLock.try_acquire(path)
    assert first is not None
    assert FileLock.try_acquire(path) is None
    first.release()
    assert not path.exists()
    second = FileLock.try_acquire(path)
    assert second is not None
    second.release()


LOCKS = (
    "from segments_async._journal.files import FileLock\n"
    "held = FileLock.try_acquire(path)\n"
    "assert held"
)


def test_a_lock_ends_with_its_process(tmp_path: Path) -> None:
    """A killed process leaves a lock file without a lock: the next process can lock the run."""
    path = tmp_path / "lock"
    with running(f"{LOCKS}\nprint('held', flush=True)", path) as process:
        assert said_by(process) == b"held"
        assert FileLock.try_acquire(path) is None
    assert path.exists()
    lock = FileLock.try_acquire(path)
    assert lock is not None
    assert lock.unclean
    lock.release()


# --------------------------------------------------------------------- what others met


async def test_a_journal_by_another_name(tmp_path: Path) -> None:
    """A journal that is opened by a symbolic link is the same journal, with the same locks."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "link.db").symlink_to("real/runs.db")
    async with run_of(await opened(tmp_path / "real" / "runs.db")) as log:
        await live(log, "a", [Event.INTENT])
        for other in (tmp_path / "link" / "runs.db", tmp_path / "link.db"):
            with pytest.raises(JournalError) as caught:
                async with run_of(await opened(other)):
                    pass
            assert caught.value.reason == "locked"
    async with run_of(await opened(tmp_path / "link.db")) as log:
        assert log.run_state.records.keys() == {"a"}


def test_a_forked_child_holds_nothing(tmp_path: Path) -> None:
    """A worker that outlives its parent doesn't keep the parent's lock."""
    path = tmp_path / "lock"
    with outlived(LOCKS, path) as process:
        assert FileLock.try_acquire(path) is None
        process.kill()
        process.wait()
        lock = FileLock.try_acquire(path)
        assert lock is not None
        lock.release()


def test_dies_while_the_journal_gets_its_name(tmp_path: Path) -> None:
    """After a process died between link and unlink, the next one removes the temporary name."""
    path = tmp_path / "runs.db"
    open_run(Database.open(path, ACCOUNT), DESTINATION, "old", "x").close()
    new = name_of_new(path)
    os.link(path, new)
    open_run(Database.open(path, ACCOUNT), DESTINATION, "old", "x").close()
    assert not new.exists()
    assert path.stat().st_nlink == 1


def test_a_stale_rollback_journal(tmp_path: Path) -> None:
    """The rollback journal of a removed database isn't rolled back into the new one."""
    path = tmp_path / "runs.db"
    open_run(Database.open(path, ACCOUNT), DESTINATION, "old", "x").close()
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA cache_size = 1")
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("UPDATE segments_async_runs SET name = 'x'")
        connection.execute("CREATE TABLE t AS SELECT randomblob(90000)")
        stale = path.with_name("runs.db-journal").read_bytes()
        connection.execute("ROLLBACK")
    assert stale
    path.unlink()
    path.with_name("runs.db-journal").write_bytes(stale)
    database = Database.open(path, ACCOUNT)
    assert database.runs() == []
    open_run(database, DESTINATION, "new", "x").close()
    assert [run.name for run in Database.open(path, ACCOUNT).runs()] == ["new"]


def test_a_lock_is_seen_without_being_taken(tmp_path: Path) -> None:
    """`is_locked` distinguishes a held lock from a dead process's file, and takes neither."""
    path = tmp_path / "x.lock"
    assert not FileLock.is_locked(path)
    lock = FileLock.try_acquire(path)
    assert lock is not None
    assert FileLock.is_locked(path)
    assert FileLock.holder(path) == os.getpid()
    lock.release()
    assert not FileLock.is_locked(path)
    path.touch()
    assert not FileLock.is_locked(path)
    path.unlink()
    path.symlink_to(tmp_path)
    assert FileLock.is_locked(path), "a file that can't be opened is taken for locked"


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK, errno.EACCES])
async def test_a_mount_without_locks_is_refused(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No run opens, nothing is sent, and the journal is unharmed: with locks, the run begins."""
    working = fcntl.flock

    def fails(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    sandbox, where = Sandbox(rows=5), tmp_path / "runs.db"
    async with connected(sandbox) as client:
        monkeypatch.setattr(fcntl, "flock", fails)
        with pytest.raises(JournalError, match="file system without locks") as caught:
            await client.bulk_export([PAGE_SEGMENT_ID], tmp_path / "out", journal=where)
        assert caught.value.reason == "unsupported"
        assert len(sandbox.record) == 0
        journal = await Journal.open(where, api_key=PAGE_API_KEY, base_url=API_ORIGIN)
        assert await journal.runs() == []
        monkeypatch.setattr(fcntl, "flock", working)
        report = await client.bulk_export([PAGE_SEGMENT_ID], tmp_path / "out", journal=where)
    assert report.ok
    assert len(sandbox.record.submits()) == 1


async def test_a_journal_elsewhere_serves_files_on_a_mount_without_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The journal needs locks where it is, and not where the files are."""
    working = fcntl.flock
    lock_files = set[int]()

    def only_elsewhere(descriptor: int, operation: int) -> None:
        inode = os.fstat(descriptor).st_ino
        if inode not in {path.stat().st_ino for path in tmp_path.glob("*.lock")}:
            raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
        lock_files.add(inode)
        working(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", only_elsewhere)
    sandbox = Sandbox(rows=5)
    async with connected(sandbox) as client:
        report = await client.bulk_export(
            [PAGE_SEGMENT_ID], tmp_path / "mount", journal=tmp_path / "runs.db"
        )
    assert report.ok
    assert len(lock_files) == 1


async def test_a_mount_whose_locks_lock_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes open one run there: the later writer is refused, and overwrites nothing."""
    monkeypatch.setattr(fcntl, "flock", lambda *_: None)
    where = tmp_path / "runs.db"
    async with run_of(await opened(where)) as first, run_of(await opened(where)) as second:
        await live(first, "a", GOES_WELL[:2])
        second.run_state.add("b")
        with pytest.raises(JournalError) as caught:
            await second.record("b", Event.INTENT)
        assert caught.value.reason == "locked"
        await live(first, "c", GOES_WELL[:2])
    async with run_of(await opened(where)) as log:
        assert {i: record.state for i, record in log.run_state.records.items()} == {
            "a": State.SUBMITTED,
            "c": State.SUBMITTED,
        }
