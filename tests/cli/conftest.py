"""The command as a user starts it: a process of its own, against a server on a loopback port."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from launch import COMMAND, PATIENCE, Environment, Parsed, Run, Start, Until, environment

from segments_async.sandbox import Durations, Sandbox
from segments_async.sandbox.server import SandboxServer


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
            timeout=PATIENCE,
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
def until() -> Until:
    """Wait for another process to get somewhere: there is nothing to be woken by."""

    def until(condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, "it never came to that"
            time.sleep(0.01)

    return until


@pytest.fixture
def account() -> Environment:
    """The environment with a server's account in it."""
    return environment


@pytest.fixture
def parsed() -> Parsed:
    """The JSON objects of an output that is nothing but JSON lines."""
    return lambda output: [json.loads(line) for line in output.splitlines()]
