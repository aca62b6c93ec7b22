"""A pool of processes of this machine that replaces each process that dies."""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator
from concurrent import futures
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from typing import Any, ParamSpec, TypeVar

import attrs

from segments_async._sansio.arguments import check_at_least_one
from segments_async.cluster.worker import end_with_parent, leave_on_signals

P = ParamSpec("P")
T = TypeVar("T")

#: Signals that reach the whole process group: Ctrl-C, `timeout` or a service manager, and a
#: terminal that was closed. Windows has no SIGHUP.
_TO_THE_GROUP = {
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
}


@attrs.frozen(eq=False)
class _Task:
    future: Future[Any]
    call: Callable[[], Any]


@attrs.define(eq=False)
class _Slot:
    """The place of one process. `pool`: None before its first task, and after its death."""

    pool: ProcessPoolExecutor | None = None
    busy: bool = False


class ProcessPool(Executor):
    """An executor of some processes, each of which is replaced where it dies.

    One killed process breaks a whole :class:`concurrent.futures.ProcessPoolExecutor`, and all of
    its tasks are lost. Here only the dead process's own task is lost, with a
    :class:`~concurrent.futures.process.BrokenProcessPool`.

    The processes are spawned, not forked: a fork copies locks that other threads hold. So the
    program's main module needs its ``if __name__ == "__main__":``. The processes ignore SIGINT,
    which Ctrl-C sends to the whole process group: the parent process tells them when to stop. After
    SIGTERM or SIGHUP a process leaves its batch, as a single process leaves its run, and ends. All
    of them end when the parent is gone, however it ended.

    Args:
        workers: how many processes.

    Raises:
        ConfigurationError: not at least one.
    """

    def __init__(self, workers: int) -> None:
        check_at_least_one("workers", workers)
        self.workers: int = workers
        self._slots = [_Slot() for _ in range(workers)]
        self._tasks: deque[_Task] = deque()
        self._unfinished: set[Future[Any]] = set()
        self._ended: list[ProcessPoolExecutor] = []
        self._lock = threading.RLock()
        self._closed = False
        self._awaited = False

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Let a process call the function, when one is free.

        Raises:
            RuntimeError: the pool is shut down.
        """
        future: Future[T] = Future()
        with self._lock:
            if self._closed:
                raise RuntimeError("cannot schedule new futures after shutdown")
            self._tasks.append(_Task(future, partial(fn, *args, **kwargs)))
            self._unfinished.add(future)
        self._start_tasks()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Accept no more tasks, and end the processes after those that were accepted.

        Args:
            wait: until all of them have ended.
            cancel_futures: cancel the tasks that no process has begun.
        """
        with self._lock:
            self._closed, self._awaited = True, wait
            waiting = list(self._tasks) if cancel_futures else []
            unfinished = set(self._unfinished)
        for task in waiting:
            task.future.cancel()
        self._start_tasks()
        try:
            if wait:
                futures.wait(unfinished)
        finally:
            self._awaited = False
            self._end_processes(wait=wait)

    # ----------------------------------------------------------------- tasks

    def _start_tasks(self) -> None:
        """Give tasks to the processes that are free."""
        while True:
            with self._lock:
                slot = next((one for one in self._slots if not one.busy), None)
                task = self._tasks.popleft() if slot is not None and self._tasks else None
                if slot is None or task is None:
                    return
                if not task.future.set_running_or_notify_cancel():
                    self._unfinished.discard(task.future)
                    continue
                slot.busy = True
            self._start(slot, task)

    def _start(self, slot: _Slot, task: _Task) -> None:
        try:
            started = self._given_to(slot, task)
        except Exception as error:  # noqa: BLE001 - no process can be started, whatever the reason
            self._replace(slot)
            self._settle(slot, task, None, error)
        else:
            started.add_done_callback(partial(self._on_done, slot, task))

    def _given_to(self, slot: _Slot, task: _Task) -> Future[Any]:
        if slot.pool is not None:
            try:
                return slot.pool.submit(task.call)
            except BrokenProcessPool:  # the process died while it was idle, and lost no task
                self._forget(slot)
        # The mask is inherited: no signal to the process group reaches a process that starts.
        with _blocked_signals():
            slot.pool = _process()
        # Again: `multiprocessing` starts its resource tracker with the first process, and unblocks
        # two of the signals then.
        with _blocked_signals():
            return slot.pool.submit(task.call)

    def _on_done(self, slot: _Slot, task: _Task, ended: Future[Any]) -> None:
        error = ended.exception()
        if isinstance(error, BrokenProcessPool):
            self._forget(slot)
        self._settle(slot, task, None if error is not None else ended.result(), error)
        self._start_tasks()
        # A call that waits ends the processes itself, and waits for their ends.
        if self._closed and not self._awaited:
            self._end_processes(wait=False)

    def _settle(self, slot: _Slot, task: _Task, result: Any, error: BaseException | None) -> None:
        with self._lock:
            slot.busy = False
            self._unfinished.discard(task.future)
        if error is None:
            task.future.set_result(result)
        else:
            task.future.set_exception(error)

    # ----------------------------------------------------------------- processes

    def _forget(self, slot: _Slot) -> None:
        """The process died, and its executor ends by itself.

        Since Python 3.12.1 a broken executor calls the callbacks of its futures under a lock that
        its `shutdown` and the end of its last reference take, too. So it is kept.
        """
        if slot.pool is not None:
            self._ended.append(slot.pool)
        slot.pool = None

    def _replace(self, slot: _Slot) -> None:
        """The process is gone: the next task of its slot starts another one."""
        pool, slot.pool = slot.pool, None
        if pool is not None:
            pool.shutdown(wait=False)

    def _end_processes(self, *, wait: bool) -> None:
        with self._lock:
            idle = [] if self._tasks else [one for one in self._slots if not one.busy]
            pools = [one.pool for one in idle if one.pool is not None]
        for pool in pools:
            pool.shutdown(wait=wait)


def _process() -> ProcessPoolExecutor:
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(1, mp_context=context, initializer=_begin)


def _begin() -> None:
    """The first call in each process."""
    end_with_parent()
    leave_on_signals()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _TO_THE_GROUP)


@contextlib.contextmanager
def _blocked_signals() -> Generator[None]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _TO_THE_GROUP)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
