"""Other programs change the part: the file in place has the bytes that were reported."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import itertools
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from client.vendor import STEADY, connected, names_in
from holder import outlived

import segments_async
from segments_async import (
    ConfigurationError,
    Exported,
    ExportedFile,
    JournalError,
    SegmentsClient,
)
from segments_async._files import body_writer, download
from segments_async._files import part as part_module
from segments_async._files.locked_part import PartBusy, PartModified
from segments_async._files.part import PartFile, part_of, sidecar_of
from segments_async._requests import calls
from segments_async._sansio.files.ranges import ObjectVersion
from segments_async.sandbox import PAGE_SEGMENT_ID, Fault, FileHost, Sandbox

OBJECT = ObjectVersion(total=10, etag='"abc"', ranges=True)


def swap(part: Path) -> None:
    stranger = part.with_name("stranger")
    stranger.write_bytes(b"x" * 10)
    stranger.replace(part)


def write_into(part: Path) -> None:
    with part.open("r+b") as file:
        file.write(b"strange")


def empty(part: Path) -> None:
    os.truncate(part, 0)


DISTURBANCES: dict[str, Callable[[Path], None]] = {
    "removed": Path.unlink,
    "emptied": empty,
    "swapped": swap,
    "written to": write_into,
}


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body_writer, "FIRST_BATCH", 20_000)
    monkeypatch.setattr(download, "BATCH", 20_000)


@pytest.mark.parametrize("disturb", DISTURBANCES.values(), ids=DISTURBANCES)
async def test_the_file_is_the_one_that_was_told(
    disturb: Callable[[Path], None], tmp_path: Path, small_batches: None
) -> None:
    """Whatever other programs do to the part, the file is whole and has the reported hash."""
    sandbox = Sandbox(rows=3000, durations=STEADY, file_host=FileHost(rate=50_000))
    target = tmp_path / "a.csv"
    files: list[ExportedFile] = []
    async with connected(sandbox) as client, anyio.create_task_group() as tasks:

        async def outsider() -> None:
            while (  # noqa: ASYNC110 (a file says nothing when it grows)
                not part_of(target).exists() or part_of(target).stat().st_size < 50_000
            ):
                await anyio.sleep(0.1)  # virtual: the part is looked at by its size
            disturb(part_of(target))

        tasks.start_soon(outsider)
        files.append(await client.export(PAGE_SEGMENT_ID, target))
    [file] = files
    assert hashlib.sha256(target.read_bytes()).hexdigest() == file.sha256
    assert file.sha256 == sandbox.sha256(PAGE_SEGMENT_ID)
    assert names_in(tmp_path) == ["a.csv"]


@pytest.mark.parametrize("disturb", DISTURBANCES.values(), ids=DISTURBANCES)
def test_between_two_downloads(disturb: Callable[[Path], None], tmp_path: Path) -> None:
    """A change of a part between two downloads is found by the hash in its sidecar."""
    target = tmp_path / "a.csv"
    part = PartFile(target)
    part.open("export-1")
    part.version = OBJECT
    part.write(0, b"0123456")
    part.keep()
    disturb(part_of(target))
    part = PartFile(target)
    part.open("export-1")
    if part.held:
        with pytest.raises(PartModified):
            part.write(7, b"789")
    part.discard()


def test_two_machines_whose_locks_lock_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two downloads to one name each put their own whole file in place, and the later one stays."""
    monkeypatch.setattr(fcntl, "flock", lambda *_: None)
    target = tmp_path / "a.csv"
    first, second = PartFile(target), PartFile(target)
    for part, machine in ((first, "A"), (second, "B")):
        monkeypatch.setattr(part_module, "boot_id", lambda machine=machine: machine)
        part.open("export-1")
        part.version = OBJECT
        part.write(0, b"01234")
    first.write(5, b"56789")
    second.write(5, b"56789")
    for part in (first, second):
        told = part.finish()
        assert hashlib.sha256(target.read_bytes()).hexdigest() == told.sha256
    assert names_in(tmp_path) == ["a.csv"]


