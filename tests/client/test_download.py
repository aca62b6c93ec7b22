"""Files are whole under their names, or absent but for a part that can be continued."""

from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from client.test_input import abandoned_body, other
from client.vendor import STEADY, all_whole, connected, is_whole, names_in
from segments_async import (
    ConfigurationError,
    DownloadError,
    Export,
    ExportExpiredError,
    NotExported,
    NotFoundError,
    NotSubmittedError,
    Pacer,
    SegmentsClient,
    TargetExistsError,
)
from segments_async._files import download
from segments_async._files.part import PartFile
from segments_async._sansio.files import storage_outage
from segments_async.sandbox import (
    FILES_ORIGIN,
    PAGE_EXPORT_ID,
    PAGE_SEGMENT_ID,
    Fault,
    FileHost,
    Sandbox,
    SandboxTransport,
)

pytestmark = pytest.mark.alternating

#: What may be left of a download that didn't end well.
PART = ["a.csv.part", "a.csv.part.json"]

POLL: dict[str, Any] = {"method": "GET", "path": "export/"}


async def complete(client: SegmentsClient, segment_id: str = PAGE_SEGMENT_ID) -> Export:
    return await client.wait_for_export(await client.request_export(segment_id))


# --------------------------------------------------------------------- broken bodies

OF_ONE_FILE = {
    "cut at once": Fault.cut(0),
    "cut in the middle": Fault.cut(150_000),
    "cut before the last byte": Fault.cut(-1),
    "a length too great": Fault.content_length(10**9),
    "500": Fault.status(500),
}
AWAY = {
    "lost": Fault.LOST_AFTER,
    "unreachable": Fault.UNREACHABLE,
    "429": Fault.status(429),
    "503": Fault.status(503, body="SlowDown"),
}
BREAKS = OF_ONE_FILE | AWAY


@pytest.mark.parametrize("fault", BREAKS.values(), ids=BREAKS)
async def test_a_broken_download_is_tried_again(fault: Fault, tmp_path: Path) -> None:
    """Four breaks are survived, and the file is whole in the end."""
    sandbox = Sandbox(rows=3000, durations=STEADY)
    if fault.cut_after == -1:
        fault = Fault.cut(len(sandbox.content(PAGE_SEGMENT_ID)) - 1)
    sandbox.inject(fault, origin="files", times=4)
    async with connected(sandbox) as client:
        file = await client.export(PAGE_SEGMENT_ID, tmp_path / "a.csv")
    assert is_whole(sandbox, file.path, PAGE_SEGMENT_ID)
    assert names_in(tmp_path) == ["a.csv"]


@pytest.mark.parametrize("ranges", [True, False], ids=["with ranges", "without"])
@pytest.mark.parametrize("fault", OF_ONE_FILE.values(), ids=OF_ONE_FILE)
async def test_a_download_that_keeps_breaking_ends(
    fault: Fault, ranges: bool, tmp_path: Path
) -> None:
    """Five tries without progress end in a DownloadError, and no file but a part is left.

    If each try brings more bytes, the download ends well.
    """
    sandbox = Sandbox(rows=3000, durations=STEADY, file_host=FileHost(ranges=ranges))
    advances = ranges and fault.cut_after in (150_000, -1)
    if fault.cut_after == -1:
        fault = Fault.cut(len(sandbox.content(PAGE_SEGMENT_ID)) - 1)
    sandbox.inject(fault, origin="files", times=99)
    async with connected(sandbox) as client:
        if advances:
            file = await client.export(PAGE_SEGMENT_ID, tmp_path / "a.csv")
            assert is_whole(sandbox, file.path, PAGE_SEGMENT_ID)
            return
        with pytest.raises(DownloadError) as caught:
            await client.export(PAGE_SEGMENT_ID, tmp_path / "a.csv")
    assert caught.value.reason == "broken"
    assert caught.value.export is not None
    assert sandbox.faults_left() == 1
    assert names_in(tmp_path) in ([], PART) if ranges else names_in(tmp_path) == []


