"""The gate before storage: while storage is away, all downloads of a client wait for one probe."""

from __future__ import annotations

import logging
import random
from collections.abc import Mapping

import anyio

from segments_async._sansio.files.storage_outage import (
    LONGEST_STORAGE_OUTAGE,
    StorageFailure,
    StorageOutage,
    failure_of,
)
from segments_async._sansio.pace.backoff import retry_after_seconds

logger: logging.Logger = logging.getLogger("segments_async")

#: Longest pause that storage can order, in seconds.
LONGEST_PAUSE = 60.0


class StorageUnavailable(Exception):
    """Storage has been away for longer than anybody waits."""


class StorageGate:
    """What all downloads of a client know of storage."""

    def __init__(self) -> None:
        self._outage = StorageOutage()
        self._changed: anyio.Event | None = None

    async def turn(self) -> None:
        """Wait until a request may go, which then has to go at once.

        Raises:
            StorageUnavailable: nobody waits any more.
        """
        while (at := self._outage.next_at()) > (now := anyio.current_time()):
            if self._outage.gives_up(now):
                raise StorageUnavailable(
                    f"storage has been away for {LONGEST_STORAGE_OUTAGE / 3600:g} h"
                )
            self._changed = self._changed or anyio.Event()
            with anyio.CancelScope(deadline=at):
                await self._changed.wait()

    def on_sent(self) -> None:
        """A request goes."""
        self._outage.on_sent()

    def on_inconclusive(self) -> None:
        """The request came to nothing for a reason that says nothing of storage."""
        self._outage.on_inconclusive()
        self._tell()

    def on_answer(
        self, status: int, headers: Mapping[str, str], file: str, *, sent_at: float
    ) -> bool:
        """An answer came. Returns whether it says that storage is away."""
        failure = failure_of(status)
        if failure is not None:
            asked = retry_after_seconds(status, headers)
            pause = None if asked is None else min(asked, LONGEST_PAUSE)
            return self.on_failed(failure, file, f"answer {status}", sent_at=sent_at, pause=pause)
        if self._outage.on_answer(file, sent_at):
            logger.warning("storage is there again")
        self._tell()
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
        """A request failed. Returns whether storage is away, and the file isn't to blame."""
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
                "storage is away (%s): downloads wait for up to %g hours, and are tried one at a "
                "time; what has come is kept",
                what,
                LONGEST_STORAGE_OUTAGE / 3600,
            )
        self._tell()
        return away

    def _tell(self) -> None:
        if self._changed is not None:
            self._changed.set()
            self._changed = None
