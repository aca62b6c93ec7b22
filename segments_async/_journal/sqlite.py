"""A journal in a SQLite file.

`journal_mode = TRUNCATE`: between two commits the file alone is the journal. A write-ahead log
would be a second file with commits that the first one lacks, which people delete or forget to copy.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import Connection, Engine, NullPool, create_engine, event

from segments_async._filesystem.disk import NoLocks
from segments_async._filesystem.posix import real_path
from segments_async._filesystem.trust import distrust_of_file, distrust_of_path, make_directories
from segments_async._journal.files import (
    FileLock,
    create_private,
    drop_new_name,
    name_of_new,
    network_file_system,
    put_in_place,
)
from segments_async._journal.refusals import journal_error
from segments_async._journal.tables import guard, journal, metadata, runs
from segments_async._sansio.api.credentials import Secret
from segments_async.errors import JournalError, JournalReason

#: Seconds that one attempt waits for another process's commit. Short, since a cancelled caller
#: waits for the end of the attempt. There are many attempts.
BUSY_SECONDS = 1.0

#: Pages of 4 KiB by which one transaction of a prune shrinks the file.
_PAGES_AT_ONCE = 500

#: Ends of the names of files that SQLite may leave beside the database, and reads with it.
_BESIDE = ("-journal", "-wal", "-shm")

#: Set on each connection. trusted_schema: a schema in the file may call functions, too.
_PRAGMAS = (
    "synchronous = FULL",
    "foreign_keys = ON",
    "cell_size_check = ON",
    "trusted_schema = OFF",
)

#: The first version of SQLite that can check a single table.
_CHECKS_TABLES = (3, 33)


class Sqlite:
    """One file, with a `-journal` during a transaction, and a lock file for each live run."""

    def __init__(self, path: Path) -> None:
        self._given = path
        # The path without symbolic links: all processes must use the same lock files beside it.
        self._path = real_path(path)
        self.location: str = str(self._path)
        self.file: Path | None = self._path
        self.engine: Engine = _engine(self._path)
        self.reading: dict[str, Any] = {"sqlite_begin": "BEGIN"}
        self.has_sessions: bool = False
        self.secrets: tuple[Secret, ...] = ()

    def prepare(self, initialize: Callable[[Engine], None] | None) -> None:
        kind = network_file_system(self._path.parent)
        if kind is not None:
            raise self._error(
                f"on a network file system ({kind}), where SQLite's locks and syncs are not "
                "reliable; put the journal on a local disk, or into PostgreSQL",
                "unsupported",
            )
        self._check_trust()
        if not os.path.lexists(self._path):
            if initialize is None:
                raise self._error("there is no journal at this place; none was created", "missing")
            self._create(initialize)
        self._check_file()
        with self.engine.connect().execution_options(**self.reading) as connection:
            self._check_kinds(connection)
            self._check_small_tables(connection)

    def exclude_others(self, connection: Connection) -> None:
        """Nothing to do: every writing transaction starts with BEGIN IMMEDIATE."""

    @property
    def clock(self) -> None:
        return None

    def try_lock(self, connection: Connection, run_id: int) -> FileLock | None:  # noqa: ARG002
        try:
            return FileLock.try_acquire(self._lock_file(run_id))
        except NoLocks as exc:
            raise self._error(
                "on a file system without locks, where two processes could open one run; put the "
                "journal on a local disk, or into PostgreSQL",
                "unsupported",
            ) from exc

    def locked(
        self,
        connection: Connection,  # noqa: ARG002
        run_ids: Collection[int],
    ) -> Collection[int]:
        return {run_id for run_id in run_ids if FileLock.is_locked(self._lock_file(run_id))}

    def holder(self, run_id: int) -> int | None:
        return FileLock.holder(self._lock_file(run_id))

    def _lock_file(self, run_id: int) -> Path:
        return self._path.with_name(f"{self._path.name}.run-{run_id}.lock")

    def identity(self, connection: Connection) -> str:  # noqa: ARG002
        return self.location

    def check_integrity(self, connection: Connection) -> None:
        found = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar()
        if found != "ok":
            raise self._error(f"damaged: {found:.200}")

    def shrink(self) -> None:
        # Without effect on a journal that was created without auto_vacuum. executescript(), since
        # each step of the statement frees one page, and only scripts are run to their end.
        with contextlib.closing(self.engine.raw_connection()) as connection:
            connection.cursor().executescript(f"PRAGMA incremental_vacuum({_PAGES_AT_ONCE})")

    def _check_trust(self) -> None:
        """Refuse a journal that another user may have written: it says which files are exports.

        So are the files beside it: SQLite would roll an unfinished transaction back from them.
        """
        beside = [self._path.with_name(f"{self._path.name}{end}") for end in ("", *_BESIDE)]
        problem = distrust_of_path(self._given)
        if problem is None:
            drop_new_name(self._path)
            problem = next(filter(None, map(distrust_of_file, beside)), None)
        if problem is not None:
            raise self._error(f"not read, because {problem}", "foreign")

    def _check_kinds(self, connection: Connection) -> None:
        """Refuse views, triggers and virtual tables: they may be endless, or lose rows."""
        names = [table.name for table in metadata.tables.values()]
        marks = ", ".join("?" * len(names))
        query = f"SELECT name, type, sql FROM sqlite_master WHERE tbl_name IN ({marks})"  # noqa: S608 - marks
        found = connection.exec_driver_sql(query, tuple(names)).all()
        for name, kind, sql in found:
            if str(sql).upper().startswith("CREATE VIRTUAL"):
                raise self._error(f"{name:.60} is a virtual table", "foreign")
            if kind not in ("table", "index"):
                raise self._error(f"{name:.60} is a {kind}", "foreign")
        if not any(name == journal.name for name, *_ in found):
            raise self._error("a database, with no journal in it", "foreign")

    def _create(self, initialize: Callable[[Engine], None]) -> None:
        """Create the journal under another name, and rename it when it has its tables.

        So an empty file of this name is never a new journal, but one that was truncated.
        """
        make_directories(self._path.parent)
        # A -journal may be left of a removed database. SQLite would take it for an unfinished
        # transaction of the new one.
        self._path.with_name(f"{self._path.name}-journal").unlink(missing_ok=True)
        new = name_of_new(self._path)
        create_private(new)
        try:
            engine = _engine(new)
            with contextlib.closing(engine.raw_connection()) as connection:
                connection.cursor().execute("PRAGMA auto_vacuum = INCREMENTAL")
            initialize(engine)
        except BaseException:
            new.unlink()
            raise
        finally:
            new.with_name(f"{new.name}-journal").unlink(missing_ok=True)
        put_in_place(new, self._path)

    def _check_file(self) -> None:
        # Without opening the file: closing any descriptor of it drops this process's SQLite locks
        # (sqlite.org/howtocorrupt.html, section 2.2).
        if not self._path.is_file():
            raise self._error("not a file", "foreign")
        if self._path.stat().st_size == 0:
            raise self._error(
                "damaged: an empty file, which a journal never is; put a copy of the journal back, "
                "or remove the file to start anew, which requests every export once more"
            )
        if not os.access(self._path, os.R_OK | os.W_OK) or not os.access(
            self._path.parent, os.W_OK | os.X_OK
        ):
            raise self._error("the file or its directory can't be written", "unavailable")

    def _check_small_tables(self, connection: Connection) -> None:
        """Check the tables that every run needs. A run's events are checked when they are read."""
        if sqlite3.sqlite_version_info < _CHECKS_TABLES:
            self.check_integrity(connection)
            return
        for table in (journal, runs, guard):
            query = f"PRAGMA integrity_check('{table.name}')"
            found = connection.exec_driver_sql(query).scalar()
            if found != "ok":
                raise self._error(f"damaged: {found:.200}")

    def _error(self, what: str, reason: JournalReason = "damaged") -> JournalError:
        return journal_error(self.location, reason, what)


def _engine(path: Path) -> Engine:
    # mode=rw: SQLite must not create the file, since it would use the umask. Slashes are quoted,
    # since a path that begins with two would be the host of the URI.
    uri = f"file:{quote(os.fsencode(path), safe='')}?mode=rw"

    def connect() -> sqlite3.Connection:
        # check_same_thread: several worker threads use a connection, one at a time.
        connection = sqlite3.connect(
            uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        try:
            for pragma in _PRAGMAS:
                connection.execute(f"PRAGMA {pragma}")
            # Also converts a journal with a write-ahead log, which moves the log's commits into the
            # file. SQLITE_BUSY while another process has such a file open.
            connection.execute("PRAGMA journal_mode = TRUNCATE").fetchall()
        except BaseException:
            connection.close()
            raise
        return connection

    engine = create_engine("sqlite://", creator=connect, poolclass=NullPool, hide_parameters=True)

    def begin(connection: Connection) -> None:
        # IMMEDIATE: a transaction that has read can't wait for the lock to write.
        options = connection.get_execution_options()
        connection.exec_driver_sql(options.get("sqlite_begin", "BEGIN IMMEDIATE"))

    event.listen(engine, "begin", begin)
    return engine
