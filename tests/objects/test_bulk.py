"""A bulk export into a bucket, judged by what the server has in it."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path
from typing import Any

import anyio
import pytest
from client.vendor import STEADY, connected

from objects.conftest import Bucket
from segments_async import (
    DownloadError,
    Exported,
    Journal,
    TargetExistsError,
)
from segments_async._files.object_storage import ObjectStorage
from segments_async._run.bulk_run import file_names
from segments_async._sansio.files.urls import object_place
from segments_async.sandbox import API_ORIGIN, PAGE_API_KEY, Fault, Sandbox

pytestmark = pytest.mark.alternating

#: A file of some 6 MiB, which is uploaded in parts of 5 MiB.
LARGE = 60_000


def key_of(exported: Exported, bucket: Bucket) -> str:
    return exported.file.location.removeprefix(f"s3://{bucket.name}/")


def posts(sandbox: Sandbox) -> int:
    return len(sandbox.record.submits())


async def test_each_export_becomes_an_object(bucket: Bucket) -> None:
    """Each object has the vendor's bytes and is named as a file would be; so has the manifest."""
    sandbox = Sandbox(segments=3, durations=STEADY)
    async with connected(sandbox) as client:
        segments = await client.list_segments()
        names = file_names(segments)
        report = await client.bulk_export(segments, f"s3://{bucket.name}/a b/20%/")
    assert report.ok
    for one in report.exported:
        key = f"a b/20%/{names[one.segment_id]}"
        assert bucket.read(key) == sandbox.content(one.segment_id)
        assert one.file.location == f"s3://{bucket.name}/{key}"
        assert one.file.sha256 == hashlib.sha256(bucket.read(key)).hexdigest()
        assert one.file.verified
        assert bucket.metadata(key)["exportid"] == one.export.export_id
    manifest = bucket.read("a b/20%/manifest.jsonl").decode().splitlines()
    assert [json.loads(line)["segment_id"] for line in manifest] == [
        one.segment_id for one in report.exported
    ]
    assert {json.loads(line)["file"] for line in manifest} == {
        one.file.location for one in report.exported
    }
    assert len(bucket.keys()) == 4


@pytest.mark.usefixtures("small_parts")
async def test_a_large_object_is_uploaded_in_parts(bucket: Bucket) -> None:
    """A body of several parts is whole in the bucket, and no upload is left unfinished."""
    sandbox = Sandbox(segments=2, rows=LARGE, durations=STEADY)
    async with connected(sandbox) as client:
        report = await client.bulk_export(await client.list_segments(), f"s3://{bucket.name}")
    assert report.ok
    for one in report.exported:
        key = one.file.location.removeprefix(f"s3://{bucket.name}/")
        assert bucket.read(key) == sandbox.content(one.segment_id)
    assert bucket.uploads() == []


@pytest.mark.usefixtures("small_parts")
async def test_a_broken_body_is_gone_on_with(bucket: Bucket) -> None:
    """A body that breaks off after its first part goes on by a range: the object is whole."""
    sandbox = Sandbox(segments=1, rows=LARGE, durations=STEADY)
    sandbox.inject(Fault.cut(5_800_000), origin="files")
    async with connected(sandbox) as client:
        report = await client.bulk_export(await client.list_segments(), f"s3://{bucket.name}/x")
    (one,) = report.exported
    assert bucket.read(key_of(one, bucket)) == sandbox.content(one.segment_id)
    asked = [(entry.headers or {}).get("range") for entry in sandbox.record.files()]
    assert len(asked) == 2
    assert (asked[1] or "") > "bytes=5"
    assert bucket.uploads() == []


@pytest.mark.usefixtures("small_parts")
async def test_a_body_that_is_not_whole_leaves_no_object(bucket: Bucket) -> None:
    """A body that is shorter than announced, again and again, leaves neither object nor upload."""
    sandbox = Sandbox(segments=1, rows=LARGE, durations=STEADY)
    for _ in range(5):
        sandbox.inject(Fault(length=9_000_000), origin="files")
    async with connected(sandbox) as client:
        report = await client.bulk_export(await client.list_segments(), f"s3://{bucket.name}/x")
    (missing,) = report.not_exported
    assert isinstance(missing.error, DownloadError)
    assert missing.resumable
    assert bucket.keys() == ["x/manifest.jsonl"]
    assert bucket.uploads() == []


