"""The errors that the journal raises by itself. Needs no SQLAlchemy (an extra)."""

from __future__ import annotations

from segments_async.errors import JournalError, JournalReason


class Locked(Exception):
    """Another process has locked the run or the database. Nothing was read or written; retry."""


def journal_error(location: str, reason: JournalReason, what: str) -> JournalError:
    """The error for the journal at this location. `what`: a sentence, without the location."""
    return JournalError(f"{location}: {what}", reason=reason, location=location)
