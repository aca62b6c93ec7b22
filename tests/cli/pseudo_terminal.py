"""A command whose stdin, stdout and stderr are a pseudo-terminal."""

from __future__ import annotations

import os
import pty
import signal
from threading import Thread

from launch import PATIENCE, Start, Until


class PseudoTerminal:
    """A command whose stdin, stdout and stderr are a pseudo-terminal."""

    def __init__(
        self, start: Start, *arguments: str, env: dict[str, str], stdout: int | None = None
    ) -> None:
        self._ours, theirs = pty.openpty()
        self._process = start(
            *arguments,
            env={**env, "TERM": "xterm-256color", "LINES": "30"},
            stdin=theirs,
            stdout=theirs if stdout is None else stdout,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)
        self._shown = b""
        self._reader = Thread(target=self._read)
        self._reader.start()

    def answer(self, prompt: str, text: str, until: Until) -> None:
        """Type after the prompt has come: getpass() drops earlier input."""
        until(lambda: prompt.encode() in self._shown)
        os.write(self._ours, f"{text}\n".encode())

    def interrupt(self, prompt: str, until: Until) -> None:
        """Press Ctrl-C once the prompt is there."""
        until(lambda: prompt.encode() in self._shown)
        self._process.send_signal(signal.SIGINT)

    def end(self) -> tuple[int, str]:
        """The exit code, and everything that was shown."""
        try:
            code = self._process.wait(PATIENCE)
        finally:
            self._process.kill()
            self._reader.join(PATIENCE)
            os.close(self._ours)
        return code, self._shown.decode()

    def _read(self) -> None:
        while True:
            try:
                piece = os.read(self._ours, 4096)
            except OSError:  # Linux says so that nobody writes any more
                return
            if not piece:
                return
            self._shown += piece
