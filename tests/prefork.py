"""Processes that start at once: each is forked off a mother process that has imported everything.

The imports take 1.5 s of processor time. So there is one mother for all tests of a process; she is
started by the first of them, and ends with that process.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Generator
from pathlib import Path
from typing import TextIO

from forks import import_all

import segments_async

#: Modules whose `serve(orders, answers)` may be a process.
_MODULES = ("journal.writer", "reliability.victim")

_TESTS = Path(__file__).resolve().parent


@contextlib.contextmanager
def serving(module: str) -> Generator[tuple[TextIO, TextIO]]:
    """A process that reads orders, line by line, and answers. It ends with its orders.

    Leaving waits for the process, and for the processes that it has forked.
    """
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            _bear(module, theirs)
        with ours.makefile("w") as orders, ours.makefile("r") as answers:
            yield orders, answers
            orders.flush()
            ours.shutdown(socket.SHUT_WR)
            answers.read()


class _Mother:
    """The mother, as the tests' process sees her."""

    def __init__(self) -> None:
        self._control, theirs = socket.socketpair()
        package = Path(segments_async.__file__).parent.parent
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "prefork", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env={**os.environ, "PYTHONPATH": f"{package}{os.pathsep}{_TESTS}"},
                cwd=_TESTS,
            )

    @property
    def lives(self) -> bool:
        return self._process.poll() is None

    def bear(self, module: str, talk: socket.socket) -> None:
        """Fork a process that talks over the socket."""
        socket.send_fds(self._control, [module.encode()], [talk.fileno()])
        assert self._control.recv(1), "the mother process has ended"

    def end(self) -> None:
        self._control.close()
        self._process.wait()


#: The mother of this process's tests. Tests start processes in several threads.
_mothers: list[_Mother] = []
_lock = threading.Lock()


def _bear(module: str, talk: socket.socket) -> None:
    """Fork a process off the mother. One that has died fails one test, and not all later ones."""
    with _lock:
        if not _mothers or not _mothers[0].lives:
            _mothers[:] = [_Mother()]
            atexit.register(_mothers[0].end)
        _mothers[0].bear(module, talk)


def main(control: socket.socket) -> None:
    """Fork a process for each message: the module's name, and the socket to talk over."""
    for module in _MODULES:
        importlib.import_module(module)
    import_all()
    while True:
        name, descriptors, _, _ = socket.recv_fds(control, 100, 1)
        if not name:
            return
        with contextlib.suppress(ChildProcessError):  # there are none
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        talk = socket.socket(fileno=descriptors[0])
        if os.fork() == 0:
            control.close()
            with talk, talk.makefile("r") as orders, talk.makefile("w") as answers:
                importlib.import_module(name.decode()).serve(orders, answers)
            os._exit(0)
        talk.close()
        control.send(b".")


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])))
