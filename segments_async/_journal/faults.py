"""Foreign errors, mapped once: what a database's error, or a strange row, means for the journal."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Generator

from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from segments_async._journal.locked import Locked
from segments_async._journal.tables import BrokenSeal, Malformed
from segments_async._sansio.facts import UnreadableFacts
from segments_async._sansio.lifecycle import IllegalTransition
from segments_async.errors import JournalError, JournalReason


@contextlib.contextmanager
def mapped_errors(location: str) -> Generator[None]:
    """Locked or JournalError for the errors of SQLAlchemy and of files, and what no log can say."""
    try:
        yield
    except SQLAlchemyError as exc:
        reason = _reason(exc)
        if reason == "locked":
            raise Locked("another process is writing without end") from exc
        raise JournalError(
            f"{location}: {_first_line(exc):.200}", reason=reason, location=location
        ) from exc
    except OSError as exc:
        raise JournalError(
            f"{location}: {exc.strerror or exc}", reason="unavailable", location=location
        ) from exc
    except (BrokenSeal, IllegalTransition, Malformed, UnicodeDecodeError, UnreadableFacts) as exc:
        raise JournalError(
            f"{location}: damaged: {exc}", reason="damaged", location=location
        ) from exc


def _first_line(exc: SQLAlchemyError) -> str:
    """What the driver says: without the statement and its values, which SQLAlchemy would add."""
    said = exc.orig if isinstance(exc, DBAPIError) and exc.orig is not None else exc
    return (str(said).splitlines() or [type(said).__name__])[0]


def _reason(exc: SQLAlchemyError) -> JournalReason:
    orig = exc.orig if isinstance(exc, DBAPIError) else None
    if isinstance(orig, sqlite3.Error):
        name = str(getattr(orig, "sqlite_errorname", None))  # "no such table" has none
        return _SQLITE.get("_".join(name.split("_")[:2]), "damaged")
    state = str(getattr(orig, "sqlstate", None))
    for prefix, reason in _POSTGRESQL.items():
        if state.startswith(prefix):
            return reason
    return "unavailable"


_SQLITE: dict[str, JournalReason] = {
    "SQLITE_BUSY": "locked",
    "SQLITE_LOCKED": "locked",
    "SQLITE_PROTOCOL": "locked",
    "SQLITE_NOTADB": "foreign",
    "SQLITE_CANTOPEN": "unavailable",
    "SQLITE_FULL": "unavailable",
    "SQLITE_IOERR": "unavailable",
    "SQLITE_NOMEM": "unavailable",
    "SQLITE_PERM": "unavailable",
    "SQLITE_READONLY": "unavailable",
}

#: SQLSTATE classes: https://www.postgresql.org/docs/current/errcodes-appendix.html
_POSTGRESQL: dict[str, JournalReason] = {
    "55P03": "locked",  # lock_not_available
    "40": "locked",  # serialization failure, deadlock
    "23": "damaged",  # a row that is there already, or refers to none
    "42": "damaged",  # no such table or column
    "XX001": "damaged",
    "XX002": "damaged",
}
