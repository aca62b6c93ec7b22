"""A file on its way through breaks, changes and cancellations: whole in the end, or not there."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gzip
import hashlib
import os
import random
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import anyio.from_thread
import anyio.lowlevel
import anyio.to_thread
import attrs
import httpx
import pytest
from client.test_cancellation import Counted
from client.test_input import abandoned_body
from client.vendor import STEADY, connected, is_whole, names_in

from segments_async import (
    DownloadError,
    Export,
    ExportedFile,
    ExportTimeoutError,
    SegmentsClient,
)
from segments_async._files import download, fetch, part
from segments_async._files.digest import Bytes
from segments_async._files.target import LocalTarget, leave_part
from segments_async._http.clients import CallersClient
from segments_async._http.storage import Storage
from segments_async._sansio.files import progress_limit
from segments_async.sandbox import PAGE_SEGMENT_ID, Fault, FileHost, Sandbox, SandboxTransport

#: Most bodies here are left before their end.
pytestmark = abandoned_body

PART = ["a.csv.part", "a.csv.part.json"]

Fetch = Callable[..., Awaitable[ExportedFile]]


@contextlib.asynccontextmanager
async def exported(
    sandbox: Sandbox, files: httpx.AsyncClient | None = None
) -> AsyncIterator[tuple[Storage, Export]]:
    """A COMPLETE export, and the storage that has its file; storage never gets a credential."""
    transport = SandboxTransport(sandbox)
    async with (
        connected(sandbox) as client,
        httpx.AsyncClient(transport=transport) as http,
    ):
        export = await complete(client)
        clients = CallersClient(files or http)
        yield Storage(clients, lambda link: link, redirects=3, timeout=60.0), export
    assert sandbox.record.credentials_seen_by_files() == []


async def fetch_file(
    storage: Storage,
    export: Export,
    target: Path,
    *,
    progress: Callable[[int], None] = lambda _: None,
    slots: anyio.Semaphore | None = None,
) -> ExportedFile:
    """Over one connection, unless there are slots for more. Another link isn't to be had."""

    async def renew(export: Export) -> Export:
        return attrs.evolve(export, filename=None)

    return await fetch.fetch_file(
        storage,
        export,
        LocalTarget(target),
        progress=progress,
        slots=slots or anyio.Semaphore(0, max_value=1),
        renew=renew,
    )


async def complete(client: SegmentsClient) -> Export:
    return await client.wait_for_export(await client.request_export(PAGE_SEGMENT_ID))


def sandbox_of(rows: int, **host: Any) -> Sandbox:
    return Sandbox(rows=rows, durations=STEADY, file_host=FileHost(**host))


def sent(sandbox: Sandbox) -> int:
    """The number of bytes that storage sent, by storage's record."""
    return sum(entry.sent for entry in sandbox.record.files())


def asked(sandbox: Sandbox, header: str) -> list[str | None]:
    """The value of this header in each request to storage."""
    return [(entry.headers or {}).get(header) for entry in sandbox.record.files()]


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of some hundred kB have several batches."""
    monkeypatch.setattr(download, "BATCH", 50_000)


@pytest.fixture
def one_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    """An attempt without progress isn't repeated."""
    monkeypatch.setattr(progress_limit, "ATTEMPTS", 1)


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch, small_batches: None) -> None:
    """Files of a few MB count as large."""
    monkeypatch.setattr(download, "PARALLEL_FROM", 1_000_000)
    monkeypatch.setattr(download, "CHUNK", 250_000)


# --------------------------------------------------------------------- cut at every byte

#: A file of some 2 000 bytes.
CUTS = 17


EVERY_BYTE = pytest.mark.counted(every=29, of="bytes at which a body is cut")


@pytest.fixture
def step(anyio_backend_name: str, every: int) -> int:
    """The counted steps on one backend; at most every eleventh byte on the other."""
    return every if anyio_backend_name == "asyncio" else max(every, 11)


async def cut_everywhere(
    sandbox: Sandbox, target: Path, step: int, fault: Callable[[int, int], Fault]
) -> int:
    """Cut the body at each of its bytes, and count the downloads that accept it as whole."""
    accepted = 0
    async with exported(sandbox) as (storage, export):
        size = int((await _head(storage, export))["content-length"])
        assert size > 400
        for at in range(0, size, step):
            sandbox.inject(fault(at, size), origin="files")
            with contextlib.suppress(DownloadError):
                await fetch_file(storage, export, target)
                accepted += 1
        assert sandbox.faults_left() == 0
    return accepted


async def _head(storage: Storage, export: Export) -> Any:
    async with storage.get(export.filename or "") as answer:
        return answer.headers


@EVERY_BYTE
async def test_cut_anywhere_by_content_length(tmp_path: Path, step: int, one_attempt: None) -> None:
    """None of 2 000 cut bodies is accepted, and no part is left if it can't be continued."""
    sandbox = sandbox_of(CUTS, ranges=False)
    assert await cut_everywhere(sandbox, tmp_path / "a.csv", step, lambda at, _: Fault.cut(at)) == 0
    assert names_in(tmp_path) == []


