"""Processes that are killed in mid-download, and two at one target, against a real server."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest
from client.vendor import names_in, until

from segments_async import SegmentsClient
from segments_async._files import digest, download, fetch
from segments_async._http import fast_transport
from segments_async._sansio.files.sidecar import load
from segments_async.sandbox import (
    PAGE_ACCESS_TOKEN,
    PAGE_API_KEY,
    PAGE_SEGMENT_ID,
    Durations,
    Fault,
    FileHost,
    Sandbox,
)
from segments_async.sandbox.server import SandboxServer

pytestmark = pytest.mark.real_time

PART = ["a.csv.part", "a.csv.part.json"]
RATE = 2_000_000

#: Seconds for what has no reason to hang, and no claim of how long anything takes.
PATIENCE = 120.0

PROGRAM = Path(__file__).with_name("fetching.py")


@pytest.fixture
def server() -> Iterator[SandboxServer]:
    """A file of 11 MB, which takes some five seconds."""
    host = FileHost(rate=RATE)
    sandbox = Sandbox(rows=100_000, durations=Durations(median=0, sigma=0), file_host=host)
    with SandboxServer(sandbox) as server:
        yield server


@pytest.fixture
def export_id(server: SandboxServer) -> str:
    async def request() -> str:
        async with SegmentsClient(
            PAGE_API_KEY, PAGE_ACCESS_TOKEN, base_url=server.base_url
        ) as client:
            export = await client.request_export(PAGE_SEGMENT_ID)
            return (await client.wait_for_export(export)).export_id

    return anyio.run(request)


def fetching(
    server: SandboxServer, export_id: str, target: Path, *, largest: int | None = None
) -> subprocess.Popen[str]:
    """Start a download; `largest`: bytes of a file that the system lets the process write."""
    program = [sys.executable, str(PROGRAM), server.base_url, export_id, str(target)]
    if largest is not None:
        # In blocks of 512 bytes (POSIX: ulimit).
        program = ["sh", "-c", f'ulimit -f {largest // 512}; exec "$@"', "sh", *program]
    return subprocess.Popen(program, stdout=subprocess.PIPE, text=True, env=dict(os.environ))


def wait_until_written(target: Path, size: int) -> None:
    """Wait until so many bytes are in the part."""
    part = target.with_name(target.name + ".part")
    until = time.monotonic() + PATIENCE
    while not (part.exists() and part.stat().st_size >= size):
        assert time.monotonic() < until, "it doesn't get on"
        time.sleep(0.01)


def noted(target: Path) -> int:
    """The bytes from the beginning on that the sidecar lists."""
    sidecar = load(target.with_name(target.name + ".part.json").read_bytes())
    assert sidecar is not None
    [(start, stop)] = sidecar.held
    assert start == 0
    return stop


def test_a_limit_on_the_size_of_files(
    server: SandboxServer, export_id: str, tmp_path: Path
) -> None:
    """A limit of the system (RLIMIT_FSIZE) is like a full disk, and no part is left."""
    out, _ = fetching(server, export_id, tmp_path / "a.csv", largest=1_000_000).communicate()
    assert out.startswith("disk_full")
    assert names_in(tmp_path) == []


def test_killed_in_mid_download(server: SandboxServer, export_id: str, tmp_path: Path) -> None:
    """After each kill -9 the next process continues the part, by the server's record."""
    target = tmp_path / "a.csv"
    kept = []
    for size in (5_000_000, 8_000_000):
        process = fetching(server, export_id, target)
        wait_until_written(target, size)
        process.kill()
        process.communicate()
        assert names_in(tmp_path) == PART
        kept.append(noted(target))
    out, _ = fetching(server, export_id, target).communicate()
    assert out.split() == ["whole", server.sandbox.sha256(PAGE_SEGMENT_ID)]
    content = server.sandbox.content(PAGE_SEGMENT_ID)
    assert target.read_bytes() == content
    assert names_in(tmp_path) == ["a.csv"]
    first, second, third = server.sandbox.record.files()
    starts = [int((e.headers or {})["range"][len("bytes=") : -1]) for e in (second, third)]
    assert starts == kept
    # Half a second's worth may be fetched again; a busy machine may take longer for writing it.
    assert starts[0] >= 5_000_000 - 2 * RATE
    assert starts[1] >= 8_000_000 - 2 * RATE
    assert third.sent == len(content) - starts[1]
    assert server.sandbox.record.credentials_seen_by_files() == []
    assert "range" not in (first.headers or {})


