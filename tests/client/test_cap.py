"""A vendor that caps running exports, and hints in headers."""

from __future__ import annotations

import anyio
import pytest

from client.vendor import connected
from segments_async.sandbox import Durations, Fault, Sandbox, TokenBucket

pytestmark = pytest.mark.alternating


async def test_a_cap_on_jobs_is_not_taken_for_a_low_rate() -> None:
    """If submits are refused and polls pass, submits wait for ends, and polls keep their pace."""
    sandbox = Sandbox(segments=100, max_pending=10, limit=TokenBucket(50, 100), latency=0.08)
    async with connected(sandbox) as client:
        began = anyio.current_time()
        report = await client.bulk_export(sandbox.segment_ids, None)
        took = anyio.current_time() - began
    assert report.ok
    work = sum(sandbox.duration(segment_id) for segment_id in sandbox.segment_ids)
    # Ten at a time; taken for a rate, the refusals make it 1.7 times as long.
    assert took < 1.4 * work / 10
    assert len(sandbox.record.throttled()) <= 20


async def test_submits_that_alone_are_refused_for_a_while_leave_no_cap() -> None:
    """After 30 s of 429 to submits alone, in which all exports end, submits get their pace back."""
    sandbox = Sandbox(
        segments=100, durations=Durations(10.0, 0.3, 30.0), limit=TokenBucket(20, 20), latency=0.1
    )
    sandbox.inject(Fault.status(429), method="POST", since=3.0, until=33.0)
    async with connected(sandbox) as client:
        report = await client.bulk_export(sandbox.segment_ids, None)
        assert anyio.current_time() < 90  # 400 s with a cap that grows by single exports
    assert report.ok


async def test_a_told_cap_is_never_exceeded() -> None:
    """With max_pending, no submit is refused by the same cap of the vendor's."""
    sandbox = Sandbox(segments=40, max_pending=10, latency=0.08)
    async with connected(sandbox, max_pending=10) as client:
        report = await client.bulk_export(sandbox.segment_ids, None)
    assert report.ok
    assert sandbox.record.throttled() == []


async def test_a_used_up_budget_is_waited_for() -> None:
    """After an answer with nothing remaining for 30 s, the next request goes 30 s later."""
    sandbox = Sandbox(segments=1)
    sandbox.inject(
        Fault.status(
            200, headers={"ratelimit-remaining": "0", "ratelimit-reset": "30"}, body=b"[]"
        ),
        path="list",
    )
    async with connected(sandbox) as client:
        await client.list_segments()
        await client.list_segments()
    first, second = sandbox.record.lists()
    assert second.at - first.at >= 30
