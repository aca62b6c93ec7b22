"""The lines of `manifest.jsonl`, written as outcomes come."""

from __future__ import annotations

import json
import logging
import math

import anyio

from segments_async._files.places import MANIFEST, Place
from segments_async.errors import DestinationError

logger: logging.Logger = logging.getLogger("segments_async")

#: Lines kept for a place that can't take them now.
_MOST_KEPT = 100_000

#: Seconds for one write, which no cancellation ends. obstore repeats a request for a minute.
LONGEST_APPEND = 75.0


class Manifest:
    """Appends lines: one writer at a time, each time all lines that are queued."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._unwritten: list[str] = []
        self._writing = False
        self._written_at = -math.inf
        self._hurried = False
        self._waits: anyio.Event | None = None
        self._last = False

    def add(self, line: dict[str, object]) -> bool:
        """Queue a line. Returns whether `write` has to be called: no task is writing."""
        self._unwritten.append(json.dumps(line))
        return not self._writing

    def hurry(self) -> None:
        """Write the gathered lines now: callers wait for the writing task to end."""
        self._hurried = True
        if self._waits is not None:
            self._waits.set()

    async def write(self, *, last: bool = False) -> None:
        """Append the queued lines, unless another task does so already.

        Where each write costs a whole object, lines are gathered for a while.

        Args:
            last: no more lines follow, and no later call.
        """
        self._last = self._last or last
        if self._writing:
            return
        self._writing = True
        try:
            while self._unwritten:
                await self._gather()
                lines, self._unwritten = self._unwritten, []
                written = await self._append(lines)
                if not written and (self._hurried or not self._place.append_pause):
                    return  # the next line, or the session's end, tries once more
        finally:
            self._writing = self._hurried = False

    async def _gather(self) -> None:
        """Wait until the next write is due, or the session ends."""
        if self._last or self._hurried:
            return
        self._waits = anyio.Event()
        due = self._written_at + self._place.append_pause
        try:
            with anyio.CancelScope(deadline=due):
                if due > anyio.current_time():
                    await self._waits.wait()
        finally:
            self._waits = None

    async def _append(self, lines: list[str]) -> bool:
        """Append lines. Returns False where they aren't written.

        The place gets them with the next lines again: its error may pass (no free descriptor, a
        full disk, a store that is away). An error in a caller's own code must not end the run.
        """
        self._written_at = anyio.current_time()
        error = f"no answer within {LONGEST_APPEND:g} s"
        # Shielded: cancelled before it starts, a thread would never write these lines.
        with anyio.move_on_after(LONGEST_APPEND, shield=True):
            try:
                await self._place.append(lines)
                return True
            except (DestinationError, OSError) as exc:
                error = str(exc)
            except Exception as exc:  # noqa: BLE001 - a caller's own; its text may have a secret
                error = type(exc).__name__
        at = f"{self._place.location}/{MANIFEST}"
        if not self._last and len(self._unwritten) < _MOST_KEPT:
            logger.warning("can't write %s now; trying again: %s", at, error)
            self._unwritten[:0] = lines
        else:
            logger.error("can't write %s: %s", at, error)
        return False
