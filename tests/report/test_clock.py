"""The pace of a run as its sessions see it, whatever the wall clock does."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import time_machine
from client.vendor import STEADY, connected

from report.test_sources import data_of
from segments_async.sandbox import Sandbox


async def test_a_clock_that_was_set_back_between_two_sessions(tmp_path: Path) -> None:
    """The points of the later session come after those of the earlier one, and none is lost."""
    sandbox = Sandbox(segments=4, rows=3, durations=STEADY)
    where, out = tmp_path / "runs.db", tmp_path / "out"
    async with connected(sandbox, max_pending=1) as client:
        segments = await client.list_segments()
        async with client.open_bulk_export(segments, out, journal=where, run="x") as run:
            async for progress in run.changes(0.1):
                if progress.exported:
                    break
        with time_machine.travel(datetime.now(UTC) - timedelta(hours=1), tick=False):
            report = await client.bulk_export(segments, out, journal=where, run="x")
    assert report.ok
    pace = data_of(report.to_html())["pace"]
    ends = [end for _, end, *_ in pace]
    assert ends == sorted(ends)
    assert all(begin <= end for begin, end, *_ in pace)
    assert sum(requests for _, _, _, requests, *_ in pace) == len(sandbox.record.api()) - 1
