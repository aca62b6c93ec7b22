"""Sends the requests of shared exports, and applies the verdicts on their answers."""

from __future__ import annotations

import logging
import math
import random

import anyio
import anyio.lowlevel
import attrs

from segments_async._requests.gate import Gate
from segments_async._requests.permits import Permit
from segments_async._requests.registry import ExportRegistry
from segments_async._requests.shared_export import SharedExport
from segments_async._sansio.api.decoding import shows_segment
from segments_async._sansio.api.redaction import redact
from segments_async._sansio.api.wire import (
    ABSENT,
    LONGEST_ID,
    UNROUTED,
    ApiAnswer,
    ApiRequest,
    is_away,
    list_request,
    poll_request,
    status_error,
    submit_request,
)
from segments_async._sansio.jobs.exports import is_complete
from segments_async._sansio.jobs.lifecycle import Event
from segments_async._sansio.jobs.verdict import (
    Result,
    Verdict,
    anothers_export,
    fatal,
    on_poll,
    on_submit,
)
from segments_async._sansio.pace.absence import api_is_there
from segments_async._sansio.pace.scheduler import next_poll_at
from segments_async._telemetry.guard import log
from segments_async.errors import APIConnectionError, DecodeError, SegmentsError
from segments_async.models import Export, ExportStatus

#: The number of POSTs that a single call sends at most. A further one is sent only if the vendor
#: provably did nothing about the one before.
TRIES_ALONE = 5

#: The number of statuses unknown to the vendor's page that are logged. A vendor that writes how far
#: an export is ("37 %") would have a new one at each poll.
UNKNOWN_STATUSES = 20

#: While the vendor seems away, a list is sent in place of a POST. These statuses of its answer show
#: that the vendor is there, and say nothing of exports: an account may be allowed to export, and
#: not to list.
_VENDOR_PRESENT = frozenset({401, 403, 429})

#: Polls in a row without a status after which a warning is logged.
SETBACKS_TO_WARN = 5


