"""Faults of stores and networks, from public reports: no export is lost, and none is told twice."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from typing import Any

import anyio
import pytest
from client.vendor import STEADY, connected
from frames import given_away

from objects.conftest import Bucket
from objects.faulty import Answer, FaultyS3, refusal
from segments_async import (
    BulkReport,
    ConfigurationError,
    DestinationError,
    Exported,
    HeldReason,
)
from segments_async._files.object_storage import ObjectStorage
from segments_async._sansio.files.urls import object_place
from segments_async.sandbox import Fault, Sandbox

LARGE = 60_000

pytestmark = [pytest.mark.usefixtures("small_parts", "impatient"), pytest.mark.alternating]


@pytest.fixture
def faulty(bucket: Bucket, s3_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyS3]:
    """A proxy before the server, which obstore takes for the store."""
    del bucket  # its environment is changed here
    store = FaultyS3(s3_server)
    with store.serving() as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        yield store


async def exported(bucket: Bucket, sandbox: Sandbox, **options: Any) -> BulkReport[Exported]:
    async with connected(sandbox) as client:
        return await client.bulk_export(
            await client.list_segments(), f"s3://{bucket.name}/x", **options
        )


def is_whole(bucket: Bucket, sandbox: Sandbox, report: BulkReport[Exported]) -> bool:
    return report.ok and all(
        bucket.read(one.file.location.removeprefix(f"s3://{bucket.name}/"))
        == sandbox.content(one.segment_id)
        for one in report.exported
    )


@pytest.mark.parametrize("name", ["AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL"])
async def test_a_setting_with_a_newline(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """As a secret's file has one: the variable is named, and not its value."""
    sandbox = Sandbox(segments=1)
    monkeypatch.setenv(name, "http://SeCrEt\n")
    with pytest.raises(ConfigurationError, match=f"^{name}: begins or ends") as caught:
        await exported(bucket, sandbox)
    assert "SeCrEt" not in given_away(caught.value)
    assert sandbox.record.submits() == []


@pytest.mark.parametrize(
    ("url", "name"),
    [("gs://bucket", "AWS_SESSION_TOKEN"), ("s3://bucket", "AZURE_STORAGE_SAS_KEY")],
)
def test_a_setting_of_another_store(monkeypatch: pytest.MonkeyPatch, url: str, name: str) -> None:
    """A newline in a variable that is not used refuses nothing."""
    monkeypatch.setenv(name, "secret\n")
    assert ObjectStorage.at(object_place(url)).location == url


@pytest.mark.parametrize(
    ("endpoint", "words"),
    [("::SeCrEt::", "obstore panicked"), ("http://me:SeCrEt@127.0.0.1:9", "doesn't answer")],
)
async def test_an_endpoint_that_cannot_be_used(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, endpoint: str, words: str
) -> None:
    """A panic of obstore's is an error as any other, and no error shows the endpoint's password."""
    sandbox = Sandbox(segments=1)
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    with pytest.raises(DestinationError, match=words) as caught:
        await exported(bucket, sandbox)
    assert "SeCrEt" not in given_away(caught.value)
    assert sandbox.record.submits() == []