@pytest.mark.parametrize("fault", AWAY.values(), ids=AWAY)
async def test_storage_that_stays_away_ends_a_download(
    fault: Fault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a long outage of storage a download ends as DownloadError, and no part is left."""
    monkeypatch.setattr(storage_outage, "LONGEST_STORAGE_OUTAGE", 120.0)
    sandbox = Sandbox(rows=3, durations=STEADY)
    sandbox.inject(fault, origin="files", times=10**6)
    async with connected(sandbox) as client:
        began = anyio.current_time()
        with pytest.raises(DownloadError, match="storage has been unavailable") as caught:
            await client.export(PAGE_SEGMENT_ID, tmp_path / "a.csv")
        assert anyio.current_time() - began > 120
    assert caught.value.reason == "broken"
    assert names_in(tmp_path) == []


async def test_what_is_there_survives_a_broken_download(tmp_path: Path) -> None:
    """`overwrite` replaces a file by a whole one, or not at all."""
    sandbox = Sandbox(rows=3000, durations=STEADY)
    target = tmp_path / "a.csv"
    target.write_text("of yesterday")
    async with connected(sandbox) as client:
        export = await complete(client)
        sandbox.inject(Fault.cut(150_000), origin="files")
        sandbox.inject(Fault.status(500), origin="files", times=5)
        with pytest.raises(DownloadError):
            await client.download_export(export, target, overwrite=True)
        assert target.read_text() == "of yesterday"
        assert names_in(tmp_path) == ["a.csv", *PART]
        await client.download_export(export, target, overwrite=True)
    assert is_whole(sandbox, target, PAGE_SEGMENT_ID)
    assert names_in(tmp_path) == ["a.csv"]


class _Lying(SandboxTransport):
    """Ends a body early without a break, as a transport without length checks would."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await super().handle_async_request(request)
        response.headers["content-length"] = "999999"
        return response


async def test_a_length_that_disagrees_is_noticed(tmp_path: Path) -> None:
    """If the HTTP client doesn't compare lengths, the library does: DownloadError("length")."""
    sandbox = Sandbox(rows=3)
    async with (
        httpx.AsyncClient(transport=_Lying(sandbox)) as files,
        connected(sandbox, file_http_client=files) as client,
    ):
        with pytest.raises(DownloadError) as caught:
            await client.export(PAGE_SEGMENT_ID, tmp_path / "a.csv")
    assert caught.value.reason == "length"
    assert names_in(tmp_path) == []


async def test_without_a_length_a_file_is_unverified(tmp_path: Path) -> None:
    """Without a length, the result's `verified` is False."""
    sandbox = Sandbox(rows=50)
    async with connected(sandbox) as client:
        export = await complete(client)
        sandbox.inject(Fault.content_length(None), origin="files")
        unverified = await client.download_export(export, tmp_path / "a.csv")
        verified = await client.download_export(export, tmp_path / "b.csv")
    assert (unverified.verified, verified.verified) == (False, True)
    assert unverified.sha256 == verified.sha256 == sandbox.sha256(PAGE_SEGMENT_ID)


@pytest.mark.parametrize("encoding", ["br", "deflate", "gzip, gzip", "zstd"])
async def test_an_unknown_encoding_is_refused(encoding: str, tmp_path: Path) -> None:
    """A file in an unknown encoding is refused: its bytes would not be those of the CSV."""
    sandbox = Sandbox()
    fault = Fault.status(200, headers={"content-encoding": encoding}, body=b"\x1f\x8b")
    sandbox.inject(fault, origin="files", times=99)
    async with connected(sandbox) as client:
        with pytest.raises(DownloadError, match="encoding"):
            await client.export(PAGE_SEGMENT_ID, tmp_path / "a.csv")
    assert len(sandbox.record.files()) == 1
    assert names_in(tmp_path) == []


# --------------------------------------------------------------------- storage's refusals


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (Fault.status(403, body="<Code>AccessDenied</Code>"), "denied"),
        (Fault.status(401), "denied"),
        (Fault.status(404, body="<Code>NoSuchKey</Code>"), "denied"),
        (Fault.status(403, body="<Message>Request has expired</Message>"), "expired_link"),
        (Fault.status(400), "broken"),
        (Fault.status(206, body=b"a part"), "broken"),
        (Fault.status(304), "broken"),
    ],
)
async def test_storages_refusals_are_told_apart(fault: Fault, reason: str, tmp_path: Path) -> None:
    """Each refusal has its reason, and ends after one request; an expired link is renewed."""
    sandbox = Sandbox(durations=STEADY)
    sandbox.inject(fault, origin="files", times=99)
    async with connected(sandbox) as client:
        with pytest.raises(DownloadError) as caught:
            await client.export(PAGE_SEGMENT_ID, tmp_path / "a.csv")
    assert caught.value.reason == reason
    assert len(sandbox.record.files()) == (2 if reason == "expired_link" else 1)
    assert names_in(tmp_path) == []


