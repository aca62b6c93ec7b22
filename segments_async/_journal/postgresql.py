"""A journal in a schema of PostgreSQL."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

from sqlalchemy import (
    URL,
    ColumnElement,
    Connection,
    Engine,
    NullPool,
    Text,
    create_engine,
    event,
    func,
    text,
)
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from segments_async._journal.refusals import journal_error
from segments_async._journal.tables import journal, metadata
from segments_async._sansio.api.credentials import Secret
from segments_async.errors import ConfigurationError, JournalError

#: Seconds that connecting may take at most.
_CONNECT_TIMEOUT = 10

#: Seconds that one attempt waits for another process that opens a run.
EXCLUSIVE_SECONDS = 5.0

#: Attempts to get, through a pooler, the session that has a lock of ours.
_UNLOCK_ATTEMPTS = 20


class PostgreSQL:
    """One schema, with an advisory lock of a session for each live run."""

    def __init__(self, url: URL) -> None:
        if url.drivername == "postgresql":
            url = url.set(drivername="postgresql+psycopg")
        port = f":{url.port}" if url.port else ""
        self.location: str = f"postgresql://{url.host or ''}{port}/{url.database or ''}"
        self.file: Path | None = None
        self.reading: dict[str, Any] = {}
        self.has_sessions: bool = True
        self.secrets: tuple[Secret, ...] = _secrets(url)
        self.engine: Engine = _engine(url)
        event.listen(self.engine, "connect", _on_connect)
        #: The engine of connections that must leave no setting in the database's session.
        self._probing = _engine(url)

    def prepare(self, initialize: Callable[[Engine], None] | None) -> None:
        self._check_sessions()
        if initialize is not None:
            initialize(self.engine)
        self._check_kinds()

    def _check_kinds(self) -> None:
        """Refuse a missing journal, and a view in the place of a table: a view may be endless."""
        names = [table.name for table in metadata.tables.values()]
        with self.engine.connect() as connection:
            found = connection.execute(_KINDS, {"names": names}).all()
        if not any(name == journal.name for name, _ in found):
            raise journal_error(
                self.location, "missing", "there is no journal at this place; none was created"
            )
        for name, kind in found:
            if kind not in ("r", "p", b"r", b"p"):
                raise journal_error(self.location, "foreign", f"{name:.60} is not a table")

    def exclude_others(self, connection: Connection) -> None:
        limit = f"{EXCLUSIVE_SECONDS * 1000:.0f}"
        schema: str | None = connection.execute(_SET_LOCAL, {"limit": limit}).all()[0][0]
        key = _key(schema, 0)
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": key})

    @property
    def clock(self) -> ColumnElement[str] | None:
        now = func.timezone("UTC", func.clock_timestamp())
        return func.to_char(now, 'YYYY-MM-DD"T"HH24:MI:SS.US"+00:00"', type_=Text)

    def try_lock(self, connection: Connection, run_id: int) -> AdvisoryLock | None:
        lock = AdvisoryLock(_key(_schema(connection), run_id), self.location)
        return lock if lock.try_acquire(connection) else None

    def locked(self, connection: Connection, run_ids: Collection[int]) -> Collection[int]:
        if not run_ids:
            return ()
        rows = connection.execute(_ALL_HELD).all()
        schema = rows[0][0]
        held = {(high << 32) | low for _, high, low in rows if high is not None}
        return {one for one in run_ids if _unsigned(_key(schema, one)) in held}

    def holder(self, run_id: int) -> int | None:  # noqa: ARG002
        """None: the process may be on any machine."""
        return None

    def identity(self, connection: Connection) -> str:
        return f"{self.location}#{_schema(connection)}"

    def check_integrity(self, connection: Connection) -> None:
        """Nothing to do: PostgreSQL recovers by itself, and has its own checksums."""

    def shrink(self) -> None:
        """Nothing to do: PostgreSQL has autovacuum."""

    def _check_sessions(self) -> None:
        """Refuse a transaction pooler, before a lock or a setting is left in one of its sessions.

        Such a pooler runs each transaction in any of its sessions that is free. So two connections
        that alternate are found in the same session.
        """
        with self._probing.connect() as one, self._probing.connect() as other:
            with one.begin():
                before = _session(one)
            with other.begin():
                # Before `one` starts a transaction: a pool of one session would block it.
                if _session(other) == before:
                    raise pooled(self.location)
                self._check_encoding(other)
                with one.begin():
                    if _session(one) != before:
                        raise pooled(self.location)

    def _check_encoding(self, connection: Connection) -> None:
        """Refuse a database whose encoding can't store every text."""
        encoding = connection.execute(text("SHOW server_encoding")).scalar()
        if str(encoding) not in ("UTF8", "b'UTF8'"):
            raise journal_error(
                self.location,
                "unsupported",
                "a journal needs a database with the encoding UTF8, and this database has another "
                "one (CREATE DATABASE ... ENCODING 'UTF8' TEMPLATE template0 makes a suitable "
                "one). Nothing was written or sent",
            )


