"""A bulk export on the workers of a Dask cluster, one of which is killed on the way."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from dask import config
from reliability.judge import Contents, half_files

from segments_async import NotExported
from segments_async.sandbox import Durations, Sandbox, TokenBucket

from .conftest import Serve
from .executors import dask_cluster
from .test_export_on import cluster_run, posted_once

pytestmark = [
    pytest.mark.real_time,
    # Of distributed, whose sockets and processes the garbage collector finds after a kill.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """One backend: a cluster takes seconds to start, and has a loop of its own."""
    return "trio", {}


@pytest.fixture
def sandbox(serve: Serve) -> Sandbox:
    """An account whose limit makes a run last for some seconds."""
    limit = TokenBucket(30, 5)
    return serve(Sandbox(segments=40, rows=5, durations=Durations(0.3, 0.5), limit=limit))


@pytest.fixture
def client(sandbox: Sandbox) -> Iterator[Any]:
    """A cluster of two worker processes, which have the credentials in their environment."""
    # 0: a worker's death is told as KilledWorker at once, and not after three more workers.
    options = {"distributed.scheduler.allowed-failures": 0, "distributed.worker.profile.enabled": 0}
    with config.set(options), dask_cluster(2) as (made, _):
        yield made


@pytest.mark.whole
async def test_a_killed_worker_costs_a_retry(sandbox: Sandbox, client: Any, tmp_path: Path) -> None:
    """SIGKILL on the way: no second POST, each segment has an outcome, no half file."""
    workers = await anyio.to_thread.run_sync(client.run, os.getpid)
    outcomes = []
    async with cluster_run(client.get_executor(), sandbox, tmp_path, batch=8) as run:
        with anyio.fail_after(300):
            async for outcome in run:
                outcomes.append(outcome)
                if len(outcomes) == 5:
                    os.kill(next(iter(workers.values())), signal.SIGKILL)
    assert posted_once(sandbox)
    assert sorted(one.segment_id for one in outcomes) == sorted(sandbox.segment_ids)
    unknown = [one for one in outcomes if isinstance(one, NotExported)]
    assert {type(one.error).__name__ for one in unknown} <= {"SubmitUnknownError"}
    assert len(unknown) <= 3
    assert half_files(Contents(sandbox), tmp_path / "out") == []
