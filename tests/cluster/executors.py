"""Executors: with the faults that public reports tell of, and with processes for their workers."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from segments_async.cluster.task import Batch
from segments_async.cluster.worker import work

Submit = Callable[..., Future[Any]]
Fault = Callable[[Batch, int, Submit], Future[Any]]


class Remembering(ThreadPoolExecutor):
    """An executor of threads that remembers the futures of its tasks."""

    def __init__(self, workers: int) -> None:
        super().__init__(workers)
        self.futures: list[Future[Any]] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future = super().submit(fn, *args, **kwargs)
        self.futures.append(future)
        return future


class Faulty(Executor):
    """An executor of threads, with a fault.

    Args:
        fault: gets each batch, its number, and what submits it truly; returns the batch's future.
    """

    def __init__(
        self, fault: Callable[[Batch, int, Submit], Future[Any]], workers: int = 2
    ) -> None:
        self.threads = ThreadPoolExecutor(workers)
        self._fault = fault
        self.batches: list[Batch] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        if fn is not work:
            return self.threads.submit(fn, *args, **kwargs)
        [batch] = args
        self.batches.append(batch)
        return self._fault(batch, len(self.batches), self.threads.submit)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self.threads.shutdown(wait, cancel_futures=cancel_futures)


def broken(message: str = "A process in the process pool was terminated abruptly") -> Future[Any]:
    """The future of a task whose process died."""
    future: Future[Any] = Future()
    future.set_exception(BrokenProcessPool(message))
    return future


def endless(running: Future[Any] | None = None) -> Future[Any]:
    """A future that never ends, whatever became of the task."""
    del running
    return Future()


def once_broken() -> Fault:
    """Each batch runs, and is called lost at its first time: then it runs twice at once."""
    seen: set[str] = set()

    def fault(batch: Batch, _: int, submit: Submit) -> Future[Any]:
        started = threading.Event()
        running = submit(_announced, started, batch)
        if batch.files.keys() & seen:
            return running
        seen.update(batch.files)
        started.wait(10)
        return broken()

    return fault


def _announced(started: threading.Event, batch: Batch) -> Any:
    started.set()
    return work(batch)


def children() -> set[int]:
    """The processes that this process has started, as an executor does, and that have not ended."""
    return {one.pid for one in multiprocessing.active_children() if one.pid is not None}


@contextlib.contextmanager
def dask_cluster(workers: int) -> Iterator[tuple[Any, Any]]:
    """A Dask client, and its cluster of worker processes on this machine."""
    from distributed import Client, LocalCluster

    with (
        LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
            silence_logs=logging.CRITICAL,
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client, cluster
