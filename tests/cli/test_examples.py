"""The examples for a shell, as cron runs them, against a sandbox."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_proxy import CommandProxy
from forked import ForkServer
from launch import PATIENCE, Environment

from segments_async.sandbox import Durations, Fault, Sandbox
from segments_async.sandbox.server import SandboxServer

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
QUICK = Durations(median=0.1, sigma=0)


@pytest.fixture
def path(fork_server: ForkServer, tmp_path: Path) -> Iterator[str]:
    """The PATH of a shell, with the command on it."""
    programs = tmp_path / "bin"
    programs.mkdir()
    with CommandProxy(fork_server, programs):
        yield f"{programs}{os.pathsep}{os.environ['PATH']}"


def night(
    server: SandboxServer, to: Path, account: Environment, path: str
) -> subprocess.CompletedProcess[str]:
    """One night of the script."""
    return subprocess.run(
        [EXAMPLES / "nightly.sh", to],
        env=account(server) | {"PATH": path},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


def test_two_nights(account: Environment, path: str, tmp_path: Path) -> None:
    """The first night exports everything, the second what has run since; cron has no mail."""
    with SandboxServer(Sandbox(segments=4, rows=3, durations=QUICK)) as server:
        sandbox = server.sandbox
        for _ in range(2):
            done = night(server, tmp_path / "exports", account, path)
            assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        dynamic = [s.segment_id for s in sandbox.segments if s.type == "Dynamic"]
        exported = sandbox.record.exports_per_segment()
    assert {one for one, count in exported.items() if count == 2} <= set(dynamic)
    assert len(exported) == 4


def test_a_night_with_a_failure_is_mail(account: Environment, path: str, tmp_path: Path) -> None:
    """A segment without a file is told on stderr, and the exit code says so."""
    with SandboxServer(Sandbox(segments=4, rows=3, durations=QUICK)) as server:
        lost = server.sandbox.segments[1]
        server.sandbox.inject(Fault.status(404), method="POST", segment_id=lost.segment_id)
        done = night(server, tmp_path / "exports", account, path)
    assert (done.returncode, done.stdout) == (1, "")
    assert lost.name in done.stderr


@pytest.mark.parametrize("script", sorted(EXAMPLES.rglob("*.sh")), ids=lambda path: path.name)
def test_a_script_is_plain_sh(script: Path) -> None:
    """A script can be executed, and has no syntax error in a plain shell."""
    assert os.access(script, os.X_OK)
    subprocess.run(["sh", "-n", script], check=True)
