"""The progress of a run that goes on with exports of an earlier session."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from client.vendor import connected
from segments_async.sandbox import Durations, Sandbox

pytestmark = pytest.mark.alternating


async def test_a_resumed_run_shows_its_exports_and_when_it_ends(tmp_path: Path) -> None:
    """From its start, the exports that run are shown, and there is an estimate of their end.

    The estimate rests on the exports that ended in the earlier session.
    """
    sandbox = Sandbox(segments=20, rows=5, durations=Durations(median=30, sigma=0.5, longest=200))
    to, journal = tmp_path / "out", tmp_path / "runs.db"
    async with connected(sandbox) as client:
        segments = await client.list_segments()
        await client.bulk_export(segments, to, journal=journal, timeout=40)
    async with (
        connected(sandbox) as client,
        client.open_bulk_export(segments, to, journal=journal) as run,
    ):
        await anyio.sleep(0.3)
        progress, shown = run.progress, run.activity()
        report = await run.report()
    assert 0 < progress.pending < 20
    assert len(shown) == progress.pending + progress.fetching
    assert progress.eta_seconds is not None
    assert progress.eta_seconds > 5.0
    assert report.ok
