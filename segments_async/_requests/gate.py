"""Every API request of one client passes here, in four steps.

1. A caller queues a request with `Gate.add`, and waits for its mailbox with `Gate.next`. One of the
   callers that wait leads (`leader`).
2. The leader asks `Admission.next` for every request that may go now, and delivers a `Permit` (a
   slot and the pacer's grant) to the caller that queued the request.
3. That caller first records an INTENT in the journal where the request is a submit, and sends it
   with `Gate.send`, or gives the permit back with `Gate.release`.
4. The result goes to `Admission`, which tells pacer, outage, guard and scheduler; then the leader
   looks again at what may go.

Decisions are synchronous and in `_sansio/pace`: `admission` (may a request go, and what does its
result mean), `pacer` (how fast), `scheduler` (which one). The gate has the tasks, the clock, the
random numbers and the log.
"""

from __future__ import annotations

import random
import uuid
from typing import Any

import anyio
import attrs

from segments_async._http.api import SLOTS, Api
from segments_async._requests.leader import Leader
from segments_async._requests.permits import Mailbox, Permit, Target
from segments_async._sansio.api.wire import ApiAnswer, ApiRequest
from segments_async._sansio.pace.admission import Admission
from segments_async._sansio.pace.backoff import TicketGuard
from segments_async._sansio.pace.grant import Grant, Wait
from segments_async._sansio.pace.outage import Outage
from segments_async._sansio.pace.pacer import Pacer
from segments_async._sansio.pace.scheduler import Kind, PollScheduler, QueuedRequest
from segments_async._telemetry.pace import hear_pace
from segments_async.errors import APIConnectionError, DecodeError


@attrs.frozen(kw_only=True)
class GateStatistics:
    """A gate at one moment.

    Attributes:
        slots: requests that may be on the wire at once.
        free_slots: slots that no request has.
        has_leader: whether a caller sleeps until the next request may go.
        waiting: callers that wait without leading.
        queued: requests that are queued, those included that wait for a retry.
        pending: exports submitted, or being submitted, that are not known to have ended.
        internal_errors: answers of 500 so far.
    """

    slots: int
    free_slots: int
    has_leader: bool
    waiting: int
    queued: int
    pending: int
    internal_errors: int


class Gate:
    """Grants and sends the API requests of one client."""

    def __init__(self, api: Api, pacer: Pacer, scheduler: PollScheduler[Target]) -> None:
        self._api = api
        self.pacer: Pacer = pacer
        self.admission: Admission[Target] = Admission(
            pacer, scheduler, slots=SLOTS, timeout=api.timeout
        )
        self.admission.member = uuid.uuid4().hex
        self.guard: TicketGuard = self.admission.guard
        self.outage: Outage = self.admission.outage
        self._leader = Leader(pacer, self._dispatch)
        #: API requests sent so far, with any result.
        self.requests: int = 0

    def statistics(self) -> GateStatistics:
        """The gate at this moment."""
        return GateStatistics(
            slots=SLOTS,
            free_slots=self.admission.free,
            has_leader=self._leader.leads,
            waiting=self._leader.waiting,
            queued=sum(map(self.admission.scheduler.queued, Kind)),
            pending=self.pending,
            internal_errors=self.guard.internal_errors,
        )

    @property
    def rate(self) -> float | None:
        """Requests/s that are sent at most now; None while nothing limits them."""
        return self.pacer.rate

    @property
    def throttled(self) -> int:
        """Answers of 429 so far."""
        return self.admission.throttled

    @property
    def pending(self) -> int:
        """Exports submitted, or being submitted, that are not known to have ended."""
        return self.admission.scheduler.pending

    def add(self, queued: QueuedRequest[Target]) -> None:
        """Queue a request. Its target is delivered a permit when its turn has come."""
        self.admission.scheduler.add(queued)
        self._leader.reschedule()

    def cancel(self, queued: QueuedRequest[Target]) -> None:
        """Take a request out of the queue, if it is there."""
        self.admission.scheduler.cancel(queued)

    def pending_began(self) -> None:
        """Count an export as pending that no submit of this gate began."""
        self.admission.scheduler.pending += 1

    def pending_ended(self) -> None:
        """Count an export as pending no more: it has ended, or no caller is interested in it."""
        self.admission.scheduler.ended()
        self._leader.reschedule()

    def submit_undone(self) -> None:
        """A submit began no export: it was refused, or never sent."""
        self.admission.scheduler.not_started()

    def submit_judged(self, permit: Permit, *, known: bool) -> None:
        """A submit's answer was read.

        `known`: the answer has an export's id, or refuses the export. Otherwise it is unknown
        whether the vendor made an export.
        """
        self.admission.on_judged(anyio.current_time(), permit.grant, known=known)
        self._on_result()

    def on_new_pace(self) -> None:
        """The pace of this gate's pacer has changed: all its gates look again at what may go."""
        for leader in self.pacer.leaders:
            leader.reschedule()

    async def next(self, mailbox: Mailbox) -> Any:
        """Wait for the next item in the mailbox, and lead the gate meanwhile if no caller does."""
        return await self._leader.next(mailbox)

    async def send(self, permit: Permit, request: ApiRequest) -> ApiAnswer:
        """Spend a permit: send the request, and let its result delay the requests after it.

        A POST is shielded from cancellation. A POST that is cut off on the wire may have begun an
        export whose id is lost then. `Permit.bound` says how long the POST may go on.

        An error that a caller's response hook raised at the answer to a GET is raised here. At the
        answer to a POST it is in `ApiAnswer.raised`: the id in that answer has to be kept first.
        """
        self.requests += 1
        try:
            answer = await self._api.send(request, permit)
        except APIConnectionError as exc:
            now, chance = anyio.current_time(), random.random()
            hear_pace(self.admission.on_broken(now, permit.grant, exc, chance))
            raise
        except DecodeError:
            self.admission.on_unreadable(anyio.current_time(), permit.grant, random.random())
            raise
        except BaseException:
            self.admission.on_cut_off(anyio.current_time(), permit.grant, random.random())
            raise
        else:
            was_blocked = self.pacer.blocked
            hear_pace(self.admission.on_answer(permit.grant, request, answer, random.random()))
            if was_blocked and not self.pacer.blocked:
                self.on_new_pace()
            if answer.raised is not None and request.body is None:
                raise answer.raised
            return answer
        finally:
            self._on_result()

    def release(self, permit: Permit) -> None:
        """Give a permit back unspent. Its slot is free again; the pacer's grant is used up."""
        self.admission.on_released(anyio.current_time(), permit.grant, random.random())
        self._leader.reschedule()

    def _on_result(self) -> None:
        self._leader.reschedule()
        wake = self.pacer.share.wake
        if wake is not None and self.admission.news.has_news:
            wake()

    def _dispatch(self, now: float) -> Wait:
        """Deliver a permit for every request that may go now."""
        while isinstance(step := self.admission.next(now), Grant):
            step.queued.target.deliver(Permit(step))
        return step
