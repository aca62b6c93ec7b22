"""A caller's clients of httpx2; `pytest --httpx2 tests/client` runs all of the client's claims."""

from __future__ import annotations

from pathlib import Path

import pytest

from client import httpx2_client
from client.vendor import STEADY, all_whole
from segments_async import APIConnectionError, SegmentsClient, SubmitUnknownError
from segments_async.sandbox import (
    PAGE_ACCESS_TOKEN,
    PAGE_API_KEY,
    Fault,
    Sandbox,
    SandboxTransport,
)


def client_of(sandbox: Sandbox) -> SegmentsClient:
    transport = SandboxTransport(sandbox)
    return SegmentsClient(
        PAGE_API_KEY,
        PAGE_ACCESS_TOKEN,
        http_client=httpx2_client.client_of(transport),
        file_http_client=httpx2_client.client_of(transport),
    )


async def test_a_bulk_run(tmp_path: Path) -> None:
    """Files are whole, and faults on the way are mended, as with httpx."""
    sandbox = Sandbox(segments=12, rows=5, durations=STEADY, gateway_errors=0.03)
    sandbox.inject(Fault.LOST_AFTER, method="GET", path="/export/", times=3)
    sandbox.inject(Fault.cut(20), origin="files", times=3)
    async with client_of(sandbox) as client:
        report = await client.bulk_export(await client.list_segments(), tmp_path)
    assert all_whole(sandbox, report.exported)
    assert report.exported
    assert sandbox.record.duplicates() == {}
    assert sandbox.record.credentials_seen_by_files() == []


async def test_a_lost_answer_is_unknown() -> None:
    """A POST whose answer is lost is unknown, and is not sent again."""
    sandbox = Sandbox()
    sandbox.inject(Fault.LOST_AFTER, method="POST")
    async with client_of(sandbox) as client:
        with pytest.raises(SubmitUnknownError):
            await client.request_export(sandbox.segment_ids[0])
    assert len(sandbox.record.submits()) == 1


async def test_a_vendor_that_cannot_be_reached() -> None:
    """An error of httpx2 before the request left is mapped as one that was not sent."""
    sandbox = Sandbox()
    sandbox.inject(Fault.UNREACHABLE, times=99)
    async with client_of(sandbox) as client:
        with pytest.raises(APIConnectionError, match="ConnectError") as caught:
            await client.list_segments()
    assert caught.value.sent is False