async def test_after_48_hours_the_file_is_gone(tmp_path: Path) -> None:
    """By its id or by its old link, a file past 48 hours is an ExportExpiredError."""
    sandbox = Sandbox(durations=STEADY)
    async with connected(sandbox) as client:
        export = await complete(client)
        await anyio.sleep(48 * 3600 + 10)
        for given in (export.export_id, export):
            with pytest.raises(ExportExpiredError) as caught:
                await client.download_export(given, tmp_path / "a.csv")
            assert caught.value.segment_id == PAGE_SEGMENT_ID
    assert names_in(tmp_path) == []


async def test_a_link_that_cannot_be_renewed_says_so(tmp_path: Path) -> None:
    """If the vendor doesn't know the export any more, the error says that the link has expired."""
    sandbox = Sandbox(durations=STEADY, link_lifetime=60, rows=5)
    async with connected(sandbox) as client:
        export = await complete(client)
        await anyio.sleep(100)
        sandbox.inject(Fault.status(404), **POLL)
        with pytest.raises(DownloadError) as caught:
            await client.download_export(export, tmp_path / "a.csv")
    assert caught.value.reason == "expired_link"
    assert isinstance(caught.value.__cause__, NotFoundError)
    assert len(sandbox.record.files()) == 1


# --------------------------------------------------------------------- targets


async def test_a_file_that_is_there_is_found_before_the_post(tmp_path: Path) -> None:
    """No request is sent where the file couldn't be put."""
    sandbox = Sandbox(segments=2, rows=5)
    target = tmp_path / "a.csv"
    target.write_text("somebody else's")
    async with connected(sandbox) as client:
        for where in (target, tmp_path, tmp_path / "no" / "such" / "a.csv"):
            with pytest.raises(ConfigurationError):
                await client.export(PAGE_SEGMENT_ID, where)
            with pytest.raises(ConfigurationError):
                await client.download_export(PAGE_EXPORT_ID, where)
    assert len(sandbox.record) == 0
    assert target.read_text() == "somebody else's"


async def test_in_a_run_a_file_that_is_there_stops_its_segment_alone(tmp_path: Path) -> None:
    """The segment with the file ends as ConfigurationError without a POST; others are exported."""
    sandbox = Sandbox(segments=3, rows=5)
    taken = sandbox.segment_ids[1]
    (tmp_path / f"{taken[:8]}.csv").write_text("somebody else's")
    async with connected(sandbox) as client:
        names = names_in(tmp_path)
        report = await client.bulk_export(sandbox.segment_ids, tmp_path)
        assert names == [f"{taken[:8]}.csv"] or report.not_exported == ()
    if report.not_exported:
        (missing,) = report.not_exported
        assert isinstance(missing.error, ConfigurationError)
        assert (missing.segment_id, missing.submitted, missing.resumable) == (taken, "no", True)
        assert sandbox.record.submits(taken) == []
    assert all_whole(sandbox, report.exported)


async def test_a_second_run_replaces_files_only_where_told(tmp_path: Path) -> None:
    """Without `overwrite`, a second run of the same segments sends nothing.

    The last line of a segment in the manifest is the line that counts.
    """
    sandbox = Sandbox(segments=3, rows=5)
    async with connected(sandbox) as client:
        await client.bulk_export(sandbox.segment_ids, tmp_path)
        before = len(sandbox.record)
        refused = await client.bulk_export(sandbox.segment_ids, tmp_path)
        assert len(sandbox.record) == before
        lines = await anyio.Path(tmp_path / "manifest.jsonl").read_text()
        replaced = await client.bulk_export(sandbox.segment_ids, tmp_path, overwrite=True)
    assert [json.loads(line)["outcome"] for line in lines.splitlines()] == ["exported"] * 3
    assert {type(o.error) for o in refused.not_exported} == {TargetExistsError}
    assert len(refused.not_exported) == 3
    assert len(replaced.exported) == 3
    assert all(is_whole(sandbox, o.file.path, o.segment_id, 1) for o in replaced.exported)


