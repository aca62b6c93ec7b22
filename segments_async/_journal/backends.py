"""What differs between SQLite and PostgreSQL: connecting, checking, and who holds a run."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

from sqlalchemy import (
    URL,
    Connection,
    Engine,
    NullPool,
    create_engine,
    event,
    inspect,
    make_url,
    text,
)
from sqlalchemy.exc import ArgumentError

from segments_async._journal.files import (
    create_private,
    hold,
    network_file_system,
    put_in_place,
)
from segments_async._journal.tables import journal
from segments_async._journal.wal import lost_commits
from segments_async.errors import ConfigurationError, JournalError, JournalReason

#: Seconds that one attempt waits for another process's commit. Short, since a cancelled caller
#: waits for the attempt to end; there are many attempts.
BUSY_SECONDS = 0.5

LetGo = Callable[[], None]


class Backend(Protocol):
    """A database, before anything is known of what is in it."""

    location: str
    engine: Engine
    #: Of a connection that only reads.
    reading: dict[str, Any]

    def prepare(self, initialize: Callable[[Engine], None]) -> None:
        """See to it that there is a journal, and that it is whole as far as the database tells."""
        ...

    def exclusively(self, connection: Connection) -> None:
        """Until the transaction's end, no other process opens a run."""
        ...

    def now(self, connection: Connection) -> datetime:
        """The time by the clock that all processes of this journal have in common."""
        ...

    def hold(self, connection: Connection, run_id: int) -> LetGo | None:
        """Hold a run for as long as this process and the connection live; None if it is held."""
        ...


def backend(where: str | os.PathLike[str]) -> Backend:
    """The database that a path or a SQLAlchemy URL names; ConfigurationError where it can't be."""
    if isinstance(where, str) and "://" in where:
        return _from_url(where)
    if not os.fspath(where):
        raise ConfigurationError("the journal's path is empty")
    return Sqlite(Path(where))


def _from_url(where: str) -> Backend:
    try:
        url = make_url(where)
    except (ArgumentError, ValueError):
        raise ConfigurationError("the journal's URL can't be read") from None
    kind = url.get_backend_name()
    if kind == "postgresql":
        return PostgreSQL(url)
    if kind != "sqlite" or url.query or url.drivername not in ("sqlite", "sqlite+pysqlite"):
        raise ConfigurationError(
            "a journal is a path, sqlite:///PATH, or postgresql://...; not "
            f"{url.drivername}://{'...?...' if url.query else '...'}"
        )
    if url.database in (None, "", ":memory:"):
        raise ConfigurationError("a journal in memory would not survive the process")
    return Sqlite(Path(str(url.database)))


class Sqlite:
    """One file, beside it the two that WAL needs, and a lock file for each run that is held."""

    def __init__(self, path: Path) -> None:
        self._path = path.absolute()
        self.location: str = str(self._path)
        self.engine: Engine = _sqlite_engine(self._path)
        self.reading: dict[str, Any] = {"sqlite_begin": "BEGIN"}

    def prepare(self, initialize: Callable[[Engine], None]) -> None:
        kind = network_file_system(self._path.parent)
        if kind is not None:
            raise JournalError(
                f"{self.location}: on a network file system ({kind}), where SQLite's WAL loses "
                "data; put the journal on a local disk, or into PostgreSQL",
                reason="unsupported",
                location=self.location,
            )
        self._create(initialize)
        self._check_files()
        with self.engine.connect().execution_options(**self.reading) as connection:
            self._check(connection)

    def exclusively(self, connection: Connection) -> None:
        """BEGIN IMMEDIATE, by which every writing transaction begins, has seen to it."""

    def now(self, connection: Connection) -> datetime:  # noqa: ARG002
        return datetime.now(UTC)

    def hold(self, connection: Connection, run_id: int) -> LetGo | None:  # noqa: ARG002
        return hold(self._path.with_name(f"{self._path.name}.run-{run_id}.lock"))

    def _create(self, initialize: Callable[[Engine], None]) -> None:
        """A journal gets its name once its tables are there.

        So an empty file in its place was cut off, and isn't taken for a new journal.
        """
        if os.path.lexists(self._path):
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        new = self._path.with_name(f"{self._path.name}.{os.getpid()}.{os.urandom(4).hex()}.new")
        create_private(new)
        try:
            engine = _sqlite_engine(new)
            with contextlib.closing(engine.raw_connection()) as connection:
                connection.cursor().execute("PRAGMA journal_mode = WAL")
            initialize(engine)
        except BaseException:
            new.unlink()
            raise
        put_in_place(new, self._path)

    def _check_files(self) -> None:
        # Never opened here: closing any descriptor of it would drop this process's SQLite locks
        # (sqlite.org/howtocorrupt.html, section 2.2).
        if not self._path.is_file():
            self._refuse("not a file", "foreign")
        if self._path.stat().st_size == 0:
            self._refuse("an empty file, and a journal never is one; remove it to start anew")
        if not os.access(self._path, os.R_OK | os.W_OK) or not os.access(
            self._path.parent, os.W_OK | os.X_OK
        ):
            self._refuse("can't be written, or its directory can't", "unavailable")
        if lost_commits(self._path.with_name(self._path.name + "-wal")):
            self._refuse("damaged: its write-ahead log lost what had been written")

    def _check(self, connection: Connection) -> None:
        if not inspect(connection).has_table(journal.name):
            self._refuse("a database, and no journal", "foreign")
        mode = connection.exec_driver_sql("PRAGMA journal_mode").scalar()
        if mode != "wal":
            self._refuse(f"its journal mode is {mode!r}, not WAL")
        found = connection.exec_driver_sql("PRAGMA integrity_check(1)").scalar()
        if found != "ok":
            self._refuse(f"{found:.200}")

    def _refuse(self, what: str, reason: JournalReason = "damaged") -> None:
        raise JournalError(f"{self.location}: {what}", reason=reason, location=self.location)


