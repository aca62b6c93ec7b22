"""The command as a user starts it: a process of its own, against a server on a loopback port."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
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


@pytest.fixture(scope="session")
def nursery() -> Iterator[subprocess.Popen[str]]:
    """The process that forks commands (`forking.py`)."""
    program = [sys.executable, "-W", "error", str(Path(__file__).with_name("forking.py"))]
    env = environment()
    env["PYTHONPATH"] += f"{os.pathsep}{Path(__file__).parent.parent}"
    with subprocess.Popen(
        program, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()


@pytest.fixture
def run(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, nursery: subprocess.Popen[str]
) -> Run:
    assert nursery.stdin is not None
    assert nursery.stdout is not None
    stdin, stdout = nursery.stdin, nursery.stdout
    told = tmp_path_factory.mktemp("told")  # tests look at what is in their own folder

    def run(
        *arguments: str,
        env: Mapping[str, str] | None = None,
        out: str | None = None,
        err: str | None = None,
    ) -> subprocess.CompletedProcess[str]:
        job = {
            "arguments": arguments,
            "cwd": str(tmp_path),
            "env": environment() if env is None else dict(env),
        }
        for name in ("out", "err"):
            (told / name).write_bytes(b"")
            job[name] = str(told / name)
        job |= {name: path for name, path in {"out": out, "err": err}.items() if path}
        print(json.dumps(job), file=stdin, flush=True)
        with selectors.DefaultSelector() as selector:
            selector.register(stdout, selectors.EVENT_READ)
            assert selector.select(PATIENCE), f"it doesn't end: {arguments}"
        status = int(stdout.readline())
        output = [(told / name).read_text() for name in ("out", "err")]
        return subprocess.CompletedProcess([*COMMAND, *arguments], status, *output)

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
