"""The tasks of a worker: one says whether the worker can work at a run, the other works a batch.

Each is a plain function of this module, which an executor pickles by name: a worker needs this
library. A task has an event loop of its own.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from functools import partial
from queue import SimpleQueue
from typing import Any

import anyio
import attrs

from segments_async._run.batch_session import BatchSession, enter_batch
from segments_async._run.request import RunRequest, bulk_export
from segments_async._run.resources import account_of
from segments_async._run.telemetry import run_logged
from segments_async._sansio.api.credentials import BASE_URL
from segments_async._sansio.jobs.workers import WorkerFacts, refusal
from segments_async._sansio.pace.pacer import Pacer
from segments_async.client import API_KEY, SegmentsClient
from segments_async.cluster.machine import machine, sees_files, sees_journal
from segments_async.cluster.task import (
    Batch,
    BatchEnd,
    Place,
    WorkerOptions,
    name_of_attempt,
    portable,
)
from segments_async.errors import ConfigurationError, SegmentsError
from segments_async.results import Exported

#: Seconds that a process has for leaving its batch: one whose parent is gone, or that was told to
#: end by a signal.
_LEAVING = 10.0

#: Has an item once this process is to end. Its `put` may be called in a signal handler: that of an
#: Event waits for ever where one signal interrupts the handler of another.
_told_to_end: SimpleQueue[None] = SimpleQueue()
_leaving = threading.Event()
_idle = threading.Event()
_idle.set()


def facts(place: Place, client: WorkerOptions, attempt: str = "") -> WorkerFacts:
    """Whether this worker can work at a run: its machine, its account, and what it sees.

    Args:
        client: keywords of the worker's client.
        attempt: as of `Batch`.
    """
    del attempt
    account, problem = None, None
    try:
        _client(client)
        account = account_of(os.environ.get("SEGMENTS_BASE_URL") or BASE_URL, os.environ[API_KEY])
    except ConfigurationError as error:
        problem = str(error)
    return WorkerFacts(
        machine=machine(),
        account=account,
        problem=problem,
        sees_files=sees_files(place),
        sees_journal=sees_journal(place),
    )


def work(batch: Batch) -> BatchEnd:
    """Work at a batch, to its end, or until the coordinator is gone."""
    _idle.clear()
    try:
        if _leaving.is_set():
            return BatchEnd(left=True)  # the process ends in a moment
        # Again, since the executor may have started other workers than those that were asked.
        worker = facts(batch.place, batch.client)
        problem = refusal(batch.coordinator, worker, account=batch.account)
        if problem is not None:
            return BatchEnd(refusal=problem)
        return anyio.run(partial(_work, batch))
    except Exception as error:  # noqa: BLE001 - told to the coordinator, in a class that it can load
        return BatchEnd(error=portable(error))
    finally:
        _idle.set()


async def _work(batch: Batch) -> BatchEnd:
    request = _request(batch)
    async with _client(batch.client) as client:
        resources = client._resources  # pyright: ignore[reportPrivateUsage]
        entered = await enter_batch(
            resources, request, batch.round, member=name_of_attempt(batch.attempt)
        )
        session = BatchSession[Exported](resources, request, entered, _leaving.is_set)
        await run_logged(session, len(request.segments))
        error = session.outcomes.error
        return BatchEnd(
            error=None if error is None else portable(error),
            left=session.left,
            requests=resources.gate.requests,
            throttled=resources.gate.throttled,
        )


def _request(batch: Batch) -> RunRequest:
    request = bulk_export(
        batch.segments,
        batch.place.location,
        journal=batch.place.journal,
        run=batch.run,
        shared=True,
        **batch.options,
    )
    assert request.destination is not None
    return attrs.evolve(request, destination=request.destination.with_names(batch.files))


def _client(options: WorkerOptions) -> SegmentsClient:
    return SegmentsClient.from_env(**_keywords(options))


def _keywords(options: WorkerOptions) -> dict[str, Any]:
    keywords: dict[str, Any] = dict(options)
    rate = keywords.pop("rate", None)
    if rate is not None:
        keywords["pacer"] = Pacer(rate=rate)
    return keywords


def check_options(options: WorkerOptions) -> None:
    """Refuse, before they travel, keywords that no worker's client can be made with.

    Raises:
        ConfigurationError: another keyword, such as one of a credential, or a wrong value.
    """
    unknown = sorted(options.keys() - WorkerOptions.__annotations__.keys())
    if unknown:
        known = ", ".join(WorkerOptions.__annotations__)
        raise ConfigurationError(f"client: no keyword {unknown[0]!r}; there are {known}")
    # No credentials: nothing is sent.
    SegmentsClient("key", "token", **_keywords(options))


def end_with_parent() -> None:
    """End this process when its parent is gone, in a thread: after the batch has been left.

    An idle process of a pool waits for ever at a pipe whose other end it holds itself.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        raise SegmentsError("this process was not started by multiprocessing")

    def watch() -> None:
        parent.join()
        _told_to_end.put(None)

    threading.Thread(target=watch, name="watch parent", daemon=True).start()
    threading.Thread(target=_end, name="end process", daemon=True).start()


def leave_on_signals() -> None:
    """After SIGTERM and SIGHUP, end this process when the batch has been left; ignore SIGINT.

    A closed terminal, `timeout` and a service manager send theirs to the parent and to all of its
    workers. A worker that died at once would leave POSTs on the wire, and their exports unknown.
    A signal that is ignored stays ignored: SIGHUP is, under `nohup`.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _on_signal)


def _on_signal(*_: object) -> None:
    _told_to_end.put(None)


def _end() -> None:
    _told_to_end.get()
    _leaving.set()
    _idle.wait(_LEAVING)
    time.sleep(0.1)  # for the result on its way into a pipe, which may be broken
    os._exit(1)
