"""Dividing the account's limit with its other processes, through the journal, while a run lasts."""

from __future__ import annotations

import logging
import uuid
from typing import TYPE_CHECKING

import anyio

from segments_async._pace.gate import Gate
from segments_async._sansio.pace.notice import on_new_share
from segments_async._telemetry.guard import log
from segments_async._telemetry.pace import hear_pace
from segments_async.errors import JournalError

if TYPE_CHECKING:
    from segments_async._journal.sql import SqlJournal

#: Seconds between two exchanges: while a request waits for the pacer, and while none does.
BUSY = 1.0
IDLE = 10.0

#: Seconds that a run waits for its part before its first request, and at its end for the others to
#: learn that it needs no part any more.
PATIENCE = 1.0


class Sharing:
    """The exchanges of one run. All runs of one pacer have one part, which `Pacer.share` holds.

    Args:
        gate: whose requests the part is for.
        journal: where all processes of the account exchange their reports.
    """

    def __init__(self, gate: Gate, journal: SqlJournal) -> None:
        self._gate = gate
        self._journal = journal
        self._share = gate.pacer.share

    async def join(self) -> None:
        """Learn the part before the first request, if that takes at most `PATIENCE` seconds."""
        if not self._share.exchanging:
            with anyio.move_on_after(PATIENCE):
                await self._exchange()

    async def keep(self, finished: anyio.Event) -> None:
        """Exchange again and again, until the run is finished.

        Of several runs, one makes the exchanges for all. The last one tells the other processes
        that this one needs no part any more.
        """
        share = self._share
        share.runs += 1
        try:
            while share.exchanging and not finished.is_set():
                await _pause(finished)
            if not finished.is_set():
                share.exchanging = True
                try:
                    while await self._rest(finished):
                        await self._exchange()
                finally:
                    share.exchanging = False
        finally:
            share.runs -= 1
        if not share.runs:
            with anyio.move_on_after(PATIENCE):
                await self._exchange(leaves=True)

    async def _exchange(self, *, leaves: bool = False) -> None:
        """Report this process's rate to the others, and adopt its part of the sum.

        An exchange that fails doesn't end the run. The process keeps its part, and the next
        exchange is the next try.
        """
        share, pacer = self._share, self._gate.pacer
        share.member = share.member or uuid.uuid4().hex
        own = share.own(pacer, leaves=leaves)
        try:
            report = await self._journal.exchange(share.member, own.tell)
        except JournalError as exc:
            if exc.reason != "locked" and not share.failing:
                share.failing = True
                log(
                    logging.WARNING,
                    "the limit isn't shared with other processes for now: %s; this process keeps "
                    "the part that it has, and the exchange is tried again",
                    exc,
                )
            return
        if share.failing:
            share.failing = False
            log(logging.INFO, "the limit is shared with other processes again")
        if share.took(pacer, own, report):
            self._gate.on_new_pace()
            hear_pace(on_new_share(pacer.rate, divided=share.divided))

    async def _rest(self, finished: anyio.Event) -> bool:
        """Wait until it is time for an exchange. False: the run is finished, and there is none."""
        until = anyio.current_time() + IDLE
        while True:
            await _pause(finished)
            if finished.is_set():
                return False
            if self._gate.pacer.waited or anyio.current_time() >= until:
                return True


async def _pause(finished: anyio.Event) -> None:
    with anyio.move_on_after(BUSY):
        await finished.wait()
