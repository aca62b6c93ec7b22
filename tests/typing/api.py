"""Uses of the public API, for type checkers; never run."""

from __future__ import annotations

import math
import ssl
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, assert_type

import httpx

from segments_async import (
    Activity,
    APIStatusError,
    APITimeoutError,
    BulkExportError,
    BulkReport,
    BulkRun,
    Completed,
    DownloadError,
    Export,
    ExportBody,
    Exported,
    ExportedFile,
    ExportStatus,
    ExportTimeoutError,
    Held,
    HeldReason,
    Journal,
    NotExported,
    OutputFormat,
    Pacer,
    Progress,
    RateLimitedError,
    RunSpec,
    RunStatus,
    Segment,
    SegmentsClient,
    SegmentsError,
    SegmentType,
    file_names,
    without_secret,
)
from segments_async.testing import SegmentsSandbox, virtual_time


async def make() -> None:
    SegmentsClient("key", "token")
    SegmentsClient.from_env()
    SegmentsClient.from_env(base_url="http://127.0.0.1:8420", poll_share=0.5)
    SegmentsClient(
        "key",
        "token",
        base_url="https://vendor.example",
        pacer=Pacer(rate=math.inf),
        poll_share=0.0,
        max_pending=10,
        downloads=4,
        request_timeout=10,
        file_hosts=["files.example"],
        http_client=httpx.AsyncClient(),
        file_http_client=httpx.AsyncClient(),
        ssl_context=ssl.create_default_context(),
        allow_insecure=True,
    )
    client = SegmentsClient("key", "token", pacer=None, max_pending=None, ssl_context=None)
    async with client as same:
        assert_type(same, SegmentsClient)
    await client.aclose()


async def single(client: SegmentsClient, segment: Segment, export: Export) -> None:
    assert_type(await client.list_segments(), list[Segment])
    assert_type(await client.request_export(segment), Export)
    assert_type(await client.request_export("id", output_format=OutputFormat.CSV), Export)
    assert_type(await client.get_export(export), Export)
    assert_type(await client.get_export("id"), Export)
    assert_type(await client.wait_for_export(export, timeout=3600), Export)
    assert_type(await client.wait_for_export("id"), Export)
    assert_type(await client.download_export(export, "a.csv"), ExportedFile)
    assert_type(await client.download_export("id", Path("a.csv"), overwrite=True), ExportedFile)
    assert_type(await client.export(segment, "a.csv"), ExportedFile)
    assert_type(
        await client.export("id", Path("a.csv"), timeout=None, overwrite=True), ExportedFile
    )
    async with client.open_export(export) as body:
        assert_type(body, ExportBody)
        assert_type(body.export, Export)
        assert_type(body.iter_bytes(), AsyncIterator[bytes])
        async for row in body.rows():
            assert_type(row, dict[str, str])


async def bulk_to_files(client: SegmentsClient, segments: list[Segment]) -> None:
    run = client.open_bulk_export(
        segments,
        Path("exports"),
        timeout=3600,
        export_timeout=600,
        expected_seconds={"id": 60.0},
        overwrite=True,
    )
    assert_type(run, BulkRun[Exported])
    async with run as entered:
        assert_type(entered, BulkRun[Exported])
        assert_type(entered.progress, Progress)
        assert_type(entered.name, str)
        assert_type(entered.activity(), list[Activity])
        async for outcome in entered:
            assert_type(outcome, Exported | NotExported)
            match outcome:
                case Exported(segment_id=segment_id, file=file):
                    assert_type(segment_id, str)
                    assert_type(file, ExportedFile)
                case NotExported(submitted=submitted):
                    assert_type(submitted, Literal["no", "yes", "maybe"])
                    assert_type(outcome.error, SegmentsError)
        assert_type(await entered.report(), BulkReport[Exported])
    report = await client.bulk_export((s.segment_id for s in segments), "exports")
    assert_type(report, BulkReport[Exported])
    assert_type([done.file.path for done in report.exported], list[Path])
    assert_type(report.ok, bool)
    assert_type(report.started_at, datetime)
    report.raise_for_errors()


async def bulk_to_links(client: SegmentsClient, segments: list[Segment | str]) -> None:
    async with client.open_bulk_export(segments, None) as run:
        assert_type(run, BulkRun[Completed])
        async for outcome in run:
            assert_type(outcome, Completed | NotExported)
    assert_type(await client.bulk_export(segments, None), BulkReport[Completed])


async def watched(client: SegmentsClient, run: BulkRun[Exported]) -> None:
    assert_type(client.held, Held | None)
    async for progress in run.changes(0.5):
        if progress.held is not None:
            assert_type(progress.held.reason, HeldReason)
            assert_type(
                (progress.held.seconds, progress.held.until), tuple[float | None, datetime | None]
            )
        assert_type(progress.to_dict(), dict[str, object])
    try:
        await client.list_segments(timeout=5)
    except APITimeoutError as error:
        assert_type(error.seconds, float)
    async with SegmentsClient.from_env(downloads=4, pacer=None) as other:
        assert_type(other, SegmentsClient)


def tested(segments_sandbox: SegmentsSandbox) -> None:
    segments_sandbox.throttle(3, retry_after=2)
    segments_sandbox.lose_answer("submit", segment=segments_sandbox.segment_ids[0])
    segments_sandbox.allow("duplicate_exports")
    assert_type(segments_sandbox.client(), SegmentsClient)
    assert_type(segments_sandbox.content("an-id"), bytes)
    assert_type(virtual_time("trio"), tuple[str, dict[str, Any]])


def values(segment: Segment, export: Export, file: ExportedFile) -> None:
    assert_type(segment.type, SegmentType | str | None)
    assert_type(segment.last_run, datetime | None)
    assert_type(export.status, ExportStatus | str)
    assert_type(export.end_time, datetime | None)
    assert_type(export.filename, str | None)
    assert_type((file.size, file.sha256, file.verified), tuple[int, str, bool])


def errors(error: Exception) -> None:
    if isinstance(error, RateLimitedError):
        assert_type(error.scope, str | None)
    if isinstance(error, APIStatusError):
        assert_type((error.status_code, error.body), tuple[int, str])
        assert_type(error.retry_after, float | None)
    if isinstance(error, ExportTimeoutError):
        assert_type(error.export, Export | None)
    if isinstance(error, DownloadError):
        assert_type(error.export, Export | None)
        assert_type(error.reason == "disk_full", bool)
    if isinstance(error, BulkExportError):
        assert_type(error.report.not_exported, Sequence[NotExported])


async def look_after(client: SegmentsClient, segments: Sequence[Segment]) -> None:
    journal = await Journal.open(Path("runs.db"), api_key="key", base_url="https://vendor.example")
    for run in await journal.runs(to="exports"):
        assert_type(run, RunStatus)
        spec = await journal.spec(run.name)
        if spec is not None:
            assert_type(spec, RunSpec)
            report = await client.bulk_export(
                spec.segments, run.destination, journal="runs.db", run=run.name, **spec.options
            )
            assert_type(report.ok, bool)
        assert_type(await journal.segments(run.name), list[Segment | str])
    async with journal.ticket_guard(client) as until:
        assert_type(until, datetime | None)
    assert_type(await journal.unchanged(segments, "exports"), set[str])
    assert_type(await journal.prune(datetime.now(UTC)), int)
    assert_type(file_names(segments), dict[str, str])
    assert_type(without_secret("s3://bucket/key"), str)
