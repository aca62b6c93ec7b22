"""Over real sockets: the client's own connections, and a server that breaks them."""

from __future__ import annotations

import math
from pathlib import Path

import anyio
import pytest

from client.vendor import all_whole, assert_at_rest, names_in
from segments_async import (
    AuthenticationError,
    DecodeError,
    DownloadError,
    NotFoundError,
    NotSubmittedError,
    Pacer,
    PermissionDeniedError,
    SegmentsClient,
    ServerError,
    SubmitUnknownError,
)
from segments_async.client import statistics_of
from segments_async.sandbox import (
    FREE_ACCESS_TOKEN,
    FREE_API_KEY,
    PAGE_ACCESS_TOKEN,
    PAGE_API_KEY,
    PAGE_EXPORT_ID,
    PAGE_SEGMENT_ID,
    Durations,
    Fault,
    Sandbox,
    TokenBucket,
)
from segments_async.sandbox.server import SandboxServer

pytestmark = pytest.mark.real_time

#: Seconds for what has no reason to hang, and no claim of how long anything takes.
PATIENCE = 600.0

QUICK = Durations(median=0.6, sigma=0.3)


async def _accounted_for(sandbox: Sandbox, to: Path) -> None:
    """Export all segments of the account, and check the result by the sandbox's record."""
    with SandboxServer(sandbox) as server:
        async with SegmentsClient(
            PAGE_API_KEY, PAGE_ACCESS_TOKEN, base_url=server.base_url
        ) as client:
            with anyio.fail_after(PATIENCE):
                segments = await client.list_segments()
                report = await client.bulk_export(segments, to)
            assert statistics_of(client)[0].free_slots == 64
        assert_at_rest(client, sandbox)
    record = sandbox.record
    outcomes = [*report.exported, *report.not_exported]
    assert sorted(o.segment_id for o in outcomes) == sorted(sandbox.segment_ids)
    assert all(isinstance(o.error, SubmitUnknownError) for o in report.not_exported)
    lost = {e.segment_id for e in record.submits() if e.lost != "no"}
    assert {o.segment_id for o in report.not_exported} == lost
    assert all_whole(sandbox, report.exported)
    assert record.duplicates() == {}
    assert record.most_at_once() <= 64
    assert record.credentials_seen_by_files() == []
    assert len(names_in(to)) == len(report.exported) + 1


async def test_sixty_segments_with_lost_answers(tmp_path: Path) -> None:
    """At 50 requests/s and with 1 % of the answers lost, each segment is accounted for."""
    await _accounted_for(
        Sandbox(
            segments=60,
            rows=50,
            durations=QUICK,
            limit=TokenBucket(50, 50),
            lost_before=0.005,
            lost_after=0.005,
            seed=3,
        ),
        tmp_path,
    )


@pytest.mark.counted(150, 500, "segments")
@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
async def test_five_hundred_segments_with_lost_answers(tmp_path: Path, count: int) -> None:
    """The main job: 500 segments at 50 requests/s with 1 % of the answers lost."""
    await _accounted_for(
        Sandbox(
            segments=count,
            rows=100,
            limit=TokenBucket(50, 100),
            lost_before=0.005,
            lost_after=0.005,
        ),
        tmp_path,
    )


