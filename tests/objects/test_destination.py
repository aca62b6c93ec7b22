"""A destination of a user's own, and obstore's store in memory, by the public protocol."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

import anyio
import pytest
from client.vendor import STEADY, connected
from obstore.store import MemoryStore

from segments_async import (
    ConfigurationError,
    Destination,
    DestinationError,
    DestinationWriter,
    Journal,
    StoredFile,
    TargetExistsError,
)
from segments_async._files import object_lines
from segments_async._files.object_lines import ObjectLines
from segments_async._files.object_storage import ObjectStorage
from segments_async.sandbox import API_ORIGIN, PAGE_API_KEY, Durations, Fault, FileHost, Sandbox

pytestmark = pytest.mark.alternating

LARGE = 60_000


class InMemory:
    """Files in a dictionary."""

    location = "memory://of-the-test/files"

    def __init__(self) -> None:
        self.files: dict[str, tuple[bytes, Mapping[str, str]]] = {}
        self.unfinished: set[str] = set()
        self.lines: list[str] = []
        self.refuses: DestinationError | None = None

    async def prepare(self) -> None:
        if self.refuses is not None:
            raise self.refuses

    async def find(self, names: Collection[str]) -> Mapping[str, StoredFile]:
        return {name: await self._stored(name) for name in names if name in self.files}

    async def stat(self, name: str) -> StoredFile | None:
        return await self._stored(name) if name in self.files else None

    async def _stored(self, name: str) -> StoredFile:
        content, metadata = self.files[name]
        return StoredFile(size=len(content), metadata=metadata)

    async def open(
        self, name: str, *, size: int | None, metadata: Mapping[str, str], replace: bool
    ) -> DestinationWriter:
        del size
        self.unfinished.add(name)
        return Writer(self, name, metadata, replace=replace)

    async def append(self, name: str, lines: Sequence[str]) -> None:
        assert name == "manifest.jsonl"
        self.lines += lines


class Writer:
    def __init__(
        self, to: InMemory, name: str, metadata: Mapping[str, str], *, replace: bool
    ) -> None:
        self._to, self._name, self._metadata, self._replace = to, name, metadata, replace
        self._content = b""

    async def write(self, data: bytes) -> None:
        await anyio.lowlevel.checkpoint()
        self._content += data

    async def commit(self, metadata: Mapping[str, str]) -> None:
        if self._name in self._to.files and not self._replace:
            raise DestinationError(f"{self._name} exists", reason="exists")
        self._to.files[self._name] = (self._content, {**self._metadata, **metadata})
        self._to.unfinished.remove(self._name)

    async def abort(self) -> None:
        self._to.unfinished.discard(self._name)


class Bytes:
    """obstore's store in memory, which the library's own object storage writes to."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.storage = ObjectStorage(self.store, "memory://of-obstore")

    @property
    def files(self) -> dict[str, bytes]:
        found = [meta["path"] for chunk in self.store.list() for meta in chunk]
        return {path: bytes(self.store.get(path).bytes()) for path in found if "/" not in path}


