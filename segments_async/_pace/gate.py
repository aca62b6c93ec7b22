"""Who may send now: slots, the pacer's grants, and the leader among the callers that wait.

There is no background task. Whoever waits may lead: the leader sleeps until the next request may
go, and hands grants to whoever they belong to; when its own comes, the lead passes on. Everything
that decides is synchronous: *check and take in one step*, or two tasks would take the same grant.

The order for every request is: slot, then grant, then INTENT, then send.
"""

from __future__ import annotations

import contextlib
import logging
import math
import random
from collections import deque
from collections.abc import Generator
from datetime import datetime, timedelta
from typing import Any, Protocol
from weakref import WeakKeyDictionary, WeakSet

import anyio
import anyio.lowlevel

from segments_async._http.api import SLOTS, STATUS_CAP, Api
from segments_async._sansio.api.wire import ApiAnswer, ApiRequest
from segments_async._sansio.jobs.verdict import NOT_NOW, is_away
from segments_async._sansio.pace.backoff import TicketGuard, retry_after_seconds
from segments_async._sansio.pace.limit_headers import read_hint
from segments_async._sansio.pace.outage import AWAY_IN_A_ROW, ListProbes, Outage, SubmitHold
from segments_async._sansio.pace.pacer import Pacer
from segments_async._sansio.pace.scheduler import Kind, PollScheduler, QueuedRequest
from segments_async.errors import APIConnectionError, DecodeError

logger: logging.Logger = logging.getLogger("segments_async")

#: Seconds by which a timer may be early. Without it, a clock that is a rounding error short of the
#: time waited for would be asked again and again.
TICK = 1e-6

#: Seconds for which the leader may sleep for the pacer without an alarm. Hardly anything lets the
#: next request go earlier than that, and an alarm is a tenth of what a request costs.
NAP = 0.05

#: Below this a timer costs more than evenness is worth: the pacer lets what became due meanwhile go
#: together. That is two at a time at 100/s, and nothing changes below 66/s.
SHORTEST_NAP = 0.015


class Target(Protocol):
    """Who a granted request goes to."""

    def deliver(self, permit: Permit, /) -> None: ...


class Watch(Protocol):
    """Ends requests in place of their scopes; see `RequestWatch`."""

    def on_due(self, due: float, /) -> None: ...


class Permit:
    """A slot and a grant, for one request. Spend it with `Gate.send`, or `Gate.hand_back` it."""

    __slots__ = (
        "_deadline",
        "_scope",
        "_until",
        "_watch",
        "at",
        "epoch",
        "guard_probe",
        "instead",
        "may_have_left",
        "queued",
    )

    def __init__(
        self,
        queued: QueuedRequest[Target],
        epoch: int,
        *,
        guard_probe: bool,
        instead: bool,
        at: float,
    ) -> None:
        self.queued: QueuedRequest[Target] = queued
        self.epoch: int = epoch
        self.guard_probe: bool = guard_probe
        #: Whether something harmless is to be sent instead of the POST that was wanted: the vendor
        #: isn't there, and a POST to whatever answers for it may be an export that is lost.
        self.instead: bool = instead
        #: When it was granted.
        self.at: float = at
        #: Whether its request may have left this process; False means that it provably didn't.
        self.may_have_left: bool = False
        self._deadline = math.inf
        self._until = math.inf
        self._scope: anyio.CancelScope | None = None
        self._watch: Watch | None = None

    def bound(self, until: float) -> None:
        """Whoever spends it was cancelled: a POST on the wire goes on until then and no longer."""
        self._until = min(self._until, until)
        self._set_deadline()

    def scope(self, deadline: float, *, shield: bool) -> anyio.CancelScope:
        """The scope for its request."""
        self._deadline = deadline
        self._scope = anyio.CancelScope(shield=shield)
        self._set_deadline()
        return self._scope

    def put_off(self, deadline: float) -> None:
        """The request's time ends later than its scope was told."""
        self._deadline = deadline
        self._set_deadline()

    @property
    def due(self) -> float:
        """When the request's time is over; never, before it is sent."""
        return self._deadline

    def watched_by(self, watch: Watch | None) -> None:
        """Leave the end of the request's time to a watch; None leaves it to the scope again."""
        self._watch = watch
        self._set_deadline()

    def end(self) -> None:
        """The request's time is over."""
        self._deadline = math.inf
        if self._scope is not None:
            self._scope.cancel()

    def _set_deadline(self) -> None:
        if self._scope is None:
            return
        # Once its spender was cancelled, nobody may be left who watches it.
        if self._watch is None or self._until < math.inf:
            self._scope.deadline = min(self._deadline, self._until)
        else:
            self._scope.deadline = math.inf
            self._watch.on_due(self._deadline)


