"""Storage is away for minutes while exports are complete: one probe goes, and all are exported."""

from __future__ import annotations

import collections
import logging
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from segments_async import DownloadError, SegmentsClient
from segments_async.sandbox import (
    PAGE_ACCESS_TOKEN,
    PAGE_API_KEY,
    PAGE_SEGMENT_ID,
    Durations,
    Fault,
    FileHost,
    Sandbox,
    SandboxTransport,
)

from .vendor import connected, is_whole, names_in

pytestmark = pytest.mark.alternating

QUICK = Durations(median=0.2, sigma=0.1, longest=0.5)


class Away(httpx.AsyncBaseTransport):
    """Storage that is away from the first request on, for so many seconds."""

    def __init__(self, way: str, seconds: float) -> None:
        self._way = way
        self._seconds = seconds
        self.began: float | None = None
        self.asked: list[float] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        now = anyio.current_time()
        self.began = now if self.began is None else self.began
        if now - self.began < self._seconds:
            self.asked.append(now - self.began)
            if self._way == "silent":
                await anyio.sleep(30)
                raise httpx.ReadTimeout("", request=request)
            if self._way == "unreachable":
                raise httpx.ConnectError("Network is unreachable", request=request)
            if self._way == "a login page":
                return httpx.Response(200, html="<!doctype html><form>Who are you?</form>")
            return httpx.Response(int(self._way))
        return httpx.Response(200, content=b"user_id\n1\n", headers={"etag": '"a"'})


async def run_through(storage: Away, tmp_path: Path, segments: int, **options: Any) -> Any:
    sandbox = Sandbox(segments=segments, durations=QUICK)
    api = httpx.AsyncClient(transport=SandboxTransport(sandbox))
    files = httpx.AsyncClient(transport=storage)
    async with (
        api,
        files,
        SegmentsClient(
            PAGE_API_KEY, PAGE_ACCESS_TOKEN, http_client=api, file_http_client=files, **options
        ) as client,
    ):
        report = await client.bulk_export(await client.list_segments(), tmp_path)
    assert sandbox.record.duplicates() == {}
    return report


@pytest.mark.parametrize(
    ("way", "minutes"),
    [
        ("unreachable", 1),
        ("unreachable", 30),
        ("503", 5),
        ("silent", 5),
        ("500", 30),
        ("a login page", 5),
    ],
)
async def test_all_are_exported(way: str, minutes: int, tmp_path: Path) -> None:
    """200 exports complete during an outage of storage: each is exported, after few requests."""
    storage = Away(way, minutes * 60)
    report = await run_through(storage, tmp_path, 200)
    assert len(report.exported) == 200
    # Eight at once at the beginning; then one at a time, every 15 to 30 s after the first minute.
    assert len(storage.asked) < 32 + 5 * minutes
    at_once = collections.Counter(round(at) for at in storage.asked if at > 90)
    assert not at_once or max(at_once.values()) == 1


async def test_one_file_alone_waits_too(tmp_path: Path) -> None:
    """A single download survives minutes without a network, and keeps its bytes."""
    sandbox = Sandbox(rows=3000, durations=QUICK)
    sandbox.inject(Fault.cut(150_000), origin="files")
    sandbox.inject(Fault.UNREACHABLE, origin="files", times=20)
    async with connected(sandbox) as client:
        file = await client.export(PAGE_SEGMENT_ID, tmp_path / "a.csv")
    assert is_whole(sandbox, file.path, PAGE_SEGMENT_ID)
    assert (sandbox.record.files()[-1].headers or {})["range"] == "bytes=150000-"


async def test_a_link_that_expires_meanwhile_is_renewed(tmp_path: Path) -> None:
    """Links are good for a minute, and storage is unavailable for many."""
    sandbox = Sandbox(segments=3, rows=5, durations=QUICK, link_lifetime=60)
    sandbox.inject(Fault.UNREACHABLE, origin="files", times=30)
    async with connected(sandbox) as client:
        report = await client.bulk_export(sandbox.segment_ids, tmp_path)
    assert report.ok


async def test_one_that_cannot_be_had_holds_nobody(tmp_path: Path) -> None:
    """A file whose requests alone fail ends after a few tries, and delays no run."""
    sandbox = Sandbox(segments=20, durations=QUICK)
    odd = sandbox.segment_ids[0]
    sandbox.inject(Fault.UNREACHABLE, origin="files", segment_id=odd, times=10**6)
    sandbox.inject(Fault.slow(20.0), origin="files", times=200)
    async with connected(sandbox, downloads=2) as client:
        report = await client.bulk_export(sandbox.segment_ids, tmp_path)
        assert anyio.current_time() < 1200
    assert len(report.exported) == 19
    [missing] = report.not_exported
    assert isinstance(missing.error, DownloadError)
    assert missing.error.reason == "broken"


async def test_it_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """An outage of storage logs one warning at its beginning and one at its end, for no file."""
    with caplog.at_level(logging.WARNING, logger="segments_async"):
        report = await run_through(Away("unreachable", 300), tmp_path, 20)
    assert report.ok
    said = [record.getMessage() for record in caplog.records]
    assert [line.split(" (")[0] for line in said] == [
        "storage is unavailable", "storage is available again"
    ]  # fmt: skip


async def test_links_expire_again_and_again(tmp_path: Path) -> None:
    """A download continues as long as each new link brings bytes."""
    sandbox = Sandbox(rows=3000, durations=QUICK, link_lifetime=2, file_host=FileHost(rate=100_000))
    sandbox.inject(Fault.cut(50_000), origin="files", times=6)
    async with connected(sandbox) as client:
        export = await client.wait_for_export(await client.request_export(PAGE_SEGMENT_ID))
        polls = len(sandbox.record.polls())
        await anyio.sleep(3)
        file = await client.download_export(export, tmp_path / "a.csv")
        assert is_whole(sandbox, file.path, PAGE_SEGMENT_ID)
        assert len(sandbox.record.polls()) > polls + 1
    assert names_in(tmp_path) == ["a.csv"]
