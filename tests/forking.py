"""A process that has imported the command, and forks one for each job that its socket brings.

`forked.py` has the other end of the socket. The imports take most of a second of a processor: many
tests of the command take less.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import runpy
import signal
import socket
import sys
import threading
from typing import Any

from forks import import_all


def become(command: list[str], env: dict[str, str], session: bool, hangups: bool) -> None:
    """In the forked process: set up what a new process would have from the one that starts it."""
    if session:
        os.setsid()
    signal.signal(signal.SIGHUP, signal.SIG_DFL if hangups else signal.SIG_IGN)
    os.environ.clear()
    os.environ.update(env)
    sys.argv[:] = command


def serve(jobs: socket.socket) -> None:
    """Fork a command for each job; in the fork, return to run it.

    A command that has ended stays a zombie until its test asks for its status. So no other process
    gets its number, and a late signal of the test reaches no stranger.
    """
    while True:
        text, descriptors, _, _ = socket.recv_fds(jobs, 1 << 20, 4)
        while text and not text.endswith(b"\n"):
            text += jobs.recv(1 << 20)
        if not text:
            sys.exit()
        job: dict[str, Any] = json.loads(text)
        answer = status_of(**job) if "pid" in job else fork(jobs, descriptors, job)
        if answer is None:
            return
        jobs.sendall(b"%s\n" % json.dumps(answer).encode())


def fork(jobs: socket.socket, descriptors: list[int], job: dict[str, Any]) -> list[int] | None:
    """The number of the new process, in a list; None in that process.

    The descriptors are those of the process's standard streams and its directory.
    """
    pid = os.fork()
    if pid == 0:
        jobs.close()
        for number, descriptor in enumerate(descriptors[:3]):
            os.dup2(descriptor, number)
        os.fchdir(descriptors[3])
    for descriptor in descriptors:
        os.close(descriptor)
    if pid:
        return [pid]
    become(**job)
    return None


def status_of(pid: int, wait: bool) -> list[int]:
    """The exit code in a list, which is empty while the process runs and nobody waits for it."""
    found, status = os.waitpid(pid, 0 if wait else os.WNOHANG)
    return [os.waitstatus_to_exitcode(status)] if found else []


def run(program: str) -> None:
    """Run a module, or a file that ends in ``.py``, as the interpreter would."""
    if program.endswith(".py"):
        sys.path.insert(0, os.path.dirname(program))  # noqa: PTH120 - not for a Path's import
        runpy.run_path(program, run_name="__main__")
    else:
        runpy.run_module(program, run_name="__main__", alter_sys=True)


def leave(status: int) -> None:
    """End the fork as the interpreter does, without the part that takes most of a short command.

    The interpreter would take down each imported module, and so copy all pages that the fork
    shares. Here threads are waited for, `atexit` is heeded, the collector finds unclosed files and
    warns of them on stderr, and the streams are flushed.
    """
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    gc.collect()
    try:
        sys.stdout.flush()
    except OSError:
        status = 120  # as the interpreter says it
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    import_all()
    serve(socket.socket(fileno=int(sys.argv.pop())))
    try:
        run(sys.argv[0])
    except SystemExit as end:
        if not isinstance(end.code, int):
            raise
        leave(end.code)
