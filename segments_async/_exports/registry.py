"""One export at the vendor, shared by everyone on this client who waits for it.

*Single flight*: callers of `export()` and bulk runs that want the same segment share the vendor's
export, and nothing else: each keeps its destination, its timeout and its cancellation. No task
belongs to a flight. Its requests go to whichever of its parties the gate hands the ticket to.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import math
import random
from collections.abc import Generator
from typing import Protocol

import anyio
import anyio.lowlevel
import attrs

from segments_async._http.api import LIST_CAP
from segments_async._pace.gate import Gate
from segments_async._pace.permits import Mailbox, Permit, Target
from segments_async._sansio.api.redaction import redact
from segments_async._sansio.api.wire import (
    LONGEST_ID,
    ApiAnswer,
    ApiRequest,
    checked_id,
    list_request,
    poll_request,
    status_error,
    submit_request,
)
from segments_async._sansio.jobs.exports import is_complete, seconds_taken
from segments_async._sansio.jobs.lifecycle import Event, State, advance
from segments_async._sansio.jobs.verdict import (
    Missing,
    PollJob,
    Result,
    Submitted,
    Verdict,
    anothers_export,
    fatal,
    is_away,
    on_poll,
    on_submit,
)
from segments_async._sansio.pace.refusals import Refusals
from segments_async._sansio.pace.scheduler import Kind, QueuedRequest, next_poll_at
from segments_async.errors import (
    APIConnectionError,
    DecodeError,
    SegmentsError,
)
from segments_async.models import Export, ExportStatus, OutputFormat

logger: logging.Logger = logging.getLogger("segments_async")

#: Seconds that a POST on the wire goes on after its caller was cancelled, so that its id is kept.
POST_GRACE = 1.0

#: Seconds for which an export that everybody stopped waiting for is still joined by the next
#: caller, rather than run twice. Longer, and a service's next night would get last night's users.
ABANDONED_JOIN = 3600.0

#: A single call's POST is tried this often, where trying again is safe.
TRIES_ALONE = 5

#: So many statuses that the page doesn't know are told of.
UNKNOWN_STATUSES = 20

#: Statuses of a list that was asked for in the place of a POST which say that the vendor is there,
#: and nothing of exports: an account may be allowed to export, and not to list.
_THERE = frozenset({401, 403, 429})

#: Polls in a row without a status after which a person should know.
SETBACKS_TO_WARN = 5


class Follower(Protocol):
    """Somebody who waits for a flight: a single caller, or a run."""

    @property
    def mailbox(self) -> Mailbox: ...
    async def record(self, shared: SharedExport, event: Event) -> None:
        """Keep the event, durably where that is promised, before anything follows from it."""
        ...

    async def unfinished(self, shared: SharedExport, now: float, *, answered: bool) -> None:
        """A poll came back, and the export goes on."""
        ...

    async def ended(self, shared: SharedExport) -> None:
        """Nothing more will be asked of the vendor. Never raises: the task may be another's."""
        ...


class SharedExport:
    """One export at the vendor, from the first wish for it to its end there."""

    __slots__ = (
        "abandoned_at",
        "alone",
        "error",
        "export",
        "export_id",
        "followers",
        "missing",
        "output_format",
        "queued",
        "refusals",
        "resumable",
        "segment_id",
        "setback",
        "setbacks",
        "state",
        "submitted",
        "submitted_at",
        "tries",
    )

    def __init__(self, segment_id: str | None, output_format: OutputFormat) -> None:
        #: None until an answer tells, where only an export id was given.
        self.segment_id: str | None = segment_id
        self.output_format: OutputFormat = output_format
        self.state: State = State.NEW
        self.export_id: str | None = None
        self.export: Export | None = None
        self.error: SegmentsError | None = None
        #: Whether going on later costs no second export; meant for flights that ended in an error.
        self.resumable: bool = False
        self.submitted: Submitted = "no"
        self.submitted_at: float = math.nan
        self.followers: dict[Follower, None] = {}
        self.abandoned_at: float | None = None
        #: Polls in a row that brought no status, and why the last one didn't.
        self.setbacks: int = 0
        self.setback: SegmentsError | None = None
        #: Whether one call asked for it, which joins no other and is joined by none before its POST
        #: is accepted.
        self.alone: bool = False
        #: Submits that came to nothing, and those of them that were answered "not now".
        self.tries: int = 0
        self.refusals: Refusals = Refusals()
        self.missing: Missing | None = None
        self.queued: QueuedRequest[Target] = QueuedRequest(Kind.SUBMIT, self)

    @property
    def ended(self) -> bool:
        """Nothing more will be asked of the vendor."""
        return self.state not in (State.NEW, State.INTENT, State.SUBMITTED)

    def deliver(self, permit: Permit, /) -> None:
        """The gate grants this flight's request: any of its parties may send it."""
        next(iter(self.followers)).mailbox.deliver(permit)

    def fresh_error(self) -> SegmentsError:
        """The error, anew for each caller: a shared one would collect all their tracebacks."""
        if self.error is None:
            raise AssertionError("a flight without an error was asked for it")
        error = copy.copy(self.error)
        error.__cause__ = self.error.__cause__
        return error