class Mailbox:
    """What a waiting task is handed: tickets to spend, and other news."""

    __slots__ = ("_alarm", "_woken", "items")

    def __init__(self) -> None:
        self.items: deque[Any] = deque()
        self._woken: anyio.Event | None = None
        self._alarm: anyio.CancelScope | None = None

    def deliver(self, item: object, /) -> None:
        self.items.append(item)
        self.wake()

    def wake(self) -> None:
        """Wake the task that waits or sleeps here, if one does."""
        if self._woken is not None:
            self._woken.set()
        if self._alarm is not None:
            self._alarm.cancel()

    async def wait(self) -> None:
        """Wait until woken, with or without news."""
        self._woken = anyio.Event()
        try:
            await self._woken.wait()
        finally:
            self._woken = None

    async def sleep(self, seconds: float) -> None:
        """Sleep so long, or until woken.

        By a timer that is cancelled in the rare case, and not by an event with a timeout: that
        would raise a cancellation for every request that goes at its time.
        """
        try:
            with anyio.CancelScope() as self._alarm:
                if seconds == math.inf:
                    await anyio.sleep_forever()
                await anyio.sleep(seconds)
        finally:
            self._alarm = None


#: The gates of each pacer: what is answered to one client may let another one's next request go.
_GATES: WeakKeyDictionary[Pacer, WeakSet[Gate]] = WeakKeyDictionary()


