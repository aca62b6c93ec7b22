"""The command as a user starts it: a process of its own, against a server on a loopback port."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import pytest

import segments_async
from segments_async.sandbox import PAGE_ACCESS_TOKEN, PAGE_API_KEY, Durations, Sandbox
from segments_async.sandbox.server import SandboxServer

COMMAND = (sys.executable, "-W", "error", "-m", "segments_async.cli")
_PATIENCE = 30.0  # seconds


def environment(server: SandboxServer | None = None, **more: str) -> dict[str, str]:
    """What the command is to see: the package under test, and a server's account or none."""
    package = Path(segments_async.__file__).parent.parent
    kept = {name: value for name, value in os.environ.items() if name in {"PATH", "HOME", "LANG"}}
    account = {}
    if server is not None:
        account = {
            "SEGMENTS_BASE_URL": server.base_url,
            "SEGMENTS_API_KEY": PAGE_API_KEY,
            "SEGMENTS_ACCESS_TOKEN": PAGE_ACCESS_TOKEN,
        }
    return {**kept, "PYTHONPATH": str(package), "COLUMNS": "100", **account, **more}


class Run(Protocol):
    """Run the command to its end, without a terminal."""

    def __call__(
        self, *arguments: str, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]: ...


class Start(Protocol):
    """Start the command, without a terminal; what is still running afterwards is killed."""

    def __call__(
        self, *arguments: str, env: Mapping[str, str] | None = None
    ) -> subprocess.Popen[str]: ...


@pytest.fixture
def server() -> Iterator[SandboxServer]:
    """Five segments, whose exports are complete at once."""
    with SandboxServer(Sandbox(segments=5, rows=20, durations=Durations(median=0))) as server:
        yield server


@pytest.fixture
def slow_server() -> Iterator[SandboxServer]:
    """Five segments, whose exports take an hour."""
    forever = Durations(median=3600, sigma=0, longest=3600)
    with SandboxServer(Sandbox(segments=5, durations=forever)) as server:
        yield server


@pytest.fixture
def run(tmp_path: Path) -> Run:
    def run(
        *arguments: str, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*COMMAND, *arguments],
            cwd=tmp_path,
            env=environment() if env is None else env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
        )

    return run


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [*COMMAND, *arguments],
            cwd=tmp_path,
            env=environment() if env is None else env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def until() -> Callable[[Callable[[], object]], None]:
    """Wait for another process to get somewhere: there is nothing to be woken by."""

    def until(condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + _PATIENCE
        while not condition():
            assert time.monotonic() < deadline, "it never came to that"
            time.sleep(0.01)

    return until


@pytest.fixture
def account() -> Callable[..., dict[str, str]]:
    """The environment with a server's account in it."""
    return environment


@pytest.fixture
def parsed() -> Callable[[str], list[dict[str, Any]]]:
    """The JSON objects of an output that is nothing but JSON lines."""
    return lambda output: [json.loads(line) for line in output.splitlines()]
