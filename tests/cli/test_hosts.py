"""Files at other hosts than S3's: `--file-host`."""

from __future__ import annotations

import io
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
from client.vendor import connected
from launch import Run
from rich.console import Console

from segments_async import S3_HOSTS, SegmentsClient
from segments_async.cli.arguments import Hosts, Pace, RunOptions
from segments_async.cli.export import ExportCommand, ExportRequest
from segments_async.cli.selection import Selection
from segments_async.cli.terminal import Terminal
from segments_async.sandbox import PAGE_SEGMENT_ID, Durations, Sandbox


class _Vendor:
    """An account whose files are at a host of the vendor's choosing."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox

    def client(self, **options: Any) -> AbstractAsyncContextManager[SegmentsClient]:
        told = {name: value for name, value in options.items() if value is not None}
        return connected(self._sandbox, **told)


async def _export(hosts: Sequence[str], to: Path) -> tuple[int, str]:
    """The exit code of an `export` with these hosts, and what people see."""
    sandbox = Sandbox(rows=5, durations=Durations(0.1), files_origin="https://files.example")
    shown = io.StringIO()
    console = Console(file=shown, width=300)
    request = ExportRequest(
        selection=Selection(ids=[PAGE_SEGMENT_ID]),
        to=to,
        options=RunOptions(),
        pace=Pace(),
        hosts=Hosts(file_host=tuple(hosts)),
        journal=None,
    )
    command = ExportCommand(request, Terminal(console, console, piped=False))
    source: Any = _Vendor(sandbox)
    return await command.run_for(source), shown.getvalue()


async def test_a_host_is_admitted_by_its_option(tmp_path: Path) -> None:
    """`--file-host` admits a host, or a pattern, beside S3's own; the refusal names the option."""
    refused, shown = await _export([], tmp_path / "a")
    assert (refused, "--file-host files.example admits it" in shown) == (1, True)
    for hosts in (["files.example"], ["minio.example.com", "*.example"]):
        assert (await _export(hosts, tmp_path / hosts[0]))[0] == 0
    assert Hosts(file_host=("files.example",)).patterns == (*S3_HOSTS, "files.example")


@pytest.mark.parametrize("host", ["https://files.example/", "a b.example", ""])
def test_a_link_is_no_host(run: Run, host: str) -> None:
    """A pattern that could never match is refused before anything is sent."""
    done = run("download", "x", "--to", "a.csv", "--file-host", host)
    assert (done.returncode, done.stdout) == (2, "")
    assert "--file-host" in done.stderr
