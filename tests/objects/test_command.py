"""The command with `--to s3://...`, in processes of its own: killed, shared, resumed."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest
from forked import Forked, ForkServer

from objects.conftest import Bucket
from objects.faulty import FaultyS3
from segments_async.sandbox import PAGE_ACCESS_TOKEN, PAGE_API_KEY, Durations, Sandbox
from segments_async.sandbox.server import SandboxServer

#: Seconds, for what hangs.
PATIENCE = 120.0


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[SandboxServer]:
    """Three segments, whose exports are complete at once; the environment has their account."""
    with SandboxServer(Sandbox(segments=3, rows=20, durations=Durations(median=0))) as server:
        account(server, monkeypatch)
        yield server


def account(server: SandboxServer, patch: pytest.MonkeyPatch) -> None:
    patch.setenv("SEGMENTS_BASE_URL", server.base_url)
    patch.setenv("SEGMENTS_API_KEY", PAGE_API_KEY)
    patch.setenv("SEGMENTS_ACCESS_TOKEN", PAGE_ACCESS_TOKEN)
    patch.setenv("COLUMNS", "200")


class Start(Protocol):
    """Start the command in the test's folder."""

    def __call__(self, *arguments: str) -> Forked: ...


@pytest.fixture
def start(fork_server: ForkServer, tmp_path: Path) -> Iterator[Start]:
    started: list[Forked] = []

    def start(*arguments: str) -> Forked:
        process = Forked(
            fork_server,
            *arguments,
            cwd=tmp_path,
            env=os.environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.end()


class Run(Protocol):
    """Run the command to its end."""

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]: ...


@pytest.fixture
def run(start: Start) -> Run:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        process = start(*arguments)
        out, err = process.communicate(timeout=PATIENCE)
        return subprocess.CompletedProcess(process.args, process.wait(PATIENCE), out, err)

    return run


@pytest.mark.real_time
def test_export_runs_resume_and_report(
    run: Run, bucket: Bucket, server: SandboxServer, tmp_path: Path
) -> None:
    """Each command takes the URL; the files are objects, and the JSON lines have their URLs."""
    place = ["--to", f"s3://{bucket.name}/x/", "--journal", "runs.db"]
    done = run("export", "--all", *place)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(lines) == 3
    for line in lines:
        key = line["file"].removeprefix(f"s3://{bucket.name}/")
        assert bucket.read(key) == server.sandbox.content(line["segment_id"])
    assert f"exported to s3://{bucket.name}/x" in done.stderr
    again = run("export", "--all", "--to", f"s3://{bucket.name}/x", "--no-journal")
    assert again.returncode == 1
    assert "--overwrite replaces them" in again.stderr
    assert len(server.sandbox.record.submits()) == 3
    runs = run("runs", *place)
    assert len(runs.stdout.splitlines()) == 1
    resumed = run("resume", *place)
    assert (resumed.returncode, "has ended" in resumed.stderr) == (0, True)
    page = run("report", *place, "--html", "page.html")
    assert page.returncode == 0, page.stderr
    assert f"s3://{bucket.name}/x" in (tmp_path / "page.html").read_text()
    assert sorted(path.name for path in tmp_path.glob("*:*")) == []


@pytest.mark.real_time
def test_a_missing_bucket_and_a_missing_journal(
    run: Run, bucket: Bucket, server: SandboxServer
) -> None:
    """Both are usage errors, told in one sentence, before any export is asked for."""
    there = ["export", "--all", "--no-journal", "--to"]
    gone = run(*there, f"s3://{bucket.name}-gone/x")
    assert gone.returncode == 2
    assert "the bucket doesn't exist" in gone.stderr
    assert "Traceback" not in gone.stderr
    without = run("export", "--all", "--to", f"s3://{bucket.name}/x")
    assert without.returncode == 2
    assert "--journal" in without.stderr
    assert server.sandbox.record.submits() == []


@pytest.mark.real_time
def test_kill_in_the_middle_of_an_upload(
    start: Start, run: Run, bucket: Bucket, s3_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After kill -9 no object is there; the same command downloads again, and asks for nothing."""
    sandbox = Sandbox(segments=1, rows=150_000, durations=Durations(median=0))
    store, uploading = FaultyS3(s3_server), threading.Event()

    def wait(kind: str, path: str) -> None:
        if kind == "part" and not uploading.is_set():
            uploading.set()
            killed.wait(PATIENCE)

    killed = threading.Event()
    store.on_request = wait
    place = ["--to", f"s3://{bucket.name}/x", "--journal", "runs.db"]
    with SandboxServer(sandbox) as server, store.serving() as url:
        account(server, monkeypatch)
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        process = start("export", "--all", *place)
        assert uploading.wait(PATIENCE)
        process.end()
        killed.set()
        assert bucket.keys() == []
        assert len(bucket.uploads()) == 1  # the bucket's rule for incomplete uploads removes it
        done = run("export", "--all", *place)
    assert done.returncode == 0, done.stderr
    (line,) = map(json.loads, done.stdout.splitlines())
    key = line["file"].removeprefix(f"s3://{bucket.name}/")
    assert bucket.read(key) == sandbox.content(line["segment_id"])
    assert len(sandbox.record.submits()) == 1


@pytest.mark.real_time
def test_two_processes_share_a_run(
    start: Start, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each segment is asked for once, each object is whole, and each has its line."""
    sandbox = Sandbox(segments=30, rows=20, durations=Durations(median=0.3))
    command = ["export", "--all", "--to", f"s3://{bucket.name}/x"]
    command += ["--journal", "runs.db", "--run", "tonight", "--join"]
    with SandboxServer(sandbox) as server:
        account(server, monkeypatch)
        processes = [start(*command) for _ in range(2)]
        told = [process.communicate(timeout=PATIENCE) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], told
    assert sandbox.record.duplicates() == {}
    assert len(sandbox.record.submits()) == 30
    lines = [json.loads(line) for line in bucket.read("x/manifest.jsonl").splitlines()]
    assert len({line["segment_id"] for line in lines}) == len(lines) == 30
    for line in lines:
        key = line["file"].removeprefix(f"s3://{bucket.name}/")
        assert bucket.read(key) == sandbox.content(line["segment_id"])
