"""How a command ends: exit codes, signals, and errors as one sentence."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from enum import IntEnum
from typing import Any

import anyio

from segments_async.errors import (
    APIConnectionError,
    AuthenticationError,
    ConfigurationError,
    JournalError,
    JournalReason,
    PermissionDeniedError,
    SegmentsError,
)


class Exit(IntEnum):
    """Exit codes; a signal makes 128 and its number."""

    ALL_DONE = 0
    SOME_NOT = 1
    USAGE = 2
    REFUSED = 3
    READER_GONE = 128 + signal.SIGPIPE


class UsageError(Exception):
    """The command line asks for something that can't be."""


class Interrupted(Exception):
    """A signal ended the command, after everything was left cleanly."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code: int = 128 + number
        self.sentence = "Interrupted." if number == signal.SIGINT else "Terminated."


def exit_code(error: SegmentsError | UsageError) -> Exit:
    """The exit code for an error that ended a command."""
    if isinstance(error, UsageError | ConfigurationError):
        return Exit.USAGE
    if isinstance(error, AuthenticationError | PermissionDeniedError):
        return Exit.REFUSED
    return Exit.SOME_NOT


def sentence(error: SegmentsError | UsageError) -> str:
    """What to tell a person about it."""
    if isinstance(error, AuthenticationError):
        return f"{error} (SEGMENTS_API_KEY and SEGMENTS_ACCESS_TOKEN; see the Project Page)"
    if isinstance(error, APIConnectionError):
        return f"No answer from the API: {error}"
    if isinstance(error, JournalError) and (advice := _ADVICE.get(error.reason)):
        return f"{error} ({advice})"
    return str(error)


_ADVICE: dict[JournalReason, str] = {
    "damaged": "the exports it knew of can't be gone on with; moved away, it makes room for a new "
    "one, and they are asked for again",
    "newer": "a later segments-async can go on with it",
    "foreign": "each account needs a directory, or a --journal, of its own",
    "unsupported": "--journal PATH_OR_URL says where, --no-journal does without",
    "unavailable": "--journal PATH_OR_URL puts it elsewhere, --no-journal does without",
}


@asynccontextmanager
async def alongside(task: Callable[[], Coroutine[Any, Any, None]]) -> AsyncGenerator[None]:
    """Run a task for as long as the block lasts; what the block raises comes out bare."""
    try:
        async with anyio.create_task_group() as group:
            group.start_soon(task)
            yield
            group.cancel_scope.cancel()
    except BaseExceptionGroup as several:
        raise several.exceptions[0] from None


async def interruptible(work: Callable[[], Awaitable[Exit]]) -> Exit:
    """Do the work until SIGINT or SIGTERM, which cancel it; a second one doesn't wait for it.

    Raises:
        Interrupted: a signal came, and the work has been left.
    """
    caught: list[int] = []
    code = Exit.ALL_DONE
    scope = anyio.CancelScope()
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:

        async def watch() -> None:
            async for number in signals:
                if caught:
                    os._exit(128 + number)
                caught.append(number)
                scope.cancel()

        async with alongside(watch):
            with scope:
                code = await work()
    if scope.cancelled_caught:
        raise Interrupted(caught[0])
    return code
