"""Sends the requests of shared exports, and applies the verdicts on their answers."""

from __future__ import annotations

import logging
import math
import random

import anyio
import anyio.lowlevel
import attrs

from segments_async._exports.registry import ExportRegistry
from segments_async._exports.shared_export import SharedExport
from segments_async._http.api import LIST_CAP
from segments_async._pace.gate import Gate
from segments_async._pace.permits import Permit
from segments_async._sansio.api.redaction import redact
from segments_async._sansio.api.wire import (
    LONGEST_ID,
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
from segments_async._sansio.pace.scheduler import next_poll_at
from segments_async._telemetry.guard import log
from segments_async.errors import APIConnectionError, DecodeError, SegmentsError
from segments_async.models import Export, ExportStatus

#: A single call's POST is tried this often, where another try is safe.
TRIES_ALONE = 5

#: So many statuses that the vendor's page doesn't have are logged. A vendor that writes how far an
#: export is ("37 %") would have a new one at each poll.
UNKNOWN_STATUSES = 20

#: Statuses of a list that was asked for instead of a POST which show that the vendor is there, and
#: say nothing of exports: an account may be allowed to export, and not to list.
_VENDOR_PRESENT = frozenset({401, 403, 429})

#: Polls in a row without a status after which a warning is logged.
SETBACKS_TO_WARN = 5


class ExportRequests:
    """Sends submits and polls of a client's shared exports; each in the task that was granted it.

    Args:
        gate: through which the requests go.
        registry: of the exports.
    """

    def __init__(self, gate: Gate, registry: ExportRegistry) -> None:
        self._gate = gate
        self._registry = registry
        self._unknown_statuses: set[str] = set()

    async def perform(self, permit: Permit) -> None:
        """Send the permitted request, and apply the verdict on its answer."""
        shared = permit.queued.target
        if not isinstance(shared, SharedExport):
            raise AssertionError("a permit for something else than an export")
        if not shared.followers:
            # All followers left between the grant and now: nothing more is sent for the export.
            self._registry.requeue(shared, permit.queued.key)
            self._gate.release(permit)
        elif permit.instead:
            await self._list_instead(shared, permit)
        elif shared.export_id is None:
            await self._submit(shared, permit)
        else:
            await self._poll(shared, permit)

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
            result: Result = await self._gate.send(permit, request)
        except (APIConnectionError, DecodeError) as exc:
            result = exc
        except BaseException:
            # Cancelled, or a fault of a caller's HTTP client: others wait for this export's end.
            with anyio.CancelScope(shield=True):
                if permit.may_have_left:
                    await self._on_submit(shared, permit, request, None)
                else:
                    await self._not_sent(shared)
                    self._registry.requeue(shared, shared.queued.key)
            raise
        await self._on_submit(shared, permit, request, result)
        if isinstance(result, ApiAnswer) and result.raised is not None:
            if shared.export_id is not None:
                result.raised.add_note(f"the vendor had accepted export {shared.export_id}")
            raise result.raised

    async def _withdraw(self, shared: SharedExport, permit: Permit) -> None:
        """The POST is not sent, though INTENT was recorded."""
        try:
            with anyio.CancelScope(shield=True):
                await self._not_sent(shared)
        finally:
            self._registry.requeue(shared, shared.queued.key)
            self._gate.release(permit)

    async def _not_sent(self, shared: SharedExport) -> None:
        shared.submitted = "no"
        await self.notify(shared, Event.NOT_SENT)

    async def _on_submit(
        self, shared: SharedExport, permit: Permit, request: ApiRequest, result: Result
    ) -> None:
        now = _time_of(result)
        segment_id = _segment_id(shared)
        verdict = on_submit(segment_id, request, result, now=now, chance=random.random())
        if verdict.export and self._registry.is_of_another_segment(shared, verdict.export):
            verdict = anothers_export(segment_id, request)
        first = verdict.events[0]
        if first is Event.NOT_SENT:
            await self._on_submit_not_sent(shared, verdict, result, now)
            return
        away = isinstance(result, ApiAnswer) and is_away(result)
        if isinstance(result, ApiAnswer | DecodeError) and not away:  # of those, the gate knows
            self._gate.submit_judged(permit, known=first is not Event.LOST)
        if first is Event.ACCEPTED and verdict.export is not None:
            self._registry.accepted(shared, verdict.export, now)
            if shared.alone and verdict.again_at is not None:
                # The caller that waits for it later polls at once.
                verdict = attrs.evolve(verdict, again_at=now)
        elif first is Event.LOST:
            fields = {"segments_event": "lost", "segments_segment_id": shared.segment_id}
            log(logging.WARNING, "%s", str(verdict.error), extra=fields)
        await self._follow(shared, verdict, now)

    async def _on_submit_not_sent(
        self, shared: SharedExport, verdict: Verdict, result: Result, now: float
    ) -> None:
        """The vendor did nothing about the POST: send it again, as long as that may help."""
        shared.tries += 1
        await self._not_sent(shared)
        pause = self._refused(shared, now) if isinstance(result, ApiAnswer) else 0.0
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
        if given_up or lasting or self._gate.outage.hopeless(now):
            await self._end(shared, attrs.evolve(verdict, events=(Event.GAVE_UP,)))
            return
        later = max(verdict.again_at or now, now + pause)
        shared.queued.not_before = later if later > now else -math.inf
        self._registry.requeue(shared, shared.queued.key)

    def _refused(self, shared: SharedExport, now: float) -> float:
        """The vendor said "not now". Returns the seconds before this submit is sent again."""
        shared.refusals = shared.refusals.refused(
            now, granted=self._gate.admission.granted, others=self._gate.pending - 1
        )
        shared.queued.suspect = shared.refusals.suspicious
        return shared.refusals.pause

    # ----------------------------------------------------------------- polls

    async def _poll(self, shared: SharedExport, permit: Permit) -> None:
        job = shared.poll_job()
        request = poll_request(job.export_id)
        try:
            result: Result = await self._gate.send(permit, request)
        except (APIConnectionError, DecodeError) as exc:
            result = exc
        except BaseException:
            # Cancelled, or a fault of a caller's HTTP client. This poll was sent: the next one for
            # the other followers comes after the usual gap.
            next_at = next_poll_at(anyio.current_time(), shared.submitted_at)
            self._registry.requeue(shared, next_at)
            raise
        now = _time_of(result)
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
            answer = await self._gate.send(permit, request, cap=LIST_CAP)
        except APIConnectionError as exc:
            error = exc
        except DecodeError:
            # Larger than any list that is read, or in a coding that isn't: the vendor is there.
            shared.queued.suspect = False
        except BaseException:
            self._registry.requeue(shared, key)
            raise
        else:
            shared.queued.suspect = shared.queued.suspect and answer.status == 429
            present = 200 <= answer.status <= 299 or answer.status in _VENDOR_PRESENT
            if is_away(answer) or not present:
                error = status_error(request, answer)
        shared.tries += error is not None
        self._registry.requeue(shared, key)
        if error is not None:
            await self._on_list_failed(shared, error)

    async def _on_list_failed(self, shared: SharedExport, error: SegmentsError) -> None:
        if not fatal(error) and self._gate.outage.hopeless(anyio.current_time()):
            ending = list(self._registry.waiting_for_submit())
        elif fatal(error) or (shared.alone and shared.tries >= TRIES_ALONE):
            ending = [shared]
        else:
            return
        verdict = Verdict(events=(Event.GAVE_UP,), error=error, submitted="no", resumable=True)
        for waiting in ending:
            if waiting.waits_for_submit and waiting.followers and waiting.queued.entry:
                self._gate.cancel(waiting.queued)
                waiting.submitted = "no"
                await self._end(waiting, verdict, counted=False)

    # ----------------------------------------------------------------- verdicts

    async def _follow(self, shared: SharedExport, verdict: Verdict, now: float) -> None:
        """Put a verdict into effect."""
        if verdict.export is not None:
            self._registry.update(shared, verdict.export)
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
        self._registry.requeue(shared, at)
        answered = verdict.export is not None or verdict.setback is not None
        for follower in tuple(shared.followers):
            if follower in shared.followers:
                await follower.unfinished(shared, now, answered=answered)

    async def _end(self, shared: SharedExport, verdict: Verdict, *, counted: bool = True) -> None:
        """End the export: no more requests. `counted`: the gate counts it as running."""
        *before, last = verdict.events
        for event in before:
            await self.notify(shared, event)
        shared.error = verdict.error
        shared.resumable = verdict.resumable
        if counted and (shared.followers or not shared.running):
            self._gate.pending_ended()
        self._registry.forget(shared)
        shared.ended = True
        await self.notify(shared, last)
        for follower in tuple(shared.followers):
            if follower in shared.followers:
                await follower.ended(shared)

    async def notify(self, shared: SharedExport, event: Event) -> None:
        """Tell every follower of the event, and wait until each has recorded it."""
        shared.posting = event is Event.INTENT
        for follower in tuple(shared.followers):
            if follower in shared.followers:  # it may have left while another one recorded
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
