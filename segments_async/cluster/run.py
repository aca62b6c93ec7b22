"""`export_on`: a bulk export on the workers of an executor."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from contextlib import AsyncExitStack, ExitStack
from types import TracebackType
from typing import Unpack

import anyio
import anyio.to_thread

from segments_async._run.bulk_run import BulkRun
from segments_async._run.request import (
    ExportOptions,
    RunRequest,
    StrPath,
    bulk_export,
    shows_options,
)
from segments_async._run.resources import progress_before_start
from segments_async._run.run_session import RunSession
from segments_async._run.shared_session import longest_first
from segments_async._sansio.arguments import check_at_least_one
from segments_async._sansio.jobs.workers import WorkerFacts, refusal
from segments_async.cluster.coordinator import Coordinator
from segments_async.cluster.machine import check_travels, machine, recognizable
from segments_async.cluster.task import Batch, Place, WorkerOptions
from segments_async.cluster.tasks import AnyExecutor, Refused, Task, all_done, submit
from segments_async.cluster.worker import check_options, facts
from segments_async.errors import ConfigurationError
from segments_async.models import Segment
from segments_async.results import Exported, Progress

#: More segments of one task are too many rows of one transaction.
_LARGEST = 2000

#: Workers that are asked before the first request; fewer where the executor has fewer. Each batch
#: asks its own worker again.
_ASKED = 4

#: Attempts to ask the workers: one may die meanwhile.
_ATTEMPTS = 3


class ClusterRun(BulkRun[Exported]):
    """A bulk export on the workers of an executor: made by :func:`export_on`.

    It is used as any :class:`~segments_async.BulkRun`: entered, iterated over, asked for its
    progress and its report. Its outcomes are those of the whole run. Its
    :meth:`~segments_async.BulkRun.activity` is that of all workers, with 0 for `bytes`. Of its
    :attr:`progress`, `requests` and `throttled` count the batches that have ended, `bytes` counts
    whole files, and `rate` and `eta_seconds` are None: each worker has a pace of its own.
    """

    def __init__(
        self,
        request: RunRequest,
        executor: AnyExecutor,
        *,
        batch: int,
        retries: int,
        client: WorkerOptions,
    ) -> None:
        self._request = request
        self._executor = executor
        self._batch = batch
        self._retries = retries
        self._client = client
        self._session: RunSession[Exported] | None = None
        self._tasks = None
        self._stack = AsyncExitStack()

    @property
    def progress(self) -> Progress:
        """How far the run is, by the journal as it was last read."""
        if self._session is None:
            return progress_before_start(len(self._request.segments), None, None)
        return self._session.view.progress()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            await super().__aexit__(exc_type, exc, traceback)
        finally:
            with anyio.CancelScope(shield=True):
                await self._stack.aclose()

    async def _opened(self) -> RunSession[Exported]:
        try:
            return await self._open()
        except BaseException:
            with anyio.CancelScope(shield=True):
                await self._stack.aclose()
            raise

    async def _open(self) -> Coordinator:
        """Check everything before a worker sends a request, and open the session."""
        # Not at the top: SQLAlchemy is an extra.
        from segments_async._journal.sql import SqlJournal

        request = self._request
        destination, where = request.destination, request.journal
        assert destination is not None
        assert where is not None
        assert request.run is not None
        await destination.with_names({}).obstacles(())
        files = ExitStack()
        self._stack.push_async_callback(anyio.to_thread.run_sync, files.close)
        place = await anyio.to_thread.run_sync(
            files.enter_context, recognizable(destination.location, where.reveal())
        )
        account = await self._account(place)
        journal = await SqlJournal.open(where, account=account)
        shared = await journal.coordinate(
            destination=destination.location, name=request.run, spec=request.spec
        )
        try:
            order = await longest_first(journal, request)
        except BaseException:
            with anyio.CancelScope(shield=True):
                await shared.release()
            raise
        template = Batch(
            place=place,
            coordinator=machine(),
            account=account,
            run=request.run,
            round=shared.joined.round,
            segments=(),
            files={},
            options=request.stored_options,
            client=self._client,
        )
        return Coordinator(
            request,
            shared,
            self._executor,
            order,
            template,
            batch=self._batch,
            retries=self._retries,
        )

    async def _account(self, place: Place) -> str:
        """The account of the workers.

        Raises:
            ConfigurationError: a worker can't work at the run.
        """
        account: str | None = None
        for worker in await self._ask(place):
            problem = refusal(machine(), worker, account=account)
            if problem is not None:
                raise ConfigurationError(f"{problem}. Nothing was sent")
            account = worker.account
        assert account is not None
        return account

    async def _ask(self, place: Place) -> list[WorkerFacts]:
        error: str | None = None
        for _ in range(_ATTEMPTS):
            tasks = await self._called(place)
            found = [worker for task in tasks if (worker := task.result()) is not None]
            if found:
                return found
            error = tasks[0].error
        raise ConfigurationError(
            f"the executor's workers can't call a function of segments_async ({error}): install "
            "the same version there. Nothing was sent"
        )

    async def _called(self, place: Place) -> list[Task[WorkerFacts]]:
        try:
            calls = [(place, self._client, uuid.uuid4().hex) for _ in range(_ASKED)]
            tasks = await submit(self._executor, facts, calls)
        except Refused as error:
            text = f"the executor takes no tasks ({error}). Nothing was sent"
            raise ConfigurationError(text) from error
        try:
            await all_done(tasks)
        finally:
            for task in tasks:
                task.cancel()
        return tasks


@shows_options(ExportOptions)
def export_on(
    executor: AnyExecutor,
    segments: Iterable[Segment | str],
    to: StrPath,
    *,
    journal: StrPath,
    run: str,
    batch: int = 200,
    retries: int = 3,
    client: WorkerOptions | None = None,
    **options: Unpack[ExportOptions],
) -> ClusterRun:
    """Export many segments on the workers of an executor.

    ::

        with ProcessPool(4) as executor:
            async with export_on(
                executor, segments, "exports/", journal="runs.db", run="2026-11-26"
            ) as run:
                async for outcome in run: ...

    Each batch of segments is a task of the executor, with an event loop and a client of its own,
    from ``SegmentsClient.from_env()``: the credentials are in each worker's environment, and never
    travel. This process needs none, and sends nothing to the vendor. Outcomes are read from the
    journal, about a second after a worker has recorded them. A batch whose worker dies is given out
    again, and no export is requested twice.

    Args:
        executor: a :class:`concurrent.futures.Executor`, or an object with its ``submit``:
            :class:`ProcessPool`, ``distributed.Client.get_executor()`` and others. It is used, and
            not shut down. It needs at least one worker that is free for this run.
        segments: segments or their ids.
        to: where the files and `manifest.jsonl` go: a directory that all workers see, or the URL of
            object storage. A :class:`~segments_async.Destination` of one's own doesn't travel.
        journal: the path of a SQLite file where all workers are processes of this machine,
            otherwise the URL of a PostgreSQL database, without a password: it travels.
        run: the shared run's name, by which a later call, a process with ``shared=True`` and the
            command's ``--join`` go on with the run.
        batch: segments of one task, at most 2000. As many exports as the workers' batches have can
            be at the vendor at once.
        retries: how often a batch is given out again after its worker died and none of its segments
            had come to an end since. Then the rest of the batch is told as resumable, and the other
            batches go on.
        client: keywords of each worker's client, such as ``{"downloads": 4}``.
        **options: as of ``SegmentsClient.open_bulk_export()``; `timeout` is for the whole call.

    Raises:
        ConfigurationError: options that make no sense; on entering, a worker without credentials,
            of another version or account, or that can't reach the journal or the files. Nothing
            was sent.
        JournalError: on entering: another process gives out this run's segments (``locked``), or
            the journal is damaged...
    """
    check_at_least_one("batch", batch)
    if batch > _LARGEST:
        raise ConfigurationError(f"batch: at most {_LARGEST}, not {batch}")
    if retries < 0:
        raise ConfigurationError(f"retries: 0 or more, not {retries!r}")
    check_options(client or {})
    request = bulk_export(segments, to, journal=journal, run=run, shared=True, **options)
    del journal  # an error below shows this frame's variables to error reporters
    assert request.journal is not None
    check_travels(request.journal)
    return ClusterRun(request, executor, batch=batch, retries=retries, client=client or {})
