"""The program `segments-async` for shells: the command that it stands for is forked (`forked.py`).

The shell starts a small program, which passes its streams, directory and environment on through a
socket, and ends as the command does. A shell that ends the program ends the command.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import sys
import tempfile
from pathlib import Path
from threading import Thread
from typing import Any, Self

from forked import Forked, ForkServer

_PROGRAM = """\
#!{python} -IS
import json, os, socket, sys
proxy = socket.socket(socket.AF_UNIX)
proxy.connect({address!r})
job = {{"arguments": sys.argv[1:], "env": dict(os.environ)}}
here = os.open(".", os.O_RDONLY)
socket.send_fds(proxy, [json.dumps(job).encode() + b"\\n"], [0, 1, 2, here])
status = int(proxy.recv(100))
if status < 0:
    os.kill(os.getpid(), -status)
sys.exit(status)
"""

#: Seconds after which it is looked whether a command has ended.
_LOOK = 0.01


class CommandProxy:
    """Forks a command for each program that connects, as long as the block lasts.

    Args:
        fork_server: starts the commands.
        programs: the folder in which it puts the program.
    """

    def __init__(self, fork_server: ForkServer, programs: Path) -> None:
        self._fork_server = fork_server
        self._program = programs / "segments-async"
        self._listener = socket.socket(socket.AF_UNIX)
        self._threads: list[Thread] = []
        self._closing = False

    def __enter__(self) -> Self:
        # A socket's path has a hundred characters at most, and a test's folder often more.
        self._folder = tempfile.TemporaryDirectory()
        self._address = f"{self._folder.name}/socket"
        self._listener.bind(self._address)
        self._listener.listen()
        self._program.write_text(_PROGRAM.format(python=sys.executable, address=self._address))
        self._program.chmod(0o700)
        self._start_thread(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self._closing = True
        with socket.socket(socket.AF_UNIX) as last:
            last.connect(self._address)
        for thread in self._threads:
            thread.join()
        self._listener.close()
        self._folder.cleanup()

    def _start_thread(self, work: Any, *arguments: Any) -> None:
        self._threads.append(thread := Thread(target=work, args=arguments))
        thread.start()

    def _accept(self) -> None:
        while True:
            program, _ = self._listener.accept()
            if self._closing:
                program.close()
                return
            self._start_thread(self._run, program)

    def _run(self, program: socket.socket) -> None:
        with program:
            text, descriptors, _, _ = socket.recv_fds(program, 1 << 20, 4)
            while not text.endswith(b"\n"):
                text += program.recv(1 << 20)
            job = json.loads(text)
            stdin, stdout, stderr, cwd = descriptors
            process = Forked(
                self._fork_server,
                *job["arguments"],
                env=job["env"],
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                cwd=cwd,
            )
            for descriptor in descriptors:
                os.close(descriptor)
            while process.poll() is None:
                if has_ended(program):
                    process.end()
                    return
            with contextlib.suppress(OSError):  # it has ended just now
                program.sendall(b"%d" % (process.returncode or 0))


def has_ended(program: socket.socket) -> bool:
    """Wait a moment for a program, which sends nothing more, to end."""
    return bool(select.select([program], [], [], _LOOK)[0])
