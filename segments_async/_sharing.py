"""Dividing the account's limit with its other processes, by the journal, while a run lasts."""

from __future__ import annotations

import logging
import uuid
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import anyio

from segments_async._gate import Gate
from segments_async._sansio.pacer import Pacer
from segments_async._sansio.sharing import Share
from segments_async.errors import JournalError

if TYPE_CHECKING:
    from segments_async._journal.sql import SqlJournal

logger: logging.Logger = logging.getLogger("segments_async")

#: Seconds between two exchanges while somebody waits for the pacer, and while nobody does.
BUSY = 1.0
IDLE = 10.0


class Sharing:
    """A pacer that divides the limit with those of other processes."""

    def __init__(self, pacer: Pacer) -> None:
        self._share = Share(pacer)
        self._member = uuid.uuid4().hex
        self._kept = False

    async def keep(self, gate: Gate, journal: SqlJournal, over: anyio.Event) -> None:
        """Exchange what is known, again and again, until the run is over.

        Of several runs with one pacer, one does so for all.
        """
        while self._kept and not over.is_set():
            await _pause(over)
        if over.is_set():
            return
        self._kept = True
        try:
            while await self._exchange(gate, journal, leaves=over.is_set()) and not over.is_set():
                await self._rest(over)
        finally:
            self._kept = False

    async def _exchange(self, gate: Gate, journal: SqlJournal, *, leaves: bool) -> bool:
        """Whether it is worth another one."""
        mine = self._share.mine(leaves=leaves)
        try:
            told = await journal.exchange(self._member, mine.tell)
        except JournalError as exc:
            # Only the run's log is worth ending a run for.
            logger.warning("the limit isn't shared with other processes: %s", exc)
            return exc.reason == "locked"
        if self._share.took(mine, told):
            gate.on_new_pace()
        return True

    async def _rest(self, over: anyio.Event) -> None:
        until = anyio.current_time() + IDLE
        while True:
            await _pause(over)
            if over.is_set() or self._share.waits or anyio.current_time() >= until:
                return


async def _pause(over: anyio.Event) -> None:
    with anyio.move_on_after(BUSY):
        await over.wait()


#: By pacer: to other processes, clients that share one are one.
_SHARINGS: WeakKeyDictionary[Pacer, Sharing] = WeakKeyDictionary()


def sharing_of(pacer: Pacer) -> Sharing:
    """The sharing of a pacer, which begins with its first run that has a journal."""
    found = _SHARINGS.get(pacer)
    if found is None:
        found = _SHARINGS[pacer] = Sharing(pacer)
    return found