@EVERY_BYTE
async def test_cut_anywhere_chunked(tmp_path: Path, step: int, one_attempt: None) -> None:
    """Without a length, the last chunk marks the end."""
    sandbox = sandbox_of(CUTS)
    cut = lambda at, _: Fault(cut_after=at, length=None)  # noqa: E731
    assert await cut_everywhere(sandbox, tmp_path / "a.csv", step, cut) == 0
    assert names_in(tmp_path) == []


@EVERY_BYTE
async def test_cut_anywhere_in_gzip(tmp_path: Path, step: int, one_attempt: None) -> None:
    """A cut gzip lacks its trailer, even if the length is that of the cut body."""
    sandbox = sandbox_of(CUTS, gzip=True)
    cut = lambda at, _: Fault.changed(lambda body: body[:at])  # noqa: E731
    assert await cut_everywhere(sandbox, tmp_path / "a.csv", step, cut) == 0
    assert names_in(tmp_path) == []


@EVERY_BYTE
async def test_cut_anywhere_and_gone_on(tmp_path: Path, step: int) -> None:
    """After a cut at any byte, the download continues there: no byte is sent twice."""
    sandbox = sandbox_of(CUTS)
    target = tmp_path / "a.csv"
    async with exported(sandbox) as (storage, export):
        size = len(sandbox.content(PAGE_SEGMENT_ID))
        for at in range(0, size, step):
            before = sent(sandbox)
            sandbox.inject(Fault.cut(at), origin="files")
            sandbox.inject(Fault.cut((size - at) // 2), origin="files")
            file = await fetch_file(storage, export, target)
            assert is_whole(sandbox, target, PAGE_SEGMENT_ID)
            assert file.sha256 == sandbox.sha256(PAGE_SEGMENT_ID)
            assert sent(sandbox) - before == size
    assert names_in(tmp_path) == ["a.csv"]


@pytest.mark.alternating
@pytest.mark.parametrize("seed", range(5))
async def test_broken_twenty_times_at_random(
    seed: int, tmp_path: Path, small_batches: None
) -> None:
    """The file is whole, and at most 1.2 times its bytes were sent."""
    sandbox = sandbox_of(10_000)
    size = len(sandbox.content(PAGE_SEGMENT_ID))
    chance = random.Random(seed)
    for _ in range(20):
        sandbox.inject(Fault.cut(chance.randrange(size // 12)), origin="files")
    async with exported(sandbox) as (storage, export):
        file = await fetch_file(storage, export, tmp_path / "a.csv")
    assert is_whole(sandbox, file.path, PAGE_SEGMENT_ID)
    assert file.sha256 == sandbox.sha256(PAGE_SEGMENT_ID)
    assert len(sandbox.record.files()) == 21
    assert size <= sent(sandbox) <= 1.2 * size
    assert names_in(tmp_path) == ["a.csv"]


# --------------------------------------------------------------------- what can't be continued

HOSTS: dict[str, dict[str, Any]] = {
    "no ranges": {"ranges": False},
    "no version": {"etag": None, "last_modified": False},
    "a weak version": {"etag": "weak", "last_modified": False},
    "gzip": {"gzip": True},
}


@pytest.mark.alternating
@pytest.mark.parametrize("host", HOSTS.values(), ids=HOSTS)
async def test_without_ranges_or_a_version_it_starts_over(
    host: dict[str, Any], tmp_path: Path, small_batches: None
) -> None:
    """Without ranges the whole file is requested each time."""
    sandbox = sandbox_of(3000, **host)
    sandbox.inject(Fault.cut(10_000), origin="files", times=3)
    async with exported(sandbox) as (storage, export):
        file = await fetch_file(storage, export, tmp_path / "a.csv")
    assert is_whole(sandbox, file.path, PAGE_SEGMENT_ID)
    assert asked(sandbox, "range") == [None] * 4
    assert names_in(tmp_path) == ["a.csv"]


VERSIONS: dict[str, tuple[dict[str, Any], str]] = {
    "by ETag": ({}, "if-match"),
    "by an ETag of parts": ({"etag": "parts"}, "if-match"),
    "by date": ({"etag": None}, "if-range"),
    "by date beside a weak ETag": ({"etag": "weak"}, "if-range"),
}


@pytest.mark.alternating
@pytest.mark.parametrize("changes", [False, True], ids=["the same", "changed"])
@pytest.mark.parametrize(("host", "condition"), VERSIONS.values(), ids=VERSIONS)
async def test_a_changed_file_starts_over(
    host: dict[str, Any], condition: str, changes: bool, tmp_path: Path, small_batches: None
) -> None:
    """The bytes of two versions never meet in one file; of one version none is sent twice."""
    sandbox = sandbox_of(3000, **host)
    sandbox.inject(Fault.cut(150_000), origin="files")
    size = len(sandbox.content(PAGE_SEGMENT_ID))
    async with exported(sandbox) as (storage, export):
        await anyio.sleep(10)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(fetch_file, storage, export, tmp_path / "a.csv")
            while not sandbox.record.files() or sandbox.record.files()[0].ended_at is None:
                await anyio.lowlevel.checkpoint()
            if changes:
                now = sandbox.record.files()[0].at
                sandbox.replace_file(PAGE_SEGMENT_ID, now)
    assert is_whole(sandbox, tmp_path / "a.csv", PAGE_SEGMENT_ID)
    assert asked(sandbox, "range")[1] == "bytes=150000-"
    assert asked(sandbox, condition)[1] is not None
    assert sent(sandbox) >= (size + 150_000 if changes else size)
    assert changes or sent(sandbox) == size


INEXACT = {
    "412": Fault.status(412),
    "416": Fault.status(416),
    "no Content-Range": Fault.status(206, body=b"x"),
    "another start": Fault.status(206, headers={"content-range": "bytes 0-9/342029"}, body=b"x"),
    "a range of all": Fault.status(206, headers={"content-range": "bytes 150000-342028/*"}),
    "nonsense": Fault.status(206, headers={"content-range": "bytes 9-1/-3"}, body=b"x"),
}


@pytest.mark.alternating
@pytest.mark.parametrize("told", [True, False], ids=["with Content-Range", "without"])
async def test_a_range_with_the_status_of_a_whole_file(
    told: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where each range comes with a 200, its bytes are not taken for the whole file."""
    sandbox = sandbox_of(3000, etag="parts")  # which is no MD5, that would tell
    sandbox.inject(Fault.cut(150_000), origin="files")
    answer = sandbox.answer_file

    def with_200(*request: Any) -> Any:
        found = answer(*request)
        headers = {k: v for k, v in found.headers.items() if told or k != "content-range"}
        return attrs.evolve(found, status=200, headers=headers)

    monkeypatch.setattr(sandbox, "answer_file", with_200)
    async with exported(sandbox) as (storage, export):
        file = await fetch_file(storage, export, tmp_path / "a.csv")
    assert file.size == len(sandbox.content(PAGE_SEGMENT_ID))
    assert is_whole(sandbox, file.path, PAGE_SEGMENT_ID)
    assert sent(sandbox) == file.size or not told


@pytest.mark.alternating
@pytest.mark.parametrize("fault", INEXACT.values(), ids=INEXACT)
async def test_an_inexact_answer_starts_over(fault: Fault, tmp_path: Path) -> None:
    """No byte of a wrong range is used."""
    sandbox = sandbox_of(3000)
    sandbox.inject(Fault.cut(150_000), origin="files")
    sandbox.inject(fault, origin="files")
    async with exported(sandbox) as (storage, export):
        file = await fetch_file(storage, export, tmp_path / "a.csv")
    assert is_whole(sandbox, file.path, PAGE_SEGMENT_ID)
    assert asked(sandbox, "range") == [None, "bytes=150000-", None]


@pytest.mark.alternating
async def test_a_file_that_changes_all_the_time_is_given_up(tmp_path: Path) -> None:
    """A file that changes with each request ends the download."""
    sandbox = sandbox_of(3000)
    for _ in range(10):
        sandbox.inject(Fault.cut(150_000), origin="files")
        sandbox.inject(Fault.status(412), origin="files")
    async with exported(sandbox) as (storage, export):
        with pytest.raises(DownloadError, match="changed"):
            await fetch_file(storage, export, tmp_path / "a.csv")
    assert len(sandbox.record.files()) < 15


# --------------------------------------------------------------------- what came isn't what it was


@pytest.mark.alternating
async def test_bytes_that_storage_doesnt_have_are_noticed(tmp_path: Path) -> None:
    """A flipped bit is found by the MD5: the file is fetched again, and in the end "checksum"."""
    sandbox = sandbox_of(3000)
    flipped = Fault.changed(lambda body: body[:5000] + bytes([body[5000] ^ 1]) + body[5001:])
    sandbox.inject(flipped, origin="files")
    async with exported(sandbox) as (storage, export):
        file = await fetch_file(storage, export, tmp_path / "a.csv")
        assert is_whole(sandbox, file.path, PAGE_SEGMENT_ID)
        sandbox.inject(flipped, origin="files", times=99)
        with pytest.raises(DownloadError) as caught:
            await fetch_file(storage, export, tmp_path / "b.csv")
    assert caught.value.reason == "checksum"
    assert names_in(tmp_path) == ["a.csv"]


@pytest.mark.alternating
@pytest.mark.parametrize("host", [{}, {"etag": "parts"}, {"etag": None}])
async def test_gzip_is_decoded(host: dict[str, Any], tmp_path: Path, small_batches: None) -> None:
    """Size and hash are those of the decoded file; its rows can be read without a file, too."""
    sandbox = sandbox_of(3000, gzip=True, **host)
    async with connected(sandbox) as client:
        export = await complete(client)
        file = await client.download_export(export, tmp_path / "a.csv")
        async with client.open_export(export) as body:
            rows = [row async for row in body.rows()]
    content = sandbox.content(PAGE_SEGMENT_ID)
    assert file.path.read_bytes() == content
    assert (file.size, file.verified) == (len(content), True)
    assert file.sha256 == hashlib.sha256(content).hexdigest()
    assert len(rows) == 3000


@pytest.mark.alternating
@pytest.mark.parametrize(
    "change",
    [lambda b: b[:-1], lambda b: b + b"\x01", lambda b: b + b],
    ids=["cut", "garbage", "twice"],
)
async def test_gzip_ends_with_its_trailer(
    change: Callable[[bytes], bytes], tmp_path: Path, one_attempt: None
) -> None:
    """Gzip that is cut off, or followed by other bytes, is refused; a second member is decoded."""
    sandbox = sandbox_of(300, gzip=True, etag="parts")
    sandbox.inject(Fault.changed(change), origin="files", times=2)
    twice = len(change(b"12")) == 4
    async with connected(sandbox) as client:
        export = await complete(client)
        if twice:
            file = await client.download_export(export, tmp_path / "a.csv")
            assert file.path.read_bytes() == 2 * sandbox.content(PAGE_SEGMENT_ID)
            return
        with pytest.raises(DownloadError, match="gzip"):
            await client.download_export(export, tmp_path / "a.csv")
        with pytest.raises(DownloadError, match="gzip"):  # noqa: PT012 (the loop raises)
            async with client.open_export(export) as body:
                async for _ in body.iter_bytes():
                    pass
    assert names_in(tmp_path) == []


@pytest.mark.alternating
async def test_zeros_behind_a_gzip_are_padding(tmp_path: Path, small_batches: None) -> None:
    """Zeros that fill up the last block of a stored gzip file are no part of the file."""
    sandbox = sandbox_of(300, gzip=True, etag="parts")
    sandbox.inject(Fault.changed(lambda body: body + bytes(5000)), origin="files")
    async with connected(sandbox) as client:
        file = await client.download_export(await complete(client), tmp_path / "a.csv")
    assert is_whole(sandbox, file.path, PAGE_SEGMENT_ID)


LOGIN = b"\n<!DOCTYPE html><html><p>Please log in</p><p>with your name and password</p></html>"

PAGES = {
    "login": ({"Content-Type": "text/html; charset=UTF-8"}, LOGIN),
    "compressed": (
        {"Content-Type": "text/html", "Content-Encoding": "gzip"},
        gzip.compress(LOGIN + bytes(range(256))),
    ),
    "error": ({"Content-Type": "application/xml"}, b"<?xml?><Error/>"),
}


@pytest.mark.alternating
@pytest.mark.parametrize(("headers", "body"), PAGES.values(), ids=PAGES)
async def test_a_page_in_a_files_place_is_no_file(
    headers: dict[str, str], body: bytes, tmp_path: Path, one_attempt: None
) -> None:
    """A login page, or an error of storage, that comes with 200 never becomes the file."""
    sandbox = sandbox_of(5)
    page = Fault.status(200, headers=headers, body=body)
    sandbox.inject(page, origin="files", times=2)
    async with connected(sandbox) as client:
        export = await complete(client)
        with pytest.raises(DownloadError, match="a web page came"):
            await client.download_export(export, tmp_path / "a.csv")
        with pytest.raises(DownloadError, match="a web page came"):
            async with client.open_export(export):
                pass
        assert names_in(tmp_path) == []
        file = await client.download_export(export, tmp_path / "a.csv")
    assert is_whole(sandbox, file.path, PAGE_SEGMENT_ID)


@pytest.mark.alternating
async def test_a_reason_that_downloads_had_is_in_the_timeout(tmp_path: Path) -> None:
    """Where a run's time ends while downloads fail, the outcome says why they failed."""
    sandbox = Sandbox(segments=1, rows=5, durations=STEADY)
    sandbox.inject(Fault.cut(20), origin="files", times=10**6)
    async with connected(sandbox) as client:
        report = await client.bulk_export(sandbox.segment_ids, tmp_path, timeout=6)
    (outcome,) = report.not_exported
    assert isinstance(outcome.error, ExportTimeoutError)
    assert "the export is not lost; its download broke off: " in str(outcome.error)
    assert outcome.resumable


@pytest.mark.alternating
@pytest.mark.parametrize("coding", ["", "gzip"])
async def test_a_file_with_the_type_of_a_page_is_a_file(coding: str, tmp_path: Path) -> None:
    """Some uploaders give each file the type of a page: the bytes tell."""
    sandbox = sandbox_of(5)
    body = sandbox.content(PAGE_SEGMENT_ID)
    stored = gzip.compress(body) if coding else body
    headers = {"Content-Type": "text/html", "Content-Encoding": coding}
    labelled = Fault.status(200, headers=headers, body=stored)
    sandbox.inject(labelled, origin="files", times=2)
    async with connected(sandbox) as client:
        export = await complete(client)
        file = await client.download_export(export, tmp_path / "a.csv")
        async with client.open_export(export) as opened:
            assert b"".join([chunk async for chunk in opened.iter_bytes()]) == body
    assert is_whole(sandbox, file.path, PAGE_SEGMENT_ID)


@pytest.mark.alternating
async def test_a_gzip_with_another_md5_is_noticed(tmp_path: Path, one_attempt: None) -> None:
    """S3's ETag is the MD5 of the encoded bytes."""
    sandbox = sandbox_of(300, gzip=True)
    sandbox.inject(Fault.changed(lambda body: body + body), origin="files")
    async with exported(sandbox) as (storage, export):
        with pytest.raises(DownloadError) as caught:
            await fetch_file(storage, export, tmp_path / "a.csv")
    assert caught.value.reason == "checksum"
    assert names_in(tmp_path) == []


# --------------------------------------------------------------------- patience


@pytest.mark.alternating
async def test_a_server_says_how_long_to_wait(tmp_path: Path) -> None:
    """The Retry-After of a 503 SlowDown is obeyed, up to a minute."""
    sandbox = sandbox_of(5)
    for seconds in ("20", "3000"):
        slow_down = Fault.status(503, headers={"retry-after": seconds}, body="SlowDown")
        sandbox.inject(slow_down, origin="files")
    async with exported(sandbox) as (storage, export):
        await fetch_file(storage, export, tmp_path / "a.csv")
    at = [entry.at for entry in sandbox.record.files()]
    assert (round(at[1] - at[0]), round(at[2] - at[1])) == (20, 60)


@pytest.mark.alternating
async def test_a_server_that_trickles_is_left(tmp_path: Path) -> None:
    """Fewer than 64 KiB in 60 s end the attempt, although no single read takes long."""
    sandbox = sandbox_of(3000, ranges=False)
    async with (
        httpx.AsyncClient(transport=_Trickling(sandbox)) as files,
        exported(sandbox, files) as (storage, export),
    ):
        began = anyio.current_time()
        with pytest.raises(DownloadError, match="bytes came in 60 s"):
            await fetch_file(storage, export, tmp_path / "a.csv")
        assert 300 <= anyio.current_time() - began < 400
    assert names_in(tmp_path) == []


class _Trickling(SandboxTransport):
    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await super().handle_async_request(request)
        response.stream = _Trickle(response.stream)
        return response


class _Trickle(httpx.AsyncByteStream):
    def __init__(self, inner: Any) -> None:
        self._inner = inner

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for piece in self._inner:
            for at in range(0, len(piece), 100):
                await anyio.sleep(1)
                yield piece[at : at + 100]

    async def aclose(self) -> None:
        await self._inner.aclose()


@pytest.mark.alternating
async def test_a_file_has_a_deadline(tmp_path: Path) -> None:
    """After 12 hours a download ends although it was fast enough; the part stays."""
    sandbox = sandbox_of(800_000, rate=2000.0)
    async with exported(sandbox) as (storage, export):
        with pytest.raises(DownloadError, match="12 hours"):
            await fetch_file(storage, export, tmp_path / "a.csv")
    assert names_in(tmp_path) == PART


# --------------------------------------------------------------------- the next download


@pytest.mark.alternating
async def test_the_next_download_goes_on(tmp_path: Path, small_batches: None) -> None:
    """After five attempts without progress the part stays; later only the rest is sent."""
    sandbox = sandbox_of(3000)
    sandbox.inject(Fault.cut(150_000), origin="files")
    sandbox.inject(Fault.status(500), origin="files", times=5)
    told: list[int] = []
    async with exported(sandbox) as (storage, export):
        with pytest.raises(DownloadError):
            await fetch_file(storage, export, tmp_path / "a.csv")
        assert names_in(tmp_path) == PART
        before = len(sandbox.record.files())
        file = await fetch_file(storage, export, tmp_path / "a.csv", progress=told.append)
    assert is_whole(sandbox, file.path, PAGE_SEGMENT_ID)
    assert file.sha256 == sandbox.sha256(PAGE_SEGMENT_ID)
    assert asked(sandbox, "range")[before:] == ["bytes=150000-"]
    assert sent(sandbox) == file.size
    assert told == sorted(told)
    assert (told[0] >= 150_000, told[-1]) == (True, file.size)


@pytest.mark.alternating
async def test_the_part_of_another_export_is_of_no_use(tmp_path: Path) -> None:
    """A second export of the segment to the same place starts over."""
    sandbox = sandbox_of(3000)
    async with connected(sandbox) as client:
        first = await complete(client)
        sandbox.inject(Fault.cut(150_000), origin="files")
        sandbox.inject(Fault.status(500), origin="files", times=5)
        with pytest.raises(DownloadError):
            await client.download_export(first, tmp_path / "a.csv")
        second = await complete(client)
        file = await client.download_export(second, tmp_path / "a.csv")
    assert is_whole(sandbox, file.path, PAGE_SEGMENT_ID, attempt=1)
    assert names_in(tmp_path) == ["a.csv"]


@pytest.mark.alternating
async def test_a_new_link_goes_on_where_the_expired_one_broke(tmp_path: Path) -> None:
    """A link that expires during the download is renewed; no byte is fetched twice."""
    sandbox = Sandbox(rows=3000, durations=STEADY, link_lifetime=60)
    sandbox.inject(Fault.cut(150_000), origin="files")
    sandbox.inject(Fault.status(503, headers={"retry-after": "60"}), origin="files")
    sandbox.inject(Fault.status(503, headers={"retry-after": "60"}), origin="files")
    async with connected(sandbox) as client:
        export = await complete(client)
        polls = len(sandbox.record.polls())
        file = await client.download_export(export, tmp_path / "a.csv")
    assert is_whole(sandbox, file.path, PAGE_SEGMENT_ID)
    assert asked(sandbox, "range")[-1] == "bytes=150000-"
    assert len(sandbox.record.polls()) == polls + 1


@pytest.mark.alternating
@pytest.mark.parametrize("status", [404, 410])
async def test_of_a_file_that_is_gone_no_part_is_kept(status: int, tmp_path: Path) -> None:
    """A part whose file is gone at the storage is removed."""
    sandbox = sandbox_of(3000)
    sandbox.inject(Fault.cut(150_000), origin="files")
    sandbox.inject(Fault.status(status), origin="files")
    async with exported(sandbox) as (storage, export):
        with pytest.raises(DownloadError):
            await fetch_file(storage, export, tmp_path / "a.csv")
    assert names_in(tmp_path) == []


# --------------------------------------------------------------------- cancellation


@pytest.mark.alternating
@pytest.mark.parametrize("host", [{}, {"ranges": False}, {"gzip": True}, {"rate": 1e6}])
async def test_cancelled_at_every_await(
    host: dict[str, Any], tmp_path: Path, small_chunks: None
) -> None:
    """A cancelled download leaves at most the part, and no slot taken; no byte is sent again."""
    wide = "rate" in host
    number = 0
    for number in range(1, 2000):
        sandbox = sandbox_of(10_000 if wide else 1500, **host)
        sandbox.inject(Fault.cut(100_000), origin="files")
        to = tmp_path / str(number)
        to.mkdir()
        slots = anyio.Semaphore(3)
        async with exported(sandbox) as (storage, export):
            with anyio.CancelScope() as scope:
                call = _with_slot(storage, export, to / "a.csv", slots)
                await Counted(call, number, scope.cancel)
            assert names_in(to) in ([], PART, ["a.csv"])
            assert slots.value == 3
            assert host in ({}, {"rate": 1e6}) or names_in(to) in ([], ["a.csv"])
            file = await fetch_file(storage, export, to / "a.csv")
        assert is_whole(sandbox, file.path, PAGE_SEGMENT_ID)
        assert file.sha256 == sandbox.sha256(PAGE_SEGMENT_ID)
        assert names_in(to) == ["a.csv"]
        if not scope.cancel_called:
            break
    assert number > 5


async def _with_slot(
    storage: Storage, export: Export, target: Path, slots: anyio.Semaphore
) -> ExportedFile:
    async with slots:
        return await fetch_file(storage, export, target, slots=slots)


async def test_a_users_exception_arrives_bare(tmp_path: Path, small_batches: None) -> None:
    """Errors of connections are raised as themselves, and not in an ExceptionGroup."""

    def fails(size: int) -> None:
        if size > 200_000:
            raise KeyError(size)

    sandbox = sandbox_of(3000)
    async with exported(sandbox) as (storage, export):
        with pytest.raises(KeyError) as caught:
            await fetch_file(storage, export, tmp_path / "a.csv", progress=fails)
    assert type(caught.value) is KeyError
    assert names_in(tmp_path) == PART


# --------------------------------------------------------------------- large files

#: Bytes/s of each connection.
RATE = 10e6


async def _timed(sandbox: Sandbox, target: Path, slots: int) -> float:
    async with exported(sandbox) as (storage, export):
        free = anyio.Semaphore(slots)
        began = anyio.current_time()
        file = await _with_slot(storage, export, target, free)
        took = anyio.current_time() - began
        assert free.value == slots
    assert file.sha256 == sandbox.sha256(PAGE_SEGMENT_ID)
    assert file.path.stat().st_size == file.size
    return took


def _most_at_once(sandbox: Sandbox) -> int:
    files = sandbox.record.files()
    return max(sum(1 for e in files if e.at <= f.at < (e.ended_at or 0.0)) for f in files)


@pytest.mark.alternating
async def test_a_large_file_comes_over_several_connections(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight connections are six times as fast as one; only the end of the first one comes twice."""
    monkeypatch.setattr(download, "PARALLEL_FROM", 64_000_000)
    monkeypatch.setattr(download, "CHUNK", 2_000_000)
    alone, wide = sandbox_of(900_000, rate=RATE), sandbox_of(900_000, rate=RATE)
    slow = await _timed(alone, tmp_path / "a.csv", 1)
    fast = await _timed(wide, tmp_path / "b.csv", 8)
    assert slow / fast >= 6
    assert (_most_at_once(alone), _most_at_once(wide)) == (1, 8)
    assert sent(wide) <= 1.02 * (tmp_path / "b.csv").stat().st_size
    assert names_in(tmp_path) == ["a.csv", "b.csv"]


@pytest.mark.alternating
@pytest.mark.parametrize("why", ["fast", "small", "no ranges", "by date only"])
async def test_one_connection_where_more_are_of_no_use(
    why: str, tmp_path: Path, small_chunks: None
) -> None:
    """A fast connection, a small file, or one without a strong ETag gets a single connection."""
    hosts: dict[str, dict[str, Any]] = {
        "fast": {"rate": 1e9},
        "small": {"rate": 1e6},
        "no ranges": {"rate": 1e6, "ranges": False},
        "by date only": {"rate": 1e6, "etag": None},
    }
    sandbox = sandbox_of(5000 if why == "small" else 30_000, **hosts[why])
    await _timed(sandbox, tmp_path / "a.csv", 8)
    assert len(sandbox.record.files()) == 1


@pytest.mark.alternating
async def test_a_waiting_download_gets_its_slot_after_a_chunk(
    tmp_path: Path, small_chunks: None
) -> None:
    """Extra connections never make another file wait for the whole of this one."""
    sandbox = sandbox_of(60_000, rate=1e6)
    async with exported(sandbox) as (storage, export):
        slots = anyio.Semaphore(4)
        waited = 0.0
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_with_slot, storage, export, tmp_path / "a.csv", slots)
            await anyio.sleep(1.0)
            assert slots.value == 0
            began = anyio.current_time()
            async with slots:
                waited = anyio.current_time() - began
        assert slots.value == 4
    assert waited < 0.5
    assert is_whole(sandbox, tmp_path / "a.csv", PAGE_SEGMENT_ID)


@pytest.mark.alternating
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", ["cut", "503", "412", "200"])
async def test_breaks_of_several_connections(
    kind: str, seed: int, tmp_path: Path, small_chunks: None
) -> None:
    """However a connection ends, the file is whole, and few bytes are sent twice."""
    sandbox = sandbox_of(60_000, rate=1e6)
    chance = random.Random(seed)
    for number in range({"cut": 12, "503": 2}.get(kind, 1)):
        fault = {
            "cut": Fault.cut(chance.randrange(250_000)),
            "503": Fault.status(503),
            "412": Fault.status(412),
            "200": Fault.status(200, body=b"surprise"),
        }[kind]
        sandbox.inject(fault, origin="files", skip=2 if number == 0 else chance.randrange(3))
    await _timed(sandbox, tmp_path / "a.csv", 4)
    assert is_whole(sandbox, tmp_path / "a.csv", PAGE_SEGMENT_ID)
    size = (tmp_path / "a.csv").stat().st_size
    # Of what a closed connection had under way, something is lost each time.
    assert sent(sandbox) <= (3.0 if kind == "412" else 1.6) * size
    assert _most_at_once(sandbox) <= 4


@pytest.mark.alternating
async def test_servers_that_disagree_about_the_version(
    tmp_path: Path, small_chunks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where every further connection is told of another version, one alone brings the file."""
    sandbox = sandbox_of(30_000, rate=1e6)
    answer = sandbox.answer_file

    def of_another_server(method: str, path: str, headers: Any, now: float) -> Any:
        if "range" in headers:
            headers = {**headers, "if-match": '"of another server"'}
        return answer(method, path, headers, now)

    monkeypatch.setattr(sandbox, "answer_file", of_another_server)
    await _timed(sandbox, tmp_path / "a.csv", 4)
    assert is_whole(sandbox, tmp_path / "a.csv", PAGE_SEGMENT_ID)
    assert sent(sandbox) <= 2 * (tmp_path / "a.csv").stat().st_size


async def test_a_large_file_is_cancelled_at_once(tmp_path: Path, small_chunks: None) -> None:
    """After a kill with several connections, the next download fetches the holes."""
    sandbox = sandbox_of(60_000, rate=1e6)
    async with exported(sandbox) as (storage, export):
        slots = anyio.Semaphore(4)
        with anyio.move_on_after(1.5) as scope:
            await _with_slot(storage, export, tmp_path / "a.csv", slots)
        assert scope.cancelled_caught
        assert anyio.current_time() < 100
        assert slots.value == 4
        assert names_in(tmp_path) == PART
        before = sent(sandbox)
        await fetch_file(storage, export, tmp_path / "a.csv")
    assert is_whole(sandbox, tmp_path / "a.csv", PAGE_SEGMENT_ID)
    size = (tmp_path / "a.csv").stat().st_size
    assert before > 1_000_000
    assert sent(sandbox) <= size + 4 * 150_000


# --------------------------------------------------------------------- the disk


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], check=True)
    yield disk
    subprocess.run(["umount", disk], check=True)


@pytest.mark.alternating
@pytest.mark.needs("root")
async def test_a_small_disk(small_disk: Path, small_batches: None) -> None:
    """A file that doesn't fit is "disk_full", and its part is removed; other files are whole."""
    large, small = sandbox_of(20_000), sandbox_of(3000)
    async with exported(large) as (storage, export):
        with pytest.raises(DownloadError) as caught:
            await fetch_file(storage, export, small_disk / "a.csv")
    assert caught.value.reason == "disk_full"
    assert names_in(small_disk) == []
    async with exported(small) as (storage, export):
        file = await fetch_file(storage, export, small_disk / "a.csv")
    assert is_whole(small, file.path, PAGE_SEGMENT_ID)


@pytest.mark.alternating
async def test_a_disk_that_fails_on_the_way(
    tmp_path: Path, small_batches: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large file is synced while it arrives; if that fails, the download ends without a part."""
    monkeypatch.setattr(part, "UNSYNCED", 200_000)
    synced: list[int] = []
    sync = os.fsync

    def third_fails(descriptor: int) -> None:
        synced.append(os.fstat(descriptor).st_size)
        if len(synced) == 3:
            raise OSError(errno.EIO, "Input/output error")
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", third_fails)
    sandbox = sandbox_of(30_000, rate=1e6)
    async with exported(sandbox) as (storage, export):
        with pytest.raises(DownloadError, match="Input/output") as caught:
            await fetch_file(storage, export, tmp_path / "a.csv")
    assert caught.value.reason == "broken"
    assert names_in(tmp_path) == []
    assert len(synced) == 3
    assert 200_000 <= synced[0] < synced[1] < synced[2]


@pytest.mark.alternating
async def test_a_directory_that_vanishes(tmp_path: Path, small_batches: None) -> None:
    """A directory that vanishes during the download is a DownloadError of this export."""
    to = tmp_path / "out"
    to.mkdir()

    def remove(size: int) -> None:
        if to.exists():
            for path in to.iterdir():
                path.unlink()
            to.rmdir()

    sandbox = sandbox_of(3000)
    async with exported(sandbox) as (storage, export):
        with pytest.raises(DownloadError) as caught:
            await fetch_file(storage, export, to / "a.csv", progress=remove)
    assert caught.value.reason == "broken"
    assert not to.exists()


@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
async def test_asyncios_own_cancellation(tmp_path: Path, small_chunks: None) -> None:
    """`Task.cancel()` leaves worker threads behind: none writes to a closed descriptor."""
    sandbox = sandbox_of(30_000, rate=1e6)
    async with exported(sandbox) as (storage, export):
        for number in range(1, 40):
            target = tmp_path / f"{number}.csv"
            slots = anyio.Semaphore(3)
            task = asyncio.create_task(_with_slot(storage, export, target, slots))
            for _ in range(3 * number):
                await anyio.lowlevel.checkpoint()
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            assert slots.value == 3
            await fetch_file(storage, export, target)
            assert is_whole(sandbox, target, PAGE_SEGMENT_ID)
    assert [name for name in names_in(tmp_path) if "part" in name] == []


@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
async def test_cancelled_twice_by_asyncio(
    tmp_path: Path, small_batches: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second cancellation, while the last bytes are written, ends the download, too."""
    write = part.PartFile.write
    began = anyio.Event()

    def slowly(self: part.PartFile, offset: int, data: Bytes) -> None:
        anyio.from_thread.run_sync(began.set)
        time.sleep(0.2)
        write(self, offset, data)

    monkeypatch.setattr(part.PartFile, "write", slowly)
    async with exported(sandbox_of(30_000)) as (storage, export):
        task = asyncio.create_task(fetch_file(storage, export, tmp_path / "a.csv"))
        await began.wait()
        for _ in range(300):  # until the next batches have to wait for it
            await anyio.lowlevel.checkpoint()
        for _ in range(2):
            task.cancel()
            for _ in range(10):
                await anyio.lowlevel.checkpoint()
        with anyio.fail_after(60), contextlib.suppress(asyncio.CancelledError):
            await task
    assert task.done()


@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
async def test_a_part_is_left_though_cancelled_twice_by_asyncio(anyio_backend: str) -> None:
    """A second cancellation, before the thread that keeps the part has begun, leaves no lock."""
    left = threading.Event()

    async def download() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            await leave_part(left.set)

    task = asyncio.create_task(download())
    for _ in range(2):
        await anyio.lowlevel.checkpoint()
        task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert await anyio.to_thread.run_sync(left.wait, 10)


async def test_a_part_is_left_without_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no thread can be started, the lock of the part is released all the same."""

    def none(*_: Any, **__: Any) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(anyio.to_thread, "run_sync", none)
    monkeypatch.setattr(threading.Thread, "start", none)
    left = list[bool]()
    await leave_part(lambda: left.append(True))
    assert left == [True]