@pytest.fixture(params=["own", "obstore"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def made(kind: str) -> tuple[Destination, Iterator[Mapping[str, bytes]]]:
    """A destination, and what is in it each time it is asked."""

    def own(place: InMemory) -> Iterator[Mapping[str, bytes]]:
        while True:
            yield {name: content for name, (content, _) in place.files.items()}

    def objects(place: Bytes) -> Iterator[Mapping[str, bytes]]:
        while True:
            yield {k: v for k, v in place.files.items() if k != "manifest.jsonl"}

    if kind == "own":
        mine = InMemory()
        return mine, own(mine)
    theirs = Bytes()
    return theirs.storage, objects(theirs)


async def test_files_go_to_a_destination_of_ones_own(kind: str) -> None:
    """Each export is a file there, with the vendor's bytes; the report has its URL."""
    to, files = made(kind)
    assert isinstance(to, Destination)
    sandbox = Sandbox(segments=4, rows=LARGE, durations=STEADY)
    sandbox.inject(Fault.cut(3_000_000), origin="files")
    async with connected(sandbox) as client:
        report = await client.bulk_export(await client.list_segments(), to)
    assert report.ok
    there = next(files)
    for one in report.exported:
        assert one.file.location.startswith(f"{to.location}/")
        name = one.file.location.rpartition("/")[2]
        assert there[name] == sandbox.content(one.segment_id)
        with pytest.raises(ConfigurationError):
            _ = one.file.path
    assert len(there) == 4


async def test_a_run_to_it_is_kept_in_the_journal(kind: str, tmp_path: Path) -> None:
    """A run goes on there, `only_changed` looks there, and existing files are refused."""
    to, files = made(kind)
    sandbox = Sandbox(segments=4, durations=STEADY)
    journal = tmp_path / "runs.db"
    async with connected(sandbox) as client:
        segments = await client.list_segments()
        await client.bulk_export(segments, to, journal=journal, timeout=3.0)
        assert (await client.bulk_export(segments, to, journal=journal)).ok
        refused = await client.bulk_export(segments, to)
        changed = await client.bulk_export(segments, to, journal=journal, only_changed=True)
    assert len(next(files)) == 4
    assert {type(one.error) for one in refused.not_exported} == {TargetExistsError}
    assert changed.ok
    assert "unchanged" in {one.source for one in changed.exported}
    opened = await Journal.open(journal, api_key=PAGE_API_KEY, base_url=API_ORIGIN)
    assert {run.destination for run in await opened.runs(to)} == {to.location}
    assert not (tmp_path / ".segments-async").exists()


async def test_what_is_not_whole_is_aborted() -> None:
    """Where the bytes aren't those that storage announced, nothing is committed."""
    to = InMemory()
    sandbox = Sandbox(segments=1, rows=LARGE, durations=STEADY)
    for _ in range(5):
        sandbox.inject(Fault(length=9_000_000), origin="files")
    async with connected(sandbox) as client:
        report = await client.bulk_export(await client.list_segments(), to)
    assert not report.ok
    assert (to.files, to.unfinished) == ({}, set())
    assert [json.loads(line)["outcome"] for line in to.lines] == ["not_exported"]


async def test_leaving_aborts() -> None:
    """A run that is left in the middle of a file aborts it."""
    to = InMemory()
    sandbox = Sandbox(segments=1, rows=LARGE, durations=STEADY)
    sandbox.inject(Fault.cut(5_000_000), origin="files")
    sandbox.inject(Fault.slow(900.0), origin="files")
    async with (
        connected(sandbox) as client,
        client.open_bulk_export(await client.list_segments(), to),
    ):
        while not to.unfinished:  # noqa: ASYNC110 - the destination tells nobody
            await anyio.sleep(0.5)
    assert (to.files, to.unfinished) == ({}, set())


async def test_a_destination_that_refuses_ends_the_run_before_any_post() -> None:
    """Its error is raised on entering, as it is."""
    to = InMemory()
    to.refuses = DestinationError("no room in the dictionary", reason="full")
    sandbox = Sandbox(segments=1, durations=STEADY)
    async with connected(sandbox) as client:
        with pytest.raises(DestinationError) as caught:
            await client.bulk_export(await client.list_segments(), to)
    assert caught.value is to.refuses
    assert sandbox.record.submits() == []


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("s3://key:secret@bucket/x", "a user, a password"),
        ("s3://key:its/secret@bucket/x", "a user, a password"),
        ("s3://key:secret/x", "no name of a bucket"),
        ("s3://bucket/x?sig=secret", "a query"),
        ("s3://bucket/x#secret", "a query or a fragment"),
        ("s3:///x", "no name of a bucket"),
        ("s3://", "names no place"),
        ("s3://bucket/a//b", "empty parts"),
        ("s3://bucket/../b", "'..'"),
        ("S3://bucket/\x1b", "control character"),
    ],
)
async def test_a_url_that_cannot_be_one(url: str, words: str) -> None:
    """It is refused when the run is made, and a secret in it isn't repeated."""
    async with connected(Sandbox(segments=1)) as client:
        with pytest.raises(ConfigurationError, match=words) as caught:
            client.open_bulk_export(["a-segment"], url)
    assert "secret" not in str(caught.value)


