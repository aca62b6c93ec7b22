"""Processes that hold a lock of the library: killed, or outlived by a forked child."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import segments_async

PACKAGE = str(Path(segments_async.__file__).parent.parent)


@contextlib.contextmanager
def running(program: str, path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that runs the program, with the path in `path`, and then waits to be killed."""
    lines = (
        f"import os, pathlib, sys\npath = pathlib.Path(sys.argv[1])\n{program}\nsys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", lines, path],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": PACKAGE},
    ) as process:  # fmt: skip
        yield process
        process.kill()
        process.wait()


def said_by(process: subprocess.Popen[bytes]) -> bytes:
    """The next line that the process prints."""
    assert process.stdout is not None
    return process.stdout.readline().rstrip()


@contextlib.contextmanager
def outlived(program: str, path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that runs the program, and has forked a child; the child lives until the end."""
    forked = f"{program}\nif not os.fork():\n    print(os.getpid(), flush=True)"
    with running(forked, path) as process:
        child = int(said_by(process))
        try:
            yield process
            os.kill(child, 0)  # it lives
        finally:
            os.kill(child, signal.SIGKILL)
