"""A journal in a SQLite file.

`journal_mode = TRUNCATE`: between two commits the file alone is the journal. A write-ahead log
would be a second file that holds what the first one lacks, and that people clean away, or forget
to copy.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import quote

from sqlalchemy import Connection, Engine, NullPool, create_engine, event

from segments_async._filesystem.disk import NoLocks
from segments_async._filesystem.trust import distrust_of_file, distrust_of_way, make_directories
from segments_async._journal.files import (
    FileLock,
    create_private,
    drop_new_name,
    name_of_new,
    network_file_system,
    put_in_place,
)
from segments_async._journal.tables import guard, journal, metadata, runs
from segments_async.errors import JournalError, JournalReason

#: Seconds that one attempt waits for another process's commit. Short, since a cancelled caller
#: waits for the attempt to end; there are many attempts.
BUSY_SECONDS = 1.0

#: Pages (of 4 KiB) by which the file shrinks in one transaction of a prune.
_PAGES_AT_ONCE = 500

#: What SQLite may leave beside the file, and reads with it.
_BESIDE = ("-journal", "-wal", "-shm")

#: Of each connection. A schema is input, too: its functions aren't trusted.
_PRAGMAS = (
    "synchronous = FULL",
    "foreign_keys = ON",
    "cell_size_check = ON",
    "trusted_schema = OFF",
)

#: The first version whose checks can be told one table.
_CHECKS_TABLES = (3, 33)


class Sqlite:
    """One file, beside it a `-journal` while a transaction writes, and a lock file for each run."""

    def __init__(self, path: Path) -> None:
        self._given = path
        # By its own name, whatever links lead to it: the lock files are beside that.
        self._path = Path(os.path.realpath(path))
        self.location: str = str(self._path)
        self.engine: Engine = _engine(self._path)
        self.reading: dict[str, Any] = {"sqlite_begin": "BEGIN"}
        self.has_sessions: bool = False
        self.secrets: tuple[str, ...] = ()

    def prepare(self, initialize: Callable[[Engine], None] | None) -> None:
        kind = network_file_system(self._path.parent)
        if kind is not None:
            self._refuse(
                f"on a network file system ({kind}), where neither SQLite's locks nor its syncs "
                "can be relied on; put the journal on a local disk, or into PostgreSQL",
                "unsupported",
            )
        self._check_trust()
        if not os.path.lexists(self._path):
            if initialize is None:
                self._refuse("there is no journal at this place; none was created", "missing")
            self._create(initialize)
        self._check_file()
        with self.engine.connect().execution_options(**self.reading) as connection:
            self._check_kinds(connection)
            self._check_small_tables(connection)

    def exclude_others(self, connection: Connection) -> None:
        """BEGIN IMMEDIATE, by which every writing transaction begins, has seen to it."""

    def now(self, connection: Connection) -> datetime:  # noqa: ARG002
        return datetime.now(UTC)

    def try_lock(self, connection: Connection, run_id: int) -> FileLock | None:  # noqa: ARG002
        try:
            return FileLock.try_acquire(self._lock_file(run_id))
        except NoLocks:
            self._refuse(
                "on a file system without locks, where two processes could have one run; put the "
                "journal on a local disk, or into PostgreSQL",
                "unsupported",
            )

    def is_locked(self, connection: Connection, run_id: int) -> bool:  # noqa: ARG002
        return FileLock.is_locked(self._lock_file(run_id))

    def holder(self, run_id: int) -> int | None:
        return FileLock.holder(self._lock_file(run_id))

    def _lock_file(self, run_id: int) -> Path:
        return self._path.with_name(f"{self._path.name}.run-{run_id}.lock")

    def identity(self, connection: Connection) -> str:  # noqa: ARG002
        return self.location

    def check_integrity(self, connection: Connection) -> None:
        found = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar()
        if found != "ok":
            self._refuse(f"damaged: {found:.200}")

    def shrink(self) -> None:
        # Of a journal that was made without auto_vacuum, it frees nothing. As a script, since each
        # step of the statement frees one page, and only scripts are run to their end.
        with contextlib.closing(self.engine.raw_connection()) as connection:
            connection.cursor().executescript(f"PRAGMA incremental_vacuum({_PAGES_AT_ONCE})")

    def _check_trust(self) -> None:
        """Refuse a journal that another user may have written: which files are exports is its word.

        Beside it SQLite looks for an unfinished transaction, which it would roll back into it.
        """
        beside = [self._path.with_name(f"{self._path.name}{end}") for end in ("", *_BESIDE)]
        problem = distrust_of_way(self._given)
        if problem is None:
            drop_new_name(self._path)
            problem = next(filter(None, map(distrust_of_file, beside)), None)
        if problem is not None:
            self._refuse(f"not read, because {problem}", "foreign")

    def _check_kinds(self, connection: Connection) -> None:
        """Refuse a view, a trigger or a virtual table: what it says has no end, or isn't kept."""
        names = [table.name for table in metadata.tables.values()]
        marks = ", ".join("?" * len(names))
        query = f"SELECT name, type, sql FROM sqlite_master WHERE tbl_name IN ({marks})"  # noqa: S608 - marks
        found = connection.exec_driver_sql(query, tuple(names)).all()
        for name, kind, sql in found:
            virtual = str(sql).upper().startswith("CREATE VIRTUAL")
            if kind not in ("table", "index") or virtual:
                self._refuse(f"{name:.60} is a {'virtual table' if virtual else kind}", "foreign")
        if not any(name == journal.name for name, *_ in found):
            self._refuse("a database, and no journal", "foreign")

    def _create(self, initialize: Callable[[Engine], None]) -> None:
        """A journal gets its name once its tables are there.

        So an empty file in its place was cut off, and isn't taken for a new journal.
        """
        make_directories(self._path.parent)
        # Left by a process that died over a transaction, in a file that somebody removed since: to
        # SQLite, it would be an unfinished transaction of the new one.
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
        # Never opened here: closing any descriptor of it would drop this process's SQLite locks
        # (sqlite.org/howtocorrupt.html, section 2.2).
        if not self._path.is_file():
            self._refuse("not a file", "foreign")
        if self._path.stat().st_size == 0:
            self._refuse(
                "damaged: an empty file, and a journal never is one; put a copy of it back, or "
                "remove it to start anew, which asks for every export once more"
            )
        if not os.access(self._path, os.R_OK | os.W_OK) or not os.access(
            self._path.parent, os.W_OK | os.X_OK
        ):
            self._refuse("can't be written, or its directory can't", "unavailable")

    def _check_small_tables(self, connection: Connection) -> None:
        """The tables that say which runs there are. A run's events are checked as they are read."""
        if sqlite3.sqlite_version_info < _CHECKS_TABLES:
            self.check_integrity(connection)
            return
        for table in (journal, runs, guard):
            query = f"PRAGMA integrity_check('{table.name}')"
            found = connection.exec_driver_sql(query).scalar()
            if found != "ok":
                self._refuse(f"damaged: {found:.200}")

    def _refuse(self, what: str, reason: JournalReason = "damaged") -> NoReturn:
        raise JournalError(f"{self.location}: {what}", reason=reason, location=self.location)


def _engine(path: Path) -> Engine:
    # mode=rw never creates: SQLite would do so by the umask. No slash is left as it is, since a
    # path that begins with two would be a URI's host.
    uri = f"file:{quote(os.fsencode(path), safe='')}?mode=rw"

    def connect() -> sqlite3.Connection:
        # Used by one worker thread at a time, and not always the same.
        connection = sqlite3.connect(
            uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        try:
            for pragma in _PRAGMAS:
                connection.execute(f"PRAGMA {pragma}")
            # A journal of an earlier version is converted: what its write-ahead log holds is moved
            # into the file. That needs the file for this process alone, and is busy otherwise.
            connection.execute("PRAGMA journal_mode = TRUNCATE").fetchall()
        except BaseException:
            connection.close()
            raise
        return connection

    engine = create_engine("sqlite://", creator=connect, poolclass=NullPool, hide_parameters=True)

    def begin(connection: Connection) -> None:
        # A transaction that reads first and writes later can't be given the lock by waiting.
        options = connection.get_execution_options()
        connection.exec_driver_sql(options.get("sqlite_begin", "BEGIN IMMEDIATE"))

    event.listen(engine, "begin", begin)
    return engine