async def test_a_full_manifest_is_put_aside(monkeypatch: pytest.MonkeyPatch) -> None:
    """An object of lines stays small: full, it becomes one of its own, and no line is lost."""
    monkeypatch.setattr(object_lines, "LARGEST", 2_000)
    place = Bytes()
    await place.storage.prepare()
    wanted = [json.dumps({"at": f"2026-11-26T22:00:{n:02}", "n": n}) for n in range(60)]
    one, other = (ObjectLines(place.storage, "manifest.jsonl") for _ in range(2))
    for n, line in enumerate(wanted):
        await (one if n % 3 else other).add([line])
    files = place.files
    assert sorted(files) == sorted({*files, "manifest.jsonl"})
    assert len(files) > 1
    assert all(len(content) <= 2_000 for content in files.values())
    lines = [line for content in files.values() for line in content.decode().splitlines()]
    assert sorted(lines) == sorted(wanted)


class Slow(InMemory):
    """Takes so many seconds for each write; no request to it ends by itself."""

    seconds = 0.0

    async def open(
        self, name: str, *, size: int | None, metadata: Mapping[str, str], replace: bool
    ) -> DestinationWriter:
        inner = await super().open(name, size=size, metadata=metadata, replace=replace)
        write, to = inner.write, self

        async def slow_write(data: bytes) -> None:
            await anyio.sleep(to.seconds)
            await write(data)

        setattr(inner, "write", slow_write)  # noqa: B010 - a protocol's method
        return inner


@pytest.mark.parametrize("host", [FileHost(gzip=True), FileHost(ranges=False)])
async def test_a_destination_may_be_slower_than_storage(host: FileHost) -> None:
    """Minutes for one write are not taken for a storage that is slow: the file comes at once."""
    to = Slow()
    to.seconds = 200.0
    sandbox = Sandbox(segments=1, rows=LARGE, durations=STEADY, file_host=host)
    async with connected(sandbox) as client:
        report = await client.bulk_export(await client.list_segments(), to)
    (one,) = report.exported
    assert to.files[one.file.location.rpartition("/")[2]][0] == sandbox.content(one.segment_id)
    assert len(sandbox.record.files()) == 1


async def test_a_destination_that_hangs_does_not_hold_a_cancelled_run() -> None:
    """Bytes that wait for their batch when the run is left aren't handed to it any more."""
    to = Slow()
    sandbox = Sandbox(segments=1, rows=LARGE, durations=STEADY, file_host=FileHost(rate=2_000_000))
    async with connected(sandbox) as client:
        segments = await client.list_segments()
        async with client.open_bulk_export(segments, to):
            while not to.unfinished:  # noqa: ASYNC110 - the destination tells nobody
                await anyio.sleep(0.1)
            await anyio.sleep(0.2)  # a piece of the body waits for the next one
            to.seconds = 10_000.0
            left = anyio.current_time()
        assert anyio.current_time() - left < 60
    assert (to.files, to.unfinished) == ({}, set())


@pytest.mark.parametrize(
    "error", [RuntimeError("of the test"), OSError("no"), DestinationError("no", reason="exists")]
)
async def test_a_manifest_that_cannot_be_written_is_tried_again(error: Exception) -> None:
    """Whatever `append` raises ends no run, and loses no line if a later call works."""
    to, failing = InMemory(), [error] * 2
    append = to.append

    async def append_or_fail(name: str, lines: Sequence[str]) -> None:
        if failing:
            raise failing.pop()
        await append(name, lines)

    setattr(to, "append", append_or_fail)  # noqa: B010 - instead of the class's
    sandbox = Sandbox(segments=4, durations=Durations(median=60.0))
    async with connected(sandbox) as client:
        report = await client.bulk_export(await client.list_segments(), to)
    assert report.ok
    assert len({json.loads(line)["segment_id"] for line in to.lines}) == len(to.lines) == 4


async def test_a_manifest_that_is_never_written_ends_the_run_all_the_same(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Every outcome is told, and the log says that the lines are missing."""
    to = InMemory()

    async def hang(name: str, lines: Sequence[str]) -> None:
        await anyio.sleep_forever()

    setattr(to, "append", hang)  # noqa: B010 - instead of the class's
    async with connected(Sandbox(segments=2, durations=STEADY)) as client:
        report = await client.bulk_export(await client.list_segments(), to)
    assert report.ok
    assert "can't write memory://of-the-test/files/manifest.jsonl: no answer within" in caplog.text
