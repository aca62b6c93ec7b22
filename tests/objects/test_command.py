"""The command with `--to s3://...`, in processes of its own: killed, shared, resumed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from objects.conftest import Bucket
from objects.faulty import FaultyS3
from segments_async.sandbox import PAGE_ACCESS_TOKEN, PAGE_API_KEY, Durations, Sandbox
from segments_async.sandbox.server import SandboxServer

COMMAND = (sys.executable, "-W", "error", "-m", "segments_async.cli")

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


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments], cwd=cwd, capture_output=True, text=True, timeout=PATIENCE
    )


@pytest.mark.real_time
def test_export_runs_resume_and_report(
    bucket: Bucket, server: SandboxServer, tmp_path: Path
) -> None:
    """Each command takes the URL; the files are objects, and the JSON lines have their URLs."""
    place = ["--to", f"s3://{bucket.name}/x/", "--journal", "runs.db"]
    done = run("export", "--all", *place, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(lines) == 3
    for line in lines:
        key = line["file"].removeprefix(f"s3://{bucket.name}/")
        assert bucket.read(key) == server.sandbox.content(line["segment_id"])
    assert f"exported to s3://{bucket.name}/x" in done.stderr
    again = run("export", "--all", "--to", f"s3://{bucket.name}/x", "--no-journal", cwd=tmp_path)
    assert again.returncode == 1
    assert "--overwrite replaces them" in again.stderr
    assert len(server.sandbox.record.submits()) == 3
    runs = run("runs", *place, cwd=tmp_path)
    assert len(runs.stdout.splitlines()) == 1
    resumed = run("resume", *place, cwd=tmp_path)
    assert (resumed.returncode, "has ended" in resumed.stderr) == (0, True)
    page = run("report", *place, "--html", "page.html", cwd=tmp_path)
    assert page.returncode == 0, page.stderr
    assert f"s3://{bucket.name}/x" in (tmp_path / "page.html").read_text()
    assert sorted(path.name for path in tmp_path.glob("*:*")) == []


@pytest.mark.real_time
def test_a_missing_bucket_and_a_missing_journal(
    bucket: Bucket, server: SandboxServer, tmp_path: Path
) -> None:
    """Both are usage errors, told in one sentence, before any export is asked for."""
    there = ["export", "--all", "--no-journal", "--to"]
    gone = run(*there, f"s3://{bucket.name}-gone/x", cwd=tmp_path)
    assert gone.returncode == 2
    assert "the bucket doesn't exist" in gone.stderr
    assert "Traceback" not in gone.stderr
    without = run("export", "--all", "--to", f"s3://{bucket.name}/x", cwd=tmp_path)
    assert without.returncode == 2
    assert "--journal" in without.stderr
    assert server.sandbox.record.submits() == []


@pytest.mark.real_time
def test_kill_in_the_middle_of_an_upload(
    bucket: Bucket, s3_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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
        with subprocess.Popen(
            [*COMMAND, "export", "--all", *place], cwd=tmp_path, stderr=subprocess.DEVNULL
        ) as process:
            assert uploading.wait(PATIENCE)
            process.send_signal(signal.SIGKILL)
            process.wait(PATIENCE)
        killed.set()
        assert bucket.keys() == []
        assert len(bucket.uploads()) == 1  # the bucket's rule for incomplete uploads removes it
        done = run("export", "--all", *place, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (line,) = map(json.loads, done.stdout.splitlines())
    key = line["file"].removeprefix(f"s3://{bucket.name}/")
    assert bucket.read(key) == sandbox.content(line["segment_id"])
    assert len(sandbox.record.submits()) == 1


@pytest.mark.real_time
def test_two_processes_share_a_run(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each segment is asked for once, each object is whole, and each has its line."""
    sandbox = Sandbox(segments=30, rows=20, durations=Durations(median=0.3))
    command = [*COMMAND, "export", "--all", "--to", f"s3://{bucket.name}/x"]
    command += ["--journal", "runs.db", "--run", "tonight", "--join"]
    with SandboxServer(sandbox) as server:
        account(server, monkeypatch)
        processes = [
            subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            for _ in range(2)
        ]
        told = [process.communicate(timeout=PATIENCE) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], told
    assert sandbox.record.duplicates() == {}
    assert len(sandbox.record.submits()) == 30
    lines = [json.loads(line) for line in bucket.read("x/manifest.jsonl").splitlines()]
    assert len({line["segment_id"] for line in lines}) == len(lines) == 30
    for line in lines:
        key = line["file"].removeprefix(f"s3://{bucket.name}/")
        assert bucket.read(key) == sandbox.content(line["segment_id"])