async def test_a_place_that_cant_be_written_is_found_before_the_post(tmp_path: Path) -> None:
    """A file in place of the directory, or one without write access, is found before the POST."""
    sandbox = Sandbox()
    (tmp_path / "file").write_text("")
    closed = tmp_path / "closed"
    closed.mkdir()
    closed.chmod(stat.S_IRUSR | stat.S_IXUSR)
    places = [tmp_path / "file"] + ([closed] if os.geteuid() else [])
    async with connected(sandbox) as client:
        for place in places:
            with pytest.raises(ConfigurationError, match="can't write"):
                await client.bulk_export([PAGE_SEGMENT_ID], place)
            with pytest.raises(ConfigurationError):
                await client.export(PAGE_SEGMENT_ID, place / "a.csv")
    assert len(sandbox.record) == 0


class _Full:
    """`os.pwrite` on a disk that is full for some files."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, names: set[str], after: int) -> None:
        self._write = os.pwrite
        self._names, self._left = names, after
        monkeypatch.setattr(os, "pwrite", self)

    def __call__(self, descriptor: int, data: Any, offset: int) -> int:
        name = Path(f"/proc/self/fd/{descriptor}").readlink().name
        if name not in self._names:
            return self._write(descriptor, data, offset)
        if not self._left:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = self._write(descriptor, data[: self._left], offset)
        self._left -= written
        return written


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="tells files by /proc")
@pytest.mark.parametrize("after", [0, 10])
async def test_a_full_disk_ends_one_export_and_the_rest_go_on(
    after: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that didn't fit is DownloadError("disk_full"), and leaves nothing."""
    sandbox = Sandbox(segments=4, rows=50)
    async with connected(sandbox) as client:
        segments = await client.list_segments()
        first = (await client.bulk_export(segments[:1], tmp_path / "try")).exported[0]
        _Full(monkeypatch, {first.file.path.name + ".part"}, after)
        report = await client.bulk_export(segments, tmp_path / "out")
    (missing,) = report.not_exported
    assert isinstance(missing.error, DownloadError)
    assert missing.error.reason == "disk_full"
    assert (missing.segment_id, missing.submitted, missing.resumable) == (
        first.segment_id,
        "yes",
        True,
    )
    assert all_whole(sandbox, report.exported)
    assert len(names_in(tmp_path / "out")) == 4  # three files and the manifest


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="tells files by /proc")
@abandoned_body
async def test_a_disk_that_fills_in_the_middle_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file of several batches that stops fitting leaves nothing either."""
    sandbox = Sandbox(rows=3000)
    monkeypatch.setattr(download, "BATCH", 100_000)
    async with connected(sandbox) as client:
        export = await complete(client)
        _Full(monkeypatch, {"a.csv.part"}, 150_000)
        with pytest.raises(DownloadError) as caught:
            await client.download_export(export, tmp_path / "a.csv")
    assert caught.value.reason == "disk_full"
    assert names_in(tmp_path) == []


async def test_a_link_in_the_parts_place_is_not_written_through(tmp_path: Path) -> None:
    """A symbolic link in the part's place is a DownloadError, and its target is untouched."""
    sandbox = Sandbox(rows=5)
    precious = tmp_path / "precious"
    precious.write_text("precious")
    (tmp_path / "a.csv.part").symlink_to(precious)
    async with connected(sandbox) as client:
        with pytest.raises(DownloadError) as caught:
            await client.export(PAGE_SEGMENT_ID, tmp_path / "a.csv")
    assert caught.value.reason == "broken"
    assert precious.read_text() == "precious"


# --------------------------------------------------------------------- links

FOREIGN = {
    "another host": "https://evil.example/a.csv",
    "plain http": "http://s3.us-east-1.amazonaws.com/a.csv",
    "user information": "https://user:pass@s3.us-east-1.amazonaws.com/a.csv",
    "an address": "https://169.254.169.254/latest/meta-data",
    "loopback": "http://127.0.0.1:80/a.csv",
    "localhost": "https://localhost/a.csv",
    "a file": "file:///etc/passwd",
    "a look-alike": "https://amazonaws.com.evil.example/a.csv",
    "no host": "https:///a.csv",
    "nonsense": "https://[/",
}


#: JSON can have half a surrogate pair. No header of a redirect can.
HALF = "https://s3.amazonaws.com/a\ud800.csv?X-Amz-Signature=f00"


