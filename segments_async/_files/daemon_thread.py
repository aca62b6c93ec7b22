"""A blocking call in a daemon thread, for what may take minutes after its caller has left.

anyio's own worker threads on asyncio are no daemons: the interpreter's end waits for each call that
was left. A store that hangs would keep a cancelled program alive for minutes.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

import anyio
import anyio.from_thread
import anyio.lowlevel
import anyio.to_thread

from segments_async._filesystem.threads import NoThread

T = TypeVar("T")


class RustPanic(Exception):
    """A library in Rust panicked. PyO3's own exception is no Exception, and ends programs."""


def as_exception(exc: BaseException) -> BaseException:
    """The error, or a RustPanic in place of PyO3's exception."""
    return RustPanic() if type(exc).__name__ == "PanicException" else exc


def start_daemon(work: Callable[[], None], name: str) -> None:
    """Start a daemon thread.

    Raises:
        NoThread: no thread can be started now.
    """
    thread = threading.Thread(target=work, name=name, daemon=True)
    try:
        thread.start()
    except RuntimeError as exc:
        raise NoThread(str(exc)) from exc


async def run_in_daemon(function: Callable[[], T]) -> T:
    """Call a function in a daemon thread. If this task is cancelled, the thread goes on.

    Raises:
        NoThread: nothing was called.
        RustPanic: in place of PyO3's exception.
        BaseException: the function's.
    """
    loop, ended = anyio.lowlevel.current_token(), anyio.Event()
    results: list[T] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            results.append(function())
        except BaseException as exc:  # noqa: BLE001 - raised to the task that waits
            errors.append(as_exception(exc))
        with contextlib.suppress(RuntimeError):  # the event loop has ended, or is closed
            anyio.from_thread.run_sync(ended.set, token=loop)

    # The limiter of anyio's own threads: virtual time looks there for threads at work.
    async with anyio.to_thread.current_default_thread_limiter():
        start_daemon(work, "segments-async-store")
        await ended.wait()
    if errors:
        raise errors.pop()
    return results.pop()
