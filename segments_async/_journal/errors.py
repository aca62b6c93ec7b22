"""Foreign errors, mapped once: what a database's error, or a strange row, means for the journal."""

from __future__ import annotations

import contextlib
import sqlite3
import sys
from collections.abc import Generator, Iterable, Mapping
from typing import Any, cast

from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from segments_async._journal.locked import Locked
from segments_async._journal.tables import ChecksumError, Malformed
from segments_async._sansio.error_chain import chain
from segments_async._sansio.jobs.lifecycle import IllegalTransition
from segments_async._sansio.jobs.payload import UnreadablePayload
from segments_async.errors import ConfigurationError, JournalError, JournalReason

_DRIVERS = frozenset({"sqlite3", "psycopg", "psycopg2", "pg8000"})


@contextlib.contextmanager
def mapped_errors(location: str, secrets: Iterable[str] = ()) -> Generator[None]:
    """Locked or JournalError for the errors of databases and of files, and what no log can say.

    Args:
        location: the journal's.
        secrets: texts that no message repeats.
    """
    handled = sys.exception()
    try:
        yield
    except (
        ChecksumError,
        IllegalTransition,
        Malformed,
        UnicodeDecodeError,
        UnreadablePayload,
    ) as exc:
        raise JournalError(
            f"{location}: damaged: {exc}", reason="damaged", location=location
        ) from exc
    except OSError as exc:
        raise JournalError(
            f"{location}: {exc.strerror or exc}", reason="unavailable", location=location
        ) from exc
    except TypeError as exc:
        if "unexpected keyword argument" in str(exc):  # pg8000's word on an option of the URL
            raise ConfigurationError(
                f"{location}: the driver doesn't know an option of the journal's URL"
            ) from None
        raise
    except Exception as exc:
        if not isinstance(exc, SQLAlchemyError) and not _is_drivers(exc):
            raise
        error = _mapped(exc, location, tuple(secrets))
        hidden = any(secret in f"{exc}{exc!r}" for secret in secrets)
        _clear(_original(exc))
        for one in chain(exc, handled):
            # Frames of SQLAlchemy and of drivers have the password in the arguments of connecting.
            one.__traceback__ = None
            one.args = tuple(_without(arg, secrets) for arg in one.args)
        # The driver's own words help in a traceback: not where they have a secret.
        raise error from (None if hidden else exc)


def _without(arg: object, secrets: Iterable[str]) -> object:
    if isinstance(arg, str):
        for secret in secrets:
            arg = arg.replace(secret, "***")
    return arg


def _clear(original: BaseException) -> None:
    """Take all but its text off a driver's error: psycopg's hold the connection's password."""
    if not isinstance(original, sqlite3.Error):
        for name in vars(original):
            original.__dict__[name] = None


def _mapped(exc: Exception, location: str, secrets: tuple[str, ...]) -> Exception:
    reason = _reason(exc)
    if reason == "locked":
        return Locked("another process is writing without end")
    said = str(_without(_first_line(exc), secrets))
    hint = _HINTS.get(sqlstate(_original(exc)) or "", "")
    return JournalError(f"{location}: {said:.200}{hint}", reason=reason, location=location)


def _is_drivers(exc: Exception) -> bool:
    """Whether it is one of a driver's errors, which SQLAlchemy doesn't wrap while connecting."""
    bases = type(exc).__mro__
    return any(b.__name__ == "Error" and b.__module__.partition(".")[0] in _DRIVERS for b in bases)


def _original(exc: Exception) -> BaseException:
    if isinstance(exc, DBAPIError) and exc.orig is not None:
        return exc.orig
    return exc


def _first_line(exc: Exception) -> str:
    """What the driver says: without the statement and its values, which SQLAlchemy would add."""
    original = _original(exc)
    fields = _fields(original)
    said = str(fields.get("M")) if fields else str(original)
    return (said.splitlines() or [type(original).__name__])[0]


def _fields(original: BaseException) -> Mapping[str, Any]:
    """pg8000's errors have the server's whole answer in the place of a message."""
    first = original.args[0] if original.args else None
    return cast(Mapping[str, Any], first) if isinstance(first, dict) else {}


def sqlstate(original: BaseException | None) -> str | None:
    """The SQLSTATE, where the driver keeps it: psycopg, psycopg2 and pg8000 each elsewhere."""
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

#: By SQLSTATE, by its first three or by its first two characters, the longest first.
#: https://www.postgresql.org/docs/current/errcodes-appendix.html
_POSTGRESQL: dict[str, JournalReason] = {
    "08": "unavailable",  # the connection is lost, or was refused
    "0A": "unsupported",
    "22": "damaged",  # a value that isn't of its column's type
    "23": "damaged",  # a row that is there already, or refers to none
    "25": "unavailable",  # 25006: only reads, as a replica does; 25P03: ended for being idle
    "26000": "unsupported",  # no such prepared statement: another session than before
    "28": "unavailable",  # the login is refused
    "34000": "unsupported",  # no such cursor: another session than before
    "3D000": "unavailable",  # no such database
    "3F000": "unavailable",  # no such schema
    "40": "locked",  # serialization failure, deadlock
    "40003": "unavailable",  # whether a statement was done isn't known
    "42": "damaged",  # no such table or column
    "42501": "unavailable",  # a right is missing
    "42601": "unsupported",  # a syntax error: something that isn't PostgreSQL
    "42704": "unsupported",
    "42883": "unsupported",  # no such function: advisory locks, perhaps
    "42P05": "unsupported",  # a prepared statement of another connection
    "53": "unavailable",  # the disk or the memory is full, or too many are connected
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
    "CREATE ON SCHEMA ... TO ...), and SELECT, INSERT, UPDATE and DELETE on the tables "
    "segments_async_*. The journal itself is unharmed"
)
_POOLER = (
    "; the connection seems to go through a transaction pooler: give a direct connection or a "
    "session pool"
)

#: What the reader can do, by SQLSTATE.
_HINTS = {
    "42501": _RIGHTS,
    "3F000": _RIGHTS,
    "25006": "; this server only reads, as a replica does: give the address of the primary",
    "26000": _POOLER,
    "34000": _POOLER,
    "42P05": _POOLER,
    "53300": "; a journal takes one connection for each run, and one more for moments",
}