@pytest.mark.parametrize("link", [*FOREIGN.values(), HALF], ids=[*FOREIGN, "half a character"])
async def test_foreign_links_are_refused(link: str, tmp_path: Path) -> None:
    """A link that the policy doesn't admit is never followed."""
    sandbox = Sandbox(durations=STEADY)
    sandbox.inject(Fault.changed(other(filename=link)), **POLL, times=99)
    seen: list[str] = []

    async def note(request: httpx.Request) -> None:
        seen.append(str(request.url))

    async with (
        httpx.AsyncClient(
            transport=SandboxTransport(sandbox), event_hooks={"request": [note]}
        ) as files,
        connected(sandbox, file_http_client=files) as client,
    ):
        export = await client.request_export(PAGE_SEGMENT_ID)
        await anyio.sleep(10)
        with pytest.raises(DownloadError) as caught:
            await client.download_export(export.export_id, tmp_path / "a.csv")
    assert caught.value.reason == "link_refused"
    assert seen == []
    assert names_in(tmp_path) == []


async def test_a_refused_link_stops_further_submits(tmp_path: Path) -> None:
    """A link that the policy refuses stops further submits, and the error names the option."""
    sandbox = Sandbox(segments=200, durations=STEADY, files_origin="https://files.example")
    async with connected(sandbox, pacer=Pacer(rate=10)) as client:
        report = await client.bulk_export(sandbox.segment_ids, tmp_path)
    posts = len(sandbox.record.submits())
    assert posts < 150
    assert report.exported == ()
    unsent = [o for o in report.not_exported if isinstance(o.error, NotSubmittedError)]
    refused = [o for o in report.not_exported if isinstance(o.error, DownloadError)]
    assert (len(unsent), len(refused)) == (200 - posts, posts)
    assert all("file_hosts=[..., 'files.example']" in str(o.error) for o in report.not_exported)
    assert all(o.resumable for o in report.not_exported)
    assert all(o.submitted == "no" for o in unsent)
    assert sandbox.record.files() == []


async def test_a_named_host_is_admitted(tmp_path: Path) -> None:
    """`file_hosts` admits the hosts that it names."""
    sandbox = Sandbox(rows=5, files_origin="https://files.example")
    async with connected(sandbox, file_hosts=["files.example"]) as client:
        file = await client.export(PAGE_SEGMENT_ID, tmp_path / "a.csv")
    assert is_whole(sandbox, file.path, PAGE_SEGMENT_ID)


@pytest.mark.parametrize(
    "location",
    [link for link in FOREIGN.values() if link != FOREIGN["no host"]]
    + ["s3://upload-bucket/a.csv"],
)
async def test_a_redirect_to_a_foreign_host_is_refused(location: str, tmp_path: Path) -> None:
    """The policy is applied to each hop."""
    sandbox = Sandbox(durations=STEADY)
    sandbox.inject(Fault.status(302, headers={"location": location}), origin="files", times=99)
    async with connected(sandbox) as client:
        with pytest.raises(DownloadError) as caught:
            await client.export(PAGE_SEGMENT_ID, tmp_path / "a.csv")
    assert caught.value.reason == "link_refused"
    assert len(sandbox.record.files()) == 1


async def test_an_admitted_redirect_is_followed(tmp_path: Path) -> None:
    """Three hops are followed, relative ones too; a fourth counts as a loop."""
    sandbox = Sandbox(rows=5, durations=STEADY)
    async with connected(sandbox) as client:
        export = await complete(client)
        link = (export.filename or "").removeprefix(FILES_ORIGIN)
        hop = Fault.status(307, headers={"location": link})
        sandbox.inject(hop, origin="files", times=3)
        file = await client.download_export(export, tmp_path / "a.csv")
        sandbox.inject(hop, origin="files", times=99)
        with pytest.raises(DownloadError, match="redirects"):
            await client.download_export(export, tmp_path / "b.csv")
    assert is_whole(sandbox, file.path, PAGE_SEGMENT_ID)
    assert names_in(tmp_path) == ["a.csv"]


# --------------------------------------------------------------------- cancellation and bodies


@pytest.mark.parametrize("after", [0.0, 0.001, 3.0])
async def test_a_cancelled_download_leaves_nothing(after: float, tmp_path: Path) -> None:
    """No file and no part is left, and the next try gets all of the file."""
    sandbox = Sandbox(rows=3000, durations=STEADY)
    async with connected(sandbox) as client:
        export = await complete(client)
        sandbox.inject(Fault.slow(2.0) if after < 2 else Fault.slow(20.0), origin="files")
        with anyio.move_on_after(after) as scope:
            await client.download_export(export, tmp_path / "a.csv")
        assert scope.cancelled_caught
        assert names_in(tmp_path) == []
        file = await client.download_export(export, tmp_path / "a.csv")
    assert is_whole(sandbox, file.path, PAGE_SEGMENT_ID)


