"""The fork server: a process that has imported everything, and forks one for each start.

`forked.py` has the other end of its socket. The imports take most of a second of a processor: many
tests of the command take less.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import pkgutil
import runpy
import signal
import socket
import sys
import threading
from typing import Any, NamedTuple

import segments_async

#: What other packages import when a session or a command is at work.
_OTHERS = (
    "anyio._backends._asyncio",
    "rich._emoji_codes",
    "sqlalchemy.dialects.postgresql.psycopg",
    "sqlalchemy.dialects.sqlite.pysqlite",
)


class Start(NamedTuple):
    """What a fork has to run, and the descriptors that came with the request."""

    job: dict[str, Any]
    descriptors: list[int]


def import_all() -> None:
    """Import it once, before the forks, in each of which the imports take half of the time."""
    for module in pkgutil.walk_packages(segments_async.__path__, "segments_async."):
        if not module.name.endswith(".__main__"):
            importlib.import_module(module.name)
    for name in _OTHERS:
        importlib.import_module(name)
    gc.freeze()  # a collection in a fork would copy the pages of all of it


def serve(requests: socket.socket) -> Start:
    """Answer the requests, and end with their socket. Return in each fork, to run its job.

    A request is a line of JSON. The answer is another one, a list: the new process's number, or
    the exit code that was asked for. A process that has ended stays a zombie until its exit code is
    asked for. So no other process gets its number, and a late signal of the test reaches no
    stranger.
    """
    while True:
        text, descriptors, _, _ = socket.recv_fds(requests, 1 << 20, 4)
        while text and not text.endswith(b"\n"):
            text += requests.recv(1 << 20)
        if not text:
            requests.close()
            sys.exit()
        job: dict[str, Any] = json.loads(text)
        if "status_of" in job:
            answer = status_of(job["status_of"])
        elif pid := fork(job):
            answer = [pid]
        else:
            requests.close()
            return Start(job, descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        requests.sendall(b"%s\n" % json.dumps(answer).encode())


def fork(job: dict[str, Any]) -> int:
    """The number of the new process; 0 in that process."""
    if "module" in job and job["module"] not in sys.modules:
        importlib.import_module(job["module"])
        gc.freeze()
    return os.fork()


def status_of(pid: int) -> list[int]:
    """The exit code in a list, which is empty while the process runs."""
    found, status = os.waitpid(pid, os.WNOHANG)
    return [os.waitstatus_to_exitcode(status)] if found else []


def set_up(
    start: Start, command: list[str], env: dict[str, str], session: bool, hangups: bool
) -> None:
    """In the fork: set up what a new process would have from the one that starts it.

    The descriptors are those of its standard streams and its directory.
    """
    for number, descriptor in enumerate(start.descriptors[:3]):
        os.dup2(descriptor, number)
    os.fchdir(start.descriptors[3])
    for descriptor in start.descriptors:
        os.close(descriptor)
    if session:
        os.setsid()
    signal.signal(signal.SIGHUP, signal.SIG_DFL if hangups else signal.SIG_IGN)
    os.environ.clear()
    os.environ.update(env)
    sys.argv[:] = command


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


def answer_orders(module: str, descriptor: int) -> None:
    """Run ``module.serve(orders, answers)`` over the socket, and end the fork."""
    connection = socket.socket(fileno=descriptor)
    with connection, connection.makefile("r") as orders, connection.makefile("w") as answers:
        importlib.import_module(module).serve(orders, answers)
    os._exit(0)


if __name__ == "__main__":
    import_all()
    start = serve(socket.socket(fileno=int(sys.argv.pop())))
    if "module" in start.job:
        answer_orders(start.job["module"], *start.descriptors)
    set_up(start, **start.job)
    try:
        run(sys.argv[0])
    except SystemExit as end:
        if not isinstance(end.code, int):
            raise
        leave(end.code)
