"""Dividing the account's limit with its other processes, by the journal, while a run lasts."""

from __future__ import annotations

import logging
import uuid
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import anyio

from segments_async._pace.gate import Gate
from segments_async._sansio.pace.pacer import Pacer
from segments_async._sansio.pace.shared_limit import Share
from segments_async.errors import JournalError

if TYPE_CHECKING:
    from segments_async._journal.sql import SqlJournal

logger: logging.Logger = logging.getLogger("segments_async")

#: Seconds between two exchanges while somebody waits for the pacer, and while nobody does.
BUSY = 1.0
IDLE = 10.0


#: Seconds that a run waits to learn its part before its first request, and to say that it is over.
PATIENCE = 1.0


class Sharing:
    """One process's part in the limit, whichever of its runs asks for it."""

    def __init__(self) -> None:
        self._share = Share()
        self._member = uuid.uuid4().hex
        self._runs = 0
        self._kept = False
        #: Whether the last exchange failed, and the warning has been given.
        self._fails = False

    async def join(self, gate: Gate, journal: SqlJournal) -> None:
        """Learn the part, if that doesn't take long: the first requests are to go by it."""
        if not self._kept:
            with anyio.move_on_after(PATIENCE):
                await self._exchange(gate, journal)

    async def keep(self, gate: Gate, journal: SqlJournal, over: anyio.Event) -> None:
        """Exchange what is known, again and again, until the run is over.

        Of several runs, one does so for all, and the last one says that there are no more.
        """
        self._runs += 1
        try:
            while self._kept and not over.is_set():
                await _pause(over)
            if not over.is_set():
                await self._keep(gate, journal, over)
        finally:
            self._runs -= 1
        if not self._runs:
            with anyio.move_on_after(PATIENCE):
                await self._exchange(gate, journal, leaves=True)

    async def _keep(self, gate: Gate, journal: SqlJournal, over: anyio.Event) -> None:
        self._kept = True
        try:
            while await self._rest(gate, over):
                await self._exchange(gate, journal)
        finally:
            self._kept = False

    async def _exchange(self, gate: Gate, journal: SqlJournal, *, leaves: bool = False) -> None:
        """Tell what is known here, and go by what is known to all.

        What fails is tried again at the next exchange: only the run's log is worth ending a run
        for. Until then the process goes on with the part that it has.
        """
        own = self._share.own(gate.pacer, leaves=leaves)
        try:
            report = await journal.exchange(self._member, own.tell)
        except JournalError as exc:
            if exc.reason != "locked" and not self._fails:
                self._fails = True
                logger.warning("the limit isn't shared with other processes for now: %s", exc)
            return
        if self._fails:
            self._fails = False
            logger.info("the limit is shared with other processes again")
        if self._share.took(gate.pacer, own, report):
            gate.on_new_pace()

    async def _rest(self, gate: Gate, over: anyio.Event) -> bool:
        """Until it is time for the next exchange, or the run is over: then there is none."""
        until = anyio.current_time() + IDLE
        while True:
            await _pause(over)
            if over.is_set():
                return False
            if gate.pacer.waited or anyio.current_time() >= until:
                return True


async def _pause(over: anyio.Event) -> None:
    with anyio.move_on_after(BUSY):
        await over.wait()


#: By pacer: to other processes, clients that share one are one.
_SHARINGS: WeakKeyDictionary[Pacer, Sharing] = WeakKeyDictionary()


def sharing_of(pacer: Pacer) -> Sharing:
    """The sharing of a pacer, which begins with its first run that has a journal."""
    found = _SHARINGS.get(pacer)
    if found is None:
        found = _SHARINGS[pacer] = Sharing()
    return found