@pytest.mark.usefixtures("small_parts")
async def test_leaving_the_run_aborts_the_upload(bucket: Bucket) -> None:
    """A run that is left in the middle of a body leaves neither an object nor an upload."""
    sandbox = Sandbox(segments=1, rows=LARGE, durations=STEADY)
    sandbox.inject(Fault(cut_after=5_500_000, delay=0.0), origin="files")
    sandbox.inject(Fault.slow(900.0), origin="files")
    seen: list[str] = []
    async with (
        connected(sandbox) as client,
        client.open_bulk_export(await client.list_segments(), f"s3://{bucket.name}/x") as run,
    ):
        while not (seen := bucket.uploads()):  # noqa: ASYNC110 - the server tells nobody
            await anyio.sleep(0.5)
    assert seen
    assert bucket.keys() == ["x/manifest.jsonl"]
    assert bucket.uploads() == []
    del run


async def test_an_object_that_is_there_is_refused_before_any_post(bucket: Bucket) -> None:
    """An existing object is kept, its segment isn't asked for; with overwrite it is replaced."""
    sandbox = Sandbox(segments=2, durations=STEADY)
    async with connected(sandbox) as client:
        segments = await client.list_segments()
        taken = file_names(segments)[segments[0].segment_id]
        bucket.write(f"x/{taken}", b"someone else's")
        report = await client.bulk_export(segments, f"s3://{bucket.name}/x")
        (missing,) = report.not_exported
        assert isinstance(missing.error, TargetExistsError)
        assert missing.error.path == f"s3://{bucket.name}/x/{taken}"
        assert bucket.read(f"x/{taken}") == b"someone else's"
        assert posts(sandbox) == 1
        again = await client.bulk_export(segments[:1], f"s3://{bucket.name}/x", overwrite=True)
    assert again.ok
    assert bucket.read(f"x/{taken}") == sandbox.content(segments[0].segment_id)


@pytest.mark.parametrize("rows", [10, LARGE])
@pytest.mark.usefixtures("small_parts")
async def test_an_object_that_appears_meanwhile_is_kept(bucket: Bucket, rows: int) -> None:
    """An object that another program writes during the run isn't replaced; the export is kept."""
    sandbox = Sandbox(segments=1, rows=rows, durations=STEADY)
    async with connected(sandbox) as client:
        segments = await client.list_segments()
        key = f"x/{file_names(segments)[segments[0].segment_id]}"
        async with client.open_bulk_export(segments, f"s3://{bucket.name}/x") as run:
            bucket.write(key, b"someone else's")
            report = await run.report()
    (missing,) = report.not_exported
    assert missing.resumable
    assert "exists" in str(missing.error)
    assert bucket.read(key) == b"someone else's"
    assert bucket.uploads() == []


async def test_only_changed_looks_at_the_object(bucket: Bucket, tmp_path: Path) -> None:
    """An unchanged segment is exported again only where its object is gone, or has another size."""
    sandbox = Sandbox(segments=3, durations=STEADY)
    to = f"s3://{bucket.name}/x/"
    async with connected(sandbox) as client:
        segments = [s for s in await client.list_segments() if s.type == "Static"] or (
            await client.list_segments()
        )
        first = await client.bulk_export(segments, to, journal=tmp_path / "runs.db")
        assert first.ok
        before = posts(sandbox)
        keys = [key_of(one, bucket) for one in first.exported]
        bucket.write(keys[0], b"shorter")
        second = await client.bulk_export(
            segments, to.rstrip("/"), journal=tmp_path / "runs.db", only_changed=True
        )
        journal = await Journal.open(
            tmp_path / "runs.db", api_key=PAGE_API_KEY, base_url=API_ORIGIN
        )
        unchanged = await journal.unchanged(segments, to)
    assert second.ok
    sources = {key_of(one, bucket): one.source for one in second.exported}
    assert sources[keys[0]] == "exported"
    assert set(sources.values()) <= {"exported", "unchanged"}
    assert posts(sandbox) == before + list(sources.values()).count("exported")
    assert "unchanged" in sources.values()
    assert len(unchanged) >= 1
    assert [run.destination for run in await journal.runs(to)] == [f"s3://{bucket.name}/x"] * 2


async def test_a_run_that_was_left_goes_on(bucket: Bucket, tmp_path: Path) -> None:
    """A second session takes up the exports of the first: no segment is asked for twice."""
    sandbox = Sandbox(segments=4, durations=STEADY)
    options: dict[str, Any] = {"journal": tmp_path / "runs.db", "run": "tonight"}
    to = f"s3://{bucket.name}/x"
    async with connected(sandbox) as client:
        segments = await client.list_segments()
        first = await client.bulk_export(segments, to, timeout=3.0, **options)
        assert not first.ok
        report = await client.bulk_export(segments, to, **options)
        told = await client.bulk_export(segments, to, **options)
    assert report.ok
    assert told.ok
    assert {one.source for one in told.exported} == {"resumed"}
    assert posts(sandbox) == 4
    assert len(bucket.keys()) == 5


