"""The executor's tasks, looked at from an event loop.

A future is asked whether it is done, a few times a second, and is given no callback: a callback
runs in a foreign thread, perhaps after the loop was closed; it isn't called for every future that
is cancelled (cpython#136655); and some futures never end (dask/distributed#3196).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, Generic, Protocol, TypeVar

import anyio
import anyio.to_thread

from segments_async.cluster.task import told

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

#: Seconds between two looks at the futures.
LOOK = 0.1


class AnyFuture(Protocol[T_co]):
    """The part of :class:`concurrent.futures.Future` that is used."""

    def cancel(self) -> Any:
        """Cancel the task, if it doesn't run yet."""
        ...

    def done(self) -> bool:
        """Whether the task has ended, or was cancelled."""
        ...

    def result(self, timeout: float | None = None) -> T_co:
        """The result of a task that has ended."""
        ...

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """The error of a task that has ended."""
        ...


class AnyExecutor(Protocol):
    """The part of :class:`concurrent.futures.Executor` that is used."""

    def submit(self, fn: Callable[..., T], /, *args: Any) -> AnyFuture[T]:
        """Let a worker call the function."""
        ...


class Task(Generic[T]):
    """One task of the executor.

    Attributes:
        error: the error by which the task was lost, as one line; None where there is none.
    """

    def __init__(self, future: AnyFuture[T]) -> None:
        self._future = future
        self._result: T | None = None
        self.error: str | None = None

    @property
    def done(self) -> bool:
        """Whether the executor says that the task has ended."""
        return self._future.done()

    def cancel(self) -> None:
        """Tell the executor that nobody waits for the task. A task that runs goes on."""
        self._future.cancel()

    def result(self) -> T | None:
        """The result; None where the task was lost, or is pending."""
        if self.done and self._result is None and self.error is None:
            self._learn()
        return self._result

    def _learn(self) -> None:
        try:
            error = self._future.exception(timeout=0)
            if error is None:
                self._result = self._future.result(timeout=0)
        # The executor's own errors, such as CancelledError, and those of loading a foreign class.
        except Exception as exc:  # noqa: BLE001 - told as the reason of the loss
            error = exc
        if error is not None:  # SystemExit of a worker is a value here, and ends nothing
            self.error = told(error)


class Refused(Exception):
    """The executor takes no more tasks. Its text says why."""


async def submit(
    executor: AnyExecutor, fn: Callable[..., T], arguments: Sequence[tuple[Any, ...]]
) -> list[Task[T]]:
    """Submit a call for each tuple of arguments, in a thread: an executor may take its time.

    Raises:
        Refused: the executor takes no more tasks. Those before it are cancelled.
    """
    tasks: list[Task[T]] = []
    left = threading.Event()

    def submit_all() -> None:
        for each in arguments:
            tasks.append(Task(executor.submit(fn, *each)))
            if left.is_set():
                tasks[-1].cancel()
                return

    try:
        # Not waited for by a cancelled caller: some executors take a task only once a worker
        # is free.
        await anyio.to_thread.run_sync(submit_all, abandon_on_cancel=True)
    except BaseException as exc:
        left.set()
        for task in tasks:
            task.cancel()
        if isinstance(exc, Exception):
            raise Refused(told(exc)) from exc
        raise
    return tasks


async def all_done(tasks: Sequence[Task[Any]]) -> None:
    """Wait for the end of all tasks, as far as the executor tells."""
    while not all(task.done for task in tasks):  # noqa: ASYNC110 - a future sets no event of ours
        await anyio.sleep(LOOK)


async def any_done(tasks: Sequence[Task[Any]]) -> None:
    """Wait for the end of one of the tasks; for ever, where there are none."""
    while not any(task.done for task in tasks):  # noqa: ASYNC110 - a future sets no event of ours
        await anyio.sleep(LOOK)
