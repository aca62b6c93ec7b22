"""The command as a user starts it: a process of its own, against a server on a loopback port."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from forked import Forked, ForkServer
from launch import (
    COMMAND,
    PATIENCE,
    Environment,
    Parsed,
    Run,
    Start,
    StartAnew,
    Until,
    environment,
)

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
def run(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, fork_server: ForkServer) -> Run:
    told = tmp_path_factory.mktemp("told")  # tests look at what is in their own folder

    def run(
        *arguments: str,
        env: Mapping[str, str] | None = None,
        out: str | None = None,
        err: str | None = None,
    ) -> subprocess.CompletedProcess[str]:
        files = {"out": Path(out or told / "out"), "err": Path(err or told / "err")}
        for name in files:
            (told / name).write_bytes(b"")
        with files["out"].open("wb") as stdout, files["err"].open("wb") as stderr:
            env = environment() if env is None else env
            process = Forked(
                fork_server, *arguments, cwd=tmp_path, env=env, stdout=stdout, stderr=stderr
            )
        status = process.wait(PATIENCE)
        output = [(told / name).read_text() for name in files]
        return subprocess.CompletedProcess(process.args, status, *output)

    return run


@pytest.fixture
def run_anew(tmp_path: Path) -> Run:
    """As `run`, in a Python of its own."""

    def run(
        *arguments: str,
        env: Mapping[str, str] | None = None,
        out: str | None = None,
        err: str | None = None,
    ) -> subprocess.CompletedProcess[str]:
        assert out is err is None
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
def start(tmp_path: Path, fork_server: ForkServer) -> Iterator[Start]:
    started: list[Forked] = []

    def start(*arguments: str, env: Mapping[str, str] | None = None, **more: Any) -> Forked:
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        env = environment() if env is None else env
        process = Forked(fork_server, *arguments, env=env, **{"cwd": tmp_path, **pipes, **more})
        started.append(process)
        return process

    yield start
    for process in started:
        process.end()


@pytest.fixture
def start_anew(tmp_path: Path) -> Iterator[StartAnew]:
    """As `start`, in a Python of its own."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str, env: Mapping[str, str]) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [*COMMAND, *arguments],
            cwd=tmp_path,
            env=env,
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
    """Wait until another process has got somewhere, by polling."""

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
