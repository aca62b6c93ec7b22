"""A system without `fcntl`: shown by blocking what Windows lacks, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

#: Takes away what Windows hasn't, before anything of the package is imported.
BLOCK = """
import os, signal, sys
for name in ("fcntl", "grp", "pwd", "termios", "resource"):
    sys.modules[name] = None
for name in ("register_at_fork", "geteuid", "getuid", "fork", "pread", "pwrite", "O_NOFOLLOW"):
    if hasattr(os, name):
        delattr(os, name)
del signal.SIGHUP, signal.SIGPIPE
import anyio
from segments_async import *
from segments_async import ConfigurationError, Journal, SegmentsClient
from segments_async.sandbox import Sandbox
from segments_async.testing import SegmentsSandbox

account = SegmentsSandbox(segments=3)
"""

WORKS = """
async def main():
    async with account.client() as client:
        segments = await client.list_segments()
        report = await client.bulk_export(segments, None)
        async with client.open_export(report.exported[0].export) as body:
            rows = [row async for row in body.rows()]
        print(len(report.exported), len(rows))

with account.answering():
    anyio.run(main)
"""

REFUSES = """
async def main():
    async with account.client() as client:
        for call in (
            lambda: client.bulk_export(account.segment_ids, "exports"),
            lambda: client.bulk_export(account.segment_ids, None, journal="runs.db"),
            lambda: client.export(account.segment_ids[0], "a.csv"),
            lambda: client.download_export("an-export", "a.csv"),
            lambda: Journal.open("runs.db", api_key="a-key", base_url="https://a.example"),
        ):
            try:
                await call()
            except ConfigurationError as error:
                print(error)

with account.answering():
    anyio.run(main)
print(len(account.record.submits()))
"""


def run(program: str, tmp_path: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", BLOCK + program], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_client_without_files_works(tmp_path: Path) -> None:
    """Everything is imported; exports are made, and their files are read as streams."""
    assert run(WORKS, tmp_path).split() == ["3", "10"]


def test_files_and_journals_are_refused_in_a_sentence(tmp_path: Path) -> None:
    """A directory, a file and a journal are refused, each before anything is sent."""
    *sentences, submits = run(REFUSES, tmp_path).splitlines()
    assert len(sentences) == 5
    assert all("needs Linux or macOS" in line for line in sentences)
    assert submits == "0"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("module", ["segments_async.sandbox.server", "segments_async._run.journal"])
def test_other_modules_are_imported(module: str, tmp_path: Path) -> None:
    """The sandbox's server, and the public journal, can be imported."""
    run(f"import {module}", tmp_path)


LISTS = """
from segments_async.cli import main

os.environ.update(SEGMENTS_API_KEY="a-key", SEGMENTS_ACCESS_TOKEN="a-token")
sys.argv = ["segments-async", "list", "--json"]
with account.answering():
    main()
"""

EXPORTS = """
from segments_async.cli import main

sys.argv = ["segments-async", "export", "--sandbox", "--all", "--to", "exports"]
main()
"""


def test_the_command_lists_segments(tmp_path: Path) -> None:
    """`list` needs no file, and works."""
    lines = run(LISTS, tmp_path).splitlines()
    assert len(lines) == 3
    assert all(json.loads(line)["segment_id"] for line in lines)


def test_the_command_refuses_files_in_a_sentence(tmp_path: Path) -> None:
    """`export` to a directory ends with exit code 2 and a sentence that names the systems."""
    done = subprocess.run(
        [sys.executable, "-c", BLOCK + EXPORTS], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 2, done.stderr
    assert "needs Linux or macOS" in done.stderr
    assert "Traceback" not in done.stderr