class _Stalling(SandboxTransport):
    """A sandbox whose files stop arriving after some pieces."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await super().handle_async_request(request)
        response.stream = _StallingBody(response.stream)
        return response


class _StallingBody(httpx.AsyncByteStream):
    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self._pieces = 0

    def __aiter__(self) -> _StallingBody:
        return self

    async def __anext__(self) -> bytes:
        self._pieces += 1
        if self._pieces == 3:
            await anyio.sleep(50)
        piece: bytes = await self._inner.__anext__()
        return piece

    async def aclose(self) -> None:
        await self._inner.aclose()


async def test_a_download_cancelled_in_the_middle_leaves_its_part(tmp_path: Path) -> None:
    """The part has all bytes that came, with those of an unfinished batch."""
    sandbox = Sandbox(rows=3000, durations=STEADY)
    async with (
        httpx.AsyncClient(transport=_Stalling(sandbox)) as files,
        connected(sandbox, file_http_client=files) as client,
    ):
        export = await complete(client)
        with anyio.move_on_after(1.0) as scope:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(client.download_export, export, tmp_path / "a.csv")
                await anyio.sleep(0.5)
                assert names_in(tmp_path) == ["a.csv.part"]
        assert scope.cancelled_caught
    assert names_in(tmp_path) == PART
    came = sandbox.record.files()[0].sent
    assert 0 < came == (tmp_path / PART[0]).stat().st_size < 300_000


async def test_a_file_has_the_sandboxs_bytes(tmp_path: Path) -> None:
    """The result has the file's size, hash and place, and its export."""
    sandbox = Sandbox(rows=3000)
    async with connected(sandbox) as client:
        export = await complete(client)
        file = await client.download_export(export, tmp_path / "a.csv")
    assert is_whole(sandbox, file.path, PAGE_SEGMENT_ID)
    assert (file.size, file.sha256) == (
        len(sandbox.content(PAGE_SEGMENT_ID)),
        sandbox.sha256(PAGE_SEGMENT_ID),
    )
    assert file.location == str(tmp_path / "a.csv")
    assert file.export == export
    assert file.verified


async def test_a_header_alone_is_a_whole_file(tmp_path: Path) -> None:
    """A file with a header alone, or an empty one, is whole."""
    sandbox = Sandbox(rows=0)
    async with connected(sandbox) as client:
        export = await complete(client)
        header = await client.download_export(export, tmp_path / "a.csv")
        async with client.open_export(export) as body:
            assert [row async for row in body.rows()] == []
        sandbox.inject(Fault.status(200), origin="files")
        empty = await client.download_export(export, tmp_path / "b.csv")
    assert header.path.read_bytes() == sandbox.content(PAGE_SEGMENT_ID)
    assert (empty.size, empty.verified, empty.path.read_bytes()) == (0, True, b"")


async def test_an_export_that_isnt_complete_has_no_file(tmp_path: Path) -> None:
    """`download_export` and `open_export` don't wait; the error names the call that does."""
    sandbox = Sandbox(durations=STEADY)
    async with connected(sandbox) as client:
        export = await client.request_export(PAGE_SEGMENT_ID)
        with pytest.raises(ConfigurationError, match="wait_for_export"):
            await client.download_export(export, tmp_path / "a.csv")
        with pytest.raises(ConfigurationError, match="wait_for_export"):
            async with client.open_export(export):
                pass
    assert names_in(tmp_path) == []


async def test_a_body_is_read_without_a_file() -> None:
    """`iter_bytes` yields the bytes as served, `rows` the records by header name."""
    sandbox = Sandbox(rows=3000)
    async with connected(sandbox) as client:
        export = await complete(client)
        async with client.open_export(export.export_id) as body:
            assert body.export.export_id == export.export_id
            data = b"".join([chunk async for chunk in body.iter_bytes()])
        async with client.open_export(export) as body:
            rows = [row async for row in body.rows()]
    assert data == sandbox.content(PAGE_SEGMENT_ID)
    assert len(rows) == 3000
    assert list(rows[0]) == ["user_id", "email", "last_seen", "note"]
    assert {row["note"].strip() for row in rows[:4]} == {
        "Pro plan, billed yearly",
        'called it "great" twice',
        "Zoë, Malmö och Ærø",
        "first seen in store no 00012",
    }


