"""The lines of `manifest.jsonl`, written as outcomes come."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import anyio
import anyio.to_thread

from segments_async._files.destination import append_lines

logger: logging.Logger = logging.getLogger("segments_async")


class Manifest:
    """Appends lines: one writer at a time, each time all lines that are queued."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._unwritten: list[str] = []
        self._writing = False

    def add(self, line: dict[str, object]) -> bool:
        """Queue a line. Returns whether `write` has to be called: no task is writing."""
        self._unwritten.append(json.dumps(line))
        return not self._writing

    async def write(self) -> None:
        """Append the queued lines, unless another task does so already."""
        if self._writing:
            return
        self._writing = True
        try:
            while self._unwritten:
                lines, self._unwritten = self._unwritten, []
                # Cancelled before it starts, the thread would never write these lines.
                with anyio.CancelScope(shield=True):
                    await anyio.to_thread.run_sync(append_lines, self._path, lines)
        except OSError as exc:
            logger.error("can't write %s: %s", self._path, exc)
        finally:
            self._writing = False
