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
    """No thread can be started: the process, its user or its container is at its limit."""

    def __init__(self, why: str) -> None:
        super().__init__(errno.EAGAIN, why)


async def in_thread(
    function: Callable[[*_Args], T], *args: *_Args, abandon_on_cancel: bool = False
) -> T:
    """Call a function in a worker thread of anyio's.

    Where no thread can be started, wait up to two seconds for the thread of another call that ends.

    Raises:
        NoThread: no thread was free. The function was not called.
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
