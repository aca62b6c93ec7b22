"""The program `segments-async` for shells: it has the command forked (`forked.py`).

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

from forked import Forked, Nursery

_PROGRAM = """\
#!{python} -IS
import json, os, socket, sys
door = socket.socket(socket.AF_UNIX)
door.connect({door!r})
job = {{"arguments": sys.argv[1:], "env": dict(os.environ)}}
here = os.open(".", os.O_RDONLY)
socket.send_fds(door, [json.dumps(job).encode() + b"\\n"], [0, 1, 2, here])
status = int(door.recv(100))
if status < 0:
    os.kill(os.getpid(), -status)
sys.exit(status)
"""

#: Seconds after which it is looked whether a command has ended.
_LOOK = 0.01


class Door:
    """Forks a command for each program that knocks, as long as the block lasts.

    Args:
        nursery: forks the commands.
        programs: the folder in which it puts the program.
    """

    def __init__(self, nursery: Nursery, programs: Path) -> None:
        self._nursery = nursery
        self._program = programs / "segments-async"
        self._door = socket.socket(socket.AF_UNIX)
        self._threads: list[Thread] = []
        self._closing = False

    def __enter__(self) -> Self:
        # A socket's path has a hundred characters at most, and a test's folder often more.
        self._folder = tempfile.TemporaryDirectory()
        self._place = f"{self._folder.name}/door"
        self._door.bind(self._place)
        self._door.listen()
        self._program.write_text(_PROGRAM.format(python=sys.executable, door=self._place))
        self._program.chmod(0o700)
        self._start(self._open)
        return self

    def __exit__(self, *_: object) -> None:
        self._closing = True
        with socket.socket(socket.AF_UNIX) as last:
            last.connect(self._place)
        for thread in self._threads:
            thread.join()
        self._door.close()
        self._folder.cleanup()

    def _start(self, work: Any, *arguments: Any) -> None:
        self._threads.append(thread := Thread(target=work, args=arguments))
        thread.start()

    def _open(self) -> None:
        while True:
            program, _ = self._door.accept()
            if self._closing:
                program.close()
                return
            self._start(self._fork, program)

    def _fork(self, program: socket.socket) -> None:
        with program:
            text, descriptors, _, _ = socket.recv_fds(program, 1 << 20, 4)
            while not text.endswith(b"\n"):
                text += program.recv(1 << 20)
            job = json.loads(text)
            names = ("stdin", "stdout", "stderr", "cwd")
            process = Forked(
                self._nursery,
                *job["arguments"],
                env=job["env"],
                **dict(zip(names, descriptors, strict=True)),
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