def _sqlite_engine(path: Path) -> Engine:
    uri = f"file:{quote(str(path))}?mode=rw"  # never creates: SQLite would do so by the umask

    def connect() -> sqlite3.Connection:
        # Used by one worker thread at a time, and not always the same.
        connection = sqlite3.connect(
            uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        try:
            for pragma in ("synchronous = FULL", "foreign_keys = ON", "cell_size_check = ON"):
                connection.execute(f"PRAGMA {pragma}")
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


class PostgreSQL:
    """One schema, with a session's advisory lock for each run that is held."""

    def __init__(self, url: URL) -> None:
        if url.drivername == "postgresql":
            url = url.set(drivername="postgresql+psycopg")
        port = f":{url.port}" if url.port else ""
        self.location: str = f"postgresql://{url.host or ''}{port}/{url.database or ''}"
        self.reading: dict[str, Any] = {}
        try:
            self.engine: Engine = create_engine(url, poolclass=NullPool, hide_parameters=True)
        except ModuleNotFoundError as exc:
            raise ConfigurationError(
                f"a journal in PostgreSQL needs {exc.name}: pip install 'psycopg[binary]'"
            ) from exc
        event.listen(self.engine, "connect", _on_postgresql_connect)

    def prepare(self, initialize: Callable[[Engine], None]) -> None:
        initialize(self.engine)

    def exclusively(self, connection: Connection) -> None:
        connection.execute(text("SET LOCAL lock_timeout = '10s'"))
        key = self._key(connection, 0)
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": key})

    def now(self, connection: Connection) -> datetime:
        found: datetime = connection.execute(text("SELECT clock_timestamp()")).scalar_one()
        return found

    def hold(self, connection: Connection, run_id: int) -> LetGo | None:
        key = self._key(connection, run_id)
        held = connection.execute(text("SELECT pg_try_advisory_lock(:key)"), {"key": key}).scalar()
        return connection.close if held else None

    def _key(self, connection: Connection, run_id: int) -> int:
        """Advisory locks are numbers, and of the whole database: two schemas must not collide."""
        schema = connection.execute(text("SELECT current_schema()")).scalar()
        digest = hashlib.sha256(f"segments-async {schema} {run_id}".encode()).digest()
        return int.from_bytes(digest[:8], "big", signed=True)


def _on_postgresql_connect(connection: Any, _: object) -> None:
    cursor = connection.cursor()
    # Where a server or role has it off, a commit returns before it is durable.
    cursor.execute(
        "SELECT set_config('synchronous_commit', 'on', false) "
        "WHERE current_setting('synchronous_commit') = 'off'"
    )
    # The lock of a process whose machine died is let go within a minute, not two hours.
    cursor.execute("SET tcp_keepalives_idle = 30")
    cursor.execute("SET tcp_keepalives_interval = 10")
    cursor.execute("SET tcp_keepalives_count = 3")
    cursor.close()
    connection.commit()