class Gate:
    """Every API request of one client passes here."""

    def __init__(self, api: Api, pacer: Pacer, scheduler: PollScheduler[Target]) -> None:
        self._api = api
        self._pacer = pacer
        self._scheduler = scheduler
        self.guard: TicketGuard = TicketGuard()
        self.outage: Outage = Outage()
        self._submit_hold = SubmitHold()
        self._list_probes = ListProbes()
        self._sharing = _GATES.setdefault(pacer, WeakSet())
        self._sharing.add(self)
        self._free = SLOTS
        self._waiters: dict[Mailbox, None] = {}
        self._leader: Mailbox | None = None
        #: Until when the leader sleeps; None while it is awake.
        self._asleep_until: float | None = None
        #: Until when the pacer holds whatever is wanted; None while something else is short.
        self._paced_until: float | None = None
        #: API requests sent so far, whatever came of them.
        self.requests: int = 0
        #: How many were answered 429, and how many were granted whatever they asked for.
        self.throttled: int = 0
        self.granted: int = 0

    @property
    def rate(self) -> float | None:
        return self._pacer.rate

    def add(self, queued: QueuedRequest[Target]) -> None:
        """Queue a want; its target gets a ticket when it is its turn."""
        self._scheduler.add(queued)
        self._reschedule()

    def cancel(self, queued: QueuedRequest[Target]) -> None:
        self._scheduler.cancel(queued)

    @property
    def pending(self) -> int:
        """Exports submitted, or being submitted, and not known to have ended."""
        return self._scheduler.pending

    def pending_began(self) -> None:
        """An export is at work at the vendor that no submit of this gate has counted."""
        self._scheduler.pending += 1

    def pending_ended(self) -> None:
        """An export counts no more among those at work."""
        self._scheduler.ended()
        self._reschedule()

    @property
    def pacer(self) -> Pacer:
        return self._pacer

    def on_new_pace(self) -> None:
        """The pacer was told another pace: look again at what may go."""
        for gate in self._sharing:
            gate._reschedule()

    def submit_undone(self) -> None:
        """A submit came to nothing: refused, or never sent."""
        self._scheduler.not_started()

    def submit_judged(self, permit: Permit, *, known: bool) -> None:
        """What became of a submit that was answered: whether an export's id, or a refusal, came."""
        if known:
            self._submit_hold.on_known(permit.at)
        else:
            self._submit_hold.on_unknown(anyio.current_time(), permit.at)
        self._reschedule()

    async def next(self, mailbox: Mailbox) -> Any:
        """Wait for the next item in the inbox, leading the gate meanwhile if nobody does."""
        while not mailbox.items:
            if self._leader is None:
                await self._lead(mailbox)
            else:
                self._waiters[mailbox] = None
                try:
                    await mailbox.wait()
                finally:
                    del self._waiters[mailbox]
                    self._elect_leader()
        # A caller cancelled meanwhile must not send. The ticket stays in the inbox, whose owner
        # gives it back.
        await anyio.lowlevel.checkpoint_if_cancelled()
        return mailbox.items.popleft()

    @contextlib.contextmanager
    def mailbox(self, mailbox: Mailbox | None = None) -> Generator[Mailbox]:
        """An inbox whose unspent tickets go back when its owner leaves, cancelled or not."""
        mailbox = mailbox or Mailbox()
        try:
            yield mailbox
        finally:
            for item in mailbox.items:
                if isinstance(item, Permit):
                    self.release(item)
            mailbox.items.clear()

    async def call(self, request: ApiRequest, *, after: float = -math.inf, cap: int) -> ApiAnswer:
        """Send one request that is nobody else's business; not before `after`.

        Raises:
            APIConnectionError: no whole answer came.
            DecodeError: the answer was too large.
        """
        return await self.send(await self.grant(after), request, cap=cap)

    async def grant(self, after: float = -math.inf) -> Permit:
        """Wait for the ticket of a single request; not before `after`."""
        with self.mailbox() as mailbox:
            queued = QueuedRequest[Target](Kind.CALL, mailbox, max(after, anyio.current_time()))
            self.add(queued)
            try:
                permit: Permit = await self.next(mailbox)
            finally:
                self.cancel(queued)
            return permit

    async def send(
        self, permit: Permit, request: ApiRequest, *, cap: int = STATUS_CAP
    ) -> ApiAnswer:
        """Spend a ticket: send the request, tell pacer and guard what came, free the slot.

        A POST is shielded from cancellation: cut off on the wire, it may have been acted on, and
        its id would be lost. `Permit.bound` says how long it goes on all the same.

        What a caller's response hook raised at the answer to a GET is raised here; at the answer
        to a POST it is in `ApiAnswer.raised`, since an id in that answer is to be kept first.
        """
        self.requests += 1
        try:
            answer = await self._api.send(request, permit, cap=cap)
        except APIConnectionError as exc:
            self._on_broken(permit, exc)
            raise
        except DecodeError:
            self._on_no_answer(permit)
            # Too large, or in a coding that isn't read; but its status was one of success.
            self._on_vendor_there(anyio.current_time(), permit)
            self.granted += 1
            raise
        except BaseException:
            self._on_no_answer(permit)
            self._submit_hold.on_no_word(permit.at)
            raise
        else:
            self._on_answer(permit, request, answer)
            if answer.raised is not None and request.body is None:
                raise answer.raised
            return answer
        finally:
            self._free_slot()

    def release(self, permit: Permit) -> None:
        """Return a ticket unspent. Its grant is gone, its slot is free again."""
        self._pacer.on_lost(anyio.current_time(), permit.epoch, random.random())
        self.outage.on_no_word()
        self._submit_hold.on_no_word(permit.at)
        if permit.guard_probe:
            self.guard.on_probe_unsent()
        self._free_slot()

    async def _lead(self, mailbox: Mailbox) -> None:
        self._leader = mailbox
        try:
            while True:
                now = anyio.current_time()
                at = self._dispatch(now)
                if mailbox.items:
                    return
                self._asleep_until = at
                if self._paced_until is not None and at - now <= NAP:
                    await anyio.sleep(max(at - now, SHORTEST_NAP))
                else:
                    await mailbox.sleep(at - now)
                self._asleep_until = None
        finally:
            self._leader = self._asleep_until = None
            self._elect_leader()

    def _elect_leader(self) -> None:
        """If nobody leads, wake the caller that has waited longest: it will."""
        if self._leader is None and self._waiters:
            next(iter(self._waiters)).wake()

    def _reschedule(self) -> None:
        """Something changed while the leader sleeps: grant what can be granted now.

        The leader is woken only if it was granted something, or must get up earlier.
        """
        if self._leader is None or self._asleep_until is None:
            return
        if self._paced_until is not None and self._paced_until <= self._pacer.next_at():
            # Whatever it is, it can't go before the time at which the leader gets up anyway.
            return
        at = self._dispatch(anyio.current_time())
        if at < self._asleep_until - TICK:
            self._leader.wake()

    def _dispatch(self, now: float) -> float:
        """Hand out every grant that is due. Returns when to look again."""
        now += TICK
        self._paced_until = None
        while True:
            self._scheduler.submits_held_until = self._submits_held_until()
            wanted = self._scheduler.next_at(now)
            if wanted > now or self._free == 0:
                # Nobody waits, or not for the pacer. A slot that is freed looks again by itself.
                self._pacer.on_idle()
                return wanted if self._free else math.inf
            if self.guard.armed or self.outage.armed:
                held = max(self.guard.next_at(), self.outage.next_at())
                if held > now:
                    self._pacer.on_idle()
                    return held
            under_way = SLOTS - self._free
            if self.outage.is_silent(now, under_way):
                # The next answer, or the next request to run out of time, looks again.
                self._pacer.on_idle()
                return math.inf
            at = self._pacer.next_at()
            if at > now:
                self._pacer.on_waiting()
                self._paced_until = at
                return at
            queued = self._scheduler.pop(now, harmless=self.guard.armed or self.outage.armed)
            if queued is None:
                raise AssertionError("the scheduler said that a request is due")
            queued.target.deliver(self._permit(queued, now, under_way))

    def _permit(self, queued: QueuedRequest[Target], now: float, under_way: int) -> Permit:
        self._free -= 1
        submit = queued.kind is Kind.SUBMIT
        instead = submit and (
            queued.suspect or (self.outage.armed and not self._submit_probes(now))
        )
        if submit and not instead:
            self._submit_hold.on_sent(now)
            if self.outage.armed:
                self._list_probes.on_submit_sent()
        self.outage.on_sent(now, under_way)
        epoch, guard_probe = self._pacer.take(now), self.guard.on_sent()
        return Permit(queued, epoch, guard_probe=guard_probe, instead=instead, at=now)

    def _submit_probes(self, now: float) -> bool:
        """Whether a submit goes as itself though the vendor seems to be away."""
        return self._list_probes.in_vain and self._submit_hold.next_at() <= now

    def _submits_held_until(self) -> float:
        """While the vendor is away, a submit may go all the same: as something harmless instead."""
        if self.outage.armed:
            return -math.inf
        return self._submit_hold.next_at()

    def _free_slot(self) -> None:
        self._free += 1
        self._reschedule()

    def _on_answer(self, permit: Permit, request: ApiRequest, answer: ApiAnswer) -> None:
        now = answer.at
        if answer.status in NOT_NOW:
            # Nothing was done about it: where it was to show what becomes of submits, the next one
            # has to.
            self._submit_hold.on_no_word(permit.at)
        if is_away(answer):
            self._on_away(now, permit, request, answer)
            return
        self._on_vendor_there(now, permit)
        kind = Kind.CALL if permit.instead else permit.queued.kind
        if answer.status == 429:
            self._on_throttled(now, permit, kind, request, answer)
        else:
            self.granted += answer.status not in NOT_NOW
            self._scheduler.on_granted(kind)
            blocked = self._pacer.blocked
            self._pacer.on_accepted(now, permit.epoch, read_hint(answer.headers))
            if blocked:
                self.on_new_pace()
        if answer.status == 500:
            self.guard.on_internal_error(now)
            until = datetime.now().astimezone() + timedelta(seconds=self.guard.next_at() - now)
            logger.warning(
                "500 on %s %s: the vendor has opened a ticket with its support by itself. Nothing "
                "is sent until %s.",
                request.method,
                request.path,
                f"{until:%H:%M:%S}",
            )
        elif permit.guard_probe:
            passed = answer.status < 500 and answer.status != 429
            self.guard.on_probe_answer(now, passed=passed)

    def _on_vendor_there(self, now: float, permit: Permit) -> None:
        """The vendor itself answered, whatever it said."""
        self._list_probes.on_answer()
        seconds = now - permit.at
        # Longer than a request may take: it waited for a pool, or this process stood still. That
        # isn't how long the vendor takes to answer.
        slow = seconds if seconds < self._api.timeout else 0.0
        if self.outage.on_answer(now, permit.at, slow) and self.outage.lasted:
            self._submit_hold.on_vendor_back(now)

    def _on_away(self, now: float, permit: Permit, request: ApiRequest, answer: ApiAnswer) -> None:
        """A gateway answered in the vendor's place: that grants nothing, and refuses nothing."""
        self._on_no_answer(permit)
        asked = retry_after_seconds(answer.status, answer.headers)
        self.outage.on_away(now, permit.at, random.random(), retry_after=asked)
        if permit.instead:
            self._list_probes.on_list_failed(answer.status)
        elif request.body is not None:
            self._list_probes.on_submit_failed(answer.status)
        if request.body is not None and answer.status not in NOT_NOW:
            self._submit_hold.on_unknown(now, permit.at, enough=AWAY_IN_A_ROW, pause=asked or 0.0)
        pause = max(0.0, self.outage.next_at() - now)
        level = logging.WARNING if pause else logging.INFO
        logger.log(
            level,
            "%s %s: answered %d, not by the vendor itself%s",
            request.method,
            request.path,
            answer.status,
            f"; nothing but a probe is sent for {pause:.1f} s" if pause else "",
        )

    def _on_throttled(
        self, now: float, permit: Permit, kind: Kind, request: ApiRequest, answer: ApiAnswer
    ) -> None:
        pause = retry_after_seconds(answer.status, answer.headers)
        asked = "" if pause is None else f", asked to wait {pause:g} s"
        self.throttled += 1
        if self._scheduler.on_refused(now, kind, retry_after=pause, rate=self._pacer.rate):
            # The request itself was granted: what the vendor has no room for is the job.
            self._pacer.on_mistaken(now, self._scheduler.rate_before_cap)
            logger.info("429 on submits alone%s: taken as a cap on running exports", asked)
            return
        self._pacer.on_throttled(now, permit.epoch, retry_after=pause, chance=random.random())
        rate = self._pacer.rate or math.inf
        at_most = f"{rate:.3g} requests/s"
        logger.info("429 on %s %s%s; now %s", request.method, request.path, asked, at_most)

    def _on_broken(self, permit: Permit, exc: APIConnectionError) -> None:
        self._on_no_answer(permit)
        now = anyio.current_time()
        if exc.sent:
            self.outage.on_lost(now, permit.at, random.random())
            if permit.instead:
                self._list_probes.on_list_failed(None)
            if permit.queued.kind is Kind.SUBMIT and not permit.instead:
                self._submit_hold.on_unknown(now, permit.at)
        else:
            self.outage.on_unsent(now, random.random())
            self._submit_hold.on_no_word(permit.at)
        pause = self.outage.next_at() - now
        if pause > 0:
            logger.warning("%s; next try in %.1f s", exc, pause)
        else:
            logger.info("%s", exc)

    def _on_no_answer(self, permit: Permit) -> None:
        now = anyio.current_time()
        self._pacer.on_lost(now, permit.epoch, random.random())
        self.outage.on_no_word()
        if permit.guard_probe:
            self.guard.on_probe_answer(now, passed=False)
