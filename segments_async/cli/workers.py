"""The workers of `export --workers` and `export --dask`."""

from __future__ import annotations

import math
import os
from collections.abc import AsyncGenerator, Sequence
from concurrent.futures import Executor
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread

from segments_async import Segment
from segments_async.cli.account import ACCESS_TOKEN, API_KEY
from segments_async.cli.arguments import Workers
from segments_async.cli.exit_codes import UsageError
from segments_async.cli.request import ExportRequest

if TYPE_CHECKING:
    from segments_async.cluster import ClusterRun, WorkerOptions

#: Segments of one batch: about two batches for each process, unless they would be too small or
#: too large.
_LEAST, _MOST = 20, 200


@asynccontextmanager
async def workers_of(chosen: Workers) -> AsyncGenerator[Executor]:
    """The executor, whose processes or connection end with the block.

    Raises:
        UsageError: a credential isn't in the environment, or there is no such cluster.
    """
    for name in (API_KEY, ACCESS_TOKEN):
        if not os.environ.get(name):
            raise UsageError(f"{name} is not set: workers read credentials from the environment")
    if chosen.dask is not None:
        async with _cluster(chosen.dask) as executor:
            yield executor
        return
    # Not at the top, as below: most commands have no workers.
    from segments_async.cluster import ProcessPool

    pool = ProcessPool(chosen.workers or 1)
    try:
        yield pool
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(partial(pool.shutdown, cancel_futures=True))


@asynccontextmanager
async def _cluster(address: str) -> AsyncGenerator[Executor]:
    try:
        from distributed import Client
    except ModuleNotFoundError as error:
        raise UsageError(
            f"--dask needs {error.name}: pip install 'segments-async[cli,dask]'"
        ) from error
    try:
        client: Any = await anyio.to_thread.run_sync(
            partial(Client, address, set_as_default=False), abandon_on_cancel=True
        )
    except (OSError, ValueError) as error:
        raise UsageError(f"--dask {address}: no scheduler answers there ({error})") from error
    try:
        yield client.get_executor()
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(client.close)


def run_on(
    executor: Executor,
    segments: Sequence[Segment | str],
    request: ExportRequest,
    keywords: dict[str, Any],
) -> ClusterRun:
    """The run on these workers.

    Args:
        executor: of the workers.
        keywords: of the bulk export.
    """
    from segments_async.cluster import export_on

    number, pace = request.workers.workers, request.pace
    client: WorkerOptions = {}
    if pace.downloads is not None:
        client["downloads"] = pace.downloads
    if pace.poll_share is not None:
        client["poll_share"] = pace.poll_share
    if request.hosts.patterns is not None:
        client["file_hosts"] = request.hosts.patterns
    batch = _MOST
    if number is not None:
        batch = max(_LEAST, min(_MOST, math.ceil(len(segments) / (2 * number))))
        # Both are of the whole run: each of the processes gets an equal part.
        if pace.rate is not None:
            client["rate"] = pace.rate / number
        if pace.max_pending is not None:
            client["max_pending"] = max(1, pace.max_pending // number)
    return export_on(executor, segments, request.to, batch=batch, client=client, **keywords)
