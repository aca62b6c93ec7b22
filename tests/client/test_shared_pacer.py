"""Claims about one pacer that several clients of an account share."""

from __future__ import annotations

from client.vendor import connected
from segments_async import Pacer
from segments_async.sandbox import Durations, Sandbox, TokenBucket


async def test_a_429_to_one_client_holds_the_other() -> None:
    """Two clients with one pacer, and one account: together they keep to its limit."""
    limit = TokenBucket(rate=10, burst=20)
    sandbox = Sandbox(segments=200, limit=limit, durations=Durations(median=2.0, sigma=0))
    ids, pacer = sandbox.segment_ids, Pacer()
    async with (
        connected(sandbox, pacer=pacer) as one,
        connected(sandbox, pacer=pacer) as other,
        one.open_bulk_export(ids[:100], None) as first,
        other.open_bulk_export(ids[100:], None) as second,
    ):
        reports = [await first.report(), await second.report()]
    assert all(report.ok for report in reports)
    assert len(sandbox.record.throttled()) <= 15 + 0.01 * len(sandbox.record.api())
    assert max(e.at for e in sandbox.record.api()) <= 1.1 * 2 * len(ids) / limit.rate


async def test_an_end_of_a_block_is_told_to_the_other_client() -> None:
    """When one client's probe passes, the other's request goes an interval later."""
    limit = TokenBucket(rate=1, burst=1)
    sandbox = Sandbox(segments=2, limit=limit, durations=Durations(median=0.0, sigma=0))
    pacer = Pacer()
    async with (
        connected(sandbox, pacer=pacer) as one,
        connected(sandbox, pacer=pacer) as other,
        one.open_bulk_export(sandbox.segment_ids[:1], None) as first,
        other.open_bulk_export(sandbox.segment_ids[1:], None) as second,
    ):
        assert (await first.report()).ok
        assert (await second.report()).ok
    granted = [entry.at for entry in sandbox.record.api() if entry.status == 200]
    assert len(granted) == 4
    assert granted[-1] <= 6.0, "without it, the other client would look again up to 7 s later"