def test_another_export_of_a_machine_without_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither of two downloads without locks writes into the file of the other."""
    monkeypatch.setattr(fcntl, "flock", lambda *_: None)
    target = tmp_path / "a.csv"
    first, second = PartFile(target), PartFile(target)
    first.open("export-1")
    first.version = OBJECT
    first.write(0, b"01234")
    second.open("export-2")
    second.version = OBJECT
    second.write(0, b"abcde")
    first.write(5, b"56789")
    first.finish()
    assert target.read_bytes() == b"0123456789"
    second.write(5, b"fghij")
    second.finish()
    assert target.read_bytes() == b"abcdefghij"
    assert not sidecar_of(target).exists()


@pytest.mark.parametrize(
    "number",
    [errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK, errno.EACCES, errno.EPERM, errno.ENOTTY],
)
async def test_a_mount_without_locks(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files are downloaded without locks, too."""

    def fails(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", fails)
    await exports_all(tmp_path)


@pytest.mark.parametrize("number", [errno.ENOTSUP, errno.ENOTTY, errno.EINVAL])
async def test_a_mount_that_can_sync_nothing(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without any sync the files are whole and in place; an export isn't lost for its want."""

    def fails(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fails)
    await exports_all(tmp_path)


async def test_a_disk_that_fails_at_a_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of the disk at a sync is an outcome, and no file is in place."""

    def fails(_: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fails)
    sandbox = Sandbox(rows=5, durations=STEADY)
    async with connected(sandbox) as client:
        report = await client.bulk_export([PAGE_SEGMENT_ID], tmp_path)
    assert "Input/output error" in str(report.not_exported[0].error)
    assert [one async for one in anyio.Path(tmp_path).glob("*.csv")] == []


@pytest.mark.parametrize(
    "number", [errno.EINVAL, errno.ENOTSUP, errno.ENOTTY, errno.ENOENT, errno.EACCES, errno.EPERM]
)
async def test_a_mount_that_cant_sync_a_directory(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without syncs of directories the files are synced and in place."""
    sync = os.fsync

    def fails(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(number, os.strerror(number))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", fails)
    await exports_all(tmp_path)


async def test_no_thread_for_the_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file is hashed without a thread of its own where none can be started, every other time."""
    refused, start = list[bool](), threading.Thread.start

    def at_times(thread: threading.Thread) -> None:
        if thread.name.startswith("segments-async-hash"):
            refused.append(len(refused) % 2 == 0)
            if refused[-1]:
                raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", at_times)
    sandbox = Sandbox(rows=60_000, durations=STEADY)
    async with connected(sandbox) as client:
        file = await client.export(PAGE_SEGMENT_ID, tmp_path / "a.csv")
    assert True in refused
    assert file.sha256 == hashlib.sha256(sandbox.content(PAGE_SEGMENT_ID)).hexdigest()


def refuse_threads(monkeypatch: pytest.MonkeyPatch, when: Callable[[], bool]) -> list[str]:
    """As anyio at a limit of threads; `when`: whether the next call finds none. Lists these."""
    run, refused = anyio.to_thread.run_sync, list[str]()

    async def at_times(function: Callable[..., Any], *args: Any, **options: Any) -> Any:
        if when():
            refused.append(function.__name__)
            raise RuntimeError("can't start new thread")
        return await run(function, *args, **options)

    monkeypatch.setattr(anyio.to_thread, "run_sync", at_times)
    return refused


async def test_no_thread_every_other_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls wait for a thread: every file is exported, and each export is in the journal."""
    sandbox = Sandbox(segments=3, rows=500, durations=STEADY)
    calls = itertools.count()
    refuse_threads(monkeypatch, lambda: next(calls) % 2 == 0)
    async with connected(sandbox) as client:
        report = await client.bulk_export(
            sandbox.segment_ids, tmp_path, journal=tmp_path / "runs.db", run="a"
        )
        again = await client.bulk_export(
            sandbox.segment_ids, tmp_path, journal=tmp_path / "runs.db", run="a"
        )
    assert report.ok
    assert again.ok
    assert len(sandbox.record.submits()) == 3
    assert [name for name in names_in(tmp_path) if "part" in name] == []


async def test_no_thread_for_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run outlives it, as it outlives a journal that is away; nothing is asked for twice."""
    sandbox = Sandbox(segments=6, rows=2000, durations=STEADY, file_host=FileHost(rate=60_000))
    refused = refuse_threads(monkeypatch, lambda: 5 < anyio.current_time() < 35)
    async with connected(sandbox) as client:
        report = await client.bulk_export(
            sandbox.segment_ids, tmp_path, journal=tmp_path / "runs.db"
        )
    report.raise_for_errors()
    assert len(refused) > 20
    assert sandbox.record.duplicates() == {}


async def test_no_thread_for_a_long_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A long list is decoded without a thread."""
    sandbox = Sandbox(segments=3)
    refuse_threads(monkeypatch, lambda: True)
    monkeypatch.setattr(calls, "DECODE_IN_THREAD", 0)
    async with connected(sandbox) as client:
        assert len(await client.list_segments()) == 3


async def test_no_thread_at_the_begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an error of the library, before anything is asked of the vendor."""
    sandbox = Sandbox()
    refuse_threads(monkeypatch, lambda: True)
    async with connected(sandbox) as client:
        with pytest.raises(ConfigurationError, match="can't start new thread"):
            await client.export(PAGE_SEGMENT_ID, tmp_path / "a.csv")
        with pytest.raises(ConfigurationError, match="can't start new thread"):
            await client.bulk_export([PAGE_SEGMENT_ID], tmp_path)
        with pytest.raises(JournalError, match="can't start new thread") as caught:
            await client.bulk_export([PAGE_SEGMENT_ID], tmp_path, journal=tmp_path / "runs.db")
    assert caught.value.reason == "unavailable"
    assert sandbox.record.submits() == []


async def exports_all(to: Path) -> None:
    sandbox = Sandbox(segments=3, rows=5, durations=STEADY)
    async with connected(sandbox) as client:
        report = await client.bulk_export(sandbox.segment_ids, to)
    assert report.ok
    assert len(sandbox.record.files()) == 3


async def test_a_lock_of_somebody_else(tmp_path: Path) -> None:
    """A part that stays locked without a change is waited for, and then begun anew."""
    sandbox = Sandbox(rows=5, durations=STEADY)
    target = tmp_path / "a.csv"
    with part_of(target).open("wb") as stranger:
        fcntl.flock(stranger, fcntl.LOCK_EX)
        async with connected(sandbox) as client:
            file = await client.export(PAGE_SEGMENT_ID, target)
    assert hashlib.sha256(target.read_bytes()).hexdigest() == file.sha256


async def test_two_runs_share_their_files(tmp_path: Path) -> None:
    """Two runs at once of one client into one directory: both have all files."""
    sandbox = Sandbox(segments=6, rows=500, durations=STEADY, file_host=FileHost(rate=20_000))
    runs: list[list[object]] = [[], []]

    async def run(client: SegmentsClient, outcomes: list[object]) -> None:
        report = await client.bulk_export(sandbox.segment_ids, tmp_path)
        outcomes += [*report.exported, *report.not_exported]

    async with connected(sandbox) as client, anyio.create_task_group() as tasks:
        for outcomes in runs:
            tasks.start_soon(run, client, outcomes)
    for outcomes in runs:
        assert [type(outcome) for outcome in outcomes] == [Exported] * 6
    assert sandbox.record.duplicates() == {}


async def test_two_clients_want_one_file(tmp_path: Path, small_batches: None) -> None:
    """The second download waits, and both report the file that is on the disk."""
    sandbox = Sandbox(rows=1000, durations=STEADY, file_host=FileHost(rate=50_000))
    files: list[ExportedFile] = []
    async with connected(sandbox) as one, connected(sandbox) as two:
        export = await one.wait_for_export(await one.request_export(PAGE_SEGMENT_ID))

        async def fetch(client: SegmentsClient) -> None:
            files.append(await client.download_export(export, tmp_path / "a.csv"))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(fetch, one)
            tasks.start_soon(fetch, two)
    assert [file.sha256 for file in files] == 2 * [sandbox.sha256(PAGE_SEGMENT_ID)]
    assert names_in(tmp_path) == ["a.csv"]


REFUSALS = [
    (403, "RequestTimeTooSkewed"),
    (403, "InvalidAccessKeyId"),
    (400, "InvalidToken"),
    (403, "SignatureDoesNotMatch"),
    (403, "AccessDenied"),
    (400, "InvalidRequest"),
    (404, "NoSuchBucket"),
]


@pytest.mark.parametrize(("status", "code"), REFUSALS)
async def test_a_refusal_that_may_pass_costs_nothing(
    status: int, code: str, tmp_path: Path, small_batches: None
) -> None:
    """The downloaded bytes are kept, and the next download requests only the rest."""
    sandbox = Sandbox(rows=1000, durations=STEADY)
    sandbox.inject(Fault.cut(30_000), origin="files")
    page = f"<Error><Code>{code}</Code></Error>"
    sandbox.inject(Fault.status(status, body=page), origin="files")
    async with connected(sandbox) as client:
        export = await client.wait_for_export(await client.request_export(PAGE_SEGMENT_ID))
        with pytest.raises(segments_async.DownloadError):
            await client.download_export(export, tmp_path / "a.csv")
        file = await client.download_export(export, tmp_path / "a.csv")
    assert (sandbox.record.files()[-1].headers or {})["range"] == "bytes=30000-"
    assert file.sha256 == sandbox.sha256(PAGE_SEGMENT_ID)


def test_a_forked_child_holds_no_part(tmp_path: Path) -> None:
    """A child that outlives the downloading process doesn't keep the part locked."""
    target = tmp_path / "a.csv"
    opens = (
        "from segments_async._files.part import PartFile\n"
        "part = PartFile(path)\n"
        "part.open('export-1')"
    )
    with outlived(opens, target) as process:
        part = PartFile(target)
        with pytest.raises(PartBusy):
            part.open("export-1")
        process.kill()
        process.wait()
        part.open("export-1")
        part.version = OBJECT
        part.write(0, b"0123")
        assert part_of(target).read_bytes() == b"0123"
        part.discard()
