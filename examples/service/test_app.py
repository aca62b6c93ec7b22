"""The service's tests: no network, no waiting, and the vendor's faults in one line each."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from app import app

from segments_async import SegmentsClient
from segments_async.testing import SegmentsSandbox

SEGMENTS = 8

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.segments_virtual_time,
    pytest.mark.segments_sandbox(segments=SEGMENTS),
]


NIGHT = "/exports/night"


async def ended(service: httpx.AsyncClient) -> dict[str, Any]:
    """Start an export and wait for its end, as a page would."""
    await service.post(NIGHT)
    while (job := (await service.get(NIGHT)).json())["state"] == "running":  # noqa: ASYNC110 - over HTTP there is no event
        await anyio.sleep(30)
    return dict(job)


async def test_a_night(service: httpx.AsyncClient, segments_sandbox: SegmentsSandbox) -> None:
    """All segments are exported, though storage is away for ten minutes."""
    segments_sandbox.storage_away(600)
    job = await ended(service)
    assert job["state"] == "ended"
    assert job["progress"]["exported"] == SEGMENTS


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
    await service.post(NIGHT)
    await anyio.sleep(20)
    held = (await service.get(NIGHT)).json()["progress"]["held"]
    assert held["reason"] == "ticket_guard"
    assert 0 < held["seconds"] < 60


async def test_events(service: httpx.AsyncClient) -> None:
    """The stream of events ends with the run, and its last event says so and has every segment."""
    await service.post(NIGHT)
    stream = (await service.get(f"{NIGHT}/events")).text
    *changes, end = [event.splitlines() for event in stream.split("\n\n") if event]
    moves = [json.loads(line[6:])["progress"] for (line,) in changes if line.startswith("data: ")]
    assert [move["exported"] for move in moves] == sorted(move["exported"] for move in moves)
    assert end[0] == "event: end"
    assert json.loads(end[1][6:]) == (await service.get(NIGHT)).json()
    assert json.loads(end[1][6:])["progress"]["exported"] == SEGMENTS
    assert (await service.get("/exports/other/events")).status_code == 404


async def test_events_of_a_failed_export(
    service: httpx.AsyncClient, segments_sandbox: SegmentsSandbox
) -> None:
    """An export that could not begin has one event, with its error."""
    segments_sandbox.accept_only("another key", "another token")
    await service.post(NIGHT)
    event, data = (await service.get(f"{NIGHT}/events")).text.splitlines()[:2]
    assert event == "event: end"
    assert json.loads(data[6:])["state"] == "failed"
    assert "401" in json.loads(data[6:])["error"]


async def test_the_page(service: httpx.AsyncClient) -> None:
    """The page is there, loads nothing from anywhere, and finds each export in the list."""
    page = (await service.get("/")).text
    assert "default-src 'none'" in page
    assert re.findall(r"""(?:src|href)=|https?:|@import|url\(""", page) == []
    await service.post(NIGHT)
    assert list((await service.get("/exports")).json()) == ["night"]


@pytest.mark.parametrize("name", ["%2e%2e", "runs.db"])
async def test_a_bad_name(service: httpx.AsyncClient, tmp_path: Path, name: str) -> None:
    """A name that is no directory of its own beside the journal is refused, and writes nothing."""
    assert (await service.post(f"/exports/{name}")).status_code == 422
    assert [path async for path in anyio.Path(tmp_path).iterdir()] == []


@pytest.mark.segments_sandbox(segments=2)
async def test_a_failed_export_goes_on(
    service: httpx.AsyncClient, segments_sandbox: SegmentsSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After refused credentials, and after a fault of our own, POST starts the export again."""
    key, token = os.environ["SEGMENTS_API_KEY"], os.environ["SEGMENTS_ACCESS_TOKEN"]
    segments_sandbox.accept_only(key, "another token")
    assert (await ended(service))["state"] == "failed"
    segments_sandbox.accept_only(key, token)
    with monkeypatch.context() as patch:
        patch.setattr(SegmentsClient, "list_segments", None)
        assert (await ended(service))["error"] == "TypeError"
    assert (await ended(service))["progress"]["exported"] == 2


async def test_a_restart_in_mid_run(
    segments_sandbox: SegmentsSandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a restart, as by `--reload`, POST goes on: no segment is requested a second time."""
    monkeypatch.setenv("EXPORTS", str(tmp_path))
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://service") as service:
        async with app.router.lifespan_context(app):
            await service.post(NIGHT)
            job = app.state.exports.jobs["night"]
            await job.started.wait()
            async for progress in job.run.changes():
                if progress.pending == SEGMENTS:
                    break
        assert job.state == "failed"
        assert "POST again" in job.error
        async with app.router.lifespan_context(app):
            assert (await service.get(NIGHT)).status_code == 404
            assert (await ended(service))["progress"]["exported"] == SEGMENTS
    posts = [entry for entry in segments_sandbox.record.api() if entry.method == "POST"]
    assert len(posts) == SEGMENTS


@pytest.mark.segments_sandbox(segments=2)
async def test_few_exports_are_remembered(
    service: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oldest export that has ended makes room for another; one that is running doesn't."""
    monkeypatch.setattr("app.MOST_JOBS", 1)
    assert (await ended(service))["state"] == "ended"
    assert (await service.post("/exports/other")).status_code == 202
    assert (await service.get(NIGHT)).status_code == 404
    assert (await service.post(NIGHT)).status_code == 503
