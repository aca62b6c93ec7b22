"""The workflow in Temporal's development server: a worker is killed, and another one goes on.

Temporal's packages have an environment of their own: `.ci/workflows` makes one, and runs this file
there. Elsewhere this file is skipped.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import distributions
from pathlib import Path

import pytest

from segments_async.sandbox import PAGE_ACCESS_TOKEN, PAGE_API_KEY, Durations, Sandbox
from segments_async.sandbox.server import SandboxServer

pytestmark = pytest.mark.skipif(
    not list(distributions(name="temporalio")),
    reason="Temporal has an environment of its own: .ci/workflows",
)

HERE = Path(__file__).parent
PATIENCE = 120.0  # seconds, for a test that hangs


def test_a_killed_worker(tmp_path: Path) -> None:
    """The run of a killed worker is gone on with by another one, and no export is made twice."""
    asyncio.run(_a_killed_worker(tmp_path))


async def _a_killed_worker(tmp_path: Path) -> None:
    from temporalio.testing import WorkflowEnvironment

    program = str(Path(sys.executable).with_name("temporal"))
    sandbox = Sandbox(segments=4, rows=3, durations=Durations(median=4.0, sigma=0))
    async with await WorkflowEnvironment.start_local(dev_server_existing_path=program) as temporal:
        with SandboxServer(sandbox) as server, contextlib.ExitStack() as stack:
            environment = {
                **os.environ,
                "SEGMENTS_API_KEY": PAGE_API_KEY,
                "SEGMENTS_ACCESS_TOKEN": PAGE_ACCESS_TOKEN,
                "SEGMENTS_BASE_URL": server.base_url,
                "TEMPORAL_ADDRESS": temporal.client.service_client.config.target_host,
                "NIGHT_FILES": str(tmp_path / "files"),
                "NIGHT_JOURNAL": str(tmp_path / "runs.db"),
            }

            def worker() -> subprocess.Popen[bytes]:
                command = [sys.executable, HERE / "segments_night.py"]
                process = stack.enter_context(subprocess.Popen(command, env=environment))
                stack.callback(process.kill)
                return process

            first = worker()
            handle = await temporal.client.start_workflow(
                "Night", "2026-11-26", id="segments", task_queue="segments"
            )
            await _until(lambda: len({entry.export_id for entry in sandbox.record.polls()}) == 4)
            first.kill()
            worker()
            counts = await asyncio.wait_for(handle.result(), PATIENCE)
    assert counts == {"exported": 4, "not_exported": 0}
    files = (tmp_path / "files").glob("*.csv")
    assert {f.read_bytes() for f in files} == {sandbox.content(s) for s in sandbox.segment_ids}
    assert len(sandbox.record.submits()) == 4


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - of another process
            await asyncio.sleep(0.02)