async def test_errors_over_http(tmp_path: Path) -> None:
    """Each code of the page, and each broken connection, is the same error over real sockets."""
    with SandboxServer(Sandbox(segments=2, durations=Durations(median=0.1), rows=5)) as server:
        sandbox, url = server.sandbox, server.base_url
        async with SegmentsClient(PAGE_API_KEY, "wrong", base_url=url) as client:
            with pytest.raises(AuthenticationError):
                await client.list_segments()
        async with SegmentsClient(FREE_API_KEY, FREE_ACCESS_TOKEN, base_url=url) as client:
            with pytest.raises(PermissionDeniedError):
                await client.list_segments()
        async with SegmentsClient(
            PAGE_API_KEY, PAGE_ACCESS_TOKEN, base_url=url, request_timeout=3.0
        ) as client:
            with pytest.raises(NotFoundError):
                await client.get_export("no-such-export")
            with pytest.raises(NotFoundError):
                await client.request_export("no-such-segment")
            for fault in (Fault.LOST_BEFORE, Fault.LOST_AFTER, Fault.slow(60.0), Fault.cut(5)):
                sandbox.inject(fault, method="POST")
                with pytest.raises(SubmitUnknownError):
                    await client.request_export(PAGE_SEGMENT_ID)
            sandbox.inject(Fault.status(200, body="<html>"))
            with pytest.raises(DecodeError):
                await client.list_segments()
            for fault in (Fault.LOST_AFTER, Fault.cut(5)):
                sandbox.inject(fault)
                assert len(await client.list_segments()) == 2
            export = await client.wait_for_export(
                await client.request_export(sandbox.segment_ids[1])
            )
            sandbox.inject(Fault.status(403, body="denied"), origin="files")
            with pytest.raises(DownloadError):
                await client.download_export(export, tmp_path / "a.csv")
            sandbox.inject(Fault.content_length(10**6), origin="files")
            file = await client.download_export(export, tmp_path / "a.csv")
            assert file.sha256 == sandbox.sha256(sandbox.segment_ids[1])
            sandbox.inject(Fault.status(500))
            with pytest.raises(ServerError):
                await client.request_export(PAGE_SEGMENT_ID)
    assert len(sandbox.record.submits(PAGE_SEGMENT_ID)) == 5
    assert sandbox.faults_left() == 0


async def test_a_vendor_that_isnt_there_was_sent_nothing(tmp_path: Path) -> None:
    """A refused connection isn't a lost answer: the POST may be tried until the timeout."""
    with SandboxServer(Sandbox()) as server:
        url = server.base_url
    async with SegmentsClient(PAGE_API_KEY, PAGE_ACCESS_TOKEN, base_url=url) as client:
        with pytest.raises(NotSubmittedError):
            await client.export(PAGE_SEGMENT_ID, tmp_path / "a.csv", timeout=0.3)


@pytest.mark.counted(200, 1_000, "callers")
async def test_a_thousand_callers_wait_on_one_client(count: int) -> None:
    """All callers get an answer, and never more than 64 requests are on the wire."""
    with SandboxServer(Sandbox()) as server:
        async with SegmentsClient(
            PAGE_API_KEY, PAGE_ACCESS_TOKEN, base_url=server.base_url, pacer=Pacer(rate=math.inf)
        ) as client:
            with anyio.fail_after(PATIENCE):
                async with anyio.create_task_group() as tasks:
                    for _ in range(count):
                        tasks.start_soon(client.get_export, PAGE_EXPORT_ID)
    assert len(server.sandbox.record.polls()) == count
    assert server.sandbox.record.most_at_once() <= 64


async def test_leaving_a_run_closes_its_connections(tmp_path: Path) -> None:
    """A run left with requests and downloads on the wire leaves a usable client."""
    sandbox = Sandbox(segments=40, rows=20_000, latency=0.2, durations=Durations(median=0.1))
    with SandboxServer(sandbox) as server:
        async with SegmentsClient(
            PAGE_API_KEY, PAGE_ACCESS_TOKEN, base_url=server.base_url
        ) as client:
            with anyio.fail_after(PATIENCE):
                async with client.open_bulk_export(sandbox.segment_ids, tmp_path) as run:
                    async for _ in run:
                        break
                assert statistics_of(client)[0].free_slots == 64
                assert len(await client.list_segments()) == 40
    # What a download had brought stays for the next one: a part and its sidecar, never one alone.
    names = set(names_in(tmp_path))
    parts = {name.removesuffix(".json") for name in names if ".part" in name}
    assert all({part, f"{part}.json"} <= names for part in parts)
    assert sandbox.record.duplicates() == {}
