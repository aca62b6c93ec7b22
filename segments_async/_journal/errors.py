"""Errors of databases, drivers and files, mapped to the journal's in one place."""

from __future__ import annotations

import contextlib
import sqlite3
import sys
from collections.abc import Generator, Iterable, Mapping
from typing import Any, cast

from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from segments_async._journal.refusals import Locked, journal_error
from segments_async._journal.tables import ChecksumError, Malformed
from segments_async._sansio.api.credentials import Secret
from segments_async._sansio.error_chain import chain
from segments_async._sansio.jobs.lifecycle import IllegalTransition
from segments_async._sansio.jobs.payload import UnreadablePayload
from segments_async.errors import ConfigurationError, JournalReason

_DRIVERS = frozenset({"sqlite3", "psycopg", "psycopg2", "pg8000"})


@contextlib.contextmanager
def mapped_errors(location: str, secrets: Iterable[Secret] = ()) -> Generator[None]:
    """Raise Locked or JournalError in place of errors of databases and files, and for damaged rows.

    Args:
        location: of the journal.
        secrets: passwords. No message and no traceback contains one.
    """
    handled = sys.exception()
    try:
        yield
    except _DAMAGE as exc:
        raise journal_error(location, "damaged", f"damaged: {exc}") from exc
    except OSError as exc:
        # The error of a file, or of pg8000's socket: its frames have the password then.
        cause = _scrubbed(exc, handled, tuple(secrets)) if secrets else exc
        raise journal_error(location, "unavailable", exc.strerror or str(exc)) from cause
    except TypeError as exc:
        if "unexpected keyword argument" not in str(exc):
            raise
        raise ConfigurationError(  # from pg8000
            f"{location}: the driver doesn't know an option of the journal's URL"
        ) from None
    except Exception as exc:
        if not isinstance(exc, SQLAlchemyError) and not _is_drivers(exc):
            raise
        error = _mapped(exc, location, tuple(secrets))
        raise error from _scrubbed(exc, handled, tuple(secrets))


_DAMAGE = (ChecksumError, IllegalTransition, Malformed, UnicodeDecodeError, UnreadablePayload)


def _scrubbed(
    exc: Exception, handled: BaseException | None, secrets: tuple[Secret, ...]
) -> Exception | None:
    """The error without passwords, for a traceback; None where the error's text has one."""
    shown = any(secret.reveal() in f"{exc}{exc!r}" for secret in secrets)
    _clear(_original(exc))
    for one in chain(exc, handled):
        # Frames of SQLAlchemy and of drivers have the password in their arguments.
        one.__traceback__ = None
        one.args = tuple(_without(arg, secrets) for arg in one.args)
    return None if shown else exc


def _without(arg: object, secrets: Iterable[Secret]) -> object:
    if isinstance(arg, str):
        for secret in secrets:
            arg = arg.replace(secret.reveal(), "***")
    elif isinstance(arg, dict):  # pg8000's errors have the server's answer by field
        fields = cast(Mapping[str, object], arg)
        return {name: _without(value, secrets) for name, value in fields.items()}
    return arg


def _clear(original: BaseException) -> None:
    """Clear the attributes of a driver's error: those of psycopg's have the password."""
    if not isinstance(original, sqlite3.Error):
        for name in vars(original):
            original.__dict__[name] = None


def _mapped(exc: Exception, location: str, secrets: tuple[Secret, ...]) -> Exception:
    reason = _reason(exc)
    if reason == "locked":
        return Locked("another process holds the database")
    said = str(_without(_first_line(exc), secrets))
    hint = _HINTS.get(sqlstate(_original(exc)) or "", "")
    return journal_error(location, reason, f"{said:.200}{hint}")


def _is_drivers(exc: Exception) -> bool:
    """Whether the error is a driver's own: SQLAlchemy wraps no error of connecting."""
    bases = type(exc).__mro__
    return any(b.__name__ == "Error" and b.__module__.partition(".")[0] in _DRIVERS for b in bases)


def _original(exc: Exception) -> BaseException:
    if isinstance(exc, DBAPIError) and exc.orig is not None:
        return exc.orig
    return exc


def _first_line(exc: Exception) -> str:
    """The driver's message, without the statement and the values that SQLAlchemy appends."""
    original = _original(exc)
    fields = _fields(original)
    said = str(fields.get("M")) if fields else str(original)
    return (said.splitlines() or [type(original).__name__])[0]