@pytest.mark.parametrize("rows", [10, LARGE])
async def test_no_thread_can_be_started_for_a_while(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    """The files wait, and are written once threads can be started again."""
    sandbox = Sandbox(segments=2, rows=rows, durations=STEADY)
    started, start = list[str](), threading.Thread.start

    def at_times(thread: threading.Thread) -> None:
        if thread.name.startswith("segments-async-"):
            started.append(thread.name)
            if len(started) in (7, 8, 12, 15, 18):  # the run begins with six
                raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", at_times)
    report = await exported(bucket, sandbox)
    assert is_whole(bucket, sandbox, report)
    assert len(sandbox.record.submits()) == 2


async def test_no_thread_at_the_begin(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an error of the destination, before anything is asked of the vendor."""
    start = threading.Thread.start

    def fails(thread: threading.Thread) -> None:
        if thread.name.startswith("segments-async-"):
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", fails)
    sandbox = Sandbox(segments=1)
    with pytest.raises(DestinationError, match="no thread can be started") as caught:
        await exported(bucket, sandbox)
    assert caught.value.reason == "away"
    assert sandbox.record.submits() == []


@pytest.mark.parametrize("rows", [10, LARGE])
async def test_the_answer_to_the_last_request_is_lost(
    bucket: Bucket, faulty: FaultyS3, rows: int
) -> None:
    """The object is there: it counts as written, and isn't uploaded twice."""
    sandbox = Sandbox(segments=1, rows=rows, durations=STEADY)
    kind: Any = "put" if rows == 10 else "complete"
    faulty.faults.append((kind, Answer(0, acts=True)))
    report = await exported(bucket, sandbox)
    assert is_whole(bucket, sandbox, report)
    assert len(sandbox.record.files()) == 1
    assert bucket.uploads() == []


async def test_the_answer_is_lost_and_the_store_goes_away(bucket: Bucket, faulty: FaultyS3) -> None:
    """The object of the attempt whose answer was lost counts as written by the next attempt."""
    sandbox = Sandbox(segments=1, rows=LARGE, durations=STEADY)
    # As on S3, the repeated request finds no upload; then the look at the object fails, too.
    faulty.faults.append(("complete", Answer(0, acts=True)))
    faulty.faults.append(("complete", refusal(404, "NoSuchUpload")))

    def fail_the_look(kind: str, path: str) -> None:
        if kind == "complete":
            for _ in range(2):  # obstore repeats it once
                faulty.faults.append(("head", refusal(503, "SlowDown")))
            faulty.on_request = lambda kind, path: None

    faulty.on_request = fail_the_look
    report = await exported(bucket, sandbox)
    assert is_whole(bucket, sandbox, report)
    assert faulty.count("create") == 2
    assert bucket.uploads() == []


async def test_a_complete_with_an_error_in_its_body(bucket: Bucket, faulty: FaultyS3) -> None:
    """200 with `InternalError` in the body is an error, and the request is repeated."""
    sandbox = Sandbox(segments=1, rows=LARGE, durations=STEADY)
    faulty.faults.append(("complete", Answer(200, refusal(200, "InternalError").body)))
    assert is_whole(bucket, sandbox, await exported(bucket, sandbox))
    assert bucket.uploads() == []


async def test_a_store_that_ignores_conditions(
    bucket: Bucket, faulty: FaultyS3, caplog: pytest.LogCaptureFixture
) -> None:
    """Such a store is noticed, and existing objects are found by asking for them."""
    faulty.ignores_conditions = True
    sandbox = Sandbox(segments=2, durations=STEADY)
    first = await exported(bucket, sandbox)
    second = await exported(bucket, sandbox)
    assert is_whole(bucket, sandbox, first)
    assert "ignores the conditions" in caplog.text
    assert not second.exported
    assert len(sandbox.record.submits()) == 2
    assert len(bucket.read("x/manifest.jsonl").splitlines()) == 2


@pytest.mark.parametrize("abort", [refusal(403, "AccessDenied"), refusal(503, "SlowDown")])
async def test_an_upload_that_cannot_be_aborted(
    bucket: Bucket, faulty: FaultyS3, abort: Answer, caplog: pytest.LogCaptureFixture
) -> None:
    """Without the right to abort, or while the store is away, a warning names the object."""
    sandbox = Sandbox(segments=1, rows=LARGE, durations=STEADY)
    for _ in range(5):
        sandbox.inject(Fault(length=9_000_000), origin="files")
    faulty.always["abort"] = abort
    report = await exported(bucket, sandbox)
    (missing,) = report.not_exported
    assert missing.resumable
    (line, *_) = [one for one in caplog.messages if "could not be removed" in one]
    assert f"s3://{bucket.name}/x/My-Segment" in line
    assert bucket.keys() == ["x/manifest.jsonl"]


@pytest.mark.parametrize(
    ("answer", "reason", "words"),
    [
        (refusal(403, "AccessDenied"), "denied", "need the right to list"),
        (refusal(403, "RequestTimeTooSkewed"), "denied", "set the clock"),
        (refusal(400, "ExpiredToken"), "denied", "have expired"),
        (refusal(403, "SignatureDoesNotMatch"), "denied", "doesn't accept the credentials"),
        (refusal(404, "NoSuchBucket"), "missing", "the bucket doesn't exist"),
        (refusal(301, "PermanentRedirect"), "missing", "in another region"),
        (
            refusal(400, "AuthorizationHeaderMalformed", "<Region>eu-west-3</Region>"),
            "missing",
            "set AWS_REGION=eu-west-3",
        ),
        (refusal(507, "XMinioStorageFull"), "full", "the store is full"),
        (refusal(503, "SlowDown"), "away", "unavailable"),
        (Answer(0), "away", "doesn't answer"),
    ],
)
async def test_a_store_that_refuses_is_found_before_any_post(
    bucket: Bucket, faulty: FaultyS3, answer: Answer, reason: str, words: str
) -> None:
    """The error says what to do, has no text of the store's own, and nothing was asked for."""
    faulty.always["put"] = answer
    sandbox = Sandbox(segments=1, durations=STEADY)
    with pytest.raises(DestinationError, match=words) as caught:
        await exported(bucket, sandbox)
    assert caught.value.reason == reason
    assert "of the test" not in str(caught.value)
    assert "http://" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert sandbox.record.submits() == []


@pytest.mark.parametrize("rows", [10, LARGE])
async def test_a_store_that_is_away_for_a_while_is_waited_for(
    bucket: Bucket, faulty: FaultyS3, rows: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Files wait for the store, the run says so, and each is whole in the end."""
    caplog.set_level(logging.WARNING)
    sandbox = Sandbox(segments=2, rows=rows, durations=STEADY)
    held: set[HeldReason] = set()
    async with connected(sandbox) as client:
        segments = await client.list_segments()
        async with client.open_bulk_export(segments, f"s3://{bucket.name}/x") as run:
            faulty.always = {kind: refusal(503, "SlowDown") for kind in ("put", "part", "create")}
            async with anyio.create_task_group() as tasks:

                async def look() -> None:
                    while HeldReason.DESTINATION_AWAY not in held:
                        await anyio.sleep(1)
                        if run.progress.held is not None:
                            held.add(run.progress.held.reason)
                    faulty.always = {}

                tasks.start_soon(look)
            report = await run.report()
    assert is_whole(bucket, sandbox, report)
    assert len(sandbox.record.submits()) == 2
    assert bucket.uploads() == []
    lines = bucket.read("x/manifest.jsonl").decode().splitlines()
    assert len({json.loads(line)["segment_id"] for line in lines}) == 2


async def test_a_right_that_is_taken_away_leaves_the_export_resumable(
    bucket: Bucket, faulty: FaultyS3
) -> None:
    """Credentials that expire in the middle end the files at once; the exports aren't lost."""
    sandbox = Sandbox(segments=1, durations=STEADY)
    async with connected(sandbox) as client:
        segments = await client.list_segments()
        async with client.open_bulk_export(segments, f"s3://{bucket.name}/x") as run:
            faulty.always["put"] = refusal(403, "ExpiredToken")
            report = await run.report()
        (missing,) = report.not_exported
        assert missing.resumable
        assert "have expired" in str(missing.error)
        faulty.always.clear()
        assert missing.export is not None
        file = await client.download_export(missing.export, f"s3://{bucket.name}/x/one.csv")
    assert bucket.read("x/one.csv") == sandbox.content(file.export.segment.segment_id)
