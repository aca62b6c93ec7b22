"""Exit codes, and one message for each error."""

from __future__ import annotations

from enum import IntEnum
from pathlib import Path

from segments_async import (
    APIConnectionError,
    AuthenticationError,
    ConfigurationError,
    DestinationError,
    JournalError,
    PermissionDeniedError,
    SegmentsError,
)
from segments_async.cli.wording import in_words
from segments_async.errors import JournalReason


class Exit(IntEnum):
    """Exit codes. After a signal the code is 128 plus the signal's number."""

    ALL_DONE = 0
    SOME_NOT = 1
    USAGE = 2
    REFUSED = 3
    READER_GONE = 128 + 13  # SIGPIPE, which Windows hasn't


class UsageError(Exception):
    """The arguments, or the environment, are wrong."""


def unwritable(path: Path, error: OSError) -> UsageError:
    """The error for a path of the arguments that can't be written."""
    return UsageError(f"can't write {str(path)!r}: {error.strerror or error}")


def unknown_run(name: str) -> UsageError:
    """The error for a name that no run of the journal has."""
    return UsageError(f"no run is called {name!r}: `segments-async runs` lists them")


def exit_code(error: SegmentsError | UsageError) -> Exit:
    """The exit code for an error."""
    if isinstance(error, UsageError | ConfigurationError):
        return Exit.USAGE
    if isinstance(error, JournalError) and error.reason == "missing":
        return Exit.USAGE
    if isinstance(error, AuthenticationError | PermissionDeniedError):
        return Exit.REFUSED
    if isinstance(error, DestinationError) and error.reason == "denied":
        return Exit.REFUSED
    if isinstance(error, DestinationError) and error.reason == "missing":
        return Exit.USAGE
    return Exit.SOME_NOT


def sentence(error: SegmentsError | UsageError) -> str:
    """The message for an error, in the command's words."""
    return in_words(_sentence(error))


def _sentence(error: SegmentsError | UsageError) -> str:
    if isinstance(error, AuthenticationError):
        return f"{error} (SEGMENTS_API_KEY and SEGMENTS_ACCESS_TOKEN; see the Project Page)"
    if isinstance(error, APIConnectionError):
        return f"No answer from the API: {error}"
    if isinstance(error, JournalError) and (advice := _ADVICE.get(error.reason)):
        return f"{error} ({advice})"
    return str(error)


_ADVICE: dict[JournalReason, str] = {
    "locked": "wait for that process to end, or end it, and give this command again",
    "damaged": "its unfinished exports can't be gone on with; move the journal away to start a new "
    "one, which requests them again",
    "newer": "use that later version of segments-async",
    "unsupported": "--journal PATH_OR_URL names another place, --no-journal keeps no journal",
    "unavailable": "--journal PATH_OR_URL names another place, --no-journal keeps no journal",
}
