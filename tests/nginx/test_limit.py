"""The limit of nginx, found and kept over real sockets."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest
from client.vendor import all_whole

from nginx.proxy import LimitingProxy
from segments_async import SegmentsClient
from segments_async.sandbox import PAGE_ACCESS_TOKEN, PAGE_API_KEY, Sandbox
from segments_async.sandbox.server import SandboxServer

pytestmark = [pytest.mark.real_time, pytest.mark.needs("nginx")]

SEGMENTS = 80


@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
async def test_eighty_segments_through_a_limit_of_nginx(tmp_path: Path) -> None:
    """At 12 requests/s all are exported, and at most 15 + 1 % of the requests were refused."""
    (tmp_path / "nginx").mkdir()
    with (
        SandboxServer(Sandbox(segments=SEGMENTS, rows=20)) as server,
        LimitingProxy(server.base_url, tmp_path / "nginx", rate=12, burst=20) as proxy,
    ):
        async with SegmentsClient(
            PAGE_API_KEY, PAGE_ACCESS_TOKEN, base_url=proxy.base_url
        ) as client:
            with anyio.fail_after(600):
                segments = await client.list_segments()
                report = await client.bulk_export(segments, tmp_path / "exports")
    assert len(report.exported) == SEGMENTS
    assert all_whole(server.sandbox, report.exported)

    statuses = [status for status, _, _ in proxy.answers()]
    assert set(statuses) == {200, 429}, "the limit was met, and nothing but it refused anything"
    assert statuses.count(429) <= 15 + len(statuses) / 100
    assert statuses.count(429) == report.progress.throttled
    # Requests that nginx refused never arrived, and no export was made twice.
    record = server.sandbox.record
    assert len(record.api()) == statuses.count(200)
    assert record.duplicates() == {}
