"""Calls in worker threads, also where the process is at its limit of threads."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import TypeVar, TypeVarTuple

import anyio
import anyio.to_thread

T = TypeVar("T")
_Args = TypeVarTuple("_Args")

#: Attempts to start a thread, and the seconds between two of them.
_ATTEMPTS, _PAUSE = 20, 0.1


class NoThread(OSError):
    """The process, its user or its container may have no more threads now."""

    def __init__(self, why: str) -> None:
        super().__init__(errno.EAGAIN, why)


async def in_thread(
    function: Callable[[*_Args], T], *args: *_Args, abandon_on_cancel: bool = False
) -> T:
    """Call a function in a worker thread of anyio's.

    Where no thread can be started, wait two seconds for one: calls that are under way end, and
    their threads take others.

    Raises:
        NoThread: there was none. Nothing was called.
    """
    begun = False

    def call() -> T:
        nonlocal begun
        begun = True
        return function(*args)

    why = ""
    for _ in range(_ATTEMPTS):
        try:
            return await anyio.to_thread.run_sync(call, abandon_on_cancel=abandon_on_cancel)
        except RuntimeError as exc:
            if begun:
                raise
            why = str(exc)
        await anyio.sleep(_PAUSE)
    raise NoThread(why)
