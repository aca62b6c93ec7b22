"""Commands in processes that are forked from one that has imported the command already.

The same code runs behind the same streams, signals, process groups and environment as in a process
of a new Python. Where a claim is about the interpreter's own start or end, a test starts a new one.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Lock, Timer
from typing import IO, Any

import segments_async

COMMAND = "segments_async.cli"

#: A stream: `subprocess.PIPE` or `DEVNULL`, a descriptor or a file; None: that of the tests.
Stream = int | IO[Any] | None


class Nursery:
    """The process that forks commands (`forking.py`)."""

    def __init__(self, jobs: socket.socket) -> None:
        self._jobs = jobs
        self._lock = Lock()

    def ask(self, job: Mapping[str, Any], descriptors: Sequence[int] = ()) -> list[int]:
        """Its answer to a job, which may come from any thread."""
        with self._lock:
            return self._ask(job, descriptors)

    def _ask(self, job: Mapping[str, Any], descriptors: Sequence[int]) -> list[int]:
        text = json.dumps(job).encode() + b"\n"
        sent = socket.send_fds(self._jobs, [text], descriptors) if descriptors else 0
        self._jobs.sendall(text[sent:])
        answer = b""
        while not answer.endswith(b"\n"):
            piece = self._jobs.recv(1 << 10)
            assert piece, "the process that forks commands has ended"
            answer += piece
        found: list[int] = json.loads(answer)
        return found


@contextmanager
def a_nursery() -> Iterator[Nursery]:
    """Start the process; it ends with the block."""
    ours, theirs = socket.socketpair()
    package, tests = Path(segments_async.__file__).parent.parent, Path(__file__).parent
    program = [sys.executable, "-W", "error", tests / "forking.py", str(theirs.fileno())]
    env = {**os.environ, "PYTHONPATH": f"{package}{os.pathsep}{tests}"}
    with subprocess.Popen(program, env=env, pass_fds=[theirs.fileno()]):
        theirs.close()
        with ours:
            yield Nursery(ours)


class Forked:
    """A forked command, with those parts of `subprocess.Popen` that tests use.

    Args:
        nursery: forks it.
        arguments: of the program.
        program: a module, or a file that ends in ``.py``.
        cwd: its directory, or a descriptor of one.
        env: its environment.
        stdin: its stream, as are `stdout` and `stderr`.
        start_new_session: whether it has a session and a process group of its own.
    """

    def __init__(
        self,
        nursery: Nursery,
        *arguments: str,
        program: str = COMMAND,
        cwd: Path | int,
        env: Mapping[str, str],
        stdin: Stream = subprocess.DEVNULL,
        stdout: Stream = None,
        stderr: Stream = None,
        start_new_session: bool = False,
    ) -> None:
        self._nursery = nursery
        self.args = [program, *arguments]
        self.returncode: int | None = None
        job = {
            "command": self.args,
            "env": dict(env),
            "session": start_new_session,
            "hangups": signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN,
        }
        with ExitStack() as stack:
            _, standard_input = _ends(stdin, 0, stack)
            self.stdout, output = _ends(stdout, 1, stack)
            self.stderr, errors = _ends(stderr, 2, stack)
            descriptors = [standard_input, output, errors, _directory(cwd, stack)]
            (self.pid,) = nursery.ask(job, descriptors)

    def send_signal(self, number: int) -> None:
        """Send a signal, unless the status has been asked for: another process may have the pid."""
        if self.returncode is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def poll(self) -> int | None:
        """The exit code; None while it runs."""
        return self._status(wait=False)

    def wait(self, timeout: float) -> int:
        """The exit code, once it has ended. After `timeout` seconds it is killed: it hangs."""
        with self._within(timeout):
            status = self._status(wait=True)
        assert status is not None
        return status

    def communicate(self, timeout: float) -> tuple[str, str]:
        """What it writes into its pipes until its end. After `timeout` seconds it is killed."""
        with self._within(timeout), ThreadPoolExecutor(2) as pool:
            out, err = pool.map(_read_all, (self.stdout, self.stderr))
        self.wait(timeout)
        return out, err

    def end(self) -> None:
        """Kill what is left of it, and close the pipes."""
        self.kill()
        self._status(wait=True)
        for stream in (self.stdout, self.stderr):
            if stream is not None:
                stream.close()

    def _status(self, *, wait: bool) -> int | None:
        if self.returncode is None:
            for status in self._nursery.ask({"pid": self.pid, "wait": wait}):
                self.returncode = status
        return self.returncode

    @contextmanager
    def _within(self, seconds: float) -> Iterator[None]:
        late: list[bool] = []
        timer = Timer(seconds, lambda: (late.append(True), self.kill()))
        timer.start()
        yield
        timer.cancel()
        assert not late, f"it doesn't end: {self.args}"


def _ends(stream: Stream, number: int, stack: ExitStack) -> tuple[IO[str] | None, int]:
    """Our end of a stream, where that is a pipe, and the command's descriptor."""
    if stream is None:
        return None, number
    if not isinstance(stream, int):
        return None, stream.fileno()
    if stream >= 0:
        return None, stream
    ours = None
    if stream == subprocess.PIPE:
        reading, descriptor = os.pipe()
        ours = os.fdopen(reading, encoding="utf-8")
    else:
        descriptor = os.open(os.devnull, os.O_RDWR)
    stack.callback(os.close, descriptor)
    return ours, descriptor


def _directory(cwd: Path | int, stack: ExitStack) -> int:
    if isinstance(cwd, int):
        return cwd
    descriptor = os.open(cwd, os.O_RDONLY)
    stack.callback(os.close, descriptor)
    return descriptor


def _read_all(stream: IO[str] | None) -> str:
    if stream is None or stream.closed:
        return ""
    with stream:
        return stream.read()