async def test_a_body_that_breaks_is_never_a_short_result() -> None:
    """Rows and bytes end with DownloadError where the connection broke."""
    sandbox = Sandbox(rows=3000)
    async with connected(sandbox) as client:
        export = await complete(client)
        sandbox.inject(Fault.cut(200_000), origin="files", times=2)
        for read in (lambda b: b.rows(), lambda b: b.iter_bytes()):
            with pytest.raises(DownloadError) as caught:  # noqa: PT012 (the loop raises)
                async with client.open_export(export) as body:
                    async for _ in read(body):
                        pass
            assert caught.value.reason == "broken"


@abandoned_body
async def test_a_body_may_be_left_early() -> None:
    """The caller's own exception comes out of the block, and the connection is given back."""
    sandbox = Sandbox(rows=3000)
    async with connected(sandbox) as client:
        export = await complete(client)
        with pytest.raises(KeyError) as caught:  # noqa: PT012 (what a user's block is like)
            async with client.open_export(export) as body:
                async for row in body.rows():
                    raise KeyError(row["email"])
    assert type(caught.value) is KeyError


@pytest.mark.parametrize("status", [403, 404, 503])
async def test_a_body_that_is_refused_isnt_opened(status: int) -> None:
    """`open_export` asks once, and raises on entering."""
    sandbox = Sandbox()
    sandbox.inject(Fault.status(status), origin="files")
    async with connected(sandbox) as client:
        export = await complete(client)
        with pytest.raises(DownloadError):
            async with client.open_export(export):
                pytest.fail("it was opened")


async def test_downloads_at_once_are_limited(tmp_path: Path) -> None:
    """No more than `downloads` files are under way, over all runs and calls of a client."""
    sandbox = Sandbox(segments=20, rows=5, durations=STEADY)
    sandbox.inject(Fault.slow(5.0), origin="files", times=20)
    async with connected(sandbox, downloads=3) as client, anyio.create_task_group() as tasks:
        tasks.start_soon(client.bulk_export, sandbox.segment_ids[:12], tmp_path / "out")
        for number, segment_id in enumerate(sandbox.segment_ids[12:]):
            tasks.start_soon(client.export, segment_id, tmp_path / f"{number}.csv")
    files = sandbox.record.files()
    at_once = max(sum(1 for e in files if e.at <= f.at < (e.ended_at or 0.0)) for f in files)
    assert (len(files), at_once) == (20, 3)


async def test_a_refused_outcome_is_of_its_own_segment(tmp_path: Path) -> None:
    """Storage's 404 to one file is that segment's outcome alone."""
    sandbox = Sandbox(segments=5, rows=5)
    bad = sandbox.segment_ids[2]
    sandbox.inject(Fault.status(404), origin="files", path=sandbox.export_id(bad), times=99)
    async with connected(sandbox) as client:
        report = await client.bulk_export(sandbox.segment_ids, tmp_path)
    assert [o.segment_id for o in report.not_exported] == [bad]
    assert isinstance(report.not_exported[0], NotExported)
    assert len(report.exported) == 4


async def test_a_body_is_read_once() -> None:
    """A second reader of a body is refused: it would begin in the middle."""
    sandbox = Sandbox()
    async with connected(sandbox) as client:
        export = await client.wait_for_export(await client.request_export(PAGE_SEGMENT_ID))
        async with client.open_export(export) as body:
            rows = body.rows()
            with pytest.raises(ConfigurationError, match="read once"):
                body.rows()
            assert len([row async for row in rows]) == 1000


async def test_a_file_waits_for_descriptors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that is out of descriptors for a moment loses no file, and no received bytes."""
    sandbox = Sandbox(rows=5)
    open_part, failures = PartFile.open, [errno.EMFILE, errno.ENFILE, errno.EMFILE]

    def scarce(part: PartFile, export_id: str, **options: bool) -> None:
        if failures:
            raise OSError(failures.pop(), "Too many open files")
        open_part(part, export_id, **options)

    monkeypatch.setattr(PartFile, "open", scarce)
    async with connected(sandbox) as client:
        file = await client.export(PAGE_SEGMENT_ID, tmp_path / "a.csv")
    assert is_whole(sandbox, file.path, PAGE_SEGMENT_ID)
    assert not failures
