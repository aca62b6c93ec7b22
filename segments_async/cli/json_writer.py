"""Writes JSON lines to stdout, for programs."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress

import anyio
from anyio.lowlevel import checkpoint

from segments_async.cli import streams
from segments_async.cli.streams import StdoutError


class JsonLines:
    """Writes whole JSON lines to stdout, as fast as the reader takes them.

    A slow reader delays only the task that sends. The rest of a line whose task was cancelled is
    sent before the next line, so that no line is cut.
    """

    def __init__(self, descriptor: int = 1) -> None:
        self._descriptor = descriptor
        self._unsent = bytearray()
        self._broken = False

    async def send(self, *lines: Mapping[str, object]) -> None:
        """Send the unsent rest, and these lines.

        Raises:
            StdoutError: stdout can't be written. Later lines are not written either.
        """
        self._add(lines)
        while self._unsent:
            await checkpoint()
            await self._send_some()

    def check_reader(self) -> None:
        """Check that stdout still has a reader, without sending anything.

        Raises:
            StdoutError: stdout is a pipe whose reader has ended.
        """
        if streams.has_no_reader(self._descriptor):
            raise StdoutError(OSError(errno.EPIPE, os.strerror(errno.EPIPE)))

    async def finish(self, lines: Iterable[Mapping[str, object]]) -> bool:
        """Send these lines though the task is cancelled. Whether the reader has taken all.

        After `PATIENCE` seconds without progress the rest is not sent.
        """
        self._add(lines)
        while self._unsent:
            before = len(self._unsent)
            with anyio.move_on_after(streams.PATIENCE, shield=True), suppress(StdoutError):
                await self._send_some()
            if len(self._unsent) == before:
                return False
        return not self._broken

    def _add(self, lines: Iterable[Mapping[str, object]]) -> None:
        if not self._broken:
            self._unsent += "".join(map(streams.json_text, lines)).encode("ascii")

    async def _send_some(self) -> None:
        if not streams.is_writable(self._descriptor, 0):
            await anyio.wait_writable(self._descriptor)
        try:
            del self._unsent[: os.write(self._descriptor, self._unsent[: streams.PIECE])]
        except BlockingIOError:  # another process was faster
            return
        except OSError as error:
            self._broken = True
            self._unsent.clear()
            raise StdoutError(error) from error