def last_setback(shared: SharedExport) -> str:
    """Why the last polls brought no status, for the end of a message; empty where they did."""
    if shared.setback is None:
        return ""
    polls = "poll" if shared.setbacks == 1 else f"{shared.setbacks} polls"
    return f"; the last {polls} brought no status: {shared.setback}"


class ExportRegistry:
    """The flights of one client, and how their requests are sent."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._by_segment: dict[str, SharedExport] = {}
        self._by_export: dict[str, SharedExport] = {}
        self._alone: dict[SharedExport, None] = {}
        self._abandoned: dict[SharedExport, None] = {}
        self._unknown_statuses: set[str] = set()
        #: Seconds that the last export of each segment took: a guess at the next one's.
        self._durations: dict[str, float] = {}

    def join_segment(
        self,
        follower: Follower,
        segment_id: str,
        *,
        expected_seconds: float = 0.0,
        output_format: OutputFormat = OutputFormat.CSV,
    ) -> SharedExport:
        """Join the segment's flight, or start one."""
        self._sweep()
        shared = self._by_segment.get(segment_id)
        if shared is None or shared.ended:
            shared = self._by_segment[segment_id] = SharedExport(segment_id, output_format)
            shared.queued.key = -(expected_seconds or self._durations.get(segment_id, 0.0))
        self._follow_export(follower, shared)
        return shared

    def join_export(
        self, follower: Follower, export_id: str, export: Export | None, *, age: float = 0.0
    ) -> SharedExport:
        """Join the flight of an export that was asked for before, here or elsewhere.

        `age`: seconds since its POST was accepted, as far as is known.
        """
        shared = self._by_export.get(checked_id("an export", export_id))
        if shared is None or shared.ended:
            shared = self._adopted(export_id, export)
        if export is not None:
            self._learn(shared, export)
        shared.submitted_at = min(shared.submitted_at, anyio.current_time() - age)
        self._follow_export(follower, shared)
        return shared

    def start_alone(
        self, follower: Follower, segment_id: str, output_format: OutputFormat
    ) -> SharedExport:
        """Start an export of the segment, whatever else is under way. Its POST goes next."""
        self._sweep()
        shared = SharedExport(segment_id, output_format)
        shared.alone = True
        shared.queued.key = -math.inf
        self._alone[shared] = None
        self._follow_export(follower, shared)
        return shared

    def share(self, shared: SharedExport) -> None:
        """Have the next `export()` of its segment join it, unless another one is under way."""
        known = self._by_segment.get(shared.segment_id or "")
        if shared.segment_id is not None and (known is None or known.ended):
            self._by_segment[shared.segment_id] = shared

    def unfollow(self, follower: Follower, shared: SharedExport) -> None:
        """No more waiting for it. Without parties, nothing more is sent for it."""
        shared.followers.pop(follower, None)
        if shared.followers or shared.ended:
            return
        self._gate.cancel(shared.queued)
        if shared.state is State.SUBMITTED:
            shared.abandoned_at = anyio.current_time()
            self._abandoned[shared] = None
            self._gate.pending_ended()
            self._sweep()
        else:
            self._forget(shared)

    @contextlib.contextmanager
    def waiting(
        self, mailbox: Mailbox, follower: Follower, shared: SharedExport
    ) -> Generator[None]:
        """Leave the flight at the end, and give back its tickets that nobody spent."""
        try:
            yield
        finally:
            self.unfollow(follower, shared)
            self.release(mailbox)

    def release(self, mailbox: Mailbox) -> None:
        """Give unspent tickets back; flights that others wait for want their request again."""
        items = list(mailbox.items)
        mailbox.items.clear()
        for permit in items:
            if isinstance(permit, Permit):
                shared = permit.queued.target
                if isinstance(shared, SharedExport):
                    self._requeue(shared, permit.queued.key)
                self._gate.release(permit)

    async def perform(self, permit: Permit) -> None:
        """Send the request that was granted, and draw the conclusions."""
        shared = permit.queued.target
        if not isinstance(shared, SharedExport):
            raise AssertionError("a ticket for something else")
        if not shared.followers:
            # Left by everybody between the grant and now: nothing more is sent for it.
            self._requeue(shared, permit.queued.key)
            self._gate.release(permit)
        elif permit.instead:
            await self._instead(shared, permit)
        elif shared.state is State.NEW:
            await self._submit(shared, permit)
        else:
            await self._poll(shared, permit)

    # ----------------------------------------------------------------- coming and going

    def _adopted(self, export_id: str, export: Export | None) -> SharedExport:
        segment_id = None if export is None else export.segment.segment_id
        shared = SharedExport(segment_id, OutputFormat.CSV)
        shared.state = advance(shared.state, Event.ADOPTED)
        shared.submitted = "yes"
        shared.submitted_at = shared.queued.key = anyio.current_time()
        shared.queued.kind = Kind.POLL
        shared.export_id = export_id
        shared.export = export
        shared.abandoned_at = shared.submitted_at
        self._by_export[export_id] = shared
        return shared

    def _follow_export(self, follower: Follower, shared: SharedExport) -> None:
        first = not shared.followers
        shared.followers[follower] = None
        if not first:
            return
        if shared.abandoned_at is not None:
            shared.abandoned_at = None
            self._abandoned.pop(shared, None)
            self._gate.pending_began()
        self._gate.add(shared.queued)

    def _sweep(self) -> None:
        """Forget the flights that were abandoned too long ago to be joined."""
        before = anyio.current_time() - ABANDONED_JOIN
        while shared := next(iter(self._abandoned), None):  # the one that was left first
            if shared.abandoned_at is not None and shared.abandoned_at > before:
                return
            del self._abandoned[shared]
            self._forget(shared)

    def _forget(self, shared: SharedExport) -> None:
        self._alone.pop(shared, None)
        if shared.segment_id and self._by_segment.get(shared.segment_id) is shared:
            del self._by_segment[shared.segment_id]
        if shared.export_id and self._by_export.get(shared.export_id) is shared:
            del self._by_export[shared.export_id]

    def _requeue(self, shared: SharedExport, key: float) -> None:
        """Queue the export's next request, at its place among the others (`QueuedRequest.key`)."""
        if shared.state is State.NEW and shared.queued.kind is Kind.SUBMIT:
            self._gate.submit_undone()
        shared.queued.key = key
        if shared.followers:
            self._gate.add(shared.queued)

    async def _advance(self, shared: SharedExport, event: Event) -> None:
        shared.state = advance(shared.state, event)
        for follower in tuple(shared.followers):
            if follower in shared.followers:  # it may have left while another one recorded
                await follower.record(shared, event)

    async def _follow(self, shared: SharedExport, verdict: Verdict, now: float) -> None:
        """Put a verdict into effect."""
        if verdict.export is not None:
            self._learn(shared, verdict.export)
        shared.submitted = verdict.submitted
        shared.missing = verdict.missing
        if verdict.again_at is None:
            await self._end(shared, verdict)
            return
        for event in verdict.events:
            await self._advance(shared, event)
        # What is to be asked again at once keeps its place among the others.
        self._requeue(shared, verdict.again_at if verdict.again_at > now else shared.queued.key)
        answered = verdict.export is not None or verdict.setback is not None
        for follower in tuple(shared.followers):
            if follower in shared.followers:
                await follower.unfinished(shared, now, answered=answered)

    async def _end(self, shared: SharedExport, verdict: Verdict, *, counted: bool = True) -> None:
        """Nothing more is asked of the vendor. `counted`: among the jobs at work there."""
        *before, last = verdict.events
        for event in before:
            await self._advance(shared, event)
        shared.error = verdict.error
        shared.resumable = verdict.resumable
        if counted and (shared.state is not State.SUBMITTED or shared.followers):
            self._gate.pending_ended()
        self._forget(shared)
        await self._advance(shared, last)
        for follower in tuple(shared.followers):
            if follower in shared.followers:
                await follower.ended(shared)

    async def _unsent(self, shared: SharedExport, permit: Permit) -> None:
        """Something came between INTENT and the first byte."""
        try:
            with anyio.CancelScope(shield=True):
                await self._not_sent(shared)
        finally:
            self._requeue(shared, shared.queued.key)
            self._gate.release(permit)

    async def _not_sent(self, shared: SharedExport) -> None:
        shared.submitted = "no"
        await self._advance(shared, Event.NOT_SENT)

    def _learn(self, shared: SharedExport, export: Export) -> None:
        shared.export = export
        # Of an export known by its id alone, the first answer tells the segment.
        shared.segment_id = shared.segment_id or export.segment.segment_id or None
        seconds = seconds_taken(export)
        if seconds is not None and shared.segment_id is not None:
            self._durations[shared.segment_id] = seconds
        if not isinstance(export.status, ExportStatus) and not is_complete(export):
            self._warn_of_unknown(export.status)

    def _warn_of_unknown(self, status: str) -> None:
        shown = redact(status)[:LONGEST_ID]
        # A few: a vendor that writes how far it is ("37 %") has a new one at each poll.
        if shown not in self._unknown_statuses and len(self._unknown_statuses) < UNKNOWN_STATUSES:
            self._unknown_statuses.add(shown)
            logger.warning("unknown export status %r: taken as not finished", shown)

    # ----------------------------------------------------------------- requests

    async def _submit(self, shared: SharedExport, permit: Permit) -> None:
        if shared.segment_id is None:
            raise AssertionError("a submit without a segment")
        request = submit_request(shared.segment_id, shared.output_format)
        try:
            await self._advance(shared, Event.INTENT)
            # From here on it is shielded: who was cancelled already sends no POST.
            await anyio.lowlevel.checkpoint_if_cancelled()
        except BaseException:
            await self._unsent(shared, permit)
            raise
        if not shared.followers:
            await self._unsent(shared, permit)
            return
        shared.submitted = "maybe"
        try:
            result: Result = await self._gate.send(permit, request)
        except (APIConnectionError, DecodeError) as exc:
            result = exc
        except BaseException:
            # Cancelled, or a fault of a caller's HTTP client: others wait for this flight's end.
            with anyio.CancelScope(shield=True):
                if permit.may_have_left:
                    await self._on_submit(shared, permit, request, None)
                else:
                    await self._not_sent(shared)
                    self._requeue(shared, shared.queued.key)
            raise
        await self._on_submit(shared, permit, request, result)
        if isinstance(result, ApiAnswer) and result.raised is not None:
            if shared.export_id is not None:
                result.raised.add_note(f"the vendor had accepted export {shared.export_id}")
            raise result.raised

    async def _on_submit(
        self, shared: SharedExport, permit: Permit, request: ApiRequest, result: Result
    ) -> None:
        now = result.at if isinstance(result, ApiAnswer) else anyio.current_time()
        segment_id = shared.segment_id or ""
        verdict = on_submit(segment_id, request, result, now=now, chance=random.random())
        if verdict.export is not None and self._is_anothers(shared, verdict.export):
            verdict = anothers_export(segment_id, request)
        first = verdict.events[0]
        if first is Event.NOT_SENT:
            await self._on_submit_not_sent(shared, verdict, result, now)
            return
        away = isinstance(result, ApiAnswer) and is_away(result)
        if isinstance(result, ApiAnswer | DecodeError) and not away:  # of those, the gate knows
            self._gate.submit_judged(permit, known=first is not Event.LOST)
        if first is Event.ACCEPTED and verdict.export is not None:
            self._on_accepted(shared, verdict.export, now)
            if shared.alone and verdict.again_at is not None:
                # Whoever waits for it later asks at once.
                verdict = attrs.evolve(verdict, again_at=now)
        elif first is Event.LOST:
            logger.warning("%s", verdict.error)
        await self._follow(shared, verdict, now)

    def _is_anothers(self, shared: SharedExport, export: Export) -> bool:
        """Whether the export is known as another segment's: its file has the other one's users."""
        known = self._by_export.get(export.export_id)
        return known is not None and known.segment_id not in (None, shared.segment_id)

    async def _on_submit_not_sent(
        self, shared: SharedExport, verdict: Verdict, result: Result, now: float
    ) -> None:
        """The vendor did nothing about it: once more, for as long as that may help."""
        shared.tries += 1
        await self._not_sent(shared)
        pause = self._refused(shared, now) if isinstance(result, ApiAnswer) else 0.0
        given_up = shared.alone and shared.tries == TRIES_ALONE
        if given_up or shared.refusals.lasting(now) or self._gate.outage.hopeless(now):
            if shared.refusals.lasting(now):
                logger.warning(
                    "segment %s: its export request is refused while others pass; given up: %s",
                    shared.segment_id,
                    verdict.error,
                )
            await self._end(shared, attrs.evolve(verdict, events=(Event.GAVE_UP,)))
            return
        later = max(verdict.again_at or now, now + pause)
        shared.queued.not_before = later if later > now else -math.inf
        self._requeue(shared, shared.queued.key)

    def _refused(self, shared: SharedExport, now: float) -> float:
        """The vendor said "not now". Returns for how many seconds to leave this submit alone."""
        shared.refusals = shared.refusals.refused(
            now, granted=self._gate.granted, others=self._gate.pending - 1
        )
        shared.queued.suspect = shared.refusals.suspicious
        return shared.refusals.pause

    def _on_accepted(self, shared: SharedExport, export: Export, now: float) -> None:
        shared.export_id = export.export_id
        shared.submitted_at = now
        shared.queued.kind, shared.queued.key = Kind.POLL, now
        self._by_export[export.export_id] = shared
        if shared.alone:
            self._alone.pop(shared, None)
            self.share(shared)

    async def _poll(self, shared: SharedExport, permit: Permit) -> None:
        if shared.export_id is None:
            raise AssertionError("a poll without an export")
        request = poll_request(shared.export_id)
        try:
            result: Result = await self._gate.send(permit, request)
        except (APIConnectionError, DecodeError) as exc:
            result = exc
        except BaseException:
            # Cancelled, or a fault of a caller's HTTP client. This poll has gone out: whoever else
            # waits asks no sooner than after another.
            self._requeue(shared, next_poll_at(anyio.current_time(), shared.submitted_at))
            raise
        now = result.at if isinstance(result, ApiAnswer) else anyio.current_time()
        job = PollJob(
            export_id=shared.export_id,
            segment_id=shared.segment_id,
            submitted_at=shared.submitted_at,
            setbacks=shared.setbacks,
            missing=shared.missing,
        )
        verdict = on_poll(job, request, result, now=now, chance=random.random())
        if verdict.setback is not None:
            self._on_setback(shared, verdict.setback)
        elif verdict.export is not None:
            shared.setbacks, shared.setback = 0, None
        await self._follow(shared, verdict, now)

    def _on_setback(self, shared: SharedExport, why: SegmentsError) -> None:
        shared.setback = why
        shared.setbacks += 1
        level = logging.WARNING if shared.setbacks == SETBACKS_TO_WARN else logging.INFO
        logger.log(level, "%s; asking again later", why)

    async def _instead(self, shared: SharedExport, permit: Permit) -> None:
        """Ask for the list in the place of a POST, to see whether the vendor is there."""
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
            self._requeue(shared, key)
            raise
        else:
            shared.queued.suspect = shared.queued.suspect and answer.status == 429
            if is_away(answer) or not (200 <= answer.status <= 299 or answer.status in _THERE):
                error = status_error(request, answer)
        shared.tries += error is not None
        self._requeue(shared, key)
        if error is not None:
            await self._on_instead_failed(shared, error)

    async def _on_instead_failed(self, shared: SharedExport, error: SegmentsError) -> None:
        if not fatal(error) and self._gate.outage.hopeless(anyio.current_time()):
            failure = [f for f in (*self._alone, *self._by_segment.values()) if f.followers]
        elif fatal(error) or (shared.alone and shared.tries >= TRIES_ALONE):
            failure = [shared]
        else:
            return
        verdict = Verdict(events=(Event.GAVE_UP,), error=error, submitted="no", resumable=True)
        for waiting in failure:
            if waiting.state is State.NEW and waiting.followers and waiting.queued.entry:
                self._gate.cancel(waiting.queued)
                waiting.submitted = "no"
                await self._end(waiting, verdict, counted=False)