def test_two_processes_at_one_target(server: SandboxServer, export_id: str, tmp_path: Path) -> None:
    """The second process waits for the first process's file, and replaces it; both are whole."""
    target = tmp_path / "a.csv"
    first = fetching(server, export_id, target)
    wait_until_written(target, 1)
    second, _ = fetching(server, export_id, target).communicate()
    out, _ = first.communicate()
    assert out.split() == second.split() == ["whole", server.sandbox.sha256(PAGE_SEGMENT_ID)]
    assert names_in(tmp_path) == ["a.csv"]


@pytest.mark.parametrize(
    "direct_from", [1, fast_transport.DIRECT_READ_FROM], ids=["direct", "through h11"]
)
@pytest.mark.parametrize("seed", range(2))
async def test_broken_twenty_times_over_sockets(
    seed: int, direct_from: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is whole, and at most 1.2 times its bytes were sent, by the server's record."""
    monkeypatch.setattr(fast_transport, "DIRECT_READ_FROM", direct_from)
    monkeypatch.setattr(fetch, "full_jitter", lambda *_: 0.0)
    sandbox = Sandbox(rows=20_000, durations=Durations(median=0, sigma=0))
    size = len(sandbox.content(PAGE_SEGMENT_ID))
    chance = random.Random(seed)
    for _ in range(20):
        sandbox.inject(Fault.cut(chance.randrange(1, size // 12)), origin="files")
    with SandboxServer(sandbox) as server:
        async with SegmentsClient(
            PAGE_API_KEY, PAGE_ACCESS_TOKEN, base_url=server.base_url
        ) as client:
            file = await client.export(PAGE_SEGMENT_ID, tmp_path / "a.csv")
    assert file.path.read_bytes() == sandbox.content(PAGE_SEGMENT_ID)
    files = sandbox.record.files()
    assert len(files) == 21
    assert size <= sum(entry.sent for entry in files) <= 1.2 * size
    assert names_in(tmp_path) == ["a.csv"]


async def test_cancelled_anywhere_in_a_direct_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No incomplete file appears, and the next download continues the part."""
    monkeypatch.setattr(fast_transport, "DIRECT_READ_FROM", 1)
    monkeypatch.setattr(digest, "PARALLEL_HASH_FROM", 1)
    monkeypatch.setattr(download, "BATCH", 100_000)
    update = digest.PrefixDigest.update
    batches = 0

    def slowly(self: digest.PrefixDigest, data: digest.Bytes, with_md5: bool) -> None:
        nonlocal batches
        time.sleep(0.002)  # so that memory used too early would be hashed wrong
        update(self, data, with_md5)
        batches += 1

    monkeypatch.setattr(digest.PrefixDigest, "update", slowly)
    sandbox = Sandbox(
        rows=50_000,
        durations=Durations(median=0, sigma=0),
        file_host=FileHost(rate=10_000_000),
    )
    content = sandbox.content(PAGE_SEGMENT_ID)
    target = tmp_path / "a.csv"
    with SandboxServer(sandbox) as server:
        async with SegmentsClient(
            PAGE_API_KEY, PAGE_ACCESS_TOKEN, base_url=server.base_url
        ) as client:
            export = await client.wait_for_export(await client.request_export(PAGE_SEGMENT_ID))
            for number in range(8):
                before = batches
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(client.download_export, export, target)
                    await until(lambda before=before, number=number: not number or batches > before)
                    await anyio.sleep(0.003 * number)
                    tasks.cancel_scope.cancel()
                assert not target.exists()
            file = await client.download_export(export, target)
    assert target.read_bytes() == content
    assert file.sha256 == sandbox.sha256(PAGE_SEGMENT_ID)
    assert names_in(tmp_path) == ["a.csv"]
    starts = [
        int((entry.headers or {}).get("range", "bytes=0-")[len("bytes=") : -1])
        for entry in sandbox.record.files()
    ]
    assert starts == sorted(starts)
    assert starts[-1] > 0
