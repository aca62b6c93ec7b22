"""A process that has imported the command, and forks one for each line of JSON on stdin.

A line is `{"arguments", "cwd", "env", "out", "err"}`; the exit status is printed once the command
is over. Its imports take half a second of a processor: many tests of the command take less.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import runpy
import sys
import threading
from typing import Any

from forks import import_all


def become(arguments: list[str], cwd: str, env: dict[str, str], out: str, err: str) -> None:
    """In the forked process: set up directory, environment and streams as of a new process."""
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    places = ((os.devnull, os.O_RDONLY), (out, os.O_WRONLY), (err, os.O_WRONLY))
    for descriptor, (path, flags) in enumerate(places):
        opened = os.open(path, flags)
        os.dup2(opened, descriptor)
        os.close(opened)
    sys.argv[1:] = arguments


def main() -> None:
    """Fork a command for each line; in the fork, return to run it."""
    for line in sys.stdin:
        job: dict[str, Any] = json.loads(line)
        pid = os.fork()
        if pid == 0:
            become(**job)
            return
        _, status = os.waitpid(pid, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()
    sys.exit()


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
    main()
    try:
        runpy.run_module("segments_async.cli", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if not isinstance(end.code, int):
            raise
        leave(end.code)
