"""Processes that start at once: each is forked from a server that has imported everything.

A command's code runs behind the same streams, signals, process groups and environment as in a
process of a new Python. Where a claim is about the interpreter's own start or end, or about what a
command imports, a test starts a new one.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Lock
from typing import IO, Any, TextIO

import segments_async

COMMAND = "segments_async.cli"

#: A stream: `subprocess.PIPE` or `DEVNULL`, a descriptor or a file; None: that of the tests.
Stream = int | IO[Any] | None

#: Seconds after which the fork server is asked again whether a process has ended. It answers at
#: once, so that it can serve other threads meanwhile.
_POLL = 0.005

#: Seconds in which a process ends that has closed its socket.
_PATIENCE = 120.0


class ForkServer:
    """Starts processes by a fork server (`fork_server.py`), for any number of threads.

    The server is started with the first process. One that has died is replaced at the next start:
    it fails the tests of the processes that it had forked, and no later ones.
    """

    def __init__(self) -> None:
        tests, package = Path(__file__).parent, Path(segments_async.__file__).parent.parent
        self._env = {**os.environ, "PYTHONPATH": f"{package}{os.pathsep}{tests}"}
        self._lock = Lock()
        self._server: _Server | None = None

    def start(self, job: Mapping[str, Any], descriptors: Sequence[int]) -> tuple[_Server, int]:
        """Fork a process. Returns its server and its number."""
        with self._lock:
            if self._server is None or not self._server.is_alive():
                self.close()
                self._server = _Server(self._env)
            server = self._server
        (pid,) = server.ask(job, descriptors)
        return server, pid

    def kill(self) -> None:
        """Kill the server, if there is one."""
        if self._server is not None:
            self._server.kill()

    def close(self) -> None:
        """End the server, if there is one. The processes that it has forked go on."""
        if self._server is not None:
            self._server.close()


@functools.cache
def shared_fork_server() -> ForkServer:
    """The one of all tests of this process."""
    server = ForkServer()
    atexit.register(server.close)
    return server


class _Server:
    """One fork server, from its start to its end."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._lock = Lock()
        self._requests, theirs = socket.socketpair()
        program = Path(__file__).with_name("fork_server.py")
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-W", "error", program, str(theirs.fileno())],
                env=env,
                cwd=program.parent,
                pass_fds=[theirs.fileno()],
            )

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def ask(self, request: Mapping[str, Any], descriptors: Sequence[int] = ()) -> list[int]:
        """The answer to a request, which may come from any thread."""
        with self._lock:
            try:
                return self._ask(request, descriptors)
            except (EOFError, OSError) as exc:
                self.close()  # so that the next start sees that it has ended
                raise AssertionError("the fork server has died") from exc

    def _ask(self, request: Mapping[str, Any], descriptors: Sequence[int]) -> list[int]:
        text = json.dumps(request).encode() + b"\n"
        sent = socket.send_fds(self._requests, [text], descriptors) if descriptors else 0
        self._requests.sendall(text[sent:])
        answer = b""
        while not answer.endswith(b"\n"):
            piece = self._requests.recv(1 << 10)
            if not piece:
                raise EOFError
            answer += piece
        found: list[int] = json.loads(answer)
        return found

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        self._requests.close()
        self._process.wait()


class _Forked:
    """A forked process, with those parts of `subprocess.Popen` that tests use."""

    def __init__(
        self,
        fork_server: ForkServer,
        args: Sequence[str],
        job: Mapping[str, Any],
        descriptors: Sequence[int],
    ) -> None:
        self.args = args
        self.returncode: int | None = None
        self._lock = Lock()
        self._server, self.pid = fork_server.start(job, descriptors)

    def send_signal(self, number: int) -> None:
        """Send a signal, unless the exit code is known: another process may have the pid then."""
        with self._lock:
            if self.returncode is None:
                os.kill(self.pid, number)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def poll(self) -> int | None:
        """The exit code; None while it runs."""
        with self._lock:
            if self.returncode is None:
                for status in self._server.ask({"status_of": self.pid}):
                    self.returncode = status
            return self.returncode

    def wait(self, timeout: float) -> int:
        """The exit code, once it has ended. After `timeout` seconds it is killed: it hangs."""
        until = time.monotonic() + timeout
        while (status := self.poll()) is None:
            if time.monotonic() > until:
                self._kill_and_wait()
                raise AssertionError(f"it doesn't end: {self.args}")
            time.sleep(_POLL)
        return status

    def _kill_and_wait(self) -> None:
        self.kill()
        while self.poll() is None:
            time.sleep(_POLL)


class Forked(_Forked):
    """A forked command.

    Args:
        fork_server: starts it.
        arguments: of the program.
        program: a module, or a file that ends in ``.py``.
        cwd: its directory, or a descriptor of one.
        env: its environment.
        stdin: its stream, as are `stdout` and `stderr`.
        start_new_session: whether it has a session and a process group of its own.
    """

    def __init__(
        self,
        fork_server: ForkServer,
        *arguments: str,
        program: str = COMMAND,
        cwd: Path | int,
        env: Mapping[str, str],
        stdin: Stream = subprocess.DEVNULL,
        stdout: Stream = None,
        stderr: Stream = None,
        start_new_session: bool = False,
    ) -> None:
        command = [program, *arguments]
        job = {
            "command": command,
            "env": dict(env),
            "session": start_new_session,
            "hangups": signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN,
        }
        with ExitStack() as stack:
            _, standard_input = _ends(stdin, 0, stack)
            self.stdout, output = _ends(stdout, 1, stack)
            self.stderr, errors = _ends(stderr, 2, stack)
            descriptors = [standard_input, output, errors, _directory(cwd, stack)]
            super().__init__(fork_server, command, job, descriptors)

    def communicate(self, timeout: float) -> tuple[str, str]:
        """What it writes into its pipes until its end. After `timeout` seconds it is killed."""
        with ThreadPoolExecutor(2) as pool:
            texts = pool.map(_read_all, (self.stdout, self.stderr))
            self.wait(timeout)
            out, err = texts
        return out, err

    def end(self) -> None:
        """Kill what is left of it, and close the pipes."""
        self._kill_and_wait()
        for stream in (self.stdout, self.stderr):
            if stream is not None:
                stream.close()


@contextmanager
def serving(module: str) -> Generator[tuple[TextIO, TextIO]]:
    """A process that runs `module.serve(orders, answers)`. It reads orders, line by line.

    The process ends with its orders. Leaving waits for it, and for the processes that it has
    forked.
    """
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            process = _Forked(shared_fork_server(), [module], {"module": module}, [theirs.fileno()])
        with ours.makefile("w") as orders, ours.makefile("r") as answers:
            yield orders, answers
            orders.flush()
            ours.shutdown(socket.SHUT_WR)
            answers.read()
    assert process.wait(_PATIENCE) == 0, f"{module} has failed"


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