class ExportRequests:
    """Sends submits and polls of a client's shared exports.

    Each request is sent in the task of the caller that got the permit for it.
    """

    def __init__(self, gate: Gate, registry: ExportRegistry) -> None:
        self.gate: Gate = gate
        self.registry: ExportRegistry = registry
        self._unknown_statuses: set[str] = set()

    async def perform(self, permit: Permit) -> None:
        """Send the permitted request, and apply the verdict on its answer."""
        shared = permit.queued.target
        if not isinstance(shared, SharedExport):
            raise AssertionError("a permit that is not for an export")
        if not shared.followers:
            # All followers left between the grant and now: nothing more is sent for the export.
            self.registry.requeue(shared, permit.queued.key)
            self.gate.release(permit)
        elif permit.grant.instead:
            await self._list_instead(shared, permit)
        elif shared.export_id is None:
            await self._submit(shared, permit)
        else:
            await self._poll(shared, shared.export_id, permit)

    # ----------------------------------------------------------------- submits

    async def _submit(self, shared: SharedExport, permit: Permit) -> None:
        request = submit_request(_segment_id(shared), shared.output_format)
        try:
            await self.notify(shared, Event.INTENT)
            # From here on the POST is shielded: a caller that is cancelled already sends none.
            await anyio.lowlevel.checkpoint_if_cancelled()
        except BaseException:
            await self._withdraw(shared, permit)
            raise
        if not shared.followers:
            await self._withdraw(shared, permit)
            return
        shared.submitted = "maybe"
        try:
            result: Result = await self.gate.send(permit, request)
        except (APIConnectionError, DecodeError) as exc:
            result = exc
        except BaseException:
            # The caller was cancelled, or its HTTP client raised. Other callers may wait for this
            # export, so the verdict is applied before the error goes on.
            with anyio.CancelScope(shield=True):
                if permit.may_have_left:
                    await self._on_submit(shared, permit, request, None)
                else:
                    await self._not_sent(shared)
                    self.registry.requeue(shared, shared.queued.key)
            raise
        await self._on_submit(shared, permit, request, result)
        if isinstance(result, ApiAnswer) and result.raised is not None:
            if shared.export_id is not None:
                result.raised.add_note(f"the vendor had accepted export {shared.export_id}")
            raise result.raised

    async def _withdraw(self, shared: SharedExport, permit: Permit) -> None:
        """Take INTENT back, since the POST is not sent now, and queue the POST again."""
        try:
            with anyio.CancelScope(shield=True):
                await self._not_sent(shared)
        finally:
            self.registry.requeue(shared, shared.queued.key)
            self.gate.release(permit)

    async def _not_sent(self, shared: SharedExport) -> None:
        shared.submitted = "no"
        await self.notify(shared, Event.NOT_SENT)

    async def _on_submit(
        self, shared: SharedExport, permit: Permit, request: ApiRequest, result: Result
    ) -> None:
        now = _time_of(result)
        verdict = self._verdict_on_submit(shared, request, result, now)
        first = verdict.events[0]
        if first is Event.NOT_SENT:
            await self._on_submit_not_sent(shared, verdict, result, now)
            return
        away = isinstance(result, ApiAnswer) and is_away(result)
        # The gate has applied every other result to the hold of submits by itself.
        if isinstance(result, ApiAnswer | DecodeError) and not away:
            # An export with an id that can't be asked about is as lost as one without an id.
            lost = first is Event.LOST or Event.GAVE_UP in verdict.events
            self.gate.submit_judged(permit, known=not lost)
        if first is Event.ACCEPTED and verdict.export is not None:
            self.registry.accepted(shared, verdict.export, now)
            if shared.alone and verdict.again_at is not None:
                # `request_export()` returns now. A later call polls at once.
                verdict = attrs.evolve(verdict, again_at=now)
        elif first is Event.LOST:
            fields = {"segments_event": "lost", "segments_segment_id": shared.segment_id}
            log(logging.WARNING, "%s", str(verdict.error), extra=fields)
        await self._follow(shared, verdict, now)

    def _verdict_on_submit(
        self, shared: SharedExport, request: ApiRequest, result: Result, now: float
    ) -> Verdict:
        segment_id, route = _segment_id(shared), self.gate.admission.submit_route
        there = api_is_there(
            route.absent,
            now,
            away=self.gate.outage.armed or route.lost,
            held=route.held,
            listed=shared.listed,
            absent_at=shared.absent_at,
        )
        chance = random.random()
        verdict = on_submit(segment_id, request, result, now=now, chance=chance, api_there=there)
        if verdict.export and self.registry.is_of_another_segment(shared, verdict.export):
            return anothers_export(segment_id, request)
        return verdict

    async def _on_submit_not_sent(
        self, shared: SharedExport, verdict: Verdict, result: Result, now: float
    ) -> None:
        """The vendor did nothing about the POST: send it again, as long as that may help."""
        shared.tries += 1
        await self._not_sent(shared)
        pause = self._refused(shared, result) if isinstance(result, ApiAnswer) else 0.0
        lasting = shared.refusals.lasting(now)
        if lasting:
            log(
                logging.WARNING,
                "segment %s: its export request is refused while others pass; given up: %s",
                shared.segment_id,
                str(verdict.error),
                extra={"segments_event": "refused", "segments_segment_id": shared.segment_id},
            )
        given_up = shared.alone and shared.tries == TRIES_ALONE
        hopeless = self._is_hopeless(result, now)
        if given_up or lasting or hopeless:
            await self._end(shared, attrs.evolve(verdict, events=(Event.GAVE_UP,)))
            if hopeless and verdict.error is not None:
                await self._give_up(list(self.registry.waiting_for_submit()), verdict.error)
            return
        later = max(verdict.again_at or now, now + pause)
        shared.queued.not_before = later if later > now else -math.inf
        self.registry.requeue(shared, shared.queued.key)

    def _is_hopeless(self, result: Result, now: float) -> bool:
        """Whether no submit has passed for so long that the callers have to hear of it."""
        unrouted = isinstance(result, ApiAnswer) and result.status in UNROUTED
        lost = unrouted and self.gate.admission.submit_route.hopeless(now)
        return lost or self.gate.outage.hopeless(now)

    def _refused(self, shared: SharedExport, answer: ApiAnswer) -> float:
        """The vendor did nothing about the POST. Returns the seconds before it is sent again."""
        unrouted = answer.status in UNROUTED
        lost = unrouted and self.gate.admission.submit_route.lost
        if not lost:  # else every export is refused, not this one alone
            shared.refusals = shared.refusals.refused(
                answer.at, granted=self.gate.admission.granted, others=self.gate.pending - 1
            )
        shared.queued.suspect = shared.refusals.suspicious
        if answer.status in ABSENT:
            shared.absent_at = min(shared.absent_at, answer.at)
        if answer.status in ABSENT and not lost:
            # A list goes next, before the other submits: they may be in vain.
            shared.queued.suspect, shared.queued.key = True, -math.inf
        elif unrouted:
            # The other submits go first: one that is accepted shows that the path takes submits.
            shared.queued.suspect, shared.queued.key = False, max(answer.at, 0.0)
        return 0.0 if lost else shared.refusals.pause

    # ----------------------------------------------------------------- polls

    async def _poll(self, shared: SharedExport, export_id: str, permit: Permit) -> None:
        request = poll_request(export_id)
        try:
            result: Result = await self.gate.send(permit, request)
        except (APIConnectionError, DecodeError) as exc:
            result = exc
        except BaseException:
            # Cancelled, or a fault of a caller's HTTP client. This poll was sent: the next one for
            # the other followers comes after the usual gap.
            next_at = next_poll_at(anyio.current_time(), shared.submitted_at)
            self.registry.requeue(shared, next_at)
            raise
        now = _time_of(result)
        job = shared.poll_job(export_id, self.gate.admission.absent_polls)
        verdict = on_poll(job, request, result, now=now, chance=random.random())
        if verdict.setback is not None:
            self._on_setback(shared, verdict.setback)
        elif verdict.export is not None:
            shared.setbacks, shared.setback = 0, None
            shared.polled_at = now
        await self._follow(shared, verdict, now)

    def _on_setback(self, shared: SharedExport, setback: SegmentsError) -> None:
        shared.setback = setback
        shared.setbacks += 1
        level = logging.WARNING if shared.setbacks == SETBACKS_TO_WARN else logging.INFO
        log(level, "%s; asking again later", str(setback))

    # ----------------------------------------------------------------- a list instead of a POST

    async def _list_instead(self, shared: SharedExport, permit: Permit) -> None:
        """Ask for the list instead of sending a POST, to see whether the vendor is there."""
        request, key = list_request(), permit.queued.key
        error: SegmentsError | None = None
        try:
            answer = await self.gate.send(permit, request)
        except APIConnectionError as exc:
            error = exc
        except DecodeError:
            # The list was too large, or in an unknown coding. So the vendor is there.
            shared.queued.suspect, shared.listed = False, True
        except BaseException:
            self.registry.requeue(shared, key)
            raise
        else:
            shared.queued.suspect = shared.queued.suspect and answer.status == 429
            present = 200 <= answer.status <= 299 or answer.status in _VENDOR_PRESENT
            if is_away(answer) or not present:
                error = status_error(request, answer)
            elif answer.status != 429:
                shared.listed = True
                shown = shows_segment(answer, _segment_id(shared))
                route = self.gate.admission.submit_route
                route.on_listed(shared.queued, permit.grant.at, answer.at, shown=shown)
        shared.tries += error is not None
        self.registry.requeue(shared, key)
        if error is not None:
            await self._on_list_failed(shared, error)

    async def _on_list_failed(self, shared: SharedExport, error: SegmentsError) -> None:
        if not fatal(error) and self.gate.outage.hopeless(anyio.current_time()):
            ending = list(self.registry.waiting_for_submit())
        elif fatal(error) or (shared.alone and shared.tries >= TRIES_ALONE):
            ending = [shared]
        else:
            return
        await self._give_up(ending, error)

    async def _give_up(self, ending: list[SharedExport], error: SegmentsError) -> None:
        """End exports whose submits aren't sent; a later session submits them."""
        verdict = Verdict(events=(Event.GAVE_UP,), error=error, submitted="no", resumable=True)
        for waiting in ending:
            if waiting.awaits_its_turn:
                self.gate.cancel(waiting.queued)
                waiting.submitted = "no"
                await self._end(waiting, verdict, counted=False)

    # ----------------------------------------------------------------- verdicts

    async def _follow(self, shared: SharedExport, verdict: Verdict, now: float) -> None:
        """Put a verdict into effect."""
        if verdict.export is not None:
            self.registry.update(shared, verdict.export)
            self._check_status(verdict.export)
        shared.submitted = verdict.submitted
        shared.missing = verdict.missing
        if verdict.again_at is None:
            await self._end(shared, verdict)
            return
        for event in verdict.events:
            await self.notify(shared, event)
        # A request that is to be repeated at once keeps its place among the others.
        at = verdict.again_at if verdict.again_at > now else shared.queued.key
        self.registry.requeue(shared, at)
        answered = verdict.export is not None or verdict.setback is not None
        for follower in shared.each_follower():
            await follower.unfinished(shared, now, answered=answered)

    async def _end(self, shared: SharedExport, verdict: Verdict, *, counted: bool = True) -> None:
        """End the export: no more requests. `counted`: the gate counts it as running."""
        *before, last = verdict.events
        for event in before:
            await self.notify(shared, event)
        shared.error = verdict.error
        shared.resumable = verdict.resumable
        if counted and (shared.followers or not shared.running):
            self.gate.pending_ended()
        self.registry.forget(shared)
        shared.ended = True
        await self.notify(shared, last)
        for follower in shared.each_follower():
            await follower.ended(shared)

    async def notify(self, shared: SharedExport, event: Event) -> None:
        """Tell every follower of the event, and wait until each has recorded it."""
        shared.posting = event is Event.INTENT
        for follower in shared.each_follower():
            await follower.record(shared, event)

    def _check_status(self, export: Export) -> None:
        if isinstance(export.status, ExportStatus) or is_complete(export):
            return
        shown = redact(export.status)[:LONGEST_ID]
        if shown not in self._unknown_statuses and len(self._unknown_statuses) < UNKNOWN_STATUSES:
            self._unknown_statuses.add(shown)
            log(logging.WARNING, "unknown export status %r: taken as not finished", shown)


def _segment_id(shared: SharedExport) -> str:
    if shared.segment_id is None:
        raise AssertionError("a submit without a segment")
    return shared.segment_id


def _time_of(result: Result) -> float:
    """When the answer came, in seconds of the event loop's clock."""
    return result.at if isinstance(result, ApiAnswer) else anyio.current_time()
