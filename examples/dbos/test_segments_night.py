"""The workflow in DBOS: its process is killed, and the next one goes on.

DBOS has an environment of its own: `.ci/workflows` makes one, and runs this file there. Elsewhere
this file is skipped.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from importlib.metadata import distributions
from pathlib import Path

import pytest

from segments_async.sandbox import PAGE_ACCESS_TOKEN, PAGE_API_KEY, Durations, Sandbox
from segments_async.sandbox.server import SandboxServer

pytestmark = pytest.mark.skipif(
    not list(distributions(name="dbos")),
    reason="DBOS has an environment of its own: .ci/workflows",
)

HERE = Path(__file__).parent
PATIENCE = 120.0  # seconds, for a test that hangs

#: Starts the night, or finds it there; prints its result.
PROGRAM = """
from datetime import UTC, datetime
import segments_night
from dbos import DBOS, SetWorkflowID

segments_night.launch()
with SetWorkflowID("night"):
    handle = DBOS.start_workflow(segments_night.night, datetime(2026, 11, 26, tzinfo=UTC), None)
print(handle.get_result())
DBOS.destroy()
"""


def test_a_killed_process(tmp_path: Path) -> None:
    """The run of a killed process is gone on with by the next one; no export is made twice."""
    sandbox = Sandbox(segments=4, rows=3, durations=Durations(median=4.0, sigma=0))
    with SandboxServer(sandbox) as server:
        environment = {
            **os.environ,
            "SEGMENTS_API_KEY": PAGE_API_KEY,
            "SEGMENTS_ACCESS_TOKEN": PAGE_ACCESS_TOKEN,
            "SEGMENTS_BASE_URL": server.base_url,
            "NIGHT_FILES": str(tmp_path / "files"),
            "NIGHT_DATABASE": f"sqlite:///{tmp_path}/night.db",
            "NIGHT_JOURNAL": str(tmp_path / "runs.db"),
        }
        command = [sys.executable, "-c", PROGRAM]
        until = time.monotonic() + PATIENCE
        with subprocess.Popen(command, env=environment, cwd=HERE) as first:
            while len({entry.export_id for entry in sandbox.record.polls()}) < 4:
                assert first.poll() is None
                assert time.monotonic() < until
                time.sleep(0.02)
            first.kill()
        again = subprocess.run(
            command, env=environment, cwd=HERE, capture_output=True, text=True, timeout=PATIENCE
        )
    assert "{'exported': 4, 'not_exported': 0}" in again.stdout, again.stderr
    files = (tmp_path / "files").glob("*.csv")
    assert {f.read_bytes() for f in files} == {sandbox.content(s) for s in sandbox.segment_ids}
    assert len(sandbox.record.submits()) == 4