def _fields(original: BaseException) -> Mapping[str, Any]:
    """The server's answer by field. pg8000's errors have it in place of a message."""
    first = original.args[0] if original.args else None
    return cast(Mapping[str, Any], first) if isinstance(first, dict) else {}


def sqlstate(original: BaseException | None) -> str | None:
    """The SQLSTATE, from the place where psycopg, psycopg2 or pg8000 stores it."""
    if original is None:
        return None
    state = (
        getattr(original, "sqlstate", None)
        or getattr(original, "pgcode", None)
        or _fields(original).get("C")
    )
    return state if isinstance(state, str) else None


def _reason(exc: Exception) -> JournalReason:
    original = _original(exc)
    if isinstance(original, sqlite3.Error):
        name = str(getattr(original, "sqlite_errorname", None))  # "no such table" has none
        return _SQLITE.get("_".join(name.split("_")[:2]), "damaged")
    state = sqlstate(original) or ""
    for prefix in (state, state[:3], state[:2]):
        if prefix in _POSTGRESQL:
            return _POSTGRESQL[prefix]
    return "unavailable"


_SQLITE: dict[str, JournalReason] = {
    "SQLITE_BUSY": "locked",
    "SQLITE_LOCKED": "locked",
    "SQLITE_PROTOCOL": "locked",
    "SQLITE_NOTADB": "foreign",
    "SQLITE_AUTH": "unavailable",
    "SQLITE_CANTOPEN": "unavailable",
    "SQLITE_FULL": "unavailable",
    "SQLITE_INTERRUPT": "unavailable",
    "SQLITE_IOERR": "unavailable",
    "SQLITE_NOLFS": "unavailable",
    "SQLITE_NOMEM": "unavailable",
    "SQLITE_PERM": "unavailable",
    "SQLITE_READONLY": "unavailable",
}

#: The reasons of errors, by the whole SQLSTATE, its first three or its first two characters. The
#: longest one that is here counts.
#: https://www.postgresql.org/docs/current/errcodes-appendix.html
_POSTGRESQL: dict[str, JournalReason] = {
    "08": "unavailable",  # the connection is lost, or was refused
    "0A": "unsupported",
    "22": "damaged",  # a value is not of its column's type
    "23": "damaged",  # a row exists already, or refers to a missing one
    "25": "unavailable",  # 25006: read-only, as a replica is; 25P03: ended for being idle
    "26000": "unsupported",  # no such prepared statement: another session than before
    "28": "unavailable",  # the login is refused
    "34000": "unsupported",  # no such cursor: another session than before
    "3D000": "unavailable",  # no such database
    "3F000": "unavailable",  # no such schema
    "40": "locked",  # serialization failure, deadlock
    "40003": "unavailable",  # unknown whether the statement was executed
    "42": "damaged",  # no such table or column
    "42501": "unavailable",  # a right is missing
    "42601": "unsupported",  # a syntax error: the server is not PostgreSQL
    "42704": "unsupported",
    "42883": "unsupported",  # no such function, such as advisory locks
    "42P05": "unsupported",  # a prepared statement of another connection
    "53": "unavailable",  # disk or memory full, or too many connections
    "54": "unavailable",
    "55": "unavailable",
    "55006": "locked",  # in use
    "55P03": "locked",  # lock_timeout
    "57": "unavailable",  # 57P01 to 57P05: ended by an administrator, a crash, or for being idle
    "57014": "locked",  # statement_timeout, or canceled
    "58": "unavailable",
    "58P01": "damaged",  # a file of the database is missing
    "F0": "unavailable",
    "XX": "unavailable",
    "XX001": "damaged",
    "XX002": "damaged",
}

_RIGHTS = (
    "; the journal's role needs USAGE and, to make the tables, CREATE on the schema (GRANT USAGE, "
    "CREATE ON SCHEMA ... TO ...), SELECT, INSERT, UPDATE and DELETE on the tables "
    "segments_async_*, and USAGE on the sequence segments_async_events_id_seq. The journal itself "
    "is unharmed"
)
_POOLER = (
    "; the connection seems to go through a transaction pooler: use a direct connection or a "
    "session pool"
)

#: Advice for the reader of the message, by SQLSTATE.
_HINTS = {
    "42501": _RIGHTS,
    "3F000": _RIGHTS,
    "25006": "; this server is read-only, as a replica is: use the address of the primary",
    "26000": _POOLER,
    "34000": _POOLER,
    "42P05": _POOLER,
    "53300": "; a journal uses one connection for each live run, and one more for short times",
}
