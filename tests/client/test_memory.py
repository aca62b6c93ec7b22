"""The client's memory."""

from __future__ import annotations

import gc
import json
import tracemalloc
import uuid

import anyio
import httpx
import pytest

from segments_async import Pacer, SegmentsClient
from segments_async.sandbox import PAGE_ACCESS_TOKEN, PAGE_API_KEY

pytestmark = pytest.mark.alternating

EXPORTS = 1_000


class _EverPending(httpx.AsyncBaseTransport):
    """A vendor that keeps nothing, so that all memory is the client's."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await anyio.lowlevel.checkpoint()
        if request.method == "POST":
            segment_id = json.loads(request.content)["segmentId"]
            export_id = f"export-of-{segment_id}"
        else:
            export_id = request.url.path.rpartition("/")[2]
            segment_id = export_id.removeprefix("export-of-")
        body = {
            "exportId": export_id,
            "segment": {
                "segmentId": segment_id,
                "name": "Registrations in the last 7 days",
                "description": "Users who performed a Registration event in the last 7 days",
                "category": "Registrations",
                "projectId": PAGE_API_KEY,
                "type": "Dynamic",
                "lastRun": "2026-04-09T12:25:06.000Z",
            },
            "status": "PENDING",
            "startTime": "2026-04-09T14:45:07.000Z",
            "endTime": None,
            "filename": None,
        }
        return httpx.Response(200, json=body)


async def test_a_waiting_export_takes_three_kibibytes_at_most() -> None:
    """An export that waits at the vendor takes at most 3 KiB of the client's memory."""
    ids = [str(uuid.UUID(int=number)) for number in range(EXPORTS)]
    async with (
        httpx.AsyncClient(transport=_EverPending()) as http,
        SegmentsClient(
            PAGE_API_KEY,
            PAGE_ACCESS_TOKEN,
            http_client=http,
            pacer=Pacer(rate=2000),
            poll_share=0.0,
        ) as client,
    ):
        gc.collect()
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            async with client.open_bulk_export(ids, None) as run:
                await anyio.sleep(0.5 + EXPORTS / 2000)
                assert run.progress.pending == EXPORTS
                gc.collect()
                after = tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()
    assert (after - before) / EXPORTS <= 3 * 1024
