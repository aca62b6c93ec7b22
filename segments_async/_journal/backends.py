"""The database that a path or URL names, and the operations that each kind of database has."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, Protocol

from sqlalchemy import URL, ColumnElement, Connection, Engine, make_url
from sqlalchemy.exc import ArgumentError

from segments_async._journal.place import hidden, is_other_notation
from segments_async._sansio.api.credentials import Secret
from segments_async.errors import ConfigurationError


class RunLock(Protocol):
    """A lock that excludes other processes from a run. It ends with the process in any case."""

    #: Whether the last process with this lock ended without releasing the lock.
    unclean: bool

    def is_held(self, connection: Connection) -> bool:
        """Whether this process has the lock, by this connection. In a transaction."""
        ...

    def confirm(self, connection: Connection) -> None:
        """Check that the lock is still there after a commit.

        Raises:
            JournalError: ``unsupported``: a transaction pooler stands before the database. The lock
                was released.
        """
        ...

    def reacquire(self, connection: Connection) -> bool:
        """Lock the run by a new connection. False: another process holds the lock now."""
        ...

    def release(self) -> None:
        """Release the lock."""
        ...


class Backend(Protocol):
    """A database, whatever its tables contain."""

    location: str
    #: The journal's file; None for a server.
    file: Path | None
    engine: Engine
    #: SQLAlchemy's execution options of a connection that only reads.
    reading: dict[str, Any]
    #: Whether a session of the database can end while the database and this process go on.
    has_sessions: bool
    #: Passwords. No message may contain one.
    secrets: tuple[Secret, ...]

    def prepare(self, initialize: Callable[[Engine], None] | None) -> None:
        """Check the journal as far as the database itself can: its place, its tables, its trust.

        Args:
            initialize: creates the tables of a journal where there is none; None creates nothing.

        Raises:
            JournalError: ``missing``: there is no journal, and none was to be created.
        """
        ...

    def exclude_others(self, connection: Connection) -> None:
        """Exclude the other processes from opening runs, until the transaction's end."""
        ...

    @property
    def clock(self) -> ColumnElement[str] | None:
        """The time by a clock that all processes of this journal share, as `format_time` has it.

        None: the clock of this machine, which has all of these processes.
        """
        ...

    def try_lock(self, connection: Connection, run_id: int) -> RunLock | None:
        """Lock a run, for as long as the connection lives; None if another process has the lock."""
        ...

    def locked(self, connection: Connection, run_ids: Collection[int]) -> Collection[int]:
        """Those of these runs that live processes have. No lock is taken."""
        ...

    def holder(self, run_id: int) -> int | None:
        """The id of the process, of this machine, that has locked a run; None where not known."""
        ...

    def identity(self, connection: Connection) -> str:
        """A text that distinguishes this journal from all others: `location` and the schema."""
        ...

    def check_integrity(self, connection: Connection) -> None:
        """Check the structure of the whole database. Called after a process died with a run open.

        Raises:
            JournalError: ``damaged``.
        """
        ...

    def shrink(self) -> None:
        """Give some free space of the file back, where the database doesn't do so by itself."""
        ...


def backend(where: str | os.PathLike[str] | Secret) -> Backend:
    """The database that a path or a SQLAlchemy URL names.

    Raises:
        ConfigurationError: no journal can be there.
    """
    where = hidden(where)
    try:
        return _backend(where)
    except ConfigurationError as exc:
        problem = str(exc)
    # Raised anew: the frames of the first error have the URL, in which a password may be.
    raise ConfigurationError(problem)


def _backend(where: Secret) -> Backend:
    from segments_async._journal.sqlite import Sqlite

    place = where.reveal()
    if "://" in place:
        return _from_url(place)
    return Sqlite(_path(os.fsdecode(place)))


def _path(text: str) -> Path:
    """The path of a SQLite file. Refuses texts that some programs don't take for a path."""
    if not text:
        raise ConfigurationError("the journal's path is empty")
    if text == ":memory:":
        raise ConfigurationError("a journal in memory would not survive the process")
    if text.startswith("file:"):
        raise ConfigurationError(
            "the journal's path begins with 'file:'; give the path alone, or sqlite:///PATH"
        )
    if text.startswith("~"):
        raise ConfigurationError(
            "the journal's path begins with '~', which only a shell replaces by the home "
            "directory; give os.path.expanduser(path), or the absolute path of a file of that name"
        )
    if is_other_notation(text):
        # The text isn't repeated: it may have a password.
        raise ConfigurationError(
            "the journal's path begins as a database's address does, and is no URL; write "
            "postgresql://USER@HOST/DATABASE, or an absolute path for a file of that name"
        )
    try:
        if b"\0" in os.fsencode(text):
            raise ConfigurationError("the journal's path has a NUL character")
    except UnicodeEncodeError:
        raise ConfigurationError("the journal's path has a character that no path has") from None
    return Path(text)


def _from_url(where: str) -> Backend:
    from segments_async._journal.postgresql import PostgreSQL
    from segments_async._journal.sqlite import Sqlite

    try:
        url = make_url(where)
    except (ArgumentError, ValueError):
        raise ConfigurationError(f"the journal's URL can't be read; {_FORMS}") from None
    _check_at_signs(url)
    kind = url.get_backend_name()
    if kind == "postgresql":
        return PostgreSQL(url)
    if kind != "sqlite" or url.query or url.drivername not in ("sqlite", "sqlite+pysqlite"):
        query = "...?..." if url.query else "..."
        raise ConfigurationError(f"{_FORMS}; not {url.drivername}://{query}")
    if not url.database:
        raise ConfigurationError("a journal in memory would not survive the process")
    return Sqlite(_path(str(url.database)))


_FORMS = (
    "a journal is the path of a SQLite file, sqlite:///PATH, or postgresql://... with a "
    "synchronous driver such as postgresql+psycopg://"
)


def _check_at_signs(url: URL) -> None:
    """Refuse a password with a bare @: the part after the @ would be shown as the host."""
    if "@" in (url.host or "") or "@" in (url.database or "") or "://" in (url.host or ""):
        raise ConfigurationError(
            "the journal's URL has an @ that belongs to a user name, a password or a database "
            "name; write it as %40. Nothing was connected to"
        )
