"""The client remembers how long a segment's exports took."""

from __future__ import annotations

import pytest

from client.vendor import connected
from segments_async import Pacer
from segments_async.sandbox import Durations, Sandbox

pytestmark = pytest.mark.alternating


async def test_what_took_long_is_submitted_first_the_next_time() -> None:
    """In a second run on the same client, the longest of the first run go first."""
    sandbox = Sandbox(segments=20, durations=Durations(20.0, 1.0, 600.0))
    async with connected(sandbox, pacer=Pacer(rate=10)) as client:
        await client.bulk_export(sandbox.segment_ids, None)
        await client.bulk_export(sandbox.segment_ids, None)
    second = [entry.segment_id for entry in sandbox.record.submits()][20:]
    took = {one: int(sandbox.duration(one, 0) * 1000) for one in sandbox.segment_ids}
    assert second == sorted(second, key=lambda one: -took[one or ""])
