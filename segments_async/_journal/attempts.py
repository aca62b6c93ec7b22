"""Attempts to use the database of an opened run, and what their errors say about the database.

A database restarts, fails over, is locked, or has no space, and mostly it is back soon: it is
*away*. Any other error *breaks* the log: nothing can be written any more.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import anyio

from segments_async._filesystem.threads import NoThread, in_thread
from segments_async._journal.opened_run import OpenedRun
from segments_async._journal.refusals import Locked, journal_error
from segments_async._sansio.jobs.journal_outage import LONGEST_OUTAGE, JournalOutage
from segments_async.errors import JournalError, JournalReason

logger: logging.Logger = logging.getLogger("segments_async")

#: Seconds after which an attempt is left to its thread, and the database counts as away.
_STALL_SECONDS = 5.0


class Attempts:
    """The attempts to use the database of one run.

    Args:
        on_away: called after each attempt that finds the database away.
        on_broken: called after the attempt that ends all others, with whether the rows that the
            database hasn't taken are to be kept. Returns how many these are.
    """

    def __init__(
        self, run: OpenedRun, on_away: Callable[[], None], on_broken: Callable[[bool], int]
    ) -> None:
        self._run = run
        self._on_away = on_away
        self._on_broken = on_broken
        self._outage = JournalOutage()
        self._broken: JournalError | None = None

    @property
    def away(self) -> bool:
        """Whether the database can't be written for now."""
        return self._outage.away

    @property
    def broken(self) -> bool:
        """Whether nothing can be written any more."""
        return self._broken is not None

    def idle(self) -> float:
        """Seconds since the last attempt that the database took."""
        return self._outage.idle(anyio.current_time())

    def next_pause(self) -> float:
        """Seconds to wait before the next attempt."""
        return self._outage.next_pause()

    async def attempt(self, call: Callable[[], None]) -> bool:
        """Make one call of the database in a worker thread. Whether the call did its work."""
        error = await self._make(call)
        now = anyio.current_time()
        if error is None:
            seconds = self._outage.on_written(now)
            if seconds is not None:
                logger.info("run %s: the journal is back, after %.1f s", self._run.name, seconds)
            return True
        if isinstance(error, Locked):
            if self._outage.on_busy(now):
                self._is_away(now, self._error("locked", str(error)), error)
        elif isinstance(error, NoThread):
            self._is_away(now, self._error("unavailable", str(error.strerror)), error)
        elif isinstance(error, JournalError) and error.reason == "unavailable":
            self._is_away(now, error, error)
        elif isinstance(error, JournalError):
            self._break(error, error, keep=False)
        else:
            text = f"can't be written: {type(error).__name__}"
            self._break(self._error("unavailable", text), error, keep=False)
        return False

    def raise_broken(self) -> None:
        """Raise the error that ended all writing, anew for each caller."""
        if self._broken is not None:
            error = JournalError(
                str(self._broken), reason=self._broken.reason, location=self._broken.location
            )
            raise error from self._broken.__cause__

    async def _make(self, call: Callable[[], None]) -> Exception | None:
        """Make the call. Returns its error; None if the call succeeded.

        The call is shielded from cancellation, for some seconds only: with a server that vanished,
        its thread would wait for minutes. Such a thread is left alone, and the next attempt finds
        in the log what the thread has written.
        """
        ended = False
        with anyio.CancelScope(shield=True, deadline=anyio.current_time() + _STALL_SECONDS):
            try:
                await in_thread(call, abandon_on_cancel=True)
            except Exception as exc:  # noqa: BLE001 - whatever it is, no later event can be logged
                return exc
            ended = True
        if ended:
            return None
        self._run.abandon()
        return self._error("unavailable", f"no answer within {_STALL_SECONDS:g} s")

    def _is_away(self, now: float, why: JournalError, cause: Exception) -> None:
        match self._outage.on_away(now):
            case "begins":
                logger.warning(
                    "run %s: the journal is away (%s); no export is asked for until it is back, "
                    "and what happens meanwhile is kept in memory",
                    self._run.name,
                    why,
                )
                self._on_away()
            case "lasts":
                self._on_away()
            case "over":
                self._break(why, cause, keep=True)

    def _break(self, why: JournalError, cause: Exception, *, keep: bool) -> None:
        unwritten = self._on_broken(keep)
        error = self._gone(why, unwritten) if keep else why
        error.__cause__ = cause.__cause__ if cause is error else cause
        self._broken = error

    def _error(self, reason: JournalReason, what: str) -> JournalError:
        return journal_error(self._run.location, reason, what)

    def _gone(self, why: JournalError, unwritten: int) -> JournalError:
        return JournalError(
            f"{why}; run {self._run.name} was ended, since its journal had been away for "
            f"{LONGEST_OUTAGE / 60:g} minutes. {unwritten} events were not written; the "
            "outcomes, and manifest.jsonl, have the exports whose id is known",
            reason=why.reason,
            location=self._run.location,
        )