def _key(schema: str | None, run_id: int) -> int:
    """The number of an advisory lock. All schemas share the numbers, so the schema counts."""
    digest = hashlib.sha256(f"segments-async {schema} {run_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


def _unsigned(key: int) -> int:
    return key & 0xFFFFFFFFFFFFFFFF


_KINDS = text(
    "SELECT relname, relkind FROM pg_class "
    "WHERE relname = ANY(:names) AND relnamespace = current_schema()::regnamespace"
)


class AdvisoryLock:
    """A run's lock, in one session of the database."""

    def __init__(self, key: int, location: str) -> None:
        self._key = key
        self._location = location
        self._session = 0
        #: Always False: PostgreSQL rolls back the transactions of dead processes.
        self.unclean: bool = False

    def try_acquire(self, connection: Connection) -> bool:
        asked = text("SELECT pg_try_advisory_lock(:key)")
        if not connection.execute(asked, {"key": self._key}).scalar():
            return False
        self._session = _session(connection)
        return True

    def is_held(self, connection: Connection) -> bool:
        return {_session(connection), _holder(connection, self._key)} == {self._session}

    def confirm(self, connection: Connection) -> None:
        with connection.begin():
            if self.is_held(connection):
                return
        self._unlock(connection)
        raise pooled(self._location)

    def reacquire(self, connection: Connection) -> bool:
        """As `RunLock.reacquire`. Ends our lost session where the server still has it."""
        with connection.begin():
            if self.try_acquire(connection):
                return True
            holder = _holder(connection, self._key)
            if holder is not None and holder == self._session:
                connection.execute(_END_SESSION, {"pid": holder})
            return False

    def release(self) -> None:
        """The lock ends with its connection."""

    def _unlock(self, connection: Connection) -> None:
        """Release the lock in the pooler's session that has it; otherwise end that session."""
        for _ in range(_UNLOCK_ATTEMPTS):
            with connection.begin():
                if _session(connection) == self._session:
                    unlock = text("SELECT pg_advisory_unlock(:key)")
                    connection.execute(unlock, {"key": self._key})
                    return
        with connection.begin():
            connection.execute(_END_SESSION, {"pid": self._session})


def _holder(connection: Connection, key: int) -> int | None:
    """The session that has an advisory lock; pg_locks shows the key of 64 bits as two halves."""
    unsigned = _unsigned(key)
    halves = {"high": unsigned >> 32, "low": unsigned & 0xFFFFFFFF}
    found: int | None = connection.execute(_HOLDER, halves).scalar()
    return found


_HOLDER = text(
    "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 1 "
    "AND classid::bigint = :high AND objid::bigint = :low "
    "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)

_END_SESSION = text("SELECT pg_terminate_backend(:pid)")

#: The schema, and every advisory lock: at least one row.
_ALL_HELD = text(
    "SELECT current_schema(), classid::bigint, objid::bigint FROM (SELECT 1) AS one "
    "LEFT JOIN pg_locks ON locktype = 'advisory' AND granted AND objsubid = 1 "
    "AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
)

#: The schema; and limits in milliseconds, until the transaction's end.
_SET_LOCAL = text(
    "SELECT current_schema(), set_config(name, :limit, true) "
    "FROM (VALUES ('lock_timeout'), ('statement_timeout')) AS limits (name)"
)


def pooled(location: str) -> JournalError:
    """The error for a pooler that gives one session to several connections."""
    return journal_error(
        location,
        "unsupported",
        "a transaction pooler (such as pgbouncer with pool_mode = transaction) stands before this "
        "database, and a run can't be locked through it; use a direct connection or a session "
        "pool. Nothing was written or sent",
    )


def _session(connection: Connection) -> int:
    """The id of the server process of a connection's present transaction."""
    found: int = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
    return found


def _schema(connection: Connection) -> str | None:
    found: str | None = connection.execute(text("SELECT current_schema()")).scalar()
    return found


def _secrets(url: URL) -> tuple[Secret, ...]:
    """The passwords in a URL, bare and in each form of quoting."""
    values = [value for one in _passwords(url).values() for value in _as_tuple(one)]
    if url.password:
        values.append(str(url.password))
    forms = {form for v in values if v for form in (v, quote(v, safe=""), quote(v), quote_plus(v))}
    return tuple(Secret(form) for form in sorted(forms, key=len, reverse=True))


def _passwords(url: URL) -> dict[str, str | tuple[str, ...]]:
    """The options of the URL that are passwords."""
    return {name: value for name, value in url.query.items() if "password" in name.lower()}


def _as_tuple(value: str | tuple[str, ...]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else value


def _engine(url: URL) -> Engine:
    try:
        dialect = url.get_dialect()
        if dialect.is_async:
            raise ConfigurationError(
                f"a journal needs a synchronous driver, such as postgresql+psycopg://, and "
                f"{url.drivername}:// is an asynchronous one. Nothing was connected to"
            )
        return create_engine(
            # Without passwords among its options: the repr of an engine shows the options.
            url.difference_update_query(_passwords(url)),
            poolclass=NullPool,
            hide_parameters=True,
            connect_args=_arguments(url),
        )
    except NoSuchModuleError:
        raise ConfigurationError(
            f"SQLAlchemy knows no driver {url.drivername}://; a journal needs a synchronous one, "
            "such as postgresql+psycopg://. Nothing was connected to"
        ) from None
    except ImportError as exc:
        what = exc.name or "a module"
        raise ConfigurationError(
            f"a journal in PostgreSQL by {url.drivername}:// needs {what}, which can't be "
            "imported: pip install 'psycopg[binary]'"
        ) from exc
    except (ArgumentError, TypeError, ValueError):
        raise ConfigurationError("the journal's URL has an option that can't be read") from None


def _arguments(url: URL) -> dict[str, Any]:
    """Arguments for the driver that the URL doesn't give."""
    driver = url.get_driver_name()
    arguments: dict[str, Any] = dict(_passwords(url))
    if driver in ("psycopg", "psycopg2"):
        arguments["connect_timeout"] = _CONNECT_TIMEOUT
        # Milliseconds. A write to a server that has vanished fails after this time.
        arguments["tcp_user_timeout"] = 30_000
        # Otherwise psycopg returns bytes from a SQL_ASCII database, and fails with a TypeError.
        arguments["client_encoding"] = "utf8"
    if driver == "psycopg":
        # No prepared statements: poolers lose them, and the log's one statement gains nothing.
        arguments["prepare_threshold"] = None
    given = url.query.keys() - _passwords(url).keys()
    return {name: value for name, value in arguments.items() if name not in given}


#: Settings that the journal's sessions need, whatever the role or the server has. Each is set if
#: the server's version has it.
_SETTINGS = {
    # Reading a long log takes longer than a role's limit may allow.
    "statement_timeout": "0",
    "transaction_timeout": "0",
    # Exports take hours without a write, and the end of an idle session releases its run.
    "idle_session_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    # After waiting for a lock, a transaction must see what the other process has committed.
    "default_transaction_isolation": "read committed",
    # A table that is locked for long is waited for in several attempts.
    "lock_timeout": "2s",
    # The server releases the lock of a dead machine within a minute rather than two hours.
    "tcp_keepalives_idle": "30",
    "tcp_keepalives_interval": "10",
    "tcp_keepalives_count": "3",
}


_VALUES = ", ".join(f"('{name}', '{value}')" for name, value in _SETTINGS.items())
SET_STATEMENT = (
    f"SELECT set_config(name, value, false) FROM (VALUES {_VALUES}) AS wanted (name, value) "  # noqa: S608 - ours
    "WHERE current_setting(name, true) IS NOT NULL"
)


def _on_connect(connection: Any, _: object) -> None:
    cursor = connection.cursor()
    # With synchronous_commit off, a commit returns before it is durable.
    cursor.execute(
        "SELECT set_config('synchronous_commit', 'on', false) "
        "WHERE current_setting('synchronous_commit') = 'off'"
    )
    cursor.execute(SET_STATEMENT)
    cursor.close()
    connection.commit()
