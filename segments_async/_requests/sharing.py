"""What the account's processes tell each other through the journal, while a run lasts.

They exchange three facts: the rate limit, of which each process has a part (`shared_limit`); that
the vendor is away, or back (`shared_outage`); and the ticket guard. One exchange carries all three:
a query, and one or two writes.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import anyio
import attrs

from segments_async._requests.gate import Gate
from segments_async._sansio.pace.admission import Admission
from segments_async._sansio.pace.backoff import TicketGuard
from segments_async._sansio.pace.notice import on_new_share, on_told, on_told_guard
from segments_async._sansio.pace.shared_limit import GroupView, Partner, Report
from segments_async._sansio.pace.shared_outage import (
    Agreed,
    GuardNews,
    News,
    OwnOutage,
    Word,
    agree_all,
)
from segments_async._telemetry.guard import log
from segments_async._telemetry.pace import hear_pace
from segments_async.errors import JournalError

if TYPE_CHECKING:
    from segments_async._journal.sql import SqlJournal

#: Seconds between two exchanges: while a request waits for the pacer or submits are sent, and while
#: neither is so.
BUSY = 1.0
IDLE = 10.0

#: Seconds that a run waits before its first request for its part of the limit, and at its end until
#: the other processes know that it needs no part.
PATIENCE = 1.0


async def read_news(gate: Gate, journal: SqlJournal) -> bool:
    """Learn, before the first request, what other processes were answered.

    Returns whether the journal has a ticket guard.

    Raises:
        JournalError: the journal can't be read.
    """
    news = await journal.ask(lambda database: database.news())
    now = anyio.current_time()
    _heed(gate, news)
    return gate.admission.news.restore_guard(now, news.guard)


class Sharing:
    """The exchanges of one run. All runs of one pacer have one part, which `Pacer.share` holds.

    Args:
        gate: the part is for its requests.
        journal: where all processes of the account exchange their reports.
        on_guard_read: called where the ticket guard was set to what the journal has.
    """

    def __init__(
        self, gate: Gate, journal: SqlJournal, on_guard_read: Callable[[TicketGuard], None]
    ) -> None:
        self._gate = gate
        self._journal = journal
        self._on_guard_read = on_guard_read
        self._share = gate.pacer.share
        self._resting: anyio.CancelScope | None = None
        self._urgent = False
        #: Whether the last exchange failed: the next one is no sooner than usual then.
        self._failed = False

    @property
    def admission(self) -> Admission[Any]:
        """The admission of the run's client."""
        return self._gate.admission

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
        share.partners.append(self)
        try:
            while share.exchanging and not finished.is_set():
                with anyio.move_on_after(BUSY):
                    await finished.wait()
            if not finished.is_set():
                share.exchanging, share.wake = True, self._wake
                try:
                    while await self._rest(finished):
                        await self._exchange()
                finally:
                    share.exchanging, share.wake = False, None
        finally:
            share.partners.remove(self)
        if not share.partners:
            with anyio.move_on_after(PATIENCE):
                await self._exchange(leaves=True)

    def heed(self, news: News) -> None:
        """Heed what another look at the journal has found."""
        if not _heed(self._gate, news) and self._share.wake is not None:
            self._share.wake()
        self.took_guard(news.guard)

    async def _exchange(self, *, leaves: bool = False) -> None:
        """Report what this process knows, and adopt its part of the limit.

        An exchange that fails doesn't end the run. The process keeps its part, and the next
        exchange is the next try.
        """
        share, pacer = self._share, self._gate.pacer
        share.member = share.member or uuid.uuid4().hex
        own = share.own(pacer, leaves=leaves)
        now, token = anyio.current_time(), uuid.uuid4().hex
        partners = _clients([*share.partners, self])
        owns = [one.admission.own_outages(now) for one in partners]
        looks: list[tuple[GroupView, list[dict[str, Agreed]]]] = []

        def tell(group: GroupView) -> Report:
            others = group.alive
            agreed, changed = agree_all(owns, group.news, others=others, token=token)
            looks.append((group, agreed))
            return attrs.evolve(own.tell(group), outages=changed)

        self._urgent = False
        try:
            report = await self._journal.exchange(share.member, tell)
        except JournalError as exc:
            self._failed = True
            self._on_failure(exc)
            return
        self._failed = False
        if share.failing:
            share.failing = False
            log(logging.INFO, "the limit is shared with other processes again")
        if share.took(pacer, own, report):
            self._gate.on_new_pace()
            hear_pace(on_new_share(pacer.rate, divided=share.divided))
        if looks:
            group, agreed = looks[-1]
            news, share.alive = group.news, group.alive
            for partner, before, after in zip(partners, owns, agreed, strict=True):
                partner.took(before, after)
            for partner in {*share.partners, self}:
                partner.took_guard(news.guard)
        self._urgent = any(one.admission.news.has_news for one in partners)

    def _on_failure(self, error: JournalError) -> None:
        if error.reason != "locked" and not self._share.failing:
            self._share.failing = True
            log(
                logging.WARNING,
                "the limit isn't shared with other processes for now: %s; this process keeps "
                "the part that it has, and the exchange is tried again",
                error,
            )

    def took(self, own: Mapping[str, OwnOutage], agreed: Mapping[str, Agreed]) -> None:
        """Adopt the result of a look at the journal for the run's client."""
        _took(self._gate, own, agreed)

    def took_guard(self, guard: GuardNews | None) -> None:
        """Heed a 500 that another process received."""
        now = anyio.current_time()
        if self.admission.news.took_guard(now, guard):
            if guard is not None:
                # Not `next_at`, which has no time while this client's probe is on the wire.
                hear_pace(on_told_guard(self._gate.guard.until - now))
            self._gate.on_new_pace()
        if guard is not None and self._gate.guard.told:
            self._on_guard_read(self._gate.guard)

    def _wake(self) -> None:
        """Exchange now: a client has news."""
        if self._failed:
            return
        self._urgent = True
        if self._resting is not None:
            self._resting.cancel()

    async def _rest(self, finished: anyio.Event) -> bool:
        """Wait until it is time for an exchange. False: the run is finished, and there is none."""
        until, submits = anyio.current_time() + IDLE, self.admission.submits
        while True:
            if not self._urgent:
                with anyio.move_on_after(BUSY) as self._resting:
                    await finished.wait()
                self._resting = None
            if finished.is_set():
                return False
            now = anyio.current_time()
            busy = self._gate.pacer.waited or self.admission.submits > submits
            if self._urgent or busy or now >= min(until, self._look_at(now)):
                return True

    def _look_at(self, now: float) -> float:
        """When the outages that are held in common are to be looked at next, in seconds."""
        partners = [*self._share.partners, self]
        if any(one.admission.news.has_news for one in partners):
            return now
        return min(one.admission.news.look_at(now) for one in partners)


def _clients(partners: list[Partner]) -> list[Partner]:
    """One of the runs of each client."""
    return list({id(one.admission): one for one in partners}.values())


def _heed(gate: Gate, news: News) -> bool:
    """Heed the outages without a write. False: something is to be written first."""
    own = gate.admission.own_outages(anyio.current_time())
    share = gate.pacer.share
    clients = len(_clients(share.partners))
    others = share.alive + max(0, clients - 1)
    [agreed], changed = agree_all([own], news, others=others, token="")
    if not changed:
        _took(gate, own, agreed)
    return not changed


def _took(gate: Gate, own: Mapping[str, OwnOutage], agreed: Mapping[str, Agreed]) -> None:
    changes = gate.admission.news.took(anyio.current_time(), own, agreed)
    for what, word in changes.items():
        if word is not Word.PROBE:
            hear_pace(on_told(what, back=word is Word.BACK))
    if changes:
        gate.on_new_pace()
