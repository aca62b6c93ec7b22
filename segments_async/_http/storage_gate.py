"""The gate before storage: during an outage, all downloads of a client wait for one probe."""

from __future__ import annotations

import logging
import random
from collections.abc import Mapping

import anyio

from segments_async._sansio.api.retry_after import retry_after_seconds
from segments_async._sansio.files.storage_outage import (
    LONGEST_STORAGE_OUTAGE,
    StorageFailure,
    StorageOutage,
    failure_of,
)
from segments_async._sansio.pace.hold import Hold

logger: logging.Logger = logging.getLogger("segments_async")

#: Longest Retry-After of storage that is obeyed, in seconds.
LONGEST_PAUSE = 60.0


class StorageUnavailable(Exception):
    """The outage of storage has lasted longer than downloads wait."""


class StorageGate:
    """Says to all downloads of a client whether storage is available, and which is the probe."""

    def __init__(self) -> None:
        self._outage = StorageOutage()
        self._changed: anyio.Event | None = None

    def hold(self, now: float, *, unsigned: bool) -> Hold | None:
        """See `StorageOutage.hold`."""
        return self._outage.hold(now, unsigned=unsigned)

    async def turn(self) -> None:
        """Wait until a request may be sent. The caller has to send it at once.

        Raises:
            StorageUnavailable: the outage has lasted too long.
        """
        while (at := self._outage.next_at()) > (now := anyio.current_time()):
            if self._outage.gives_up(now):
                raise StorageUnavailable(
                    f"storage has been unavailable for {LONGEST_STORAGE_OUTAGE / 3600:g} h"
                )
            self._changed = self._changed or anyio.Event()
            with anyio.CancelScope(deadline=at):
                await self._changed.wait()

    def on_sent(self) -> None:
        """A request is sent."""
        self._outage.on_sent()

    def on_inconclusive(self) -> None:
        """The request failed for a reason that says nothing of storage."""
        self._outage.on_inconclusive()
        self._wake()

    def on_answer(
        self, status: int, headers: Mapping[str, str], file: str, *, sent_at: float
    ) -> bool:
        """An answer came. Returns whether it shows an outage of storage."""
        failure = failure_of(status)
        if failure is not None:
            asked = retry_after_seconds(status, headers)
            pause = None if asked is None else min(asked, LONGEST_PAUSE)
            return self.on_failed(failure, file, f"answer {status}", sent_at=sent_at, pause=pause)
        if self._outage.on_answer(file, sent_at):
            logger.warning("storage is available again")
        self._wake()
        return False

    def on_failed(
        self,
        failure: StorageFailure,
        file: str,
        what: str,
        *,
        sent_at: float,
        pause: float | None = None,
    ) -> bool:
        """A request failed. Returns whether all of storage is away, not this file alone."""
        before = self._outage.armed
        away = self._outage.on_failed(
            failure,
            file,
            now=anyio.current_time(),
            sent_at=sent_at,
            chance=random.random(),
            retry_after=pause,
        )
        if self._outage.armed and not before:
            logger.warning(
                "storage is unavailable (%s): downloads wait for up to %g hours, one of them is "
                "tried at a time, and the bytes that arrived are kept",
                what,
                LONGEST_STORAGE_OUTAGE / 3600,
            )
        self._wake()
        return away

    def _wake(self) -> None:
        if self._changed is not None:
            self._changed.set()
            self._changed = None
