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
from segments_async._pace.gate import Gate, Inbox, Target, Ticket
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
from segments_async._sansio.pace.scheduler import Kind, Want, next_poll_at
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


class Party(Protocol):
    """Somebody who waits for a flight: a single caller, or a run."""

    @property
    def inbox(self) -> Inbox: ...
    async def record(self, flight: Flight, event: Event) -> None:
        """Keep the event, durably where that is promised, before anything follows from it."""
        ...

    async def unfinished(self, flight: Flight, now: float, *, answered: bool) -> None:
        """A poll came back, and the export goes on."""
        ...

    async def ended(self, flight: Flight) -> None:
        """Nothing more will be asked of the vendor. Never raises: the task may be another's."""
        ...


class Flight:
    """One export at the vendor, from the first wish for it to its end there."""

    __slots__ = (
        "abandoned_at",
        "alone",
        "error",
        "export",
        "export_id",
        "missing",
        "output_format",
        "parties",
        "refusals",
        "resumable",
        "segment_id",
        "setback",
        "setbacks",
        "state",
        "submitted",
        "submitted_at",
        "tries",
        "want",
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
        self.parties: dict[Party, None] = {}
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
        self.want: Want[Target] = Want(Kind.SUBMIT, self)

    @property
    def ended(self) -> bool:
        """Nothing more will be asked of the vendor."""
        return self.state not in (State.NEW, State.INTENT, State.SUBMITTED)

    def deliver(self, ticket: Ticket, /) -> None:
        """The gate grants this flight's request: any of its parties may send it."""
        next(iter(self.parties)).inbox.deliver(ticket)

    def fresh_error(self) -> SegmentsError:
        """The error, anew for each caller: a shared one would collect all their tracebacks."""
        if self.error is None:
            raise AssertionError("a flight without an error was asked for it")
        error = copy.copy(self.error)
        error.__cause__ = self.error.__cause__
        return error


def last_setback(flight: Flight) -> str:
    """Why the last polls brought no status, for the end of a message; empty where they did."""
    if flight.setback is None:
        return ""
    polls = "poll" if flight.setbacks == 1 else f"{flight.setbacks} polls"
    return f"; the last {polls} brought no status: {flight.setback}"


class Flights:
    """The flights of one client, and how their requests are sent."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._by_segment: dict[str, Flight] = {}
        self._by_export: dict[str, Flight] = {}
        self._alone: dict[Flight, None] = {}
        self._abandoned: dict[Flight, None] = {}
        self._unknown_statuses: set[str] = set()
        #: Seconds that the last export of each segment took: a guess at the next one's.
        self._durations: dict[str, float] = {}

    def join_segment(
        self,
        party: Party,
        segment_id: str,
        *,
        expected_seconds: float = 0.0,
        output_format: OutputFormat = OutputFormat.CSV,
    ) -> Flight:
        """Join the segment's flight, or start one."""
        self._sweep()
        flight = self._by_segment.get(segment_id)
        if flight is None or flight.ended:
            flight = self._by_segment[segment_id] = Flight(segment_id, output_format)
            flight.want.key = -(expected_seconds or self._durations.get(segment_id, 0.0))
        self._board(party, flight)
        return flight

    def join_export(
        self, party: Party, export_id: str, export: Export | None, *, age: float = 0.0
    ) -> Flight:
        """Join the flight of an export that was asked for before, here or elsewhere.

        `age`: seconds since its POST was accepted, as far as is known.
        """
        flight = self._by_export.get(checked_id("an export", export_id))
        if flight is None or flight.ended:
            flight = self._adopted(export_id, export)
        if export is not None:
            self._learn(flight, export)
        flight.submitted_at = min(flight.submitted_at, anyio.current_time() - age)
        self._board(party, flight)
        return flight

    def start_alone(self, party: Party, segment_id: str, output_format: OutputFormat) -> Flight:
        """Start an export of the segment, whatever else is under way. Its POST goes next."""
        self._sweep()
        flight = Flight(segment_id, output_format)
        flight.alone = True
        flight.want.key = -math.inf
        self._alone[flight] = None
        self._board(party, flight)
        return flight

    def share(self, flight: Flight) -> None:
        """Have the next `export()` of its segment join it, unless another one is under way."""
        known = self._by_segment.get(flight.segment_id or "")
        if flight.segment_id is not None and (known is None or known.ended):
            self._by_segment[flight.segment_id] = flight

    def leave(self, party: Party, flight: Flight) -> None:
        """No more waiting for it. Without parties, nothing more is sent for it."""
        flight.parties.pop(party, None)
        if flight.parties or flight.ended:
            return
        self._gate.discard(flight.want)
        if flight.state is State.SUBMITTED:
            flight.abandoned_at = anyio.current_time()
            self._abandoned[flight] = None
            self._gate.pending_ended()
            self._sweep()
        else:
            self._forget(flight)

    @contextlib.contextmanager
    def waiting(self, inbox: Inbox, party: Party, flight: Flight) -> Generator[None]:
        """Leave the flight at the end, and give back its tickets that nobody spent."""
        try:
            yield
        finally:
            self.leave(party, flight)
            self.hand_back(inbox)

    def hand_back(self, inbox: Inbox) -> None:
        """Give unspent tickets back; flights that others wait for want their request again."""
        items = list(inbox.items)
        inbox.items.clear()
        for ticket in items:
            if isinstance(ticket, Ticket):
                flight = ticket.want.target
                if isinstance(flight, Flight):
                    self._requeue(flight, ticket.want.key)
                self._gate.hand_back(ticket)

    async def perform(self, ticket: Ticket) -> None:
        """Send the request that was granted, and draw the conclusions."""
        flight = ticket.want.target
        if not isinstance(flight, Flight):
            raise AssertionError("a ticket for something else")
        if not flight.parties:
            # Left by everybody between the grant and now: nothing more is sent for it.
            self._requeue(flight, ticket.want.key)
            self._gate.hand_back(ticket)
        elif ticket.instead:
            await self._instead(flight, ticket)
        elif flight.state is State.NEW:
            await self._submit(flight, ticket)
        else:
            await self._poll(flight, ticket)

    # ----------------------------------------------------------------- coming and going

    def _adopted(self, export_id: str, export: Export | None) -> Flight:
        segment_id = None if export is None else export.segment.segment_id
        flight = Flight(segment_id, OutputFormat.CSV)
        flight.state = advance(flight.state, Event.ADOPTED)
        flight.submitted = "yes"
        flight.submitted_at = flight.want.key = anyio.current_time()
        flight.want.kind = Kind.POLL
        flight.export_id = export_id
        flight.export = export
        flight.abandoned_at = flight.submitted_at
        self._by_export[export_id] = flight
        return flight

    def _board(self, party: Party, flight: Flight) -> None:
        first = not flight.parties
        flight.parties[party] = None
        if not first:
            return
        if flight.abandoned_at is not None:
            flight.abandoned_at = None
            self._abandoned.pop(flight, None)
            self._gate.pending_began()
        self._gate.add(flight.want)

    def _sweep(self) -> None:
        """Forget the flights that were abandoned too long ago to be joined."""
        before = anyio.current_time() - ABANDONED_JOIN
        while flight := next(iter(self._abandoned), None):  # the one that was left first
            if flight.abandoned_at is not None and flight.abandoned_at > before:
                return
            del self._abandoned[flight]
            self._forget(flight)

    def _forget(self, flight: Flight) -> None:
        self._alone.pop(flight, None)
        if flight.segment_id and self._by_segment.get(flight.segment_id) is flight:
            del self._by_segment[flight.segment_id]
        if flight.export_id and self._by_export.get(flight.export_id) is flight:
            del self._by_export[flight.export_id]

    def _requeue(self, flight: Flight, key: float) -> None:
        """Want the flight's next request, at its place among the others (see `Want.key`)."""
        if flight.state is State.NEW and flight.want.kind is Kind.SUBMIT:
            self._gate.submit_undone()
        flight.want.key = key
        if flight.parties:
            self._gate.add(flight.want)

    async def _advance(self, flight: Flight, event: Event) -> None:
        flight.state = advance(flight.state, event)
        for party in tuple(flight.parties):
            if party in flight.parties:  # it may have left while another one recorded
                await party.record(flight, event)

    async def _follow(self, flight: Flight, verdict: Verdict, now: float) -> None:
        """Put a verdict into effect."""
        if verdict.export is not None:
            self._learn(flight, verdict.export)
        flight.submitted = verdict.submitted
        flight.missing = verdict.missing
        if verdict.again_at is None:
            await self._end(flight, verdict)
            return
        for event in verdict.events:
            await self._advance(flight, event)
        # What is to be asked again at once keeps its place among the others.
        self._requeue(flight, verdict.again_at if verdict.again_at > now else flight.want.key)
        answered = verdict.export is not None or verdict.setback is not None
        for party in tuple(flight.parties):
            if party in flight.parties:
                await party.unfinished(flight, now, answered=answered)

    async def _end(self, flight: Flight, verdict: Verdict, *, counted: bool = True) -> None:
        """Nothing more is asked of the vendor. `counted`: among the jobs at work there."""
        *before, last = verdict.events
        for event in before:
            await self._advance(flight, event)
        flight.error = verdict.error
        flight.resumable = verdict.resumable
        if counted and (flight.state is not State.SUBMITTED or flight.parties):
            self._gate.pending_ended()
        self._forget(flight)
        await self._advance(flight, last)
        for party in tuple(flight.parties):
            if party in flight.parties:
                await party.ended(flight)

    async def _unsent(self, flight: Flight, ticket: Ticket) -> None:
        """Something came between INTENT and the first byte."""
        try:
            with anyio.CancelScope(shield=True):
                await self._not_sent(flight)
        finally:
            self._requeue(flight, flight.want.key)
            self._gate.hand_back(ticket)

    async def _not_sent(self, flight: Flight) -> None:
        flight.submitted = "no"
        await self._advance(flight, Event.NOT_SENT)

    def _learn(self, flight: Flight, export: Export) -> None:
        flight.export = export
        # Of an export known by its id alone, the first answer tells the segment.
        flight.segment_id = flight.segment_id or export.segment.segment_id or None
        seconds = seconds_taken(export)
        if seconds is not None and flight.segment_id is not None:
            self._durations[flight.segment_id] = seconds
        if not isinstance(export.status, ExportStatus) and not is_complete(export):
            self._warn_of_unknown(export.status)

    def _warn_of_unknown(self, status: str) -> None:
        shown = redact(status)[:LONGEST_ID]
        # A few: a vendor that writes how far it is ("37 %") has a new one at each poll.
        if shown not in self._unknown_statuses and len(self._unknown_statuses) < UNKNOWN_STATUSES:
            self._unknown_statuses.add(shown)
            logger.warning("unknown export status %r: taken as not finished", shown)

    # ----------------------------------------------------------------- requests

    async def _submit(self, flight: Flight, ticket: Ticket) -> None:
        if flight.segment_id is None:
            raise AssertionError("a submit without a segment")
        request = submit_request(flight.segment_id, flight.output_format)
        try:
            await self._advance(flight, Event.INTENT)
            # From here on it is shielded: who was cancelled already sends no POST.
            await anyio.lowlevel.checkpoint_if_cancelled()
        except BaseException:
            await self._unsent(flight, ticket)
            raise
        if not flight.parties:
            await self._unsent(flight, ticket)
            return
        flight.submitted = "maybe"
        try:
            result: Result = await self._gate.send(ticket, request)
        except (APIConnectionError, DecodeError) as exc:
            result = exc
        except BaseException:
            # Cancelled, or a fault of a caller's HTTP client: others wait for this flight's end.
            with anyio.CancelScope(shield=True):
                if ticket.may_have_left:
                    await self._on_submit(flight, ticket, request, None)
                else:
                    await self._not_sent(flight)
                    self._requeue(flight, flight.want.key)
            raise
        await self._on_submit(flight, ticket, request, result)
        if isinstance(result, ApiAnswer) and result.raised is not None:
            if flight.export_id is not None:
                result.raised.add_note(f"the vendor had accepted export {flight.export_id}")
            raise result.raised

    async def _on_submit(
        self, flight: Flight, ticket: Ticket, request: ApiRequest, result: Result
    ) -> None:
        now = result.at if isinstance(result, ApiAnswer) else anyio.current_time()
        segment_id = flight.segment_id or ""
        verdict = on_submit(segment_id, request, result, now=now, chance=random.random())
        if verdict.export is not None and self._is_anothers(flight, verdict.export):
            verdict = anothers_export(segment_id, request)
        first = verdict.events[0]
        if first is Event.NOT_SENT:
            await self._on_submit_not_sent(flight, verdict, result, now)
            return
        away = isinstance(result, ApiAnswer) and is_away(result)
        if isinstance(result, ApiAnswer | DecodeError) and not away:  # of those, the gate knows
            self._gate.submit_judged(ticket, known=first is not Event.LOST)
        if first is Event.ACCEPTED and verdict.export is not None:
            self._on_accepted(flight, verdict.export, now)
            if flight.alone and verdict.again_at is not None:
                # Whoever waits for it later asks at once.
                verdict = attrs.evolve(verdict, again_at=now)
        elif first is Event.LOST:
            logger.warning("%s", verdict.error)
        await self._follow(flight, verdict, now)

    def _is_anothers(self, flight: Flight, export: Export) -> bool:
        """Whether the export is known as another segment's: its file has the other one's users."""
        known = self._by_export.get(export.export_id)
        return known is not None and known.segment_id not in (None, flight.segment_id)

    async def _on_submit_not_sent(
        self, flight: Flight, verdict: Verdict, result: Result, now: float
    ) -> None:
        """The vendor did nothing about it: once more, for as long as that may help."""
        flight.tries += 1
        await self._not_sent(flight)
        pause = self._refused(flight, now) if isinstance(result, ApiAnswer) else 0.0
        given_up = flight.alone and flight.tries == TRIES_ALONE
        if given_up or flight.refusals.lasting(now) or self._gate.outage.hopeless(now):
            if flight.refusals.lasting(now):
                logger.warning(
                    "segment %s: its export request is refused while others pass; given up: %s",
                    flight.segment_id,
                    verdict.error,
                )
            await self._end(flight, attrs.evolve(verdict, events=(Event.GAVE_UP,)))
            return
        later = max(verdict.again_at or now, now + pause)
        flight.want.not_before = later if later > now else -math.inf
        self._requeue(flight, flight.want.key)

    def _refused(self, flight: Flight, now: float) -> float:
        """The vendor said "not now". Returns for how many seconds to leave this submit alone."""
        flight.refusals = flight.refusals.refused(
            now, granted=self._gate.granted, others=self._gate.pending - 1
        )
        flight.want.suspect = flight.refusals.suspicious
        return flight.refusals.pause

    def _on_accepted(self, flight: Flight, export: Export, now: float) -> None:
        flight.export_id = export.export_id
        flight.submitted_at = now
        flight.want.kind, flight.want.key = Kind.POLL, now
        self._by_export[export.export_id] = flight
        if flight.alone:
            self._alone.pop(flight, None)
            self.share(flight)

    async def _poll(self, flight: Flight, ticket: Ticket) -> None:
        if flight.export_id is None:
            raise AssertionError("a poll without an export")
        request = poll_request(flight.export_id)
        try:
            result: Result = await self._gate.send(ticket, request)
        except (APIConnectionError, DecodeError) as exc:
            result = exc
        except BaseException:
            # Cancelled, or a fault of a caller's HTTP client. This poll has gone out: whoever else
            # waits asks no sooner than after another.
            self._requeue(flight, next_poll_at(anyio.current_time(), flight.submitted_at))
            raise
        now = result.at if isinstance(result, ApiAnswer) else anyio.current_time()
        job = PollJob(
            export_id=flight.export_id,
            segment_id=flight.segment_id,
            submitted_at=flight.submitted_at,
            setbacks=flight.setbacks,
            missing=flight.missing,
        )
        verdict = on_poll(job, request, result, now=now, chance=random.random())
        if verdict.setback is not None:
            self._on_setback(flight, verdict.setback)
        elif verdict.export is not None:
            flight.setbacks, flight.setback = 0, None
        await self._follow(flight, verdict, now)

    def _on_setback(self, flight: Flight, why: SegmentsError) -> None:
        flight.setback = why
        flight.setbacks += 1
        level = logging.WARNING if flight.setbacks == SETBACKS_TO_WARN else logging.INFO
        logger.log(level, "%s; asking again later", why)

    async def _instead(self, flight: Flight, ticket: Ticket) -> None:
        """Ask for the list in the place of a POST, to see whether the vendor is there."""
        request, key = list_request(), ticket.want.key
        error: SegmentsError | None = None
        try:
            answer = await self._gate.send(ticket, request, cap=LIST_CAP)
        except APIConnectionError as exc:
            error = exc
        except DecodeError:
            # Larger than any list that is read, or in a coding that isn't: the vendor is there.
            flight.want.suspect = False
        except BaseException:
            self._requeue(flight, key)
            raise
        else:
            flight.want.suspect = flight.want.suspect and answer.status == 429
            if is_away(answer) or not (200 <= answer.status <= 299 or answer.status in _THERE):
                error = status_error(request, answer)
        flight.tries += error is not None
        self._requeue(flight, key)
        if error is not None:
            await self._on_instead_failed(flight, error)

    async def _on_instead_failed(self, flight: Flight, error: SegmentsError) -> None:
        if not fatal(error) and self._gate.outage.hopeless(anyio.current_time()):
            ending = [f for f in (*self._alone, *self._by_segment.values()) if f.parties]
        elif fatal(error) or (flight.alone and flight.tries >= TRIES_ALONE):
            ending = [flight]
        else:
            return
        verdict = Verdict(events=(Event.GAVE_UP,), error=error, submitted="no", resumable=True)
        for waiting in ending:
            if waiting.state is State.NEW and waiting.parties and waiting.want.entry:
                self._gate.discard(waiting.want)
                waiting.submitted = "no"
                await self._end(waiting, verdict, counted=False)
