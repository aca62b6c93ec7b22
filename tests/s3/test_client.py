"""Exports whose links are s3://, from the vendor's answer to the file."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from client.test_input import other
from client.vendor import connected, names_in

from s3.fake import FakeS3
from segments_async import DownloadError, SegmentsClient
from segments_async.sandbox import (
    PAGE_ACCESS_TOKEN,
    PAGE_API_KEY,
    PAGE_EXPORT_ID,
    PAGE_SEGMENT_ID,
    Durations,
    Fault,
    Sandbox,
)
from segments_async.sandbox.server import SandboxServer

BASIC = base64.b64encode(f"{PAGE_API_KEY}:{PAGE_ACCESS_TOKEN}".encode()).decode()


@contextlib.asynccontextmanager
async def vendor_with(link: str) -> AsyncIterator[SegmentsClient]:
    """A client, over real sockets, of a vendor whose exports have this link."""
    sandbox = Sandbox(durations=Durations(median=0.01, sigma=0))
    sandbox.inject(Fault.changed(other(filename=link)), method="GET", path="export/", times=99)
    with SandboxServer(sandbox) as server:
        async with SegmentsClient(
            PAGE_API_KEY, PAGE_ACCESS_TOKEN, base_url=server.base_url
        ) as client:
            yield client
    assert sandbox.record.credentials_seen_by_files() == []


@pytest.mark.real_time
@pytest.mark.usefixtures("credentials")
async def test_an_export_in_s3(fake: FakeS3, tmp_path: Path) -> None:
    """The file is whole, and storage saw nothing of the API's credentials."""
    fake.region = "eu-central-1"
    fake.objects["bucket", "a b/\u00fc.csv"] = content = b"user_id\n" + b"1\n" * 200_000
    async with vendor_with("s3://bucket/a b/\u00fc.csv") as client:
        export = await client.wait_for_export(PAGE_EXPORT_ID)
        file = await client.download_export(export, tmp_path / "a.csv")
    assert file.path.read_bytes() == content
    assert file.sha256 == hashlib.sha256(content).hexdigest()
    assert fake.codes == [(400, "AuthorizationQueryParametersError"), (200, "")]
    for secret in (PAGE_API_KEY, PAGE_ACCESS_TOKEN, BASIC):
        assert secret not in f"{fake.asked}"
    assert all("authorization" not in asked.headers for asked in fake.asked)


@pytest.mark.real_time
@pytest.mark.usefixtures("credentials")
@pytest.mark.parametrize(
    ("link", "reason"),
    [("s3://bucket/a.csv", "denied"), ("s3://Bad_Bucket/a.csv", "link_refused")],
)
async def test_what_cannot_be_had(
    link: str, reason: str, fake: FakeS3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error has its reason, and neither message nor files have a signature."""
    target = tmp_path / "out"
    target.mkdir()
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
    async with vendor_with(link) as client:
        export = await client.wait_for_export(PAGE_EXPORT_ID)
        with pytest.raises(DownloadError) as caught:
            await client.download_export(export, target / "a.csv")
    assert caught.value.reason == reason
    assert "X-Amz" not in f"{caught.value}{caught.value.__cause__!r}"
    assert names_in(target) == []


async def test_the_pages_own_link_without_botocore(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Without the extra, an s3:// link is refused with the command that installs it."""
    monkeypatch.setitem(sys.modules, "botocore.session", None)
    async with connected(Sandbox()) as client:
        with pytest.raises(DownloadError, match=r"pip install 'segments-async\[s3\]'") as caught:
            await client.download_export(PAGE_EXPORT_ID, tmp_path / "a.csv")
    assert caught.value.reason == "link_refused"


async def test_the_pages_own_link_is_asked_for_at_its_bucket(tmp_path: Path) -> None:
    """Without credentials, the caller's client sends an unsigned request to the bucket's host."""
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(str(request.url))
        return httpx.Response(200, content=b"user_id\n1\n")

    async with (
        httpx.AsyncClient(transport=httpx.MockTransport(answer)) as files,
        connected(Sandbox(), file_http_client=files) as client,
    ):
        file = await client.download_export(PAGE_EXPORT_ID, tmp_path / "a.csv")
    assert file.size == 10
    assert file.export.segment.segment_id == PAGE_SEGMENT_ID
    assert asked == [
        f"https://upload-bucket.s3.us-east-1.amazonaws.com/path/to/{PAGE_EXPORT_ID}.csv"
    ]
