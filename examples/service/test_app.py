"""The service's tests: no network, no waiting, and the vendor's faults in one line each."""

from __future__ import annotations

import json
from typing import Any

import anyio
import httpx
import pytest

from segments_async.testing import SegmentsSandbox

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.segments_virtual_time,
    pytest.mark.segments_sandbox(segments=20),
]


async def ended(service: httpx.AsyncClient) -> dict[str, Any]:
    """Start an export and wait for its end, as a page would."""
    await service.post("/exports/night")
    while (job := (await service.get("/exports/night")).json())["state"] == "running":  # noqa: ASYNC110 - over HTTP there is no event
        await anyio.sleep(30)
    return dict(job)


async def test_a_night(service: httpx.AsyncClient, segments_sandbox: SegmentsSandbox) -> None:
    """All segments are exported, though storage is away for ten minutes."""
    segments_sandbox.storage_away(600)
    job = await ended(service)
    assert job["state"] == "ended"
    assert job["progress"]["exported"] == 20


async def test_a_lost_answer(service: httpx.AsyncClient, segments_sandbox: SegmentsSandbox) -> None:
    """The segment whose answer was lost is reported; it isn't asked for a second time."""
    segments_sandbox.lose_answer(segment=segments_sandbox.segment_ids[3])
    job = await ended(service)
    assert [o["error"]["type"] for o in job["not_exported"]] == ["SubmitUnknownError"]


async def test_why_nothing_moves(
    service: httpx.AsyncClient, segments_sandbox: SegmentsSandbox
) -> None:
    """In the minute after a 500, the status says why nothing moves, and until when."""
    segments_sandbox.internal_error("poll")
    await service.post("/exports/night")
    await anyio.sleep(20)
    held = (await service.get("/exports/night")).json()["progress"]["held"]
    assert held["reason"] == "ticket_guard"
    assert 0 < held["seconds"] < 60


async def test_events(service: httpx.AsyncClient) -> None:
    """The stream of events ends with the run, and its last event has every segment."""
    await service.post("/exports/night")
    stream = (await service.get("/exports/night/events")).text
    events = [json.loads(line[6:]) for line in stream.splitlines() if line]
    assert events[-1]["exported"] == 20
    assert (await service.get("/exports/other/events")).status_code == 404