async def test_the_object_of_a_killed_session_is_not_fetched_again(
    bucket: Bucket, tmp_path: Path
) -> None:
    """A whole object of the same export, which no session recorded, is found by its metadata."""
    sandbox = Sandbox(segments=1, durations=STEADY)
    options: dict[str, Any] = {"journal": tmp_path / "runs.db", "run": "tonight"}
    to = f"s3://{bucket.name}/x"
    async with connected(sandbox) as client:
        segments = await client.list_segments()
        await client.bulk_export(segments, to, timeout=2.0, **options)
        (entry,) = sandbox.record.submits()
        content = sandbox.content(segments[0].segment_id)
        sha256 = hashlib.sha256(content).hexdigest()
        key = f"x/{file_names(segments)[segments[0].segment_id]}"
        known = {"exportid": entry.export_id or "", "sha256": sha256, "verified": "true"}
        bucket.write(key, content, known)
        report = await client.bulk_export(segments, to, **options)
    (one,) = report.exported
    assert (one.file.sha256, one.file.size, one.file.verified) == (sha256, len(content), True)
    assert sandbox.record.files() == []


async def test_an_object_of_another_export_is_replaced_by_the_run_that_asked(
    bucket: Bucket, tmp_path: Path
) -> None:
    """The object of last night's export is replaced by tonight's, also after a restart."""
    sandbox = Sandbox(segments=1, durations=STEADY)
    to, journal = f"s3://{bucket.name}/x", tmp_path / "runs.db"
    async with connected(sandbox) as client:
        segments = await client.list_segments()
        assert (await client.bulk_export(segments, to, journal=journal)).ok
        await client.bulk_export(segments, to, journal=journal, timeout=2.0)
        report = await client.bulk_export(segments, to, journal=journal)
    (one,) = report.exported
    assert one.source == "exported"
    assert bucket.read(key_of(one, bucket)) == sandbox.content(one.segment_id, 1)
    assert bucket.metadata(key_of(one, bucket))["exportid"] == one.export.export_id


async def test_one_export_to_an_object(bucket: Bucket) -> None:
    """`export` and `download_export` take the URL of an object, and refuse one that is there."""
    sandbox = Sandbox(segments=1, durations=STEADY)
    url = f"s3://{bucket.name}/one/name of mine.csv"
    async with connected(sandbox) as client:
        (segment,) = await client.list_segments()
        file = await client.export(segment, url)
        assert file.location == url
        assert bucket.read("one/name of mine.csv") == sandbox.content(segment.segment_id)
        with pytest.raises(TargetExistsError):
            await client.download_export(file.export, url)
        again = await client.download_export(file.export, url, overwrite=True)
    assert again.sha256 == file.sha256


async def test_no_secret_is_shown(
    bucket: Bucket, environment: dict[str, str], caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """The secret key is in no log line, no journal and no object."""
    caplog.set_level(logging.DEBUG)
    sandbox = Sandbox(segments=2, durations=STEADY)
    async with connected(sandbox) as client:
        run = client.open_bulk_export(
            await client.list_segments(), f"s3://{bucket.name}/x", journal=tmp_path / "runs.db"
        )
        async with run:
            assert (await run.report()).ok
    secret = environment["AWS_SECRET_ACCESS_KEY"]
    assert secret not in caplog.text + repr(run)
    assert secret.encode() not in (tmp_path / "runs.db").read_bytes()
    assert not any(secret.encode() in bucket.read(key) for key in sorted(bucket.keys()))


async def test_lines_of_two_processes_are_all_there(bucket: Bucket) -> None:
    """Two runs at once, each with a store of its own, lose no line of `manifest.jsonl`."""
    sandbox = Sandbox(segments=8, durations=STEADY)
    to = f"s3://{bucket.name}/x"
    async with connected(sandbox) as one, connected(sandbox) as other:
        segments = await one.list_segments()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(one.bulk_export, segments[:4], to)
            tasks.start_soon(other.bulk_export, segments[4:], to)
    lines = bucket.read("x/manifest.jsonl").decode().splitlines()
    assert {json.loads(line)["segment_id"] for line in lines} == {s.segment_id for s in segments}
    assert len(lines) == 8


async def test_a_manifest_that_is_deleted_meanwhile_is_begun_anew(bucket: Bucket) -> None:
    """The lines that follow are all written, into a new object."""
    storage = ObjectStorage.at(object_place(f"s3://{bucket.name}/x"))
    await storage.prepare()
    await storage.append("manifest.jsonl", ["first"])
    bucket.delete("x/manifest.jsonl")
    await storage.append("manifest.jsonl", ["second"])
    await storage.append("manifest.jsonl", ["third"])
    assert bucket.read("x/manifest.jsonl") == b"second\nthird\n"
