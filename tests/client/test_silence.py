"""A vendor that takes requests and stops answering them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import anyio
import pytest

from client.vendor import STEADY, all_whole, connected
from segments_async import Pacer, SubmitUnknownError
from segments_async.sandbox import Fault, Sandbox

pytestmark = pytest.mark.alternating

POST: dict[str, Any] = {"method": "POST", "path": "export/"}


async def test_a_vendor_that_falls_silent_is_sent_no_more(tmp_path: Path) -> None:
    """With 200 exports at 20/s, only POSTs sent before the silence was noticed are unknown."""
    sandbox = Sandbox(segments=200, rows=2, durations=STEADY, latency=0.05)
    frozen = Fault(lost="after", delay=1e6)
    async with (
        connected(sandbox, pacer=Pacer(rate=20), request_timeout=30) as client,
        client.open_bulk_export(sandbox.segment_ids, tmp_path) as run,
    ):
        await anyio.sleep(3.0)
        before = len(sandbox.record.api())
        sandbox.inject(frozen, times=math.inf)
        await anyio.sleep(60.0)
        during = sandbox.record.api()[before:]
        sandbox.clear_faults()
        report = await run.report()
    unknown = [o for o in report.not_exported if isinstance(o.error, SubmitUnknownError)]
    assert len(during) <= 25, "a vendor that answers nothing for a minute"
    assert len(unknown) == len(report.not_exported) <= 20
    assert len(report.exported) == 200 - len(unknown)
    assert all_whole(sandbox, report.exported)
    assert sandbox.record.duplicates() == {}


async def test_after_a_silence_one_harmless_request_goes_first(tmp_path: Path) -> None:
    """After a silence a poll goes first: it can be repeated."""
    sandbox = Sandbox(segments=100, rows=2, durations=STEADY, latency=0.05)
    async with (
        connected(sandbox, pacer=Pacer(rate=20), request_timeout=30) as client,
        client.open_bulk_export(sandbox.segment_ids, tmp_path) as run,
    ):
        await anyio.sleep(3.0)
        sandbox.inject(Fault(lost="after", delay=1e6), times=math.inf)
        await anyio.sleep(33.0)
        before = len(sandbox.record.api())
        await anyio.sleep(60.0)
        probes = sandbox.record.api()[before:]
        sandbox.clear_faults()
        await run.report()
    assert 1 <= len(probes) <= 4
    assert {entry.kind for entry in probes} == {"poll"}


async def test_slow_answers_hold_nobody() -> None:
    """Answers that take three seconds delay no request."""
    sandbox = Sandbox(segments=100, durations=STEADY, latency=3.0)
    async with connected(sandbox, pacer=Pacer(rate=10)) as client:
        report = await client.bulk_export(sandbox.segment_ids, None)
    assert report.ok
    assert max(entry.at for entry in sandbox.record.api()) <= 1.3 * 200 / 10 + 10
